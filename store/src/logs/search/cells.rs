//! What a condition asks of one variable: which kinds of cells may hold it, and whether one does.

use binnacle_model::log::Field;
use binnacle_model::log_query::{LineTest, LogQuery, Test};
use binnacle_model::tokens::words;

use super::facts::{is_of_time, may_be_of_time, plain_phrase};
use super::needle::stays_within_of;
use super::phrase::{Item, items};
use super::plan::Leaf;
use super::regexes::Needs;
use crate::logs::page::{PageError, PageView};
use crate::logs::split::Kind;
use crate::logs::template::Template;

/// The rows of each template of a page, once somebody wants them.
#[derive(Debug, Default)]
pub(super) struct RowsOf {
    /// Where those of each template begin in `rows`.
    starts: Vec<usize>,
    rows: Vec<u32>,
}

impl RowsOf {
    pub(super) fn fill(&mut self, page: &dyn PageView) -> Result<(), PageError> {
        if !self.starts.is_empty() {
            return Ok(());
        }
        let mut start = 0;
        for template in page.templates() {
            self.starts.push(start);
            start += template.rows as usize;
        }
        let (numbers, occurrences) = (page.template_column()?, page.occurrence_column()?);
        self.rows = vec![0; start];
        for (row, (number, occurrence)) in (0..).zip(numbers.iter().zip(occurrences)) {
            let place = self.starts[*number as usize] + *occurrence as usize;
            *self.rows.get_mut(place).ok_or(PageError::Damaged("a template with too many rows"))? = row;
        }
        Ok(())
    }

    pub(super) fn row(&self, template: u32, occurrence: usize) -> Result<usize, PageError> {
        let row = self.rows.get(self.starts[template as usize] + occurrence);
        row.map(|row| *row as usize).ok_or(PageError::Damaged("a template with too few rows"))
    }
}

/// Bits of the kinds of cells for which a condition on one variable may hold.
pub(super) fn kinds_that_may_hold(leaf: &Leaf) -> u16 {
    match &leaf.query {
        LogQuery::Line(LineTest::Contains(needle)) => kinds_with(needle),
        query if is_regex(query) => {
            needles_of(leaf).iter().fold(0, |kinds, needle| kinds | kinds_with(needle))
        }
        LogQuery::Value { test: Test::Phrase(phrase), .. } if !phrase.is_prefix() => match phrase.words() {
            [word] => kinds_with_word(word),
            _ => u16::MAX,
        },
        LogQuery::Value { test, .. } if !may_be_of_a_time(test) => !(1 << Kind::Time as u16),
        _ => u16::MAX,
    }
}

/// Bits of the kinds of cells that may have a word, which is in lower case.
pub(super) fn kinds_with_word(word: &str) -> u16 {
    // Ids are in lower case, as words are; the letters of timestamps are not.
    let may_be_time = is_of_time(word) || word.bytes().all(|byte| byte.is_ascii_digit());
    kinds_with(word.as_bytes()) & !(1 << Kind::Time as u16) | u16::from(may_be_time) << Kind::Time as u16
}

/// Whether a word of a timestamp may pass the test. Months are its longest runs of letters.
pub(super) fn may_be_of_a_time(test: &Test) -> bool {
    match test {
        Test::Wildcard(wildcard) => {
            let has_run =
                |text: &str| text.as_bytes().windows(4).any(|four| four.iter().all(u8::is_ascii_alphabetic));
            !wildcard.literals().any(has_run)
        }
        Test::Fuzzy { word, distance } => {
            let letters = word.bytes().filter(u8::is_ascii_alphabetic).count();
            let most = *distance as usize;
            letters <= most + 1 || word.len() <= most + 3
        }
        _ => true,
    }
}

/// What a cell must have one of, where that is all there is to know.
pub(super) fn needles_of(leaf: &Leaf) -> Vec<&[u8]> {
    match (&leaf.query, &leaf.needs) {
        (LogQuery::Line(LineTest::Contains(needle)), _) => vec![needle],
        (_, Some(needs)) => needs.one_of.iter().map(Vec::as_slice).collect(),
        _ => Vec::new(),
    }
}

/// Whether text that ends in a sign, with a number behind it, has one of the needles: 1 no, 2 yes, 3 it depends on the
/// number.
pub(super) fn judge_prefix(text: &[u8], needles: &[&[u8]]) -> u8 {
    if needles.iter().any(|needle| memchr::memmem::find(text, needle).is_some()) {
        return 2;
    }
    let may = |needle: &&[u8]| {
        let digits = needle.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
        digits > 0 && text.ends_with(&needle[..needle.len() - digits])
    };
    if needles.iter().any(may) { 3 } else { 1 }
}

/// The one word of a condition that no number has in it.
pub(super) fn word_without_digits(query: &LogQuery) -> Option<&str> {
    match query {
        LogQuery::Value { test: Test::Phrase(phrase), .. } if !phrase.is_prefix() => match phrase.words() {
            [word] if !word.bytes().any(|byte| byte.is_ascii_digit()) => Some(word),
            _ => None,
        },
        _ => None,
    }
}

/// As [`judge_prefix`], of a word without digits.
pub(super) fn judge_prefix_word(text: &[u8], word: &str) -> u8 {
    if text.last().is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_' || !byte.is_ascii()) {
        // The number goes on with its last word.
        return 3;
    }
    if has_word(text, word) { 2 } else { 1 }
}

/// Whether a text has a word, which is in lower case.
pub(super) fn has_word(text: &[u8], word: &str) -> bool {
    if text.is_ascii() && word.is_ascii() {
        if text.len() < word.len() {
            return false;
        }
        let Ok(text) = std::str::from_utf8(text) else { return false };
        let mut found = words(text);
        while let Some(span) = found.next_span() {
            if text[span].eq_ignore_ascii_case(word) {
                return true;
            }
        }
        return false;
    }
    words(&String::from_utf8_lossy(text)).any(|found| found.text == word)
}

/// Whether the condition is an expression over the message.
pub(super) fn is_regex(query: &LogQuery) -> bool {
    matches!(
        query,
        LogQuery::Line(LineTest::Regex(_)) | LogQuery::Value { field: Field::Message, test: Test::Regex(_) }
    )
}

/// Whether what an expression needs can only be in a variable of the template, and in one alone.
pub(super) fn may_only_vary(needs: &Needs, template: &Template) -> bool {
    let is_within = |needle: &Vec<u8>| {
        stays_within_of(needle, template)
            && !template.pieces().any(|piece| memchr::memmem::find(piece, needle).is_some())
    };
    !template.is_whole() && !needs.one_of.is_empty() && needs.one_of.iter().all(is_within)
}

/// Kinds of cells whose text may have `needle` in it.
pub(super) fn kinds_with(needle: &[u8]) -> u16 {
    let bit = |kind: Kind| 1u16 << kind as u16;
    let mut kinds = bit(Kind::Text) | bit(Kind::Prefixed) | bit(Kind::Body);
    let all = |of: fn(&u8) -> bool| needle.iter().all(of);
    if all(u8::is_ascii_digit) {
        kinds |= bit(Kind::Int) | bit(Kind::Padded);
    }
    if all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'.')) {
        kinds |= bit(Kind::Negative) | bit(Kind::Decimal) | bit(Kind::Ip);
    }
    if all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) && needle.len() <= 32 {
        kinds |= bit(Kind::Id32) | if needle.len() <= 16 { bit(Kind::Id16) } else { 0 };
    }
    if all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-')) && needle.len() <= 36 {
        kinds |= bit(Kind::Uuid);
    }
    if may_be_of_time(needle) {
        kinds |= bit(Kind::Time);
    }
    kinds
}

pub(super) fn holds_for(query: &LogQuery, text: &[u8]) -> bool {
    match query {
        LogQuery::Line(test) => test.matches(text),
        LogQuery::Value { test: Test::Phrase(phrase), .. }
            if phrase.words().len() == 1 && !phrase.is_prefix() =>
        {
            has_word(text, &phrase.words()[0])
        }
        LogQuery::Value { test, .. } => {
            let found: Vec<String> = words(&String::from_utf8_lossy(text)).map(|word| word.text).collect();
            test.of_words(&found).unwrap_or(false)
        }
        _ => false,
    }
}

/// Whether one word must be in a variable of the template if the test holds for a field of the message.
pub(super) fn is_variable_word(test: &Test, template: &Template) -> bool {
    let Some(phrase) = plain_phrase(test) else { return false };
    let [word] = phrase.words() else { return false };
    !phrase.is_prefix() && !items(template).contains(&Item::Word(word.clone()))
}

/// Whether one word decides the test, so that it holds for a message if it holds for one of its variables.
pub(super) fn is_of_one_word(test: &Test) -> bool {
    match test {
        Test::Phrase(phrase) => phrase.words().len() == 1,
        Test::Wildcard(_) | Test::Fuzzy { .. } => true,
        _ => false,
    }
}
