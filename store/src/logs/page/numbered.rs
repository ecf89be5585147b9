//! What pages have in common by its numbers among all pages, 64 at a time: a search judges it once, and a page is then
//! compared with what was found in some hundred steps, however many rows and templates it has.

/// What has so many numbers below 64 times its place among these, and a bit for each of the next 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) at: u32,
    /// Where the places of these begin.
    first: u32,
    pub(crate) bits: u64,
}

/// The numbers of the templates or streams of a page, each with its place in the page.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Numbered {
    /// By place.
    numbers: Vec<u32>,
    /// Ascending.
    words: Vec<Word>,
    /// The places in the order of their numbers.
    places: Vec<u32>,
}

impl Numbered {
    /// Of numbers by place; `None` if one of them is there twice.
    pub(super) fn new(numbers: Vec<u32>) -> Option<Self> {
        let mut places: Vec<u32> = (0..numbers.len() as u32).collect();
        places.sort_unstable_by_key(|place| numbers[*place as usize]);
        let mut words: Vec<Word> = Vec::new();
        for (first, place) in (0..).zip(&places) {
            let number = numbers[*place as usize];
            let (at, bit) = (number / 64, 1u64 << (number % 64));
            match words.last_mut() {
                Some(last) if last.at == at && last.bits & bit != 0 => return None,
                Some(last) if last.at == at => last.bits |= bit,
                _ => words.push(Word { at, first, bits: bit }),
            }
        }
        Some(Self { numbers, words, places })
    }

    /// The number of a place.
    pub(crate) fn number(&self, place: usize) -> u32 {
        self.numbers[place]
    }

    pub(crate) fn words(&self) -> &[Word] {
        &self.words
    }

    /// The places of those of a word whose bits are set in `bits`, in the order of their numbers.
    pub(crate) fn places_of(&self, word: Word, bits: u64) -> impl Iterator<Item = u32> {
        let mut left = word.bits & bits;
        std::iter::from_fn(move || {
            let bit = (left != 0).then(|| left & left.wrapping_neg())?;
            left ^= bit;
            let rank = (word.bits & (bit - 1)).count_ones();
            Some(self.places[(word.first + rank) as usize])
        })
    }

    /// Whether any is in a set.
    pub(crate) fn is_any_in(&self, set: &NumberSet) -> bool {
        self.words.iter().any(|word| word.bits & set.bits(word.at) != 0)
    }

    /// The places of those that are in a set.
    pub(crate) fn among(&self, set: &NumberSet) -> Vec<u32> {
        let mut found = Vec::new();
        for word in &self.words {
            let bits = set.bits(word.at);
            if word.bits & bits != 0 {
                found.extend(self.places_of(*word, bits));
            }
        }
        found
    }
}

/// Some numbers.
#[derive(Debug, Clone, Default)]
pub(crate) struct NumberSet(Vec<u64>);

impl NumberSet {
    /// A bit for each of 64 numbers; see [`Word`].
    pub(crate) fn bits(&self, at: u32) -> u64 {
        self.0.get(at as usize).copied().unwrap_or(0)
    }

    pub(crate) fn has(&self, number: u32) -> bool {
        self.bits(number / 64) >> (number % 64) & 1 == 1
    }

    pub(crate) fn insert(&mut self, number: u32) {
        let at = number as usize / 64;
        if self.0.len() <= at {
            self.0.resize(at + 1, 0);
        }
        self.0[at] |= 1 << (number % 64);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn those_of_a_set_are_found(numbers in prop::collection::hash_set(0u32..400, 0..80), set in prop::collection::vec(any::<u64>(), 0..8)) {
            let numbers: Vec<u32> = numbers.into_iter().collect();
            let set = NumberSet(set);
            let in_set = (0..).zip(&numbers).filter(|(_, number)| set.has(**number));
            let want: Vec<u32> = in_set.map(|(place, _)| place).collect();
            let numbered = Numbered::new(numbers.clone()).unwrap();
            let mut found = numbered.among(&set);
            found.sort_unstable();
            prop_assert_eq!(numbered.is_any_in(&set), !found.is_empty());
            prop_assert_eq!(found, want);
        }
    }

    #[test]
    fn a_number_is_there_once() {
        assert_eq!(Numbered::new(vec![3, 70, 3]), None);
    }
}
