//! What a query finds among the rows of a template, where its variables decide: a template at a time, not a row.

use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use binnacle_model::log::{Field, loki_alias, loki_name};
use binnacle_model::log_query::{LineTest, LogQuery, Phrase, Test};
use binnacle_model::storage::StorageError;

use super::Broken;
use super::cells::{is_regex, may_only_vary};
use super::facts::is_plain_word;
use super::leaves::Node;
use super::needle::{Verdict, stays_within_of};
use super::phrase::Item;
use super::plan::{Plan, is_as_written};
use super::probe::{Known, Probe};
use super::rows::Looker;
use super::signature::Signature;
use crate::logs::page::{self, PageError, TEXTS};
use crate::logs::split::{Cell, Kind, decode};
use crate::logs::template::{Template, ValueKind};

/// What is known of the rows of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    None,
    All,
    /// So many of them, whichever: only where nobody asks which.
    Count(u32),
    /// By occurrence.
    Rows(Vec<bool>),
    /// Each has to be looked at.
    Open,
}

/// A template of a page, and the kind of stream that its rows are of.
pub(super) struct OfTemplate<'a> {
    pub(super) number: u32,
    pub(super) template: Arc<Template>,
    pub(super) signature: &'a Signature,
}

/// For each row of a template whether a variable holds a probe: a bit of each.
pub(super) type Column = Rc<[u64]>;

/// Bytes that one thread keeps of what it found out about a page: columns, and what is known of texts. A query may have
/// thousands of conditions.
const HELD_MAX_BYTES: usize = if cfg!(test) { 2048 } else { 32 * 1024 * 1024 };

/// In which the room of a query is counted.
const SAMPLE_BYTES: usize = 16;

/// Cells that are looked at between two looks at the deadline.
const CELLS_PER_CHECK: usize = 256;

/// What a condition asks of a template's variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    /// Which of the condition's probes.
    pub(super) probe: usize,
    holes: Range<usize>,
    /// Whether the condition holds for a row if one of its variables holds the probe; else it may hold.
    decides: bool,
}

impl Answer {
    pub(super) fn of_rows(rows: Vec<bool>) -> Self {
        match rows.iter().filter(|holds| **holds).count() {
            0 => Self::None,
            count if count == rows.len() => Self::All,
            _ => Self::Rows(rows),
        }
    }

    fn not(self, rows: u32) -> Self {
        match self {
            Self::None => Self::All,
            Self::All => Self::None,
            Self::Count(count) => Self::Count(rows.saturating_sub(count)),
            Self::Rows(rows) => Self::Rows(rows.into_iter().map(|holds| !holds).collect()),
            Self::Open => Self::Open,
        }
    }
}

impl Looker<'_> {
    /// What the query finds among rows of a template and a kind of stream.
    pub(super) fn decide(&mut self, at: &OfTemplate<'_>, counts: bool) -> Result<Answer, Broken> {
        let root = std::mem::replace(&mut self.plan.root, Node::All);
        let answer = match self.peek(&root, at) {
            Ok(Verdict::Yes) => Ok(Answer::All),
            Ok(Verdict::No) => Ok(Answer::None),
            Ok(Verdict::Look) => self.answer(&root, at, counts),
            Err(error) => Err(error),
        };
        self.plan.root = root;
        answer
    }

    /// As [`Self::answer`], without reading any variable.
    fn peek(&mut self, node: &Node, at: &OfTemplate<'_>) -> Result<Verdict, Broken> {
        let mut among = |parts: &[Node], decisive: Verdict| {
            let mut verdict = decisive.not();
            for part in parts {
                match self.peek(part, at)? {
                    found if found == decisive => return Ok(decisive),
                    Verdict::Look => verdict = Verdict::Look,
                    _ => {}
                }
            }
            Ok(verdict)
        };
        match node {
            Node::All => Ok(Verdict::Yes),
            Node::Not(part) => Ok(self.peek(part, at)?.not()),
            Node::And(parts) => among(parts, Verdict::No),
            Node::Or(parts) => among(parts, Verdict::Yes),
            Node::Leaf(leaf) => self.peek_leaf(*leaf, at),
        }
    }

    fn peek_leaf(&mut self, leaf: usize, at: &OfTemplate<'_>) -> Result<Verdict, Broken> {
        let verdict = self.plan.judge_leaf(leaf, at.signature, &at.template, self.facts);
        if verdict != Verdict::Look {
            return Ok(verdict);
        }
        let Some(asked) = self.plan.asked_of(leaf, &at.template) else { return Ok(Verdict::Look) };
        let kinds = self.plan.leaves[leaf].kinds[asked.probe];
        let page = self.page;
        let known = self.known(leaf, asked.probe)?;
        let is_nowhere = match known.places(page, at.number, asked.holes.clone(), kinds) {
            Some((read, _)) => read.is_empty(),
            None => asked.holes.clone().all(|hole| page.kinds(at.number as usize, hole) & kinds == 0),
        };
        Ok(if is_nowhere { Verdict::No } else { Verdict::Look })
    }

    fn answer(&mut self, node: &Node, at: &OfTemplate<'_>, counts: bool) -> Result<Answer, Broken> {
        let rows = self.page.templates()[at.number as usize].rows;
        match node {
            Node::All => Ok(Answer::All),
            Node::Not(part) => Ok(self.answer(part, at, counts)?.not(rows)),
            Node::And(parts) => self.answer_among(parts, at, counts, false),
            Node::Or(parts) => self.answer_among(parts, at, counts, true),
            Node::Leaf(leaf) => match self.plan.judge_leaf(*leaf, at.signature, &at.template, self.facts) {
                Verdict::Yes => Ok(Answer::All),
                Verdict::No => Ok(Answer::None),
                Verdict::Look => self.answer_leaf(*leaf, at, counts),
            },
        }
    }

    /// All of some conditions, or one of them at least.
    fn answer_among(
        &mut self,
        parts: &[Node],
        at: &OfTemplate<'_>,
        counts: bool,
        one_is_enough: bool,
    ) -> Result<Answer, Broken> {
        let (decisive, idle) =
            if one_is_enough { (Answer::All, Answer::None) } else { (Answer::None, Answer::All) };
        // Of all of them together, and which one that is if there is but one.
        let (mut all, mut only) = (idle.clone(), None);
        for part in parts {
            self.is_over()?;
            let answer = self.answer(part, at, counts && only.is_none() && all == idle)?;
            if answer == decisive {
                return Ok(decisive);
            }
            if answer == idle || all == Answer::Open {
                continue;
            }
            if all == idle {
                (all, only) = (answer, Some(part));
                continue;
            }
            // Which rows they are matters where there are several conditions.
            if let (Answer::Count(_), Some(first)) = (&all, only) {
                all = self.answer(first, at, false)?;
            }
            all = match (all, answer) {
                (Answer::Rows(mut rows), Answer::Rows(others)) => {
                    for (one, other) in rows.iter_mut().zip(others) {
                        *one = if one_is_enough { *one | other } else { *one & other };
                    }
                    Answer::of_rows(rows)
                }
                _ => Answer::Open,
            };
            if all == decisive {
                return Ok(decisive);
            }
        }
        Ok(all)
    }

    pub(super) fn is_over(&self) -> Result<(), StorageError> {
        if self.deadline.is_over() { Err(StorageError::Deadline) } else { Ok(()) }
    }

    fn answer_leaf(&mut self, leaf: usize, at: &OfTemplate<'_>, counts: bool) -> Result<Answer, Broken> {
        if let Some(answer) = self.field(leaf, at)? {
            return Ok(answer);
        }
        let Some(asked) = self.plan.asked_of(leaf, &at.template) else { return Ok(Answer::Open) };
        if counts
            && asked.decides
            && let Some(count) = self.count(leaf, &asked, at)?
        {
            return Ok(Answer::Count(count));
        }
        let column = self.column(leaf, &asked, at)?;
        let rows = self.page.templates()[at.number as usize].rows as usize;
        let answer = Answer::of_rows((0..rows).map(|row| column[row / 64] >> (row % 64) & 1 == 1).collect());
        Ok(if asked.decides || answer == Answer::None { answer } else { Answer::Open })
    }

    /// How many rows there are, if one hole alone has the probe's texts.
    fn count(&mut self, leaf: usize, asked: &Asked, at: &OfTemplate<'_>) -> Result<Option<u32>, Broken> {
        let kinds = self.plan.leaves[leaf].kinds[asked.probe];
        let page = self.page;
        let known = self.known(leaf, asked.probe)?;
        let Some((read, [place])) = known.places(page, at.number, asked.holes.clone(), kinds) else {
            return Ok(None);
        };
        let has_others = page.kinds(at.number as usize, place.hole as usize) & kinds & !TEXTS != 0;
        Ok((read.len() == 1 && !has_others && !place.is_open).then_some(place.rows))
    }

    /// For each row of a template whether a condition holds, or may hold; `None` if variables do not say one by one.
    /// The second one is whether the column decides.
    pub(super) fn column_of(
        &mut self,
        leaf: usize,
        at: &OfTemplate<'_>,
    ) -> Result<Option<(Column, bool)>, Broken> {
        let Some(asked) = self.plan.asked_of(leaf, &at.template) else { return Ok(None) };
        Ok(Some((self.column(leaf, &asked, at)?, asked.decides)))
    }

    fn column(&mut self, leaf: usize, asked: &Asked, at: &OfTemplate<'_>) -> Result<Column, Broken> {
        let key = (leaf, asked.probe, at.number);
        if let Some(column) = self.columns.get(&key) {
            return Ok(Rc::clone(column));
        }
        self.is_over()?;
        let (page, number) = (self.page, at.number as usize);
        let kinds = self.plan.leaves[leaf].kinds[asked.probe];
        let known = self.known(leaf, asked.probe)?;
        let holes = match known.places(page, at.number, asked.holes.clone(), kinds) {
            Some((read, _)) => read,
            None => asked.holes.clone().filter(|hole| page.kinds(number, *hole) & kinds != 0).collect(),
        };
        let mut column = vec![false; page.templates()[number].rows as usize];
        for hole in holes {
            self.column_of_hole(leaf, asked.probe, hole, &mut column, at)?;
        }
        let of_bits = |rows: &[bool]| (0..).zip(rows).fold(0, |bits, (at, row)| bits | u64::from(*row) << at);
        let column: Column = column.chunks(64).map(of_bits).collect();
        self.hold(8 * column.len() + 2 * size_of_val(&key))?;
        self.columns.insert(key, Rc::clone(&column));
        Ok(column)
    }

    /// Marks the rows of which the variable in a hole holds the probe.
    fn column_of_hole(
        &mut self,
        leaf: usize,
        probe: usize,
        hole: usize,
        column: &mut [bool],
        at: &OfTemplate<'_>,
    ) -> Result<(), Broken> {
        let (page, number) = (self.page, at.number as usize);
        if column.iter().all(|holds| *holds) {
            return Ok(());
        }
        let of_kind = attribute_kind(&at.template, hole);
        let cells = page.cells(number, hole)?;
        let (tables, texts) = (page.tables()?, page.texts()?);
        let slot = self.plan.leaves[leaf].first_probe + probe;
        self.known(leaf, probe)?;
        let probe = &self.plan.leaves[leaf].probes[probe];
        let may = self.plan.leaves[leaf].kinds[slot - self.plan.leaves[leaf].first_probe];
        let Some(known) = &mut self.known[slot] else { return Ok(()) };
        let has_times = page.kinds(number, hole) & may & 1 << Kind::Time as u16 != 0;
        let times = if has_times { page.time_column()? } else { &[] };
        if has_times {
            self.rows.fill(page)?;
        }
        let ids = known.ids(probe, page)?;
        let others = &mut self.cells;
        let mut text = Vec::new();
        let (mut last, mut looked) = ((u64::MAX, false), 0);
        for (occurrence, bits) in cells.iter().enumerate() {
            if column[occurrence] || may >> (bits >> 60) & 1 == 0 {
                continue;
            }
            if last.0 == *bits {
                column[occurrence] = last.1;
                continue;
            }
            looked += 1;
            if looked % CELLS_PER_CHECK == 0 && self.deadline.is_over() {
                return Err(StorageError::Deadline.into());
            }
            let cell = Cell(*bits);
            let of_text = match cell.kind() {
                Some(Kind::Text) => known.text(probe, texts, cell.value() as usize, false)?,
                Some(Kind::Prefixed) => known.text(probe, texts, cell.prefix(), true)?,
                Some(kind @ (Kind::Id16 | Kind::Id32 | Kind::Uuid)) => ids.holds(kind, cell.value()),
                _ => None,
            };
            // What a cell says may depend on its entry's time, or on the kind of its attribute.
            let is_time = cell.kind() == Some(Kind::Time);
            let is_own = is_time || of_kind == Some(ValueKind::Bool);
            let seen = if is_own { None } else { of_text.or_else(|| others.get(slot, *bits)) };
            let holds = if let Some(holds) = seen {
                holds
            } else {
                text.clear();
                let time = if is_time { times[self.rows.row(at.number, occurrence)?] } else { 0 };
                if !decode(cell, tables, time, &mut text) {
                    return Err(PageError::Damaged("a variable that leads nowhere").into());
                }
                let holds = match (probe, of_kind) {
                    (Probe::Attribute(matcher), Some(kind)) => {
                        matcher.matches(&page::attribute(kind, cell, tables, time)?.to_string())
                    }
                    _ => probe.of_text(&text),
                };
                if !is_own {
                    others.insert(slot, *bits, holds);
                }
                holds
            };
            column[occurrence] = holds;
            last = if is_own { (u64::MAX, false) } else { (*bits, holds) };
        }
        Ok(())
    }

    /// What is known of a probe in this page.
    pub(super) fn known(&mut self, leaf: usize, probe: usize) -> Result<&mut Known, Broken> {
        let of_leaf = &self.plan.leaves[leaf];
        let slot = of_leaf.first_probe + probe;
        if self.known[slot].is_none() {
            self.is_over()?;
            let known = Known::of(&of_leaf.probes[probe], self.page, self.deadline)?;
            self.hold(known.weight(self.page)?)?;
            self.known[slot] = Some(known);
        }
        Ok(self.known[slot].as_mut().ok_or(PageError::Damaged("nothing is known"))?)
    }

    /// Counts bytes that are kept of the page from now on, and lets go of all others if these are too many.
    fn hold(&mut self, bytes: usize) -> Result<(), StorageError> {
        self.held += bytes;
        if self.held > HELD_MAX_BYTES {
            self.columns.clear();
            self.known.iter_mut().for_each(|known| *known = None);
            self.held = bytes;
            self.holding = self.deadline.holding();
            self.holding.add(bytes / SAMPLE_BYTES)?;
            return Ok(());
        }
        self.holding.add(bytes.div_ceil(SAMPLE_BYTES))
    }
}

impl Plan {
    /// What a condition asks of the variables of a template, if they say one by one.
    pub(super) fn asked_of(&mut self, leaf: usize, template: &Arc<Template>) -> Option<Asked> {
        let cuts = template.cuts.len();
        let decisive = Some(Asked { probe: 0, holes: 0..cuts, decides: true });
        match &self.leaves[leaf].query {
            LogQuery::Value { field: Field::Message, test: Test::Phrase(phrase) }
                if phrase.words().len() > 1 =>
            {
                let probe = self.variable_word(leaf, template)?;
                (!template.is_whole()).then_some(Asked { probe, holes: 0..cuts, decides: false })
            }
            LogQuery::Value { field: Field::Message, test } if is_of_one_word(test) => decisive,
            // Tests of words, made one.
            LogQuery::Or(_) => decisive,
            LogQuery::Value { field: Field::Parsed(name), .. } if is_as_written(template, name) => {
                let probe = self.variable_word(leaf, template)?;
                Some(Asked { probe, holes: 0..template.holes(), decides: false })
            }
            LogQuery::Line(LineTest::Contains(needle)) => {
                decisive.filter(|_| stays_within_of(needle, template) && !template.is_whole())
            }
            query if is_regex(query) => {
                // Where no constant text has what it needs, a variable must.
                let needs = self.leaves[leaf].needs.as_ref()?;
                may_only_vary(needs, template).then_some(Asked { probe: 0, holes: 0..cuts, decides: false })
            }
            LogQuery::Label(matcher) => {
                let at = cuts + attribute_of(template, &matcher.name)?;
                Some(Asked { probe: 0, holes: at..at + 1, decides: true })
            }
            _ => None,
        }
    }

    /// A word that a condition asks for and that can only be in a variable of the template, by its place among the probes.
    fn variable_word(&mut self, leaf: usize, template: &Arc<Template>) -> Option<usize> {
        let items = self.items(template);
        let is_variable = |probe: &Probe| match probe {
            Probe::Word(word) => !items.contains(&Item::Word(word.clone())),
            _ => false,
        };
        self.leaves[leaf].probes.iter().position(is_variable)
    }
}

/// What a condition may ask of single variables.
pub(super) fn probes(query: &LogQuery, needs: &[Vec<u8>]) -> Vec<Probe> {
    let whole_words = |phrase: &Phrase| -> Vec<String> {
        let whole = phrase.words().len().saturating_sub(usize::from(phrase.is_prefix()));
        phrase.words()[..whole].to_vec()
    };
    match query {
        LogQuery::Value { field: Field::Message, test: Test::Phrase(phrase) }
            if phrase.words().len() > 1 || !phrase.is_prefix() =>
        {
            whole_words(phrase).into_iter().map(Probe::Word).collect()
        }
        LogQuery::Value { field: Field::Message, test } if is_of_one_word(test) => {
            vec![Probe::OneWord(test.clone())]
        }
        LogQuery::Value { field: Field::Parsed(_), test: Test::Phrase(phrase) } => {
            let plain = whole_words(phrase).into_iter().filter(|word| is_plain_word(phrase, word));
            plain.map(Probe::Word).collect()
        }
        LogQuery::Line(LineTest::Contains(needle)) => vec![Probe::Bytes(vec![needle.clone()])],
        query if is_regex(query) => vec![Probe::Bytes(needs.to_vec())],
        LogQuery::Label(matcher) => vec![Probe::Attribute(matcher.clone())],
        _ => Vec::new(),
    }
}

/// Whether one word decides the test, so that it holds for a message if it holds for one of its variables.
fn is_of_one_word(test: &Test) -> bool {
    match test {
        Test::Phrase(phrase) => phrase.words().len() == 1,
        Test::Wildcard(_) | Test::Fuzzy { .. } => true,
        _ => false,
    }
}

/// The attribute that LogQL means by a name.
fn attribute_of(template: &Template, name: &str) -> Option<usize> {
    let name = loki_alias(name);
    if name == "level" {
        return None;
    }
    template.attributes.iter().position(|(key, _)| **key == *name || loki_name(key) == name)
}

/// The kind of the attribute that a hole of a template is.
fn attribute_kind(template: &Template, hole: usize) -> Option<ValueKind> {
    Some(template.attributes[hole.checked_sub(template.cuts.len())?].1)
}
