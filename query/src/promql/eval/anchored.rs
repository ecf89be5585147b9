//! Windows that are anchored or smoothed: no extrapolation, but values at their borders.

use std::sync::Arc;

use binnacle_model::Sample;
use binnacle_model::histogram::{Histogram, ResetHint};
use binnacle_model::storage::HistogramSample;

use super::super::ast::{Borders, Span};
use super::super::notes::Notes;
use super::column::Point;
use super::rates::{add, subtract};
use super::windows::{Window, WindowCtx};

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
pub(super) fn extended_rate(
    window: &Window<'_>,
    ctx: &mut WindowCtx<'_>,
    is_counter: bool,
    is_rate: bool,
) -> Option<Point> {
    if !window.histograms.is_empty() {
        return extended_histogram_rate(window, ctx, is_counter, is_rate);
    }
    let floats = window.floats;
    let times = floats.times;
    let (first, last) = bounds(times, window)?;
    let is_smoothed = window.borders == Borders::Smoothed;
    let left = if is_smoothed && times[first] < window.start_ms {
        between(&floats.at(first), &floats.at(first + 1), window.start_ms, is_counter)
    } else {
        floats.values[first]
    };
    let right = if is_smoothed && last > 0 && times[last] > window.end_ms {
        between(&floats.at(last - 1), &floats.at(last), window.end_ms, is_counter)
    } else {
        floats.values[last]
    };
    let mut change = right - left;
    if is_counter {
        // Only samples within: the values at the borders know of resets across them.
        let from = if times[first] <= window.start_ms { first + 1 } else { first };
        let to = if times[last] >= window.end_ms { last } else { last + 1 };
        let mut before = left;
        for value in floats.values.get(from..to).unwrap_or_default() {
            if *value < before {
                change += before;
            }
            before = *value;
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
    let times = floats.times;
    let Some((first, last)) = bounds(times, window) else { return Vec::new() };
    let is_smoothed = window.borders == Borders::Smoothed;
    let at = |moment: i64, value: f64| Sample { timestamp: binnacle_model::Timestamp(moment), value };
    let left = if is_smoothed && times[first] < window.start_ms {
        between(&floats.at(first), &floats.at(first + 1), window.start_ms, false)
    } else {
        floats.values[first]
    };
    let right = if is_smoothed && last > 0 && times[last] > window.end_ms {
        between(&floats.at(last - 1), &floats.at(last), window.end_ms, false)
    } else {
        floats.values[last]
    };
    let inside = |one: &Sample| one.timestamp.0 > window.start_ms && one.timestamp.0 < window.end_ms;
    let mut found = vec![at(window.start_ms, left)];
    found.extend(floats.iter().filter(inside));
    found.push(at(window.end_ms, right));
    found
}
