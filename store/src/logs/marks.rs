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
        // Of files that come more than once in the push.
        let mut reached: HashMap<String, u64> = HashMap::new();
        for batch in push.batches.iter_mut().filter(|batch| !batch.file.is_empty()) {
            let known = self.by_file.get(&FileId(batch.file.clone())).copied();
            let Some(mark) = reached.get(&batch.file).copied().max(known) else {
                // Whatever came before was never here, or is forgotten.
                report.gap_bytes += batch.from;
                reached.insert(batch.file.clone(), batch.to);
                continue;
            };
            let before = batch.entries.len();
            batch.entries.retain(|entry| entry.offset >= mark);
            report.duplicate += before - batch.entries.len();
            report.gap_bytes += batch.from.saturating_sub(mark);
            reached.insert(batch.file.clone(), mark.max(batch.to));
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

#[cfg(test)]
mod tests {
    use binnacle_model::push::PushEntry;

    use super::*;

    fn batch(file: &str, from: u64, to: u64) -> FileBatch {
        let entry = |offset| PushEntry { offset, ..PushEntry::default() };
        FileBatch {
            file: file.into(),
            from,
            to,
            entries: (from..to).map(entry).collect(),
            ..FileBatch::default()
        }
    }

    #[test]
    fn a_file_may_come_in_parts() {
        let mut marks = Marks::default();
        marks.raise(&batch("f", 0, 10));
        let parts = vec![
            batch("f", 8, 14),
            batch("g", 0, 3),
            batch("f", 14, 20),
            batch("g", 2, 6),
            batch("f", 25, 26),
            batch("h", 7, 8),
        ];
        let mut push = LogPush { batches: parts };
        let report = marks.skip_known(&mut push);
        assert_eq!(
            report,
            LogAppendReport { appended: 4 + 3 + 6 + 3 + 1 + 1, duplicate: 2 + 1, gap_bytes: 5 + 7 }
        );
        push.batches.iter().for_each(|batch| marks.raise(batch));
        assert_eq!(marks.of(&["f".into(), "g".into(), "h".into(), "i".into()]), [26, 6, 8, 0]);
    }
}
