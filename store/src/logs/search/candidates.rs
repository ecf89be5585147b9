//! Sealed pages that a search may have to open.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use binnacle_model::LogTime;
use binnacle_model::log_query::LogQuery;
use binnacle_model::storage::LogOrder;

use crate::fs::Disk;
use crate::logs::partition::{PageFile, Partition};

/// Pages of a span of time, and what the indexes of their partitions say of them once somebody asks.
pub(super) struct Candidates {
    /// Each with the number of its partition.
    pages: Vec<(Arc<PageFile>, usize)>,
    /// Each with the pages that have nothing of what is asked for.
    partitions: Vec<(Arc<Partition>, OnceLock<HashSet<u32>>)>,
    /// Bytes of memory of the indexes that were asked, and how many of them may stay.
    held: AtomicUsize,
    held_max: usize,
    /// Up to here the ends of archived pages are in memory, or somebody reads them.
    fetched: AtomicUsize,
}

/// Pages of archives of which the ends are read at once: a search waits for all of them as long as for one.
const FETCHED_AT_ONCE: usize = 8;

/// Pages among which these are looked for.
const LOOKED_AHEAD: usize = 64;

impl Candidates {
    /// Those of a span of time; so many bytes of indexes may stay in memory.
    pub(super) fn new(
        partitions: Vec<Arc<Partition>>,
        start: LogTime,
        end: LogTime,
        held_max: usize,
    ) -> Self {
        let mut pages = Vec::new();
        for (number, partition) in partitions.iter().enumerate() {
            let of_partition = partition.pages().into_iter();
            let of_time = of_partition.filter(|page| page.summary.last >= start && page.summary.first < end);
            pages.extend(of_time.map(|page| (page, number)));
        }
        let partitions = partitions.into_iter().map(|partition| (partition, OnceLock::new())).collect();
        Self { pages, partitions, held: AtomicUsize::new(0), held_max, fetched: AtomicUsize::new(0) }
    }

    /// Puts those with the first rows in the order first.
    pub(super) fn sort(&mut self, order: LogOrder) {
        match order {
            LogOrder::NewestFirst => {
                self.pages.sort_by_key(|(page, _)| Reverse((page.summary.last, page.summary.sequences.1)));
            }
            LogOrder::OldestFirst => {
                self.pages.sort_by_key(|(page, _)| (page.summary.first, page.summary.sequences.0));
            }
        }
    }

    /// The partitions, oldest first, each with its pages.
    pub(super) fn by_partition(self) -> Vec<(Arc<Partition>, Vec<Arc<PageFile>>)> {
        let mut all: Vec<(Arc<Partition>, Vec<Arc<PageFile>>)> =
            self.partitions.into_iter().map(|(partition, _)| (partition, Vec::new())).collect();
        for (page, number) in self.pages {
            all[number].1.push(page);
        }
        all.retain(|(_, pages)| !pages.is_empty());
        all
    }

    pub(super) fn len(&self) -> usize {
        self.pages.len()
    }

    pub(super) fn page(&self, at: usize) -> &PageFile {
        &self.pages[at].0
    }

    /// Reads the ends of the archived pages from here on that the search will open, several at once.
    pub(super) fn fetch_ahead(&self, at: usize, disk: &dyn Disk, query: &LogQuery) {
        let is_cold = |at: usize| self.page(at).object().is_some_and(|object| !object.is_warm());
        if !is_cold(at) || at < self.fetched.load(Ordering::Relaxed) {
            return;
        }
        let (mut ahead, mut end) = (Vec::new(), at);
        while end < self.len() && ahead.len() < FETCHED_AT_ONCE && end < at + LOOKED_AHEAD {
            if is_cold(end) && !self.is_excluded(end, disk, query) {
                ahead.push(end);
            }
            end += 1;
        }
        if self.fetched.fetch_max(end, Ordering::Relaxed) > at || ahead.len() < 2 {
            return;
        }
        std::thread::scope(|scope| {
            // One of them on this thread: what it waits counts.
            let mut objects = ahead.iter().filter_map(|at| self.page(*at).object());
            let own = objects.next();
            objects.for_each(|object| drop(scope.spawn(|| object.warm())));
            own.into_iter().for_each(|object| object.warm());
        });
    }

    /// Whether the index of its partition says that a page has no row which the query finds.
    pub(super) fn is_excluded(&self, at: usize, disk: &dyn Disk, query: &LogQuery) -> bool {
        let (page, partition) = &self.pages[at];
        let (partition, excluded) = &self.partitions[*partition];
        let ask = || {
            let excluded = partition.excluded(disk, query);
            if let Some(index) = partition.index() {
                let weight = index.weight();
                // One search asks more indexes than there is room for: those beyond it are let go at once.
                if self.held.fetch_add(weight, Ordering::Relaxed) + weight > self.held_max {
                    index.forget();
                }
            }
            excluded
        };
        excluded.get_or_init(ask).contains(&page.summary.number)
    }
}
