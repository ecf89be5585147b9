//! Texts out of a dictionary and frames.

use zstd::bulk::Decompressor;

use super::{
    DIRECT_BITS, END, FIRST, PIECE_MAX_BYTES, RANKS_MAX, Role, SHARED, SMALL, SPELLED_GAP, SPELLED_WORD,
    ends_sentence,
};
use crate::bytes::Reader;
use crate::logs::page::sealed::ROWS_MAX;
use crate::logs::page::tables::Texts;

/// So many bytes of a piece are copied at once; few are longer.
const STEP: usize = 16;

/// Bytes behind the last piece, and behind a text that is being put together, that a copy may touch.
const SLACK: usize = PIECE_MAX_BYTES + 1;

/// The first rank of each symbol from [`FIRST`] on, and how many bits follow.
const RANKS: [(u32, u8); 256] = {
    let mut ranks = [(u32::MAX, 0); 256];
    let mut symbol = FIRST as usize;
    while symbol < 256 {
        let shared = symbol as u32 - FIRST as u32;
        if symbol < SHARED as usize {
            ranks[symbol] = (shared, 0);
        } else if symbol as u32 - (SHARED as u32) + DIRECT_BITS < RANKS_MAX.trailing_zeros() {
            let width = symbol as u32 - SHARED as u32 + DIRECT_BITS;
            ranks[symbol] = (1 << width, width as u8);
        }
        symbol += 1;
    }
    ranks
};

/// A piece by its rank.
#[derive(Debug, Clone, Copy)]
struct Entry {
    start: u32,
    length: u8,
    role: Role,
    /// A sentence begins behind it, where they begin with capital letters.
    ends_sentence: bool,
}

/// The pieces of a page by their ranks.
#[derive(Debug)]
pub(in super::super) struct Dictionary {
    entries: Vec<Entry>,
    bytes: Vec<u8>,
    has_capitals: bool,
}

impl Dictionary {
    /// Reads what [`Ranked::dictionary`](super::pack::Ranked::dictionary) wrote; `None` if the bytes contradict the format.
    pub(in super::super) fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let has_capitals = match reader.u8()? {
            0 => false,
            1 => true,
            _ => return None,
        };
        let count = usize::try_from(reader.varint()?).ok().filter(|count| *count <= RANKS_MAX)?;
        let (commons, lengths, roles) = (reader.bytes(count)?, reader.bytes(count)?, reader.bytes(count)?);
        let mut entries: Vec<Entry> = Vec::with_capacity(count);
        let mut bytes = Vec::new();
        let mut previous = 0..0;
        for at in 0..count {
            let (common, rest) = (usize::from(commons[at]), usize::from(lengths[at]));
            let (length, start) = (common + rest, bytes.len());
            let is_sound = common <= previous.len() && (1..=PIECE_MAX_BYTES).contains(&length);
            is_sound.then_some(())?;
            bytes.extend_from_within(previous.start..previous.start + common);
            bytes.extend_from_slice(reader.bytes(rest)?);
            previous = start..start + length;
            let role = Role::of(roles[at])?;
            let ends_sentence = has_capitals && role != Role::Word && ends_sentence(&bytes[previous.clone()]);
            entries.push(Entry { start: start as u32, length: length as u8, role, ends_sentence });
        }
        bytes.extend_from_slice(&[0; SLACK]);
        Some(Self { entries, bytes, has_capitals })
    }

    /// Appends the texts of a frame; `None` if the bytes contradict the format, or claim more than `bytes_max`.
    pub(in super::super) fn unpack(&self, frame: &[u8], bytes_max: usize, texts: &mut Texts) -> Option<()> {
        let reader = &mut Reader::new(frame);
        let count = usize::try_from(reader.varint()?).ok().filter(|count| *count <= ROWS_MAX)?;
        let length = usize::try_from(reader.varint()?).ok().filter(|length| *length <= bytes_max)?;
        // Each symbol stands for a byte of text at least, or ends a text, or says how the next word begins; what is
        // spelled out has a byte of length for each byte of text at most.
        let mut decompressor = Decompressor::new().ok()?;
        let symbols = part(reader, length.checked_mul(2)?.checked_add(count)?, &mut decompressor)?;
        let spelled = part(reader, length.checked_mul(2)?, &mut decompressor)?;
        let end = texts.bytes.len().checked_add(length).filter(|end| u32::try_from(*end).is_ok())?;
        if count > symbols.len() || length > symbols.len() * SLACK + spelled.len() {
            return None;
        }
        let (begin, from) = (texts.bytes.len(), texts.len());
        texts.bytes.resize(end + SLACK, 0);
        let mut writer = Writer {
            at: begin,
            end,
            is_behind_word: false,
            begins: self.has_capitals,
            has_capitals: self.has_capitals,
            entries: &self.entries,
            pieces: &self.bytes,
            bits: Bits::new(reader.rest()),
            spelled: Reader::new(&spelled),
            bytes: &mut texts.bytes,
            ends: &mut texts.ends,
        };
        let is_whole = writer.write(&symbols).is_some()
            && writer.at == end
            && writer.spelled.is_empty()
            && writer.bits.is_over();
        // The last text ends where all do.
        let last = texts.ends.last().map_or(0, |last| *last as usize);
        let is_sound = is_whole && texts.len() - from == count && last == end;
        texts.bytes.truncate(end);
        is_sound.then_some(())
    }
}

/// The next part of a frame, plain.
fn part(reader: &mut Reader<'_>, bytes_max: usize, decompressor: &mut Decompressor<'_>) -> Option<Vec<u8>> {
    let plain = usize::try_from(reader.varint()?).ok().filter(|plain| *plain <= bytes_max)?;
    let length = reader.count()?;
    let stored = reader.bytes(length)?;
    if length == plain {
        return Some(stored.to_vec());
    }
    let bytes = decompressor.decompress(stored, plain).ok()?;
    (bytes.len() == plain).then_some(bytes)
}

struct Writer<'a> {
    /// The next byte, and where the last one ends.
    at: usize,
    end: usize,
    is_behind_word: bool,
    /// The next word begins a sentence.
    begins: bool,
    has_capitals: bool,
    entries: &'a [Entry],
    /// The bytes of all entries.
    pieces: &'a [u8],
    bits: Bits,
    spelled: Reader<'a>,
    bytes: &'a mut [u8],
    ends: &'a mut Vec<u32>,
}

impl Writer<'_> {
    fn write(&mut self, symbols: &[u8]) -> Option<()> {
        for symbol in symbols {
            match *symbol {
                END => self.end_text(),
                SMALL => self.begins = false,
                SPELLED_WORD | SPELLED_GAP => self.spell(*symbol == SPELLED_WORD)?,
                symbol => {
                    let (first, width) = RANKS[usize::from(symbol)];
                    let rank = first.wrapping_add(self.bits.take(width)?);
                    self.put(*self.entries.get(rank as usize)?)?;
                }
            }
        }
        Some(())
    }

    /// Puts a piece of the dictionary. Words and gaps take turns in no order that a processor could foresee, so that
    /// nothing here branches on which it is.
    fn put(&mut self, entry: Entry) -> Option<()> {
        let is_word = entry.role == Role::Word;
        self.bytes[self.at] = b' ';
        self.at += usize::from(self.is_behind_word & is_word);
        let (start, length) = (entry.start as usize, usize::from(entry.length));
        let to = self.at + length;
        if to > self.end {
            return None;
        }
        let from = self.pieces.get(start..)?;
        let place = self.bytes.get_mut(self.at..)?;
        if length <= STEP {
            *place.first_chunk_mut::<STEP>()? = *from.first_chunk::<STEP>()?;
        } else {
            *place.first_chunk_mut::<SLACK>()? = *from.first_chunk::<SLACK>()?;
        }
        if self.begins & is_word {
            place[0].make_ascii_uppercase();
        }
        self.begins = (self.begins && !is_word) || entry.ends_sentence;
        self.is_behind_word = is_word;
        self.at = to;
        if entry.role == Role::LastGap {
            self.end_text();
        }
        Some(())
    }

    /// Puts a piece that is spelled out.
    fn spell(&mut self, is_word: bool) -> Option<()> {
        let length = self.spelled.count()?;
        let text = self.spelled.bytes(length)?;
        self.bytes[self.at] = b' ';
        self.at += usize::from(self.is_behind_word & is_word);
        let to = self.at.checked_add(length).filter(|to| *to <= self.end)?;
        let place = self.bytes.get_mut(self.at..to)?;
        place.copy_from_slice(text);
        if self.begins & is_word {
            place.first_mut()?.make_ascii_uppercase();
        }
        let ends_sentence = self.has_capitals && ends_sentence(text);
        self.begins = !is_word && (self.begins || ends_sentence);
        self.is_behind_word = is_word;
        self.at = to;
        Some(())
    }

    fn end_text(&mut self) {
        self.ends.push(self.at as u32);
        self.begins = self.has_capitals;
        self.is_behind_word = false;
    }
}

/// Numbers of few bits, low bits first.
struct Bits {
    /// Eight more than there are.
    bytes: Vec<u8>,
    /// In bits.
    at: usize,
}

impl Bits {
    fn new(bytes: &[u8]) -> Self {
        let mut padded = Vec::with_capacity(bytes.len() + 8);
        padded.extend_from_slice(bytes);
        padded.extend_from_slice(&[0; 8]);
        Self { bytes: padded, at: 0 }
    }

    /// Up to 32 bits; zeros behind the end, and `None` far behind it.
    fn take(&mut self, width: u8) -> Option<u32> {
        let bytes = self.bytes.get(self.at / 8..)?.first_chunk::<8>()?;
        let value = u64::from_le_bytes(*bytes) >> (self.at % 8) & ((1 << width) - 1);
        self.at += usize::from(width);
        Some(value as u32)
    }

    /// Whether all were taken, and no more.
    fn is_over(&self) -> bool {
        self.at.div_ceil(8) + 8 == self.bytes.len()
    }
}
