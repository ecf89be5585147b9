//! A set of hashes that answers "surely not" or "probably": a binary fuse filter, 9.8 bits or so a key.
//!
//! After Graf and Lemire, "Binary Fuse Filters: Fast and Smaller Than Xor Filters" (2022). A key has three places in
//! three neighbouring segments; the filter is right if the three bytes there, taken together by XOR, are its
//! fingerprint.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::bytes::{Reader, put_varint};

/// Seeds that are tried; each fails with a small chance only.
const SEEDS_MAX: u64 = 64;

/// A filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fuse {
    layout: Layout,
    fingerprints: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    seed: u64,
    /// A power of two.
    segment: u32,
    segments: u32,
}

impl Layout {
    fn of(keys: usize, seed: u64) -> Self {
        let size = keys.max(2) as f64;
        let bits = (size.ln() / 3.33_f64.ln() + 2.25).floor().clamp(2.0, 18.0) as u32;
        let segment = 1u32 << bits;
        let factor = (0.875 + 0.25 * 1_000_000_f64.ln() / size.ln()).max(1.125);
        let capacity = (size * factor).round() as u32;
        let segments = capacity.div_ceil(segment).saturating_sub(2).max(1);
        Self { seed, segment, segments }
    }

    pub(crate) fn places(self) -> usize {
        ((self.segments + 2) * self.segment) as usize
    }

    pub(crate) fn hash(self, key: u64) -> u64 {
        let mut hash = key ^ self.seed;
        hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash = (hash ^ hash >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        hash ^ hash >> 33
    }

    pub(crate) fn places_of(self, hash: u64) -> [usize; 3] {
        let first = ((u128::from(hash) * u128::from(self.segments * self.segment)) >> 64) as u64;
        let mask = u64::from(self.segment - 1);
        let second = first + u64::from(self.segment);
        let third = second + u64::from(self.segment);
        [first as usize, (second ^ hash >> 18 & mask) as usize, (third ^ hash & mask) as usize]
    }

    pub(crate) fn encode(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.seed.to_le_bytes());
        put_varint(out, u64::from(self.segment.trailing_zeros()));
        put_varint(out, u64::from(self.segments));
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let seed = reader.u64()?;
        let segment = 1u32 << u32::try_from(reader.varint()?).ok().filter(|bits| *bits <= 18)?;
        let segments = u32::try_from(reader.varint()?).ok().filter(|segments| *segments > 0)?;
        let places = u64::from(segments).checked_add(2)?.checked_mul(u64::from(segment))?;
        u32::try_from(places).is_ok().then_some(Self { seed, segment, segments })
    }
}

/// A layout for keys, which are sorted and each there once afterwards, and for each key its hash and one of its places,
/// which no key before it has: fingerprints are set from the last to the first.
pub(crate) fn arrange(keys: &mut Vec<u64>) -> Option<(Layout, Vec<(u64, u32)>)> {
    keys.sort_unstable();
    keys.dedup();
    (0..SEEDS_MAX).find_map(|seed| {
        let layout = Layout::of(keys.len(), seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Some((layout, peel(keys, layout)?))
    })
}

/// Takes away keys that are alone at one of their places, until none is left.
fn peel(keys: &[u64], layout: Layout) -> Option<Vec<(u64, u32)>> {
    let mut counts = vec![0u8; layout.places()];
    let mut sums = vec![0u64; layout.places()];
    for key in keys {
        let hash = layout.hash(*key);
        for place in layout.places_of(hash) {
            counts[place] = counts[place].checked_add(1)?;
            sums[place] ^= hash;
        }
    }
    let mut alone: Vec<u32> =
        (0..layout.places() as u32).filter(|place| counts[*place as usize] == 1).collect();
    let mut order = Vec::with_capacity(keys.len());
    while let Some(place) = alone.pop() {
        if counts[place as usize] != 1 {
            continue;
        }
        let hash = sums[place as usize];
        order.push((hash, place));
        for other in layout.places_of(hash) {
            counts[other] -= 1;
            sums[other] ^= hash;
            if counts[other] == 1 {
                alone.push(other as u32);
            }
        }
    }
    (order.len() == keys.len()).then_some(order)
}

fn fingerprint(hash: u64) -> u8 {
    (hash ^ hash >> 32) as u8
}

impl Fuse {
    /// The filter of keys, which are sorted and each there once afterwards.
    pub(crate) fn build(keys: &mut Vec<u64>) -> Option<Self> {
        let (layout, order) = arrange(keys)?;
        let mut fingerprints = vec![0; layout.places()];
        for (hash, place) in order.into_iter().rev() {
            let others = layout.places_of(hash).into_iter().filter(|other| *other != place as usize);
            fingerprints[place as usize] =
                others.fold(fingerprint(hash), |sum, other| sum ^ fingerprints[other]);
        }
        Some(Self { layout, fingerprints })
    }

    /// Whether the key may be one of the set; `false` is certain.
    pub(crate) fn may_contain(&self, key: u64) -> bool {
        let hash = self.layout.hash(key);
        self.layout
            .places_of(hash)
            .into_iter()
            .fold(fingerprint(hash), |sum, place| sum ^ self.fingerprints[place])
            == 0
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        self.layout.encode(out);
        out.extend_from_slice(&self.fingerprints);
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let layout = Layout::decode(&mut reader)?;
        let fingerprints = reader.rest();
        (fingerprints.len() == layout.places()).then(|| Self { layout, fingerprints: fingerprints.to_vec() })
    }

    /// Bytes of memory.
    pub(crate) fn weight(&self) -> usize {
        self.fingerprints.len()
    }
}

/// The key of a word, which is in lower case.
pub(crate) fn key_of(word: &[u8]) -> u64 {
    xxh3_64_with_seed(word, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_is_found_and_little_else() {
        for count in [0u64, 1, 2, 3, 10, 100, 5_000, 100_000] {
            let mut keys: Vec<u64> = (0..count).map(|at| key_of(&at.to_le_bytes())).collect();
            keys.extend_from_within(..keys.len() / 2);
            let built = Fuse::build(&mut keys).unwrap();
            let mut bytes = Vec::new();
            built.encode(&mut bytes);
            let filter = Fuse::decode(&bytes).unwrap();
            assert_eq!(filter, built);
            assert!(keys.iter().all(|key| filter.may_contain(*key)), "{count}");
            let wrong = (0..10_000u64)
                .filter(|at| filter.may_contain(key_of(&(at + (1 << 40)).to_le_bytes())))
                .count();
            assert!(wrong < 100, "{count}: {wrong}");
            if count > 50_000 {
                assert!(bytes.len() as f64 * 8.0 / (count as f64) < 9.9, "{count}: {}", bytes.len());
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..60)) {
            if let Some(filter) = Fuse::decode(&bytes) {
                let _ = filter.may_contain(7);
            }
        }
    }
}
