//! Partitions on their way into the archive, and out of it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use binnacle_model::LogTime;
use binnacle_model::time::Clock;

use super::manifest::{
    ArchivedIndex, Checked, MANIFEST_MAX_BYTES, Manifest, ManifestError, manifests_prefix, of_manifest_key,
    pages_prefix,
};
use super::{Archive, Bucket, BucketError};
use crate::fs::{ReadFile, write_atomic};
use crate::logs::page::{PageError, PageReader, PageView, SealedPage, Source};
use crate::logs::partition::{
    ARCHIVED, ARCHIVED_DAMAGED, ARCHIVING, PageFile, Partition, Remote, Summary, summary,
};
use crate::logs::{GONE, Logs};

/// An index that is larger is read out of the archive, too.
pub(super) const INDEX_HERE_MAX_BYTES: u64 = 32 << 20;

/// Why a partition was not archived, or not removed from an archive. It is tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchiveError {
    /// The object store.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// The disk here.
    #[error("the disk")]
    Disk(#[from] io::Error),
    /// A page is damaged; it is set aside, and the others go on.
    #[error("partition {0} has a damaged page")]
    Page(String, #[source] PageError),
    /// What was read back is not what was written.
    #[error("{0} is not in the object store as it was written")]
    Differs(String),
    /// Somebody else wrote a partition of this name.
    #[error(
        "the archive has a partition {0} of this store that is not from here: this data directory is a copy, or older \
         than the archive; remove logs/identity to archive under another name"
    )]
    Foreign(String),
    /// What stands there is no manifest that this release reads.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The partition is gone, or the store closes.
    #[error("it was not finished")]
    Stopped,
}

/// Bytes in memory, as a file.
struct Bytes(Vec<u8>);

impl ReadFile for Bytes {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64).ok_or(io::ErrorKind::UnexpectedEof)?;
        let source = self.0.get(offset as usize..end as usize);
        buffer.copy_from_slice(source.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// Reads all of a page, and answers what a manifest says of it.
pub(super) fn check_page(number: u32, bytes: Vec<u8>) -> Result<(Vec<u8>, Summary, Checked), PageError> {
    let (crc32c, version) = (crc32c::crc32c(&bytes), bytes.get(4).copied().unwrap_or_default());
    let length = bytes.len() as u64;
    let file = Arc::new(Bytes(bytes));
    let source = Source { file: Arc::clone(&file) as Arc<dyn ReadFile>, offset: 0, length };
    let page = Arc::new(SealedPage::open(source, &std::sync::Mutex::default())?);
    let summary = summary(number, &page, length);
    let reader = PageReader::new(page);
    reader.verify()?;
    let times = || reader.pushes().iter().copied();
    let intake = (times().min().unwrap_or_default(), times().max().unwrap_or_default());
    let checked = Checked { crc32c, version, messages: reader.page.messages(), intake };
    drop(reader);
    let bytes = Arc::try_unwrap(file).map_or_else(|file| file.0.clone(), |file| file.0);
    Ok((bytes, summary, checked))
}

/// Writes an object that nobody has, unless it is there already, and reads it back.
pub(super) fn put_checked(bucket: &dyn Bucket, key: &str, bytes: Vec<u8>) -> Result<(), ArchiveError> {
    let (length, crc) = (bytes.len() as u64, crc32c::crc32c(&bytes));
    let is_there = || -> Result<bool, BucketError> {
        // What a broken attempt left is of another size, or of other bytes.
        if bucket.head(key)? != Some(length) {
            return Ok(false);
        }
        Ok(crc32c::crc32c(&bucket.get(key, 0..length)?) == crc)
    };
    if is_there()? {
        return Ok(());
    }
    bucket.put(key, bytes)?;
    if is_there()? { Ok(()) } else { Err(ArchiveError::Differs(key.to_owned())) }
}

impl Logs {
    /// Takes what expired out of the archive, and brings there what is due. What fails is tried again by the next call.
    pub(crate) fn tend_archive(&self, clock: &dyn Clock) -> Result<(), ArchiveError> {
        if self.options.archive.is_none() {
            return Ok(());
        }
        let mut failed = self.remove_gone().err();
        for partition in self.shared.partitions().iter().filter(|partition| partition.needs_sweep()) {
            if let Some(_work) = partition.try_work() {
                self.sweep(partition)?;
            }
        }
        self.restore_manifests();
        let now = clock.now_ns();
        for partition in self.due(now)? {
            match self.archive_partition(&partition) {
                Ok(()) | Err(ArchiveError::Stopped) => {}
                // The others would meet the same.
                Err(error @ (ArchiveError::Bucket(_) | ArchiveError::Disk(_))) => return Err(error),
                Err(error) => failed = Some(error),
            }
            if self.is_stopping() {
                break;
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Reads manifests again that are damaged here.
    fn restore_manifests(&self) {
        for partition in self.shared.partitions() {
            if let Err(error) = self.restore_manifest(&partition) {
                // The others can still be archived.
                let name = partition.id.name(&partition.class);
                tracing::error!(partition = name, %error, "the manifest of a log partition was not found again; will try again");
            }
        }
    }

    fn restore_manifest(&self, partition: &Arc<Partition>) -> Result<(), ArchiveError> {
        let (shared, bucket) = (&self.shared, &*self.shared.archive.bucket);
        let Some(_work) = partition.try_work() else { return Ok(()) };
        if partition.lacks_manifest(&*shared.disk)? {
            let name = partition.id.name(&partition.class);
            let listed = bucket.list(&manifests_prefix(&shared.store_id, &name))?;
            let Some(newest) = listed.last().filter(|newest| newest.bytes <= MANIFEST_MAX_BYTES) else {
                return Err(BucketError::Missing(manifests_prefix(&shared.store_id, &name)).into());
            };
            let manifest = Manifest::decode(&bucket.get(&newest.key, 0..newest.bytes)?)?;
            write_atomic(&*shared.disk, &partition.dir().join(ARCHIVED), &manifest.encode())?;
            partition.set_remote(&shared.disk, Remote::new(manifest, &shared.archive), true);
            partition.found_again();
            shared.disk.remove_file(&partition.dir().join(ARCHIVED_DAMAGED))?;
            tracing::info!(partition = name, "the manifest of a log partition is here again");
        }
        Ok(())
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Brings one closed partition into the archive, and lets its pages here go.
    fn archive_partition(&self, partition: &Arc<Partition>) -> Result<(), ArchiveError> {
        let shared = &self.shared;
        let Some(_work) = partition.try_work() else { return Ok(()) };
        if partition.remote().is_some() || !shared.has(partition) {
            return Ok(());
        }
        let manifest = match self.upload(partition) {
            Err(ArchiveError::Page(name, error)) => {
                // Verifying sets it aside.
                let pages = partition.pages();
                let mut suspects = shared.suspects.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                suspects.extend(pages.iter().map(|page| page.path().to_path_buf()));
                return Err(ArchiveError::Page(name, error));
            }
            uploaded => uploaded?,
        };
        let keeps_index = manifest.index.is_some_and(|index| index.bytes <= INDEX_HERE_MAX_BYTES);
        // From here on it is there, and no more here.
        let mark = || write_atomic(&*shared.disk, &partition.dir().join(ARCHIVED), &manifest.encode());
        shared.space.with_reserve(mark)?;
        let (pages, bytes) = (manifest.pages.len(), manifest.stored_bytes());
        partition.set_remote(&shared.disk, Remote::new(manifest, &shared.archive), keeps_index);
        if !keeps_index {
            shared.disk.remove_file(&partition.dir().join("index"))?;
        }
        let name = partition.id.name(&partition.class);
        shared.telemetry.log_archived_partitions.inc();
        shared.telemetry.log_archived_bytes.inc_by(bytes);
        tracing::info!(partition = name, pages, bytes, "log partition archived");
        Ok(())
    }

    /// Copies all of a partition, and answers the manifest that stands there.
    fn upload(&self, partition: &Partition) -> Result<Manifest, ArchiveError> {
        let (shared, bucket) = (&self.shared, &*self.shared.archive.bucket);
        let name = partition.id.name(&partition.class);
        let known = manifests_of(bucket, &shared.store_id, &name)?;
        let mark = partition.dir().join(ARCHIVING);
        if !shared.disk.exists(&mark)? {
            if !known.is_empty() {
                return Err(ArchiveError::Foreign(name));
            }
            // Should it expire before it is all there, what is there has to go as well.
            shared.space.with_reserve(|| write_atomic(&*shared.disk, &mark, b""))?;
        }
        // It may be there of an attempt that failed before it was durable.
        shared.disk.sync_dir(partition.dir())?;
        let generation = known.last().map_or(1, |last| last + 1);
        let mut manifest = Manifest::new(&shared.store_id, partition.id, &partition.class, generation);
        manifest.set_lost(&partition.lost());
        for page in partition.pages() {
            if self.is_stopping() {
                return Err(ArchiveError::Stopped);
            }
            let checked = self.upload_page(&manifest, &page);
            let checked = checked.map_err(|error| match error {
                ArchiveError::Page(_, error) => ArchiveError::Page(name.clone(), error),
                other => other,
            })?;
            manifest.add(&page.summary, &checked);
        }
        if let Some(index) = partition.index() {
            let bytes = index.read(&*shared.disk)?;
            let entry =
                ArchivedIndex { generation, bytes: bytes.len() as u64, crc32c: crc32c::crc32c(&bytes) };
            put_checked(bucket, &manifest.index_key(&entry), bytes)?;
            manifest.index = Some(entry);
        }
        put_checked(bucket, &manifest.key(), manifest.encode())?;
        shared.archive.forget_others(&manifest, &known)?;
        Ok(manifest)
    }

    fn upload_page(&self, manifest: &Manifest, page: &PageFile) -> Result<Checked, ArchiveError> {
        let shared = &self.shared;
        let bytes = page.read(&*shared.disk)?;
        let (bytes, _, checked) = check_page(page.summary.number, bytes).map_err(|error| match error {
            PageError::Read(error) => ArchiveError::Disk(error),
            damaged @ PageError::Damaged(_) => ArchiveError::Page(String::new(), damaged),
        })?;
        put_checked(&*shared.archive.bucket, &manifest.page_key(page.summary.number), bytes)?;
        Ok(checked)
    }

    /// Removes from the archive what has expired here.
    fn remove_gone(&self) -> Result<(), ArchiveError> {
        let shared = &self.shared;
        for name in shared.disk.list(&shared.dir)? {
            let Some(partition) = name.strip_prefix(GONE) else { continue };
            let dir = shared.dir.join(&name);
            let store = store_of(&*shared.disk, &dir)?.unwrap_or_else(|| shared.store_id.clone());
            if is_marked(&*shared.disk, &dir)? {
                shared.archive.remove(&store, partition)?;
            }
            shared.disk.remove_dir_all(&dir)?;
            shared.disk.sync_dir(&shared.dir)?;
        }
        Ok(())
    }
}

/// Whether an archive may have objects of a partition.
pub(in crate::logs) fn is_marked(disk: &dyn crate::fs::Disk, dir: &Path) -> io::Result<bool> {
    Ok(disk.exists(&dir.join(ARCHIVING))? || disk.exists(&dir.join(ARCHIVED))?)
}

/// Under whose identity a partition was archived.
fn store_of(disk: &dyn crate::fs::Disk, dir: &Path) -> io::Result<Option<String>> {
    let path: PathBuf = dir.join(ARCHIVED);
    if !disk.exists(&path)? {
        return Ok(None);
    }
    let manifest = Manifest::decode(&crate::fs::read_all(disk, &path, MANIFEST_MAX_BYTES)?);
    Ok(manifest.ok().map(|manifest| manifest.store))
}

/// The generations of manifests of a partition, ascending.
pub(super) fn manifests_of(
    bucket: &dyn Bucket,
    store: &str,
    partition: &str,
) -> Result<Vec<u32>, BucketError> {
    let listed = bucket.list(&manifests_prefix(store, partition))?;
    let mut generations: Vec<u32> =
        listed.iter().filter_map(|one| Some(of_manifest_key(&one.key)?.2)).collect();
    generations.sort_unstable();
    Ok(generations)
}

impl Archive {
    /// Removes older manifests of a partition, and then what the newest does not name.
    pub(super) fn forget_others(&self, newest: &Manifest, older: &[u32]) -> Result<(), BucketError> {
        for generation in older {
            self.bucket.delete(&super::manifest::manifest_key(
                &newest.store,
                &newest.partition,
                *generation,
            ))?;
        }
        let keys = newest.keys();
        for listed in self.bucket.list(&newest.pages_prefix())? {
            if !keys.contains(&listed.key) {
                self.bucket.delete(&listed.key)?;
            }
        }
        Ok(())
    }

    /// Removes a partition: first what makes it one.
    fn remove(&self, store: &str, partition: &str) -> Result<(), BucketError> {
        let manifests = self.bucket.list(&manifests_prefix(store, partition))?;
        let pages = self.bucket.list(&pages_prefix(store, partition))?;
        manifests.iter().chain(&pages).try_for_each(|listed| self.bucket.delete(&listed.key))
    }
}

/// With more than this share of what may be used in use, partitions are archived before they are old enough.
const PRESSED: f64 = 0.8;

impl Logs {
    /// Partitions to archive, oldest first: those that are old enough, and those that would soon have to go for want of
    /// room.
    fn due(&self, now: LogTime) -> io::Result<Vec<Arc<Partition>>> {
        let Some(options) = &self.options.archive else { return Ok(Vec::new()) };
        let partitions = self.shared.partitions();
        let here = |one: &&Arc<Partition>| one.remote().is_none();
        let is_ready =
            |one: &&Arc<Partition>| one.is_closed() && one.index().is_some() && !one.pages().is_empty();
        let oldest = now.minus(options.after);
        let mut due: Vec<Arc<Partition>> = partitions
            .iter()
            .filter(here)
            .filter(is_ready)
            .filter(|one| one.id.day.end() <= oldest)
            .cloned()
            .collect();
        // As much as expiry would take next.
        for partition in self.pressed(&partitions)? {
            if is_ready(&&partition) && !due.iter().any(|one| one.id == partition.id) {
                due.push(partition);
            }
        }
        Ok(due)
    }

    /// Partitions that bounds of bytes, or the disk's, would remove soon.
    fn pressed(&self, partitions: &[Arc<Partition>]) -> io::Result<Vec<Arc<Partition>>> {
        let mut pressed = Vec::new();
        let here: Vec<&Arc<Partition>> = partitions.iter().filter(|one| one.remote().is_none()).collect();
        let mut classes: Vec<_> = here.iter().map(|one| Arc::clone(&one.class)).collect();
        classes.sort();
        classes.dedup();
        for class in classes {
            let Some(max) = self.bounds(&class).bytes else { continue };
            let of_class = || here.iter().filter(|one| one.class == class);
            let mut bytes: u64 = of_class().map(|one| one.stored_bytes()).sum();
            for one in of_class() {
                if bytes as f64 <= PRESSED * max as f64 {
                    break;
                }
                bytes = bytes.saturating_sub(one.stored_bytes());
                pressed.push(Arc::clone(one));
            }
        }
        if let Some(share) = self.options.disk_max_share {
            let room = self.shared.disk.room(&self.shared.dir)?;
            let mut used = room.total.saturating_sub(room.free) as f64;
            for one in here {
                if used <= PRESSED * share * room.total as f64 {
                    break;
                }
                used -= one.stored_bytes() as f64;
                pressed.push(Arc::clone(one));
            }
        }
        Ok(pressed)
    }
}
