//! Queries in LogQL: as a tree of our own, as text, and the rows and numbers that they answer.

use std::collections::BTreeMap;

use serde_json::Value;

use super::records::Record;
use super::words::addresses;
use crate::differential::generate::Random;

/// A selector and what stands behind it.
#[derive(Debug, Clone)]
pub(super) struct Pipeline {
    pub(super) matchers: Vec<Matcher>,
    pub(super) stages: Vec<Stage>,
}

#[derive(Debug, Clone)]
pub(super) struct Matcher {
    name: String,
    op: &'static str,
    value: String,
    regex: regex::Regex,
}

#[derive(Debug, Clone)]
pub(super) enum Stage {
    /// `|=`, `!=`, `|~` or `!~` with alternatives.
    Line(&'static str, Vec<Needle>),
    Json,
    Logfmt,
    /// A name and a path.
    JsonOf(String, String),
    Pattern(String, Vec<String>),
    Labels(Filter),
}

#[derive(Debug, Clone)]
pub(super) enum Needle {
    Text(String),
    Regex(String, regex::Regex),
    Network(u32, u32),
}

#[derive(Debug, Clone)]
pub(super) enum Filter {
    Text(Matcher),
    Number(String, &'static str, f64),
    Both(Box<Filter>, Box<Filter>),
    Either(Box<Filter>, Box<Filter>),
}

/// A line behind a pipeline.
#[derive(Debug, Clone)]
pub(super) struct Row {
    /// By their names, in Loki's words; none is empty.
    pub(super) labels: BTreeMap<String, String>,
    base: Vec<String>,
    has_error: bool,
}

impl Row {
    fn new(record: &Record) -> Self {
        let mut labels = BTreeMap::new();
        for (name, value) in &record.labels {
            let name = if name == "service" { "service_name" } else { name };
            labels.insert(name.to_owned(), value.clone());
        }
        if !record.level.is_empty() {
            labels.insert("detected_level".to_owned(), record.level.clone());
        }
        for (name, held) in &record.attributes {
            labels.insert(loki_name(name), held.shown());
        }
        Self { base: labels.keys().cloned().collect(), labels, has_error: false }
    }

    fn extract(&mut self, name: &str, value: &str) {
        let mut name = loki_name(name.trim());
        if name.starts_with(|c: char| c.is_ascii_digit()) {
            name.insert(0, '_');
        }
        if self.base.contains(&name) {
            name.push_str("_extracted");
        }
        if !name.is_empty() && !value.is_empty() {
            self.labels.entry(name).or_insert_with(|| value.to_owned());
        }
    }

    fn fail(&mut self, kind: &str) {
        self.has_error = true;
        self.labels.insert("__error__".to_owned(), kind.to_owned());
    }
}

fn loki_name(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect()
}

impl Matcher {
    pub(super) fn new(name: &str, op: &'static str, value: &str) -> Self {
        let pattern = if op.ends_with('~') { value.to_owned() } else { regex::escape(value) };
        // Of a value of several lines the dot means any character, as in Prometheus 3.
        let regex = regex::Regex::new(&format!("^(?s:{pattern})$")).unwrap();
        Self { name: name.to_owned(), op, value: value.to_owned(), regex }
    }

    fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.name).map_or("", String::as_str);
        self.regex.is_match(value) != self.op.starts_with('!')
    }

    fn text(&self) -> String {
        format!("{}{}{}", self.name, self.op, quoted(&self.value))
    }
}

impl Pipeline {
    /// What becomes of a record; `None` if it is not kept.
    pub(super) fn run(&self, record: &Record) -> Option<Row> {
        let mut row = Row::new(record);
        if !self.matchers.iter().all(|matcher| matcher.holds(&row.labels)) {
            return None;
        }
        for stage in &self.stages {
            let is_kept = match stage {
                Stage::Line(op, needles) => {
                    needles.iter().any(|needle| needle.is_in(&record.text)) != op.starts_with('!')
                }
                Stage::Labels(filter) => filter.keeps(&mut row),
                Stage::Json => {
                    match serde_json::from_str(&record.text) {
                        Ok(Value::Object(object)) => {
                            object.iter().for_each(|(name, value)| flatten(name, value, &mut row));
                        }
                        _ => row.fail("JSONParserErr"),
                    }
                    true
                }
                Stage::JsonOf(name, path) => {
                    match serde_json::from_str::<Value>(&record.text) {
                        Ok(Value::Object(object)) => {
                            let value = path
                                .split('.')
                                .try_fold(&Value::Object(object), |at, key| at.get(key))
                                .map(shown);
                            row.extract(name, &value.unwrap_or_default());
                        }
                        _ => row.fail("JSONParserErr"),
                    }
                    true
                }
                Stage::Logfmt => {
                    pairs(&record.text).iter().for_each(|(name, value)| row.extract(name, value));
                    true
                }
                Stage::Pattern(first, names) => {
                    let mut rest = record.text.strip_prefix(first.as_str());
                    for (at, name) in names.iter().enumerate() {
                        let Some(text) = rest else { break };
                        // Captures end at a space, the last one at the end of the line.
                        let end = if at + 1 == names.len() { None } else { text.find(' ') };
                        if name != "_" {
                            row.extract(name, &text[..end.unwrap_or(text.len())]);
                        }
                        rest = end.map(|end| &text[end + 1..]);
                    }
                    true
                }
            };
            if !is_kept {
                return None;
            }
        }
        Some(row)
    }

    pub(super) fn text(&self) -> String {
        let matchers: Vec<String> = self.matchers.iter().map(Matcher::text).collect();
        let stages: Vec<String> = self.stages.iter().map(Stage::text).collect();
        format!("{{{}}} {}", matchers.join(", "), stages.join(" "))
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn flatten(path: &str, value: &Value, row: &mut Row) {
    match value {
        Value::Object(object) => {
            object.iter().for_each(|(name, value)| flatten(&format!("{path}_{name}"), value, row));
        }
        Value::Array(_) => {}
        value => row.extract(path, &shown(value)),
    }
}

/// `key=value key="quoted value"`, as the library that Loki uses reads them; what is none is passed over.
fn pairs(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches(|c: char| c <= ' ');
        let end = rest.find(|c: char| c <= ' ' || c == '=' || c == '"').unwrap_or(rest.len());
        let (key, behind) = rest.split_at(end);
        let word = behind.find(|c: char| c <= ' ').unwrap_or(behind.len());
        if behind.is_empty() {
            return found;
        }
        if key.is_empty() || behind.starts_with('"') {
            rest = &behind[word..];
        } else if let Some(quoted) = behind.strip_prefix("=\"") {
            let mut end = None;
            let mut is_escaped = false;
            for (at, c) in quoted.char_indices() {
                match c {
                    _ if is_escaped => is_escaped = false,
                    '\\' => is_escaped = true,
                    '"' => {
                        end = Some(at);
                        break;
                    }
                    _ => {}
                }
            }
            let Some(end) = end else { return found };
            let value: Result<String, _> = serde_json::from_str(&format!("\"{}\"", &quoted[..end]));
            found.push((key.to_owned(), value.unwrap_or_else(|_| quoted[..end].to_owned())));
            rest = &quoted[end + 1..];
        } else if let Some(value) = behind.strip_prefix('=') {
            let value = &value[..word - 1];
            if !value.contains(['=', '"']) {
                found.push((key.to_owned(), value.to_owned()));
            }
            rest = &behind[word..];
        } else {
            rest = behind;
        }
    }
}

impl Needle {
    fn is_in(&self, text: &str) -> bool {
        match self {
            Self::Text(needle) => text.contains(needle.as_str()),
            Self::Regex(_, regex) => regex.is_match(text),
            Self::Network(address, bits) => {
                let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
                addresses(text).into_iter().any(|one| one & mask == address & mask)
            }
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Text(text) | Self::Regex(text, _) => quoted(text),
            Self::Network(address, bits) => format!("ip(\"{}/{bits}\")", std::net::Ipv4Addr::from(*address)),
        }
    }
}

impl Filter {
    fn keeps(&self, row: &mut Row) -> bool {
        match self {
            Self::Text(matcher) => matcher.holds(&row.labels),
            Self::Both(left, right) => left.keeps(row) && right.keeps(row),
            Self::Either(left, right) => left.keeps(row) || right.keeps(row),
            Self::Number(name, op, wanted) => {
                if row.has_error {
                    return true;
                }
                let Some(text) = row.labels.get(name) else { return false };
                let Ok(value) = text.parse::<f64>() else {
                    row.fail("LabelFilterErr");
                    return true;
                };
                match *op {
                    ">" => value > *wanted,
                    ">=" => value >= *wanted,
                    "<" => value < *wanted,
                    "<=" => value <= *wanted,
                    "!=" => value != *wanted,
                    _ => value == *wanted,
                }
            }
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Text(matcher) => matcher.text(),
            Self::Number(name, op, value) => format!("{name} {op} {value}"),
            Self::Both(left, right) => format!("({} and {})", left.text(), right.text()),
            Self::Either(left, right) => format!("({} or {})", left.text(), right.text()),
        }
    }
}

impl Stage {
    fn text(&self) -> String {
        match self {
            Self::Line(op, needles) => {
                format!("{op} {}", needles.iter().map(Needle::text).collect::<Vec<_>>().join(" or "))
            }
            Self::Json => "| json".to_owned(),
            Self::Logfmt => "| logfmt".to_owned(),
            Self::JsonOf(name, path) => format!("| json {name}={}", quoted(path)),
            Self::Pattern(first, names) => {
                let captures: Vec<String> = names.iter().map(|name| format!("<{name}>")).collect();
                format!("| pattern {}", quoted(&format!("{first}{}", captures.join(" "))))
            }
            Self::Labels(filter) => format!("| {}", filter.text()),
        }
    }
}

/// As Go quotes text.
fn quoted(text: &str) -> String {
    if !text.contains('`') && text.contains('\\') {
        return format!("`{text}`");
    }
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out + "\""
}

/// Queries of what stands in real records.
pub(super) struct Maker<'m> {
    pub(super) random: &'m mut Random,
    pub(super) records: &'m [Record],
}

impl Maker<'_> {
    pub(super) fn below(&mut self, end: usize) -> usize {
        self.random.below(end as u64) as usize
    }

    pub(super) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// A pipeline that keeps a record, unless one of its filters was made of another.
    pub(super) fn pipeline(&mut self) -> Pipeline {
        let record = self.pick(self.records);
        let mut made = Pipeline { matchers: self.selector(record), stages: Vec::new() };
        for _ in 0..self.below(3) {
            if let Some(stage) = self.line_filter(record) {
                made.stages.push(stage);
            }
        }
        if self.below(3) == 0 {
            made.stages.extend(self.label_filter(&made, record));
        }
        if self.below(2) == 0 {
            let parser = self.parser(record);
            made.stages.push(parser);
            if self.below(4) > 0 {
                made.stages.extend(self.label_filter(&made, record));
            }
            if self.below(4) == 0 {
                made.stages.extend(self.line_filter(record));
            }
            if self.below(6) == 0 {
                made.stages.push(Stage::Labels(Filter::Text(Matcher::new("__error__", "=", ""))));
            }
        }
        made
    }

    fn selector(&mut self, record: &Record) -> Vec<Matcher> {
        let labels = Row::new(record).labels;
        let stream = ["namespace", "container", "app", "service_name", "cluster"];
        let known: Vec<&str> = stream.into_iter().filter(|name| labels.contains_key(*name)).collect();
        let name = *self.pick(&known);
        let value = &labels[name];
        let mut matchers = vec![match self.below(4) {
            0 => Matcher::new(name, "=", value),
            1 => Matcher::new(name, "=~", &format!("{}|zzz", regex::escape(value))),
            2 => Matcher::new(name, "=~", &format!("{}.*", regex::escape(&value[..value.len().min(3)]))),
            _ => Matcher::new("cluster", "=", "prod-eu-1"),
        }];
        if self.below(4) == 0 {
            let other = Row::new(self.pick(self.records)).labels;
            let name = *self.pick(&["namespace", "container", "app", "iostream", "nothing"]);
            let value = other.get(name).map_or("", String::as_str);
            let op = *self.pick(&["!=", "!~", "=~"]);
            let value = if op == "!=" { value.to_owned() } else { format!("{}.*", regex::escape(value)) };
            matchers.push(Matcher::new(name, op, &value));
        }
        matchers
    }

    fn piece(&mut self, record: &Record) -> Option<String> {
        let starts: Vec<usize> = record.text.char_indices().map(|(at, _)| at).collect();
        let start = *self.pick(&starts);
        let most = if self.below(4) == 0 { 40 } else { 8 };
        let piece: String = record.text[start..].chars().take(1 + self.below(most)).collect();
        (!piece.contains('`')).then_some(piece)
    }

    fn line_filter(&mut self, record: &Record) -> Option<Stage> {
        let found = addresses(&record.text);
        if !found.is_empty() && self.below(5) == 0 {
            let op = *self.pick(&["|=", "!="]);
            return Some(Stage::Line(
                op,
                vec![Needle::Network(*self.pick(&found), 8 * (1 + self.below(4)) as u32)],
            ));
        }
        let other = self.pick(self.records);
        let count = 1 + usize::from(self.below(5) == 0);
        let op = *self.pick(&["|=", "|=", "|=", "!=", "|~", "|~", "!~"]);
        let mut needles = Vec::new();
        for at in 0..count {
            let of = if op.starts_with('!') || at > 0 { other } else { record };
            let piece = self.piece(of)?;
            needles.push(if op.ends_with('=') { Needle::Text(piece) } else { self.regex(&piece)? });
        }
        Some(Stage::Line(op, needles))
    }

    fn regex(&mut self, piece: &str) -> Option<Needle> {
        let escaped = regex::escape(piece);
        let pattern = match self.below(4) {
            0 => escaped,
            1 => format!("(?i){escaped}"),
            2 => regex::Regex::new("[0-9]+").unwrap().replace_all(&escaped, "\\d+").into_owned(),
            _ => {
                let middle = piece.char_indices().nth(piece.chars().count() / 2).map_or(0, |(at, _)| at);
                format!("{}.?|zzz+", regex::escape(&piece[..middle]))
            }
        };
        let regex = regex::Regex::new(&pattern).ok()?;
        Some(Needle::Regex(pattern, regex))
    }

    fn parser(&mut self, record: &Record) -> Stage {
        let is_json = record.text.starts_with('{');
        match self.below(6) {
            0 if is_json => {
                let name = record.fields.first().map_or("row", |(name, _)| name);
                Stage::JsonOf("picked".to_owned(), name.to_owned())
            }
            0 | 1 => {
                let names = ["first", "second", "_", "app", "rest"];
                let names: Vec<String> =
                    names[..2 + self.below(4)].iter().map(|name| (*name).to_owned()).collect();
                let first = if self.below(3) == 0 {
                    record.text.chars().take(1).filter(char::is_ascii_alphanumeric).collect()
                } else {
                    String::new()
                };
                Stage::Pattern(first, names)
            }
            2 => Stage::Json,
            _ if is_json => Stage::Json,
            _ => Stage::Logfmt,
        }
    }

    /// Of a label that the record has so far.
    fn label_filter(&mut self, made: &Pipeline, record: &Record) -> Option<Stage> {
        let labels = made.run(record)?.labels;
        let names: Vec<&String> = labels.keys().filter(|name| !name.starts_with("__")).collect();
        let name = *self.pick_of(&names)?;
        let left = self.filter(name, &labels)?;
        if self.below(4) > 0 {
            return Some(Stage::Labels(left));
        }
        let name = *self.pick_of(&names)?;
        let right = self.filter(name, &labels)?;
        let (left, right) = (Box::new(left), Box::new(right));
        Some(Stage::Labels(if self.below(2) == 0 {
            Filter::Both(left, right)
        } else {
            Filter::Either(left, right)
        }))
    }

    fn pick_of<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        (!from.is_empty()).then(|| &from[self.below(from.len())])
    }

    fn filter(&mut self, name: &str, labels: &BTreeMap<String, String>) -> Option<Filter> {
        let value = &labels[name];
        if value.contains('`') {
            return None;
        }
        if let Ok(number) = value.parse::<i64>()
            && self.below(2) == 0
        {
            let op = *self.pick(&[">", ">=", "<", "<=", "==", "!="]);
            return Some(Filter::Number(name.to_owned(), op, (number + self.below(20) as i64 - 10) as f64));
        }
        let begin: String = value.chars().take(1 + self.below(5)).collect();
        Some(Filter::Text(match self.below(5) {
            0 | 1 => Matcher::new(name, "=", value),
            2 => Matcher::new(name, "!=", value),
            3 => Matcher::new(name, "=~", &format!("{}.*", regex::escape(&begin))),
            _ => Matcher::new(name, "!~", &format!("{}.+", regex::escape(&begin))),
        }))
    }
}
