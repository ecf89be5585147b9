//! A line on its way through a pipeline: what it says now, and its labels.

use std::borrow::Cow;

use binnacle_model::log::{FieldValue, LogEntry, loki_name};

/// Labels that parsers may add to one line; more are left out.
const MAX_LABELS: usize = 512;

/// Holds what went wrong with a line.
pub(super) const ERROR: &str = "__error__";
/// Holds the reason.
pub(super) const ERROR_DETAILS: &str = "__error_details__";

/// Where a label comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// It names the stream.
    Stream,
    /// It came beside the line.
    Metadata,
    /// A stage of the pipeline made it.
    Parsed,
}

/// A label of a line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamedLabel<'a> {
    /// As Loki's clients know it.
    pub name: Cow<'a, str>,
    /// Never empty.
    pub value: Cow<'a, str>,
    /// Where it comes from.
    pub kind: Kind,
}

/// What a stage did to a label.
#[derive(Debug)]
struct Change {
    name: String,
    /// `None` if it took it away.
    value: Option<String>,
}

/// An entry in a pipeline.
#[derive(Debug)]
pub struct Row<'a> {
    entry: &'a LogEntry,
    line: Cow<'a, [u8]>,
    /// Each name once.
    changes: Vec<Change>,
    error: Option<(&'static str, String)>,
}

impl<'a> Row<'a> {
    /// As it is stored.
    pub fn new(entry: &'a LogEntry) -> Self {
        Self { entry, line: Cow::Borrowed(&entry.message), changes: Vec::new(), error: None }
    }

    /// What is stored.
    pub fn entry(&self) -> &'a LogEntry {
        self.entry
    }

    /// The line as it is now.
    pub fn line(&self) -> &[u8] {
        &self.line
    }

    /// The line as it is now, what is no UTF-8 replaced.
    pub(super) fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.line)
    }

    pub(super) fn set_line(&mut self, line: Vec<u8>) {
        self.line = Cow::Owned(line);
    }

    /// What went wrong on the way, in Loki's words.
    pub fn error(&self) -> Option<&'static str> {
        self.error.as_ref().map(|(kind, _)| *kind)
    }

    pub(super) fn fail(&mut self, kind: &'static str, details: String) {
        self.error = Some((kind, details));
    }

    fn change(&self, name: &str) -> Option<&Change> {
        self.changes.iter().find(|change| change.name == name)
    }

    /// The value of a label, `""` if there is none.
    pub(super) fn get(&self, name: &str) -> Cow<'_, str> {
        if let Some((kind, details)) = &self.error {
            match name {
                ERROR => return Cow::Borrowed(kind),
                ERROR_DETAILS => return Cow::Borrowed(details),
                _ => {}
            }
        }
        match self.change(name) {
            Some(change) => Cow::Borrowed(change.value.as_deref().unwrap_or_default()),
            None => self.entry.label(name),
        }
    }

    /// Sets a label, or takes it away if the value is empty.
    pub(super) fn set(&mut self, name: &str, value: String) {
        let value = Some(value).filter(|value| !value.is_empty());
        if let Some(change) = self.changes.iter_mut().find(|change| change.name == name) {
            change.value = value;
        } else if self.changes.len() < MAX_LABELS {
            self.changes.push(Change { name: name.to_owned(), value });
        }
    }

    pub(super) fn remove(&mut self, name: &str) {
        if name == ERROR || name == ERROR_DETAILS {
            self.error = None;
            return;
        }
        self.set(name, String::new());
    }

    /// Adds a label that a parser found: the first of a name stays, and what is known without the parser does not
    /// give way.
    pub(super) fn extract(&mut self, name: &str, value: &str) {
        let mut name = sanitized(name);
        if name.is_empty() || value.is_empty() {
            return;
        }
        if self.has_base(&name) {
            name = Cow::Owned(format!("{name}_extracted"));
        }
        if self.change(&name).is_none_or(|change| change.value.is_none()) {
            self.set(&name, value.to_owned());
        }
    }

    /// Whether the entry itself has a label that is shown under this name.
    fn has_base(&self, name: &str) -> bool {
        let stream = &self.entry.stream;
        match name {
            "service_name" if stream.get("service").is_some() => true,
            "service" => self.has_attribute(name),
            "detected_level" if !self.entry.level.is_empty() => true,
            _ => stream.get(name).is_some() || self.has_attribute(name),
        }
    }

    fn has_attribute(&self, name: &str) -> bool {
        self.entry.attributes.iter().any(|(key, _)| loki_name(key) == name)
    }

    /// All labels, ascending by name, `__error__` among them if there is one.
    pub fn labels(&self) -> Vec<NamedLabel<'_>> {
        let mut labels = self.base();
        labels.retain(|label| self.change(&label.name).is_none());
        for change in &self.changes {
            if let Some(value) = &change.value {
                labels.push(named(
                    Cow::Borrowed(change.name.as_str()),
                    Cow::Borrowed(value.as_str()),
                    Kind::Parsed,
                ));
            }
        }
        if let Some((kind, details)) = &self.error {
            labels.push(named(Cow::Borrowed(ERROR), Cow::Borrowed(kind), Kind::Parsed));
            labels.push(named(Cow::Borrowed(ERROR_DETAILS), Cow::Borrowed(details), Kind::Parsed));
        }
        labels.retain(|label| !label.value.is_empty());
        labels.sort_unstable();
        labels.dedup_by(|next, before| next.name == before.name);
        labels
    }

    /// The labels of the entry itself, in no order.
    fn base(&self) -> Vec<NamedLabel<'a>> {
        let entry = self.entry;
        let mut labels: Vec<NamedLabel<'a>> =
            Vec::with_capacity(entry.stream.len() + 1 + entry.attributes.len());
        for label in &entry.stream {
            let name = if &*label.name == "service" && entry.stream.get("service_name").is_none() {
                "service_name"
            } else {
                &label.name
            };
            labels.push(named(Cow::Borrowed(name), Cow::Borrowed(&*label.value), Kind::Stream));
        }
        if !entry.level.is_empty() {
            labels.push(named(Cow::Borrowed("detected_level"), Cow::Borrowed(&entry.level), Kind::Metadata));
        }
        for (name, value) in &entry.attributes {
            let name = sanitized(name);
            let is_taken = name.is_empty() || labels.iter().any(|label| label.name == name);
            let name = if is_taken { Cow::Owned(format!("{name}_extracted")) } else { name };
            let value = match value {
                FieldValue::Text(text) => Cow::Borrowed(text.as_str()),
                other => Cow::Owned(other.to_string()),
            };
            labels.push(named(name, value, Kind::Metadata));
        }
        labels
    }

    /// The names of all labels there are now.
    pub(super) fn names(&self) -> Vec<String> {
        self.labels().into_iter().map(|label| label.name.into_owned()).collect()
    }
}

fn named<'l>(name: Cow<'l, str>, value: Cow<'l, str>, kind: Kind) -> NamedLabel<'l> {
    NamedLabel { name, value, kind }
}

/// A name as Loki makes it: no space at its ends, underscores for what no label may have, none begins with a digit.
pub(super) fn sanitized(name: &str) -> Cow<'_, str> {
    let name = loki_name(name.trim());
    if name.starts_with(|c: char| c.is_ascii_digit()) { Cow::Owned(format!("_{name}")) } else { name }
}
