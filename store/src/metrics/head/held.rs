//! Samples that are taken out of a series as they are, to be decoded by whoever took them.

use std::collections::BTreeSet;
use std::sync::Arc;

use binnacle_model::storage::{ALL_TIME, HistogramSample};
use binnacle_model::{Sample, TimeRange, Timestamp};

use super::packed::Packed;
use super::times::{KnownTimes, TimeColumn};
use crate::metrics::chunk::open::OpenChunk;
use crate::metrics::chunk::{Scratch, values};
use crate::metrics::moments::TimesId;

/// A chunk that takes no more samples.
#[derive(Debug, Clone)]
pub(crate) struct Frozen {
    pub(crate) times: Arc<TimeColumn>,
    pub(super) values: Arc<[u8]>,
}

impl Frozen {
    pub(crate) fn range(&self) -> TimeRange {
        self.times.range
    }

    /// Adds the samples to `out`.
    pub(crate) fn decode(&self, scratch: &mut Scratch, out: &mut Vec<Sample>) {
        self.decode_range(ALL_TIME, scratch, out);
    }

    /// Adds the samples of `range` to `out`.
    pub(super) fn decode_range(&self, range: TimeRange, scratch: &mut Scratch, out: &mut Vec<Sample>) {
        scratch.clear();
        self.times.decode(&mut scratch.times);
        self.decode_values(&mut scratch.values);
        scratch.append_to(range, out);
    }

    /// Adds the values to `out`.
    fn decode_values(&self, out: &mut Vec<f64>) {
        let count = usize::from(self.times.count);
        values::decode(&self.values, count, out).expect("we encoded it in this process");
    }
}

/// What a query takes out of a series.
#[derive(Debug)]
pub(crate) enum Taken {
    /// All that was wanted.
    One(Sample),
    Held(Box<Held>),
}

/// Samples of a series, not yet decoded.
#[derive(Debug, Default, Clone)]
pub(crate) struct Held {
    pub(crate) chunks: Vec<Frozen>,
    pub(crate) open: Option<OpenChunk>,
    /// Not necessarily ascending.
    pub(crate) samples: Vec<Sample>,
    /// In no order.
    pub(crate) packed: Vec<Packed>,
    /// In no order.
    pub(crate) histograms: Vec<HistogramSample>,
}

impl Held {
    pub(crate) fn is_empty(&self) -> bool {
        let has_floats = !self.chunks.is_empty() || self.open.is_some() || !self.samples.is_empty();
        !has_floats && self.packed.is_empty() && self.histograms.is_empty()
    }

    /// Roughly how many bytes of samples there are to read.
    pub(crate) fn bytes(&self) -> usize {
        let frozen: usize = self.chunks.iter().map(|frozen| frozen.values.len()).sum();
        let loose = self.samples.len() + self.open.as_ref().map_or(0, OpenChunk::len);
        let packed: usize = self.packed.iter().map(Packed::bytes).sum();
        frozen + loose * 2 + packed + self.histograms.len() * 64
    }

    /// What it has of its own in memory, in samples of 16 bytes: frozen chunks are the head's.
    pub(crate) fn weight(&self) -> usize {
        let open = self.open.as_ref().map_or(0, OpenChunk::len).div_ceil(4);
        (self.chunks.len() + self.packed.len()) * 2 + open + self.samples.len() + self.histograms.len()
    }

    /// Adds the samples of `range` to `out`, in no order.
    pub(crate) fn decode_range(&self, range: TimeRange, scratch: &mut Scratch, out: &mut Vec<Sample>) {
        let frozen: usize = self.chunks.iter().map(|frozen| usize::from(frozen.times.count)).sum();
        out.reserve(frozen + self.open.as_ref().map_or(0, OpenChunk::len) + self.samples.len());
        for frozen in self.chunks.iter().filter(|frozen| frozen.range().overlaps(range)) {
            frozen.decode_range(range, scratch, out);
        }
        if let Some(open) = &self.open {
            open.decode_range(range, out);
        }
        out.extend(self.samples.iter().filter(|sample| range.contains(sample.timestamp)));
    }

    /// Adds at least the samples of `range` to `out`, in no order.
    pub(crate) fn decode_columns(&self, range: TimeRange, known: &mut KnownTimes, out: &mut Scratch) {
        for frozen in self.chunks.iter().filter(|frozen| frozen.range().overlaps(range)) {
            out.times.extend_from_slice(known.of(&frozen.times));
            frozen.decode_values(&mut out.values);
        }
        if let Some(open) = &self.open {
            open.decode_columns(out);
        }
        self.samples.iter().for_each(|sample| out.push(*sample));
    }

    /// Whether all samples are floats in chunks.
    pub(crate) fn has_chunks_alone(&self) -> bool {
        self.samples.is_empty() && self.packed.is_empty() && self.histograms.is_empty()
    }

    /// Adds a name for the times of each chunk that [`Self::decode_values`] reads, and the columns that must stay so
    /// that the name stands for them. An open chunk's name may also be that of another one.
    pub(crate) fn name_times(
        &self,
        range: TimeRange,
        names: &mut Vec<TimesId>,
        columns: &mut Vec<Arc<TimeColumn>>,
    ) {
        for frozen in self.chunks.iter().filter(|frozen| frozen.range().overlaps(range)) {
            names.push((Arc::as_ptr(&frozen.times).addr() as u64, u32::MAX));
            columns.push(Arc::clone(&frozen.times));
        }
        if let Some((first, last)) = self.open.as_ref().and_then(|open| Some((open.first()?, open.last()?))) {
            names.extend([first, last.timestamp].map(|end| (end.0.cast_unsigned(), u32::MAX - 1)));
        }
    }

    /// Adds the values of all chunks to those of `out`, and the times of the open one to its times.
    pub(crate) fn decode_values(&self, range: TimeRange, out: &mut Scratch) {
        for frozen in self.chunks.iter().filter(|frozen| frozen.range().overlaps(range)) {
            frozen.decode_values(&mut out.values);
        }
        if let Some(open) = &self.open {
            open.decode_columns(out);
        }
    }

    /// The spans in which it has samples.
    pub(crate) fn windows(&self, span: i64) -> BTreeSet<i64> {
        let open = self.open.iter().flat_map(|open| [open.first(), open.last().map(|last| last.timestamp)]);
        let chunks = self.chunks.iter().flat_map(|frozen| [frozen.range().start, frozen.range().end]);
        let samples = self.samples.iter().map(|sample| sample.timestamp);
        let histograms = self.histograms_in(ALL_TIME);
        let histograms = histograms.iter().map(|one| one.timestamp);
        let all = open.flatten().chain(chunks).chain(samples).chain(histograms);
        all.map(|at| at.0.div_euclid(span)).collect()
    }

    pub(super) fn append(&mut self, other: &Self, range: TimeRange) {
        let chunks = other.chunks.iter().filter(|frozen| frozen.range().overlaps(range));
        self.chunks.extend(chunks.cloned());
        if let Some(open) = &other.open {
            open.decode(&mut self.samples);
        }
        self.samples.extend(other.samples.iter().filter(|sample| range.contains(sample.timestamp)));
        self.packed.extend(other.packed.iter().filter(|packed| packed.range().overlaps(range)).cloned());
        let histograms = other.histograms.iter().filter(|one| range.contains(one.timestamp));
        self.histograms.extend(histograms.cloned());
    }

    /// The histograms of a range, ascending.
    pub(crate) fn histograms_in(&self, range: TimeRange) -> Vec<HistogramSample> {
        let mut found = Vec::new();
        for packed in self.packed.iter().filter(|packed| packed.range().overlaps(range)) {
            packed.decode(&mut found);
        }
        found.extend_from_slice(&self.histograms);
        found.retain(|one| range.contains(one.timestamp));
        found.sort_by_key(|one| one.timestamp);
        found
    }

    pub(super) fn first(&self) -> Option<Timestamp> {
        let chunks = self.chunks.iter().map(|frozen| frozen.range().start).min();
        let open = self.open.as_ref().and_then(OpenChunk::first);
        let samples = self.samples.iter().map(|sample| sample.timestamp).min();
        let histograms = self.histograms.iter().map(|one| one.timestamp);
        let histogram = histograms.chain(self.packed.iter().map(|packed| packed.range().start)).min();
        [chunks, open, samples, histogram].into_iter().flatten().min()
    }
}
