//! Histograms as bytes, in the WAL and in chunks.
//!
//! ```text
//! record    := hint:u8 schema:zigzag number* bounds buckets buckets
//!              numbers: zero_threshold zero_count count sum; buckets: positive, negative
//! bounds    := count:varint number*
//! buckets   := count:varint (index:zigzag number)*            indexes as differences
//! number    := whole:varint << 1 | 1:varint f64               a whole number below 2^62, or any float
//! chunk     := count:varint (time:zigzag same:u8 change | record)*
//! change    := hint:u8 (whole:zigzag | …)                     of a histogram with the layout before it
//! ```

use std::sync::Arc;

use binnacle_model::Timestamp;
use binnacle_model::histogram::{Buckets, Histogram, ResetHint};
use binnacle_model::storage::HistogramSample;

use crate::bytes::{Reader, put_varint, put_zigzag};

/// Bounds and buckets of one histogram; more is damage.
const PARTS_MAX: u64 = 200_000;

/// Histograms of one chunk.
pub(crate) const CHUNK_MAX_HISTOGRAMS: usize = 120;

fn put_number(out: &mut Vec<u8>, value: f64) {
    let is_whole =
        (0.0..4e18).contains(&value) && value.fract() == 0.0 && !(value == 0.0 && value.is_sign_negative());
    if is_whole {
        put_varint(out, (value as u64) << 1);
    } else {
        put_varint(out, 1);
        out.extend_from_slice(&value.to_bits().to_le_bytes());
    }
}

fn number(reader: &mut Reader<'_>) -> Option<f64> {
    let head = reader.varint()?;
    if head & 1 == 0 { Some((head >> 1) as f64) } else { reader.f64() }
}

fn hint_byte(hint: ResetHint) -> u8 {
    match hint {
        ResetHint::Unknown => 0,
        ResetHint::Reset => 1,
        ResetHint::NotReset => 2,
        ResetHint::Gauge => 3,
    }
}

fn hint(byte: u8) -> Option<ResetHint> {
    Some(match byte {
        0 => ResetHint::Unknown,
        1 => ResetHint::Reset,
        2 => ResetHint::NotReset,
        3 => ResetHint::Gauge,
        _ => return None,
    })
}

/// Adds one histogram.
pub(crate) fn put(out: &mut Vec<u8>, histogram: &Histogram) {
    out.push(hint_byte(histogram.hint));
    put_zigzag(out, i64::from(histogram.schema));
    for value in [histogram.zero_threshold, histogram.zero_count, histogram.count, histogram.sum] {
        put_number(out, value);
    }
    put_varint(out, histogram.bounds.len() as u64);
    histogram.bounds.iter().for_each(|bound| put_number(out, *bound));
    for buckets in [&histogram.positive, &histogram.negative] {
        put_varint(out, buckets.len() as u64);
        let mut before = 0;
        for (index, count) in buckets.iter() {
            put_zigzag(out, i64::from(index) - before);
            put_number(out, count);
            before = i64::from(index);
        }
    }
}

/// Reads what [`put`] wrote.
pub(crate) fn read(reader: &mut Reader<'_>) -> Option<Histogram> {
    let hint = hint(reader.bytes(1)?[0])?;
    let schema = i32::try_from(reader.zigzag()?).ok()?;
    let [zero_threshold, zero_count, count, sum] =
        [number(reader)?, number(reader)?, number(reader)?, number(reader)?];
    let bounds = (0..parts(reader)?).map(|_| number(reader)).collect::<Option<Arc<[f64]>>>()?;
    let mut sides = [Buckets::default(), Buckets::default()];
    for side in &mut sides {
        let mut before = 0i64;
        for at in 0..parts(reader)? {
            let step = reader.zigzag()?;
            if at > 0 && step <= 0 {
                return None;
            }
            before = before.checked_add(step)?;
            side.push(i32::try_from(before).ok()?, number(reader)?);
        }
    }
    let [positive, negative] = sides;
    Some(Histogram { hint, schema, zero_threshold, zero_count, count, sum, positive, negative, bounds })
}

fn parts(reader: &mut Reader<'_>) -> Option<u64> {
    reader.varint().filter(|count| *count <= PARTS_MAX)
}

/// Encodes histograms, ascending by time.
pub(crate) fn encode_chunk(samples: &[HistogramSample]) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, samples.len() as u64);
    let mut before: Option<&HistogramSample> = None;
    for sample in samples {
        let last = before.map_or(0, |one| one.timestamp.0);
        put_zigzag(&mut out, sample.timestamp.0.wrapping_sub(last));
        let like = before.map(|one| &*one.histogram).filter(|one| is_alike(one, &sample.histogram));
        if let Some(before) = like {
            out.push(1);
            put_change(&mut out, before, &sample.histogram);
        } else {
            out.push(0);
            put(&mut out, &sample.histogram);
        }
        before = Some(sample);
    }
    out
}

/// Whether two have the same layout, and whole counts that small differences lead from one to the other.
fn is_alike(a: &Histogram, b: &Histogram) -> bool {
    let is_small = |value: &f64| (0.0..4e15).contains(value) && value.fract() == 0.0;
    let counts = |one: &Histogram| {
        let sides = one.positive.counts().iter().chain(one.negative.counts());
        sides.chain(&[one.count, one.zero_count]).all(is_small)
    };
    a.schema == b.schema
        && a.zero_threshold.to_bits() == b.zero_threshold.to_bits()
        && a.bounds == b.bounds
        && a.positive.indexes() == b.positive.indexes()
        && a.negative.indexes() == b.negative.indexes()
        && counts(a)
        && counts(b)
}

fn put_change(out: &mut Vec<u8>, before: &Histogram, now: &Histogram) {
    out.push(hint_byte(now.hint));
    out.extend_from_slice(&now.sum.to_bits().to_le_bytes());
    let mut put = |before: f64, now: f64| put_zigzag(out, now as i64 - before as i64);
    put(before.count, now.count);
    put(before.zero_count, now.zero_count);
    for (before, now) in [(&before.positive, &now.positive), (&before.negative, &now.negative)] {
        before.counts().iter().zip(now.counts()).for_each(|(before, now)| put(*before, *now));
    }
}

fn read_change(reader: &mut Reader<'_>, before: &Histogram) -> Option<Histogram> {
    let mut now = before.clone();
    now.hint = hint(reader.bytes(1)?[0])?;
    now.sum = reader.f64()?;
    let mut change = |value: &mut f64| {
        *value = (*value as i64).checked_add(reader.zigzag()?)? as f64;
        Some(())
    };
    change(&mut now.count)?;
    change(&mut now.zero_count)?;
    now.positive.counts_mut().iter_mut().try_for_each(&mut change)?;
    now.negative.counts_mut().iter_mut().try_for_each(&mut change)?;
    Some(now)
}

/// Adds the histograms of a chunk to `out`.
pub(crate) fn decode_chunk(bytes: &[u8], out: &mut Vec<HistogramSample>) -> Option<()> {
    let mut reader = Reader::new(bytes);
    let count = reader.varint().filter(|count| *count <= CHUNK_MAX_HISTOGRAMS as u64)?;
    let mut time = 0i64;
    let mut before: Option<Arc<Histogram>> = None;
    for _ in 0..count {
        time = time.wrapping_add(reader.zigzag()?);
        let histogram = match reader.bytes(1)?[0] {
            0 => read(&mut reader)?,
            1 => read_change(&mut reader, before.as_deref()?)?,
            _ => return None,
        };
        let histogram = Arc::new(histogram);
        before = Some(Arc::clone(&histogram));
        out.push(HistogramSample { timestamp: Timestamp(time), histogram });
    }
    reader.is_empty().then_some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value() -> impl Strategy<Value = f64> {
        prop_oneof![
            (0u32..100).prop_map(f64::from),
            any::<f64>(),
            Just(-0.0),
            Just(f64::NAN),
            Just(binnacle_model::STALE_NAN),
        ]
    }

    fn buckets() -> impl Strategy<Value = Buckets> {
        proptest::collection::btree_map(-9i32..9, value(), 0..4).prop_map(|map| map.into_iter().collect())
    }

    fn histogram() -> impl Strategy<Value = Histogram> {
        (0u8..4, -4i32..9, [value(), value(), value(), value()], buckets(), buckets()).prop_map(
            |(hint_number, schema, numbers, positive, negative)| {
                let [zero_threshold, zero_count, count, sum] = numbers;
                let hint = hint(hint_number).unwrap();
                let bounds = Arc::from([0.5, 2.0]);
                Histogram { hint, schema, zero_threshold, zero_count, count, sum, positive, negative, bounds }
            },
        )
    }

    proptest! {
        #[test]
        fn chunks_survive_a_round_trip(found in proptest::collection::vec((any::<i32>(), histogram()), 0..20)) {
            let samples: Vec<HistogramSample> = found
                .into_iter()
                .map(|(time, one)| HistogramSample {
                    timestamp: Timestamp(i64::from(time)), histogram: Arc::new(one),
                })
                .collect();
            let bytes = encode_chunk(&samples);
            let mut back = Vec::new();
            prop_assert!(decode_chunk(&bytes, &mut back).is_some());
            prop_assert_eq!(format!("{back:?}"), format!("{samples:?}"));
            prop_assert_eq!(encode_chunk(&back), bytes);
        }

        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = decode_chunk(&bytes, &mut Vec::new());
        }
    }
}
