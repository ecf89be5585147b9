//! Targets that come and go while the server runs: by files, by HTTP, by a reload of the configuration.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::support::{Server, client, get, poll};

/// What a server of pages answers, by path: content type and body.
type Pages = Arc<Mutex<Vec<(String, &'static str, String)>>>;

const TEXT: &str = "text/plain; version=0.0.4";

/// A server of pages; one that is not there is a 404.
fn serve(pages: &Pages) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let pages = Arc::clone(pages);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut line, mut head) = (String::new(), String::new());
            while reader.read_line(&mut line).is_ok_and(|read| read > 0) && line.trim() != "" {
                head.push_str(&line);
                line.clear();
            }
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            let found = pages.lock().unwrap().iter().find(|page| page.0 == path).cloned();
            let (status, kind, body) = match found {
                Some((_, "redirect", to)) => (format!("302 Found\r\nlocation: {to}"), TEXT, String::new()),
                Some((_, kind, body)) => ("200 OK".to_owned(), kind, body),
                None => ("404 Not Found".to_owned(), TEXT, String::new()),
            };
            let length = body.len();
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
        }
    });
    address
}

fn set(pages: &Pages, path: &str, kind: &'static str, body: &str) {
    let mut pages = pages.lock().unwrap();
    pages.retain(|page| page.0 != path);
    pages.push((path.to_owned(), kind, body.to_owned()));
}

async fn query(url: &str, promql: &str) -> Vec<(String, String)> {
    let asked = reqwest::Url::parse_with_params(&format!("{url}/api/v1/query"), [("query", promql)]).unwrap();
    let (_, body) = get(asked.as_str()).await;
    let result = body["data"]["result"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    result.iter().map(|one| (text(&one["metric"]["instance"]), text(&one["value"][1]))).collect()
}

async fn instances(url: &str, job: &str) -> BTreeSet<String> {
    let (_, body) = get(&format!("{url}/api/v1/targets?scrapePool={job}")).await;
    let active = body["data"]["activeTargets"].as_array().cloned().unwrap_or_default();
    active.iter().map(|one| one["labels"]["instance"].as_str().unwrap_or_default().to_owned()).collect()
}

fn start(dir: &Path, config: &str, args: &[&str]) -> Server {
    let path = dir.join("prometheus.yml");
    std::fs::write(&path, config).unwrap();
    let path = path.to_str().unwrap();
    Server::start(&dir.join("data"), &[&["--config", path], args].concat())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn targets_of_files_and_servers_come_and_go_and_their_series_end() {
    let dir = tempfile::tempdir().unwrap();
    let pages = Pages::default();
    let address = serve(&pages);
    set(&pages, "/metrics", TEXT, "hits 1\n");
    set(
        &pages,
        "/sd",
        "application/json",
        &format!("[{{\"targets\": [\"{address}\"], \"labels\": {{\"zone\": \"z\"}}}}]"),
    );
    let list = dir.path().join("targets.json");
    std::fs::write(&list, format!("[{{\"targets\": [\"{address}\", \"localhost:1\"]}}]")).unwrap();
    let config = format!(
        "
global: {{scrape_interval: 1s, scrape_timeout: 1s, keep_dropped_targets: 1}}
scrape_configs:
- job_name: files
  file_sd_configs: [{{files: ['targets*.json']}}]
  relabel_configs: [{{source_labels: [__meta_filepath], regex: '.*/(.+)', target_label: from}}]
- job_name: server
  http_sd_configs: [{{url: 'http://{address}/sd', refresh_interval: 1s}}]
"
    );
    let server = start(dir.path(), &config, &[]);
    let has = async |promql: &str, count: usize| {
        let promql = promql.to_owned();
        poll(&promql, async || Some(query(&server.url, &promql).await).filter(|found| found.len() == count))
            .await
    };
    assert_eq!(has("hits{job=\"files\",from=\"targets.json\"}", 1).await[0].0, address);
    has("up{job=\"files\"}", 2).await;
    assert_eq!(has("up{job=\"files\"} == 1", 1).await[0].0, address);
    has("hits{job=\"server\",zone=\"z\"}", 1).await;

    // Gone from the file: its series end, and so do those of the scrape.
    std::fs::write(&list, "[{\"targets\": [\"localhost:1\"]}]").unwrap();
    has("hits{job=\"files\"}", 0).await;
    has("up{job=\"files\"}", 1).await;
    assert_eq!(instances(&server.url, "files").await, BTreeSet::from(["localhost:1".to_owned()]));

    // A server that cannot be asked keeps its targets; one that has none takes them away.
    set(&pages, "/sd", TEXT, "not now");
    tokio::time::sleep(std::time::Duration::from_millis(2500)).await;
    has("hits{job=\"server\"}", 1).await;
    set(&pages, "/sd", "application/json", "[]");
    has("hits{job=\"server\"}", 0).await;
    server.kill();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_starts_and_ends_targets_and_a_wrong_file_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let pages = Pages::default();
    let address = serve(&pages);
    set(&pages, "/metrics", TEXT, "hits 1\n");
    let job = |name: &str, more: &str| {
        format!("- job_name: {name}\n  static_configs: [{{targets: ['{address}']}}]\n{more}")
    };
    let file = |jobs: &[String]| {
        format!("global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n{}", jobs.concat())
    };
    let server = start(dir.path(), &file(&[job("kept", ""), job("gone", "")]), &["--enable-lifecycle"]);
    let has = async |promql: &str, count: usize| {
        let promql = promql.to_owned();
        poll(&promql, async || Some(query(&server.url, &promql).await).filter(|found| found.len() == count))
            .await
    };
    has("hits", 2).await;
    let reload = async || {
        let answer = client().post(format!("{}/-/reload", server.url)).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let path = dir.path().join("prometheus.yml");
    let new = file(&[
        job("kept", "  metric_relabel_configs: [{target_label: a, replacement: b}]\n"),
        job("new", ""),
    ]);
    std::fs::write(&path, new).unwrap();
    assert_eq!(reload().await, (200, String::new()));
    has("hits{job=\"gone\"}", 0).await;
    has("hits{job=\"new\"}", 1).await;
    has("hits{job=\"kept\",a=\"b\"}", 1).await;
    let (_, shown) = get(&format!("{}/api/v1/status/config", server.url)).await;
    assert!(shown["data"]["yaml"].as_str().unwrap().contains("replacement"), "{shown}");

    std::fs::write(&path, "scrape_configs: [{job_name: x, scheme: ftp}]").unwrap();
    let (status, text) = reload().await;
    assert!(status == 500 && text.contains("neither http nor https"), "{status} {text}");
    let (_, info) = get(&format!("{}/api/v1/status/runtimeinfo", server.url)).await;
    assert_eq!(info["data"]["reloadConfigSuccess"], false);
    assert_eq!(instances(&server.url, "new").await.len(), 1);

    std::fs::write(&path, format!("rule_files: []\n{}", file(&[job("new", "")]))).unwrap();
    let hangup = std::process::Command::new("kill").args(["-HUP", &server.child.id().to_string()]).status();
    assert!(hangup.unwrap().success());
    poll("the reload by a signal", async || instances(&server.url, "kept").await.is_empty().then_some(()))
        .await;
    server.kill();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_and_redirects_fail_a_scrape_and_say_why() {
    let dir = tempfile::tempdir().unwrap();
    let pages = Pages::default();
    let address = serve(&pages);
    set(&pages, "/many", TEXT, "a{b=\"c\"} 1\na{b=\"d\"} 2\n");
    set(&pages, "/long", TEXT, &"a 1\n".repeat(1000));
    set(&pages, "/line", TEXT, &"a".repeat(5 << 20));
    set(&pages, "/none", "", "a 1\n");
    set(&pages, "/metadata", "redirect", "http://169.254.169.254/latest");
    set(&pages, "/file", "redirect", "file:///etc/passwd");
    set(&pages, "/twice", TEXT, "a 1\na 2\n");
    let job = |name: &str, more: &str| {
        format!(
            "- {{job_name: {name}, metrics_path: /{name}, static_configs: [{{targets: ['{address}']}}], {more}}}\n"
        )
    };
    let failures = dir.path().join("failures.json");
    let config = [
        "global: {scrape_interval: 1s, scrape_timeout: 1s}\nscrape_configs:\n".to_owned(),
        job("many", &format!("sample_limit: 1, scrape_failure_log_file: '{}'", failures.display())),
        job("long", "body_size_limit: 1KB, extra_scrape_metrics: true"),
        job("line", ""),
        job("none", ""),
        job("metadata", ""),
        job("file", ""),
        job("twice", "label_limit: 3"),
    ];
    let server = start(dir.path(), &config.concat(), &[]);
    let error = async |name: &str| {
        poll(name, async || {
            let (_, body) = get(&format!("{}/api/v1/targets?scrapePool={name}", server.url)).await;
            let one = &body["data"]["activeTargets"][0];
            (one["health"] == "down").then(|| one["lastError"].as_str().unwrap().to_owned())
        })
        .await
    };
    assert_eq!(error("many").await, "sample limit exceeded");
    assert!(error("long").await.starts_with("body size limit exceeded"));
    assert!(error("line").await.starts_with("a line has more than"));
    assert!(error("none").await.contains("blank Content-Type"));
    assert!(error("metadata").await.contains("metadata address"));
    assert!(error("file").await.contains("neither http nor https"));
    let value = async |promql: &str| {
        poll(promql, async || query(&server.url, promql).await.pop().map(|found| found.1)).await
    };
    assert_eq!(value("scrape_samples_scraped{job=\"many\"}").await, "2");
    assert_eq!(value("scrape_body_size_bytes{job=\"long\"}").await, "-1");
    assert_eq!(value("a{job=\"twice\"}").await, "1", "the first one wins");
    assert_eq!(value("scrape_samples_post_metric_relabeling{job=\"twice\"}").await, "2");
    let logged = std::fs::read_to_string(failures).unwrap();
    let line: Value = serde_json::from_str(logged.lines().next().unwrap()).unwrap();
    assert_eq!((&line["job_name"], &line["msg"]), (&"many".into(), &"sample limit exceeded".into()));
    server.kill();
}
