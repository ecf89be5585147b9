//! Logs: `POST /v1/logs`, and where SDKs look for it under a base path, `/otlp/v1/logs`.
//!
//! ```text
//! resource ── k8s.*, service.name, host.name ─► labels of the stream; all else beside each message
//! scope ───── otel.scope.name, otel.scope.version
//! record ──── body ─► message: text and bytes as they are, structures as JSON
//!             severity ─► level; time, or when it was observed; attributes, trace_id, span_id
//! ```
//!
//! Every record is kept. What of its attributes is over the bounds is kept as text, and the answer says so.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use binnacle_model::meaning;
use binnacle_model::push::PushValue;

use super::convert::{hexadecimal, to_json};
use super::message::{AnyValue, KeyValue, LogRecord, LogsRequest, ResourceLogs, Scope};
use super::{Encoding, Outcome, Taken, weigh};
use crate::intake::draft::{Draft, Gathered, Names};
use crate::intake::{Intake, Refusal, header_text};

pub(in super::super) async fn handle(
    State(intake): State<Arc<Intake>>,
    request: Request,
) -> Result<Response, Refusal> {
    let encoding = Encoding::of(header_text(request.headers(), "content-type"))?;
    let done = async { take(&intake, Taken::of(&intake, request).await?, encoding).await };
    Ok(match done.await {
        Ok(outcome) => encoding.answer(outcome, "rejectedLogRecords"),
        Err(refusal) => encoding.refuse(refusal),
    })
}

/// Keeps the logs of a request.
pub(super) async fn take(intake: &Intake, taken: Taken, encoding: Encoding) -> Result<Outcome, Refusal> {
    let received = intake.clock.now_ns();
    let logs = Arc::clone(&intake.logs);
    let work = move |plain: &[u8]| {
        let gathered = gather(read(encoding, plain)?, received.0)?;
        let (kept, over) = (gathered.len(), gathered.over);
        if kept > 0 {
            logs.append(gathered.push, received)?;
        }
        Ok((kept, over))
    };
    let (kept, over) = taken.run(intake, true, work).await?;
    intake.telemetry.attributes_over.inc_by(over);
    let reason = match over {
        0 => String::new(),
        over => format!("{over} attributes beyond the bounds of an entry are kept as text in _overflow"),
    };
    Ok(Outcome { rejected: 0, kept, reason })
}

fn read(encoding: Encoding, body: &[u8]) -> Result<LogsRequest, Refusal> {
    weigh::check(body, encoding == Encoding::Json, weigh::Of::Logs).map_err(Refusal::Bad)?;
    encoding.decode(body, "ExportLogsServiceRequest")
}

fn gather(request: LogsRequest, now_ns: i64) -> Result<Gathered, Refusal> {
    let mut gathered = Gathered::default();
    for ResourceLogs { resource, scope_logs } in request.resource_logs {
        let resource = resource.map(|resource| resource.attributes).unwrap_or_default();
        let mut of_resource = Draft::default();
        resource.iter().for_each(|one| offer(&mut of_resource, Names::Any, one));
        for scope in scope_logs {
            let of_scope = scope.scope.unwrap_or_default();
            for record in scope.log_records {
                let draft = draft(record, &of_resource, &resource, &of_scope);
                if !gathered.add(draft, now_ns) {
                    let reason = "body has more than 2000000 records and attributes; send smaller batches";
                    return Err(Refusal::TooLarge(reason.to_owned()));
                }
            }
        }
    }
    Ok(gathered)
}

fn offer(draft: &mut Draft, names: Names, one: &KeyValue) {
    if let Some(text) = one.value.as_ref().and_then(|value| value.string_value.as_deref()) {
        draft.identity.offer(names, &one.key, text);
    }
}

fn draft(record: LogRecord, of_resource: &Draft, resource: &[KeyValue], scope: &Scope) -> Draft {
    let mut draft = of_resource.clone();
    record.attributes.iter().for_each(|one| offer(&mut draft, Names::Semantic, one));
    let times = [record.time_unix_nano, record.observed_time_unix_nano];
    let time = times.into_iter().find(|time| *time > 0);
    draft.time_ns = time.map(|time| i64::try_from(time).unwrap_or(i64::MAX));
    set_level(&mut draft, &record);
    let mut text = |name: &str, value: &str| {
        if !value.is_empty() {
            draft.attribute(name, PushValue::Text(value.to_owned()));
        }
    };
    // First, so that no number of attributes takes their place.
    text("trace_id", &hexadecimal(&record.trace_id));
    text("span_id", &hexadecimal(&record.span_id));
    if record.flags & 0xff != 0 {
        text("trace_flags", &format!("{:02x}", record.flags & 0xff));
    }
    text("event.name", &record.event_name);
    attributes(&mut draft, Names::Semantic, &record.attributes);
    let mut text = |name: &str, value: &str| {
        if !value.is_empty() {
            draft.attribute(name, PushValue::Text(value.to_owned()));
        }
    };
    text("otel.scope.name", &scope.name);
    text("otel.scope.version", &scope.version);
    attributes(&mut draft, Names::Semantic, &scope.attributes);
    attributes(&mut draft, Names::Any, resource);
    if record.dropped_attributes_count > 0 {
        let dropped = PushValue::Int(record.dropped_attributes_count.into());
        draft.attribute("otel.dropped_attributes_count", dropped);
    }
    draft.message = message(record.body);
    draft
}

/// Numbers come in fours; the first of them says no more than the level.
fn set_level(draft: &mut Draft, record: &LogRecord) {
    let number = record.severity_number;
    let level = match number {
        1..=4 => "trace",
        5..=8 => "debug",
        9..=12 => "info",
        13..=16 => "warn",
        17..=20 => "error",
        21..=24 => "fatal",
        _ => meaning::level_named(&record.severity_text),
    };
    draft.level = level;
    if !record.severity_text.is_empty() && !record.severity_text.eq_ignore_ascii_case(level) {
        draft.attribute("severity_text", PushValue::Text(record.severity_text.clone()));
    }
    if number != 0 && (number % 4 != 1 || !(1..=24).contains(&number)) {
        draft.attribute("severity_number", PushValue::Int(number.into()));
    }
}

fn attributes(draft: &mut Draft, names: Names, all: &[KeyValue]) {
    for one in all {
        let Some(value) = &one.value else { continue };
        match &value.string_value {
            Some(text) if draft.identity.holds(names, &one.key, text) => {}
            Some(text) => draft.attribute(&one.key, PushValue::Text(text.clone())),
            None => {
                if let Some(value) = to_json(value) {
                    draft.attributes.add_json(&one.key, &value);
                }
            }
        }
    }
}

/// Text and bytes as they are, anything else as JSON.
fn message(body: Option<AnyValue>) -> Vec<u8> {
    let Some(mut body) = body else { return Vec::new() };
    if let Some(text) = body.string_value.take() {
        return text.into_bytes();
    }
    if let Some(bytes) = body.bytes_value.take() {
        return bytes;
    }
    to_json(&body).map_or_else(Vec::new, |json| json.to_string().into_bytes())
}

/// Reads a body as the handler does, for what throws foreign bytes at it. Answers how many lines it has.
#[doc(hidden)]
pub fn try_read(body: &[u8], is_json: bool) -> usize {
    let encoding = if is_json { Encoding::Json } else { Encoding::Protobuf };
    let gathered = read(encoding, body).and_then(|request| gather(request, 0));
    gathered.map_or(0, |gathered| gathered.len())
}
