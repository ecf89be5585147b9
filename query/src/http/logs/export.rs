//! All matches, however many there are, in constant memory.
//!
//! Entries are read in rounds, each of which waits for its turn at the gate, and begins behind the last entry of the one
//! before. So a slow client holds a few megabytes, and no place that others wait for; and whoever was cut off goes on with
//! `cursor`, the `id` of the last entry that it has.
//!
//! The last line of `format=ndjson` is `{"trailer":{"status":…,"count":…,"cursor":…}}`. The other formats have no place for
//! it: there the connection breaks where the export fails.

use std::fmt::Write;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use binnacle_model::LogTime;
use binnacle_model::log::{Field, LogEntry};
use binnacle_model::storage::{
    Deadline, Holding, LogCursor, LogKey, LogOrder, LogRequest, LogSearcher, StorageError,
};
use futures_util::{StreamExt, stream};
use serde_json::json;

use super::{Api, ENTRY_BYTES, Question, SAMPLE_BYTES, cursor, entry_with_id, is_behind, order};
use crate::http::json::cursor_text;
use crate::http::{ApiError, Params, ReadApi};
use crate::promql::EvalError;

/// Text of one round.
const ROUND_BYTES: usize = 4 * 1024 * 1024;
/// For a place at the gate in the middle of an export.
const TRIES: usize = 30;
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// Columns of one CSV.
const MAX_COLUMNS: usize = 100;
const COLUMNS: &str = "time,level,namespace,pod,container,service,message,id";

/// How entries are written.
#[derive(Debug, Clone)]
enum Format {
    Ndjson,
    /// The columns: fields, or `time` and `id`.
    Csv(Vec<String>),
    Text,
}

impl Format {
    fn read(params: &Params) -> Result<Self, ApiError> {
        match params.get("format") {
            None | Some("ndjson") => Ok(Self::Ndjson),
            Some("text") => Ok(Self::Text),
            Some("csv") => {
                let columns = params.get("columns").unwrap_or(COLUMNS).split(',').map(str::trim);
                let columns: Vec<String> =
                    columns.filter(|name| !name.is_empty()).map(str::to_owned).collect();
                if columns.is_empty() || columns.len() > MAX_COLUMNS {
                    return Err(ApiError::parameter(
                        "columns",
                        format!("between 1 and {MAX_COLUMNS} fields"),
                    ));
                }
                Ok(Self::Csv(columns))
            }
            Some(other) => {
                Err(ApiError::parameter("format", format!("{other:?} is none of ndjson, csv and text")))
            }
        }
    }

    /// What the answer is, and what to call a file of it.
    fn kind(&self) -> (&'static str, &'static str) {
        match self {
            Self::Ndjson => ("application/x-ndjson", "attachment; filename=\"logs.ndjson\""),
            Self::Csv(_) => ("text/csv; charset=utf-8", "attachment; filename=\"logs.csv\""),
            Self::Text => ("text/plain; charset=utf-8", "attachment; filename=\"logs.txt\""),
        }
    }

    fn push_head(&self, out: &mut String) {
        if let Self::Csv(columns) = self {
            push_row(out, columns.iter().map(String::as_str));
        }
    }

    fn push(&self, out: &mut String, cursor: LogCursor, entry: &LogEntry) {
        match self {
            Self::Ndjson => {
                let _ = writeln!(out, "{}", entry_with_id(cursor, entry));
            }
            Self::Csv(columns) => push_row(out, columns.iter().map(|name| cell(name, cursor, entry))),
            Self::Text => {
                out.push_str(&String::from_utf8_lossy(&entry.message));
                out.push('\n');
            }
        }
    }
}

fn cell(name: &str, cursor: LogCursor, entry: &LogEntry) -> String {
    match name {
        "time" => entry.time.to_rfc3339(),
        "id" => cursor_text(cursor),
        name => LogKey::Field(Field::named(name)).of(entry),
    }
}

fn push_row(out: &mut String, cells: impl Iterator<Item = impl AsRef<str>>) {
    for (at, cell) in cells.enumerate() {
        out.push_str(if at == 0 { "" } else { "," });
        push_cell(out, cell.as_ref());
    }
    out.push_str("\r\n");
}

/// A cell of which a spreadsheet makes no formula.
fn push_cell(out: &mut String, cell: &str) {
    let is_formula = cell.starts_with(['=', '+', '-', '@', '\t', '\r']) && cell.parse::<f64>().is_err();
    let needs_quotes = cell.contains([',', '"', '\n', '\r']) || is_formula;
    if !needs_quotes {
        out.push_str(cell);
        return;
    }
    out.push('"');
    out.push_str(if is_formula { "'" } else { "" });
    out.push_str(&cell.replace('"', "\"\""));
    out.push('"');
}

/// An export that is under way.
struct Export {
    api: Arc<ReadApi>,
    question: Question,
    format: Format,
    order: LogOrder,
    /// The last entry that was sent.
    after: Option<LogCursor>,
    left: u64,
    count: u64,
    warnings: Vec<String>,
    is_over: bool,
    /// The room of what was sent last.
    held: Option<Holding>,
}

struct Round {
    text: String,
    held: Holding,
    count: u64,
    last: Option<LogCursor>,
    /// Whether there is more.
    more: bool,
    warnings: Vec<String>,
}

/// What comes behind a cursor, up to so much text.
fn round(
    logs: &dyn LogSearcher,
    request: &LogRequest,
    (order, after, left): (LogOrder, Option<LogCursor>, u64),
    format: &Format,
    deadline: &Deadline,
) -> Result<Round, StorageError> {
    let mut request = request.clone();
    if let Some(after) = after {
        match order {
            LogOrder::OldestFirst => request.start = request.start.max(after.time),
            LogOrder::NewestFirst => request.end = request.end.min(LogTime(after.time.0.saturating_add(1))),
        }
    }
    let mut done = Round {
        text: String::new(),
        held: deadline.holding(),
        count: 0,
        last: None,
        more: false,
        warnings: Vec::new(),
    };
    let mut failed = Ok(());
    let warnings = logs.scan(&request, order, deadline, &mut |cursor, entry| {
        if !is_behind(cursor, after, order) {
            return ControlFlow::Continue(());
        }
        if done.text.len() >= ROUND_BYTES || done.count == left {
            done.more = true;
            return ControlFlow::Break(());
        }
        failed = done.held.add((2 * entry.message.len() + ENTRY_BYTES) / SAMPLE_BYTES);
        if failed.is_err() {
            return ControlFlow::Break(());
        }
        format.push(&mut done.text, cursor, &entry);
        done.count += 1;
        done.last = Some(cursor);
        ControlFlow::Continue(())
    })?;
    failed?;
    Ok(Round { warnings, ..done })
}

impl Export {
    async fn round(&self) -> Result<Round, ApiError> {
        let logs = Arc::clone(&self.api.logs);
        let (from, format) = ((self.order, self.after, self.left), self.format.clone());
        let work = move |request: &_, deadline: &Deadline| round(&*logs, request, from, &format, deadline);
        self.question.run(&self.api, work).await
    }

    /// A round in the middle, which waits longer for its turn than a request would.
    async fn patient_round(&self) -> Result<Round, ApiError> {
        for _ in 0..TRIES {
            match self.round().await {
                Err(ApiError::Busy | ApiError::Eval(EvalError::Storage(StorageError::Crowded))) => {
                    tokio::time::sleep(TRY_AGAIN).await;
                }
                done => return done,
            }
        }
        self.round().await
    }

    /// Takes note of a round; its text, with the trailer if it is the last.
    fn take(&mut self, round: Round) -> String {
        let Round { mut text, held, count, last, more, mut warnings } = round;
        self.held = Some(held);
        self.count += count;
        self.left -= count;
        self.after = last.or(self.after);
        self.warnings.append(&mut warnings);
        self.is_over = !more || self.left == 0;
        if self.is_over {
            text.push_str(&self.trailer(more, None));
        }
        text
    }

    fn trailer(&mut self, more: bool, error: Option<&ApiError>) -> String {
        if !matches!(self.format, Format::Ndjson) {
            return String::new();
        }
        self.warnings.sort_unstable();
        self.warnings.dedup();
        let trailer = json!({ "trailer": {
            "status": if error.is_some() { "error" } else { "success" },
            "error": error.map(ToString::to_string),
            "count": self.count,
            "more": more,
            "cursor": self.after.map(cursor_text),
            "warnings": self.warnings,
        }});
        format!("{trailer}\n")
    }

    async fn piece(mut self) -> Option<(io::Result<String>, Self)> {
        if self.is_over {
            return None;
        }
        self.held = None;
        let text = match self.patient_round().await {
            Ok(round) => Ok(self.take(round)),
            Err(error) => {
                self.is_over = true;
                match self.trailer(true, Some(&error)) {
                    trailer if trailer.is_empty() => Err(io::Error::other(error.to_string())),
                    trailer => Ok(trailer),
                }
            }
        };
        Some((text, self))
    }
}

pub(super) async fn export(State(api): Api, params: Params) -> Result<Response, ApiError> {
    let question = Question::read(&api, &params)?;
    let format = Format::read(&params)?;
    let left = params.count("limit")?.map_or(u64::MAX, |limit| limit as u64);
    let (order, after) = (order(&params, LogOrder::OldestFirst)?, cursor(&params)?);
    let (kind, name) = format.kind();
    let mut text = String::new();
    if after.is_none() {
        format.push_head(&mut text);
    }
    let mut export = Export {
        api,
        question,
        format,
        order,
        after,
        left,
        count: 0,
        warnings: Vec::new(),
        is_over: false,
        held: None,
    };
    // What is wrong with the request is told by a status.
    let first = export.round().await?;
    text.push_str(&export.take(first));
    // Layers above ask once more after the end.
    let pieces = stream::iter([Ok(text)]).chain(stream::unfold(export, Export::piece)).fuse();
    let headers = [(header::CONTENT_TYPE, kind), (header::CONTENT_DISPOSITION, name)];
    Ok((headers, Body::from_stream(pieces)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_no_formulas() {
        for (cell, want) in [
            ("plain", "plain"),
            ("a,b", "\"a,b\""),
            ("say \"hi\"", "\"say \"\"hi\"\"\""),
            ("=1+1", "\"'=1+1\""),
            ("@x", "\"'@x\""),
            ("-5", "-5"),
            ("-5+1", "\"'-5+1\""),
            ("\tx", "\"'\tx\""),
            ("two\nlines", "\"two\nlines\""),
        ] {
            let mut out = String::new();
            push_cell(&mut out, cell);
            assert_eq!(out, want);
        }
    }
}
