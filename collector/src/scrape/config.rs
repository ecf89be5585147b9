//! `global` and `scrape_configs` of a `prometheus.yml`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use binnacle_model::Labels;
use binnacle_model::time::optional_duration;
use binnacle_model::yaml::null_is_default;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::failures::FailureLog;
use super::limits::{BODY_BYTES, BODY_BYTES_MAX, Limits, schema_of_factor};
use super::pool::{Defaults, Pool, check_address};
use super::protocol::{Protocol, accept, protocols};
use super::target::Target;
use crate::discovery::{ADDRESS, Discovery, RawDnsSd, RawFileSd, RawHttpSd, RawKubernetesSd, TargetGroup};
use crate::exposition::protobuf::Wanted;
use crate::kubernetes::Access;
use crate::probe::Probes;
use crate::relabel::{RawRule, read_rules};
use binnacle_outgoing::{Guarded, RawAuthorization, RawBasicAuth, RawHeader, RawTls, Secret, way_of};

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
    query_log_file: Option<IgnoredAny>,
    rule_query_offset: Option<IgnoredAny>,
    scrape_failure_log_file: Option<PathBuf>,
    body_size_limit: Option<Size>,
    sample_limit: Option<usize>,
    label_limit: Option<usize>,
    label_name_length_limit: Option<usize>,
    label_value_length_limit: Option<usize>,
    target_limit: Option<usize>,
    keep_dropped_targets: Option<usize>,
    scrape_protocols: Option<Vec<String>>,
    metric_name_validation_scheme: Option<String>,
    metric_name_escaping_scheme: Option<String>,
    always_scrape_classic_histograms: Option<bool>,
    convert_classic_histograms_to_nhcb: Option<bool>,
    scrape_native_histograms: Option<bool>,
    extra_scrape_metrics: Option<bool>,
}

/// Bytes as Prometheus writes them, such as `10MB`: a unit is 1,024 of the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Size(usize);

impl Size {
    /// Zero is no bound.
    pub(crate) fn bytes(self) -> usize {
        self.0
    }
}

impl TryFrom<String> for Size {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        const UNITS: [&str; 5] = ["B", "KB", "MB", "GB", "TB"];
        let wrong = || format!("{text:?} is no size; write a number and B, KB, MB or GB");
        if text.trim() == "0" {
            return Ok(Self(0));
        }
        let end = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let unit = text[end..].to_ascii_uppercase().replace("IB", "B");
        let power = UNITS.iter().position(|one| *one == unit).ok_or_else(wrong)?;
        let bytes = text[..end].parse::<usize>().ok().and_then(|count| count.checked_mul(1 << (10 * power)));
        bytes.map(Self).ok_or_else(wrong)
    }
}

/// Targets with labels of their own.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct StaticConfig {
    /// `host:port`
    #[serde(deserialize_with = "null_is_default")]
    targets: Vec<String>,
    /// Added to all their series.
    #[serde(deserialize_with = "null_is_default")]
    labels: BTreeMap<String, String>,
}

/// A section with the keys that are understood, and others that a `prometheus.yml` may have and that change nothing here.
macro_rules! scrape_config {
    ($($discovery:ident)*) => {
        /// One of `scrape_configs:` as the operator wrote it. Nothing here has been checked.
        #[derive(Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct ScrapeConfig {
            /// Label `job` of all its series, unless a rule changes it.
            pub job_name: String,
            /// How targets are probed; only in `probes.jobs`.
            module: Option<String>,
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
            body_size_limit: Option<Size>,
            sample_limit: Option<usize>,
            label_limit: Option<usize>,
            label_name_length_limit: Option<usize>,
            label_value_length_limit: Option<usize>,
            target_limit: Option<usize>,
            keep_dropped_targets: Option<usize>,
            native_histogram_bucket_limit: Option<usize>,
            native_histogram_min_bucket_factor: Option<f64>,
            enable_compression: Option<bool>,
            enable_http2: Option<bool>,
            scrape_protocols: Option<Vec<String>>,
            fallback_scrape_protocol: Option<String>,
            #[serde(alias = "scrape_classic_histograms")]
            always_scrape_classic_histograms: Option<bool>,
            convert_classic_histograms_to_nhcb: Option<bool>,
            scrape_native_histograms: Option<bool>,
            extra_scrape_metrics: Option<bool>,
            track_timestamps_staleness: bool,
            scrape_failure_log_file: Option<PathBuf>,
            metric_name_validation_scheme: Option<String>,
            metric_name_escaping_scheme: Option<String>,
            #[serde(deserialize_with = "null_is_default")]
            static_configs: Vec<StaticConfig>,
            #[serde(deserialize_with = "null_is_default")]
            file_sd_configs: Vec<RawFileSd>,
            #[serde(deserialize_with = "null_is_default")]
            http_sd_configs: Vec<RawHttpSd>,
            #[serde(deserialize_with = "null_is_default")]
            dns_sd_configs: Vec<RawDnsSd>,
            #[serde(deserialize_with = "null_is_default")]
            kubernetes_sd_configs: Vec<RawKubernetesSd>,
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
            /// What a scrape may take at least, as long as that is within the interval.
            #[serde(skip)]
            patience: Option<Duration>,
            /// Where targets are found beside what the section says.
            #[serde(skip)]
            discovery: Vec<Arc<dyn Discovery>>,
            /// Whether it is written by somebody whom the operator need not trust.
            #[serde(skip)]
            is_foreign: bool,
            /// What its targets may not be.
            #[serde(skip)]
            guarded: Guarded,
            $($discovery: Option<IgnoredAny>,)*
        }

        impl ScrapeConfig {
            fn unused(&self) -> Vec<String> {
                let discovery = [$((stringify!($discovery), self.$discovery.is_some())),*];
                let there = |(key, is_there): (&'static str, bool)| is_there.then_some(key);
                let discovery = discovery.into_iter().filter_map(there);
                let discovery = discovery.map(|key| {
                    format!("{key} finds no targets in this release: file, http, dns, kubernetes and static ones do")
                });
                discovery.collect()
            }
        }
    };
}

scrape_config! {
    aws_sd_configs azure_sd_configs consul_sd_configs digitalocean_sd_configs docker_sd_configs
    dockerswarm_sd_configs ec2_sd_configs eureka_sd_configs gce_sd_configs hetzner_sd_configs
    ionos_sd_configs kuma_sd_configs lightsail_sd_configs linode_sd_configs
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
    /// What its targets share, and where they are found.
    pub pool: Arc<Pool>,
    /// Its static targets; a runner makes them again.
    pub targets: Vec<Target>,
    /// Keys that change nothing here, and targets that cannot be scraped.
    pub warnings: Vec<String>,
}

impl ScrapeConfig {
    /// The section of somebody else than the operator, with targets that are found there: its targets, and where probes
    /// are sent, are none of the addresses that are `guarded`.
    pub(crate) fn of_somebody(self, discovery: Vec<Arc<dyn Discovery>>, guarded: Guarded) -> Self {
        Self { discovery, is_foreign: true, guarded, ..self }
    }

    /// Checks the section; files are relative to `dir`. `print` changes with anything that was written for it.
    ///
    /// # Errors
    /// A sentence that names the job and what is wrong with it.
    pub fn check(self, global: &Global, dir: &Path, print: u64) -> Result<Section, String> {
        if self.module.is_some() {
            return Err(format!("scrape config {:?}: module belongs into probes.jobs", self.job_name));
        }
        self.check_as("scrape config", global, dir, print, None)
    }

    /// Checks the section as a job of `probes`: its targets are probed by the module that it names, and all else is as for
    /// those that are scraped.
    ///
    /// # Errors
    /// A sentence that names the job and what is wrong with it.
    pub fn check_probe(
        mut self,
        global: &Global,
        dir: &Path,
        print: u64,
        probes: &Arc<Probes>,
    ) -> Result<Section, String> {
        let told = |reason: &str| format!("probe job {:?}: {reason}", self.job_name);
        let Some(module) = self.module.take().filter(|module| !module.is_empty()) else {
            return Err(told("module is missing: say which of probes.modules it is probed by"));
        };
        probes.probe(&module, "").map_err(|reason| told(&reason))?;
        if let Some(key) = self.of_pages() {
            return Err(told(&format!("{key} is for pages that are scraped; the module says how to probe")));
        }
        self.check_as("probe job", global, dir, print, Some((Arc::clone(probes), module)))
    }

    /// Asks a cluster's API by `access`, where the section does not say how.
    pub(super) fn ask(&mut self, access: &Access) {
        self.kubernetes_sd_configs.iter_mut().for_each(|discovery| discovery.ask(access));
    }

    /// Its timeout yields to what is said for all: to a shorter interval, and to a longer timeout.
    pub(super) fn be_patient(&mut self) {
        self.patience = self.scrape_timeout.take();
    }

    /// The first of the keys that say how a page is fetched, if one is there.
    fn of_pages(&self) -> Option<&'static str> {
        let keys = [
            ("metrics_path", self.metrics_path.is_some()),
            ("scheme", self.scheme.is_some()),
            ("params", !self.params.is_empty()),
            ("enable_compression", self.enable_compression.is_some()),
            ("enable_http2", self.enable_http2.is_some()),
            ("scrape_protocols", self.scrape_protocols.is_some()),
            ("fallback_scrape_protocol", self.fallback_scrape_protocol.is_some()),
            ("follow_redirects", self.follow_redirects.is_some()),
            ("basic_auth", self.basic_auth.is_some()),
            ("authorization", self.authorization.is_some()),
            ("bearer_token", self.bearer_token.is_some()),
            ("bearer_token_file", self.bearer_token_file.is_some()),
            ("tls_config", !self.tls_config.is_empty()),
            ("proxy_url", self.proxy_url.is_some()),
            ("no_proxy", self.no_proxy.is_some()),
            ("proxy_from_environment", self.proxy_from_environment),
            ("http_headers", !self.http_headers.is_empty()),
            ("oauth2", self.oauth2.is_some()),
            ("proxy_connect_header", self.proxy_connect_header.is_some()),
        ];
        keys.into_iter().find(|(_, is_there)| *is_there).map(|(key, _)| key)
    }

    fn check_as(
        self,
        kind: &str,
        global: &Global,
        dir: &Path,
        print: u64,
        probe: Option<(Arc<Probes>, String)>,
    ) -> Result<Section, String> {
        if self.job_name.is_empty() {
            return Err(format!("{kind} without a job_name"));
        }
        let place = format!("{kind} {:?}", self.job_name);
        let told = |reason: String| format!("{place}: {reason}");
        let mut warnings = self.unused();
        let static_configs = &self.static_configs;
        if self.relabel_configs.is_empty() && probe.is_none() {
            for address in static_configs.iter().flat_map(|group| &group.targets) {
                check_address(address).map_err(|reason| told(format!("target {reason}")))?;
            }
        }
        if self.converts(global) {
            warnings.push("convert_classic_histograms_to_nhcb is not used by this release".to_owned());
        }
        let pool = Arc::new(Pool { probe, ..self.pool(global, dir, print).map_err(told)? });
        if let Some(key) = pool.unsupported {
            warnings.push(format!("{key} is not supported by this release: its targets are not scraped"));
        }
        let (targets, failures) = pool.targets_of(&pool.statics);
        warnings.extend(failures);
        Ok(Section { pool, targets, warnings: warnings.into_iter().map(told).collect() })
    }

    fn converts(&self, global: &Global) -> bool {
        self.convert_classic_histograms_to_nhcb
            .or(global.convert_classic_histograms_to_nhcb)
            .unwrap_or_default()
    }

    fn pool(mut self, global: &Global, dir: &Path, print: u64) -> Result<Pool, String> {
        let defaults = self.defaults(global)?;
        let is_native = self.scrape_native_histograms.or(global.scrape_native_histograms).unwrap_or_default();
        let classic = self.always_scrape_classic_histograms.or(global.always_scrape_classic_histograms);
        let asked = self.scrape_protocols.as_ref().or(global.scrape_protocols.as_ref());
        let asked = protocols(asked.map(Vec::as_slice), is_native)?;
        let fallback = self.fallback_scrape_protocol.as_deref().map(Protocol::read).transpose();
        let (legacy_names, escaping) = self.names(global)?;
        let log = self.scrape_failure_log_file.take().or_else(|| global.scrape_failure_log_file.clone());
        let log = log.filter(|path| !path.as_os_str().is_empty());
        let limits = Limits { legacy_names, ..self.limits(global) };
        let (statics, discovery) = (self.statics()?, self.discovery(dir)?);
        let way = way_of!(self);
        let unsupported = way.unknown();
        Ok(Pool {
            print,
            way: way.check(&BTreeMap::new(), dir)?,
            unsupported,
            relabel: read_rules("relabel_configs", self.relabel_configs)?,
            metric_relabel: read_rules("metric_relabel_configs", self.metric_relabel_configs)?,
            honor_labels: self.honor_labels,
            ignore_timestamps: !self.honor_timestamps.unwrap_or(true),
            track_timestamps_staleness: self.track_timestamps_staleness,
            extra_metrics: self.extra_scrape_metrics.or(global.extra_scrape_metrics).unwrap_or_default(),
            limits,
            histograms: Wanted { native: is_native, classic: classic.unwrap_or_default() },
            accept: accept(&asked, &escaping),
            fallback: fallback.map_err(|reason| format!("fallback_scrape_protocol: {reason}"))?,
            gzip: self.enable_compression.unwrap_or(true),
            http2: self.enable_http2.unwrap_or(true),
            follow_redirects: self.follow_redirects.unwrap_or(true),
            is_foreign: self.is_foreign,
            guarded: self.guarded,
            defaults: Defaults { params: self.params, ..defaults },
            job: self.job_name,
            statics,
            discovery,
            failures: log.map(|path| FailureLog::new(dir.join(path))),
            ..Pool::default()
        })
    }

    fn defaults(&mut self, global: &Global) -> Result<Defaults, String> {
        let interval = self.scrape_interval.or(global.scrape_interval).unwrap_or(DEFAULT_INTERVAL);
        let of_all = global.scrape_timeout.unwrap_or(DEFAULT_TIMEOUT);
        let of_all = of_all.max(self.patience.unwrap_or_default()).min(interval);
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
        let path = self.metrics_path.take().unwrap_or_else(|| "/metrics".to_owned());
        Ok(Defaults { interval, timeout, path, scheme, params: BTreeMap::new() })
    }

    /// Zero counts as nothing said, as in Prometheus.
    fn limits(&self, global: &Global) -> Limits {
        let pick = |own: Option<usize>, of_all: Option<usize>| {
            own.filter(|own| *own > 0).or(of_all).unwrap_or_default()
        };
        let body = self.body_size_limit.or(global.body_size_limit);
        Limits {
            body_bytes: match body {
                None => BODY_BYTES,
                Some(Size(0)) => BODY_BYTES_MAX,
                Some(Size(bytes)) => bytes.min(BODY_BYTES_MAX),
            },
            samples: pick(self.sample_limit, global.sample_limit),
            labels: pick(self.label_limit, global.label_limit),
            label_name: pick(self.label_name_length_limit, global.label_name_length_limit),
            label_value: pick(self.label_value_length_limit, global.label_value_length_limit),
            targets: pick(self.target_limit, global.target_limit),
            dropped: pick(self.keep_dropped_targets, global.keep_dropped_targets),
            buckets: self.native_histogram_bucket_limit.unwrap_or_default(),
            schema_max: self
                .native_histogram_min_bucket_factor
                .filter(|factor| *factor > 0.0)
                .map_or(i32::MAX, schema_of_factor),
            legacy_names: false,
        }
    }

    /// Whether names are of the old kind alone, and how others are asked for.
    fn names(&self, global: &Global) -> Result<(bool, String), String> {
        let of_one = |own: &Option<String>, of_all: &Option<String>| {
            own.clone().or_else(|| of_all.clone()).filter(|text| !text.is_empty())
        };
        let scheme = of_one(&self.metric_name_validation_scheme, &global.metric_name_validation_scheme);
        let is_legacy = match scheme.as_deref() {
            None | Some("utf8") => false,
            Some("legacy") => true,
            Some(other) => {
                return Err(format!(
                    "unknown name validation method specified, must be either '', 'legacy' or 'utf8', got {other}"
                ));
            }
        };
        let escaping = of_one(&self.metric_name_escaping_scheme, &global.metric_name_escaping_scheme);
        let default = if is_legacy { "underscores" } else { "allow-utf-8" };
        let escaping = escaping.unwrap_or_else(|| default.to_owned());
        match escaping.as_str() {
            "allow-utf-8" if is_legacy => {
                Err("utf8 metric names requested but validation scheme is not set to UTF8".to_owned())
            }
            "allow-utf-8" | "underscores" | "dots" | "values" => Ok((is_legacy, escaping)),
            other => Err(format!(
                "unknown metric name escaping scheme {other:?}: allow-utf-8, underscores, dots or values"
            )),
        }
    }

    fn statics(&mut self) -> Result<Vec<TargetGroup>, String> {
        let group = |(at, raw): (usize, StaticConfig)| {
            let labels = Labels::new(raw.labels).map_err(|error| format!("static_configs[{at}]: {error}"))?;
            let target = |address: &String| Labels::default().with(ADDRESS, address);
            // In the order of the file.
            let source = format!("{at:08}");
            Ok(TargetGroup { source, labels, targets: raw.targets.iter().map(target).collect() })
        };
        std::mem::take(&mut self.static_configs).into_iter().enumerate().map(group).collect()
    }

    fn discovery(&mut self, dir: &Path) -> Result<Vec<Arc<dyn Discovery>>, String> {
        let mut all = std::mem::take(&mut self.discovery);
        let mut add = |key: &str, at: usize, one: Result<Arc<dyn Discovery>, String>| {
            one.map(|one| all.push(one)).map_err(|reason| format!("{key}[{at}]: {reason}"))
        };
        for (at, raw) in std::mem::take(&mut self.file_sd_configs).into_iter().enumerate() {
            add("file_sd_configs", at, raw.check(dir))?;
        }
        for (at, raw) in std::mem::take(&mut self.http_sd_configs).into_iter().enumerate() {
            add("http_sd_configs", at, raw.check(dir))?;
        }
        for (at, raw) in std::mem::take(&mut self.dns_sd_configs).into_iter().enumerate() {
            add("dns_sd_configs", at, raw.check())?;
        }
        for (at, raw) in std::mem::take(&mut self.kubernetes_sd_configs).into_iter().enumerate() {
            add("kubernetes_sd_configs", at, raw.check(dir))?;
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(yaml: &str) -> Result<Section, String> {
        let global: Global = serde_saphyr::from_str("{scrape_interval: 15s, scrape_timeout: 5s}").unwrap();
        let raw: ScrapeConfig = serde_saphyr::from_str(yaml).unwrap();
        raw.check(&global, Path::new("/etc/b"), 0)
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
        assert_eq!(section.pool.dropped().0[0].value("__address__"), "b:1");
        let wanted = ["not a valid hostname", "cannot be greater than scrape interval (\"20s\" > \"15s\")"];
        for (warning, want) in section.warnings.iter().zip(wanted) {
            assert!(warning.contains(want), "{warning}");
        }
        assert_eq!(section.warnings.len(), 2);
    }

    #[test]
    fn other_discovery_is_a_warning_and_an_unknown_key_an_error() {
        let section =
            check("{job_name: k, consul_sd_configs: [{server: a}], sample_limit: 5, oauth2: {client_id: x}}");
        let warnings = section.unwrap().warnings;
        assert!(warnings[0].contains("consul_sd_configs finds no targets"), "{warnings:?}");
        assert!(warnings[1].contains("oauth2 is not supported"), "{warnings:?}");
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
            ("{job_name: k, scrape_protocols: [Text]}", "unknown scrape protocol"),
            ("{job_name: k, fallback_scrape_protocol: Text}", "fallback_scrape_protocol: unknown"),
            ("{job_name: k, file_sd_configs: [{files: [a.txt]}]}", "file_sd_configs[0]: path name"),
            ("{job_name: k, http_sd_configs: [{url: 'ftp://a/'}]}", "http_sd_configs[0]: URL scheme"),
            ("{job_name: k, dns_sd_configs: [{names: [a], type: A}]}", "dns_sd_configs[0]: a port"),
            ("{job_name: k, metric_name_validation_scheme: odd}", "unknown name validation"),
        ] {
            let error = check(yaml).unwrap_err();
            assert!(error.contains(want), "{error}");
        }
    }

    #[test]
    fn limits_are_those_of_the_section_or_of_all() {
        let global = "{sample_limit: 5, label_limit: 9, body_size_limit: 1MB, keep_dropped_targets: 1, scrape_native_histograms: true}";
        let global: Global = serde_saphyr::from_str(global).unwrap();
        let read = |yaml: &str| {
            let raw: ScrapeConfig = serde_saphyr::from_str(yaml).unwrap();
            raw.check(&global, Path::new("/"), 0).unwrap().pool
        };
        let pool =
            read("{job_name: a, sample_limit: 7, body_size_limit: 0, native_histogram_bucket_limit: 80}");
        assert_eq!((pool.limits.samples, pool.limits.labels, pool.limits.buckets), (7, 9, 80));
        assert_eq!((pool.limits.body_bytes, pool.limits.dropped), (BODY_BYTES_MAX, 1));
        assert!(pool.histograms.native && pool.accept.starts_with("application/vnd.google.protobuf"));
        let pool = read("{job_name: a, target_limit: 1, static_configs: [{targets: ['a:1', 'b:1']}]}");
        assert_eq!(pool.limits.body_bytes, 1 << 20);
        assert_eq!(pool.forced().unwrap(), "target_limit exceeded (number of targets: 2, limit: 1)");
        assert!(serde_saphyr::from_str::<ScrapeConfig>("{job_name: a, body_size_limit: 5}").is_err());
    }
}
