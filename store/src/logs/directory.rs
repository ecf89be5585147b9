//! tantivy's files on our disk, so that crash tests cover them and nothing is mapped into memory.

use std::collections::HashSet;
use std::fmt;
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use tantivy::HasLen;
use tantivy::directory::error::{DeleteError, LockError, OpenReadError, OpenWriteError};
use tantivy::directory::{
    AntiCallToken, Directory, DirectoryLock, FileHandle, Lock, OwnedBytes, TerminatingWrite, WatchCallback,
    WatchHandle, WritePtr,
};

use crate::fs::{Disk, ReadFile, WriteFile, read_all, write_atomic};

/// tantivy's small files: lists of segments.
const ATOMIC_MAX_BYTES: u64 = 64 << 20;

/// A directory of one partition.
#[derive(Clone)]
pub(crate) struct DiskDirectory {
    shared: Arc<Shared>,
}

struct Shared {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    locks: Mutex<HashSet<PathBuf>>,
    unlocked: Condvar,
}

impl DiskDirectory {
    pub(crate) fn new(disk: Arc<dyn Disk>, root: PathBuf) -> Self {
        let (locks, unlocked) = (Mutex::default(), Condvar::new());
        Self { shared: Arc::new(Shared { disk, root, locks, unlocked }) }
    }

    fn path(&self, name: &Path) -> PathBuf {
        self.shared.root.join(name)
    }

    fn disk(&self) -> &dyn Disk {
        &*self.shared.disk
    }
}

impl fmt::Debug for DiskDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DiskDirectory({})", self.shared.root.display())
    }
}

fn read_error(error: io::Error, name: &Path) -> OpenReadError {
    match error.kind() {
        io::ErrorKind::NotFound => OpenReadError::FileDoesNotExist(name.to_path_buf()),
        _ => OpenReadError::wrap_io_error(error, name.to_path_buf()),
    }
}

impl Directory for DiskDirectory {
    fn get_file_handle(&self, name: &Path) -> Result<Arc<dyn FileHandle>, OpenReadError> {
        let open = || {
            let file = self.disk().open(&self.path(name))?;
            let size = file.size()? as usize;
            Ok(Arc::new(Handle { file, size }))
        };
        Ok(open().map_err(|error| read_error(error, name))?)
    }

    fn delete(&self, name: &Path) -> Result<(), DeleteError> {
        self.disk().remove_file(&self.path(name)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => DeleteError::FileDoesNotExist(name.to_path_buf()),
            _ => DeleteError::IoError { io_error: Arc::new(error), filepath: name.to_path_buf() },
        })
    }

    fn exists(&self, name: &Path) -> Result<bool, OpenReadError> {
        self.disk().exists(&self.path(name)).map_err(|error| read_error(error, name))
    }

    fn open_write(&self, name: &Path) -> Result<WritePtr, OpenWriteError> {
        let failed = |error| OpenWriteError::wrap_io_error(error, name.to_path_buf());
        let path = self.path(name);
        if self.disk().exists(&path).map_err(failed)? {
            return Err(OpenWriteError::FileAlreadyExists(name.to_path_buf()));
        }
        let file = self.disk().create(&path).map_err(failed)?;
        let file = Mutex::new(file);
        Ok(BufWriter::with_capacity(64 * 1024, Box::new(Writer { file })))
    }

    fn atomic_read(&self, name: &Path) -> Result<Vec<u8>, OpenReadError> {
        let read = read_all(self.disk(), &self.path(name), ATOMIC_MAX_BYTES);
        read.map_err(|error| read_error(error, name))
    }

    fn atomic_write(&self, name: &Path, data: &[u8]) -> io::Result<()> {
        write_atomic(self.disk(), &self.path(name), data)
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.disk().sync_dir(&self.shared.root)
    }

    fn watch(&self, _: WatchCallback) -> tantivy::Result<WatchHandle> {
        Ok(WatchHandle::empty())
    }

    /// Locks within the process: the data directory as a whole is locked against others, and a lock
    /// file that a crash leaves behind would keep the next start out.
    fn acquire_lock(&self, lock: &Lock) -> Result<DirectoryLock, LockError> {
        let shared = &self.shared;
        let mut held = shared.locks.lock().unwrap_or_else(PoisonError::into_inner);
        while held.contains(&lock.filepath) {
            if !lock.is_blocking {
                return Err(LockError::LockBusy);
            }
            held = shared.unlocked.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
        held.insert(lock.filepath.clone());
        let guard = Guard { shared: Arc::clone(shared), name: lock.filepath.clone() };
        Ok(DirectoryLock::from(Box::new(guard)))
    }
}

struct Guard {
    shared: Arc<Shared>,
    name: PathBuf,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut held = self.shared.locks.lock().unwrap_or_else(PoisonError::into_inner);
        held.remove(&self.name);
        self.shared.unlocked.notify_all();
    }
}

struct Handle {
    file: Arc<dyn ReadFile>,
    size: usize,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({} bytes)", self.size)
    }
}

impl HasLen for Handle {
    fn len(&self) -> usize {
        self.size
    }
}

impl FileHandle for Handle {
    fn read_bytes(&self, range: Range<usize>) -> io::Result<OwnedBytes> {
        let mut bytes = vec![0; range.len()];
        self.file.read_exact_at(&mut bytes, range.start as u64)?;
        Ok(OwnedBytes::new(bytes))
    }
}

/// The mutex is for tantivy's `Sync` bound only; nobody else has the file.
struct Writer {
    file: Mutex<Box<dyn WriteFile>>,
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.get_mut().unwrap_or_else(PoisonError::into_inner).append(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl TerminatingWrite for Writer {
    fn terminate_ref(&mut self, _: AntiCallToken) -> io::Result<()> {
        self.file.get_mut().unwrap_or_else(PoisonError::into_inner).sync()
    }
}
