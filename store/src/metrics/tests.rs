//! The metrics engine on a simulated disk: whatever call is the last, every acknowledged sample is there once;
//! whatever bit flips, an answer is right or says what is missing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use binnacle_model::labels::LabelsError;
use binnacle_model::storage::{ALL_TIME, Deadline, StorageError};
use binnacle_model::{Labels, Sample};

use super::*;
use crate::fs::SimDisk;
use crate::wal::{Floor, RecordKind};

const HOUR_MS: i64 = 3_600_000;
const SERIES: usize = 3;
/// Two days and a little: blocks of two hours, days merged, the oldest expired.
const HOURS: i64 = 54;

/// Crash points of one run of the tests, at least.
const CRASH_POINTS: usize = 50_000;

struct Plain;

impl SeriesDecoder for Plain {
    fn salt(&self) -> u64 {
        0
    }

    fn decode(&self, raw: &[u8]) -> Result<Labels, LabelsError> {
        Labels::new([("__name__", std::str::from_utf8(raw).unwrap())])
    }
}

fn options() -> Options {
    Options { retention: Duration::from_hours(50), ..Options::default() }
}

/// The engine that a start finds, if it gets that far.
fn open(disk: &SimDisk) -> Result<(Metrics, Arc<Wal>), String> {
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let opening = Opening::new(Arc::clone(&shared), Path::new("/data/metrics"), options(), 1);
    let mut opening = opening.map_err(|error| error.to_string())?;
    let floor = Floor { file: opening.wal_floor(), ..Floor::default() };
    let opened = Wal::open(shared, Path::new("/data/wal"), floor, &mut |file, _, kind, payload| {
        let kind = if kind == RecordKind::Histograms { SampleKind::Histograms } else { SampleKind::Floats };
        assert!(opening.replay(file, payload, kind), "a record that passed its checksum was not understood");
    });
    let wal = Arc::new(opened.map_err(|error| error.to_string())?.0);
    let space = Arc::new(Space::new(Arc::new(disk.clone()), Path::new("/data")));
    Ok((opening.finish(Arc::clone(&wal), space, Telemetry::default()), wal))
}

/// As [`crate::Store::maintain`] does it.
fn maintain(metrics: &Metrics, wal: &Wal, now: Timestamp) -> io::Result<()> {
    metrics.maintain(now)?;
    match metrics.persisted_through(&wal.sealed()) {
        Some(through) => wal.remove_through(through),
        None => Ok(()),
    }
}

fn value(series: usize, hour: i64) -> f64 {
    (hour * 7 + series as i64) as f64 / 4.0
}

/// Writes a sample of each series an hour until the disk dies; answers how many hours were acknowledged.
fn run(disk: &SimDisk) -> i64 {
    let Ok((metrics, wal)) = open(disk) else { return 0 };
    for hour in 0..HOURS {
        let now = Timestamp(hour * HOUR_MS);
        let names: Vec<String> = (0..SERIES).map(|series| format!("m{series}")).collect();
        let samples: Vec<[Sample; 1]> =
            (0..SERIES).map(|series| [Sample { timestamp: now, value: value(series, hour) }]).collect();
        let batch: Vec<RawSeries<'_>> = names
            .iter()
            .zip(&samples)
            .map(|(name, samples)| RawSeries { labels: name.as_bytes(), samples, histograms: &[] })
            .collect();
        if metrics.append(&batch, &Plain, now).is_err() {
            return hour;
        }
        if hour % 3 == 2 && maintain(&metrics, &wal, now).is_err() {
            return hour + 1;
        }
    }
    HOURS
}

type Found = BTreeMap<String, Vec<(i64, f64)>>;

/// All samples, and what the engine says is missing.
fn read(metrics: &Metrics) -> (Found, Vec<String>) {
    let (mut found, mut missing) = (Found::new(), Vec::new());
    for series in metrics.select(&[], ALL_TIME, &Deadline::default()).unwrap() {
        match series {
            Ok(one) => {
                let samples = one.samples.iter().map(|sample| (sample.timestamp.0, sample.value)).collect();
                assert!(found.insert(one.labels.to_string(), samples).is_none(), "a series came twice");
            }
            Err(StorageError::Missing(reason)) => missing.push(reason),
            Err(error) => panic!("{error}"),
        }
    }
    (found, missing)
}

/// Every sample of the acknowledged hours that retention leaves, once, with its value.
fn check(metrics: &Metrics, acknowledged: i64, at: &str) {
    let (found, missing) = read(metrics);
    assert!(missing.is_empty(), "{at}: {missing:?}");
    // A block goes when its last sample is too old.
    let kept = (acknowledged - 50).max(0);
    for series in 0..SERIES {
        let samples = found.get(&format!("m{series}")).cloned().unwrap_or_default();
        assert!(samples.is_sorted_by(|a, b| a.0 < b.0), "{at}: {samples:?}");
        let hours: Vec<i64> = samples.iter().map(|(time, _)| time / HOUR_MS).collect();
        for hour in kept..acknowledged {
            assert!(hours.contains(&hour), "{at}: hour {hour} of {acknowledged} is lost: {hours:?}");
        }
        // The batch under way when the disk died may be there, too.
        assert!(hours.last().is_none_or(|last| *last <= acknowledged), "{at}: {hours:?}");
        for (time, found) in samples {
            assert_eq!(found, value(series, time / HOUR_MS), "{at}");
        }
    }
}

#[test]
fn whatever_call_is_the_last_every_acknowledged_sample_is_there_once() {
    let whole = SimDisk::default();
    assert_eq!(run(&whole), HOURS);
    let (metrics, _) = open(&whole).unwrap();
    assert!(metrics.blocks().len() < 8, "days are merged: {} blocks", metrics.blocks().len());
    let steps = whole.steps() + 5;
    let tears = CRASH_POINTS.div_ceil(steps as usize) as u64;
    let (next, points) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let work = || {
        loop {
            let step = next.fetch_add(1, Ordering::Relaxed) as u64;
            if step >= steps {
                return;
            }
            let disk = SimDisk::default();
            disk.fail_after(step);
            let acknowledged = run(&disk);
            for tear in 0..tears {
                let at = format!("after {step} calls, tear {tear}");
                let crashed = disk.crash(step * tears + tear);
                let (metrics, wal) = open(&crashed).unwrap_or_else(|error| panic!("{at}: {error}"));
                check(&metrics, acknowledged, &at);
                if tear == 0 {
                    // And life goes on: what was left half done is done now.
                    let now = Timestamp(acknowledged * HOUR_MS);
                    maintain(&metrics, &wal, now).unwrap();
                    check(&metrics, acknowledged, &at);
                }
                points.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, std::num::NonZero::get) {
            scope.spawn(work);
        }
    });
    let points = points.into_inner();
    eprintln!("{points} crash points");
    assert!(points >= CRASH_POINTS);
}

/// A flipped bit anywhere in a block: the answer is right, or something is said to be missing.
#[test]
fn a_flipped_bit_is_never_an_answer() {
    let whole = SimDisk::default();
    run(&whole);
    let dir = Path::new("/data/metrics");
    let (metrics, _) = open(&whole).unwrap();
    let (want, _) = read(&metrics);
    let mut damaged = 0;
    for name in whole.list(dir).unwrap() {
        let path = dir.join(&name);
        let bits = whole.open(&path).unwrap().size().unwrap() * 8;
        for bit in (0..bits).step_by(7) {
            let disk = whole.crash(0);
            disk.flip_bit(&path, bit as usize);
            let (metrics, wal) = open(&disk)
                .unwrap_or_else(|error| panic!("{name}, bit {bit}: the start is refused: {error}"));
            for round in ["at once", "after maintenance"] {
                let (found, missing) = read(&metrics);
                let at = format!("{name}, bit {bit}, {round}");
                if missing.is_empty() {
                    assert_eq!(found, want, "{at}");
                    continue;
                }
                damaged += 1;
                assert!(missing.iter().all(|reason| reason.contains(&name)), "{at}: {missing:?}");
                for (labels, samples) in &found {
                    assert!(samples.iter().all(|one| want[labels].contains(one)), "{at}: a wrong answer");
                }
                maintain(&metrics, &wal, Timestamp(HOURS * HOUR_MS)).unwrap();
            }
        }
    }
    assert!(damaged > 100, "only {damaged} flips did any damage");
}

/// Sixty days of a small cluster on a clock of its own: what is kept, what goes, and what stays flat.
#[test]
fn sixty_days_keep_forty_five_and_nothing_grows() {
    const EVERY_MS: i64 = 600_000;
    const DAY_MS: i64 = 24 * HOUR_MS;
    let disk = SimDisk::default();
    let (mut metrics, wal) = open(&disk).unwrap();
    metrics.options.retention = Duration::from_hours(45 * 24);
    let names: Vec<String> = (0..20).map(|series| format!("m{series}")).collect();
    for step in 0..60 * DAY_MS / EVERY_MS {
        let now = Timestamp(step * EVERY_MS);
        let sample = [Sample { timestamp: now, value: step as f64 }];
        let named = names.iter().filter(|name| *name != "m7" || step < 3000);
        let batch: Vec<RawSeries<'_>> = named
            .map(|name| RawSeries { labels: name.as_bytes(), samples: &sample, histograms: &[] })
            .collect();
        assert_eq!(metrics.append(&batch, &Plain, now).unwrap().appended, batch.len());
        if step % 6 == 5 {
            maintain(&metrics, &wal, now).unwrap();
            // A block for each day, those of two hours of the day that is not over, and one that expires.
            assert!(
                metrics.blocks().len() <= 46 + 13,
                "{} blocks on day {}",
                metrics.blocks().len(),
                now.0 / DAY_MS
            );
            assert!(metrics.head().len() <= 20);
            assert!(wal.sealed().len() <= 3, "{} files of the WAL", wal.sealed().len());
            assert!(disk.list(Path::new("/data/metrics")).unwrap().len() <= 46 + 13);
        }
    }
    let end = 60 * DAY_MS - EVERY_MS;
    let (found, missing) = read(&metrics);
    assert!(missing.is_empty());
    for (labels, samples) in &found {
        let first = samples[0].0;
        // Blocks go as a whole, a day at a time.
        assert!(first >= end - 46 * DAY_MS, "{labels} begins on day {}", first / DAY_MS);
        if labels != "m7" {
            assert!(first <= end - 45 * DAY_MS, "{labels} begins on day {}", first / DAY_MS);
            let want: Vec<(i64, f64)> =
                (first..=end).step_by(EVERY_MS as usize).map(|at| (at, (at / EVERY_MS) as f64)).collect();
            assert_eq!(*samples, want, "{labels}");
        }
    }
    assert_eq!(found.len(), 20, "m7 ended on day 20, within what is kept");
    let month = TimeRange { start: Timestamp(end - 30 * DAY_MS), end: Timestamp(end) };
    let matchers = [binnacle_model::Matcher::equal("__name__", "m3")];
    let series: Vec<_> = metrics.select(&matchers, month, &Deadline::default()).unwrap().collect();
    assert_eq!(series[0].as_ref().unwrap().samples.len() as i64, 30 * DAY_MS / EVERY_MS + 1);
}

#[test]
fn the_oldest_blocks_go_when_all_are_too_large() {
    let disk = SimDisk::default();
    run(&disk);
    let (mut metrics, _) = open(&disk).unwrap();
    let sizes: u64 = metrics.blocks().iter().map(|block| block.bytes()).sum();
    metrics.options.retention_bytes = Some(sizes - 1);
    let oldest = metrics.blocks().iter().map(|block| block.range().end).min().unwrap();
    let before = metrics.blocks().len();
    metrics.expire(Timestamp(HOURS * HOUR_MS)).unwrap();
    assert_eq!(metrics.blocks().len(), before - 1);
    assert!(metrics.blocks().iter().all(|block| block.range().end > oldest));
}

#[test]
fn a_snapshot_is_a_store_of_its_own() {
    let disk = SimDisk::default();
    run(&disk);
    let (metrics, _) = open(&disk).unwrap();
    metrics.snapshot(Path::new("/copy/metrics"), false).unwrap();
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let opening = Opening::new(Arc::clone(&shared), Path::new("/copy/metrics"), options(), 1).unwrap();
    let (wal, _) = Wal::open(shared, Path::new("/copy/wal"), Floor::default(), &mut |_, _, _, _| {}).unwrap();
    let space = Arc::new(Space::new(Arc::new(disk.clone()), Path::new("/data")));
    let copy = opening.finish(Arc::new(wal), space, Telemetry::default());
    assert_eq!(read(&copy), read(&metrics));
}
