//! One record: what is around a payload.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{Sequence, WalFileId};
use crate::header::{self, HEADER_BYTES, MAGIC_WAL};

pub(super) const MAGIC: [u8; 4] = *b"REC\x01";
/// Bytes before the payload.
pub(super) const PREFIX_BYTES: usize = 21;
/// Longest payload. Intake refuses bodies that would not fit.
pub const RECORD_MAX_BYTES: usize = 64 * 1024 * 1024;

/// So many zeros at the end of a file were never written.
const HOLE_MIN_BYTES: usize = 32;

/// Bytes before the first record: the header and the salt, twice.
pub(super) const PREAMBLE_BYTES: usize = HEADER_BYTES + 16;

/// The salt of a file's checksums. A line of a log stands in a record as it came: without the salt it
/// could hold a whole record of its writer's making, which replay would find after a crash.
pub(super) fn salt_of(seed: u64, file: WalFileId) -> u64 {
    xxh3_64_with_seed(&file.0.to_le_bytes(), seed)
}

/// What a file begins with.
pub(super) fn preamble(salt: u64) -> [u8; PREAMBLE_BYTES] {
    let mut out = [0; PREAMBLE_BYTES];
    out[..HEADER_BYTES].copy_from_slice(&header::encode(MAGIC_WAL, header::WAL_VERSION));
    out[HEADER_BYTES..HEADER_BYTES + 8].copy_from_slice(&salt.to_le_bytes());
    out[HEADER_BYTES + 8..].copy_from_slice(&salt.to_le_bytes());
    out
}

/// The salt of a file; where its two copies differ, the one with which the first record is whole.
pub(super) fn read_salt(file: &[u8]) -> u64 {
    let copy = |at: usize| {
        let bytes = file.get(HEADER_BYTES + at * 8..).and_then(|rest| rest.first_chunk::<8>());
        bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
    };
    let first = file.get(PREAMBLE_BYTES..).unwrap_or_default();
    if copy(0) != copy(1) && decode(first, copy(1)).is_some() { copy(1) } else { copy(0) }
}

/// What a payload holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordKind {
    /// Samples of metrics.
    Samples,
    /// Log lines with their files' marks.
    Lines,
    /// Native histograms.
    Histograms,
    /// Samples before it are gone.
    Deletion,
}

impl RecordKind {
    fn to_byte(self) -> u8 {
        match self {
            Self::Samples => 1,
            Self::Lines => 2,
            Self::Histograms => 3,
            Self::Deletion => 4,
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Samples),
            2 => Some(Self::Lines),
            3 => Some(Self::Histograms),
            4 => Some(Self::Deletion),
            _ => None,
        }
    }
}

/// A record as it stands in a file.
#[derive(Debug)]
pub(super) struct Record<'a> {
    pub(super) sequence: Sequence,
    pub(super) kind: RecordKind,
    pub(super) payload: &'a [u8],
    /// Whether a bit of its length had flipped.
    pub(super) is_mended: bool,
}

/// Adds a record whose payload `build` appends.
pub(super) fn encode(
    out: &mut Vec<u8>,
    salt: u64,
    sequence: Sequence,
    kind: RecordKind,
    build: impl FnOnce(&mut Vec<u8>),
) {
    let start = out.len();
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&sequence.0.to_le_bytes());
    out.push(kind.to_byte());
    out.extend_from_slice(&[0; 4]);
    build(out);
    let length = out.len() - start - PREFIX_BYTES;
    assert!(length <= RECORD_MAX_BYTES, "a record of {length} bytes; intake bounds its bodies");
    out[start + 4..start + 8].copy_from_slice(&(length as u32).to_le_bytes());
    let (prefix, payload) = out[start..].split_at(PREFIX_BYTES);
    let crc = checksum(prefix, payload, salt);
    out[start + 17..start + 21].copy_from_slice(&crc.to_le_bytes());
}

/// The record that begins at the beginning of `bytes`, with its size; `None` if there is none whole.
pub(super) fn decode(bytes: &[u8], salt: u64) -> Option<(Record<'_>, usize)> {
    let prefix = bytes.first_chunk::<PREFIX_BYTES>()?;
    if prefix[..4] != MAGIC {
        return None;
    }
    let length = u32::from_le_bytes(prefix[4..8].try_into().ok()?);
    let crc = u32::from_le_bytes(prefix[17..21].try_into().ok()?);
    let mut size = PREFIX_BYTES + length as usize;
    let is_mended = bytes.len() < size;
    if is_mended {
        // A bit of the length of the last record may have flipped: then the record is what is left.
        let left = u32::try_from(bytes.len() - PREFIX_BYTES).ok()?;
        let mut record: [u8; PREFIX_BYTES] = *prefix;
        record[4..8].copy_from_slice(&left.to_le_bytes());
        if (left ^ length).count_ones() != 1 || checksum(&record, &bytes[PREFIX_BYTES..], salt) != crc {
            return None;
        }
        size = bytes.len();
    } else if length as usize > RECORD_MAX_BYTES || checksum(prefix, &bytes[PREFIX_BYTES..size], salt) != crc
    {
        return None;
    }
    if size - PREFIX_BYTES > RECORD_MAX_BYTES {
        return None;
    }
    let sequence = Sequence(u64::from_le_bytes(prefix[8..16].try_into().ok()?));
    let kind = RecordKind::from_byte(prefix[16])?;
    Some((Record { sequence, kind, payload: &bytes[PREFIX_BYTES..size], is_mended }, size))
}

/// How long the record says it is that begins at the beginning of `bytes`, if one begins there.
pub(super) fn size_said(bytes: &[u8]) -> Option<u64> {
    let prefix = bytes.first_chunk::<8>().filter(|prefix| prefix[..4] == MAGIC)?;
    let length = u32::from_le_bytes(prefix[4..].try_into().ok()?) as usize;
    (length <= RECORD_MAX_BYTES).then_some((PREFIX_BYTES + length) as u64)
}

/// Whether a file may end in these bytes, which are no whole record, because a crash cut a write short.
/// Writes begin with a record and files grow with what was written, so that anything else was damaged.
pub(super) fn is_torn(end: &[u8]) -> bool {
    let start = &end[..MAGIC.len().min(end.len())];
    let length = end.get(4..8).and_then(|bytes| bytes.first_chunk::<4>());
    let is_short = length.is_none_or(|bytes| PREFIX_BYTES + u32::from_le_bytes(*bytes) as usize > end.len());
    // A piece of the file whose length arrived but not its content. A sample is shorter.
    let is_hole = end.iter().rev().take(HOLE_MIN_BYTES).all(|byte| *byte == 0);
    is_hole || (MAGIC.starts_with(start) && is_short)
}

fn checksum(prefix: &[u8], payload: &[u8], salt: u64) -> u32 {
    let salted = crc32c::crc32c_append(crc32c::crc32c(&salt.to_le_bytes()), &prefix[4..17]);
    crc32c::crc32c_append(salted, payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_bytes_are_fixed_forever() {
        let mut bytes = Vec::new();
        encode(&mut bytes, 99, Sequence(7), RecordKind::Lines, |out| out.extend_from_slice(b"hello"));
        let golden = "REC\\x01\\x05\\x00\\x00\\x00\\x07\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x02";
        assert!(bytes.escape_ascii().to_string().starts_with(golden));
        let (record, size) = decode(&bytes, 99).unwrap();
        assert_eq!(
            (record.sequence, record.kind, record.payload, size),
            (Sequence(7), RecordKind::Lines, &b"hello"[..], 26)
        );
        for bit in 4 * 8..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            // A length that grew ends behind the file, and is known by that.
            let is_longer = bit < 8 * 8 && damaged[bit / 8] > bytes[bit / 8];
            let found = decode(&damaged, 99);
            assert_eq!(found.is_some(), is_longer, "bit {bit}");
            assert!(found.is_none_or(|(record, size)| record.payload == b"hello" && size == bytes.len()));
        }
        let torn = &bytes[..bytes.len() - 1];
        assert!(decode(torn, 99).is_none());
        assert!(decode(&bytes, 98).is_none(), "a record of another file, or of nobody");
    }
}
