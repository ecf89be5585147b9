//! Fifty days of logs on a clock that is told the time: classes, archive, retention, restarts, and ids of any day.

use std::collections::BTreeMap;

use binnacle_model::log::Field;
use binnacle_model::log_query::{Phrase, Test};
use binnacle_model::storage::{LogKeeper, LogPartitionState};

use super::archive::{bucket_on, keys, with_archive};
use super::upkeep::{class, open, options, partitions, seal};
use super::*;
use crate::logs::archive::AttachOptions;

const DAYS: i64 = 50;

/// Bytes of memory for pages, and for what is read of the archive.
const CACHE: usize = 4 << 20;
const FAR_CACHE: usize = 1 << 20;

/// Kept for days: streams of class `audit`, of class `dev`, and all others.
const KEPT: [(&str, i64); 3] = [("audit", 45), ("dev", 3), ("shop", 30)];

/// Archived after days.
const ARCHIVED_AFTER: i64 = 7;

/// A line that nobody wrote before.
fn id_of(day: i64, file: &str) -> String {
    let hash = xxhash_rust::xxh3::xxh3_128(format!("{day} {file}").as_bytes());
    format!("{hash:032x}")
}

/// Lines of each file in one hour, and at noon an id.
fn pushed(hour: i64) -> LogPush {
    let at = hour * HOUR_MS * 1_000_000;
    let batch = |(file, _): (&str, i64)| {
        let mut messages: Vec<String> =
            (0..20).map(|n| format!("GET /cart/{} took {} ms", (hour * 20 + n) % 977, n * 7)).collect();
        if hour % 24 == 12 {
            messages.push(format!("order paid trace={}", id_of(hour / 24, file)));
        }
        let entry = |(n, message): (usize, String)| PushEntry {
            time_ns: at + n as i64,
            offset: (hour * 100 + n as i64) as u64,
            message: message.into_bytes(),
            ..PushEntry::default()
        };
        FileBatch {
            file: file.to_owned(),
            from: hour as u64 * 100,
            to: (hour + 1) as u64 * 100,
            stream: vec![Pair { name: "pod".into(), value: file.to_owned() }],
            entries: messages.into_iter().enumerate().map(entry).collect(),
            ..FileBatch::default()
        }
    };
    LogPush { batches: KEPT.into_iter().map(batch).collect() }
}

fn found(store: &Store, id: &str) -> u64 {
    let query = LogQuery::Value { field: Field::Message, test: Test::Phrase(Phrase::new(id)) };
    let request = LogRequest { query, start: LogTime(i64::MIN), end: LogTime(i64::MAX) };
    let wanted = PageRequest { limit: 10, counts: true, ..PageRequest::default() };
    let page = store.search(&request, wanted, &Deadline::default()).unwrap();
    assert_eq!(page.warnings, Vec::<String>::new());
    page.total.unwrap()
}

/// What may be there of a class on a day, counted in whole days: the last one is not over.
fn check_bounds(store: &Store, disk: &SimDisk, day: i64) {
    let mut counts: BTreeMap<(String, LogPartitionState), i64> = BTreeMap::new();
    for one in LogKeeper::partitions(store).0 {
        *counts.entry((one.class, one.state)).or_default() += 1;
    }
    for (file, kept) in KEPT {
        let class = if file == "shop" { "" } else { file };
        let of = |state| counts.get(&(class.to_owned(), state)).copied().unwrap_or(0);
        let here = of(LogPartitionState::Open) + of(LogPartitionState::Closed);
        let there = of(LogPartitionState::Archived);
        // One that takes lines, one whose day is just over, and one more until the next round.
        assert!(here <= kept.min(ARCHIVED_AFTER) + 3, "day {day}, {file}: {counts:?}");
        assert!(here + there <= kept + 3, "day {day}, {file}: {counts:?}");
    }
    let (pages, bytes) = store.logs.held();
    assert!(bytes <= CACHE && pages <= 512, "day {day}: {pages} pages, {bytes} bytes");
    let far = store.telemetry.log_archive_cache_bytes.get();
    assert!(far <= FAR_CACHE as i64, "day {day}: {far} bytes of the archive");
    // Each file of a page that is open, the log's, and little else.
    assert!(disk.open_files() <= pages + 16, "day {day}: {} files, {pages} pages", disk.open_files());
    let logs = disk.list(Path::new("/data/wal")).unwrap().len();
    assert!(logs <= 16, "day {day}: {logs} files of the log");
}

#[test]
fn fifty_days_stay_within_bounds_and_an_id_of_any_of_them_is_found() {
    let (disk, far, clock) = (SimDisk::default(), SimDisk::default(), Arc::new(TestClock::default()));
    let bucket = bucket_on(&far);
    let dir = tempfile::tempdir().unwrap();
    let catalog = || Catalog::open(&dir.path().join("catalog")).unwrap();
    let kept = || {
        let mut kept = with_archive(options(vec![class("audit", 45), class("dev", 3)]), &bucket);
        kept.logs.retention = Duration::from_hours(30 * 24);
        kept.logs.cache_bytes = CACHE;
        kept.logs.archive_cache_bytes = FAR_CACHE;
        kept.logs.archive.as_mut().unwrap().after = Duration::from_hours(ARCHIVED_AFTER as u64 * 24);
        kept
    };
    let mut disk = disk;
    let mut store = open(&disk, &clock, catalog(), kept()).unwrap();
    for hour in 0..DAYS * 24 {
        clock.0.store(hour * HOUR_MS, Ordering::Relaxed);
        LogAppender::append(&store, pushed(hour), clock.now_ns()).unwrap();
        if hour % 6 == 5 {
            assert!(seal(&store, &disk));
            store.maintain().unwrap();
            store.tend_archive().unwrap();
        }
        let day = hour / 24;
        if hour % 24 == 23 {
            for (file, kept) in KEPT {
                // It is kept until the end of its day is that old.
                for of in [day, day / 2, (day - kept).max(0), (day - kept - 1).max(0)] {
                    let wanted = u64::from(day - of <= kept);
                    assert_eq!(found(&store, &id_of(of, file)), wanted, "day {day}: {file} of day {of}");
                }
            }
            check_bounds(&store, &disk, day);
        }
        // The power goes now and then.
        if hour % (24 * 11) == 24 * 10 {
            store.close();
            drop(store);
            disk = disk.crash(hour as u64);
            store = open(&disk, &clock, catalog(), kept()).unwrap();
        }
    }
    // A partition goes once its day's end is that old.
    clock.0.fetch_add(HOUR_MS, Ordering::Relaxed);
    (0..8).for_each(|_| store.maintain().unwrap());
    store.tend_archive().unwrap();
    let now = DAYS;
    for day in 0..DAYS {
        for (file, kept) in KEPT {
            let count = found(&store, &id_of(day, file));
            let age = now - day - 1;
            assert!(count == 1 || age >= kept, "{file} of day {day}");
            assert!(count == 0 || age <= kept, "{file} of day {day}");
        }
    }
    check_everywhere(&store, &disk, &bucket);

    // Somebody else sees what is archived.
    let mut attaching = options(Vec::new());
    let bucket: Arc<dyn crate::logs::archive::Bucket> = bucket.clone();
    attaching.logs.attach = vec![AttachOptions { bucket, url: "sim:///archive".into() }];
    let other = open(&SimDisk::default(), &clock, Catalog::in_memory(), attaching).unwrap();
    other.tend_archive().unwrap();
    for day in DAYS - 29..DAYS - ARCHIVED_AFTER - 1 {
        assert_eq!(found(&other, &id_of(day, "shop")), 1, "day {day}");
        assert_eq!(found(&other, &id_of(day, "dev")), 0, "day {day}");
    }
    other.close();
    store.close();
}

/// What has expired is nowhere, and what is archived is there and not here.
fn check_everywhere(store: &Store, disk: &SimDisk, bucket: &super::archive::Bin) {
    let (listed, warnings) = LogKeeper::partitions(store);
    assert_eq!(warnings, Vec::<String>::new());
    let names: BTreeSet<String> = listed.iter().map(|one| one.name.clone()).collect();
    assert_eq!(partitions(disk).into_iter().collect::<BTreeSet<_>>(), names);
    let archived: BTreeSet<&str> = listed
        .iter()
        .filter(|one| one.state == LogPartitionState::Archived)
        .map(|one| one.name.as_str())
        .collect();
    assert!(archived.len() > 40, "{archived:?}");
    let all = keys(bucket);
    let there: BTreeSet<&str> = all.iter().map(|key| key.split('/').nth(2).unwrap()).collect();
    assert_eq!(there, archived);
    for name in archived {
        let files = disk.list(&Path::new("/data/logs").join(name)).unwrap();
        assert_eq!(files, ["archived", "archiving", "closed", "index"], "{name}");
    }
}
