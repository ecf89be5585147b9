//! A cluster whose API is played in this process: what is known of pods, and when.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Server, binnacle, get, poll};

#[path = "../../../collector/src/kubernetes/testing.rs"]
mod testing;

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
        let now = chrono_now();
        writeln!(file, "{now} stdout F {line}").unwrap();
    }
}

fn chrono_now() -> String {
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
