//! The words and ids of a partition as a filter of 16 bits a place, of which a question reads three blocks.
//!
//! Keys are spread over buckets, each a binary fuse filter, so that building one needs little memory. The fingerprints of
//! all buckets lie one behind the other in blocks, each with its checksum: a damaged one must not look like an absence.

use crate::bytes::{Reader, put_varint};
use crate::fs::ReadFile;
use crate::logs::page::{Layout, PageError, arrange};

/// Keys of one bucket, on average.
const BUCKET_KEYS: usize = 500_000;

/// Fingerprints of a block, and its bytes with the checksum.
const BLOCK_CELLS: u64 = 1022;
const BLOCK_BYTES: usize = 2 * BLOCK_CELLS as usize + 4;

/// Buckets of one filter.
const BUCKETS_MAX: usize = 65_536;

/// Where the fingerprints are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Filter {
    /// The layout of each bucket, and its first fingerprint.
    buckets: Vec<(Layout, u64)>,
}

fn fingerprint(hash: u64) -> u16 {
    (hash ^ hash >> 32) as u16
}

fn bucket_of(key: u64, buckets: usize) -> usize {
    let mixed = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((u128::from(mixed) * buckets as u128) >> 64) as usize
}

impl Filter {
    /// The filter of keys, and its blocks. `None`: it could not be built, which chance all but excludes.
    pub(super) fn build(mut keys: Vec<u64>) -> Option<(Self, Vec<u8>)> {
        keys.sort_unstable();
        keys.dedup();
        let count = (keys.len() / BUCKET_KEYS + 1).min(BUCKETS_MAX);
        let mut parts: Vec<Vec<u64>> = vec![Vec::new(); count];
        for key in keys {
            parts[bucket_of(key, count)].push(key);
        }
        let (mut buckets, mut cells) = (Vec::with_capacity(count), Vec::new());
        for mut part in parts {
            let (layout, order) = arrange(&mut part)?;
            let first = cells.len();
            cells.resize(first + layout.places(), 0u16);
            let own = &mut cells[first..];
            for (hash, place) in order.into_iter().rev() {
                let others = layout.places_of(hash).into_iter().filter(|other| *other != place as usize);
                own[place as usize] = others.fold(fingerprint(hash), |sum, other| sum ^ own[other]);
            }
            buckets.push((layout, first as u64));
        }
        let mut blocks = Vec::with_capacity(cells.len() * 2 + cells.len() / 256);
        for block in cells.chunks(BLOCK_CELLS as usize) {
            let start = blocks.len();
            block.iter().for_each(|cell| blocks.extend_from_slice(&cell.to_le_bytes()));
            blocks.resize(start + BLOCK_BYTES - 4, 0);
            let crc = crc32c::crc32c(&blocks[start..]);
            blocks.extend_from_slice(&crc.to_le_bytes());
        }
        Some((Self { buckets }, blocks))
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.buckets.len() as u64);
        self.buckets.iter().for_each(|(layout, _)| layout.encode(out));
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let count = reader.count().filter(|count| (1..=BUCKETS_MAX).contains(count))?;
        let (mut buckets, mut first) = (Vec::with_capacity(count), 0u64);
        for _ in 0..count {
            let layout = Layout::decode(reader)?;
            buckets.push((layout, first));
            first = first.checked_add(layout.places() as u64)?;
        }
        Some(Self { buckets })
    }

    /// Whether the key may be one of the set; `false` is certain. The blocks begin at `offset` of the file.
    pub(super) fn may_contain(&self, file: &dyn ReadFile, offset: u64, key: u64) -> Result<bool, PageError> {
        let (layout, first) = self.buckets[bucket_of(key, self.buckets.len())];
        let hash = layout.hash(key);
        let mut sum = fingerprint(hash);
        let mut block = [0; BLOCK_BYTES];
        for place in layout.places_of(hash) {
            let cell = first + place as u64;
            file.read_exact_at(&mut block, offset + cell / BLOCK_CELLS * BLOCK_BYTES as u64)?;
            let (cells, crc) = block.split_at(BLOCK_BYTES - 4);
            if crc32c::crc32c(cells).to_le_bytes() != crc {
                return Err(PageError::Damaged("a block of a partition's filter"));
            }
            let at = 2 * (cell % BLOCK_CELLS) as usize;
            sum ^= u16::from_le_bytes([cells[at], cells[at + 1]]);
        }
        Ok(sum == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::page::key_of;
    use crate::logs::page::tests::Bytes;

    #[test]
    fn what_was_put_in_is_found_and_hardly_anything_else() {
        for count in [0u64, 1, 7, 1_000, 1_100_000] {
            let keys: Vec<u64> = (0..count).map(|at| key_of(&at.to_le_bytes())).collect();
            let (built, blocks) = Filter::build(keys.clone()).unwrap();
            let mut bytes = Vec::new();
            built.encode(&mut bytes);
            let filter = Filter::decode(&mut Reader::new(&bytes)).unwrap();
            assert_eq!(filter, built);
            let mut file = Bytes([&[7; 100], &blocks[..]].concat());
            let found = |key: u64| filter.may_contain(&file, 100, key).unwrap();
            assert!(keys.iter().step_by(97).all(|key| found(*key)), "{count}");
            let wrong = (0..20_000u64).filter(|at| found(key_of(&(at + (1 << 40)).to_le_bytes()))).count();
            assert!(wrong < 8, "{count}: {wrong}");
            if count > 500_000 {
                assert!(blocks.len() as f64 * 8.0 / (count as f64) < 19.0, "{}", blocks.len());
            }
            // A flipped bit is no absence.
            file.0[100 + 9] ^= 4;
            let damaged =
                keys.iter().take(3_000).filter(|key| filter.may_contain(&file, 100, **key).is_err());
            assert_eq!(damaged.count() > 0, count > 0, "{count}");
            assert!(keys.iter().take(3_000).all(|key| filter.may_contain(&file, 100, *key).unwrap_or(true)));
        }
    }
}
