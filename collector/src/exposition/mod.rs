//! Pages of metrics: the text format 0.0.4 and OpenMetrics 1.0.
//!
//! Ours, because `prometheus-parse` answers wrongly on legal pages (ADR 0002). After the lexers
//! `promlex.l` and `openmetricslex.l` of Prometheus. A line is checked every time and decoded into
//! labels only when its bytes are new: a sample is a slice of the page that names the series, a
//! value, and perhaps a time.

mod series;

use binnacle_model::Timestamp;
use memchr::{memchr, memchr2};

pub use series::decode_series;

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

/// A line of a page.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Line<'a> {
    /// One sample.
    Sample {
        /// Name and labels as they stand on the page; see [`decode_series`].
        series: &'a [u8],
        /// Its value.
        value: f64,
        /// Its time, where the page says one.
        timestamp: Option<Timestamp>,
        /// What stands for it, on a page of OpenMetrics.
        exemplar: Option<PageExemplar<'a>>,
    },
    /// `# TYPE name kind`
    Type(&'a str, &'a str),
    /// `# HELP name text`, escapes not undone.
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

/// Shows every line of `page` to `see`; stops at the first that is malformed.
pub fn parse<'a>(page: &'a [u8], format: Format, see: impl FnMut(Line<'a>)) -> Result<(), PageError> {
    let (lines, has_ended) = parse_part(page, format, 0, false, see)?;
    if format == Format::OpenMetrics && !has_ended {
        let reason = "the page does not end with # EOF";
        return Err(PageError { line: lines + 1, column: 1, reason });
    }
    Ok(())
}

/// As [`parse`], for some lines of a page, behind `before` other ones. Answers how many lines it has, and whether
/// `# EOF` has come by now.
pub fn parse_part<'a>(
    page: &'a [u8],
    format: Format,
    before: usize,
    has_ended: bool,
    mut see: impl FnMut(Line<'a>),
) -> Result<(usize, bool), PageError> {
    let mut rest = page;
    let mut number = before;
    let mut ended = has_ended;
    while !rest.is_empty() {
        number += 1;
        let end = memchr(b'\n', rest).unwrap_or(rest.len());
        let line = &rest[..end];
        rest = rest.get(end + 1..).unwrap_or_default();
        if ended {
            return Err(PageError { line: number, column: 1, reason: "text after # EOF" });
        }
        let parsed = parse_line(line, format, &mut see);
        let refuse = |(at, reason): Failure| PageError { line: number, column: at + 1, reason };
        ended = parsed.map_err(refuse)?;
    }
    Ok((number - before, ended))
}

type Failure = (usize, &'static str);

/// Answers whether the line was `# EOF`.
fn parse_line<'a>(line: &'a [u8], format: Format, see: &mut impl FnMut(Line<'a>)) -> Result<bool, Failure> {
    let start = skip_spaces(line, 0);
    match line.get(start) {
        None if format == Format::OpenMetrics => Err((0, "empty line")),
        None => Ok(false),
        Some(b'\r') if start + 1 == line.len() => Err((start, "carriage return")),
        Some(b'#') => comment(line, start, format, see),
        Some(_) => {
            sample(line, start, format, see)?;
            Ok(false)
        }
    }
}

fn skip_spaces(line: &[u8], mut at: usize) -> usize {
    while matches!(line.get(at), Some(b' ' | b'\t')) {
        at += 1;
    }
    at
}

fn comment<'a>(
    line: &'a [u8],
    start: usize,
    format: Format,
    see: &mut impl FnMut(Line<'a>),
) -> Result<bool, Failure> {
    if format == Format::OpenMetrics && line == b"# EOF" {
        return Ok(true);
    }
    let text = std::str::from_utf8(line).map_err(|error| (error.valid_up_to(), "invalid UTF-8"))?;
    let mut words = text[start + 1..].trim_start_matches([' ', '\t']).splitn(3, [' ', '\t']);
    let (keyword, name, rest) = (words.next(), words.next(), words.next());
    let Some(name) = name.map(|name| name.trim_matches('"')).filter(|name| !name.is_empty()) else {
        return Ok(false);
    };
    let rest = rest.unwrap_or_default();
    match keyword {
        Some("TYPE") => {
            let kind = rest.trim();
            let known = matches!(
                kind,
                "counter"
                    | "gauge"
                    | "histogram"
                    | "summary"
                    | "untyped"
                    | "unknown"
                    | "gaugehistogram"
                    | "info"
                    | "stateset"
            );
            if !known {
                return Err((start, "unknown metric type"));
            }
            see(Line::Type(name, if kind == "untyped" { "unknown" } else { kind }));
        }
        Some("HELP") => see(Line::Help(name, rest)),
        Some("UNIT") => see(Line::Unit(name, rest.trim())),
        _ => {}
    }
    Ok(false)
}

fn sample<'a>(
    line: &'a [u8],
    start: usize,
    format: Format,
    see: &mut impl FnMut(Line<'a>),
) -> Result<(), Failure> {
    let end = series_end(line, start)?;
    let series = &line[start..end];
    let at = skip_spaces(line, end);
    if at == end && line.get(end - 1) != Some(&b'}') {
        return Err((end, "a blank is missing after the metric's name"));
    }
    let value_end = word_end(line, at);
    let value = parse_float(&line[at..value_end]).ok_or((at, "the value is no number"))?;
    let at = skip_spaces(line, value_end);
    let mut timestamp = None;
    let mut rest = at;
    if at < line.len() && line[at] != b'#' {
        let end = word_end(line, at);
        timestamp = Some(parse_time(&line[at..end], format).ok_or((at, "the timestamp is no number"))?);
        rest = skip_spaces(line, end);
    }
    let mut found = None;
    if rest < line.len() {
        if format == Format::Text || !line[rest..].starts_with(b"# {") {
            return Err((rest, "unexpected text after the sample"));
        }
        found = Some(exemplar(line, rest + 2)?);
    }
    see(Line::Sample { series, value, timestamp, exemplar: found });
    Ok(())
}

fn exemplar(line: &[u8], start: usize) -> Result<PageExemplar<'_>, Failure> {
    let end = labels_end(line, start, false)?;
    let labels = &line[start..end];
    let at = skip_spaces(line, end);
    let value_end = word_end(line, at);
    let value = parse_float(&line[at..value_end]).ok_or((at, "the exemplar's value is no number"))?;
    let at = skip_spaces(line, value_end);
    let mut timestamp = None;
    if at < line.len() {
        let end = word_end(line, at);
        let time = parse_time(&line[at..end], Format::OpenMetrics);
        timestamp = Some(time.ok_or((at, "the exemplar's time is no number"))?);
        if skip_spaces(line, end) < line.len() {
            return Err((end, "unexpected text after the exemplar"));
        }
    }
    Ok(PageExemplar { labels, value, timestamp })
}

fn word_end(line: &[u8], start: usize) -> usize {
    start + memchr2(b' ', b'\t', &line[start..]).unwrap_or(line.len() - start)
}

fn is_name_start(b: u8) -> bool {
    b.is_ascii_alphabetic() || b == b'_' || b == b':'
}

fn is_name_part(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_' || b == b':'
}

/// Where name and labels end.
fn series_end(line: &[u8], start: usize) -> Result<usize, Failure> {
    if line[start] == b'{' {
        return labels_end(line, start, true);
    }
    if !is_name_start(line[start]) {
        return Err((start, "a metric's name begins with a letter, an underscore or a colon"));
    }
    let mut at = start + 1;
    while line.get(at).is_some_and(|b| is_name_part(*b)) {
        at += 1;
    }
    let brace = skip_spaces(line, at);
    if line.get(brace) == Some(&b'{') { labels_end(line, brace, false) } else { Ok(at) }
}

/// Where the labels that begin with a brace at `start` end. With `named`, one quoted text without a
/// value is the metric's name and must be there.
fn labels_end(line: &[u8], start: usize, named: bool) -> Result<usize, Failure> {
    let mut at = start + 1;
    let mut needs_name = named;
    loop {
        at = skip_spaces(line, at);
        let Some(first) = line.get(at) else { return Err((at, "the labels are not closed")) };
        let name_start = at;
        match first {
            b'}' => break,
            b'"' => at = quoted_end(line, at)?,
            b if b.is_ascii_alphabetic() || *b == b'_' => {
                at += 1;
                while line.get(at).is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_') {
                    at += 1;
                }
            }
            _ => return Err((at, "a label's name was expected")),
        }
        at = skip_spaces(line, at);
        if line.get(at) == Some(&b'=') {
            at = skip_spaces(line, at + 1);
            if line.get(at) != Some(&b'"') {
                return Err((at, "a label's value must be quoted"));
            }
            at = skip_spaces(line, quoted_end(line, at)?);
        } else if needs_name && line[name_start] == b'"' {
            needs_name = false;
        } else {
            return Err((at, "a label has no value"));
        }
        match line.get(at) {
            Some(b',') => at += 1,
            Some(b'}') => break,
            _ => return Err((at, "a comma or a closing brace was expected")),
        }
    }
    if needs_name {
        return Err((start, "the metric has no name"));
    }
    Ok(at + 1)
}

/// Where the text that begins with a quote at `start` ends.
fn quoted_end(line: &[u8], start: usize) -> Result<usize, Failure> {
    let mut at = start + 1;
    loop {
        let Some(found) = line.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) else {
            return Err((start, "a quote is not closed"));
        };
        at += found;
        if line[at] == b'"' {
            let inside = &line[start + 1..at];
            if !inside.is_ascii() && std::str::from_utf8(inside).is_err() {
                return Err((start, "invalid UTF-8"));
            }
            return Ok(at + 1);
        }
        at += 2;
    }
}

/// Numbers as Go's `ParseFloat` reads them. Most are short and whole: those need no general parser.
fn parse_float(word: &[u8]) -> Option<f64> {
    if word.len() <= 15 && !word.is_empty() && word.iter().all(u8::is_ascii_digit) {
        return Some(word.iter().fold(0u64, |sum, b| sum * 10 + u64::from(b - b'0')) as f64);
    }
    let text = std::str::from_utf8(word).ok()?;
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if let Some(hex) = unsigned.strip_prefix("0x").or_else(|| unsigned.strip_prefix("0X")) {
        let value = parse_hex_float(hex)?;
        return Some(if text.starts_with('-') { -value } else { value });
    }
    // Rust reads "infinity" and "inf" in any case, as Go does; both read "nan" in any case.
    let is_signed_nan = unsigned.len() < text.len() && unsigned.eq_ignore_ascii_case("nan");
    if is_signed_nan { None } else { text.parse().ok() }
}

/// `1.8p3` of `0x1.8p3`. Go wants the exponent, and so do we.
fn parse_hex_float(text: &str) -> Option<f64> {
    let (mantissa, exponent) = text.split_once(['p', 'P'])?;
    let exponent: i32 = exponent.parse().ok()?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || digits.len() > 15 {
        return None;
    }
    let value = u64::from_str_radix(&digits, 16).ok()? as f64;
    Some(value * 2f64.powi(exponent - 4 * fraction.len() as i32))
}

fn parse_time(word: &[u8], format: Format) -> Option<Timestamp> {
    match format {
        Format::Text => std::str::from_utf8(word).ok()?.parse().ok().map(Timestamp),
        Format::OpenMetrics => {
            let seconds = parse_float(word).filter(|seconds| seconds.is_finite())?;
            Some(Timestamp((seconds * 1000.0) as i64))
        }
    }
}

#[cfg(test)]
mod tests;
