//! Which pages of a partition a query can leave out.

use std::cell::{Cell, OnceCell};
use std::sync::Arc;

use binnacle_model::Matcher;
use binnacle_model::log::{Field, loki_alias};
use binnacle_model::log_query::{LineTest, LogQuery, Phrase, Test};
use roaring::RoaringBitmap;

use super::words::{ESCAPES, LIKE_MAX, ODD, Words};
use super::{PageError, PartitionIndex};
use crate::fs::{Disk, ReadFile};
use crate::logs::page::{key_of, key_of_number};
use crate::logs::search::facts::{is_of_time, is_plain_word, plain_phrase};
use crate::logs::search::needle::inner_tokens;

/// Whether a query says anything by which an index leaves pages out.
pub(in crate::logs) fn may_exclude(query: &LogQuery) -> bool {
    match query {
        LogQuery::And(parts) => parts.iter().any(may_exclude),
        LogQuery::Or(parts) => parts.iter().all(may_exclude),
        LogQuery::Value { field: Field::Message, test } if like(test).is_some() => true,
        LogQuery::Value { field: Field::Message, test: Test::Phrase(phrase) } => {
            !whole_words(phrase).is_empty()
        }
        LogQuery::Value { field: Field::Parsed(_), test } => plain_phrase(test).is_some(),
        LogQuery::Value { field: Field::Stream(name), .. } | LogQuery::Exists(Field::Stream(name)) => {
            *name != "level"
        }
        LogQuery::Line(LineTest::Contains(needle)) => !words_of(needle).is_empty(),
        LogQuery::Label(matcher) => wants_a_label(matcher),
        _ => false,
    }
}

/// Whether a word is in the dictionary if it is in the partition. Numbers, parts of ids and of timestamps are not.
pub(super) fn is_listed(word: &str) -> bool {
    let is_number = word.bytes().all(|byte| byte.is_ascii_digit());
    let is_hex = word.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    let is_of_id = is_hex && matches!(word.len(), 4 | 8 | 12 | 16 | 32);
    !is_number && !is_of_id && !is_of_time(word)
}

/// What the words begin with that pass the test, if all of them are in the dictionary.
fn like(test: &Test) -> Option<&str> {
    match test {
        Test::Wildcard(wildcard) => {
            wildcard.literals().any(|text| is_of_listed(text, 0)).then(|| wildcard.literal_prefix())
        }
        Test::Phrase(phrase) if phrase.is_prefix() => match phrase.words() {
            [word] => is_of_listed(word, 0).then_some(word),
            _ => None,
        },
        Test::Fuzzy { word, distance } => is_of_listed(word, usize::from(*distance)).then_some(""),
        _ => None,
    }
}

/// Whether each word that has this text in it is in the dictionary, also after some edits: with four letters it is no
/// part of a timestamp, with one that is no hex digit none of an id.
fn is_of_listed(text: &str, edits: usize) -> bool {
    let letters = || text.chars().filter(|c| c.is_alphabetic());
    letters().count() >= 4 + edits && letters().filter(|c| !c.is_ascii_hexdigit()).count() > edits
}

/// The words of a phrase, without one that may go on.
fn whole_words(phrase: &Phrase) -> &[String] {
    let words = phrase.words();
    &words[..words.len() - usize::from(phrase.is_prefix() && !words.is_empty())]
}

/// Words that a message has if it has the needle: those of tokens that have something of it on both sides.
fn words_of(needle: &[u8]) -> Vec<String> {
    let tokens = inner_tokens(needle);
    // Behind a bracket a colour code may go on, which is no word.
    let is_plain = |(start, end): &&(usize, usize)| {
        needle[start - 1] != b'[' && end - start < 200 && needle[*start..*end].is_ascii()
    };
    let words = tokens.iter().filter(is_plain).flat_map(|(start, end)| {
        Phrase::new(&String::from_utf8_lossy(&needle[*start..*end])).words().to_vec()
    });
    words.collect()
}

/// Whether the matcher asks for a label that the index knows, and for one that is there.
fn wants_a_label(matcher: &Matcher) -> bool {
    loki_alias(&matcher.name) != "level" && !matcher.matches("")
}

/// Pages by the order of their documents; `None` is all of them.
type Pages = Option<RoaringBitmap>;

/// One look into an index.
struct Look<'a> {
    index: &'a PartitionIndex,
    file: Arc<dyn ReadFile>,
    words: OnceCell<Arc<Words>>,
    /// Words of the dictionary that may still be compared with patterns.
    left: Cell<usize>,
}

impl PartitionIndex {
    /// The numbers of the pages that have no row which the query finds.
    pub(in crate::logs) fn excluded(&self, disk: &dyn Disk, query: &LogQuery) -> Result<Vec<u32>, PageError> {
        let look = Look {
            index: self,
            file: self.place.open(disk)?,
            words: OnceCell::new(),
            left: Cell::new(LIKE_MAX),
        };
        let Some(pages) = look.pages(query)? else { return Ok(Vec::new()) };
        let is_out = |(at, _): &(u32, &u32)| !pages.contains(*at);
        Ok((0..).zip(&self.numbers).filter(is_out).map(|(_, number)| *number).collect())
    }
}

fn damaged(_: tantivy::TantivyError) -> PageError {
    PageError::Damaged("tantivy does not read the words of an index")
}

impl Look<'_> {
    fn pages(&self, query: &LogQuery) -> Result<Pages, PageError> {
        Ok(match query {
            LogQuery::And(parts) => {
                let mut all: Pages = None;
                for part in parts.iter().filter(|part| may_exclude(part)) {
                    all = both(all, self.pages(part)?);
                    if all.as_ref().is_some_and(RoaringBitmap::is_empty) {
                        break;
                    }
                }
                all
            }
            LogQuery::Or(parts) => {
                let mut any = RoaringBitmap::new();
                for part in parts {
                    let Some(pages) = self.pages(part)? else { return Ok(None) };
                    any |= pages;
                }
                Some(any)
            }
            LogQuery::Value { field: Field::Message, test } if let Some(prefix) = like(test) => {
                let mut wants = |word: &str| test.of_words(&[word]) == Some(true);
                self.words()?.with_words_like(prefix, &self.left, &mut wants).map_err(damaged)?
            }
            LogQuery::Value { field: Field::Message, test: Test::Phrase(phrase) } => {
                self.with_words(whole_words(phrase).iter())?
            }
            LogQuery::Value { field: Field::Parsed(name), test } => self.with_field(name, test)?,
            LogQuery::Value { field: Field::Stream(name), test } if *name != "level" => {
                Some(self.words()?.with_label(name, &mut |value| test.of_keyword(value)).map_err(damaged)?)
            }
            LogQuery::Exists(Field::Stream(name)) if *name != "level" => {
                Some(self.words()?.with_label(name, &mut |_| true).map_err(damaged)?)
            }
            LogQuery::Line(LineTest::Contains(needle)) => self.with_words(words_of(needle).iter())?,
            LogQuery::Label(matcher) if wants_a_label(matcher) => {
                let name = loki_alias(&matcher.name);
                let words = self.words()?;
                let of_label =
                    words.with_label(name, &mut |value| matcher.matches(value)).map_err(damaged)?;
                Some(of_label | words.with_attribute(name).map_err(damaged)?)
            }
            _ => None,
        })
    }

    fn words(&self) -> Result<&Words, PageError> {
        if let Some(words) = self.words.get() {
            return Ok(words);
        }
        let words = self.index.words(&*self.file)?;
        Ok(self.words.get_or_init(|| words))
    }

    /// Pages of which messages may have all of these words.
    fn with_words<'w>(&self, words: impl Iterator<Item = &'w String> + Clone) -> Result<Pages, PageError> {
        // The filter is asked first: it is a hundredth of the dictionary's work.
        for word in words.clone() {
            if !self.may_have(word)? {
                return Ok(Some(RoaringBitmap::new()));
            }
        }
        let mut all: Pages = None;
        for word in words.filter(|word| is_listed(word)) {
            all = both(all, Some(self.words()?.with_word(word).map_err(damaged)?));
        }
        Ok(all)
    }

    /// Pages of which entries may have a field that passes the test.
    fn with_field(&self, name: &str, test: &Test) -> Result<Pages, PageError> {
        let Some(phrase) = plain_phrase(test) else { return Ok(None) };
        let plain = whole_words(phrase).iter().filter(|word| is_plain_word(phrase, word));
        let Some(pages) = self.with_words(plain)? else { return Ok(None) };
        let words = self.words()?;
        let of_label = words.with_label(name, &mut |value| test.of_text_value(value)).map_err(damaged)?;
        let odd = words.with_attribute(&format!("{ODD}{name}")).map_err(damaged)?;
        let others = odd | words.with_attribute(ESCAPES).map_err(damaged)?;
        Ok(Some(pages | of_label | others))
    }

    /// Whether a message of the partition may have a word.
    fn may_have(&self, word: &str) -> Result<bool, PageError> {
        let contains = |key: u64| self.index.filter.may_contain(&*self.file, super::HEADER_BYTES as u64, key);
        if word.bytes().all(|byte| byte.is_ascii_digit()) {
            // As in the filter of a page: small numbers and parts of others are in none.
            let number = word.parse::<u64>().ok().filter(|_| !word.starts_with('0') && word.len() > 9);
            return match number {
                Some(number) => Ok(contains(key_of_number(number))? || contains(key_of(word.as_bytes()))?),
                None => Ok(true),
            };
        }
        if is_of_time(word) { Ok(true) } else { contains(key_of(word.as_bytes())) }
    }
}

fn both(a: Pages, b: Pages) -> Pages {
    match (a, b) {
        (Some(a), Some(b)) => Some(a & b),
        (one, None) | (None, one) => one,
    }
}
