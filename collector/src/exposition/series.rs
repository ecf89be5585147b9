//! A series as a page writes it, as labels.

use std::borrow::Cow;

use binnacle_model::labels::{LabelsError, METRIC_NAME};

/// The pairs of a series, the name among them, in the page's order; `raw` passed the page's check.
///
/// Bounds of buckets and quantiles are written as OpenMetrics writes numbers (`1` as `1.0`), as
/// Prometheus does since 3.0, so that sources that differ in this meet in one series.
pub fn decode_series(raw: &[u8]) -> Result<Vec<(String, String)>, LabelsError> {
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
        let (name, after) = name_of(rest);
        rest = after.trim_start_matches([' ', '\t']);
        let Some(value) = rest.strip_prefix('=') else {
            pairs.push((METRIC_NAME.to_owned(), name.into_owned()));
            continue;
        };
        let (value, after) = quoted(value.trim_start_matches([' ', '\t']));
        rest = after;
        pairs.push((name.into_owned(), value.into_owned()));
    }
    normalise_bounds(&mut pairs);
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
        escaped = b == b'\\' && !escaped;
        has_escape |= escaped;
        ends
    });
    let end = end.unwrap_or(inside.len());
    let after = inside.get(end + 1..).unwrap_or_default();
    let raw = &inside[..end];
    (if has_escape { Cow::Owned(unescape(raw)) } else { Cow::Borrowed(raw) }, after)
}

/// Undoes `\\`, `\"` and `\n`; any other escape stands for itself.
fn unescape(raw: &str) -> String {
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

fn normalise_bounds(pairs: &mut [(String, String)]) {
    let name = pairs.iter().find(|(name, _)| name == METRIC_NAME);
    let is_bucket = name.is_some_and(|(_, value)| value.ends_with("_bucket"));
    for (name, value) in pairs.iter_mut() {
        if (name == "le" && is_bucket) || name == "quantile" {
            let parsed = super::parse_float(value.as_bytes());
            if let Some(number) = parsed.filter(|number| number.is_finite()) {
                let text = number.to_string();
                let small = number == 0.0 || (1e-4..1e15).contains(&number.abs());
                if small {
                    *value = if text.contains('.') { text } else { text + ".0" };
                }
            }
        }
    }
}
