//! Chunks of release 1: times and values interleaved. Read, never written.
//!
//! ```text
//! chunk  := count:u16 first_time:i64 first_value:f64 bits      bits as in `open.rs`
//! ```

use binnacle_model::{Sample, Timestamp};

use super::bits::{BitReader, Window};
use super::open::read_time;

const PREFIX_BYTES: usize = 18;

/// Adds the samples of a chunk to `out`; `None` if the bytes are no chunk.
pub(crate) fn decode(bytes: &[u8], out: &mut Vec<Sample>) -> Option<()> {
    let count = usize::from(u16::from_le_bytes(bytes.get(..2)?.try_into().ok()?));
    if count == 0 {
        return Some(());
    }
    let mut time = i64::from_le_bytes(bytes.get(2..10)?.try_into().ok()?);
    let mut value = u64::from_le_bytes(bytes.get(10..18)?.try_into().ok()?);
    out.push(Sample { timestamp: Timestamp(time), value: f64::from_bits(value) });
    let mut bits = BitReader::new(&bytes[PREFIX_BYTES..]);
    let mut window = Window::NONE;
    let mut delta = 0i64;
    for _ in 1..count {
        delta = delta.wrapping_add(read_time(&mut bits)?);
        time = time.wrapping_add(delta);
        value ^= window.read(&mut bits)?;
        out.push(Sample { timestamp: Timestamp(time), value: f64::from_bits(value) });
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&bytes, &mut Vec::new());
        }
    }
}
