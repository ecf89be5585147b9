//! What goes, by age, by size, by selector, and what stays; and what is refused.

use super::*;

#[test]
fn what_expires_leaves_an_hour_of_each() {
    use binnacle_model::storage::{Rollup, Wanted};

    let whole = SimDisk::default();
    run(&whole);
    let later = Timestamp((HOURS + 40) * HOUR_MS);
    let expire = |disk: &SimDisk| {
        let (mut metrics, wal) = open(disk).ok()?;
        metrics.options.rollup_retention = Some(Duration::from_hours(24 * 365));
        // What comes in says that the clock is right.
        let at = |hours: i64| Sample { timestamp: Timestamp(later.0 - hours * HOUR_MS), value: 1.0 };
        let samples = [at(4), at(0)];
        let batch = [RawSeries { labels: b"other", samples: &samples, histograms: &[] }];
        metrics.append(&batch, &Plain, later).ok()?;
        // Once for the block that says so, and once for what expires then.
        maintain(&metrics, &wal, later).ok()?;
        maintain(&metrics, &wal, later).ok()?;
        Some(metrics)
    };
    let hours = |metrics: &Metrics, wanted: Wanted| {
        let parts = metrics.select_parts(&[], ALL_TIME, wanted, &Deadline::default(), 1).unwrap();
        let series = parts.into_iter().flatten().map(|one| one.unwrap());
        let series = series.filter(|one| one.labels.metric_name() != "other");
        let shown = series.map(|one| {
            let samples = one.samples.iter().map(|sample| (sample.timestamp.0 / HOUR_MS, sample.value));
            (one.labels.to_string(), samples.collect::<Vec<_>>())
        });
        shown.collect::<BTreeMap<_, _>>()
    };
    let (before, _) = open(&whole).unwrap();
    let want = hours(&before, Wanted::All);
    let disk = whole.crash(0);
    let begin = disk.steps();
    let metrics = expire(&disk).unwrap();
    let steps = disk.steps() - begin;
    assert!(metrics.rolled_until().is_some_and(|until| until < later.minus(Duration::from_hours(50))));
    assert!(metrics.blocks().iter().any(|block| block.is_rollup()));
    for wanted in [Rollup::Last, Rollup::Min, Rollup::Max, Rollup::Sum].map(Wanted::Rolled) {
        assert_eq!(hours(&metrics, wanted), want, "a sample an hour is its own rollup");
    }
    for counts in hours(&metrics, Wanted::Rolled(Rollup::Count)).values() {
        assert!(counts.iter().all(|(_, count)| *count == 1.0));
    }
    let matchers = [Matcher::equal("__name__", "m1")];
    metrics.delete(&[matchers.to_vec()], ALL_TIME).unwrap();
    assert!(!hours(&metrics, Wanted::All).contains_key("m1"), "deleted from rollups, too");
    assert_eq!(hours(&metrics, Wanted::Rolled(Rollup::Max))["m2"], want["m2"]);
    for step in 0..steps {
        let disk = whole.crash(0);
        disk.fail_after(step);
        let _ = expire(&disk);
        let crashed = disk.crash(step);
        let metrics = expire(&crashed).unwrap_or_else(|| panic!("after {step} calls: the start is refused"));
        assert_eq!(hours(&metrics, Wanted::All), want, "after {step} calls");
    }
}

#[test]
fn the_oldest_blocks_go_when_all_are_too_large() {
    let disk = SimDisk::default();
    run(&disk);
    let (mut metrics, _) = open(&disk).unwrap();
    let sizes: u64 = metrics.blocks().iter().map(|block| block.bytes()).sum();
    let beside = metrics.wal.bytes().unwrap() + metrics.checkpoint_bytes();
    metrics.options.retention_bytes = Some(beside + sizes - 1);
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
    let (wal, _) =
        Wal::open(shared, Path::new("/copy/wal"), &Floor::default(), &mut |_, _, _, _| {}).unwrap();
    let space = Arc::new(Space::new(Arc::new(disk.clone()), Path::new("/data")));
    let copy = opening.finish(Arc::new(wal), space, Telemetry::default());
    assert_eq!(read(&copy), read(&metrics));
}

#[test]
fn some_series_are_kept_for_a_shorter_time() {
    let disk = SimDisk::default();
    assert_eq!(run(&disk), HOURS);
    let (mut metrics, wal) = open(&disk).unwrap();
    let matchers = vec![binnacle_model::Matcher::equal("__name__", "m1")];
    metrics.options.short_retentions = vec![ShortRetention { matchers, retention: Duration::from_hours(10) }];
    maintain(&metrics, &wal, Timestamp(HOURS * HOUR_MS)).unwrap();
    let (found, _) = read(&metrics);
    let first = |name: &str| found[name].first().map(|(time, _)| time / HOUR_MS);
    // Blocks go as a whole: one that has younger samples stays.
    assert!(first("m1") >= Some(20), "{:?}", first("m1"));
    assert!(first("m0") < Some(8), "{:?}", first("m0"));
    assert_eq!(found["m1"].last(), found["m0"].last().map(|(time, _)| (*time, value(1, HOURS - 1))).as_ref());
}

#[test]
fn a_job_with_too_many_series_gets_no_new_ones_and_the_others_do() {
    let disk = SimDisk::default();
    let (mut metrics, _) = open(&disk).unwrap();
    metrics.options.series_limit_per_job = 2;
    let now = Timestamp(HOUR_MS);
    let append = |names: &[&str], at: i64| {
        let sample = [Sample { timestamp: Timestamp(at), value: 1.0 }];
        let batch: Vec<RawSeries<'_>> = names
            .iter()
            .map(|name| RawSeries { labels: name.as_bytes(), samples: &sample, histograms: &[] })
            .collect();
        metrics.append(&batch, &Jobs, now).unwrap()
    };
    let report = append(&["a 1", "a 2", "a 3", "b 1"], 0);
    assert_eq!((report.appended, report.limited, report.limited_reason.is_some()), (3, 1, true));
    assert!(report.refusal().unwrap().contains("new series of job \"a\""));
    let report = append(&["a 1", "a 2", "a 3", "b 2", "b 3"], 1);
    assert_eq!((report.appended, report.limited), (3, 2), "known series go on");
}

/// `job number`
struct Jobs;

impl SeriesDecoder for Jobs {
    fn salt(&self) -> u64 {
        1
    }

    fn decode(&self, raw: &[u8]) -> Result<Labels, LabelsError> {
        let (job, number) = std::str::from_utf8(raw).unwrap().split_once(' ').unwrap();
        Labels::new([("__name__", "m"), ("job", job), ("number", number)])
    }
}

/// A deletion that took every block must not take what comes after it, whatever number that gets.

#[test]
fn a_clock_that_jumps_ahead_takes_nothing_away() {
    let disk = SimDisk::default();
    run(&disk);
    let (metrics, wal) = open(&disk).unwrap();
    let before = read(&metrics);
    maintain(&metrics, &wal, Timestamp(HOURS * HOUR_MS).plus(Duration::from_hours(24 * 366))).unwrap();
    assert_eq!(read(&metrics), before);
}

#[test]
fn a_file_that_cannot_be_removed_goes_later() {
    let disk = SimDisk::default();
    run(&disk);
    let (mut metrics, _) = open(&disk).unwrap();
    let files = |disk: &SimDisk| {
        let names = disk.list(Path::new("/data/metrics")).unwrap();
        names.iter().filter(|name| block::parse_name(name).is_some()).count()
    };
    assert!(files(&disk) > 1);
    metrics.options.retention_bytes = Some(0);
    disk.fail_under(Some((Path::new("/data/metrics"), 1)));
    assert!(metrics.expire(Timestamp(HOURS * HOUR_MS)).is_err());
    assert!(metrics.blocks().is_empty());
    assert!(files(&disk) > 0, "one was removed, and the others could not be");
    disk.fail_under(None);
    metrics.expire(Timestamp(HOURS * HOUR_MS)).unwrap();
    assert_eq!(files(&disk), 0);
}

#[test]
fn all_series_together_have_a_limit_too() {
    let disk = SimDisk::default();
    let (mut metrics, _) = open(&disk).unwrap();
    metrics.options.series_limit = 2;
    let samples = [Sample { timestamp: Timestamp(0), value: 1.0 }];
    let one =
        |labels: &'static str| RawSeries { labels: labels.as_bytes(), samples: &samples, histograms: &[] };
    let report = metrics.append(&[one("a"), one("b"), one("c")], &Plain, Timestamp(0)).unwrap();
    assert_eq!((report.appended, report.limited), (2, 1));
    assert!(report.refusal().unwrap().contains("storage.tsdb.series_limit allows"));
    let report = metrics.append(&[one("a"), one("c")], &Plain, Timestamp(0)).unwrap();
    assert_eq!((report.duplicate, report.limited), (1, 1), "those that are known go on");
}
