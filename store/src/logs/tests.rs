//! The index answers what a scan with the query's definition answers.

use std::ops::Bound;

use binnacle_model::Labels;
use binnacle_model::log::{Field, FieldValue, LogEntry, Origin};
use binnacle_model::log_query::LogQuery;
use proptest::prelude::*;
use tantivy::{Index, IndexSettings};

use super::schema::{self, WORDS, WordTokenizer};
use super::*;

fn field_value() -> impl Strategy<Value = FieldValue> {
    prop_oneof![
        prop_oneof![Just("a"), Just("503"), Just("Ab cd"), Just("true"), Just("--")]
            .prop_map(|text| FieldValue::Text(text.to_owned())),
        (-3i64..504).prop_map(FieldValue::Int),
        prop_oneof![Just(0.5), Just(-0.0), Just(503.0), Just(f64::NAN)].prop_map(FieldValue::Float),
        any::<bool>().prop_map(FieldValue::Bool),
    ]
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![Just("k"), Just("a.b"), Just("a\\b"), Just("status")].prop_map(str::to_owned)
}

fn entry() -> impl Strategy<Value = LogEntry> {
    let word = prop_oneof![Just("a"), Just("ab"), Just("Ab"), Just("cd"), Just("10.0.0.1"), Just("é")];
    let message = proptest::collection::vec(word, 0..5);
    let fields = proptest::collection::vec((name(), field_value()), 0..4);
    let pod = prop_oneof![Just(""), Just("Web-1"), Just("web-2")];
    let level = prop_oneof![Just(""), Just("error"), Just("info")];
    (message, fields, pod, level).prop_map(|(message, fields, pod, level)| LogEntry {
        time: LogTime(1),
        received: LogTime(1),
        stream: Labels::new([("pod", pod)]).unwrap(),
        level: level.to_owned(),
        message: message.join(" ").into_bytes(),
        fields,
        origin: Origin::default(),
    })
}

fn query() -> impl Strategy<Value = LogQuery> {
    let field = prop_oneof![
        Just(Field::Message),
        Just(Field::Stream("pod")),
        Just(Field::Stream("level")),
        name().prop_map(Field::Parsed),
    ];
    let texts =
        ["a", "AB", "ab cd", "a ab", "10.0.0.1", "web-1", "web", "error", "503", "503.0", "true", "--", "é"];
    let text = proptest::sample::select(texts.to_vec()).prop_map(str::to_owned);
    let bound = prop_oneof![
        Just(Bound::Unbounded),
        prop_oneof![Just(-1.0), Just(0.0), Just(0.5), Just(503.0)].prop_map(Bound::Included),
        prop_oneof![Just(-1.0), Just(0.0), Just(503.0)].prop_map(Bound::Excluded),
    ];
    let leaf = prop_oneof![
        4 => (field.clone(), text, any::<bool>())
            .prop_map(|(field, text, prefix)| LogQuery::Text { field, text, prefix }),
        1 => (name(), bound.clone(), bound)
            .prop_map(|(name, low, high)| LogQuery::Range { field: Field::Parsed(name), low, high }),
        1 => field.prop_map(LogQuery::Exists),
        1 => Just(LogQuery::All),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(LogQuery::And),
            proptest::collection::vec(inner.clone(), 0..3).prop_map(LogQuery::Or),
            inner.prop_map(|part| LogQuery::Not(Box::new(part))),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_index_answers_what_a_scan_answers(
        entries in proptest::collection::vec(entry(), 1..20),
        queries in proptest::collection::vec(query(), 1..30),
    ) {
        let (schema, fields) = schema::build();
        let index = Index::create(tantivy::directory::RamDirectory::create(), schema, IndexSettings::default()).unwrap();
        index.tokenizers().register(WORDS, WordTokenizer::default());
        let mut writer: tantivy::IndexWriter = index.writer_with_num_threads(1, 15_000_000).unwrap();
        for (i, entry) in entries.iter().enumerate() {
            let mut entry = entry.clone();
            entry.origin.offset = i as u64;
            writer.add_document(schema::to_document(&fields, &entry)).unwrap();
        }
        writer.commit().unwrap();
        let searcher = index.reader().unwrap().searcher();
        for query in &queries {
            let compiled = super::compile::compile(&fields, query);
            let deadline = Deadline::default();
            let collector = super::collect::Newest {
                span: super::collect::Span { start: LogTime(0), end: LogTime(2) },
                limit: 100,
                cursor: None,
                deadline: &deadline,
            };
            let (_, found) = searcher.search(&*compiled, &collector).unwrap();
            let mut found: Vec<u64> = found.iter().map(|(cursor, _)| cursor.offset).collect();
            found.sort_unstable();
            let matching = entries.iter().enumerate().filter(|(_, entry)| query.matches(entry));
            let want: Vec<u64> = matching.map(|(i, _)| i as u64).collect();
            prop_assert_eq!(found, want, "{:?}", query);
        }
    }
}

#[test]
fn an_entry_comes_back_as_it_went_in() {
    let (_, fields) = schema::build();
    let entry = LogEntry {
        time: LogTime(5),
        received: LogTime(6),
        stream: Labels::new([("pod", "p"), ("iostream", "stderr"), ("team", "x")]).unwrap(),
        level: "warn".into(),
        message: (0..=255).collect(),
        fields: vec![("a.b".into(), FieldValue::Float(0.5)), ("t".into(), FieldValue::Bool(true))],
        origin: Origin { file: FileId("f".into()), offset: 9 },
    };
    let document = schema::to_document(&fields, &entry);
    assert_eq!(schema::from_document(&fields, &document), Some(entry));
}
