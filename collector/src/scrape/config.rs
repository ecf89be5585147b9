//! `global` and `scrape_configs` of a `prometheus.yml`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use binnacle_model::time::optional_duration;
use binnacle_model::yaml::null_is_default;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::pool::{Defaults, Pool, check_address};
use super::target::Target;
use crate::outgoing::{RawAuthorization, RawBasicAuth, RawHeader, RawTls, Secret, way_of};
use crate::relabel::{RawRule, read_rules};

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
    #[serde(deserialize_with = "null_is_default")]
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

/// Targets with labels of their own.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StaticConfig {
    /// `host:port`
    #[serde(deserialize_with = "null_is_default")]
    pub targets: Vec<String>,
    /// Added to all their series.
    #[serde(deserialize_with = "null_is_default")]
    pub labels: BTreeMap<String, String>,
}

/// A section with the keys that are understood, and others that a `prometheus.yml` may have and that change nothing here.
macro_rules! scrape_config {
    ($($ignored:ident)*; $($discovery:ident)*) => {
        /// One of `scrape_configs:` as the operator wrote it. Nothing here has been checked.
        #[derive(Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct ScrapeConfig {
            /// Label `job` of all its series, unless a rule changes it.
            pub job_name: String,
            #[serde(with = "optional_duration")]
            scrape_interval: Option<Duration>,
            #[serde(with = "optional_duration")]
            scrape_timeout: Option<Duration>,
            metrics_path: Option<String>,
            scheme: Option<String>,
            honor_labels: bool,
            honor_timestamps: Option<bool>,
            #[serde(deserialize_with = "null_is_default")]
            params: BTreeMap<String, Vec<String>>,
            /// Targets by address.
            #[serde(deserialize_with = "null_is_default")]
            pub static_configs: Vec<StaticConfig>,
            #[serde(deserialize_with = "null_is_default")]
            relabel_configs: Vec<RawRule>,
            #[serde(deserialize_with = "null_is_default")]
            metric_relabel_configs: Vec<RawRule>,
            follow_redirects: Option<bool>,
            basic_auth: Option<RawBasicAuth>,
            authorization: Option<RawAuthorization>,
            bearer_token: Option<Secret>,
            bearer_token_file: Option<PathBuf>,
            #[serde(deserialize_with = "null_is_default")]
            tls_config: RawTls,
            proxy_url: Option<Secret>,
            no_proxy: Option<String>,
            proxy_from_environment: bool,
            #[serde(deserialize_with = "null_is_default")]
            http_headers: BTreeMap<String, RawHeader>,
            oauth2: Option<IgnoredAny>,
            proxy_connect_header: Option<IgnoredAny>,
            $($ignored: Option<IgnoredAny>,)*
            $($discovery: Option<IgnoredAny>,)*
        }

        impl ScrapeConfig {
            fn unused(&self) -> Vec<String> {
                let ignored = [$((stringify!($ignored), self.$ignored.is_some())),*];
                let discovery = [$((stringify!($discovery), self.$discovery.is_some())),*];
                let there = |(key, is_there): (&'static str, bool)| is_there.then_some(key);
                let ignored = ignored.into_iter().filter_map(there);
                let ignored = ignored.map(|key| format!("{key} is not used by this release"));
                let discovery = discovery.into_iter().filter_map(there);
                let discovery = discovery.map(|key| {
                    format!("{key} finds no targets in this release: only those of static_configs are scraped")
                });
                ignored.chain(discovery).collect()
            }
        }
    };
}

scrape_config! {
    body_size_limit sample_limit label_limit label_name_length_limit label_value_length_limit target_limit
    enable_compression enable_http2 scrape_protocols fallback_scrape_protocol always_scrape_classic_histograms
    scrape_classic_histograms scrape_native_histograms convert_classic_histograms_to_nhcb extra_scrape_metrics
    native_histogram_bucket_limit native_histogram_min_bucket_factor track_timestamps_staleness
    keep_dropped_targets scrape_failure_log_file metric_name_validation_scheme metric_name_escaping_scheme;
    aws_sd_configs azure_sd_configs consul_sd_configs digitalocean_sd_configs dns_sd_configs docker_sd_configs
    dockerswarm_sd_configs ec2_sd_configs eureka_sd_configs file_sd_configs gce_sd_configs hetzner_sd_configs
    http_sd_configs ionos_sd_configs kubernetes_sd_configs kuma_sd_configs lightsail_sd_configs linode_sd_configs
    marathon_sd_configs nerve_sd_configs nomad_sd_configs openstack_sd_configs ovhcloud_sd_configs
    puppetdb_sd_configs scaleway_sd_configs serverset_sd_configs stackit_sd_configs triton_sd_configs
    uyuni_sd_configs vultr_sd_configs
}

const DEFAULT_INTERVAL: Duration = Duration::from_mins(1);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

impl Global {
    /// Between evaluations of rules.
    pub fn evaluation_interval(&self) -> Duration {
        self.evaluation_interval.unwrap_or(DEFAULT_INTERVAL)
    }
}

/// What a section comes to.
#[derive(Debug)]
pub struct Section {
    /// What its targets share.
    pub pool: Arc<Pool>,
    /// What is scraped.
    pub targets: Vec<Target>,
    /// Keys that change nothing here, and targets that cannot be scraped.
    pub warnings: Vec<String>,
}

impl ScrapeConfig {
    /// Checks the section; files are relative to `dir`.
    ///
    /// # Errors
    /// A sentence that names the job and what is wrong with it.
    pub fn check(self, global: &Global, dir: &Path) -> Result<Section, String> {
        if self.job_name.is_empty() {
            return Err("scrape config without a job_name".to_owned());
        }
        let place = format!("scrape config {:?}", self.job_name);
        let told = |reason: String| format!("{place}: {reason}");
        let mut warnings = self.unused();
        let static_configs = &self.static_configs;
        if self.relabel_configs.is_empty() {
            for address in static_configs.iter().flat_map(|group| &group.targets) {
                check_address(address).map_err(|reason| told(format!("target {reason}")))?;
            }
        }
        let addresses: Vec<(String, BTreeMap<String, String>)> = static_configs
            .iter()
            .flat_map(|group| group.targets.iter().map(|address| (address.clone(), group.labels.clone())))
            .collect();
        let pool = Arc::new(self.pool(global, dir).map_err(told)?);
        if let Some(key) = pool.unsupported {
            warnings.push(format!("{key} is not supported by this release: its targets are not scraped"));
        }
        let discovered = addresses.iter().map(|(address, labels)| pool.discovered(address, labels)).collect();
        let (targets, failures) = pool.targets(discovered);
        warnings.extend(failures);
        Ok(Section { pool, targets, warnings: warnings.into_iter().map(told).collect() })
    }

    fn pool(mut self, global: &Global, dir: &Path) -> Result<Pool, String> {
        let interval = self.scrape_interval.or(global.scrape_interval).unwrap_or(DEFAULT_INTERVAL);
        let of_all = global.scrape_timeout.unwrap_or(DEFAULT_TIMEOUT).min(interval);
        let timeout = self.scrape_timeout.unwrap_or(of_all);
        if interval.is_zero() || timeout.is_zero() {
            return Err("scrape_interval and scrape_timeout must not be zero".to_owned());
        }
        if timeout > interval {
            return Err("scrape_timeout is longer than scrape_interval".to_owned());
        }
        let scheme = self.scheme.take().unwrap_or_else(|| "http".to_owned());
        if !matches!(scheme.as_str(), "http" | "https") {
            return Err(format!("scheme {scheme:?} is neither http nor https"));
        }
        let way = way_of!(self);
        let unsupported = way.unsupported();
        Ok(Pool {
            way: way.check(&BTreeMap::new(), dir)?,
            unsupported,
            relabel: read_rules("relabel_configs", self.relabel_configs)?,
            metric_relabel: read_rules("metric_relabel_configs", self.metric_relabel_configs)?,
            honor_labels: self.honor_labels,
            ignore_timestamps: !self.honor_timestamps.unwrap_or(true),
            follow_redirects: self.follow_redirects.unwrap_or(true),
            defaults: Defaults {
                interval,
                timeout,
                path: self.metrics_path.unwrap_or_else(|| "/metrics".to_owned()),
                scheme,
                params: self.params,
            },
            job: self.job_name,
            ..Pool::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(yaml: &str) -> Result<Section, String> {
        let global: Global = serde_saphyr::from_str("{scrape_interval: 15s, scrape_timeout: 5s}").unwrap();
        let raw: ScrapeConfig = serde_saphyr::from_str(yaml).unwrap();
        raw.check(&global, Path::new("/etc/b"))
    }

    fn shown(section: &Section) -> Vec<String> {
        section.targets.iter().map(|target| format!("{} {}", target.labels, target.source)).collect()
    }

    #[test]
    fn a_probe_is_relabelled_as_everybody_does() {
        let section = check(
            "
            job_name: blackbox
            metrics_path: /probe
            params: {module: [http_2xx], shard: [1, 2]}
            static_configs: [{targets: ['https://a.example/x', 'https://a.example/x'], labels: {port: 80}}]
            relabel_configs:
            - {source_labels: [__address__], target_label: __param_target}
            - {source_labels: [__param_target], target_label: instance}
            - {target_label: __address__, replacement: 'exporter:9115'}
            - {target_label: __scrape_interval__, replacement: 1m}
            ",
        )
        .unwrap();
        let url =
            "http://exporter:9115/probe?module=http_2xx&shard=1&shard=2&target=https%3A%2F%2Fa.example%2Fx";
        let labels = "{instance=\"https://a.example/x\", job=\"blackbox\", port=\"80\"}";
        assert_eq!(shown(&section), [format!("{labels} {url}")], "equal targets are one");
        let target = &section.targets[0];
        assert_eq!((target.interval, target.timeout), (Duration::from_mins(1), Duration::from_secs(5)));
        let discovered = r#"{__address__="https://a.example/x", __metrics_path__="/probe", __param_module="http_2xx", __param_shard="1", __scheme__="http", __scrape_interval__="15s", __scrape_timeout__="5s", job="blackbox", port="80"}"#;
        assert_eq!(target.discovered.to_string(), discovered);
        assert_eq!(section.warnings, Vec::<String>::new());
    }

    #[test]
    fn what_the_rules_let_go_is_shown_and_what_they_spoil_is_a_warning() {
        let section = check(
            "
            job_name: j
            static_configs: [{targets: ['a:1', 'b:1', 'c:1', 'd:1'], labels: {job: other, __meta_x: y}}]
            relabel_configs:
            - {source_labels: [__address__], regex: 'b.*', action: drop}
            - {source_labels: [__address__], regex: 'c.*', target_label: __address__, replacement: 'http://c'}
            - {source_labels: [__address__], regex: 'd.*', target_label: __scrape_timeout__, replacement: 20s}
            ",
        )
        .unwrap();
        assert_eq!(shown(&section), ["{instance=\"a:1\", job=\"other\"} http://a:1/metrics"]);
        assert_eq!(section.pool.dropped()[0].value("__address__"), "b:1");
        let wanted = ["not a valid hostname", "cannot be greater than scrape interval (\"20s\" > \"15s\")"];
        for (warning, want) in section.warnings.iter().zip(wanted) {
            assert!(warning.contains(want), "{warning}");
        }
        assert_eq!(section.warnings.len(), 2);
    }

    #[test]
    fn other_discovery_is_a_warning_and_an_unknown_key_an_error() {
        let section = check(
            "{job_name: k, kubernetes_sd_configs: [{role: pod}], sample_limit: 5, oauth2: {client_id: x}}",
        );
        let warnings = section.unwrap().warnings;
        assert!(warnings[0].contains("sample_limit is not used"), "{warnings:?}");
        assert!(warnings[1].contains("kubernetes_sd_configs finds no targets"), "{warnings:?}");
        assert!(warnings[2].contains("oauth2 is not supported"), "{warnings:?}");
        assert!(serde_saphyr::from_str::<ScrapeConfig>("{job_name: k, targts: []}").is_err());
        for (yaml, want) in [
            ("{job_name: k, static_configs: [{targets: ['http://a/']}]}", "is not a valid hostname"),
            ("{job_name: k, scheme: ftp}", "neither http nor https"),
            ("{job_name: k, scrape_timeout: 20s}", "scrape_timeout is longer"),
            (
                "{job_name: k, metric_relabel_configs: [{action: hashmod}]}",
                "metric_relabel_configs[0]: action",
            ),
            ("{job_name: k, basic_auth: {password: a, password_file: b}}", "must not both"),
            ("{static_configs: []}", "without a job_name"),
        ] {
            let error = check(yaml).unwrap_err();
            assert!(error.contains(want), "{error}");
        }
    }
}
