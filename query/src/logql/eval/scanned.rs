//! Range aggregations over entries that go through a pipeline, in the order of time.
//!
//! Counts are added where a window begins and taken off where it ends, so that no entry is held. Where the numbers of a
//! window are needed together, those of the present windows are held and no others.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use binnacle_model::log::LogEntry;
use binnacle_model::storage::{Deadline, LogOrder, LogRequest, LogSearcher, StorageError};
use binnacle_model::{Labels, LogTime, MatchOp, Matcher};

use super::super::ast::{RangeAggregation, RangeOp};
use super::super::plan::Plan;
use super::super::row::Row;
use super::super::selection::ENTRIES_PER_LOOK;
use super::columns::{ABSENT, Columns};
use super::over_time::{Point, reduce};
use super::{Leaf, MetricError, Steps};

/// Fills the columns of a leaf.
pub(super) fn columns(
    leaf: &Leaf<'_>,
    steps: Steps,
    logs: &dyn LogSearcher,
    deadline: &Deadline,
    columns: &mut Columns,
) -> Result<Vec<String>, MetricError> {
    let range = leaf.range;
    let plan = Plan::new(&range.logs);
    let first = steps.start_ns.saturating_sub(range.offset_ns);
    let last = steps.last().saturating_sub(range.offset_ns);
    let request = LogRequest {
        query: plan.query.clone(),
        // As for slices: the end of a range is in it.
        start: LogTime(first.saturating_sub(range.range_ns).saturating_add(1)),
        end: LogTime(last.saturating_add(1)),
    };
    let mut scan =
        Scan { leaf, steps: Steps { start_ns: first, ..steps }, columns, windows: Vec::new(), next: 0 };
    let mut seen = 0usize;
    let mut failed = None;
    let warnings = logs.scan(&request, LogOrder::OldestFirst, deadline, &mut |_, entry| {
        seen += 1;
        let late = seen.is_multiple_of(ENTRIES_PER_LOOK) && deadline.is_over();
        let taken =
            if late { Err(StorageError::Deadline.into()) } else { scan.take(&plan, &entry, deadline) };
        match taken {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    if let Some(error) = failed {
        return Err(error);
    }
    scan.finish(deadline)?;
    Ok(warnings)
}

/// A series on its way.
enum Window {
    /// What begins at each step, less what ended at it.
    Sums(Vec<i64>),
    /// The present window, and whether it changed since the step before.
    Points(VecDeque<Point>),
}

struct Scan<'s, 'e> {
    leaf: &'s Leaf<'e>,
    /// Their offset taken off.
    steps: Steps,
    columns: &'s mut Columns,
    /// By the number of their column.
    windows: Vec<Window>,
    /// The first step that has no number yet.
    next: usize,
}

impl Scan<'_, '_> {
    fn range(&self) -> &RangeAggregation {
        self.leaf.range
    }

    fn adds_up(&self) -> bool {
        let range = self.range();
        let is_count =
            matches!(range.op, RangeOp::Count | RangeOp::Rate | RangeOp::Bytes | RangeOp::BytesRate);
        range.op == RangeOp::Absent || (is_count && range.unwrap.is_none())
    }

    fn take(&mut self, plan: &Plan, entry: &LogEntry, deadline: &Deadline) -> Result<(), MetricError> {
        let range = self.leaf.range;
        let Some(mut row) = plan.run(entry) else { return Ok(()) };
        let mut number = 0.0;
        if let Some(unwrap) = &range.unwrap {
            let Some(value) = unwrap.number(&mut row) else { return Ok(()) };
            number = value;
        }
        if let Some(kind) = row.error() {
            return Err(MetricError::Pipeline { kind, series: series_text(&row) });
        }
        if self.adds_up() {
            let amount = if matches!(range.op, RangeOp::Bytes | RangeOp::BytesRate) {
                row.line().len() as i64
            } else {
                1
            };
            return self.add(&row, entry.time.0, amount);
        }
        self.go_on(entry.time.0, deadline)?;
        let at = self.series(&row)?;
        self.columns.held().add(1)?;
        if let Window::Points(points) = &mut self.windows[at] {
            points.push_back((entry.time.0, number));
        }
        Ok(())
    }

    /// The series of a line.
    fn series(&mut self, row: &Row<'_>) -> Result<usize, StorageError> {
        let unwrapped = self.leaf.range.unwrap.as_ref().map(|unwrap| unwrap.label.as_str());
        let grouping = self.leaf.grouping;
        let at = if self.leaf.range.op == RangeOp::Absent {
            // One for all: it says whether there is anything.
            if self.columns.series.is_empty() { self.columns.push(Labels::default())? } else { 0 }
        } else {
            self.columns.of_row(row, grouping, unwrapped)?
        };
        if at == self.windows.len() {
            let window = if self.adds_up() {
                self.columns.held().add(self.steps.count / 2 + 1)?;
                Window::Sums(vec![0; self.steps.count + 1])
            } else {
                Window::Points(VecDeque::new())
            };
            self.windows.push(window);
        }
        Ok(at)
    }

    /// Adds an amount to all windows in which a moment lies.
    fn add(&mut self, row: &Row<'_>, time: i64, amount: i64) -> Result<(), MetricError> {
        let Steps { start_ns, step_ns, count } = self.steps;
        let into = i128::from(time) - i128::from(start_ns);
        let (first, last) = if count == 1 {
            (0, 0)
        } else {
            let (step, range) = (i128::from(step_ns), i128::from(self.range().range_ns));
            // The first step at or behind it, and the last one from which the range reaches back to it.
            let first = into.div_euclid(step) + i128::from(into.rem_euclid(step) != 0);
            (first.max(0), (into + range - 1).div_euclid(step).min(count as i128 - 1))
        };
        if first > last {
            return Ok(());
        }
        let at = self.series(row)?;
        if let Window::Sums(sums) = &mut self.windows[at] {
            sums[first as usize] += amount;
            sums[last as usize + 1] -= amount;
        }
        Ok(())
    }

    /// Gives numbers to all steps before a moment.
    fn go_on(&mut self, time: i64, deadline: &Deadline) -> Result<(), MetricError> {
        while self.next < self.steps.count && self.steps.at(self.next) < time {
            self.step(deadline)?;
        }
        Ok(())
    }

    fn step(&mut self, deadline: &Deadline) -> Result<(), MetricError> {
        if deadline.is_over() {
            return Err(StorageError::Deadline.into());
        }
        let range = self.leaf.range;
        let begin = self.steps.at(self.next).saturating_sub(range.range_ns);
        let mut gone = 0;
        for (window, (_, column)) in self.windows.iter_mut().zip(&mut self.columns.series) {
            let Window::Points(points) = window else { continue };
            while points.front().is_some_and(|(time, _)| *time <= begin) {
                points.pop_front();
                gone += 1;
            }
            if !points.is_empty() {
                let value = reduce(range.op, range.param, range.range_ns, points);
                column[self.next] = if value.is_nan() { f64::NAN } else { value };
            }
        }
        self.columns.held().give_back(gone);
        self.next += 1;
        Ok(())
    }

    fn finish(mut self, deadline: &Deadline) -> Result<(), MetricError> {
        if !self.adds_up() {
            while self.next < self.steps.count {
                self.step(deadline)?;
            }
            return Ok(());
        }
        let range = self.leaf.range;
        if range.op == RangeOp::Absent {
            return self.finish_absent();
        }
        let seconds = range.range_ns as f64 / 1e9;
        let is_rate = matches!(range.op, RangeOp::Rate | RangeOp::BytesRate);
        for (window, (_, column)) in self.windows.iter().zip(&mut self.columns.series) {
            let Window::Sums(sums) = window else { continue };
            let mut sum = 0;
            for (slot, change) in column.iter_mut().zip(sums) {
                sum += change;
                if sum > 0 {
                    *slot = if is_rate { sum as f64 / seconds } else { sum as f64 };
                }
            }
        }
        Ok(())
    }

    /// One where there is nothing, with the labels that the selector names.
    fn finish_absent(self) -> Result<(), MetricError> {
        let labels = absent_labels(&self.leaf.range.logs.matchers);
        if self.columns.series.is_empty() {
            self.columns.push(Labels::default())?;
        }
        let (name, column) = &mut self.columns.series[0];
        *name = labels;
        let mut sum = 0;
        for (step, slot) in column.iter_mut().enumerate() {
            if let Some(Window::Sums(sums)) = self.windows.first() {
                sum += sums[step];
            }
            *slot = if sum == 0 { 1.0 } else { ABSENT };
        }
        Ok(())
    }
}

fn series_text(row: &Row<'_>) -> String {
    let labels = row.labels();
    let pairs = labels.iter().filter(|label| !label.name.starts_with("__error"));
    let pairs = pairs.map(|label| (&*label.name, &*label.value));
    Labels::new(pairs).unwrap_or_default().to_string()
}

/// Labels that a selector says to be equal to something, each once.
fn absent_labels(matchers: &[Matcher]) -> Labels {
    let named = |name: &str| matchers.iter().filter(|matcher| matcher.name == name).count();
    let equal = matchers.iter().filter(|matcher| matcher.op == MatchOp::Equal && named(&matcher.name) == 1);
    Labels::new(equal.map(|matcher| (matcher.name.as_str(), matcher.value.as_str()))).unwrap_or_default()
}
