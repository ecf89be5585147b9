//! One file: what is known of it, and reading on in it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use binnacle_model::LogTime;
use binnacle_model::meaning::Around;

use super::entries::Entries;
use super::identity::{FIRST_MAX_BYTES, First, Inode};
use super::listing::{Listed, Order};
use super::multiline::Multiline;
use super::open::Root;
use super::records::{Cut, Cutter, GiveOut, LINE_MAX_BYTES, LineFormat, Opened, Passing, Window};
use super::source::Source;
use crate::journal::JournalFile;

/// Read of one file before the next has its turn (L15).
pub(super) const TURN_BYTES: usize = 256 * 1024;

/// Largest window: room for the longest line, and for what other streams wrote meanwhile.
const WINDOW_MAX_BYTES: usize = 4 * 1024 * 1024;

/// How far the end of a line is looked for that is too long, so that its length can be said.
const LINE_END_WITHIN: u64 = 64 * 1024 * 1024;

/// A partial line that nothing follows is given out after this long (L11).
const PARTIAL_WAIT_NS: i64 = 30_000_000_000;

/// A trace that nothing follows is given out after this long.
const TRACE_WAIT_NS: i64 = 1_000_000_000;

/// How a file begins, and its name in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) first: First,
    pub(super) key: String,
}

/// Where its bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// As they are; more may come.
    Plain,
    /// Compressed.
    Gzip,
    /// Compressed, in the spool.
    Spooled,
    /// Of systemd; more may come. Its places are numbers of entries.
    Journal,
}

/// How far a file has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It is not known how far the store has it.
    New,
    /// It is read.
    Placed,
    /// Another file holds the same lines, and is the one that is read.
    Copy,
}

/// A file of logs.
#[derive(Debug)]
pub(super) struct LogFile {
    /// In this process; parts of packs name files by it.
    pub(super) number: u64,
    pub(super) path: PathBuf,
    pub(super) inode: Inode,
    pub(super) order: Order,
    pub(super) kind: Kind,
    /// Offset of the first byte that a compressed file holds.
    pub(super) base: u64,
    /// Once its first line is whole.
    pub(super) identity: Option<Identity>,
    pub(super) phase: Phase,
    /// First byte that the store has not acknowledged.
    pub(super) acknowledged: u64,
    pub(super) passing_acknowledged: Option<Passing>,
    /// First byte that was not given out.
    pub(super) read_to: u64,
    pub(super) passing: Option<Passing>,
    /// Bytes that there were at the last look.
    pub(super) size: u64,
    pub(super) source: Option<Source>,
    pub(super) last_read: LogTime,
    /// When its directory ceased to show it.
    pub(super) gone: Option<LogTime>,
    /// All of a compressed file was given out.
    pub(super) has_ended: bool,
    /// Its size when it was still known to begin as it did.
    checked: u64,
    /// It became shorter, or begins otherwise than it did.
    begins_anew: bool,
    /// It could not be read; the next look tries again.
    pub(super) is_unreadable: bool,
    /// What stands open at `read_to`, and since when.
    open: Option<(Opened, LogTime)>,
    /// Size at which there was nothing to give out, and whether it took no more then.
    tried: Option<(u64, bool)>,
    /// Size some time ago, and when: how far behind the store is.
    seen: (u64, LogTime),
}

/// What reading on in a file came to.
#[derive(Debug, Default)]
pub(super) struct Turn {
    pub(super) from: u64,
    pub(super) cut: Cut,
}

/// Why a file was not read.
#[derive(Debug)]
pub(super) enum ReadError {
    /// It became shorter, or begins otherwise: what is there now is another file (L3).
    Truncated,
    /// It cannot be read now; if it vanished, that is normal (L10).
    Io(io::Error),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl LogFile {
    pub(super) fn new(number: u64, listed: &Listed, now: LogTime) -> Self {
        Self {
            number,
            path: listed.path.clone(),
            inode: listed.inode,
            order: listed.order.clone(),
            kind: listed.kind,
            base: 0,
            identity: None,
            phase: Phase::New,
            acknowledged: 0,
            passing_acknowledged: None,
            read_to: 0,
            passing: None,
            size: if listed.kind == Kind::Plain { listed.size } else { 0 },
            source: None,
            last_read: now,
            gone: None,
            has_ended: false,
            checked: 0,
            begins_anew: false,
            is_unreadable: false,
            open: None,
            tried: None,
            seen: (0, now),
        }
    }

    /// A file that lies in the spool, with the offsets of its first byte and behind its last one.
    pub(super) fn spooled(number: u64, path: PathBuf, order: Order, (base, size): (u64, u64)) -> Self {
        let listed = Listed { path, inode: Inode::default(), order, size: 0, kind: Kind::Spooled };
        Self { base, size, ..Self::new(number, &listed, LogTime(0)) }
    }

    /// From now on it lies in the spool.
    pub(super) fn spool_at(&mut self, path: PathBuf, base: u64) {
        (self.path, self.base, self.inode) = (path, base, Inode::default());
        (self.kind, self.gone) = (Kind::Spooled, None);
        (self.source, self.tried, self.has_ended) = (None, None, false);
    }

    /// From now on it is another file that holds the same lines.
    pub(super) fn moved_to(&mut self, other: &mut Self) {
        self.path = std::mem::take(&mut other.path);
        (self.inode, self.order, self.kind) = (other.inode, other.order.clone(), other.kind);
        (self.source, self.gone) = (other.source.take(), other.gone);
        (self.tried, self.base, self.begins_anew) = (None, other.base, false);
        // Nothing need be unpacked to know that there is nothing new in it.
        self.has_ended = self.is_compressed() && other.size == self.size && self.read_to == self.size;
        self.size = other.size.max(self.read_to);
    }

    /// Whether it is shorter than what was read of it, or begins otherwise.
    pub(super) fn is_cut_short(&self) -> bool {
        self.begins_anew
    }

    pub(super) fn is_compressed(&self) -> bool {
        matches!(self.kind, Kind::Gzip | Kind::Spooled)
    }

    /// Whether its directory says how much there is in it.
    pub(super) fn is_sized(&self) -> bool {
        self.kind == Kind::Plain
    }

    /// Bytes on disk that it holds as long as it is open.
    pub(super) fn held_bytes(&self) -> u64 {
        let metadata = self.source.as_ref().and_then(|source| source.file().metadata().ok());
        metadata.map_or(0, |metadata| metadata.len())
    }

    pub(super) fn is_spooled(&self) -> bool {
        self.kind == Kind::Spooled
    }

    pub(super) fn is_copy(&self) -> bool {
        self.phase == Phase::Copy
    }

    /// Learns how long it is. What became shorter is another file, and this one was as long as it was.
    pub(super) fn saw(&mut self, size: u64) {
        if !self.is_sized() {
            self.size = size.max(self.size);
            return;
        }
        self.begins_anew |= size < self.size;
        if !self.begins_anew {
            self.size = size;
        }
    }

    /// What it was when nobody could write to it any more.
    pub(super) fn look_at_last_size(&mut self) {
        let is_compressed = self.is_compressed();
        if let Some(source) = self.source.as_mut().filter(|_| !is_compressed)
            && let Ok((size, _)) = source.size()
        {
            self.saw(size);
        }
    }

    /// Nothing more can be read of it.
    pub(super) fn give_up(&mut self) {
        (self.source, self.size, self.has_ended) = (None, self.read_to, true);
    }

    /// Goes on at `place`.
    pub(super) fn place(&mut self, place: u64, passing: Option<Passing>) {
        let place = place.max(self.base);
        // Nothing need be unpacked of what the store has.
        self.has_ended = self.is_compressed() && place > 0 && place == self.size;
        (self.acknowledged, self.read_to, self.phase) = (place, place, Phase::Placed);
        (self.passing_acknowledged, self.passing) = (passing, passing);
    }

    /// What was given out and not acknowledged was not given out. It goes on once the store has said where.
    pub(super) fn await_place(&mut self) {
        (self.phase, self.read_to, self.passing) = (Phase::New, self.acknowledged, self.passing_acknowledged);
        (self.has_ended, self.tried, self.open) = (false, None, None);
        // Another one may have read what this one has not seen yet.
        self.look_at_last_size();
    }

    pub(super) fn open_source(&mut self, root: &Root) -> io::Result<()> {
        if self.source.is_some() {
            return Ok(());
        }
        let file = if self.is_spooled() { File::open(&self.path)? } else { root.open_file(&self.path)? };
        if !self.is_spooled() && Inode::of(&file.metadata()?) != self.inode {
            // Rotated since it was listed: the next listing knows both files.
            return Err(io::ErrorKind::NotFound.into());
        }
        self.source = Some(match self.kind {
            Kind::Journal => Source::Journal(Box::new(JournalFile::open(file)?)),
            _ => Source::new(file, self.is_compressed(), self.base),
        });
        Ok(())
    }

    /// Learns how it begins; `None` while its first line is not whole.
    pub(super) fn begin(&mut self, root: &Root, takes_no_more: bool) -> io::Result<Option<(First, Vec<u8>)>> {
        self.open_source(root)?;
        let Some(source) = &mut self.source else { return Ok(None) };
        let mut begin = Vec::new();
        if let Source::Journal(journal) = source {
            // It has a name of its own.
            begin = journal.id().into_bytes();
        } else {
            source.read(0, FIRST_MAX_BYTES, &mut begin)?;
        }
        let size = source.size()?.0;
        source.rest();
        self.saw(size);
        let first = First::of(&begin, takes_no_more || !self.is_sized());
        Ok(first.map(|first| {
            begin.truncate(first.len());
            (first, begin)
        }))
    }

    /// Bytes that the store has not acknowledged.
    pub(super) fn lag(&self) -> u64 {
        if self.is_copy() || (self.is_compressed() && self.has_ended && self.acknowledged == self.read_to) {
            return 0;
        }
        self.size.saturating_sub(self.acknowledged)
    }

    /// How long ago there was something that is not acknowledged yet, in nanoseconds.
    pub(super) fn behind_ns(&mut self, now: LogTime) -> i64 {
        if self.is_copy() || self.acknowledged >= self.seen.0 || self.lag() == 0 {
            self.seen = (self.size, now);
        }
        now.0.saturating_sub(self.seen.1.0)
    }

    /// Whether reading on may give something out. `takes_no_more` says that nothing will be added to it.
    pub(super) fn is_ready(&self, takes_no_more: bool, now: LogTime) -> bool {
        if self.phase != Phase::Placed || self.has_ended {
            return false;
        }
        let has_more = self.is_compressed() || self.read_to < self.size;
        has_more && (self.tried != Some((self.size, takes_no_more)) || self.waits(now) != GiveOut::Nothing)
    }

    /// Whether all of it was given out, so that the next file may be read.
    pub(super) fn is_read(&self) -> bool {
        self.is_copy() || self.has_ended || (!self.is_compressed() && self.read_to >= self.size)
    }

    /// What has waited long enough.
    fn waits(&self, now: LogTime) -> GiveOut {
        let Some((opened, since)) = self.open else { return GiveOut::Nothing };
        let age = now.0.saturating_sub(since.0);
        match opened {
            _ if age > PARTIAL_WAIT_NS => GiveOut::All,
            Opened::Trace if age > TRACE_WAIT_NS => GiveOut::Traces,
            _ => GiveOut::Nothing,
        }
    }

    /// Reads a window and cuts it. What was cut counts as given out.
    pub(super) fn read(
        &mut self,
        root: &Root,
        (format, multiline, zone_seconds): (LineFormat, &Multiline, i32),
        takes_no_more: bool,
        now: LogTime,
        (buffer, cutter): (&mut Vec<u8>, &mut Cutter),
    ) -> Result<Turn, ReadError> {
        self.open_source(root)?;
        self.check_beginning(buffer)?;
        let from = self.read_to;
        let source = self.source.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let mut source = source;
        let cut =
            self.window(&mut source, (format, multiline, zone_seconds), takes_no_more, now, (buffer, cutter));
        // Whatever came of it: what was deleted can be read by it alone.
        self.source = Some(source);
        let (cut, ended) = cut?;
        self.has_ended = ended && self.is_compressed() && cut.to == from + buffer.len() as u64;
        Ok(self.turn(from, cut, takes_no_more, now))
    }

    /// As [`Self::read`], of a journal: entries instead of a window.
    pub(super) fn read_entries(
        &mut self,
        root: &Root,
        takes_no_more: bool,
        now: LogTime,
        (buffer, entries): (&mut Vec<u8>, &mut Entries),
    ) -> Result<Turn, ReadError> {
        self.open_source(root)?;
        self.check_beginning(buffer)?;
        // What is not written yet will never be, if nobody writes, or if it takes too long.
        let is_all = takes_no_more || self.waits(now) == GiveOut::All;
        let (from, size) = (self.read_to, self.size);
        let Some(Source::Journal(journal)) = &mut self.source else {
            return Err(io::Error::from(io::ErrorKind::NotFound).into());
        };
        let cut = entries.read(journal, from, size, is_all)?;
        if takes_no_more && cut.to == size {
            journal.rest();
        }
        Ok(self.turn(from, cut, takes_no_more, now))
    }

    /// What was cut counts as given out.
    fn turn(&mut self, from: u64, cut: Cut, takes_no_more: bool, now: LogTime) -> Turn {
        if cut.to == from {
            self.tried = Some((self.size, takes_no_more));
        } else {
            self.tried = None;
            self.open = None;
        }
        let was = self.open.filter(|(opened, _)| Some(*opened) == cut.open);
        self.open = was.or(cut.open.map(|opened| (opened, now)));
        (self.read_to, self.passing, self.last_read) = (cut.to, cut.passing, now);
        Turn { from, cut }
    }

    /// A window in which something ends, or all that there is. Answers whether the bytes end with it.
    fn window(
        &self,
        source: &mut Source,
        (format, multiline, zone_seconds): (LineFormat, &Multiline, i32),
        takes_no_more: bool,
        now: LogTime,
        (buffer, cutter): (&mut Vec<u8>, &mut Cutter),
    ) -> io::Result<(Cut, bool)> {
        let (mut wanted, mut give_out, from) = (TURN_BYTES, self.waits(now), self.read_to);
        let changed = (format == LineFormat::Plain).then(|| source.changed()).flatten();
        let around = Around { near: changed.filter(|changed| *changed < now).unwrap_or(now), zone_seconds };
        loop {
            let ended = source.read(from, wanted, buffer)?;
            let is_end = ended && (takes_no_more || self.is_compressed());
            let passing = self.passing;
            let window = Window { bytes: buffer, from, passing, is_end, give_out, now, around };
            let cut = cutter.cut(window, format, multiline);
            // A full window in which what began first has no end is given out as it is.
            if cut.to > from || ended || give_out == GiveOut::All {
                self.measure(source, from, buffer.len(), cut, cutter)?;
                return Ok((cut, ended));
            }
            if wanted == WINDOW_MAX_BYTES {
                let has_tried = give_out == GiveOut::Traces;
                give_out = if has_tried { GiveOut::All } else { GiveOut::Traces };
            }
            wanted = (wanted * 4).min(WINDOW_MAX_BYTES);
        }
    }

    /// That it is still the file that was read, and how long it is by now.
    fn check_beginning(&mut self, buffer: &mut Vec<u8>) -> Result<(), ReadError> {
        let (Some(source), Some(identity)) = (&mut self.source, &self.identity) else { return Ok(()) };
        let size = source.size()?.0;
        let fits = match source {
            Source::Plain(file) => {
                buffer.resize(identity.first.len(), 0);
                let read = file.read_at(buffer, 0)?;
                identity.first.fits(&buffer[..read])
            }
            Source::Gzip(_) => true,
            Source::Journal(journal) => identity.first.fits(journal.id().as_bytes()),
        };
        if fits {
            self.saw(size);
            self.checked = self.size;
        } else if !self.begins_anew {
            // What was seen since then may be of the other file already.
            (self.begins_anew, self.size) = (true, self.checked);
        }
        if self.begins_anew { Err(ReadError::Truncated) } else { Ok(()) }
    }

    /// Looks for the end of a line of which only the beginning was kept.
    fn measure(
        &self,
        source: &mut Source,
        from: u64,
        read: usize,
        cut: Cut,
        cutter: &mut Cutter,
    ) -> io::Result<()> {
        let Some(record) = cutter.records().last().filter(|_| cut.passing == Some(Passing::Line)) else {
            return Ok(());
        };
        let (offset, header) = (record.offset, record.header_bytes);
        if self.passing == Some(Passing::Line) && offset == from {
            return Ok(());
        }
        let Source::Plain(file) = source else { return Ok(()) };
        let mut at = from + read as u64;
        let mut piece = vec![0; TURN_BYTES];
        while at - offset < LINE_END_WITHIN {
            let read = file.read_at(&mut piece, at)?;
            if read == 0 {
                break;
            }
            if let Some(end) = memchr::memchr(b'\n', &piece[..read]) {
                cutter.measured(offset, at + end as u64 - offset - header);
                break;
            }
            at += read as u64;
        }
        Ok(())
    }

    /// The store has it up to `to`.
    pub(super) fn acknowledge(&mut self, to: u64, passing: Option<Passing>) {
        self.acknowledged = self.acknowledged.max(to);
        self.passing_acknowledged = passing;
    }
}

/// A line cannot fill the largest window.
const _: () = assert!(WINDOW_MAX_BYTES > 2 * LINE_MAX_BYTES);
