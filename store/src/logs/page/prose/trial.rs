//! For whoever measures texts by words.

use zstd::bulk::Compressor;

use super::{Dictionary, Prose};
use crate::bytes::Reader;
use crate::logs::page::tables::Texts;

/// Texts as a page keeps them.
#[derive(Debug)]
pub struct PackedTexts {
    /// By zstd, and how many bytes it is without.
    dictionary: (Vec<u8>, usize),
    frames: Vec<Vec<u8>>,
    bytes: usize,
}

impl PackedTexts {
    /// Packs texts, and finds their words for a filter, as sealing a page does.
    ///
    /// # Errors
    /// zstd could not get memory.
    pub fn pack(texts: &[Vec<u8>], frame_bytes: usize) -> std::io::Result<Self> {
        let mut prose = Prose::of(texts.iter().map(Vec::as_slice));
        texts.iter().for_each(|text| prose.push(text));
        let mut keys = Vec::new();
        prose.note_words(&mut keys);
        let (ranked, mut plain) = (prose.rank(), Vec::new());
        ranked.dictionary(&mut plain);
        let mut compressor = Compressor::new(1)?;
        let dictionary = (compressor.compress(&plain)?, plain.len());
        let (mut frames, mut from, mut bytes, mut all) = (Vec::new(), 0, 0, 0);
        for (at, text) in texts.iter().enumerate() {
            bytes += text.len();
            if bytes >= frame_bytes || at + 1 == texts.len() {
                frames.push(ranked.frame(from..at + 1, bytes, &mut compressor)?);
                all += bytes;
                (from, bytes) = (at + 1, 0);
            }
        }
        Ok(Self { dictionary, frames, bytes: all })
    }

    /// Bytes on disk.
    pub fn stored_bytes(&self) -> usize {
        self.dictionary.0.len() + self.frames.iter().map(Vec::len).sum::<usize>()
    }

    /// Puts all texts together; answers how many there are. `None` if they are not what was packed.
    pub fn unpack(&self) -> Option<usize> {
        let plain = zstd::bulk::decompress(&self.dictionary.0, self.dictionary.1).ok()?;
        let dictionary = Dictionary::decode(&mut Reader::new(&plain))?;
        let (mut bytes, mut count) = (0, 0);
        for frame in &self.frames {
            let mut texts = Texts::default();
            dictionary.unpack(frame, self.bytes, &mut texts)?;
            bytes += texts.bytes.len();
            count += texts.len();
        }
        (bytes == self.bytes).then_some(count)
    }
}
