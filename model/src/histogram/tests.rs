use proptest::prelude::*;

use super::*;

fn exponential(schema: i32, zero: (f64, f64), positive: &[(i32, f64)], negative: &[(i32, f64)]) -> Histogram {
    let total = |buckets: &[(i32, f64)]| buckets.iter().map(|(_, count)| count).sum::<f64>();
    Histogram {
        schema,
        zero_threshold: zero.0,
        zero_count: zero.1,
        count: zero.1 + total(positive) + total(negative),
        sum: 1.0,
        positive: positive.iter().copied().collect(),
        negative: negative.iter().copied().collect(),
        ..Histogram::default()
    }
}

fn custom(bounds: &[f64], counts: &[(i32, f64)]) -> Histogram {
    let count = counts.iter().map(|(_, count)| count).sum();
    let positive = counts.iter().copied().collect();
    Histogram { schema: CUSTOM_SCHEMA, count, positive, bounds: bounds.into(), ..Histogram::default() }
}

#[test]
fn bounds_are_powers_of_two() {
    assert_eq!((bound(0, 0), bound(1, 0), bound(-1, 0)), (1.0, 2.0, 0.5));
    assert_eq!((bound(1, -1), bound(2, -2)), (4.0, 256.0));
    assert!((bound(1, 1) - 2f64.sqrt()).abs() < 1e-15);
    assert_eq!(bound(1024, 0), f64::MAX);
    assert_eq!(bound(-1074, 0), f64::from_bits(1));
    assert_eq!(bound(-2000, 0), 0.0);
}

#[test]
fn buckets_know_their_bounds() {
    let one = exponential(0, (0.001, 2.0), &[(0, 1.0), (2, 3.0)], &[(1, 4.0)]);
    assert_eq!(one.to_string(), "{count:10, sum:1, [-2,-1):4, [-0.001,0.001]:2, (0.5,1]:1, (2,4]:3}");
    let one = custom(&[5.0, 10.0], &[(0, 1.0), (2, 2.0)]);
    assert_eq!(one.to_string(), "{count:3, sum:0, [-Inf,5]:1, (10,+Inf]:2}");
}

#[test]
fn sums_take_the_coarser_layout() {
    let mut sum = exponential(1, (0.0, 0.0), &[(1, 1.0), (2, 2.0), (3, 4.0)], &[]);
    sum.add(&exponential(0, (0.0, 0.0), &[(1, 10.0)], &[(1, 1.0)])).unwrap();
    assert_eq!(sum, exponential(0, (0.0, 0.0), &[(1, 13.0), (2, 4.0)], &[(1, 1.0)]).with_sum(2.0));
    // A zero bucket that would cut a populated one takes it whole.
    let mut sum = exponential(0, (0.0, 1.0), &[(0, 2.0), (3, 4.0)], &[(0, 8.0)]);
    sum.add(&exponential(0, (0.75, 1.0), &[(3, 1.0)], &[])).unwrap();
    assert_eq!(sum, exponential(0, (1.0, 12.0), &[(3, 5.0)], &[]).with_sum(2.0));
}

#[test]
fn custom_bounds_that_differ_are_intersected() {
    let mut sum = custom(&[1.0, 2.0, 5.0], &[(0, 1.0), (1, 2.0), (2, 3.0), (3, 4.0)]);
    let combined = sum.add(&custom(&[2.0, 3.0], &[(0, 10.0), (1, 20.0), (2, 30.0)])).unwrap();
    assert!(combined.reconciled);
    assert_eq!(sum, custom(&[2.0], &[(0, 13.0), (1, 57.0)]));
    assert_eq!(sum.add(&exponential(0, (0.0, 0.0), &[], &[])), Err(IncompatibleSchemas));
}

#[test]
fn buckets_beyond_any_number_are_refused() {
    assert_eq!(exponential(8, (0.0, 0.0), &[(-262_144, 1.0), (262_144, 1.0)], &[]).validate(), Ok(()));
    for index in [i32::MIN, i32::MAX] {
        assert!(exponential(1, (0.0, 0.0), &[(index, 1.0)], &[]).validate().is_err(), "{index}");
    }
}

#[test]
fn resets_are_seen_in_any_bucket() {
    let before = exponential(1, (0.01, 1.0), &[(1, 1.0), (2, 2.0)], &[(1, 1.0)]);
    let mut after = before.clone();
    assert!(!after.is_reset_since(&before));
    after.positive.counts_mut()[0] = 0.5;
    after.count += 10.0;
    assert!(after.is_reset_since(&before));
    after.hint = ResetHint::NotReset;
    assert!(!after.is_reset_since(&before), "the hint knows better");
    let coarser = exponential(0, (0.01, 1.0), &[(1, 3.0)], &[(1, 1.0)]);
    assert!(!coarser.is_reset_since(&before));
    assert!(before.is_reset_since(&coarser), "a schema never gets finer without a reset");
    assert!(exponential(1, (1.7, 5.0), &[], &[]).is_reset_since(&before), "it would cut a bucket");
    assert!(!custom(&[1.0, 2.0], &[(0, 2.0)]).is_reset_since(&custom(&[1.0], &[(0, 2.0)])));
    assert!(custom(&[1.0, 2.0], &[(1, 3.0)]).is_reset_since(&custom(&[1.0], &[(0, 2.0)])));
}

#[test]
fn numbers_are_short_as_in_go() {
    for (value, want) in [
        (0.0, "0"),
        (5.0, "5"),
        (123_456.0, "123456"),
        (1_000_000.0, "1e+06"),
        (1.5e-5, "1.5e-05"),
        (0.0001, "0.0001"),
        (f64::INFINITY, "+Inf"),
    ] {
        assert_eq!(short(value), want);
    }
}

impl Histogram {
    fn with_sum(mut self, sum: f64) -> Self {
        self.sum = sum;
        self
    }
}

fn histogram() -> impl Strategy<Value = Histogram> {
    let buckets = || proptest::collection::btree_map(-20i32..20, 0u8..9, 0..6);
    (-2i32..4, prop_oneof![Just(0.0), Just(0.5), Just(3.0)], 0u8..9, buckets(), buckets()).prop_map(
        |(schema, threshold, zero, positive, negative)| {
            let floats = |map: std::collections::BTreeMap<i32, u8>| {
                map.into_iter().map(|(index, count)| (index, f64::from(count))).collect::<Vec<_>>()
            };
            exponential(schema, (threshold, f64::from(zero)), &floats(positive), &floats(negative))
        },
    )
}

proptest! {
    /// No observation is lost or made, whatever layouts meet, and the order does not matter.
    #[test]
    fn addition_keeps_every_observation(a in histogram(), b in histogram()) {
        let total = |h: &Histogram| {
            h.zero_count + h.positive.counts().iter().chain(h.negative.counts()).sum::<f64>()
        };
        let (mut ab, mut ba) = (a.clone(), b.clone());
        ab.add(&b).unwrap();
        ba.add(&a).unwrap();
        prop_assert_eq!(total(&ab), total(&a) + total(&b));
        prop_assert_eq!(ab.count, total(&ab));
        prop_assert_eq!(&ab, &ba);
        let mut lost = exponential(a.schema, (a.zero_threshold, 0.0), &[], &[]);
        lost.sum = 0.0;
        let mut sum = a.clone();
        sum.add_compensated(&b, &mut lost).unwrap();
        prop_assert_eq!(&sum, &ab);
        ab.subtract(&b).unwrap();
        prop_assert_eq!(total(&ab), total(&a));
        prop_assert!(!ba.is_reset_since(&a) || a.schema < b.schema || a.zero_threshold != b.zero_threshold);
    }
}
