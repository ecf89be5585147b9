//! Loki's push, in protobuf. `intake::loki` reads what is written here, and names the fields.

use std::collections::BTreeMap;

use super::door::Answer;
use super::{Item, Verdict, value_of};
use crate::intake::{put_bytes, put_varint};

/// Streams by their labels, with the items of each in their order.
pub(super) fn encode(items: &[Item<'_>], labels: &[(String, String)]) -> Vec<u8> {
    let mut streams: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut text = Vec::new();
    for item in items {
        let stream = streams.entry(labels_of(item, labels)).or_default();
        text.clear();
        entry(item, &mut text);
        put_bytes(stream, 2, &text);
    }
    let mut body = Vec::new();
    for (labels, entries) in streams {
        let mut stream = Vec::with_capacity(labels.len() + entries.len() + 8);
        put_bytes(&mut stream, 1, labels.as_bytes());
        stream.extend_from_slice(&entries);
        put_bytes(&mut body, 1, &stream);
    }
    body
}

/// `{app="cart", service_name="shop"}`; what we call service is `service_name` there.
fn labels_of(item: &Item<'_>, others: &[(String, String)]) -> String {
    let own = item.batch.stream.iter().map(|pair| {
        let name = if pair.name == "service" { "service_name".to_owned() } else { name_of(&pair.name) };
        (name, &*pair.value)
    });
    let iostream = ("iostream".to_owned(), &*item.entry.iostream);
    let others = others.iter().map(|(name, value)| (name.clone(), &**value));
    let all: BTreeMap<String, &str> = own.chain([iostream]).chain(others).collect();
    let pairs = all.into_iter().filter(|(_, value)| !value.is_empty());
    let pairs: Vec<String> = pairs.map(|(name, value)| format!("{name}={}", quoted(value))).collect();
    format!("{{{}}}", pairs.join(", "))
}

fn quoted(value: &str) -> String {
    let mut out = String::with_capacity(value.len() + 2);
    out.push('"');
    for c in value.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Letters, digits and underscores: what Loki's labels are made of.
fn name_of(name: &str) -> String {
    let name: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) { format!("_{name}") } else { name }
}

fn entry(item: &Item<'_>, out: &mut Vec<u8>) {
    let entry = item.entry;
    let mut part = Vec::new();
    let (seconds, nanos) = (entry.time_ns.div_euclid(1_000_000_000), entry.time_ns.rem_euclid(1_000_000_000));
    for (field, number) in [(1, seconds), (2, nanos)] {
        if number != 0 {
            part.push(field << 3);
            put_varint(&mut part, number as u64);
        }
    }
    put_bytes(out, 1, &part);
    // Texts are UTF-8 there.
    put_bytes(out, 2, String::from_utf8_lossy(&entry.message).as_bytes());
    let mut metadata = |name: &str, value: &str| {
        if !value.is_empty() {
            part.clear();
            put_bytes(&mut part, 1, name.as_bytes());
            put_bytes(&mut part, 2, value.as_bytes());
            put_bytes(out, 3, &part);
        }
    };
    metadata("detected_level", &entry.level);
    for field in &entry.fields {
        if let Some(value) = value_of(field) {
            metadata(&field.name, &value.to_string());
        }
    }
}

/// What an answer with status 400 says: Loki has kept all but what it names.
pub(super) fn refused(answer: &Answer, sent: usize) -> Verdict {
    let text = String::from_utf8_lossy(&answer.body).to_ascii_lowercase();
    let reasons = [
        ("out of order", "out_of_order"),
        ("too far behind", "too_old"),
        ("timestamp too old", "too_old"),
        ("timestamp too new", "too_new"),
        ("max entry size", "too_large"),
        ("line too long", "too_large"),
    ];
    let reason =
        reasons.iter().find(|(said, _)| text.contains(said)).map_or("rejected", |(_, reason)| reason);
    // `total ignored: 1 out of 5`; where it says nothing of the kind, nothing was kept.
    let ignored = text.split("total ignored: ").nth(1).and_then(|rest| {
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<usize>().ok()
    });
    Verdict { refused: vec![(ignored.unwrap_or(sent).min(sent), reason.to_owned())], ..Verdict::default() }
}
