//! Deletion of the entries that a query finds.
//!
//! ```text
//! request ─► catalog ─► open pages end ─► per partition: index away ─► pages without the entries ─► index anew ─► done
//!                                          └ in the archive: pages, index, manifest anew
//! ```
//!
//! Invariants:
//! - A request that was answered is done, whatever crashes meanwhile: a start begins it again, and finds what is left.
//! - Only what was received before the request goes.
//! - The write-ahead log brings nothing back: replay leaves out what a deletion meant, also once it is finished.
//! - No index is left that has words of entries that are gone.

mod rewrite;

use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use binnacle_model::LogTime;
use binnacle_model::log::LogEntry;
use binnacle_model::log_query::LogQuery;
use binnacle_model::push::LogPush;
use binnacle_model::storage::{LogDeletion, LogDeletionState, LogRequest, StorageError};

use super::Logs;
use crate::catalog::Catalog;
use crate::wal::Sequence;

/// Deletions that are not finished.
const RUNNING_MAX: usize = 16;

/// Pause between two looks whether the lines of a moment are in pages.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// So many looks later it is asked for again.
const ASK_EVERY: u32 = 250;

/// Reads what somebody asked for, in Lucene's syntax; the moment is what `now` means in it.
pub type ParseQuery = fn(&str, LogTime) -> Result<LogQuery, String>;

/// What a deletion means.
#[derive(Debug, Clone)]
pub(super) struct Meant {
    pub(super) request: LogRequest,
    pub(super) through: LogTime,
    /// The last record of the log that it means.
    pub(super) sequence: Sequence,
}

impl Meant {
    fn is(&self, entry: &LogEntry) -> bool {
        let is_of_time = self.request.start <= entry.time && entry.time < self.request.end;
        is_of_time && self.request.query.matches(entry)
    }
}

/// The deletions of a store, oldest first.
#[derive(Debug, Default)]
pub(super) struct Deletions {
    all: Mutex<Vec<LogDeletion>>,
    parse: Option<ParseQuery>,
}

impl Deletions {
    /// Reads what the catalog has.
    pub(super) fn open(catalog: &Catalog, parse: Option<ParseQuery>) -> rusqlite::Result<Self> {
        Ok(Self { all: Mutex::new(catalog.log_deletions()?), parse })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<LogDeletion>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn meant(&self, one: &LogDeletion) -> Result<Meant, String> {
        let parse = self.parse.ok_or("nobody reads queries here")?;
        let query = parse(&one.query, one.through)?;
        let request = LogRequest { query, start: one.start, end: one.end };
        Ok(Meant { request, through: one.through, sequence: Sequence(one.sequence) })
    }

    /// What the log must not bring back.
    pub(super) fn all_meant(&self) -> Vec<Meant> {
        let all = self.lock();
        // Of one that was cancelled the lines that are left count as any other.
        let is_meant =
            |one: &&LogDeletion| matches!(one.state, LogDeletionState::Running | LogDeletionState::Done);
        let read = |one: &LogDeletion| match self.meant(one) {
            Ok(meant) => Some(meant),
            Err(reason) => {
                tracing::error!(
                    id = one.id,
                    query = one.query,
                    reason,
                    "a deletion of log entries is read no more: the log may bring some back"
                );
                None
            }
        };
        all.iter().filter(is_meant).filter_map(read).collect()
    }

    fn running(&self) -> Vec<LogDeletion> {
        self.lock().iter().filter(|one| one.state == LogDeletionState::Running).cloned().collect()
    }

    /// Changes one, and writes it down.
    fn change(
        &self,
        catalog: &Catalog,
        id: u64,
        change: impl FnOnce(&mut LogDeletion),
    ) -> rusqlite::Result<Option<LogDeletion>> {
        let mut all = self.lock();
        let Some(one) = all.iter_mut().find(|one| one.id == id) else { return Ok(None) };
        let mut changed = one.clone();
        change(&mut changed);
        catalog.save_log_deletion(&changed)?;
        one.clone_from(&changed);
        Ok(Some(changed))
    }

    fn is_running(&self, id: u64) -> bool {
        self.lock().iter().any(|one| one.id == id && one.state == LogDeletionState::Running)
    }
}

/// Takes out of a record what deletions meant. Answers whether it had any.
pub(super) fn leave_out(
    push: &mut LogPush,
    received: LogTime,
    sequence: Sequence,
    deletions: &[Meant],
) -> bool {
    let mut had = false;
    let deletions: Vec<&Meant> = deletions.iter().filter(|one| sequence <= one.sequence).collect();
    if deletions.is_empty() {
        return false;
    }
    for batch in &mut push.batches {
        let Ok(stream) = batch.stream_labels() else { continue };
        let entries = std::mem::take(&mut batch.entries);
        let (gone, left) = entries
            .into_iter()
            .partition(|one| deletions.iter().any(|meant| meant.is(&batch.to_entry(&stream, one, received))));
        let gone: Vec<_> = gone;
        had |= !gone.is_empty();
        batch.entries = left;
    }
    had
}

fn broken(error: &rusqlite::Error) -> StorageError {
    StorageError::Broken(format!("the catalog: {error}"))
}

impl Logs {
    /// See [`binnacle_model::storage::LogKeeper::delete`].
    pub(crate) fn delete(
        &self,
        query: &str,
        request: &LogRequest,
        catalog: &Catalog,
        now: LogTime,
    ) -> Result<LogDeletion, StorageError> {
        let deletions = &self.shared.deletions;
        let running = deletions.lock().iter().filter(|one| one.state == LogDeletionState::Running).count();
        if running >= RUNNING_MAX {
            let reason = format!("{running} deletions are under way; wait for one, or cancel one");
            return Err(StorageError::Broken(reason));
        }
        let (through, sequence) = {
            let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
            let through = marks.received.max(now);
            // Whatever comes from here on was received later.
            marks.received = LogTime(through.0.saturating_add(1));
            (through, self.last_record())
        };
        let mut all = deletions.lock();
        let id = all.last().map_or(1, |last| last.id + 1);
        let one = LogDeletion {
            id,
            query: query.to_owned(),
            start: request.start,
            end: request.end,
            through,
            sequence: sequence.0,
            state: LogDeletionState::Running,
            pages: 0,
            pages_done: 0,
            removed: 0,
            trouble: None,
        };
        deletions.meant(&one).map_err(StorageError::Broken)?;
        catalog.save_log_deletion(&one).map_err(|error| broken(&error))?;
        all.push(one.clone());
        tracing::info!(id, query, "log entries are being deleted");
        Ok(one)
    }

    /// See [`binnacle_model::storage::LogKeeper::deletions`].
    pub(crate) fn deletions(&self) -> Vec<LogDeletion> {
        self.shared.deletions.lock().iter().rev().cloned().collect()
    }

    /// See [`binnacle_model::storage::LogKeeper::cancel`].
    pub(crate) fn cancel_deletion(
        &self,
        id: u64,
        catalog: &Catalog,
    ) -> Result<Option<LogDeletion>, StorageError> {
        let cancel = |one: &mut LogDeletion| {
            if one.state == LogDeletionState::Running {
                one.state = LogDeletionState::Cancelled;
            }
        };
        self.shared.deletions.change(catalog, id, cancel).map_err(|error| broken(&error))
    }

    /// The last record of which there are lines.
    fn last_record(&self) -> Sequence {
        let queue = &self.shared.queue;
        let partitions = self.shared.partitions();
        let pages = partitions.iter().flat_map(|partition| partition.pages());
        let of_pages = pages.map(|page| page.summary.sequences.1);
        of_pages.fold(queue.last_queued().max(queue.sealed()), Sequence::max)
    }

    /// Goes on with deletions, oldest first. Answers whether all are finished; one that cannot go on keeps no other from it.
    pub(crate) fn run_deletions(&self, catalog: &Catalog) -> rusqlite::Result<bool> {
        let mut all_finished = true;
        for one in self.shared.deletions.running() {
            if self.stopping.load(Ordering::Relaxed) {
                return Ok(false);
            }
            let meant = match self.shared.deletions.meant(&one) {
                Ok(meant) => meant,
                Err(reason) => {
                    self.shared.deletions.change(catalog, one.id, |one| {
                        (one.state, one.trouble) = (LogDeletionState::Failed, Some(reason));
                    })?;
                    continue;
                }
            };
            if !self.wait_sealed(one.id) {
                all_finished &= !self.shared.deletions.is_running(one.id);
                continue;
            }
            all_finished &= self.delete_everywhere(&one, &meant, catalog)?;
        }
        Ok(all_finished)
    }

    /// Waits until all lines that came so far are in sealed pages. `false`: they are not, and it makes no sense to wait.
    fn wait_sealed(&self, id: u64) -> bool {
        let through = self.shared.queue.last_queued();
        let (failures, mut looks) = (self.shared.queue.failures(), 0u32);
        while self.shared.queue.sealed() < through {
            if self.stopping.load(Ordering::Relaxed)
                || !self.shared.deletions.is_running(id)
                || self.shared.queue.failures() != failures
                || !self.shared.queue.flush(through)
            {
                return false;
            }
            if looks.is_multiple_of(ASK_EVERY) {
                self.shared.queue.ask_to_seal();
            }
            looks = looks.wrapping_add(1);
            std::thread::sleep(LOOK_EVERY);
        }
        true
    }
}
