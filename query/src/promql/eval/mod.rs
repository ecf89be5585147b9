//! Evaluation: every step of a range at once, a column per series.
//!
//! ```text
//! Expr ─► eval(expr, grid) ─► Scalar(a number per step) | Vector(columns) | Text
//!          ├ selector    series from storage, the last sample before each step
//!          ├ windows     series from storage or a subquery, a window before each step
//!          ├ binary      columns meet by their labels
//!          └ aggregate   columns fold into groups
//! ```

mod aggregate;
mod binary;
mod labels;
mod select;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

use binnacle_model::labels::METRIC_NAME;
use binnacle_model::sample::is_stale;
use binnacle_model::storage::{Deadline, Queryable, StorageError};
use binnacle_model::{Labels, STALE_NAN, Sample, Timestamp};

use super::ast::{Call, Expr, ValueType};
use super::functions::{self, Bucket, bucket_quantile};

/// What a query may use.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Samples held at once, those of columns included.
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
    /// Its value.
    pub value: f64,
}

/// A series of a range answer.
#[derive(Debug, Clone, PartialEq)]
pub struct RangeSeries {
    /// What names it.
    pub labels: Labels,
    /// Ascending by time.
    pub samples: Vec<Sample>,
}

/// An answer.
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

/// Evaluates queries over one storage.
pub struct Engine<'a> {
    storage: &'a dyn Queryable,
    limits: Limits,
}

impl<'a> Engine<'a> {
    /// An engine over `storage`.
    pub fn new(storage: &'a dyn Queryable, limits: Limits) -> Self {
        Self { storage, limits }
    }

    /// The answer at one moment.
    pub fn instant(&self, expr: &Expr, at: Timestamp, deadline: &Deadline) -> Result<Output, EvalError> {
        let params = QueryParams::instant(at);
        let mut run = self.run(params, deadline);
        if expr.value_type() == ValueType::Matrix {
            let windows = run.windows(expr, run.outer)?;
            let series = windows.last_windows(run.outer);
            return Ok(Output::Matrix(series));
        }
        Ok(match run.eval(expr, run.outer)? {
            Value::Scalar(values) => Output::Scalar(at, values[0]),
            Value::Text(text) => Output::Text(at, text),
            Value::Vector(columns) => {
                let there = columns.into_iter().filter(|column| !is_absent(column.values[0]));
                let found: Vec<Instant> =
                    there.map(|one| Instant { labels: one.labels, value: one.values[0] }).collect();
                Output::Vector(at, found)
            }
        })
    }

    /// The answer at every step, ordered by labels.
    pub fn range(
        &self,
        expr: &Expr,
        params: QueryParams,
        deadline: &Deadline,
    ) -> Result<Vec<RangeSeries>, EvalError> {
        let mut run = self.run(params, deadline);
        let grid = run.outer;
        let columns = match run.eval(expr, grid)? {
            Value::Scalar(values) => vec![Column { labels: Labels::default(), values }],
            Value::Vector(columns) => columns,
            Value::Text(_) => {
                let reason =
                    "invalid expression type \"string\" for range query, must be Scalar or instant Vector";
                return Err(EvalError::Execution(reason.to_owned()));
            }
        };
        let mut series: Vec<RangeSeries> = columns
            .into_iter()
            .map(|column| RangeSeries { labels: column.labels, samples: grid.samples(&column.values) })
            .filter(|series| !series.samples.is_empty())
            .collect();
        series.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(series)
    }

    fn run<'r>(&'r self, params: QueryParams, deadline: &'r Deadline) -> Run<'r> {
        let step_ms = binnacle_model::time::millis(params.step);
        let span = params.end.0.saturating_sub(params.start.0).max(0);
        let steps = if step_ms == 0 { 1 } else { (span / step_ms) as usize + 1 };
        let outer = Grid { start_ms: params.start.0, step_ms, steps };
        Run { storage: self.storage, limits: self.limits, deadline, outer, held: 0 }
    }
}

/// The steps at which an expression is evaluated.
#[derive(Debug, Clone, Copy)]
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
        self.at(self.steps - 1)
    }

    fn samples(self, values: &[f64]) -> Vec<Sample> {
        let there = values.iter().enumerate().filter(|(_, value)| !is_absent(**value));
        there.map(|(i, v)| Sample { timestamp: Timestamp(self.at(i)), value: *v }).collect()
    }
}

/// Marks a step without a sample. No result of a calculation has these bits.
const ABSENT: f64 = STALE_NAN;

fn is_absent(value: f64) -> bool {
    is_stale(value)
}

/// A series with a value for every step.
#[derive(Debug, Clone)]
struct Column {
    labels: Labels,
    values: Vec<f64>,
}

#[derive(Debug)]
enum Value {
    Scalar(Vec<f64>),
    Vector(Vec<Column>),
    Text(String),
}

/// One evaluation.
struct Run<'a> {
    storage: &'a dyn Queryable,
    limits: Limits,
    deadline: &'a Deadline,
    /// The steps of the whole query, which `@ start()` and `@ end()` mean.
    outer: Grid,
    /// Samples taken so far.
    held: usize,
}

impl Run<'_> {
    /// Counts samples that are held from now on.
    fn hold(&mut self, samples: usize) -> Result<(), EvalError> {
        self.held += samples;
        if self.held > self.limits.max_samples {
            return Err(StorageError::TooMuch.into());
        }
        self.check()
    }

    fn check(&self) -> Result<(), EvalError> {
        if self.deadline.is_over() { Err(StorageError::Deadline.into()) } else { Ok(()) }
    }

    fn eval(&mut self, expr: &Expr, grid: Grid) -> Result<Value, EvalError> {
        // Every node makes a column at least.
        self.hold(grid.steps)?;
        match expr {
            Expr::Number(number) => Ok(Value::Scalar(vec![*number; grid.steps])),
            Expr::Text(text) => Ok(Value::Text(text.clone())),
            Expr::Paren(inner) => self.eval(inner, grid),
            Expr::Vector(selector) => Ok(Value::Vector(self.vector(selector, grid, false)?)),
            Expr::Negate(inner) => Ok(match self.eval(inner, grid)? {
                Value::Scalar(values) => Value::Scalar(values.into_iter().map(|v| -v).collect()),
                Value::Vector(columns) => Value::Vector(map(columns, |v| -v)?),
                text @ Value::Text(_) => text,
            }),
            Expr::Binary { op, left, right, returns_bool, matching } => {
                let left = self.eval(left, grid)?;
                let right = self.eval(right, grid)?;
                self.binary(*op, left, right, *returns_bool, matching, grid)
            }
            Expr::Aggregate(aggregation) => self.aggregate(aggregation, grid),
            Expr::Call(call) => self.call(call, grid),
            Expr::Matrix(..) | Expr::Subquery { .. } => {
                let reason = "a range vector is no result here; wrap it in a function such as rate()";
                Err(EvalError::Execution(reason.to_owned()))
            }
        }
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
        match expr {
            Expr::Text(text) => Ok(text),
            Expr::Paren(inner) => Self::text(inner),
            _ => Err(EvalError::Execution("expected a string literal".to_owned())),
        }
    }

    fn call(&mut self, call: &Call, grid: Grid) -> Result<Value, EvalError> {
        let args = &call.args;
        if let Some(function) = functions::of_number(call.name) {
            let columns = self.columns(&args[0], grid)?;
            return Ok(Value::Vector(map(columns, function)?));
        }
        if let Some(function) = functions::of_window(call.name) {
            return Ok(Value::Vector(self.over_windows(call, function, grid)?));
        }
        if let Some(function) = functions::of_date(call.name) {
            let columns = match args.first() {
                Some(arg) => self.columns(arg, grid)?,
                None => vec![Self::time(grid)],
            };
            let dated = |seconds: f64| {
                let time = chrono::DateTime::from_timestamp(seconds as i64, 0);
                time.as_ref().map_or(f64::NAN, function)
            };
            return Ok(Value::Vector(map(columns, dated)?));
        }
        let vector = match call.name {
            "time" => return Ok(Value::Scalar(Self::time(grid).values)),
            "pi" => return Ok(Value::Scalar(vec![std::f64::consts::PI; grid.steps])),
            "scalar" => return Ok(Value::Scalar(self.scalar(&args[0], grid)?)),
            "vector" => {
                let values = self.numbers(&args[0], grid)?;
                vec![Column { labels: Labels::default(), values }]
            }
            "timestamp" => self.timestamp(&args[0], grid)?,
            "absent" => self.absent(&args[0], grid)?,
            "absent_over_time" => self.absent_over_time(&args[0], grid)?,
            "clamp" | "clamp_min" | "clamp_max" | "round" => self.bounded(call, grid)?,
            "histogram_quantile" => self.histogram_quantile(&args[0], &args[1], grid)?,
            "label_replace" => self.label_replace(args, grid)?,
            "label_join" => self.label_join(args, grid)?,
            "sort" | "sort_desc" => {
                let mut columns = self.columns(&args[0], grid)?;
                // Only an instant answer has an order of values.
                sort_by_value(&mut columns, 0, call.name == "sort_desc");
                columns
            }
            name => {
                return Err(EvalError::Execution(format!("function {name:?} is not implemented")));
            }
        };
        Ok(Value::Vector(vector))
    }

    fn time(grid: Grid) -> Column {
        let values = (0..grid.steps).map(|step| grid.at(step) as f64 / 1000.0).collect();
        Column { labels: Labels::default(), values }
    }

    /// The one value there is at each step, or NaN.
    fn scalar(&mut self, arg: &Expr, grid: Grid) -> Result<Vec<f64>, EvalError> {
        let columns = self.columns(arg, grid)?;
        let at = |step: usize| {
            let mut there = columns.iter().map(|c| c.values[step]).filter(|v| !is_absent(*v));
            match (there.next(), there.next()) {
                (Some(value), None) => value,
                _ => f64::NAN,
            }
        };
        Ok((0..grid.steps).map(at).collect())
    }

    fn bounded(&mut self, call: &Call, grid: Grid) -> Result<Vec<Column>, EvalError> {
        let columns = self.columns(&call.args[0], grid)?;
        let mut params = Vec::new();
        for arg in &call.args[1..] {
            params.push(self.numbers(arg, grid)?);
        }
        let param = |which: usize, step: usize| params.get(which).map(|values| values[step]);
        let name = call.name;
        map_steps(columns, |step, value| match name {
            "round" => {
                // The inverse keeps 0.1 exact where 1/10 would not.
                let inverse = 1.0 / param(0, step).unwrap_or(1.0);
                (value * inverse + 0.5).floor() / inverse
            }
            "clamp_min" => go_max(value, param(0, step).unwrap_or(f64::NAN)),
            "clamp_max" => go_min(value, param(0, step).unwrap_or(f64::NAN)),
            _ => {
                let (low, high) = (param(0, step).unwrap_or(f64::NAN), param(1, step).unwrap_or(f64::NAN));
                if high < low { ABSENT } else { go_max(low, go_min(high, value)) }
            }
        })
    }

    fn histogram_quantile(&mut self, q: &Expr, arg: &Expr, grid: Grid) -> Result<Vec<Column>, EvalError> {
        let q = self.numbers(q, grid)?;
        let columns = self.columns(arg, grid)?;
        let mut groups: HashMap<Labels, Vec<(f64, usize)>> = HashMap::new();
        let mut order = Vec::new();
        for (at, column) in columns.iter().enumerate() {
            let Ok(upper) = parse_le(column.labels.value("le")) else { continue };
            let labels = column.labels.filtered(|label| &*label.name != "le" && &*label.name != METRIC_NAME);
            match groups.entry(labels.clone()) {
                Entry::Occupied(mut entry) => entry.get_mut().push((upper, at)),
                Entry::Vacant(entry) => {
                    entry.insert(vec![(upper, at)]);
                    order.push(labels);
                }
            }
        }
        let mut found = Vec::new();
        let mut buckets = Vec::new();
        for labels in order {
            self.check()?;
            let members = &groups[&labels];
            let mut values = Vec::with_capacity(grid.steps);
            for (step, q) in q.iter().enumerate() {
                buckets.clear();
                let there = members.iter().map(|(upper, at)| (*upper, columns[*at].values[step]));
                let there = there.filter(|(_, count)| !is_absent(*count));
                buckets.extend(there.map(|(upper, count)| Bucket { upper, count }));
                let is_there = !buckets.is_empty();
                values.push(if is_there { bucket_quantile(*q, &mut buckets) } else { ABSENT });
            }
            found.push(Column { labels, values });
        }
        Ok(found)
    }
}

fn parse_le(text: &str) -> Result<f64, std::num::ParseFloatError> {
    text.trim_start_matches('+').parse()
}

/// Go's `math.Max`: a NaN wins.
fn go_max(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

/// Go's `math.Min`: a NaN wins.
fn go_min(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.min(b) }
}

/// Applies a function to every value there is, and drops the names.
fn map(columns: Vec<Column>, function: impl Fn(f64) -> f64) -> Result<Vec<Column>, EvalError> {
    map_steps(columns, |_, value| function(value))
}

fn map_steps(
    mut columns: Vec<Column>,
    function: impl Fn(usize, f64) -> f64,
) -> Result<Vec<Column>, EvalError> {
    for column in &mut columns {
        column.labels = column.labels.without_name();
        for (step, value) in column.values.iter_mut().enumerate() {
            if !is_absent(*value) {
                *value = function(step, *value);
            }
        }
    }
    unique(columns)
}

/// Joins columns that have the same labels now, which is an error if they share a step.
fn unique(columns: Vec<Column>) -> Result<Vec<Column>, EvalError> {
    let mut places: HashMap<Labels, usize> = HashMap::with_capacity(columns.len());
    let mut found: Vec<Column> = Vec::with_capacity(columns.len());
    for column in columns {
        match places.entry(column.labels.clone()) {
            Entry::Vacant(entry) => {
                entry.insert(found.len());
                found.push(column);
            }
            Entry::Occupied(entry) => {
                let kept = &mut found[*entry.get()];
                for (kept, value) in kept.values.iter_mut().zip(column.values) {
                    if is_absent(value) {
                        continue;
                    }
                    if !is_absent(*kept) {
                        let reason = "vector cannot contain metrics with the same labelset";
                        return Err(EvalError::Execution(reason.to_owned()));
                    }
                    *kept = value;
                }
            }
        }
    }
    Ok(found)
}

fn sort_by_value(columns: &mut [Column], step: usize, descending: bool) {
    // NaN comes last either way.
    columns.sort_by(|a, b| {
        let (a, b) = (a.values[step], b.values[step]);
        let order = if descending { b.partial_cmp(&a) } else { a.partial_cmp(&b) };
        a.is_nan().cmp(&b.is_nan()).then(order.unwrap_or(std::cmp::Ordering::Equal))
    });
}

#[cfg(test)]
mod tests;
