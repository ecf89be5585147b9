//! The quick reading says what the plain one says.

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value};

use super::super::{Gathered, text_field};
use super::*;

/// Names that mean something and others, with dots and without.
fn name() -> impl Strategy<Value = String> {
    let names = [
        "@timestamp",
        "time",
        "ts",
        "message",
        "log",
        "msg",
        "level",
        "severity",
        "log.level",
        "kubernetes",
        "pod",
        "name",
        "namespace",
        "container",
        "labels",
        "app",
        "host",
        "stream",
        "service",
        "service.name",
        "kubernetes.pod.name",
        "k8s.pod.name",
        "deployment",
        "a",
        "b.c",
        "d",
        "host.name",
        "node",
        "é\"\\",
        "path",
        "file",
        "offset",
    ];
    prop_oneof![
        9 => select(names.to_vec()).prop_map(str::to_owned),
        1 => "[a-z.]{1,3}",
        1 => Just("n".repeat(MAX_NAME_BYTES)),
    ]
}

fn scalar() -> impl Strategy<Value = Value> {
    let texts = [
        "2026-11-20T10:11:12Z",
        "1763892600",
        "web-7d9c5b9f8d-x2x4z",
        "shop",
        "stdout",
        "stderr",
        "ERROR",
        "warn",
        "text\n",
        "a \"b\" \\ \u{1} \u{e9} \u{1f980}",
        "",
        "x",
    ];
    prop_oneof![
        6 => select(texts.to_vec()).prop_map(Value::from),
        1 => "\\PC{0,12}".prop_map(Value::from),
        1 => Just(Value::from("v".repeat(1100))),
        1 => any::<i64>().prop_map(Value::from),
        1 => any::<u64>().prop_map(Value::from),
        1 => any::<f64>().prop_map(Value::from),
        1 => select(vec![0i64, 30, 50, 1_763_892_600, 1_763_892_600_123]).prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        1 => Just(Value::Null),
    ]
}

fn object(depth: u32) -> impl Strategy<Value = Value> {
    let value = scalar().prop_recursive(depth, 40, 6, |inner| {
        prop_oneof![
            3 => prop::collection::vec((name(), inner.clone()), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
            1 => prop::collection::vec(inner, 0..4).prop_map(Value::Array),
        ]
    });
    prop::collection::vec((name(), value), 0..9)
        .prop_map(|members| Value::Object(members.into_iter().collect::<Map<_, _>>()))
}

fn naming() -> impl Strategy<Value = Naming> {
    let paths = || {
        let names = select(vec!["a", "b.c", "d", "kubernetes.labels.app", "time", "msg", "labels.a", "pod"]);
        prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::btree_set(names, 1..3).prop_map(|names| names.into_iter().map(str::to_owned).collect())]
    };
    (paths(), paths(), paths()).prop_map(|(times, messages, labels)| Naming { times, messages, labels })
}

/// Paths of all members that do not lie in lists.
fn paths(value: &Value, path: &str, found: &mut Vec<String>) {
    for (name, value) in value.as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        paths(value, &path, found);
        found.push(path);
    }
}

/// Whether no two members have the same path: of such, either reading takes which it likes.
fn is_clear(value: &Value) -> bool {
    let mut found = Vec::new();
    paths(value, "", &mut found);
    let count = found.len();
    found.sort_unstable();
    found.dedup();
    found.len() == count
}

/// All that is said of a document.
fn shown(draft: Draft, labels: &Identity, iostream: &str) -> String {
    let (fields, over) = draft.attributes.finish();
    format!(
        "{:?} {:?} {} {:?} {iostream:?} {fields:?} {over}",
        draft.time_ns,
        String::from_utf8(draft.message),
        draft.level,
        labels.labels()
    )
}

fn slow(text: &[u8], naming: &Naming) -> Result<String, String> {
    let mut draft = slow::read_document(text, naming)?;
    let mut identity = mem::take(&mut draft.identity);
    let iostream = identity.take_iostream();
    Ok(shown(draft, &identity, &iostream))
}

fn quick<'a>(documents: &mut Documents<'a>, text: &'a [u8]) -> Result<String, String> {
    let (mut draft, stream) = documents.read(text, &[])?;
    let placed = documents.placed(stream);
    placed.fill(&mut draft);
    Ok(shown(draft, &placed.identity, &placed.iostream))
}

/// As a sender writes it, with spaces or without.
fn written(value: &Value, form: u8) -> String {
    let text = value.to_string();
    match form {
        0 => text,
        1 => serde_json::to_string_pretty(value).unwrap(),
        2 => text.replace('e', "\\u0065").replace("fals\\u0065", "false").replace("tru\\u0065", "true"),
        _ => format!(" \t{text}\r"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn both_readings_agree(
        documents in prop::collection::vec((object(4), 0u8..4), 1..6),
        naming in naming(),
        wound in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
    ) {
        let mut texts = Vec::new();
        for (at, (value, form)) in documents.iter().enumerate() {
            prop_assume!(is_clear(value));
            let mut text = written(value, *form).into_bytes();
            // Numbers that are exponents are not letters to be escaped.
            if *form == 2 && slow::read_document(&text, &naming).is_err() {
                text = value.to_string().into_bytes();
            }
            if let Some((place, byte)) = wound.filter(|_| at == 1) {
                let place = place.index(text.len());
                text[place] = byte;
            }
            texts.push(text);
        }
        let mut reading = Documents::new(&naming);
        for text in &texts {
            let value = serde_json::from_slice::<Value>(text);
            prop_assume!(value.is_err() || value.is_ok_and(|value| is_clear(&value)));
            let (found, want) = (quick(&mut reading, text), slow(text, &naming));
            prop_assert_eq!(found, want, "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn documents_that_are_nearly_the_same_stay_what_they_are(
        bases in prop::collection::vec(object(2), 1..3),
        changes in prop::collection::vec((any::<prop::sample::Index>(), name(), scalar()), 1..20),
    ) {
        let naming = Naming::default();
        let mut bases = bases;
        for base in &mut bases {
            base.as_object_mut().unwrap().insert("message".to_owned(), "m".into());
        }
        let mut texts = Vec::new();
        for (base, name, value) in &changes {
            let mut document = base.get(&bases).clone();
            document.as_object_mut().unwrap().insert(name.clone(), value.clone());
            prop_assume!(is_clear(&document));
            texts.push(document.to_string().into_bytes());
        }
        let mut reading = Documents::new(&naming);
        for text in texts.iter().chain(&texts) {
            prop_assert_eq!(quick(&mut reading, text), slow(text, &naming), "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn what_is_json_for_one_is_json_for_both(text in "[{}\\[\\]\",:0-9eE.+\\-\\\\untrfalsé\u{1} ]{0,24}") {
        let naming = Naming::default();
        for text in [format!("{{\"a\":{text}}}"), format!("{{\"a\":\"{text}\"}}"), text] {
            let (found, want) = (quick(&mut Documents::new(&naming), text.as_bytes()), slow(text.as_bytes(), &naming));
            prop_assert_eq!(found.is_ok(), want.is_ok(), "{:?}", text);
        }
    }
}

#[test]
fn of_two_members_of_one_name_the_last_counts() {
    let naming = Naming::default();
    let text = br#"{"message":"one","log":{"level":"warn","x":1},"a":1,"message":"two","log":{"y":[{"z":1},{"z":2,"z":3}]},"a":2}"#;
    let mut documents = Documents::new(&naming);
    let (mut draft, stream) = documents.read(text, &[]).unwrap();
    documents.placed(stream).fill(&mut draft);
    assert_eq!((&*draft.message, draft.level), (&b"two"[..], ""));
    let (fields, _) = draft.attributes.finish();
    let shown: Vec<String> = fields.iter().map(|field| format!("{}={:?}", field.name, field.value)).collect();
    assert_eq!(shown, ["log.y.z=Some(Int(1))", "log.y.z=Some(Int(3))", "a=Some(Int(2))"]);
}

#[test]
fn nesting_ends_where_it_ended() {
    let naming = Naming::default();
    for depth in [10, 126, 127, 128, 5000] {
        for (open, close) in [("{\"a\":", "}"), ("[", "]")] {
            let text = format!("{{\"message\":\"m\",\"x\":{}1{}}}", open.repeat(depth), close.repeat(depth));
            let (found, want) =
                (quick(&mut Documents::new(&naming), text.as_bytes()), slow(text.as_bytes(), &naming));
            assert_eq!(found, want, "{depth}");
        }
    }
}

#[test]
fn many_names_are_forgotten_and_many_siblings_found() {
    let naming = Naming::default();
    let mut documents = Documents::new(&naming);
    let texts: Vec<String> = (0..300)
        .map(|n| {
            let members: Vec<String> =
                (0..100).map(|m| format!("\"k{}\":{m}", (m * 7 + n * 31) % 997 + n * 400)).collect();
            format!("{{\"message\":\"m\",\"pod\":\"p{}\",{}}}", n % 3, members.join(","))
        })
        .collect();
    for text in texts.iter().chain(&texts) {
        assert_eq!(quick(&mut documents, text.as_bytes()), slow(text.as_bytes(), &naming));
    }
    let (mut draft, stream) = documents.read(br#"{"message":"m","k":"v"}"#, &[]).unwrap();
    documents.placed(stream).fill(&mut draft);
    assert_eq!(draft.attributes.finish().0, [text_field("k", "v")]);
}

#[test]
fn a_stream_is_not_mistaken_for_one_of_names_that_were_forgotten() {
    let naming = Naming::default();
    let members: Vec<String> = (0..21_000).map(|n| format!("\"k{n}\":1")).collect();
    let many = format!("{{\"message\":\"m\",{}}}", members.join(","));
    let texts = [r#"{"message":"m","pod":"x","a":"1"}"#, &many, r#"{"message":"m","namespace":"x","b":"1"}"#];
    let mut documents = Documents::new(&naming);
    for text in texts {
        assert_eq!(quick(&mut documents, text.as_bytes()), slow(text.as_bytes(), &naming));
    }
}

#[test]
fn what_documents_of_a_stream_say_alike_is_kept_once() {
    let naming = Naming::default();
    let document = |path: &str, offset: u32, more: &str| {
        format!(
            r#"{{"message":"m","log":{{"offset":{offset},"file":{{"path":"{path}"}}}},"pod":"p","v":1{more}}}"#
        )
    };
    let texts = [
        document("/a", 1, ""),
        document("/a", 1, ""),
        document("/a", 2, ""),
        document("/a", 3, r#","x":true"#),
        document("/a", 4, ""),
        document("/b", 4, ""),
        document("/b", 5, ""),
    ];
    let (mut documents, mut gathered) = (Documents::new(&naming), Gathered::default());
    for text in &texts {
        let (draft, stream) = documents.read(text.as_bytes(), &[("_index", "i"), ("_id", "same")]).unwrap();
        assert!(gathered.add_to(documents.placed(stream), draft, 7));
    }
    let [batch] = &gathered.push.batches[..] else { panic!("{:?}", gathered.push) };
    let gaps: Vec<&[u32]> = batch.shared.iter().map(|list| &*list.gaps).collect();
    assert_eq!(gaps, [&[][..], &[0], &[], &[0, 1]]);
    let entries: Vec<_> = batch.entries.iter().map(|entry| (entry.shared, entry.fields.len())).collect();
    assert_eq!(entries, [(1, 0), (1, 0), (2, 1), (3, 0), (2, 1), (4, 2), (4, 2)]);
    let names: Vec<&str> = batch.fields_of(&batch.entries[3]).map(|(name, _)| name).collect();
    assert_eq!(names, ["log.offset", "log.file.path", "v", "x", "_index", "_id"]);
}
