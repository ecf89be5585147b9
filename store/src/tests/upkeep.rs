//! Partitions of logs over days: classes, joined pages, expiry.

use binnacle_model::MatchOp;

use super::*;
use crate::logs::LogClass;

const DAY_MS: i64 = 24 * HOUR_MS;

pub(super) fn class(name: &str, days: u64) -> LogClass {
    let matchers = vec![Matcher::new("pod", MatchOp::Equal, name).unwrap()];
    LogClass {
        name: name.into(),
        matchers,
        retention: Duration::from_hours(24 * days),
        retention_bytes: None,
    }
}

pub(super) fn options(classes: Vec<LogClass>) -> Options {
    let retention = Duration::from_hours(24 * 7);
    Options { logs: LogOptions { retention, classes, ..LogOptions::default() }, ..Options::default() }
}

pub(super) fn open(
    disk: &SimDisk,
    clock: &Arc<TestClock>,
    catalog: Catalog,
    options: Options,
) -> Result<Store, OpenError> {
    let own: Arc<dyn Disk> = Arc::new(disk.clone());
    let clock: Arc<dyn Clock> = Arc::clone(clock) as Arc<dyn Clock>;
    Store::open_on(own, Path::new("/data"), options, clock, Telemetry::default(), catalog)
}

/// Lines of several files, in one push.
fn pushed(files: &[&str], line: u64) -> LogPush {
    LogPush { batches: files.iter().flat_map(|file| push(file, line..line + 1).batches).collect() }
}

pub(super) fn partitions(disk: &SimDisk) -> Vec<String> {
    disk.list(Path::new("/data/logs")).unwrap().into_iter().filter(|name| name.starts_with('p')).collect()
}

fn pages(disk: &SimDisk) -> usize {
    let of = |name: &String| disk.list(&Path::new("/data/logs").join(name)).unwrap();
    partitions(disk).iter().flat_map(of).filter(|file| file.strip_suffix(".page").is_some()).count()
}

/// Adds a line of each file every hour and seals it, so that every page is small.
pub(super) fn run_hours(
    store: &Store,
    clock: &TestClock,
    disk: &SimDisk,
    hours: std::ops::Range<i64>,
) -> Option<i64> {
    for hour in hours {
        clock.0.store(hour * HOUR_MS, Ordering::Relaxed);
        let received = LogTime(hour * HOUR_MS * 1_000_000);
        let push = pushed(&["audit", "dev", "shop"], hour as u64);
        if LogAppender::append(store, push, received).is_err()
            || !seal(store, disk)
            || store.maintain().is_err()
        {
            return Some(hour);
        }
    }
    None
}

/// Whether all lines are in sealed pages; a dead disk keeps them from that.
pub(super) fn seal(store: &Store, disk: &SimDisk) -> bool {
    if !store.flush_logs() {
        return false;
    }
    store.logs.ask_to_seal();
    while !store.logs.is_sealed() {
        if disk.has_died() {
            return false;
        }
        std::thread::sleep(Duration::from_micros(100));
    }
    true
}

#[test]
fn each_class_is_kept_for_its_own_time() {
    let (disk, clock) = (SimDisk::default(), Arc::new(TestClock::default()));
    let classes = options(vec![class("audit", 30), class("dev", 1)]);
    let store = open(&disk, &clock, Catalog::in_memory(), classes).unwrap();
    assert_eq!(run_hours(&store, &clock, &disk, 0..24 * 12), None);
    let left = lines(&store);
    let oldest = |file: &str| {
        let numbers = left.iter().filter_map(|line| line.strip_suffix(&format!(" of {file}")));
        numbers.filter_map(|line| line.strip_prefix("line ")?.parse::<u64>().ok()).min().unwrap() / 24
    };
    // The last line came on the twelfth day; a day goes once its end is older than the retention.
    assert_eq!((oldest("audit"), oldest("shop"), oldest("dev")), (0, 4, 10));
    store.close();
}

#[test]
fn marks_go_with_the_lines_of_their_time_and_stay_for_who_asks() {
    let (disk, clock) = (SimDisk::default(), Arc::new(TestClock::default()));
    let kept = || {
        let mut kept = options(Vec::new());
        kept.logs.retention = Duration::from_hours(48);
        kept
    };
    let dir = tempfile::tempdir().unwrap();
    let catalog = || Catalog::open(&dir.path().join("catalog")).unwrap();
    let file = |day: u64| format!("file-{day}");
    let mut store = open(&disk, &clock, catalog(), kept()).unwrap();
    for day in 0..60 {
        clock.0.store(day as i64 * 24 * HOUR_MS, Ordering::Relaxed);
        let received = LogTime(day as i64 * 24 * HOUR_MS * 1_000_000);
        LogAppender::append(&store, pushed(&[&file(day)], day), received).unwrap();
        // The files of this node are asked for by its collector: one of them is silent for ever.
        LogAppender::marks(&store, &[file(1)]).unwrap();
        assert!(seal(&store, &disk));
        // What is not saved is not forgotten.
        store.logs.save_marks(&store.catalog).unwrap();
        store.maintain().unwrap();
        if day == 40 {
            store.close();
            store = open(&disk, &clock, catalog(), kept()).unwrap();
        }
    }
    let saved = store.catalog.marks().unwrap();
    assert!((14..20).contains(&saved.len()), "{}", saved.len());
    let marks = LogAppender::marks(&store, &[file(0), file(1), file(30), file(50)]).unwrap();
    assert_eq!((marks[0], marks[2]), (0, 0));
    assert!(marks[1] > 0 && marks[3] > 0, "{marks:?}");
}

#[test]
fn other_classes_at_the_next_start_double_nothing_and_lose_nothing() {
    let (disk, clock) = (SimDisk::default(), Arc::new(TestClock::default()));
    let store = open(&disk, &clock, Catalog::in_memory(), options(vec![class("audit", 30)])).unwrap();
    for line in 0..20 {
        LogAppender::append(&store, pushed(&["audit", "dev", "shop"], line), LogTime(0)).unwrap();
        if line == 7 {
            store.logs.seal_now();
        }
    }
    assert!(store.flush_logs());
    let crashed = disk.crash(1);
    for classes in [vec![class("dev", 30)], vec![class("shop", 2), class("audit", 4)], Vec::new()] {
        let store = open(&crashed, &clock, Catalog::in_memory(), options(classes)).unwrap();
        let found = lines(&store);
        let unique: BTreeSet<&String> = found.iter().collect();
        assert_eq!((found.len(), unique.len()), (60, 60));
        store.close();
    }
}

#[test]
fn a_class_that_is_sealed_takes_no_line_of_another_from_the_log() {
    let (disk, clock) = (SimDisk::default(), Arc::new(TestClock::default()));
    let classes = || options(vec![class("dev", 30)]);
    let catalog = tempfile::tempdir().unwrap();
    let catalog = || Catalog::open(&catalog.path().join("catalog")).unwrap();
    let store = open(&disk, &clock, catalog(), classes()).unwrap();
    // A head with samples leaves a checkpoint, which says what of the log need not be read.
    append(&store, "__name__=up", 0, 1.0).unwrap();
    LogAppender::append(&store, push("audit", 0..1), LogTime(0)).unwrap();
    // More than a page has: it is sealed, and stands for a later record than the one that is not.
    LogAppender::append(&store, push("dev", 0..70_000), LogTime(0)).unwrap();
    assert!(store.flush_logs());
    while pages(&disk) == 0 {
        std::thread::yield_now();
    }
    store.metrics.checkpoint(&|| store.logs.save_marks(&store.catalog)).unwrap();
    store.close();
    for _ in 0..2 {
        let store = open(&disk, &clock, catalog(), classes()).unwrap();
        let of_audit = LogQuery::Label(Matcher::new("pod", MatchOp::Equal, "audit").unwrap());
        let request = LogRequest { query: of_audit, start: LogTime(i64::MIN), end: LogTime(i64::MAX) };
        let wanted = PageRequest { limit: 9, counts: true, ..PageRequest::default() };
        assert_eq!(store.search(&request, wanted, &Deadline::default()).unwrap().total, Some(1));
        store.close();
    }
}

#[test]
fn small_pages_are_joined_when_their_day_is_over() {
    let (disk, clock) = (SimDisk::default(), Arc::new(TestClock::default()));
    let store = open(&disk, &clock, Catalog::in_memory(), options(Vec::new())).unwrap();
    assert_eq!(run_hours(&store, &clock, &disk, 0..24 * 3), None);
    clock.0.fetch_add(DAY_MS, Ordering::Relaxed);
    (0..4).for_each(|_| store.maintain().unwrap());
    assert_eq!((partitions(&disk).len(), pages(&disk)), (3, 3));
    let before = lines(&store);
    assert_eq!(before.len(), 3 * 72);
    store.close();
    let again = open(&disk.crash(3), &clock, Catalog::in_memory(), options(Vec::new())).unwrap();
    assert_eq!(lines(&again), before);
    again.close();
}

#[test]
fn the_oldest_partitions_go_where_bytes_are_bounded() {
    let (disk, clock) = (SimDisk::default(), Arc::new(TestClock::default()));
    let mut bounded = options(Vec::new());
    bounded.logs.retention_bytes = Some(1);
    let store = open(&disk, &clock, Catalog::in_memory(), bounded).unwrap();
    assert_eq!(run_hours(&store, &clock, &disk, 0..50), None);
    assert_eq!(partitions(&disk), ["p0000000002-000"], "what takes lines stays, however small the bound");
    store.close();
}

#[test]
fn a_full_disk_takes_the_last_class_first() {
    let (disk, clock) = (SimDisk::default(), Arc::new(TestClock::default()));
    let mut bounded = options(vec![class("audit", 30), class("dev", 30)]);
    bounded.logs.disk_max_share = Some(0.5);
    let store = open(&disk, &clock, Catalog::in_memory(), bounded).unwrap();
    assert_eq!(run_hours(&store, &clock, &disk, 0..72), None);
    assert_eq!(partitions(&disk).len(), 9);
    // The disk is suddenly as small as makes it fuller than wanted, until some partitions are gone.
    let room = disk.room(Path::new("/data")).unwrap();
    let used = room.total - room.free;
    disk.set_capacity(Some(2 * used - 100));
    store.maintain().unwrap();
    let left = partitions(&disk);
    assert!(left.len() < 9);
    assert!(!left.contains(&"p0000000000-001-dev".to_owned()), "{left:?}");
    assert!(left.contains(&"p0000000000-002".to_owned()), "{left:?}");
    store.close();
}

#[test]
fn a_clock_that_leaps_ahead_for_an_hour_takes_no_month_away() {
    struct Leaping(TestClock, AtomicI64);
    impl Clock for Leaping {
        fn now_ns(&self) -> LogTime {
            LogTime(self.0.now_ns().0 + self.1.load(Ordering::Relaxed))
        }
        fn elapsed(&self) -> Duration {
            self.0.elapsed()
        }
    }
    let disk = SimDisk::default();
    let clock = Arc::new(Leaping(TestClock::default(), AtomicI64::default()));
    let own: Arc<dyn Disk> = Arc::new(disk.clone());
    let shared = Arc::clone(&clock) as Arc<dyn Clock>;
    let catalog = Catalog::in_memory();
    let store =
        Store::open_on(own, Path::new("/data"), options(Vec::new()), shared, Telemetry::default(), catalog);
    let store = store.unwrap();
    assert_eq!(run_hours(&store, &clock.0, &disk, 0..48), None);
    let year = 365 * DAY_MS * 1_000_000;
    clock.1.store(year, Ordering::Relaxed);
    for hour in 48..50 {
        clock.0.0.store(hour * HOUR_MS, Ordering::Relaxed);
        LogAppender::append(&store, pushed(&["shop"], hour as u64), clock.now_ns()).unwrap();
        assert!(seal(&store, &disk));
        store.maintain().unwrap();
    }
    assert_eq!(partitions(&disk).len(), 3, "two days, and that which lies a year ahead");
    // If the clock goes on saying so, retention follows it by 24 days a day.
    for hour in 50..24 * 5 {
        clock.0.0.store(hour * HOUR_MS, Ordering::Relaxed);
        store.maintain().unwrap();
    }
    assert_eq!(partitions(&disk).len(), 1);
    store.close();
}

#[test]
fn whatever_call_is_the_last_no_line_is_lost_or_doubled_by_joining() {
    let clock = Arc::new(TestClock::default());
    let run = |disk: &SimDisk| -> u64 {
        let Ok(store) = open(disk, &clock, Catalog::in_memory(), options(vec![class("audit", 30)])) else {
            return 0;
        };
        let acked = run_hours(&store, &clock, disk, 20..27).unwrap_or(27);
        store.close();
        acked as u64
    };
    let whole = SimDisk::default();
    assert_eq!(run(&whole), 27);
    assert_eq!(pages(&whole), 1 + 1 + 3 + 3, "one day was joined");
    for step in 0..whole.steps() + 5 {
        let disk = SimDisk::default();
        disk.fail_after(step);
        let acked = run(&disk);
        let crashed = disk.crash(step);
        let store = open(&crashed, &clock, Catalog::in_memory(), options(vec![class("audit", 30)])).unwrap();
        let found = lines(&store);
        let unique: BTreeSet<&String> = found.iter().collect();
        assert_eq!(unique.len(), found.len(), "step {step}: a line came twice");
        for line in 20..acked {
            for file in ["audit", "dev", "shop"] {
                assert!(
                    found.contains(&format!("line {line} of {file}")),
                    "step {step}: line {line} of {file}"
                );
            }
        }
        store.close();
    }
}

/// Damages the middle one of the log's records beyond mending.
fn damage_a_record(disk: &SimDisk) {
    let dir = Path::new("/data/wal");
    let names = disk.list(dir).unwrap();
    let name = names.iter().find(|name| name.strip_suffix(".wal").is_some()).unwrap();
    let bytes = crate::fs::read_all(disk, &dir.join(name), 1 << 20).unwrap();
    let at = bytes.windows(7).position(|seven| seven == b"line 20").unwrap();
    (at..at + 6).for_each(|byte| disk.flip_bit(&dir.join(name), 8 * byte));
}

#[test]
fn lines_of_a_damaged_record_of_the_log_are_missed_by_name() {
    let (disk, clock) = (SimDisk::default(), Arc::new(TestClock::default()));
    let start = |disk: &SimDisk| open(disk, &clock, Catalog::in_memory(), options(Vec::new())).unwrap();
    let store = start(&disk);
    for at in 1..40u64 {
        // Long after their own time.
        let received = LogTime((at as i64 + 600) * 60 * 1_000_000_000);
        LogAppender::append(&store, push("f", at..at + 1), received).unwrap();
    }
    assert_eq!(lines(&store).len(), 39);
    let crashed = disk.crash(1);
    drop(store);
    damage_a_record(&crashed);
    clock.0.store(11 * HOUR_MS, Ordering::Relaxed);
    for _ in 0..2 {
        // Also after a start that does not see the damage any more.
        let store = start(&crashed);
        let (found, warnings) = found_lines(&store);
        assert_eq!(found.len(), 38);
        let [warning] = &warnings[..] else { panic!("{warnings:?}") };
        assert!(warning.starts_with("1 records of the write-ahead log were damaged"), "{warning}");
        store.logs.seal_now();
        store.maintain().unwrap();
        let later = LogRequest { query: LogQuery::All, start: LogTime(i64::MAX / 2), end: LogTime(i64::MAX) };
        let page = store.search(&later, PageRequest::default(), &Deadline::default()).unwrap();
        assert!(page.warnings.is_empty(), "another time lacks nothing");
        let own = LogRequest { query: LogQuery::All, start: LogTime(0), end: LogTime(1_000) };
        let page = store.search(&own, PageRequest::default(), &Deadline::default()).unwrap();
        assert_eq!(page.warnings.len(), 1, "the time of the lines themselves");
        store.close();
    }
    clock.0.store(9 * DAY_MS, Ordering::Relaxed);
    let store = start(&crashed);
    store.maintain().unwrap();
    assert!(found_lines(&store).1.is_empty(), "these lines would have expired");
}

/// Which patterns of all that is stored were there before the second day.
fn known(store: &Store) -> Vec<(String, bool)> {
    let (deadline, hour_ns) = (Deadline::default(), HOUR_MS as u64 * 1_000_000);
    let request = LogRequest { query: LogQuery::All, start: LogTime(0), end: LogTime(i64::MAX) };
    let slices = LogSlices { start: LogTime(0), width_ns: hour_ns, count: 48 };
    let patterns = store.patterns(&request, slices, &deadline).unwrap().patterns;
    let found = store.known_patterns(&patterns, LogTime(24 * hour_ns as i64), &deadline).unwrap();
    assert_eq!(found.warnings, Vec::<String>::new());
    patterns.into_iter().map(|one| one.pattern).zip(found.known).collect()
}

#[test]
fn a_damaged_index_is_made_anew_whoever_asks_it() {
    let (disk, clock) = (SimDisk::default(), Arc::new(TestClock::default()));
    // Nothing that was read is kept, so that each question reads it.
    let mut options = options(Vec::new());
    options.logs.cache_bytes = 0;
    let store = open(&disk, &clock, Catalog::in_memory(), options).unwrap();
    // Newer partitions know the patterns of other lines, but not this one.
    LogAppender::append(&store, push("early", 0..1), LogTime(0)).unwrap();
    assert_eq!(run_hours(&store, &clock, &disk, 0..48), None);
    (0..4).for_each(|_| store.maintain().unwrap());
    let index = Path::new("/data/logs").join(&partitions(&disk)[0]).join("index");
    let read = || {
        let file = disk.open(&index).unwrap();
        let mut bytes = vec![0; file.size().unwrap() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    };
    let finds = || {
        let query = LogQuery::Value {
            field: binnacle_model::log::Field::Message,
            test: binnacle_model::log_query::Test::Phrase(binnacle_model::log_query::Phrase::new("line")),
        };
        let request = LogRequest { query, start: LogTime(0), end: LogTime(i64::MAX) };
        let wanted = PageRequest { limit: 10, counts: true, ..PageRequest::default() };
        store.search(&request, wanted, &Deadline::default()).unwrap().total
    };
    let (want, all) = (known(&store), finds());
    assert!(want.iter().all(|(_, is_known)| *is_known), "{want:?}");
    for ask in ["patterns", "search"] {
        // In the middle are tantivy's files.
        disk.flip_bit(&index, read().len() / 2 * 8);
        let damaged = read();
        match ask {
            "patterns" => assert_eq!(known(&store), want),
            _ => assert_eq!(finds(), all),
        }
        store.maintain().unwrap();
        assert!(read() != damaged, "after {ask}");
        assert_eq!((known(&store), finds()), (want.clone(), all));
    }
    store.close();
}
