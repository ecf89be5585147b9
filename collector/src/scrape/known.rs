//! The series that a target is known to have, so that what stood on the page before costs next to nothing.
//!
//! ```text
//! page: a{x="1"} 5      entries: ┌ a{x="1"} ─next─► a{x="2"} ─next─► b ┐
//!       a{x="2"} 6               └─ hash ─► entry, where the guess is wrong
//!       b 7
//! ```
//!
//! Pages name their series in the same order again and again. So each entry knows which one came behind it, and a line is
//! recognised by comparing its bytes with those of that entry: no parser, no hash. All bytes lie in one buffer.
//!
//! Invariants:
//! - An entry means what its labels were when it was seen first, whatever type the page says later (as in Prometheus).
//! - Entries that a page no longer has are forgotten once a page was taken; a scrape that failed forgets none, up to a bound.

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

/// No entry.
const NONE: u32 = u32::MAX;

/// Entries of scrapes that failed may outnumber those of the last good one so many times, and some more.
const FAILED_TIMES: usize = 2;
const FAILED_MORE: usize = 1000;

#[derive(Debug, Clone, Copy)]
struct Entry {
    start: u32,
    length: u32,
    hash: u64,
    /// Hash of its labels; two entries may be one series, written in two ways.
    labels: u64,
    /// The last scrape that had it.
    seen: u32,
    /// The last scrape that was taken, had it, and gave it no time of its own.
    tracked: u32,
    next: u32,
    is_dropped: bool,
    is_histogram: bool,
}

/// What is known of a line's series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) index: u32,
    /// Whether rules let it go.
    pub(super) is_dropped: bool,
    /// Whether this page had it before.
    pub(super) is_double: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Known {
    entries: Vec<Entry>,
    free: Vec<u32>,
    bytes: Vec<u8>,
    /// Of `bytes`, those that no entry needs any more.
    garbage: usize,
    by_hash: HashTable<u32>,
    scrape: u32,
    /// The entry of the last line, and the first one of a page.
    last: u32,
    first: u32,
    /// Entries after the last page that was taken.
    good: usize,
}

impl Default for Known {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            free: Vec::new(),
            bytes: Vec::new(),
            garbage: 0,
            by_hash: HashTable::new(),
            // So that what was never tracked was not so in the scrape before, either.
            scrape: 1,
            last: NONE,
            first: NONE,
            good: 0,
        }
    }
}

impl Known {
    /// Begins a scrape.
    pub(super) fn begin(&mut self) {
        self.scrape += 1;
        self.last = NONE;
    }

    /// How many series are known.
    pub(super) fn len(&self) -> usize {
        self.by_hash.len()
    }

    /// The bytes of an entry, with the tag before them.
    pub(super) fn bytes(&self, index: u32) -> &[u8] {
        let entry = &self.entries[index as usize];
        &self.bytes[entry.start as usize..][..entry.length as usize]
    }

    /// The entry that most likely comes next, and its bytes, tag included.
    #[inline]
    pub(super) fn expected(&self) -> Option<(u32, &[u8])> {
        let index = if self.last == NONE { self.first } else { self.entries[self.last as usize].next };
        if index == NONE {
            return None;
        }
        let entry = &self.entries[index as usize];
        Some((index, &self.bytes[entry.start as usize..][..entry.length as usize]))
    }

    /// Notes that the expected entry stands there.
    #[inline]
    pub(super) fn confirm(&mut self, index: u32) -> Found {
        self.last = index;
        self.see(index)
    }

    /// The entry of a series, whose bytes come without the tag.
    pub(super) fn find(&mut self, series: &[u8]) -> Option<Found> {
        let (bytes, entries) = (&self.bytes, &self.entries);
        let hash = xxh3_64(series);
        let is_same = |index: &u32| {
            let entry = &entries[*index as usize];
            entry.hash == hash && &bytes[entry.start as usize + 1..][..entry.length as usize - 1] == series
        };
        let index = *self.by_hash.find(hash, is_same)?;
        self.follow(index);
        Some(self.see(index))
    }

    /// Adds a series; `tagged` are its bytes behind the tag, `labels` the hash of its labels, or `None` if it is dropped.
    pub(super) fn add(&mut self, tagged: &[u8], labels: Option<u64>) -> Found {
        let hash = xxh3_64(&tagged[1..]);
        let entry = Entry {
            start: self.bytes.len() as u32,
            length: tagged.len() as u32,
            hash,
            labels: labels.unwrap_or_default(),
            seen: self.scrape,
            tracked: 0,
            next: NONE,
            is_dropped: labels.is_none(),
            is_histogram: false,
        };
        self.bytes.extend_from_slice(tagged);
        let index = if let Some(index) = self.free.pop() {
            self.entries[index as usize] = entry;
            index
        } else {
            self.entries.push(entry);
            self.entries.len() as u32 - 1
        };
        let entries = &self.entries;
        self.by_hash.insert_unique(hash, index, |index| entries[*index as usize].hash);
        self.follow(index);
        Found { index, is_dropped: labels.is_none(), is_double: false }
    }

    fn follow(&mut self, index: u32) {
        match self.last {
            NONE => self.first = index,
            last => self.entries[last as usize].next = index,
        }
        self.last = index;
    }

    #[inline]
    fn see(&mut self, index: u32) -> Found {
        let entry = &mut self.entries[index as usize];
        let is_double = entry.seen == self.scrape;
        entry.seen = self.scrape;
        Found { index, is_dropped: entry.is_dropped, is_double }
    }

    /// Notes that a sample of this scrape is stored, and that its series is to end with a marker once it is gone.
    pub(super) fn track(&mut self, index: u32, is_histogram: bool) {
        let entry = &mut self.entries[index as usize];
        (entry.tracked, entry.is_histogram) = (self.scrape, is_histogram);
    }

    /// The series of the scrape before that were not tracked in this one; each with whether it was of histograms.
    pub(super) fn ended(&self) -> Vec<(u32, bool)> {
        let before = self.scrape - 1;
        let mut ended: Vec<(u32, bool)> = (0u32..)
            .zip(&self.entries)
            .filter(|(_, entry)| entry.tracked == before)
            .map(|(index, entry)| (index, entry.is_histogram))
            .collect();
        if !ended.is_empty() {
            // The same series may go on, written in another way.
            let go_on = self.entries.iter().filter(|entry| entry.tracked == self.scrape);
            let go_on: std::collections::HashSet<u64, foldhash::fast::FixedState> =
                go_on.map(|entry| entry.labels).collect();
            ended.retain(|(index, _)| !go_on.contains(&self.entries[*index as usize].labels));
        }
        ended
    }

    /// All series that would end with a marker now.
    pub(super) fn tracked(&self) -> Vec<(u32, bool)> {
        let of_last = |(_, entry): &(u32, &Entry)| entry.tracked == self.scrape;
        (0u32..)
            .zip(&self.entries)
            .filter(of_last)
            .map(|(index, entry)| (index, entry.is_histogram))
            .collect()
    }

    /// Ends a scrape; `is_page` says that a page with content was taken.
    pub(super) fn finish(&mut self, is_page: bool) {
        if !is_page && self.len() <= self.good * FAILED_TIMES + FAILED_MORE {
            return;
        }
        for index in 0..self.entries.len() as u32 {
            let entry = &self.entries[index as usize];
            // Free ones have a length of zero.
            if entry.seen == self.scrape || entry.length == 0 {
                continue;
            }
            if let Ok(place) = self.by_hash.find_entry(entry.hash, |other| *other == index) {
                place.remove();
            }
            self.garbage += entry.length as usize;
            self.entries[index as usize].length = 0;
            self.entries[index as usize].tracked = 0;
            self.free.push(index);
        }
        self.good = self.len();
        self.forget_links();
        if self.garbage > self.bytes.len() / 2 {
            self.compact();
        }
    }

    /// Nobody expects what is gone.
    fn forget_links(&mut self) {
        if self.free.is_empty() {
            return;
        }
        let is_gone = |entries: &[Entry], index: u32| index != NONE && entries[index as usize].length == 0;
        for index in 0..self.entries.len() {
            if is_gone(&self.entries, self.entries[index].next) {
                self.entries[index].next = NONE;
            }
        }
        if is_gone(&self.entries, self.first) {
            self.first = NONE;
        }
    }

    fn compact(&mut self) {
        let mut bytes = Vec::with_capacity(self.bytes.len() - self.garbage);
        for entry in self.entries.iter_mut().filter(|entry| entry.length > 0) {
            let start = bytes.len() as u32;
            bytes.extend_from_slice(&self.bytes[entry.start as usize..][..entry.length as usize]);
            entry.start = start;
        }
        (self.bytes, self.garbage) = (bytes, 0);
        if self.by_hash.is_empty() {
            *self = Self { scrape: self.scrape, good: self.good, ..Self::default() };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    /// Takes a page as a scrape does; answers the names that ended.
    fn scrape(known: &mut Known, page: &[u8], is_good: bool) -> BTreeSet<u8> {
        known.begin();
        let mut rows = Vec::new();
        for name in page {
            let tagged = [1, b'n', *name];
            let found = match known.expected() {
                Some((index, bytes)) if bytes == tagged => known.confirm(index),
                _ => known.find(&tagged[1..]).unwrap_or_else(|| known.add(&tagged, Some(u64::from(*name)))),
            };
            assert_eq!(known.bytes(found.index), tagged);
            rows.push(found.index);
        }
        if is_good {
            rows.iter().for_each(|index| known.track(*index, false));
        }
        let ended = known.ended().iter().map(|(index, _)| known.bytes(*index)[2]).collect();
        known.finish(is_good && !page.is_empty());
        ended
    }

    proptest! {
        /// Whatever pages have, in whatever order, what ends is what was there before and is not now.
        #[test]
        fn what_ends_is_what_was_there_before(
            pages in proptest::collection::vec((proptest::collection::vec(0u8..12, 0..10), any::<bool>()), 1..30),
        ) {
            let (mut known, mut before) = (Known::default(), BTreeSet::new());
            for (page, is_good) in pages {
                let now: BTreeSet<u8> = if is_good { page.iter().copied().collect() } else { BTreeSet::new() };
                let ended = scrape(&mut known, &page, is_good);
                prop_assert_eq!(ended, before.difference(&now).copied().collect::<BTreeSet<_>>());
                before = now;
            }
        }
    }

    #[test]
    fn what_is_gone_takes_no_room() {
        let mut known = Known::default();
        let mut sizes = BTreeMap::new();
        for round in 0..200u32 {
            known.begin();
            for at in 0..100u32 {
                let name = format!("\u{1}series{{pod=\"{round}-{at}\"}}");
                let found =
                    known.find(&name.as_bytes()[1..]).unwrap_or_else(|| known.add(name.as_bytes(), Some(0)));
                known.track(found.index, false);
            }
            known.finish(true);
            sizes.insert(round, (known.len(), known.entries.len(), known.bytes.len()));
        }
        let (live, entries, bytes) = sizes[&199];
        assert!(live == 100 && entries <= 300 && bytes < 30_000, "{live} {entries} {bytes}");
        for _ in 0..50 {
            known.begin();
            for at in 0..100u32 {
                known.add(format!("\u{1}failed{at}-{}", known.scrape).as_bytes(), Some(0));
            }
            known.finish(false);
        }
        assert!(known.len() < 100 * 2 + 1000 + 200, "{}", known.len());
    }
}
