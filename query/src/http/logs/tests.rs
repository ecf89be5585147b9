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

/// The events of a body, as far as they came.
struct Events {
    body: Body,
    text: String,
}

impl Events {
    async fn of(bench: &Bench, path: &str, last: Option<&str>) -> Self {
        let mut request = Request::get(path);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = bench.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        Self { body: response.into_body(), text: String::new() }
    }

    /// The next event: its name, its data, its id.
    async fn next(&mut self) -> (String, String, String) {
        loop {
            if let Some((event, rest)) = self.text.clone().split_once("\n\n") {
                self.text = rest.to_owned();
                let field = |name: &str| {
                    let line = event.lines().find_map(|line| line.strip_prefix(name));
                    line.unwrap_or_default().trim_start().to_owned()
                };
                return (field("event:"), field("data:"), field("id:"));
            }
            let frame = self.body.frame().await.unwrap().unwrap();
            self.text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
        }
    }

    async fn entry(&mut self) -> (String, String) {
        let (event, data, id) = self.next().await;
        assert_eq!(event, "entry", "{data}");
        let entry: Value = serde_json::from_str(&data).unwrap();
        (entry["message"].as_str().unwrap().to_owned(), id)
    }
}

fn said(number: u64) -> (LogCursor, LogEntry) {
    entry(number, MINUTE - number as i64, format!("line {number}"))
}

#[tokio::test]
async fn a_tail_goes_on_where_it_ended() {
    let bench = bench((1..=6).map(said).collect());
    let mut events = Events::of(&bench, "/api/logs/tail?q=line", None).await;
    assert_eq!(events.next().await.0, "open");
    let mut other = said(9);
    other.1.message = b"something else".to_vec();
    bench.feed.tell(&[said(1), other, said(2)]);
    assert_eq!(events.entry().await.0, "line 1");
    let (line, id) = events.entry().await;
    assert_eq!(line, "line 2");
    drop(events);

    // Lines 3 to 6 were stored meanwhile; 5 and 6 are also told, once the reader is there again.
    for (path, last) in
        [("/api/logs/tail?q=line", Some(&*id)), (&*format!("/api/logs/tail?q=line&from={id}"), None)]
    {
        bench.feed.0.lock().unwrap().clear();
        let mut events = Events::of(&bench, path, last).await;
        assert_eq!(events.next().await.0, "open");
        assert_eq!(events.entry().await.0, "line 3");
        assert_eq!(events.entry().await.0, "line 4");
        assert_eq!(events.entry().await.0, "line 5");
        assert_eq!(events.entry().await.0, "line 6");
        let tell = async {
            bench.feed.listeners(1).await;
            bench.feed.tell(&[said(5), said(6), said(7)]);
        };
        let ((), (line, _)) = tokio::join!(tell, events.entry());
        assert_eq!(line, "line 7", "5 and 6 were told");
    }
    let mut of_search =
        Events::of(&bench, &format!("/api/logs/tail?from={}", cursor_text(said(4).0)), None).await;
    assert_eq!(of_search.next().await.0, "open");
    assert_eq!(of_search.entry().await.0, "line 5");
}

#[tokio::test]
async fn what_was_missed_comes_in_order_and_in_bounds() {
    // The store's order is that of `received`; the entries' own times run the other way.
    let late = |number: u64| {
        let (cursor, mut entry) = entry(number, number as i64, format!("line {number}"));
        entry.received = LogTime(now().0 + number as i64);
        (cursor, entry)
    };
    let bench = bench((0..12_000).map(late).collect());
    let since = crate::logs::Position::of(&late(0).1).to_string();
    let mut events = Events::of(&bench, &format!("/api/logs/tail?from={since}"), None).await;
    assert_eq!(events.next().await.0, "open");
    for number in 1..12_000 {
        assert_eq!(events.entry().await.0, format!("line {number}"));
    }
}

#[tokio::test]
async fn a_slow_reader_is_told_what_it_missed() {
    let bench = bench(Vec::new());
    let mut events = Events::of(&bench, "/api/logs/tail", None).await;
    let many: Vec<_> = (1..=5000).map(said).collect();
    bench.feed.tell(&many);
    assert_eq!(events.next().await.0, "open");
    assert_eq!(events.next().await, ("dropped".to_owned(), (5000 - 4096).to_string(), String::new()));
    assert_eq!(events.entry().await.0, "line 1");
}

/// Asks for a WebSocket as a browser does. Answers what the server says first.
async fn shake_hands(bench: &Bench, path: &str, origin: &str) -> (tokio::net::TcpStream, String) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = bench.router.clone();
    let mut server = tokio::task::JoinSet::new();
    server.spawn(async move { axum::serve(listener, router).await });
    server.detach_all();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let origin = if origin.is_empty() { format!("http://{address}") } else { origin.to_owned() };
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nOrigin: {origin}\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    (stream, String::from_utf8(answer).unwrap())
}

/// The next message of a server: its frames are neither masked nor parted.
async fn message(stream: &mut tokio::net::TcpStream) -> Value {
    assert_eq!(stream.read_u8().await.unwrap(), 0x81, "a whole text");
    let length = match stream.read_u8().await.unwrap() {
        126 => usize::from(stream.read_u16().await.unwrap()),
        length => usize::from(length),
    };
    let mut text = vec![0; length];
    stream.read_exact(&mut text).await.unwrap();
    serde_json::from_slice(&text).unwrap()
}

#[tokio::test]
async fn a_tail_speaks_over_a_web_socket() {
    let bench = bench(Vec::new());
    let (mut stream, answer) = shake_hands(&bench, "/api/logs/tail?q=line", "").await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    assert_eq!(message(&mut stream).await["type"], "open");
    bench.feed.tell(&[said(3)]);
    let entry = message(&mut stream).await;
    assert_eq!((&entry["type"], &entry["data"]["message"]), (&json!("entry"), &json!("line 3")));
    assert!(crate::logs::Position::parse(entry["id"].as_str().unwrap()).is_some());
    for path in ["/api/logs/tail?q=line", LOKI_TAIL] {
        let (_, answer) = shake_hands(&bench, path, "http://evil.example").await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{path}: {answer}");
    }
}

/// `{namespace="shop"}` from long ago.
const LOKI_TAIL: &str = "/loki/api/v1/tail?query=%7Bnamespace%3D%22shop%22%7D&start=0";

#[tokio::test]
async fn a_tail_of_loki_has_each_line_once_wherever_it_was_when_the_tail_began() {
    let bench = bench((1..=3).map(said).collect());
    let (mut stream, answer) = shake_hands(&bench, LOKI_TAIL, "").await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    let lines = |message: Value| {
        let streams = message["streams"].as_array().unwrap().clone();
        let values = streams.iter().flat_map(|stream| stream["values"].as_array().unwrap().clone());
        let mut lines: Vec<String> = values.map(|value| value[1].as_str().unwrap().to_owned()).collect();
        lines.sort();
        lines
    };
    assert_eq!(lines(message(&mut stream).await), ["line 1", "line 2", "line 3"]);
    // Found and told are 2 and 3; 4 was received before the tail began, and could not be found yet.
    bench.feed.tell(&[said(2), said(3), said(4)]);
    assert_eq!(lines(message(&mut stream).await), ["line 4"]);
}

#[tokio::test]
async fn tails_of_loki_are_bounded() {
    let bench = bench(Vec::new());
    let mut open = Vec::new();
    for _ in 0..256 {
        open.push(shake_hands(&bench, LOKI_TAIL, "").await);
    }
    let (stream, answer) = shake_hands(&bench, LOKI_TAIL, "").await;
    assert!(answer.starts_with("HTTP/1.1 429"), "{answer}");
    drop(stream);
    // A place is free again once a reader left.
    open.pop();
    while !shake_hands(&bench, LOKI_TAIL, "").await.1.starts_with("HTTP/1.1 101") {
        tokio::task::yield_now().await;
    }
}
