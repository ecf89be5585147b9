//! Functions of vectors and scalars.

use std::collections::BTreeMap;

use binnacle_model::labels::METRIC_NAME;
use binnacle_model::text::lossy;
use binnacle_model::{Labels, MatchOp};

use super::super::ast::{Call, Expr, Kind, Span};
use super::column::{Column, Point, is_absent, map, map_steps};
use super::{EvalError, Grid, Run, Value, histograms, logarithms, over_time, rank};

/// A function of one number, by its PromQL name.
fn of_number(name: &str) -> Option<fn(f64) -> f64> {
    Some(match name {
        "abs" => f64::abs,
        "acos" => f64::acos,
        "acosh" => f64::acosh,
        "asin" => f64::asin,
        "asinh" => f64::asinh,
        "atan" => f64::atan,
        "atanh" => f64::atanh,
        "ceil" => f64::ceil,
        "cos" => f64::cos,
        "cosh" => f64::cosh,
        "deg" => f64::to_degrees,
        "exp" => f64::exp,
        "floor" => f64::floor,
        "ln" => logarithms::ln,
        "log10" => logarithms::log10,
        "log2" => logarithms::log2,
        "rad" => f64::to_radians,
        "sgn" => |v| {
            if v > 0.0 {
                1.0
            } else if v < 0.0 {
                -1.0
            } else {
                v
            }
        },
        "sin" => f64::sin,
        "sinh" => f64::sinh,
        "sqrt" => f64::sqrt,
        "tan" => f64::tan,
        "tanh" => f64::tanh,
        _ => return None,
    })
}

impl Run<'_> {
    pub(super) fn call(&mut self, expr: &Expr, call: &Call, grid: Grid) -> Result<Value, EvalError> {
        let args = &call.args;
        if let Some(function) = of_number(call.name) {
            return Ok(Value::Vector(map(self.columns(&args[0], grid)?, function)));
        }
        if let Some(function) = over_time::named(call.name) {
            let columns = self.over_windows(call, function, grid, &Vec::new)?;
            return Ok(Value::Vector(self.ordered(columns)));
        }
        if let Some(function) = super::dates::named(call.name) {
            return Ok(Value::Vector(self.dates(args.first(), function, grid)?));
        }
        if let Some(number) = self.query_number(call.name) {
            return Ok(Value::Scalar(vec![number; grid.steps]));
        }
        let vector = match call.name {
            "time" => return Ok(Value::Scalar(seconds(grid))),
            "min_of" | "max_of" => {
                let (left, right) = (self.numbers(&args[0], grid)?, self.numbers(&args[1], grid)?);
                let pick = if call.name == "min_of" { smaller_of } else { larger_of };
                return Ok(Value::Scalar(left.into_iter().zip(right).map(|(a, b)| pick(a, b)).collect()));
            }
            "scalar" => return Ok(Value::Scalar(self.scalar(&args[0], grid)?)),
            "vector" => {
                let mut column = Column::empty(Labels::default(), grid.steps);
                for (step, value) in self.numbers(&args[0], grid)?.into_iter().enumerate() {
                    column.set(step, Some(Point::Float(value)));
                }
                vec![column]
            }
            "timestamp" => self.timestamp(&args[0], grid)?,
            "absent" => self.absent(&args[0], grid)?,
            "absent_over_time" => self.absent_over_time(&args[0], grid)?,
            "clamp" | "clamp_min" | "clamp_max" | "round" => self.bounded(call, grid)?,
            "histogram_quantile" => self.histogram_quantile(call, grid)?,
            "histogram_quantiles" => self.histogram_quantiles(call, grid)?,
            "histogram_fraction" => self.histogram_fraction(call, grid)?,
            "histogram_avg" => self.histogram_number(call, grid, histograms::mean)?,
            "histogram_count" => self.histogram_number(call, grid, |one| one.count)?,
            "histogram_sum" => self.histogram_number(call, grid, |one| one.sum)?,
            "histogram_stdvar" => self.histogram_number(call, grid, histograms::variance)?,
            "histogram_stddev" => {
                self.histogram_number(call, grid, |one| histograms::variance(one).sqrt())?
            }
            "info" => self.info(args, grid)?,
            "label_replace" => self.label_replace(args, grid)?,
            "label_join" => self.label_join(args, grid)?,
            "sort" | "sort_desc" => self.sorted(expr.span, call, grid)?,
            "sort_by_label" | "sort_by_label_desc" => self.sorted_by_label(expr.span, call, grid)?,
            name => return EvalError::execution(format!("function {name:?} is not known")),
        };
        Ok(Value::Vector(vector))
    }

    /// Numbers that hold for the whole query.
    fn query_number(&self, name: &str) -> Option<f64> {
        let secs = |ms: i64| ms as f64 / 1000.0;
        Some(match name {
            "pi" => std::f64::consts::PI,
            "start" => secs(self.outer.start_ms),
            "end" => secs(self.end_ms),
            "range" => secs(self.span_ms),
            "step" => secs(self.outer.step_ms),
            _ => return None,
        })
    }

    fn dates(
        &mut self,
        arg: Option<&Expr>,
        function: fn(f64) -> f64,
        grid: Grid,
    ) -> Result<Vec<Column>, EvalError> {
        let columns = match arg {
            Some(arg) => self.columns(arg, grid)?,
            None => vec![Column::of_floats(Labels::default(), seconds(grid))],
        };
        Ok(map(columns, function))
    }

    fn scalar(&mut self, arg: &Expr, grid: Grid) -> Result<Vec<f64>, EvalError> {
        let columns = self.columns(arg, grid)?;
        let only = |step: usize| {
            let mut there = columns.iter().map(|column| column.floats[step]).filter(|v| !is_absent(*v));
            match (there.next(), there.next()) {
                (Some(value), None) => value,
                _ => f64::NAN,
            }
        };
        Ok((0..grid.steps).map(only).collect())
    }

    fn timestamp(&mut self, arg: &Expr, grid: Grid) -> Result<Vec<Column>, EvalError> {
        let mut columns = if let Kind::Vector(selector) = &arg.bare().kind {
            self.sample_times(selector, grid)?
        } else {
            let mut columns = self.columns(arg, grid)?;
            for column in &mut columns {
                for step in 0..grid.steps {
                    if column.is_at(step) {
                        let at = grid.at(step) as f64 / 1000.0;
                        column.set(step, Some(Point::Float(at)));
                    }
                }
                column.histograms.clear();
            }
            columns
        };
        columns.iter_mut().for_each(|column| column.drop_name = true);
        Ok(columns)
    }

    fn absent(&mut self, arg: &Expr, grid: Grid) -> Result<Vec<Column>, EvalError> {
        let columns = self.columns(arg, grid)?;
        let is_absent = |step: usize| !columns.iter().any(|column| column.is_at(step));
        let steps: Vec<bool> = (0..grid.steps).map(is_absent).collect();
        Ok(absent_column(arg, &steps))
    }

    fn absent_over_time(&mut self, arg: &Expr, grid: Grid) -> Result<Vec<Column>, EvalError> {
        let steps = self.absent_steps(arg.bare(), grid)?;
        Ok(absent_column(arg, &steps))
    }

    fn bounded(&mut self, call: &Call, grid: Grid) -> Result<Vec<Column>, EvalError> {
        let columns = self.columns(&call.args[0], grid)?;
        let mut param = |at: usize, default: f64| match call.args.get(at) {
            Some(arg) => self.numbers(arg, grid),
            None => Ok(vec![default; grid.steps]),
        };
        match call.name {
            "round" => {
                let nearest = param(1, 1.0)?;
                Ok(map_steps(columns, |step, value| {
                    // The inverse loses less: 0.1 is no float, 10 is one.
                    let inverse = 1.0 / nearest[step];
                    (value * inverse + 0.5).floor() / inverse
                }))
            }
            "clamp_min" => {
                let least = param(1, f64::NAN)?;
                Ok(map_steps(columns, |step, value| larger_of(value, least[step])))
            }
            "clamp_max" => {
                let most = param(1, f64::NAN)?;
                Ok(map_steps(columns, |step, value| smaller_of(value, most[step])))
            }
            _ => {
                let (least, most) = (param(1, f64::NAN)?, param(2, f64::NAN)?);
                let mut columns =
                    map_steps(columns, |step, value| larger_of(least[step], smaller_of(most[step], value)));
                for step in (0..grid.steps).filter(|step| most[*step] < least[*step]) {
                    columns.iter_mut().for_each(|column| column.clear(step));
                }
                Ok(columns)
            }
        }
    }

    fn sorted(&mut self, span: Span, call: &Call, grid: Grid) -> Result<Vec<Column>, EvalError> {
        self.warn_of_order(span, grid);
        let mut columns = self.columns(&call.args[0], grid)?;
        columns.iter_mut().for_each(|column| column.histograms.clear());
        columns.retain(|column| !column.is_empty());
        if grid.steps == 1 {
            rank::sort_by_value(&mut columns, call.name == "sort_desc");
        }
        Ok(columns)
    }

    fn sorted_by_label(&mut self, span: Span, call: &Call, grid: Grid) -> Result<Vec<Column>, EvalError> {
        self.warn_of_order(span, grid);
        let names: Vec<&str> = call.args[1..].iter().map(Self::text).collect::<Result<_, _>>()?;
        let mut columns = self.columns(&call.args[0], grid)?;
        columns.sort_by(|a, b| {
            let by_name = |name: &&str| natural(a.labels.value(name), b.labels.value(name));
            let first = names.iter().map(by_name).find(|order| order.is_ne());
            first.unwrap_or_else(|| a.labels.cmp(&b.labels))
        });
        if call.name.ends_with("_desc") {
            columns.reverse();
        }
        Ok(columns)
    }

    fn warn_of_order(&mut self, span: Span, grid: Grid) {
        if grid.steps > 1 {
            let text = "sort is ineffective for range queries since results are always ordered by labels";
            self.notes.warn(span, text);
        }
    }
}

/// The steps' moments in Unix seconds.
fn seconds(grid: Grid) -> Vec<f64> {
    (0..grid.steps).map(|step| grid.at(step) as f64 / 1000.0).collect()
}

/// As Go's `math.Max`: infinity is larger than anything, and NaN comes next.
pub(super) fn larger_of(a: f64, b: f64) -> f64 {
    match (a == f64::INFINITY || b == f64::INFINITY, a.is_nan() || b.is_nan()) {
        (true, _) => f64::INFINITY,
        (_, true) => f64::NAN,
        _ => a.max(b),
    }
}

/// As Go's `math.Min`.
pub(super) fn smaller_of(a: f64, b: f64) -> f64 {
    -larger_of(-a, -b)
}

fn absent_column(arg: &Expr, steps: &[bool]) -> Vec<Column> {
    let mut column = Column::empty(absent_labels(arg), steps.len());
    for (place, _) in column.floats.iter_mut().zip(steps).filter(|(_, is_absent)| **is_absent) {
        *place = 1.0;
    }
    if column.is_empty() { Vec::new() } else { vec![column] }
}

/// Labels that the selector fixes. As Prometheus, matcher by matcher: one that comes behind another of its label takes
/// the label away, unless it is the first that fixes it.
fn absent_labels(arg: &Expr) -> Labels {
    let (Kind::Vector(selector) | Kind::Matrix(selector, _)) = &arg.bare().kind else {
        return Labels::default();
    };
    let mut fixed: BTreeMap<&str, Option<&str>> = BTreeMap::new();
    for matcher in selector.matchers.iter().filter(|matcher| matcher.name != METRIC_NAME) {
        let is_first = matcher.op == MatchOp::Equal && !fixed.contains_key(&*matcher.name);
        if is_first {
            fixed.insert(&matcher.name, Some(&matcher.value));
        } else if let Some(value) = fixed.get_mut(&*matcher.name) {
            *value = None;
        }
    }
    let pairs: Vec<_> = fixed.into_iter().filter_map(|(name, value)| Some((name, lossy(value?)))).collect();
    Labels::new(pairs.iter().map(|(name, value)| (*name, &**value))).unwrap_or_default()
}

/// Compares texts with numbers in them as people do: `x2` before `x10`.
fn natural(a: &str, b: &str) -> std::cmp::Ordering {
    let (mut left, mut right) = (pieces(a).into_iter(), pieces(b).into_iter());
    loop {
        let order = match (left.next(), right.next()) {
            (None, None) => return a.cmp(b),
            (None, Some(_)) => std::cmp::Ordering::Less,
            (Some(_), None) => std::cmp::Ordering::Greater,
            (Some(x), Some(y)) => {
                let is_number = |piece: &str| piece.starts_with(|c: char| c.is_ascii_digit());
                if is_number(x) && is_number(y) {
                    let plain = |piece: &str| piece.trim_start_matches('0').to_owned();
                    let (x, y) = (plain(x), plain(y));
                    x.len().cmp(&y.len()).then(x.cmp(&y))
                } else {
                    x.cmp(y)
                }
            }
        };
        if order.is_ne() {
            return order;
        }
    }
}

/// Runs of digits, and what stands between them.
fn pieces(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let same = |c: char| c.is_ascii_digit() == first.is_ascii_digit();
        let end = rest.find(|c| !same(c)).unwrap_or(rest.len());
        pieces.push(&rest[..end]);
        rest = &rest[end..];
    }
    pieces
}
