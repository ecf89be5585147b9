//! The message of Promtail and its kin, walked field by field. Field numbers are those of Loki's `push.proto`:
//!
//! ```text
//! PushRequest  1: Stream*
//! Stream       1: labels text   2: Entry*
//! Entry        1: Timestamp     2: line text   3: Pair* (structured metadata)
//! Timestamp    1: seconds       2: nanoseconds
//! Pair         1: name text     2: value text
//! ```

use binnacle_model::push::{PushField, PushValue};

use super::super::Refusal;
use super::super::wire::{Fields, WireError};
use super::labels::Stream;
use super::{Batch, Budget, Line, Pushed, TOO_MANY};

/// Reads a decompressed body.
pub(super) fn read(body: &[u8]) -> Result<Pushed, Refusal> {
    let mut pushed = Pushed::default();
    let mut budget = Budget::new();
    let mut fields = Fields::new(body, 0);
    while let Some(field) = fields.next().map_err(|error| bad(&error))? {
        if let (1, Some(bytes)) = (field.number, field.bytes) {
            take(&mut budget)?;
            stream(bytes, field.at, &mut budget, &mut pushed)?;
        }
    }
    Ok(pushed)
}

fn bad(error: &WireError) -> Refusal {
    let WireError { at, reason } = error;
    Refusal::Bad(format!("couldn't parse push request: proto: {reason} at byte {at}"))
}

fn take(budget: &mut Budget) -> Result<(), Refusal> {
    if budget.take() { Ok(()) } else { Err(Refusal::TooLarge(TOO_MANY.to_owned())) }
}

/// The text of a label or of metadata, which is UTF-8 in every protobuf message.
fn text(bytes: &[u8], at: usize) -> Result<&str, Refusal> {
    let bad_text =
        |_| Refusal::Bad(format!("couldn't parse push request: proto: text at byte {at} is not UTF-8"));
    std::str::from_utf8(bytes).map_err(bad_text)
}

fn stream(body: &[u8], at: usize, budget: &mut Budget, pushed: &mut Pushed) -> Result<(), Refusal> {
    // Labels come first with everybody; who writes them last is read twice.
    let mut labels = "";
    let mut entries = 0;
    let mut fields = Fields::new(body, at);
    while let Some(field) = fields.next().map_err(|error| bad(&error))? {
        match (field.number, field.bytes) {
            (1, Some(bytes)) => labels = text(bytes, field.at)?,
            (2, Some(_)) => entries += 1,
            _ => {}
        }
    }
    if entries == 0 {
        return Ok(());
    }
    let mut batch = match Stream::parse(labels) {
        Ok(stream) => Batch::new(stream),
        Err(refusal) => return pushed.refuse(refusal),
    };
    batch.entries.reserve_exact(entries.min(budget.0));
    let mut fields = Fields::new(body, at);
    while let Some(field) = fields.next().map_err(|error| bad(&error))? {
        if let (2, Some(bytes)) = (field.number, field.bytes) {
            take(budget)?;
            batch.push(entry(bytes, field.at, budget)?);
        }
    }
    batch.finish(&mut pushed.push);
    Ok(())
}

fn entry<'a>(body: &'a [u8], at: usize, budget: &mut Budget) -> Result<Line<'a>, Refusal> {
    let mut line = Line { time_ns: 0, text: b"", metadata: Vec::new() };
    let mut fields = Fields::new(body, at);
    while let Some(field) = fields.next().map_err(|error| bad(&error))? {
        match (field.number, field.bytes) {
            (1, Some(bytes)) => line.time_ns = time(bytes, field.at)?,
            (2, Some(bytes)) => line.text = bytes,
            (3, Some(bytes)) => {
                take(budget)?;
                line.metadata.extend(pair(bytes, field.at)?);
            }
            _ => {}
        }
    }
    Ok(line)
}

fn time(body: &[u8], at: usize) -> Result<i64, Refusal> {
    let (mut seconds, mut nanos) = (0i64, 0i64);
    let mut fields = Fields::new(body, at);
    while let Some(field) = fields.next().map_err(|error| bad(&error))? {
        match field.number {
            1 => seconds = field.number_value as i64,
            2 => nanos = field.number_value as i64,
            _ => {}
        }
    }
    Ok(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

/// A piece of metadata; one without a name is none.
fn pair(body: &[u8], at: usize) -> Result<Option<PushField>, Refusal> {
    let (mut name, mut value) = ("", "");
    let mut fields = Fields::new(body, at);
    while let Some(field) = fields.next().map_err(|error| bad(&error))? {
        match (field.number, field.bytes) {
            (1, Some(bytes)) => name = text(bytes, field.at)?,
            (2, Some(bytes)) => value = text(bytes, field.at)?,
            _ => {}
        }
    }
    let is_there = !name.is_empty() && !value.is_empty();
    Ok(is_there.then(|| PushField { name: name.to_owned(), value: Some(PushValue::Text(value.to_owned())) }))
}
