//! Sums of many series at all steps at once.

use super::column::is_absent;
use super::over_time::Compensated;

/// A sum for each step, with the error of each addition carried along as [`Compensated`] does: column by column, and
/// without a branch for each value, so that processors add several at once.
pub(super) struct Sums {
    totals: Vec<f64>,
    lost: Vec<f64>,
    seen: Vec<bool>,
    /// Which of the pieces that are added together have a value at every step.
    is_full: Vec<bool>,
}

/// So many are looked at together for absent ones.
const AT_ONCE: usize = 64;

/// Whether a value may be absent, or is not a number anyway. Without a branch for each, so that processors look at
/// several at once.
pub(super) fn has_nan(values: &[f64]) -> bool {
    values.iter().fold(0, |any, value| any | u64::from(value.is_nan())) != 0
}

#[inline(always)]
#[allow(clippy::inline_always, reason = "loops over all values are made of it")]
fn add(total: &mut f64, lost: &mut f64, value: f64) {
    let next = *total + value;
    // What rounding takes from the sum, exactly, whichever of the two is larger (Knuth: "The Art of Computer
    // Programming", volume 2, 4.2.2).
    let added = next - *total;
    let error = (*total - (next - added)) + (value - added);
    *lost = if next.is_infinite() { 0.0 } else { *lost + error };
    *total = next;
}

impl Sums {
    pub(super) fn new(steps: usize) -> Self {
        let is_full = vec![false; steps.div_ceil(AT_ONCE)];
        Self { totals: vec![0.0; steps], lost: vec![0.0; steps], seen: vec![false; steps], is_full }
    }

    /// Adds a value for each step; those that are absent change nothing.
    pub(super) fn add(&mut self, values: &[f64]) {
        let places = self.totals.chunks_mut(AT_ONCE).zip(self.lost.chunks_mut(AT_ONCE));
        let seen = self.seen.chunks_mut(AT_ONCE).zip(&mut self.is_full);
        for (((totals, lost), (seen, is_full)), values) in places.zip(seen).zip(values.chunks(AT_ONCE)) {
            let each = totals.iter_mut().zip(lost).zip(values);
            if has_nan(values) {
                for (((total, lost), value), seen) in each.zip(seen) {
                    add(total, lost, if is_absent(*value) { 0.0 } else { *value });
                    *seen |= !is_absent(*value);
                }
            } else {
                each.for_each(|((total, lost), value)| add(total, lost, *value));
                if !std::mem::replace(is_full, true) {
                    seen.fill(true);
                }
            }
        }
    }

    /// Adds what another one has.
    pub(super) fn merge(&mut self, other: &Self) {
        for (step, _) in other.seen.iter().enumerate().filter(|(_, seen)| **seen) {
            let mut total = Compensated { sum: self.totals[step], lost: self.lost[step] };
            total.merge(Compensated { sum: other.totals[step], lost: other.lost[step] });
            (self.totals[step], self.lost[step], self.seen[step]) = (total.sum, total.lost, true);
        }
    }

    /// `None` if the step has no value.
    pub(super) fn total(&self, step: usize) -> Option<f64> {
        self.seen[step].then(|| Compensated { sum: self.totals[step], lost: self.lost[step] }.total())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::column::ABSENT;
    use super::*;

    fn value() -> impl Strategy<Value = f64> {
        prop_oneof![
            8 => -1e6..1e6f64,
            2 => (any::<i8>(), -300i32..300).prop_map(|(digits, power)| f64::from(digits) * 10f64.powi(power)),
            2 => Just(ABSENT),
            1 => prop_oneof![Just(f64::INFINITY), Just(f64::NEG_INFINITY), Just(f64::NAN), Just(-0.0), Just(f64::MAX)],
        ]
    }

    proptest! {
        /// Series by series comes to what each step by itself does.
        #[test]
        fn columns_are_added_as_single_values_are(
            series in proptest::collection::vec(proptest::collection::vec(value(), 5), 0..12), cut in 0usize..12,
        ) {
            let cut = cut.min(series.len());
            let added = |series: &[Vec<f64>]| {
                let mut sums = Sums::new(5);
                series.iter().for_each(|values| sums.add(values));
                sums
            };
            let (whole, mut first, second) = (added(&series), added(&series[..cut]), added(&series[cut..]));
            first.merge(&second);
            for step in 0..5 {
                let at_step = |series: &[Vec<f64>]| {
                    let there = series.iter().map(|values| values[step]).filter(|value| !is_absent(*value));
                    there.fold(None, |total: Option<Compensated>, value| {
                        let mut total = total.unwrap_or_default();
                        total.add(value);
                        Some(total)
                    })
                };
                let bits = |total: Option<f64>| total.map(|total| if total.is_nan() { 1 } else { total.to_bits() });
                prop_assert_eq!(bits(whole.total(step)), bits(at_step(&series).map(Compensated::total)));
                let merged = match (at_step(&series[..cut]), at_step(&series[cut..])) {
                    (Some(mut first), Some(second)) => {
                        first.merge(second);
                        Some(first)
                    }
                    (first, second) => first.or(second),
                };
                prop_assert_eq!(bits(first.total(step)), bits(merged.map(Compensated::total)));
            }
        }
    }
}
