//! Selectors: from stored samples to columns, and to windows of samples.

use binnacle_model::labels::METRIC_NAME;
use binnacle_model::sample::is_stale;
use binnacle_model::time::millis;
use binnacle_model::{Labels, MatchOp, Matcher, Sample, TimeRange, Timestamp};

use super::super::ast::{At, Call, Expr, Selector};
use super::super::functions::Window;
use super::{ABSENT, Column, EvalError, Grid, RangeSeries, Run, is_absent, unique};

/// Series of which a function sees a window before each step.
pub(super) struct Windows {
    series: Vec<(Labels, Vec<Sample>)>,
    range_ms: i64,
    places: Places,
}

/// Where in time a selector looks at each step.
#[derive(Debug, Clone, Copy)]
struct Places {
    /// The moment that `@` names, if it names one.
    fixed: Option<i64>,
    offset_ms: i64,
}

impl Places {
    fn of(&self, at_ms: i64) -> i64 {
        self.fixed.unwrap_or(at_ms).saturating_sub(self.offset_ms)
    }

    /// The first and the last moment it looks at.
    fn ends(&self, grid: Grid) -> (i64, i64) {
        (self.of(grid.start_ms), self.of(grid.end_ms()))
    }
}

impl Run<'_> {
    fn places(&self, at: Option<At>, offset_ms: i64) -> Places {
        let fixed = at.map(|at| match at {
            At::Time(time) => time.0,
            At::Start => self.outer.start_ms,
            At::End => self.outer.end_ms(),
        });
        Places { fixed, offset_ms }
    }

    /// A column per series: the last sample within the lookback, or the moment of it.
    pub(super) fn vector(
        &mut self,
        selector: &Selector,
        grid: Grid,
        moments: bool,
    ) -> Result<Vec<Column>, EvalError> {
        let places = self.places(selector.at, selector.offset_ms);
        let lookback_ms = millis(self.limits.lookback);
        let (first, last) = places.ends(grid);
        // Both ends are within for storage, the lookback's far end is not for PromQL.
        let start = Timestamp(first.saturating_sub(lookback_ms).saturating_add(1));
        let range = TimeRange { start, end: Timestamp(last) };
        let storage = self.storage;
        let deadline = self.deadline;
        let mut columns = Vec::new();
        for series in storage.select(&selector.matchers, range, deadline)? {
            let series = series?;
            self.hold(grid.steps)?;
            let samples = &series.samples;
            let mut values = vec![ABSENT; grid.steps];
            let mut next = 0;
            for (step, value) in values.iter_mut().enumerate() {
                let at = places.of(grid.at(step));
                while next < samples.len() && samples[next].timestamp.0 <= at {
                    next += 1;
                }
                let Some(sample) = next.checked_sub(1).map(|last| samples[last]) else { continue };
                if sample.timestamp.0 > at - lookback_ms && !is_stale(sample.value) {
                    let moment = sample.timestamp.as_secs_f64();
                    *value = if moments { moment } else { sample.value };
                }
            }
            if values.iter().any(|value| !is_absent(*value)) {
                columns.push(Column { labels: series.labels, values });
            }
        }
        Ok(columns)
    }

    /// The series of a range selector or a subquery.
    pub(super) fn windows(&mut self, expr: &Expr, grid: Grid) -> Result<Windows, EvalError> {
        match expr {
            Expr::Paren(inner) => self.windows(inner, grid),
            Expr::Matrix(selector, range) => {
                let places = self.places(selector.at, selector.offset_ms);
                let range_ms = millis(*range);
                let (first, last) = places.ends(grid);
                let start = Timestamp(first.saturating_sub(range_ms).saturating_add(1));
                let (storage, deadline) = (self.storage, self.deadline);
                let mut found = Vec::new();
                let range = TimeRange { start, end: Timestamp(last) };
                for series in storage.select(&selector.matchers, range, deadline)? {
                    let mut series = series?;
                    series.samples.retain(|sample| !is_stale(sample.value));
                    self.hold(series.samples.len() + grid.steps)?;
                    found.push((series.labels, series.samples));
                }
                Ok(Windows { series: found, range_ms, places })
            }
            Expr::Subquery { expr, range, step, offset_ms, at } => {
                let places = self.places(*at, *offset_ms);
                let range_ms = millis(*range);
                let step_ms = millis(step.unwrap_or(self.limits.subquery_step)).max(1);
                let (first, last) = places.ends(grid);
                // Inner steps stand at multiples of the step, whenever the query is asked.
                let start_ms = ((first - range_ms).div_euclid(step_ms) + 1) * step_ms;
                let steps = (last - start_ms).div_euclid(step_ms) + 1;
                if steps <= 0 {
                    return Ok(Windows { series: Vec::new(), range_ms, places });
                }
                self.hold(steps as usize)?;
                let inner = Grid { start_ms, step_ms, steps: steps as usize };
                let columns = self.columns(expr, inner)?;
                let series = columns.into_iter().map(|c| (c.labels, inner.samples(&c.values)));
                Ok(Windows { series: series.collect(), range_ms, places })
            }
            _ => unreachable!("the parser checked the type"),
        }
    }

    pub(super) fn over_windows(
        &mut self,
        call: &Call,
        function: fn(Window<'_>, f64) -> Option<f64>,
        grid: Grid,
    ) -> Result<Vec<Column>, EvalError> {
        let is_window = |arg: &&Expr| arg.value_type() == super::super::ast::ValueType::Matrix;
        let window_arg = call.args.iter().find(is_window).expect("the parser checked the type");
        let param = match call.args.iter().find(|arg| !is_window(arg)) {
            Some(arg) => self.numbers(arg, grid)?,
            None => Vec::new(),
        };
        let windows = self.windows(window_arg, grid)?;
        let keeps_name = call.name == "last_over_time";
        let mut columns = Vec::with_capacity(windows.series.len());
        for (labels, samples) in &windows.series {
            self.check()?;
            let mut values = vec![ABSENT; grid.steps];
            windows.slide(samples, grid, |step, window| {
                let param = param.get(step).copied().unwrap_or(f64::NAN);
                values[step] = function(window, param).unwrap_or(ABSENT);
            });
            if values.iter().any(|value| !is_absent(*value)) {
                let labels = if keeps_name { labels.clone() } else { labels.without_name() };
                columns.push(Column { labels, values });
            }
        }
        unique(columns)
    }

    /// The moments of the samples themselves where the argument is a selector, of the steps else.
    pub(super) fn timestamp(&mut self, arg: &Expr, grid: Grid) -> Result<Vec<Column>, EvalError> {
        let mut inner = arg;
        while let Expr::Paren(expr) = inner {
            inner = expr;
        }
        if let Expr::Vector(selector) = inner {
            return super::map(self.vector(selector, grid, true)?, |value| value);
        }
        let columns = self.columns(arg, grid)?;
        super::map_steps(columns, |step, _| grid.at(step) as f64 / 1000.0)
    }

    pub(super) fn absent(&mut self, arg: &Expr, grid: Grid) -> Result<Vec<Column>, EvalError> {
        let columns = self.columns(arg, grid)?;
        let is_there = |step: usize| columns.iter().any(|c| !is_absent(c.values[step]));
        let values: Vec<f64> =
            (0..grid.steps).map(|step| if is_there(step) { ABSENT } else { 1.0 }).collect();
        Ok(present(Column { labels: absent_labels(arg), values }))
    }

    pub(super) fn absent_over_time(&mut self, arg: &Expr, grid: Grid) -> Result<Vec<Column>, EvalError> {
        let windows = self.windows(arg, grid)?;
        let mut values = vec![1.0; grid.steps];
        for (_, samples) in &windows.series {
            windows.slide(samples, grid, |step, _| values[step] = ABSENT);
        }
        Ok(present(Column { labels: absent_labels(arg), values }))
    }
}

fn present(column: Column) -> Vec<Column> {
    if column.values.iter().all(|value| is_absent(*value)) { Vec::new() } else { vec![column] }
}

/// The labels that an absent series would have had, as far as its selector says them.
fn absent_labels(expr: &Expr) -> Labels {
    let matchers: &[Matcher] = match expr {
        Expr::Vector(selector) | Expr::Matrix(selector, _) => &selector.matchers,
        Expr::Paren(inner) => return absent_labels(inner),
        _ => &[],
    };
    let said_once = |name: &str| matchers.iter().filter(|m| m.name == name).count() == 1;
    let equal = matchers.iter().filter(|matcher| {
        matcher.op == MatchOp::Equal && matcher.name != METRIC_NAME && said_once(&matcher.name)
    });
    let pairs = equal.map(|matcher| (matcher.name.as_str(), matcher.value.as_str()));
    Labels::new(pairs).unwrap_or_default()
}

impl Windows {
    /// Shows `see` the window of every step that has a sample in it.
    fn slide(&self, samples: &[Sample], grid: Grid, mut see: impl FnMut(usize, Window<'_>)) {
        let (mut low, mut high) = (0, 0);
        for step in 0..grid.steps {
            let end_ms = self.places.of(grid.at(step));
            while high < samples.len() && samples[high].timestamp.0 <= end_ms {
                high += 1;
            }
            // The window is open at its far end.
            while low < high && samples[low].timestamp.0 <= end_ms - self.range_ms {
                low += 1;
            }
            if low < high {
                let samples = &samples[low..high];
                let step_ms = grid.at(step);
                see(step, Window { samples, end_ms, range_ms: self.range_ms, step_ms });
            }
        }
    }

    /// What each window holds at the only step of an instant query.
    pub(super) fn last_windows(self, grid: Grid) -> Vec<RangeSeries> {
        let mut found = Vec::new();
        for (labels, samples) in &self.series {
            self.slide(samples, grid, |_, window| {
                found.push(RangeSeries { labels: labels.clone(), samples: window.samples.to_vec() });
            });
        }
        found
    }
}
