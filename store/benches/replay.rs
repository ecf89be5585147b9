//! How long a start takes after two hours at 50,000 samples a second: after a crash, and after a clean stop.
//!
//! `BINNACLE_RATE` is another number of samples a second; each series has one every 15 s. The samples come on a clock
//! of their own, as fast as the store takes them, with maintenance every half minute of that clock.

use std::path::Path;
use std::process::{Command, exit};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use binnacle_model::labels::LabelsError;
use binnacle_model::storage::{Appender, RawSeries, SeriesDecoder};
use binnacle_model::time::Clock;
use binnacle_model::{Labels, LogTime, Sample, Timestamp};
use binnacle_store::{Options, Store, Telemetry};

const START_MS: i64 = 1_700_000_000_000 / 7_200_000 * 7_200_000;
const STEP_MS: i64 = 15_000;
const HOURS: i64 = 2;
const BATCH: usize = 2000;

#[derive(Default)]
struct OwnClock(AtomicI64);

impl Clock for OwnClock {
    fn now_ns(&self) -> LogTime {
        LogTime(self.0.load(Ordering::Relaxed) * 1_000_000)
    }
}

struct Pairs;

impl SeriesDecoder for Pairs {
    fn salt(&self) -> u64 {
        1
    }

    fn decode(&self, raw: &[u8]) -> Result<Labels, LabelsError> {
        let text = std::str::from_utf8(raw).expect("made below");
        Labels::new(text.split(',').filter_map(|pair| pair.split_once('=')))
    }
}

fn open(dir: &Path, clock: &Arc<OwnClock>) -> Store {
    let clock = Arc::clone(clock) as Arc<dyn Clock>;
    Store::open(dir, Options::default(), clock, Telemetry::default()).expect("a folder of our own")
}

fn write(dir: &Path, rate: usize) {
    let clock = Arc::new(OwnClock::default());
    clock.0.store(START_MS, Ordering::Relaxed);
    let store = open(dir, &clock);
    let count = rate * (STEP_MS as usize / 1000);
    let names: Vec<String> = (0..count)
        .map(|n| {
            let (metric, pod) = (n % 200, n / 200);
            format!(
                "__name__=metric_{metric}_total,cluster=c1,instance=10.0.{}.{}:8080,job=job{},namespace=ns{},pod=pod-{pod}",
                pod / 250,
                pod % 250,
                pod % 40,
                pod % 25
            )
        })
        .collect();
    for step in 0..HOURS * 3_600_000 / STEP_MS {
        let at = Timestamp(START_MS + step * STEP_MS);
        clock.0.store(at.0, Ordering::Relaxed);
        for (begin, batch) in names.chunks(BATCH).enumerate() {
            let samples: Vec<[Sample; 1]> = (0..batch.len())
                .map(|n| {
                    let series = (begin * BATCH + n) as i64;
                    let value = (series % 1000 + step * (series % 17) + step * step % 7) as f64;
                    [Sample { timestamp: at, value }]
                })
                .collect();
            let rows: Vec<RawSeries<'_>> = batch
                .iter()
                .zip(&samples)
                .map(|(name, samples)| RawSeries { labels: name.as_bytes(), samples, histograms: &[] })
                .collect();
            store.append(&rows, &Pairs).expect("a healthy disk");
        }
        if step % 2 == 1 {
            store.maintain().expect("a healthy disk");
        }
    }
    // As a crash does: nothing is closed.
    exit(0);
}

fn start(dir: &Path, how: &str) {
    let clock = Arc::new(OwnClock::default());
    clock.0.store(START_MS + HOURS * 3_600_000, Ordering::Relaxed);
    let begun = Instant::now();
    let store = open(dir, &clock);
    println!("start after {how}: {:.2} s", begun.elapsed().as_secs_f64());
    store.close();
    exit(0);
}

fn main() {
    let rate = std::env::var("BINNACLE_RATE").ok().and_then(|rate| rate.parse().ok()).unwrap_or(50_000);
    if let (Ok(dir), Ok(what)) = (std::env::var("BINNACLE_REPLAY_DIR"), std::env::var("BINNACLE_REPLAY")) {
        let dir = Path::new(&dir);
        if what == "write" { write(dir, rate) } else { start(dir, &what) }
    }
    let dir = tempfile::tempdir_in(".").expect("a folder here");
    for what in ["write", "a crash", "a clean stop"] {
        let itself = std::env::current_exe().expect("a program");
        let begun = Instant::now();
        let done = Command::new(itself)
            .env("BINNACLE_REPLAY_DIR", dir.path())
            .env("BINNACLE_REPLAY", what)
            .status()
            .expect("the same program");
        assert!(done.success(), "{what}: {done}");
        if what == "write" {
            let samples = rate as i64 * HOURS * 3600;
            println!("{samples} samples written in {:.0} s", begun.elapsed().as_secs_f64());
        }
    }
}
