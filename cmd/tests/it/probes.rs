//! Probes by the real binary: its own jobs, and a scrape config that was written for blackbox exporter.

use std::net::TcpListener;

use serde_json::Value;

use crate::support::{Server, client, free_port, get, poll};

/// The samples of a query, by instance and job.
async fn values(url: &str, query: &str) -> Vec<(String, String, String)> {
    let query = form_urlencoded::Serializer::new(String::new()).append_pair("query", query).finish();
    let (_, body) = get(&format!("{url}/api/v1/query?{query}")).await;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let found = body["data"]["result"].as_array().cloned().unwrap_or_default();
    let mut found: Vec<_> = found
        .iter()
        .map(|one| (text(&one["metric"]["job"]), text(&one["metric"]["instance"]), text(&one["value"][1])))
        .collect();
    found.sort();
    found
}

/// A job with rules that name the module, one without, and a scrape config that was written for blackbox exporter.
fn file(listen: &str, targets: &str, ports: &str) -> String {
    let alive = format!("http://{listen}/-/healthy");
    format!(
        "
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
probes:
  modules:
    http_2xx: {{prober: http, http: {{fail_if_body_not_matches_regexp: [Healthy]}}}}
    tcp_connect: {{prober: tcp}}
  endpoint: {{targets: ['http://127\\.0\\.0\\.1:.*'], modules: [http_2xx]}}
  jobs:
  - {{job_name: web, module: http_2xx, static_configs: [{{targets: [{targets}]}}]}}
  - job_name: ports
    module: http_2xx
    static_configs: [{{targets: [{ports}]}}]
    relabel_configs:
    - {{target_label: __param_module, replacement: tcp_connect}}
scrape_configs:
- job_name: blackbox
  metrics_path: /probe
  params: {{module: [http_2xx]}}
  static_configs: [{{targets: ['{alive}']}}]
  relabel_configs:
  - {{source_labels: [__address__], target_label: __param_target}}
  - {{source_labels: [__param_target], target_label: instance}}
  - {{target_label: __address__, replacement: '{listen}'}}
"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_are_probed_in_process_and_by_those_who_ask() {
    let dir = tempfile::tempdir().unwrap();
    let listen = format!("127.0.0.1:{}", free_port());
    let alive = format!("http://{listen}/-/healthy");
    // Somebody who takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap();
    let dead = format!("127.0.0.1:{}", free_port());
    let config = dir.path().join("c.yml");
    let text = |targets: &str| file(&listen, targets, &format!("'{silent}', '{dead}'"));
    std::fs::write(&config, text(&format!("'{alive}', 'http://{listen}/nowhere'"))).unwrap();
    let args = ["--config", config.to_str().unwrap(), "--enable-lifecycle"];
    let server = Server::start_on(&dir.path().join("data"), &listen, &args);
    let url = &server.url;
    let own =
        |job: &str, instance: &str, value: &str| (job.to_owned(), instance.to_owned(), value.to_owned());
    let mut want = vec![
        own("blackbox", &alive, "1"),
        own("ports", &silent.to_string(), "1"),
        own("ports", &dead, "0"),
        own("web", &alive, "1"),
        own("web", &format!("http://{listen}/nowhere"), "0"),
    ];
    want.sort();
    poll("all targets to be probed", async || (values(url, "probe_success").await == want).then_some(()))
        .await;
    // A probe that fails is a scrape that succeeds.
    assert!(values(url, "up{job=~\"web|ports\"}").await.iter().all(|(_, _, up)| up == "1"));
    assert_eq!(values(url, "probe_http_status_code{job=\"web\"} == 404").await.len(), 1);
    let (_, body) = get(&format!("{url}/api/v1/targets?scrapePool=web")).await;
    let shown = body["data"]["activeTargets"].as_array().unwrap();
    assert!(shown.len() == 2 && shown.iter().all(|one| one["health"] == "up"), "{body}");
    assert!(shown[0]["scrapeUrl"].as_str().unwrap().starts_with("internal://probe?module=http_2xx&target="));

    let ask = async |target: &str, origin: Option<&str>| {
        let mut request = client().get(format!("{url}/probe?target={target}"));
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(ask(&alive, None).await, 200);
    assert_eq!(ask("http://localhost:1/", None).await, 403, "no pattern has it");
    assert_eq!(ask(&alive, Some("http://evil.example")).await, 403);

    // A target that goes is stale at once, and an endpoint that is taken away is closed.
    let less = text(&format!("'{alive}'")).replace("endpoint:", "# endpoint:");
    std::fs::write(&config, less).unwrap();
    assert!(client().post(format!("{url}/-/reload")).send().await.unwrap().status().is_success());
    poll("a target to go", async || {
        (values(url, "probe_success{job=\"web\"}").await == [own("web", &alive, "1")]).then_some(())
    })
    .await;
    assert_eq!(ask(&alive, None).await, 403);
    server.kill();
}
