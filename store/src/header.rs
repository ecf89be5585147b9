//! The eight bytes every binary file of ours begins with.
//!
//! ```text
//! offset  size  field
//! 0       4     magic, ASCII, names the kind of file
//! 4       1     version, raised by any change an old reader would misread
//! 5       1     from version 2 on, the version XOR 0xA5, so that a flipped bit is not taken for a newer
//!               release; zero before
//! 6       2     zero; a reader rejects anything else
//! ```

/// A write-ahead log file.
pub(crate) const MAGIC_WAL: [u8; 4] = *b"bwal";
/// A block of metrics.
pub(crate) const MAGIC_BLOCK: [u8; 4] = *b"bblk";
/// A checkpoint of the head.
pub(crate) const MAGIC_CHECKPOINT: [u8; 4] = *b"bchk";
/// A page of log lines.
pub(crate) const MAGIC_LOG_PAGE: [u8; 4] = *b"blpg";
/// The index of a partition of log lines.
pub(crate) const MAGIC_LOG_INDEX: [u8; 4] = *b"blix";
/// The newest version of log pages.
pub(crate) const LOG_PAGE_VERSION: u8 = 3;
/// The newest version of indexes of partitions.
pub(crate) const LOG_INDEX_VERSION: u8 = 3;
/// The newest version of WAL files.
pub(crate) const WAL_VERSION: u8 = 2;
/// The newest version of blocks.
pub(crate) const BLOCK_VERSION: u8 = 2;
/// The newest version of checkpoints.
pub(crate) const CHECKPOINT_VERSION: u8 = 1;
const CHECK: u8 = 0xa5;
/// Size of a header.
pub(crate) const HEADER_BYTES: usize = 8;

/// Why a file's first bytes are not a header that this release can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeaderError {
    /// It is another kind of file, or damaged.
    #[error("the file does not begin with the magic of its kind")]
    Magic,
    /// A newer release wrote it.
    #[error("format version {0} is newer than what this release reads")]
    TooNew(u8),
    /// Version zero, or bytes that must be zero are not.
    #[error("the header is damaged")]
    Damaged,
}

/// The header of a new file.
pub(crate) fn encode(magic: [u8; 4], version: u8) -> [u8; HEADER_BYTES] {
    let [a, b, c, d] = magic;
    [a, b, c, d, version, check_of(version), 0, 0]
}

fn check_of(version: u8) -> u8 {
    if version < 2 { 0 } else { version ^ CHECK }
}

/// Checks the first bytes of a file, of which this release reads the versions up to `newest`; answers its
/// version.
pub(crate) fn decode(bytes: &[u8], magic: [u8; 4], newest: u8) -> Result<u8, HeaderError> {
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else { return Err(HeaderError::Damaged) };
    if header[..4] != magic {
        return Err(HeaderError::Magic);
    }
    let version = header[4];
    if version == 0 || header[5..] != [check_of(version), 0, 0] {
        return Err(HeaderError::Damaged);
    }
    if version > newest {
        return Err(HeaderError::TooNew(version));
    }
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_bytes_are_fixed_forever() {
        assert_eq!(encode(MAGIC_WAL, 1), *b"bwal\x01\0\0\0");
        assert_eq!(encode(MAGIC_BLOCK, 2), *b"bblk\x02\xa7\0\0");
        assert_eq!(decode(b"bwal\x01\0\0\0", MAGIC_WAL, 1), Ok(1));
        assert_eq!(decode(b"bblk\x01\0\0\0", MAGIC_BLOCK, 2), Ok(1));
        assert_eq!(decode(b"bwal\x02\xa7\0\0", MAGIC_WAL, 1), Err(HeaderError::TooNew(2)));
        assert_eq!(decode(b"bwal\x03\0\0\0", MAGIC_WAL, 1), Err(HeaderError::Damaged), "a flipped bit");
        assert_eq!(decode(b"bblk\x01\0\0\0", MAGIC_WAL, 1), Err(HeaderError::Magic));
        assert_eq!(decode(b"bwal\x01\0\0\x01", MAGIC_WAL, 1), Err(HeaderError::Damaged));
        assert_eq!(decode(b"bwal", MAGIC_WAL, 1), Err(HeaderError::Damaged));
    }
}
