//! Partitions: directories of pages, a window of intake time each.
//!
//! ```text
//! logs/p0000020780-000/        the first partition of that day of intake time
//! logs/p0000020780-001-audit/  one of the same day for lines of a class of retention
//!   000000.page …              sealed pages, numbered in the order in which they were written
//!   closed                     once nothing is added any more: what each page holds
//!   index                      which of the pages may have a word, an id, a label
//!   archiving                  copies of it may be in the archive
//!   archived                   all of it is there, and this is its manifest: pages here are of no more use
//! ```
//!
//! A page whose records of the log all lie within those of a page with a higher number was written anew as part of that
//! one: it is of no more use, and goes.

mod indexed;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use binnacle_model::LogTime;

use self::indexed::open_index;
use super::archive::{Archive, Manifest, ManifestError, Object, Place};
use super::class::{ClassName, is_class_name};
use super::index::{self, PartitionIndex};
use super::page::{PageError, PageReader, Shared};
pub(super) use super::page_file::summary;
pub(crate) use super::page_file::{Lost, PageFile, Summary};
use super::page_file::{read_page, read_summary};
use crate::bytes::{Reader, put_varint, put_zigzag};
use crate::fs::{Disk, read_all, write_atomic};
use crate::wal::Sequence;

const DAY_NS: i64 = 86_400 * 1_000_000_000;

/// What `closed` may have.
const CLOSED_MAX_BYTES: u64 = 64 << 20;

/// What each page of a closed partition holds. It stays when they go to the archive, so that the log is not asked for them
/// should the manifest be damaged.
const CLOSED: &str = "closed";

/// The manifest of a partition that is in the archive.
pub(super) const ARCHIVED: &str = "archived";

/// The same, once it turned out to be damaged: searches say so until the archive's is here.
pub(super) const ARCHIVED_DAMAGED: &str = "archived.damaged";

/// Says that an archive may have objects of the partition; with something in it, that it may have more than the manifest
/// names.
pub(super) const ARCHIVING: &str = "archiving";

/// Days since 1970, of intake time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Day(pub(crate) i64);

impl Day {
    pub(crate) fn of(received: LogTime) -> Self {
        Self(received.0.div_euclid(DAY_NS))
    }

    /// The first moment of the day.
    pub(crate) fn start(self) -> LogTime {
        LogTime(self.0.saturating_mul(DAY_NS))
    }

    /// The first moment after the day.
    pub(crate) fn end(self) -> LogTime {
        LogTime((self.0 + 1).saturating_mul(DAY_NS))
    }
}

/// Names a partition: its day, and the how-maniest of the day it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PartitionId {
    pub(crate) day: Day,
    pub(crate) part: u32,
}

impl PartitionId {
    /// The name of its directory.
    pub(crate) fn name(self, class: &str) -> String {
        let separator = if class.is_empty() { "" } else { "-" };
        format!("p{:010}-{:03}{separator}{class}", self.day.0, self.part)
    }

    pub(crate) fn of_name(name: &str) -> Option<(Self, ClassName)> {
        let (day, rest) = name.strip_prefix('p')?.split_once('-')?;
        let (part, class) = rest.split_once('-').map_or((rest, None), |(part, class)| (part, Some(class)));
        let class = class.map_or(Some(""), |class| is_class_name(class).then_some(class))?;
        Some((Self { day: Day(day.parse().ok()?), part: part.parse().ok()? }, ClassName::from(class)))
    }
}

/// A partition.
pub(crate) struct Partition {
    pub(crate) id: PartitionId,
    pub(crate) class: ClassName,
    dir: PathBuf,
    pages: RwLock<Vec<Arc<PageFile>>>,
    lost: RwLock<Vec<Lost>>,
    /// Of the next page. No number is given twice, also not that of a page that was set aside.
    next: AtomicU32,
    /// Whether it takes no more pages. Held while one is written.
    is_over: Mutex<bool>,
    /// Whether `closed` says what each page holds.
    is_closed: AtomicBool,
    index: RwLock<Option<Arc<PartitionIndex>>>,
    /// Once it is in an archive: where, and what of it.
    remote: RwLock<Option<Arc<Remote>>>,
    /// Held by whoever writes it anew, archives or removes it.
    work: Mutex<()>,
    /// Whether the archive may have more of it than its manifest names.
    needs_sweep: AtomicBool,
}

impl std::fmt::Debug for Partition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Partition({})", self.id.name(&self.class))
    }
}

/// A partition in an archive.
#[derive(Debug)]
pub(crate) struct Remote {
    pub(crate) manifest: Manifest,
    pub(crate) archive: Arc<Archive>,
    /// The index there.
    index: Option<Place>,
}

impl Remote {
    pub(super) fn new(manifest: Manifest, archive: &Arc<Archive>) -> Self {
        let index = manifest.index_object(archive).map(|object| Place::Archive(Arc::new(object)));
        Self { manifest, archive: Arc::clone(archive), index }
    }

    /// The pages there.
    pub(super) fn pages(&self) -> Vec<Arc<PageFile>> {
        let page = |(page, object): (Summary, Object)| {
            Arc::new(PageFile::new(page, Place::Archive(Arc::new(object))))
        };
        self.manifest.objects(&self.archive).map(page).collect()
    }
}

/// What opening a partition found.
pub(super) struct Opened {
    pub(super) partition: Partition,
    /// Pages that were set aside.
    pub(super) damaged: usize,
    /// Records of the log that its pages have.
    pub(super) covered: Vec<(Sequence, Sequence)>,
}

impl Partition {
    /// Makes the directory of a new partition.
    pub(super) fn create(
        disk: &dyn Disk,
        root: &Path,
        id: PartitionId,
        class: ClassName,
    ) -> io::Result<Self> {
        let dir = root.join(id.name(&class));
        disk.create_dir_all(&dir)?;
        Ok(Self {
            id,
            class,
            dir,
            pages: RwLock::default(),
            lost: RwLock::default(),
            next: AtomicU32::new(0),
            is_over: Mutex::new(false),
            is_closed: AtomicBool::new(false),
            index: RwLock::default(),
            remote: RwLock::default(),
            work: Mutex::default(),
            needs_sweep: AtomicBool::new(false),
        })
    }

    /// A partition of which all pages are in an archive; in `dir` there is an index at the most.
    pub(super) fn of_archive(
        (id, class): (PartitionId, ClassName),
        dir: PathBuf,
        remote: Remote,
        index: Option<PartitionIndex>,
    ) -> Self {
        Self {
            id,
            class,
            dir,
            pages: RwLock::new(remote.pages()),
            lost: RwLock::new(remote.manifest.lost()),
            next: AtomicU32::new(remote.manifest.next_number()),
            is_over: Mutex::new(true),
            is_closed: AtomicBool::new(true),
            index: RwLock::new(index.map(Arc::new)),
            remote: RwLock::new(Some(Arc::new(remote))),
            work: Mutex::default(),
            needs_sweep: AtomicBool::new(false),
        }
    }

    /// Reads what each page holds. Damaged pages are set aside after `before_setting_aside`.
    pub(super) fn open(
        disk: &dyn Disk,
        root: &Path,
        (id, class): (PartitionId, ClassName),
        shared: &Mutex<Shared>,
        archive: &Arc<Archive>,
        before_setting_aside: &dyn Fn() -> io::Result<()>,
    ) -> io::Result<Opened> {
        let dir = root.join(id.name(&class));
        if let Some(manifest) = archived(disk, &dir)? {
            let partition = Self::open_archived(disk, (id, class), dir, Remote::new(manifest, archive))?;
            let covered = partition.covered();
            return Ok(Opened { partition, damaged: 0, covered });
        }
        let closed = closed(disk, &dir)?;
        let is_closed = closed.is_some();
        let (mut pages, mut lost, mut damaged, mut next) = (Vec::<PageFile>::new(), Vec::new(), 0, 0);
        for name in disk.list(&dir)? {
            let path = dir.join(&name);
            if Path::new(&name).extension().is_some_and(|extension| extension == "tmp") {
                disk.remove_file(&path)?;
            }
            lost.extend(Lost::of_name(&name));
            let taken = name.split('.').next().and_then(|number| number.parse::<u32>().ok());
            next = next.max(taken.map_or(0, |taken| taken.saturating_add(1)));
            let Some(number) = name.strip_suffix(".page").and_then(|number| number.parse().ok()) else {
                continue;
            };
            let summary = match closed.as_ref().and_then(|closed| closed.get(&number)) {
                Some(summary) => *summary,
                None => match read_page(disk, &Place::Disk(path.clone()), shared) {
                    Ok(page) => summary(number, &page, disk.open(&path)?.size()?),
                    Err(PageError::Read(error)) if error.kind() != io::ErrorKind::UnexpectedEof => {
                        return Err(error);
                    }
                    Err(error) => {
                        before_setting_aside()?;
                        let unknown = Lost { rows: None, span: None };
                        set_aside(disk, &path, unknown.name(number), &error)?;
                        lost.push(unknown);
                        damaged += 1;
                        continue;
                    }
                },
            };
            pages.push(PageFile::new(summary, Place::Disk(path)));
        }
        let pages = remove_superseded(disk, pages)?.into_iter().map(Arc::new).collect();
        let (pages, lost) = (RwLock::new(pages), RwLock::new(lost));
        let (next, is_over) = (AtomicU32::new(next), Mutex::new(is_closed));
        let index = if is_closed { open_index(disk, &dir)? } else { None };
        let index = RwLock::new(index.map(Arc::new));
        let is_closed = AtomicBool::new(is_closed);
        let (remote, work, needs_sweep) = (RwLock::default(), Mutex::default(), AtomicBool::new(false));
        let partition =
            Self { id, class, dir, pages, lost, next, is_over, is_closed, index, remote, work, needs_sweep };
        let mut covered = partition.covered();
        if partition.lacks_manifest(disk)? {
            covered.extend(closed.iter().flat_map(BTreeMap::values).map(|summary| summary.sequences));
        }
        Ok(Opened { partition, damaged, covered })
    }

    fn covered(&self) -> Vec<(Sequence, Sequence)> {
        self.pages().iter().map(|page| page.summary.sequences).collect()
    }

    /// Opens what is here of a partition in an archive, and removes what a crash left of its pages.
    fn open_archived(
        disk: &dyn Disk,
        id: (PartitionId, ClassName),
        dir: PathBuf,
        remote: Remote,
    ) -> io::Result<Self> {
        for name in disk.list(&dir)? {
            if ![ARCHIVED, ARCHIVING, CLOSED, index::FILE].contains(&name.as_str())
                && !name.ends_with(".damaged")
            {
                disk.remove_file(&dir.join(&name))?;
            }
        }
        let index = open_index(disk, &dir)?;
        let mark = dir.join(ARCHIVING);
        let needs_sweep = disk.exists(&mark)? && disk.open(&mark)?.size()? > 0;
        let partition = Self::of_archive(id, dir, remote, index);
        partition.needs_sweep.store(needs_sweep, Ordering::Relaxed);
        Ok(partition)
    }

    /// Whether it is in an archive, and only that knows what it has.
    pub(super) fn lacks_manifest(&self, disk: &dyn Disk) -> io::Result<bool> {
        let may_lack = self.remote().is_none() && self.pages().is_empty() && !self.lost().is_empty();
        Ok(may_lack && disk.exists(&self.dir.join(ARCHIVED_DAMAGED))?)
    }

    /// Nothing of it is lost but what its manifest says.
    pub(super) fn found_again(&self) {
        let Some(remote) = self.remote() else { return };
        *self.is_over() = true;
        self.is_closed.store(true, Ordering::Relaxed);
        *self.lost.write().unwrap_or_else(PoisonError::into_inner) = remote.manifest.lost();
    }

    /// Whether the archive may have more of it than its manifest names.
    pub(super) fn needs_sweep(&self) -> bool {
        self.needs_sweep.load(Ordering::Relaxed)
    }

    /// Writes down that the archive may have more of it than its manifest names, or that it has no more.
    pub(super) fn set_needs_sweep(&self, disk: &dyn Disk, needs: bool) -> io::Result<()> {
        write_atomic(disk, &self.dir.join(ARCHIVING), if needs { b"sweep" } else { b"" })?;
        self.needs_sweep.store(needs, Ordering::Relaxed);
        Ok(())
    }

    /// Where it is, if it is in an archive.
    pub(crate) fn remote(&self) -> Option<Arc<Remote>> {
        self.remote.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Nobody else writes it anew, archives or removes it while this is held. `None`: somebody does.
    pub(super) fn try_work(&self) -> Option<MutexGuard<'_, ()>> {
        match self.work.try_lock() {
            Ok(guard) => Some(guard),
            Err(std::sync::TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(std::sync::TryLockError::WouldBlock) => None,
        }
    }

    /// The same, once nobody else does.
    pub(super) fn work(&self) -> MutexGuard<'_, ()> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Searches read it out of the archive from here on. Its pages here go once the last search has let go of them;
    /// so does its index unless that stays.
    pub(super) fn set_remote(&self, disk: &Arc<dyn Disk>, remote: Remote, keeps_index: bool) {
        let pages = remote.pages();
        let mut own = self.pages.write().unwrap_or_else(PoisonError::into_inner);
        own.iter().for_each(|page| page.doom(Arc::clone(disk)));
        *own = pages;
        if !keeps_index {
            *self.index.write().unwrap_or_else(PoisonError::into_inner) = None;
        }
        *self.remote.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(remote));
    }

    /// Whether it takes no more pages; while this is held, that does not change.
    pub(super) fn is_over(&self) -> MutexGuard<'_, bool> {
        self.is_over.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is closed: it takes no more pages, and small ones were joined.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed)
    }

    /// Removes a page of which nothing is wanted, also from under searches that have it.
    pub(super) fn remove_page(&self, disk: &dyn Disk, number: u32) -> io::Result<()> {
        let page = {
            let mut pages = self.pages.write().unwrap_or_else(PoisonError::into_inner);
            let at = pages.iter().position(|page| page.summary.number == number);
            at.map(|at| pages.remove(at))
        };
        if let Some(page) = page {
            page.mark_gone();
            disk.remove_file(page.path())?;
            disk.sync_dir(&self.dir)?;
        }
        Ok(())
    }

    /// Bytes of its files of pages.
    pub(crate) fn stored_bytes(&self) -> u64 {
        self.pages().iter().fold(0, |sum, page| sum.saturating_add(page.summary.stored_bytes))
    }

    /// Tells searches that have its pages that these go.
    pub(super) fn mark_gone(&self) {
        self.pages().iter().for_each(|page| page.mark_gone());
    }

    /// Puts pages in the place of others, or nothing. Searches that have these read them to their end.
    pub(super) fn replace(&self, disk: &Arc<dyn Disk>, old: &[u32], new: Option<PageFile>) {
        if let Some(new) = &new {
            self.next.store(new.summary.number + 1, Ordering::Relaxed);
        }
        let mut pages = self.pages.write().unwrap_or_else(PoisonError::into_inner);
        for page in pages.iter().filter(|page| old.contains(&page.summary.number)) {
            page.doom(Arc::clone(disk));
        }
        pages.retain(|page| !old.contains(&page.summary.number));
        pages.extend(new.map(Arc::new));
    }

    /// The pages, oldest first.
    pub(crate) fn pages(&self) -> Vec<Arc<PageFile>> {
        self.pages.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Bytes of messages.
    pub(crate) fn raw_bytes(&self) -> u64 {
        self.pages().iter().fold(0, |sum, page| sum.saturating_add(page.summary.raw_bytes))
    }

    /// Writes a page and makes it durable. It is not part of the partition before [`Self::add`].
    pub(super) fn write(
        &self,
        disk: &dyn Disk,
        shared: &Mutex<Shared>,
        bytes: &[u8],
    ) -> io::Result<PageFile> {
        // An attempt that failed may have left a file, in the place of which this one comes.
        let number = self.next.load(Ordering::Relaxed);
        let path = self.dir.join(format!("{number:06}.page"));
        write_atomic(disk, &path, bytes)?;
        let place = Place::Disk(path);
        let page = read_page(disk, &place, shared).map_err(io::Error::other)?;
        let summary = summary(number, &page, bytes.len() as u64);
        Ok(PageFile::new(summary, place))
    }

    pub(super) fn add(&self, page: PageFile) {
        self.next.store(page.summary.number + 1, Ordering::Relaxed);
        self.pages.write().unwrap_or_else(PoisonError::into_inner).push(Arc::new(page));
    }

    /// Takes a page that turned out to be damaged out of the way.
    pub(super) fn set_aside(&self, disk: &dyn Disk, number: u32, error: &PageError) -> io::Result<()> {
        let mut pages = self.pages.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = pages.iter().position(|page| page.summary.number == number) {
            let Summary { rows, first, last, .. } = pages[at].summary;
            let lost = Lost { rows: Some(rows), span: Some((first, last)) };
            set_aside(disk, pages[at].path(), lost.name(number), error)?;
            self.lost.write().unwrap_or_else(PoisonError::into_inner).push(lost);
            pages.remove(at);
        }
        Ok(())
    }

    /// Pages that were set aside.
    pub(crate) fn lost(&self) -> Vec<Lost> {
        self.lost.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads all of a page anew and compares.
    pub(super) fn verify(disk: &dyn Disk, page: &PageFile) -> Result<(), PageError> {
        PageReader::new(Arc::new(page.read_anew(disk)?)).verify()
    }

    /// Writes down what each page holds: no more will come.
    pub(super) fn close(&self, disk: &dyn Disk) -> io::Result<()> {
        let mut out = Vec::new();
        for page in self.pages() {
            let Summary { number, rows, raw_bytes, stored_bytes, first, last, sequences } = page.summary;
            put_varint(&mut out, u64::from(number));
            [rows, raw_bytes, stored_bytes].into_iter().for_each(|number| put_varint(&mut out, number));
            [first, last].into_iter().for_each(|time| put_zigzag(&mut out, time.0));
            [sequences.0, sequences.1].into_iter().for_each(|sequence| put_varint(&mut out, sequence.0));
        }
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        write_atomic(disk, &self.dir.join(CLOSED), &out)?;
        self.is_closed.store(true, Ordering::Relaxed);
        Ok(())
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }
}

/// Removes pages that were written anew as part of others.
fn remove_superseded(disk: &dyn Disk, mut pages: Vec<PageFile>) -> io::Result<Vec<PageFile>> {
    pages.sort_by_key(|page| page.summary.number);
    let spans: Vec<(u32, (Sequence, Sequence))> =
        pages.iter().map(|page| (page.summary.number, page.summary.sequences)).collect();
    let is_superseded = |page: &PageFile| {
        let (first, last) = page.summary.sequences;
        let is_within = |other: (Sequence, Sequence)| other.0 <= first && last <= other.1;
        spans.iter().any(|(number, span)| *number > page.summary.number && is_within(*span))
    };
    for page in pages.iter().filter(|page| is_superseded(page)) {
        disk.remove_file(page.path())?;
    }
    pages.retain(|page| !is_superseded(page));
    Ok(pages)
}

/// The manifest of a partition that is in an archive. A damaged one is set aside: the archive has another.
fn archived(disk: &dyn Disk, dir: &Path) -> io::Result<Option<Manifest>> {
    let path = dir.join(ARCHIVED);
    if !disk.exists(&path)? {
        return Ok(None);
    }
    match Manifest::decode(&read_all(disk, &path, CLOSED_MAX_BYTES)?) {
        Ok(manifest) => Ok(Some(manifest)),
        Err(error @ ManifestError::Damaged(_)) => {
            tracing::error!(dir = %dir.display(), %error, "it is read out of the archive again");
            disk.rename(&path, &dir.join(ARCHIVED_DAMAGED))?;
            disk.sync_dir(dir)?;
            Ok(None)
        }
        Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
    }
}

/// The summaries of a closed partition, if they are there and sound.
fn closed(disk: &dyn Disk, dir: &Path) -> io::Result<Option<BTreeMap<u32, Summary>>> {
    let path = dir.join(CLOSED);
    if !disk.exists(&path)? {
        return Ok(None);
    }
    let bytes = read_all(disk, &path, CLOSED_MAX_BYTES)?;
    let Some((rest, crc)) = bytes.split_last_chunk::<4>() else { return Ok(None) };
    if crc32c::crc32c(rest) != u32::from_le_bytes(*crc) {
        return Ok(None);
    }
    let mut reader = Reader::new(rest);
    let mut summaries = BTreeMap::new();
    while !reader.is_empty() {
        let Some(summary) = read_summary(&mut reader) else { return Ok(None) };
        summaries.insert(summary.number, summary);
    }
    Ok(Some(summaries))
}

fn set_aside(disk: &dyn Disk, path: &Path, name: String, error: &PageError) -> io::Result<()> {
    let aside = path.with_file_name(name);
    tracing::error!(
        %error, aside = %aside.display(),
        "a damaged log page was set aside; of its lines those are found that the write-ahead log still has"
    );
    disk.rename(path, &aside)?;
    disk.sync_dir(path.parent().unwrap_or(Path::new(".")))
}
