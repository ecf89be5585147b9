//! Lines on their way from the log into pages, in the order of the log.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use binnacle_model::LogTime;
use binnacle_model::push::{FileBatch, LogPush};

use super::class::ClassName;
use crate::wal::Sequence;

/// Lines that may wait, in bytes. A push that finds more is asked to come again.
const QUEUE_MAX_BYTES: usize = 64 * 1024 * 1024;

/// The lines of one record, of which there is one at least.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) sequence: Sequence,
    pub(super) received: LogTime,
    pub(super) push: LogPush,
    /// Of each batch of the push; none if all are of the default class.
    pub(super) classes: Vec<ClassName>,
    pub(super) bytes: usize,
    /// Classes whose lines of this record are in pages already.
    pub(super) covered: Vec<ClassName>,
    /// Classes of which a page has records between the one before it and this one, so that no page may have both.
    pub(super) begins_page: Vec<ClassName>,
}

impl Batch {
    /// The classes that have lines here which no page has, each once.
    pub(super) fn missing_classes(&self) -> Vec<ClassName> {
        let mut classes = classes_of(&self.push, &self.classes);
        classes.retain(|class| !self.covered.contains(class));
        classes
    }

    /// The batches of a class, each with the number of lines without a file that come before it.
    pub(super) fn of_class(&self, class: &str) -> Vec<(u64, &FileBatch)> {
        let mut unnamed = 0;
        let mut found = Vec::new();
        for (at, batch) in self.push.batches.iter().enumerate() {
            if self.classes.get(at).map_or("", |name| name) == class {
                found.push((unnamed, batch));
            }
            if batch.file.is_empty() {
                unnamed += batch.entries.len() as u64;
            }
        }
        found
    }
}

/// The classes that have lines in a push, each once.
pub(super) fn classes_of(push: &LogPush, classes: &[ClassName]) -> Vec<ClassName> {
    if classes.is_empty() {
        return vec![ClassName::from("")];
    }
    let mut found: Vec<ClassName> = Vec::new();
    for (batch, class) in push.batches.iter().zip(classes) {
        if !batch.entries.is_empty() && !found.contains(class) {
            found.push(ClassName::clone(class));
        }
    }
    found
}

/// See the module.
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
    /// The last record whose lines can be found.
    taken: Sequence,
    /// The last record whose lines are all in sealed pages, with those of all before it.
    sealed: Sequence,
    /// Somebody wants the open page sealed.
    seal: bool,
    /// Attempts that failed since the start.
    failures: u64,
}

/// What to do next.
pub(super) enum Next {
    Take(Batch),
    Seal,
    Wait,
    Stop,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that it takes before it takes no more; a push may be larger than that.
    pub(super) fn room(&self) -> usize {
        QUEUE_MAX_BYTES.saturating_sub(self.lock().bytes)
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.lock().bytes
    }

    pub(super) fn push(&self, batch: Batch) {
        let mut state = self.lock();
        state.bytes += batch.bytes;
        state.queued = batch.sequence;
        state.batches.push_back(batch);
        self.changed.notify_all();
    }

    /// Lets the thread take what there is and end.
    pub(super) fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    /// The last record whose lines are all in sealed pages.
    pub(super) fn sealed(&self) -> Sequence {
        self.lock().sealed
    }

    /// The last record that came.
    pub(super) fn last_queued(&self) -> Sequence {
        self.lock().queued
    }

    /// The lines of a record can be found now.
    pub(super) fn taken(&self, sequence: Sequence, bytes: usize) {
        let mut state = self.lock();
        state.taken = sequence;
        state.bytes -= bytes;
        self.changed.notify_all();
    }

    pub(super) fn set_sealed(&self, through: Sequence) {
        self.lock().sealed = through;
        self.changed.notify_all();
    }

    /// Asks for the open page to be sealed soon.
    pub(super) fn ask_to_seal(&self) {
        self.lock().seal = true;
        self.changed.notify_all();
    }

    /// Waits until every line up to `sequence` can be found; false if the queue stopped or an attempt failed before.
    pub(super) fn flush(&self, sequence: Sequence) -> bool {
        let mut state = self.lock();
        let failures = state.failures;
        while state.taken < sequence && !state.stopped && state.failures == failures {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.taken >= sequence
    }

    /// Waits for work until `until`. With `only_wait` nothing more is taken.
    pub(super) fn next(&self, until: Instant, only_wait: bool) -> Next {
        let mut state = self.lock();
        loop {
            if std::mem::take(&mut state.seal) {
                return Next::Seal;
            }
            if !only_wait && let Some(batch) = state.batches.pop_front() {
                return Next::Take(batch);
            }
            if state.stopped {
                return Next::Stop;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Next::Wait;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits a while. `false`: the queue was stopped.
    pub(super) fn pause(&self, pause: Duration) -> bool {
        let waited = self.changed.wait_timeout_while(self.lock(), pause, |state| !state.stopped);
        !waited.unwrap_or_else(PoisonError::into_inner).0.stopped
    }

    /// Attempts that failed since the start.
    pub(super) fn failures(&self) -> u64 {
        self.lock().failures
    }

    pub(super) fn count_failure(&self) {
        self.lock().failures += 1;
        self.changed.notify_all();
    }
}
