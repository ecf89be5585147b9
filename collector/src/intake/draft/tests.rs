use proptest::prelude::*;
use serde_json::{Value, json};

use super::attributes::{MAX_DEPTH, MAX_FIELDS, MAX_NAME_BYTES, OVERFLOW};
use super::*;

fn read_document(text: &[u8], naming: &Naming) -> Result<Draft, String> {
    let mut documents = Documents::new(naming);
    let (mut draft, stream) = documents.read(text, &[])?;
    let placed = documents.placed(stream);
    placed.fill(&mut draft);
    draft.identity = placed.identity.clone();
    draft.identity.offer(Names::Any, "iostream", &placed.iostream);
    Ok(draft)
}

fn names(fields: &[PushField]) -> Vec<&str> {
    fields.iter().map(|field| &*field.name).collect()
}

fn flat(value: &Value) -> (Vec<PushField>, u64) {
    let mut attributes = Attributes::default();
    value.as_object().unwrap().iter().for_each(|(name, value)| attributes.add_json(name, value));
    attributes.finish()
}

fn overflow(fields: &[PushField]) -> Value {
    match fields.last() {
        Some(PushField { name, value: Some(PushValue::Text(text)) }) if name == OVERFLOW => {
            serde_json::from_str(text).unwrap()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn values_of_both_kinds_are_both_kept_under_their_paths() {
    let (fields, over) = flat(&json!({
        "dur": [12, "slow", 1.5], "a": {"b.c": {"d": true}, "n": null, "empty": {}}, "id": u64::MAX,
    }));
    let value = |field: &PushField| (field.name.clone(), field.value.clone().unwrap());
    let named = |name: &str, value: PushValue| (name.to_owned(), value);
    let want = [
        named("dur", PushValue::Int(12)),
        named("dur", PushValue::Text("slow".to_owned())),
        named("dur", PushValue::Float(1.5)),
        named("a.b.c.d", PushValue::Bool(true)),
        named("id", PushValue::Text(u64::MAX.to_string())),
    ];
    assert_eq!((fields.iter().map(value).collect::<Vec<_>>(), over), (want.to_vec(), 0));
}

#[test]
fn what_is_over_a_bound_is_text_in_one_attribute() {
    let many: serde_json::Map<String, Value> =
        (0..MAX_FIELDS + 3).map(|n| (format!("k{n:03}"), n.into())).collect();
    let (fields, over) = flat(&many.into());
    assert_eq!((fields.len(), over), (MAX_FIELDS + 1, 3));
    assert_eq!(overflow(&fields), json!({"k128": 128, "k129": 129, "k130": 130}));
    let long = "n".repeat(MAX_NAME_BYTES + 1);
    let (fields, over) = flat(&json!({"a": 1, &long: {"b": "\"q\""}, "": [null, 2]}));
    assert_eq!((names(&fields), over), (vec!["a", OVERFLOW], 2));
    assert_eq!(overflow(&fields), json!({&long: {"b": "\"q\""}, "": [null, 2]}));
    let deep = (0..MAX_DEPTH + 2).fold(json!("bottom"), |inner, _| json!({ "x": inner }));
    let (fields, over) = flat(&deep);
    assert_eq!((fields.len(), over), (1, 1));
    assert!(overflow(&fields).to_string().contains("bottom"));
}

#[test]
fn a_push_of_any_door_is_held_to_the_bounds_once() {
    let fields: Vec<PushField> = (0..MAX_FIELDS + 2).map(|n| text_field(&format!("k{n}"), "v")).collect();
    let entry = PushEntry { fields, ..PushEntry::default() };
    let small = PushEntry { fields: vec![text_field("a", "b")], ..PushEntry::default() };
    let batch = FileBatch { entries: vec![entry, small.clone()], ..FileBatch::default() };
    let mut push = LogPush { batches: vec![batch] };
    assert_eq!(bound(&mut push), 2);
    assert_eq!(push.batches[0].entries[0].fields.len(), MAX_FIELDS + 1);
    assert_eq!(push.batches[0].entries[1], small);
    // What one store forwards to another stays as it is.
    let held = push.clone();
    assert_eq!((bound(&mut push), push), (0, held));
}

fn labels(offers: &[(&str, &str)]) -> String {
    let mut identity = Identity::default();
    offers.iter().for_each(|(name, value)| identity.offer(Names::Any, name, value));
    identity.labels().iter().map(|pair| format!("{}={}", pair.name, pair.value)).collect::<Vec<_>>().join(",")
}

#[test]
fn shippers_mean_the_same_stream_by_different_names() {
    let want = "app=cart,container=web,namespace=shop,node=n1,pod=cart-7d9f8b6c5-x2x4z,service=cart";
    let pod = "cart-7d9f8b6c5-x2x4z";
    for names in [
        ["k8s.namespace.name", "k8s.pod.name", "k8s.container.name", "k8s.node.name"],
        ["kubernetes.namespace", "kubernetes.pod.name", "kubernetes.container.name", "kubernetes.node.name"],
        ["kubernetes.namespace_name", "kubernetes.pod_name", "kubernetes.container_name", "kubernetes.host"],
        [
            "kubernetes.pod_namespace",
            "kubernetes.pod_name",
            "kubernetes.container_name",
            "kubernetes.pod_node_name",
        ],
        ["namespace", "pod", "container", "node"],
    ] {
        let values = ["shop", pod, "web", "n1"];
        let offers: Vec<(&str, &str)> = names.into_iter().zip(values).collect();
        assert_eq!(labels(&offers), want);
    }
}

#[test]
fn the_best_name_wins_in_any_order_and_the_others_stay() {
    let offers = [("host", "h"), ("k8s.node.name", "n"), ("host.name", "pod-1")];
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
        let mut identity = Identity::default();
        order.iter().for_each(|at| identity.offer(Names::Any, offers[*at].0, offers[*at].1));
        let held = offers.map(|(name, value)| identity.holds(Names::Any, name, value));
        assert_eq!(held, [false, true, false]);
        assert!(identity.labels().iter().any(|pair| pair.name == "node" && pair.value == "n"));
    }
    assert_eq!(labels(&[]), "service=unknown_service");
    assert_eq!(labels(&[("service.name", "a")]), "app=a,service=a");
    assert_eq!(labels(&[("service.name", "a"), ("k8s.deployment.name", "b")]), "app=b,service=a");
    assert_eq!(
        labels(&[("service.name", "unknown_service:python"), ("pod", "db-0")]),
        "app=db,pod=db-0,service=db"
    );
    assert_eq!(labels(&[("service.name", "unknown_service:python")]), "service=unknown_service:python");
    assert_eq!(labels(&[("stream", "clicks"), ("pod", &"x".repeat(5000))]), "service=unknown_service");
    let mut identity = Identity::default();
    identity.offer(Names::Semantic, "host", "example.com");
    assert_eq!(identity, Identity::default());
}

#[test]
fn entries_of_one_stream_stand_in_one_batch_in_their_order() {
    let mut gathered = Gathered::default();
    for (pod, text, by) in [("a", "1", "pod"), ("b", "2", "pod"), ("a", "3", "k8s.pod.name")] {
        let mut draft = Draft { message: text.into(), ..Draft::default() };
        draft.identity.offer(Names::Any, by, pod);
        draft.identity.offer(Names::Any, "stream", "stderr");
        assert!(gathered.add(draft, 7));
    }
    let batches = &gathered.push.batches;
    let shown = batches.iter().map(|batch| {
        let texts =
            batch.entries.iter().map(|one| (one.offset, String::from_utf8_lossy(&one.message).into_owned()));
        (batch.to, texts.collect::<Vec<_>>())
    });
    let line = |offset, text: &str| (offset, text.to_owned());
    assert_eq!(shown.collect::<Vec<_>>(), [(2, vec![line(0, "1"), line(1, "3")]), (1, vec![line(0, "2")])]);
    assert!(
        batches
            .iter()
            .flat_map(|batch| &batch.entries)
            .all(|one| one.iostream == "stderr" && one.time_ns == 7)
    );
}

/// JSON of any shape.
pub(super) fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1e9..1e9f64).prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(30, 200, 8, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            proptest::collection::vec((".{0,8}", inner), 0..8)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Every text, number and flag of a value, as text.
fn leaves(value: &Value, out: &mut Vec<String>) {
    match value {
        Value::Null => {}
        Value::Array(values) => values.iter().for_each(|value| leaves(value, out)),
        Value::Object(members) => members.values().for_each(|value| leaves(value, out)),
        other => out.push(other.to_string()),
    }
}

proptest! {
    /// Each leaf is an attribute or stands in the overflow, and no bound is passed.
    #[test]
    fn nothing_beside_a_message_is_lost(value in any_json()) {
        let (fields, _) = flat(&json!({ "root": value.clone() }));
        prop_assert!(fields.len() <= MAX_FIELDS + 1);
        prop_assert!(fields.iter().all(|field| field.name.len() <= MAX_NAME_BYTES));
        let (mut want, mut found) = (Vec::new(), Vec::new());
        leaves(&value, &mut want);
        for field in &fields {
            match field.value.clone().unwrap() {
                PushValue::Text(text) if field.name == OVERFLOW => {
                    // A name may stand in it more than once, which a map of members would hide.
                    let members = format!("[{}]", text[1..text.len() - 1].to_owned());
                    found.push(members);
                }
                PushValue::Text(text) => found.push(Value::from(text).to_string()),
                PushValue::Int(whole) => found.push(whole.to_string()),
                PushValue::Float(float) => found.push(Value::from(float).to_string()),
                PushValue::Bool(flag) => found.push(flag.to_string()),
            }
        }
        for leaf in want {
            let quoted = format!("\"{leaf}\"");
            let is_there = found.iter().any(|one| *one == leaf || *one == quoted || (one.starts_with('[') && one.contains(&leaf)));
            prop_assert!(is_there, "{leaf} is not in {found:?}");
        }
    }
}

fn of_document(text: &str) -> Draft {
    read_document(text.as_bytes(), &Naming::default()).unwrap()
}

#[test]
fn times_are_read_in_the_forms_that_senders_write() {
    let at = 1_700_000_000_000_000_000;
    for (time, want) in [
        ("\"2023-11-14T22:13:20Z\"", Some(at)),
        ("\"2023-11-14T23:13:20.000+01:00\"", Some(at)),
        ("\"2023-11-14T23:13:20+0100\"", Some(at)),
        ("\"2023-11-14T22:13:20\"", Some(at)),
        ("\"2023-11-14 22:13:20.5\"", Some(at + 500_000_000)),
        ("1700000000", Some(at)),
        ("1700000000.25", Some(at + 250_000_000)),
        ("1700000000000", Some(at)),
        ("\"1700000000000000000\"", Some(at)),
        ("0", None),
        ("\"yesterday\"", None),
        ("{}", None),
        ("null", None),
    ] {
        let draft = of_document(&format!("{{\"@timestamp\":{time},\"message\":\"m\"}}"));
        assert_eq!(draft.time_ns, want, "{time}");
    }
    let took = of_document(r#"{"message":"m","time":0.25}"#);
    assert_eq!((took.time_ns, names(&took.attributes.finish().0)), (None, vec!["time"]));
}

#[test]
fn a_dot_in_a_name_and_an_object_mean_the_same() {
    let both = [
        r#"{"kubernetes.pod.name":"p","log.level":"warn","msg":"m","a.b":1}"#,
        r#"{"kubernetes":{"pod":{"name":"p"}},"log":{"level":"warn"},"msg":"m","a":{"b":1}}"#,
    ];
    for text in both {
        let draft = of_document(text);
        assert_eq!((draft.level, &*draft.message), ("warn", &b"m"[..]));
        assert!(draft.identity.holds(Names::Any, "pod", "p"));
        assert_eq!(names(&draft.attributes.finish().0), ["a.b"], "{text}");
    }
    let numbered = of_document(r#"{"level":50,"msg":"m"}"#);
    assert_eq!((numbered.level, names(&numbered.attributes.finish().0)), ("error", vec!["level"]));
}

#[test]
fn a_document_of_too_many_values_is_refused_and_a_long_text_is_not() {
    let many = format!("{{\"a\":[{}1]}}", "1,".repeat(200_000));
    assert!(
        read_document(many.as_bytes(), &Naming::default()).unwrap_err().contains("more than 100000 values")
    );
    let text = ",".repeat(200_000);
    assert_eq!(of_document(&format!("{{\"message\":\"\\\"{text}\"}}")).message.len(), 200_001);
    assert!(read_document(b"[]", &Naming::default()).is_err());
    assert!(read_document(b"{", &Naming::default()).is_err());
}
