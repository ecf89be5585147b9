//! How far each log file has been taken in: its first byte that has not.

use std::collections::HashMap;

use binnacle_model::LogTime;
use binnacle_model::log::FileId;
use binnacle_model::push::{FileBatch, LogPush};
use binnacle_model::storage::LogAppendReport;

/// The marks of all files.
#[derive(Debug, Default)]
pub(super) struct Marks {
    pub(super) by_file: HashMap<FileId, u64>,
    /// Changed since they were last saved in the catalog.
    pub(super) changed: HashMap<FileId, u64>,
    /// When the last push was received. Later ones are never said to have come before it.
    pub(super) received: LogTime,
}

impl Marks {
    pub(super) fn raise(&mut self, batch: &FileBatch) {
        if batch.file.is_empty() {
            return;
        }
        let mark = self.by_file.entry(FileId(batch.file.clone())).or_default();
        *mark = (*mark).max(batch.to);
        self.changed.insert(FileId(batch.file.clone()), *mark);
    }

    /// How far each of these has been taken.
    pub(super) fn of(&self, files: &[String]) -> Vec<u64> {
        let mark = |file: &String| self.by_file.get(&FileId(file.clone())).copied().unwrap_or_default();
        files.iter().map(mark).collect()
    }

    /// Leaves in the push what lies above the marks.
    pub(super) fn skip_known(&self, push: &mut LogPush) -> LogAppendReport {
        let mut report = LogAppendReport::default();
        for batch in &mut push.batches {
            let mark = self.by_file.get(&FileId(batch.file.clone())).copied();
            let Some(mark) = mark.filter(|_| !batch.file.is_empty()) else { continue };
            let before = batch.entries.len();
            batch.entries.retain(|entry| entry.offset >= mark);
            report.duplicate += before - batch.entries.len();
            report.gap_bytes += batch.from.saturating_sub(mark);
        }
        let is_new = |batch: &FileBatch| {
            let mark = self.by_file.get(&FileId(batch.file.clone()));
            !batch.entries.is_empty() || (!batch.file.is_empty() && mark.is_none_or(|m| *m < batch.to))
        };
        push.batches.retain(is_new);
        report.appended = push.batches.iter().map(|batch| batch.entries.len()).sum();
        report
    }
}
