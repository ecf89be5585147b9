//! A column of cells: the variables of one hole of one template.
//!
//! ```text
//! kind, minors, majors             all cells of one kind; `minors` only where the kind has them
//! 255, kinds, (minors, majors)…    else: for each kind that occurs, ascending, its own columns
//! ```

use super::ints;
use crate::bytes::Reader;
use crate::logs::split::{Cell, Kind, VALUE_MASK};

const MIXED: u8 = 255;

/// Appends the column.
pub(super) fn encode(cells: &[u64], scratch: &mut Scratch, out: &mut Vec<u8>) {
    let Some(first) = cells.first().map(|cell| cell >> 60) else { return };
    if cells.iter().all(|cell| cell >> 60 == first) {
        out.push(first as u8);
        encode_kind(first, cells.iter().copied(), scratch, out);
        return;
    }
    out.push(MIXED);
    scratch.minors.clear();
    scratch.minors.extend(cells.iter().map(|cell| cell >> 60));
    let present = scratch.minors.iter().fold(0u32, |bits, kind| bits | 1 << kind);
    ints::encode(&scratch.minors, out);
    for kind in (0..16).filter(|kind| present >> kind & 1 == 1) {
        encode_kind(kind, cells.iter().copied().filter(|cell| cell >> 60 == kind), scratch, out);
    }
}

/// Reused between columns.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    minors: Vec<u64>,
    majors: Vec<u64>,
}

fn encode_kind(
    kind: u64,
    cells: impl Iterator<Item = u64> + Clone,
    scratch: &mut Scratch,
    out: &mut Vec<u8>,
) {
    let bits = Kind::from_bits(kind).map_or(0, Kind::minor_bits);
    if bits > 0 {
        scratch.minors.clear();
        scratch.minors.extend(cells.clone().map(|cell| cell & ((1 << bits) - 1)));
        ints::encode(&scratch.minors, out);
    }
    scratch.majors.clear();
    scratch.majors.extend(cells.map(|cell| (cell & VALUE_MASK) >> bits));
    ints::encode(&scratch.majors, out);
}

/// Reads a column of `count` cells; `None` if the bytes contradict the format.
pub(super) fn decode(reader: &mut Reader<'_>, count: usize) -> Option<Vec<u64>> {
    if count == 0 {
        return Some(Vec::new());
    }
    let kind = reader.u8()?;
    if kind != MIXED {
        return decode_kind(reader, Kind::from_bits(u64::from(kind))?, count);
    }
    let kinds = ints::decode(reader, count)?;
    let mut counts = [0usize; 16];
    for kind in &kinds {
        *counts.get_mut(usize::try_from(*kind).ok()?)? += 1;
    }
    let mut columns: Vec<std::vec::IntoIter<u64>> = Vec::with_capacity(16);
    for (kind, count) in (0..).zip(counts) {
        let column = if count > 0 { decode_kind(reader, Kind::from_bits(kind)?, count)? } else { Vec::new() };
        columns.push(column.into_iter());
    }
    kinds.into_iter().map(|kind| columns[kind as usize].next()).collect()
}

fn decode_kind(reader: &mut Reader<'_>, kind: Kind, count: usize) -> Option<Vec<u64>> {
    let bits = kind.minor_bits();
    let minors = if bits > 0 { Some(ints::decode(reader, count)?) } else { None };
    let mut cells = ints::decode(reader, count)?;
    let tag = Cell::new(kind, 0).0;
    let most = VALUE_MASK >> bits;
    match minors {
        None => {
            for cell in &mut cells {
                *cell = tag | (*cell <= most).then_some(*cell)?;
            }
        }
        Some(minors) => {
            for (cell, minor) in cells.iter_mut().zip(minors) {
                let is_sound = *cell <= most && minor < 1 << bits;
                *cell = is_sound.then_some(tag | *cell << bits | minor)?;
            }
        }
    }
    Some(cells)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn columns_come_back(cells in prop::collection::vec((0u64..12, prop_oneof![0..=VALUE_MASK, 0u64..40]), 0..200), alike in any::<bool>()) {
            let cells: Vec<u64> = cells.iter().map(|(kind, value)| (if alike { 4 } else { *kind }) << 60 | value).collect();
            let mut out = Vec::new();
            encode(&cells, &mut Scratch::default(), &mut out);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(decode(&mut reader, cells.len()), Some(cells));
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..80), count in 0usize..500) {
            let _ = decode(&mut Reader::new(&bytes), count);
        }
    }
}
