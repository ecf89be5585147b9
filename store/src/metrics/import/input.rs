//! A file of somebody else's, read piece by piece, with a word on where it is wrong.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::ImportError;
use crate::fs::{Disk, ReadFile};

/// Most pieces are small and follow one another.
const READ_AHEAD_BYTES: u64 = 64 << 10;

/// An open file, and what was last read of it.
pub(super) struct Input {
    path: PathBuf,
    file: Arc<dyn ReadFile>,
    size: u64,
    buffer: Vec<u8>,
    from: u64,
}

impl Input {
    pub(super) fn open(disk: &dyn Disk, path: &Path) -> Result<Self, ImportError> {
        let read = |cause| ImportError::Read { path: path.to_path_buf(), cause };
        let file = disk.open(path).map_err(read)?;
        let size = file.size().map_err(read)?;
        Ok(Self { path: path.to_path_buf(), file, size, buffer: Vec::new(), from: 0 })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// The bytes at `offset`. Reads no more than the file has, so that a damaged size asks for no memory.
    pub(super) fn at(&mut self, offset: u64, count: u64) -> Result<&[u8], ImportError> {
        let there = self.size.saturating_sub(offset);
        if count > there {
            return Err(self.corrupt(offset, "it ends too soon"));
        }
        let end = self.from + self.buffer.len() as u64;
        if offset < self.from || offset + count > end {
            self.buffer.clear();
            self.buffer.resize(count.max(READ_AHEAD_BYTES).min(there) as usize, 0);
            self.from = offset;
            if let Err(cause) = self.file.read_exact_at(&mut self.buffer, offset) {
                self.buffer.clear();
                return Err(ImportError::Read { path: self.path.clone(), cause });
            }
        }
        let start = (offset - self.from) as usize;
        Ok(&self.buffer[start..start + count as usize])
    }

    /// As [`Self::at`], where behind the bytes stands their CRC-32C.
    pub(super) fn checked(&mut self, offset: u64, count: u64) -> Result<&[u8], ImportError> {
        let count_all = count.saturating_add(4);
        let (bytes, crc) = self.at(offset, count_all)?.split_at(count as usize);
        if crc != crc32c::crc32c(bytes).to_be_bytes() {
            return Err(self.corrupt(offset, "the checksum is wrong"));
        }
        // Once more, because the error above needs the whole of `self`.
        Ok(&self.at(offset, count_all)?[..count as usize])
    }

    /// As [`Self::at`], up to `count` bytes and no more than there are.
    pub(super) fn up_to(&mut self, offset: u64, count: u64) -> Result<&[u8], ImportError> {
        self.at(offset, count.min(self.size.saturating_sub(offset)))
    }

    /// A file begins with a magic of four bytes and a version.
    pub(super) fn version(&mut self, magic: u32, newest: u8) -> Result<u8, ImportError> {
        let head = self.at(0, 5)?;
        let (is_it, found) = (head[..4] == magic.to_be_bytes(), head[4]);
        if !is_it {
            return Err(self.corrupt(0, "it does not begin as such a file does"));
        }
        if found == 0 || found > newest {
            return Err(ImportError::TooNew { path: self.path.clone(), found: u64::from(found), newest });
        }
        Ok(found)
    }

    pub(super) fn corrupt(&self, offset: u64, reason: &'static str) -> ImportError {
        ImportError::Corrupt { path: self.path.clone(), offset, reason }
    }
}
