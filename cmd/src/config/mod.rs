//! The configuration file: Binnacle's own, or a plain `prometheus.yml`. They are one schema: ours adds
//! `collector`, `kubernetes`, `log_metric_files`, `logs`, `probes`, `send`, `slo_files`, `store` and `storage.logs` to Prometheus's keys.

mod collector;
mod kubernetes;
mod log_metrics;
mod logs;
mod probes;
mod scrapes;
mod tails;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use binnacle_alerting::log_metrics::LogMetricGroup;
use binnacle_alerting::notify::{AlertmanagerConfig, parse_alertmanager};
use binnacle_alerting::rules::{RuleGroup, parse_rules};
use binnacle_alerting::slo::parse_slos;
use binnacle_collector::foreign::{RawSend, Targets};
use binnacle_collector::forward::{RawStore, StoreTarget, StoreWay};
use binnacle_collector::intake::OtlpOptions;
use binnacle_collector::monitors::Defaults;
use binnacle_collector::probe::{Probes, RawProbes};
use binnacle_collector::remote_write::{RawRemoteWrite, RemoteConfig};
use binnacle_collector::scrape::{Global, Pool, ScrapeConfig, Target};
use binnacle_model::Labels;
use binnacle_model::time::optional_duration;
use binnacle_model::yaml::null_is_default;
use binnacle_query::promql::parse_selector;
use binnacle_store::{LogOptions, MetricOptions, ShortRetention};
use serde::Deserialize;
use serde::de::IgnoredAny;

use collector::{CollectorConfig, RawCollector};
use kubernetes::RawKubernetes;
pub(crate) use kubernetes::{KubernetesConfig, ShareMode};
use log_metrics::read_log_metrics;
pub(crate) use logs::Archives;
use logs::{RawLogStorage, read_logs};
use tails::RawTail;
pub(crate) use tails::TailConfig;

use crate::expand::expand;
use crate::serve::hostname;
use crate::status::{routes_without_secrets, without_secrets};

/// No retention is shorter.
const RETENTION_MIN: Duration = Duration::from_hours(2);

/// The shortest retention of a selector.
const DAY: Duration = Duration::from_hours(24);

/// The file as the operator wrote it. Nothing here has been checked.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawConfig {
    #[serde(deserialize_with = "null_is_default")]
    global: Global,
    #[serde(deserialize_with = "null_is_default")]
    scrape_configs: Vec<ScrapeConfig>,
    #[serde(deserialize_with = "null_is_default")]
    rule_files: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    slo_files: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    log_metric_files: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    logs: Vec<RawTail>,
    probes: Option<RawProbes>,
    #[serde(deserialize_with = "null_is_default")]
    storage: RawStorage,
    #[serde(deserialize_with = "null_is_default")]
    store: RawStore,
    kubernetes: Option<RawKubernetes>,
    #[serde(deserialize_with = "null_is_default")]
    collector: RawCollector,
    send: Option<RawSend>,
    alerting: Option<IgnoredAny>,
    remote_write: Option<Vec<RawRemoteWrite>>,
    remote_read: Option<IgnoredAny>,
    #[serde(deserialize_with = "null_is_default")]
    scrape_config_files: Vec<String>,
    tracing: Option<IgnoredAny>,
    #[serde(deserialize_with = "null_is_default")]
    otlp: OtlpOptions,
    runtime: Option<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawStorage {
    #[serde(deserialize_with = "null_is_default")]
    tsdb: RawTsdb,
    #[serde(deserialize_with = "null_is_default")]
    logs: RawLogStorage,
    exemplars: Option<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawTsdb {
    #[serde(deserialize_with = "null_is_default")]
    retention: RawMetricRetention,
    series_limit_per_job: Option<usize>,
    series_limit: Option<usize>,
    out_of_order_time_window: Option<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawMetricRetention {
    #[serde(with = "optional_duration")]
    time: Option<Duration>,
    size: Option<String>,
    #[serde(deserialize_with = "null_is_default")]
    selectors: Vec<RawShortRetention>,
    #[serde(with = "optional_duration")]
    rollups: Option<Duration>,
}

/// Series that are kept for a shorter time than the others.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawShortRetention {
    #[serde(rename = "match")]
    selector: String,
    #[serde(with = "optional_duration")]
    time: Option<Duration>,
}

/// Bytes as Prometheus writes them, such as `512MB`: a unit is 1,024 of the one before. Zero is no limit.
fn bytes(text: &str) -> Option<u64> {
    const UNITS: [&str; 7] = ["B", "KB", "MB", "GB", "TB", "PB", "EB"];
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let unit = UNITS.iter().position(|unit| text[end..].eq_ignore_ascii_case(unit))?;
    text[..end].parse::<u64>().ok()?.checked_mul(1 << (10 * unit))
}

/// What the program trusts.
#[derive(Debug, Default)]
pub(crate) struct Config {
    /// Targets that no file names.
    pub(crate) targets: Vec<Target>,
    /// Its scrape configs.
    pub(crate) pools: Vec<Arc<Pool>>,
    /// How targets are probed, and who may ask for it.
    pub(crate) probes: Option<Arc<Probes>>,
    /// How many targets these name themselves.
    pub(crate) static_targets: usize,
    /// Changes with all of the file that a reload does not read again.
    pub(crate) others: u64,
    pub(crate) groups: Vec<RuleGroup>,
    /// What is counted in logs.
    pub(crate) log_metrics: Vec<LogMetricGroup>,
    pub(crate) evaluation_interval: Option<Duration>,
    pub(crate) external_labels: Labels,
    /// Files of logs.
    pub(crate) tails: Vec<TailConfig>,
    /// What reading and scraping may take of the machine.
    pub(crate) collector: CollectorConfig,
    pub(crate) metric_retention: Option<Duration>,
    /// Of all blocks of metrics.
    pub(crate) metric_retention_bytes: Option<u64>,
    /// How OTLP's names are translated.
    pub(crate) otlp: OtlpOptions,
    /// Of the hourly rest of samples that have expired; `None` keeps none.
    pub(crate) rollup_retention: Option<Duration>,
    /// Series that are kept for a shorter time.
    pub(crate) short_retentions: Vec<ShortRetention>,
    /// Active series of one job.
    pub(crate) series_limit_per_job: Option<usize>,
    /// Of all jobs together.
    pub(crate) series_limit: Option<usize>,
    /// How logs are kept.
    pub(crate) logs: LogOptions,
    /// Where partitions of logs lie beside the data directory.
    pub(crate) archives: Archives,
    /// What is read from the API of a cluster.
    pub(crate) kubernetes: Option<KubernetesConfig>,
    /// What monitors of a cluster go by.
    pub(crate) defaults: Defaults,
    /// Where `collect` sends.
    pub(crate) store: Option<StoreTarget>,
    /// How the store is reached, wherever it is.
    pub(crate) store_way: StoreWay,
    pub(crate) node: Option<String>,
    /// Where `collect` sends, beside our own store or without it.
    pub(crate) send: Targets,
    /// Servers that are sent what is stored.
    pub(crate) remotes: Vec<RemoteConfig>,
    /// What the file says that changes nothing, or is unwise.
    pub(crate) warnings: Vec<String>,
    /// The file as it may be shown.
    pub(crate) shown: String,
}

impl Config {
    /// The name of this node: what the file says, or what `NODE_NAME` has, or the host's.
    pub(crate) fn node_name(&self) -> String {
        let said = self.kubernetes.as_ref().and_then(|kubernetes| kubernetes.node.clone());
        let said = said.or_else(|| self.node.clone()).or_else(|| std::env::var("NODE_NAME").ok());
        said.filter(|name| !name.is_empty()).unwrap_or_else(hostname)
    }

    /// Files are known to the store by their node's name. In a pod the host's name is the pod's, which is another one
    /// after each restart: all files would be new ones.
    pub(crate) fn check_node_name(&self) -> anyhow::Result<()> {
        let is_said = self.node.is_some()
            || self.kubernetes.as_ref().is_some_and(|kubernetes| kubernetes.node.is_some())
            || std::env::var("NODE_NAME").is_ok_and(|name| !name.is_empty());
        if !is_said && !self.tails.is_empty() && std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
            bail!(
                "which node is this? In a pod, say NODE_NAME (valueFrom: fieldRef: fieldPath: spec.nodeName), or store.node in the file"
            );
        }
        Ok(())
    }
}

/// Reads rule groups from a file's name and text.
pub(crate) type ReadGroups = fn(&str, &str) -> Result<Vec<RuleGroup>, Vec<binnacle_alerting::FileError>>;

/// Reads a file and the rule and SLO files that it names.
pub(crate) fn load(path: &Path) -> anyhow::Result<Config> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let dir = path.parent().unwrap_or(Path::new("."));
    let config = parse(&path.display().to_string(), &text, dir)?;
    Ok(Config { shown: without_secrets(&text), ..config })
}

pub(crate) fn parse(file: &str, text: &str, dir: &Path) -> anyhow::Result<Config> {
    let raw: RawConfig = if text.trim().is_empty() {
        RawConfig::default()
    } else {
        serde_saphyr::from_str(text).map_err(|error| place_of(file, &error))?
    };
    let others = scrapes::others_of(text);
    let mut config = Config { warnings: unused(file, &raw), others, ..Config::default() };
    let sections = (raw.scrape_configs, &raw.scrape_config_files[..]);
    scrapes::read_scrapes(file, text, dir, sections, &raw.global, &mut config)?;
    probes::read_probes(file, text, dir, raw.probes, &raw.global, &mut config)?;
    for (patterns, read) in
        [(&raw.rule_files, parse_rules as ReadGroups), (&raw.slo_files, parse_slos as ReadGroups)]
    {
        for path in named_files(dir, patterns)? {
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("{file}: cannot read {}", path.display()))?;
            config.groups.extend(read(&path.display().to_string(), &text).map_err(all_of)?);
        }
    }
    read_log_metrics(file, dir, &raw.log_metric_files, &mut config)?;
    raw.otlp.check().map_err(|reason| anyhow::anyhow!("{file}: otlp: {reason}"))?;
    config
        .warnings
        .extend(raw.otlp.unused().map(|key| format!("{file}: otlp.{key} is not used by this release")));
    config.otlp = raw.otlp;
    config.evaluation_interval = Some(raw.global.evaluation_interval());
    let mut external_labels = raw.global.external_labels.clone();
    for (name, value) in &mut external_labels {
        let mut missing = Vec::new();
        *value = expand(value, |variable| std::env::var(variable).ok(), &mut missing);
        config.warnings.extend(missing.iter().map(|variable| {
            format!(
                "{file}: global.external_labels.{name}: {variable:?} is not in the environment, and left out"
            )
        }));
    }
    config.external_labels =
        Labels::new(external_labels).with_context(|| format!("{file}: global.external_labels"))?;
    for (at, tail) in raw.logs.into_iter().enumerate() {
        config.tails.push(tail.check(&format!("{file}: logs[{at}]"), dir)?);
    }
    config.collector = raw.collector.check(file)?;
    kubernetes::read_kubernetes(file, dir, raw.kubernetes, &raw.global, &mut config)?;
    let (print, probes) = (scrapes::print_of(text, "global"), config.probes.clone());
    config.defaults = Defaults { global: Arc::new(raw.global), print, probes };
    read_tsdb(file, &raw.storage.tsdb, &mut config)?;
    if config.metric_retention.is_some_and(|retention| retention < RETENTION_MIN) {
        bail!("{file}: storage.tsdb.retention.time must be 2h at least, the span of one block");
    }
    read_logs(file, dir, raw.storage.logs, &mut config)?;
    config.node = raw.store.node.clone();
    (config.store, config.store_way) =
        raw.store.check(dir).map_err(|reason| anyhow::anyhow!("{file}: {reason}"))?;
    if let Some(send) = raw.send {
        let send = send.check(dir).map_err(|reason| anyhow::anyhow!("{file}: {reason}"))?;
        config.warnings.extend(send.warnings.iter().map(|warning| format!("{file}: {warning}")));
        config.send = send;
    }
    add_remotes(file, raw.remote_write.unwrap_or_default(), dir, &mut config)?;
    Ok(config)
}

fn place_of(file: &str, error: &serde_saphyr::Error) -> anyhow::Error {
    let place = error.location().map_or((0, 0), |place| (place.line(), place.column()));
    let reason = error.without_snippet().to_string();
    let reason = reason.lines().next().unwrap_or_default();
    anyhow::anyhow!("{file}:{}:{}: {reason}", place.0, place.1)
}

/// A bound in bytes; zero is none.
fn size(file: &str, place: &str, text: Option<&str>) -> anyhow::Result<Option<u64>> {
    let Some(text) = text else { return Ok(None) };
    let size = bytes(text).with_context(|| {
        format!("{file}: {place}.size: {text:?} is no size; write a number and B, KB, MB, GB or TB")
    })?;
    Ok(Some(size).filter(|size| *size > 0))
}

/// How metrics are kept.
fn read_tsdb(file: &str, tsdb: &RawTsdb, config: &mut Config) -> anyhow::Result<()> {
    config.metric_retention = tsdb.retention.time;
    config.metric_retention_bytes = size(file, "storage.tsdb.retention", tsdb.retention.size.as_deref())?;
    for (at, short) in tsdb.retention.selectors.iter().enumerate() {
        let place = || format!("{file}: storage.tsdb.retention.selectors[{at}]");
        let matchers = parse_selector(&short.selector).with_context(place)?;
        let retention = short.time.with_context(|| format!("{}: time is missing", place()))?;
        if retention < DAY {
            bail!("{}: time must be 1d at least: blocks go as a whole", place());
        }
        config.short_retentions.push(ShortRetention { matchers, retention });
    }
    config.series_limit_per_job = tsdb.series_limit_per_job;
    config.series_limit = tsdb.series_limit;
    config.rollup_retention = tsdb.retention.rollups;
    let samples = config.metric_retention.unwrap_or(MetricOptions::default().retention);
    if config.rollup_retention.is_some_and(|rollups| rollups <= samples) {
        bail!(
            "{file}: storage.tsdb.retention.rollups must be longer than the retention of samples: they follow these"
        );
    }
    Ok(())
}

/// Names must differ: positions in the log and metrics go by them.
fn add_remotes(file: &str, all: Vec<RawRemoteWrite>, dir: &Path, config: &mut Config) -> anyhow::Result<()> {
    for raw in all {
        let (remote, warnings) = raw.check(dir).map_err(|reason| anyhow::anyhow!("{file}: {reason}"))?;
        if config.remotes.iter().any(|other| other.name() == remote.name()) {
            bail!("{file}: remote_write {:?} is there twice; give each a name of its own", remote.name());
        }
        let warnings = warnings.into_iter().chain(remote.unused_of_log());
        config.warnings.extend(warnings.map(|warning| format!("{file}: {warning}")));
        config.remotes.push(remote);
    }
    Ok(())
}

fn unused(file: &str, raw: &RawConfig) -> Vec<String> {
    let keys = [
        ("alerting", raw.alerting.is_some()),
        ("remote_read", raw.remote_read.is_some()),
        ("tracing", raw.tracing.is_some()),
        ("runtime", raw.runtime.is_some()),
        ("storage.exemplars", raw.storage.exemplars.is_some()),
        ("storage.tsdb.out_of_order_time_window", raw.storage.tsdb.out_of_order_time_window.is_some()),
    ];
    let there = keys.iter().filter(|(_, is_there)| *is_there);
    there.map(|(key, _)| format!("{file}: {key} is not used by this release")).collect()
}

/// The line on which a job's name stands.
fn line_of(text: &str, job: &str) -> usize {
    let names = |line: &str| line.contains("job_name") && line.contains(job);
    text.lines().position(names).map_or(1, |at| at + 1)
}

/// Files that patterns name; in the last part of a path `*` stands for anything.
pub(crate) fn named_files(dir: &Path, patterns: &[String]) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for pattern in patterns {
        let path = dir.join(pattern);
        if !pattern.contains('*') {
            found.push(path);
            continue;
        }
        let parent = path.parent().unwrap_or(dir);
        let wanted = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some((start, end)) = wanted.split_once('*') else {
            bail!("pattern {pattern:?}: only the last part of a path may hold *");
        };
        let Ok(entries) = std::fs::read_dir(parent) else { continue };
        let mut of_pattern: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        of_pattern.retain(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end)
        });
        of_pattern.sort();
        found.extend(of_pattern);
    }
    Ok(found)
}

#[allow(clippy::needless_pass_by_value, reason = "it maps an error")]
fn all_of(errors: Vec<binnacle_alerting::FileError>) -> anyhow::Error {
    let text: Vec<String> = errors.iter().map(ToString::to_string).collect();
    anyhow::anyhow!(text.join("\n"))
}

/// Reads an `alertmanager.yml`; answers it as it may be shown, too.
pub(crate) fn load_alertmanager(path: &Path) -> anyhow::Result<(AlertmanagerConfig, String)> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut routes = parse_alertmanager(&path.display().to_string(), &text)?;
    let dir = path.parent().unwrap_or_else(|| Path::new(""));
    for file in named_files(dir, &routes.templates)? {
        if !file.exists() {
            let warning = format!("{}: templates: there is no {} yet", path.display(), file.display());
            routes.warnings.push(warning);
            continue;
        }
        let text = std::fs::read_to_string(&file)
            .with_context(|| format!("{}: templates: cannot read {}", path.display(), file.display()))?;
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let added = routes.notifications.add(&name, &text);
        added
            .map_err(|error| anyhow::anyhow!("{}: templates: {}: {error}", path.display(), file.display()))?;
    }
    Ok((routes, routes_without_secrets(&text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse("c.yml", text, Path::new(".")).unwrap_err().to_string()
    }

    #[test]
    fn a_prometheus_file_is_taken_as_it_is() {
        let text = "
global: {scrape_interval: 15s, external_labels: {cluster: a}}
alerting: {alertmanagers: []}
scrape_configs:
- job_name: x
  static_configs: [{targets: ['localhost:1', 'localhost:2'], labels: {env: t}}]
";
        let config = parse("c.yml", text, Path::new(".")).unwrap();
        assert_eq!(config.static_targets, 2);
        assert_eq!(config.warnings, ["c.yml: alerting is not used by this release"]);
        assert_eq!(parse("c.yml", "", Path::new(".")).unwrap().static_targets, 0);
    }

    /// Keys with nothing but comments below them, as in the file that Prometheus comes with.
    #[test]
    fn a_key_without_a_value_is_none() {
        let text = "
global:
  scrape_interval: 15s
  external_labels:
alerting:
  alertmanagers:
    - static_configs:
        - targets:
          # - alertmanager:9093
rule_files:
  # - first_rules.yml
storage:
remote_write:
otlp:
scrape_configs:
  - job_name: prometheus
    relabel_configs:
    metric_relabel_configs:
    params:
    authorization:
    tls_config:
    static_configs:
      - targets: ['localhost:9090']
        labels:
  - job_name: empty
    static_configs:
      - targets:
";
        let config = parse("c.yml", text, Path::new(".")).unwrap();
        assert_eq!(config.static_targets, 1);
        assert_eq!(config.warnings, ["c.yml: alerting is not used by this release"]);
    }

    #[test]
    fn some_series_may_be_kept_for_a_shorter_time() {
        let text = "storage: {tsdb: {series_limit_per_job: 5, series_limit: 9, retention: {selectors: [{match: '{env=~\"dev|test\"}', time: 7d}]}}}";
        let config = parse("c.yml", text, Path::new(".")).unwrap();
        let short = &config.short_retentions[0];
        assert_eq!((&*short.matchers[0].name, short.retention), ("env", Duration::from_hours(168)));
        assert_eq!((config.series_limit_per_job, config.series_limit), (Some(5), Some(9)));
    }

    #[test]
    fn receivers_of_remote_write_are_read() {
        let text =
            "remote_write: [{url: 'http://a/w'}, {url: 'http://a/w', name: second, send_exemplars: true}]";
        let config = parse("c.yml", text, Path::new(".")).unwrap();
        assert_eq!((config.remotes.len(), config.remotes[1].name()), (2, "second"));
        assert!(config.warnings[0].starts_with("c.yml: remote_write \"second\": send_exemplars"));
        assert!(error("remote_write: [{url: 'http://a/'}, {url: 'http://a/'}]").contains("is there twice"));
        assert!(error("remote_write: [{url: 'http://a/', queue: {}}]").starts_with("c.yml:1:"));
        assert!(
            error("remote_write: [{url: 'http://a/', oauth2: {x: y}}]").contains("oauth2 is not supported")
        );
    }

    #[test]
    fn stores_of_others_are_read() {
        let config = parse("c.yml", "send: {logs: {loki: {url: 'http://l:3100'}}}", Path::new(".")).unwrap();
        assert_eq!(config.send.logs.unwrap().to_string(), "http://l:3100/loki/api/v1/push");
        assert!(error("send: {logs: {loki: {}}}").starts_with("c.yml: send.logs.loki.url is missing"));
        assert!(error("send: {log: {}}").starts_with("c.yml:1:"));
    }

    #[test]
    fn sizes_are_as_in_prometheus() {
        let size = |text: &str| {
            let config = parse(
                "c.yml",
                &format!("storage: {{tsdb: {{retention: {{size: {text}}}}}}}"),
                Path::new("."),
            );
            config.unwrap().metric_retention_bytes
        };
        assert_eq!(size("512MB"), Some(512 << 20));
        assert_eq!(size("2TB"), Some(2 << 40));
        assert_eq!(size("0B"), None);
        for odd in ["", "MB", "5", "-5MB", "5XB", "99999999999EB"] {
            assert_eq!(bytes(odd), None, "{odd}");
        }
    }

    #[test]
    fn errors_name_file_line_and_column() {
        assert!(
            error("global:\n  typo: 1\n").starts_with("c.yml:2:3: "),
            "{}",
            error("global:\n  typo: 1\n")
        );
        assert!(
            error("scrape_configs:\n- job_name: x\n  relabel_configs: [{action: hashmod}]\n")
                .starts_with("c.yml:2:1: scrape config \"x\": relabel_configs[0]: action hashmod")
        );
        assert!(error("scrape_configs:\n- job_name: x\n- job_name: x\n").contains("multiple scrape configs"));
        assert!(error("storage: {logs: {retention: {time: 5m}}}").contains("2h at least"));
        assert!(error("storage: {tsdb: {retention: {rollups: 45d}}}").contains("must be longer"));
        assert!(error("storage: {tsdb: {retention: {size: much}}}").contains("\"much\" is no size"));
        let selectors =
            |text: &str| error(&format!("storage: {{tsdb: {{retention: {{selectors: [{text}]}}}}}}"));
        assert!(selectors("{match: '{a=', time: 2d}").contains("selectors[0]"));
        assert!(selectors("{match: '{a=\"b\"}', time: 1h}").contains("1d at least"));
        assert!(error("global: {scrape_interval: soon}").contains("not a valid duration"));
    }
}
