//! The index of a block: times, terms, postings, series. See the format page.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use binnacle_model::{Interner, Label, Labels, Matcher, TimeRange, Timestamp};
use fst::{IntoStreamer, Streamer};
use roaring::RoaringBitmap;

use crate::bytes::Reader;
use crate::header::HEADER_BYTES;
use crate::metrics::{SampleKind, postings};

/// Between the name and the value of a term; no UTF-8 text has it.
pub(super) const SEPARATOR: u8 = 0xff;

/// Series of one compressed group.
pub(super) const GROUP_SERIES: usize = 128;

/// Series that have a term, as a list up to here and as a bitmap above.
pub(super) const LIST_MAX: usize = 32;

/// A group is some kilobytes; damage that passes a checksum must not ask for more than this.
const GROUP_MAX_BYTES: usize = 64 << 20;

/// A column of times.
#[derive(Debug)]
pub(super) struct TimesMeta {
    pub(super) offset: u64,
    pub(super) bytes: u32,
    pub(super) range: TimeRange,
    /// Once someone has read it.
    pub(super) decoded: OnceLock<Arc<[i64]>>,
}

/// Where the samples of a series are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChunkMeta {
    pub(super) offset: u64,
    pub(super) bytes: u32,
    /// The number of its column of times.
    pub(crate) times: u32,
    pub(crate) kind: SampleKind,
}

impl ChunkMeta {
    /// How many bytes it has in the file.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes as usize
    }
}

/// A series as a block knows it.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) labels: Labels,
    pub(super) chunks: Vec<ChunkMeta>,
}

/// Unpacks groups, one after the other.
#[derive(Default)]
pub(crate) struct Unpacker {
    zstd: Option<zstd::bulk::Decompressor<'static>>,
    plain: Vec<u8>,
    /// Whether what is unpacked stays so for a while.
    pub(super) keeps: bool,
}

impl Unpacker {
    fn unpack(&mut self, packed: &[u8]) -> Option<&[u8]> {
        if self.zstd.is_none() {
            self.zstd = Some(zstd::bulk::Decompressor::new().ok()?);
        }
        let size = zstd::zstd_safe::get_frame_content_size(packed).ok()??;
        let size = usize::try_from(size).ok().filter(|size| *size <= GROUP_MAX_BYTES)?;
        self.plain.clear();
        self.plain.reserve(size);
        self.zstd.as_mut()?.decompress_to_buffer(packed, &mut self.plain).ok()?;
        Some(&self.plain)
    }
}

#[derive(Debug)]
struct Group {
    bytes: Range<usize>,
    first_chunk: u64,
}

/// What a block knows of its series, held in memory while queries ask for it.
#[derive(Debug)]
pub(super) struct Index {
    bytes: Vec<u8>,
    /// Numbers of the blocks that were merged into this one.
    pub(super) sources: Vec<u64>,
    pub(super) times: Vec<TimesMeta>,
    dictionary: fst::Map<Vec<u8>>,
    terms: Vec<Label>,
    postings: Vec<Range<usize>>,
    groups: Vec<Group>,
    series: u32,
    /// Groups that were unpacked lately, the last one at the end: dashboards ask for the same few again and again.
    unpacked: Mutex<VecDeque<(usize, Arc<[u8]>)>>,
}

/// Groups of a block that stay unpacked, some kilobytes each.
const UNPACKED_MAX: usize = 16;
const UNPACKED_MAX_BYTES: usize = 64 << 10;

impl Index {
    /// Reads an index of which the checksum was right.
    pub(super) fn decode(bytes: Vec<u8>, shared: &Mutex<Interner>) -> Option<Self> {
        let mut reader = Reader::new(&bytes);
        let at = |reader: &Reader<'_>| bytes.len() - reader.rest().len();
        let mut sources = Vec::new();
        for _ in 0..reader.count()? {
            sources.push(reader.varint()?);
        }
        let times = decode_times(&mut reader)?;
        let dictionary_bytes = reader.count()?;
        let dictionary = fst::Map::new(reader.bytes(dictionary_bytes)?.to_vec()).ok()?;
        // It trusts its bytes, and panics where they are not its own.
        dictionary.as_fst().verify().ok()?;
        let terms = decode_terms(&dictionary, shared)?;
        let mut postings = Vec::with_capacity(terms.len());
        for _ in 0..terms.len() {
            let size = reader.count()?;
            let start = at(&reader);
            reader.bytes(size)?;
            postings.push(start..start + size);
        }
        let series = u32::try_from(reader.varint()?).ok()?;
        let mut groups = Vec::new();
        let mut first_chunk = HEADER_BYTES as u64;
        for _ in 0..(series as usize).div_ceil(GROUP_SERIES) {
            first_chunk = first_chunk.checked_add(reader.varint()?)?;
            let size = reader.count()?;
            let start = at(&reader);
            reader.bytes(size)?;
            groups.push(Group { bytes: start..start + size, first_chunk });
        }
        if !reader.is_empty() {
            return None;
        }
        let unpacked = Mutex::default();
        Some(Self { bytes, sources, times, dictionary, terms, postings, groups, series, unpacked })
    }

    /// Every label of every series, ascending, each once.
    pub(super) fn terms(&self) -> impl Iterator<Item = &Label> {
        self.terms.iter()
    }

    pub(super) fn len(&self) -> u32 {
        self.series
    }

    /// Exactly the series that satisfy every matcher; `None` if the index contradicts itself.
    pub(super) fn select(&self, matchers: &[Matcher]) -> Option<RoaringBitmap> {
        let mut all = RoaringBitmap::new();
        all.insert_range(0..self.series);
        let mut is_sound = true;
        let found = postings::select(matchers, &all, |matcher, keeps| {
            let sets: Option<Vec<RoaringBitmap>> =
                self.terms_of(matcher, keeps).into_iter().map(|term| self.series_with(term)).collect();
            is_sound &= sets.is_some();
            postings::union(sets.unwrap_or_default().iter())
        });
        is_sound.then_some(found)
    }

    /// The terms of the matcher's label with values of which it says `keeps`.
    fn terms_of(&self, matcher: &Matcher, keeps: bool) -> Vec<u64> {
        let key = |value: &str| [matcher.name.as_bytes(), &[SEPARATOR], value.as_bytes()].concat();
        if let Some(words) = matcher.literals().filter(|_| keeps) {
            return words.iter().filter_map(|word| self.dictionary.get(key(word))).collect();
        }
        let from = key("");
        let mut stream = self.dictionary.range().ge(&from).into_stream();
        let mut terms = Vec::new();
        while let Some((found, term)) = stream.next() {
            let Some(value) = found.strip_prefix(&from[..]) else { break };
            if std::str::from_utf8(value).is_ok_and(|value| matcher.matches(value) == keeps) {
                terms.push(term);
            }
        }
        terms
    }

    fn series_with(&self, term: u64) -> Option<RoaringBitmap> {
        let bytes = &self.bytes[self.postings.get(usize::try_from(term).ok()?)?.clone()];
        let mut reader = Reader::new(bytes);
        let count = usize::try_from(reader.varint()?).ok()?;
        if count > LIST_MAX {
            return RoaringBitmap::deserialize_from(reader.rest()).ok();
        }
        let mut numbers = RoaringBitmap::new();
        let mut number = 0u32;
        for at in 0..count {
            let gap = u32::try_from(reader.varint()?).ok()?;
            number = if at == 0 { gap } else { number.checked_add(gap)? };
            numbers.insert(number);
        }
        Some(numbers)
    }

    /// The series of a group that are wanted, by their numbers in the block, ascending; `None` if it contradicts the
    /// format.
    pub(super) fn group(
        &self,
        number: usize,
        unpacker: &mut Unpacker,
        mut is_wanted: impl FnMut(usize) -> bool,
    ) -> Option<Vec<Row>> {
        let group = self.groups.get(number)?;
        let known = self.unpacked(number);
        let plain = if let Some(known) = &known {
            &known[..]
        } else {
            let keeps = unpacker.keeps;
            let plain = unpacker.unpack(&self.bytes[group.bytes.clone()])?;
            if keeps {
                self.keep_unpacked(number, plain);
            }
            plain
        };
        let mut reader = Reader::new(plain);
        let mut rows = Vec::new();
        let mut series = number * GROUP_SERIES;
        let mut terms: Vec<u64> = Vec::new();
        let mut offset = group.first_chunk;
        let mut times = 0i64;
        while !reader.is_empty() {
            let shared = usize::try_from(reader.varint()?).ok()?;
            if shared > terms.len() {
                return None;
            }
            terms.truncate(shared);
            for _ in 0..reader.count()? {
                terms.push(reader.varint()?);
            }
            let is_one = is_wanted(series);
            series += 1;
            let mut chunks = Vec::new();
            for _ in 0..reader.count()? {
                let size = reader.varint()?;
                times = times.checked_add(reader.zigzag()?)?;
                let kind = if size & 1 == 0 { SampleKind::Floats } else { SampleKind::Histograms };
                let bytes = u32::try_from(size >> 1).ok()?;
                let times = u32::try_from(times).ok().filter(|at| (*at as usize) < self.times.len())?;
                if is_one {
                    chunks.push(ChunkMeta { offset, bytes, times, kind });
                }
                offset = offset.checked_add(u64::from(bytes) + 4)?;
            }
            if is_one {
                rows.push(Row { labels: self.labels(&terms)?, chunks });
            }
        }
        Some(rows)
    }

    fn unpacked(&self, number: usize) -> Option<Arc<[u8]>> {
        let unpacked = self.unpacked.lock().unwrap_or_else(PoisonError::into_inner);
        unpacked.iter().rev().find(|(known, _)| *known == number).map(|(_, plain)| Arc::clone(plain))
    }

    fn keep_unpacked(&self, number: usize, plain: &[u8]) {
        if plain.len() > UNPACKED_MAX_BYTES {
            return;
        }
        let plain = Arc::from(plain);
        let mut unpacked = self.unpacked.lock().unwrap_or_else(PoisonError::into_inner);
        if unpacked.len() >= UNPACKED_MAX {
            unpacked.pop_front();
        }
        unpacked.push_back((number, plain));
    }

    fn labels(&self, terms: &[u64]) -> Option<Labels> {
        let mut labels = Vec::with_capacity(terms.len());
        for term in terms {
            labels.push(self.terms.get(usize::try_from(*term).ok()?)?.clone());
        }
        labels.is_sorted_by(|a, b| a.name < b.name).then(|| Labels::from_sorted(labels))
    }

    /// The time that a chunk covers.
    pub(super) fn range(&self, chunk: &ChunkMeta) -> TimeRange {
        self.times[chunk.times as usize].range
    }
}

fn decode_times(reader: &mut Reader<'_>) -> Option<Vec<TimesMeta>> {
    let mut offset = reader.varint()?;
    let mut times = Vec::new();
    let mut last = 0i64;
    for _ in 0..reader.count()? {
        let bytes = u32::try_from(reader.varint()?).ok()?;
        let first = last.wrapping_add(reader.zigzag()?);
        last = first.checked_add_unsigned(reader.varint()?)?;
        let range = TimeRange { start: Timestamp(first), end: Timestamp(last) };
        times.push(TimesMeta { offset, bytes, range, decoded: OnceLock::new() });
        offset = offset.checked_add(u64::from(bytes) + 4)?;
    }
    Some(times)
}

/// All terms in order; their numbers must be 0, 1, 2 and so on.
fn decode_terms(dictionary: &fst::Map<Vec<u8>>, shared: &Mutex<Interner>) -> Option<Vec<Label>> {
    let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
    let mut terms: Vec<Label> = Vec::with_capacity(dictionary.len());
    let mut stream = dictionary.stream();
    while let Some((key, number)) = stream.next() {
        if number != terms.len() as u64 {
            return None;
        }
        let middle = key.iter().position(|byte| *byte == SEPARATOR)?;
        let (name, value) = (&key[..middle], &key[middle + 1..]);
        let (name, value) = (std::str::from_utf8(name).ok()?, std::str::from_utf8(value).ok()?);
        let name = match terms.last() {
            Some(last) if *last.name == *name => Arc::clone(&last.name),
            _ => shared.intern(name),
        };
        terms.push(Label { name, value: shared.intern(value) });
    }
    Some(terms)
}
