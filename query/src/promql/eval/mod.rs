//! Evaluation: every step of a range at once, a column per series.
//!
//! ```text
//! Expr ─► eval(expr, grid) ─► Scalar(a number per step) | Vector(columns) | Text
//!          ├ select      series from storage, the last sample before each step
//!          ├ parts       either, worked on by all cores
//!          ├ stats       counts what both looked at, for whoever asks
//!          ├ windows     series from storage or a subquery, a window before each step ─► over_time, rates (anchored)
//!          ├ binary      columns meet by their labels ─► elements
//!          ├ aggregate   columns fold into groups as they come, on every core ─► fold; rank keeps some of them
//!          └ calls       all other functions ─► histograms, labels, info
//! ```
//!
//! A name that a function takes away is only marked, and goes at the end: functions of labels in between
//! may still use it, as with Prometheus's `promql-delayed-name-removal`.

mod aggregate;
mod anchored;
mod binary;
mod calls;
mod column;
mod dates;
mod elements;
mod fold;
mod histograms;
mod info;
mod labels;
mod logarithms;
mod over_time;
mod parts;
mod rank;
mod rates;
mod select;
mod stats;
mod sums;
mod trim;
mod windows;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use binnacle_model::histogram::Histogram;
use binnacle_model::storage::{Deadline, HistogramSample, Queryable, Room, StorageError};
use binnacle_model::text::lossy;
use binnacle_model::{Labels, Sample, Timestamp};

use super::ast::{At, BinaryOp, DurationExpr, Expr, Kind, Reach, ValueType};
use super::notes::Notes;
use column::{Column, Point, drop_names, is_absent};
use stats::Counts;
pub use stats::SampleStats;

/// What a query may use.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Samples of 16 bytes held at once, those of columns included; a series counts as eight of them, and until it is
    /// read for its labels and the places of its chunks.
    pub max_samples: usize,
    /// How old a sample may be and still count as the present one.
    pub lookback: Duration,
    /// Between the inner steps of a subquery that names none.
    pub subquery_step: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_samples: 50_000_000,
            lookback: Duration::from_mins(5),
            subquery_step: Duration::from_mins(1),
        }
    }
}

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// The query cannot be evaluated on this data, by PromQL's own rules.
    #[error("{0}")]
    Execution(String),
    /// Storage did not answer, or a limit was reached.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl EvalError {
    fn execution<T>(reason: impl Into<String>) -> Result<T, Self> {
        Err(Self::Execution(reason.into()))
    }
}

/// When to evaluate.
#[derive(Debug, Clone, Copy)]
pub struct QueryParams {
    /// The first step.
    pub start: Timestamp,
    /// No step is later.
    pub end: Timestamp,
    /// Between steps; zero for an instant query.
    pub step: Duration,
}

impl QueryParams {
    /// One step.
    pub fn instant(at: Timestamp) -> Self {
        Self { start: at, end: at, step: Duration::ZERO }
    }
}

/// A series of an instant answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Instant {
    /// What names it.
    pub labels: Labels,
    /// Its value; NaN if it is a histogram.
    pub value: f64,
    /// Its value, if it is a histogram.
    pub histogram: Option<Arc<Histogram>>,
}

/// A series of a range answer.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RangeSeries {
    /// What names it.
    pub labels: Labels,
    /// Ascending by time.
    pub samples: Vec<Sample>,
    /// Ascending by time.
    pub histograms: Vec<HistogramSample>,
}

/// What a query answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// One number.
    Scalar(Timestamp, f64),
    /// Text.
    Text(Timestamp, String),
    /// One sample per series.
    Vector(Timestamp, Vec<Instant>),
    /// All samples of a range.
    Matrix(Vec<RangeSeries>),
}

/// An answer, and what is to be said of it.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The answer.
    pub output: Output,
    /// Warnings and infos.
    pub notes: Notes,
    /// What it looked at, if that was asked.
    pub stats: Option<SampleStats>,
}

/// Evaluates queries over one storage.
pub struct Engine<'a> {
    storage: &'a dyn Queryable,
    limits: Limits,
    type_and_unit: bool,
    has_stats: bool,
}

impl<'a> Engine<'a> {
    /// An engine over `storage`.
    pub fn new(storage: &'a dyn Queryable, limits: Limits) -> Self {
        Self { storage, limits, type_and_unit: false, has_stats: false }
    }

    /// Counts the samples that a query looks at.
    #[must_use]
    pub fn with_stats(mut self, on: bool) -> Self {
        self.has_stats = on;
        self
    }

    /// Judges counters by their label `__type__` rather than by their name.
    #[must_use]
    pub fn with_type_labels(mut self, on: bool) -> Self {
        self.type_and_unit = on;
        self
    }

    /// The answer at one moment, ordered by labels unless the query asks for another order.
    pub fn instant(&self, expr: &Expr, at: Timestamp, deadline: &Deadline) -> Result<Answer, EvalError> {
        let mut run = self.run(QueryParams::instant(at), deadline);
        let grid = run.outer;
        if expr.value_type() == ValueType::Matrix {
            let series = run.last_windows(expr, grid)?;
            return Ok(run.answer(Output::Matrix(series)));
        }
        let output = match run.eval(expr, grid)? {
            Value::Scalar(values) => Output::Scalar(at, values[0]),
            Value::Text(text) => Output::Text(at, lossy(&text).into_owned()),
            Value::Vector(columns) => {
                let there = drop_names(columns)?.into_iter().filter_map(|column| {
                    let (value, histogram) = match column.point(0)? {
                        Point::Float(value) => (value, None),
                        Point::Histogram(histogram) => (f64::NAN, Some(histogram)),
                    };
                    Some(Instant { labels: column.labels, value, histogram })
                });
                let mut series: Vec<Instant> = there.collect();
                if !has_order(expr) {
                    series.sort_by(|a, b| a.labels.cmp(&b.labels));
                }
                Output::Vector(at, series)
            }
        };
        Ok(run.answer(output))
    }

    /// The answer at every step, ordered by labels.
    pub fn range(&self, expr: &Expr, params: QueryParams, deadline: &Deadline) -> Result<Answer, EvalError> {
        let mut run = self.run(params, deadline);
        let grid = run.outer;
        let columns = match run.eval(expr, grid)? {
            Value::Scalar(values) => vec![Column::of_floats(Labels::default(), values)],
            Value::Vector(columns) => drop_names(columns)?,
            Value::Text(_) => {
                let reason =
                    "invalid expression type \"string\" for range query, must be Scalar or instant Vector";
                return EvalError::execution(reason);
            }
        };
        let mut series: Vec<RangeSeries> = columns
            .into_iter()
            .map(|column| grid.series(&column))
            .filter(|series| !series.samples.is_empty() || !series.histograms.is_empty())
            .collect();
        series.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(run.answer(Output::Matrix(series)))
    }

    fn run<'r>(&'r self, params: QueryParams, deadline: &Deadline) -> Run<'r> {
        let step_ms = binnacle_model::time::millis(params.step);
        let span = params.end.0.saturating_sub(params.start.0).max(0);
        let steps = if step_ms == 0 { 1 } else { (span / step_ms) as usize + 1 };
        let outer = Grid { start_ms: params.start.0, step_ms, steps };
        let room = deadline.room().cloned().unwrap_or_else(|| Room::new(self.limits.max_samples));
        Run {
            storage: self.storage,
            limits: self.limits,
            type_and_unit: self.type_and_unit,
            deadline: deadline.within(&room),
            outer,
            counts: self.has_stats.then(|| Arc::new(Counts::new(outer))),
            span_ms: span,
            end_ms: params.end.0,
            room,
            traces_resets: false,
            is_ordered: false,
            plans: rates::Plans::default(),
            notes: Notes::default(),
        }
    }
}

/// Whether the order of the answer is part of it.
fn has_order(expr: &Expr) -> bool {
    match &expr.bare().kind {
        Kind::Call(call) => call.name.starts_with("sort"),
        Kind::Aggregate(aggregation) => aggregation.op.selects(),
        // The left side comes first.
        Kind::Binary(binary) => binary.op == BinaryOp::Or,
        _ => false,
    }
}

/// The steps at which an expression is evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Grid {
    start_ms: i64,
    step_ms: i64,
    steps: usize,
}

impl Grid {
    fn at(self, step: usize) -> i64 {
        self.start_ms + self.step_ms * step as i64
    }

    fn end_ms(self) -> i64 {
        self.at(self.steps.saturating_sub(1))
    }

    /// The first step alone.
    fn first(self) -> Self {
        Self { steps: 1, ..self }
    }

    fn series(self, column: &Column) -> RangeSeries {
        let there = column.floats.iter().enumerate().filter(|(_, value)| !is_absent(**value));
        let samples = there.map(|(i, value)| Sample { timestamp: Timestamp(self.at(i)), value: *value });
        let there = column.histograms.iter().enumerate().filter_map(|(i, one)| Some((i, one.as_ref()?)));
        let histograms = there.map(|(i, histogram)| HistogramSample {
            timestamp: Timestamp(self.at(i)),
            histogram: Arc::clone(histogram),
        });
        RangeSeries {
            labels: column.labels.clone(),
            samples: samples.collect(),
            histograms: histograms.collect(),
        }
    }
}

#[derive(Debug)]
enum Value {
    Scalar(Vec<f64>),
    Vector(Vec<Column>),
    Text(String),
}

impl Value {
    /// As the query's budget counts it.
    fn size(&self) -> usize {
        match self {
            Self::Scalar(values) => values.len(),
            Self::Vector(columns) => columns.iter().map(Column::size).sum(),
            Self::Text(_) => 0,
        }
    }
}

/// One evaluation.
struct Run<'a> {
    storage: &'a dyn Queryable,
    limits: Limits,
    type_and_unit: bool,
    deadline: Deadline,
    /// The steps of the whole query, which `@ start()` and `@ end()` mean.
    outer: Grid,
    /// From the query's start to its end, which no step need meet.
    span_ms: i64,
    end_ms: i64,
    /// Of the whole query, on all cores.
    room: Room,
    /// Whether selectors say of every histogram whether its counter was reset, as Prometheus does where
    /// only counts and sums are asked for.
    traces_resets: bool,
    /// Whether series are wanted in the order of their labels: of equal values the first ones are chosen.
    is_ordered: bool,
    /// Where samples are counted, if that was asked.
    counts: Option<Arc<Counts>>,
    /// Of the rates that were worked out last.
    plans: rates::Plans,
    notes: Notes,
}

impl Run<'_> {
    fn answer(self, output: Output) -> Answer {
        let stats = self.counts.as_ref().map(|counts| counts.finish(self.outer));
        Answer { output, notes: self.notes, stats }
    }

    /// Counts samples that are held from now on.
    fn hold(&self, samples: usize) -> Result<(), EvalError> {
        let held = self.room.hold(samples)?;
        if let Some(counts) = &self.counts {
            counts.peak.fetch_max(held, Ordering::Relaxed);
        }
        self.check()
    }

    /// Lets go of samples that were counted.
    fn release(&self, samples: usize) {
        self.room.release(samples);
    }

    /// Columns as storage gave them, in the order in which they are wanted.
    fn ordered(&self, mut columns: Vec<Column>) -> Vec<Column> {
        if self.is_ordered {
            columns.sort_by(|a, b| a.labels.cmp(&b.labels));
        }
        columns
    }

    fn check(&self) -> Result<(), EvalError> {
        if self.deadline.is_over() { Err(StorageError::Deadline.into()) } else { Ok(()) }
    }

    fn lookback_ms(&self) -> i64 {
        binnacle_model::time::millis(self.limits.lookback)
    }

    fn eval(&mut self, expr: &Expr, grid: Grid) -> Result<Value, EvalError> {
        let (before, plans) = (self.room.held(), self.plans.room());
        let value = self.node(expr, grid)?;
        // What was held on the way is gone.
        self.room.keep((before + self.plans.room()).saturating_sub(plans) + value.size());
        Ok(value)
    }

    fn node(&mut self, expr: &Expr, grid: Grid) -> Result<Value, EvalError> {
        if grid.steps == 0 {
            return Ok(match expr.value_type() {
                ValueType::Scalar => Value::Scalar(Vec::new()),
                _ => Value::Vector(Vec::new()),
            });
        }
        if grid.steps > 1 && is_fixed(expr) {
            return self.eval_once(expr, grid);
        }
        // Every node makes a column at least.
        self.hold(grid.steps)?;
        match &expr.kind {
            Kind::Number(number, _) => Ok(Value::Scalar(vec![*number; grid.steps])),
            Kind::Text(text) => Ok(Value::Text(text.clone())),
            Kind::Paren(inner) => self.eval(inner, grid),
            Kind::Vector(selector) => {
                let columns = self.vector(expr, selector, grid, &Vec::new)?;
                Ok(Value::Vector(self.ordered(columns)))
            }
            Kind::Unary { minus, expr: inner } => self.unary(*minus, inner, grid),
            Kind::Binary(binary) => self.binary(expr.span, binary, grid),
            Kind::Aggregate(aggregation) => self.aggregate(expr.span, aggregation, grid),
            Kind::Call(call) => self.call(expr, call, grid),
            Kind::Matrix(..) | Kind::Subquery(_) => {
                EvalError::execution("a range vector is no result here; wrap it in a function such as rate()")
            }
        }
    }

    /// What is the same at every step is evaluated once.
    fn eval_once(&mut self, expr: &Expr, grid: Grid) -> Result<Value, EvalError> {
        let before = self.counts.as_ref().map_or(0, |counts| counts.first_step());
        let once = self.eval(expr, grid.first())?;
        self.count_again(before, grid.steps);
        Ok(match once {
            Value::Scalar(values) => Value::Scalar(vec![values[0]; grid.steps]),
            Value::Vector(columns) => {
                self.hold(columns.len() * grid.steps)?;
                let repeated = columns.into_iter().map(|mut column| {
                    column.floats = vec![column.floats[0]; grid.steps];
                    if let Some(histogram) = column.histograms.first().cloned() {
                        column.histograms = vec![histogram; grid.steps];
                    }
                    column
                });
                Value::Vector(repeated.collect())
            }
            text @ Value::Text(_) => text,
        })
    }

    fn unary(&mut self, minus: bool, inner: &Expr, grid: Grid) -> Result<Value, EvalError> {
        let value = self.eval(inner, grid)?;
        if !minus {
            return Ok(value);
        }
        Ok(match value {
            Value::Scalar(values) => Value::Scalar(values.into_iter().map(|v| -v).collect()),
            Value::Vector(mut columns) => {
                for column in &mut columns {
                    column.drop_name = true;
                    for value in column.floats.iter_mut().filter(|value| !is_absent(**value)) {
                        *value = -*value;
                    }
                    for histogram in column.histograms.iter_mut().flatten() {
                        Arc::make_mut(histogram).scale(-1.0);
                    }
                }
                Value::Vector(columns)
            }
            text @ Value::Text(_) => text,
        })
    }

    fn columns(&mut self, expr: &Expr, grid: Grid) -> Result<Vec<Column>, EvalError> {
        match self.eval(expr, grid)? {
            Value::Vector(columns) => Ok(columns),
            Value::Scalar(_) | Value::Text(_) => unreachable!("the parser checked the type"),
        }
    }

    fn numbers(&mut self, expr: &Expr, grid: Grid) -> Result<Vec<f64>, EvalError> {
        match self.eval(expr, grid)? {
            Value::Scalar(values) => Ok(values),
            Value::Vector(_) | Value::Text(_) => unreachable!("the parser checked the type"),
        }
    }

    fn text(expr: &Expr) -> Result<&str, EvalError> {
        match &expr.bare().kind {
            Kind::Text(text) => Ok(text),
            _ => EvalError::execution("expected a string literal"),
        }
    }

    /// Where `@` moves a step to.
    fn moment(&self, at: Option<At>, step_ms: i64) -> i64 {
        match at {
            None => step_ms,
            Some(At::Time(time)) => time.0,
            Some(At::Start) => self.outer.start_ms,
            Some(At::End) => self.end_ms,
        }
    }

    /// A range or offset in milliseconds.
    fn reach(&self, reach: &Reach) -> Result<i64, EvalError> {
        let expr = match reach {
            Reach::Fixed(ms) => return Ok(*ms),
            Reach::Calculated(expr) => expr,
        };
        let ms = (self.seconds(expr)? * 1000.0).round();
        if ms.is_nan() || ms.abs() > 9.2e12 {
            return EvalError::execution("duration is out of range");
        }
        Ok(ms as i64)
    }

    fn positive_reach(&self, reach: &Reach) -> Result<i64, EvalError> {
        let ms = self.reach(reach)?;
        if ms <= 0 {
            return EvalError::execution("duration must be greater than 0");
        }
        Ok(ms)
    }

    fn seconds(&self, expr: &DurationExpr) -> Result<f64, EvalError> {
        Ok(match expr {
            DurationExpr::Seconds(seconds, _) => *seconds,
            DurationExpr::Step => self.outer.step_ms as f64 / 1000.0,
            DurationExpr::Range => self.span_ms as f64 / 1000.0,
            DurationExpr::Negate(inner) => -self.seconds(inner)?,
            DurationExpr::Paren(inner) => self.seconds(inner)?,
            DurationExpr::MinOf(left, right) => calls::smaller_of(self.seconds(left)?, self.seconds(right)?),
            DurationExpr::MaxOf(left, right) => calls::larger_of(self.seconds(left)?, self.seconds(right)?),
            DurationExpr::Binary(op, left, right) => {
                let (left, right) = (self.seconds(left)?, self.seconds(right)?);
                match op {
                    super::ast::BinaryOp::Div if right == 0.0 => {
                        return EvalError::execution("division by zero");
                    }
                    super::ast::BinaryOp::Mod if right == 0.0 => {
                        return EvalError::execution("modulo by zero");
                    }
                    op => elements::of_floats(*op, left, right).0,
                }
            }
        })
    }
}

/// Functions whose result differs from step to step whatever their arguments are.
const OF_THE_STEP: [&str; 11] = [
    "day_of_month",
    "day_of_week",
    "day_of_year",
    "days_in_month",
    "hour",
    "minute",
    "month",
    "predict_linear",
    "time",
    "timestamp",
    "year",
];

/// Whether an expression reads storage, and always at the same moment.
fn is_fixed(expr: &Expr) -> bool {
    reads_storage(expr) && is_same_at_every_step(expr)
}

fn reads_storage(expr: &Expr) -> bool {
    matches!(expr.kind, Kind::Vector(_) | Kind::Matrix(..)) || expr.parts().into_iter().any(reads_storage)
}

fn is_same_at_every_step(expr: &Expr) -> bool {
    match &expr.kind {
        Kind::Vector(selector) | Kind::Matrix(selector, _) => selector.at.is_some(),
        Kind::Subquery(subquery) => subquery.at.is_some(),
        Kind::Call(call) if OF_THE_STEP.contains(&call.name) => false,
        _ => expr.parts().into_iter().all(is_same_at_every_step),
    }
}

#[cfg(test)]
mod tests;
