//! Names and kinds of the attributes that lines have, each list of them once: of two lines it is quickly told whether they
//! have the same.

use std::sync::Arc;

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::template::ValueKind;

/// Names and kinds of the attributes of some lines, in their order.
pub(crate) type Names = Arc<[(Arc<str>, ValueKind)]>;

/// The number of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NamesNumber(u32);

/// The lists that were seen.
#[derive(Debug, Default)]
pub(crate) struct KnownNames {
    lists: Vec<(Names, u64)>,
    by_hash: HashTable<u32>,
    /// The list that was asked for last, which is mostly the next one, too.
    last: u32,
}

impl KnownNames {
    /// The number of a list; good until [`Self::clear`].
    pub(crate) fn number<'n>(
        &mut self,
        names: impl Iterator<Item = (&'n str, ValueKind)> + Clone,
    ) -> NamesNumber {
        let is_it = |number: &u32| {
            let Some((list, _)) = self.lists.get(*number as usize) else { return false };
            let (mut known, mut names) = (list.iter(), names.clone());
            known.by_ref().all(|(name, kind)| names.next() == Some((&**name, *kind)))
                && names.next().is_none()
        };
        if is_it(&self.last) {
            return NamesNumber(self.last);
        }
        let hash = names
            .clone()
            .fold(0, |hash, (name, kind)| xxh3_64_with_seed(name.as_bytes(), hash ^ (kind as u64) << 32));
        let found = self.by_hash.find(hash, is_it).copied();
        self.last = found.unwrap_or(self.lists.len() as u32);
        if found.is_none() {
            self.lists.push((names.map(|(name, kind)| (Arc::from(name), kind)).collect(), hash));
            self.by_hash.insert_unique(hash, self.last, |number| self.lists[*number as usize].1);
        }
        NamesNumber(self.last)
    }

    /// A list, and its hash. Two lists are the same exactly if they lie in the same place.
    pub(crate) fn get(&self, number: NamesNumber) -> (&Names, u64) {
        let (list, hash) = &self.lists[number.0 as usize];
        (list, *hash)
    }

    /// Forgets all lists.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_lists_have_one_number_and_others_another() {
        let mut known = KnownNames::default();
        let mut number = |list: &[(&'static str, ValueKind)]| known.number(list.iter().copied());
        let (text, int) = (ValueKind::Text, ValueKind::Int);
        let lists: [&[_]; 6] = [
            &[],
            &[("a", text)],
            &[("a", int)],
            &[("a", text), ("b", text)],
            &[("b", text), ("a", text)],
            &[("ab", text)],
        ];
        let numbers = lists.map(&mut number);
        assert_eq!(lists.map(&mut number), numbers);
        assert!((0..6).all(|at| !numbers[..at].contains(&numbers[at])));
        let of = |list: &Names| list.iter().map(|(name, kind)| (name.to_string(), *kind)).collect::<Vec<_>>();
        assert_eq!(of(known.get(numbers[3]).0), [("a".to_owned(), text), ("b".to_owned(), text)]);
    }
}
