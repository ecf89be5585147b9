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
        Floor::default(),
        SMALL_FILE_BYTES,
        &mut |_, _, _, payload| {
            found.push(payload.to_vec());
        },
    )
    .unwrap();
    (wal, found)
}

fn append(wal: &Wal, payload: &[u8]) -> Result<Sequence, WalError> {
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
        Floor::default(),
        SMALL_FILE_BYTES,
        &mut |_, _, _, _| {},
    ) else {
        return 0;
    };
    for (i, record) in records.iter().enumerate() {
        let Ok(sequence) = append(&wal, record) else { break };
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

    /// A flipped bit costs the record that holds it, and no other.
    #[test]
    fn a_flipped_bit_costs_one_record(records in records(), at: prop::sample::Index) {
        let disk = SimDisk::default();
        let (wal, _) = Wal::open(Arc::new(disk.clone()), Path::new(DIR), Floor::default(), &mut |_, _, _, _| {}).unwrap();
        for record in &records {
            append(&wal, record).unwrap();
        }
        wal.commit_all().unwrap();
        let path = reader::path_of(Path::new(DIR), WalFileId(1));
        let size = disk.open(&path).unwrap().size().unwrap() as usize;
        let first = PREAMBLE_BYTES * 8;
        disk.flip_bit(&path, first + at.index(size * 8 - first));
        let (_, survived) = open(&disk);
        prop_assert_eq!(survived.len(), records.len() - 1);
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
    let first = append(&wal, b"a").unwrap();
    wal.commit(first).unwrap();
    let (wal, found) = open(&disk);
    assert_eq!(found, [b"a"]);
    let second = append(&wal, b"b").unwrap();
    wal.commit(second).unwrap();
    assert_eq!((first, second), (Sequence(1), Sequence(2)));
    assert_eq!(wal.sealed().len(), 1);
    assert_eq!(open(&disk).1, [b"a", b"b"]);
}

#[test]
fn a_failed_sync_poisons_the_log() {
    let disk = SimDisk::default();
    let (wal, _) = open(&disk);
    disk.set_sync_failure(true);
    let sequence = append(&wal, b"a").unwrap();
    assert!(wal.commit(sequence).is_err());
    disk.set_sync_failure(false);
    assert!(wal.commit(sequence).is_err(), "a second sync would lie");
    assert!(append(&wal, b"b").is_err());
}

#[test]
fn removed_files_do_not_come_back() {
    let disk = SimDisk::default();
    let (wal, _) = open(&disk);
    for i in 0..20u8 {
        let sequence = append(&wal, &[i; 60]).unwrap();
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
    let floor = Floor { file: WalFileId(7), sequence: Sequence(100), seed: 3 };
    let (wal, _) = Wal::open(Arc::new(disk.clone()), Path::new(DIR), floor, &mut |_, _, _, _| {}).unwrap();
    let sequence = append(&wal, b"a").unwrap();
    wal.commit(sequence).unwrap();
    assert_eq!(sequence, Sequence(101));
    assert_eq!(disk.list(Path::new(DIR)).unwrap(), ["0000000008.wal"]);
    // A file that is there decides where it is ahead.
    let (wal, found) = open(&disk);
    assert_eq!((found.len(), append(&wal, b"b").unwrap()), (1, Sequence(102)));
}

#[test]
fn a_newer_version_refuses_to_start() {
    let disk = SimDisk::default();
    disk.create_dir_all(Path::new(DIR)).unwrap();
    let path = reader::path_of(Path::new(DIR), WalFileId(1));
    disk.create(&path).unwrap().append(b"bwal\x02\xa7\0\0").unwrap();
    let opened = Wal::open(Arc::new(disk), Path::new(DIR), Floor::default(), &mut |_, _, _, _| {});
    assert!(matches!(opened, Err(WalOpenError::TooNew { found: 2, .. })));
}

#[test]
fn many_writers_share_syncs_and_keep_order() {
    let disk = SimDisk::default();
    let (wal, _) =
        Wal::open(Arc::new(disk.clone()), Path::new(DIR), Floor::default(), &mut |_, _, _, _| {}).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..4u8 {
            let wal = &wal;
            scope.spawn(move || {
                for i in 0..50u8 {
                    let sequence = append(wal, &[writer, i]).unwrap();
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
