//! The rows of a page that a query finds.

use std::collections::HashMap;
use std::ops::RangeBounds;
use std::sync::Arc;

use binnacle_model::LogTime;
use binnacle_model::log::{Field, LogEntry, loki_alias, loki_name};
use binnacle_model::log_query::{EntryView, LineTest, LogQuery, Test};
use binnacle_model::storage::{Deadline, StorageError};
use binnacle_model::tokens::words;

use super::cells::{
    RowsOf, holds_for, is_of_one_word, is_regex, is_variable_word, judge_prefix, judge_prefix_word,
    kinds_that_may_hold, may_only_vary, needles_of, word_without_digits,
};
use super::facts::Facts;
use super::needle::{Verdict, stays_within_of};
use super::plan::{Node, Plan, Signature, is_as_written};
use super::{Broken, fail};
use crate::logs::page::{self, PageError, PageView};
use crate::logs::split::{Cell, Kind, decode};
use crate::logs::template::{Template, ValueKind};

/// Rows between two looks at the deadline.
const ROWS_PER_CHECK: usize = 1024;

/// Conditions asked of rows between two looks at the deadline.
const ASKED_PER_CHECK: usize = 256;

/// What a query finds in a page.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Templates of which it finds every row. Empty unless the time of the request holds the whole page, and all streams
    /// of it are alike for the query.
    pub(super) templates: Vec<u32>,
    /// Rows of other templates, ascending.
    pub(super) rows: Vec<u32>,
}

impl Found {
    /// How many rows there are.
    pub(super) fn count(&self, page: &dyn PageView) -> u64 {
        let whole = self.templates.iter().map(|at| u64::from(page.templates()[*at as usize].rows));
        whole.sum::<u64>() + self.rows.len() as u64
    }

    /// All rows, ascending.
    pub(super) fn all_rows(self, page: &dyn PageView) -> Result<Vec<u32>, PageError> {
        if self.templates.is_empty() {
            return Ok(self.rows);
        }
        if self.templates.len() == page.templates().len() {
            return Ok((0..page.rows() as u32).collect());
        }
        let mut is_whole = vec![false; page.templates().len()];
        self.templates.iter().for_each(|at| is_whole[*at as usize] = true);
        let mut rest = self.rows.into_iter().peekable();
        let mut rows = Vec::new();
        for (row, template) in (0..).zip(page.template_column()?) {
            if is_whole[*template as usize] || rest.next_if_eq(&row).is_some() {
                rows.push(row);
            }
        }
        Ok(rows)
    }
}

/// Streams of a page that are alike for a query.
struct Group {
    kind: u16,
    signature: Arc<Signature>,
    verdicts: Vec<Verdict>,
    /// Whether it finds no row at all.
    is_out: bool,
}

/// Finds the rows.
pub(super) fn find(plan: &mut Plan, page: &dyn PageView, deadline: &Deadline) -> Result<Found, Broken> {
    let (first, last) = page.span();
    let (start, end) = (plan.request.start, plan.request.end);
    if page.rows() == 0 || last < start || first >= end {
        return Ok(Found::default());
    }
    let facts = Facts::of(plan, page)?;
    let (groups, of_stream) = groups(plan, page, &facts, deadline)?;
    let is_whole = start <= first && last < end;
    if groups.iter().all(|group| group.is_out) {
        return Ok(Found::default());
    }
    if is_whole
        && let [group] = &groups[..]
        && group.verdicts.iter().all(|verdict| *verdict != Verdict::Look)
    {
        return Ok(Found { templates: yes_templates(group), rows: Vec::new() });
    }
    let mut found = Found::default();
    let single = is_whole && groups.len() == 1;
    if single {
        found.templates = yes_templates(&groups[0]);
    }
    let templates = page.template_column()?;
    let runs =
        page.runs().unwrap_or_else(|| page.stream_column().iter().map(|stream| (*stream, 1)).collect());
    let times = if is_whole { None } else { Some(page.time_column()?) };
    let mut looker = Looker::new(plan, page, &facts, deadline);
    let (mut row, mut looked) = (0, 0);
    for (stream, count) in runs {
        let group = &groups[usize::from(of_stream[stream as usize])];
        let rows = row..row + count;
        row += count;
        if group.is_out {
            continue;
        }
        for row in rows {
            looked += 1;
            if looked % ROWS_PER_CHECK == 0 && deadline.is_over() {
                return Err(StorageError::Deadline.into());
            }
            if times.is_some_and(|times| !(start.0..end.0).contains(&times[row])) {
                continue;
            }
            let takes = match group.verdicts[templates[row] as usize] {
                Verdict::Yes => !single,
                Verdict::No => false,
                Verdict::Look => looker.holds(row, &group.signature)?,
            };
            if takes {
                found.rows.push(row as u32);
            }
        }
    }
    Ok(found)
}

fn yes_templates(group: &Group) -> Vec<u32> {
    let yes = (0..).zip(&group.verdicts).filter(|(_, verdict)| **verdict == Verdict::Yes);
    yes.map(|(at, _)| at).collect()
}

/// What the query says of each template, for each kind of stream; and which kind each stream is.
fn groups(
    plan: &mut Plan,
    page: &dyn PageView,
    facts: &Facts,
    deadline: &Deadline,
) -> Result<(Vec<Group>, Vec<u16>), StorageError> {
    let mut groups: Vec<Group> = Vec::new();
    let mut of_stream = Vec::with_capacity(page.streams().len());
    for stream in page.streams() {
        let kind = plan.kind_of(stream);
        let number = if let Some(known) = groups.iter().position(|group| group.kind == kind) {
            known
        } else {
            let verdicts = plan.judge_all(kind, page.templates(), facts, deadline)?;
            let is_out = verdicts.iter().all(|verdict| *verdict == Verdict::No);
            groups.push(Group { kind, signature: plan.signature(kind), verdicts, is_out });
            groups.len() - 1
        };
        of_stream.push(number as u16);
    }
    Ok((groups, of_stream))
}

/// Looks at rows that no template decides.
struct Looker<'a> {
    plan: &'a mut Plan,
    page: &'a dyn PageView,
    facts: &'a Facts,
    /// By condition and template: its rows, where columns decide it.
    columns: HashMap<(usize, u32), Option<Vec<bool>>, foldhash::fast::FixedState>,
    /// By condition: what was found out about texts before numbers: 1 no, 2 yes, 3 it depends on the number.
    prefixes: Vec<Vec<u8>>,
    /// By condition: what was found out about cells.
    cells: Vec<HashMap<u64, bool, foldhash::fast::FixedState>>,
    message: Vec<u8>,
    rows: RowsOf,
    deadline: &'a Deadline,
    /// Conditions that were asked of rows.
    asked: usize,
}

impl<'a> Looker<'a> {
    fn new(plan: &'a mut Plan, page: &'a dyn PageView, facts: &'a Facts, deadline: &'a Deadline) -> Self {
        let cells = plan.leaves.iter().map(|_| HashMap::default()).collect();
        let prefixes = vec![Vec::new(); plan.leaves.len()];
        let (columns, message) = (HashMap::default(), Vec::new());
        let rows = RowsOf::default();
        Self { plan, page, facts, columns, prefixes, cells, message, rows, deadline, asked: 0 }
    }

    /// Whether the query finds a row.
    fn holds(&mut self, row: usize, signature: &Signature) -> Result<bool, Broken> {
        let number = self.page.template_column()?[row];
        let template = Arc::clone(&self.page.templates()[number as usize].template);
        let root = std::mem::replace(&mut self.plan.root, Node::All);
        let mut at = Row { place: row, number, template, signature, message_is_built: false, entry: None };
        let holds = self.node(&root, &mut at);
        self.plan.root = root;
        holds
    }

    fn node(&mut self, node: &Node, at: &mut Row<'_>) -> Result<bool, Broken> {
        Ok(match node {
            Node::All => true,
            Node::Not(part) => !self.node(part, at)?,
            Node::And(parts) => {
                for part in parts {
                    if !self.node(part, at)? {
                        return Ok(false);
                    }
                }
                true
            }
            Node::Or(parts) => {
                for part in parts {
                    if self.node(part, at)? {
                        return Ok(true);
                    }
                }
                false
            }
            Node::Leaf(leaf) => match self.plan.judge_leaf(*leaf, at.signature, &at.template, self.facts) {
                Verdict::Yes => true,
                Verdict::No => false,
                Verdict::Look => self.look(*leaf, at)?,
            },
        })
    }

    /// Whether a condition holds for a row whose template does not decide it.
    fn look(&mut self, leaf: usize, at: &mut Row<'_>) -> Result<bool, Broken> {
        self.asked += 1;
        if self.asked.is_multiple_of(ASKED_PER_CHECK) && self.deadline.is_over() {
            return Err(StorageError::Deadline.into());
        }
        if let LogQuery::Time { low, high } = &self.plan.leaves[leaf].query {
            return Ok((*low, *high).contains(&LogTime(self.page.time_column()?[at.place])));
        }
        let key = (leaf, at.number);
        if !self.columns.contains_key(&key) {
            if self.deadline.is_over() {
                return Err(StorageError::Deadline.into());
            }
            let column = self.column(leaf, at)?;
            self.columns.insert(key, column);
        }
        if let Some(Some(column)) = self.columns.get(&key) {
            let occurrence = self.page.occurrence_column()?[at.place] as usize;
            // Of an expression the column says where what it needs may be, of a field where its word is.
            let query = &self.plan.leaves[leaf].query;
            let decides =
                !is_regex(query) && !matches!(query, LogQuery::Value { field: Field::Parsed(_), .. });
            if !column[occurrence] || decides {
                return Ok(column[occurrence]);
            }
        }
        match &self.plan.leaves[leaf].query {
            LogQuery::Line(_) => {
                self.build_message(at)?;
                let LogQuery::Line(test) = &self.plan.leaves[leaf].query else { return Ok(false) };
                Ok(test.matches(&self.message))
            }
            LogQuery::Value { field: Field::Message, test: Test::Phrase(_) } => {
                self.build_message(at)?;
                let LogQuery::Value { test, .. } = &self.plan.leaves[leaf].query else { return Ok(false) };
                let found: Vec<String> =
                    words(&String::from_utf8_lossy(&self.message)).map(|word| word.text).collect();
                Ok(test.of_words(&found).unwrap_or(false))
            }
            _ => Ok(self.look_at_entry(leaf, at)?),
        }
    }

    fn look_at_entry(&mut self, leaf: usize, at: &mut Row<'_>) -> Result<bool, PageError> {
        if at.entry.is_none() {
            at.entry = Some(Box::new(page::entry(self.page, at.place)?));
        }
        let Some(entry) = &at.entry else { return Ok(false) };
        Ok(self.plan.leaves[leaf].query.holds(&EntryView::new(entry)))
    }

    fn build_message(&mut self, at: &mut Row<'_>) -> Result<(), PageError> {
        if at.message_is_built {
            return Ok(());
        }
        self.message.clear();
        let occurrence = self.page.occurrence_column()?[at.place] as usize;
        let time = self.page.time_column()?[at.place];
        page::rebuild(self.page, at.number as usize, occurrence, time, &mut self.message)?;
        at.message_is_built = true;
        Ok(())
    }

    /// For each row of a template whether the condition holds, if its variables decide it one by one.
    fn column(&mut self, leaf: usize, at: &Row<'_>) -> Result<Option<Vec<bool>>, PageError> {
        let template = &at.template;
        let rows = self.page.templates()[at.number as usize].rows as usize;
        let cuts = template.cuts.len();
        let holes: Vec<usize> = match &self.plan.leaves[leaf].query {
            LogQuery::Value { field: Field::Message, test } if is_of_one_word(test) => (0..cuts).collect(),
            LogQuery::Value { field: Field::Parsed(name), test }
                if is_as_written(template, name, self.facts.bits[leaf])
                    && is_variable_word(test, template) =>
            {
                (0..cuts).collect()
            }
            LogQuery::Line(LineTest::Contains(needle))
                if stays_within_of(needle, template) && !template.is_whole() =>
            {
                (0..cuts).collect()
            }
            query if is_regex(query) => match &self.plan.leaves[leaf].needs {
                // Where no constant text has what it needs, a variable must.
                Some(needs) if may_only_vary(needs, template) => (0..cuts).collect(),
                _ => return Ok(None),
            },
            LogQuery::Label(matcher) => match attribute_of(template, &matcher.name) {
                Some(attribute) => vec![cuts + attribute],
                None => return Ok(None),
            },
            _ => return Ok(None),
        };
        let mut column = vec![false; rows];
        let may = kinds_that_may_hold(&self.plan.leaves[leaf]);
        for hole in holes {
            if self.page.kinds(at.number as usize, hole) & may == 0 {
                continue;
            }
            self.column_of_hole(leaf, hole, may, &mut column, at)?;
        }
        Ok(Some(column))
    }

    fn column_of_hole(
        &mut self,
        leaf: usize,
        hole: usize,
        may: u16,
        column: &mut [bool],
        at: &Row<'_>,
    ) -> Result<(), PageError> {
        let attribute = at.attribute(hole);
        let cells = self.page.cells(at.number as usize, hole)?;
        let tables = self.page.tables()?;
        let texts = self.page.texts()?;
        let of_leaf = &self.plan.leaves[leaf];
        let query = &of_leaf.query;
        let needles = needles_of(of_leaf);
        let word = word_without_digits(query);
        let prefixes = &mut self.prefixes[leaf];
        if (!needles.is_empty() || word.is_some()) && prefixes.is_empty() {
            prefixes.resize(texts.len(), 0);
        }
        let known = &mut self.cells[leaf];
        let mut text = Vec::new();
        let mut last = (u64::MAX, false);
        let has_times = self.page.kinds(at.number as usize, hole) & may & 1 << Kind::Time as u16 != 0;
        let times = if has_times { self.page.time_column()? } else { &[] };
        if has_times {
            self.rows.fill(self.page)?;
        }
        for (occurrence, cell) in cells.iter().enumerate() {
            if column[occurrence] || may >> (cell >> 60) & 1 == 0 {
                continue;
            }
            if last.0 == *cell && attribute != Some(ValueKind::Bool) {
                column[occurrence] = last.1;
                continue;
            }
            if (!needles.is_empty() || word.is_some()) && Cell(*cell).kind() == Some(Kind::Prefixed) {
                let number = Cell(*cell).prefix();
                let slot =
                    prefixes.get_mut(number).ok_or(PageError::Damaged("a variable that leads nowhere"))?;
                if *slot == 0 {
                    let text = texts.get(number).unwrap_or_default();
                    *slot = word
                        .map_or_else(|| judge_prefix(text, &needles), |word| judge_prefix_word(text, word));
                }
                if *slot < 3 {
                    column[occurrence] = *slot == 2;
                    continue;
                }
            }
            // What a cell says depends on its entry's time, or on the kind of its attribute.
            let is_own = attribute == Some(ValueKind::Bool);
            let is_time = Cell(*cell).kind() == Some(Kind::Time);
            if !is_time
                && !is_own
                && let Some(holds) = known.get(cell)
            {
                column[occurrence] = *holds;
                last = (*cell, *holds);
                continue;
            }
            text.clear();
            let time = if is_time { times[self.rows.row(at.number, occurrence)?] } else { 0 };
            let holds = if let (LogQuery::Label(matcher), Some(kind)) = (query, attribute) {
                matcher.matches(&page::attribute(kind, Cell(*cell), tables, time)?.to_string())
            } else if !decode(Cell(*cell), tables, time, &mut text) {
                return Err(PageError::Damaged("a variable that leads nowhere"));
            } else if is_regex(query) {
                needles.iter().any(|needle| memchr::memmem::find(&text, needle).is_some())
            } else {
                holds_for(query, &text)
            };
            column[occurrence] = holds;
            if !is_time && !is_own {
                known.insert(*cell, holds);
                last = (*cell, holds);
            }
        }
        Ok(())
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

/// A row that is looked at.
struct Row<'a> {
    place: usize,
    number: u32,
    template: Arc<Template>,
    signature: &'a Signature,
    message_is_built: bool,
    entry: Option<Box<LogEntry>>,
}

impl Row<'_> {
    /// The kind of the attribute that a hole of its template is.
    fn attribute(&self, hole: usize) -> Option<ValueKind> {
        let at = hole.checked_sub(self.template.cuts.len())?;
        Some(self.template.attributes[at].1)
    }
}

impl From<PageError> for Broken {
    fn from(error: PageError) -> Self {
        Self::Page(error)
    }
}

impl From<StorageError> for Broken {
    fn from(error: StorageError) -> Self {
        fail(error)
    }
}
