//! Logs to metrics through the whole program: lines in by Loki's door, a counter out by PromQL, an alert on it; a kill, and
//! the past.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::support::{Server, binnacle, client, get, poll};

const CONFIG: &str = "
global: {evaluation_interval: 1s}
rule_files: [rules.yml]
log_metric_files: [metrics.yml]
";

const METRICS: &str = "
groups:
- name: shop
  rules:
  - metric: orders_refused_total
    help: Orders that were refused.
    query: 'refused AND namespace:shop'
    labels: {app: app, reason: reason}
  - metric: order_seconds
    type: histogram
    logql: '{namespace=\"shop\"} | json | seconds > 0'
    value: seconds
    buckets: [0.1, 1]
";

const RULES: &str = "
groups:
- name: alerts
  rules:
  - alert: OrdersRefused
    expr: sum by (reason) (increase(orders_refused_total[5m])) > 0
";

fn write(dir: &Path) -> String {
    std::fs::write(dir.join("config.yml"), CONFIG).unwrap();
    std::fs::write(dir.join("metrics.yml"), METRICS).unwrap();
    std::fs::write(dir.join("rules.yml"), RULES).unwrap();
    dir.join("config.yml").display().to_string()
}

#[allow(clippy::disallowed_methods, reason = "the server under test runs on the machine's clock")]
fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}

/// Ten lines a second apart, from `start` on: five are refused, all took half a second.
async fn push(server: &Server, start: i64) {
    let line = |n: i64| {
        let what = if n % 2 == 0 { "refused" } else { "taken" };
        json!([
            format!("{}000000000", start + n),
            format!("{{\"msg\":\"order {n} {what}\",\"reason\":\"card\",\"seconds\":0.5}}")
        ])
    };
    let values: Vec<Value> = (0..10).map(line).collect();
    let push = json!({ "streams": [{ "stream": { "namespace": "shop", "app": "cart" }, "values": values }] });
    let sent = client().post(format!("{}/loki/api/v1/push", server.url)).json(&push).send().await.unwrap();
    assert_eq!(sent.status().as_u16(), 204);
}

async fn ask(server: &Server, query: &str) -> Vec<Value> {
    let query: String = form_urlencoded::byte_serialize(query.as_bytes()).collect();
    let (status, answer) = get(&format!("{}/api/v1/query?query={query}", server.url)).await;
    assert_eq!(status, 200, "{answer}");
    answer["data"]["result"].as_array().unwrap().clone()
}

async fn value(server: &Server, query: &str) -> Option<String> {
    Some(ask(server, query).await.first()?["value"][1].as_str()?.to_owned())
}

async fn wait_for(server: &Server, query: &str, want: &str) {
    poll(query, async || (value(server, query).await.as_deref() == Some(want)).then_some(())).await;
}

#[tokio::test]
async fn lines_become_a_counter_and_an_alert() {
    let dir = tempfile::tempdir().unwrap();
    let (config, data) = (write(dir.path()), dir.path().join("data"));
    let server = Server::start(&data, &["--config", &config]);
    push(&server, now() - 20).await;
    push(&server, now() - 10).await;
    wait_for(&server, "orders_refused_total", "10").await;
    let labels = ask(&server, "orders_refused_total").await[0]["metric"].clone();
    assert_eq!(labels, json!({ "__name__": "orders_refused_total", "app": "cart", "reason": "card" }));
    wait_for(&server, "order_seconds_bucket{le=\"1.0\"}", "20").await;
    assert_eq!(value(&server, "order_seconds_bucket{le=\"0.1\"}").await.as_deref(), Some("0"));
    assert_eq!(value(&server, "order_seconds_sum").await.as_deref(), Some("10"));
    let (_, described) = get(&format!("{}/api/v1/metadata?metric=orders_refused_total", server.url)).await;
    assert_eq!(described["data"]["orders_refused_total"][0]["help"], "Orders that were refused.");
    // The counter begins with a zero, so that its first samples count.
    let alerts = "ALERTS{alertname=\"OrdersRefused\",alertstate=\"firing\",reason=\"card\"}";
    wait_for(&server, alerts, "1").await;
    server.kill();
    // What the log is read for again was counted when it came.
    let server = Server::start(&data, &["--config", &config]);
    push(&server, now() - 5).await;
    wait_for(&server, "last_over_time(orders_refused_total[3s])", "5").await;
    assert_eq!(value(&server, "resets(orders_refused_total[1h])").await.as_deref(), Some("1"));
    let page = client().get(format!("{}/metrics", server.url)).send().await.unwrap().text().await.unwrap();
    assert!(page.contains("binnacle_alerting_log_metric_entries_total 15"), "{page}");
}

#[tokio::test]
async fn the_past_is_counted_from_stored_lines() {
    let dir = tempfile::tempdir().unwrap();
    let (config, data) = (write(dir.path()), dir.path().join("data"));
    let server = Server::start(&data, &[]);
    let start = now() / 60 * 60 - 7200;
    push(&server, start + 30).await;
    push(&server, start + 330).await;
    server.kill();
    let server = Server::start(&data, &["--config", &config, "--enable-admin-api"]);
    let post = async |query: &str| {
        let url = format!("{}/api/log-metrics/backfill?{query}", server.url);
        let answer = client().post(url).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    let span = format!("start={start}&end={}&step=1m", start + 600);
    let (status, done) = post(&span).await;
    assert_eq!(status, 200, "{done}");
    let counted = |at: usize| {
        let one = &done["data"][at];
        (one["metric"].as_str().unwrap(), one["entries"].as_u64().unwrap(), one["refused"].as_u64().unwrap())
    };
    assert_eq!((counted(0), counted(1)), (("orders_refused_total", 10, 0), ("order_seconds", 20, 0)));
    let at = format!("&time={}", start + 599);
    let query = format!("{}/api/v1/query?query=orders_refused_total{at}", server.url);
    assert_eq!(get(&query).await.1["data"]["result"][0]["value"][1], "10");
    let (status, again) = post(&span).await;
    assert_eq!((status, again["data"][0]["written"].as_u64()), (200, Some(0)), "{again}");
    let (status, other) = post(&format!("start={}&end={}", start + 60, start + 660)).await;
    assert!(status == 400 && other["error"].as_str().unwrap().contains("would not write"), "{other}");
    server.kill();
    let server = Server::start(&data, &["--config", &config]);
    let url = format!("{}/api/log-metrics/backfill?{span}", server.url);
    assert_eq!(client().post(url).send().await.unwrap().status().as_u16(), 503, "it is an admin's");
}

#[test]
fn files_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    let config = write(dir.path());
    let check = |what: &str, file: &str| {
        let output = binnacle().args(["check", what, file]).output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    let metrics = dir.path().join("metrics.yml").display().to_string();
    let (is_good, text) = check("rules", &metrics);
    assert!(is_good && text.contains("2 metrics of logs found"), "{text}");
    let (is_good, text) = check("config", &config);
    assert!(is_good && text.contains("2 metrics of logs"), "{text}");
    std::fs::write(&metrics, METRICS.replace("buckets: [0.1, 1]", "buckets: [1, 0.1]")).unwrap();
    for (what, file) in [("rules", &metrics), ("config", &config)] {
        let (is_good, text) = check(what, file);
        assert!(
            !is_good && text.contains("metrics.yml:13:14: rule \"order_seconds\": buckets must be"),
            "{text}"
        );
    }
}
