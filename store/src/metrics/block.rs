//! Blocks: immutable samples of two hours, with an index. Format: `store/docs/format/block.md`.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use binnacle_model::storage::HistogramSample;
use binnacle_model::{Interner, Labels, Matcher, Sample, TimeRange, Timestamp};

use super::postings::{Candidates, Postings};
use super::{SampleKind, chunk, histograms};
use crate::bytes::{Reader, put_text, put_varint, put_zigzag};
use crate::fs::{Disk, ReadFile, WriteFile};
use crate::header::{self, HEADER_BYTES, HeaderError, MAGIC_BLOCK};
use crate::wal::WalFileId;

const FOOTER_BYTES: usize = 72;

/// Set in the size of a chunk that holds histograms.
const KIND_HISTOGRAMS: u64 = 1 << 40;

/// An index is held in memory, so that a damaged size must not ask for more than a machine has.
const INDEX_MAX_BYTES: u64 = 1 << 30;

/// Writes go to the disk in pieces of this size.
const WRITE_BUFFER_BYTES: usize = 1 << 20;

/// Why a block could not be used.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// The disk refused. Retrying may help; the block itself is not suspect.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which block.
        path: PathBuf,
        /// What the disk said.
        #[source]
        cause: io::Error,
    },
    /// The bytes contradict the format. Quarantine the block and carry on without it.
    #[error("{} is corrupt: {reason}", path.display())]
    Corrupt {
        /// Which block.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
    /// A newer release wrote it. Refuse to start rather than misread it.
    #[error("{} has format version {found}, newer than {}; start the release that wrote it, or a newer one",
        path.display(), header::VERSION)]
    TooNew {
        /// Which block.
        path: PathBuf,
        /// Its version.
        found: u8,
    },
}

/// Where replay may leave out samples; see the format page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) before: Timestamp,
    pub(crate) wal_file: WalFileId,
}

impl Cut {
    pub(crate) const NONE: Self = Self { before: Timestamp(i64::MIN), wal_file: WalFileId(0) };
}

#[derive(Debug, Clone, Copy)]
struct Footer {
    range: TimeRange,
    cut: Cut,
    index_offset: u64,
    index_bytes: u64,
    index_crc: u32,
    samples: u64,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct ChunkMeta {
    offset: u64,
    bytes: u32,
    range: TimeRange,
    kind: SampleKind,
}

#[derive(Debug)]
struct IndexedSeries {
    labels: Labels,
    chunks: Vec<ChunkMeta>,
}

/// What a block knows of its series, held in memory while queries ask for it.
#[derive(Debug, Default)]
struct Index {
    series: Vec<IndexedSeries>,
    postings: Postings<u32>,
}

/// An immutable block, open for reading.
pub(crate) struct Block {
    path: PathBuf,
    /// Ascends with each block written.
    pub(crate) number: u64,
    file: Arc<dyn ReadFile>,
    footer: Footer,
    index: Mutex<Option<Arc<Index>>>,
    used: AtomicBool,
}

/// The name of a block's file.
pub(crate) fn file_name(number: u64, range: TimeRange) -> String {
    format!("{number:010}-{}-{}.block", range.start.0, range.end.0)
}

/// The number in the name of a block's file, if it is one.
pub(crate) fn number_of(name: &str) -> Option<u64> {
    name.strip_suffix(".block")?.split('-').next()?.parse().ok()
}

impl Block {
    /// Opens a block and checks its header and footer.
    pub(crate) fn open(disk: &dyn Disk, path: &Path, number: u64) -> Result<Self, BlockError> {
        let read = |cause| BlockError::Read { path: path.to_path_buf(), cause };
        let file = disk.open(path).map_err(read)?;
        let size = file.size().map_err(read)?;
        let corrupt = |reason| BlockError::Corrupt { path: path.to_path_buf(), reason };
        if size < (HEADER_BYTES + FOOTER_BYTES) as u64 {
            return Err(corrupt("it is shorter than a header and a footer"));
        }
        let mut head = [0; HEADER_BYTES];
        file.read_exact_at(&mut head, 0).map_err(read)?;
        header::decode(&head, MAGIC_BLOCK).map_err(|error| match error {
            HeaderError::TooNew(found) => BlockError::TooNew { path: path.to_path_buf(), found },
            HeaderError::Magic | HeaderError::Damaged => corrupt("its header is damaged"),
        })?;
        let mut foot = [0; FOOTER_BYTES];
        file.read_exact_at(&mut foot, size - FOOTER_BYTES as u64).map_err(read)?;
        let footer = Footer::decode(&foot).ok_or_else(|| corrupt("its footer is damaged"))?;
        let end = footer.index_offset.checked_add(footer.index_bytes);
        if end != Some(size - FOOTER_BYTES as u64) || footer.index_bytes > INDEX_MAX_BYTES {
            return Err(corrupt("its footer points outside of the file"));
        }
        let path = path.to_path_buf();
        let index = Mutex::new(None);
        Ok(Self { path, number, file, footer, index, used: AtomicBool::new(false) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn range(&self) -> TimeRange {
        self.footer.range
    }

    pub(crate) fn cut(&self) -> Cut {
        self.footer.cut
    }

    pub(crate) fn samples(&self) -> u64 {
        self.footer.samples
    }

    /// The series that satisfy every matcher, each with its chunks that touch `range`.
    pub(crate) fn select(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> Result<Vec<(Labels, Vec<ChunkMeta>)>, BlockError> {
        if !self.footer.range.overlaps(range) {
            return Ok(Vec::new());
        }
        let index = self.index()?;
        let numbers = match index.postings.candidates(matchers) {
            Candidates::Some(numbers) => numbers,
            Candidates::All => (0..index.series.len() as u32).collect(),
        };
        let mut found = Vec::new();
        for number in numbers {
            let series = &index.series[number as usize];
            if binnacle_model::matcher::all_match(matchers, &series.labels) {
                let touching = series.chunks.iter().filter(|chunk| chunk.range.overlaps(range));
                let chunks: Vec<ChunkMeta> = touching.copied().collect();
                if !chunks.is_empty() {
                    found.push((series.labels.clone(), chunks));
                }
            }
        }
        Ok(found)
    }

    /// Adds what a chunk holds to `samples` or to `histograms`.
    pub(crate) fn read(
        &self,
        meta: ChunkMeta,
        samples: &mut Vec<Sample>,
        histograms: &mut Vec<HistogramSample>,
    ) -> Result<(), BlockError> {
        let mut bytes = vec![0; meta.bytes as usize + 4];
        self.file
            .read_exact_at(&mut bytes, meta.offset)
            .map_err(|cause| BlockError::Read { path: self.path.clone(), cause })?;
        let (crc, bytes) = bytes.split_at(4);
        if crc != crc32c::crc32c(bytes).to_le_bytes() {
            return Err(self.corrupt("a chunk's checksum is wrong"));
        }
        let decoded = match meta.kind {
            SampleKind::Floats => chunk::decode(bytes, samples),
            SampleKind::Histograms => histograms::decode_chunk(bytes, histograms),
        };
        decoded.ok_or_else(|| self.corrupt("a chunk cannot be decoded"))
    }

    /// Lets go of the index if no query has asked for it since the last call.
    pub(crate) fn rest(&self) {
        if !self.used.swap(false, Ordering::Relaxed) {
            *self.index.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    fn corrupt(&self, reason: &'static str) -> BlockError {
        BlockError::Corrupt { path: self.path.clone(), reason }
    }

    fn index(&self) -> Result<Arc<Index>, BlockError> {
        self.used.store(true, Ordering::Relaxed);
        let mut slot = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = &*slot {
            return Ok(Arc::clone(index));
        }
        let mut bytes = vec![0; self.footer.index_bytes as usize];
        self.file
            .read_exact_at(&mut bytes, self.footer.index_offset)
            .map_err(|cause| BlockError::Read { path: self.path.clone(), cause })?;
        if crc32c::crc32c(&bytes) != self.footer.index_crc {
            return Err(self.corrupt("its index has a wrong checksum"));
        }
        let index = decode_index(&bytes, self.footer.range.start)
            .ok_or_else(|| self.corrupt("its index cannot be decoded"))?;
        let index = Arc::new(index);
        *slot = Some(Arc::clone(&index));
        Ok(index)
    }
}

impl Footer {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FOOTER_BYTES);
        for number in [self.range.start.0, self.range.end.0, self.cut.before.0] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for number in [self.cut.wal_file.0, self.index_offset, self.index_bytes] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.index_crc.to_le_bytes());
        out.extend_from_slice(&self.samples.to_le_bytes());
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(&MAGIC_BLOCK);
        out.extend_from_slice(&[0; 4]);
        out
    }

    fn decode(bytes: &[u8; FOOTER_BYTES]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let range = TimeRange { start: Timestamp(reader.i64()?), end: Timestamp(reader.i64()?) };
        let cut = Cut { before: Timestamp(reader.i64()?), wal_file: WalFileId(reader.u64()?) };
        let (index_offset, index_bytes) = (reader.u64()?, reader.u64()?);
        let (index_crc, samples) = (reader.u32()?, reader.u64()?);
        let crc = reader.u32()?;
        let sound = crc == crc32c::crc32c(&bytes[..60]) && reader.bytes(4)? == MAGIC_BLOCK;
        sound.then_some(Self { range, cut, index_offset, index_bytes, index_crc, samples })
    }
}

fn decode_index(bytes: &[u8], start: Timestamp) -> Option<Index> {
    let mut reader = Reader::new(bytes);
    let mut interner = Interner::default();
    let mut symbols = Vec::new();
    for _ in 0..reader.count()? {
        symbols.push(interner.intern(reader.text()?));
    }
    let mut index = Index::default();
    let mut offset = HEADER_BYTES as u64;
    for number in 0..reader.count()? {
        let mut pairs = Vec::new();
        for _ in 0..reader.count()? {
            let name = symbols.get(usize::try_from(reader.varint()?).ok()?)?;
            let value = symbols.get(usize::try_from(reader.varint()?).ok()?)?;
            pairs.push((Arc::clone(name), Arc::clone(value)));
        }
        let labels = Labels::new(pairs).ok()?;
        let mut chunks = Vec::new();
        let mut last = start.0;
        for _ in 0..reader.count()? {
            let size = reader.varint()?;
            let kind = if size & KIND_HISTOGRAMS == 0 { SampleKind::Floats } else { SampleKind::Histograms };
            let bytes = u32::try_from(size & !KIND_HISTOGRAMS).ok()?;
            let first = last.checked_add(reader.zigzag()?)?;
            last = first.checked_add_unsigned(reader.varint()?)?;
            let range = TimeRange { start: Timestamp(first), end: Timestamp(last) };
            chunks.push(ChunkMeta { offset, bytes, range, kind });
            offset = offset.checked_add(u64::from(bytes) + 4)?;
        }
        index.postings.add(u32::try_from(number).ok()?, &labels);
        index.series.push(IndexedSeries { labels, chunks });
    }
    reader.is_empty().then_some(index)
}

/// One series as it goes into a block: labels, and chunks ascending by time.
pub(crate) struct NewSeries {
    pub(crate) labels: Labels,
    pub(crate) chunks: Vec<NewChunk>,
}

/// An encoded chunk.
pub(crate) struct NewChunk {
    pub(crate) bytes: Vec<u8>,
    pub(crate) range: TimeRange,
    pub(crate) samples: usize,
    pub(crate) kind: SampleKind,
}

/// Writes a block of `series`, ascending by labels, and publishes it.
pub(crate) fn write(
    disk: &dyn Disk,
    dir: &Path,
    number: u64,
    cut: Cut,
    series: &[NewSeries],
) -> io::Result<PathBuf> {
    debug_assert!(series.is_sorted_by(|a, b| a.labels < b.labels), "series out of order");
    let ranges = || series.iter().flat_map(|one| one.chunks.iter().map(|chunk| chunk.range));
    let start = ranges().map(|range| range.start).min().unwrap_or_default();
    let end = ranges().map(|range| range.end).max().unwrap_or_default();
    let range = TimeRange { start, end };
    let path = dir.join(file_name(number, range));
    let temporary = path.with_extension("tmp");
    let mut out = Buffered { file: disk.create(&temporary)?, buffer: Vec::new(), written: 0 };
    out.append(&header::encode(MAGIC_BLOCK))?;
    let mut samples = 0;
    for chunk in series.iter().flat_map(|one| &one.chunks) {
        out.append(&crc32c::crc32c(&chunk.bytes).to_le_bytes())?;
        out.append(&chunk.bytes)?;
        samples += chunk.samples as u64;
    }
    let index = encode_index(series, start);
    let footer = Footer {
        range,
        cut,
        index_offset: out.written,
        index_bytes: index.len() as u64,
        index_crc: crc32c::crc32c(&index),
        samples,
    };
    out.append(&index)?;
    out.append(&footer.encode())?;
    out.flush()?;
    out.file.sync()?;
    disk.rename(&temporary, &path)?;
    disk.sync_dir(dir)?;
    Ok(path)
}

fn encode_index(series: &[NewSeries], start: Timestamp) -> Vec<u8> {
    let texts: BTreeSet<&str> =
        series.iter().flat_map(|one| &one.labels).flat_map(|l| [&*l.name, &*l.value]).collect();
    let numbers: HashMap<&str, u64> = texts.iter().zip(0u64..).map(|(text, n)| (*text, n)).collect();
    let mut out = Vec::new();
    put_varint(&mut out, texts.len() as u64);
    texts.iter().for_each(|text| put_text(&mut out, text));
    put_varint(&mut out, series.len() as u64);
    for one in series {
        put_varint(&mut out, one.labels.len() as u64);
        for label in &one.labels {
            put_varint(&mut out, numbers[&*label.name]);
            put_varint(&mut out, numbers[&*label.value]);
        }
        put_varint(&mut out, one.chunks.len() as u64);
        let mut last = start.0;
        for chunk in &one.chunks {
            let kind = if chunk.kind == SampleKind::Histograms { KIND_HISTOGRAMS } else { 0 };
            put_varint(&mut out, chunk.bytes.len() as u64 | kind);
            put_zigzag(&mut out, chunk.range.start.0 - last);
            put_varint(&mut out, (chunk.range.end.0 - chunk.range.start.0) as u64);
            last = chunk.range.end.0;
        }
    }
    out
}

struct Buffered {
    file: Box<dyn WriteFile>,
    buffer: Vec<u8>,
    written: u64,
}

impl Buffered {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.buffer.extend_from_slice(bytes);
        self.written += bytes.len() as u64;
        if self.buffer.len() >= WRITE_BUFFER_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.append(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}
