//! Pages of a partition before they are read: where they are, what is known of them, and those that were set aside.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use binnacle_model::LogTime;

use super::archive::{Object, Place};
use super::page::{PageError, SealedPage, Shared, Source};
use crate::bytes::Reader;
use crate::fs::Disk;
use crate::wal::Sequence;

/// What is known of a page without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) number: u32,
    pub(crate) rows: u64,
    pub(crate) raw_bytes: u64,
    pub(crate) stored_bytes: u64,
    pub(crate) first: LogTime,
    pub(crate) last: LogTime,
    pub(crate) sequences: (Sequence, Sequence),
}

/// A page on the disk or in an archive. What was read of it is kept as long as there is room.
#[derive(Debug)]
pub(crate) struct PageFile {
    pub(crate) summary: Summary,
    place: Place,
    open: Mutex<Option<Arc<SealedPage>>>,
    /// Where its file is removed as soon as nobody reads it any more.
    doomed: Mutex<Option<Arc<dyn Disk>>>,
    /// Its partition is gone.
    is_gone: AtomicBool,
}

impl Drop for PageFile {
    fn drop(&mut self) {
        let doomed = self.doomed.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(disk) = doomed
            && let Place::Disk(path) = &self.place
            && let Err(error) = disk.remove_file(path)
            && !(error.kind() == io::ErrorKind::NotFound && self.is_gone())
        {
            tracing::warn!(page = %path.display(), %error, "a page that was written anew is left; the next start removes it");
        }
    }
}

impl PageFile {
    pub(super) fn new(summary: Summary, place: Place) -> Self {
        Self {
            summary,
            place,
            open: Mutex::default(),
            doomed: Mutex::default(),
            is_gone: AtomicBool::new(false),
        }
    }

    /// Has the file removed once the last search has let go of it.
    pub(super) fn doom(&self, disk: Arc<dyn Disk>) {
        *self.doomed.lock().unwrap_or_else(PoisonError::into_inner) = Some(disk);
    }

    /// Says that its partition is gone.
    pub(super) fn mark_gone(&self) {
        self.is_gone.store(true, Ordering::Relaxed);
    }

    /// Reads its head once more, whatever is kept of it.
    pub(super) fn read_anew(&self, disk: &dyn Disk) -> Result<SealedPage, PageError> {
        read_page(disk, &self.place, &Mutex::default())
    }

    /// Whether it went with its partition.
    pub(crate) fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Relaxed)
    }

    /// The page, opened if it is not.
    pub(crate) fn open(&self, disk: &dyn Disk, shared: &Mutex<Shared>) -> Result<Arc<SealedPage>, PageError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(page) = &*open {
            return Ok(Arc::clone(page));
        }
        if self.object().is_some() {
            // An archive may take long, and others ask what weighs how much.
            drop(open);
            let page = Arc::new(read_page(disk, &self.place, shared)?);
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            return Ok(Arc::clone(open.get_or_insert(page)));
        }
        let page = Arc::new(read_page(disk, &self.place, shared)?);
        *open = Some(Arc::clone(&page));
        Ok(page)
    }

    /// As messages name it.
    pub(crate) fn path(&self) -> &Path {
        self.place.path()
    }

    /// The object that it is, if it is in an archive.
    pub(crate) fn object(&self) -> Option<&Arc<Object>> {
        self.place.object()
    }

    /// Its bytes.
    pub(super) fn read(&self, disk: &dyn Disk) -> io::Result<Vec<u8>> {
        let file = self.place.open(disk)?;
        let mut bytes = vec![0; usize::try_from(file.size()?).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// Bytes of memory of what was read.
    pub(crate) fn weight(&self) -> usize {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.as_ref().map_or(0, |page| page.weight())
    }

    /// Forgets what was read.
    pub(crate) fn forget(&self) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

pub(super) fn read_page(
    disk: &dyn Disk,
    place: &Place,
    shared: &Mutex<Shared>,
) -> Result<SealedPage, PageError> {
    let file = place.open(disk)?;
    let length = file.size()?;
    let source = Source { file, offset: 0, length };
    SealedPage::open(source, shared)
}

pub(super) fn summary(number: u32, page: &SealedPage, stored_bytes: u64) -> Summary {
    let (first, last) = page.span();
    let (rows, raw_bytes, sequences) = (page.rows(), page.raw_bytes(), page.sequences());
    Summary { number, rows, raw_bytes, stored_bytes, first, last, sequences }
}

/// A page that was set aside. What is not known of it is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) rows: Option<u64>,
    pub(crate) span: Option<(LogTime, LogTime)>,
}

impl Lost {
    /// The name of the file of a page that is set aside: it keeps what was known.
    pub(super) fn name(self, number: u32) -> String {
        match (self.rows, self.span) {
            (Some(rows), Some((first, last))) => format!("{number:06}.{rows}.{}.{}.damaged", first.0, last.0),
            _ => format!("{number:06}.damaged"),
        }
    }

    pub(super) fn of_name(name: &str) -> Option<Self> {
        let mut parts = name.strip_suffix(".damaged")?.split('.').skip(1);
        let mut number = || parts.next()?.parse::<i64>().ok();
        let (rows, first, last) = (number(), number(), number());
        let span = first.zip(last).map(|(first, last)| (LogTime(first), LogTime(last)));
        Some(Self { rows: rows.and_then(|rows| u64::try_from(rows).ok()), span })
    }
}

pub(super) fn read_summary(reader: &mut Reader<'_>) -> Option<Summary> {
    Some(Summary {
        number: u32::try_from(reader.varint()?).ok()?,
        rows: reader.varint()?,
        raw_bytes: reader.varint()?,
        stored_bytes: reader.varint()?,
        first: LogTime(reader.zigzag()?),
        last: LogTime(reader.zigzag()?),
        sequences: (Sequence(reader.varint()?), Sequence(reader.varint()?)),
    })
}
