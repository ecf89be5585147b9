//! What a window of numbers becomes.

use std::collections::VecDeque;

use super::super::ast::RangeOp;

/// A moment in nanoseconds and a number.
pub(super) type Point = (i64, f64);

/// The number of a window, which is not empty and ascends by time.
pub(super) fn reduce(op: RangeOp, param: Option<f64>, range_ns: i64, points: &VecDeque<Point>) -> f64 {
    let values = || points.iter().map(|(_, value)| *value);
    let count = points.len() as f64;
    let seconds = range_ns as f64 / 1e9;
    match op {
        RangeOp::Sum => values().sum(),
        RangeOp::Rate => values().sum::<f64>() / seconds,
        RangeOp::Avg => {
            let mut mean = 0.0;
            for (at, value) in values().enumerate() {
                // Infinities of one sign stay what they are, as in Loki.
                if f64::is_infinite(mean) && f64::is_infinite(value) && (mean > 0.0) == (value > 0.0) {
                    continue;
                }
                mean += (value - mean) / (at + 1) as f64;
            }
            mean
        }
        // One that is a number counts before one that is none.
        RangeOp::Min => values()
            .fold(f64::NAN, |least, value| if value < least || least.is_nan() { value } else { least }),
        RangeOp::Max => {
            values().fold(f64::NAN, |most, value| if value > most || most.is_nan() { value } else { most })
        }
        RangeOp::First => points.front().map_or(f64::NAN, |(_, value)| *value),
        RangeOp::Last => points.back().map_or(f64::NAN, |(_, value)| *value),
        RangeOp::Stddev => variance(values()).sqrt(),
        RangeOp::Stdvar => variance(values()),
        RangeOp::Quantile => quantile(param.unwrap_or(f64::NAN), values().collect()),
        RangeOp::RateCounter => counter_rate(points, range_ns),
        RangeOp::Count | RangeOp::Bytes | RangeOp::BytesRate | RangeOp::Absent => count,
    }
}

/// Welford's way.
fn variance(values: impl Iterator<Item = f64>) -> f64 {
    let (mut mean, mut squares, mut count) = (0.0, 0.0, 0.0);
    for value in values {
        count += 1.0;
        let delta = value - mean;
        mean += delta / count;
        squares += delta * (value - mean);
    }
    squares / count
}

/// As PromQL's `quantile`: between the two values that are nearest.
fn quantile(q: f64, mut values: Vec<f64>) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    values.sort_by(f64::total_cmp);
    let rank = q * (values.len() - 1) as f64;
    let low = rank.floor().max(0.0) as usize;
    let high = (low + 1).min(values.len() - 1);
    let weight = rank - rank.floor();
    values[low] * (1.0 - weight) + values[high] * weight
}

/// As PromQL's `rate` over a counter's samples, extrapolated to the range that ends with the last of them.
fn counter_rate(points: &VecDeque<Point>, range_ns: i64) -> f64 {
    let (Some(first), Some(last)) = (points.front(), points.back()) else { return 0.0 };
    let sampled = (last.0 - first.0) as f64 / 1e9;
    if points.len() < 2 || sampled == 0.0 {
        return 0.0;
    }
    let seconds = range_ns as f64 / 1e9;
    let mut before = first.1;
    let mut increase = last.1 - first.1;
    for (_, value) in points {
        if *value < before {
            increase += before;
        }
        before = *value;
    }
    let average = sampled / (points.len() - 1) as f64;
    // Loki takes the range to begin so long before the first sample.
    let mut to_start = seconds;
    if increase > 0.0 && first.1 >= 0.0 {
        to_start = to_start.min(sampled * (first.1 / increase));
    }
    let extrapolated = sampled + if to_start < average * 1.1 { to_start } else { average / 2.0 };
    increase * (extrapolated / sampled) / seconds
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(op: RangeOp, param: Option<f64>, values: &[f64], want: f64) {
        let points =
            values.iter().enumerate().map(|(at, value)| (at as i64 * 1_000_000_000, *value)).collect();
        let found = reduce(op, param, 10_000_000_000, &points);
        assert!((found - want).abs() < 1e-9, "{op:?} of {values:?}: {found}, not {want}");
    }

    #[test]
    fn windows_become_numbers() {
        check(RangeOp::Sum, None, &[1.0, 2.0, 3.5], 6.5);
        check(RangeOp::Rate, None, &[1.0, 4.0], 0.5);
        check(RangeOp::Avg, None, &[1.0, 2.0, 6.0], 3.0);
        check(RangeOp::Min, None, &[2.0, f64::NAN, 1.0], 1.0);
        check(RangeOp::Max, None, &[f64::NAN, 2.0, 1.0], 2.0);
        check(RangeOp::First, None, &[7.0, 8.0], 7.0);
        check(RangeOp::Last, None, &[7.0, 8.0], 8.0);
        check(RangeOp::Stdvar, None, &[2.0, 4.0], 1.0);
        check(RangeOp::Stddev, None, &[2.0, 4.0, 6.0], (8f64 / 3.0).sqrt());
        check(RangeOp::Quantile, Some(0.5), &[3.0, 1.0], 2.0);
        check(RangeOp::Quantile, Some(0.75), &[4.0, 2.0, 3.0, 1.0, 5.0], 4.0);
        // 1, 2, 3, then a reset to 1: three more in all, in three seconds, half a sample's distance extrapolated.
        check(RangeOp::RateCounter, None, &[10.0, 11.0, 12.0, 1.0], 3.0 * (3.5 / 3.0) / 10.0);
        check(RangeOp::RateCounter, None, &[10.0], 0.0);
    }
}
