//! Variables: which kinds of cells may hold some bytes, and which rows of a page are those of a template.

use binnacle_model::log::Field;
use binnacle_model::log_query::{LineTest, LogQuery, Test};
use binnacle_model::tokens::words;

use super::facts::may_be_of_time;
use super::needle::stays_within_of;
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

/// Places of a [`CellCache`]: cells are mostly asked about again soon, or not at all.
const CACHED: usize = if cfg!(test) { 16 } else { 1 << 12 };

/// What was found out about cells on behalf of probes, as far as there is a place for it: the latest ones.
#[derive(Debug, Default)]
pub(super) struct CellCache {
    /// The bits of a cell, and twice the number of the probe, and one more if it holds the probe.
    places: Vec<(u64, usize)>,
}

impl CellCache {
    fn place(probe: usize, cell: u64) -> usize {
        let hash = (cell ^ (probe as u64) << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (hash >> 32) as usize % CACHED
    }

    pub(super) fn get(&self, probe: usize, cell: u64) -> Option<bool> {
        let (known, holds) = self.places.get(Self::place(probe, cell))?;
        (*known == cell && holds / 2 == probe).then_some(holds % 2 == 1)
    }

    pub(super) fn insert(&mut self, probe: usize, cell: u64, holds: bool) {
        if self.places.is_empty() {
            // No cell of any probe.
            self.places = vec![(0, usize::MAX); CACHED];
        }
        self.places[Self::place(probe, cell)] = (cell, 2 * probe + usize::from(holds));
    }
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
