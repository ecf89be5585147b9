//! `global` and `scrape_configs` of a `prometheus.yml`.

use std::collections::BTreeMap;
use std::time::Duration;

use binnacle_model::time::optional_duration;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::target::{PageSource, Target};

/// `global:` as Prometheus has it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Global {
    /// Between scrapes. Default: `1m`.
    #[serde(with = "optional_duration")]
    pub scrape_interval: Option<Duration>,
    /// For one scrape. Default: `10s`, or the interval if that is shorter.
    #[serde(with = "optional_duration")]
    pub scrape_timeout: Option<Duration>,
    /// Between evaluations of rules. Default: `1m`.
    #[serde(with = "optional_duration")]
    pub evaluation_interval: Option<Duration>,
    /// Added to alerts and to what leaves this server.
    pub external_labels: BTreeMap<String, String>,
    /// Longest page. Default: 64 MiB.
    pub body_size_limit: Option<IgnoredAny>,
    query_log_file: Option<IgnoredAny>,
    rule_query_offset: Option<IgnoredAny>,
    scrape_failure_log_file: Option<IgnoredAny>,
    scrape_protocols: Option<IgnoredAny>,
    sample_limit: Option<IgnoredAny>,
    label_limit: Option<IgnoredAny>,
    label_name_length_limit: Option<IgnoredAny>,
    label_value_length_limit: Option<IgnoredAny>,
    target_limit: Option<IgnoredAny>,
    keep_dropped_targets: Option<IgnoredAny>,
    metric_name_validation_scheme: Option<IgnoredAny>,
    metric_name_escaping_scheme: Option<IgnoredAny>,
    always_scrape_classic_histograms: Option<IgnoredAny>,
    convert_classic_histograms_to_nhcb: Option<IgnoredAny>,
    scrape_native_histograms: Option<IgnoredAny>,
    extra_scrape_metrics: Option<IgnoredAny>,
}

/// One of `scrape_configs:`. Keys that are nobody's are refused by [`ScrapeConfig::targets`].
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ScrapeConfig {
    /// Label `job` of all its series.
    pub job_name: String,
    #[serde(with = "optional_duration")]
    scrape_interval: Option<Duration>,
    #[serde(with = "optional_duration")]
    scrape_timeout: Option<Duration>,
    metrics_path: Option<String>,
    scheme: Option<String>,
    honor_labels: bool,
    honor_timestamps: Option<bool>,
    params: BTreeMap<String, Vec<String>>,
    /// Targets by address.
    pub static_configs: Vec<StaticConfig>,
    #[serde(flatten)]
    other: BTreeMap<String, IgnoredAny>,
}

/// Targets with labels of their own.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StaticConfig {
    /// `host:port`
    pub targets: Vec<String>,
    /// Added to all their series.
    pub labels: BTreeMap<String, String>,
}

/// Keys that this release does not use. Those that decide *what* is scraped or stored are refused,
/// because leaving them out would scrape or store something else.
const REFUSED: [&str; 12] = [
    "relabel_configs",
    "metric_relabel_configs",
    "kubernetes_sd_configs",
    "file_sd_configs",
    "dns_sd_configs",
    "http_sd_configs",
    "consul_sd_configs",
    "ec2_sd_configs",
    "basic_auth",
    "authorization",
    "oauth2",
    "tls_config",
];
const IGNORED: [&str; 19] = [
    "body_size_limit",
    "sample_limit",
    "label_limit",
    "label_name_length_limit",
    "label_value_length_limit",
    "target_limit",
    "enable_compression",
    "follow_redirects",
    "enable_http2",
    "scrape_protocols",
    "scrape_fallback_protocol",
    "scrape_classic_histograms",
    "always_scrape_classic_histograms",
    "track_timestamps_staleness",
    "keep_dropped_targets",
    "scrape_failure_log_file",
    "native_histogram_bucket_limit",
    "native_histogram_min_bucket_factor",
    "convert_classic_histograms_to_nhcb",
];

const DEFAULT_INTERVAL: Duration = Duration::from_mins(1);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

impl Global {
    /// Between evaluations of rules.
    pub fn evaluation_interval(&self) -> Duration {
        self.evaluation_interval.unwrap_or(DEFAULT_INTERVAL)
    }
}

impl ScrapeConfig {
    /// The targets that the section names, and warnings about keys that change nothing here.
    ///
    /// # Errors
    /// A sentence that names the job and what is wrong with it.
    pub fn targets(&self, global: &Global) -> Result<(Vec<Target>, Vec<String>), String> {
        let job = &self.job_name;
        if job.is_empty() {
            return Err("scrape config without a job_name".to_owned());
        }
        let place = format!("scrape config {job:?}");
        let mut warnings = Vec::new();
        for key in self.other.keys() {
            if IGNORED.contains(&key.as_str()) {
                warnings.push(format!("{place}: {key} is not used by this release"));
            } else if REFUSED.contains(&key.as_str()) {
                return Err(format!(
                    "{place}: {key} is not supported by this release; remove it to go on without"
                ));
            } else {
                return Err(format!("{place}: unknown key {key:?}"));
            }
        }
        let interval = self.scrape_interval.or(global.scrape_interval).unwrap_or(DEFAULT_INTERVAL);
        let timeout = self.scrape_timeout.or(global.scrape_timeout);
        let timeout = timeout.unwrap_or(DEFAULT_TIMEOUT.min(interval));
        if interval.is_zero() || timeout.is_zero() {
            return Err(format!("{place}: scrape_interval and scrape_timeout must not be zero"));
        }
        if timeout > interval {
            return Err(format!("{place}: scrape_timeout is longer than scrape_interval"));
        }
        let mut targets = Vec::new();
        for group in &self.static_configs {
            for address in &group.targets {
                let url = self.url(address).map_err(|reason| format!("{place}: {reason}"))?;
                let mut target = Target::new(job, address, PageSource::Http(url), interval, timeout);
                target.honor_labels = self.honor_labels;
                target.honor_timestamps = self.honor_timestamps.unwrap_or(true);
                for (name, value) in &group.labels {
                    target.labels = target.labels.with(name, value);
                }
                targets.push(target);
            }
        }
        Ok((targets, warnings))
    }

    fn url(&self, address: &str) -> Result<reqwest::Url, String> {
        let scheme = self.scheme.as_deref().unwrap_or("http");
        if !matches!(scheme, "http" | "https") {
            return Err(format!("scheme {scheme:?} is neither http nor https"));
        }
        if address.contains('/') {
            return Err(format!("target {address:?} must be host:port, without a scheme or path"));
        }
        let path = self.metrics_path.as_deref().unwrap_or("/metrics");
        let text = format!("{scheme}://{address}{path}");
        let mut url = reqwest::Url::parse(&text).map_err(|error| format!("target {address:?}: {error}"))?;
        if !self.params.is_empty() {
            let mut query = url.query_pairs_mut();
            for (name, values) in &self.params {
                values.iter().for_each(|value| {
                    query.append_pair(name, value);
                });
            }
        }
        Ok(url)
    }
}
