//! Reading the log while it is written: every record, in order, once it is durable.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::record::{self, PREAMBLE_BYTES, PREFIX_BYTES, RECORD_MAX_BYTES};
use super::{Sequence, Wal, WalFileId, reader};
use crate::fs::ReadFile;

/// Read at once, unless a record is longer: some 10,000 samples.
const READ_BYTES: u64 = 128 * 1024;

/// A place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// The file in which the record stands.
    pub file: WalFileId,
    /// The record, and with it all before it.
    pub sequence: Sequence,
}

/// What was read at once, all of it from one file.
#[derive(Debug, Clone, Copy, Default)]
pub struct Piece {
    /// Up to here.
    pub place: Place,
    /// Whether it is the first piece of its file: what another file said of series is void.
    pub begins_file: bool,
    /// Whether nothing more was durable.
    pub is_end: bool,
    /// Records that are missing before it or in it: damaged, or in files that are gone.
    pub lost: u64,
}

/// Hears of a record, and whether it lies behind the place at which the follower began. Those before it are only told
/// for what they say of series.
type Hear<'h> = &'h mut dyn FnMut(RecordView<'_>);

/// A record as a follower sees it.
#[derive(Debug, Clone, Copy)]
pub struct RecordView<'r> {
    /// What it holds.
    pub kind: super::RecordKind,
    /// Its content.
    pub payload: &'r [u8],
    /// Whether it was not handed out before.
    pub is_new: bool,
}

/// Reads on from a place. Files are held for it until it is told that they are not needed.
pub struct Follower {
    wal: Arc<Wal>,
    file: WalFileId,
    offset: u64,
    open: Option<Open>,
    last: Sequence,
    held: Arc<AtomicU64>,
}

struct Open {
    file: Arc<dyn ReadFile>,
    salt: u64,
}

impl Follower {
    /// A follower behind `place`. A place that this log never had is its end.
    pub fn new(wal: Arc<Wal>, place: Place) -> Self {
        let held = wal.hold(place.file);
        Self { wal, file: place.file, offset: 0, open: None, last: place.sequence, held }
    }

    /// The files before this one may go.
    pub fn release_before(&self, file: WalFileId) {
        self.held.store(file.0, Ordering::Relaxed);
    }

    /// Waits for durable records for a while, and hands some of them out.
    ///
    /// # Errors
    /// A file could not be read. Nothing is skipped; try again.
    pub fn next(&mut self, wait: Duration, hear: Hear<'_>) -> io::Result<Piece> {
        let durable = self.wal.wait_durable(self.last, wait);
        let mut piece = Piece::default();
        while self.last < durable {
            if self.open()? {
                piece.begins_file |= self.offset == PREAMBLE_BYTES as u64;
                let read = self.read(durable, &mut piece, hear)?;
                if read > 0 {
                    piece.place = Place { file: self.file, sequence: self.last };
                    piece.is_end = self.last >= durable;
                    return Ok(piece);
                }
                if !self.wal.is_whole(self.file, durable) {
                    // A record that is said to be there cannot be read. It is looked for again, or skipped once the
                    // file is whole.
                    std::thread::sleep(wait);
                    break;
                }
                if self.skip_damage()? {
                    continue;
                }
            }
            let Some(next) = self.wal.file_behind(self.file) else {
                std::thread::sleep(wait);
                break;
            };
            self.leave_for(next, &mut piece);
        }
        piece.place = Place { file: self.file, sequence: self.last };
        piece.is_end = true;
        Ok(piece)
    }

    /// Opens the file at hand. `false`: it is gone, or has no records yet.
    fn open(&mut self) -> io::Result<bool> {
        if self.open.is_some() {
            return Ok(true);
        }
        let file = match self.wal.disk.open(&reader::path_of(&self.wal.dir, self.file)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let size = file.size()?;
        if size < PREAMBLE_BYTES as u64 {
            return Ok(false);
        }
        let mut start = vec![0; size.min(READ_BYTES) as usize];
        file.read_exact_at(&mut start, 0)?;
        self.open = Some(Open { file, salt: record::read_salt(&start) });
        self.offset = PREAMBLE_BYTES as u64;
        Ok(true)
    }

    /// Hands out what lies at the offset, and moves it. Answers how many whole records there were.
    fn read(&mut self, durable: Sequence, piece: &mut Piece, hear: Hear<'_>) -> io::Result<usize> {
        let Some(open) = &self.open else { return Ok(0) };
        let there = open.file.size()?.saturating_sub(self.offset);
        let mut wanted = READ_BYTES;
        loop {
            let mut bytes = vec![0; wanted.min(there) as usize];
            open.file.read_exact_at(&mut bytes, self.offset)?;
            let (mut at, mut count) = (0, 0);
            while let Some((record, size)) = record::decode(&bytes[at..], open.salt) {
                if record.sequence > durable {
                    break;
                }
                let is_new = record.sequence > self.last;
                if is_new {
                    piece.lost += record.sequence.0 - self.last.0 - 1;
                    self.last = record.sequence;
                }
                hear(RecordView { kind: record.kind, payload: record.payload, is_new });
                at += size;
                count += 1;
            }
            if count > 0 {
                self.offset += at as u64;
                return Ok(count);
            }
            let whole = record::size_said(&bytes).filter(|size| *size > wanted && *size <= there);
            match whole {
                Some(whole) => wanted = whole,
                None => return Ok(0),
            }
        }
    }

    /// Moves to the next whole record of a file that is whole. `false`: there is none.
    fn skip_damage(&mut self) -> io::Result<bool> {
        let Some(open) = &self.open else { return Ok(false) };
        let there = open.file.size()?.saturating_sub(self.offset);
        if there <= PREFIX_BYTES as u64 || there > reader::FILE_READ_MAX_BYTES {
            return Ok(false);
        }
        let mut bytes = vec![0; there as usize];
        open.file.read_exact_at(&mut bytes, self.offset)?;
        let found = reader::next_record(&bytes, open.salt, 1);
        if let Some(at) = found {
            self.offset += at as u64;
        }
        Ok(found.is_some())
    }

    fn leave_for(&mut self, next: WalFileId, piece: &mut Piece) {
        if let Some(last) = self.wal.last_of(self.file) {
            piece.lost += last.0.saturating_sub(self.last.0);
            self.last = self.last.max(last);
        }
        (self.file, self.offset, self.open) = (next, 0, None);
        piece.begins_file = true;
    }
}

const _: () = assert!(RECORD_MAX_BYTES as u64 > READ_BYTES, "records may be longer than one read");
