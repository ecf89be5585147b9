//! Log templates: what messages have in common, and the finding of it.
//!
//! Two messages have one template if all their constant bytes are the same, their holes stand in the same places, and
//! their level and the names and kinds of their attributes agree. Holes have no type in that: a column has one.

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::names::Names;
use super::split::{Pieces, Span, Word};

/// Text of a message that is kept whole, because its stream is prose or it is long.
pub(crate) const WHOLE_MIN_BYTES: usize = 8 * 1024;

/// Templates that the finder remembers; then those go that were not seen of late.
const TEMPLATES_MAX: usize = 60_000;

/// Templates that differ in one word alone; with one more the word becomes a hole.
const VARIANTS_MAX: u8 = 16;

/// Counters of such variants.
const COUNTERS_MAX: usize = 200_000;

/// Messages whose words became holes, remembered by their hash.
const LEARNED_MAX: usize = 100_000;

/// Words of one message that may become holes.
const PROMOTIONS_MAX: usize = 16;

/// Words of a message that are tried.
const TRIED_MAX: usize = 48;

/// The kind of an attribute's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum ValueKind {
    Text = 0,
    Int = 1,
    Float = 2,
    Bool = 3,
}

impl ValueKind {
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        [Self::Text, Self::Int, Self::Float, Self::Bool].get(usize::from(byte)).copied()
    }
}

/// What messages have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Template {
    /// The constant bytes, one behind the other.
    pub(crate) text: Box<[u8]>,
    /// Where in `text` the holes are, ascending.
    pub(crate) cuts: Box<[u32]>,
    /// Index in [`binnacle_model::log::LEVELS`] plus one, or zero.
    pub(crate) level: u8,
    /// Names and kinds of the attributes; each has a hole behind those of the message.
    pub(crate) attributes: Names,
}

impl Template {
    /// One hole that is the whole message.
    pub(crate) fn is_whole(&self) -> bool {
        self.text.is_empty() && *self.cuts == [0]
    }

    /// Holes of the message and of the attributes.
    pub(crate) fn holes(&self) -> usize {
        self.cuts.len() + self.attributes.len()
    }

    /// The constant pieces: before the first hole, between the holes, behind the last one.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = &[u8]> + Clone {
        let starts = std::iter::once(0).chain(self.cuts.iter().map(|cut| *cut as usize));
        let ends = self.cuts.iter().map(|cut| *cut as usize).chain([self.text.len()]);
        starts.zip(ends).map(|(start, end)| &self.text[start..end])
    }

    /// With `<_>` for each hole, as patterns are shown.
    pub(crate) fn pattern(&self) -> String {
        let pieces: Vec<_> = self.pieces().map(String::from_utf8_lossy).collect();
        pieces.join("<_>")
    }
}

type IdentityMap<V> = HashMap<u64, V, BuildHasherDefault<Identity>>;

/// The hash of a number that is a hash.
#[derive(Default)]
struct Identity(u64);

impl std::hash::Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }
    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

/// A number for each template that was seen, as long as the finder remembers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct TemplateNumber(pub(crate) u32);

/// What of an entry besides its message makes its template.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Beside<'a> {
    pub(crate) level: u8,
    /// Of the attributes: equal lists lie in one place, as [`super::names::KnownNames`] has them.
    pub(crate) names: &'a Names,
    /// Of the names.
    pub(crate) hash: u64,
}

/// Finds templates.
#[derive(Default)]
pub(crate) struct Finder {
    templates: Vec<Known>,
    by_hash: IdentityMap<TemplateNumber>,
    /// Hashes of messages with one word left out that has too many variants.
    promoted: HashSet<u64, BuildHasherDefault<Identity>>,
    /// So many templates differ in that word alone.
    variants: IdentityMap<u8>,
    /// By the hash of a message some of whose words became holes: which words, in the order in which they did.
    learned: IdentityMap<Box<[u16]>>,
    /// Templates with such holes, by what stands between the tokens of their messages.
    by_shape: IdentityMap<Vec<TemplateNumber>>,
    /// Templates that were made since the start.
    made: u64,
}

struct Known {
    template: Arc<Template>,
    /// The next one with the same hash.
    next: Option<TemplateNumber>,
}

impl std::fmt::Debug for Finder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Finder({} templates)", self.templates.len())
    }
}

impl Finder {
    pub(crate) fn template(&self, number: TemplateNumber) -> &Arc<Template> {
        &self.templates[number.0 as usize].template
    }

    /// How many templates were made so far.
    pub(crate) fn made(&self) -> u64 {
        self.made
    }

    /// Whether it remembers so many that it should begin anew. Numbers mean nothing after [`Self::forget`].
    pub(crate) fn is_full(&self) -> bool {
        self.templates.len() >= TEMPLATES_MAX
    }

    /// Forgets all templates; which words vary is remembered.
    pub(crate) fn forget(&mut self) {
        self.templates.clear();
        self.by_hash.clear();
        self.learned.clear();
        self.by_shape.clear();
        self.variants.clear();
        if self.promoted.len() > COUNTERS_MAX {
            self.promoted.clear();
        }
    }

    /// The template of a message that stays whole.
    pub(crate) fn whole(&mut self, beside: Beside<'_>) -> TemplateNumber {
        let hash = hash_of(b"", &[], beside) ^ 1;
        let is_it = |template: &Template| template.is_whole() && is_beside(template, beside);
        self.lookup(hash, is_it).unwrap_or_else(|| {
            let template = Template {
                text: Box::default(),
                cuts: Box::new([0]),
                level: beside.level,
                attributes: Arc::clone(beside.names),
            };
            self.insert(hash, template)
        })
    }

    /// The template of a message that was cut into `pieces`. Words among them may become holes.
    pub(crate) fn find(&mut self, message: &[u8], pieces: &mut Pieces, beside: Beside<'_>) -> TemplateNumber {
        let first = hash_of(message, &pieces.holes, beside);
        if let Some(found) = self.lookup(first, |template| is_same(template, message, &pieces.holes, beside))
        {
            return found;
        }
        if let Some(words) = self.learned.get(&first) {
            for word in words.clone() {
                make_hole(pieces, usize::from(word));
            }
            return self.find_or_make(message, pieces, beside);
        }
        let shape = shape_of(message, pieces, beside);
        let mut made = self.fitting(shape, message, pieces, beside).unwrap_or_default();
        for word in &made {
            make_hole(pieces, usize::from(*word));
        }
        made.extend(self.promote(message, pieces, beside));
        let found = self.find_or_make(message, pieces, beside);
        if !made.is_empty() {
            let of_shape = self.by_shape.entry(shape).or_default();
            if of_shape.len() < OF_SHAPE_MAX && !of_shape.contains(&found) {
                of_shape.push(found);
            }
            if self.learned.len() >= LEARNED_MAX {
                self.learned.clear();
            }
            self.learned.insert(first, made.into());
        }
        found
    }

    /// The words that must become holes for the message to be one of a template that has such holes.
    fn fitting(&self, shape: u64, message: &[u8], pieces: &Pieces, beside: Beside<'_>) -> Option<Vec<u16>> {
        let templates = self.by_shape.get(&shape)?.iter().rev();
        let templates = templates.map(|number| &*self.templates[number.0 as usize].template);
        templates
            .filter(|template| is_beside(template, beside))
            .find_map(|template| fit(template, message, pieces))
    }

    fn find_or_make(&mut self, message: &[u8], pieces: &Pieces, beside: Beside<'_>) -> TemplateNumber {
        let hash = hash_of(message, &pieces.holes, beside);
        let is_it = |template: &Template| is_same(template, message, &pieces.holes, beside);
        if let Some(found) = self.lookup(hash, is_it) {
            return found;
        }
        self.count_variants(message, pieces, beside);
        let (mut text, mut cuts, mut at) = (Vec::with_capacity(message.len()), Vec::new(), 0);
        for hole in &pieces.holes {
            text.extend_from_slice(&message[at..hole.start as usize]);
            cuts.push(text.len() as u32);
            at = hole.end as usize;
        }
        text.extend_from_slice(&message[at..]);
        let (level, attributes) = (beside.level, Arc::clone(beside.names));
        self.insert(hash, Template { text: text.into(), cuts: cuts.into(), level, attributes })
    }

    fn lookup(&self, hash: u64, is_it: impl Fn(&Template) -> bool) -> Option<TemplateNumber> {
        let mut next = self.by_hash.get(&hash).copied();
        while let Some(number) = next {
            let known = &self.templates[number.0 as usize];
            if is_it(&known.template) {
                return Some(number);
            }
            next = known.next;
        }
        None
    }

    fn insert(&mut self, hash: u64, template: Template) -> TemplateNumber {
        let number = TemplateNumber(self.templates.len() as u32);
        let next = self.by_hash.insert(hash, number);
        self.templates.push(Known { template: Arc::new(template), next });
        self.made += 1;
        number
    }

    /// Makes holes of the words that are known to vary. Answers which, each by its place at that moment.
    fn promote(&self, message: &[u8], pieces: &mut Pieces, beside: Beside<'_>) -> Vec<u16> {
        let mut made = Vec::new();
        if self.promoted.is_empty() {
            return made;
        }
        let mut at = 0;
        while at < pieces.words.len().min(TRIED_MAX) && made.len() < PROMOTIONS_MAX {
            let word = pieces.words[at];
            let varies =
                word.may_vary && self.promoted.contains(&hash_without(message, &pieces.holes, word, beside));
            if varies {
                make_hole(pieces, at);
                made.push(at as u16);
                at = 0;
            } else {
                at += 1;
            }
        }
        made
    }

    /// A new template: each of its words may be the one in which it differs from others.
    fn count_variants(&mut self, message: &[u8], pieces: &Pieces, beside: Beside<'_>) {
        if self.variants.len() >= COUNTERS_MAX {
            self.variants.clear();
        }
        for word in pieces.words.iter().take(TRIED_MAX).filter(|word| word.may_vary) {
            let hash = hash_without(message, &pieces.holes, *word, beside);
            let count = self.variants.entry(hash).or_default();
            *count = count.saturating_add(1);
            if *count > VARIANTS_MAX {
                self.variants.remove(&hash);
                self.promoted.insert(hash);
            }
        }
    }
}

/// Templates of one shape that are tried; the latest come first.
const OF_SHAPE_MAX: usize = 32;

/// The hash of what stands between the tokens.
fn shape_of(message: &[u8], pieces: &Pieces, beside: Beside<'_>) -> u64 {
    let mut hash = beside_hash(beside) ^ 2;
    let mut at = 0;
    for (start, end) in tokens(pieces) {
        hash = xxh3_64_with_seed(&message[at..start], hash);
        at = end;
    }
    xxh3_64_with_seed(&message[at..], hash)
}

/// Words and holes in the order in which they stand.
fn tokens(pieces: &Pieces) -> impl Iterator<Item = (usize, usize)> {
    let mut words = pieces.words.iter().map(|word| (word.start as usize, word.end as usize)).peekable();
    let mut holes = pieces.holes.iter().map(|hole| (hole.start as usize, hole.end as usize)).peekable();
    std::iter::from_fn(move || match (words.peek(), holes.peek()) {
        (Some(word), Some(hole)) if word < hole => words.next(),
        (Some(_), None) => words.next(),
        _ => holes.next(),
    })
}

/// The words that must become holes for the message to be one of the template, in the order in which they do.
fn fit(template: &Template, message: &[u8], pieces: &Pieces) -> Option<Vec<u16>> {
    let mut made = Vec::new();
    let (mut at, mut place, mut cut) = (0, 0, 0);
    let mut words = pieces.words.iter().zip(0u16..).peekable();
    for (start, end) in tokens(pieces) {
        let between = &message[at..start];
        let text = template.text.get(place..place + between.len())?;
        if text != between {
            return None;
        }
        place += between.len();
        at = end;
        let word = words.next_if(|(word, _)| word.start as usize == start);
        let is_cut = template.cuts.get(cut) == Some(&(place as u32));
        match word {
            Some((word, number)) if is_cut && word.may_vary => {
                // Each word before it that became a hole is gone from the list by then.
                made.push(number - made.len() as u16);
                cut += 1;
            }
            None if is_cut => cut += 1,
            Some(_) if template.text.get(place..place + end - start) == Some(&message[start..end]) => {
                place += end - start;
            }
            _ => return None,
        }
    }
    (template.text[place..] == message[at..] && cut == template.cuts.len()).then_some(made)
}

/// Makes a hole of a word.
fn make_hole(pieces: &mut Pieces, word: usize) {
    if word >= pieces.words.len() {
        return;
    }
    let Word { start, end, .. } = pieces.words.remove(word);
    let at = pieces.holes.partition_point(|hole| hole.start < start);
    pieces.holes.insert(at, Span { start, end, time: None });
}

fn is_beside(template: &Template, beside: Beside<'_>) -> bool {
    template.level == beside.level && Arc::ptr_eq(&template.attributes, beside.names)
}

fn is_same(template: &Template, message: &[u8], holes: &[Span], beside: Beside<'_>) -> bool {
    if template.cuts.len() != holes.len() || !is_beside(template, beside) {
        return false;
    }
    let (mut at, mut rest) = (0, &*template.text);
    let mut before = 0;
    for (hole, cut) in holes.iter().zip(&*template.cuts) {
        let constant = &message[at..hole.start as usize];
        let length = (*cut - before) as usize;
        if constant.len() != length || rest[..length] != *constant {
            return false;
        }
        (at, rest, before) = (hole.end as usize, &rest[length..], *cut);
    }
    *rest == message[at..]
}

fn beside_hash(beside: Beside<'_>) -> u64 {
    beside.hash.wrapping_add(HOLES_SEED.wrapping_mul(u64::from(beside.level)))
}

fn hash_of(message: &[u8], holes: &[Span], beside: Beside<'_>) -> u64 {
    let mut hash = beside_hash(beside);
    let mut at = 0;
    for hole in holes {
        hash = xxh3_64_with_seed(&message[at..hole.start as usize], hash);
        at = hole.end as usize;
    }
    xxh3_64_with_seed(&message[at..], hash ^ HOLES_SEED.wrapping_mul(holes.len() as u64))
}

const HOLES_SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// As if `word` were a hole, too, marked as another hash.
fn hash_without(message: &[u8], holes: &[Span], word: Word, beside: Beside<'_>) -> u64 {
    let mut hash = !beside_hash(beside);
    let mut at = 0;
    let mut is_done = false;
    for hole in holes {
        if !is_done && word.start < hole.start {
            hash = xxh3_64_with_seed(&message[at..word.start as usize], hash);
            at = word.end as usize;
            is_done = true;
        }
        hash = xxh3_64_with_seed(&message[at..hole.start as usize], hash);
        at = hole.end as usize;
    }
    if !is_done {
        hash = xxh3_64_with_seed(&message[at..word.start as usize], hash);
        at = word.end as usize;
    }
    xxh3_64_with_seed(&message[at..], hash ^ HOLES_SEED.wrapping_mul(holes.len() as u64))
}

#[cfg(test)]
mod tests {
    use super::super::split::split;
    use super::*;

    /// The finder, and the names of no attributes.
    type Found = (Finder, Names);

    fn pattern((finder, names): &mut Found, message: &str) -> String {
        let mut pieces = Pieces::default();
        split(message.as_bytes(), 0, &mut pieces);
        let beside = Beside { level: 0, names, hash: 0 };
        let number = finder.find(message.as_bytes(), &mut pieces, beside);
        assert_eq!(finder.template(number).cuts.len(), pieces.holes.len());
        finder.template(number).pattern()
    }

    #[test]
    fn a_word_with_many_variants_becomes_a_hole() {
        let mut finder = Found::default();
        let name =
            |at: u32| -> String { (0..3).map(|i| char::from(b'a' + (at >> (3 * i) & 7) as u8)).collect() };
        for at in 0..20 {
            pattern(&mut finder, &format!("user {} logged in 3 times", name(at)));
        }
        assert_eq!(pattern(&mut finder, "user zoe logged in 7 times"), "user <_> logged in <_> times");
        assert_eq!(pattern(&mut finder, "user zoe logged in 8 times"), "user <_> logged in <_> times");
        assert_eq!(pattern(&mut finder, "user zoe logged out"), "user zoe logged out");
        let before = finder.0.made();
        for at in 0..500 {
            pattern(&mut finder, &format!("user {} logged in 3 times", name(at)));
        }
        assert_eq!(finder.0.made(), before);
    }

    #[test]
    fn two_words_may_vary() {
        let mut finder = Found::default();
        let name =
            |at: u32| -> String { (0..4).map(|i| char::from(b'a' + (at >> (3 * i) & 7) as u8)).collect() };
        for a in 0..30 {
            for b in 0..30 {
                pattern(&mut finder, &format!("{} follows {}", name(a), name(b)));
            }
        }
        for other in 0..20 {
            pattern(&mut finder, &format!("ada follows {}", name(other)));
        }
        assert_eq!(pattern(&mut finder, "ada follows bob"), "<_> follows <_>");
    }
}
