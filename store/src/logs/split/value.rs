//! Cells: the variables of a message, a word of 64 bits each.
//!
//! ```text
//! bits 60..64  what it is
//! bits  0..60  the value, or a number in the page's tables of texts and ids
//! ```
//!
//! Two cells of one page are equal exactly if their texts are, but for timestamps, which are relative to their entry.

use super::times::{self, FORMAT_BITS, FoundTime, TimeFormat};

/// What a cell is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Any text: its number in the page's table.
    Text = 0,
    /// A decimal number without sign or leading zeros.
    Int = 1,
    /// The same behind a minus.
    Negative = 2,
    /// Digits, of which the first are zeros: how many in all, and their value.
    Padded = 3,
    /// `12.50`: all digits as a number, and how many stand behind the point.
    Decimal = 4,
    /// An IPv4 address.
    Ip = 5,
    /// 16 digits of lower-case hex: their number in the page's table.
    Id16 = 6,
    /// 32 of them.
    Id32 = 7,
    /// A UUID in lower case, in the same table.
    Uuid = 8,
    /// A timestamp.
    Time = 9,
    /// Text that ends in a sign, then a number: `u-7008445`.
    Prefixed = 10,
    /// Text that is long or will not come again: its number in the page's table of bodies.
    Body = 11,
}

const KINDS: [Kind; 12] = [
    Kind::Text,
    Kind::Int,
    Kind::Negative,
    Kind::Padded,
    Kind::Decimal,
    Kind::Ip,
    Kind::Id16,
    Kind::Id32,
    Kind::Uuid,
    Kind::Time,
    Kind::Prefixed,
    Kind::Body,
];

impl Kind {
    pub(crate) fn from_bits(bits: u64) -> Option<Self> {
        KINDS.get(bits as usize).copied()
    }

    /// How many of the low bits say how the rest is to be read; they are kept in a column of their own.
    pub(crate) fn minor_bits(self) -> u32 {
        match self {
            Self::Padded => PAD_BITS,
            Self::Decimal => SCALE_BITS,
            Self::Time => FORMAT_BITS,
            Self::Prefixed => PREFIX_BITS,
            Self::Text
            | Self::Int
            | Self::Negative
            | Self::Ip
            | Self::Id16
            | Self::Id32
            | Self::Uuid
            | Self::Body => 0,
        }
    }
}

const PAD_BITS: u32 = 5;
const SCALE_BITS: u32 = 4;
const PREFIX_BITS: u32 = 24;
const VALUE_BITS: u32 = 60;
/// Bits of a value that a cell can hold.
pub(crate) const VALUE_MASK: u64 = (1 << VALUE_BITS) - 1;
/// Longest run of digits that is taken for a number.
const DIGITS_MAX: usize = 17;

/// A variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Cell(pub(crate) u64);

impl Cell {
    pub(crate) fn new(kind: Kind, value: u64) -> Self {
        debug_assert!(value <= VALUE_MASK, "{kind:?} {value}");
        Self((kind as u64) << VALUE_BITS | value & VALUE_MASK)
    }

    /// `None` for bits that no release wrote.
    pub(crate) fn kind(self) -> Option<Kind> {
        Kind::from_bits(self.0 >> VALUE_BITS)
    }

    pub(crate) fn value(self) -> u64 {
        self.0 & VALUE_MASK
    }

    /// The number in the table of texts of a prefix.
    pub(crate) fn prefix(self) -> usize {
        (self.value() & ((1 << PREFIX_BITS) - 1)) as usize
    }

    /// The digits before a decimal's point.
    pub(crate) fn whole(self) -> u64 {
        let scale = (self.value() & ((1 << SCALE_BITS) - 1)) as u32;
        (self.value() >> SCALE_BITS) / 10u64.pow(scale.min(9))
    }

    /// The value of a decimal, rounded as text is when it is read: so few digits are exact before the division.
    pub(crate) fn decimal(self) -> Option<f64> {
        let (value, scale) = (self.value() >> SCALE_BITS, (self.value() & ((1 << SCALE_BITS) - 1)) as i32);
        (value < 1 << 53 && scale <= 9).then(|| value as f64 / 10f64.powi(scale))
    }

    /// The number behind a prefix.
    pub(crate) fn suffix(self) -> u64 {
        self.value() >> PREFIX_BITS
    }
}

/// Numbers the texts and ids of a page.
pub(crate) trait Tables {
    /// The number of a text.
    fn text(&mut self, text: &[u8]) -> u32;
    /// The number of a text that is not looked for among those that were there before.
    fn body(&mut self, text: &[u8]) -> u32;
    /// The number of an id of 16 hex digits.
    fn id16(&mut self, id: u64) -> u32;
    /// The number of an id of 32 hex digits.
    fn id32(&mut self, id: u128) -> u32;
}

/// Finds the texts and ids of a page.
pub(crate) trait Lookup {
    fn text(&self, number: usize) -> Option<&[u8]>;
    fn body(&self, number: usize) -> Option<&[u8]>;
    fn id16(&self, number: usize) -> Option<u64>;
    fn id32(&self, number: usize) -> Option<u128>;
}

fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > DIGITS_MAX {
        return None;
    }
    let mut value = 0u64;
    for byte in text {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + u64::from(digit);
    }
    Some(value)
}

fn is_canonical(text: &[u8]) -> bool {
    text[0] != b'0' || text.len() == 1
}

fn hex(text: &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for byte in text {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        value = value << 4 | u64::from(digit);
    }
    Some(value)
}

fn uuid(text: &[u8]) -> Option<u128> {
    if [8, 13, 18, 23].iter().any(|at| text[*at] != b'-') {
        return None;
    }
    let mut value = 0u128;
    for (from, to) in [(0, 8), (9, 13), (14, 18), (19, 23), (24, 36)] {
        value = value << (4 * (to - from)) | u128::from(hex(&text[from..to])?);
    }
    Some(value)
}

fn ip(text: &[u8]) -> Option<u64> {
    let mut value = 0;
    let mut parts = 0;
    for part in text.split(|byte| *byte == b'.') {
        let number = digits(part).filter(|number| *number < 256 && is_canonical(part))?;
        value = value << 8 | number;
        parts += 1;
    }
    (parts == 4).then_some(value)
}

fn decimal(text: &[u8]) -> Option<Cell> {
    let point = text.iter().position(|byte| *byte == b'.')?;
    let (whole, behind) = (&text[..point], &text[point + 1..]);
    if behind.len() > 9 || whole.len() + behind.len() > 15 || whole.is_empty() || !is_canonical(whole) {
        return None;
    }
    let value = digits(whole)? * 10u64.pow(behind.len() as u32) + digits(behind)?;
    Some(Cell::new(Kind::Decimal, value << SCALE_BITS | behind.len() as u64))
}

/// Longer variables are bodies.
const TEXT_MAX_BYTES: usize = 256;

/// The cell of a variable that is not known to be a timestamp.
pub(crate) fn encode(text: &[u8], tables: &mut impl Tables) -> Cell {
    if text.len() > TEXT_MAX_BYTES {
        return body(text, tables);
    }
    let starts_with_digit = text.first().is_some_and(u8::is_ascii_digit);
    if starts_with_digit {
        if let Some(value) = digits(text) {
            return if is_canonical(text) {
                Cell::new(Kind::Int, value)
            } else {
                Cell::new(Kind::Padded, value << PAD_BITS | text.len() as u64)
            };
        }
        if let Some(cell) = decimal(text) {
            return cell;
        }
        if let Some(address) = (text.len() <= 15).then(|| ip(text)).flatten() {
            return Cell::new(Kind::Ip, address);
        }
    }
    match text.len() {
        16 => {
            if let Some(id) = hex(text) {
                return Cell::new(Kind::Id16, u64::from(tables.id16(id)));
            }
        }
        32 => {
            if let (Some(high), Some(low)) = (hex(&text[..16]), hex(&text[16..])) {
                return Cell::new(
                    Kind::Id32,
                    u64::from(tables.id32(u128::from(high) << 64 | u128::from(low))),
                );
            }
        }
        36 => {
            if let Some(id) = uuid(text) {
                return Cell::new(Kind::Uuid, u64::from(tables.id32(id)));
            }
        }
        _ => {}
    }
    if let [b'-', rest @ ..] = text
        && let Some(value) = digits(rest)
        && is_canonical(rest)
    {
        return Cell::new(Kind::Negative, value);
    }
    prefixed(text, tables).unwrap_or_else(|| Cell::new(Kind::Text, u64::from(tables.text(text))))
}

/// The cell of text as it is.
pub(crate) fn body(text: &[u8], tables: &mut impl Tables) -> Cell {
    Cell::new(Kind::Body, u64::from(tables.body(text)))
}

/// Text up to a sign, then a number of up to ten digits.
fn prefixed(text: &[u8], tables: &mut impl Tables) -> Option<Cell> {
    let behind = text.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let (prefix, number) = text.split_at(text.len() - behind);
    // A word (`model::tokens`) must not lie across the border: `a_1` is one.
    let is_sign = |byte: u8| byte.is_ascii_punctuation() && byte != b'_';
    if behind == 0 || behind > 10 || !is_canonical(number) || !is_sign(*prefix.last()?) {
        return None;
    }
    let value = digits(number).filter(|value| *value < 1 << (VALUE_BITS - PREFIX_BITS))?;
    let prefix = u64::from(tables.text(prefix));
    (prefix < 1 << PREFIX_BITS).then(|| Cell::new(Kind::Prefixed, value << PREFIX_BITS | prefix))
}

/// The cell of a timestamp, if it lies near enough to the entry's own.
pub(crate) fn encode_time(found: FoundTime) -> Option<Cell> {
    let difference = (found.difference << 1 ^ found.difference >> 63) as u64;
    let fits = found.difference.unsigned_abs() < 1 << (VALUE_BITS - FORMAT_BITS - 1);
    fits.then(|| Cell::new(Kind::Time, difference << FORMAT_BITS | found.format.to_bits()))
}

/// Appends the text of a cell. Answers whether there is one: bytes from a damaged page may lead nowhere.
pub(crate) fn decode(cell: Cell, tables: &(impl Lookup + ?Sized), time_ns: i64, out: &mut Vec<u8>) -> bool {
    let value = cell.value();
    let mut buffer = itoa::Buffer::new();
    let mut number = |out: &mut Vec<u8>, value: u64| out.extend_from_slice(buffer.format(value).as_bytes());
    let Some(kind) = cell.kind() else { return false };
    match kind {
        Kind::Text => match tables.text(value as usize) {
            Some(text) => out.extend_from_slice(text),
            None => return false,
        },
        Kind::Body => match tables.body(value as usize) {
            Some(text) => out.extend_from_slice(text),
            None => return false,
        },
        Kind::Int => number(out, value),
        Kind::Negative => {
            out.push(b'-');
            number(out, value);
        }
        Kind::Padded => {
            let (value, width) = (value >> PAD_BITS, (value & ((1 << PAD_BITS) - 1)) as usize);
            padded(value, width, out);
        }
        Kind::Decimal => {
            let (value, scale) = (value >> SCALE_BITS, (value & ((1 << SCALE_BITS) - 1)) as u32);
            if scale > 9 {
                return false;
            }
            let unit = 10u64.pow(scale);
            number(out, value / unit);
            out.push(b'.');
            padded(value % unit, scale as usize, out);
        }
        Kind::Ip => {
            for shift in [24, 16, 8, 0] {
                number(out, value >> shift & 255);
                out.push(b'.');
            }
            out.pop();
        }
        Kind::Id16 => match tables.id16(value as usize) {
            Some(id) => write_hex(id, 16, out),
            None => return false,
        },
        Kind::Id32 | Kind::Uuid => {
            let Some(id) = tables.id32(value as usize) else { return false };
            write_id32(id, kind == Kind::Uuid, out);
        }
        Kind::Time => {
            let Some(format) = TimeFormat::from_bits(value & ((1 << FORMAT_BITS) - 1)) else { return false };
            let zigzag = value >> FORMAT_BITS;
            let difference = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
            return times::write(format, difference, time_ns, out);
        }
        Kind::Prefixed => {
            let Some(prefix) = tables.text(cell.prefix()) else { return false };
            out.extend_from_slice(prefix);
            number(out, cell.suffix());
        }
    }
    true
}

fn padded(value: u64, width: usize, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + width, b'0');
    let mut rest = value;
    for byte in out[start..].iter_mut().rev() {
        *byte = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
}

fn write_hex(value: u64, digits: u32, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.extend((0..digits).rev().map(|at| DIGITS[(value >> (4 * at) & 15) as usize]));
}

/// The text of an id of 32 hex digits.
pub(crate) fn write_id32(id: u128, is_uuid: bool, out: &mut Vec<u8>) {
    let (high, low) = ((id >> 64) as u64, id as u64);
    if !is_uuid {
        write_hex(high, 16, out);
        write_hex(low, 16, out);
        return;
    }
    for (value, digits) in [(high >> 32, 8), (high >> 16, 4), (high, 4), (low >> 48, 4), (low, 12)] {
        write_hex(value, digits, out);
        out.push(b'-');
    }
    out.pop();
}

/// The text of an id of 16 hex digits.
pub(crate) fn write_id16(id: u64, out: &mut Vec<u8>) {
    write_hex(id, 16, out);
}
