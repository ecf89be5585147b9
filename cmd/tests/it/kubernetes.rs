//! A cluster whose API is played in this process: what is known of pods, and when.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Server, binnacle, get, poll};

#[allow(
    dead_code,
    unreachable_pub,
    clippy::disallowed_methods,
    reason = "the collector's own tests play more with it"
)]
#[path = "../../../collector/src/kubernetes/testing.rs"]
pub(crate) mod testing;

use testing::FakeApi;

const UID: &str = "3ea3ef66-5f89-43b7-b88b-6ee26f5b18a4";

/// `/var/log` of a node with one pod that wrote a few lines.
fn node(dir: &Path, lines: &[&str]) {
    let container = dir.join(format!("pods/shop_cart-6cd8d99884-tggnr_{UID}/app"));
    fs::create_dir_all(&container).unwrap();
    fs::create_dir_all(dir.join("containers")).unwrap();
    write(dir, lines);
    let link = dir.join("containers/cart-6cd8d99884-tggnr_shop_app-0123.log");
    std::os::unix::fs::symlink(container.join("0.log"), link).unwrap();
}

fn write(dir: &Path, lines: &[&str]) {
    use std::io::Write;
    let path = dir.join(format!("pods/shop_cart-6cd8d99884-tggnr_{UID}/app/0.log"));
    let mut file = fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    for line in lines {
        let now = now();
        writeln!(file, "{now} stdout F {line}").unwrap();
    }
}

#[allow(clippy::disallowed_methods, reason = "the server under test runs on the machine's clock")]
fn now() -> String {
    chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Nanos, true)
}

fn pod(annotations: &Value) -> Value {
    json!({
        "metadata": {
            "name": "cart-6cd8d99884-tggnr", "namespace": "shop", "uid": UID, "annotations": annotations,
            "labels": {"app.kubernetes.io/name": "basket", "pod-template-hash": "6cd8d99884"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "cart-6cd8d99884", "uid": "r", "controller": true}],
        },
        "spec": {"nodeName": "n1", "containers": [{"name": "app", "image": "i"}]},
    })
}

async fn messages(server: &Server, query: &str) -> Vec<String> {
    let query: String = form_urlencoded::byte_serialize(query.as_bytes()).collect();
    let (_, answer) = get(&format!("{}/api/logs/search?q={query}&limit=100", server.url)).await;
    let entries = answer["data"]["entries"].as_array().cloned().unwrap_or_default();
    entries.iter().map(|entry| entry["message"].as_str().unwrap_or_default().to_owned()).collect()
}

async fn found(server: &Server, query: &str, count: usize) -> Vec<String> {
    poll(query, async || Some(messages(server, query).await).filter(|found| found.len() == count)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_kubernetes_says_late_is_known_of_lines_that_came_before() {
    let api = FakeApi::start().await;
    api.set_away(true);
    let dir = tempfile::tempdir().unwrap();
    node(dir.path(), &["first line", r#"{"level":"error","msg":"second","team":"mine"}"#]);
    fs::write(dir.path().join("kubeconfig"), api.kubeconfig()).unwrap();
    let server = Server::start(&dir.path().join("store"), &[]);
    let config = dir.path().join("binnacle.yml");
    let text = "logs: [{containers: containers}]\nkubernetes: {kubeconfig: kubeconfig, node: n1}\nstore: {node: n1}\n";
    fs::write(&config, text).unwrap();
    let collector = binnacle()
        .args(["collect", "--store", &server.url, "--listen", "127.0.0.1:0", "--log-level", "error"])
        .args(["--config".as_ref(), config.as_os_str()])
        .args(["--state".as_ref(), dir.path().join("state").as_os_str()])
        .spawn()
        .unwrap();
    let _collector = Server { child: collector, url: String::new() };
    // Nobody waits for an API that is away.
    found(&server, "namespace:shop", 2).await;
    assert_eq!(messages(&server, "workload:cart").await.len(), 0);
    api.put("namespaces", json!({"metadata": {"name": "shop", "labels": {"team": "payments"}}}));
    api.put("nodes", json!({"metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": "eu-1a"}}}));
    api.put("pods", pod(&json!({"binnacle.io/owner": "ann@example.org"})));
    api.set_away(false);
    found(&server, "team:payments", 2).await;
    found(&server, "workload:cart AND workload_kind:Deployment AND zone:eu-1a", 2).await;
    found(&server, r#"owner:"ann@example.org" AND NOT level:error"#, 1).await;
    assert_eq!(messages(&server, "team:mine").await.len(), 1, "the message says so itself");
    assert_eq!(messages(&server, "app:basket").await.len(), 2);
    assert_eq!(messages(&server, "app:cart").await.len(), 0, "that was a guess");
    assert_eq!(messages(&server, "NOT team:payments").await.len(), 0);
    let query = format!(
        "{}/loki/api/v1/query?query=sum by (team, zone) (count_over_time({{workload=\"cart\"}}[1h]))",
        server.url
    );
    let (_, counts) = get(&query).await;
    assert_eq!(
        counts["data"]["result"][0]["metric"],
        json!({"team": "payments", "zone": "eu-1a"}),
        "{counts}"
    );
    let (_, values) = get(&format!("{}/loki/api/v1/label/team/values", server.url)).await;
    assert_eq!(values["data"], json!(["payments"]));
    let (_, facets) = get(&format!("{}/api/logs/facets?q=*&field=zone", server.url)).await;
    assert!(facets.to_string().contains("eu-1a"), "{facets}");
    // The store remembers it.
    let url = server.url.clone();
    server.kill();
    let server = Server::start_on(&dir.path().join("store"), url.trim_start_matches("http://"), &[]);
    found(&server, "team:payments", 2).await;
    // What a pod says of its own lines holds from then on.
    api.put("pods", pod(&json!({"binnacle.io/exclude": "app"})));
    poll("an excluded line", async || {
        write(dir.path(), &["perhaps excluded"]);
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        let before = messages(&server, "perhaps").await.len();
        write(dir.path(), &["perhaps excluded"]);
        tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
        (messages(&server, "perhaps").await.len() == before).then_some(())
    })
    .await;
}

/// Objects of each kind, with what makes them differ.
fn objects(api: &FakeApi) {
    let labels = json!({"app.kubernetes.io/name": "cart", "tier": "web"});
    let annotations = json!({"prometheus.io/scrape": "true", "e": ""});
    for (name, zone) in [("n1", "z1"), ("n2", "z2")] {
        api.put(
            "nodes",
            json!({
                "metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone}},
                "spec": {"providerID": format!("kind://{name}")},
                "status": {
                    "addresses": [
                        {"type": "Hostname", "address": name}, {"type": "InternalIP", "address": "127.0.0.9"},
                        {"type": "InternalIP", "address": "127.0.0.10"},
                    ],
                    "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
                },
            }),
        );
    }
    api.put(
        "namespaces",
        json!({"metadata": {"name": "shop", "labels": {"team": "pay"}, "annotations": {"x/y": "z"}}}),
    );
    let of_pod = |name: &str, ip: &str, phase: &str| {
        json!({
            "metadata": {
                "name": name, "namespace": "shop", "uid": format!("uid-{name}"),
                "labels": labels, "annotations": annotations,
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "cart-1", "uid": "r", "controller": true}],
            },
            "spec": {
                "nodeName": "n1",
                "containers": [
                    {"name": "app", "image": "img:1", "ports": [
                        {"name": "web", "containerPort": 8080, "protocol": "TCP"},
                        {"name": "metrics", "containerPort": 9090, "protocol": "TCP"},
                    ]},
                    {"name": "silent", "image": "img:2"},
                ],
                "initContainers": [
                    {"name": "first", "image": "img:3"},
                    {"name": "sidecar", "image": "img:4", "restartPolicy": "Always", "ports": [{"containerPort": 15000}]},
                ],
            },
            "status": {
                "phase": phase, "podIP": ip, "hostIP": "127.0.0.9",
                "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [
                    {"name": "app", "image": "img:1", "imageID": "", "containerID": "containerd://a", "restartCount": 0, "ready": true},
                ],
            },
        })
    };
    api.put("pods", of_pod("cart-1", "127.0.1.1", "Running"));
    api.put("pods", of_pod("cart-2", "fd00::1", "Succeeded"));
    api.put("pods", of_pod("pending", "", "Pending"));
}

/// Services, and what leads to their pods.
fn services(api: &FakeApi) {
    let labels = json!({"app.kubernetes.io/name": "cart", "tier": "web"});
    let annotations = json!({"prometheus.io/scrape": "true", "e": ""});
    let meta =
        |name: &str| json!({"name": name, "namespace": "shop", "labels": labels, "annotations": annotations});
    let port = json!([{"name": "web", "port": 80, "protocol": "TCP", "targetPort": 8080}]);
    for (name, kind, more) in [
        ("cart", "ClusterIP", json!({"clusterIP": "10.0.0.1"})),
        ("far", "ExternalName", json!({"externalName": "far.example"})),
        ("edge", "LoadBalancer", json!({"clusterIP": "10.0.0.2", "loadBalancerIP": "127.0.3.3"})),
    ] {
        let mut spec = json!({"type": kind, "ports": port});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        api.put("services", json!({"metadata": meta(name), "spec": spec}));
    }
    let pod_ref = |name: &str| json!({"kind": "Pod", "namespace": "shop", "name": name});
    api.put(
        "endpoints",
        json!({
            "metadata": meta("cart"),
            "subsets": [{
                "addresses": [
                    {"ip": "127.0.1.1", "nodeName": "n1", "targetRef": pod_ref("cart-1")},
                    {"ip": "127.0.7.7", "hostname": "by-hand"},
                ],
                "notReadyAddresses": [{"ip": "fd00::1", "nodeName": "n1", "targetRef": pod_ref("cart-2")}],
                "ports": [{"name": "web", "port": 8080, "protocol": "TCP"}],
            }],
        }),
    );
    let mut of_service = meta("cart-abc");
    of_service["labels"]["kubernetes.io/service-name"] = json!("cart");
    api.put("endpointslices.discovery.k8s.io", json!({
        "metadata": of_service, "addressType": "IPv4",
        "endpoints": [
            {"addresses": ["127.0.1.1", "127.0.1.2"], "conditions": {"ready": true, "serving": true, "terminating": false},
             "nodeName": "n1", "zone": "z1", "targetRef": pod_ref("cart-1"), "deprecatedTopology": {"a/b": "c"}},
            {"addresses": ["127.0.7.7"], "conditions": {}, "hostname": "by-hand"},
        ],
        "ports": [
            {"name": "web", "port": 8080, "protocol": "TCP", "appProtocol": "http"},
            {"name": "any", "protocol": "TCP"},
        ],
    }));
    api.put(
        "ingresses.networking.k8s.io",
        json!({
            "metadata": meta("web"),
            "spec": {
                "ingressClassName": "nginx", "tls": [{"hosts": ["*.shop.example"]}],
                "rules": [
                    {"host": "a.shop.example", "http": {"paths": [{"path": "/x"}, {"path": ""}]}},
                    {"host": "a.b.shop.example"},
                ],
            },
        }),
    );
}

/// Discovered labels of all targets, by job.
async fn discovered(url: &str, jobs: usize) -> Vec<String> {
    poll("targets of all roles", async || {
        // One that starts does not answer yet.
        let answer = crate::support::client().get(format!("{url}/api/v1/targets")).send().await.ok()?;
        let body: Value = answer.json().await.ok()?;
        let mut all: Vec<String> = Vec::new();
        let mut seen = std::collections::BTreeSet::new();
        for list in ["activeTargets", "droppedTargets"] {
            for one in body["data"][list].as_array().into_iter().flatten() {
                let mut labels = one["discoveredLabels"].as_object().cloned().unwrap_or_default();
                labels.sort_keys();
                seen.insert(labels["job"].to_string());
                all.push(serde_json::to_string_pretty(&labels).unwrap());
            }
        }
        all.sort();
        (seen.len() == jobs).then_some(all)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_become_the_targets_that_prometheus_makes_of_them() {
    let api = FakeApi::start().await;
    objects(&api);
    services(&api);
    let dir = tempfile::tempdir().unwrap();
    let roles = ["node", "pod", "service", "endpoints", "endpointslice", "ingress"];
    let mut text = "global: {scrape_interval: 30s, scrape_timeout: 1s}\nscrape_configs:\n".to_owned();
    for role in roles {
        text.push_str(&format!(
            "- job_name: {role}\n  kubernetes_sd_configs: [{{role: {role}, api_server: 'http://{}', bearer_token: t}}]\n",
            api.address
        ));
    }
    let attached = "- job_name: attached\n  kubernetes_sd_configs: [{role: pod, api_server: 'http://API', attach_metadata: {node: true}, namespaces: {names: [shop, other]}, selectors: [{role: pod, label: 'tier=web', field: metadata.name=cart-1}]}]\n";
    let text = text + &attached.replace("API", &api.address.to_string());
    // Containers without ports, and paths, have the address of others.
    let apart = "  relabel_configs: [{source_labels: [__meta_kubernetes_pod_container_name, __meta_kubernetes_ingress_path], target_label: which}]\n";
    let text = text.replace("  kubernetes_sd", &format!("{apart}  kubernetes_sd"));
    let path = dir.path().join("prometheus.yml");
    fs::write(&path, &text).unwrap();
    let ours = Server::start(&dir.path().join("a"), &["--config", path.to_str().unwrap()]);
    let found = discovered(&ours.url, roles.len() + 1).await;
    let has = |part: &str| found.iter().filter(|one| one.contains(part)).count();
    assert_eq!(has(r#""job": "attached""#), 5, "{found:#?}");
    assert_eq!(has(r#""__meta_kubernetes_node_label_topology_kubernetes_io_zone": "z1""#), 5 + 1);
    assert_eq!(has(r#""__meta_kubernetes_ingress_scheme": "https""#), 2);
    if let Some((_peer, theirs)) = crate::support::prometheus(dir.path(), &text) {
        let mut want = discovered(&theirs, roles.len() + 1).await;
        // Of an address of IPv6 without a port no URL can be made: we say so, Prometheus fails at each scrape.
        want.retain(|one| !one.contains(r#""__address__": "fd00::1""#));
        for (at, (one, other)) in found.iter().zip(&want).enumerate() {
            assert_eq!(one, other, "target {at}");
        }
        assert_eq!(found.len(), want.len());
    }
    // What goes takes its targets with it; what comes brings them.
    api.delete("endpoints", "shop/cart");
    api.delete("pods", "shop/cart-1");
    api.compact();
    let mut other = json!({"metadata": {"name": "late", "namespace": "shop"}, "spec": {"nodeName": "n2", "containers": [{"name": "c"}]}});
    other["status"] = json!({"podIP": "127.0.1.9", "phase": "Running"});
    api.put("pods", other);
    poll("targets that follow", async || {
        let (_, body) = get(&format!("{}/api/v1/targets", ours.url)).await;
        let text = body.to_string();
        let is_gone = !text.contains(r#""job":"endpoints""#) && !text.contains(r#""job":"attached""#);
        (is_gone && text.contains("127.0.1.9")).then_some(())
    })
    .await;
}

/// A node agent that shares its cluster with others, and where it listens.
fn agent(dir: &Path, node: &str, store: &str) -> (Server, String) {
    let config = dir.join(format!("{node}.yml"));
    let text = format!(
        "global: {{scrape_interval: 1s}}\nstore: {{node: {node}}}\n\
         scrape_configs: [{{job_name: outside, static_configs: [{{targets: ['localhost.localdomain:1']}}]}}]\n\
         kubernetes: {{kubeconfig: kubeconfig, node: {node}, scrape: [annotations], lease: monitoring/binnacle}}\n",
    );
    fs::write(&config, text).unwrap();
    let listen = format!("127.0.0.1:{}", crate::support::free_port());
    let child = binnacle()
        .args(["collect", "--store", store, "--listen", &listen, "--log-level", "error"])
        .args(["--config".as_ref(), config.as_os_str()])
        .args(["--state".as_ref(), dir.join(node).as_os_str()])
        .spawn()
        .unwrap();
    (Server { child, url: String::new() }, format!("http://{listen}"))
}

/// Jobs and pods of an agent's targets, but for itself and its host.
async fn scraped(url: &str) -> Option<Vec<String>> {
    let answer = crate::support::client().get(format!("{url}/api/v1/targets")).send().await.ok()?;
    let body: Value = answer.json().await.ok()?;
    let targets = body["data"]["activeTargets"].as_array()?;
    let name = |target: &Value| {
        let labels = &target["labels"];
        format!("{}/{}", labels["job"].as_str().unwrap_or_default(), labels["pod"].as_str().unwrap_or("-"))
    };
    let mut names: Vec<String> = targets
        .iter()
        .map(name)
        .filter(|name| name.starts_with("kubernetes-pods/") || name.starts_with("outside/"))
        .collect();
    names.sort();
    Some(names)
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_share_the_targets_of_a_cluster_and_one_reads_its_events() {
    let api = FakeApi::start().await;
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("kubeconfig"), api.kubeconfig()).unwrap();
    let server = Server::start(&dir.path().join("store"), &[]);
    let port = server.url.rsplit(':').next().unwrap().to_owned();
    api.put("namespaces", json!({"metadata": {"name": "kube-system", "uid": "c1"}}));
    for (name, node) in [("a", "n1"), ("b", "n2"), ("c", "n2")] {
        api.put("pods", json!({
            "metadata": {"name": name, "namespace": "shop", "uid": if name == "a" { UID.to_owned() } else { format!("uid-{name}") },
                "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": port},
                "labels": {"app": name, "team": "pay"}},
            "spec": {"nodeName": node, "containers": [{"name": "app", "image": "i"}]},
            "status": {"podIP": "127.0.0.1", "phase": "Running"},
        }));
    }
    let event = |name: &str, reason: &str| {
        json!({
            "metadata": {"name": format!("{name}.{reason}"), "namespace": "shop"}, "reason": reason, "type": "Warning",
            "message": "of a pod", "lastTimestamp": now(), "source": {"component": "kubelet", "host": "n1"},
            "involvedObject": {"kind": "Pod", "namespace": "shop", "name": name, "uid": UID},
        })
    };
    api.put("events", event("a", "BackOff"));
    let agents = [agent(dir.path(), "n1", &server.url), agent(dir.path(), "n2", &server.url)];
    let both = poll("each target at one agent", async || {
        let (one, other) = (scraped(&agents[0].1).await?, scraped(&agents[1].1).await?);
        (one.len() + other.len() == 4).then_some([one, other])
    })
    .await;
    let has = |names: &[String], wanted: &str| names.iter().any(|name| name == wanted);
    assert!(has(&both[0], "kubernetes-pods/a") && has(&both[1], "kubernetes-pods/b"), "{both:?}");
    assert!(has(&both[1], "kubernetes-pods/c"), "{both:?}");
    assert_ne!(has(&both[0], "outside/-"), has(&both[1], "outside/-"), "{both:?}");
    // An event is a line of its pod, with what is known of that.
    let line = "BackOff Pod/a: of a pod";
    assert_eq!(found(&server, "source:kubernetes-events", 1).await, [line]);
    assert_eq!(found(&server, "namespace:shop AND pod:a AND reason:BackOff AND level:warn", 1).await, [line]);
    assert_eq!(found(&server, "team:pay AND kind:Pod", 1).await, [line]);
    // When the agent that has the rest stops, the other one takes it, and goes on with the events.
    let leader = usize::from(has(&both[1], "outside/-"));
    let mut agents = agents;
    stop_gently(&mut agents[leader].0);
    api.put("events", event("a", "Killing"));
    poll("the other agent has it", async || {
        let names = scraped(&agents[1 - leader].1).await?;
        has(&names, "outside/-").then_some(())
    })
    .await;
    found(&server, "source:kubernetes-events", 2).await;
}

/// Ends a process as Kubernetes does, and waits for it.
fn stop_gently(server: &mut Server) {
    let pid = server.child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    server.child.wait().unwrap();
}
