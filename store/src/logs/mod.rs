//! Logs: lines in, entries out.
//!
//! ```text
//! append ─► marks ─► wal ─(fdatasync)─► acknowledged
//!                     └─► queue ─► indexer thread ─┬─► subscribers (live tail)
//!                                                  └─► open page ─(full)─► sealed page of a partition
//! search ─► open pages, then sealed ones, newest first                      └─(expire)─► gone
//! ```
//!
//! Invariants:
//! - The lines of a push and the marks of their files are one record: kept or lost together.
//! - A line below its file's mark is never taken again.
//! - All lines of a record are in one page, which says which records it has. The log is needed from the first record on
//!   that is in no sealed page.
//! - Subscribers hear of lines that are durable, and of no others.
//! - A search sees a page open or sealed, never both.

mod indexer;
mod marks;
mod page;
mod partition;
mod queue;
mod search;
mod split;
mod template;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use binnacle_model::log::FileId;
use binnacle_model::push::LogPush;
use binnacle_model::storage::{AppendError, LogAppendReport, LogSubscriber};
use binnacle_model::{LogTime, Timestamp};
use prost::Message;

use indexer::Indexer;
use marks::Marks;
#[doc(hidden)]
pub use page::try_log_page;
use page::{OpenPage, PageError};
use partition::{Day, PageFile, Partition, PartitionId};
use queue::{Batch, Queue};

use crate::catalog::Catalog;
use crate::fs::Disk;
use crate::space::Space;
use crate::telemetry::Telemetry;
use crate::wal::{RecordKind, SealedFile, Sequence, Wal, WalFileId};

/// This file is there while lines of damaged pages are on their way back out of the log.
pub(crate) const REFILL: &str = "refill";

/// Name before that of a partition that is being removed.
const GONE: &str = "gone-";

/// How long a full queue asks a sender to wait.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// By so much a push may have been received before the one that came before it.
const STEP_BACK_MAX: Duration = Duration::from_secs(10);

/// Pages that one round of maintenance reads anew.
const VERIFIED_AT_ONCE: usize = 2;

/// A page that has taken lines for so long is sealed, so that the log need not be kept for it.
const SEAL_AFTER: Duration = Duration::from_mins(15);

/// How logs are kept.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Age, by intake time, at which a partition expires.
    pub retention: Duration,
    /// Bytes of memory for what searches read of pages.
    pub cache_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { retention: Duration::from_hours(720), cache_bytes: 256 * 1024 * 1024 }
    }
}

/// The log engine.
pub(crate) struct Logs {
    shared: Arc<Shared>,
    /// Lines up to here are to be put back into pages of partitions that were damaged.
    refill: Mutex<Option<Sequence>>,
    options: Options,
    marks: Mutex<Marks>,
    indexer: Mutex<Option<JoinHandle<()>>>,
    /// Whether a page was set aside since the start: only the next start can put its lines back.
    damaged: AtomicBool,
    /// The page that was verified last.
    verified: Mutex<Option<(PartitionId, u32)>>,
}

/// A page that is not sealed yet, and the day of its partition.
struct OpenPages {
    day: Day,
    page: OpenPage,
}

/// What the indexer's thread and the callers share.
struct Shared {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    wal: Arc<Wal>,
    queue: Queue,
    partitions: RwLock<BTreeMap<PartitionId, Arc<Partition>>>,
    /// Oldest first; the last one takes lines, the others wait for the disk.
    open: RwLock<Vec<OpenPages>>,
    interned: Mutex<page::Shared>,
    subscribers: Mutex<Vec<Box<dyn LogSubscriber>>>,
    space: Arc<Space>,
    telemetry: Telemetry,
    cache_bytes: usize,
    /// Pages in which a search found damage.
    suspects: Mutex<Vec<PathBuf>>,
}

impl Shared {
    fn open_pages(&self) -> RwLockReadGuard<'_, Vec<OpenPages>> {
        self.open.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_pages_mut(&self) -> RwLockWriteGuard<'_, Vec<OpenPages>> {
        self.open.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Oldest first.
    fn partitions(&self) -> Vec<Arc<Partition>> {
        self.partitions.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn add_partition(&self, partition: Arc<Partition>) {
        let mut partitions = self.partitions.write().unwrap_or_else(PoisonError::into_inner);
        partitions.insert(partition.id, partition);
        self.telemetry.partitions.set(partitions.len() as i64);
    }
}

/// What replay needs before there is a WAL.
pub(crate) struct Opening {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    options: Options,
    partitions: BTreeMap<PartitionId, Arc<Partition>>,
    interned: Mutex<page::Shared>,
    /// Records that sealed pages have, ascending and apart.
    covered: Vec<(Sequence, Sequence)>,
    /// The last record of which all lines were in pages.
    through: Sequence,
    /// A page was set aside, now or before a crash: of its lines the log may still have some.
    refills: bool,
    marks: Marks,
    /// Lines of the WAL that no page has.
    missing: Vec<Batch>,
    /// Whether a page has the record that was read last.
    was_covered: bool,
    last: Sequence,
}

impl Opening {
    /// Opens the partitions and reads the marks.
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: Options,
        catalog: &Catalog,
    ) -> Result<Self, OpenLogsError> {
        let read = |cause| OpenLogsError::Read { path: dir.to_path_buf(), cause };
        disk.create_dir_all(dir).map_err(read)?;
        let mark_refill = || {
            disk.create(&dir.join(REFILL))?.sync()?;
            disk.sync_dir(dir)
        };
        let mut partitions = BTreeMap::new();
        let mut refills = disk.exists(&dir.join(REFILL)).map_err(read)?;
        let interned = Mutex::default();
        let mut covered = Vec::new();
        for name in disk.list(dir).map_err(read)? {
            if name.starts_with(GONE) {
                // A crash came between its renaming and its removal.
                disk.remove_dir_all(&dir.join(&name)).map_err(read)?;
            }
            let Some(id) = PartitionId::of_name(&name) else {
                // A day without a part.
                if name.strip_prefix('p').is_some_and(|day| day.parse::<i64>().is_ok()) {
                    let path = dir.join(&name);
                    tracing::error!(path = %path.display(), "log lines of an earlier format are not read; remove them");
                }
                continue;
            };
            let opened = Partition::open(&*disk, dir, id, &interned, &mark_refill);
            let opened = opened.map_err(|cause| OpenLogsError::Read { path: dir.join(&name), cause })?;
            refills |= opened.damaged > 0;
            covered.extend(opened.partition.pages().iter().map(|page| page.summary.sequences));
            partitions.insert(id, Arc::new(opened.partition));
        }
        covered.sort_unstable();
        let by_file = catalog.marks().map_err(OpenLogsError::Catalog)?;
        let marks = Marks { by_file, ..Marks::default() };
        let through = catalog.logs_through().map_err(OpenLogsError::Catalog)?;
        let through = covered.iter().map(|(_, last)| *last).fold(through, Sequence::max);
        let (missing, last) = (Vec::new(), Sequence::default());
        let dir = dir.to_path_buf();
        Ok(Self {
            disk,
            dir,
            options,
            partitions,
            interned,
            covered,
            through,
            refills,
            marks,
            missing,
            was_covered: false,
            last,
        })
    }

    /// Takes one record of lines back in. Answers whether it was well formed.
    pub(crate) fn replay(&mut self, sequence: Sequence, payload: &[u8]) -> bool {
        let Some((received, push)) = payload.split_first_chunk::<8>() else { return false };
        let received = LogTime(i64::from_le_bytes(*received));
        let Ok(push) = LogPush::decode(push) else { return false };
        for batch in &push.batches {
            self.marks.raise(batch);
        }
        self.last = sequence;
        // Pages do not overlap (`begins_page`), so that the few before it are enough.
        let at = self.covered.partition_point(|(first, _)| *first <= sequence);
        let is_covered = self.covered[..at].iter().rev().take(64).any(|(_, last)| sequence <= *last);
        let is_sound = push.batches.iter().all(|batch| batch.stream_labels().is_ok());
        if is_covered || !is_sound {
            self.was_covered |= is_covered;
            return is_sound;
        }
        if push.batches.iter().any(|batch| !batch.entries.is_empty()) {
            let begins_page = std::mem::take(&mut self.was_covered);
            self.missing.push(Batch { sequence, received, push, bytes: payload.len(), begins_page });
        }
        true
    }

    /// The last record that was there for certain.
    pub(crate) fn wal_floor(&self) -> Sequence {
        self.through
    }

    /// Up to here no line of the log is wanted.
    pub(crate) fn saved_through(&self) -> Sequence {
        if self.refills { Sequence(0) } else { self.through }
    }

    /// The engine, ready: what pages lack is queued for them.
    pub(crate) fn finish(self, wal: Arc<Wal>, space: Arc<Space>, telemetry: Telemetry) -> io::Result<Logs> {
        let before = self.missing.first().map_or(self.last, |batch| Sequence(batch.sequence.0 - 1));
        telemetry.partitions.set(self.partitions.len() as i64);
        let shared = Arc::new(Shared {
            disk: self.disk,
            dir: self.dir,
            wal,
            queue: Queue::default(),
            partitions: RwLock::new(self.partitions),
            open: RwLock::default(),
            interned: self.interned,
            subscribers: Mutex::default(),
            space,
            telemetry,
            cache_bytes: self.options.cache_bytes,
            suspects: Mutex::default(),
        });
        shared.queue.set_sealed(before);
        let last_missing = self.missing.last().map_or(Sequence(0), |batch| batch.sequence);
        let refill = Mutex::new(self.refills.then_some(last_missing));
        self.missing.into_iter().for_each(|batch| shared.queue.push(batch));
        let indexer = Indexer::new(Arc::clone(&shared), before);
        let thread = std::thread::Builder::new().name("log-indexer".into()).spawn(move || indexer.run())?;
        let (marks, indexer) = (Mutex::new(self.marks), Mutex::new(Some(thread)));
        let verified = Mutex::default();
        let damaged = AtomicBool::new(false);
        Ok(Logs { shared, refill, options: self.options, marks, indexer, damaged, verified })
    }
}

/// Why the log engine could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenLogsError {
    /// The disk refused.
    #[error("cannot read {}", path.display())]
    Read {
        /// Where.
        path: PathBuf,
        /// What the disk said.
        #[source]
        cause: io::Error,
    },
    /// The catalog cannot be read.
    #[error("cannot read the marks of log files")]
    Catalog(#[source] rusqlite::Error),
}

impl Logs {
    /// See [`binnacle_model::storage::LogAppender::append`].
    pub(crate) fn append(
        &self,
        mut push: LogPush,
        received: LogTime,
    ) -> Result<LogAppendReport, AppendError> {
        let failed = |error: crate::wal::WalError| AppendError::Unavailable(error.to_string());
        self.shared.space.admit()?;
        if self.shared.queue.is_full() {
            return Err(AppendError::Full { what: "log queue", retry_after: RETRY_AFTER });
        }
        for batch in &push.batches {
            batch.stream_labels().map_err(|error| AppendError::Invalid(format!("log stream: {error}")))?;
        }
        let (report, sequence) = {
            let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
            let report = marks.skip_known(&mut push);
            if push.batches.is_empty() {
                // What makes these lines known may still be on its way to the disk.
                drop(marks);
                self.shared.wal.commit_all().map_err(failed)?;
                self.shared.telemetry.count_lines(&report);
                return Ok(report);
            }
            if let Some(error) = self.shared.wal.error() {
                return Err(failed(error));
            }
            // Small steps back are the order in which senders came here; larger ones are the clock's.
            let is_small = marks.received.minus(STEP_BACK_MAX) < received;
            let received = if is_small { received.max(marks.received) } else { received };
            marks.received = received;
            let bytes = push.encoded_len();
            let sequence = self.shared.wal.append(RecordKind::Lines, |_, out| {
                out.extend_from_slice(&received.0.to_le_bytes());
                push.encode_raw(out);
            });
            push.batches.iter().for_each(|batch| marks.raise(batch));
            // Queued under the lock, so that the indexer sees records in their order.
            if report.appended > 0 {
                self.shared.queue.push(Batch { sequence, received, push, bytes, begins_page: false });
            }
            (report, sequence)
        };
        self.shared.wal.commit(sequence).map_err(failed)?;
        self.shared.telemetry.count_lines(&report);
        Ok(report)
    }

    /// Adds a listener for lines that come from now on.
    pub(crate) fn subscribe(&self, subscriber: Box<dyn LogSubscriber>) {
        self.shared.subscribers.lock().unwrap_or_else(PoisonError::into_inner).push(subscriber);
    }

    /// Waits until every line acknowledged so far can be found.
    pub(crate) fn flush(&self) -> bool {
        self.shared.queue.flush(self.shared.queue.last_queued())
    }

    /// Seals what is there, and waits until it is.
    #[cfg(test)]
    pub(crate) fn seal_now(&self) {
        assert!(self.flush());
        self.shared.queue.ask_to_seal();
        while self.shared.queue.sealed() < self.shared.queue.last_queued() {
            std::thread::yield_now();
        }
    }

    /// Once the lines of damaged pages are in new ones, starts may trust these again.
    pub(crate) fn end_refill(&self) -> io::Result<()> {
        let mut refill = self.refill.lock().unwrap_or_else(PoisonError::into_inner);
        if refill.is_none() {
            return Ok(());
        }
        if refill.is_some_and(|through| self.shared.queue.sealed() >= through) {
            *refill = None;
            if self.damaged.load(Ordering::Relaxed) {
                return Ok(());
            }
            self.shared.disk.remove_file(&self.shared.dir.join(REFILL))?;
            self.shared.disk.sync_dir(&self.shared.dir)?;
        } else {
            self.shared.queue.ask_to_seal();
        }
        Ok(())
    }

    /// Has a page sealed that has taken lines for long.
    pub(crate) fn seal_old(&self, now: Timestamp) {
        let oldest = now.to_log_time().minus(SEAL_AFTER);
        let is_old = self
            .shared
            .open_pages()
            .last()
            .and_then(|open| open.page.began())
            .is_some_and(|began| began < oldest);
        if is_old {
            self.shared.queue.ask_to_seal();
        }
    }

    /// Reads a few pages anew, each in its turn, and sets aside those that are damaged.
    pub(crate) fn verify_some(&self) -> io::Result<()> {
        let suspects =
            std::mem::take(&mut *self.shared.suspects.lock().unwrap_or_else(PoisonError::into_inner));
        let mut last = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        let partitions = self.shared.partitions();
        let all = partitions
            .iter()
            .flat_map(|partition| partition.pages().into_iter().map(move |page| (partition, page)));
        let place = |one: &(&Arc<Partition>, Arc<PageFile>)| Some((one.0.id, one.1.summary.number));
        let mut pages: Vec<(&Arc<Partition>, Arc<PageFile>)> = all.collect();
        let turn = pages.partition_point(|one| place(one) <= *last);
        pages.rotate_left(turn);
        let (suspected, others): (Vec<_>, Vec<_>) =
            pages.into_iter().partition(|(_, page)| suspects.contains(&page.path().to_path_buf()));
        for one in suspected.into_iter().chain(others.into_iter().take(VERIFIED_AT_ONCE)) {
            *last = place(&one).max(if suspects.is_empty() { None } else { *last });
            let (partition, page) = one;
            if let Err(error @ PageError::Damaged(_)) = Partition::verify(&*self.shared.disk, &page) {
                // The next start reads the whole log: it may still have the lines.
                self.damaged.store(true, Ordering::Relaxed);
                self.shared.disk.create(&self.shared.dir.join(REFILL))?.sync()?;
                self.shared.disk.sync_dir(&self.shared.dir)?;
                partition.set_aside(&*self.shared.disk, page.summary.number, &error)?;
                self.shared.telemetry.log_pages_set_aside.inc();
            }
        }
        self.shared.interned.lock().unwrap_or_else(PoisonError::into_inner).sweep();
        Ok(())
    }

    /// Removes partitions of which all lines are too old.
    pub(crate) fn expire(&self, now: Timestamp) -> io::Result<()> {
        let gone: Vec<PartitionId> = {
            let partitions = self.shared.partitions.read().unwrap_or_else(PoisonError::into_inner);
            // A clock that jumps ahead must not take everything away: what is stored says how late it is.
            let newest = partitions.keys().next_back().map(|id| id.day.end());
            let now = newest.map_or(now.to_log_time(), |newest| newest.min(now.to_log_time()));
            let oldest = now.minus(self.options.retention);
            partitions.keys().copied().filter(|id| id.day.end() < oldest).collect()
        };
        for id in gone {
            self.remove(id)?;
        }
        Ok(())
    }

    fn remove(&self, id: PartitionId) -> io::Result<()> {
        let mut partitions = self.shared.partitions.write().unwrap_or_else(PoisonError::into_inner);
        let Some(partition) = partitions.remove(&id) else { return Ok(()) };
        self.shared.telemetry.partitions.set(partitions.len() as i64);
        drop(partitions);
        // Renamed first, so that a crash in between leaves no half of a partition.
        let gone = self.shared.dir.join(format!("{GONE}{}", id.name()));
        self.shared.disk.rename(partition.dir(), &gone)?;
        self.shared.disk.sync_dir(&self.shared.dir)?;
        self.shared.disk.remove_dir_all(&gone)?;
        self.shared.disk.sync_dir(&self.shared.dir)?;
        tracing::info!(partition = id.name(), "log partition expired");
        Ok(())
    }

    /// The last of `sealed` of which every line is in a page; the marks they hold are saved first.
    pub(crate) fn persisted_through(
        &self,
        sealed: &[SealedFile],
        catalog: &Catalog,
    ) -> rusqlite::Result<Option<WalFileId>> {
        let (changed, through) = self.take_changed();
        let last = sealed.iter().take_while(|file| file.last <= through).last();
        Ok(self.save(changed, None, catalog)?.then_some(last).flatten().map(|file| file.id))
    }

    /// Marks that are to be saved, and the last record of which all lines are in pages.
    fn take_changed(&self) -> (HashMap<FileId, u64>, Sequence) {
        // Under the lock no line is between the WAL and the queue.
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        let in_pages = self.shared.queue.sealed();
        let has_all = self.shared.queue.last_queued() <= in_pages;
        let through = if has_all { self.shared.wal.last() } else { in_pages };
        (std::mem::take(&mut marks.changed), through)
    }

    /// Saves the marks of all lines that are in the log, so that a start need not read it for them.
    pub(crate) fn save_marks(&self, catalog: &Catalog) -> io::Result<()> {
        let (changed, through) = self.take_changed();
        let saved = self.save(changed, Some(through), catalog).map_err(io::Error::other)?;
        saved.then_some(()).ok_or_else(|| io::Error::other("the log of the marks is not durable"))
    }

    /// Answers whether the marks are saved: they are not while their lines are not durable.
    fn save(
        &self,
        changed: HashMap<FileId, u64>,
        through: Option<Sequence>,
        catalog: &Catalog,
    ) -> rusqlite::Result<bool> {
        // A mark must not outlive the line that it stands for.
        let is_durable = self.shared.wal.commit_all().is_ok();
        let saved = if is_durable { catalog.save_marks(&changed, through) } else { Ok(()) };
        if saved.is_err() || !is_durable {
            let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
            for (file, mark) in changed {
                marks.changed.entry(file).or_insert(mark);
            }
        }
        saved.map(|()| is_durable)
    }

    /// Puts what is queued into pages and ends the thread.
    pub(crate) fn close(&self) {
        self.shared.queue.stop();
        let thread = self.indexer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("log indexer ended by a panic; the WAL has the lines");
        }
    }
}
