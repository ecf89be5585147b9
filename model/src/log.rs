//! Log entries: one line of a program with its meaning.

use crate::labels::Labels;
use crate::time::LogTime;

/// Names of the labels and fields every entry may have; all else lies under the parsed fields.
pub const STREAM_FIELDS: [&str; 8] =
    ["namespace", "pod", "container", "node", "app", "service", "iostream", "level"];

/// The levels an entry may have, besides none.
pub const LEVELS: [&str; 6] = ["trace", "debug", "info", "warn", "error", "fatal"];

/// OpenTelemetry's names for what we call by a short one.
pub const FIELD_ALIASES: [(&str, &str); 10] = [
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
    /// Fields that the message held as JSON or logfmt, in its order; dotted paths for nested ones.
    pub fields: Vec<(String, FieldValue)>,
    /// Where it comes from.
    pub origin: Origin,
}

impl LogEntry {
    /// The value of one of [`STREAM_FIELDS`].
    pub fn stream_field(&self, name: &str) -> &str {
        if name == "level" { &self.level } else { self.stream.value(name) }
    }

    /// The parsed values under `name`; a name may come more than once.
    pub fn field_values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a FieldValue> {
        self.fields.iter().filter(move |(key, _)| key == name).map(|(_, value)| value)
    }
}

/// What a query's field name means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    /// The message's words.
    Message,
    /// One of [`STREAM_FIELDS`], compared whole and without regard to case.
    Stream(&'static str),
    /// A parsed field, by its dotted path.
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
