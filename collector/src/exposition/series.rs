//! A series as a page writes it, as labels.

use std::borrow::Cow;

use binnacle_model::labels::{LabelsError, METRIC_NAME};

use super::Family;
use super::number::{format_bound, parse_float};

/// As [`decode_typed`], for lines that stand under no type: what they belong to is guessed by their names.
pub fn decode_series(raw: &[u8]) -> Result<Vec<(String, String)>, LabelsError> {
    let mut pairs = pairs_of(raw.trim_ascii_start())?;
    let name = pairs.iter().find(|(name, _)| name == METRIC_NAME);
    let is_bucket = name.is_some_and(|(_, value)| value.ends_with("_bucket"));
    if is_bucket {
        normalise(&mut pairs, Family::Histogram);
    }
    normalise(&mut pairs, Family::Summary);
    Ok(pairs)
}

/// The pairs of a series, the name among them, in the page's order; `raw` passed the page's check.
///
/// Bounds of buckets and quantiles are written as OpenMetrics writes numbers (`1` as `1.0`), as
/// Prometheus does since 3.0, so that sources that differ in this meet in one series.
pub fn decode_typed(raw: &[u8], family: Family) -> Result<Vec<(String, String)>, LabelsError> {
    let mut pairs = pairs_of(raw)?;
    normalise(&mut pairs, family);
    Ok(pairs)
}

fn normalise(pairs: &mut [(String, String)], family: Family) {
    let label = match family {
        Family::Plain => return,
        Family::Histogram => "le",
        Family::Summary => "quantile",
    };
    for (_, value) in pairs.iter_mut().filter(|(name, _)| name == label) {
        if let Some(number) = parse_float(value.as_bytes()) {
            *value = format_bound(number);
        }
    }
}

fn pairs_of(raw: &[u8]) -> Result<Vec<(String, String)>, LabelsError> {
    let text = std::str::from_utf8(raw).map_err(|error| LabelsError::Malformed(error.to_string()))?;
    let mut pairs = Vec::new();
    let brace = text.find('{').unwrap_or(text.len());
    let name = text[..brace].trim_end_matches([' ', '\t']);
    if !name.is_empty() {
        pairs.push((METRIC_NAME.to_owned(), name.to_owned()));
    }
    let mut rest = text[brace..].trim_start_matches('{');
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() || rest.starts_with('}') {
            break;
        }
        let before = rest.len();
        let (name, after) = name_of(rest);
        if after.len() == before {
            return Err(LabelsError::Malformed("a label's name was expected".to_owned()));
        }
        rest = after.trim_start_matches([' ', '\t']);
        let Some(value) = rest.strip_prefix('=') else {
            pairs.push((METRIC_NAME.to_owned(), name.into_owned()));
            continue;
        };
        let (value, after) = quoted(value.trim_start_matches([' ', '\t']));
        rest = after;
        pairs.push((name.into_owned(), value.into_owned()));
    }
    Ok(pairs)
}

fn name_of(text: &str) -> (Cow<'_, str>, &str) {
    if text.starts_with('"') {
        return quoted(text);
    }
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len());
    (Cow::Borrowed(&text[..end]), &text[end..])
}

/// The text between the quotes at the beginning, escapes undone, and what follows.
fn quoted(text: &str) -> (Cow<'_, str>, &str) {
    let inside = text.strip_prefix('"').unwrap_or(text);
    let mut escaped = false;
    let mut has_escape = false;
    let end = inside.bytes().position(|b| {
        let ends = b == b'"' && !escaped;
        escaped = (b == b'\\' && !escaped) || (escaped && b == 0);
        has_escape |= escaped;
        ends
    });
    let end = end.unwrap_or(inside.len());
    let after = inside.get(end + 1..).unwrap_or_default();
    let raw = &inside[..end];
    (if has_escape { Cow::Owned(unescape(raw)) } else { Cow::Borrowed(raw) }, after)
}

/// Undoes `\\`, `\"` and `\n`; any other escape stands for itself.
pub fn unescape(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    let mut chars = raw.chars();
    while let Some(c) = chars.next() {
        match (c, if c == '\\' { chars.next() } else { None }) {
            ('\\', Some('n')) => out.push('\n'),
            ('\\', Some(c @ ('\\' | '"'))) => out.push(c),
            ('\\', Some(other)) => out.extend(['\\', other]),
            (c, _) => out.push(c),
        }
    }
    out
}
