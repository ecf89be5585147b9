//! The schema of a partition, and an entry as a document. See `store/docs/format/logs.md`.

use binnacle_model::log::{FieldValue, LogEntry, STREAM_FIELDS};
use binnacle_model::push::{FileBatch, Pair, PushEntry, PushField};
use binnacle_model::tokens::{Words, words};
use binnacle_model::{Labels, LogTime};
use prost::Message;
use tantivy::TantivyDocument;
use tantivy::schema::{
    BytesOptions, Field, IndexRecordOption, JsonObjectOptions, NumericOptions, OwnedValue, Schema,
    TextFieldIndexing, TextOptions, Value,
};
use tantivy::tokenizer::{Token, TokenStream, Tokenizer};
use xxhash_rust::xxh3::xxh3_64;

/// Name under which the tokenizer is registered.
pub(crate) const WORDS: &str = "words";

/// The fields of every partition.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields {
    pub(crate) time: Field,
    pub(crate) file: Field,
    pub(crate) offset: Field,
    pub(crate) message: Field,
    pub(crate) stream: [Field; STREAM_FIELDS.len()],
    pub(crate) key: Field,
    pub(crate) text: Field,
    pub(crate) number: Field,
    pub(crate) entry: Field,
}

/// What the store keeps of an entry to give it back.
#[derive(Clone, PartialEq, Message)]
struct Stored {
    #[prost(sfixed64, tag = "1")]
    received_ns: i64,
    #[prost(message, optional, tag = "2")]
    batch: Option<FileBatch>,
}

pub(crate) fn build() -> (Schema, Fields) {
    let indexing = |tokenizer, option| {
        TextFieldIndexing::default().set_tokenizer(tokenizer).set_index_option(option).set_fieldnorms(false)
    };
    let words = || indexing(WORDS, IndexRecordOption::WithFreqsAndPositions);
    let whole = || indexing("raw", IndexRecordOption::Basic);
    let keyword = TextOptions::default().set_indexing_options(whole());
    let fast = NumericOptions::default().set_fast();
    let mut schema = Schema::builder();
    let fields = Fields {
        time: schema.add_i64_field("time", fast.clone()),
        file: schema.add_u64_field("file", fast.clone()),
        offset: schema.add_u64_field("offset", fast),
        message: schema.add_text_field("message", TextOptions::default().set_indexing_options(words())),
        stream: STREAM_FIELDS.map(|name| schema.add_text_field(name, keyword.clone().set_fast("raw"))),
        key: schema.add_text_field("key", keyword),
        text: schema.add_json_field("text", JsonObjectOptions::default().set_indexing_options(words())),
        number: schema.add_json_field("number", JsonObjectOptions::default().set_indexing_options(whole())),
        entry: schema.add_bytes_field("entry", BytesOptions::default().set_stored()),
    };
    (schema.build(), fields)
}

/// The document of an entry.
pub(crate) fn to_document(fields: &Fields, entry: &LogEntry) -> TantivyDocument {
    let mut document = TantivyDocument::new();
    document.add_i64(fields.time, entry.time.0);
    document.add_u64(fields.file, file_number(entry));
    document.add_u64(fields.offset, entry.origin.offset);
    document.add_text(fields.message, String::from_utf8_lossy(&entry.message));
    for (field, name) in fields.stream.iter().zip(STREAM_FIELDS) {
        let value = entry.stream_field(name);
        if !value.is_empty() {
            document.add_text(*field, value.to_lowercase());
        }
    }
    let mut texts = Vec::new();
    let mut numbers = Vec::new();
    for (key, value) in &entry.fields {
        let key = index_key(key);
        document.add_text(fields.key, &key);
        match value {
            FieldValue::Text(value) => texts.push((key, OwnedValue::Str(value.clone()))),
            FieldValue::Bool(value) => texts.push((key, OwnedValue::Str(value.to_string()))),
            FieldValue::Int(_) | FieldValue::Float(_) => {
                let sorted = value.as_f64().and_then(sortable);
                numbers.extend(sorted.map(|hex| (key, OwnedValue::Str(hex))));
            }
        }
    }
    if !texts.is_empty() {
        document.add_field_value(fields.text, &OwnedValue::Object(texts));
    }
    if !numbers.is_empty() {
        document.add_field_value(fields.number, &OwnedValue::Object(numbers));
    }
    document.add_bytes(fields.entry, &encode(entry));
    document
}

/// tantivy leaves out keys with a NUL byte; nobody misses it.
pub(crate) fn index_key(key: &str) -> String {
    key.replace('\0', "\u{fffd}")
}

/// The number of an entry's file, as cursors say it.
pub(crate) fn file_number(entry: &LogEntry) -> u64 {
    xxh3_64(entry.origin.file.0.as_bytes())
}

/// 16 hex digits that sort as the numbers do; `None` for NaN, which is in no range.
pub(crate) fn sortable(value: f64) -> Option<String> {
    if value.is_nan() {
        return None;
    }
    let bits = (value + 0.0).to_bits();
    let ordered = if bits >> 63 == 1 { !bits } else { bits | 1 << 63 };
    Some(format!("{ordered:016x}"))
}

fn encode(entry: &LogEntry) -> Vec<u8> {
    let stream = entry.stream.iter().filter(|label| &*label.name != "iostream");
    let batch = FileBatch {
        file: entry.origin.file.0.clone(),
        from: 0,
        to: 0,
        stream: stream
            .map(|label| Pair { name: label.name.to_string(), value: label.value.to_string() })
            .collect(),
        entries: vec![PushEntry {
            time_ns: entry.time.0,
            offset: entry.origin.offset,
            message: entry.message.clone(),
            level: entry.level.clone(),
            iostream: entry.stream.value("iostream").to_owned(),
            fields: entry
                .fields
                .iter()
                .map(|(name, value)| PushField::new(name.clone(), value.clone()))
                .collect(),
        }],
    };
    Stored { received_ns: entry.received.0, batch: Some(batch) }.encode_to_vec()
}

/// The entry of a stored document; `None` if the bytes are damaged.
pub(crate) fn from_document(fields: &Fields, document: &TantivyDocument) -> Option<LogEntry> {
    let stored = Stored::decode(document.get_first(fields.entry)?.as_bytes()?).ok()?;
    let batch = stored.batch?;
    let stream: Labels = batch.stream_labels().ok()?;
    Some(batch.to_entry(&stream, batch.entries.first()?, LogTime(stored.received_ns)))
}

/// Cuts text as [`binnacle_model::tokens`] says.
#[derive(Debug, Clone, Default)]
pub(crate) struct WordTokenizer {
    token: Token,
}

impl Tokenizer for WordTokenizer {
    type TokenStream<'a> = WordStream<'a>;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> WordStream<'a> {
        self.token.reset();
        WordStream { text, words: words(text), token: &mut self.token }
    }
}

pub(crate) struct WordStream<'a> {
    text: &'a str,
    words: Words<'a>,
    token: &'a mut Token,
}

impl TokenStream for WordStream<'_> {
    fn advance(&mut self) -> bool {
        let Some(span) = self.words.next_span() else { return false };
        let word = &self.text[span.clone()];
        self.token.text.clear();
        if word.is_ascii() {
            self.token.text.push_str(word);
            self.token.text.make_ascii_lowercase();
        } else {
            self.token.text.push_str(&word.to_lowercase());
        }
        self.token.offset_from = span.start;
        self.token.offset_to = span.end;
        self.token.position = self.token.position.wrapping_add(1);
        true
    }

    fn token(&self) -> &Token {
        self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        self.token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sortable_hex_sorts_as_numbers_do() {
        let numbers = [f64::NEG_INFINITY, -1e9, -1.5, -0.0, 1e-300, 0.5, 503.0, 1e18, f64::INFINITY];
        let hex: Vec<String> = numbers.iter().filter_map(|n| sortable(*n)).collect();
        assert!(hex.is_sorted(), "{hex:?}");
        assert_eq!(sortable(-0.0), sortable(0.0));
        assert_eq!(sortable(f64::NAN), None);
    }
}
