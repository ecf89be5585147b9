//! Plays the API of Kubernetes, as far as lists, watches and single objects go, in this process.
//!
//! Versions are numbers that each change takes one further. Watches may be cut, be told that they are too old (`410 Gone`),
//! or wait; the whole API may be away.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

/// The API, and what is in it. It ends with the runtime that it was started on.
#[derive(Clone)]
pub struct FakeApi {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<Mutex<Cluster>>,
    /// The newest version, and how often watches were cut.
    changed: Arc<watch::Sender<(u64, u64)>>,
}

#[derive(Default)]
struct Cluster {
    /// By resource (`pods`, `replicasets.apps`), then by `NAMESPACE/NAME`.
    objects: BTreeMap<String, BTreeMap<String, Value>>,
    version: u64,
    log: Vec<(u64, String, &'static str, Value)>,
    /// Watches from before this version are told that it is gone.
    gone_before: u64,
    cuts: u64,
    is_away: bool,
    delay: Duration,
    requests: Vec<String>,
}

impl FakeApi {
    /// Starts it on a port of its own.
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let api = Self { address, state: Arc::default(), changed: Arc::new(watch::channel((0, 0)).0) };
        let router = Router::new().fallback(answer).with_state(api.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        api
    }

    /// A kubeconfig that leads here.
    pub fn kubeconfig(&self) -> String {
        let server = format!("http://{}", self.address);
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": server}}],
            "users": [{"name": "u", "user": {"token": "secret-token"}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        })
        .to_string()
    }

    /// Adds an object, or puts it in the place of one of that name. `resource` is `pods`, `replicasets.apps`, …
    pub fn put(&self, resource: &str, mut object: Value) {
        let (version, kind) = kind_of(resource);
        (object["apiVersion"], object["kind"]) = (json!(version), json!(kind));
        let mut cluster = self.cluster();
        cluster.version += 1;
        let version = cluster.version;
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        let key = key_of(&object);
        let before = cluster.objects.entry(resource.to_owned()).or_default().insert(key, object.clone());
        let kind = if before.is_some() { "MODIFIED" } else { "ADDED" };
        cluster.log.push((version, resource.to_owned(), kind, object));
        self.tell(&cluster);
    }

    /// Takes an object away.
    pub fn delete(&self, resource: &str, key: &str) {
        let mut cluster = self.cluster();
        let Some(mut object) = cluster.objects.get_mut(resource).and_then(|objects| objects.remove(key))
        else {
            return;
        };
        cluster.version += 1;
        let version = cluster.version;
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        cluster.log.push((version, resource.to_owned(), "DELETED", object));
        self.tell(&cluster);
    }

    /// Ends all watches.
    pub fn cut(&self) {
        let mut cluster = self.cluster();
        cluster.cuts += 1;
        self.tell(&cluster);
    }

    /// Forgets how it came to what is there: watches that go on must begin anew.
    pub fn compact(&self) {
        let mut cluster = self.cluster();
        cluster.gone_before = cluster.version;
        cluster.log.clear();
        cluster.cuts += 1;
        self.tell(&cluster);
    }

    /// Answers with 503, or no longer; watches end.
    pub fn set_away(&self, is_away: bool) {
        let mut cluster = self.cluster();
        cluster.is_away = is_away;
        cluster.cuts += 1;
        self.tell(&cluster);
    }

    /// Waits so long before each answer.
    pub fn set_delay(&self, delay: Duration) {
        self.cluster().delay = delay;
    }

    /// Versions begin again, as after a restore: the next change has this one.
    pub fn set_version(&self, version: u64) {
        let mut cluster = self.cluster();
        cluster.version = version - 1;
        cluster.gone_before = 0;
        cluster.log.clear();
    }

    /// What is there of a resource.
    pub fn get(&self, resource: &str, key: &str) -> Option<Value> {
        self.cluster().objects.get(resource)?.get(key).cloned()
    }

    /// Writes an object as a client does; refused if it is based on another version than the one that is there.
    fn write(&self, asked: &Asked, object: Value) -> Response {
        let key = asked.namespace.as_ref().map_or_else(
            || key_of(&object),
            |namespace| format!("{namespace}/{}", object["metadata"]["name"].as_str().unwrap_or_default()),
        );
        let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
        let known = self.get(&asked.resource, &key);
        let is_based = match (&known, &asked.name) {
            (None, None) => true,
            (Some(known), Some(_)) => version(known) == version(&object),
            _ => false,
        };
        if !is_based {
            return failure(StatusCode::CONFLICT, "the object has been modified");
        }
        let mut object = object;
        if let Some(namespace) = &asked.namespace {
            object["metadata"]["namespace"] = json!(namespace);
        }
        self.put(&asked.resource, object);
        axum::Json(self.get(&asked.resource, &key)).into_response()
    }

    /// Paths and queries that were asked for.
    pub fn requests(&self) -> Vec<String> {
        self.cluster().requests.clone()
    }

    fn tell(&self, cluster: &Cluster) {
        self.changed.send_replace((cluster.version, cluster.cuts));
    }

    fn cluster(&self) -> MutexGuard<'_, Cluster> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Version and kind of the objects of a resource.
fn kind_of(resource: &str) -> (&'static str, &'static str) {
    match resource {
        "pods" => ("v1", "Pod"),
        "nodes" => ("v1", "Node"),
        "namespaces" => ("v1", "Namespace"),
        "services" => ("v1", "Service"),
        "endpoints" => ("v1", "Endpoints"),
        "secrets" => ("v1", "Secret"),
        "configmaps" => ("v1", "ConfigMap"),
        "servicemonitors.monitoring.coreos.com" => ("monitoring.coreos.com/v1", "ServiceMonitor"),
        "podmonitors.monitoring.coreos.com" => ("monitoring.coreos.com/v1", "PodMonitor"),
        "probes.monitoring.coreos.com" => ("monitoring.coreos.com/v1", "Probe"),
        "endpointslices.discovery.k8s.io" => ("discovery.k8s.io/v1", "EndpointSlice"),
        "events" => ("v1", "Event"),
        "leases.coordination.k8s.io" => ("coordination.k8s.io/v1", "Lease"),
        "ingresses.networking.k8s.io" => ("networking.k8s.io/v1", "Ingress"),
        _ => ("v1", "Object"),
    }
}

fn key_of(object: &Value) -> String {
    let meta = &object["metadata"];
    let name = meta["name"].as_str().unwrap_or_default();
    meta["namespace"].as_str().map_or_else(|| name.to_owned(), |namespace| format!("{namespace}/{name}"))
}

/// What a request is about.
#[derive(Debug)]
struct Asked {
    resource: String,
    namespace: Option<String>,
    name: Option<String>,
    query: BTreeMap<String, String>,
    only_metadata: bool,
}

impl Asked {
    fn of(request: &Request) -> Option<Self> {
        let uri = request.uri();
        let parts: Vec<&str> = uri.path().trim_matches('/').split('/').collect();
        let (group, rest) = match &parts[..] {
            ["api", "v1", rest @ ..] => ("", rest),
            ["apis", group, _, rest @ ..] => (*group, rest),
            _ => return None,
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some((*namespace).to_owned()), rest),
            rest => (None, rest),
        };
        let (plural, name) = match rest {
            [plural] => (*plural, None),
            [plural, name] => (*plural, Some((*name).to_owned())),
            _ => return None,
        };
        let resource = if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") };
        let pairs = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
        let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok());
        Some(Self {
            resource,
            namespace,
            name,
            query: pairs.into_owned().collect(),
            only_metadata: accept.is_some_and(|accept| accept.contains("PartialObjectMetadata")),
        })
    }

    fn wants(&self, object: &Value) -> bool {
        let meta = &object["metadata"];
        let in_namespace = self.namespace.as_deref().is_none_or(|wanted| meta["namespace"] == wanted);
        let selected = |name: &str, get: &dyn Fn(&str) -> Option<Value>| {
            let terms = self.query.get(name).map_or("", String::as_str);
            terms.split(',').filter(|term| !term.is_empty()).all(|term| {
                let (key, value) = term.split_once('=').unwrap();
                get(key).unwrap_or_default().as_str().unwrap_or_default() == value
            })
        };
        let of_field = |path: &str| object.pointer(&format!("/{}", path.replace('.', "/"))).cloned();
        let of_label = |key: &str| meta["labels"].get(key).cloned();
        in_namespace && selected("fieldSelector", &of_field) && selected("labelSelector", &of_label)
    }

    fn shown(&self, object: &Value) -> Value {
        if !self.only_metadata {
            return object.clone();
        }
        json!({ "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": object["metadata"] })
    }
}

async fn answer(State(api): State<FakeApi>, request: Request) -> Response {
    let asked = Asked::of(&request);
    let (delay, is_away) = {
        let mut cluster = api.cluster();
        cluster.requests.push(request.uri().to_string());
        (cluster.delay, cluster.is_away)
    };
    tokio::time::sleep(delay).await;
    if is_away {
        return failure(StatusCode::SERVICE_UNAVAILABLE, "away");
    }
    if request.uri().path() == "/version" {
        return axum::Json(json!({"major": "1", "minor": "36", "gitVersion": "v1.36.0"})).into_response();
    }
    let Some(asked) = asked else { return failure(StatusCode::NOT_FOUND, "no such path") };
    if request.method() != Method::GET {
        let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
        return api.write(&asked, serde_json::from_slice(&body).unwrap());
    }
    if asked.query.get("watch").is_some_and(|value| value == "true" || value == "1") {
        return watching(&api, asked);
    }
    let cluster = api.cluster();
    let empty = BTreeMap::new();
    let objects = cluster.objects.get(&asked.resource).unwrap_or(&empty);
    if let Some(name) = &asked.name {
        let key =
            asked.namespace.as_ref().map_or_else(|| name.clone(), |namespace| format!("{namespace}/{name}"));
        return match objects.get(&key) {
            Some(object) => axum::Json(asked.shown(object)).into_response(),
            None => failure(StatusCode::NOT_FOUND, "not found"),
        };
    }
    // The place to go on is the key of the last one.
    let after = asked.query.get("continue").cloned().unwrap_or_default();
    let limit = asked.query.get("limit").and_then(|limit| limit.parse().ok()).unwrap_or(usize::MAX);
    let mut wanted = objects.iter().filter(|(key, object)| **key > after && asked.wants(object));
    let page: Vec<(&String, &Value)> = wanted.by_ref().take(limit).collect();
    let next = wanted.next().and_then(|_| page.last().map(|(key, _)| (*key).clone()));
    let items: Vec<Value> = page.iter().map(|(_, object)| asked.shown(object)).collect();
    let (version, kind) = kind_of(&asked.resource);
    axum::Json(json!({
        "kind": format!("{kind}List"), "apiVersion": version,
        "metadata": {"resourceVersion": cluster.version.to_string(), "continue": next.unwrap_or_default()},
        "items": items,
    }))
    .into_response()
}

fn watching(api: &FakeApi, asked: Asked) -> Response {
    let from: u64 = asked.query.get("resourceVersion").and_then(|text| text.parse().ok()).unwrap_or(0);
    let seconds: u64 = asked.query.get("timeoutSeconds").and_then(|text| text.parse().ok()).unwrap_or(290);
    let (lines, body) = mpsc::channel::<Result<Bytes, std::io::Error>>(16);
    let api = api.clone();
    tokio::spawn(async move {
        let events = follow(api, asked, from, lines);
        let _ = tokio::time::timeout(Duration::from_secs(seconds), events).await;
    });
    let body =
        futures_util::stream::unfold(body, |mut body| async { body.recv().await.map(|line| (line, body)) });
    ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(body)).into_response()
}

async fn follow(
    api: FakeApi,
    asked: Asked,
    mut from: u64,
    lines: mpsc::Sender<Result<Bytes, std::io::Error>>,
) {
    let mut changed = api.changed.subscribe();
    let cuts = changed.borrow_and_update().1;
    if asked.query.get("sendInitialEvents").is_some_and(|value| value == "true") {
        let (all, version) = {
            let cluster = api.cluster();
            let objects = cluster.objects.get(&asked.resource).into_iter().flatten();
            let wanted = objects.filter(|(_, object)| asked.wants(object));
            let all: Vec<Value> =
                wanted.map(|(_, object)| json!({"type": "ADDED", "object": asked.shown(object)})).collect();
            (all, cluster.version)
        };
        let (group, kind) = kind_of(&asked.resource);
        let end = json!({"type": "BOOKMARK", "object": {"apiVersion": group, "kind": kind, "metadata": {
            "resourceVersion": version.to_string(), "annotations": {"k8s.io/initial-events-end": "true"}}}});
        for event in all.into_iter().chain([end]) {
            if lines.send(Ok(Bytes::from(format!("{event}\n")))).await.is_err() {
                return;
            }
        }
        from = version;
    }
    loop {
        let events: Vec<Value> = {
            let cluster = api.cluster();
            let refused = |code: u16, reason: &str| {
                let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
                    "reason": reason, "message": reason});
                vec![json!({"type": "ERROR", "object": status})]
            };
            if from < cluster.gone_before {
                refused(410, "Expired")
            } else if from > cluster.version {
                refused(504, "Too large resource version")
            } else {
                let new = cluster.log.iter().filter(|(version, resource, _, object)| {
                    *version > from && *resource == asked.resource && asked.wants(object)
                });
                new.map(|(_, _, kind, object)| json!({"type": kind, "object": asked.shown(object)})).collect()
            }
        };
        from = if events.iter().any(|event| event["type"] == "ERROR") { from } else { api.cluster().version };
        for event in events {
            let is_last = event["type"] == "ERROR";
            if lines.send(Ok(Bytes::from(format!("{event}\n")))).await.is_err() || is_last {
                return;
            }
        }
        tokio::select! {
            () = lines.closed() => return,
            _ = changed.changed() => {}
        }
        if changed.borrow_and_update().1 != cuts {
            return;
        }
    }
}

fn failure(code: StatusCode, message: &str) -> Response {
    let reason = match code {
        StatusCode::NOT_FOUND => "NotFound",
        StatusCode::CONFLICT => "Conflict",
        _ => "ServiceUnavailable",
    };
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code.as_u16(),
        "reason": reason, "message": message});
    (code, axum::Json(status)).into_response()
}
