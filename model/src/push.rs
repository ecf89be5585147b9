//! How collectors send log lines to a store, and how the store's log keeps them.
//!
//! The body of `POST /api/collect/logs` is a [`LogPush`] in protobuf. Field numbers are fixed for
//! ever: a collector of one release talks to a store of another.

use crate::labels::{Labels, LabelsError};
use crate::log::FileId;
use crate::log::{FieldValue, LEVELS, LogEntry, Origin};
use crate::time::LogTime;

/// Field of an entry whose own time cannot be: Unix nanoseconds as it said.
pub const CLAIMED_TIME: &str = "claimed_time_ns";

/// How far ahead of our clock an entry's time may lie.
const AHEAD_MAX_NS: i64 = 600_000_000_000;

/// Lines of any number of files.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LogPush {
    /// One per file, in the order in which they were read.
    #[prost(message, repeated, tag = "1")]
    pub batches: Vec<FileBatch>,
}

/// Lines of one file: all that its bytes `from..to` held.
#[derive(Clone, PartialEq, prost::Message)]
pub struct FileBatch {
    /// Identity of the file; empty for lines that come by another door.
    #[prost(string, tag = "1")]
    pub file: String,
    /// First byte covered.
    #[prost(uint64, tag = "2")]
    pub from: u64,
    /// First byte not covered.
    #[prost(uint64, tag = "3")]
    pub to: u64,
    /// Kubernetes identity, the same for all lines.
    #[prost(message, repeated, tag = "4")]
    pub stream: Vec<Pair>,
    /// The lines, ascending by offset.
    #[prost(message, repeated, tag = "5")]
    pub entries: Vec<PushEntry>,
}

/// One label of a stream.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Pair {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// One line.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PushEntry {
    /// Unix nanoseconds.
    #[prost(sfixed64, tag = "1")]
    pub time_ns: i64,
    /// First byte of the line in its file.
    #[prost(uint64, tag = "2")]
    pub offset: u64,
    /// As written, without the line end.
    #[prost(bytes = "vec", tag = "3")]
    pub message: Vec<u8>,
    /// See [`LogEntry::level`].
    #[prost(string, tag = "4")]
    pub level: String,
    /// `stdout` or `stderr`.
    #[prost(string, tag = "5")]
    pub iostream: String,
    /// What came beside the message.
    #[prost(message, repeated, tag = "6")]
    pub fields: Vec<PushField>,
}

/// One attribute.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PushField {
    /// Dotted path.
    #[prost(string, tag = "1")]
    pub name: String,
    /// What it holds.
    #[prost(oneof = "PushValue", tags = "2, 3, 4, 5")]
    pub value: Option<PushValue>,
}

/// A value of an attribute.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum PushValue {
    /// Text.
    #[prost(string, tag = "2")]
    Text(String),
    /// A whole number.
    #[prost(sint64, tag = "3")]
    Int(i64),
    /// Any other number.
    #[prost(double, tag = "4")]
    Float(f64),
    /// True or false.
    #[prost(bool, tag = "5")]
    Bool(bool),
}

impl FileBatch {
    /// The stream's labels.
    pub fn stream_labels(&self) -> Result<Labels, LabelsError> {
        Labels::new(self.stream.iter().map(|pair| (pair.name.as_str(), pair.value.as_str())))
    }

    /// The time and the attributes of an entry.
    ///
    /// An entry that claims to be from before 1970 or more than ten minutes ahead gets the time at which
    /// it was received; attribute [`CLAIMED_TIME`] keeps what it said.
    pub fn time_and_attributes(
        &self,
        entry: &PushEntry,
        received: LogTime,
    ) -> (LogTime, Vec<(String, FieldValue)>) {
        let is_possible = (0..=received.0.saturating_add(AHEAD_MAX_NS)).contains(&entry.time_ns);
        let mut attributes: Vec<(String, FieldValue)> =
            entry.fields.iter().filter_map(PushField::to_pair).collect();
        if !is_possible {
            attributes.push((CLAIMED_TIME.to_owned(), FieldValue::Int(entry.time_ns)));
        }
        (if is_possible { LogTime(entry.time_ns) } else { received }, attributes)
    }

    /// The entry as the rest of the program knows it.
    pub fn to_entry(&self, stream: &Labels, entry: &PushEntry, received: LogTime) -> LogEntry {
        let (time, attributes) = self.time_and_attributes(entry, received);
        LogEntry {
            time,
            received,
            stream: stream.with("iostream", &entry.iostream),
            // Anything else would be a level that nobody asks for, and a name that nobody bounds.
            level: if LEVELS.contains(&entry.level.as_str()) { entry.level.clone() } else { String::new() },
            message: entry.message.clone(),
            attributes,
            origin: Origin { file: FileId(self.file.clone()), offset: entry.offset },
        }
    }
}

impl PushField {
    /// From the program's own form.
    pub fn new(name: String, value: FieldValue) -> Self {
        let value = match value {
            FieldValue::Text(value) => PushValue::Text(value),
            FieldValue::Int(value) => PushValue::Int(value),
            FieldValue::Float(value) => PushValue::Float(value),
            FieldValue::Bool(value) => PushValue::Bool(value),
        };
        Self { name, value: Some(value) }
    }

    /// To the program's own form; a value of a kind that a newer release added is left out.
    fn to_pair(&self) -> Option<(String, FieldValue)> {
        let value = match self.value.as_ref()? {
            PushValue::Text(value) => FieldValue::Text(value.clone()),
            PushValue::Int(value) => FieldValue::Int(*value),
            PushValue::Float(value) => FieldValue::Float(*value),
            PushValue::Bool(value) => FieldValue::Bool(*value),
        };
        Some((self.name.clone(), value))
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn bytes_on_the_wire_are_fixed_forever() {
        let push = LogPush {
            batches: vec![FileBatch {
                file: "f".into(),
                from: 1,
                to: 9,
                stream: vec![Pair { name: "pod".into(), value: "p".into() }],
                entries: vec![PushEntry {
                    time_ns: 2,
                    offset: 1,
                    message: b"m\xff".to_vec(),
                    level: "info".into(),
                    iostream: "stdout".into(),
                    fields: vec![PushField::new("k".into(), FieldValue::Int(-1))],
                }],
            }],
        };
        let golden = b"\n7\n\x01f\x10\x01\x18\t\"\x08\n\x03pod\x12\x01p*$\t\x02\0\0\0\0\0\0\0\x10\x01\
            \x1a\x02m\xff\"\x04info*\x06stdout2\x05\n\x01k\x18\x01";
        assert_eq!(push.encode_to_vec().escape_ascii().to_string(), golden.escape_ascii().to_string());
        assert_eq!(LogPush::decode(&golden[..]), Ok(push));
    }

    #[test]
    fn impossible_times_are_replaced_and_kept() {
        let batch = FileBatch::default();
        let received = LogTime(1_800_000_000_000_000_000);
        let entry = |time_ns| {
            let entry = PushEntry { time_ns, ..PushEntry::default() };
            batch.to_entry(&Labels::default(), &entry, received)
        };
        let ahead = received.0 + AHEAD_MAX_NS;
        for possible in [0, 1, received.0, ahead] {
            assert_eq!((entry(possible).time.0, entry(possible).attributes.len()), (possible, 0));
        }
        for impossible in [-1, i64::MIN, ahead + 1, i64::MAX] {
            let entry = entry(impossible);
            assert_eq!(entry.time, received);
            assert_eq!(entry.attributes, [(CLAIMED_TIME.to_owned(), FieldValue::Int(impossible))]);
        }
    }
}
