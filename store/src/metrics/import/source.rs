//! Where blocks of Prometheus are: in its data directory, in a snapshot of it, or one alone.

use std::path::{Path, PathBuf};

use binnacle_model::{TimeRange, Timestamp};
use serde::Deserialize;

use super::ImportError;
use crate::fs::{Disk, read_all};

/// It lists blocks that were merged into this one, of which there may be thousands.
const META_MAX_BYTES: u64 = 16 << 20;

const META: &str = "meta.json";

/// Letters and digits of a ULID.
const ULID_LENGTH: usize = 26;

/// What `meta.json` says, as far as it matters here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    ulid: String,
    min_time: i64,
    max_time: i64,
    version: u64,
}

/// A block to import.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) dir: PathBuf,
    pub(super) ulid: String,
    pub(super) range: TimeRange,
}

/// What lies in a directory.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Ascending by time.
    pub(super) blocks: Vec<Source>,
    /// Directories that are named as blocks and have no `meta.json`: Prometheus did not finish them.
    pub(super) unfinished: Vec<PathBuf>,
    /// Whether there is a write-ahead log beside the blocks.
    pub(super) has_wal: bool,
}

/// Looks for blocks in `dir`, which may be one itself.
pub(super) fn find(disk: &dyn Disk, dir: &Path) -> Result<Found, ImportError> {
    let read = |cause| ImportError::Read { path: dir.to_path_buf(), cause };
    let mut found = Found::default();
    if disk.exists(&dir.join(META)).map_err(read)? {
        found.blocks.push(read_meta(disk, dir)?);
        return Ok(found);
    }
    for name in disk.list(dir).map_err(read)? {
        let path = dir.join(&name);
        if name == "wal" {
            found.has_wal = true;
        } else if is_ulid(&name) {
            if disk.exists(&path.join(META)).map_err(read)? {
                found.blocks.push(read_meta(disk, &path)?);
            } else {
                found.unfinished.push(path);
            }
        }
    }
    found.blocks.sort_by(|a, b| (a.range.start, &a.ulid).cmp(&(b.range.start, &b.ulid)));
    if found.blocks.is_empty() {
        return Err(ImportError::NoBlocks { dir: dir.to_path_buf(), has_wal: found.has_wal });
    }
    Ok(found)
}

fn is_ulid(name: &str) -> bool {
    name.len() == ULID_LENGTH && name.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase())
}

fn read_meta(disk: &dyn Disk, dir: &Path) -> Result<Source, ImportError> {
    let path = dir.join(META);
    let bytes = read_all(disk, &path, META_MAX_BYTES)
        .map_err(|cause| ImportError::Read { path: path.clone(), cause })?;
    let meta: Meta =
        serde_json::from_slice(&bytes).map_err(|cause| ImportError::Meta { path: path.clone(), cause })?;
    if meta.version != 1 {
        return Err(ImportError::TooNew { path, found: meta.version, newest: 1 });
    }
    if !is_ulid(&meta.ulid) {
        return Err(ImportError::Corrupt { path, offset: 0, reason: "its ulid is none" });
    }
    // Theirs ends before the end.
    let end = meta.max_time.saturating_sub(1).max(meta.min_time);
    let range = TimeRange { start: Timestamp(meta.min_time), end: Timestamp(end) };
    Ok(Source { dir: dir.to_path_buf(), ulid: meta.ulid, range })
}

/// ULIDs of blocks that were imported, one to a line, in a file beside our blocks.
#[derive(Debug)]
pub(super) struct Known {
    path: PathBuf,
    ulids: std::collections::BTreeSet<String>,
}

impl Known {
    pub(super) fn read(disk: &dyn Disk, dir: &Path) -> std::io::Result<Self> {
        let path = dir.join("imported");
        let bytes = if disk.exists(&path)? { read_all(disk, &path, META_MAX_BYTES)? } else { Vec::new() };
        let text = String::from_utf8_lossy(&bytes);
        let ulids = text.lines().filter(|line| is_ulid(line)).map(str::to_owned).collect();
        Ok(Self { path, ulids })
    }

    pub(super) fn contains(&self, ulid: &str) -> bool {
        self.ulids.contains(ulid)
    }

    /// Adds one, durably.
    pub(super) fn add(&mut self, disk: &dyn Disk, ulid: &str) -> std::io::Result<()> {
        self.ulids.insert(ulid.to_owned());
        let text: String = self.ulids.iter().flat_map(|one| [one, "\n"]).collect();
        crate::fs::write_atomic(disk, &self.path, text.as_bytes())
    }
}
