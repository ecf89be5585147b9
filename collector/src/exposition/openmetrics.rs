//! OpenMetrics 1.0, as `openmetricslex.l` and `openmetricsparse.go` of Prometheus read it.

use binnacle_model::Timestamp;
use memchr::memchr;

use super::lex::{Style, labels_end, metadata_name_end, series_end};
use super::text::unquoted;
use super::{Failure, Family, Line, PageExemplar, Parser, number};

impl<'a> Parser<'a> {
    pub(super) fn next_of_openmetrics(&mut self) -> Result<Option<Line<'a>>, Failure> {
        loop {
            let (page, start) = (self.page, self.at);
            match page.get(start) {
                None if self.ended || self.is_part => return Ok(None),
                None => return Err((start, "the page does not end with # EOF")),
                Some(b'#') => {
                    if let Some(line) = self.descriptor(start)? {
                        return Ok(Some(line));
                    }
                }
                Some(_) => {
                    let end = series_end(page, start, Style::OpenMetrics)?;
                    return self.rest_of_openmetrics(start, end).map(Some);
                }
            }
        }
    }

    /// Value, time and exemplar behind the series at `start..end`.
    #[inline]
    pub(super) fn rest_of_openmetrics(&mut self, start: usize, end: usize) -> Result<Line<'a>, Failure> {
        let page = self.page;
        let (value, mut at) = word(page, end, "a blank and a value were expected")?;
        let mut timestamp = None;
        if page.get(at) == Some(&b' ') && !page[at..].starts_with(b" # {") {
            let (seconds, after) = word(page, at, "a timestamp in seconds was expected")?;
            timestamp = Some(milliseconds(seconds).ok_or((at + 1, "the timestamp is no number"))?);
            at = after;
        }
        let mut exemplar = None;
        if page[at..].starts_with(b" # {") {
            let (found, after) = read_exemplar(page, at + 3)?;
            (exemplar, at) = (Some(found), after);
        }
        match page.get(at) {
            Some(b'\n') => self.at = at + 1,
            Some(_) => return Err((at, "unexpected text after the sample")),
            None => return Err((at, "the page does not end with # EOF")),
        }
        Ok(Line::Sample { series: &page[start..end], value, timestamp, exemplar, family: self.family })
    }

    /// A line of `#`: one of four words, and no comments.
    fn descriptor(&mut self, start: usize) -> Result<Option<Line<'a>>, Failure> {
        let page = self.page;
        let line = &page[start..];
        if line.starts_with(b"# EOF") {
            let rest = &line[5..];
            if !matches!(rest, b"" | b"\n") {
                return Err((start + 5, "text after # EOF"));
            }
            (self.ended, self.at) = (true, page.len());
            return Ok(None);
        }
        let keyword = line.get(..7).unwrap_or_default();
        if !matches!(keyword, b"# HELP " | b"# TYPE " | b"# UNIT ") {
            return Err((start, "# HELP, # TYPE, # UNIT or # EOF was expected"));
        }
        let name_start = start + 7;
        let name_end = metadata_name_end(page, name_start)?;
        let newline = memchr(b'\n', &page[name_end..]).map(|length| name_end + length);
        let (Some(b' '), Some(end)) = (page.get(name_end), newline) else {
            return Err((name_end, "a blank, text and the end of the line were expected"));
        };
        let text = &page[name_end + 1..end];
        let name = unquoted(&page[name_start..name_end]);
        self.at = end + 1;
        self.described(keyword, name, text).map_err(|reason| (name_end + 1, reason))
    }

    /// A name that is no UTF-8 is passed over.
    fn described(
        &mut self,
        keyword: &[u8],
        name: &'a [u8],
        text: &'a [u8],
    ) -> Result<Option<Line<'a>>, &'static str> {
        let shown = std::str::from_utf8(name).ok();
        match keyword[2] {
            b'T' => {
                let (kind, family) = kind_of(text).ok_or("unknown metric type")?;
                self.family = family;
                Ok(shown.map(|name| Line::Type(name, kind)))
            }
            b'H' => {
                let text = std::str::from_utf8(text).map_err(|_| "invalid UTF-8")?;
                Ok(shown.map(|name| Line::Help(name, text)))
            }
            _ => {
                let is_suffix = name.strip_suffix(text).is_some_and(|base| base.ends_with(b"_"));
                if !text.is_empty() && !is_suffix {
                    return Err("the unit is no suffix of the metric's name");
                }
                let unit = std::str::from_utf8(text).ok();
                Ok(shown.zip(unit).map(|(name, unit)| Line::Unit(name, unit)))
            }
        }
    }
}

fn kind_of(text: &[u8]) -> Option<(&'static str, Family)> {
    Some(match text {
        b"counter" => ("counter", Family::Plain),
        b"gauge" => ("gauge", Family::Plain),
        b"histogram" => ("histogram", Family::Histogram),
        b"gaugehistogram" => ("gaugehistogram", Family::Plain),
        b"summary" => ("summary", Family::Summary),
        b"info" => ("info", Family::Plain),
        b"stateset" => ("stateset", Family::Plain),
        b"unknown" => ("unknown", Family::Plain),
        _ => return None,
    })
}

/// The number behind one blank, and where it ends.
#[inline]
fn word(page: &[u8], at: usize, reason: &'static str) -> Result<(f64, usize), Failure> {
    let over = |b: u8| matches!(b, b' ' | b'\n');
    if page.get(at) != Some(&b' ') || page.get(at + 1).is_none_or(|b| over(*b)) {
        return Err((at, reason));
    }
    number::value(page, at + 1, over).ok_or((at + 1, "a number was expected"))
}

fn milliseconds(seconds: f64) -> Option<Timestamp> {
    seconds.is_finite().then_some(Timestamp((seconds * 1000.0) as i64))
}

/// An exemplar whose labels begin with the brace at `open`, and where it ends.
fn read_exemplar(page: &[u8], open: usize) -> Result<(PageExemplar<'_>, usize), Failure> {
    let end = labels_end(page, open, false, Style::Exemplar)?;
    let (value, mut at) = word(page, end, "a blank and the exemplar's value were expected")?;
    let mut timestamp = None;
    if page.get(at) == Some(&b' ') {
        let (seconds, after) = word(page, at, "the exemplar's time was expected")?;
        timestamp = Some(milliseconds(seconds).ok_or((at + 1, "the exemplar's time is no number"))?);
        at = after;
    }
    Ok((PageExemplar { labels: &page[open..end], value, timestamp }, at))
}
