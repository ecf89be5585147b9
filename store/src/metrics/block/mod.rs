//! Blocks: immutable samples of two hours or a day, with an index. Format: `store/docs/format/block.md`.

mod fuzzing;
mod index;
mod v1;
mod writer;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use binnacle_model::storage::HistogramSample;
use binnacle_model::{Interner, Label, Labels, Matcher, Sample, TimeRange, Timestamp};

use super::chunk::{Scratch, times, values};
use super::{SampleKind, histograms};
use crate::bytes::Reader;
use crate::fs::{Disk, ReadFile};
use crate::header::{self, HEADER_BYTES, HeaderError, MAGIC_BLOCK};
use crate::wal::WalFileId;

#[doc(hidden)]
pub use fuzzing::try_block;
pub(crate) use index::{ChunkMeta, Unpacker};
use index::{GROUP_SERIES, Index, Row};
pub(crate) use writer::BlockWriter;

const FOOTER_BYTES: usize = 72;

/// Groups of so many series stay unpacked for the next query.
const KEPT_SERIES_MAX: u64 = 64;

/// A block is copied in pieces.
const COPY_BYTES: usize = 1 << 20;

/// Chunks that lie close together are read in one go of this size.
const READ_AHEAD_BYTES: u64 = 64 << 10;

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
        path.display(), header::BLOCK_VERSION)]
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

/// A series with its chunks.
pub(crate) type Chunked = (Labels, Vec<ChunkMeta>);

/// An immutable block, open for reading.
pub(crate) struct Block {
    path: PathBuf,
    /// Ascends with each block written.
    pub(crate) number: u64,
    file: Arc<dyn ReadFile>,
    bytes: u64,
    footer: Footer,
    shared: Arc<Mutex<Interner>>,
    index: Mutex<Option<Arc<Index>>>,
    used: AtomicBool,
    /// Someone met damage in it.
    damaged: AtomicBool,
}

/// What the name of a block's file ends with.
const ENDING: &str = "block";
/// That of a rollup.
const ROLLUP_ENDING: &str = "rollup";

/// The name of a block's file.
pub(crate) fn file_name(number: u64, range: TimeRange, is_rollup: bool) -> String {
    let ending = if is_rollup { ROLLUP_ENDING } else { ENDING };
    format!("{number:010}-{}-{}.{ending}", range.start.0, range.end.0)
}

/// The number in the name of a block's file, and its range, if it is one.
pub(crate) fn parse_name(name: &str) -> Option<(u64, TimeRange)> {
    let (name, ending) = name.rsplit_once('.')?;
    let (number, times) = name.split_once('-').filter(|_| matches!(ending, ENDING | ROLLUP_ENDING))?;
    // A time before 1970 has a sign of its own.
    let middle = times.get(1..)?.find('-')? + 1;
    let (start, end) = (times[..middle].parse().ok()?, times[middle + 1..].parse().ok()?);
    Some((number.parse().ok()?, TimeRange { start: Timestamp(start), end: Timestamp(end) }))
}

/// Opens the block in a file; one of release 1 is written anew in the format of today first.
pub(crate) fn open(
    disk: &dyn Disk,
    path: &Path,
    number: u64,
    shared: &Arc<Mutex<Interner>>,
) -> Result<Block, BlockError> {
    let file = Opened::new(disk, path)?;
    if file.version > 1 {
        return Ok(Block::new(file, number, Arc::clone(shared)));
    }
    let read = |cause| BlockError::Read { path: path.to_path_buf(), cause };
    let series = v1::series(&file)?;
    // Under the same name it replaces the old file in one step.
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut writer = BlockWriter::create(disk, dir, number).map_err(read)?;
    for (labels, samples, histograms) in &series {
        writer.add(labels, samples, histograms).map_err(read)?;
    }
    let written = writer.finish(file.footer.cut, &[]).map_err(read)?;
    if written != path {
        disk.remove_file(path).map_err(read)?;
    }
    tracing::info!(path = %written.display(), "block of an older release written anew");
    Ok(Block::new(Opened::new(disk, &written)?, number, Arc::clone(shared)))
}

/// A file of which the two ends are sound.
pub(crate) struct Opened {
    path: PathBuf,
    file: Arc<dyn ReadFile>,
    bytes: u64,
    footer: Footer,
    version: u8,
}

impl Opened {
    pub(crate) fn new(disk: &dyn Disk, path: &Path) -> Result<Self, BlockError> {
        let read = |cause| BlockError::Read { path: path.to_path_buf(), cause };
        let file = disk.open(path).map_err(read)?;
        let bytes = file.size().map_err(read)?;
        let corrupt = |reason| BlockError::Corrupt { path: path.to_path_buf(), reason };
        if bytes < (HEADER_BYTES + FOOTER_BYTES) as u64 {
            return Err(corrupt("it is shorter than a header and a footer"));
        }
        let mut head = [0; HEADER_BYTES];
        file.read_exact_at(&mut head, 0).map_err(read)?;
        let version =
            header::decode(&head, MAGIC_BLOCK, header::BLOCK_VERSION).map_err(|error| match error {
                HeaderError::TooNew(found) => BlockError::TooNew { path: path.to_path_buf(), found },
                HeaderError::Magic | HeaderError::Damaged => corrupt("its header is damaged"),
            })?;
        let mut foot = [0; FOOTER_BYTES];
        file.read_exact_at(&mut foot, bytes - FOOTER_BYTES as u64).map_err(read)?;
        let footer = Footer::decode(&foot).ok_or_else(|| corrupt("its footer is damaged"))?;
        let end = footer.index_offset.checked_add(footer.index_bytes);
        // What is read of the index is no longer than the file, and a checksum says whether it is one.
        if end != Some(bytes - FOOTER_BYTES as u64) {
            return Err(corrupt("its footer points outside of the file"));
        }
        Ok(Self { path: path.to_path_buf(), file, bytes, footer, version })
    }

    /// The block, if it is of today's format.
    pub(crate) fn into_block(self, number: u64, shared: Arc<Mutex<Interner>>) -> Result<Block, BlockError> {
        if self.version == 1 {
            let reason = "it is of release 1: a server that starts on it writes it anew";
            return Err(BlockError::Corrupt { path: self.path, reason });
        }
        Ok(Block::new(self, number, shared))
    }

    /// The bytes of the index, of which the checksum is right.
    fn index(&self) -> Result<Vec<u8>, BlockError> {
        index_bytes(&self.path, &*self.file, &self.footer)
    }
}

fn index_bytes(path: &Path, file: &dyn ReadFile, footer: &Footer) -> Result<Vec<u8>, BlockError> {
    let mut bytes = vec![0; footer.index_bytes as usize];
    file.read_exact_at(&mut bytes, footer.index_offset)
        .map_err(|cause| BlockError::Read { path: path.to_path_buf(), cause })?;
    if crc32c::crc32c(&bytes) != footer.index_crc {
        let reason = "its index has a wrong checksum";
        return Err(BlockError::Corrupt { path: path.to_path_buf(), reason });
    }
    Ok(bytes)
}

impl Block {
    fn new(opened: Opened, number: u64, shared: Arc<Mutex<Interner>>) -> Self {
        let Opened { path, file, bytes, footer, .. } = opened;
        let (used, damaged) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { path, number, file, bytes, footer, shared, index: Mutex::new(None), used, damaged }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it has rollups and no samples.
    pub(crate) fn is_rollup(&self) -> bool {
        self.path.extension().is_some_and(|ending| ending == ROLLUP_ENDING)
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

    /// Of its file.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether someone met damage in it.
    pub(crate) fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Relaxed)
    }

    /// Numbers of the blocks that were merged into this one.
    pub(crate) fn sources(&self) -> Result<Vec<u64>, BlockError> {
        Ok(self.index()?.sources.clone())
    }

    /// How many series it has.
    pub(crate) fn series(&self) -> Result<u32, BlockError> {
        Ok(self.index()?.len())
    }

    /// The series that satisfy every matcher, ascending, each with its chunks that touch `range`.
    pub(crate) fn select(&self, matchers: &[Matcher], range: TimeRange) -> Result<Vec<Chunked>, BlockError> {
        let mut found = Vec::new();
        self.each(matchers, range, &mut Unpacker::default(), |chunked| {
            found.push(chunked);
            true
        })?;
        Ok(found)
    }

    /// Hands them over one by one, for as long as `take` goes on.
    pub(crate) fn each(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        unpacker: &mut Unpacker,
        mut take: impl FnMut(Chunked) -> bool,
    ) -> Result<(), BlockError> {
        if !self.footer.range.overlaps(range) {
            return Ok(());
        }
        let index = self.index()?;
        let broken = || self.corrupt("its index contradicts itself");
        let numbers = index.select(matchers).ok_or_else(broken)?;
        // A query for a few series comes again; one for many would drive these out.
        unpacker.keeps = numbers.len() <= KEPT_SERIES_MAX;
        let mut next = numbers.iter().map(|number| number as usize).peekable();
        while let Some(number) = next.peek() {
            let group = number / GROUP_SERIES;
            let rows = index.group(group, unpacker, |at| next.next_if_eq(&at).is_some());
            if next.peek().is_some_and(|number| number / GROUP_SERIES == group) {
                return Err(broken());
            }
            for Row { labels, mut chunks } in rows.ok_or_else(broken)? {
                chunks.retain(|chunk| index.range(chunk).overlaps(range));
                if !chunks.is_empty() && !take((labels, chunks)) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Names of the labels of series that satisfy every matcher.
    pub(crate) fn label_names(&self, matchers: &[Matcher]) -> Result<BTreeSet<Arc<str>>, BlockError> {
        if matchers.is_empty() {
            return Ok(self.index()?.terms().map(|term| Arc::clone(&term.name)).collect());
        }
        let series = self.select(matchers, self.range())?;
        Ok(series.iter().flat_map(|(labels, _)| labels).map(|label| Arc::clone(&label.name)).collect())
    }

    /// Values of a label of series that satisfy every matcher.
    pub(crate) fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
    ) -> Result<BTreeSet<Arc<str>>, BlockError> {
        let values = |labels: &mut dyn Iterator<Item = &Label>| {
            labels.filter(|label| *label.name == *name).map(|label| Arc::clone(&label.value)).collect()
        };
        if matchers.is_empty() {
            return Ok(values(&mut self.index()?.terms()));
        }
        let series = self.select(matchers, self.range())?;
        Ok(values(&mut series.iter().flat_map(|(labels, _)| labels)))
    }

    /// The series of a group, ascending; `None` behind the last one.
    pub(crate) fn group(&self, number: usize) -> Result<Option<Vec<Chunked>>, BlockError> {
        let index = self.index()?;
        if number >= (index.len() as usize).div_ceil(GROUP_SERIES) {
            return Ok(None);
        }
        let rows = index.group(number, &mut Unpacker::default(), |_| true);
        let rows = rows.ok_or_else(|| self.corrupt("its index contradicts itself"))?;
        Ok(Some(rows.into_iter().map(|row| (row.labels, row.chunks)).collect()))
    }

    /// Copies the file.
    pub(crate) fn copy_to(&self, disk: &dyn Disk, path: &Path) -> io::Result<()> {
        let mut out = disk.create(path)?;
        let mut buffer = vec![0; COPY_BYTES];
        for offset in (0..self.bytes).step_by(COPY_BYTES) {
            let piece = &mut buffer[..COPY_BYTES.min((self.bytes - offset) as usize)];
            self.file.read_exact_at(piece, offset)?;
            out.append(piece)?;
        }
        out.sync()
    }

    /// Lets go of the index if no query has asked for it since the last call.
    pub(crate) fn rest(&self) {
        if !self.used.swap(false, Ordering::Relaxed) {
            *self.index.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    fn corrupt(&self, reason: &'static str) -> BlockError {
        self.damaged.store(true, Ordering::Relaxed);
        BlockError::Corrupt { path: self.path.clone(), reason }
    }

    fn index(&self) -> Result<Arc<Index>, BlockError> {
        self.used.store(true, Ordering::Relaxed);
        let mut slot = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = &*slot {
            return Ok(Arc::clone(index));
        }
        let bytes = index_bytes(&self.path, &*self.file, &self.footer)
            .inspect_err(|_| self.damaged.store(true, Ordering::Relaxed))?;
        let index =
            Index::decode(bytes, &self.shared).ok_or_else(|| self.corrupt("its index cannot be decoded"))?;
        let index = Arc::new(index);
        *slot = Some(Arc::clone(&index));
        Ok(index)
    }
}

/// Reads chunks of a block. Cheap where they come in the order of the file.
pub(crate) struct ChunkReader {
    block: Arc<Block>,
    index: Arc<Index>,
    /// What was read, and where it stands in the file.
    buffer: Vec<u8>,
    from: u64,
    scratch: Scratch,
}

impl ChunkReader {
    pub(crate) fn new(block: Arc<Block>) -> Result<Self, BlockError> {
        let index = block.index()?;
        Ok(Self { block, index, buffer: Vec::new(), from: 0, scratch: Scratch::default() })
    }

    pub(crate) fn block(&self) -> &Block {
        &self.block
    }

    /// From the first sample of a chunk to the last.
    pub(crate) fn range(&self, meta: &ChunkMeta) -> TimeRange {
        self.index.range(meta)
    }

    /// Adds the values of a chunk of floats to `values`, of which nothing changes if it fails. Answers their times.
    pub(crate) fn read_values(
        &mut self,
        meta: ChunkMeta,
        values: &mut Vec<f64>,
    ) -> Result<Arc<[i64]>, BlockError> {
        let times = self.times(meta.times)?;
        let bytes = self.checked(meta.offset, meta.bytes)?;
        let before = values.len();
        if values::decode(&self.buffer[bytes], times.len(), values).is_none() {
            values.truncate(before);
            return Err(self.block.corrupt("a chunk cannot be decoded"));
        }
        Ok(times)
    }

    /// Adds what a chunk holds to `samples` or to `histograms`.
    pub(crate) fn read(
        &mut self,
        meta: ChunkMeta,
        samples: &mut Vec<Sample>,
        histograms: &mut Vec<HistogramSample>,
    ) -> Result<(), BlockError> {
        let mut columns = std::mem::take(&mut self.scratch);
        columns.clear();
        let read = self.read_columns(meta, &mut columns, histograms);
        let pairs = columns.times.iter().zip(&columns.values);
        samples.extend(pairs.map(|(time, value)| Sample { timestamp: Timestamp(*time), value: *value }));
        self.scratch = columns;
        read
    }

    /// As [`Self::read`], into columns, of which nothing changes if it fails.
    pub(crate) fn read_columns(
        &mut self,
        meta: ChunkMeta,
        samples: &mut Scratch,
        histograms: &mut Vec<HistogramSample>,
    ) -> Result<(), BlockError> {
        if meta.kind == SampleKind::Histograms {
            let bytes = self.checked(meta.offset, meta.bytes)?;
            let decoded = histograms::decode_chunk(&self.buffer[bytes], histograms);
            return decoded.ok_or_else(|| self.block.corrupt("a chunk cannot be decoded"));
        }
        let times = self.read_values(meta, &mut samples.values)?;
        samples.times.extend_from_slice(&times);
        Ok(())
    }

    fn times(&mut self, number: u32) -> Result<Arc<[i64]>, BlockError> {
        let index = Arc::clone(&self.index);
        let meta = &index.times[number as usize];
        if let Some(times) = meta.decoded.get() {
            return Ok(Arc::clone(times));
        }
        let mut bytes = vec![0; meta.bytes as usize + 4];
        self.block.read_at(&mut bytes, meta.offset)?;
        let (crc, bytes) = bytes.split_at(4);
        if crc != crc32c::crc32c(bytes).to_le_bytes() {
            return Err(self.block.corrupt("a column of times has a wrong checksum"));
        }
        let mut times = Vec::new();
        times::decode(bytes, &mut times)
            .ok_or_else(|| self.block.corrupt("a column of times cannot be decoded"))?;
        let times: Arc<[i64]> = times.into();
        // Another reader may have been faster, with the same times.
        let _ = meta.decoded.set(Arc::clone(&times));
        Ok(times)
    }

    /// Where in the buffer the bytes of a chunk stand, their checksum being right.
    fn checked(&mut self, offset: u64, bytes: u32) -> Result<std::ops::Range<usize>, BlockError> {
        let size = u64::from(bytes) + 4;
        let end = self.from + self.buffer.len() as u64;
        if offset < self.from || offset + size > end {
            let is_next = offset >= end && offset - end < READ_AHEAD_BYTES && end > 0;
            let wanted = if is_next { size.max(READ_AHEAD_BYTES) } else { size };
            let there = self.block.footer.index_offset.saturating_sub(offset);
            if size > there {
                return Err(self.block.corrupt("a chunk lies outside of the file"));
            }
            self.buffer.clear();
            self.buffer.resize(wanted.min(there) as usize, 0);
            self.from = offset;
            let read = self.block.read_at(&mut self.buffer, offset);
            if read.is_err() {
                self.buffer.clear();
            }
            read?;
        }
        let start = (offset - self.from) as usize;
        let chunk = start + 4..start + size as usize;
        if self.buffer[start..start + 4] != crc32c::crc32c(&self.buffer[chunk.clone()]).to_le_bytes() {
            return Err(self.block.corrupt("a chunk's checksum is wrong"));
        }
        Ok(chunk)
    }
}

impl Block {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), BlockError> {
        self.file
            .read_exact_at(buffer, offset)
            .map_err(|cause| BlockError::Read { path: self.path.clone(), cause })
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
