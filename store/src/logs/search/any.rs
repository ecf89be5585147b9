//! Many tests of single words at once: one pass over a word, however many there are.
//!
//! ```text
//! *0* OR *7x* OR conn*ed ─► pieces 0, 7x, conn ─► one automaton ─┬─ the piece is enough: *0*, *7x*
//!                                                                └─ the test is asked:   conn*ed
//! ```

use std::collections::HashMap;

use aho_corasick::{AhoCorasick, Input};
use binnacle_model::log::Field;
use binnacle_model::log_query::{LogQuery, Test, Wildcard};
use binnacle_model::tokens::words;

use super::needle::Verdict;
use super::phrase::Item;
use crate::logs::page::Texts;
use crate::logs::template::Template;

/// Conditions on the message of which one has to hold, and each of which one word decides. See the module.
#[derive(Debug)]
pub(super) struct AnyOf {
    tests: Vec<Test>,
    /// Finds what a word that passes has in it, in lower case.
    pieces: Option<AhoCorasick>,
    /// By piece: the tests that are to be asked of a word which has it; none if each such word passes.
    of_piece: Vec<Vec<u32>>,
    /// Tests without a piece.
    rest: Vec<u32>,
    /// Whether each text that may hold one has one of the pieces in it, whatever the number behind it.
    has_anchors: bool,
}

/// Whether words of the message decide a condition one by one, and no filter of a page knows about it.
pub(super) fn is_one_of_many(query: &LogQuery) -> bool {
    let LogQuery::Value { field: Field::Message, test } = query else { return false };
    match test {
        Test::Wildcard(_) | Test::Fuzzy { .. } => true,
        Test::Phrase(phrase) => {
            let is_short_number = |word: &String| word.len() <= 9 && word.bytes().all(|b| b.is_ascii_digit());
            phrase.words().len() == 1 && (phrase.is_prefix() || phrase.words().iter().all(is_short_number))
        }
        _ => false,
    }
}

impl AnyOf {
    pub(super) fn new(tests: Vec<Test>) -> Self {
        let (mut of_piece, mut rest, mut pieces): (Vec<Option<Vec<u32>>>, _, Vec<&str>) =
            (Vec::new(), Vec::new(), Vec::new());
        let mut places: HashMap<&str, usize> = HashMap::new();
        let mut has_anchors = true;
        for (number, test) in (0u32..).zip(&tests) {
            let Some(piece) = piece_of(test) else {
                rest.push(number);
                continue;
            };
            has_anchors &= !is_digits(piece);
            let place = *places.entry(piece).or_insert_with(|| {
                pieces.push(piece);
                of_piece.push(Some(Vec::new()));
                pieces.len() - 1
            });
            if is_enough(test) {
                of_piece[place] = None;
            } else if let Some(asked) = &mut of_piece[place] {
                asked.push(number);
            }
        }
        let automaton = AhoCorasick::builder().ascii_case_insensitive(true).build(&pieces).ok();
        if automaton.is_none() {
            // Too many of them: each is asked.
            rest = (0u32..).zip(&tests).map(|(number, _)| number).collect();
        }
        has_anchors &= rest.is_empty();
        let of_piece = of_piece.into_iter().map(Option::unwrap_or_default).collect();
        Self { pieces: automaton, of_piece, rest, has_anchors, tests }
    }

    pub(super) fn tests(&self) -> &[Test] {
        &self.tests
    }

    /// Whether a word of the text passes.
    pub(super) fn of_text(&self, text: &[u8]) -> bool {
        if text.is_ascii() {
            let Ok(text) = std::str::from_utf8(text) else { return false };
            let mut found = words(text);
            while let Some(span) = found.next_span() {
                if self.of_word(&text[span]) {
                    return true;
                }
            }
            return false;
        }
        words(&String::from_utf8_lossy(text)).any(|word| self.of_word(&word.text))
    }

    /// Whether a word passes: one in lower case, or of ASCII.
    fn of_word(&self, word: &str) -> bool {
        let mut lower = None;
        let mut asks = |number: u32| {
            let lower: &String = lower.get_or_insert_with(|| word.to_ascii_lowercase());
            self.tests[number as usize].of_words(std::slice::from_ref(lower)) == Some(true)
        };
        let mut has_piece = |pieces: &AhoCorasick| {
            pieces.find_overlapping_iter(word).any(|found| {
                let asked = &self.of_piece[found.pattern().as_usize()];
                asked.is_empty() || asked.iter().any(|number| asks(*number))
            })
        };
        self.pieces.as_ref().is_some_and(&mut has_piece) || self.rest.iter().any(|number| asks(*number))
    }

    /// What the constant text of a template says. `items` makes its items.
    pub(super) fn judge(
        &self,
        template: &Template,
        items: impl FnOnce() -> std::sync::Arc<[Item]>,
    ) -> Verdict {
        let may_have = self.rest.len() + usize::from(!template.text.is_ascii()) > 0
            || self.pieces.as_ref().is_some_and(|pieces| pieces.is_match(&*template.text));
        let passes = |item: &Item| matches!(item, Item::Word(word) if self.of_word(word));
        if may_have && items().iter().any(passes) {
            Verdict::Yes
        } else {
            Verdict::Look.unless_constant(template)
        }
    }

    /// The texts that may hold one, some of them several times; `None` if it may be any. `bytes` is in lower case.
    pub(super) fn candidates(&self, texts: &Texts, bytes: &[u8]) -> Option<Vec<usize>> {
        let pieces = self.pieces.as_ref().filter(|_| self.has_anchors)?;
        let (mut found, mut at) = (Vec::new(), 0);
        while let Some(place) = pieces.find(Input::new(bytes).range(at..).earliest(true)) {
            let text = texts.at(place.start());
            found.push(text);
            let end = texts.ends.get(text).map_or(bytes.len(), |end| *end as usize);
            // What lies across two texts is found out when they are looked at.
            at = if place.end() <= end { end } else { place.start() + 1 };
        }
        Some(found)
    }
}

/// What each word that passes has in it: the longest piece, which the fewest words have.
fn piece_of(test: &Test) -> Option<&str> {
    match test {
        Test::Wildcard(wildcard) => wildcard.literals().max_by_key(|text| (text.len(), !is_digits(text))),
        Test::Phrase(phrase) => phrase.words().first().map(String::as_str),
        _ => None,
    }
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether each word that has the piece passes: `*piece*`.
fn is_enough(test: &Test) -> bool {
    let Test::Wildcard(wildcard) = test else { return false };
    is_between_stars(wildcard)
}

fn is_between_stars(wildcard: &Wildcard) -> bool {
    let pieces: Vec<Result<char, char>> = wildcard.pieces().collect();
    match pieces.as_slice() {
        [Err('*'), text @ .., Err('*')] => !text.is_empty() && text.iter().all(Result::is_ok),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;
    use binnacle_model::log_query::Phrase;

    fn test() -> impl Strategy<Value = Test> {
        let wildcard = |text: &str| {
            Test::Wildcard(Wildcard::new(
                text.chars().map(|c| if matches!(c, '*' | '?') { Err(c) } else { Ok(c) }),
            ))
        };
        prop_oneof![
            4 => "[*?a1é]{0,4}".prop_map(move |text| wildcard(&text)),
            2 => "\\*[a1_É]{1,2}\\*".prop_map(move |text| wildcard(&text)),
            1 => select(vec!["a", "1", "a1", "É"]).prop_map(|text| Test::Phrase(Phrase::new(text).with_prefix())),
            1 => select(vec!["1", "11", "01"]).prop_map(|text| Test::Phrase(Phrase::new(text))),
            1 => Just(Test::Fuzzy { word: "a11".to_owned(), distance: 1 }),
        ]
    }

    proptest! {
        #[test]
        fn one_pass_finds_what_each_test_finds(
            tests in prop::collection::vec(test(), 1..8),
            text in "([aA1Éé_]{0,4}[ -]){0,3}",
        ) {
            let found: Vec<String> = words(&text).map(|word| word.text).collect();
            let want = tests.iter().any(|test| test.of_words(&found) == Some(true));
            prop_assert_eq!(AnyOf::new(tests).of_text(text.as_bytes()), want);
        }
    }
}
