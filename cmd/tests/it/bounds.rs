//! The agent within bounds: pages at the same time in little memory, files with little of a processor.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use crate::support::{Server, binnacle, client, free_port, get, poll};

/// An agent with this configuration.
async fn collect(dir: &Path, config: &str) -> Server {
    let file = dir.join("c.yml");
    std::fs::write(&file, config).unwrap();
    let listen = format!("127.0.0.1:{}", free_port());
    let mut command = binnacle();
    command
        .args(["collect", "--listen", &listen, "--config"])
        .arg(file)
        .arg("--state")
        .arg(dir.join("state"));
    let agent = Server { child: command.spawn().unwrap(), url: format!("http://{listen}") };
    poll("the agent", async || metric(&agent, "binnacle_collector_log_files_open ").await).await;
    agent
}

/// Answers every request with `bytes` of a page that has one series.
fn pages(bytes: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut page = "# as much as a page of many series, and none of them\n".repeat(bytes / 53);
    page.push_str("a 1\n");
    let page = Arc::new(page);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let page = Arc::clone(&page);
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut line = String::new();
                while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
                    line.clear();
                }
                let head = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                    page.len()
                );
                // Whoever asked may be gone.
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(page.as_bytes()));
            });
        }
    });
    address
}

/// The most memory that a process has had.
fn peak(server: &Server) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", server.child.id())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Seconds of processors that a process took.
fn used(server: &Server) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{}/stat", server.child.id())).unwrap();
    let fields: Vec<&str> = text.rsplit_once(") ").unwrap().1.split(' ').collect();
    // Linux counts in hundredths, whatever its own clock does.
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

async fn metric(server: &Server, name: &str) -> Option<f64> {
    let page = client().get(format!("{}/metrics", server.url)).send().await.ok()?.text().await.ok()?;
    page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

#[tokio::test]
async fn many_large_pages_at_once_are_scraped_in_little_memory() {
    let dir = tempfile::tempdir().unwrap();
    let store = Server::start(&dir.path().join("data"), &[]);
    let address = pages(12 << 20);
    let mut targets = String::new();
    for at in 0..40 {
        write!(targets, "'{address}/{at}', ").unwrap();
    }
    // Paths are no part of an address: a label leads there.
    let config = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s}}
store: {{url: '{}'}}
collector: {{memory: 128MB}}
scrape_configs:
- job_name: large
  scrape_timeout: 20s
  scrape_interval: 20s
  static_configs: [{{targets: [{targets}]}}]
  relabel_configs:
  - {{source_labels: [__address__], regex: '[^/]*(/.*)', target_label: __metrics_path__}}
  - {{source_labels: [__address__], target_label: instance}}
  - {{source_labels: [__address__], regex: '([^/]*)/.*', target_label: __address__}}
",
        store.url
    );
    let agent = collect(dir.path(), &config).await;
    poll("all targets to be up", async || {
        let (_, answer) = get(&format!("{}/api/v1/targets", agent.url)).await;
        let targets = answer["data"]["activeTargets"].as_array()?;
        let up = |target: &&serde_json::Value| target["labels"]["job"] == "large" && target["health"] == "up";
        (targets.iter().filter(up).count() == 40).then_some(())
    })
    .await;
    assert!(peak(&agent) <= 128 << 20, "{} MiB", peak(&agent) >> 20);
}

#[tokio::test]
async fn files_wait_for_their_share_of_the_processors_and_arrive_whole() {
    let dir = tempfile::tempdir().unwrap();
    let store = Server::start(&dir.path().join("data"), &[]);
    let logs = dir.path().join("logs");
    std::fs::create_dir(&logs).unwrap();
    let count = 400_000;
    let mut text = String::new();
    for at in 0..count {
        writeln!(text, "level=info msg=\"request {at} was answered\" path=/cart/{at} duration={at}ms")
            .unwrap();
    }
    std::fs::write(logs.join("a.log"), text).unwrap();
    let config = format!(
        "store: {{url: '{}'}}\ncollector: {{cpu: 0.1}}\nlogs: [{{files: logs/*.log, service: s}}]\n",
        store.url
    );
    let began = Instant::now();
    let agent = collect(dir.path(), &config).await;
    poll("all lines", async || {
        let (_, found) = get(&format!("{}/api/logs/search?limit=1&q=service:s", store.url)).await;
        (found["data"]["total"] == count).then_some(())
    })
    .await;
    let (took, elapsed) = (used(&agent), began.elapsed());
    assert!(
        metric(&agent, "binnacle_collector_log_turns_put_off_total ").await.is_some_and(|count| count > 0.0)
    );
    // The start of the process is not waited for.
    let most = 0.1 * elapsed.as_secs_f64() * 1.5 + 0.4;
    assert!(took <= most, "{took} s of a processor in {elapsed:?}, not {most}");
}
