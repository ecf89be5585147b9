//! OTLP's logs, in protobuf; the messages are those that `intake` reads.

use std::collections::BTreeMap;

use binnacle_model::log::FieldValue;
use prost::Message;

use super::door::Answer;
use super::{Item, Verdict, value_of};
use crate::intake::otlp_messages::{
    AnyValue, KeyValue, LogRecord, LogsRequest, Resource, ResourceLogs, ScopeLogs,
};

/// What we call labels, by OpenTelemetry's names.
const NAMES: [(&str, &str); 5] = [
    ("namespace", "k8s.namespace.name"),
    ("pod", "k8s.pod.name"),
    ("container", "k8s.container.name"),
    ("node", "k8s.node.name"),
    ("service", "service.name"),
];

/// Levels by the number of each; the first of four that mean it.
const SEVERITIES: [(&str, i32); 6] =
    [("trace", 1), ("debug", 5), ("info", 9), ("warn", 13), ("error", 17), ("fatal", 21)];

#[derive(Clone, PartialEq, Message)]
struct Response {
    #[prost(message, optional, tag = "1")]
    partial: Option<Partial>,
}

#[derive(Clone, PartialEq, Message)]
struct Partial {
    #[prost(int64, tag = "1")]
    rejected: i64,
    #[prost(string, tag = "2")]
    reason: String,
}

pub(super) fn encode(items: &[Item<'_>]) -> Vec<u8> {
    let mut resources: BTreeMap<Vec<(&str, &str)>, Vec<LogRecord>> = BTreeMap::new();
    for item in items {
        let stream = item.batch.stream.iter().map(|pair| (name_of(&pair.name), &*pair.value)).collect();
        resources.entry(stream).or_default().push(record(item));
    }
    let resource = |(stream, log_records): (Vec<(&str, &str)>, Vec<LogRecord>)| {
        let attributes = stream.into_iter().map(|(name, value)| text(name, value)).collect();
        ResourceLogs {
            resource: Some(Resource { attributes }),
            scope_logs: vec![ScopeLogs { scope: None, log_records }],
        }
    };
    LogsRequest { resource_logs: resources.into_iter().map(resource).collect() }.encode_to_vec()
}

fn name_of(label: &str) -> &str {
    NAMES.iter().find(|(known, _)| *known == label).map_or(label, |(_, name)| name)
}

fn text(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { string_value: Some(value.to_owned()), ..AnyValue::default() };
    KeyValue { key: key.to_owned(), value: Some(value) }
}

fn record(item: &Item<'_>) -> LogRecord {
    let entry = item.entry;
    // A body that is no text stays as it is.
    let body = match std::str::from_utf8(&entry.message) {
        Ok(text) => AnyValue { string_value: Some(text.to_owned()), ..AnyValue::default() },
        Err(_) => AnyValue { bytes_value: Some(entry.message.clone()), ..AnyValue::default() },
    };
    let mut attributes = Vec::new();
    if !entry.iostream.is_empty() {
        attributes.push(text("log.iostream", &entry.iostream));
    }
    for field in &entry.fields {
        let Some(value) = value_of(field) else { continue };
        let value = match value {
            FieldValue::Text(text) => AnyValue { string_value: Some(text), ..AnyValue::default() },
            FieldValue::Int(value) => AnyValue { int_value: Some(value), ..AnyValue::default() },
            FieldValue::Float(value) => AnyValue { double_value: Some(value), ..AnyValue::default() },
            FieldValue::Bool(value) => AnyValue { bool_value: Some(value), ..AnyValue::default() },
        };
        attributes.push(KeyValue { key: field.name.clone(), value: Some(value) });
    }
    let severity = SEVERITIES.iter().find(|(level, _)| *level == entry.level);
    LogRecord {
        time_unix_nano: entry.time_ns.max(0) as u64,
        severity_number: severity.map_or(0, |(_, number)| *number),
        severity_text: entry.level.clone(),
        body: Some(body),
        attributes,
        ..LogRecord::default()
    }
}

/// Which records of a request that was taken were refused all the same: the answer says how many, not which.
pub(super) fn judge(answer: &Answer, sent: usize) -> Verdict {
    // An answer that cannot be read is of no other version: the status says that all was taken.
    let partial = Response::decode(&*answer.body).ok().and_then(|response| response.partial);
    let rejected = partial.map_or(0, |partial| usize::try_from(partial.rejected).unwrap_or(0)).min(sent);
    let refused = if rejected > 0 { vec![(rejected, "rejected".to_owned())] } else { Vec::new() };
    Verdict { refused, ..Verdict::default() }
}
