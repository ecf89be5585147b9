//! Labels: the sorted set of name and value pairs that names a series.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use crate::text::foreign_byte;

/// The label that holds a metric's name.
pub const METRIC_NAME: &str = "__name__";

/// One name and value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Label {
    /// Never empty.
    pub name: Arc<str>,
    /// Never empty in a [`Labels`]: an empty value is the same as no label.
    pub value: Arc<str>,
}

impl Ord for Label {
    fn cmp(&self, other: &Self) -> Ordering {
        shared_cmp(&self.name, &other.name).then_with(|| shared_cmp(&self.value, &other.value))
    }
}

impl PartialOrd for Label {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Most strings that are compared are one and the same, so that their bytes need not be looked at.
fn shared_cmp(a: &Arc<str>, b: &Arc<str>) -> Ordering {
    if Arc::ptr_eq(a, b) { Ordering::Equal } else { a.cmp(b) }
}

/// A label set: ascending by name, names unique, no empty value.
///
/// Compares as Prometheus orders series: pair by pair, a prefix first. Cloning is one counter.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Labels(Arc<[Label]>);

/// Why pairs do not make a label set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelsError {
    /// A name came twice.
    #[error("label name {0:?} is not unique")]
    Duplicate(String),
    /// A name was empty.
    #[error("label name is empty")]
    EmptyName,
    /// Bytes that should have held labels did not.
    #[error("labels cannot be read: {0}")]
    Malformed(String),
}

impl Default for Labels {
    fn default() -> Self {
        Self(Arc::from([]))
    }
}

impl Labels {
    /// The set of `pairs`, in any order. Pairs with an empty value are left out.
    pub fn new<N, V>(pairs: impl IntoIterator<Item = (N, V)>) -> Result<Self, LabelsError>
    where
        N: Into<Arc<str>>,
        V: Into<Arc<str>>,
    {
        let labels = pairs
            .into_iter()
            .map(|(name, value)| Label { name: name.into(), value: value.into() })
            .filter(|label| !label.value.is_empty())
            .collect();
        Self::from_vec(labels)
    }

    /// The set of `labels`, in any order. Labels with an empty value are left out.
    pub fn from_vec(mut labels: Vec<Label>) -> Result<Self, LabelsError> {
        labels.retain(|label| !label.value.is_empty());
        labels.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        if labels.first().is_some_and(|label| label.name.is_empty()) {
            return Err(LabelsError::EmptyName);
        }
        if let Some(pair) = labels.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(LabelsError::Duplicate(pair[0].name.to_string()));
        }
        Ok(Self(labels.into()))
    }

    /// The set of labels that are in order already: ascending by name, no name twice, no value empty.
    pub fn from_sorted(labels: impl IntoIterator<Item = Label>) -> Self {
        let labels = Self(labels.into_iter().collect());
        debug_assert!(labels.0.is_sorted_by(|a, b| a.name < b.name), "labels out of order: {labels}");
        labels
    }

    /// The value of `name`, or `""` where the label is absent, as Prometheus defines it.
    pub fn value(&self, name: &str) -> &str {
        self.get(name).unwrap_or("")
    }

    /// The value of `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|label| (*label.name).cmp(name)).ok()?;
        Some(&self.0[at].value)
    }

    /// The metric's name, or `""`.
    pub fn metric_name(&self) -> &str {
        self.value(METRIC_NAME)
    }

    /// Ascending by name.
    pub fn iter(&self) -> std::slice::Iter<'_, Label> {
        self.0.iter()
    }

    /// How many labels there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no label at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The labels for which `keep` holds.
    #[must_use]
    pub fn filtered(&self, mut keep: impl FnMut(&Label) -> bool) -> Self {
        Self(self.0.iter().filter(|label| keep(label)).cloned().collect())
    }

    /// Without the metric's name, as most functions answer.
    #[must_use]
    pub fn without_name(&self) -> Self {
        if self.get(METRIC_NAME).is_none() {
            return self.clone();
        }
        self.filtered(|label| &*label.name != METRIC_NAME)
    }

    /// With `name` set to `value`; an empty value takes the label away.
    #[must_use]
    pub fn with(&self, name: &str, value: &str) -> Self {
        let mut labels: Vec<Label> = self.0.iter().filter(|label| &*label.name != name).cloned().collect();
        if !value.is_empty() {
            let at = labels.partition_point(|label| &*label.name < name);
            labels.insert(at, Label { name: name.into(), value: value.into() });
        }
        Self(labels.into())
    }
}

impl<'a> IntoIterator for &'a Labels {
    type Item = &'a Label;
    type IntoIter = std::slice::Iter<'a, Label>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// As PromQL writes a series: `name{a="b",c="d"}`.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.metric_name())?;
        let mut rest = self.0.iter().filter(|label| &*label.name != METRIC_NAME).peekable();
        if rest.peek().is_none() && !self.metric_name().is_empty() {
            return Ok(());
        }
        f.write_str("{")?;
        for (i, label) in rest.enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{}={}", label.name, quoted(&label.value))?;
        }
        f.write_str("}")
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `text` between double quotes, escaped as Go and PromQL escape strings.
pub fn quoted(text: &str) -> String {
    use fmt::Write;

    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_ascii_control() => {
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c if let Some(byte) = foreign_byte(c) => {
                let _ = write!(out, "\\x{byte:02x}");
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Whether `name` is a label name of the classic kind: `[a-zA-Z_][a-zA-Z0-9_]*`.
pub fn is_legacy_label_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b == b'_' || b.is_ascii_alphabetic())
        && bytes.all(|b| b == b'_' || b.is_ascii_alphanumeric())
}

/// Shares equal strings, so that a million series hold each name once.
#[derive(Debug, Default)]
pub struct Interner {
    strings: HashSet<Arc<str>>,
}

impl Interner {
    /// The one shared copy of `text`.
    pub fn intern(&mut self, text: &str) -> Arc<str> {
        if let Some(shared) = self.strings.get(text) {
            return Arc::clone(shared);
        }
        let shared: Arc<str> = text.into();
        self.strings.insert(Arc::clone(&shared));
        shared
    }

    /// `labels` with all strings shared.
    pub fn intern_labels(&mut self, labels: &Labels) -> Labels {
        let shared = labels
            .iter()
            .map(|label| Label { name: self.intern(&label.name), value: self.intern(&label.value) });
        Labels(shared.collect())
    }

    /// Forgets strings that nobody else holds.
    pub fn sweep(&mut self) {
        self.strings.retain(|shared| Arc::strong_count(shared) > 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        Labels::new(pairs.iter().copied()).unwrap()
    }

    #[test]
    fn sets_are_sorted_and_empty_values_are_absent() {
        let set = labels(&[("b", "2"), ("a", "1"), ("c", "")]);
        assert_eq!(set.to_string(), r#"{a="1", b="2"}"#);
        assert_eq!(set.value("c"), "");
        assert_eq!(set.get("c"), None);
    }

    #[test]
    fn a_name_twice_is_refused() {
        let twice = Labels::new([("a", "1"), ("a", "2")]);
        assert_eq!(twice, Err(LabelsError::Duplicate("a".into())));
        assert_eq!(Labels::new([("", "1")]), Err(LabelsError::EmptyName));
    }

    #[test]
    fn with_replaces_adds_and_removes() {
        let set = labels(&[("b", "2")]);
        assert_eq!(set.with("a", "1"), labels(&[("a", "1"), ("b", "2")]));
        assert_eq!(set.with("b", "3"), labels(&[("b", "3")]));
        assert_eq!(set.with("b", ""), Labels::default());
    }

    #[test]
    fn display_is_promql() {
        assert_eq!(labels(&[("__name__", "up")]).to_string(), "up");
        let odd = labels(&[("__name__", "up"), ("a", "x\"y\n")]);
        assert_eq!(odd.to_string(), r#"up{a="x\"y\n"}"#);
        assert_eq!(Labels::default().to_string(), "{}");
    }

    #[test]
    fn order_is_by_pairs_then_length() {
        assert!(labels(&[("a", "1")]) < labels(&[("a", "1"), ("b", "1")]));
        assert!(labels(&[("a", "2")]) > labels(&[("a", "1"), ("b", "1")]));
    }

    #[test]
    fn interner_shares_and_forgets() {
        let mut interner = Interner::default();
        let one = interner.intern_labels(&labels(&[("a", "x")]));
        let two = interner.intern("x");
        assert!(Arc::ptr_eq(&one.iter().next().unwrap().value, &two));
        drop((one, two));
        interner.sweep();
        assert!(interner.strings.is_empty());
    }
}
