//! What a log search asks for, after parsing and before any index.
//!
//! [`LogQuery::matches`] is the definition: a store that uses an index must answer what a scan with
//! it would answer, and live tail is such a scan.

use std::ops::Bound;

use crate::log::{Field, FieldValue, LogEntry};
use crate::tokens::words;

/// A condition on entries.
#[derive(Debug, Clone, PartialEq)]
pub enum LogQuery {
    /// Every entry.
    All,
    /// The text's words, one after the other, in the field.
    Text {
        /// Where to look.
        field: Field,
        /// What to look for; cut into words where the field is cut into words.
        text: String,
        /// Whether the last word need only begin so (`conn*`).
        prefix: bool,
    },
    /// A number between two bounds.
    Range {
        /// Where to look.
        field: Field,
        /// From here.
        low: Bound<f64>,
        /// To here.
        high: Bound<f64>,
    },
    /// The field is there at all (`field:*`).
    Exists(Field),
    /// All of them.
    And(Vec<LogQuery>),
    /// One of them at least.
    Or(Vec<LogQuery>),
    /// Not it.
    Not(Box<LogQuery>),
}

impl LogQuery {
    /// Whether `entry` satisfies the condition.
    pub fn matches(&self, entry: &LogEntry) -> bool {
        match self {
            Self::All => true,
            Self::Text { field, text, prefix } => text_matches(entry, field, text, *prefix),
            Self::Range { field, low, high } => match field {
                Field::Parsed(name) => entry
                    .field_values(name)
                    .filter_map(FieldValue::as_f64)
                    .any(|value| contains(*low, *high, value)),
                Field::Message | Field::Stream(_) => false,
            },
            Self::Exists(field) => match field {
                Field::Message => !entry.message.is_empty(),
                Field::Stream(name) => !entry.stream_field(name).is_empty(),
                Field::Parsed(name) => entry.field_values(name).next().is_some(),
            },
            Self::And(parts) => parts.iter().all(|part| part.matches(entry)),
            Self::Or(parts) => parts.iter().any(|part| part.matches(entry)),
            Self::Not(part) => !part.matches(entry),
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
            Self::Text { field: Field::Message, text, .. } => {
                found.extend(words(text).map(|word| word.text));
            }
            Self::And(parts) | Self::Or(parts) => {
                parts.iter().for_each(|part| part.collect_highlights(found));
            }
            Self::All | Self::Text { .. } | Self::Range { .. } | Self::Exists(_) | Self::Not(_) => {}
        }
    }
}

fn text_matches(entry: &LogEntry, field: &Field, text: &str, prefix: bool) -> bool {
    match field {
        Field::Message => has_phrase(&String::from_utf8_lossy(&entry.message), text, prefix),
        Field::Stream(name) => {
            let value = entry.stream_field(name).to_lowercase();
            let text = text.to_lowercase();
            !value.is_empty() && if prefix { value.starts_with(&text) } else { value == text }
        }
        // Only signs: the index holds no signs to decide by, so that the field need only be there.
        Field::Parsed(name) if words(text).next().is_none() => entry.field_values(name).next().is_some(),
        Field::Parsed(name) => entry.field_values(name).any(|value| match value {
            FieldValue::Text(value) => has_phrase(value, text, prefix),
            FieldValue::Int(_) | FieldValue::Float(_) => {
                !prefix && text.parse::<f64>().is_ok_and(|text| value.as_f64() == Some(text))
            }
            FieldValue::Bool(value) => has_phrase(&value.to_string(), text, prefix),
        }),
    }
}

/// Whether the words of `phrase` stand in `text` one after the other.
///
/// A phrase without a word (only signs) is in every text.
fn has_phrase(text: &str, phrase: &str, prefix: bool) -> bool {
    let wanted: Vec<String> = words(phrase).map(|word| word.text).collect();
    let Some((last, first)) = wanted.split_last() else { return true };
    let found: Vec<String> = words(text).map(|word| word.text).collect();
    found.windows(wanted.len()).any(|window| {
        let tail = &window[window.len() - 1];
        window[..window.len() - 1] == *first
            && if prefix { tail.starts_with(last.as_str()) } else { tail == last }
    })
}

fn contains(low: Bound<f64>, high: Bound<f64>, value: f64) -> bool {
    let above = match low {
        Bound::Included(low) => value >= low,
        Bound::Excluded(low) => value > low,
        Bound::Unbounded => true,
    };
    let below = match high {
        Bound::Included(high) => value <= high,
        Bound::Excluded(high) => value < high,
        Bound::Unbounded => true,
    };
    // Not a number is in no range, not even in one without bounds.
    above && below && !value.is_nan()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::Labels;
    use crate::log::Origin;
    use crate::time::LogTime;

    fn entry() -> LogEntry {
        LogEntry {
            time: LogTime(1),
            received: LogTime(1),
            stream: Labels::new([("service", "Payment"), ("namespace", "shop")]).unwrap(),
            level: "error".into(),
            message: b"Connection to 10.0.0.1:8080 refused".to_vec(),
            fields: vec![
                ("status".into(), FieldValue::Int(503)),
                ("user.name".into(), FieldValue::Text("Ada Lovelace".into())),
            ],
            origin: Origin::default(),
        }
    }

    fn check(field: &str, text: &str, prefix: bool, want: bool) {
        let query = LogQuery::Text { field: Field::named(field), text: text.into(), prefix };
        assert_eq!(query.matches(&entry()), want, "{query:?}");
    }

    #[test]
    fn words_and_phrases_match_without_case() {
        check("message", "REFUSED", false, true);
        check("message", "refuse", false, false);
        check("message", "refuse", true, true);
        check("message", "10.0.0.1:8080", false, true);
        check("message", "refused connection", false, false);
        check("service", "payment", false, true);
        check("service.name", "pay", false, false);
        check("service", "pay", true, true);
        check("level", "ERROR", false, true);
        check("user.name", "lovelace", false, true);
        check("status", "503", false, true);
        check("status", "503.0", false, true);
        check("absent", "x", false, false);
    }

    #[test]
    fn ranges_compare_numbers() {
        let range = |low, high| LogQuery::Range { field: Field::named("status"), low, high };
        assert!(range(Bound::Included(500.0), Bound::Unbounded).matches(&entry()));
        assert!(!range(Bound::Excluded(503.0), Bound::Unbounded).matches(&entry()));
        assert!(!range(Bound::Unbounded, Bound::Excluded(503.0)).matches(&entry()));
    }
}
