//! Columns of whole numbers, packed in as few bits as the simplest of four ways needs.
//!
//! ```text
//! tag 0  one value, for all
//! tag 1  smallest value, width, differences to it
//! tag 2  first value, smallest step (zigzagged), width, each further step minus the smallest
//! tag 3  distinct values as a column, width, a code for each
//! ```

use std::collections::HashMap;

use crate::bytes::{Reader, put_varint, put_zigzag};

/// A column with more distinct values gets no dictionary.
const DISTINCT_MAX: usize = 4096;

/// Shorter columns are not worth a look at a dictionary.
const DICTIONARY_MIN_ROWS: usize = 16;

fn width_of(value: u64) -> u8 {
    (64 - value.leading_zeros()) as u8
}

fn packed_bytes(count: usize, width: u8) -> usize {
    (count * usize::from(width)).div_ceil(8)
}

/// Appends the column.
pub(super) fn encode(values: &[u64], out: &mut Vec<u8>) {
    let Some(first) = values.first().copied() else { return };
    let (mut low, mut high, mut previous) = (first, first, first);
    let (mut low_step, mut high_step) = (i64::MAX, i64::MIN);
    for value in &values[1..] {
        low = low.min(*value);
        high = high.max(*value);
        let step = value.wrapping_sub(previous) as i64;
        previous = *value;
        low_step = low_step.min(step);
        high_step = high_step.max(step);
    }
    if low == high {
        out.push(0);
        put_varint(out, low);
        return;
    }
    let width = width_of(high - low);
    let step_width = width_of(high_step.wrapping_sub(low_step) as u64);
    if let Some((distinct, codes)) = dictionary(values, width) {
        out.push(3);
        put_varint(out, distinct.len() as u64);
        encode(&distinct, out);
        let width = width_of(distinct.len() as u64 - 1);
        out.push(width);
        pack(codes.iter().map(|code| u64::from(*code)), width, out);
    } else if step_width < width {
        out.push(2);
        put_varint(out, first);
        put_zigzag(out, low_step);
        out.push(step_width);
        let mut previous = first;
        let steps = values[1..].iter().map(|value| {
            let step = value.wrapping_sub(previous) as i64;
            previous = *value;
            step.wrapping_sub(low_step) as u64
        });
        pack(steps, step_width, out);
    } else {
        out.push(1);
        put_varint(out, low);
        out.push(width);
        pack(values.iter().map(|value| value - low), width, out);
    }
}

/// Distinct values, ascending, and a code for each value, if that is smaller than `width` bits each.
fn dictionary(values: &[u64], width: u8) -> Option<(Vec<u64>, Vec<u32>)> {
    if values.len() < DICTIONARY_MIN_ROWS || width <= 4 {
        return None;
    }
    let most = (values.len() / 2).min(DISTINCT_MAX);
    let mut codes: HashMap<u64, u32, foldhash::fast::FixedState> = HashMap::default();
    let mut last = (values[0], 0);
    codes.insert(values[0], 0);
    for value in values {
        if *value != last.0 {
            let next = codes.len() as u32;
            let code = *codes.entry(*value).or_insert(next);
            if codes.len() > most {
                return None;
            }
            last = (*value, code);
        }
    }
    let mut distinct: Vec<u64> = codes.keys().copied().collect();
    distinct.sort_unstable();
    let code_width = width_of(distinct.len() as u64 - 1);
    let bits = values.len() * usize::from(code_width) + distinct.len() * usize::from(width.min(32));
    if bits >= values.len() * usize::from(width) {
        return None;
    }
    distinct.iter().zip(0..).for_each(|(value, code)| {
        codes.insert(*value, code);
    });
    let mut last = (values[0], codes[&values[0]]);
    let codes = values.iter().map(|value| {
        if *value != last.0 {
            last = (*value, codes[value]);
        }
        last.1
    });
    Some((distinct, codes.collect()))
}

/// Values of `width` bits each, low bits first.
fn pack(values: impl Iterator<Item = u64>, width: u8, out: &mut Vec<u8>) {
    if width == 0 {
        return;
    }
    let width = u32::from(width);
    let (mut buffer, mut used) = (0u128, 0);
    for value in values {
        buffer |= u128::from(value) << used;
        used += width;
        while used >= 64 {
            out.extend_from_slice(&(buffer as u64).to_le_bytes());
            buffer >>= 64;
            used -= 64;
        }
    }
    out.extend_from_slice(&buffer.to_le_bytes()[..used.div_ceil(8) as usize]);
}

/// Appends `count` values of `width` bits each, after `map`.
fn unpack(bytes: &[u8], count: usize, width: u8, out: &mut Vec<u64>, mut map: impl FnMut(u64) -> u64) {
    if width == 0 {
        out.extend((0..count).map(|_| map(0)));
        return;
    }
    let mask = if width == 64 { u64::MAX } else { (1 << width) - 1 };
    let width = usize::from(width);
    // As long as eight bytes can be read at once, and hold a whole value.
    let quick =
        if width <= 56 && bytes.len() >= 8 { ((bytes.len() - 8) * 8 / width + 1).min(count) } else { 0 };
    out.extend((0..quick).map(|at| {
        let bit = at * width;
        let word = bytes[bit / 8..].first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        map(word >> (bit % 8) & mask)
    }));
    for at in quick..count {
        let bit = at * width;
        let mut word = [0; 16];
        let from = &bytes[(bit / 8).min(bytes.len())..];
        let length = from.len().min(16);
        word[..length].copy_from_slice(&from[..length]);
        out.push(map((u128::from_le_bytes(word) >> (bit % 8)) as u64 & mask));
    }
}

/// Reads a column of `count` values; `None` if the bytes contradict the format.
pub(super) fn decode(reader: &mut Reader<'_>, count: usize) -> Option<Vec<u64>> {
    decode_at(reader, count, false)
}

/// Distinct values have no dictionary of their own, and none is read.
fn decode_at(reader: &mut Reader<'_>, count: usize, is_inner: bool) -> Option<Vec<u64>> {
    let mut out = Vec::new();
    if count == 0 {
        return Some(out);
    }
    out.reserve_exact(count);
    match reader.u8()? {
        0 => {
            let value = reader.varint()?;
            out.resize(count, value);
        }
        1 => {
            let low = reader.varint()?;
            let width = reader.u8().filter(|width| *width <= 64)?;
            let bytes = reader.bytes(packed_bytes(count, width))?;
            unpack(bytes, count, width, &mut out, |value| low.wrapping_add(value));
        }
        2 => {
            let mut value = reader.varint()?;
            let low = reader.zigzag()?;
            let width = reader.u8().filter(|width| *width <= 64)?;
            let bytes = reader.bytes(packed_bytes(count - 1, width))?;
            out.push(value);
            unpack(bytes, count - 1, width, &mut out, |step| {
                value = value.wrapping_add(step).wrapping_add(low as u64);
                value
            });
        }
        3 if !is_inner => {
            let distinct =
                usize::try_from(reader.varint()?).ok().filter(|n| (1..=DISTINCT_MAX).contains(n))?;
            let values = decode_at(reader, distinct, true)?;
            let width = reader.u8().filter(|width| *width <= 16)?;
            let bytes = reader.bytes(packed_bytes(count, width))?;
            let mut is_sound = true;
            unpack(bytes, count, width, &mut out, |code| {
                let value = values.get(code as usize).copied();
                is_sound &= value.is_some();
                value.unwrap_or(0)
            });
            is_sound.then_some(())?;
        }
        _ => return None,
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round_trip(values: &[u64]) -> usize {
        let mut out = Vec::new();
        encode(values, &mut out);
        let mut reader = Reader::new(&out);
        assert_eq!(decode(&mut reader, values.len()).as_deref(), Some(values));
        assert!(reader.is_empty());
        out.len()
    }

    #[test]
    fn the_cheapest_way_is_taken() {
        assert!(round_trip(&[7; 1000]) < 5);
        assert!(round_trip(&(0..1000).collect::<Vec<u64>>()) < 10);
        assert!(round_trip(&(0..1000).map(|at| (1 << 50) | (at % 3)).collect::<Vec<u64>>()) < 270);
        assert!(round_trip(&(0..1000).map(|at| (at * 7919 % 5) << 40).collect::<Vec<u64>>()) < 420);
        round_trip(&[u64::MAX, 0, u64::MAX]);
        round_trip(&[]);
    }

    proptest! {
        #[test]
        fn columns_come_back(values in prop::collection::vec(prop_oneof![any::<u64>(), 0u64..20, 1000u64..1 << 33], 0..300)) {
            round_trip(&values);
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..60), count in 0usize..1000) {
            let _ = decode(&mut Reader::new(&bytes), count);
        }
    }
}
