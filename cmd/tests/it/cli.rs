//! Bad input gets a clear error that names the place and the cure.

use std::net::TcpListener;

use crate::support::{Server, binnacle, client, get};

fn fails(args: &[&str]) -> String {
    // A server that starts in spite of it is ended, and has another code.
    let output = std::process::Command::new("timeout")
        .args(["30", env!("CARGO_BIN_EXE_binnacle")])
        .args(args)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{args:?}: {output:?}");
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn check_names_file_line_and_column() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let rules = file("r.yml", "groups:\n- name: g\n  rules:\n  - alert: A\n    expr: sum(up\n");
    assert!(fails(&["check", "rules", &rules]).contains("r.yml:5:11: group \"g\", rule \"A\""));
    let config = file("c.yml", "global:\n  scrape_intervall: 1s\n");
    assert!(fails(&["check", "config", &config]).contains("c.yml:2:3: unknown field"));
    let named = file("d.yml", "rule_files: [r.yml]\n");
    assert!(fails(&["check", "config", &named]).contains("r.yml:5:11"));
    assert!(fails(&["check", "rules", "/nowhere.yml"]).contains("/nowhere.yml"));
    let routes = file("a.yml", "route: {receiver: x}\nreceivers: []\n");
    assert!(fails(&["check", "alertmanager", &routes]).contains("undefined receiver"));
    let good = file("g.yml", "groups: []\n");
    assert!(binnacle().args(["check", "rules", &good]).status().unwrap().success());
}

#[test]
fn a_port_in_use_names_the_flag() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let error = fails(&["serve", "--data", dir.path().to_str().unwrap(), "--listen", &address]);
    assert!(error.contains("choose another address with --listen"), "{error}");
}

#[test]
fn a_directory_in_use_names_its_owner() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let error = fails(&["serve", "--data", dir.path().to_str().unwrap(), "--listen", "127.0.0.1:0"]);
    assert!(error.contains(&format!("in use by another binnacle (pid {})", server.child.id())), "{error}");
}

#[test]
fn a_newer_format_refuses_to_start() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("wal")).unwrap();
    std::fs::write(dir.path().join("wal/0000000001.wal"), b"bwal\x09\xac\0\0").unwrap();
    let error = fails(&["serve", "--data", dir.path().to_str().unwrap(), "--listen", "127.0.0.1:0"]);
    assert!(error.contains("format version 9, newer than 2"), "{error}");
}

/// Asked to stop, the server ends with success and has everything when it comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_is_graceful() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &[]);
    let labels = binnacle_model::Labels::new([("__name__", "stop_test")]).unwrap();
    let at = binnacle_model::time::Clock::now(&MachineClock);
    let sample = binnacle_model::Sample { timestamp: at, value: 7.0 };
    let body = binnacle_collector::intake::encode_write_request([(&labels, &[sample][..])]);
    let body = snap::raw::Encoder::new().compress_vec(&body).unwrap();
    let sent = client().post(format!("{}/api/v1/write", server.url)).body(body).send().await.unwrap();
    assert_eq!(sent.status(), 204);
    let pid = server.child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert!(server.child.wait().unwrap().success());
    let again = Server::start(dir.path(), &[]);
    let (_, body) = get(&format!("{}/api/v1/query?query=stop_test", again.url)).await;
    assert_eq!(body["data"]["result"][0]["value"][1], "7", "{body}");
}

struct MachineClock;

impl binnacle_model::time::Clock for MachineClock {
    #[allow(clippy::disallowed_methods, reason = "the server under test runs on the machine's clock")]
    fn now_ns(&self) -> binnacle_model::LogTime {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        binnacle_model::LogTime(since.as_nanos() as i64)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queries_with_errors_have_prometheus_shape() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let ask = async |path: &str| get(&format!("{}{path}", server.url)).await;
    let (status, body) = ask("/api/v1/query?query=sum(").await;
    assert_eq!(status, 400);
    assert_eq!(body["errorType"], "bad_data");
    assert!(
        body["error"].as_str().unwrap().starts_with("invalid parameter \"query\": 1:5: parse error: "),
        "{body}"
    );
    assert_eq!(ask("/api/v1/query_range?query=up&start=1&end=0&step=1").await.0, 400);
    assert_eq!(ask("/api/v1/query_range?query=up&start=0&end=100000&step=1").await.0, 400);
    assert_eq!(ask("/api/v1/series").await.0, 400);
    assert_eq!(ask("/api/logs/search?limit=0").await.0, 400);
    assert_eq!(ask("/api/logs/search?start=soon").await.0, 400);
    let (status, body) = ask("/api/logs/search?q=(a").await;
    assert!(status == 200 && body["data"]["hint"].is_string(), "{body}");
    let write = |body: Vec<u8>| client().post(format!("{}/api/v1/write", server.url)).body(body).send();
    assert_eq!(write(b"not snappy".to_vec()).await.unwrap().status(), 400);
    // A body of five bytes that says it holds four gigabytes.
    assert_eq!(write(vec![0xff, 0xff, 0xff, 0xff, 0x0f]).await.unwrap().status(), 413);
    let post = client()
        .post(format!("{}/api/v1/query?query=1", server.url))
        .header("content-type", "application/x-www-form-urlencoded");
    let posted: serde_json::Value = post.body("time=7").send().await.unwrap().json().await.unwrap();
    assert_eq!(posted["data"]["result"], serde_json::json!([7, "1"]), "URL and form are merged");
    assert_eq!(ask("/api/v1/query?query=1%2B1&time=4").await.1["data"]["result"][1], "2");
}
