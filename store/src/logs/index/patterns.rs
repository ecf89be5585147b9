//! When a partition had each pattern first: tantivy with a document per template.

use std::collections::{BTreeMap, HashSet};

use xxhash_rust::xxh3::xxh3_128;

use super::words::VALUE_MAX_BYTES;
use super::{PageError, PartitionIndex, failed};
use crate::fs::Disk;
use crate::logs::page::{PageReader, PageView as _, SealedPage, first_minutes, key_of};
use crate::logs::template::Template;

/// Patterns of one partition that are listed. With more, its pages are asked.
const PATTERNS_MAX: usize = 200_000;

/// Constant text and level of templates; what else they are made of does not show.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::logs) struct PatternKey {
    pub(in crate::logs) level: u8,
    /// With `<_>` for each hole.
    pub(in crate::logs) text: String,
}

impl PatternKey {
    pub(in crate::logs) fn of(template: &Template) -> Self {
        Self { level: template.level, text: template.pattern() }
    }

    /// What is in the dictionary: the text, or its hash where it is long.
    fn term(&self) -> String {
        if self.text.len() > VALUE_MAX_BYTES {
            format!("{}\u{1}{:032x}", self.level, xxh3_128(self.text.as_bytes()))
        } else {
            format!("{}{}", self.level, self.text)
        }
    }
}

/// What is in the filter. No word has a zero in it.
fn key_of_term(term: &str) -> u64 {
    key_of(format!("\0{term}").as_bytes())
}

/// Collects the patterns of a partition.
#[derive(Default)]
pub(super) struct Patterns {
    /// The first minute of each; `None` once there are too many.
    first: Option<BTreeMap<PatternKey, i64>>,
}

impl Patterns {
    pub(super) fn new() -> Self {
        Self { first: Some(BTreeMap::new()) }
    }

    /// Adds those of a page.
    pub(super) fn add(&mut self, page: &SealedPage, reader: &PageReader) -> Result<(), PageError> {
        let Some(all) = &mut self.first else { return Ok(()) };
        let minutes = first_minutes(reader, Some(page))?;
        for (one, minute) in reader.templates().iter().zip(minutes) {
            let first = all.entry(PatternKey::of(&one.template)).or_insert(minute);
            *first = minute.min(*first);
        }
        if all.len() > PATTERNS_MAX {
            self.first = None;
        }
        Ok(())
    }

    /// Makes a document of each, and answers their keys in the filter; `None` if there are too many.
    pub(super) fn finish(self, words: &mut super::words::Builder) -> std::io::Result<Option<Vec<u64>>> {
        let Some(all) = self.first else { return Ok(None) };
        let mut keys = Vec::with_capacity(all.len());
        for (pattern, minute) in all {
            let term = pattern.term();
            keys.push(key_of_term(&term));
            words.add_pattern(&term, minute).map_err(|error| failed(&error))?;
        }
        Ok(Some(keys))
    }
}

impl PartitionIndex {
    /// The pages of which it says when they had a pattern first.
    pub(in crate::logs) fn pages_with_patterns(&self) -> HashSet<u32> {
        if self.has_patterns { self.numbers.iter().copied().collect() } else { HashSet::new() }
    }

    /// The first minute of each of these patterns in the partition; `None` if it is in no page that the index knows.
    pub(in crate::logs) fn first_minutes(
        &self,
        disk: &dyn Disk,
        patterns: &[&PatternKey],
    ) -> Result<Vec<Option<i64>>, PageError> {
        let file = self.place.open(disk)?;
        let mut found = Vec::with_capacity(patterns.len());
        for pattern in patterns {
            let term = pattern.term();
            // The filter is asked first: most patterns that are new are in no partition.
            if !self.filter.may_contain(&*file, super::HEADER_BYTES as u64, key_of_term(&term))? {
                found.push(None);
                continue;
            }
            let minute = self
                .words(&*file)?
                .first_minute(&term)
                .map_err(|_| PageError::Damaged("tantivy does not read the words of an index"))?;
            found.push(minute);
        }
        Ok(found)
    }
}
