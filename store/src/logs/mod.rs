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

pub mod archive;
mod class;
mod delete;
mod index;
mod indexer;
mod listed;
mod lost;
mod marks;
mod names;
mod opening;
mod page;
mod page_file;
mod partition;
mod queue;
mod search;
mod split;
mod template;
mod upkeep;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use binnacle_model::log::FileId;
use binnacle_model::push::LogPush;
use binnacle_model::storage::{AppendError, LogAppendReport, LogSubscriber};
use binnacle_model::{LogTime, Timestamp};
use prost::Message;

pub(crate) use class::ClassName;
pub use class::{CLASSES_MAX, LogClass, is_class_name};
use class::{Classes, encode_classes};
use delete::Deletions;
pub use delete::ParseQuery;
use lost::Lost;
use marks::Marks;
pub use opening::OpenLogsError;
pub(crate) use opening::Opening;
use page::OpenPage;
#[doc(hidden)]
pub use page::{PackedTexts, try_log_page};
pub(crate) use partition::Day;
use partition::{Partition, PartitionId};
use queue::{Batch, Queue};
use upkeep::Upkeep;

use archive::{Archive, ArchiveOptions, AttachOptions, Attached, Origin};

use crate::catalog::{Catalog, Mark};
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

/// A collector that is away for so long finds its marks all the same.
const MARKS_SPARED_DAYS: i64 = 14;

/// A page that has taken lines for so long is sealed, so that the log need not be kept for it.
const SEAL_AFTER: Duration = Duration::from_mins(15);

/// How logs are kept.
#[derive(Debug, Clone)]
pub struct Options {
    /// Age, by intake time, at which a partition expires.
    pub retention: Duration,
    /// Of all partitions of lines that are in no class; beyond it the oldest go.
    pub retention_bytes: Option<u64>,
    /// Streams that are kept longer or shorter, [`CLASSES_MAX`] at most. The first that matches takes a stream.
    pub classes: Vec<LogClass>,
    /// With a larger share of the disk in use, the oldest partitions go, those of the last class first and those of
    /// lines in no class at the end. `None` leaves them, and a full disk refuses writes.
    pub disk_max_share: Option<f64>,
    /// With so many bytes of messages a partition is closed before its day is over.
    pub partition_max_bytes: u64,
    /// Bytes of memory for what searches read of pages.
    pub cache_bytes: usize,
    /// Where closed partitions go.
    pub archive: Option<ArchiveOptions>,
    /// Archives of other stores, which are searched, too.
    pub attach: Vec<AttachOptions>,
    /// Reads the queries of deletions. Without, nothing is deleted by query.
    pub parse_query: Option<ParseQuery>,
    /// Bytes of memory for what searches read of archives.
    pub archive_cache_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            retention: Duration::from_hours(720),
            retention_bytes: None,
            classes: Vec::new(),
            disk_max_share: None,
            partition_max_bytes: 2 * 1024 * 1024 * 1024,
            cache_bytes: 256 * 1024 * 1024,
            archive: None,
            attach: Vec::new(),
            parse_query: None,
            archive_cache_bytes: 128 * 1024 * 1024,
        }
    }
}

/// The log engine.
pub(crate) struct Logs {
    shared: Arc<Shared>,
    /// Lines up to here are to be put back into pages of partitions that were damaged.
    refill: Mutex<Option<Sequence>>,
    options: Options,
    classes: Classes,
    upkeep: Upkeep,
    marks: Mutex<Marks>,
    indexer: Mutex<Option<JoinHandle<()>>>,
    /// Whether a page was set aside since the start: only the next start can put its lines back.
    damaged: AtomicBool,
    /// What takes long ends soon.
    stopping: AtomicBool,
}

/// A page that is not sealed yet, and of which partition it will be.
struct OpenPages {
    day: Day,
    class: ClassName,
    /// Searches share it only once it takes no more lines.
    page: Arc<OpenPage>,
    has_ended: bool,
}

impl OpenPages {
    fn new(day: Day, class: ClassName) -> Self {
        Self { day, class, page: Arc::default(), has_ended: false }
    }

    /// Whether it takes no more lines and waits to be sealed.
    fn is_over(&self) -> bool {
        self.has_ended || self.page.is_full()
    }

    /// Has it sealed, if it has lines.
    fn end(&mut self) {
        self.has_ended = !self.page.is_empty();
    }
}

/// What the indexer's thread and the callers share.
struct Shared {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    wal: Arc<Wal>,
    queue: Queue,
    partitions: RwLock<BTreeMap<PartitionId, Arc<Partition>>>,
    /// Oldest first; one of each class takes lines, the others wait for the disk.
    open: RwLock<Vec<OpenPages>>,
    interned: Mutex<page::Shared>,
    subscribers: Mutex<Vec<Box<dyn LogSubscriber>>>,
    space: Arc<Space>,
    telemetry: Telemetry,
    cache_bytes: usize,
    partition_max_bytes: u64,
    /// Pages in which a search found damage.
    suspects: Mutex<Vec<PathBuf>>,
    /// Records of the log that were damaged before pages had their lines.
    lost: Vec<Lost>,
    /// Where archived partitions are.
    archive: Arc<Archive>,
    /// Whether it is one.
    has_archive: bool,
    /// Archives of others.
    attached: Vec<Attached>,
    /// Under which this store archives.
    store_id: String,
    deletions: Deletions,
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

    /// All that searches see, each once: the store's own, oldest first, then those of attached archives.
    fn searched(&self) -> Vec<Arc<Partition>> {
        let mut own = self.partitions();
        if self.attached.is_empty() {
            return own;
        }
        let mut attached: BTreeMap<Origin, Arc<Partition>> = BTreeMap::new();
        for archive in &self.attached {
            for (origin, partition) in archive.partitions() {
                attached.entry(origin).or_insert(partition);
            }
        }
        own.retain(|partition| match partition.remote().map(|remote| remote.manifest.origin()) {
            // What is no more configured as the store's own archive may be attached.
            Some(origin) if self.has_archive => {
                attached.remove(&origin);
                true
            }
            Some(origin) => !attached.contains_key(&origin),
            None => true,
        });
        own.extend(attached.into_values());
        own
    }

    /// Whether the partition is one of the store's.
    fn has(&self, partition: &Arc<Partition>) -> bool {
        let partitions = self.partitions.read().unwrap_or_else(PoisonError::into_inner);
        partitions.get(&partition.id).is_some_and(|one| Arc::ptr_eq(one, partition))
    }

    fn add_partition(&self, partition: Arc<Partition>) {
        let mut partitions = self.partitions.write().unwrap_or_else(PoisonError::into_inner);
        partitions.insert(partition.id, partition);
        self.telemetry.partitions.set(partitions.len() as i64);
    }
}

impl Logs {
    /// See [`binnacle_model::storage::LogAppender::append`].
    pub(crate) fn append(
        &self,
        mut push: LogPush,
        received: LogTime,
    ) -> Result<LogAppendReport, AppendError> {
        let failed = |error: crate::wal::WalError| AppendError::Unavailable(error.to_string());
        self.room()?;
        for batch in &push.batches {
            batch.stream_labels().map_err(|error| AppendError::Invalid(format!("log stream: {error}")))?;
        }
        let (report, sequence) = {
            let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(reason) = marks.overtaken(&push) {
                return Err(AppendError::Overtaken(reason));
            }
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
            // No two records share a moment: readers of live tails know by it what they have.
            let next = LogTime(marks.received.0.saturating_add(1));
            let received = if is_small { received.max(next) } else { received };
            marks.received = received;
            let mut bytes = 0;
            let classes = self.classes.of(&push);
            let sequence = self.shared.wal.append(RecordKind::Lines, |_, out| {
                out.extend_from_slice(&received.0.to_le_bytes());
                let start = out.len();
                push.encode_raw(out);
                // To ask for the length first would go through all lines once more.
                bytes = out.len() - start;
                encode_classes(&classes, out);
            });
            push.batches.iter().for_each(|batch| marks.raise(batch, received));
            // Queued under the lock, so that the indexer sees records in their order.
            if report.appended > 0 {
                let batch = Batch { sequence, received, push, classes, bytes, ..Batch::default() };
                self.shared.queue.push(batch);
            }
            (report, sequence)
        };
        self.shared.wal.commit(sequence).map_err(failed)?;
        self.shared.telemetry.count_lines(&report);
        Ok(report)
    }

    /// See [`binnacle_model::storage::LogAppender::marks`].
    ///
    /// Waits until what they are about survives a power loss: whoever asked goes on from there.
    pub(crate) fn marks(&self, files: &[String]) -> Result<Vec<u64>, AppendError> {
        let marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner).of(files);
        self.shared.wal.commit_all().map_err(|error| AppendError::Unavailable(error.to_string()))?;
        Ok(marks)
    }

    /// Bytes of lines that the queue has room for.
    pub(crate) fn room(&self) -> Result<usize, AppendError> {
        self.shared.space.admit()?;
        let room = self.shared.queue.room();
        if room == 0 {
            return Err(AppendError::Full { what: "log queue", retry_after: RETRY_AFTER });
        }
        Ok(room)
    }

    /// Adds a listener for lines that come from now on.
    pub(crate) fn subscribe(&self, subscriber: Box<dyn LogSubscriber>) {
        self.shared.subscribers.lock().unwrap_or_else(PoisonError::into_inner).push(subscriber);
    }

    /// Waits until every line acknowledged so far can be found.
    pub(crate) fn flush(&self) -> bool {
        self.shared.queue.flush(self.shared.queue.last_queued())
    }

    /// Pages that are open, and bytes of memory of what was read of them.
    #[cfg(test)]
    pub(crate) fn held(&self) -> (usize, usize) {
        self.shared.held()
    }

    /// Seals what is there, and waits until it is.
    #[cfg(test)]
    pub(crate) fn seal_now(&self) {
        assert!(self.flush());
        self.ask_to_seal();
        while !self.is_sealed() {
            std::thread::yield_now();
        }
    }

    #[cfg(test)]
    pub(crate) fn ask_to_seal(&self) {
        self.shared.queue.ask_to_seal();
    }

    /// Whether every line is in a sealed page.
    #[cfg(test)]
    pub(crate) fn is_sealed(&self) -> bool {
        self.shared.queue.sealed() >= self.shared.queue.last_queued()
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
        let is_old = |open: &OpenPages| open.page.began().is_some_and(|began| began < oldest);
        if self.shared.open_pages().iter().any(is_old) {
            self.shared.queue.ask_to_seal();
        }
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
    fn take_changed(&self) -> (HashMap<FileId, Mark>, Sequence) {
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
        changed: HashMap<FileId, Mark>,
        through: Option<Sequence>,
        catalog: &Catalog,
    ) -> rusqlite::Result<bool> {
        // A mark must not outlive the line that it stands for.
        let is_durable = self.shared.wal.commit_all().is_ok();
        // Nor the place in the log what was noted of lines before it.
        let save = || catalog.save_noted().and_then(|()| catalog.save_marks(&changed, through));
        let saved = if is_durable { save() } else { Ok(()) };
        if saved.is_err() || !is_durable {
            let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
            for (file, mark) in changed {
                marks.changed.entry(file).or_insert(mark);
            }
        }
        saved.map(|()| is_durable)
    }

    /// Forgets marks of files of which nobody has spoken since the oldest lines came that are still found: who sends such a
    /// file anew sends what has expired. Once for each day.
    pub(crate) fn expire_marks(&self, catalog: &Catalog) -> io::Result<()> {
        let Some(oldest) = self.oldest_day() else { return Ok(()) };
        let before = oldest.0 - MARKS_SPARED_DAYS;
        let forgotten = {
            let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
            if marks.forgotten_before.replace(before) == Some(before) {
                return Ok(());
            }
            marks.forget(before)
        };
        catalog.forget_marks(&forgotten).map_err(io::Error::other)
    }

    /// Of the oldest lines that searches find, by intake.
    pub(crate) fn oldest_day(&self) -> Option<Day> {
        let open = self.shared.open_pages().iter().map(|open| open.day).min();
        let sealed = self.shared.searched().iter().map(|partition| partition.id.day).min();
        open.into_iter().chain(sealed).min()
    }

    /// Of the oldest own partition; `None` without one.
    pub(crate) fn oldest_partition(&self) -> Option<Day> {
        let partitions = self.shared.partitions.read().unwrap_or_else(PoisonError::into_inner);
        partitions.first_key_value().map(|(id, _)| id.day)
    }

    /// Whether lines are searched that other stores took in.
    pub(crate) fn has_attached(&self) -> bool {
        !self.shared.attached.is_empty()
    }

    /// Has work on archives end after the object that it is at.
    pub(crate) fn stop_soon(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Puts what is queued into pages and ends the thread.
    pub(crate) fn close(&self) {
        self.stop_soon();
        self.shared.queue.stop();
        let thread = self.indexer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("log indexer ended by a panic; the WAL has the lines");
        }
    }
}
