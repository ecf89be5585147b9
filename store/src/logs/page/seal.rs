//! An open page as bytes. The format is `store/docs/format/logs.md`.

use std::collections::HashMap;

use binnacle_model::tokens::words;

use super::bodies;
use super::cells::{self, Scratch};
use super::open::OpenPage;
use super::tables::Texts;
use super::uses::{IdUsesWriter, IdsWriter, UsesWriter};
use super::{Fuse, Minute, PageTemplate, PageView, ints, key_of};
use crate::bytes::{put_text, put_varint, put_zigzag};
use crate::header::{self, HEADER_BYTES, LOG_PAGE_VERSION, MAGIC_LOG_PAGE};
use crate::logs::split::{Cell, Kind, write_id16, write_id32};
use crate::logs::template::Template;

/// Columns of templates are compressed together until they are so large.
const FRAME_BYTES: usize = 64 * 1024;

/// zstd's level: higher ones gain little on packed columns.
const LEVEL: i32 = 1;

/// Numbers below this are in no filter: nearly every page has them.
pub(crate) const FILTERED_MIN: u64 = 1000;

/// Nanoseconds of a minute.
pub(crate) const MINUTE_NS: i64 = 60_000_000_000;

/// The version of pages without bodies by words: releases before these can read them.
const VERSION_WITHOUT_PROSE: u8 = 2;

/// Kinds of sections.
pub(super) mod section {
    pub(in super::super) const HEAD: u8 = 1;
    pub(in super::super) const TEMPLATE_COLUMN: u8 = 2;
    pub(in super::super) const TIMES: u8 = 3;
    pub(in super::super) const ORIGINS: u8 = 4;
    pub(in super::super) const TEXTS: u8 = 5;
    pub(in super::super) const IDS: u8 = 6;
    pub(in super::super) const FILTER: u8 = 7;
    pub(in super::super) const CELLS: u8 = 8;
    pub(in super::super) const BODIES: u8 = 9;
    pub(in super::super) const USES: u8 = 10;
    pub(in super::super) const DICTIONARY: u8 = 11;
    pub(in super::super) const PROSE: u8 = 12;
    pub(in super::super) const ID_USES: u8 = 13;
    pub(in super::super) const STREAM_BYTES: u8 = 14;
}

/// One entry of a page's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SectionPlace {
    pub(super) kind: u8,
    pub(super) offset: u32,
    pub(super) stored: u32,
    /// Before it was compressed; the same as `stored` if it was not.
    pub(super) plain: u32,
    pub(super) crc: u32,
}

/// Bytes of a directory entry.
pub(super) const PLACE_BYTES: usize = 17;

/// A section as it will be written.
pub(super) struct Stored {
    pub(super) bytes: Vec<u8>,
    plain: u32,
}

/// A page under way.
pub(super) struct Writer {
    out: Vec<u8>,
    places: Vec<SectionPlace>,
    /// The numbers of the frames of cells, in the order in which they were written.
    frames: Vec<u32>,
    pub(super) compressor: zstd::bulk::Compressor<'static>,
}

impl Writer {
    /// A section of these bytes, by zstd if that is wanted and makes it smaller.
    pub(super) fn pack(&mut self, plain: Vec<u8>, compress: bool) -> std::io::Result<Stored> {
        let compressed =
            if compress && plain.len() > 32 { Some(self.compressor.compress(&plain)?) } else { None };
        let length = plain.len();
        let bytes = compressed.filter(|bytes| bytes.len() < length - length / 32).unwrap_or(plain);
        Ok(Stored { bytes, plain: length as u32 })
    }

    pub(super) fn put(&mut self, kind: u8, section: &Stored) {
        let Stored { bytes, plain } = section;
        let (offset, stored) = (self.out.len() as u32, bytes.len() as u32);
        self.out.extend_from_slice(bytes);
        self.places.push(SectionPlace { kind, offset, stored, plain: *plain, crc: crc32c::crc32c(bytes) });
    }

    fn section(&mut self, kind: u8, plain: Vec<u8>, compress: bool) -> std::io::Result<()> {
        let stored = self.pack(plain, compress)?;
        self.put(kind, &stored);
        Ok(())
    }

    /// A frame of cells.
    fn frame(&mut self, number: u32, plain: Vec<u8>) -> std::io::Result<()> {
        self.section(section::CELLS, plain, true)?;
        self.frames.push(number);
        Ok(())
    }

    fn finish(mut self) -> Vec<u8> {
        let has_prose = self.places.iter().any(|place| place.kind == section::PROSE);
        let version = if has_prose { LOG_PAGE_VERSION } else { VERSION_WITHOUT_PROSE };
        self.out[..HEADER_BYTES].copy_from_slice(&header::encode(MAGIC_LOG_PAGE, version));
        let start = self.out.len() as u32;
        for place in &self.places {
            self.out.push(place.kind);
            for number in [place.offset, place.stored, place.plain, place.crc] {
                self.out.extend_from_slice(&number.to_le_bytes());
            }
        }
        let crc = crc32c::crc32c(&self.out[start as usize..]);
        for number in [start, self.places.len() as u32, crc] {
            self.out.extend_from_slice(&number.to_le_bytes());
        }
        self.out.extend_from_slice(&MAGIC_LOG_PAGE);
        self.out
    }
}

/// A run of rows of one stream and file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) stream: u32,
    pub(super) file: u32,
    pub(super) rows: u32,
}

/// Rows by stream and file, each run in the order in which its lines came.
fn order(page: &OpenPage) -> (Vec<u32>, Vec<Run>) {
    let mut numbers: HashMap<(u32, u32), usize, foldhash::fast::FixedState> = HashMap::default();
    let mut runs: Vec<(Run, Vec<u32>)> = Vec::new();
    let mut last = (u32::MAX, u32::MAX, 0);
    for row in 0..page.times.len() {
        let (stream, file) = (page.row_streams[row], page.row_files[row]);
        if (stream, file) != (last.0, last.1) {
            let at = *numbers.entry((stream, file)).or_insert_with(|| {
                runs.push((Run { stream, file, rows: 0 }, Vec::new()));
                runs.len() - 1
            });
            last = (stream, file, at);
        }
        runs[last.2].0.rows += 1;
        runs[last.2].1.push(row as u32);
    }
    let order = runs.iter().flat_map(|(_, rows)| rows).copied().collect();
    (order, runs.into_iter().map(|(run, _)| run).collect())
}

/// The page as bytes.
pub(crate) fn seal(page: &OpenPage) -> std::io::Result<Vec<u8>> {
    let (order, runs) = order(page);
    let mut writer = Writer {
        out: vec![0; HEADER_BYTES],
        places: Vec::new(),
        frames: Vec::new(),
        compressor: zstd::bulk::Compressor::new(LEVEL)?,
    };
    let mut keys = Vec::new();
    let tables = &page.tables;
    let mut uses = UsesWriter::new(tables.texts.len());
    let (short, long) = (IdUsesWriter::new(tables.id16.len()), IdUsesWriter::new(tables.id32.len()));
    let mut ids = IdsWriter { short, long };
    let (places, bodies, forms) = write_cells(page, &order, &mut writer, &mut keys, (&mut uses, &mut ids))?;
    bodies::write(page, &bodies, &mut writer, &mut keys)?;
    write_rows(page, &order, &mut writer)?;
    write_tables(page, (uses, ids), &forms, &mut writer, &mut keys)?;
    if let Some(filter) = Fuse::build(&mut keys) {
        let mut plain = Vec::new();
        filter.encode(&mut plain);
        writer.section(section::FILTER, plain, false)?;
    }
    let mut plain = Vec::new();
    page.stream_bytes().iter().for_each(|bytes| put_varint(&mut plain, *bytes));
    writer.section(section::STREAM_BYTES, plain, false)?;
    let minutes = minutes(page, &order);
    let head = head(page, &runs, &places, minutes.as_deref(), &writer.frames);
    writer.section(section::HEAD, head, true)?;
    Ok(writer.finish())
}

/// Where the cells of a hole are, and of which kinds they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct HolePlace {
    pub(super) kinds: u16,
    pub(super) frame: u32,
    pub(super) offset: u32,
}

/// Columns that are compressed together: those with words in one kind of frame, all others in another, so that whoever
/// looks for words need not read numbers.
struct Frames {
    words: Vec<u8>,
    others: Vec<u8>,
    /// Numbers of the frames that these will be.
    numbers: (u32, u32),
    next: u32,
}

impl Frames {
    fn new() -> Self {
        Self { words: Vec::new(), others: Vec::new(), numbers: (0, 1), next: 2 }
    }

    /// Where a column of such kinds goes.
    fn of(&mut self, kinds: u16) -> (&mut Vec<u8>, u32) {
        if kinds & WORDS != 0 {
            (&mut self.words, self.numbers.0)
        } else {
            (&mut self.others, self.numbers.1)
        }
    }

    /// Ends frames that are large enough, or all.
    fn flush(&mut self, writer: &mut Writer, least: usize) -> std::io::Result<()> {
        for (frame, number) in
            [(&mut self.words, &mut self.numbers.0), (&mut self.others, &mut self.numbers.1)]
        {
            if frame.len() >= least {
                writer.frame(*number, std::mem::take(frame))?;
                *number = self.next;
                self.next += 1;
            }
        }
        Ok(())
    }
}

/// Kinds that may hold any word.
pub(super) const WORDS: u16 = 1 << Kind::Text as u16 | 1 << Kind::Prefixed as u16 | 1 << Kind::Body as u16;

/// What [`write_cells`] answers.
type Written = (Vec<Vec<HolePlace>>, Vec<u32>, Vec<u8>);

/// Writes the cells; answers where those of each template are, bodies in their new order, and in which forms each id of 32
/// digits comes, by its new number: bit 0 as digits, bit 1 as a UUID.
fn write_cells(
    page: &OpenPage,
    order: &[u32],
    writer: &mut Writer,
    keys: &mut Vec<u64>,
    (uses, ids): (&mut UsesWriter, &mut IdsWriter),
) -> std::io::Result<Written> {
    let occurrences = page.occurrence_column().unwrap_or_default();
    let mut of_template: Vec<Vec<u32>> =
        page.templates.iter().map(|template| Vec::with_capacity(template.rows as usize)).collect();
    for row in order {
        of_template[page.row_templates[*row as usize] as usize].push(occurrences[*row as usize]);
    }
    let (mut places, mut bodies) = (Vec::new(), Vec::new());
    let mut frames = Frames::new();
    let (mut scratch, mut column) = (Scratch::default(), Vec::new());
    let mut forms = vec![0u8; page.tables.id32.len()];
    for (rows, occurrences) in page.columns.iter().zip(&of_template) {
        let mut of_template = Vec::with_capacity(rows.cells.len());
        for cells in &rows.cells {
            column.clear();
            column.extend(occurrences.iter().map(|occurrence| cells[*occurrence as usize]));
            for cell in &mut column {
                number_body(cell, &mut bodies);
            }
            uses.take(&mut column);
            let kinds = column.iter().fold(0u16, |kinds, cell| kinds | 1 << (cell >> 60));
            ids.take(&mut column, kinds);
            note_keys(&column, keys, &mut forms);
            let (out, frame) = frames.of(kinds);
            of_template.push(HolePlace { kinds, frame, offset: out.len() as u32 });
            cells::encode(&column, &mut scratch, out);
        }
        places.push(of_template);
        frames.flush(writer, FRAME_BYTES)?;
    }
    frames.flush(writer, 0)?;
    Ok((places, bodies, forms))
}

/// The keys of ids of 32 digits, in the forms in which they come: bit 0 as digits, bit 1 as a UUID.
pub(super) fn note_ids(ids: &[u128], forms: &[u8], keys: &mut Vec<u64>) {
    let mut text = Vec::new();
    for (id, forms) in ids.iter().zip(forms) {
        for is_uuid in [false, true].into_iter().filter(|is_uuid| forms & if *is_uuid { 2 } else { 1 } != 0) {
            text.clear();
            write_id32(*id, is_uuid, &mut text);
            keys.push(key_of(&text));
            if is_uuid {
                keys.extend(text.split(|byte| *byte == b'-').map(key_of));
            }
        }
    }
}

/// Bodies are numbered anew in the order of the rows, so that those of a stream lie together.
fn number_body(cell: &mut u64, bodies: &mut Vec<u32>) {
    if Cell(*cell).kind() == Some(Kind::Body) {
        let number = bodies.len() as u64;
        bodies.push(Cell(*cell).value() as u32);
        *cell = Cell::new(Kind::Body, number).0;
    }
}

/// Numbers go into the filter; texts, ids and bodies do so from their tables.
pub(super) fn note_keys(column: &[u64], keys: &mut Vec<u64>, forms: &mut [u8]) {
    let mut last = u64::MAX;
    for cell in column.iter().filter(|cell| std::mem::replace(&mut last, **cell) != **cell) {
        let cell = Cell(*cell);
        let number = match cell.kind() {
            Some(Kind::Int | Kind::Negative) => cell.value(),
            Some(Kind::Prefixed) => cell.suffix(),
            // What stands behind the point is short, and looked for without the filter.
            Some(Kind::Decimal) => cell.whole(),
            Some(kind @ (Kind::Id32 | Kind::Uuid)) => {
                if let Some(form) = forms.get_mut(cell.value() as usize) {
                    *form |= if kind == Kind::Uuid { 2 } else { 1 };
                }
                continue;
            }
            _ => continue,
        };
        if number >= FILTERED_MIN {
            keys.push(key_of_number(number));
        }
    }
}

/// The key of a word that is a number without leading zeros.
pub(crate) fn key_of_number(number: u64) -> u64 {
    let product = u128::from(number ^ 0x5851_f42d_4c95_7f2d) * 0x9e37_79b9_7f4a_7c15;
    product as u64 ^ (product >> 64) as u64
}

pub(super) fn note_words(text: &[u8], keys: &mut Vec<u64>) {
    let text = String::from_utf8_lossy(text);
    keys.extend(words(&text).map(|word| key_of(word.text.as_bytes())));
}

pub(super) fn encode_texts(texts: &Texts) -> Vec<u8> {
    let mut out = Vec::with_capacity(texts.weight());
    put_varint(&mut out, texts.len() as u64);
    let mut start = 0;
    for end in &texts.ends {
        put_varint(&mut out, u64::from(*end - start));
        start = *end;
    }
    out.extend_from_slice(&texts.bytes);
    out
}

fn write_rows(page: &OpenPage, order: &[u32], writer: &mut Writer) -> std::io::Result<()> {
    let column = |of: &dyn Fn(usize) -> u64| order.iter().map(|row| of(*row as usize)).collect::<Vec<u64>>();
    let numbers = column(&|row| u64::from(page.row_templates[row]));
    let mut plain: Vec<u8> = numbers.iter().map(|number| *number as u8).collect();
    for shift in [8, 16] {
        plain.extend(numbers.iter().map(|number| (number >> shift) as u8));
    }
    writer.section(section::TEMPLATE_COLUMN, plain, true)?;

    let mut previous = 0;
    let steps = order.iter().map(|row| {
        let time = page.times[*row as usize];
        let step = time.wrapping_sub(previous);
        previous = time;
        step
    });
    writer.section(section::TIMES, pack_signed(&steps.collect::<Vec<i64>>())?, false)?;

    let mut plain = Vec::new();
    let mut previous = 0u64;
    let steps = column(&|row| page.offsets[row]).into_iter().map(|offset| {
        let step = offset.wrapping_sub(previous) as i64;
        previous = offset;
        step
    });
    let packed = pack_signed(&steps.collect::<Vec<i64>>())?;
    put_varint(&mut plain, packed.len() as u64);
    plain.extend_from_slice(&packed);
    ints::encode(&column(&|row| u64::from(page.row_pushes[row])), &mut plain);
    writer.section(section::ORIGINS, plain, true)
}

/// Numbers around some value, as `pco` packs them.
fn pack_signed(values: &[i64]) -> std::io::Result<Vec<u8>> {
    let config = pco::ChunkConfig::default()
        .with_compression_level(4)
        .with_mode_spec(pco::ModeSpec::Classic)
        .with_delta_spec(pco::DeltaSpec::NoOp);
    pco::standalone::simple_compress(values, &config)
        .map_err(|error| std::io::Error::other(error.to_string()))
}

fn write_tables(
    page: &OpenPage,
    (uses, ids): (UsesWriter, IdsWriter),
    forms: &[u8],
    writer: &mut Writer,
    keys: &mut Vec<u64>,
) -> std::io::Result<()> {
    let tables = &page.tables;
    let (order, uses) = uses.finish();
    let mut texts = Texts::default();
    for number in order {
        let text = tables.texts.get(number as usize).unwrap_or_default();
        note_words(text, keys);
        texts.push(text);
    }
    writer.section(section::TEXTS, encode_texts(&texts), true)?;
    writer.section(section::USES, uses, true)?;
    let ((short, uses_of_short), (long, uses_of_long)) = (ids.short.finish(), ids.long.finish());
    let short: Vec<u64> = short.iter().map(|at| tables.id16[*at as usize]).collect();
    let long: Vec<u128> = long.iter().map(|at| tables.id32[*at as usize]).collect();
    let mut plain = Vec::with_capacity(8 + 8 * short.len() + 16 * long.len());
    put_varint(&mut plain, short.len() as u64);
    let mut text = Vec::new();
    for id in &short {
        plain.extend_from_slice(&id.to_le_bytes());
        text.clear();
        write_id16(*id, &mut text);
        keys.push(key_of(&text));
    }
    long.iter().for_each(|id| plain.extend_from_slice(&id.to_le_bytes()));
    note_ids(&long, forms, keys);
    writer.section(section::IDS, plain, false)?;
    let mut plain = Vec::new();
    put_varint(&mut plain, uses_of_short.len() as u64);
    plain.extend_from_slice(&uses_of_short);
    plain.extend_from_slice(&uses_of_long);
    writer.section(section::ID_USES, plain, true)
}

/// Counts by template and minute; `None` if they would be as many as a column.
fn minutes(page: &OpenPage, order: &[u32]) -> Option<Vec<Vec<Minute>>> {
    let mut minutes: Vec<Vec<Minute>> = vec![Vec::new(); page.templates.len()];
    let mut entries = 0;
    for row in order {
        let row = *row as usize;
        let minute = page.times[row].div_euclid(MINUTE_NS);
        let of_template = &mut minutes[page.row_templates[row] as usize];
        let at = match of_template.last() {
            Some(last) if last.at == minute => of_template.len() - 1,
            _ => match of_template.binary_search_by_key(&minute, |one| one.at) {
                Ok(at) => at,
                Err(at) => {
                    entries += 1;
                    if entries > 1024 + page.times.len() / 4 {
                        return None;
                    }
                    of_template.insert(at, Minute { at: minute, rows: 0, bytes: 0 });
                    at
                }
            },
        };
        of_template[at].rows += 1;
        of_template[at].bytes += u64::from(page.lengths[row]);
    }
    Some(minutes)
}

fn head(
    page: &OpenPage,
    runs: &[Run],
    places: &[Vec<HolePlace>],
    minutes: Option<&[Vec<Minute>]>,
    frames: &[u32],
) -> Vec<u8> {
    let mut out = Vec::new();
    let (first, last) = page.span();
    put_varint(&mut out, page.rows() as u64);
    put_varint(&mut out, page.raw_bytes() as u64);
    put_zigzag(&mut out, first.0);
    put_zigzag(&mut out, last.0);
    out.extend_from_slice(&page.hash.to_le_bytes());
    let (first, last) = page.sequences().unwrap_or_default();
    put_varint(&mut out, first.0);
    put_varint(&mut out, last.0);
    put_varint(&mut out, page.pushes.len() as u64);
    let mut previous = 0;
    for push in &page.pushes {
        put_zigzag(&mut out, push.0.wrapping_sub(previous));
        previous = push.0;
    }
    put_varint(&mut out, page.streams.len() as u64);
    for stream in &page.streams {
        put_varint(&mut out, stream.len() as u64);
        for label in stream {
            put_text(&mut out, &label.name);
            put_text(&mut out, &label.value);
        }
    }
    put_varint(&mut out, page.files.len() as u64);
    page.files.iter().for_each(|file| put_text(&mut out, &file.0));
    put_varint(&mut out, runs.len() as u64);
    for run in runs {
        [run.stream, run.file, run.rows]
            .into_iter()
            .for_each(|number| put_varint(&mut out, u64::from(number)));
    }
    let is_on_minute = page.times.iter().any(|time| time.rem_euclid(MINUTE_NS) == 0);
    out.push(u8::from(minutes.is_some()) | u8::from(is_on_minute) << 1);
    put_varint(&mut out, frames.len() as u64);
    frames.iter().for_each(|number| put_varint(&mut out, u64::from(*number)));
    put_varint(&mut out, page.templates.len() as u64);
    for (at, template) in page.templates.iter().enumerate() {
        put_template(&mut out, template, &places[at]);
        if let Some(minutes) = minutes {
            put_minutes(&mut out, &minutes[at]);
        }
    }
    out
}

fn put_template(out: &mut Vec<u8>, of_page: &PageTemplate, holes: &[HolePlace]) {
    let Template { text, cuts, level, attributes } = &*of_page.template;
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text);
    put_varint(out, cuts.len() as u64);
    let mut previous = 0;
    for cut in cuts {
        put_varint(out, u64::from(cut - previous));
        previous = *cut;
    }
    out.push(*level);
    put_varint(out, attributes.len() as u64);
    for (name, kind) in &**attributes {
        put_text(out, name);
        out.push(*kind as u8);
    }
    put_varint(out, u64::from(of_page.rows));
    put_varint(out, of_page.bytes);
    let mut last = [HolePlace::default(); 2];
    for hole in holes {
        // Mostly the frame is that of the hole before it of the same sort, and the place follows.
        let last = &mut last[usize::from(hole.kinds & WORDS != 0)];
        put_varint(out, u64::from(hole.kinds));
        put_zigzag(out, i64::from(hole.frame) - i64::from(last.frame));
        put_zigzag(out, i64::from(hole.offset) - i64::from(last.offset));
        *last = *hole;
    }
}

fn put_minutes(out: &mut Vec<u8>, minutes: &[Minute]) {
    put_varint(out, minutes.len() as u64);
    let mut previous = 0;
    for minute in minutes {
        put_zigzag(out, minute.at - previous);
        previous = minute.at;
        put_varint(out, u64::from(minute.rows));
        put_varint(out, minute.bytes);
    }
}
