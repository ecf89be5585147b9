//! A monitor as scrape configs of Prometheus, step by step as Prometheus Operator makes them (`pkg/prometheus/promcfg.go`
//! as of 2025: `generateServiceMonitorConfig`, `generatePodMonitorConfig`, `generateProbeConfig`).
//!
//! Nothing is asked or read here: what Secrets hold is looked up in what is known, and what is not known yet is said.
//! Rules for shards are left out, and nothing of a Prometheus object applies, as there is none.

mod endpoints;
mod probe;
mod reach;
mod rules;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::Kind;
use super::assets::{AssetRef, Assets, Holder, OBJECTS_MAX};
use super::config::FileAccess;
use super::views::{KeyRef, MonitorSpec, NamespaceSelector, ProbeSpec, Relabeling};
use crate::relabel::{RawRule, read_rules};

/// Endpoints of one monitor, and rules of one list: more is a mistake, and each rule holds a compiled expression.
const ENDPOINTS_MAX: usize = 100;
const RULES_MAX: usize = 200;

/// Bytes of one object that are looked at.
const SPEC_MAX_BYTES: usize = 512 * 1024;

/// What a translation needs beside the monitor.
#[derive(Debug, Clone, Copy)]
pub(super) struct Beside<'a> {
    pub(super) assets: &'a Assets,
    pub(super) files: &'a FileAccess,
    /// How targets are discovered, if not by the pod's service account.
    pub(super) kubeconfig: Option<&'a Path>,
    /// Modules by which Probes may have us probe; `None` is all.
    pub(super) modules: Option<&'a BTreeSet<String>>,
}

/// What a monitor came to.
pub(super) struct Translation {
    /// Scrape configs. They hold what Secrets hold: nobody is shown them.
    pub(super) configs: Result<Vec<Config>, String>,
    /// Values that it names.
    pub(super) asked: BTreeSet<AssetRef>,
    /// Whether some of these are not known yet: then the configs are of no use.
    pub(super) waits: bool,
    /// What of the monitor changes nothing.
    pub(super) warnings: Vec<String>,
}

/// A scrape config.
#[derive(Debug, PartialEq)]
pub(super) struct Config {
    pub(super) job: String,
    pub(super) value: Value,
    /// Whether its targets are probed by this process, and not scraped.
    pub(super) is_probe: bool,
}

/// Works on one monitor.
struct Translator<'a> {
    namespace: &'a str,
    name: &'a str,
    assets: &'a Assets,
    files: &'a FileAccess,
    kubeconfig: Option<&'a Path>,
    modules: Option<&'a BTreeSet<String>>,
    asked: BTreeSet<AssetRef>,
    waits: bool,
    warnings: Vec<String>,
}

/// The scrape configs of a monitor.
pub(super) fn translate(
    kind: Kind,
    (namespace, name): (&str, &str),
    spec: &Value,
    beside: Beside<'_>,
) -> Translation {
    let Beside { assets, files, kubeconfig, modules } = beside;
    let (asked, waits, warnings) = (BTreeSet::new(), false, Vec::new());
    let mut of = Translator { namespace, name, assets, files, kubeconfig, modules, asked, waits, warnings };
    let configs = match kind {
        Kind::Service => read(spec).and_then(|spec: MonitorSpec| of.monitor(&spec, Translator::service)),
        Kind::Pod => read(spec).and_then(|spec: MonitorSpec| of.monitor(&spec, Translator::pod)),
        Kind::Probe => read(spec).and_then(|spec: ProbeSpec| Ok(vec![of.probe(&spec)?])),
    };
    Translation { configs, asked: of.asked, waits: of.waits, warnings: of.warnings }
}

fn read<T: DeserializeOwned>(spec: &Value) -> Result<T, String> {
    if spec.to_string().len() > SPEC_MAX_BYTES {
        return Err(format!("spec: more than {SPEC_MAX_BYTES} bytes"));
    }
    T::deserialize(spec).map_err(|error| format!("spec: {error}"))
}

impl Translator<'_> {
    /// What a key of a Secret or `ConfigMap` of the monitor's namespace holds; nothing while that is not known.
    fn value(&mut self, place: &str, holder: Holder, of: &KeyRef) -> Result<String, String> {
        let is_name = |text: &str| {
            let is_allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
            !text.is_empty() && text.len() <= 253 && text.bytes().all(is_allowed) && !text.starts_with('.')
        };
        if !is_name(&of.name) || of.key.is_empty() {
            return Err(format!("{place}: name and key of what holds the value are needed"));
        }
        let namespace = self.namespace.to_owned();
        let asked = AssetRef { holder, namespace, name: of.name.clone(), key: of.key.clone() };
        let known = self.assets.get(&asked);
        if known.is_none() && self.assets.objects() >= OBJECTS_MAX {
            return Err(format!("{place}: monitors name more than {OBJECTS_MAX} Secrets and ConfigMaps"));
        }
        self.asked.insert(asked.clone());
        match known {
            None => {
                self.waits = true;
                Ok(String::new())
            }
            Some(Ok(text)) => Ok(text.to_owned()),
            Some(Err(reason)) => Err(format!("{place}: {reason}")),
        }
    }

    /// Where targets are discovered.
    fn discovery(&self, role: &str, of: &NamespaceSelector) -> Map<String, Value> {
        let mut sd = Map::new();
        put(&mut sd, "role", json!(role));
        if !of.any {
            let own = [self.namespace.to_owned()];
            let names = if of.match_names.is_empty() { &own[..] } else { &of.match_names };
            put(&mut sd, "namespaces", json!({"names": names}));
        }
        if let Some(path) = self.kubeconfig {
            put(&mut sd, "kubeconfig_file", json!(path));
        }
        sd
    }

    fn warn_of_class(&mut self, class: Option<&String>) {
        if let Some(class) = class.filter(|class| !class.is_empty()) {
            self.warnings.push(format!(
                "spec.scrapeClass: {class:?} is defined by a Prometheus object, and these are not read"
            ));
        }
    }
}

/// Checks rules that stand at `place`, so that an error names the one in the monitor.
fn check_rules(place: &str, relabelings: &[Relabeling]) -> Result<(), String> {
    if relabelings.len() > RULES_MAX {
        return Err(format!("{place}: more than {RULES_MAX} rules"));
    }
    let raw: Result<Vec<RawRule>, String> = relabelings
        .iter()
        .enumerate()
        .map(|(at, one)| {
            serde_json::from_value(rules::rule_of(one)).map_err(|error| format!("{place}[{at}]: {error}"))
        })
        .collect();
    read_rules(place, raw?).map(|_| ())
}

fn put(to: &mut Map<String, Value>, key: &str, value: Value) {
    to.insert(key.to_owned(), value);
}

/// Empty text is none.
fn put_text(to: &mut Map<String, Value>, key: &str, text: &str) {
    if !text.is_empty() {
        put(to, key, json!(text));
    }
}

/// The limits that all monitors have.
macro_rules! put_limits {
    ($config:expr, $spec:expr) => {
        for (key, limit) in [
            ("sample_limit", $spec.sample_limit),
            ("target_limit", $spec.target_limit),
            ("label_limit", $spec.label_limit),
            ("label_name_length_limit", $spec.label_name_length_limit),
            ("label_value_length_limit", $spec.label_value_length_limit),
            ("keep_dropped_targets", $spec.keep_dropped_targets),
            ("native_histogram_bucket_limit", $spec.native_histogram_bucket_limit),
        ] {
            if let Some(limit) = limit {
                $crate::monitors::translate::put($config, key, serde_json::json!(limit));
            }
        }
        for (key, flag) in [
            ("scrape_native_histograms", $spec.scrape_native_histograms),
            ("always_scrape_classic_histograms", $spec.scrape_classic_histograms),
            ("convert_classic_histograms_to_nhcb", $spec.convert_classic_histograms),
        ] {
            if let Some(flag) = flag {
                $crate::monitors::translate::put($config, key, serde_json::json!(flag));
            }
        }
        if let Some(factor) = &$spec.native_histogram_min_bucket_factor {
            let factor = $crate::monitors::translate::quantity(factor)
                .ok_or("spec.nativeHistogramMinBucketFactor: write a number such as \"1.1\"")?;
            $crate::monitors::translate::put(
                $config,
                "native_histogram_min_bucket_factor",
                serde_json::json!(factor),
            );
        }
        if !$spec.scrape_protocols.is_empty() {
            let protocols = serde_json::json!($spec.scrape_protocols);
            $crate::monitors::translate::put($config, "scrape_protocols", protocols);
        }
        let fallback = $spec.fallback_scrape_protocol.as_deref().unwrap_or_default();
        $crate::monitors::translate::put_text($config, "fallback_scrape_protocol", fallback);
    };
}
use put_limits;

/// A quantity as Kubernetes writes small numbers: `1.1`, `"1.1"` or `"1100m"`.
fn quantity(value: &Value) -> Option<f64> {
    let text = match value {
        Value::Number(number) => return number.as_f64(),
        Value::String(text) => text,
        _ => return None,
    };
    let (digits, factor) = text.strip_suffix('m').map_or((text.as_str(), 1.0), |digits| (digits, 1e-3));
    digits.parse::<f64>().ok().map(|number| number * factor).filter(|number| number.is_finite())
}
