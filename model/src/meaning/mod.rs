//! What a message says of itself: its level, its time, and its fields where it is JSON or logfmt.

mod audit;
mod level_of_json;
mod scan;
mod shape;
mod time;

use std::borrow::Cow;

use serde_json::Value;

use crate::log::FieldValue;
use crate::tokens::colour_code;

pub use self::time::{Around, time};
pub use shape::{FieldShape, Part, Shape};

/// Bounds of what is taken from one message; the message itself is kept whole.
const MAX_FIELDS: usize = 128;
const MAX_DEPTH: usize = 20;
const MAX_NAME_BYTES: usize = 256;
const MAX_TEXT_BYTES: usize = 32 * 1024;

/// Messages longer than this are not taken apart.
const MAX_PARSED_BYTES: usize = 256 * 1024;

/// How far into plain text a level may stand.
const LEVEL_WITHIN_BYTES: usize = 120;

/// Names of the field that holds the level, by rank.
const LEVEL_FIELDS: [&str; 8] =
    ["level", "severity", "lvl", "loglevel", "log.level", "levelname", "severity_text", "severityText"];

/// What a message says of itself.
#[derive(Debug, Default, PartialEq)]
pub struct Meaning {
    /// `trace debug info warn error fatal`, or empty.
    pub level: &'static str,
    /// Dotted paths, in the order of the message.
    pub fields: Vec<(String, FieldValue)>,
}

/// The fields of a message that is JSON or logfmt.
pub fn fields(message: &[u8]) -> Vec<(String, FieldValue)> {
    readable(message).map_or_else(Vec::new, |text| fields_of(without_colour(text).trim()))
}

fn readable(message: &[u8]) -> Option<&str> {
    std::str::from_utf8(message).ok().filter(|text| text.len() <= MAX_PARSED_BYTES)
}

fn fields_of(text: &str) -> Vec<(String, FieldValue)> {
    if text.starts_with('{') { json(text) } else { logfmt(text) }
}

/// Reads a message.
pub fn of(message: &[u8]) -> Meaning {
    let Some(text) = readable(message) else { return Meaning::default() };
    let plain = without_colour(text);
    let text = plain.trim();
    let fields = fields_of(text);
    let is_json = text.starts_with('{') && !fields.is_empty();
    let unnamed = || if is_json { audit::level(text).unwrap_or_default() } else { level_of_text(text) };
    let level = named_level(&fields).unwrap_or_else(unnamed);
    Meaning { level, fields }
}

/// What the best of the fields that name a level says.
fn named_level(fields: &[(String, FieldValue)]) -> Option<&'static str> {
    LEVEL_FIELDS.iter().find_map(|name| {
        let (_, value) = fields.iter().find(|(key, _)| key == name)?;
        level_of_value(value)
    })
}

/// The level that a message says, as [`of`] finds it. Costs less: of JSON nothing is built, and most other messages need
/// not be taken apart. In JSON it is found behind any number of fields.
pub fn level(message: &[u8]) -> &'static str {
    said(message).level
}

/// A level, and how a message says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Said {
    /// `trace debug info warn error fatal`, or empty.
    pub level: &'static str,
    /// Whether it stands in a place that is meant for it (a field of JSON or logfmt, klog's header), and is no mere word.
    pub is_structured: bool,
}

/// The level that a message says, as [`level`] finds it, and how it says it.
pub fn said(message: &[u8]) -> Said {
    let Some(text) = readable(message) else { return Said::default() };
    let plain = without_colour(text);
    let trimmed = plain.trim();
    let of_text = || Said { level: level_of_text(trimmed), is_structured: klog_level(trimmed).is_some() };
    if trimmed.starts_with('{') {
        let level = level_of_json::read(trimmed);
        let Some(mut level) = level else { return of_text() };
        if level.is_empty() {
            level = audit::level(trimmed).unwrap_or_default();
        }
        return Said { level, is_structured: true };
    }
    // Every name of a level's field has one of these in it.
    let names_one = ["evel", "everity", "lvl"].iter().any(|part| trimmed.contains(part));
    if names_one && let Some(level) = named_level(&fields_of(trimmed)) {
        return Said { level, is_structured: true };
    }
    of_text()
}

/// The level that a word names, whatever its case; empty if it names none.
pub fn level_named(word: &str) -> &'static str {
    if word.len() > 16 { "" } else { level_of_word(word) }
}

/// The text without a terminal's colour codes.
fn without_colour(text: &str) -> Cow<'_, str> {
    if memchr::memchr(0x1b, text.as_bytes()).is_none() {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let code = colour_code(&text.as_bytes()[at..]);
        if code > 0 {
            at += code;
            continue;
        }
        // Up to the next code, or the next escape that is none.
        let end = memchr::memchr(0x1b, &text.as_bytes()[(at + 1).min(text.len())..]);
        let end = end.map_or(text.len(), |found| at + 1 + found);
        plain.push_str(&text[at..end]);
        at = end;
    }
    Cow::Owned(plain)
}

fn level_of_value(value: &FieldValue) -> Option<&'static str> {
    match value {
        FieldValue::Text(text) => Some(level_of_word(text)).filter(|level| !level.is_empty()),
        FieldValue::Int(number) => Some(level_numbered(*number)).filter(|level| !level.is_empty()),
        FieldValue::Float(_) | FieldValue::Bool(_) => None,
    }
}

/// The level that a number names for bunyan and pino, or nothing.
pub fn level_numbered(number: i64) -> &'static str {
    match number {
        10..20 => "trace",
        20..30 => "debug",
        30..40 => "info",
        40..50 => "warn",
        50..60 => "error",
        60..70 => "fatal",
        _ => "",
    }
}

/// The level that a word names (`WARNING`, `err`), or nothing.
pub fn level_of_word(word: &str) -> &'static str {
    match word.to_ascii_lowercase().as_str() {
        "trace" | "trc" | "finest" | "finer" | "verbose" => "trace",
        "debug" | "dbg" | "debg" | "fine" => "debug",
        "info" | "inf" | "information" | "informational" | "notice" => "info",
        "warn" | "warning" | "wrn" => "warn",
        "error" | "err" | "eror" | "severe" => "error",
        "fatal" | "ftl" | "critical" | "crit" | "alert" | "emerg" | "emergency" | "panic" | "dpanic" => {
            "fatal"
        }
        _ => "",
    }
}

/// A level written as a word of its own near the beginning: `[ERROR]`, `WARN `, klog's `E1121`.
fn level_of_text(text: &str) -> &'static str {
    if let Some(level) = klog_level(text) {
        return level;
    }
    let mut end = text.len().min(LEVEL_WITHIN_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let words = text[..end].split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    // In lower case such words are prose ("no error"), unless a colon or bracket marks them.
    let shouted = words.filter(|word| word.len() > 2 && word.bytes().all(|b| b.is_ascii_uppercase()));
    let mut levels = shouted.map(level_of_word).filter(|level| !level.is_empty());
    if let Some(level) = levels.next() {
        return level;
    }
    let first = text[..end].trim_start_matches(['[', '<', '(']);
    let word: String = first.chars().take_while(char::is_ascii_alphabetic).collect();
    let after = first[word.len()..].chars().next();
    if matches!(after, Some(':' | ']' | '>' | ')')) { level_of_word(&word) } else { "" }
}

/// The level in klog's header: `E1121 20:50:57.000000`.
fn klog_level(text: &str) -> Option<&'static str> {
    let [letter @ (b'I' | b'W' | b'E' | b'F'), digits @ ..] = text.as_bytes() else { return None };
    let is_header = digits.len() > 5 && digits[..4].iter().all(u8::is_ascii_digit) && digits[4] == b' ';
    is_header.then_some(match letter {
        b'I' => "info",
        b'W' => "warn",
        b'E' => "error",
        _ => "fatal",
    })
}

fn json(text: &str) -> Vec<(String, FieldValue)> {
    let mut fields = Vec::new();
    if let Ok(Value::Object(object)) = serde_json::from_str(text) {
        for (name, value) in &object {
            flatten(name, value, 1, &mut fields);
        }
    }
    fields
}

fn flatten(name: &str, value: &Value, depth: usize, fields: &mut Vec<(String, FieldValue)>) {
    if fields.len() >= MAX_FIELDS || name.is_empty() || name.len() > MAX_NAME_BYTES {
        return;
    }
    let value = match value {
        Value::Object(object) if depth < MAX_DEPTH => {
            for (key, value) in object {
                flatten(&format!("{name}.{key}"), value, depth + 1, fields);
            }
            return;
        }
        // The values of a list are all values of its name.
        Value::Array(values) if depth < MAX_DEPTH => {
            for value in values {
                flatten(name, value, depth + 1, fields);
            }
            return;
        }
        value => match scalar(value) {
            Some(value) => value,
            None => return,
        },
    };
    fields.push((name.to_owned(), value));
}

/// The value of a field; nothing for `null`.
fn scalar(value: &Value) -> Option<FieldValue> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(value) => FieldValue::Bool(*value),
        Value::Number(number) => match number.as_i64() {
            Some(value) => FieldValue::Int(value),
            None => FieldValue::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => FieldValue::Text(cut(text)),
        Value::Object(_) | Value::Array(_) => FieldValue::Text(cut(&value.to_string())),
    })
}

fn cut(text: &str) -> String {
    let mut end = text.len().min(MAX_TEXT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// Fields of `key=value key="value"`, if the text is made of them: two at least.
fn logfmt(text: &str) -> Vec<(String, FieldValue)> {
    let raw = logfmt_raw(text, &mut |_| ()).into_iter();
    raw.map(|(key, value)| (key.to_owned(), value.typed())).collect()
}

/// A value of logfmt before anybody asks what it is.
enum Raw<'a> {
    /// Without its escapes.
    Quoted(String),
    Bare(&'a str),
}

impl Raw<'_> {
    fn typed(self) -> FieldValue {
        match self {
            Self::Quoted(text) => FieldValue::Text(cut(&text)),
            Self::Bare(word) => bare(word),
        }
    }
}

/// What a value of logfmt without quotes says.
fn bare(word: &str) -> FieldValue {
    match word {
        "true" => FieldValue::Bool(true),
        "false" => FieldValue::Bool(false),
        word if word.starts_with(|c: char| c.is_ascii_digit() || c == '-') => {
            match (word.parse::<i64>(), word.parse::<f64>()) {
                (Ok(number), _) => FieldValue::Int(number),
                (_, Ok(number)) => FieldValue::Float(number),
                _ => FieldValue::Text(cut(word)),
            }
        }
        word => FieldValue::Text(cut(word)),
    }
}

/// Keys and values; `on_other` is told of keys that are no names.
fn logfmt_raw<'a>(text: &'a str, on_other: &mut dyn FnMut(&str)) -> Vec<(&'a str, Raw<'a>)> {
    let mut fields = Vec::new();
    let mut rest = text;
    while !rest.is_empty() && fields.len() < MAX_FIELDS {
        rest = rest.trim_start();
        let end = rest.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(rest.len());
        let (key, after) = rest.split_at(end);
        let Some(value) = after.strip_prefix('=') else {
            rest = after;
            continue;
        };
        let (value, after) = logfmt_value(value);
        rest = after;
        let is_name = key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && key.len() <= MAX_NAME_BYTES
            && key.chars().all(is_of_name);
        if is_name {
            fields.push((key, value));
        } else {
            on_other(key);
        }
    }
    if fields.len() < 2 { Vec::new() } else { fields }
}

/// Whether a character may be part of a name of logfmt.
fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '/' | '@')
}

fn logfmt_value(text: &str) -> (Raw<'_>, &str) {
    if let Some(quoted) = text.strip_prefix('"') {
        let mut value = String::new();
        let mut chars = quoted.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => return (Raw::Quoted(value), &quoted[at + 1..]),
                '\\' => match chars.next() {
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, 't')) => value.push('\t'),
                    Some((_, c)) => value.push(c),
                    None => {}
                },
                c => value.push(c),
            }
        }
        return (Raw::Quoted(value), "");
    }
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    (Raw::Bare(word), rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(message: &str, level: &str, fields: &[(&str, FieldValue)]) {
        let meaning = of(message.as_bytes());
        let found: Vec<(&str, FieldValue)> =
            meaning.fields.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        assert_eq!((meaning.level, found.as_slice()), (level, fields), "{message}");
    }

    fn text(value: &str) -> FieldValue {
        FieldValue::Text(value.to_owned())
    }

    #[test]
    fn json_fields_are_paths() {
        check(
            r#"{"level":"WARN","msg":"a b","http":{"status":503,"ok":false},"tags":["x","y"],"n":null,"f":0.5}"#,
            "warn",
            &[
                ("level", text("WARN")),
                ("msg", text("a b")),
                ("http.status", FieldValue::Int(503)),
                ("http.ok", FieldValue::Bool(false)),
                ("tags", text("x")),
                ("tags", text("y")),
                ("f", FieldValue::Float(0.5)),
            ],
        );
        check(r#"{"level":50,"x":1}"#, "error", &[("level", FieldValue::Int(50)), ("x", FieldValue::Int(1))]);
        check(r#"{"broken": "#, "", &[]);
    }

    #[test]
    fn logfmt_fields_are_read() {
        check(
            r#"ts=2026-11-21T20:50:57Z level=error msg="it \"broke\"" dur=1.5 n=-3 ok=true"#,
            "error",
            &[
                ("ts", text("2026-11-21T20:50:57Z")),
                ("level", text("error")),
                ("msg", text("it \"broke\"")),
                ("dur", FieldValue::Float(1.5)),
                ("n", FieldValue::Int(-3)),
                ("ok", FieldValue::Bool(true)),
            ],
        );
        check("x=1 of many words", "", &[]);
        check("GET /a?b=c&d=e HTTP/1.1", "", &[]);
    }

    #[test]
    fn levels_of_plain_text() {
        for (message, level) in [
            ("2026-11-21 20:50:57 ERROR boom", "error"),
            ("[warn] careful", "warn"),
            ("\x1b[31m\x1b[1mERROR\x1b[0m é\x1b", "error"),
            ("12:00 \x1b[33mWARN\x1b[0m é", "warn"),
            ("error: no such file", "error"),
            ("E1121 20:50:57.000000 1 main.go:1] x", "error"),
            ("I1121 20:50:57.000000 1 main.go:1] x", "info"),
            ("there was no error at all", ""),
            ("Information desk", ""),
            ("<info> x", "info"),
            ("10.0.0.1 - - \"GET / HTTP/1.1\" 200", ""),
        ] {
            assert_eq!(of(message.as_bytes()).level, level, "{message}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_message_panics(message in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = of(&message);
        }

        #[test]
        fn a_level_alone_is_that_of_the_whole(message in "(\\{\"|\\[)?(level|lvl|severity|x)?(=|: |\":\")?(ERROR|info|warn|x)?( a=b|\"\\}|\\])?( [a-zA-Z=]{0,8})?") {
            assert_eq!(level(message.as_bytes()), of(message.as_bytes()).level, "{message}");
        }

        #[test]
        fn a_level_in_json_is_that_of_the_whole(
            members in proptest::collection::vec((
                "(level|severity|log|log\\.level|lvl|x|ERROR|)",
                proptest::sample::select(vec![
                    "\"warn\"", "\"x\"", "30", "1.5", "null", "{}", "[]", "[null]", "[\"error\",\"info\"]", "true", "\"\\u0057ARN\"",
                    "{\"a\":1,\"a\":null}", "{\"a\":[2],\"b\":3,\"a\":{}}", "{\"level\":\"error\"}", "[{\"level\":\"fatal\"}]", "{\"x\":{\"level\":\"info\"}}", "\"a", "1e", "\"INFO: x\"",
                ]),
            ), 0..5),
            end in proptest::sample::select(vec!["}", "}", "}", "} ", "", "}x", ",}"]),
        ) {
            let members: Vec<String> = members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
            let message = format!("{{{}{end}", members.join(","));
            assert_eq!(level(message.as_bytes()), of(message.as_bytes()).level, "{message}");
        }

        #[test]
        fn no_near_json_panics(message in "[{}\\[\\]\":,a-z0-9\\\\= ]{0,60}") {
            let _ = of(message.as_bytes());
        }
    }
}
