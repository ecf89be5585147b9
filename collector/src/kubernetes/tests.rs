use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use binnacle_model::LogTime;
use binnacle_model::push::LogPush;
use binnacle_model::storage::{AppendError, LogAppendReport, PodMetadata, PodSink};
use binnacle_model::time::Clock;
use prost::Message;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::testing::FakeApi;
use super::{Access, Election, EventWatch, KubernetesTelemetry, NodeWatch, Share, Timing};
use crate::Telemetry;
use crate::completeness::NodeReport;
use crate::tail::LogSink;
use crate::tail::edge::{Builtin, PodRules, Redaction, Redactor};

/// A store that keeps the last word about each pod, and may be away.
#[derive(Default)]
struct Told {
    pods: Mutex<BTreeMap<String, String>>,
    failures: Mutex<u32>,
}

impl PodSink for Told {
    fn save_pods(&self, pods: &[PodMetadata]) -> Result<(), AppendError> {
        let mut failures = self.failures.lock().unwrap();
        if *failures > 0 {
            *failures -= 1;
            return Err(AppendError::Unavailable("away".into()));
        }
        for pod in pods {
            pod.check().map_err(AppendError::Invalid)?;
            self.pods.lock().unwrap().insert(pod.uid.clone(), pod.labels.to_string());
        }
        Ok(())
    }
}

impl Told {
    fn of(&self, uid: &str) -> String {
        self.pods.lock().unwrap().get(uid).cloned().unwrap_or_default()
    }
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..6000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

fn pod(name: &str, node: &str, annotations: &Value) -> Value {
    json!({
        "metadata": {
            "name": name, "namespace": "shop", "uid": format!("uid-{name}"), "annotations": annotations,
            "labels": {"app": "cart", "pod-template-hash": "abc"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "cart-abc", "uid": "r", "controller": true}],
        },
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]},
    })
}

struct Setup {
    api: FakeApi,
    told: Arc<Told>,
    rules: Arc<PodRules>,
    stop: CancellationToken,
    _dir: tempfile::TempDir,
}

impl Drop for Setup {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn setup() -> Setup {
    drop(rustls::crypto::ring::default_provider().install_default());
    let api = FakeApi::start().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kubeconfig");
    std::fs::write(&path, api.kubeconfig()).unwrap();
    let (told, rules, stop) = (Arc::<Told>::default(), Arc::<PodRules>::default(), CancellationToken::new());
    let node = NodeWatch {
        access: Access::Kubeconfig(path),
        node: "n1".to_owned(),
        sink: told.clone(),
        rules: rules.clone(),
        telemetry: KubernetesTelemetry::default(),
    };
    let tasks = TaskTracker::new();
    tasks.spawn(node.run(stop.clone()));
    Setup { api, told, rules, stop, _dir: dir }
}

#[tokio::test]
async fn what_is_known_of_a_pod_grows_and_survives_what_an_api_does() {
    let setup = setup().await;
    let (api, told) = (&setup.api, &setup.told);
    *told.failures.lock().unwrap() = 2;
    api.put("pods", pod("cart-1", "n1", &json!({"binnacle.io/multiline": "off"})));
    api.put("pods", pod("other", "n2", &json!({})));
    until("a guess, by the names alone", || {
        told.of("uid-cart-1").contains(r#"workload="cart", workload_kind="Deployment""#)
    })
    .await;
    assert!(setup.rules.of("uid-cart-1", "c").0.is_some());
    // What the owners say replaces the guess once they answer.
    api.put("replicasets.apps", json!({"metadata": {"name": "cart-abc", "namespace": "shop", "ownerReferences": [
        {"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": "cart-canary", "uid": "d", "controller": true}]}}));
    api.put("nodes", json!({"metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": "z1"}}}));
    api.put("namespaces", json!({"metadata": {"name": "shop", "annotations": {"binnacle.io/team": "pay"}}}));
    until("zone and team", || {
        let told = told.of("uid-cart-1");
        told.contains(r#"zone="z1""#) && told.contains(r#"team="pay""#)
    })
    .await;
    // Watches that are cut go on; those that are too old begin anew.
    api.cut();
    api.put("pods", pod("cart-2", "n1", &json!({})));
    until("a pod behind a cut", || told.of("uid-cart-2").contains(r#"team="pay""#)).await;
    api.compact();
    api.put("pods", pod("cart-3", "n1", &json!({})));
    until("a pod behind 410 Gone", || told.of("uid-cart-3").contains(r#"team="pay""#)).await;
    api.set_away(true);
    api.put("pods", pod("cart-4", "n1", &json!({})));
    tokio::time::sleep(Duration::from_millis(50)).await;
    api.set_delay(Duration::from_millis(100));
    api.set_away(false);
    until("a pod behind an outage, of a slow API", || !told.of("uid-cart-4").is_empty()).await;
    assert_eq!(told.of("uid-other"), "", "another node's");
}

#[tokio::test]
async fn what_a_pod_was_is_told_also_when_it_is_gone() {
    let setup = setup().await;
    let (api, told) = (&setup.api, &setup.told);
    *told.failures.lock().unwrap() = u32::MAX;
    api.put("pods", pod("short", "n1", &json!({"binnacle.io/multiline": "off"})));
    until("it was seen", || setup.rules.of("uid-short", "c").0.is_some()).await;
    api.delete("pods", "shop/short");
    api.put("pods", pod("next", "n1", &json!({"binnacle.io/multiline": "off"})));
    until("the deletion was seen", || setup.rules.of("uid-next", "c").0.is_some()).await;
    assert_eq!(told.of("uid-short"), "");
    *told.failures.lock().unwrap() = 0;
    until("both are told", || !told.of("uid-next").is_empty() && !told.of("uid-short").is_empty()).await;
    assert!(told.of("uid-short").contains(r#"workload="cart""#), "{}", told.of("uid-short"));
}

#[tokio::test]
async fn owners_are_asked_for_once_and_a_node_for_its_own_pods() {
    let setup = setup().await;
    let (api, told) = (&setup.api, &setup.told);
    api.put("replicasets.apps", json!({"metadata": {"name": "cart-abc", "namespace": "shop", "ownerReferences": [
        {"apiVersion": "apps/v1", "kind": "Deployment", "name": "cart-web", "uid": "d", "controller": true}]}}));
    api.put(
        "deployments.apps",
        json!({"metadata": {"name": "cart-web", "namespace": "shop",
        "annotations": {"binnacle.io/owner": "ann", "a8r.io/runbook": "https://run"}}}),
    );
    for number in 0..30 {
        api.put("pods", pod(&format!("p{number}"), "n1", &json!({})));
    }
    until("all have an owner", || {
        (0..30).all(|number| {
            let told = told.of(&format!("uid-p{number}"));
            told.contains(r#"owner="ann""#) && told.contains(r#"runbook="https://run""#)
        })
    })
    .await;
    let requests = api.requests();
    let asked = |part: &str| requests.iter().filter(|one| one.contains(part)).count();
    assert_eq!((asked("/replicasets/"), asked("/deployments/")), (1, 1), "{requests:?}");
    let unselected: HashSet<&String> =
        requests.iter().filter(|one| one.contains("/pods?") && !one.contains("spec.nodeName%3Dn1")).collect();
    assert!(unselected.is_empty(), "{unselected:?}");
}

#[tokio::test]
async fn pods_of_real_kubelets_are_known() {
    let path = format!("{}/../../shared/real/kubelet-api/1.35/pods.json", env!("CARGO_MANIFEST_DIR"));
    let Ok(text) = std::fs::read_to_string(&path) else {
        eprintln!("SKIPPED: {path} is not there");
        return;
    };
    let list: Value = serde_json::from_str(&text).unwrap();
    let setup = setup().await;
    let mut wanted = BTreeMap::new();
    for item in list["items"].as_array().unwrap() {
        let mut item = item.clone();
        item["spec"]["nodeName"] = json!("n1");
        let pod: super::views::Pod = serde_json::from_value(item.clone()).unwrap();
        wanted.insert(pod.log_uid().to_owned(), pod.metadata.name.clone().unwrap());
        setup.api.put("pods", item);
    }
    until("all pods", || setup.told.pods.lock().unwrap().len() == wanted.len()).await;
    let kinds = |name: &str| {
        let (uid, _) = wanted.iter().find(|(_, known)| known.starts_with(name)).unwrap();
        setup.told.of(uid)
    };
    assert!(
        kinds("e2e-hpa").contains(r#"workload="e2e-hpa", workload_kind="Deployment""#),
        "{}",
        kinds("e2e-hpa")
    );
    assert!(kinds("kube-apiserver").contains(r#"workload_kind="Pod""#), "{}", kinds("kube-apiserver"));
}

/// A store of lines that keeps marks, and may be away.
#[derive(Default)]
struct Lines {
    kept: Mutex<Kept>,
    is_away: AtomicBool,
}

#[derive(Default)]
struct Kept {
    marks: BTreeMap<String, u64>,
    lines: Vec<String>,
}

impl LogSink for Lines {
    fn send(&self, wire: &[u8]) -> Result<LogAppendReport, AppendError> {
        if self.is_away.load(Ordering::Relaxed) {
            return Err(AppendError::Unavailable("away".into()));
        }
        let mut kept = self.kept.lock().unwrap();
        for batch in LogPush::decode(wire).unwrap().batches {
            let Kept { marks, lines } = &mut *kept;
            let mark = marks.entry(batch.file.clone()).or_default();
            assert!(
                batch.from <= *mark && batch.from < batch.to,
                "a gap before {batch:?}, the mark is {mark}"
            );
            let of_file = batch.entries.iter().filter(|entry| entry.offset >= *mark);
            lines.extend(of_file.map(|entry| String::from_utf8(entry.message.clone()).unwrap()));
            *mark = batch.to.max(*mark);
        }
        Ok(LogAppendReport::default())
    }

    fn marks(&self, files: &[String]) -> Result<Vec<u64>, AppendError> {
        let kept = self.kept.lock().unwrap();
        Ok(files.iter().map(|file| kept.marks.get(file).copied().unwrap_or_default()).collect())
    }

    fn report(&self, _: &NodeReport) -> Result<(), AppendError> {
        Ok(())
    }
}

impl Lines {
    /// Of each event the word behind its reason, in the order in which they came.
    fn names(&self) -> String {
        let kept = self.kept.lock().unwrap();
        let name = |line: &String| line.split(['/', ':']).nth(1).unwrap_or_default().to_owned();
        kept.lines.iter().map(name).collect::<Vec<_>>().join(" ")
    }
}

fn event(name: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "shop"}, "reason": "Pulled", "type": "Normal",
        "message": "password=hunter22", "involvedObject": {"kind": "Pod", "namespace": "shop", "name": name},
    })
}

#[tokio::test]
async fn each_change_of_an_event_is_stored_once_over_restarts_cuts_and_outages() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let api = FakeApi::start().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kubeconfig");
    std::fs::write(&path, api.kubeconfig()).unwrap();
    api.put("namespaces", json!({"metadata": {"name": "kube-system", "uid": "c1"}}));
    let lines = Arc::<Lines>::default();
    let redaction = Redaction::builtin(Builtin::Tokens).unwrap();
    let redactor = Arc::new(Redactor::new(vec![redaction]));
    let start = |stop: &CancellationToken| {
        let watch = EventWatch {
            access: Access::Kubeconfig(path.clone()),
            share: Share::All,
            sink: lines.clone(),
            redactor: redactor.clone(),
            telemetry: Telemetry::default(),
        };
        let tasks = TaskTracker::new();
        tasks.spawn(watch.run(stop.clone()));
        (tasks, stop.clone())
    };
    // A list is by name, what is stored is by time.
    for name in ["c", "a", "b"] {
        api.put("events", event(name));
    }
    let stop = CancellationToken::new();
    let (first, _) = start(&stop);
    until("what was there", || lines.names() == "c a b").await;
    api.put("events", event("a"));
    until("what changed", || lines.names() == "c a b a").await;
    assert!(lines.kept.lock().unwrap().lines[0].ends_with("password=<redacted:tokens>"));
    // Two agents at once, a store that is away, and a watch that must begin anew.
    let (second, _) = start(&stop);
    lines.is_away.store(true, Ordering::Relaxed);
    api.put("events", event("d"));
    api.compact();
    api.put("events", event("e"));
    api.delete("events", "shop/e");
    api.put("events", event("f"));
    tokio::time::sleep(Duration::from_millis(700)).await;
    lines.is_away.store(false, Ordering::Relaxed);
    until("what came meanwhile", || lines.names().ends_with('f')).await;
    stop.cancel();
    for tasks in [first, second] {
        tasks.close();
        tasks.wait().await;
    }
    let known = lines.names();
    assert!(matches!(known.as_str(), "c a b a d f" | "c a b a d e f"), "{known}");
    api.put("events", event("g"));
    let stop = CancellationToken::new();
    let (tasks, stopped) = start(&stop);
    until("what came while nobody read", || lines.names() == format!("{known} g")).await;
    // Versions that begin again: the API's data came from a backup.
    for name in ["a", "b", "c", "d", "f", "g"] {
        api.delete("events", &format!("shop/{name}"));
    }
    api.set_version(2);
    api.put("events", event("h"));
    api.cut();
    let lists =
        || api.requests().iter().filter(|path| path.contains("/events?") && !path.contains("watch")).count();
    let before = lists();
    until("a list", || lists() > before).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    api.put("events", event("i"));
    until("of another generation", || lines.names() == format!("{known} g h i")).await;
    assert!(lines.kept.lock().unwrap().marks.contains_key("kubernetes/c1/events/1"));
    stopped.cancel();
    tasks.close();
    tasks.wait().await;
}

struct Frozen;

impl Clock for Frozen {
    fn now_ns(&self) -> LogTime {
        LogTime(1_000_000_000_000)
    }
}

#[tokio::test]
async fn one_of_several_holds_the_lease() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let api = FakeApi::start().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kubeconfig");
    std::fs::write(&path, api.kubeconfig()).unwrap();
    let start = |holder: &str| {
        let election = Election {
            access: Access::Kubeconfig(path.clone()),
            namespace: "monitoring".to_owned(),
            name: "binnacle".to_owned(),
            holder: holder.to_owned(),
            clock: Arc::new(Frozen),
            timing: Timing { lasts: Duration::from_secs(1), renew: Duration::from_millis(50) },
            telemetry: KubernetesTelemetry::default(),
        };
        let (leads, leading) = watch::channel(false);
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let handle = tasks.spawn(election.run(leads, stop.clone()));
        (leading, stop, handle)
    };
    let agents: Vec<_> = ["a", "b", "c"].into_iter().map(start).collect();
    let leaders = |agents: &[(watch::Receiver<bool>, CancellationToken, _)]| {
        agents.iter().filter(|(leading, ..)| *leading.borrow()).count()
    };
    until("one leads", || leaders(&agents) == 1).await;
    // An API that is away changes nothing, for as long as it is.
    api.set_away(true);
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(leaders(&agents), 1);
    api.set_away(false);
    let (mut others, leader): (Vec<_>, Vec<_>) =
        agents.into_iter().partition(|(leading, ..)| !*leading.borrow());
    // One that dies is followed when the lease is over.
    leader[0].2.abort();
    until("another one leads", || leaders(&others) == 1).await;
    let lease = |path: &str| {
        api.get("leases.coordination.k8s.io", "monitoring/binnacle").unwrap().pointer(path).cloned()
    };
    assert_eq!(lease("/spec/leaseTransitions"), Some(json!(1)));
    // One that stops gives it back.
    let at = others.iter().position(|(leading, ..)| *leading.borrow()).unwrap();
    let (_, stop, handle) = others.remove(at);
    stop.cancel();
    handle.await.unwrap();
    until("the last one leads", || leaders(&others) == 1).await;
    // Who is told that somebody else has it does not hold it any more.
    let mut taken = api.get("leases.coordination.k8s.io", "monitoring/binnacle").unwrap();
    taken["spec"]["holderIdentity"] = json!("z");
    api.put("leases.coordination.k8s.io", taken);
    until("nobody leads", || leaders(&others) == 0).await;
    others[0].1.cancel();
}
