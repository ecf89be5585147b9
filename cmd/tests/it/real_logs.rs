//! Every line of every file of real logs, in by each door and out byte for byte, in order: from the open page, from the
//! write-ahead log after a kill, and from sealed pages. The files lie outside of this repository; where they are not
//! found, the test says so and passes.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use binnacle_model::LogTime;
use binnacle_model::log_query::LogQuery;
use binnacle_model::push::{FileBatch, LogPush, Pair, PushEntry};
use binnacle_model::storage::{Deadline, LogOrder, LogRequest, LogSearcher};
use binnacle_model::time::Clock;
use prost::Message;
use serde_json::{Value, json};

use crate::real::{files, real};
use crate::support::{Server, client, get, poll};

/// The ways in.
const DOORS: [&str; 5] = ["collect", "loki", "bulk", "otlp", "ndjson"];

/// Bytes of messages in one request, about.
const REQUEST_BYTES: usize = 512 * 1024;

/// Lines side by side of one moment: what keeps them in order is not their time.
const OF_ONE_MOMENT: usize = 3;

/// A file of lines.
pub(crate) struct RealFile {
    /// Its path below the folder of logs.
    pub(crate) name: String,
    /// What stands between line feeds; a carriage return stays. Joined by line feeds they are the file.
    pub(crate) lines: Vec<Vec<u8>>,
}

/// All files of real logs, by their names.
pub(crate) fn corpus() -> Option<Vec<RealFile>> {
    let dir = real("logs")?;
    let mut found = Vec::new();
    for path in files(&dir, "") {
        let bytes = std::fs::read(&path).unwrap();
        let lines: Vec<Vec<u8>> = bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        found.push(RealFile { name: path.strip_prefix(&dir).unwrap().display().to_string(), lines });
    }
    assert!(found.len() >= 100, "only {} files", found.len());
    assert!(found.iter().any(|file| file.lines.iter().any(|line| std::str::from_utf8(line).is_err())));
    Some(found)
}

/// What one door is sent: files, and when their first lines were written.
struct Sent<'f> {
    door: &'static str,
    files: Vec<(&'f RealFile, i64)>,
}

impl Sent<'_> {
    /// The lines with their times; without what JSON cannot hold, if the door takes nothing else.
    fn lines(&self) -> impl Iterator<Item = (&RealFile, Vec<(i64, &[u8])>)> {
        self.files.iter().map(|(file, start)| {
            let lines = file.lines.iter().enumerate();
            let timed = lines.map(|(at, line)| (start + (at / OF_ONE_MOMENT) as i64 * 1001, line.as_slice()));
            (*file, timed.filter(|(_, line)| takes(self.door, line)).collect())
        })
    }
}

fn takes(door: &str, line: &[u8]) -> bool {
    matches!(door, "collect" | "otlp") || std::str::from_utf8(line).is_ok()
}

fn text(line: &[u8]) -> &str {
    std::str::from_utf8(line).unwrap()
}

fn collect_body(sent: &Sent<'_>) -> Vec<u8> {
    let batch = |(file, lines): (&RealFile, Vec<(i64, &[u8])>)| {
        let mut offset = 0;
        let entries = lines.into_iter().map(|(time_ns, line)| {
            offset += line.len() as u64 + 1;
            let offset = offset - line.len() as u64 - 1;
            PushEntry { time_ns, offset, message: line.to_vec(), ..PushEntry::default() }
        });
        let entries: Vec<PushEntry> = entries.collect();
        let pair = |name: &str, value: &str| Pair { name: name.to_owned(), value: value.to_owned() };
        let stream = vec![pair("container", &file.name), pair("service", sent.door)];
        FileBatch {
            file: file.name.clone(),
            from: 0,
            to: offset,
            stream,
            entries,
            shared: Vec::new(),
            is_whole: false,
        }
    };
    let push = LogPush { batches: sent.lines().map(batch).collect() };
    snap::raw::Encoder::new().compress_vec(&push.encode_to_vec()).unwrap()
}

fn loki_body(sent: &Sent<'_>) -> Vec<u8> {
    let stream = |(file, lines): (&RealFile, Vec<(i64, &[u8])>)| {
        let values: Vec<Value> =
            lines.iter().map(|(time, line)| json!([time.to_string(), text(line)])).collect();
        json!({ "stream": { "container": file.name, "service": sent.door }, "values": values })
    };
    json!({ "streams": sent.lines().map(stream).collect::<Vec<_>>() }).to_string().into_bytes()
}

/// Documents in the form that Filebeat sends.
fn bulk_body(sent: &Sent<'_>) -> Vec<u8> {
    let mut body = String::new();
    for (file, lines) in sent.lines() {
        for (at, (time, line)) in lines.into_iter().enumerate() {
            let document = json!({
                "@timestamp": LogTime(time).to_rfc3339(),
                "message": text(line),
                "log": { "offset": at, "file": { "path": file.name } },
                "service": { "name": sent.door },
                "kubernetes": { "container": { "name": file.name }, "labels": { "app_kubernetes_io/part-of": "x" } },
            });
            writeln!(body, "{}\n{document}", json!({ "create": { "_index": "filebeat-9" } })).unwrap();
        }
    }
    body.into_bytes()
}

fn ndjson_body(sent: &Sent<'_>) -> Vec<u8> {
    let mut body = String::new();
    for (file, lines) in sent.lines() {
        for (time, line) in lines {
            let line =
                json!({ "_time": time, "_msg": text(line), "container": file.name, "service": sent.door });
            writeln!(body, "{line}").unwrap();
        }
    }
    body.into_bytes()
}

fn otlp_body(sent: &Sent<'_>) -> Vec<u8> {
    let resource = |(file, lines): (&RealFile, Vec<(i64, &[u8])>)| {
        let records = lines.into_iter().map(|(time, line)| {
            let body = match std::str::from_utf8(line) {
                Ok(text) => json!({ "stringValue": text }),
                Err(_) => json!({ "bytesValue": BASE64_STANDARD.encode(line) }),
            };
            json!({ "timeUnixNano": time.to_string(), "body": body })
        });
        let attribute = |key: &str, value: &str| json!({ "key": key, "value": { "stringValue": value } });
        json!({
            "resource": { "attributes": [
                attribute("k8s.container.name", &file.name),
                attribute("service.name", sent.door),
            ] },
            "scopeLogs": [{ "logRecords": records.collect::<Vec<_>>() }],
        })
    };
    json!({ "resourceLogs": sent.lines().map(resource).collect::<Vec<_>>() }).to_string().into_bytes()
}

async fn send(server: &Server, sent: &Sent<'_>) {
    let (path, kind, body) = match sent.door {
        "collect" => ("/api/collect/logs", "application/x-protobuf", collect_body(sent)),
        "loki" => ("/loki/api/v1/push", "application/json", loki_body(sent)),
        "bulk" => ("/elastic/_bulk", "application/x-ndjson", bulk_body(sent)),
        "otlp" => ("/v1/logs", "application/json", otlp_body(sent)),
        _ => ("/api/logs/ndjson", "application/x-ndjson", ndjson_body(sent)),
    };
    let mut request = client().post(format!("{}{path}", server.url)).header("Content-Type", kind).body(body);
    if sent.door == "collect" {
        request = request.header("Content-Encoding", "snappy");
    }
    let answer = request.send().await.unwrap();
    let (status, said) = (answer.status().as_u16(), answer.text().await.unwrap());
    assert!(matches!(status, 200 | 204), "{}: {status} {said}", sent.door);
    assert!(!said.contains("\"errors\":true") && !said.contains("rejected"), "{}: {said}", sent.door);
}

/// Messages by door and file, in the order in which they were found.
type Found = BTreeMap<(String, String), Vec<Vec<u8>>>;

/// What was sent, as `shown`.
fn expected(corpus: &[RealFile], shown: impl Fn(&[u8]) -> Vec<u8>) -> Found {
    let mut found = Found::new();
    for door in DOORS {
        for file in corpus {
            let lines: Vec<Vec<u8>> =
                file.lines.iter().filter(|line| takes(door, line)).map(|line| shown(line)).collect();
            if !lines.is_empty() {
                found.insert((door.to_owned(), file.name.clone()), lines);
            }
        }
    }
    found
}

fn compare(found: &Found, want: &Found, when: &str) {
    let keys = |of: &Found| of.keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(found), keys(want), "{when}");
    for (place, lines) in want {
        let found = &found[place];
        let at = lines.iter().zip(found).position(|(want, found)| want != found);
        if let Some(at) = at {
            let shown = |line: &[u8]| line.escape_ascii().to_string();
            panic!("{when}: {place:?}, line {}: {} is {}", at + 1, shown(&lines[at]), shown(&found[at]));
        }
        assert_eq!(found.len(), lines.len(), "{when}: {place:?}");
    }
}

/// Everything that the API exports, what is no UTF-8 replaced.
async fn exported(server: &Server) -> Found {
    let url = format!("{}/api/logs/export?start=now-1d&order=oldest&q=*", server.url);
    let text = client().get(url).send().await.unwrap().text().await.unwrap();
    let mut found = Found::new();
    let mut trailer = Value::Null;
    for line in text.lines() {
        let mut entry: Value = serde_json::from_str(line).unwrap();
        if entry.get("trailer").is_some() {
            trailer = entry["trailer"].take();
            continue;
        }
        let label = |name: &str| entry["stream"][name].as_str().unwrap().to_owned();
        let place = (label("service"), label("container"));
        found.entry(place).or_default().push(entry["message"].as_str().unwrap().as_bytes().to_vec());
    }
    assert_eq!(trailer["status"], "success", "{trailer}");
    found
}

/// Ends the process in order.
fn terminate(mut server: Server) {
    let pid = server.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert!(server.child.wait().unwrap().success());
}

struct MachineClock;

impl Clock for MachineClock {
    #[allow(clippy::disallowed_methods, reason = "the server before it ran on the machine's clock")]
    fn now_ns(&self) -> LogTime {
        LogTime(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as i64)
    }
}

/// Everything that the files of a server that ended hold.
fn stored(data: &Path) -> Found {
    let store = binnacle_store::Store::open(
        data,
        binnacle_store::Options::default(),
        Arc::new(MachineClock),
        binnacle_store::Telemetry::default(),
    );
    let store = store.unwrap();
    let mut found = Found::new();
    let request = LogRequest { query: LogQuery::All, start: LogTime(0), end: LogTime(i64::MAX) };
    let warnings = store.scan(&request, LogOrder::OldestFirst, &Deadline::default(), &mut |_, entry| {
        let place = (entry.stream.value("service").to_owned(), entry.stream.value("container").to_owned());
        found.entry(place).or_default().push(entry.message);
        ControlFlow::Continue(())
    });
    assert!(warnings.unwrap().is_empty());
    store.close();
    found
}

async fn total(server: &Server) -> Option<u64> {
    let (_, answer) = get(&format!("{}/api/logs/search?limit=1&start=now-1d&q=*", server.url)).await;
    answer["data"]["total"].as_u64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_real_line_comes_out_as_it_went_in() {
    let Some(corpus) = corpus() else { return };
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let mut start = MachineClock.now_ns().0 - 3_600_000_000_000;
    for door in DOORS {
        let mut sent = Sent { door, files: Vec::new() };
        let mut bytes = 0;
        for file in &corpus {
            sent.files.push((file, start));
            // Files overlap in time.
            start += 1_000_000;
            bytes += file.lines.iter().map(Vec::len).sum::<usize>();
            if bytes > REQUEST_BYTES {
                send(&server, &sent).await;
                (sent.files, bytes) = (Vec::new(), 0);
            }
        }
        send(&server, &sent).await;
    }
    let want = expected(&corpus, |line| String::from_utf8_lossy(line).into_owned().into_bytes());
    let lines: usize = want.values().map(Vec::len).sum();
    assert!(lines > 100_000, "only {lines} lines");
    let all = async |server: &Server| (total(server).await? == lines as u64).then_some(());
    poll("all lines", async || all(&server).await).await;
    compare(&exported(&server).await, &want, "as it came");
    server.kill();
    let server = Server::start(dir.path(), &[]);
    assert_eq!(total(&server).await, Some(lines as u64));
    compare(&exported(&server).await, &want, "after a kill");
    terminate(server);
    assert!(!files(&dir.path().join("logs"), ".page").is_empty(), "nothing was sealed");
    let server = Server::start(dir.path(), &[]);
    assert_eq!(total(&server).await, Some(lines as u64));
    compare(&exported(&server).await, &want, "sealed");
    terminate(server);
    compare(&stored(dir.path()), &expected(&corpus, <[u8]>::to_vec), "in the files");
}
