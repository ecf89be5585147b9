//! Writes blocks: series come ascending by labels, one after the other.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use binnacle_model::storage::HistogramSample;
use binnacle_model::{Label, Labels, Sample, TimeRange, Timestamp};
use roaring::RoaringBitmap;

use super::index::{GROUP_SERIES, LIST_MAX, SEPARATOR};
use super::{Cut, Footer, file_name};
use crate::bytes::{put_varint, put_zigzag};
use crate::fs::{Disk, WriteFile};
use crate::header::{self, HEADER_BYTES, MAGIC_BLOCK};
use crate::metrics::chunk::{times, values};
use crate::metrics::histograms::{self, CHUNK_MAX_HISTOGRAMS};
use crate::metrics::rollup::Rolled;

/// Samples of one column. Longer ones pack a little better and cost more where a query wants a moment.
const COLUMN_SAMPLES: usize = 2880;

/// Writes go to the disk in pieces of this size.
const WRITE_BUFFER_BYTES: usize = 1 << 20;

/// What zstd makes of groups; higher levels gain nothing on so few bytes.
const ZSTD_LEVEL: i32 = 3;

/// A block being written.
pub(crate) struct BlockWriter<'d> {
    disk: &'d dyn Disk,
    dir: PathBuf,
    number: u64,
    temporary: PathBuf,
    out: Buffered,
    range: Option<TimeRange>,
    samples: u64,
    /// Columns of times by their bytes.
    times: HashMap<Vec<u8>, u32>,
    /// What the index says of them, in their order, and their bytes as they go into the file.
    times_meta: Vec<(usize, TimeRange)>,
    times_bytes: Vec<u8>,
    /// Terms by the order in which they came.
    terms: HashMap<Label, u32>,
    /// Series that have each.
    postings: Vec<Vec<u32>>,
    rows: Vec<Row>,
    last: Option<Labels>,
    is_published: bool,
    is_rollup: bool,
}

impl Drop for BlockWriter<'_> {
    /// What was not published takes no room.
    fn drop(&mut self) {
        if !self.is_published
            && let Err(error) = self.disk.remove_file(&self.temporary)
        {
            tracing::warn!(path = %self.temporary.display(), %error, "the next start will remove an unfinished block");
        }
    }
}

struct Row {
    terms: Box<[u32]>,
    /// Bytes, doubled and one more for histograms, and the column of times.
    chunks: Box<[(u32, u32)]>,
}

impl<'d> BlockWriter<'d> {
    /// Begins a block; nobody sees it before [`Self::finish`].
    pub(crate) fn create(disk: &'d dyn Disk, dir: &Path, number: u64) -> io::Result<Self> {
        let temporary = dir.join(format!("{number:010}.tmp"));
        let mut out = Buffered { file: disk.create(&temporary)?, buffer: Vec::new(), written: 0 };
        out.append(&header::encode(MAGIC_BLOCK, header::BLOCK_VERSION))?;
        Ok(Self {
            disk,
            dir: dir.to_path_buf(),
            number,
            temporary,
            out,
            range: None,
            samples: 0,
            times: HashMap::new(),
            times_meta: Vec::new(),
            times_bytes: Vec::new(),
            terms: HashMap::new(),
            postings: Vec::new(),
            rows: Vec::new(),
            last: None,
            is_published: false,
            is_rollup: false,
        })
    }

    /// The block will have rollups of the samples that are added, or those of [`Self::add_rolled`].
    pub(crate) fn of_rollups(mut self) -> Self {
        self.is_rollup = true;
        self
    }

    /// Adds the rollups of a series, greater than all before it.
    pub(crate) fn add_rolled(&mut self, labels: &Labels, rolled: &Rolled) -> io::Result<()> {
        if rolled.is_empty() {
            return Ok(());
        }
        let mut chunks = Vec::new();
        for column in rolled.columns.iter().filter(|column| !column.is_empty()) {
            self.add_floats(column, &mut chunks)?;
            self.samples += column.len() as u64;
        }
        self.add_histograms(&rolled.histograms, &mut chunks)?;
        self.samples += rolled.histograms.len() as u64;
        self.add_row(labels, chunks);
        Ok(())
    }

    /// Adds a series, greater than all before it, with samples ascending by time.
    pub(crate) fn add(
        &mut self,
        labels: &Labels,
        samples: &[Sample],
        histograms: &[HistogramSample],
    ) -> io::Result<()> {
        debug_assert!(self.last.as_ref().is_none_or(|last| last < labels), "series out of order");
        if samples.is_empty() && histograms.is_empty() {
            return Ok(());
        }
        if self.is_rollup {
            return self.add_rolled(labels, &Rolled::of(labels, samples, histograms));
        }
        let mut chunks = Vec::new();
        let pieces = samples.len().div_ceil(COLUMN_SAMPLES).max(1);
        for part in samples.chunks(samples.len().div_ceil(pieces).max(1)) {
            self.add_floats(part, &mut chunks)?;
        }
        self.add_histograms(histograms, &mut chunks)?;
        self.samples += (samples.len() + histograms.len()) as u64;
        self.add_row(labels, chunks);
        Ok(())
    }

    fn add_floats(&mut self, part: &[Sample], chunks: &mut Vec<(u32, u32)>) -> io::Result<()> {
        let moments: Vec<i64> = part.iter().map(|sample| sample.timestamp.0).collect();
        let numbers: Vec<f64> = part.iter().map(|sample| sample.value).collect();
        let bytes = values::encode_small(&numbers);
        chunks.push(((bytes.len() as u32) << 1, self.times_of(&moments)));
        self.chunk(&bytes)
    }

    fn add_histograms(
        &mut self,
        histograms: &[HistogramSample],
        chunks: &mut Vec<(u32, u32)>,
    ) -> io::Result<()> {
        for part in histograms.chunks(CHUNK_MAX_HISTOGRAMS) {
            let moments: Vec<i64> = part.iter().map(|one| one.timestamp.0).collect();
            let bytes = histograms::encode_chunk(part);
            chunks.push(((bytes.len() as u32) << 1 | 1, self.times_of(&moments)));
            self.chunk(&bytes)?;
        }
        Ok(())
    }

    fn add_row(&mut self, labels: &Labels, chunks: Vec<(u32, u32)>) {
        let terms = self.terms_of(labels);
        self.rows.push(Row { terms, chunks: chunks.into() });
        self.last = Some(labels.clone());
    }

    fn chunk(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.append(&crc32c::crc32c(bytes).to_le_bytes())?;
        self.out.append(bytes)
    }

    fn times_of(&mut self, moments: &[i64]) -> u32 {
        let (first, last) = (moments[0], moments[moments.len() - 1]);
        let range = TimeRange { start: Timestamp(first), end: Timestamp(last) };
        let whole = self.range.get_or_insert(range);
        *whole = TimeRange { start: whole.start.min(range.start), end: whole.end.max(range.end) };
        let bytes = times::encode(moments);
        if let Some(known) = self.times.get(&bytes) {
            return *known;
        }
        let number = self.times_meta.len() as u32;
        self.times_meta.push((bytes.len(), range));
        self.times_bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        self.times_bytes.extend_from_slice(&bytes);
        self.times.insert(bytes, number);
        number
    }

    fn terms_of(&mut self, labels: &Labels) -> Box<[u32]> {
        let series = u32::try_from(self.rows.len()).expect("fewer series than four billion");
        let term = |label: &Label| {
            let known = self.terms.get(label).copied();
            let term = known.unwrap_or_else(|| {
                self.postings.push(Vec::new());
                let number = self.terms.len() as u32;
                self.terms.insert(label.clone(), number);
                number
            });
            self.postings[term as usize].push(series);
            term
        };
        labels.iter().map(term).collect()
    }

    /// Whether nothing was added.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Publishes the block, which was made of the blocks `sources`, if any.
    pub(crate) fn finish(mut self, cut: Cut, sources: &[u64]) -> io::Result<PathBuf> {
        let times_offset = self.out.written;
        let times_bytes = std::mem::take(&mut self.times_bytes);
        self.out.append(&times_bytes)?;
        let range = self.range.unwrap_or(TimeRange { start: Timestamp(0), end: Timestamp(0) });
        let index = self.index(times_offset, sources)?;
        let footer = Footer {
            range,
            cut,
            index_offset: self.out.written,
            index_bytes: index.len() as u64,
            index_crc: crc32c::crc32c(&index),
            samples: self.samples,
        };
        self.out.append(&index)?;
        self.out.append(&footer.encode())?;
        self.out.flush()?;
        self.out.file.sync()?;
        let path = self.dir.join(file_name(self.number, range, self.is_rollup));
        self.disk.rename(&self.temporary, &path)?;
        self.is_published = true;
        if let Err(error) = self.disk.sync_dir(&self.dir) {
            // Nobody knows of it, and it may or may not be there after a crash.
            self.disk.remove_file(&path)?;
            return Err(error);
        }
        Ok(path)
    }

    fn index(&self, times_offset: u64, sources: &[u64]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        put_varint(&mut out, sources.len() as u64);
        sources.iter().for_each(|source| put_varint(&mut out, *source));
        put_varint(&mut out, times_offset);
        put_varint(&mut out, self.times_meta.len() as u64);
        let mut last = 0i64;
        for (bytes, range) in &self.times_meta {
            put_varint(&mut out, *bytes as u64);
            put_zigzag(&mut out, range.start.0.wrapping_sub(last));
            put_varint(&mut out, range.end.0.wrapping_sub(range.start.0) as u64);
            last = range.end.0;
        }
        let numbers = self.dictionary(&mut out)?;
        put_varint(&mut out, self.rows.len() as u64);
        let mut compressor = zstd::bulk::Compressor::new(ZSTD_LEVEL)?;
        let mut chunk_bytes = HEADER_BYTES as u64;
        let mut before = HEADER_BYTES as u64;
        for group in self.rows.chunks(GROUP_SERIES) {
            put_varint(&mut out, chunk_bytes - before);
            before = chunk_bytes;
            let compressed = compressor.compress(&rows(group, &numbers))?;
            put_varint(&mut out, compressed.len() as u64);
            out.extend_from_slice(&compressed);
            let chunks = group.iter().flat_map(|row| &row.chunks);
            chunk_bytes += chunks.map(|(size, _)| u64::from(size >> 1) + 4).sum::<u64>();
        }
        Ok(out)
    }

    /// Writes the dictionary and the postings; answers the terms' numbers in the order of the dictionary.
    fn dictionary(&self, out: &mut Vec<u8>) -> io::Result<Vec<u32>> {
        let key = |label: &Label| [label.name.as_bytes(), &[SEPARATOR], label.value.as_bytes()].concat();
        let mut sorted: Vec<(Vec<u8>, u32)> =
            self.terms.iter().map(|(label, term)| (key(label), *term)).collect();
        sorted.sort_unstable();
        let mut builder = fst::MapBuilder::memory();
        let mut numbers = vec![0u32; sorted.len()];
        for ((key, term), number) in sorted.iter().zip(0u32..) {
            builder.insert(key, u64::from(number)).map_err(io::Error::other)?;
            numbers[*term as usize] = number;
        }
        let dictionary = builder.into_inner().map_err(io::Error::other)?;
        put_varint(out, dictionary.len() as u64);
        out.extend_from_slice(&dictionary);
        for (_, term) in &sorted {
            let posting = encode_posting(&self.postings[*term as usize])?;
            put_varint(out, posting.len() as u64);
            out.extend_from_slice(&posting);
        }
        Ok(numbers)
    }
}

fn encode_posting(series: &[u32]) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    put_varint(&mut out, series.len() as u64);
    if series.len() > LIST_MAX {
        let mut bitmap = RoaringBitmap::from_sorted_iter(series.iter().copied()).map_err(io::Error::other)?;
        bitmap.optimize();
        bitmap.serialize_into(&mut out)?;
        return Ok(out);
    }
    let mut before = 0;
    for number in series {
        put_varint(&mut out, u64::from(number - before));
        before = *number;
    }
    Ok(out)
}

fn rows(group: &[Row], numbers: &[u32]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut before: &[u32] = &[];
    let mut times = 0i64;
    for row in group {
        let shared = row.terms.iter().zip(before).take_while(|(a, b)| a == b).count();
        put_varint(&mut out, shared as u64);
        put_varint(&mut out, (row.terms.len() - shared) as u64);
        row.terms[shared..].iter().for_each(|term| put_varint(&mut out, u64::from(numbers[*term as usize])));
        put_varint(&mut out, row.chunks.len() as u64);
        for (size, column) in &row.chunks {
            put_varint(&mut out, u64::from(*size));
            put_zigzag(&mut out, i64::from(*column) - times);
            times = i64::from(*column);
        }
        before = &row.terms;
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
