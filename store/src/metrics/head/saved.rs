//! The head as bytes: what a checkpoint holds, so that a start need not read the log from its beginning.
//!
//! ```text
//! group      := symbols columns series
//! symbols    := count (number:varint text)*              that no group before it says
//! columns    := count (length:varint bytes)*             of times; numbered in the order in which they come
//! series     := count one*
//! one        := number:varint count symbol:varint* frozen open late histograms
//! frozen     := count (column:varint length:varint bytes)*
//! open       := see `chunk::open`
//! late       := count (time:zigzag f64)*
//! histograms := count (time:zigzag record)*              as in the WAL
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use binnacle_model::storage::HistogramSample;
use binnacle_model::{Sample, TimeRange, Timestamp};

use super::held::Frozen;
use super::packed::Histograms;
use super::registry::Place;
use super::series::{MemSeries, Rare};
use super::symbols::Symbol;
use super::times::TimeColumn;
use super::{Head, SeriesNumbers};
use crate::bytes::{Reader, put_text, put_varint, put_zigzag};
use crate::metrics::chunk::open::OpenChunk;
use crate::metrics::histograms;
use crate::wal::{SealedFile, Sequence, Wal, WalFileId};

/// What a checkpoint says of the head beside its series.
#[derive(Debug)]
pub(crate) struct SavedState {
    /// Files of the log of which the head has everything, ascending.
    pub(crate) files: Vec<SealedFile>,
    ranges: Vec<(WalFileId, TimeRange)>,
    newest: Option<Timestamp>,
    /// Of the next block.
    pub(crate) next_block: u64,
    /// Some block said that samples of files up to this one are in blocks; without it the head has holes.
    pub(crate) cut_file: WalFileId,
}

impl SavedState {
    /// The last of the files.
    pub(crate) fn through(&self) -> Option<WalFileId> {
        self.files.last().map(|file| file.id)
    }

    /// Adds it to `out`.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.files.len() as u64);
        for file in &self.files {
            put_varint(out, file.id.0);
            put_varint(out, file.last.0);
        }
        put_varint(out, self.ranges.len() as u64);
        for (file, range) in &self.ranges {
            put_varint(out, file.0);
            put_zigzag(out, range.start.0);
            put_zigzag(out, range.end.0);
        }
        out.push(u8::from(self.newest.is_some()));
        self.newest.into_iter().for_each(|newest| put_zigzag(out, newest.0));
        put_varint(out, self.next_block);
        put_varint(out, self.cut_file.0);
    }

    /// Reads what [`Self::encode`] wrote.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let mut files = Vec::new();
        for _ in 0..reader.count()? {
            let (id, last) = (WalFileId(reader.varint()?), Sequence(reader.varint()?));
            files.push(SealedFile { id, last });
        }
        let mut ranges = Vec::new();
        for _ in 0..reader.count()? {
            let file = WalFileId(reader.varint()?);
            let (start, end) = (Timestamp(reader.zigzag()?), Timestamp(reader.zigzag()?));
            ranges.push((file, TimeRange { start, end }));
        }
        let newest = if reader.u8()? == 1 { Some(Timestamp(reader.zigzag()?)) } else { None };
        let (next_block, cut_file) = (reader.varint()?, WalFileId(reader.varint()?));
        let is_sorted = files.is_sorted_by(|a, b| a.id < b.id && a.last <= b.last);
        (is_sorted && reader.is_empty()).then_some(Self { files, ranges, newest, next_block, cut_file })
    }
}

/// What the groups written so far have said.
#[derive(Debug, Default)]
pub(crate) struct Saver {
    symbols: Vec<bool>,
    /// Kept, so that no other column gets the address of one of them.
    columns: HashMap<*const TimeColumn, (u64, Arc<TimeColumn>)>,
    new_symbols: Vec<u8>,
    new_columns: Vec<u8>,
    counts: (u64, u64),
}

impl Saver {
    fn column(&mut self, column: &Arc<TimeColumn>) -> u64 {
        let next = self.columns.len() as u64;
        let known = self.columns.entry(Arc::as_ptr(column));
        let (number, _) = known.or_insert_with(|| {
            put_varint(&mut self.new_columns, column.bytes().len() as u64);
            self.new_columns.extend_from_slice(column.bytes());
            self.counts.1 += 1;
            (next, Arc::clone(column))
        });
        *number
    }

    fn series(&mut self, series: &MemSeries, out: &mut Vec<u8>) {
        put_varint(out, series.number);
        put_varint(out, series.labels.len() as u64);
        series.labels.iter().for_each(|symbol| put_varint(out, u64::from(*symbol)));
        put_varint(out, series.frozen.len() as u64);
        for frozen in &series.frozen {
            put_varint(out, self.column(&frozen.times));
            put_varint(out, frozen.values.len() as u64);
            out.extend_from_slice(&frozen.values);
        }
        series.open.put(out);
        let none = Rare::default();
        let rare = series.rare.as_deref().unwrap_or(&none);
        put_varint(out, rare.late.len() as u64);
        for sample in &rare.late {
            put_zigzag(out, sample.timestamp.0);
            out.extend_from_slice(&sample.value.to_bits().to_le_bytes());
        }
        let histograms = rare.histograms.all();
        put_varint(out, histograms.len() as u64);
        for one in &histograms {
            put_zigzag(out, one.timestamp.0);
            histograms::put(out, &one.histogram);
        }
    }
}

/// What the groups read so far have said.
#[derive(Debug, Default)]
pub(crate) struct Loader {
    symbols: HashMap<u32, Symbol, foldhash::fast::RandomState>,
    columns: Vec<Arc<TimeColumn>>,
    pub(crate) names: SeriesNumbers,
    /// Samples older than this are in blocks.
    pub(crate) kept_from: Option<Timestamp>,
}

/// A group, decoded but for what groups before it said: the part of the work that needs no head.
#[derive(Debug)]
pub(crate) struct Group {
    symbols: Vec<(u32, Box<str>)>,
    columns: Vec<TimeColumn>,
    series: Vec<SavedSeries>,
}

#[derive(Debug)]
struct SavedSeries {
    number: u64,
    /// As the checkpoint numbers them.
    labels: Box<[u32]>,
    /// Each with the number of its column of times.
    frozen: Vec<(usize, Arc<[u8]>)>,
    open: OpenChunk,
    late: Vec<Sample>,
    histograms: Vec<HistogramSample>,
}

impl Group {
    /// Reads what [`Head::save`] wrote; `None` if the bytes are something else.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let mut symbols = Vec::new();
        for _ in 0..reader.count()? {
            symbols.push((u32::try_from(reader.varint()?).ok()?, reader.text()?.into()));
        }
        let mut columns = Vec::new();
        for _ in 0..reader.count()? {
            let length = reader.count()?;
            columns.push(TimeColumn::read(reader.bytes(length)?)?);
        }
        let mut series = Vec::new();
        for _ in 0..reader.count()? {
            series.push(SavedSeries::decode(&mut reader)?);
        }
        reader.is_empty().then_some(Self { symbols, columns, series })
    }
}

impl SavedSeries {
    fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let number = reader.varint()?;
        let symbol = |reader: &mut Reader<'_>| u32::try_from(reader.varint()?).ok();
        let labels = (0..reader.count()?).map(|_| symbol(reader)).collect::<Option<Box<[u32]>>>()?;
        let mut frozen = Vec::new();
        for _ in 0..reader.count()? {
            let column = usize::try_from(reader.varint()?).ok()?;
            let length = reader.count()?;
            frozen.push((column, reader.bytes(length)?.into()));
        }
        let open = OpenChunk::read(reader)?;
        let mut late = Vec::new();
        for _ in 0..reader.count()? {
            let timestamp = Timestamp(reader.zigzag()?);
            late.push(Sample { timestamp, value: reader.f64()? });
        }
        let mut histograms = Vec::new();
        for _ in 0..reader.count()? {
            let timestamp = Timestamp(reader.zigzag()?);
            histograms.push(HistogramSample { timestamp, histogram: Arc::new(histograms::read(reader)?) });
        }
        Some(Self { number, labels, frozen, open, late, histograms })
    }
}

impl Head {
    /// Lets nothing more into the log's files that are there, and names them; also the bytes of samples in the log
    /// since the last checkpoint.
    pub(crate) fn seal(&mut self, wal: &Wal, next_block: u64, cut_file: WalFileId) -> (SavedState, u64) {
        wal.seal();
        let ranges = self.range_by_file.iter().map(|(file, range)| (*file, *range)).collect();
        let state = SavedState { files: wal.sealed(), ranges, newest: self.newest, next_block, cut_file };
        (state, self.unsaved_bytes)
    }

    /// Takes back what [`Self::seal`] told.
    pub(crate) fn restore_state(&mut self, state: SavedState) {
        self.range_by_file.extend(state.ranges);
        self.newest = self.newest.max(state.newest);
        self.oldest_ever = self.oldest();
    }

    /// Bytes of samples in the log that no checkpoint has.
    pub(crate) fn unsaved_bytes(&self) -> u64 {
        self.unsaved_bytes
    }

    /// So many bytes are in a checkpoint now.
    pub(crate) fn count_saved(&mut self, bytes: u64) {
        self.unsaved_bytes = self.unsaved_bytes.saturating_sub(bytes);
    }

    /// Adds some series as bytes to `out`. What is aside for a block is not among it.
    pub(crate) fn save(&self, places: &[Place], saver: &mut Saver, out: &mut Vec<u8>) {
        let (mut count, mut all) = (0u64, Vec::new());
        for series in places.iter().filter_map(|place| self.registry.find(*place)) {
            for symbol in &series.labels {
                let at = *symbol as usize;
                if saver.symbols.len() <= at {
                    saver.symbols.resize(at + 1, false);
                }
                if !std::mem::replace(&mut saver.symbols[at], true) {
                    put_varint(&mut saver.new_symbols, u64::from(*symbol));
                    put_text(&mut saver.new_symbols, self.registry.text(*symbol));
                    saver.counts.0 += 1;
                }
            }
            saver.series(series, &mut all);
            count += 1;
        }
        put_varint(out, saver.counts.0);
        out.append(&mut saver.new_symbols);
        put_varint(out, saver.counts.1);
        out.append(&mut saver.new_columns);
        saver.counts = (0, 0);
        put_varint(out, count);
        out.append(&mut all);
    }

    /// Takes a group back in that [`Self::save`] wrote; `None` if it speaks of what no group before it said.
    pub(crate) fn load(&mut self, group: Group, loader: &mut Loader) -> Option<()> {
        for (number, text) in group.symbols {
            loader.symbols.insert(number, self.registry.intern(&text));
        }
        loader.columns.extend(group.columns.into_iter().map(|column| self.times.restore(column)));
        group.series.into_iter().try_for_each(|series| self.load_series(series, loader))
    }

    fn load_series(&mut self, saved: SavedSeries, loader: &mut Loader) -> Option<()> {
        let SavedSeries { number, mut labels, frozen, open, late, histograms } = saved;
        for symbol in &mut labels {
            *symbol = *loader.symbols.get(symbol)?;
        }
        let place = self.registry.restored(labels, number)?;
        loader.names.insert(number, place);
        let known = |(column, values): (usize, Arc<[u8]>)| {
            Some(Frozen { times: Arc::clone(loader.columns.get(column)?), values })
        };
        let frozen = frozen.into_iter().map(known).collect::<Option<Vec<_>>>()?;
        let Self { registry, times, span, .. } = self;
        let series = registry.get_mut(place);
        (series.frozen, series.open) = (frozen, open);
        series.settle();
        if !late.is_empty() || !histograms.is_empty() {
            let rare = series.rare.get_or_insert_default();
            (rare.late, rare.histograms) = (late, Histograms::of(histograms));
        }
        if let Some(from) = loader.kept_from {
            series.keep_from(from, *span, times);
        }
        Some(())
    }
}

impl MemSeries {
    /// Forgets what is older.
    fn keep_from(&mut self, from: Timestamp, span: i64, pool: &mut super::times::TimePool) {
        if self.first().is_some_and(|first| first < from) {
            self.park(from, span, pool);
            self.forget_parked();
        }
    }
}
