//! Pieces as a dictionary and frames.

use std::ops::Range;

use zstd::bulk::Compressor;

use super::cut::{ENDS, IS_SMALL, Prose, UNLISTED_GAP, UNLISTED_WORD};
use super::{DIRECT, DIRECT_BITS, END, FIRST, RANKS_MAX, Role, SHARED, SMALL, SPELLED_GAP, SPELLED_WORD};
use crate::bytes::put_varint;

/// The symbol of a rank and the bits behind it.
#[derive(Debug, Clone, Copy)]
struct Code {
    bits: u32,
    width: u8,
    symbol: u8,
}

impl Code {
    fn of(rank: u32) -> Self {
        if rank < DIRECT {
            return Self { bits: 0, width: 0, symbol: FIRST + rank as u8 };
        }
        let width = rank.ilog2();
        Self { bits: rank - (1 << width), width: width as u8, symbol: SHARED + (width - DIRECT_BITS) as u8 }
    }
}

/// Texts whose pieces are ranked.
pub(in super::super) struct Ranked<'a> {
    prose: &'a Prose,
    /// The numbers of pieces by their ranks.
    order: Vec<u32>,
    /// By the number of a piece; none where it is spelled out.
    codes: Vec<Option<Code>>,
}

impl Prose {
    /// Gives pieces that come twice their ranks.
    pub(in super::super) fn rank(&self) -> Ranked<'_> {
        let uses = |number: u32| self.pieces[number as usize].uses;
        let mut order: Vec<u32> = (0..self.pieces.len() as u32).filter(|number| uses(*number) > 1).collect();
        order.sort_unstable_by_key(|number| (std::cmp::Reverse(uses(*number)), *number));
        order.truncate(RANKS_MAX);
        // Ranks that share a symbol cost the same, and texts in their order are smaller.
        let mut from = DIRECT as usize;
        while from < order.len() {
            let to = (2 * from).min(order.len());
            order[from..to].sort_unstable_by_key(|number| {
                let piece = &self.pieces[*number as usize];
                (piece.role as u8, self.text(piece))
            });
            from = to;
        }
        let mut codes = vec![None; self.pieces.len()];
        order.iter().zip(0..).for_each(|(number, rank)| codes[*number as usize] = Some(Code::of(rank)));
        Ranked { prose: self, order, codes }
    }
}

impl Ranked<'_> {
    /// Appends the pieces by their ranks.
    pub(in super::super) fn dictionary(&self, out: &mut Vec<u8>) {
        let (mut shapes, mut bytes) = (Vec::new(), Vec::new());
        let mut previous: &[u8] = &[];
        for number in &self.order {
            let piece = &self.prose.pieces[*number as usize];
            let text = self.prose.text(piece);
            let common = text.iter().zip(previous).take_while(|(one, other)| one == other).count();
            shapes.push([common as u8, (text.len() - common) as u8, piece.role as u8]);
            bytes.extend_from_slice(&text[common..]);
            previous = text;
        }
        out.push(u8::from(self.prose.has_capitals));
        put_varint(out, shapes.len() as u64);
        for column in 0..3 {
            out.extend(shapes.iter().map(|shape| shape[column]));
        }
        out.extend_from_slice(&bytes);
    }

    /// Some of the texts, which have so many bytes.
    pub(in super::super) fn frame(
        &self,
        texts: Range<usize>,
        bytes: usize,
        compressor: &mut Compressor<'_>,
    ) -> std::io::Result<Vec<u8>> {
        let prose = self.prose;
        let range = |ends: &[u32]| {
            let end =
                |at: usize| at.checked_sub(1).and_then(|at| ends.get(at)).map_or(0, |end| *end as usize);
            end(texts.start)..end(texts.end)
        };
        let stream = &prose.stream[range(&prose.ends)];
        let mut unlisted = range(&prose.unlisted_ends).filter_map(|number| prose.unlisted.get(number));
        let (mut symbols, mut spelled) = (Vec::with_capacity(stream.len()), Vec::new());
        let mut bits = Bits::default();
        for number in stream {
            let spell = match *number {
                ENDS => {
                    symbols.push(END);
                    continue;
                }
                IS_SMALL => {
                    symbols.push(SMALL);
                    continue;
                }
                UNLISTED_WORD => (unlisted.next().unwrap_or_default(), Role::Word),
                UNLISTED_GAP => (unlisted.next().unwrap_or_default(), Role::Gap),
                number => {
                    if let Some(code) = self.codes[number as usize] {
                        symbols.push(code.symbol);
                        bits.push(code.bits, u32::from(code.width));
                        continue;
                    }
                    let piece = &prose.pieces[number as usize];
                    (prose.text(piece), piece.role)
                }
            };
            let (text, role) = spell;
            symbols.push(if role == Role::Word { SPELLED_WORD } else { SPELLED_GAP });
            put_varint(&mut spelled, text.len() as u64);
            spelled.extend_from_slice(text);
            if role == Role::LastGap {
                symbols.push(END);
            }
        }
        let mut out = Vec::new();
        put_varint(&mut out, texts.len() as u64);
        put_varint(&mut out, bytes as u64);
        put_part(&mut out, &symbols, compressor)?;
        put_part(&mut out, &spelled, compressor)?;
        bits.finish(&mut out);
        Ok(out)
    }
}

/// Bytes, by zstd where it makes them smaller.
fn put_part(out: &mut Vec<u8>, plain: &[u8], compressor: &mut Compressor<'_>) -> std::io::Result<()> {
    put_varint(out, plain.len() as u64);
    let packed = compressor.compress(plain)?;
    let stored = if packed.len() < plain.len() { &packed } else { plain };
    put_varint(out, stored.len() as u64);
    out.extend_from_slice(stored);
    Ok(())
}

/// Numbers of few bits, low bits first.
#[derive(Debug, Default)]
struct Bits {
    out: Vec<u8>,
    buffer: u64,
    used: u32,
}

impl Bits {
    /// At most 32 bits.
    fn push(&mut self, bits: u32, width: u32) {
        self.buffer |= u64::from(bits) << self.used;
        self.used += width;
        if self.used >= 32 {
            self.out.extend_from_slice(&(self.buffer as u32).to_le_bytes());
            self.buffer >>= 32;
            self.used -= 32;
        }
    }

    fn finish(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.out);
        out.extend_from_slice(&self.buffer.to_le_bytes()[..self.used.div_ceil(8) as usize]);
    }
}
