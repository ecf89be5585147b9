//! The index of a closed partition: which of its pages may have what a query asks for.
//!
//! ```text
//! close ─► all pages read ─┬─► filter      words and ids of the partition: "surely not here" in three reads
//!                          └─► tantivy     a document per page: its words, labels and attributes
//!                                          a document per pattern: the minute in which it was there first
//! search ─► filter ─(may be here)─► tantivy ─► pages that are opened
//! ```
//!
//! Invariants:
//! - A page that is left out has no row that the query finds. A page that the index does not know is never left out.
//! - Losing an index costs time alone: it is made anew from the pages.
//!
//! Ids and numbers are in the filter only: a dictionary of them would be a third of all that is stored. So are words that
//! look like parts of ids.

mod directory;
mod filter;
mod pages;
mod patterns;
mod words;

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use binnacle_model::log::loki_name;
use binnacle_model::tokens;
use tantivy::directory::OwnedBytes;

use super::archive::Place;
use super::page::{PageError, PageReader, PageView, SealedPage, has_escape, key_of};
use super::template::{Template, ValueKind};
use crate::bytes::{Reader, put_text, put_varint};
use crate::fs::{Disk, ReadFile, write_atomic};
use crate::header::{self, HEADER_BYTES, LOG_INDEX_VERSION, MAGIC_LOG_INDEX};
use filter::Filter;
pub(super) use pages::may_exclude;
pub(super) use patterns::PatternKey;
use patterns::Patterns;
use words::{Builder, ESCAPES, ODD, PageTerms, Words};

/// The name of the file.
pub(super) const FILE: &str = "index";

/// Keys that are collected before doubles are looked for.
const KEYS_MIN: usize = 2 * 1024 * 1024;

/// At the end: where the directory is (8 bytes), how long (4), its checksum (4).
const FOOTER_BYTES: usize = 16;

/// Bytes of the directory and of tantivy's files: what more a file claims is not believed.
const DIRECTORY_MAX_BYTES: u32 = 64 << 20;
const WORDS_MAX_BYTES: u64 = 1 << 30;

/// The index of a partition, of which the directory is in memory.
#[derive(Debug)]
pub(crate) struct PartitionIndex {
    place: Place,
    /// Of the pages, in the order of their documents.
    numbers: Vec<u32>,
    filter: Filter,
    /// Whether there is a document for each pattern.
    has_patterns: bool,
    /// tantivy's files, one behind the other: name, bytes.
    files: Vec<(String, u64)>,
    words_offset: u64,
    words_crc: u32,
    /// These, open, as long as there is room.
    words: Mutex<Option<Arc<Words>>>,
}

/// Collects what an index is made of.
pub(super) struct IndexBuilder {
    numbers: Vec<u32>,
    keys: Vec<u64>,
    /// With more, those that are there twice are thrown out.
    keys_max: usize,
    words: Builder,
    patterns: Patterns,
}

fn failed(error: &tantivy::TantivyError) -> io::Error {
    io::Error::other(error.to_string())
}

impl IndexBuilder {
    pub(super) fn new() -> io::Result<Self> {
        let words = Builder::new().map_err(|error| failed(&error))?;
        Ok(Self {
            numbers: Vec::new(),
            keys: Vec::new(),
            keys_max: KEYS_MIN,
            words,
            patterns: Patterns::new(),
        })
    }

    /// Adds a page.
    pub(super) fn add(&mut self, number: u32, page: &Arc<SealedPage>) -> Result<(), PageError> {
        let reader = PageReader::new(Arc::clone(page));
        self.keys.extend(reader.keys()?);
        let mut terms = PageTerms::default();
        for one in reader.templates() {
            self.add_template(&one.template, &mut terms);
        }
        reader.each_text(&mut |text| add_words(text, &mut terms.words))?;
        let labels = reader.streams().iter().flatten();
        terms.labels = labels.map(|label| (label.name.to_string(), label.value.to_string())).collect();
        self.patterns.add(page, &reader)?;
        self.words.add(&terms).map_err(|error| failed(&error))?;
        self.numbers.push(number);
        // Many pages have the same words and numbers.
        if self.keys.len() > self.keys_max {
            self.keys.sort_unstable();
            self.keys.dedup();
            self.keys_max = KEYS_MIN.max(2 * self.keys.len());
        }
        Ok(())
    }

    fn add_template(&mut self, template: &Template, terms: &mut PageTerms) {
        for piece in template.pieces() {
            let text = String::from_utf8_lossy(piece);
            self.keys.extend(tokens::words(&text).map(|word| key_of(word.text.as_bytes())));
            add_words(piece, &mut terms.words);
        }
        if template.is_whole() || has_escape(&template.text) {
            terms.attributes.insert(ESCAPES.to_owned());
        }
        for (name, kind) in &*template.attributes {
            if !matches!(kind, ValueKind::Text | ValueKind::Int) {
                terms.attributes.insert(format!("{ODD}{name}"));
            }
            terms.attributes.insert(name.to_string());
            terms.attributes.insert(loki_name(name).into_owned());
        }
    }

    /// Writes the index, and makes it durable.
    pub(super) fn finish(mut self, disk: &dyn Disk, dir: &Path) -> io::Result<PartitionIndex> {
        let patterns = self.patterns.finish(&mut self.words)?;
        let has_patterns = patterns.is_some();
        self.keys.extend(patterns.into_iter().flatten());
        let (filter, blocks) = Filter::build(self.keys)
            .ok_or_else(|| io::Error::other("a filter of a partition could not be built"))?;
        let files = self.words.finish().map_err(|error| failed(&error))?;
        let mut out = header::encode(MAGIC_LOG_INDEX, LOG_INDEX_VERSION).to_vec();
        out.extend_from_slice(&blocks);
        let words_offset = out.len() as u64;
        files.iter().for_each(|(_, bytes)| out.extend_from_slice(bytes));
        let words_crc = crc32c::crc32c(&out[words_offset as usize..]);
        let files = files.into_iter().map(|(name, bytes)| (name, bytes.len() as u64)).collect();
        let place = Place::Disk(dir.join(FILE));
        let numbers = self.numbers;
        let words = Mutex::default();
        let index =
            PartitionIndex { place, numbers, filter, has_patterns, files, words_offset, words_crc, words };
        let start = out.len();
        index.encode(&mut out);
        let (length, crc) = ((out.len() - start) as u32, crc32c::crc32c(&out[start..]));
        out.extend_from_slice(&(start as u64).to_le_bytes());
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&crc.to_le_bytes());
        write_atomic(disk, index.place.path(), &out)?;
        Ok(index)
    }
}

/// Words that are looked up in the dictionary.
fn add_words(text: &[u8], words: &mut foldhash::HashSet<String>) {
    let text = String::from_utf8_lossy(text);
    for word in tokens::words(&text).map(|word| word.text).filter(|word| pages::is_listed(word)) {
        if !words.contains(&word) {
            words.insert(word);
        }
    }
}

impl PartitionIndex {
    fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.words_offset);
        out.extend_from_slice(&self.words_crc.to_le_bytes());
        put_varint(out, self.numbers.len() as u64);
        self.numbers.iter().for_each(|number| put_varint(out, u64::from(*number)));
        out.push(u8::from(self.has_patterns));
        put_varint(out, self.files.len() as u64);
        for (name, bytes) in &self.files {
            put_text(out, name);
            put_varint(out, *bytes);
        }
        self.filter.encode(out);
    }

    fn decode(place: Place, bytes: &[u8], version: u8) -> Option<Self> {
        let reader = &mut Reader::new(bytes);
        let words_offset = reader.varint()?;
        let words_crc = u32::from_le_bytes(*reader.bytes(4)?.first_chunk::<4>()?);
        let count = reader.count()?;
        let mut numbers = Vec::with_capacity(count);
        for _ in 0..count {
            numbers.push(u32::try_from(reader.varint()?).ok()?);
        }
        // One of an earlier release has pages alone.
        let flag = if version < 3 { 0 } else { reader.u8()? };
        let has_patterns = (flag <= 1).then_some(flag == 1)?;
        let mut files = Vec::new();
        for _ in 0..reader.count()? {
            files.push((reader.text()?.to_owned(), reader.varint()?));
        }
        let filter = Filter::decode(reader)?;
        let is_bounded =
            files.iter().try_fold(0u64, |sum, (_, bytes)| sum.checked_add(*bytes))? <= WORDS_MAX_BYTES;
        let words = Mutex::default();
        is_bounded.then_some(Self {
            place,
            numbers,
            filter,
            has_patterns,
            files,
            words_offset,
            words_crc,
            words,
        })
    }

    /// Opens the index of a partition; `None` if there is none.
    pub(super) fn open(disk: &dyn Disk, dir: &Path) -> Result<Option<Self>, PageError> {
        let path = dir.join(FILE);
        if !disk.exists(&path)? {
            return Ok(None);
        }
        Self::open_at(disk, Place::Disk(path)).map(Some)
    }

    /// Opens an index that is there.
    pub(super) fn open_at(disk: &dyn Disk, place: Place) -> Result<Self, PageError> {
        let file = place.open(disk)?;
        let (size, mut header) = (file.size()?, [0; HEADER_BYTES]);
        if size < (HEADER_BYTES + FOOTER_BYTES) as u64 {
            return Err(PageError::Damaged("no index has this size"));
        }
        file.read_exact_at(&mut header, 0)?;
        let version = header::decode(&header, MAGIC_LOG_INDEX, LOG_INDEX_VERSION)
            .map_err(|_| PageError::Damaged("the header is not that of an index"))?;
        let mut footer = [0; FOOTER_BYTES];
        file.read_exact_at(&mut footer, size - FOOTER_BYTES as u64)?;
        let reader = &mut Reader::new(&footer);
        let number =
            |reader: &mut Reader<'_>| Some(u32::from_le_bytes(*reader.bytes(4)?.first_chunk::<4>()?));
        let end = (|| Some((reader.u64()?, number(reader)?, number(reader)?)))();
        let (offset, length, crc) = end.ok_or(PageError::Damaged("the end of an index"))?;
        let is_inside = offset.checked_add(u64::from(length)).is_some_and(|end| end <= size);
        if !is_inside || length > DIRECTORY_MAX_BYTES {
            return Err(PageError::Damaged("the directory of an index lies outside of it"));
        }
        let mut directory = vec![0; length as usize];
        file.read_exact_at(&mut directory, offset)?;
        if crc32c::crc32c(&directory) != crc {
            return Err(PageError::Damaged("the directory of an index"));
        }
        Self::decode(place, &directory, version)
            .ok_or(PageError::Damaged("the directory of an index contradicts the format"))
    }

    /// Its bytes.
    pub(super) fn read(&self, disk: &dyn Disk) -> io::Result<Vec<u8>> {
        let file = self.place.open(disk)?;
        let mut bytes = vec![0; usize::try_from(file.size()?).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// tantivy's documents, opened if they are not.
    fn words(&self, file: &dyn ReadFile) -> Result<Arc<Words>, PageError> {
        let known = self.words.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(words) = known {
            return Ok(words);
        }
        // An archive may take long, and others ask what it weighs.
        let words = Arc::new(self.open_words(file)?);
        let mut kept = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Arc::clone(kept.get_or_insert(words)))
    }

    fn words_bytes(&self) -> usize {
        self.files.iter().map(|(_, bytes)| *bytes as usize).sum()
    }

    /// Bytes of memory of what was read.
    pub(super) fn weight(&self) -> usize {
        let words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        if words.is_some() { self.words_bytes() } else { 0 }
    }

    /// Forgets what was read.
    pub(super) fn forget(&self) {
        *self.words.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn open_words(&self, file: &dyn ReadFile) -> Result<Words, PageError> {
        let mut bytes = vec![0; self.words_bytes()];
        file.read_exact_at(&mut bytes, self.words_offset)?;
        if crc32c::crc32c(&bytes) != self.words_crc {
            return Err(PageError::Damaged("the words of an index"));
        }
        let (all, mut start) = (OwnedBytes::new(bytes), 0);
        let files = self.files.iter().map(|(name, bytes)| {
            let end = start + *bytes as usize;
            let one = (name.clone(), all.slice(start..end));
            start = end;
            one
        });
        Words::open(files.collect())
            .map_err(|_| PageError::Damaged("tantivy does not read the words of an index"))
    }
}
