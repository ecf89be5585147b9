//! Chunks: the samples of one series in as few bits as they need.
//!
//! After section 4.1 of Pelkonen et al., "Gorilla: a fast, scalable, in-memory time series database"
//! (VLDB 2015): times as differences of differences, values XORed with the one before. Every bit of a
//! value survives, payloads of NaNs included.
//!
//! ```text
//! chunk  := count:u16 first_time:i64 first_value:f64 bits
//! bits   := (time value)*                       one for each sample after the first
//! time   := 0                                   same difference as before
//!         | 10 d:14 | 110 d:17 | 1110 d:20      signed difference of differences
//!         | 1111 d:64
//! value  := 0                                   same value
//!         | 10 bits                             within the window of the XOR before
//!         | 11 leading:5 length:6 bits          a new window; length 0 means 64
//! ```

use binnacle_model::{Sample, Timestamp};

/// Samples of one chunk; more would make reading a single moment slow.
pub(crate) const CHUNK_MAX_SAMPLES: usize = 120;

const PREFIX_BYTES: usize = 18;

/// Encodes at most 65,535 samples, ascending by time.
pub(crate) fn encode(samples: &[Sample]) -> Vec<u8> {
    let mut out = Vec::with_capacity(PREFIX_BYTES + samples.len() * 2);
    let count = u16::try_from(samples.len()).expect("a chunk holds few samples");
    out.extend_from_slice(&count.to_le_bytes());
    let Some(first) = samples.first() else { return out };
    out.extend_from_slice(&first.timestamp.0.to_le_bytes());
    out.extend_from_slice(&first.value.to_bits().to_le_bytes());
    let mut bits = BitWriter { out, free: 0 };
    let mut before = first;
    let mut delta = 0i64;
    let mut window = None;
    for sample in &samples[1..] {
        let next = sample.timestamp.0.wrapping_sub(before.timestamp.0);
        write_time(&mut bits, next.wrapping_sub(delta));
        window = write_value(&mut bits, before.value.to_bits() ^ sample.value.to_bits(), window);
        delta = next;
        before = sample;
    }
    bits.out
}

fn write_time(bits: &mut BitWriter, change: i64) {
    let fits = |width: u32| change >= -(1 << (width - 1)) && change < (1 << (width - 1));
    match change {
        0 => bits.write(0, 1),
        _ if fits(14) => bits.tagged(0b10, 2, change, 14),
        _ if fits(17) => bits.tagged(0b110, 3, change, 17),
        _ if fits(20) => bits.tagged(0b1110, 4, change, 20),
        _ => bits.tagged(0b1111, 4, change, 64),
    }
}

/// The bits of an XOR that may differ from zero: how many lead, how many are in between.
type Window = (u32, u32);

fn write_value(bits: &mut BitWriter, xor: u64, window: Option<Window>) -> Option<Window> {
    if xor == 0 {
        bits.write(0, 1);
        return window;
    }
    let leading = xor.leading_zeros().min(31);
    let trailing = xor.trailing_zeros();
    if let Some((lead, length)) = window
        && leading >= lead
        && trailing >= 64 - lead - length
    {
        bits.write(0b10, 2);
        bits.write(xor >> (64 - lead - length), length);
        return window;
    }
    let length = 64 - leading - trailing;
    bits.write(0b11, 2);
    bits.write(u64::from(leading), 5);
    bits.write(u64::from(length & 63), 6);
    bits.write(xor >> trailing, length);
    Some((leading, length))
}

/// Adds the samples of a chunk to `out`; `None` if the bytes are no chunk.
pub(crate) fn decode(bytes: &[u8], out: &mut Vec<Sample>) -> Option<()> {
    let count = usize::from(u16::from_le_bytes(bytes.get(..2)?.try_into().ok()?));
    if count == 0 {
        return Some(());
    }
    let mut time = i64::from_le_bytes(bytes.get(2..10)?.try_into().ok()?);
    let mut value = u64::from_le_bytes(bytes.get(10..18)?.try_into().ok()?);
    out.push(Sample { timestamp: Timestamp(time), value: f64::from_bits(value) });
    let mut bits = BitReader { bytes: &bytes[PREFIX_BYTES..], at: 0 };
    let mut delta = 0i64;
    let mut window = (0, 64);
    for _ in 1..count {
        delta = delta.wrapping_add(read_time(&mut bits)?);
        time = time.wrapping_add(delta);
        value ^= read_value(&mut bits, &mut window)?;
        out.push(Sample { timestamp: Timestamp(time), value: f64::from_bits(value) });
    }
    Some(())
}

fn read_time(bits: &mut BitReader<'_>) -> Option<i64> {
    let mut ones = 0;
    while ones < 4 && bits.read(1)? == 1 {
        ones += 1;
    }
    let width = [0, 14, 17, 20, 64][ones];
    if width == 0 {
        return Some(0);
    }
    let raw = bits.read(width)?;
    Some(((raw << (64 - width)) as i64) >> (64 - width))
}

fn read_value(bits: &mut BitReader<'_>, window: &mut Window) -> Option<u64> {
    if bits.read(1)? == 0 {
        return Some(0);
    }
    if bits.read(1)? == 1 {
        let leading = bits.read(5)? as u32;
        let length = bits.read(6)? as u32;
        *window = (leading, if length == 0 { 64 } else { length });
    }
    let (leading, length) = *window;
    let trailing = 64u32.checked_sub(leading + length)?;
    Some(bits.read(length)? << trailing)
}

struct BitWriter {
    out: Vec<u8>,
    /// Unused low bits of the last byte.
    free: u32,
}

impl BitWriter {
    fn tagged(&mut self, tag: u64, tag_width: u32, value: i64, width: u32) {
        self.write(tag, tag_width);
        self.write(value as u64, width);
    }

    /// The low `width` bits of `value`, the highest of them first.
    fn write(&mut self, value: u64, width: u32) {
        let mut left = width;
        while left > 0 {
            if self.free == 0 {
                self.out.push(0);
                self.free = 8;
            }
            let take = left.min(self.free);
            let part = (value >> (left - take)) & ((1u64 << take) - 1);
            let last = self.out.last_mut().expect("a byte was pushed above");
            *last |= (part as u8) << (self.free - take);
            self.free -= take;
            left -= take;
        }
    }
}

struct BitReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl BitReader<'_> {
    fn read(&mut self, width: u32) -> Option<u64> {
        let mut value = 0u64;
        let mut left = width;
        while left > 0 {
            let byte = *self.bytes.get(self.at / 8)?;
            let free = 8 - (self.at % 8) as u32;
            let take = left.min(free);
            let part = (u64::from(byte) >> (free - take)) & ((1u64 << take) - 1);
            value = if take == 64 { part } else { (value << take) | part };
            self.at += take as usize;
            left -= take;
        }
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use binnacle_model::STALE_NAN;
    use proptest::prelude::*;

    use super::*;

    fn check(samples: &[Sample]) -> usize {
        let bytes = encode(samples);
        let mut back = Vec::new();
        decode(&bytes, &mut back).unwrap();
        assert_eq!(back, samples);
        bytes.len()
    }

    fn sample(time: i64, value: f64) -> Sample {
        Sample { timestamp: Timestamp(time), value }
    }

    #[test]
    fn odd_values_survive_to_the_bit() {
        let values = [
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
        ];
        let samples: Vec<Sample> =
            values.iter().enumerate().map(|(i, v)| sample(i as i64 * 15_000, *v)).collect();
        check(&samples);
        check(&[]);
        check(&[sample(i64::MIN, 1.0), sample(i64::MAX, 2.0)]);
    }

    #[test]
    fn a_regular_counter_is_small() {
        let samples: Vec<Sample> = (0..120).map(|i| sample(i * 15_000, (i / 4) as f64)).collect();
        let bytes = check(&samples);
        assert!(bytes < 200, "{bytes} bytes");
    }

    proptest! {
        #[test]
        fn any_samples_survive(pairs in proptest::collection::vec((any::<i64>(), any::<u64>()), 0..200)) {
            let samples: Vec<Sample> =
                pairs.iter().map(|(t, v)| sample(*t, f64::from_bits(*v))).collect();
            check(&samples);
        }

        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&bytes, &mut Vec::new());
        }
    }
}
