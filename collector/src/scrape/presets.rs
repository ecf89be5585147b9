//! Scrape configs that are switched on by one word each, as `presets/*.yml` have them.
//!
//! Names of jobs and labels are those of kube-prometheus, so that its rules and dashboards find their series.

use serde_json::Value;

use super::{ScrapeConfig, account};
use crate::kubernetes::Access;

/// In the text of presets that say who we are.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount/";

const PRESETS: [(&str, &str); 9] = [
    ("kubelet", include_str!("../../presets/kubelet.yml")),
    ("cadvisor", include_str!("../../presets/cadvisor.yml")),
    ("apiserver", include_str!("../../presets/apiserver.yml")),
    ("kube-state-metrics", include_str!("../../presets/kube-state-metrics.yml")),
    ("node-exporter", include_str!("../../presets/node-exporter.yml")),
    ("etcd", include_str!("../../presets/etcd.yml")),
    ("coredns", include_str!("../../presets/coredns.yml")),
    ("ingress-nginx", include_str!("../../presets/ingress-nginx.yml")),
    ("annotations", include_str!("../../presets/annotations.yml")),
];

/// The scrape configs of a preset, which ask the API by `access`, and say to targets who we are as it does.
///
/// # Errors
/// A sentence that names the presets there are, or what of the access is not for targets.
pub fn preset(name: &str, access: &Access) -> Result<Vec<ScrapeConfig>, String> {
    let Some((_, text)) = PRESETS.iter().find(|(known, _)| *known == name) else {
        let names: Vec<&str> = PRESETS.iter().map(|(name, _)| *name).collect();
        return Err(format!("{name:?} is no preset; there are {}", names.join(", ")));
    };
    let mut configs: Vec<ScrapeConfig> = match access {
        Access::Kubeconfig(path) if text.contains(ACCOUNT) => {
            let mut values: Vec<Value> =
                serde_saphyr::from_str(text).map_err(|error| format!("preset {name}: {error}"))?;
            account::lend(&mut values, path).map_err(|reason| format!("preset {name}: {reason}"))?;
            let read: Result<Vec<ScrapeConfig>, _> = values.into_iter().map(serde_json::from_value).collect();
            // What is wrong must not show what the file holds.
            read.map_err(|_| format!("preset {name}: the credentials of the kubeconfig cannot be used"))?
        }
        _ => serde_saphyr::from_str(text).map_err(|error| format!("preset {name}: {error}"))?,
    };
    for config in &mut configs {
        config.ask(access);
        config.be_patient();
    }
    Ok(configs)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use binnacle_model::Labels;

    use super::*;
    use crate::discovery::TargetGroup;
    use crate::scrape::{Global, Pool};

    fn pools() -> Vec<(&'static str, Arc<Pool>)> {
        let of = |(name, _): &(&'static str, &str)| {
            let configs = preset(name, &Access::InCluster).unwrap();
            let check = |config: ScrapeConfig| {
                let section = config.check(&Global::default(), Path::new("."), 0).unwrap();
                assert!(section.warnings.is_empty(), "{:?}", section.warnings);
                section.pool
            };
            configs.into_iter().map(|config| (*name, check(config))).collect::<Vec<_>>()
        };
        PRESETS.iter().flat_map(of).collect()
    }

    const POD: &str = "pod_phase=Running pod_ip=10.0.0.1 pod_name=p pod_node_name=n";

    /// What discovery found, and what each preset makes of it: the address of the page, and its labels.
    const CASES: [(&str, &str); 18] = [
        (
            "address=10.0.0.9:10250 instance=n node_name=n",
            r#"kubelet https://10.0.0.9:10250/metrics {instance="10.0.0.9:10250", job="kubelet", metrics_path="/metrics", node="n"}
            kubelet https://10.0.0.9:10250/metrics/probes {instance="10.0.0.9:10250", job="kubelet", metrics_path="/metrics/probes", node="n"}
            cadvisor https://10.0.0.9:10250/metrics/cadvisor {instance="10.0.0.9:10250", job="kubelet", metrics_path="/metrics/cadvisor", node="n"}"#,
        ),
        (
            "address=10.0.0.2:6443 namespace=default endpointslice_port_name=https service_name=kubernetes",
            r#"apiserver https://10.0.0.2:6443/metrics {instance="10.0.0.2:6443", job="apiserver"}"#,
        ),
        (
            "POD address=10.0.0.1:8080 pod_label_app_kubernetes_io_name=kube-state-metrics pod_container_port_name=http",
            r#"kube-state-metrics http://10.0.0.1:8080/metrics {instance="10.0.0.1:8080", job="kube-state-metrics"}"#,
        ),
        (
            "POD address=10.0.0.1:9100 pod_label_app_kubernetes_io_name=node-exporter pod_container_port_name=metrics",
            r#"node-exporter http://10.0.0.1:9100/metrics {instance="n", job="node-exporter", node="n"}"#,
        ),
        (
            "POD address=10.0.0.1 namespace=kube-system pod_label_component=etcd",
            r#"etcd http://10.0.0.1:2381/metrics {instance="10.0.0.1:2381", job="etcd", namespace="kube-system", node="n", pod="p"}"#,
        ),
        (
            "POD address=10.0.0.1:9153 namespace=kube-system pod_label_k8s_app=kube-dns pod_container_name=coredns \
             pod_container_port_name=metrics pod_container_port_number=9153",
            r#"coredns http://10.0.0.1:9153/metrics {instance="10.0.0.1:9153", job="coredns", namespace="kube-system", node="n", pod="p"}"#,
        ),
        // Of the Helm chart, with another port.
        (
            "POD address=10.0.0.1:9253 namespace=dns pod_label_k8s_app=coredns pod_container_name=coredns \
             pod_container_port_name=metrics pod_container_port_number=9253",
            r#"coredns http://10.0.0.1:9253/metrics {instance="10.0.0.1:9253", job="coredns", namespace="dns", node="n", pod="p"}"#,
        ),
        (
            "POD address=10.0.0.1:9153 namespace=dns pod_label_app_kubernetes_io_name=rke2-coredns pod_container_name=coredns \
             pod_container_port_name=tcp-9153 pod_container_port_number=9153",
            r#"coredns http://10.0.0.1:9153/metrics {instance="10.0.0.1:9153", job="coredns", namespace="dns", node="n", pod="p"}"#,
        ),
        // GKE's kube-dns, a port for names, and somebody's pod that has only the label of the service.
        (
            "POD address=10.0.0.1:10054 namespace=kube-system pod_label_k8s_app=kube-dns pod_container_name=sidecar \
             pod_container_port_name=metrics pod_container_port_number=10054",
            "",
        ),
        (
            "POD address=10.0.0.1:53 namespace=kube-system pod_label_k8s_app=kube-dns pod_container_name=coredns \
             pod_container_port_name=tcp-53 pod_container_port_number=53",
            "",
        ),
        (
            "POD address=10.0.0.1:9153 namespace=shop pod_label_k8s_app=kube-dns pod_container_port_number=9153",
            "",
        ),
        (
            "POD address=10.0.0.1:10254 namespace=web pod_label_app_kubernetes_io_name=ingress-nginx \
             pod_label_app_kubernetes_io_component=controller pod_container_port_name=metrics",
            r#"ingress-nginx http://10.0.0.1:10254/metrics {controller_namespace="web", controller_pod="p", instance="10.0.0.1:10254", job="ingress-nginx", node="n"}"#,
        ),
        (
            "POD address=10.0.0.1:10254 namespace=kube-system pod_label_app_kubernetes_io_name=rke2-ingress-nginx \
             pod_label_app_kubernetes_io_component=controller pod_container_port_name=metrics",
            r#"ingress-nginx http://10.0.0.1:10254/metrics {controller_namespace="kube-system", controller_pod="p", instance="10.0.0.1:10254", job="ingress-nginx", node="n"}"#,
        ),
        (
            "POD address=10.0.0.1:80 namespace=shop pod_label_app=cart pod_annotation_prometheus_io_scrape=true \
             pod_annotation_prometheus_io_port=9102 pod_annotation_prometheus_io_path=/m pod_annotation_prometheus_io_param_x=1",
            r#"annotations http://10.0.0.1:9102/m?x=1 {app="cart", instance="10.0.0.1:9102", job="kubernetes-pods", namespace="shop", node="n", pod="p"}"#,
        ),
        (
            "pod_ip=fd00::1 address=[fd00::1]:80 pod_annotation_prometheus_io_scrape=true pod_annotation_prometheus_io_port=9102",
            r#"annotations http://[fd00::1]:9102/metrics {instance="[fd00::1]:9102", job="kubernetes-pods"}"#,
        ),
        (
            "POD address=10.0.0.1:80 namespace=shop endpointslice_port_name=web service_name=cart \
             service_annotation_prometheus_io_scrape=true service_annotation_prometheus_io_port=9102 \
             service_annotation_prometheus_io_scheme=https",
            r#"annotations https://10.0.0.1:9102/metrics {instance="10.0.0.1:9102", job="kubernetes-service-endpoints", namespace="shop", node="n", pod="p", service="cart"}"#,
        ),
        // The pod is scraped for itself.
        (
            "POD address=10.0.0.1:80 endpointslice_port_name=web service_annotation_prometheus_io_scrape=true \
             pod_annotation_prometheus_io_scrape=true",
            "",
        ),
        ("POD address=10.0.0.1:80 pod_label_app=cart", ""),
    ];

    fn targets(meta: &str) -> Vec<String> {
        let meta = meta.replace("POD", POD);
        let pairs = meta.split_whitespace().map(|pair| pair.split_once('=').unwrap());
        let labels = pairs.map(|(name, value)| match name {
            "address" => ("__address__".to_owned(), value),
            "instance" => ("instance".to_owned(), value),
            name => (format!("__meta_kubernetes_{name}"), value),
        });
        let targets = vec![Labels::new(labels).unwrap()];
        let group = TargetGroup { source: "s".to_owned(), labels: Labels::default(), targets };
        let role = match &meta {
            meta if meta.contains("endpointslice_") => "EndpointSlice",
            meta if meta.contains("pod_") => "Pod",
            _ => "Node",
        };
        let asks = |pool: &Pool| format!("{:?}", pool.discovery).contains(&format!("role: {role},"));
        let mut shown = Vec::new();
        for (name, pool) in pools().iter().filter(|(_, pool)| asks(pool)) {
            let (found, failures) = pool.targets_of(std::slice::from_ref(&group));
            assert!(failures.is_empty(), "{failures:?}");
            shown.extend(found.iter().map(|target| format!("{name} {} {}", target.source, target.labels)));
        }
        shown
    }

    #[test]
    fn what_discovery_finds_is_scraped_by_the_preset_it_is_for() {
        for (meta, want) in CASES {
            let want: Vec<&str> = want.lines().map(str::trim).collect();
            assert_eq!(targets(meta), want, "{meta}");
        }
        assert!(preset("kublet", &Access::InCluster).unwrap_err().contains("there are kubelet, cadvisor,"));
    }

    /// A page of a large cluster takes its time, but never longer than there is until the next one.
    #[test]
    fn a_preset_waits_longer_within_the_interval() {
        for (global, want) in [("{}", 30), ("{scrape_interval: 15s}", 15), ("{scrape_timeout: 50s}", 50)] {
            let global: Global = serde_saphyr::from_str(global).unwrap();
            for name in ["apiserver", "kube-state-metrics"] {
                let config = preset(name, &Access::InCluster).unwrap().remove(0);
                let pool = config.check(&global, Path::new("."), 0).unwrap().pool;
                let (took, bytes) = (pool.defaults.timeout.as_secs(), pool.limits.body_bytes);
                assert_eq!((took, bytes), (want, 512 * 1024 * 1024), "{name}");
            }
        }
    }

    #[test]
    fn outside_of_a_pod_the_kubeconfig_says_who_we_are() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kube.yml");
        let text = |user: &str| {
            format!(
                "{{apiVersion: v1, kind: Config, current-context: here,
                  clusters: [{{name: c, cluster: {{server: 'https://a:6443', certificate-authority: ca.crt}}}}],
                  users: [{{name: u, user: {{{user}}}}}], contexts: [{{name: here, context: {{cluster: c, user: u}}}}]}}"
            )
        };
        let access = Access::Kubeconfig(path.clone());
        std::fs::write(&path, text("tokenFile: token")).unwrap();
        for (name, _) in PRESETS {
            for config in preset(name, &access).unwrap() {
                let pool = config.check(&Global::default(), Path::new("/etc/b"), 0).unwrap().pool;
                let way = format!("{:?}", pool.way);
                let named = ["kubelet", "cadvisor", "apiserver"].contains(&name);
                assert!(!way.contains(ACCOUNT), "{name}: {way}");
                assert_eq!(way.contains(&format!("{}/token", dir.path().display())), named, "{name}: {way}");
                assert_eq!(way.contains("/ca.crt"), name == "apiserver", "{name}: {way}");
            }
        }
        std::fs::write(&path, text("")).unwrap();
        for (name, _) in PRESETS {
            let is_fine = preset(name, &access).is_ok();
            assert_eq!(is_fine, !["kubelet", "cadvisor", "apiserver"].contains(&name), "{name}");
        }
    }
}
