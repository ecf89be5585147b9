//! Native histograms of remote write.
//!
//! ```text
//! Histogram  1 | 2: count uint64 | double   3: sum    4: schema sint32   5: zero threshold
//!            6 | 7: zero count uint64 | double
//!            8, 11: BucketSpan* (1: offset sint32, 2: length)            negative, positive
//!            9, 12: sint64*, differences   10, 13: double*               counts of their buckets
//!            14: reset hint   15: timestamp int64 (ms)   16: double*, custom bounds
//! ```

use std::sync::Arc;

use binnacle_model::Timestamp;
use binnacle_model::histogram::{Buckets, Histogram, ResetHint};
use binnacle_model::storage::HistogramSample;

use super::wire::{Field, Fields, WireError};

/// Buckets of one histogram, empty ones included.
const BUCKETS_MAX: usize = 65_536;

/// The buckets of one side, as they come.
#[derive(Default)]
struct Side {
    spans: Vec<(i64, u64)>,
    deltas: Vec<i64>,
    counts: Vec<f64>,
}

/// Reads one histogram. Whether it is one at all, `Histogram::validate` says.
pub(super) fn read(body: &[u8], at: usize) -> Result<HistogramSample, WireError> {
    let mut histogram = Histogram::default();
    let mut timestamp = Timestamp(0);
    let (mut negative, mut positive) = (Side::default(), Side::default());
    let mut bounds: Vec<f64> = Vec::new();
    let mut fields = Fields::new(body, at);
    while let Some(field) = fields.next()? {
        let float = f64::from_bits(field.number_value);
        match field.number {
            1 => histogram.count = field.number_value as f64,
            2 => histogram.count = float,
            3 => histogram.sum = float,
            4 => histogram.schema = i32::try_from(zigzag(field.number_value)).unwrap_or(i32::MAX),
            5 => histogram.zero_threshold = float,
            6 => histogram.zero_count = field.number_value as f64,
            7 => histogram.zero_count = float,
            8 => negative.spans.push(span(&field)?),
            9 => integers(&field, &mut negative.deltas)?,
            10 => floats(&field, &mut negative.counts)?,
            11 => positive.spans.push(span(&field)?),
            12 => integers(&field, &mut positive.deltas)?,
            13 => floats(&field, &mut positive.counts)?,
            14 => {
                histogram.hint = match field.number_value {
                    1 => ResetHint::Reset,
                    2 => ResetHint::NotReset,
                    3 => ResetHint::Gauge,
                    _ => ResetHint::Unknown,
                };
            }
            15 => timestamp = Timestamp(field.number_value as i64),
            16 => floats(&field, &mut bounds)?,
            _ => {}
        }
        let parts =
            [&negative, &positive].map(|side| side.spans.len() + side.deltas.len() + side.counts.len());
        if parts.iter().sum::<usize>() + bounds.len() > 3 * BUCKETS_MAX {
            return fields.fail("a histogram has too many buckets");
        }
    }
    histogram.negative = negative.buckets().map_or_else(|reason| fields.fail(reason), Ok)?;
    histogram.positive = positive.buckets().map_or_else(|reason| fields.fail(reason), Ok)?;
    histogram.bounds = Arc::from(bounds);
    Ok(HistogramSample { timestamp, histogram: Arc::new(histogram) })
}

impl Side {
    fn buckets(self) -> Result<Buckets, &'static str> {
        let counts = if self.deltas.is_empty() {
            self.counts
        } else {
            let mut count = 0i64;
            let absolute = self.deltas.iter().map(|delta| {
                count = count.wrapping_add(*delta);
                count as f64
            });
            absolute.collect()
        };
        let mut buckets = Buckets::default();
        let mut counts = counts.into_iter();
        let mut next = 0i64;
        for (at, (offset, length)) in self.spans.into_iter().enumerate() {
            if at > 0 && offset < 0 {
                return Err("spans of a histogram overlap");
            }
            next = next.saturating_add(offset);
            for _ in 0..length {
                let Some(count) = counts.next() else { return Err("a span of a histogram lacks buckets") };
                let Ok(index) = i32::try_from(next) else { return Err("a bucket's index is out of range") };
                buckets.push(index, count);
                next += 1;
            }
        }
        if counts.next().is_some() {
            return Err("buckets of a histogram lie in no span");
        }
        Ok(buckets)
    }
}

fn zigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

fn span(field: &Field<'_>) -> Result<(i64, u64), WireError> {
    let (mut offset, mut length) = (0, 0);
    let mut fields = Fields::new(field.bytes.unwrap_or_default(), field.at);
    while let Some(part) = fields.next()? {
        match part.number {
            1 => offset = zigzag(part.number_value),
            2 => length = part.number_value,
            _ => {}
        }
    }
    Ok((offset, length))
}

/// Packed, or one by one.
fn integers(field: &Field<'_>, out: &mut Vec<i64>) -> Result<(), WireError> {
    let Some(bytes) = field.bytes else {
        out.push(zigzag(field.number_value));
        return Ok(());
    };
    let mut packed = Fields::new(bytes, field.at);
    while packed.position < packed.body.len() {
        if out.len() >= BUCKETS_MAX {
            return packed.fail("a histogram has too many buckets");
        }
        out.push(zigzag(packed.varint()?));
    }
    Ok(())
}

/// Packed, or one by one.
fn floats(field: &Field<'_>, out: &mut Vec<f64>) -> Result<(), WireError> {
    let Some(bytes) = field.bytes else {
        out.push(f64::from_bits(field.number_value));
        return Ok(());
    };
    let mut packed = Fields::new(bytes, field.at);
    while packed.position < packed.body.len() {
        if out.len() >= BUCKETS_MAX {
            return packed.fail("a histogram has too many buckets");
        }
        let eight = packed.take(8)?;
        out.push(f64::from_bits(eight.iter().rev().fold(0, |sum, b| sum << 8 | u64::from(*b))));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A field of a varint, of eight bytes, or of a message.
    fn varint(out: &mut Vec<u8>, number: u8, value: u8) {
        out.extend([number << 3, value]);
    }

    fn bytes(out: &mut Vec<u8>, number: u8, content: &[u8]) {
        out.extend([number << 3 | 2, content.len() as u8]);
        out.extend_from_slice(content);
    }

    #[test]
    fn integer_counts_are_differences_and_spans_leave_gaps() {
        let mut body = Vec::new();
        varint(&mut body, 1, 9);
        varint(&mut body, 4, 3);
        // Two buckets from index 1 on, one after a gap of two: 2, 3, 4.
        bytes(&mut body, 11, &[8, 2, 16, 2]);
        bytes(&mut body, 11, &[8, 4, 16, 1]);
        bytes(&mut body, 12, &[4, 2, 2]);
        varint(&mut body, 14, 1);
        varint(&mut body, 15, 7);
        let sample = read(&body, 0).unwrap();
        let found = &sample.histogram;
        assert_eq!((sample.timestamp, found.count, found.schema), (Timestamp(7), 9.0, -2));
        assert_eq!(found.hint, ResetHint::Reset);
        assert_eq!(found.positive.iter().collect::<Vec<_>>(), [(1, 2.0), (2, 3.0), (5, 4.0)]);
        assert_eq!(found.validate(), Ok(()));
    }

    #[test]
    fn buckets_and_spans_must_agree() {
        let mut body = Vec::new();
        bytes(&mut body, 11, &[8, 0, 16, 100]);
        bytes(&mut body, 12, &[2]);
        assert!(read(&body, 0).unwrap_err().to_string().contains("lacks buckets"));
        let mut body = Vec::new();
        bytes(&mut body, 12, &[2]);
        assert!(read(&body, 0).unwrap_err().to_string().contains("in no span"));
    }

    #[test]
    fn a_span_that_promises_more_than_there_is_is_refused() {
        let endless = [&[11 << 3 | 2, 11, 16][..], &[0xff; 9], &[1]].concat();
        assert!(read(&endless, 0).unwrap_err().to_string().contains("lacks buckets"));
    }

    proptest::proptest! {
        #[test]
        fn foreign_bytes_never_panic(body in proptest::collection::vec(proptest::arbitrary::any::<u8>(), 0..200)) {
            if let Ok(found) = read(&body, 0) {
                let _ = found.histogram.validate();
            }
        }
    }
}
