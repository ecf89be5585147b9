//! `rate`, `increase`, `delta`, `irate`, `idelta`: how a series changed within a window.

use std::sync::Arc;

use binnacle_model::Sample;
use binnacle_model::histogram::{Histogram, ResetHint};
use binnacle_model::storage::HistogramSample;

use super::super::ast::{Borders, Span};
use super::super::notes::Notes;
use super::column::Point;
use super::windows::{Window, WindowCtx};

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
        return extended_rate(window, ctx, is_counter, is_rate);
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
        change.scale(factor(window, &span, from_zero, is_rate));
        change.hint = ResetHint::Gauge;
        return Some(Point::Histogram(Arc::new(change)));
    }
    let [first, .., last] = window.floats else { return None };
    let mut change = last.value - first.value;
    if is_counter && !window.never_falls {
        let pairs = window.floats.windows(2);
        change += pairs.filter(|p| p[1].value < p[0].value).map(|p| p[0].value).sum::<f64>();
    }
    let span = Sampled { first_ms: first.timestamp.0, last_ms: last.timestamp.0, count: window.floats.len() };
    let from_zero = (is_counter && change > 0.0 && first.value >= 0.0).then(|| first.value / change);
    Some(Point::Float(change * factor(window, &span, from_zero, is_rate)))
}

struct Sampled {
    first_ms: i64,
    last_ms: i64,
    count: usize,
}

/// By how much the change between the samples is to be stretched. `from_zero` is the part of the change
/// by which a counter lies above zero at its first sample.
fn factor(window: &Window<'_>, sampled: &Sampled, from_zero: Option<f64>, is_rate: bool) -> f64 {
    let seconds = |ms: i64| ms as f64 / 1000.0;
    let mut to_start = seconds(sampled.first_ms - window.start_ms);
    let mut to_end = seconds(window.end_ms - sampled.last_ms);
    let interval = seconds(sampled.last_ms - sampled.first_ms);
    let average = interval / (sampled.count - 1) as f64;
    let threshold = average * 1.1;
    if to_start >= threshold {
        to_start = average / 2.0;
    }
    if let Some(part) = from_zero {
        // A counter was not below zero: it began at this distance at the most.
        to_start = to_start.min(interval * part);
    }
    if to_end >= threshold {
        to_end = average / 2.0;
    }
    let factor = (interval + to_start + to_end) / interval;
    if is_rate { factor / window.range_seconds() } else { factor }
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

fn add(to: &mut Histogram, other: &Histogram, notes: &mut Notes, span: Span, metric: &str) -> bool {
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

fn subtract(from: &mut Histogram, other: &Histogram, notes: &mut Notes, span: Span, metric: &str) -> bool {
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

/// The value at a moment between two samples. A counter that fell began again at zero.
pub(super) fn between(before: &Sample, after: &Sample, moment: i64, is_counter: bool) -> f64 {
    let start = if is_counter && after.value < before.value { 0.0 } else { before.value };
    let part = (moment - before.timestamp.0) as f64 / (after.timestamp.0 - before.timestamp.0) as f64;
    start + (after.value - start) * part
}

/// As [`between`], of histograms; nothing if they do not fit each other.
pub(super) fn between_histograms(
    before: &HistogramSample,
    after: &HistogramSample,
    moment: i64,
    is_counter: bool,
    notes: &mut Notes,
    span: Span,
    metric: &str,
) -> Option<Histogram> {
    if moment == before.timestamp.0 {
        return Some((*before.histogram).clone());
    }
    if moment == after.timestamp.0 {
        return Some((*after.histogram).clone());
    }
    if before.histogram.is_custom() != after.histogram.is_custom() {
        notes.mixed_schemas(span, metric);
        return None;
    }
    let part = (moment - before.timestamp.0) as f64 / (after.timestamp.0 - before.timestamp.0) as f64;
    let mut found = (*after.histogram).clone();
    if is_counter && after.histogram.is_reset_since(&before.histogram) {
        found.scale(part);
        return Some(found);
    }
    if !subtract(&mut found, &before.histogram, notes, span, metric) {
        return None;
    }
    found.scale(part);
    add(&mut found, &before.histogram, notes, span, metric).then_some(found)
}

/// Of samples ascending by time, those that an anchored or smoothed window goes by: the last one at or
/// before its start, and, if smoothed, the first one at or after its end.
fn bounds(times: &[i64], window: &Window<'_>) -> Option<(usize, usize)> {
    let newest = times.len().checked_sub(1)?;
    let first = times[..newest].partition_point(|at| *at <= window.start_ms).saturating_sub(1);
    let is_smoothed = window.borders == Borders::Smoothed;
    let last = if is_smoothed { times[..newest].partition_point(|at| *at < window.end_ms) } else { newest };
    let is_outside = times[last] <= window.start_ms || (is_smoothed && times[first] > window.end_ms);
    (!is_outside).then_some((first, last))
}

/// After `extendedRate` in Prometheus's `promql/functions.go`: no extrapolation, but values at the borders.
fn extended_rate(
    window: &Window<'_>,
    ctx: &mut WindowCtx<'_>,
    is_counter: bool,
    is_rate: bool,
) -> Option<Point> {
    if !window.histograms.is_empty() {
        return extended_histogram_rate(window, ctx, is_counter, is_rate);
    }
    let floats = window.floats;
    let times: Vec<i64> = floats.iter().map(|one| one.timestamp.0).collect();
    let (first, last) = bounds(&times, window)?;
    let is_smoothed = window.borders == Borders::Smoothed;
    let left = if is_smoothed && times[first] < window.start_ms {
        between(&floats[first], &floats[first + 1], window.start_ms, is_counter)
    } else {
        floats[first].value
    };
    let right = if is_smoothed && last > 0 && times[last] > window.end_ms {
        between(&floats[last - 1], &floats[last], window.end_ms, is_counter)
    } else {
        floats[last].value
    };
    let mut change = right - left;
    if is_counter {
        // Only samples within: the values at the borders know of resets across them.
        let from = if times[first] <= window.start_ms { first + 1 } else { first };
        let to = if times[last] >= window.end_ms { last } else { last + 1 };
        let mut before = left;
        for sample in floats.get(from..to).unwrap_or_default() {
            if sample.value < before {
                change += before;
            }
            before = sample.value;
        }
        if right < before {
            change += before;
        }
    }
    let change = if is_rate { change / window.range_seconds() } else { change };
    Some(Point::Float(change))
}

fn extended_histogram_rate(
    window: &Window<'_>,
    ctx: &mut WindowCtx<'_>,
    is_counter: bool,
    is_rate: bool,
) -> Option<Point> {
    let all = window.histograms;
    let times: Vec<i64> = all.iter().map(|one| one.timestamp.0).collect();
    let (first, last) = bounds(&times, window)?;
    let used = &all[first..=last];
    if used.iter().any(|one| one.histogram.is_custom() != used[0].histogram.is_custom()) {
        ctx.notes.mixed_schemas(ctx.span, ctx.metric);
        return None;
    }
    if is_counter && used.iter().any(|one| one.histogram.hint == ResetHint::Gauge) {
        ctx.notes.no_counter(ctx.span, ctx.metric);
    }
    let is_smoothed = window.borders == Borders::Smoothed;
    let notes = &mut *ctx.notes;
    let spans_left = is_smoothed && times[first] < window.start_ms;
    let left = if spans_left {
        let (a, b) = (&all[first], &all[first + 1]);
        between_histograms(a, b, window.start_ms, is_counter, notes, ctx.span, ctx.metric)?
    } else {
        (*all[first].histogram).clone()
    };
    let right = if is_smoothed && last > 0 && times[last] > window.end_ms {
        let (a, b) = (&all[last - 1], &all[last]);
        between_histograms(a, b, window.end_ms, is_counter, notes, ctx.span, ctx.metric)?
    } else {
        (*all[last].histogram).clone()
    };
    let are_gauges = left.hint == ResetHint::Gauge && right.hint == ResetHint::Gauge;
    if !is_counter && !are_gauges {
        notes.no_gauge(ctx.span, ctx.metric);
    }
    let mut change = right.clone();
    if !subtract(&mut change, &left, notes, ctx.span, ctx.metric) {
        return None;
    }
    if is_counter {
        let skips = spans_left
            && all.get(first + 1).is_some_and(|next| next.histogram.is_reset_since(&all[first].histogram));
        // The value at the left border lies behind that reset already.
        let mut before = if skips { &*all[first + 1].histogram } else { &left };
        let inner = first + 1 + usize::from(skips);
        if inner <= last || !skips {
            for one in all.get(inner..last).unwrap_or_default() {
                if one.histogram.is_reset_since(before)
                    && !add(&mut change, before, notes, ctx.span, ctx.metric)
                {
                    return None;
                }
                before = &one.histogram;
            }
            if first != last
                && right.is_reset_since(before)
                && !add(&mut change, before, notes, ctx.span, ctx.metric)
            {
                return None;
            }
        }
    }
    if is_rate {
        change.divide(window.range_seconds());
    }
    change.hint = ResetHint::Gauge;
    change.compact();
    Some(Point::Histogram(Arc::new(change)))
}

/// The samples of an anchored or smoothed window, with values at its borders.
pub(super) fn extended(window: &Window<'_>) -> Vec<Sample> {
    let floats = window.floats;
    let times: Vec<i64> = floats.iter().map(|one| one.timestamp.0).collect();
    let Some((first, last)) = bounds(&times, window) else { return Vec::new() };
    let is_smoothed = window.borders == Borders::Smoothed;
    let at = |moment: i64, value: f64| Sample { timestamp: binnacle_model::Timestamp(moment), value };
    let left = if is_smoothed && times[first] < window.start_ms {
        between(&floats[first], &floats[first + 1], window.start_ms, false)
    } else {
        floats[first].value
    };
    let right = if is_smoothed && last > 0 && times[last] > window.end_ms {
        between(&floats[last - 1], &floats[last], window.end_ms, false)
    } else {
        floats[last].value
    };
    let inside = |one: &&Sample| one.timestamp.0 > window.start_ms && one.timestamp.0 < window.end_ms;
    let mut found = vec![at(window.start_ms, left)];
    found.extend(floats.iter().filter(inside));
    found.push(at(window.end_ms, right));
    found
}
