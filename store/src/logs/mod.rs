//! Logs: lines in, entries out.
//!
//! ```text
//! append ─► marks ─► wal ─(fdatasync)─► acknowledged
//!                     │
//!                     └─► queue ─► indexer thread ─┬─► subscribers (live tail)
//!                                                  └─► partition of the day, committed every second
//!                                                       └─(expire)─► gone, as a whole
//! ```
//!
//! Invariants:
//! - The lines of a push and the marks of their files are one record: kept or lost together.
//! - A line below its file's mark is never taken again.
//! - The indexer sees records in the order of the WAL, and a commit says up to which it has all.
//! - Subscribers hear of lines that are durable, and of no others.
//!
//! Here a line is a tantivy document. A later engine replaces that behind the same traits.

mod collect;
mod compile;
mod directory;
mod excluded;
mod indexer;
mod partition;
mod schema;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use binnacle_model::log::{FileId, LogEntry};
use binnacle_model::push::{FileBatch, LogPush};
use binnacle_model::storage::{
    AppendError, Deadline, LogAppendReport, LogBar, LogCursor, LogPage, LogRequest, LogSubscriber,
    StorageError,
};
use binnacle_model::{LogTime, Timestamp};
use prost::Message;
use tantivy::TantivyError;

use collect::{DEADLINE, add_bars};
use indexer::{Batch, Indexer, Queue};
use partition::{Day, Partition};

use crate::catalog::Catalog;
use crate::fs::Disk;
use crate::space::Space;
use crate::telemetry::Telemetry;
use crate::wal::{RecordKind, SealedFile, Sequence, Wal, WalFileId};

/// This file is there while lines of damaged partitions are on their way back out of the log.
pub(crate) const REFILL: &str = "refill";

/// Name before that of a partition that is being removed.
const GONE: &str = "gone-";

/// Bytes of messages and fields in one page of results.
const PAGE_MAX_BYTES: usize = 32 * 1024 * 1024;

/// How long a full queue asks a sender to wait.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How logs are kept.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Age, by intake time, at which a partition expires.
    pub retention: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { retention: Duration::from_hours(720) }
    }
}

/// The log engine.
pub(crate) struct Logs {
    shared: Arc<Shared>,
    /// Lines up to here are to be put back into partitions that were damaged.
    refill: Mutex<Option<Sequence>>,
    options: Options,
    marks: Mutex<Marks>,
    indexer: Mutex<Option<JoinHandle<()>>>,
}

/// What the indexer's thread and the callers share.
struct Shared {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    wal: Arc<Wal>,
    queue: Queue,
    partitions: RwLock<BTreeMap<Day, Arc<Partition>>>,
    subscribers: Mutex<Vec<Box<dyn LogSubscriber>>>,
    space: Arc<Space>,
    telemetry: Telemetry,
}

/// How far each file has been taken in: its first byte that has not.
#[derive(Debug, Default)]
struct Marks {
    by_file: HashMap<FileId, u64>,
    /// Changed since they were last saved in the catalog.
    changed: HashMap<FileId, u64>,
}

/// What replay needs before there is a WAL.
pub(crate) struct Opening {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    options: Options,
    partitions: BTreeMap<Day, Arc<Partition>>,
    committed: BTreeMap<Day, Sequence>,
    /// The last record of which all lines were in partitions.
    through: Sequence,
    /// A partition was set aside, now or before a crash: of its lines the log may still have some.
    refills: bool,
    marks: Marks,
    /// Lines of the WAL that no partition has.
    missing: Vec<Batch>,
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
        let mut partitions = BTreeMap::new();
        let mut committed = BTreeMap::new();
        let mut refills = disk.exists(&dir.join(REFILL)).map_err(read)?;
        for name in disk.list(dir).map_err(read)? {
            if name.starts_with(GONE) {
                // A crash came between its renaming and its removal.
                disk.remove_dir_all(&dir.join(&name)).map_err(read)?;
            }
            let Some(day) = Day::of_name(&name) else { continue };
            let opened = Partition::open(&disk, dir, day)
                .and_then(|partition| Ok((partition.committed()?, partition)));
            match opened {
                Ok((through, partition)) => {
                    committed.insert(day, through);
                    partitions.insert(day, Arc::new(partition));
                }
                Err(error) if is_damage(&error) => {
                    set_aside(&*disk, dir, &name, &error).map_err(read)?;
                    refills = true;
                }
                Err(cause) => {
                    return Err(OpenLogsError::Partition { path: dir.join(&name), cause });
                }
            }
        }
        let by_file = catalog.marks().map_err(OpenLogsError::Catalog)?;
        let marks = Marks { by_file, changed: HashMap::new() };
        let through = catalog.logs_through().map_err(OpenLogsError::Catalog)?;
        let through = committed.values().copied().fold(through, Sequence::max);
        let (missing, last) = (Vec::new(), Sequence::default());
        let dir = dir.to_path_buf();
        Ok(Self { disk, dir, options, partitions, committed, through, refills, marks, missing, last })
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
        let day = Day::of(received);
        if self.committed.get(&day).is_some_and(|committed| sequence <= *committed) {
            return true;
        }
        let bytes = payload.len();
        let Ok(entries) = to_entries(&push, received) else { return false };
        if !entries.is_empty() {
            self.missing.push(Batch { sequence, entries, bytes });
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

    /// The engine, ready: what partitions lack is queued for them.
    pub(crate) fn finish(self, wal: Arc<Wal>, space: Arc<Space>, telemetry: Telemetry) -> io::Result<Logs> {
        let before = self.missing.first().map_or(self.last, |batch| Sequence(batch.sequence.0 - 1));
        let shared = Arc::new(Shared {
            disk: self.disk,
            dir: self.dir,
            wal,
            queue: Queue::default(),
            partitions: RwLock::new(self.partitions),
            subscribers: Mutex::default(),
            space,
            telemetry,
        });
        shared.queue.set_committed(before);
        let last_missing = self.missing.last().map_or(Sequence(0), |batch| batch.sequence);
        let refill = Mutex::new(self.refills.then_some(last_missing));
        self.missing.into_iter().for_each(|batch| shared.queue.push(batch));
        let indexer = Indexer::new(Arc::clone(&shared));
        let thread = std::thread::Builder::new().name("log-indexer".into()).spawn(move || indexer.run())?;
        let (marks, indexer) = (Mutex::new(self.marks), Mutex::new(Some(thread)));
        Ok(Logs { shared, refill, options: self.options, marks, indexer })
    }
}

/// Takes a damaged partition out of the way. From now on, and until its lines are in a new one, no start trusts that
/// partitions have all lines up to some record: before anything else that is written down.
fn set_aside(disk: &dyn Disk, dir: &Path, name: &str, error: &TantivyError) -> io::Result<()> {
    disk.create(&dir.join(REFILL))?.sync()?;
    disk.sync_dir(dir)?;
    let mut aside = dir.join(format!("damaged-{name}"));
    let mut number = 1;
    while disk.exists(&aside)? {
        number += 1;
        aside = dir.join(format!("damaged-{name}-{number}"));
    }
    tracing::error!(
        %error, aside = %aside.display(),
        "a damaged log partition was set aside; of its lines those are found that the write-ahead log still has"
    );
    disk.rename(&dir.join(name), &aside)?;
    disk.sync_dir(dir)
}

/// Whether the files themselves are wrong, and not the disk's mood.
fn is_damage(error: &TantivyError) -> bool {
    use tantivy::directory::error::OpenReadError;
    matches!(
        error,
        TantivyError::DataCorruption(_) | TantivyError::OpenReadError(OpenReadError::FileDoesNotExist(_))
    )
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
    /// A partition cannot be opened. Move it away to start without its lines.
    #[error("cannot open log partition {}", path.display())]
    Partition {
        /// Which.
        path: PathBuf,
        /// What tantivy said.
        #[source]
        cause: TantivyError,
    },
    /// The catalog cannot be read.
    #[error("cannot read the marks of log files")]
    Catalog(#[source] rusqlite::Error),
}

impl Marks {
    fn raise(&mut self, batch: &FileBatch) {
        if batch.file.is_empty() {
            return;
        }
        let mark = self.by_file.entry(FileId(batch.file.clone())).or_default();
        *mark = (*mark).max(batch.to);
        self.changed.insert(FileId(batch.file.clone()), *mark);
    }

    /// Leaves in the push what lies above the marks.
    fn skip_known(&self, push: &mut LogPush) -> LogAppendReport {
        let mut report = LogAppendReport::default();
        for batch in &mut push.batches {
            let mark = self.by_file.get(&FileId(batch.file.clone())).copied();
            let Some(mark) = mark.filter(|_| !batch.file.is_empty()) else { continue };
            let before = batch.entries.len();
            batch.entries.retain(|entry| entry.offset >= mark);
            report.duplicate += before - batch.entries.len();
            report.gap_bytes += batch.from.saturating_sub(mark);
        }
        let is_new = |batch: &FileBatch| {
            let mark = self.by_file.get(&FileId(batch.file.clone()));
            !batch.entries.is_empty() || (!batch.file.is_empty() && mark.is_none_or(|m| *m < batch.to))
        };
        push.batches.retain(is_new);
        report.appended = push.batches.iter().map(|batch| batch.entries.len()).sum();
        report
    }
}

fn to_entries(push: &LogPush, received: LogTime) -> Result<Vec<Arc<LogEntry>>, String> {
    let mut entries = Vec::new();
    for batch in &push.batches {
        let stream = batch.stream_labels().map_err(|error| format!("log stream: {error}"))?;
        let of_batch = batch.entries.iter();
        entries.extend(of_batch.map(|entry| Arc::new(batch.to_entry(&stream, entry, received))));
    }
    Ok(entries)
}

impl Shared {
    /// The partition of a day, made if there is none.
    fn partition(&self, day: Day) -> tantivy::Result<Arc<Partition>> {
        let mut partitions = self.partitions.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(partition) = partitions.get(&day) {
            return Ok(Arc::clone(partition));
        }
        let partition = Arc::new(Partition::open(&self.disk, &self.dir, day)?);
        partitions.insert(day, Arc::clone(&partition));
        Ok(partition)
    }

    fn publish(&self, entries: &[Arc<LogEntry>]) {
        let mut subscribers = self.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
        subscribers.retain(|subscriber| subscriber.entries(entries));
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
        self.shared.space.admit()?;
        if self.shared.queue.is_full() {
            return Err(AppendError::Full { what: "log index queue", retry_after: RETRY_AFTER });
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
            let entries = to_entries(&push, received).map_err(AppendError::Invalid)?;
            let bytes = push.encoded_len();
            let sequence = self.shared.wal.append(RecordKind::Lines, |_, out| {
                out.extend_from_slice(&received.0.to_le_bytes());
                out.extend_from_slice(&push.encode_to_vec());
            });
            push.batches.iter().for_each(|batch| marks.raise(batch));
            // Queued under the lock, so that the indexer sees records in their order.
            if !entries.is_empty() {
                self.shared.queue.push(Batch { sequence, entries, bytes });
            }
            (report, sequence)
        };
        self.shared.wal.commit(sequence).map_err(failed)?;
        self.shared.telemetry.count_lines(&report);
        Ok(report)
    }

    /// See [`binnacle_model::storage::LogSearcher::search`].
    pub(crate) fn search(
        &self,
        request: &LogRequest,
        limit: usize,
        cursor: Option<LogCursor>,
        deadline: &Deadline,
    ) -> Result<LogPage, StorageError> {
        let mut page = LogPage::default();
        let mut views = Vec::new();
        let mut found = Vec::new();
        for partition in self.partitions() {
            let (total, of_partition, view) =
                partition.find(request, limit, cursor, deadline).map_err(|e| broken(&e))?;
            page.total += total;
            found.extend(of_partition.into_iter().map(|(cursor, at)| (cursor, views.len(), at)));
            found.sort_unstable_by(|(a, ..), (b, ..)| b.cmp(a));
            found.truncate(limit);
            views.push(view);
        }
        page.more = found.len() == limit;
        let mut bytes = 0;
        for (cursor, view, at) in found {
            if deadline.is_over() {
                return Err(StorageError::Deadline);
            }
            if bytes > PAGE_MAX_BYTES {
                page.more = true;
                break;
            }
            let entry = views[view].read(at).map_err(|e| broken(&e))?;
            bytes += 2 * entry.message.len() + 200;
            page.entries.push((cursor, entry));
        }
        Ok(page)
    }

    /// See [`binnacle_model::storage::LogSearcher::histogram`].
    pub(crate) fn histogram(
        &self,
        request: &LogRequest,
        bars: usize,
        deadline: &Deadline,
    ) -> Result<Vec<LogBar>, StorageError> {
        let mut sum = vec![LogBar::new(); bars];
        for partition in self.partitions() {
            let bars = partition.histogram(request, bars, deadline).map_err(|e| broken(&e))?;
            add_bars(&mut sum, bars);
        }
        Ok(sum)
    }

    /// Newest first.
    fn partitions(&self) -> Vec<Arc<Partition>> {
        let partitions = self.shared.partitions.read().unwrap_or_else(PoisonError::into_inner);
        partitions.values().rev().cloned().collect()
    }

    /// Adds a listener for lines that come from now on.
    pub(crate) fn subscribe(&self, subscriber: Box<dyn LogSubscriber>) {
        self.shared.subscribers.lock().unwrap_or_else(PoisonError::into_inner).push(subscriber);
    }

    /// Waits until every line acknowledged so far can be found.
    pub(crate) fn flush(&self) -> bool {
        self.shared.queue.flush(self.shared.queue.last_queued())
    }

    /// Once the lines of damaged partitions are in new ones, starts may trust these again.
    pub(crate) fn end_refill(&self) -> io::Result<()> {
        let mut refill = self.refill.lock().unwrap_or_else(PoisonError::into_inner);
        if refill.is_some_and(|through| self.shared.queue.committed() >= through) {
            self.shared.disk.remove_file(&self.shared.dir.join(REFILL))?;
            self.shared.disk.sync_dir(&self.shared.dir)?;
            *refill = None;
        }
        Ok(())
    }

    /// Removes partitions of which all lines are too old.
    pub(crate) fn expire(&self, now: Timestamp) -> io::Result<()> {
        let gone: Vec<Day> = {
            let partitions = self.shared.partitions.read().unwrap_or_else(PoisonError::into_inner);
            // A clock that jumps ahead must not take everything away: what is stored says how late it is.
            let newest = partitions.keys().next_back().map(|day| day.end());
            let now = newest.map_or(now.to_log_time(), |newest| newest.min(now.to_log_time()));
            let oldest = now.minus(self.options.retention);
            partitions.keys().copied().filter(|day| day.end() < oldest).collect()
        };
        for day in gone {
            self.shared.partitions.write().unwrap_or_else(PoisonError::into_inner).remove(&day);
            let path = day.directory(&self.shared.dir);
            // Renamed first, so that a crash in between leaves no half of a partition.
            let gone = self.shared.dir.join(format!("{GONE}{}", day.0));
            self.shared.disk.rename(&path, &gone)?;
            self.shared.disk.sync_dir(&self.shared.dir)?;
            self.shared.disk.remove_dir_all(&gone)?;
            self.shared.disk.sync_dir(&self.shared.dir)?;
            tracing::info!(path = %path.display(), "log partition expired");
        }
        let count = self.shared.partitions.read().unwrap_or_else(PoisonError::into_inner).len();
        self.shared.telemetry.partitions.set(count as i64);
        Ok(())
    }

    /// The last of `sealed` of which every line is committed; the marks they hold are saved first.
    pub(crate) fn persisted_through(
        &self,
        sealed: &[SealedFile],
        catalog: &Catalog,
    ) -> rusqlite::Result<Option<WalFileId>> {
        let (changed, through) = self.take_changed();
        let last = sealed.iter().take_while(|file| file.last <= through).last();
        Ok(self.save(changed, None, catalog)?.then_some(last).flatten().map(|file| file.id))
    }

    /// Marks that are to be saved, and the last record of which all lines are in partitions.
    fn take_changed(&self) -> (HashMap<FileId, u64>, Sequence) {
        // Under the lock no line is between the WAL and the queue.
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        let committed = self.shared.queue.committed();
        let has_all = self.shared.queue.last_queued() <= committed;
        let through = if has_all { self.shared.wal.last() } else { committed };
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

    /// Commits what is queued and ends the thread.
    pub(crate) fn close(&self) {
        self.shared.queue.stop();
        let thread = self.indexer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("log indexer ended by a panic; the WAL has the lines");
        }
    }
}

fn broken(error: &TantivyError) -> StorageError {
    if matches!(error, TantivyError::InternalError(text) if text == DEADLINE) {
        return StorageError::Deadline;
    }
    tracing::error!(%error, "log search failed");
    StorageError::Broken(format!("log index: {error}"))
}

#[cfg(test)]
mod tests;
