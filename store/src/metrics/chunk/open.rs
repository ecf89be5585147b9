//! The open chunk of a series: samples appended in order of time, readable at any moment.
//!
//! After section 4.1 of Pelkonen et al., "Gorilla: a fast, scalable, in-memory time series database"
//! (VLDB 2015): times as differences of differences, values XORed with the one before.
//!
//! ```text
//! bits   := (time value)*                       one for each sample after the first
//! time   := 0                                   same difference as before
//!         | 10 d:14 | 110 d:17 | 1110 d:20      signed difference of differences
//!         | 1111 d:64
//! ```

use binnacle_model::storage::ALL_TIME;
use binnacle_model::{Sample, TimeRange, Timestamp};

use super::Scratch;
use super::bits::{BitReader, BitWriter, Window};
use crate::bytes::{Reader, put_varint, put_zigzag};

/// Samples after which a chunk takes no more. Whoever wants the last five minutes decodes all of it.
pub(crate) const OPEN_MAX_SAMPLES: u16 = 60;

/// Samples in order of time.
#[derive(Debug, Clone)]
pub(crate) struct OpenChunk {
    bits: BitWriter,
    window: Window,
    count: u16,
    first_time: i64,
    first_value: u64,
    last_time: i64,
    last_delta: i64,
    last_value: u64,
}

impl Default for OpenChunk {
    fn default() -> Self {
        Self {
            bits: BitWriter::default(),
            window: Window::NONE,
            count: 0,
            first_time: 0,
            first_value: 0,
            last_time: 0,
            last_delta: 0,
            last_value: 0,
        }
    }
}

impl OpenChunk {
    pub(crate) fn is_full(&self) -> bool {
        self.count >= OPEN_MAX_SAMPLES
    }

    /// The first moment.
    pub(crate) fn first(&self) -> Option<Timestamp> {
        (self.count > 0).then_some(Timestamp(self.first_time))
    }

    /// The newest sample.
    pub(crate) fn last(&self) -> Option<Sample> {
        let value = f64::from_bits(self.last_value);
        (self.count > 0).then_some(Sample { timestamp: Timestamp(self.last_time), value })
    }

    /// Adds a sample that is newer than all of it.
    pub(crate) fn push(&mut self, sample: Sample) {
        let (time, value) = (sample.timestamp.0, sample.value.to_bits());
        if self.count == 0 {
            (self.first_time, self.first_value) = (time, value);
            self.last_delta = 0;
        } else {
            let delta = time.wrapping_sub(self.last_time);
            write_time(&mut self.bits, delta.wrapping_sub(self.last_delta));
            self.window.write(&mut self.bits, self.last_value ^ value);
            self.last_delta = delta;
        }
        (self.last_time, self.last_value) = (time, value);
        self.count += 1;
    }

    /// The last byte so far, for whoever wants it near.
    #[inline]
    pub(crate) fn end(&self) -> u8 {
        self.bits.out.last().copied().unwrap_or_default()
    }

    pub(crate) fn len(&self) -> usize {
        usize::from(self.count)
    }

    /// Adds all samples to `out`, ascending.
    pub(crate) fn decode(&self, out: &mut Vec<Sample>) {
        self.decode_range(ALL_TIME, out);
    }

    /// Adds the samples of `range` to `out`, ascending.
    pub(crate) fn decode_range(&self, range: TimeRange, out: &mut Vec<Sample>) {
        if self.count == 0 {
            return;
        }
        let first = Sample { timestamp: Timestamp(self.first_time), value: f64::from_bits(self.first_value) };
        let mut walk = self.walk();
        let rest = (1..self.count).map(|_| walk.next());
        out.extend(std::iter::once(first).chain(rest).filter(|sample| range.contains(sample.timestamp)));
    }

    /// Adds all samples to `out`, ascending.
    pub(crate) fn decode_columns(&self, out: &mut Scratch) {
        if self.count == 0 {
            return;
        }
        // Whoever knows the times before these has none of them here.
        let (times, values) = (out.times.len(), out.values.len());
        let count = usize::from(self.count);
        out.times.resize(times + count, self.first_time);
        out.values.resize(values + count, f64::from_bits(self.first_value));
        let places = out.times[times + 1..].iter_mut().zip(&mut out.values[values + 1..]);
        let mut walk = self.walk();
        for (time, value) in places {
            let sample = walk.next();
            (*time, *value) = (sample.timestamp.0, sample.value);
        }
    }

    /// The newest sample at `at` or before.
    pub(crate) fn newest_at(&self, at: Timestamp) -> Option<Sample> {
        if let Some(last) = self.last().filter(|last| last.timestamp <= at) {
            return Some(last);
        }
        let first = Sample { timestamp: self.first()?, value: f64::from_bits(self.first_value) };
        let mut found = (first.timestamp <= at).then_some(first)?;
        let mut walk = self.walk();
        for _ in 1..self.count {
            let next = walk.next();
            if next.timestamp > at {
                break;
            }
            found = next;
        }
        Some(found)
    }

    fn walk(&self) -> Walk<'_> {
        Walk {
            bits: BitReader::new(&self.bits.out),
            window: Window::NONE,
            time: self.first_time,
            delta: 0,
            value: self.first_value,
        }
    }

    /// Adds the chunk as it is to `out`.
    ///
    /// ```text
    /// open := count:varint                      nothing more if it is zero
    ///         first_time:zigzag last_time:zigzag last_delta:zigzag first_value:u64 last_value:u64
    ///         leading:u8 length:u8 free:u8 bytes:varint bits
    /// ```
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, u64::from(self.count));
        if self.count == 0 {
            return;
        }
        for time in [self.first_time, self.last_time, self.last_delta] {
            put_zigzag(out, time);
        }
        for value in [self.first_value, self.last_value] {
            out.extend_from_slice(&value.to_le_bytes());
        }
        out.extend_from_slice(&[self.window.leading, self.window.length, self.bits.free]);
        put_varint(out, self.bits.out.len() as u64);
        out.extend_from_slice(&self.bits.out);
    }

    /// Reads what [`Self::put`] wrote, from bytes with a checksum of their own; `None` if they are too few.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let count = u16::try_from(reader.varint()?).ok().filter(|count| *count <= OPEN_MAX_SAMPLES)?;
        if count == 0 {
            return Some(Self::default());
        }
        let [first_time, last_time, last_delta] = [reader.zigzag()?, reader.zigzag()?, reader.zigzag()?];
        let [first_value, last_value] = [reader.u64()?, reader.u64()?];
        let window = Window { leading: reader.u8()?, length: reader.u8()? };
        let free = reader.u8().filter(|free| *free < 8)?;
        let bytes = reader.count()?;
        let bits = BitWriter { out: reader.bytes(bytes)?.to_vec(), free };
        Some(Self { bits, window, count, first_time, first_value, last_time, last_delta, last_value })
    }

    /// Bytes on the heap.
    #[cfg(test)]
    fn heap_bytes(&self) -> usize {
        self.bits.out.len()
    }
}

/// Goes over the samples behind the first one.
struct Walk<'c> {
    bits: BitReader<'c>,
    window: Window,
    time: i64,
    delta: i64,
    value: u64,
}

impl Walk<'_> {
    /// The next sample, of which there must be one.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "a loop over all samples is made of it")]
    fn next(&mut self) -> Sample {
        let change = read_time(&mut self.bits).expect("we encoded it in this process");
        self.delta = self.delta.wrapping_add(change);
        self.time = self.time.wrapping_add(self.delta);
        self.value ^= self.window.read(&mut self.bits).expect("we encoded it in this process");
        Sample { timestamp: Timestamp(self.time), value: f64::from_bits(self.value) }
    }
}

pub(super) fn write_time(bits: &mut BitWriter, change: i64) {
    let fits = |width: u32| change >= -(1 << (width - 1)) && change < (1 << (width - 1));
    let (tag, tag_width, width) = match change {
        0 => return bits.write(0, 1),
        _ if fits(14) => (0b10, 2, 14),
        _ if fits(17) => (0b110, 3, 17),
        _ if fits(20) => (0b1110, 4, 20),
        _ => (0b1111, 4, 64),
    };
    bits.write(tag, tag_width);
    bits.write_signed(change, width);
}

#[inline]
pub(super) fn read_time(bits: &mut BitReader<'_>) -> Option<i64> {
    if bits.take_zero()? { Some(0) } else { read_change(bits) }
}

fn read_change(bits: &mut BitReader<'_>) -> Option<i64> {
    match bits.read_ones(4)? {
        0 => Some(0),
        1 => bits.read_signed(14),
        2 => bits.read_signed(17),
        3 => bits.read_signed(20),
        _ => bits.read_signed(64),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decoded(chunk: &OpenChunk) -> Vec<(i64, u64)> {
        let mut samples = Vec::new();
        chunk.decode(&mut samples);
        samples.iter().map(|sample| (sample.timestamp.0, sample.value.to_bits())).collect()
    }

    #[test]
    fn a_regular_counter_is_small() {
        let mut chunk = OpenChunk::default();
        for i in 0..i64::from(OPEN_MAX_SAMPLES) {
            chunk.push(Sample { timestamp: Timestamp(i * 15_000), value: (i / 4) as f64 });
        }
        assert!(chunk.is_full());
        assert!(chunk.heap_bytes() < 100, "{} bytes", chunk.heap_bytes());
    }

    proptest! {
        #[test]
        fn any_samples_survive(pairs in proptest::collection::vec((any::<i64>(), any::<u64>()), 0..60)) {
            let mut chunk = OpenChunk::default();
            for (at, (time, value)) in pairs.iter().enumerate() {
                prop_assert_eq!(decoded(&chunk), &pairs[..at]);
                chunk.push(Sample { timestamp: Timestamp(*time), value: f64::from_bits(*value) });
            }
            prop_assert_eq!(decoded(&chunk), &pairs[..]);
            let mut bytes = Vec::new();
            chunk.put(&mut bytes);
            let mut saved = OpenChunk::read(&mut Reader::new(&bytes)).unwrap();
            prop_assert_eq!(decoded(&saved), pairs);
            let next = Sample { timestamp: Timestamp(7), value: 0.25 };
            saved.push(next);
            prop_assert_eq!(decoded(&saved).pop(), Some((7, 0.25f64.to_bits())));
        }
    }
}
