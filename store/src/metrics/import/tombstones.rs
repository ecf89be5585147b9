//! What was deleted from a block and is still in it. Follows `tsdb/docs/format/tombstones.md` of Prometheus.

use std::collections::HashMap;
use std::path::Path;

use binnacle_model::{TimeRange, Timestamp};

use super::ImportError;
use super::input::Input;
use crate::bytes::Reader;
use crate::fs::Disk;

const MAGIC: u32 = 0x0130_BA30;

/// Magic, version and checksum.
const FRAME_BYTES: u64 = 4 + 1 + 4;

/// Larger than any that a server which reads them whole can have.
const MAX_BYTES: u64 = 1 << 30;

/// Ranges that are deleted, by reference of series.
#[derive(Debug, Default)]
pub(super) struct Tombstones(HashMap<u64, Vec<TimeRange>>);

impl Tombstones {
    /// Those of a block; a block without the file has none.
    pub(super) fn read(disk: &dyn Disk, path: &Path) -> Result<Self, ImportError> {
        let exists =
            disk.exists(path).map_err(|cause| ImportError::Read { path: path.to_path_buf(), cause })?;
        if !exists {
            return Ok(Self::default());
        }
        let mut input = Input::open(disk, path)?;
        input.version(MAGIC, 1)?;
        if !(FRAME_BYTES..=MAX_BYTES).contains(&input.size()) {
            return Err(input.corrupt(0, "no tombstones have its size"));
        }
        let bytes = input.checked(5, input.size() - FRAME_BYTES)?;
        decode(bytes).ok_or_else(|| input.corrupt(5, "its tombstones cannot be decoded"))
    }

    /// What is deleted of a series.
    pub(super) fn of(&self, reference: u64) -> &[TimeRange] {
        self.0.get(&reference).map_or(&[], Vec::as_slice)
    }
}

fn decode(bytes: &[u8]) -> Option<Tombstones> {
    let mut reader = Reader::new(bytes);
    let mut found = Tombstones::default();
    while !reader.is_empty() {
        let reference = reader.varint()?;
        let range = TimeRange { start: Timestamp(reader.zigzag()?), end: Timestamp(reader.zigzag()?) };
        found.0.entry(reference).or_default().push(range);
    }
    Some(found)
}
