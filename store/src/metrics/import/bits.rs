//! The bit stream inside Prometheus's chunks: numbers of few bits where they are small.
//!
//! ```text
//! varbit := 1* 0 bits            the more ones, the wider; the widest have no zero behind their ones
//! xor    := 0                    the same float
//!         | 10 bits              what differs lies where it lay in the one before
//!         | 11 lead:5 size:6 bits     elsewhere; size 0 means 64
//! ```
//!
//! Of a signed number of some width, one half and no more is above zero: of three bits, `100` is 4 and `101` is -3.

/// Bits of a number behind so many ones, in histograms.
const WIDTHS: [u32; 9] = [0, 3, 6, 9, 12, 18, 25, 56, 64];

/// The same of differences of times, in chunks of floats.
const TIME_WIDTHS: [u32; 5] = [0, 14, 17, 20, 64];

/// Reads bits, the highest of a byte first. Every method answers `None` where they end too soon.
#[derive(Debug, Clone)]
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Bits<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How many were not read yet.
    pub(super) fn left(&self) -> usize {
        self.bytes.len() * 8 - self.at
    }

    /// The next `width` bits, at most 64.
    pub(super) fn read(&mut self, width: u32) -> Option<u64> {
        let width = width as usize;
        if width > self.left() {
            return None;
        }
        let end = self.at + width;
        let mut value = 0u64;
        while self.at < end {
            let free = 8 - self.at % 8;
            let take = free.min(end - self.at);
            let byte = u64::from(self.bytes[self.at / 8]);
            value = value << take | ((byte >> (free - take)) & ((1 << take) - 1));
            self.at += take;
        }
        Some(value)
    }

    pub(super) fn f64(&mut self) -> Option<f64> {
        self.read(64).map(f64::from_bits)
    }

    /// Bytes of seven bits each, the lowest first.
    pub(super) fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.read(8)?;
            value |= (byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    pub(super) fn zigzag(&mut self) -> Option<i64> {
        let value = self.varint()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// How many ones come next, at most `most`; the zero behind fewer is taken too.
    fn ones(&mut self, most: usize) -> Option<usize> {
        for ones in 0..most {
            if self.read(1)? == 0 {
                return Some(ones);
            }
        }
        Some(most)
    }

    fn width(&mut self, widths: &[u32]) -> Option<u32> {
        let ones = self.ones(widths.len() - 1)?;
        widths.get(ones).copied()
    }

    pub(super) fn varbit_uint(&mut self) -> Option<u64> {
        let width = self.width(&WIDTHS)?;
        self.read(width)
    }

    pub(super) fn varbit_int(&mut self) -> Option<i64> {
        let width = self.width(&WIDTHS)?;
        Some(signed(self.read(width)?, width))
    }

    /// How much a time differs from what the two before it let expect.
    pub(super) fn time_step(&mut self) -> Option<i64> {
        let width = self.width(&TIME_WIDTHS)?;
        Some(signed(self.read(width)?, width))
    }
}

fn signed(raw: u64, width: u32) -> i64 {
    let is_negative = width > 0 && width < 64 && raw > 1 << (width - 1);
    if is_negative { raw as i64 - (1 << width) } else { raw as i64 }
}

/// A float, each written as its difference from the one before.
#[derive(Debug, Clone, Copy)]
pub(super) struct XorFloat {
    bits: u64,
    leading: u32,
    size: u32,
}

impl XorFloat {
    pub(super) fn new(first: f64) -> Self {
        Self { bits: first.to_bits(), leading: 0, size: 64 }
    }

    pub(super) fn value(&self) -> f64 {
        f64::from_bits(self.bits)
    }

    /// Goes on to the next one.
    pub(super) fn advance(&mut self, bits: &mut Bits<'_>) -> Option<f64> {
        let ones = bits.ones(2)?;
        if ones == 2 {
            self.leading = bits.read(5)? as u32;
            self.size = match bits.read(6)? as u32 {
                0 => 64,
                size => size,
            };
            if self.leading + self.size > 64 {
                return None;
            }
        }
        if ones > 0 {
            self.bits ^= bits.read(self.size)? << (64 - self.leading - self.size);
        }
        Some(self.value())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_numbers_of_a_width_are_above_zero() {
        let check =
            |byte: u8, want: i64| assert_eq!(Bits::new(&[byte]).varbit_int(), Some(want), "{byte:08b}");
        check(0b0000_0000, 0);
        check(0b1000_1000, 1);
        check(0b1010_0000, 4);
        check(0b1010_1000, -3);
        check(0b1011_1000, -1);
        assert_eq!(Bits::new(&[0b1011_1000]).varbit_uint(), Some(7));
    }

    #[test]
    fn bits_that_end_too_soon_are_none() {
        assert_eq!(Bits::new(&[0xff]).varbit_int(), None);
        assert_eq!(Bits::new(&[0xff; 8]).varint(), None);
        assert_eq!(Bits::new(&[]).read(1), None);
        assert_eq!(XorFloat::new(1.0).advance(&mut Bits::new(&[0b1111_1111, 0xff])), None);
    }
}
