//! Reading: series of the head and of blocks, put together.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Arc, PoisonError};

use binnacle_model::sample::is_stale;
use binnacle_model::storage::{
    Deadline, Holding, LabelSets, Names, Rollup, Series, SeriesSet, StorageError, Wanted,
};
use binnacle_model::{Labels, Matcher, Sample, Samples, TimeRange, Timestamp};

use super::block::{Block, BlockError, ChunkMeta, ChunkReader, Unpacker};
use super::chunk::Scratch;
use super::head::{Head, KnownTimes, Taken};
use super::moments::{KnownMoments, Moments, TimesId};
use super::rollup::column_of;
use super::{Metrics, SampleKind, sort_unique};

/// Where samples of a series are.
enum Part {
    Block(Arc<Block>, Vec<ChunkMeta>),
    Head(Taken),
}

type TakenSeries = Vec<(Labels, Taken)>;

/// A series, of which most have one part.
struct Whole {
    labels: Labels,
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
            let head = self.head();
            let is_in = head.newest().is_some_and(|newest| newest >= range.start)
                && head.oldest_in().is_some_and(|oldest| oldest <= range.end);
            (blocks.clone(), if is_in { of_head(&head) } else { BTreeSet::new() })
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
        let held = self.head().select(matchers, range, wanted, |labels, taken| {
            holding.add(weight_of(labels) + weight_in_head(taken))
        })?;
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
struct Found {
    series: Vec<Whole>,
    warnings: Vec<String>,
    /// For what the series weigh.
    holding: Holding,
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

    fn parts(&self) -> impl Iterator<Item = &Part> {
        std::iter::once(&self.part).chain(&self.more)
    }

    /// What it takes in memory before it is read, in samples of 16 bytes.
    fn weight(&self) -> usize {
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

    /// Its chunks, each with the number of its block; `None` for whatever is not floats in a block.
    fn chunks(&self) -> impl Iterator<Item = Option<(u64, ChunkMeta)>> {
        self.parts().flat_map(|part| {
            let (number, chunks) = match part {
                Part::Block(block, chunks) => (block.number, &chunks[..]),
                Part::Head(_) => (0, &[][..]),
            };
            let floats = chunks
                .iter()
                .map(move |chunk| (chunk.kind == SampleKind::Floats).then_some((number, *chunk)));
            floats.chain(matches!(part, Part::Head(_)).then_some(None))
        })
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
    series: std::vec::IntoIter<Whole>,
    /// Said before the next series.
    warnings: Vec<String>,
    /// For what the series weigh that are still to come.
    holding: Holding,
    range: TimeRange,
    /// Whether each sample counts as one.
    counts: bool,
    deadline: Deadline,
    is_over: bool,
    readers: HashMap<u64, ChunkReader>,
    /// Of the head.
    known: KnownTimes,
    columns: Scratch,
    moments: KnownMoments,
    /// The columns of times of the series that is read, if all of its samples are floats of blocks.
    times: Vec<TimesId>,
}

impl Reading {
    fn new(found: Found, range: TimeRange, wanted: Wanted, deadline: Deadline) -> Self {
        let counts = wanted == Wanted::Rolled(Rollup::Count);
        Self {
            series: found.series.into_iter(),
            warnings: found.warnings,
            holding: found.holding,
            range,
            counts,
            deadline,
            is_over: false,
            readers: HashMap::new(),
            known: KnownTimes::default(),
            columns: Scratch::default(),
            moments: KnownMoments::default(),
            times: Vec::new(),
        }
    }

    fn read(&mut self, whole: Whole) -> Series {
        if !self.counts
            && let Some(samples) = self.read_alike(&whole)
        {
            return Series { labels: whole.labels, samples, ..Series::default() };
        }
        self.columns.clear();
        let mut series = Series::default();
        for part in whole.parts() {
            let before = self.columns.values.len();
            match part {
                Part::Block(block, chunks) => {
                    if let Err(error) = self.read_block(block, chunks, &mut series) {
                        self.warnings.push(broken(&error));
                        self.times.clear();
                    }
                }
                Part::Head(Taken::One(sample)) => self.columns.push(*sample),
                Part::Head(Taken::Held(held)) => {
                    held.decode_columns(self.range, &mut self.known, &mut self.columns);
                    series.histograms.extend(held.histograms_in(self.range));
                }
            }
            if self.counts && !matches!(part, Part::Block(block, _) if block.is_rollup()) {
                let numbers = self.columns.values[before..].iter_mut().filter(|value| !is_stale(**value));
                numbers.for_each(|value| *value = 1.0);
            }
        }
        series.samples = self.cut();
        series.labels = whole.labels;
        let histograms = &mut series.histograms;
        histograms.retain(|one| self.range.contains(one.timestamp));
        sort_unique(histograms, |one| one.timestamp);
        series
    }

    /// The samples of a series of which the moments are those of an earlier one, in the same columns: these need
    /// not be read, compared and cut again. `None` for any other series, and where something is damaged.
    fn read_alike(&mut self, whole: &Whole) -> Option<Samples> {
        self.times.clear();
        for chunk in whole.chunks() {
            let Some((block, chunk)) = chunk else {
                self.times.clear();
                return None;
            };
            self.times.push((block, chunk.times));
        }
        let Moments { times, count, wanted } = self.moments.of_columns(&self.times)?;
        let values = &mut self.columns.values;
        values.clear();
        values.reserve_exact(*count);
        for (block, chunk) in whole.chunks().flatten() {
            self.readers.get_mut(&block)?.read_values(chunk, values).ok()?;
        }
        if values.len() != *count {
            return None;
        }
        let is_all = wanted.len() == *count;
        let values = if is_all { std::mem::take(values) } else { values[wanted.clone()].to_vec() };
        Some(Samples::new(Arc::clone(times), values))
    }

    /// What was read of a series: in order, each moment once, nothing outside of the range.
    fn cut(&mut self) -> Samples {
        let Scratch { times, values } = &mut self.columns;
        if !times.is_sorted_by(|a, b| a < b) {
            self.times.clear();
            let pairs = times.drain(..).zip(values.drain(..));
            let mut samples: Vec<Sample> =
                pairs.map(|(time, value)| Sample { timestamp: Timestamp(time), value }).collect();
            sort_unique(&mut samples, |sample| sample.timestamp);
            samples.into_iter().for_each(|sample| self.columns.push(sample));
        }
        let Scratch { times, values } = &mut self.columns;
        let from = times.partition_point(|time| *time < self.range.start.0);
        let to = times.partition_point(|time| *time <= self.range.end.0).max(from);
        let shared = self.moments.share(&times[from..to]);
        if !self.times.is_empty() {
            let moments = Moments { times: Arc::clone(&shared), count: values.len(), wanted: from..to };
            self.moments.remember(&self.times, moments);
        }
        Samples::new(shared, values[from..to].to_vec())
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
            let read = reader.read_columns(*chunk, &mut self.columns, &mut series.histograms);
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
            let whole = self.series.next()?;
            let weight = whole.weight();
            let series = self.read(whole);
            self.holding.give_back(weight);
            if !series.samples.is_empty() || !series.histograms.is_empty() {
                return Some(Ok(series));
            }
        }
    }
}
