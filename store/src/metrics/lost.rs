//! What was damaged and is not answered any more: the `quarantine` folder, and what queries are told of it.
//!
//! The names of its files say of which time samples are missing: `NUMBER-START-END.block` is a block that was set
//! aside, `NUMBER-START-END.wal` an empty file for a file of the WAL of which records could not be read.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use binnacle_model::{TimeRange, Timestamp};

use super::block::BlockError;
use crate::fs::Disk;
use crate::wal::WalFileId;

const BLOCK: &str = "block";
const ROLLUP: &str = "rollup";
const WAL: &str = "wal";

/// Samples that are missing.
#[derive(Debug, Clone)]
pub(super) struct Lost {
    /// When they were.
    pub(super) range: TimeRange,
    /// What is left of them.
    path: PathBuf,
}

impl Lost {
    fn parse(path: PathBuf) -> Option<Self> {
        let extension = path.extension()?.to_str()?;
        if ![BLOCK, ROLLUP, WAL].contains(&extension) {
            return None;
        }
        let (_, times) = path.file_stem()?.to_str()?.split_once('-')?;
        // A time before 1970 has a sign of its own.
        let middle = times.get(1..)?.find('-')? + 1;
        let (start, end) = (times[..middle].parse().ok()?, times[middle + 1..].parse().ok()?);
        Some(Self { range: TimeRange { start: Timestamp(start), end: Timestamp(end) }, path })
    }

    /// Of the block or the file of the WAL.
    pub(super) fn number(&self) -> u64 {
        let number = self.path.file_stem().and_then(|stem| stem.to_str()?.split_once('-'));
        number.and_then(|(number, _)| number.parse().ok()).unwrap_or(0)
    }

    fn is_wal(&self) -> bool {
        self.path.extension().is_some_and(|extension| extension == WAL)
    }

    /// Whether it stands for this file of the WAL.
    pub(super) fn is_of_wal(&self, file: WalFileId) -> bool {
        self.is_wal() && self.number() == file.0
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let TimeRange { start, end } = self.range;
        if self.is_wal() {
            let number = name.split('-').next().unwrap_or_default();
            write!(
                out,
                "write-ahead log {number}.wal is damaged: samples from {start} to {end} may be missing"
            )
        } else {
            write!(
                out,
                "block {name} is damaged and was set aside: samples from {start} to {end} may be missing"
            )
        }
    }
}

fn aside_of(dir: &Path) -> PathBuf {
    dir.join("quarantine")
}

/// Moves a damaged block out of the way, and says so.
pub(super) fn quarantine(disk: &dyn Disk, path: &Path, error: &BlockError) -> io::Result<Lost> {
    let parent = path.parent().unwrap_or(Path::new("."));
    let aside = aside_of(parent);
    disk.create_dir_all(&aside)?;
    let moved = aside.join(path.file_name().unwrap_or_default());
    disk.rename(path, &moved)?;
    disk.sync_dir(&aside)?;
    disk.sync_dir(parent)?;
    tracing::error!(%error, to = %aside.display(), "a damaged block was set aside; its samples are not answered");
    Lost::parse(moved).ok_or_else(|| io::Error::other("a block without a range in its name"))
}

/// Remembers that records of a WAL file are missing, whose samples were in `range`.
pub(super) fn remember_wal(
    disk: &dyn Disk,
    dir: &Path,
    file: WalFileId,
    range: TimeRange,
) -> io::Result<Lost> {
    let aside = aside_of(dir);
    disk.create_dir_all(&aside)?;
    let path = aside.join(format!("{:010}-{}-{}.{WAL}", file.0, range.start.0, range.end.0));
    disk.create(&path)?.sync()?;
    disk.sync_dir(&aside)?;
    let lost = Lost { range, path };
    tracing::error!("{lost}");
    Ok(lost)
}

/// What was set aside earlier.
pub(super) fn list(disk: &dyn Disk, dir: &Path) -> io::Result<Vec<Lost>> {
    let aside = aside_of(dir);
    if !disk.exists(&aside)? {
        return Ok(Vec::new());
    }
    Ok(disk.list(&aside)?.into_iter().filter_map(|name| Lost::parse(aside.join(name))).collect())
}
