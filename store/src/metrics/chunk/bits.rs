//! Bits in bytes, the highest first, and the XOR code of values on top of them.

/// Room that the first bits take.
const FIRST_BYTES: usize = 32;

/// Appends bits to bytes.
#[derive(Debug, Default, Clone)]
pub(super) struct BitWriter {
    pub(super) out: Vec<u8>,
    /// Unused low bits of the last byte.
    pub(super) free: u8,
}

impl BitWriter {
    /// Goes on behind whole bytes.
    pub(super) fn behind(out: Vec<u8>) -> Self {
        Self { out, free: 0 }
    }

    /// The low `width` bits of `value`, at most 64, the highest of them first.
    pub(super) fn write(&mut self, value: u64, width: u32) {
        if width == 0 {
            return;
        }
        let word = value << (64 - width);
        let free = u32::from(self.free);
        if let Some(last) = self.out.last_mut().filter(|_| free > 0) {
            *last |= (word >> (64 - free)) as u8;
        }
        let Some(left) = width.checked_sub(free) else {
            self.free = (free - width) as u8;
            return;
        };
        let bytes = left.div_ceil(8);
        if self.out.capacity() == 0 {
            // What it grows to in any case, without the steps on the way.
            self.out.reserve_exact(FIRST_BYTES);
        }
        self.out.extend_from_slice(&(word << free).to_be_bytes()[..bytes as usize]);
        self.free = (bytes * 8 - left) as u8;
    }

    pub(super) fn write_signed(&mut self, value: i64, width: u32) {
        self.write(value as u64, width);
    }
}

/// Less than eight bytes, as if zeros stood behind them.
#[cold]
fn last_word(rest: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..rest.len()].copy_from_slice(rest);
    u64::from_be_bytes(word)
}

/// Reads bits from bytes. Every method answers `None` where they end too soon.
#[derive(Debug, Clone, Copy)]
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> BitReader<'a> {
    /// So many bits can be looked at in one go.
    pub(super) const SIGHT: u32 = 57;

    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next 64 bits or what is left of them, from the top; bits behind the end are zero. At least
    /// [`Self::SIGHT`] are valid.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "every bit passes here")]
    fn peek(&self) -> u64 {
        let rest = self.bytes.get(self.at / 8..).unwrap_or_default();
        let word = rest.first_chunk().map_or_else(|| last_word(rest), |eight| u64::from_be_bytes(*eight));
        word << (self.at % 8)
    }

    /// Goes on without a look at where the bits end; [`Self::skip`] looks.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "every bit passes here")]
    fn step(&mut self, width: u32) {
        self.at = self.at.wrapping_add(width as usize);
    }

    #[inline(always)]
    #[allow(clippy::inline_always, reason = "every bit passes here")]
    fn skip(&mut self, width: u32) -> Option<()> {
        self.step(width);
        (self.at <= self.bytes.len() * 8).then_some(())
    }

    /// Takes the next bit if it is zero.
    #[inline]
    pub(super) fn take_zero(&mut self) -> Option<bool> {
        if self.peek() >> 63 != 0 {
            return Some(false);
        }
        self.skip(1)?;
        Some(true)
    }

    /// The next `width` bits, from 1 to 64.
    #[inline]
    pub(super) fn read(&mut self, width: u32) -> Option<u64> {
        if width <= Self::SIGHT {
            let value = self.peek() >> (64 - width);
            self.skip(width)?;
            return Some(value);
        }
        let high = self.read(32)?;
        Some(high << (width - 32) | self.read(width - 32)?)
    }

    pub(super) fn read_signed(&mut self, width: u32) -> Option<i64> {
        let raw = self.read(width)?;
        Some(((raw << (64 - width)) as i64) >> (64 - width))
    }

    /// How many ones come next, at most `most`; the zero behind fewer is taken too.
    pub(super) fn read_ones(&mut self, most: u32) -> Option<u32> {
        let ones = self.peek().leading_ones().min(most);
        self.skip(if ones == most { ones } else { ones + 1 })?;
        Some(ones)
    }
}

/// The bits of an XOR that may differ from zero: how many lead, how many are in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) leading: u8,
    pub(super) length: u8,
}

impl Window {
    /// Before the first value that changed.
    pub(super) const NONE: Self = Self { leading: 0, length: 0 };

    /// ```text
    /// value := 0                                same value
    ///        | 10 bits                          within the window of the XOR before
    ///        | 11 leading:5 length:6 bits       a new window; length 0 means 64
    /// ```
    pub(super) fn write(&mut self, bits: &mut BitWriter, xor: u64) {
        if xor == 0 {
            bits.write(0, 1);
            return;
        }
        let (leading, trailing) = (xor.leading_zeros().min(31), xor.trailing_zeros());
        let (lead, length) = (u32::from(self.leading), u32::from(self.length));
        if length > 0 && leading >= lead && trailing >= 64 - lead - length {
            bits.write(0b10, 2);
            bits.write(xor >> (64 - lead - length), length);
            return;
        }
        let length = 64 - leading - trailing;
        bits.write(0b11 << 11 | u64::from(leading) << 6 | u64::from(length & 63), 13);
        bits.write(xor >> trailing, length);
        *self = Self { leading: leading as u8, length: length as u8 };
    }

    /// The next XOR.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "two loops over all samples are made of it")]
    pub(super) fn read(&mut self, bits: &mut BitReader<'_>) -> Option<u64> {
        let word = bits.peek();
        if word >> 63 == 0 {
            bits.skip(1)?;
            return Some(0);
        }
        // Most others fit into the window before, and with their tag into what is in sight.
        if word >> 62 == 0b10
            && let Some((width, right, left)) = self.shifts()
        {
            bits.skip(width)?;
            return Some((word << 2).wrapping_shr(right).wrapping_shl(left));
        }
        self.read_any(bits)
    }

    /// Fills `out` with the values behind `value`, each of which is one XOR away from the one before.
    pub(super) fn read_values(
        &mut self,
        bits: &mut BitReader<'_>,
        mut value: u64,
        out: &mut [f64],
    ) -> Option<()> {
        let mut places = out.iter_mut();
        let mut shifts = self.shifts();
        while !places.as_slice().is_empty() {
            let word = bits.peek();
            if word >> 63 == 0 {
                // Each leading zero in sight is the same value once more.
                let same = word.leading_zeros().min(BitReader::SIGHT).min(places.len() as u32);
                places.by_ref().take(same as usize).for_each(|place| *place = f64::from_bits(value));
                bits.step(same);
                continue;
            }
            match shifts {
                Some((width, right, left)) if word >> 62 == 0b10 => {
                    value ^= (word << 2).wrapping_shr(right).wrapping_shl(left);
                    bits.step(width);
                }
                _ => {
                    value ^= self.read_any(bits)?;
                    shifts = self.shifts();
                }
            }
            places.by_ref().take(1).for_each(|place| *place = f64::from_bits(value));
        }
        bits.skip(0)
    }

    /// For an XOR within this window: its width with the tag, and the shifts by which it is cut out of the bits behind
    /// its tag and put in its place. `None` if it is too long to be seen in one go.
    fn shifts(self) -> Option<(u32, u32, u32)> {
        let (leading, length) = (u32::from(self.leading), u32::from(self.length));
        (1..=BitReader::SIGHT - 2).contains(&length).then(|| (length + 2, 64 - length, 64 - leading - length))
    }

    #[inline(never)]
    fn read_any(&mut self, bits: &mut BitReader<'_>) -> Option<u64> {
        match bits.read_ones(2)? {
            0 => return Some(0),
            1 => {}
            _ => {
                let both = bits.read(11)?;
                let length = (both & 63) as u8;
                let length = if length == 0 { 64 } else { length };
                let window = Self { leading: (both >> 6) as u8, length };
                if u32::from(window.leading) + u32::from(length) > 64 {
                    return None;
                }
                *self = window;
            }
        }
        let (leading, length) = (u32::from(self.leading), u32::from(self.length));
        // A stream that uses a window before it has one is damaged.
        if length == 0 {
            return None;
        }
        Some(bits.read(length)? << (64 - leading - length))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bits_are_written_one_behind_the_other(parts in proptest::collection::vec((any::<u64>(), 0u32..=64), 0..40)) {
            let mut writer = BitWriter::default();
            let mut want = Vec::new();
            for (value, width) in &parts {
                writer.write(*value, *width);
                want.extend((0..*width).rev().map(|bit| value >> bit & 1));
            }
            prop_assert_eq!(writer.out.len(), want.len().div_ceil(8));
            prop_assert_eq!(usize::from(writer.free), writer.out.len() * 8 - want.len());
            let found = writer.out.iter().flat_map(|byte| (0..8).rev().map(move |bit| u64::from(byte >> bit & 1)));
            prop_assert!(found.take(want.len()).eq(want));
            let mut reader = BitReader::new(&writer.out);
            for (value, width) in parts.into_iter().filter(|(_, width)| *width > 0) {
                prop_assert_eq!(reader.read(width), Some(value << (64 - width) >> (64 - width)));
            }
        }

        /// Runs that are longer than what is in sight, and an end that comes too soon.
        #[test]
        fn values_come_back(runs in proptest::collection::vec((any::<u64>(), 1usize..150, 0u32..64), 1..12), cut: prop::sample::Index) {
            let values: Vec<u64> =
                runs.into_iter().flat_map(|(bits, count, shift)| std::iter::repeat_n(bits >> shift, count)).collect();
            let (mut bits, mut window) = (BitWriter::default(), Window::NONE);
            values.windows(2).for_each(|pair| window.write(&mut bits, pair[0] ^ pair[1]));
            let read = |bytes: &[u8]| {
                let mut out = vec![0.0; values.len() - 1];
                let mut window = Window::NONE;
                window.read_values(&mut BitReader::new(bytes), values[0], &mut out).map(|()| out)
            };
            let found = read(&bits.out).unwrap();
            prop_assert!(found.iter().map(|value| value.to_bits()).eq(values[1..].iter().copied()));
            if !bits.out.is_empty() {
                prop_assert!(read(&bits.out[..cut.index(bits.out.len())]).is_none());
            }
        }
    }
}
