//! Archived objects as files to be read: in chunks, of which those that were read last stay in memory.
//!
//! Chunks are counted from the end of an object, since a page's directory, head and filter stand there: one request reads
//! them, and one more the rest of a page that has something.

use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::Archive;
use crate::fs::{Disk, ReadFile};
use crate::header::{self, HEADER_BYTES, MAGIC_LOG_PAGE};

/// Bytes of a chunk: the end of a full page with its head and its filter.
pub(super) const CHUNK_BYTES: u64 = 256 * 1024;

/// Chunks that are read at once when more than the end of a page is wanted: all of most pages.
const READ_AHEAD_CHUNKS: u64 = 16;

/// Gives every object of this process a number.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// An object that never changes.
#[derive(Debug)]
pub(crate) struct Object {
    archive: Arc<Archive>,
    key: String,
    bytes: u64,
    /// Of all objects that this process knows.
    number: u64,
    /// What its first bytes are, so that nobody has to ask for them.
    header: Option<[u8; HEADER_BYTES]>,
    /// Held by whoever asks the bucket: two threads that want the same bytes ask once.
    asking: Mutex<()>,
}

impl Object {
    /// A page of some version of the format.
    pub(super) fn page(archive: &Arc<Archive>, key: String, bytes: u64, version: u8) -> Self {
        let header = Some(header::encode(MAGIC_LOG_PAGE, version));
        Self { header, ..Self::index(archive, key, bytes) }
    }

    pub(super) fn index(archive: &Arc<Archive>, key: String, bytes: u64) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { archive: Arc::clone(archive), key, bytes, number, header: None, asking: Mutex::default() }
    }

    /// The archive that it is in.
    pub(crate) fn archive(&self) -> &Arc<Archive> {
        &self.archive
    }

    /// Whether its end is in memory.
    pub(crate) fn is_warm(&self) -> bool {
        self.archive.cache.has((self.number, 0))
    }

    /// Reads its end into memory. An error comes again when it is read.
    pub(crate) fn warm(&self) {
        let _ = self.chunks(0..=0);
    }

    /// How many chunks it has.
    fn count(&self) -> u64 {
        self.bytes.div_ceil(CHUNK_BYTES)
    }

    /// Where a chunk begins; the last one is shorter.
    fn start_of(&self, chunk: u64) -> u64 {
        self.bytes.saturating_sub((chunk + 1) * CHUNK_BYTES)
    }

    fn end_of(&self, chunk: u64) -> u64 {
        self.bytes - chunk * CHUNK_BYTES
    }

    /// The chunk that has the byte at `offset`.
    fn chunk_of(&self, offset: u64) -> u64 {
        (self.bytes - 1 - offset) / CHUNK_BYTES
    }

    /// Chunks, from memory or read in one request.
    fn chunks(&self, wanted: RangeInclusive<u64>) -> io::Result<Vec<Arc<[u8]>>> {
        let cache = &self.archive.cache;
        let mut found: Vec<Option<Arc<[u8]>>> =
            wanted.clone().map(|chunk| cache.get((self.number, chunk))).collect();
        let missing = |found: &[Option<Arc<[u8]>>]| {
            let all = wanted.clone().zip(found).filter(|(_, chunk)| chunk.is_none());
            all.map(|(number, _)| number).fold(None, |span: Option<(u64, u64)>, number| {
                Some(span.map_or((number, number), |(first, _)| (first, number)))
            })
        };
        let mut asking = None;
        if missing(&found).is_some() {
            asking = Some(self.asking.lock().unwrap_or_else(PoisonError::into_inner));
            found = wanted.clone().map(|chunk| cache.get((self.number, chunk))).collect();
        }
        let Some((first, last)) = missing(&found) else {
            self.archive.telemetry.log_archive_cache_hits.inc_by(found.len() as u64);
            return Ok(found.into_iter().flatten().collect());
        };
        let (first, last) = self.ahead(first, last);
        let (start, end) = (self.start_of(last), self.end_of(first));
        let bytes = self.archive.get(&self.key, start..end)?;
        for chunk in first..=last {
            let of_chunk = (self.start_of(chunk) - start) as usize..(self.end_of(chunk) - start) as usize;
            let arc: Arc<[u8]> = Arc::from(&bytes[of_chunk]);
            cache.put((self.number, chunk), Arc::clone(&arc));
            if wanted.contains(&chunk) {
                found[(chunk - wanted.start()) as usize] = Some(arc);
            }
        }
        drop(asking);
        self.archive.telemetry.log_archive_cache_bytes.set(cache.bytes() as i64);
        Ok(found.into_iter().flatten().collect())
    }

    /// The chunks to read where these are missing: of a page, behind its end, all that is not there yet.
    fn ahead(&self, first: u64, last: u64) -> (u64, u64) {
        if self.header.is_none() || last == 0 {
            return (first, last);
        }
        let window = first / READ_AHEAD_CHUNKS * READ_AHEAD_CHUNKS;
        let end = (last / READ_AHEAD_CHUNKS + 1) * READ_AHEAD_CHUNKS;
        let is_missing = |chunk: &u64| !self.archive.cache.has((self.number, *chunk));
        let all = window..end.min(self.count());
        let first = all.clone().find(is_missing).unwrap_or(first).min(first);
        (first, all.rev().find(is_missing).unwrap_or(last).max(last))
    }
}

/// An object as a file.
struct ObjectFile(Arc<Object>);

impl ReadFile for ObjectFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.bytes)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let object = &*self.0;
        let end = offset.checked_add(buffer.len() as u64).filter(|end| *end <= object.bytes);
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        if buffer.is_empty() {
            return Ok(());
        }
        if let Some(header) = object.header.as_ref().filter(|header| end <= header.len() as u64) {
            buffer.copy_from_slice(&header[offset as usize..end as usize]);
            return Ok(());
        }
        let wanted = object.chunk_of(end - 1)..=object.chunk_of(offset);
        for (chunk, bytes) in wanted.clone().zip(object.chunks(wanted)?) {
            let (start, of_chunk) = (object.start_of(chunk), object.end_of(chunk));
            let (from, to) = (start.max(offset), of_chunk.min(end));
            let source = &bytes[(from - start) as usize..(to - start) as usize];
            buffer[(from - offset) as usize..(to - offset) as usize].copy_from_slice(source);
        }
        Ok(())
    }
}

/// Where bytes are that never change.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// In a file.
    Disk(PathBuf),
    /// In an archive.
    Archive(Arc<Object>),
}

impl Place {
    pub(crate) fn open(&self, disk: &dyn Disk) -> io::Result<Arc<dyn ReadFile>> {
        match self {
            Self::Disk(path) => disk.open(path),
            Self::Archive(object) => Ok(Arc::new(ObjectFile(Arc::clone(object)))),
        }
    }

    /// As messages name it, and as nothing else is named.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Disk(path) => path,
            Self::Archive(object) => Path::new(&object.key),
        }
    }

    /// The object, if it is in an archive.
    pub(crate) fn object(&self) -> Option<&Arc<Object>> {
        match self {
            Self::Disk(_) => None,
            Self::Archive(object) => Some(object),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Trouble, archive_of};
    use super::super::{Bucket, DirBucket};
    use super::*;
    use crate::fs::SimDisk;

    proptest::proptest! {
        /// Whatever is read in whatever order, it is what a file would say, and little is asked for twice.
        #[test]
        fn an_object_reads_as_a_file(
            size in 1u64..40 * CHUNK_BYTES / 8,
            reads in proptest::collection::vec((0.0f64..1.0, 0.0f64..1.0), 1..12),
            is_page: bool,
        ) {
            let size = size * 8;
            let bytes: Vec<u8> = (0..size / 8).flat_map(|at| at.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()).collect();
            let mut bytes = bytes;
            if is_page {
                bytes[..8].copy_from_slice(&header::encode(MAGIC_LOG_PAGE, 2));
            }
            let disk: Arc<dyn Disk> = Arc::new(SimDisk::default());
            let bucket = Arc::new(Trouble::new(DirBucket::new(Arc::clone(&disk), Path::new("/b"))));
            bucket.put("k", bytes.clone()).unwrap();
            let archive = archive_of(bucket.clone(), 1 << 40);
            let object = if is_page { Object::page(&archive, "k".into(), size, 2) } else { Object::index(&archive, "k".into(), size) };
            let file = Place::Archive(Arc::new(object)).open(&*disk).unwrap();
            for (start, length) in &reads {
                let start = (start * size as f64) as u64;
                let length = (length * (size - start) as f64) as usize;
                let mut buffer = vec![0; length];
                file.read_exact_at(&mut buffer, start).unwrap();
                assert_eq!(&buffer[..], &bytes[start as usize..start as usize + length]);
            }
            assert!(bucket.reads() <= reads.len(), "one request at the most for each read");
            assert!(file.read_exact_at(&mut [0; 2], size - 1).is_err());
        }
    }
}
