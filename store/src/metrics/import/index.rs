//! The index of a block: which series it has, and where their chunks are.
//!
//! ```text
//! magic version ─ symbols ─ series ─ … ─ contents
//!                    ▲         ▲             └ 52 bytes at the end: where each section begins
//!                    │         └ length, label references, chunks (first, last, place), CRC; one after the other
//!                    └ every name and value, once, in order
//! ```
//!
//! Postings and the tables beside them are not needed: whoever reads all series reads them in their order. In
//! format 1 labels refer to symbols by their place in the file, in format 2 by their number, and series begin at
//! multiples of 16. Follows `tsdb/docs/format/index.md` of Prometheus.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use binnacle_model::labels::LabelsError;
use binnacle_model::storage::SeriesDecoder;
use binnacle_model::{Interner, Label, Labels, TimeRange, Timestamp};

use super::ImportError;
use super::input::Input;
use crate::bytes::Reader;
use crate::fs::Disk;

const MAGIC: u32 = 0xBAAA_D700;
const NEWEST_VERSION: u8 = 2;

/// Six offsets and a checksum.
const CONTENTS_BYTES: u64 = 6 * 8 + 4;

/// A length of a series, which is a varint.
const LENGTH_BYTES: u64 = 10;

/// One series. Of a month of samples each second it needs a hundredth.
const SERIES_MAX_BYTES: u64 = 64 << 20;

/// An index, open for reading.
pub(super) struct Index {
    input: Input,
    version: u8,
    pub(super) symbols: Symbols,
    series: std::ops::Range<u64>,
}

/// A series, its labels not decoded yet.
pub(super) struct Entry {
    /// Where it begins.
    pub(super) offset: u64,
    /// Where to look for the next one.
    pub(super) end: u64,
    /// What [`Symbols`] decode.
    pub(super) labels: Vec<u8>,
    /// Ascending by their first sample.
    pub(super) chunks: Vec<ChunkPlace>,
}

/// Where a chunk is.
#[derive(Debug, Clone, Copy)]
pub(super) struct ChunkPlace {
    /// From its first to its last sample.
    pub(super) range: TimeRange,
    /// Number of the file, and the offset in it.
    pub(super) reference: u64,
}

impl Index {
    /// Reads the contents and the symbols.
    pub(super) fn open(disk: &dyn Disk, path: &Path) -> Result<Self, ImportError> {
        let mut input = Input::open(disk, path)?;
        let version = input.version(MAGIC, NEWEST_VERSION)?;
        let place = input.size().saturating_sub(CONTENTS_BYTES);
        let contents = input.checked(place, CONTENTS_BYTES - 4)?;
        let mut sections = [0u64; 6];
        for (section, bytes) in sections.iter_mut().zip(contents.chunks_exact(8)) {
            *section = u64::from_be_bytes(bytes.try_into().expect("pieces of eight bytes"));
        }
        let [symbols, series, ..] = sections;
        let behind = sections.into_iter().filter(|section| *section > series).min().unwrap_or(place);
        if symbols == 0 || (series != 0 && symbols > series) || behind > place {
            return Err(input.corrupt(place, "its contents point outside of the file"));
        }
        let symbols = Symbols::read(&mut input, symbols, version)?;
        let series = if series == 0 { 0..0 } else { series..behind };
        Ok(Self { input, version, symbols, series })
    }

    /// Where the first series begins, or may.
    pub(super) fn first(&self) -> u64 {
        self.series.start
    }

    pub(super) fn corrupt(&self, offset: u64, reason: &'static str) -> ImportError {
        self.input.corrupt(offset, reason)
    }

    /// By what others speak of a series.
    pub(super) fn reference(&self, entry: &Entry) -> u64 {
        if self.version == 1 { entry.offset } else { entry.offset / 16 }
    }

    /// The series at `offset` or behind zeros there; `None` behind the last one.
    pub(super) fn entry(&mut self, mut offset: u64) -> Result<Option<Entry>, ImportError> {
        loop {
            if offset >= self.series.end {
                return Ok(None);
            }
            let zeros = self.input.up_to(offset, 16.min(self.series.end - offset))?;
            let count = zeros.iter().take_while(|byte| **byte == 0).count();
            offset += count as u64;
            if count < 16 && offset < self.series.end {
                break;
            }
        }
        let start = self.input.up_to(offset, LENGTH_BYTES)?;
        let mut reader = Reader::new(start);
        let length = reader.varint();
        let body = offset + (start.len() - reader.rest().len()) as u64;
        let there = self.series.end.saturating_sub(body);
        let Some(length) = length.filter(|length| *length <= there.min(SERIES_MAX_BYTES)) else {
            return Err(self.input.corrupt(offset, "a series is longer than its section"));
        };
        let bytes = self.input.checked(body, length)?;
        let end = body + length + 4;
        match decode_entry(bytes) {
            Some((labels, chunks)) => Ok(Some(Entry { offset, end, labels, chunks })),
            None => Err(self.input.corrupt(offset, "a series cannot be decoded")),
        }
    }
}

fn decode_entry(bytes: &[u8]) -> Option<(Vec<u8>, Vec<ChunkPlace>)> {
    let mut reader = Reader::new(bytes);
    for _ in 0..reader.count()? {
        reader.varint()?;
        reader.varint()?;
    }
    let labels = bytes[..bytes.len() - reader.rest().len()].to_vec();
    let count = reader.count()?;
    let mut chunks = Vec::with_capacity(count);
    let (mut end, mut reference) = (0i64, 0i64);
    for at in 0..count {
        let start = if at == 0 { reader.zigzag()? } else { end.checked_add_unsigned(reader.varint()?)? };
        end = start.checked_add_unsigned(reader.varint()?)?;
        reference = if at == 0 { reader.varint()? as i64 } else { reference.wrapping_add(reader.zigzag()?) };
        let range = TimeRange { start: Timestamp(start), end: Timestamp(end) };
        chunks.push(ChunkPlace { range, reference: reference as u64 });
    }
    reader.is_empty().then_some((labels, chunks))
}

/// All names and values of an index.
pub(super) struct Symbols {
    bytes: Vec<u8>,
    /// Where `bytes` begin in the file.
    from: u64,
    /// Where each begins in `bytes`; none in format 1.
    places: Option<Vec<u32>>,
    shared: Mutex<Interner>,
}

impl Symbols {
    fn read(input: &mut Input, offset: u64, version: u8) -> Result<Self, ImportError> {
        let length = input.at(offset, 4)?;
        let length = u32::from_be_bytes(length.try_into().expect("four bytes were asked for"));
        let bytes = input.checked(offset + 4, u64::from(length))?.to_vec();
        let mut symbols = Self { bytes, from: offset + 4, places: None, shared: Mutex::default() };
        if version > 1 {
            symbols.places = Some(
                places_of(&symbols.bytes)
                    .ok_or_else(|| input.corrupt(offset, "its symbols cannot be decoded"))?,
            );
        }
        Ok(symbols)
    }

    fn symbol(&self, reference: u64) -> Option<Arc<str>> {
        let place = match &self.places {
            Some(places) => *places.get(usize::try_from(reference).ok()?)? as usize,
            None => usize::try_from(reference.checked_sub(self.from)?).ok()?,
        };
        let text = Reader::new(self.bytes.get(place..)?).text()?;
        Some(self.shared.lock().unwrap_or_else(PoisonError::into_inner).intern(text))
    }

    fn labels(&self, raw: &[u8]) -> Option<Vec<Label>> {
        let mut reader = Reader::new(raw);
        let count = reader.count()?;
        let mut labels = Vec::with_capacity(count);
        for _ in 0..count {
            let (name, value) = (reader.varint()?, reader.varint()?);
            labels.push(Label { name: self.symbol(name)?, value: self.symbol(value)? });
        }
        Some(labels)
    }
}

fn places_of(bytes: &[u8]) -> Option<Vec<u32>> {
    let mut reader = Reader::new(bytes);
    let count = u32::from_be_bytes(reader.bytes(4)?.try_into().ok()?);
    // Each symbol has a length of one byte at least.
    let mut places = Vec::with_capacity((count as usize).min(reader.rest().len()));
    for _ in 0..count {
        places.push((bytes.len() - reader.rest().len()) as u32);
        let length = reader.count()?;
        reader.bytes(length)?;
    }
    Some(places)
}

impl SeriesDecoder for Symbols {
    fn salt(&self) -> u64 {
        0
    }

    fn decode(&self, raw: &[u8]) -> Result<Labels, LabelsError> {
        let malformed = || LabelsError::Malformed("no such symbol, or no UTF-8".to_owned());
        Labels::from_vec(self.labels(raw).ok_or_else(malformed)?)
    }
}
