//! From what a sender says of a line to an entry: its stream, its level, its message and what comes beside.
//!
//! ```text
//! OTLP's records ─┐            ┌ identity    namespace pod container node app service iostream
//! syslog's lines ─┼─► Draft ───┤ level       said, or found in the message
//! documents ──────┘            └ attributes  all else, bounded; what is over is text in `_overflow`
//!                                   │
//!                                   └─► Gathered ─► LogPush, one batch per stream
//! ```
//!
//! Whatever the door, the same line becomes the same entry: names of OpenTelemetry, of Elastic's common schema, of
//! Fluent Bit and of Vector for one thing are one label here, as tailed files have it.

mod attributes;
mod document;
mod identity;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use binnacle_model::log::LEVELS;
use binnacle_model::meaning;
use binnacle_model::push::{FileBatch, LogPush, PushEntry, PushField, PushValue};

pub(super) use attributes::{Attributes, bound};
pub(super) use document::{Documents, Naming, Placed};
pub(super) use identity::{Identity, Names};

/// Lines and attributes of one body: an empty line is a few bytes there and a hundred in memory.
pub(super) const MAX_PARTS: usize = 2_000_000;

/// An entry in the making.
#[derive(Debug, Clone, Default)]
pub(super) struct Draft {
    pub(super) identity: Identity,
    /// Unix nanoseconds; `None` is now.
    pub(super) time_ns: Option<i64>,
    pub(super) message: Vec<u8>,
    /// One of ours, or empty where nothing said so.
    pub(super) level: &'static str,
    /// With a list, only the values of its gaps.
    pub(super) attributes: Attributes,
    /// The list of its stream that it shares with others.
    pub(super) list: Option<usize>,
}

impl Draft {
    /// Takes a text by which senders name the level; answers whether the level says all that it did.
    pub(super) fn set_level(&mut self, said: &str) -> bool {
        let level = meaning::level_named(said.trim());
        if !level.is_empty() && self.level.is_empty() {
            self.level = level;
        }
        !level.is_empty() && self.level.eq_ignore_ascii_case(said)
    }

    pub(super) fn attribute(&mut self, name: &str, value: PushValue) {
        self.attributes.add(name, value);
    }
}

/// Entries of one body by their streams, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub(super) push: LogPush,
    known: HashMap<Identity, usize>,
    parts: usize,
    /// Attributes that were over the bounds.
    pub(super) over: u64,
}

impl Gathered {
    /// Whether the entry was added: not past [`MAX_PARTS`] of one body.
    pub(super) fn add(&mut self, mut draft: Draft, now_ns: i64) -> bool {
        let mut identity = std::mem::take(&mut draft.identity);
        let iostream = identity.take_iostream();
        let batch = self.batch_of(&identity);
        self.push(draft, batch, iostream, (0, 0), now_ns)
    }

    /// As [`Self::add`], of a stream that is known.
    pub(super) fn add_to(&mut self, placed: &mut Placed, draft: Draft, now_ns: i64) -> bool {
        let batch = *placed.batch.get_or_insert_with(|| self.batch_of(&placed.identity));
        let shared = &mut self.push.batches[batch].shared;
        let shared = draft.list.map_or((0, 0), |list| placed.lists.number(list, shared));
        self.push(draft, batch, placed.iostream.clone(), shared, now_ns)
    }

    fn batch_of(&mut self, identity: &Identity) -> usize {
        if let Some(number) = self.known.get(identity) {
            return *number;
        }
        let number = self.push.batches.len();
        self.push.batches.push(FileBatch { stream: identity.labels(), ..FileBatch::default() });
        self.known.insert(identity.clone(), number);
        number
    }

    /// `shared` is the number of a list in the batch and how many attributes that has, those of its gaps among them.
    fn push(
        &mut self,
        draft: Draft,
        batch: usize,
        iostream: String,
        (shared, attributes_shared): (u32, usize),
        now_ns: i64,
    ) -> bool {
        let Draft { time_ns, message, level, attributes, .. } = draft;
        let (fields, over) = attributes.finish();
        self.parts += 1 + attributes_shared.max(fields.len());
        if self.parts > MAX_PARTS {
            return false;
        }
        self.over += over;
        let batch = &mut self.push.batches[batch];
        let level = if level.is_empty() { meaning::level(&message) } else { level };
        debug_assert!(level.is_empty() || LEVELS.contains(&level), "{level:?} is no level");
        batch.entries.push(PushEntry {
            time_ns: time_ns.unwrap_or(now_ns),
            // Keeps lines of one moment in their order.
            offset: batch.entries.len() as u64,
            message,
            level: level.to_owned(),
            iostream,
            fields,
            shared,
        });
        batch.to = batch.entries.len() as u64;
        true
    }

    pub(super) fn len(&self) -> usize {
        self.push.batches.iter().map(|batch| batch.entries.len()).sum()
    }
}

/// A text beside the message.
pub(super) fn text_field(name: &str, value: &str) -> PushField {
    PushField { name: name.to_owned(), value: Some(PushValue::Text(value.to_owned())) }
}
