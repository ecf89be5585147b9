//! Import: blocks of Prometheus's TSDB become blocks of ours.
//!
//! ```text
//! block of Prometheus ── source ──► index ──► series, ascending ──┐
//!                          │         chunks ──► samples ──────────┼── one pass for each day ──► BlockWriter
//!                          └─ meta.json        tombstones ────────┘
//! ```
//!
//! Invariants:
//! - Nothing of theirs is changed. Whatever is read of it is checked, and bounded before there is memory for it.
//! - A block is imported as a whole or not at all, and remembered by its ULID once it is.
//! - One series is in memory at a time, and the names and values of the block; not its samples.
//! - The store is open meanwhile, so that no number of a block is given out twice: one that a deletion in the
//!   log speaks of would make it delete what was imported after it.

mod bits;
mod chunks;
mod histogram;
mod index;
mod input;
mod source;
#[cfg(test)]
mod tests;
mod tombstones;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use binnacle_model::histogram::{Histogram, ResetHint};
use binnacle_model::time::millis;
use binnacle_model::{Labels, TimeRange, Timestamp};

use super::block::{Block, BlockWriter, Cut};
use super::compact::{DAY, window_of};
use super::head::decode_labels;
use super::{MAX_AHEAD, Metrics, sort_unique};
use crate::OpenError;
use chunks::{Samples, Segments};
use index::{Entry, Index};
use source::{Found, Known, Source};
use tombstones::Tombstones;

/// What to import.
#[derive(Debug, Clone)]
pub struct ImportOptions {
    /// Samples older than this are left out.
    pub retention: Duration,
}

/// Why nothing could be imported, or not a block.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// There is nothing to import. Name another directory.
    #[error("no blocks of Prometheus in {}: name its data directory, a snapshot of it, or one block{}",
        dir.display(),
        if *has_wal { "; what is in its write-ahead log becomes a block with a snapshot" } else { "" })]
    NoBlocks {
        /// Where they were looked for.
        dir: PathBuf,
        /// Whether there is a write-ahead log.
        has_wal: bool,
    },
    /// Our store could not be opened.
    #[error(transparent)]
    Open(Box<OpenError>),
    /// The disk refused to read. Retrying may help.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which file or directory.
        path: PathBuf,
        /// What the disk said.
        #[source]
        cause: io::Error,
    },
    /// The disk refused to write. What was imported so far stays.
    #[error("cannot write to {}", dir.display())]
    Write {
        /// Where our blocks are.
        dir: PathBuf,
        /// What the disk said.
        #[source]
        cause: io::Error,
    },
    /// Their bytes contradict the format.
    #[error("{} is corrupt at byte {offset}: {reason}", path.display())]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// What a block says of itself cannot be understood.
    #[error("cannot understand {}", path.display())]
    Meta {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: serde_json::Error,
    },
    /// The index names a file of chunks that is not there.
    #[error("chunks/{number:06} is missing")]
    NoSegment {
        /// Which one.
        number: usize,
    },
    /// A newer Prometheus wrote it.
    #[error("{} has format version {found}, and {newest} is the newest that is known here", path.display())]
    TooNew {
        /// Which file.
        path: PathBuf,
        /// Its version.
        found: u64,
        /// Ours.
        newest: u8,
    },
    /// A newer Prometheus wrote a chunk.
    #[error("{}: the chunk at byte {offset} has encoding {encoding} ({name}), which is not known here; import over \
        remote write instead, or switch the encoding off in Prometheus and let it compact", path.display())]
    Encoding {
        /// Which file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// Its number.
        encoding: u8,
        /// Its name.
        name: &'static str,
    },
}

/// How much came of a block, or of all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImportCounts {
    /// Series with samples that were imported; one of several blocks counts once for each.
    pub series: u64,
    /// Samples that were imported.
    pub samples: u64,
    /// Blocks of ours that were written.
    pub blocks: u64,
    /// Samples older than the retention.
    pub too_old: u64,
    /// Samples from the future.
    pub too_new: u64,
    /// Samples that had been deleted.
    pub deleted: u64,
    /// Series that were refused, by reason.
    pub refused_series: BTreeMap<String, u64>,
    /// Histograms that were refused, by reason.
    pub refused_histograms: BTreeMap<String, u64>,
}

impl ImportCounts {
    fn add(&mut self, other: &Self) {
        self.series += other.series;
        self.samples += other.samples;
        self.blocks += other.blocks;
        self.too_old += other.too_old;
        self.too_new += other.too_new;
        self.deleted += other.deleted;
        let refused = [
            (&mut self.refused_series, &other.refused_series),
            (&mut self.refused_histograms, &other.refused_histograms),
        ];
        for (all, one) in refused {
            one.iter().for_each(|(reason, count)| *all.entry(reason.clone()).or_default() += count);
        }
    }
}

/// What became of a block of theirs.
#[derive(Debug)]
pub enum ImportOutcome {
    /// All of it is in blocks of ours.
    Imported(ImportCounts),
    /// It was imported before, and was left alone.
    Known,
    /// It has no `meta.json`: Prometheus did not finish it.
    Unfinished,
    /// Nothing of it was imported.
    Failed(ImportError),
}

/// A block of theirs.
#[derive(Debug)]
pub struct ImportedBlock {
    /// Where it is.
    pub dir: PathBuf,
    /// Its time, if it says so.
    pub range: Option<TimeRange>,
    /// What became of it.
    pub outcome: ImportOutcome,
}

/// What became of all blocks.
#[derive(Debug, Default)]
pub struct ImportReport {
    /// Of all blocks together.
    pub counts: ImportCounts,
    /// Blocks that were imported.
    pub imported: usize,
    /// Blocks that had been imported before.
    pub known: usize,
    /// Blocks of which nothing was imported.
    pub failed: usize,
    /// Whether there is a write-ahead log beside the blocks, of which nothing was read.
    pub has_wal: bool,
}

/// Blocks of Prometheus that were found.
pub(crate) struct Sources(Found);

/// Looks for blocks, and touches nothing.
pub(crate) fn find(disk: &dyn crate::fs::Disk, from: &Path) -> Result<Sources, ImportError> {
    source::find(disk, from).map(Sources)
}

impl Metrics {
    /// Imports blocks, one after the other, and tells `progress` of each.
    ///
    /// # Errors
    /// If ours cannot be written; blocks that were done before stay. A block of theirs that cannot be read is in the
    /// report, and the others go on.
    pub(crate) fn import(
        &self,
        sources: Sources,
        options: &ImportOptions,
        now: Timestamp,
        progress: &mut dyn FnMut(&ImportedBlock),
    ) -> Result<ImportReport, ImportError> {
        let _moving = self.moving.lock().unwrap_or_else(PoisonError::into_inner);
        let Found { blocks, unfinished, has_wal } = sources.0;
        let kept = TimeRange { start: now.minus(options.retention), end: now.plus(MAX_AHEAD) };
        let mut known = Known::read(&*self.disk, &self.dir).map_err(|cause| self.cannot_write(cause))?;
        let mut report = ImportReport { has_wal, ..ImportReport::default() };
        for dir in unfinished {
            progress(&ImportedBlock { dir, range: None, outcome: ImportOutcome::Unfinished });
        }
        for source in blocks {
            let outcome = if known.contains(&source.ulid) {
                report.known += 1;
                ImportOutcome::Known
            } else {
                match self.import_block(&source, kept, &mut known) {
                    Ok(counts) => {
                        report.imported += 1;
                        report.counts.add(&counts);
                        ImportOutcome::Imported(counts)
                    }
                    Err(error @ ImportError::Write { .. }) => return Err(error),
                    Err(error) => {
                        report.failed += 1;
                        ImportOutcome::Failed(error)
                    }
                }
            };
            progress(&ImportedBlock { dir: source.dir, range: Some(source.range), outcome });
        }
        Ok(report)
    }

    fn cannot_write(&self, cause: io::Error) -> ImportError {
        ImportError::Write { dir: self.dir.clone(), cause }
    }

    fn import_block(
        &self,
        source: &Source,
        kept: TimeRange,
        known: &mut Known,
    ) -> Result<ImportCounts, ImportError> {
        let mut written = Vec::new();
        let done = self.write_days(source, kept, &mut written).and_then(|counts| {
            known.add(&*self.disk, &source.ulid).map_err(|cause| self.cannot_write(cause))?;
            Ok(counts)
        });
        if done.is_err() {
            for block in &written {
                self.disk.remove_file(block.path()).map_err(|cause| self.cannot_write(cause))?;
            }
        } else {
            self.blocks.write().unwrap_or_else(PoisonError::into_inner).append(&mut written);
        }
        done
    }

    /// A block of ours for each day of which there are samples.
    fn write_days(
        &self,
        source: &Source,
        kept: TimeRange,
        written: &mut Vec<Arc<Block>>,
    ) -> Result<ImportCounts, ImportError> {
        let mut counts = ImportCounts::default();
        let mut reading = Reading::open(self, source)?;
        let plan = reading.plan(kept, &mut counts)?;
        let day = millis(DAY);
        let mut has_samples = vec![false; plan.series.len()];
        for number in plan.days {
            self.space.check().map_err(|cause| self.cannot_write(cause))?;
            if self.space.is_low() {
                return Err(self.cannot_write(io::Error::other(self.space.reason())));
            }
            let start = number.saturating_mul(day);
            let range = TimeRange { start: Timestamp(start), end: Timestamp(start.saturating_add(day - 1)) };
            let block_number = self.take_block_number();
            let mut writer = BlockWriter::create(&*self.disk, &self.dir, block_number)
                .map_err(|cause| self.cannot_write(cause))?;
            for (offset, has_samples) in plan.series.iter().zip(&mut has_samples) {
                if let Some(labels) = reading.series(*offset, range, kept, &mut counts)? {
                    let samples = &reading.samples;
                    *has_samples = true;
                    counts.samples += samples.len() as u64;
                    writer
                        .add(&labels, &samples.floats, &samples.histograms)
                        .map_err(|cause| self.cannot_write(cause))?;
                }
            }
            if !writer.is_empty() {
                let block = self.publish(writer, block_number, Cut::NONE, &[]);
                written.push(block.map_err(|cause| self.cannot_write(cause))?);
                counts.blocks += 1;
            }
        }
        counts.series = has_samples.iter().filter(|has_samples| **has_samples).count() as u64;
        Ok(counts)
    }
}

/// In which order to read, and for which days.
struct Plan {
    /// Where series begin that are to be imported, ascending by their labels.
    series: Vec<u64>,
    /// Since 1970.
    days: BTreeSet<i64>,
}

/// A block of theirs, open.
struct Reading {
    index: Index,
    segments: Segments,
    tombstones: Tombstones,
    /// Of the series that was read last.
    samples: Samples,
}

impl Reading {
    fn open(metrics: &Metrics, source: &Source) -> Result<Self, ImportError> {
        let disk = &*metrics.disk;
        Ok(Self {
            index: Index::open(disk, &source.dir.join("index"))?,
            segments: Segments::open(disk, &source.dir.join("chunks"))?,
            tombstones: Tombstones::read(disk, &source.dir.join("tombstones"))?,
            samples: Samples::default(),
        })
    }

    /// Looks at all series once. Theirs are ordered as ours; those of an old or foreign writer may not be.
    fn plan(&mut self, kept: TimeRange, counts: &mut ImportCounts) -> Result<Plan, ImportError> {
        let mut plan = Plan { series: Vec::new(), days: BTreeSet::new() };
        let mut last = None;
        let mut is_sorted = true;
        let mut at = self.index.first();
        while let Some(entry) = self.index.entry(at)? {
            at = entry.end;
            let labels = match decode_labels(&entry.labels, &self.index.symbols) {
                Ok(labels) => labels,
                Err(reason) => {
                    *counts.refused_series.entry(reason).or_default() += 1;
                    continue;
                }
            };
            is_sorted &= last.as_ref().is_none_or(|last| *last < labels);
            last = Some(labels);
            plan.series.push(entry.offset);
            self.plan_days(&entry, kept, &mut plan.days, counts)?;
        }
        if !is_sorted {
            self.sort(&mut plan.series, counts)?;
        }
        Ok(plan)
    }

    fn plan_days(
        &mut self,
        entry: &Entry,
        kept: TimeRange,
        days: &mut BTreeSet<i64>,
        counts: &mut ImportCounts,
    ) -> Result<(), ImportError> {
        for chunk in &entry.chunks {
            if chunk.range.end < kept.start {
                counts.too_old += self.segments.count(*chunk)?;
            } else if chunk.range.start > kept.end {
                counts.too_new += self.segments.count(*chunk)?;
            } else {
                let (start, end) = (chunk.range.start.max(kept.start), chunk.range.end.min(kept.end));
                days.extend(window_of(start, millis(DAY))..=window_of(end, millis(DAY)));
            }
        }
        Ok(())
    }

    /// Orders series by their labels, all of which are in memory meanwhile.
    fn sort(&mut self, series: &mut Vec<u64>, counts: &mut ImportCounts) -> Result<(), ImportError> {
        let mut labelled: Vec<(Labels, u64)> = Vec::with_capacity(series.len());
        for offset in series.drain(..) {
            let entry = self.entry(offset)?;
            labelled.push((self.labels(&entry)?, offset));
        }
        labelled.sort();
        let before = labelled.len();
        labelled.dedup_by(|(twin, _), (first, _)| twin == first);
        if labelled.len() < before {
            let reason = "the index has it twice".to_owned();
            *counts.refused_series.entry(reason).or_default() += (before - labelled.len()) as u64;
        }
        series.extend(labelled.into_iter().map(|(_, offset)| offset));
        Ok(())
    }

    /// An entry that was there before.
    fn entry(&mut self, offset: u64) -> Result<Entry, ImportError> {
        let entry = self.index.entry(offset)?;
        entry.ok_or_else(|| self.index.corrupt(offset, "it changed while it was read"))
    }

    fn labels(&self, entry: &Entry) -> Result<Labels, ImportError> {
        decode_labels(&entry.labels, &self.index.symbols)
            .map_err(|_| self.index.corrupt(entry.offset, "it changed while it was read"))
    }

    /// Reads samples of a series into `self.samples`: those of a day that are to be imported. Answers its labels if
    /// there are some.
    fn series(
        &mut self,
        offset: u64,
        day: TimeRange,
        kept: TimeRange,
        counts: &mut ImportCounts,
    ) -> Result<Option<Labels>, ImportError> {
        let mut entry = self.entry(offset)?;
        entry.chunks.retain(|chunk| chunk.range.overlaps(day) && chunk.range.overlaps(kept));
        if entry.chunks.is_empty() {
            return Ok(None);
        }
        self.samples.clear();
        for chunk in &entry.chunks {
            self.segments.read(*chunk, &mut self.samples)?;
        }
        let is_first = day.contains(kept.start);
        let is_last = day.contains(kept.end);
        let deleted = self.tombstones.of(self.index.reference(&entry));
        self.samples.retain(|at| {
            // A chunk of several days is read for each of them, and counted for one.
            if at < kept.start {
                counts.too_old += u64::from(is_first);
            } else if at > kept.end {
                counts.too_new += u64::from(is_last);
            } else if day.contains(at) {
                let is_deleted = deleted.iter().any(|range| range.contains(at));
                counts.deleted += u64::from(is_deleted);
                return !is_deleted;
            }
            false
        });
        self.refuse_histograms(counts);
        if chunks::overlap(&entry.chunks) {
            self.forget_hints();
        }
        sort_unique(&mut self.samples.floats, |sample| sample.timestamp);
        sort_unique(&mut self.samples.histograms, |sample| sample.timestamp);
        if self.samples.len() == 0 {
            return Ok(None);
        }
        Ok(Some(self.labels(&entry)?))
    }

    fn refuse_histograms(&mut self, counts: &mut ImportCounts) {
        self.samples.histograms.retain(|one| match one.histogram.validate() {
            Ok(()) => true,
            Err(reason) => {
                *counts.refused_histograms.entry(reason).or_default() += 1;
                false
            }
        });
    }

    /// What a histogram says of the one before it does not hold if another chunk comes in between.
    fn forget_hints(&mut self) {
        for one in &mut self.samples.histograms {
            if one.histogram.hint != ResetHint::Gauge {
                let histogram: &mut Histogram = Arc::make_mut(&mut one.histogram);
                histogram.hint = ResetHint::Unknown;
            }
        }
    }
}
