//! Files that systemd wrote; `collector/testdata/journal/README.md` says how.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;

use proptest::prelude::*;
use serde_json::Value;

use super::*;

/// What a field compressed by XZ is in: three messages and a field.
const COMPRESSED_FIELDS: u32 = 3;

pub(crate) fn fixture(name: &str) -> Vec<u8> {
    let path = format!("{}/testdata/journal/{name}.zst", env!("CARGO_MANIFEST_DIR"));
    zstd::decode_all(File::open(&path).unwrap_or_else(|error| panic!("{path}: {error}"))).unwrap()
}

fn file_of(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// Fields of an entry as `journalctl -o json` writes them.
fn as_json(entry: &Entry) -> BTreeMap<String, Value> {
    let mut fields: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    let is_text = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
    for (name, value) in entry.fields() {
        let value = match std::str::from_utf8(value) {
            Ok(text) if text.chars().all(is_text) => Value::from(text),
            _ => Value::from(value.to_vec()),
        };
        fields.entry(String::from_utf8(name.to_vec()).unwrap()).or_default().push(value);
    }
    let one =
        |mut values: Vec<Value>| if values.len() == 1 { values.remove(0) } else { Value::Array(values) };
    let mut fields: BTreeMap<String, Value> =
        fields.into_iter().map(|(name, values)| (name, one(values))).collect();
    fields.insert("__REALTIME_TIMESTAMP".to_owned(), entry.realtime_us.to_string().into());
    fields.insert("_BOOT_ID".to_owned(), file::hex(&entry.boot_id).into());
    fields
}

fn expected() -> Vec<BTreeMap<String, Value>> {
    let text = String::from_utf8(fixture("expected.json")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn entries_are_those_that_journalctl_shows() {
    let expected = expected();
    assert!(expected.len() > 40);
    for name in ["regular-none", "regular-zstd", "compact-zstd", "compact-lz4", "compact-xz"] {
        let mut journal = JournalFile::open(file_of(&fixture(&format!("{name}.journal")))).unwrap();
        assert_eq!(journal.entries(), expected.len() as u64, "{name}");
        assert_eq!(journal.id().len(), 32);
        let mut entry = Entry::default();
        let mut unreadable = 0;
        // Forward, then again from the end: where one is found does not depend on what was read before it.
        for at in (0..journal.entries()).chain((0..journal.entries()).rev()) {
            assert_eq!(journal.read(at, &mut entry, false).unwrap(), Found::Entry, "{name} {at}");
            unreadable += entry.unreadable;
            let (mut found, mut want) = (as_json(&entry), expected[at as usize].clone());
            if name == "compact-xz" {
                want.retain(|field, _| found.contains_key(field));
            }
            assert_eq!(std::mem::take(&mut found), want, "{name} {at}");
        }
        let wanted = if name == "compact-xz" { 2 * COMPRESSED_FIELDS } else { 0 };
        assert_eq!(unreadable, wanted, "{name}");
        assert_eq!(journal.read(journal.entries(), &mut entry, false).unwrap(), Found::Later);
    }
}

#[test]
fn lines_say_whose_they_are_and_how_bad() {
    let mut journal = JournalFile::open(file_of(&fixture("compact-zstd.journal"))).unwrap();
    let mut entry = Entry::default();
    let mut found = Vec::new();
    for at in 0..18 {
        journal.read(at, &mut entry, false).unwrap();
        let line = line(&entry);
        let message = String::from_utf8_lossy(line.message);
        let short: String = message.chars().take(20).collect();
        found.push(format!("{}|{}|{}|{short}", line.service, line.unit, line.level));
    }
    let want = [
        "kernel||info|Linux version 6.12.0",
        "kernel||error|EXT4-fs error (devic",
        "kernel||fatal|Out of memory: kille",
        "kubelet|kubelet.service|info|Started kubelet.serv",
        "kubelet|kubelet.service|info|I1121 10:00:00.00400",
        "kubelet|kubelet.service|error|E1121 10:00:00.00500",
        "containerd|containerd.service|warn|time=\"2026-11-21T10:",
        "containerd|containerd.service|debug|{\"level\":\"debug\",\"ms",
        "ssh|ssh.service|warn|Failed password for ",
        "session|session-12.scope|info|sudo: alice : TTY=pt",
        "user|user@1000.service|info|a unit of a user",
        "docker|docker.service|info|line of a container",
        "app|app.service|error|first line\nsecond li",
        "app|app.service|info|bytes \u{fffd}\u{fffd}\0 that are n",
        "app|app.service|info|",
        "job|||",
        "journal||debug|of nobody at all",
        "liar|liar.service|info|a unit that is only ",
    ];
    assert_eq!(found, want);
    let mut attributes = |at: u64| -> Vec<String> {
        journal.read(at, &mut entry, false).unwrap();
        let show = |(name, value): (std::borrow::Cow<'_, str>, line::Value<'_>)| match value {
            line::Value::Text(text) => format!("{name}={text}"),
            line::Value::Int(number) => format!("{name}:{number}"),
        };
        let mut shown: Vec<String> = line(&entry).attributes.into_iter().map(show).collect();
        shown.sort();
        shown
    };
    let boot = "boot_id=9f3a5b1c2d4e4f60817263544536271a";
    let want = [
        boot,
        "comm=sshd",
        "pid:901",
        "syslog_identifier=sshd",
        "transport=syslog",
        "uid:0",
        "unit=ssh.service",
    ];
    assert_eq!(attributes(8), want);
    let docker = attributes(11);
    assert!(
        docker.contains(&"container_name=web".to_owned())
            && docker.contains(&"image_name=nginx:1".to_owned())
    );
    let liar = attributes(17);
    assert!(liar.contains(&"journal.unit=kubelet.service".to_owned()), "{liar:?}");
    assert!(liar.contains(&"journal.namespace=kube-system".to_owned()), "{liar:?}");
    // The sender's own time, where it says one.
    journal.read(8, &mut entry, false).unwrap();
    assert_eq!(line(&entry).time_ns, 1_795_255_200_008_500_000);
    journal.read(9, &mut entry, false).unwrap();
    assert_eq!(line(&entry).time_ns, 1_795_255_200_010_000_000);
}

#[test]
fn a_long_message_is_cut_and_its_length_is_known() {
    let mut journal = JournalFile::open(file_of(&fixture("long.journal"))).unwrap();
    let mut entry = Entry::default();
    assert_eq!(journal.read(journal.entries() - 1, &mut entry, false).unwrap(), Found::Entry);
    let line = line(&entry);
    assert_eq!((line.message.len(), line.cut_of), (file::MESSAGE_MAX_BYTES, Some(1_500_000)));
    assert!(line.message.starts_with(b"long long "));
}

#[test]
fn what_is_no_journal_is_refused_and_says_why() {
    let good = fixture("compact-lz4.journal");
    let refused = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        JournalFile::open(file_of(&bytes)).unwrap_err()
    };
    let text = refused(&|bytes| bytes[12] |= 0x40).to_string();
    assert!(text.contains("incompatible flags 0x40"), "{text}");
    assert!(refused(&|bytes| bytes[0] = b'X').to_string().contains("no file of systemd's journal"));
    assert!(refused(&|bytes| bytes[159] = 0xff).to_string().contains("contradicts"));
    for not_yet in [0, 7, 100] {
        assert_eq!(refused(&|bytes| bytes.truncate(not_yet)).kind(), std::io::ErrorKind::NotFound);
    }
    assert_eq!(refused(&|bytes| bytes[..208].fill(0)).kind(), std::io::ErrorKind::NotFound);
}

/// Where things lie in the file: arrays of entries, then each entry.
fn places(bytes: &[u8]) -> (Vec<u64>, Vec<u64>) {
    let at = |offset: u64| header::u64_at(bytes, offset as usize);
    let is_compact = bytes[12] & 16 != 0;
    let width = if is_compact { 4 } else { 8 };
    let (mut arrays, mut entries, mut array) = (Vec::new(), Vec::new(), at(176));
    while array != 0 {
        arrays.push(array);
        for place in (array + 24..array + at(array + 8)).step_by(width) {
            entries.push(if is_compact {
                u64::from(header::u32_at(bytes, place as usize))
            } else {
                at(place)
            });
        }
        array = at(array + 16);
    }
    entries.retain(|entry| *entry != 0);
    (arrays, entries)
}

#[test]
fn a_corrupt_object_costs_one_entry_or_field() {
    let good = fixture("compact-zstd.journal");
    let (arrays, entries) = places(&good);
    assert!(arrays.len() > 2 && entries.len() > 40);
    let read_all = |bytes: &[u8]| {
        let mut journal = JournalFile::open(file_of(bytes)).unwrap();
        let mut entry = Entry::default();
        let all = 0..journal.entries();
        all.map(|at| (journal.read(at, &mut entry, false).unwrap(), entry.unreadable)).collect::<Vec<_>>()
    };
    let mut bad = good.clone();
    bad[entries[5] as usize] = 1;
    let found = read_all(&bad);
    let damaged: Vec<usize> = (0..found.len()).filter(|at| found[*at].0 != Found::Entry).collect();
    assert_eq!((damaged, found[5]), (vec![5], (Found::Damaged, 0)));
    // One field: the first item of an entry leads nowhere.
    let mut bad = good.clone();
    bad[entries[7] as usize + 64] ^= 1;
    assert_eq!(read_all(&bad)[7], (Found::Entry, 1));
    // An array that leads back to itself, and one that leads to the first.
    for (from, to) in [(1, 1), (1, 0)] {
        let mut bad = good.clone();
        let place = arrays[from] as usize + 16;
        bad[place..place + 8].copy_from_slice(&arrays[to].to_le_bytes());
        let found = read_all(&bad);
        let kept = found.iter().take_while(|(found, _)| *found == Found::Entry).count();
        assert!(kept >= 4 && found[kept..].iter().all(|(found, _)| *found == Found::Damaged), "{kept}");
    }
    // A field that was not written: nobody knows whether it will be, until nobody writes.
    let data = u64::from(header::u32_at(&good, entries[8] as usize + 68)) as usize;
    let mut bad = good.clone();
    bad[data..data + 16].fill(0);
    let mut journal = JournalFile::open(file_of(&bad)).unwrap();
    let mut entry = Entry::default();
    assert_eq!(journal.read(8, &mut entry, false).unwrap(), Found::Later);
    assert_eq!((journal.read(8, &mut entry, true).unwrap(), entry.unreadable), (Found::Entry, 1));
    // Not written yet.
    let mut bad = good;
    bad[entries[9] as usize..entries[9] as usize + 16].fill(0);
    assert_eq!(read_all(&bad)[9].0, Found::Later);
}

#[test]
fn a_file_that_grows_gives_each_entry_once() {
    let whole = fixture("regular-zstd.journal");
    let entries = header::u64_at(&whole, 152);
    let file = file_of(&vec![0; whole.len()]);
    assert!(JournalFile::open(file.try_clone().unwrap()).is_err(), "no header yet");
    // All objects are written before the header counts the entry.
    let mut header = whole[..264].to_vec();
    header[16] = 1;
    header[152..160].fill(0);
    file.write_all_at(&header, 0).unwrap();
    let mut journal = JournalFile::open(file.try_clone().unwrap()).unwrap();
    let (mut entry, mut at, mut written, mut given) = (Entry::default(), 0, 264, 0);
    for step in 1..=entries + 3 {
        let end = whole.len().min(264 + whole.len() / 40 * step as usize);
        // The last step leaves nothing out.
        let end = if step > entries { whole.len() } else { end };
        file.write_all_at(&whole[written..end], written as u64).unwrap();
        written = end;
        file.write_all_at(&step.min(entries).to_le_bytes(), 152).unwrap();
        assert!(journal.refresh().unwrap(), "it is the same file");
        while at < journal.entries() && journal.read(at, &mut entry, false).unwrap() == Found::Entry {
            at += 1;
            given += 1;
        }
    }
    assert_eq!((at, given), (entries, entries));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever is cut off or changed: an answer, in bounded time and memory.
    #[test]
    fn damaged_files_are_read_to_their_end(
        which in 0usize..4,
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..20),
        aimed in proptest::collection::vec((any::<proptest::sample::Index>(), 0usize..80, any::<u8>()), 0..20),
        keep in proptest::option::of(any::<proptest::sample::Index>()),
    ) {
        let name = ["regular-none", "regular-zstd", "compact-zstd", "compact-lz4"][which];
        let mut bytes = fixture(&format!("{name}.journal"));
        // Where things are named and counted: in the header, in arrays, and at the beginnings of entries.
        let (arrays, entries) = places(&bytes);
        let heads: Vec<u64> = [0, 88, 152].into_iter().chain(arrays).chain(entries).collect();
        // Others go where something stands, not into the room that is kept free.
        let used: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
        for (head, behind, value) in aimed {
            bytes[heads[head.index(heads.len())] as usize + behind] = value;
        }
        for (place, value) in changes {
            bytes[used[place.index(used.len())]] = value;
        }
        if let Some(keep) = keep {
            let last = used[keep.index(used.len())];
            bytes.truncate(last);
        }
        try_journal(file_of(&bytes)).unwrap();
    }
}
