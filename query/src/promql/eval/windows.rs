//! Range vectors: of each series the samples of a window before each step.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use binnacle_model::histogram::{Histogram, ResetHint};
use binnacle_model::sample::is_stale;
use binnacle_model::storage::{HistogramSample, Rollup, Series, Wanted};
use binnacle_model::{Labels, SampleSlice, TimeRange, Timestamp};

use super::super::ast::{At, Borders, Call, Expr, Kind, Selector, Span, Subquery};
use super::super::notes::Notes;
use super::column::{Column, METADATA_LABELS, Point, is_absent};
use super::parts::{Gather, Make};
use super::sums::has_nan;
use super::{EvalError, Grid, RangeSeries, Run, Value, over_time, rates};

/// Samples of a series whose moment lies in a window, and where the window lies.
pub(super) struct Window<'a> {
    /// In `(start - lookback, end]` if the selector looks beyond its borders, else in `(start, end]`.
    pub(super) floats: SampleSlice<'a>,
    pub(super) histograms: &'a [HistogramSample],
    pub(super) start_ms: i64,
    pub(super) end_ms: i64,
    /// The moment of evaluation, from which an offset may have moved the window.
    pub(super) step_ms: i64,
    pub(super) borders: Borders,
}

impl Window<'_> {
    pub(super) fn range_seconds(&self) -> f64 {
        (self.end_ms - self.start_ms) as f64 / 1000.0
    }
}

/// What a function of a window knows besides the window.
pub(super) struct WindowCtx<'a> {
    /// The function's name.
    pub(super) function: &'static str,
    /// The metric's name.
    pub(super) metric: &'a str,
    /// Of the range vector.
    pub(super) span: Span,
    /// Of the first scalar, if there is one.
    pub(super) scalar: Span,
    /// The function's scalars at this step, in order.
    pub(super) params: [f64; 2],
    pub(super) notes: &'a mut Notes,
}

/// A function of a window.
pub(super) type WindowFn = fn(&Window<'_>, &mut WindowCtx<'_>) -> Result<Option<Point>, EvalError>;

/// Where windows are and how long they are.
#[derive(Debug, Clone, Copy)]
struct Frame {
    range_ms: i64,
    offset_ms: i64,
    at: Option<At>,
    borders: Borders,
}

impl Frame {
    /// Whether each window lies right before its step, but for an offset.
    fn is_plain(self) -> bool {
        self.at.is_none() && self.borders == Borders::Strict
    }
}

/// So many values are looked at together for staleness markers, which are no numbers.
const STALE_AT_ONCE: usize = 256;

/// What is made of a series and its windows.
type With<'w, T> = &'w (dyn Fn(&mut Run<'_>, Series, Frame) -> Result<Option<T>, EvalError> + Sync);

fn is_range(arg: &Expr) -> bool {
    matches!(arg.bare().kind, Kind::Matrix(..) | Kind::Subquery(_))
}

/// The range vector among a function's arguments.
fn range_of(call: &Call) -> &Expr {
    call.args.iter().find(|arg| is_range(arg)).expect("the parser checked the types").bare()
}

/// Range vectors with special borders make sense for these.
const ANCHORED: [&str; 5] = ["changes", "delta", "increase", "rate", "resets"];
const SMOOTHED: [&str; 3] = ["delta", "increase", "rate"];

impl Run<'_> {
    /// Applies a function to the windows of every series.
    pub(super) fn over_windows<G: Gather<Column>>(
        &mut self,
        call: &Call,
        function: WindowFn,
        grid: Grid,
        make: Make<'_, G>,
    ) -> Result<G, EvalError> {
        let range = range_of(call);
        match self.rolled(call, range, grid)? {
            Some(Rollup::Last) => self.rolled_mean(call, grid, make),
            Some(Rollup::Count) => {
                self.over_wanted(call, over_time::TOTAL, Wanted::Rolled(Rollup::Count), grid, make)
            }
            Some(column) => self.over_wanted(call, function, Wanted::Rolled(column), grid, make),
            None => self.over_wanted(call, function, Wanted::All, grid, make),
        }
    }

    /// What of rollups a function wants, if its windows reach back to where there may be nothing else. The mean, which
    /// wants two of them, is marked by the last.
    fn rolled(&self, call: &Call, range: &Expr, grid: Grid) -> Result<Option<Rollup>, EvalError> {
        let (Kind::Matrix(selector, reach), Some(until)) = (&range.kind, self.storage.rolled_until()) else {
            return Ok(None);
        };
        let offset_ms = self.reach(&selector.offset)?;
        let (first, _) = self.selected_span(selector, offset_ms, grid);
        if first - self.positive_reach(reach)? > until.0 {
            return Ok(None);
        }
        Ok(match call.name {
            "avg_over_time" => Some(Rollup::Last),
            "min_over_time" => Some(Rollup::Min),
            "max_over_time" => Some(Rollup::Max),
            "sum_over_time" => Some(Rollup::Sum),
            "count_over_time" => Some(Rollup::Count),
            _ => None,
        })
    }

    /// The mean of windows of which rollups may be a part: a sum by a count.
    fn rolled_mean<G: Gather<Column>>(
        &mut self,
        call: &Call,
        grid: Grid,
        make: Make<'_, G>,
    ) -> Result<G, EvalError> {
        let mut column = |column: Rollup, function: WindowFn| -> Result<Vec<Column>, EvalError> {
            self.over_wanted(call, function, Wanted::Rolled(column), grid, &Vec::new)
        };
        let sums = column(Rollup::Sum, over_time::SUM)?;
        let counts = column(Rollup::Count, over_time::TOTAL)?;
        let size: usize = counts.iter().map(Column::size).sum();
        let counts: HashMap<Labels, Column> =
            counts.into_iter().map(|column| (column.labels.clone(), column)).collect();
        let mut found = make();
        for mut sum in sums {
            let Some(count) = counts.get(&sum.labels) else { continue };
            for step in 0..grid.steps {
                let count = count.floats[step];
                let mean = sum.point(step).filter(|_| !is_absent(count)).map(|total| match total {
                    Point::Float(total) => Point::Float(total / count),
                    Point::Histogram(mut total) => {
                        Arc::make_mut(&mut total).scale(1.0 / count);
                        Point::Histogram(total)
                    }
                });
                sum.set(step, mean);
            }
            found.take(sum, self)?;
        }
        self.release(size);
        Ok(found)
    }

    /// As [`Self::over_windows`], of what is wanted of each series.
    fn over_wanted<G: Gather<Column>>(
        &mut self,
        call: &Call,
        function: WindowFn,
        wanted: Wanted,
        grid: Grid,
        make: Make<'_, G>,
    ) -> Result<G, EvalError> {
        let range = range_of(call);
        let mut params: [Vec<f64>; 2] = [Vec::new(), Vec::new()];
        let scalars = call.args.iter().filter(|arg| !is_range(arg));
        let scalar = scalars.clone().next().map(|arg| arg.bare().span).unwrap_or_default();
        for (place, arg) in params.iter_mut().zip(scalars) {
            *place = self.numbers(arg, grid)?;
        }
        let rated = rates::Rated::of(call.name);
        let keeps_name = matches!(call.name, "last_over_time" | "first_over_time");
        self.each_series(range, grid, call.name, wanted, make, &|run, series, frame| {
            let metric = series.labels.metric_name();
            let mut column = Column::empty(series.labels.clone(), grid.steps);
            column.drop_name = !keeps_name;
            if let Some(rated) = rated.filter(|_| frame.is_plain() && series.histograms.is_empty()) {
                let room = run.plans.room_for(&series.samples, grid.steps);
                run.hold(column.size() + room)?;
                run.count_windows(&series, frame, grid);
                let frame = (frame.range_ms, frame.offset_ms);
                run.plans.rates(&series.samples, rated, frame, grid, &mut column.floats);
                return Ok(run.finished(column, call.name, range.span));
            }
            let mut notes = std::mem::take(&mut run.notes);
            let mut cursor = Cursor::new(&series);
            for step in 0..grid.steps {
                run.check()?;
                let step_ms = grid.at(step);
                let window = cursor.window(run, frame, step_ms);
                run.count_window(step, &window);
                if window.floats.is_empty() && window.histograms.is_empty() {
                    continue;
                }
                let param = |at: usize| params[at].get(step).copied().unwrap_or(f64::NAN);
                let params = [param(0), param(1)];
                let mut ctx = WindowCtx {
                    function: call.name,
                    metric,
                    span: range.span,
                    scalar,
                    params,
                    notes: &mut notes,
                };
                column.set(step, function(&window, &mut ctx)?);
            }
            run.notes = notes;
            run.hold(column.size())?;
            Ok(run.finished(column, call.name, range.span))
        })
    }

    /// Counts the windows of a series for whoever asked, where nobody else walks over them.
    fn count_windows(&self, series: &Series, frame: Frame, grid: Grid) {
        if self.counts.is_some() {
            let mut cursor = Cursor::new(series);
            (0..grid.steps)
                .for_each(|step| self.count_window(step, &cursor.window(self, frame, grid.at(step))));
        }
    }

    /// The column, if there is anything in it.
    fn finished(&mut self, column: Column, function: &str, span: Span) -> Option<Column> {
        if column.is_empty() {
            self.release(column.size());
            return None;
        }
        if matches!(function, "rate" | "increase") {
            self.doubt_counter(&column, span);
        }
        Some(column)
    }

    /// Says so if a metric does not look like a counter.
    fn doubt_counter(&mut self, column: &Column, span: Span) {
        let labels = &column.labels;
        let name = labels.metric_name();
        if name.is_empty() || column.floats.iter().all(|value| super::is_absent(*value)) {
            return;
        }
        if self.type_and_unit {
            let kind = labels.value("__type__");
            if !matches!(kind, "counter" | "histogram") {
                self.notes.no_counter_type(span, kind, name);
            }
        } else if !["_total", "_sum", "_count", "_bucket"].iter().any(|suffix| name.ends_with(suffix)) {
            self.notes.no_counter_name(span, name);
        }
    }

    /// What `with` makes of every series of a range vector, without staleness markers.
    fn each_series<T, G: Gather<T>>(
        &mut self,
        range: &Expr,
        grid: Grid,
        function: &str,
        wanted: Wanted,
        make: Make<'_, G>,
        with: With<'_, T>,
    ) -> Result<G, EvalError> {
        match &range.kind {
            Kind::Matrix(selector, reach) => {
                let range_ms = self.positive_reach(reach)?;
                Self::check_borders(selector, function)?;
                let offset_ms = self.reach(&selector.offset)?;
                let frame = Frame { range_ms, offset_ms, at: selector.at, borders: selector.borders };
                self.each_stored(selector, frame, grid, wanted, make, with)
            }
            Kind::Subquery(subquery) => self.each_inner(subquery, grid, make, with),
            _ => unreachable!("the parser checked the type"),
        }
    }

    fn check_borders(selector: &Selector, function: &str) -> Result<(), EvalError> {
        let (word, allowed): (_, &[&str]) = match selector.borders {
            Borders::Strict => return Ok(()),
            Borders::Anchored => ("anchored", &ANCHORED),
            Borders::Smoothed => ("smoothed", &SMOOTHED),
        };
        if function.is_empty() || allowed.contains(&function) {
            return Ok(());
        }
        EvalError::execution(format!(
            "{word} modifier can only be used with: {} - not with {function}",
            allowed.join(", ")
        ))
    }

    fn each_stored<T, G: Gather<T>>(
        &mut self,
        selector: &Selector,
        frame: Frame,
        grid: Grid,
        wanted: Wanted,
        make: Make<'_, G>,
        with: With<'_, T>,
    ) -> Result<G, EvalError> {
        let (first, last) = self.selected_span(selector, frame.offset_ms, grid);
        let lookback = self.lookback_ms();
        let before = if frame.borders == Borders::Strict { 0 } else { lookback };
        let after = if frame.borders == Borders::Smoothed { lookback } else { 0 };
        let range =
            TimeRange { start: Timestamp(first - frame.range_ms - before + 1), end: Timestamp(last + after) };
        self.stored(&selector.matchers, range, wanted, make, &|run, mut series| {
            let mut some = series.samples.as_slice().values.chunks(STALE_AT_ONCE);
            if some.any(|values| has_nan(values) && values.iter().any(|value| is_stale(*value))) {
                series.samples.retain(|sample| !is_stale(sample.value));
            }
            series.histograms.retain(|one| !one.histogram.is_stale());
            run.trace_resets(&mut series);
            let size = size_of(&series);
            run.hold(size)?;
            let made = with(run, series, frame)?;
            run.release(size);
            Ok(made)
        })
    }

    fn each_inner<T, G: Gather<T>>(
        &mut self,
        subquery: &Subquery,
        grid: Grid,
        make: Make<'_, G>,
        with: With<'_, T>,
    ) -> Result<G, EvalError> {
        let range_ms = self.positive_reach(&subquery.range)?;
        let offset_ms = self.reach(&subquery.offset)?;
        let step_ms = match &subquery.step {
            Some(step) => self.positive_reach(step)?,
            None => binnacle_model::time::millis(self.limits.subquery_step).max(1),
        };
        let first = self.moment(subquery.at, grid.start_ms) - offset_ms - range_ms;
        let last = self.moment(subquery.at, grid.end_ms()) - offset_ms;
        // Inner steps are multiples of the step, whatever the outer ones are.
        let start_ms = (first.div_euclid(step_ms) + 1) * step_ms;
        let steps = if last < start_ms { 0 } else { ((last - start_ms) / step_ms + 1) as usize };
        self.hold(steps)?;
        let inner = Grid { start_ms, step_ms, steps };
        let frame = Frame { range_ms, offset_ms, at: subquery.at, borders: Borders::Strict };
        let traced = std::mem::take(&mut self.traces_resets);
        // As in Prometheus, the windows of what it answers count, and not what it looked at for that.
        let counts = self.counts.take();
        let found = self.eval(&subquery.expr, inner);
        self.counts = counts;
        self.traces_resets = traced;
        let columns = match found? {
            Value::Vector(columns) => columns,
            Value::Scalar(_) | Value::Text(_) => unreachable!("the parser checked the type"),
        };
        let mut made = make();
        for column in columns {
            let RangeSeries { mut labels, samples, mut histograms } = inner.series(&column);
            if column.drop_name {
                // Nothing outside of the subquery brings it back.
                labels = labels.filtered(|label| !METADATA_LABELS.contains(&&*label.name));
            }
            for one in &mut histograms {
                // What lies between inner steps was not seen: a hint would say too much.
                if matches!(one.histogram.hint, ResetHint::Reset | ResetHint::NotReset) {
                    Arc::make_mut(&mut one.histogram).hint = ResetHint::Unknown;
                }
            }
            let samples = samples.into_iter().collect();
            if let Some(one) = with(self, Series { labels, samples, histograms }, frame)? {
                made.take(one, self)?;
            }
        }
        Ok(made)
    }

    /// The windows of the last step themselves, ordered by labels.
    pub(super) fn last_windows(&mut self, expr: &Expr, grid: Grid) -> Result<Vec<RangeSeries>, EvalError> {
        let mut found: Vec<RangeSeries> =
            self.each_series(expr.bare(), grid, "", Wanted::All, &Vec::new, &|run, series, frame| {
                let mut cursor = Cursor::new(&series);
                let window = cursor.window(run, frame, grid.end_ms());
                run.count_window(0, &window);
                let (samples, histograms) = over_time::shown(&window);
                let is_empty = samples.is_empty() && histograms.is_empty();
                let labels = series.labels.clone();
                Ok((!is_empty).then_some(RangeSeries { labels, samples, histograms }))
            })?;
        found.sort_by(|a, b| a.labels.cmp(&b.labels));
        if found.windows(2).any(|pair| pair[0].labels == pair[1].labels) {
            return EvalError::execution("vector cannot contain metrics with the same labelset");
        }
        Ok(found)
    }

    /// Steps at which no series of a range vector has a sample.
    pub(super) fn absent_steps(&mut self, range: &Expr, grid: Grid) -> Result<Vec<bool>, EvalError> {
        let absent = Mutex::new(vec![true; grid.steps]);
        self.each_series::<(), Vec<()>>(
            range,
            grid,
            "absent_over_time",
            Wanted::All,
            &Vec::new,
            &|run, series, frame| {
                let mut cursor = Cursor::new(&series);
                let mut absent = absent.lock().unwrap_or_else(PoisonError::into_inner);
                for (step, absent) in absent.iter_mut().enumerate() {
                    let window = cursor.window(run, frame, grid.at(step));
                    run.count_window(step, &window);
                    *absent &= window.floats.is_empty() && window.histograms.is_empty();
                }
                Ok(None)
            },
        )?;
        Ok(absent.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Run<'_> {
    /// Finds out whether counters were reset, if that is wanted and the storage did not say.
    pub(super) fn trace_resets(&self, series: &mut Series) {
        if !self.traces_resets {
            return;
        }
        let mut before: Option<Arc<Histogram>> = None;
        for one in &mut series.histograms {
            if one.histogram.is_stale() {
                continue;
            }
            if let Some(before) = before.filter(|_| one.histogram.hint == ResetHint::Unknown) {
                let is_reset = one.histogram.is_reset_since(&before);
                let hint = if is_reset { ResetHint::Reset } else { ResetHint::NotReset };
                Arc::make_mut(&mut one.histogram).hint = hint;
            }
            before = Some(Arc::clone(&one.histogram));
        }
    }
}

fn size_of(series: &Series) -> usize {
    let histograms = series.histograms.iter().map(|one| one.histogram.size_in_samples());
    series.samples.len() + histograms.sum::<usize>()
}

/// Slides over a series; windows only move forward, unless `@` holds them.
struct Cursor<'s> {
    series: &'s Series,
    floats: (usize, usize),
    histograms: (usize, usize),
}

impl<'s> Cursor<'s> {
    fn new(series: &'s Series) -> Self {
        Self { series, floats: (0, 0), histograms: (0, 0) }
    }

    fn window(&mut self, run: &Run<'_>, frame: Frame, step_ms: i64) -> Window<'s> {
        let end_ms = run.moment(frame.at, step_ms) - frame.offset_ms;
        let start_ms = end_ms - frame.range_ms;
        let lookback = run.lookback_ms();
        let after = if frame.borders == Borders::Strict { start_ms } else { start_ms - lookback };
        let through = if frame.borders == Borders::Smoothed { end_ms + lookback } else { end_ms };
        let samples = self.series.samples.as_slice();
        let (from, to) = &mut self.floats;
        while samples.times.get(*from).is_some_and(|time| *time <= after) {
            *from += 1;
        }
        *to = (*to).max(*from);
        while samples.times.get(*to).is_some_and(|time| *time <= through) {
            *to += 1;
        }
        let floats = samples.part(*from..*to);
        let all = &self.series.histograms;
        let (from, to) = &mut self.histograms;
        while all.get(*from).is_some_and(|one| one.timestamp.0 <= after) {
            *from += 1;
        }
        *to = (*to).max(*from);
        while all.get(*to).is_some_and(|one| one.timestamp.0 <= through) {
            *to += 1;
        }
        let histograms = &all[*from..*to];
        Window { floats, histograms, start_ms, end_ms, step_ms, borders: frame.borders }
    }
}
