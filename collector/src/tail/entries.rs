//! Reading on in a journal: some entries, as a window is of lines.

use std::io;

use super::file::TURN_BYTES;
use super::records::{Cut, Opened};
use crate::journal::{Entry, Found, JournalFile};

/// Entries of one turn.
const TURN_ENTRIES: u64 = 256;

/// Entries of a turn, in memory that is used again.
#[derive(Debug, Default)]
pub(super) struct Entries {
    entries: Vec<(u64, Entry)>,
    used: usize,
}

impl Entries {
    /// Their numbers, and they.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Entry)> {
        self.entries[..self.used].iter().map(|(at, entry)| (*at, entry))
    }

    /// Reads on from entry `from` to `end`, which is not read, or to the end of a turn. What is not there yet ends it,
    /// unless it will never be.
    pub(super) fn read(
        &mut self,
        journal: &mut JournalFile,
        from: u64,
        end: u64,
        is_all: bool,
    ) -> io::Result<Cut> {
        self.used = 0;
        let mut cut = Cut { to: from, ..Cut::default() };
        let mut bytes = 0;
        while cut.to < end && cut.to - from < TURN_ENTRIES && bytes < TURN_BYTES {
            if self.used == self.entries.len() {
                self.entries.push(Default::default());
            }
            let (at, entry) = &mut self.entries[self.used];
            match journal.read(cut.to, entry, is_all)? {
                Found::Entry => {
                    *at = cut.to;
                    bytes += entry.size();
                    self.used += 1;
                }
                Found::Later if !is_all => {
                    cut.open = Some(Opened::Line);
                    break;
                }
                Found::Later | Found::Damaged => cut.malformed += 1,
            }
            cut.to += 1;
        }
        Ok(cut)
    }

    /// Gives back memory that odd entries needed.
    pub(super) fn rest(&mut self) {
        self.entries.iter_mut().for_each(|(_, entry)| entry.rest());
    }
}
