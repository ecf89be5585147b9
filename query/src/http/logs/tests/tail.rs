//! Live tails: by events, over a WebSocket, and Loki's.

use super::*;

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

/// The next message of a server: its frames are neither masked nor parted. It may ask meanwhile whether we live.
async fn message(stream: &mut tokio::net::TcpStream) -> Value {
    let text = loop {
        let kind = stream.read_u8().await.unwrap();
        let length = match stream.read_u8().await.unwrap() {
            126 => usize::from(stream.read_u16().await.unwrap()),
            length => usize::from(length),
        };
        let mut text = vec![0; length];
        stream.read_exact(&mut text).await.unwrap();
        if kind != 0x89 {
            assert_eq!(kind, 0x81, "a whole text");
            break text;
        }
    };
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
