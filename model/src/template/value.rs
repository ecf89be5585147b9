//! What templates calculate with.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, FixedOffset};

use super::format;

/// A method: what it is called on, and its arguments.
pub type Method = fn(&Value, &[Value]) -> Result<Value, String>;

/// What a list, a map or a struct is: its name, and what can be asked of it.
#[derive(Debug)]
pub struct Type {
    /// As messages and `%T` show it.
    pub name: &'static str,
    /// Names, number of arguments, what they do.
    pub methods: &'static [(&'static str, usize, Method)],
    /// Go's `String()`, where it has one.
    pub text: Option<fn(&Value) -> String>,
}

/// `[]interface {}`
pub static ANY_LIST: Type = Type { name: "[]interface {}", methods: &[], text: None };
/// `[]string`
pub static TEXTS: Type = Type { name: "[]string", methods: &[], text: None };
/// `map[string]interface {}`
pub static ANY_MAP: Type = Type { name: "map[string]interface {}", methods: &[], text: None };
/// `map[string]string`
pub static TEXT_MAP: Type = Type { name: "map[string]string", methods: &[], text: None };

/// A value. Cheap to copy.
#[derive(Debug, Clone)]
pub enum Value {
    /// What a map of anything has under a key that it has not: `<no value>`.
    Missing,
    /// `nil`
    Nil,
    /// `bool`
    Bool(bool),
    /// `int`
    Int(i64),
    /// `float64`
    Float(f64),
    /// `string`
    Text(Arc<str>),
    /// Text that is HTML, or a URL, already.
    Safe(Safe, Arc<str>),
    /// A list.
    List(&'static Type, Arc<[Value]>),
    /// A map of texts to values.
    Map(&'static Type, Arc<BTreeMap<Arc<str>, Value>>),
    /// Fields in order.
    Struct(&'static Type, Arc<[(&'static str, Value)]>),
    /// A moment.
    Time(DateTime<FixedOffset>, Arc<str>),
    /// Nanoseconds.
    Duration(i64),
}

/// Of what a text needs no escaping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Safe {
    /// `template.HTML`
    Html,
    /// `template.URL`
    Url,
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Missing, Self::Missing) | (Self::Nil, Self::Nil) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Int(a), Self::Int(b)) | (Self::Duration(a), Self::Duration(b)) => a == b,
            (Self::Float(a), Self::Float(b)) => a == b,
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::Safe(a, x), Self::Safe(b, y)) => a == b && x == y,
            (Self::List(_, a), Self::List(_, b)) => a == b,
            (Self::Map(_, a), Self::Map(_, b)) => a == b,
            (Self::Struct(_, a), Self::Struct(_, b)) => a == b,
            (Self::Time(a, _), Self::Time(b, _)) => a == b,
            _ => false,
        }
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl Value {
    /// `[]string`
    pub fn texts<T: Into<Self>>(texts: impl IntoIterator<Item = T>) -> Self {
        Self::List(&TEXTS, texts.into_iter().map(Into::into).collect())
    }

    /// A map of texts, of the type given.
    pub fn text_map<K: Into<Arc<str>>, V: Into<Self>>(
        kind: &'static Type,
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        Self::Map(kind, Arc::new(pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect()))
    }

    /// A moment in UTC.
    pub fn time(at: DateTime<chrono::Utc>) -> Self {
        Self::Time(at.fixed_offset(), "UTC".into())
    }

    /// The text of a `string` or of one that is marked as safe.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Safe(_, text) => Some(text),
            _ => None,
        }
    }

    /// As an action prints it.
    pub fn to_text(&self) -> String {
        match self {
            Self::Text(text) | Self::Safe(_, text) => text.to_string(),
            Self::Missing => "<no value>".to_owned(),
            other => format::plain(other),
        }
    }

    /// Go's name of its type.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Missing | Self::Nil => "<nil>",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float64",
            Self::Text(_) => "string",
            Self::Safe(Safe::Html, _) => "template.HTML",
            Self::Safe(Safe::Url, _) => "template.URL",
            Self::List(kind, _) | Self::Map(kind, _) | Self::Struct(kind, _) => kind.name,
            Self::Time(..) => "time.Time",
            Self::Duration(_) => "time.Duration",
        }
    }

    /// Whether a condition holds for it: what is not zero, not empty and there.
    pub fn is_true(&self) -> bool {
        match self {
            Self::Missing | Self::Nil => false,
            Self::Bool(value) => *value,
            Self::Int(number) | Self::Duration(number) => *number != 0,
            Self::Float(number) => *number != 0.0,
            Self::Text(text) | Self::Safe(_, text) => !text.is_empty(),
            Self::List(_, items) => !items.is_empty(),
            Self::Map(_, entries) => !entries.is_empty(),
            Self::Struct(..) | Self::Time(..) => true,
        }
    }

    /// What a map says where it has no such key.
    pub(super) fn zero_of(kind: &'static Type) -> Self {
        if kind.name == ANY_MAP.name { Self::Missing } else { Self::from("") }
    }

    /// A method, where it has one of that name.
    pub fn method(&self, name: &str) -> Option<Method> {
        self.methods().iter().find(|(known, ..)| *known == name).map(|(_, _, method)| *method)
    }

    /// The methods that it has.
    pub(super) fn methods(&self) -> &'static [(&'static str, usize, Method)] {
        match self {
            Self::List(kind, _) | Self::Map(kind, _) | Self::Struct(kind, _) => kind.methods,
            Self::Time(..) => super::time::TIME_METHODS,
            Self::Duration(_) => super::time::DURATION_METHODS,
            _ => &[],
        }
    }

    /// Go's `String()`, of types that have it.
    pub(super) fn own_text(&self) -> Option<String> {
        match self {
            Self::List(kind, _) | Self::Map(kind, _) | Self::Struct(kind, _) => {
                kind.text.map(|text| text(self))
            }
            Self::Time(at, zone) => Some(super::time::to_text(at, zone)),
            Self::Duration(nanos) => Some(super::time::duration_text(*nanos)),
            _ => None,
        }
    }
}

/// The argument at `at` as text, or what is wrong with it.
///
/// # Errors
/// It is no text, as Go words it.
pub fn text_arg(args: &[Value], at: usize) -> Result<&str, String> {
    let wrong = |got: &str| format!("wrong type for value; expected string; got {got}");
    let value = args.get(at).ok_or_else(|| wrong("nothing"))?;
    value.as_text().ok_or_else(|| wrong(value.type_name()))
}
