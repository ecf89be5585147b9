//! Bits in bytes, the highest first, and the XOR code of values on top of them.

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
        let mut left = width;
        while left > 0 {
            if self.free == 0 {
                self.out.push(0);
                self.free = 8;
            }
            let take = left.min(u32::from(self.free));
            let part = (value >> (left - take)) & ((1u64 << take) - 1);
            let last = self.out.last_mut().expect("a byte was pushed above");
            *last |= (part as u8) << (u32::from(self.free) - take);
            self.free -= take as u8;
            left -= take;
        }
    }

    pub(super) fn write_signed(&mut self, value: i64, width: u32) {
        self.write(value as u64, width);
    }
}

/// Reads bits from bytes. Every method answers `None` where they end too soon.
#[derive(Debug, Clone, Copy)]
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> BitReader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next 64 bits or what is left of them, from the top; bits behind the end are zero. At least
    /// 57 are valid.
    #[inline]
    fn peek(&self) -> u64 {
        let from = self.at / 8;
        let shift = (self.at % 8) as u32;
        if let Some(eight) = self.bytes.get(from..from + 8) {
            let word = u64::from_be_bytes(eight.try_into().expect("eight bytes"));
            return word << shift;
        }
        let mut word = [0; 8];
        let rest = self.bytes.get(from..).unwrap_or_default();
        word[..rest.len()].copy_from_slice(rest);
        u64::from_be_bytes(word) << shift
    }

    #[inline]
    fn skip(&mut self, width: u32) -> Option<()> {
        self.at += width as usize;
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
        if width <= 57 {
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
    #[inline]
    pub(super) fn read(&mut self, bits: &mut BitReader<'_>) -> Option<u64> {
        let word = bits.peek();
        if word >> 63 == 0 {
            bits.skip(1)?;
            return Some(0);
        }
        // Most others fit into the window before, and with their tag into what is in sight.
        let (leading, length) = (u32::from(self.leading), u32::from(self.length));
        if word >> 62 == 0b10 && (1..=55).contains(&length) {
            bits.skip(2 + length)?;
            return Some((word << 2) >> (64 - length) << (64 - leading - length));
        }
        self.read_any(bits)
    }

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
