//! Partitions of logs in an archive: brought there, searched, removed, whatever fails on the way.

use std::sync::atomic::AtomicBool;

use super::upkeep::{open, options, partitions, run_hours};
use super::*;
use crate::logs::archive::testing::Trouble;
use crate::logs::archive::{ArchiveOptions, AttachOptions, Bucket, DirBucket};

const DAY_MS: i64 = 24 * HOUR_MS;

pub(super) type Bin = Trouble<DirBucket>;

/// An object store in a directory of a simulated disk.
pub(super) fn bucket_on(disk: &SimDisk) -> Arc<Bin> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    Arc::new(Trouble::new(DirBucket::new(disk, Path::new("/archive"))))
}

pub(super) fn with_archive(mut options: Options, bucket: &Arc<Bin>) -> Options {
    let (bucket, url) = (Arc::clone(bucket) as Arc<dyn Bucket>, "sim:///archive".to_owned());
    let after = Duration::from_hours(24);
    options.logs.archive = Some(ArchiveOptions { bucket, url, after, retention_bytes: None });
    options
}

/// Keys of all pages, indexes and manifests.
pub(super) fn keys(bucket: &Bin) -> Vec<String> {
    bucket.list("").unwrap().into_iter().map(|one| one.key).collect()
}

fn disk_names(disk: &SimDisk) -> Vec<String> {
    let names = disk.list(Path::new("/data/logs")).unwrap();
    let of = |name: &String| {
        let inside = disk.list(&Path::new("/data/logs").join(name)).unwrap_or_default();
        format!("{name}: {}", inside.join(" "))
    };
    names.iter().map(of).collect()
}

fn pages_here(disk: &SimDisk) -> usize {
    let of = |name: &String| disk.list(&Path::new("/data/logs").join(name)).unwrap();
    partitions(disk).iter().flat_map(of).filter(|file| file.strip_suffix(".page").is_some()).count()
}

/// Four days of lines, of which the first two are old enough to be archived.
pub(super) fn four_days(store: &Store, clock: &TestClock, disk: &SimDisk) {
    assert_eq!(run_hours(store, clock, disk, 0..24 * 3 + 12), None);
    (0..4).for_each(|_| store.maintain().unwrap());
}

/// Everything that a search may be asked for, as text.
fn answers(store: &Store) -> Vec<String> {
    let (all, deadline) = (LogTime(i64::MIN)..LogTime(i64::MAX), Deadline::default());
    let phrase = |text: &str| LogQuery::Value {
        field: binnacle_model::log::Field::Message,
        test: binnacle_model::log_query::Test::Phrase(binnacle_model::log_query::Phrase::new(text)),
    };
    let mut found = Vec::new();
    for query in [LogQuery::All, phrase("line 7 of dev"), phrase("shop"), phrase("nowhere")] {
        let request = LogRequest { query, start: all.start, end: all.end };
        let wanted = PageRequest { limit: 10_000, counts: true, ..PageRequest::default() };
        let page = store.search(&request, wanted, &deadline).unwrap();
        assert_eq!(page.warnings, Vec::<String>::new());
        found.push(format!("{:?}: {:?}", page.total, page.entries));
    }
    found.push(format!("{:?}", store.streams(&[], all.start, all.end, &deadline).unwrap()));
    let file = FileId("dev".into());
    found.push(format!("{:?}", store.context(&file, 200, 3, 3, &deadline).unwrap()));
    found
}

#[test]
fn archived_partitions_answer_as_they_did_and_little_of_them_is_left_here() {
    let (disk, far, clock) = (SimDisk::default(), SimDisk::default(), Arc::new(TestClock::default()));
    let bucket = bucket_on(&far);
    let archived = || with_archive(options(Vec::new()), &bucket);
    let store = open(&disk, &clock, Catalog::in_memory(), archived()).unwrap();
    four_days(&store, &clock, &disk);
    let (before, pages) = (answers(&store), pages_here(&disk));
    store.tend_archive().unwrap();
    assert_eq!(pages_here(&disk), pages - 2, "two days are old enough, and a day is a page");
    assert_eq!(
        disk.list(Path::new("/data/logs/p0000000000-000")).unwrap(),
        ["archived", "archiving", "closed", "index"]
    );
    assert_eq!(keys(&bucket).len(), 2 * 3);
    assert_eq!(answers(&store), before);
    store.tend_archive().unwrap();
    assert_eq!(keys(&bucket).len(), 2 * 3, "nothing is archived twice");
    store.close();
    drop(store);
    let again = open(&disk.crash(1), &clock, Catalog::in_memory(), archived()).unwrap();
    assert_eq!(answers(&again), before);
    again.close();
}

#[test]
fn an_id_is_looked_for_where_it_may_be_and_read_once() {
    let (disk, far, clock) = (SimDisk::default(), SimDisk::default(), Arc::new(TestClock::default()));
    let bucket = bucket_on(&far);
    let store =
        open(&disk, &clock, Catalog::in_memory(), with_archive(options(Vec::new()), &bucket)).unwrap();
    assert_eq!(run_hours(&store, &clock, &disk, 0..24 * 6), None);
    (0..6).for_each(|_| store.maintain().unwrap());
    store.tend_archive().unwrap();
    let before = bucket.reads();
    let find = |word: &str| {
        let test = binnacle_model::log_query::Test::Phrase(binnacle_model::log_query::Phrase::new(word));
        let query = LogQuery::Value { field: binnacle_model::log::Field::Message, test };
        let request = LogRequest { query, start: LogTime(i64::MIN), end: LogTime(i64::MAX) };
        let wanted = PageRequest { limit: 10, counts: true, ..PageRequest::default() };
        store.search(&request, wanted, &Deadline::default()).unwrap().total
    };
    assert_eq!(find("nowhere"), Some(0));
    assert_eq!(bucket.reads(), before, "the index is here");
    assert_eq!(find("shop"), Some(24 * 6));
    let pages = keys(&bucket).iter().filter(|key| key.strip_suffix(".page").is_some()).count();
    assert!(pages >= 4 && bucket.reads() - before <= pages, "{} reads", bucket.reads() - before);
    let reads = bucket.reads();
    assert_eq!(find("dev"), Some(24 * 6));
    assert_eq!(bucket.reads(), reads, "what was read is in memory");
    store.close();
}

#[test]
fn an_archive_out_of_reach_is_a_warning_beside_what_is_here() {
    let (disk, far, clock) = (SimDisk::default(), SimDisk::default(), Arc::new(TestClock::default()));
    let bucket = bucket_on(&far);
    let store =
        open(&disk, &clock, Catalog::in_memory(), with_archive(options(Vec::new()), &bucket)).unwrap();
    four_days(&store, &clock, &disk);
    let all = lines(&store).len();
    store.tend_archive().unwrap();
    bucket.is_down.store(true, Ordering::Relaxed);
    let (found, warnings) = found_lines(&store);
    assert_eq!(found.len(), all - 2 * 72);
    let want =
        "144 archived log lines (2 pages) could not be read: sim:///archive: simulated: connection refused";
    assert_eq!(warnings, [want]);
    let calls = bucket.calls();
    assert_eq!(found_lines(&store).0.len(), all - 144);
    assert_eq!(bucket.calls(), calls, "it is not asked for every page, and not at once again");
    store.close();
    drop(store);
    // Nobody says where the archive is any more.
    let without = open(&disk, &clock, Catalog::in_memory(), options(Vec::new())).unwrap();
    let (found, warnings) = found_lines(&without);
    assert_eq!((found.len(), warnings.len()), (all - 144, 1));
    assert!(warnings[0].contains("storage.logs.archive names no archive"), "{warnings:?}");
    without.close();
}

#[test]
fn nothing_goes_before_it_is_read_back_as_it_was() {
    let (disk, far, clock) = (SimDisk::default(), SimDisk::default(), Arc::new(TestClock::default()));
    let bucket = bucket_on(&far);
    let store =
        open(&disk, &clock, Catalog::in_memory(), with_archive(options(Vec::new()), &bucket)).unwrap();
    four_days(&store, &clock, &disk);
    let (all, pages) = (lines(&store), pages_here(&disk));
    let trouble: [&AtomicBool; 3] = [&bucket.tears, &bucket.flips, &bucket.is_down];
    for one in trouble {
        one.store(true, Ordering::Relaxed);
        store.tend_archive().unwrap_err();
        one.store(false, Ordering::Relaxed);
        assert_eq!((pages_here(&disk), lines(&store).len()), (pages, all.len()));
    }
    // Whichever call is the last that gets through.
    for calls in 0.. {
        bucket.fail_after(Some(calls));
        let done = store.tend_archive();
        bucket.fail_after(None);
        assert_eq!(lines(&store), all);
        if done.is_ok() {
            break;
        }
        assert!(calls < 1_000);
    }
    assert_eq!(pages_here(&disk), pages - 2);
    store.close();
}

#[test]
fn what_expires_goes_there_too_also_when_it_is_out_of_reach_for_a_while() {
    let (disk, far, clock) = (SimDisk::default(), SimDisk::default(), Arc::new(TestClock::default()));
    let bucket = bucket_on(&far);
    let archived = || with_archive(options(Vec::new()), &bucket);
    let store = open(&disk, &clock, Catalog::in_memory(), archived()).unwrap();
    four_days(&store, &clock, &disk);
    store.tend_archive().unwrap();
    let days = |from: i64, to: i64, store: &Store| {
        for hour in from * 24..to * 24 {
            clock.0.store(hour * HOUR_MS, Ordering::Relaxed);
            store.maintain().unwrap();
        }
    };
    bucket.is_down.store(true, Ordering::Relaxed);
    days(4, 9, &store);
    assert_eq!(partitions(&disk)[0], "p0000000001-000", "the first day is gone");
    store.tend_archive().unwrap_err();
    store.close();
    drop(store);
    let (disk, far) = (disk.crash(7), far.crash(7));
    let bucket = bucket_on(&far);
    let store =
        open(&disk, &clock, Catalog::in_memory(), with_archive(options(Vec::new()), &bucket)).unwrap();
    assert!(keys(&bucket).iter().any(|key| key.contains("p0000000000")));
    store.tend_archive().unwrap();
    assert!(!keys(&bucket).iter().any(|key| key.contains("p0000000000")), "{:?}", keys(&bucket));
    days(9, 20, &store);
    store.tend_archive().unwrap();
    assert_eq!(keys(&bucket), [""; 0]);
    assert_eq!(disk.list(Path::new("/data/logs")).unwrap(), ["identity"]);
    store.close();
}

#[test]
fn a_manifest_that_is_damaged_here_is_read_again_there() {
    let (disk, far, clock) = (SimDisk::default(), SimDisk::default(), Arc::new(TestClock::default()));
    let bucket = bucket_on(&far);
    let archived = || with_archive(options(Vec::new()), &bucket);
    let store = open(&disk, &clock, Catalog::in_memory(), archived()).unwrap();
    four_days(&store, &clock, &disk);
    store.tend_archive().unwrap();
    let all = lines(&store);
    store.close();
    drop(store);
    disk.flip_bit(Path::new("/data/logs/p0000000001-000/archived"), 99);
    for is_first in [true, false] {
        let store = open(&disk, &clock, Catalog::in_memory(), archived()).unwrap();
        let (found, warnings) = found_lines(&store);
        if is_first {
            assert_eq!(found.len(), all.len() - 72);
            assert!(warnings[0].contains("some log lines of partition p0000000001-000"), "{warnings:?}");
            store.maintain().unwrap();
            store.tend_archive().unwrap();
        }
        assert_eq!(lines(&store), all);
        store.close();
    }
    let left = disk.list(Path::new("/data/logs/p0000000001-000")).unwrap();
    assert!(!left.contains(&"archived.damaged".to_owned()), "{left:?}");
}

#[test]
fn a_copy_of_an_older_data_directory_writes_over_nothing() {
    let (disk, far, clock) = (SimDisk::default(), SimDisk::default(), Arc::new(TestClock::default()));
    let bucket = bucket_on(&far);
    let archived = || with_archive(options(Vec::new()), &bucket);
    let store = open(&disk, &clock, Catalog::in_memory(), archived()).unwrap();
    four_days(&store, &clock, &disk);
    store.close();
    let copy = disk.crash(0);
    drop(store);
    let store = open(&disk, &clock, Catalog::in_memory(), archived()).unwrap();
    store.tend_archive().unwrap();
    let before = keys(&bucket);
    let other = open(&copy, &clock, Catalog::in_memory(), archived()).unwrap();
    let error = other.tend_archive().unwrap_err().to_string();
    assert!(error.contains("this data directory is a copy"), "{error}");
    assert_eq!(keys(&bucket), before);
    store.close();
    other.close();
}

#[test]
fn a_disk_that_is_full_takes_nothing_out_of_the_archive_and_brings_more_there() {
    let (disk, far, clock) = (SimDisk::default(), SimDisk::default(), Arc::new(TestClock::default()));
    let bucket = bucket_on(&far);
    let mut bounded = with_archive(options(Vec::new()), &bucket);
    bounded.logs.disk_max_share = Some(0.5);
    bounded.logs.archive.as_mut().unwrap().after = Duration::from_hours(24 * 30);
    let store = open(&disk, &clock, Catalog::in_memory(), bounded).unwrap();
    four_days(&store, &clock, &disk);
    let all = lines(&store);
    store.tend_archive().unwrap();
    assert_eq!(keys(&bucket), [""; 0], "nothing is old enough");
    let room = disk.room(Path::new("/data")).unwrap();
    let used = room.total - room.free;
    disk.set_capacity(Some(2 * used));
    store.tend_archive().unwrap();
    assert!(!keys(&bucket).is_empty(), "before anything has to go");
    disk.set_capacity(Some(used / 4));
    store.maintain().unwrap();
    let (left, first) = (lines(&store), "line 0 of shop".to_owned());
    assert!(all.contains(&first) && left.contains(&first), "it takes no room here");
    store.close();
}

#[test]
fn another_store_searches_an_archive_that_is_attached() {
    let (disk, far, clock) = (SimDisk::default(), SimDisk::default(), Arc::new(TestClock::default()));
    let bucket = bucket_on(&far);
    let store =
        open(&disk, &clock, Catalog::in_memory(), with_archive(options(Vec::new()), &bucket)).unwrap();
    four_days(&store, &clock, &disk);
    store.tend_archive().unwrap();
    let theirs = lines(&store).into_iter().filter(|line| number_of(line) < 48).collect::<Vec<String>>();

    let (here, again) = (SimDisk::default(), bucket_on(&far));
    let mut attaching = with_archive(options(Vec::new()), &bucket_on(&SimDisk::default()));
    let attach = |bucket: &Arc<Bin>| AttachOptions { bucket: bucket.clone(), url: "sim:///other".into() };
    // The same one twice.
    attaching.logs.attach = vec![attach(&bucket), attach(&again)];
    let other = open(&here, &clock, Catalog::in_memory(), attaching).unwrap();
    let (found, warnings) = found_lines(&other);
    assert_eq!((found.len(), warnings.len()), (0, 2), "{warnings:?}");
    other.tend_archive().unwrap();
    LogAppender::append(&other, push("own", 30..32), clock.now_ns()).unwrap();
    let mut want: Vec<String> = theirs.clone();
    let own = ["line 31 of own", "line 30 of own"];
    let at = |line: u64| theirs.iter().position(|one| number_of(one) < line).unwrap();
    // The lines of a moment are ordered by their file.
    assert_eq!(lines(&other).len(), want.len() + 2);
    want.retain(|line| lines(&other).contains(line));
    assert_eq!(want, theirs);
    let numbers: Vec<u64> = lines(&other).iter().map(|line| number_of(line)).collect();
    assert!(numbers.is_sorted_by(|a, b| a >= b), "newest first, whoever has them");
    assert!(own.iter().all(|line| lines(&other).contains(&(*line).to_owned())) && at(31) > 0);

    // It is out of reach for a while, and then less is there.
    clock.0.fetch_add(DAY_MS, Ordering::Relaxed);
    bucket.is_down.store(true, Ordering::Relaxed);
    other.tend_archive().unwrap_err();
    assert_eq!(found_lines(&other).0.len(), theirs.len() + 2, "what was read is in memory");
    assert_eq!(found_lines(&other).1.len(), 1);
    bucket.is_down.store(false, Ordering::Relaxed);
    for hour in 24 * 4..24 * 9 {
        clock.0.store(hour * HOUR_MS, Ordering::Relaxed);
        store.maintain().unwrap();
    }
    store.tend_archive().unwrap();
    other.tend_archive().unwrap();
    let left = lines(&other);
    assert!(!left.iter().any(|line| number_of(line) < 24), "their first day has expired");
    assert!(left.iter().any(|line| number_of(line) > 48), "and later ones have come");
    store.close();
    other.close();
}

fn number_of(line: &str) -> u64 {
    line.split(' ').nth(1).unwrap().parse().unwrap()
}

/// `crash` says what is left of the disk of the archive.
fn crash_everywhere(run_on: &dyn Fn(u64) -> (SimDisk, SimDisk), crash: &dyn Fn(&SimDisk, u64) -> SimDisk) {
    let clock = Arc::new(TestClock::default());
    let run = |here: &SimDisk, far: &SimDisk| -> u64 {
        let bucket = bucket_on(far);
        clock.0.store(20 * HOUR_MS, Ordering::Relaxed);
        let options = with_archive(options(Vec::new()), &bucket);
        let Ok(store) = open(here, &clock, Catalog::in_memory(), options) else { return 0 };
        let acked = run_hours(&store, &clock, here, 20..27).unwrap_or(27);
        for day in 2..5 {
            clock.0.store(day * DAY_MS, Ordering::Relaxed);
            let _ = store.maintain();
            let _ = store.tend_archive();
        }
        store.close();
        acked as u64
    };
    let (whole, far) = run_on(u64::MAX);
    assert_eq!(run(&whole, &far), 27);
    assert_eq!((pages_here(&whole), keys(&bucket_on(&far)).len()), (0, 6), "all was archived");
    for step in 0..whole.steps() + 5 {
        let (here, far) = run_on(step);
        let acked = run(&here, &far);
        let (here, far) = (here.crash(step), crash(&far, step));
        let bucket = bucket_on(&far);
        let options = || with_archive(options(Vec::new()), &bucket);
        let store = open(&here, &clock, Catalog::in_memory(), options()).unwrap();
        let check = |store: &Store, when: &str| {
            let found = lines(store);
            let unique: BTreeSet<&String> = found.iter().collect();
            assert_eq!(unique.len(), found.len(), "step {step} {when}: a line came twice");
            for line in 20..acked {
                for file in ["audit", "dev", "shop"] {
                    let wanted = format!("line {line} of {file}");
                    assert!(found.contains(&wanted), "step {step} {when}: {wanted}");
                }
            }
        };
        check(&store, "after the start");
        store.logs.seal_now();
        (0..4).for_each(|_| store.maintain().unwrap());
        if let Err(error) = store.tend_archive() {
            let names = disk_names(&here);
            panic!("step {step}: {error}; {names:?} {:?}", keys(&bucket));
        }
        check(&store, "once it goes on");
        store.close();
    }
}

#[test]
fn whatever_call_is_the_last_a_partition_is_whole_here_or_there() {
    // The same power supplies both.
    let one = |step: u64| {
        let disk = SimDisk::default();
        if step < u64::MAX {
            disk.fail_after(step);
        }
        (disk.clone(), disk)
    };
    crash_everywhere(&one, &|disk, seed| disk.crash(seed));
}

#[test]
fn whatever_call_is_the_last_here_an_archive_that_goes_on_is_right() {
    let one = |step: u64| {
        let disk = SimDisk::default();
        if step < u64::MAX {
            disk.fail_after(step);
        }
        (disk, SimDisk::default())
    };
    crash_everywhere(&one, &|far, _| far.clone());
}
