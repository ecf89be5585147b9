//! Metrics: samples in, series out.
//!
//! ```text
//! append ─► head ─► wal ─(fdatasync)─► acknowledged
//!            │
//!            └─(older than 1 h, whole spans of 2 h)─► block ─(day over)─► block of a day ─(expire)─► gone
//!                └ chunks, times, index; immutable, checksummed
//! ```
//!
//! Invariants:
//! - A block never changes.
//! - A moment of a series is answered once, by whoever was first to have it.
//! - A WAL file goes only after blocks have all its samples.
//! - Damage costs what was damaged, and whoever asks for it is told.
//! - Nothing here reads the machine's clock or knows that HTTP exists.
//!
//! `checkpoint` saves the head beside the WAL, so that a start is quick. `select` finds series, `reading` reads them,
//! `compact` moves samples from the head into blocks and merges these, `delete` takes some out, `import` brings blocks of
//! Prometheus in, `follow` reads what is appended for those who send it on, `rollup` leaves an hourly rest of what expires.

mod block;
mod checkpoint;
mod chunk;
mod compact;
mod delete;
mod exemplars;
mod follow;
mod head;
mod histograms;
mod import;
mod inspect;
mod late;
mod lost;
mod moments;
mod postings;
mod reading;
mod rollup;
mod select;

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, TryLockError};
use std::task::{Context, Poll};
use std::time::Duration;

use binnacle_model::storage::{
    AppendError, AppendReport, AppendedSoon, RawExemplar, RawSeries, SeriesDecoder, SeriesExemplars,
    StorageError, StoredBlock, Unsynced,
};
use binnacle_model::{Interner, Matcher, TimeRange, Timestamp};

use block::{Block, Cut};
pub use block::{BlockError, try_block};
use checkpoint::{Loaded, Saved};
use delete::Deletion;
pub use delete::ShortRetention;
use exemplars::Exemplars;
pub(crate) use follow::Following;
use head::{Head, Limits, RawHash, SeriesNumbers};
pub(crate) use import::find as find_prometheus;
pub use import::{ImportCounts, ImportError, ImportOptions, ImportOutcome, ImportReport, ImportedBlock};
pub(crate) use inspect::inspect;
pub use inspect::{BlockReport, MetricReport};
use lost::Lost;

use crate::fs::Disk;
use crate::space::Space;
use crate::telemetry::Telemetry;
use crate::wal::{SealedFile, Sequence, Wal, WalError, WalFileId};

/// What a chunk or a record of the WAL holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SampleKind {
    Floats,
    Histograms,
}

/// Series of a batch, or samples, of which the append is said to hold the head for long.
const LARGE_BATCH: usize = 10_000;

/// A clock may be wrong by this much before its samples are refused.
const MAX_AHEAD: Duration = Duration::from_mins(10);

/// Samples that a WAL file lost are at most this far before or behind those that are left.
const WAL_MARGIN: Duration = Duration::from_hours(1);

/// How metrics are kept.
#[derive(Debug, Clone)]
pub struct Options {
    /// Age at which a block expires.
    pub retention: Duration,
    /// Bytes of blocks, log and checkpoint, above which the oldest blocks expire.
    pub retention_bytes: Option<u64>,
    /// Age at which rollups expire, which take the place of blocks that do; `None` keeps none.
    pub rollup_retention: Option<Duration>,
    /// Series that are kept for a shorter time.
    pub short_retentions: Vec<ShortRetention>,
    /// Series of one job in memory, above which new ones are refused; those that are known go on.
    pub series_limit_per_job: usize,
    /// The same of all series together.
    pub series_limit: usize,
    /// Span of one block.
    pub block_span: Duration,
    /// How long samples stay in memory at least, so that late ones rarely miss their block.
    pub head_linger: Duration,
    /// Bytes of the log since the last checkpoint of the head after which there is another one.
    pub checkpoint_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            retention: Duration::from_hours(1080),
            retention_bytes: None,
            rollup_retention: None,
            short_retentions: Vec::new(),
            series_limit_per_job: 2_000_000,
            series_limit: 5_000_000,
            block_span: Duration::from_hours(2),
            head_linger: Duration::from_hours(1),
            checkpoint_bytes: 64 * 1024 * 1024,
        }
    }
}

/// The metrics engine.
pub(crate) struct Metrics {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    options: Options,
    wal: Arc<Wal>,
    head: Mutex<Head>,
    /// Who hold the head for longer than an append does, or wait for it.
    long_holders: AtomicUsize,
    /// Of the hashes by which senders' bytes are known.
    seed: u64,
    blocks: RwLock<Vec<Arc<Block>>>,
    /// One copy of each string of labels.
    shared: Arc<Mutex<Interner>>,
    lost: Mutex<Vec<Lost>>,
    /// Files of blocks that nobody reads any more, and that could not be removed.
    leftover: Mutex<Vec<PathBuf>>,
    /// Held by whoever moves samples from one place to another.
    moving: Mutex<()>,
    space: Arc<Space>,
    exemplars: Mutex<Exemplars>,
    /// That could not be done in all blocks yet.
    deletions: Mutex<Vec<Deletion>>,
    /// Of the next block. No number is given out twice: others speak of blocks by it.
    next_block: AtomicU64,
    /// Blocks in which series of shorter retentions were looked for, and which retention.
    looked_at: Mutex<HashSet<(u64, usize)>>,
    saved: Mutex<Saved>,
    telemetry: Telemetry,
}

/// What replay needs before there is a WAL: blocks, and the head that takes records back in.
pub(crate) struct Opening {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    options: Options,
    blocks: Vec<Arc<Block>>,
    shared: Arc<Mutex<Interner>>,
    lost: Vec<Lost>,
    cut: Cut,
    head: Head,
    seed: u64,
    /// Numbers of series, as the WAL says them. Each file says all that it needs; where that is damaged, what a file
    /// before it said is the same.
    names: SeriesNumbers,
    /// What a checkpoint already has.
    saved: Saved,
    /// That a checkpoint knows of: others may be gone by now.
    next_block: u64,
    deletions: Vec<Deletion>,
}

impl Opening {
    /// Opens the blocks; damaged ones go to quarantine.
    ///
    /// # Errors
    /// A block of a newer release must stop the start; else the disk refused.
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: Options,
        seed: u64,
    ) -> Result<Self, BlockError> {
        let read = |cause| BlockError::Read { path: dir.to_path_buf(), cause };
        disk.create_dir_all(dir).map_err(read)?;
        let shared = Arc::default();
        let mut blocks = Vec::new();
        for name in disk.list(dir).map_err(read)? {
            let path = dir.join(&name);
            if path.extension().is_some_and(|extension| extension == "tmp") {
                disk.remove_file(&path).map_err(read)?;
                continue;
            }
            let Some((number, _)) = block::parse_name(&name) else { continue };
            match block::open(&*disk, &path, number, &shared) {
                Ok(block) => blocks.push(Arc::new(block)),
                Err(error @ BlockError::Corrupt { .. }) => {
                    lost::quarantine(&*disk, &path, &error).map_err(read)?;
                }
                Err(error) => return Err(error),
            }
        }
        let mut lost = lost::list(&*disk, dir).map_err(read)?;
        blocks.sort_by_key(|block| block.number);
        compact::renumber_twins(&*disk, &mut blocks, &shared)?;
        compact::remove_merged(&*disk, &mut blocks, &mut lost).map_err(read)?;
        let cuts = blocks.iter().map(|block| block.cut());
        let cut = cuts.max_by_key(|cut| cut.wal_file).unwrap_or(Cut::NONE);
        let span = binnacle_model::time::millis(options.block_span);
        let make = || Head::new(span, Arc::clone(&shared));
        let loaded = checkpoint::load(&*disk, dir, cut, make).map_err(read)?;
        let Loaded { head, names, saved, next_block } = loaded.unwrap_or_else(|| Loaded {
            head: make(),
            names: SeriesNumbers::default(),
            saved: Saved::default(),
            next_block: 1,
        });
        let dir = dir.to_path_buf();
        let deletions = Vec::new();
        Ok(Self {
            disk,
            dir,
            options,
            blocks,
            shared,
            lost,
            cut,
            head,
            seed,
            names,
            saved,
            next_block,
            deletions,
        })
    }

    /// Takes one record of samples back in. Answers whether it was well formed.
    pub(crate) fn replay(&mut self, file: WalFileId, payload: &[u8], kind: SampleKind) -> bool {
        if self.is_saved(file) {
            return true;
        }
        self.head.replay(file, payload, kind, self.cut, &mut self.names).is_some()
    }

    /// Whether a checkpoint has all samples of a WAL file.
    fn is_saved(&self, file: WalFileId) -> bool {
        self.saved.through().is_some_and(|through| file <= through)
    }

    /// Files of the WAL of which nothing is wanted here, ascending.
    pub(crate) fn saved_files(&self) -> &[SealedFile] {
        &self.saved.files
    }

    /// Does a deletion once more. Answers whether the record was well formed.
    pub(crate) fn replay_deletion(&mut self, file: WalFileId, payload: &[u8]) -> bool {
        if self.is_saved(file) {
            // It was done before the checkpoint.
            return true;
        }
        let Some(deletion) = Deletion::decode(payload) else { return false };
        self.head.forget(&deletion);
        self.deletions.push(deletion);
        true
    }

    /// Remembers that records of these WAL files are missing, also when the files are gone: queries of their
    /// time are told. Call it when all records are replayed.
    pub(crate) fn remember_damage(&mut self, files: &[WalFileId], now: Timestamp) -> io::Result<()> {
        for file in files {
            if self.is_saved(*file) || self.lost.iter().any(|lost| lost.is_of_wal(*file)) {
                continue;
            }
            let known = self.head.range_around(*file);
            let range = known.map_or(
                TimeRange { start: now.minus(self.options.retention), end: now.plus(MAX_AHEAD) },
                |range| TimeRange { start: range.start.minus(WAL_MARGIN), end: range.end.plus(WAL_MARGIN) },
            );
            self.lost.push(lost::remember_wal(&*self.disk, &self.dir, *file, range)?);
        }
        Ok(())
    }

    /// The last WAL file of which a block or a checkpoint speaks.
    pub(crate) fn wal_floor(&self) -> WalFileId {
        self.cut.wal_file.max(self.saved.through().unwrap_or_default())
    }

    /// The engine, ready.
    pub(crate) fn finish(self, wal: Arc<Wal>, space: Arc<Space>, telemetry: Telemetry) -> Metrics {
        let Self {
            disk, dir, options, blocks, shared, lost, head, seed, deletions, saved, next_block, ..
        } = self;
        let numbers = blocks.iter().map(|block| block.number);
        let numbers =
            numbers.chain(lost.iter().map(Lost::number)).chain(deletions.iter().map(|one| one.last_block));
        let next_block = AtomicU64::new((numbers.max().unwrap_or(0) + 1).max(next_block));
        let (exemplars, deletions, looked_at) = (Mutex::default(), Mutex::new(deletions), Mutex::default());
        let leftover = Mutex::default();
        let (head, blocks, lost) = (Mutex::new(head), RwLock::new(blocks), Mutex::new(lost));
        let (moving, saved) = (Mutex::new(()), Mutex::new(saved));
        Metrics {
            disk,
            dir,
            options,
            wal,
            head,
            long_holders: AtomicUsize::new(0),
            seed,
            blocks,
            shared,
            lost,
            leftover,
            moving,
            space,
            exemplars,
            deletions,
            next_block,
            looked_at,
            saved,
            telemetry,
        }
    }
}

impl Metrics {
    /// See [`binnacle_model::storage::Appender::append`].
    pub(crate) fn append(
        &self,
        batch: &[RawSeries<'_>],
        decoder: &dyn SeriesDecoder,
        now: Timestamp,
    ) -> Result<AppendReport, AppendError> {
        let hashes = self.admit(batch, decoder)?;
        // Before the lock of the head: queries need not wait for a slow disk.
        self.wal.wait_for_room();
        let (report, sequence) = {
            let _holder = is_large(batch).then(|| Counted::new(&self.long_holders));
            self.take(self.head(), batch, &hashes, decoder, now)?
        };
        self.wal.commit(sequence).map_err(unavailable)?;
        Ok(report)
    }

    /// See [`binnacle_model::storage::Appender::append_soon`].
    pub(crate) fn append_soon(
        &self,
        batch: &[RawSeries<'_>],
        decoder: &dyn SeriesDecoder,
        now: Timestamp,
    ) -> Option<AppendedSoon> {
        if !self.is_free() {
            return None;
        }
        let hashes = match self.admit(batch, decoder) {
            Ok(hashes) => hashes,
            Err(error) => return Some(Err(error)),
        };
        let taken = self.take(self.head_soon()?, batch, &hashes, decoder, now);
        Some(taken.map(|(report, sequence)| {
            let unsynced: Arc<dyn Unsynced> = Arc::new(Commit { wal: Arc::clone(&self.wal), sequence });
            (report, unsynced)
        }))
    }

    /// How the batch's series are named, if anything is taken now. Without the head: other senders need not wait for it.
    fn admit(
        &self,
        batch: &[RawSeries<'_>],
        decoder: &dyn SeriesDecoder,
    ) -> Result<Vec<RawHash>, AppendError> {
        self.space.admit()?;
        if let Some(error) = self.wal.error() {
            return Err(unavailable(error));
        }
        Ok(head::hash_batch(self.seed, batch, decoder))
    }

    /// Takes a batch into memory and into the log's buffer; answers what must be committed before it is acknowledged.
    fn take(
        &self,
        mut head: MutexGuard<'_, Head>,
        batch: &[RawSeries<'_>],
        hashes: &[RawHash],
        decoder: &dyn SeriesDecoder,
        now: Timestamp,
    ) -> Result<(AppendReport, Sequence), AppendError> {
        let limits = Limits {
            oldest: now.minus(self.options.retention),
            newest: now.plus(MAX_AHEAD),
            series_per_job: self.options.series_limit_per_job,
            series: self.options.series_limit,
        };
        // Once more, now that nobody else takes anything.
        if let Some(error) = self.wal.error() {
            return Err(unavailable(error));
        }
        let (report, sequence) = head.append(&self.wal, batch, hashes, decoder, limits);
        drop(head);
        self.telemetry.count_samples(&report);
        // Where there is nothing new, what makes these samples known may still be on its way to the disk.
        Ok((report, sequence.unwrap_or_else(|| self.wal.last())))
    }

    /// See [`binnacle_model::storage::Appender::append_exemplars`].
    pub(crate) fn append_exemplars(
        &self,
        all: &[RawExemplar<'_>],
        decoder: &dyn SeriesDecoder,
        now: Timestamp,
    ) -> usize {
        let newest = now.plus(MAX_AHEAD);
        let mut count = 0;
        for of_series in all.chunk_by(|a, b| a.series == b.series) {
            let Ok(series) = head::decode_labels(of_series[0].series, decoder) else { continue };
            // Those of series that were refused are refused, too.
            if !self.head().knows(&series) {
                continue;
            }
            let mut kept = self.exemplars.lock().unwrap_or_else(PoisonError::into_inner);
            let timely = of_series.iter().filter(|one| one.exemplar.timestamp <= newest);
            count += timely.filter(|one| kept.push(series.clone(), one.exemplar.clone())).count();
        }
        count
    }

    /// See [`binnacle_model::storage::Queryable::exemplars`].
    pub(crate) fn exemplars(&self, matchers: &[Vec<Matcher>], range: TimeRange) -> Vec<SeriesExemplars> {
        self.exemplars.lock().unwrap_or_else(PoisonError::into_inner).select(matchers, range)
    }

    /// Writes blocks if the head has spans that are over, merges those of days that are over, and removes
    /// what is too old.
    ///
    /// Whoever else needs the log lets go of what is sealed in `before_checkpoint`.
    pub(crate) fn maintain(
        &self,
        now: Timestamp,
        before_checkpoint: &dyn Fn() -> io::Result<()>,
    ) -> io::Result<()> {
        let _moving = self.moving.lock().unwrap_or_else(PoisonError::into_inner);
        // First what makes room. One step that fails keeps no other from being done.
        let done = [
            self.expire(now),
            self.set_aside_damaged(),
            self.space.with_reserve(|| self.compact_head(now)),
            self.delete_pending(),
        ];
        if self.has_pending_deletions() {
            // Blocks stay as they are until what is to go from them is gone.
            tracing::warn!("a deletion is not done yet; days are not merged");
        } else {
            self.expire_selected(self.believed(now));
            self.merge_days(now);
        }
        let saved = self.checkpoint_if_due(before_checkpoint);
        let blocks = self.blocks();
        blocks.iter().for_each(|block| block.rest());
        self.head().rest();
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).sweep();
        self.telemetry.head_series.set(self.head().len() as i64);
        self.telemetry.blocks.set(blocks.len() as i64);
        done.into_iter().chain([saved]).collect()
    }

    /// The last of `sealed` of which, and of all before it, no sample is needed any more.
    pub(crate) fn persisted_through(&self, sealed: &[SealedFile]) -> Option<WalFileId> {
        if self.has_pending_deletions() {
            // Their records are needed by the next start.
            return None;
        }
        let cut = self.blocks().iter().map(|block| block.cut()).max_by_key(|cut| cut.wal_file);
        let files: Vec<WalFileId> = sealed.iter().map(|file| file.id).collect();
        self.head().persisted_through(&files, cut.unwrap_or(Cut::NONE))
    }

    /// See [`binnacle_model::storage::Queryable::blocks`].
    pub(crate) fn stored_blocks(&self) -> Result<Vec<StoredBlock>, StorageError> {
        let show = |block: Arc<Block>| {
            Ok(StoredBlock {
                number: block.number,
                range: block.range(),
                series: u64::from(block.series()?),
                samples: block.samples(),
                bytes: block.bytes(),
                sources: block.sources()?,
            })
        };
        let shown = self.blocks().into_iter().map(show).collect::<Result<_, BlockError>>();
        shown.map_err(|error| StorageError::Missing(error.to_string()))
    }

    fn head(&self) -> MutexGuard<'_, Head> {
        self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody holds the head, or is about to, for longer than a small append does.
    pub(crate) fn is_free(&self) -> bool {
        self.long_holders.load(Ordering::Relaxed) == 0
            && self.moving.try_lock().is_ok()
            && self.wal.has_room()
    }

    /// The head, unless somebody holds it for longer than a small append does. One that comes at this very moment is waited
    /// for, once.
    fn head_soon(&self) -> Option<MutexGuard<'_, Head>> {
        match self.head.try_lock() {
            Ok(head) => Some(head),
            Err(TryLockError::Poisoned(head)) => Some(head.into_inner()),
            Err(TryLockError::WouldBlock) if self.is_free() => Some(self.head()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// The head, for `work` on as many series as there are: who may not wait for so long can tell.
    fn with_head_for_long<T>(&self, work: impl FnOnce(&mut Head) -> T) -> T {
        let _holder = Counted::new(&self.long_holders);
        work(&mut self.head())
    }

    fn blocks(&self) -> Vec<Arc<Block>> {
        self.blocks.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[allow(clippy::needless_pass_by_value, reason = "it maps an error")]
fn unavailable(error: WalError) -> AppendError {
    AppendError::Unavailable(error.to_string())
}

fn is_large(batch: &[RawSeries<'_>]) -> bool {
    let samples = || batch.iter().map(|one| one.samples.len() + one.histograms.len()).sum::<usize>();
    batch.len() > LARGE_BATCH || samples() > LARGE_BATCH
}

/// Counts as one for as long as it is there.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Waits for a record of the log.
struct Commit {
    wal: Arc<Wal>,
    sequence: Sequence,
}

impl Unsynced for Commit {
    fn poll(&self, context: &mut Context<'_>) -> (Poll<Result<(), AppendError>>, bool) {
        let (done, is_asked) = self.wal.poll_commit(self.sequence, context.waker());
        (done.map_err(unavailable), is_asked)
    }

    fn write(&self) {
        self.wal.write_for_waiting();
    }
}

/// Orders by time; of several samples for one moment the first stays.
fn sort_unique<T>(samples: &mut Vec<T>, at: impl Fn(&T) -> Timestamp) {
    if !samples.is_sorted_by(|a, b| at(a) < at(b)) {
        samples.sort_by_key(&at);
        samples.dedup_by_key(|sample| at(sample));
    }
}

#[cfg(test)]
mod tests;
