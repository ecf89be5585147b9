//! In which parts of a page's texts some bytes may stand: most searches for bytes look at none of them.

use std::ops::Range;

/// Bytes of a gram.
const GRAM: usize = 3;

/// Blocks that the texts are cut into: a bit for each.
const BLOCKS: usize = u32::BITS as usize;

/// Shorter blocks are not worth the while.
const BLOCK_MIN_BYTES: usize = 64;

/// Hashes of grams that are told apart: at most so many, and fewer where there are few texts.
const SLOTS_MAX: usize = 1 << 14;
const SLOTS_MIN: usize = 1 << 6;

/// For each three bytes, whatever the case of their ASCII letters, the blocks of the texts in which they begin.
#[derive(Debug)]
pub(crate) struct Grams {
    /// By hash.
    blocks: Vec<u32>,
    block_bytes: usize,
}

/// The place of a gram among so many, which is a power of two.
fn slot_of(gram: &[u8], slots: usize) -> usize {
    let gram = gram.iter().fold(0u32, |gram, byte| gram << 8 | u32::from(byte.to_ascii_lowercase()));
    (gram.wrapping_mul(0x9e37_79b1) >> 16) as usize & (slots - 1)
}

impl Grams {
    pub(super) fn of(texts: &[u8]) -> Self {
        let block_bytes = texts.len().div_ceil(BLOCKS).max(BLOCK_MIN_BYTES);
        let slots = (texts.len() / 8).next_power_of_two().clamp(SLOTS_MIN, SLOTS_MAX);
        let mut blocks = vec![0u32; slots];
        for (at, gram) in texts.windows(GRAM).enumerate() {
            blocks[slot_of(gram, slots)] |= 1 << (at / block_bytes);
        }
        Self { blocks, block_bytes }
    }

    /// Bits of the blocks in which the needle may begin.
    fn blocks_with(&self, needle: &[u8]) -> u32 {
        // What begins in a block and is no longer than one ends in the next.
        let grams = needle[..needle.len().min(self.block_bytes)].windows(GRAM);
        grams.fold(u32::MAX, |all, gram| {
            let blocks = self.blocks[slot_of(gram, self.blocks.len())];
            all & (blocks | blocks >> 1)
        })
    }

    /// Bytes of memory.
    pub(super) fn weight(&self) -> usize {
        4 * self.blocks.len()
    }
}

/// The parts of texts of so many bytes in which the needle lies if it is anywhere, ascending, each with all of it.
pub(crate) fn parts_with(grams: Option<&Grams>, needle: &[u8], length: usize) -> Vec<Range<usize>> {
    let Some(grams) = grams else { return std::iter::once(0..length).collect() };
    let mut parts = Vec::new();
    let mut left = grams.blocks_with(needle);
    while left != 0 {
        let first = left.trailing_zeros() as usize;
        let count = (!(left >> first)).trailing_zeros() as usize;
        let end = (first + count) * grams.block_bytes + needle.len();
        let part = (first * grams.block_bytes).min(length)..end.min(length);
        if !part.is_empty() {
            parts.push(part);
        }
        left &= u32::MAX.checked_shl((first + count) as u32).unwrap_or(0);
    }
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_there_is_in_a_part(texts in "[a-dA-D]{0,5000}", at in 0usize..5000, length in 0usize..200) {
            let texts = texts.as_bytes();
            let start = at.min(texts.len());
            let end = (start + length).min(texts.len());
            let needle = texts[start..end].to_ascii_uppercase();
            let grams = Grams::of(texts);
            let parts = parts_with(Some(&grams), &needle, texts.len());
            let is_within = |part: &Range<usize>| part.start <= start && end <= part.end;
            prop_assert!(start == texts.len() || parts.iter().any(is_within), "{parts:?}");
            prop_assert!(parts.iter().all(|part| part.end <= texts.len()));
        }
    }

    #[test]
    fn what_is_not_there_is_in_few_parts() {
        let texts: Vec<u8> = (0..20_000u32).flat_map(|at| format!("user-{at} ").into_bytes()).collect();
        let grams = Grams::of(&texts);
        assert!(parts_with(Some(&grams), b"zzqxnotthere17", texts.len()).is_empty());
        let parts = parts_with(Some(&grams), b"user-19999", texts.len());
        let bytes: usize = parts.iter().map(Range::len).sum();
        assert!((10..texts.len() / 4).contains(&bytes), "{parts:?}");
    }
}
