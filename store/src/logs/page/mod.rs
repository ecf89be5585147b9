//! Pages: some 64,000 log lines as columns.
//!
//! ```text
//! push ─► OpenPage ─(full)─► seal ─► bytes ─► SealedPage
//!            └────────── PageView ─────────────────┘      what a search sees of either
//!
//! row       time, stream, file, offset, push        in a sealed page ordered by stream and file
//! template  constant text; rows that have it        which template a row has is a column, too
//! cells     a column per hole of a template         see [`super::split`]
//! tables    the page's texts, ids and bodies        cells refer to them by number; see [`prose`] for bodies
//! uses      for each text the holes that have it    what a search may pass over
//! filter    hashes of all words in variables        says surely that a word is in none
//! ```
//!
//! Invariants:
//! - A message comes back byte for byte.
//! - A sealed page needs nothing but itself to be read, and never changes.
//! - Whatever the bytes of a page are, reading them ends in an answer or an error.

mod attributes;
mod bodies;
mod cells;
mod fuse;
mod fuzzing;
mod grams;
mod ints;
mod keys;
mod numbered;
mod open;
mod prose;
mod reader;
mod rewrite;
mod seal;
mod sealed;
mod shared;
mod tables;
mod uses;

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use binnacle_model::log::{FieldValue, FileId, LEVELS, LogEntry, Origin};
use binnacle_model::{Labels, LogTime};

pub(crate) use fuse::{Fuse, Layout, arrange, key_of};
#[doc(hidden)]
pub use fuzzing::try_log_page;
pub(crate) use grams::{Grams, parts_with};
pub(crate) use numbered::{NumberSet, Numbered};
pub(crate) use open::{Miner, OpenPage, PAGE_MAX_BYTES, PAGE_MAX_ROWS, offset_of};
#[doc(hidden)]
pub use prose::PackedTexts;
pub(crate) use reader::PageReader;
pub(crate) use rewrite::rewrite;
pub(crate) use seal::{MINUTE_NS, key_of_number, seal};
pub(crate) use sealed::{SealedPage, Source};
pub(crate) use shared::Shared;
pub(crate) use tables::{Folded, Texts, has_escape};
pub(crate) use uses::{HoleNumber, IDS, TEXTS, Uses, slot_of};

use super::split::{Cell, Lookup, decode};
use super::template::{Template, ValueKind};

/// Why a page could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PageError {
    /// The disk refused.
    #[error("cannot read a log page")]
    Read(#[from] io::Error),
    /// The bytes contradict the format.
    #[error("a log page is damaged: {0}")]
    Damaged(&'static str),
}

/// Entries of one template in one minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Minute {
    /// Since 1970.
    pub(crate) at: i64,
    pub(crate) rows: u32,
    /// Of their messages.
    pub(crate) bytes: u64,
}

/// A template as a page has it.
#[derive(Debug, Clone)]
pub(crate) struct PageTemplate {
    pub(crate) template: Arc<Template>,
    pub(crate) rows: u32,
    /// Of the messages.
    pub(crate) bytes: u64,
    /// Ascending; empty in an open page.
    pub(crate) minutes: Vec<Minute>,
    /// The same for equal templates of all sealed pages, as long as the process runs; none in an open page.
    pub(crate) number: Option<u32>,
}

/// What every search asks of the templates of a page, each by its place in `templates`: close together, for there are
/// thousands of them in each page.
#[derive(Debug, Default)]
pub(crate) struct Brief {
    /// See [`PageTemplate::number`].
    pub(crate) numbers: Numbered,
    /// The streams of the page, by their numbers among those of all pages.
    pub(crate) streams: Numbered,
    pub(crate) rows: Vec<u32>,
    pub(crate) levels: Vec<u8>,
    /// Bits of the kinds of all cells; and of those of all templates.
    pub(crate) kinds: Vec<u16>,
    pub(crate) any_kinds: u16,
    /// The first template of each level that there is, and the rows of all of them.
    pub(crate) by_level: Vec<(u32, u64)>,
    /// Names of the attributes of any of them.
    pub(crate) attributes: BTreeSet<Arc<str>>,
}

impl Brief {
    fn push(&mut self, template: &PageTemplate, kinds: u16) {
        let level = template.template.level;
        match self.by_level.iter_mut().find(|(first, _)| self.levels[*first as usize] == level) {
            Some((_, rows)) => *rows += u64::from(template.rows),
            None => self.by_level.push((self.levels.len() as u32, u64::from(template.rows))),
        }
        self.any_kinds |= kinds;
        self.rows.push(template.rows);
        self.levels.push(template.template.level);
        self.kinds.push(kinds);
        for (name, _) in &*template.template.attributes {
            if !self.attributes.contains(name) {
                self.attributes.insert(Arc::clone(name));
            }
        }
    }
}

/// What a search sees of a page. What is a column has an element for each row.
pub(crate) trait PageView {
    fn rows(&self) -> usize;
    /// The first and the last moment.
    fn span(&self) -> (LogTime, LogTime);
    fn templates(&self) -> &[PageTemplate];
    /// `None` in an open page.
    fn brief(&self) -> Option<&Brief> {
        None
    }
    fn streams(&self) -> &[Labels];
    fn files(&self) -> &[FileId];
    /// When each push was received.
    fn pushes(&self) -> &[LogTime];
    /// A number in `templates`.
    fn template_column(&self) -> Result<&[u32], PageError>;
    /// The same in half of the memory, where that is enough and the page is sealed.
    fn short_template_column(&self) -> Result<Option<&[u16]>, PageError> {
        Ok(None)
    }
    /// The how-maniest row of its template it is.
    fn occurrence_column(&self) -> Result<&[u32], PageError>;
    /// Nanoseconds.
    fn time_column(&self) -> Result<&[i64], PageError>;
    /// Streams and how many rows they have, one behind the other, where rows are ordered by stream.
    fn runs(&self) -> Option<Vec<(u32, usize)>> {
        None
    }
    /// Bytes of the messages of each of `streams`; `None` in a page of an earlier release.
    fn bytes_by_stream(&self) -> Result<Option<Vec<u64>>, PageError>;
    /// A number in `streams`.
    fn stream_column(&self) -> &[u32];
    /// A number in `files`.
    fn file_column(&self) -> &[u32];
    fn offset_column(&self) -> Result<&[u64], PageError>;
    /// A number in `pushes`.
    fn push_column(&self) -> Result<&[u32], PageError>;
    /// The cells of a hole of a template, one for each of its rows.
    fn cells(&self, template: usize, hole: usize) -> Result<&[u64], PageError>;
    /// Bits of the kinds of all cells of a template.
    fn all_kinds(&self, _template: usize) -> u16 {
        u16::MAX
    }
    /// Bits of the kinds of these cells, before they are read.
    fn kinds(&self, template: usize, hole: usize) -> u16;
    fn tables(&self) -> Result<&dyn Lookup, PageError>;
    /// The texts among the tables.
    fn texts(&self) -> Result<&Texts, PageError>;
    /// Which variables have each of the texts; `None` in an open page, and in one of an earlier release.
    fn uses(&self) -> Result<Option<(&Uses, &Folded)>, PageError> {
        Ok(None)
    }
    /// The holes that have the id of this number among those of 16 (or else 32) digits; `None` as before.
    fn holes_of_id(&self, _number: u32, _is_16: bool) -> Result<Option<Vec<HoleNumber>>, PageError> {
        Ok(None)
    }
    /// Where bytes may be among the texts; `None` in an open page, and in one that few searches have looked at.
    fn grams(&self) -> Result<Option<&Grams>, PageError> {
        Ok(None)
    }
    /// Bytes of the longest run of hex digits in lower case and dashes among the texts.
    fn longest_hex(&self) -> Result<usize, PageError> {
        Ok(usize::MAX)
    }
    /// Whether there is text that is in no other table.
    fn has_bodies(&self) -> bool;
    /// Ids of 16 and of 32 hex digits.
    fn ids(&self) -> Result<(&[u64], &[u128]), PageError>;
    /// `None` in an open page, where everything has to be looked at.
    fn filter(&self) -> Result<Option<&Fuse>, PageError>;
}

const DAMAGED_CELL: PageError = PageError::Damaged("a variable that leads nowhere");

/// The message of the `occurrence`th row of a page's template, behind what is in `out`.
pub(crate) fn rebuild(
    page: &dyn PageView,
    number: usize,
    occurrence: usize,
    time_ns: i64,
    out: &mut Vec<u8>,
) -> Result<(), PageError> {
    let template = &*page.templates()[number].template;
    let tables = page.tables()?;
    let mut at = 0;
    for (hole, cut) in template.cuts.iter().enumerate() {
        out.extend_from_slice(&template.text[at..*cut as usize]);
        at = *cut as usize;
        let cell = page.cells(number, hole)?.get(occurrence).ok_or(DAMAGED_CELL)?;
        if !decode(Cell(*cell), tables, time_ns, out) {
            return Err(DAMAGED_CELL);
        }
    }
    out.extend_from_slice(&template.text[at..]);
    Ok(())
}

/// The attributes of the `occurrence`th row of a page's template.
fn attributes(
    page: &dyn PageView,
    number: usize,
    occurrence: usize,
    time_ns: i64,
) -> Result<Vec<(String, FieldValue)>, PageError> {
    let template = &*page.templates()[number].template;
    let tables = page.tables()?;
    let one = |(at, (name, kind)): (usize, &(Arc<str>, ValueKind))| {
        let cells = page.cells(number, template.cuts.len() + at)?;
        let cell = cells.get(occurrence).ok_or(DAMAGED_CELL)?;
        Ok((name.to_string(), attribute(*kind, Cell(*cell), tables, time_ns)?))
    };
    template.attributes.iter().enumerate().map(one).collect()
}

/// The minute in which each template of a page was there first, since 1970.
pub(crate) fn first_minutes(page: &dyn PageView, sealed: Option<&SealedPage>) -> Result<Vec<i64>, PageError> {
    let templates = page.templates();
    if sealed.is_some_and(SealedPage::has_minutes) {
        let first = |one: &PageTemplate| one.minutes.first().map_or(i64::MAX, |minute| minute.at);
        return Ok(templates.iter().map(first).collect());
    }
    let mut first = vec![i64::MAX; templates.len()];
    for (template, time) in page.template_column()?.iter().zip(page.time_column()?) {
        let own = &mut first[*template as usize];
        *own = time.div_euclid(MINUTE_NS).min(*own);
    }
    Ok(first)
}

/// An attribute's value.
pub(crate) fn attribute(
    kind: ValueKind,
    cell: Cell,
    tables: &dyn Lookup,
    time_ns: i64,
) -> Result<FieldValue, PageError> {
    let mut text = Vec::new();
    if !decode(cell, tables, time_ns, &mut text) {
        return Err(DAMAGED_CELL);
    }
    let plain =
        || String::from_utf8(text.clone()).map_err(|_| PageError::Damaged("an attribute that is no text"));
    Ok(match kind {
        ValueKind::Text => FieldValue::Text(plain()?),
        ValueKind::Int => FieldValue::Int(
            plain()?.parse().map_err(|_| PageError::Damaged("an attribute that is no number"))?,
        ),
        ValueKind::Float => {
            let bits = text.first_chunk::<8>().ok_or(PageError::Damaged("an attribute that is no number"))?;
            FieldValue::Float(f64::from_le_bytes(*bits))
        }
        ValueKind::Bool => FieldValue::Bool(text == b"1"),
    })
}

/// The level's name.
pub(crate) fn level_name(level: u8) -> &'static str {
    if level == 0 { "" } else { LEVELS.get(usize::from(level) - 1).copied().unwrap_or("") }
}

/// The level's number, zero for none.
pub(crate) fn level_number(name: &str) -> u8 {
    LEVELS.iter().position(|level| *level == name).map_or(0, |at| at as u8 + 1)
}

/// The entry of a row.
pub(crate) fn entry(page: &dyn PageView, row: usize) -> Result<LogEntry, PageError> {
    let number = page.template_column()?[row] as usize;
    let occurrence = page.occurrence_column()?[row] as usize;
    let time = page.time_column()?[row];
    let template = &page.templates()[number].template;
    let mut message = Vec::new();
    rebuild(page, number, occurrence, time, &mut message)?;
    Ok(LogEntry {
        time: LogTime(time),
        received: page.pushes()[page.push_column()?[row] as usize],
        stream: page.streams()[page.stream_column()[row] as usize].clone(),
        level: level_name(template.level).to_owned(),
        message,
        attributes: attributes(page, number, occurrence, time)?,
        origin: Origin {
            file: page.files()[page.file_column()[row] as usize].clone(),
            offset: page.offset_column()?[row],
        },
    })
}

#[cfg(test)]
pub(in crate::logs) mod tests;
