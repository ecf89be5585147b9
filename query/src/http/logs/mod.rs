//! `/api/logs`: our own log API, what the page and the command line use.
//!
//! ```text
//! search      a page of entries, or pieces of it, the newest slice of time first
//! histogram, facets    counts over all matches, never over a page
//! fields, patterns     what the matches have, and what they have in common
//! context     the neighbours of an entry in its file
//! export      all matches, as lines of JSON, CSV or text, in rounds of a few megabytes
//! tail        entries as they come, as server-sent events or over a WebSocket, from where a client left off
//! partitions  what is stored, and where
//! delete      deletions of all matches, only with `--enable-admin-api`
//! ```
//!
//! All take `q` in Lucene's syntax, `start` and `end`, in the URL or as a form. What a request asks for runs at the gate, and
//! ends when the client leaves. Long answers are made piece by piece, as the client takes them.

mod context;
mod counts;
mod export;
mod keep;
mod search;
mod tail;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::{MethodRouter, delete, get};
use binnacle_model::LogTime;
use binnacle_model::log::{Field, LogEntry};
use binnacle_model::log_query::LogQuery;
use binnacle_model::storage::{Deadline, Holding, LogCursor, LogOrder, LogRequest, LogSlices, StorageError};
use serde_json::{Value, json};

use super::json::{cursor_text, entry_json, parse_cursor};
use super::{ApiError, Asked, Params, ReadApi};
use crate::logs::{ParsedQuery, lucene, parse};

type Api = State<Arc<ReadApi>>;

/// Looked back where the request says no start.
const DEFAULT_SPAN: Duration = Duration::from_hours(1);
/// Slices of time in one answer.
const MAX_BARS: usize = 1_000;
const DEFAULT_BARS: usize = 60;
/// What an entry takes besides its message.
const ENTRY_BYTES: usize = 512;
/// What a sample takes, in which a query's memory is counted.
const SAMPLE_BYTES: usize = 16;

/// Adds the routes.
pub(super) fn routes(router: Router<Arc<ReadApi>>) -> Router<Arc<ReadApi>> {
    fn both<H, T>(handler: H) -> MethodRouter<Arc<ReadApi>>
    where
        H: axum::handler::Handler<T, Arc<ReadApi>>,
        T: 'static,
    {
        get(handler.clone()).post(handler)
    }
    router
        .route("/api/logs/search", both(search::search))
        .route("/api/logs/histogram", both(counts::histogram))
        .route("/api/logs/facets", both(counts::facets))
        .route("/api/logs/patterns", both(counts::patterns))
        .route("/api/logs/fields", both(counts::fields))
        .route("/api/logs/context", both(context::context))
        .route("/api/logs/export", both(export::export))
        .route("/api/logs/tail", tail::route())
        .route("/api/logs/partitions", get(keep::partitions))
        .route("/api/logs/delete", get(keep::deletions).post(keep::delete))
        .route("/api/logs/delete/{id}", delete(keep::cancel))
}

/// A request's query and time, and who asks.
#[derive(Clone)]
struct Question {
    request: LogRequest,
    parsed: ParsedQuery,
    asked: Asked,
    timeout: Option<Duration>,
}

impl Question {
    fn read(api: &ReadApi, params: &Params) -> Result<Self, ApiError> {
        let now = api.clock.now_ns();
        let parsed = parse(params.log_query(), now)?;
        let end = moment(params, "end", now)?.unwrap_or(now);
        let start = moment(params, "start", now)?.unwrap_or_else(|| end.minus(DEFAULT_SPAN));
        if end <= start {
            return Err(ApiError::parameter("end", "end must be after start"));
        }
        let request = LogRequest { query: parsed.query.clone(), start, end };
        let (asked, timeout) = (params.asked(api.clock.now()), params.duration("timeout")?);
        Ok(Self { request, parsed, asked, timeout })
    }

    /// Runs work on the request once there is a place.
    async fn run<T: Send + 'static>(
        &self,
        api: &ReadApi,
        work: impl FnOnce(&LogRequest, &Deadline) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let request = self.request.clone();
        let work = move |deadline: &Deadline| Ok(work(&request, deadline)?);
        api.gate.run(self.asked.clone(), self.timeout, work).await
    }

    /// What every answer says of the question.
    fn describe(&self, answer: &mut Value) {
        let notes = self.parsed.notes.iter();
        let notes = notes.map(|note| json!({ "column": note.column, "text": note.text }));
        answer["hints"] = notes.collect();
        answer["hint"] = self.parsed.hint().into();
        answer["start_ns"] = self.request.start.0.to_string().into();
        answer["end_ns"] = self.request.end.0.to_string().into();
    }

    /// A hint where nothing was found and a field may be none.
    fn describe_nothing(&self, answer: &mut Value) {
        if let Some(name) = field_in(&self.parsed.query)
            && answer["hint"].is_null()
        {
            let hint = format!(
                "nothing was found; {name:?} was searched as a field, put quotes around text with a colon"
            );
            answer["hint"] = hint.into();
        }
    }

    /// The whole span as one slice.
    fn slice(&self) -> LogSlices {
        let LogRequest { start, end, .. } = self.request;
        LogSlices { start, width_ns: end.0.abs_diff(start.0), count: 1 }
    }

    /// The span in `bars` slices, or in slices of `step` that begin at its multiples.
    fn slices(&self, params: &Params) -> Result<LogSlices, ApiError> {
        let LogRequest { start, end, .. } = self.request;
        let span = end.0.abs_diff(start.0);
        let Some(step) = params.duration("step")? else {
            let count = counted(params, "bars", DEFAULT_BARS, MAX_BARS)?;
            return Ok(LogSlices { start, width_ns: span.div_ceil(count as u64).max(1), count });
        };
        let width = i64::try_from(step.as_nanos()).unwrap_or(i64::MAX);
        if width == 0 {
            return Err(ApiError::parameter("step", "must be more than zero"));
        }
        let first = LogTime(start.0.saturating_sub(start.0.rem_euclid(width)));
        let width_ns = width.unsigned_abs();
        let count = end.0.abs_diff(first.0).div_ceil(width_ns);
        if count > MAX_BARS as u64 {
            return Err(ApiError::parameter(
                "step",
                format!("makes more than {MAX_BARS} slices; choose a wider one"),
            ));
        }
        Ok(LogSlices { start: first, width_ns, count: count as usize })
    }
}

/// The first field of the query that only the message or attributes may hold.
fn field_in(query: &LogQuery) -> Option<&str> {
    match query {
        LogQuery::Value { field: Field::Parsed(name), .. } | LogQuery::Exists(Field::Parsed(name)) => {
            Some(name)
        }
        LogQuery::And(parts) | LogQuery::Or(parts) => parts.iter().find_map(field_in),
        _ => None,
    }
}

/// A moment, as Loki takes it, or as in a query: `now-1h`, `now/d`, `2026-11-20`.
fn moment(params: &Params, name: &str, now: LogTime) -> Result<Option<LogTime>, ApiError> {
    let Some(text) = params.get(name) else { return Ok(None) };
    let refuse = || {
        let reason = format!("{text:?} is no time; write now-1h, now/d, RFC 3339 or Unix nanoseconds");
        ApiError::parameter(name, reason)
    };
    lucene::moment(text, now, name == "end").map(Some).ok_or_else(refuse)
}

/// A count between one and `most`.
fn counted(params: &Params, name: &str, default: usize, most: usize) -> Result<usize, ApiError> {
    match params.count(name)?.unwrap_or(default) {
        count if (1..=most).contains(&count) => Ok(count),
        _ => Err(ApiError::parameter(name, format!("must be between 1 and {most}"))),
    }
}

fn order(params: &Params, default: LogOrder) -> Result<LogOrder, ApiError> {
    match params.get("order") {
        None => Ok(default),
        Some("newest") => Ok(LogOrder::NewestFirst),
        Some("oldest") => Ok(LogOrder::OldestFirst),
        Some(other) => Err(ApiError::parameter("order", format!("{other:?} is neither newest nor oldest"))),
    }
}

fn cursor(params: &Params) -> Result<Option<LogCursor>, ApiError> {
    let Some(text) = params.get("cursor") else { return Ok(None) };
    let refuse = || ApiError::parameter("cursor", "take it from the answer before");
    parse_cursor(text).map(Some).ok_or_else(refuse)
}

/// Whether an entry comes after the cursor.
fn is_behind(at: LogCursor, cursor: Option<LogCursor>, order: LogOrder) -> bool {
    cursor.is_none_or(|cursor| match order {
        LogOrder::NewestFirst => at < cursor,
        LogOrder::OldestFirst => at > cursor,
    })
}

/// An entry, with what a client hands back to go on behind it.
fn entry_with_id(cursor: LogCursor, entry: &LogEntry) -> Value {
    let mut json = entry_json(entry);
    json["id"] = cursor_text(cursor).into();
    json
}

/// Entries as JSON, and the room that they take until they are sent.
fn shown(
    entries: &[(LogCursor, LogEntry)],
    deadline: &Deadline,
) -> Result<(Vec<Value>, Holding), StorageError> {
    let mut held = deadline.holding();
    let mut shown = Vec::with_capacity(entries.len());
    for (cursor, entry) in entries {
        held.add((2 * entry.message.len() + ENTRY_BYTES) / SAMPLE_BYTES)?;
        shown.push(entry_with_id(*cursor, entry));
    }
    Ok((shown, held))
}
