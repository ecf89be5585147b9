//! The bodies of a page as sections: by zstd, or by words where that is smaller.

use std::cell::OnceCell;
use std::ops::Range;

use super::PageError;
use super::open::OpenPage;
use super::prose::{Dictionary, Prose};
use super::reader::once;
use super::seal::{PLACE_BYTES, SectionPlace, Stored, Writer, encode_texts, note_words, section};
use super::sealed::{SECTION_MAX_BYTES, SHORT, SealedPage, decode_texts, read_section};
use super::tables::Texts;
use crate::bytes::{Reader, put_varint};

/// Bodies are compressed together until they are so large.
const FRAME_BYTES: usize = 128 * 1024;

/// With fewer bytes a dictionary is not worth a try.
const PROSE_MIN_BYTES: usize = 64 * 1024;

/// Words have to save one byte in so many: texts are put together more slowly from them than by zstd.
const PROSE_MIN_GAIN: usize = 16;

/// Bodies that are read together.
struct Frame {
    bodies: Range<usize>,
    /// Of the bodies.
    bytes: usize,
    kind: u8,
    stored: Stored,
}

/// Writes the bodies of these numbers, and notes their words.
pub(super) fn write(
    page: &OpenPage,
    numbers: &[u32],
    writer: &mut Writer,
    keys: &mut Vec<u64>,
) -> std::io::Result<()> {
    let body = |number: &u32| page.tables.bodies.get(*number as usize).unwrap_or_default();
    let mut prose = Prose::of(numbers.iter().map(body));
    let (mut frames, mut frame) = (Vec::new(), Texts::default());
    for (at, number) in numbers.iter().enumerate() {
        let body = body(number);
        prose.push(body);
        // The letters of a terminal's colour code are no part of the word behind it, but of the piece.
        if memchr::memchr(0x1b, body).is_some() {
            note_words(body, keys);
        }
        frame.push(body);
        if frame.bytes.len() >= FRAME_BYTES || at + 1 == numbers.len() {
            let stored = writer.pack(encode_texts(&frame), true)?;
            let bodies = at + 1 - frame.len()..at + 1;
            frames.push(Frame { bodies, bytes: frame.bytes.len(), kind: section::BODIES, stored });
            frame.clear();
        }
    }
    prose.note_words(keys);
    take_words(&prose, &mut frames, writer)?;
    frames.iter().for_each(|frame| writer.put(frame.kind, &frame.stored));
    Ok(())
}

/// Writes the dictionary, and packs those frames by words that are smaller so, if all that is worth it.
fn take_words(prose: &Prose, frames: &mut [Frame], writer: &mut Writer) -> std::io::Result<()> {
    let size = |frames: &[Frame]| frames.iter().map(|frame| frame.stored.bytes.len()).sum::<usize>();
    if frames.iter().map(|frame| frame.bytes).sum::<usize>() < PROSE_MIN_BYTES {
        return Ok(());
    }
    let ranked = prose.rank();
    let mut plain = Vec::new();
    put_varint(&mut plain, frames.len() as u64);
    frames.iter().for_each(|frame| put_varint(&mut plain, frame.bodies.len() as u64));
    ranked.dictionary(&mut plain);
    let dictionary = writer.pack(plain, true)?;
    let (mut gain, mut by_words) = (0, Vec::with_capacity(frames.len()));
    for frame in &*frames {
        let packed = ranked.frame(frame.bodies.clone(), frame.bytes, &mut writer.compressor)?;
        let packed = Some(packed).filter(|packed| packed.len() < frame.stored.bytes.len());
        gain += packed.as_ref().map_or(0, |packed| frame.stored.bytes.len() - packed.len());
        by_words.push(packed);
    }
    if gain < dictionary.bytes.len() + PLACE_BYTES + size(frames) / PROSE_MIN_GAIN {
        return Ok(());
    }
    writer.put(section::DICTIONARY, &dictionary);
    for (frame, packed) in frames.iter_mut().zip(by_words) {
        if let Some(packed) = packed {
            frame.kind = section::PROSE;
            frame.stored = writer.pack(packed, false)?;
        }
    }
    Ok(())
}

const DAMAGED: PageError = PageError::Damaged("texts by words");

/// The bodies of a sealed page, read frame by frame as somebody wants them.
pub(super) struct Bodies {
    dictionary: Option<Dictionary>,
    places: Vec<SectionPlace>,
    /// How many bodies are in each frame and those before it.
    ends: Vec<u32>,
    frames: Vec<OnceCell<Texts>>,
}

impl Bodies {
    /// Reads how many there are where. Where there is no dictionary, nothing says that but the bodies themselves.
    pub(super) fn open(page: &SealedPage) -> Result<Self, PageError> {
        let of_kind = |place: &&SectionPlace| matches!(place.kind, section::BODIES | section::PROSE);
        let places: Vec<SectionPlace> = page.sections.iter().filter(of_kind).copied().collect();
        let mut bodies = Self { dictionary: None, places, ends: Vec::new(), frames: Vec::new() };
        if page.sections.iter().any(|place| place.kind == section::DICTIONARY) {
            bodies.dictionary =
                Some(bodies.read_dictionary(&page.section(section::DICTIONARY, 0)?).ok_or(DAMAGED)?);
            bodies.frames = vec![OnceCell::new(); bodies.places.len()];
            return Ok(bodies);
        }
        let mut end = 0u32;
        for number in 0..bodies.places.len() {
            let frame = bodies.read(page, number)?;
            end = end.checked_add(frame.len() as u32).ok_or(SHORT)?;
            bodies.ends.push(end);
            bodies.frames.push(OnceCell::from(frame));
        }
        Ok(bodies)
    }

    fn read_dictionary(&mut self, plain: &[u8]) -> Option<Dictionary> {
        let reader = &mut Reader::new(plain);
        if reader.count()? != self.places.len() {
            return None;
        }
        let mut end = 0u32;
        for _ in &self.places {
            end = end.checked_add(u32::try_from(reader.varint()?).ok()?)?;
            self.ends.push(end);
        }
        Dictionary::decode(reader).filter(|_| reader.is_empty())
    }

    fn read(&self, page: &SealedPage, number: usize) -> Result<Texts, PageError> {
        let place = self.places[number];
        let stored = read_section(&page.source, place)?;
        if place.kind == section::BODIES {
            return decode_texts(&stored).ok_or(SHORT);
        }
        let (dictionary, mut texts) = (self.dictionary.as_ref().ok_or(DAMAGED)?, Texts::default());
        dictionary.unpack(&stored, SECTION_MAX_BYTES as usize, &mut texts).ok_or(DAMAGED)?;
        Ok(texts)
    }

    fn frame(&self, page: &SealedPage, number: usize) -> Result<&Texts, PageError> {
        once(&self.frames[number], || {
            let frame = self.read(page, number)?;
            let before = number.checked_sub(1).map_or(0, |before| self.ends[before]);
            let is_whole = frame.len() == (self.ends[number] - before) as usize;
            is_whole.then_some(frame).ok_or(DAMAGED)
        })
    }

    /// A body; `None` if there is none of this number.
    pub(super) fn get(&self, page: &SealedPage, number: usize) -> Result<Option<&[u8]>, PageError> {
        let at = self.ends.partition_point(|end| *end as usize <= number);
        if at == self.ends.len() {
            return Ok(None);
        }
        let before = at.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        Ok(self.frame(page, at)?.get(number - before))
    }

    /// Reads and visits all of them.
    pub(super) fn each(&self, page: &SealedPage, visit: &mut dyn FnMut(&[u8])) -> Result<(), PageError> {
        (0..self.places.len()).try_for_each(|number| {
            self.frame(page, number)?.iter().for_each(&mut *visit);
            Ok(())
        })
    }
}
