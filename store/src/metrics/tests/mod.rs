//! The metrics engine on a simulated disk: whatever call is the last, every acknowledged sample is there once;
//! whatever bit flips, an answer is right or says what is missing.

mod late;
mod retention;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use binnacle_model::labels::LabelsError;
use binnacle_model::storage::{ALL_TIME, Deadline, HistogramSample, StorageError};
use binnacle_model::{Labels, Sample, Samples};

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
    // So small that every round of maintenance saves the head.
    Options { retention: Duration::from_hours(50), checkpoint_bytes: 1, ..Options::default() }
}

/// The engine that a start finds, if it gets that far.
fn open(disk: &SimDisk) -> Result<(Metrics, Arc<Wal>), String> {
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let opening = Opening::new(Arc::clone(&shared), Path::new("/data/metrics"), options(), 1);
    let mut opening = opening.map_err(|error| error.to_string())?;
    let sequence = opening.saved_files().last().map(|file| file.last).unwrap_or_default();
    let known = opening.saved_files().to_vec();
    let floor = Floor { file: opening.wal_floor(), sequence, known, ..Floor::default() };
    let opened = Wal::open(shared, Path::new("/data/wal"), &floor, &mut |file, _, kind, payload| {
        let is_sound = match kind {
            RecordKind::Deletion => opening.replay_deletion(file, payload),
            RecordKind::Histograms => opening.replay(file, payload, SampleKind::Histograms),
            _ => opening.replay(file, payload, SampleKind::Floats),
        };
        assert!(is_sound, "a record that passed its checksum was not understood");
    });
    let wal = Arc::new(opened.map_err(|error| error.to_string())?.0);
    let space = Arc::new(Space::new(Arc::new(disk.clone()), Path::new("/data")));
    let metrics = opening.finish(Arc::clone(&wal), space, Telemetry::default());
    metrics.finish_deletions();
    Ok((metrics, wal))
}

/// As [`crate::Store::maintain`] does it.
fn maintain(metrics: &Metrics, wal: &Wal, now: Timestamp) -> io::Result<()> {
    metrics.maintain(now, &|| Ok(()))?;
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
            // The blocks, and the log.
            let open = disk.open_files();
            assert!(open <= metrics.blocks().len() + 4, "{open} open files on day {}", now.0 / DAY_MS);
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

/// Series of several targets take turns, one of them has a column of times to itself, and the newest are in the head.
#[test]
fn a_part_of_the_time_is_read_as_such_whoever_shares_the_moments() {
    let disk = SimDisk::default();
    let (metrics, wal) = open(&disk).unwrap();
    let time =
        |series: i64, n: i64| Timestamp(n * 60_000 + series % 3 * 7 + i64::from(series == 5) * (n % 5));
    for n in 0..9 * 60 {
        for series in 0..9 {
            let sample = [Sample { timestamp: time(series, n), value: (n * 10 + series) as f64 }];
            let name = format!("m{series}");
            let one = RawSeries { labels: name.as_bytes(), samples: &sample, histograms: &[] };
            metrics.append(&[one], &Plain, time(series, n)).unwrap();
        }
    }
    maintain(&metrics, &wal, Timestamp(9 * HOUR_MS)).unwrap();
    for (start, end) in
        [(0, 600), (60, 70), (100, 400), (239, 241), (470, 530), (535, 600), (7, 8), (30, 540)]
    {
        let range = TimeRange { start: Timestamp(start * 60_000), end: Timestamp(end * 60_000) };
        let found = metrics.select(&[], range, &Deadline::default()).unwrap();
        for (one, series) in found.zip(0..) {
            let want = (0..9 * 60).filter(|n| range.contains(time(series, *n)));
            let want = want.map(|n| Sample { timestamp: time(series, n), value: (n * 10 + series) as f64 });
            assert_eq!(one.unwrap().samples, want.collect(), "m{series} from minute {start} to {end}");
        }
    }
}

/// What expires leaves rollups, at every call at which the disk may end, and no moment is answered twice.
/// Late and early, a number or a histogram: what a start finds is the same with the checkpoint and without it.
#[test]
fn a_checkpoint_says_what_the_log_says() {
    let disk = SimDisk::default();
    let (mut metrics, wal) = open(&disk).unwrap();
    // Only a clean stop saves.
    metrics.options.checkpoint_bytes = u64::MAX;
    let minute = 60_000;
    for step in 0..20_000i64 {
        let jump = if step % 97 == 0 { 40 * minute } else { 0 };
        let at = Timestamp(step * 900 - jump + 50 * minute);
        let sample = [Sample { timestamp: at, value: (step as f64).sin() }];
        let histogram =
            Arc::new(binnacle_model::histogram::Histogram { count: step as f64, ..Default::default() });
        let histogram = [HistogramSample { timestamp: at, histogram }];
        let name = format!("m{}", step % 7);
        let (samples, histograms): (&[_], &[_]) =
            if step % 7 == 3 { (&[], &histogram) } else { (&sample, &[]) };
        let batch = [RawSeries { labels: name.as_bytes(), samples, histograms }];
        metrics.append(&batch, &Plain, at).unwrap();
        if step % 1000 == 0 {
            maintain(&metrics, &wal, at).unwrap();
        }
    }
    metrics.checkpoint(&|| Ok(())).unwrap();
    let more = [Sample { timestamp: Timestamp(20_001 * 900 + 50 * minute), value: 4.5 }];
    let batch = [RawSeries { labels: b"m1", samples: &more, histograms: &[] }];
    metrics.append(&batch, &Plain, more[0].timestamp).unwrap();
    let want = all(&metrics);
    let saved = disk.crash(1);
    let (with, _) = open(&saved).unwrap();
    let unsaved = with.head().unsaved_bytes();
    assert!(unsaved > 0 && unsaved < 100, "one record is replayed, not {unsaved} bytes");
    assert_eq!(all(&with), want);
    saved.remove_file(&checkpoint::path_in(Path::new("/data/metrics"))).unwrap();
    let (without, _) = open(&saved).unwrap();
    assert!(without.head().unsaved_bytes() > 100_000, "all of the log is replayed");
    assert_eq!(all(&without), want);
    let ranges = |metrics: &Metrics| metrics.persisted_through(&wal.sealed());
    assert_eq!(ranges(&with), ranges(&without), "no file of the log goes too early");
}

fn all(metrics: &Metrics) -> Vec<(String, Samples, Vec<HistogramSample>)> {
    let series = metrics.select(&[], ALL_TIME, &Deadline::default()).unwrap();
    let mut all: Vec<_> = series
        .map(|one| one.unwrap())
        .map(|one| (one.labels.to_string(), one.samples, one.histograms))
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

/// Hours that [`delete_some`] deletes of one series: those of blocks, and of the head.
const DELETED: [std::ops::RangeInclusive<i64>; 2] = [3..=9, 28..=29];

/// Writes thirty hours, then deletes some of `m1`, then writes one of them again. Answers how far it came.
fn delete_some(disk: &SimDisk) -> usize {
    let Ok((metrics, wal)) = open(disk) else { return 0 };
    let append = |hour: i64| {
        let now = Timestamp(hour * HOUR_MS);
        let samples: Vec<[Sample; 1]> =
            (0..SERIES).map(|series| [Sample { timestamp: now, value: value(series, hour) }]).collect();
        let names: Vec<String> = (0..SERIES).map(|series| format!("m{series}")).collect();
        let series = names.iter().zip(&samples);
        let batch: Vec<RawSeries<'_>> = series
            .map(|(name, samples)| RawSeries { labels: name.as_bytes(), samples, histograms: &[] })
            .collect();
        metrics.append(&batch, &Plain, Timestamp(30 * HOUR_MS)).is_ok()
    };
    for hour in 0..30 {
        let now = Timestamp(hour * HOUR_MS);
        if !append(hour) || (hour % 5 == 4 && maintain(&metrics, &wal, now).is_err()) {
            return 0;
        }
    }
    let matchers = vec![vec![binnacle_model::Matcher::equal("__name__", "m1")]];
    for hours in DELETED {
        let range =
            TimeRange { start: Timestamp(hours.start() * HOUR_MS), end: Timestamp(hours.end() * HOUR_MS) };
        if metrics.delete(&matchers, range).is_err() {
            return 1;
        }
    }
    if !append(29) || maintain(&metrics, &wal, Timestamp(33 * HOUR_MS)).is_err() {
        return 2;
    }
    3
}

#[test]
fn whatever_call_is_the_last_what_was_deleted_stays_away_and_the_rest_stays() {
    let whole = SimDisk::default();
    assert_eq!(delete_some(&whole), 3);
    let hours_of = |found: &Found, series: usize| -> Vec<i64> {
        let samples = found.get(&format!("m{series}"));
        samples.into_iter().flatten().map(|(time, _)| time / HOUR_MS).collect()
    };
    let (metrics, _) = open(&whole).unwrap();
    let (found, missing) = read(&metrics);
    assert_eq!(missing, Vec::<String>::new());
    assert_eq!(hours_of(&found, 0), (0..30).collect::<Vec<_>>());
    let want: Vec<i64> =
        (0..30).filter(|hour| !DELETED.iter().any(|gone| gone.contains(hour)) || *hour == 29).collect();
    assert_eq!(hours_of(&found, 1), want);
    for step in 0..whole.steps() {
        let disk = SimDisk::default();
        disk.fail_after(step);
        let came = delete_some(&disk);
        for tear in 0..4 {
            let at = format!("after {step} calls, tear {tear}");
            let (metrics, _) =
                open(&disk.crash(step * 4 + tear)).unwrap_or_else(|error| panic!("{at}: {error}"));
            let (found, missing) = read(&metrics);
            assert!(missing.is_empty(), "{at}: {missing:?}");
            if came >= 1 {
                assert_eq!(hours_of(&found, 0), (0..30).collect::<Vec<_>>(), "{at}");
                let kept = hours_of(&found, 1);
                let others: Vec<i64> = kept
                    .iter()
                    .copied()
                    .filter(|hour| !DELETED.iter().any(|gone| gone.contains(hour)))
                    .collect();
                assert_eq!(others, want[..want.len() - 1], "{at}: what was not deleted stays");
                if came >= 2 {
                    assert!(kept == want || kept == others, "{at}: {kept:?}");
                }
            }
        }
    }
}

#[test]
fn what_comes_after_everything_was_deleted_stays() {
    let disk = SimDisk::default();
    assert_eq!(run(&disk), HOURS);
    let (metrics, wal) = open(&disk).unwrap();
    metrics.delete(&[vec![]], ALL_TIME).unwrap();
    assert_eq!(read(&metrics).0, Found::new());
    let append = |metrics: &Metrics, hour: i64| {
        let sample = [Sample { timestamp: Timestamp(hour * HOUR_MS), value: 1.0 }];
        let batch = [RawSeries { labels: b"m1", samples: &sample, histograms: &[] }];
        metrics.append(&batch, &Plain, Timestamp(hour * HOUR_MS)).unwrap();
    };
    for hour in HOURS..HOURS + 6 {
        append(&metrics, hour);
    }
    maintain(&metrics, &wal, Timestamp((HOURS + 6) * HOUR_MS)).unwrap();
    assert!(!metrics.blocks().is_empty());
    drop(metrics);
    let (metrics, _) = open(&disk).unwrap();
    assert_eq!(read(&metrics).0["m1"].len(), 6);
}

/// Samples of an append that failed are acknowledged only once the log has them.
#[test]
fn a_retry_after_a_failed_sync_is_durable() {
    let disk = SimDisk::default();
    let (metrics, wal) = open(&disk).unwrap();
    let sample = [Sample { timestamp: Timestamp(0), value: 1.0 }];
    let batch = [RawSeries { labels: b"m", samples: &sample, histograms: &[] }];
    disk.set_sync_failure(true);
    assert!(metrics.append(&batch, &Plain, Timestamp(0)).is_err());
    assert!(metrics.append(&batch, &Plain, Timestamp(0)).is_err(), "nothing is taken meanwhile");
    disk.set_sync_failure(false);
    wal.recover();
    assert_eq!(metrics.append(&batch, &Plain, Timestamp(0)).unwrap().duplicate, 1);
    for seed in 0..8 {
        let (metrics, _) = open(&disk.crash(seed)).unwrap();
        assert_eq!(read(&metrics).0["m"], [(0, 1.0)]);
    }
}
