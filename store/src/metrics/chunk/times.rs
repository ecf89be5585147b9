//! Columns of times: those of one target, shared by all its series.
//!
//! ```text
//! column := count:varint first:zigzag step:zigzag (same:varint change:zigzag)*
//! ```
//!
//! `step` is the first difference; then, how often the difference stays `same`, and by how much it
//! changes, until there are `count` times. The last change is left out where it is not needed.

use super::COLUMN_MAX_SAMPLES;
use crate::bytes::{Reader, put_varint, put_zigzag};

/// Encodes at most [`COLUMN_MAX_SAMPLES`] times.
pub(crate) fn encode(times: &[i64]) -> Vec<u8> {
    debug_assert!(times.len() <= COLUMN_MAX_SAMPLES, "the reader refuses more");
    let mut out = Vec::with_capacity(24);
    put_varint(&mut out, times.len() as u64);
    let Some(first) = times.first() else { return out };
    put_zigzag(&mut out, *first);
    let differences = times.windows(2).map(|pair| pair[1].wrapping_sub(pair[0]));
    let mut before = None;
    let mut same = 0u64;
    for difference in differences {
        match before {
            None => put_zigzag(&mut out, difference),
            Some(before) if before == difference => same += 1,
            Some(before) => {
                put_varint(&mut out, same);
                put_zigzag(&mut out, difference.wrapping_sub(before));
                same = 0;
            }
        }
        before = Some(difference);
    }
    out
}

/// Adds the times of a column to `out`; `None` if the bytes are no column.
pub(crate) fn decode(bytes: &[u8], out: &mut Vec<i64>) -> Option<()> {
    let mut reader = Reader::new(bytes);
    let count = usize::try_from(reader.varint()?).ok().filter(|count| *count <= COLUMN_MAX_SAMPLES)?;
    out.reserve(count);
    if count == 0 {
        return reader.is_empty().then_some(());
    }
    let mut time = reader.zigzag()?;
    out.push(time);
    let mut left = count - 1;
    if left == 0 {
        return reader.is_empty().then_some(());
    }
    let mut step = reader.zigzag()?;
    time = time.wrapping_add(step);
    out.push(time);
    left -= 1;
    while left > 0 {
        let same = if reader.is_empty() { left } else { usize::try_from(reader.varint()?).ok()? };
        if same > left {
            return None;
        }
        out.extend((1..=same as i64).map(|n| time.wrapping_add(step.wrapping_mul(n))));
        time = time.wrapping_add(step.wrapping_mul(same as i64));
        left -= same;
        if left > 0 {
            step = step.wrapping_add(reader.zigzag()?);
            time = time.wrapping_add(step);
            out.push(time);
            left -= 1;
        }
    }
    reader.is_empty().then_some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(times: &[i64]) -> usize {
        let bytes = encode(times);
        let mut back = Vec::new();
        decode(&bytes, &mut back).unwrap();
        assert_eq!(back, times);
        bytes.len()
    }

    #[test]
    fn a_column_of_a_scraped_target_is_small() {
        let regular: Vec<i64> = (0..480).map(|i| 1_700_000_000_000 + i * 15_000).collect();
        assert!(check(&regular) < 16);
        let jittered: Vec<i64> = regular.iter().map(|t| t + i64::from(t / 15_000 % 50 == 0) * 3).collect();
        assert!(check(&jittered) < 120);
        check(&[]);
        check(&[i64::MIN]);
        check(&[i64::MIN, i64::MAX, 0]);
    }

    proptest! {
        #[test]
        fn any_times_survive(times in proptest::collection::vec(any::<i64>(), 0..200)) {
            check(&times);
        }

        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut out = Vec::new();
            let _ = decode(&bytes, &mut out);
            prop_assert!(out.len() <= COLUMN_MAX_SAMPLES);
        }
    }
}
