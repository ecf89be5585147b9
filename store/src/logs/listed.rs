//! Partitions, as an operator sees them.

use binnacle_model::storage::{LogPartition, LogPartitionState};

use super::Logs;
use super::archive::Attached;
use super::partition::Partition;

impl Logs {
    /// See [`binnacle_model::storage::LogKeeper::partitions`].
    pub(crate) fn listed(&self) -> (Vec<LogPartition>, Vec<String>) {
        let shared = &self.shared;
        let listed = shared.searched().into_iter().map(|one| {
            let is_own = shared.has(&one);
            listed(&one, is_own)
        });
        (listed.collect(), shared.attached.iter().filter_map(Attached::trouble).collect())
    }
}

fn listed(partition: &Partition, is_own: bool) -> LogPartition {
    let (pages, remote) = (partition.pages(), partition.remote());
    let state = match (&remote, is_own) {
        (Some(_), false) => LogPartitionState::Attached,
        (Some(_), true) => LogPartitionState::Archived,
        (None, _) if partition.is_closed() => LogPartitionState::Closed,
        (None, _) => LogPartitionState::Open,
    };
    let summaries = || pages.iter().map(|page| page.summary);
    let first = summaries().map(|summary| summary.first).min();
    LogPartition {
        name: partition.id.name(&partition.class),
        class: partition.class.to_string(),
        state,
        archive: remote.as_ref().map(|remote| remote.archive.url().to_owned()),
        store: remote.map(|remote| remote.manifest.store.clone()),
        pages: pages.len() as u64,
        entries: summaries().fold(0, |sum, one| sum.saturating_add(one.rows)),
        bytes: summaries().fold(0, |sum, one| sum.saturating_add(one.raw_bytes)),
        stored_bytes: partition.stored_bytes(),
        span: first.zip(summaries().map(|summary| summary.last).max()),
    }
}
