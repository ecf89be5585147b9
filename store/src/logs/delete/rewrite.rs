//! Pages without what was deleted, in the place of those that had it.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use binnacle_model::storage::{LogDeletion, LogDeletionState};

use super::Meant;
use crate::catalog::Catalog;
use crate::logs::Logs;
use crate::logs::archive::{ArchiveError, Staged};
use crate::logs::page::{OpenPage, PageError, PageReader, PageView, rewrite, seal};
use crate::logs::partition::{PageFile, Partition};
use crate::logs::search::{Plan, rows_of};

/// Why a partition could not be rid of what was deleted. It is tried again.
#[derive(Debug, thiserror::Error)]
pub(super) enum RewriteError {
    /// A page.
    #[error(transparent)]
    Page(#[from] PageError),
    /// The disk here.
    #[error("the disk: {0}")]
    Disk(#[from] io::Error),
    /// The archive.
    #[error("{0}: {1}")]
    Archive(String, ArchiveError),
    /// Somebody ended it, or the store closes.
    #[error("it was stopped")]
    Stopped,
}

/// What was done to a partition.
#[derive(Debug, Default)]
struct Done {
    pages: u64,
    removed: u64,
}

/// A page that has entries to remove: how many, and the page without them, if anything is left.
struct Rewritten {
    /// The number of the page in whose place it comes.
    number: u32,
    removed: u64,
    left: Option<Vec<u8>>,
}

impl Logs {
    /// Removes from all partitions what a deletion means. Answers whether it is finished.
    pub(super) fn delete_everywhere(
        &self,
        one: &LogDeletion,
        meant: &Meant,
        catalog: &Catalog,
    ) -> rusqlite::Result<bool> {
        let deletions = &self.shared.deletions;
        let partitions = self.shared.partitions();
        let pages = partitions.iter().map(|partition| pages_of_time(partition, meant).len() as u64).sum();
        deletions.change(catalog, one.id, |one| (one.pages, one.pages_done) = (pages, 0))?;
        let mut troubles = Vec::new();
        for partition in partitions {
            let mut done = Done::default();
            let worked = self.delete_in(one.id, &partition, meant, &mut done);
            deletions.change(catalog, one.id, |one| {
                one.pages_done += done.pages;
                one.removed += done.removed;
            })?;
            match worked {
                Ok(()) => {}
                Err(RewriteError::Stopped) => return Ok(!deletions.is_running(one.id)),
                Err(error) => {
                    let name = partition.id.name(&partition.class);
                    tracing::error!(id = one.id, partition = name, %error, "log entries were not deleted; will try again");
                    troubles.push(format!("partition {name}: {error}"));
                }
            }
        }
        let (state, trouble) = match troubles.first() {
            None => (LogDeletionState::Done, self.out_of_reach(meant)),
            Some(first) => {
                let reason = format!(
                    "{} partitions could not be changed, and are tried again: {first}",
                    troubles.len()
                );
                (LogDeletionState::Running, Some(reason))
            }
        };
        let saved = deletions.change(catalog, one.id, |one| {
            if one.state == LogDeletionState::Running {
                one.state = state;
            }
            one.trouble = trouble;
        })?;
        if let Some(saved) = saved.filter(|saved| saved.state == LogDeletionState::Done) {
            tracing::info!(id = saved.id, removed = saved.removed, "log entries deleted");
        }
        Ok(troubles.is_empty())
    }

    /// What of others is searched here, and stays as it is.
    fn out_of_reach(&self, meant: &Meant) -> Option<String> {
        let own: HashSet<_> = self.shared.partitions().iter().map(Arc::as_ptr).collect();
        let searched = self.shared.searched();
        let attached = searched.iter().filter(|one| !own.contains(&Arc::as_ptr(one)));
        let count = attached.filter(|one| !pages_of_time(one, meant).is_empty()).count();
        (count > 0).then(|| {
            format!("{count} partitions of attached archives are of other stores, and stay as they are: delete there")
        })
    }

    fn delete_in(
        &self,
        id: u64,
        partition: &Arc<Partition>,
        meant: &Meant,
        done: &mut Done,
    ) -> Result<(), RewriteError> {
        let _work = partition.work();
        if !self.shared.has(partition) {
            return Ok(());
        }
        if partition.lacks_manifest(&*self.shared.disk)? {
            let reason = "its manifest is damaged, and is to be read again out of the archive";
            return Err(io::Error::other(reason).into());
        }
        let excluded = partition.excluded(&*self.shared.disk, &meant.request.query);
        let failed = |error| RewriteError::Archive(self.shared.archive.url().to_owned(), error);
        let (mut plan, mut staged) = (Plan::new(&meant.request), None);
        for page in pages_of_time(partition, meant) {
            if self.stopping.load(Ordering::Relaxed) || !self.shared.deletions.is_running(id) {
                return Err(RewriteError::Stopped);
            }
            if !excluded.contains(&page.summary.number)
                && let Some(found) = self.without(&page, &mut plan, meant)?
            {
                if let Some(remote) = partition.remote() {
                    // Nothing of it counts before there is a manifest of all.
                    if staged.is_none() {
                        staged =
                            Some((Staged::begin(&*self.shared.disk, partition, &remote).map_err(failed)?, 0));
                    }
                    if let Some((staged, removed)) = &mut staged {
                        staged.stage(found.number, found.left).map_err(failed)?;
                        *removed += found.removed;
                    }
                } else {
                    self.put(partition, &found)?;
                    done.removed += found.removed;
                }
            }
            page.forget();
            done.pages += 1;
        }
        if let Some((staged, removed)) = staged {
            self.finish_rewrite(partition, staged).map_err(failed)?;
            done.removed += removed;
        }
        // Of this deletion, or of one before it that was broken off.
        if partition.needs_sweep() {
            self.sweep(partition).map_err(failed)?;
        }
        // A start before this finds no index, and makes it.
        if partition.remote().is_none() && partition.is_closed() && partition.index().is_none() {
            partition.make_index(&*self.shared.disk, &self.shared.interned)?;
            partition.close(&*self.shared.disk)?;
        }
        Ok(())
    }

    /// The page without what is meant; `None` if it has nothing of it.
    fn without(
        &self,
        page: &PageFile,
        plan: &mut Plan,
        meant: &Meant,
    ) -> Result<Option<Rewritten>, PageError> {
        let (first, last) = page.summary.sequences;
        if first > meant.sequence {
            return Ok(None);
        }
        let sealed = page.open(&*self.shared.disk, &self.shared.interned)?;
        let reader = PageReader::new(Arc::clone(&sealed));
        let mut rows: HashSet<usize> = HashSet::new();
        let found = rows_of(plan, &reader)?;
        if found.is_empty() {
            return Ok(None);
        }
        let pushes = reader.push_column()?;
        for row in found {
            // Of a page that has later records, too, the time says which lines these brought.
            let is_meant =
                last <= meant.sequence || reader.pushes()[pushes[row as usize] as usize] <= meant.through;
            if is_meant {
                rows.insert(row as usize);
            }
        }
        if rows.is_empty() {
            return Ok(None);
        }
        let mut row = 0;
        let left: OpenPage = rewrite(&[sealed], &mut |_| {
            row += 1;
            !rows.contains(&(row - 1))
        })?;
        let left = if left.is_empty() { None } else { Some(seal(&left)?) };
        Ok(Some(Rewritten { number: page.summary.number, removed: rows.len() as u64, left }))
    }

    /// Puts a page without entries in the place of the one that had them.
    fn put(&self, partition: &Partition, found: &Rewritten) -> io::Result<()> {
        let disk = &*self.shared.disk;
        // An index has words of what goes. It is made anew, by the next start if need be.
        if partition.index().is_some() {
            partition.remove_index(disk)?;
        }
        // No page is written into the partition meanwhile.
        let _open = partition.is_over();
        let write = |bytes: &[u8]| partition.write(disk, &self.shared.interned, bytes);
        match &found.left {
            Some(bytes) => {
                let page = write(bytes)?;
                partition.replace(&self.shared.disk, &[found.number], Some(page));
                Ok(())
            }
            None => partition.remove_page(disk, found.number),
        }
    }
}

/// Pages that may have entries of the time that is meant.
fn pages_of_time(partition: &Partition, meant: &Meant) -> Vec<Arc<PageFile>> {
    let (start, end) = (meant.request.start, meant.request.end);
    let mut pages = partition.pages();
    pages.retain(|page| page.summary.last >= start && page.summary.first < end);
    pages
}
