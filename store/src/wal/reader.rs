//! Replay: every whole record, in order, whatever lies between them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;

use super::record::{self, MAGIC, PREAMBLE_BYTES};
use super::{Floor, SealedFile, Sequence, Visit, WalFileId};
use crate::fs::{Disk, read_into};
use crate::header::{self, HeaderError, MAGIC_WAL};

/// A file may pass its size by one record and what was buffered with it.
pub(super) const FILE_READ_MAX_BYTES: u64 = 1 << 30;

/// Why a log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum WalOpenError {
    /// The disk refused. Retrying may help.
    #[error("cannot read {}", path.display())]
    Read {
        /// File or directory.
        path: PathBuf,
        /// What the disk said.
        #[source]
        cause: io::Error,
    },
    /// A newer release wrote it. Refuse to start rather than misread it.
    #[error("{} has format version {found}, newer than {}; start the release that wrote it, or a newer one",
        path.display(), header::WAL_VERSION)]
    TooNew {
        /// Which file.
        path: PathBuf,
        /// Its version.
        found: u8,
    },
}

/// What replay found.
#[derive(Debug, Clone, Default)]
pub struct ReplayReport {
    /// The last record.
    pub last: Sequence,
    /// The files that were there, ascending.
    pub files: Vec<SealedFile>,
    /// Whole records read.
    pub records: u64,
    /// Bytes in the middle of files that were no records; kept aside.
    pub damaged_bytes: u64,
    /// Bytes at ends of files that were no whole record, as a crash leaves them.
    pub torn_bytes: u64,
    /// Files in which acknowledged records may be missing, ascending.
    pub damaged: Vec<WalFileId>,
    /// The first and the last record of each row of them that is missing. Of one at the end of the log the last is not
    /// known: it says the first.
    pub missing: Vec<(Sequence, Sequence)>,
    /// Whether `last` was read or told, so that the next record must follow it.
    is_last_known: bool,
}

impl ReplayReport {
    fn blame(&mut self, file: WalFileId) {
        if self.damaged.last() != Some(&file) {
            self.damaged.push(file);
        }
    }

    /// Blames whoever must have held the records between the last one and `next`, if there are any.
    fn check_gap(&mut self, file: WalFileId, next: Sequence) {
        // What was damaged behind the last record is between the two, or nothing.
        if self.missing.last().is_some_and(|missing| missing.0.0 == self.last.0 + 1) {
            self.missing.pop();
        }
        if !self.is_last_known || next.0 == self.last.0 + 1 {
            return;
        }
        if let Some(before) = self.files.last().map(|sealed| sealed.id) {
            self.blame(before);
        }
        self.blame(file);
        self.missing.push((Sequence(self.last.0 + 1), Sequence(next.0 - 1)));
    }
}

pub(super) fn path_of(dir: &Path, id: WalFileId) -> PathBuf {
    dir.join(format!("{:010}.wal", id.0))
}

fn id_of(name: &str) -> Option<WalFileId> {
    name.strip_suffix(".wal")?.parse().ok().map(WalFileId)
}

pub(super) fn replay(
    disk: &dyn Disk,
    dir: &Path,
    floor: &Floor,
    visit: Visit<'_>,
) -> Result<ReplayReport, WalOpenError> {
    let read = |path: &Path| {
        let path = path.to_path_buf();
        move |cause| WalOpenError::Read { path, cause }
    };
    let names = disk.list(dir).map_err(read(dir))?;
    let mut ids: Vec<WalFileId> = names.iter().filter_map(|name| id_of(name)).collect();
    ids.sort_unstable();
    let known_of = |id: WalFileId| floor.known.iter().find(|known| known.id == id);
    let wanted: Vec<WalFileId> = ids.iter().copied().filter(|id| known_of(*id).is_none()).collect();
    let mut report = ReplayReport::default();
    if let (Some(first), Some(last)) = (wanted.first(), wanted.last()) {
        floor.progress.begin(first.0, last.0);
    }
    thread::scope(|scope| {
        // A thread reads the next file meanwhile, into the buffer of the one before.
        let (to_us, files) = mpsc::sync_channel(0);
        let (back, buffers) = mpsc::sync_channel::<Vec<u8>>(1);
        scope.spawn(move || {
            for id in wanted {
                let mut buffer = buffers.try_recv().unwrap_or_default();
                let read = read_into(disk, &path_of(dir, id), FILE_READ_MAX_BYTES, &mut buffer);
                if to_us.send(read.map(|()| buffer)).is_err() {
                    return;
                }
            }
        });
        for id in ids {
            if let Some(known) = known_of(id) {
                report.last = report.last.max(known.last);
                report.is_last_known = true;
                report.files.push(*known);
                continue;
            }
            let path = path_of(dir, id);
            floor.progress.reach(id.0);
            let bytes = files.recv().map_err(io::Error::other).flatten().map_err(read(&path))?;
            replay_file(disk, &path, id, &bytes, &mut report, visit)?;
            report.files.push(SealedFile { id, last: report.last });
            // Nobody waits for the last one.
            let _ = back.try_send(bytes);
        }
        Ok(report)
    })
}

fn replay_file(
    disk: &dyn Disk,
    path: &Path,
    id: WalFileId,
    bytes: &[u8],
    report: &mut ReplayReport,
    visit: Visit<'_>,
) -> Result<(), WalOpenError> {
    if let Err(HeaderError::TooNew(found)) = header::decode(bytes, MAGIC_WAL, header::WAL_VERSION) {
        return Err(WalOpenError::TooNew { path: path.to_path_buf(), found });
    }
    // A header that is damaged otherwise costs nothing: records find their own way.
    let mut at = PREAMBLE_BYTES.min(bytes.len());
    let salt = record::read_salt(bytes);
    let mut damaged = Vec::new();
    while at < bytes.len() {
        if let Some((record, size)) = record::decode(&bytes[at..], salt) {
            if record.is_mended {
                let path = path.display();
                tracing::warn!(%path, sequence = record.sequence.0, "a flipped bit in the write-ahead log was mended");
            }
            if record.sequence > report.last {
                report.check_gap(id, record.sequence);
                visit(id, record.sequence, record.kind, record.payload);
                report.last = record.sequence;
                report.records += 1;
                report.is_last_known = true;
            }
            at += size;
            continue;
        }
        let next = next_record(bytes, salt, at + 1);
        match next {
            Some(next) => damaged.extend_from_slice(&bytes[at..next]),
            None if record::is_torn(&bytes[at..]) => report.torn_bytes += (bytes.len() - at) as u64,
            None => {
                damaged.extend_from_slice(&bytes[at..]);
                let next = Sequence(report.last.0 + 1);
                report.missing.push((next, next));
            }
        }
        at = next.unwrap_or(bytes.len());
    }
    if !damaged.is_empty() {
        report.damaged_bytes += damaged.len() as u64;
        report.blame(id);
        quarantine(disk, path, &damaged);
    }
    Ok(())
}

/// Where the next whole record begins, at `from` or later.
pub(super) fn next_record(bytes: &[u8], salt: u64, from: usize) -> Option<usize> {
    let mut at = from;
    while at + MAGIC.len() <= bytes.len() {
        let found = bytes[at..].windows(MAGIC.len()).position(|window| window == MAGIC)?;
        at += found;
        if record::decode(&bytes[at..], salt).is_some() {
            return Some(at);
        }
        at += 1;
    }
    None
}

/// Keeps damaged bytes beside the file. That this fails must not keep the store from starting.
fn quarantine(disk: &dyn Disk, path: &Path, damaged: &[u8]) {
    let aside = path.with_extension("wal.corrupt");
    let kept = disk.create(&aside).and_then(|mut file| file.append(damaged));
    tracing::error!(
        path = %path.display(), bytes = damaged.len(), kept = ?kept.is_ok(),
        "damaged bytes in the write-ahead log were skipped and set aside"
    );
}
