//! The write-ahead log of both engines.
//!
//! ```text
//! append ─► buffer ─(one writer at a time: write, fdatasync)─► file ─► commit returns
//!             └ who comes while a sync runs waits for the next one, with all others: group commit
//! ```
//!
//! Invariants:
//! - A record is acknowledged (`commit` returns) only after `fdatasync` of its file, and after the
//!   file's name is durable.
//! - Sequences ascend by one in the order of appends, over all files.
//! - After a failed write or sync nothing more is taken until [`Wal::recover`] has written all that was not
//!   durable once more: the kernel forgets which pages a sync failed for, so that a second sync alone would lie.
//!
//! Format: `store/docs/format/wal.md`.

mod follow;
mod progress;
mod reader;
mod record;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Poll, Waker};
use std::time::Duration;

pub use follow::{Follower, Piece, Place, RecordView};
pub use progress::ReplayProgress;
pub use reader::{ReplayReport, WalOpenError};
pub use record::{RECORD_MAX_BYTES, RecordKind};

use crate::fs::{Disk, WriteFile};
use record::PREAMBLE_BYTES;

/// Replay holds a file in memory, and the next one; both fit the smallest pod we support.
const FILE_MAX_BYTES: u64 = 128 * 1024 * 1024;

/// What every file must say again does not count as its size, up to so many times the size of others: else the files
/// of many series would say little but their labels.
const REPEATED_MAX_TIMES: u64 = 2;

/// What may wait for the disk. An append that finds more waits for the sync under way.
const BUFFER_MAX_BYTES: usize = 64 * 1024 * 1024;

/// Position of a record in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Sequence(pub u64);

/// A file of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct WalFileId(pub u64);

/// The log takes nothing more until it has recovered.
#[derive(Debug, Clone, thiserror::Error)]
#[error("write-ahead log failed: {0}")]
pub struct WalError(Arc<str>);

/// Encoded records by the file into which they go.
type Buffer = Vec<(WalFileId, Vec<u8>)>;

/// Where a log goes on, whatever of it is still there.
#[derive(Debug, Clone, Default)]
pub struct Floor {
    /// The last file that others speak of.
    pub file: WalFileId,
    /// The last record that others speak of.
    pub sequence: Sequence,
    /// Of the salts of new files; differs from start to start.
    pub seed: u64,
    /// Files that nobody needs to replay, ascending.
    pub known: Vec<SealedFile>,
    /// Told of each file that is read.
    pub progress: Arc<ReplayProgress>,
}

/// Takes a record during replay.
pub type Visit<'v> = &'v mut dyn FnMut(WalFileId, Sequence, RecordKind, &[u8]);

/// A file that takes no more records.
#[derive(Debug, Clone, Copy)]
pub struct SealedFile {
    /// Which file.
    pub id: WalFileId,
    /// The last record in it, or in a file before it.
    pub last: Sequence,
}

/// The log. Shared by all writers.
pub struct Wal {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    file_max_bytes: u64,
    state: Mutex<State>,
    moved: Condvar,
}

struct State {
    /// What no writer has taken yet.
    buffer: Buffer,
    buffered_bytes: usize,
    /// Where the next record goes.
    file: WalFileId,
    file_bytes: u64,
    /// Of these, what the next file would have to say again.
    repeated_bytes: u64,
    /// Of the current file's checksums.
    salt: u64,
    seed: u64,
    last: Sequence,
    durable: Sequence,
    sealed: Vec<SealedFile>,
    /// The open file, unless a writer has it.
    writer: Writer,
    error: Option<WalError>,
    written_bytes: u64,
    syncs: u64,
    /// The first file that each follower still needs.
    held: Vec<Weak<AtomicU64>>,
    /// Who waits without a thread, and for which record.
    waiting: Vec<(Sequence, Waker)>,
    /// Whether a thread writes for them, or was asked to.
    is_led: bool,
}

enum Writer {
    Idle(Option<OpenFile>),
    Busy,
}

struct OpenFile {
    id: WalFileId,
    file: Box<dyn WriteFile>,
    /// Bytes that are on the disk for certain.
    durable: u64,
    /// Whether a failed attempt may have left something behind them.
    is_dirty: bool,
}

impl Wal {
    /// Replays what is there through `visit`, in order, and opens a new file for what comes.
    ///
    /// # Errors
    /// [`WalOpenError::TooNew`] must stop the start; anything else is the disk's refusal.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        floor: &Floor,
        visit: Visit<'_>,
    ) -> Result<(Self, ReplayReport), WalOpenError> {
        Self::open_with(disk, dir, floor, FILE_MAX_BYTES, visit)
    }

    /// As [`Self::open`], with files of another size.
    pub fn open_with(
        disk: Arc<dyn Disk>,
        dir: &Path,
        floor: &Floor,
        file_max_bytes: u64,
        visit: Visit<'_>,
    ) -> Result<(Self, ReplayReport), WalOpenError> {
        let read = |cause| WalOpenError::Read { path: dir.to_path_buf(), cause };
        disk.create_dir_all(dir).map_err(read)?;
        let report = reader::replay(&*disk, dir, floor, visit)?;
        let last_file = report.files.last().map_or(floor.file, |sealed| sealed.id.max(floor.file));
        let file = WalFileId(last_file.0 + 1);
        let last = report.last.max(floor.sequence);
        let state = State {
            buffer: Vec::new(),
            buffered_bytes: 0,
            file,
            file_bytes: PREAMBLE_BYTES as u64,
            repeated_bytes: 0,
            salt: record::salt_of(floor.seed, file),
            seed: floor.seed,
            last,
            durable: last,
            sealed: report.files.clone(),
            writer: Writer::Idle(None),
            error: None,
            written_bytes: 0,
            syncs: 0,
            held: Vec::new(),
            waiting: Vec::new(),
            is_led: false,
        };
        let dir = dir.to_path_buf();
        let state = Mutex::new(state);
        Ok((Self { disk, dir, file_max_bytes, state, moved: Condvar::new() }, report))
    }

    /// Adds a record, which `build` writes; it is told the file into which the record will go.
    ///
    /// The record is not durable, and may be lost, until [`Self::commit`] of its sequence returns. It is kept in any
    /// case: what has been taken into memory must follow, also where the disk fails meanwhile. Look at
    /// [`Self::error`] before taking anything.
    pub fn append(&self, kind: RecordKind, build: impl FnOnce(WalFileId, &mut Vec<u8>)) -> Sequence {
        let mut state = self.lock();
        while state.buffered_bytes > BUFFER_MAX_BYTES && state.error.is_none() {
            state = self.write_or_wait(state);
        }
        if state.is_full(self.file_max_bytes) {
            state.seal();
        }
        let (file, salt) = (state.file, state.salt);
        if state.buffer.last().is_none_or(|(last, _)| *last != file) {
            state.buffer.push((file, Vec::new()));
        }
        let sequence = Sequence(state.last.0 + 1);
        let (_, bytes) = state.buffer.last_mut().expect("pushed above if it was empty");
        let before = bytes.len();
        record::encode(bytes, salt, sequence, kind, |payload| build(file, payload));
        let added = bytes.len() - before;
        state.last = sequence;
        state.buffered_bytes += added;
        state.file_bytes += added as u64;
        sequence
    }

    /// Waits until there is room for records. Who appends under a lock of its own waits here before it takes that.
    pub fn wait_for_room(&self) {
        let mut state = self.lock();
        while state.buffered_bytes > BUFFER_MAX_BYTES / 2 && state.error.is_none() {
            state = self.write_or_wait(state);
        }
    }

    /// Whether [`Self::wait_for_room`] would not wait.
    pub fn has_room(&self) -> bool {
        self.lock().buffered_bytes <= BUFFER_MAX_BYTES / 2
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> io::Result<u64> {
        let mut bytes = 0;
        for name in self.disk.list(&self.dir)? {
            match self.disk.open(&self.dir.join(name)) {
                Ok(file) => bytes += file.size()?,
                // It has been removed meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(bytes)
    }

    /// So many bytes of the record just appended would have to be said again by the next file.
    pub fn note_repeated(&self, bytes: usize) {
        self.lock().repeated_bytes += bytes as u64;
    }

    /// Waits until the record and all before it are durable.
    pub fn commit(&self, sequence: Sequence) -> Result<(), WalError> {
        let mut state = self.lock();
        while state.durable < sequence {
            if let Some(error) = &state.error {
                return Err(error.clone());
            }
            state = self.write_or_wait(state);
        }
        Ok(())
    }

    /// As [`Self::commit`], for who has no thread to wait with: `waker` is called once it is worth asking again. The second
    /// answer asks for a thread that calls [`Self::write_for_waiting`].
    pub fn poll_commit(&self, sequence: Sequence, waker: &Waker) -> (Poll<Result<(), WalError>>, bool) {
        let mut state = self.lock();
        if state.durable >= sequence {
            return (Poll::Ready(Ok(())), false);
        }
        if let Some(error) = &state.error {
            return (Poll::Ready(Err(error.clone())), false);
        }
        state.waiting.push((sequence, waker.clone()));
        let is_asked = !std::mem::replace(&mut state.is_led, true);
        (Poll::Pending, is_asked)
    }

    /// Writes and syncs, again and again, until nobody waits without a thread.
    pub fn write_for_waiting(&self) {
        let mut state = self.lock();
        loop {
            let (durable, has_failed) = (state.durable, state.error.is_some());
            let done = state.waiting.extract_if(.., |(sequence, _)| has_failed || *sequence <= durable);
            let done: Vec<Waker> = done.map(|(_, waker)| waker).collect();
            if !done.is_empty() {
                drop(state);
                done.into_iter().for_each(Waker::wake);
                state = self.lock();
            } else if state.waiting.is_empty() {
                state.is_led = false;
                return;
            } else {
                state = self.write_or_wait(state);
            }
        }
    }

    /// Waits until everything appended so far is durable.
    pub fn commit_all(&self) -> Result<(), WalError> {
        let last = self.lock().last;
        self.commit(last)
    }

    /// The last record that was appended.
    pub fn last(&self) -> Sequence {
        self.lock().last
    }

    /// Lets no more records into the current file and names it, if it has any.
    pub fn seal(&self) {
        self.lock().seal_used();
    }

    /// Files that take no more records, ascending.
    pub fn sealed(&self) -> Vec<SealedFile> {
        self.lock().sealed.clone()
    }

    /// The last file up to `through` that no follower needs. Followers hold so many bytes at the most: one whose other
    /// side is down for days must not fill the disk.
    pub fn unheld_through(&self, through: WalFileId, max_bytes: u64) -> io::Result<Option<WalFileId>> {
        let first_held = {
            let mut state = self.lock();
            state.held.retain(|held| held.strong_count() > 0);
            let held = state.held.iter().filter_map(Weak::upgrade);
            held.map(|held| held.load(Ordering::Relaxed)).min()
        };
        let Some(first_held) = first_held else { return Ok(Some(through)) };
        let mut bytes = 0;
        let mut unheld = None;
        for file in self.sealed().into_iter().rev().filter(|file| file.id <= through) {
            let path = reader::path_of(&self.dir, file.id);
            if self.disk.exists(&path)? {
                bytes += self.disk.open(&path)?.size()?;
            }
            if file.id.0 < first_held || bytes > max_bytes {
                unheld = Some(file.id);
                break;
            }
        }
        Ok(unheld)
    }

    /// Where the next record will be, and the last one that was appended.
    pub fn end(&self) -> Place {
        let state = self.lock();
        Place { file: state.file, sequence: state.last }
    }

    /// The oldest record that is still there, or rather the place before it.
    pub fn beginning(&self) -> Place {
        let state = self.lock();
        Place { file: state.sealed.first().map_or(state.file, |file| file.id), sequence: Sequence(0) }
    }

    /// Keeps files from `file` on until the answer is dropped or holds another one.
    fn hold(&self, file: WalFileId) -> Arc<AtomicU64> {
        let held = Arc::new(AtomicU64::new(file.0));
        self.lock().held.push(Arc::downgrade(&held));
        held
    }

    /// Waits a while for a durable record behind `after`; answers the last one that is durable.
    fn wait_durable(&self, after: Sequence, wait: Duration) -> Sequence {
        let waited = self.moved.wait_timeout_while(self.lock(), wait, |state| state.durable <= after);
        waited.unwrap_or_else(PoisonError::into_inner).0.durable
    }

    /// Whether a file takes no more records and all of them are durable. So is one that is gone.
    fn is_whole(&self, file: WalFileId, durable: Sequence) -> bool {
        let state = self.lock();
        file < state.file && state.sealed.iter().all(|sealed| sealed.id != file || sealed.last <= durable)
    }

    /// The first file behind another one that is there or will be.
    fn file_behind(&self, file: WalFileId) -> Option<WalFileId> {
        let state = self.lock();
        let sealed = state.sealed.iter().map(|sealed| sealed.id);
        sealed.chain([state.file]).find(|id| *id > file)
    }

    /// The last record of a sealed file.
    fn last_of(&self, file: WalFileId) -> Option<Sequence> {
        self.lock().sealed.iter().find(|sealed| sealed.id == file).map(|sealed| sealed.last)
    }

    /// Removes sealed files up to and with `through`, whose records are kept elsewhere.
    pub fn remove_through(&self, through: WalFileId) -> io::Result<()> {
        let gone: Vec<SealedFile> = self.sealed().into_iter().filter(|file| file.id <= through).collect();
        for file in gone {
            let path = reader::path_of(&self.dir, file.id);
            if self.disk.exists(&path)? {
                self.disk.remove_file(&path)?;
            }
            self.lock().sealed.retain(|sealed| sealed.id != file.id);
        }
        self.disk.sync_dir(&self.dir)
    }

    /// Bytes written and syncs made since the log was opened.
    pub fn written(&self) -> (u64, u64) {
        let state = self.lock();
        (state.written_bytes, state.syncs)
    }

    /// Tries to write what a failed attempt left, in full; if that works, the log takes records again.
    pub fn recover(&self) {
        let state = self.lock();
        if state.error.is_some() {
            drop(self.write_or_wait(state));
        }
    }

    /// Why the log takes nothing more, if so.
    pub fn error(&self) -> Option<WalError> {
        self.lock().error.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes and syncs the buffer if nobody is at it, or else waits for whoever is.
    fn write_or_wait<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let mut open = match std::mem::replace(&mut state.writer, Writer::Busy) {
            Writer::Busy => {
                return self.moved.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            Writer::Idle(open) => open,
        };
        let mut buffer = std::mem::take(&mut state.buffer);
        let bytes = std::mem::take(&mut state.buffered_bytes);
        let last = state.last;
        drop(state);
        let written = self.write(&mut open, &mut buffer);
        let mut state = self.lock();
        state.writer = Writer::Idle(open);
        let left: usize = buffer.iter().map(|(_, bytes)| bytes.len()).sum();
        state.written_bytes += (bytes - left) as u64;
        state.syncs += u64::from(written.is_ok());
        match written {
            Ok(()) => {
                state.durable = last;
                if state.error.take().is_some() {
                    tracing::info!("write-ahead log recovered");
                    state.seal_used();
                }
            }
            Err(error) => {
                if state.error.is_none() {
                    tracing::error!(%error, "write-ahead log failed; nothing is taken until it has recovered");
                }
                buffer.append(&mut state.buffer);
                state.buffer = buffer;
                state.buffered_bytes += left;
                state.error = Some(WalError(error.to_string().into()));
            }
        }
        self.moved.notify_all();
        state
    }

    /// Writes and syncs the buffer, file by file; what is durable is taken out of it.
    fn write(&self, open: &mut Option<OpenFile>, buffer: &mut Buffer) -> io::Result<()> {
        while let Some((id, bytes)) = buffer.first() {
            if open.as_ref().is_none_or(|current| current.id != *id) {
                *open = Some(self.create(*id)?);
            }
            let current = open.as_mut().expect("made above");
            current.append(bytes, self.lock().seed)?;
            buffer.remove(0);
        }
        Ok(())
    }

    fn create(&self, id: WalFileId) -> io::Result<OpenFile> {
        let file = self.disk.create(&reader::path_of(&self.dir, id))?;
        self.disk.sync_dir(&self.dir)?;
        Ok(OpenFile { id, file, durable: 0, is_dirty: false })
    }
}

impl OpenFile {
    /// Makes `bytes` durable behind what is there, the file's beginning first.
    fn append(&mut self, bytes: &[u8], seed: u64) -> io::Result<()> {
        if self.is_dirty {
            // Written anew, every page is dirty once more, and the next sync speaks of all of them.
            self.file.truncate(self.durable)?;
        }
        self.is_dirty = true;
        let mut size = self.durable + bytes.len() as u64;
        if self.durable == 0 {
            let preamble = record::preamble(record::salt_of(seed, self.id));
            self.file.append(&preamble)?;
            size += preamble.len() as u64;
        }
        self.file.append(bytes)?;
        self.file.sync()?;
        (self.durable, self.is_dirty) = (size, false);
        Ok(())
    }
}

impl State {
    /// Seals the current file if it has a record.
    fn seal_used(&mut self) {
        if self.file_bytes > PREAMBLE_BYTES as u64 {
            self.seal();
        }
    }

    fn is_full(&self, max_bytes: u64) -> bool {
        let own = self.file_bytes.saturating_sub(self.repeated_bytes);
        own >= max_bytes || self.file_bytes >= max_bytes * REPEATED_MAX_TIMES
    }

    fn seal(&mut self) {
        self.sealed.push(SealedFile { id: self.file, last: self.last });
        self.file = WalFileId(self.file.0 + 1);
        self.salt = record::salt_of(self.seed, self.file);
        (self.file_bytes, self.repeated_bytes) = (PREAMBLE_BYTES as u64, 0);
    }
}

#[cfg(test)]
mod tests;
