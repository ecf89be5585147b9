//! A directory in memory for tantivy, whose files lie one behind the other in the index of a partition.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tantivy::directory::error::{DeleteError, LockError, OpenReadError, OpenWriteError};
use tantivy::directory::{
    AntiCallToken, Directory, DirectoryLock, FileHandle, Lock, OwnedBytes, TerminatingWrite, WatchCallback,
    WatchHandle, WritePtr,
};

/// Names and bytes. Clones are the same directory.
#[derive(Debug, Clone, Default)]
pub(super) struct MemoryDirectory {
    files: Arc<Mutex<BTreeMap<PathBuf, OwnedBytes>>>,
}

impl MemoryDirectory {
    pub(super) fn new(files: impl IntoIterator<Item = (String, OwnedBytes)>) -> Self {
        let files = files.into_iter().map(|(name, bytes)| (PathBuf::from(name), bytes)).collect();
        Self { files: Arc::new(Mutex::new(files)) }
    }

    /// All files, ascending by name.
    pub(super) fn files(&self) -> Vec<(String, OwnedBytes)> {
        let files = self.lock();
        files.iter().map(|(name, bytes)| (name.to_string_lossy().into_owned(), bytes.clone())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PathBuf, OwnedBytes>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, name: &Path) -> Result<OwnedBytes, OpenReadError> {
        let found = self.lock().get(name).cloned();
        found.ok_or_else(|| OpenReadError::FileDoesNotExist(name.to_path_buf()))
    }
}

impl Directory for MemoryDirectory {
    fn get_file_handle(&self, name: &Path) -> Result<Arc<dyn FileHandle>, OpenReadError> {
        Ok(Arc::new(self.get(name)?))
    }

    fn delete(&self, name: &Path) -> Result<(), DeleteError> {
        let removed = self.lock().remove(name);
        removed.map(|_| ()).ok_or_else(|| DeleteError::FileDoesNotExist(name.to_path_buf()))
    }

    fn exists(&self, name: &Path) -> Result<bool, OpenReadError> {
        Ok(self.lock().contains_key(name))
    }

    fn open_write(&self, name: &Path) -> Result<WritePtr, OpenWriteError> {
        let file = NewFile { directory: self.clone(), name: name.to_path_buf(), bytes: Vec::new() };
        Ok(BufWriter::with_capacity(64 * 1024, Box::new(file)))
    }

    fn atomic_read(&self, name: &Path) -> Result<Vec<u8>, OpenReadError> {
        Ok(self.get(name)?.to_vec())
    }

    fn atomic_write(&self, name: &Path, data: &[u8]) -> io::Result<()> {
        self.lock().insert(name.to_path_buf(), OwnedBytes::new(data.to_vec()));
        Ok(())
    }

    fn sync_directory(&self) -> io::Result<()> {
        Ok(())
    }

    fn watch(&self, _: WatchCallback) -> tantivy::Result<WatchHandle> {
        Ok(WatchHandle::empty())
    }

    /// Nobody else has it.
    fn acquire_lock(&self, _: &Lock) -> Result<DirectoryLock, LockError> {
        Ok(DirectoryLock::from(Box::new(())))
    }
}

/// A file that appears once it is whole.
struct NewFile {
    directory: MemoryDirectory,
    name: PathBuf,
    bytes: Vec<u8>,
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl TerminatingWrite for NewFile {
    fn terminate_ref(&mut self, _: AntiCallToken) -> io::Result<()> {
        let bytes = OwnedBytes::new(std::mem::take(&mut self.bytes));
        self.directory.lock().insert(self.name.clone(), bytes);
        Ok(())
    }
}
