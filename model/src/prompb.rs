//! Messages of Prometheus's remote read and remote write 1.0, as protobuf.
//!
//! Numbers and names are those of `prompb/types.proto` and `prompb/remote.proto`. Intake reads write requests by hand,
//! because it looks at most label bytes without decoding them; this is for where all of them are needed.

use prost::Message;

use crate::histogram::{Buckets, Histogram, ResetHint};
use crate::labels::Labels;
use crate::sample::Sample;
use crate::samples::Samples;
use crate::storage::HistogramSample;

/// What a remote read asks.
#[derive(Clone, PartialEq, Message)]
pub struct ReadRequest {
    /// Each gets an answer of its own.
    #[prost(message, repeated, tag = "1")]
    pub queries: Vec<ReadQuery>,
    /// Which kinds of answers the client takes: 0 samples, 1 streamed chunks. None named means samples.
    #[prost(int32, repeated, tag = "2")]
    pub accepted_response_types: Vec<i32>,
}

/// Series and a range.
#[derive(Clone, PartialEq, Message)]
pub struct ReadQuery {
    /// Milliseconds; the first moment.
    #[prost(int64, tag = "1")]
    pub start_timestamp_ms: i64,
    /// Milliseconds; the last moment.
    #[prost(int64, tag = "2")]
    pub end_timestamp_ms: i64,
    /// All must hold.
    #[prost(message, repeated, tag = "3")]
    pub matchers: Vec<ReadMatcher>,
}

/// One matcher.
#[derive(Clone, PartialEq, Message)]
pub struct ReadMatcher {
    /// 0 `=`, 1 `!=`, 2 `=~`, 3 `!~`.
    #[prost(int32, tag = "1")]
    pub kind: i32,
    /// Of the label.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Its value or pattern.
    #[prost(string, tag = "3")]
    pub value: String,
}

/// What a remote read answers.
#[derive(Clone, PartialEq, Message)]
pub struct ReadResponse {
    /// In the order of the queries.
    #[prost(message, repeated, tag = "1")]
    pub results: Vec<ReadResult>,
}

/// The answer to one query.
#[derive(Clone, PartialEq, Message)]
pub struct ReadResult {
    /// Ordered by labels.
    #[prost(message, repeated, tag = "1")]
    pub timeseries: Vec<TimeSeries>,
}

/// A series with samples.
#[derive(Clone, PartialEq, Message)]
pub struct TimeSeries {
    /// Ascending by name.
    #[prost(message, repeated, tag = "1")]
    pub labels: Vec<LabelPair>,
    /// Ascending by time.
    #[prost(message, repeated, tag = "2")]
    pub samples: Vec<FloatSample>,
    /// Ascending by time.
    #[prost(message, repeated, tag = "4")]
    pub histograms: Vec<NativeHistogram>,
}

/// A label.
#[derive(Clone, PartialEq, Message)]
pub struct LabelPair {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// A sample.
#[derive(Clone, PartialEq, Message)]
pub struct FloatSample {
    /// Its value.
    #[prost(double, tag = "1")]
    pub value: f64,
    /// Milliseconds.
    #[prost(int64, tag = "2")]
    pub timestamp: i64,
}

/// A native histogram: of whole counts, which stand as differences, or of floats.
#[derive(Clone, PartialEq, Message)]
#[allow(missing_docs, reason = "the names are those of Prometheus's message")]
pub struct NativeHistogram {
    #[prost(uint64, optional, tag = "1")]
    pub count_int: Option<u64>,
    #[prost(double, optional, tag = "2")]
    pub count_float: Option<f64>,
    #[prost(double, tag = "3")]
    pub sum: f64,
    #[prost(sint32, tag = "4")]
    pub schema: i32,
    #[prost(double, tag = "5")]
    pub zero_threshold: f64,
    #[prost(uint64, optional, tag = "6")]
    pub zero_count_int: Option<u64>,
    #[prost(double, optional, tag = "7")]
    pub zero_count_float: Option<f64>,
    #[prost(message, repeated, tag = "8")]
    pub negative_spans: Vec<BucketSpan>,
    #[prost(sint64, repeated, tag = "9")]
    pub negative_deltas: Vec<i64>,
    #[prost(double, repeated, tag = "10")]
    pub negative_counts: Vec<f64>,
    #[prost(message, repeated, tag = "11")]
    pub positive_spans: Vec<BucketSpan>,
    #[prost(sint64, repeated, tag = "12")]
    pub positive_deltas: Vec<i64>,
    #[prost(double, repeated, tag = "13")]
    pub positive_counts: Vec<f64>,
    #[prost(int32, tag = "14")]
    pub reset_hint: i32,
    #[prost(int64, tag = "15")]
    pub timestamp: i64,
    #[prost(double, repeated, tag = "16")]
    pub custom_values: Vec<f64>,
}

/// Buckets that lie next to one another.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct BucketSpan {
    /// From the end of the one before, or from zero.
    #[prost(sint32, tag = "1")]
    pub offset: i32,
    /// How many.
    #[prost(uint32, tag = "2")]
    pub length: u32,
}

impl TimeSeries {
    /// The message of a series.
    pub fn new(labels: &Labels, samples: &Samples, histograms: &[HistogramSample]) -> Self {
        let pair =
            |label: &crate::Label| LabelPair { name: label.name.to_string(), value: label.value.to_string() };
        let sample = |one: Sample| FloatSample { value: one.value, timestamp: one.timestamp.0 };
        Self {
            labels: labels.iter().map(pair).collect(),
            samples: samples.iter().map(sample).collect(),
            histograms: NativeHistogram::all(histograms.iter()),
        }
    }
}

impl NativeHistogram {
    /// The messages of a series' histograms. One with counts that are not whole makes all of them floats: Prometheus
    /// takes those of one kind first, and then finds the others out of order.
    pub fn all<'h>(samples: impl Iterator<Item = &'h HistogramSample> + Clone) -> Vec<Self> {
        let are_whole = samples.clone().all(|sample| is_whole(&sample.histogram));
        samples.map(|sample| Self::new(sample, are_whole)).collect()
    }

    fn new(sample: &HistogramSample, is_whole: bool) -> Self {
        let histogram: &Histogram = &sample.histogram;
        let float = |value: f64| (!is_whole).then_some(value);
        let whole = |value: f64| is_whole.then_some(value as u64);
        let counts = |side: &Buckets| if is_whole { Vec::new() } else { side.counts().to_vec() };
        let deltas = |side: &Buckets| if is_whole { deltas(side.counts()) } else { Vec::new() };
        Self {
            count_int: whole(histogram.count),
            count_float: float(histogram.count),
            sum: histogram.sum,
            schema: histogram.schema,
            zero_threshold: histogram.zero_threshold,
            zero_count_int: whole(histogram.zero_count),
            zero_count_float: float(histogram.zero_count),
            negative_spans: spans(&histogram.negative),
            negative_deltas: deltas(&histogram.negative),
            negative_counts: counts(&histogram.negative),
            positive_spans: spans(&histogram.positive),
            positive_deltas: deltas(&histogram.positive),
            positive_counts: counts(&histogram.positive),
            reset_hint: match histogram.hint {
                ResetHint::Unknown => 0,
                ResetHint::Reset => 1,
                ResetHint::NotReset => 2,
                ResetHint::Gauge => 3,
            },
            timestamp: sample.timestamp.0,
            custom_values: histogram.bounds.to_vec(),
        }
    }
}

/// Whether all counts are whole numbers, and in all what a histogram of these must be: so are those that nobody has
/// calculated with.
fn is_whole(histogram: &Histogram) -> bool {
    let counts = || histogram.positive.counts().iter().chain(histogram.negative.counts());
    // Beyond that floats have gaps.
    let is_small = |value: &f64| (0.0..9e15).contains(value) && value.fract() == 0.0;
    let total = counts().sum::<f64>() + histogram.zero_count;
    let fits = if histogram.sum.is_nan() { total <= histogram.count } else { total == histogram.count };
    fits && counts().chain([&histogram.count, &histogram.zero_count]).all(is_small)
}

/// Each count as the difference from the one before.
fn deltas(counts: &[f64]) -> Vec<i64> {
    let mut before = 0;
    let delta = |count: &f64| {
        let count = *count as i64;
        count - std::mem::replace(&mut before, count)
    };
    counts.iter().map(delta).collect()
}

fn spans(buckets: &Buckets) -> Vec<BucketSpan> {
    let mut spans: Vec<BucketSpan> = Vec::new();
    let mut next = 0i32;
    for index in buckets.indexes() {
        match spans.last_mut() {
            Some(last) if *index == next => last.length += 1,
            _ => spans.push(BucketSpan { offset: index.wrapping_sub(next), length: 1 }),
        }
        next = index.wrapping_add(1);
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_counts_stay_whole() {
        let message = |count: f64, first: f64, sum: f64| {
            let positive = [(0, first), (1, 5.0), (4, 2.0)].into_iter().collect();
            let histogram = Histogram { count, sum, zero_count: 1.0, positive, ..Histogram::default() };
            HistogramSample { timestamp: crate::Timestamp(7), histogram: histogram.into() }
        };
        let mixed = [message(11.0, 3.0, 4.5), message(12.0, 3.0, 4.5)];
        assert!(NativeHistogram::all(mixed.iter()).iter().all(|one| one.count_int.is_none()));
        let message = |count, first, sum| NativeHistogram::all([message(count, first, sum)].iter()).remove(0);
        let whole = message(11.0, 3.0, 4.5);
        assert_eq!((whole.count_int, whole.zero_count_int, whole.count_float), (Some(11), Some(1), None));
        assert_eq!((&whole.positive_deltas[..], whole.positive_counts.len()), (&[3, 2, -3][..], 0));
        assert!(message(12.0, 3.0, f64::NAN).count_int.is_some(), "of observations some may be NaN");
        for other in [message(11.5, 3.5, 4.5), message(12.0, 3.0, 4.5), message(2e16, 2e16 - 8.0, 1.0)] {
            assert_eq!(
                (other.count_int, other.positive_deltas.len(), other.positive_counts.len()),
                (None, 0, 3)
            );
        }
    }

    #[test]
    fn buckets_that_lie_together_share_a_span() {
        let buckets: Buckets = [(-3, 1.0), (-2, 2.0), (4, 3.0)].into_iter().collect();
        let shown: Vec<(i32, u32)> = spans(&buckets).iter().map(|span| (span.offset, span.length)).collect();
        assert_eq!(shown, [(-3, 2), (5, 1)]);
        let from_one: Buckets = [(1, 1.0)].into_iter().collect();
        assert_eq!(spans(&from_one), [BucketSpan { offset: 1, length: 1 }]);
    }
}
