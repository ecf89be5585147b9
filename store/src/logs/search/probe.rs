//! What is looked for in single variables on behalf of a condition, and where it can be at all.
//!
//! ```text
//! condition ─► Probe ─┬─ kinds       which cells may hold it
//!                     ├─ of_text     whether a variable does
//!                     └─ Places      which holes of a page have texts that do: no other is read
//! ```

use std::sync::Arc;

use binnacle_model::Matcher;
use binnacle_model::log_query::{Test, Wildcard};
use binnacle_model::storage::{Deadline, StorageError};
use binnacle_model::tokens::words;

use super::Broken;
use super::any::AnyOf;
use super::cells::{has_word, kinds_with};
use super::facts::is_of_time;
use crate::logs::page::{
    Folded, Grams, HoleNumber, IDS, PageError, PageView, TEXTS, Texts, parts_with, slot_of,
};
use crate::logs::split::Kind;

/// See the module.
#[derive(Debug, Clone)]
pub(super) enum Probe {
    /// A word in lower case.
    Word(String),
    /// A test that one word decides.
    OneWord(Test),
    /// Tests of which one must pass, each of which one word decides.
    AnyWord(Arc<AnyOf>),
    /// Bytes, of which one sort must be there.
    Bytes(Vec<Vec<u8>>),
    /// An attribute's value as a whole.
    Attribute(Matcher),
}

/// What is known of a text: as a variable, or as what stands before a number.
const NO: u8 = 1;
const YES: u8 = 2;
/// It depends on the number.
const OPEN: u8 = 3;

/// Texts that are looked at between two looks at the deadline.
const TEXTS_PER_CHECK: usize = 1024;

impl Probe {
    /// Bits of the kinds of cells that may hold it.
    pub(super) fn kinds(&self) -> u16 {
        let time = 1 << Kind::Time as u16;
        match self {
            Self::Word(word) => {
                // Ids are in lower case, as words are; the letters of timestamps are not.
                let may_be_time = is_of_time(word) || word.bytes().all(|byte| byte.is_ascii_digit());
                kinds_with(word.as_bytes()) & !time | u16::from(may_be_time) << Kind::Time as u16
            }
            Self::OneWord(test) => kinds_of(test),
            Self::AnyWord(any) => any.tests().iter().fold(0, |kinds, test| kinds | kinds_of(test)),
            Self::Bytes(needles) => needles.iter().fold(0, |kinds, needle| kinds | kinds_with(needle)),
            Self::Attribute(_) => u16::MAX,
        }
    }

    /// Whether a variable's text holds it. Of attributes that is not asked.
    pub(super) fn of_text(&self, text: &[u8]) -> bool {
        match self {
            Self::Word(word) => has_word(text, word),
            Self::OneWord(test) => {
                let found: Vec<String> =
                    words(&String::from_utf8_lossy(text)).map(|word| word.text).collect();
                test.of_words(&found).unwrap_or(false)
            }
            Self::AnyWord(any) => any.of_text(text),
            Self::Bytes(needles) => needles.iter().any(|needle| memchr::memmem::find(text, needle).is_some()),
            Self::Attribute(matcher) => matcher.matches(&String::from_utf8_lossy(text)),
        }
    }

    /// Whether text that ends in a sign holds it, with some number behind it. The number is a word of its own.
    pub(super) fn of_prefix(&self, text: &[u8]) -> u8 {
        let may_be_number = match self {
            Self::Word(word) => word.bytes().all(|byte| byte.is_ascii_digit()),
            Self::OneWord(test) => may_be_number(test),
            Self::AnyWord(any) => any.tests().iter().any(may_be_number),
            Self::Bytes(needles) => {
                let may = |needle: &Vec<u8>| {
                    let head = head_of(needle);
                    head.len() < needle.len() && text.ends_with(head)
                };
                needles.iter().any(may)
            }
            Self::Attribute(_) => return OPEN,
        };
        if self.of_text(text) {
            YES
        } else if may_be_number {
            OPEN
        } else {
            NO
        }
    }

    /// What each text that may hold it has in it, in lower case unless case counts. `None` if it may be anywhere.
    fn anchors(&self) -> Option<Vec<&[u8]>> {
        let has_letter = |text: &[u8]| text.iter().any(|byte| !byte.is_ascii_digit());
        match self {
            Self::Word(word) => has_letter(word.as_bytes()).then(|| vec![word.as_bytes()]),
            Self::OneWord(test) => {
                let longest = literals(test).filter(|text| has_letter(text)).max_by_key(|text| text.len());
                longest.filter(|_| !may_be_number(test)).map(|literal| vec![literal])
            }
            Self::Bytes(needles) => {
                let heads =
                    needles.iter().map(|needle| Some(head_of(needle)).filter(|head| !head.is_empty()));
                heads.collect()
            }
            Self::AnyWord(_) | Self::Attribute(_) => None,
        }
    }

    /// Whether letter case counts.
    fn is_exact(&self) -> bool {
        matches!(self, Self::Bytes(_))
    }

    /// The texts that may hold it, ascending.
    fn candidates(&self, texts: &Texts, folded: &Folded, grams: Option<&Grams>) -> Option<Vec<usize>> {
        let bytes = if self.is_exact() { &texts.bytes } else { folded.bytes(texts) };
        let mut found: Vec<usize> = Vec::new();
        let mut anchors = self.anchors();
        if let Self::AnyWord(any) = self {
            found = any.candidates(texts, bytes)?;
            anchors = Some(Vec::new());
        }
        for anchor in anchors? {
            let finder = memchr::memmem::Finder::new(anchor);
            for part in parts_with(grams, anchor, bytes.len()) {
                let mut at = part.start;
                while let Some(place) = bytes.get(at..part.end).and_then(|rest| finder.find(rest)) {
                    let text = texts.at(at + place);
                    found.push(text);
                    // What lies across two texts is found out when they are looked at.
                    let end = texts.ends.get(text).map_or(bytes.len(), |end| *end as usize);
                    let is_within = at + place + anchor.len() <= end;
                    at = if is_within { end } else { at + place + 1 };
                }
            }
        }
        if !self.is_exact() {
            found.extend(folded.odd.iter().map(|number| *number as usize));
        }
        found.sort_unstable();
        found.dedup();
        Some(found)
    }
}

/// Bits of the kinds of cells that may hold a word which passes.
fn kinds_of(test: &Test) -> u16 {
    let kinds = literals(test).fold(u16::MAX, |kinds, literal| kinds & kinds_with(literal));
    // Months are the longest runs of letters that a timestamp has.
    kinds & !(1 << Kind::Time as u16) | u16::from(may_be_of_a_time(test)) << Kind::Time as u16
}

/// What stands before the digits at the end.
fn head_of(needle: &[u8]) -> &[u8] {
    let digits = needle.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    &needle[..needle.len() - digits]
}

/// Pieces that each word which passes has in it, in lower case.
fn literals(test: &Test) -> impl Iterator<Item = &[u8]> {
    let (wildcard, prefix) = match test {
        Test::Wildcard(wildcard) => (Some(wildcard), None),
        Test::Phrase(phrase) => (None, phrase.words().first()),
        _ => (None, None),
    };
    wildcard.into_iter().flat_map(Wildcard::literals).chain(prefix.map(String::as_str)).map(str::as_bytes)
}

/// Whether a word of digits may pass.
fn may_be_number(test: &Test) -> bool {
    let is_digits = |text: &[u8]| text.iter().all(u8::is_ascii_digit);
    match test {
        Test::Fuzzy { word, distance } => {
            word.chars().filter(|c| !c.is_ascii_digit()).count() <= usize::from(*distance)
        }
        _ => literals(test).all(is_digits),
    }
}

/// Whether a word of a timestamp may pass the test. Months are its longest runs of letters.
fn may_be_of_a_time(test: &Test) -> bool {
    if let Test::Fuzzy { word, distance } = test {
        let letters = word.chars().filter(char::is_ascii_alphabetic).count();
        let most = usize::from(*distance);
        return letters <= most + 1 || word.chars().count() <= most + 3;
    }
    let has_run = |text: &[u8]| text.windows(4).any(|four| four.iter().all(u8::is_ascii_alphabetic));
    !literals(test).any(has_run)
}

/// Rows of a hole in which texts hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) template: u32,
    pub(super) hole: u32,
    pub(super) rows: u32,
    /// Whether the numbers behind some of them decide.
    pub(super) is_open: bool,
}

/// Where the texts of a page hold a probe.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// Texts by `slot_of`, with [`YES`] or [`OPEN`].
    found: Vec<(u32, u8)>,
    /// By template and hole, each once.
    places: Vec<Place>,
}

impl Places {
    /// `None` if the page, or the probe, does not allow to say.
    fn of(probe: &Probe, page: &dyn PageView, deadline: &Deadline) -> Result<Option<Self>, Broken> {
        let Some((uses, folded)) = page.uses()? else { return Ok(None) };
        let texts = page.texts()?;
        let Some(candidates) = probe.candidates(texts, folded, page.grams()?) else { return Ok(None) };
        let (mut found, mut places) = (Vec::new(), Vec::new());
        for (looked, number) in (1usize..).zip(candidates) {
            if looked.is_multiple_of(TEXTS_PER_CHECK) && deadline.is_over() {
                return Err(StorageError::Deadline.into());
            }
            let Some(text) = texts.get(number) else { continue };
            for is_prefix in [false, true] {
                let slot = slot_of(number, is_prefix);
                let uses = uses.of(slot);
                if uses.is_empty() {
                    continue;
                }
                let holds = if is_prefix {
                    probe.of_prefix(text)
                } else if probe.of_text(text) {
                    YES
                } else {
                    NO
                };
                if holds != NO {
                    found.push((slot as u32, holds));
                    places.extend(uses.iter().map(|one| Place {
                        template: one.template,
                        hole: one.hole,
                        rows: one.rows,
                        is_open: holds == OPEN,
                    }));
                }
            }
        }
        places.sort_unstable_by_key(|place| (place.template, place.hole));
        places.dedup_by(|next, first| {
            let is_same = (next.template, next.hole) == (first.template, first.hole);
            if is_same {
                first.rows = first.rows.saturating_add(next.rows);
                first.is_open |= next.is_open;
            }
            is_same
        });
        places.shrink_to_fit();
        Ok(Some(Self { found, places }))
    }

    /// Those of a template.
    pub(super) fn of_template(&self, template: u32) -> &[Place] {
        let start = self.places.partition_point(|place| place.template < template);
        let end = self.places.partition_point(|place| place.template <= template);
        &self.places[start..end]
    }
}

/// The numbers of the ids that are looked for as a whole. `None`: they have to be read one by one.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ids {
    id16: Option<u64>,
    id32: Option<u64>,
    uuid: Option<u64>,
}

/// The number of an id that the page does not have.
const NOWHERE: u64 = u64::MAX;

impl Ids {
    fn of(probe: &Probe, page: &dyn PageView) -> Result<Self, PageError> {
        let (needle, is_word) = match probe {
            Probe::Word(word) => (word.as_bytes(), true),
            Probe::Bytes(needles) if needles.len() == 1 => (needles[0].as_slice(), false),
            _ => return Ok(Self::default()),
        };
        let is_hex = needle.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let mut found = Self::default();
        if needle.len() > 12 && (is_word || is_hex) {
            // The words of a UUID are its parts.
            found.uuid = Some(NOWHERE);
        }
        let Ok(text) = std::str::from_utf8(needle) else { return Ok(found) };
        let number = |at: Option<usize>| Some(at.map_or(NOWHERE, |at| at as u64));
        if let Some(id) = uuid_of(text) {
            let at = page.ids()?.1.iter().position(|one| *one == id);
            return Ok(Self { id16: Some(NOWHERE), id32: Some(NOWHERE), uuid: number(at) });
        }
        if !is_hex || !matches!(needle.len(), 16 | 32) {
            return Ok(found);
        }
        let (short, long) = page.ids()?;
        if needle.len() == 16 {
            let id = u64::from_str_radix(text, 16).unwrap_or_default();
            found.id16 = number(short.iter().position(|one| *one == id));
            // Half of a longer id has no border of its own.
            found.id32 = is_word.then_some(NOWHERE);
        } else {
            let id = u128::from_str_radix(text, 16).unwrap_or_default();
            found.id32 = number(long.iter().position(|one| *one == id));
            (found.id16, found.uuid) = (Some(NOWHERE), Some(NOWHERE));
        }
        Ok(found)
    }

    /// Where the ids that are looked for are, and the bits of the kinds of cells of which that is known.
    fn holes(self, page: &dyn PageView) -> Result<(Vec<HoleNumber>, u16), PageError> {
        let (mut holes, mut kinds) = (Vec::new(), 0);
        for (kind, number) in [(Kind::Id16, self.id16), (Kind::Id32, self.id32), (Kind::Uuid, self.uuid)] {
            let found = match number.map(u32::try_from) {
                None => None,
                // Nowhere.
                Some(Err(_)) => Some(Vec::new()),
                Some(Ok(number)) => page.holes_of_id(number, kind == Kind::Id16)?,
            };
            if let Some(found) = found {
                holes.extend(found);
                kinds |= 1 << kind as u16;
            }
        }
        holes.sort_unstable();
        holes.dedup();
        Ok((holes, kinds))
    }

    /// Whether an id of that number is what is looked for.
    pub(super) fn holds(self, kind: Kind, number: u64) -> Option<bool> {
        let wanted = match kind {
            Kind::Id16 => self.id16,
            Kind::Id32 => self.id32,
            _ => self.uuid,
        };
        wanted.map(|wanted| wanted == number)
    }
}

/// The number that a UUID in lower case is.
fn uuid_of(text: &str) -> Option<u128> {
    let is_dash = |at: usize| matches!(at, 8 | 13 | 18 | 23);
    let fits = |(at, byte): (usize, u8)| match byte {
        b'-' => is_dash(at),
        b'0'..=b'9' | b'a'..=b'f' => !is_dash(at),
        _ => false,
    };
    let is_uuid = text.len() == 36 && text.bytes().enumerate().all(fits);
    is_uuid.then(|| u128::from_str_radix(&text.replace('-', ""), 16).ok()).flatten()
}

/// What is known of the texts of a page.
#[derive(Debug)]
pub(super) struct Known {
    ids: Option<Ids>,
    /// By `slot_of`, four in a byte; empty until somebody asks, zero where nobody looked.
    texts: Vec<u8>,
    /// Whether there are holes that need not be read.
    places: Option<Places>,
    /// The holes that have ids which hold it, and the bits of the kinds of cells of which these are all.
    of_ids: (Vec<HoleNumber>, u16),
}

impl Known {
    pub(super) fn of(probe: &Probe, page: &dyn PageView, deadline: &Deadline) -> Result<Self, Broken> {
        let places = Places::of(probe, page, deadline)?;
        let mut known = Self { ids: None, texts: Vec::new(), places, of_ids: (Vec::new(), 0) };
        if known.places.is_some() && probe.kinds() & IDS != 0 {
            known.of_ids = known.ids(probe, page)?.holes(page)?;
        }
        if let Some(places) = &known.places {
            let texts = page.texts()?;
            // A long list is larger than what is known of all texts.
            if places.found.len() > texts.len() / 16 {
                known.fill(texts);
            }
        }
        Ok(known)
    }

    /// Bytes that it takes, or will take once somebody asks.
    pub(super) fn weight(&self, page: &dyn PageView) -> Result<usize, PageError> {
        let places = self.places.as_ref().map_or(0, |places| {
            size_of::<(u32, u8)>() * places.found.capacity() + size_of::<Place>() * places.places.capacity()
        });
        let ids = size_of::<HoleNumber>() * self.of_ids.0.capacity();
        let texts = if self.places.is_some() { page.texts()?.len() } else { page.rows() };
        Ok(places + ids + texts / 2 + size_of::<Self>())
    }

    /// Those of the kinds of cells of which it is not known which holes hold the probe.
    pub(super) fn others(&self, kinds: u16) -> u16 {
        kinds & !TEXTS & !self.of_ids.1
    }

    /// The ids that are looked for.
    pub(super) fn ids(&mut self, probe: &Probe, page: &dyn PageView) -> Result<Ids, PageError> {
        if let Some(ids) = self.ids {
            return Ok(ids);
        }
        let ids = Ids::of(probe, page)?;
        self.ids = Some(ids);
        Ok(ids)
    }

    fn fill(&mut self, texts: &Texts) {
        let others = if self.places.is_some() { NO * 0b0101_0101 } else { 0 };
        self.texts = vec![others; (2 * texts.len()).div_ceil(4)];
        let found = self.places.as_mut().map(|places| std::mem::take(&mut places.found));
        for (slot, holds) in found.into_iter().flatten() {
            self.set(slot as usize, holds);
        }
    }

    fn set(&mut self, slot: usize, holds: u8) {
        let (at, shift) = (slot / 4, 2 * (slot % 4));
        self.texts[at] = self.texts[at] & !(3 << shift) | holds << shift;
    }

    /// Whether the text of a cell holds the probe: `None` if the number behind it decides.
    pub(super) fn text(
        &mut self,
        probe: &Probe,
        texts: &Texts,
        number: usize,
        is_prefix: bool,
    ) -> Result<Option<bool>, PageError> {
        if self.texts.is_empty() {
            self.fill(texts);
        }
        let slot = slot_of(number, is_prefix);
        let four = self.texts.get(slot / 4).ok_or(PageError::Damaged("a variable that leads nowhere"))?;
        let mut holds = four >> (2 * (slot % 4)) & 3;
        if holds == 0 {
            let text = texts.get(number).unwrap_or_default();
            holds = if is_prefix {
                probe.of_prefix(text)
            } else if probe.of_text(text) {
                YES
            } else {
                NO
            };
            self.set(slot, holds);
        }
        Ok(match holds {
            NO => Some(false),
            YES => Some(true),
            _ => None,
        })
    }

    /// The templates of a page of which a text or an id in one of their holes holds the probe, ascending; `None` if that is
    /// not known.
    pub(super) fn touched(&self) -> Option<Vec<u32>> {
        let of_texts = self.places.as_ref()?.places.iter().map(|place| place.template);
        let mut touched: Vec<u32> =
            of_texts.chain(self.of_ids.0.iter().map(|(template, _)| *template)).collect();
        touched.sort_unstable();
        touched.dedup();
        Some(touched)
    }

    /// The holes of a template among `holes` that may hold the probe; `None` if that is not known.
    pub(super) fn places(
        &self,
        page: &dyn PageView,
        template: u32,
        holes: std::ops::Range<usize>,
        kinds: u16,
    ) -> Option<(Vec<usize>, &[Place])> {
        let places = self.places.as_ref()?.of_template(template);
        let start = places.partition_point(|place| (place.hole as usize) < holes.start);
        let end = places.partition_point(|place| (place.hole as usize) < holes.end);
        let places = &places[start..end];
        let kinds = self.others(kinds);
        let has_others = page.all_kinds(template as usize) & kinds != 0;
        let is_here = |(of, hole): &&HoleNumber| *of == template && holes.contains(&(*hole as usize));
        let mut read: Vec<usize> = places.iter().map(|place| place.hole as usize).collect();
        read.extend(self.of_ids.0.iter().filter(is_here).map(|(_, hole)| *hole as usize));
        if has_others {
            read.extend(holes.filter(|hole| page.kinds(template as usize, *hole) & kinds != 0));
        }
        read.sort_unstable();
        read.dedup();
        Some((read, places))
    }
}
