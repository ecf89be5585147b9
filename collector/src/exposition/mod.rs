//! Pages of metrics: the text format 0.0.4, OpenMetrics 1.0, and Prometheus's protobuf.
//!
//! ```text
//! bytes ─► Parser ─► Line, Line, …            text, OpenMetrics: a sample's series is a slice of the page
//!       └► protobuf::Families ─► Row, Row, …  protobuf: the same, and native histograms
//!                                 └ decode: what the bytes of a series mean, asked once per series
//! ```
//!
//! Ours, because `prometheus-parse` answers wrongly on legal pages (ADR 0002). Takes and refuses what the lexers
//! `promlex.l` and `openmetricslex.l` of Prometheus 3.5 and their parsers do, odd cases included. A line is checked every
//! time and decoded into labels only when its bytes are new: a sample is a slice of the page that names the series, a
//! value, and perhaps a time.

mod lex;
mod number;
mod openmetrics;
pub mod protobuf;
mod series;
mod text;

use binnacle_model::Timestamp;
use memchr::memchr_iter;

pub use number::format_bound;
pub use series::{decode_series, decode_typed, unescape};

/// Which rules hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Text 0.0.4: times in milliseconds.
    Text,
    /// OpenMetrics 1.0: times in seconds, exemplars, and `# EOF` at the end.
    OpenMetrics,
}

impl Format {
    /// By the content type of a page.
    pub fn of_content_type(content_type: &str) -> Self {
        if content_type.trim_start().starts_with("application/openmetrics-text") {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }
}

/// What the last `# TYPE` said, as far as it decides what a label of the following series means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Family {
    /// Labels are taken as they stand.
    #[default]
    Plain,
    /// `le` is a number: `1` and `1.0` are the same.
    Histogram,
    /// `quantile` is one.
    Summary,
}

/// A line of a page.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Line<'a> {
    /// One sample.
    Sample {
        /// Name and labels as they stand on the page; see [`decode_typed`].
        series: &'a [u8],
        /// Its value.
        value: f64,
        /// Its time, where the page says one.
        timestamp: Option<Timestamp>,
        /// What stands for it, on a page of OpenMetrics.
        exemplar: Option<PageExemplar<'a>>,
        /// Under which type it stands.
        family: Family,
    },
    /// `# TYPE name kind`
    Type(&'a str, &'a str),
    /// `# HELP name text`, escapes not undone; see [`unescape`].
    Help(&'a str, &'a str),
    /// `# UNIT name unit`
    Unit(&'a str, &'a str),
}

/// One of what a sample counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PageExemplar<'a> {
    /// Its labels in braces, as they stand on the page; see [`decode_series`].
    pub labels: &'a [u8],
    /// What was measured.
    pub value: f64,
    /// When, where the page says it.
    pub timestamp: Option<Timestamp>,
}

/// Why a page is refused, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {reason}")]
pub struct PageError {
    /// From 1.
    pub line: usize,
    /// In bytes, from 1.
    pub column: usize,
    /// What is wrong.
    pub reason: &'static str,
}

/// Where on the page, and what is wrong there.
type Failure = (usize, &'static str);

/// Shows every line of `page` to `see`; stops at the first that is malformed.
pub fn parse<'a>(page: &'a [u8], format: Format, mut see: impl FnMut(Line<'a>)) -> Result<(), PageError> {
    let mut parser = Parser::new(page, format);
    while let Some(line) = parser.next_line()? {
        see(line);
    }
    Ok(())
}

/// As [`parse`], for some whole lines of a page, behind `before` other ones. Answers how many lines it has, and whether
/// `# EOF` has come by now.
pub fn parse_part<'a>(
    page: &'a [u8],
    format: Format,
    before: usize,
    has_ended: bool,
    mut see: impl FnMut(Line<'a>),
) -> Result<(usize, bool), PageError> {
    let placed = |error: PageError| PageError { line: error.line + before, ..error };
    let mut parser = Parser { is_part: true, ended: has_ended, ..Parser::new(page, format) };
    if has_ended && !page.is_empty() {
        return Err(placed(parser.error((0, "text after # EOF"))));
    }
    while let Some(line) = parser.next_line().map_err(placed)? {
        see(line);
    }
    if parser.at < page.len() {
        return Err(placed(parser.error((parser.at, "a line begins with a NUL"))));
    }
    let ends_open = page.last().is_some_and(|last| *last != b'\n');
    Ok((memchr_iter(b'\n', page).count() + usize::from(ends_open), parser.ended))
}

/// Reads a page line by line.
#[derive(Debug)]
pub struct Parser<'a> {
    page: &'a [u8],
    format: Format,
    at: usize,
    family: Family,
    /// Whether `# EOF` has come.
    ended: bool,
    /// Whether more of the page follows, so that an end without `# EOF` is none.
    is_part: bool,
}

impl<'a> Parser<'a> {
    /// Of a whole page.
    pub fn new(page: &'a [u8], format: Format) -> Self {
        Self { page, format, at: 0, family: Family::Plain, ended: false, is_part: false }
    }

    /// The next line that says something; `None` at the end of the page.
    pub fn next_line(&mut self) -> Result<Option<Line<'a>>, PageError> {
        let line = match self.format {
            Format::Text => self.next_of_text(),
            Format::OpenMetrics => self.next_of_openmetrics(),
        };
        line.map_err(|failure| self.error(failure))
    }

    /// As [`Self::next_line`], if the next line begins with `series`, which stood on a page of this format before. To
    /// compare bytes is all that has to be done about the series then.
    #[inline]
    pub fn next_if(&mut self, series: &[u8]) -> Result<Option<Line<'a>>, PageError> {
        let end = self.at + series.len();
        // A name alone may go on, or have labels behind a blank: the parser must look.
        let is_same = self.page.get(self.at..end) == Some(series);
        if !is_same || (series.last() != Some(&b'}') && self.name_goes_on(end)) {
            return Ok(None);
        }
        let start = self.at;
        let line = match self.format {
            Format::Text => self.rest_of_text(start, end),
            Format::OpenMetrics => self.rest_of_openmetrics(start, end),
        };
        line.map(Some).map_err(|failure| self.error(failure))
    }

    fn name_goes_on(&self, end: usize) -> bool {
        let next = lex::skip_blanks(self.page, end);
        self.page.get(next) == Some(&b'{')
            || (next == end && self.page.get(end).is_some_and(|b| lex::is_name_part(*b)))
    }

    fn error(&self, (at, reason): Failure) -> PageError {
        let before = &self.page[..at.min(self.page.len())];
        let line_start = memchr::memrchr(b'\n', before).map_or(0, |newline| newline + 1);
        PageError { line: 1 + memchr_iter(b'\n', before).count(), column: at - line_start + 1, reason }
    }
}

#[cfg(test)]
mod tests;
