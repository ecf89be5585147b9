//! Files, good and bad; what is counted, whatever the order; and the past, over a list of entries.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use binnacle_model::log::{FieldValue, LogEntry, Origin};
use binnacle_model::storage::{
    AppendError, AppendReport, Appender, Deadline, LabelSets, LogCursor, LogFeed, LogSubscriber, Metadata,
    NaiveLogs, Queryable, RawSeries, Series, SeriesDecoder, SeriesSet, StorageError,
};
use binnacle_model::time::Clock;
use binnacle_model::{Labels, LogTime, Matcher, Sample, TimeRange, Timestamp};
use proptest::prelude::*;

use super::*;
use crate::Telemetry;

/// Stores samples as a store does: the first of a moment stays.
#[derive(Default)]
struct World {
    series: Mutex<BTreeMap<Labels, BTreeMap<i64, f64>>>,
    subscribers: Mutex<Vec<Box<dyn LogSubscriber>>>,
    is_broken: Mutex<bool>,
}

impl Appender for World {
    fn append(
        &self,
        batch: &[RawSeries<'_>],
        decoder: &dyn SeriesDecoder,
    ) -> Result<AppendReport, AppendError> {
        if *self.is_broken.lock().unwrap() {
            return Err(AppendError::Unavailable("test".to_owned()));
        }
        let (mut series, mut report) = (self.series.lock().unwrap(), AppendReport::default());
        for one in batch {
            let samples = series.entry(decoder.decode(one.labels).unwrap()).or_default();
            for sample in one.samples {
                match samples.get(&sample.timestamp.0) {
                    None => {
                        samples.insert(sample.timestamp.0, sample.value);
                        report.appended += 1;
                    }
                    Some(known) if *known == sample.value => report.duplicate += 1,
                    Some(_) => report.conflicting += 1,
                }
            }
        }
        Ok(report)
    }

    fn append_metadata(&self, _: &[(String, Metadata)]) {}
}

impl Queryable for World {
    fn select(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        _: &Deadline,
    ) -> Result<SeriesSet<'_>, StorageError> {
        let series = self.series.lock().unwrap();
        let fits = |labels: &Labels| binnacle_model::matcher::all_match(matchers, labels);
        let found: Vec<_> = series
            .iter()
            .filter(|(labels, _)| fits(labels))
            .map(|(labels, samples)| {
                let samples = samples.range(range.start.0..=range.end.0);
                let samples = samples.map(|(at, value)| Sample { timestamp: Timestamp(*at), value: *value });
                Ok(Series { labels: labels.clone(), samples: samples.collect(), ..Series::default() })
            })
            .collect();
        Ok(Box::new(found.into_iter()))
    }

    fn series(&self, _: &[Matcher], _: TimeRange, _: &Deadline) -> Result<LabelSets, StorageError> {
        Ok(LabelSets::default())
    }

    fn metadata(&self) -> BTreeMap<String, Vec<Metadata>> {
        BTreeMap::new()
    }
}

impl LogFeed for World {
    fn subscribe(&self, subscriber: Box<dyn LogSubscriber>) {
        self.subscribers.lock().unwrap().push(subscriber);
    }
}

impl World {
    fn tell(&self, entries: &[LogEntry]) {
        let entries: Vec<_> = entries.iter().cloned().map(Arc::new).collect();
        self.subscribers.lock().unwrap().retain(|subscriber| subscriber.entries(&entries));
    }

    /// What `increase` adds up over all time, of each series.
    fn increases(&self, metric: &str) -> BTreeMap<String, f64> {
        let series = self.series.lock().unwrap();
        let of_metric = series.iter().filter(|(labels, _)| labels.metric_name() == metric);
        of_metric
            .map(|(labels, samples)| {
                let values: Vec<f64> = samples.values().copied().collect();
                let steps = values.windows(2);
                let grown =
                    steps.map(|pair| if pair[1] < pair[0] { pair[1] } else { pair[1] - pair[0] }).sum();
                (labels.without_name().to_string(), grown)
            })
            .collect()
    }

    fn last(&self, metric: &str) -> Vec<(String, f64)> {
        let series = self.series.lock().unwrap();
        let of_metric = series.iter().filter(|(labels, _)| labels.metric_name() == metric);
        of_metric
            .map(|(labels, samples)| (labels.without_name().to_string(), *samples.values().last().unwrap()))
            .collect()
    }
}

struct At(i64);

impl Clock for At {
    fn now_ns(&self) -> LogTime {
        Timestamp(self.0).to_log_time()
    }
}

fn read(text: &str) -> ReadLogMetrics {
    parse_log_metrics("m.yml", text).unwrap()
}

fn life(world: &Arc<World>, text: &str, started: i64) -> Arc<LogMetrics> {
    let groups = read(text).groups;
    let appender: Arc<dyn Appender> = world.clone();
    let metrics = LogMetrics::new(
        groups,
        Duration::from_secs(15),
        appender,
        Arc::new(At(started)),
        Telemetry::default(),
    );
    metrics.listen(&**world);
    metrics
}

fn entry(seconds: i64, namespace: &str, message: &str) -> LogEntry {
    LogEntry {
        time: LogTime(seconds * 1_000_000_000),
        received: LogTime(seconds * 1_000_000_000),
        stream: Labels::new([("namespace", namespace), ("pod", "a")]).unwrap(),
        level: "info".to_owned(),
        message: message.as_bytes().to_vec(),
        attributes: vec![("http.status".to_owned(), FieldValue::Int(200))],
        origin: Origin::default(),
    }
}

const RULES: &str = "
groups:
- name: shop
  interval: 5s
  rules:
  - metric: refused_total
    help: Refused connections.
    query: '\"connection refused\" AND namespace:shop'
    labels: {namespace: namespace, status: http.status}
    constant_labels: {team: core}
  - metric: bytes_total
    query: 'bytes:*'
    value: bytes
  - metric: took_seconds
    logql: '{namespace=\"shop\"} | logfmt | took > 0'
    type: histogram
    value: took
    buckets: [0.1, 1]
";

#[test]
fn a_file_is_read() {
    let found = read(RULES);
    assert_eq!(found.warnings, []);
    let group = &found.groups[0];
    assert_eq!((group.interval, group.rules.len()), (Some(Duration::from_secs(5)), 3));
    let kinds: Vec<_> = group.rules.iter().map(|rule| rule.measure.kind()).collect();
    assert_eq!(kinds, ["counter", "counter", "histogram"]);
    assert_eq!(group.rules[2].metrics(), ["took_seconds_bucket", "took_seconds_sum", "took_seconds_count"]);
    assert!(is_log_metrics(RULES));
    assert!(!is_log_metrics("groups: [{name: g, rules: [{record: a, expr: up}]}]"));
    assert!(parse_log_metrics("m.yml", "").unwrap().groups.is_empty());
}

#[test]
fn errors_name_file_line_and_column() {
    let error = |rule: &str| {
        let text = format!("groups:\n- name: g\n  rules:\n  - {{{rule}}}\n");
        parse_log_metrics("m.yml", &text).unwrap_err()[0].to_string()
    };
    let check = |rule: &str, want: &str| {
        let error = error(rule);
        assert!(error.starts_with("m.yml:4:") && error.contains(want), "{rule}: {error}");
    };
    assert_eq!(
        error("metric: 0a, query: x"),
        "m.yml:4:14: rule \"0a\": is no name of a metric: letters, digits, underscores and colons, no digit first"
    );
    check("metric: a_total", "one of query and logql");
    check("metric: a_total, query: x, logql: '{a=\"b\"}'", "only one of query and logql");
    check("metric: a_total, logql: '{a='", "logql: ");
    check("metric: a_total, logql: 'rate({a=\"b\"}[1m])'", "must be a selector and a pipeline");
    check(
        "metric: a_total, query: '_time:>2020-01-01 @timestamp:>now-1h time:[now-1d TO now]'",
        "asks for times",
    );
    check("metric: a, query: x, type: gauge", "value must name the field");
    check("metric: a, query: x, type: summary", "summary");
    check("metric: a_total, query: x, buckets: [1]", "only a histogram has buckets");
    check("metric: a, query: x, type: histogram, value: v, buckets: [2, 1]", "strictly ascending");
    check("metric: a, query: x, type: histogram, value: v, buckets: [.inf]", "strictly ascending");
    check("metric: a, query: x, type: histogram, value: v, labels: {le: x}", "set by the rule itself");
    check("metric: a_total, query: x, labels: {a-b: x}", "is no name of a label");
    check("metric: a_total, query: x, labels: {__name__: x}", "is no name of a label");
    check("metric: a_total, query: x, labels: {a: x}, constant_labels: {a: y}", "in constant_labels");
    check("metric: a_total, query: x, labels: {a: message}", "series of each line");
    check("metric: a_total, query: x, limit: 0", "limit must lie between 1 and 1000000");
    check("metric: a_total, query: x, typo: 1", "typo");
}

#[test]
fn rules_that_would_write_the_same_series_are_refused() {
    let both = |a: &str, b: &str| {
        let text = format!("groups:\n- name: g\n  rules:\n  - {{query: x, {a}}}\n  - {{query: y, {b}}}\n");
        parse_log_metrics("m.yml", &text).err().map(|errors| errors[0].to_string())
    };
    let clash = both("metric: a_total", "metric: a_total").unwrap();
    assert!(clash.starts_with("m.yml:5:24: rule \"a_total\": another rule writes this metric"), "{clash}");
    assert!(
        both("metric: a_total, constant_labels: {k: x}", "metric: a_total, constant_labels: {k: y}")
            .is_none()
    );
    assert!(
        both("metric: a_total, constant_labels: {k: x}", "metric: a_total, constant_labels: {j: y}")
            .is_some()
    );
    assert!(both("metric: a, type: histogram, value: v", "metric: a_count").is_some());
}

#[test]
fn what_is_unwise_is_a_warning() {
    let text = "groups: [{name: g, rules: [{metric: a, query: 'x AND'}]}]";
    let warnings: Vec<String> = read(text).warnings.iter().map(ToString::to_string).collect();
    assert!(warnings[0].contains("should end in _total"), "{warnings:?}");
    assert!(warnings[1].contains("as a phrase"), "{warnings:?}");
}

#[test]
fn entries_are_counted_and_measured() {
    let world = Arc::new(World::default());
    let metrics = life(&world, RULES, 1_000_001);
    world.tell(&[
        entry(1001, "shop", "connection refused bytes=10 took=0.1"),
        entry(1001, "shop", "connection refused bytes=5 took=0.5"),
        entry(1001, "bank", "connection refused bytes=-7 took=7"),
        entry(1001, "shop", "fine bytes=many took=3"),
    ]);
    metrics.write(0, Timestamp(1_005_000));
    let refused = ("{namespace=\"shop\", status=\"200\", team=\"core\"}".to_owned(), 2.0);
    assert_eq!(world.last("refused_total"), [refused]);
    assert_eq!(
        world.last("bytes_total"),
        [("{}".to_owned(), 15.0)],
        "what is no number, or negative, adds nothing"
    );
    let buckets: Vec<f64> = world.last("took_seconds_bucket").into_iter().map(|(_, value)| value).collect();
    assert_eq!(buckets, [3.0, 1.0, 2.0], "+Inf, 0.1 (a bound belongs to its bucket), 1.0");
    assert_eq!(world.last("took_seconds_count")[0].1, 3.0);
    assert!((world.last("took_seconds_sum")[0].1 - 3.6).abs() < 1e-9);
    let series = world.series.lock().unwrap();
    assert!(
        series.values().flat_map(BTreeMap::keys).all(|at| at % 1000 != 0),
        "live samples have their own moments"
    );
}

#[test]
fn beyond_the_limit_one_series_counts_the_rest() {
    let world = Arc::new(World::default());
    let text =
        "groups: [{name: g, rules: [{metric: a_total, query: '*', labels: {ns: namespace}, limit: 2}]}]";
    let metrics = life(&world, text, 0);
    for name in ["a", "b", "c", "d", "a"] {
        world.tell(&[entry(1, name, "x")]);
    }
    metrics.write(0, Timestamp(5001));
    let series: Vec<(String, f64)> = world.increases("a_total").into_iter().collect();
    let want = [("{ns=\"a\"}", 2.0), ("{ns=\"b\"}", 1.0), ("{otel_metric_overflow=\"true\"}", 2.0)];
    assert_eq!(series, want.map(|(labels, value)| (labels.to_owned(), value)));
}

#[derive(Debug, Clone)]
enum Step {
    Push(Vec<(u8, u8)>),
    Write,
    FailedWrite,
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let lines = prop::collection::vec((0u8..3, 0u8..4), 0..6);
    let step = prop_oneof![
        4 => lines.prop_map(Step::Push),
        3 => Just(Step::Write),
        1 => Just(Step::FailedWrite),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 0..40)
}

proptest! {
    /// However pushes, writes, failures and orderly restarts alternate, what `increase` adds up over all time is what a scan
    /// with `LogQuery::matches` counts, in each series.
    #[test]
    fn increases_add_up_to_the_entries_that_match(steps in steps()) {
        let world = Arc::new(World::default());
        let text = "groups: [{name: g, rules: [{metric: a_total, query: 'refused OR word:2', labels: {ns: namespace}}]}]";
        let mut now = 1_000_000;
        let mut metrics = life(&world, text, now);
        let query = metrics_query(text);
        let mut want: BTreeMap<String, f64> = BTreeMap::new();
        for step in steps {
            now += 5000;
            match step {
                Step::Push(lines) => {
                    let of = |(namespace, word): &(u8, u8)| {
                        let message = if *word == 3 { "refused".to_owned() } else { format!("word={word}") };
                        entry(now / 1000, &format!("n{namespace}"), &message)
                    };
                    let entries: Vec<LogEntry> = lines.iter().map(of).collect();
                    for entry in entries.iter().filter(|entry| query.matches(entry)) {
                        *want.entry(format!("{{ns=\"{}\"}}", entry.stream.value("namespace"))).or_default() += 1.0;
                    }
                    world.tell(&entries);
                }
                Step::Write => metrics.write(0, Timestamp(now)),
                Step::FailedWrite => {
                    *world.is_broken.lock().unwrap() = true;
                    metrics.write(0, Timestamp(now));
                    *world.is_broken.lock().unwrap() = false;
                }
                Step::Restart => {
                    metrics.write(0, Timestamp(now));
                    // No two lives share a moment.
                    metrics = life(&world, text, now + 1000);
                }
            }
        }
        metrics.write(0, Timestamp(now + 5000));
        prop_assert_eq!(world.increases("a_total"), want);
    }

    /// What a backfill finds is what a scan finds, whatever was counted live; and a second one changes nothing.
    #[test]
    fn the_past_is_counted_once(
        entries in prop::collection::vec((0i64..600, 0i64..600, 0u8..2), 0..60),
        step in 2u64..90,
        cut in 1i64..600,
    ) {
        let world = Arc::new(World::default());
        let text = "groups: [{name: g, rules: [{metric: a_total, query: '*', labels: {ns: namespace}}]}]";
        let metrics = life(&world, text, cut * 1000 + 7);
        let all: Vec<LogEntry> = entries.iter().map(|(time, late, namespace)| {
            let one = entry(*time, &format!("n{namespace}"), "x");
            LogEntry { received: LogTime((time + late) * 1_000_000_000), ..one }
        }).collect();
        let cut_at = LogTime((cut * 1000 + 7) * 1_000_000);
        let (before, live): (Vec<LogEntry>, Vec<LogEntry>) = all.iter().cloned().partition(|one| one.received < cut_at);
        world.tell(&live);
        metrics.write(0, Timestamp(1_300_000));
        let of = |(offset, entry): (usize, &LogEntry)| {
            (LogCursor { time: entry.time, file: 0, offset: offset as u64 }, entry.clone())
        };
        let logs = NaiveLogs(all.iter().enumerate().map(of).collect());
        let span = Span::new(Timestamp(0), Timestamp(2_000_000), Duration::from_secs(step)).unwrap();
        let deadline = Deadline::default();
        let done = metrics.backfill(None, span, &logs, &*world, &deadline).unwrap();
        // What lies within the last second before the live side is left out.
        let in_span = |one: &&LogEntry| one.time < LogTime(cut * 1_000_000_000) && cut >= 2;
        let counted = before.iter().filter(in_span).count();
        prop_assert_eq!(done[0].entries, counted as u64);
        let total: f64 = world.increases("a_total").values().sum();
        prop_assert_eq!(total as usize, counted + live.len());
        let known = world.series.lock().unwrap().clone();
        let again = metrics.backfill(Some("a_total"), span, &logs, &*world, &deadline).unwrap();
        prop_assert_eq!((again[0].written, again[0].refused), (0, 0));
        prop_assert_eq!(&known, &*world.series.lock().unwrap());
    }
}

fn metrics_query(text: &str) -> binnacle_model::log_query::LogQuery {
    read(text).groups[0].rules[0].query().clone()
}

#[test]
fn another_backfill_over_the_same_time_is_refused() {
    let world = Arc::new(World::default());
    let text = "groups: [{name: g, rules: [{metric: a_total, query: '*', labels: {ns: namespace}}]}]";
    let metrics = life(&world, text, 900_001);
    let cursor = |time: i64| LogCursor { time: LogTime(time * 1_000_000_000), file: 0, offset: 0 };
    let logs = NaiveLogs([10, 70, 130].map(|time| (cursor(time), entry(time, "n", "x"))).into());
    let span = |start: i64, end: i64| {
        Span::new(Timestamp(start * 1000), Timestamp(end * 1000), Duration::from_secs(30)).unwrap()
    };
    let run = |span: Span| metrics.backfill(None, span, &logs, &*world, &Deadline::default());
    assert_eq!(run(span(60, 120)).unwrap()[0].entries, 1);
    let refused = run(span(0, 150)).unwrap_err();
    assert!(refused.contains("has a sample at 1970-01-01T00:01:"), "{refused}");
    run(span(0, 60)).unwrap();
    run(span(120, 150)).unwrap();
    assert_eq!(world.increases("a_total").values().sum::<f64>(), 3.0, "beside one another they add up");
    assert!(Span::new(Timestamp(0), Timestamp(1000), Duration::from_secs(30)).is_err());
    assert!(Span::new(Timestamp(0), Timestamp(9000), Duration::from_millis(2500)).is_err());
    assert!(metrics.backfill(Some("b"), span(0, 60), &logs, &*world, &Deadline::default()).is_err());
}
