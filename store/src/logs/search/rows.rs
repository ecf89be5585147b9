//! The rows of a page that a query finds.

use std::collections::HashMap;
use std::ops::RangeBounds;
use std::sync::Arc;

use binnacle_model::LogTime;
use binnacle_model::log::{Field, LogEntry, loki_alias, loki_name};
use binnacle_model::log_query::{EntryView, LineTest, LogQuery, Test};
use binnacle_model::storage::{Deadline, StorageError};
use binnacle_model::tokens::words;

use super::facts::{Facts, is_of_time, may_be_of_time, plain_phrase};
use super::needle::{Verdict, stays_within_of};
use super::phrase::{Item, items};
use super::plan::{Leaf, Node, Plan, Signature, is_as_written};
use super::regexes::Needs;
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
        let attribute =
            hole.checked_sub(at.template.cuts.len()).map(|attribute| at.template.attributes[attribute].1);
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

/// The rows of each template of a page, once somebody wants them.
#[derive(Debug, Default)]
struct RowsOf {
    /// Where those of each template begin in `rows`.
    starts: Vec<usize>,
    rows: Vec<u32>,
}

impl RowsOf {
    fn fill(&mut self, page: &dyn PageView) -> Result<(), PageError> {
        if !self.starts.is_empty() {
            return Ok(());
        }
        let mut start = 0;
        for template in page.templates() {
            self.starts.push(start);
            start += template.rows as usize;
        }
        let (numbers, occurrences) = (page.template_column()?, page.occurrence_column()?);
        self.rows = vec![0; start];
        for (row, (number, occurrence)) in (0..).zip(numbers.iter().zip(occurrences)) {
            let place = self.starts[*number as usize] + *occurrence as usize;
            *self.rows.get_mut(place).ok_or(PageError::Damaged("a template with too many rows"))? = row;
        }
        Ok(())
    }

    fn row(&self, template: u32, occurrence: usize) -> Result<usize, PageError> {
        let row = self.rows.get(self.starts[template as usize] + occurrence);
        row.map(|row| *row as usize).ok_or(PageError::Damaged("a template with too few rows"))
    }
}

/// Bits of the kinds of cells for which a condition on one variable may hold.
fn kinds_that_may_hold(leaf: &Leaf) -> u16 {
    match &leaf.query {
        LogQuery::Line(LineTest::Contains(needle)) => kinds_with(needle),
        query if is_regex(query) => {
            needles_of(leaf).iter().fold(0, |kinds, needle| kinds | kinds_with(needle))
        }
        LogQuery::Value { test: Test::Phrase(phrase), .. } if !phrase.is_prefix() => match phrase.words() {
            [word] => kinds_with_word(word),
            _ => u16::MAX,
        },
        LogQuery::Value { test, .. } if !may_be_of_a_time(test) => !(1 << Kind::Time as u16),
        _ => u16::MAX,
    }
}

/// Bits of the kinds of cells that may have a word, which is in lower case.
fn kinds_with_word(word: &str) -> u16 {
    // Ids are in lower case, as words are; the letters of timestamps are not.
    let may_be_time = is_of_time(word) || word.bytes().all(|byte| byte.is_ascii_digit());
    kinds_with(word.as_bytes()) & !(1 << Kind::Time as u16) | u16::from(may_be_time) << Kind::Time as u16
}

/// Whether a word of a timestamp may pass the test. Months are its longest runs of letters.
fn may_be_of_a_time(test: &Test) -> bool {
    match test {
        Test::Wildcard(wildcard) => {
            let has_run =
                |text: &str| text.as_bytes().windows(4).any(|four| four.iter().all(u8::is_ascii_alphabetic));
            !wildcard.literals().any(has_run)
        }
        Test::Fuzzy { word, distance } => {
            let letters = word.bytes().filter(u8::is_ascii_alphabetic).count();
            let most = *distance as usize;
            letters <= most + 1 || word.len() <= most + 3
        }
        _ => true,
    }
}

/// What a cell must have one of, where that is all there is to know.
fn needles_of(leaf: &Leaf) -> Vec<&[u8]> {
    match (&leaf.query, &leaf.needs) {
        (LogQuery::Line(LineTest::Contains(needle)), _) => vec![needle],
        (_, Some(needs)) => needs.one_of.iter().map(Vec::as_slice).collect(),
        _ => Vec::new(),
    }
}

/// Whether text that ends in a sign, with a number behind it, has one of the needles: 1 no, 2 yes, 3 it depends on the
/// number.
fn judge_prefix(text: &[u8], needles: &[&[u8]]) -> u8 {
    if needles.iter().any(|needle| memchr::memmem::find(text, needle).is_some()) {
        return 2;
    }
    let may = |needle: &&[u8]| {
        let digits = needle.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
        digits > 0 && text.ends_with(&needle[..needle.len() - digits])
    };
    if needles.iter().any(may) { 3 } else { 1 }
}

/// The one word of a condition that no number has in it.
fn word_without_digits(query: &LogQuery) -> Option<&str> {
    match query {
        LogQuery::Value { test: Test::Phrase(phrase), .. } if !phrase.is_prefix() => match phrase.words() {
            [word] if !word.bytes().any(|byte| byte.is_ascii_digit()) => Some(word),
            _ => None,
        },
        _ => None,
    }
}

/// As [`judge_prefix`], of a word without digits.
fn judge_prefix_word(text: &[u8], word: &str) -> u8 {
    if text.last().is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_' || !byte.is_ascii()) {
        // The number goes on with its last word.
        return 3;
    }
    if has_word(text, word) { 2 } else { 1 }
}

/// Whether a text has a word, which is in lower case.
fn has_word(text: &[u8], word: &str) -> bool {
    if text.is_ascii() && word.is_ascii() {
        if text.len() < word.len() {
            return false;
        }
        let Ok(text) = std::str::from_utf8(text) else { return false };
        let mut found = words(text);
        while let Some(span) = found.next_span() {
            if text[span].eq_ignore_ascii_case(word) {
                return true;
            }
        }
        return false;
    }
    words(&String::from_utf8_lossy(text)).any(|found| found.text == word)
}

/// Whether the condition is an expression over the message.
fn is_regex(query: &LogQuery) -> bool {
    matches!(
        query,
        LogQuery::Line(LineTest::Regex(_)) | LogQuery::Value { field: Field::Message, test: Test::Regex(_) }
    )
}

/// Whether what an expression needs can only be in a variable of the template, and in one alone.
fn may_only_vary(needs: &Needs, template: &Template) -> bool {
    let is_within = |needle: &Vec<u8>| {
        stays_within_of(needle, template)
            && !template.pieces().any(|piece| memchr::memmem::find(piece, needle).is_some())
    };
    !template.is_whole() && !needs.one_of.is_empty() && needs.one_of.iter().all(is_within)
}

/// Kinds of cells whose text may have `needle` in it.
fn kinds_with(needle: &[u8]) -> u16 {
    let bit = |kind: Kind| 1u16 << kind as u16;
    let mut kinds = bit(Kind::Text) | bit(Kind::Prefixed) | bit(Kind::Body);
    let all = |of: fn(&u8) -> bool| needle.iter().all(of);
    if all(u8::is_ascii_digit) {
        kinds |= bit(Kind::Int) | bit(Kind::Padded);
    }
    if all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'.')) {
        kinds |= bit(Kind::Negative) | bit(Kind::Decimal) | bit(Kind::Ip);
    }
    if all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) && needle.len() <= 32 {
        kinds |= bit(Kind::Id32) | if needle.len() <= 16 { bit(Kind::Id16) } else { 0 };
    }
    if all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-')) && needle.len() <= 36 {
        kinds |= bit(Kind::Uuid);
    }
    if may_be_of_time(needle) {
        kinds |= bit(Kind::Time);
    }
    kinds
}

fn holds_for(query: &LogQuery, text: &[u8]) -> bool {
    match query {
        LogQuery::Line(test) => test.matches(text),
        LogQuery::Value { test: Test::Phrase(phrase), .. }
            if phrase.words().len() == 1 && !phrase.is_prefix() =>
        {
            has_word(text, &phrase.words()[0])
        }
        LogQuery::Value { test, .. } => {
            let found: Vec<String> = words(&String::from_utf8_lossy(text)).map(|word| word.text).collect();
            test.of_words(&found).unwrap_or(false)
        }
        _ => false,
    }
}

/// Whether one word must be in a variable of the template if the test holds for a field of the message.
fn is_variable_word(test: &Test, template: &Template) -> bool {
    let Some(phrase) = plain_phrase(test) else { return false };
    let [word] = phrase.words() else { return false };
    !phrase.is_prefix() && !items(template).contains(&Item::Word(word.clone()))
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

/// A row that is looked at.
struct Row<'a> {
    place: usize,
    number: u32,
    template: Arc<Template>,
    signature: &'a Signature,
    message_is_built: bool,
    entry: Option<Box<LogEntry>>,
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
