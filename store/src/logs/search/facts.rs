//! What a page knows of a query's conditions before any row is looked at.

use std::ops::{Bound, RangeBounds};

use binnacle_model::LogTime;
use binnacle_model::log::{Field, loki_alias};
use binnacle_model::log_query::{LineTest, LogQuery, Phrase, Test};

use super::needle::{inner_tokens, stays_within};
use super::plan::{Plan, is_plain_equality};
use crate::logs::page::{Fuse, PageError, PageView, key_of, key_of_number, parts_with};

/// Bytes of the shortest needle of hex digits that is compared with the longest run of them among texts.
const HEX_MIN: usize = 16;

/// Names of months, as timestamps have them.
const MONTHS: &str = "/Jan/Feb/Mar/Apr/May/Jun/Jul/Aug/Sep/Oct/Nov/Dec/";

/// For each condition, some bits. Of words: the `n`th says whether word `n` may stand in a variable. Of needles: whether
/// one may. Of times: 0 no row, 1 every row, 2 some. Of the level: whether a stream has a label of its name.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) bits: Vec<u64>,
}

impl Facts {
    /// Of the conditions that some kind of stream in the page leaves open.
    pub(super) fn of(plan: &Plan, kinds: &[u16], page: &dyn PageView) -> Result<Self, PageError> {
        let is_open = |leaf: usize| kinds.iter().any(|kind| plan.signature(*kind).0.0[leaf].is_none());
        let bits = plan.leaves.iter().enumerate().map(|(at, leaf)| match &leaf.query {
            _ if !is_open(at) => Ok(0),
            LogQuery::Value { field: Field::Message, test } => match test {
                Test::Phrase(phrase) => words(phrase, page),
                Test::Regex(_) => needles(leaf.needs.as_ref().map_or(&[], |needs| &needs.one_of), page),
                _ => Ok(u64::MAX),
            },
            LogQuery::Line(LineTest::Contains(needle)) => {
                Ok(needles(std::slice::from_ref(needle), page)? | tokens(needle, page)? << 1)
            }
            LogQuery::Line(LineTest::Regex(_)) => {
                needles(leaf.needs.as_ref().map_or(&[], |needs| &needs.one_of), page)
            }
            LogQuery::Value { field: Field::Parsed(_), test } => match plain_phrase(test) {
                Some(phrase) => words(phrase, page),
                None => Ok(0),
            },
            LogQuery::Time { low, high } => Ok(times(*low, *high, page.span())),
            LogQuery::Label(matcher) if loki_alias(&matcher.name) == "level" => {
                Ok(u64::from(page.streams().iter().any(|stream| stream.get("level").is_some())))
            }
            LogQuery::Label(matcher) if is_plain_equality(matcher) => Ok(u64::from(
                words(&Phrase::new(&matcher.value), page)?.count_ones() as usize
                    >= word_count(&matcher.value),
            )),
            _ => Ok(0),
        });
        Ok(Self { bits: bits.collect::<Result<_, _>>()? })
    }
}

/// The phrase that a field must have, if a field of JSON or logfmt that has its words is in a message that has them, too,
/// unless there are escapes in it.
pub(in crate::logs) fn plain_phrase(test: &Test) -> Option<&Phrase> {
    match test {
        Test::Phrase(phrase) if phrase.words().iter().any(|word| is_plain_word(phrase, word)) => Some(phrase),
        _ => None,
    }
}

/// Whether a word of a phrase is in a field's value only if it stands in the message: numbers are written in many ways.
pub(in crate::logs) fn is_plain_word(phrase: &Phrase, word: &str) -> bool {
    if !phrase.is_prefix() {
        // What is no number as a whole is compared with no number.
        return phrase.text().parse::<f64>().is_err();
    }
    let has_letter = word.bytes().any(|byte| byte.is_ascii_lowercase() && byte != b'e');
    has_letter && word.is_ascii() && !matches!(word, "inf" | "infinity" | "nan")
}

fn times(low: Bound<LogTime>, high: Bound<LogTime>, (first, last): (LogTime, LogTime)) -> u64 {
    let range = (low, high);
    if range.contains(&first) && range.contains(&last) {
        return 1;
    }
    let begins_after = match low {
        Bound::Included(low) => low > last,
        Bound::Excluded(low) => low >= last,
        Bound::Unbounded => false,
    };
    let ends_before = match high {
        Bound::Included(high) => high < first,
        Bound::Excluded(high) => high <= first,
        Bound::Unbounded => false,
    };
    if begins_after || ends_before { 0 } else { 2 }
}

/// Words of a text, of which so many are looked at.
fn word_count(text: &str) -> usize {
    Phrase::new(text).words().len().min(63)
}

fn words(phrase: &Phrase, page: &dyn PageView) -> Result<u64, PageError> {
    let Some(filter) = page.filter()? else { return Ok(u64::MAX) };
    let mut bits = 0;
    for (at, word) in phrase.words().iter().enumerate().take(63) {
        let is_prefix = phrase.is_prefix() && at + 1 == phrase.words().len();
        bits |= u64::from(is_prefix || word_may_vary(word, filter)) << at;
    }
    Ok(bits)
}

/// Whether a word may stand in a variable of the page that the filter is of.
fn word_may_vary(word: &str, filter: &Fuse) -> bool {
    if word.bytes().all(|byte| byte.is_ascii_digit()) {
        // Small numbers, those with leading zeros and parts of timestamps are in no filter.
        let number = word.parse::<u64>().ok().filter(|_| !word.starts_with('0') && word.len() > 9);
        return number.is_none_or(|number| {
            filter.may_contain(key_of_number(number)) || filter.may_contain(key_of(word.as_bytes()))
        });
    }
    if is_of_time(word) {
        return true;
    }
    filter.may_contain(key_of(word.as_bytes()))
}

/// Whether a timestamp may have such a word: `23t10`, `345z`, `nov`.
pub(in crate::logs) fn is_of_time(word: &str) -> bool {
    let bytes = word.as_bytes();
    let is_digit = |byte: &u8| byte.is_ascii_digit();
    let is_day = bytes.len() == 5 && bytes[2] == b't' && bytes[..2].iter().chain(&bytes[3..]).all(is_digit);
    let is_zone = bytes.last() == Some(&b'z') && bytes[..bytes.len() - 1].iter().all(is_digit);
    is_day || is_zone || (word.len() == 3 && MONTHS.to_lowercase().contains(word))
}

/// Which of a needle's inner tokens a variable may be.
fn tokens(needle: &[u8], page: &dyn PageView) -> Result<u64, PageError> {
    let Some(filter) = page.filter()? else { return Ok(u64::MAX) };
    let may_vary = |(start, end): &(usize, usize)| {
        let phrase = Phrase::new(&String::from_utf8_lossy(&needle[*start..*end]));
        phrase.words().iter().all(|word| word_may_vary(word, filter))
    };
    let tokens = inner_tokens(needle);
    let bits = tokens.iter().take(62).enumerate().map(|(at, token)| u64::from(may_vary(token)) << at);
    Ok(bits.fold(0, |all, bit| all | bit))
}

fn needles(needles: &[Vec<u8>], page: &dyn PageView) -> Result<u64, PageError> {
    let mut bits = if needles.is_empty() { u64::MAX } else { 0 };
    for (at, needle) in needles.iter().enumerate() {
        let may = at >= 63 || !stays_within(needle) || needle_may_vary(needle, page)?;
        bits |= u64::from(may) << at.min(63);
    }
    Ok(bits)
}

/// Whether a needle that lies within one token may stand in a variable of the page.
fn needle_may_vary(needle: &[u8], page: &dyn PageView) -> Result<bool, PageError> {
    let is_digit = |byte: &u8| byte.is_ascii_digit();
    if may_be_of_time(needle) {
        return Ok(true);
    }
    let texts = page.texts()?;
    let is_hex = needle.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-'));
    // An id that is longer than all that looks like one among the texts need not be looked for there.
    let may_be_there = |part: &[u8]| {
        let is_short = !is_hex || part.len() < HEX_MIN || part.len() <= page.longest_hex()?;
        if !is_short {
            return Ok(false);
        }
        let finder = memchr::memmem::Finder::new(part);
        let mut parts = parts_with(page.grams()?, part, texts.bytes.len()).into_iter();
        Ok::<bool, PageError>(parts.any(|part| finder.find(&texts.bytes[part]).is_some()))
    };
    if page.has_bodies() || may_be_there(needle)? {
        return Ok(true);
    }
    // The text before a number, and what the number begins with.
    let number = needle.iter().rev().take_while(|byte| is_digit(byte)).count();
    if number > 0 && may_be_there(&needle[..needle.len() - number])? {
        return Ok(true);
    }
    if !is_hex || needle.len() > 36 {
        return Ok(false);
    }
    let is_whole = needle.len() == 36 || (needle.len() == 32 && !needle.contains(&b'-'));
    match page.filter()? {
        Some(filter) if is_whole => Ok(filter.may_contain(key_of(needle))),
        _ => Ok(true),
    }
}

/// Whether a timestamp, or a number with signs, may have the needle in it.
pub(super) fn may_be_of_time(needle: &[u8]) -> bool {
    let is_plain = |byte: &u8| {
        byte.is_ascii_digit() || matches!(byte, b'.' | b',' | b':' | b'+' | b'-' | b'/' | b' ' | b'T' | b'Z')
    };
    let letters: Vec<u8> = needle.iter().copied().filter(u8::is_ascii_alphabetic).collect();
    let is_month = letters.len() <= 3 && memchr::memmem::find(MONTHS.as_bytes(), &letters).is_some();
    needle.iter().all(|byte| is_plain(byte) || (is_month && byte.is_ascii_alphabetic()))
}
