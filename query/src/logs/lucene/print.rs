//! A query as text that reads as the same query.

use std::fmt::Write;
use std::ops::Bound;

use binnacle_model::LogTime;
use binnacle_model::log::Field;
use binnacle_model::log_query::{LogQuery, Phrase, Test, Wildcard};

use super::scanner::{is_escapable, is_name_char};

/// The query in Lucene's syntax; `None` for what the syntax cannot say, such as LogQL's tests of bytes.
pub fn print(query: &LogQuery) -> Option<String> {
    let mut out = String::new();
    push(&mut out, query)?;
    Some(out)
}

fn push(out: &mut String, query: &LogQuery) -> Option<()> {
    match query {
        LogQuery::All => out.push('*'),
        LogQuery::Value { field, test } => {
            push_field(out, field)?;
            push_test(out, test)?;
        }
        LogQuery::Exists(field) => {
            out.push_str("_exists_:");
            push_name(out, field)?;
        }
        LogQuery::Time { low, high } => {
            out.push_str("@timestamp:");
            push_range(out, low, high, |out, time: &LogTime| out.push_str(&time.to_rfc3339()));
        }
        LogQuery::And(parts) => push_all(out, parts, " AND ")?,
        LogQuery::Or(parts) => push_all(out, parts, " OR ")?,
        LogQuery::Not(part) => {
            out.push_str("NOT ");
            push(out, part)?;
        }
        LogQuery::Line(_) | LogQuery::Label(_) => return None,
    }
    Some(())
}

fn push_all(out: &mut String, parts: &[LogQuery], between: &str) -> Option<()> {
    if parts.len() < 2 {
        return None;
    }
    for (at, part) in parts.iter().enumerate() {
        out.push_str(if at == 0 { "(" } else { between });
        push(out, part)?;
    }
    out.push(')');
    Some(())
}

fn push_field(out: &mut String, field: &Field) -> Option<()> {
    push_name(out, field)?;
    out.push(':');
    Some(())
}

fn push_name(out: &mut String, field: &Field) -> Option<()> {
    let name = match field {
        Field::Message => "message",
        Field::Stream(name) => name,
        Field::Parsed(name) => name.as_str(),
    };
    let first = name.chars().next()?;
    if !(first.is_alphabetic() || matches!(first, '_' | '@') || is_escapable(first)) {
        return None;
    }
    for (at, c) in name.chars().enumerate() {
        let is_plain = is_name_char(c) && !(at == 0 && !(c.is_alphabetic() || matches!(c, '_' | '@')));
        if !is_plain {
            if !is_escapable(c) {
                return None;
            }
            out.push('\\');
        }
        out.push(c);
    }
    Some(())
}

fn push_test(out: &mut String, test: &Test) -> Option<()> {
    match test {
        Test::Phrase(phrase) => push_phrase(out, phrase),
        Test::Wildcard(wildcard) => push_wildcard(out, wildcard),
        Test::Fuzzy { word, distance } => {
            word.chars().for_each(|c| push_char(out, c));
            let _ = write!(out, "~{distance}");
        }
        Test::Regex(regex) => push_regex(out, regex.pattern())?,
        Test::Number { low, high } => push_range(out, low, high, |out, number: &f64| {
            let _ = write!(out, "{number}");
        }),
        Test::Time { low, high } => {
            push_range(out, low, high, |out, time: &LogTime| out.push_str(&time.to_rfc3339()));
        }
        Test::Ip(range) => {
            let (low, high) = range.bounds();
            let _ = write!(out, "[{low} TO {high}]");
        }
        Test::Text { low, high } => push_range(out, low, high, |out, text: &String| push_quoted(out, text)),
    }
    Some(())
}

fn push_phrase(out: &mut String, phrase: &Phrase) {
    push_quoted(out, phrase.text());
    if phrase.is_prefix() {
        out.push('*');
    }
    if phrase.slop() > 0 {
        let _ = write!(out, "~{}", phrase.slop());
    }
}

fn push_quoted(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
}

fn push_char(out: &mut String, c: char) {
    if is_escapable(c) {
        out.push('\\');
    }
    out.push(c);
}

fn push_wildcard(out: &mut String, wildcard: &Wildcard) {
    for piece in wildcard.pieces() {
        match piece {
            Ok(c) => push_char(out, c),
            Err(sign) => out.push(sign),
        }
    }
}

fn push_regex(out: &mut String, pattern: &str) -> Option<()> {
    if pattern.is_empty() || pattern.starts_with(char::is_whitespace) {
        return None;
    }
    out.push('/');
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                out.push('\\');
                out.push(chars.next()?);
            }
            '/' => out.push_str("\\/"),
            c => out.push(c),
        }
    }
    out.push('/');
    Some(())
}

fn push_range<T>(out: &mut String, low: &Bound<T>, high: &Bound<T>, push: impl Fn(&mut String, &T)) {
    out.push(if matches!(low, Bound::Excluded(_)) { '{' } else { '[' });
    for (at, bound) in [low, high].into_iter().enumerate() {
        out.push_str(if at == 0 { "" } else { " TO " });
        match bound {
            Bound::Unbounded => out.push('*'),
            Bound::Included(value) | Bound::Excluded(value) => push(out, value),
        }
    }
    out.push(if matches!(high, Bound::Excluded(_)) { '}' } else { ']' });
}
