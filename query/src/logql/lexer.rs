//! From text to tokens, each with its place.

use super::parser::ParseError;
use super::units;
use crate::promql::quoted_text;

/// A token.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    Name(String),
    Text(String),
    Number(f64),
    /// Nanoseconds, as written.
    Duration(f64, String),
    /// As written.
    Bytes(f64, String),
    /// `[5m]`, in nanoseconds.
    Range(i64),
    /// `--strict`
    Flag(String),
    Sign(&'static str),
    End,
}

/// A token and where it begins.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Placed {
    pub(super) token: Token,
    pub(super) at: usize,
}

/// Longest first.
const SIGNS: [&str; 27] = [
    "|=", "|~", "|>", "!=", "!~", "!>", "=~", "==", ">=", "<=", "=", "<", ">", "+", "-", "*", "/", "%", "^",
    "(", ")", "{", "}", ",", "|", ".", "!",
];

/// Words that Loki's grammar knows, which its errors name as they are.
const WORDS: [&str; 30] = [
    "by",
    "without",
    "bool",
    "json",
    "regexp",
    "logfmt",
    "line_format",
    "label_format",
    "unwrap",
    "unpack",
    "offset",
    "pattern",
    "ip",
    "on",
    "ignoring",
    "group_left",
    "group_right",
    "decolorize",
    "drop",
    "keep",
    "or",
    "and",
    "unless",
    "rate",
    "sum",
    "topk",
    "vector",
    "label_replace",
    "count_over_time",
    "quantile_over_time",
];

impl Token {
    /// As Loki's errors name it.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Name(name) if WORDS.contains(&name.as_str()) => name.clone(),
            Self::Name(_) => "IDENTIFIER".to_owned(),
            Self::Text(_) => "STRING".to_owned(),
            Self::Number(_) => "NUMBER".to_owned(),
            Self::Duration(..) => "DURATION".to_owned(),
            Self::Bytes(..) => "BYTES".to_owned(),
            Self::Range(_) => "RANGE".to_owned(),
            Self::Flag(_) => "FUNCTION_FLAG".to_owned(),
            Self::Sign(sign) => (*sign).to_owned(),
            Self::End => "$end".to_owned(),
        }
    }
}

/// All tokens of `text`, the last of which is [`Token::End`].
pub(super) fn tokens(text: &str) -> Result<Vec<Placed>, ParseError> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let start = at;
        let token = match c {
            ' ' | '\t' | '\n' | '\r' => {
                at += 1;
                continue;
            }
            '#' => {
                at += text[at..].find('\n').unwrap_or(text.len() - at);
                continue;
            }
            '"' | '`' => {
                let (inner, end) = quoted_text(text, at).map_err(|error| {
                    let reason = if error.reason.starts_with("unterminated") {
                        "literal not terminated"
                    } else {
                        "invalid char escape"
                    };
                    ParseError::at(text, start, reason.to_owned())
                })?;
                at = end;
                Token::Text(inner)
            }
            '[' => {
                let Some(end) = text[at..].find(']') else {
                    return Err(ParseError::at(text, start, "missing closing ']' in duration".to_owned()));
                };
                let inner = text[at + 1..at + end].trim();
                at += end + 1;
                let range = units::duration_ns(inner).filter(|ns| *ns >= 1.0);
                let refuse =
                    || ParseError::at(text, start, format!("not a valid duration string: {inner:?}"));
                Token::Range(range.ok_or_else(refuse)? as i64)
            }
            '-' if is_flag(&text[at..]) => {
                let rest = &text[at + 2..];
                let length = rest.find(|c: char| !(c.is_ascii_lowercase() || c == '-')).unwrap_or(rest.len());
                at += 2 + length;
                Token::Flag(rest[..length].to_owned())
            }
            '0'..='9' | '.'
                if text[at..].starts_with(|c: char| c.is_ascii_digit()) || is_fraction(&text[at..]) =>
            {
                let (token, end) = amount(text, at)?;
                at = end;
                token
            }
            c if c == '_' || c.is_alphabetic() => {
                let rest = &text[at..];
                let length = rest.find(|c: char| !(c == '_' || c.is_alphanumeric())).unwrap_or(rest.len());
                at += length;
                Token::Name(rest[..length].to_owned())
            }
            c => {
                let sign = SIGNS.iter().find(|sign| text[at..].starts_with(**sign));
                let Some(sign) = sign else {
                    return Err(ParseError::at(text, at, format!("syntax error: unexpected {c}")));
                };
                at += sign.len();
                Token::Sign(sign)
            }
        };
        found.push(Placed { token, at: start });
    }
    found.push(Placed { token: Token::End, at: text.len() });
    Ok(found)
}

fn is_flag(text: &str) -> bool {
    text.strip_prefix("--").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()))
}

fn is_fraction(text: &str) -> bool {
    text.strip_prefix('.').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// A number, a duration or a size, and where it ends.
fn amount(text: &str, start: usize) -> Result<(Token, usize), ParseError> {
    let rest = &text[start..];
    let mut length = 0;
    let mut before = ' ';
    for (at, c) in rest.char_indices() {
        let is_exponent = matches!(c, '+' | '-') && matches!(before, 'e' | 'E') && rest[..at].len() > 1;
        if !(c.is_alphanumeric() || c == '.' || is_exponent) {
            break;
        }
        length = at + c.len_utf8();
        before = c;
    }
    let word = &rest[..length];
    let end = start + length;
    if let Ok(number) = word.parse::<f64>() {
        if !number.is_finite() {
            let reason = format!("{word:?} is out of range: numbers go up to {:e}", f64::MAX);
            return Err(ParseError::at(text, start, reason));
        }
        return Ok((Token::Number(number), end));
    }
    if let Some(hex) = word.strip_prefix("0x").and_then(|hex| u64::from_str_radix(hex, 16).ok()) {
        return Ok((Token::Number(hex as f64), end));
    }
    if let Some(ns) = units::duration_ns(word) {
        return Ok((Token::Duration(ns, word.to_owned()), end));
    }
    match units::bytes(word) {
        Some(size) => Ok((Token::Bytes(size, word.to_owned()), end)),
        None => Err(ParseError::at(
            text,
            start,
            format!("syntax error: unexpected {word:?}, no number, duration or size"),
        )),
    }
}
