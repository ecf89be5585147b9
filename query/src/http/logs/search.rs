//! A page of entries, at once or in pieces.
//!
//! In pieces, the newest slice of time comes first, and slices become wider: what was logged a minute ago is there while the
//! rest of the month is still being read. All pieces together hold the entries of the page that comes at once, and together
//! have the time that one search has; what a slow client takes between them does not count.
//!
//! ```text
//! answer := slice* (end | error)        each a line of JSON, told apart by "type"
//! ```

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use binnacle_model::LogTime;
use binnacle_model::storage::{Deadline, Holding, LogOrder, PageRequest, StorageError};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};

use super::{Api, Question, counted, cursor, order, shown};
use crate::http::json::{cursor_text, success};
use crate::http::search::flag;
use crate::http::{ApiError, Params, ReadApi};

const DEFAULT_LIMIT: usize = 100;
/// Entries of one page of results; the cursor leads on.
const MAX_LIMIT: usize = 5_000;

/// How far each slice reaches from where the answer begins; a last one has the rest.
const REACHES: [Duration; 6] = [
    Duration::from_mins(5),
    Duration::from_mins(30),
    Duration::from_hours(3),
    Duration::from_hours(24),
    Duration::from_hours(7 * 24),
    Duration::from_hours(30 * 24),
];

pub(super) async fn search(State(api): Api, params: Params) -> Result<Response, ApiError> {
    let question = Question::read(&api, &params)?;
    let page = PageRequest {
        limit: counted(&params, "limit", DEFAULT_LIMIT, MAX_LIMIT)?,
        cursor: cursor(&params)?,
        order: order(&params, LogOrder::NewestFirst)?,
        counts: flag(&params, "total", true)?,
    };
    if flag(&params, "stream", false)? {
        return progressive(api, question, page).await;
    }
    let found = found(&api, &question, page).await?;
    let mut answer = json!({
        "total": found.total,
        "entries": found.entries,
        "cursor": found.last.filter(|_| found.more),
        "more": found.more,
        "highlights": question.parsed.query.highlights(),
        "warnings": found.warnings,
    });
    question.describe(&mut answer);
    if found.is_nothing && page.cursor.is_none() {
        question.describe_nothing(&mut answer);
    }
    Ok(success(&answer))
}

/// A page as it is shown.
struct Found {
    entries: Vec<Value>,
    /// Until they are sent.
    held: Holding,
    total: Option<u64>,
    /// The cursor of the last entry.
    last: Option<String>,
    more: bool,
    is_nothing: bool,
    warnings: Vec<String>,
}

async fn found(api: &ReadApi, question: &Question, page: PageRequest) -> Result<Found, ApiError> {
    let logs = Arc::clone(&api.logs);
    let work = move |request: &_, deadline: &Deadline| -> Result<Found, StorageError> {
        let found = logs.search(request, page, deadline)?;
        let (entries, held) = shown(&found.entries, deadline)?;
        Ok(Found {
            is_nothing: entries.is_empty(),
            entries,
            held,
            total: found.total,
            last: found.entries.last().map(|(cursor, _)| cursor_text(*cursor)),
            more: found.more,
            warnings: found.warnings,
        })
    };
    question.run(api, work).await
}

/// Slices of a span, one behind the other, that become wider.
fn slices(start: LogTime, end: LogTime, order: LogOrder) -> Vec<(LogTime, LogTime)> {
    let mut slices = Vec::new();
    let (mut low, mut high) = (start, end);
    for reach in REACHES {
        let reach = i64::try_from(reach.as_nanos()).unwrap_or(i64::MAX);
        match order {
            LogOrder::NewestFirst => {
                let edge = LogTime(end.0.saturating_sub(reach));
                if edge <= low {
                    break;
                }
                slices.push((edge, high));
                high = edge;
            }
            LogOrder::OldestFirst => {
                let edge = LogTime(start.0.saturating_add(reach));
                if edge >= high {
                    break;
                }
                slices.push((low, edge));
                low = edge;
            }
        }
    }
    slices.push((low, high));
    slices
}

/// A search that is under way.
struct Progress {
    api: Arc<ReadApi>,
    question: Question,
    page: PageRequest,
    /// The next one last.
    slices: Vec<(LogTime, LogTime)>,
    /// For all pieces that are still to come.
    left: Duration,
    total: u64,
    last: Option<String>,
    more: bool,
    warnings: Vec<String>,
    is_over: bool,
    /// The room of what was sent last.
    held: Option<Holding>,
}

impl Progress {
    fn new(api: Arc<ReadApi>, question: Question, page: PageRequest) -> Self {
        let mut slices = slices(question.request.start, question.request.end, page.order);
        slices.reverse();
        let left = api.gate.timeout(question.timeout);
        Self {
            api,
            question,
            page,
            slices,
            left,
            total: 0,
            last: None,
            more: false,
            warnings: Vec::new(),
            is_over: false,
            held: None,
        }
    }

    /// The next piece: a line of JSON.
    async fn piece(&mut self) -> Result<Option<String>, ApiError> {
        if self.is_over {
            return Ok(None);
        }
        // The page is full, and nobody wants to know how many more there are.
        let is_full = self.page.limit == 0 && !self.page.counts && self.more;
        let Some((start, end)) = self.slices.pop().filter(|_| !is_full) else {
            self.is_over = true;
            return Ok(Some(self.end()));
        };
        if self.left.is_zero() {
            return Err(StorageError::Deadline.into());
        }
        let mut question = self.question.clone();
        (question.request.start, question.request.end) = (start, end);
        question.timeout = Some(self.left);
        self.held = None;
        let began = Instant::now();
        let mut found = found(&self.api, &question, self.page).await?;
        self.left = self.left.saturating_sub(began.elapsed());
        self.page.limit -= found.entries.len();
        self.total += found.total.unwrap_or(0);
        self.more |= found.more;
        self.last = found.last.take().or(self.last.take());
        self.warnings.append(&mut found.warnings);
        let piece = json!({
            "type": "slice",
            "start_ns": start.0.to_string(),
            "end_ns": end.0.to_string(),
            "entries": found.entries,
            "total": self.page.counts.then_some(self.total),
        });
        self.held = Some(found.held);
        Ok(Some(format!("{piece}\n")))
    }

    fn end(&mut self) -> String {
        self.warnings.sort_unstable();
        self.warnings.dedup();
        let mut end = json!({
            "type": "end",
            "status": "success",
            "total": self.page.counts.then_some(self.total),
            "cursor": self.last.as_ref().filter(|_| self.more),
            "more": self.more,
            "highlights": self.question.parsed.query.highlights(),
            "warnings": self.warnings,
        });
        self.question.describe(&mut end);
        if self.last.is_none() && self.page.cursor.is_none() {
            self.question.describe_nothing(&mut end);
        }
        format!("{end}\n")
    }
}

async fn progressive(api: Arc<ReadApi>, question: Question, page: PageRequest) -> Result<Response, ApiError> {
    let mut progress = Progress::new(api, question, page);
    // What is wrong with the request is told by a status.
    let first = progress.piece().await?.unwrap_or_default();
    let rest = stream::unfold(progress, |mut progress| async move {
        let piece = progress.piece().await.unwrap_or_else(|error| {
            progress.is_over = true;
            let error = json!({ "type": "error", "status": "error", "error": error.to_string() });
            Some(format!("{error}\n"))
        })?;
        Some((piece, progress))
    });
    let pieces = stream::iter([first]).chain(rest).fuse();
    let body = Body::from_stream(pieces.map(Ok::<_, Infallible>));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

#[cfg(test)]
mod tests {
    use binnacle_model::storage::PageRequest;

    use super::super::tests::{bench, question};
    use super::*;
    use crate::promql::EvalError;

    #[tokio::test]
    async fn pieces_share_the_time_of_one_search() {
        let bench = bench(Vec::new());
        let mut question = question(&bench.api, "start=now-60d");
        question.timeout = Some(Duration::from_secs(30));
        let page = PageRequest { limit: 1, counts: true, ..PageRequest::default() };
        let mut progress = Progress::new(Arc::clone(&bench.api), question, page);
        assert!(progress.piece().await.unwrap().is_some());
        assert!(progress.left < Duration::from_secs(30));
        progress.left = Duration::ZERO;
        let error = progress.piece().await.unwrap_err();
        assert!(matches!(error, ApiError::Eval(EvalError::Storage(StorageError::Deadline))), "{error}");
    }
}
