//! The wire format of protobuf messages, walked field by field: nothing is copied and nothing allocated.

/// Why a body is no write request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("body is no such message of protobuf: {reason} at byte {at}")]
pub struct WireError {
    pub(super) at: usize,
    pub(super) reason: &'static str,
}

/// The fields of a protobuf message, one after the other.
pub(super) struct Fields<'a> {
    pub(super) body: &'a [u8],
    /// Where `body` stands in the whole, for errors.
    base: usize,
    pub(super) position: usize,
}

pub(super) struct Field<'a> {
    pub(super) number: u64,
    /// Where the field's tag begins in its message.
    pub(super) start: usize,
    /// Where its content begins in the whole.
    pub(super) at: usize,
    /// Of a field with a length.
    pub(super) bytes: Option<&'a [u8]>,
    /// Of a field without.
    pub(super) number_value: u64,
}

impl<'a> Fields<'a> {
    pub(super) fn new(body: &'a [u8], base: usize) -> Self {
        Self { body, base, position: 0 }
    }

    pub(super) fn fail<T>(&self, reason: &'static str) -> Result<T, WireError> {
        Err(WireError { at: self.base + self.position, reason })
    }

    #[inline]
    pub(super) fn varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let Some(byte) = self.body.get(self.position) else { return self.fail("it ends too soon") };
            self.position += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        self.fail("a number is too long")
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        let end = self.position.checked_add(count);
        let Some(bytes) = end.and_then(|end| self.body.get(self.position..end)) else {
            return self.fail("a length leads past the end");
        };
        self.position += count;
        Ok(bytes)
    }

    /// Passes over short messages of one field, given by its tag, that come one after the other here; answers where they
    /// end.
    #[inline]
    pub(super) fn pass_run(&mut self, tag: u8) -> usize {
        while let Some([found, length]) = self.body.get(self.position..).and_then(|rest| rest.first_chunk()) {
            let end = self.position + 2 + usize::from(*length);
            if *found != tag || *length >= 0x80 || end > self.body.len() {
                break;
            }
            self.position = end;
        }
        self.position
    }

    #[inline]
    pub(super) fn next(&mut self) -> Result<Option<Field<'a>>, WireError> {
        if self.position == self.body.len() {
            return Ok(None);
        }
        let start = self.position;
        let tag = self.varint()?;
        let mut field = Field { number: tag >> 3, start, at: 0, bytes: None, number_value: 0 };
        match tag & 7 {
            0 => field.number_value = self.varint()?,
            1 => {
                let bytes = self.take(8)?;
                field.number_value = bytes.iter().rev().fold(0, |sum, b| sum << 8 | u64::from(*b));
            }
            2 => {
                let length = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
                field.at = self.base + self.position;
                field.bytes = Some(self.take(length)?);
            }
            5 => {
                self.take(4)?;
            }
            _ => return self.fail("a field of an unknown kind"),
        }
        Ok(Some(field))
    }
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}
