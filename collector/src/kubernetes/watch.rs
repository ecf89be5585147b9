//! What there is of one kind of objects, kept up to date.
//!
//! A watch that breaks goes on where it was; one that is too old (`410 Gone`) begins with a new list. What was known stays
//! known meanwhile: a server that is away takes nothing from anybody.

use std::collections::{BTreeMap, HashSet};
use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use kube::Api;
use kube::runtime::watcher::{self, Config, Event};
use kube::runtime::{WatchStreamExt, watcher as follow};

use super::telemetry::WatchTelemetry;
use super::views::View;

/// Objects that are kept of one kind. No cluster that Kubernetes supports has as many.
const OBJECTS_MAX: usize = 500_000;

/// Seconds after which the server ends a watch, which then goes on.
pub(super) const WATCH_SECONDS: u32 = 240;

/// `NAMESPACE/NAME`, or the name alone.
pub(crate) type Key = Arc<str>;

/// Objects of one kind, and those of them that are about to change.
pub(crate) struct Watch<K: View> {
    events: Pin<Box<dyn Stream<Item = Result<Event<K>, watcher::Error>> + Send>>,
    objects: Objects<K>,
    telemetry: WatchTelemetry,
    /// Answers that failed since the last good one.
    failures: u32,
}

/// Which objects are watched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Selection {
    /// One namespace, or all.
    pub(crate) namespace: Option<String>,
    /// As the API takes it, such as `spec.nodeName=a`.
    pub(crate) fields: Option<String>,
    /// As the API takes it, such as `app=shop`.
    pub(crate) labels: Option<String>,
}

impl<K: View> Watch<K> {
    pub(crate) fn new(client: kube::Client, selection: &Selection, telemetry: &WatchTelemetry) -> Self {
        let api: Api<K> = match &selection.namespace {
            None => Api::all_with(client, &()),
            Some(namespace) => Api::namespaced_with(client, namespace, &()),
        };
        let mut config = Config::default().timeout(WATCH_SECONDS);
        // As controllers do: what a server of several has at hand is good enough, and costs no quorum.
        config = config.any_semantic();
        config.field_selector.clone_from(&selection.fields);
        config.label_selector.clone_from(&selection.labels);
        // What is one node's is little, and then a server answers from what it has at hand.
        if selection.fields.is_some() {
            config.page_size = None;
        }
        let events = follow(api, config).default_backoff();
        let events = Box::pin(events.map(|event| event.map(|event| event.modify(shorten))));
        Self { events, objects: Objects::default(), telemetry: telemetry.clone(), failures: 0 }
    }

    /// Waits for a change. Answers the keys of what changed or is gone; they may be none.
    pub(crate) async fn changed(&mut self) -> Vec<Key> {
        match self.events.next().await {
            Some(Ok(event)) => {
                self.failures = 0;
                self.objects.apply(event)
            }
            Some(Err(error)) => {
                self.telemetry.failed(K::RESOURCE);
                self.failures = self.failures.saturating_add(1);
                // Once per outage: the metric counts the rest.
                if self.failures == 1 {
                    let (resource, error) = (K::RESOURCE, super::chain_of(&error));
                    tracing::warn!(
                        resource,
                        error,
                        "Kubernetes does not answer: what is known stays, and it is asked again"
                    );
                }
                Vec::new()
            }
            None => std::future::pending().await,
        }
    }
}

impl<K: View> Watch<K> {
    /// What is there, as far as it is known.
    pub(crate) fn objects(&self) -> &Objects<K> {
        &self.objects
    }
}

/// What is never looked at takes most of the room.
fn shorten<K: View>(object: &mut K) {
    let meta = object.meta_mut();
    meta.managed_fields = None;
    if let Some(annotations) = &mut meta.annotations {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
}

/// Objects by their keys.
#[derive(Debug)]
pub(crate) struct Objects<K> {
    known: BTreeMap<Key, Arc<K>>,
    /// Keys that a list which is under way has named.
    listed: Option<HashSet<Key>>,
    is_complete: bool,
}

impl<K> Default for Objects<K> {
    fn default() -> Self {
        Self { known: BTreeMap::new(), listed: None, is_complete: false }
    }
}

impl<K: View> Objects<K> {
    pub(crate) fn get(&self, key: &str) -> Option<&Arc<K>> {
        self.known.get(key)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Key, &Arc<K>)> {
        self.known.iter()
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.known.keys()
    }

    /// Whether all that was there at the start is known.
    pub(crate) fn is_complete(&self) -> bool {
        self.is_complete
    }

    fn apply(&mut self, event: Event<K>) -> Vec<Key> {
        match event {
            Event::Init => {
                self.listed = Some(HashSet::new());
                Vec::new()
            }
            Event::InitApply(object) | Event::Apply(object) => {
                let key = key_of(&object);
                if let Some(listed) = &mut self.listed {
                    listed.insert(Arc::clone(&key));
                }
                self.put(key, object)
            }
            Event::Delete(object) => {
                let key = key_of(&object);
                self.known.remove(&key).map(|_| key).into_iter().collect()
            }
            Event::InitDone => {
                self.is_complete = true;
                let listed = self.listed.take().unwrap_or_default();
                let gone: Vec<Key> =
                    self.known.keys().filter(|key| !listed.contains(*key)).cloned().collect();
                gone.iter().for_each(|key| {
                    self.known.remove(key);
                });
                gone
            }
        }
    }

    fn put(&mut self, key: Key, object: K) -> Vec<Key> {
        let version = |object: &K| object.meta().resource_version.clone();
        match self.known.get(&key) {
            Some(known) if version(known).is_some() && version(known) == version(&object) => {
                return Vec::new();
            }
            None if self.known.len() >= OBJECTS_MAX => {
                tracing::error!(
                    resource = K::RESOURCE,
                    most = OBJECTS_MAX,
                    "more objects than are kept: the rest is not known"
                );
                return Vec::new();
            }
            _ => {}
        }
        self.known.insert(Arc::clone(&key), Arc::new(object));
        vec![key]
    }
}

/// As Prometheus and client-go name objects.
pub(crate) fn key_of<K: View>(object: &K) -> Key {
    let meta = object.meta();
    let name = meta.name.as_deref().unwrap_or_default();
    match meta.namespace.as_deref() {
        None | Some("") => Key::from(name),
        Some(namespace) => Key::from(format!("{namespace}/{name}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::views::Namespace;

    fn namespace(name: &str, version: &str) -> Namespace {
        let meta = serde_json::json!({"metadata": {"name": name, "resourceVersion": version}});
        serde_json::from_value(meta).unwrap()
    }

    #[test]
    fn a_new_list_takes_away_what_it_does_not_name() {
        let mut objects = Objects::default();
        let mut changed = |event| objects.apply(event).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert!(changed(Event::Init).is_empty());
        assert_eq!(changed(Event::InitApply(namespace("a", "1"))), ["a"]);
        assert_eq!(changed(Event::InitApply(namespace("b", "1"))), ["b"]);
        assert!(changed(Event::InitDone).is_empty());
        assert_eq!(changed(Event::Apply(namespace("c", "2"))), ["c"]);
        assert_eq!(changed(Event::Delete(namespace("c", "3"))), ["c"]);
        assert!(changed(Event::Init).is_empty());
        assert!(changed(Event::InitApply(namespace("b", "1"))).is_empty(), "it is as it was");
        assert_eq!(changed(Event::InitDone), ["a"]);
        assert!(objects.is_complete() && objects.get("b").is_some() && objects.iter().count() == 1);
    }
}
