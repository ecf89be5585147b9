use std::io::Write;
use std::sync::Mutex;

use axum::body::Body;
use binnacle_model::LogTime;
use binnacle_model::storage::{AppendError, LogAppendReport, LogAppender};
use proptest::prelude::*;

use super::super::wire::{put_bytes, put_varint};
use super::*;

/// Streams and their lines, as short text.
fn shown(push: &LogPush) -> Vec<String> {
    let mut out = Vec::new();
    for batch in &push.batches {
        let labels: Vec<String> =
            batch.stream.iter().map(|pair| format!("{}={}", pair.name, pair.value)).collect();
        for entry in &batch.entries {
            let text = String::from_utf8_lossy(&entry.message);
            let fields = entry.fields.iter().map(|field| match &field.value {
                Some(PushValue::Text(value)) => format!("{}={value}", field.name),
                other => format!("{}={other:?}", field.name),
            });
            let fields: Vec<String> = fields.collect();
            out.push(format!(
                "{} | {} | {text} | {} | {}",
                labels.join(","),
                entry.time_ns,
                entry.level,
                fields.join(",")
            ));
        }
    }
    out
}

/// A line: its time, its text and its metadata.
type Entry<'a> = (i64, &'a str, &'a [(&'a str, &'a str)]);

/// As Promtail encodes it.
fn encoded(streams: &[(&str, &[Entry<'_>])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (labels, entries) in streams {
        let mut stream = Vec::new();
        put_bytes(&mut stream, 1, labels.as_bytes());
        for (time, line, metadata) in *entries {
            let mut moment = vec![1 << 3];
            put_varint(&mut moment, (time / 1_000_000_000) as u64);
            moment.push(2 << 3);
            put_varint(&mut moment, (time % 1_000_000_000) as u64);
            let mut entry = Vec::new();
            put_bytes(&mut entry, 1, &moment);
            put_bytes(&mut entry, 2, line.as_bytes());
            for (name, value) in *metadata {
                let mut pair = Vec::new();
                put_bytes(&mut pair, 1, name.as_bytes());
                put_bytes(&mut pair, 2, value.as_bytes());
                put_bytes(&mut entry, 3, &pair);
            }
            put_bytes(&mut stream, 2, &entry);
        }
        put_bytes(&mut body, 1, &stream);
    }
    body
}

const NOW: i64 = 1_700_000_000_123_456_789;

#[test]
fn both_encodings_say_the_same() {
    let lines: [Entry<'_>; 2] =
        [(NOW, "level=warn a=1", &[("trace_id", "t1"), ("x.y", "z")]), (NOW + 1, "é\n\"q\"", &[])];
    let body = encoded(&[(r#"{app="cart", env="a\"b"}"#, &lines), (r#"{job="j"}"#, &[])]);
    let want = [
        format!("app=cart,env=a\"b,service=cart | {NOW} | level=warn a=1 | warn | trace_id=t1,x.y=z"),
        format!("app=cart,env=a\"b,service=cart | {} | é\n\"q\" |  | ", NOW + 1),
    ];
    assert_eq!(shown(&protobuf::read(&body).unwrap().push), want);
    let text = format!(
        r#"{{"other":[1],"streams":[{{"stream":{{"app":"cart","env":"a\"b"}},"values":[["{NOW}","level=warn a=1",{{"trace_id":"t1","x.y":"z"}}],["{}","\u00e9\n\"q\""]]}},{{"stream":{{"job":"j"}},"values":[]}}]}}"#,
        NOW + 1
    );
    assert_eq!(shown(&json::read(text.as_bytes()).unwrap().push), want);
}

#[test]
fn services_and_levels_are_found_as_loki_finds_them() {
    let line = |labels: &str, text: &str, metadata: &[(&str, &str)]| {
        let push = protobuf::read(&encoded(&[(labels, &[(1, text, metadata)])])).unwrap().push;
        shown(&push).remove(0)
    };
    assert_eq!(line(r#"{service_name="s", app="a"}"#, "x", &[]), "app=a,service=s | 1 | x |  | ");
    assert_eq!(
        line(r#"{service_name="s", service="t"}"#, "x", &[]),
        "service=t,service_name=s | 1 | x |  | "
    );
    assert_eq!(line(r#"{container="c", job="j"}"#, "x", &[]), "container=c,job=j,service=c | 1 | x |  | ");
    assert_eq!(line(r#"{x="y"}"#, "x", &[]), "service=unknown_service,x=y | 1 | x |  | ");
    assert_eq!(
        line(r#"{app="a", level="WARNING"}"#, "x", &[]),
        "app=a,level=WARNING,service=a | 1 | x | warn | "
    );
    assert_eq!(
        line(r#"{app="a", level="info"}"#, "x", &[("detected_level", "error"), ("k", "v")]),
        "app=a,level=info,service=a | 1 | x | error | k=v"
    );
    assert_eq!(
        line(r#"{app="a"}"#, "ERROR x", &[("severity_text", "nope")]),
        "app=a,service=a | 1 | ERROR x | error | severity_text=nope"
    );
    let push =
        protobuf::read(&encoded(&[(r#"{app="a", iostream="stderr"}"#, &[(1, "x", &[])])])).unwrap().push;
    assert_eq!((push.batches[0].entries[0].iostream.as_str(), push.batches[0].stream.len()), ("stderr", 2));
}

fn refused(result: Result<Pushed, Refusal>) -> String {
    let refusal = result.map_or_else(Some, |pushed| pushed.refused.map(Refused::into_refusal));
    match refusal {
        Some(Refusal::Bad(reason) | Refusal::TooLarge(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_wrong_is_said_in_lokis_words() {
    let labels = |text: &str| refused(protobuf::read(&encoded(&[(text, &[(1, "x", &[])])])));
    assert_eq!(labels("{}"), "error at least one label pair is required per stream");
    assert_eq!(labels("app"), "error parsing labels 'app' with error: a { is missing");
    assert_eq!(
        labels(r#"{a="b" c="d"}"#),
        r#"error parsing labels '{a="b" c="d"}' with error: a , or } is missing"#
    );
    assert_eq!(labels(r#"{a="b", a="c"}"#), "stream has duplicate label name: 'a'");
    assert_eq!(labels(&format!("{{a=\"{}\"}}", "x".repeat(5000))), "stream has label value too long: 'a'");
    assert_eq!(
        refused(protobuf::read(b"\x0a\x7f")),
        "couldn't parse push request: proto: a length leads past the end at byte 2"
    );
    let json = |text: &str| refused(json::read(text.as_bytes()));
    assert!(json("nope").starts_with("couldn't parse push request: "));
    assert!(
        json(r#"{"streams":[{"stream":{"a":"b"},"values":[["x","y"]]}]}"#)
            .contains("strconv.ParseInt: parsing \"x\": invalid syntax")
    );
    assert!(json(r#"{"streams":[{"stream":{"a":"b"},"values":[["1"]]}]}"#).starts_with("couldn't parse"));
    assert_eq!(
        json(r#"{"streams":[{"stream":{},"values":[["1","y"]]}]}"#),
        "error at least one label pair is required per stream"
    );
    let many = format!(
        r#"{{"streams":[{{"stream":{{"a":"b"}},"values":[{}["1",""]]}}]}}"#,
        r#"["1",""],"#.repeat(MAX_PARTS)
    );
    assert_eq!(json(&many), TOO_MANY);
    assert_eq!(json::read(br#"{"streams":[]}"#).unwrap().push, LogPush::default());
}

#[test]
fn a_stream_that_is_refused_costs_no_other() {
    let lines: [Entry<'_>; 1] = [(1, "x", &[])];
    let body = encoded(&[("{a=", &lines), (r#"{app="a"}"#, &lines), ("{}", &lines)]);
    let read = protobuf::read(&body).unwrap();
    assert_eq!(shown(&read.push), ["app=a,service=a | 1 | x |  | "]);
    let reason = "error parsing labels '{a=' with error: a \" is missing (and 1 more streams were not taken)";
    assert_eq!(refused(Ok(read)), reason);
    let body =
        br#"{"streams":[{"stream":{},"values":[["1","y"]]},{"stream":{"app":"a"},"values":[["1","x"]]}]}"#;
    let read = json::read(body).unwrap();
    assert_eq!(shown(&read.push), ["app=a,service=a | 1 | x |  | "]);
    assert_eq!(refused(Ok(read)), "error at least one label pair is required per stream");
}

#[test]
fn lines_keep_bytes_that_are_no_text() {
    let message = |push: &LogPush| push.batches[0].entries[0].message.clone();
    let mut body = encoded(&[(r#"{app="a"}"#, &[(1, "caf?", &[])])]);
    let at = body.iter().position(|byte| *byte == b'?').unwrap();
    body[at] = 0xe9;
    assert_eq!(message(&protobuf::read(&body).unwrap().push), b"caf\xe9");
    let of_json = |line: &[u8]| {
        let mut body = br#"{"streams":[{"stream":{"app":"a"},"values":[["1",""#.to_vec();
        body.extend_from_slice(line);
        body.extend_from_slice(br#"",{"k":"v\ud83d"}]]}]}"#);
        json::read(&body).unwrap().push
    };
    assert_eq!(message(&of_json(b"caf\xe9")), b"caf\xe9");
    assert_eq!(
        message(&of_json(br"half \ud83d of it, \ud83d\ude00 and \t")),
        "half \u{fffd} of it, \u{1f600} and \t".as_bytes()
    );
    let push = of_json(b"x");
    let Some(PushValue::Text(value)) = &push.batches[0].entries[0].fields[0].value else { panic!("no text") };
    assert!(value.starts_with("v\u{fffd}"), "{value}");
}

#[derive(Default)]
struct Kept(Mutex<Vec<LogPush>>);

impl LogAppender for Kept {
    fn marks(&self, files: &[String]) -> Result<Vec<u64>, AppendError> {
        Ok(vec![0; files.len()])
    }

    fn append(&self, push: LogPush, _: LogTime) -> Result<LogAppendReport, AppendError> {
        self.0.lock().unwrap().push(push);
        Ok(LogAppendReport::default())
    }
}

async fn sent(headers: &[(&str, &str)], body: Vec<u8>) -> (u16, Vec<String>) {
    let kept = Arc::new(Kept::default());
    let logs: Arc<dyn LogAppender> = kept.clone();
    let intake = super::super::doubles::intake_of(logs);
    let mut request = Request::builder().header("content-length", body.len());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = handle(State(intake), request.body(Body::from(body)).unwrap()).await;
    let status = match answer {
        Ok(status) => status,
        Err(refusal) => axum::response::IntoResponse::into_response(refusal).status(),
    };
    let lines = kept.0.lock().unwrap().iter().flat_map(shown).collect();
    (status.as_u16(), lines)
}

#[tokio::test]
async fn the_door_takes_json_gzip_and_snappy() {
    let json = br#"{"streams":[{"stream":{"app":"a"},"values":[["1","x"]]}]}"#.to_vec();
    let want = (204, vec!["app=a,service=a | 1 | x |  | ".to_owned()]);
    assert_eq!(sent(&[("content-type", "application/json; charset=utf-8")], json.clone()).await, want);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&json).unwrap();
    let gzip = gzip.finish().unwrap();
    let headers = [("content-type", "application/json"), ("content-encoding", "gzip")];
    assert_eq!(sent(&headers, gzip).await, want);
    let protobuf = encoded(&[(r#"{app="a"}"#, &[(1, "x", &[])])]);
    let snappy = snap::raw::Encoder::new().compress_vec(&protobuf).unwrap();
    assert_eq!(sent(&[("content-type", "application/x-protobuf")], snappy.clone()).await, want);
    assert_eq!(sent(&[("content-encoding", "snappy")], snappy).await, want);
    assert_eq!(sent(&[], b"nope".to_vec()).await.0, 400);
    assert_eq!(sent(&[("content-encoding", "br")], Vec::new()).await.0, 415);
}

proptest! {
    #[test]
    fn no_body_panics(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = (try_read(&body, false), try_read(&body, true));
    }

    #[test]
    fn no_near_body_panics(labels in "[{}a-c=\",\\\\x0 `]{0,20}", line in ".{0,20}", cut in 0usize..60) {
        let mut body = encoded(&[(&labels, &[(1, &line, &[("a", "b")])])]);
        body.truncate(body.len().saturating_sub(cut));
        try_read(&body, false);
    }

    #[test]
    fn no_near_json_panics(text in r#"(\{"streams":\[\{)?["a-c:,\[\]{}\\streamvalues0-9]{0,60}"#) {
        try_read(text.as_bytes(), true);
    }
}
