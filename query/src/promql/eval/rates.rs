//! `rate`, `increase`, `delta`, `irate`, `idelta`: how a series changed within a window.

use std::collections::HashMap;
use std::sync::Arc;

use binnacle_model::Samples;
use binnacle_model::histogram::{Histogram, ResetHint};
use binnacle_model::storage::HistogramSample;
use foldhash::fast::RandomState;

use super::super::ast::{Borders, Span};
use super::super::notes::Notes;
use super::column::{Point, is_absent};
use super::windows::{Window, WindowCtx};
use super::{Grid, anchored};

/// The change in the window, extended to the window's borders where the samples come near them. After
/// `extrapolatedRate` in Prometheus's `promql/functions.go`.
pub(super) fn extrapolated(window: &Window<'_>, ctx: &mut WindowCtx<'_>) -> Option<Point> {
    let is_counter = ctx.function != "delta";
    let is_rate = ctx.function == "rate";
    if !window.floats.is_empty() && !window.histograms.is_empty() {
        ctx.notes.mixed_floats_and_histograms(ctx.span, ctx.metric);
        return None;
    }
    if window.borders != Borders::Strict {
        return anchored::extended_rate(window, ctx, is_counter, is_rate);
    }
    if let [first, .., last] = window.histograms {
        let mut change = histogram_change(window.histograms, ctx, is_counter)?;
        let span = Sampled {
            first_ms: first.timestamp.0,
            last_ms: last.timestamp.0,
            count: window.histograms.len(),
        };
        let from_zero = (is_counter && change.count > 0.0 && first.histogram.count >= 0.0)
            .then(|| first.histogram.count / change.count);
        change.scale(factor((window.start_ms, window.end_ms), &span, from_zero, is_rate));
        change.hint = ResetHint::Gauge;
        return Some(Point::Histogram(Arc::new(change)));
    }
    let values = window.floats.values;
    let [first, .., last] = values else { return None };
    let mut change = last - first;
    if is_counter {
        let pairs = values.windows(2);
        change += pairs.filter(|p| p[1] < p[0]).map(|p| p[0]).sum::<f64>();
    }
    let times = window.floats.times;
    let span = Sampled { first_ms: times[0], last_ms: times[times.len() - 1], count: times.len() };
    let from_zero = (is_counter && change > 0.0 && *first >= 0.0).then(|| first / change);
    Some(Point::Float(change * factor((window.start_ms, window.end_ms), &span, from_zero, is_rate)))
}

/// A function of [`extrapolated`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rated {
    Rate,
    Increase,
    Delta,
}

impl Rated {
    pub(super) fn of(function: &str) -> Option<Self> {
        Some(match function {
            "rate" => Self::Rate,
            "increase" => Self::Increase,
            "delta" => Self::Delta,
            _ => return None,
        })
    }
}

/// What plans take together, in steps of 32 bytes, if they are more than one; eight megabytes. To draw a plan costs
/// several times what it saves in one series, and there are as many as targets.
const KEPT_STEPS: usize = 256 * 1024;

/// Plans that are kept at the most.
const KEPT_PLANS: usize = 1024;

/// What [`extrapolated`] makes of floats alone, at every step. Where windows lie, and how far a change is stretched,
/// depends on the samples' moments, unless the counter was near zero: both are worked out once for all series that have
/// the same. Series come by their labels, so that those of several targets take turns.
#[derive(Debug, Default)]
pub(super) struct Plans {
    drawn: Vec<Plan>,
    /// Where they are.
    places: HashMap<Ends, usize, RandomState>,
    /// The one to be replaced when there are enough.
    next: usize,
    /// What has been told of their room.
    room: usize,
}

/// The first and the last moment, and how many there are: columns of different times seldom have the same.
type Ends = (i64, i64, usize);

/// Of one column of moments.
#[derive(Debug)]
struct Plan {
    key: Key,
    /// Of `times`.
    ends: Ends,
    times: Arc<[i64]>,
    steps: Vec<Step>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key {
    rated: Rated,
    /// Length and offset of the windows.
    frame: (i64, i64),
    grid: Grid,
}

/// The window of one step.
#[derive(Debug, Clone, Copy)]
struct Step {
    /// The first and the last sample; the same one where there are fewer than two.
    first: u32,
    last: u32,
    factor: f64,
    interval: f64,
    to_start: f64,
}

impl Plans {
    /// How many samples of 16 bytes would take as much room as what [`Self::rates`] of these will add to what has been
    /// told before.
    pub(super) fn room_for(&mut self, samples: &Samples, steps: usize) -> usize {
        let most = Self::most(steps, samples.len());
        let one = (steps * size_of::<Step>() + samples.len() * size_of::<i64>()).div_ceil(16);
        // Those that are kept are no larger together than so many of these, or than a megabyte.
        let all = one * (self.drawn.len() + 1).min(most);
        let more = all.saturating_sub(self.room);
        self.room += more;
        more
    }

    /// All that [`Self::room_for`] has told.
    pub(super) fn room(&self) -> usize {
        self.room
    }

    /// How many plans of so many steps and samples are kept.
    fn most(steps: usize, samples: usize) -> usize {
        (KEPT_STEPS / (steps + samples / 4).max(1)).clamp(1, KEPT_PLANS)
    }

    /// Where the plan for these times is, if one of the same ends is drawn.
    fn place(&mut self, ends: Ends, steps: usize) -> Option<usize> {
        let most = Self::most(steps, ends.2);
        if self.drawn.len() > most {
            self.drawn.truncate(most);
            self.places.retain(|_, at| *at < most);
        }
        self.places.get(&ends).copied()
    }

    /// Makes a place for a plan that is to be drawn.
    fn new_place(&mut self, plan: Plan, steps: usize) -> usize {
        let most = Self::most(steps, plan.ends.2);
        let ends = plan.ends;
        let at = if self.drawn.len() < most {
            self.drawn.push(plan);
            self.drawn.len() - 1
        } else {
            let at = self.next % most;
            self.next = at + 1;
            self.places.remove(&self.drawn[at].ends);
            // Its steps' room is used again.
            self.drawn[at].ends = ends;
            at
        };
        self.places.insert(ends, at);
        at
    }

    /// `frame` is the window's length and its offset.
    pub(super) fn rates(
        &mut self,
        samples: &Samples,
        rated: Rated,
        frame: (i64, i64),
        grid: Grid,
        out: &mut [f64],
    ) {
        let key = Key { rated, frame, grid };
        let times = samples.times();
        let ends = (times.first().copied().unwrap_or(0), times.last().copied().unwrap_or(0), times.len());
        let known = self.place(ends, grid.steps);
        let at = known.unwrap_or_else(|| {
            self.new_place(Plan { key, ends, times: Arc::default(), steps: Vec::new() }, grid.steps)
        });
        let plan = &mut self.drawn[at];
        let is_same = Arc::ptr_eq(&plan.times, samples.times()) || plan.times == *samples.times();
        if plan.key != key || !is_same || plan.steps.is_empty() {
            plan.draw(samples.times(), key);
        }
        plan.rates(samples, out);
    }
}

impl Plan {
    fn rates(&self, samples: &Samples, out: &mut [f64]) {
        let Self { key, .. } = *self;
        let values = samples.as_slice().values;
        if key.rated == Rated::Delta {
            self.each::<false>(key, values, |change, _, _| change, out);
        } else if has_falls(values) {
            let mut falls = Falls::default();
            let with = |change, first, last| change + falls.between(values, first, last + 1);
            self.each::<true>(key, values, with, out);
        } else {
            self.each::<true>(key, values, |change, _, _| change, out);
        }
    }

    /// `with` adds to a change what a counter lost at resets between the two samples.
    fn each<const IS_COUNTER: bool>(
        &self,
        key: Key,
        values: &[f64],
        mut with: impl FnMut(f64, usize, usize) -> f64,
        out: &mut [f64],
    ) {
        let count = self.steps.len().min(out.len());
        let (steps, out) = (&self.steps[..count], &mut out[..count]);
        for at in 0..count {
            let step = &steps[at];
            if step.first == step.last {
                continue;
            }
            let (first, last) = (step.first as usize, step.last as usize);
            let begin = values[first];
            let change = with(values[last] - begin, first, last);
            let mut value = change * step.factor;
            // A counter that was not below zero began at the distance `interval * begin / change` at the most.
            let is_near_zero =
                IS_COUNTER && change > 0.0 && begin >= 0.0 && step.interval * begin < step.to_start * change;
            if is_near_zero {
                value = change * key.factor_near_zero(&self.times, at, step, begin / change);
            }
            out[at] = if is_absent(value) { f64::NAN } else { value };
        }
    }

    fn draw(&mut self, times: &Arc<[i64]>, key: Key) {
        self.steps.clear();
        self.steps.reserve_exact(key.grid.steps);
        let (mut from, mut to) = (Border::default(), Border::default());
        // Where the samples lay in the window before, from its start, and how many: most windows are alike.
        let mut before = (0, 0, 0);
        for at in 0..key.grid.steps {
            let (start_ms, end_ms) = key.window(at);
            let from = from.behind(times, start_ms);
            let to = to.behind(times, end_ms).max(from);
            let mut step = Step { first: 0, last: 0, factor: 0.0, interval: 0.0, to_start: 0.0 };
            if to - from > 1 {
                let sampled = Sampled { first_ms: times[from], last_ms: times[to - 1], count: to - from };
                let layout = (sampled.first_ms - start_ms, sampled.last_ms - start_ms, sampled.count);
                if layout == before {
                    step = self.steps.last().copied().unwrap_or(step);
                } else {
                    let bounds = (start_ms, end_ms);
                    step.interval = (sampled.last_ms - sampled.first_ms) as f64 / 1000.0;
                    step.to_start = to_start(bounds, &sampled, step.interval);
                    step.factor = factor(bounds, &sampled, None, key.rated == Rated::Rate);
                    before = layout;
                }
                (step.first, step.last) = (from as u32, to as u32 - 1);
            } else {
                before = (0, 0, 0);
            }
            self.steps.push(step);
        }
        (self.key, self.times) = (key, Arc::clone(times));
    }
}

/// One end of windows, which moves forward, mostly by as many samples as at the step before.
#[derive(Debug, Default)]
struct Border {
    at: usize,
    stride: usize,
}

impl Border {
    /// How many samples are not later than a moment.
    fn behind(&mut self, times: &[i64], moment: i64) -> usize {
        let before = self.at;
        let guess = before + self.stride;
        let is_early =
            guess.checked_sub(1).and_then(|last| times.get(last)).is_some_and(|last| *last <= moment);
        if is_early {
            self.at = guess;
        }
        while times.get(self.at).is_some_and(|time| *time <= moment) {
            self.at += 1;
        }
        self.stride = self.at - before;
        self.at
    }
}

impl Key {
    /// Where the window of a step begins and ends.
    fn window(self, at: usize) -> (i64, i64) {
        let end_ms = self.grid.at(at) - self.frame.1;
        (end_ms - self.frame.0, end_ms)
    }

    #[cold]
    fn factor_near_zero(self, times: &[i64], at: usize, step: &Step, part: f64) -> f64 {
        let (first, last) = (step.first as usize, step.last as usize);
        let sampled = Sampled { first_ms: times[first], last_ms: times[last], count: last + 1 - first };
        factor(self.window(at), &sampled, Some(part), self.rated == Rated::Rate)
    }
}

/// Whether a value is smaller than the one before. Looks at many at a time, without a branch for each.
fn has_falls(values: &[f64]) -> bool {
    let Some((_, later)) = values.split_first() else { return false };
    let pairs = later.chunks(128).zip(values.chunks(128));
    pairs.into_iter().any(|(later, before)| {
        later.iter().zip(before).fold(0, |falls, (later, before)| falls | u64::from(later < before)) != 0
    })
}

/// What counters lost at resets.
#[derive(Debug, Default)]
struct Falls {
    /// The next sample to look at.
    next: usize,
    /// Samples smaller than the one before, ascending.
    places: Vec<usize>,
    /// Those before this one lie before the window.
    first: usize,
}

impl Falls {
    /// The sum of the values before resets among `values[from..to]`; both bounds only grow.
    fn between(&mut self, values: &[f64], from: usize, to: usize) -> f64 {
        while self.next < to {
            let at = self.next;
            if at > 0 && values[at] < values[at - 1] {
                self.places.push(at);
            }
            self.next += 1;
        }
        while self.places.get(self.first).is_some_and(|at| *at <= from) {
            self.first += 1;
        }
        self.places[self.first..].iter().map(|at| values[at - 1]).sum()
    }
}

struct Sampled {
    first_ms: i64,
    last_ms: i64,
    count: usize,
}

/// By how much the change between the samples is to be stretched to a window's two ends. `from_zero` is the part of the change
/// by which a counter lies above zero at its first sample.
fn factor(window: (i64, i64), sampled: &Sampled, from_zero: Option<f64>, is_rate: bool) -> f64 {
    let seconds = |ms: i64| ms as f64 / 1000.0;
    let mut to_end = seconds(window.1 - sampled.last_ms);
    let interval = seconds(sampled.last_ms - sampled.first_ms);
    let average = interval / (sampled.count - 1) as f64;
    let threshold = average * 1.1;
    let mut to_start = to_start(window, sampled, interval);
    if let Some(part) = from_zero {
        // A counter was not below zero: it began at this distance at the most.
        to_start = to_start.min(interval * part);
    }
    if to_end >= threshold {
        to_end = average / 2.0;
    }
    let factor = (interval + to_start + to_end) / interval;
    if is_rate { factor / seconds(window.1 - window.0) } else { factor }
}

/// From the window's start to the first sample, or half the distance of samples if that is far.
fn to_start(window: (i64, i64), sampled: &Sampled, interval: f64) -> f64 {
    let to_start = (sampled.first_ms - window.0) as f64 / 1000.0;
    let average = interval / (sampled.count - 1) as f64;
    if to_start >= average * 1.1 { average / 2.0 } else { to_start }
}

/// The change of histograms of one kind, resets of their counters accounted for.
fn histogram_change(
    samples: &[HistogramSample],
    ctx: &mut WindowCtx<'_>,
    is_counter: bool,
) -> Option<Histogram> {
    let (first, last) = (&samples[0].histogram, &samples[samples.len() - 1].histogram);
    let is_gauge = |one: &Histogram| one.hint == ResetHint::Gauge;
    if is_counter && samples.iter().any(|one| is_gauge(&one.histogram)) {
        ctx.notes.no_counter(ctx.span, ctx.metric);
    }
    let second = &samples[1].histogram;
    // What was before a reset need not fit what came after.
    let is_reset = is_counter && second.is_reset_since(first);
    let nothing = Histogram {
        schema: second.schema,
        bounds: Arc::clone(&second.bounds),
        zero_threshold: second.zero_threshold,
        ..Histogram::default()
    };
    let start = if is_reset { &nothing } else { &**first };
    let between = if is_counter { &samples[1..] } else { &samples[samples.len() - 1..] };
    if between.iter().any(|one| one.histogram.is_custom() != start.is_custom()) {
        ctx.notes.mixed_schemas(ctx.span, ctx.metric);
        return None;
    }
    let mut change = (**last).clone();
    change.reduce(between.iter().map(|one| one.histogram.schema).min().unwrap_or(change.schema));
    let mut fits = subtract(&mut change, start, ctx.notes, ctx.span, ctx.metric);
    if is_counter {
        let mut before = start;
        for one in &samples[1..] {
            if one.histogram.is_reset_since(before) {
                fits &= add(&mut change, before, ctx.notes, ctx.span, ctx.metric);
            }
            before = &one.histogram;
        }
    } else if !is_gauge(first) || !is_gauge(last) {
        ctx.notes.no_gauge(ctx.span, ctx.metric);
    }
    change.hint = ResetHint::Gauge;
    change.compact();
    fits.then_some(change)
}

pub(super) fn add(
    to: &mut Histogram,
    other: &Histogram,
    notes: &mut Notes,
    span: Span,
    metric: &str,
) -> bool {
    match to.add(other) {
        Err(_) => {
            notes.mixed_schemas(span, metric);
            false
        }
        Ok(done) => {
            if done.reconciled {
                notes.reconciled(span, "addition");
            }
            true
        }
    }
}

pub(super) fn subtract(
    from: &mut Histogram,
    other: &Histogram,
    notes: &mut Notes,
    span: Span,
    metric: &str,
) -> bool {
    match from.subtract(other) {
        Err(_) => {
            notes.mixed_schemas(span, metric);
            false
        }
        Ok(done) => {
            if done.reconciled {
                notes.reconciled(span, "subtraction");
            }
            true
        }
    }
}

/// `irate` and `idelta`: from the last two samples.
pub(super) fn of_last_two(window: &Window<'_>, ctx: &mut WindowCtx<'_>) -> Option<Point> {
    let is_rate = ctx.function == "irate";
    let floats = window.floats.iter().rev().take(2).map(|one| (one.timestamp.0, Point::Float(one.value)));
    let histograms = window.histograms.iter().rev().take(2);
    let histograms = histograms.map(|one| (one.timestamp.0, Point::Histogram(Arc::clone(&one.histogram))));
    let mut last: Vec<(i64, Point)> = floats.chain(histograms).collect();
    last.sort_by_key(|one| one.0);
    let [.., (before_ms, before), (last_ms, last)] = &last[..] else { return None };
    let seconds = (last_ms - before_ms) as f64 / 1000.0;
    if seconds == 0.0 {
        return None;
    }
    let found = match (before, last) {
        (Point::Float(before), Point::Float(last)) => {
            let change = if is_rate && last < before { *last } else { last - before };
            Point::Float(if is_rate { change / seconds } else { change })
        }
        (Point::Histogram(before), Point::Histogram(last)) => {
            let is_gauge = |one: &Histogram| one.hint == ResetHint::Gauge;
            if is_rate && (is_gauge(before) || is_gauge(last)) {
                ctx.notes.no_counter(ctx.span, ctx.metric);
            }
            let are_gauges = is_gauge(before) && is_gauge(last);
            if !is_rate && !are_gauges {
                ctx.notes.no_gauge(ctx.span, ctx.metric);
            }
            let mut change = (**last).clone();
            let is_reset = is_rate && last.is_reset_since(before);
            if !is_reset && !subtract(&mut change, before, ctx.notes, ctx.span, ctx.metric) {
                return None;
            }
            change.hint = ResetHint::Gauge;
            change.compact();
            if is_rate {
                change.divide(seconds);
            }
            Point::Histogram(Arc::new(change))
        }
        _ => {
            ctx.notes.mixed_floats_and_histograms(ctx.span, ctx.metric);
            return None;
        }
    };
    Some(found)
}

#[cfg(test)]
mod tests {
    use binnacle_model::{Sample, Timestamp};
    use proptest::prelude::*;

    use super::*;

    fn slow(samples: &Samples, function: &'static str, range_ms: i64, end_ms: i64) -> Option<f64> {
        let start_ms = end_ms - range_ms;
        let inside = samples.iter().filter(|s| s.timestamp.0 > start_ms && s.timestamp.0 <= end_ms);
        let borders = Borders::Strict;
        let histograms = &[][..];
        let floats: Samples = inside.collect();
        let window =
            Window { floats: floats.as_slice(), histograms, start_ms, end_ms, step_ms: end_ms, borders };
        let mut ctx = WindowCtx {
            function,
            metric: "",
            span: Span::default(),
            scalar: Span::default(),
            params: [f64::NAN; 2],
            notes: &mut Notes::default(),
        };
        match extrapolated(&window, &mut ctx)? {
            Point::Float(value) => Some(value),
            Point::Histogram(_) => None,
        }
    }

    proptest! {
        /// All steps at once come to what each step by itself does.
        #[test]
        fn sliding_is_as_looking_at_each_window(
            gaps in proptest::collection::vec((prop_oneof![4 => Just(15_000i64), 1 => 1i64..40_000], 0u8..20), 0..80),
            range_ms in 1_000i64..120_000, step_ms in 1_000i64..40_000, offset_ms in -20_000i64..20_000,
        ) {
            let (mut time, mut value) = (0, 0.0);
            let samples: Samples = gaps.iter().map(|(gap, kind)| {
                time += gap;
                value = match kind { 0 => 0.0, 1 => f64::NAN, 2 => value - 3.5, n => value + f64::from(*n) };
                Sample { timestamp: Timestamp(time), value }
            }).collect();
            let grid = Grid { start_ms: 0, step_ms, steps: 60 };
            let values: Vec<f64> = samples.as_slice().values.iter().rev().copied().collect();
            let others = Samples::new(Arc::clone(samples.times()), values.clone());
            let copy = Samples::new(samples.times().iter().copied().collect(), values);
            let later: Samples = samples.iter().map(|one| Sample { timestamp: Timestamp(one.timestamp.0 + 7), ..one }).collect();
            // The same plans for all of them: some have the same moments, some do not.
            let mut plans = Plans::default();
            let runs = [&samples, &others, &copy, &later, &samples].into_iter().flat_map(|samples| {
                [("rate", Rated::Rate), ("increase", Rated::Increase), ("delta", Rated::Delta)].map(|one| (samples, one))
            });
            let again = [("rate", Rated::Rate); 5].into_iter().zip([&samples, &others, &copy, &later, &samples]);
            for (samples, (function, rated)) in runs.chain(again.map(|(one, samples)| (samples, one))) {
                let mut found = vec![super::super::column::ABSENT; grid.steps];
                plans.rates(samples, rated, (range_ms, offset_ms), grid, &mut found);
                for (step, found) in found.into_iter().enumerate() {
                    let want = slow(samples, function, range_ms, grid.at(step) - offset_ms);
                    match want {
                        None => prop_assert!(is_absent(found), "{function} at {step}: {found}"),
                        Some(want) if want.is_nan() => prop_assert!(found.is_nan() && !is_absent(found)),
                        Some(want) => prop_assert!(
                            (found - want).abs() <= 1e-13 * want.abs(), "{function} at {step}: {found} {want}"
                        ),
                    }
                }
            }
        }
    }
}
