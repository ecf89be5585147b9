//! `binnacle export logs --parquet`: what DuckDB and Apache Arrow read is what the server has.

use std::fmt::Write;
use std::path::Path;

use binnacle_model::push::{FileBatch, LogPush, Pair, PushEntry};
use prost::Message;
use serde_json::{Value, json};

use crate::house::root;
use crate::shippers::{python, texts};
use crate::support::{Server, binnacle, client, get, poll};

const LINES: usize = 2000;

/// Lines of JSON with attributes, and one that is no UTF-8.
async fn fill(server: &Server) {
    let mut body = String::new();
    for (at, text) in texts().iter().cycle().take(LINES).enumerate() {
        let line = json!({
            "_msg": text, "pod": format!("web-{}", at % 3), "namespace": "shop", "trace_id": format!("{at:032x}"),
            "n": at, "ratio": 0.5, "ok": at % 2 == 0, "level": if at % 5 == 0 { "error" } else { "" },
        });
        writeln!(body, "{line}").unwrap();
    }
    let sent = client().post(format!("{}/api/logs/ndjson", server.url)).body(body).send().await.unwrap();
    assert_eq!(sent.status().as_u16(), 200);
    // Durable comes before found.
    let time = poll("a line", async || {
        let (_, answer) = get(&format!("{}/api/logs/search?limit=1&q=*", server.url)).await;
        answer["data"]["entries"][0]["time_ns"].as_str()?.parse::<i64>().ok()
    })
    .await;
    let message = b"\xffno text\xfe".to_vec();
    let entry = PushEntry { time_ns: time + 7, message, ..PushEntry::default() };
    let stream = vec![Pair { name: "pod".to_owned(), value: "raw".to_owned() }];
    let batch = FileBatch {
        file: "f".to_owned(),
        from: 0,
        to: 1,
        stream,
        entries: vec![entry],
        shared: Vec::new(),
        is_whole: false,
    };
    let body = LogPush { batches: vec![batch] }.encode_to_vec();
    let sent = client().post(format!("{}/api/collect/logs", server.url)).body(body).send().await.unwrap();
    assert_eq!(sent.status().as_u16(), 200);
    poll("all lines", async || {
        let (_, answer) = get(&format!("{}/api/logs/search?limit=1&q=*", server.url)).await;
        (answer["data"]["total"] == LINES as u64 + 1).then_some(())
    })
    .await;
}

/// Ends as the command does; what it said.
fn export(server: &Server, more: &[&str]) -> (bool, String) {
    let output = binnacle().args(["export", "logs", "", "--url", &server.url]).args(more).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn read(python: &Path, file: &Path) -> Option<Value> {
    let script = root().join("cmd/tests/shippers/read_parquet.py");
    let output = std::process::Command::new(python).arg(script).arg(file).output().unwrap();
    if output.status.code() == Some(77) {
        println!("SKIPPED 1: {}; see `make shippers`", String::from_utf8_lossy(&output.stdout).trim());
        return None;
    }
    assert!(output.status.success(), "{output:?}");
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

/// A row as the readers have it.
fn row(entry: &Value) -> Value {
    let number = |name: &str| entry[name].as_str().unwrap().parse::<i64>().unwrap();
    let (stream, fields) = (&entry["stream"], &entry["fields"]);
    let level = Some(&entry["level"]).filter(|level| **level != "").unwrap_or(&Value::Null);
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let fields_as_text: serde_json::Map<String, Value> =
        fields.as_object().unwrap().iter().map(|(name, value)| (name.clone(), text(value).into())).collect();
    let hex = entry["message_hex"].as_str().map(str::to_uppercase);
    json!([
        number("time_ns"),
        number("received_ns"),
        entry["message"],
        level,
        stream["namespace"],
        stream["pod"],
        stream["container"],
        stream["service"],
        stream["iostream"],
        fields["trace_id"],
        fields["span_id"],
        hex,
        stream,
        fields_as_text,
    ])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn columns_hold_what_lines_say() {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"), &[]);
    fill(&server).await;
    let (columns, lines) = (dir.path().join("logs.parquet"), dir.path().join("logs.ndjson"));
    let (done, said) = export(&server, &["--parquet", columns.to_str().unwrap()]);
    assert!(done && said.contains("2001 lines"), "{said}");
    let (done, said) = export(&server, &["--output", lines.to_str().unwrap()]);
    assert!(done, "{said}");
    let text = std::fs::read_to_string(&lines).unwrap();
    let want: Vec<Value> = text.lines().map(|line| row(&serde_json::from_str(line).unwrap())).collect();
    let Some(found) = read(&python, &columns) else { return };
    let found = found["rows"].as_array().unwrap();
    assert_eq!(found.len(), want.len());
    for (found, want) in found.iter().zip(&want) {
        assert_eq!(found, want);
    }
    let (done, said) = export(&server, &["--parquet", columns.to_str().unwrap()]);
    assert!(!done && said.contains("is there already"), "{said}");
    server.kill();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_file_is_left_of_an_export_that_fails() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"), &[]);
    let path = dir.path().join("logs.parquet");
    let (done, said) = export(&server, &["--parquet", "-"]);
    assert!(!done && said.contains("standard output"), "{said}");
    let (done, said) = export(&server, &["--parquet", path.to_str().unwrap(), "--format", "csv"]);
    assert!(!done && said.contains("cannot be used with"), "{said}");
    let (done, said) = export(&server, &["--parquet", path.to_str().unwrap(), "--since", "no time"]);
    assert!(!done, "{said}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "only the data are there");
    server.kill();
}
