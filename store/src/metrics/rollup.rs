//! Rollups: what is left of a block when its samples are too old, if that is wanted.
//!
//! A rollup is a block with one place an hour for each series, and five columns: the last sample, the smallest, the
//! largest, the sum and the count, each at the time of the last sample. Of a counter the samples around a reset are kept
//! as well, so that an increase over hours is what it was; so they are of whatever falls as rarely as counters do. Native
//! histograms keep the last of each hour.
//!
//! Invariants:
//! - A moment is answered by samples or by rollups, and never by both: a rollup is seen once its block is not.
//! - The columns of a series are its chunks of floats, in the order of [`Rollup`].

use std::io;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use binnacle_model::histogram::ResetHint;
use binnacle_model::sample::is_stale;
use binnacle_model::storage::{HistogramSample, Rollup};
use binnacle_model::time::millis;
use binnacle_model::{Labels, Sample, Timestamp};

use super::block::{Block, BlockError, BlockWriter, ChunkMeta, ChunkReader, Cut};
use super::compact::{Drops, copy_merged, window_of};
use super::{Metrics, SampleKind};

/// Of a series, for one place.
const ROLLUP: Duration = binnacle_model::storage::ROLLUP;

/// Resets that are kept of a series and a block, where its name says that it is a counter.
const RESETS_MAX: usize = 1000;

/// Of any other, as long as there are no more of them: what falls more often than once an hour is no counter.
const RARE_RESETS_MAX: usize = 24;

/// Columns of a series.
pub(super) const COLUMNS: usize = 5;

/// What becomes of a series.
#[derive(Debug, Default)]
pub(crate) struct Rolled {
    pub(crate) columns: [Vec<Sample>; COLUMNS],
    pub(crate) histograms: Vec<HistogramSample>,
}

impl Rolled {
    pub(crate) fn is_empty(&self) -> bool {
        self.columns[0].is_empty() && self.histograms.is_empty()
    }

    /// What is left of samples and histograms, each ascending.
    pub(crate) fn of(labels: &Labels, samples: &[Sample], histograms: &[HistogramSample]) -> Self {
        let hour = millis(ROLLUP);
        let is_counter = ["_total", "_count", "_sum", "_bucket"]
            .iter()
            .any(|suffix| labels.metric_name().ends_with(suffix));
        let mut rolled = Self::default();
        let mut before: Option<Sample> = None;
        let values: Vec<f64> =
            samples.iter().map(|sample| sample.value).filter(|value| !is_stale(*value)).collect();
        let falls = values.array_windows().filter(|[before, after]| after < before);
        let most = if is_counter { RESETS_MAX } else { RARE_RESETS_MAX };
        let is_counter = is_counter || falls.take(RARE_RESETS_MAX + 1).count() <= RARE_RESETS_MAX;
        let mut resets = 0;
        for part in samples.chunk_by(|a, b| window_of(a.timestamp, hour) == window_of(b.timestamp, hour)) {
            let numbers = || part.iter().filter(|sample| !is_stale(sample.value));
            if is_counter {
                for sample in numbers() {
                    if before.is_none() {
                        // The block before this one may end higher.
                        rolled.push_last(*sample);
                    }
                    if let Some(before) = before.filter(|before| sample.value < before.value)
                        && resets < most
                    {
                        rolled.push_last(before);
                        rolled.push_last(*sample);
                        resets += 1;
                    }
                    before = Some(*sample);
                }
            }
            if let Some(last) = numbers().next_back() {
                rolled.push_last(*last);
                let values = || numbers().map(|sample| sample.value);
                let folded = [
                    values().fold(f64::NAN, f64::min),
                    values().fold(f64::NAN, f64::max),
                    values().sum(),
                    values().count() as f64,
                ];
                for (column, value) in rolled.columns[1..].iter_mut().zip(folded) {
                    column.push(Sample { timestamp: last.timestamp, value });
                }
            }
            if let Some(end) = part.last().filter(|sample| is_stale(sample.value)) {
                rolled.push_last(*end);
            }
        }
        rolled.histograms = last_histograms(histograms, hour);
        rolled
    }

    /// Reads what [`BlockWriter::add_rolled`] wrote.
    fn read(reader: &mut ChunkReader, chunks: Vec<ChunkMeta>) -> Result<Self, BlockError> {
        let mut rolled = Self::default();
        let mut columns = rolled.columns.iter_mut();
        for chunk in chunks {
            let mut samples = Vec::new();
            reader.read(chunk, &mut samples, &mut rolled.histograms)?;
            if chunk.kind == SampleKind::Floats
                && let Some(column) = columns.next()
            {
                *column = samples;
            }
        }
        Ok(rolled)
    }

    fn push_last(&mut self, sample: Sample) {
        let is_new = self.columns[0].last().is_none_or(|last| last.timestamp < sample.timestamp);
        if is_new {
            self.columns[0].push(sample);
        }
    }

    fn drop(&mut self, drops: Drops<'_>, labels: &Labels) {
        for column in &mut self.columns {
            column.retain(|sample| !drops(sample.timestamp, labels));
        }
        self.histograms.retain(|one| !drops(one.timestamp, labels));
    }
}

fn last_histograms(histograms: &[HistogramSample], hour: i64) -> Vec<HistogramSample> {
    let hours = histograms.chunk_by(|a, b| window_of(a.timestamp, hour) == window_of(b.timestamp, hour));
    let mut kept: Vec<HistogramSample> = hours.filter_map(|part| part.last().cloned()).collect();
    for one in &mut kept {
        // What it says of the one before it does not hold of the one an hour before it.
        if matches!(one.histogram.hint, ResetHint::Reset | ResetHint::NotReset) {
            Arc::make_mut(&mut one.histogram).hint = ResetHint::Unknown;
        }
    }
    kept
}

/// Of a series' chunks in a rollup those of one column.
pub(super) fn column_of(chunks: Vec<ChunkMeta>, column: Rollup) -> Vec<ChunkMeta> {
    let is_floats = |chunk: &ChunkMeta| chunk.kind == SampleKind::Floats;
    let mut kept: Vec<ChunkMeta> =
        chunks.iter().copied().filter(is_floats).skip(column as usize).take(1).collect();
    if column == Rollup::Last {
        kept.extend(chunks.into_iter().filter(|chunk| !is_floats(chunk)));
    }
    kept
}

impl Metrics {
    /// See [`binnacle_model::storage::Queryable::rolled_until`].
    pub(crate) fn rolled_until(&self) -> Option<Timestamp> {
        let blocks = self.blocks.read().unwrap_or_else(PoisonError::into_inner);
        blocks.iter().filter(|block| block.is_rollup()).map(|block| block.range().end).max()
    }

    /// Writes what is left of blocks of one day, each moment of a series once; `None` if there is nothing.
    pub(super) fn roll_up(&self, blocks: &[Arc<Block>]) -> io::Result<Option<Arc<Block>>> {
        let number = self.take_block_number();
        let mut writer = BlockWriter::create(&*self.disk, &self.dir, number)?.of_rollups();
        copy_merged(blocks, &mut writer, None).map_err(io::Error::other)?;
        let sources: Vec<u64> = blocks.iter().map(|block| block.number).collect();
        self.publish_rollup(writer, number, &sources)
    }

    /// Writes a rollup anew, without what is to go.
    pub(super) fn rewrite_rollup(
        &self,
        block: &Arc<Block>,
        drops: Drops<'_>,
    ) -> io::Result<Option<Arc<Block>>> {
        let number = self.take_block_number();
        let mut writer = BlockWriter::create(&*self.disk, &self.dir, number)?.of_rollups();
        let mut reader = ChunkReader::new(Arc::clone(block)).map_err(io::Error::other)?;
        let mut group = 0;
        while let Some(rows) = block.group(group).map_err(io::Error::other)? {
            group += 1;
            for (labels, chunks) in rows {
                match Rolled::read(&mut reader, chunks) {
                    Ok(mut rolled) => {
                        rolled.drop(drops, &labels);
                        writer.add_rolled(&labels, &rolled)?;
                    }
                    // Columns are told apart by their order: without one of them the others mean nothing.
                    Err(error @ BlockError::Corrupt { .. }) => {
                        tracing::error!(%error, series = %labels, "rollups of a series could not be read");
                    }
                    Err(error) => return Err(io::Error::other(error)),
                }
            }
        }
        let own = block.sources().map_err(io::Error::other)?;
        let sources: Vec<u64> = own.into_iter().chain([block.number]).collect();
        self.publish_rollup(writer, number, &sources)
    }

    fn publish_rollup(
        &self,
        writer: BlockWriter<'_>,
        number: u64,
        sources: &[u64],
    ) -> io::Result<Option<Arc<Block>>> {
        if writer.is_empty() {
            return Ok(None);
        }
        self.publish(writer, number, Cut::NONE, sources).map(Some)
    }

    /// Whether a block's rollup is there already: a crash may have kept the block from being removed.
    pub(super) fn is_rolled_up(&self, block: &Block) -> bool {
        let blocks = self.blocks();
        let mut rollups = blocks.iter().filter(|other| other.is_rollup());
        rollups.any(|rollup| rollup.sources().is_ok_and(|sources| sources.contains(&block.number)))
    }
}

#[cfg(test)]
mod tests {
    use binnacle_model::STALE_NAN;

    use super::*;

    fn rolled(name: &str, samples: &[(i64, f64)]) -> Rolled {
        let labels = Labels::new([("__name__", name)]).unwrap();
        let samples: Vec<Sample> = samples
            .iter()
            .map(|(minute, value)| Sample { timestamp: Timestamp(minute * 60_000), value: *value })
            .collect();
        Rolled::of(&labels, &samples, &[])
    }

    fn shown(column: &[Sample]) -> Vec<(i64, f64)> {
        column.iter().map(|sample| (sample.timestamp.0 / 60_000, sample.value)).collect()
    }

    #[test]
    fn an_hour_becomes_five_numbers() {
        let rolled = rolled("memory", &[(1, 5.0), (30, 2.0), (59, 3.0), (60, 9.0), (61, f64::NAN)]);
        // It falls rarely, so that it may be a counter.
        assert_eq!(shown(&rolled.columns[0])[..3], [(1, 5.0), (30, 2.0), (59, 3.0)]);
        assert_eq!(shown(&rolled.columns[1]), [(59, 2.0), (61, 9.0)]);
        assert_eq!(shown(&rolled.columns[2]), [(59, 5.0), (61, 9.0)]);
        assert_eq!(shown(&rolled.columns[3])[0], (59, 10.0));
        assert_eq!(shown(&rolled.columns[4]), [(59, 3.0), (61, 2.0)]);
    }

    #[test]
    fn no_reset_of_a_counter_is_lost() {
        let samples = [(1, 5.0), (2, 9.0), (3, 1.0), (59, 8.0), (60, 2.0), (119, 30.0)];
        let rolled = rolled("orders_total", &samples);
        let want = [(1, 5.0), (2, 9.0), (3, 1.0), (59, 8.0), (60, 2.0), (119, 30.0)];
        assert_eq!(shown(&rolled.columns[0]), want);
    }

    #[test]
    fn what_falls_again_and_again_is_no_counter() {
        let samples: Vec<(i64, f64)> = (0..120).map(|minute| (minute, (minute % 3) as f64)).collect();
        assert_eq!(shown(&rolled("queue", &samples).columns[0]), [(59, 2.0), (119, 2.0)]);
        assert_eq!(rolled("queue_total", &samples).columns[0].len(), 2 + 2 * 39);
    }

    #[test]
    fn the_end_of_a_series_stays_its_end() {
        let rolled = rolled("up", &[(1, 1.0), (2, STALE_NAN)]);
        assert_eq!(rolled.columns[0].len(), 2);
        assert!(is_stale(rolled.columns[0][1].value));
        assert_eq!(shown(&rolled.columns[4]), [(1, 1.0)]);
    }
}
