//! Functions of a window: sums, means, extremes, counts.

use std::sync::Arc;

use binnacle_model::histogram::{Combined, Histogram, ResetHint};
use binnacle_model::storage::HistogramSample;
use binnacle_model::{Sample, SampleSlice};

use super::super::ast::Borders;
use super::column::Point;
use super::windows::{Window, WindowCtx, WindowFn};
use super::{EvalError, anchored, rates};

/// `sum_over_time`
pub(super) const SUM: WindowFn =
    |w, ctx| combined(w, ctx, |values| sum(values.iter().copied()), sum_of_histograms);

/// `count_over_time` where each float says how many it stands for.
pub(super) const TOTAL: WindowFn = |w, _| {
    let histograms = w.histograms.len() as f64;
    float(values(w).sum::<f64>() + histograms)
};

/// The function of that name, if it is one of a window.
pub(super) fn named(name: &str) -> Option<WindowFn> {
    Some(match name {
        "avg_over_time" => |w, ctx| combined(w, ctx, mean_of_floats, mean_of_histograms),
        "changes" => |w, _| Ok(count_pairs(w, |a, b| a != b && !(a.is_nan() && b.is_nan()), |a, b| a != b)),
        "count_over_time" => |w, _| float((w.floats.len() + w.histograms.len()) as f64),
        "delta" | "increase" | "rate" => |w, ctx| Ok(rates::extrapolated(w, ctx)),
        "deriv" => |w, ctx| of_pairs(w, ctx, |w, _| regression(w.floats, w.floats.times[0]).0),
        "double_exponential_smoothing" => smoothing,
        "first_over_time" => |w, _| Ok(earlier(w.floats.first(), w.histograms.first())),
        "idelta" | "irate" => |w, ctx| Ok(rates::of_last_two(w, ctx)),
        "last_over_time" => |w, _| Ok(later(w.floats.last(), w.histograms.last())),
        "mad_over_time" => |w, ctx| of_floats(w, ctx, |w, _| deviation(w)),
        "max_over_time" => |w, ctx| of_floats(w, ctx, |w, _| extreme(w.floats.values, larger)),
        "min_over_time" => |w, ctx| of_floats(w, ctx, |w, _| extreme(w.floats.values, smaller)),
        "predict_linear" => |w, ctx| {
            of_pairs(w, ctx, |w, ctx| {
                let (slope, intercept) = regression(w.floats, w.step_ms);
                slope * ctx.params[0] + intercept
            })
        },
        "present_over_time" => |_, _| float(1.0),
        "quantile_over_time" => |w, ctx| {
            of_floats(w, ctx, |w, ctx| {
                let q = ctx.params[0];
                if !(0.0..=1.0).contains(&q) {
                    ctx.notes.invalid_quantile(ctx.scalar, q);
                }
                quantile(q, &mut values(w).collect::<Vec<_>>())
            })
        },
        "resets" => |w, _| Ok(count_pairs(w, |a, b| b < a, |a, b| b.is_reset_since(a))),
        "stddev_over_time" => |w, ctx| of_floats(w, ctx, |w, _| variance(values(w)).sqrt()),
        "stdvar_over_time" => |w, ctx| of_floats(w, ctx, |w, _| variance(values(w))),
        "sum_over_time" => SUM,
        "ts_of_first_over_time" => |w, _| {
            let times = first_time(w.floats.first(), w.histograms.first());
            float(times.min().unwrap_or_default() as f64 / 1000.0)
        },
        "ts_of_last_over_time" => |w, _| {
            let times = first_time(w.floats.last(), w.histograms.last());
            float(times.max().unwrap_or_default() as f64 / 1000.0)
        },
        "ts_of_max_over_time" => |w, ctx| of_floats(w, ctx, |w, _| time_of(w, |new, best| new >= best)),
        "ts_of_min_over_time" => |w, ctx| of_floats(w, ctx, |w, _| time_of(w, |new, best| new <= best)),
        _ => return None,
    })
}

type Answer = Result<Option<Point>, EvalError>;

#[allow(clippy::unnecessary_wraps, reason = "it stands where functions that can fail do")]
fn float(value: f64) -> Answer {
    Ok(Some(Point::Float(value)))
}

fn values<'w>(window: &Window<'w>) -> impl Iterator<Item = f64> + Clone + use<'w> {
    window.floats.values.iter().copied()
}

/// A function of floats that passes over histograms, and says so.
fn of_floats(
    window: &Window<'_>,
    ctx: &mut WindowCtx<'_>,
    apply: impl Fn(&Window<'_>, &mut WindowCtx<'_>) -> f64,
) -> Answer {
    if window.floats.is_empty() {
        return Ok(None);
    }
    if !window.histograms.is_empty() {
        ctx.notes.ignored_in_range(ctx.span, ctx.metric);
    }
    float(apply(window, ctx))
}

/// As [`of_floats`], of two floats at least.
fn of_pairs(
    window: &Window<'_>,
    ctx: &mut WindowCtx<'_>,
    apply: impl Fn(&Window<'_>, &mut WindowCtx<'_>) -> f64,
) -> Answer {
    if window.floats.len() > 1 {
        return of_floats(window, ctx, apply);
    }
    if window.floats.len() == 1 && !window.histograms.is_empty() {
        ctx.notes.ignored_in_range(ctx.span, ctx.metric);
    }
    Ok(None)
}

/// A function of floats or of histograms, but not of both.
fn combined(
    window: &Window<'_>,
    ctx: &mut WindowCtx<'_>,
    floats: impl Fn(&[f64]) -> f64,
    histograms: impl Fn(&[HistogramSample], &mut WindowCtx<'_>) -> Option<Histogram>,
) -> Answer {
    match (window.floats.is_empty(), window.histograms.is_empty()) {
        (false, false) => {
            ctx.notes.mixed_floats_and_histograms(ctx.span, ctx.metric);
            Ok(None)
        }
        (false, true) => float(floats(window.floats.values)),
        (true, _) => Ok(histograms(window.histograms, ctx).map(|found| Point::Histogram(Arc::new(found)))),
    }
}

fn sum_of_histograms(samples: &[HistogramSample], ctx: &mut WindowCtx<'_>) -> Option<Histogram> {
    total_of(samples, ctx, false)
}

fn mean_of_histograms(samples: &[HistogramSample], ctx: &mut WindowCtx<'_>) -> Option<Histogram> {
    total_of(samples, ctx, true)
}

fn total_of(samples: &[HistogramSample], ctx: &mut WindowCtx<'_>, is_mean: bool) -> Option<Histogram> {
    let mut total = HistogramTotal::new(&samples[0].histogram, is_mean);
    for one in &samples[1..] {
        if total.add(&one.histogram).is_err() {
            ctx.notes.mixed_schemas(ctx.span, ctx.metric);
            return None;
        }
    }
    total.note(ctx);
    Some(total.result())
}

/// The sum or mean of histograms, with what rounding lost, and what is to be said of it.
#[derive(Debug, Clone)]
pub(super) struct HistogramTotal {
    value: Histogram,
    lost: Histogram,
    kind: Total,
    count: f64,
    pub(super) reset: bool,
    pub(super) not_reset: bool,
    pub(super) done: Combined,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Total {
    Sum,
    /// The sum, to be divided at the end.
    Mean,
    /// The mean itself: the sum would be too large for floats.
    MovingMean,
}

impl HistogramTotal {
    pub(super) fn new(first: &Histogram, is_mean: bool) -> Self {
        let lost = Histogram {
            schema: first.schema,
            zero_threshold: first.zero_threshold,
            bounds: Arc::clone(&first.bounds),
            hint: first.hint,
            ..Histogram::default()
        };
        let mut total = Self {
            value: first.clone(),
            lost,
            kind: if is_mean { Total::Mean } else { Total::Sum },
            count: 1.0,
            reset: false,
            not_reset: false,
            done: Combined::default(),
        };
        total.see(first.hint);
        total
    }

    fn see(&mut self, hint: ResetHint) {
        self.reset |= hint == ResetHint::Reset;
        self.not_reset |= hint == ResetHint::NotReset;
    }

    /// Adds another one, if it is of the same kind.
    pub(super) fn add(
        &mut self,
        other: &Histogram,
    ) -> Result<(), binnacle_model::histogram::IncompatibleSchemas> {
        self.see(other.hint);
        self.count += 1.0;
        if self.kind == Total::Sum {
            self.done = self.done.and(self.value.add_compensated(other, &mut self.lost)?);
            return Ok(());
        }
        if self.kind == Total::Mean {
            let before = (self.value.clone(), self.lost.clone());
            self.done = self.done.and(self.value.add_compensated(other, &mut self.lost)?);
            if !self.value.has_overflow() {
                return Ok(());
            }
            (self.value, self.lost) = before;
            self.kind = Total::MovingMean;
            self.value.divide(self.count - 1.0);
            self.lost.divide(self.count - 1.0);
        }
        let share = (self.count - 1.0) / self.count;
        self.value.scale(share);
        self.lost.scale(share);
        let mut part = other.clone();
        part.divide(self.count);
        self.done = self.done.and(self.value.add_compensated(&part, &mut self.lost)?);
        Ok(())
    }

    /// The sum, or the mean.
    pub(super) fn result(&self) -> Histogram {
        let (mut value, mut lost) = (self.value.clone(), self.lost.clone());
        if self.kind == Total::Mean {
            value.divide(self.count);
            lost.divide(self.count);
        }
        let hint = value.hint;
        // Both have the same layout.
        let _ = value.add(&lost);
        value.hint = hint;
        value
    }

    fn note(&self, ctx: &mut WindowCtx<'_>) {
        if self.reset && self.not_reset {
            ctx.notes.collision(ctx.span, "aggregation");
        }
        if self.done.reconciled {
            ctx.notes.reconciled(ctx.span, "aggregation");
        }
    }
}

fn earlier(sample: Option<Sample>, histogram: Option<&HistogramSample>) -> Option<Point> {
    match (sample, histogram) {
        (Some(sample), histogram) if histogram.is_none_or(|one| sample.timestamp < one.timestamp) => {
            Some(Point::Float(sample.value))
        }
        (_, Some(one)) => Some(Point::Histogram(Arc::clone(&one.histogram))),
        (_, None) => None,
    }
}

fn later(sample: Option<Sample>, histogram: Option<&HistogramSample>) -> Option<Point> {
    match (sample, histogram) {
        (Some(sample), histogram) if histogram.is_none_or(|one| one.timestamp < sample.timestamp) => {
            Some(Point::Float(sample.value))
        }
        (_, Some(one)) => Some(Point::Histogram(Arc::clone(&one.histogram))),
        (_, None) => None,
    }
}

fn first_time(sample: Option<Sample>, histogram: Option<&HistogramSample>) -> impl Iterator<Item = i64> {
    let sample = sample.map(|sample| sample.timestamp.0);
    sample.into_iter().chain(histogram.map(|one| one.timestamp.0))
}

fn time_of(window: &Window<'_>, is_better: impl Fn(f64, f64) -> bool) -> f64 {
    let mut best = window.floats.at(0);
    for sample in window.floats.iter() {
        if is_better(sample.value, best.value) || best.value.is_nan() {
            best = sample;
        }
    }
    best.timestamp.as_secs_f64()
}

/// Counts neighbours that differ; where a float and a histogram meet, they do.
fn count_pairs(
    window: &Window<'_>,
    floats: impl Fn(f64, f64) -> bool,
    histograms: impl Fn(&Histogram, &Histogram) -> bool,
) -> Option<Point> {
    let mut merged = merge(window);
    if window.borders == Borders::Anchored {
        // What counts begins with the last sample at or before the window's beginning.
        if merged.last().is_none_or(|last| last.0 <= window.start_ms) {
            return None;
        }
        let inside = merged.partition_point(|one| one.0 <= window.start_ms);
        merged.drain(..inside.saturating_sub(1));
    }
    let differs = |pair: &&[(i64, Point)]| match (&pair[0].1, &pair[1].1) {
        (Point::Float(a), Point::Float(b)) => floats(*a, *b),
        (Point::Histogram(a), Point::Histogram(b)) => histograms(a, b),
        _ => true,
    };
    Some(Point::Float(merged.windows(2).filter(differs).count() as f64))
}

fn merge(window: &Window<'_>) -> Vec<(i64, Point)> {
    let floats = window.floats.iter().map(|one| (one.timestamp.0, Point::Float(one.value)));
    let histograms =
        window.histograms.iter().map(|one| (one.timestamp.0, Point::Histogram(Arc::clone(&one.histogram))));
    let mut merged: Vec<(i64, Point)> = floats.chain(histograms).collect();
    if !window.histograms.is_empty() {
        merged.sort_by_key(|one| one.0);
    }
    merged
}

/// What a bare range selector answers: the window, its borders as the selector wants them.
pub(super) fn shown(window: &Window<'_>) -> (Vec<Sample>, Vec<HistogramSample>) {
    if window.borders == Borders::Strict {
        return (window.floats.iter().collect(), window.histograms.to_vec());
    }
    (anchored::extended(window), window.histograms.to_vec())
}

fn smoothing(window: &Window<'_>, ctx: &mut WindowCtx<'_>) -> Answer {
    let [factor, trend] = ctx.params;
    for (what, value) in [("smoothing", factor), ("trend", trend)] {
        if value <= 0.0 || value >= 1.0 {
            let short = if what == "smoothing" { "sf" } else { "tf" };
            let reason = format!("invalid {what} factor. Expected: 0 < {short} < 1, got: {value:.6}");
            return EvalError::execution(reason);
        }
    }
    of_pairs(window, ctx, |window, _| {
        let values = window.floats.values;
        let mut smoothed = values[0];
        let mut slope = values[1] - smoothed;
        let mut before = 0.0;
        for (at, value) in values.iter().enumerate().skip(1) {
            if at > 1 {
                slope = trend * (smoothed - before) + (1.0 - trend) * slope;
            }
            before = smoothed;
            smoothed = factor * value + (1.0 - factor) * (smoothed + slope);
        }
        smoothed
    })
}

/// The larger of two values; a NaN gives way to anything.
pub(super) fn larger(a: f64, b: f64) -> f64 {
    if b > a || a.is_nan() { b } else { a }
}

/// The smaller of two values; a NaN gives way to anything.
pub(super) fn smaller(a: f64, b: f64) -> f64 {
    if b < a || a.is_nan() { b } else { a }
}

/// The one that `choose` takes of all; in lanes, so that no choice waits for the one before.
fn extreme(values: &[f64], choose: impl Fn(f64, f64) -> f64) -> f64 {
    let (lanes, rest) = values.as_chunks::<4>();
    let mut best = [f64::NAN; 4];
    for four in lanes {
        best.iter_mut().zip(four).for_each(|(best, value)| *best = choose(*best, *value));
    }
    let found = best.iter().chain(rest).fold(f64::NAN, |best, value| choose(best, *value));
    if found != 0.0 {
        return found;
    }
    // Of zeros the first one, with its sign.
    values.iter().fold(f64::NAN, |best, value| choose(best, *value))
}

/// A running sum with the error of each addition carried along (Neumaier), as Prometheus does.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Compensated {
    pub(super) sum: f64,
    pub(super) lost: f64,
}

impl Compensated {
    pub(super) fn add(&mut self, value: f64) {
        let next = self.sum + value;
        if next.is_infinite() {
            self.lost = 0.0;
        } else if self.sum.abs() >= value.abs() {
            self.lost += (self.sum - next) + value;
        } else {
            self.lost += (value - next) + self.sum;
        }
        self.sum = next;
    }

    /// Adds what another one has.
    pub(super) fn merge(&mut self, other: Self) {
        self.add(other.sum);
        if !self.sum.is_infinite() {
            self.lost += other.lost;
        }
    }

    pub(super) fn total(self) -> f64 {
        if self.sum.is_infinite() { self.sum } else { self.sum + self.lost }
    }
}

pub(super) fn sum(values: impl Iterator<Item = f64>) -> f64 {
    let mut total = Compensated::default();
    values.for_each(|value| total.add(value));
    total.total()
}

/// A running mean: a sum for as long as floats can hold it, then a mean that moves.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Mean {
    total: Compensated,
    count: f64,
    moves: bool,
}

impl Mean {
    pub(super) fn add(&mut self, value: f64) {
        self.count += 1.0;
        if self.count == 1.0 {
            self.total.sum = value;
            return;
        }
        if !self.moves {
            let mut next = self.total;
            next.add(value);
            if !next.sum.is_infinite() {
                self.total = next;
                return;
            }
            self.moves = true;
            self.total.sum /= self.count - 1.0;
            self.total.lost /= self.count - 1.0;
        }
        let share = (self.count - 1.0) / self.count;
        self.total.sum *= share;
        self.total.lost *= share;
        self.total.add(value / self.count);
    }

    /// As if the values of both had been one's.
    pub(super) fn merge(&mut self, other: Self) {
        if self.count == 0.0 || other.count == 0.0 {
            if self.count == 0.0 {
                *self = other;
            }
            return;
        }
        let count = self.count + other.count;
        if !self.moves && !other.moves {
            let mut both = self.total;
            both.merge(other.total);
            if !both.sum.is_infinite() {
                (self.total, self.count) = (both, count);
                return;
            }
        }
        let (own, others) = (self.moving(), other.moving());
        let (share, rest) = (self.count / count, other.count / count);
        self.total = Compensated { sum: own.sum * share, lost: own.lost * share };
        self.total.merge(Compensated { sum: others.sum * rest, lost: others.lost * rest });
        (self.count, self.moves) = (count, true);
    }

    fn moving(self) -> Compensated {
        let divisor = if self.moves { 1.0 } else { self.count };
        Compensated { sum: self.total.sum / divisor, lost: self.total.lost / divisor }
    }

    /// `None` if there was no value.
    pub(super) fn value(self) -> Option<f64> {
        if self.moves {
            return Some(self.total.sum + self.total.lost);
        }
        (self.count > 0.0).then(|| self.total.sum / self.count + self.total.lost / self.count)
    }
}

fn mean_of_floats(values: &[f64]) -> f64 {
    let mut mean = Mean::default();
    values.iter().for_each(|value| mean.add(*value));
    mean.value().unwrap_or(f64::NAN)
}

/// The population variance.
pub(super) fn variance(values: impl Iterator<Item = f64>) -> f64 {
    // Welford's update: no difference of two large sums.
    let mut count = 0.0;
    let (mut mean, mut squares) = (Compensated::default(), Compensated::default());
    for value in values {
        count += 1.0;
        let off = value - (mean.sum + mean.lost);
        mean.add(off / count);
        squares.add(off * (value - (mean.sum + mean.lost)));
    }
    (squares.sum + squares.lost) / count
}

/// The median distance from the median.
fn deviation(window: &Window<'_>) -> f64 {
    if values(window).any(f64::is_nan) {
        return f64::NAN;
    }
    let median = quantile(0.5, &mut values(window).collect::<Vec<_>>());
    quantile(0.5, &mut values(window).map(|value| (value - median).abs()).collect::<Vec<_>>())
}

/// The `q` quantile with linear interpolation; infinite outside of 0 to 1.
pub(super) fn quantile(q: f64, values: &mut [f64]) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    // NaN sorts first, as in Prometheus.
    values.sort_by(|a, b| {
        b.is_nan().cmp(&a.is_nan()).then(a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal))
    });
    let last = values.len() - 1;
    let rank = q * last as f64;
    let lower = (rank.floor() as usize).min(last);
    let upper = (lower + 1).min(last);
    let weight = rank - rank.floor();
    values[lower] * (1.0 - weight) + values[upper] * weight
}

/// Least squares: slope per second, and the value at `at_ms`.
fn regression(samples: SampleSlice<'_>, at_ms: i64) -> (f64, f64) {
    let first = samples.values[0];
    if samples.values.iter().all(|value| *value == first) {
        return if first.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, first) };
    }
    let x = |sample: Sample| (sample.timestamp.0 - at_ms) as f64 / 1000.0;
    let count = samples.len() as f64;
    let total = |of: &dyn Fn(Sample) -> f64| {
        let mut total = Compensated::default();
        samples.iter().for_each(|sample| total.add(of(sample)));
        total.sum + total.lost
    };
    let sum_x = total(&x);
    let sum_y = total(&|sample| sample.value);
    let sum_xy = total(&|sample| x(sample) * sample.value);
    let sum_xx = total(&|sample| x(sample) * x(sample));
    let slope = (sum_xy - sum_x * sum_y / count) / (sum_xx - sum_x * sum_x / count);
    (slope, sum_y / count - slope * sum_x / count)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn lanes_choose_what_one_by_one_does(
            values in proptest::collection::vec(prop_oneof![Just(-1.0), Just(-0.0), Just(0.0), Just(1.0), Just(f64::NAN)], 0..20),
        ) {
            for choose in [larger, smaller] {
                let want = values.iter().fold(f64::NAN, |best, value| choose(best, *value));
                prop_assert_eq!(extreme(&values, choose).to_bits(), want.to_bits());
            }
        }
    }
}
