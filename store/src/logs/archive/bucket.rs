//! Where archived partitions lie: names and bytes, as object stores have them.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::fs::{Disk, write_atomic};

/// Bytes of one object. No page and no index is larger.
pub(super) const OBJECT_MAX_BYTES: u64 = 2 << 30;

/// Why an object store did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    /// There is no such object.
    #[error("there is no {0}")]
    Missing(String),
    /// The object ends sooner than it should.
    #[error("{0} ends too soon")]
    Short(String),
    /// It could not be reached, or refused. Trying again later may help.
    #[error("{0}")]
    Unavailable(String),
}

impl BucketError {
    fn of_disk(key: &str, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing(key.to_owned()),
            io::ErrorKind::UnexpectedEof => Self::Short(key.to_owned()),
            _ => Self::Unavailable(format!("{key}: {error}")),
        }
    }
}

/// An object and its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its whole name.
    pub key: String,
    /// How many bytes it has.
    pub bytes: u64,
}

/// An object store, or a directory. Keys are parts of `a-z`, `0-9`, `.`, `_` and `-` between slashes.
///
/// Calls block, end in bounded time, and have tried again where that is worth it.
pub trait Bucket: Send + Sync + std::fmt::Debug {
    /// Writes a whole object, in place of one that is there. When it returns, the object is durable.
    fn put(&self, key: &str, bytes: Vec<u8>) -> Result<(), BucketError>;

    /// Reads a part of an object. One that ends sooner is an error.
    fn get(&self, key: &str, range: Range<u64>) -> Result<Vec<u8>, BucketError>;

    /// The size of an object, if it is there.
    fn head(&self, key: &str) -> Result<Option<u64>, BucketError>;

    /// All objects below `prefix`, which is empty or ends in a slash, ascending.
    fn list(&self, prefix: &str) -> Result<Vec<Listed>, BucketError>;

    /// Removes an object. One that is not there is removed.
    fn delete(&self, key: &str) -> Result<(), BucketError>;
}

/// A directory as a bucket: on another disk, or a volume that many machines see. Every object is synced, as is its name.
#[derive(Debug)]
pub struct DirBucket {
    disk: Arc<dyn Disk>,
    root: PathBuf,
}

impl DirBucket {
    /// The bucket in `root`, which is made when the first object is written.
    pub fn new(disk: Arc<dyn Disk>, root: &Path) -> Self {
        Self { disk, root: root.to_path_buf() }
    }

    fn list_dir(&self, dir: &Path, prefix: &str, found: &mut Vec<Listed>) -> io::Result<()> {
        for name in self.disk.list(dir)? {
            let (path, key) = (dir.join(&name), format!("{prefix}{name}"));
            // What a crash left of a write.
            if path.extension().is_some_and(|extension| extension == "tmp") {
                continue;
            }
            match self.disk.list(&path) {
                Ok(_) => self.list_dir(&path, &format!("{key}/"), found)?,
                Err(_) => found.push(Listed { bytes: self.disk.open(&path)?.size()?, key }),
            }
        }
        Ok(())
    }
}

impl Bucket for DirBucket {
    fn put(&self, key: &str, bytes: Vec<u8>) -> Result<(), BucketError> {
        let path = self.root.join(key);
        let written = self
            .disk
            .create_dir_all(path.parent().unwrap_or(&self.root))
            .and_then(|()| write_atomic(&*self.disk, &path, &bytes));
        written.map_err(|error| BucketError::of_disk(key, &error))
    }

    fn get(&self, key: &str, range: Range<u64>) -> Result<Vec<u8>, BucketError> {
        let length = range.end.saturating_sub(range.start).min(OBJECT_MAX_BYTES);
        let read = self.disk.open(&self.root.join(key)).and_then(|file| {
            if range.end > file.size()? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let mut bytes = vec![0; length as usize];
            file.read_exact_at(&mut bytes, range.start)?;
            Ok(bytes)
        });
        read.map_err(|error| BucketError::of_disk(key, &error))
    }

    fn head(&self, key: &str) -> Result<Option<u64>, BucketError> {
        match self.disk.open(&self.root.join(key)).and_then(|file| file.size()) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(BucketError::of_disk(key, &error)),
        }
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>, BucketError> {
        let (dir, mut found) = (self.root.join(prefix), Vec::new());
        // A directory that is not there yet has nothing; one above it that is gone is a volume that is not mounted.
        let is_there = self.disk.exists(&dir).map_err(|error| BucketError::of_disk(prefix, &error))?;
        if is_there {
            self.list_dir(&dir, prefix, &mut found).map_err(|error| BucketError::of_disk(prefix, &error))?;
        }
        found.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(found)
    }

    fn delete(&self, key: &str) -> Result<(), BucketError> {
        let path = self.root.join(key);
        let removed = match self.disk.remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.and_then(|()| self.disk.sync_dir(path.parent().unwrap_or(&self.root))),
        };
        removed.map_err(|error| BucketError::of_disk(key, &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::SimDisk;

    #[test]
    fn a_directory_keeps_objects() {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::default());
        let bucket = DirBucket::new(Arc::clone(&disk), Path::new("/b"));
        assert_eq!(bucket.list("").unwrap(), []);
        assert_eq!(bucket.head("a/b/1.page").unwrap(), None);
        bucket.put("a/b/1.page", b"hello".to_vec()).unwrap();
        bucket.put("a/c", b"x".to_vec()).unwrap();
        bucket.put("a/c", b"yz".to_vec()).unwrap();
        let listed = |prefix: &str| -> Vec<(String, u64)> {
            bucket.list(prefix).unwrap().into_iter().map(|one| (one.key, one.bytes)).collect()
        };
        assert_eq!(listed(""), [("a/b/1.page".into(), 5), ("a/c".into(), 2)]);
        assert_eq!(listed("a/b/"), [("a/b/1.page".into(), 5)]);
        assert_eq!(bucket.get("a/b/1.page", 1..4).unwrap(), b"ell");
        assert!(matches!(bucket.get("a/b/1.page", 1..6), Err(BucketError::Short(_))));
        assert!(matches!(bucket.get("a/b/2.page", 0..1), Err(BucketError::Missing(_))));
        bucket.delete("a/c").unwrap();
        bucket.delete("a/c").unwrap();
        assert_eq!(listed("a/"), [("a/b/1.page".into(), 5)]);
    }
}
