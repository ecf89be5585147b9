//! A collector without our store: what it sends to Loki, by OTLP, to Elasticsearch and by remote write, as the doors of a
//! server take it.

use std::fmt::Write;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use serde_json::Value;

use crate::support::{Server, binnacle, get, poll};

/// A collector that is stopped gracefully when asked, and killed when dropped.
struct Collector(Child);

impl Collector {
    fn start(state: &Path, args: &[&str]) -> Self {
        let mut child = binnacle()
            .args(["collect", "--listen", "127.0.0.1:0", "--log-level", "warn", "--state"])
            .arg(state)
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("Binnacle collects for "), "{line:?}");
        Self(child)
    }

    fn stop(mut self) {
        let pid = self.0.id().to_string();
        assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A container's log below `dir`; answers its path.
fn container(dir: &Path) -> PathBuf {
    let pod = dir.join("pods/shop_cart-7d9f6b5c4-x2x4z_0f0e0d0c-0000-0000-0000-000000000001/cart");
    std::fs::create_dir_all(&pod).unwrap();
    std::fs::create_dir_all(dir.join("containers")).unwrap();
    pod.join("0.log")
}

/// Lines of which some say their level, some hold more than ASCII, and two are the same.
fn messages(range: std::ops::Range<usize>) -> Vec<String> {
    let message = |n: usize| match n % 4 {
        0 => format!("level=error msg=\"no {n} \\\"left\\\" – ✓\""),
        1 => format!("{{\"level\":\"warn\",\"n\":{n}}}"),
        2 => format!("  plain {n}\ttext "),
        _ => "the same".to_owned(),
    };
    range.map(message).collect()
}

/// As a container runtime writes them, a millisecond apart; of an hour that is stored.
fn append(path: &Path, base_ms: i64, range: std::ops::Range<usize>) {
    let mut text = String::new();
    for (n, message) in range.clone().zip(messages(range)) {
        let _ = writeln!(text, "{} stdout F {message}", time(base_ms, n));
    }
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
}

fn time(base_ms: i64, n: usize) -> String {
    binnacle_model::LogTime((base_ms + n as i64) * 1_000_000 + 123).to_rfc3339()
}

#[allow(clippy::disallowed_methods, reason = "the server under test runs on the machine's clock")]
fn hour_ago_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    (now.as_millis() as i64) - 3_000_000
}

/// Time, level, message and labels of all lines of a service, in the order of time.
async fn found(url: &str, query: &str) -> Vec<(String, String, String, Value)> {
    let (_, answer) = get(&format!("{url}/api/logs/search?limit=1000&start=now-2h&q={query}")).await;
    let entries = answer["data"]["entries"].as_array().cloned().unwrap_or_default();
    let text = |one: &Value, key: &str| one[key].as_str().unwrap_or_default().to_owned();
    let mut all: Vec<_> = entries
        .iter()
        .map(|one| (text(one, "time"), text(one, "level"), text(one, "message"), one["stream"].clone()))
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_containers_reach_stores_of_others_once() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"), &[]);
    let url = server.url.clone();
    let base = hour_ago_ms();
    for (kind, at) in [("loki", &*url), ("otlp", &url), ("elasticsearch", &format!("{url}/elastic"))] {
        let own = dir.path().join(kind);
        let log = container(&own);
        append(&log, base, 0..200);
        let config = own.join("c.yml");
        let containers = own.join("containers");
        let text = format!(
            "logs: [{{containers: {}}}]\nstore: {{node: {kind}}}\nsend: {{logs: {{{kind}: {{url: '{at}'}}}}}}\n",
            containers.display()
        );
        std::fs::write(&config, text).unwrap();
        let args = ["--config", config.to_str().unwrap()];
        let collector = Collector::start(&own.join("state"), &args);
        let query = format!("node:{kind}");
        poll("the first lines", async || (found(&url, &query).await.len() == 200).then_some(())).await;
        collector.stop();
        // What came meanwhile, and what comes after: nothing of what was taken is sent again.
        append(&log, base, 200..300);
        let collector = Collector::start(&own.join("state"), &args);
        poll("lines of the time between", async || (found(&url, &query).await.len() >= 300).then_some(()))
            .await;
        append(&log, base, 300..301);
        poll("the last line", async || (found(&url, &query).await.len() >= 301).then_some(())).await;
        collector.stop();
        let all = found(&url, &query).await;
        let times: Vec<String> = (0..301).map(|n| time(base, n)).collect();
        assert_eq!(
            all.iter().map(|one| &one.0).collect::<Vec<_>>(),
            times.iter().collect::<Vec<_>>(),
            "{kind}"
        );
        assert_eq!(all.iter().map(|one| &*one.2).collect::<Vec<_>>(), messages(0..301), "{kind}");
        let levels: Vec<&str> = all[..4].iter().map(|one| &*one.1).collect();
        assert_eq!(levels, ["error", "warn", "", ""], "{kind}");
        for (label, value) in
            [("namespace", "shop"), ("container", "cart"), ("app", "cart"), ("service", "cart")]
        {
            assert_eq!(all[0].3[label], value, "{kind}: {}", all[0].3);
        }
    }
    server.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_needs_flags_alone_and_says_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"), &[]);
    let file = dir.path().join("app.log");
    std::fs::write(&file, "2026 one\n\nERROR two\n").unwrap();
    let pattern = dir.path().join("*.log");
    let args = ["--file", pattern.to_str().unwrap(), "--service", "side", "--loki", &server.url];
    let collector = Collector::start(&dir.path().join("state"), &args);
    let lines = poll("all lines", async || {
        Some(found(&server.url, "service:side").await).filter(|lines| lines.len() == 3)
    })
    .await;
    let mut messages: Vec<&str> = lines.iter().map(|one| &*one.2).collect();
    messages.sort_unstable();
    assert_eq!(messages, ["", "2026 one", "ERROR two"]);
    collector.stop();
    let run = |args: &[&str]| {
        let output = binnacle().args(["collect", "--listen", "127.0.0.1:0"]).args(args).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let pattern = pattern.to_str().unwrap();
    assert!(run(&["--file", pattern]).contains("where is the store?"));
    assert!(
        run(&["--file", pattern, "--otlp", "ftp://x"]).contains("send.logs.otlp.url must begin with http")
    );
    assert!(
        run(&["--file", pattern, "--otlp", "http://x", "--loki", "http://x"]).contains("cannot be used with")
    );
    let config = dir.path().join("c.yml");
    let text = "scrape_configs: [{job_name: a}]\nsend: {logs: {otlp: {url: 'http://x'}}}";
    std::fs::write(&config, text).unwrap();
    assert!(run(&["--config", config.to_str().unwrap()]).contains("where do samples go?"));
    server.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_reach_receivers_of_remote_write() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"), &[]);
    let config = dir.path().join("c.yml");
    let target = server.url.trim_start_matches("http://");
    let text = format!(
        "
global: {{scrape_interval: 1s, external_labels: {{cluster: far}}}}
scrape_configs: [{{job_name: server, static_configs: [{{targets: ['{target}']}}]}}]
send:
  metrics:
    remote_write:
    - {{url: '{0}/api/v1/write', name: one, queue_config: {{batch_send_deadline: 100ms}}}}
    - url: '{0}/api/v1/write'
      name: two
      protobuf_message: io.prometheus.write.v2.Request
      queue_config: {{batch_send_deadline: 100ms}}
      write_relabel_configs:
      - {{source_labels: [__name__], regex: up, action: keep}}
      - {{target_label: way, replacement: v2}}
",
        server.url
    );
    std::fs::write(&config, text).unwrap();
    let collector = Collector::start(&dir.path().join("state"), &["--config", config.to_str().unwrap()]);
    let query = |query: &str| {
        let query = form_urlencoded::Serializer::new(String::new()).append_pair("query", query).finish();
        format!("{}/api/v1/query?{query}", server.url)
    };
    for wanted in [
        "up{job=\"server\",cluster=\"far\",way=\"\"} == 1",
        "up{job=\"server\",cluster=\"far\",way=\"v2\"} == 1",
        "binnacle_collector_scrapes_total{job=\"server\"}",
    ] {
        let url = query(wanted);
        poll(wanted, async || {
            let (_, answer) = get(&url).await;
            (answer["data"]["result"].as_array()?.len() == 1).then_some(())
        })
        .await;
    }
    let (_, answer) = get(&query("{way=\"v2\",__name__!=\"up\"}")).await;
    assert_eq!(answer["data"]["result"].as_array().unwrap().len(), 0);
    collector.stop();
    server.kill();
}
