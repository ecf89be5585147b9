//! Killed again and again under load of both kinds, the server keeps what it acknowledged, once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use binnacle_collector::intake::encode_write_request;
use binnacle_model::push::{FileBatch, LogPush, Pair, PushEntry};
use binnacle_model::{Labels, Sample, Timestamp};
use prost::Message;

use crate::support::{Server, client, get, poll};

const KILLS: u64 = 20;
const LINES_PER_PUSH: u64 = 20;

/// What the server said that it has.
#[derive(Default)]
struct Acked {
    samples: AtomicU64,
    lines: AtomicU64,
}

#[allow(clippy::disallowed_methods, reason = "the server under test runs on the machine's clock")]
fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

/// Writes one sample after the other; goes on to the next only when one is acknowledged.
async fn write_samples(url: String, start_ms: i64, acked: Arc<Acked>, stop: Arc<AtomicBool>) {
    let client = client();
    let labels = Labels::new([("__name__", "crash_test"), ("job", "x")]).unwrap();
    while !stop.load(Ordering::Relaxed) {
        let next = acked.samples.load(Ordering::Relaxed);
        let sample = Sample { timestamp: Timestamp(start_ms + next as i64), value: next as f64 };
        let body = encode_write_request([(&labels, &[sample][..])]);
        let body = snap::raw::Encoder::new().compress_vec(&body).unwrap();
        let sent = client.post(format!("{url}/api/v1/write")).body(body).send().await;
        match sent {
            Ok(response) if response.status().is_success() => {
                acked.samples.store(next + 1, Ordering::Relaxed);
            }
            // Down: the same sample again, in a moment.
            _ => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

async fn write_lines(url: String, start_ms: i64, acked: Arc<Acked>, stop: Arc<AtomicBool>) {
    let client = client();
    while !stop.load(Ordering::Relaxed) {
        let first = acked.lines.load(Ordering::Relaxed);
        let entry = |line: u64| PushEntry {
            time_ns: (start_ms + line as i64) * 1_000_000,
            offset: line,
            message: format!("crash line {line} end").into_bytes(),
            ..PushEntry::default()
        };
        let push = LogPush {
            batches: vec![FileBatch {
                file: "crash-file".to_owned(),
                from: first,
                to: first + LINES_PER_PUSH,
                stream: vec![Pair { name: "service".into(), value: "crash".into() }],
                entries: (first..first + LINES_PER_PUSH).map(entry).collect(),
                ..FileBatch::default()
            }],
        };
        let sent = client.post(format!("{url}/api/collect/logs")).body(push.encode_to_vec()).send().await;
        match sent {
            Ok(response) if response.status().is_success() => {
                acked.lines.store(first + LINES_PER_PUSH, Ordering::Relaxed);
            }
            _ => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

async fn stored_samples(url: &str, start_ms: i64) -> Vec<(i64, String)> {
    // A quick server takes samples faster than the clock goes: some lie a few seconds ahead.
    let time = start_ms / 1000 + 300;
    let (status, body) = get(&format!("{url}/api/v1/query?query=crash_test%5B1h%5D&time={time}")).await;
    assert_eq!(status, 200, "{body}");
    let values = body["data"]["result"][0]["values"].as_array().cloned().unwrap_or_default();
    let pair = |pair: &serde_json::Value| {
        let at = (pair[0].as_f64().unwrap() * 1000.0).round() as i64 - start_ms;
        (at, pair[1].as_str().unwrap().to_owned())
    };
    values.iter().map(pair).collect()
}

/// How often each line is there.
async fn stored_lines(url: &str, start_ms: i64) -> BTreeMap<String, u32> {
    let mut found = BTreeMap::new();
    let mut cursor = String::new();
    loop {
        let (start, end) = (start_ms * 1_000_000, (start_ms + 3_600_000) * 1_000_000);
        let url = format!(
            "{url}/api/logs/search?q=service:crash&start={start}&end={end}&limit=5000&cursor={cursor}"
        );
        let (status, body) = get(&url).await;
        assert_eq!(status, 200, "{body}");
        for entry in body["data"]["entries"].as_array().unwrap() {
            *found.entry(entry["message"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        match body["data"]["cursor"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => return found,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_kills_under_load_lose_nothing_and_double_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &[]);
    let url = server.url.clone();
    let listen = url.trim_start_matches("http://").to_owned();
    let start_ms = now_ms();
    let acked = Arc::new(Acked::default());
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = tokio::task::JoinSet::new();
    writers.spawn(write_samples(url.clone(), start_ms, acked.clone(), stop.clone()));
    writers.spawn(write_lines(url.clone(), start_ms, acked.clone(), stop.clone()));
    for kill in 0..KILLS {
        // A different moment in each round: in a sync, in a commit, in a replay.
        let wait = 150 + kill.wrapping_mul(7919) % 400;
        tokio::time::sleep(Duration::from_millis(wait)).await;
        server.kill();
        server = Server::start_on(dir.path(), &listen, &[]);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    stop.store(true, Ordering::Relaxed);
    writers.join_all().await;
    let (samples, lines) = (acked.samples.load(Ordering::Relaxed), acked.lines.load(Ordering::Relaxed));
    println!("{KILLS} kills, {samples} samples and {lines} lines acknowledged");
    assert!(samples > 100 && lines > 1000, "too little load: {samples} samples, {lines} lines");

    // The sample on its way when a kill came may be there too; none may be missing or there twice.
    let stored = stored_samples(&url, start_ms).await;
    let want: Vec<(i64, String)> = (0..stored.len() as i64).map(|n| (n, n.to_string())).collect();
    assert!(stored.len() as u64 >= samples, "{} of {samples} samples", stored.len());
    assert_eq!(stored, want);
    let last = format!("crash line {} end", lines - 1);
    let found = poll("the last line", async || {
        let found = stored_lines(&url, start_ms).await;
        found.contains_key(&last).then_some(found)
    })
    .await;
    for line in 0..lines {
        assert_eq!(found.get(&format!("crash line {line} end")), Some(&1), "line {line}");
    }
    assert!(found.values().all(|count| *count == 1), "a line is there twice");
}
