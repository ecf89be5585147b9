//! Texts as pieces, each with a number.

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

use super::{IS_WORD, PIECE_MAX_BYTES, RANKS_MAX, Role, ends_sentence};
use crate::logs::page::seal::note_words;
use crate::logs::page::tables::Texts;

/// A piece that is in no vocabulary: a word or a gap.
pub(super) const UNLISTED_WORD: u32 = u32::MAX;
pub(super) const UNLISTED_GAP: u32 = u32::MAX - 1;
/// The text ends.
pub(super) const ENDS: u32 = u32::MAX - 2;
/// The next word begins a sentence, but not with a capital letter.
pub(super) const IS_SMALL: u32 = u32::MAX - 3;

/// Pieces that a vocabulary takes; what comes later for the first time is spelled out.
const PIECES_MAX: usize = 4 * RANKS_MAX;

/// Texts that are looked at before it is said whether sentences begin with capital letters.
const SAMPLE: usize = 1000;

/// Most words are known by so many bytes alone.
const HEAD_BYTES: usize = 8;

/// A piece of the vocabulary.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    /// The first eight bytes, or fewer and zeros.
    head: u64,
    start: u32,
    length: u8,
    pub(super) role: Role,
    pub(super) uses: u32,
}

/// Texts as pieces.
#[derive(Debug, Default)]
pub(in super::super) struct Prose {
    /// Numbers of pieces, or one of the constants above.
    pub(super) stream: Vec<u32>,
    /// Where the pieces of each text end in `stream`.
    pub(super) ends: Vec<u32>,
    pub(super) pieces: Vec<Piece>,
    /// The bytes of all pieces.
    bytes: Vec<u8>,
    /// What is in no vocabulary, in the order of the stream.
    pub(super) unlisted: Texts,
    /// Where those of each text end in `unlisted`.
    pub(super) unlisted_ends: Vec<u32>,
    /// Sentences begin with capital letters.
    pub(super) has_capitals: bool,
    by_text: HashTable<u32>,
}

impl Prose {
    /// Nothing yet, for such texts.
    pub(in super::super) fn of<'a>(sample: impl Iterator<Item = &'a [u8]>) -> Self {
        let (mut capitals, mut others) = (0, 0);
        for text in sample.take(SAMPLE) {
            match text.first() {
                Some(byte) if byte.is_ascii_uppercase() => capitals += 1,
                Some(byte) if byte.is_ascii_lowercase() => others += 1,
                _ => {}
            }
        }
        Self { has_capitals: capitals > 4 * others, ..Self::default() }
    }

    pub(super) fn text(&self, piece: &Piece) -> &[u8] {
        &self.bytes[piece.start as usize..piece.start as usize + usize::from(piece.length)]
    }

    /// Takes the next text.
    pub(in super::super) fn push(&mut self, text: &[u8]) {
        let (mut at, mut begins) = (0, self.has_capitals);
        let mut is_behind_word = false;
        loop {
            let start = at;
            at += text[at..].iter().take_while(|byte| !IS_WORD[usize::from(**byte)]).count();
            let gap = &text[start..at];
            let is_last = at == text.len();
            // Between two words a blank says itself, and at the end of the text nothing does.
            let is_implied = is_behind_word && if is_last { gap.is_empty() } else { gap == b" " };
            if !gap.is_empty() && !is_implied {
                self.put(gap, if is_last { Role::LastGap } else { Role::Gap });
                begins |= self.has_capitals && ends_sentence(gap);
            }
            if is_last {
                if gap.is_empty() || gap.len() > PIECE_MAX_BYTES || self.stream.last() == Some(&UNLISTED_GAP)
                {
                    self.stream.push(ENDS);
                }
                break;
            }
            let start = at;
            at += text[at..].iter().take_while(|byte| IS_WORD[usize::from(**byte)]).count();
            self.put_word(&text[start..at], std::mem::take(&mut begins));
            is_behind_word = true;
        }
        self.ends.push(self.stream.len() as u32);
        self.unlisted_ends.push(self.unlisted.len() as u32);
    }

    fn put_word(&mut self, word: &[u8], begins: bool) {
        if !begins {
            return self.put(word, Role::Word);
        }
        match word {
            [first, ..] if first.is_ascii_lowercase() => {
                self.stream.push(IS_SMALL);
                self.put(word, Role::Word);
            }
            [first, rest @ ..]
                if first.is_ascii_uppercase()
                    && rest.first().is_none_or(u8::is_ascii_lowercase)
                    && word.len() <= PIECE_MAX_BYTES =>
            {
                let mut small = [0; PIECE_MAX_BYTES];
                let small = &mut small[..word.len()];
                small.copy_from_slice(word);
                small[0] = small[0].to_ascii_lowercase();
                self.put(small, Role::Word);
            }
            _ => self.put(word, Role::Word),
        }
    }

    fn put(&mut self, text: &[u8], role: Role) {
        let number = if text.len() > PIECE_MAX_BYTES { None } else { self.number(text, role) };
        if number.is_none() {
            self.unlisted.push(text);
        }
        let unlisted = if role == Role::Word { UNLISTED_WORD } else { UNLISTED_GAP };
        self.stream.push(number.unwrap_or(unlisted));
    }

    fn number(&mut self, text: &[u8], role: Role) -> Option<u32> {
        let Self { pieces, bytes, by_text, .. } = self;
        let (head, length) = (head_of(text), text.len() as u8);
        let tail_of = |piece: &Piece| {
            let start = piece.start as usize;
            &bytes[start + HEAD_BYTES..start + usize::from(piece.length)]
        };
        let is_long = text.len() > HEAD_BYTES;
        let hash_of = |head: u64, length: u8, role: Role, tail: &[u8]| {
            let hash = mix(head ^ u64::from(length) << 56 ^ role as u64);
            if tail.is_empty() { hash } else { hash ^ xxh3_64(tail) }
        };
        let tail = text.get(HEAD_BYTES..).unwrap_or_default();
        let hash = hash_of(head, length, role, tail);
        let known = by_text.find(hash, |number| {
            let piece = &pieces[*number as usize];
            let is_like = piece.head == head && piece.length == length && piece.role == role;
            is_like && (!is_long || tail_of(piece) == tail)
        });
        if let Some(number) = known {
            pieces[*number as usize].uses += 1;
            return Some(*number);
        }
        if pieces.len() >= PIECES_MAX {
            return None;
        }
        let number = pieces.len() as u32;
        by_text.insert_unique(hash, number, |number| {
            let piece = &pieces[*number as usize];
            let tail = if usize::from(piece.length) > HEAD_BYTES { tail_of(piece) } else { &[] };
            hash_of(piece.head, piece.length, piece.role, tail)
        });
        pieces.push(Piece { head, start: bytes.len() as u32, length, role, uses: 1 });
        bytes.extend_from_slice(text);
        Some(number)
    }

    /// The keys of all words, for the filter.
    pub(in super::super) fn note_words(&self, keys: &mut Vec<u64>) {
        let listed =
            self.pieces.iter().filter(|piece| piece.role == Role::Word).map(|piece| self.text(piece));
        listed.chain(self.unlisted.iter()).for_each(|word| note_words(word, keys));
    }
}

/// The first eight bytes, or fewer and zeros; the length says which.
fn head_of(text: &[u8]) -> u64 {
    if let Some(head) = text.first_chunk::<HEAD_BYTES>() {
        return u64::from_le_bytes(*head);
    }
    match (text.first_chunk::<4>(), text.last_chunk::<4>()) {
        (Some(first), Some(last)) => {
            let (first, last) = (u64::from(u32::from_le_bytes(*first)), u64::from(u32::from_le_bytes(*last)));
            first | last << (8 * (text.len() - 4))
        }
        _ => text.iter().rev().fold(0, |head, byte| head << 8 | u64::from(*byte)),
    }
}

fn mix(head: u64) -> u64 {
    let product = u128::from(head ^ 0x9e37_79b9_7f4a_7c15) * 0xff51_afd7_ed55_8ccd;
    product as u64 ^ (product >> 64) as u64
}
