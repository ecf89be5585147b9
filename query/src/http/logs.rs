//! Our own log API: what the page and the command line use.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use binnacle_model::storage::LogRequest;
use futures_util::stream;
use serde_json::json;

use super::json::{cursor_text, entry_json, parse_cursor, success};
use super::{ApiError, Params, ReadApi};
use crate::logs::{ParsedQuery, Tail, TailItem, parse};

type Api = State<Arc<ReadApi>>;

/// Looked back where the request says no start.
const DEFAULT_SPAN: Duration = Duration::from_hours(1);
const DEFAULT_LIMIT: usize = 100;
/// Entries of one page of results; the cursor leads on.
const MAX_LIMIT: usize = 5_000;
const DEFAULT_BARS: usize = 60;
const MAX_BARS: usize = 1_000;

/// The request's query and time.
fn request(api: &ReadApi, params: &Params) -> Result<(LogRequest, ParsedQuery), ApiError> {
    let parsed = parse(params.get("q").unwrap_or_default())?;
    let now = api.clock.now_ns();
    let end = params.log_time("end", now)?.unwrap_or(now);
    let start = params.log_time("start", now)?.unwrap_or_else(|| end.minus(DEFAULT_SPAN));
    if end <= start {
        return Err(ApiError::parameter("end", "end must be after start"));
    }
    Ok((LogRequest { query: parsed.query.clone(), start, end }, parsed))
}

pub(super) async fn search(State(api): Api, params: Params) -> Result<Response, ApiError> {
    let (request, parsed) = request(&api, &params)?;
    let limit = params.count("limit")?.unwrap_or(DEFAULT_LIMIT);
    if limit == 0 || limit > MAX_LIMIT {
        return Err(ApiError::parameter("limit", format!("must be between 1 and {MAX_LIMIT}")));
    }
    let cursor = match params.get("cursor") {
        None => None,
        Some(text) => Some(
            parse_cursor(text)
                .ok_or_else(|| ApiError::parameter("cursor", "take it from the answer before"))?,
        ),
    };
    let logs = Arc::clone(&api.logs);
    let (start, end) = (request.start, request.end);
    let work = move |deadline: &_| Ok(logs.search(&request, limit, cursor, deadline)?);
    let page = api.gate.run(params.asked(api.clock.now()), params.duration("timeout")?, work).await?;
    let next = page.entries.last().filter(|_| page.more);
    let entries = page.entries.iter().map(|(cursor, entry)| {
        let mut json = entry_json(entry);
        json["id"] = cursor_text(*cursor).into();
        json
    });
    Ok(success(&json!({
        "total": page.total,
        "entries": entries.collect::<Vec<_>>(),
        "cursor": next.map(|(cursor, _)| cursor_text(*cursor)),
        "hint": parsed.hint,
        "highlights": parsed.query.highlights(),
        "start_ns": start.0.to_string(),
        "end_ns": end.0.to_string(),
    })))
}

pub(super) async fn histogram(State(api): Api, params: Params) -> Result<Response, ApiError> {
    let (request, parsed) = request(&api, &params)?;
    let count = params.count("bars")?.unwrap_or(DEFAULT_BARS);
    if count == 0 || count > MAX_BARS {
        return Err(ApiError::parameter("bars", format!("must be between 1 and {MAX_BARS}")));
    }
    let logs = Arc::clone(&api.logs);
    let (start, end) = (request.start, request.end);
    let work = move |deadline: &_| Ok(logs.histogram(&request, count, deadline)?);
    let bars = api.gate.run(params.asked(api.clock.now()), params.duration("timeout")?, work).await?;
    let total: u64 = bars.iter().flat_map(|bar| bar.values()).sum();
    let width = i128::from(end.0) - i128::from(start.0);
    let begin = |at: usize| (i128::from(start.0) + width * at as i128 / count as i128).to_string();
    let shown =
        bars.iter().enumerate().map(|(at, counts)| json!({ "start_ns": begin(at), "counts": counts }));
    Ok(success(&json!({
        "bars": shown.collect::<Vec<_>>(),
        "total": total,
        "hint": parsed.hint,
        "start_ns": start.0.to_string(),
        "end_ns": end.0.to_string(),
    })))
}

pub(super) async fn tail(State(api): Api, params: Params) -> Result<Response, ApiError> {
    let parsed = parse(params.get("q").unwrap_or_default())?;
    let tail = Tail::open(&*api.feed, parsed.query);
    let stop = api.stop.clone();
    let events = stream::unfold((tail, stop), |(mut tail, stop)| async move {
        let item = tokio::select! {
            () = stop.cancelled() => return None,
            item = tail.next() => item?,
        };
        let event = match item {
            TailItem::Entry(entry) => Event::default().event("entry").data(entry_json(&entry).to_string()),
            TailItem::Dropped(count) => Event::default().event("dropped").data(count.to_string()),
        };
        Some((Ok::<_, Infallible>(event), (tail, stop)))
    });
    // What is sent at once tells the client that it is connected and from when on.
    let hello = json!({ "hint": parsed.hint }).to_string();
    let hello = stream::iter([Ok(Event::default().event("open").data(hello))]);
    let events = futures_util::StreamExt::chain(hello, events);
    Ok(Sse::new(events).keep_alive(KeepAlive::default()).into_response())
}
