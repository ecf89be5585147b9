//! Messages in, constant text and variables out.
//!
//! ```text
//! "GET /cart/8813 took 12 ms"  ─►  "GET <> took <> ms"   and   /cart/8813, 12
//! ```
//!
//! A message is cut into tokens; what lies between them is constant. A token is a variable if it has a digit, or if it is
//! the value of a key (`key=value`, `"key":"value"`), but for the level's. Keys are never variables. So that queries
//! can be decided on constant text, these hold:
//!
//! - A variable ends where its token does, so that no word (`model::tokens`) lies across its border, and the byte
//!   before it is no token's.
//! - What decides whether a token is a variable lies in the token and next to it, never in another variable.

mod times;
mod value;

pub(crate) use value::{
    Cell, Kind, Lookup, Tables, VALUE_MASK, body, decode, encode, write_id16, write_id32,
};

use binnacle_model::tokens::colour_code;

/// Variables of one message; what comes behind them is constant.
const HOLES_MAX: usize = 512;

/// A message's tokens that are variables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: u32,
    pub(crate) end: u32,
    /// Its cell, if it is a timestamp.
    pub(crate) time: Option<Cell>,
}

impl Span {
    pub(crate) fn of<'a>(&self, message: &'a [u8]) -> &'a [u8] {
        &message[self.start as usize..self.end as usize]
    }
}

/// A constant token, where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) start: u32,
    pub(crate) end: u32,
    /// Whether it may become a variable, if many others stand in its place.
    pub(crate) may_vary: bool,
}

/// What a message was cut into.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    pub(crate) holes: Vec<Span>,
    pub(crate) words: Vec<Word>,
}

const TOKEN: u8 = 1;
const DIGIT: u8 = 2;

/// What each byte is in a token.
const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        classes[byte] = if b.is_ascii_digit() {
            TOKEN | DIGIT
        } else if b.is_ascii_alphabetic()
            || b >= 0x80
            || matches!(b, b'_' | b'-' | b'.' | b'/' | b'+' | b'@' | b'%' | b'#' | b'~')
        {
            TOKEN
        } else {
            0
        };
        byte += 1;
    }
    classes
};

/// Whether a byte may be part of a variable that is no timestamp.
pub(crate) fn is_token_byte(byte: u8) -> bool {
    CLASSES[usize::from(byte)] & TOKEN != 0
}

/// Names of fields whose values stay constant: the level decides on templates, not on lines.
const LEVEL_KEYS: [&[u8]; 8] = [
    b"level",
    b"severity",
    b"lvl",
    b"loglevel",
    b"log.level",
    b"levelname",
    b"severity_text",
    b"severityText",
];

/// Cuts a message.
pub(crate) fn split(message: &[u8], entry_ns: i64, pieces: &mut Pieces) {
    pieces.holes.clear();
    pieces.words.clear();
    let mut at = 0;
    while at < message.len() {
        let byte = message[at];
        if CLASSES[usize::from(byte)] & TOKEN == 0 {
            // The letters of a colour code are no part of the word behind it.
            at += if byte == 0x1b { colour_code(&message[at..]).max(1) } else { 1 };
            continue;
        }
        at = token(message, at, entry_ns, pieces);
        if pieces.holes.len() >= HOLES_MAX {
            break;
        }
    }
}

/// Takes the token that begins at `start`; answers where to go on.
fn token(message: &[u8], start: usize, entry_ns: i64, pieces: &mut Pieces) -> usize {
    let mut end = start;
    let mut classes = 0;
    while end < message.len() {
        let class = CLASSES[usize::from(message[end])];
        if class == 0 {
            break;
        }
        classes |= class;
        end += 1;
    }
    let behind = end;
    if classes & DIGIT != 0
        && message[start].is_ascii_digit()
        && let Some((len, cell)) = timestamp(message, start, end, entry_ns)
    {
        let (start, end) = (start as u32, (start + len) as u32);
        pieces.holes.push(Span { start, end, time: Some(cell) });
        return end as usize;
    }
    while end > start && message[end - 1] == b'.' {
        end -= 1;
    }
    if end == start {
        return behind;
    }
    let next = message.get(end).copied();
    let is_key = next == Some(b'=') || (next == Some(b'"') && is_colon(&message[end + 1..]));
    let (from, to) = (start as u32, end as u32);
    let is_hole = !is_key && (classes & DIGIT != 0 || is_value(message, start, end));
    if is_hole && !is_level(message, start, classes) {
        pieces.holes.push(Span { start: from, end: to, time: None });
    } else {
        pieces.words.push(Word { start: from, end: to, may_vary: !is_key && !is_hole });
    }
    behind
}

/// A timestamp that ends where a token ends, and is near the entry's own time.
fn timestamp(message: &[u8], start: usize, end: usize, entry_ns: i64) -> Option<(usize, Cell)> {
    // Only `12:30:…`, `12/Nov/…` and `2026-…` can be one, which spares most numbers the look.
    let length = end - start;
    let is_likely = match length {
        2 => message.get(end) == Some(&b':'),
        10..=13 => true,
        _ => false,
    };
    if !is_likely {
        return None;
    }
    let found = times::find(&message[start..], entry_ns)?;
    let ends = message.get(start + found.len).is_none_or(|byte| CLASSES[usize::from(*byte)] & TOKEN == 0);
    if !ends {
        return None;
    }
    value::encode_time(found).map(|cell| (found.len, cell))
}

/// Whether a colon follows, with the blanks before it that JSON allows.
fn is_colon(behind: &[u8]) -> bool {
    behind.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b':')
}

/// Whether the token is the whole value of a key.
fn is_value(message: &[u8], start: usize, end: usize) -> bool {
    let mut at = start;
    let is_quoted = at > 0 && message[at - 1] == b'"';
    if is_quoted {
        if message.get(end) != Some(&b'"') {
            return false;
        }
        at -= 1;
    }
    if at > 0 && message[at - 1] == b'=' {
        return true;
    }
    if at > 0 && message[at - 1] == b' ' {
        at -= 1;
    }
    at >= 2 && message[at - 1] == b':' && message[at - 2] == b'"'
}

/// Whether the token is the level, which its key says. Only words: numbers would be many.
fn is_level(message: &[u8], start: usize, classes: u8) -> bool {
    if classes & DIGIT != 0 {
        return false;
    }
    let before = &message[..start];
    let before = before.strip_suffix(b"\"").unwrap_or(before);
    let key = if let Some(key) = before.strip_suffix(b"=") {
        key
    } else {
        let before = before.strip_suffix(b" ").unwrap_or(before);
        let Some(key) = before.strip_suffix(b"\":") else { return false };
        key
    };
    LEVEL_KEYS.iter().any(|level| {
        let Some(rest) = key.strip_suffix(*level) else { return false };
        rest.last().is_none_or(|byte| matches!(byte, b'"' | b' ' | b',' | b'{' | b'\t' | b'['))
    })
}

#[cfg(test)]
mod tests;
