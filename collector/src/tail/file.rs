//! One file: whole lines from an offset, and what they say.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use binnacle_model::LogTime;
use binnacle_model::meaning;
use binnacle_model::push::{FileBatch, Pair, PushEntry};

use super::checkpoint::Checkpoint;
use super::cri;
use super::discover::{Found, LineFormat, file_id};
use crate::Telemetry;

/// Read from one file before the next has its turn.
const READ_BYTES: usize = 1024 * 1024;

/// Longest message; of a longer one the beginning is kept (L11, L12).
const MESSAGE_MAX_BYTES: usize = 1024 * 1024;

/// A partial line that nothing follows is given out after this long (L11).
const PARTIAL_WAIT_NS: i64 = 30_000_000_000;

/// A file being tailed.
#[derive(Debug)]
pub(super) struct TailedFile {
    id: String,
    file: File,
    stream: Vec<Pair>,
    format: LineFormat,
    older: Option<String>,
    rotated: bool,
    truncations: u32,
    /// First byte that the store has not acknowledged.
    acknowledged: u64,
    /// First byte that was not read yet.
    position: u64,
    /// Whether the rest of a line that was too long is being passed over.
    skipping: bool,
    /// Partial lines by stream, and entries that stand behind one of them in the file.
    partial: BTreeMap<&'static str, Partial>,
    held: Vec<PushEntry>,
    /// State at `acknowledged`, to go back to if a push fails.
    sent_to: u64,
    size: u64,
}

/// The beginning of a message whose end has not come.
#[derive(Debug)]
struct Partial {
    offset: u64,
    time: LogTime,
    message: Vec<u8>,
    /// When its first piece came, by our clock.
    since: LogTime,
    /// It became too long and was given out; what follows up to its end is passed over.
    given_out: bool,
}

impl TailedFile {
    /// Opens a file at its checkpoint. Never follows a link, never waits for a pipe (L8).
    pub(super) fn open(found: Found, checkpoint: Checkpoint, node: &str) -> io::Result<Self> {
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
        let file = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(&found.path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        if file_id(&file.metadata()?, node) != found.id {
            // Rotated since it was listed: the next listing knows both files.
            return Err(io::ErrorKind::NotFound.into());
        }
        let Checkpoint { offset, truncations } = checkpoint;
        Ok(Self {
            id: found.id,
            file,
            stream: found.stream,
            format: found.format,
            older: found.older,
            rotated: found.rotated,
            truncations,
            acknowledged: offset,
            position: offset,
            skipping: false,
            partial: BTreeMap::new(),
            held: Vec::new(),
            sent_to: offset,
            size: offset,
        })
    }

    /// Takes over what a later listing says of the same file.
    pub(super) fn renamed(&mut self, found: &Found) {
        self.rotated = found.rotated;
        self.older.clone_from(&found.older);
    }

    /// The file that must be read to its end before this one.
    pub(super) fn waits_for(&self) -> Option<String> {
        self.older.clone()
    }

    /// Whether all of it is acknowledged and no more will come.
    pub(super) fn is_done(&self) -> bool {
        let size = self.file.metadata().map_or(0, |metadata| metadata.len());
        let is_gone = self.file.metadata().is_ok_and(|m| std::os::unix::fs::MetadataExt::nlink(&m) == 0);
        (self.rotated || is_gone) && self.acknowledged >= size
    }

    /// Bytes that were written and not acknowledged.
    pub(super) fn lag_bytes(&self) -> u64 {
        self.size.saturating_sub(self.acknowledged)
    }

    /// Where to go on after a restart.
    pub(super) fn checkpoint(&self) -> Checkpoint {
        Checkpoint { offset: self.acknowledged, truncations: self.truncations }
    }

    /// The store has all that was given out.
    pub(super) fn acknowledged(&mut self) {
        self.acknowledged = self.sent_to;
    }

    /// The store has not taken what was given out: it will be read again.
    pub(super) fn rewind(&mut self) {
        self.position = self.acknowledged;
        self.sent_to = self.acknowledged;
        self.skipping = false;
        self.partial.clear();
        self.held.clear();
    }

    /// Reads on; answers what can be sent, if there is anything.
    pub(super) fn read(&mut self, now: LogTime, telemetry: &Telemetry) -> io::Result<Option<FileBatch>> {
        self.size = self.file.metadata()?.len();
        if self.size < self.position {
            // Copied and truncated: what is there now is another file under the same identity (L3).
            telemetry.files_truncated.inc();
            self.truncations += 1;
            self.acknowledged = 0;
            self.rewind();
        }
        // A file without a name takes no more lines.
        self.rotated |= std::os::unix::fs::MetadataExt::nlink(&self.file.metadata()?) == 0;
        let wanted = (self.size - self.position).min(READ_BYTES as u64) as usize;
        let mut buffer = vec![0; wanted];
        let read = self.file.read_at(&mut buffer, self.position)?;
        buffer.truncate(read);
        telemetry.bytes_read.inc_by(read as u64);
        let mut entries = std::mem::take(&mut self.held);
        self.cut_lines(&buffer, now, &mut entries, telemetry);
        self.give_out_stale(now, &mut entries);
        entries.sort_by_key(|entry| entry.offset);
        // An entry behind an unfinished one waits, so that the batch ends where nothing is open.
        let open = self.partial.values().filter(|partial| !partial.given_out);
        let end = open.map(|partial| partial.offset).min().unwrap_or(self.position);
        let cut = entries.partition_point(|entry| entry.offset < end);
        self.held = entries.split_off(cut);
        let from = self.sent_to;
        if end == from {
            return Ok(None);
        }
        self.sent_to = end;
        let file = match self.truncations {
            0 => self.id.clone(),
            times => format!("{}#{times}", self.id),
        };
        Ok(Some(FileBatch { file, from, to: end, stream: self.stream.clone(), entries, shared: Vec::new() }))
    }

    /// Takes the whole lines of `buffer`, which begins at the position, and moves past them.
    fn cut_lines(
        &mut self,
        buffer: &[u8],
        now: LogTime,
        entries: &mut Vec<PushEntry>,
        telemetry: &Telemetry,
    ) {
        let mut at = 0;
        while let Some(length) = memchr::memchr(b'\n', &buffer[at..]) {
            let line = &buffer[at..at + length];
            let offset = self.position + at as u64;
            at += length + 1;
            if std::mem::take(&mut self.skipping) {
                continue;
            }
            telemetry.lines_read.inc();
            self.line(line, offset, now, entries, telemetry);
        }
        let rest = &buffer[at..];
        let offset = self.position + at as u64;
        self.position = offset;
        let is_last = self.rotated && self.position + rest.len() as u64 >= self.size;
        if rest.len() >= MESSAGE_MAX_BYTES.min(READ_BYTES) {
            // A line without an end: its beginning counts, the rest is passed over.
            if !std::mem::replace(&mut self.skipping, true) {
                telemetry.lines_truncated.inc();
                self.line(rest, offset, now, entries, telemetry);
            }
            self.position += rest.len() as u64;
        } else if self.skipping && !rest.is_empty() {
            self.position += rest.len() as u64;
        } else if is_last && !rest.is_empty() {
            // The last line of a file that takes no more has no end, and never will.
            self.line(rest, offset, now, entries, telemetry);
            self.position += rest.len() as u64;
        }
    }

    fn line(
        &mut self,
        line: &[u8],
        offset: u64,
        now: LogTime,
        entries: &mut Vec<PushEntry>,
        telemetry: &Telemetry,
    ) {
        let parsed = if self.format == LineFormat::Cri { cri::parse(line) } else { None };
        let Some(parsed) = parsed else {
            if self.format == LineFormat::Cri {
                telemetry.lines_malformed.inc();
            }
            let message = line.strip_suffix(b"\r").unwrap_or(line);
            entries.push(entry(offset, now, "", message.to_vec()));
            return;
        };
        let key = if parsed.iostream == "stdout" { "stdout" } else { "stderr" };
        let begun = self.partial.remove(key);
        let mut partial = begun.unwrap_or_else(|| Partial {
            offset,
            time: parsed.time,
            message: Vec::new(),
            since: now,
            given_out: false,
        });
        if !partial.given_out {
            let room = MESSAGE_MAX_BYTES.saturating_sub(partial.message.len());
            partial.message.extend_from_slice(&parsed.message[..parsed.message.len().min(room)]);
            let is_full = parsed.message.len() > room;
            if is_full {
                telemetry.lines_truncated.inc();
            }
            if is_full || !parsed.partial {
                let message = std::mem::take(&mut partial.message);
                entries.push(entry(partial.offset, partial.time, key, message));
                partial.given_out = true;
            }
        }
        if parsed.partial {
            self.partial.insert(key, partial);
        }
    }

    /// Gives out partial lines for whose end there is no more hope.
    fn give_out_stale(&mut self, now: LogTime, entries: &mut Vec<PushEntry>) {
        let is_over = self.rotated && self.position >= self.size;
        let mut kept = BTreeMap::new();
        for (iostream, partial) in std::mem::take(&mut self.partial) {
            let is_stale = now.0 - partial.since.0 > PARTIAL_WAIT_NS;
            if partial.given_out && is_over {
                continue;
            }
            if !partial.given_out && (is_over || is_stale) {
                entries.push(entry(partial.offset, partial.time, iostream, partial.message));
            } else {
                kept.insert(iostream, partial);
            }
        }
        self.partial = kept;
    }
}

fn entry(offset: u64, time: LogTime, iostream: &str, message: Vec<u8>) -> PushEntry {
    // Fields within the message are the store's to find.
    PushEntry {
        time_ns: time.0,
        offset,
        level: meaning::level(&message).to_owned(),
        iostream: iostream.to_owned(),
        fields: Vec::new(),
        message,
        shared: 0,
    }
}
