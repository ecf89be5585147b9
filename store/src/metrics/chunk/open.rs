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

use super::bits::{BitReader, BitWriter, Window};

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
        let (mut time, mut value, mut delta) = (self.first_time, self.first_value, 0i64);
        let mut add = |time: i64, value: u64| {
            if range.contains(Timestamp(time)) {
                out.push(Sample { timestamp: Timestamp(time), value: f64::from_bits(value) });
            }
        };
        add(time, value);
        let mut bits = BitReader::new(&self.bits.out);
        let mut window = Window::NONE;
        for _ in 1..self.count {
            delta = delta.wrapping_add(read_time(&mut bits).expect("we encoded it in this process"));
            time = time.wrapping_add(delta);
            value ^= window.read(&mut bits).expect("we encoded it in this process");
            add(time, value);
        }
    }

    /// Bytes on the heap.
    #[cfg(test)]
    fn heap_bytes(&self) -> usize {
        self.bits.out.len()
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
            prop_assert_eq!(decoded(&chunk), pairs);
        }
    }
}
