//! A page that was sealed: what is asked for is read, checked, decoded, and kept as long as the page is.

use std::io;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use binnacle_model::log::FileId;
use binnacle_model::{Labels, LogTime};

use super::seal::{HolePlace, PLACE_BYTES, Run, SectionPlace, WORDS, section};
use super::tables::{Folded, Texts};
use super::uses::{HoleNumber, Uses, holes_of_id};
use super::{Brief, Fuse, Grams, Minute, PageError, PageTemplate, Shared, ints};
use crate::bytes::Reader;
use crate::fs::ReadFile;
use crate::header::{self, HEADER_BYTES, HeaderError, LOG_PAGE_VERSION, MAGIC_LOG_PAGE};
use crate::logs::template::{Template, ValueKind};
use crate::wal::Sequence;

/// Bytes at the end of a page: where the directory is, how long, its checksum, and the magic.
const FOOTER_BYTES: usize = 16;

/// Sections of one page, and bytes of one section: what more a file claims is not believed.
const SECTIONS_MAX: usize = 65_536;
pub(super) const SECTION_MAX_BYTES: u32 = 256 * 1024 * 1024;

/// Looks through the texts after which it is noted what is where among them: that costs as much as some hundred of them.
const LOOKS_BEFORE_GRAMS: u32 = 4;

/// Rows of a page; one record of the log may bring more than a page is meant to have.
pub(super) const ROWS_MAX: usize = 8 * 1024 * 1024;

/// Where a page's bytes are.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) file: Arc<dyn ReadFile>,
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

impl Source {
    fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>, PageError> {
        let end = offset.checked_add(length as u64).filter(|end| *end <= self.length);
        end.ok_or(PageError::Damaged("a section outside of the page"))?;
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, self.offset + offset).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => PageError::Damaged("bytes that are missing"),
            _ => PageError::Read(error),
        })?;
        Ok(bytes)
    }
}

/// A page of a partition.
pub(crate) struct SealedPage {
    pub(super) source: Source,
    pub(super) sections: Vec<SectionPlace>,
    pub(super) rows: usize,
    raw_bytes: u64,
    pub(super) span: (LogTime, LogTime),
    pub(super) hash: u64,
    sequences: (Sequence, Sequence),
    pub(super) pushes: Vec<LogTime>,
    pub(super) streams: Vec<Labels>,
    pub(super) files: Vec<FileId>,
    pub(super) runs: Vec<Run>,
    pub(super) templates: Vec<PageTemplate>,
    /// Of the holes of each template.
    pub(super) places: Vec<Vec<HolePlace>>,
    pub(super) brief: Brief,
    /// The section of cells that each frame is, by its number.
    pub(super) frames: Vec<u32>,
    has_minutes: bool,
    is_on_minute: bool,
    /// Bytes of memory of what was read and is kept.
    weight: AtomicUsize,
    texts: OnceLock<Texts>,
    folded: OnceLock<Folded>,
    uses: OnceLock<Uses>,
    grams: OnceLock<Grams>,
    /// How often somebody looked through the texts.
    looks: AtomicU32,
    longest_hex: OnceLock<usize>,
    filter: OnceLock<Fuse>,
    /// The number of each row's template, of which few pages have more than 65,536.
    numbers: OnceLock<Vec<u16>>,
}

impl std::fmt::Debug for SealedPage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SealedPage({} rows)", self.rows)
    }
}

const NO_TEMPLATE: PageError = PageError::Damaged("a template that is not there");

pub(super) const SHORT: PageError = PageError::Damaged("a section that ends too soon");

impl SealedPage {
    /// Reads the directory and the head.
    pub(crate) fn open(source: Source, shared: &Mutex<Shared>) -> Result<Self, PageError> {
        let least = (HEADER_BYTES + FOOTER_BYTES) as u64;
        if source.length < least || source.length > u64::from(u32::MAX) {
            return Err(PageError::Damaged("no page has this size"));
        }
        let header = source.read(0, HEADER_BYTES)?;
        header::decode(&header, MAGIC_LOG_PAGE, LOG_PAGE_VERSION).map_err(|error| match error {
            // It is sound, and must not be set aside.
            HeaderError::TooNew(_) => PageError::Read(io::Error::new(io::ErrorKind::Unsupported, error)),
            _ => PageError::Damaged("the header is not that of a page"),
        })?;
        let sections = directory(&source)?;
        let place = sections.iter().find(|place| place.kind == section::HEAD);
        let head = read_section(&source, *place.ok_or(PageError::Damaged("no head"))?)?;
        let mut page = Self::parse(&head, &mut shared.lock().unwrap_or_else(PoisonError::into_inner))
            .ok_or(PageError::Damaged("the head contradicts the format"))?;
        page.source = source;
        page.sections = sections;
        page.weight = AtomicUsize::new(2 * head.len() + 256);
        Ok(page)
    }

    /// A page of a head alone, for whoever throws bytes at it.
    pub(super) fn of_head(head: &[u8], shared: &mut Shared) -> Option<Self> {
        Self::parse(head, shared)
    }

    fn parse(head: &[u8], shared: &mut Shared) -> Option<Self> {
        let reader = &mut Reader::new(head);
        let rows = usize::try_from(reader.varint()?).ok().filter(|rows| (1..=ROWS_MAX).contains(rows))?;
        let raw_bytes = reader.varint()?;
        let span = (LogTime(reader.zigzag()?), LogTime(reader.zigzag()?));
        let hash = reader.u64()?;
        let sequences = (Sequence(reader.varint()?), Sequence(reader.varint()?));
        let pushes = read_pushes(reader)?;
        let (streams, stream_numbers) = read_streams(reader, shared)?;
        let files = (0..reader.count()?)
            .map(|_| Some(FileId(reader.text()?.to_owned())))
            .collect::<Option<Vec<_>>>()?;
        let runs = read_runs(reader, streams.len(), files.len())?;
        let rows_of_runs: u64 = runs.iter().map(|run| u64::from(run.rows)).sum();
        let flags = reader.u8()?;
        let (has_minutes, is_on_minute) = (flags & 1 == 1, flags & 2 == 2);
        let mut frames = vec![u32::MAX; reader.count()?];
        for section in 0..frames.len() {
            let number = usize::try_from(reader.varint()?).ok()?;
            *frames.get_mut(number)? = section as u32;
        }
        let (mut templates, mut places) = (Vec::new(), Vec::new());
        let (mut numbers, mut brief) = (Vec::new(), Brief::default());
        let mut rows_of_templates = 0u64;
        for _ in 0..reader.count()? {
            let (template, place) = read_template(reader, has_minutes, shared)?;
            rows_of_templates += u64::from(template.rows);
            numbers.push(template.number?);
            brief.push(&template, place.iter().fold(0, |kinds, hole| kinds | hole.kinds));
            templates.push(template);
            places.push(place);
        }
        let is_sound = rows_of_runs == rows as u64 && rows_of_templates == rows as u64 && reader.is_empty();
        is_sound.then_some(())?;
        brief.numbers = shared.numbered(numbers)?;
        brief.streams = shared.numbered_streams(stream_numbers)?;
        let nowhere = Source { file: Arc::new(Nowhere), offset: 0, length: 0 };
        let (sections, weight) = (Vec::new(), AtomicUsize::new(0));
        let (texts, folded, uses) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        let (filter, numbers, longest_hex) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        Some(Self {
            source: nowhere,
            sections,
            rows,
            raw_bytes,
            span,
            hash,
            sequences,
            pushes,
            streams,
            files,
            runs,
            templates,
            places,
            brief,
            frames,
            has_minutes,
            is_on_minute,
            weight,
            texts,
            folded,
            uses,
            grams: OnceLock::new(),
            looks: AtomicU32::new(0),
            longest_hex,
            filter,
            numbers,
        })
    }

    /// How many rows it has.
    pub(crate) fn rows(&self) -> u64 {
        self.rows as u64
    }

    /// The first and the last moment.
    pub(crate) fn span(&self) -> (LogTime, LogTime) {
        self.span
    }

    /// The records of the log that it has lines of.
    pub(crate) fn sequences(&self) -> (Sequence, Sequence) {
        self.sequences
    }

    /// Bytes of messages.
    pub(crate) fn raw_bytes(&self) -> u64 {
        self.raw_bytes
    }

    /// The sum of the hashes of its messages.
    pub(crate) fn messages(&self) -> u64 {
        self.hash
    }

    /// Whether its templates know their minutes.
    pub(crate) fn has_minutes(&self) -> bool {
        self.has_minutes
    }

    /// Whether a row lies exactly where a minute begins.
    pub(crate) fn is_on_minute(&self) -> bool {
        self.is_on_minute
    }

    /// Rows of each stream: number and count.
    pub(crate) fn stream_rows(&self) -> impl Iterator<Item = (u32, u32)> {
        self.runs.iter().map(|run| (run.stream, run.rows))
    }

    /// Bytes of the messages of each stream; `None` in a page of an earlier release.
    pub(super) fn bytes_by_stream(&self) -> Result<Option<Vec<u64>>, PageError> {
        if !self.sections.iter().any(|place| place.kind == section::STREAM_BYTES) {
            return Ok(None);
        }
        let plain = self.section(section::STREAM_BYTES, 0)?;
        let mut reader = Reader::new(&plain);
        let bytes: Option<Vec<u64>> = self.streams.iter().map(|_| reader.varint()).collect();
        let sum = bytes.as_ref().and_then(|all| all.iter().try_fold(0u64, |sum, one| sum.checked_add(*one)));
        if sum != Some(self.raw_bytes) || !reader.is_empty() {
            return Err(PageError::Damaged("the bytes of streams"));
        }
        Ok(bytes)
    }

    /// Bytes of memory that it holds now.
    pub(crate) fn weight(&self) -> usize {
        self.weight.load(Ordering::Relaxed)
    }

    pub(super) fn section(&self, kind: u8, at: usize) -> Result<Vec<u8>, PageError> {
        let place = self.sections.iter().filter(|place| place.kind == kind).nth(at);
        read_section(&self.source, *place.ok_or(PageError::Damaged("a section is missing"))?)
    }

    /// What is kept in `slot`, read the first time.
    fn once<'a, T>(
        &'a self,
        slot: &'a OnceLock<T>,
        weigh: impl FnOnce(&T) -> usize,
        read: impl FnOnce() -> Result<T, PageError>,
    ) -> Result<&'a T, PageError> {
        if let Some(known) = slot.get() {
            return Ok(known);
        }
        let value = read()?;
        let weight = weigh(&value);
        // Two readers at once: one of the two answers is kept, and they are the same.
        if slot.set(value).is_ok() {
            self.weight.fetch_add(weight, Ordering::Relaxed);
        }
        slot.get().ok_or(PageError::Damaged("nothing was read"))
    }

    pub(super) fn texts(&self) -> Result<&Texts, PageError> {
        let read = || decode_texts(&self.section(section::TEXTS, 0)?).ok_or(SHORT);
        self.once(&self.texts, Texts::weight, read)
    }

    /// The texts without letter case.
    pub(super) fn folded(&self) -> Result<&Folded, PageError> {
        self.once(&self.folded, Folded::weight, || Ok(Folded::of(self.texts()?)))
    }

    /// Where bytes may be among the texts; `None` as long as few searches have looked.
    pub(super) fn grams(&self) -> Result<Option<&Grams>, PageError> {
        if self.grams.get().is_none() && self.looks.fetch_add(1, Ordering::Relaxed) < LOOKS_BEFORE_GRAMS {
            return Ok(None);
        }
        self.once(&self.grams, Grams::weight, || Ok(Grams::of(&self.texts()?.bytes))).map(Some)
    }

    /// Bytes of the longest run of hex digits and dashes among the texts.
    pub(super) fn longest_hex(&self) -> Result<usize, PageError> {
        let longest = self.once(&self.longest_hex, |_| 0, || Ok(self.texts()?.longest_hex()))?;
        Ok(*longest)
    }

    /// Which variables have each text; `None` in a page of an earlier release.
    pub(super) fn uses(&self) -> Result<Option<&Uses>, PageError> {
        if !self.sections.iter().any(|place| place.kind == section::USES) {
            return Ok(None);
        }
        let uses = self.once(&self.uses, Uses::weight, || {
            let plain = self.section(section::USES, 0)?;
            Uses::decode(&plain, &self.templates, &self.places, self.texts()?.len())
        })?;
        Ok(Some(uses))
    }

    /// The holes that have an id of 16 (or else 32) digits; `None` in a page of an earlier release.
    pub(super) fn holes_of_id(&self, number: u32, is_16: bool) -> Result<Option<Vec<HoleNumber>>, PageError> {
        if !self.sections.iter().any(|place| place.kind == section::ID_USES) {
            return Ok(None);
        }
        let plain = self.section(section::ID_USES, 0)?;
        let holes = holes_of_id(&plain, &self.places, number, is_16);
        holes.map(Some).ok_or(PageError::Damaged("the places of ids"))
    }

    pub(super) fn filter(&self) -> Result<Option<&Fuse>, PageError> {
        if !self.sections.iter().any(|place| place.kind == section::FILTER) {
            return Ok(None);
        }
        let filter = self.once(&self.filter, Fuse::weight, || {
            Fuse::decode(&self.section(section::FILTER, 0)?).ok_or(PageError::Damaged("the filter"))
        })?;
        Ok(Some(filter))
    }

    /// The number of each row's template, where all of them are small.
    pub(super) fn short_template_column(&self) -> Result<Option<&[u16]>, PageError> {
        if u16::try_from(self.templates.len()).is_err() {
            return Ok(None);
        }
        let numbers = self.once(
            &self.numbers,
            |numbers| 2 * numbers.len(),
            || {
                let plain = self.section(section::TEMPLATE_COLUMN, 0)?;
                if plain.len() != 3 * self.rows {
                    return Err(SHORT);
                }
                let (low, rest) = plain.split_at(self.rows);
                let numbers = low.iter().zip(rest).map(|(low, high)| u16::from_le_bytes([*low, *high]));
                let numbers: Vec<u16> = numbers.collect();
                let is_sound = numbers.iter().all(|number| usize::from(*number) < self.templates.len());
                is_sound.then_some(numbers).ok_or(NO_TEMPLATE)
            },
        )?;
        Ok(Some(numbers))
    }

    pub(super) fn template_column(&self) -> Result<Vec<u32>, PageError> {
        if let Some(numbers) = self.short_template_column()? {
            return Ok(numbers.iter().map(|number| u32::from(*number)).collect());
        }
        let plain = self.section(section::TEMPLATE_COLUMN, 0)?;
        if plain.len() != 3 * self.rows {
            return Err(SHORT);
        }
        let byte = |at: usize, row: usize| plain[at * self.rows + row];
        let number = |row: usize| u32::from_le_bytes([byte(0, row), byte(1, row), byte(2, row), 0]);
        let numbers: Vec<u32> = (0..self.rows).map(number).collect();
        let count = self.templates.len() as u32;
        let is_sound = numbers.iter().all(|number| *number < count);
        is_sound.then_some(numbers).ok_or(NO_TEMPLATE)
    }

    pub(super) fn occurrences(&self, numbers: &[u32]) -> Result<Vec<u32>, PageError> {
        let mut counts = vec![0u32; self.templates.len()];
        let mut occurrences = Vec::with_capacity(self.rows);
        for number in numbers {
            let count = &mut counts[*number as usize];
            occurrences.push(*count);
            *count += 1;
        }
        let is_sound = counts.iter().zip(&self.templates).all(|(count, template)| *count == template.rows);
        let wrong = PageError::Damaged("rows of templates that do not add up");
        is_sound.then_some(occurrences).ok_or(wrong)
    }

    pub(super) fn expand(&self, of: impl Fn(&Run) -> u32) -> Vec<u32> {
        let mut column = Vec::with_capacity(self.rows);
        self.runs.iter().for_each(|run| column.extend(std::iter::repeat_n(of(run), run.rows as usize)));
        column
    }

    pub(super) fn origins(&self) -> Result<(Vec<u64>, Vec<u32>), PageError> {
        let plain = self.section(section::ORIGINS, 0)?;
        let reader = &mut Reader::new(&plain);
        let length = reader.count().ok_or(SHORT)?;
        let steps = unpack_signed(reader.bytes(length).ok_or(SHORT)?, self.rows)?;
        let mut offset = 0u64;
        let offsets = steps.into_iter().map(|step| {
            offset = offset.wrapping_add(step as u64);
            offset
        });
        let pushes = ints::decode(reader, self.rows).ok_or(SHORT)?;
        if pushes.iter().any(|push| *push >= self.pushes.len() as u64) {
            return Err(PageError::Damaged("a push that is not there"));
        }
        Ok((offsets.collect(), pushes.into_iter().map(|push| push as u32).collect()))
    }

    pub(super) fn times(&self) -> Result<Vec<i64>, PageError> {
        let mut times = unpack_signed(&self.section(section::TIMES, 0)?, self.rows)?;
        let mut time = 0i64;
        for step in &mut times {
            time = time.wrapping_add(*step);
            *step = time;
        }
        Ok(times)
    }

    pub(super) fn ids(&self) -> Result<(Vec<u64>, Vec<u128>), PageError> {
        let plain = self.section(section::IDS, 0)?;
        let reader = &mut Reader::new(&plain);
        let count = reader.count().ok_or(SHORT)?;
        let short = reader.bytes(8 * count).ok_or(SHORT)?;
        if !reader.rest().len().is_multiple_of(16) {
            return Err(SHORT);
        }
        let short = short.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes));
        let long = reader.rest().as_chunks::<16>().0.iter().map(|bytes| u128::from_le_bytes(*bytes));
        Ok((short.collect(), long.collect()))
    }
}

fn directory(source: &Source) -> Result<Vec<SectionPlace>, PageError> {
    let footer = source.read(source.length - FOOTER_BYTES as u64, FOOTER_BYTES)?;
    let number = |at: usize| footer[at..].first_chunk::<4>().map_or(0, |bytes| u32::from_le_bytes(*bytes));
    let (start, count, crc) = (number(0), number(4) as usize, number(8));
    if footer[12..] != MAGIC_LOG_PAGE || count > SECTIONS_MAX {
        return Err(PageError::Damaged("the footer is not that of a page"));
    }
    let bytes = source.read(u64::from(start), count * PLACE_BYTES)?;
    if crc32c::crc32c(&bytes) != crc {
        return Err(PageError::Damaged("the checksum of the directory is wrong"));
    }
    let place = |bytes: &[u8]| {
        let number = |at: usize| bytes[at..].first_chunk::<4>().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        SectionPlace {
            kind: bytes[0],
            offset: number(1),
            stored: number(5),
            plain: number(9),
            crc: number(13),
        }
    };
    Ok(bytes.chunks_exact(PLACE_BYTES).map(place).collect())
}

/// A section, checked and plain.
pub(super) fn read_section(source: &Source, place: SectionPlace) -> Result<Vec<u8>, PageError> {
    if place.plain > SECTION_MAX_BYTES || place.stored > place.plain {
        return Err(PageError::Damaged("a section that is too large"));
    }
    let stored = source.read(u64::from(place.offset), place.stored as usize)?;
    if crc32c::crc32c(&stored) != place.crc {
        return Err(PageError::Damaged("the checksum of a section is wrong"));
    }
    if place.plain == place.stored {
        return Ok(stored);
    }
    let plain = zstd::bulk::decompress(&stored, place.plain as usize)
        .map_err(|_| PageError::Damaged("a section that cannot be unpacked"))?;
    if plain.len() != place.plain as usize {
        return Err(SHORT);
    }
    Ok(plain)
}

fn read_pushes(reader: &mut Reader<'_>) -> Option<Vec<LogTime>> {
    let mut time = 0i64;
    let mut next = |reader: &mut Reader<'_>| {
        time = time.wrapping_add(reader.zigzag()?);
        Some(LogTime(time))
    };
    (0..reader.count()?).map(|_| next(reader)).collect()
}

fn read_streams(reader: &mut Reader<'_>, shared: &mut Shared) -> Option<(Vec<Labels>, Vec<u32>)> {
    let (mut streams, mut numbers) = (Vec::new(), Vec::new());
    for _ in 0..reader.count()? {
        let mut pairs = Vec::new();
        for _ in 0..reader.count()? {
            pairs.push((reader.text()?, reader.text()?));
        }
        let (stream, number) = shared.stream(Labels::new(pairs).ok()?);
        streams.push(stream);
        numbers.push(number);
    }
    Some((streams, numbers))
}

/// Runs of so many streams and files.
fn read_runs(reader: &mut Reader<'_>, streams: usize, files: usize) -> Option<Vec<Run>> {
    let mut runs = Vec::new();
    for _ in 0..reader.count()? {
        let mut number = || u32::try_from(reader.varint()?).ok();
        let run = Run { stream: number()?, file: number()?, rows: number()? };
        let is_sound = (run.stream as usize) < streams && (run.file as usize) < files;
        runs.push(is_sound.then_some(run)?);
    }
    Some(runs)
}

fn read_template(
    reader: &mut Reader<'_>,
    has_minutes: bool,
    shared: &mut Shared,
) -> Option<(PageTemplate, Vec<HolePlace>)> {
    let length = reader.count()?;
    let text = reader.bytes(length)?;
    let (mut cuts, mut cut) = (Vec::new(), 0u32);
    for _ in 0..reader.count()? {
        cut = cut
            .checked_add(u32::try_from(reader.varint()?).ok()?)
            .filter(|cut| *cut as usize <= text.len())?;
        cuts.push(cut);
    }
    let level = reader.u8()?;
    let mut attributes = Vec::new();
    for _ in 0..reader.count()? {
        attributes.push((Arc::from(reader.text()?), ValueKind::from_byte(reader.u8()?)?));
    }
    let rows = u32::try_from(reader.varint()?).ok()?;
    let bytes = reader.varint()?;
    let holes = cuts.len() + attributes.len();
    let (mut places, mut last) = (Vec::with_capacity(holes), [HolePlace::default(); 2]);
    for _ in 0..holes {
        let kinds = u16::try_from(reader.varint()?).ok()?;
        let last = &mut last[usize::from(kinds & WORDS != 0)];
        let frame = u32::try_from(i64::from(last.frame).checked_add(reader.zigzag()?)?).ok()?;
        let offset = u32::try_from(i64::from(last.offset).checked_add(reader.zigzag()?)?).ok()?;
        *last = HolePlace { kinds, frame, offset };
        places.push(*last);
    }
    let (mut minutes, mut previous) = (Vec::new(), 0i64);
    if has_minutes {
        for _ in 0..reader.count()? {
            previous = previous.checked_add(reader.zigzag()?)?;
            let rows = u32::try_from(reader.varint()?).ok()?;
            minutes.push(Minute { at: previous, rows, bytes: reader.varint()? });
        }
    }
    let template = Template { text: text.into(), cuts: cuts.into(), level, attributes: attributes.into() };
    let (template, number) = shared.template(template);
    Some((PageTemplate { template, rows, bytes, minutes, number: Some(number) }, places))
}

pub(super) fn decode_texts(plain: &[u8]) -> Option<Texts> {
    let reader = &mut Reader::new(plain);
    let count = reader.count()?;
    let (mut ends, mut end) = (Vec::with_capacity(count), 0u32);
    for _ in 0..count {
        end = end.checked_add(u32::try_from(reader.varint()?).ok()?)?;
        ends.push(end);
    }
    let bytes = reader.rest().to_vec();
    (bytes.len() == end as usize).then_some(Texts { bytes, ends })
}

fn unpack_signed(bytes: &[u8], count: usize) -> Result<Vec<i64>, PageError> {
    let mut values = vec![0i64; count];
    let progress = pco::standalone::simple_decompress_into(bytes, &mut values)
        .map_err(|_| PageError::Damaged("a column of numbers"))?;
    if progress.n_processed != count || !progress.finished {
        return Err(SHORT);
    }
    Ok(values)
}

/// A file without a byte.
struct Nowhere;

impl ReadFile for Nowhere {
    fn size(&self) -> io::Result<u64> {
        Ok(0)
    }
    fn read_exact_at(&self, _: &mut [u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}
