//! The head: all samples that no block holds yet, in memory, and in the WAL.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use binnacle_model::storage::{AppendError, AppendReport, HistogramSample, RawSeries, SeriesDecoder};
use binnacle_model::{Interner, Label, Labels, Matcher, Sample, TimeRange, Timestamp};
use xxhash_rust::xxh3::Xxh3Builder;

use super::block::Cut;
use super::postings::{Candidates, Postings};
use super::series::{Held, Inserted, MemSeries};
use super::{SampleKind, histograms};
use crate::bytes::{Reader, put_text, put_varint, put_zigzag};
use crate::wal::{RecordKind, Sequence, Wal, WalFileId};

/// Number of a series, never used for another one while any WAL file mentions it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SeriesRef(u64);

/// Hash of the bytes that name a series, with the salt of whose bytes they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct RawHash(u128);

/// Labels of one series, with names; Prometheus's own limits are far below where they are set at all.
const LABELS_MAX_BYTES: usize = 64 * 1024;

/// A larger batch goes into several records.
const RECORD_TARGET_BYTES: usize = 8 * 1024 * 1024;

/// Histograms of one record, each of which has some hundred kilobytes at the most.
const HISTOGRAMS_PER_RECORD: usize = 32;

/// A sample in a record: two varints and the value.
const SAMPLE_MAX_BYTES: usize = 28;

/// A label in a record, with its lengths.
fn label_bytes(label: &Label) -> usize {
    label.name.len() + label.value.len() + 10
}

/// What the head accepts, at the moment of an append.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) oldest: Timestamp,
    pub(crate) newest: Timestamp,
}

#[derive(Debug)]
pub(crate) struct Head {
    series: HashMap<SeriesRef, MemSeries>,
    by_labels: HashMap<Labels, SeriesRef>,
    /// How senders name the series. 128 bits with a seed of this process: no collision in practice,
    /// and none that a sender could make.
    by_raw: HashMap<RawHash, SeriesRef>,
    seed: u64,
    postings: Postings<SeriesRef>,
    interner: Interner,
    next: u64,
    /// Taken out for a block that is being written.
    parked: Option<Parked>,
    /// The newest sample of each WAL file that still is there.
    newest_by_file: BTreeMap<WalFileId, Timestamp>,
    newest: Option<Timestamp>,
    /// Up to where samples were last taken out for a block.
    last_cut: Option<Timestamp>,
}

/// Samples on their way into blocks.
#[derive(Debug)]
pub(crate) struct Parked {
    pub(crate) cut: Cut,
    pub(crate) series: Arc<BTreeMap<Labels, Held>>,
}

impl Head {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            series: HashMap::new(),
            by_labels: HashMap::new(),
            by_raw: HashMap::new(),
            seed,
            postings: Postings::default(),
            interner: Interner::default(),
            next: 1,
            parked: None,
            newest_by_file: BTreeMap::new(),
            newest: None,
            last_cut: None,
        }
    }

    /// How many series it has.
    pub(crate) fn len(&self) -> usize {
        self.series.len()
    }

    /// Takes a batch into memory and into the WAL's buffer. Commit the sequence before you
    /// acknowledge; `None` if there was nothing new to write.
    pub(crate) fn append(
        &mut self,
        wal: &Wal,
        batch: &[RawSeries<'_>],
        decoder: &dyn SeriesDecoder,
        limits: Limits,
    ) -> Result<(AppendReport, Option<Sequence>), AppendError> {
        let mut report = AppendReport::default();
        let refs = self.resolve(batch, decoder, &mut report)?;
        let mut accepted: Vec<(SeriesRef, Sample)> = Vec::with_capacity(batch.len());
        for (raw, number) in batch.iter().zip(refs.iter().copied()) {
            let series = self.series.get_mut(&number).expect("resolved above");
            // In order, so that a batch that runs backwards in time is not inserted at the front each time.
            let is_sorted = raw.samples.is_sorted_by_key(|sample| sample.timestamp);
            let mut sorted = Vec::new();
            let samples = if is_sorted {
                raw.samples
            } else {
                sorted.extend_from_slice(raw.samples);
                sorted.sort_by_key(|sample| sample.timestamp);
                &sorted[..]
            };
            for sample in samples {
                if sample.timestamp < limits.oldest {
                    report.too_old += 1;
                } else if sample.timestamp > limits.newest {
                    report.too_far_ahead += 1;
                } else {
                    match series.judge(*sample) {
                        Inserted::New => {
                            series.insert(*sample);
                            accepted.push((number, *sample));
                        }
                        Inserted::Duplicate => report.duplicate += 1,
                        Inserted::Conflicting => report.conflicting += 1,
                    }
                }
            }
        }
        let histograms = self.accept_histograms(batch, &refs, limits, &mut report);
        report.appended = accepted.len() + histograms.len();
        report.histograms += histograms.len();
        let mut last = self.append_histograms(wal, &histograms)?;
        if accepted.is_empty() {
            return Ok((report, last));
        }
        for piece in self.pieces(&accepted) {
            let appended = wal.append(RecordKind::Samples, |file, out| self.encode(file, piece, out));
            last = Some(appended.map_err(|error| AppendError::Unavailable(error.to_string()))?);
        }
        Ok((report, last))
    }

    /// Takes a batch's histograms into memory.
    fn accept_histograms<'b>(
        &mut self,
        batch: &'b [RawSeries<'_>],
        refs: &[SeriesRef],
        limits: Limits,
        report: &mut AppendReport,
    ) -> Vec<(SeriesRef, &'b HistogramSample)> {
        let mut accepted = Vec::new();
        for (raw, number) in batch.iter().zip(refs) {
            let mut sorted: Vec<&HistogramSample> = raw.histograms.iter().collect();
            sorted.sort_by_key(|sample| sample.timestamp);
            for sample in sorted {
                let series = self.series.get_mut(number).expect("resolved before");
                if sample.timestamp < limits.oldest {
                    report.too_old += 1;
                } else if sample.timestamp > limits.newest {
                    report.too_far_ahead += 1;
                } else {
                    match series.judge_histogram(sample) {
                        Inserted::New => {
                            series.insert_histogram(sample);
                            accepted.push((*number, sample));
                        }
                        Inserted::Duplicate => {
                            report.duplicate += 1;
                            report.histograms += 1;
                        }
                        Inserted::Conflicting => report.conflicting += 1,
                    }
                }
            }
        }
        accepted
    }

    /// Puts histograms into the WAL's buffer, a record for each few of them.
    fn append_histograms(
        &mut self,
        wal: &Wal,
        accepted: &[(SeriesRef, &HistogramSample)],
    ) -> Result<Option<Sequence>, AppendError> {
        let mut last = None;
        for piece in accepted.chunks(HISTOGRAMS_PER_RECORD) {
            let numbers: Vec<(SeriesRef, Timestamp)> =
                piece.iter().map(|(number, sample)| (*number, sample.timestamp)).collect();
            let appended = wal.append(RecordKind::Histograms, |file, out| {
                self.define(file, &numbers, out);
                put_varint(out, piece.len() as u64);
                for (number, sample) in piece {
                    put_varint(out, number.0);
                    put_zigzag(out, sample.timestamp.0);
                    histograms::put(out, &sample.histogram);
                }
            });
            last = Some(appended.map_err(|error| AppendError::Unavailable(error.to_string()))?);
        }
        Ok(last)
    }

    /// The samples in runs, each of which fits into a record with the labels of all its series.
    fn pieces<'s>(&self, accepted: &'s [(SeriesRef, Sample)]) -> Vec<&'s [(SeriesRef, Sample)]> {
        let mut pieces = Vec::new();
        let (mut start, mut bytes) = (0, 0);
        for (at, (number, _)) in accepted.iter().enumerate() {
            let labels = &self.series[number].labels;
            bytes += SAMPLE_MAX_BYTES + labels.iter().map(label_bytes).sum::<usize>();
            if bytes > RECORD_TARGET_BYTES && at > start {
                pieces.push(&accepted[start..at]);
                (start, bytes) = (at, 0);
            }
        }
        pieces.push(&accepted[start..]);
        pieces
    }

    /// Numbers of the batch's series, new ones made. A batch with labels that cannot be read is
    /// refused before anything is changed.
    fn resolve(
        &mut self,
        batch: &[RawSeries<'_>],
        decoder: &dyn SeriesDecoder,
        report: &mut AppendReport,
    ) -> Result<Vec<SeriesRef>, AppendError> {
        let hasher = Xxh3Builder::new().with_seed(self.seed ^ decoder.salt()).build();
        let mut hashes = Vec::with_capacity(batch.len());
        let mut unknown: Vec<(usize, Labels)> = Vec::new();
        for (at, raw) in batch.iter().enumerate() {
            let mut hasher = hasher.clone();
            hasher.update(raw.labels);
            let hash = RawHash(hasher.digest128());
            if !self.by_raw.contains_key(&hash) {
                let labels = decoder
                    .decode(raw.labels)
                    .map_err(|error| AppendError::Invalid(format!("series {}: {error}", at + 1)))?;
                let bytes: usize = labels.iter().map(label_bytes).sum();
                if bytes > LABELS_MAX_BYTES {
                    let reason =
                        format!("series {}: its labels have more than {LABELS_MAX_BYTES} bytes", at + 1);
                    return Err(AppendError::Invalid(reason));
                }
                unknown.push((at, labels));
            }
            hashes.push(hash);
        }
        for (at, labels) in unknown {
            let known = self.by_labels.get(&labels).copied();
            let number = known.unwrap_or_else(|| {
                report.new_series += 1;
                self.create(&labels)
            });
            self.by_raw.insert(hashes[at], number);
        }
        Ok(hashes.iter().map(|hash| self.by_raw[hash]).collect())
    }

    fn create(&mut self, labels: &Labels) -> SeriesRef {
        let number = SeriesRef(self.next);
        self.next += 1;
        self.insert_series(number, labels);
        number
    }

    fn insert_series(&mut self, number: SeriesRef, labels: &Labels) {
        let labels = self.interner.intern_labels(labels);
        self.postings.add(number, &labels);
        self.by_labels.insert(labels.clone(), number);
        self.series.insert(number, MemSeries::new(labels));
    }

    /// The record of `accepted`, with the labels of series that `file` does not name yet.
    fn encode(&mut self, file: WalFileId, accepted: &[(SeriesRef, Sample)], out: &mut Vec<u8>) {
        let numbers: Vec<(SeriesRef, Timestamp)> =
            accepted.iter().map(|(number, sample)| (*number, sample.timestamp)).collect();
        self.define(file, &numbers, out);
        put_varint(out, accepted.len() as u64);
        let mut before = 0i64;
        for (number, sample) in accepted {
            put_varint(out, number.0);
            put_zigzag(out, sample.timestamp.0.wrapping_sub(before));
            out.extend_from_slice(&sample.value.to_bits().to_le_bytes());
            before = sample.timestamp.0;
        }
    }

    /// The labels of series that `file` does not name yet; notes the newest moment.
    fn define(&mut self, file: WalFileId, numbers: &[(SeriesRef, Timestamp)], out: &mut Vec<u8>) {
        let mut definitions = Vec::new();
        let mut count = 0;
        let mut newest = Timestamp(i64::MIN);
        for (number, at) in numbers {
            newest = newest.max(*at);
            let series = self.series.get_mut(number).expect("accepted samples have a series");
            if series.defined_in == file {
                continue;
            }
            series.defined_in = file;
            count += 1;
            put_varint(&mut definitions, number.0);
            put_varint(&mut definitions, series.labels.len() as u64);
            for label in &series.labels {
                put_text(&mut definitions, &label.name);
                put_text(&mut definitions, &label.value);
            }
        }
        put_varint(out, count);
        out.extend_from_slice(&definitions);
        self.note_newest(file, newest);
    }

    fn note_newest(&mut self, file: WalFileId, newest: Timestamp) {
        let of_file = self.newest_by_file.entry(file).or_insert(newest);
        *of_file = (*of_file).max(newest);
        self.newest = self.newest.max(Some(newest));
    }

    /// Takes a record of the WAL back in. Samples that `cut` says are in blocks are left out.
    /// `names` are the numbers that `file` has said so far; start each file with none.
    pub(crate) fn replay(
        &mut self,
        file: WalFileId,
        payload: &[u8],
        kind: SampleKind,
        cut: Cut,
        names: &mut HashMap<u64, SeriesRef>,
    ) -> Option<()> {
        let mut reader = Reader::new(payload);
        for _ in 0..reader.count()? {
            let number = reader.varint()?;
            let mut pairs = Vec::new();
            for _ in 0..reader.count()? {
                pairs.push((reader.text()?, reader.text()?));
            }
            let labels = Labels::new(pairs).ok()?;
            let known = self.by_labels.get(&labels).copied();
            self.next = self.next.max(number.checked_add(1)?);
            let known = known.unwrap_or_else(|| {
                self.insert_series(SeriesRef(number), &labels);
                SeriesRef(number)
            });
            names.insert(number, known);
        }
        if kind == SampleKind::Histograms {
            return self.replay_histograms(file, reader, cut, names);
        }
        let mut time = 0i64;
        for _ in 0..reader.count()? {
            let number = reader.varint()?;
            time = time.wrapping_add(reader.zigzag()?);
            let sample = Sample { timestamp: Timestamp(time), value: reader.f64()? };
            self.note_newest(file, sample.timestamp);
            let in_block = file <= cut.wal_file && sample.timestamp < cut.before;
            // A series that the file names in a damaged record only: its samples have no name.
            let Some(number) = names.get(&number) else { continue };
            let series = self.series.get_mut(number).expect("named above");
            if !in_block && series.judge(sample) == Inserted::New {
                series.insert(sample);
            }
        }
        reader.is_empty().then_some(())
    }

    fn replay_histograms(
        &mut self,
        file: WalFileId,
        mut reader: Reader<'_>,
        cut: Cut,
        names: &HashMap<u64, SeriesRef>,
    ) -> Option<()> {
        for _ in 0..reader.count()? {
            let number = reader.varint()?;
            let timestamp = Timestamp(reader.zigzag()?);
            let histogram = Arc::new(histograms::read(&mut reader)?);
            let sample = HistogramSample { timestamp, histogram };
            self.note_newest(file, timestamp);
            let in_block = file <= cut.wal_file && timestamp < cut.before;
            let Some(number) = names.get(&number) else { continue };
            let series = self.series.get_mut(number).expect("named above");
            if !in_block && series.judge_histogram(&sample) == Inserted::New {
                series.insert_histogram(&sample);
            }
        }
        reader.is_empty().then_some(())
    }

    /// Series that satisfy every matcher, each with what may lie in `range`.
    pub(crate) fn select(&self, matchers: &[Matcher], range: TimeRange) -> Vec<(Labels, Held)> {
        let mut found = Vec::new();
        for series in self.matching(matchers) {
            let held = series.held(range);
            if !held.is_empty() {
                found.push((series.labels.clone(), held));
            }
        }
        if let Some(parked) = &self.parked {
            for (labels, held) in &*parked.series {
                if binnacle_model::matcher::all_match(matchers, labels) {
                    found.push((labels.clone(), held.clone()));
                }
            }
        }
        found
    }

    fn matching<'a>(&'a self, matchers: &'a [Matcher]) -> Box<dyn Iterator<Item = &'a MemSeries> + 'a> {
        let fits = |series: &&MemSeries| binnacle_model::matcher::all_match(matchers, &series.labels);
        match self.postings.candidates(matchers) {
            Candidates::Some(numbers) => {
                Box::new(numbers.into_iter().map(|number| &self.series[&number]).filter(fits))
            }
            Candidates::All => Box::new(self.series.values().filter(fits)),
        }
    }

    /// The newest sample ever taken in.
    pub(crate) fn newest(&self) -> Option<Timestamp> {
        self.newest
    }

    /// Up to where samples were last taken out for a block, by this process.
    pub(crate) fn last_cut(&self) -> Option<Timestamp> {
        self.last_cut
    }

    /// The oldest sample held.
    pub(crate) fn oldest(&self) -> Option<Timestamp> {
        self.series.values().filter_map(MemSeries::first).min()
    }

    /// Takes all samples older than the cut aside, for blocks. Queries still see them.
    ///
    /// If some are aside already, because writing their block failed, nothing more is taken.
    pub(crate) fn park(&mut self, wal: &Wal, before: Timestamp) -> &Parked {
        if self.parked.is_none() {
            wal.seal();
            let wal_file = wal.sealed().last().map(|file| file.id).unwrap_or_default();
            let taken = self.series.values_mut().map(|one| (one.labels.clone(), one.take_before(before)));
            let series = Arc::new(taken.filter(|(_, held)| !held.is_empty()).collect());
            self.last_cut = Some(before);
            self.parked = Some(Parked { cut: Cut { before, wal_file }, series });
        }
        self.parked.as_ref().expect("set above")
    }

    /// Samples that are aside for a block.
    pub(crate) fn parked(&self) -> Option<&Parked> {
        self.parked.as_ref()
    }

    /// Forgets what was taken aside, now that blocks have it, and series without a sample.
    pub(crate) fn forget_parked(&mut self) {
        self.parked = None;
        let gone: Vec<SeriesRef> = self
            .series
            .iter()
            .filter(|(_, series)| series.first().is_none())
            .map(|(number, _)| *number)
            .collect();
        for number in gone {
            let Some(series) = self.series.remove(&number) else { continue };
            self.postings.remove(number, &series.labels);
            self.by_labels.remove(&series.labels);
        }
        self.by_raw.retain(|_, number| self.series.contains_key(number));
        self.interner.sweep();
    }

    /// The last WAL file of which blocks hold every sample, with all files before it.
    pub(crate) fn persisted_through(&mut self, sealed: &[WalFileId], cut: Cut) -> Option<WalFileId> {
        let mut through = None;
        for file in sealed {
            let newest = self.newest_by_file.get(file);
            let done = newest.is_none_or(|newest| *file <= cut.wal_file && *newest < cut.before);
            if !done {
                break;
            }
            through = Some(*file);
        }
        if let Some(through) = through {
            self.newest_by_file.retain(|file, _| *file > through);
        }
        through
    }
}
