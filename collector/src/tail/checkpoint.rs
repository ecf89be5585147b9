//! How far each file was acknowledged: a cache, so that a restart need not read everything again.
//!
//! The store's marks are the truth. A lost or damaged checkpoint costs time, never a line.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Where to go on in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Checkpoint {
    /// First byte that was not acknowledged.
    pub(super) offset: u64,
    /// How often the file became shorter; each time it counts as a new file (L3).
    pub(super) truncations: u32,
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
        let by_file = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::warn!(path = %path.display(), %error, "checkpoint is damaged; reading all files again");
                BTreeMap::new()
            }),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(path = %path.display(), %error, "checkpoint cannot be read");
                }
                BTreeMap::new()
            }
        };
        Self { path, by_file, changed: false }
    }

    pub(super) fn get(&self, id: &str) -> Checkpoint {
        self.by_file.get(id).copied().unwrap_or_default()
    }

    pub(super) fn set(&mut self, id: &str, checkpoint: Checkpoint) {
        self.by_file.insert(id.to_owned(), checkpoint);
        self.changed = true;
    }

    /// Forgets files that are gone.
    pub(super) fn forget(&mut self, is_gone: impl Fn(&str) -> bool) {
        let before = self.by_file.len();
        self.by_file.retain(|id, _| !is_gone(id));
        self.changed |= self.by_file.len() != before;
    }

    /// Writes what changed: a temporary file, synced, renamed, and the directory synced (L19).
    pub(super) fn save(&mut self) -> io::Result<()> {
        if !self.changed {
            return Ok(());
        }
        let dir = self.path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(dir)?;
        let temporary = self.path.with_extension("tmp");
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(&self.by_file)?)?;
        file.sync_all()?;
        fs::rename(&temporary, &self.path)?;
        File::open(dir)?.sync_all()?;
        self.changed = false;
        Ok(())
    }
}
