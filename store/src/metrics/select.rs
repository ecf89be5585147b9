//! Reading: series of the head and of blocks, put together.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Arc, PoisonError};

use binnacle_model::sample::is_stale;
use binnacle_model::storage::{Deadline, LabelSets, Names, Rollup, Series, SeriesSet, StorageError, Wanted};
use binnacle_model::{Labels, Matcher, Sample, Samples, TimeRange, Timestamp};

use super::block::{Block, BlockError, ChunkMeta, ChunkReader};
use super::chunk::Scratch;
use super::head::{Head, KnownTimes, Taken};
use super::rollup::column_of;
use super::{Metrics, sort_unique};

/// Where samples of a series are.
enum Part {
    Block(Arc<Block>, Vec<ChunkMeta>),
    Head(Taken),
}

/// A series, of which most have one part.
struct Whole {
    labels: Labels,
    part: Part,
    more: Vec<Part>,
}

/// A thread of its own costs more than reading fewer series than this.
const PART_MIN_SERIES: usize = 64;

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
        let (mut series, warnings) = self.find(matchers, range, wanted, deadline)?;
        let size = series.len().div_ceil(parts.max(1)).max(PART_MIN_SERIES);
        let mut sets: Vec<SeriesSet<'static>> = Vec::new();
        // From the end, so that nothing moves twice.
        while series.len() > size {
            let part = series.split_off((series.len() - 1) / size * size);
            sets.push(Box::new(Reading::new(part, Vec::new(), range, wanted, deadline.clone())));
        }
        sets.push(Box::new(Reading::new(series, warnings, range, wanted, deadline.clone())));
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
        let (mut series, warnings) = self.find(matchers, range, Wanted::All, deadline)?;
        series.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(Box::new(Reading::new(series, warnings, range, Wanted::All, deadline.clone())))
    }

    /// See [`binnacle_model::storage::Queryable::series`].
    pub(crate) fn series(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        deadline: &Deadline,
    ) -> Result<LabelSets, StorageError> {
        let (found, warnings) = self.find(matchers, range, Wanted::Newest, deadline)?;
        let mut labels: Vec<Labels> = found.into_iter().map(|one| one.labels).collect();
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
    ) -> Result<(Vec<Whole>, Vec<String>), StorageError> {
        let (blocks, held) = self.snapshot_of(matchers, range, wanted);
        let mut warnings = self.lost_in(range);
        let mut found: Vec<Whole> = Vec::new();
        let column = if let Wanted::Rolled(column) = wanted { column } else { Rollup::Last };
        let mut sources = 0;
        for block in blocks {
            if deadline.is_over() {
                return Err(StorageError::Deadline);
            }
            // Of a series of a rollup all columns, whichever touch the range: they are told apart by their order.
            let touching = if block.is_rollup() { block.range() } else { range };
            match block.select(matchers, touching) {
                Ok(selected) => {
                    sources += usize::from(!selected.is_empty());
                    found.extend(selected.into_iter().map(|(labels, chunks)| {
                        let chunks = if block.is_rollup() { column_of(chunks, column) } else { chunks };
                        Whole::of(labels, Part::Block(Arc::clone(&block), chunks))
                    }));
                }
                Err(error) => warnings.push(broken(&error)),
            }
        }
        // Of one source each series comes once.
        let is_apart = sources + usize::from(!held.is_empty()) <= 1;
        found.extend(held.into_iter().map(|(labels, taken)| Whole::of(labels, Part::Head(taken))));
        Ok((if is_apart { found } else { joined(found) }, warnings))
    }

    /// Blocks and samples of the head that belong to one moment: a compaction that ends in between
    /// is seen by both or by neither.
    fn snapshot_of(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        wanted: Wanted,
    ) -> (Vec<Arc<Block>>, Vec<(Labels, Taken)>) {
        let blocks = self.blocks.read().unwrap_or_else(PoisonError::into_inner);
        let held = self.head().select(matchers, range, wanted);
        let touching = blocks.iter().filter(|block| block.range().overlaps(range));
        (touching.cloned().collect(), held)
    }

    /// What to say of blocks that were set aside.
    fn lost_in(&self, range: TimeRange) -> Vec<String> {
        let lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        let touching = lost.iter().filter(|lost| lost.range.overlaps(range));
        touching.map(ToString::to_string).collect()
    }
}

/// In place of a part that was taken away.
const NOTHING: Part = Part::Head(Taken::One(Sample { timestamp: Timestamp(0), value: 0.0 }));

impl Whole {
    fn of(labels: Labels, part: Part) -> Self {
        Self { labels, part, more: Vec::new() }
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
    range: TimeRange,
    /// Whether each sample counts as one.
    counts: bool,
    deadline: Deadline,
    is_over: bool,
    readers: HashMap<u64, ChunkReader>,
    /// Of the head.
    known: KnownTimes,
    columns: Scratch,
    /// Of the series before: many of the next ones have the same.
    times: Arc<[i64]>,
}

impl Reading {
    fn new(
        series: Vec<Whole>,
        warnings: Vec<String>,
        range: TimeRange,
        wanted: Wanted,
        deadline: Deadline,
    ) -> Self {
        let (series, counts) = (series.into_iter(), wanted == Wanted::Rolled(Rollup::Count));
        Self {
            series,
            warnings,
            range,
            counts,
            deadline,
            is_over: false,
            readers: HashMap::new(),
            known: KnownTimes::default(),
            columns: Scratch::default(),
            times: Arc::default(),
        }
    }

    fn read(&mut self, whole: Whole) -> Series {
        let Whole { labels, part, more } = whole;
        let mut series = Series { labels, ..Series::default() };
        for part in [part].iter().chain(&more) {
            let before = self.columns.values.len();
            match part {
                Part::Block(block, chunks) => {
                    if let Err(error) = self.read_block(block, chunks, &mut series) {
                        self.warnings.push(broken(&error));
                    }
                }
                Part::Head(Taken::One(sample)) => self.columns.push(*sample),
                Part::Head(Taken::Held(held)) => {
                    held.decode_columns(self.range, &mut self.known, &mut self.columns);
                    series.histograms.extend_from_slice(&held.histograms);
                }
            }
            if self.counts && !matches!(part, Part::Block(block, _) if block.is_rollup()) {
                let numbers = self.columns.values[before..].iter_mut().filter(|value| !is_stale(**value));
                numbers.for_each(|value| *value = 1.0);
            }
        }
        series.samples = self.cut();
        let histograms = &mut series.histograms;
        histograms.retain(|one| self.range.contains(one.timestamp));
        sort_unique(histograms, |one| one.timestamp);
        series
    }

    /// What was read of a series: in order, each moment once, nothing outside of the range.
    fn cut(&mut self) -> Samples {
        let Scratch { times, values } = &mut self.columns;
        if !times.is_sorted_by(|a, b| a < b) {
            let pairs = times.drain(..).zip(values.drain(..));
            let mut samples: Vec<Sample> =
                pairs.map(|(time, value)| Sample { timestamp: Timestamp(time), value }).collect();
            sort_unique(&mut samples, |sample| sample.timestamp);
            samples.into_iter().for_each(|sample| self.columns.push(sample));
        }
        let Scratch { times, values } = &mut self.columns;
        let from = times.partition_point(|time| *time < self.range.start.0);
        let to = times.partition_point(|time| *time <= self.range.end.0).max(from);
        if *self.times != times[from..to] {
            self.times = times[from..to].into();
        }
        let samples = Samples::new(Arc::clone(&self.times), values[from..to].to_vec());
        self.columns.clear();
        samples
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
            let series = self.read(whole);
            if !series.samples.is_empty() || !series.histograms.is_empty() {
                return Some(Ok(series));
            }
        }
    }
}
