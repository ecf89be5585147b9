//! Instant vectors: of each series the sample that counts as present at a step.

use std::sync::Arc;

use binnacle_model::histogram::Histogram;
use binnacle_model::sample::is_stale;
use binnacle_model::storage::{HistogramSample, ROLLUP, Series, Wanted};
use binnacle_model::{Sample, SampleSlice, TimeRange, Timestamp};

use super::super::ast::{Borders, Expr, Selector};
use super::column::{Column, Point};
use super::parts::{Gather, Make};
use super::{EvalError, Grid, Run};

/// A cursor over a series' samples, floats and histograms, that only moves forward.
struct Latest<'s> {
    samples: SampleSlice<'s>,
    histograms: &'s [HistogramSample],
    next_sample: usize,
    next_histogram: usize,
}

impl<'s> Latest<'s> {
    fn of(series: &'s Series) -> Self {
        Self {
            samples: series.samples.as_slice(),
            histograms: &series.histograms,
            next_sample: 0,
            next_histogram: 0,
        }
    }

    /// The newest sample at `at` or before; nothing if that is a staleness marker.
    fn at(&mut self, at: i64) -> Option<(i64, Point)> {
        while self.samples.times.get(self.next_sample).is_some_and(|time| *time <= at) {
            self.next_sample += 1;
        }
        while self.histograms.get(self.next_histogram).is_some_and(|one| one.timestamp.0 <= at) {
            self.next_histogram += 1;
        }
        let sample = self.next_sample.checked_sub(1).map(|before| self.samples.at(before));
        let histogram = self.next_histogram.checked_sub(1).map(|before| &self.histograms[before]);
        match (sample, histogram) {
            (Some(sample), histogram)
                if histogram.is_none_or(|histogram| histogram.timestamp < sample.timestamp) =>
            {
                let point = (!is_stale(sample.value)).then_some(Point::Float(sample.value));
                Some((sample.timestamp.0, point?))
            }
            (_, Some(one)) => {
                let is_there = !one.histogram.is_stale();
                is_there.then(|| (one.timestamp.0, Point::Histogram(Arc::clone(&one.histogram))))
            }
            (_, None) => None,
        }
    }
}

/// For how long a sample counts as the present one.
#[derive(Debug, Clone, Copy)]
struct Lookback {
    ms: i64,
    /// Up to here rollups may be all there is: the next one comes after their length.
    rolled_until: Option<i64>,
}

impl Lookback {
    /// Where to begin reading for a step at `first`.
    fn start(self, first: i64) -> i64 {
        let start = first - self.ms;
        if self.rolled_until.is_some_and(|until| start <= until) { start - ROLLUP_MS } else { start }
    }

    fn holds(self, time: i64, moment: i64) -> bool {
        let is_rolled = self.rolled_until.is_some_and(|until| time <= until);
        time > moment - self.ms - if is_rolled { ROLLUP_MS } else { 0 }
    }
}

/// Milliseconds of a rollup.
const ROLLUP_MS: i64 = ROLLUP.as_millis() as i64;

impl Run<'_> {
    fn lookback(&self) -> Lookback {
        let rolled_until = self.storage.rolled_until().map(|until| until.0);
        Lookback { ms: self.lookback_ms(), rolled_until }
    }

    /// The time that a selector looks at, for the steps of `grid`, its offset taken off.
    pub(super) fn selected_span(&self, selector: &Selector, offset_ms: i64, grid: Grid) -> (i64, i64) {
        let first = self.moment(selector.at, grid.start_ms) - offset_ms;
        let last = self.moment(selector.at, grid.end_ms()) - offset_ms;
        (first, last)
    }

    /// Gathers a column for each series.
    pub(super) fn vector<G: Gather<Column>>(
        &mut self,
        expr: &Expr,
        selector: &Selector,
        grid: Grid,
        make: Make<'_, G>,
    ) -> Result<G, EvalError> {
        let offset_ms = self.reach(&selector.offset)?;
        let lookback = self.lookback();
        let is_smoothed = selector.borders == Borders::Smoothed;
        let (first, last) = self.selected_span(selector, offset_ms, grid);
        let end = if is_smoothed { last + lookback.ms } else { last };
        let range = TimeRange { start: Timestamp(lookback.start(first) + 1), end: Timestamp(end) };
        let at = selector.at;
        let wanted = if grid.steps == 1 && !is_smoothed { Wanted::Newest } else { Wanted::All };
        self.stored(&selector.matchers, range, wanted, make, &|run, mut series| {
            run.trace_resets(&mut series);
            let loaded = series.samples.len() + series.histograms.len();
            run.hold(loaded)?;
            let mut column = Column::empty(series.labels.clone(), grid.steps);
            if is_smoothed {
                for step in 0..grid.steps {
                    let moment = run.moment(at, grid.at(step)) - offset_ms;
                    let point = run.smoothed(expr, &series, moment, lookback.ms);
                    column.set(step, point);
                }
            } else {
                let mut latest = Latest::of(&series);
                for step in 0..grid.steps {
                    let moment = run.moment(at, grid.at(step)) - offset_ms;
                    let found = latest.at(moment).filter(|(time, _)| lookback.holds(*time, moment));
                    if let Some((_, point)) = found {
                        column.set(step, Some(point));
                    }
                }
            }
            run.release(loaded);
            if column.is_empty() {
                return Ok(None);
            }
            run.count_column(&column);
            run.hold(column.size())?;
            Ok(Some(column))
        })
    }

    /// When the samples of a vector were taken, in Unix seconds.
    pub(super) fn sample_times(&mut self, selector: &Selector, grid: Grid) -> Result<Vec<Column>, EvalError> {
        let offset_ms = self.reach(&selector.offset)?;
        let lookback = self.lookback();
        let (first, last) = self.selected_span(selector, offset_ms, grid);
        let range = TimeRange { start: Timestamp(lookback.start(first) + 1), end: Timestamp(last) };
        let wanted = if grid.steps == 1 { Wanted::Newest } else { Wanted::All };
        let columns = self.stored(&selector.matchers, range, wanted, &Vec::new, &|run, series| {
            let mut latest = Latest::of(&series);
            let mut column = Column::empty(series.labels.clone(), grid.steps);
            run.hold(column.size())?;
            for step in 0..grid.steps {
                let moment = run.moment(selector.at, grid.at(step)) - offset_ms;
                let found = latest.at(moment).filter(|(time, _)| lookback.holds(*time, moment));
                if let Some((time, _)) = found {
                    column.floats[step] = time as f64 / 1000.0;
                }
            }
            run.count_column(&column);
            Ok((!column.is_empty()).then_some(column))
        })?;
        Ok(self.ordered(columns))
    }

    /// The value between the samples around a moment.
    fn smoothed(&mut self, expr: &Expr, series: &Series, moment: i64, lookback: i64) -> Option<Point> {
        let inside = |at: i64| at > moment - lookback && at <= moment + lookback;
        let floats: Vec<Sample> = series
            .samples
            .iter()
            .filter(|sample| inside(sample.timestamp.0) && !is_stale(sample.value))
            .collect();
        let histograms: Vec<&HistogramSample> = series
            .histograms
            .iter()
            .filter(|one| inside(one.timestamp.0) && !one.histogram.is_stale())
            .collect();
        if !floats.is_empty() && !histograms.is_empty() {
            self.notes.mixed_floats_and_histograms(expr.span, series.labels.metric_name());
            return None;
        }
        if !histograms.is_empty() {
            return self.smoothed_histogram(expr, series, &histograms, moment);
        }
        let next = floats.partition_point(|sample| sample.timestamp.0 < moment);
        match (next.checked_sub(1).map(|at| floats[at]), floats.get(next)) {
            (_, Some(after)) if after.timestamp.0 == moment => Some(Point::Float(after.value)),
            (Some(before), Some(after)) => {
                Some(Point::Float(super::anchored::between(&before, after, moment, false)))
            }
            (Some(before), None) => Some(Point::Float(before.value)),
            (None, _) => None,
        }
    }

    fn smoothed_histogram(
        &mut self,
        expr: &Expr,
        series: &Series,
        histograms: &[&HistogramSample],
        moment: i64,
    ) -> Option<Point> {
        let next = histograms.partition_point(|one| one.timestamp.0 < moment);
        let found: Arc<Histogram> = match (next.checked_sub(1).map(|at| histograms[at]), histograms.get(next))
        {
            (_, Some(after)) if after.timestamp.0 == moment => Arc::clone(&after.histogram),
            (Some(before), Some(after)) => {
                let name = series.labels.metric_name();
                let notes = &mut self.notes;
                Arc::new(super::anchored::between_histograms(
                    before, after, moment, true, notes, expr.span, name,
                )?)
            }
            (Some(before), None) => Arc::clone(&before.histogram),
            (None, _) => return None,
        };
        Some(Point::Histogram(found))
    }
}
