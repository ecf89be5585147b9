//! What is sent at once, already in the form in which it is sent: a `LogPush` in protobuf.
//!
//! Lines go from the window of a file to the wire without a stop in between. `model::push` says what the fields are;
//! a test decodes with it what is written here.

use std::borrow::Cow;
use std::ops::Range;

use binnacle_model::push::Pair;
use prost::encoding::{encode_varint, encoded_len_varint};

use super::records::{Length, Passing};
use crate::journal::Value;

/// Part of a pack: some bytes of one file.
#[derive(Debug, Clone)]
pub(super) struct Part {
    /// Which file, by its number in the tailer.
    pub(super) file: u64,
    pub(super) from: u64,
    pub(super) to: u64,
    /// As of `to`.
    pub(super) passing: Option<Passing>,
    /// Where it stands in the pack. A part alone is a `LogPush`, too.
    pub(super) wire: Range<usize>,
}

/// What is sent at once.
#[derive(Debug, Default)]
pub(super) struct Pack {
    pub(super) wire: Vec<u8>,
    pub(super) parts: Vec<Part>,
    /// Which reading of the files it is of: see [`Answer::Overtaken`](super::sender::Answer::Overtaken).
    pub(super) reading: u64,
    entries: Vec<u8>,
}

/// One line on its way out.
pub(super) struct Entry<'a> {
    pub(super) time_ns: i64,
    pub(super) offset: u64,
    pub(super) message: &'a [u8],
    pub(super) level: &'a str,
    pub(super) iostream: &'a str,
    /// Of the message, if only its beginning is kept.
    pub(super) length: Length,
    /// What came beside the message.
    pub(super) attributes: &'a [(Cow<'a, str>, Value<'a>)],
}

/// Attribute of entries of which only the beginning is kept.
const TRUNCATED: &str = "truncated";
/// Attribute that says how long a truncated message was.
const FULL_BYTES: &str = "orig_len";

// Keys of protobuf: a field's number and its kind.
const KIND_VARINT: u64 = 0;
const KIND_FIXED64: u64 = 1;
const KIND_BYTES: u64 = 2;

const fn key(field: u64, kind: u64) -> u64 {
    field << 3 | kind
}

impl Pack {
    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Ready to be filled anew, with the memory that it has.
    pub(super) fn clear(&mut self) {
        self.wire.clear();
        self.parts.clear();
    }

    /// Adds a line to the part that is under way.
    pub(super) fn entry(&mut self, entry: &Entry<'_>) {
        let out = &mut self.entries;
        let mut fields = Vec::new();
        for (name, value) in entry.attributes {
            let mut encoded = Vec::new();
            match value {
                Value::Text(text) => bytes(2, text.as_bytes(), &mut encoded),
                Value::Int(number) => signed(*number, &mut encoded),
            }
            attribute(name, &encoded, &mut fields);
        }
        if entry.length != Length::Whole {
            attribute(TRUNCATED, &[key(5, KIND_VARINT) as u8, 1], &mut fields);
            if let Length::CutOf(full) = entry.length {
                let mut value = Vec::new();
                signed(i64::try_from(full).unwrap_or(i64::MAX), &mut value);
                attribute(FULL_BYTES, &value, &mut fields);
            }
        }
        let text = |field: u64, text: &[u8]| if text.is_empty() { 0 } else { sized(field, text.len()) };
        let offset = if entry.offset == 0 { 0 } else { 1 + encoded_len_varint(entry.offset) };
        let time = if entry.time_ns == 0 { 0 } else { 9 };
        let texts =
            text(3, entry.message) + text(4, entry.level.as_bytes()) + text(5, entry.iostream.as_bytes());
        encode_varint(key(5, KIND_BYTES), out);
        encode_varint((time + offset + texts + fields.len()) as u64, out);
        if entry.time_ns != 0 {
            out.push(key(1, KIND_FIXED64) as u8);
            out.extend_from_slice(&entry.time_ns.to_le_bytes());
        }
        if entry.offset != 0 {
            out.push(key(2, KIND_VARINT) as u8);
            encode_varint(entry.offset, out);
        }
        for (field, text) in [(3, entry.message), (4, entry.level.as_bytes()), (5, entry.iostream.as_bytes())]
        {
            if !text.is_empty() {
                bytes(field, text, out);
            }
        }
        out.extend_from_slice(&fields);
    }

    /// Ends the part under way: `name` is the file's in the store, `stream` comes from [`encode_stream`].
    pub(super) fn end_part(&mut self, mut part: Part, name: &str, stream: &[u8]) {
        let place = [(2, part.from), (3, part.to)];
        let numbers: usize =
            place.iter().filter(|(_, n)| *n != 0).map(|(_, n)| 1 + encoded_len_varint(*n)).sum();
        let whole = [key(7, KIND_VARINT) as u8, 1];
        let length = sized(1, name.len()) + numbers + stream.len() + self.entries.len() + whole.len();
        let start = self.wire.len();
        encode_varint(key(1, KIND_BYTES), &mut self.wire);
        encode_varint(length as u64, &mut self.wire);
        bytes(1, name.as_bytes(), &mut self.wire);
        for (field, number) in place.into_iter().filter(|(_, number)| *number != 0) {
            encode_varint(key(field, KIND_VARINT), &mut self.wire);
            encode_varint(number, &mut self.wire);
        }
        self.wire.extend_from_slice(stream);
        self.wire.append(&mut self.entries);
        self.wire.extend_from_slice(&whole);
        part.wire = start..self.wire.len();
        self.parts.push(part);
    }
}

/// The labels of a stream, as they stand in each batch.
pub(super) fn encode_stream(pairs: &[Pair]) -> Vec<u8> {
    let mut out = Vec::new();
    for pair in pairs {
        let name = if pair.name.is_empty() { 0 } else { sized(1, pair.name.len()) };
        let value = if pair.value.is_empty() { 0 } else { sized(2, pair.value.len()) };
        encode_varint(key(4, KIND_BYTES), &mut out);
        encode_varint((name + value) as u64, &mut out);
        for (field, text) in [(1, &pair.name), (2, &pair.value)] {
            if !text.is_empty() {
                bytes(field, text.as_bytes(), &mut out);
            }
        }
    }
    out
}

/// A field of an entry, with its value as it stands behind its name.
fn attribute(name: &str, value: &[u8], out: &mut Vec<u8>) {
    encode_varint(key(6, KIND_BYTES), out);
    encode_varint((sized(1, name.len()) + value.len()) as u64, out);
    bytes(1, name.as_bytes(), out);
    out.extend_from_slice(value);
}

/// A signed number, zigzag.
fn signed(number: i64, out: &mut Vec<u8>) {
    out.push(key(3, KIND_VARINT) as u8);
    encode_varint((number << 1 ^ number >> 63) as u64, out);
}

/// What a field of so many bytes takes.
fn sized(field: u64, length: usize) -> usize {
    encoded_len_varint(key(field, KIND_BYTES)) + encoded_len_varint(length as u64) + length
}

fn bytes(field: u64, text: &[u8], out: &mut Vec<u8>) {
    encode_varint(key(field, KIND_BYTES), out);
    encode_varint(text.len() as u64, out);
    out.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use binnacle_model::log::FieldValue;
    use binnacle_model::push::{FileBatch, LogPush, PushEntry, PushField};
    use prost::Message;

    use super::*;

    #[test]
    fn a_pack_is_a_log_push_and_so_is_each_of_its_parts() {
        let mut pack = Pack::default();
        let mut want = Vec::new();
        let streams = [vec![Pair { name: "pod".into(), value: "p".into() }, Pair::default()], Vec::new()];
        for (file, stream) in (0u64..).zip(&streams) {
            let mut entries = Vec::new();
            for (at, length) in [Length::Whole, Length::Cut, Length::CutOf(5_000_000)].into_iter().enumerate()
            {
                let offset = file * 300 + at as u64 * 7;
                let message = vec![b'\xff'; at * 100];
                let (level, iostream) = [("", ""), ("info", "stdout"), ("warn", "stderr")][at];
                let time_ns = [0, 1_700_000_000_000_000_000, -5][at];
                let text = Value::Text(Cow::Borrowed("kubelet.service"));
                let attributes = [("unit".into(), text), ("pid".into(), Value::Int(-7))];
                let attributes = &attributes[..at];
                pack.entry(&Entry {
                    time_ns,
                    offset,
                    message: &message,
                    level,
                    iostream,
                    length,
                    attributes,
                });
                let unit = PushField::new("unit".into(), FieldValue::Text("kubelet.service".into()));
                let mut fields = [unit, PushField::new("pid".into(), FieldValue::Int(-7))][..at].to_vec();
                if length != Length::Whole {
                    fields.push(PushField::new("truncated".into(), FieldValue::Bool(true)));
                }
                if let Length::CutOf(full) = length {
                    fields.push(PushField::new("orig_len".into(), FieldValue::Int(full as i64)));
                }
                let (level, iostream) = (level.to_owned(), iostream.to_owned());
                entries.push(PushEntry { time_ns, offset, message, level, iostream, fields, shared: 0 });
            }
            let (from, to) = (file * 300, file * 300 + 200);
            let part = Part { file, from, to, passing: None, wire: 0..0 };
            let name = format!("node/{file}");
            pack.end_part(part, &name, &encode_stream(stream));
            want.push(FileBatch {
                file: name,
                from,
                to,
                stream: stream.clone(),
                entries,
                shared: Vec::new(),
                is_whole: true,
            });
        }
        let decoded = LogPush::decode(&*pack.wire).unwrap();
        assert_eq!(decoded, LogPush { batches: want.clone() });
        assert_eq!(decoded.encode_to_vec(), pack.wire, "byte for byte as prost writes it");
        for (part, want) in pack.parts.iter().zip(want) {
            let decoded = LogPush::decode(&pack.wire[part.wire.clone()]).unwrap();
            assert_eq!(decoded.batches, [want]);
        }
    }
}
