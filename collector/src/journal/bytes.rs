//! Bytes of a journal file, read a window at a time.
//!
//! journald writes the data of an entry, then the entry: the window begins before the object that it was read for.
//! Data that was written long ago (a unit's name) lies far behind it, and is read by itself.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Read at once where the file is read on.
const WINDOW_BYTES: usize = 64 * 1024;

/// Of these so many lie before the object that was asked for.
const BEFORE_BYTES: u64 = 32 * 1024;

/// Read at once of what lies elsewhere.
const ASIDE_BYTES: usize = 1024;

/// Why an object cannot be read.
#[derive(Debug)]
pub(super) enum Bad {
    /// It is not written yet; or never will be, if nobody writes to the file.
    Later,
    /// It contradicts the format.
    Corrupt,
    Io(io::Error),
}

impl From<io::Error> for Bad {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// An open file, and what was read of it last.
#[derive(Debug)]
pub(super) struct Bytes {
    pub(super) file: File,
    /// Bytes of the file at the last look.
    pub(super) size: u64,
    window: Piece,
    aside: Piece,
}

#[derive(Debug, Default)]
struct Piece {
    from: u64,
    bytes: Vec<u8>,
}

impl Piece {
    fn get(&self, offset: u64, length: usize) -> Option<&[u8]> {
        let at = usize::try_from(offset.checked_sub(self.from)?).ok()?;
        self.bytes.get(at..at.checked_add(length)?)
    }

    fn fill(&mut self, file: &File, from: u64, length: usize) -> io::Result<()> {
        if self.bytes.capacity() > 16 * WINDOW_BYTES && length <= WINDOW_BYTES {
            // One odd object needed it.
            self.bytes = Vec::new();
        }
        self.from = from;
        self.bytes.resize(length, 0);
        let mut filled = 0;
        while filled < length {
            match file.read_at(&mut self.bytes[filled..], from + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.bytes.clear();
                    return Err(error);
                }
            }
        }
        self.bytes.truncate(filled);
        Ok(())
    }
}

impl Bytes {
    pub(super) fn new(file: File) -> Self {
        Self { file, size: 0, window: Piece::default(), aside: Piece::default() }
    }

    /// Forgets what was read: more may be written there by now.
    pub(super) fn forget(&mut self) {
        self.window.bytes.clear();
        self.aside.bytes.clear();
    }

    /// Gives memory back.
    pub(super) fn rest(&mut self) {
        (self.window, self.aside) = (Piece::default(), Piece::default());
    }

    /// Bytes of the file. Callers bound `length`.
    pub(super) fn get(&mut self, offset: u64, length: usize) -> Result<&[u8], Bad> {
        let end = offset.checked_add(length as u64).ok_or(Bad::Corrupt)?;
        if end > self.size {
            return Err(Bad::Later);
        }
        let in_window = self.window.get(offset, length).is_some();
        if !in_window && self.aside.get(offset, length).is_none() {
            let is_ahead = offset >= self.window.from || self.window.bytes.is_empty();
            if is_ahead && length <= WINDOW_BYTES - BEFORE_BYTES as usize {
                self.window.fill(&self.file, offset.saturating_sub(BEFORE_BYTES), WINDOW_BYTES)?;
            } else {
                self.aside.fill(&self.file, offset, length.max(ASIDE_BYTES))?;
            }
        }
        let found = self.window.get(offset, length).or_else(|| self.aside.get(offset, length));
        // It became shorter since.
        found.ok_or(Bad::Later)
    }
}
