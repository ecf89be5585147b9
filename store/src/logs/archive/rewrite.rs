//! Archived partitions, written anew without some of their entries.
//!
//! Pages that change get new numbers, the index is made anew, and a manifest of the next generation takes the place of the
//! one before. What that named is swept away once the new one stands here, too; that it has to be is written down first.

use std::sync::Arc;

use super::manifest::{ArchivedIndex, ArchivedPage, Manifest};
use super::upload::{ArchiveError, INDEX_HERE_MAX_BYTES, check_page, manifests_of, put_checked};
use super::{Archive, BucketError};
use crate::fs::{Disk, write_atomic};
use crate::logs::Logs;
use crate::logs::index::IndexBuilder;
use crate::logs::page::PageError;
use crate::logs::partition::{ARCHIVED, Partition, Remote};

/// A manifest on its way, of which the pages are there.
pub(in crate::logs) struct Staged {
    archive: Arc<Archive>,
    manifest: Manifest,
    next_number: u32,
}

impl Staged {
    /// Begins to write an archived partition anew.
    pub(in crate::logs) fn begin(
        disk: &dyn Disk,
        partition: &Partition,
        remote: &Remote,
    ) -> Result<Self, ArchiveError> {
        let (old, bucket) = (&remote.manifest, &*remote.archive.bucket);
        let older = manifests_of(bucket, &old.store, &old.partition)?;
        if older.is_empty() {
            return Err(BucketError::Missing(old.key()).into());
        }
        partition.set_needs_sweep(disk, true)?;
        let generation = older.iter().copied().fold(old.generation, u32::max) + 1;
        // Also not that of a page which an attempt before this one left.
        let mut next_number = old.next_number();
        for listed in bucket.list(&old.pages_prefix())? {
            let name = listed.key.rsplit('/').next().and_then(|name| name.strip_suffix(".page"));
            if let Some(number) = name.and_then(|number| number.parse::<u32>().ok()) {
                next_number = next_number.max(number.saturating_add(1));
            }
        }
        let archive = Arc::clone(&remote.archive);
        Ok(Self { archive, manifest: old.next(generation), next_number })
    }

    /// Brings the page that takes the place of another, if something is left of it.
    pub(in crate::logs) fn stage(&mut self, number: u32, left: Option<Vec<u8>>) -> Result<(), ArchiveError> {
        let Some(bytes) = left else {
            self.manifest.replace(number, None);
            return Ok(());
        };
        let damaged = |error| ArchiveError::Page(self.manifest.partition.clone(), error);
        let (bytes, summary, checked) = check_page(self.next_number, bytes).map_err(damaged)?;
        put_checked(&*self.archive.bucket, &self.manifest.page_key(self.next_number), bytes)?;
        self.manifest.replace(number, Some(ArchivedPage::of(&summary, &checked)));
        self.next_number += 1;
        Ok(())
    }
}

impl Logs {
    /// Makes what was staged the partition.
    pub(in crate::logs) fn finish_rewrite(
        &self,
        partition: &Partition,
        staged: Staged,
    ) -> Result<(), ArchiveError> {
        let Staged { archive, mut manifest, .. } = staged;
        let (disk, bucket) = (&*self.shared.disk, &*archive.bucket);
        // The index here has words of what goes.
        partition.remove_index(disk)?;
        let index = self.index_of(partition, &Remote::new(manifest.clone(), &archive))?;
        let bytes = index.read(disk)?;
        let generation = manifest.generation;
        let entry = ArchivedIndex { generation, bytes: bytes.len() as u64, crc32c: crc32c::crc32c(&bytes) };
        put_checked(bucket, &manifest.index_key(&entry), bytes)?;
        manifest.index = Some(entry);
        put_checked(bucket, &manifest.key(), manifest.encode())?;
        let mark = || write_atomic(disk, &partition.dir().join(ARCHIVED), &manifest.encode());
        self.shared.space.with_reserve(mark)?;
        partition.set_remote(&self.shared.disk, Remote::new(manifest.clone(), &archive), false);
        if entry.bytes <= INDEX_HERE_MAX_BYTES {
            partition.set_index(index);
        } else {
            partition.remove_index(disk)?;
        }
        Ok(())
    }

    /// Removes from the archive what the manifest of a partition does not name.
    pub(in crate::logs) fn sweep(&self, partition: &Partition) -> Result<(), ArchiveError> {
        let Some(remote) = partition.remote() else { return Ok(()) };
        let (manifest, bucket) = (&remote.manifest, &*remote.archive.bucket);
        let mut others = manifests_of(bucket, &manifest.store, &manifest.partition)?;
        others.retain(|generation| *generation != manifest.generation);
        remote.archive.forget_others(manifest, &others)?;
        Ok(partition.set_needs_sweep(&*self.shared.disk, false)?)
    }

    /// Makes the index of an archived partition, for which all of its pages are read.
    fn index_of(
        &self,
        partition: &Partition,
        remote: &Remote,
    ) -> Result<crate::logs::index::PartitionIndex, ArchiveError> {
        let shared = &self.shared;
        let mut builder = IndexBuilder::new()?;
        for page in remote.pages() {
            let opened = page.open(&*shared.disk, &shared.interned);
            let added = opened.and_then(|sealed| builder.add(page.summary.number, &sealed));
            page.forget();
            added.map_err(|error| match error {
                PageError::Read(error) => ArchiveError::Disk(error),
                damaged @ PageError::Damaged(_) => {
                    ArchiveError::Page(remote.manifest.partition.clone(), damaged)
                }
            })?;
        }
        Ok(builder.finish(&*shared.disk, partition.dir())?)
    }
}
