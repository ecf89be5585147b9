//! Reading: series of the head and of blocks, put together.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, PoisonError};

use binnacle_model::storage::{Deadline, Holding, LabelSets, Names, Rollup, SeriesSet, StorageError, Wanted};
use binnacle_model::{Labels, Matcher, Sample, TimeRange, Timestamp};

use super::Metrics;
use super::block::{Block, BlockError, ChunkMeta, Unpacker};
use super::head::{Head, Taken};
use super::reading::Reading;
use super::rollup::column_of;

/// Where samples of a series are.
pub(super) enum Part {
    Block(Arc<Block>, Vec<ChunkMeta>),
    Head(Taken),
}

type TakenSeries = Vec<(Labels, Taken)>;

/// A series, of which most have one part.
pub(super) struct Whole {
    pub(super) labels: Labels,
    part: Part,
    more: Vec<Part>,
}

/// A thread of its own costs more than reading series of so many bytes together.
const PART_MIN_BYTES: usize = 16 * 1024;

/// What a series costs beside its samples, as bytes of them.
const SERIES_BYTES: usize = 256;

impl Metrics {
    /// See [`binnacle_model::storage::Queryable::select_parts`].
    pub(crate) fn select_parts(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        wanted: Wanted,
        deadline: &Deadline,
        parts: usize,
    ) -> Result<Vec<SeriesSet<'static>>, StorageError> {
        let Found { mut series, warnings, mut holding } = self.find(matchers, range, wanted, deadline)?;
        let bytes: usize = series.iter().map(Whole::bytes).sum();
        let size = series.len().div_ceil(parts.min(bytes / PART_MIN_BYTES).max(1)).max(1);
        let mut sets: Vec<SeriesSet<'static>> = Vec::new();
        // From the end, so that nothing moves twice.
        while series.len() > size {
            let part = series.split_off((series.len() - 1) / size * size);
            let of_part = holding.split(part.iter().map(Whole::weight).sum());
            let part = Found { series: part, warnings: Vec::new(), holding: of_part };
            sets.push(Box::new(Reading::new(part, range, wanted, deadline.clone())));
        }
        let rest = Found { series, warnings, holding };
        sets.push(Box::new(Reading::new(rest, range, wanted, deadline.clone())));
        sets.reverse();
        Ok(sets)
    }

    /// See [`binnacle_model::storage::Queryable::select`].
    pub(crate) fn select(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        deadline: &Deadline,
    ) -> Result<SeriesSet<'static>, StorageError> {
        let mut found = self.find(matchers, range, Wanted::All, deadline)?;
        found.series.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(Box::new(Reading::new(found, range, Wanted::All, deadline.clone())))
    }

    /// See [`binnacle_model::storage::Queryable::series`].
    pub(crate) fn series(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        deadline: &Deadline,
    ) -> Result<LabelSets, StorageError> {
        let Found { series, warnings, .. } = self.find(matchers, range, Wanted::Newest, deadline)?;
        let mut labels: Vec<Labels> = series.into_iter().map(|one| one.labels).collect();
        labels.sort_unstable();
        labels.dedup();
        Ok(LabelSets { labels, warnings })
    }

    /// Names of labels, those of series without a sample in the range perhaps among them.
    pub(crate) fn label_names(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        deadline: &Deadline,
    ) -> Result<Names, StorageError> {
        self.names(range, deadline, |head| head.label_names(matchers), |block| block.label_names(matchers))
    }

    /// Values of a label, those of series without a sample in the range perhaps among them.
    pub(crate) fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        range: TimeRange,
        deadline: &Deadline,
    ) -> Result<Names, StorageError> {
        let of_head = |head: &Head| head.label_values(name, matchers);
        self.names(range, deadline, of_head, |block| block.label_values(name, matchers))
    }

    fn names(
        &self,
        range: TimeRange,
        deadline: &Deadline,
        of_head: impl Fn(&Head) -> BTreeSet<Arc<str>>,
        of_block: impl Fn(&Block) -> Result<BTreeSet<Arc<str>>, BlockError>,
    ) -> Result<Names, StorageError> {
        let (blocks, names) = {
            let blocks = self.blocks.read().unwrap_or_else(PoisonError::into_inner);
            let names = self.with_head_for_long(|head| {
                let is_in = head.newest().is_some_and(|newest| newest >= range.start)
                    && head.oldest_in().is_some_and(|oldest| oldest <= range.end);
                if is_in { of_head(head) } else { BTreeSet::new() }
            });
            (blocks.clone(), names)
        };
        let mut found = Names { names, warnings: self.lost_in(range) };
        for block in blocks.iter().filter(|block| block.range().overlaps(range)) {
            if deadline.is_over() {
                return Err(StorageError::Deadline);
            }
            match of_block(block) {
                Ok(names) => found.names.extend(names),
                Err(error) => found.warnings.push(broken(&error)),
            }
        }
        Ok(found)
    }

    /// All series that satisfy the matchers, each with its parts by precedence, and what is missing from them.
    fn find(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        wanted: Wanted,
        deadline: &Deadline,
    ) -> Result<Found, StorageError> {
        let mut holding = deadline.holding();
        let (blocks, held) = self.snapshot_of(matchers, range, wanted, &mut holding)?;
        let mut warnings = self.lost_in(range);
        let mut found: Vec<Whole> = Vec::new();
        let column = if let Wanted::Rolled(column) = wanted { column } else { Rollup::Last };
        let mut sources = 0;
        let mut unpacker = Unpacker::default();
        for block in in_time(blocks) {
            if deadline.is_over() {
                return Err(StorageError::Deadline);
            }
            // Of a series of a rollup all columns, whichever touch the range: they are told apart by their order.
            let touching = if block.is_rollup() { block.range() } else { range };
            let before = found.len();
            let mut stop = None;
            let selected = block.each(matchers, touching, &mut unpacker, |(labels, chunks)| {
                let chunks = if block.is_rollup() { column_of(chunks, column) } else { chunks };
                let whole = Whole::of(labels, Part::Block(Arc::clone(&block), chunks));
                stop = holding.add(whole.weight()).err();
                if stop.is_none() && deadline.is_over() {
                    stop = Some(StorageError::Deadline);
                }
                found.push(whole);
                stop.is_none()
            });
            if let Some(error) = stop {
                return Err(error);
            }
            if let Err(error) = selected {
                warnings.push(broken(&error));
                found.truncate(before);
            }
            sources += usize::from(found.len() > before);
        }
        // Of one source each series comes once.
        let is_apart = sources + usize::from(!held.is_empty()) <= 1;
        found.extend(held.into_iter().map(|(labels, taken)| Whole::of(labels, Part::Head(taken))));
        let series = if is_apart { found } else { joined(found) };
        Ok(Found { series, warnings, holding })
    }

    /// Blocks and samples of the head that belong to one moment: a compaction that ends in between
    /// is seen by both or by neither.
    fn snapshot_of(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        wanted: Wanted,
        holding: &mut Holding,
    ) -> Result<(Vec<Arc<Block>>, TakenSeries), StorageError> {
        let blocks = self.blocks.read().unwrap_or_else(PoisonError::into_inner);
        let hold = |labels: &Labels, taken: &Taken| holding.add(weight_of(labels) + weight_in_head(taken));
        let held = self.with_head_for_long(|head| head.select(matchers, range, wanted, hold))?;
        let touching = blocks.iter().filter(|block| block.range().overlaps(range));
        Ok((touching.cloned().collect(), held))
    }

    /// What to say of blocks that were set aside.
    fn lost_in(&self, range: TimeRange) -> Vec<String> {
        let lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        let touching = lost.iter().filter(|lost| lost.range.overlaps(range));
        touching.map(ToString::to_string).collect()
    }
}

/// Blocks in the order of time, so that what is read of a series needs no sorting. Those that share some time stay as
/// they are: of two samples at one moment the first one counts.
fn in_time(mut blocks: Vec<Arc<Block>>) -> Vec<Arc<Block>> {
    let mut ranges: Vec<TimeRange> = blocks.iter().map(|block| block.range()).collect();
    ranges.sort_unstable_by_key(|range| range.start);
    // Where a time ends that nobody shares with what comes later.
    let mut ends: Vec<Timestamp> = Vec::new();
    for range in ranges {
        match ends.last_mut() {
            Some(end) if range.start <= *end => *end = range.end.max(*end),
            _ => ends.push(range.end),
        }
    }
    blocks.sort_by_key(|block| ends.partition_point(|end| *end < block.range().start));
    blocks
}

/// What matchers select.
pub(super) struct Found {
    pub(super) series: Vec<Whole>,
    pub(super) warnings: Vec<String>,
    /// For what the series weigh.
    pub(super) holding: Holding,
}

/// What the labels of a series take, and its place in lists, in samples of 16 bytes.
fn weight_of(labels: &Labels) -> usize {
    8 + labels.len() * 2
}

/// What was taken out of the head, in samples of 16 bytes.
fn weight_in_head(taken: &Taken) -> usize {
    match taken {
        Taken::One(_) => 0,
        Taken::Held(held) => 12 + held.weight(),
    }
}

/// In place of a part that was taken away.
const NOTHING: Part = Part::Head(Taken::One(Sample { timestamp: Timestamp(0), value: 0.0 }));

impl Whole {
    fn of(labels: Labels, part: Part) -> Self {
        Self { labels, part, more: Vec::new() }
    }

    pub(super) fn parts(&self) -> impl Iterator<Item = &Part> {
        std::iter::once(&self.part).chain(&self.more)
    }

    /// What it takes in memory before it is read, in samples of 16 bytes.
    pub(super) fn weight(&self) -> usize {
        let parts = self.parts().map(|part| match part {
            Part::Block(_, chunks) => 3 + chunks.len() * 2,
            Part::Head(taken) => weight_in_head(taken),
        });
        weight_of(&self.labels) + parts.sum::<usize>()
    }

    /// Roughly what it costs to read.
    fn bytes(&self) -> usize {
        let parts = self.parts().map(|part| match part {
            Part::Block(_, chunks) => chunks.iter().map(ChunkMeta::bytes).sum(),
            Part::Head(Taken::One(_)) => 0,
            Part::Head(Taken::Held(held)) => held.bytes(),
        });
        SERIES_BYTES + parts.sum::<usize>()
    }
}

/// Series of which each has all its parts, those of earlier ones first.
fn joined(mut found: Vec<Whole>) -> Vec<Whole> {
    found.sort_by(|a, b| a.labels.cmp(&b.labels));
    found.dedup_by(|later, first| {
        let is_same = later.labels == first.labels;
        if is_same {
            let part = std::mem::replace(&mut later.part, NOTHING);
            first.more.push(part);
        }
        is_same
    });
    found
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What to say of a block that could not be read.
pub(super) fn broken(error: &BlockError) -> String {
    tracing::error!(%error, "query met a damaged block");
    match error {
        BlockError::Corrupt { path, reason } => format!("block {} is damaged: {reason}", name_of(path)),
        BlockError::Read { path, cause } => format!("block {} cannot be read: {cause}", name_of(path)),
        BlockError::TooNew { path, .. } => format!("block {} is of a newer release", name_of(path)),
    }
}
