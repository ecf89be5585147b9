//! Lines of logs that a query finds are gone, here and in the archive, and nothing brings them back.

use binnacle_model::log::Field;
use binnacle_model::log_query::{Phrase, Test};
use binnacle_model::storage::{LogDeletion, LogDeletionState, LogKeeper, LogPartitionState};

use super::archive::{bucket_on, four_days, keys, with_archive};
use super::upkeep::{open, options, run_hours};
use super::*;

/// The words of a phrase.
fn parse(text: &str, _: LogTime) -> Result<LogQuery, String> {
    if text == "bad" {
        return Err("no query".to_owned());
    }
    Ok(LogQuery::Value { field: Field::Message, test: Test::Phrase(Phrase::new(text)) })
}

fn deleting(mut options: Options) -> Options {
    options.logs.parse_query = Some(parse);
    options
}

fn delete(store: &Store, query: &str) -> Result<LogDeletion, StorageError> {
    let query_of = parse(query, LogTime(0)).unwrap_or(LogQuery::All);
    let request = LogRequest { query: query_of, start: LogTime(i64::MIN), end: LogTime(i64::MAX) };
    LogKeeper::delete(store, query, &request)
}

fn of_dev(lines: &[String]) -> usize {
    lines.iter().filter(|line| line.ends_with("of dev")).count()
}

fn is_in_a_file(disk: &SimDisk, dir: &Path, text: &str) -> bool {
    let names = disk.list(dir).unwrap();
    names.iter().any(|name| {
        let path = dir.join(name);
        if disk.list(&path).is_ok() {
            return is_in_a_file(disk, &path, text);
        }
        let bytes = fs::read_all(disk, &path, 1 << 30).unwrap();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    })
}

#[test]
fn what_came_before_goes_and_what_comes_later_stays() {
    let (disk, clock) = (SimDisk::default(), Arc::new(TestClock::default()));
    let store = open(&disk, &clock, Catalog::in_memory(), deleting(options(Vec::new()))).unwrap();
    four_days(&store, &clock, &disk);
    let before = lines(&store);
    let one = delete(&store, "of dev").unwrap();
    assert_eq!((one.state, one.removed), (LogDeletionState::Running, 0));
    // In the same moment of the clock.
    LogAppender::append(&store, push("dev", 2_000..2_003), clock.now_ns()).unwrap();
    assert!(store.run_deletions().unwrap());
    let done = store.deletions().remove(0);
    assert_eq!((done.state, done.removed), (LogDeletionState::Done, of_dev(&before) as u64));
    assert_eq!((done.pages_done, done.trouble), (done.pages, None));
    let left = lines(&store);
    assert_eq!((left.len(), of_dev(&left)), (before.len() - of_dev(&before) + 3, 3));
    // No index has the words of what is gone, and all are there.
    let (listed, _) = LogKeeper::partitions(&store);
    assert!(listed.iter().filter(|one| one.state == LogPartitionState::Closed).count() >= 3);
    assert!(!is_in_a_file(&disk, Path::new("/data/logs/p0000000000-000"), "dev"));
    assert!(disk.exists(Path::new("/data/logs/p0000000000-000/index")).unwrap());
    let error = delete(&store, "bad").unwrap_err().to_string();
    assert!(error.contains("no query"), "{error}");
    store.close();
    drop(store);
    let again = open(&disk.crash(5), &clock, Catalog::in_memory(), deleting(options(Vec::new()))).unwrap();
    assert_eq!(of_dev(&lines(&again)), 3);
    again.close();
}

#[test]
fn a_deletion_can_be_ended_and_pages_without_matches_stay_as_they_are() {
    let (disk, clock) = (SimDisk::default(), Arc::new(TestClock::default()));
    let store = open(&disk, &clock, Catalog::in_memory(), deleting(options(Vec::new()))).unwrap();
    four_days(&store, &clock, &disk);
    let before = lines(&store);
    let one = delete(&store, "of dev").unwrap();
    assert_eq!(store.cancel(one.id).unwrap().unwrap().state, LogDeletionState::Cancelled);
    assert_eq!(store.cancel(99).unwrap(), None);
    assert!(store.run_deletions().unwrap());
    assert_eq!(lines(&store), before);
    let steps = disk.steps();
    delete(&store, "nowhere").unwrap();
    store.logs.seal_now();
    let sealed = disk.steps();
    assert!(store.run_deletions().unwrap());
    assert_eq!(disk.steps(), sealed, "nothing is written");
    assert!(sealed >= steps);
    for _ in 0..16 {
        delete(&store, "nowhere").unwrap();
    }
    assert!(delete(&store, "nowhere").unwrap_err().to_string().contains("16 deletions"));
    store.close();
}

#[test]
fn what_is_archived_is_deleted_there_once_it_is_in_reach() {
    let (disk, far, clock) = (SimDisk::default(), SimDisk::default(), Arc::new(TestClock::default()));
    let bucket = bucket_on(&far);
    let archived = || deleting(with_archive(options(Vec::new()), &bucket));
    let catalog = tempfile::tempdir().unwrap();
    let catalog = || Catalog::open(&catalog.path().join("catalog")).unwrap();
    let store = open(&disk, &clock, catalog(), archived()).unwrap();
    four_days(&store, &clock, &disk);
    let before = lines(&store);
    store.tend_archive().unwrap();
    let objects = keys(&bucket).len();
    bucket.is_down.store(true, Ordering::Relaxed);
    delete(&store, "of dev").unwrap();
    assert!(!store.run_deletions().unwrap());
    let one = store.deletions().remove(0);
    assert_eq!(one.state, LogDeletionState::Running);
    assert!(
        one.trouble.as_ref().is_some_and(|text| text.contains("2 partitions could not be changed")),
        "{one:?}"
    );
    store.close();
    drop(store);
    bucket.is_down.store(false, Ordering::Relaxed);
    // Whichever call is the last that gets through.
    let disk = disk.crash(3);
    let mut store = open(&disk, &clock, catalog(), archived()).unwrap();
    for calls in 0.. {
        bucket.fail_after(Some(calls));
        let done = store.run_deletions().unwrap();
        bucket.fail_after(None);
        if done {
            break;
        }
        assert!(calls < 1_000);
        // A new process asks an archive at once that did not answer the one before.
        store.close();
        drop(store);
        store = open(&disk, &clock, catalog(), archived()).unwrap();
    }
    let left = lines(&store);
    assert_eq!((left.len(), of_dev(&left)), (before.len() - of_dev(&before), 0));
    assert_eq!(keys(&bucket).len(), objects, "what was written anew is gone: {:?}", keys(&bucket));
    assert!(!is_in_a_file(&far, Path::new("/archive"), "dev"));
    store.close();
}

#[test]
fn whatever_call_is_the_last_what_was_deleted_stays_away_and_the_rest_is_there() {
    let clock = Arc::new(TestClock::default());
    let dir = tempfile::tempdir().unwrap();
    let catalog = |name: u64| Catalog::open(&dir.path().join(name.to_string())).unwrap();
    let opened = |disk: &SimDisk, name| open(disk, &clock, catalog(name), deleting(options(Vec::new())));
    let run = |disk: &SimDisk, name: u64| -> (u64, bool) {
        clock.0.store(20 * HOUR_MS, Ordering::Relaxed);
        let Ok(store) = opened(disk, name) else { return (0, false) };
        let acked = run_hours(&store, &clock, disk, 20..26).unwrap_or(26);
        // A page with nothing else.
        let alone = LogAppender::append(&store, push("dev", 90..95), clock.now_ns()).is_ok();
        store.logs.ask_to_seal();
        let asked = alone && acked == 26 && delete(&store, "of dev").is_ok();
        if !disk.has_died() {
            let _ = store.run_deletions();
        }
        store.close();
        (acked as u64, asked)
    };
    let whole = SimDisk::default();
    assert_eq!(run(&whole, u64::MAX), (26, true));
    for step in 0..whole.steps() + 5 {
        let disk = SimDisk::default();
        disk.fail_after(step);
        let (acked, asked) = run(&disk, step);
        let crashed = disk.crash(step);
        let store = opened(&crashed, step).unwrap();
        if asked {
            assert!(store.run_deletions().unwrap(), "step {step}");
        }
        let found = lines(&store);
        let unique: BTreeSet<&String> = found.iter().collect();
        assert_eq!(unique.len(), found.len(), "step {step}: a line came twice");
        assert!(!asked || of_dev(&found) == 0, "step {step}: {found:?}");
        for line in 20..acked {
            for file in ["audit", "shop"] {
                assert!(
                    found.contains(&format!("line {line} of {file}")),
                    "step {step}: line {line} of {file}"
                );
            }
        }
        store.close();
        drop(store);
        // Once more, with what the log still has.
        let again = opened(&crashed.crash(step), step).unwrap();
        assert!(!asked || of_dev(&lines(&again)) == 0, "step {step}: it came back");
        again.close();
    }
}

/// A store whose catalog outlives it.
fn on_disk(disk: &SimDisk, clock: &Arc<TestClock>, catalog: &Path) -> Store {
    let catalog = Catalog::open(&catalog.join("catalog")).unwrap();
    open(disk, clock, catalog, deleting(options(Vec::new()))).unwrap()
}

#[test]
fn a_start_before_and_a_clock_that_goes_back_behind_a_deletion_change_nothing() {
    let (disk, clock) = (SimDisk::default(), Arc::new(TestClock::default()));
    let catalog = tempfile::tempdir().unwrap();
    let store = on_disk(&disk, &clock, catalog.path());
    let hour = |hour: i64| LogTime(hour * HOUR_MS * 1_000_000);
    LogAppender::append(&store, push("dev", 0..3), hour(5)).unwrap();
    assert_eq!(of_dev(&lines(&store)), 3);
    store.close();
    drop(store);
    // Nothing was received since the start, and the clock is behind what was.
    let disk = disk.crash(3);
    let store = on_disk(&disk, &clock, catalog.path());
    delete(&store, "of dev").unwrap();
    assert!(store.run_deletions().unwrap());
    assert_eq!(of_dev(&lines(&store)), 0);
    // By an hour that is before the deletion's.
    LogAppender::append(&store, push("dev", 10..14), hour(1)).unwrap();
    assert_eq!(of_dev(&lines(&store)), 4);
    let crashed = disk.crash(4);
    drop(store);
    let store = on_disk(&crashed, &clock, catalog.path());
    assert_eq!(of_dev(&lines(&store)), 4, "what came later stays");
    store.close();
}

#[test]
fn what_a_cancelled_deletion_left_outlives_a_start() {
    let (disk, clock) = (SimDisk::default(), Arc::new(TestClock::default()));
    let catalog = tempfile::tempdir().unwrap();
    let store = on_disk(&disk, &clock, catalog.path());
    LogAppender::append(&store, push("dev", 0..3), LogTime(7)).unwrap();
    let one = delete(&store, "of dev").unwrap();
    store.cancel(one.id).unwrap();
    assert_eq!(of_dev(&lines(&store)), 3);
    store.close();
    drop(store);
    let store = on_disk(&disk.crash(3), &clock, catalog.path());
    assert_eq!(of_dev(&lines(&store)), 3);
    store.close();
}
