//! Tailing: every line of every log file, once, with its place.
//!
//! ```text
//! listing   directories ─► origins: the files of a container, rotated ones first (hints: when to look sooner)
//!              │ identity  how a file begins: it keeps its name in the store when it is renamed or compressed
//! origin    the oldest file of which not all was given out
//!              │ source    bytes, unpacked where they are compressed; or entries of a journal
//! records   header off, pieces and traces joined, cut into records
//!              │ edge      limits, sampling, redaction
//!              │ pack      what is sent, already in its form on the wire
//! sender    until the store has it ─► checkpoint
//!              spool       what is left of files that were deleted meanwhile
//! ```
//!
//! Truth is the directory's listing, taken again at least once a second. Numbers in comments (L1, L7, …) name the
//! failure modes that a piece of code is for.
//!
//! Invariants:
//! - A batch covers `from..to` of one file without a gap, and no line of it lies outside. Nothing is open at `to`.
//! - A file's place moves only after the store acknowledged; what it gets twice it drops by mark.
//! - A file is known by how it begins (and its inode, if it is no container's); its name may change or be used again.
//!   A journal has a name of its own in its header.
//! - Places are bytes; of a journal they are numbers of entries, wherever a place or a count of bytes is spoken of.
//! - What vanishes before it was acknowledged is counted, to the byte.

mod checkpoint;
mod cri;
mod docker;
pub mod edge;
mod entries;
mod file;
mod hints;
mod identity;
mod listing;
pub mod multiline;
mod open;
mod origin;
mod pack;
mod records;
mod sender;
mod source;
mod spool;
mod tailer;

use std::path::PathBuf;

use crate::bounds::CpuShare;
pub use crate::journal::Units;
pub use listing::Input;
pub(crate) use listing::{app_of, fits};
pub use sender::{LocalSink, LogSink};
pub use spool::SpoolLimits;
pub use tailer::Tailer;

/// What to tail and where to remember it.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the files are.
    pub input: Input,
    /// Label `node` of all lines, and a part of each file's name in the store.
    pub node: String,
    /// Its number among the inputs of this process, for reports.
    pub number: u32,
    /// Directory for checkpoint and spool.
    pub state_dir: PathBuf,
    /// Bytes of lines that are sent at once.
    pub pack_bytes: usize,
    /// What all that is read may take of the processors.
    pub cpu: Option<std::sync::Arc<CpuShare>>,
    /// What is kept of files that are deleted while the store is away.
    pub spool: SpoolLimits,
    /// Which lines belong together.
    pub multiline: multiline::Multiline,
    /// Seconds east of Greenwich, for times in plain files that do not say their zone.
    pub zone_seconds: i32,
    /// What happens to records before they leave.
    pub edge: edge::EdgeRules,
    /// What pods' annotations say, where a cluster tells of them.
    pub pods: Option<std::sync::Arc<edge::PodRules>>,
}

/// Reads bytes as a file of logs in windows of a few sizes, and again in one; for whoever throws bytes at it.
///
/// # Panics
/// The windows do not cover the file, or one finds other records than the other.
pub fn try_lines(file: &[u8]) {
    let (sizes, file) = file.split_at(file.len().min(3));
    for format in [records::LineFormat::Container, records::LineFormat::Plain] {
        let windows =
            |sizes: &[usize]| records::in_windows(file, sizes, format, &multiline::Multiline::Traces);
        let sizes: Vec<usize> = sizes.iter().map(|size| usize::from(*size) + 1).chain([300]).collect();
        assert_eq!(windows(&sizes), windows(&[file.len() + 1]));
    }
}

/// Reads bytes as a compressed file.
///
/// # Errors
/// The file system's.
pub fn try_gzip(file: std::fs::File) -> std::io::Result<()> {
    let mut source = source::Source::new(file, true, 0);
    let mut buffer = Vec::new();
    for (offset, wanted) in [(0, 100), (50, 4096), (4000, 65_536), (10, 10)] {
        source.read(offset, wanted, &mut buffer)?;
        assert!(buffer.len() <= wanted, "a window has a size");
    }
    source.size().map(|_| ())
}

#[cfg(test)]
mod tests;
