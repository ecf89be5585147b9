//! Numbers as Go reads and writes them.

use binnacle_model::histogram::short;

/// Powers of ten that a float holds exactly.
const TENS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19, 1e20, 1e21, 1e22,
];

/// The number at `at` and where it ends, which is at the first byte that is `over`; `None` if it is none.
///
/// Most numbers are short: up to fifteen digits, and a power of ten that a float holds. One multiplication or division of
/// two exact floats is rounded once, so that the result is the right one (Clinger, "How to read floating point numbers
/// accurately", 1990).
#[inline]
pub(super) fn value(page: &[u8], at: usize, over: impl Fn(u8) -> bool) -> Option<(f64, usize)> {
    let is_negative = page.get(at) == Some(&b'-');
    let start = at + usize::from(is_negative);
    let (mut digits, mut count, mut point) = (0u64, 0usize, None);
    let mut end = start;
    while let Some(b) = page.get(end) {
        match b {
            b'0'..=b'9' => {
                digits = digits.wrapping_mul(10).wrapping_add(u64::from(b - b'0'));
                count += 1;
            }
            b'.' if point.is_none() => point = Some(count),
            _ => break,
        }
        end += 1;
    }
    let is_over = page.get(end).is_none_or(|b| over(*b));
    if !is_over || count == 0 || count > 15 {
        return general(page, at, over);
    }
    let whole = digits as f64;
    let value = point.map_or(whole, |point| whole / TENS[count - point]);
    Some((if is_negative { -value } else { value }, end))
}

#[cold]
fn general(page: &[u8], at: usize, over: impl Fn(u8) -> bool) -> Option<(f64, usize)> {
    let length = page[at..].iter().position(|b| over(*b)).unwrap_or(page.len() - at);
    let word = &page[at..at + length];
    // As Go did before 1.13, and Prometheus does: no hexadecimal numbers, no underscores.
    if word.iter().any(|b| matches!(b, b'p' | b'P' | b'_')) {
        return None;
    }
    Some((parse_float(word)?, at + length))
}

/// As Go's `ParseFloat`, without underscores.
pub(super) fn parse_float(word: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(word).ok()?;
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if let Some(hex) = unsigned.strip_prefix("0x").or_else(|| unsigned.strip_prefix("0X")) {
        let value = parse_hex_float(hex)?;
        return Some(if text.starts_with('-') { -value } else { value });
    }
    // Rust reads "infinity" and "inf" in any case, as Go does; both read "nan" in any case.
    let is_signed_nan = unsigned.len() < text.len() && unsigned.eq_ignore_ascii_case("nan");
    let value: f64 = if is_signed_nan { return None } else { text.parse().ok()? };
    // A number too large for a float is none.
    let is_named = unsigned.starts_with(['i', 'I']);
    (!value.is_infinite() || is_named).then_some(value)
}

/// `1.8p3` of `0x1.8p3`. Go wants the exponent, and so do we.
fn parse_hex_float(text: &str) -> Option<f64> {
    let (mantissa, exponent) = text.split_once(['p', 'P'])?;
    let exponent: i32 = exponent.parse().ok()?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || digits.len() > 15 {
        return None;
    }
    let value = u64::from_str_radix(&digits, 16).ok()? as f64;
    Some(value * 2f64.powi(exponent.saturating_sub(4 * fraction.len() as i32)))
}

/// The bound of a bucket, or a quantile, as OpenMetrics writes numbers: `1.0`, `0.25`, `1e+06`, `+Inf`.
pub fn format_bound(number: f64) -> String {
    let text = short_of_any(number);
    if text.contains(['e', '.', 'N', 'I']) { text } else { text + ".0" }
}

/// As Go's `%g` with as many digits as it takes: with an exponent from 21 digits on where there are no more digits.
fn short_of_any(number: f64) -> String {
    if number == 0.0 { "0".to_owned() } else { short(number) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<f64> {
        value(text.as_bytes(), 0, |b| b == b' ').map(|(value, _)| value)
    }

    #[test]
    fn short_numbers_are_read_as_long_ones_are() {
        for text in
            ["0", "1", "-1", "0.1", "123456.789", "999999999999999", "0.000000000000001", ".5", "5.", "-0"]
        {
            let want: f64 = text.parse().unwrap();
            assert_eq!(read(text).map(f64::to_bits), Some(want.to_bits()), "{text}");
        }
        assert_eq!(read("1234567890123456789"), Some(1_234_567_890_123_456_789.0));
        assert_eq!(read("1.5e-3 x"), Some(0.0015));
        for text in ["", ".", "-", "1.2.3", "1e", "0x1p4", "1_0", "1e400", "+nan", "one"] {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(read("1e-400"), Some(0.0));
        assert!(read("NaN").unwrap().is_nan());
        assert_eq!(read("-inF"), Some(f64::NEG_INFINITY));
    }

    proptest::proptest! {
        #[test]
        fn every_float_is_read_as_rust_reads_it(bits in proptest::num::u64::ANY, decimals in 0usize..10) {
            let number = f64::from_bits(bits);
            for text in [format!("{number}"), format!("{number:e}"), format!("{:.decimals$}", (bits >> 20) as f64 / 1e3)] {
                if let Some(value) = read(&text) {
                    let want: f64 = text.parse().unwrap();
                    proptest::prop_assert!(value.to_bits() == want.to_bits() || want.is_nan());
                }
            }
        }
    }

    #[test]
    fn bounds_are_written_as_openmetrics_has_them() {
        for (number, want) in [
            (1.0, "1.0"),
            (0.0, "0.0"),
            (-0.0, "0.0"),
            (-1.0, "-1.0"),
            (0.25, "0.25"),
            (1e6, "1e+06"),
            (100_000.0, "100000.0"),
            (1_638_400.0, "1.6384e+06"),
            (1e-5, "1e-05"),
            (f64::INFINITY, "+Inf"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(format_bound(number), want);
        }
    }
}
