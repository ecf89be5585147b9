//! Queries in Lucene's syntax: as a tree of our own, as text in one of the ways to write it, and what they find.

use super::records::Record;
use super::words::{Held, addresses, edits, has_phrase, is_like, number, words};
use crate::differential::generate::Random;

/// A longer one is refused.
const QUERY_MAX_BYTES: usize = 16 * 1024;

/// A longer word is cut, in messages and in queries.
const WORD_MAX_BYTES: usize = binnacle_model::tokens::MAX_WORD_BYTES;

/// A condition.
#[derive(Debug, Clone)]
pub(super) enum Query {
    Leaf(Field, Test),
    Exists(Field),
    /// From here to there, the end not in it.
    Time(i64, i64),
    And(Vec<Query>),
    Or(Vec<Query>),
    Not(Box<Query>),
}

/// Where to look.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Field {
    /// No field is named, or the message by its name.
    Message(Option<&'static str>),
    /// A label that every entry may have: compared as a whole.
    Known(String),
    /// Any other.
    Named(String),
}

/// What to find there; texts are as written.
#[derive(Debug, Clone)]
pub(super) enum Test {
    Word(String),
    Phrase {
        text: String,
        slop: usize,
        is_prefix: bool,
    },
    Like(String),
    Near(String, usize),
    /// And the same as the expression of a library.
    Regex(String, regex::Regex),
    /// Bounds with whether they are in it; texts of numbers.
    Range(Option<(String, bool)>, Option<(String, bool)>),
    /// The same, of text.
    Between(String, String),
    Network {
        address: u32,
        bits: u32,
    },
}

impl Query {
    /// Whether a record is found.
    pub(super) fn finds(&self, record: &Record) -> bool {
        match self {
            Self::Leaf(field, test) => test.holds(field, record),
            Self::Exists(field) => match field {
                Field::Message(_) => !record.text.is_empty(),
                Field::Known(name) => !known(record, name).is_empty(),
                Field::Named(name) => {
                    record.labels.contains_key(name) || record.fields.iter().any(|(key, _)| key == name)
                }
            },
            Self::Time(from, to) => (*from..*to).contains(&record.time),
            Self::And(parts) => parts.iter().all(|part| part.finds(record)),
            Self::Or(parts) => parts.iter().any(|part| part.finds(record)),
            Self::Not(part) => !part.finds(record),
        }
    }
}

fn known<'r>(record: &'r Record, name: &str) -> &'r str {
    if name == "level" { &record.level } else { record.labels.get(name).map_or("", String::as_str) }
}

impl Test {
    fn holds(&self, field: &Field, record: &Record) -> bool {
        match field {
            Field::Message(_) => self.of_text(&record.text, &record.words, true),
            Field::Known(name) => {
                let value = known(record, name);
                !value.is_empty() && self.of_whole(value)
            }
            Field::Named(name) => {
                let of_label =
                    record.labels.get(name).is_some_and(|value| self.of_value(&Held::Text(value.clone())));
                of_label || record.fields.iter().any(|(key, held)| key == name && self.of_value(held))
            }
        }
    }

    fn of_value(&self, held: &Held) -> bool {
        match (held, self) {
            (Held::Number(value, shown), test) => match test {
                Self::Word(text) | Self::Phrase { text, is_prefix: false, .. } => text.parse() == Ok(*value),
                Self::Range(..) => self.has_number(*value),
                Self::Between(..) | Self::Network { .. } => false,
                _ => self.of_whole(shown),
            },
            (held, test) => {
                let text = held.shown();
                let is_whole = matches!(test, Self::Like(_) | Self::Range(..) | Self::Between(..));
                test.of_text(&text, &words(&text), false) || is_whole && test.of_whole(&text)
            }
        }
    }

    /// Of a text of several words.
    fn of_text(&self, text: &str, found: &[String], is_message: bool) -> bool {
        match self {
            Self::Word(wanted) | Self::Phrase { text: wanted, .. } if words(wanted).is_empty() => {
                is_message || text == wanted
            }
            Self::Word(wanted) => has_phrase(found, &words(wanted), 0, false),
            Self::Phrase { text: wanted, slop, is_prefix } => {
                has_phrase(found, &words(wanted), *slop, *is_prefix)
            }
            Self::Like(pattern) => found.iter().any(|word| like(pattern, word)),
            Self::Near(wanted, most) => found.iter().any(|word| edits(wanted, word) <= *most),
            Self::Regex(_, regex) => regex.is_match(text),
            Self::Network { address, bits } => {
                let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
                addresses(text).into_iter().any(|one| one & mask == address & mask)
            }
            Self::Range(..) | Self::Between(..) => false,
        }
    }

    /// Of a value as a whole.
    fn of_whole(&self, value: &str) -> bool {
        let lower = value.to_lowercase();
        match self {
            Self::Word(text) | Self::Phrase { text, is_prefix: false, .. } => lower == text.to_lowercase(),
            Self::Phrase { text, .. } => lower.starts_with(&text.to_lowercase()),
            Self::Like(pattern) => like(pattern, &lower),
            Self::Near(wanted, most) => edits(wanted, &lower) <= *most,
            Self::Range(..) => number(value).is_some_and(|value| self.has_number(value)),
            Self::Between(low, high) => low.to_lowercase() <= lower && lower < high.to_lowercase(),
            Self::Regex(..) | Self::Network { .. } => self.of_text(value, &[], false),
        }
    }

    fn has_number(&self, value: f64) -> bool {
        let Self::Range(low, high) = self else { return false };
        let over = |(text, is_in): &(String, bool)| {
            let edge: f64 = text.parse().unwrap();
            if *is_in { value >= edge } else { value > edge }
        };
        let under = |(text, is_in): &(String, bool)| {
            let edge: f64 = text.parse().unwrap();
            if *is_in { value <= edge } else { value < edge }
        };
        low.as_ref().is_none_or(over) && high.as_ref().is_none_or(under)
    }
}

fn like(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.to_lowercase().chars().collect();
    is_like(&pattern, &text.chars().collect::<Vec<_>>())
}

/// Texts of real records as conditions.
pub(super) struct Maker<'m> {
    pub(super) random: &'m mut Random,
    pub(super) records: &'m [Record],
}

impl Maker<'_> {
    fn below(&mut self, end: usize) -> usize {
        self.random.below(end as u64) as usize
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// A query that is short enough to be taken: some real lines have words of sixteen kilobytes.
    pub(super) fn query_and_text(&mut self) -> (Query, String) {
        loop {
            let query = self.query(2);
            let text = self.written(&query, 0);
            if text.len() <= QUERY_MAX_BYTES {
                return (query, text);
            }
        }
    }

    /// A query of a few conditions.
    fn query(&mut self, depth: usize) -> Query {
        if depth == 0 || self.below(3) == 0 {
            return self.leaf();
        }
        match self.below(5) {
            0 | 1 => Query::And((0..2 + self.below(2)).map(|_| self.query(depth - 1)).collect()),
            2 | 3 => Query::Or((0..2 + self.below(2)).map(|_| self.query(depth - 1)).collect()),
            _ => Query::Not(Box::new(self.query(depth - 1))),
        }
    }

    fn leaf(&mut self) -> Query {
        loop {
            let record = self.pick(self.records);
            let field = match self.below(10) {
                0..5 => Field::Message(
                    (self.below(4) == 0).then_some(["message", "msg", "log", "body"][self.below(4)]),
                ),
                5 | 6 => {
                    let name = *self.pick(&["namespace", "container", "app", "service", "iostream", "level"]);
                    Field::Known(name.to_owned())
                }
                7 if self.below(4) == 0 => Field::Named("cluster".to_owned()),
                _ if !record.fields.is_empty() => Field::Named(self.pick(&record.fields).0.clone()),
                _ => continue,
            };
            if let Field::Named(name) = &field
                && (!is_name(name) || is_another(name))
            {
                continue;
            }
            let chance = self.below(20);
            if chance == 0 && !matches!(field, Field::Message(_)) {
                return Query::Exists(field);
            }
            if chance == 1 {
                let from = record.time - self.below(1000) as i64;
                return Query::Time(from, from + 1 + self.below(2_000_000_000_000) as i64);
            }
            if let Some(test) = self.test(&field, record) {
                return Query::Leaf(field, test);
            }
        }
    }

    fn test(&mut self, field: &Field, record: &Record) -> Option<Test> {
        let (value, is_number) = match field {
            Field::Message(_) => (record.text.clone(), false),
            Field::Known(name) => (known(record, name).to_owned(), false),
            Field::Named(name) => match record.fields.iter().find(|(key, _)| key == name) {
                Some((_, held)) => (held.shown(), matches!(held, Held::Number(..))),
                None => (record.labels.get(name)?.clone(), false),
            },
        };
        if value.is_empty() {
            return None;
        }
        let is_known = matches!(field, Field::Known(_));
        if (is_number && self.below(2) == 0) || (!matches!(field, Field::Message(_)) && self.below(12) == 0) {
            return Some(self.range(&value));
        }
        if is_known {
            return self.of_known(&value);
        }
        let found = words(&value);
        let network = addresses(&value);
        if !network.is_empty() && self.below(3) == 0 && *field != Field::Message(None) {
            let bits = [8, 16, 24, 32][self.below(4)];
            return Some(Test::Network { address: network[0], bits });
        }
        if found.is_empty() {
            return None;
        }
        let at = self.below(found.len());
        let word = found[at].clone();
        Some(match self.below(12) {
            0..3 => Test::Word(self.in_any_case(&word)),
            3 => {
                let runs = value.split_whitespace().filter(|run| !words(run).is_empty());
                Test::Word((*self.pick(&runs.collect::<Vec<_>>())).to_owned())
            }
            4..7 => self.phrase(&value)?,
            7 | 8 => Test::Like(self.pattern(&word)),
            // With a letter more it would be two words.
            9 if word.len() >= WORD_MAX_BYTES => return None,
            9 => {
                let most = 1 + self.below(2);
                Test::Near(self.mistyped(&word), most)
            }
            _ => self.regex(&value)?,
        })
    }

    fn of_known(&mut self, value: &str) -> Option<Test> {
        Some(match self.below(7) {
            0..3 => Test::Word(self.in_any_case(value)),
            3 => Test::Phrase { text: value.to_owned(), slop: 0, is_prefix: false },
            4 => Test::Like(self.pattern(&value.to_lowercase())),
            5 => Test::Near(self.mistyped(&value.to_lowercase()), 1 + self.below(2)),
            _ => self.regex(value)?,
        })
    }

    fn range(&mut self, value: &str) -> Test {
        let Ok(middle) = value.parse::<i64>() else {
            let high: String = value.chars().take(2).chain(['z']).collect();
            return Test::Between(value.chars().take(1 + self.below(6)).collect(), high);
        };
        let near = |maker: &mut Self, sign: i64| {
            let away = sign * maker.below(50) as i64;
            let half = if maker.below(4) == 0 { ".5" } else { "" };
            Some((format!("{}{half}", middle + away), maker.below(2) == 0))
        };
        match self.below(3) {
            0 => Test::Range(near(self, -1), None),
            1 => Test::Range(None, near(self, 1)),
            _ => Test::Range(near(self, -1), near(self, 1)),
        }
    }

    /// Text between the beginnings of two words.
    fn phrase(&mut self, value: &str) -> Option<Test> {
        let starts: Vec<usize> = value.char_indices().map(|(at, _)| at).collect();
        let start = *self.pick(&starts);
        let start = start + value[start..].find(|c: char| c.is_whitespace() || c == '/' || c == ':')? + 1;
        let mut end = (start + 5 + self.below(40)).min(value.len());
        while !value.is_char_boundary(end) {
            end += 1;
        }
        let text = value[start..end].to_owned();
        let found = words(&text);
        if found.is_empty() || text.contains('\u{1b}') {
            return None;
        }
        // A word that was cut in the middle is found only as a beginning.
        if self.below(3) > 0 {
            return Some(Test::Phrase { text, slop: 0, is_prefix: self.below(2) == 0 });
        }
        let mut kept: Vec<&str> =
            found.iter().enumerate().filter(|(at, _)| at % 2 == 0).map(|(_, word)| word.as_str()).collect();
        if self.below(3) == 0 {
            kept.reverse();
        }
        Some(Test::Phrase { text: kept.join(" "), slop: self.below(4), is_prefix: false })
    }

    fn in_any_case(&mut self, text: &str) -> String {
        match self.below(3) {
            0 => text.to_uppercase(),
            _ => text.to_owned(),
        }
    }

    fn pattern(&mut self, word: &str) -> String {
        let chars: Vec<char> = word.chars().collect();
        let at = self.below(chars.len());
        match self.below(4) {
            0 => chars[..=at].iter().collect::<String>() + "*",
            1 => format!("*{}", chars[at..].iter().collect::<String>()),
            2 => chars.iter().enumerate().map(|(place, c)| if place == at { '?' } else { *c }).collect(),
            _ => {
                let to = at + self.below(chars.len() - at);
                format!(
                    "{}*{}",
                    chars[..at].iter().collect::<String>(),
                    chars[to..].iter().collect::<String>()
                )
            }
        }
    }

    /// With one letter too many, too few, or another.
    fn mistyped(&mut self, word: &str) -> String {
        let mut chars: Vec<char> = word.chars().collect();
        let at = self.below(chars.len());
        match self.below(4) {
            0 => chars.insert(at, 'x'),
            1 if chars.len() > 2 => drop(chars.remove(at)),
            2 if at > 0 => chars.swap(at, at - 1),
            _ => chars[at] = 'q',
        }
        chars.into_iter().collect()
    }

    /// Two pieces of a text with anything in between.
    fn regex(&mut self, value: &str) -> Option<Test> {
        let line = value.lines().next()?;
        let starts: Vec<usize> = line.char_indices().map(|(at, _)| at).collect();
        if starts.len() < 4 {
            return None;
        }
        let first = self.below(starts.len() - 2);
        let piece =
            |from: usize, most: usize| -> String { line[starts[from]..].chars().take(most).collect() };
        let begin = piece(first, 2 + self.below(6));
        let pattern = match self.below(4) {
            0 => regex::escape(&begin),
            1 => {
                let behind = first + 1 + self.below(starts.len() - first - 1);
                let behind = piece(behind, 3);
                format!("{}.*{}", regex::escape(&begin), regex::escape(&behind))
            }
            2 => format!("(?i){}|{}", regex::escape(&begin), "zzz+"),
            _ => {
                let digits = regex::Regex::new("[0-9]+").unwrap();
                digits.replace_all(&regex::escape(&begin), "[0-9]+").into_owned()
            }
        };
        if pattern.trim() != pattern || pattern.len() > 200 {
            return None;
        }
        let regex = regex::Regex::new(&pattern).ok()?;
        Some(Test::Regex(pattern, regex))
    }

    /// One of the ways to write a query. `around` is how tightly what stands around it binds: alternatives least, then conditions together, then `NOT`.
    fn written(&mut self, query: &Query, around: usize) -> String {
        let (text, tightness) = match query {
            Query::Or(parts) => {
                let parts: Vec<String> = parts.iter().map(|part| self.written(part, 1)).collect();
                let sign = *self.pick(&[" OR ", " || "]);
                (parts.join(sign), 0)
            }
            Query::And(parts) => {
                let parts: Vec<String> = parts.iter().map(|part| self.written(part, 2)).collect();
                let sign = *self.pick(&[" AND ", " && ", " "]);
                (parts.join(sign), 1)
            }
            Query::Not(part) => {
                let sign = *self.pick(&["NOT ", "-", "!"]);
                (format!("{sign}{}", self.written(part, 3)), 2)
            }
            Query::Leaf(field, test) => (self.condition(field, test), 3),
            Query::Exists(field) => {
                let name = escaped(&name_of(field));
                (if self.below(2) == 0 { format!("_exists_:{name}") } else { format!("{name}:*") }, 3)
            }
            Query::Time(from, to) => {
                let [from, to] = [from, to].map(|time| binnacle_model::LogTime(*time).to_rfc3339());
                let name = self.pick(&["@timestamp", "time", "timestamp"]);
                (format!("{name}:[{from} TO {to}}}"), 3)
            }
        };
        if tightness < around || self.below(8) == 0 { format!("({text})") } else { text }
    }

    fn condition(&mut self, field: &Field, test: &Test) -> String {
        let name = match field {
            Field::Message(None) => String::new(),
            field => escaped(&name_of(field)) + ":",
        };
        let value = match test {
            Test::Word(text) => match self.below(4) {
                0 => quoted(text),
                1 if !name.is_empty() => format!("({})", word(text)),
                2 if !name.is_empty() => format!("IN [{} zzzzzzzz]", quoted(text)),
                _ => word(text),
            },
            Test::Phrase { text, slop, is_prefix } => {
                let end = if *is_prefix {
                    "*".to_owned()
                } else if *slop > 0 {
                    format!("~{slop}")
                } else {
                    String::new()
                };
                quoted(text) + &end
            }
            Test::Like(pattern) => pattern
                .chars()
                .map(|c| if matches!(c, '*' | '?') { c.to_string() } else { escaped(&c.to_string()) })
                .collect(),
            Test::Near(text, 2) if self.below(2) == 0 => escaped(text) + "~",
            Test::Near(text, most) => format!("{}~{most}", escaped(text)),
            Test::Regex(pattern, _) => format!("/{}/", pattern.replace('/', r"\/")),
            Test::Range(low, high) => self.range_text(low.as_ref(), high.as_ref()),
            Test::Between(low, high) => format!("[{} TO {}}}", quoted(low), quoted(high)),
            Test::Network { address, bits } => {
                let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
                format!("{}/{bits}", std::net::Ipv4Addr::from(address & mask))
            }
        };
        name + &value
    }

    fn range_text(&mut self, low: Option<&(String, bool)>, high: Option<&(String, bool)>) -> String {
        match (low, high) {
            (Some((edge, is_in)), None) if self.below(2) == 0 => {
                format!("{}{edge}", if *is_in { ">=" } else { ">" })
            }
            (None, Some((edge, is_in))) if self.below(2) == 0 => {
                format!("{}{edge}", if *is_in { "<=" } else { "<" })
            }
            _ => {
                let edge = |edge: Option<&(String, bool)>| edge.map_or(("*".to_owned(), true), Clone::clone);
                let ((low, low_in), (high, high_in)) = (edge(low), edge(high));
                let (begin, end) = (if low_in { '[' } else { '{' }, if high_in { ']' } else { '}' });
                format!("{begin}{low} TO {high}{end}")
            }
        }
    }
}

fn name_of(field: &Field) -> String {
    match field {
        Field::Message(name) => name.unwrap_or("message").to_owned(),
        Field::Known(name) | Field::Named(name) => name.clone(),
    }
}

/// Whether Lucene's own documentation would let a field have this name.
fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '/'))
}

/// Names that mean something else than what a message calls so.
fn is_another(name: &str) -> bool {
    let of_ours = [
        "message",
        "msg",
        "log",
        "body",
        "level",
        "severity",
        "stream",
        "time",
        "timestamp",
        "service",
        "app",
    ];
    let is_alias = binnacle_model::log::FIELD_ALIASES.iter().any(|(long, _)| *long == name);
    is_alias
        || of_ours.contains(&name)
        || ["namespace", "pod", "container", "node", "iostream"].contains(&name)
}

/// A word of a query in which no sign means anything.
fn word(text: &str) -> String {
    if ["AND", "OR", "NOT", "TO", "IN"].contains(&text) { quoted(text) } else { escaped(text) }
}

/// Lucene's special characters, each behind a backslash.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if r#"+-=&|><!(){}[]^"~*?:\/,"#.contains(c) || c.is_whitespace() {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\\\""))
}
