//! Late samples on their way into a block, and what other blocks have of the same moments.
//!
//! The head compares a sample with what it holds itself, which is the last hour at least. What is older is taken, and
//! compared here, once for all late samples of a span: the first sample of a moment stays, whenever the others come.

use std::sync::Arc;

use binnacle_model::storage::{AppendReport, HistogramSample};
use binnacle_model::{Labels, Sample, TimeRange, Timestamp};

use super::Metrics;
use super::block::{Block, BlockError};
use super::compact::Source;

/// What blocks have, series by series.
pub(super) struct Stored {
    sources: Vec<Source>,
    samples: Vec<Sample>,
    histograms: Vec<HistogramSample>,
}

impl Metrics {
    /// The blocks that a span may share moments with. None while a deletion is not done everywhere: what it takes away
    /// must not stand in the way of what comes after it.
    pub(super) fn stored_in(&self, range: TimeRange) -> Stored {
        let is_settled = !self.has_pending_deletions();
        let blocks = self.blocks().into_iter().filter(|block| is_settled && !block.is_rollup());
        Stored::of(blocks.filter(|block| block.range().overlaps(range)))
    }
}

impl Stored {
    fn of(blocks: impl Iterator<Item = Arc<Block>>) -> Self {
        // What cannot be read stands in nobody's way.
        let sources = blocks.filter_map(|block| readable(Source::new(&block))).collect();
        Self { sources, samples: Vec::new(), histograms: Vec::new() }
    }

    /// Takes out of a series, which is greater than all before it, what blocks have already. Counts that.
    pub(super) fn strike(
        &mut self,
        labels: &Labels,
        samples: &mut Vec<Sample>,
        histograms: &mut Vec<HistogramSample>,
        struck: &mut AppendReport,
    ) {
        if self.sources.is_empty() || (samples.is_empty() && histograms.is_empty()) {
            return;
        }
        self.samples.clear();
        self.histograms.clear();
        let moments = samples.iter().map(|sample| sample.timestamp);
        let moments = moments.chain(histograms.iter().map(|one| one.timestamp));
        let (start, end) = moments.fold((Timestamp(i64::MAX), Timestamp(i64::MIN)), |(start, end), at| {
            (start.min(at), end.max(at))
        });
        let range = TimeRange { start, end };
        self.sources.retain_mut(|source| {
            readable(source.read_series(labels, range, &mut self.samples, &mut self.histograms)).is_some()
        });
        self.samples.sort_by_key(|sample| sample.timestamp);
        self.histograms.sort_by_key(|one| one.timestamp);
        let (stored, stored_histograms) = (&self.samples, &self.histograms);
        // A moment has one value, a number or a histogram.
        samples.retain(|sample| {
            let other = first_at(stored_histograms, sample.timestamp, |one| one.timestamp).map(|_| false);
            let found = first_at(stored, sample.timestamp, |one| one.timestamp);
            keep(other.or(found.map(|one| one.value.to_bits() == sample.value.to_bits())), struck)
        });
        histograms.retain(|one| {
            let other = first_at(stored, one.timestamp, |other| other.timestamp).map(|_| false);
            let found = first_at(stored_histograms, one.timestamp, |other| other.timestamp);
            let is_same = |known: &HistogramSample| {
                known.histogram == one.histogram || (known.histogram.is_stale() && one.histogram.is_stale())
            };
            keep(found.map(is_same).or(other), struck)
        });
    }
}

/// Counts what is there already, as equal or as another one.
fn keep(is_equal: Option<bool>, struck: &mut AppendReport) -> bool {
    struck.duplicate += usize::from(is_equal == Some(true));
    struck.conflicting += usize::from(is_equal == Some(false));
    is_equal.is_none()
}

fn first_at<T>(ascending: &[T], at: Timestamp, of: impl Fn(&T) -> Timestamp) -> Option<&T> {
    ascending.get(ascending.partition_point(|one| of(one) < at)).filter(|one| of(one) == at)
}

fn readable<T>(read: Result<T, BlockError>) -> Option<T> {
    read.inspect_err(|error| tracing::error!(%error, "late samples are not compared with a block")).ok()
}
