//! Live tail over a WebSocket: `{"streams":[…],"dropped_entries":[…]}` for each batch of lines.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::{MethodRouter, get};
use binnacle_model::LogTime;
use binnacle_model::log::LogEntry;
use binnacle_model::storage::{Deadline, LogOrder};
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use super::super::{Params, ReadApi};
use super::error::LokiError;
use super::params::QUERY_SINCE;
use super::{Api, answer};
use crate::http::readers::Readers;
use crate::logql::{Plan, Query, Selected, select_noting};
use crate::logs::{Position, Tail, TailItem};

/// Lines of one message.
const MAX_BATCH: usize = 200;
/// Between signs of life, by which a client that left is noticed.
const PING: Duration = Duration::from_secs(15);
/// A client that does not take a message for so long is let go.
const STALL: Duration = Duration::from_secs(30);
/// Longest `delay_for`, in seconds, as in Loki. Lines come when they are durable and are not held back here.
const MAX_DELAY_SECONDS: usize = 5;

/// The route, with places for so many readers.
pub(super) fn route() -> MethodRouter<Arc<ReadApi>> {
    let readers = Readers::default();
    get(move |api, headers, upgrade, params| tail(readers.clone(), api, headers, upgrade, params))
}

async fn tail(
    readers: Readers,
    State(api): Api,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
    params: Params,
) -> Result<Response, LokiError> {
    let Query::Logs(selection) = params.loki_query()? else {
        return Err(LokiError::Bad("only log selectors can be tailed".to_owned()));
    };
    if params.count("delay_for")?.is_some_and(|delay| delay > MAX_DELAY_SECONDS) {
        let reason = format!("delay_for can't be greater than {MAX_DELAY_SECONDS}");
        return Err(LokiError::Bad(reason));
    }
    let place = readers.admit(&headers)?;
    let limit = params.loki_limit()?;
    let now = api.clock.now_ns();
    let start = params.log_time("start")?.unwrap_or_else(|| now.minus(QUERY_SINCE));
    let plan = Plan::new(&selection);
    let categorizes = answer::categorizes(&headers);
    // Before what is stored is read: what comes meanwhile is in both, and is known by its position.
    let tail = Tail::open(&*api.feed, plan.query.clone());
    let (stored, told) = stored(&api, &params, &plan, (start, now), limit).await?;
    let stop = api.stop.clone();
    let follow = Follow { tail, plan, categorizes, told, _place: place };
    Ok(upgrade.max_message_size(64 * 1024).on_upgrade(move |socket| follow.run(socket, stored, stop)))
}

/// What was there before: the newest lines, oldest first, and where they stand.
async fn stored(
    api: &Arc<ReadApi>,
    params: &Params,
    plan: &Plan,
    span: (LogTime, LogTime),
    limit: usize,
) -> Result<(Vec<Selected>, HashSet<Position>), LokiError> {
    let (logs, plan) = (Arc::clone(&api.logs), plan.clone());
    let work = move |deadline: &Deadline| {
        let mut told = HashSet::new();
        let mut note = |entry: &LogEntry| {
            told.insert(Position::of(entry));
        };
        let found = select_noting(&*logs, &plan, span, LogOrder::NewestFirst, limit, deadline, &mut note)?;
        Ok((found.lines, told))
    };
    let (mut lines, told) = api.gate.run(params.asked(api.clock.now()), None, work).await?;
    lines.reverse();
    Ok((lines, told))
}

struct Follow {
    tail: Tail,
    plan: Plan,
    categorizes: bool,
    /// Told already, and may come from the feed as well.
    told: HashSet<Position>,
    _place: OwnedSemaphorePermit,
}

impl Follow {
    async fn run(mut self, mut socket: WebSocket, stored: Vec<Selected>, stop: CancellationToken) {
        if !stored.is_empty() && !self.send(&mut socket, stored, 0).await {
            return;
        }
        let mut pings = tokio::time::interval(PING);
        loop {
            let item = tokio::select! {
                () = stop.cancelled() => break,
                item = self.tail.next() => item,
                // What the client sends does not matter, but that it is there does.
                message = socket.recv() => match message {
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                    Some(Ok(_)) => continue,
                },
                _ = pings.tick() => {
                    let sent = tokio::time::timeout(STALL, socket.send(Message::Ping(axum::body::Bytes::default()))).await;
                    if !matches!(sent, Ok(Ok(()))) {
                        return;
                    }
                    continue;
                }
            };
            let Some(item) = item else { break };
            let (lines, dropped) = self.batch(item);
            if (!lines.is_empty() || dropped > 0) && !self.send(&mut socket, lines, dropped).await {
                return;
            }
        }
        let _ = socket.send(Message::Close(None)).await;
    }

    /// What is there already, the first item included.
    fn batch(&mut self, first: TailItem) -> (Vec<Selected>, u64) {
        let mut lines = Vec::new();
        let mut dropped = 0;
        let mut next = Some(first);
        while let Some(item) = next.take() {
            match item {
                TailItem::Dropped(count) => dropped += count,
                TailItem::Entry(entry) => {
                    // One that is older than the beginning came late, and is new all the same.
                    let is_told = !self.told.is_empty() && self.told.remove(&Position::of(&entry));
                    if !is_told && let Some(row) = self.plan.run(&entry) {
                        lines.push(Selected::new(&row));
                    }
                }
            }
            if lines.len() < MAX_BATCH {
                next = futures_util::FutureExt::now_or_never(self.tail.next()).flatten();
            }
        }
        (lines, dropped)
    }

    /// Whether the client took it.
    async fn send(&self, socket: &mut WebSocket, lines: Vec<Selected>, dropped: u64) -> bool {
        let text = message(lines, dropped, self.categorizes);
        let sent = socket.send(Message::Text(Utf8Bytes::from(text)));
        matches!(tokio::time::timeout(STALL, sent).await, Ok(Ok(())))
    }
}

/// Lines by their streams, and how many were dropped.
fn message(lines: Vec<Selected>, dropped: u64, categorizes: bool) -> String {
    let at = lines.last().map_or(0, |line| line.time.0);
    let mut body = "{\"streams\":[".to_owned();
    for (number, stream) in answer::streams(lines, categorizes).iter().enumerate() {
        if number > 0 {
            body.push(',');
        }
        answer::push_stream(&mut body, stream, categorizes);
    }
    body.push(']');
    if categorizes {
        body.push_str(",\"encodingFlags\":[\"categorize-labels\"]");
    }
    // Loki names each of them; which they were is not known here.
    let dropped: Vec<Value> =
        (0..dropped.min(1)).map(|_| json!({ "labels": {}, "timestamp": at.to_string() })).collect();
    if !dropped.is_empty() {
        body.push_str(&format!(",\"dropped_entries\":{}", Value::from(dropped)));
    }
    body.push('}');
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logql::Kind;

    #[test]
    fn messages_are_those_of_loki() {
        let line = Selected {
            time: LogTime(5),
            line: b"x".to_vec(),
            labels: vec![("app".to_owned(), "a".to_owned(), Kind::Stream)],
        };
        assert_eq!(
            message(vec![line.clone()], 0, false),
            r#"{"streams":[{"stream":{"app":"a"},"values":[["5","x"]]}]}"#
        );
        assert_eq!(
            message(vec![line], 3, true),
            r#"{"streams":[{"stream":{"app":"a"},"values":[["5","x",{}]]}],"encodingFlags":["categorize-labels"],"dropped_entries":[{"labels":{},"timestamp":"5"}]}"#
        );
    }
}
