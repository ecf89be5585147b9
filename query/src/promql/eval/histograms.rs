//! Quantiles and fractions of histograms, classic and native.

use binnacle_model::Labels;
use binnacle_model::histogram::{Bucket, Histogram};
use binnacle_model::text::lossy;

use super::super::ast::{Call, Expr, Span};
use super::super::lexer::is_label_name;
use super::super::notes::{Fixed, Notes, of_metric};
use super::column::{ByLabels, Column, is_absent, unique};
use super::{EvalError, Grid, Run, over_time};

/// The label of a classic bucket's upper bound.
const BUCKET_LABEL: &str = "le";

/// Two counts that differ by less are the same, and the difference is from adding floats.
const SAME_COUNT: f64 = 1e-12;

/// A bucket of a classic histogram: upper bound and cumulative count.
#[derive(Debug, Clone, Copy)]
struct Classic {
    upper: f64,
    count: f64,
}

/// A number of a classic histogram at a step.
type OfBuckets<'f> = dyn FnMut(&mut Notes, usize, &Labels, &mut Vec<Classic>) -> f64 + 'f;

/// A number of a native histogram at a step.
type OfHistogram<'f> = dyn FnMut(&mut Notes, usize, &Labels, &Histogram) -> f64 + 'f;

/// All of one histogram: its classic buckets, or its native samples, or both by mistake.
struct Family {
    labels: Labels,
    classic: Vec<(f64, Column)>,
    native: Option<Column>,
}

impl Run<'_> {
    /// The families of a vector, with their place in it.
    fn families(&mut self, arg: &Expr, grid: Grid) -> Result<Vec<Family>, EvalError> {
        let span = arg.bare().span;
        let columns = self.columns(arg, grid)?;
        let mut places = ByLabels::default();
        let mut families: Vec<Family> = Vec::new();
        for column in columns {
            let has_floats = column.floats.iter().any(|value| !is_absent(*value));
            if has_floats {
                let text = column.labels.value(BUCKET_LABEL).to_owned();
                if let Some(upper) = parse_bound(&text) {
                    let labels = column.labels.filtered(|label| &*label.name != BUCKET_LABEL);
                    let family = family(&mut places, &mut families, labels);
                    family.classic.push((upper, Column { histograms: Vec::new(), ..column.clone() }));
                } else {
                    let text = format!(
                        "bucket label \"le\" is missing or has a malformed value of {text:?}{}",
                        of_metric(column.name())
                    );
                    self.notes.warn(span, &text);
                }
            }
            if column.has_histograms() {
                let family = family(&mut places, &mut families, column.labels.clone());
                family.native = Some(column);
            }
        }
        Ok(families)
    }

    /// Calculates a number of every histogram at every step.
    fn of_histograms(
        &mut self,
        arg: &Expr,
        grid: Grid,
        classic: &mut OfBuckets<'_>,
        native: &mut OfHistogram<'_>,
    ) -> Result<Vec<Column>, EvalError> {
        let span = arg.bare().span;
        let families = self.families(arg, grid)?;
        self.hold(families.len() * grid.steps)?;
        let mut found = Vec::with_capacity(families.len());
        let mut buckets = Vec::new();
        for family in &families {
            self.check()?;
            let mut column = Column::empty(family.labels.clone(), grid.steps);
            column.drop_name = true;
            for step in 0..grid.steps {
                buckets.clear();
                let there = family.classic.iter().filter(|(_, column)| !is_absent(column.floats[step]));
                buckets.extend(
                    there.map(|(upper, column)| Classic { upper: *upper, count: column.floats[step] }),
                );
                let histogram = family.native.as_ref().and_then(|column| column.histogram(step));
                let value = match (buckets.is_empty(), histogram) {
                    (true, None) => continue,
                    (false, Some(_)) => {
                        let text = format!(
                            "vector contains a mix of classic and native histograms{}",
                            of_metric(family.labels.metric_name())
                        );
                        self.notes.warn(span, &text);
                        continue;
                    }
                    (false, None) => classic(&mut self.notes, step, &family.labels, &mut buckets),
                    (true, Some(histogram)) => native(&mut self.notes, step, &family.labels, histogram),
                };
                column.floats[step] = value;
            }
            if !column.is_empty() {
                found.push(column);
            }
        }
        Ok(found)
    }

    pub(super) fn histogram_quantile(&mut self, call: &Call, grid: Grid) -> Result<Vec<Column>, EvalError> {
        let [quantile, vector] = &call.args[..] else { unreachable!("the parser checked the count") };
        let quantiles = self.numbers(quantile, grid)?;
        self.quantiles(&quantiles, quantile.bare().span, vector, grid)
    }

    fn quantiles(
        &mut self,
        quantiles: &[f64],
        span: Span,
        vector: &Expr,
        grid: Grid,
    ) -> Result<Vec<Column>, EvalError> {
        for q in quantiles.iter().filter(|q| !(0.0..=1.0).contains(*q)) {
            self.notes.invalid_quantile(span, *q);
        }
        let place = vector.bare().span;
        let mut classic = |notes: &mut Notes, step: usize, labels: &Labels, buckets: &mut Vec<Classic>| {
            let (value, fixed) = classic_quantile(quantiles[step], buckets);
            if let Some(fixed) = fixed {
                let at = grid.at(step);
                let fixed = Fixed { first_ms: at, last_ms: at, ..fixed };
                notes.forced_monotonic(place, labels.metric_name(), fixed);
            }
            value
        };
        let mut native = |notes: &mut Notes, step: usize, labels: &Labels, histogram: &Histogram| {
            let name = labels.metric_name();
            native_quantile(quantiles[step], histogram, notes, place, name)
        };
        self.of_histograms(vector, grid, &mut classic, &mut native)
    }

    /// One series for each quantile, told apart by a label.
    pub(super) fn histogram_quantiles(&mut self, call: &Call, grid: Grid) -> Result<Vec<Column>, EvalError> {
        let vector = &call.args[0];
        let label = Self::text(&call.args[1])?.to_owned();
        if !is_label_name(&label) {
            return EvalError::execution(format!(
                "invalid label name in histogram_quantiles(): {}",
                lossy(&label)
            ));
        }
        let mut found = Vec::new();
        for arg in &call.args[2..] {
            let quantiles = self.numbers(arg, grid)?;
            for column in self.quantiles(&quantiles, arg.bare().span, vector, grid)? {
                found.extend(self.by_quantile(&column, &quantiles, &label)?);
            }
        }
        unique(found)
    }

    /// The column with its quantile as a label; where that changes from step to step, one for each.
    fn by_quantile(&self, column: &Column, quantiles: &[f64], label: &str) -> Result<Vec<Column>, EvalError> {
        let mut found: Vec<(u64, Column)> = Vec::new();
        for (step, quantile) in quantiles.iter().enumerate() {
            let Some(point) = column.point(step) else { continue };
            let bits = quantile.to_bits();
            if !found.iter().any(|(known, _)| *known == bits) {
                self.hold(column.size())?;
                let labels = column.labels.with(label, &open_metrics(*quantile));
                let mut one = Column::empty(labels, quantiles.len());
                one.drop_name = column.drop_name;
                found.push((bits, one));
            }
            let of_quantile = found.iter_mut().filter(|(known, _)| *known == bits);
            of_quantile.for_each(|(_, one)| one.set(step, Some(point.clone())));
        }
        Ok(found.into_iter().map(|(_, column)| column).collect())
    }

    pub(super) fn histogram_fraction(&mut self, call: &Call, grid: Grid) -> Result<Vec<Column>, EvalError> {
        let [lower, upper, vector] = &call.args[..] else { unreachable!("the parser checked the count") };
        let span = vector.bare().span;
        let lowers = self.numbers(lower, grid)?;
        let uppers = self.numbers(upper, grid)?;
        let mut classic = |_: &mut Notes, step: usize, _: &Labels, buckets: &mut Vec<Classic>| {
            classic_fraction(lowers[step], uppers[step], buckets)
        };
        let mut native = |notes: &mut Notes, step: usize, labels: &Labels, histogram: &Histogram| {
            let name = labels.metric_name();
            native_fraction(lowers[step], uppers[step], histogram, notes, span, name)
        };
        self.of_histograms(vector, grid, &mut classic, &mut native)
    }

    /// A number of each native histogram; floats are left out.
    pub(super) fn histogram_number(
        &mut self,
        call: &Call,
        grid: Grid,
        number: fn(&Histogram) -> f64,
    ) -> Result<Vec<Column>, EvalError> {
        let of_counts = matches!(call.name, "histogram_avg" | "histogram_count" | "histogram_sum");
        let traced = std::mem::replace(&mut self.traces_resets, of_counts);
        let columns = self.columns(&call.args[0], grid);
        self.traces_resets = traced;
        let columns = columns?;
        let with_histograms = columns.into_iter().filter(Column::has_histograms);
        let numbers = with_histograms.map(|column| {
            let mut numbers = Column::empty(column.labels.clone(), grid.steps);
            numbers.drop_name = true;
            for step in 0..grid.steps {
                if let Some(histogram) = column.histogram(step) {
                    numbers.floats[step] = plain_nan(number(histogram));
                }
            }
            numbers
        });
        Ok(numbers.filter(|column| !column.is_empty()).collect())
    }
}

fn plain_nan(value: f64) -> f64 {
    if value.is_nan() { f64::NAN } else { value }
}

fn family<'f>(places: &mut ByLabels<usize>, families: &'f mut Vec<Family>, labels: Labels) -> &'f mut Family {
    let at = *places.entry(labels.clone()).or_insert_with(|| {
        families.push(Family { labels, classic: Vec::new(), native: None });
        families.len() - 1
    });
    &mut families[at]
}

/// A bound as Go's `strconv.ParseFloat` reads it.
fn parse_bound(text: &str) -> Option<f64> {
    let bound: f64 = text.parse().ok()?;
    (!bound.is_nan()).then_some(bound)
}

/// A number as OpenMetrics writes it: whole ones with a fraction.
fn open_metrics(value: f64) -> String {
    let text = crate::http::format_value(value);
    let is_whole = value.is_finite() && !text.contains(['.', 'e']);
    if is_whole { text + ".0" } else { text }
}

/// `histogram_avg`
pub(super) fn mean(histogram: &Histogram) -> f64 {
    histogram.sum / histogram.count
}

/// `histogram_stdvar`
pub(super) fn variance(histogram: &Histogram) -> f64 {
    let mean = mean(histogram);
    let mut squares = over_time::Compensated::default();
    for bucket in histogram.all_buckets().iter().filter(|bucket| bucket.count != 0.0) {
        let middle = if histogram.is_custom() {
            f64::midpoint(bucket.upper, bucket.lower)
        } else if bucket.lower <= 0.0 && bucket.upper >= 0.0 {
            0.0
        } else {
            let middle = (bucket.upper * bucket.lower).sqrt();
            if bucket.upper < 0.0 { -middle } else { middle }
        };
        squares.add(bucket.count * (middle - mean) * (middle - mean));
    }
    (squares.sum + squares.lost) / histogram.count
}

/// Sorts buckets and joins equal bounds. Answers whether the last one has no end.
fn in_order(buckets: &mut Vec<Classic>) -> bool {
    buckets.sort_by(|a, b| a.upper.total_cmp(&b.upper));
    buckets.dedup_by(|next, kept| {
        let same = next.upper == kept.upper;
        if same {
            kept.count += next.count;
        }
        same
    });
    buckets.last().is_some_and(|last| last.upper == f64::INFINITY)
}

/// Makes counts ascend. Answers what had to be changed beyond rounding.
fn make_monotonic(buckets: &mut [Classic]) -> Option<Fixed> {
    let mut before = buckets.first()?.count;
    let mut fixed: Option<Fixed> = None;
    for bucket in &mut buckets[1..] {
        if bucket.count == before {
            continue;
        }
        let is_same = (bucket.count - before).abs() / (bucket.count.abs() + before.abs()) < SAME_COUNT;
        if is_same || bucket.count < before {
            if !is_same {
                let step = before - bucket.count;
                let found = fixed.get_or_insert(Fixed {
                    lowest: bucket.upper,
                    highest: bucket.upper,
                    largest_step: step,
                    first_ms: 0,
                    last_ms: 0,
                    times: 1,
                });
                found.highest = found.highest.max(bucket.upper);
                found.largest_step = found.largest_step.max(step);
            }
            bucket.count = before;
            continue;
        }
        before = bucket.count;
    }
    fixed
}

/// The `q` quantile of a classic histogram: linear within a bucket, the lowest bucket begins at zero. After
/// `BucketQuantile` in Prometheus's `promql/quantile.go`.
fn classic_quantile(q: f64, buckets: &mut Vec<Classic>) -> (f64, Option<Fixed>) {
    if q.is_nan() {
        return (f64::NAN, None);
    }
    if q < 0.0 {
        return (f64::NEG_INFINITY, None);
    }
    if q > 1.0 {
        return (f64::INFINITY, None);
    }
    if !in_order(buckets) {
        return (f64::NAN, None);
    }
    let fixed = make_monotonic(buckets);
    let last = buckets.len() - 1;
    let observations = buckets[last].count;
    if last == 0 || observations == 0.0 || observations.is_nan() {
        return (f64::NAN, fixed);
    }
    let rank = q * observations;
    let at = buckets[..last].partition_point(|bucket| bucket.count < rank);
    if at == last {
        return (buckets[last - 1].upper, fixed);
    }
    if at == 0 && buckets[0].upper <= 0.0 {
        return (buckets[0].upper, fixed);
    }
    let before = at.checked_sub(1).map_or(Classic { upper: 0.0, count: 0.0 }, |before| buckets[before]);
    let part = (rank - before.count) / (buckets[at].count - before.count);
    (before.upper + (buckets[at].upper - before.upper) * part, fixed)
}

/// The part of a classic histogram's observations between two bounds.
fn classic_fraction(lower: f64, upper: f64, buckets: &mut Vec<Classic>) -> f64 {
    if !in_order(buckets) {
        return f64::NAN;
    }
    let total = buckets[buckets.len() - 1].count;
    if total == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    let start = if buckets[0].upper > 0.0 { 0.0 } else { f64::NEG_INFINITY };
    let rank_of = |value: f64| {
        let (mut from, mut rank) = (start, 0.0);
        for bucket in buckets.iter() {
            if from >= value {
                return rank;
            }
            if bucket.upper > value {
                if from == f64::NEG_INFINITY {
                    return bucket.count;
                }
                return rank + (bucket.count - rank) * (value - from) / (bucket.upper - from);
            }
            (from, rank) = (bucket.upper, bucket.count);
        }
        total
    };
    (rank_of(upper).min(total) - rank_of(lower).min(total)) / total
}

/// A bucket around zero of a histogram with observations of one sign lies on that side alone.
fn one_sided(histogram: &Histogram, mut bucket: Bucket) -> Bucket {
    if !histogram.is_custom() && bucket.lower < 0.0 && bucket.upper > 0.0 {
        match (histogram.positive.is_empty(), histogram.negative.is_empty()) {
            (false, true) => bucket.lower = 0.0,
            (true, false) => bucket.upper = 0.0,
            _ => {}
        }
    }
    bucket
}

/// The `q` quantile of a native histogram: within an exponential bucket as if finer buckets were evenly
/// filled, else linear. After `HistogramQuantile` in Prometheus's `promql/quantile.go`.
fn native_quantile(q: f64, histogram: &Histogram, notes: &mut Notes, span: Span, name: &str) -> f64 {
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    if histogram.count == 0.0 || q.is_nan() {
        return f64::NAN;
    }
    // Observations that are NaN count, but lie in no bucket: then only the way from below is right.
    let has_nan = histogram.sum.is_nan();
    let is_forward = has_nan || q < 0.5;
    let mut buckets = histogram.all_buckets();
    let rank = if is_forward {
        q * histogram.count
    } else {
        buckets.reverse();
        (1.0 - q) * histogram.count
    };
    let mut count = 0.0;
    let mut found =
        Bucket { lower: 0.0, upper: 0.0, lower_inclusive: true, upper_inclusive: true, count: 0.0 };
    let mut rest = buckets.iter();
    for bucket in rest.by_ref() {
        found = *bucket;
        count += bucket.count;
        if bucket.count != 0.0 && count >= rank {
            break;
        }
    }
    let mut bucket = one_sided(histogram, found);
    if histogram.is_custom() {
        if bucket.lower == f64::NEG_INFINITY {
            if bucket.upper <= 0.0 {
                return bucket.upper;
            }
            bucket.lower = 0.0;
        } else if bucket.upper == f64::INFINITY {
            return bucket.lower;
        }
    }
    let count = count.min(histogram.count);
    if count < rank {
        if has_nan {
            let text =
                format!("input to histogram_quantile has NaN observations, result is NaN{}", of_metric(name));
            notes.inform(span, &text);
            return f64::NAN;
        }
        return bucket.upper;
    }
    if has_nan && count + rest.map(|bucket| bucket.count).sum::<f64>() < histogram.count {
        let text = format!(
            "input to histogram_quantile has NaN observations, result is skewed higher{}",
            of_metric(name)
        );
        notes.inform(span, &text);
    }
    let into = if is_forward { rank - (count - bucket.count) } else { count - rank };
    let part = into / bucket.count;
    if histogram.is_custom() || (bucket.lower <= 0.0 && bucket.upper >= 0.0) {
        return bucket.lower + (bucket.upper - bucket.lower) * part;
    }
    let (lower, upper) = (bucket.lower.abs().log2(), bucket.upper.abs().log2());
    if bucket.lower > 0.0 {
        return (lower + (upper - lower) * part).exp2();
    }
    -(upper + (lower - upper) * (1.0 - part)).exp2()
}

/// The part of a native histogram's observations between two bounds. After `HistogramFraction` in
/// Prometheus's `promql/quantile.go`.
fn native_fraction(
    lower: f64,
    upper: f64,
    histogram: &Histogram,
    notes: &mut Notes,
    span: Span,
    name: &str,
) -> f64 {
    if histogram.count == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    let buckets = histogram.all_buckets();
    let in_buckets: f64 = buckets.iter().map(|bucket| bucket.count).sum();
    let total = if histogram.sum.is_nan() {
        if in_buckets < histogram.count {
            let text = format!(
                "input to histogram_fraction has NaN observations, which are excluded from all fractions{}",
                of_metric(name)
            );
            notes.inform(span, &text);
        }
        in_buckets
    } else {
        histogram.count
    };
    let rank_of = |value: f64| {
        let mut rank = 0.0;
        for bucket in &buckets {
            let is_zero = bucket.lower <= 0.0 && bucket.upper >= 0.0;
            let mut bucket = if is_zero { one_sided(histogram, *bucket) } else { *bucket };
            if bucket.lower == f64::NEG_INFINITY && bucket.upper > 0.0 && bucket.upper.is_finite() {
                // As with classic histograms, the first bucket begins at zero if it ends above.
                bucket.lower = 0.0;
            }
            if bucket.lower >= value {
                return rank;
            }
            if bucket.upper > value {
                if histogram.is_custom() || is_zero {
                    if bucket.lower == f64::NEG_INFINITY {
                        return bucket.count;
                    }
                    return rank + bucket.count * (value - bucket.lower) / (bucket.upper - bucket.lower);
                }
                let [from, to, at] = [bucket.lower, bucket.upper, value].map(|one| one.abs().log2());
                let part =
                    if value > 0.0 { (at - from) / (to - from) } else { 1.0 - (at - to) / (from - to) };
                return rank + bucket.count * part;
            }
            rank += bucket.count;
        }
        total
    };
    (rank_of(upper).min(total) - rank_of(lower).min(total)) / histogram.count
}
