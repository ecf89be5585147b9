//! What comes beside a message, bounded in number, names and depth. What is over a bound is not lost: it goes as JSON
//! into one attribute, where a search of text finds it.

use binnacle_model::push::{LogPush, PushField, PushValue};
use serde_json::{Number, Value};

use super::text_field;

/// Attributes of one entry.
pub(in super::super) const MAX_FIELDS: usize = 128;

/// Longest name.
pub(in super::super) const MAX_NAME_BYTES: usize = 256;

/// How deep objects and lists may lie in one another to be taken apart.
pub(in super::super) const MAX_DEPTH: usize = 20;

/// Holds what is over: an object of JSON, in which a name may stand more than once.
pub(in super::super) const OVERFLOW: &str = "_overflow";

/// Attributes of one entry.
#[derive(Debug, Clone, Default)]
pub(in super::super) struct Attributes {
    fields: Vec<PushField>,
    /// Members of an object, without its braces.
    overflow: String,
    over: u64,
}

impl Attributes {
    /// None yet, with memory for so many.
    pub(super) fn with_capacity(fields: usize) -> Self {
        Self { fields: Vec::with_capacity(fields.min(MAX_FIELDS)), ..Self::default() }
    }

    /// Values of the gaps of a list of shared ones.
    pub(super) fn of_gaps(fields: Vec<PushField>) -> Self {
        Self { fields, ..Self::default() }
    }

    /// Adds one value; a name may come more than once.
    pub(in super::super) fn add(&mut self, name: &str, value: PushValue) {
        if self.has_place(name) {
            self.fields.push(PushField { name: name.to_owned(), value: Some(value) });
            return;
        }
        let value = match value {
            PushValue::Text(text) => text.into(),
            PushValue::Int(whole) => whole.into(),
            PushValue::Float(float) => float.into(),
            PushValue::Bool(flag) => flag.into(),
        };
        self.spill(name, &value);
    }

    /// Adds a value of JSON: what lies in objects under a path with dots, the values of a list all under its name.
    pub(in super::super) fn add_json(&mut self, name: &str, value: &Value) {
        let mut path = name.to_owned();
        self.flatten(&mut path, value, 1);
    }

    /// `path` is as it was when this returns.
    fn flatten(&mut self, path: &mut String, value: &Value, depth: usize) {
        if !self.has_place(path) && !value.is_null() {
            return self.spill(path, value);
        }
        let value = match value {
            Value::Null => return,
            Value::Object(object) if depth < MAX_DEPTH => {
                let end = path.len();
                for (key, value) in object {
                    path.push('.');
                    path.push_str(key);
                    self.flatten(path, value, depth + 1);
                    path.truncate(end);
                }
                return;
            }
            Value::Array(values) if depth < MAX_DEPTH => {
                return values.iter().for_each(|value| self.flatten(path, value, depth + 1));
            }
            Value::Object(_) | Value::Array(_) => return self.spill(path, value),
            Value::Bool(flag) => PushValue::Bool(*flag),
            Value::String(text) => PushValue::Text(text.clone()),
            Value::Number(number) => number_value(number),
        };
        self.fields.push(PushField { name: path.clone(), value: Some(value) });
    }

    /// Whether a value of this name is kept as one.
    pub(super) fn has_place(&self, name: &str) -> bool {
        self.fields.len() < MAX_FIELDS && !name.is_empty() && name.len() <= MAX_NAME_BYTES
    }

    /// Keeps a value as text.
    pub(super) fn spill(&mut self, name: &str, value: &Value) {
        self.over += 1;
        if !self.overflow.is_empty() {
            self.overflow.push(',');
        }
        self.overflow.push_str(&Value::from(name).to_string());
        self.overflow.push(':');
        self.overflow.push_str(&value.to_string());
    }

    /// All of them, and how many were over the bounds.
    pub(in super::super) fn finish(self) -> (Vec<PushField>, u64) {
        let Self { mut fields, overflow, over } = self;
        if over > 0 {
            fields.push(text_field(OVERFLOW, &format!("{{{overflow}}}")));
        }
        (fields, over)
    }
}

/// A number as it is kept.
pub(super) fn number_value(number: &Number) -> PushValue {
    match (number.as_i64(), number.as_u64()) {
        (Some(whole), _) => PushValue::Int(whole),
        // As a float it would be another number.
        (None, Some(large)) => PushValue::Text(large.to_string()),
        (None, None) => PushValue::Float(number.as_f64().unwrap_or(f64::NAN)),
    }
}

/// Holds the entries of a push to the bounds, each with all its attributes; answers how many of these were over them.
pub(in super::super) fn bound(push: &mut LogPush) -> u64 {
    push.spread();
    let mut over = 0;
    for entry in push.batches.iter_mut().flat_map(|batch| &mut batch.entries) {
        let is_bound = |field: &PushField| !field.name.is_empty() && field.name.len() <= MAX_NAME_BYTES;
        // What one door bounded goes through another with what was over it.
        let has_overflow = entry.fields.last().is_some_and(|field| field.name == OVERFLOW);
        let is_few = entry.fields.len() <= MAX_FIELDS + usize::from(has_overflow);
        if is_few && entry.fields.iter().all(is_bound) {
            continue;
        }
        let mut attributes = Attributes::default();
        for field in std::mem::take(&mut entry.fields) {
            // A value of a kind that a newer release added is left out by every reader.
            if let Some(value) = field.value {
                attributes.add(&field.name, value);
            }
        }
        let (fields, more) = attributes.finish();
        entry.fields = fields;
        over += more;
    }
    over
}
