//! The disk: all that this crate does to files goes through here.
//!
//! ```text
//! wal, blocks, logs ─► Disk ─┬─ RealDisk   std::fs, directories synced
//!                            └─ SimDisk    memory; crashes where a test says, tears what was not synced
//! ```
//!
//! Invariants:
//! - Nothing else in the crate calls `std::fs` (`clippy.toml` enforces it); SQLite has its own way.
//! - A file is durable after `sync` of the file *and* `sync_dir` of the directory that names it.

mod real;
mod sim;

use std::io;
use std::path::Path;
use std::sync::Arc;

pub use real::{DirectoryLock, RealDisk};
pub use sim::SimDisk;

/// A disk. Paths are absolute or relative to the process, as the caller likes.
pub trait Disk: Send + Sync + std::fmt::Debug {
    /// Makes an empty file, or empties the one that is there.
    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>>;

    /// Opens a file for reading.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn ReadFile>>;

    /// Moves a file, replacing the one that is there, in one step.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives a file another name beside the one it has. Not every file system can.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Whoever has it open may go on reading.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes a directory with all that is in it.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Makes a directory and those above it, and makes them durable.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Names in a directory, ascending.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Whether there is a file or directory of that name.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// How much room the disk under a directory has.
    fn room(&self, dir: &Path) -> io::Result<Room>;
}

/// Bytes of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// That this process may still write.
    pub free: u64,
    /// Of all files together.
    pub total: u64,
}

/// A file being written, from its beginning to its end.
pub trait WriteFile: Send {
    /// Writes all of `bytes` at the end.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes the bytes durable (`fdatasync`). After an error it is unknown which of those that were not
    /// durable before are.
    fn sync(&mut self) -> io::Result<()>;

    /// Forgets everything behind the first `size` bytes.
    fn truncate(&mut self, size: u64) -> io::Result<()>;

    /// Takes room for so many bytes, which read as zeros.
    fn allocate(&mut self, bytes: u64) -> io::Result<()>;
}

/// A file being read.
pub trait ReadFile: Send + Sync {
    /// Its size in bytes.
    fn size(&self) -> io::Result<u64>;

    /// Fills `buffer` with what stands at `offset`.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

/// The whole of a file, which may have `max_bytes` at most.
pub fn read_all(disk: &dyn Disk, path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    read_into(disk, path, max_bytes, &mut bytes)?;
    Ok(bytes)
}

/// As [`read_all`], in place of what is in `bytes`.
pub fn read_into(disk: &dyn Disk, path: &Path, max_bytes: u64, bytes: &mut Vec<u8>) -> io::Result<()> {
    let file = disk.open(path)?;
    let size = file.size()?;
    if size > max_bytes {
        let reason = format!("{} has {size} bytes, more than {max_bytes}", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    bytes.resize(size as usize, 0);
    file.read_exact_at(bytes, 0)
}

/// Publishes a whole file by rename: a reader sees the old bytes or the new, after any crash.
pub fn write_atomic(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = disk.create(&temporary)?;
    file.append(bytes)?;
    file.sync()?;
    disk.rename(&temporary, path)?;
    disk.sync_dir(path.parent().unwrap_or(Path::new(".")))
}
