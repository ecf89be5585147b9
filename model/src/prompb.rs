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

/// A native histogram with float counts.
#[derive(Clone, PartialEq, Message)]
#[allow(missing_docs, reason = "the names are those of Prometheus's message")]
pub struct NativeHistogram {
    #[prost(double, optional, tag = "2")]
    pub count_float: Option<f64>,
    #[prost(double, tag = "3")]
    pub sum: f64,
    #[prost(sint32, tag = "4")]
    pub schema: i32,
    #[prost(double, tag = "5")]
    pub zero_threshold: f64,
    #[prost(double, optional, tag = "7")]
    pub zero_count_float: Option<f64>,
    #[prost(message, repeated, tag = "8")]
    pub negative_spans: Vec<BucketSpan>,
    #[prost(double, repeated, tag = "10")]
    pub negative_counts: Vec<f64>,
    #[prost(message, repeated, tag = "11")]
    pub positive_spans: Vec<BucketSpan>,
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
            histograms: histograms.iter().map(NativeHistogram::new).collect(),
        }
    }
}

impl NativeHistogram {
    /// The message of a histogram at its moment.
    pub fn new(sample: &HistogramSample) -> Self {
        let histogram: &Histogram = &sample.histogram;
        Self {
            count_float: Some(histogram.count),
            sum: histogram.sum,
            schema: histogram.schema,
            zero_threshold: histogram.zero_threshold,
            zero_count_float: Some(histogram.zero_count),
            negative_spans: spans(&histogram.negative),
            negative_counts: histogram.negative.counts().to_vec(),
            positive_spans: spans(&histogram.positive),
            positive_counts: histogram.positive.counts().to_vec(),
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
    fn buckets_that_lie_together_share_a_span() {
        let buckets: Buckets = [(-3, 1.0), (-2, 2.0), (4, 3.0)].into_iter().collect();
        let shown: Vec<(i32, u32)> = spans(&buckets).iter().map(|span| (span.offset, span.length)).collect();
        assert_eq!(shown, [(-3, 2), (5, 1)]);
        let from_one: Buckets = [(1, 1.0)].into_iter().collect();
        assert_eq!(spans(&from_one), [BucketSpan { offset: 1, length: 1 }]);
    }
}
