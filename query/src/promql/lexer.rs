//! From text to tokens, each with its place.

use std::time::Duration;

use binnacle_model::text::{foreign_byte, from_bytes};
use binnacle_model::time::parse_duration;

use super::ast::Span;
use super::parser::ParseError;

/// A token.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// A name of a metric, label, function or keyword; may hold colons.
    Name(String),
    Number(f64),
    Duration(Duration),
    Text(String),
    /// An operator or a bracket.
    Sign(&'static str),
    End,
}

/// A token and its place.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Placed {
    pub(super) token: Token,
    pub(super) span: Span,
}

/// Longest first, so that `==` is not two `=`.
const SIGNS: [&str; 27] = [
    "=~", "!~", "==", "!=", ">=", "<=", "</", ">/", "=", "<", ">", "+", "-", "*", "/", "%", "^", "(", ")",
    "{", "}", "[", "]", ",", "@", ":", ";",
];

/// All tokens of `text`, the last of which is [`Token::End`].
pub(super) fn tokens(text: &str) -> Result<Vec<Placed>, ParseError> {
    let mut found = Vec::new();
    let bytes = text.as_bytes();
    let mut at = 0;
    // Within brackets a colon divides range and step; elsewhere it is a part of a name.
    let mut bracket_depth = 0usize;
    while at < bytes.len() {
        let start = at;
        let token = match bytes[at] {
            b' ' | b'\t' | b'\n' | b'\r' => {
                at += 1;
                continue;
            }
            b'#' => {
                at += bytes[at..].iter().position(|b| *b == b'\n').unwrap_or(bytes.len() - at);
                continue;
            }
            b'"' | b'\'' | b'`' => {
                let (text, end) = string(text, at)?;
                at = end;
                Token::Text(text)
            }
            b'0'..=b'9' | b'.' => {
                let (token, end) = number_or_duration(text, at)?;
                at = end;
                token
            }
            b if b == b'_' || b.is_ascii_alphabetic() || (b == b':' && bracket_depth == 0) => {
                let is_part =
                    |b: &u8| *b == b'_' || b.is_ascii_alphanumeric() || (*b == b':' && bracket_depth == 0);
                at += bytes[at..].iter().take_while(|b| is_part(b)).count();
                Token::Name(text[start..at].to_owned())
            }
            _ => {
                let sign = SIGNS.iter().find(|sign| text[at..].starts_with(**sign));
                let Some(sign) = sign else {
                    let c = text[at..].chars().next().unwrap_or('?');
                    return Err(ParseError::new(text, at, format!("unexpected character: {c:?}")));
                };
                at += sign.len();
                match *sign {
                    "[" => bracket_depth += 1,
                    "]" => bracket_depth = bracket_depth.saturating_sub(1),
                    _ => {}
                }
                Token::Sign(sign)
            }
        };
        found.push(Placed { token, span: Span { start, end: at } });
    }
    found.push(Placed { token: Token::End, span: Span { start: text.len(), end: text.len() } });
    Ok(found)
}

fn number_or_duration(text: &str, start: usize) -> Result<(Token, usize), ParseError> {
    let bytes = text.as_bytes();
    let mut at = start;
    while at < bytes.len() {
        let b = bytes[at];
        let signed_exponent = (b == b'+' || b == b'-')
            && matches!(bytes[at - 1], b'e' | b'E')
            && at > start
            && !text[start..at].to_ascii_lowercase().starts_with("0x");
        if !(b.is_ascii_alphanumeric() || b == b'.' || b == b'_' || signed_exponent) {
            break;
        }
        at += 1;
    }
    let word = &text[start..at];
    if let Some(number) = parse_number(word) {
        return Ok((Token::Number(number), at));
    }
    match parse_duration(word) {
        Ok(duration) => Ok((Token::Duration(duration), at)),
        Err(_) => Err(ParseError::new(text, start, format!("bad number or duration syntax: {word:?}"))),
    }
}

/// The numbers that are words.
pub(super) fn named_number(word: &str) -> Option<f64> {
    match word.to_ascii_lowercase().as_str() {
        "inf" => Some(f64::INFINITY),
        "nan" => Some(f64::NAN),
        _ => None,
    }
}

/// Numbers as Go reads them: decimal, `0x…`, `Inf`, `NaN`.
pub(super) fn parse_number(word: &str) -> Option<f64> {
    let lower = word.to_ascii_lowercase();
    if let Some(hex) = lower.strip_prefix("0x") {
        return u64::from_str_radix(&hex.replace('_', ""), 16).ok().map(|number| number as f64);
    }
    if let Some(number) = named_number(&lower) {
        return Some(number);
    }
    let plain = lower.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'+' | b'-' | b'_'));
    if !plain {
        return None;
    }
    if lower.len() > 1 && lower.starts_with('0') && lower.bytes().all(|b| matches!(b, b'0'..=b'7')) {
        return i64::from_str_radix(&lower, 8).ok().map(|number| number as f64);
    }
    lower.replace('_', "").parse().ok()
}

/// The string that begins with a quote at `start`, and where it ends.
pub(crate) fn string(text: &str, start: usize) -> Result<(String, usize), ParseError> {
    let quote = text.as_bytes()[start];
    let rest = &text[start + 1..];
    if quote == b'`' {
        let end = rest.find('`');
        let end = end.ok_or_else(|| ParseError::new(text, start, "unterminated raw string".into()))?;
        return Ok((rest[..end].to_owned(), start + 1 + end + 1));
    }
    let mut out: Vec<u8> = Vec::new();
    let mut chars = rest.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\n' => break,
            c if c == char::from(quote) => return Ok((from_bytes(&out), start + 1 + at + 1)),
            '\\' => {
                let place = start + 1 + at;
                match escape(&mut chars, quote) {
                    Some(Escaped::Char(escaped)) => out.extend(escaped.encode_utf8(&mut [0; 4]).bytes()),
                    Some(Escaped::Byte(byte)) => out.push(byte),
                    None => return Err(ParseError::new(text, place, "unknown escape sequence".into())),
                }
            }
            c => out.extend(c.encode_utf8(&mut [0; 4]).bytes()),
        }
    }
    Err(ParseError::new(text, start, "unterminated quoted string".into()))
}

enum Escaped {
    Char(char),
    Byte(u8),
}

/// What a backslash and what follows mean, as in Go: `\x` and octal digits are bytes, not characters.
fn escape(chars: &mut std::str::CharIndices<'_>, quote: u8) -> Option<Escaped> {
    let letter = chars.next()?.1;
    let (mut value, digits, base) = match letter {
        'a' => return Some(Escaped::Char('\x07')),
        'b' => return Some(Escaped::Char('\x08')),
        'f' => return Some(Escaped::Char('\x0c')),
        'n' => return Some(Escaped::Char('\n')),
        'r' => return Some(Escaped::Char('\r')),
        't' => return Some(Escaped::Char('\t')),
        'v' => return Some(Escaped::Char('\x0b')),
        '\\' => return Some(Escaped::Char(letter)),
        '\'' | '"' => return (letter == char::from(quote)).then_some(Escaped::Char(letter)),
        'x' => (0, 2, 16),
        'u' => (0, 4, 16),
        'U' => (0, 8, 16),
        '0'..='7' => (letter.to_digit(8)?, 2, 8),
        _ => return None,
    };
    for _ in 0..digits {
        value = value * base + chars.next()?.1.to_digit(base)?;
    }
    if digits == 2 {
        u8::try_from(value).ok().map(Escaped::Byte)
    } else {
        char::from_u32(value).map(Escaped::Char)
    }
}

/// Whether a text may be the name of a label.
pub(super) fn is_label_name(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(|c| foreign_byte(c).is_some())
}
