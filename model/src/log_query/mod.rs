//! What a log search asks for, after parsing and before any index.
//!
//! ```text
//! Lucene ─┐
//!         ├─► LogQuery ─┬─► a store's plan over templates, columns and filters
//! LogQL ──┘             └─► matches(entry)    the definition, and what live tail does
//! ```
//!
//! [`LogQuery::matches`] is the definition: a store that uses an index must answer what a scan with
//! it would answer.

mod phrase;
mod regex;
mod test;
mod view;
mod wildcard;

pub use self::regex::LogRegex;
pub use phrase::Phrase;
pub use test::{IpRange, Test, edit_distance_within, parse_ip};
pub use view::EntryView;
pub use wildcard::Wildcard;

use std::ops::Bound;

use crate::log::{Field, LogEntry};
use crate::matcher::Matcher;
use crate::time::LogTime;

/// A condition on entries.
#[derive(Debug, Clone, PartialEq)]
pub enum LogQuery {
    /// Every entry.
    All,
    /// One of the values of a field passes the test.
    Value {
        /// Where to look.
        field: Field,
        /// What the value must be.
        test: Test,
    },
    /// The field is there at all (`field:*`).
    Exists(Field),
    /// The entry's time.
    Time {
        /// From here.
        low: Bound<LogTime>,
        /// To here.
        high: Bound<LogTime>,
    },
    /// The message's bytes as they stand (LogQL's line filters).
    Line(LineTest),
    /// A label of the stream, the level, or an attribute beside the message, compared as Prometheus compares
    /// labels (LogQL's selectors, and its label filters before any parser). What is absent is `""`.
    Label(Matcher),
    /// All of them.
    And(Vec<LogQuery>),
    /// One of them at least.
    Or(Vec<LogQuery>),
    /// Not it.
    Not(Box<LogQuery>),
}

/// A test of the bytes of a message.
#[derive(Debug, Clone, PartialEq)]
pub enum LineTest {
    /// They stand in it.
    Contains(Vec<u8>),
    /// The expression finds something in it.
    Regex(LogRegex),
}

impl LineTest {
    /// Whether a message passes.
    pub fn matches(&self, message: &[u8]) -> bool {
        match self {
            Self::Contains(needle) => memchr::memmem::find(message, needle).is_some(),
            Self::Regex(regex) => regex.is_match(message),
        }
    }
}

impl LogQuery {
    /// Words of a message, one after the other.
    pub fn phrase(text: &str) -> Self {
        Self::Value { field: Field::Message, test: Test::Phrase(Phrase::new(text)) }
    }

    /// Whether `entry` satisfies the condition.
    pub fn matches(&self, entry: &LogEntry) -> bool {
        self.holds(&EntryView::new(entry))
    }

    /// As [`Self::matches`], for an entry of which several things are asked.
    pub fn holds(&self, entry: &EntryView<'_>) -> bool {
        match self {
            Self::All => true,
            Self::Value { field, test } => entry.any_value(field, test),
            Self::Exists(field) => entry.has(field),
            Self::Time { low, high } => (*low, *high).contains_time(entry.entry().time),
            Self::Line(test) => test.matches(&entry.entry().message),
            Self::Label(matcher) => matcher.matches(&entry.entry().label(&matcher.name)),
            Self::And(parts) => parts.iter().all(|part| part.holds(entry)),
            Self::Or(parts) => parts.iter().any(|part| part.holds(entry)),
            Self::Not(part) => !part.holds(entry),
        }
    }

    /// The words that a reader would like to see marked in the messages found.
    pub fn highlights(&self) -> Vec<String> {
        let mut found = Vec::new();
        self.collect_highlights(&mut found);
        found.sort_unstable();
        found.dedup();
        found
    }

    fn collect_highlights(&self, found: &mut Vec<String>) {
        match self {
            Self::Value { field: Field::Message, test } => match test {
                Test::Phrase(phrase) => found.extend(phrase.words().iter().cloned()),
                Test::Wildcard(wildcard) => found.extend(wildcard.longest_literal().map(str::to_owned)),
                Test::Fuzzy { word, .. } => found.push(word.clone()),
                _ => {}
            },
            Self::Line(LineTest::Contains(needle)) => {
                found.extend(String::from_utf8(needle.clone()).ok().map(|text| text.to_lowercase()));
            }
            Self::And(parts) | Self::Or(parts) => {
                parts.iter().for_each(|part| part.collect_highlights(found));
            }
            _ => {}
        }
    }
}

trait ContainsTime {
    fn contains_time(self, time: LogTime) -> bool;
}

impl ContainsTime for (Bound<LogTime>, Bound<LogTime>) {
    fn contains_time(self, time: LogTime) -> bool {
        std::ops::RangeBounds::contains(&self, &time)
    }
}

#[cfg(test)]
mod tests;
