//! Sealed pages that a search may have to open.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use binnacle_model::LogTime;
use binnacle_model::log_query::LogQuery;
use binnacle_model::storage::LogOrder;

use crate::fs::Disk;
use crate::logs::index::may_exclude;
use crate::logs::partition::{PageFile, Partition};

/// Pages of a span of time, and what the indexes of their partitions say of them once somebody asks.
pub(super) struct Candidates {
    /// Each with the number of its partition.
    pages: Vec<(Arc<PageFile>, usize)>,
    /// Each with the pages that have nothing of what is asked for.
    partitions: Vec<(Arc<Partition>, OnceLock<HashSet<u32>>)>,
}

impl Candidates {
    pub(super) fn new(partitions: Vec<Arc<Partition>>, start: LogTime, end: LogTime) -> Self {
        let mut pages = Vec::new();
        for (number, partition) in partitions.iter().enumerate() {
            let of_partition = partition.pages().into_iter();
            let of_time = of_partition.filter(|page| page.summary.last >= start && page.summary.first < end);
            pages.extend(of_time.map(|page| (page, number)));
        }
        let partitions = partitions.into_iter().map(|partition| (partition, OnceLock::new())).collect();
        Self { pages, partitions }
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

    pub(super) fn len(&self) -> usize {
        self.pages.len()
    }

    pub(super) fn page(&self, at: usize) -> &PageFile {
        &self.pages[at].0
    }

    /// Whether the index of its partition says that a page has no row which the query finds.
    pub(super) fn is_excluded(&self, at: usize, disk: &dyn Disk, query: &LogQuery) -> bool {
        let (page, partition) = &self.pages[at];
        let (partition, excluded) = &self.partitions[*partition];
        excluded.get_or_init(|| excluded_of(partition, disk, query)).contains(&page.summary.number)
    }
}

fn excluded_of(partition: &Partition, disk: &dyn Disk, query: &LogQuery) -> HashSet<u32> {
    let Some(index) = partition.index().filter(|_| may_exclude(query)) else { return HashSet::new() };
    match index.excluded(disk, query) {
        Ok(numbers) => numbers.into_iter().collect(),
        Err(error) => {
            let name = partition.id.name(&partition.class);
            tracing::error!(partition = name, %error, "the index of a log partition is made anew");
            partition.lose_index();
            HashSet::new()
        }
    }
}
