//! A query as it is asked of pages: its conditions numbered, and what is known of each of them for a stream, a template
//! and a page.

use std::collections::HashMap;
use std::sync::Arc;

use binnacle_model::log::{Field, loki_alias};
use binnacle_model::log_query::{LineTest, LogQuery, Phrase, Test};
use binnacle_model::storage::{Deadline, LogRequest, StorageError};
use binnacle_model::{Label, Labels, MatchOp, Matcher};

use super::facts::{Facts, is_plain_word, plain_phrase};
use super::fields::Layout;
use super::leaves::{Leaf, Node, number, regex_of};
use super::needle::{self, Needle, Verdict};
use super::phrase::{self, Item};
use super::probe::Probe;
use super::signature::{Left, Signature, left_of};
use super::verdicts::{Pool, VERDICTS_MAX, Verdicts};
use crate::logs::page::{NumberSet, PageView, has_escape, level_name};
use crate::logs::template::{Template, ValueKind};

/// Answers about a condition and a template that are kept: a query may have a thousand conditions.
const KNOWN_MAX: usize = 500_000;

/// Conditions asked of templates between two looks at the deadline.
const JUDGED_PER_CHECK: usize = 4096;

/// What the whole query says of the rows of a template and a kind of stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judged {
    /// Nobody asked yet.
    Unknown,
    No,
    Yes,
    Look,
    /// None where no variable holds this probe of the only condition that is open; else they are to be looked at.
    OnlyIfHeld(u8),
}

/// A query, ready to be asked.
#[derive(Debug)]
pub(in crate::logs) struct Plan {
    pub(super) request: LogRequest,
    pub(super) root: Node,
    pub(super) leaves: Vec<Leaf>,
    /// Answers about templates, by condition, what the page knows of it, and template.
    known: HashMap<(usize, u64, *const Template), Verdict, foldhash::fast::FixedState>,
    items: HashMap<*const Template, Arc<[Item]>, foldhash::fast::FixedState>,
    /// Where the fields of conditions are.
    pub(super) layouts: HashMap<(usize, *const Template), Option<Arc<Layout>>, foldhash::fast::FixedState>,
    /// Keeps the templates where they are.
    kept: Vec<Arc<Template>>,
    /// Answers of the whole query about templates, for each kind of stream and what a page knows.
    verdicts: HashMap<(u16, Vec<u64>), Arc<Verdicts>>,
    /// Those of all threads of the search.
    pool: Arc<Pool>,
    /// Which of so many threads this is: each begins to judge elsewhere.
    turn: (usize, usize),
    /// The kinds of streams, with what each leaves of the query; and of which kind each stream is that was seen, by its
    /// place in memory.
    signatures: Vec<(Arc<Signature>, Left)>,
    of_stream: HashMap<*const Label, u16, foldhash::fast::FixedState>,
    /// Keeps the streams where they are.
    streams: Vec<Labels>,
    /// Streams of sealed pages of each kind, and those of any.
    of_kind: Vec<NumberSet>,
    known_streams: NumberSet,
    /// What one template is asked: its conditions, and those that were made one.
    tests: usize,
    /// Conditions asked of templates since the deadline was looked at.
    judged: usize,
}

impl Plan {
    /// How many things its conditions may ask of single variables.
    pub(super) fn probes(&self) -> usize {
        self.leaves.last().map_or(0, |last| last.first_probe + last.probes.len())
    }

    pub(in crate::logs) fn new(request: &LogRequest) -> Self {
        let mut leaves = Vec::new();
        let root = number(&request.query, &mut leaves);
        let (known, items, kept) = (HashMap::default(), HashMap::default(), Vec::new());
        let tests = leaves.iter().map(Leaf::tests).sum();
        Self {
            request: request.clone(),
            root,
            leaves,
            known,
            items,
            layouts: HashMap::default(),
            kept,
            verdicts: HashMap::new(),
            pool: Arc::default(),
            turn: (0, 1),
            signatures: Vec::new(),
            of_stream: HashMap::default(),
            streams: Vec::new(),
            of_kind: Vec::new(),
            known_streams: NumberSet::default(),
            tests,
            judged: 0,
        }
    }

    /// The same for one more thread, by its number of so many, which shares what is found out about templates.
    pub(super) fn beside(request: &LogRequest, pool: &Arc<Pool>, turn: (usize, usize)) -> Self {
        Self { pool: Arc::clone(pool), turn, ..Self::new(request) }
    }

    pub(super) fn pool(&self) -> Arc<Pool> {
        Arc::clone(&self.pool)
    }

    /// The kinds of streams that a page has, each once, and the kind of each stream; none if there is one kind alone.
    pub(super) fn kinds_of(&mut self, page: &dyn PageView) -> (Vec<u16>, Vec<u16>) {
        if let Some(brief) = page.brief() {
            for word in brief.streams.words() {
                let new = !self.known_streams.bits(word.at);
                for place in brief.streams.places_of(*word, new) {
                    let kind = self.kind_of(&page.streams()[place as usize]);
                    let number = brief.streams.number(place as usize);
                    self.of_kind.resize_with(self.signatures.len(), NumberSet::default);
                    self.of_kind[usize::from(kind)].insert(number);
                    self.known_streams.insert(number);
                }
            }
            let has = |(_, set): &(u16, &NumberSet)| brief.streams.is_any_in(set);
            let kinds: Vec<u16> = (0..).zip(&self.of_kind).filter(has).map(|(kind, _)| kind).collect();
            if kinds.len() == 1 {
                return (kinds, Vec::new());
            }
        }
        let of_stream: Vec<u16> = page.streams().iter().map(|stream| self.kind_of(stream)).collect();
        let mut kinds = of_stream.clone();
        kinds.sort_unstable();
        kinds.dedup();
        (kinds, of_stream)
    }

    /// Which kind of stream this one is, in the query's eyes.
    fn kind_of(&mut self, stream: &Labels) -> u16 {
        let place = stream.iter().as_slice().as_ptr();
        if let Some(kind) = self.of_stream.get(&place) {
            return *kind;
        }
        let signature = Signature::of(self, stream);
        let known = self.signatures.iter().position(|(known, _)| **known == signature);
        let kind = known.unwrap_or_else(|| {
            let left = left_of(&self.root, &signature);
            self.signatures.push((Arc::new(signature), left));
            self.signatures.len() - 1
        });
        self.of_stream.insert(place, kind as u16);
        self.streams.push(stream.clone());
        kind as u16
    }

    /// The kind of stream of that number, and what it leaves of the query.
    pub(super) fn signature(&self, kind: u16) -> (Arc<Signature>, Left) {
        let (signature, left) = &self.signatures[usize::from(kind)];
        (Arc::clone(signature), *left)
    }

    /// What the whole query says of rows of a kind of stream, for each template of a page.
    pub(super) fn judge_all(
        &mut self,
        kind: u16,
        page: &dyn PageView,
        facts: &Facts,
        deadline: &Deadline,
    ) -> Result<Arc<Verdicts>, StorageError> {
        let (signature, left) = self.signature(kind);
        let Some(brief) = page.brief() else {
            // Its templates have no numbers but their places.
            let mut verdicts = Verdicts::default();
            for (place, one) in (0..).zip(page.templates()) {
                let judged = self.judge_new(&signature, left, &one.template, facts, deadline)?;
                verdicts.set(place, judged);
            }
            return Ok(Arc::new(verdicts));
        };
        let key = (kind, facts.bits.clone());
        let mut verdicts = self.verdicts.remove(&key).unwrap_or_default();
        let words = brief.numbers.words();
        let (before, first) = words.split_at(words.len() * self.turn.0 / self.turn.1);
        for word in first.iter().chain(before) {
            if word.bits & !verdicts.known().bits(word.at) == 0 {
                continue;
            }
            let own = Arc::make_mut(&mut verdicts);
            let of_pool = (Signature::clone(&signature), key.1.clone());
            self.pool.teach(&of_pool, own, word.at);
            let new = !own.known().bits(word.at);
            if word.bits & new == 0 {
                continue;
            }
            for place in brief.numbers.places_of(*word, new) {
                let template = &page.templates()[place as usize].template;
                let judged = self.judge_new(&signature, left, template, facts, deadline)?;
                own.set(brief.numbers.number(place as usize), judged);
            }
            self.pool.learn(&of_pool, own, word.at);
        }
        if self.verdicts.len() >= VERDICTS_MAX {
            self.verdicts.clear();
        }
        self.verdicts.insert(key, Arc::clone(&verdicts));
        Ok(verdicts)
    }

    /// As [`Self::judge`], of a template that was not asked about.
    fn judge_new(
        &mut self,
        signature: &Signature,
        left: Left,
        template: &Arc<Template>,
        facts: &Facts,
        deadline: &Deadline,
    ) -> Result<Judged, StorageError> {
        self.judged += self.tests;
        if self.judged >= JUDGED_PER_CHECK {
            self.judged = 0;
            if deadline.is_over() {
                return Err(StorageError::Deadline);
            }
        }
        let verdict = match left {
            Left::Known(holds) => Verdict::of(holds),
            Left::Leaf(leaf) => self.judge_alone(leaf, template, facts),
            Left::Tree => self.judge(signature, template, facts),
        };
        Ok(match verdict {
            Verdict::No => Judged::No,
            Verdict::Yes => Judged::Yes,
            Verdict::Look => {
                let asked = match left {
                    Left::Leaf(leaf) => self.asked_of(leaf, template),
                    Left::Known(_) | Left::Tree => None,
                };
                let probe = asked.and_then(|asked| u8::try_from(asked.probe).ok());
                probe.map_or(Judged::Look, Judged::OnlyIfHeld)
            }
        })
    }

    /// What the whole query says of rows of a stream and a template.
    fn judge(&mut self, signature: &Signature, template: &Arc<Template>, facts: &Facts) -> Verdict {
        let root = std::mem::replace(&mut self.root, Node::All);
        let verdict = self.judge_node(&root, signature, template, facts);
        self.root = root;
        verdict
    }

    fn judge_node(
        &mut self,
        node: &Node,
        signature: &Signature,
        template: &Arc<Template>,
        facts: &Facts,
    ) -> Verdict {
        match node {
            Node::All => Verdict::Yes,
            Node::Leaf(leaf) => self.judge_leaf(*leaf, signature, template, facts),
            Node::Not(part) => self.judge_node(part, signature, template, facts).not(),
            Node::And(parts) => {
                let mut all = Verdict::Yes;
                for part in parts {
                    match self.judge_node(part, signature, template, facts) {
                        Verdict::No => return Verdict::No,
                        Verdict::Look => all = Verdict::Look,
                        Verdict::Yes => {}
                    }
                }
                all
            }
            Node::Or(parts) => {
                let mut any = Verdict::No;
                for part in parts {
                    match self.judge_node(part, signature, template, facts) {
                        Verdict::Yes => return Verdict::Yes,
                        Verdict::Look => any = Verdict::Look,
                        Verdict::No => {}
                    }
                }
                any
            }
        }
    }

    /// What one condition says of rows of a stream and a template.
    pub(super) fn judge_leaf(
        &mut self,
        leaf: usize,
        signature: &Signature,
        template: &Arc<Template>,
        facts: &Facts,
    ) -> Verdict {
        if let Some(holds) = signature.0[leaf] {
            return Verdict::of(holds);
        }
        let key = (leaf, facts.bits[leaf], Arc::as_ptr(template));
        if let Some(known) = self.known.get(&key) {
            return *known;
        }
        self.make_room();
        let verdict = self.judge_template(leaf, template, facts);
        self.known.insert(key, verdict);
        self.kept.push(Arc::clone(template));
        verdict
    }

    /// As [`Self::judge_leaf`], where the caller keeps the answer.
    fn judge_alone(&mut self, leaf: usize, template: &Arc<Template>, facts: &Facts) -> Verdict {
        self.make_room();
        self.kept.push(Arc::clone(template));
        self.judge_template(leaf, template, facts)
    }

    /// Forgets what is known of templates once it is too much.
    fn make_room(&mut self) {
        if self.kept.len() >= KNOWN_MAX {
            self.known.clear();
            self.items.clear();
            self.layouts.clear();
            self.kept.clear();
        }
    }

    pub(super) fn items(&mut self, template: &Arc<Template>) -> Arc<[Item]> {
        let items = self.items.entry(Arc::as_ptr(template)).or_insert_with(|| phrase::items(template).into());
        Arc::clone(items)
    }

    fn judge_template(&mut self, leaf: usize, template: &Arc<Template>, facts: &Facts) -> Verdict {
        let bits = facts.bits[leaf];
        match &self.leaves[leaf].query {
            LogQuery::Value { field: Field::Message, .. } => self.judge_message(leaf, template, bits),
            LogQuery::Value { field: Field::Stream(_), test } => {
                let level = level_name(template.level);
                Verdict::of(!level.is_empty() && test.of_keyword(level))
            }
            LogQuery::Exists(Field::Stream(_)) => Verdict::of(template.level > 0),
            LogQuery::Exists(Field::Message) => {
                let is_certain =
                    !template.text.is_empty() || (!template.cuts.is_empty() && !template.is_whole());
                if is_certain { Verdict::Yes } else { Verdict::Look.unless_constant(template) }
            }
            LogQuery::Value { field: Field::Parsed(name), test } if is_as_written(template, name) => {
                let phrase = plain_phrase(test).cloned();
                let may_hold = phrase.is_none_or(|phrase| self.may_have_words(&phrase, template, bits));
                if may_hold { Verdict::Look } else { Verdict::No }
            }
            LogQuery::Value { field: Field::Parsed(name), .. } | LogQuery::Exists(Field::Parsed(name)) => {
                if may_have_field(template, name) {
                    Verdict::Look
                } else {
                    Verdict::No
                }
            }
            LogQuery::Time { .. } => match bits {
                0 => Verdict::No,
                1 => Verdict::Yes,
                _ => Verdict::Look,
            },
            LogQuery::Line(LineTest::Contains(_)) => {
                let needle = self.leaves[leaf].needles.first_mut();
                needle.map_or(Verdict::Look, |needle| needle.judge(template, bits))
            }
            LogQuery::Line(LineTest::Regex(_)) => self.judge_regex(leaf, template, bits),
            LogQuery::Label(matcher) => {
                let name = loki_alias(&matcher.name);
                if name == "level" && template.level > 0 {
                    return Verdict::of(matcher.matches(level_name(template.level)));
                }
                let attribute = template
                    .attributes
                    .iter()
                    .find(|(key, _)| **key == *name || binnacle_model::log::loki_name(key) == name);
                // The stream may have a label of the level's name.
                // An attribute of that value would have its words in the page's filter.
                let may_be = |kind: ValueKind| {
                    let has_words = matches!(kind, ValueKind::Text | ValueKind::Int);
                    name == "level" || bits == 1 || !has_words || !is_plain_equality(matcher)
                };
                let is_open = attribute.is_some_and(|(_, kind)| may_be(*kind));
                if is_open || (name == "level" && bits == 1) {
                    Verdict::Look
                } else {
                    Verdict::of(attribute.is_none() && matcher.matches(""))
                }
            }
            LogQuery::Or(_) => {
                let Some(Probe::AnyWord(any)) = self.leaves[leaf].probes.first() else {
                    return Verdict::Look;
                };
                Arc::clone(any).judge(template, || self.items(template))
            }
            LogQuery::All | LogQuery::And(_) | LogQuery::Not(_) => Verdict::Look,
        }
    }

    /// As [`Self::judge_template`], of a condition on the message.
    fn judge_message(&mut self, leaf: usize, template: &Arc<Template>, bits: u64) -> Verdict {
        let LogQuery::Value { test, .. } = &self.leaves[leaf].query else { return Verdict::Look };
        match test {
            Test::Phrase(phrase) if lacks_a_word(template, phrase, bits) => Verdict::No,
            Test::Wildcard(wildcard)
                if wildcard.longest_literal().is_some_and(|text| lacks(template, text)) =>
            {
                Verdict::Look.unless_constant(template)
            }
            Test::Phrase(_) | Test::Wildcard(_) | Test::Fuzzy { .. } => {
                let items = self.items(template);
                let LogQuery::Value { test, .. } = &self.leaves[leaf].query else { return Verdict::Look };
                let may_vary = |word: usize| word >= 63 || bits >> word & 1 == 1;
                phrase::judge(&items, test, &may_vary)
            }
            Test::Regex(_) => self.judge_regex(leaf, template, bits),
            Test::Ip(range) if template.cuts.is_empty() => {
                Verdict::of(range.is_in(&String::from_utf8_lossy(&template.text)))
            }
            Test::Ip(_) => Verdict::Look,
            Test::Number { .. } | Test::Time { .. } | Test::Text { .. } => Verdict::No,
        }
    }

    /// Whether messages of the template may have each plain word of a phrase. `bits` says which may be in variables.
    fn may_have_words(&mut self, phrase: &Phrase, template: &Arc<Template>, bits: u64) -> bool {
        let items = self.items(template);
        let may_be = |(at, word): (usize, &String)| {
            let is_constant = || items.iter().any(|item| *item == Item::Word(word.clone()));
            let may_vary = template.holes() > 0 && (at >= 63 || bits >> at & 1 == 1);
            !is_plain_word(phrase, word) || may_vary || is_constant()
        };
        let whole = phrase.words().len() - usize::from(phrase.is_prefix());
        phrase.words()[..whole].iter().enumerate().all(may_be)
    }

    fn judge_regex(&mut self, leaf: usize, template: &Template, bits: u64) -> Verdict {
        let Leaf { query, needs, needles, .. } = &mut self.leaves[leaf];
        let Some(regex) = regex_of(query) else { return Verdict::Look };
        if template.cuts.is_empty() {
            return Verdict::of(regex.is_match(&template.text));
        }
        let Some(needs) = needs else { return Verdict::Look };
        let is_out = |(at, needle): (usize, &mut Needle)| {
            // Of its tokens nothing is known here.
            needle.judge(template, !1 | bits >> at.min(63) & 1) == Verdict::No
        };
        if !needles.is_empty() && needles.iter_mut().enumerate().all(is_out) {
            return Verdict::No;
        }
        if !needs.looks_around && template.pieces().any(|piece| regex.is_match(piece)) {
            return Verdict::Yes;
        }
        Verdict::Look
    }
}

/// Whether a word of the phrase is neither in the constant text nor in any variable. `bits` says which may be in one.
fn lacks_a_word(template: &Template, phrase: &Phrase, bits: u64) -> bool {
    let is_lacking = |(at, word): (usize, &String)| at < 63 && bits >> at & 1 == 0 && lacks(template, word);
    phrase.words().iter().enumerate().any(is_lacking)
}

/// Whether text in lower case is surely not in the constant text, whatever the case there.
fn lacks(template: &Template, text: &str) -> bool {
    let (hay, needle) = (&*template.text, text.as_bytes());
    let Some(first) = needle.first() else { return false };
    // Other letters may become ASCII ones.
    if !hay.is_ascii() || !needle.is_ascii() {
        return false;
    }
    let is_here =
        |at: usize| hay.get(at..at + needle.len()).is_some_and(|here| here.eq_ignore_ascii_case(needle));
    !memchr::memchr2_iter(*first, first.to_ascii_uppercase(), hay).any(is_here)
}

impl Verdict {
    /// A template without a hole has nothing but its constant text.
    pub(super) fn unless_constant(self, template: &Template) -> Self {
        if template.cuts.is_empty() { Self::No } else { self }
    }
}

/// Whether the matcher wants one value, and one that is not empty.
pub(super) fn is_plain_equality(matcher: &Matcher) -> bool {
    matcher.op == MatchOp::Equal && !matcher.value.is_empty()
}

/// Whether messages of the template may hold a field of that name, or have it as an attribute.
///
/// A key of JSON or logfmt that is one token is never a hole, so that it stands in the constant text.
fn may_have_field(template: &Template, name: &str) -> bool {
    if template.attributes.iter().any(|(key, _)| **key == *name) || template.is_whole() {
        return true;
    }
    let last = name.rsplit('.').next().unwrap_or(name);
    let is_token = !last.is_empty() && last.bytes().all(needle::is_key_byte);
    // Escapes and colours can spell a key in other ways.
    let is_plain = !template.text.iter().any(|byte| matches!(byte, b'\\' | 0x1b));
    if is_token && is_plain {
        return memchr::memmem::find(&template.text, last.as_bytes()).is_some();
    }
    true
}

/// Whether messages of the template have what their fields say as it is written.
pub(super) fn is_as_written(template: &Template, name: &str) -> bool {
    // Words of other kinds of attributes are in no filter.
    let is_odd = |kind: ValueKind| !matches!(kind, ValueKind::Text | ValueKind::Int);
    let is_odd = template.attributes.iter().any(|(key, kind)| **key == *name && is_odd(*kind));
    // Variables of messages have no escapes in them.
    !is_odd && !template.is_whole() && !has_escape(&template.text) && may_have_field(template, name)
}
