//! The wire format of protobuf messages, walked field by field: nothing is copied and nothing allocated.

/// Why bytes are no such message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("byte {at}: {reason}")]
pub struct WireError {
    /// From the page's beginning.
    pub at: usize,
    /// What is wrong there.
    pub reason: &'static str,
}

impl WireError {
    /// The error of a part, as one of the whole in which it lies.
    pub(super) fn within(self, whole: &[u8], part: &[u8]) -> Self {
        let offset = (part.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize);
        Self { at: self.at + offset.min(whole.len()), ..self }
    }
}

/// The fields of a message, one after the other.
pub(super) struct Fields<'a> {
    body: &'a [u8],
    at: usize,
}

/// One field.
pub(super) struct Field<'a> {
    pub(super) number: u64,
    /// Of a field with a length.
    pub(super) bytes: &'a [u8],
    /// Of a field without.
    pub(super) value: u64,
    /// Whether it has a length.
    pub(super) is_delimited: bool,
}

impl Field<'_> {
    pub(super) fn float(&self) -> f64 {
        f64::from_bits(self.value)
    }
}

impl<'a> Fields<'a> {
    pub(super) fn new(body: &'a [u8]) -> Self {
        Self { body, at: 0 }
    }

    pub(super) fn fail<T>(&self, reason: &'static str) -> Result<T, WireError> {
        Err(WireError { at: self.at, reason })
    }

    pub(super) fn is_over(&self) -> bool {
        self.at == self.body.len()
    }

    #[inline]
    pub(super) fn varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let Some(byte) = self.body.get(self.at) else { return self.fail("it ends too soon") };
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        self.fail("a number is too long")
    }

    #[inline]
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        let end = self.at.checked_add(count);
        let Some(bytes) = end.and_then(|end| self.body.get(self.at..end)) else {
            return self.fail("a length leads past the end");
        };
        self.at += count;
        Ok(bytes)
    }

    pub(super) fn eight(&mut self) -> Result<u64, WireError> {
        let bytes = self.take(8)?;
        Ok(bytes.iter().rev().fold(0, |sum, b| sum << 8 | u64::from(*b)))
    }

    /// Bytes behind their length; `None` at the end.
    #[inline]
    pub(super) fn delimited(&mut self) -> Result<Option<&'a [u8]>, WireError> {
        if self.is_over() {
            return Ok(None);
        }
        let length = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
        self.take(length).map(Some)
    }

    #[inline]
    pub(super) fn next(&mut self) -> Result<Option<Field<'a>>, WireError> {
        if self.is_over() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let mut field = Field { number: tag >> 3, bytes: &[], value: 0, is_delimited: tag & 7 == 2 };
        match tag & 7 {
            0 => field.value = self.varint()?,
            1 => field.value = self.eight()?,
            2 => {
                let length = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
                field.bytes = self.take(length)?;
            }
            5 => {
                self.take(4)?;
            }
            _ => return self.fail("a field of an unknown kind"),
        }
        Ok(Some(field))
    }
}

pub(super) fn zigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
