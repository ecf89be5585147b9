//! How far each log file has been taken in: its first byte that has not.

use std::collections::HashMap;

use binnacle_model::LogTime;
use binnacle_model::log::FileId;
use binnacle_model::push::{FileBatch, LogPush};
use binnacle_model::storage::LogAppendReport;

use super::partition::Day;
use crate::catalog::Mark;

/// Who asks for a file is noted no more often.
const NOTED_EVERY_DAYS: i64 = 2;

/// The marks of all files.
#[derive(Debug, Default)]
pub(super) struct Marks {
    pub(super) by_file: HashMap<FileId, Mark>,
    /// Changed since they were last saved in the catalog.
    pub(super) changed: HashMap<FileId, Mark>,
    /// The last day before which nobody is remembered.
    pub(super) forgotten_before: Option<i64>,
    /// When the last push was received. Later ones are never said to have come before it.
    pub(super) received: LogTime,
}

impl Marks {
    pub(super) fn raise(&mut self, batch: &FileBatch, received: LogTime) {
        if batch.file.is_empty() {
            return;
        }
        let mark = self.by_file.entry(FileId(batch.file.clone())).or_default();
        *mark = Mark { to: mark.to.max(batch.to), day: mark.day.max(Day::of(received).0) };
        self.changed.insert(FileId(batch.file.clone()), *mark);
    }

    /// How far each of these has been taken. Whoever asks has them: their marks are needed.
    pub(super) fn of(&mut self, files: &[String]) -> Vec<u64> {
        let today = Day::of(self.received).0;
        let mut tos = Vec::with_capacity(files.len());
        for file in files {
            let file = FileId(file.clone());
            let mark = self.by_file.get_mut(&file);
            tos.push(mark.as_ref().map_or(0, |mark| mark.to));
            if let Some(mark) = mark.filter(|mark| mark.day + NOTED_EVERY_DAYS <= today) {
                mark.day = today;
                self.changed.insert(file, *mark);
            }
        }
        tos
    }

    /// Forgets files of which nobody has spoken since that day, but for those that are not saved yet; answers which.
    pub(super) fn forget(&mut self, before: i64) -> Vec<FileId> {
        let is_old = |(file, mark): &(&FileId, &Mark)| mark.day < before && !self.changed.contains_key(*file);
        let gone: Vec<FileId> = self.by_file.iter().filter(is_old).map(|(file, _)| file.clone()).collect();
        for file in &gone {
            self.by_file.remove(file);
        }
        gone
    }

    /// Why a batch is not taken that is taken whole or not at all: the mark lies within it.
    pub(super) fn overtaken(&self, push: &LogPush) -> Option<String> {
        let mut reached: HashMap<&str, u64> = HashMap::new();
        for batch in push.batches.iter().filter(|batch| batch.is_whole) {
            let known = self.by_file.get(&FileId(batch.file.clone())).map_or(0, |mark| mark.to);
            let mark = reached.get(&*batch.file).copied().unwrap_or_default().max(known);
            if batch.from < mark && mark < batch.to {
                let (file, from, to) = (&batch.file, batch.from, batch.to);
                return Some(format!(
                    "file {file:?}: of {from}..{to} the store has what lies before {mark}, from another request; \
                     read on there"
                ));
            }
            reached.insert(&batch.file, mark.max(batch.to));
        }
        None
    }

    /// Leaves in the push what lies above the marks.
    pub(super) fn skip_known(&self, push: &mut LogPush) -> LogAppendReport {
        let mut report = LogAppendReport::default();
        // Of files that come more than once in the push.
        let mut reached: HashMap<String, u64> = HashMap::new();
        for batch in push.batches.iter_mut().filter(|batch| !batch.file.is_empty()) {
            let known = self.by_file.get(&FileId(batch.file.clone())).map(|mark| mark.to);
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
            !batch.entries.is_empty()
                || (!batch.file.is_empty() && mark.is_none_or(|mark| mark.to < batch.to))
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
        marks.raise(&batch("f", 0, 10), LogTime(0));
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
        push.batches.iter().for_each(|batch| marks.raise(batch, LogTime(0)));
        assert_eq!(marks.of(&["f".into(), "g".into(), "h".into(), "i".into()]), [26, 6, 8, 0]);
    }

    #[test]
    fn what_is_whole_is_taken_as_a_whole() {
        let mut marks = Marks::default();
        marks.raise(&batch("f", 0, 10), LogTime(0));
        let overtaken = |parts: &[(&str, u64, u64)]| {
            let whole =
                |(file, from, to): &(&str, u64, u64)| FileBatch { is_whole: true, ..batch(file, *from, *to) };
            marks.overtaken(&LogPush { batches: parts.iter().map(whole).collect() })
        };
        for taken in [
            &[("f", 0, 10)][..],
            &[("f", 3, 7)],
            &[("f", 10, 20)],
            &[("f", 12, 20)],
            &[("g", 0, 5), ("f", 10, 20), ("f", 20, 30)],
        ] {
            assert_eq!(overtaken(taken), None, "{taken:?}");
        }
        for not in [
            &[("f", 9, 11)][..],
            &[("f", 0, 20)],
            &[("f", 10, 20), ("f", 15, 25)],
            &[("g", 0, 5), ("g", 4, 6)],
        ] {
            assert!(overtaken(not).is_some(), "{not:?}");
        }
        let lines = LogPush { batches: vec![batch("f", 5, 15)] };
        assert_eq!(marks.overtaken(&lines), None, "each of its lines is for itself");
    }

    #[test]
    fn nobody_forgets_a_file_that_somebody_speaks_of() {
        const DAY_NS: i64 = 86_400_000_000_000;
        let mut marks = Marks::default();
        for file in ["sent", "asked", "gone"] {
            marks.raise(&batch(file, 0, 10), LogTime(0));
        }
        assert_eq!(marks.forget(5), [], "they are not saved");
        marks.changed.clear();
        marks.raise(&batch("sent", 10, 20), LogTime(9 * DAY_NS));
        marks.received = LogTime(9 * DAY_NS);
        assert_eq!(marks.of(&["asked".into(), "never".into()]), [10, 0]);
        let mut changed: Vec<&str> = marks.changed.keys().map(|file| &*file.0).collect();
        changed.sort_unstable();
        assert_eq!(changed, ["asked", "sent"]);
        marks.changed.clear();
        assert_eq!(marks.forget(5), [FileId("gone".into())]);
        assert_eq!(marks.of(&["sent".into(), "asked".into(), "gone".into()]), [20, 10, 0]);
        assert!(marks.changed.is_empty(), "it was noted on this day");
    }
}
