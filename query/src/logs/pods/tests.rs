use std::collections::BTreeMap;

use binnacle_model::log::Origin;
use binnacle_model::log_query::Test;
use binnacle_model::storage::NaiveLogs;
use proptest::prelude::*;

use super::*;

/// What is known, and when lines of each pod came and what they say, as far as that was noted.
#[derive(Clone, Default)]
struct Known {
    pods: BTreeMap<String, Labels>,
    notes: Option<BTreeMap<String, Note>>,
}

#[derive(Clone)]
struct Note {
    times: Vec<LogTime>,
    own: Option<Labels>,
}

impl PodCatalog for Known {
    fn generation(&self) -> u64 {
        0
    }

    fn pod(&self, uid: &str) -> Option<Labels> {
        self.pods.get(uid).cloned()
    }

    fn pods_between(&self, start: LogTime, end: LogTime) -> Vec<PodGroup> {
        let group = |(uid, known): (&String, &Labels)| {
            let own = match &self.notes {
                None => None,
                Some(notes) => {
                    let note = notes.get(uid)?;
                    note.times.iter().any(|time| start <= *time && *time < end).then_some(())?;
                    note.own.clone()
                }
            };
            Some(PodGroup { known: known.clone(), own, pods: vec![uid.as_str().into()] })
        };
        self.pods.iter().filter_map(group).collect()
    }
}

fn notes(logs: &NaiveLogs) -> BTreeMap<String, Note> {
    let mut notes: BTreeMap<String, Note> = BTreeMap::new();
    for (_, entry) in &logs.0 {
        let own = entry.stream.iter().filter(|label| is_pod_name(&label.name)).cloned().collect();
        let own = Labels::from_vec(own).ok();
        let says_more = entry.attributes.iter().any(|(name, _)| is_pod_name(name));
        let uid = entry.stream.value("pod_uid").to_owned();
        let note = notes.entry(uid).or_insert_with(|| Note { times: Vec::new(), own: own.clone() });
        note.times.push(entry.time);
        if says_more || note.own != own {
            note.own = None;
        }
    }
    notes
}

struct Silent;

impl LogFeed for Silent {
    fn subscribe(&self, _: Box<dyn LogSubscriber>) {}
}

fn known() -> Known {
    let pod = |uid: &str, labels: &[(&'static str, &'static str)]| {
        (uid.to_owned(), Labels::new(labels.iter().copied()).unwrap())
    };
    let pods = BTreeMap::from([
        pod("u1", &[("team", "pay"), ("app", "cart"), ("service", "cart"), ("label_tier", "web")]),
        pod("u2", &[("team", "shop"), ("app", "a"), ("zone", "z1")]),
        pod("u3", &[("zone", "z2")]),
        // Of which no line came.
        pod("u9", &[("team", "pay"), ("zone", "z1"), ("app", "a")]),
    ]);
    Known { pods, notes: None }
}

fn entry(at: usize, uid: &str, app: &str, message: &str) -> (LogCursor, LogEntry) {
    let stream = Labels::new([("namespace", "n"), ("pod_uid", uid), ("app", app), ("service", app)]).unwrap();
    let time = LogTime(at as i64 * 1000);
    let origin = Origin { file: FileId(format!("f{uid}")), offset: at as u64 };
    let entry = LogEntry {
        time,
        received: time,
        stream,
        level: ["", "error"][at % 2].to_owned(),
        message: message.as_bytes().to_vec(),
        attributes: Vec::new(),
        origin,
    };
    (LogCursor { time, file: 0, offset: at as u64 }, entry)
}

/// A store that had all metadata in its streams, and one beside it, which perhaps noted lines.
fn stores(has_notes: bool) -> (NaiveLogs, WithPods) {
    let mut logs = Vec::new();
    let messages = ["plain text", r#"{"team":"pay","x":1}"#, "team=shop zone=z1 done", r#"{"app":"cart"}"#];
    let pods =
        [("u1", "a"), ("u2", "b"), ("u3", "cart"), ("u4", "a"), ("", "cart"), ("u2", "a"), ("u1", "a")];
    for (at, (uid, app)) in pods.into_iter().enumerate() {
        for (number, message) in messages.iter().enumerate() {
            let mut one = entry(at * 10 + number, uid, app, message);
            // One line of the third pod says something beside its message.
            if (at, number) == (2, 1) {
                let value = binnacle_model::log::FieldValue::Text("shop".to_owned());
                one.1.attributes = vec![("team".to_owned(), value.clone()), ("zone".to_owned(), value)];
            }
            logs.push(one);
        }
    }
    let logs = NaiveLogs(logs);
    let mut full = logs.clone();
    let known = known();
    let mut joiner = Joiner::new(&known);
    full.0.iter_mut().for_each(|(_, entry)| joiner.extend(entry));
    let known = Known { notes: has_notes.then(|| notes(&logs)), ..known.clone() };
    (full, WithPods::new(Arc::new(logs), Arc::new(Silent), Arc::new(known)))
}

fn leaves() -> impl Strategy<Value = LogQuery> {
    let names = ["team", "zone", "app", "service", "label_tier", "workload", "namespace", "x"];
    let values = ["pay", "shop", "a", "cart", "z1", "web", "", "n", "1", ".*", ".+", "pay|", "s.op|z[0-9]"];
    let ops = [MatchOp::Equal, MatchOp::NotEqual, MatchOp::Regex, MatchOp::NotRegex];
    (0..names.len(), 0..values.len(), 0..6usize).prop_map(move |(name, value, kind)| {
        let (name, value) = (names[name], values[value]);
        match kind {
            0 if !value.is_empty() => LogQuery::Value {
                field: Field::named(name),
                test: Test::Phrase(binnacle_model::log_query::Phrase::new(value)),
            },
            0 | 1 => LogQuery::Exists(Field::named(name)),
            kind => LogQuery::Label(Matcher::new(name, ops[kind - 2], value).unwrap()),
        }
    })
}

fn queries() -> impl Strategy<Value = LogQuery> {
    leaves().prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..3).prop_map(LogQuery::And),
            prop::collection::vec(inner.clone(), 1..3).prop_map(LogQuery::Or),
            inner.prop_map(|part| LogQuery::Not(Box::new(part))),
        ]
    })
}

fn keys() -> impl Strategy<Value = Vec<LogKey>> {
    let key = prop_oneof![
        Just(LogKey::Stream),
        Just(LogKey::Label("team".into())),
        Just(LogKey::Label("service_name".into())),
        Just(LogKey::Field(Field::named("app"))),
        Just(LogKey::Field(Field::named("zone"))),
        Just(LogKey::Field(Field::named("level"))),
        Just(LogKey::Label("namespace".into())),
    ];
    prop::collection::vec(key, 1..3)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn answers_are_those_of_a_store_that_had_all_metadata_in_its_streams(
        query in queries(), by in keys(), has_notes: bool, span in (0..70i64, 0..80i64),
    ) {
        let (full, logs) = stores(has_notes);
        let (start, end) = (LogTime(span.0 * 1000), LogTime((span.0 + span.1) * 1000));
        let request = LogRequest { query, start, end };
        let deadline = Deadline::default();
        let page = PageRequest { limit: 100, counts: true, ..PageRequest::default() };
        let (want, got) =
            (full.search(&request, page, &deadline).unwrap(), logs.search(&request, page, &deadline).unwrap());
        prop_assert_eq!(&got.entries, &want.entries);
        prop_assert_eq!(got.total, want.total);
        let slices = LogSlices { start: LogTime(0), width_ns: 10_000, count: 7 };
        let sums = LogAggregate { by, slices, measure: LogMeasure::Bytes, full: LogFull::Refuse };
        prop_assert_eq!(
            logs.aggregate(&request, &sums, &deadline).unwrap().groups,
            full.aggregate(&request, &sums, &deadline).unwrap().groups
        );
        let mut got = Vec::new();
        logs.scan(&request, LogOrder::NewestFirst, &deadline, &mut |cursor, entry| {
            got.push((cursor, entry));
            ControlFlow::Continue(())
        }).unwrap();
        prop_assert_eq!(got, want.entries);
    }

    #[test]
    fn streams_are_selected_by_what_is_known_of_them(parts in prop::collection::vec(leaves(), 0..3)) {
        let (full, logs) = stores(false);
        let label = |part| match part {
            LogQuery::Label(matcher) => Some(matcher),
            _ => None,
        };
        let matchers: Vec<Matcher> = parts.into_iter().filter_map(label).collect();
        let of = |logs: &dyn LogSearcher| {
            logs.streams(&matchers, LogTime(0), LogTime(1_000_000), &Deadline::default()).unwrap().streams
        };
        prop_assert_eq!(of(&logs), of(&full));
    }
}

#[test]
fn fields_name_what_is_known_of_pods() {
    let (_, logs) = stores(false);
    let request = LogRequest { query: LogQuery::All, start: LogTime(0), end: LogTime(1_000_000) };
    let fields = logs.fields(&request, &Deadline::default()).unwrap();
    let of = |name: &str| fields.fields.iter().find(|field| field.name == name).map(|field| field.entries);
    assert_eq!((of("label_tier"), of("zone"), of("owner")), (Some(8), Some(12), None));
}

/// The pods that a condition names: those that pass beside the store's own, and those that do not.
fn named(logs: &WithPods, condition: (&str, MatchOp, &str), span: (i64, i64)) -> String {
    let query = LogQuery::Label(Matcher::new(condition.0, condition.1, condition.2).unwrap());
    let request = LogRequest { query, start: LogTime(span.0 * 1000), end: LogTime(span.1 * 1000) };
    let uids = |query: &LogQuery| match query {
        LogQuery::Label(matcher) if matcher.name == POD_UID => matcher.value.clone(),
        other => panic!("{other:?}"),
    };
    let not = |own: &LogQuery| match own {
        LogQuery::And(parts) => match &parts[1] {
            LogQuery::Not(part) => uids(part),
            other => panic!("{other:?}"),
        },
        _ => String::new(),
    };
    match logs.request(&request).unwrap().query {
        LogQuery::Or(parts) => format!("{} not {}", uids(&parts[0]), not(&parts[1])),
        own => format!(" not {}", not(&own)),
    }
}

#[test]
fn no_more_pods_are_named_than_the_answer_needs() {
    let (_, noted) = stores(true);
    let (_, other) = stores(false);
    let all = (0, 100);
    for (logs, condition, span, want) in [
        // Lines of the second pod say different things of it.
        (&noted, ("team", MatchOp::Equal, "pay"), all, "u1 not u2"),
        (&noted, ("team", MatchOp::Equal, "pay"), (0, 10), "u1 not "),
        (&noted, ("team", MatchOp::NotEqual, "pay"), (0, 10), " not u1"),
        (&noted, ("team", MatchOp::Equal, "pay"), (20, 50), " not "),
        (&noted, ("team", MatchOp::Regex, "pay|shop"), (10, 50), "u2 not "),
        (&noted, ("team", MatchOp::Equal, ""), all, " not u1|u2"),
        (&noted, ("app", MatchOp::Equal, "cart"), all, "u1 not u2"),
        (&noted, ("app", MatchOp::Equal, "a"), all, "u2 not u1"),
        // A line of it may say something of its own.
        (&noted, ("zone", MatchOp::Equal, "z1"), all, "u2 not u3"),
        (&noted, ("owner", MatchOp::Equal, "x"), all, " not "),
        (&other, ("team", MatchOp::Equal, "pay"), (10, 50), "u1|u9 not u2"),
    ] {
        assert_eq!(named(logs, condition, span), want, "{condition:?} {span:?}");
    }
}

#[test]
fn more_pods_than_a_query_may_name_are_refused() {
    let labels = Labels::new([("team", "pay")]).unwrap();
    let pods: BTreeMap<String, Labels> =
        (0..=PODS_MAX).map(|number| (number.to_string(), labels.clone())).collect();
    let (full, _) = stores(false);
    let at = |number: usize| LogTime(number as i64);
    let note = |number: usize| Note { times: vec![at(number)], own: Some(Labels::default()) };
    let notes = (0..=PODS_MAX).map(|number| (number.to_string(), note(number))).collect();
    let known = Known { pods, notes: Some(notes) };
    let logs = WithPods::new(Arc::new(full), Arc::new(Silent), Arc::new(known));
    let search = |query: LogQuery, end: usize| {
        let request = LogRequest { query, start: LogTime(0), end: at(end) };
        logs.search(&request, PageRequest::default(), &Deadline::default())
    };
    let team = |team: &str| LogQuery::Label(Matcher::equal("team", team));
    assert!(matches!(search(team("pay"), PODS_MAX + 1), Err(StorageError::TooMuch)));
    assert!(search(team("pay"), 100).is_ok(), "few pods have lines there");
    assert!(search(team("shop"), PODS_MAX + 1).is_ok(), "none of them is named");
}
