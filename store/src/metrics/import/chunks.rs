//! The chunks of a block, and the samples in them.
//!
//! ```text
//! chunks/000001, 000002 …   magic version zeros ─ chunk ─ chunk ─ …
//! chunk   := length:varint encoding:u8 data crc          length of the data; the checksum covers the encoding, too
//! data    := count:u16 …                                 bits from here on
//! floats  := time:zigzag value:f64 step:varint xor (step:varbit xor)*
//! ```
//!
//! Follows `tsdb/docs/format/chunks.md` of Prometheus. Whatever a chunk says of itself, what is made of it is bounded
//! by its bytes.

use std::path::Path;

use binnacle_model::storage::HistogramSample;
use binnacle_model::{Sample, TimeRange, Timestamp};

use super::ImportError;
use super::bits::{Bits, XorFloat};
use super::histogram::{Counts, decode_histograms};
use super::index::ChunkPlace;
use super::input::Input;
use crate::bytes::Reader;
use crate::fs::Disk;

const MAGIC: u32 = 0x85BD_40DD;

/// Ten histograms of as many buckets as a histogram may have need less.
const CHUNK_MAX_BYTES: u64 = 16 << 20;

/// The length of a chunk, its encoding, and how many samples it has.
const HEAD_BYTES: u64 = 5 + 1 + 2;

/// The files of a block's chunks, open for reading.
pub(super) struct Segments {
    files: Vec<Input>,
}

/// Samples of one series.
#[derive(Debug, Default)]
pub(super) struct Samples {
    pub(super) floats: Vec<Sample>,
    pub(super) histograms: Vec<HistogramSample>,
}

impl Samples {
    pub(super) fn clear(&mut self) {
        self.floats.clear();
        self.histograms.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.floats.len() + self.histograms.len()
    }

    /// Leaves out samples for which it does not hold.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(Timestamp) -> bool) {
        self.floats.retain(|sample| keep(sample.timestamp));
        self.histograms.retain(|sample| keep(sample.timestamp));
    }
}

impl Segments {
    /// Opens all files in `dir`.
    pub(super) fn open(disk: &dyn Disk, dir: &Path) -> Result<Self, ImportError> {
        let names = disk.list(dir).map_err(|cause| ImportError::Read { path: dir.to_path_buf(), cause })?;
        // The first one is number 1, and the index calls it 0.
        let mut numbered: Vec<(u64, String)> =
            names.into_iter().filter_map(|name| Some((name.parse().ok()?, name))).collect();
        numbered.sort_unstable();
        let mut files = Vec::with_capacity(numbered.len());
        for (_, name) in numbered {
            let mut file = Input::open(disk, &dir.join(name))?;
            file.version(MAGIC, 1)?;
            files.push(file);
        }
        Ok(Self { files })
    }

    /// How many samples a chunk has; it is not decoded.
    pub(super) fn count(&mut self, place: ChunkPlace) -> Result<u64, ImportError> {
        let (file, offset) = self.file(place)?;
        let head = file.up_to(offset, HEAD_BYTES)?;
        let mut reader = Reader::new(head);
        let count = (|| {
            reader.varint()?;
            reader.bytes(1)?;
            Some(u16::from_be_bytes(reader.bytes(2)?.try_into().ok()?))
        })();
        count.map(u64::from).ok_or_else(|| file.corrupt(offset, "a chunk ends too soon"))
    }

    /// Adds the samples of a chunk.
    pub(super) fn read(&mut self, place: ChunkPlace, samples: &mut Samples) -> Result<(), ImportError> {
        let (file, offset) = self.file(place)?;
        let head = file.up_to(offset, HEAD_BYTES)?;
        let mut reader = Reader::new(head);
        let length = reader.varint().filter(|length| *length <= CHUNK_MAX_BYTES);
        let body = offset + (head.len() - reader.rest().len()) as u64;
        let Some(length) = length else {
            return Err(file.corrupt(offset, "a chunk is longer than any"));
        };
        let floats = samples.floats.len();
        let histograms = samples.histograms.len();
        let bytes = file.checked(body, length + 1)?;
        let (encoding, data) = (bytes[0], &bytes[1..]);
        let decoded = match encoding {
            1 => decode_floats(data, &mut samples.floats),
            2 => decode_histograms(data, Counts::Whole, &mut samples.histograms),
            3 => decode_histograms(data, Counts::Floats, &mut samples.histograms),
            encoding => {
                let path = file.path().to_path_buf();
                return Err(ImportError::Encoding { path, offset, encoding, name: name_of(encoding) });
            }
        };
        if decoded.is_none() {
            return Err(file.corrupt(offset, "a chunk cannot be decoded"));
        }
        let floats = samples.floats[floats..].iter().map(|sample| sample.timestamp);
        let histograms = samples.histograms[histograms..].iter().map(|sample| sample.timestamp);
        // Whoever looks for samples of a day goes by what the index says.
        if !floats.chain(histograms).all(|at| place.range.contains(at)) {
            return Err(file.corrupt(offset, "a chunk has samples that are not of the time in the index"));
        }
        Ok(())
    }

    fn file(&mut self, place: ChunkPlace) -> Result<(&mut Input, u64), ImportError> {
        let (number, offset) = ((place.reference >> 32) as usize, place.reference & 0xffff_ffff);
        let file = self.files.get_mut(number).ok_or(ImportError::NoSegment { number: number + 1 })?;
        Ok((file, offset))
    }
}

fn name_of(encoding: u8) -> &'static str {
    match encoding {
        4 => "XOR2",
        _ => "of a newer release",
    }
}

pub(super) fn decode_floats(data: &[u8], out: &mut Vec<Sample>) -> Option<()> {
    let mut bits = Bits::new(data);
    let count = bits.read(16)?;
    if count == 0 {
        return Some(());
    }
    let mut time = bits.zigzag()?;
    let mut value = XorFloat::new(bits.f64()?);
    out.push(Sample { timestamp: Timestamp(time), value: value.value() });
    let mut step = 0i64;
    for at in 1..count {
        step = if at == 1 { bits.varint()? as i64 } else { step.wrapping_add(bits.time_step()?) };
        time = time.wrapping_add(step);
        out.push(Sample { timestamp: Timestamp(time), value: value.advance(&mut bits)? });
    }
    Some(())
}

/// Whether one chunk begins before another ends.
pub(super) fn overlap(chunks: &[ChunkPlace]) -> bool {
    let overlaps = |pair: &[ChunkPlace]| {
        let [TimeRange { end, .. }, TimeRange { start, .. }] = [pair[0].range, pair[1].range];
        start <= end
    };
    chunks.windows(2).any(overlaps)
}
