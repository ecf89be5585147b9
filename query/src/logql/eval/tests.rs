use binnacle_model::log::{FieldValue, LogEntry, Origin};
use binnacle_model::storage::{LogCursor, LogRequest, NaiveLogs};
use binnacle_model::{Labels, meaning};
use proptest::prelude::*;

use super::super::{Plan, Query, parse, select};
use super::*;
use crate::promql::Output;

const SECOND: i64 = 1_000_000_000;

fn entry(at_ms: i64, app: &str, message: &str) -> LogEntry {
    LogEntry {
        time: LogTime(at_ms * 1_000_000),
        received: LogTime(0),
        stream: Labels::new([("namespace", "shop"), ("app", app), ("service", app)]).unwrap(),
        level: meaning::of(message.as_bytes()).level.to_owned(),
        message: message.as_bytes().to_vec(),
        attributes: vec![("trace.id".to_owned(), FieldValue::Text(format!("t{at_ms}")))],
        origin: Origin::default(),
    }
}

fn logs(entries: impl IntoIterator<Item = LogEntry>) -> NaiveLogs {
    let entries = entries.into_iter().enumerate();
    NaiveLogs(
        entries
            .map(|(at, entry)| (LogCursor { time: entry.time, file: 0, offset: at as u64 }, entry))
            .collect(),
    )
}

fn shop() -> NaiveLogs {
    logs([
        entry(10_000, "api", r#"{"level":"error","status":500,"took":"1.5s","size":"2kB","a":{"b":1}}"#),
        entry(20_000, "api", r#"{"level":"info","status":200,"took":"100ms","size":"1kB"}"#),
        entry(30_000, "web", "level=info status=200 took=300ms msg=\"all fine\""),
        entry(40_000, "api", r#"{"level":"info","status":201,"took":"200ms","size":"1kB"}"#),
        entry(50_000, "web", "level=error status=404 took=20ms msg=\"not there\""),
        entry(60_000, "web", "plain text from 10.1.2.3"),
    ])
}

fn metric(text: &str) -> Metric {
    match parse(text).unwrap_or_else(|error| panic!("{text}: {error}")) {
        Query::Metric(metric) => metric,
        Query::Logs(_) => panic!("{text} asks for lines"),
    }
}

fn shown(output: Output) -> String {
    match output {
        Output::Scalar(_, value) => format!("{value}"),
        Output::Text(_, text) => text,
        Output::Vector(_, series) => {
            series.iter().map(|one| format!("{} {}", one.labels, one.value)).collect::<Vec<_>>().join("; ")
        }
        Output::Matrix(series) => {
            let of = |one: &crate::promql::RangeSeries| {
                let samples = one
                    .samples
                    .iter()
                    .map(|sample| format!("{}@{}", sample.value, sample.timestamp.0 / 1000));
                format!("{} {}", one.labels, samples.collect::<Vec<_>>().join(" "))
            };
            series.iter().map(of).collect::<Vec<_>>().join("; ")
        }
    }
}

fn instant_of(logs: &NaiveLogs, text: &str, at_s: i64) -> Result<String, MetricError> {
    let found =
        metric_instant(&metric(text), logs, LogTime(at_s * SECOND), Limits::default(), &Deadline::default());
    found.map(|answer| shown(answer.output))
}

fn instant(text: &str, at_s: i64, want: &str) {
    assert_eq!(instant_of(&shop(), text, at_s).unwrap(), want, "{text}");
}

fn range_of(
    logs: &NaiveLogs,
    text: &str,
    (start, end, step): (i64, i64, u64),
) -> Result<String, MetricError> {
    let params = MetricParams {
        start: LogTime(start * SECOND),
        end: LogTime(end * SECOND),
        step: Duration::from_secs(step),
    };
    let found = metric_range(&metric(text), logs, params, Limits::default(), &Deadline::default());
    found.map(|answer| shown(answer.output))
}

fn range(text: &str, times: (i64, i64, u64), want: &str) {
    assert_eq!(range_of(&shop(), text, times).unwrap(), want, "{text}");
}

#[test]
fn counts_are_pushed_down_and_have_their_ends() {
    instant(
        r#"count_over_time({namespace="shop"}[50s])"#,
        60,
        concat!(
            r#"{app="api", detected_level="info", namespace="shop", service_name="api"} 2; "#,
            r#"{app="web", detected_level="error", namespace="shop", service_name="web"} 1; "#,
            r#"{app="web", detected_level="info", namespace="shop", service_name="web"} 1; "#,
            r#"{app="web", namespace="shop", service_name="web"} 1"#,
        ),
    );
    instant(
        r#"sum by (level, detected_level) (count_over_time({namespace="shop"}[1h]))"#,
        60,
        r#"{} 1; {detected_level="error", level="error"} 2; {detected_level="info", level="info"} 3"#,
    );
    instant(r#"sum(count_over_time({app="api"} |= "info" [1h]))"#, 60, "{} 2");
    instant(r#"sum by (service_name) (bytes_over_time({app="web"}[10s]))"#, 60, r#"{service_name="web"} 24"#);
    instant(r#"sum(rate({app="web"}[10s]))"#, 60, "{} 0.1");
    instant(r#"sum(count_over_time({app="web"}[1s] offset 10s))"#, 60, "{} 1");
    range(
        r#"sum by (app) (count_over_time({namespace="shop"}[20s]))"#,
        (20, 60, 10),
        r#"{app="api"} 2@20 1@30 1@40 1@50; {app="web"} 1@30 1@40 1@50 2@60"#,
    );
    // Nothing in common but a second.
    range(r#"sum(count_over_time({app="web"}[7s]))"#, (30, 60, 5), "{} 1@30 1@35 1@50 1@55 1@60");
}

#[test]
fn pipelines_are_scanned() {
    range(
        r#"sum by (status) (count_over_time({app="api"} | json | status >= 201 [20s]))"#,
        (20, 60, 20),
        r#"{status="201"} 1@40; {status="500"} 1@20"#,
    );
    instant(
        r#"count_over_time({app="web"} | logfmt | took > 100ms | keep app [1h])"#,
        60,
        r#"{app="web"} 1"#,
    );
    instant(
        r#"sum by (x) (bytes_rate({app="web"} | label_format x="{{.app | upper}}" | line_format "12345" [10s]))"#,
        60,
        r#"{x="WEB"} 0.5"#,
    );
    instant(r#"sum(count_over_time({namespace="shop"} |= ip("10.0.0.0/8") [1h]))"#, 60, "{} 1");
    instant(r#"absent_over_time({app="none", x!="y"}[1m])"#, 60, r#"{app="none"} 1"#);
    range(r#"absent_over_time({app="api"}[10s])"#, (10, 40, 10), r#"{app="api"} 1@30"#);
}

#[test]
fn numbers_of_labels_are_unwrapped() {
    let of = |op: &str| format!(r#"{op}({{app="api"}} | json | unwrap status [1h]) by (app)"#);
    instant(&of("max_over_time"), 60, r#"{app="api"} 500"#);
    instant(&of("min_over_time"), 60, r#"{app="api"} 200"#);
    instant(&of("avg_over_time"), 60, r#"{app="api"} 300.3333333333333"#);
    instant(&of("first_over_time"), 60, r#"{app="api"} 500"#);
    instant(&of("last_over_time"), 60, r#"{app="api"} 201"#);
    instant(
        r#"quantile_over_time(0.5, {app="api"} | json | unwrap duration(took) [1h]) by (app)"#,
        60,
        r#"{app="api"} 0.2"#,
    );
    instant(r#"sum(sum_over_time({app="api"} | json | unwrap bytes(size) [1h]))"#, 60, "{} 4000");
    instant(r#"sum(rate({app="api"} | json | unwrap status [10s]))"#, 20, "{} 20");
    range(
        r#"max_over_time({app="api"} | json | unwrap status [20s]) by (app)"#,
        (10, 60, 10),
        r#"{app="api"} 500@10 500@20 200@30 201@40 201@50"#,
    );
    let series = r#"{app="api", detected_level="info", level="info", namespace="shop", service_name="api", size="1kB", took="100ms", trace_id="t20000"}"#;
    let query = r#"sum_over_time({app="api"} | json | unwrap status | took < 150ms [1h])"#;
    instant(query, 60, &format!("{series} 200"));
}

#[test]
fn what_stands_above_is_promql() {
    instant("vector(1)+vector(1)", 4_000_000_000, "{} 2");
    instant("1 + 2 * 3", 60, "7");
    instant("1 > 2", 60, "0");
    instant(
        r#"sum(count_over_time({app="api"}[1h])) / sum(count_over_time({namespace="shop"}[1h]))"#,
        60,
        "{} 0.5",
    );
    instant(r#"topk(1, sum by (app) (count_over_time({namespace="shop"}[35s])))"#, 60, r#"{app="web"} 3"#);
    instant(
        r#"sort_desc(sum by (app) (bytes_over_time({namespace="shop"}[1h])))"#,
        60,
        r#"{app="api"} 183; {app="web"} 119"#,
    );
    instant(
        r#"label_replace(sum by (app) (rate({app="api"}[1h])), "x", "${1}y", "app", "(.)pi") > 0"#,
        60,
        r#"{app="api", x="ay"} 0.0008333333333333334"#,
    );
    instant(r#"sum(count_over_time({app="none"}[1h])) or vector(0)"#, 60, "{} 0");
    instant(r#"sum by (app) (count_over_time({app="api"}[1h])) > bool 5"#, 60, r#"{app="api"} 0"#);
    instant(
        r#"sum by (app) (count_over_time({app="api"}[1h])) * on (app) group_left (x) label_replace(sum by (app) (count_over_time({app="api"}[1h])), "x", "y", "", "")"#,
        60,
        r#"{app="api", x="y"} 9"#,
    );
    range("vector(3)", (0, 20, 10), "{} 3@0 3@10 3@20");
    range("2", (0, 10, 10), "{} 2@0 2@10");
}

#[test]
fn lines_in_error_fail_a_metric_unless_it_says_otherwise() {
    let error =
        instant_of(&shop(), r#"sum(count_over_time({app="web"} | json [1h]))"#, 60).unwrap_err().to_string();
    assert!(error.starts_with("pipeline error: 'JSONParserErr' for series: '{app=\"web\""), "{error}");
    instant(r#"sum(count_over_time({namespace="shop"} | json | __error__="" [1h]))"#, 60, "{} 3");
    instant(
        r#"sum(count_over_time({namespace="shop"} | json | __error__="JSONParserErr" | drop __error__ [1h]))"#,
        60,
        "{} 3",
    );
    assert!(instant_of(&shop(), r#"max_over_time({app="api"} | json | unwrap took [1h])"#, 60).is_err());
    instant(r#"max_over_time({app="api"} | json | unwrap took | __error__="" [1h])"#, 60, "");
}

#[test]
fn no_more_is_held_than_there_is_room_for() {
    let room = binnacle_model::storage::Room::new(100);
    let deadline = Deadline::default().within(&room);
    let query = metric(r#"max_over_time({namespace="shop"} | logfmt | unwrap status [1h]) by (app)"#);
    let params =
        MetricParams { start: LogTime(0), end: LogTime(1000 * SECOND), step: Duration::from_secs(1) };
    let found = metric_range(&query, &shop(), params, Limits::default(), &deadline);
    assert!(matches!(found, Err(MetricError::Eval(EvalError::Storage(StorageError::TooMuch)))));
}

fn lines(text: &str) -> Vec<(String, String)> {
    let Query::Logs(logs) = parse(text).unwrap() else { panic!("{text} asks for numbers") };
    let plan = Plan::new(&logs);
    let times = (LogTime(0), LogTime(100 * SECOND));
    let order = binnacle_model::storage::LogOrder::OldestFirst;
    let found = select(&shop(), &plan, times, order, 100, &Deadline::default()).unwrap();
    let shown = found.lines.into_iter().map(|one| {
        let base = ["namespace", "app", "service_name", "trace_id", "detected_level"];
        let labels = one.labels.iter().filter(|(name, ..)| !base.contains(&name.as_str()));
        let labels: Vec<String> = labels.map(|(name, value, _)| format!("{name}={value}")).collect();
        (String::from_utf8(one.line).unwrap(), labels.join(" "))
    });
    shown.collect()
}

#[test]
fn stages_do_what_they_do_in_loki() {
    let labels = |text: &str| lines(text).into_iter().map(|(_, labels)| labels).collect::<Vec<_>>();
    assert_eq!(
        labels(r#"{app="api"} | json | status=500"#),
        ["a_b=1 level=error size=2kB status=500 took=1.5s"]
    );
    assert_eq!(labels(r#"{app="api"} | json code="status", x="a.b" | code = "500""#), ["code=500 x=1"]);
    assert_eq!(labels(r#"{app="web"} |= "not" | logfmt m="msg""#), ["m=not there"]);
    assert_eq!(labels(r#"{app="web"} |= "plain" | pattern "<a> text <b> 10.<_>""#), ["a=plain b=from"]);
    assert_eq!(
        labels(r#"{app="web"} |= "plain" | regexp "(?P<ip>[0-9.]+)$" | ip = ip("10.1.0.0/16")"#),
        ["ip=10.1.2.3"]
    );
    assert_eq!(labels(r#"{app="web"} |> "plain <_> from <_>""#).len(), 1);
    assert_eq!(labels(r#"{namespace="shop"} !> "<_> text <_>" | drop level"#).len(), 5);
    assert_eq!(labels(r#"{app="api"} | json | app="api""#).len(), 3);
    assert_eq!(labels(r#"{app="api"} | json app="status" | app_extracted="200""#), ["app_extracted=200"]);
    assert_eq!(labels(r#"{app="web"} | json | __error__!="" |= "plain""#).len(), 1);
    let text = |text: &str| lines(text).into_iter().map(|(line, _)| line).collect::<Vec<_>>();
    assert_eq!(text(r#"{app="api"} | json | line_format "{{.took}} {{.status}}" |= "1.5s""#), ["1.5s 500"]);
    assert_eq!(text(r#"{app="web"} | level="error" |= "not" | line_format "{{.service_name}}""#), ["web"]);
    assert_eq!(
        text(r#"{app="web"} | logfmt | took < 100ms or msg = "all fine" | line_format "{{.took}}""#),
        ["300ms", "20ms"]
    );
}

#[test]
fn what_is_left_after_planning_is_what_the_store_cannot_decide() {
    let plan = |text: &str| match parse(text).unwrap() {
        Query::Logs(logs) => Plan::new(&logs),
        Query::Metric(_) => panic!(),
    };
    for text in [
        r#"{a="b"}"#,
        r#"{a="b"} |= "x" != "y" |~ "z" !~ "w" |= ip("10.0.0.1") or "q""#,
        r#"{a="b"} | level="error" or app=~"x.*" |= "y""#,
    ] {
        assert!(plan(text).is_pushed(), "{text}");
    }
    for text in
        [r#"{a="b"} |> "x <_>""#, r#"{a="b"} | json"#, r#"{a="b"} | x > 5"#, r#"{a="b"} | __error__="""#]
    {
        assert!(!plan(text).is_pushed(), "{text}");
    }
    assert!(plan(r#"{a="b"} | json | line_format "x""#).keeps_all());
}

/// A query's stages alone, over everything: what the plan must not change.
fn by_stages(logs: &NaiveLogs, text: &str) -> Vec<Vec<u8>> {
    let Query::Logs(expr) = parse(text).unwrap() else { panic!() };
    let found =
        logs.0.iter().filter(|(_, entry)| expr.matchers.iter().all(|m| m.matches(&entry.label(&m.name))));
    let rows = found.filter_map(|(_, entry)| super::super::stages::run(&expr.stages, entry));
    rows.map(|row| row.line().to_vec()).collect()
}

proptest! {
    #[test]
    fn plans_answer_what_the_stages_answer(
        messages in proptest::collection::vec(prop::sample::select(vec![
            r#"{"level":"error","a":"x y"}"#, r#"{"a":"\u0078 y","b":5}"#, "a=x b=7 level=info", "a=\"x y\"", "x y <z>", "ERROR x", "\u{1b}[31mx\u{1b}[0m y", "",
        ]), 0..8),
        stages in proptest::collection::vec(prop::sample::select(vec![
            r#"|= "x""#, r#"!= "error""#, r#"|> "<_> y""#, r#"!> "x <_>" or "<_>}""#, "| json", "| logfmt", r#"| a="x y""#, r#"| a="x""#, r#"| level="error""#, r#"| b > 5 or a="x""#,
            "| decolorize", r#"| line_format "{{.a}}""#, r#"| label_format a="x""#, "| drop a", "| unpack", r#"| __error__="""#, r#"| pattern "<a> <b>""#, r#"|~ "^x" or "y$""#,
        ]), 0..5),
    ) {
        let entries = messages.iter().enumerate().map(|(at, message)| entry(at as i64 + 1, "api", message));
        let logs = logs(entries);
        let text = format!("{{app=\"api\"}} {}", stages.join(" "));
        let Query::Logs(expr) = parse(&text).unwrap() else { unreachable!() };
        let plan = Plan::new(&expr);
        let request = LogRequest { query: plan.query.clone(), start: LogTime(0), end: LogTime(SECOND) };
        let planned: Vec<Vec<u8>> = logs.0.iter().filter(|(_, entry)| request.wants(entry)).filter_map(|(_, entry)| plan.run(entry)).map(|row| row.line().to_vec()).collect();
        prop_assert_eq!(planned, by_stages(&logs, &text), "{}", text);
    }

    /// The store's sums are the same as those of a scan; a stage that does nothing makes it a scan.
    #[test]
    fn sums_and_scans_agree(times in proptest::collection::vec(0i64..100, 0..20), window in 1u64..30, step in 1u64..20, start in 0i64..40, offset in -5i64..20) {
        let logs = logs(times.iter().map(|at| entry(at * 1000, if at % 2 == 0 { "api" } else { "web" }, "x")));
        for op in ["count_over_time", "rate", "bytes_over_time"] {
            let text = |stage: &str| format!("sum by (app) ({op}({{namespace=\"shop\"}} {stage} [{window}s] offset {offset}s))").replace("offset 0s", "");
            let pushed = range_of(&logs, &text(""), (start, 100, step)).unwrap();
            let scanned = range_of(&logs, &text("| drop nothing"), (start, 100, step)).unwrap();
            prop_assert_eq!(pushed, scanned, "{}", text(""));
        }
    }
}
