//! Series by the numbers that the WAL knows them by.

use std::collections::HashMap;

use super::registry::Place;

/// Numbers of one page. Few, so that a page of which one number is left costs little.
const PAGE: u64 = 64;

/// Places of series by number. Numbers that follow each other, as in a record they do, are found without a hash.
#[derive(Debug, Default)]
pub(crate) struct SeriesNumbers {
    pages: Vec<[Option<Place>; PAGE as usize]>,
    by_first: HashMap<u64, usize, foldhash::fast::RandomState>,
    /// The page that was used last, and what it begins with.
    last: Option<(u64, usize)>,
}

impl SeriesNumbers {
    fn page(&mut self, number: u64) -> Option<usize> {
        let first = number / PAGE;
        if let Some((_, page)) = self.last.filter(|(known, _)| *known == first) {
            return Some(page);
        }
        let page = *self.by_first.get(&first)?;
        self.last = Some((first, page));
        Some(page)
    }

    /// The place of a series.
    pub(super) fn get(&mut self, number: u64) -> Option<Place> {
        let page = self.page(number)?;
        self.pages[page][(number % PAGE) as usize]
    }

    /// Says where a series is.
    pub(super) fn insert(&mut self, number: u64, place: Place) {
        let page = self.page(number).unwrap_or_else(|| {
            self.pages.push([None; PAGE as usize]);
            self.by_first.insert(number / PAGE, self.pages.len() - 1);
            self.pages.len() - 1
        });
        self.pages[page][(number % PAGE) as usize] = Some(place);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_are_a_map(steps in proptest::collection::vec((0u64..300, any::<bool>(), 0u32..9), 0..200), base in prop_oneof![Just(0u64), Just(u64::MAX - 300)]) {
            let mut numbers = SeriesNumbers::default();
            let mut model = HashMap::new();
            for (number, is_new, place) in steps {
                if is_new {
                    numbers.insert(base + number, Place(place));
                    model.insert(base + number, Place(place));
                }
                prop_assert_eq!(numbers.get(base + number), model.get(&(base + number)).copied());
            }
        }
    }
}
