//! This node's pods: what is known of them goes to the store, what their annotations say to the tailer.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use binnacle_model::Labels;
use binnacle_model::storage::{AppendError, PodMetadata, PodSink};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::owners::Owners;
use super::telemetry::KubernetesTelemetry;
use super::views::{Namespace, Node, Pod};
use super::watch::{Key, Selection, Watch};
use super::{Access, facts};
use crate::tail::edge::PodRules;

/// Changes of a while go together.
const GATHER: Duration = Duration::from_millis(500);

/// Everything is told again after this, for a store that forgot; and owners are looked at anew.
const TELL_AGAIN: Duration = Duration::from_mins(30);

/// Owners that did not answer are asked for again after this.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// What a store refused, or did not answer, is sent again after this, doubled up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Pods in one message to the store.
const BATCH: usize = 500;

/// Pods of which the store was not told, also those that are gone; with more, the oldest are not told.
const UNTOLD_MAX: usize = 10_000;

/// Annotations of a pod that is gone hold so much longer, for lines that are still to be read.
const REMEMBER: Duration = Duration::from_mins(30);

/// Watches what is on a node.
pub struct NodeWatch {
    /// How the API is reached.
    pub access: Access,
    /// The node's name in Kubernetes.
    pub node: String,
    /// Hears what is known of pods.
    pub sink: Arc<dyn PodSink>,
    /// Hears what their annotations say.
    pub rules: Arc<PodRules>,
    /// Where is counted.
    pub telemetry: KubernetesTelemetry,
}

impl NodeWatch {
    /// Watches until `stop` fires. A client that cannot be made is tried again: a token may be mounted late.
    pub async fn run(self, stop: CancellationToken) {
        let mut has_said = false;
        let client = loop {
            match self.access.client().await {
                Ok(client) => break client,
                Err(reason) if !has_said => {
                    tracing::warn!(reason, "pods are not known here; tried again every 30 s");
                    has_said = true;
                }
                Err(_) => {}
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = Watching::new(self, &client).run() => {}
        }
    }
}

/// A message to the store, and what it came to.
type Sent = (Vec<PodMetadata>, Result<(), AppendError>);

struct Watching {
    of: NodeWatch,
    pods: Watch<Pod>,
    namespaces: Watch<Namespace>,
    nodes: Watch<Node>,
    owners: Owners,
    /// Pods of which something may have changed.
    changed: HashSet<Key>,
    /// What the store does not know yet, by pod, in the order of their numbers: what a pod was stays here when it is gone.
    untold: HashMap<String, (u64, PodMetadata)>,
    numbered: u64,
    /// What the store knows, by pod.
    told: HashMap<String, Labels>,
    /// The identities of pods that are there, for when they are gone; and those that are, with the time to forget them.
    identities: HashMap<Key, String>,
    gone: Vec<(Instant, String)>,
    sending: Option<JoinHandle<Sent>>,
    tell_at: Instant,
    backoff: Duration,
    /// It was said that the API knows no node of this name.
    has_said: bool,
}

impl Watching {
    fn new(of: NodeWatch, client: &kube::Client) -> Self {
        let of_node =
            |field: &str| Selection { fields: Some(format!("{field}={}", of.node)), ..Selection::default() };
        let watches = &of.telemetry.watches;
        Self {
            pods: Watch::new(client.clone(), &of_node("spec.nodeName"), watches),
            nodes: Watch::new(client.clone(), &of_node("metadata.name"), watches),
            namespaces: Watch::new(client.clone(), &Selection::default(), watches),
            owners: Owners::new(client.clone(), &of.telemetry),
            changed: HashSet::new(),
            untold: HashMap::new(),
            numbered: 0,
            told: HashMap::new(),
            identities: HashMap::new(),
            gone: Vec::new(),
            sending: None,
            tell_at: Instant::now() + GATHER,
            backoff: RETRY_MIN,
            has_said: false,
            of,
        }
    }

    async fn run(mut self) {
        let mut tell_again = Instant::now() + TELL_AGAIN;
        let mut look_again = Instant::now() + LOOK_AGAIN;
        loop {
            let wakes = self.wakes(look_again);
            tokio::select! {
                keys = self.pods.changed() => self.pods_changed(keys),
                keys = self.namespaces.changed() => {
                    if !keys.is_empty() {
                        let of_them = |pod: &&Key| keys.iter().any(|key| pod.split('/').next() == Some(key));
                        let pods: Vec<Key> = self.pods.objects().keys().filter(of_them).cloned().collect();
                        self.note(pods);
                    }
                }
                keys = self.nodes.changed() => if !keys.is_empty() { self.note_all() },
                _ = self.owners.answered() => self.note_all(),
                sent = join(&mut self.sending) => self.sent(sent),
                () = tokio::time::sleep_until(wakes) => {}
            }
            let now = Instant::now();
            if now >= tell_again {
                self.told.clear();
                tell_again = now + TELL_AGAIN;
                self.note_all();
            }
            if now >= look_again {
                look_again = now + LOOK_AGAIN;
                self.note_all();
                self.forget(now);
                self.check_name();
            }
            if now >= self.tell_at && self.sending.is_none() && self.has_news() {
                self.tell();
            }
        }
    }

    fn has_news(&self) -> bool {
        !self.changed.is_empty() || !self.untold.is_empty()
    }

    /// A wrong name finds nothing, and nothing fails.
    fn check_name(&mut self) {
        let nodes = self.nodes.objects();
        let is_known = nodes.keys().next().is_some();
        if !nodes.is_complete() && !is_known {
            return;
        }
        self.of.telemetry.node_known.set(is_known.into());
        if !is_known && !self.has_said {
            let node = &self.of.node;
            tracing::error!(
                node,
                "Kubernetes knows no node of this name: its pods are not known, and nobody scrapes them; say NODE_NAME or kubernetes.node"
            );
        }
        self.has_said = !is_known;
    }

    /// When there is something to do without having heard anything.
    fn wakes(&self, look_again: Instant) -> Instant {
        if !self.has_news() || self.sending.is_some() { look_again } else { self.tell_at.min(look_again) }
    }

    fn pods_changed(&mut self, keys: Vec<Key>) {
        for key in &keys {
            if let Some(pod) = self.pods.objects().get(key) {
                let before = self.identities.insert(Arc::clone(key), pod.log_uid().to_owned());
                // Another one of this name, whose end nobody saw.
                let before = before.filter(|uid| uid != pod.log_uid());
                self.gone.extend(before.map(|uid| (Instant::now() + REMEMBER, uid)));
                let none = BTreeMap::new();
                self.of.rules.set(pod.log_uid(), pod.metadata.annotations.as_ref().unwrap_or(&none));
                // It may be gone when the store is told.
                self.look(key);
            } else {
                let uid = self.identities.remove(key);
                self.gone.extend(uid.map(|uid| (Instant::now() + REMEMBER, uid)));
            }
        }
        self.of.telemetry.pods.set(self.pods.objects().iter().count() as i64);
        self.note(keys);
    }

    fn note_all(&mut self) {
        let all: Vec<Key> = self.pods.objects().keys().cloned().collect();
        self.note(all);
    }

    fn note(&mut self, keys: Vec<Key>) {
        if self.changed.is_empty() {
            self.tell_at = self.tell_at.max(Instant::now() + GATHER);
        }
        self.changed.extend(keys);
    }

    fn forget(&mut self, now: Instant) {
        let (over, left) = std::mem::take(&mut self.gone).into_iter().partition(|(at, _)| *at <= now);
        self.gone = left;
        let over: Vec<(Instant, String)> = over;
        for (_, uid) in over {
            self.of.rules.remove(&uid);
            self.told.remove(&uid);
        }
    }

    /// Keeps what is known of a pod, if the store does not know it.
    fn look(&mut self, key: &Key) {
        let Some(pod) = self.pods.objects().get(key) else { return };
        let chain = self.owners.chain(&pod.metadata);
        let namespace =
            pod.metadata.namespace.as_deref().and_then(|name| self.namespaces.objects().get(name));
        let node = self.nodes.objects().get(&self.of.node);
        let known = facts::of_pod(
            pod,
            &chain,
            namespace.map(|namespace| &namespace.metadata),
            node.map(|node| &node.metadata),
        );
        if self.told.get(&known.uid) == Some(&known.labels) {
            self.untold.remove(&known.uid);
            return;
        }
        if self.untold.len() >= UNTOLD_MAX && !self.untold.contains_key(&known.uid) {
            // One that is there is looked at again.
            let oldest = self.untold.iter().min_by_key(|(_, (number, _))| *number);
            if let Some(uid) = oldest.map(|(uid, _)| uid.clone()) {
                tracing::warn!(uid, "the store takes no metadata of pods; that of the oldest is dropped");
                self.untold.remove(&uid);
            }
        }
        self.numbered += 1;
        self.untold.insert(known.uid.clone(), (self.numbered, known));
    }

    /// Sends what the store does not know yet.
    fn tell(&mut self) {
        for key in std::mem::take(&mut self.changed) {
            self.look(&key);
        }
        self.of.telemetry.pods_unsent.set(self.untold.len() as i64);
        if self.untold.is_empty() {
            return;
        }
        let mut batch: Vec<&(u64, PodMetadata)> = self.untold.values().collect();
        batch.sort_unstable_by_key(|(number, _)| *number);
        let batch: Vec<PodMetadata> = batch.into_iter().take(BATCH).map(|(_, pod)| pod.clone()).collect();
        let sink = Arc::clone(&self.of.sink);
        self.sending = Some(tokio::task::spawn_blocking(move || {
            let sent = sink.save_pods(&batch);
            (batch, sent)
        }));
    }

    fn sent(&mut self, sent: Sent) {
        self.sending = None;
        let (batch, result) = sent;
        match result {
            Ok(()) => {
                self.backoff = RETRY_MIN;
                self.tell_at = Instant::now() + GATHER;
                for pod in batch {
                    if self.untold.get(&pod.uid).is_some_and(|(_, last)| *last == pod) {
                        self.untold.remove(&pod.uid);
                    }
                    self.told.insert(pod.uid, pod.labels);
                }
                self.of.telemetry.pods_unsent.set(self.untold.len() as i64);
            }
            Err(error) => {
                tracing::warn!(%error, retry_in = ?self.backoff, "the store was not told about pods");
                self.tell_at = Instant::now() + self.backoff;
                self.backoff = (self.backoff * 2).min(RETRY_MAX);
            }
        }
    }
}

/// What a message to the store came to; waits for ever if none is under way.
async fn join(sending: &mut Option<JoinHandle<Sent>>) -> Sent {
    let Some(handle) = sending else { return std::future::pending().await };
    handle.await.unwrap_or_else(|error| (Vec::new(), Err(AppendError::Unavailable(error.to_string()))))
}
