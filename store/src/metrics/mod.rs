//! Metrics: samples in, series out.
//!
//! ```text
//! append ─► head ─► wal ─(fdatasync)─► acknowledged
//!            │
//!            └─(older than 1 h, whole spans of 2 h)─► block ─(expire)─► gone
//!                └ chunks, index; immutable, checksummed
//! ```
//!
//! Invariants:
//! - A block never changes.
//! - A moment of a series is answered once, by whoever was first to have it.
//! - A WAL file goes only after blocks have all its samples.
//! - Nothing here reads the machine's clock or knows that HTTP exists.

mod block;
mod chunk;
mod head;
mod histograms;
mod postings;
mod series;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use binnacle_model::storage::{
    AppendError, AppendReport, Deadline, HistogramSample, RawSeries, Series, SeriesDecoder, SeriesSet,
    StorageError,
};
use binnacle_model::{Labels, Matcher, TimeRange, Timestamp};

pub use block::BlockError;
use block::{Block, ChunkMeta, Cut, NewChunk, NewSeries};
use chunk::CHUNK_MAX_SAMPLES;
use head::{Head, Limits};
use histograms::CHUNK_MAX_HISTOGRAMS;
use series::Held;

use crate::fs::Disk;
use crate::telemetry::Telemetry;
use crate::wal::{SealedFile, Wal, WalFileId};

/// What a chunk or a record of the WAL holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SampleKind {
    Floats,
    Histograms,
}

/// A clock may be wrong by this much before its samples are refused.
const MAX_AHEAD: Duration = Duration::from_mins(10);

/// How metrics are kept.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Age at which a block expires.
    pub retention: Duration,
    /// Span of one block.
    pub block_span: Duration,
    /// How long samples stay in memory at least, so that late ones rarely miss their block.
    pub head_linger: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            retention: Duration::from_hours(1080),
            block_span: Duration::from_hours(2),
            head_linger: Duration::from_hours(1),
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
    blocks: RwLock<Vec<Arc<Block>>>,
    telemetry: Telemetry,
}

/// What replay needs before there is a WAL: blocks, and the head that takes records back in.
pub(crate) struct Opening {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    options: Options,
    blocks: Vec<Arc<Block>>,
    cut: Cut,
    head: Head,
    /// Numbers of series as the WAL file being read says them.
    names: HashMap<u64, head::SeriesRef>,
    file: WalFileId,
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
        let mut blocks = Vec::new();
        for name in disk.list(dir).map_err(read)? {
            let path = dir.join(&name);
            if path.extension().is_some_and(|extension| extension == "tmp") {
                disk.remove_file(&path).map_err(read)?;
                continue;
            }
            let Some(number) = block::number_of(&name) else { continue };
            match Block::open(&*disk, &path, number) {
                Ok(block) => blocks.push(Arc::new(block)),
                Err(error @ BlockError::Corrupt { .. }) => {
                    quarantine(&*disk, &path, &error).map_err(read)?;
                }
                Err(error) => return Err(error),
            }
        }
        blocks.sort_by_key(|block| block.number);
        let cuts = blocks.iter().map(|block| block.cut());
        let cut = cuts.max_by_key(|cut| cut.wal_file).unwrap_or(Cut::NONE);
        let head = Head::new(seed);
        let (names, file) = (HashMap::new(), WalFileId::default());
        Ok(Self { disk, dir: dir.to_path_buf(), options, blocks, cut, head, names, file })
    }

    /// Takes one record of samples back in. Answers whether it was well formed.
    pub(crate) fn replay(&mut self, file: WalFileId, payload: &[u8], kind: SampleKind) -> bool {
        if file != self.file {
            self.file = file;
            self.names.clear();
        }
        self.head.replay(file, payload, kind, self.cut, &mut self.names).is_some()
    }

    /// The last WAL file of which a block speaks.
    pub(crate) fn wal_floor(&self) -> WalFileId {
        self.cut.wal_file
    }

    /// The engine, ready.
    pub(crate) fn finish(self, wal: Arc<Wal>, telemetry: Telemetry) -> Metrics {
        let Self { disk, dir, options, blocks, head, .. } = self;
        let (head, blocks) = (Mutex::new(head), RwLock::new(blocks));
        Metrics { disk, dir, options, wal, head, blocks, telemetry }
    }
}

/// Moves a damaged file out of the way, and says so.
fn quarantine(disk: &dyn Disk, path: &Path, error: &BlockError) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    let aside = parent.join("quarantine");
    disk.create_dir_all(&aside)?;
    disk.rename(path, &aside.join(path.file_name().unwrap_or_default()))?;
    disk.sync_dir(&aside)?;
    disk.sync_dir(parent)?;
    tracing::error!(%error, to = %aside.display(), "a damaged block was set aside; its samples are not answered");
    Ok(())
}

impl Metrics {
    /// See [`binnacle_model::storage::Appender::append`].
    pub(crate) fn append(
        &self,
        batch: &[RawSeries<'_>],
        decoder: &dyn SeriesDecoder,
        now: Timestamp,
    ) -> Result<AppendReport, AppendError> {
        let limits = Limits { oldest: now.minus(self.options.retention), newest: now.plus(MAX_AHEAD) };
        let failed = |error: crate::wal::WalError| AppendError::Unavailable(error.to_string());
        if let Some(error) = self.wal.error() {
            return Err(failed(error));
        }
        let (report, sequence) = self.head().append(&self.wal, batch, decoder, limits)?;
        match sequence {
            Some(sequence) => self.wal.commit(sequence).map_err(failed)?,
            // What makes these samples known may still be on its way to the disk.
            None => self.wal.commit_all().map_err(failed)?,
        }
        self.telemetry.count_samples(&report);
        Ok(report)
    }

    /// See [`binnacle_model::storage::Queryable::select`].
    pub(crate) fn select(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        deadline: &Deadline,
    ) -> Result<SeriesSet<'_>, StorageError> {
        let mut found: BTreeMap<Labels, Parts> = BTreeMap::new();
        let (blocks, held) = self.snapshot(matchers, range);
        for block in blocks {
            if deadline.is_over() {
                return Err(StorageError::Deadline);
            }
            for (labels, chunks) in block.select(matchers, range).map_err(|e| broken(&e))? {
                found.entry(labels).or_default().blocks.push((Arc::clone(&block), chunks));
            }
        }
        for (labels, held) in held {
            found.entry(labels).or_default().held.push(held);
        }
        let deadline = deadline.clone();
        let mut is_over = false;
        let series = found.into_iter().map_while(move |(labels, parts)| {
            if is_over {
                return None;
            }
            is_over = deadline.is_over();
            Some(if is_over { Err(StorageError::Deadline) } else { parts.read(labels, range) })
        });
        let is_empty = |one: &Result<Series, _>| matches!(one, Ok(one) if one.samples.is_empty() && one.histograms.is_empty());
        Ok(Box::new(series.filter(move |one| !is_empty(one))))
    }

    /// See [`binnacle_model::storage::Queryable::series`].
    pub(crate) fn series(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        deadline: &Deadline,
    ) -> Result<Vec<Labels>, StorageError> {
        let (blocks, held) = self.snapshot(matchers, range);
        let mut found: Vec<Labels> = held.into_iter().map(|(labels, _)| labels).collect();
        for block in blocks {
            if deadline.is_over() {
                return Err(StorageError::Deadline);
            }
            let selected = block.select(matchers, range).map_err(|e| broken(&e))?;
            found.extend(selected.into_iter().map(|(labels, _)| labels));
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// Blocks and samples of the head that belong to one moment: a compaction that ends in between
    /// is seen by both or by neither.
    fn snapshot(&self, matchers: &[Matcher], range: TimeRange) -> (Vec<Arc<Block>>, Vec<(Labels, Held)>) {
        let blocks = self.blocks.read().unwrap_or_else(PoisonError::into_inner);
        let held = self.head().select(matchers, range);
        let touching = blocks.iter().filter(|block| block.range().overlaps(range));
        (touching.cloned().collect(), held)
    }

    /// Writes blocks if the head has spans that are over, and removes what is too old.
    pub(crate) fn maintain(&self, now: Timestamp) -> io::Result<()> {
        self.compact_head(now)?;
        self.expire(now)?;
        let blocks = self.blocks.read().unwrap_or_else(PoisonError::into_inner).clone();
        blocks.iter().for_each(|block| block.rest());
        self.telemetry.head_series.set(self.head().len() as i64);
        self.telemetry.blocks.set(blocks.len() as i64);
        Ok(())
    }

    fn compact_head(&self, now: Timestamp) -> io::Result<()> {
        let span = binnacle_model::time::millis(self.options.block_span);
        // A sample from a clock that ran ahead does not make everything else old.
        let Some(newest) = self.head().newest().map(|newest| newest.min(now)) else { return Ok(()) };
        let before = Timestamp(newest.minus(self.options.head_linger).0.div_euclid(span) * span);
        let is_due = {
            let head = self.head();
            // Late samples wait for the next span, so that each does not make a block of its own.
            let is_new_span = head.last_cut().is_none_or(|last| last < before);
            head.parked().is_some() || (is_new_span && head.oldest().is_some_and(|oldest| oldest < before))
        };
        if !is_due {
            return Ok(());
        }
        let (cut, series) = {
            let mut head = self.head();
            let parked = head.park(&self.wal, before);
            (parked.cut, Arc::clone(&parked.series))
        };
        // Encoded without the lock: samples go on coming in.
        let series = windows(&series, span);
        let mut written = Vec::new();
        let windows = series.len();
        for (i, (_, series)) in series.into_iter().enumerate() {
            // Only the last block may say that all is written.
            let cut = if i + 1 == windows { cut } else { Cut::NONE };
            let number = self.next_block_number() + i as u64;
            let path = block::write(&*self.disk, &self.dir, number, cut, &series)?;
            let block = Block::open(&*self.disk, &path, number).map_err(io::Error::other)?;
            tracing::info!(path = %path.display(), samples = block.samples(), "block written");
            written.push(Arc::new(block));
        }
        let mut blocks = self.blocks.write().unwrap_or_else(PoisonError::into_inner);
        blocks.append(&mut written);
        self.head().forget_parked();
        Ok(())
    }

    fn next_block_number(&self) -> u64 {
        let blocks = self.blocks.read().unwrap_or_else(PoisonError::into_inner);
        blocks.iter().map(|block| block.number).max().unwrap_or(0) + 1
    }

    fn expire(&self, now: Timestamp) -> io::Result<()> {
        let oldest = now.minus(self.options.retention);
        let gone: Vec<Arc<Block>> = {
            let mut blocks = self.blocks.write().unwrap_or_else(PoisonError::into_inner);
            let (kept, gone) = blocks.drain(..).partition(|block| block.range().end >= oldest);
            *blocks = kept;
            gone
        };
        for block in gone {
            // Whoever reads it holds the open file.
            self.disk.remove_file(block.path())?;
            tracing::info!(path = %block.path().display(), "block expired");
        }
        Ok(())
    }

    /// The last of `sealed` of which, and of all before it, no sample is needed any more.
    pub(crate) fn persisted_through(&self, sealed: &[SealedFile]) -> Option<WalFileId> {
        let blocks = self.blocks.read().unwrap_or_else(PoisonError::into_inner);
        let cuts = blocks.iter().map(|block| block.cut());
        let cut = cuts.max_by_key(|cut| cut.wal_file).unwrap_or(Cut::NONE);
        let files: Vec<WalFileId> = sealed.iter().map(|file| file.id).collect();
        self.head().persisted_through(&files, cut)
    }

    fn head(&self) -> MutexGuard<'_, Head> {
        self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the samples of one series are.
#[derive(Default)]
struct Parts {
    blocks: Vec<(Arc<Block>, Vec<ChunkMeta>)>,
    held: Vec<Held>,
}

impl Parts {
    fn read(self, labels: Labels, range: TimeRange) -> Result<Series, StorageError> {
        let (mut samples, mut histograms) = (Vec::new(), Vec::new());
        for (block, chunks) in &self.blocks {
            for chunk in chunks {
                block.read(*chunk, &mut samples, &mut histograms).map_err(|e| broken(&e))?;
            }
        }
        for held in &self.held {
            held.decode(&mut samples);
            histograms.extend_from_slice(&held.histograms);
        }
        samples.retain(|sample| range.contains(sample.timestamp));
        histograms.retain(|one| range.contains(one.timestamp));
        sort_unique(&mut samples, |sample| sample.timestamp);
        sort_unique(&mut histograms, |one| one.timestamp);
        Ok(Series { labels, samples, histograms })
    }
}

/// Orders by time; of several samples for one moment the first stays.
fn sort_unique<T>(samples: &mut Vec<T>, at: impl Fn(&T) -> Timestamp) {
    if !samples.is_sorted_by(|a, b| at(a) < at(b)) {
        samples.sort_by_key(&at);
        samples.dedup_by_key(|sample| at(sample));
    }
}

fn broken(error: &BlockError) -> StorageError {
    tracing::error!(%error, "query met a damaged block");
    StorageError::Broken(error.to_string())
}

/// The parked samples by span of a block, each ready to be written.
fn windows(parked: &BTreeMap<Labels, Held>, span: i64) -> BTreeMap<i64, Vec<NewSeries>> {
    let mut windows: BTreeMap<i64, Vec<NewSeries>> = BTreeMap::new();
    let mut samples = Vec::new();
    for (labels, held) in parked {
        samples.clear();
        held.decode(&mut samples);
        sort_unique(&mut samples, |sample| sample.timestamp);
        for window in
            samples.chunk_by(|a, b| a.timestamp.0.div_euclid(span) == b.timestamp.0.div_euclid(span))
        {
            let chunks = window.chunks(CHUNK_MAX_SAMPLES).map(|part| NewChunk {
                bytes: chunk::encode(part),
                range: TimeRange { start: part[0].timestamp, end: part[part.len() - 1].timestamp },
                samples: part.len(),
                kind: SampleKind::Floats,
            });
            let series = NewSeries { labels: labels.clone(), chunks: chunks.collect() };
            windows.entry(window[0].timestamp.0.div_euclid(span)).or_default().push(series);
        }
        add_histograms(&mut windows, labels, &held.histograms, span);
    }
    windows
}

/// Adds the histograms of a series, which come after those of all series before it.
fn add_histograms(
    windows: &mut BTreeMap<i64, Vec<NewSeries>>,
    labels: &Labels,
    histograms: &[HistogramSample],
    span: i64,
) {
    let window_of = |one: &HistogramSample| one.timestamp.0.div_euclid(span);
    for window in histograms.chunk_by(|a, b| window_of(a) == window_of(b)) {
        let chunks = window.chunks(CHUNK_MAX_HISTOGRAMS).map(|part| NewChunk {
            bytes: histograms::encode_chunk(part),
            range: TimeRange { start: part[0].timestamp, end: part[part.len() - 1].timestamp },
            samples: part.len(),
            kind: SampleKind::Histograms,
        });
        let series = windows.entry(window_of(&window[0])).or_default();
        match series.last_mut().filter(|last| last.labels == *labels) {
            Some(last) => last.chunks.extend(chunks),
            None => series.push(NewSeries { labels: labels.clone(), chunks: chunks.collect() }),
        }
    }
}
