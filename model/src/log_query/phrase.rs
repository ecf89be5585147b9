//! Words one after the other, or near one another.

use std::collections::HashMap;

use crate::tokens::words;

/// Words that stand one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Phrase {
    /// As written.
    text: String,
    words: Vec<String>,
    /// How far apart they may stand, all gaps together, in any order.
    slop: u32,
    /// Whether the last word need only begin so.
    is_prefix: bool,
}

impl Phrase {
    /// The words of `text`.
    pub fn new(text: &str) -> Self {
        let words = words(text).map(|word| word.text).collect();
        Self { text: text.to_owned(), words, slop: 0, is_prefix: false }
    }

    /// With other words in between, or in another order: as far as Lucene's slop lets them.
    #[must_use]
    pub fn with_slop(self, slop: u32) -> Self {
        Self { slop, ..self }
    }

    /// With a last word that may go on.
    #[must_use]
    pub fn with_prefix(self) -> Self {
        Self { is_prefix: true, ..self }
    }

    /// As written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// In lower case.
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// By how many places words may be moved: one for each other word in between, two to swap neighbours.
    pub fn slop(&self) -> u32 {
        self.slop
    }

    /// Whether the last word may go on.
    pub fn is_prefix(&self) -> bool {
        self.is_prefix
    }

    /// Whether the words stand in `found`. A phrase without a word (only signs) is in every text.
    pub fn is_in<S: AsRef<str>>(&self, found: &[S]) -> bool {
        match self.words.len() {
            0 => true,
            1 => found.iter().any(|word| self.fits(0, word.as_ref())),
            count if self.slop == 0 => found
                .windows(count)
                .any(|window| window.iter().enumerate().all(|(at, word)| self.fits(at, word.as_ref()))),
            _ => Places::of(self, found).is_some_and(|places| places.are_near(self.slop as usize)),
        }
    }

    fn fits(&self, at: usize, word: &str) -> bool {
        let wanted = self.words[at].as_str();
        if self.is_prefix && at + 1 == self.words.len() { word.starts_with(wanted) } else { word == wanted }
    }
}

/// Where the words of a phrase stand in a text.
///
/// As Lucene has it: each word of the phrase gets a place of its own; what matters is by how much it is moved, against
/// where it would be if the phrase began at some place. The words are near if the smallest move and the largest differ by
/// the slop at most.
struct Places {
    /// For each different word: its numbers in the phrase, its places. Those with the fewest places come first.
    of_words: Vec<(Vec<usize>, Vec<usize>)>,
    /// The same for the last word where it need only begin so.
    of_prefix: Option<(usize, Vec<usize>)>,
    /// How many words the phrase has: moves are counted from that far before the text, so that none is negative.
    before: usize,
}

impl Places {
    /// `None` if the text lacks one.
    fn of<S: AsRef<str>>(phrase: &Phrase, found: &[S]) -> Option<Self> {
        let whole = phrase.words.len() - usize::from(phrase.is_prefix);
        let mut by_word: HashMap<&str, (Vec<usize>, Vec<usize>)> = HashMap::with_capacity(whole);
        for (number, word) in phrase.words[..whole].iter().enumerate() {
            by_word.entry(word).or_default().0.push(number);
        }
        let mut begins = Vec::new();
        for (place, word) in found.iter().enumerate() {
            if let Some((_, places)) = by_word.get_mut(word.as_ref()) {
                places.push(place);
            }
            if phrase.is_prefix && phrase.fits(whole, word.as_ref()) {
                begins.push(place);
            }
        }
        let mut of_words: Vec<_> = by_word.into_values().collect();
        of_words.sort_unstable_by_key(|(_, places)| places.len());
        let has_all = of_words.iter().all(|(numbers, places)| places.len() >= numbers.len());
        let of_prefix = phrase.is_prefix.then_some((whole, begins));
        (has_all && of_prefix.as_ref().is_none_or(|(_, begins)| !begins.is_empty())).then_some(Self {
            of_words,
            of_prefix,
            before: phrase.words.len(),
        })
    }

    fn are_near(&self, slop: usize) -> bool {
        // Some word is moved by the least.
        let before = self.before;
        let prefix = self
            .of_prefix
            .iter()
            .flat_map(|(number, begins)| begins.iter().map(move |at| at + before - number));
        let whole = self.of_words.iter().flat_map(|(numbers, places)| {
            numbers.iter().flat_map(move |number| places.iter().map(move |at| at + before - number))
        });
        let mut least: Vec<usize> = whole.chain(prefix).collect();
        least.sort_unstable();
        least.dedup();
        least.into_iter().any(|least| self.have_moves(least, slop))
    }

    /// Whether all words can be moved by something from `least` to `least + slop`. Taking the first place each time leaves
    /// the most to those that come later.
    fn have_moves(&self, least: usize, slop: usize) -> bool {
        let before = self.before;
        let mut taken = Vec::new();
        for (numbers, places) in &self.of_words {
            let mut from = 0;
            for number in numbers {
                let first = (least + number).saturating_sub(before);
                from += places[from..].partition_point(|place| *place < first);
                match places.get(from) {
                    Some(place) if place + before <= least + number + slop => taken.push(*place),
                    _ => return false,
                }
                from += 1;
            }
        }
        self.of_prefix.as_ref().is_none_or(|(number, begins)| {
            let first = (least + number).saturating_sub(before);
            let from = begins.partition_point(|place| *place < first);
            let near = begins[from..].iter().take_while(|place| **place + before <= least + number + slop);
            near.into_iter().any(|place| !taken.contains(place))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(phrase: &Phrase, text: &str, want: bool) {
        let found: Vec<&str> = text.split(' ').collect();
        assert_eq!(phrase.is_in(&found), want, "{phrase:?} in {text}");
    }

    #[test]
    fn words_are_moved_as_by_lucene() {
        for (phrase, text, least) in [
            ("a b", "a b", 0),
            ("a b", "a x b", 1),
            ("a b", "a x y b", 2),
            // To swap neighbours takes two moves.
            ("a b", "b a", 2),
            ("a b", "b x a", 3),
            ("a b c", "c b a", 4),
            ("a b c", "a c b", 2),
            ("a b c", "x a y b z c", 2),
            // A word that the phrase has twice is wanted twice.
            ("a a", "a x a", 1),
            ("a b a", "a a b", 2),
        ] {
            let phrase = Phrase::new(phrase);
            for slop in 0..6 {
                check(&phrase.clone().with_slop(slop), text, slop >= least);
            }
        }
        check(&Phrase::new("a a").with_slop(9), "x a y", false);
        check(&Phrase::new("a er").with_slop(1).with_prefix(), "a x errors", true);
        check(&Phrase::new("error er").with_slop(1).with_prefix(), "x error y", false);
        check(&Phrase::new("error er").with_slop(2).with_prefix(), "err error", true);
    }

    /// Tries all places for all words.
    fn has_moves(phrase: &Phrase, found: &[String], moves: &mut Vec<(usize, i64)>) -> bool {
        let number = moves.len();
        let (least, most) = (moves.iter().map(|one| one.1).min(), moves.iter().map(|one| one.1).max());
        if least.zip(most).is_some_and(|(least, most)| most - least > i64::from(phrase.slop)) {
            return false;
        }
        if number == phrase.words.len() {
            return true;
        }
        (0..found.len()).any(|place| {
            if !phrase.fits(number, &found[place]) || moves.iter().any(|one| one.0 == place) {
                return false;
            }
            moves.push((place, place as i64 - number as i64));
            let has = has_moves(phrase, found, moves);
            moves.pop();
            has
        })
    }

    proptest::proptest! {
        #[test]
        fn places_are_found_if_there_are_any(
            wanted in proptest::collection::vec("[ab]{1,2}", 1..5),
            found in proptest::collection::vec("[abc]{1,2}", 0..9),
            slop in 0u32..7,
            is_prefix: bool,
        ) {
            let phrase = Phrase::new(&wanted.join(" ")).with_slop(slop);
            let phrase = if is_prefix { phrase.with_prefix() } else { phrase };
            assert_eq!(phrase.is_in(&found), has_moves(&phrase, &found, &mut Vec::new()), "{phrase:?} {found:?}");
        }
    }
}
