//! The log API over a naive store, request by request; `tail` has the live side.

mod tail;

use std::sync::Mutex;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::response::Response;
use binnacle_model::labels::Labels;
use binnacle_model::log::{FileId, Origin};
use binnacle_model::matcher::Matcher;
use binnacle_model::storage::{
    LabelSets, LogFeed, LogSearcher, LogSubscriber, Metadata, NaiveLogs, PageRequest, Queryable, SeriesSet,
};
use binnacle_model::time::Clock;
use binnacle_model::{TimeRange, Timestamp};
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::*;
use crate::http::{Gate, GateLimits, Usage, router};
use crate::promql::{Features, Limits};

const MINUTE: i64 = 60_000_000_000;
const DAY: i64 = 24 * 60 * MINUTE;

fn now() -> LogTime {
    LogTime::parse_rfc3339("2026-11-20T12:00:00Z").unwrap()
}

struct Fixed;

impl Clock for Fixed {
    fn now_ns(&self) -> LogTime {
        now()
    }
}

struct NoMetrics;

impl Queryable for NoMetrics {
    fn select(&self, _: &[Matcher], _: TimeRange, _: &Deadline) -> Result<SeriesSet<'_>, StorageError> {
        Ok(Box::new(std::iter::empty()))
    }

    fn series(&self, _: &[Matcher], _: TimeRange, _: &Deadline) -> Result<LabelSets, StorageError> {
        Ok(LabelSets { labels: Vec::new(), warnings: Vec::new() })
    }

    fn metadata(&self) -> std::collections::BTreeMap<String, Vec<Metadata>> {
        std::collections::BTreeMap::new()
    }
}

/// Tells whoever listens what the test wants.
#[derive(Default)]
struct Feed(Mutex<Vec<Box<dyn LogSubscriber>>>);

impl LogFeed for Feed {
    fn subscribe(&self, subscriber: Box<dyn LogSubscriber>) {
        self.0.lock().unwrap().push(subscriber);
    }
}

impl Feed {
    fn tell(&self, entries: &[(LogCursor, LogEntry)]) {
        let entries: Vec<Arc<LogEntry>> = entries.iter().map(|(_, entry)| Arc::new(entry.clone())).collect();
        self.0.lock().unwrap().retain(|one| one.entries(&entries));
    }

    async fn listeners(&self, count: usize) {
        while self.0.lock().unwrap().len() < count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

fn entry(number: u64, age: i64, message: String) -> (LogCursor, LogEntry) {
    let time = LogTime(now().0 - age);
    let file = number % 3;
    let pod = format!("web-{file}");
    let entry = LogEntry {
        time,
        received: LogTime(time.0 + 1000),
        stream: Labels::new([("namespace", "shop"), ("pod", &pod), ("service", "web")]).unwrap(),
        level: ["", "info", "error"][(number % 7 % 3) as usize].to_owned(),
        message: message.into_bytes(),
        attributes: Vec::new(),
        origin: Origin { file: FileId(format!("file-{file}")), offset: number * 100 },
    };
    (LogCursor { time, file, offset: number * 100 }, entry)
}

/// Lines of forty days, most of them of today; several at one moment.
fn entries() -> Vec<(LogCursor, LogEntry)> {
    let one = |number: u64| {
        let age =
            if number.is_multiple_of(4) { DAY / 7 * number as i64 } else { MINUTE * (number as i64 / 5) };
        let user = number % 10;
        let message = format!(r#"{{"msg":"order {number} done","user":"u{user}","took":{}}}"#, number % 50);
        entry(number, age + 1, message)
    };
    (0..280).map(one).collect()
}

pub(super) struct Bench {
    pub(super) api: Arc<ReadApi>,
    logs: NaiveLogs,
    feed: Arc<Feed>,
    router: Router,
}

pub(super) fn bench(logs: Vec<(LogCursor, LogEntry)>) -> Bench {
    let feed = Arc::new(Feed::default());
    let limits = GateLimits {
        places: 4,
        timeout: Duration::from_mins(1),
        max_samples: 10_000_000,
        max_samples_total: 10_000_000,
        slow: Duration::from_mins(1),
    };
    let api = ReadApi {
        metrics: Arc::new(NoMetrics),
        logs: Arc::new(NaiveLogs(logs.clone())),
        feed: Arc::clone(&feed) as Arc<dyn LogFeed>,
        clock: Arc::new(Fixed),
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
    let api = Arc::new(api);
    Bench { api: Arc::clone(&api), logs: NaiveLogs(logs), feed, router: router(api) }
}

pub(super) fn question(api: &ReadApi, parameters: &str) -> Question {
    Question::read(api, &Params::from_query(parameters)).unwrap()
}

impl Bench {
    async fn ask(&self, path: &str) -> Response {
        let request = Request::get(path).body(Body::empty()).unwrap();
        self.router.clone().oneshot(request).await.unwrap()
    }

    async fn text(&self, path: &str) -> String {
        let response = self.ask(path).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(body.to_vec()).unwrap()
    }

    async fn data(&self, path: &str) -> Value {
        let mut body: Value = serde_json::from_str(&self.text(path).await).unwrap();
        assert_eq!(body["status"], "success");
        body["data"].take()
    }

    async fn lines(&self, path: &str) -> Vec<Value> {
        self.text(path).await.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    async fn refusal(&self, path: &str) -> String {
        let response = self.ask(path).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{path}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap();
        body["error"].as_str().unwrap().to_owned()
    }

    /// The ids of what a scan of the list finds.
    fn wanted(&self, query: &str, start: i64, order: LogOrder) -> Vec<Value> {
        let query = parse(query, now()).unwrap().query;
        let request = LogRequest { query, start: LogTime(start), end: now() };
        let page = PageRequest { limit: usize::MAX, order, ..PageRequest::default() };
        let found = self.logs.search(&request, page, &Deadline::default()).unwrap();
        found.entries.iter().map(|(cursor, _)| cursor_text(*cursor).into()).collect()
    }
}

fn ids(entries: &Value) -> Vec<Value> {
    entries.as_array().unwrap().iter().map(|entry| entry["id"].clone()).collect()
}

fn text(query: &str) -> String {
    form_urlencoded::byte_serialize(query.as_bytes()).collect()
}

#[tokio::test]
async fn pages_hold_what_a_scan_finds() {
    let bench = bench(entries());
    for (query, order) in
        [("", "newest"), ("level:error", "newest"), ("took:>20", "oldest"), ("absent", "oldest")]
    {
        let of = if order == "newest" { LogOrder::NewestFirst } else { LogOrder::OldestFirst };
        let want = bench.wanted(query, now().0 - 60 * DAY, of);
        let path = format!("/api/logs/search?q={}&start=now-60d&limit=17&order={order}", text(query));
        let (mut found, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = bench.data(&format!("{path}{cursor}")).await;
            assert_eq!(page["total"], want.len() as u64);
            found.extend(ids(&page["entries"]));
            let Some(next) = page["cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(found, want, "{query}");
    }
    let page = bench.data("/api/logs/search?total=false&q=order").await;
    assert!(page["total"].is_null() && page["highlights"] == json!(["order"]), "{page}");
    assert!(page["entries"][0]["message"].is_string() && page["entries"][0]["fields"]["took"].is_number());
    let page = bench.data("/api/logs/search?q=(a").await;
    assert!(page["hint"].is_string() && page["hints"][0]["column"] == 3, "{page}");
    let page = bench.data("/api/logs/search?q=main:worker").await;
    assert!(page["hint"].as_str().unwrap().contains("\"main\" was searched as a field"), "{page}");
}

#[tokio::test]
async fn pieces_hold_what_a_page_holds() {
    let bench = bench(entries());
    for order in ["newest", "oldest"] {
        for limit in [1, 40, 200, 1000] {
            for total in [true, false] {
                let path = format!(
                    "/api/logs/search?q=done&start=now-60d&limit={limit}&order={order}&total={total}"
                );
                let page = bench.data(&path).await;
                let mut lines = bench.lines(&format!("{path}&stream=true")).await;
                let end = lines.pop().unwrap();
                let found: Vec<Value> = lines.iter().flat_map(|line| ids(&line["entries"])).collect();
                assert_eq!(found, ids(&page["entries"]), "{path}");
                for name in ["total", "cursor", "more", "highlights", "hint", "start_ns", "end_ns"] {
                    assert_eq!(end[name], page[name], "{path} {name}");
                }
                assert!(!total || lines.len() == 7, "all slices are read for the total: {path}");
                assert!(order == "oldest" || limit > 1 || total || lines.len() < 3, "{path}");
            }
        }
    }
    let path = "/api/logs/search?start=now-60d&limit=50";
    let cursor = bench.data(path).await["cursor"].as_str().unwrap().to_owned();
    let next = bench.data(&format!("{path}&cursor={cursor}")).await;
    let lines = bench.lines(&format!("{path}&cursor={cursor}&stream=true")).await;
    let found: Vec<Value> =
        lines.iter().flat_map(|line| line["entries"].as_array().cloned().unwrap_or_default()).collect();
    assert_eq!(Value::from(found), next["entries"]);
}

#[tokio::test]
async fn counts_are_of_all_matches() {
    let bench = bench(entries());
    let want = bench.wanted("done", now().0 - 60 * DAY, LogOrder::NewestFirst).len() as u64;
    let bars = bench.data("/api/logs/histogram?q=done&start=now-60d&bars=7").await;
    assert_eq!((bars["total"].as_u64(), bars["bars"].as_array().unwrap().len()), (Some(want), 7));
    let counts = bars["bars"].as_array().unwrap().iter().flat_map(|bar| bar["counts"].as_object().unwrap());
    let errors: u64 =
        counts.filter(|(level, _)| *level == "error").map(|(_, count)| count.as_u64().unwrap()).sum();
    assert_eq!(errors, bench.wanted("level:error", now().0 - 60 * DAY, LogOrder::NewestFirst).len() as u64);
    let bars = bench.data("/api/logs/histogram?start=now-90m&step=1h").await;
    let starts: Vec<_> = bars["bars"].as_array().unwrap().iter().map(|bar| bar["start_ns"].clone()).collect();
    let hour = |back: i64| Value::from((now().0 - back * 60 * MINUTE).to_string());
    assert_eq!(starts, [hour(2), hour(1)]);

    let facets = bench.data("/api/logs/facets?start=now-60d&field=user&field=pod&field=absent&limit=3").await;
    let user = &facets["facets"][0];
    assert_eq!(
        (&user["field"], &user["distinct"], &user["missing"]),
        (&json!("user"), &json!(10), &json!(0))
    );
    assert_eq!(
        user["values"],
        json!([{"value":"u0","count":28},{"value":"u1","count":28},{"value":"u2","count":28}])
    );
    assert_eq!(facets["facets"][1]["values"][0], json!({"value":"web-0","count":94}));
    assert_eq!((&facets["facets"][2]["distinct"], &facets["facets"][2]["missing"]), (&json!(0), &json!(280)));
    let facets = bench.data("/api/logs/facets?start=now-60d&field=user&contains=U7").await;
    assert_eq!(facets["facets"][0]["values"], json!([{"value":"u7","count":28}]));
    assert_eq!(bench.data("/api/logs/facets").await["facets"].as_array().unwrap().len(), 8);

    let fields = bench.data("/api/logs/fields?start=now-60d").await;
    assert_eq!(fields["fields"][1], json!({"name":"took","entries":280,"types":["number"]}));
}

#[tokio::test]
async fn patterns_may_be_only_the_new_ones() {
    let said = |number, age, text: &str| entry(number, age, text.to_owned());
    let bench =
        bench(vec![said(1, 50 * MINUTE, "old"), said(2, 5 * MINUTE, "old"), said(3, 5 * MINUTE, "new")]);
    let all = bench.data("/api/logs/patterns?bars=6").await;
    assert_eq!((&all["distinct"], &all["total"]), (&json!(3), &json!(3)), "levels tell patterns apart");
    assert_eq!(all["patterns"][0]["counts"].as_array().unwrap().len(), 6);
    let new = bench.data("/api/logs/patterns?new_since=now-10m&limit=1&q=new").await;
    assert_eq!((&new["patterns"][0]["pattern"], &new["distinct"]), (&json!("new"), &json!(1)));
    assert_eq!(bench.data("/api/logs/patterns?new_since=now-1m").await["patterns"], json!([]));
}

#[tokio::test]
async fn a_pattern_that_was_seen_outside_of_the_span_is_not_new() {
    let said = |number, age, text: &str| entry(number, age, text.to_owned());
    let bench =
        bench(vec![said(1, 50 * MINUTE, "old"), said(8, 5 * MINUTE, "old"), said(15, 5 * MINUTE, "new")]);
    let found = bench.data("/api/logs/patterns?start=now-15m").await;
    assert_eq!(found["distinct"], json!(2));
    let found = bench.data("/api/logs/patterns?start=now-15m&new_since=now-15m").await;
    assert_eq!((&found["patterns"][0]["pattern"], &found["distinct"]), (&json!("new"), &json!(1)));
    assert_eq!(found["total"], json!(2), "of all that were found");
}

#[tokio::test]
async fn context_is_by_place_in_the_file() {
    let bench = bench(entries());
    let found = bench.data("/api/logs/context?file=file-0&offset=600&before=2&after=1").await;
    let offsets = |name: &str| -> Vec<u64> {
        found[name].as_array().unwrap().iter().map(|entry| entry["offset"].as_u64().unwrap()).collect()
    };
    assert_eq!((offsets("before"), offsets("after")), (vec![0, 300], vec![900]));
    assert_eq!(found["entry"]["offset"], 600);
    let gone = bench.data("/api/logs/context?file=file-0&offset=601&before=1&after=0").await;
    assert!(gone["entry"].is_null(), "{gone}");
    assert_eq!(bench.ask("/api/logs/context?file=nowhere&offset=0").await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn exports_hold_all_and_go_on_where_they_ended() {
    let large =
        |number: u64| entry(number, MINUTE + 7 * number as i64, format!("{number} {}", "x".repeat(100_000)));
    let bench = bench((0..120).map(large).collect());
    for (order, of) in [("oldest", LogOrder::OldestFirst), ("newest", LogOrder::NewestFirst)] {
        let want = bench.wanted("", now().0 - DAY, of);
        let path = format!("/api/logs/export?start=now-1d&order={order}");
        let mut lines = bench.lines(&path).await;
        let trailer = lines.pop().unwrap()["trailer"].take();
        assert_eq!(
            (&trailer["status"], &trailer["count"], &trailer["more"]),
            (&json!("success"), &json!(120), &json!(false))
        );
        assert_eq!(ids(&lines.into()), want);
        let mut lines = bench.lines(&format!("{path}&limit=50")).await;
        let trailer = lines.pop().unwrap()["trailer"].take();
        assert_eq!((&trailer["more"], &trailer["cursor"]), (&json!(true), &want[49]));
        let cursor = trailer["cursor"].as_str().unwrap();
        let mut rest = bench.lines(&format!("{path}&cursor={cursor}")).await;
        rest.pop();
        assert_eq!([ids(&lines.into()), ids(&rest.into())].concat(), want);
    }
}

#[tokio::test]
async fn exports_are_files_of_other_programs() {
    let bench = bench(vec![
        entry(1, 2 * MINUTE, "=cmd(), \"x\"".to_owned()),
        entry(2, MINUTE, r#"{"user":"@me"}"#.to_owned()),
    ]);
    let response = bench.ask("/api/logs/export?format=csv").await;
    assert_eq!(response.headers()[axum::http::header::CONTENT_TYPE], "text/csv; charset=utf-8");
    let csv = bench.text("/api/logs/export?format=csv&columns=time,message,user").await;
    assert_eq!(
        csv,
        "time,message,user\r\n2026-11-20T11:58:00.000000000Z,\"'=cmd(), \"\"x\"\"\",\r\n\
         2026-11-20T11:59:00.000000000Z,\"{\"\"user\"\":\"\"@me\"\"}\",\"'@me\"\r\n"
    );
    let text = bench.text("/api/logs/export?format=text&order=newest").await;
    assert_eq!(text, "{\"user\":\"@me\"}\n=cmd(), \"x\"\n");
}

#[tokio::test]
async fn parameters_have_bounds() {
    let bench = bench(Vec::new());
    for (path, why) in [
        ("search?limit=0", "between 1 and 5000"),
        ("search?limit=x", "no count"),
        ("search?start=soon", "write now-1h"),
        ("search?start=now&end=now-1h", "after start"),
        ("search?cursor=1.2", "take it from"),
        ("search?order=up", "neither newest nor oldest"),
        ("search?total=maybe", "neither true nor false"),
        ("histogram?bars=1001", "between 1 and 1000"),
        ("histogram?step=1ms&start=now-1h", "wider one"),
        ("histogram?step=0", "more than zero"),
        ("facets?limit=1001", "between 1 and 1000"),
        ("facets?field=message", "ask for patterns"),
        ("context?file=x", "take file and offset"),
        ("context?file=x&offset=1&before=1001", "1000 at most"),
        ("export?format=xml", "none of ndjson"),
        ("export?format=csv&columns=,", "between 1 and 100"),
        ("patterns?limit=0", "between 1 and 1000"),
        ("tail?from=x", "take it from"),
    ] {
        let error = bench.refusal(&format!("/api/logs/{path}")).await;
        assert!(error.contains(why), "{path}: {error}");
    }
    let facets = "&field=f".repeat(21);
    assert!(bench.refusal(&format!("/api/logs/facets?{facets}")).await.contains("at most 20"));
    let long = "x".repeat(17_000);
    assert!(bench.refusal(&format!("/api/logs/search?q={long}")).await.contains("longer than"));
    let form = Request::post("/api/logs/search").header("content-type", "application/x-www-form-urlencoded");
    let form = form.body(Body::from("q=a&limit=1")).unwrap();
    assert_eq!(bench.router.clone().oneshot(form).await.unwrap().status(), StatusCode::OK);
}
