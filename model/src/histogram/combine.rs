//! Two histograms as one: sums, differences, and whether one can follow the other.

use std::sync::Arc;

use super::{Histogram, ResetHint};

/// One has exponential bounds, the other lists its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("histograms with exponential and custom buckets cannot be combined")]
pub struct IncompatibleSchemas;

/// What was done so that two histograms fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Combined {
    /// One said its counter was reset, the other that it was not.
    pub collision: bool,
    /// Custom bounds differed; those that both have were kept.
    pub reconciled: bool,
}

impl Combined {
    /// Both at once.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { collision: self.collision || other.collision, reconciled: self.reconciled || other.reconciled }
    }
}

impl Histogram {
    /// Adds another one. What both can hold is kept: the coarser schema, the wider zero bucket.
    pub fn add(&mut self, other: &Self) -> Result<Combined, IncompatibleSchemas> {
        self.combine(other, |a, b| a + b)
    }

    /// Subtracts another one, as [`Self::add`] adds.
    pub fn subtract(&mut self, other: &Self) -> Result<Combined, IncompatibleSchemas> {
        self.combine(other, |a, b| a - b)
    }

    /// Adds another one, and gathers in `lost` what the additions round away (Neumaier).
    pub fn add_compensated(
        &mut self,
        other: &Self,
        lost: &mut Self,
    ) -> Result<Combined, IncompatibleSchemas> {
        let mut other = other.clone();
        let combined = self.align(&mut other)?;
        // The third fits the first two before anything is added.
        lost.hint = self.hint;
        self.align(lost)?;
        self.align(&mut other)?;
        let mut rounded = Self { zero_count: 0.0, count: 0.0, sum: 0.0, ..self.clone() };
        let error = |a: f64, b: f64| {
            let sum = a + b;
            match () {
                () if sum.is_infinite() => 0.0,
                () if a.abs() >= b.abs() => (a - sum) + b,
                () => (b - sum) + a,
            }
        };
        rounded.zero_count = error(self.zero_count, other.zero_count);
        rounded.count = error(self.count, other.count);
        rounded.sum = error(self.sum, other.sum);
        rounded.positive = self.positive.joined(&other.positive, error);
        rounded.negative = self.negative.joined(&other.negative, error);
        self.join(&other, |a, b| a + b);
        lost.join(&rounded, |a, b| a + b);
        Ok(combined)
    }

    fn combine(
        &mut self,
        other: &Self,
        join: impl Fn(f64, f64) -> f64 + Copy,
    ) -> Result<Combined, IncompatibleSchemas> {
        if self.schema == other.schema
            && self.bounds == other.bounds
            && self.zero_threshold == other.zero_threshold
        {
            let collision = self.take_hint(other.hint);
            self.join(other, join);
            return Ok(Combined { collision, reconciled: false });
        }
        let mut other = other.clone();
        let combined = self.align(&mut other)?;
        self.join(&other, join);
        Ok(combined)
    }

    /// Joins counts of two histograms with the same layout.
    fn join(&mut self, other: &Self, join: impl Fn(f64, f64) -> f64 + Copy) {
        self.zero_count = join(self.zero_count, other.zero_count);
        self.count = join(self.count, other.count);
        self.sum = join(self.sum, other.sum);
        self.positive = self.positive.joined(&other.positive, join);
        self.negative = self.negative.joined(&other.negative, join);
    }

    /// Gives both the layout that both can have, and this one the hint of the two.
    fn align(&mut self, other: &mut Self) -> Result<Combined, IncompatibleSchemas> {
        if self.is_custom() != other.is_custom() {
            return Err(IncompatibleSchemas);
        }
        let collision = self.take_hint(other.hint);
        if self.is_custom() {
            let reconciled = self.bounds != other.bounds;
            if reconciled {
                let common: Arc<[f64]> =
                    self.bounds.iter().copied().filter(|bound| other.bounds.contains(bound)).collect();
                self.rebound(&common);
                other.rebound(&common);
            }
            return Ok(Combined { collision, reconciled });
        }
        while self.zero_threshold != other.zero_threshold {
            let wider = self.zero_threshold.max(other.zero_threshold);
            self.widen_zero(wider);
            other.widen_zero(wider);
        }
        let schema = self.schema.min(other.schema);
        self.reduce(schema);
        other.reduce(schema);
        Ok(Combined { collision, reconciled: false })
    }

    /// Answers whether the two contradict each other.
    fn take_hint(&mut self, other: ResetHint) -> bool {
        use ResetHint::{Gauge, NotReset, Reset, Unknown};
        let collides = matches!((self.hint, other), (Reset, NotReset) | (NotReset, Reset));
        self.hint = match (self.hint, other) {
            (a, b) if a == b => a,
            (Gauge, _) | (_, Gauge) => Gauge,
            _ => Unknown,
        };
        collides
    }

    /// Lowers the resolution.
    pub fn reduce(&mut self, schema: i32) {
        let shift = self.schema - schema;
        if shift <= 0 || self.is_custom() {
            return;
        }
        let to = |index: i32| ((index - 1) >> shift) + 1;
        self.positive = self.positive.moved(to);
        self.negative = self.negative.moved(to);
        self.schema = schema;
    }

    /// Moves counts to other custom bounds, all of which it must have.
    fn rebound(&mut self, bounds: &Arc<[f64]>) {
        let own = Arc::clone(&self.bounds);
        self.positive = self.positive.moved(|index| {
            let upper = own.get(index as usize).copied().unwrap_or(f64::INFINITY);
            bounds.partition_point(|bound| *bound < upper) as i32
        });
        self.bounds = Arc::clone(bounds);
    }

    /// Widens the zero bucket to `threshold`, or further, to the end of a bucket that holds something.
    fn widen_zero(&mut self, threshold: f64) {
        if threshold <= self.zero_threshold {
            return;
        }
        let (threshold, count) = self.wider_zero(threshold);
        self.zero_threshold = threshold;
        self.zero_count = count;
        let inside = |bucket: &super::Bucket| bucket.upper.abs().max(bucket.lower.abs()) <= threshold;
        let positive = self.positive_buckets().take_while(inside).count();
        self.positive.drop_first(positive);
        let negative = self.negative_buckets().take_while(inside).count();
        self.negative.drop_first(negative);
    }

    /// The threshold that does not cut a bucket with something in it, and what lies within.
    fn wider_zero(&self, threshold: f64) -> (f64, f64) {
        let mut threshold = threshold;
        loop {
            let mut count = self.zero_count;
            let mut reaches = threshold;
            let sides = self.positive_buckets().map(|b| (b.lower, b.upper, b.count));
            let mirrored = self.negative_buckets().map(|b| (-b.upper, -b.lower, b.count));
            for (near, far, inside) in sides.chain(mirrored) {
                if near < threshold && inside != 0.0 {
                    count += inside;
                    reaches = reaches.max(far);
                }
            }
            if reaches == threshold {
                return (threshold, count);
            }
            threshold = reaches;
        }
    }

    /// Whether the counter behind `before` must have begun again to show this.
    pub fn is_reset_since(&self, before: &Self) -> bool {
        match self.hint {
            ResetHint::Reset => return true,
            ResetHint::NotReset => return false,
            ResetHint::Unknown | ResetHint::Gauge => {}
        }
        if self.count < before.count || self.is_custom() != before.is_custom() {
            return true;
        }
        let (mut now, mut then) = (self.clone(), before.clone());
        if self.is_custom() {
            // Bounds that both have are compared.
            let _ = now.align(&mut then);
            return has_shrunk(&now.positive, &then.positive);
        }
        if self.schema > before.schema || self.zero_threshold < before.zero_threshold {
            return true;
        }
        if self.zero_threshold > before.zero_threshold {
            let (threshold, _) = before.wider_zero(self.zero_threshold);
            if threshold != self.zero_threshold {
                // The zero bucket would cut one that held something.
                return true;
            }
            then.widen_zero(threshold);
        }
        then.reduce(now.schema);
        now.zero_count < then.zero_count
            || has_shrunk(&now.positive, &then.positive)
            || has_shrunk(&now.negative, &then.negative)
    }
}

fn has_shrunk(now: &super::Buckets, then: &super::Buckets) -> bool {
    then.populated().any(|(index, count)| now.get(index).is_none_or(|now| now < count))
}
