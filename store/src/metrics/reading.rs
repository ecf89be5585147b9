//! Series on their way: of those that were found, the samples, one series after the other.

use std::collections::HashMap;
use std::sync::Arc;

use binnacle_model::sample::is_stale;
use binnacle_model::storage::{Deadline, Holding, Rollup, Series, StorageError, Wanted};
use binnacle_model::{Sample, Samples, TimeRange, Timestamp};

use super::block::{Block, BlockError, ChunkMeta, ChunkReader};
use super::chunk::Scratch;
use super::chunk::open::OpenChunk;
use super::head::{KnownTimes, Taken, TimeColumn};
use super::moments::{KnownMoments, Moments, TimesId};
use super::select::{Found, Part, Whole, broken};
use super::{SampleKind, sort_unique};

/// Series on their way to whoever asked.
pub(super) struct Reading {
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
    /// Where the times of the series that is read come from, if all of its samples are floats in chunks.
    times: Vec<TimesId>,
    /// Those of its columns that are the head's: for as long as a number stands for one, it is there.
    pinned: Vec<Arc<TimeColumn>>,
    /// How many of its samples, the last ones, have no column of times.
    open: usize,
}

impl Reading {
    pub(super) fn new(found: Found, range: TimeRange, wanted: Wanted, deadline: Deadline) -> Self {
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
            pinned: Vec::new(),
            open: 0,
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
        self.name_times(whole);
        let Moments { times, count, wanted, open, .. } = self.moments.of_columns(&self.times)?;
        self.columns.clear();
        let Scratch { values, .. } = &mut self.columns;
        values.reserve_exact(*count);
        for part in whole.parts() {
            match part {
                Part::Block(block, chunks) => {
                    let reader = self.readers.get_mut(&block.number)?;
                    for chunk in chunks {
                        reader.read_values(*chunk, &mut self.columns.values).ok()?;
                    }
                }
                Part::Head(Taken::Held(held)) => held.decode_values(self.range, &mut self.columns),
                Part::Head(Taken::One(_)) => return None,
            }
        }
        let Scratch { times: of_open, values } = &mut self.columns;
        if values.len() != *count || of_open[..] != open[..] {
            return None;
        }
        let is_all = wanted.len() == *count;
        let values = if is_all { std::mem::take(values) } else { values[wanted.clone()].to_vec() };
        Some(Samples::new(Arc::clone(times), values))
    }

    /// Says where the times of a series come from; of one that has anything but floats in chunks, nothing.
    fn name_times(&mut self, whole: &Whole) {
        self.times.clear();
        self.pinned.clear();
        self.open = 0;
        for part in whole.parts() {
            let is_plain = match part {
                // Behind an open chunk nothing comes.
                _ if self.open > 0 => false,
                Part::Block(block, chunks) => {
                    self.times.extend(chunks.iter().map(|chunk| (block.number, chunk.times)));
                    chunks.iter().all(|chunk| chunk.kind == SampleKind::Floats)
                }
                Part::Head(Taken::Held(held)) => {
                    held.name_times(self.range, &mut self.times, &mut self.pinned);
                    self.open = held.open.as_ref().map_or(0, OpenChunk::len);
                    held.has_chunks_alone()
                }
                Part::Head(Taken::One(_)) => false,
            };
            if !is_plain {
                self.times.clear();
                return;
            }
        }
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
            let moments = Moments {
                times: Arc::clone(&shared),
                count: values.len(),
                wanted: from..to,
                open: times[times.len() - self.open.min(times.len())..].into(),
                _pinned: std::mem::take(&mut self.pinned),
            };
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
