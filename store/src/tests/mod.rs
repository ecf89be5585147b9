//! The store as a whole on a simulated disk: crashed anywhere, it keeps what it acknowledged.

mod archive;
mod delete;
mod long;
mod pods;
mod upkeep;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use binnacle_model::histogram::{Buckets, Histogram, ResetHint};
use binnacle_model::labels::LabelsError;
use binnacle_model::log::FileId;
use binnacle_model::log::LogEntry;
use binnacle_model::log_query::LogQuery;
use binnacle_model::push::LogPush;
use binnacle_model::push::{FileBatch, Pair, PushEntry, PushField, PushValue, SharedFields};
use binnacle_model::storage::{
    ALL_TIME, AppendError, AppendReport, Appender, Deadline, HistogramSample, LogAppender, LogRequest,
    LogSearcher as _, LogSlices, PageRequest, Queryable, RawSeries, SeriesDecoder, StorageError,
};
use binnacle_model::{Labels, LogTime, Matcher, Sample, Samples, Timestamp};

use super::*;
use crate::fs::SimDisk;
use crate::logs::REFILL;

const HOUR_MS: i64 = 3_600_000;

#[derive(Default)]
struct TestClock(AtomicI64);

impl Clock for TestClock {
    fn now_ns(&self) -> LogTime {
        LogTime(self.0.load(Ordering::Relaxed) * 1_000_000)
    }
}

/// Label bytes of the tests: `name=value,name=value`.
struct Plain;

impl SeriesDecoder for Plain {
    fn salt(&self) -> u64 {
        0
    }

    fn decode(&self, raw: &[u8]) -> Result<Labels, LabelsError> {
        let text = std::str::from_utf8(raw).unwrap();
        Labels::new(text.split(',').filter_map(|pair| pair.split_once('=')))
    }
}

struct World {
    disk: SimDisk,
    clock: Arc<TestClock>,
    catalog: Catalog,
}

impl World {
    fn new() -> Self {
        let clock = Arc::new(TestClock::default());
        Self { disk: SimDisk::default(), clock, catalog: Catalog::in_memory() }
    }

    fn at(&self, ms: i64) {
        self.clock.0.store(ms, Ordering::Relaxed);
    }

    fn open(self) -> Result<(Store, SimDisk, Arc<TestClock>), OpenError> {
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let clock: Arc<dyn Clock> = self.clock.clone();
        let telemetry = Telemetry::default();
        let options = Options::default();
        let store = Store::open_on(disk, Path::new("/data"), options, clock, telemetry, self.catalog)?;
        Ok((store, self.disk, self.clock))
    }
}

/// The store that a restart finds after `disk` crashed.
fn reopen(disk: &SimDisk, seed: u64, clock: &Arc<TestClock>, catalog: Catalog) -> Store {
    let world = World { disk: disk.crash(seed), clock: Arc::clone(clock), catalog };
    world.open().unwrap().0
}

fn append(store: &Store, series: &str, at_ms: i64, value: f64) -> Result<AppendReport, AppendError> {
    let samples = [Sample { timestamp: Timestamp(at_ms), value }];
    let batch = [RawSeries { labels: series.as_bytes(), samples: &samples, histograms: &[] }];
    Appender::append(store, &batch, &Plain)
}

fn select(store: &Store, matchers: &[Matcher]) -> Vec<(String, Vec<(i64, f64)>)> {
    let found = store.select(matchers, ALL_TIME, &Deadline::default()).unwrap();
    let pairs = |samples: Samples| samples.iter().map(|s| (s.timestamp.0, s.value)).collect();
    found.map(|one| one.unwrap()).map(|one| (one.labels.to_string(), pairs(one.samples))).collect()
}

fn push(file: &str, lines: std::ops::Range<u64>) -> LogPush {
    let entry = |offset: u64| PushEntry {
        time_ns: offset as i64,
        offset: offset * 10,
        message: format!("line {offset} of {file}").into_bytes(),
        ..PushEntry::default()
    };
    LogPush {
        batches: vec![FileBatch {
            file: file.to_owned(),
            from: lines.start * 10,
            to: lines.end * 10,
            stream: vec![Pair { name: "pod".into(), value: file.to_owned() }],
            entries: lines.map(entry).collect(),
            ..FileBatch::default()
        }],
    }
}

/// Lines that share attributes.
fn push_sharing() -> LogPush {
    let mut push = push("f", 1..3);
    let field = |name: &str, value| PushField { name: name.to_owned(), value };
    let fields = vec![field("agent", Some(PushValue::Text("beat".to_owned()))), field("n", None)];
    push.batches[0].shared = vec![SharedFields { fields, gaps: vec![1] }];
    for (n, entry) in (7..).zip(&mut push.batches[0].entries) {
        (entry.shared, entry.fields) = (1, vec![field("", Some(PushValue::Int(n)))]);
    }
    push
}

fn lines(store: &Store) -> Vec<String> {
    let (found, warnings) = found_lines(store);
    assert_eq!(warnings, Vec::<String>::new());
    found
}

/// All lines, and what is missing.
fn found_lines(store: &Store) -> (Vec<String>, Vec<String>) {
    let (found, warnings) = found_entries(store);
    let found = found.iter().map(|entry| String::from_utf8(entry.message.clone()).unwrap());
    (found.collect(), warnings)
}

/// All entries, newest first, and what is missing.
fn found_entries(store: &Store) -> (Vec<LogEntry>, Vec<String>) {
    assert!(store.flush_logs());
    let request = LogRequest { query: LogQuery::All, start: LogTime(i64::MIN), end: LogTime(i64::MAX) };
    let wanted = PageRequest { limit: 10_000, counts: true, ..PageRequest::default() };
    let page = store.search(&request, wanted, &Deadline::default()).unwrap();
    assert_eq!(page.total, Some(page.entries.len() as u64));
    (page.entries.into_iter().map(|(_, entry)| entry).collect(), page.warnings)
}

#[test]
fn samples_move_from_head_to_blocks_and_stay_the_same() {
    let (store, disk, clock) = World::new().open().unwrap();
    let mut want = Vec::new();
    for minute in 0..(8 * 60) {
        clock.0.store(minute * 60_000, Ordering::Relaxed);
        append(&store, "__name__=up,job=a", minute * 60_000, minute as f64).unwrap();
        want.push((minute * 60_000, minute as f64));
        if minute % 30 == 0 {
            store.maintain().unwrap();
        }
    }
    let want = vec![("up{job=\"a\"}".to_owned(), want)];
    assert!(store.metrics_blocks() >= 3, "{} blocks", store.metrics_blocks());
    assert_eq!(select(&store, &[Matcher::equal("job", "a")]), want);
    // A late sample of a span that is in a block already, then everything once more.
    append(&store, "__name__=up,job=a", 30_001, 7.0).unwrap();
    let report = append(&store, "__name__=up,job=a", 7 * HOUR_MS, 99.0).unwrap();
    assert_eq!(report.conflicting, 1);
    drop(store);
    let reopened = reopen(&disk, 1, &clock, Catalog::in_memory());
    let found = select(&reopened, &[Matcher::equal("__name__", "up")]);
    assert_eq!(found[0].1.len(), want[0].1.len() + 1);
    assert!(found[0].1.contains(&(30_001, 7.0)));
}

fn histogram(count: f64) -> Histogram {
    let positive: Buckets = [(-2, count / 4.0), (0, count / 2.0), (7, count / 4.0)].into_iter().collect();
    Histogram { schema: 3, count, sum: count * 1.5, positive, ..Histogram::default() }
}

fn append_histogram(store: &Store, series: &str, at_ms: i64, histogram: Histogram) -> AppendReport {
    let histograms = [HistogramSample { timestamp: Timestamp(at_ms), histogram: Arc::new(histogram) }];
    let batch = [RawSeries { labels: series.as_bytes(), samples: &[], histograms: &histograms }];
    Appender::append(store, &batch, &Plain).unwrap()
}

fn histograms(store: &Store) -> Vec<(i64, Histogram)> {
    let found = store.select(&[Matcher::equal("__name__", "lat")], ALL_TIME, &Deadline::default()).unwrap();
    let all = found.flat_map(|series| series.unwrap().histograms);
    all.map(|one| (one.timestamp.0, (*one.histogram).clone())).collect()
}

#[test]
fn histograms_move_from_head_to_blocks_and_stay_the_same() {
    let (mut store, mut disk, clock) = World::new().open().unwrap();
    let mut want = Vec::new();
    for minute in 0..(8 * 60) {
        let at = minute * 60_000;
        clock.0.store(at, Ordering::Relaxed);
        // The counter begins anew every 100 minutes.
        let one = histogram((1 + minute % 100) as f64 * 4.0);
        append_histogram(&store, "__name__=lat,job=a", at, one.clone());
        append(&store, "__name__=lat,job=a", at + 1, 1.0).unwrap();
        let hint = if minute % 100 == 0 { ResetHint::Unknown } else { ResetHint::NotReset };
        want.push((at, Histogram { hint, ..one }));
        if minute % 30 == 0 {
            store.maintain().unwrap();
        }
        if minute % 150 == 149 {
            drop(store);
            let crashed = disk.crash(minute as u64);
            let world = World { disk: crashed, clock: Arc::clone(&clock), catalog: Catalog::in_memory() };
            (store, disk, _) = world.open().unwrap();
        }
    }
    assert!(store.metrics_blocks() >= 3, "{} blocks", store.metrics_blocks());
    assert_eq!(histograms(&store), want);
    assert_eq!(select(&store, &[Matcher::equal("__name__", "lat")])[0].1.len(), want.len());
    let again = append_histogram(&store, "__name__=lat,job=a", 7 * HOUR_MS, histogram(84.0));
    assert_eq!((again.duplicate, again.conflicting), (1, 0), "{again:?}");
    let other = append_histogram(&store, "__name__=lat,job=a", 7 * HOUR_MS, histogram(12.0));
    assert_eq!((other.duplicate, other.conflicting), (0, 1), "{other:?}");
    // A moment has one value: a number where a histogram stands, and the other way round.
    assert_eq!(append(&store, "__name__=lat,job=a", 7 * HOUR_MS, 1.0).unwrap().conflicting, 1);
    assert_eq!(
        append_histogram(&store, "__name__=lat,job=a", 7 * HOUR_MS + 1, histogram(4.0)).conflicting,
        1
    );
}

#[test]
fn too_old_and_too_new_samples_are_refused_with_a_count() {
    let world = World::new();
    world.at(100 * 24 * HOUR_MS);
    let (store, ..) = world.open().unwrap();
    let now = 100 * 24 * HOUR_MS;
    assert_eq!(append(&store, "a=b", now - 46 * 24 * HOUR_MS, 1.0).unwrap().too_old, 1);
    assert_eq!(append(&store, "a=b", now + 11 * 60_000, 1.0).unwrap().too_far_ahead, 1);
    assert_eq!(append(&store, "a=b", now, 1.0).unwrap().appended, 1);
    assert_eq!(append(&store, "a=b", now, 1.0).unwrap().duplicate, 1);
}

#[test]
fn lines_sent_again_are_known_even_after_their_wal_file_is_gone() {
    let (store, disk, clock) = World::new().open().unwrap();
    LogAppender::append(&store, push("f", 0..5), LogTime(1)).unwrap();
    let report = LogAppender::append(&store, push("f", 3..8), LogTime(2)).unwrap();
    assert_eq!((report.appended, report.duplicate, report.gap_bytes), (3, 2, 0));
    let report = LogAppender::append(&store, push("f", 9..10), LogTime(2)).unwrap();
    assert_eq!((report.appended, report.gap_bytes), (1, 10));
    assert_eq!(lines(&store).len(), 9);
    store.close();
    drop(store);
    let reopened = reopen(&disk, 3, &clock, Catalog::in_memory());
    let report = LogAppender::append(&reopened, push("f", 0..12), LogTime(3)).unwrap();
    assert_eq!((report.appended, report.duplicate), (2, 10));
    assert_eq!(lines(&reopened).len(), 11);
}

#[test]
fn lines_whose_commit_failed_are_found_later_and_once() {
    for step in 0..150 {
        let (store, disk, clock) = World::new().open().unwrap();
        let day = |number: i64| LogTime(number * 86_400_000_000_000 + 1);
        LogAppender::append(&store, push("f", 0..3), day(0)).unwrap();
        assert!(store.flush_logs());
        disk.fail_under(Some((Path::new("/data/logs"), step)));
        LogAppender::append(&store, push("f", 3..5), day(0)).unwrap();
        // Where enough calls were let through, this one is committed.
        store.flush_logs();
        LogAppender::append(&store, push("f", 5..8), day(1)).unwrap();
        store.flush_logs();
        disk.fail_under(None);
        LogAppender::append(&store, push("f", 8..9), day(1)).unwrap();
        let mut found = lines(&store);
        found.sort();
        let want: Vec<String> = (0..9).map(|line| format!("line {line} of f")).collect();
        assert_eq!(found, want, "after {step} calls");
        store.close();
        drop(store);
        let store = reopen(&disk, step, &clock, Catalog::in_memory());
        assert_eq!(lines(&store).len(), 9, "after {step} calls and a restart");
        store.close();
    }
}

#[test]
fn a_lost_log_file_does_not_make_later_writes_look_old() {
    let (store, disk, clock) = World::new().open().unwrap();
    for hour in 0..12 {
        clock.0.store(hour * HOUR_MS, Ordering::Relaxed);
        append(&store, "__name__=up", hour * HOUR_MS, 1.0).unwrap();
        LogAppender::append(&store, push("f", hour as u64..hour as u64 + 1), LogTime(1)).unwrap();
    }
    assert!(store.flush_logs());
    store.maintain().unwrap();
    assert!(store.metrics_blocks() > 0);
    store.close();
    drop(store);
    let wal = Path::new("/data/wal");
    for name in disk.list(wal).unwrap() {
        disk.remove_file(&wal.join(name)).unwrap();
    }
    disk.sync_dir(wal).unwrap();
    // Numbering that began at the bottom again would be passed over at the next replay: blocks and
    // partitions say that they hold everything up to a record.
    let world = World { disk, clock: Arc::clone(&clock), catalog: Catalog::in_memory() };
    let (store, disk, _) = world.open().unwrap();
    clock.0.store(12 * HOUR_MS, Ordering::Relaxed);
    assert_eq!(append(&store, "__name__=up", 12 * HOUR_MS, 2.0).unwrap().appended, 1);
    LogAppender::append(&store, push("g", 0..1), LogTime(1)).unwrap();
    let store = reopen(&disk, 2, &clock, Catalog::in_memory());
    assert!(select(&store, &[])[0].1.contains(&(12 * HOUR_MS, 2.0)));
    assert!(lines(&store).contains(&"line 0 of g".to_owned()));
    store.close();
}

/// A store in a folder of the real disk, with one commit of lines and samples behind a checkpoint.
fn saved_in(dir: &Path, clock: &Arc<TestClock>) {
    let store = open_in(dir, clock);
    LogAppender::append(&store, push("f", 0..3), LogTime(1)).unwrap();
    store.logs.seal_now();
    let report = append(&store, "__name__=up", 1, 1.0).unwrap();
    assert_eq!(report.appended, 1);
    store.metrics.checkpoint(&|| store.logs.save_marks(&store.catalog)).unwrap();
    store.close();
}

fn open_in(dir: &Path, clock: &Arc<TestClock>) -> Store {
    Store::open(dir, Options::default(), Arc::clone(clock) as Arc<dyn Clock>, Telemetry::default()).unwrap()
}

#[test]
fn a_start_does_not_read_what_a_checkpoint_and_the_partitions_have() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(TestClock::default());
    saved_in(dir.path(), &clock);
    let wal = dir.path().join("wal");
    for name in RealDisk.list(&wal).unwrap() {
        RealDisk.create(&wal.join(name)).unwrap().append(&[b'x'; 500]).unwrap();
    }
    let store = open_in(dir.path(), &clock);
    assert_eq!(store.telemetry.wal_damaged_bytes.get(), 0, "it was not looked at");
    assert_eq!(lines(&store).len(), 3);
    assert_eq!(select(&store, &[])[0].1, [(1, 1.0)]);
    assert_eq!(append(&store, "__name__=up", 2, 1.0).unwrap().appended, 1);
    store.close();
}

#[test]
fn lines_of_a_damaged_page_come_back_out_of_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(TestClock::default());
    saved_in(dir.path(), &clock);
    let logs = dir.path().join("logs");
    let partitions = RealDisk.list(&logs).unwrap();
    assert_eq!(partitions.len(), 1);
    let partition = logs.join(&partitions[0]);
    // More than once, and also where a process ends before the lines are back in a page.
    for round in 0..4 {
        let names = RealDisk.list(&partition).unwrap();
        let page = names.iter().rfind(|name| name.split_once(".page") == Some((&name[..6], ""))).unwrap();
        RealDisk.create(&partition.join(page)).unwrap().append(b"{").unwrap();
        if round > 1 {
            // What another start leaves that ends at once.
            RealDisk.create(&logs.join(REFILL)).unwrap().sync().unwrap();
            let aside = page.replace(".page", ".damaged");
            RealDisk.rename(&partition.join(page), &partition.join(aside)).unwrap();
        }
        let store = open_in(dir.path(), &clock);
        assert_eq!(found_lines(&store).0.len(), 3, "round {round}");
        let warnings = found_lines(&store).1;
        assert_eq!(warnings.len(), round + 1, "{warnings:?}");
        assert_eq!(select(&store, &[])[0].1, [(1, 1.0)]);
        assert!(RealDisk.exists(&logs.join(REFILL)).unwrap());
        store.maintain().unwrap();
        store.logs.seal_now();
        store.maintain().unwrap();
        assert!(!RealDisk.exists(&logs.join(REFILL)).unwrap());
        store.close();
    }
}

#[test]
fn lines_are_found_after_the_log_failed_and_went_on() {
    let (store, disk, _) = World::new().open().unwrap();
    LogAppender::append(&store, push("f", 0..3), LogTime(1)).unwrap();
    assert!(store.flush_logs());
    disk.fail_under(Some((Path::new("/data/wal"), 0)));
    assert!(LogAppender::append(&store, push("f", 3..5), LogTime(1)).is_err());
    assert!(!store.flush_logs());
    disk.fail_under(None);
    store.recover().unwrap();
    LogAppender::append(&store, push("f", 3..7), LogTime(1)).unwrap();
    while !store.flush_logs() {}
    assert_eq!(lines(&store).len(), 7);
    store.close();
}

#[test]
fn pages_of_a_search_follow_one_another_without_a_gap() {
    let (store, ..) = World::new().open().unwrap();
    LogAppender::append(&store, push("a", 0..50), LogTime(1)).unwrap();
    LogAppender::append(&store, push("b", 0..50), LogTime(86_400_000_000_001)).unwrap();
    let all = lines(&store);
    let request = LogRequest { query: LogQuery::All, start: LogTime(0), end: LogTime(1_000) };
    let mut paged = Vec::new();
    let mut cursor = None;
    loop {
        let wanted = PageRequest { limit: 7, cursor, counts: true, ..PageRequest::default() };
        let page = store.search(&request, wanted, &Deadline::default()).unwrap();
        assert_eq!(page.total, Some(100));
        let Some((last, _)) = page.entries.last() else { break };
        cursor = Some(*last);
        paged.extend(page.entries.iter().map(|(_, e)| String::from_utf8_lossy(&e.message).into_owned()));
    }
    assert_eq!(paged, all);
}

/// What was acknowledged before the disk died.
#[derive(Default)]
struct Acked {
    samples: Vec<i64>,
    lines: u64,
}

/// Writes samples over some hours and lines over two days, with maintenance, until the disk dies.
fn run(disk: &SimDisk, clock: &Arc<TestClock>) -> Acked {
    let mut acked = Acked::default();
    let world = World { disk: disk.clone(), clock: Arc::clone(clock), catalog: Catalog::in_memory() };
    let Ok((store, ..)) = world.open() else { return acked };
    for step in 0..10u64 {
        let at = step as i64 * HOUR_MS;
        clock.0.store(at, Ordering::Relaxed);
        if append(&store, "__name__=up", at, step as f64).is_err() {
            break;
        }
        acked.samples.push(at);
        let received = LogTime(step as i64 * 20_000_000_000_000);
        if LogAppender::append(&store, push("f", step * 3..step * 3 + 3), received).is_err() {
            break;
        }
        acked.lines = step * 3 + 3;
        if step % 3 == 2 && (!store.flush_logs() || store.maintain().is_err()) {
            break;
        }
    }
    store.close();
    acked
}

#[test]
fn whatever_call_is_the_last_what_was_acknowledged_is_there_once() {
    let clock = Arc::new(TestClock::default());
    let whole = SimDisk::default();
    let acked = run(&whole, &clock);
    assert_eq!((acked.samples.len(), acked.lines), (10, 30));
    let mut step = 0;
    while step < whole.steps() + 20 {
        let disk = SimDisk::default();
        disk.fail_after(step);
        let acked = run(&disk, &clock);
        // The catalog is lost too: marks then come from the WAL alone, which keeps them long enough.
        let store = reopen(&disk, step, &clock, Catalog::in_memory());
        let found = select(&store, &[]);
        let times: Vec<i64> =
            found.first().map(|one| one.1.iter().map(|s| s.0).collect()).unwrap_or_default();
        assert!(times.starts_with(&acked.samples), "step {step}: {times:?}");
        let found = lines(&store);
        let unique: BTreeSet<&String> = found.iter().collect();
        assert_eq!(unique.len(), found.len(), "step {step}: a line came twice");
        for line in 0..acked.lines {
            assert!(found.contains(&format!("line {line} of f")), "step {step}: line {line} lost");
        }
        store.close();
        step += 1;
    }
}

#[test]
fn a_damaged_block_is_set_aside_and_the_rest_is_served() {
    let (store, disk, clock) = World::new().open().unwrap();
    for hour in 0..12 {
        clock.0.store(hour * HOUR_MS, Ordering::Relaxed);
        append(&store, "__name__=up", hour * HOUR_MS, 1.0).unwrap();
        store.maintain().unwrap();
    }
    store.close();
    drop(store);
    let dir = Path::new("/data/metrics");
    let name = disk.list(dir).unwrap().remove(0);
    disk.flip_bit(&dir.join(&name), 8 * 60);
    let reopened = reopen(&disk, 0, &clock, Catalog::in_memory());
    assert!(disk.exists(&dir.join(&name)).unwrap());
    // The flipped bit lies in the footer of this small block, or in what a query reads.
    let found = reopened.select(&[], ALL_TIME, &Deadline::default());
    let read = found.and_then(std::iter::Iterator::collect::<Result<Vec<_>, _>>);
    if let Ok(series) = read {
        assert!(series[0].samples.len() < 12, "a damaged block was answered");
    }
}

/// Files that release 1 wrote: every later release reads them.
const WAL_V1: &[u8] = include_bytes!("../../testdata/format/v1/0000000001.wal");
const BLOCK_V1: &[u8] = include_bytes!("../../testdata/format/v1/0000000001-0-3600000.block");

/// The log of the release that was the first to have attributes which lines share.
const WAL_V2: &[u8] = include_bytes!("../../testdata/format/v2/0000000001.wal");

fn put(disk: &SimDisk, path: &str, bytes: &[u8]) {
    let path = Path::new(path);
    disk.create_dir_all(path.parent().unwrap()).unwrap();
    disk.create(path).unwrap().append(bytes).unwrap();
}

#[test]
fn files_of_release_1_are_read() {
    let world = World::new();
    put(&world.disk, "/data/wal/0000000001.wal", WAL_V1);
    put(&world.disk, "/data/metrics/0000000001-0-3600000.block", BLOCK_V1);
    let (store, ..) = world.open().unwrap();
    let found = select(&store, &[]);
    let show: Vec<String> = found.iter().map(|(labels, samples)| format!("{labels} {samples:?}")).collect();
    assert_eq!(
        show,
        [
            "in_block{job=\"a\"} [(0, 1.0), (3600000, -0.5)]",
            "in_wal{job=\"b\"} [(7200000, 2.0), (7200001, inf)]",
        ]
    );
    assert_eq!(lines(&store), ["line 2 of f", "line 1 of f"]);
    store.close();
}

#[test]
fn a_log_of_version_2_is_read() {
    let world = World::new();
    put(&world.disk, "/data/wal/0000000001.wal", WAL_V2);
    let (store, ..) = world.open().unwrap();
    let labels: Vec<String> = select(&store, &[]).into_iter().map(|(labels, _)| labels).collect();
    assert_eq!(labels, ["in_wal{job=\"b\"}"]);
    let (entries, _) = found_entries(&store);
    let shown = entries.iter().map(|entry| format!("{:?}", entry.attributes));
    let want = |n| format!("[(\"agent\", Text(\"beat\")), (\"n\", Int({n}))]");
    assert_eq!(shown.collect::<Vec<_>>(), [want(8), want(7)]);
    store.close();
}

/// Writes the files above: `BINNACLE_FIXTURES=DIR cargo test --workspace fixtures`. Once per release.
#[test]
#[allow(clippy::disallowed_methods, reason = "fixtures go to the real disk")]
fn fixtures_can_be_written() {
    let Some(dir) = std::env::var_os("BINNACLE_FIXTURES") else { return };
    let (store, disk, clock) = World::new().open().unwrap();
    append(&store, "__name__=in_block,job=a", 0, 1.0).unwrap();
    clock.0.store(HOUR_MS, Ordering::Relaxed);
    append(&store, "__name__=in_block,job=a", HOUR_MS, -0.5).unwrap();
    clock.0.store(4 * HOUR_MS, Ordering::Relaxed);
    append(&store, "__name__=mark", 4 * HOUR_MS, 0.0).unwrap();
    store.maintain().unwrap();
    let name = disk.list(Path::new("/data/metrics")).unwrap().remove(0);
    let read = |disk: &SimDisk, path: &Path| fs::read_all(disk, path, 1 << 20).unwrap();
    std::fs::write(Path::new(&dir).join(&name), read(&disk, &Path::new("/data/metrics").join(&name)))
        .unwrap();
    store.close();
    let (store, disk, clock) = World::new().open().unwrap();
    clock.0.store(2 * HOUR_MS, Ordering::Relaxed);
    append(&store, "__name__=in_wal,job=b", 2 * HOUR_MS, 2.0).unwrap();
    append(&store, "__name__=in_wal,job=b", 2 * HOUR_MS + 1, f64::INFINITY).unwrap();
    LogAppender::append(&store, push_sharing(), LogTime(1)).unwrap();
    let wal = read(&disk, Path::new("/data/wal/0000000001.wal"));
    std::fs::write(Path::new(&dir).join("0000000001.wal"), wal).unwrap();
    store.close();
}
