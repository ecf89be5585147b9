//! Postings of the head: which series have which label.

use std::collections::HashMap;

use binnacle_model::Matcher;
use roaring::RoaringBitmap;

use super::symbols::{Symbol, Symbols};

/// Numbers that we give out ourselves need no hash that withstands whoever chooses them.
type BySymbol<T> = HashMap<Symbol, T, foldhash::fast::RandomState>;

/// From names to values to places of series.
#[derive(Debug, Default)]
pub(super) struct Postings {
    names: BySymbol<BySymbol<RoaringBitmap>>,
    all: RoaringBitmap,
}

impl Postings {
    /// Adds a series with its names and values, by turns.
    pub(super) fn add(&mut self, place: u32, labels: &[Symbol]) {
        self.all.insert(place);
        for pair in labels.chunks_exact(2) {
            self.names.entry(pair[0]).or_default().entry(pair[1]).or_default().insert(place);
        }
    }

    /// Takes a series away again.
    pub(super) fn remove(&mut self, place: u32, labels: &[Symbol]) {
        self.all.remove(place);
        for pair in labels.chunks_exact(2) {
            let Some(values) = self.names.get_mut(&pair[0]) else { continue };
            if let Some(places) = values.get_mut(&pair[1]) {
                places.remove(place);
                if places.is_empty() {
                    values.remove(&pair[1]);
                }
            }
            if values.is_empty() {
                self.names.remove(&pair[0]);
            }
        }
    }

    /// All names.
    pub(super) fn names(&self) -> impl Iterator<Item = Symbol> {
        self.names.keys().copied()
    }

    /// All values of a name.
    pub(super) fn values(&self, name: Symbol) -> impl Iterator<Item = Symbol> {
        self.names.get(&name).into_iter().flat_map(|values| values.keys().copied())
    }

    /// Exactly the series that satisfy every matcher.
    pub(super) fn select(&self, matchers: &[Matcher], symbols: &Symbols) -> RoaringBitmap {
        super::super::postings::select(matchers, &self.all, |matcher, keeps| {
            let Some(values) = symbols.find(&matcher.name).and_then(|name| self.names.get(&name)) else {
                return RoaringBitmap::new();
            };
            match matcher.literals().filter(|_| keeps) {
                Some(words) => {
                    let known = words.iter().filter_map(|word| values.get(&symbols.find(word)?));
                    super::super::postings::union(known)
                }
                None => super::super::postings::union(
                    values
                        .iter()
                        .filter(|(value, _)| matcher.matches(symbols.get(**value)) == keeps)
                        .map(|(_, places)| places),
                ),
            }
        })
    }
}
