//! Checkpoints: the head in one file, so that a start reads what came after it and not the whole log.
//!
//! A checkpoint is a convenience: the log keeps everything until blocks have it, and one that cannot be read costs
//! time alone.
//!
//! ```text
//! file    := header section*                      header: "bchk", version 1
//! section := length:u32 crc:u32 payload           CRC-32C of the payload
//! payload := 0 state | 1 group | 2 groups:varint  the last of them ends the file
//! state   := files ranges newest next_block:varint cut_file:varint
//! files   := count (file:varint sequence:varint)*     of the log, sealed; the head has all that they say
//! ranges  := count (file:varint start:zigzag end:zigzag)*
//! newest  := 0 | 1 time:zigzag
//! group   := see `head::saved`
//! ```

use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{PoisonError, mpsc};
use std::thread;

use super::Metrics;
use super::block::Cut;
use super::head::{Group, Head, Loader, Place, SavedState, Saver, SeriesNumbers};
use crate::bytes::{Reader, put_varint};
use crate::fs::{Disk, ReadFile, WriteFile};
use crate::header::{self, CHECKPOINT_VERSION, HEADER_BYTES, MAGIC_CHECKPOINT};
use crate::wal::{SealedFile, WalFileId};

const NAME: &str = "head.checkpoint";

/// Series that are copied out of the head under one lock.
const PLACES_PER_GROUP: usize = 256;

/// Groups that are decoded before the head has taken those before them.
const GROUPS_AHEAD: usize = 16;

/// A clean stop saves the head from so many bytes of the log on; fewer are read in no time.
const CLOSE_MIN_BYTES: u64 = 1024 * 1024;

const STATE: u8 = 0;
const GROUP: u8 = 1;
const END: u8 = 2;

/// The checkpoint on disk, if any.
#[derive(Debug, Default)]
pub(super) struct Saved {
    /// Its size; zero if there is none.
    bytes: u64,
    /// Files of the log that it makes needless.
    pub(super) files: Vec<SealedFile>,
    /// What had gone into blocks when it was written.
    cut: Option<binnacle_model::Timestamp>,
}

impl Saved {
    /// The last file that needs no replay, of those that `cut` leaves.
    pub(super) fn through(&self) -> Option<WalFileId> {
        self.files.last().map(|file| file.id)
    }
}

/// A head as its checkpoint has it.
pub(super) struct Loaded {
    pub(super) head: Head,
    pub(super) names: SeriesNumbers,
    pub(super) saved: Saved,
    /// No block that comes has a lower number.
    pub(super) next_block: u64,
}

/// Reads the checkpoint in `dir` into a head that `make` makes. `None` if there is none, or if it cannot be read;
/// then it is removed, so that nobody reads it later, when it says less than the log.
pub(super) fn load(
    disk: &dyn Disk,
    dir: &Path,
    cut: Cut,
    make: impl FnOnce() -> Head,
) -> io::Result<Option<Loaded>> {
    let path = dir.join(NAME);
    if !disk.exists(&path)? {
        return Ok(None);
    }
    let loaded = disk.open(&path).and_then(|file| read(&*file, cut, make()));
    match loaded {
        Ok(loaded) => Ok(Some(loaded)),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "checkpoint not used; the whole log is replayed");
            disk.remove_file(&path)?;
            disk.sync_dir(dir)?;
            Ok(None)
        }
    }
}

/// Sections of a file, front to back.
struct Sections<'f> {
    file: &'f dyn ReadFile,
    at: u64,
    size: u64,
    payload: Vec<u8>,
}

impl Sections<'_> {
    fn next(&mut self) -> io::Result<(u8, &[u8])> {
        let mut frame = [0; 8];
        self.file.read_exact_at(&mut frame, self.at)?;
        let mut fields = Reader::new(&frame);
        let (Some(length), Some(crc)) = (fields.u32(), fields.u32()) else { return Err(damaged(self.at)) };
        let begin = self.at + frame.len() as u64;
        if u64::from(length) > self.size.saturating_sub(begin) {
            return Err(damaged(self.at));
        }
        self.payload.resize(length as usize, 0);
        self.file.read_exact_at(&mut self.payload, begin)?;
        if crc32c::crc32c(&self.payload) != crc {
            return Err(damaged(self.at));
        }
        self.at = begin + u64::from(length);
        match self.payload.split_first() {
            Some((kind, rest)) => Ok((*kind, rest)),
            None => Err(damaged(begin)),
        }
    }
}

fn damaged(at: u64) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("damaged at byte {at}"))
}

fn read(file: &dyn ReadFile, cut: Cut, mut head: Head) -> io::Result<Loaded> {
    let mut start = [0; HEADER_BYTES];
    file.read_exact_at(&mut start, 0)?;
    header::decode(&start, MAGIC_CHECKPOINT, CHECKPOINT_VERSION).map_err(io::Error::other)?;
    let mut sections = Sections { file, at: HEADER_BYTES as u64, size: file.size()?, payload: Vec::new() };
    let (kind, payload) = sections.next()?;
    let state = (kind == STATE).then(|| SavedState::decode(payload)).flatten();
    let state = state.ok_or_else(|| damaged(HEADER_BYTES as u64))?;
    if state.cut_file > cut.wal_file {
        return Err(io::Error::other("a block that it relies on is gone"));
    }
    let mut loader = Loader::default();
    if state.through().is_some_and(|through| through <= cut.wal_file) {
        // It was written before a block was.
        loader.kept_from = Some(cut.before);
    }
    // One core reads and decodes, the other one makes series.
    let bytes = thread::scope(|scope| {
        let (sender, groups) = mpsc::sync_channel(GROUPS_AHEAD);
        let reading = scope.spawn(move || read_groups(sections, &sender));
        for (at, group) in groups {
            head.load(group, &mut loader).ok_or_else(|| damaged(at))?;
        }
        reading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    let saved = Saved { bytes, files: state.files.clone(), cut: None };
    let next_block = state.next_block;
    head.restore_state(state);
    Ok(Loaded { head, names: loader.names, saved, next_block })
}

/// Reads the groups behind the state, each of which is sent with its place. Answers where they end.
fn read_groups(mut sections: Sections<'_>, sender: &mpsc::SyncSender<(u64, Group)>) -> io::Result<u64> {
    let mut groups = 0;
    loop {
        let at = sections.at;
        match sections.next()? {
            (GROUP, payload) => {
                let group = Group::decode(payload).ok_or_else(|| damaged(at))?;
                if sender.send((at, group)).is_err() {
                    // Whoever took them met one that is damaged, and says so.
                    return Ok(at);
                }
            }
            (END, payload) if Reader::new(payload).varint() == Some(groups) => return Ok(sections.at),
            _ => return Err(damaged(at)),
        }
        groups += 1;
    }
}

/// A file of sections being written.
struct Writer {
    file: Box<dyn WriteFile>,
    bytes: u64,
}

impl Writer {
    fn section(&mut self, kind: u8, build: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let mut out = vec![0; 8];
        out.push(kind);
        build(&mut out);
        let length = u32::try_from(out.len() - 8)
            .map_err(|_| io::Error::other("a section of the checkpoint passes 4 GiB"))?;
        let crc = crc32c::crc32c(&out[8..]);
        out[..4].copy_from_slice(&length.to_le_bytes());
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        self.bytes += out.len() as u64;
        self.file.append(&out)
    }
}

/// Called once the log's files are sealed: whoever else needs them must be done with them before a start skips them.
pub(super) type Before<'b> = &'b dyn Fn() -> io::Result<()>;

impl Metrics {
    /// Writes a checkpoint if enough has come since the last one, or if blocks have most of it by now. The caller
    /// holds `moving`.
    pub(super) fn checkpoint_if_due(&self, before: Before<'_>) -> io::Result<()> {
        let is_due = {
            let (head, saved) = (self.head(), self.saved());
            let least = self.options.checkpoint_bytes.max(saved.bytes / 2);
            head.unsaved_bytes() >= least || (saved.bytes > 0 && head.last_cut() != saved.cut)
        };
        if is_due { self.checkpoint(before) } else { Ok(()) }
    }

    /// Writes a checkpoint at a clean stop, so that the next start is a quick one.
    pub(crate) fn close(&self, before: Before<'_>) -> io::Result<()> {
        let _moving = self.moving.lock().unwrap_or_else(PoisonError::into_inner);
        let is_worth = self.head().unsaved_bytes() >= CLOSE_MIN_BYTES;
        if is_worth { self.checkpoint(before) } else { Ok(()) }
    }

    /// Of the last one.
    pub(super) fn checkpoint_bytes(&self) -> u64 {
        self.saved().bytes
    }

    fn saved(&self) -> std::sync::MutexGuard<'_, Saved> {
        self.saved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn checkpoint(&self, before: Before<'_>) -> io::Result<()> {
        if self.has_pending_deletions() || self.space.is_low() {
            // The deletions' records are needed; and the room is needed for the log.
            return Ok(());
        }
        let next_block = self.next_block.load(Ordering::Relaxed);
        let cut_file = self.blocks().iter().map(|block| block.cut().wal_file).max().unwrap_or_default();
        let (places, state, unsaved, cut) = {
            let mut head = self.head();
            if head.is_parked() {
                return Ok(());
            }
            let (state, unsaved) = head.seal(&self.wal, next_block, cut_file);
            (head.places(), state, unsaved, head.last_cut())
        };
        before()?;
        let path = self.dir.join(NAME);
        let files = state.files.clone();
        let temporary = path.with_extension("tmp");
        // Also of an empty head: it says which numbers of blocks were given out.
        let written = self.write_checkpoint(&temporary, &places, &state);
        if written.is_err() && self.disk.exists(&temporary)? {
            self.disk.remove_file(&temporary)?;
        }
        let bytes = written?;
        // Samples that came meanwhile are in it: what is not in the log must not be in the next head alone.
        if let Err(error) = self.wal.commit_all() {
            self.disk.remove_file(&temporary)?;
            return Err(io::Error::other(error));
        }
        self.disk.rename(&temporary, &path)?;
        self.disk.sync_dir(&self.dir)?;
        tracing::debug!(path = %path.display(), bytes, series = places.len(), "checkpoint written");
        *self.saved() = Saved { bytes, files, cut };
        self.head().count_saved(unsaved);
        Ok(())
    }

    /// Samples that come meanwhile may be in it and in the log behind it: replay takes none of them twice.
    fn write_checkpoint(&self, path: &Path, places: &[Place], state: &SavedState) -> io::Result<u64> {
        let mut out = Writer { file: self.disk.create(path)?, bytes: HEADER_BYTES as u64 };
        out.file.append(&header::encode(MAGIC_CHECKPOINT, CHECKPOINT_VERSION))?;
        out.section(STATE, |payload| state.encode(payload))?;
        let mut saver = Saver::default();
        for group in places.chunks(PLACES_PER_GROUP) {
            out.section(GROUP, |payload| self.head().save(group, &mut saver, payload))?;
        }
        let groups = places.len().div_ceil(PLACES_PER_GROUP) as u64;
        out.section(END, |payload| put_varint(payload, groups))?;
        out.file.sync()?;
        Ok(out.bytes)
    }
}

/// Where it is.
#[cfg(test)]
pub(super) fn path_in(dir: &Path) -> std::path::PathBuf {
    dir.join(NAME)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::fs::SimDisk;

    #[test]
    fn foreign_bytes_are_no_checkpoint() {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::default());
        let dir = Path::new("/d");
        disk.create_dir_all(dir).unwrap();
        for bytes in [&b"bchk"[..], b"bchk\x01\0\0\0", b"bchk\x01\0\0\0\xff\xff\xff\xff\0\0\0\0", &[0; 64]] {
            disk.create(&path_in(dir)).unwrap().append(bytes).unwrap();
            let loaded = load(&*disk, dir, Cut::NONE, || Head::new(1000, Arc::default())).unwrap();
            assert!(loaded.is_none());
            assert!(!disk.exists(&path_in(dir)).unwrap(), "nobody reads it later");
        }
    }

    /// A checkpoint of these groups and this number of them; the bit flips in its middle.
    fn is_loaded(groups: &[&[u8]], count: u64, flips: bool) -> bool {
        let disk = SimDisk::default();
        let dir = Path::new("/d");
        disk.create_dir_all(dir).unwrap();
        let path = path_in(dir);
        let mut out = Writer { file: disk.create(&path).unwrap(), bytes: HEADER_BYTES as u64 };
        out.file.append(&header::encode(MAGIC_CHECKPOINT, CHECKPOINT_VERSION)).unwrap();
        let state = Head::new(1000, Arc::default());
        let wal = crate::wal::Wal::open(
            Arc::new(disk.clone()),
            Path::new("/w"),
            &crate::wal::Floor::default(),
            &mut |_, _, _, _| {},
        );
        let (state, _) = { state }.seal(&wal.unwrap().0, 1, WalFileId(0));
        out.section(STATE, |payload| state.encode(payload)).unwrap();
        for group in groups {
            out.section(GROUP, |payload| payload.extend_from_slice(group)).unwrap();
        }
        out.section(END, |payload| put_varint(payload, count)).unwrap();
        let bytes = out.bytes;
        drop(out);
        if flips {
            disk.flip_bit(&path, bytes as usize / 2 * 8);
        }
        let loaded = load(&disk, dir, Cut::NONE, || Head::new(1000, Arc::default())).unwrap();
        assert_eq!(disk.exists(&path).unwrap(), loaded.is_some());
        loaded.is_some()
    }

    #[test]
    fn damage_in_the_middle_ends_both_threads() {
        let empty: &[u8] = &[0, 0, 0];
        // A series with symbols that nobody said.
        let unknown: &[u8] = &[0, 0, 1, 1, 2, 5, 6, 0, 0, 0, 0];
        let many = vec![empty; 10 * GROUPS_AHEAD];
        let count = many.len() as u64;
        assert!(is_loaded(&many, count, false));
        assert!(!is_loaded(&many, count, true));
        assert!(!is_loaded(&many, count + 1, false));
        let mut bad = many.clone();
        bad[1] = unknown;
        assert!(!is_loaded(&bad, count, false));
        bad[1] = &[0, 0, 1];
        assert!(!is_loaded(&bad, count, false));
    }
}
