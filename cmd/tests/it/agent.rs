//! The agent and our own store: what it is called, who stands between them, and a store that comes late.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::Value;

use crate::support::{Server, binnacle, free_port, get, poll};

/// An agent in whose environment nothing says which node this is.
fn agent(dir: &Path, config: &str) -> Command {
    let file = dir.join("c.yml");
    std::fs::write(&file, config).unwrap();
    let mut command = binnacle();
    command.args(["collect", "--listen", "127.0.0.1:0", "--config"]).arg(file);
    command.arg("--state").arg(dir.join("state"));
    command.env_remove("NODE_NAME").env_remove("KUBERNETES_SERVICE_HOST");
    command
}

fn started(mut command: Command) -> Server {
    Server { child: command.spawn().unwrap(), url: String::new() }
}

/// Reads a request to its end.
fn read_request(stream: &TcpStream) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut line, mut length) = (String::new(), 0);
    while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        line.clear();
    }
    // Whoever asked may be gone.
    let _ = reader.take(length).read_to_end(&mut Vec::new());
}

fn answer(mut stream: TcpStream, head: &str, body: &str) {
    read_request(&stream);
    let text =
        format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
    let _ = stream.write_all(text.as_bytes());
}

/// A target with this page; how often it was scraped.
fn target(page: &'static str) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            answer(stream, "200 OK\r\ncontent-type: application/openmetrics-text; version=1.0.0", page);
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    (address, count)
}

/// Stands before `store`, and lets through what comes once it is `open`. Answers how often it did not.
fn proxy(store: SocketAddr, open: Arc<AtomicBool>) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            if !open.load(Ordering::Relaxed) {
                answer(stream, "400 Bad Request", "Client sent an HTTP request to an HTTPS server.\n");
                counted.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let through = TcpStream::connect(store).unwrap();
            for (mut from, mut to) in
                [(stream.try_clone().unwrap(), through.try_clone().unwrap()), (through, stream)]
            {
                std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            }
        }
    });
    (address, count)
}

async fn messages(store: &Server) -> Vec<String> {
    let (_, found) = get(&format!("{}/api/logs/search?limit=100&q=service:s", store.url)).await;
    let entries = found["data"]["entries"].as_array().cloned().unwrap_or_default();
    let mut found: Vec<String> =
        entries.iter().map(|entry| entry["message"].as_str().unwrap_or_default().to_owned()).collect();
    found.sort();
    found
}

#[tokio::test]
async fn a_node_has_one_name_in_every_pod_of_the_agent() {
    let dir = tempfile::tempdir().unwrap();
    let store = Server::start(&dir.path().join("data"), &[]);
    std::fs::write(dir.path().join("a.log"), "one\ntwo\n").unwrap();
    let config = format!("store: {{url: '{}'}}\nlogs: [{{files: '*.log', service: s}}]\n", store.url);

    let mut nameless = agent(dir.path(), &config);
    nameless.env("KUBERNETES_SERVICE_HOST", "127.0.0.1").stderr(Stdio::piped());
    let refused = nameless.output().unwrap();
    let reason = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && reason.contains("NODE_NAME"), "{reason}");

    let named = || {
        let mut command = agent(dir.path(), &config);
        command.env("NODE_NAME", "node-1").env("KUBERNETES_SERVICE_HOST", "127.0.0.1");
        started(command)
    };
    let first = named();
    poll("two lines", async || (messages(&store).await == ["one", "two"]).then_some(())).await;
    first.kill();
    // As if its directory had been the pod's.
    let state = dir.path().join("state");
    if state.exists() {
        std::fs::remove_dir_all(state).unwrap();
    }
    let _second = named();
    std::fs::OpenOptions::new()
        .append(true)
        .open(dir.path().join("a.log"))
        .unwrap()
        .write_all(b"three\n")
        .unwrap();
    poll("the third", async || {
        let found = messages(&store).await;
        found.contains(&"three".to_owned()).then(|| assert_eq!(found, ["one", "three", "two"]))
    })
    .await;
    let (_, found) = get(&format!("{}/api/logs/search?limit=1&q=node:node-1", store.url)).await;
    assert_eq!(found["data"]["total"], 3);
}

#[tokio::test]
async fn what_a_proxy_refuses_is_kept_for_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = Server::start(&dir.path().join("data"), &[]);
    let open = Arc::new(AtomicBool::new(false));
    let address = store.url.trim_start_matches("http://").parse().unwrap();
    let (proxy, refused) = proxy(address, Arc::clone(&open));
    std::fs::write(dir.path().join("a.log"), "one\ntwo\n").unwrap();
    let config =
        format!("store: {{url: 'http://{proxy}', node: n}}\nlogs: [{{files: '*.log', service: s}}]\n");
    let _agent = started(agent(dir.path(), &config));
    poll("refusals", async || (refused.load(Ordering::Relaxed) >= 3).then_some(())).await;
    open.store(true, Ordering::Relaxed);
    poll("both lines", async || (messages(&store).await == ["one", "two"]).then_some(())).await;
}

/// Exemplars of `a_total`.
async fn exemplars(store: &Server) -> Value {
    let url = format!("{}/api/v1/query_exemplars?query=a_total&start=0&end=9999999999", store.url);
    get(&url).await.1["data"].clone()
}

#[tokio::test]
async fn what_is_scraped_while_the_store_is_away_waits_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let page = "# TYPE a counter\n# HELP a What it is.\na_total 1 # {trace_id=\"00f1\"} 0.5\n# EOF\n";
    let (target, scraped) = target(page);
    let store = format!("127.0.0.1:{}", free_port());
    let config = format!(
        "global: {{scrape_interval: 1s, external_labels: {{cluster: c}}}}
store: {{url: 'http://{store}', node: n}}
scrape_configs: [{{job_name: j, static_configs: [{{targets: ['{target}']}}]}}]
"
    );
    let _agent = started(agent(dir.path(), &config));
    poll("scrapes", async || (scraped.load(Ordering::Relaxed) >= 4).then_some(())).await;
    let before = scraped.load(Ordering::Relaxed);
    let store = Server::start_on(&dir.path().join("data"), &store, &[]);
    poll("samples", async || {
        let query = "count_over_time(a_total{job=\"j\",cluster=\"c\"}[1h])";
        let query: String = form_urlencoded::byte_serialize(query.as_bytes()).collect();
        let (_, answer) = get(&format!("{}/api/v1/query?query={query}", store.url)).await;
        let count: usize = answer["data"]["result"][0]["value"][1].as_str()?.parse().ok()?;
        // Of those before the store was there, none is missing.
        (count >= before).then_some(())
    })
    .await;
    let found = poll("an exemplar", async || {
        let found = exemplars(&store).await;
        found[0]["exemplars"][0]["labels"]["trace_id"].as_str().map(|_| found.clone())
    })
    .await;
    assert_eq!(found[0]["exemplars"][0]["labels"]["trace_id"], "00f1");
}
