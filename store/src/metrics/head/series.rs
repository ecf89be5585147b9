//! One series of the head: samples that no block holds yet.

use std::sync::Arc;

use binnacle_model::histogram::Histogram;
use binnacle_model::storage::{ALL_TIME, HistogramSample, Wanted};
use binnacle_model::{Sample, TimeRange, Timestamp};

use super::held::{Frozen, Held, Taken};
use super::packed::Histograms;
use super::symbols::Symbol;
use super::times::TimePool;
use crate::metrics::chunk::open::OpenChunk;
use crate::metrics::chunk::{Scratch, values};
use crate::wal::WalFileId;

/// Late samples that wait to be frozen.
const LATE_MAX_SAMPLES: usize = 240;

/// So many chunks may lie over each other before they are put in order: who asks for a moment decodes all of them.
const OVERLAP_MAX: usize = 8;

/// A series of the head.
#[derive(Debug)]
pub(crate) struct MemSeries {
    /// Of all series that were ever made; the WAL knows it by this.
    pub(super) number: u64,
    /// Names and values by turns, ascending by name.
    pub(super) labels: Box<[Symbol]>,
    /// The WAL file in which the labels were last said.
    pub(super) defined_in: WalFileId,
    /// What the labels take in a record, at the most.
    pub(super) label_bytes: u32,
    /// Whether chunks lie over each other.
    pub(super) is_tangled: bool,
    /// Ascending by their first samples. No moment is in two of them.
    pub(super) frozen: Vec<Frozen>,
    /// The newest samples.
    pub(super) open: OpenChunk,
    /// What few series have.
    pub(super) rare: Option<Box<Rare>>,
}

#[derive(Debug, Default)]
pub(super) struct Rare {
    /// Samples that came after newer ones, ascending.
    pub(super) late: Vec<Sample>,
    pub(super) histograms: Histograms,
    /// On their way into a block.
    parked: Held,
}

impl Rare {
    fn is_empty(&self) -> bool {
        self.late.is_empty() && self.histograms.is_empty() && self.parked.is_empty()
    }
}

/// What became of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inserted {
    New,
    Duplicate,
    Conflicting,
}

/// How many of the ranges have a moment in common, at the most.
fn depth(ranges: impl Iterator<Item = TimeRange>) -> usize {
    // Whoever begins where another one ends meets it.
    let mut bounds: Vec<(Timestamp, bool)> =
        ranges.flat_map(|range| [(range.start, false), (range.end, true)]).collect();
    bounds.sort_unstable();
    let (mut open, mut most) = (0usize, 0);
    for (_, is_end) in bounds {
        open = if is_end { open - 1 } else { open + 1 };
        most = most.max(open);
    }
    most
}

impl MemSeries {
    pub(crate) fn new(number: u64, labels: Box<[Symbol]>, label_bytes: u32) -> Self {
        let defined_in = WalFileId::default();
        Self {
            number,
            labels,
            defined_in,
            label_bytes,
            is_tangled: false,
            frozen: Vec::new(),
            open: OpenChunk::default(),
            rare: None,
        }
    }

    fn histogram_at(&self, at: Timestamp) -> Option<Arc<Histogram>> {
        self.rare.as_ref()?.histograms.at(at)
    }

    fn late(&self) -> &[Sample] {
        self.rare.as_ref().map_or(&[], |rare| &rare.late)
    }

    /// What would become of a histogram.
    pub(crate) fn judge_histogram(&self, sample: &HistogramSample) -> Inserted {
        match self.histogram_at(sample.timestamp) {
            // A moment has one value, a number or a histogram.
            None if self.number_at(sample.timestamp).is_some() => Inserted::Conflicting,
            None => Inserted::New,
            Some(known) => {
                let is_same = known == sample.histogram || (known.is_stale() && sample.histogram.is_stale());
                if is_same { Inserted::Duplicate } else { Inserted::Conflicting }
            }
        }
    }

    /// Adds a histogram that [`Self::judge_histogram`] called new, with a hint whether its counter began
    /// again since the one before.
    pub(crate) fn insert_histogram(&mut self, sample: &HistogramSample) {
        self.rare.get_or_insert_default().histograms.insert(sample);
    }

    /// What would become of `sample`.
    pub(crate) fn judge(&self, sample: Sample) -> Inserted {
        let at = sample.timestamp;
        if self.histogram_at(at).is_some() {
            return Inserted::Conflicting;
        }
        match self.number_at(at) {
            None => Inserted::New,
            Some(known) if known == sample => Inserted::Duplicate,
            Some(_) => Inserted::Conflicting,
        }
    }

    fn number_at(&self, at: Timestamp) -> Option<Sample> {
        match self.open.last() {
            Some(last) if last.timestamp < at => return None,
            Some(last) if last.timestamp == at => return Some(last),
            _ => {}
        }
        if let Some(found) = find(self.late(), at) {
            return Some(found);
        }
        let mut samples = Vec::new();
        if self.open.first().is_some_and(|first| first <= at) {
            self.open.decode(&mut samples);
        }
        let mut scratch = Scratch::default();
        for frozen in self.frozen.iter().filter(|frozen| frozen.range().contains(at)) {
            frozen.decode(&mut scratch, &mut samples);
        }
        samples.into_iter().find(|sample| sample.timestamp == at)
    }

    /// Adds a sample that [`Self::judge`] called new. Chunks do not go over the bounds of a `span`.
    pub(crate) fn insert(&mut self, sample: Sample, span: i64, pool: &mut TimePool) {
        let at = sample.timestamp;
        let newest = self
            .open
            .last()
            .map(|last| last.timestamp)
            .or_else(|| self.frozen.iter().map(|frozen| frozen.range().end).max());
        if newest.is_some_and(|newest| at < newest) {
            let late = &mut self.rare.get_or_insert_default().late;
            let place = late.partition_point(|other| other.timestamp < at);
            late.insert(place, sample);
            if late.len() >= LATE_MAX_SAMPLES {
                let late = std::mem::take(late);
                self.freeze(&late, span, pool);
                self.settle();
                let range = TimeRange { start: late[0].timestamp, end: late[late.len() - 1].timestamp };
                self.untangle(range, span, pool);
            }
            return;
        }
        let is_next_span =
            self.open.first().is_some_and(|first| first.0.div_euclid(span) != at.0.div_euclid(span));
        if self.open.is_full() || is_next_span {
            let mut samples = Vec::new();
            std::mem::take(&mut self.open).decode(&mut samples);
            self.freeze(&samples, span, pool);
        }
        self.open.push(sample);
    }

    /// Puts chunks that touch a range in order if too many of them lie over each other.
    fn untangle(&mut self, range: TimeRange, span: i64, pool: &mut TimePool) {
        let touching = self.frozen.iter().map(Frozen::range).filter(|one| one.overlaps(range));
        if depth(touching) <= OVERLAP_MAX {
            return;
        }
        let (tangled, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.frozen).into_iter().partition(|frozen| frozen.range().overlaps(range));
        self.frozen = rest;
        let (mut scratch, mut samples) = (Scratch::default(), Vec::new());
        tangled.iter().for_each(|frozen| frozen.decode(&mut scratch, &mut samples));
        samples.sort_unstable_by_key(|sample| sample.timestamp);
        samples.chunks(LATE_MAX_SAMPLES).for_each(|part| self.freeze(part, span, pool));
        self.settle();
    }

    /// Freezes samples, ascending, in chunks each of which lies in one span.
    fn freeze(&mut self, samples: &[Sample], span: i64, pool: &mut TimePool) {
        let span_of = |sample: &Sample| sample.timestamp.0.div_euclid(span);
        for part in samples.chunk_by(|a, b| span_of(a) == span_of(b)) {
            let times: Vec<i64> = part.iter().map(|sample| sample.timestamp.0).collect();
            let numbers: Vec<f64> = part.iter().map(|sample| sample.value).collect();
            let frozen = Frozen { times: pool.column(&times), values: values::encode_fast(&numbers).into() };
            self.frozen.push(frozen);
        }
    }

    /// The first moment that it holds.
    pub(crate) fn first(&self) -> Option<Timestamp> {
        let frozen = self.frozen.iter().map(|frozen| frozen.range().start).min();
        let open = self.open.first();
        let Some(rare) = &self.rare else { return [frozen, open].into_iter().flatten().min() };
        let late = rare.late.first().map(|sample| sample.timestamp);
        let histogram = rare.histograms.first();
        [frozen, open, late, histogram, rare.parked.first()].into_iter().flatten().min()
    }

    /// All that may lie in `range` and is wanted; `None` if there is nothing.
    pub(crate) fn taken(&self, range: TimeRange, wanted: Wanted) -> Option<Taken> {
        if wanted == Wanted::Newest
            && self.rare.is_none()
            && !self.is_tangled
            && let Some(newest) = self.open.newest_at(range.end)
        {
            // All others are older.
            return (newest.timestamp >= range.start).then_some(Taken::One(newest));
        }
        let held = self.held(range);
        (!held.is_empty()).then(|| Taken::Held(Box::new(held)))
    }

    /// All that may lie in `range`.
    pub(crate) fn held(&self, range: TimeRange) -> Held {
        let mut held = Held::default();
        // What is aside is older than most of the rest.
        if let Some(parked) = self.parked() {
            held.append(parked, range);
        }
        if self.is_tangled {
            let touching = self.frozen.iter().filter(|frozen| frozen.range().overlaps(range));
            held.chunks.extend(touching.cloned());
        } else {
            let end = self.frozen.iter().rposition(|frozen| frozen.range().start <= range.end);
            let upto = &self.frozen[..end.map_or(0, |end| end + 1)];
            let begin = upto.iter().rposition(|frozen| frozen.range().end < range.start);
            held.chunks.extend_from_slice(&upto[begin.map_or(0, |begin| begin + 1)..]);
        }
        let open = (self.open.first(), self.open.last());
        if let (Some(first), Some(last)) = open
            && (TimeRange { start: first, end: last.timestamp }).overlaps(range)
        {
            held.open = Some(self.open.clone());
        }
        if let Some(rare) = &self.rare {
            let late = rare.late.iter().filter(|sample| range.contains(sample.timestamp));
            held.samples.extend(late);
            let (packed, histograms) = rare.histograms.inside(range);
            held.packed.extend(packed);
            held.histograms.extend(histograms);
        }
        held
    }

    /// Puts all samples older than `cut` aside, for a block. Answers whether there are any.
    pub(super) fn park(&mut self, cut: Timestamp, span: i64, pool: &mut TimePool) -> bool {
        let mut parked = Held::default();
        if self.open.first().is_some_and(|first| first < cut) {
            let mut samples = Vec::new();
            std::mem::take(&mut self.open).decode(&mut samples);
            let newer = samples.split_off(samples.partition_point(|sample| sample.timestamp < cut));
            newer.into_iter().for_each(|sample| self.open.push(sample));
            self.freeze(&samples, span, pool);
        }
        let mut newer = Vec::new();
        for frozen in self.frozen.drain(..) {
            let range = frozen.range();
            if range.end < cut {
                parked.chunks.push(frozen);
            } else if range.start >= cut {
                newer.push(frozen);
            } else {
                // Spans had another length when it was frozen.
                let mut samples = Vec::new();
                frozen.decode(&mut Scratch::default(), &mut samples);
                let split = samples.partition_point(|sample| sample.timestamp < cut);
                let late = &mut self.rare.get_or_insert_default().late;
                late.extend(samples.split_off(split));
                late.sort_by_key(|sample| sample.timestamp);
                parked.samples.append(&mut samples);
            }
        }
        newer.shrink_to_fit();
        self.frozen = newer;
        self.settle();
        if let Some(rare) = &mut self.rare {
            let split = rare.late.partition_point(|sample| sample.timestamp < cut);
            parked.samples.extend(rare.late.drain(..split));
            (parked.packed, parked.histograms) = rare.histograms.take_before(cut);
        }
        let is_any = !parked.is_empty();
        if is_any {
            self.rare.get_or_insert_default().parked = parked;
        }
        is_any
    }

    /// Forgets all samples of a range.
    pub(super) fn delete(&mut self, range: TimeRange, span: i64, pool: &mut TimePool) {
        let is_kept = |sample: &Sample| !range.contains(sample.timestamp);
        let mut samples = Vec::new();
        std::mem::take(&mut self.open).decode(&mut samples);
        samples.retain(is_kept);
        // All into chunks: what is open or late says of later samples where they belong.
        let mut pieces = vec![samples];
        for frozen in std::mem::take(&mut self.frozen) {
            if !frozen.range().overlaps(range) {
                self.frozen.push(frozen);
                continue;
            }
            let mut samples = Vec::new();
            frozen.decode(&mut Scratch::default(), &mut samples);
            samples.retain(is_kept);
            pieces.push(samples);
        }
        if let Some(rare) = &mut self.rare {
            let mut late = std::mem::take(&mut rare.late);
            late.retain(is_kept);
            pieces.push(late);
            rare.histograms.delete(range);
            let parked = std::mem::take(&mut rare.parked);
            parked.decode_range(ALL_TIME, &mut Scratch::default(), &mut rare.parked.samples);
            rare.parked.samples.retain(is_kept);
            rare.parked.histograms = parked.histograms_in(ALL_TIME);
            rare.parked.histograms.retain(|one| !range.contains(one.timestamp));
        }
        pieces.iter().for_each(|samples| self.freeze(samples, span, pool));
        self.settle();
    }

    /// Puts chunks in order of their beginnings, and finds out whether each of them lies behind the one before, and what
    /// is open behind all of them.
    pub(super) fn settle(&mut self) {
        self.frozen.sort_by_key(|frozen| frozen.range().start);
        let ends = self.frozen.iter().map(|frozen| frozen.range().end);
        let starts = self.frozen.iter().skip(1).map(|frozen| frozen.range().start).chain(self.open.first());
        self.is_tangled = !ends.zip(starts).all(|(end, start)| end < start);
    }

    /// What is aside for a block.
    pub(super) fn parked(&self) -> Option<&Held> {
        self.rare.as_ref().map(|rare| &rare.parked).filter(|parked| !parked.is_empty())
    }

    /// Forgets what was aside, now that a block has it.
    pub(super) fn forget_parked(&mut self) {
        if let Some(rare) = &mut self.rare {
            rare.parked = Held::default();
            if rare.is_empty() {
                self.rare = None;
            }
        }
    }
}

fn find(samples: &[Sample], at: Timestamp) -> Option<Sample> {
    let place = samples.binary_search_by_key(&at, |sample| sample.timestamp).ok()?;
    Some(samples[place])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const ALL: TimeRange = binnacle_model::storage::ALL_TIME;
    const SPAN: i64 = 150;

    fn sorted(held: &Held) -> Vec<(i64, f64)> {
        let mut samples = Vec::new();
        held.decode_range(ALL, &mut Scratch::default(), &mut samples);
        samples.sort_by_key(|sample| sample.timestamp);
        samples.iter().map(|sample| (sample.timestamp.0, sample.value)).collect()
    }

    /// The newest of a range, as a query would find it.
    fn newest(series: &MemSeries, range: TimeRange) -> Option<(i64, f64)> {
        match series.taken(range, Wanted::Newest)? {
            Taken::One(sample) => Some((sample.timestamp.0, sample.value)),
            Taken::Held(held) => inside(&held, range).pop(),
        }
    }

    /// What was taken for a range, cut to it.
    fn inside(held: &Held, range: TimeRange) -> Vec<(i64, f64)> {
        let mut columns = Scratch::default();
        held.decode_columns(range, &mut super::super::times::KnownTimes::default(), &mut columns);
        let mut found: Vec<(i64, f64)> = columns.times.into_iter().zip(columns.values).collect();
        found.retain(|(time, _)| range.contains(Timestamp(*time)));
        found.sort_by_key(|one| one.0);
        found
    }

    fn check_ranges(series: &MemSeries, want: &[(i64, f64)], ranges: &[(i64, i64)]) {
        for (from, length) in ranges {
            let range = TimeRange { start: Timestamp(*from), end: Timestamp(from + length) };
            let want: Vec<(i64, f64)> =
                want.iter().filter(|(time, _)| range.contains(Timestamp(*time))).copied().collect();
            assert_eq!(inside(&series.held(range), range), want, "{range:?}");
            assert_eq!(newest(series, range), want.last().copied(), "{range:?}");
        }
    }

    /// However samples come, few chunks lie over each other.
    #[test]
    fn chunks_are_untangled() {
        let mut pool = TimePool::default();
        let mut series = MemSeries::new(1, Box::default(), 0);
        let count = 20_011i64;
        for n in 0..count {
            // All moments once, in an order that jumps.
            let time = n * 7919 % count;
            let sample = Sample { timestamp: Timestamp(time), value: time as f64 };
            assert_eq!(series.judge(sample), Inserted::New);
            series.insert(sample, 1 << 40, &mut pool);
        }
        assert!(depth(series.frozen.iter().map(Frozen::range)) <= OVERLAP_MAX + 1);
        let want: Vec<(i64, f64)> = (0..count).map(|time| (time, time as f64)).collect();
        assert_eq!(sorted(&series.held(ALL)), want);
    }

    proptest! {
        /// What is deleted is gone, the rest stays, and what comes later finds its place.
        #[test]
        fn deletion_leaves_the_rest(
            arrivals in proptest::collection::vec(0i64..700, 0..600), from in 0i64..700, length in 0i64..400,
            parks: bool, later in proptest::collection::vec(0i64..900, 0..300),
            ranges in proptest::collection::vec((0i64..900, 0i64..300), 4),
        ) {
            let mut pool = TimePool::default();
            let mut series = MemSeries::new(1, Box::default(), 0);
            let mut model = BTreeMap::new();
            let mut arrive = |series: &mut MemSeries, model: &mut BTreeMap<i64, f64>, time: i64| {
                let sample = Sample { timestamp: Timestamp(time), value: time as f64 };
                let is_new = model.insert(time, sample.value).is_none();
                assert_eq!(series.judge(sample) == Inserted::New, is_new, "{time}");
                if is_new {
                    series.insert(sample, SPAN, &mut pool);
                }
            };
            arrivals.iter().for_each(|time| arrive(&mut series, &mut model, *time));
            let mut other = TimePool::default();
            if parks {
                // What is aside is a block's already, and is not asked for duplicates.
                series.park(Timestamp(300), SPAN, &mut other);
            }
            let range = TimeRange { start: Timestamp(from), end: Timestamp(from + length) };
            series.delete(range, SPAN, &mut other);
            model.retain(|time, _| !range.contains(Timestamp(*time)));
            let want: Vec<(i64, f64)> = model.iter().map(|(time, value)| (*time, *value)).collect();
            prop_assert_eq!(sorted(&series.held(ALL)), want.clone());
            check_ranges(&series, &want, &ranges);
            if !parks {
                later.iter().for_each(|time| arrive(&mut series, &mut model, *time));
                let want: Vec<(i64, f64)> = model.into_iter().collect();
                prop_assert_eq!(sorted(&series.held(ALL)), want);
            }
        }

        /// In any order of arrival, the first value for a moment stays and no other appears.
        #[test]
        fn samples_are_a_map_by_time(
            arrivals in proptest::collection::vec((0i64..700, 0u8..3), 0..900), is_ordered: bool, cut in 0i64..700,
            ranges in proptest::collection::vec((0i64..700, 0i64..300), 6),
        ) {
            let mut arrivals = arrivals;
            if is_ordered {
                arrivals.sort_by_key(|one| one.0);
            }
            let mut pool = TimePool::default();
            let mut series = MemSeries::new(1, Box::default(), 0);
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
                    series.insert(sample, SPAN, &mut pool);
                    model.insert(time, sample.value);
                }
            }
            let want: Vec<(i64, f64)> = model.into_iter().collect();
            prop_assert_eq!(sorted(&series.held(ALL)), want.clone());
            prop_assert!(!is_ordered || !series.is_tangled);
            check_ranges(&series, &want, &ranges);
            prop_assert_eq!(series.first(), want.first().map(|(time, _)| Timestamp(*time)));
            let (older, newer): (Vec<_>, Vec<_>) = want.iter().partition(|(time, _)| *time < cut);
            prop_assert_eq!(series.park(Timestamp(cut), SPAN, &mut pool), !older.is_empty());
            prop_assert_eq!(series.parked().map(sorted).unwrap_or_default(), older);
            prop_assert_eq!(sorted(&series.held(ALL)), want.clone(), "what is aside is still answered");
            check_ranges(&series, &want, &ranges);
            series.forget_parked();
            prop_assert_eq!(sorted(&series.held(ALL)), newer.clone());
            check_ranges(&series, &newer, &ranges);
        }
    }
}
