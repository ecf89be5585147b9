//! The rows of a page that a query finds.

use std::collections::HashMap;
use std::ops::RangeBounds;
use std::sync::Arc;

use binnacle_model::LogTime;
use binnacle_model::log::{Field, LogEntry};
use binnacle_model::log_query::{EntryView, LogQuery, Test};
use binnacle_model::storage::{Deadline, Holding, StorageError};
use binnacle_model::tokens::words;

use super::cells::{CellCache, RowsOf};
use super::facts::Facts;
use super::leaves::Node;
use super::narrow::{Answer, Column, OfTemplate};
use super::needle::Verdict;
use super::plan::{Judged, Plan};
use super::probe::Known;
use super::signature::{Left, Signature};
use super::verdicts::Verdicts;
use super::{Broken, fail};
use crate::logs::page::{self, NumberSet, PageError, PageView};

/// Rows between two looks at the deadline.
const ROWS_PER_CHECK: usize = 1024;

/// Templates between two looks at the deadline.
const TEMPLATES_PER_CHECK: u32 = 64;

/// Conditions asked of rows between two looks at the deadline.
const ASKED_PER_CHECK: usize = 256;

/// What is to be known of the rows that are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wants {
    /// Which they are.
    Rows,
    /// How many of each template there are, where that is less work.
    Counts,
}

/// What a query finds in a page.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Whether it finds every row of the page; then nothing is in the lists.
    pub(super) is_all: bool,
    /// Templates of which it finds every row. Empty unless the time of the request holds the whole page, and all streams
    /// of it are alike for the query.
    pub(super) templates: Vec<u32>,
    /// Templates of which it finds so many rows; only with [`Wants::Counts`].
    pub(super) counts: Vec<(u32, u32)>,
    /// Rows of other templates, ascending.
    pub(super) rows: Vec<u32>,
}

impl Found {
    /// How many rows there are.
    pub(super) fn count(&self, page: &dyn PageView) -> u64 {
        if self.is_all {
            return page.rows() as u64;
        }
        let rows = |at: &u32| match page.brief() {
            Some(brief) => brief.rows[*at as usize],
            None => page.templates()[*at as usize].rows,
        };
        let whole = self.templates.iter().map(|at| u64::from(rows(at)));
        let counts = self.counts.iter().map(|(_, count)| u64::from(*count));
        whole.chain(counts).sum::<u64>() + self.rows.len() as u64
    }

    /// The templates of which it finds every row; they are in it no more.
    pub(super) fn take_templates(&mut self, page: &dyn PageView) -> Vec<u32> {
        if std::mem::take(&mut self.is_all) {
            return (0..page.templates().len() as u32).collect();
        }
        std::mem::take(&mut self.templates)
    }

    /// All rows, ascending.
    pub(super) fn all_rows(self, page: &dyn PageView) -> Result<Vec<u32>, PageError> {
        if self.is_all || self.templates.len() == page.templates().len() {
            return Ok((0..page.rows() as u32).collect());
        }
        if self.templates.is_empty() {
            return Ok(self.rows);
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

/// What is found among the rows of each template, most of which find none or all of them.
#[derive(Default)]
struct Answers {
    /// How many templates there are.
    templates: usize,
    /// By template: [`NONE`], [`ALL`], or the place of another one behind these; empty if no row is found at all.
    places: Vec<u32>,
    /// The templates of which some row is found.
    found: Vec<u32>,
    others: Vec<Answer>,
}

const NONE: u32 = 0;
const ALL: u32 = 1;

impl Answers {
    /// Of so many templates, of which no row is found yet.
    fn new(templates: usize) -> Self {
        Self { templates, ..Self::default() }
    }

    fn set(&mut self, template: u32, answer: Answer) {
        if answer == Answer::None {
            return;
        }
        if self.places.is_empty() {
            self.places.resize(self.templates, NONE);
        }
        self.found.push(template);
        self.places[template as usize] = match answer {
            Answer::All => ALL,
            other => {
                self.others.push(other);
                ALL + self.others.len() as u32
            }
        };
    }

    fn of(&self, template: usize) -> &Answer {
        match self.places.get(template).copied().unwrap_or(NONE) {
            NONE => &Answer::None,
            ALL => &Answer::All,
            place => &self.others[(place - ALL - 1) as usize],
        }
    }

    /// Whether templates decide alone.
    fn is_simple(&self) -> bool {
        self.others.is_empty()
    }

    /// Whether there is no row at all.
    fn is_out(&self) -> bool {
        self.found.is_empty()
    }

    fn asks_for_rows(&self) -> bool {
        self.others.iter().any(|answer| matches!(answer, Answer::Rows(_)))
    }
}

/// Streams of a page that are alike for a query.
struct Group {
    signature: Arc<Signature>,
    left: Left,
    verdicts: Arc<Verdicts>,
    answers: Answers,
}

/// Finds the rows.
pub(super) fn find(
    plan: &mut Plan,
    page: &dyn PageView,
    wants: Wants,
    deadline: &Deadline,
) -> Result<Found, Broken> {
    let (first, last) = page.span();
    let (start, end) = (plan.request.start, plan.request.end);
    if page.rows() == 0 || last < start || first >= end {
        return Ok(Found::default());
    }
    let (kinds, of_stream) = plan.kinds_of(page);
    let facts = Facts::of(plan, &kinds, page)?;
    let mut groups = groups(plan, &kinds, page, &facts, deadline)?;
    let is_whole = start <= first && last < end;
    let single = is_whole && groups.len() == 1;
    if single && groups[0].left == Left::Known(true) {
        return Ok(Found { is_all: true, ..Found::default() });
    }
    let mut looker = Looker::new(plan, page, &facts, deadline);
    for group in &mut groups {
        looker.answer_group(group, single && wants == Wants::Counts)?;
    }
    if groups.iter().all(|group| group.answers.is_out()) {
        return Ok(Found::default());
    }
    let mut found = Found::default();
    if single {
        settle(&mut groups[0].answers, &mut found, wants);
        if groups[0].answers.is_out() {
            return Ok(found);
        }
    }
    let place_of = |kind: &u16| kinds.iter().position(|one| one == kind).unwrap_or(0);
    let of_stream: Vec<usize> = of_stream.iter().map(place_of).collect();
    look_at_rows(&mut looker, &groups, &of_stream, is_whole, wants, &mut found)?;
    Ok(found)
}

/// Finds what the answers about templates leave: rows one by one, and streams whose answers differ.
fn look_at_rows(
    looker: &mut Looker<'_>,
    groups: &[Group],
    of_stream: &[usize],
    is_whole: bool,
    wants: Wants,
    found: &mut Found,
) -> Result<(), Broken> {
    let page = looker.page;
    let (start, end) = (looker.plan.request.start, looker.plan.request.end);
    let times = if is_whole { None } else { Some(page.time_column()?) };
    let is_in_time = |row: usize| times.is_none_or(|times| (start.0..end.0).contains(&times[row]));
    let templates = page.template_column()?;
    let runs =
        page.runs().unwrap_or_else(|| page.stream_column().iter().map(|stream| (*stream, 1)).collect());
    // How many rows of each template came so far, where somebody asks.
    let asks = groups.iter().any(|group| group.answers.asks_for_rows());
    let is_out: Vec<bool> = groups.iter().map(|group| !asks && group.answers.is_out()).collect();
    let mut seen = vec![0u32; page.templates().len()];
    let mut counts = vec![0u32; page.templates().len()];
    let (mut row, mut looked) = (0, 0);
    for (stream, count) in runs {
        let number = of_stream.get(stream as usize).copied().unwrap_or(0);
        let group = &groups[number];
        let rows = row..row + count;
        row += count;
        if is_out[number] {
            continue;
        }
        if !asks && times.is_none() && group.answers.is_simple() {
            let places = &group.answers.places;
            if wants == Wants::Counts {
                templates[rows].iter().for_each(|at| counts[*at as usize] += places[*at as usize]);
            } else {
                let own = rows.filter(|row| places[templates[*row] as usize] == ALL);
                found.rows.extend(own.map(|row| row as u32));
            }
            continue;
        }
        for row in rows {
            looked += 1;
            if looked % ROWS_PER_CHECK == 0 && looker.deadline.is_over() {
                return Err(StorageError::Deadline.into());
            }
            let template = templates[row] as usize;
            let occurrence = seen[template] as usize;
            seen[template] += 1;
            let takes = match group.answers.of(template) {
                Answer::None | Answer::Count(_) => false,
                Answer::All => is_in_time(row),
                Answer::Rows(rows) => {
                    let holds = rows.get(occurrence).ok_or(PageError::Damaged("rows that do not add up"))?;
                    *holds && is_in_time(row)
                }
                Answer::Open => is_in_time(row) && looker.holds(row, &group.signature)?,
            };
            if takes {
                found.rows.push(row as u32);
            }
        }
    }
    let counted = (0..).zip(counts).filter(|(_, count)| *count > 0);
    found.counts.extend(counted);
    Ok(())
}

/// Moves what is known without a look at any row to what was found.
fn settle(answers: &mut Answers, found: &mut Found, wants: Wants) {
    let Answers { places, found: left, others, .. } = answers;
    left.retain(|at| {
        let place = &mut places[*at as usize];
        if *place == ALL {
            found.templates.push(*at);
        } else {
            match &others[(*place - ALL - 1) as usize] {
                Answer::Count(count) => found.counts.push((*at, *count)),
                Answer::Rows(rows) if wants == Wants::Counts => {
                    found.counts.push((*at, rows.iter().filter(|holds| **holds).count() as u32));
                }
                _ => return true,
            }
        }
        *place = NONE;
        false
    });
}

/// What the query says of each template, for each kind of stream.
fn groups(
    plan: &mut Plan,
    kinds: &[u16],
    page: &dyn PageView,
    facts: &Facts,
    deadline: &Deadline,
) -> Result<Vec<Group>, StorageError> {
    let group = |kind: &u16| {
        let (signature, left) = plan.signature(*kind);
        let verdicts = match left {
            Left::Known(_) => Arc::default(),
            Left::Leaf(_) | Left::Tree => plan.judge_all(*kind, page, facts, deadline)?,
        };
        Ok(Group { signature, left, verdicts, answers: Answers::new(page.templates().len()) })
    };
    kinds.iter().map(group).collect()
}

/// Looks at rows that no template decides.
pub(super) struct Looker<'a> {
    pub(super) plan: &'a mut Plan,
    pub(super) page: &'a dyn PageView,
    pub(super) facts: &'a Facts,
    /// By condition, probe and template: its rows, where variables hold the probe.
    pub(super) columns: HashMap<(usize, usize, u32), Column, foldhash::fast::FixedState>,
    /// By probe: what is known of texts.
    pub(super) known: Vec<Option<Known>>,
    /// What was found out about other cells.
    pub(super) cells: CellCache,
    /// Bytes of columns, and of what is known of texts.
    pub(super) held: usize,
    pub(super) holding: Holding,
    message: Vec<u8>,
    pub(super) rows: RowsOf,
    pub(super) deadline: &'a Deadline,
    /// Conditions that were asked of rows.
    asked: usize,
    /// Whether fields of JSON and logfmt are where their keys say.
    pub(super) is_plain: Option<bool>,
}

impl<'a> Looker<'a> {
    fn new(plan: &'a mut Plan, page: &'a dyn PageView, facts: &'a Facts, deadline: &'a Deadline) -> Self {
        let probes = plan.probes();
        let known = (0..probes).map(|_| None).collect();
        let (columns, message) = (HashMap::default(), Vec::new());
        Self {
            plan,
            page,
            facts,
            columns,
            known,
            cells: CellCache::default(),
            held: 0,
            holding: deadline.holding(),
            message,
            rows: RowsOf::default(),
            deadline,
            asked: 0,
            is_plain: None,
        }
    }

    /// Decides what can be decided without a look at rows.
    fn answer_group(&mut self, group: &mut Group, counts: bool) -> Result<(), Broken> {
        let answers = &mut group.answers;
        if let Left::Known(holds) = group.left {
            let all = if holds { self.page.templates().len() as u32 } else { 0 };
            (0..all).for_each(|number| answers.set(number, Answer::All));
            return Ok(());
        }
        let is_all = self.among(group.verdicts.yes());
        is_all.into_iter().for_each(|number| answers.set(number, Answer::All));
        let open = self.open_templates(group.left, &group.verdicts)?;
        for (decided, number) in (1u32..).zip(open) {
            if decided.is_multiple_of(TEMPLATES_PER_CHECK) && self.deadline.is_over() {
                return Err(StorageError::Deadline.into());
            }
            let template = Arc::clone(&self.page.templates()[number as usize].template);
            let at = OfTemplate { number, template, signature: &group.signature };
            let answer = self.decide(&at, counts)?;
            answers.set(number, answer);
        }
        Ok(())
    }

    /// The templates of the page that are in a set.
    fn among(&self, set: &NumberSet) -> Vec<u32> {
        match self.page.brief() {
            Some(brief) => brief.numbers.among(set),
            None => (0..self.page.templates().len() as u32).filter(|place| set.has(*place)).collect(),
        }
    }

    /// Templates of which variables or rows have to be looked at.
    fn open_templates(&mut self, left: Left, verdicts: &Verdicts) -> Result<Vec<u32>, Broken> {
        let mut held = Vec::new();
        let mut open = Vec::new();
        for place in self.among(verdicts.look()) {
            let number = self.page.brief().map_or(place, |brief| brief.numbers.number(place as usize));
            let may_be = match (verdicts.judged(number), left) {
                (Judged::OnlyIfHeld(probe), Left::Leaf(leaf)) => {
                    self.may_be_held(&mut held, leaf, usize::from(probe), place)?
                }
                _ => true,
            };
            open.extend(may_be.then_some(place));
        }
        let (Some((probe, set)), Left::Leaf(leaf)) = (verdicts.held(), left) else { return Ok(open) };
        let probe = usize::from(probe);
        if let Some(brief) = self.page.brief().filter(|brief| brief.numbers.is_any_in(set)) {
            let Held { kinds, templates } = self.held(leaf, probe)?;
            if let Some(touched) = templates.filter(|_| brief.any_kinds & kinds == 0) {
                let is_in_set = |place: &u32| set.has(brief.numbers.number(*place as usize));
                open.extend(touched.into_iter().filter(is_in_set));
                return Ok(open);
            }
        }
        for place in self.among(set) {
            if self.may_be_held(&mut held, leaf, probe, place)? {
                open.push(place);
            }
        }
        Ok(open)
    }

    /// Whether a variable of a template may hold a probe of a condition. `held` keeps what is known of each probe.
    fn may_be_held(
        &mut self,
        held: &mut Vec<Option<Held>>,
        leaf: usize,
        probe: usize,
        template: u32,
    ) -> Result<bool, Broken> {
        if held.len() <= probe {
            held.resize_with(probe + 1, || None);
        }
        if held[probe].is_none() {
            held[probe] = Some(self.held(leaf, probe)?);
        }
        let Some(Held { kinds, templates: Some(templates) }) = &held[probe] else { return Ok(true) };
        let has_it = templates.binary_search(&template).is_ok();
        Ok(has_it || self.page.all_kinds(template as usize) & kinds != 0)
    }

    fn held(&mut self, leaf: usize, probe: usize) -> Result<Held, Broken> {
        let kinds = self.plan.leaves[leaf].kinds[probe];
        let known = self.known(leaf, probe)?;
        Ok(Held { kinds: known.others(kinds), templates: known.touched() })
    }

    /// Whether the query finds a row.
    fn holds(&mut self, row: usize, signature: &Signature) -> Result<bool, Broken> {
        let number = self.page.template_column()?[row];
        let template = Arc::clone(&self.page.templates()[number as usize].template);
        let root = std::mem::replace(&mut self.plan.root, Node::All);
        let of = OfTemplate { number, template, signature };
        let mut at = Row { place: row, of, message_is_built: false, entry: None };
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
            Node::Leaf(leaf) => {
                match self.plan.judge_leaf(*leaf, at.of.signature, &at.of.template, self.facts) {
                    Verdict::Yes => true,
                    Verdict::No => false,
                    Verdict::Look => self.look(*leaf, at)?,
                }
            }
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
        if let Some((column, decides)) = self.column_of(leaf, &at.of)? {
            let occurrence = self.page.occurrence_column()?[at.place] as usize;
            let bits = column.get(occurrence / 64).ok_or(PageError::Damaged("rows that do not add up"))?;
            let holds = bits >> (occurrence % 64) & 1 == 1;
            if !holds || decides {
                return Ok(holds);
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
        page::rebuild(self.page, at.of.number as usize, occurrence, time, &mut self.message)?;
        at.message_is_built = true;
        Ok(())
    }
}

/// Where a probe may be held.
struct Held {
    /// Bits of the kinds of cells that may hold it anywhere.
    kinds: u16,
    /// The templates of which a cell of another kind holds it, ascending; `None` if that is not known.
    templates: Option<Vec<u32>>,
}

/// A row that is looked at.
struct Row<'a> {
    place: usize,
    of: OfTemplate<'a>,
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
