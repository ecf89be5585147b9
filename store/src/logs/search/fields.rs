//! Fields of JSON and logfmt as columns: where the key before a hole says whose value its variables are, no message is put
//! together.

use std::collections::HashMap;
use std::sync::Arc;

use binnacle_model::log::{Field, FieldValue};
use binnacle_model::log_query::{LogQuery, Phrase, Test};
use binnacle_model::meaning::{FieldShape, Part, Shape};
use binnacle_model::storage::StorageError;
use binnacle_model::tokens::words;

use super::Broken;
use super::narrow::{Answer, OfTemplate};
use super::plan::Plan;
use super::rows::Looker;
use crate::logs::page::{self, PageError, PageView, Texts};
use crate::logs::split::{Cell, Kind, decode};
use crate::logs::template::Template;

/// Bits of the kinds that are numbers as JSON writes them.
const NUMBERS: u16 = 1 << Kind::Int as u16 | 1 << Kind::Negative as u16 | 1 << Kind::Decimal as u16;

/// Values put together between two looks at the deadline.
const MADE_PER_CHECK: usize = 4096;

/// Where one field of a template's messages is.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Layout {
    values: Vec<FieldShape>,
    /// Holes that must have a scalar of JSON, or the message has no fields.
    scalars: Vec<usize>,
    /// Attributes of that name, as holes.
    attributes: Vec<usize>,
}

/// Where a field is; `None` if that depends on the variables.
pub(super) fn layout(template: &Template, name: &str) -> Option<Layout> {
    if template.is_whole() {
        return None;
    }
    let shape = Shape::of(template.pieces())?;
    let values = shape.fields.into_iter().filter(|(field, _)| field == name).map(|(_, value)| value);
    let attributes = template.attributes.iter().enumerate().filter(|(_, (key, _))| **key == *name);
    Some(Layout {
        values: values.collect(),
        scalars: shape.scalars,
        attributes: attributes.map(|(at, _)| template.cuts.len() + at).collect(),
    })
}

/// What is asked of a field's values.
enum Asked<'a> {
    Exists,
    Passes(&'a Test),
}

impl Asked<'_> {
    fn holds(&self, value: &FieldValue) -> bool {
        match self {
            Self::Exists => true,
            Self::Passes(test) => test.of_value(value),
        }
    }
}

/// Whether text with a number behind it passes a phrase: the number is the last word.
struct OfPrefix<'a> {
    phrase: &'a Phrase,
    /// Another number is no word of the phrase.
    last: Option<u64>,
    /// By the number of the text before the number: whether that alone passes.
    known: HashMap<usize, bool, foldhash::fast::FixedState>,
}

impl<'a> OfPrefix<'a> {
    fn of(test: &'a Test) -> Option<Self> {
        let Test::Phrase(phrase) = test else { return None };
        let last = phrase.words().last().filter(|_| !phrase.is_prefix())?;
        Some(Self { phrase, last: last.parse().ok(), known: HashMap::default() })
    }

    /// `None`: the text as a whole has to be asked.
    fn holds(&mut self, texts: &Texts, cell: Cell) -> Option<bool> {
        if self.last == Some(cell.suffix()) {
            return None;
        }
        let phrase = self.phrase;
        let holds = self.known.entry(cell.prefix()).or_insert_with(|| {
            let text = String::from_utf8_lossy(texts.get(cell.prefix()).unwrap_or_default());
            let found: Vec<String> = words(&text).map(|word| word.text).collect();
            phrase.is_in(&found)
        });
        Some(*holds)
    }
}

/// How the text of a cell becomes a value; nothing for JSON's `null`, and for what is no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    Text,
    Bare,
    Scalar,
}

impl Reading {
    fn value(self, text: &str) -> Option<FieldValue> {
        match self {
            Self::Text => Some(FieldValue::Text(text.to_owned())),
            Self::Bare => Some(Shape::bare(text)),
            Self::Scalar => Shape::scalar(text).flatten(),
        }
    }

    /// The value of a cell that is a number, without its text.
    fn number(self, cell: Cell) -> Option<FieldValue> {
        if self == Self::Text {
            return None;
        }
        let value = i64::try_from(cell.value()).ok()?;
        match cell.kind() {
            Some(Kind::Int) => Some(FieldValue::Int(value)),
            // JSON has a zero below zero.
            Some(Kind::Negative) if value > 0 => Some(FieldValue::Int(-value)),
            Some(Kind::Decimal) => cell.decimal().map(FieldValue::Float),
            _ => None,
        }
    }
}

impl Plan {
    /// Where the field of a condition is in the messages of a template.
    fn layout(&mut self, leaf: usize, template: &Arc<Template>, name: &str) -> Option<Arc<Layout>> {
        let key = (leaf, Arc::as_ptr(template));
        if let Some(known) = self.layouts.get(&key) {
            return known.clone();
        }
        let layout = layout(template, name).map(Arc::new);
        self.layouts.insert(key, layout.clone());
        layout
    }
}

impl Looker<'_> {
    /// What a condition on a field finds among the rows of a template; `None` if messages have to be put together.
    pub(super) fn field(&mut self, leaf: usize, at: &OfTemplate<'_>) -> Result<Option<Answer>, Broken> {
        let query = self.plan.leaves[leaf].query.clone();
        let (name, asked) = match &query {
            LogQuery::Value { field: Field::Parsed(name), test } => (name, Asked::Passes(test)),
            LogQuery::Exists(Field::Parsed(name)) => (name, Asked::Exists),
            _ => return Ok(None),
        };
        let Some(layout) = self.plan.layout(leaf, &at.template, name) else { return Ok(None) };
        let number = at.number as usize;
        if layout.values.is_empty() && layout.attributes.is_empty() {
            return Ok(Some(Answer::None));
        }
        if !self.is_plain()? || !self.allows(&layout, at)? {
            return Ok(None);
        }
        let mut rows = vec![false; self.page.templates()[number].rows as usize];
        for value in &layout.values {
            self.mark(value, &asked, at, &mut rows)?;
        }
        for hole in &layout.scalars {
            self.require_scalars(*hole, at, &mut rows)?;
        }
        for hole in &layout.attributes {
            self.mark_attribute(*hole, &asked, at, &mut rows)?;
        }
        Ok(Some(Answer::of_rows(rows)))
    }

    /// Whether all texts of the page are UTF-8 without white space of other scripts.
    fn is_plain(&mut self) -> Result<bool, PageError> {
        if let Some(known) = self.is_plain {
            return Ok(known);
        }
        let texts = self.page.texts()?;
        let is_plain = |text: &[u8]| {
            std::str::from_utf8(text)
                .is_ok_and(|text| !text.contains(|c: char| !c.is_ascii() && c.is_whitespace()))
        };
        let holds = match self.page.uses()? {
            Some((_, folded)) => folded.odd.iter().filter_map(|at| texts.get(*at as usize)).all(is_plain),
            None => texts.bytes.is_ascii() || texts.iter().all(is_plain),
        };
        self.is_plain = Some(holds);
        Ok(holds)
    }

    /// Whether the variables are such that the layout holds.
    fn allows(&self, layout: &Layout, at: &OfTemplate<'_>) -> Result<bool, PageError> {
        let has = |hole: usize, kind: Kind| {
            Ok::<_, PageError>(kinds_of(self.page, at, hole)? >> kind as u16 & 1 == 1)
        };
        for hole in 0..at.template.cuts.len() {
            if has(hole, Kind::Body)? {
                return Ok(false);
            }
        }
        for value in &layout.values {
            let FieldShape::Bare(parts) = value else { continue };
            for part in parts {
                // A timestamp may have white space in it.
                if let Part::Place(hole) = part
                    && has(*hole, Kind::Time)?
                {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Marks the rows that have a value which passes.
    fn mark(
        &mut self,
        shape: &FieldShape,
        asked: &Asked<'_>,
        at: &OfTemplate<'_>,
        rows: &mut [bool],
    ) -> Result<(), Broken> {
        match shape {
            FieldShape::Fixed(value) => {
                if asked.holds(value) {
                    rows.fill(true);
                }
                Ok(())
            }
            FieldShape::Scalar(hole) => self.mark_hole(*hole, Reading::Scalar, asked, at, rows),
            FieldShape::Quoted(parts) => self.mark_parts(parts, Reading::Text, asked, at, rows),
            FieldShape::Bare(parts) => self.mark_parts(parts, Reading::Bare, asked, at, rows),
        }
    }

    fn mark_parts(
        &mut self,
        parts: &[Part],
        reading: Reading,
        asked: &Asked<'_>,
        at: &OfTemplate<'_>,
        rows: &mut [bool],
    ) -> Result<(), Broken> {
        if let [Part::Place(hole)] = parts {
            return self.mark_hole(*hole, reading, asked, at, rows);
        }
        let mut text = Vec::new();
        for (occurrence, row) in rows.iter_mut().enumerate() {
            if *row {
                continue;
            }
            self.check(occurrence)?;
            text.clear();
            for part in parts {
                match part {
                    Part::Text(part) => text.extend_from_slice(part.as_bytes()),
                    Part::Place(hole) => {
                        let cell = self.page.cells(at.number as usize, *hole)?.get(occurrence);
                        let cell = Cell(*cell.ok_or(PageError::Damaged("a variable that is missing"))?);
                        self.text_of(cell, at, occurrence, &mut text)?;
                    }
                }
            }
            *row = reading.value(&String::from_utf8_lossy(&text)).is_some_and(|value| asked.holds(&value));
        }
        Ok(())
    }

    fn mark_hole(
        &mut self,
        hole: usize,
        reading: Reading,
        asked: &Asked<'_>,
        at: &OfTemplate<'_>,
        rows: &mut [bool],
    ) -> Result<(), Broken> {
        let mut of_prefix = match asked {
            Asked::Passes(test) if reading == Reading::Text => OfPrefix::of(test),
            _ => None,
        };
        let mut known: HashMap<u64, bool, foldhash::fast::FixedState> = HashMap::default();
        let mut text = Vec::new();
        let page = self.page;
        let texts = page.texts()?;
        for (occurrence, (row, bits)) in
            rows.iter_mut().zip(page.cells(at.number as usize, hole)?).enumerate()
        {
            self.check(occurrence)?;
            if *row {
                continue;
            }
            let cell = Cell(*bits);
            if let Some(value) = reading.number(cell) {
                *row = asked.holds(&value);
                continue;
            }
            let is_prefixed = cell.kind() == Some(Kind::Prefixed);
            if let Some(holds) =
                of_prefix.as_mut().filter(|_| is_prefixed).and_then(|one| one.holds(texts, cell))
            {
                *row = holds;
                continue;
            }
            let is_time = cell.kind() == Some(Kind::Time);
            if let Some(holds) = known.get(bits).filter(|_| !is_time) {
                *row = *holds;
                continue;
            }
            text.clear();
            self.text_of(cell, at, occurrence, &mut text)?;
            *row = reading.value(&String::from_utf8_lossy(&text)).is_some_and(|value| asked.holds(&value));
            if !is_time {
                known.insert(*bits, *row);
            }
        }
        Ok(())
    }

    /// Takes back the rows that have no scalar of JSON in a hole: such a message has no fields.
    fn require_scalars(&mut self, hole: usize, at: &OfTemplate<'_>, rows: &mut [bool]) -> Result<(), Broken> {
        if kinds_of(self.page, at, hole)? & !NUMBERS == 0 {
            return Ok(());
        }
        let mut known: HashMap<u64, bool, foldhash::fast::FixedState> = HashMap::default();
        let mut text = Vec::new();
        for (occurrence, (row, bits)) in
            rows.iter_mut().zip(self.page.cells(at.number as usize, hole)?).enumerate()
        {
            if !*row || NUMBERS >> (bits >> 60) & 1 == 1 {
                continue;
            }
            let cell = Cell(*bits);
            // A timestamp is no scalar.
            let mut holds = false;
            if let Some(seen) = known.get(bits) {
                holds = *seen;
            } else if cell.kind() != Some(Kind::Time) {
                text.clear();
                self.text_of(cell, at, occurrence, &mut text)?;
                holds = std::str::from_utf8(&text).is_ok_and(|text| Shape::scalar(text).is_some());
                known.insert(*bits, holds);
            }
            *row = holds;
        }
        Ok(())
    }

    fn mark_attribute(
        &mut self,
        hole: usize,
        asked: &Asked<'_>,
        at: &OfTemplate<'_>,
        rows: &mut [bool],
    ) -> Result<(), Broken> {
        let (_, kind) = &at.template.attributes[hole - at.template.cuts.len()];
        let tables = self.page.tables()?;
        for (occurrence, (row, bits)) in
            rows.iter_mut().zip(self.page.cells(at.number as usize, hole)?).enumerate()
        {
            if *row {
                continue;
            }
            self.check(occurrence)?;
            *row = asked.holds(&page::attribute(*kind, Cell(*bits), tables, 0)?);
        }
        Ok(())
    }

    fn check(&self, made: usize) -> Result<(), StorageError> {
        let is_due = made % MADE_PER_CHECK == MADE_PER_CHECK - 1;
        if is_due && self.deadline.is_over() { Err(StorageError::Deadline) } else { Ok(()) }
    }

    /// Appends the text of a cell.
    fn text_of(
        &mut self,
        cell: Cell,
        at: &OfTemplate<'_>,
        occurrence: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), PageError> {
        let time = if cell.kind() == Some(Kind::Time) {
            self.rows.fill(self.page)?;
            self.page.time_column()?[self.rows.row(at.number, occurrence)?]
        } else {
            0
        };
        let found = decode(cell, self.page.tables()?, time, out);
        found.then_some(()).ok_or(PageError::Damaged("a variable that leads nowhere"))
    }
}

/// Bits of the kinds in a hole, which an open page has to look for.
fn kinds_of(page: &dyn PageView, at: &OfTemplate<'_>, hole: usize) -> Result<u16, PageError> {
    let known = page.kinds(at.number as usize, hole);
    if known != u16::MAX {
        return Ok(known);
    }
    Ok(page.cells(at.number as usize, hole)?.iter().fold(0, |kinds, cell| kinds | 1 << (cell >> 60)))
}
