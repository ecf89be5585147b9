//! Live tail: entries as they become durable, filtered on the way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use binnacle_model::log::LogEntry;
use binnacle_model::log_query::LogQuery;
use binnacle_model::storage::{LogFeed, LogSubscriber};
use tokio::sync::mpsc;

/// Entries that may wait for a slow reader; more are dropped and counted.
const QUEUE_ENTRIES: usize = 4096;

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
        for entry in entries.iter().filter(|entry| self.query.matches(entry)) {
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
