//! Pages answer what a scan answers.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use binnacle_model::log::{Field, LogEntry};
use binnacle_model::log_query::{IpRange, LineTest, LogQuery, LogRegex, Phrase, Test, Wildcard};
use binnacle_model::push::{FileBatch, LogPush, Pair, PushEntry, PushField};
use binnacle_model::storage::{
    Deadline, LogAggregate, LogAppender, LogCursor, LogFull, LogKey, LogMeasure, LogOrder, LogPattern,
    LogRequest, LogSearcher, LogSlices, LogStream, NaiveLogs, PageRequest,
};
use binnacle_model::time::Clock;
use binnacle_model::{LogTime, MatchOp, Matcher};
use proptest::prelude::*;
use proptest::sample::select;

use super::answers::file_number;
use crate::catalog::Catalog;
use crate::fs::SimDisk;
use crate::logs::indexer::entries_of;
use crate::logs::page::tests::sharing;
use crate::telemetry::Telemetry;
use crate::wal::Sequence;
use crate::{Options, Store};

const START: i64 = 1_763_892_600_000_000_000;
const MINUTE: i64 = 60_000_000_000;

struct StillClock;

impl Clock for StillClock {
    fn now_ns(&self) -> LogTime {
        LogTime(START + 60 * MINUTE)
    }
}

fn message() -> impl Strategy<Value = String> {
    let id = select(vec![
        "4bf92f3577b34da6a3ce929d0e0e4736",
        "00f067aa0ba902b7",
        "123e4567-e89b-12d3-a456-426614174000",
        "12345678901",
    ]);
    prop_oneof![
        4 => ("(GET|PUT)", "[a-c]{1,2}", 0u32..3000, id.clone()).prop_map(|(verb, name, n, id)| format!("{verb} /cart/{name}/{n} took {n}.5 ms trace={id}")),
        4 => ("(info|warn)", 0u32..600, id, "[a-c]{1,3}", "10\\.0\\.[0-3]\\.[0-9]").prop_map(|(level, n, id, user, ip)| {
            format!("{{\"ts\":\"2025-11-23T10:11:{:02}.345Z\",\"level\":\"{level}\",\"msg\":\"connection reset by peer {n}\",\"http\":{{\"status\":{n},\"ok\":{}}},\"trace_id\":\"{id}\",\"user\":\"{user}-{n}\",\"ip\":\"{ip}:80\"}}", n % 60, n % 2 == 0)
        }),
        3 => ("(error|refused|timeout|retry|Größe|\u{1b}\\[31mERROR\u{1b}\\[0m)", "(payments|orders|x_1)", 0u32..20).prop_map(|(what, who, n)| format!("{what}: {who} failed after {n} tries... user_{n}.")),
        2 => ("level=(info|error)", 0u32..5, "(3\\.25|007|-5|1\\.2\\.3|a\"b)").prop_map(|(level, n, v)| format!("{level} dur={v} n={n} msg=\"a b {n}\"")),
        1 => (0u32..30, "(info|warn)").prop_map(|(n, level)| format!(r#"{{"level":"{level}","user":"\u0061bc-{n}","msg":"say \"hi\" c:\\abc\\{n}","n":{n}.5}}"#)),
        1 => (0u32..30).prop_map(|n| format!(r#"level=info user="a\"bc-{n}" msg=abc\x{n} n={n}"#)),
        1 => "[ -~]{0,30}",
        1 => (0usize..2).prop_map(|n| format!("long {} end", "word é ".repeat(2000 + n))),
    ]
}

fn field() -> impl Strategy<Value = PushField> {
    use binnacle_model::log::FieldValue;
    let value = prop_oneof![
        select(vec!["4bf92f3577b34da6a3ce929d0e0e4736", "abc", "a b", "12", ""])
            .prop_map(|text| FieldValue::Text(text.to_owned())),
        (-2i64..600).prop_map(FieldValue::Int),
        select(vec![0.5, 3.25]).prop_map(FieldValue::Float),
        any::<bool>().prop_map(FieldValue::Bool),
    ];
    (select(vec!["trace_id", "http.status", "user.name"]), value)
        .prop_map(|(name, value)| PushField::new(name.to_owned(), value))
}

prop_compose! {
    fn line()(
        at in prop_oneof![3 => 0i64..20 * MINUTE, 1 => (0i64..20).prop_map(|minute| minute * MINUTE)],
        message in message(),
        level in select(vec!["", "info", "error"]),
        iostream in select(vec!["stdout", "stderr"]),
        fields in prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(field(), 1..3)],
    ) -> PushEntry {
        PushEntry { time_ns: START + at, offset: 0, message: message.into_bytes(), level: level.into(), iostream: iostream.into(), fields, shared: 0 }
    }
}

fn push() -> impl Strategy<Value = LogPush> {
    let batch = (
        0u32..3,
        select(vec!["", "f1", "f2"]),
        select(vec!["shop", "Pay"]),
        prop::collection::vec(line(), 1..12),
        prop::collection::vec((any::<bool>(), any::<u8>()), 0..12),
    );
    prop::collection::vec(batch, 1..4).prop_map(|batches| {
        let batch = |(pod, file, namespace, entries, which): (u32, &str, &str, Vec<PushEntry>, Vec<_>)| {
            let stream = [
                ("namespace", namespace.to_owned()),
                ("pod", format!("web-{pod}")),
                ("cluster", "eu-1".to_owned()),
            ];
            let stream = stream.map(|(name, value)| Pair { name: name.to_owned(), value }).to_vec();
            let batch = FileBatch { file: file.to_owned(), stream, entries, ..FileBatch::default() };
            sharing(&batch, &which)
        };
        LogPush { batches: batches.into_iter().map(batch).collect() }
    })
}

fn field_name() -> impl Strategy<Value = Field> {
    let names = [
        "message",
        "message",
        "message",
        "namespace",
        "pod",
        "level",
        "iostream",
        "cluster",
        "http.status",
        "trace_id",
        "user",
        "msg2",
        "http.ok",
        "dur",
        "user.name",
        "status",
    ];
    select(names.to_vec()).prop_map(Field::named)
}

fn text() -> impl Strategy<Value = String> {
    let texts = [
        "GET",
        "cart",
        "took",
        "12",
        "2999",
        "error",
        "ERROR",
        "reset by peer",
        "connection reset",
        "peer 5",
        "by peer 17",
        "4bf92f3577b34da6a3ce929d0e0e4736",
        "00f067aa0ba902b7",
        "4bf92f35",
        "123e4567-e89b-12d3-a456-426614174000",
        "12345678901",
        "payments failed",
        "failed after 3",
        "web-1",
        "shop",
        "pay",
        "info",
        "x_1",
        "user_7",
        "Größe",
        "345z",
        "23t10",
        "2025",
        "5 ms",
        "ms trace",
        "10.0.1.2",
        "3.25",
        "007",
        "--",
        "abc",
        "nothing here",
        "true",
        "eu-1",
        "word é",
        "a-7",
        "abc-7",
        "hi",
        "u0061bc",
        "b-12 ",
        "stdout",
    ];
    select(texts.to_vec()).prop_map(str::to_owned)
}

fn test() -> impl Strategy<Value = Test> {
    let number = || {
        prop_oneof![
            Just(Bound::Unbounded),
            (0u32..600).prop_map(|n| Bound::Included(f64::from(n))),
            (0u32..9).prop_map(|n| Bound::Excluded(f64::from(n)))
        ]
    };
    let wildcard = select(vec![
        "conn*", "*ed", "p*r", "?ut", "*", "web-*", "4bf*", "1?", "/api/*", "*1*", "*r*", "*e?", "*3*7*",
    ]);
    prop_oneof![
        6 => (text(), 0u32..3, any::<bool>()).prop_map(|(text, slop, prefix)| {
            let phrase = Phrase::new(&text).with_slop(slop.saturating_sub(1));
            Test::Phrase(if prefix { phrase.with_prefix() } else { phrase })
        }),
        2 => wildcard.prop_map(|text| Test::Wildcard(Wildcard::new(text.chars().map(|c| if matches!(c, '*' | '?') { Err(c) } else { Ok(c) })))),
        1 => (select(vec!["eror", "refusd", "tok", "web-2", "é1", "a7", "payméntz"]), 1u8..3).prop_map(|(word, distance)| Test::Fuzzy { word: word.to_owned(), distance }),
        1 => regex().prop_map(Test::Regex),
        1 => (number(), number()).prop_map(|(low, high)| Test::Number { low, high }),
        1 => select(vec!["10.0.0.0/24", "10.0.1.0/24", "1.2.3.4"]).prop_map(|text| Test::Ip(IpRange::parse(text).unwrap())),
        1 => select(vec![("a", "c"), ("pay", "shop")]).prop_map(|(low, high)| Test::Text { low: Bound::Included(low.to_owned()), high: Bound::Excluded(high.to_owned()) }),
    ]
}

fn regex() -> impl Strategy<Value = LogRegex> {
    let patterns = [
        "reset by (peer|x)",
        "[0-9]+\\.5 ms",
        "^GET",
        "failed.*tries",
        "(?i)error",
        "timeout|refused",
        "cart/a",
        "trace=4bf9",
        "\\bpeer\\b",
        "status\":5[0-9]+",
        "x",
        "$",
        "é",
    ];
    select(patterns.to_vec()).prop_map(|pattern| LogRegex::new(pattern).unwrap())
}

fn needle() -> impl Strategy<Value = Vec<u8>> {
    let needles = [
        "error",
        "rror: pay",
        "GET /cart/a",
        "cart",
        "took 1",
        " ms ",
        "s trace=4",
        "\"level\":\"warn\"",
        "peer 1",
        "4bf92f3577b34da6a3ce929d0e0e4736",
        "f067aa0b",
        "426614174000",
        "-a456-",
        "12345",
        ".5",
        "10:11:1",
        "2025-11-23T10",
        "…",
        "é w",
        "ries...",
        "user_1",
        "...",
        "r_1.",
        "",
        "{",
        "=",
        "zzq",
        "10.0.",
        "word é word",
        "Nov",
        "5Z",
    ];
    prop_oneof![5 => select(needles.to_vec()).prop_map(|text| text.as_bytes().to_vec()), 1 => "[a-z0-9 .\":/-]{1,4}".prop_map(String::into_bytes)]
}

fn query() -> impl Strategy<Value = LogQuery> {
    let label = (
        select(vec![
            "namespace",
            "pod",
            "cluster",
            "detected_level",
            "trace_id",
            "http_status",
            "user_name",
            "nothing",
            "iostream",
        ]),
        select(vec![
            "shop",
            "web-1|web-2",
            "",
            "error",
            "4bf.*",
            "abc",
            "12",
            "stdout",
            "eu-1",
            ".+",
            "true",
            "0.5",
            "3.25",
        ]),
        0..4usize,
    );
    let label = label.prop_map(|(name, value, op)| {
        let op = [MatchOp::Equal, MatchOp::NotEqual, MatchOp::Regex, MatchOp::NotRegex][op];
        LogQuery::Label(Matcher::new(name, op, value).unwrap())
    });
    let time = (0i64..20, 0i64..20).prop_map(|(low, high)| LogQuery::Time {
        low: Bound::Included(LogTime(START + low * MINUTE)),
        high: Bound::Excluded(LogTime(START + high * MINUTE)),
    });
    let leaf = prop_oneof![
        6 => (field_name(), test()).prop_map(|(field, test)| LogQuery::Value { field, test }),
        4 => needle().prop_map(|needle| LogQuery::Line(LineTest::Contains(needle))),
        2 => regex().prop_map(|regex| LogQuery::Line(LineTest::Regex(regex))),
        2 => label,
        1 => field_name().prop_map(LogQuery::Exists),
        1 => time,
        1 => Just(LogQuery::All),
    ];
    let many = prop::collection::vec(test(), 2..9).prop_map(|tests| {
        tests.into_iter().map(|test| LogQuery::Value { field: Field::Message, test }).collect::<Vec<_>>()
    });
    let many = (many, any::<bool>()).prop_map(|(parts, is_or)| {
        if is_or {
            LogQuery::Or(parts)
        } else {
            LogQuery::And(parts.into_iter().map(|part| LogQuery::Not(Box::new(part))).collect())
        }
    });
    let leaf = prop_oneof![9 => leaf, 1 => many];
    leaf.prop_recursive(3, 10, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(LogQuery::And),
            prop::collection::vec(inner.clone(), 0..3).prop_map(LogQuery::Or),
            inner.prop_map(|part| LogQuery::Not(Box::new(part))),
        ]
    })
}

/// What is done to the partition after a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Nothing,
    /// The open page is sealed.
    Seal,
    /// And the pages are in an index, each for itself.
    Index,
    /// And the partition is closed: small pages are one, and what comes later is in another one.
    Close,
}

fn then() -> impl Strategy<Value = Then> {
    select(vec![Then::Nothing, Then::Nothing, Then::Seal, Then::Seal, Then::Index, Then::Close])
}

/// A store with the pushes, sealed after some of them, and the same entries to be scanned.
fn stores(pushes: &[LogPush], seals: &[Then]) -> (Store, NaiveLogs) {
    let disk = Arc::new(SimDisk::default());
    let store = Store::open_on(
        disk,
        Path::new("/data"),
        Options::default(),
        Arc::new(StillClock),
        Telemetry::default(),
        Catalog::in_memory(),
    )
    .unwrap();
    let mut naive = NaiveLogs::default();
    let mut offset = 0;
    for (at, push) in pushes.iter().enumerate() {
        let mut push = push.clone();
        for batch in &mut push.batches {
            batch.from = offset;
            for entry in &mut batch.entries {
                entry.offset = offset;
                offset += entry.message.len() as u64 + 41;
            }
            batch.to = offset;
        }
        // The clock stands still; the store gives each push a moment of its own.
        let received = LogTime(StillClock.now_ns().0 + at as i64);
        for entry in entries_of(&push, received, Sequence(at as u64 + 1)) {
            let LogEntry { time, origin, .. } = &*entry;
            let cursor = LogCursor { time: *time, file: file_number(&origin.file), offset: origin.offset };
            naive.0.push((cursor, (*entry).clone()));
        }
        LogAppender::append(&store, push, StillClock.now_ns()).unwrap();
        assert!(store.flush_logs());
        let then = seals.get(at).copied().unwrap_or(Then::Nothing);
        if then != Then::Nothing {
            store.logs.seal_now();
        }
        match then {
            Then::Close => store.logs.close_all(),
            Then::Index => store.logs.index_all(),
            Then::Nothing | Then::Seal => {}
        }
    }
    (store, naive)
}

fn check(store: &Store, naive: &NaiveLogs, query: &LogQuery, limit: usize, span: (i64, i64)) {
    let deadline = Deadline::default();
    let request =
        LogRequest { query: query.clone(), start: LogTime(START + span.0), end: LogTime(START + span.1) };
    for order in [LogOrder::NewestFirst, LogOrder::OldestFirst] {
        let mut cursor = None;
        for round in 0..3 {
            let page = PageRequest { limit, cursor, order, counts: round != 1 };
            let (found, want) = (
                store.search(&request, page, &deadline).unwrap(),
                naive.search(&request, page, &deadline).unwrap(),
            );
            assert!(found.warnings.is_empty(), "{:?}", found.warnings);
            assert_eq!(found.total, want.total, "{query:?}");
            assert_eq!(
                format!("{:?}", found.entries),
                format!("{:?}", want.entries),
                "{query:?} {order:?} {round}"
            );
            assert_eq!(found.more, want.more, "{query:?}");
            cursor = found.entries.last().map(|(cursor, _)| *cursor);
            if cursor.is_none() {
                break;
            }
        }
    }
    let keys = [
        vec![],
        vec![LogKey::Label("detected_level".to_owned())],
        vec![LogKey::Field(Field::Stream("pod"))],
        vec![LogKey::Stream],
        vec![LogKey::Label("trace_id".to_owned()), LogKey::Field(Field::Parsed("http.status".to_owned()))],
    ];
    for (by, shift) in keys.into_iter().zip([0, 1, 0, 1, 7]) {
        let slices = LogSlices { start: LogTime(START + shift), width_ns: 5 * MINUTE as u64, count: 4 };
        for measure in [LogMeasure::Entries, LogMeasure::Bytes] {
            for slices in [slices, LogSlices { width_ns: 100 * MINUTE as u64, count: 1, ..slices }] {
                let aggregate = LogAggregate { by: by.clone(), slices, measure, full: LogFull::Refuse };
                let (found, want) = (
                    store.aggregate(&request, &aggregate, &deadline).unwrap(),
                    naive.aggregate(&request, &aggregate, &deadline).unwrap(),
                );
                let want: Vec<_> =
                    want.groups.into_iter().filter(|group| group.sums.iter().any(|sum| *sum > 0)).collect();
                assert_eq!(found.groups, want, "{query:?} {aggregate:?}");
            }
        }
    }
    check_dropped(store, naive, &request);
    let slices = LogSlices { start: LogTime(START), width_ns: MINUTE as u64, count: 20 };
    let patterns = store.patterns(&request, slices, &deadline).unwrap().patterns;
    let total = naive
        .aggregate(
            &request,
            &LogAggregate { by: vec![], slices, measure: LogMeasure::Entries, full: LogFull::Refuse },
            &deadline,
        )
        .unwrap();
    let total: Vec<u64> = total.groups.into_iter().next().map_or_else(|| vec![0; 20], |group| group.sums);
    let counted = (0..20).map(|slice| patterns.iter().map(|pattern| pattern.counts[slice]).sum::<u64>());
    assert_eq!(counted.collect::<Vec<_>>(), total, "{query:?}");
}

/// Where groups are dropped, no sum is too large, none is lost, and what has no value is counted.
fn check_dropped(store: &Store, naive: &NaiveLogs, request: &LogRequest) {
    let deadline = Deadline::default();
    let slices = LogSlices { start: LogTime(START - MINUTE), width_ns: 100 * MINUTE as u64, count: 1 };
    let by =
        vec![LogKey::Field(Field::Parsed("user".to_owned())), LogKey::Field(Field::Parsed("n".to_owned()))];
    let aggregate = LogAggregate { by, slices, measure: LogMeasure::Entries, full: LogFull::DropSmall };
    let found = store.aggregate(request, &aggregate, &deadline).unwrap();
    let want = naive.aggregate(request, &aggregate, &deadline).unwrap().groups;
    let sums: BTreeMap<_, _> = want.iter().map(|group| (group.key.clone(), group.sums[0])).collect();
    let Some(dropped) = found.dropped else { return assert_eq!(found.groups, want) };
    assert!(found.groups.len() <= 26 && dropped.groups <= want.len() && want.len() > 24);
    for group in &found.groups {
        assert!(group.sums[0] <= sums[&group.key]);
    }
    let missing = vec![String::new(); 2];
    let of_missing = found.groups.iter().find(|group| group.key == missing).map(|group| group.sums[0]);
    assert_eq!(of_missing, sums.get(&missing).copied());
    let all: u64 = found.groups.iter().map(|group| group.sums[0]).sum();
    assert_eq!(all + dropped.sum, sums.values().sum::<u64>());
}

/// A pattern is known from the minute on that has its first line.
fn check_known_patterns(store: &Store) {
    let deadline = Deadline::default();
    let request =
        LogRequest { query: LogQuery::All, start: LogTime(START), end: LogTime(START + 30 * MINUTE) };
    let slices = LogSlices { start: request.start, width_ns: MINUTE as u64, count: 30 };
    let patterns = store.patterns(&request, slices, &deadline).unwrap().patterns;
    for minute in [0, 1, 5, 10, 19, 30] {
        // Within a minute it counts as its beginning.
        let before = LogTime(START + minute as i64 * MINUTE + 17);
        let found = store.known_patterns(&patterns, before, &deadline).unwrap();
        assert_eq!(found.warnings, Vec::<String>::new());
        let want: Vec<bool> =
            patterns.iter().map(|one| one.counts[..minute].iter().any(|count| *count > 0)).collect();
        assert_eq!(found.known, want, "{minute}");
    }
    let other = LogPattern { pattern: "never said".to_owned(), ..patterns[0].clone() };
    let found = store.known_patterns(&[other], LogTime(i64::MAX), &deadline).unwrap();
    assert_eq!(found.known, [false]);
}

/// Streams and their lines are exact over any span; their bytes over one that has all of them.
fn check_streams(store: &Store, naive: &NaiveLogs) {
    let deadline = Deadline::default();
    for (start, end) in [(-MINUTE, 60 * MINUTE), (3 * MINUTE, 9 * MINUTE)] {
        let (start, end) = (LogTime(START + start), LogTime(START + end));
        let found = store.streams(&[], start, end, &deadline).unwrap().streams;
        let want = naive.streams(&[], start, end, &deadline).unwrap().streams;
        let rows = |streams: &[LogStream]| {
            streams.iter().map(|one| (one.labels.clone(), one.entries)).collect::<Vec<_>>()
        };
        assert_eq!(rows(&found), rows(&want));
        let (first, last) = naive.0.iter().fold((i64::MAX, i64::MIN), |(first, last), (cursor, _)| {
            (first.min(cursor.time.0), last.max(cursor.time.0))
        });
        if start.0 <= first && last < end.0 {
            assert_eq!(found, want);
        }
    }
}

/// `BINNACLE_LOG_CASES` asks for more.
fn cases() -> u32 {
    std::env::var("BINNACLE_LOG_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(64)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn pages_answer_what_a_scan_answers(
        pushes in prop::collection::vec(push(), 1..6),
        seals in prop::collection::vec(then(), 6),
        queries in prop::collection::vec((query(), 1usize..12, (0i64..8 * MINUTE, 10 * MINUTE..20 * MINUTE), any::<bool>()), 1..24),
    ) {
        let (store, naive) = stores(&pushes, &seals);
        for (query, limit, span, is_whole) in &queries {
            let span = if *is_whole { (-MINUTE, 30 * MINUTE) } else { *span };
            check(&store, &naive, query, *limit, span);
        }
        check_known_patterns(&store);
        check_streams(&store, &naive);
        let deadline = Deadline::default();
        let request = LogRequest { query: LogQuery::All, start: LogTime(0), end: LogTime(i64::MAX) };
        prop_assert_eq!(store.fields(&request, &deadline).unwrap().fields, naive.fields(&request, &deadline).unwrap().fields);
        for (_, entry) in naive.0.iter().take(5) {
            let found = store.context(&entry.origin.file, entry.origin.offset, 2, 3, &deadline).unwrap();
            let want = naive.context(&entry.origin.file, entry.origin.offset, 2, 3, &deadline).unwrap();
            prop_assert_eq!(format!("{:?}", (found.before, found.after)), format!("{:?}", (want.before, want.after)));
        }
        store.close();
    }
}

#[test]
fn the_most_frequent_value_is_kept_where_there_is_no_room_for_all() {
    // Pages of as many rows as there is room for groups, and a few rows of the frequent value in each.
    let entry = |at: usize| {
        let user = if at.is_multiple_of(10) { "often".to_owned() } else { format!("u{at}x") };
        let message = format!("level=info user={user} n=1").into_bytes();
        PushEntry { time_ns: START + at as i64, message, ..PushEntry::default() }
    };
    let push = |push: usize| {
        let entries = (push * 30..push * 30 + 30).map(entry).collect();
        LogPush { batches: vec![FileBatch { file: "f".to_owned(), entries, ..FileBatch::default() }] }
    };
    let pushes: Vec<LogPush> = (0..8).map(push).collect();
    let (store, naive) = stores(&pushes, &[Then::Close; 8]);
    let request = LogRequest { query: LogQuery::All, start: LogTime(0), end: LogTime(i64::MAX) };
    check_dropped(&store, &naive, &request);
    let slices = LogSlices { start: LogTime(START - MINUTE), width_ns: 100 * MINUTE as u64, count: 1 };
    let by = vec![LogKey::Field(Field::Parsed("user".to_owned()))];
    let aggregate = LogAggregate { by, slices, measure: LogMeasure::Entries, full: LogFull::DropSmall };
    let found = store.aggregate(&request, &aggregate, &Deadline::default()).unwrap();
    let often = found.groups.iter().find(|group| group.key == ["often"]).map(|group| group.sums[0]);
    assert_eq!(often, Some(24));
    assert!(found.dropped.is_some_and(|dropped| dropped.groups > 24 && dropped.sum > 0));
    store.close();
}
