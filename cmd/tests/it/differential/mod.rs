//! The same samples and the same questions to Binnacle and to Prometheus 3: every expression that people run
//! elsewhere, and 2,000 of our own making, at one moment and over a range.
//!
//! `make differential` fetches the Prometheus; where none is named, the test says so and passes.
//! `BINNACLE_SEED` repeats a run.

mod compare;
mod data;
pub(crate) mod generate;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::real::real_expressions;
use crate::support::{Server, client, get, poll};
use compare::Verdict;

/// Expressions of our own making.
const GENERATED: usize = 2_000;

/// Where answers differ, the peer is asked so often whether it says the same again.
const AGAIN: usize = 12;

/// Questions under way at once.
const AT_ONCE: usize = 4;

const FEATURES: &str = "--enable-feature=promql-experimental-functions,native-histograms";

/// How to know an expression, and why it differs.
type Known = (fn(&str) -> bool, &'static str);

/// What is known to differ, each with how to know it and the reason. At most one in a hundred of all
/// expressions may be excluded so.
const EXCLUDED: [Known; 9] = [
    (
        // Minimal case: (2.3 ^ 51.7) % 1000
        |text| text.contains('^') && text.contains('%'),
        "Go's and Rust's powers differ in the last bit, of which a remainder makes everything",
    ),
    (
        // Minimal case: mad_over_time((log2(x))[10m:1m]) where x falls below zero
        |text| text.contains("mad_over_time"),
        "since 2026 the answer is NaN where one of the values is; Prometheus's own tests ask for it, 3.5 differs",
    ),
    (
        // Minimal case: cos(sinh(100))
        |text| {
            let is_any = |names: &[&str]| names.iter().any(|name| text.contains(name));
            is_any(&["sin(", "cos(", "tan("]) && is_any(&["sinh(", "cosh(", "exp(", "^"])
        },
        "Go's and Rust's exponentials differ in the last bit, which for large numbers is whole turns of a circle",
    ),
    (
        // Minimal case: timestamp(x @ end() offset 4m) where the newest sample of x is six minutes old
        |text| text.contains("timestamp(") && text.contains('@') && text.contains("offset"),
        "Prometheus forgets the offset beside `@` there, and looks back from the wrong moment",
    ),
    (
        // Minimal case: stdvar(timestamp(x))
        |text| {
            let is_any = |names: &[&str]| names.iter().any(|name| text.contains(name));
            is_any(&["stdvar", "stddev"]) && is_any(&["timestamp(", "ts_of_", "time("])
        },
        "of squares of seconds since 1970 a float has nothing left behind the comma, and both add in their own order",
    ),
    (
        // Minimal case: info(x), where one of two series of x has no sample at some steps
        |text| text.contains("info("),
        "3.5 takes the labels for another series there; later releases do not",
    ),
    (
        // Minimal case: changes(x[1m]), of two equal native histograms in two chunks
        |text| text.contains("changes(made_native"),
        "Prometheus lists empty buckets that others in a chunk have, and takes histograms that list others for changed",
    ),
    (
        // Minimal case: rate(x[1m]), of native histograms of which the first in the window counts nothing
        |text| {
            let is_any = |names: &[&str]| names.iter().any(|name| text.contains(name));
            text.contains(generate::NATIVE) && is_any(&["rate(", "increase("])
        },
        "since 2026 a rate of histograms reaches back to a count of zero and no further, as one of floats; 3.5 does not",
    ),
    (
        // Minimal case: round(stdvar(x)), of series whose variance is 6248.5
        |text| {
            let is_any = |names: &[&str]| names.iter().any(|name| text.contains(name));
            is_any(&["stdvar", "stddev"]) && is_any(&["round(", "floor(", "ceil("])
        },
        "a variance in the middle between two integers, to its last bit: both add in their own order and round apart",
    ),
];

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

pub(crate) fn peer() -> Option<PathBuf> {
    let found = std::env::var_os("BINNACLE_PROMETHEUS").map(PathBuf::from);
    if found.is_none() {
        eprintln!("not tested: BINNACLE_PROMETHEUS names no Prometheus 3; `make differential` fetches one");
    }
    found
}

async fn start(program: &Path, dir: &Path) -> Prometheus {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = dir.join("prometheus.yml");
    std::fs::write(&config, "global: {}\n").unwrap();
    let child = Command::new(program)
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", dir.join("prometheus").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .args(["--web.enable-remote-write-receiver", "--log.level=error"])
        .arg(FEATURES)
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

#[allow(clippy::disallowed_methods, reason = "both servers go by the machine's clock")]
pub(crate) fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

fn seed() -> u64 {
    let given =
        std::env::var("BINNACLE_SEED").ok().map(|seed| seed.parse().expect("BINNACLE_SEED is a number"));
    given.unwrap_or_else(|| now_ms() as u64)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_those_of_prometheus_3() {
    let Some(program) = peer() else { return };
    let Some(real) = real_expressions() else { return };
    let seed = seed();
    let dir = tempfile::tempdir().unwrap();
    let peer = start(&program, dir.path()).await;
    let ours = Server::start(&dir.path().join("binnacle"), &[FEATURES]);
    let version =
        get(&format!("{}/api/v1/status/buildinfo", peer.url)).await.1["data"]["version"].to_string();
    eprintln!("Prometheus {version}, BINNACLE_SEED={seed}");
    let mut expressions = real;
    let real_count = expressions.len();
    let now = now_ms();
    let at = data::last_step(now);
    expressions.extend(generate::expressions(seed, GENERATED, at));
    let all = data::series(&expressions, now);
    data::send(&all, now, &[&ours.url, &peer.url]).await;
    let found = ask_all(&expressions, at, &ours.url, &peer.url).await;
    let count = |wanted: fn(&Verdict) -> bool| found.iter().filter(|(_, verdict)| wanted(verdict)).count();
    let excluded = count(|verdict| matches!(verdict, Verdict::Excluded));
    let unknown = count(|verdict| matches!(verdict, Verdict::UnknownToPeer));
    let differ: Vec<String> = found
        .iter()
        .filter_map(|(text, verdict)| match verdict {
            Verdict::Differs(how) => Some(format!("{text}\n    {how}")),
            _ => None,
        })
        .collect();
    eprintln!(
        "{} series; {real_count} real and {GENERATED} generated expressions, each at a moment and over a range: {} equal ({} of them not empty), {excluded} excluded, {unknown} with functions that the peer does not know, {} differ",
        all.len(),
        count(|verdict| matches!(verdict, Verdict::Equal { .. })),
        count(|verdict| matches!(verdict, Verdict::Equal { is_empty: false })),
        differ.len(),
    );
    assert!(differ.is_empty(), "{} differ (BINNACLE_SEED={seed}):\n{}", differ.len(), differ.join("\n"));
    assert!(excluded * 100 <= found.len(), "{excluded} of {} are excluded", found.len());
}

/// Each expression with its verdict, which is the worse of both ways to ask.
async fn ask_all(expressions: &[String], at: i64, ours: &str, peer: &str) -> Vec<(String, Verdict)> {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let client = client();
    let mut asked = JoinSet::new();
    for (number, text) in expressions.iter().enumerate() {
        let (text, ours, peer) = (text.clone(), ours.to_owned(), peer.to_owned());
        let (places, client) = (Arc::clone(&places), client.clone());
        asked.spawn(async move {
            let _place = places.acquire_owned().await.unwrap();
            let mut verdict = Verdict::Equal { is_empty: true };
            for path in [
                format!("/api/v1/query?time={at}"),
                format!("/api/v1/query_range?start={}&end={at}&step=60", at - 1800),
            ] {
                let query =
                    form_urlencoded::Serializer::new(String::new()).append_pair("query", &text).finish();
                let ask = async |server: &str| -> Value {
                    let answer = client.get(format!("{server}{path}&{query}")).send().await.unwrap();
                    answer.json().await.unwrap_or_default()
                };
                let (mine, theirs) = tokio::join!(ask(&ours), ask(&peer));
                let mut found = compare::answers(&text, &mine, &theirs);
                if matches!(found, Verdict::Differs(_))
                    && EXCLUDED.iter().any(|(is_known, _)| is_known(&text))
                {
                    found = Verdict::Excluded;
                }
                // Of equal values Prometheus's topk takes those that a Go map hands it first: ask again.
                for _ in 0..AGAIN {
                    if !matches!(found, Verdict::Differs(_)) {
                        break;
                    }
                    if matches!(compare::answers(&text, &ask(&peer).await, &theirs), Verdict::Differs(_)) {
                        found = Verdict::Excluded;
                    }
                }
                verdict = verdict.worse(found);
            }
            (number, text, verdict)
        });
    }
    let mut found = asked.join_all().await;
    found.sort_by_key(|(number, ..)| *number);
    found.into_iter().map(|(_, text, verdict)| (text, verdict)).collect()
}
