//! One series of the head: samples that no block holds yet.

use std::sync::Arc;

use binnacle_model::histogram::{Histogram, ResetHint};
use binnacle_model::storage::HistogramSample;
use binnacle_model::{Labels, Sample, TimeRange, Timestamp};

use super::chunk::{self, CHUNK_MAX_SAMPLES};
use crate::wal::WalFileId;

/// An encoded chunk that takes no more samples.
#[derive(Debug)]
pub(crate) struct Frozen {
    pub(crate) bytes: Vec<u8>,
    pub(crate) range: TimeRange,
}

/// A series of the head.
#[derive(Debug)]
pub(crate) struct MemSeries {
    pub(crate) labels: Labels,
    /// The WAL file in which the labels were last said.
    pub(crate) defined_in: WalFileId,
    frozen: Vec<Arc<Frozen>>,
    /// The newest samples, ascending.
    open: Vec<Sample>,
    /// Samples older than a frozen chunk's end when they came, ascending.
    late: Vec<Sample>,
    /// Ascending. Few series have any.
    histograms: Vec<HistogramSample>,
}

/// What became of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inserted {
    New,
    Duplicate,
    Conflicting,
}

/// Samples of a series, not yet decoded.
#[derive(Debug, Default, Clone)]
pub(crate) struct Held {
    pub(crate) chunks: Vec<Arc<Frozen>>,
    /// Not necessarily ascending.
    pub(crate) samples: Vec<Sample>,
    /// Ascending.
    pub(crate) histograms: Vec<HistogramSample>,
}

impl Held {
    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.samples.is_empty() && self.histograms.is_empty()
    }

    /// Adds all samples to `out`, in no order.
    pub(crate) fn decode(&self, out: &mut Vec<Sample>) {
        for frozen in &self.chunks {
            chunk::decode(&frozen.bytes, out).expect("we encoded it in this process");
        }
        out.extend_from_slice(&self.samples);
    }
}

impl MemSeries {
    pub(crate) fn new(labels: Labels) -> Self {
        let defined_in = WalFileId::default();
        let (frozen, open, late, histograms) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { labels, defined_in, frozen, open, late, histograms }
    }

    /// What would become of a histogram.
    pub(crate) fn judge_histogram(&self, sample: &HistogramSample) -> Inserted {
        match self.histograms.binary_search_by_key(&sample.timestamp, |one| one.timestamp) {
            // A moment has one value, a number or a histogram.
            Err(_) if self.number_at(sample.timestamp).is_some() => Inserted::Conflicting,
            Err(_) => Inserted::New,
            Ok(at) => {
                let known = &self.histograms[at].histogram;
                let is_same = *known == sample.histogram || (known.is_stale() && sample.histogram.is_stale());
                if is_same { Inserted::Duplicate } else { Inserted::Conflicting }
            }
        }
    }

    /// Adds a histogram that [`Self::judge_histogram`] called new, with a hint whether its counter began
    /// again since the one before.
    pub(crate) fn insert_histogram(&mut self, sample: &HistogramSample) {
        let place = self.histograms.partition_point(|other| other.timestamp < sample.timestamp);
        let before = place.checked_sub(1).map(|before| &*self.histograms[before].histogram);
        let hint = hint_after(before, &sample.histogram);
        let mut sample = sample.clone();
        if sample.histogram.hint != hint {
            Arc::make_mut(&mut sample.histogram).hint = hint;
        }
        self.histograms.insert(place, sample);
        if let Some(next) = self.histograms.get_mut(place + 1)
            && next.histogram.hint != ResetHint::Gauge
        {
            // It was compared with one that is no longer before it.
            Arc::make_mut(&mut next.histogram).hint = ResetHint::Unknown;
        }
    }

    /// What would become of `sample`.
    pub(crate) fn judge(&self, sample: Sample) -> Inserted {
        let at = sample.timestamp;
        if self.histograms.binary_search_by_key(&at, |one| one.timestamp).is_ok() {
            return Inserted::Conflicting;
        }
        match self.number_at(at) {
            None => Inserted::New,
            Some(known) if known == sample => Inserted::Duplicate,
            Some(_) => Inserted::Conflicting,
        }
    }

    fn number_at(&self, at: Timestamp) -> Option<Sample> {
        if self.open.last().is_none_or(|last| last.timestamp < at) && !self.is_frozen(at) {
            return None;
        }
        find(&self.open, at).or_else(|| find(&self.late, at)).or_else(|| {
            let touching = self.frozen.iter().filter(|frozen| frozen.range.contains(at));
            let mut samples = Vec::new();
            for frozen in touching {
                chunk::decode(&frozen.bytes, &mut samples).expect("we encoded it in this process");
            }
            find(&samples, at)
        })
    }

    /// Adds a sample that [`Self::judge`] called new.
    pub(crate) fn insert(&mut self, sample: Sample) {
        let at = sample.timestamp;
        let samples = if self.is_frozen(at) { &mut self.late } else { &mut self.open };
        let place = samples.partition_point(|other| other.timestamp < at);
        samples.insert(place, sample);
        if self.open.len() >= CHUNK_MAX_SAMPLES {
            let samples = std::mem::take(&mut self.open);
            self.frozen.push(Arc::new(freeze(&samples)));
        }
    }

    /// Whether `at` belongs before the open chunk.
    fn is_frozen(&self, at: Timestamp) -> bool {
        self.frozen.last().is_some_and(|last| at <= last.range.end)
    }

    /// The first moment that it holds.
    pub(crate) fn first(&self) -> Option<Timestamp> {
        let frozen = self.frozen.first().map(|frozen| frozen.range.start);
        let open = self.open.first().map(|sample| sample.timestamp);
        let late = self.late.first().map(|sample| sample.timestamp);
        let histogram = self.histograms.first().map(|one| one.timestamp);
        [frozen, open, late, histogram].into_iter().flatten().min()
    }

    /// All that may lie in `range`.
    pub(crate) fn held(&self, range: TimeRange) -> Held {
        let touching = self.frozen.iter().filter(|frozen| frozen.range.overlaps(range));
        let samples = self.open.iter().chain(&self.late);
        let inside = samples.filter(|sample| range.contains(sample.timestamp));
        let histograms = self.histograms.iter().filter(|one| range.contains(one.timestamp));
        Held {
            chunks: touching.cloned().collect(),
            samples: inside.copied().collect(),
            histograms: histograms.cloned().collect(),
        }
    }

    /// Takes out all samples older than `cut`.
    pub(crate) fn take_before(&mut self, cut: Timestamp) -> Held {
        let mut taken = Held::default();
        let mut kept = Vec::new();
        for frozen in std::mem::take(&mut self.frozen) {
            if frozen.range.end < cut {
                taken.chunks.push(frozen);
            } else if frozen.range.start >= cut {
                kept.push(frozen);
            } else {
                let mut samples = Vec::new();
                chunk::decode(&frozen.bytes, &mut samples).expect("we encoded it in this process");
                let newer = split_before(&mut samples, cut);
                taken.samples.append(&mut samples);
                kept.push(Arc::new(freeze(&newer)));
            }
        }
        self.frozen = kept;
        for samples in [&mut self.open, &mut self.late] {
            let newer = split_before(samples, cut);
            taken.samples.append(samples);
            *samples = newer;
        }
        let newer = self.histograms.partition_point(|one| one.timestamp < cut);
        taken.histograms = self.histograms.drain(..newer).collect();
        taken
    }
}

/// What a histogram says of its counter, given the one before it, as Prometheus's storage would.
fn hint_after(before: Option<&Histogram>, now: &Histogram) -> ResetHint {
    match (now.hint, before) {
        (ResetHint::Gauge | ResetHint::Reset, _) => now.hint,
        (_, None) => ResetHint::Unknown,
        (_, Some(before)) if before.hint == ResetHint::Gauge || before.is_stale() || now.is_stale() => {
            ResetHint::Unknown
        }
        (_, Some(before)) => {
            // What the sender says of it does not count: it may have seen another predecessor.
            let plain = Histogram { hint: ResetHint::Unknown, ..now.clone() };
            if plain.is_reset_since(before) { ResetHint::Unknown } else { ResetHint::NotReset }
        }
    }
}

fn find(samples: &[Sample], at: Timestamp) -> Option<Sample> {
    let place = samples.binary_search_by_key(&at, |sample| sample.timestamp).ok()?;
    Some(samples[place])
}

/// Leaves in `samples` what is older than `cut` and answers the rest.
fn split_before(samples: &mut Vec<Sample>, cut: Timestamp) -> Vec<Sample> {
    samples.split_off(samples.partition_point(|sample| sample.timestamp < cut))
}

/// Encodes samples, of which there must be one at least.
fn freeze(samples: &[Sample]) -> Frozen {
    let (first, last) = (&samples[0], &samples[samples.len() - 1]);
    let range = TimeRange { start: first.timestamp, end: last.timestamp };
    Frozen { bytes: chunk::encode(samples), range }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const ALL: TimeRange = binnacle_model::storage::ALL_TIME;

    fn sorted(held: &Held) -> Vec<(i64, f64)> {
        let mut samples = Vec::new();
        held.decode(&mut samples);
        samples.sort_by_key(|sample| sample.timestamp);
        samples.iter().map(|sample| (sample.timestamp.0, sample.value)).collect()
    }

    proptest! {
        /// In any order of arrival, the first value for a moment stays and no other appears.
        #[test]
        fn samples_are_a_map_by_time(
            arrivals in proptest::collection::vec((0i64..400, 0u8..3), 0..600), cut in 0i64..400,
        ) {
            let mut series = MemSeries::new(Labels::default());
            let mut model = BTreeMap::new();
            for (time, value) in arrivals {
                let sample = Sample { timestamp: Timestamp(time), value: f64::from(value) };
                let want = match model.get(&time) {
                    None => Inserted::New,
                    Some(known) if *known == sample.value => Inserted::Duplicate,
                    Some(_) => Inserted::Conflicting,
                };
                prop_assert_eq!(series.judge(sample), want);
                if want == Inserted::New {
                    series.insert(sample);
                    model.insert(time, sample.value);
                }
            }
            let want: Vec<(i64, f64)> = model.into_iter().collect();
            prop_assert_eq!(sorted(&series.held(ALL)), want.clone());
            prop_assert_eq!(series.first(), want.first().map(|(time, _)| Timestamp(*time)));
            let (older, newer): (Vec<_>, Vec<_>) = want.into_iter().partition(|(time, _)| *time < cut);
            prop_assert_eq!(sorted(&series.take_before(Timestamp(cut))), older);
            prop_assert_eq!(sorted(&series.held(ALL)), newer);
        }
    }
}
