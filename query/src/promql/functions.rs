//! The table of functions, and those of them that are one formula.

use binnacle_model::Sample;

use super::ast::ValueType::{self, Matrix, Scalar, String as Text, Vector};

/// What a function takes and gives.
#[derive(Debug)]
pub(super) struct Signature {
    pub(super) name: &'static str,
    pub(super) args: &'static [ValueType],
    /// How many of `args` must be there.
    pub(super) required: usize,
    /// Whether the last argument may come any number of times.
    pub(super) variadic: bool,
    pub(super) returns: ValueType,
}

const fn takes(name: &'static str, args: &'static [ValueType], required: usize) -> Signature {
    Signature { name, args, required, variadic: false, returns: Vector }
}

const V: &[ValueType] = &[Vector];
const M: &[ValueType] = &[Matrix];

/// Ascending by name.
static SIGNATURES: &[Signature] = &[
    takes("abs", V, 1),
    takes("absent", V, 1),
    takes("absent_over_time", M, 1),
    takes("acos", V, 1),
    takes("acosh", V, 1),
    takes("asin", V, 1),
    takes("asinh", V, 1),
    takes("atan", V, 1),
    takes("atanh", V, 1),
    takes("avg_over_time", M, 1),
    takes("ceil", V, 1),
    takes("changes", M, 1),
    takes("clamp", &[Vector, Scalar, Scalar], 3),
    takes("clamp_max", &[Vector, Scalar], 2),
    takes("clamp_min", &[Vector, Scalar], 2),
    takes("cos", V, 1),
    takes("cosh", V, 1),
    takes("count_over_time", M, 1),
    takes("day_of_month", V, 0),
    takes("day_of_week", V, 0),
    takes("day_of_year", V, 0),
    takes("days_in_month", V, 0),
    takes("deg", V, 1),
    takes("delta", M, 1),
    takes("deriv", M, 1),
    takes("exp", V, 1),
    takes("floor", V, 1),
    takes("histogram_quantile", &[Scalar, Vector], 2),
    takes("hour", V, 0),
    takes("idelta", M, 1),
    takes("increase", M, 1),
    takes("irate", M, 1),
    Signature { variadic: true, ..takes("label_join", &[Vector, Text, Text, Text], 3) },
    takes("label_replace", &[Vector, Text, Text, Text, Text], 5),
    takes("last_over_time", M, 1),
    takes("ln", V, 1),
    takes("log10", V, 1),
    takes("log2", V, 1),
    takes("max_over_time", M, 1),
    takes("min_over_time", M, 1),
    takes("minute", V, 0),
    takes("month", V, 0),
    Signature { returns: Scalar, ..takes("pi", &[], 0) },
    takes("predict_linear", &[Matrix, Scalar], 2),
    takes("present_over_time", M, 1),
    takes("quantile_over_time", &[Scalar, Matrix], 2),
    takes("rad", V, 1),
    takes("rate", M, 1),
    takes("resets", M, 1),
    takes("round", &[Vector, Scalar], 1),
    Signature { returns: Scalar, ..takes("scalar", V, 1) },
    takes("sgn", V, 1),
    takes("sin", V, 1),
    takes("sinh", V, 1),
    takes("sort", V, 1),
    takes("sort_desc", V, 1),
    takes("sqrt", V, 1),
    takes("stddev_over_time", M, 1),
    takes("stdvar_over_time", M, 1),
    takes("sum_over_time", M, 1),
    takes("tan", V, 1),
    takes("tanh", V, 1),
    Signature { returns: Scalar, ..takes("time", &[], 0) },
    takes("timestamp", V, 1),
    takes("vector", &[Scalar], 1),
    takes("year", V, 0),
];

/// The signature of a function.
pub(super) fn signature(name: &str) -> Option<&'static Signature> {
    let at = SIGNATURES.binary_search_by(|signature| signature.name.cmp(name)).ok()?;
    Some(&SIGNATURES[at])
}

/// A function of one number, by its PromQL name.
pub(super) fn of_number(name: &str) -> Option<fn(f64) -> f64> {
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
        "ln" => f64::ln,
        "log10" => f64::log10,
        "log2" => f64::log2,
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

/// A function of a moment, given in Unix seconds, by its PromQL name.
pub(super) fn of_date(name: &str) -> Option<fn(&chrono::DateTime<chrono::Utc>) -> f64> {
    use chrono::{Datelike, Timelike};
    Some(match name {
        "day_of_month" => |t| f64::from(t.day()),
        "day_of_week" => |t| f64::from(t.weekday().num_days_from_sunday()),
        "day_of_year" => |t| f64::from(t.ordinal()),
        "days_in_month" => |t| {
            let next = if t.month() == 12 { (t.year() + 1, 1) } else { (t.year(), t.month() + 1) };
            let first = chrono::NaiveDate::from_ymd_opt(next.0, next.1, 1);
            first.and_then(|day| day.pred_opt()).map_or(f64::NAN, |day| f64::from(day.day()))
        },
        "hour" => |t| f64::from(t.hour()),
        "minute" => |t| f64::from(t.minute()),
        "month" => |t| f64::from(t.month()),
        "year" => |t| f64::from(t.year()),
        _ => return None,
    })
}

/// A window of samples, `(end - range, end]`, in milliseconds.
#[derive(Clone, Copy)]
pub(super) struct Window<'a> {
    pub(super) samples: &'a [Sample],
    pub(super) end_ms: i64,
    pub(super) range_ms: i64,
    /// The moment of evaluation, from which an offset may have moved the window.
    pub(super) step_ms: i64,
}

impl Window<'_> {
    fn values(&self) -> impl Iterator<Item = f64> + Clone {
        self.samples.iter().map(|sample| sample.value)
    }

    fn pairs(&self) -> impl Iterator<Item = (f64, f64)> {
        self.samples.windows(2).map(|pair| (pair[0].value, pair[1].value))
    }
}

/// A function of a window, by its PromQL name. `param` is the function's scalar, if it has one.
pub(super) fn of_window(name: &str) -> Option<fn(Window<'_>, f64) -> Option<f64>> {
    Some(match name {
        "avg_over_time" => |w, _| Some(mean(w.values())),
        "changes" => |w, _| {
            let changed = |(a, b): &(f64, f64)| a != b && !(a.is_nan() && b.is_nan());
            Some(w.pairs().filter(changed).count() as f64)
        },
        "count_over_time" => |w, _| Some(w.samples.len() as f64),
        "delta" => |w, _| extrapolated(w, false, false),
        "deriv" => |w, _| {
            let first = w.samples.first()?.timestamp.0;
            (w.samples.len() > 1).then(|| regression(w.samples, first).0)
        },
        "idelta" => |w, _| instant(w, false),
        "increase" => |w, _| extrapolated(w, true, false),
        "irate" => |w, _| instant(w, true),
        "last_over_time" => |w, _| w.samples.last().map(|sample| sample.value),
        "max_over_time" => |w, _| Some(w.values().fold(f64::NAN, larger)),
        "min_over_time" => |w, _| Some(w.values().fold(f64::NAN, smaller)),
        "predict_linear" => |w, ahead| {
            (w.samples.len() > 1).then(|| {
                let (slope, intercept) = regression(w.samples, w.step_ms);
                slope * ahead + intercept
            })
        },
        "present_over_time" => |_, _| Some(1.0),
        "quantile_over_time" => |w, q| Some(quantile(q, &mut w.values().collect::<Vec<_>>())),
        "rate" => |w, _| extrapolated(w, true, true),
        "resets" => |w, _| Some(w.pairs().filter(|(a, b)| b < a).count() as f64),
        "stddev_over_time" => |w, _| Some(variance(w.values()).sqrt()),
        "stdvar_over_time" => |w, _| Some(variance(w.values())),
        "sum_over_time" => |w, _| Some(sum(w.values())),
        _ => return None,
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

/// The sum, with the error of each addition carried along (Neumaier), as Prometheus does.
pub(super) fn sum(values: impl Iterator<Item = f64>) -> f64 {
    let (mut sum, mut error) = (0.0f64, 0.0f64);
    for value in values {
        let next = sum + value;
        if next.is_infinite() {
            error = 0.0;
        } else if sum.abs() >= value.abs() {
            error += (sum - next) + value;
        } else {
            error += (value - next) + sum;
        }
        sum = next;
    }
    if sum.is_infinite() { sum } else { sum + error }
}

/// The mean of one value or more, without overflow on the way.
pub(super) fn mean(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let count = values.clone().count() as f64;
    let total = sum(values.clone());
    if total.is_infinite() && values.clone().all(f64::is_finite) {
        return sum(values.map(|value| value / count));
    }
    total / count
}

/// The population variance.
pub(super) fn variance(values: impl Iterator<Item = f64>) -> f64 {
    // Welford's update: no difference of two large sums.
    let (mut count, mut mean, mut squares) = (0.0, 0.0, 0.0);
    for value in values {
        count += 1.0;
        let off = value - mean;
        mean += off / count;
        squares += off * (value - mean);
    }
    squares / count
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

/// `rate`, `increase` and `delta`: the change in the window, extended to the window's borders where
/// the samples come near them. After `extrapolatedRate` in Prometheus's `promql/functions.go`.
fn extrapolated(window: Window<'_>, is_counter: bool, per_second: bool) -> Option<f64> {
    let [first, .., last] = window.samples else { return None };
    let mut change = last.value - first.value;
    if is_counter {
        change += window.pairs().filter(|(a, b)| b < a).map(|(a, _)| a).sum::<f64>();
    }
    let seconds = |ms: i64| ms as f64 / 1000.0;
    let mut to_start = seconds(first.timestamp.0 - (window.end_ms - window.range_ms));
    let mut to_end = seconds(window.end_ms - last.timestamp.0);
    let sampled = seconds(last.timestamp.0 - first.timestamp.0);
    let average = sampled / (window.samples.len() - 1) as f64;
    let threshold = average * 1.1;
    if to_start >= threshold {
        to_start = average / 2.0;
    }
    if is_counter && change > 0.0 && first.value >= 0.0 {
        // A counter was not below zero: it began at this distance at the most.
        to_start = to_start.min(sampled * (first.value / change));
    }
    if to_end >= threshold {
        to_end = average / 2.0;
    }
    let mut factor = (sampled + to_start + to_end) / sampled;
    if per_second {
        factor /= seconds(window.range_ms);
    }
    Some(change * factor)
}

/// `irate` and `idelta`: from the last two samples.
fn instant(window: Window<'_>, is_rate: bool) -> Option<f64> {
    let [.., before, last] = window.samples else { return None };
    let interval_ms = last.timestamp.0 - before.timestamp.0;
    if interval_ms == 0 {
        return None;
    }
    if !is_rate {
        return Some(last.value - before.value);
    }
    let is_reset = last.value < before.value;
    let change = if is_reset { last.value } else { last.value - before.value };
    Some(change / (interval_ms as f64 / 1000.0))
}

/// Least squares: slope per second, and the value at `at_ms`.
fn regression(samples: &[Sample], at_ms: i64) -> (f64, f64) {
    let first = samples[0].value;
    if samples.iter().all(|sample| sample.value == first) {
        return if first.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, first) };
    }
    let x = |sample: &Sample| (sample.timestamp.0 - at_ms) as f64 / 1000.0;
    let count = samples.len() as f64;
    let sum_x = sum(samples.iter().map(x));
    let sum_y = sum(samples.iter().map(|sample| sample.value));
    let sum_xy = sum(samples.iter().map(|sample| x(sample) * sample.value));
    let sum_xx = sum(samples.iter().map(|sample| x(sample) * x(sample)));
    let slope = (sum_xy - sum_x * sum_y / count) / (sum_xx - sum_x * sum_x / count);
    (slope, sum_y / count - slope * sum_x / count)
}

/// A bucket of a classic histogram: upper bound and cumulative count.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket {
    pub(super) upper: f64,
    pub(super) count: f64,
}

/// Two counts that differ by less are the same, and the difference is from adding floats.
const SAME_COUNT: f64 = 1e-12;

/// The `q` quantile of a classic histogram. After `bucketQuantile` in Prometheus's
/// `promql/quantile.go`: linear within a bucket, the lowest bucket begins at zero.
pub(super) fn bucket_quantile(q: f64, buckets: &mut Vec<Bucket>) -> f64 {
    if q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    buckets.sort_by(|a, b| a.upper.total_cmp(&b.upper));
    buckets.dedup_by(|next, kept| {
        let same = next.upper == kept.upper;
        if same {
            kept.count += next.count;
        }
        same
    });
    if buckets.last().is_none_or(|last| last.upper != f64::INFINITY) || buckets.len() < 2 {
        return f64::NAN;
    }
    let mut highest = buckets[0].count;
    for bucket in buckets.iter_mut().skip(1) {
        let close = (bucket.count - highest).abs() <= SAME_COUNT * highest.abs();
        if bucket.count < highest || close {
            bucket.count = highest;
        }
        highest = bucket.count;
    }
    let last = buckets.len() - 1;
    let mut rank = q * buckets[last].count;
    if buckets[last].count == 0.0 || buckets[last].count.is_nan() {
        return f64::NAN;
    }
    let at = buckets[..last].partition_point(|bucket| bucket.count < rank);
    if at == last {
        return buckets[last - 1].upper;
    }
    if at == 0 && buckets[0].upper <= 0.0 {
        return buckets[0].upper;
    }
    let (mut lower, mut count) = (0.0, buckets[at].count);
    if at > 0 {
        lower = buckets[at - 1].upper;
        count -= buckets[at - 1].count;
        rank -= buckets[at - 1].count;
    }
    lower + (buckets[at].upper - lower) * (rank / count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted() {
        assert!(SIGNATURES.is_sorted_by(|a, b| a.name < b.name));
    }

    #[test]
    fn quantiles_interpolate() {
        assert_eq!(quantile(0.5, &mut [3.0, 1.0, 2.0, 4.0]), 2.5);
        assert_eq!(quantile(1.0, &mut [3.0, 1.0]), 3.0);
        assert!(quantile(0.5, &mut []).is_nan());
        assert_eq!(quantile(-0.1, &mut [1.0]), f64::NEG_INFINITY);
    }

    #[test]
    fn sums_carry_their_error() {
        assert_eq!(sum([1e100, 1.0, -1e100].into_iter()), 1.0);
        assert_eq!(mean([f64::MAX, f64::MAX].into_iter()), f64::MAX);
    }
}
