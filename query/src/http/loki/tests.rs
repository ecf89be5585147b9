//! The calls of Grafana's Loki data source and of Logs Drilldown, and the bytes of each answer.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use binnacle_model::log::{FieldValue, LogEntry, Origin};
use binnacle_model::storage::{
    Deadline, LabelSets, LogCursor, LogFeed, LogSubscriber, Metadata, NaiveLogs, Queryable, SeriesSet,
    StorageError,
};
use binnacle_model::time::Clock;
use binnacle_model::{Labels, LogTime, Matcher, TimeRange, Timestamp};
use http_body_util::BodyExt;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::*;
use crate::http::{Gate, GateLimits, Usage};
use crate::promql::{Features, Limits};

const SECOND: i64 = 1_000_000_000;
/// The present: a whole minute.
const NOW: i64 = 1_700_000_040 * SECOND;

struct Nothing;

impl Queryable for Nothing {
    fn select(&self, _: &[Matcher], _: TimeRange, _: &Deadline) -> Result<SeriesSet<'_>, StorageError> {
        Ok(Box::new(std::iter::empty()))
    }
    fn series(&self, _: &[Matcher], _: TimeRange, _: &Deadline) -> Result<LabelSets, StorageError> {
        Ok(LabelSets::default())
    }
    fn metadata(&self) -> BTreeMap<String, Vec<Metadata>> {
        BTreeMap::new()
    }
}

impl LogFeed for Nothing {
    fn subscribe(&self, _: Box<dyn LogSubscriber>) {}
}

impl Clock for Nothing {
    fn now_ns(&self) -> LogTime {
        LogTime(NOW)
    }
}

fn entry(before_s: i64, app: &str, level: &str, message: &str) -> (LogCursor, LogEntry) {
    let time = LogTime(NOW - before_s * SECOND);
    let entry = LogEntry {
        time,
        received: time,
        stream: Labels::new([("namespace", "shop"), ("app", app), ("service", app)]).unwrap(),
        level: level.to_owned(),
        message: message.as_bytes().to_vec(),
        attributes: vec![("trace.id".to_owned(), FieldValue::Text("t1".to_owned()))],
        origin: Origin::default(),
    };
    (LogCursor { time, file: 0, offset: before_s.unsigned_abs() }, entry)
}

fn routes() -> Router {
    let logs = NaiveLogs(vec![
        entry(30, "cart", "error", r#"{"status":500,"took":"2s"}"#),
        entry(20, "cart", "info", r#"{"status":200,"took":"1s"}"#),
        entry(10, "web", "", "a \"quoted\" line"),
    ]);
    let limits = GateLimits {
        places: 2,
        timeout: Duration::from_secs(10),
        max_samples: 1_000_000,
        max_samples_total: 1_000_000,
        slow: Duration::from_secs(10),
    };
    let api = ReadApi {
        metrics: Arc::new(Nothing),
        logs: Arc::new(logs),
        feed: Arc::new(Nothing),
        clock: Arc::new(Nothing),
        limits: Limits::default(),
        features: Features::default(),
        gate: Gate::new(limits),
        stop: CancellationToken::new(),
        keeper: None,
        admin: None,
        usage: Usage::new(Timestamp(0)),
        external_labels: Labels::default(),
        version: "test",
    };
    router().with_state(Arc::new(api))
}

async fn answer(request: Request<Body>) -> (u16, String) {
    let response = routes().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

fn uri(path: &str, query: &[(&str, &str)]) -> String {
    let query: String = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
    format!("{path}?{query}")
}

async fn get(path: &str, query: &[(&str, &str)]) -> (u16, String) {
    answer(Request::get(uri(path, query)).body(Body::empty()).unwrap()).await
}

async fn check(path: &str, query: &[(&str, &str)], want: &str) {
    assert_eq!(get(path, query).await, (200, want.to_owned()), "{path} {query:?}");
}

async fn fails(path: &str, query: &[(&str, &str)], status: u16, want: &str) {
    assert_eq!(get(path, query).await, (status, want.to_owned()), "{path} {query:?}");
}

/// The last minute, in nanoseconds.
const START: &str = "1699999980000000000";
const END: &str = "1700000040000000001";

#[tokio::test]
async fn the_health_check_is_a_query_without_a_selector() {
    let query = [("query", "vector(1)+vector(1)"), ("time", "4000000000"), ("direction", "backward")];
    let want = r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[4000000000,"2"]}]}}"#;
    check("/loki/api/v1/query", &query, want).await;
}

#[tokio::test]
async fn lines_come_by_streams() {
    let query = [
        ("query", r#"{app="web"}"#),
        ("start", START),
        ("end", END),
        ("step", "15ms"),
        ("limit", "10"),
        ("direction", "backward"),
    ];
    check(
        "/loki/api/v1/query_range",
        &query,
        r#"{"status":"success","data":{"resultType":"streams","result":[{"stream":{"app":"web","namespace":"shop","service_name":"web","trace_id":"t1"},"values":[["1700000030000000000","a \"quoted\" line"]]}],"stats":{}}}"#,
    )
    .await;
    let query = [
        ("query", r#"{app="cart"} | json | line_format "{{.status}}""#),
        ("start", "2023-11-14T22:13:00Z"),
        ("end", "1700000040.5"),
        ("direction", "forward"),
    ];
    let request = Request::get(uri("/loki/api/v1/query_range", &query))
        .header("X-Loki-Response-Encoding-Flags", "categorize-labels");
    let want = concat!(
        r#"{"status":"success","data":{"resultType":"streams","encodingFlags":["categorize-labels"],"result":[{"stream":{"app":"cart","namespace":"shop","service_name":"cart"},"values":["#,
        r#"["1700000010000000000","500",{"structuredMetadata":{"detected_level":"error","trace_id":"t1"},"parsed":{"status":"500","took":"2s"}}],"#,
        r#"["1700000020000000000","200",{"structuredMetadata":{"detected_level":"info","trace_id":"t1"},"parsed":{"status":"200","took":"1s"}}]]}],"stats":{}}}"#,
    );
    assert_eq!(answer(request.body(Body::empty()).unwrap()).await, (200, want.to_owned()));
}

#[tokio::test]
async fn numbers_come_as_prometheus_writes_them() {
    let query = [
        ("query", r#"sum by (level, detected_level) (count_over_time({namespace="shop"}[1m]))"#),
        ("start", "1700000040000000000"),
        ("end", "1700000040000000000"),
        ("step", "60000ms"),
    ];
    check(
        "/loki/api/v1/query_range",
        &query,
        r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":[[1700000040,"1"]]},{"metric":{"detected_level":"error","level":"error"},"values":[[1700000040,"1"]]},{"metric":{"detected_level":"info","level":"info"},"values":[[1700000040,"1"]]}]}}"#,
    )
    .await;
    let form = "query=sum%28rate%28%7Bapp%3D%22cart%22%7D%5B1m%5D%29%29&time=1700000040000000000";
    let request =
        Request::post("/loki/api/v1/query").header("content-type", "application/x-www-form-urlencoded");
    let found = answer(request.body(Body::from(form)).unwrap()).await;
    let want = r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1700000040,"0.03333333333333333"]}]}}"#;
    assert_eq!(found, (200, want.to_owned()));
}

#[tokio::test]
async fn errors_are_text() {
    let path = "/loki/api/v1/query_range";
    fails(
        path,
        &[("query", r#"{app="a""#)],
        400,
        "parse error at line 1, col 9: syntax error: unexpected $end, expecting } or ,",
    )
    .await;
    fails("/loki/api/v1/query", &[("query", r#"{app="a"}"#)], 400, "log queries are not supported as an instant query type, please change your query to a range query type").await;
    let limit = "max entries limit per query exceeded, limit > max_entries_limit_per_query (6000 > 5000)";
    fails(path, &[("query", r#"{app="a"}"#), ("limit", "6000")], 400, limit).await;
    fails(path, &[("query", r#"{app="a"}"#), ("direction", "up")], 400, "invalid direction 'up'").await;
    let (status, text) = get(path, &[("query", r#"sum(count_over_time({app="web"} | json [1m]))"#)]).await;
    assert_eq!(
        (status, text.starts_with("pipeline error: 'JSONParserErr' for series: '{app=\"web\"")),
        (400, true),
        "{text}"
    );
    let points = [("query", r#"rate({app="a"}[1m])"#), ("start", "0"), ("end", "1700000000"), ("step", "1")];
    assert_eq!(get(path, &points).await.0, 400);
}

#[tokio::test]
async fn labels_and_series() {
    let span = [("start", START), ("end", END)];
    check("/loki/api/v1/labels", &span, r#"{"status":"success","data":["app","namespace","service_name"]}"#)
        .await;
    check("/loki/api/v1/label", &[], r#"{"status":"success","data":["app","namespace","service_name"]}"#)
        .await;
    check(
        "/loki/api/v1/label/app/values",
        &[("query", r#"{namespace="shop"}"#)],
        r#"{"status":"success","data":["cart","web"]}"#,
    )
    .await;
    check("/loki/api/v1/label/service_name/values", &span, r#"{"status":"success","data":["cart","web"]}"#)
        .await;
    check(
        "/loki/api/v1/label/detected_level/values",
        &span,
        r#"{"status":"success","data":["error","info"]}"#,
    )
    .await;
    check("/loki/api/v1/label/none/values", &span, r#"{"status":"success","data":[]}"#).await;
    check(
        "/loki/api/v1/series",
        &[("match[]", r#"{service_name="web"}"#)],
        r#"{"status":"success","data":[{"app":"web","namespace":"shop","service_name":"web"}]}"#,
    )
    .await;
}

#[tokio::test]
async fn drilldown_finds_what_it_needs() {
    let query = [
        ("query", r#"{service_name=~".+"}"#),
        ("start", START),
        ("end", END),
        ("targetLabels", "service_name"),
    ];
    check("/loki/api/v1/index/stats", &query, r#"{"streams":2,"chunks":2,"bytes":67,"entries":3}"#).await;
    check("/loki/api/v1/index/volume", &query, r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"service_name":"cart"},"value":[1700000040,"52"]},{"metric":{"service_name":"web"},"value":[1700000040,"15"]}],"stats":{}}}"#).await;
    let by_labels = [("query", r#"{service_name="web"}"#), ("aggregateBy", "labels")];
    check("/loki/api/v1/index/volume", &by_labels, r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"service_name":""},"value":[1700000040,"15"]}],"stats":{}}}"#).await;
    let ranged =
        [("query", r#"{app="web"}"#), ("start", START), ("end", "1700000040000000000"), ("step", "30s")];
    check("/loki/api/v1/index/volume_range", &ranged, r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"app":"web"},"values":[[1700000010,"15"]]}],"stats":{}}}"#).await;
    check("/loki/api/v1/patterns", &ranged, r#"{"status":"success","data":[{"pattern":"a \"quoted\" line","level":"","samples":[[1700000010,1]]}]}"#).await;
    check("/loki/api/v1/detected_labels", &[("start", "2023-11-14T22:13:00.000Z"), ("end", "2023-11-14T22:14:01.000Z")], r#"{"detectedLabels":[{"label":"app","cardinality":2},{"label":"namespace","cardinality":1},{"label":"service_name","cardinality":2}]}"#).await;
    let cart = [("query", r#"{app="cart"}"#), ("limit", "100"), ("line_limit", "10")];
    check("/loki/api/v1/detected_fields", &cart, r#"{"fields":[{"label":"detected_level","type":"string","cardinality":2,"parsers":null},{"label":"status","type":"int","cardinality":2,"parsers":["json"],"jsonPath":["status"]},{"label":"took","type":"duration","cardinality":2,"parsers":["json"],"jsonPath":["took"]},{"label":"trace_id","type":"string","cardinality":1,"parsers":null}],"limit":100}"#).await;
    check("/loki/api/v1/detected_field/status/values", &cart, r#"{"values":["200","500"],"limit":100}"#)
        .await;
    let (status, limits) = get("/loki/api/v1/drilldown-limits", &[]).await;
    assert!(
        status == 200
            && limits.starts_with(r#"{"limits":{"discover_log_levels":true"#)
            && limits.contains(r#""pattern_ingester_enabled":true"#),
        "{limits}"
    );
}

#[tokio::test]
async fn the_rest_of_what_grafana_asks() {
    check(
        "/loki/api/v1/format_query",
        &[("query", r#"{app="a"}|="x""#)],
        r#"{"status":"success","data":"{app=\"a\"} |= \"x\""}"#,
    )
    .await;
    fails("/loki/api/v1/format_query", &[("query", "{")], 400, r#"{"status":"invalid-query","error":"parse error at line 1, col 2: syntax error: unexpected $end, expecting IDENTIFIER or }"}"#).await;
    check("/loki/api/v1/status/buildinfo", &[], r#"{"version":"3.5.0","revision":"test","branch":"binnacle","buildUser":"","buildDate":"","goVersion":""}"#).await;
    check("/prometheus/api/v1/rules", &[], r#"{"status":"success","data":{"groups":[]}}"#).await;
    assert_eq!(get("/loki/api/v1/tail", &[("query", r#"{app="a"}"#)]).await.0, 400, "no WebSocket");
}
