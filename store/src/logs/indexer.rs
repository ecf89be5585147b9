//! The thread that puts durable lines into partitions.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use binnacle_model::log::LogEntry;

use super::Shared;
use super::partition::{Day, PartitionWriter};
use crate::wal::Sequence;

/// A line is searchable this long after it was acknowledged, at the most.
const COMMIT_EVERY: Duration = Duration::from_secs(1);

/// Pause before a failed commit is tried again; the disk may be full for a while.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Lines that may wait for the index, in bytes. A push that finds more is asked to come again.
const QUEUE_MAX_BYTES: usize = 64 * 1024 * 1024;

/// The lines of one record.
pub(super) struct Batch {
    pub(super) sequence: Sequence,
    pub(super) entries: Vec<Arc<LogEntry>>,
    pub(super) bytes: usize,
}

/// Lines on their way to the index, in the order of the WAL.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<QueueState>,
    changed: Condvar,
}

#[derive(Default)]
struct QueueState {
    batches: VecDeque<Batch>,
    bytes: usize,
    stopped: bool,
    /// The last record that came.
    queued: Sequence,
    /// The last record whose lines are all committed.
    committed: Sequence,
    /// Somebody wants everything committed now.
    flush: bool,
    /// Commits that failed since the start.
    failures: u64,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it takes no more for now.
    pub(super) fn is_full(&self) -> bool {
        self.lock().bytes >= QUEUE_MAX_BYTES
    }

    pub(super) fn push(&self, batch: Batch) {
        let mut state = self.lock();
        state.bytes += batch.bytes;
        state.queued = batch.sequence;
        state.batches.push_back(batch);
        self.changed.notify_all();
    }

    /// Lets the thread commit what there is and end.
    pub(super) fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    pub(super) fn committed(&self) -> Sequence {
        self.lock().committed
    }

    /// The last record that came.
    pub(super) fn last_queued(&self) -> Sequence {
        self.lock().queued
    }

    pub(super) fn set_committed(&self, through: Sequence) {
        self.lock().committed = through;
        self.changed.notify_all();
    }

    /// Waits until every line up to `sequence` is committed; false if the queue stopped or a commit
    /// failed before.
    pub(super) fn flush(&self, sequence: Sequence) -> bool {
        let mut state = self.lock();
        let failures = state.failures;
        while state.committed < sequence && !state.stopped && state.failures == failures {
            state.flush = true;
            self.changed.notify_all();
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.committed >= sequence
    }

    /// Waits for work until `until`.
    fn next(&self, until: Instant) -> Next {
        let mut state = self.lock();
        loop {
            if let Some(batch) = state.batches.pop_front() {
                return Next::Batch(batch);
            }
            if state.stopped {
                return Next::Stop;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || std::mem::take(&mut state.flush) {
                return Next::Commit;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn count_failure(&self) {
        self.lock().failures += 1;
        self.changed.notify_all();
    }

    fn release(&self, bytes: usize) {
        self.lock().bytes -= bytes;
    }
}

enum Next {
    Batch(Batch),
    Commit,
    Stop,
}

/// State of the thread.
pub(super) struct Indexer {
    shared: Arc<Shared>,
    writer: Option<PartitionWriter>,
    /// Added since the last commit; added again if the commit fails.
    uncommitted: Vec<Batch>,
    last: Sequence,
}

impl Indexer {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let last = shared.queue.committed();
        Self { shared, writer: None, uncommitted: Vec::new(), last }
    }

    /// Runs until the queue is stopped and empty.
    pub(super) fn run(self) {
        let shared = Arc::clone(&self.shared);
        self.work();
        // However it ended: nobody may wait for a thread that is gone.
        shared.queue.stop();
    }

    fn work(mut self) {
        let mut due = Instant::now() + COMMIT_EVERY;
        loop {
            let mut is_last = false;
            match self.shared.queue.next(due) {
                Next::Batch(batch) => {
                    if self.take(batch).is_err() {
                        // The WAL failed: these lines were never acknowledged, and none will follow.
                        return;
                    }
                }
                Next::Commit => due = Instant::now(),
                Next::Stop => {
                    due = Instant::now();
                    is_last = true;
                }
            }
            let queued = self.shared.queue.lock().bytes;
            self.shared.telemetry.lines_queued.set(queued as i64);
            if Instant::now() >= due {
                let done = self.commit();
                if !done {
                    self.shared.queue.count_failure();
                }
                due = Instant::now() + if done { COMMIT_EVERY } else { RETRY_AFTER };
            }
            if is_last {
                break;
            }
        }
        if let Some(writer) = self.writer.take()
            && let Err(error) = writer.close()
        {
            tracing::warn!(%error, "log index writer did not end cleanly; the WAL has the lines");
        }
    }

    /// Takes the lines of one record once they are durable: to whoever listens, then to the index.
    fn take(&mut self, batch: Batch) -> Result<(), crate::wal::WalError> {
        self.shared.wal.commit(batch.sequence)?;
        self.shared.publish(&batch.entries);
        let day = batch.entries.first().map(|entry| Day::of(entry.received));
        if let Some(day) = day
            && self.writer.as_ref().is_some_and(|writer| writer.day != day)
        {
            self.commit();
        }
        self.last = batch.sequence;
        if self.uncommitted.is_empty() || self.writer.is_some() {
            self.add(&batch);
        }
        self.uncommitted.push(batch);
        Ok(())
    }

    /// Adds to the writer of the batch's day. Without a writer after a failure, the next commit adds.
    fn add(&mut self, batch: &Batch) {
        let Some(first) = batch.entries.first() else { return };
        let day = Day::of(first.received);
        if let Err(error) = self.try_add(day, batch) {
            tracing::error!(%error, "log index takes no lines; will try again, the WAL has them");
            self.writer = None;
        }
    }

    fn try_add(&mut self, day: Day, batch: &Batch) -> tantivy::Result<()> {
        if self.writer.as_ref().is_some_and(|writer| writer.day != day)
            && let Some(writer) = self.writer.take()
        {
            writer.close()?;
        }
        if self.writer.is_none() {
            self.writer = Some(self.shared.partition(day)?.writer()?);
        }
        let writer = self.writer.as_ref().expect("set above");
        batch.entries.iter().try_for_each(|entry| writer.add(entry))
    }

    /// Commits all that was taken. Answers whether it is done.
    fn commit(&mut self) -> bool {
        if self.uncommitted.is_empty() {
            return true;
        }
        if self.writer.is_none() {
            let batches = std::mem::take(&mut self.uncommitted);
            batches.iter().for_each(|batch| self.add(batch));
            self.uncommitted = batches;
        }
        let last = self.last;
        let Some(writer) = &mut self.writer else { return false };
        let day = writer.day;
        let done = writer.commit(last).and_then(|()| self.shared.partition(day)?.reload());
        if let Err(error) = done {
            tracing::error!(%error, "log index commit failed; will try again, the WAL has the lines");
            self.writer = None;
            return false;
        }
        let bytes = self.uncommitted.drain(..).map(|batch| batch.bytes).sum();
        self.shared.queue.release(bytes);
        self.shared.queue.set_committed(last);
        self.shared.telemetry.log_commits.inc();
        true
    }
}
