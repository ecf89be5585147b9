//! The entries that a log query answers.

use std::ops::ControlFlow;

use binnacle_model::LogTime;
use binnacle_model::log::LogEntry;
use binnacle_model::storage::{
    Deadline, Holding, LogOrder, LogRequest, LogSearcher, PageRequest, StorageError,
};

use super::plan::Plan;
use super::row::{Kind, Row};

/// A line of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selected {
    /// When it was written.
    pub time: LogTime,
    /// What it says, behind the pipeline.
    pub line: Vec<u8>,
    /// Ascending by name.
    pub labels: Vec<(String, String, Kind)>,
}

impl Selected {
    /// What a pipeline left of an entry.
    pub fn new(row: &Row<'_>) -> Self {
        let labels = row.labels();
        Self {
            time: row.entry().time,
            line: row.line().to_vec(),
            labels: labels
                .into_iter()
                .map(|label| (label.name.into_owned(), label.value.into_owned(), label.kind))
                .collect(),
        }
    }

    /// In samples of 16 bytes, about.
    fn size(&self) -> usize {
        let labels: usize = self.labels.iter().map(|(name, value, _)| name.len() + value.len() + 56).sum();
        (self.line.len() + labels) / 16 + 4
    }
}

/// What a log query finds.
#[derive(Debug)]
pub struct Found {
    /// In the order that was asked for.
    pub lines: Vec<Selected>,
    /// A sentence for each piece of storage that could not be read.
    pub warnings: Vec<String>,
    /// Counts the lines for as long as they are there.
    pub held: Holding,
}

/// Between two looks at the deadline.
pub(super) const ENTRIES_PER_LOOK: usize = 1000;

/// The first `limit` lines in the order, from `start` until before `end`.
pub fn select(
    logs: &dyn LogSearcher,
    plan: &Plan,
    span: (LogTime, LogTime),
    order: LogOrder,
    limit: usize,
    deadline: &Deadline,
) -> Result<Found, StorageError> {
    select_noting(logs, plan, span, order, limit, deadline, &mut |_| ())
}

/// The same; the entry of each line is shown to `note`.
pub fn select_noting(
    logs: &dyn LogSearcher,
    plan: &Plan,
    (start, end): (LogTime, LogTime),
    order: LogOrder,
    limit: usize,
    deadline: &Deadline,
    note: &mut dyn FnMut(&LogEntry),
) -> Result<Found, StorageError> {
    let request = LogRequest { query: plan.query.clone(), start, end };
    let mut held = deadline.holding();
    let mut lines = Vec::new();
    if limit == 0 {
        return Ok(Found { lines, warnings: Vec::new(), held });
    }
    if plan.keeps_all() {
        let page = PageRequest { limit, order, ..PageRequest::default() };
        let page = logs.search(&request, page, deadline)?;
        for row in page.entries.iter().filter_map(|(_, entry)| plan.run(entry)) {
            note(row.entry());
            let selected = Selected::new(&row);
            held.add(selected.size())?;
            lines.push(selected);
        }
        return Ok(Found { lines, warnings: page.warnings, held });
    }
    let mut seen = 0usize;
    let mut failed = None;
    let warnings = logs.scan(&request, order, deadline, &mut |_, entry| {
        seen += 1;
        if seen.is_multiple_of(ENTRIES_PER_LOOK) && deadline.is_over() {
            failed = Some(StorageError::Deadline);
            return ControlFlow::Break(());
        }
        if let Some(row) = plan.run(&entry) {
            note(row.entry());
            let selected = Selected::new(&row);
            if let Err(error) = held.add(selected.size()) {
                failed = Some(error);
                return ControlFlow::Break(());
            }
            lines.push(selected);
        }
        if lines.len() == limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    match failed {
        Some(error) => Err(error),
        None => Ok(Found { lines, warnings, held }),
    }
}
