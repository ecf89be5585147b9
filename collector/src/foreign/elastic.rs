//! Elasticsearch's `_bulk`, with the fields that Filebeat writes.

use binnacle_model::LogTime;
use binnacle_model::log::FieldValue;
use binnacle_model::storage::AppendError;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use xxhash_rust::xxh3::xxh3_128;

use super::door::Answer;
use super::{Item, Verdict, value_of};

/// Where the labels of a stream stand in a document.
const NAMES: [(&str, &[&str]); 5] = [
    ("namespace", &["kubernetes", "namespace"]),
    ("pod", &["kubernetes", "pod", "name"]),
    ("container", &["kubernetes", "container", "name"]),
    ("node", &["kubernetes", "node", "name"]),
    ("service", &["service", "name"]),
];

/// Fields that an attribute may not take the place of.
const OWN: [&str; 8] = ["@timestamp", "message", "log", "kubernetes", "service", "stream", "host", "labels"];

/// Kinds of errors that are told apart in the count; what else there is counts as `rejected`.
const KINDS: [&str; 4] = [
    "document_parsing_exception",
    "mapper_parsing_exception",
    "illegal_argument_exception",
    "strict_dynamic_mapping_exception",
];

pub(super) fn encode(items: &[Item<'_>], index: &str) -> Vec<u8> {
    let mut body = Vec::new();
    for item in items {
        let mut action = json!({ "create": { "_index": index } });
        if let Some(id) = id_of(item) {
            action["create"]["_id"] = Value::from(id);
        }
        for line in [action, document(item)] {
            body.extend_from_slice(line.to_string().as_bytes());
            body.push(b'\n');
        }
    }
    body
}

/// The same whenever this line of this file is sent; a store that has it refuses to create it again.
fn id_of(item: &Item<'_>) -> Option<String> {
    let file = &item.batch.file;
    (!file.is_empty()).then(|| format!("{:032x}-{:x}", xxh3_128(file.as_bytes()), item.entry.offset))
}

fn document(item: &Item<'_>) -> Value {
    let entry = item.entry;
    let mut document = Map::new();
    document.insert("@timestamp".to_owned(), Value::from(LogTime(entry.time_ns).to_rfc3339()));
    // JSON is UTF-8.
    document.insert("message".to_owned(), Value::from(String::from_utf8_lossy(&entry.message)));
    if !entry.level.is_empty() {
        put(&mut document, &["log", "level"], Value::from(entry.level.as_str()));
    }
    if !item.batch.file.is_empty() {
        put(&mut document, &["log", "offset"], Value::from(entry.offset));
    }
    if !entry.iostream.is_empty() {
        document.insert("stream".to_owned(), Value::from(entry.iostream.as_str()));
    }
    let node = item.label("node");
    if !node.is_empty() {
        put(&mut document, &["host", "name"], Value::from(node));
    }
    for pair in &item.batch.stream {
        let value = Value::from(pair.value.as_str());
        match NAMES.iter().find(|(label, _)| *label == pair.name) {
            Some((_, path)) => put(&mut document, path, value),
            None => put(&mut document, &["labels", &pair.name], value),
        }
    }
    for field in &entry.fields {
        let Some(value) = value_of(field) else { continue };
        let value = match value {
            FieldValue::Text(text) => Value::from(text),
            FieldValue::Int(value) => Value::from(value),
            FieldValue::Float(value) => Value::from(value),
            FieldValue::Bool(value) => Value::from(value),
        };
        let first = field.name.split('.').next().unwrap_or_default();
        if OWN.contains(&first) {
            put(&mut document, &["labels", &field.name], value);
        } else {
            document.insert(field.name.clone(), value);
        }
    }
    Value::Object(document)
}

fn put(document: &mut Map<String, Value>, path: &[&str], value: Value) {
    match path {
        [] => {}
        [last] => _ = document.insert((*last).to_owned(), value),
        [first, rest @ ..] => {
            let inner = document.entry(*first).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}

#[derive(Deserialize)]
struct Bulk {
    errors: bool,
    #[serde(default)]
    items: Vec<Map<String, Value>>,
}

/// What became of each document.
///
/// # Errors
/// The answer is none of `_bulk`'s: somebody stands in between.
pub(super) fn judge(answer: &Answer, sent: usize) -> Result<Verdict, AppendError> {
    let bulk: Bulk = serde_json::from_slice(&answer.body)
        .map_err(|error| AppendError::Unavailable(format!("an answer that is none of _bulk: {error}")))?;
    let mut verdict = Verdict::default();
    if !bulk.errors {
        return Ok(verdict);
    }
    if bulk.items.len() != sent {
        let reason = format!("_bulk answers {} items for {sent}", bulk.items.len());
        return Err(AppendError::Unavailable(reason));
    }
    for (at, item) in bulk.items.iter().enumerate() {
        let result = item.values().next();
        let status = result.and_then(|result| result["status"].as_u64()).unwrap_or(500);
        match status {
            200..=299 => {}
            409 => verdict.duplicates += 1,
            429 => verdict.open.push(at),
            400 | 413 => {
                let kind = result.and_then(|result| result["error"]["type"].as_str()).unwrap_or_default();
                let known = KINDS.iter().find(|known| **known == kind);
                let reason = (*known.unwrap_or(&"rejected")).to_owned();
                match verdict.refused.iter_mut().find(|(_, other)| *other == reason) {
                    Some((count, _)) => *count += 1,
                    None => verdict.refused.push((1, reason)),
                }
            }
            // A right that is missing, or an index: somebody will see to it.
            _ => {
                verdict.open.push(at);
                let error = result.map_or_else(String::new, |result| result["error"].to_string());
                verdict.trouble.get_or_insert_with(|| {
                    format!("an item has status {status}: {}", error.chars().take(300).collect::<String>())
                });
            }
        }
    }
    Ok(verdict)
}
