//! Receivers in this process that answer what receivers answer on bad days.

use std::collections::{BTreeMap, HashSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use binnacle_model::push::Pair;
use serde_json::Value;

use super::*;
use crate::intake::otlp_messages::LogsRequest;
use crate::intake::{try_read_loki, try_read_otlp_logs};

/// What a receiver answers; without a status it closes the connection.
type Reply = (Option<u16>, &'static str, Vec<u8>);

/// A receiver that asks `answer` about the unpacked body of each request.
fn receiver(answer: impl Fn(&[u8]) -> Reply + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut line, mut head) = (String::new(), String::new());
            while reader.read_line(&mut line).is_ok_and(|read| read > 0) && line.trim() != "" {
                head.push_str(&line.to_ascii_lowercase());
                line.clear();
            }
            let length = head
                .split("content-length: ")
                .nth(1)
                .and_then(|rest| rest.lines().next()?.trim().parse().ok());
            let mut body = vec![0; length.unwrap_or(0)];
            reader.read_exact(&mut body).unwrap();
            if head.contains("content-encoding: gzip") {
                let mut plain = Vec::new();
                flate2::read::GzDecoder::new(&*body).read_to_end(&mut plain).unwrap();
                body = plain;
            } else {
                body = snap::raw::Decoder::new().decompress_vec(&body).unwrap();
            }
            let (status, headers, text) = answer(&body);
            let Some(status) = status else { continue };
            let head = format!(
                "HTTP/1.1 {status} X\r\n{headers}connection: close\r\ncontent-length: {}\r\n\r\n",
                text.len()
            );
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&text));
        }
    });
    url
}

/// A pack of one file with these messages.
fn pack(messages: &[&str]) -> Vec<u8> {
    let entry = |(at, message): (usize, &&str)| PushEntry {
        time_ns: 1_700_000_000_123_456_789 + at as i64,
        offset: at as u64 * 100,
        message: message.as_bytes().to_vec(),
        level: "warn".to_owned(),
        iostream: "stderr".to_owned(),
        fields: vec![PushField::new("truncated".into(), FieldValue::Bool(true))],
        shared: 0,
    };
    let pair = |name: &str, value: &str| Pair { name: name.into(), value: value.into() };
    let batch = FileBatch {
        file: "node/f00".to_owned(),
        from: 0,
        to: messages.len() as u64 * 100,
        stream: vec![
            pair("namespace", "shop"),
            pair("node", "n1"),
            pair("service", "a\"b"),
            pair("zone", "z"),
        ],
        entries: messages.iter().enumerate().map(entry).collect(),
        ..FileBatch::default()
    };
    LogPush { batches: vec![batch] }.encode_to_vec()
}

/// Sends a pack until it is settled; answers what came of it, and the errors on the way.
fn send(yaml: &str, wire: &[u8]) -> (LogAppendReport, Vec<String>, BTreeMap<String, u64>) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let raw: RawSend = serde_saphyr::from_str(&format!("{{logs: {yaml}}}")).unwrap();
    let target = raw.check(Path::new(".")).unwrap().logs.unwrap();
    let telemetry = Telemetry::default();
    let logs = Logs::new(&target, runtime.handle().clone(), telemetry.clone()).unwrap();
    let mut errors = Vec::new();
    let report = loop {
        match logs.send(wire) {
            Ok(report) => break report,
            Err(AppendError::Full { retry_after, .. }) => errors.push(format!("full {retry_after:?}")),
            Err(AppendError::Unavailable(reason)) => errors.push(reason),
            Err(AppendError::Invalid(reason) | AppendError::Overtaken(reason)) => panic!("{reason}"),
        }
        assert!(errors.len() < 10, "{errors:?}");
    };
    let reasons = ["too_old", "too_large", "rejected", "mapper_parsing_exception"];
    let refused = reasons.map(|reason| (reason.to_owned(), telemetry.refused(reason).get()));
    assert_eq!(telemetry.lines_sent.get(), report.appended as u64);
    (report, errors, refused.into_iter().filter(|(_, count)| *count > 0).collect())
}

/// Bodies of requests.
type Seen = Arc<Mutex<Vec<Vec<u8>>>>;

/// Keeps bodies, and answers the replies of a list in turn; the last one again and again.
fn script(replies: Vec<Reply>) -> (impl Fn(&[u8]) -> Reply + Send, Seen) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&seen);
    let answer = move |body: &[u8]| {
        let mut seen = seen.lock().unwrap();
        seen.push(body.to_vec());
        replies[(seen.len() - 1).min(replies.len() - 1)].clone()
    };
    (answer, kept)
}

const FIVE: [&str; 5] = ["one", "two", "three", "four", "five"];

#[test]
fn a_receiver_that_is_away_or_busy_is_asked_again() {
    let (answer, seen) = script(vec![
        (Some(429), "retry-after: 3\r\n", Vec::new()),
        (Some(500), "", b"oh no".to_vec()),
        (Some(503), "", Vec::new()),
        (Some(401), "", b"who?".to_vec()),
        // Of servers before it.
        (Some(400), "content-type: text/html\r\n", b"<h1>400</h1>".to_vec()),
        (Some(400), "", b"Client sent an HTTP request to an HTTPS server.\n".to_vec()),
        (None, "", Vec::new()),
        (Some(204), "", Vec::new()),
    ]);
    let url = receiver(answer);
    let (report, errors, refused) = send(&format!("{{loki: {{url: '{url}'}}}}"), &pack(&FIVE));
    assert_eq!((report.appended, report.duplicate, refused.len()), (5, 0, 0));
    assert_eq!((errors.len(), &*errors[0], &*errors[1]), (7, "full 3s", "500 Internal Server Error: oh no"));
    assert!(errors[3].starts_with("401"), "{errors:?}");
    let seen = seen.lock().unwrap();
    assert!(seen.iter().all(|body| body == &seen[0] && try_read_loki(body, false) == 5));
}

#[test]
fn packs_of_several_inputs_are_remembered_side_by_side() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let target = LogTarget::otlp("http://127.0.0.1:9").unwrap();
    let logs = Logs::new(&target, runtime.handle().clone(), Telemetry::default()).unwrap();
    for pack in 0..=PACKS_MAX as u128 {
        let mut progress = logs.take_up(pack, 2);
        progress.settled[1] = true;
        logs.put_off(progress);
    }
    assert_eq!(logs.take_up(1, 2).settled, [false, true]);
    assert_eq!(logs.take_up(1, 2).settled, [false, false], "somebody has it");
    assert_eq!(logs.take_up(2, 3).settled, [false; 3], "another one with its hash");
    assert_eq!(logs.take_up(0, 2).settled, [false; 2], "the one that was tried longest ago is forgotten");
}

#[test]
fn a_receiver_that_hangs_is_left() {
    let (answer, _) = script(vec![(Some(200), "", Vec::new())]);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let waits = std::thread::spawn(move || {
        send(&format!("{{otlp: {{url: 'http://{address}', timeout: 50ms}}}}"), &pack(&FIVE))
    });
    // It took the connection and said nothing; then another one stands in its place.
    let _first = silent.accept().unwrap();
    let other = receiver(answer);
    let other = other.trim_start_matches("http://").to_owned();
    std::thread::spawn(move || {
        for stream in silent.incoming() {
            let (Ok(mut from), Ok(mut to)) = (stream, std::net::TcpStream::connect(&other)) else { return };
            let (mut back, mut there) = (to.try_clone().unwrap(), from.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            std::thread::spawn(move || std::io::copy(&mut back, &mut there));
        }
    });
    let (report, errors, _) = waits.join().unwrap();
    assert!(report.appended == 5 && !errors.is_empty(), "{errors:?}");
}

#[test]
fn what_will_never_be_taken_is_counted_by_reason() {
    let far = b"entry with timestamp 2023 ignored, reason: 'entry too far behind', total ignored: 2 out of 5"
        .to_vec();
    let url = receiver(script(vec![(Some(400), "", far)]).0);
    let (report, errors, refused) = send(&format!("{{loki: {{url: '{url}'}}}}"), &pack(&FIVE));
    assert_eq!((report.appended, errors.len(), refused["too_old"]), (3, 0, 2));

    let partial = vec![0x0a, 0x07, 0x08, 0x02, 0x12, 0x03, b'b', b'a', b'd'];
    let url = receiver(script(vec![(Some(200), "", partial)]).0);
    let (report, _, refused) = send(&format!("{{otlp: {{url: '{url}'}}}}"), &pack(&FIVE));
    assert_eq!((report.appended, refused["rejected"]), (3, 2));

    // One that spoils the request is found, and the others are taken.
    let taken = Arc::new(Mutex::new(0));
    let kept = Arc::clone(&taken);
    let url = receiver(move |body| {
        if body.windows(4).any(|part| part == b"four") {
            return (Some(400), "", b"no".to_vec());
        }
        *taken.lock().unwrap() += try_read_otlp_logs(body, false);
        (Some(200), "", Vec::new())
    });
    let (report, _, refused) = send(&format!("{{otlp: {{url: '{url}'}}}}"), &pack(&FIVE));
    assert_eq!((report.appended, refused["rejected"], *kept.lock().unwrap()), (4, 1, 4));

    let url = receiver(|body| (Some(if body.len() > 400 { 413 } else { 204 }), "", Vec::new()));
    let long = "x".repeat(1000);
    let (report, _, refused) = send(&format!("{{loki: {{url: '{url}'}}}}"), &pack(&["a", &long, "b"]));
    assert_eq!((report.appended, refused["too_large"]), (2, 1));
}

#[test]
fn what_was_taken_of_a_pack_is_not_sent_again() {
    let many: Vec<String> = (0..REQUEST_ENTRIES + 10).map(|at| format!("line {at}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let (answer, seen) =
        script(vec![(Some(200), "", Vec::new()), (Some(500), "", Vec::new()), (Some(200), "", Vec::new())]);
    let url = receiver(answer);
    let (report, errors, _) = send(&format!("{{otlp: {{url: '{url}'}}}}"), &pack(&many));
    assert_eq!((report.appended, errors.len()), (many.len(), 1));
    let counts: Vec<usize> =
        seen.lock().unwrap().iter().map(|body| try_read_otlp_logs(body, false)).collect();
    assert!(counts.len() == 3 && counts[0] + counts[1] == many.len() && counts[1] == counts[2], "{counts:?}");
}

/// A store that knows ids, refuses a document, has no room for another and no right for a third at first, and dies after it
/// had all.
#[test]
fn elasticsearch_has_each_line_once() {
    let seen = Arc::new(Mutex::new((HashSet::<String>::new(), Vec::<Value>::new(), 0)));
    let kept = Arc::clone(&seen);
    let url = receiver(move |body| {
        let mut seen = seen.lock().unwrap();
        seen.2 += 1;
        let lines: Vec<Value> = body
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect();
        let mut items = Vec::new();
        for pair in lines.chunks(2) {
            let id = pair[0]["create"]["_id"].as_str().unwrap().to_owned();
            let status = match pair[1]["message"].as_str().unwrap() {
                "poison" => 400,
                "busy" if seen.2 < 3 => 429,
                "closed" if seen.2 < 4 => 403,
                _ if !seen.0.insert(id) => 409,
                _ => {
                    seen.1.push(pair[1].clone());
                    201
                }
            };
            items.push(serde_json::json!({ "create": { "status": status, "error": { "type": "mapper_parsing_exception" } } }));
        }
        if seen.2 == 1 {
            return (None, "", Vec::new());
        }
        let answer = serde_json::json!({ "took": 1, "errors": true, "items": items });
        (Some(200), "", answer.to_string().into_bytes())
    });
    let wire = pack(&["one", "poison", "busy", "closed", "two"]);
    let (report, errors, refused) = send(&format!("{{elasticsearch: {{url: '{url}', index: logs}}}}"), &wire);
    // The first answer was lost with all that it said of.
    assert_eq!((report.appended, report.duplicate, refused["mapper_parsing_exception"]), (2, 2, 1));
    assert!(errors.len() == 3 && errors[1].contains("status 403"), "{errors:?}");
    let seen = kept.lock().unwrap();
    let messages: Vec<&str> = seen.1.iter().map(|one| one["message"].as_str().unwrap()).collect();
    assert_eq!(messages, ["one", "two", "busy", "closed"]);
    let want = serde_json::json!({
        "@timestamp": "2023-11-14T22:13:20.123456789Z",
        "message": "one",
        "log": { "level": "warn", "offset": 0 },
        "stream": "stderr",
        "host": { "name": "n1" },
        "kubernetes": { "namespace": "shop", "node": { "name": "n1" } },
        "service": { "name": "a\"b" },
        "labels": { "zone": "z" },
        "truncated": true,
    });
    assert_eq!(seen.1[0], want);
}

#[test]
fn otlp_keeps_bytes_that_are_no_text() {
    let mut push = LogPush::decode(&*pack(&["x"])).unwrap();
    push.batches[0].entries[0].message = b"\xff\xfe".to_vec();
    let (answer, seen) = script(vec![(Some(200), "", Vec::new())]);
    let url = receiver(answer);
    send(&format!("{{otlp: {{url: '{url}'}}}}"), &push.encode_to_vec());
    let request = LogsRequest::decode(&*seen.lock().unwrap()[0]).unwrap();
    let resource = &request.resource_logs[0];
    let record = &resource.scope_logs[0].log_records[0];
    assert_eq!(record.body.as_ref().unwrap().bytes_value.as_deref(), Some(&b"\xff\xfe"[..]));
    assert_eq!((record.severity_number, &*record.severity_text), (13, "warn"));
    let names: Vec<&str> =
        resource.resource.as_ref().unwrap().attributes.iter().map(|one| &*one.key).collect();
    assert_eq!(names, ["k8s.namespace.name", "k8s.node.name", "service.name", "zone"]);
}

#[test]
fn a_timeout_is_a_duration() {
    let raw: RawSend = serde_saphyr::from_str("{logs: {otlp: {url: 'http://a', timeout: 50ms}}}").unwrap();
    let target = raw.check(Path::new(".")).unwrap().logs.unwrap();
    assert_eq!(target.timeout, Duration::from_millis(50));
}
