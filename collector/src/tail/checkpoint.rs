//! How far each file was acknowledged: a cache, so that a start need not ask the store, and what tells after a start
//! which bytes are gone that nobody read.
//!
//! The store's marks are the truth. A lost or damaged checkpoint costs time, never a line.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::identity::{First, Inode};
use super::records::Passing;

/// Of the file that keeps them; another one is not read.
const VERSION: u32 = 3;

/// Where to go on in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Checkpoint {
    /// First byte that was not acknowledged.
    pub(super) offset: u64,
    /// Bytes that were there at the last look.
    pub(super) size: u64,
    /// What is passed over from there on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) passing: Option<Passing>,
    /// Whose it is.
    pub(super) origin: String,
    /// How it begins.
    pub(super) first: First,
    /// Its inode's number, and how often it had been truncated.
    pub(super) inode: u64,
    pub(super) generation: u32,
    /// When the file was made, if the file system says so: numbers of inodes are used again.
    #[serde(default)]
    pub(super) born_ns: u64,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    version: u32,
    files: BTreeMap<String, Checkpoint>,
}

/// All checkpoints, and the file that keeps them.
#[derive(Debug)]
pub(super) struct Checkpoints {
    path: PathBuf,
    by_file: BTreeMap<String, Checkpoint>,
    changed: bool,
}

impl Checkpoints {
    pub(super) fn open(dir: &Path) -> Self {
        let path = dir.join("checkpoints.json");
        let by_file = match fs::read(&path).map(|bytes| serde_json::from_slice::<Saved>(&bytes)) {
            Ok(Ok(saved)) if saved.version == VERSION => saved.files,
            Ok(read) => {
                let error =
                    read.err().map_or_else(|| "it is of another release".to_owned(), |e| e.to_string());
                tracing::warn!(path = %path.display(), error, "checkpoint is not used; the store is asked instead");
                BTreeMap::new()
            }
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(path = %path.display(), %error, "checkpoint cannot be read");
                }
                BTreeMap::new()
            }
        };
        Self { path, by_file, changed: false }
    }

    pub(super) fn get(&self, key: &str) -> Option<&Checkpoint> {
        self.by_file.get(key)
    }

    /// What is known of an origin's file by its inode alone, for one that cannot be opened any more.
    pub(super) fn of_inode(&self, origin: &str, inode: Inode) -> Option<(&String, &Checkpoint)> {
        let born_ns = u64::try_from(inode.born_ns()?).ok()?;
        let is_it = |known: &Checkpoint| (known.inode, known.born_ns) == (inode.number(), born_ns);
        self.by_file.iter().find(|(_, known)| is_it(known) && known.origin == origin)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &Checkpoint)> {
        self.by_file.iter()
    }

    pub(super) fn set(&mut self, key: &str, checkpoint: Checkpoint) {
        if self.by_file.get(key) != Some(&checkpoint) {
            self.by_file.insert(key.to_owned(), checkpoint);
            self.changed = true;
        }
    }

    /// Forgets a file that is gone.
    pub(super) fn forget(&mut self, key: &str) {
        self.changed |= self.by_file.remove(key).is_some();
    }

    /// Writes what changed: a temporary file, synced, renamed, and the directory synced (L19).
    pub(super) fn save(&mut self) -> io::Result<()> {
        if !self.changed {
            return Ok(());
        }
        let saved = Saved { version: VERSION, files: std::mem::take(&mut self.by_file) };
        let text = serde_json::to_vec(&saved);
        self.by_file = saved.files;
        let dir = self.path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(dir)?;
        let temporary = self.path.with_extension("tmp");
        let mut file = File::create(&temporary)?;
        file.write_all(&text?)?;
        file.sync_all()?;
        fs::rename(&temporary, &self.path)?;
        File::open(dir)?.sync_all()?;
        self.changed = false;
        Ok(())
    }
}
