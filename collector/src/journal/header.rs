//! What a journal file says of itself.

use std::io;

/// Bytes that are read: those of systemd 187, and of every later release.
pub(super) const HEADER_BYTES: usize = 208;

const SIGNATURE: &[u8; 8] = b"LPKSHHRH";

// Incompatible flags: whoever does not know one must not read the file.
const COMPRESSED_XZ: u32 = 1;
const COMPRESSED_LZ4: u32 = 1 << 1;
const KEYED_HASH: u32 = 1 << 2;
const COMPRESSED_ZSTD: u32 = 1 << 3;
const COMPACT: u32 = 1 << 4;
const KNOWN: u32 = COMPRESSED_XZ | COMPRESSED_LZ4 | KEYED_HASH | COMPRESSED_ZSTD | COMPACT;

/// An entry takes so many bytes at least.
const ENTRY_MIN_BYTES: u64 = 64;

/// The header, as far as it matters to who reads entries in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) file_id: [u8; 16],
    /// First byte that may be an object's.
    pub(super) objects_from: u64,
    pub(super) entries: u64,
    /// Where the chain of entry arrays begins; zero while there is no entry.
    pub(super) entry_array: u64,
    /// Offsets in arrays and entries have 32 bits instead of 64.
    pub(super) is_compact: bool,
}

impl Header {
    /// Reads the header of a file of so many bytes.
    ///
    /// # Errors
    /// `NotFound` while journald has not written it; anything else is a reason not to read the file.
    pub(super) fn parse(bytes: &[u8], file_bytes: u64) -> io::Result<Self> {
        let Some(bytes) = bytes.get(..HEADER_BYTES).filter(|bytes| bytes[..8] != [0; 8]) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        if bytes[..8] != *SIGNATURE {
            return Err(io::Error::other("it is no file of systemd's journal"));
        }
        let flags = u32_at(bytes, 12);
        if flags & !KNOWN != 0 {
            let unknown = flags & !KNOWN;
            let reason = format!(
                "it has a form of a newer systemd (incompatible flags {unknown:#x}), which this release cannot read"
            );
            return Err(io::Error::other(reason));
        }
        let mut file_id = [0; 16];
        file_id.copy_from_slice(&bytes[24..40]);
        let header = Self {
            file_id,
            objects_from: u64_at(bytes, 88),
            entries: u64_at(bytes, 152),
            entry_array: u64_at(bytes, 176),
            is_compact: flags & COMPACT != 0,
        };
        let is_sane = header.objects_from >= HEADER_BYTES as u64
            && header.objects_from.is_multiple_of(8)
            && header.entries <= file_bytes / ENTRY_MIN_BYTES;
        if is_sane { Ok(header) } else { Err(io::Error::other("its header contradicts itself")) }
    }

    /// The bytes that an offset takes in arrays of offsets.
    pub(super) fn offset_bytes(self) -> u64 {
        if self.is_compact { 4 } else { 8 }
    }

    /// The bytes that an item of an entry takes: an offset, and in the regular form a hash.
    pub(super) fn item_bytes(self) -> usize {
        if self.is_compact { 4 } else { 16 }
    }

    /// Where the payload of a data object begins.
    pub(super) fn data_bytes(self) -> usize {
        if self.is_compact { 72 } else { 64 }
    }
}

/// # Panics
/// Fewer than four bytes are there.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

/// # Panics
/// Fewer than eight bytes are there.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}
