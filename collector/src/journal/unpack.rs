//! Data objects whose payload is compressed.

use std::io::Read;

use zstd::bulk::Decompressor;

use super::header::u64_at;

// Flags of an object: how its payload is compressed.
const XZ: u8 = 1;
const LZ4: u8 = 1 << 1;
const ZSTD: u8 = 1 << 2;

/// How far back a frame may refer; more than any journald asks for.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// LZ4 cannot be unpacked in part: what is larger is not read.
const LZ4_MAX_BYTES: u64 = 8 * 1024 * 1024;

/// Unpacks payloads, one after the other, into the same memory.
#[derive(Default)]
pub(super) struct Unpacker {
    zstd: Option<Decompressor<'static>>,
    plain: Vec<u8>,
}

impl std::fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unpacker").field("plain", &self.plain.len()).finish_non_exhaustive()
    }
}

impl Unpacker {
    /// The first `most` bytes of a payload, and how many there are in all, if that is known. `None` if it cannot be
    /// read: it is damaged, or compressed with XZ, which no journald has done by default since 2014.
    pub(super) fn unpack(&mut self, flags: u8, packed: &[u8], most: usize) -> Option<(&[u8], Option<u64>)> {
        match flags & (XZ | LZ4 | ZSTD) {
            ZSTD => self.zstd(packed, most),
            LZ4 => self.lz4(packed, most),
            _ => None,
        }
    }

    /// Gives memory back.
    pub(super) fn rest(&mut self) {
        *self = Self::default();
    }

    fn zstd(&mut self, packed: &[u8], most: usize) -> Option<(&[u8], Option<u64>)> {
        let size = zstd::zstd_safe::get_frame_content_size(packed).ok()?;
        self.plain.clear();
        if let Some(size) = size.filter(|size| *size <= most as u64) {
            if self.zstd.is_none() {
                self.zstd = Some(Decompressor::new().ok()?);
            }
            self.plain.reserve(size as usize);
            self.zstd.as_mut()?.decompress_to_buffer(packed, &mut self.plain).ok()?;
            return Some((&self.plain, Some(size)));
        }
        let mut stream = zstd::stream::read::Decoder::with_buffer(packed).ok()?.single_frame();
        stream.window_log_max(ZSTD_WINDOW_LOG_MAX).ok()?;
        stream.take(most as u64).read_to_end(&mut self.plain).ok()?;
        let is_whole = self.plain.len() < most;
        let size = size.or(is_whole.then_some(self.plain.len() as u64));
        Some((&self.plain, size))
    }

    /// Eight bytes that say how large it is, then a block.
    fn lz4(&mut self, packed: &[u8], most: usize) -> Option<(&[u8], Option<u64>)> {
        let (size, block) = packed.split_at_checked(8)?;
        let size = u64_at(size, 0);
        // A block cannot say more than 255 bytes with one.
        if size > LZ4_MAX_BYTES || size > (block.len() as u64).saturating_mul(255) {
            return None;
        }
        self.plain.resize(size as usize, 0);
        let unpacked = lz4_flex::block::decompress_into(block, &mut self.plain).ok()?;
        (unpacked as u64 == size).then_some(())?;
        Some((&self.plain[..unpacked.min(most)], Some(size)))
    }
}
