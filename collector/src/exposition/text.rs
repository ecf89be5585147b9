//! The text format 0.0.4, as `promlex.l` and `promparse.go` of Prometheus read it.
//!
//! Odd, and kept: a NUL at the beginning of a line ends the page; a value may hold newlines; between labels a comma may be
//! left out; a value may follow a name without a blank (`a-1`); blanks before a name belong to it; times before 1970 are
//! refused.

use binnacle_model::Timestamp;
use memchr::memchr;

use super::lex::{Style, metadata_name_end, series_end, skip_blanks};
use super::{Failure, Family, Line, Parser, number};

impl<'a> Parser<'a> {
    pub(super) fn next_of_text(&mut self) -> Result<Option<Line<'a>>, Failure> {
        loop {
            let line = self.at;
            let start = skip_blanks(self.page, line);
            self.at = start;
            match self.page.get(start) {
                None | Some(0) => return Ok(None),
                Some(b'\n') => self.at = start + 1,
                Some(b'#') => {
                    if let Some(line) = self.comment(start)? {
                        return Ok(Some(line));
                    }
                }
                Some(_) => {
                    let end = series_end(self.page, start, Style::Text)?;
                    // Blanks before a name are part of it.
                    let start = if self.page[start] == b'{' { start } else { line };
                    return self.rest_of_text(start, end).map(Some);
                }
            }
        }
    }

    /// Value and time behind the series at `start..end`.
    #[inline]
    pub(super) fn rest_of_text(&mut self, start: usize, end: usize) -> Result<Line<'a>, Failure> {
        let page = self.page;
        let at = skip_blanks(page, end);
        let over = |b: u8| matches!(b, b' ' | b'\t' | b'\n' | b'{');
        if page.get(at).is_none_or(|b| over(*b)) {
            return Err((at, "a value was expected"));
        }
        let (value, mut at) = number::value(page, at, over).ok_or((at, "the value is no number"))?;
        let mut timestamp = None;
        if !matches!(page.get(at), None | Some(b'\n')) {
            at = skip_blanks(page, at);
            let digits = page[at..].iter().take_while(|b| b.is_ascii_digit()).count();
            if digits > 0 {
                timestamp =
                    Some(milliseconds(&page[at..at + digits]).ok_or((at, "the timestamp is too large"))?);
                at = skip_blanks(page, at + digits);
            }
            if !matches!(page.get(at), None | Some(b'\n')) {
                return Err((at, "a timestamp in milliseconds or the end of the line was expected"));
            }
        }
        self.at = (at + 1).min(page.len());
        Ok(Line::Sample { series: &page[start..end], value, timestamp, exemplar: None, family: self.family })
    }

    fn comment(&mut self, start: usize) -> Result<Option<Line<'a>>, Failure> {
        let page = self.page;
        let at = skip_blanks(page, start + 1);
        let end = memchr(b'\n', &page[at..]).map_or(page.len(), |length| at + length);
        let text = &page[at..end];
        let has_blank = at > start + 1;
        if has_blank && text.len() > 4 && matches!(text[4], b' ' | b'\t') {
            match &text[..4] {
                b"HELP" => return self.metadata(at + 5, false),
                b"TYPE" => return self.metadata(at + 5, true),
                _ => {}
            }
        }
        let nul = if has_blank { text.first().filter(|b| **b == 0).map(|_| 0) } else { memchr(0, text) };
        self.at = nul.map_or((end + 1).min(page.len()), |nul| at + nul);
        Ok(None)
    }

    /// Behind `# TYPE ` and `# HELP `. A name that is no UTF-8 is passed over.
    fn metadata(&mut self, at: usize, is_type: bool) -> Result<Option<Line<'a>>, Failure> {
        let page = self.page;
        let start = skip_blanks(page, at);
        let name_end = metadata_name_end(page, start)?;
        let end = memchr(b'\n', &page[name_end..]).map_or(page.len(), |length| name_end + length);
        let text = page.get(name_end + 1..end).unwrap_or_default();
        self.at = (end + 1).min(page.len());
        let name = std::str::from_utf8(unquoted(&page[start..name_end])).ok();
        if !is_type {
            let text = std::str::from_utf8(text);
            let text = text.map_err(|error| (name_end + 1 + error.valid_up_to(), "invalid UTF-8"))?;
            return Ok(name.map(|name| Line::Help(name, text)));
        }
        let (kind, family) = match text {
            b"counter" => ("counter", Family::Plain),
            b"gauge" => ("gauge", Family::Plain),
            b"histogram" => ("histogram", Family::Histogram),
            b"summary" => ("summary", Family::Summary),
            b"untyped" => ("unknown", Family::Plain),
            _ => return Err((name_end + 1, "unknown metric type")),
        };
        self.family = family;
        Ok(name.map(|name| Line::Type(name, kind)))
    }
}

pub(super) fn unquoted(name: &[u8]) -> &[u8] {
    match name {
        [b'"', inside @ .., b'"'] => inside,
        name => name,
    }
}

fn milliseconds(digits: &[u8]) -> Option<Timestamp> {
    if digits.len() <= 18 {
        return Some(Timestamp(digits.iter().fold(0, |sum, b| sum * 10 + i64::from(b - b'0'))));
    }
    std::str::from_utf8(digits).ok()?.parse().ok().map(Timestamp)
}
