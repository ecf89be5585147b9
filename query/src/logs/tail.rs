//! Live tail: entries as they become durable, filtered on the way; and what a reader missed who was away.
//!
//! ```text
//! away ─► missed (rounds of a scan, by position) ─► Tail, without what was in the last rounds
//! ```
//!
//! A reader gets entries in the order of their [`Position`]: as they were received. That is the order of the store's log as
//! long as the store gives later records no earlier `received`.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use binnacle_model::LogTime;
use binnacle_model::log::LogEntry;
use binnacle_model::log_query::LogQuery;
use binnacle_model::storage::{
    Deadline, LogCursor, LogFeed, LogOrder, LogRequest, LogSearcher, LogSubscriber, StorageError,
};
use tokio::sync::mpsc;
use xxhash_rust::xxh64::xxh64;

/// Entries that may wait for a slow reader; more are dropped and counted.
const QUEUE_ENTRIES: usize = 4096;

/// Entries, and bytes of their messages, of one round of what was missed.
const ROUND_ENTRIES: usize = 5_000;
const ROUND_BYTES: usize = 16 * 1024 * 1024;

/// Who was away is told of entries that were received since, if they were written that long before at most.
const LATENESS: Duration = Duration::from_hours(1);

/// What a tail shows.
#[derive(Debug, Clone)]
pub enum TailItem {
    /// An entry that satisfies the query.
    Entry(Arc<LogEntry>),
    /// So many more did, since the last item, but the reader was too slow.
    Dropped(u64),
}

/// The reading end of a live tail.
#[derive(Debug)]
pub struct Tail {
    entries: mpsc::Receiver<Arc<LogEntry>>,
    dropped: Arc<AtomicU64>,
}

struct Filter {
    query: LogQuery,
    entries: mpsc::Sender<Arc<LogEntry>>,
    dropped: Arc<AtomicU64>,
}

impl LogSubscriber for Filter {
    fn entries(&self, entries: &[Arc<LogEntry>]) -> bool {
        let mut wanted: Vec<_> = entries.iter().filter(|entry| self.query.matches(entry)).collect();
        wanted.sort_by_cached_key(|entry| Position::of(entry));
        for entry in wanted {
            if self.entries.try_send(Arc::clone(entry)).is_err() {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
        !self.entries.is_closed()
    }
}

impl Tail {
    /// Follows `feed` from now on.
    pub fn open(feed: &dyn LogFeed, query: LogQuery) -> Self {
        let (sender, entries) = mpsc::channel(QUEUE_ENTRIES);
        let dropped = Arc::new(AtomicU64::new(0));
        let filter = Filter { query, entries: sender, dropped: Arc::clone(&dropped) };
        feed.subscribe(Box::new(filter));
        Self { entries, dropped }
    }

    /// The next item; `None` once the feed has ended.
    pub async fn next(&mut self) -> Option<TailItem> {
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            return Some(TailItem::Dropped(dropped));
        }
        self.entries.recv().await.map(TailItem::Entry)
    }
}

/// An entry's place in the order in which readers get them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    received: LogTime,
    time: LogTime,
    offset: u64,
    /// Of all that tells an entry from others of that moment.
    hash: u64,
}

impl Position {
    /// Of an entry.
    pub fn of(entry: &LogEntry) -> Self {
        let of_file = xxh64(entry.origin.file.0.as_bytes(), 0);
        let of_stream = xxh64(entry.stream.to_string().as_bytes(), of_file);
        let hash = xxh64(&entry.message, of_stream);
        Self { received: entry.received, time: entry.time, offset: entry.origin.offset, hash }
    }

    /// Reads what `Display` writes.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('_');
        let received = LogTime(parts.next()?.parse().ok()?);
        let time = LogTime(parts.next()?.parse().ok()?);
        let offset = parts.next()?.parse().ok()?;
        let hash = u64::from_str_radix(parts.next()?, 16).ok()?;
        parts.next().is_none().then_some(Self { received, time, offset, hash })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}_{}_{:x}", self.received.0, self.time.0, self.offset, self.hash)
    }
}

/// From where on a reader who was away wants to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Since {
    /// Behind this entry of a search.
    pub cursor: Option<LogCursor>,
    /// Behind this entry of a tail.
    pub position: Option<Position>,
}

impl Since {
    /// Where a scan for it begins.
    fn start(&self) -> LogTime {
        let of_position = self.position.map(|position| position.received.minus(LATENESS));
        let of_cursor = self.cursor.map(|cursor| cursor.time);
        of_cursor.max(of_position).unwrap_or(LogTime(i64::MAX))
    }
}

/// A round of what a reader missed.
#[derive(Debug, Default)]
pub struct Missed {
    /// The first of them, in order.
    pub entries: Vec<(Position, LogEntry)>,
    /// How many there are behind these.
    pub left: u64,
}

/// The first entries that a reader missed. Memory is bounded; time grows with all that was missed.
pub fn missed(
    logs: &dyn LogSearcher,
    query: &LogQuery,
    since: Since,
    deadline: &Deadline,
) -> Result<Missed, StorageError> {
    let request = LogRequest { query: query.clone(), start: since.start(), end: LogTime(i64::MAX) };
    // Numbered, for two entries may be alike in everything.
    let mut first: BTreeMap<(Position, u64), LogEntry> = BTreeMap::new();
    let (mut bytes, mut left, mut number) = (0, 0, 0);
    logs.scan(&request, LogOrder::OldestFirst, deadline, &mut |cursor, entry| {
        let position = Position::of(&entry);
        let is_wanted =
            since.cursor.is_none_or(|at| cursor > at) && since.position.is_none_or(|at| position > at);
        if !is_wanted {
            return ControlFlow::Continue(());
        }
        bytes += entry.message.len();
        number += 1;
        first.insert((position, number), entry);
        while first.len() > ROUND_ENTRIES || (bytes > ROUND_BYTES && first.len() > 1) {
            let Some((_, last)) = first.pop_last() else { break };
            bytes -= last.message.len();
            left += 1;
        }
        ControlFlow::Continue(())
    })?;
    let entries = first.into_iter().map(|((position, _), entry)| (position, entry)).collect();
    Ok(Missed { entries, left })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_survive_a_round_trip() {
        let position = Position { received: LogTime(5), time: LogTime(-3), offset: u64::MAX, hash: 0xab };
        assert_eq!(Position::parse(&position.to_string()), Some(position));
        for text in ["", "1_2_3", "1_2_3_x", "1_2_3_4_5", "1.2.3"] {
            assert_eq!(Position::parse(text), None, "{text}");
        }
    }
}
