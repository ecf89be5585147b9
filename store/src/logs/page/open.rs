//! The page that takes lines, in the order in which they come.

use std::collections::HashMap;
use std::sync::Arc;

use binnacle_model::log::{FileId, LogEntry};
use binnacle_model::push::FileBatch;
use binnacle_model::{Labels, LogTime};
use xxhash_rust::xxh3::xxh3_64;

use super::attributes::{Attributes, OfBatch};
use super::tables::{OpenTables, Texts};
use super::{Fuse, PageError, PageTemplate, PageView, level_number};
use crate::logs::split::{Lookup, Pieces, body, encode, split};
use crate::logs::template::{Finder, TemplateNumber, WHOLE_MIN_BYTES};
use crate::wal::Sequence;

/// Rows of a page: few enough that a column is decoded in a moment, many enough that they compress.
pub(crate) const PAGE_MAX_ROWS: usize = 65_536;

/// Bytes of messages and attributes in a page.
pub(crate) const PAGE_MAX_BYTES: usize = 16 * 1024 * 1024;

/// New templates after which a stream may be prose.
const PROSE_MIN_TEMPLATES: u32 = 2_000;

/// Of so many lines of a stream the new templates are counted.
const PROSE_WINDOW: u32 = 1_000;

/// With more new templates in a window the stream is prose.
const PROSE_MIN_NEW: u32 = 50;

/// Lines after which a stream that was prose is tried again; doubled each time.
const PROSE_RETRY_LINES: u64 = 50_000;

/// A line on its way into a page; the miner has its attributes.
#[derive(Debug, Clone, Copy)]
struct Line<'a> {
    time: LogTime,
    offset: u64,
    message: &'a [u8],
    level: u8,
    /// Numbers in the page.
    stream: u32,
    file: u32,
    push: u32,
    /// See [`kin_of`].
    kin: u64,
}

/// How new the templates of a stream are.
#[derive(Debug, Default)]
struct Novelty {
    lines: u32,
    new: u32,
    templates: u32,
    /// Lines that are kept whole before templates are looked for again.
    whole_left: u64,
    /// So many times it was prose.
    times: u32,
}

/// Finds the templates of all pages, and knows which streams are prose.
#[derive(Debug, Default)]
pub(crate) struct Miner {
    finder: Finder,
    novelty: HashMap<u64, Novelty, foldhash::fast::FixedState>,
    pieces: Pieces,
    /// Of the line that is under way.
    attributes: Attributes,
}

/// Streams whose novelty is remembered.
const NOVELTY_MAX: usize = 20_000;

impl Miner {
    /// Whether it knows so many templates that it should forget them, once no page is open that has some.
    pub(crate) fn is_full(&self) -> bool {
        self.finder.is_full()
    }

    /// Forgets all templates. Pages that have taken lines must take no more.
    pub(crate) fn forget(&mut self) {
        self.finder.forget();
        self.attributes.forget();
    }

    /// The template of a line; its holes are in `pieces` then.
    fn find(&mut self, line: &Line<'_>) -> TemplateNumber {
        let beside = self.attributes.beside(line.level);
        if self.novelty.len() >= NOVELTY_MAX {
            self.novelty.clear();
        }
        let novelty = self.novelty.entry(line.kin).or_default();
        if line.message.len() >= WHOLE_MIN_BYTES || novelty.whole_left > 0 {
            novelty.whole_left = novelty.whole_left.saturating_sub(1);
            self.pieces.holes.clear();
            return self.finder.whole(beside);
        }
        split(line.message, line.time.0, &mut self.pieces);
        let before = self.finder.made();
        let found = self.finder.find(line.message, &mut self.pieces, beside);
        novelty.note(self.finder.made() > before);
        found
    }
}

impl Novelty {
    fn note(&mut self, is_new: bool) {
        self.lines += 1;
        self.new += u32::from(is_new);
        self.templates = self.templates.saturating_add(u32::from(is_new));
        if self.lines < PROSE_WINDOW {
            return;
        }
        let was_prose = self.times > 0;
        if self.new > PROSE_MIN_NEW && (self.templates > PROSE_MIN_TEMPLATES || was_prose) {
            self.whole_left = PROSE_RETRY_LINES << self.times.min(6);
            self.times += 1;
        } else if was_prose {
            self.times -= 1;
        }
        (self.lines, self.new) = (0, 0);
    }
}

/// A template's rows.
#[derive(Debug)]
pub(super) struct Rows {
    /// A column for each hole.
    pub(super) cells: Vec<Vec<u64>>,
}

/// A page that grows.
#[derive(Debug, Default)]
pub(crate) struct OpenPage {
    pub(super) times: Vec<i64>,
    pub(super) row_templates: Vec<u32>,
    occurrences: Vec<u32>,
    pub(super) row_streams: Vec<u32>,
    pub(super) row_files: Vec<u32>,
    pub(super) offsets: Vec<u64>,
    pub(super) row_pushes: Vec<u32>,
    /// Bytes of each message.
    pub(super) lengths: Vec<u32>,
    pub(super) templates: Vec<PageTemplate>,
    pub(super) columns: Vec<Rows>,
    pub(super) streams: Vec<Labels>,
    pub(super) files: Vec<FileId>,
    pub(super) pushes: Vec<LogTime>,
    pub(super) tables: OpenTables,
    /// Of the messages, taken together in any order.
    pub(super) hash: u64,
    raw_bytes: usize,
    /// Of messages, and of names and values of attributes.
    held_bytes: usize,
    sequences: Option<(Sequence, Sequence)>,
    span: Option<(i64, i64)>,
    /// The numbers here of the finder's templates.
    by_number: HashMap<TemplateNumber, u32, foldhash::fast::FixedState>,
    by_stream: HashMap<Labels, u32, foldhash::fast::FixedState>,
    by_file: HashMap<FileId, u32, foldhash::fast::FixedState>,
}

impl OpenPage {
    pub(crate) fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.times.len() >= PAGE_MAX_ROWS || self.held_bytes >= PAGE_MAX_BYTES
    }

    /// Bytes of messages.
    pub(crate) fn raw_bytes(&self) -> usize {
        self.raw_bytes
    }

    /// Bytes of the messages of each stream.
    pub(super) fn stream_bytes(&self) -> Vec<u64> {
        let mut bytes = vec![0; self.streams.len()];
        let rows = self.row_streams.iter().zip(&self.lengths);
        rows.for_each(|(stream, length)| bytes[*stream as usize] += u64::from(*length));
        bytes
    }

    /// The first and the last record of the log that it has lines of.
    pub(crate) fn sequences(&self) -> Option<(Sequence, Sequence)> {
        self.sequences
    }

    /// When the first of its lines was received.
    pub(crate) fn began(&self) -> Option<LogTime> {
        self.pushes.first().copied()
    }

    /// Takes lines of one record. Those of a file that is not named get offsets from the record's sequence and the
    /// number of such lines before them, with which each batch comes.
    pub(crate) fn push<'a>(
        &mut self,
        miner: &mut Miner,
        batches: impl IntoIterator<Item = (u64, &'a FileBatch)>,
        received: LogTime,
        sequence: Sequence,
    ) {
        let push = self.pushes.len() as u32;
        self.pushes.push(received);
        let first = self.sequences.map_or(sequence, |(first, _)| first);
        self.sequences = Some((first, sequence));
        for (mut unnamed, batch) in batches {
            let Ok(labels) = batch.stream_labels() else { continue };
            let kin = kin_of(&labels);
            let file = self.file(&batch.file);
            let mut shared = OfBatch::new(batch);
            let mut last: Option<(&str, u32)> = None;
            for entry in &batch.entries {
                let stream = match last {
                    Some((iostream, stream)) if iostream == entry.iostream => stream,
                    _ => self.stream(labels.with("iostream", &entry.iostream)),
                };
                last = Some((&entry.iostream, stream));
                let mut offset = entry.offset;
                if batch.file.is_empty() {
                    offset = offset_of(sequence, unnamed);
                    unnamed += 1;
                }
                let (time, claimed) = batch.time_and_claim(entry, received);
                miner.attributes.take(&mut shared, entry, claimed, &mut self.tables);
                let (level, message) = (level_number(&entry.level), &*entry.message);
                self.push_line(miner, &Line { time, offset, message, level, stream, file, push, kin });
            }
        }
    }

    /// Takes an entry of another page. [`Self::cover`] says which records it had.
    pub(crate) fn push_entry(&mut self, miner: &mut Miner, entry: &LogEntry) {
        if self.pushes.last() != Some(&entry.received) {
            self.pushes.push(entry.received);
        }
        miner.attributes.take_plain(&entry.attributes, &mut self.tables);
        let line = Line {
            time: entry.time,
            offset: entry.origin.offset,
            message: &entry.message,
            level: level_number(&entry.level),
            stream: self.stream(entry.stream.clone()),
            file: self.file(&entry.origin.file.0),
            push: self.pushes.len() as u32 - 1,
            kin: kin_of(&entry.stream),
        };
        self.push_line(miner, &line);
    }

    /// Says of which records of the log it has all lines that are wanted.
    pub(crate) fn cover(&mut self, (first, last): (Sequence, Sequence)) {
        let known = self.sequences.unwrap_or((first, last));
        self.sequences = Some((known.0.min(first), known.1.max(last)));
    }

    /// Takes a line of which the miner has the attributes.
    fn push_line(&mut self, miner: &mut Miner, line: &Line<'_>) {
        let number = miner.find(line);
        let at = match self.by_number.get(&number) {
            Some(at) => *at,
            None => self.add_template(number, miner),
        };
        let (template, rows) = (&mut self.templates[at as usize], &mut self.columns[at as usize]);
        let mut columns = rows.cells.iter_mut();
        if miner.pieces.holes.is_empty() && template.template.is_whole() {
            let cell = body(line.message, &mut self.tables);
            columns.by_ref().take(1).for_each(|column| column.push(cell.0));
        }
        for (hole, column) in miner.pieces.holes.iter().zip(columns.by_ref()) {
            let cell = hole.time.unwrap_or_else(|| encode(hole.of(line.message), &mut self.tables));
            column.push(cell.0);
        }
        for (cell, column) in miner.attributes.cells().iter().zip(columns) {
            column.push(*cell);
        }
        self.occurrences.push(template.rows);
        template.rows += 1;
        template.bytes += line.message.len() as u64;
        self.times.push(line.time.0);
        self.row_templates.push(at);
        self.row_streams.push(line.stream);
        self.row_files.push(line.file);
        self.offsets.push(line.offset);
        self.row_pushes.push(line.push);
        self.lengths.push(line.message.len() as u32);
        self.hash = self.hash.wrapping_add(xxh3_64(line.message));
        self.raw_bytes += line.message.len();
        self.held_bytes += line.message.len() + miner.attributes.bytes();
        let (first, last) = self.span.unwrap_or((line.time.0, line.time.0));
        self.span = Some((first.min(line.time.0), last.max(line.time.0)));
    }

    fn add_template(&mut self, number: TemplateNumber, miner: &Miner) -> u32 {
        let at = self.templates.len() as u32;
        let template = Arc::clone(miner.finder.template(number));
        self.columns.push(Rows { cells: vec![Vec::new(); template.holes()] });
        self.templates.push(PageTemplate { template, rows: 0, bytes: 0, minutes: Vec::new(), number: None });
        self.by_number.insert(number, at);
        at
    }

    fn stream(&mut self, labels: Labels) -> u32 {
        if let Some(stream) = self.by_stream.get(&labels) {
            return *stream;
        }
        let stream = self.streams.len() as u32;
        self.streams.push(labels.clone());
        self.by_stream.insert(labels, stream);
        stream
    }

    fn file(&mut self, name: &str) -> u32 {
        let file = FileId(name.to_owned());
        if let Some(number) = self.by_file.get(&file) {
            return *number;
        }
        let number = self.files.len() as u32;
        self.files.push(file.clone());
        self.by_file.insert(file, number);
        number
    }
}

/// The offset of a line that came without a file: the same after a replay of the log.
pub(crate) fn offset_of(sequence: Sequence, line: u64) -> u64 {
    sequence.0 << 22 | line
}

/// Streams of one kind of program: pods of one Deployment print the same sentences.
fn kin_of(labels: &Labels) -> u64 {
    let of_program = labels.iter().filter(|label| !matches!(&*label.name, "pod" | "node" | "iostream"));
    of_program.fold(0, |hash, label| {
        xxhash_rust::xxh3::xxh3_64_with_seed(label.value.as_bytes(), hash ^ xxh3_64(label.name.as_bytes()))
    })
}

impl PageView for OpenPage {
    fn rows(&self) -> usize {
        self.times.len()
    }
    fn span(&self) -> (LogTime, LogTime) {
        self.span.map_or_else(Default::default, |(first, last)| (LogTime(first), LogTime(last)))
    }
    fn templates(&self) -> &[PageTemplate] {
        &self.templates
    }
    fn streams(&self) -> &[Labels] {
        &self.streams
    }
    fn files(&self) -> &[FileId] {
        &self.files
    }
    fn pushes(&self) -> &[LogTime] {
        &self.pushes
    }
    fn template_column(&self) -> Result<&[u32], PageError> {
        Ok(&self.row_templates)
    }
    fn occurrence_column(&self) -> Result<&[u32], PageError> {
        Ok(&self.occurrences)
    }
    fn time_column(&self) -> Result<&[i64], PageError> {
        Ok(&self.times)
    }
    fn bytes_by_stream(&self) -> Result<Option<Vec<u64>>, PageError> {
        Ok(Some(self.stream_bytes()))
    }
    fn stream_column(&self) -> &[u32] {
        &self.row_streams
    }
    fn file_column(&self) -> &[u32] {
        &self.row_files
    }
    fn offset_column(&self) -> Result<&[u64], PageError> {
        Ok(&self.offsets)
    }
    fn push_column(&self) -> Result<&[u32], PageError> {
        Ok(&self.row_pushes)
    }
    fn cells(&self, template: usize, hole: usize) -> Result<&[u64], PageError> {
        Ok(&self.columns[template].cells[hole])
    }
    fn kinds(&self, _: usize, _: usize) -> u16 {
        u16::MAX
    }
    fn tables(&self) -> Result<&dyn Lookup, PageError> {
        Ok(&self.tables)
    }
    fn texts(&self) -> Result<&Texts, PageError> {
        Ok(&self.tables.texts)
    }
    fn has_bodies(&self) -> bool {
        self.tables.bodies.len() > 0
    }
    fn ids(&self) -> Result<(&[u64], &[u128]), PageError> {
        Ok((&self.tables.id16, &self.tables.id32))
    }
    fn filter(&self) -> Result<Option<&Fuse>, PageError> {
        Ok(None)
    }
}
