//! What a value must be.

use std::net::IpAddr;
use std::ops::{Bound, RangeBounds};

use super::{LogRegex, Phrase, Wildcard};
use crate::log::FieldValue;
use crate::time::LogTime;
use crate::tokens::words;

/// A test of one value: of a message's words, of a label as a whole, or of a field.
#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    /// The words, one after the other. Of a label: the whole of it. Of a number: that number.
    Phrase(Phrase),
    /// One of the words fits; of a label, all of it.
    Wildcard(Wildcard),
    /// One of the words is so many edits away at most; of a label, all of it.
    Fuzzy {
        /// In lower case.
        word: String,
        /// One or two insertions, deletions, substitutions or swaps of neighbours.
        distance: u8,
    },
    /// The expression finds something in the text as it stands.
    Regex(LogRegex),
    /// A number between two bounds; text that is a number counts.
    Number {
        /// From here.
        low: Bound<f64>,
        /// To here.
        high: Bound<f64>,
    },
    /// A moment between two bounds: text in RFC 3339's form.
    Time {
        /// From here.
        low: Bound<LogTime>,
        /// To here.
        high: Bound<LogTime>,
    },
    /// An address in a network; the text may hold several, with or without a port.
    Ip(IpRange),
    /// Text between two bounds, which are in lower case, compared by its bytes.
    Text {
        /// From here.
        low: Bound<String>,
        /// To here.
        high: Bound<String>,
    },
}

impl Test {
    /// Whether words of a message pass; `None` if words do not decide it.
    pub fn of_words<S: AsRef<str>>(&self, found: &[S]) -> Option<bool> {
        match self {
            Self::Phrase(phrase) => Some(phrase.is_in(found)),
            Self::Wildcard(wildcard) => Some(found.iter().any(|word| wildcard.matches(word.as_ref()))),
            Self::Fuzzy { word, distance } => {
                Some(found.iter().any(|one| edit_distance_within(word, one.as_ref(), *distance)))
            }
            Self::Number { .. } | Self::Time { .. } | Self::Text { .. } => Some(false),
            Self::Regex(_) | Self::Ip(_) => None,
        }
    }

    /// Whether text passes for which words do not decide it.
    pub(super) fn of_text(&self, bytes: &[u8], text: &str) -> bool {
        match self {
            Self::Regex(regex) => regex.is_match(bytes),
            Self::Ip(range) => range.is_in(text),
            _ => false,
        }
    }

    /// Whether a label passes, which is a value as a whole.
    pub fn of_keyword(&self, value: &str) -> bool {
        match self {
            Self::Phrase(phrase) => {
                let value = value.to_lowercase();
                let text = phrase.text().to_lowercase();
                if phrase.is_prefix() { value.starts_with(&text) } else { value == text }
            }
            Self::Wildcard(wildcard) => wildcard.matches(&value.to_lowercase()),
            Self::Fuzzy { word, distance } => edit_distance_within(word, &value.to_lowercase(), *distance),
            Self::Regex(regex) => regex.is_match(value.as_bytes()),
            Self::Number { low, high } => number_of(value).is_some_and(|value| contains(*low, *high, value)),
            Self::Time { low, high } => time_of(value).is_some_and(|time| (*low, *high).contains(&time)),
            Self::Ip(range) => range.is_in(value),
            Self::Text { low, high } => {
                let value = value.to_lowercase();
                let bounds = (low.as_ref().map(String::as_str), high.as_ref().map(String::as_str));
                RangeBounds::<str>::contains(&bounds, value.as_str())
            }
        }
    }

    /// Whether a field that is text passes.
    pub fn of_text_value(&self, value: &str) -> bool {
        match self {
            // Only signs: words cannot decide it, so that the text must be the same.
            Self::Phrase(phrase) if phrase.words().is_empty() => value == phrase.text(),
            Self::Phrase(_) | Self::Wildcard(_) | Self::Fuzzy { .. } => {
                let found: Vec<String> = words(value).map(|word| word.text).collect();
                self.of_words(&found).unwrap_or(false) || self.is_whole(value)
            }
            _ => self.of_keyword(value),
        }
    }

    /// A pattern over a value with signs in it (`/api/*`) means the value as a whole.
    fn is_whole(&self, value: &str) -> bool {
        matches!(self, Self::Wildcard(_)) && self.of_keyword(value)
    }

    /// Whether a field passes.
    pub fn of_value(&self, value: &FieldValue) -> bool {
        match value {
            FieldValue::Text(text) => self.of_text_value(text),
            FieldValue::Bool(value) => self.of_text_value(if *value { "true" } else { "false" }),
            FieldValue::Int(_) | FieldValue::Float(_) => self.of_number(value),
        }
    }

    fn of_number(&self, value: &FieldValue) -> bool {
        let Some(number) = value.as_f64() else { return false };
        match self {
            Self::Number { low, high } => contains(*low, *high, number),
            Self::Phrase(phrase) if !phrase.is_prefix() => {
                phrase.text().parse::<f64>().is_ok_and(|text| number == text)
            }
            Self::Time { .. } | Self::Ip(_) | Self::Text { .. } => false,
            Self::Phrase(_) | Self::Wildcard(_) | Self::Fuzzy { .. } | Self::Regex(_) => {
                self.of_keyword(&value.to_string())
            }
        }
    }
}

fn number_of(text: &str) -> Option<f64> {
    let is_number = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.'));
    text.parse::<f64>().ok().filter(|_| is_number)
}

fn time_of(text: &str) -> Option<LogTime> {
    LogTime::parse_rfc3339(text)
}

fn contains(low: Bound<f64>, high: Bound<f64>, value: f64) -> bool {
    // Not a number is in no range, not even in one without bounds.
    !value.is_nan() && (low, high).contains(&value)
}

/// Addresses that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpRange {
    low: IpAddr,
    high: IpAddr,
}

impl IpRange {
    /// From `10.0.0.0/24`, `2001:db8::/32`, one address, or `10.0.0.1-10.0.0.9`.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some((low, high)) = text.split_once('-') {
            return Self::between(low.parse().ok()?, high.parse().ok()?);
        }
        let Some((address, bits)) = text.split_once('/') else {
            let address: IpAddr = text.parse().ok()?;
            return Some(Self { low: address, high: address });
        };
        let bits: u32 = bits.parse().ok()?;
        match address.parse().ok()? {
            IpAddr::V4(address) if bits <= 32 => {
                let mask = u32::MAX.checked_shr(bits).unwrap_or(0);
                let bits = u32::from(address);
                Some(Self { low: IpAddr::V4((bits & !mask).into()), high: IpAddr::V4((bits | mask).into()) })
            }
            IpAddr::V6(address) if bits <= 128 => {
                let mask = u128::MAX.checked_shr(bits).unwrap_or(0);
                let bits = u128::from(address);
                Some(Self { low: IpAddr::V6((bits & !mask).into()), high: IpAddr::V6((bits | mask).into()) })
            }
            _ => None,
        }
    }

    /// All from one address to another of the same kind.
    pub fn between(low: IpAddr, high: IpAddr) -> Option<Self> {
        (low.is_ipv4() == high.is_ipv4() && low <= high).then_some(Self { low, high })
    }

    /// The first address and the last one.
    pub fn bounds(self) -> (IpAddr, IpAddr) {
        (self.low, self.high)
    }

    /// Whether the address lies in it.
    pub fn contains(self, address: IpAddr) -> bool {
        address.is_ipv4() == self.low.is_ipv4() && (self.low..=self.high).contains(&address)
    }

    /// Whether one of the addresses in a text lies in it.
    pub fn is_in(self, text: &str) -> bool {
        let pieces = text.split(|c: char| !(c.is_ascii_hexdigit() || matches!(c, '.' | ':')));
        pieces.filter_map(parse_ip).any(|address| self.contains(address))
    }
}

/// An address, with a port or without.
pub fn parse_ip(text: &str) -> Option<IpAddr> {
    let text = text.trim_end_matches(['.', ':']);
    if text.len() < 3 {
        return None;
    }
    let without_port = || text.rsplit_once(':').and_then(|(address, _)| address.parse::<IpAddr>().ok());
    text.parse().ok().or_else(without_port)
}

/// Whether `a` becomes `b` by `most` edits at most: insertions, deletions, substitutions, swaps of neighbours. This is
/// the optimal string alignment distance, as Lucene's fuzzy queries have it.
pub fn edit_distance_within(a: &str, b: &str, most: u8) -> bool {
    if a == b {
        return true;
    }
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let most = usize::from(most);
    if a.len().abs_diff(b.len()) > most {
        return false;
    }
    let mut rows = [vec![0; b.len() + 1], (0..=b.len()).collect::<Vec<usize>>(), vec![0; b.len() + 1]];
    for i in 1..=a.len() {
        rows[2][0] = i;
        for j in 1..=b.len() {
            let cost = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[1][j] + 1).min(rows[2][j - 1] + 1).min(rows[1][j - 1] + cost);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[0][j - 2] + 1);
            }
            rows[2][j] = best;
        }
        if rows[2].iter().all(|distance| *distance > most) {
            return false;
        }
        rows.rotate_left(1);
    }
    rows[1][b.len()] <= most
}
