//! One load run of the real process: samples/s, lines/s, bytes on disk, query times, peak memory.
//!
//! `BENCH_LINES` and `BENCH_SERIES` change the size: a million lines and ten thousand series by default. It prints
//! figures and asserts none.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use binnacle_collector::intake::encode_write_request;
use binnacle_model::push::{FileBatch, LogPush, Pair, PushEntry, PushField};
use binnacle_model::{Labels, Sample, Timestamp};
use prost::Message;

const SAMPLES_PER_SERIES: u64 = 240;
const STEP_MS: i64 = 15_000;
const LINES_PER_PUSH: u64 = 2_000;
const NEEDLE: &str = "needle7f3a9c1e5b";
const REPEATS: usize = 50;

fn size(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[allow(clippy::disallowed_methods, reason = "the server under load runs on the machine's clock")]
fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

fn start(data: &Path) -> (Child, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_binnacle"))
        .args(["serve", "--listen", "127.0.0.1:0", "--log-level", "error", "--data"])
        .arg(data)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the server starts");
    let mut line = String::new();
    let out = child.stdout.take().expect("its output is a pipe");
    BufReader::new(out).read_line(&mut line).expect("it says where it is");
    let url = line.trim().rsplit(' ').next().unwrap_or_default().to_owned();
    (child, url)
}

fn main() {
    // `cargo test` runs benches with this flag to see that they start.
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir().expect("a folder for the data");
    let (mut server, url) = start(dir.path());
    runtime.block_on(run(&url, server.id(), dir.path()));
    let _ = server.kill();
    let _ = server.wait();
}

async fn run(url: &str, pid: u32, dir: &Path) {
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().expect("a client");
    let start_ms = now_ms() - SAMPLES_PER_SERIES as i64 * STEP_MS;
    let before = usage(dir);
    push_samples(&client, url, start_ms).await;
    let after_samples = usage(dir);
    let raw = push_lines(&client, url, start_ms).await;
    // The log index commits each second.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let after_lines = usage(dir);
    let series = size("BENCH_SERIES", 10_000);
    println!(
        "metrics on disk (WAL and blocks)   {:.1} bytes per sample",
        (after_samples - before) as f64 / (series * SAMPLES_PER_SERIES) as f64
    );
    println!(
        "logs on disk (WAL and index)       {:.2} bytes per byte of message",
        (after_lines - after_samples) as f64 / raw as f64
    );
    let end = now_ms() / 1000;
    let range = format!("start={}&end={end}&step=60", end - 3600);
    for (name, path) in [
        ("instant sum by (job)", "/api/v1/query?query=sum%20by%20(job)(bench_metric)".to_owned()),
        (
            "range rate, one pod",
            format!("/api/v1/query_range?query=rate(bench_metric%7Bpod%3D%22p7%22%7D%5B5m%5D)&{range}"),
        ),
        (
            "range sum(rate) of all",
            format!("/api/v1/query_range?query=sum(rate(bench_metric%5B5m%5D))&{range}"),
        ),
        ("unique word in all lines", format!("/api/logs/search?q={NEEDLE}&start=now-2h")),
        ("frequent word, newest 100", "/api/logs/search?q=accepted&start=now-2h&limit=100".to_owned()),
        ("histogram of all", "/api/logs/histogram?q=&start=now-2h&bars=90".to_owned()),
    ] {
        let (p50, p99) = time(&client, &format!("{url}{path}")).await;
        println!("{name:<34} p50 {p50:>8.1} ms   p99 {p99:>8.1} ms");
    }
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("unknown");
    println!("peak memory                        {}", peak.trim());
}

async fn push_samples(client: &reqwest::Client, url: &str, start_ms: i64) {
    let series = size("BENCH_SERIES", 10_000);
    let labels: Vec<Labels> = (0..series)
        .map(|number| {
            Labels::new([
                ("__name__", "bench_metric".to_owned()),
                ("job", format!("j{}", number % 20)),
                ("pod", format!("p{}", number % 500)),
                ("instance", format!("10.0.{}.{}:9100", number / 250, number % 250)),
            ])
            .expect("good labels")
        })
        .collect();
    let began = Instant::now();
    for step in 0..SAMPLES_PER_SERIES {
        let timestamp = Timestamp(start_ms + step as i64 * STEP_MS);
        for chunk in labels.chunks(2_000) {
            let samples: Vec<[Sample; 1]> = (0..chunk.len())
                .map(|at| [Sample { timestamp, value: (step * 17 + at as u64 % 13) as f64 }])
                .collect();
            let body = encode_write_request(chunk.iter().zip(samples.iter().map(|one| &one[..])));
            let body = snap::raw::Encoder::new().compress_vec(&body).expect("snappy");
            let sent = client.post(format!("{url}/api/v1/write")).body(body).send().await;
            assert!(sent.is_ok_and(|sent| sent.status().is_success()), "a write was refused");
        }
    }
    let rate = (series * SAMPLES_PER_SERIES) as f64 / began.elapsed().as_secs_f64();
    println!("samples, one sender, each synced   {rate:.0} per second");
}

/// Answers the bytes of all messages.
async fn push_lines(client: &reqwest::Client, url: &str, start_ms: i64) -> u64 {
    let lines = size("BENCH_LINES", 1_000_000);
    let (began, mut raw) = (Instant::now(), 0);
    let mut first = 0;
    while first < lines {
        let to = (first + LINES_PER_PUSH).min(lines);
        let entries: Vec<PushEntry> = (first..to).map(|line| entry(line, lines, start_ms)).collect();
        raw += entries.iter().map(|entry| entry.message.len() as u64).sum::<u64>();
        let stream = [("namespace", "shop"), ("pod", "payment-0"), ("service", "payment")];
        let stream = stream.map(|(name, value)| Pair { name: name.into(), value: value.into() });
        let batch = FileBatch {
            file: "bench".into(),
            from: first,
            to,
            stream: stream.to_vec(),
            entries,
            ..FileBatch::default()
        };
        let body = LogPush { batches: vec![batch] }.encode_to_vec();
        let body = snap::raw::Encoder::new().compress_vec(&body).expect("snappy");
        let request = client.post(format!("{url}/api/collect/logs")).header("content-encoding", "snappy");
        let sent = request.body(body).send().await.expect("the server answers");
        if sent.status().as_u16() == 429 {
            // The index is behind; the server asks to wait.
            tokio::time::sleep(Duration::from_millis(200)).await;
            continue;
        }
        assert!(sent.status().is_success(), "a push was refused: {}", sent.status());
        first = to;
    }
    let rate = lines as f64 / began.elapsed().as_secs_f64();
    println!("lines, one sender, each synced     {rate:.0} per second");
    raw
}

fn entry(line: u64, lines: u64, start_ms: i64) -> PushEntry {
    let needle = if line == lines / 3 { NEEDLE } else { "-" };
    let trace = line.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let message = format!(
        "{{\"level\":\"info\",\"msg\":\"charge accepted\",\"order\":{line},\"latency_ms\":{},\"mark\":\"{needle}\",\"trace_id\":\"{trace:016x}\"}}",
        line % 97
    );
    let span = SAMPLES_PER_SERIES as i64 * STEP_MS;
    PushEntry {
        time_ns: (start_ms + span * line as i64 / lines as i64) * 1_000_000,
        offset: line,
        message: message.into_bytes(),
        level: "info".into(),
        iostream: "stdout".into(),
        fields: vec![
            PushField::new("order".into(), binnacle_model::log::FieldValue::Int(line as i64)),
            PushField::new("msg".into(), binnacle_model::log::FieldValue::Text("charge accepted".into())),
        ],
        shared: 0,
    }
}

/// Median and slowest of some repeats, in milliseconds.
async fn time(client: &reqwest::Client, url: &str) -> (f64, f64) {
    let mut took = Vec::with_capacity(REPEATS);
    for _ in 0..REPEATS {
        let began = Instant::now();
        let response = client.get(url).send().await.expect("the server answers");
        assert!(response.status().is_success(), "{url}: {}", response.status());
        response.bytes().await.expect("a whole answer");
        took.push(began.elapsed().as_secs_f64() * 1000.0);
    }
    took.sort_by(f64::total_cmp);
    (took[REPEATS / 2], took[REPEATS * 99 / 100])
}

fn usage(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries
        .filter_map(Result::ok)
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => usage(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}
