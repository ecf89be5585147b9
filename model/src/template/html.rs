//! Escapes values by where in a page they stand, as Go's `html/template` does.
//!
//! The plain text of a template moves through the states of a page: its text, a tag, an attribute of which kind, a
//! script, a style. A value is escaped for the state that it stands in, and leaves the state as it was. Comments are left
//! out.

use std::fmt::Write;

use super::format;
use super::value::{Safe, Value};

/// What Go writes where a value would be dangerous.
const REFUSED: &str = "ZgotmplZ";

/// A state of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Text,
    Comment,
    Tag,
    Name,
    AfterName,
    BeforeValue,
    Value(Quote),
    /// `title` and `textarea`: text without tags.
    Plain,
    Script(Code),
    Style(Code),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quote {
    Double,
    Single,
    None,
}

/// Where in a script or a style.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Code {
    Plain,
    /// Inside of this quote.
    Text(char),
    Line,
    Block,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Kind {
    #[default]
    Plain,
    Url,
    Script,
    Style,
    Html,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum UrlPart {
    #[default]
    Begin,
    Path,
    Query,
}

/// Follows a page.
#[derive(Debug, Default)]
pub(super) struct Escaper {
    state: State,
    element: String,
    is_end_tag: bool,
    attribute: String,
    kind: Kind,
    url: UrlPart,
    /// Of a script or style within an attribute.
    inner: Option<Code>,
}

impl Escaper {
    /// A template's own text, without its comments; the state is then the one behind it.
    pub(super) fn text(&mut self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let length = self.step(rest, first, &mut out);
            rest = &rest[length..];
        }
        out
    }

    /// One character, or a few that belong together; answers their length.
    fn step(&mut self, rest: &str, first: char, out: &mut String) -> usize {
        match self.state {
            State::Text => return self.page_text(rest, first, out),
            State::Comment => {
                if rest.starts_with("-->") {
                    self.state = State::Text;
                    return 3;
                }
                return first.len_utf8();
            }
            State::Plain | State::Script(_) | State::Style(_) => {
                let end = format!("</{}", self.element);
                if rest.get(..end.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(&end)) {
                    out.push_str(&rest[..end.len()]);
                    self.state = State::Tag;
                    self.is_end_tag = true;
                    return end.len();
                }
                match self.state {
                    State::Script(code) => {
                        let (next, shown) = code_step(code, rest, first, true);
                        self.state = State::Script(next);
                        out.push_str(&rest[..shown]);
                        return shown;
                    }
                    State::Style(code) => {
                        let (next, shown) = code_step(code, rest, first, false);
                        self.state = State::Style(next);
                        out.push_str(&rest[..shown]);
                        return shown;
                    }
                    _ => {}
                }
            }
            State::Tag => self.tag(first),
            State::Name => match first {
                '=' => self.begin_value(),
                '>' => self.end_tag(),
                c if c.is_whitespace() => self.state = State::AfterName,
                '/' => self.state = State::Tag,
                c => self.attribute.push(c.to_ascii_lowercase()),
            },
            State::AfterName => match first {
                '=' => self.begin_value(),
                c if c.is_whitespace() => {}
                c => {
                    self.state = State::Tag;
                    self.tag(c);
                }
            },
            State::BeforeValue => match first {
                '"' => self.state = State::Value(Quote::Double),
                '\'' => self.state = State::Value(Quote::Single),
                '>' => self.end_tag(),
                c if c.is_whitespace() => {}
                c => {
                    self.state = State::Value(Quote::None);
                    self.value_step(c, rest);
                }
            },
            State::Value(Quote::Double) if first == '"' => self.state = State::Tag,
            State::Value(Quote::Single) if first == '\'' => self.state = State::Tag,
            State::Value(Quote::None) if first == '>' => self.end_tag(),
            State::Value(Quote::None) if first.is_whitespace() => self.state = State::Tag,
            State::Value(_) => self.value_step(first, rest),
        }
        out.push(first);
        first.len_utf8()
    }

    fn page_text(&mut self, rest: &str, first: char, out: &mut String) -> usize {
        if rest.starts_with("<!--") {
            self.state = State::Comment;
            return 4;
        }
        let name = rest.strip_prefix("</").or_else(|| rest.strip_prefix('<'));
        if let Some(name) = name.filter(|name| name.starts_with(|c: char| c.is_ascii_alphabetic())) {
            let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '-');
            let end = name.find(|c| !is_part(c)).unwrap_or(name.len());
            self.element = name[..end].to_ascii_lowercase();
            self.is_end_tag = rest.starts_with("</");
            self.state = State::Tag;
            let length = rest.len() - name.len() + end;
            out.push_str(&rest[..length]);
            return length;
        }
        out.push(first);
        first.len_utf8()
    }

    fn tag(&mut self, c: char) {
        match c {
            '>' => self.end_tag(),
            '/' => {}
            c if c.is_whitespace() => {}
            c => {
                self.attribute = c.to_ascii_lowercase().to_string();
                self.state = State::Name;
            }
        }
    }

    fn end_tag(&mut self) {
        self.state = match self.element.as_str() {
            _ if self.is_end_tag => State::Text,
            "script" => State::Script(Code::Plain),
            "style" => State::Style(Code::Plain),
            "title" | "textarea" => State::Plain,
            _ => State::Text,
        };
    }

    fn begin_value(&mut self) {
        self.state = State::BeforeValue;
        self.kind = kind_of(&self.attribute);
        self.url = UrlPart::Begin;
        self.inner = matches!(self.kind, Kind::Script | Kind::Style).then_some(Code::Plain);
    }

    fn value_step(&mut self, c: char, rest: &str) {
        if self.kind == Kind::Url {
            self.url = match (self.url, c) {
                (UrlPart::Query, _) | (_, '?' | '#') => UrlPart::Query,
                _ => UrlPart::Path,
            };
        }
        if let Some(code) = self.inner {
            self.inner = Some(code_step(code, rest, c, self.kind == Kind::Script).0);
        }
    }

    /// A value as it may stand where the page is now.
    pub(super) fn value(&mut self, value: &Value) -> String {
        let safe = match value {
            Value::Safe(safe, _) => Some(*safe),
            _ => None,
        };
        // What is missing is nothing in a page.
        let text = if matches!(value, Value::Missing) { String::new() } else { value.to_text() };
        match self.state {
            State::Comment => String::new(),
            State::Text if safe == Some(Safe::Html) => text,
            State::Text | State::Plain if safe.is_none() || safe == Some(Safe::Url) => html(&text),
            State::Text | State::Plain => html_again(&text),
            State::Tag | State::Name | State::AfterName => attribute_name(&text),
            State::Script(code) => script(code, value, &text),
            State::Style(code) => style(code, &text),
            State::BeforeValue => {
                self.state = State::Value(Quote::None);
                no_blanks(&self.attribute_value(value, &text, safe))
            }
            State::Value(Quote::None) => no_blanks(&self.attribute_value(value, &text, safe)),
            State::Value(_) if self.kind == Kind::Plain && safe == Some(Safe::Html) => {
                html_again(&without_tags(&text))
            }
            State::Value(_) => html(&self.attribute_value(value, &text, safe)),
        }
    }

    fn attribute_value(&mut self, value: &Value, text: &str, safe: Option<Safe>) -> String {
        match self.kind {
            Kind::Plain => text.to_owned(),
            Kind::Html => {
                if safe == Some(Safe::Html) {
                    text.to_owned()
                } else {
                    html(text)
                }
            }
            Kind::Script => script(self.inner.unwrap_or(Code::Plain), value, text),
            Kind::Style => style(self.inner.unwrap_or(Code::Plain), text),
            Kind::Url => {
                let part = self.url;
                if part == UrlPart::Begin {
                    self.url = UrlPart::Path;
                }
                match part {
                    UrlPart::Begin if safe != Some(Safe::Url) && !is_harmless(text) => format!("#{REFUSED}"),
                    UrlPart::Query if safe != Some(Safe::Url) => url(text, false),
                    _ => url(text, true),
                }
            }
        }
    }
}

/// The code's state behind `first`, and how many bytes belong to it.
fn code_step(code: Code, rest: &str, first: char, is_script: bool) -> (Code, usize) {
    let one = first.len_utf8();
    match (code, first) {
        (Code::Plain, '"' | '\'') => (Code::Text(first), one),
        (Code::Plain, '`') if is_script => (Code::Text(first), one),
        (Code::Plain, '/') if rest.starts_with("/*") => (Code::Block, 2),
        (Code::Plain, '/') if is_script && rest.starts_with("//") => (Code::Line, 2),
        (Code::Text(_), '\\') => {
            let next = rest[1..].chars().next().map_or(0, char::len_utf8);
            (code, one + next)
        }
        (Code::Text(quote), c) if c == quote => (Code::Plain, one),
        (Code::Line, '\n') => (Code::Plain, one),
        (Code::Block, '*') if rest.starts_with("*/") => (Code::Plain, 2),
        _ => (code, one),
    }
}

/// What an attribute holds, by its name.
fn kind_of(name: &str) -> Kind {
    const URLS: [&str; 18] = [
        "action",
        "archive",
        "background",
        "cite",
        "classid",
        "codebase",
        "data",
        "formaction",
        "href",
        "icon",
        "longdesc",
        "manifest",
        "ping",
        "poster",
        "profile",
        "src",
        "usemap",
        "xmlns",
    ];
    let name = name.strip_prefix("data-").unwrap_or(name);
    let name = match name.split_once(':') {
        Some(("xmlns", _)) => return Kind::Url,
        Some((_, behind)) => behind,
        None => name,
    };
    match name {
        "style" => Kind::Style,
        "srcdoc" => Kind::Html,
        _ if name.starts_with("on") => Kind::Script,
        _ if URLS.contains(&name) || ["src", "uri", "url"].iter().any(|part| name.contains(part)) => {
            Kind::Url
        }
        _ => Kind::Plain,
    }
}

fn escape(text: &str, with_ampersand: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\0' => out.push('\u{fffd}'),
            '"' => out.push_str("&#34;"),
            '&' if with_ampersand => out.push_str("&amp;"),
            '\'' => out.push_str("&#39;"),
            '+' => out.push_str("&#43;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            c => out.push(c),
        }
    }
    out
}

fn html(text: &str) -> String {
    escape(text, true)
}

/// For text that is HTML already: its entities stay.
fn html_again(text: &str) -> String {
    escape(text, false)
}

/// For a value without quotes.
fn no_blanks(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\0' => out.push_str("&#xfffd;"),
            '\t'..='\r' | ' ' | '=' | '`' | '"' | '\'' | '+' => {
                let _ = write!(out, "&#{};", u32::from(c));
            }
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            c => out.push(c),
        }
    }
    out
}

fn attribute_name(text: &str) -> String {
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let is_plain = !text.is_empty() && text.chars().all(is_name);
    if is_plain && kind_of(&text.to_ascii_lowercase()) == Kind::Plain {
        text.to_owned()
    } else {
        REFUSED.to_owned()
    }
}

fn without_tags(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        out.push_str(&rest[..at]);
        match rest[at..].find('>') {
            Some(end) => rest = &rest[at + end + 1..],
            None => return out,
        }
    }
    out + rest
}

/// A URL without a scheme, or with one that only fetches or writes.
fn is_harmless(url: &str) -> bool {
    match url.split_once(':') {
        Some((scheme, _)) if !scheme.contains('/') => {
            ["http", "https", "mailto"].iter().any(|known| scheme.eq_ignore_ascii_case(known))
        }
        _ => true,
    }
}

/// A URL, or a part of one, with what may not stand in it encoded.
fn url(text: &str, is_whole: bool) -> String {
    let mut out = String::with_capacity(text.len());
    let bytes = text.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        let is_encoded =
            || bytes.get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit));
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(*byte));
            }
            b'!' | b'#' | b'$' | b'&' | b'*' | b'+' | b',' | b'/' | b':' | b';' | b'=' | b'?' | b'@'
            | b'[' | b']'
                if is_whole =>
            {
                out.push(char::from(*byte));
            }
            b'%' if is_whole && is_encoded() => out.push('%'),
            byte => {
                let _ = write!(out, "%{byte:02x}");
            }
        }
    }
    out
}

/// A value in a script: JSON, or what may stand inside of its quotes.
fn script(code: Code, value: &Value, text: &str) -> String {
    match code {
        Code::Line | Code::Block => String::new(),
        Code::Text(_) => script_text(text),
        Code::Plain => {
            let json = format::json(&match value {
                Value::Map(..) | Value::Struct(..) | Value::List(..) | Value::Int(_) | Value::Float(_) => {
                    value.clone()
                }
                Value::Bool(_) | Value::Nil | Value::Missing => value.clone(),
                _ => Value::from(text),
            });
            let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '$'));
            // A word must not grow together with what stands beside it.
            if is_word(json.chars().next()) || is_word(json.chars().last()) {
                format!(" {json} ")
            } else {
                json
            }
        }
    }
}

fn script_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\u{c}' => out.push_str("\\f"),
            '/' => out.push_str("\\/"),
            '\\' => out.push_str("\\\\"),
            '\0' | '\u{b}' | '"' | '`' | '&' | '\'' | '+' | '<' | '>' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

/// A value in a style: a plain word or number, or text inside of quotes.
fn style(code: Code, text: &str) -> String {
    match code {
        Code::Line | Code::Block => String::new(),
        Code::Text(_) => {
            let mut out = String::with_capacity(text.len());
            for c in text.chars() {
                if c.is_alphanumeric() || matches!(c, ' ' | '-' | '_' | '.' | ',' | '#' | '%') {
                    out.push(c);
                } else {
                    let _ = write!(out, "\\{:x} ", u32::from(c));
                }
            }
            out
        }
        Code::Plain => {
            let lower = text.to_lowercase();
            let is_bad = text.contains(|c| "\0\"'()/;@[\\]`{}<>".contains(c))
                || text.contains("--")
                || lower.contains("expression")
                || lower.contains("mozbinding");
            if is_bad { REFUSED.to_owned() } else { text.to_owned() }
        }
    }
}
