//! Real records with labels and attributes, in a store that has a closed partition, sealed pages and an open one.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use binnacle_model::LogTime;
use binnacle_model::log::FieldValue;
use binnacle_model::push::{FileBatch, LogPush, Pair, PushEntry, PushField};
use binnacle_model::storage::LogAppender;
use binnacle_model::time::Clock;
use binnacle_store::{Options, Store, Telemetry};
use serde_json::{Map, Value, json};

use super::words::{Held, fields, words};
use crate::real_logs::{RealFile, corpus};

pub(super) const START: i64 = 1_763_892_600_000_000_000;

/// Of every log so many lines pass before one is taken.
const EVERY: usize = 8;

/// Between lines of different files.
const STEP_NS: i64 = 500_000_007;

const DAY_NS: i64 = 86_400_000_000_000;

/// A line with what was said beside it.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) time: i64,
    pub(super) offset: u64,
    pub(super) text: String,
    pub(super) words: Vec<String>,
    /// Of its stream.
    pub(super) labels: BTreeMap<String, String>,
    pub(super) level: String,
    pub(super) attributes: Vec<(String, Held)>,
    /// Attributes, then what the message holds.
    pub(super) fields: Vec<(String, Held)>,
}

/// A line before it has a time and a place.
struct Line {
    text: String,
    level: &'static str,
    attributes: Vec<(String, Held)>,
}

impl Line {
    fn plain(text: &str) -> Self {
        Self { text: text.to_owned(), level: "", attributes: Vec::new() }
    }
}

/// Cells of a line of CSV.
fn cells(line: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    let mut is_quoted = false;
    let mut chars = line.trim_end_matches('\r').chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if is_quoted && chars.peek() == Some(&'"') => found.last_mut().unwrap().extend(chars.next()),
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => found.push(String::new()),
            c => found.last_mut().unwrap().push(c),
        }
    }
    found
}

fn level(said: &str) -> &'static str {
    match said.to_ascii_lowercase().as_str() {
        "info" => "info",
        "warn" | "warning" => "warn",
        "error" => "error",
        "fatal" => "fatal",
        _ => "",
    }
}

fn held(text: &str) -> Held {
    match text.parse::<i64>() {
        Ok(whole) if whole.to_string() == text => Held::Number(whole as f64, text.to_owned()),
        _ => Held::Text(text.to_owned()),
    }
}

/// Rows of a system as programs write them: text with attributes, an object of JSON, or logfmt.
fn structured(log: &RealFile, rows: &RealFile, form: usize) -> Vec<Line> {
    let text = |line: &Vec<u8>| String::from_utf8(line.clone()).unwrap();
    let names = cells(&text(&rows.lines[0]));
    let pairs = log.lines.iter().zip(&rows.lines[1..]).filter(|(line, _)| !line.is_empty()).step_by(EVERY);
    let line = |(line, row): (&Vec<u8>, &Vec<u8>)| {
        let cells = cells(&text(row));
        let of = |name: &str| names.iter().position(|one| one == name).map_or("", |at| cells[at].as_str());
        let level = level(of("Level"));
        let said =
            names.iter().zip(&cells).filter(|(name, cell)| *name != "EventTemplate" && !cell.is_empty());
        match form {
            0 => {
                let beside = said.filter(|(name, _)| *name != "Content" && *name != "Time");
                let attributes = beside.map(|(name, cell)| (format!("row.{name}"), held(cell))).collect();
                Line { text: text(line), level, attributes }
            }
            1 => {
                let mut object = Map::new();
                let mut inner = Map::new();
                for (name, cell) in said {
                    let value = match held(cell) {
                        Held::Number(number, _) => json!(number as i64),
                        other => Value::from(other.shown()),
                    };
                    let into = if name.len() > 5 { &mut inner } else { &mut object };
                    into.insert(name.clone(), value);
                }
                object.insert("row".to_owned(), inner.into());
                object.insert("is_first".to_owned(), (of("LineId") == "1").into());
                Line { text: Value::from(object).to_string(), level, attributes: Vec::new() }
            }
            _ => {
                let pair = |(name, cell): (&String, &String)| {
                    let is_plain =
                        !cell.contains(|c: char| c.is_whitespace() || matches!(c, '"' | '=' | '\\'));
                    let cell = if is_plain { cell.clone() } else { Value::from(cell.as_str()).to_string() };
                    format!("{name}={cell}")
                };
                let text = said.map(pair).collect::<Vec<_>>().join(" ");
                Line { text, level, attributes: Vec::new() }
            }
        }
    };
    pairs.map(line).collect()
}

/// Strings under a name, however deep.
fn strings(value: &Value, names: &[&str], found: &mut Vec<String>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| strings(value, names, found)),
        Value::Object(object) => {
            for (name, value) in object {
                let of_name = match value {
                    Value::Array(values) => values.iter().filter_map(Value::as_str).collect(),
                    Value::String(text) => vec![text.as_str()],
                    _ => Vec::new(),
                };
                if names.contains(&name.as_str()) {
                    found.extend(of_name.into_iter().map(str::to_owned));
                }
                strings(value, names, found);
            }
        }
        _ => {}
    }
}

/// Lines by their files.
fn lines(corpus: &[RealFile]) -> Vec<(String, Vec<Line>)> {
    let mut found = Vec::new();
    for (number, file) in corpus.iter().enumerate() {
        let utf8 = file.lines.iter().filter_map(|line| std::str::from_utf8(line).ok());
        let mut utf8 = utf8.filter(|line| !line.is_empty());
        let ends_with = |end: &str| file.name.ends_with(end);
        let lines: Vec<Line> = if ends_with("_2k.log") {
            let rows = corpus.iter().find(|one| one.name == format!("{}_structured.csv", file.name));
            match rows {
                Some(rows) => structured(file, rows, number % 3),
                None => utf8.step_by(EVERY).map(Line::plain).collect(),
            }
        } else if ends_with(".json") {
            let text: Vec<&str> = utf8.collect();
            let mut all = Vec::new();
            strings(
                &serde_json::from_str(&text.join("\n")).unwrap(),
                &["line", "lines", "expected", "log"],
                &mut all,
            );
            all.iter().filter(|text| !text.is_empty()).map(|text| Line::plain(text)).collect()
        } else if ends_with(".csv") || utf8.next().is_none() {
            continue;
        } else {
            let utf8 = file.lines.iter().filter_map(|line| std::str::from_utf8(line).ok());
            utf8.filter(|line| !line.is_empty()).map(Line::plain).collect()
        };
        found.push((file.name.clone(), lines));
    }
    found
}

fn labels(file: &str) -> BTreeMap<String, String> {
    let (folder, name) = file.rsplit_once('/').unwrap_or(("", file));
    let app = name.split(['_', '.', '-']).next().unwrap_or_default();
    let pairs = [
        ("namespace", folder.rsplit('/').next().unwrap_or_default()),
        ("container", name),
        ("app", app),
        ("service", app),
        ("cluster", "prod-eu-1"),
    ];
    let pairs = pairs.into_iter().filter(|(_, value)| !value.is_empty());
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn push_field((name, held): &(String, Held)) -> PushField {
    let value = match held {
        Held::Text(text) => FieldValue::Text(text.clone()),
        Held::Number(number, _) => FieldValue::Int(*number as i64),
        Held::Bool(flag) => FieldValue::Bool(*flag),
    };
    PushField::new(name.clone(), value)
}

/// Records, ascending by time and, within a file, by their offsets; and a store that has them.
pub(super) struct Bench {
    pub(super) records: Vec<Record>,
    pub(super) store: Store,
}

#[derive(Clone)]
struct SetClock(Arc<AtomicI64>);

impl Clock for SetClock {
    fn now_ns(&self) -> LogTime {
        LogTime(self.0.load(Ordering::Relaxed))
    }
}

/// Three parts of the lines of each file: those of the first lie in a closed partition, those of the second in sealed
/// pages, and those of the third are open.
pub(super) fn bench(dir: &Path) -> Option<Bench> {
    let corpus = corpus()?;
    let clock = SetClock(Arc::new(AtomicI64::new(START + DAY_NS / 2)));
    let open =
        || Store::open(dir, Options::default(), Arc::new(clock.clone()), Telemetry::default()).unwrap();
    let files = lines(&corpus);
    let mut store = open();
    let mut records = Vec::new();
    for part in 0..3 {
        let mut push = LogPush::default();
        for (number, (file, lines)) in files.iter().enumerate() {
            let (from, to) = (lines.len() * part / 3, lines.len() * (part + 1) / 3);
            let labels = labels(file);
            let pair = |(name, value): (&String, &String)| Pair { name: name.clone(), value: value.clone() };
            let mut entries = Vec::new();
            for (at, line) in lines.iter().enumerate().take(to).skip(from) {
                // Two lines of a file have the same time, and no two files have one in common.
                let time = START + ((at / 2) * files.len() + number) as i64 * STEP_NS;
                let record = record(line, &labels, time, at as u64);
                entries.push(PushEntry {
                    time_ns: time,
                    offset: at as u64,
                    message: line.text.clone().into_bytes(),
                    level: line.level.to_owned(),
                    iostream: record.labels["iostream"].clone(),
                    fields: line.attributes.iter().map(push_field).collect(),
                    shared: 0,
                });
                records.push(record);
            }
            let (from, to) = (from as u64, to as u64);
            push.batches.push(FileBatch {
                file: file.clone(),
                from,
                to,
                stream: labels.iter().map(pair).collect(),
                entries,
                ..FileBatch::default()
            });
        }
        store.append(push, clock.now_ns()).unwrap();
        assert!(store.flush_logs());
        if part < 2 {
            store.close();
            drop(store);
            clock.0.fetch_add(3 * DAY_NS, Ordering::Relaxed);
            store = open();
        }
        for _ in 0..4 {
            store.maintain().unwrap();
        }
    }
    records.sort_by_key(|one: &Record| (one.time, one.offset));
    Some(Bench { records, store })
}

fn record(line: &Line, labels: &BTreeMap<String, String>, time: i64, offset: u64) -> Record {
    let mut labels = labels.clone();
    let iostream = if offset.is_multiple_of(3) { "stderr" } else { "stdout" };
    labels.insert("iostream".to_owned(), iostream.to_owned());
    let mut all = line.attributes.clone();
    all.extend(fields(&line.text));
    Record {
        time,
        offset,
        text: line.text.clone(),
        words: words(&line.text),
        labels,
        level: line.level.to_owned(),
        attributes: line.attributes.clone(),
        fields: all,
    }
}
