//! Samples as the two messages of remote write; `intake` reads what is written here.

use std::collections::HashMap;

use binnacle_model::prompb::NativeHistogram;
use binnacle_model::storage::{Exemplar, FeedValue, HistogramSample, Metadata};
use binnacle_model::{Labels, Sample, Timestamp};
use prost::Message as _;

use super::config::Message;
use crate::intake::{put_bytes, put_labels, put_varint};

/// A sample of a series. Numbers of a series that are equal mean equal labels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row<'r> {
    pub(super) series: usize,
    pub(super) labels: &'r Labels,
    pub(super) value: &'r FeedValue,
}

/// The samples of one series and kind. A series of 2.0 has numbers or histograms, not both.
struct Group<'r> {
    labels: &'r Labels,
    floats: Vec<&'r Sample>,
    histograms: Vec<&'r HistogramSample>,
    exemplars: Vec<&'r Exemplar>,
}

/// A body, not yet compressed. Samples of a series keep their order.
pub(super) fn encode<'r>(message: Message, rows: impl IntoIterator<Item = Row<'r>>) -> Vec<u8> {
    let groups = group(rows);
    match message {
        Message::V1 => v1(&groups),
        Message::V2 => v2(&groups),
    }
}

fn group<'r>(rows: impl IntoIterator<Item = Row<'r>>) -> Vec<Group<'r>> {
    let mut groups: Vec<Group<'r>> = Vec::new();
    let mut known: HashMap<(usize, bool), usize> = HashMap::new();
    for row in rows {
        let is_float = !matches!(row.value, FeedValue::Histogram(_));
        let at = *known.entry((row.series, is_float)).or_insert_with(|| {
            let (floats, histograms, exemplars) = (Vec::new(), Vec::new(), Vec::new());
            groups.push(Group { labels: row.labels, floats, histograms, exemplars });
            groups.len() - 1
        });
        match row.value {
            FeedValue::Float(sample) => groups[at].floats.push(sample),
            FeedValue::Histogram(sample) => groups[at].histograms.push(sample),
            FeedValue::Exemplar(exemplar) => groups[at].exemplars.push(exemplar),
        }
    }
    groups
}

fn v1(groups: &[Group<'_>]) -> Vec<u8> {
    let (mut out, mut one, mut part) = (Vec::new(), Vec::new(), Vec::new());
    for group in groups {
        one.clear();
        put_labels(&mut one, group.labels.iter().map(|label| (&*label.name, &*label.value)));
        put_values(&mut one, group, 4);
        for exemplar in &group.exemplars {
            part.clear();
            put_labels(&mut part, exemplar.labels.iter().map(|label| (&*label.name, &*label.value)));
            put_number(&mut part, exemplar.value, exemplar.timestamp);
            put_bytes(&mut one, 3, &part);
        }
        put_bytes(&mut out, 1, &one);
    }
    out
}

fn put_values(out: &mut Vec<u8>, group: &Group<'_>, histogram_field: u8) {
    let mut part = Vec::new();
    for sample in &group.floats {
        part.clear();
        part.push(1 << 3 | 1);
        part.extend_from_slice(&sample.value.to_bits().to_le_bytes());
        part.push(2 << 3);
        put_varint(&mut part, sample.timestamp.0 as u64);
        put_bytes(out, 2, &part);
    }
    for message in NativeHistogram::all(group.histograms.iter().copied()) {
        put_bytes(out, histogram_field, &message.encode_to_vec());
    }
}

/// Fields 2 and 3 of an exemplar.
fn put_number(out: &mut Vec<u8>, value: f64, timestamp: Timestamp) {
    out.push(2 << 3 | 1);
    out.extend_from_slice(&value.to_bits().to_le_bytes());
    out.push(3 << 3);
    put_varint(out, timestamp.0 as u64);
}

/// The numbers of labels among the symbols; new ones are written.
fn refs<'s>(labels: &'s Labels, symbols: &mut HashMap<&'s str, u64>, out: &mut Vec<u8>) -> Vec<u8> {
    let mut refs = Vec::new();
    for text in labels.iter().flat_map(|label| [&*label.name, &*label.value]) {
        let next = symbols.len() as u64;
        let number = *symbols.entry(text).or_insert_with(|| {
            put_bytes(out, 4, text.as_bytes());
            next
        });
        put_varint(&mut refs, number);
    }
    refs
}

/// Exemplars of a series without a number in the same body are left out: receivers refuse such a series.
fn v2(groups: &[Group<'_>]) -> Vec<u8> {
    let mut symbols: HashMap<&str, u64> = HashMap::from([("", 0)]);
    let mut out = Vec::new();
    // The first symbol is the empty one.
    put_bytes(&mut out, 4, b"");
    let (mut all, mut one, mut part) = (Vec::new(), Vec::new(), Vec::new());
    for group in groups.iter().filter(|group| !(group.floats.is_empty() && group.histograms.is_empty())) {
        one.clear();
        put_bytes(&mut one, 1, &refs(group.labels, &mut symbols, &mut out));
        put_values(&mut one, group, 3);
        for exemplar in &group.exemplars {
            part.clear();
            put_bytes(&mut part, 1, &refs(&exemplar.labels, &mut symbols, &mut out));
            put_number(&mut part, exemplar.value, exemplar.timestamp);
            put_bytes(&mut one, 4, &part);
        }
        put_bytes(&mut all, 5, &one);
    }
    out.extend_from_slice(&all);
    out
}

/// A body of 1.0 with descriptions alone.
pub(super) fn encode_metadata(all: &[(String, Metadata)]) -> Vec<u8> {
    const KINDS: [&str; 8] =
        ["unknown", "counter", "gauge", "histogram", "gaugehistogram", "summary", "info", "stateset"];
    let (mut out, mut one) = (Vec::new(), Vec::new());
    for (family, described) in all {
        one.clear();
        one.push(1 << 3);
        put_varint(&mut one, KINDS.iter().position(|kind| *kind == described.kind).unwrap_or(0) as u64);
        put_bytes(&mut one, 2, family.as_bytes());
        put_bytes(&mut one, 4, described.help.as_bytes());
        put_bytes(&mut one, 5, described.unit.as_bytes());
        put_bytes(&mut out, 3, &one);
    }
    out
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use binnacle_model::STALE_NAN;
    use binnacle_model::histogram::{Histogram, ResetHint};
    use binnacle_model::storage::SeriesDecoder;

    use super::*;
    use crate::intake::{WireLabels, write_request, write_request_v2};

    fn histogram() -> Histogram {
        Histogram {
            hint: ResetHint::Gauge,
            schema: 2,
            zero_threshold: 0.25,
            zero_count: 1.0,
            count: 10.5,
            sum: -3.5,
            positive: [(-3, 1.5), (-2, 2.0), (4, 3.0)].into_iter().collect(),
            negative: [(0, 3.0)].into_iter().collect(),
            bounds: Arc::from([]),
        }
    }

    /// Intake reads what is sent, bit for bit, of either message.
    #[test]
    fn intake_reads_what_is_sent() {
        let a = Labels::new([("__name__", "a"), ("job", "a")]).unwrap();
        let b = Labels::new([("__name__", "b"), ("job", "a"), ("ü", "\n")]).unwrap();
        let odd_nan = f64::from_bits(0x7ff8_dead_beef_0001);
        let float = |ms: i64, value: f64| FeedValue::Float(Sample { timestamp: Timestamp(ms), value });
        let native = |one: Histogram| {
            FeedValue::Histogram(HistogramSample { timestamp: Timestamp(9), histogram: Arc::new(one) })
        };
        let values = [
            (0, float(-5, STALE_NAN)),
            (1, float(0, 0.0)),
            (0, float(1 << 50, -0.0)),
            (0, native(histogram())),
            (1, float(3, odd_nan)),
            (1, native(Histogram::stale())),
            (
                1,
                FeedValue::Exemplar(Box::new(Exemplar {
                    labels: Labels::new([("trace_id", "00f1"), ("ü", "a")]).unwrap(),
                    value: -0.5,
                    timestamp: Timestamp(4),
                })),
            ),
        ];
        for message in [Message::V1, Message::V2] {
            let row = |(series, value)| Row { series, labels: [&a, &b][series], value };
            let body = encode(message, values.iter().map(|(series, value)| row((*series, value))));
            let request = match message {
                Message::V1 => write_request(&body).unwrap(),
                Message::V2 => write_request_v2(&body).unwrap(),
            };
            let mut found = Vec::new();
            for one in request.batch() {
                let labels = WireLabels.decode(one.labels).unwrap();
                let series = usize::from(labels == b);
                assert!(labels == a || labels == b);
                found.extend(one.samples.iter().map(|sample| (series, FeedValue::Float(*sample))));
                found.extend(one.histograms.iter().map(|one| (series, FeedValue::Histogram(one.clone()))));
            }
            for one in request.exemplars() {
                let series = usize::from(WireLabels.decode(one.series).unwrap() == b);
                found.push((series, FeedValue::Exemplar(Box::new(one.exemplar))));
            }
            let in_order = |all: &[(usize, FeedValue)]| {
                let mut shown: Vec<String> = all
                    .iter()
                    .map(|(series, value)| match value {
                        FeedValue::Float(sample) => {
                            format!("{series} float {} {:x}", sample.timestamp.0, sample.value.to_bits())
                        }
                        FeedValue::Histogram(one) => format!("{series} histogram {one:?}"),
                        FeedValue::Exemplar(one) => format!("{series} exemplar {one:?}"),
                    })
                    .collect();
                // Of a series and kind they stay in order; the sort is stable.
                shown.sort_by_key(|text| text.split(' ').take(2).collect::<Vec<_>>().join(" "));
                shown
            };
            assert_eq!(in_order(&found), in_order(&values), "{message:?}");
            assert_eq!(request.impossible, 0);
        }
    }

    #[test]
    fn intake_reads_descriptions() {
        let described =
            Metadata { kind: "histogram".into(), help: "How long.".into(), unit: "seconds".into() };
        let all = [
            ("lat".to_owned(), described),
            ("odd".to_owned(), Metadata { kind: "unknown".into(), ..Metadata::default() }),
        ];
        assert_eq!(write_request(&encode_metadata(&all)).unwrap().metadata, all);
    }
}
