//! Who owns a pod: from its controller up to what somebody deployed.
//!
//! ```text
//! Pod ─► ReplicaSet ─► Deployment      Pod ─► Job ─► CronJob      Pod ─► StatefulSet, DaemonSet, …
//! ```
//!
//! The metadata of each is asked for once, and again after an hour. Until there is an answer the name tells: Kubernetes makes the
//! names of ReplicaSets and Jobs from those of their owners.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};
use tokio::sync::Semaphore;
use tokio::task::{self, JoinSet};
use tokio::time::Instant;

use super::telemetry::KubernetesTelemetry;

/// Owners above owners. What Kubernetes makes itself has two.
const LEVELS_MAX: usize = 5;

/// Requests under way: a node that comes up with a hundred pods must not flood the API.
const REQUESTS_MAX: usize = 4;

/// Owners that are remembered.
const OWNERS_MAX: usize = 20_000;

/// Longer annotations of owners are not kept.
const ANNOTATION_MAX_BYTES: usize = 2048;

/// What is known is asked for again after this.
const FRESH: Duration = Duration::from_hours(1);

/// What was not answered is asked for again after this.
const RETRY: Duration = Duration::from_secs(30);

/// Names an owner.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Owner {
    pub(crate) api_version: String,
    pub(crate) kind: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// The owners of a pod, the nearest first.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    pub(crate) owners: Vec<Owner>,
    /// Of each of them, if it is known.
    pub(crate) metadata: Vec<Option<Arc<ObjectMeta>>>,
}

/// What is known of owners.
pub(crate) struct Owners {
    client: kube::Client,
    known: HashMap<Owner, Known>,
    asking: HashSet<Owner>,
    /// Whom each request is about, also of one that ends by a panic.
    tasks: HashMap<task::Id, Owner>,
    requests: JoinSet<Result<Option<ObjectMeta>, kube::Error>>,
    places: Arc<Semaphore>,
    telemetry: KubernetesTelemetry,
}

struct Known {
    metadata: Option<Arc<ObjectMeta>>,
    ask_again: Instant,
}

impl Owner {
    pub(crate) fn of(meta: &ObjectMeta) -> Option<Self> {
        let references = meta.owner_references.as_deref().unwrap_or_default();
        let controls = |reference: &&OwnerReference| reference.controller == Some(true);
        let owner = references.iter().find(controls)?;
        Some(Self {
            api_version: owner.api_version.clone(),
            kind: owner.kind.clone(),
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: owner.name.clone(),
        })
    }

    /// The owner that its name tells of, while nobody says more.
    fn guessed(&self, pod: &ObjectMeta) -> Option<Self> {
        let labels = pod.labels.as_ref();
        let (kind, name) = match self.kind.as_str() {
            "ReplicaSet" if self.api_version == "apps/v1" => {
                let hash = labels?.get("pod-template-hash")?;
                ("Deployment", self.name.strip_suffix(hash.as_str())?.strip_suffix('-')?)
            }
            "Job" if self.api_version == "batch/v1" => {
                let (name, minutes) = self.name.rsplit_once('-')?;
                // Minutes since 1970, when it was due.
                let is_due = (8..=9).contains(&minutes.len()) && minutes.bytes().all(|b| b.is_ascii_digit());
                ("CronJob", is_due.then_some(name)?)
            }
            _ => return None,
        };
        Some(Self { kind: kind.to_owned(), name: name.to_owned(), ..self.clone() })
    }
}

impl Owners {
    pub(crate) fn new(client: kube::Client, telemetry: &KubernetesTelemetry) -> Self {
        Self {
            client,
            known: HashMap::new(),
            asking: HashSet::new(),
            tasks: HashMap::new(),
            requests: JoinSet::new(),
            places: Arc::new(Semaphore::new(REQUESTS_MAX)),
            telemetry: telemetry.clone(),
        }
    }

    /// The owners of a pod, as far as they are known. What is not, or not lately, is asked for.
    pub(crate) fn chain(&mut self, pod: &ObjectMeta) -> Chain {
        let mut chain = Chain::default();
        let mut next = Owner::of(pod);
        let mut is_sure = true;
        while let Some(owner) = next.take().filter(|_| chain.owners.len() < LEVELS_MAX) {
            // Whether one that was guessed exists is not asked: it soon may be another one.
            let metadata = if is_sure { self.get(&owner) } else { None };
            is_sure &= metadata.is_some();
            next = match &metadata {
                Some(metadata) => Owner::of(metadata),
                None => owner.guessed(pod),
            };
            chain.owners.push(owner);
            chain.metadata.push(metadata);
        }
        chain
    }

    fn get(&mut self, owner: &Owner) -> Option<Arc<ObjectMeta>> {
        let known = self.known.get(owner);
        if known.is_none_or(|known| known.ask_again <= Instant::now()) {
            self.ask(owner.clone());
        }
        self.known.get(owner)?.metadata.clone()
    }

    fn ask(&mut self, owner: Owner) {
        // A node's file, as of a static pod's, is no object that says more; it is watched besides.
        if owner.kind == "Node" || !self.asking.insert(owner.clone()) {
            return;
        }
        self.telemetry.owners_asked.inc();
        let (client, places) = (self.client.clone(), Arc::clone(&self.places));
        let asked = owner.clone();
        let task = self.requests.spawn(async move {
            let _place = places.acquire_owned().await;
            let (group, version) = owner.api_version.split_once('/').unwrap_or(("", &owner.api_version));
            let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &owner.kind));
            let api: Api<DynamicObject> = Api::namespaced_with(client, &owner.namespace, &resource);
            let answer = api.get_metadata_opt(&owner.name).await;
            answer.map(|found| found.map(|object| object.metadata))
        });
        self.tasks.insert(task.id(), asked);
    }

    /// Waits for an answer; whoever asked may ask again for what is known then.
    pub(crate) async fn answered(&mut self) -> Owner {
        loop {
            let (task, answer) = match self.requests.join_next_with_id().await {
                None => std::future::pending().await,
                Some(Ok((task, answer))) => (task, answer.map_err(|error| super::chain_of(&error))),
                Some(Err(error)) => (error.id(), Err(error.to_string())),
            };
            if let Some(owner) = self.tasks.remove(&task) {
                self.learn(&owner, answer);
                return owner;
            }
        }
    }

    fn learn(&mut self, owner: &Owner, answer: Result<Option<ObjectMeta>, String>) {
        self.asking.remove(owner);
        let (metadata, after) = match answer {
            Ok(Some(mut metadata)) => {
                metadata.managed_fields = None;
                // Copies of whole objects are among them.
                metadata
                    .annotations
                    .iter_mut()
                    .for_each(|all| all.retain(|_, value| value.len() <= ANNOTATION_MAX_BYTES));
                (Some(Arc::new(metadata)), FRESH)
            }
            // Deleted before what it owns; what was known of it is still true.
            Ok(None) => (self.known.get(owner).and_then(|known| known.metadata.clone()), FRESH),
            Err(error) => {
                self.telemetry.owners_failed.inc();
                tracing::debug!(
                    kind = owner.kind,
                    name = owner.name,
                    error,
                    "an owner of a pod was not answered"
                );
                (self.known.get(owner).and_then(|known| known.metadata.clone()), RETRY)
            }
        };
        make_room(&mut self.known, OWNERS_MAX);
        self.known.insert(owner.clone(), Known { metadata, ask_again: Instant::now() + after });
    }
}

/// Forgets a tenth, if there are so many: those that nobody asked about for longest, since what is in use is asked for again.
fn make_room(known: &mut HashMap<Owner, Known>, most: usize) {
    if known.len() < most {
        return;
    }
    let mut times: Vec<Instant> = known.values().map(|one| one.ask_again).collect();
    let mut left = (most / 10).clamp(1, times.len());
    let (_, latest, _) = times.select_nth_unstable(left - 1);
    let latest = *latest;
    known.retain(|_, one| {
        let goes = left > 0 && one.ask_again <= latest;
        left -= usize::from(goes);
        !goes
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(name: &str) -> Owner {
        let text = str::to_owned;
        Owner { api_version: text("v1"), kind: text("Thing"), namespace: text("n"), name: text(name) }
    }

    #[tokio::test]
    async fn of_too_many_owners_the_oldest_are_forgotten() {
        let now = Instant::now();
        let one = |number: u64| {
            (
                owner(&number.to_string()),
                Known { metadata: None, ask_again: now + Duration::from_secs(number) },
            )
        };
        let mut known: HashMap<Owner, Known> = (0..100).map(one).collect();
        make_room(&mut known, 101);
        assert_eq!(known.len(), 100);
        make_room(&mut known, 100);
        let left = |number: u64| known.contains_key(&owner(&number.to_string()));
        assert_eq!((known.len(), left(9), left(10), left(99)), (90, false, true, true));
    }

    #[tokio::test]
    async fn a_request_that_panics_is_made_again() {
        drop(rustls::crypto::ring::default_provider().install_default());
        let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        let client = kube::Client::try_from(config).unwrap();
        let mut owners = Owners::new(client, &KubernetesTelemetry::default());
        let task = owners.requests.spawn(async { panic!("on purpose") });
        owners.asking.insert(owner("a"));
        owners.tasks.insert(task.id(), owner("a"));
        assert_eq!(owners.answered().await, owner("a"));
        assert!(owners.asking.is_empty() && owners.tasks.is_empty());
        assert!(owners.known[&owner("a")].ask_again <= Instant::now() + RETRY);
    }

    fn meta(json: serde_json::Value) -> ObjectMeta {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn names_tell_of_owners_that_nobody_answered_for() {
        let owned = |version: &str, kind: &str, name: &str| {
            let pod = meta(serde_json::json!({
                "namespace": "shop", "labels": {"pod-template-hash": "6cd8d99884"},
                "ownerReferences": [
                    {"apiVersion": "v1", "kind": "Node", "name": "x", "uid": "0"},
                    {"apiVersion": version, "kind": kind, "name": name, "uid": "1", "controller": true},
                ],
            }));
            let owner = Owner::of(&pod).unwrap();
            owner.guessed(&pod).map(|owner| format!("{}/{}/{}", owner.namespace, owner.kind, owner.name))
        };
        let guessed = owned("apps/v1", "ReplicaSet", "e2e-hpa-6cd8d99884");
        assert_eq!(guessed.as_deref(), Some("shop/Deployment/e2e-hpa"));
        assert_eq!(owned("apps/v1", "ReplicaSet", "e2e-hpa-abc"), None);
        assert_eq!(owned("argoproj.io/v1", "ReplicaSet", "e2e-hpa-6cd8d99884"), None);
        assert_eq!(owned("batch/v1", "Job", "report-29387520").as_deref(), Some("shop/CronJob/report"));
        assert_eq!(owned("batch/v1", "Job", "migrate-2"), None);
        assert_eq!(owned("apps/v1", "StatefulSet", "db"), None);
    }
}
