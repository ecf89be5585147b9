//! An entry of which several things are asked: what is made of it is made once.

use std::borrow::Cow;
use std::cell::OnceCell;

use super::Test;
use crate::log::{Field, FieldValue, LogEntry};
use crate::meaning;
use crate::tokens::words;

/// An entry with what was found in it so far.
pub struct EntryView<'a> {
    entry: &'a LogEntry,
    text: OnceCell<Cow<'a, str>>,
    words: OnceCell<Vec<String>>,
    parsed: OnceCell<Vec<(String, FieldValue)>>,
}

impl<'a> EntryView<'a> {
    /// Nothing is looked at yet.
    pub fn new(entry: &'a LogEntry) -> Self {
        Self { entry, text: OnceCell::new(), words: OnceCell::new(), parsed: OnceCell::new() }
    }

    /// What it is a view of.
    pub fn entry(&self) -> &'a LogEntry {
        self.entry
    }

    fn text(&self) -> &str {
        self.text.get_or_init(|| String::from_utf8_lossy(&self.entry.message))
    }

    fn words(&self) -> &[String] {
        self.words.get_or_init(|| words(self.text()).map(|word| word.text).collect())
    }

    /// The fields that the message holds.
    pub fn parsed(&self) -> &[(String, FieldValue)] {
        self.parsed.get_or_init(|| meaning::fields(&self.entry.message))
    }

    /// The first value of a field as text, as [`crate::storage::LogKey::Field`] groups by it; empty for what is absent.
    pub fn text_of<'b>(&'b self, field: &'b Field) -> Cow<'b, str> {
        match field {
            Field::Message => Cow::Borrowed(self.text()),
            Field::Stream(name) => Cow::Borrowed(self.entry.stream_field(name)),
            Field::Parsed(name) => match self.entry.stream.get(name) {
                Some(value) => Cow::Borrowed(value),
                None => match self.values(name).next() {
                    Some(FieldValue::Text(text)) => Cow::Borrowed(text),
                    Some(value) => Cow::Owned(value.to_string()),
                    None => Cow::Borrowed(""),
                },
            },
        }
    }

    pub(super) fn any_value(&self, field: &Field, test: &Test) -> bool {
        match field {
            Field::Message => match test.of_words(self.words()) {
                Some(found) => found,
                None => test.of_text(&self.entry.message, self.text()),
            },
            Field::Stream(name) => {
                let value = self.entry.stream_field(name);
                !value.is_empty() && test.of_keyword(value)
            }
            Field::Parsed(name) => {
                let label = self.entry.stream.value(name);
                let is_in_label = !label.is_empty() && test.of_text_value(label);
                is_in_label || self.values(name).any(|value| test.of_value(value))
            }
        }
    }

    /// Attributes beside the message and fields within it, of one name.
    fn values<'b>(&'b self, name: &'b str) -> impl Iterator<Item = &'b FieldValue> {
        let attributes = self.entry.attributes.iter();
        let all = attributes.chain(self.parsed_lazily());
        all.filter(move |(key, _)| key == name).map(|(_, value)| value)
    }

    fn parsed_lazily(&self) -> impl Iterator<Item = &(String, FieldValue)> {
        std::iter::once(()).flat_map(|()| self.parsed())
    }

    pub(super) fn has(&self, field: &Field) -> bool {
        match field {
            Field::Message => !self.entry.message.is_empty(),
            Field::Stream(name) => !self.entry.stream_field(name).is_empty(),
            Field::Parsed(name) => {
                !self.entry.stream.value(name).is_empty() || self.values(name).next().is_some()
            }
        }
    }
}
