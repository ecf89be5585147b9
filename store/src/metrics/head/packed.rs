//! Native histograms of a series of the head: the newest as they are, those before them packed as in a block.
//!
//! A histogram of a hundred buckets has more than a kilobyte; packed, its counts are small differences from those of
//! the one before it, a byte or two each.

use std::sync::Arc;

use binnacle_model::histogram::{Histogram, ResetHint};
use binnacle_model::storage::HistogramSample;
use binnacle_model::{TimeRange, Timestamp};

use crate::metrics::histograms::{decode_chunk, encode_chunk};

/// So many are packed together; at least so many stay as they are.
const PACK: usize = 40;

/// Histograms in order of time, packed.
#[derive(Debug, Clone)]
pub(crate) struct Packed {
    range: TimeRange,
    bytes: Arc<[u8]>,
}

impl Packed {
    /// Of some histograms at least, ascending.
    fn of(samples: &[HistogramSample]) -> Self {
        let range = TimeRange { start: samples[0].timestamp, end: samples[samples.len() - 1].timestamp };
        Self { range, bytes: encode_chunk(samples).into() }
    }

    pub(crate) fn range(&self) -> TimeRange {
        self.range
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Adds the histograms to `out`.
    pub(crate) fn decode(&self, out: &mut Vec<HistogramSample>) {
        decode_chunk(&self.bytes, out).expect("we encoded it in this process");
    }
}

/// All histograms of a series.
#[derive(Debug, Default)]
pub(super) struct Histograms {
    /// Ascending, none over another, all older than `newest`.
    packed: Vec<Packed>,
    /// Ascending.
    newest: Vec<HistogramSample>,
}

impl Histograms {
    /// All of these, ascending.
    pub(super) fn of(samples: Vec<HistogramSample>) -> Self {
        let mut all = Self { packed: Vec::new(), newest: samples };
        all.pack();
        all
    }

    pub(super) fn is_empty(&self) -> bool {
        self.packed.is_empty() && self.newest.is_empty()
    }

    pub(super) fn first(&self) -> Option<Timestamp> {
        let newest = self.newest.first().map(|one| one.timestamp);
        self.packed.first().map(|packed| packed.range.start).or(newest)
    }

    /// That of a moment.
    pub(super) fn at(&self, at: Timestamp) -> Option<Arc<Histogram>> {
        let found = |samples: &[HistogramSample]| {
            let place = samples.binary_search_by_key(&at, |one| one.timestamp).ok()?;
            Some(Arc::clone(&samples[place].histogram))
        };
        if self.newest.first().is_some_and(|first| first.timestamp <= at) {
            return found(&self.newest);
        }
        let packed = self.packed.iter().find(|packed| packed.range.contains(at))?;
        let mut samples = Vec::new();
        packed.decode(&mut samples);
        found(&samples)
    }

    /// Adds one at a moment that has none, with a hint whether its counter began again since the one before.
    pub(super) fn insert(&mut self, sample: &HistogramSample) {
        // Where it is late, all that comes behind it is newer than what stays packed.
        self.unpack_from(self.packed.partition_point(|packed| packed.range.end < sample.timestamp));
        if self.newest.first().is_none_or(|first| first.timestamp > sample.timestamp) {
            // It is compared with the one before it.
            self.unpack_from(self.packed.len().saturating_sub(1));
        }
        let place = self.newest.partition_point(|other| other.timestamp < sample.timestamp);
        let before = place.checked_sub(1).map(|before| &*self.newest[before].histogram);
        let hint = hint_after(before, &sample.histogram);
        let mut sample = sample.clone();
        if sample.histogram.hint != hint {
            Arc::make_mut(&mut sample.histogram).hint = hint;
        }
        let is_newest = place == self.newest.len();
        self.newest.insert(place, sample);
        if let Some(next) = self.newest.get_mut(place + 1)
            && next.histogram.hint != ResetHint::Gauge
        {
            // It was compared with one that is no longer before it.
            Arc::make_mut(&mut next.histogram).hint = ResetHint::Unknown;
        }
        if is_newest {
            self.pack();
        }
    }

    /// Packs all but the newest.
    fn pack(&mut self) {
        let count = (self.newest.len() / PACK).saturating_sub(1) * PACK;
        self.packed.extend(self.newest[..count].chunks(PACK).map(Packed::of));
        self.newest.drain(..count);
    }

    /// Unpacks those of the packed that stand at `place` or behind it.
    fn unpack_from(&mut self, place: usize) {
        if place < self.packed.len() {
            let mut all = Vec::new();
            self.packed.drain(place..).for_each(|packed| packed.decode(&mut all));
            all.append(&mut self.newest);
            self.newest = all;
        }
    }

    /// What may lie in a range: packed, and the others.
    pub(super) fn inside(&self, range: TimeRange) -> (Vec<Packed>, Vec<HistogramSample>) {
        let packed = self.packed.iter().filter(|packed| packed.range.overlaps(range));
        let newest = self.newest.iter().filter(|one| range.contains(one.timestamp));
        (packed.cloned().collect(), newest.cloned().collect())
    }

    /// All of them, ascending.
    pub(super) fn all(&self) -> Vec<HistogramSample> {
        let mut all = Vec::new();
        self.packed.iter().for_each(|packed| packed.decode(&mut all));
        all.extend_from_slice(&self.newest);
        all
    }

    /// Takes out what is older than `cut`.
    pub(super) fn take_before(&mut self, cut: Timestamp) -> (Vec<Packed>, Vec<HistogramSample>) {
        let whole = self.packed.partition_point(|packed| packed.range.end < cut);
        let rest = self.packed.split_off(whole);
        let packed = std::mem::replace(&mut self.packed, rest);
        if self.packed.first().is_some_and(|packed| packed.range.start < cut) {
            self.unpack_from(0);
        }
        let split = self.newest.partition_point(|one| one.timestamp < cut);
        let taken = self.newest.drain(..split).collect();
        self.pack();
        (packed, taken)
    }

    /// Forgets all of a range.
    pub(super) fn delete(&mut self, range: TimeRange) {
        let hit = self.packed.iter().position(|packed| packed.range.overlaps(range));
        self.unpack_from(hit.unwrap_or(self.packed.len()));
        self.newest.retain(|one| !range.contains(one.timestamp));
        self.pack();
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use binnacle_model::storage::ALL_TIME;
    use proptest::prelude::*;

    use super::*;

    fn sample(at: i64) -> HistogramSample {
        let positive = (0..20).map(|bucket| (bucket, (at + i64::from(bucket)) as f64)).collect();
        let histogram =
            Histogram { count: 20.0 * at as f64 + 190.0, sum: at as f64, positive, ..Histogram::default() };
        HistogramSample { timestamp: Timestamp(at), histogram: histogram.into() }
    }

    fn shown(samples: &[HistogramSample]) -> Vec<(i64, f64)> {
        samples.iter().map(|one| (one.timestamp.0, one.histogram.sum)).collect()
    }

    fn inside(all: &Histograms, range: TimeRange) -> Vec<(i64, f64)> {
        let (packed, rest) = all.inside(range);
        let mut found = Vec::new();
        packed.iter().for_each(|packed| packed.decode(&mut found));
        found.extend(rest);
        shown(&found).into_iter().filter(|(at, _)| range.contains(Timestamp(*at))).collect()
    }

    #[test]
    fn most_of_them_are_packed() {
        let mut all = Histograms::default();
        (0..1000).for_each(|at| all.insert(&sample(at)));
        assert!(all.newest.len() < 2 * PACK, "{} are not packed", all.newest.len());
        let bytes: usize = all.packed.iter().map(Packed::bytes).sum();
        assert!(bytes < 1000 * 50, "{bytes} bytes for a thousand of twenty buckets");
        let hints = all.all().into_iter().map(|one| one.histogram.hint).collect::<Vec<_>>();
        assert!(hints[0] == ResetHint::Unknown && hints[1..].iter().all(|hint| *hint == ResetHint::NotReset));
    }

    proptest! {
        /// Whatever comes in whatever order: what is there, is taken and is deleted is what a list would have.
        #[test]
        fn they_are_a_list(
            arrivals in proptest::collection::vec(0i64..400, 0..500),
            (from, length, cut) in (0i64..400, 0i64..200, 0i64..400),
        ) {
            let (mut all, mut want) = (Histograms::default(), BTreeMap::new());
            for at in arrivals {
                let is_known = all.at(Timestamp(at)).is_some();
                prop_assert_eq!(is_known, want.contains_key(&at));
                if !is_known {
                    all.insert(&sample(at));
                    want.insert(at, at as f64);
                }
            }
            let list = |want: &BTreeMap<i64, f64>| want.iter().map(|(at, sum)| (*at, *sum)).collect::<Vec<_>>();
            prop_assert_eq!(shown(&all.all()), list(&want));
            prop_assert_eq!(shown(&Histograms::of(all.all()).all()), list(&want));
            let range = TimeRange { start: Timestamp(from), end: Timestamp(from + length) };
            let (within, mut rest): (BTreeMap<_, _>, BTreeMap<_, _>) =
                want.into_iter().partition(|(at, _)| range.contains(Timestamp(*at)));
            prop_assert_eq!(inside(&all, range), list(&within));
            all.delete(range);
            prop_assert_eq!(inside(&all, ALL_TIME), list(&rest));
            prop_assert_eq!(all.first(), rest.keys().next().map(|at| Timestamp(*at)));
            let (packed, taken) = all.take_before(Timestamp(cut));
            let newer = rest.split_off(&cut);
            let mut found = Vec::new();
            packed.iter().for_each(|packed| packed.decode(&mut found));
            found.extend(taken);
            prop_assert_eq!(shown(&found), list(&rest));
            prop_assert_eq!(shown(&all.all()), list(&newer));
            prop_assert_eq!(all.is_empty(), newer.is_empty());
        }
    }
}
