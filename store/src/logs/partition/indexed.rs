//! The index of a partition: asked, made, lost.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use binnacle_model::log_query::LogQuery;

use super::Partition;
use crate::fs::Disk;
use crate::logs::index::{self, IndexBuilder, PartitionIndex, may_exclude};
use crate::logs::page::{PageError, Shared};

impl Partition {
    /// Which of its pages may have something, if that is known here.
    pub(in crate::logs) fn index(&self) -> Option<Arc<PartitionIndex>> {
        self.index.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the index says, which is in the archive if need be; `None` if there is none. A damaged one is made anew: the
    /// pages say the same.
    pub(in crate::logs) fn ask_index<T>(
        &self,
        disk: &dyn Disk,
        ask: impl FnOnce(&PartitionIndex) -> Result<T, PageError>,
    ) -> Option<T> {
        let asked = self.find_index(disk).and_then(|index| match index {
            Some(index) => ask(&index).map(Some),
            None => Ok(None),
        });
        match asked {
            Ok(answer) => answer,
            Err(PageError::Read(_)) if self.remote().is_some() => None,
            Err(error) => {
                let name = self.id.name(&self.class);
                tracing::error!(partition = name, %error, "the index of a log partition is made anew");
                self.lose_index();
                None
            }
        }
    }

    /// Numbers of pages that have no row which the query finds, as the index says.
    pub(in crate::logs) fn excluded(&self, disk: &dyn Disk, query: &LogQuery) -> HashSet<u32> {
        if !may_exclude(query) {
            return HashSet::new();
        }
        self.ask_index(disk, |index| index.excluded(disk, query)).into_iter().flatten().collect()
    }

    /// The index, if need be out of the archive.
    fn find_index(&self, disk: &dyn Disk) -> Result<Option<Arc<PartitionIndex>>, PageError> {
        if let Some(index) = self.index() {
            return Ok(Some(index));
        }
        let Some(remote) = self.remote() else { return Ok(None) };
        let Some(place) = &remote.index else { return Ok(None) };
        let index = Arc::new(PartitionIndex::open_at(disk, place.clone())?);
        let mut own = self.index.write().unwrap_or_else(PoisonError::into_inner);
        Ok(Some(Arc::clone(own.get_or_insert(index))))
    }

    /// Makes the index of its pages anew. Of a damaged page nothing is left out.
    pub(in crate::logs) fn make_index(&self, disk: &dyn Disk, shared: &Mutex<Shared>) -> io::Result<()> {
        let mut builder = IndexBuilder::new()?;
        for page in self.pages() {
            let added = page.open(disk, shared).and_then(|sealed| builder.add(page.summary.number, &sealed));
            page.forget();
            match added {
                Ok(()) => {}
                Err(PageError::Read(error)) => return Err(error),
                Err(error) => tracing::error!(page = %page.path().display(), %error, "not in the index"),
            }
        }
        let index = builder.finish(disk, &self.dir)?;
        *self.index.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(index));
        Ok(())
    }

    /// Does without the index, which is damaged, until it is made anew.
    fn lose_index(&self) {
        *self.index.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Removes the index, which has words that the pages will not have any more.
    pub(in crate::logs) fn remove_index(&self, disk: &dyn Disk) -> io::Result<()> {
        self.lose_index();
        let path = self.dir.join(index::FILE);
        if disk.exists(&path)? {
            disk.remove_file(&path)?;
            disk.sync_dir(&self.dir)?;
        }
        Ok(())
    }

    /// Has searches ask this index.
    pub(in crate::logs) fn set_index(&self, index: PartitionIndex) {
        *self.index.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(index));
    }
}

/// The index of a closed partition. A damaged one is made anew.
pub(super) fn open_index(disk: &dyn Disk, dir: &Path) -> io::Result<Option<PartitionIndex>> {
    match PartitionIndex::open(disk, dir) {
        Ok(index) => Ok(index),
        Err(PageError::Read(error)) if error.kind() != io::ErrorKind::UnexpectedEof => Err(error),
        Err(error) => {
            tracing::error!(dir = %dir.display(), %error, "the index of a log partition is made anew");
            disk.remove_file(&dir.join(index::FILE))?;
            Ok(None)
        }
    }
}
