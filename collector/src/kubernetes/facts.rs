//! What is told of a pod: a set of labels made of the pod, its owners, its namespace and its node.

use std::collections::BTreeMap;

use binnacle_model::Labels;
use binnacle_model::storage::{PodMetadata, pod_label};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::owners::Chain;
use super::views::Pod;

const ZONE: [&str; 2] = ["topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"];
const REGION: [&str; 2] = ["topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"];

/// Labels that name what a pod belongs to, the first one that is there.
const APP: [&str; 3] = ["app.kubernetes.io/name", "app", "k8s-app"];

/// Annotation by which OpenTelemetry's operator names a service.
const SERVICE: &str = "resource.opentelemetry.io/service.name";

/// Who is responsible: a label of lines, our annotation, a common one, and a common label.
const RESPONSIBLE: [(&str, &str, &str, &str); 3] = [
    ("owner", "binnacle.io/owner", "a8r.io/owner", "owner"),
    ("team", "binnacle.io/team", "a8r.io/team", "team"),
    ("runbook", "binnacle.io/runbook", "a8r.io/runbook", "runbook"),
];

/// Labels that Kubernetes gives each pod, or each version of a workload: they tell nothing more, and make each pod's set another one.
const VOLATILE: [&str; 9] = [
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-name",
    "controller-revision-hash",
    "controller-uid",
    "job-name",
    "pod-template-generation",
    "pod-template-hash",
    "statefulset.kubernetes.io/pod-name",
];

/// Labels of a pod that are told at most, and bytes of one.
const POD_LABELS_MAX: usize = 64;
const VALUE_MAX_BYTES: usize = 1024;

/// What is told of a pod.
pub(crate) fn of_pod(
    pod: &Pod,
    chain: &Chain,
    namespace: Option<&ObjectMeta>,
    node: Option<&ObjectMeta>,
) -> PodMetadata {
    let mut told: BTreeMap<String, String> = BTreeMap::new();
    let mut tell = |name: &str, value: Option<&str>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            told.entry(name.to_owned()).or_insert_with(|| shortened(value));
        }
    };
    let top = chain.owners.last();
    // What a file on the node or nobody started stands for itself.
    let is_workload = top.filter(|top| top.kind != "Node");
    tell("workload", is_workload.map(|top| top.name.as_str()).or(pod.metadata.name.as_deref()));
    tell("workload_kind", Some(is_workload.map_or("Pod", |top| &top.kind)));
    let app = first(label, &pod.metadata, &APP).or(is_workload.map(|top| top.name.as_str()));
    tell("app", app);
    tell("service", annotation(&pod.metadata, SERVICE).or(app));
    if let Some(node) = node {
        tell("zone", first(label, node, &ZONE));
        tell("region", first(label, node, &REGION));
    }
    let owners = chain.metadata.iter().flatten().map(|owner| &**owner);
    let from_near: Vec<&ObjectMeta> = [&pod.metadata].into_iter().chain(owners).chain(namespace).collect();
    for (name, ours, common, of_label) in RESPONSIBLE {
        let said = |meta: &&&ObjectMeta| {
            annotation(meta, ours).or(annotation(meta, common)).or(label(meta, of_label)).is_some()
        };
        let nearest = from_near.iter().find(said);
        let value = nearest
            .and_then(|meta| annotation(meta, ours).or(annotation(meta, common)).or(label(meta, of_label)));
        tell(name, value);
    }
    let labels = pod.metadata.labels.iter().flatten();
    for (name, value) in labels.filter(|(name, _)| !VOLATILE.contains(&name.as_str())).take(POD_LABELS_MAX) {
        tell(&pod_label(name), Some(value));
    }
    // No name is empty or twice there.
    let labels = Labels::new(told).unwrap_or_default();
    PodMetadata { uid: pod.log_uid().to_owned(), labels }
}

fn label<'m>(meta: &'m ObjectMeta, name: &str) -> Option<&'m str> {
    meta.labels.as_ref()?.get(name).map(String::as_str)
}

fn annotation<'m>(meta: &'m ObjectMeta, name: &str) -> Option<&'m str> {
    meta.annotations.as_ref()?.get(name).map(String::as_str)
}

fn first<'m>(
    get: impl Fn(&'m ObjectMeta, &str) -> Option<&'m str>,
    meta: &'m ObjectMeta,
    names: &[&str],
) -> Option<&'m str> {
    names.iter().find_map(|name| get(meta, name)).filter(|value| !value.is_empty())
}

fn shortened(text: &str) -> String {
    let end = text.floor_char_boundary(VALUE_MAX_BYTES);
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::owners::Owner;
    use super::*;

    fn meta(json: serde_json::Value) -> ObjectMeta {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn the_nearest_word_about_who_is_responsible_counts() {
        let pod: Pod = serde_json::from_value(serde_json::json!({"metadata": {
            "name": "cart-6cd8d99884-tggnr", "namespace": "shop", "uid": "u",
            "labels": {"app.kubernetes.io/name": "cart", "pod-template-hash": "6cd8d99884", "tier": "web"},
            "annotations": {"binnacle.io/runbook": "https://run/book"},
        }}))
        .unwrap();
        let owner = |kind: &str, name: &str| Owner {
            api_version: "apps/v1".into(),
            kind: kind.into(),
            namespace: "shop".into(),
            name: name.into(),
        };
        let deployment = meta(serde_json::json!({"name": "cart", "annotations": {"a8r.io/owner": "ann"}}));
        let chain = Chain {
            owners: vec![owner("ReplicaSet", "cart-6cd8d99884"), owner("Deployment", "cart-web")],
            metadata: vec![None, Some(Arc::new(deployment))],
        };
        let namespace = meta(serde_json::json!({
            "name": "shop", "labels": {"team": "shop"},
            "annotations": {"binnacle.io/owner": "bob", "binnacle.io/runbook": "other"},
        }));
        let node = meta(serde_json::json!({"labels": {
            "topology.kubernetes.io/zone": "eu-1a", "topology.kubernetes.io/region": "eu-1",
        }}));
        let told = of_pod(&pod, &chain, Some(&namespace), Some(&node));
        assert_eq!(told.check(), Ok(()));
        assert_eq!(
            told.labels.to_string(),
            r#"{app="cart", label_app_kubernetes_io_name="cart", label_tier="web", owner="ann", region="eu-1", runbook="https://run/book", service="cart", team="shop", workload="cart-web", workload_kind="Deployment", zone="eu-1a"}"#
        );
    }

    #[test]
    fn a_pod_alone_is_its_own_workload() {
        let pod: Pod = serde_json::from_value(serde_json::json!({"metadata": {
            "name": "etcd-n1", "namespace": "kube-system", "uid": "mirror",
            "annotations": {"kubernetes.io/config.hash": HASH, "kubernetes.io/config.mirror": HASH},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "n", "controller": true}],
        }}))
        .unwrap();
        let told = of_pod(&pod, &Chain::default(), None, None);
        assert_eq!(told.uid, HASH);
        assert_eq!(told.labels.to_string(), r#"{workload="etcd-n1", workload_kind="Pod"}"#);
    }

    const HASH: &str = "0123456789abcdef0123456789abcdef";

    /// Whoever takes the identity of another pod would rule its lines, and be responsible for them.
    #[test]
    fn an_annotation_alone_makes_no_pod_another_one() {
        let uid = "0d5c1f6e-7d4b-4f0e-9a57-2f7c7b3f8f11";
        for (hash, mirror, kind) in
            [(HASH, "", ""), (HASH, HASH, "ReplicaSet"), (uid, uid, "Node"), (HASH, "other", "Node")]
        {
            let mut pod: Pod = serde_json::from_value(serde_json::json!({"metadata": {
                "name": "a", "namespace": "b", "uid": "own",
                "annotations": {"kubernetes.io/config.hash": hash, "kubernetes.io/config.mirror": mirror},
                "ownerReferences": [{"apiVersion": "v1", "kind": kind, "name": "c", "uid": "d"}],
            }}))
            .unwrap();
            if kind.is_empty() {
                pod.metadata.owner_references = None;
            }
            assert_eq!(pod.log_uid(), "own", "{hash} {mirror} {kind}");
        }
    }
}
