//! What one server stores arrives at another, whoever of them is killed meanwhile.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use binnacle_collector::intake::encode_write_request;
use binnacle_model::{Labels, STALE_NAN, Sample, Samples, Timestamp};
use serde_json::Value;

use crate::support::{Server, client, free_port, get, poll, prometheus};

const V1: &str = "prometheus.WriteRequest";
const V2: &str = "io.prometheus.write.v2.Request";

#[allow(clippy::disallowed_methods, reason = "the server under test runs on the machine's clock")]
fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

/// A configuration that sends to `url`, quickly.
fn config(dir: &Path, url: &str, more: &str) -> PathBuf {
    let path = dir.join("prometheus.yml");
    let text = format!(
        "global: {{external_labels: {{cluster: a, job: never}}}}\n\
         remote_write:\n- url: '{url}/api/v1/write'\n  name: peer\n  \
         queue_config: {{batch_send_deadline: 100ms, max_samples_per_send: 70, max_backoff: 200ms}}\n  {more}\n"
    );
    std::fs::write(&path, text).unwrap();
    path
}

fn start(dir: &Path, config: &Path) -> Server {
    Server::start(&dir.join("a"), &["--config", config.to_str().unwrap()])
}

/// A sample for each of five series at `start_ms` and so many seconds.
async fn push(url: &str, start_ms: i64, seconds: std::ops::Range<i64>) {
    let mut series = Vec::new();
    for at in 0..5 {
        let instance = format!("i{at}");
        let labels =
            Labels::new([("__name__", "sent"), ("job", "x"), ("instance", instance.as_str())]).unwrap();
        let value = |second: i64| match (second % 50, second % 7) {
            (49, _) => STALE_NAN,
            (_, 0) => f64::from_bits(0x3ff0_0000_0000_0001 + second as u64),
            _ => second as f64,
        };
        let sample =
            |second: i64| Sample { timestamp: Timestamp(start_ms + second * 1000), value: value(second) };
        series.push((labels, seconds.clone().map(sample).collect::<Vec<_>>()));
    }
    let body = encode_write_request(series.iter().map(|(labels, samples)| (labels, &samples[..])));
    let body = snap::raw::Encoder::new().compress_vec(&body).unwrap();
    let sent = client().post(format!("{url}/api/v1/write")).body(body).send().await.unwrap();
    assert!(sent.status().is_success(), "{sent:?}");
}

/// Each series with what it has, and a digest of where it was stale.
async fn samples(url: &str, query: &str, time_ms: i64) -> BTreeMap<String, Value> {
    let params = [("query", query.to_owned()), ("time", format!("{}", time_ms as f64 / 1000.0))];
    let url = reqwest::Url::parse_with_params(&format!("{url}/api/v1/query"), params).unwrap();
    let Ok(response) = client().get(url).send().await else { return BTreeMap::new() };
    let body: Value = response.json().await.unwrap_or_default();
    let result = body["data"]["result"].as_array().cloned().unwrap_or_default();
    let name = |one: &Value| format!("{} {}", one["metric"]["instance"], one["metric"]["__name__"]);
    result.iter().map(|one| (name(one), one["values"].clone())).collect()
}

fn count(of: &BTreeMap<String, Value>) -> usize {
    of.values().map(|values| values.as_array().map_or(0, Vec::len)).sum()
}

/// Waits until `b` has what `a` has, exactly, also where series are stale.
async fn arrived(a: &str, b: &str, start_ms: i64, least: usize) {
    let end = start_ms + 600_000;
    let want = samples(a, "sent{job=\"x\"}[1h]", end).await;
    assert!(count(&want) >= least, "{} of {least}", count(&want));
    let mut last = 0;
    poll(&format!("{} samples", count(&want)), async || {
        let found = samples(b, "sent{job=\"x\",cluster=\"a\"}[1h]", end).await;
        if count(&found) != last {
            last = count(&found);
            println!("{last} of {} samples are there", count(&want));
        }
        (found == want).then_some(())
    })
    .await;
    // Stale markers are not in ranges; they show as gaps of an instant query.
    for second in [48, 49, 50] {
        let at = format!("count(sent{{job=\"x\"}} @ {}) or vector(0)", start_ms / 1000 + second);
        let value = |body: Value| body["data"]["result"][0]["value"][1].clone();
        let ask = async |url: &str| {
            let url =
                reqwest::Url::parse_with_params(&format!("{url}/api/v1/query"), [("query", &at)]).unwrap();
            value(get(url.as_str()).await.1)
        };
        assert_eq!(ask(a).await, ask(b).await, "{at}");
    }
}

async fn metric(url: &str, name: &str) -> f64 {
    let page = client().get(format!("{url}/metrics")).send().await.unwrap().text().await.unwrap();
    let lines =
        page.lines().filter(|line| line.starts_with(&format!("binnacle_prometheus_remote_storage_{name}{{")));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// Either end is killed under way, and nothing is missing.
async fn nothing_is_missing(message: &str) {
    let dir = tempfile::tempdir().unwrap();
    let listen = format!("127.0.0.1:{}", free_port());
    let b_url = format!("http://{listen}");
    let config = config(dir.path(), &b_url, &format!("protobuf_message: {message}"));
    // On a whole second, so that instants name samples.
    let start_ms = (now_ms() / 1000 - 1000) * 1000;
    let a = start(dir.path(), &config);
    // Nobody is there yet.
    push(&a.url, start_ms, 0..60).await;
    let b = Server::start_on(&dir.path().join("b"), &listen, &[]);
    arrived(&a.url, &b.url, start_ms, 290).await;
    b.kill();
    push(&a.url, start_ms, 60..120).await;
    a.kill();
    // What was stored before the kill was never sent.
    let a = start(dir.path(), &config);
    push(&a.url, start_ms, 120..180).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let b = Server::start_on(&dir.path().join("b"), &listen, &[]);
    arrived(&a.url, &b.url, start_ms, 880).await;
    // Killed again and again while it sends.
    let mut a = a;
    for round in 3..8 {
        push(&a.url, start_ms, round * 60..(round + 1) * 60).await;
        tokio::time::sleep(Duration::from_millis(150)).await;
        a.kill();
        a = start(dir.path(), &config);
    }
    arrived(&a.url, &b.url, start_ms, 2340).await;
    assert_eq!(metric(&a.url, "samples_failed_total").await, 0.0);
    assert_eq!(metric(&a.url, "records_lost_total").await, 0.0);
    assert_eq!(metric(&a.url, "shards").await, 1.0);
    poll("pending samples", async || (metric(&a.url, "samples_pending").await == 0.0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn version_1_survives_kills_of_either_end() {
    nothing_is_missing(V1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn version_2_survives_kills_of_either_end() {
    nothing_is_missing(V2).await;
}

fn terminate(server: &mut Server) {
    let pid = server.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert!(server.child.wait().unwrap().success());
}

/// What is stored just before a stop is delivered by it, and not sent again by the next start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_delivers_what_is_stored_and_rules_change_it() {
    let dir = tempfile::tempdir().unwrap();
    let b = Server::start(&dir.path().join("b"), &[]);
    let rules = "write_relabel_configs: [{source_labels: [instance], regex: 'i[34]', action: drop}, \
                 {source_labels: [__name__], target_label: __name__, replacement: 'far_$1'}]";
    let config = config(dir.path(), &b.url, rules);
    // A batch would wait for long.
    let text = std::fs::read_to_string(&config)
        .unwrap()
        .replace("batch_send_deadline: 100ms", "batch_send_deadline: 1h");
    std::fs::write(&config, text.replace("max_samples_per_send: 70", "max_samples_per_send: 7000")).unwrap();
    let mut a = start(dir.path(), &config);
    let start_ms = (now_ms() / 1000 - 1000) * 1000;
    push(&a.url, start_ms, 0..49).await;
    terminate(&mut a);
    let found = samples(&b.url, "far_sent[1h]", start_ms + 600_000).await;
    assert_eq!((found.len(), count(&found)), (3, 3 * 49));
    let a = start(dir.path(), &config);
    push(&a.url, start_ms, 50..51).await;
    poll("the new samples alone", async || (metric(&a.url, "samples_pending").await == 3.0).then_some(()))
        .await;
    assert_eq!(metric(&a.url, "samples_dropped_total").await, 2.0);
}

/// Where the receiver is down, a stop does not wait for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_does_not_wait_for_a_receiver_that_is_down() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("http://127.0.0.1:{}", free_port());
    let config = config(dir.path(), &url, "");
    let mut a = start(dir.path(), &config);
    push(&a.url, (now_ms() / 1000 - 1000) * 1000, 0..50).await;
    poll("an attempt", async || (metric(&a.url, "samples_retried_total").await > 0.0).then_some(())).await;
    let since = std::time::Instant::now();
    terminate(&mut a);
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
}

/// A receiver that answers what it is told, in turn; the last answer goes on for ever.
fn receiver(answers: &'static [&'static str]) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut length, mut line, mut head) = (0, String::new(), String::new());
            while reader.read_line(&mut line).is_ok_and(|read| read > 0) && line.trim() != "" {
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                head.push_str(&line.to_ascii_lowercase());
                line.clear();
            }
            std::io::copy(&mut reader.take(length), &mut std::io::sink()).unwrap();
            for part in [
                "authorization: basic bwu6ahg=",
                "x-more: yes",
                "user-agent: binnacle/",
                "content-encoding: snappy",
            ] {
                assert!(head.contains(part), "{part} in {head}");
            }
            let at = count.fetch_add(1, Ordering::SeqCst);
            let answer = answers[at.min(answers.len() - 1)];
            let _ =
                write!(stream, "HTTP/1.1 {answer}\r\ncontent-length: 4\r\nconnection: close\r\n\r\nwhy\n");
        }
    });
    (url, seen)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_does_not_stop_the_queue_and_being_busy_does_not_lose() {
    let dir = tempfile::tempdir().unwrap();
    let answers =
        &["400 Bad Request", "503 Busy", "429 Slow\r\nretry-after: 1", "302 Found\r\nlocation: /", "200 OK"];
    let (url, seen) = receiver(answers);
    let more = "basic_auth: {username: me, password_file: pw}\n  headers: {X-More: 'yes'}\n  metadata_config: {send: false}";
    std::fs::write(dir.path().join("pw"), "hx\n").unwrap();
    let config = config(dir.path(), &url, more);
    let a = start(dir.path(), &config);
    let start_ms = (now_ms() / 1000 - 1000) * 1000;
    // 70 samples are a batch: refused; taken at the fourth attempt; taken.
    push(&a.url, start_ms, 0..14).await;
    poll("the first", async || (seen.load(Ordering::SeqCst) >= 1).then_some(())).await;
    push(&a.url, start_ms, 14..28).await;
    poll("the second", async || (seen.load(Ordering::SeqCst) >= 5).then_some(())).await;
    push(&a.url, start_ms, 28..56).await;
    poll("all", async || {
        let newest = metric(&a.url, "queue_highest_sent_timestamp_seconds").await;
        (newest >= (start_ms / 1000 + 55) as f64).then_some(())
    })
    .await;
    assert_eq!(metric(&a.url, "samples_retried_total").await, 210.0);
    assert_eq!(metric(&a.url, "samples_failed_total").await, 70.0);
    let (_, shown) = get(&format!("{}/api/v1/status/config", a.url)).await;
    assert!(!shown.to_string().contains("hx"), "{shown}");
}

/// Prometheus takes both messages, and answers as we do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_takes_it() {
    for message in [V1, V2] {
        let dir = tempfile::tempdir().unwrap();
        let file = "storage: {tsdb: {out_of_order_time_window: 1h}}\n";
        let Some((_peer, url)) = prometheus(dir.path(), file) else { return };
        let more = format!(
            "protobuf_message: {message}\n  send_native_histograms: true\n  metadata_config: {{send_interval: 1s}}"
        );
        let config = config(dir.path(), &url, &more);
        let a = start(dir.path(), &config);
        let start_ms = (now_ms() / 1000 - 1000) * 1000;
        push(&a.url, start_ms, 0..120).await;
        push_histogram(&a.url, start_ms).await;
        arrived(&a.url, &url, start_ms, 580).await;
        let quantile = "histogram_quantile(0.9, lat) + histogram_sum(lat) + histogram_count(lat)";
        let ask = async |server: &str| {
            let params = [("query", quantile), ("time", &format!("{}", start_ms / 1000 + 5))];
            let url = reqwest::Url::parse_with_params(&format!("{server}/api/v1/query"), params).unwrap();
            get(url.as_str()).await.1["data"]["result"][0]["value"][1].clone()
        };
        let want = ask(&a.url).await;
        assert!(want.is_string(), "{want}");
        poll("the histogram", async || (ask(&url).await == want).then_some(())).await;
        assert_eq!(metric(&a.url, "samples_failed_total").await, 0.0);
        if message == V1 {
            poll("descriptions", async || (metric(&a.url, "metadata_total").await > 0.0).then_some(())).await;
            assert_eq!(metric(&a.url, "metadata_failed_total").await, 0.0);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histograms_and_descriptions_arrive() {
    for message in [V1, V2] {
        let dir = tempfile::tempdir().unwrap();
        let b = Server::start(&dir.path().join("b"), &[]);
        let more = format!(
            "protobuf_message: {message}\n  send_native_histograms: true\n  metadata_config: {{send_interval: 200ms}}"
        );
        let config = config(dir.path(), &b.url, &more);
        let a = start(dir.path(), &config);
        let start_ms = (now_ms() / 1000 - 1000) * 1000;
        push_histogram(&a.url, start_ms).await;
        let ask = async |server: &str| {
            let params = [("query", "lat{job=\"x\"}"), ("time", &format!("{}", start_ms / 1000 + 5))];
            let url = reqwest::Url::parse_with_params(&format!("{server}/api/v1/query"), params).unwrap();
            get(url.as_str()).await.1["data"]["result"][0]["histogram"].clone()
        };
        let want = ask(&a.url).await;
        assert!(want.is_array(), "{want}");
        poll("the histogram", async || (ask(&b.url).await == want).then_some(())).await;
        if message == V1 {
            poll("a description", async || {
                let (_, body) = get(&format!("{}/api/v1/metadata?metric=lat", b.url)).await;
                (body["data"]["lat"][0]["type"] == "histogram").then_some(())
            })
            .await;
        }
    }
}

async fn push_histogram(url: &str, start_ms: i64) {
    use binnacle_model::histogram::Histogram;
    use binnacle_model::prompb::TimeSeries;
    use binnacle_model::storage::HistogramSample;
    use prost::Message;
    let histogram = Histogram {
        schema: 2,
        zero_threshold: 0.001,
        zero_count: 1.0,
        count: 10.0,
        sum: 12.5,
        positive: [(-3, 2.0), (-2, 2.0), (4, 3.0)].into_iter().collect(),
        negative: [(0, 2.0)].into_iter().collect(),
        ..Histogram::default()
    };
    let sample = HistogramSample { timestamp: Timestamp(start_ms), histogram: Arc::new(histogram) };
    let labels = Labels::new([("__name__", "lat"), ("job", "x")]).unwrap();
    let series = TimeSeries::new(&labels, &Samples::default(), &[sample]).encode_to_vec();
    let mut body = vec![1 << 3 | 2];
    prost::encoding::encode_varint(series.len() as u64, &mut body);
    body.extend_from_slice(&series);
    // A description beside it: `lat` is a histogram.
    body.extend_from_slice(&[3 << 3 | 2, 7, 1 << 3, 3, 2 << 3 | 2, 3, b'l', b'a', b't']);
    let body = snap::raw::Encoder::new().compress_vec(&body).unwrap();
    let sent = client().post(format!("{url}/api/v1/write")).body(body).send().await.unwrap();
    assert!(sent.status().is_success(), "{sent:?}");
}
