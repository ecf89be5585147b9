//! Lines are deleted by query through the HTTP API and the command line, and stay away.

use std::path::Path;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Server, binnacle, client, get, poll};

async fn send(url: &str, lines: &[String]) {
    let line = |text: &String| json!({ "message": text, "service": "shop" }).to_string();
    let body = lines.iter().map(line).collect::<Vec<_>>().join("\n");
    let sent = client().post(format!("{url}/api/logs/ndjson")).body(body).send().await.unwrap();
    assert!(sent.status().is_success(), "{sent:?}");
}

async fn total(url: &str, query: &str) -> u64 {
    let (status, found) = get(&format!("{url}/api/logs/search?q={query}")).await;
    assert_eq!(status, 200);
    found["data"]["total"].as_u64().unwrap()
}

async fn ask(method: Method, url: &str) -> (u16, Value) {
    let answer = client().request(method, url).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap_or_default())
}

fn start(data: &Path, more: &[&str]) -> Server {
    Server::start(data, &[&["--enable-admin-api"], more].concat())
}

#[tokio::test]
async fn what_is_deleted_stays_away_also_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = start(&data, &[]);
    let of = |user: &str| (0..50).map(|n| format!("order {n} of {user}")).collect::<Vec<String>>();
    send(&server.url, &of("alice")).await;
    send(&server.url, &of("bob")).await;
    poll("all lines", async || (total(&server.url, "order").await == 100).then_some(())).await;

    let mut command = binnacle();
    command.args(["delete", "logs", "alice", "--since", "1h", "--url", &server.url]);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = output.await.unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && told.contains("50 lines gone"), "{told}");
    assert_eq!((total(&server.url, "alice").await, total(&server.url, "order").await), (0, 50));
    send(&server.url, &["alice is back".to_owned()]).await;
    poll("the new line", async || (total(&server.url, "alice").await == 1).then_some(())).await;
    server.kill();

    let server = start(&data, &[]);
    assert_eq!((total(&server.url, "alice").await, total(&server.url, "order").await), (1, 50));
    let (status, all) = get(&format!("{}/api/logs/delete", server.url)).await;
    assert_eq!((status, &all["data"]["deletions"][0]["state"]), (200, &json!("done")));
    let (status, one) = ask(Method::DELETE, &format!("{}/api/logs/delete/1", server.url)).await;
    assert_eq!((status, &one["data"]["state"]), (200, &json!("done")), "it is too late");
    let (status, _) = ask(Method::DELETE, &format!("{}/api/logs/delete/9", server.url)).await;
    assert_eq!(status, 404);
    for wrong in ["query=a", "start=now-1h", "query=a&start=now&end=now-1h", "query=((&start=now-1h"] {
        let (status, error) = ask(Method::POST, &format!("{}/api/logs/delete?{wrong}", server.url)).await;
        assert_eq!(status, 400, "{wrong}: {error}");
    }
    let (_, listed) = get(&format!("{}/api/logs/partitions", server.url)).await;
    let partitions = listed["data"]["partitions"].as_array().unwrap();
    assert!(partitions.iter().any(|one| one["state"] == "open"), "{listed}");
    server.kill();

    let server = Server::start(&data, &[]);
    let (status, _) =
        ask(Method::POST, &format!("{}/api/logs/delete?query=a&start=now-1h", server.url)).await;
    assert_eq!(status, 503, "only with --enable-admin-api");
    server.kill();
}

#[tokio::test]
async fn keys_of_an_archive_are_shown_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in [("id", "AKIDEXAMPLE"), ("secret", "hunter2secret")] {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let text = "storage: {logs: {archive: {url: 's3://logs/a', endpoint: 'http://127.0.0.1:1', \
        access_key_id_file: id, secret_access_key_file: secret}, attach: [{url: 'file:///nowhere/at/all'}]}}";
    let config = dir.path().join("c.yml");
    std::fs::write(&config, text).unwrap();
    let server = Server::start(&dir.path().join("data"), &["--config", config.to_str().unwrap()]);
    send(&server.url, &["a line".to_owned()]).await;
    poll("the line", async || (total(&server.url, "line").await == 1).then_some(())).await;
    for page in ["/api/v1/status/config", "/api/v1/status/flags", "/api/logs/partitions", "/metrics"] {
        let shown = client().get(format!("{}{page}", server.url)).send().await.unwrap().text().await.unwrap();
        assert!(!shown.contains("hunter2") && !shown.contains("AKID"), "{page}: {shown}");
        assert!(page != "/metrics" || shown.contains("binnacle_store_log_archive_requests"), "{shown}");
    }
    server.kill();
}
