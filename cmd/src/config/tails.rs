//! `logs`: which files are tailed, and what happens to their lines before they leave the node.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use binnacle_collector::tail::edge::{Builtin, EdgeRules, Limit, Redaction, Redactor, Sample, Scope};
use binnacle_collector::tail::multiline::Multiline;
use binnacle_collector::tail::{Input, SpoolLimits, Units};
use binnacle_model::log::LEVELS;
use binnacle_model::time::optional_duration;
use binnacle_model::yaml::null_is_default;
use serde::Deserialize;

use super::size;

/// One of `logs:` as the operator wrote it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawTail {
    /// A directory of links as the kubelet keeps it.
    containers: Option<PathBuf>,
    /// Plain files; parts of the path may hold `*`.
    files: Option<PathBuf>,
    /// Whose the plain files are.
    service: Option<String>,
    /// A node's `/var/log`.
    node: Option<PathBuf>,
    /// Further files directly in it.
    #[serde(deserialize_with = "null_is_default")]
    also: Vec<String>,
    /// Directories of systemd's journals.
    journal: Option<OneOrMany>,
    #[serde(deserialize_with = "null_is_default")]
    units: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    exclude_units: Vec<String>,
    /// Of times in plain files that do not say theirs.
    zone: Option<String>,
    multiline: Option<RawMultiline>,
    #[serde(deserialize_with = "null_is_default")]
    exclude: Vec<RawScope>,
    #[serde(deserialize_with = "null_is_default")]
    limits: Vec<RawLimit>,
    #[serde(deserialize_with = "null_is_default")]
    sample: Vec<RawSample>,
    #[serde(deserialize_with = "null_is_default")]
    redact: Vec<RawRedaction>,
    #[serde(deserialize_with = "null_is_default")]
    spool: RawSpool,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(PathBuf),
    Many(Vec<PathBuf>),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum RawMultiline {
    Word(String),
    Start { start: String },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawScope {
    #[serde(default = "any")]
    namespace: String,
    #[serde(default = "any")]
    container: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLimit {
    #[serde(default = "any")]
    namespace: String,
    #[serde(default = "any")]
    container: String,
    /// Whether all that fits shares the limit.
    #[serde(default)]
    shared: bool,
    lines_per_second: Option<f64>,
    bytes_per_second: Option<String>,
    #[serde(with = "optional_duration", default)]
    burst: Option<Duration>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSample {
    #[serde(default = "any")]
    namespace: String,
    #[serde(default = "any")]
    container: String,
    #[serde(default)]
    level: String,
    keep: f64,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum RawRedaction {
    Builtin(String),
    Rule { regex: String, replacement: Option<String> },
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawSpool {
    size: Option<String>,
    #[serde(with = "optional_duration")]
    age: Option<Duration>,
}

fn any() -> String {
    "*".to_owned()
}

/// One input, and the rules for what it gives.
#[derive(Debug, Clone)]
pub(crate) struct TailConfig {
    pub(crate) input: Input,
    pub(crate) multiline: Multiline,
    pub(crate) zone_seconds: i32,
    pub(crate) edge: EdgeRules,
    pub(crate) spool: SpoolLimits,
}

impl TailConfig {
    /// An input with the rules that hold where none are given.
    pub(crate) fn of(input: Input) -> Self {
        let (multiline, edge, spool) = (Multiline::default(), EdgeRules::default(), SpoolLimits::default());
        Self { input, multiline, zone_seconds: 0, edge, spool }
    }
}

impl RawTail {
    /// `place` is where it stands in which file; paths are relative to `dir`.
    pub(super) fn check(mut self, place: &str, dir: &Path) -> anyhow::Result<TailConfig> {
        let input = self.input(place, dir)?;
        let zone_seconds = match &self.zone {
            None => 0,
            Some(_) if matches!(input, Input::Containers(_) | Input::Journal { .. }) => {
                bail!("{place}.zone: only plain files leave their zone open")
            }
            Some(zone) => zone_seconds(zone).with_context(|| {
                format!("{place}.zone: {zone:?} is neither UTC nor an offset such as +02:00")
            })?,
        };
        let multiline = match self.multiline {
            None => Multiline::default(),
            Some(RawMultiline::Word(word)) if word == "traces" => Multiline::Traces,
            Some(RawMultiline::Word(word)) if word == "off" => Multiline::Off,
            Some(RawMultiline::Word(word)) => {
                bail!("{place}.multiline: {word:?} is none of traces, off, {{start: PATTERN}}")
            }
            Some(RawMultiline::Start { start }) => Multiline::start(&start)
                .map_err(|error| anyhow::anyhow!("{place}.multiline.start: {error}"))?,
        };
        let scope = |raw: RawScope| Scope { namespace: raw.namespace, container: raw.container };
        let limits = self.limits.into_iter().enumerate();
        let limits = limits.map(|(at, raw)| raw.check(&format!("{place}.limits[{at}]")));
        let samples = self.sample.into_iter().enumerate();
        let samples = samples.map(|(at, raw)| raw.check(&format!("{place}.sample[{at}]")));
        let edge = EdgeRules {
            exclude: self.exclude.into_iter().map(scope).collect(),
            limits: limits.collect::<anyhow::Result<_>>()?,
            samples: samples.collect::<anyhow::Result<_>>()?,
            redactor: Arc::new(redactor(self.redact, place)?),
        };
        let default = SpoolLimits::default();
        let bytes = match self.spool.size {
            None => default.bytes,
            // Zero is none, and not no bound.
            Some(text) => size(place, "spool", Some(&text))?.unwrap_or(0),
        };
        let spool = SpoolLimits { bytes, age: self.spool.age.unwrap_or(default.age) };
        Ok(TailConfig { input, multiline, zone_seconds, edge, spool })
    }

    fn input(&mut self, place: &str, dir: &Path) -> anyhow::Result<Input> {
        let (units, also) = (!self.units.is_empty() || !self.exclude_units.is_empty(), !self.also.is_empty());
        let inputs = (self.containers.take(), self.files.take(), self.node.take(), self.journal.take());
        if (inputs.3.is_none() && units) || (inputs.2.is_none() && also) {
            bail!("{place}: units and exclude_units are for journal, also is for node");
        }
        if inputs.1.is_none() && self.service.is_some() {
            bail!("{place}.service: it is for files; elsewhere the unit, the pod or the file's name says it");
        }
        Ok(match inputs {
            (Some(containers), None, None, None) => Input::Containers(dir.join(containers)),
            (None, Some(pattern), None, None) => {
                let service = self.service.take().with_context(|| {
                    format!("{place}: service is missing: say whose the files are, such as `service: shop`")
                })?;
                Input::Files { pattern: dir.join(pattern), service }
            }
            (None, None, Some(node), None) => {
                if let Some(name) = self.also.iter().find(|name| name.is_empty() || name.contains('/')) {
                    bail!("{place}.also: {name:?} is no name of a file directly in the directory; use files");
                }
                Input::Node { dir: dir.join(node), also: std::mem::take(&mut self.also) }
            }
            (None, None, None, Some(journal)) => {
                let dirs = match journal {
                    OneOrMany::One(one) => vec![one],
                    OneOrMany::Many(many) if many.is_empty() => bail!("{place}.journal: name a directory"),
                    OneOrMany::Many(many) => many,
                };
                let (include, exclude) =
                    (std::mem::take(&mut self.units), std::mem::take(&mut self.exclude_units));
                let dirs = dirs.into_iter().map(|one| dir.join(one)).collect();
                Input::Journal { dirs, units: Units { include, exclude } }
            }
            _ => bail!(
                "{place}: say one of containers (a directory of links), files (a pattern), node (a directory \
                 such as /var/log) and journal (a directory such as /var/log/journal)"
            ),
        })
    }
}

/// Seconds east of Greenwich.
fn zone_seconds(zone: &str) -> Option<i32> {
    if matches!(zone, "UTC" | "Z") {
        return Some(0);
    }
    let (sign, rest) =
        zone.strip_prefix('+').map(|rest| (1, rest)).or_else(|| Some((-1, zone.strip_prefix('-')?)))?;
    let (hours, minutes) = rest.split_once(':')?;
    let number = |text: &str| text.parse::<i32>().ok().filter(|_| text.len() == 2);
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    ((0..=14).contains(&hours) && (0..60).contains(&minutes)).then(|| sign * (hours * 3600 + minutes * 60))
}

impl RawLimit {
    fn check(self, place: &str) -> anyhow::Result<Limit> {
        let bytes = self.bytes_per_second.as_deref();
        let bytes = bytes.map(|text| {
            super::bytes(text).with_context(|| {
                format!("{place}.bytes_per_second: {text:?} is no size; write a number and B, KB, MB or GB")
            })
        });
        let bytes = bytes.transpose()?.map(|bytes| bytes as f64);
        let is_rate = |rate: f64| rate.is_finite() && rate > 0.0;
        if self.lines_per_second.is_none() && bytes.is_none() {
            bail!("{place}: say lines_per_second, bytes_per_second or both");
        }
        if !self.lines_per_second.is_none_or(is_rate) || !bytes.is_none_or(is_rate) {
            bail!("{place}: a rate must be more than zero; to read nothing of a container use exclude");
        }
        let burst_seconds = self.burst.map_or(1.0, |burst| burst.as_secs_f64());
        if self.lines_per_second.is_some_and(|rate| rate * burst_seconds < 1.0) {
            bail!(
                "{place}.burst: not one line would ever pass; make it {}s at least",
                (1.0 / self.lines_per_second.unwrap_or(1.0)).ceil()
            );
        }
        Ok(Limit {
            scope: Scope { namespace: self.namespace, container: self.container },
            is_shared: self.shared,
            lines: self.lines_per_second,
            bytes,
            burst_seconds,
        })
    }
}

impl RawSample {
    fn check(self, place: &str) -> anyhow::Result<Sample> {
        if !(0.0..=1.0).contains(&self.keep) {
            bail!("{place}.keep: {} is not between 0 and 1", self.keep);
        }
        if !self.level.is_empty() && !LEVELS.contains(&self.level.as_str()) {
            bail!("{place}.level: {:?} is none of {}", self.level, LEVELS.join(", "));
        }
        let scope = Scope { namespace: self.namespace, container: self.container };
        Ok(Sample { scope, level: self.level, keep: self.keep })
    }
}

pub(super) fn redactor(raw: Vec<RawRedaction>, place: &str) -> anyhow::Result<Redactor> {
    let mut rules = Vec::new();
    for (at, one) in raw.into_iter().enumerate() {
        let place = format!("{place}.redact[{at}]");
        match one {
            RawRedaction::Builtin(name) if name == "builtin" => {
                rules.extend(Builtin::ALL.into_iter().filter_map(Redaction::builtin));
            }
            RawRedaction::Builtin(name) => {
                let known = Builtin::named(&name).and_then(Redaction::builtin);
                rules.push(known.with_context(|| {
                    let names = Builtin::ALL.map(Builtin::name).join(", ");
                    format!(
                        "{place}: {name:?} is none of builtin, {names}; a pattern is written {{regex: …}}"
                    )
                })?);
            }
            RawRedaction::Rule { regex, replacement } => {
                let replacement = replacement.as_deref().unwrap_or("<redacted>");
                let rule = Redaction::rule(&regex, replacement);
                rules.push(rule.map_err(|error| anyhow::anyhow!("{place}.regex: {error}"))?);
            }
        }
    }
    Ok(Redactor::new(rules))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(yaml: &str) -> Result<TailConfig, String> {
        let raw: RawTail = serde_saphyr::from_str(yaml).map_err(|error| error.to_string())?;
        raw.check("c.yml: logs[0]", Path::new("/etc/b")).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn all_rules_are_read() {
        let config = check(
            "
            files: /var/log/app/*.log
            service: shop
            multiline: {start: '^\\d{4}-'}
            exclude: [{namespace: kube-system}]
            limits: [{namespace: 'dev-*', lines_per_second: 100, bytes_per_second: 1MB, burst: 5s, shared: true}]
            sample: [{level: debug, keep: 0.1}]
            redact: [builtin, {regex: 'customer=\\w+', replacement: 'customer=x'}]
            spool: {size: 2GB, age: 12h}
            ",
        )
        .unwrap();
        assert!(matches!(config.multiline, Multiline::Start(_)));
        assert_eq!((config.edge.exclude.len(), config.edge.samples.len()), (1, 1));
        let limit = &config.edge.limits[0];
        assert_eq!((limit.bytes, limit.burst_seconds, limit.is_shared), (Some(1_048_576.0), 5.0, true));
        assert_eq!((config.spool.bytes, config.spool.age), (2 << 30, Duration::from_hours(12)));
        let (message, count) = config.edge.redactor.redact(b"customer=bob a@b.example");
        assert_eq!((&*message, count), (&b"customer=x <redacted:emails>"[..], 2));
        let plain = check("containers: /var/log/containers").unwrap();
        assert!(matches!(plain.multiline, Multiline::Traces));
        assert_eq!(check("{containers: /x, spool: {size: 0B}}").unwrap().spool.bytes, 0);
    }

    #[test]
    fn journals_and_nodes_are_read() {
        let of = |yaml: &str| check(yaml).unwrap();
        let journal =
            of("{journal: /var/log/journal, units: [kubelet, 'container*'], exclude_units: [cron]}");
        let Input::Journal { dirs, units } = journal.input else { panic!("{journal:?}") };
        assert_eq!(dirs, [Path::new("/var/log/journal")]);
        assert_eq!(
            (units.include, units.exclude),
            (vec!["kubelet".into(), "container*".into()], vec!["cron".into()])
        );
        let both = of("{journal: [/var/log/journal, /run/log/journal]}");
        assert!(matches!(both.input, Input::Journal { dirs, .. } if dirs.len() == 2));
        let node = of("{node: /var/log, also: [syslog], zone: '-05:30'}");
        assert_eq!(node.zone_seconds, -19_800);
        assert!(matches!(node.input, Input::Node { also, .. } if also == ["syslog"]));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (yaml, want) in [
            ("{}", "c.yml: logs[0]: say one of containers"),
            ("{containers: /a, files: /b}", "say one of containers"),
            ("{node: /a, journal: /b}", "say one of containers"),
            ("{journal: []}", "logs[0].journal: name a directory"),
            ("{node: /a, units: [x]}", "units and exclude_units are for journal"),
            ("{journal: /a, also: [x]}", "also is for node"),
            ("{journal: /a, service: x}", "logs[0].service: it is for files"),
            ("{node: /a, also: [b/c]}", "logs[0].also: \"b/c\""),
            ("{node: /a, zone: Mars}", "logs[0].zone: \"Mars\""),
            ("{node: /a, zone: '+15:00'}", "logs[0].zone"),
            ("{journal: /a, zone: UTC}", "only plain files"),
            ("{files: /b}", "service is missing"),
            ("{containers: /a, multiline: on}", "multiline"),
            ("{containers: /a, multiline: {start: '('}}", "logs[0].multiline.start"),
            ("{containers: /a, limits: [{}]}", "limits[0]: say lines_per_second"),
            ("{containers: /a, limits: [{lines_per_second: 0}]}", "more than zero"),
            ("{containers: /a, limits: [{lines_per_second: 0.1}]}", "make it 10s"),
            ("{containers: /a, limits: [{bytes_per_second: much}]}", "limits[0].bytes_per_second: \"much\""),
            ("{containers: /a, sample: [{keep: 2}]}", "sample[0].keep"),
            ("{containers: /a, sample: [{keep: 1, level: loud}]}", "sample[0].level: \"loud\""),
            ("{containers: /a, redact: [phones]}", "redact[0]: \"phones\" is none of builtin, keys"),
            ("{containers: /a, redact: [{regex: '('}]}", "redact[0].regex"),
            ("{containers: /a, redact: [{regex: 'x*'}]}", "empty text"),
            ("{container: /a}", "container"),
        ] {
            let error = check(yaml).unwrap_err();
            assert!(error.contains(want), "{yaml}: {error}");
        }
    }
}
