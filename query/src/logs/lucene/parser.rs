//! The grammar: conditions, and what joins them.

use std::ops::Bound;

use binnacle_model::LogTime;
use binnacle_model::log::{AUDIT_FIELDS, Field};
use binnacle_model::log_query::{LogQuery, LogRegex, Phrase, Test};

use super::ranges::{Edge, Range};
use super::scanner::{Named, Scanner};
use super::{Failure, MAX_CLAUSES, MAX_DEPTH, MAX_NOTES, MAX_REGEX_BYTES, Note, column};

/// Names of the entry's own time.
const TIME_NAMES: [&str; 3] = ["@timestamp", "timestamp", "time"];

/// Slop beyond this makes no difference in a line that somebody reads.
const MAX_SLOP: u32 = 1000;

/// What a condition is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// No field was named.
    Words,
    Field(Field),
    /// The entry's own time, under one of its names.
    Time(String),
}

impl Target {
    fn named(name: &str) -> Self {
        if TIME_NAMES.contains(&name) { Self::Time(name.to_owned()) } else { Self::Field(Field::named(name)) }
    }

    /// Where to look, if not at the entry's own time.
    pub(super) fn field(&self) -> Field {
        match self {
            Self::Words => Field::Message,
            Self::Field(field) => field.clone(),
            Self::Time(name) => Field::Parsed(name.clone()),
        }
    }

    fn exists(&self) -> LogQuery {
        match self {
            Self::Words | Self::Time(_) => LogQuery::All,
            Self::Field(field) => LogQuery::Exists(field.clone()),
        }
    }
}

pub(super) struct Parser<'a> {
    pub(super) scanner: Scanner<'a>,
    pub(super) now: LogTime,
    depth: usize,
    clauses: usize,
    /// What holds within the parentheses after `field:`.
    target: Target,
    notes: Vec<Note>,
}

impl<'a> Parser<'a> {
    pub(super) fn new(text: &'a str, now: LogTime) -> Self {
        let scanner = Scanner { text, at: 0 };
        Self { scanner, now, depth: 0, clauses: 0, target: Target::Words, notes: Vec::new() }
    }

    pub(super) fn notes(self) -> Vec<Note> {
        self.notes
    }

    pub(super) fn note(&mut self, at: usize, text: impl Into<String>) {
        if self.notes.len() < MAX_NOTES {
            self.notes.push(Note { column: column(self.scanner.text, at), text: text.into() });
        }
    }

    pub(super) fn whole(&mut self) -> Result<LogQuery, Failure> {
        let query = self.or()?;
        self.scanner.skip_spaces();
        if self.scanner.is_end() { Ok(query) } else { Err(self.fail("unexpected closing bracket")) }
    }

    fn fail(&self, reason: impl Into<String>) -> Failure {
        Failure::syntax(self.scanner.at, reason)
    }

    fn deeper(&mut self) -> Result<(), Failure> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Failure::TooLarge(format!("is nested deeper than {MAX_DEPTH}")));
        }
        Ok(())
    }

    /// Counts conditions.
    pub(super) fn count(&mut self, more: usize) -> Result<(), Failure> {
        self.clauses += more;
        if self.clauses > MAX_CLAUSES {
            return Err(Failure::TooLarge(format!("has more than {MAX_CLAUSES} conditions")));
        }
        Ok(())
    }

    fn sees_or(&self) -> bool {
        self.scanner.sees_word("OR") || self.scanner.rest().starts_with("||")
    }

    fn sees_and(&self) -> bool {
        self.scanner.sees_word("AND") || self.scanner.rest().starts_with("&&")
    }

    fn or(&mut self) -> Result<LogQuery, Failure> {
        self.deeper()?;
        let mut parts = vec![self.and()?];
        loop {
            self.scanner.skip_spaces();
            if !self.sees_or() {
                break;
            }
            self.scanner.at += "OR".len();
            parts.push(self.and()?);
        }
        self.depth -= 1;
        Ok(joined(parts, LogQuery::Or))
    }

    fn and(&mut self) -> Result<LogQuery, Failure> {
        let mut parts = vec![self.not()?];
        loop {
            self.scanner.skip_spaces();
            if self.scanner.is_end() || self.scanner.next_is(&[')', ']', '}']) || self.sees_or() {
                break;
            }
            if !self.scanner.takes_word("AND") {
                self.scanner.takes("&&");
            }
            self.note_small_operator();
            parts.push(self.not()?);
        }
        Ok(joined(parts, LogQuery::And))
    }

    /// In small letters an operator is a word.
    fn note_small_operator(&mut self) {
        for (small, operator) in [("or", "OR"), ("and", "AND")] {
            if self.scanner.sees_word(small) {
                let text = format!("{small:?} is searched as a word; the operator is written {operator}");
                self.note(self.scanner.at, text);
            }
        }
    }

    fn not(&mut self) -> Result<LogQuery, Failure> {
        self.scanner.skip_spaces();
        let mut signs = self.scanner.rest().chars();
        let (sign, behind) = (signs.next(), signs.next());
        // `a - b`, `a != b`: signs of a text.
        let is_joined = behind.is_some_and(|c| !c.is_whitespace() && c != '=');
        let start = self.scanner.at;
        if self.scanner.takes_word("NOT") || (matches!(sign, Some('-' | '!')) && is_joined) {
            if self.scanner.at == start {
                self.scanner.at += 1;
            }
            self.deeper()?;
            let inner = self.not()?;
            self.depth -= 1;
            if is_wordless(&inner) {
                return Err(Failure::syntax(
                    start,
                    "nothing with a letter or digit follows that could be excluded",
                ));
            }
            return Ok(LogQuery::Not(Box::new(inner)));
        }
        if sign == Some('+') && is_joined {
            self.scanner.at += 1;
        }
        self.primary()
    }

    fn primary(&mut self) -> Result<LogQuery, Failure> {
        self.count(1)?;
        self.scanner.skip_spaces();
        if self.sees_and() || self.sees_or() {
            return Err(self.fail("there is nothing before the operator"));
        }
        if self.scanner.takes("(") {
            return self.group();
        }
        let at = self.scanner.at;
        match self.scanner.named() {
            None => self.value(self.target.clone()),
            Some(Named::Everything) => Ok(LogQuery::All),
            Some(Named::Field(name)) if name == "_exists_" => self.exists(),
            Some(Named::Field(name)) => {
                let query = self.value(Target::named(&name))?;
                self.or_of_audit(query, &name)
            }
            Some(Named::Text(reason)) => {
                let text = self.scanner.raw_word();
                self.note(at, format!("{text:?} is searched as a phrase: {reason}"));
                let field = self.target.field();
                Ok(self.phrase(field, Phrase::new(text), at))
            }
            Some(Named::Bare(colon)) => {
                Err(Failure::syntax(colon, "a value is missing behind the colon; write key:value"))
            }
        }
    }

    fn exists(&mut self) -> Result<LogQuery, Failure> {
        let word = self.scanner.word(&[])?;
        match word.plain() {
            Some(name) => self.or_of_audit(Target::named(&name).exists(), &name),
            None => Err(Failure::syntax(word.at, "_exists_ needs the name of a field")),
        }
    }

    /// Of some names, the same of an audit event's field, too.
    fn or_of_audit(&mut self, query: LogQuery, name: &str) -> Result<LogQuery, Failure> {
        let Some((_, longer)) = AUDIT_FIELDS.iter().find(|(short, _)| *short == name) else {
            return Ok(query);
        };
        let mut other = query.clone();
        let renamed = rename(&mut other, name, longer);
        self.count(renamed)?;
        // Nothing was said of the field itself.
        if renamed == 0 { Ok(query) } else { Ok(LogQuery::Or(vec![query, other])) }
    }

    fn group(&mut self) -> Result<LogQuery, Failure> {
        let inner = self.or()?;
        self.scanner.skip_spaces();
        if !self.scanner.takes(")") {
            return Err(self.fail("an open parenthesis is not closed"));
        }
        self.skip_boost();
        Ok(inner)
    }

    fn skip_boost(&mut self) {
        let at = self.scanner.at;
        if self.scanner.suffix('^').is_some() {
            self.note_boost(at);
        }
    }

    pub(super) fn note_boost(&mut self, at: usize) {
        self.note(at, "a boost (^) changes nothing: entries come by time");
    }

    fn value(&mut self, target: Target) -> Result<LogQuery, Failure> {
        let is_named = target != Target::Words;
        if is_named && self.scanner.takes("(") {
            let outer = std::mem::replace(&mut self.target, target);
            let group = self.group();
            self.target = outer;
            return group;
        }
        if is_named && self.scanner.takes_set() {
            return self.set(&target);
        }
        if is_named && self.scanner.next_is(&['[', '{']) {
            return self.range(&target);
        }
        for (sign, is_low, is_inclusive) in
            [(">=", true, true), ("<=", false, true), (">", true, false), ("<", false, false)]
        {
            let at = self.scanner.at;
            if is_named && self.scanner.takes(sign) {
                self.scanner.skip_spaces();
                let (text, is_quoted) = self.scanner.edge()?;
                let edge = Some(Edge { text, is_quoted, is_inclusive });
                let (low, high) = if is_low { (edge, None) } else { (None, edge) };
                let query = self.compared(&Range { target: &target, low, high, at });
                self.skip_boost();
                return query;
            }
        }
        self.one(&target, &[])
    }

    /// A regular expression, a quote or a word.
    fn one(&mut self, target: &Target, ends: &[char]) -> Result<LogQuery, Failure> {
        let at = self.scanner.at;
        if let Some(pattern) = self.scanner.regex() {
            self.skip_boost();
            return regex(target.field(), &pattern, at);
        }
        if self.scanner.next_is(&['"']) {
            return self.quoted(target);
        }
        let word = self.scanner.word(ends)?;
        if word.is_star() {
            return Ok(target.exists());
        }
        self.word(target, &word)
    }

    fn quoted(&mut self, target: &Target) -> Result<LogQuery, Failure> {
        let at = self.scanner.at;
        let text = self.scanner.quoted()?;
        let is_prefix = self.scanner.takes("*");
        let mut slop = 0;
        if let Some(number) = self.scanner.suffix('~') {
            slop = number.parse::<u32>().unwrap_or(u32::MAX);
            if slop > MAX_SLOP {
                slop = if number.bytes().all(|b| b.is_ascii_digit()) && !number.is_empty() {
                    MAX_SLOP
                } else {
                    0
                };
                self.note(at, format!("what stands behind the ~ of a phrase is taken as {slop}"));
            }
        }
        self.skip_boost();
        let ends = self.scanner.is_end()
            || self.scanner.next_is(&[')', ']', '}', ','])
            || self.scanner.rest().starts_with(char::is_whitespace);
        if !ends {
            return Err(self.fail("text right behind a quote"));
        }
        let is_wild = |(before, star): (char, char)| star == '*' && before.is_alphanumeric();
        if text.chars().zip(text.chars().skip(1)).any(is_wild) {
            self.note(at, "within quotes a * stands for itself");
        }
        if slop == 0 && !is_prefix {
            return Ok(self.text(target, &text, true, at));
        }
        let phrase = Phrase::new(&text).with_slop(slop);
        Ok(self.phrase(target.field(), if is_prefix { phrase.with_prefix() } else { phrase }, at))
    }

    fn set(&mut self, target: &Target) -> Result<LogQuery, Failure> {
        let mut parts = Vec::new();
        loop {
            let rest = self.scanner.rest();
            self.scanner.at +=
                rest.len() - rest.trim_start_matches(|c: char| c.is_whitespace() || c == ',').len();
            if self.scanner.takes("]") {
                break;
            }
            self.count(1)?;
            parts.push(self.one(target, &[',', ']'])?);
        }
        if parts.is_empty() {
            return Err(self.fail("a set without a value"));
        }
        Ok(joined(parts, LogQuery::Or))
    }

    fn range(&mut self, target: &Target) -> Result<LogQuery, Failure> {
        let at = self.scanner.at;
        let low_inclusive = self.scanner.next_is(&['[']);
        self.scanner.at += 1;
        let low = self.edge()?;
        self.scanner.skip_spaces();
        if !self.scanner.takes_to() {
            return Err(self.fail("a range is written [1 TO 5]; TO is missing"));
        }
        let high = self.edge()?;
        self.scanner.skip_spaces();
        let high_inclusive = self.scanner.takes("]");
        if !high_inclusive && !self.scanner.takes("}") {
            return Err(self.fail("a range is not closed"));
        }
        self.skip_boost();
        let edge = |is_inclusive| move |(text, is_quoted)| Edge { text, is_quoted, is_inclusive };
        let (low, high) = (low.map(edge(low_inclusive)), high.map(edge(high_inclusive)));
        self.compared(&Range { target, low, high, at })
    }

    fn edge(&mut self) -> Result<Option<(String, bool)>, Failure> {
        self.scanner.skip_spaces();
        let edge = self.scanner.edge()?;
        Ok((edge != ("*".to_owned(), false)).then_some(edge))
    }

    fn compared(&mut self, range: &Range<'_>) -> Result<LogQuery, Failure> {
        if range.low.is_none() && range.high.is_none() {
            return Ok(range.target.exists());
        }
        let at = range.at;
        let (query, note) = range.read(self.now)?;
        if let LogQuery::Or(parts) = &query {
            self.count(parts.len())?;
        }
        if let Some(note) = note {
            self.note(at, note);
        }
        let is_of_words = matches!(
            &query,
            LogQuery::Value { field: Field::Message, test } if !matches!(test, Test::Ip(_))
        );
        if is_of_words {
            self.note(at, "words of a message are not compared; name a field");
        }
        Ok(query)
    }

    /// A moment that the entry's own time must be, or lie in.
    pub(super) fn at_time(moment: super::moments::Moment) -> LogQuery {
        LogQuery::Time { low: moment.as_low(true), high: moment.as_high(true) }
    }

    pub(super) fn phrase(&mut self, field: Field, phrase: Phrase, at: usize) -> LogQuery {
        let query = LogQuery::Value { field, test: Test::Phrase(phrase) };
        if is_wordless(&query)
            && let LogQuery::Value { test: Test::Phrase(phrase), .. } = &query
        {
            let text = phrase.text();
            self.note(
                at,
                format!("{text:?} holds no letter or digit to search for; it matches every message"),
            );
        }
        query
    }
}

fn regex(field: Field, pattern: &str, at: usize) -> Result<LogQuery, Failure> {
    if pattern.len() > MAX_REGEX_BYTES {
        let reason = format!("has a regular expression of more than {MAX_REGEX_BYTES} bytes");
        return Err(Failure::TooLarge(reason));
    }
    let test = Test::Regex(compiled(pattern, at)?);
    Ok(LogQuery::Value { field, test })
}

pub(super) fn compiled(pattern: &str, at: usize) -> Result<LogRegex, Failure> {
    LogRegex::new(pattern).map_err(|reason| {
        if reason.contains("size limit") {
            Failure::TooLarge("has a pattern that needs more than 1 MB".to_owned())
        } else {
            Failure::syntax(at, format!("a regular expression cannot be read ({reason})"))
        }
    })
}

/// A text without a word that the query wants in messages: signs do not count there, so that it is in all of them.
fn is_wordless(query: &LogQuery) -> bool {
    match query {
        LogQuery::Value { field: Field::Message, test: Test::Phrase(phrase) } => phrase.words().is_empty(),
        _ => false,
    }
}

pub(super) fn joined(mut parts: Vec<LogQuery>, join: impl FnOnce(Vec<LogQuery>) -> LogQuery) -> LogQuery {
    if parts.len() == 1 { parts.remove(0) } else { join(parts) }
}

/// Both bounds lie open.
pub(super) fn is_open<T>(low: &Bound<T>, high: &Bound<T>) -> bool {
    matches!((low, high), (Bound::Unbounded, Bound::Unbounded))
}

/// Asks for another field instead. Answers how often.
fn rename(query: &mut LogQuery, from: &str, to: &str) -> usize {
    match query {
        LogQuery::Value { field, .. } | LogQuery::Exists(field)
            if *field == Field::Parsed(from.to_owned()) =>
        {
            *field = Field::Parsed(to.to_owned());
            1
        }
        LogQuery::And(parts) | LogQuery::Or(parts) => {
            parts.iter_mut().map(|part| rename(part, from, to)).sum()
        }
        LogQuery::Not(part) => rename(part, from, to),
        _ => 0,
    }
}
