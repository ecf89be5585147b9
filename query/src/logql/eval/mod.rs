//! Queries for numbers.
//!
//! ```text
//! Metric ─┬─► leaves: range aggregations ─┬─► pushed   the store's sums by labels, in slices
//!         │                               └─► scanned  entries in the order of time, through the pipeline
//!         │                                      └ a column per series, a slot per step
//!         └─► PromQL's Expr, a selector in the place of each leaf ─► promql::Engine over the columns
//! ```
//!
//! So all that stands above a range aggregation (aggregations, operators, `label_replace`, sorting) is PromQL's own. A
//! column has samples exactly at the steps, and the engine looks back a millisecond: what is absent stays absent.

mod columns;
mod leaves;
mod over_time;
mod pushed;
mod scanned;
#[cfg(test)]
mod tests;

use std::time::Duration;

use binnacle_model::storage::{Deadline, LogSearcher, StorageError};
use binnacle_model::{LogTime, Timestamp};

use super::ast::{Metric, MetricExpr, RangeAggregation, RangeOp, VectorOp};
use crate::promql::{AggregateOp, Answer, Engine, EvalError, Grouping, Limits, QueryParams};
use columns::Columns;
use leaves::{Leaves, expression};

/// When to evaluate.
#[derive(Debug, Clone, Copy)]
pub struct MetricParams {
    /// The first step.
    pub start: LogTime,
    /// No step is later.
    pub end: LogTime,
    /// Between steps.
    pub step: Duration,
}

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub enum MetricError {
    /// Some line went wrong in the pipeline, and the query does not say that it may.
    #[error(
        "pipeline error: '{kind}' for series: '{series}'.\nUse a label filter to intentionally skip this error. (e.g | __error__!=\"{kind}\").\nTo skip all potential errors you can match empty errors.(e.g __error__=\"\")\nThe label filter can also be specified after unwrap. (e.g | unwrap latency | __error__=\"\" )\n"
    )]
    Pipeline {
        /// In Loki's words.
        kind: &'static str,
        /// Its labels.
        series: String,
    },
    /// As of PromQL.
    #[error(transparent)]
    Eval(#[from] EvalError),
}

impl From<StorageError> for MetricError {
    fn from(error: StorageError) -> Self {
        Self::Eval(EvalError::Storage(error))
    }
}

/// The steps, in nanoseconds.
#[derive(Debug, Clone, Copy)]
struct Steps {
    start_ns: i64,
    /// Zero for one step.
    step_ns: i64,
    count: usize,
}

impl Steps {
    fn at(self, step: usize) -> i64 {
        self.start_ns.saturating_add(self.step_ns.saturating_mul(step as i64))
    }

    fn last(self) -> i64 {
        self.at(self.count - 1)
    }
}

/// A range aggregation, perhaps with the grouping of a sum around it.
#[derive(Debug)]
struct Leaf<'e> {
    range: &'e RangeAggregation,
    grouping: Option<&'e Grouping>,
}

/// The answer at one moment.
pub fn metric_instant(
    metric: &Metric,
    logs: &dyn LogSearcher,
    at: LogTime,
    limits: Limits,
    deadline: &Deadline,
) -> Result<Answer, MetricError> {
    let steps = Steps { start_ns: at.0, step_ns: 0, count: 1 };
    let (leaves, warnings) = columns_of(metric, logs, steps, deadline)?;
    let engine = engine(&leaves, limits);
    let answer = engine.instant(&expression(&metric.0), at.to_timestamp(), deadline)?;
    Ok(with_warnings(answer, &warnings))
}

/// The answer at every step.
pub fn metric_range(
    metric: &Metric,
    logs: &dyn LogSearcher,
    params: MetricParams,
    limits: Limits,
    deadline: &Deadline,
) -> Result<Answer, MetricError> {
    // PromQL counts in milliseconds.
    let step_ms = i64::try_from(params.step.as_millis()).unwrap_or(i64::MAX / 2_000_000).max(1);
    let step_ns = step_ms.saturating_mul(1_000_000);
    let span = params.end.0.saturating_sub(params.start.0).max(0);
    let steps = Steps { start_ns: params.start.0, step_ns, count: (span / step_ns) as usize + 1 };
    let (leaves, warnings) = columns_of(metric, logs, steps, deadline)?;
    let start = params.start.to_timestamp();
    let end = Timestamp(start.0.saturating_add(step_ms.saturating_mul(steps.count as i64 - 1)));
    let params = QueryParams { start, end, step: Duration::from_millis(step_ms as u64) };
    let engine = engine(&leaves, limits);
    let answer = engine.range(&expression(&metric.0), params, deadline)?;
    Ok(with_warnings(answer, &warnings))
}

/// Says beside the answer which pieces of storage could not be read.
fn with_warnings(mut answer: Answer, warnings: &[String]) -> Answer {
    warnings.iter().for_each(|warning| answer.notes.missing(warning));
    answer
}

fn engine(leaves: &Leaves, limits: Limits) -> Engine<'_> {
    Engine::new(leaves, Limits { lookback: Duration::from_millis(1), ..limits })
}

/// A column for each series of each range aggregation.
fn columns_of(
    metric: &Metric,
    logs: &dyn LogSearcher,
    steps: Steps,
    deadline: &Deadline,
) -> Result<(Leaves, Vec<String>), MetricError> {
    let mut found = Vec::new();
    collect(&metric.0, None, &mut found);
    let mut leaves = Leaves::new(steps);
    let mut warnings = Vec::new();
    for leaf in &found {
        let mut columns = Columns::new(steps.count, deadline);
        let said = match pushed::plan(leaf, steps) {
            Some(plan) => pushed::columns(leaf, &plan, logs, deadline, &mut columns)?,
            None => scanned::columns(leaf, steps, logs, deadline, &mut columns)?,
        };
        warnings.extend(said);
        leaves.push(columns);
    }
    warnings.sort_unstable();
    warnings.dedup();
    Ok((leaves, warnings))
}

/// The leaves from left to right, as [`expression`] counts them, too.
fn collect<'e>(expr: &'e MetricExpr, summed: Option<&'e Grouping>, found: &mut Vec<Leaf<'e>>) {
    match expr {
        MetricExpr::Range(range) => {
            let is_sum = matches!(
                range.op,
                RangeOp::Count | RangeOp::Rate | RangeOp::Bytes | RangeOp::BytesRate | RangeOp::Sum
            );
            found.push(Leaf { range, grouping: range.grouping.as_ref().or(summed.filter(|_| is_sum)) });
        }
        MetricExpr::Vector(vector) => {
            // A sum of sums is the sum: the groups of the outer one are all that is needed.
            let summed = match (vector.op, &vector.grouping) {
                (VectorOp::Aggregate(AggregateOp::Sum), Some(by @ Grouping::By(_))) => Some(by),
                (VectorOp::Aggregate(AggregateOp::Sum), None) => Some(&NO_LABELS),
                _ => None,
            };
            collect(&vector.expr, summed, found);
        }
        MetricExpr::Binary(binary) => {
            collect(&binary.left, None, found);
            collect(&binary.right, None, found);
        }
        MetricExpr::LabelReplace { expr, .. } => collect(expr, None, found),
        MetricExpr::Number(_) | MetricExpr::VectorOf(_) => {}
    }
}

static NO_LABELS: Grouping = Grouping::By(Vec::new());
