//! Live tail: server-sent events, or messages of a WebSocket where the client upgrades.
//!
//! ```text
//! event    data                                  id
//! open     {"hint":…}                            what "now" was
//! entry    an entry as in a search               its position
//! dropped  how many lines the reader missed
//! failed   why what was missed cannot be read; lines come as they are written
//! ```
//!
//! A reader that was away sends the last id back (`Last-Event-ID`, which browsers do by themselves, or `from=ID`; the id of
//! an entry of a search also does) and first gets what was stored since. Over a WebSocket each event is an object with
//! `type`, `data` and `id`.

use std::collections::{HashSet, VecDeque};
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::http::{HeaderMap, header};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use binnacle_model::log_query::LogQuery;
use binnacle_model::storage::Deadline;
use futures_util::{Stream, StreamExt, stream};
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;

use super::Api;
use crate::http::json::{entry_json, parse_cursor};
use crate::http::readers::Readers;
use crate::http::{ApiError, Asked, Params, ReadApi};
use crate::logs::{Missed, ParsedQuery, Position, Since, Tail, TailItem, missed, parse};

/// Rounds of what a reader missed; the rest is counted, and found by a search.
const MAX_ROUNDS: usize = 20;
/// A client that answers no ping is gone.
const PING: Duration = Duration::from_secs(15);
/// For a message to be taken.
const SEND_TIMEOUT: Duration = Duration::from_mins(1);
/// Messages of clients mean nothing.
const MESSAGE_MAX_BYTES: usize = 4096;

struct Event {
    kind: &'static str,
    data: Value,
    id: Option<String>,
}

impl Event {
    fn new(kind: &'static str, data: Value) -> Self {
        Self { kind, data, id: None }
    }
}

/// One reader of live tail.
struct Follow {
    api: Arc<ReadApi>,
    query: LogQuery,
    asked: Asked,
    /// What is missing, until it was told.
    since: Option<Since>,
    rounds: usize,
    tail: Option<Tail>,
    /// Told already, and may come from the feed as well.
    told: HashSet<Position>,
    pending: VecDeque<Event>,
    _place: OwnedSemaphorePermit,
}

impl Follow {
    fn new(
        api: Arc<ReadApi>,
        parsed: &ParsedQuery,
        asked: Asked,
        since: Option<Since>,
        place: OwnedSemaphorePermit,
    ) -> Self {
        let query = parsed.query.clone();
        let tail = since.is_none().then(|| Tail::open(&*api.feed, query.clone()));
        // What is sent at once tells the client that it is connected and from when on.
        let open = Event::new("open", json!({ "hint": parsed.hint() }));
        let pending = VecDeque::from([open]);
        Self { api, query, asked, since, rounds: 0, tail, told: HashSet::new(), pending, _place: place }
    }

    /// The next event; `None` when the server stops.
    async fn next(&mut self) -> Option<Event> {
        let stop = self.api.stop.clone();
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Some(event);
            }
            if let Some(since) = self.since {
                tokio::select! {
                    () = stop.cancelled() => return None,
                    () = self.catch_up(since) => {}
                }
                continue;
            }
            let query = &self.query;
            let tail = self.tail.get_or_insert_with(|| Tail::open(&*self.api.feed, query.clone()));
            let item = tokio::select! {
                () = stop.cancelled() => return None,
                item = tail.next() => item?,
            };
            match item {
                TailItem::Dropped(count) => return Some(Event::new("dropped", count.into())),
                TailItem::Entry(entry) => {
                    let position = Position::of(&entry);
                    if !self.told.remove(&position) {
                        return Some(entry_event(position, entry_json(&entry)));
                    }
                }
            }
        }
    }

    /// One round of what was missed. The feed is followed before the last round, so that nothing lies between.
    async fn catch_up(&mut self, since: Since) {
        self.rounds += 1;
        match self.round(since).await {
            Err(error) => {
                self.since = None;
                self.pending.push_back(Event::new("failed", error.to_string().into()));
            }
            Ok((told, left)) => {
                if self.tail.is_none() {
                    self.told.clear();
                }
                let last = told.last().map(|(position, _)| *position);
                self.told.extend(told.iter().map(|(position, _)| *position));
                self.pending.extend(told.into_iter().map(|(position, entry)| entry_event(position, entry)));
                self.since = Some(Since { position: last.or(since.position), ..since });
                let is_enough = self.rounds >= MAX_ROUNDS;
                if left > 0 && is_enough {
                    self.pending.push_back(Event::new("dropped", left.into()));
                }
                if left > 0 && !is_enough {
                    return;
                }
                if self.tail.is_some() || is_enough {
                    self.since = None;
                } else {
                    self.tail = Some(Tail::open(&*self.api.feed, self.query.clone()));
                }
            }
        }
    }

    async fn round(&self, since: Since) -> Result<(Vec<(Position, Value)>, u64), ApiError> {
        let (logs, query) = (Arc::clone(&self.api.logs), self.query.clone());
        let work = move |deadline: &Deadline| {
            let Missed { entries, left } = missed(&*logs, &query, since, deadline)?;
            let shown = entries.iter().map(|(position, entry)| (*position, entry_json(entry)));
            Ok((shown.collect(), left))
        };
        self.api.gate.run(self.asked.clone(), None, work).await
    }
}

fn entry_event(position: Position, entry: Value) -> Event {
    Event { kind: "entry", data: entry, id: Some(position.to_string()) }
}

/// From where on the client wants to be told.
fn since(params: &Params, headers: &HeaderMap) -> Result<Option<Since>, ApiError> {
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()).filter(|id| !id.is_empty());
    let Some(id) = last.or_else(|| params.get("from")) else { return Ok(None) };
    if let Some(position) = Position::parse(id) {
        return Ok(Some(Since { position: Some(position), cursor: None }));
    }
    let refuse = || ApiError::parameter("from", "take it from an event's id, or from the id of an entry");
    let cursor = parse_cursor(id).ok_or_else(refuse)?;
    Ok(Some(Since { position: None, cursor: Some(cursor) }))
}

/// The route, with places for so many readers.
pub(super) fn route() -> MethodRouter<Arc<ReadApi>> {
    let readers = Readers::default();
    get(move |api, upgrade, headers, params| {
        std::future::ready(tail(&readers, api, upgrade, &headers, &params))
    })
}

fn tail(
    readers: &Readers,
    State(api): Api,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
    headers: &HeaderMap,
    params: &Params,
) -> Result<Response, ApiError> {
    let parsed = parse(params.log_query(), api.clock.now_ns())?;
    let since = since(params, headers)?;
    let asked = params.asked(api.clock.now());
    let is_upgrade = headers.contains_key(header::UPGRADE);
    let place = readers.admit(headers)?;
    let follow = Follow::new(api, &parsed, asked, since, place);
    match upgrade {
        Ok(upgrade) => {
            let upgrade = upgrade.max_message_size(MESSAGE_MAX_BYTES).max_frame_size(MESSAGE_MAX_BYTES);
            Ok(upgrade.on_upgrade(|socket| speak(socket, follow)))
        }
        Err(rejection) if is_upgrade => Ok(rejection.into_response()),
        Err(_) => Ok(events(follow)),
    }
}

/// All events. What a poll began goes on with the next one.
fn stream_of(follow: Follow) -> impl Stream<Item = Event> + Send {
    stream::unfold(follow, |mut follow| async move { Some((follow.next().await?, follow)) }).fuse()
}

fn events(follow: Follow) -> Response {
    let events = stream_of(follow).map(|Event { kind, data, id }| {
        let mut event = sse::Event::default().event(kind).data(data.to_string());
        if let Some(id) = id {
            event = event.id(id);
        }
        Ok::<_, Infallible>(event)
    });
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}

/// Sends events until the client leaves.
async fn speak(mut socket: WebSocket, follow: Follow) {
    let mut events = pin!(stream_of(follow));
    let mut pings = tokio::time::interval(PING);
    // The first one comes at once.
    pings.tick().await;
    let mut is_alive = true;
    loop {
        let message = tokio::select! {
            event = events.next() => match event {
                Some(Event { kind, data, id }) => {
                    Message::text(json!({ "type": kind, "data": data, "id": id }).to_string())
                }
                None => break,
            },
            heard = socket.recv() => match heard {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => {
                    is_alive = true;
                    continue;
                }
            },
            _ = pings.tick() => {
                if !std::mem::replace(&mut is_alive, false) {
                    return;
                }
                Message::Ping(Vec::new().into())
            }
        };
        let sent = tokio::time::timeout(SEND_TIMEOUT, socket.send(message)).await;
        if !matches!(sent, Ok(Ok(()))) {
            return;
        }
    }
    let _ = socket.send(Message::Close(None)).await;
}
