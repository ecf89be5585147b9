//! Blocks that Prometheus's own programs write, imported: the answers are theirs.
//!
//! `promtool` makes blocks of floats; a Prometheus 3 (`BINNACLE_PROMETHEUS`) takes native histograms over remote write,
//! deletes some series, and makes a snapshot. Older ones cannot make one of such histograms.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use prost::Message;
use serde_json::Value;

use crate::differential::{now_ms, peer};
use crate::peers::has;
use crate::support::{Server, binnacle, client, get, poll};

const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 24 * 60 * MINUTE_MS;

fn import(from: &Path, data: &Path, more: &[&str]) -> Output {
    let paths = [("--from", from), ("--data", data)].map(|(flag, path)| [flag.as_ref(), path.as_os_str()]);
    let args = ["tsdb", "import", "--log-level", "warn"];
    binnacle().args(args).args(paths.concat()).args(more).output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Three days of two series, a sample each ten minutes, as `promtool` makes blocks of them.
fn promtool_blocks(dir: &Path, end_ms: i64) -> PathBuf {
    let mut page = "# TYPE imported gauge\n".to_owned();
    for path in ["/a \\\"b\\\"", "/ü"] {
        for at in (end_ms - 3 * DAY_MS..end_ms).step_by(10 * MINUTE_MS as usize) {
            page.push_str(&format!("imported{{path=\"{path}\"}} {} {}\n", value_at(at), at / 1000));
        }
    }
    page.push_str("# EOF\n");
    let file = dir.join("page.om");
    std::fs::write(&file, page).unwrap();
    let blocks = dir.join("blocks");
    let made = Command::new("promtool")
        .args(["tsdb", "create-blocks-from", "openmetrics"])
        .args([&file, &blocks])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    blocks
}

fn value_at(at_ms: i64) -> f64 {
    (at_ms / MINUTE_MS % 1000) as f64 / 8.0
}

async fn result(url: &str, query: &str, at_ms: i64) -> Value {
    let url = reqwest::Url::parse_with_params(
        &format!("{url}/api/v1/query"),
        [("query", query), ("time", &format!("{}", at_ms / 1000))],
    );
    let (status, mut body) = get(url.unwrap().as_str()).await;
    assert_eq!(status, 200, "{query}: {body}");
    let mut found = body["data"]["result"].take();
    if let Some(all) = found.as_array_mut() {
        all.sort_by_key(|one| one["metric"].to_string());
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_of_promtool_are_answered() {
    if !has("promtool") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let end = now_ms() / (10 * MINUTE_MS) * 10 * MINUTE_MS;
    let blocks = promtool_blocks(dir.path(), end);
    let data = dir.path().join("data");
    let nothing = import(dir.path(), &data, &[]);
    assert!(
        !nothing.status.success() && text(&nothing).contains("no blocks of Prometheus in"),
        "{nothing:?}"
    );
    assert!(!data.exists(), "nothing was to be made");

    let done = import(&blocks, &data, &[]);
    assert!(done.status.success(), "{done:?}");
    assert!(text(&done).contains("864 samples"), "{}", text(&done));
    let check = async |data: &Path| {
        let server = Server::start(data, &[]);
        let refused = import(&blocks, data, &[]);
        assert!(
            !refused.status.success() && text(&refused).contains("in use by another binnacle"),
            "{refused:?}"
        );
        let found = result(&server.url, "imported[4d]", end / 1000 * 1000).await;
        assert_eq!(found.as_array().unwrap().len(), 2, "{found}");
        let want: Vec<Value> = (end - 3 * DAY_MS..end)
            .step_by(10 * MINUTE_MS as usize)
            .map(|at| serde_json::json!([at / 1000, value_at(at).to_string()]))
            .collect();
        for one in found.as_array().unwrap() {
            assert_eq!(one["values"].as_array().unwrap(), &want);
        }
        assert_eq!(found[0]["metric"]["path"], "/a \"b\"");
    };
    check(&data).await;
    // Once more: they are known.
    let again = import(&blocks, &data, &[]);
    assert!(again.status.success() && text(&again).contains("was imported before"), "{}", text(&again));
    assert!(text(&again).contains("0 samples of 0 series into 0 blocks"), "{}", text(&again));
    // And once more as if they were not: no answer is doubled.
    std::fs::remove_file(data.join("metrics/imported")).unwrap();
    let doubled = import(&blocks, &data, &[]);
    assert!(text(&doubled).contains("864 samples"), "{}", text(&doubled));
    check(&data).await;

    let short = import(&blocks, &dir.path().join("short"), &["--retention", "1d"]);
    assert!(short.status.success() && text(&short).contains("too old"), "{}", text(&short));
}

/// A running Prometheus; killed when dropped.
struct Prometheus {
    child: Child,
    url: String,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn start(program: &Path, dir: &Path, data: &Path) -> Prometheus {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = dir.join("prometheus.yml");
    std::fs::write(&config, "global: {}\n").unwrap();
    let child = Command::new(program)
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", data.display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .args(["--web.enable-remote-write-receiver", "--web.enable-admin-api", "--log.level=error"])
        .args(["--enable-feature=native-histograms", "--storage.tsdb.retention.time=45d"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let prometheus = Prometheus { child, url: format!("http://127.0.0.1:{port}") };
    let ready = format!("{}/-/ready", prometheus.url);
    poll("Prometheus", async || client().get(&ready).send().await.ok().filter(|r| r.status().is_success()))
        .await;
    prometheus
}

#[derive(Clone, PartialEq, Message)]
struct Write {
    #[prost(message, repeated, tag = "1")]
    series: Vec<Written>,
}

#[derive(Clone, PartialEq, Message)]
struct Written {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<binnacle_model::prompb::LabelPair>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<binnacle_model::prompb::FloatSample>,
    #[prost(message, repeated, tag = "4")]
    histograms: Vec<Native>,
}

/// Prometheus's message, with whole counts or with floats.
#[derive(Clone, PartialEq, Message)]
struct Native {
    #[prost(uint64, optional, tag = "1")]
    count_int: Option<u64>,
    #[prost(double, optional, tag = "2")]
    count_float: Option<f64>,
    #[prost(double, tag = "3")]
    sum: f64,
    #[prost(sint32, tag = "4")]
    schema: i32,
    #[prost(double, tag = "5")]
    zero_threshold: f64,
    #[prost(uint64, optional, tag = "6")]
    zero_count_int: Option<u64>,
    #[prost(double, optional, tag = "7")]
    zero_count_float: Option<f64>,
    #[prost(message, repeated, tag = "8")]
    negative_spans: Vec<binnacle_model::prompb::BucketSpan>,
    #[prost(sint64, repeated, tag = "9")]
    negative_deltas: Vec<i64>,
    #[prost(double, repeated, tag = "10")]
    negative_counts: Vec<f64>,
    #[prost(message, repeated, tag = "11")]
    positive_spans: Vec<binnacle_model::prompb::BucketSpan>,
    #[prost(sint64, repeated, tag = "12")]
    positive_deltas: Vec<i64>,
    #[prost(double, repeated, tag = "13")]
    positive_counts: Vec<f64>,
    #[prost(int32, tag = "14")]
    reset_hint: i32,
    #[prost(int64, tag = "15")]
    timestamp: i64,
    #[prost(double, repeated, tag = "16")]
    custom_values: Vec<f64>,
}

fn spans(pairs: &[(i32, u32)]) -> Vec<binnacle_model::prompb::BucketSpan> {
    pairs
        .iter()
        .map(|(offset, length)| binnacle_model::prompb::BucketSpan { offset: *offset, length: *length })
        .collect()
}

/// Four counts that grow, and begin again after sample 25; their layout changes at sample 12.
fn counts_at(at: i64) -> [i64; 4] {
    let at = if at >= 25 { at - 25 } else { at };
    [at + 1, at * at, at / 3, 7]
}

fn whole(at: i64, timestamp: i64) -> Native {
    let counts = counts_at(at);
    let is_wide = at >= 12;
    let wide: &[(i32, u32)] = if is_wide { &[(-2, 2), (5, 2)] } else { &[(-2, 2), (5, 1)] };
    let used = &counts[..if is_wide { 4 } else { 3 }];
    let deltas = used.iter().scan(0, |last, count| Some(count - std::mem::replace(last, *count))).collect();
    Native {
        count_int: Some((used.iter().sum::<i64>() + 3 + counts[0]) as u64),
        zero_count_int: Some(3),
        sum: at as f64 * 1.25 - 7.0,
        schema: 2,
        zero_threshold: 2f64.powi(-128),
        positive_spans: spans(wide),
        positive_deltas: deltas,
        negative_spans: spans(&[(1, 1)]),
        negative_deltas: vec![counts[0]],
        timestamp,
        ..Native::default()
    }
}

fn float(at: i64, timestamp: i64, reset_hint: i32) -> Native {
    let counts: Vec<f64> = counts_at(at).iter().map(|count| *count as f64 * 1.5).collect();
    Native {
        count_float: Some(counts.iter().sum::<f64>() + 0.5),
        zero_count_float: Some(0.5),
        sum: at as f64 / 3.0,
        schema: -1,
        zero_threshold: 0.001,
        positive_spans: spans(&[(0, 1), (2, 3)]),
        positive_counts: counts,
        reset_hint,
        timestamp,
        ..Native::default()
    }
}

fn custom(at: i64, timestamp: i64) -> Native {
    let deltas =
        counts_at(at).iter().scan(0, |last, count| Some(count - std::mem::replace(last, *count))).collect();
    Native {
        count_int: Some(counts_at(at).iter().sum::<i64>() as u64),
        zero_count_int: Some(0),
        sum: at as f64,
        schema: -53,
        positive_spans: spans(&[(0, 4)]),
        positive_deltas: deltas,
        custom_values: vec![0.005, 0.25, 1e9],
        timestamp,
        ..Native::default()
    }
}

fn stale(timestamp: i64) -> Native {
    let sum = binnacle_model::STALE_NAN;
    Native { count_int: Some(0), zero_count_int: Some(0), sum, timestamp, ..Native::default() }
}

fn written(
    name: &str,
    samples: Vec<binnacle_model::prompb::FloatSample>,
    histograms: Vec<Native>,
) -> Written {
    let pair = |name: &str, value: &str| binnacle_model::prompb::LabelPair {
        name: name.into(),
        value: value.into(),
    };
    Written { labels: vec![pair("__name__", name), pair("job", "import")], samples, histograms }
}

async fn send(url: &str, series: Vec<Written>) -> u16 {
    let body = snap::raw::Encoder::new().compress_vec(&Write { series }.encode_to_vec()).unwrap();
    let sent = client()
        .post(format!("{url}/api/v1/write"))
        .header("content-type", "application/x-protobuf")
        .header("content-encoding", "snappy")
        .header("x-prometheus-remote-write-version", "0.1.0")
        .body(body);
    sent.send().await.unwrap().status().as_u16()
}

/// The histogram of a number and a moment.
type Make = fn(i64, i64) -> Native;

/// Forty minutes of each kind, a sample a minute.
async fn fill(url: &str, end_ms: i64) {
    let moments = || (0..40).map(|at| (at, end_ms - (40 - at) * MINUTE_MS));
    let kinds: [(&str, Make); 3] = [
        ("native_whole", whole),
        ("native_float", |at, timestamp| float(at, timestamp, 0)),
        ("native_gauge", |at, timestamp| float(at, timestamp, 3)),
    ];
    let mut all = Vec::new();
    for (name, make) in kinds {
        all.push(written(name, Vec::new(), moments().map(|(at, timestamp)| make(at, timestamp)).collect()));
    }
    // One ends, and comes back.
    let mut ending: Vec<Native> = moments().map(|(at, timestamp)| whole(at, timestamp)).collect();
    ending[17] = stale(ending[17].timestamp);
    all.push(written("native_ending", Vec::new(), ending));
    let odd = [0.1, -0.0, f64::INFINITY, f64::NAN, 1e-300, binnacle_model::STALE_NAN];
    let floats = moments().map(|(at, timestamp)| binnacle_model::prompb::FloatSample {
        value: if at % 4 == 0 { odd[at as usize / 4 % odd.len()] } else { at as f64 },
        timestamp: timestamp + at * at,
    });
    all.push(written("odd_floats", floats.collect(), Vec::new()));
    let histograms = moments().map(|(at, timestamp)| custom(at, timestamp)).collect();
    all.push(written("native_custom", Vec::new(), histograms));
    assert_eq!(send(url, all).await / 100, 2);
}

async fn post(url: &str) -> Value {
    let answer = client().post(url).send().await.unwrap();
    assert!(answer.status().is_success(), "{url}: {}", answer.status());
    answer.json().await.unwrap_or_default()
}

/// Whether two answers are the same but for the last bits of numbers, such as bounds of exponential buckets.
fn is_near(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_near(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| is_near(a, b)))
        }
        (Value::String(text), Value::String(other)) => match (text.parse::<f64>(), other.parse::<f64>()) {
            (Ok(a), Ok(b)) => text == other || (a - b).abs() <= a.abs() * 1e-14,
            _ => text == other,
        },
        _ => a == b,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_of_prometheus_is_answered() {
    if !has("promtool") {
        return;
    }
    let Some(program) = peer() else { return };
    let dir = tempfile::tempdir().unwrap();
    let end = now_ms() / (10 * MINUTE_MS) * 10 * MINUTE_MS;
    let blocks = promtool_blocks(dir.path(), end - DAY_MS / 4);
    let theirs = start(&program, dir.path(), &blocks).await;
    let build = get(&format!("{}/api/v1/status/buildinfo", theirs.url)).await.1;
    let version = build["data"]["version"].as_str().unwrap().to_owned();
    fill(&theirs.url, end).await;
    let (from, to) = ((end - 2 * DAY_MS) / 1000, (end - DAY_MS) / 1000);
    let admin = format!("{}/api/v1/admin/tsdb", theirs.url);
    let path = "match[]=imported%7Bpath%3D%22%2F%C3%BC%22%7D";
    post(&format!("{admin}/delete_series?{path}&start={from}&end={to}")).await;
    let snapshot = post(&format!("{admin}/snapshot")).await;
    let snapshot = blocks.join("snapshots").join(snapshot["data"]["name"].as_str().unwrap());
    if let Some(keep) = std::env::var_os("BINNACLE_KEEP_SNAPSHOT") {
        assert!(Command::new("cp").arg("-r").arg(&snapshot).arg(keep).status().unwrap().success());
    }

    let data = dir.path().join("data");
    let done = import(&snapshot, &data, &[]);
    println!("{}", text(&done));
    assert!(done.status.success() && text(&done).contains("samples left out, deleted"), "{}", text(&done));
    let ours = Server::start(&data, &[]);
    let mut answered = 0;
    for query in [
        "imported[5d]",
        "odd_floats[2h]",
        "native_whole[2h]",
        "native_float[2h]",
        "native_gauge[2h]",
        "native_ending[2h]",
        "native_custom[2h]",
        "increase(native_whole[30m])",
        "increase(native_float[30m])",
        "delta(native_gauge[30m])",
        "histogram_quantile(0.9, native_custom)",
        "histogram_quantile(0.9, rate(native_custom[30m]))",
        "resets(native_whole[1h])",
        "resets(native_float[1h])",
    ] {
        let (want, found) = (result(&theirs.url, query, end).await, result(&ours.url, query, end).await);
        assert!(is_near(&found, &want), "{query}: {found} instead of {want} of Prometheus {version}");
        answered += usize::from(want.as_array().is_some_and(|all| !all.is_empty()));
    }
    eprintln!("Prometheus {version}: {answered} queries with an answer are answered the same");
    assert_eq!(answered, 14);
}
