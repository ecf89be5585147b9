//! The journal of systemd, read from its files: without its library, without a running journald, and without a lock.
//!
//! ```text
//! header    which file it is, how many entries it has by now
//! bytes     what is read of it, a window at a time
//! file      entry arrays ─► entry ─► its data objects, unpacked where they are compressed
//! line      what an entry says: unit, level, time, message, attributes
//! ```
//!
//! Written after systemd's `JOURNAL_FILE_FORMAT` and what its release 257 writes. The place of an entry is its number
//! in the file, from zero: journald only ever adds entries, so that it never changes.
//!
//! Invariants:
//! - Nothing of a file is believed: offsets lie within it and are aligned, chains only lead forward, sizes are bounded
//!   before anything is allocated.
//! - What is not written yet is asked for again; what contradicts the format costs one entry, or one field of it.
//! - Files are read with `pread`; another process may write to them, rename or delete them at any time.

mod bytes;
mod file;
mod header;
mod line;
mod unpack;

pub(crate) use file::{Entry, Found, JournalFile};
pub use line::Units;
pub(crate) use line::{Value, line};

/// Reads bytes as a journal; for whoever throws bytes at it.
///
/// # Errors
/// The file system's.
pub fn try_journal(file: std::fs::File) -> std::io::Result<()> {
    let Ok(mut journal) = JournalFile::open(file) else { return Ok(()) };
    let mut entry = Entry::default();
    for at in 0..journal.entries().min(10_000) {
        if journal.read(at, &mut entry, at % 2 == 0)? == Found::Entry {
            let said = line(&entry);
            assert!(said.message.len() <= file::MESSAGE_MAX_BYTES, "messages are bounded");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
