//! One `prometheus.yml`, given to Binnacle and to Prometheus: the same targets, and the same series.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

use serde_json::Value;

use crate::support::{Server, get, poll, prometheus};

const PAGE: &str = "# TYPE requests counter\nrequests_total{code=\"200\",job=\"theirs\"} 5\n\
    requests_total{code=\"500\",job=\"theirs\"} 1\n# TYPE noise gauge\nnoise{id=\"1\"} 1\nnoise{id=\"2\"} 2\n\
    temperature{room=\"Kitchen\",tmp_a=\"b\"} 21.5\n\
    pushed{job=\"batch\",instance=\"\"} 3\nstamped{job=\"x\",exported_job=\"y\"} 4\n";

/// A target that shows its page to those who know the password, behind a redirect.
fn target() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let (mut line, mut head) = (String::new(), String::new());
                while reader.read_line(&mut line).is_ok_and(|read| read > 0) && line.trim() != "" {
                    head.push_str(&line);
                    line.clear();
                }
                let knows = head.to_ascii_lowercase().contains("authorization: basic bwu6ahg=");
                let (status, body) = match (head.starts_with("GET /old"), knows) {
                    (true, _) => ("302 Found\r\nlocation: /metrics", ""),
                    (_, true) => ("200 OK\r\ncontent-type: text/plain; version=0.0.4", PAGE),
                    (_, false) => ("401 Unauthorized", ""),
                };
                let length = body.len();
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
                );
            });
        }
    });
    address
}

/// What people have: discovery that finds nothing here, rules on targets and on series, credentials.
fn file(address: &str) -> String {
    format!(
        "
global: {{scrape_interval: 1s, evaluation_interval: 1s, external_labels: {{cluster: a}}}}
alerting: {{alertmanagers: [{{static_configs: [{{targets: []}}]}}]}}
scrape_configs:
- job_name: shop
  basic_auth: {{username: me, password: hx}}
  honor_labels: true
  metrics_path: /old
  params: {{module: [a, b]}}
  sample_limit: 1000
  static_configs:
  - {{targets: ['{address}', 'drop.me:1'], labels: {{env: Prod, shard: 7, __meta_zone: z1}}}}
  - targets: ['http://{address}/x']
  file_sd_configs: [{{files: [none.yml]}}]
  relabel_configs:
  - {{source_labels: [__address__], regex: 'drop.*', action: drop}}
  - {{source_labels: [__address__], regex: 'http://([^/]+)/.*', target_label: __address__}}
  - {{source_labels: [__meta_zone], target_label: zone, regex: '(.+)'}}
  - {{source_labels: [env], target_label: env, action: lowercase}}
  - {{source_labels: [__address__], target_label: part, modulus: 7, action: hashmod}}
  - {{regex: shard, action: labeldrop}}
  metric_relabel_configs:
  - {{source_labels: [__name__, id], regex: 'noise;1', action: drop}}
  - {{regex: 'tmp_(.+)', action: labelmap}}
  - {{regex: 'tmp_.+', action: labeldrop}}
  - {{source_labels: [room], target_label: room, action: uppercase}}
- job_name: guest
  follow_redirects: false
  static_configs: [{{targets: ['{address}']}}]
  metrics_path: /old
"
    )
}

/// What both must say of targets.
fn targets(body: &Value) -> (BTreeSet<String>, BTreeSet<String>) {
    let field = |one: &Value, keys: &[&str]| {
        keys.iter().map(|key| format!("{key}={}", one[*key])).collect::<Vec<_>>().join(" ")
    };
    let list = |name: &str| body["data"][name].as_array().cloned().unwrap_or_default();
    let keys = [
        "discoveredLabels",
        "labels",
        "scrapePool",
        "scrapeUrl",
        "health",
        "lastError",
        "scrapeInterval",
        "scrapeTimeout",
    ];
    let active = list("activeTargets").iter().map(|one| field(one, &keys)).collect();
    let dropped = list("droppedTargets").iter().map(|one| field(one, &keys[..1])).collect();
    (active, dropped)
}

async fn series(url: &str) -> BTreeSet<String> {
    // How many series are new says how often was scraped, and so does the time of it.
    let names = "{__name__=~\"requests_total|noise|temperature|pushed|stamped|up|scrape_samples.*\"}";
    let asked = reqwest::Url::parse_with_params(&format!("{url}/api/v1/query"), [("query", names)]).unwrap();
    let (_, body) = get(asked.as_str()).await;
    let result = body["data"]["result"].as_array().cloned().unwrap_or_default();
    result.iter().map(|one| format!("{} {}", one["metric"], one["value"][1])).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_file_means_the_same_to_prometheus() {
    let dir = tempfile::tempdir().unwrap();
    let text = file(&target());
    let Some((_peer, theirs)) = prometheus(dir.path(), &text) else { return };
    let path = dir.path().join("prometheus.yml");
    std::fs::write(&path, &text).unwrap();
    let ours = Server::start(&dir.path().join("a"), &["--config", path.to_str().unwrap()]);
    let settled = async |url: &str| {
        poll(&format!("targets of {url}"), async || {
            let (status, body) = get(&format!("{url}/api/v1/targets")).await;
            let (active, dropped) = targets(&body);
            let is_settled = status == 200 && active.iter().all(|one| !one.contains("\"unknown\""));
            (is_settled && active.len() == 3).then_some((active, dropped))
        })
        .await
    };
    assert_eq!(settled(&ours.url).await, settled(&theirs).await);
    let want =
        poll("series of Prometheus", async || Some(series(&theirs).await).filter(|all| all.len() >= 14))
            .await;
    let found =
        poll("our series", async || Some(series(&ours.url).await).filter(|all| all.len() >= want.len()))
            .await;
    assert_eq!(found, want);
    let (_, steps) = get(&format!(
        "{}/api/v1/targets/relabel_steps?scrapePool=shop&labels=%7B%22__address__%22%3A%22drop.me%3A1%22%7D",
        ours.url
    ))
    .await;
    assert_eq!(steps["data"]["steps"][0]["keep"], Value::Bool(false), "{steps}");
}

/// What Prometheus shows of itself in protobuf, native histograms among it, means the same to both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn native_histograms_of_protobuf_mean_the_same_to_prometheus() {
    let dir = tempfile::tempdir().unwrap();
    let own = "global: {scrape_interval: 1s}\nscrape_configs: []\n";
    let Some((_peer, theirs)) = prometheus(dir.path(), own) else { return };
    let address = theirs.trim_start_matches("http://");
    let text = format!(
        "
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
- {{job_name: native, scrape_native_histograms: true, static_configs: [{{targets: ['{address}']}}]}}
- {{job_name: both, scrape_native_histograms: true, always_scrape_classic_histograms: true, static_configs: [{{targets: ['{address}']}}]}}
- {{job_name: classic, scrape_protocols: [PrometheusProto], static_configs: [{{targets: ['{address}']}}]}}
- {{job_name: text, scrape_protocols: [OpenMetricsText1.0.0], static_configs: [{{targets: ['{address}']}}]}}
"
    );
    let path = dir.path().join("prometheus.yml");
    std::fs::write(&path, &text).unwrap();
    let ours = Server::start(&dir.path().join("a"), &["--config", path.to_str().unwrap()]);
    let count = async |promql: &str| {
        let asked =
            reqwest::Url::parse_with_params(&format!("{}/api/v1/query", ours.url), [("query", promql)])
                .unwrap();
        let (_, body) = get(asked.as_str()).await;
        body["data"]["result"][0]["value"][1]
            .as_str()
            .and_then(|text| text.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    poll("all four jobs", async || (count("count(up == 1)").await == 4.0).then_some(())).await;
    let of = async |job: &str, promql: &str| {
        count(&promql.replace('J', &format!("job=\"{job}\",handler=\"/metrics\""))).await
    };
    let native = "histogram_count(prometheus_http_request_duration_seconds{J})";
    let buckets = "count(prometheus_http_request_duration_seconds_bucket{J})";
    poll("a native histogram", async || (of("native", native).await > 0.0).then_some(())).await;
    assert_eq!(of("native", buckets).await, 0.0);
    poll("both", async || (of("both", native).await > 0.0 && of("both", buckets).await > 5.0).then_some(()))
        .await;
    poll("classic ones", async || (of("classic", buckets).await > 5.0).then_some(())).await;
    assert_eq!(of("classic", native).await, 0.0);
    // The same series, whether they come as text or as protobuf.
    let series = async |job: &str| {
        let promql = format!("{{job=\"{job}\",__name__!~\"scrape_.*|.*_created\"}}");
        let asked =
            reqwest::Url::parse_with_params(&format!("{}/api/v1/query", ours.url), [("query", &promql)])
                .unwrap();
        let (_, body) = get(asked.as_str()).await;
        let result = body["data"]["result"].as_array().cloned().unwrap_or_default();
        let name = |one: &Value| one["metric"].to_string().replace(&format!("\"{job}\""), "");
        result.iter().map(name).collect::<BTreeSet<_>>()
    };
    poll("the same series", async || {
        let (proto, text) = (series("classic").await, series("text").await);
        (!proto.is_empty() && proto == text).then_some(())
    })
    .await;
}
