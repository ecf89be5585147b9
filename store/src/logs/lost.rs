//! Lines that are missing because records of the log were damaged before pages had them: `logs/FIRST_LAST_START_END.lost`,
//! empty files that outlive the records.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use binnacle_model::LogTime;

use crate::fs::Disk;
use crate::wal::Sequence;

const EXTENSION: &str = "lost";

/// Records that are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lost {
    /// The first and the last.
    pub(super) records: (Sequence, Sequence),
    /// From when to when their lines are, as far as is known: when they were received, and when their neighbours' are.
    pub(super) span: (LogTime, LogTime),
}

impl Lost {
    fn parse(name: &str) -> Option<Self> {
        let mut numbers = name.strip_suffix(EXTENSION)?.strip_suffix('.')?.split('_').map(str::parse::<i64>);
        let mut next = || numbers.next()?.ok();
        let mut sequence = || Some(Sequence(u64::try_from(next()?).ok()?));
        let records = (sequence()?, sequence()?);
        Some(Self { records, span: (LogTime(next()?), LogTime(next()?)) })
    }

    fn path(&self, dir: &Path) -> PathBuf {
        let ((first, last), (start, end)) = (self.records, self.span);
        dir.join(format!("{}_{}_{}_{}.{EXTENSION}", first.0, last.0, start.0, end.0))
    }

    /// Makes a note of it that outlives the log.
    pub(super) fn remember(&self, disk: &dyn Disk, dir: &Path) -> io::Result<()> {
        disk.create(&self.path(dir))?.sync()?;
        disk.sync_dir(dir)?;
        tracing::error!("{self}");
        Ok(())
    }

    /// Takes the note away, once all lines of its time have expired.
    pub(super) fn forget(&self, disk: &dyn Disk, dir: &Path) -> io::Result<()> {
        disk.remove_file(&self.path(dir))?;
        disk.sync_dir(dir)
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ((first, last), (start, end)) = (self.records, self.span);
        let count = last.0 - first.0.min(last.0) + 1;
        let (start, end) = (start.to_rfc3339(), end.to_rfc3339());
        write!(
            out,
            "{count} records of the write-ahead log were damaged: log lines from {start} to {end} may be missing"
        )
    }
}

/// What was noted earlier, among the names in the folder.
pub(super) fn noted(names: &[String]) -> Vec<Lost> {
    names.iter().filter_map(|name| Lost::parse(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_is_missing() {
        let lost = Lost { records: (Sequence(7), Sequence(9)), span: (LogTime(-5), LogTime(12)) };
        let name = lost.path(Path::new("")).to_string_lossy().into_owned();
        assert_eq!((name.as_str(), Lost::parse(&name)), ("7_9_-5_12.lost", Some(lost)));
        for other in ["7_9_-5.lost", "closed", "p0000020000-000", "7_-9_1_2.lost", "a_b_c_d.lost"] {
            assert_eq!(Lost::parse(other), None, "{other}");
        }
    }
}
