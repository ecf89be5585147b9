//! Logarithms as Go computes them, to the last bit: of values that are equal there, none must be smaller here.
//!
//! `ln(2^k · (1 + f)) = k · ln 2 + 2 atanh(f / (2 + f))`, the series of the latter cut to fdlibm's seven terms, and
//! every sum in fdlibm's order.

use std::f64::consts::{FRAC_1_SQRT_2, LOG2_E, LOG10_2};

/// The logarithm of two, in two parts of which the first has zeros at its end.
const LN_2_HIGH: f64 = f64::from_bits(0x3fe6_2e42_fee0_0000);
const LN_2_LOW: f64 = f64::from_bits(0x3dea_39ef_3579_3c76);

/// fdlibm's coefficients, of odd and of even powers.
const ODD: [f64; 4] = [
    6.666_666_666_666_735e-1,
    2.857_142_874_366_239e-1,
    1.818_357_216_161_805e-1,
    1.479_819_860_511_658_6e-1,
];
const EVEN: [f64; 3] = [3.999_999_999_940_942e-1, 2.222_219_843_214_978_4e-1, 1.531_383_769_920_937_3e-1];

/// `x` as a fraction in `[0.5, 1)` and a power of two; zero, infinities and NaN as they are.
fn split(x: f64) -> (f64, i32) {
    if x == 0.0 || !x.is_finite() {
        return (x, 0);
    }
    // What is subnormal is moved into the range of the others first.
    let (x, moved) = if x.abs() < f64::MIN_POSITIVE { (x * 2f64.powi(52), -52) } else { (x, 0) };
    let bits = x.to_bits();
    let exponent = (bits >> 52 & 0x7ff) as i32 - 1022;
    (f64::from_bits(bits & !(0x7ff << 52) | 1022 << 52), exponent + moved)
}

/// Go's `math.Log`.
pub(super) fn ln(x: f64) -> f64 {
    if x.is_nan() || x == f64::INFINITY {
        return x;
    }
    if x <= 0.0 {
        return if x == 0.0 { f64::NEG_INFINITY } else { f64::NAN };
    }
    let (mut fraction, mut exponent) = split(x);
    if fraction < FRAC_1_SQRT_2 {
        fraction *= 2.0;
        exponent -= 1;
    }
    let (f, k) = (fraction - 1.0, f64::from(exponent));
    let s = f / (2.0 + f);
    let (s2, s4) = (s * s, (s * s) * (s * s));
    let odd = s2 * (ODD[0] + s4 * (ODD[1] + s4 * (ODD[2] + s4 * ODD[3])));
    let even = s4 * (EVEN[0] + s4 * (EVEN[1] + s4 * EVEN[2]));
    let half = 0.5 * f * f;
    k * LN_2_HIGH - ((half - (s * (half + (odd + even)) + k * LN_2_LOW)) - f)
}

/// Go's `math.Log2`: exact for powers of two.
pub(super) fn log2(x: f64) -> f64 {
    let (fraction, exponent) = split(x);
    if fraction == 0.5 {
        return f64::from(exponent - 1);
    }
    ln(fraction) * LOG2_E + f64::from(exponent)
}

/// Go's `math.Log10`.
pub(super) fn log10(x: f64) -> f64 {
    log2(x) * LOG10_2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_are_near_those_of_the_machine_and_exact_where_they_can_be() {
        for exponent in -1074..1024i32 {
            let bits =
                if exponent < -1022 { 1 << (exponent + 1074) } else { ((exponent + 1023) as u64) << 52 };
            assert_eq!(log2(f64::from_bits(bits)), f64::from(exponent));
        }
        for x in [5e-324, 1e-310, 0.1, 0.7, 1.5, 10.0, 12345.678, 1e300] {
            assert!((ln(x) - x.ln()).abs() <= 4.0 * f64::EPSILON * x.ln().abs(), "{x}");
            assert!((log2(x) - x.log2()).abs() <= 1e-12 * x.log2().abs(), "{x}");
            assert!((log10(x) - x.log10()).abs() <= 1e-12 * x.log10().abs(), "{x}");
        }
        assert_eq!((log2(0.0), log10(f64::INFINITY)), (f64::NEG_INFINITY, f64::INFINITY));
        assert!(ln(-1.0).is_nan() && ln(1.0) == 0.0 && log2(-1.0).is_nan() && log10(f64::NAN).is_nan());
    }

    proptest::proptest! {
        #[test]
        fn a_number_is_its_fraction_and_power(bits: u64) {
            let x = f64::from_bits(bits);
            if x.is_finite() && x != 0.0 {
                let (fraction, exponent) = split(x);
                proptest::prop_assert!((0.5..1.0).contains(&fraction.abs()));
                let half = exponent / 2;
                proptest::prop_assert_eq!(fraction * 2f64.powi(half) * 2f64.powi(exponent - half), x);
            }
        }
    }
}
