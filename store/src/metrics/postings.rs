//! Postings: which series have which label.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use binnacle_model::{Labels, Matcher};

/// From names to values to series, for one head or block. `I` numbers the series.
#[derive(Debug)]
pub(crate) struct Postings<I> {
    names: HashMap<Arc<str>, BTreeMap<Arc<str>, Vec<I>>>,
}

impl<I> Default for Postings<I> {
    fn default() -> Self {
        Self { names: HashMap::new() }
    }
}

/// Where to look for the series that satisfy some matchers: all of them are in it, and maybe others.
pub(crate) enum Candidates<I> {
    /// Only these, ascending, each once.
    Some(Vec<I>),
    /// No matcher narrows the choice.
    All,
}

impl<I: Copy + Ord> Postings<I> {
    /// Adds a series; numbers must come ascending.
    pub(crate) fn add(&mut self, number: I, labels: &Labels) {
        for label in labels {
            let values = self.names.entry(Arc::clone(&label.name)).or_default();
            values.entry(Arc::clone(&label.value)).or_default().push(number);
        }
    }

    /// Takes a series away again.
    pub(crate) fn remove(&mut self, number: I, labels: &Labels) {
        for label in labels {
            let Some(values) = self.names.get_mut(&label.name) else { continue };
            if let Some(numbers) = values.get_mut(&label.value) {
                if let Ok(at) = numbers.binary_search(&number) {
                    numbers.remove(at);
                }
                if numbers.is_empty() {
                    values.remove(&label.value);
                }
            }
            if values.is_empty() {
                self.names.remove(&label.name);
            }
        }
    }

    /// The shortest list that one of the matchers leaves.
    pub(crate) fn candidates(&self, matchers: &[Matcher]) -> Candidates<I> {
        let mut best: Option<Vec<&Vec<I>>> = None;
        // A matcher that the empty value satisfies says nothing about who has the label.
        for matcher in matchers.iter().filter(|matcher| !matcher.matches("")) {
            let Some(values) = self.names.get(matcher.name.as_str()) else {
                return Candidates::Some(Vec::new());
            };
            let lists: Vec<&Vec<I>> = match matcher.literals() {
                Some(words) => words.iter().filter_map(|word| values.get(word.as_str())).collect(),
                None => values.iter().filter(|(v, _)| matcher.matches(v)).map(|(_, list)| list).collect(),
            };
            let size = |lists: &[&Vec<I>]| lists.iter().map(|list| list.len()).sum::<usize>();
            if best.as_ref().is_none_or(|best| size(&lists) < size(best)) {
                best = Some(lists);
            }
        }
        let Some(lists) = best else { return Candidates::All };
        let mut numbers: Vec<I> = lists.into_iter().flatten().copied().collect();
        numbers.sort_unstable();
        numbers.dedup();
        Candidates::Some(numbers)
    }
}
