//! Reading: series of the head and of blocks, put together.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, PoisonError};

use binnacle_model::storage::{Deadline, LabelSets, Series, SeriesSet, StorageError};
use binnacle_model::{Labels, Matcher, Sample, TimeRange};

use super::block::{Block, BlockError, ChunkMeta, ChunkReader};
use super::head::{Held, Scratch};
use super::{Metrics, sort_unique};

/// Where samples of a series are.
enum Part {
    Block(Arc<Block>, Vec<ChunkMeta>),
    Head(Held),
}

type Found = Vec<(Labels, Part)>;

impl Metrics {
    /// See [`binnacle_model::storage::Queryable::select_parts`].
    pub(crate) fn select_parts(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        deadline: &Deadline,
        parts: usize,
    ) -> Result<Vec<SeriesSet<'static>>, StorageError> {
        let (found, mut warnings) = self.find(matchers, range, deadline)?;
        let mut series: Vec<(Labels, Vec<Part>)> = Vec::with_capacity(found.len());
        for (labels, part) in found {
            match series.last_mut() {
                Some((last, parts)) if *last == labels => parts.push(part),
                _ => series.push((labels, vec![part])),
            }
        }
        let size = series.len().div_ceil(parts.max(1)).max(1);
        let mut sets: Vec<SeriesSet<'static>> = Vec::new();
        let mut rest = series.into_iter();
        loop {
            let series: Vec<(Labels, Vec<Part>)> = rest.by_ref().take(size).collect();
            if series.is_empty() && !sets.is_empty() {
                return Ok(sets);
            }
            let warnings = std::mem::take(&mut warnings);
            sets.push(Box::new(Reading::new(series, warnings, range, deadline.clone())));
        }
    }

    /// See [`binnacle_model::storage::Queryable::series`].
    pub(crate) fn series(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        deadline: &Deadline,
    ) -> Result<LabelSets, StorageError> {
        let (found, warnings) = self.find(matchers, range, deadline)?;
        let mut labels: Vec<Labels> = found.into_iter().map(|(labels, _)| labels).collect();
        labels.dedup();
        Ok(LabelSets { labels, warnings })
    }

    /// Parts of all series that satisfy the matchers, ascending by labels and by precedence, and what is
    /// missing from them.
    fn find(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        deadline: &Deadline,
    ) -> Result<(Found, Vec<String>), StorageError> {
        let (blocks, held) = self.snapshot_of(matchers, range);
        let mut warnings = self.lost_in(range);
        let mut found: Found = Vec::new();
        let mut sources = 0;
        for block in blocks {
            if deadline.is_over() {
                return Err(StorageError::Deadline);
            }
            match block.select(matchers, range) {
                Ok(selected) => {
                    sources += usize::from(!selected.is_empty());
                    found.extend(
                        selected
                            .into_iter()
                            .map(|(labels, chunks)| (labels, Part::Block(Arc::clone(&block), chunks))),
                    );
                }
                Err(error) => warnings.push(broken(&error)),
            }
        }
        // Those of a block are in order already; those of the head are not.
        let is_ordered = sources <= 1 && held.is_empty();
        found.extend(held.into_iter().map(|(labels, held)| (labels, Part::Head(held))));
        if !is_ordered {
            found.sort_by(|a, b| a.0.cmp(&b.0));
        }
        Ok((found, warnings))
    }

    /// Blocks and samples of the head that belong to one moment: a compaction that ends in between
    /// is seen by both or by neither.
    fn snapshot_of(&self, matchers: &[Matcher], range: TimeRange) -> (Vec<Arc<Block>>, Vec<(Labels, Held)>) {
        let blocks = self.blocks.read().unwrap_or_else(PoisonError::into_inner);
        let held = self.head().select(matchers, range);
        let touching = blocks.iter().filter(|block| block.range().overlaps(range));
        (touching.cloned().collect(), held)
    }

    /// What to say of blocks that were set aside.
    fn lost_in(&self, range: TimeRange) -> Vec<String> {
        let lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        let touching = lost.iter().filter(|lost| lost.range.overlaps(range));
        touching
            .map(|lost| {
                format!(
                    "block {} is damaged and was set aside: samples from {} to {} may be missing",
                    name_of(&lost.path),
                    lost.range.start,
                    lost.range.end
                )
            })
            .collect()
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What to say of a block that could not be read.
fn broken(error: &BlockError) -> String {
    tracing::error!(%error, "query met a damaged block");
    match error {
        BlockError::Corrupt { path, reason } => format!("block {} is damaged: {reason}", name_of(path)),
        BlockError::Read { path, cause } => format!("block {} cannot be read: {cause}", name_of(path)),
        BlockError::TooNew { path, .. } => format!("block {} is of a newer release", name_of(path)),
    }
}

/// Series on their way to whoever asked.
struct Reading {
    series: std::vec::IntoIter<(Labels, Vec<Part>)>,
    /// Said before the next series.
    warnings: Vec<String>,
    range: TimeRange,
    deadline: Deadline,
    is_over: bool,
    readers: HashMap<u64, ChunkReader>,
    scratch: Scratch,
}

impl Reading {
    fn new(
        series: Vec<(Labels, Vec<Part>)>,
        warnings: Vec<String>,
        range: TimeRange,
        deadline: Deadline,
    ) -> Self {
        let (readers, scratch) = (HashMap::new(), Scratch::default());
        Self { series: series.into_iter(), warnings, range, deadline, is_over: false, readers, scratch }
    }

    fn read(&mut self, labels: Labels, parts: &[Part]) -> Series {
        let mut series = Series { labels, ..Series::default() };
        for part in parts {
            match part {
                Part::Block(block, chunks) => {
                    if let Err(error) = self.read_block(block, chunks, &mut series) {
                        self.warnings.push(broken(&error));
                    }
                }
                Part::Head(held) => {
                    held.decode(&mut self.scratch, &mut series.samples);
                    series.histograms.extend_from_slice(&held.histograms);
                }
            }
        }
        let Series { samples, histograms, .. } = &mut series;
        sort_unique(samples, |sample: &Sample| sample.timestamp);
        samples.truncate(samples.partition_point(|sample| sample.timestamp <= self.range.end));
        samples.drain(..samples.partition_point(|sample| sample.timestamp < self.range.start));
        histograms.retain(|one| self.range.contains(one.timestamp));
        sort_unique(histograms, |one| one.timestamp);
        series
    }

    /// Reads what can be read; the error is the last one met.
    fn read_block(
        &mut self,
        block: &Arc<Block>,
        chunks: &[ChunkMeta],
        series: &mut Series,
    ) -> Result<(), BlockError> {
        let reader = match self.readers.entry(block.number) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(ChunkReader::new(Arc::clone(block))?)
            }
        };
        let mut outcome = Ok(());
        for chunk in chunks {
            let read = reader.read(*chunk, &mut series.samples, &mut series.histograms);
            outcome = read.and(outcome);
        }
        outcome
    }
}

impl Iterator for Reading {
    type Item = Result<Series, StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.is_over {
                return None;
            }
            if self.deadline.is_over() {
                self.is_over = true;
                return Some(Err(StorageError::Deadline));
            }
            if let Some(warning) = self.warnings.pop() {
                return Some(Err(StorageError::Missing(warning)));
            }
            let (labels, parts) = self.series.next()?;
            let series = self.read(labels, &parts);
            if !series.samples.is_empty() || !series.histograms.is_empty() {
                return Some(Ok(series));
            }
        }
    }
}
