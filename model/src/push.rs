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
    /// Attributes that several of the lines have; see [`PushEntry::shared`].
    #[prost(message, repeated, tag = "6")]
    pub shared: Vec<SharedFields>,
    /// Its entries were made of all of its bytes together, and some may be several lines of the file: if the store has a
    /// part of the bytes, but not all, it takes none of them ([`AppendError::Overtaken`](crate::storage::AppendError)).
    #[prost(bool, tag = "7")]
    pub is_whole: bool,
}

/// Attributes that several lines have in common, in their order.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SharedFields {
    /// Names, and the values that are the same for all.
    #[prost(message, repeated, tag = "1")]
    pub fields: Vec<PushField>,
    /// Places in `fields`, ascending, at which each line has a value of its own.
    #[prost(uint32, repeated, tag = "2")]
    pub gaps: Vec<u32>,
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
    /// What came beside the message. Of a line that shares attributes: first the values of their gaps, without names,
    /// then what comes behind them.
    #[prost(message, repeated, tag = "6")]
    pub fields: Vec<PushField>,
    /// Which of [`FileBatch::shared`] its attributes begin with, counted from one; zero is none.
    #[prost(uint32, tag = "7")]
    pub shared: u32,
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

impl LogPush {
    /// Gives each entry all its attributes itself, for whoever knows nothing of shared ones.
    pub fn spread(&mut self) {
        self.batches.iter_mut().for_each(FileBatch::spread);
    }
}

impl FileBatch {
    /// The stream's labels.
    pub fn stream_labels(&self) -> Result<Labels, LabelsError> {
        Labels::new(self.stream.iter().map(|pair| (pair.name.as_str(), pair.value.as_str())))
    }

    /// What an entry shares with others.
    pub fn shared_of(&self, entry: &PushEntry) -> Option<&SharedFields> {
        self.shared.get((entry.shared as usize).checked_sub(1)?)
    }

    /// Names and values of what an entry says beside its message, in their order; a value of a kind that a newer release
    /// added is left out.
    pub fn fields_of<'a>(
        &'a self,
        entry: &'a PushEntry,
    ) -> impl Iterator<Item = (&'a str, &'a PushValue)> + Clone {
        let shared = self.shared_of(entry);
        let mut fields = (0..).zip(shared.map_or(&[][..], |shared| &shared.fields));
        let mut gaps = shared.map_or(&[][..], |shared| &shared.gaps);
        let mut own = entry.fields.iter();
        std::iter::from_fn(move || {
            loop {
                let (name, value) = match fields.next() {
                    Some((at, field)) if gaps.first() == Some(&at) => {
                        gaps = &gaps[1..];
                        (&field.name, own.next().and_then(|own| own.value.as_ref()))
                    }
                    Some((_, field)) => (&field.name, field.value.as_ref()),
                    None => own.next().map(|field| (&field.name, field.value.as_ref()))?,
                };
                if let Some(value) = value {
                    return Some((name.as_str(), value));
                }
            }
        })
    }

    /// Gives each entry all its attributes itself.
    fn spread(&mut self) {
        for at in 0..self.entries.len() {
            let entry = &self.entries[at];
            if self.shared_of(entry).is_some() {
                let pair = |(name, value): (&str, &PushValue)| PushField {
                    name: name.to_owned(),
                    value: Some(value.clone()),
                };
                self.entries[at].fields = self.fields_of(entry).map(pair).collect();
            }
            self.entries[at].shared = 0;
        }
        self.shared.clear();
    }

    /// The time of an entry, and what it says of that.
    ///
    /// An entry that claims to be from before 1970 or more than ten minutes ahead gets the time at which
    /// it was received; attribute [`CLAIMED_TIME`], behind all others, keeps what it said.
    pub fn time_and_claim(&self, entry: &PushEntry, received: LogTime) -> (LogTime, Option<i64>) {
        let is_possible = (0..=received.0.saturating_add(AHEAD_MAX_NS)).contains(&entry.time_ns);
        if is_possible { (LogTime(entry.time_ns), None) } else { (received, Some(entry.time_ns)) }
    }

    /// The entry as the rest of the program knows it.
    pub fn to_entry(&self, stream: &Labels, entry: &PushEntry, received: LogTime) -> LogEntry {
        let (time, claimed) = self.time_and_claim(entry, received);
        let fields = self.fields_of(entry).map(|(name, value)| (name.to_owned(), value.to_field()));
        let claimed = claimed.map(|time| (CLAIMED_TIME.to_owned(), FieldValue::Int(time)));
        let attributes = fields.chain(claimed).collect();
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
}

impl PushValue {
    /// To the program's own form.
    fn to_field(&self) -> FieldValue {
        match self {
            Self::Text(value) => FieldValue::Text(value.clone()),
            Self::Int(value) => FieldValue::Int(*value),
            Self::Float(value) => FieldValue::Float(*value),
            Self::Bool(value) => FieldValue::Bool(*value),
        }
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
                    shared: 0,
                }],
                shared: Vec::new(),
                is_whole: false,
            }],
        };
        let golden = b"\n7\n\x01f\x10\x01\x18\t\"\x08\n\x03pod\x12\x01p*$\t\x02\0\0\0\0\0\0\0\x10\x01\
            \x1a\x02m\xff\"\x04info*\x06stdout2\x05\n\x01k\x18\x01";
        assert_eq!(push.encode_to_vec().escape_ascii().to_string(), golden.escape_ascii().to_string());
        assert_eq!(LogPush::decode(&golden[..]), Ok(push));
    }

    fn sharing() -> FileBatch {
        let text = |name: &str, value: &str| PushField::new(name.into(), FieldValue::Text(value.into()));
        let gap = |name: &str| PushField { name: name.into(), value: None };
        let own = |value| PushField::new(String::new(), FieldValue::Int(value));
        let shared = [
            SharedFields {
                fields: vec![text("a", "1"), gap("n"), text("b", "2"), gap("n")],
                gaps: vec![1, 3],
            },
            SharedFields { fields: vec![text("c", "3"), gap("new")], gaps: Vec::new() },
        ];
        let entry = |shared, fields: &[PushField]| PushEntry {
            shared,
            fields: fields.to_vec(),
            ..PushEntry::default()
        };
        let entries = vec![
            entry(1, &[own(7), own(8)]),
            entry(1, &[own(7), gap(""), text("d", "4"), gap("new")]),
            entry(2, &[]),
            entry(0, &[text("e", "5")]),
            entry(1, &[own(9)]),
        ];
        FileBatch { shared: shared.to_vec(), entries, ..FileBatch::default() }
    }

    fn shown(batch: &FileBatch) -> Vec<String> {
        let show = |value: &PushValue| match value {
            PushValue::Text(text) => text.clone(),
            other => format!("{:?}", other.to_field()),
        };
        let all = |entry| batch.fields_of(entry).map(|(name, value)| format!("{name}={}", show(value)));
        batch.entries.iter().map(|entry| all(entry).collect::<Vec<_>>().join(" ")).collect()
    }

    #[test]
    fn shared_attributes_come_first_with_their_gaps_filled() {
        let batch = sharing();
        let want = ["a=1 n=Int(7) b=2 n=Int(8)", "a=1 n=Int(7) b=2 d=4", "c=3", "e=5", "a=1 n=Int(9) b=2"];
        assert_eq!(shown(&batch), want);
        let entry = batch.to_entry(&Labels::default(), &batch.entries[1], LogTime(1));
        let names: Vec<&str> = entry.attributes.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a", "n", "b", "d"]);
        let mut push = LogPush { batches: vec![batch] };
        assert_eq!(LogPush::decode(&*push.encode_to_vec()), Ok(push.clone()));
        push.spread();
        assert_eq!(shown(&push.batches[0]), want);
        let is_plain =
            |entry: &PushEntry| entry.shared == 0 && entry.fields.iter().all(|field| !field.name.is_empty());
        assert!(push.batches[0].shared.is_empty() && push.batches[0].entries.iter().all(is_plain));
    }

    #[test]
    fn bytes_of_shared_attributes_are_fixed_forever() {
        let golden = b"*\n2\x02\x18\x0e2\x02\x18\x108\x01";
        let batch = FileBatch { entries: sharing().entries[..1].to_vec(), ..FileBatch::default() };
        assert_eq!(batch.encode_to_vec().escape_ascii().to_string(), golden.escape_ascii().to_string());
        let golden =
            b"2\x1e\n\x06\n\x01a\x12\x011\n\x03\n\x01n\n\x06\n\x01b\x12\x012\n\x03\n\x01n\x12\x02\x01\x03";
        let batch = FileBatch { shared: sharing().shared[..1].to_vec(), ..FileBatch::default() };
        assert_eq!(batch.encode_to_vec().escape_ascii().to_string(), golden.escape_ascii().to_string());
        let batch = FileBatch { is_whole: true, ..FileBatch::default() };
        assert_eq!(batch.encode_to_vec(), b"8\x01");
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
