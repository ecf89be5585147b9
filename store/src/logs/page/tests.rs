use binnacle_model::push::{FileBatch, LogPush, Pair, PushEntry, PushField, SharedFields};
use proptest::prelude::*;

use super::seal::section;
use super::*;
use crate::fs::ReadFile;
use crate::logs::queue::Batch;
use crate::wal::Sequence;

pub(in crate::logs) struct Bytes(pub(in crate::logs) Vec<u8>);

impl ReadFile for Bytes {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let from = self.0.get(offset as usize..offset as usize + buffer.len());
        buffer.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

fn open_sealed(bytes: Vec<u8>) -> Result<PageReader, PageError> {
    let source = Source { length: bytes.len() as u64, file: Arc::new(Bytes(bytes)), offset: 0 };
    Ok(PageReader::new(Arc::new(SealedPage::open(source, &std::sync::Mutex::default())?)))
}

fn record(batches: &[FileBatch]) -> Batch {
    Batch { push: LogPush { batches: batches.to_vec() }, ..Batch::default() }
}

const RECEIVED: LogTime = LogTime(1_763_892_700_000_000_000);

fn message() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => "(GET|PUT) /cart/[0-9]{1,6} took [0-9]{1,3}\\.[0-9]{2} ms from 10\\.0\\.0\\.[0-9]{1,3}".prop_map(String::into_bytes),
        4 => "\\{\"ts\":\"2025-11-23T10:1[0-9]:12\\.345Z\",\"level\":\"(info|warn)\",\"trace_id\":\"[0-9a-f]{32}\",\"user\":\"u-[0-9]{1,7}\",\"ok\":(true|1)\\}".prop_map(String::into_bytes),
        2 => "[ -~]{0,40}".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..50),
        1 => (300usize..400).prop_map(|n| format!("x {}", "7".repeat(n)).into_bytes()),
        1 => Just(vec![b'a'; 9000]),
    ]
}

fn attribute() -> impl Strategy<Value = PushField> {
    let value = prop_oneof![
        "[a-z0-9 ]{0,10}".prop_map(FieldValue::Text),
        any::<i64>().prop_map(FieldValue::Int),
        any::<f64>().prop_map(FieldValue::Float),
        any::<bool>().prop_map(FieldValue::Bool),
    ];
    ("[a-c]", value).prop_map(|(name, value)| PushField::new(name, value))
}

prop_compose! {
    fn line()(
        time in 1_763_892_600_000_000_000i64..1_763_892_800_000_000_000,
        message in message(),
        level in prop_oneof![Just(""), Just("info"), Just("error")],
        iostream in prop_oneof![Just("stdout"), Just("stderr")],
        fields in prop::collection::vec(attribute(), 0..3),
    ) -> PushEntry {
        PushEntry { time_ns: time, offset: 0, message, level: level.into(), iostream: iostream.into(), fields, shared: 0 }
    }
}

prop_compose! {
    pub(in crate::logs) fn batch()(pod in "[a-c]", file in prop_oneof![Just(""), Just("f1"), Just("f2")], lines in prop::collection::vec(line(), 1..20)) -> FileBatch {
        let mut entries = lines;
        let mut offset = 0;
        for entry in &mut entries {
            entry.offset = offset;
            offset += entry.message.len() as u64 + 40;
        }
        FileBatch {
            file: file.into(), from: 0, to: offset,
            stream: vec![Pair { name: "pod".into(), value: pod }, Pair { name: "app".into(), value: "x".into() }],
            entries,
            ..FileBatch::default()
        }
    }
}

/// The same batch, with lists of attributes that entries share: those of each entry that says so, with gaps where it says.
pub(in crate::logs) fn sharing(batch: &FileBatch, which: &[(bool, u8)]) -> FileBatch {
    let mut batch = batch.clone();
    for (at, (begins, gaps)) in which.iter().enumerate().take(batch.entries.len()) {
        let own = batch.entries[at].fields.clone();
        let is_gap = |at: &usize| gaps >> at & 1 == 1;
        if *begins {
            let one = |(at, field): (usize, &PushField)| PushField {
                name: field.name.clone(),
                value: field.value.clone().filter(|_| !is_gap(&at)),
            };
            let fields = own.iter().enumerate().map(one).collect();
            let gaps = (0..own.len()).filter(is_gap).map(|at| at as u32).collect();
            batch.shared.push(SharedFields { fields, gaps });
        }
        // What an entry has of its own fills the gaps, and the rest comes behind.
        let entry = &mut batch.entries[at];
        entry.shared = batch.shared.len() as u32;
        if *begins {
            entry.fields =
                own.into_iter().enumerate().filter(|(at, _)| is_gap(at)).map(|(_, own)| own).collect();
        }
    }
    batch
}

fn entries_of(page: &dyn PageView) -> Vec<LogEntry> {
    let mut entries: Vec<LogEntry> = (0..page.rows()).map(|row| entry(page, row).unwrap()).collect();
    entries.sort_by_key(|entry| {
        (
            entry.time,
            entry.stream.to_string(),
            entry.origin.file.0.clone(),
            entry.origin.offset,
            entry.message.clone(),
        )
    });
    entries
}

fn wanted(batches: &[FileBatch]) -> Vec<LogEntry> {
    let mut entries = Vec::new();
    let mut unnamed = 0;
    for batch in batches {
        let labels = batch.stream_labels().unwrap();
        for one in &batch.entries {
            let mut entry = batch.to_entry(&labels, one, RECEIVED);
            if batch.file.is_empty() {
                entry.origin.offset = open::offset_of(Sequence(7), unnamed);
                unnamed += 1;
            }
            entries.push(entry);
        }
    }
    entries.sort_by_key(|entry| {
        (
            entry.time,
            entry.stream.to_string(),
            entry.origin.file.0.clone(),
            entry.origin.offset,
            entry.message.clone(),
        )
    });
    entries
}

/// NaN is not equal to itself: what was printed is compared.
fn shown(entries: &[LogEntry]) -> Vec<String> {
    entries.iter().map(|entry| format!("{entry:?}")).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn entries_come_back_byte_for_byte(batches in prop::collection::vec(batch(), 1..8), which in prop::collection::vec((any::<bool>(), any::<u8>()), 0..20)) {
        let batches: Vec<FileBatch> = batches.iter().map(|batch| sharing(batch, &which)).collect();
        let (mut page, mut miner) = (OpenPage::default(), Miner::default());
        page.push(&mut miner, record(&batches).of_class(""), RECEIVED, Sequence(7));
        let want = shown(&wanted(&batches));
        prop_assert_eq!(shown(&entries_of(&page)), want.clone());
        let sealed = open_sealed(seal(&page).unwrap()).unwrap();
        prop_assert_eq!(shown(&entries_of(&sealed)), want);
        sealed.verify().unwrap();
        prop_assert_eq!(sealed.span(), page.span());
    }

    #[test]
    fn damage_is_an_error(batches in prop::collection::vec(batch(), 1..4), flips in prop::collection::vec(any::<prop::sample::Index>(), 20)) {
        let (mut page, mut miner) = (OpenPage::default(), Miner::default());
        page.push(&mut miner, record(&batches).of_class(""), RECEIVED, Sequence(7));
        let bytes = seal(&page).unwrap();
        let want = shown(&wanted(&batches));
        for flip in flips {
            let bit = flip.index(bytes.len() * 8);
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let Ok(sealed) = open_sealed(damaged) else { continue };
            let read: Result<Vec<LogEntry>, PageError> = (0..sealed.rows()).map(|row| entry(&sealed, row)).collect();
            // A flipped bit of the filter or of unused bytes changes no entry.
            if let Ok(mut entries) = read {
                entries.sort_by_key(|entry| (entry.time, entry.stream.to_string(), entry.origin.file.0.clone(), entry.origin.offset, entry.message.clone()));
                prop_assert_eq!(shown(&entries), want.clone());
            }
        }
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        try_log_page(&bytes);
        let _ = open_sealed(bytes);
    }

    #[test]
    fn places_of_texts_never_panic(bytes in prop::collection::vec(0u8..9, 0..40)) {
        try_log_page(&[&[5][..], &bytes].concat());
    }

    #[test]
    fn pages_that_are_read_are_written_anew(batches in prop::collection::vec(batch(), 1..3)) {
        let (mut page, mut miner) = (OpenPage::default(), Miner::default());
        page.push(&mut miner, record(&batches).of_class(""), RECEIVED, Sequence(7));
        try_log_page(&[vec![0], seal(&page).unwrap()].concat());
    }
}

/// A page of texts that are kept whole; with blanks between their words, or with what is the same again and again.
fn page_of_texts(is_prose: bool) -> (OpenPage, Vec<String>) {
    let mut state = 7u32;
    let mut word = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // Few words come often, many seldom.
        let rank = (1u32 << ((state >> 8) % 12)) + (state >> 20) % 64;
        format!("{:b}", rank + 64).replace('0', "ka").replace('1', "lo")
    };
    let mut text = |at: usize| {
        if !is_prose {
            return "all of it once more, ".repeat(1000 + at).into_bytes();
        }
        let words: Vec<String> = (0..1000).map(|_| word()).collect();
        format!("Text {at}: \x1b[31mstop\x1b[0m. {}!", words.join(" ")).into_bytes()
    };
    let entries = (0..40).map(|at| PushEntry {
        time_ns: RECEIVED.0 - 1000 + at as i64,
        offset: 100_000 * at as u64,
        message: text(at),
        ..PushEntry::default()
    });
    let batch = FileBatch { file: "f".into(), entries: entries.collect(), ..FileBatch::default() };
    let (mut page, mut miner) = (OpenPage::default(), Miner::default());
    page.push(&mut miner, record(std::slice::from_ref(&batch)).of_class(""), RECEIVED, Sequence(7));
    (page, shown(&wanted(&[batch])))
}

fn count_of(page: &PageReader, kind: u8) -> usize {
    page.page.sections.iter().filter(|place| place.kind == kind).count()
}

#[test]
fn prose_is_kept_by_words_where_that_is_smaller() {
    let (page, want) = page_of_texts(true);
    let bytes = seal(&page).unwrap();
    assert_eq!(bytes[..8], *b"blpg\x03\xa6\0\0");
    let sealed = open_sealed(bytes.clone()).unwrap();
    assert_eq!((count_of(&sealed, section::DICTIONARY), count_of(&sealed, section::BODIES)), (1, 0));
    assert!(count_of(&sealed, section::PROSE) > 1);
    assert_eq!(shown(&entries_of(&sealed)), want);
    sealed.verify().unwrap();
    let filter = sealed.filter().unwrap().unwrap();
    for word in ["text", "stop", "lokakakakakakalo"] {
        assert!(filter.may_contain(key_of(word.as_bytes())), "{word}");
    }
    for at in (0..bytes.len()).step_by(997) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 4;
        let Ok(sealed) = open_sealed(damaged) else { continue };
        let read: Result<Vec<LogEntry>, PageError> =
            (0..sealed.rows()).map(|row| entry(&sealed, row)).collect();
        assert!(read.is_err() || sealed.verify().is_err() || shown(&entries_of(&sealed)) == want, "{at}");
    }
}

/// As releases wrote pages that knew no dictionaries.
#[test]
fn texts_that_repeat_themselves_are_kept_as_ever() {
    let (page, want) = page_of_texts(false);
    let bytes = seal(&page).unwrap();
    assert_eq!(bytes[..8], *b"blpg\x02\xa7\0\0");
    let sealed = open_sealed(bytes).unwrap();
    assert_eq!((count_of(&sealed, section::DICTIONARY), count_of(&sealed, section::PROSE)), (0, 0));
    assert!(count_of(&sealed, section::BODIES) > 1);
    assert_eq!(shown(&entries_of(&sealed)), want);
    sealed.verify().unwrap();
}

#[test]
fn a_page_of_a_newer_release_is_not_taken_for_damaged() {
    let (page, _) = page_of_texts(false);
    let mut bytes = seal(&page).unwrap();
    bytes[4..6].copy_from_slice(&[4, 4 ^ 0xa5]);
    let Err(PageError::Read(error)) = open_sealed(bytes) else { panic!("a page of version 4") };
    assert_eq!(error.to_string(), "format version 4 is newer than what this release reads");
}
