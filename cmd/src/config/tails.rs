//! `logs`: which files are tailed, and what happens to their lines before they leave the node.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use binnacle_collector::tail::edge::{Builtin, EdgeRules, Limit, Redaction, Redactor, Sample, Scope};
use binnacle_collector::tail::multiline::Multiline;
use binnacle_collector::tail::{Input, SpoolLimits};
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
enum RawRedaction {
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
    pub(crate) edge: EdgeRules,
    pub(crate) spool: SpoolLimits,
}

impl TailConfig {
    /// An input with the rules that hold where none are given.
    pub(crate) fn of(input: Input) -> Self {
        let (multiline, edge, spool) = (Multiline::default(), EdgeRules::default(), SpoolLimits::default());
        Self { input, multiline, edge, spool }
    }
}

impl RawTail {
    /// `place` is where it stands in which file; paths are relative to `dir`.
    pub(super) fn check(self, place: &str, dir: &Path) -> anyhow::Result<TailConfig> {
        let input = match (self.containers, self.files) {
            (Some(containers), None) => Input::Containers(dir.join(containers)),
            (None, Some(pattern)) => {
                let service = self.service.with_context(|| {
                    format!("{place}: service is missing: say whose the files are, such as `service: shop`")
                })?;
                Input::Files { pattern: dir.join(pattern), service }
            }
            _ => bail!("{place}: say either containers, a directory of links, or files, a pattern"),
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
        Ok(TailConfig { input, multiline, edge, spool })
    }
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

fn redactor(raw: Vec<RawRedaction>, place: &str) -> anyhow::Result<Redactor> {
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
    fn what_is_wrong_is_named() {
        for (yaml, want) in [
            ("{}", "c.yml: logs[0]: say either containers"),
            ("{containers: /a, files: /b}", "say either containers"),
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
