use std::collections::BTreeMap;

use binnacle_model::log::Origin;
use binnacle_model::log_query::Test;
use binnacle_model::storage::{NaiveLogs, PodVisit};
use proptest::prelude::*;

use super::*;

#[derive(Clone, Default)]
struct Known(BTreeMap<String, Labels>);

impl PodCatalog for Known {
    fn generation(&self) -> u64 {
        0
    }

    fn pod(&self, uid: &str) -> Option<Labels> {
        self.0.get(uid).cloned()
    }

    fn each_set(&self, visit: PodVisit<'_>) -> Result<(), StorageError> {
        self.0.iter().try_for_each(|(uid, labels)| visit(labels, &mut [uid.as_str()].into_iter()))
    }
}

struct Silent;

impl LogFeed for Silent {
    fn subscribe(&self, _: Box<dyn LogSubscriber>) {}
}

fn known() -> Known {
    let pod = |uid: &str, labels: &[(&'static str, &'static str)]| {
        (uid.to_owned(), Labels::new(labels.iter().copied()).unwrap())
    };
    Known(BTreeMap::from([
        pod("u1", &[("team", "pay"), ("app", "cart"), ("service", "cart"), ("label_tier", "web")]),
        pod("u2", &[("team", "shop"), ("app", "a"), ("zone", "z1")]),
        pod("u3", &[("zone", "z2")]),
    ]))
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

/// A store that had all metadata in its streams, and one beside it.
fn stores() -> (NaiveLogs, WithPods) {
    let mut logs = Vec::new();
    let messages = ["plain text", r#"{"team":"pay","x":1}"#, "team=shop zone=z1 done", r#"{"app":"cart"}"#];
    for (at, (uid, app)) in
        [("u1", "a"), ("u2", "b"), ("u3", "cart"), ("u4", "a"), ("", "cart")].into_iter().enumerate()
    {
        for (number, message) in messages.iter().enumerate() {
            logs.push(entry(at * 10 + number, uid, app, message));
        }
    }
    let logs = NaiveLogs(logs);
    let mut full = logs.clone();
    full.0.iter_mut().for_each(|(_, entry)| extend(&known(), entry));
    (full, WithPods::new(Arc::new(logs), Arc::new(Silent), Arc::new(known())))
}

fn leaves() -> impl Strategy<Value = LogQuery> {
    let names = ["team", "zone", "app", "service", "label_tier", "workload", "namespace", "x"];
    let values = ["pay", "shop", "a", "cart", "z1", "web", "", "n", "1"];
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
    fn answers_are_those_of_a_store_that_had_all_metadata_in_its_streams(query in queries(), by in keys()) {
        let (full, logs) = stores();
        let request = LogRequest { query, start: LogTime(0), end: LogTime(1_000_000) };
        let deadline = Deadline::default();
        let page = PageRequest { limit: 100, counts: true, ..PageRequest::default() };
        let (want, got) =
            (full.search(&request, page, &deadline).unwrap(), logs.search(&request, page, &deadline).unwrap());
        prop_assert_eq!(&got.entries, &want.entries);
        prop_assert_eq!(got.total, want.total);
        let slices = LogSlices { start: LogTime(0), width_ns: 10_000, count: 5 };
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
        let (full, logs) = stores();
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
    let (_, logs) = stores();
    let request = LogRequest { query: LogQuery::All, start: LogTime(0), end: LogTime(1_000_000) };
    let fields = logs.fields(&request, &Deadline::default()).unwrap();
    let of = |name: &str| fields.fields.iter().find(|field| field.name == name).map(|field| field.entries);
    assert_eq!((of("label_tier"), of("zone"), of("owner")), (Some(4), Some(8), None));
}

#[test]
fn more_pods_than_a_query_may_name_are_refused() {
    let labels = Labels::new([("team", "pay")]).unwrap();
    let pods = Known((0..=PODS_MAX).map(|number| (number.to_string(), labels.clone())).collect());
    let (full, _) = stores();
    let logs = WithPods::new(Arc::new(full), Arc::new(Silent), Arc::new(pods));
    let query = LogQuery::Label(Matcher::equal("team", "pay"));
    let request = LogRequest { query, start: LogTime(0), end: LogTime(1_000_000) };
    let found = logs.search(&request, PageRequest::default(), &Deadline::default());
    assert!(matches!(found, Err(StorageError::TooMuch)));
}
