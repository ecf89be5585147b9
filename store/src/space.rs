//! A full disk: writes are refused until there is room again; reads, expiry and merging go on.
//!
//! ```text
//! writes taken ──(a write found no room, or little is left)──► refused ──(twice as much is free)──► writes taken
//! ```
//!
//! A file of the size of that little lies in the data directory. It goes when compaction finds no room, so that what
//! makes room can end its work, and comes back when there is enough again.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use binnacle_model::storage::AppendError;

use crate::fs::{Disk, Room};

/// Of the disk's bytes, this share is kept in reserve, within bounds.
const RESERVE_SHARE: u64 = 64;
const RESERVE_MAX_BYTES: u64 = 64 * 1024 * 1024;

/// Says whether there is room for writes.
#[derive(Debug)]
pub(crate) struct Space {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    is_low: AtomicBool,
}

impl Space {
    pub(crate) fn new(disk: Arc<dyn Disk>, dir: &Path) -> Self {
        Self { disk, dir: dir.to_path_buf(), is_low: AtomicBool::new(false) }
    }

    /// Whether writes are refused.
    pub(crate) fn is_low(&self) -> bool {
        self.is_low.load(Ordering::Relaxed)
    }

    /// Refuses a write while there is no room.
    pub(crate) fn admit(&self) -> Result<(), AppendError> {
        if self.is_low() {
            return Err(AppendError::Unavailable(self.reason()));
        }
        Ok(())
    }

    /// What to say and how to mend it.
    pub(crate) fn reason(&self) -> String {
        format!("the disk of {} is full: make room there or shorten the retention", self.dir.display())
    }

    /// Looks at the disk, and takes or gives up the reserve.
    pub(crate) fn check(&self) -> io::Result<()> {
        let room = self.disk.room(&self.dir)?;
        let reserve = reserve_of(room);
        if room.free < reserve {
            self.found_none();
        } else if self.is_low() && room.free >= 2 * reserve {
            tracing::info!(dir = %self.dir.display(), free = room.free, "there is room on the disk again");
            self.is_low.store(false, Ordering::Relaxed);
        }
        if room.free >= 4 * reserve
            && !self.disk.exists(&self.reserve_path())?
            && let Err(error) = self.take_reserve(reserve)
        {
            // Some file systems take no room in advance, and quotas are not seen: it goes without.
            tracing::debug!(%error, "no reserve for a full disk");
        }
        Ok(())
    }

    /// Does what makes room, or needs some to go on; if it finds none, once more with the reserve.
    pub(crate) fn with_reserve<T>(&self, mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        match work() {
            Err(error) if is_full(&error) => {
                self.found_none();
                if !self.disk.exists(&self.reserve_path())? {
                    return Err(error);
                }
                self.disk.remove_file(&self.reserve_path())?;
                work()
            }
            done => done,
        }
    }

    /// Refuses writes from now on.
    fn found_none(&self) {
        if !self.is_low.swap(true, Ordering::Relaxed) {
            tracing::error!("{}; no writes until then", self.reason());
        }
    }

    fn reserve_path(&self) -> PathBuf {
        self.dir.join("reserve")
    }

    fn take_reserve(&self, bytes: u64) -> io::Result<()> {
        let path = self.reserve_path();
        let taken = self.disk.create(&path).and_then(|mut file| file.allocate(bytes));
        if taken.is_err() {
            self.disk.remove_file(&path)?;
        }
        taken
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn reserve_of(room: Room) -> u64 {
    (room.total / RESERVE_SHARE).min(RESERVE_MAX_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::SimDisk;

    const TOTAL: u64 = 64_000;
    const RESERVE: u64 = 1_000;

    fn space() -> (SimDisk, Space) {
        let disk = SimDisk::default();
        disk.set_capacity(Some(TOTAL));
        disk.create_dir_all(Path::new("/d")).unwrap();
        let space = Space::new(Arc::new(disk.clone()), Path::new("/d"));
        space.check().unwrap();
        (disk, space)
    }

    fn fill(disk: &SimDisk, left: u64) {
        let free = disk.room(Path::new("/d")).unwrap().free;
        disk.create(Path::new("/d/ballast")).unwrap().append(&vec![1; (free - left) as usize]).unwrap();
    }

    #[test]
    fn writes_are_refused_from_little_room_until_there_is_twice_as_much() {
        let (disk, space) = space();
        assert_eq!(disk.room(Path::new("/d")).unwrap().free, TOTAL - RESERVE, "the reserve is taken");
        fill(&disk, RESERVE - 1);
        space.check().unwrap();
        assert!(matches!(space.admit(), Err(AppendError::Unavailable(reason)) if reason.contains("/d")));
        disk.remove_file(Path::new("/d/ballast")).unwrap();
        fill(&disk, 2 * RESERVE - 1);
        space.check().unwrap();
        assert!(space.is_low(), "not at the first byte");
        disk.remove_file(Path::new("/d/ballast")).unwrap();
        space.check().unwrap();
        assert!(space.admit().is_ok());
    }

    #[test]
    fn what_makes_room_may_use_the_reserve() {
        let (disk, space) = space();
        fill(&disk, 10);
        let write = || disk.create(Path::new("/d/block"))?.append(&[1; 500]);
        space.with_reserve(write).unwrap();
        assert!(space.is_low());
        let error = space.with_reserve(|| disk.create(Path::new("/d/other"))?.append(&[1; 900])).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull, "it is there once");
        disk.remove_file(Path::new("/d/ballast")).unwrap();
        space.check().unwrap();
        assert!(disk.exists(Path::new("/d/reserve")).unwrap(), "it comes back");
    }
}
