//! Where targets come from: static lists, files, HTTP, DNS, objects of a cluster.
//!
//! ```text
//! file_sd_configs ─► Discoverer ─┐ groups by source
//! http_sd_configs ─► Discoverer ─┼─► Found ─► scrape::manager: relabel_configs ─► targets
//! dns_sd_configs  ─► Discoverer ─┤
//! kubernetes_sd_… ─► Discoverer ─┘
//! static_configs  ─────────────────┘ (there from the start)
//! ```
//!
//! A [`Discoverer`] is a task that says which targets there are, as Prometheus's do: in groups, each from one source (a
//! file, a name, a pod), with labels `__meta_…` of what it knows. A group replaces the one that the same source gave before;
//! one without targets takes it away. To add another kind, implement the trait and add its section to
//! `scrape::ScrapeConfig`.
//!
//! Invariants:
//! - What cannot be asked just now keeps its last good answer; an answer without targets takes them away (RELIABILITY S12).
//! - Sizes of answers, files and groups are bounded.

mod dns;
mod file;
mod http;
mod kubernetes;
mod shared;

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use binnacle_model::Labels;
use serde::Deserialize;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::kubernetes::{KubernetesTelemetry, Share};

pub(crate) use dns::RawDnsSd;
pub(crate) use file::RawFileSd;
pub(crate) use http::RawHttpSd;
pub(crate) use kubernetes::RawKubernetesSd;
pub(crate) use shared::{SharedDiscovery, Sharing};

/// Targets of one discoverer at most: more is a mistake, and each costs a task.
const TARGETS_MAX: usize = 100_000;

/// Targets that one source gave, with what they have in common.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TargetGroup {
    /// Names the source among those of its discoverer.
    pub source: String,
    /// Of all its targets, unless they have their own.
    pub labels: Labels,
    /// Each has `__address__`.
    pub targets: Vec<Labels>,
}

/// A group as files and HTTP servers write it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawGroup {
    targets: Vec<String>,
    #[serde(deserialize_with = "binnacle_model::yaml::null_is_default")]
    labels: BTreeMap<String, String>,
}

/// The groups of a list, named by `source` and their place in it, with `label` = `source`.
fn groups_of(raw: Vec<RawGroup>, source: &str, label: &str) -> Result<Vec<TargetGroup>, String> {
    let count: usize = raw.iter().map(|group| group.targets.len()).sum();
    if count > TARGETS_MAX {
        return Err(format!("{count} targets are more than {TARGETS_MAX}"));
    }
    let group = |(at, raw): (usize, RawGroup)| {
        let labels = Labels::new(raw.labels).map_err(|error| format!("group {at}: {error}"))?;
        let target = |address: &String| Labels::default().with(ADDRESS, address);
        Ok(TargetGroup {
            source: format!("{source}:{at}"),
            labels: labels.with(label, source),
            targets: raw.targets.iter().map(target).collect(),
        })
    };
    raw.into_iter().enumerate().map(group).collect()
}

/// The label that says where a target is.
pub const ADDRESS: &str = "__address__";

/// What a discoverer knows of the agent that it runs in.
#[derive(Debug, Clone)]
pub struct Context {
    /// Which targets of a cluster are scraped here; others need not be found.
    pub share: Share,
    /// Where is counted.
    pub kubernetes: KubernetesTelemetry,
}

/// Says which targets there are, until it is stopped.
pub trait Discoverer: Send + fmt::Debug {
    /// Says to `found` what there is now, and again whenever that changes; ends once `stop` fires.
    fn run(self: Box<Self>, found: Updates, stop: CancellationToken) -> Running;
}

/// A discoverer that runs.
pub type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What is known of discovery: a section of the configuration that can be started, again and again.
pub trait Discovery: Send + Sync + fmt::Debug {
    /// One that runs for itself.
    fn discoverer(&self, context: &Context) -> Box<dyn Discoverer>;

    /// Sections with equal prints find the same, and may share one discoverer. `None` shares with nobody.
    fn print(&self) -> Option<String> {
        None
    }
}

/// The groups of all discoverers of a scrape config.
#[derive(Debug, Default)]
pub struct Found {
    groups: Mutex<Groups>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Groups {
    by_source: BTreeMap<(usize, String), TargetGroup>,
    /// Which discoverers have answered.
    answered: Vec<bool>,
}

impl Found {
    /// Groups that are there from the start, and room for so many discoverers.
    pub fn new(statics: &[TargetGroup], discoverers: usize) -> Self {
        let keyed = statics.iter().map(|group| ((usize::MAX, group.source.clone()), group.clone()));
        let groups = Groups { by_source: keyed.collect(), answered: vec![false; discoverers] };
        Self { groups: Mutex::new(groups), changed: Notify::new() }
    }

    /// All groups there are.
    pub fn groups(&self) -> Vec<TargetGroup> {
        self.lock().by_source.values().cloned().collect()
    }

    /// Whether every discoverer has answered.
    pub fn is_complete(&self) -> bool {
        self.lock().answered.iter().all(|answered| *answered)
    }

    /// Waits for a change since the last one that was waited for.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Groups> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// By which one discoverer says what it found.
#[derive(Debug, Clone)]
pub struct Updates(To);

/// Who hears of it.
#[derive(Debug, Clone)]
enum To {
    /// One scrape config.
    One { found: Arc<Found>, discoverer: usize },
    /// All that share the discoverer.
    Many(Arc<shared::Hub>),
}

impl Updates {
    /// Of the discoverer with this number, below what [`Found::new`] heard.
    pub fn new(found: Arc<Found>, discoverer: usize) -> Self {
        Self(To::One { found, discoverer })
    }

    /// These sources give these groups now; others of this discoverer stay as they are.
    pub fn set(&self, groups: Vec<TargetGroup>) {
        let (found, discoverer) = match &self.0 {
            To::One { found, discoverer } => (found, *discoverer),
            To::Many(hub) => return hub.set(groups),
        };
        let mut known = found.lock();
        let mut has_changed = !std::mem::replace(&mut known.answered[discoverer], true);
        for group in groups {
            let key = (discoverer, group.source.clone());
            if group.targets.is_empty() {
                has_changed |= known.by_source.remove(&key).is_some();
            } else if known.by_source.get(&key) != Some(&group) {
                known.by_source.insert(key, group);
                has_changed = true;
            }
        }
        drop(known);
        if has_changed {
            found.changed.notify_one();
        }
    }

    /// These are all groups of this discoverer now.
    pub fn replace(&self, mut groups: Vec<TargetGroup>) {
        let known: Vec<String> = match &self.0 {
            To::One { found, discoverer } => {
                let known = found.lock();
                let own = known.by_source.keys().filter(|(of, _)| of == discoverer);
                own.map(|(_, source)| source.clone()).collect()
            }
            To::Many(hub) => hub.sources(),
        };
        let gone = known.into_iter().filter(|source| groups.iter().all(|group| group.source != *source));
        let gone: Vec<String> = gone.collect();
        groups.extend(gone.into_iter().map(|source| TargetGroup { source, ..TargetGroup::default() }));
        self.set(groups);
    }

    /// Nothing can be said for now, and nobody need wait for it.
    pub fn fail(&self) {
        self.set(Vec::new());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(source: &str, addresses: &[&str]) -> TargetGroup {
        let targets = addresses.iter().map(|address| Labels::default().with(ADDRESS, address)).collect();
        TargetGroup { source: source.to_owned(), targets, ..TargetGroup::default() }
    }

    #[test]
    fn a_source_replaces_what_it_gave_before() {
        let found = Arc::new(Found::new(&[group("0", &["s"])], 2));
        let (first, second) = (Updates::new(found.clone(), 0), Updates::new(found.clone(), 1));
        assert!(!found.is_complete());
        first.set(vec![group("a", &["1"]), group("b", &["2"])]);
        second.replace(vec![group("a", &["3"])]);
        assert!(found.is_complete());
        let shown = || -> Vec<String> {
            found
                .groups()
                .iter()
                .flat_map(|one| &one.targets)
                .map(|one| one.value(ADDRESS).to_owned())
                .collect()
        };
        assert_eq!(shown(), ["1", "2", "3", "s"]);
        first.set(vec![group("a", &[])]);
        second.fail();
        assert_eq!(shown(), ["2", "3", "s"], "an empty group goes, a failure changes nothing");
        second.replace(vec![group("b", &["4"])]);
        assert_eq!(shown(), ["2", "4", "s"]);
    }
}
