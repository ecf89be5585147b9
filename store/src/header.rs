//! The eight bytes every binary file of ours begins with.
//!
//! ```text
//! offset  size  field
//! 0       4     magic, ASCII, names the kind of file
//! 4       1     version, raised by any change an old reader would misread
//! 5       3     zero; a reader rejects anything else
//! ```

/// A write-ahead log file.
pub(crate) const MAGIC_WAL: [u8; 4] = *b"bwal";
/// A block of metrics.
pub(crate) const MAGIC_BLOCK: [u8; 4] = *b"bblk";
/// The newest version of every kind.
pub(crate) const VERSION: u8 = 1;
/// Size of a header.
pub(crate) const HEADER_BYTES: usize = 8;

/// Why a file's first bytes are not a header that this release can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeaderError {
    /// It is another kind of file, or damaged.
    #[error("the file does not begin with the magic of its kind")]
    Magic,
    /// A newer release wrote it.
    #[error("format version {0} is newer than {VERSION}, the newest this release reads")]
    TooNew(u8),
    /// Version zero, or bytes that must be zero are not.
    #[error("the header is damaged")]
    Damaged,
}

/// The header of a new file.
pub(crate) fn encode(magic: [u8; 4]) -> [u8; HEADER_BYTES] {
    let [a, b, c, d] = magic;
    [a, b, c, d, VERSION, 0, 0, 0]
}

/// Checks the first bytes of a file.
pub(crate) fn decode(bytes: &[u8], magic: [u8; 4]) -> Result<(), HeaderError> {
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else { return Err(HeaderError::Damaged) };
    if header[..4] != magic {
        return Err(HeaderError::Magic);
    }
    if header[4] > VERSION {
        return Err(HeaderError::TooNew(header[4]));
    }
    if header[4] == 0 || header[5..] != [0; 3] {
        return Err(HeaderError::Damaged);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_bytes_are_fixed_forever() {
        assert_eq!(encode(MAGIC_WAL), *b"bwal\x01\0\0\0");
        assert_eq!(encode(MAGIC_BLOCK), *b"bblk\x01\0\0\0");
        assert_eq!(decode(b"bwal\x01\0\0\0", MAGIC_WAL), Ok(()));
        assert_eq!(decode(b"bwal\x02\0\0\0", MAGIC_WAL), Err(HeaderError::TooNew(2)));
        assert_eq!(decode(b"bblk\x01\0\0\0", MAGIC_WAL), Err(HeaderError::Magic));
        assert_eq!(decode(b"bwal\x01\0\0\x01", MAGIC_WAL), Err(HeaderError::Damaged));
        assert_eq!(decode(b"bwal", MAGIC_WAL), Err(HeaderError::Damaged));
    }
}
