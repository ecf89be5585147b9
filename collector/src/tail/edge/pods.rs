//! What a pod's annotations say of its own lines.
//!
//! ```text
//! binnacle.io/exclude     true, or the containers that are not to be stored: `proxy,init`
//! binnacle.io/multiline   traces, off, or a regular expression that a record's first line fits
//! binnacle.io/sample      the part of the lines that is kept, from 0 to 1
//! binnacle.io/limit       lines a second, of each container
//! binnacle.io/parser      auto, or none: no level is looked for
//! ```
//!
//! `binnacle.io/multiline.CONTAINER` holds for one container, and so for all but the first. They come when they come: lines that
//! were read before are stored as if there were none.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use super::limits::{Buckets, Limit, Sample, Scope};
use super::{Asked, Multiline};

/// Begins the names of annotations that are ours.
const PREFIX: &str = "binnacle.io/";

/// The annotations of pods, by the identity that the kubelet knows them by.
#[derive(Debug, Default)]
pub struct PodRules {
    pods: RwLock<HashMap<String, Arc<BTreeMap<String, String>>>>,
    generation: AtomicU64,
}

/// What they come to for a container.
#[derive(Debug, Default)]
pub(crate) struct ContainerRules {
    excluded: bool,
    pub(in crate::tail) multiline: Option<Multiline>,
    sample: Option<Sample>,
    limit: Vec<Limit>,
    buckets: Buckets,
    pub(in crate::tail) has_levels: bool,
}

impl PodRules {
    /// Takes over what the annotations of a pod say; names that are not ours are passed over.
    pub fn set(&self, uid: &str, annotations: &BTreeMap<String, String>) {
        let ours = annotations.iter().filter(|(name, _)| name.starts_with(PREFIX));
        let ours: BTreeMap<String, String> =
            ours.map(|(name, value)| (name.clone(), value.clone())).collect();
        let mut pods = self.pods.write().unwrap_or_else(PoisonError::into_inner);
        let before = pods.get(uid).map(|known| &**known);
        if before == Some(&ours) || (before.is_none() && ours.is_empty()) {
            return;
        }
        pods.insert(uid.to_owned(), Arc::new(ours));
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Forgets a pod.
    pub fn remove(&self, uid: &str) {
        self.pods.write().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    /// Another number whenever some rule may be another one.
    pub(in crate::tail) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The rules of a container, and what of them cannot be read.
    pub(crate) fn of(&self, uid: &str, container: &str) -> (Option<ContainerRules>, Vec<String>) {
        let pods = self.pods.read().unwrap_or_else(PoisonError::into_inner);
        let Some(annotations) = pods.get(uid).filter(|annotations| !annotations.is_empty()) else {
            return (None, Vec::new());
        };
        let (rules, wrong) = ContainerRules::read(annotations, container);
        (Some(rules), wrong)
    }
}

impl ContainerRules {
    fn read(annotations: &BTreeMap<String, String>, container: &str) -> (Self, Vec<String>) {
        let mut rules = Self { has_levels: true, ..Self::default() };
        let mut wrong = Vec::new();
        let said = |name: &str| {
            let own = annotations.get(&format!("{PREFIX}{name}.{container}"));
            own.or_else(|| annotations.get(&format!("{PREFIX}{name}"))).map(|value| value.trim())
        };
        let mut refuse = |name: &str, value: &str, reason: &str| {
            wrong
                .push(format!("annotation {PREFIX}{name} of its pod: {value:?} {reason}; it is passed over"));
        };
        if let Some(excluded) = annotations.get(&format!("{PREFIX}exclude")) {
            rules.excluded =
                excluded.trim() == "true" || excluded.split(',').any(|one| one.trim() == container);
        }
        match said("multiline") {
            None => {}
            Some("traces") => rules.multiline = Some(Multiline::Traces),
            Some("off") => rules.multiline = Some(Multiline::Off),
            Some(pattern) => match Multiline::start(pattern) {
                Ok(start) => rules.multiline = Some(start),
                Err(reason) => refuse("multiline", pattern, &format!("is no regular expression: {reason}")),
            },
        }
        let scope = || Scope { namespace: "*".to_owned(), container: "*".to_owned() };
        if let Some(value) = said("sample") {
            match value.parse::<f64>() {
                Ok(keep) if (0.0..=1.0).contains(&keep) => {
                    rules.sample = Some(Sample { scope: scope(), level: String::new(), keep });
                }
                _ => refuse("sample", value, "is not between 0 and 1"),
            }
        }
        if let Some(value) = said("limit") {
            match value.parse::<f64>() {
                Ok(rate) if rate.is_finite() && rate > 0.0 => {
                    // At least a line may come at once.
                    let burst_seconds = (1.0 / rate).max(1.0);
                    let limit = Limit {
                        scope: scope(),
                        is_shared: true,
                        lines: Some(rate),
                        bytes: None,
                        burst_seconds,
                    };
                    rules.buckets = Buckets::new(std::slice::from_ref(&limit));
                    rules.limit = vec![limit];
                }
                _ => refuse("limit", value, "is no number of lines a second"),
            }
        }
        match said("parser") {
            None | Some("auto") => {}
            Some("none") => rules.has_levels = false,
            Some(other) => refuse("parser", other, "is neither auto nor none"),
        }
        (rules, wrong)
    }

    /// Why a record is left out, if it is.
    pub(in crate::tail) fn drops(&mut self, asked: &Asked<'_>) -> Option<&'static str> {
        if self.excluded {
            return Some("excluded");
        }
        if self.sample.as_ref().is_some_and(|sample| !sample.keeps(asked)) {
            return Some("sampled");
        }
        let is_over = !self.limit.is_empty() && !self.buckets.take(&self.limit, asked);
        is_over.then_some("rate_limited")
    }
}

#[cfg(test)]
mod tests {
    use binnacle_model::LogTime;

    use super::*;

    fn rules(annotations: &[(&str, &str)], container: &str) -> (ContainerRules, Vec<String>) {
        let named = |(name, value): &(&str, &str)| (format!("{PREFIX}{name}"), (*value).to_owned());
        let pods = PodRules::default();
        let mut all: BTreeMap<String, String> = annotations.iter().map(named).collect();
        all.insert("other.io/exclude".to_owned(), "true".to_owned());
        pods.set("u", &all);
        let (rules, wrong) = pods.of("u", container);
        (rules.unwrap(), wrong)
    }

    fn asked(offset: u64) -> Asked<'static> {
        Asked {
            namespace: "n",
            container: "c",
            level: "",
            message: b"m",
            offset,
            now: LogTime(1_000_000_000),
        }
    }

    #[test]
    fn annotations_hold_for_a_pod_or_one_of_its_containers() {
        let all = [
            ("exclude", "proxy, init"),
            ("multiline", "off"),
            ("multiline.app", r"^\d{4}-"),
            ("sample.noisy", "0"),
            ("limit", "2"),
            ("parser.noisy", "none"),
        ];
        let (mut proxy, wrong) = rules(&all, "proxy");
        assert_eq!((proxy.drops(&asked(0)), wrong.len()), (Some("excluded"), 0));
        let (mut app, _) = rules(&all, "app");
        assert!(matches!(app.multiline, Some(Multiline::Start(_))) && app.has_levels);
        let dropped: Vec<_> = (0..4).map(|offset| app.drops(&asked(offset))).collect();
        assert_eq!(dropped, [None, None, Some("rate_limited"), Some("rate_limited")]);
        let (mut noisy, _) = rules(&all, "noisy");
        assert!(matches!(noisy.multiline, Some(Multiline::Off)) && !noisy.has_levels);
        assert_eq!(noisy.drops(&asked(0)), Some("sampled"));
        assert_eq!(rules(&[("exclude", "true")], "any").0.drops(&asked(0)), Some("excluded"));
        assert_eq!(rules(&[("exclude", "false"), ("limit", "0.1")], "any").0.drops(&asked(0)), None);
    }

    #[test]
    fn what_cannot_be_read_is_said_and_changes_nothing() {
        let all = [("multiline", "("), ("sample", "2"), ("limit", "-1"), ("parser", "yaml")];
        let (mut rules, wrong) = rules(&all, "app");
        assert_eq!(wrong.len(), 4, "{wrong:?}");
        assert!(rules.multiline.is_none() && rules.has_levels && rules.drops(&asked(0)).is_none());
    }

    #[test]
    fn a_change_is_told_once() {
        let pods = PodRules::default();
        pods.set("a", &BTreeMap::from([("x".to_owned(), "y".to_owned())]));
        assert_eq!(pods.generation(), 0);
        let off = BTreeMap::from([("binnacle.io/multiline".to_owned(), "off".to_owned())]);
        pods.set("a", &off);
        pods.set("a", &off);
        assert_eq!(pods.generation(), 1);
        pods.set("a", &BTreeMap::new());
        assert_eq!(pods.generation(), 2);
        assert!(pods.of("a", "c").0.is_none());
    }
}
