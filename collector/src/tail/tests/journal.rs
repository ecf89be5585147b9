//! Journals: places are numbers of entries, and files have names of their own.

use super::*;

/// Entries in the fixture.
const ENTRIES: usize = 46;

struct Journal {
    bed: Bed,
    dir: PathBuf,
}

/// A journal that systemd wrote, under another name of its own.
fn written(id: u8) -> Vec<u8> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/journal/compact-zstd.journal.zst");
    let mut bytes = zstd::decode_all(fs::File::open(path).unwrap()).unwrap();
    bytes[24..40].fill(id);
    bytes
}

impl Journal {
    fn new() -> Self {
        let bed = Bed::new();
        let dir = bed.dir.path().join("journal/3c1f0e6a8b5d4c7f9a2b1d0e4f6a8c7b");
        fs::create_dir_all(&dir).unwrap();
        Self { bed, dir }
    }

    /// Puts a journal there of which so many entries are written.
    fn put(&self, name: &str, id: u8, entries: usize) {
        let mut bytes = written(id);
        bytes[152..160].copy_from_slice(&(entries as u64).to_le_bytes());
        fs::write(self.dir.join(name), bytes).unwrap();
    }

    /// Writes on.
    fn grow(&self, name: &str, entries: usize) {
        use std::os::unix::fs::FileExt;
        let file = OpenOptions::new().write(true).open(self.dir.join(name)).unwrap();
        file.write_all_at(&(entries as u64).to_le_bytes(), 152).unwrap();
    }

    fn options(&self, units: Units) -> Options {
        let dirs = vec![self.bed.dir.path().join("journal")];
        self.bed.options(Input::Journal { dirs, units })
    }

    fn tailer(&self) -> Tailer {
        self.bed.tailer_of(self.options(Units::default()))
    }

    fn archive(&self, name: &str, number: usize) {
        let to = format!("system@0000000000000000000000000000000a-{number:016x}-{number:016x}.journal");
        fs::rename(self.dir.join(name), self.dir.join(to)).unwrap();
    }

    fn archived(&self, number: usize) -> PathBuf {
        let name = format!("system@0000000000000000000000000000000a-{number:016x}-{number:016x}.journal");
        self.dir.join(name)
    }

    /// Each file's mark, by the last digits of its name.
    fn marks(&self) -> Vec<(String, u64)> {
        let state = self.bed.store.state.lock().unwrap();
        state.0.iter().map(|(file, mark)| (file.clone(), *mark)).collect()
    }
}

fn key(id: u8) -> String {
    format!("n/journal/{}", format!("{id:02x}").repeat(16))
}

#[test]
fn entries_are_followed_through_rotation_and_restart() {
    let journal = Journal::new();
    journal.put("system.journal", 1, 10);
    let mut tailer = journal.tailer();
    round(&mut tailer);
    assert_eq!(journal.marks(), [(key(1), 10)]);
    journal.grow("system.journal", 20);
    round(&mut tailer);
    assert_eq!(journal.bed.store.count(), 20);
    // Rotated with entries that nobody has read, and begun anew.
    journal.grow("system.journal", ENTRIES);
    journal.archive("system.journal", 1);
    journal.put("system.journal", 2, 5);
    round(&mut tailer);
    assert_eq!(journal.marks(), [(key(1), ENTRIES as u64), (key(2), 5)]);
    tailer.save();
    drop(tailer);
    journal.grow("system.journal", 7);
    round(&mut journal.tailer());
    assert_eq!(journal.bed.store.count(), ENTRIES + 7, "resumed at the checkpoint");
    fs::remove_dir_all(journal.bed.dir.path().join("state")).unwrap();
    journal.archive("system.journal", 2);
    journal.put("system.journal", 3, 1);
    round(&mut journal.tailer());
    assert_eq!(journal.bed.store.count(), ENTRIES + 8, "without a checkpoint the marks decide");
    assert_eq!(journal.bed.telemetry.duplicates.get(), 0);
    let lines = journal.bed.store.lines();
    assert_eq!(lines[..ENTRIES - 4].iter().filter(|line| line.starts_with("request ")).count(), 24);
    assert_eq!(lines[0], "Linux version 6.12.0 (build@example)");
    assert_eq!(lines[0], lines[ENTRIES]);
    assert_eq!(journal.bed.telemetry.journal.read.get() as usize, ENTRIES + 8);
    assert_eq!((journal.bed.telemetry.bytes_read.get(), journal.bed.telemetry.journal.lost.get()), (0, 0));
}

#[test]
fn what_is_not_written_yet_is_waited_for_and_what_never_will_be_is_counted() {
    let journal = Journal::new();
    let whole = written(1);
    let array = u64::from_le_bytes(std::array::from_fn(|i| whole[176 + i])) as usize;
    // The third item of the first array of entries.
    let hole = array + 24 + 8..array + 24 + 12;
    journal.put("system.journal", 1, 20);
    let live = journal.dir.join("system.journal");
    let patch = |bytes: &[u8]| {
        use std::os::unix::fs::FileExt;
        OpenOptions::new().write(true).open(&live).unwrap().write_all_at(bytes, hole.start as u64).unwrap();
    };
    patch(&[0; 4]);
    let mut tailer = journal.tailer();
    round(&mut tailer);
    assert_eq!(journal.bed.store.count(), 2);
    patch(&whole[hole.clone()]);
    journal.grow("system.journal", 21);
    round(&mut tailer);
    assert_eq!(journal.bed.store.count(), 21, "each once");
    // Of a file that somebody writes to it is not waited for without end.
    journal.put("user-1.journal", 3, 20);
    let other = OpenOptions::new().write(true).open(journal.dir.join("user-1.journal")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&other, &[0; 4], hole.start as u64).unwrap();
    round(&mut tailer);
    assert_eq!(journal.bed.store.count(), 21 + 2);
    journal.bed.wait(31);
    round(&mut tailer);
    assert_eq!((journal.bed.store.count(), journal.bed.telemetry.journal.damaged.get()), (21 + 19, 1));
    journal.archive("system.journal", 1);
    // Renamed because it was not closed, with a hole that nobody will fill.
    let mut dirty = written(2);
    dirty[hole].fill(0);
    fs::write(journal.dir.join("system@0000000000000002-00000000000000aa.journal~"), dirty).unwrap();
    round(&mut tailer);
    assert_eq!(journal.bed.telemetry.journal.damaged.get(), 2);
    assert_eq!(journal.bed.store.count(), 21 + 19 + ENTRIES - 1);
    assert_eq!(journal.marks(), [(key(1), 21), (key(2), ENTRIES as u64), (key(3), 20)]);
}

#[test]
fn what_journald_deletes_is_read_from_its_open_file_within_bounds() {
    for (bytes, lost) in [(1 << 30, 0), (1 << 20, ENTRIES as u64 - 10)] {
        let journal = Journal::new();
        let spool = SpoolLimits { bytes, ..SpoolLimits::default() };
        let mut tailer = journal.bed.tailer_of(Options { spool, ..journal.options(Units::default()) });
        journal.put("system.journal", 1, 10);
        round(&mut tailer);
        journal.bed.store.refuses.store(true, Ordering::Relaxed);
        // The sender and the pack behind it are full, so that nothing more is read.
        journal.grow("system.journal", ENTRIES);
        tailer.scan();
        let report = tailer.report().journal.unwrap();
        assert_eq!((report.files, report.entries, report.acknowledged), (1, ENTRIES as u64, 10));
        journal.archive("system.journal", 1);
        fs::remove_file(journal.archived(1)).unwrap();
        tailer.scan();
        journal.bed.wait(3);
        tailer.scan();
        assert_eq!(journal.bed.telemetry.journal.lost.get(), lost);
        assert_eq!(tailer.report().journal.unwrap().lost, lost);
        journal.bed.store.refuses.store(false, Ordering::Relaxed);
        round_until(&mut tailer, || journal.bed.store.count() as u64 == ENTRIES as u64 - lost);
        assert_eq!(journal.bed.telemetry.lost_bytes.get(), 0, "entries are no bytes");
    }
}

#[test]
fn units_that_are_not_wanted_are_passed_over_and_secrets_taken_out() {
    let journal = Journal::new();
    journal.put("system.journal", 1, ENTRIES);
    journal.put("user-1000.journal", 2, 2);
    let exclude = vec![edge::Scope { namespace: "*".into(), container: "containerd".into() }];
    let units = Units {
        include: vec!["kubelet".into(), "containerd".into(), "app.service".into(), "ssh*".into()],
        exclude: vec!["sshd".into(), "kernel".into()],
    };
    let rule = edge::Redaction::rule("203\\.0\\.113\\.\\d+|value \\d+", "<redacted>").unwrap();
    let redactor = edge::Redactor::new(vec![rule]);
    let rules = edge::EdgeRules { redactor: Arc::new(redactor), exclude, ..edge::EdgeRules::default() };
    let mut tailer = journal.bed.tailer_of(Options { edge: rules, ..journal.options(units) });
    round(&mut tailer);
    let lines = journal.bed.store.lines();
    assert_eq!(lines.len(), 3 + 1 + 7, "{lines:?}");
    assert!(
        lines.contains(&"Failed password for invalid user admin from <redacted> port 51122 ssh2".to_owned())
    );
    assert_eq!(journal.marks(), [(key(1), ENTRIES as u64), (key(2), 2)], "all of it is done");
    let state = journal.bed.store.state.lock().unwrap();
    let fields =
        state.1.iter().flat_map(|entry| &entry.fields).filter(|field| field.name.starts_with("field_"));
    let texts: Vec<String> = fields.map(|field| format!("{:?}", field.value)).collect();
    assert!(texts.len() > 20 && texts.iter().all(|text| text.contains("<redacted>")), "{texts:?}");
}
