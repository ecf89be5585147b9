//! Log entries: one line of a program with its meaning.

use std::borrow::Cow;
use std::fmt;

use crate::labels::Labels;
use crate::meaning;
use crate::time::LogTime;

/// Names of the labels and fields every entry may have; all else lies under the parsed fields.
pub const STREAM_FIELDS: [&str; 8] =
    ["namespace", "pod", "container", "node", "app", "service", "iostream", "level"];

/// The levels an entry may have, besides none.
pub const LEVELS: [&str; 6] = ["trace", "debug", "info", "warn", "error", "fatal"];

/// Names of OpenTelemetry, and of shippers that speak to Elasticsearch, for what we call by a short one.
pub const FIELD_ALIASES: [(&str, &str); 19] = [
    ("k8s.namespace.name", "namespace"),
    ("k8s.pod.name", "pod"),
    ("k8s.container.name", "container"),
    ("k8s.node.name", "node"),
    ("service.name", "service"),
    ("log.iostream", "iostream"),
    ("stream", "iostream"),
    ("severity_text", "level"),
    ("severity", "level"),
    ("detected_level", "level"),
    ("kubernetes.namespace", "namespace"),
    ("kubernetes.namespace_name", "namespace"),
    ("kubernetes.pod.name", "pod"),
    ("kubernetes.pod_name", "pod"),
    ("kubernetes.container.name", "container"),
    ("kubernetes.container_name", "container"),
    ("kubernetes.node.name", "node"),
    ("kubernetes.host", "node"),
    ("log.level", "level"),
];

/// Names that a query may use for fields of Kubernetes' audit events. An event has no others of these names; other
/// messages may, so that either is found.
pub const AUDIT_FIELDS: [(&str, &str); 4] = [
    ("user", "user.username"),
    ("resource", "objectRef.resource"),
    ("subresource", "objectRef.subresource"),
    ("code", "responseStatus.code"),
];

/// Names under which a query may mean the message itself.
pub const MESSAGE_NAMES: [&str; 4] = ["message", "msg", "log", "body"];

/// Identity of a log file on a node: it survives a rename, and differs after inode reuse.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct FileId(pub String);

/// Where an entry comes from: the exact bytes of the file that held it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origin {
    /// Which file; empty for entries that came by another door than a file.
    pub file: FileId,
    /// First byte of the entry's first line in that file. Orders the entries of a file exactly.
    pub offset: u64,
}

/// A value of a parsed field.
#[derive(Debug, Clone, PartialEq)]
pub enum FieldValue {
    /// Text.
    Text(String),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// True or false.
    Bool(bool),
}

impl FieldValue {
    /// The number that it is, if it is one.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Int(v) => Some(*v as f64),
            Self::Float(v) => Some(*v),
            Self::Text(_) | Self::Bool(_) => None,
        }
    }
}

impl fmt::Display for FieldValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Int(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value}"),
            Self::Bool(value) => write!(f, "{value}"),
        }
    }
}

/// One log line with its meaning.
#[derive(Debug, Clone, PartialEq)]
pub struct LogEntry {
    /// When the program, or its runtime, says that it was written.
    pub time: LogTime,
    /// When the store took it in. Decides its partition and its retention.
    pub received: LogTime,
    /// Kubernetes identity: `namespace pod container node app service`, and `iostream`.
    pub stream: Labels,
    /// `trace debug info warn error fatal`, or empty where nothing said so.
    pub level: String,
    /// As written, without the line end. Not necessarily UTF-8.
    pub message: Vec<u8>,
    /// What came beside the message: structured metadata, attributes. Fields within the message are not among them:
    /// see [`crate::meaning`].
    pub attributes: Vec<(String, FieldValue)>,
    /// Where it comes from.
    pub origin: Origin,
}

impl LogEntry {
    /// The value of one of [`STREAM_FIELDS`].
    pub fn stream_field(&self, name: &str) -> &str {
        if name == "level" { &self.level } else { self.stream.value(name) }
    }

    /// Attributes, then the fields that the message holds; a name may come more than once.
    pub fn fields(&self) -> Vec<(String, FieldValue)> {
        let mut fields = self.attributes.clone();
        fields.extend(meaning::fields(&self.message));
        fields
    }

    /// What LogQL knows under a name before any parser: a label of the stream, the level, or an attribute. Empty for
    /// what is absent.
    pub fn label<'a>(&'a self, name: &str) -> Cow<'a, str> {
        let name = loki_alias(name);
        if name == "level" && !self.level.is_empty() {
            return Cow::Borrowed(&self.level);
        }
        if let Some(value) = self.stream.get(name) {
            return Cow::Borrowed(value);
        }
        let attribute = self.attributes.iter().find(|(key, _)| key == name || loki_name(key) == name);
        match attribute {
            Some((_, FieldValue::Text(text))) => Cow::Borrowed(text),
            Some((_, value)) => Cow::Owned(value.to_string()),
            None => Cow::Borrowed(""),
        }
    }
}

/// The name of ours that Loki's clients mean by one of theirs.
pub fn loki_alias(name: &str) -> &str {
    match name {
        "service_name" => "service",
        "detected_level" => "level",
        name => name,
    }
}

/// A name as Loki writes it: letters, digits and underscores.
pub fn loki_name(name: &str) -> Cow<'_, str> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.chars().all(is_plain) {
        return Cow::Borrowed(name);
    }
    Cow::Owned(name.chars().map(|c| if is_plain(c) { c } else { '_' }).collect())
}

/// What a query's field name means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    /// The message's words.
    Message,
    /// One of [`STREAM_FIELDS`], compared whole and without regard to case.
    Stream(&'static str),
    /// Any other: an attribute, or a field within the message by its dotted path, or a label of the stream.
    Parsed(String),
}

impl Field {
    /// The field that a query means by `name`, aliases resolved.
    pub fn named(name: &str) -> Self {
        let alias = FIELD_ALIASES.iter().find(|(long, _)| *long == name);
        let name = alias.map_or(name, |(_, short)| *short);
        if MESSAGE_NAMES.contains(&name) {
            return Self::Message;
        }
        match STREAM_FIELDS.iter().find(|field| **field == name) {
            Some(field) => Self::Stream(field),
            None => Self::Parsed(name.to_owned()),
        }
    }
}
