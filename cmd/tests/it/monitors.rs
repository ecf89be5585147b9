//! ServiceMonitors, PodMonitors and Probes of a cluster whose API is played in this process.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::kubernetes::testing::FakeApi;
use crate::support::{Server, client, get, poll};

const MONITORS: &str = "servicemonitors.monitoring.coreos.com";

/// A page for who knows the password: its path is a label there.
fn page(password: &Arc<Mutex<String>>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let password = Arc::clone(password);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut line, mut head) = (String::new(), String::new());
            while reader.read_line(&mut line).is_ok_and(|read| read > 0) && line.trim() != "" {
                head.push_str(&line);
                line.clear();
            }
            let path = head.split_whitespace().nth(1).unwrap_or_default();
            let wanted = format!("Basic {}", password.lock().unwrap());
            let (status, body) = if head.contains(&wanted) || path == "/open" {
                ("200 OK", format!("requests_total{{path=\"{path}\",instance=\"own\"}} 5\n"))
            } else {
                ("401 Unauthorized", String::new())
            };
            let length = body.len();
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\ncontent-type: text/plain; version=0.0.4\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
        }
    });
    port
}

/// `me:hush-one` and `me:hush-two`, as a header and as a Secret have them.
const ONE: (&str, &str) = ("bWU6aHVzaC1vbmU=", "aHVzaC1vbmU=");
const TWO: (&str, &str) = ("bWU6aHVzaC10d28=", "aHVzaC10d28=");

fn secret(password: &str) -> Value {
    json!({"metadata": {"name": "login", "namespace": "shop"}, "data": {"user": "bWU=", "password": password}})
}

/// A service with a pod that answers, and one that has ended.
fn cluster(api: &FakeApi, port: u16) {
    let labels = json!({"app": "cart", "team": "pay"});
    for (name, phase, ip) in [("cart-1", "Running", "127.0.0.1"), ("cart-2", "Succeeded", "127.0.0.2")] {
        api.put(
            "pods",
            json!({
                "metadata": {"name": name, "namespace": "shop", "uid": name, "labels": {"app": "cart", "version": "v1"}},
                "spec": {"nodeName": "n1", "containers": [{"name": "app", "image": "i", "ports": [
                    {"name": "http", "containerPort": port, "protocol": "TCP"}, {"name": "admin", "containerPort": 1, "protocol": "TCP"},
                ]}]},
                "status": {"phase": phase, "podIP": ip, "hostIP": "127.0.0.9"},
            }),
        );
    }
    let port_of_service = json!([{"name": "web", "port": 80, "protocol": "TCP", "targetPort": port}]);
    for (name, labels) in [("cart", &labels), ("other", &json!({"app": "other"}))] {
        let meta = json!({"name": name, "namespace": "shop", "labels": labels});
        api.put(
            "services",
            json!({"metadata": meta, "spec": {"type": "ClusterIP", "clusterIP": "10.0.0.1", "ports": port_of_service}}),
        );
        let endpoint = |pod: &str, ip: &str| {
            json!({"addresses": [ip], "conditions": {"ready": true}, "nodeName": "n1",
                "targetRef": {"kind": "Pod", "namespace": "shop", "name": pod}})
        };
        api.put(
            "endpointslices.discovery.k8s.io",
            json!({
                "metadata": {"name": format!("{name}-abc"), "namespace": "shop", "labels": {"kubernetes.io/service-name": name}},
                "addressType": "IPv4",
                "endpoints": [endpoint("cart-1", "127.0.0.1"), endpoint("cart-2", "127.0.0.2")],
                "ports": [{"name": "web", "port": port, "protocol": "TCP"}],
            }),
        );
    }
}

fn service_monitor(name: &str, path: &str, more: &Value) -> Value {
    let mut endpoint = json!({
        "port": "web", "path": path, "interval": "1s", "scrapeTimeout": "1s",
        "basicAuth": {"username": {"name": "login", "key": "user"}, "password": {"name": "login", "key": "password"}},
    });
    endpoint.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({
        "metadata": {"name": name, "namespace": "shop", "labels": {"release": "x"}},
        "spec": {
            "jobLabel": "app", "targetLabels": ["team"], "podTargetLabels": ["version"],
            "selector": {"matchLabels": {"app": "cart"}}, "endpoints": [endpoint],
        },
    })
}

/// Pool, health and labels of all targets that are scraped.
async fn targets(url: &str) -> Vec<String> {
    let response = client().get(format!("{url}/api/v1/targets?state=active")).send().await;
    let Ok(response) = response else { return Vec::new() };
    let body: Value = response.json().await.unwrap_or_default();
    let mut found = Vec::new();
    for one in body["data"]["activeTargets"].as_array().into_iter().flatten() {
        let mut labels = one["labels"].as_object().cloned().unwrap_or_default();
        labels.sort_keys();
        let text = |key: &str| one[key].as_str().unwrap_or_default().to_owned();
        found.push(format!(
            "{} {} {} {}",
            text("scrapePool"),
            text("health"),
            text("scrapeUrl"),
            json!(labels)
        ));
    }
    found.sort();
    found
}

/// Values of a series' label, of those that there are now.
async fn label_values(url: &str, query: &str, label: &str) -> Vec<String> {
    let query: String = form_urlencoded::byte_serialize(query.as_bytes()).collect();
    let (_, answer) = get(&format!("{url}/api/v1/query?query={query}")).await;
    let found = answer["data"]["result"].as_array().cloned().unwrap_or_default();
    let mut found: Vec<String> =
        found.iter().map(|one| one["metric"][label].as_str().unwrap_or_default().to_owned()).collect();
    found.sort();
    found
}

/// What Prometheus Operator writes for the first ServiceMonitor and the PodMonitor.
fn of_operator(api: &FakeApi) -> String {
    let sd = |role: &str| {
        format!(
            "[{{role: {role}, namespaces: {{names: [shop]}}, api_server: 'http://{}', bearer_token: t}}]",
            api.address
        )
    };
    let ended = "{action: drop, source_labels: [__meta_kubernetes_pod_phase], regex: (Failed|Succeeded)}";
    format!(
        "
scrape_configs:
- job_name: serviceMonitor/shop/cart/0
  honor_labels: false
  kubernetes_sd_configs: {slices}
  scrape_interval: 1s
  scrape_timeout: 1s
  metrics_path: /a
  basic_auth: {{username: me, password: hush-one}}
  relabel_configs:
  - {{source_labels: [job], target_label: __tmp_prometheus_job_name}}
  - {{action: keep, source_labels: [__meta_kubernetes_service_label_app, __meta_kubernetes_service_labelpresent_app], regex: (cart);true}}
  - {{action: keep, source_labels: [__meta_kubernetes_endpointslice_port_name], regex: web}}
  - {{source_labels: [__meta_kubernetes_endpointslice_address_target_kind, __meta_kubernetes_endpointslice_address_target_name], separator: ;, regex: Node;(.*), replacement: '${{1}}', target_label: node}}
  - {{source_labels: [__meta_kubernetes_endpointslice_address_target_kind, __meta_kubernetes_endpointslice_address_target_name], separator: ;, regex: Pod;(.*), replacement: '${{1}}', target_label: pod}}
  - {{source_labels: [__meta_kubernetes_namespace], target_label: namespace}}
  - {{source_labels: [__meta_kubernetes_service_name], target_label: service}}
  - {{source_labels: [__meta_kubernetes_pod_name], target_label: pod}}
  - {{source_labels: [__meta_kubernetes_pod_container_name], target_label: container}}
  - {ended}
  - {{source_labels: [__meta_kubernetes_service_label_team], target_label: team, regex: (.+), replacement: '${{1}}'}}
  - {{source_labels: [__meta_kubernetes_pod_label_version], target_label: version, regex: (.+), replacement: '${{1}}'}}
  - {{source_labels: [__meta_kubernetes_service_name], target_label: job, replacement: '${{1}}'}}
  - {{source_labels: [__meta_kubernetes_service_label_app], target_label: job, regex: (.+), replacement: '${{1}}'}}
  - {{target_label: endpoint, replacement: web}}
- job_name: podMonitor/shop/pods/0
  honor_labels: true
  kubernetes_sd_configs: {pods}
  scrape_interval: 1s
  scrape_timeout: 1s
  metrics_path: /open
  relabel_configs:
  - {{source_labels: [job], target_label: __tmp_prometheus_job_name}}
  - {ended}
  - {{action: keep, source_labels: [__meta_kubernetes_pod_label_app, __meta_kubernetes_pod_labelpresent_app], regex: (cart);true}}
  - {{action: keep, source_labels: [__meta_kubernetes_pod_container_port_name], regex: http}}
  - {{source_labels: [__meta_kubernetes_namespace], target_label: namespace}}
  - {{source_labels: [__meta_kubernetes_pod_container_name], target_label: container}}
  - {{source_labels: [__meta_kubernetes_pod_name], target_label: pod}}
  - {{target_label: job, replacement: shop/pods}}
  - {{target_label: endpoint, replacement: http}}
",
        slices = sd("endpointslice"),
        pods = sd("pod"),
    )
}

/// Monitors of each kind; two that are wrong, and one that is not selected.
fn monitors(api: &FakeApi, port: u16) {
    api.put(MONITORS, service_monitor("cart", "/a", &json!({})));
    let bad = json!({"relabelings": [{"action": "keep", "regex": "("}]});
    api.put(MONITORS, service_monitor("bad", "/a", &bad));
    api.put(MONITORS, service_monitor("thief", "/a", &json!({"bearerTokenFile": "/etc/passwd"})));
    api.put("podmonitors.monitoring.coreos.com", json!({
        "metadata": {"name": "pods", "namespace": "shop", "labels": {"release": "x"}},
        "spec": {
            "selector": {"matchLabels": {"app": "cart"}},
            "podMetricsEndpoints": [{"port": "http", "path": "/open", "honorLabels": true, "interval": "1s", "scrapeTimeout": "1s"}],
        },
    }));
    api.put(
        "probes.monitoring.coreos.com",
        json!({
            "metadata": {"name": "alive", "namespace": "shop", "labels": {"release": "x"}},
            "spec": {"module": "tcp_connect", "interval": "1s", "scrapeTimeout": "1s",
                "targets": {"staticConfig": {"static": [format!("127.0.0.1:{port}"), "169.254.169.254:80"]}}},
        }),
    );
    let mut unwanted = service_monitor("unwanted", "/a", &json!({}));
    unwanted["metadata"]["labels"] = json!({"release": "y"});
    api.put(MONITORS, unwanted);
}

const CONFIG: &str = "probes: {modules: {tcp_connect: {prober: tcp}}}
kubernetes: {kubeconfig: kubeconfig, node: n1, monitors: {selector: release=x, loopback: true}}
";

#[tokio::test(flavor = "multi_thread")]
async fn monitors_are_followed_without_an_operator() {
    let password = Arc::new(Mutex::new(ONE.0.to_owned()));
    let port = page(&password);
    let api = FakeApi::start().await;
    cluster(&api, port);
    api.put("secrets", secret(ONE.1));
    monitors(&api, port);
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("kubeconfig"), api.kubeconfig()).unwrap();
    let config = dir.path().join("binnacle.yml");
    fs::write(&config, CONFIG).unwrap();
    let store = dir.path().join("store");
    let server = Server::start(&store, &["--web.enable-lifecycle", "--config", config.to_str().unwrap()]);
    let url = server.url.clone();

    let want = first_targets(&url, port).await;
    what_is_shown(&url).await;
    if let Some((_peer, theirs)) = crate::support::prometheus(dir.path(), &of_operator(&api)) {
        let theirs = poll("targets of Prometheus", async || {
            let found = targets(&theirs).await;
            (found.iter().filter(|one| one.contains(" up ")).count() == 2).then_some(found)
        })
        .await;
        assert_eq!(theirs, [want[0].clone(), want[3].clone()]);
    }

    // The configuration is read again: what monitors say goes on, but where it has a job of that name.
    let job = |name: &str| {
        format!(
            "- {{job_name: {name}, metrics_path: /open, scrape_interval: 1s, static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}\n"
        )
    };
    let jobs = job("own") + &job("podMonitor/shop/pods/0");
    fs::write(&config, format!("{CONFIG}scrape_configs:\n{jobs}")).unwrap();
    assert_eq!(client().post(format!("{url}/-/reload")).send().await.unwrap().status(), 200);
    let pools = poll("the new job", async || {
        let (_, body) = get(&format!("{url}/api/v1/scrape_pools")).await;
        let pools = body["data"]["scrapePools"].to_string();
        pools.contains("own").then_some(pools)
    })
    .await;
    assert!(pools.contains("serviceMonitor/shop/cart/0") && pools.contains("probe/shop/alive"), "{pools}");

    let of_file = |one: &String| one.starts_with("podMonitor/shop/pods/0") && !one.contains("cart-1");
    assert_eq!(targets(&url).await.iter().filter(|one| of_file(one)).count(), 1);
    assert_eq!(targets(&url).await.iter().filter(|one| one.contains("podMonitor/")).count(), 1);
    changes_are_followed(&api, &url, &password).await;
}

/// What the monitors come to.
async fn first_targets(url: &str, port: u16) -> [String; 4] {
    let up = poll("targets of monitors", async || {
        let found = targets(url).await;
        (found.iter().filter(|one| one.contains(" up ")).count() == 4).then_some(found)
    })
    .await;
    let probed = |target: &str| {
        format!(
            "probe/shop/alive up internal://probe?module=tcp_connect&target={target} {{\"instance\":\"{}\",\"job\":\"probe/shop/alive\",\"namespace\":\"shop\"}}",
            target.replace("%3A", ":")
        )
    };
    let want = [
        format!(
            "podMonitor/shop/pods/0 up http://127.0.0.1:{port}/open {{\"container\":\"app\",\"endpoint\":\"http\",\"instance\":\"127.0.0.1:{port}\",\"job\":\"shop/pods\",\"namespace\":\"shop\",\"pod\":\"cart-1\"}}"
        ),
        probed(&format!("127.0.0.1%3A{port}")),
        probed("169.254.169.254%3A80"),
        format!(
            "serviceMonitor/shop/cart/0 up http://127.0.0.1:{port}/a {{\"container\":\"app\",\"endpoint\":\"web\",\"instance\":\"127.0.0.1:{port}\",\"job\":\"cart\",\"namespace\":\"shop\",\"pod\":\"cart-1\",\"service\":\"cart\",\"team\":\"pay\",\"version\":\"v1\"}}"
        ),
    ];
    assert_eq!(up, want);
    let succeeded = "probe_success{job=\"probe/shop/alive\"} == 1";
    assert_eq!(
        label_values(url, succeeded, "instance").await,
        [format!("127.0.0.1:{port}")],
        "the other is guarded"
    );
    assert_eq!(label_values(url, "requests_total{job=\"cart\"}", "exported_instance").await, ["own"]);
    want
}

/// Metrics of monitors, and no secret anywhere.
async fn what_is_shown(url: &str) {
    let page = client().get(format!("{url}/metrics")).send().await.unwrap().text().await.unwrap();
    for line in [
        "binnacle_kubernetes_monitors{kind=\"service\",state=\"ok\"} 1",
        "binnacle_kubernetes_monitors{kind=\"service\",state=\"bad\"} 2",
        "binnacle_kubernetes_monitors{kind=\"pod\",state=\"ok\"} 1",
        "binnacle_kubernetes_monitors{kind=\"probe\",state=\"ok\"} 1",
        "binnacle_kubernetes_monitor_scrape_configs 3",
        "binnacle_kubernetes_monitor_discoveries 2",
    ] {
        assert!(page.contains(line), "{line}:\n{page}");
    }
    for path in ["status/config", "targets", "scrape_pools"] {
        let shown = client().get(format!("{url}/api/v1/{path}")).send().await.unwrap().text().await.unwrap();
        assert!(!shown.contains("hush") && !shown.contains(ONE.1), "{path}: {shown}");
    }
}

/// A monitor that changes, a Secret that changes, a monitor that goes.
async fn changes_are_followed(api: &FakeApi, url: &str, password: &Arc<Mutex<String>>) {
    let paths = async || label_values(url, "requests_total{job=\"cart\"}", "path").await;
    let with_label = json!({"relabelings": [{"targetLabel": "shard", "replacement": "b"}]});
    api.put(MONITORS, service_monitor("cart", "/b", &with_label));
    poll("the series of the other path alone", async || (paths().await == ["/b"]).then_some(())).await;
    TWO.0.clone_into(&mut password.lock().unwrap());
    poll("the old password refused", async || paths().await.is_empty().then_some(())).await;
    api.put("secrets", secret(TWO.1));
    poll("the new password", async || (paths().await == ["/b"]).then_some(())).await;
    api.put(MONITORS, service_monitor("bad", "/c", &json!({})));
    poll("a monitor that is put right", async || (paths().await == ["/b", "/c"]).then_some(())).await;
    let far = json!([{"targetLabel": "__address__", "replacement": "169.254.169.254:80"}]);
    api.put(
        "podmonitors.monitoring.coreos.com",
        json!({
            "metadata": {"name": "far", "namespace": "shop", "labels": {"release": "x"}},
            "spec": {"podMetricsEndpoints": [{"port": "http", "interval": "1s", "relabelings": far}]},
        }),
    );
    poll("an address that nobody may ask for", async || {
        let (_, body) = get(&format!("{url}/api/v1/targets?state=active")).await;
        let all = body["data"]["activeTargets"].as_array().cloned().unwrap_or_default();
        all.iter().any(|one| one["lastError"] == "a link-local or metadata address").then_some(())
    })
    .await;
    api.delete(MONITORS, "shop/cart");
    poll("the end of the series", async || (paths().await == ["/c"]).then_some(())).await;
    poll("a monitor that nothing happened to", async || {
        let targets = targets(url).await;
        targets.iter().any(|one| one.starts_with("podMonitor/shop/pods/0 up")).then_some(())
    })
    .await;
}
