//! Samples: one value at one moment.

use crate::time::Timestamp;

/// The bit pattern that says "this series has ended", as Prometheus writes it.
///
/// It is a NaN with a payload of its own; an ordinary NaN is a value like any other.
pub const STALE_NAN: f64 = f64::from_bits(0x7ff0_0000_0000_0002);

/// Whether `value` is the staleness marker, to the bit.
pub fn is_stale(value: f64) -> bool {
    value.to_bits() == STALE_NAN.to_bits()
}

/// One value at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// When it was measured.
    pub timestamp: Timestamp,
    /// What was measured. Every bit counts: payloads of NaNs are kept.
    pub value: f64,
}

/// Equal to the bit, so that NaN equals itself.
impl PartialEq for Sample {
    fn eq(&self, other: &Self) -> bool {
        self.timestamp == other.timestamp && self.value.to_bits() == other.value.to_bits()
    }
}
