//! Which file is which, whatever it is called.
//!
//! A name changes at each rotation, an inode is used again, a device gets another number at a reboot, and what is
//! compressed or copied is another file with the same lines. What all of these keep is how the file begins.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// So many bytes of the first line tell a file from others; it may be shorter (L7).
pub(super) const FIRST_MAX_BYTES: usize = 1024;

/// What the directory says of a file: enough to know it again as long as it is not renamed across devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Inode {
    device: u64,
    number: u64,
    /// Nanoseconds since 1970, or zero where the file system does not say: inodes are used again (L5).
    born_ns: u128,
}

impl Inode {
    pub(super) fn of(metadata: &Metadata) -> Self {
        let born = metadata.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let born_ns = born.map_or(0, |born| born.as_nanos());
        Self { device: metadata.dev(), number: metadata.ino(), born_ns }
    }

    #[cfg(test)]
    pub(super) fn numbered(number: u64) -> Self {
        Self { number, ..Self::default() }
    }

    /// Its number on its device.
    pub(super) fn number(self) -> u64 {
        self.number
    }

    /// When the file was made, if the file system says so.
    pub(super) fn born_ns(self) -> Option<u128> {
        Some(self.born_ns).filter(|born| *born > 0)
    }
}

/// How a file begins: its first line, or as much of it as [`FIRST_MAX_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct First {
    bytes: u16,
    hash: u64,
}

impl First {
    /// `None` while the line may still grow.
    pub(super) fn of(begin: &[u8], takes_no_more: bool) -> Option<Self> {
        let begin = &begin[..begin.len().min(FIRST_MAX_BYTES)];
        let bytes = match memchr::memchr(b'\n', begin) {
            Some(end) => end + 1,
            None if begin.len() == FIRST_MAX_BYTES || (takes_no_more && !begin.is_empty()) => begin.len(),
            None => return None,
        };
        Some(Self { bytes: bytes as u16, hash: xxh3_64(&begin[..bytes]) })
    }

    /// Bytes of the file that it is about.
    pub(super) fn len(self) -> usize {
        usize::from(self.bytes)
    }

    /// Whether a file that begins with `begin` is the same.
    pub(super) fn fits(self, begin: &[u8]) -> bool {
        begin.get(..self.len()).is_some_and(|begin| xxh3_64(begin) == self.hash)
    }
}

/// The name of a file in the store, from which it knows how far the file was taken.
///
/// Lines of containers begin with their time in nanoseconds: no two files of a container begin alike, and its first
/// line names a file also after it was compressed or copied, or when nothing is remembered of it. Other files may well
/// begin alike, each day anew (L6): of these the inode is a part of the name.
pub(super) fn file_key(node: &str, family: &str, inode: Option<Inode>, begin: &[u8]) -> String {
    let mut hash = Xxh3::new();
    hash.update(family.as_bytes());
    hash.update(&[0]);
    if let Some(inode) = inode {
        // Not the device: its number may change with the next start of the machine.
        hash.update(&inode.number.to_le_bytes());
        hash.update(&inode.born_ns.to_le_bytes());
    }
    hash.update(begin);
    format!("{node}/{:032x}", hash.digest128())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_line_counts_once_it_is_whole() {
        assert_eq!(First::of(b"", true), None);
        assert_eq!(First::of(b"begun", false), None);
        let whole = First::of(b"begun\nnext", false).unwrap();
        assert_eq!((whole.len(), First::of(b"begun\n", false)), (6, Some(whole)));
        assert!(whole.fits(b"begun\nother") && !whole.fits(b"begun") && !whole.fits(b"Begun\n"));
        assert_eq!(First::of(b"begun", true).unwrap().len(), 5);
        let endless = vec![b'x'; 5000];
        assert_eq!(First::of(&endless, false).unwrap().len(), FIRST_MAX_BYTES);
    }

    #[test]
    fn a_key_is_of_node_family_inode_and_beginning() {
        let inode = |number| Some(Inode { device: 1, number, born_ns: 5 });
        let keys = [
            file_key("n", "a", None, b"x\n"),
            file_key("m", "a", None, b"x\n"),
            file_key("n", "b", None, b"x\n"),
            file_key("n", "a", inode(1), b"x\n"),
            file_key("n", "a", inode(2), b"x\n"),
            file_key("n", "a", None, b"y\n"),
        ];
        let different: std::collections::HashSet<&String> = keys.iter().collect();
        assert_eq!(different.len(), keys.len());
        let moved = Some(Inode { device: 2, number: 1, born_ns: 5 });
        assert_eq!(file_key("n", "a", moved, b"x\n"), keys[3], "the device's number may change");
    }
}
