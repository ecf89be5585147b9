//! Text without templates, by words: what people write, and programs that write like people.
//!
//! ```text
//! bodies ─► cut ─► pieces ─► vocabulary ─► rank by use ─┬► dictionary    the words of the page, once
//!                                                       └► frame         of each word its rank
//!
//! "Pods are up." ─► pods · are · up · ".⏎" ─► symbols 9, 5, 131+7, 4 and 7 more bits for the third
//! ```
//!
//! A piece is a word, or what stands between two words. A single blank between two words is no piece, the end of a text is
//! part of what stands before it, and a capital letter at the beginning of a sentence is none where sentences begin so.
//! The pieces that come twice are ranked: each of the first [`DIRECT`] has a symbol of its own, all others share one with
//! those whose ranks have as many bits, and the bits follow. Symbols of a frame lie together, so that zstd gives each as
//! many bits as it is rare. What comes once is spelled out.
//!
//! Invariants:
//! - Texts come back byte for byte, whatever they are.
//! - Whatever the bytes are, reading them ends in texts of the length that they claim, or in nothing.

mod cut;
mod pack;
mod trial;
mod unpack;

pub(super) use cut::Prose;
#[doc(hidden)]
pub use trial::PackedTexts;
pub(super) use unpack::Dictionary;

/// A word that is spelled out.
const SPELLED_WORD: u8 = 0;
/// What stands between words, spelled out.
const SPELLED_GAP: u8 = 1;
/// The end of a text behind a word or a gap that was spelled out.
const END: u8 = 2;
/// The next word begins a sentence, but not with a capital letter.
const SMALL: u8 = 3;
/// The symbol of rank 0.
const FIRST: u8 = 4;
/// So many ranks have symbols of their own.
const DIRECT: u32 = 128;
const DIRECT_BITS: u32 = DIRECT.trailing_zeros();
/// The symbol of ranks from [`DIRECT`] up to twice that, without their highest bit.
const SHARED: u8 = FIRST + DIRECT as u8;

/// Ranks at most: 18 bits.
const RANKS_MAX: usize = 1 << 18;

/// Longer pieces are in no dictionary.
const PIECE_MAX_BYTES: usize = 63;

/// What a piece is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Word = 0,
    /// What stands between words, before the first, or behind the last one.
    Gap = 1,
    /// The same, and the text ends.
    LastGap = 2,
}

impl Role {
    fn of(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Word,
            1 => Self::Gap,
            2 => Self::LastGap,
            _ => return None,
        })
    }
}

/// Whether a byte is part of words, as [`binnacle_model::tokens`] has them; all that is no ASCII is.
const IS_WORD: [bool; 256] = {
    let mut is_word = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        is_word[byte] = byte >= 0x80 || byte == b'_' as usize || (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    is_word
};

/// Whether a sentence begins behind a gap.
fn ends_sentence(gap: &[u8]) -> bool {
    gap.len() > 1 && gap.iter().any(|byte| matches!(byte, b'.' | b'!' | b'?'))
}

#[cfg(test)]
mod tests;
