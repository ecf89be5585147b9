use proptest::prelude::*;

use super::*;
use crate::fs::SimDisk;

const DIR: &str = "/data/wal";

/// Small files, so that a test crosses their borders often.
const SMALL_FILE_BYTES: u64 = 200;

fn open(disk: &SimDisk) -> (Wal, Vec<Vec<u8>>) {
    let mut found = Vec::new();
    let (wal, _) = Wal::open_with(
        Arc::new(disk.clone()),
        Path::new(DIR),
        &Floor::default(),
        SMALL_FILE_BYTES,
        &mut |_, _, _, payload| {
            found.push(payload.to_vec());
        },
    )
    .unwrap();
    (wal, found)
}

fn append(wal: &Wal, payload: &[u8]) -> Sequence {
    wal.append(RecordKind::Lines, |_, out| out.extend_from_slice(payload))
}

fn records() -> impl Strategy<Value = Vec<Vec<u8>>> {
    proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 1..20)
}

/// Appends `records`, committing every `every` of them, until the disk fails. Answers how many were
/// acknowledged.
fn write(disk: &SimDisk, records: &[Vec<u8>], every: usize) -> usize {
    let mut committed = 0;
    let Ok((wal, _)) = Wal::open_with(
        Arc::new(disk.clone()),
        Path::new(DIR),
        &Floor::default(),
        SMALL_FILE_BYTES,
        &mut |_, _, _, _| {},
    ) else {
        return 0;
    };
    for (i, record) in records.iter().enumerate() {
        let sequence = append(&wal, record);
        if i % every == 0 {
            if wal.commit(sequence).is_err() {
                break;
            }
            committed = i + 1;
        }
    }
    committed
}

proptest! {
    /// Whatever the crash tears, replay returns every committed record and invents none.
    #[test]
    fn committed_records_survive(
        records in records(), every in 1usize..5, steps in 0u64..40, seed: u64,
    ) {
        let disk = SimDisk::default();
        disk.fail_after(steps);
        let committed = write(&disk, &records, every);
        let (_, survived) = open(&disk.crash(seed));
        prop_assert!(survived.len() >= committed, "{} of {committed}", survived.len());
        prop_assert!(records.starts_with(&survived));
    }

    /// A flipped bit costs the record that holds it, if any, and no other.
    #[test]
    fn a_flipped_bit_costs_one_record(records in records(), at: prop::sample::Index) {
        let disk = SimDisk::default();
        let (wal, _) = Wal::open(Arc::new(disk.clone()), Path::new(DIR), &Floor::default(), &mut |_, _, _, _| {}).unwrap();
        for record in &records {
            append(&wal, record);
        }
        wal.commit_all().unwrap();
        let path = reader::path_of(Path::new(DIR), WalFileId(1));
        let size = disk.open(&path).unwrap().size().unwrap() as usize;
        let first = PREAMBLE_BYTES * 8;
        disk.flip_bit(&path, first + at.index(size * 8 - first));
        let (_, survived) = open(&disk);
        // The last record says where it ends twice: by its length, and by the end of the file.
        prop_assert!(survived == records || survived.len() == records.len() - 1);
        prop_assert!(survived.iter().all(|record| records.contains(record)));
    }
}

#[test]
fn every_step_of_a_long_run_may_be_the_last() {
    let records: Vec<Vec<u8>> = (0..40u8).map(|i| vec![i; usize::from(i)]).collect();
    let whole = SimDisk::default();
    write(&whole, &records, 1);
    for step in 0..=whole.steps() {
        for seed in 0..8 {
            let disk = SimDisk::default();
            disk.fail_after(step);
            let committed = write(&disk, &records, 1);
            let (_, survived) = open(&disk.crash(seed));
            assert!(survived.len() >= committed, "step {step} seed {seed}");
            assert!(records.starts_with(&survived), "step {step} seed {seed}");
        }
    }
}

#[test]
fn reopening_goes_on_with_the_next_sequence_in_a_new_file() {
    let disk = SimDisk::default();
    let (wal, _) = open(&disk);
    let first = append(&wal, b"a");
    wal.commit(first).unwrap();
    let (wal, found) = open(&disk);
    assert_eq!(found, [b"a"]);
    let second = append(&wal, b"b");
    wal.commit(second).unwrap();
    assert_eq!((first, second), (Sequence(1), Sequence(2)));
    assert_eq!(wal.sealed().len(), 1);
    assert_eq!(open(&disk).1, [b"a", b"b"]);
}

#[test]
fn after_a_failed_sync_everything_not_durable_is_written_once_more() {
    for fails_at_once in [true, false] {
        let disk = SimDisk::default();
        let (wal, _) = open(&disk);
        let mut kept = vec![b"a".to_vec(), b"b".to_vec()];
        if !fails_at_once {
            wal.commit(append(&wal, b"0")).unwrap();
            kept.insert(0, b"0".to_vec());
        }
        disk.set_sync_failure(true);
        append(&wal, b"a");
        let sequence = append(&wal, b"b");
        assert!(wal.commit(sequence).is_err());
        // Who was under way when the disk failed: its record waits with the others.
        append(&wal, b"c");
        kept.push(b"c".to_vec());
        wal.recover();
        assert!(wal.error().is_some(), "the disk still refuses");
        disk.set_sync_failure(false);
        assert!(wal.commit(sequence).is_err(), "a second sync alone would lie");
        wal.recover();
        wal.commit(sequence).unwrap();
        assert_eq!(wal.sealed().len(), 1, "the file that failed gets no more");
        wal.commit(append(&wal, b"d")).unwrap();
        kept.push(b"d".to_vec());
        for seed in 0..16 {
            assert_eq!(open(&disk.crash(seed)).1, kept);
        }
    }
}

#[test]
fn a_full_disk_costs_nothing_once_there_is_room() {
    let disk = SimDisk::default();
    let (wal, _) = open(&disk);
    let first = append(&wal, b"first");
    wal.commit(first).unwrap();
    // Two files of it, of which a part of the first finds room.
    disk.set_capacity(Some(150));
    let records: Vec<Vec<u8>> = (0..5u8).map(|i| vec![i; 70]).collect();
    let sequences: Vec<Sequence> = records.iter().map(|record| append(&wal, record)).collect();
    assert!(wal.commit(sequences[4]).is_err());
    disk.set_capacity(Some(400));
    wal.recover();
    assert!(wal.error().is_some(), "not enough for all of it");
    disk.set_capacity(None);
    wal.recover();
    wal.commit(sequences[4]).unwrap();
    let found = open(&disk.crash(7)).1;
    assert_eq!(found[0], b"first");
    assert_eq!(found[1..], records);
}

#[test]
fn missing_records_are_noticed_wherever_they_are() {
    let written = || {
        let disk = SimDisk::default();
        let (wal, _) = open(&disk);
        for i in 0..20u8 {
            wal.commit(append(&wal, &[i; 60])).unwrap();
        }
        disk
    };
    let damaged = |disk: &SimDisk| {
        let floor = Floor::default();
        let opened = Wal::open(Arc::new(disk.clone()), Path::new(DIR), &floor, &mut |_, _, _, _| {});
        opened.unwrap().1.damaged
    };
    let path = |file| reader::path_of(Path::new(DIR), WalFileId(file));
    assert_eq!(damaged(&written()), []);
    // In the middle of a file; in its last record; in the last record of all.
    let disk = written();
    let size = |file| disk.open(&path(file)).unwrap().size().unwrap() as usize;
    let last = (1..99).rfind(|file| disk.exists(&path(*file)).unwrap()).unwrap();
    for (file, bit, blamed) in [
        (2, (PREAMBLE_BYTES + 30) * 8, vec![WalFileId(1), WalFileId(2)]),
        (2, size(2) * 8 - 1, vec![WalFileId(2), WalFileId(3)]),
        (last, size(last) * 8 - 1, vec![WalFileId(last)]),
    ] {
        let disk = written();
        disk.flip_bit(&path(file), bit);
        assert_eq!(damaged(&disk), blamed, "file {file} bit {bit}");
    }
    // A whole file.
    let disk = written();
    disk.remove_file(&path(2)).unwrap();
    assert_eq!(damaged(&disk), [WalFileId(1), WalFileId(3)]);
}

#[test]
fn removed_files_do_not_come_back() {
    let disk = SimDisk::default();
    let (wal, _) = open(&disk);
    for i in 0..20u8 {
        let sequence = append(&wal, &[i; 60]);
        wal.commit(sequence).unwrap();
    }
    let sealed = wal.sealed();
    wal.remove_through(sealed[2].id).unwrap();
    let (_, found) = open(&disk);
    assert_eq!(found.first().map(|record| u64::from(record[0])), Some(sealed[2].last.0));
}

#[test]
fn a_log_goes_on_above_what_others_speak_of() {
    let disk = SimDisk::default();
    let floor = Floor { file: WalFileId(7), sequence: Sequence(100), seed: 3, ..Floor::default() };
    let (wal, _) = Wal::open(Arc::new(disk.clone()), Path::new(DIR), &floor, &mut |_, _, _, _| {}).unwrap();
    let sequence = append(&wal, b"a");
    wal.commit(sequence).unwrap();
    assert_eq!(sequence, Sequence(101));
    assert_eq!(disk.list(Path::new(DIR)).unwrap(), ["0000000008.wal"]);
    // A file that is there decides where it is ahead.
    let (wal, found) = open(&disk);
    assert_eq!((found.len(), append(&wal, b"b")), (1, Sequence(102)));
}

#[test]
fn a_newer_version_refuses_to_start() {
    let disk = SimDisk::default();
    disk.create_dir_all(Path::new(DIR)).unwrap();
    let path = reader::path_of(Path::new(DIR), WalFileId(1));
    disk.create(&path).unwrap().append(b"bwal\x03\xa6\0\0").unwrap();
    let opened = Wal::open(Arc::new(disk), Path::new(DIR), &Floor::default(), &mut |_, _, _, _| {});
    assert!(matches!(opened, Err(WalOpenError::TooNew { found: 3, .. })));
}

#[test]
fn many_writers_share_syncs_and_keep_order() {
    let disk = SimDisk::default();
    let (wal, _) =
        Wal::open(Arc::new(disk.clone()), Path::new(DIR), &Floor::default(), &mut |_, _, _, _| {}).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..4u8 {
            let wal = &wal;
            scope.spawn(move || {
                for i in 0..50u8 {
                    let sequence = append(wal, &[writer, i]);
                    wal.commit(sequence).unwrap();
                }
            });
        }
    });
    let (_, found) = open(&disk);
    assert_eq!(found.len(), 200);
    for writer in 0..4u8 {
        let own: Vec<u8> = found.iter().filter(|r| r[0] == writer).map(|r| r[1]).collect();
        assert_eq!(own, (0..50).collect::<Vec<u8>>());
    }
}

/// A waker that counts.
#[derive(Default)]
struct Called(AtomicU64);

impl std::task::Wake for Called {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn who_waits_without_a_thread_is_called_once_it_is_durable_or_has_failed() {
    let disk = SimDisk::default();
    let (wal, _) = open(&disk);
    let called = Arc::new(Called::default());
    let waker = Waker::from(Arc::clone(&called));
    let calls = || called.0.load(Ordering::Relaxed);
    let (first, second) = (append(&wal, b"first"), append(&wal, b"second"));
    // One of them is asked for a thread, and nobody again before that has ended.
    assert!(matches!(wal.poll_commit(second, &waker), (Poll::Pending, true)));
    assert!(matches!(wal.poll_commit(first, &waker), (Poll::Pending, false)));
    assert_eq!(calls(), 0);
    wal.write_for_waiting();
    assert_eq!((calls(), wal.written().1), (2, 1), "one sync for both");
    assert!(matches!(wal.poll_commit(first, &waker), (Poll::Ready(Ok(())), false)));
    assert!(matches!(wal.poll_commit(second, &waker), (Poll::Ready(Ok(())), false)));
    disk.set_sync_failure(true);
    let third = append(&wal, b"third");
    assert!(matches!(wal.poll_commit(third, &waker), (Poll::Pending, true)));
    wal.write_for_waiting();
    assert_eq!(calls(), 3);
    assert!(matches!(wal.poll_commit(third, &waker), (Poll::Ready(Err(_)), false)));
    disk.set_sync_failure(false);
    wal.recover();
    assert!(matches!(wal.poll_commit(third, &waker), (Poll::Ready(Ok(())), false)));
    assert_eq!(open(&disk.crash(7)).1, [&b"first"[..], b"second", b"third"]);
}

/// Waits as a task does that nobody else looks after, with a thread that writes where one is asked for.
fn wait_without_a_thread(wal: &Arc<Wal>, sequence: Sequence) -> Result<(), WalError> {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    loop {
        let (done, is_asked) = wal.poll_commit(sequence, &waker);
        if is_asked {
            let wal = Arc::clone(wal);
            std::thread::spawn(move || wal.write_for_waiting());
        }
        match done {
            Poll::Ready(done) => return done,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[test]
fn nobody_who_waits_is_forgotten_however_the_others_wait() {
    let disk = SimDisk::default();
    let opened = Wal::open(Arc::new(disk.clone()), Path::new(DIR), &Floor::default(), &mut |_, _, _, _| {});
    let wal = Arc::new(opened.unwrap().0);
    std::thread::scope(|scope| {
        for writer in 0..6u8 {
            let wal = &wal;
            scope.spawn(move || {
                for i in 0..200u8 {
                    let sequence = append(wal, &[writer, i]);
                    match (writer % 3, i % 5) {
                        (0, _) => wal.commit(sequence).unwrap(),
                        // Its client has gone.
                        (_, 0) => drop(wal.poll_commit(sequence, Waker::noop())),
                        _ => wait_without_a_thread(wal, sequence).unwrap(),
                    }
                    let is_durable = wal.poll_commit(sequence, Waker::noop()).0.is_ready();
                    assert!(is_durable || i % 5 == 0, "{writer} {i}");
                    // Whoever asked for a thread and went has one all the same.
                    wal.write_for_waiting();
                }
            });
        }
    });
    assert_eq!(open(&disk.crash(3)).1.len(), 1200);
}
