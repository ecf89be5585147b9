//! Answers that Prometheus defines, on small data.

use std::collections::BTreeMap;

use binnacle_model::histogram::Histogram;
use binnacle_model::matcher::all_match;
use binnacle_model::sample::STALE_NAN;
use binnacle_model::storage::{HistogramSample, LabelSets, Metadata, Rollup, Series, SeriesSet, Wanted};
use binnacle_model::{Matcher, TimeRange};

use super::super::parser::parse;
use super::*;

/// Series in a list, as the simplest storage there is.
struct Listed(Vec<Series>);

impl Queryable for Listed {
    fn select(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        _: &Deadline,
    ) -> Result<SeriesSet<'_>, StorageError> {
        let found: Vec<_> = self.0.iter().filter(|one| all_match(matchers, &one.labels)).collect();
        Ok(Box::new(found.into_iter().map(move |one| {
            let mut one = one.clone();
            one.samples.retain(|sample| range.contains(sample.timestamp));
            one.histograms.retain(|one| range.contains(one.timestamp));
            Ok(one)
        })))
    }

    fn series(&self, _: &[Matcher], _: TimeRange, _: &Deadline) -> Result<LabelSets, StorageError> {
        let labels = self.0.iter().map(|one| one.labels.clone()).collect();
        Ok(LabelSets { labels, warnings: Vec::new() })
    }

    fn metadata(&self) -> BTreeMap<String, Vec<Metadata>> {
        BTreeMap::new()
    }
}

/// A line per series: `name a=b c=d: values`, a sample each 10 s from zero; `_` is a hole.
fn storage(text: &str) -> Listed {
    let mut all: Vec<Series> = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (names, values) = line.split_once(": ").unwrap();
        let mut words = names.split(' ');
        let name = [("__name__", words.next().unwrap())];
        let labels = Labels::new(name.into_iter().chain(words.filter_map(|w| w.split_once('=')))).unwrap();
        let value = |text: &str| match text {
            "stale" => STALE_NAN,
            text => text.parse().unwrap(),
        };
        let samples = values
            .split(' ')
            .enumerate()
            .filter(|(_, text)| *text != "_")
            .map(|(i, text)| Sample { timestamp: Timestamp(i as i64 * 10_000), value: value(text) });
        all.push(Series { labels, samples: samples.collect(), ..Series::default() });
    }
    all.sort_by(|a, b| a.labels.cmp(&b.labels));
    Listed(all)
}

const DATA: &str = "
    up job=a: 1 1 1 1 1 1 1
    up job=b: 0 0 0 stale
    req job=a path=/x: 0 10 20 30 40 50 60
    req job=a path=/y: 0 5 10 0 5 10 15
    req job=b path=/x: 100 100 100 100 100 100 100
    owner job=a team=red: 1 1 1 1 1 1 1
    owner job=b team=blue: 1 1 1 1 1 1 1
    lat_bucket le=0.1: 0 1 2 3 4 5 6
    lat_bucket le=1: 0 2 4 6 8 10 12
    lat_bucket le=+Inf: 0 2 4 6 8 10 12
    neg: -3 -2.5 7 NaN 2 _ 4
";

fn answer(text: &str, at_secs: i64) -> String {
    answer_from(&storage(DATA), text, at_secs).0
}

/// The answer, and what is to be said of it.
fn answer_from(storage: &Listed, text: &str, at_secs: i64) -> (String, Vec<String>) {
    let expr = parse(text).unwrap();
    let engine = Engine::new(storage, Limits::default());
    let answer = match engine.instant(&expr, Timestamp(at_secs * 1000), &Deadline::default()) {
        Err(error) => return (format!("error: {error}"), Vec::new()),
        Ok(answer) => answer,
    };
    let (warnings, infos) = answer.notes.texts(text);
    (shown(answer.output), warnings.into_iter().chain(infos).collect())
}

fn shown(output: Output) -> String {
    match output {
        Output::Scalar(_, value) => crate::http::format_value(value),
        Output::Text(_, text) => text,
        Output::Vector(_, series) => {
            let show = |one: &Instant| match &one.histogram {
                Some(histogram) => {
                    format!("{} count {} sum {}", one.labels, histogram.count, histogram.sum)
                }
                None => format!("{} {}", one.labels, crate::http::format_value(one.value)),
            };
            series.iter().map(show).collect::<Vec<_>>().join("; ")
        }
        Output::Matrix(series) => {
            let show = |one: &RangeSeries| format!("{} x{}", one.labels, one.samples.len());
            series.iter().map(show).collect::<Vec<_>>().join("; ")
        }
    }
}

fn check(text: &str, want: &str) {
    assert_eq!(answer(text, 60), want, "{text}");
}

#[test]
fn selectors_look_back_and_stop_at_stale() {
    check("up", r#"up{job="a"} 1"#);
    assert_eq!(answer("up{job=\"b\"}", 29), r#"up{job="b"} 0"#);
    assert_eq!(answer("up{job=\"a\"}", 60 + 299), r#"up{job="a"} 1"#);
    assert_eq!(answer("up{job=\"a\"}", 60 + 300), "");
    check("up{job=\"b\"} offset 40s", r#"up{job="b"} 0"#);
    check("req{path=\"/x\",job=\"a\"} @ 20", r#"req{job="a", path="/x"} 20"#);
    check("neg[30s]", "neg x2");
}

#[test]
fn counters_extrapolate_and_know_resets() {
    check("rate(req{job=\"a\",path=\"/x\"}[60s])", r#"{job="a", path="/x"} 1"#);
    check("increase(req{job=\"a\",path=\"/y\"}[60s])", r#"{job="a", path="/y"} 24"#);
    check("irate(req{path=\"/y\"}[60s])", r#"{job="a", path="/y"} 0.5"#);
    check("delta(req{job=\"b\"}[60s])", r#"{job="b", path="/x"} 0"#);
    check("resets(req{path=\"/y\"}[5m])", r#"{job="a", path="/y"} 1"#);
    check("changes(req{job=\"b\"}[5m])", r#"{job="b", path="/x"} 0"#);
    check("rate(req[5s])", "");
    check("sum_over_time(up{job=\"a\"}[30s])", r#"{job="a"} 3"#);
    check("max_over_time(neg[5m])", "{} 7");
    check("last_over_time(neg[5m])", "neg 4");
    check("count_over_time(up[5m])", r#"{job="a"} 7; {job="b"} 3"#);
    check("deriv(req{job=\"a\",path=\"/x\"}[1m])", r#"{job="a", path="/x"} 1"#);
    check("predict_linear(req{job=\"a\",path=\"/x\"}[1m], 10)", r#"{job="a", path="/x"} 70"#);
}

#[test]
fn aggregations_group() {
    check("sum(req)", "{} 175");
    check("sum by (job) (req)", r#"{job="a"} 75; {job="b"} 100"#);
    check("sum without (path) (req)", r#"{job="a"} 75; {job="b"} 100"#);
    check("avg(req)", "{} 58.333333333333336");
    check("count(req) + 1", "{} 4");
    check("topk(1, req)", r#"req{job="b", path="/x"} 100"#);
    check("bottomk(2, req)", r#"req{job="a", path="/y"} 15; req{job="a", path="/x"} 60"#);
    check("quantile(0.5, req)", "{} 60");
    check("count_values(\"v\", up)", r#"{v="1"} 1"#);
    check("sum(nothing)", "");
    check("round(stddev(req), 0.001)", "{} 34.721");
}

#[test]
fn operators_match_series() {
    check(
        "req * on(job) group_left(team) owner",
        r#"{job="a", path="/x", team="red"} 60; {job="a", path="/y", team="red"} 15; {job="b", path="/x", team="blue"} 100"#,
    );
    check("sum by (job) (req) / on(job) owner", r#"{job="a"} 75; {job="b"} 100"#);
    check("req > 50", r#"req{job="a", path="/x"} 60; req{job="b", path="/x"} 100"#);
    check("50 < req", r#"req{job="a", path="/x"} 60; req{job="b", path="/x"} 100"#);
    check("req{job=\"a\"} >= bool 60", r#"{job="a", path="/x"} 1; {job="a", path="/y"} 0"#);
    check("up or owner{job=\"b\"}", r#"up{job="a"} 1; owner{job="b", team="blue"} 1"#);
    check("req and on(job) up", r#"req{job="a", path="/x"} 60; req{job="a", path="/y"} 15"#);
    check("req unless on(job) up", r#"req{job="b", path="/x"} 100"#);
    check("-req{job=\"b\"}", r#"{job="b", path="/x"} -100"#);
    check("2 ^ 3 ^ 2", "512");
    check("7 % 4 - -1", "4");
    check("1 / 0", "+Inf");
    check("req{path=\"/x\"} > on(job) (owner * 60)", r#"{job="b"} 100"#);
    // Of two partners one is filtered out; there are two all the same.
    assert!(
        answer("req > on(job) (owner * 50)", 60)
            .starts_with("error: multiple matches for labels: many-to-one")
    );
    assert!(answer("req * on(job) owner", 60).starts_with("error: multiple matches for labels: many-to-one"));
    assert!(
        answer("owner * on(job) req", 60).starts_with(
            "error: found duplicate series for the match group {job=\"a\"} on the right hand-side"
        )
    );
}

#[test]
fn functions_answer() {
    check("absent(nothing{a=\"b\",c=~\"d\"})", r#"{a="b"} 1"#);
    check("absent(up)", "");
    check("absent_over_time(nothing{a=\"b\"}[1m])", r#"{a="b"} 1"#);
    check("histogram_quantile(0.5, lat_bucket)", "{} 0.1");
    check("round(histogram_quantile(0.75, rate(lat_bucket[1m])), 0.001)", "{} 0.55");
    check("vector(time())", "{} 60");
    check("scalar(up)", "1");
    check("timestamp(up offset 5s)", r#"{job="a"} 50"#);
    check("clamp(req{job=\"a\"}, 20, 30)", r#"{job="a", path="/x"} 30; {job="a", path="/y"} 20"#);
    check("round(vector(2.5))", "{} 3");
    check("round(vector(0.37), 0.1)", "{} 0.4");
    check("label_replace(up, \"n\", \"$1-x\", \"job\", \"(.*)\")", r#"up{job="a", n="a-x"} 1"#);
    check(
        "label_join(req{job=\"b\"}, \"n\", \"-\", \"job\", \"path\")",
        r#"req{job="b", n="b-/x", path="/x"} 100"#,
    );
    check("year(vector(0)) + month(vector(0))", "{} 1971");
    check("sort_desc(req{job=\"a\"})", r#"req{job="a", path="/x"} 60; req{job="a", path="/y"} 15"#);
    check("max_over_time(sum(req)[60s:10s])", "{} 175");
    assert!(answer("label_replace(up, \"\", \"\", \"\", \"\")", 60).starts_with("error"));
    let twins = "label_replace(req{job=\"a\"}, \"path\", \"same\", \"path\", \".*\")";
    assert!(answer(twins, 60).starts_with("error: vector cannot contain"));
}

#[test]
fn ranges_have_a_sample_per_step_and_series_in_order() {
    let storage = storage(DATA);
    let engine = Engine::new(&storage, Limits::default());
    let params = QueryParams { start: Timestamp(0), end: Timestamp(60_000), step: Duration::from_secs(20) };
    let expr = parse("sum by (job) (req) or vector(1)").unwrap();
    let answer = engine.range(&expr, params, &Deadline::default()).unwrap();
    let Output::Matrix(found) = answer.output else { panic!("a range query answers a matrix") };
    let values = |at: usize| found[at].samples.iter().map(|s| s.value).collect::<Vec<_>>();
    assert_eq!(found.len(), 3);
    assert_eq!(values(1), [0.0, 30.0, 45.0, 75.0]);
}

#[test]
fn limits_and_deadlines_end_a_query() {
    let storage = storage(DATA);
    let expr = parse("req").unwrap();
    let tight = Limits { max_samples: 2, ..Limits::default() };
    let error = Engine::new(&storage, tight).instant(&expr, Timestamp(0), &Deadline::default());
    assert!(matches!(error, Err(EvalError::Storage(StorageError::TooMuch))));
    let deadline = Deadline::default();
    deadline.expire();
    let error = Engine::new(&storage, Limits::default()).instant(&expr, Timestamp(0), &deadline);
    assert!(matches!(error, Err(EvalError::Storage(StorageError::Deadline))));
}

#[test]
fn strings_are_bytes_as_in_go() {
    check(r#"label_replace(up{job="a"}, "x", "\xc3\xa9\303\251", "", "")"#, r#"up{job="a", x="éé"} 1"#);
    check(
        r#"label_replace(up, "\xff", "", "job", "(.*)")"#,
        "error: invalid destination label name in label_replace(): \u{fffd}",
    );
    check(r#"count_values("a\xc5z", up)"#, "error: invalid label name a\u{fffd}z");
    check(r"'it\'s'", "it's");
    for text in [r#""\'""#, r#""\400""#, r#""\xz1""#] {
        assert!(parse(text).is_err(), "{text}");
    }
    assert_eq!(
        parse(r#"count_values("\xff\u0085", up)"#).unwrap().to_string(),
        r#"count_values("\xff\u0085", up)"#
    );
    check("08", "8");
    check("vector(010)", "{} 8");
    assert!(matches!(parse("_1").unwrap().kind, Kind::Vector(_)));
}

#[test]
fn labels_of_what_is_absent_come_from_the_matchers_in_order() {
    check(r#"absent(x{job!="b", job="a", i="1"})"#, r#"{i="1", job="a"} 1"#);
    check(r#"absent(x{job="a", job!="b", i="1"})"#, r#"{i="1"} 1"#);
    check(r#"absent(x{job="a", job="b"})"#, "{} 1");
}

#[test]
fn counted_values_without_their_label_are_one_group() {
    check(r#"count_values without (v, path) ("v", req{job="a"})"#, r#"{job="a"} 2"#);
    check(
        r#"count_values without (path) ("v", req{job="a"})"#,
        r#"{job="a", v="15"} 1; {job="a", v="60"} 1"#,
    );
}

#[test]
fn windows_by_themselves_are_ordered_and_each_series_comes_once() {
    check(
        "req[20s]",
        r#"req{job="a", path="/x"} x2; req{job="a", path="/y"} x2; req{job="b", path="/x"} x2"#,
    );
    check(
        r#"label_replace(req, "path", "", "", "")[20s:10s]"#,
        "error: vector cannot contain metrics with the same labelset",
    );
}

#[test]
fn quantiles_are_labelled_step_by_step() {
    let storage = histograms();
    let engine = Engine::new(&storage, Limits::default());
    let params = QueryParams { start: Timestamp(0), end: Timestamp(20_000), step: Duration::from_secs(10) };
    let expr = parse(r#"histogram_quantiles(h{job="a"}, "q", scalar(h{job="f"}) / 4)"#).unwrap();
    let answer = engine.range(&expr, params, &Deadline::default()).unwrap();
    let want = r#"{job="a", q="0.25"} x1; {job="a", q="0.5"} x1; {job="a", q="0.75"} x1"#;
    assert_eq!(shown(answer.output), want);
}

/// What a query holds at its end is its answer, and at no time much more than what it works on.
#[test]
fn what_was_worked_on_is_let_go_of() {
    let steps = 1001;
    let series = 200;
    let lines: Vec<String> = (0..series).map(|at| format!("m i={at}: {}", "1 ".repeat(101).trim())).collect();
    let storage = storage(&lines.join("\n"));
    let params = QueryParams { start: Timestamp(0), end: Timestamp(1_000_000), step: Duration::from_secs(1) };
    let column = steps + 8;
    // A left side, and two more with a result on the right, with labels and where there is something at which step.
    let room = Room::new(4 * series * (column + 8 + steps / 16 + 1) + 4 * steps);
    let deadline = Deadline::default().within(&room);
    let sides = "m / m / m / m / m / (m and m or m unless m)";
    let expr = parse(sides).unwrap();
    let answer = Engine::new(&storage, Limits::default()).range(&expr, params, &deadline).unwrap();
    let Output::Matrix(found) = answer.output else { panic!("a range query answers a matrix") };
    assert_eq!(found.len(), series);
    assert_eq!(room.held(), series * column, "the answer alone");
}

/// Native histograms, one each 10 s: as many observations in (1, 2] as in (2, 4], ten more of each per
/// sample; of `h{job="b"}` twice as many.
fn histograms() -> Listed {
    let series = |labels: &[(&str, &str)], weight: f64| {
        let histograms = (0..7).map(|i| {
            let each = 10.0 * weight * (1.0 + f64::from(i));
            let positive = [(1, each), (2, each)].into_iter().collect();
            let histogram =
                Histogram { count: 2.0 * each, sum: 4.0 * each, positive, ..Histogram::default() };
            HistogramSample { timestamp: Timestamp(i64::from(i) * 10_000), histogram: Arc::new(histogram) }
        });
        let labels = Labels::new(labels.iter().copied()).unwrap();
        Series { labels, histograms: histograms.collect(), ..Series::default() }
    };
    let mut listed = storage("h job=f: 1 2 3 4 5 6 7");
    listed.0.push(series(&[("__name__", "h"), ("job", "a")], 1.0));
    listed.0.push(series(&[("__name__", "h"), ("job", "b")], 2.0));
    listed
}

#[test]
fn native_histograms_are_values_like_others() {
    let storage = histograms();
    let check = |text: &str, want: &str, notes: &[&str]| {
        assert_eq!(
            answer_from(&storage, text, 60),
            (want.to_owned(), notes.iter().map(|&n| n.into()).collect())
        );
    };
    let native = "{job=~\"a|b\"}";
    check(&format!("sum(h{native})"), "{} count 420 sum 840", &[]);
    check(&format!("avg(h{native})"), "{} count 210 sum 420", &[]);
    check(&format!("sum(rate(h{native}[60s]))"), "{} count 6 sum 12", &[]);
    check(&format!("histogram_count(h{native})"), r#"{job="a"} 140; {job="b"} 280"#, &[]);
    check("histogram_quantile(0.5, h{job=\"a\"})", r#"{job="a"} 2"#, &[]);
    check("histogram_fraction(2, 4, h{job=\"a\"})", r#"{job="a"} 0.5"#, &[]);
    check("h{job=\"a\"} / 2", r#"{job="a"} count 70 sum 140"#, &[]);
    check("h{job=\"b\"} - ignoring(job) h{job=\"a\"}", "{} count 140 sum 280", &[]);
    check("h{job=\"a\"} == h{job=\"a\"}", r#"h{job="a"} count 140 sum 280"#, &[]);
    check("max(h)", "{} 7", &["PromQL info: ignored histogram in max aggregation (1:5)"]);
    check(
        "sum(h)",
        "",
        &["PromQL warning: encountered a mix of histograms and floats for aggregation (1:5)"],
    );
    check(
        "h{job=\"a\"} + 1",
        "",
        &[
            "PromQL info: incompatible sample types encountered for binary operator \"+\": histogram + float (1:1)",
        ],
    );
}

#[test]
fn doubts_are_told_with_their_place() {
    let storage = storage(DATA);
    let notes = |text: &str| answer_from(&storage, text, 60).1;
    assert_eq!(
        notes("sum(rate(req[1m]))"),
        [
            "PromQL info: metric might not be a counter, name does not end in _total/_sum/_count/_bucket: \"req\" (1:10)"
        ]
    );
    assert_eq!(
        notes("quantile(1.5, req)"),
        ["PromQL warning: quantile value should be between 0 and 1, got 1.5 (1:10)"]
    );
    assert_eq!(
        notes("histogram_quantile(0.5, up{job=\"a\"})"),
        [
            "PromQL warning: bucket label \"le\" is missing or has a malformed value of \"\" for metric name \"up\" (1:25)"
        ]
    );
    assert_eq!(notes("sum(up)"), [""; 0]);
}

/// As Prometheus counts: one for each step of a selector, a window's samples for each step of a range.
#[test]
fn samples_are_counted_for_whoever_asks() {
    let store = storage("one: 0 1 2 3 4 5 6 7 8 9 10 11 12");
    let params =
        QueryParams { start: Timestamp(60_000), end: Timestamp(120_000), step: Duration::from_secs(30) };
    let stats = |text: &str| {
        let engine = Engine::new(&store, Limits::default()).with_stats(true);
        let answer = engine.range(&parse(text).unwrap(), params, &Deadline::default()).unwrap();
        let stats = answer.stats.unwrap();
        let per_step: Vec<u64> = stats.per_step.iter().map(|(_, count)| *count).collect();
        assert_eq!(stats.total, per_step.iter().sum::<u64>(), "{text}");
        assert!(stats.peak > 0, "{text}");
        per_step
    };
    let one = stats("one");
    assert_eq!(one, [1, 1, 1]);
    let windows = stats("count_over_time(one[1m])");
    assert_eq!(stats("rate(one[1m])"), windows, "the fast way counts as the other");
    assert_eq!(stats("one + one"), [2, 2, 2]);
    assert_eq!(stats("one @ 60"), [1, 1, 1]);
    assert_eq!(stats("count_over_time(one[1m:30s])"), [2, 2, 2]);
    assert_eq!(stats("1"), [0, 0, 0]);
    let engine = Engine::new(&store, Limits::default());
    assert_eq!(engine.range(&parse("one").unwrap(), params, &Deadline::default()).unwrap().stats, None);
}

#[test]
fn every_operand_may_say_something() {
    let (_, notes) = answer_from(&storage(DATA), "rate(up[1m]) + rate(req[1m]) + rate(neg[1m])", 60);
    assert_eq!(notes.len(), 3, "{notes:?}");
}

/// Storage of which the first two hours are rollups alone: a place an hour, told apart by what is wanted.
struct Rolled;

impl Queryable for Rolled {
    fn select(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        deadline: &Deadline,
    ) -> Result<SeriesSet<'_>, StorageError> {
        let mut parts = self.select_parts(matchers, range, Wanted::All, deadline, 1)?;
        Ok(parts.remove(0))
    }

    fn select_parts(
        &self,
        _: &[Matcher],
        range: TimeRange,
        wanted: Wanted,
        _: &Deadline,
        _: usize,
    ) -> Result<Vec<SeriesSet<'_>>, StorageError> {
        // At 59 and 119 minutes rollups of four samples each, from 121 minutes on samples.
        let (rolled, own) = match wanted {
            Wanted::Rolled(Rollup::Min) => ([1.0, 10.0], [3.0, 30.0]),
            Wanted::Rolled(Rollup::Max) => ([9.0, 90.0], [3.0, 30.0]),
            Wanted::Rolled(Rollup::Sum) => ([20.0, 200.0], [3.0, 30.0]),
            Wanted::Rolled(Rollup::Count) => ([4.0, 4.0], [1.0, 1.0]),
            _ => ([5.0, 50.0], [3.0, 30.0]),
        };
        let values = [(59, rolled[0]), (119, rolled[1]), (121, own[0]), (122, own[1])];
        let samples = values.map(|(minute, value)| Sample { timestamp: Timestamp(minute * 60_000), value });
        let samples = samples.into_iter().filter(|sample| range.contains(sample.timestamp)).collect();
        let labels = Labels::new([("__name__", "m")]).unwrap();
        Ok(vec![Box::new(std::iter::once(Ok(Series { labels, samples, ..Series::default() })))])
    }

    fn series(&self, _: &[Matcher], _: TimeRange, _: &Deadline) -> Result<LabelSets, StorageError> {
        Ok(LabelSets::default())
    }

    fn metadata(&self) -> BTreeMap<String, Vec<Metadata>> {
        BTreeMap::new()
    }

    fn rolled_until(&self) -> Option<Timestamp> {
        Some(Timestamp(119 * 60_000))
    }
}

#[test]
fn rollups_answer_where_samples_are_gone() {
    let value = |text: &str, minute: i64| {
        let engine = Engine::new(&Rolled, Limits::default());
        let at = Timestamp(minute * 60_000);
        let answer = engine.instant(&parse(text).unwrap(), at, &Deadline::default()).unwrap();
        match answer.output {
            Output::Vector(_, series) => series.first().map(|one| one.value),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(value("m", 60), Some(5.0));
    assert_eq!(value("m", 118), Some(5.0), "until the next one, which comes an hour later");
    assert_eq!(value("m", 130), None, "what is no rollup counts for five minutes");
    assert_eq!(value("max_over_time(m[2h])", 120), Some(90.0));
    assert_eq!(value("min_over_time(m[2h])", 120), Some(1.0));
    assert_eq!(value("sum_over_time(m[3h])", 122), Some(253.0), "rollups and samples together");
    assert_eq!(value("count_over_time(m[3h])", 122), Some(10.0));
    assert_eq!(value("avg_over_time(m[3h])", 122), Some(25.3));
    assert_eq!(value("max(max_over_time(m[3h]))", 122), Some(90.0));
    assert_eq!(value("last_over_time(m[3h])", 120), Some(50.0));
    assert_eq!(value("count_over_time(m[2m])", 122), Some(2.0), "far from rollups all is as ever");
}
