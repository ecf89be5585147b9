//! What lines say beside their messages, on its way into a page: names that are known, and a cell for each value.
//!
//! What lines of one batch share is looked at once for all of them.

use binnacle_model::log::FieldValue;
use binnacle_model::push::{CLAIMED_TIME, FileBatch, PushEntry, PushValue};

use super::tables::OpenTables;
use crate::logs::names::{KnownNames, NamesNumber};
use crate::logs::split::{Cell, body, encode};
use crate::logs::template::{Beside, ValueKind};

/// A value, wherever it lies.
#[derive(Debug, Clone, Copy)]
enum Value<'a> {
    Text(&'a str),
    Int(i64),
    Float(f64),
    Bool(bool),
}

impl Value<'_> {
    fn kind(self) -> ValueKind {
        match self {
            Self::Text(_) => ValueKind::Text,
            Self::Int(_) => ValueKind::Int,
            Self::Float(_) => ValueKind::Float,
            Self::Bool(_) => ValueKind::Bool,
        }
    }

    fn cell(self, tables: &mut OpenTables) -> Cell {
        match self {
            Self::Text(text) => encode(text.as_bytes(), tables),
            Self::Int(value) => encode(itoa::Buffer::new().format(value).as_bytes(), tables),
            Self::Float(value) => body(&value.to_le_bytes(), tables),
            Self::Bool(value) => encode(if value { b"1" } else { b"0" }, tables),
        }
    }

    fn bytes(self) -> usize {
        if let Self::Text(text) = self { text.len() } else { 8 }
    }
}

impl<'a> From<&'a PushValue> for Value<'a> {
    fn from(value: &'a PushValue) -> Self {
        match value {
            PushValue::Text(text) => Self::Text(text),
            PushValue::Int(value) => Self::Int(*value),
            PushValue::Float(value) => Self::Float(*value),
            PushValue::Bool(value) => Self::Bool(*value),
        }
    }
}

impl<'a> From<&'a FieldValue> for Value<'a> {
    fn from(value: &'a FieldValue) -> Self {
        match value {
            FieldValue::Text(text) => Self::Text(text),
            FieldValue::Int(value) => Self::Int(*value),
            FieldValue::Float(value) => Self::Float(*value),
            FieldValue::Bool(value) => Self::Bool(*value),
        }
    }
}

/// The attributes of one line.
#[derive(Debug, Default)]
pub(super) struct Attributes {
    known: KnownNames,
    /// None before the first line.
    names: Option<NamesNumber>,
    cells: Vec<u64>,
    /// Of names and values.
    bytes: usize,
}

/// The lists of attributes that lines of one batch share, as far as they were met.
pub(super) struct OfBatch<'a> {
    batch: &'a FileBatch,
    lists: Vec<Option<Shared>>,
}

impl<'a> OfBatch<'a> {
    pub(super) fn new(batch: &'a FileBatch) -> Self {
        Self { batch, lists: batch.shared.iter().map(|_| None).collect() }
    }
}

/// A list of shared attributes in one page.
struct Shared {
    names: NamesNumber,
    /// A cell for each value, those of the gaps empty.
    cells: Vec<u64>,
    /// Where the gaps are, and of which kind the values were that the last line had there.
    gaps: Vec<(usize, ValueKind)>,
    /// Of names, and of values that are shared.
    bytes: usize,
}

impl Attributes {
    /// Takes those of a line of a batch: all that the batch and the entry say, and the time that the entry claims.
    pub(super) fn take(
        &mut self,
        of_batch: &mut OfBatch<'_>,
        entry: &PushEntry,
        claimed: Option<i64>,
        tables: &mut OpenTables,
    ) {
        let list = (entry.shared as usize).checked_sub(1).filter(|_| claimed.is_none());
        let list = list.and_then(|list| of_batch.lists.get_mut(list));
        if let Some(list) = list {
            if let Some(shared) = list
                && self.fill(shared, entry, tables)
            {
                return;
            }
            *list = self.learn(of_batch.batch, entry, tables);
            if let Some(shared) = list
                && self.fill(shared, entry, tables)
            {
                return;
            }
        }
        let fields = of_batch.batch.fields_of(entry).map(|(name, value)| (name, Value::from(value)));
        let claimed = claimed.map(|time| (CLAIMED_TIME, Value::Int(time)));
        self.take_all(fields.chain(claimed), tables);
    }

    /// Takes those of an entry.
    pub(super) fn take_plain(&mut self, attributes: &[(String, FieldValue)], tables: &mut OpenTables) {
        self.take_all(attributes.iter().map(|(name, value)| (name.as_str(), Value::from(value))), tables);
    }

    fn take_all<'v>(
        &mut self,
        all: impl Iterator<Item = (&'v str, Value<'v>)> + Clone,
        tables: &mut OpenTables,
    ) {
        self.names = Some(self.known.number(all.clone().map(|(name, value)| (name, value.kind()))));
        self.cells.clear();
        self.bytes = 0;
        for (name, value) in all {
            self.cells.push(value.cell(tables).0);
            self.bytes += name.len() + value.bytes();
        }
    }

    /// What the entry shares with others, if all of it can be read and the entry fills every gap and says no more.
    fn learn(&mut self, batch: &FileBatch, entry: &PushEntry, tables: &mut OpenTables) -> Option<Shared> {
        let list = batch.shared_of(entry)?;
        let is_gap = |at: usize| list.gaps.iter().any(|gap| *gap as usize == at);
        let is_whole = list.fields.iter().enumerate().all(|(at, field)| field.value.is_some() || is_gap(at));
        if !is_whole || list.gaps.len() != entry.fields.len() {
            return None;
        }
        let pairs = || batch.fields_of(entry).map(|(name, value)| (name, Value::from(value)));
        let mut shared = Shared {
            names: self.known.number(pairs().map(|(name, value)| (name, value.kind()))),
            cells: Vec::with_capacity(list.fields.len()),
            gaps: Vec::with_capacity(list.gaps.len()),
            bytes: 0,
        };
        for (at, (name, value)) in pairs().enumerate() {
            shared.bytes += name.len();
            if is_gap(at) {
                shared.gaps.push((at, value.kind()));
                shared.cells.push(0);
            } else {
                shared.cells.push(value.cell(tables).0);
                shared.bytes += value.bytes();
            }
        }
        (shared.cells.len() == list.fields.len()).then_some(shared)
    }

    /// Takes what is shared and fills its gaps; `false` if the entry has other values in them than the one before.
    fn fill(&mut self, shared: &Shared, entry: &PushEntry, tables: &mut OpenTables) -> bool {
        let own = || entry.fields.iter().map(|field| field.value.as_ref().map(Value::from));
        let kinds = shared.gaps.iter().map(|(_, kind)| Some(*kind));
        if !own().map(|value| value.map(Value::kind)).eq(kinds) {
            return false;
        }
        self.names = Some(shared.names);
        self.cells.clear();
        self.cells.extend_from_slice(&shared.cells);
        self.bytes = shared.bytes;
        for ((at, _), value) in shared.gaps.iter().zip(own().flatten()) {
            self.cells[*at] = value.cell(tables).0;
            self.bytes += value.bytes();
        }
        true
    }

    /// What besides its message makes the template of the line.
    pub(super) fn beside(&mut self, level: u8) -> Beside<'_> {
        let names = self.names.unwrap_or_else(|| self.known.number(std::iter::empty()));
        let (names, hash) = self.known.get(names);
        Beside { level, names, hash }
    }

    /// A cell for each value.
    pub(super) fn cells(&self) -> &[u64] {
        &self.cells
    }

    /// Bytes of names and values.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Forgets all names.
    pub(super) fn forget(&mut self) {
        self.known.clear();
        self.names = None;
    }
}
