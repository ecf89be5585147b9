//! Blocks of release 1: read once, to be written anew.
//!
//! ```text
//! file     := header chunk* index footer
//! chunk    := crc:u32 bytes              CRC-32C of the bytes; their length stands in the index
//! index    := symbols series             its CRC-32C stands in the footer
//! symbols  := count:varint text*         every label name and value once, ascending
//! series   := count:varint entry*        ascending by labels
//! entry    := count:varint (name:varint value:varint)*        numbers of symbols
//!             count:varint (size:varint first:zigzag span:varint)*
//!                                        of each chunk; bit 40 of a size says that it holds histograms
//! ```

use binnacle_model::storage::HistogramSample;
use binnacle_model::{Labels, Sample};

use super::{BlockError, Opened};
use crate::bytes::Reader;
use crate::header::HEADER_BYTES;
use crate::metrics::{chunk::interleaved, histograms};

/// Set in the size of a chunk that holds histograms.
const KIND_HISTOGRAMS: u64 = 1 << 40;

type Series = (Labels, Vec<Sample>, Vec<HistogramSample>);

/// All series, ascending by labels. A chunk that is damaged spoils the block: it is small.
pub(super) fn series(file: &Opened) -> Result<Vec<Series>, BlockError> {
    let corrupt = |reason| BlockError::Corrupt { path: file.path.clone(), reason };
    let index = file.index()?;
    let mut data = vec![0; file.footer.index_offset as usize];
    let read = |cause| BlockError::Read { path: file.path.clone(), cause };
    file.file.read_exact_at(&mut data, 0).map_err(read)?;
    decode(&index, &data).ok_or_else(|| corrupt("its chunks or its index are damaged"))
}

fn decode(index: &[u8], data: &[u8]) -> Option<Vec<Series>> {
    let mut reader = Reader::new(index);
    let mut symbols = Vec::new();
    for _ in 0..reader.count()? {
        symbols.push(reader.text()?);
    }
    let mut found = Vec::new();
    let mut offset = HEADER_BYTES;
    for _ in 0..reader.count()? {
        let mut pairs = Vec::new();
        for _ in 0..reader.count()? {
            let name = *symbols.get(usize::try_from(reader.varint()?).ok()?)?;
            let value = *symbols.get(usize::try_from(reader.varint()?).ok()?)?;
            pairs.push((name, value));
        }
        let (mut samples, mut histograms) = (Vec::new(), Vec::new());
        for _ in 0..reader.count()? {
            let size = reader.varint()?;
            let bytes = usize::try_from(size & !KIND_HISTOGRAMS).ok()?;
            let (_first, _span) = (reader.zigzag()?, reader.varint()?);
            let end = offset.checked_add(4)?.checked_add(bytes)?;
            let (crc, chunk) = data.get(offset..end)?.split_at(4);
            if crc != crc32c::crc32c(chunk).to_le_bytes() {
                return None;
            }
            if size & KIND_HISTOGRAMS == 0 {
                interleaved::decode(chunk, &mut samples)?;
            } else {
                histograms::decode_chunk(chunk, &mut histograms)?;
            }
            offset = end;
        }
        found.push((Labels::new(pairs).ok()?, samples, histograms));
    }
    reader.is_empty().then_some(found)
}
