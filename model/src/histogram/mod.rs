//! Native histograms: counts in buckets whose bounds follow from a schema.
//!
//! ```text
//!        negative             zero              positive
//!  ◄─[-b2,-b1)─[-b1,-b0)─[-threshold, threshold]─(b0,b1]─(b1,b2]─►      b(i) = 2^(i / 2^schema)
//! ```
//!
//! With [`CUSTOM_SCHEMA`] the bounds are listed, there are only "positive" buckets, and the last one ends
//! at infinity. Semantics follow Prometheus's native histograms (`model/histogram`).
//!
//! Invariants:
//! - Indexes of buckets ascend; a bucket that is not listed is empty.
//! - Counts are floats: what PromQL computes with them may be fractions, and negative.

mod buckets;
mod combine;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

pub use buckets::{Bucket, Buckets};
pub use combine::{Combined, IncompatibleSchemas};

use crate::sample::STALE_NAN;

/// The schema of histograms that list their bounds.
pub const CUSTOM_SCHEMA: i32 = -53;

/// Schemas with exponential bounds, coarsest and finest.
const SCHEMA_MIN: i32 = -4;
const SCHEMA_MAX: i32 = 8;

/// Buckets of one histogram; a finest schema over all floats has some 500,000, of which nobody uses more.
const BUCKETS_MAX: usize = 65_536;

/// The finest schema needs some 2^18 on either side of zero for all floats.
const INDEX_MAX: u32 = 1 << 20;

/// What is known of the counter behind a histogram since the sample before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ResetHint {
    /// Nothing: compare the buckets.
    #[default]
    Unknown,
    /// It began again.
    Reset,
    /// It went on.
    NotReset,
    /// It is no counter.
    Gauge,
}

/// A native histogram.
#[derive(Debug, Clone, Default)]
pub struct Histogram {
    /// See [`ResetHint`].
    pub hint: ResetHint,
    /// `-4..=8`, or [`CUSTOM_SCHEMA`].
    pub schema: i32,
    /// Half the width of the zero bucket.
    pub zero_threshold: f64,
    /// Observations in it.
    pub zero_count: f64,
    /// All observations, NaN among them.
    pub count: f64,
    /// Their sum; the staleness marker ends a series.
    pub sum: f64,
    /// Observations above the zero bucket; all of them, with [`CUSTOM_SCHEMA`].
    pub positive: Buckets,
    /// Observations below it, by absolute value.
    pub negative: Buckets,
    /// Upper bounds, ascending and finite, of [`CUSTOM_SCHEMA`].
    pub bounds: Arc<[f64]>,
}

/// Equal in everything that was observed; the hint and empty buckets do not count.
impl PartialEq for Histogram {
    fn eq(&self, other: &Self) -> bool {
        let same = |a: f64, b: f64| a.to_bits() == b.to_bits() || a == b;
        self.schema == other.schema
            && same(self.zero_threshold, other.zero_threshold)
            && same(self.zero_count, other.zero_count)
            && same(self.count, other.count)
            && same(self.sum, other.sum)
            && self.bounds == other.bounds
            && self.positive.populated().eq(other.positive.populated())
            && self.negative.populated().eq(other.negative.populated())
    }
}

impl Histogram {
    /// The marker that a series of histograms has ended.
    pub fn stale() -> Self {
        Self { sum: STALE_NAN, ..Self::default() }
    }

    /// Whether it is the staleness marker.
    pub fn is_stale(&self) -> bool {
        crate::sample::is_stale(self.sum)
    }

    /// Whether its bounds are listed.
    pub fn is_custom(&self) -> bool {
        self.schema == CUSTOM_SCHEMA
    }

    /// What a foreign histogram must fulfil before anything computes with it.
    ///
    /// # Errors
    /// The reason why it is none.
    pub fn validate(&self) -> Result<(), String> {
        if !self.is_custom() && !(SCHEMA_MIN..=SCHEMA_MAX).contains(&self.schema) {
            return Err(format!("histogram schema {} is unknown", self.schema));
        }
        for buckets in [&self.positive, &self.negative] {
            let far = |index: &i32| index.unsigned_abs() > INDEX_MAX;
            if buckets.indexes().iter().any(far) {
                return Err("histogram has a bucket beyond any number".to_owned());
            }
            if buckets.len() > BUCKETS_MAX {
                return Err(format!("histogram has more than {BUCKETS_MAX} buckets"));
            }
            if buckets.counts().iter().any(|count| *count < 0.0) {
                return Err("histogram has a bucket with a negative count".to_owned());
            }
        }
        if self.zero_count < 0.0 || self.count < 0.0 {
            return Err("histogram has a negative count".to_owned());
        }
        if self.is_custom() {
            return self.validate_custom();
        }
        if !self.bounds.is_empty() {
            return Err("histogram with exponential buckets lists bounds".to_owned());
        }
        if self.zero_threshold < 0.0 || !self.zero_threshold.is_finite() {
            return Err("histogram has an impossible zero threshold".to_owned());
        }
        Ok(())
    }

    fn validate_custom(&self) -> Result<(), String> {
        let ascends = self.bounds.is_sorted_by(|a, b| a < b);
        if !ascends || self.bounds.iter().any(|bound| !bound.is_finite()) {
            return Err("custom bounds of a histogram must ascend and be finite".to_owned());
        }
        if self.bounds.len() > BUCKETS_MAX {
            return Err(format!("histogram has more than {BUCKETS_MAX} custom bounds"));
        }
        if !self.negative.is_empty() || self.zero_count != 0.0 || self.zero_threshold != 0.0 {
            return Err("histogram with custom bounds has a zero bucket or negative ones".to_owned());
        }
        let inside = |index: &i32| usize::try_from(*index).is_ok_and(|index| index <= self.bounds.len());
        if !self.positive.indexes().iter().all(inside) {
            return Err("histogram has more buckets than custom bounds".to_owned());
        }
        Ok(())
    }

    /// The zero bucket.
    pub fn zero_bucket(&self) -> Bucket {
        Bucket {
            lower: -self.zero_threshold,
            upper: self.zero_threshold,
            lower_inclusive: true,
            upper_inclusive: true,
            count: self.zero_count,
        }
    }

    /// The positive buckets, ascending.
    pub fn positive_buckets(&self) -> impl DoubleEndedIterator<Item = Bucket> + '_ {
        self.positive.iter().map(|(index, count)| self.positive_bucket(index, count))
    }

    fn positive_bucket(&self, index: i32, count: f64) -> Bucket {
        if self.is_custom() {
            let place = index as usize;
            let lower =
                place.checked_sub(1).and_then(|at| self.bounds.get(at)).copied().unwrap_or(f64::NEG_INFINITY);
            let upper = self.bounds.get(place).copied().unwrap_or(f64::INFINITY);
            let lower_inclusive = lower == f64::NEG_INFINITY;
            return Bucket { lower, upper, lower_inclusive, upper_inclusive: true, count };
        }
        let (lower, upper) = (bound(index - 1, self.schema), bound(index, self.schema));
        Bucket { lower, upper, lower_inclusive: false, upper_inclusive: true, count }
    }

    /// The negative buckets, away from zero.
    pub fn negative_buckets(&self) -> impl DoubleEndedIterator<Item = Bucket> + '_ {
        self.negative.iter().map(|(index, count)| {
            let (lower, upper) = (-bound(index, self.schema), -bound(index - 1, self.schema));
            Bucket { lower, upper, lower_inclusive: true, upper_inclusive: false, count }
        })
    }

    /// All buckets, ascending; those beside the zero bucket end where it begins.
    pub fn all_buckets(&self) -> Vec<Bucket> {
        let threshold = self.zero_threshold;
        let negative = self.negative_buckets().rev().map(|mut bucket| {
            bucket.upper = bucket.upper.min(-threshold).max(bucket.lower);
            bucket
        });
        let zero = (self.zero_count > 0.0).then(|| self.zero_bucket());
        let is_custom = self.is_custom();
        let positive = self.positive_buckets().map(|mut bucket| {
            if !is_custom {
                bucket.lower = bucket.lower.max(threshold).min(bucket.upper);
            }
            bucket
        });
        negative.chain(zero).chain(positive).collect()
    }

    /// Multiplies every count and the sum.
    pub fn scale(&mut self, factor: f64) {
        self.each(|value| *value *= factor);
        if factor < 0.0 {
            self.hint = ResetHint::Gauge;
        }
    }

    /// Divides every count and the sum. Division by zero follows IEEE 754; buckets are gone then.
    pub fn divide(&mut self, divisor: f64) {
        self.each(|value| *value /= divisor);
        if divisor == 0.0 {
            self.positive = Buckets::default();
            self.negative = Buckets::default();
        }
        if divisor < 0.0 {
            self.hint = ResetHint::Gauge;
        }
    }

    fn each(&mut self, mut change: impl FnMut(&mut f64)) {
        change(&mut self.zero_count);
        change(&mut self.count);
        change(&mut self.sum);
        self.positive.counts_mut().iter_mut().for_each(&mut change);
        self.negative.counts_mut().iter_mut().for_each(&mut change);
    }

    /// Whether a count or the sum is too large for a float.
    pub fn has_overflow(&self) -> bool {
        let counts = self.positive.counts().iter().chain(self.negative.counts());
        let all = [self.zero_count, self.count, self.sum];
        counts.chain(&all).any(|value| value.is_infinite())
    }

    /// Forgets empty buckets.
    pub fn compact(&mut self) {
        self.positive.compact();
        self.negative.compact();
    }

    /// How many samples it counts as in a query's budget.
    pub fn size_in_samples(&self) -> usize {
        // Of 16 bytes each: the header, and index and count of every bucket.
        6 + self.positive.len() + self.negative.len()
    }
}

/// The upper bound of an exponential bucket.
fn bound(index: i32, schema: i32) -> f64 {
    if schema < 0 {
        let exponent = i64::from(index) << -schema;
        return power_of_two(exponent).min(f64::MAX);
    }
    let parts = 1i32 << schema;
    let fraction = f64::from(index.rem_euclid(parts)) / f64::from(parts);
    let whole = i64::from(index.div_euclid(parts));
    if whole > 1023 {
        return f64::MAX;
    }
    fraction.exp2() * power_of_two(whole)
}

/// `2^exponent`, exactly, zero or infinite beyond what a float holds.
fn power_of_two(exponent: i64) -> f64 {
    match exponent {
        1024.. => f64::INFINITY,
        -1022..=1023 => f64::from_bits(((exponent + 1023) as u64) << 52),
        -1074..=-1023 => f64::from_bits(1 << (exponent + 1074)),
        _ => 0.0,
    }
}

/// As Prometheus writes histograms: `{count:4, sum:5, (0.5,1]:1, (1,2]:3}`.
impl fmt::Display for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{count:{}, sum:{}", short(self.count), short(self.sum))?;
        let zero = (self.zero_count != 0.0).then(|| self.zero_bucket());
        let buckets = self.negative_buckets().rev().chain(zero).chain(self.positive_buckets());
        for bucket in buckets.filter(|bucket| bucket.count != 0.0) {
            write!(f, ", {bucket}")?;
        }
        f.write_str("}")
    }
}

/// A float as Go's `%g` writes it: with an exponent from a million on and below a ten-thousandth.
pub fn short(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if value == 0.0 || (-4..6).contains(&exponent) {
        return format!("{value}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}
