//! Columns of values: whichever code is the smallest.
//!
//! ```text
//! column   := 0 bits:u64                                  all equal, bit for bit
//!           | 1 decimals mantissa:zigzag                  all equal, a decimal number
//!           | 2 bits:u64 xor*                             XOR with the value before, see `bits.rs`
//!           | 3 decimals gcd:varint special* pco          decimal numbers
//! decimals := u8                                          a value is mantissa / 10^decimals
//! special* := count:varint (place:varint bits:u64)*       values that are no such number; places as
//!                                                         differences, the first one to -1
//! pco      := (mantissa / gcd) as 64-bit integers, one wrapped chunk of one page of pco's format 4.1
//! ```
//!
//! How many values there are stands in the column of times. What people measure has few decimals, and
//! integers pack far better than the floats that hold them; the way back is one division, which IEEE 754
//! rounds to the same bits, and the encoder checks each.

use pco::wrapped::{FileCompressor, FileDecompressor};
use pco::{ChunkConfig, DeltaSpec, ModeSpec};

use super::COLUMN_MAX_SAMPLES;
use super::bits::{BitReader, BitWriter, Window};
use crate::bytes::{Reader, put_varint, put_zigzag};

const CONSTANT: u8 = 0;
const CONSTANT_DECIMAL: u8 = 1;
const XOR: u8 = 2;
const DECIMALS: u8 = 3;

/// Powers of ten that a float holds exactly, as far as a mantissa of 51 bits can use them.
const POWERS: [f64; 17] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16];

/// Adding and subtracting it rounds a float below 2^51 to the nearest integer.
const ROUNDER: f64 = 6_755_399_441_055_744.0;

const MANTISSA_MAX: f64 = (1u64 << 50) as f64;

/// Below this, the head of a pco chunk costs more than it saves.
const PCO_MIN_VALUES: usize = 24;

/// Level 8 is 1 % smaller and takes twice the time.
const PCO_LEVEL: usize = 4;

/// The version that pco would write in front of every chunk.
const PCO_VERSION: &[u8] = &[4, 1];

/// Encodes at most [`COLUMN_MAX_SAMPLES`] values, quickly: XOR, unless all are equal.
pub(crate) fn encode_fast(values: &[f64]) -> Vec<u8> {
    constant(values).unwrap_or_else(|| xor(values))
}

/// Encodes at most [`COLUMN_MAX_SAMPLES`] values in as few bytes as we know how.
pub(crate) fn encode_small(values: &[f64]) -> Vec<u8> {
    debug_assert!(values.len() <= COLUMN_MAX_SAMPLES, "the reader refuses more");
    if let Some(constant) = constant(values) {
        return constant;
    }
    let xor = xor(values);
    if values.len() < PCO_MIN_VALUES {
        return xor;
    }
    match decimals(values) {
        Some(decimals) if decimals.len() < xor.len() => decimals,
        _ => xor,
    }
}

fn constant(values: &[f64]) -> Option<Vec<u8>> {
    let first = *values.first()?;
    if values.iter().any(|value| value.to_bits() != first.to_bits()) {
        return None;
    }
    let mut out = Vec::with_capacity(9);
    if let Some((decimals, mantissa)) = (0..POWERS.len()).find_map(|d| Some((d, mantissa(first, d)?))) {
        out.extend_from_slice(&[CONSTANT_DECIMAL, decimals as u8]);
        put_zigzag(&mut out, mantissa);
        if out.len() <= 9 {
            return Some(out);
        }
        out.clear();
    }
    out.push(CONSTANT);
    out.extend_from_slice(&first.to_bits().to_le_bytes());
    Some(out)
}

fn xor(values: &[f64]) -> Vec<u8> {
    let mut out = Vec::with_capacity(16 + values.len());
    out.push(XOR);
    let mut before = values.first().map_or(0, |value| value.to_bits());
    out.extend_from_slice(&before.to_le_bytes());
    let mut bits = BitWriter::behind(out);
    let mut window = Window::NONE;
    for value in values.iter().skip(1) {
        window.write(&mut bits, before ^ value.to_bits());
        before = value.to_bits();
    }
    bits.out
}

/// `value` times a power of ten, if that is an integer from which the same bits come back.
fn mantissa(value: f64, decimals: usize) -> Option<i64> {
    let scaled = value * POWERS[decimals];
    // Also false for NaN and infinities.
    if scaled.abs() >= MANTISSA_MAX || scaled.is_nan() {
        return None;
    }
    let rounded = (scaled + ROUNDER) - ROUNDER;
    ((rounded / POWERS[decimals]).to_bits() == value.to_bits()).then_some(rounded as i64)
}

/// The fewest decimals with which all values but a few are integers.
fn fewest_decimals(values: &[f64]) -> Option<usize> {
    let mut decimals = 0;
    let mut odd = 0;
    for value in values {
        match (decimals..POWERS.len()).find(|d| mantissa(*value, *d).is_some()) {
            Some(more) => decimals = more,
            None => odd += 1,
        }
        if odd > 2 + values.len() / 32 {
            return None;
        }
    }
    Some(decimals)
}

fn decimals(values: &[f64]) -> Option<Vec<u8>> {
    let decimals = fewest_decimals(values)?;
    let mut integers: Vec<i64> = Vec::with_capacity(values.len());
    let mut specials: Vec<(usize, u64)> = Vec::new();
    for (at, value) in values.iter().enumerate() {
        integers.push(mantissa(*value, decimals).unwrap_or_else(|| {
            specials.push((at, value.to_bits()));
            integers.last().copied().unwrap_or(0)
        }));
    }
    // Odd values at the beginning look like the first that is not odd, so that nothing jumps.
    let leading = specials.iter().zip(0..).take_while(|((at, _), place)| at == place).count();
    if let Some(first) = integers.get(leading).copied() {
        integers[..leading].fill(first);
    }
    if specials.len() > 2 + values.len() / 16 {
        return None;
    }
    let divisor = integers.iter().fold(0, |divisor, integer| gcd(integer.unsigned_abs(), divisor)).max(1);
    if divisor > 1 {
        integers.iter_mut().for_each(|integer| *integer /= divisor as i64);
    }
    let mut out = vec![DECIMALS, decimals as u8];
    put_varint(&mut out, divisor);
    put_varint(&mut out, specials.len() as u64);
    let mut before = 0;
    for (at, bits) in &specials {
        put_varint(&mut out, (at + 1 - before) as u64);
        out.extend_from_slice(&bits.to_le_bytes());
        before = at + 1;
    }
    pack(&integers, out)
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    if b == 1 {
        return 1;
    }
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

fn pack(integers: &[i64], out: Vec<u8>) -> Option<Vec<u8>> {
    let config = ChunkConfig::default()
        .with_compression_level(PCO_LEVEL)
        .with_mode_spec(ModeSpec::Classic)
        .with_delta_spec(DeltaSpec::TryConsecutive(best_order(integers)));
    // It fails on arguments out of range and on a writer that fails; here is neither.
    let mut chunk = FileCompressor::default().chunk_compressor(integers, &config).ok()?;
    let out = chunk.write_meta(out).ok()?;
    chunk.write_page(0, out).ok()
}

/// How often to take differences, so that what is left has the fewest bits.
fn best_order(integers: &[i64]) -> usize {
    let bits = |number: i64| u64::from(64 - number.unsigned_abs().leading_zeros());
    let mut sums = [0; 3];
    let (mut before, mut before_difference) = (integers[0], 0);
    for integer in &integers[1..] {
        let difference = integer - before;
        sums[0] += bits(integer - integers[0]);
        sums[1] += bits(difference);
        sums[2] += bits(difference - before_difference);
        (before, before_difference) = (*integer, difference);
    }
    // A higher order must earn what it adds to noise.
    let mut best = 0;
    for order in 1..3 {
        if sums[order] * 20 < sums[best] * 19 {
            best = order;
        }
    }
    best
}

/// Adds `count` values of a column to `out`; `None` if the bytes are no column of so many.
pub(crate) fn decode(bytes: &[u8], count: usize, out: &mut Vec<f64>) -> Option<()> {
    if count > COLUMN_MAX_SAMPLES {
        return None;
    }
    let mut reader = Reader::new(bytes);
    match reader.u8()? {
        CONSTANT => {
            let value = reader.f64()?;
            out.resize(out.len() + count, value);
            reader.is_empty().then_some(())
        }
        CONSTANT_DECIMAL => {
            let power = *POWERS.get(usize::from(reader.u8()?))?;
            let value = reader.zigzag()? as f64 / power;
            out.resize(out.len() + count, value);
            reader.is_empty().then_some(())
        }
        XOR => decode_xor(reader, count, out),
        DECIMALS => decode_decimals(reader, count, out),
        _ => None,
    }
}

fn decode_xor(mut reader: Reader<'_>, count: usize, out: &mut Vec<f64>) -> Option<()> {
    let value = reader.u64()?;
    if count == 0 {
        return Some(());
    }
    let from = out.len();
    out.resize(from + count, f64::from_bits(value));
    let mut bits = BitReader::new(reader.rest());
    let mut window = Window::NONE;
    window.read_values(&mut bits, value, &mut out[from + 1..])
}

fn decode_decimals(mut reader: Reader<'_>, count: usize, out: &mut Vec<f64>) -> Option<()> {
    let power = *POWERS.get(usize::from(reader.u8()?))?;
    let divisor = reader.varint()?;
    let specials = reader.count()?;
    let mut special: Vec<(usize, f64)> = Vec::with_capacity(specials.min(COLUMN_MAX_SAMPLES));
    let mut place = 0usize;
    for _ in 0..specials {
        place = place.checked_add(usize::try_from(reader.varint()?).ok()?)?;
        special.push((place.checked_sub(1)?, reader.f64()?));
    }
    let (decompressor, _) = FileDecompressor::new(PCO_VERSION).ok()?;
    let (mut chunk, rest) = decompressor.chunk_decompressor::<i64, _>(reader.rest()).ok()?;
    let mut page = chunk.page_decompressor(rest, count).ok()?;
    let mut integers = vec![0i64; count];
    page.read(&mut integers).ok().filter(|progress| progress.finished)?;
    let from = out.len();
    if divisor > 1 {
        integers.iter_mut().for_each(|integer| *integer = integer.wrapping_mul(divisor as i64));
    }
    to_floats(&integers, power, out)?;
    for (place, value) in special {
        *out[from..].get_mut(place)? = value;
    }
    Some(())
}

/// Adds mantissas divided by a power of ten; `None` if one is larger than any that the encoder writes. Without a branch
/// for each, and by an addition instead of a conversion, both of which processors do to several at once.
fn to_floats(mantissas: &[i64], power: f64, out: &mut Vec<f64>) -> Option<()> {
    let limit = 1i64 << 51;
    let odd = mantissas.iter().fold(0, |odd, mantissa| odd | (mantissa.wrapping_add(limit) as u64 >> 52));
    if odd != 0 {
        return None;
    }
    let float = |mantissa: &i64| f64::from_bits(ROUNDER.to_bits().wrapping_add(*mantissa as u64)) - ROUNDER;
    if power == 1.0 {
        out.extend(mantissas.iter().map(float));
    } else {
        out.extend(mantissas.iter().map(|mantissa| float(mantissa) / power));
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use binnacle_model::STALE_NAN;
    use proptest::prelude::*;

    use super::*;

    fn check(values: &[f64]) -> (usize, u8) {
        let mut kind = 0;
        let mut size = 0;
        for encode in [encode_fast, encode_small] {
            let bytes = encode(values);
            let mut back = Vec::new();
            decode(&bytes, values.len(), &mut back).unwrap();
            let bits = |values: &[f64]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&back), bits(values));
            (size, kind) = (bytes.len(), bytes[0]);
        }
        (size, kind)
    }

    #[test]
    fn odd_values_survive_to_the_bit() {
        let odd = [
            0.0,
            -0.0,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::NAN,
            STALE_NAN,
            f64::from_bits(0x7ff8_dead_beef_0001),
            f64::MIN_POSITIVE,
            1e300,
            1.0,
            9_007_199_254_740_993.0,
        ];
        check(&odd);
        check(&[]);
        // It rounds to the limit of mantissas.
        let widest = MANTISSA_MAX / 10.0;
        check(&(0..100).map(|n| if n % 7 == 3 { widest } else { f64::from(n) / 10.0 }).collect::<Vec<_>>());
        for value in odd {
            check(&[value]);
            check(&[value; 100]);
            let mut among: Vec<f64> = (0..200).map(f64::from).collect();
            among[0] = value;
            among[77] = value;
            among[199] = value;
            let (_, kind) = check(&among);
            assert_eq!(kind, DECIMALS, "one odd value among integers: {value}");
        }
    }

    #[test]
    fn what_people_measure_is_packed_as_decimals() {
        let seconds: Vec<f64> = (0..480).map(|i| f64::from(i * 1571 % 9973 + i * 1500) / 100.0).collect();
        let (size, kind) = check(&seconds);
        assert_eq!(kind, DECIMALS);
        assert!(size < 480 * 2, "{size} bytes");
        let pages: Vec<f64> = (0..480).map(|i| f64::from(i * 31 % 97) * 4096.0 + 1e9 * 4096.0).collect();
        let (size, kind) = check(&pages);
        assert_eq!(kind, DECIMALS);
        assert!(size < 480, "a page of memory counts as one: {size} bytes");
        let noise: Vec<f64> = (1..480).map(|i| 1.0 / f64::from(i)).collect();
        assert_eq!(check(&noise).1, XOR);
        assert_eq!(check(&[0.25; 480]), (3, CONSTANT_DECIMAL));
    }

    /// A pco of another format must get a number of its own, or files already written are misread.
    #[test]
    fn pco_writes_the_version_that_we_leave_out() {
        assert_eq!(FileCompressor::default().write_header(Vec::new()).unwrap(), PCO_VERSION);
    }

    fn decimal() -> impl Strategy<Value = f64> {
        (any::<i32>(), 0usize..6).prop_map(|(mantissa, decimals)| f64::from(mantissa) / POWERS[decimals])
    }

    proptest! {
        #[test]
        fn any_values_survive(values in proptest::collection::vec(any::<u64>().prop_map(f64::from_bits), 0..200)) {
            check(&values);
        }

        #[test]
        fn decimals_survive(
            values in proptest::collection::vec(prop_oneof![
                20 => decimal(),
                1 => any::<u64>().prop_map(f64::from_bits),
                1 => (0u64..1 << 60).prop_map(|whole| whole as f64),
            ], 0..400),
        ) {
            check(&values);
        }

        #[test]
        fn foreign_bytes_never_panic(
            kind in 0u8..5, bytes in proptest::collection::vec(any::<u8>(), 0..300), count in 0usize..5000,
        ) {
            let bytes = [&[kind][..], &bytes].concat();
            let _ = decode(&bytes, count, &mut vec![0.5; 3]);
        }
    }
}
