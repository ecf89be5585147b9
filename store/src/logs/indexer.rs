//! The thread that puts durable lines into partitions.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use binnacle_model::log::LogEntry;
use tantivy::TantivyError;

use super::Shared;
use super::partition::{Day, PartitionWriter};
use crate::wal::Sequence;

/// A line is searchable this long after it was acknowledged, at the most.
const COMMIT_EVERY: Duration = Duration::from_secs(1);

/// Pause before a failed commit is tried again; the disk may be full for a while.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Pause before a log that failed is asked again whether it goes on.
const WAL_RETRY_AFTER: Duration = Duration::from_millis(250);

/// Lines that may wait for the index, in bytes. A push that finds more is asked to come again.
const QUEUE_MAX_BYTES: usize = 64 * 1024 * 1024;

/// The lines of one record, of which there is one at least.
pub(super) struct Batch {
    pub(super) sequence: Sequence,
    pub(super) entries: Vec<Arc<LogEntry>>,
    pub(super) bytes: usize,
}

impl Batch {
    fn day(&self) -> Day {
        Day::of(self.entries.first().map(|entry| entry.received).unwrap_or_default())
    }
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

    /// Waits a while. `false`: the queue was stopped.
    fn pause(&self, pause: Duration) -> bool {
        let waited = self.changed.wait_timeout_while(self.lock(), pause, |state| !state.stopped);
        !waited.unwrap_or_else(PoisonError::into_inner).0.stopped
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
    /// Partitions with commits that searches do not see yet.
    reload: BTreeSet<Day>,
}

/// Tells the queue that its thread is gone, however it went: nobody may wait for it.
struct StopOnDrop(Arc<Shared>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.queue.stop();
    }
}

impl Indexer {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, writer: None, uncommitted: Vec::new(), reload: BTreeSet::new() }
    }

    /// Runs until the queue is stopped and empty.
    pub(super) fn run(self) {
        let _guard = StopOnDrop(Arc::clone(&self.shared));
        self.work();
    }

    fn work(mut self) {
        let mut due = Instant::now() + COMMIT_EVERY;
        loop {
            let mut is_last = false;
            match self.shared.queue.next(due) {
                Next::Batch(batch) => {
                    if !self.wait_durable(batch.sequence) {
                        return;
                    }
                    self.take(batch);
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
        self.close_writer();
    }

    /// Waits until a record is durable. A log that failed keeps it and may go on later. `false`: the queue was stopped
    /// before that, and the lines were never acknowledged.
    fn wait_durable(&self, sequence: Sequence) -> bool {
        while self.shared.wal.commit(sequence).is_err() {
            self.shared.queue.count_failure();
            if !self.shared.queue.pause(WAL_RETRY_AFTER) {
                return false;
            }
        }
        true
    }

    /// Takes the lines of one record that is durable: to whoever listens, then to the index.
    fn take(&mut self, batch: Batch) {
        self.shared.publish(&batch.entries);
        let day = batch.day();
        if self.writer.as_ref().is_some_and(|writer| writer.day != day) && self.commit() {
            self.close_writer();
        }
        // After a failure there is no writer, and the next commit adds what has gathered.
        let adds_now = self.uncommitted.is_empty() || self.writer.is_some();
        self.uncommitted.push(batch);
        if adds_now {
            let batch = self.uncommitted.last().expect("pushed above");
            if let Err(error) = Self::add(&self.shared, &mut self.writer, batch) {
                tracing::error!(%error, "log index takes no lines; will try again, the WAL has them");
                self.writer = None;
            }
        }
    }

    /// Adds the lines of a record to the writer of their day, opening it if there is none.
    fn add(shared: &Shared, slot: &mut Option<PartitionWriter>, batch: &Batch) -> tantivy::Result<()> {
        let writer = match slot {
            Some(writer) if writer.day == batch.day() => writer,
            Some(writer) => {
                let reason = format!("the writer of day {} is still open", writer.day.0);
                return Err(TantivyError::InternalError(reason));
            }
            None => slot.insert(shared.partition(batch.day())?.writer()?),
        };
        batch.entries.iter().try_for_each(|entry| writer.add(entry))
    }

    /// Commits all that was taken. Answers whether it is done.
    fn commit(&mut self) -> bool {
        self.reload_due();
        let outcome = if self.writer.is_some() { self.commit_writer() } else { self.commit_anew() };
        if let Err(error) = outcome {
            tracing::error!(%error, "log index commit failed; will try again, the WAL has the lines");
            self.writer = None;
            return false;
        }
        true
    }

    /// The usual case: everything uncommitted is in the open writer.
    fn commit_writer(&mut self) -> tantivy::Result<()> {
        let (Some(writer), Some(last)) = (&mut self.writer, self.uncommitted.last()) else { return Ok(()) };
        let last = last.sequence;
        writer.commit(last)?;
        self.reload.insert(writer.day);
        self.committed(self.uncommitted.len(), last);
        Ok(())
    }

    /// After a failure: nobody knows how far the last commit came, so that the partitions are asked.
    fn commit_anew(&mut self) -> tantivy::Result<()> {
        while let Some(first) = self.uncommitted.first() {
            let day = first.day();
            let count = self.uncommitted.iter().take_while(|batch| batch.day() == day).count();
            let last = self.uncommitted[count - 1].sequence;
            let known = self.shared.partition(day)?.committed()?;
            self.close_writer();
            for batch in self.uncommitted[..count].iter().filter(|batch| batch.sequence > known) {
                Self::add(&self.shared, &mut self.writer, batch)?;
            }
            if let Some(writer) = &mut self.writer {
                writer.commit(last)?;
            }
            self.reload.insert(day);
            self.committed(count, last);
        }
        Ok(())
    }

    /// The first `count` records are committed, up to `last`.
    fn committed(&mut self, count: usize, last: Sequence) {
        // Shown before anybody is told that they can be found.
        self.reload_due();
        let bytes = self.uncommitted.drain(..count).map(|batch| batch.bytes).sum();
        self.shared.queue.release(bytes);
        self.shared.queue.set_committed(last);
        self.shared.telemetry.log_commits.inc();
    }

    /// Shows what was committed. Where that fails the lines are kept all the same, and shown later.
    fn reload_due(&mut self) {
        let shared = &self.shared;
        self.reload.retain(|day| {
            let shown = shared.partition(*day).and_then(|partition| partition.reload());
            if let Err(error) = &shown {
                tracing::warn!(%error, "committed log lines are not shown yet");
            }
            shown.is_err()
        });
    }

    fn close_writer(&mut self) {
        if let Some(writer) = self.writer.take()
            && let Err(error) = writer.close()
        {
            tracing::warn!(%error, "log index writer did not end cleanly; the WAL has the lines");
        }
    }
}
