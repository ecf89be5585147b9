//! A snapshot of a real Prometheus, blocks made here, and bytes that are none of either.

use std::sync::atomic::{AtomicI64, Ordering};

use binnacle_model::histogram::CUSTOM_SCHEMA;
use binnacle_model::storage::{ALL_TIME, Admin, Deadline, Queryable, Series};
use binnacle_model::time::Clock;
use binnacle_model::{LogTime, Matcher};
use proptest::prelude::*;

use super::*;
use crate::bytes::{put_text, put_varint, put_zigzag};
use crate::catalog::Catalog;
use crate::fs::{Disk, RealDisk, SimDisk, read_all};
use crate::{Options, Store, Telemetry};

/// When the snapshot was made.
const NOW_MS: i64 = 1_795_340_461_000;
const DAY_MS: i64 = 86_400_000;
const FROM: &str = "/prometheus";

struct Still(AtomicI64);

impl Clock for Still {
    fn now_ns(&self) -> LogTime {
        LogTime(self.0.load(Ordering::Relaxed) * 1_000_000)
    }
}

fn put_file(disk: &SimDisk, path: &Path, bytes: &[u8]) {
    disk.create_dir_all(path.parent().unwrap()).unwrap();
    let mut file = disk.create(path).unwrap();
    file.append(bytes).unwrap();
    file.sync().unwrap();
    disk.sync_dir(path.parent().unwrap()).unwrap();
}

/// The files of the snapshot, by their path in it.
fn snapshot() -> Vec<(PathBuf, Vec<u8>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/prometheus");
    let mut files = Vec::new();
    for block in RealDisk.list(&root).unwrap().into_iter().filter(|name| name != "README.md") {
        for name in ["meta.json", "index", "tombstones", "chunks/000001"] {
            let path = Path::new(&block).join(name);
            let bytes = read_all(&RealDisk, &root.join(&path), 1 << 20).unwrap();
            files.push((path, bytes));
        }
    }
    assert_eq!(files.len(), 24);
    files
}

fn disk_with(files: &[(PathBuf, Vec<u8>)]) -> SimDisk {
    let disk = SimDisk::default();
    files.iter().for_each(|(path, bytes)| put_file(&disk, &Path::new(FROM).join(path), bytes));
    disk
}

fn open(disk: &SimDisk) -> Store {
    let clock: Arc<dyn Clock> = Arc::new(Still(AtomicI64::new(NOW_MS)));
    let (disk, telemetry): (Arc<dyn Disk>, _) = (Arc::new(disk.clone()), Telemetry::default());
    Store::open_on(disk, Path::new("/data"), Options::default(), clock, telemetry, Catalog::in_memory())
        .unwrap()
}

fn import_with(store: &Store, disk: &SimDisk, retention: Duration) -> (ImportReport, Vec<ImportedBlock>) {
    let options = ImportOptions { retention };
    let mut told = Vec::new();
    let mut tell = |one: &ImportedBlock| {
        let outcome = match &one.outcome {
            ImportOutcome::Imported(counts) => ImportOutcome::Imported(counts.clone()),
            ImportOutcome::Known => ImportOutcome::Known,
            ImportOutcome::Unfinished => ImportOutcome::Unfinished,
            ImportOutcome::Failed(error) => {
                let reason = io::Error::other(error.to_string());
                ImportOutcome::Failed(ImportError::Read { path: PathBuf::new(), cause: reason })
            }
        };
        told.push(ImportedBlock { dir: one.dir.clone(), range: one.range, outcome });
    };
    let sources = find(disk, Path::new(FROM)).unwrap();
    let report = store.metrics.import(sources, &options, Timestamp(NOW_MS), &mut tell).unwrap();
    (report, told)
}

fn import(store: &Store, disk: &SimDisk) -> ImportReport {
    import_with(store, disk, Duration::from_hours(1080)).0
}

fn select(store: &Store, name: &str) -> Vec<Series> {
    let matchers = [Matcher::equal("__name__", name)];
    store.select(&matchers, ALL_TIME, &Deadline::default()).unwrap().map(Result::unwrap).collect()
}

fn samples_of_all(store: &Store) -> usize {
    let all = [Matcher::new("__name__", binnacle_model::MatchOp::Regex, ".+").unwrap()];
    let found = store.select(&all, ALL_TIME, &Deadline::default()).unwrap().map(Result::unwrap);
    found.map(|series| series.samples.len() + series.histograms.len()).sum()
}

#[test]
fn a_snapshot_is_imported_with_all_it_has() {
    let disk = disk_with(&snapshot());
    let store = open(&disk);
    let report = import(&store, &disk);
    let counts = &report.counts;
    assert_eq!((report.imported, report.known, report.failed), (6, 0, 0));
    assert_eq!((counts.samples, counts.blocks, counts.deleted), (959, 8, 145));
    assert_eq!((counts.too_old, counts.too_new), (0, 0));
    let floats = select(&store, "imported");
    assert_eq!(floats.iter().map(|one| one.samples.len()).collect::<Vec<_>>(), [432, 432 - 145]);
    for sample in floats.iter().flat_map(|one| one.samples.iter()) {
        assert_eq!(sample.value, (sample.timestamp.0 / 60_000 % 1000) as f64 / 8.0);
    }
    let custom = &select(&store, "native_custom")[0].histograms;
    assert_eq!(custom.len(), 40);
    assert_eq!(custom[3].histogram.schema, CUSTOM_SCHEMA);
    assert_eq!(*custom[3].histogram.bounds, [0.005, 0.25, 1e9]);
    assert_eq!(custom[3].histogram.positive.counts(), [4.0, 9.0, 1.0, 7.0]);
    assert!(select(&store, "native_ending")[0].histograms[17].histogram.is_stale());
    let hints = |name: &str| -> Vec<ResetHint> {
        select(&store, name)[0].histograms.iter().map(|one| one.histogram.hint).collect()
    };
    assert_eq!(hints("native_gauge"), [ResetHint::Gauge; 40]);
    // A chunk begins where the counter begins again; nothing is claimed of it.
    assert_eq!(hints("native_float")[25], ResetHint::Unknown);
    assert_eq!(hints("native_float")[26], ResetHint::NotReset);
}

#[test]
fn what_was_imported_before_is_left_alone_and_never_doubled() {
    let disk = disk_with(&snapshot());
    let store = open(&disk);
    import(&store, &disk);
    let again = import(&store, &disk);
    assert_eq!((again.imported, again.known, again.counts.blocks), (0, 6, 0));
    disk.remove_file(Path::new("/data/metrics/imported")).unwrap();
    assert_eq!(import(&store, &disk).imported, 6);
    assert_eq!(samples_of_all(&store), 959);
    drop(store);
    let store = open(&disk.crash(1));
    assert_eq!(samples_of_all(&store), 959);
    store.maintain().unwrap();
    assert_eq!(samples_of_all(&store), 959);
}

#[test]
fn a_deletion_before_the_import_takes_nothing_of_it() {
    let disk = disk_with(&snapshot());
    let store = open(&disk);
    import(&store, &disk);
    store
        .delete(
            &[vec![Matcher::equal("job", "import")], vec![Matcher::equal("__name__", "imported")]],
            ALL_TIME,
        )
        .unwrap();
    assert_eq!(samples_of_all(&store), 0);
    drop(store);
    // The log still has the deletion, and no block has a number any more.
    let store = open(&disk);
    disk.remove_file(Path::new("/data/metrics/imported")).unwrap();
    import(&store, &disk);
    drop(store);
    assert_eq!(samples_of_all(&open(&disk)), 959);
}

#[test]
fn samples_outside_of_the_retention_are_left_out_and_counted() {
    let disk = disk_with(&snapshot());
    let store = open(&disk);
    let (report, _) = import_with(&store, &disk, Duration::from_hours(24));
    let counts = report.counts;
    assert!(counts.too_old > 0 && counts.samples > 0);
    assert_eq!(samples_of_all(&store) as u64, counts.samples);
    let oldest = select(&store, "imported")[0].samples.as_slice().at(0).timestamp;
    assert!(oldest >= Timestamp(NOW_MS - DAY_MS));
}

type Made<'a> = (&'a [(&'a str, &'a str)], &'a [(i64, f64)]);

/// A block with a chunk for each sample.
fn made(version: u8, encoding: u8, series: &[Made<'_>]) -> Vec<(PathBuf, Vec<u8>)> {
    let mut chunks = b"\x85\xbd\x40\xdd\x01\0\0\0".to_vec();
    let mut index = vec![0xba, 0xaa, 0xd7, 0x00, version];
    let with_crc = |out: &mut Vec<u8>, bytes: &[u8]| {
        out.extend_from_slice(bytes);
        out.extend_from_slice(&crc32c::crc32c(bytes).to_be_bytes());
    };
    let words: BTreeSet<&str> = series
        .iter()
        .flat_map(|(labels, _)| labels.iter().flat_map(|(name, value)| [*name, *value]))
        .collect();
    let mut symbols = (words.len() as u32).to_be_bytes().to_vec();
    let mut references = BTreeMap::new();
    for (word, number) in words.iter().zip(0u64..) {
        references.insert(*word, if version == 1 { 9 + symbols.len() as u64 } else { number });
        put_text(&mut symbols, word);
    }
    index.extend_from_slice(&(symbols.len() as u32).to_be_bytes());
    with_crc(&mut index, &symbols);
    let series_at = index.len() as u64;
    for (labels, samples) in series {
        if version > 1 {
            index.resize(index.len().next_multiple_of(16), 0);
        }
        let mut entry = Vec::new();
        put_varint(&mut entry, labels.len() as u64);
        for word in labels.iter().flat_map(|(name, value)| [name, value]) {
            put_varint(&mut entry, references[word]);
        }
        put_varint(&mut entry, samples.len() as u64);
        let (mut end, mut place) = (0, 0);
        for (at, (time, value)) in samples.iter().enumerate() {
            if at == 0 {
                put_zigzag(&mut entry, *time);
            } else {
                put_varint(&mut entry, (time - end) as u64);
            }
            put_varint(&mut entry, 0);
            let reference = chunks.len() as i64;
            if at == 0 {
                put_varint(&mut entry, reference as u64);
            } else {
                put_zigzag(&mut entry, reference - place);
            }
            (end, place) = (*time, reference);
            let mut data = vec![encoding, 0, 1];
            put_zigzag(&mut data, *time);
            data.extend_from_slice(&value.to_be_bytes());
            put_varint(&mut chunks, data.len() as u64 - 1);
            with_crc(&mut chunks, &data);
        }
        put_varint(&mut index, entry.len() as u64);
        with_crc(&mut index, &entry);
    }
    let behind = index.len() as u64;
    let contents: Vec<u8> =
        [5, series_at, behind, 0, 0, 0].iter().flat_map(|one| one.to_be_bytes()).collect();
    with_crc(&mut index, &contents);
    let ulid = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
    let meta = format!("{{\"ulid\":\"{ulid}\",\"minTime\":0,\"maxTime\":1,\"version\":1}}");
    let file = |name: &str, bytes: Vec<u8>| (Path::new(ulid).join(name), bytes);
    vec![file("meta.json", meta.into_bytes()), file("index", index), file("chunks/000001", chunks)]
}

#[test]
fn both_formats_of_the_index_are_read_in_any_order() {
    let long = "x".repeat(70_000);
    for version in [1, 2] {
        let (first, last) = (NOW_MS - 2 * DAY_MS, NOW_MS - 1);
        let (b, a) = ([("__name__", "m"), ("k", "b")], [("__name__", "m"), ("k", "a")]);
        let (same, large) = ([("__name__", "m"), ("k", "a")], [("__name__", "m"), ("k", &*long)]);
        let disk = disk_with(&made(
            version,
            1,
            &[
                (&b, &[(first, 1.0), (last, 2.0)]),
                (&a, &[(first, 3.0)]),
                (&same, &[(first, 9.0)]),
                (&large, &[(first, 9.0)]),
                (&a, &[]),
            ],
        ));
        let store = open(&disk);
        let report = import(&store, &disk);
        assert_eq!((report.imported, report.counts.samples, report.counts.blocks), (1, 3, 2), "{report:?}");
        let refused: Vec<_> = report.counts.refused_series.into_iter().collect();
        let reasons = ["its labels have more than 65536 bytes", "the index has it twice"];
        assert_eq!(refused, [(reasons[0].to_owned(), 1), (reasons[1].to_owned(), 2)]);
        let found = select(&store, "m");
        let values: Vec<Vec<f64>> =
            found.iter().map(|one| one.samples.iter().map(|sample| sample.value).collect()).collect();
        assert_eq!(values, [vec![3.0], vec![1.0, 2.0]]);
    }
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    let check = |files: &[(PathBuf, Vec<u8>)], want: &str| {
        let disk = disk_with(files);
        let store = open(&disk);
        let (report, told) = import_with(&store, &disk, Duration::from_hours(1080));
        assert_eq!((report.failed, samples_of_all(&store)), (1, 0));
        let ImportOutcome::Failed(ImportError::Read { cause, .. }) = &told[0].outcome else {
            panic!("{told:?}")
        };
        assert!(cause.to_string().contains(want), "{cause} is not {want}");
        let left = disk.list(Path::new("/data/metrics")).unwrap();
        assert!(left.is_empty(), "{left:?}");
    };
    let labels = [("__name__", "m")];
    let samples = [(NOW_MS - 2 * DAY_MS, 1.0), (NOW_MS - 5, 2.0)];
    let block = |encoding| made(2, encoding, &[(&labels, &samples)]);
    check(&block(4), "000001: the chunk at byte 8 has encoding 4 (XOR2), which is not known here");
    let mut files = block(1);
    let middle = files[2].1.len() - 6;
    files[2].1[middle] ^= 1;
    check(&files, "chunks/000001 is corrupt at byte");
    let mut files = block(1);
    files[1].1[12] ^= 1;
    check(&files, "index is corrupt at byte 9: the checksum is wrong");
    let mut files = block(1);
    files[1].1[4] = 3;
    check(&files, "index has format version 3, and 2 is the newest that is known here");
    let mut files = block(1);
    files[2].0.set_file_name("none");
    check(&files, "chunks/000001 is missing");
}

proptest! {
    // Each opens a store.
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Each flip of a bit is found, or is where nothing is read.
    #[test]
    fn flipped_bits_never_panic(file in 0usize..24, place in any::<prop::sample::Index>(), bit in 0u8..8) {
        let mut files = snapshot();
        let bytes = &mut files[file].1;
        let at = place.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let is_meta = files[file].0.ends_with("meta.json");
        let disk = disk_with(&files);
        if let Ok(sources) = find(&disk, Path::new(FROM)) {
            let store = open(&disk);
            let options = ImportOptions { retention: Duration::from_hours(1080) };
            let report = store.metrics.import(sources, &options, Timestamp(NOW_MS), &mut |_| {}).unwrap();
            prop_assert!(is_meta || report.failed == 1 || samples_of_all(&store) == 959);
        }
    }
}

proptest! {
    #[test]
    fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), encoding in 0u8..5) {
        let mut data = vec![encoding];
        data.extend_from_slice(&bytes);
        let disk = SimDisk::default();
        let mut chunks = b"\x85\xbd\x40\xdd\x01\0\0\0".to_vec();
        put_varint(&mut chunks, bytes.len() as u64);
        chunks.extend_from_slice(&data);
        chunks.extend_from_slice(&crc32c::crc32c(&data).to_be_bytes());
        put_file(&disk, Path::new("/chunks/000001"), &chunks);
        let mut segments = Segments::open(&disk, Path::new("/chunks")).unwrap();
        let place = index::ChunkPlace { range: ALL_TIME, reference: 8 };
        let mut samples = Samples::default();
        if segments.read(place, &mut samples).is_ok() {
            prop_assert_eq!(samples.len() as u64, segments.count(place).unwrap());
        }
        put_file(&disk, Path::new("/index"), &bytes);
        prop_assert!(Index::open(&disk, Path::new("/index")).is_err());
    }

    /// As above, where only what is behind the first bytes of a real chunk is foreign.
    #[test]
    fn damaged_chunks_never_panic(flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..9)) {
        let files = snapshot();
        for (path, chunks) in files.iter().filter(|(path, _)| path.ends_with("000001")) {
            let mut at = 8;
            while at < chunks.len() {
                let mut reader = crate::bytes::Reader::new(&chunks[at..]);
                let length = reader.varint().unwrap() as usize;
                let body = chunks.len() - reader.rest().len();
                let mut data = chunks[body + 1..=body + length].to_vec();
                for (place, byte) in &flips {
                    let place = place.index(data.len());
                    data[place] = *byte;
                }
                let (mut floats, mut histograms) = (Vec::new(), Vec::new());
                let _ = chunks::decode_floats(&data, &mut floats);
                let _ = histogram::decode_histograms(&data, histogram::Counts::Whole, &mut histograms);
                let _ = histogram::decode_histograms(&data, histogram::Counts::Floats, &mut histograms);
                at = body + 1 + length + 4;
            }
            prop_assert_eq!(at, chunks.len(), "{:?}", path);
        }
    }
}
