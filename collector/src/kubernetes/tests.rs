use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use binnacle_model::storage::{AppendError, PodMetadata, PodSink};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::testing::FakeApi;
use super::{Access, KubernetesTelemetry, NodeWatch};
use crate::tail::edge::PodRules;

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
