//! Counts and sums of bytes that the store adds up: no entry is looked at here.

use binnacle_model::LogTime;
use binnacle_model::labels::Labels;
use binnacle_model::log::loki_alias;
use binnacle_model::storage::{
    Deadline, LogAggregate, LogFull, LogKey, LogMeasure, LogRequest, LogSearcher, LogSlices,
};

use super::super::ast::RangeOp;
use super::super::parser::parse_selector;
use super::super::plan::Plan;
use super::columns::Columns;
use super::{Leaf, MetricError, Steps};
use crate::promql::Grouping;

/// Slices of one question. A step that has little in common with the range has more, and is scanned.
const MAX_SLICES: i64 = 20_000;

/// What to ask of the store.
pub(super) struct Pushed {
    request: LogRequest,
    aggregate: LogAggregate,
    /// From the beginning of one window to that of the next, in slices.
    per_step: usize,
    /// In a window.
    per_window: usize,
}

/// The question, if the store can answer all of the leaf.
pub(super) fn plan(leaf: &Leaf<'_>, steps: Steps) -> Option<Pushed> {
    let range = leaf.range;
    let measure = match range.op {
        RangeOp::Count | RangeOp::Rate => LogMeasure::Entries,
        RangeOp::Bytes | RangeOp::BytesRate => LogMeasure::Bytes,
        _ => return None,
    };
    if range.unwrap.is_some() {
        return None;
    }
    let by = match leaf.grouping {
        None => vec![LogKey::Stream],
        Some(Grouping::By(names)) => {
            let mut known: Vec<&str> = Vec::new();
            for name in names.iter().map(|name| loki_alias(name)) {
                if !known.contains(&name) {
                    known.push(name);
                }
            }
            known.into_iter().map(|name| LogKey::Label(name.to_owned())).collect()
        }
        Some(Grouping::Without(_)) => return None,
    };
    let plan = Plan::new(&range.logs);
    if !plan.is_pushed() {
        return None;
    }
    let width = if steps.count == 1 { range.range_ns } else { gcd(range.range_ns, steps.step_ns) };
    let span = steps.last().checked_sub(steps.start_ns)?.checked_add(range.range_ns)?;
    let count = span / width;
    if count > MAX_SLICES {
        return None;
    }
    // A range has its end in it and not its beginning, a slice its beginning and not its end.
    let start = steps.start_ns.checked_sub(range.offset_ns)?.checked_sub(range.range_ns)?.checked_add(1)?;
    let slices = LogSlices { start: LogTime(start), width_ns: width as u64, count: count as usize };
    Some(Pushed {
        request: LogRequest { query: plan.query, start: slices.start, end: slices.end() },
        aggregate: LogAggregate { by, slices, measure, full: LogFull::Refuse },
        per_step: (steps.step_ns / width) as usize,
        per_window: (range.range_ns / width) as usize,
    })
}

fn gcd(mut a: i64, mut b: i64) -> i64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a.max(1)
}

/// Asks, and adds slices up to windows.
pub(super) fn columns(
    leaf: &Leaf<'_>,
    plan: &Pushed,
    logs: &dyn LogSearcher,
    deadline: &Deadline,
    columns: &mut Columns,
) -> Result<Vec<String>, MetricError> {
    let answer = logs.aggregate(&plan.request, &plan.aggregate, deadline)?;
    let seconds = leaf.range.range_ns as f64 / 1e9;
    let is_rate = matches!(leaf.range.op, RangeOp::Rate | RangeOp::BytesRate);
    for group in &answer.groups {
        let at = columns.push(labels(leaf, plan, &group.key))?;
        let column = &mut columns.series[at].1;
        let mut sum: u64 = 0;
        for (step, slot) in column.iter_mut().enumerate() {
            let begin = step * plan.per_step;
            let window =
                |from: usize, to: usize| group.sums.get(from..to).unwrap_or_default().iter().sum::<u64>();
            if step == 0 || plan.per_step >= plan.per_window {
                sum = window(begin, begin + plan.per_window);
            } else {
                sum -= window(begin - plan.per_step, begin);
                sum += window(begin + plan.per_window - plan.per_step, begin + plan.per_window);
            }
            // Lines without a byte count as none at all where bytes are added up.
            if sum > 0 {
                *slot = if is_rate { sum as f64 / seconds } else { sum as f64 };
            }
        }
    }
    Ok(answer.warnings)
}

/// The labels of a group, in the names that the query has for them.
fn labels(leaf: &Leaf<'_>, plan: &Pushed, key: &[String]) -> Labels {
    let Some(Grouping::By(names)) = leaf.grouping else {
        return stream_labels(key.first().map_or("{}", String::as_str));
    };
    let value = |name: &str| {
        let wanted = loki_alias(name);
        let at =
            plan.aggregate.by.iter().position(|one| matches!(one, LogKey::Label(known) if known == wanted));
        at.and_then(|at| key.get(at)).map_or("", String::as_str)
    };
    let mut pairs: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), value(name))).collect();
    pairs.sort_unstable();
    pairs.dedup_by(|next, before| next.0 == before.0);
    Labels::new(pairs).unwrap_or_default()
}

/// The labels that a stream's text names, as Loki's clients know them.
fn stream_labels(text: &str) -> Labels {
    let matchers = parse_selector(text).unwrap_or_default();
    let has = |name: &str| matchers.iter().any(|matcher| matcher.name == name);
    let pairs = matchers.iter().map(|matcher| {
        let name = match matcher.name.as_str() {
            "service" if !has("service_name") => "service_name",
            "level" if !has("detected_level") => "detected_level",
            name => name,
        };
        (name, matcher.value.as_str())
    });
    Labels::new(pairs).unwrap_or_default()
}
