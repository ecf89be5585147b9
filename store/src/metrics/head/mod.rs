//! The head: all samples that no block holds yet, in memory, and in the WAL.
//!
//! `registry` finds series, `series` holds their samples, `packed` their histograms, `symbols` their strings and `times`
//! the columns of times that they share; `held` is what a query takes out of them; `saved` is all of it as bytes, and
//! `replay` takes records of the WAL back in, by the `numbers` of their series.

mod held;
mod numbers;
mod packed;
mod postings;
mod registry;
mod replay;
mod saved;
mod series;
mod symbols;
mod times;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use binnacle_model::storage::{
    ALL_TIME, AppendReport, HistogramSample, RawSeries, SeriesDecoder, StorageError, Wanted,
};
use binnacle_model::{Interner, Label, Labels, Matcher, Sample, TimeRange, Timestamp};
use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128_with_secret};

pub(crate) use held::{Held, Taken};
pub(crate) use numbers::SeriesNumbers;
pub(crate) use registry::{Place, RawHash};
pub(crate) use saved::{Group, Loader, SavedState, Saver};
pub(crate) use times::{KnownTimes, TimeColumn};

use super::block::Cut;
use super::delete::Deletion;
use super::histograms;
use crate::bytes::{put_text, put_varint, put_zigzag};
use crate::wal::{RecordKind, Sequence, Wal, WalFileId};
use registry::Registry;
use series::Inserted;
use times::TimePool;

/// Labels of one series, with names; Prometheus's own limits are far below where they are set at all.
const LABELS_MAX_BYTES: usize = 64 * 1024;

/// The same as senders write them.
const RAW_LABELS_MAX_BYTES: usize = 4 * LABELS_MAX_BYTES;

/// As XXH3 wants them.
const SECRET_BYTES: usize = 192;

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
    /// Series of a job, above which no more are made.
    pub(crate) series_per_job: usize,
    /// The same of all together.
    pub(crate) series: usize,
}

impl Limits {
    /// Whether any moment of a series may be taken; if not, all of them are counted.
    fn admit_any(self, raw: &RawSeries<'_>, report: &mut AppendReport) -> bool {
        let samples = raw.samples.iter().map(|sample| sample.timestamp);
        let moments = samples.chain(raw.histograms.iter().map(|one| one.timestamp));
        if moments.clone().any(|at| at >= self.oldest && at <= self.newest) {
            return true;
        }
        moments.for_each(|at| {
            self.admit(at, report);
        });
        false
    }

    /// Whether a moment may be taken; counts it if not.
    fn admit(self, at: Timestamp, report: &mut AppendReport) -> bool {
        report.too_old += usize::from(at < self.oldest);
        report.too_far_ahead += usize::from(at > self.newest);
        at >= self.oldest && at <= self.newest
    }
}

#[derive(Debug)]
pub(crate) struct Head {
    registry: Registry,
    times: TimePool,
    /// Milliseconds of a block; no chunk goes over its bounds.
    span: i64,
    /// Where samples are aside for a block that is being written.
    parked: Option<Parked>,
    /// Of the samples of each WAL file that still is there.
    range_by_file: BTreeMap<WalFileId, TimeRange>,
    newest: Option<Timestamp>,
    /// No sample is older.
    oldest_ever: Option<Timestamp>,
    /// Up to where samples were last taken out for a block.
    last_cut: Option<Timestamp>,
    /// Of samples, in the log since the last checkpoint.
    unsaved_bytes: u64,
}

/// Samples on their way into blocks.
#[derive(Debug, Clone)]
pub(crate) struct Parked {
    pub(crate) cut: Cut,
    pub(crate) places: Arc<[Place]>,
}

/// Bytes by which a process hashes what others send.
fn secret_of(seed: u64) -> [u8; SECRET_BYTES] {
    let mut secret = [0; SECRET_BYTES];
    for (at, word) in secret.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        *word = xxh3_64_with_seed(&at.to_le_bytes(), seed).to_le_bytes();
    }
    secret
}

/// So many series are brought close before they take their samples.
const TOUCHED: usize = 64;

/// How the senders of a batch name its series.
pub(crate) fn hash_batch(seed: u64, batch: &[RawSeries<'_>], decoder: &dyn SeriesDecoder) -> Vec<RawHash> {
    let secret = secret_of(seed ^ decoder.salt());
    batch.iter().map(|raw| RawHash(xxh3_128_with_secret(raw.labels, &secret))).collect()
}

impl Head {
    pub(crate) fn new(span: i64, shared: Arc<Mutex<Interner>>) -> Self {
        Self {
            registry: Registry::new(shared),
            times: TimePool::default(),
            span,
            parked: None,
            range_by_file: BTreeMap::new(),
            newest: None,
            oldest_ever: None,
            last_cut: None,
            unsaved_bytes: 0,
        }
    }

    /// Whether it has a series with these labels.
    pub(crate) fn knows(&self, labels: &Labels) -> bool {
        self.registry.find_labels(labels).is_some()
    }

    /// How many series it has.
    pub(crate) fn len(&self) -> usize {
        self.registry.len()
    }

    /// Takes a batch into memory and into the WAL's buffer; `hashes` are those of its series. Commit the
    /// sequence before you acknowledge; `None` if there was nothing new to write.
    pub(crate) fn append(
        &mut self,
        wal: &Wal,
        batch: &[RawSeries<'_>],
        hashes: &[RawHash],
        decoder: &dyn SeriesDecoder,
        limits: Limits,
    ) -> (AppendReport, Option<Sequence>) {
        let mut report = AppendReport::default();
        let places = self.resolve(batch, hashes, decoder, limits, &mut report);
        let accepted = self.accept(batch, &places, limits, &mut report);
        let histograms = self.accept_histograms(batch, &places, limits, &mut report);
        report.appended = accepted.len() + histograms.len();
        report.histograms += histograms.len();
        let mut last = self.append_histograms(wal, &histograms);
        if accepted.is_empty() {
            return (report, last);
        }
        for piece in self.pieces(&accepted) {
            let mut named = 0;
            last = Some(wal.append(RecordKind::Samples, |file, out| {
                let before = out.len();
                named = self.encode(file, piece, out);
                self.unsaved_bytes += (out.len() - before) as u64;
            }));
            if named > 0 {
                wal.note_repeated(named);
            }
        }
        (report, last)
    }

    /// Takes a batch's numbers into memory.
    fn accept(
        &mut self,
        batch: &[RawSeries<'_>],
        places: &[Option<Place>],
        limits: Limits,
        report: &mut AppendReport,
    ) -> Vec<(Place, Sample)> {
        let mut accepted: Vec<(Place, Sample)> = Vec::with_capacity(batch.len());
        for (at, (raw, place)) in batch.iter().zip(places).enumerate() {
            if at % TOUCHED == 0 {
                self.registry.touch(&places[at..places.len().min(at + TOUCHED)]);
            }
            let Some(place) = *place else { continue };
            let series = self.registry.get_mut(place);
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
                if !limits.admit(sample.timestamp, report) {
                    continue;
                }
                match series.judge(*sample) {
                    Inserted::New => {
                        series.insert(*sample, self.span, &mut self.times);
                        accepted.push((place, *sample));
                    }
                    Inserted::Duplicate => report.duplicate += 1,
                    Inserted::Conflicting => report.conflicting += 1,
                }
            }
        }
        accepted
    }

    /// Takes a batch's histograms into memory.
    fn accept_histograms<'b>(
        &mut self,
        batch: &'b [RawSeries<'_>],
        places: &[Option<Place>],
        limits: Limits,
        report: &mut AppendReport,
    ) -> Vec<(Place, &'b HistogramSample)> {
        let mut accepted = Vec::new();
        for (raw, place) in batch.iter().zip(places) {
            let Some(place) = *place else { continue };
            let mut sorted: Vec<&HistogramSample> = raw.histograms.iter().collect();
            sorted.sort_by_key(|sample| sample.timestamp);
            for sample in sorted {
                if !limits.admit(sample.timestamp, report) {
                    continue;
                }
                let series = self.registry.get_mut(place);
                match series.judge_histogram(sample) {
                    Inserted::New => {
                        series.insert_histogram(sample);
                        accepted.push((place, sample));
                    }
                    Inserted::Duplicate => {
                        report.duplicate += 1;
                        report.histograms += 1;
                    }
                    Inserted::Conflicting => report.conflicting += 1,
                }
            }
        }
        accepted
    }

    /// Puts histograms into the WAL's buffer, a record for each few of them.
    fn append_histograms(&mut self, wal: &Wal, accepted: &[(Place, &HistogramSample)]) -> Option<Sequence> {
        let mut last = None;
        for piece in accepted.chunks(HISTOGRAMS_PER_RECORD) {
            let mut named = 0;
            last = Some(wal.append(RecordKind::Histograms, |file, out| {
                let before = out.len();
                named =
                    self.define(file, piece.iter().map(|(place, sample)| (*place, sample.timestamp)), out);
                put_varint(out, piece.len() as u64);
                for (place, sample) in piece {
                    put_varint(out, self.registry.get(*place).number);
                    put_zigzag(out, sample.timestamp.0);
                    histograms::put(out, &sample.histogram);
                }
                self.unsaved_bytes += (out.len() - before) as u64;
            }));
            if named > 0 {
                wal.note_repeated(named);
            }
        }
        last
    }

    /// The samples in runs, each of which fits into a record with the labels of all its series.
    fn pieces<'s>(&self, accepted: &'s [(Place, Sample)]) -> Vec<&'s [(Place, Sample)]> {
        let mut pieces = Vec::new();
        let (mut start, mut bytes) = (0, 0);
        for (at, (place, _)) in accepted.iter().enumerate() {
            bytes += SAMPLE_MAX_BYTES + self.registry.get(*place).label_bytes as usize;
            if bytes > RECORD_TARGET_BYTES && at > start {
                pieces.push(&accepted[start..at]);
                (start, bytes) = (at, 0);
            }
        }
        pieces.push(&accepted[start..]);
        pieces
    }

    /// Places of the batch's series, new ones made. A series with labels that cannot be used has none,
    /// and is counted.
    fn resolve(
        &mut self,
        batch: &[RawSeries<'_>],
        hashes: &[RawHash],
        decoder: &dyn SeriesDecoder,
        limits: Limits,
        report: &mut AppendReport,
    ) -> Vec<Option<Place>> {
        let mut last = None;
        let mut places: Vec<Option<Place>> = Vec::with_capacity(hashes.len());
        for hash in hashes {
            let place = self.registry.by_raw_behind(*hash, last);
            last = place.or(last);
            places.push(place);
        }
        for (at, place) in places.iter_mut().enumerate().filter(|(_, place)| place.is_none()) {
            // It may have come twice in this batch.
            *place = self.registry.by_raw(hashes[at]);
            if place.is_some() {
                continue;
            }
            let raw = &batch[at];
            match decode_labels(raw.labels, decoder) {
                Ok(labels) if self.is_beyond(&labels, limits, report) => {
                    report.limited += raw.samples.len() + raw.histograms.len();
                }
                // What is refused makes no series.
                Ok(_) if !limits.admit_any(raw, report) => {}
                Ok(labels) => {
                    let (known, is_new) = self.registry.by_labels(&labels);
                    report.new_series += usize::from(is_new);
                    self.registry.learn(hashes[at], known);
                    *place = Some(known);
                }
                Err(reason) => {
                    report.invalid += raw.samples.len() + raw.histograms.len();
                    report
                        .invalid_reason
                        .get_or_insert_with(|| format!("series {}: {reason}", at + 1).into());
                }
            }
        }
        places
    }

    /// Whether a series is new and one too many; says which limit refuses the first one.
    fn is_beyond(&self, labels: &Labels, limits: Limits, report: &mut AppendReport) -> bool {
        let reason = if self.registry.is_beyond(labels, limits.series_per_job) {
            let job = labels.value("job");
            format!("of job {job:?}, which has as many as storage.tsdb.series_limit_per_job allows")
        } else if self.registry.len() >= limits.series && self.registry.find_labels(labels).is_none() {
            "beyond those that storage.tsdb.series_limit allows".to_owned()
        } else {
            return false;
        };
        report.limited_reason.get_or_insert_with(|| reason.into());
        true
    }

    /// The record of `accepted`, with the labels of series that `file` does not name yet; answers the bytes of these.
    fn encode(&mut self, file: WalFileId, accepted: &[(Place, Sample)], out: &mut Vec<u8>) -> usize {
        let named = self.define(file, accepted.iter().map(|(place, sample)| (*place, sample.timestamp)), out);
        put_varint(out, accepted.len() as u64);
        out.reserve(accepted.len() * 13);
        let mut before = 0i64;
        for (place, sample) in accepted {
            put_varint(out, self.registry.get(*place).number);
            put_zigzag(out, sample.timestamp.0.wrapping_sub(before));
            out.extend_from_slice(&sample.value.to_bits().to_le_bytes());
            before = sample.timestamp.0;
        }
        named
    }

    /// The labels of series that `file` does not name yet, and how many bytes they take; notes the newest moment.
    fn define(
        &mut self,
        file: WalFileId,
        samples: impl Iterator<Item = (Place, Timestamp)>,
        out: &mut Vec<u8>,
    ) -> usize {
        let mut definitions = Vec::new();
        let mut count = 0;
        let (mut oldest, mut newest) = (Timestamp(i64::MAX), Timestamp(i64::MIN));
        for (place, at) in samples {
            (oldest, newest) = (oldest.min(at), newest.max(at));
            let series = self.registry.get_mut(place);
            if series.defined_in == file {
                continue;
            }
            series.defined_in = file;
            count += 1;
            let series = self.registry.get(place);
            put_varint(&mut definitions, series.number);
            let pairs = self.registry.pairs(series);
            put_varint(&mut definitions, pairs.len() as u64);
            pairs.flatten().for_each(|text| put_text(&mut definitions, text));
        }
        put_varint(out, count);
        out.extend_from_slice(&definitions);
        self.note_bounds(file, oldest, newest);
        definitions.len()
    }

    fn note_bounds(&mut self, file: WalFileId, oldest: Timestamp, newest: Timestamp) {
        self.oldest_ever = Some(self.oldest_ever.map_or(oldest, |known| known.min(oldest)));
        let of_file = self.range_by_file.entry(file).or_insert(TimeRange { start: oldest, end: newest });
        *of_file = TimeRange { start: of_file.start.min(oldest), end: of_file.end.max(newest) };
        self.newest = self.newest.max(Some(newest));
    }

    /// Puts a deletion into the WAL's buffer and does it.
    pub(crate) fn delete(&mut self, wal: &Wal, deletion: &Deletion) -> Sequence {
        self.forget(deletion);
        wal.append(RecordKind::Deletion, |_, out| deletion.encode(out))
    }

    /// Forgets the samples that a deletion names. Their series stay until the next block is written.
    pub(crate) fn forget(&mut self, deletion: &Deletion) {
        for place in self.registry.select(&deletion.matchers) {
            self.registry.get_mut(place).delete(deletion.range, self.span, &mut self.times);
        }
    }

    /// Series that satisfy every matcher, each with what may lie in `range`.
    pub(crate) fn select(
        &mut self,
        matchers: &[Matcher],
        range: TimeRange,
        wanted: Wanted,
        mut hold: impl FnMut(&Labels, &Taken) -> Result<(), StorageError>,
    ) -> Result<Vec<(Labels, Taken)>, StorageError> {
        let mut found = Vec::new();
        for place in self.registry.select(matchers) {
            if let Some(taken) = self.registry.get(place).taken(range, wanted) {
                let labels = self.registry.labels_again(place);
                hold(&labels, &taken)?;
                found.push((labels, taken));
            }
        }
        Ok(found)
    }

    /// Names of the labels of series that satisfy every matcher.
    pub(crate) fn label_names(&self, matchers: &[Matcher]) -> BTreeSet<Arc<str>> {
        self.registry.label_names(matchers)
    }

    /// Values of a label of series that satisfy every matcher.
    pub(crate) fn label_values(&self, name: &str, matchers: &[Matcher]) -> BTreeSet<Arc<str>> {
        self.registry.label_values(name, matchers)
    }

    /// A moment before which it has no sample. Cheaper than [`Self::oldest`].
    pub(crate) fn oldest_in(&self) -> Option<Timestamp> {
        self.oldest_ever
    }

    /// Forgets labels that no query has asked for lately.
    pub(crate) fn rest(&mut self) {
        self.registry.rest();
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
        self.registry.iter().filter_map(series::MemSeries::first).min()
    }

    /// Puts all samples older than the cut aside, for blocks. Queries still see them.
    ///
    /// If some are aside already, because writing their block failed, nothing more is taken.
    pub(crate) fn park(&mut self, wal: &Wal, before: Timestamp) -> Parked {
        if let Some(parked) = &self.parked {
            return parked.clone();
        }
        wal.seal();
        let wal_file = wal.sealed().last().map(|file| file.id).unwrap_or_default();
        let mut places = self.registry.places();
        let Self { registry, times, span, .. } = self;
        places.retain(|place| registry.get_mut(*place).park(before, *span, times));
        self.last_cut = Some(before);
        let parked = Parked { cut: Cut { before, wal_file }, places: places.into() };
        self.parked = Some(parked.clone());
        parked
    }

    /// What is aside for a block of some of the parked series.
    pub(crate) fn parked(&self, places: &[Place]) -> Vec<(Labels, Held)> {
        let parked = |place: &Place| {
            let series = self.registry.get(*place);
            Some((self.registry.labels(series), series.parked()?.clone()))
        };
        places.iter().filter_map(parked).collect()
    }

    /// All series.
    pub(crate) fn places(&self) -> Vec<Place> {
        self.registry.places()
    }

    /// All that some series have, those that are gone left out.
    pub(crate) fn held(&self, places: &[Place]) -> Vec<(Labels, Held)> {
        let series = places.iter().filter_map(|place| self.registry.find(*place));
        series.map(|one| (self.registry.labels(one), one.held(ALL_TIME))).collect()
    }

    /// Whether samples are aside for a block.
    pub(crate) fn is_parked(&self) -> bool {
        self.parked.is_some()
    }

    /// Forgets what was put aside, now that blocks have it, and series without a sample.
    pub(crate) fn forget_parked(&mut self) {
        self.parked = None;
        self.registry.iter_mut().for_each(series::MemSeries::forget_parked);
        self.registry.retain(|series| series.first().is_some());
        self.oldest_ever = self.oldest();
        self.times.sweep();
    }

    /// Where in time samples of a WAL file may lie that are missing from it: between what the files beside
    /// it hold. `None` if nothing is known of any of them.
    pub(crate) fn range_around(&self, file: WalFileId) -> Option<TimeRange> {
        let of_file = self.range_by_file.get(&file);
        let before = self.range_by_file.range(..file).next_back().map(|(_, range)| range.end);
        let behind =
            self.range_by_file.range(file..).find(|(id, _)| **id > file).map(|(_, range)| range.start);
        let start = [of_file.map(|range| range.start), before, behind].into_iter().flatten().min()?;
        let end = [of_file.map(|range| range.end), before, behind].into_iter().flatten().max()?;
        Some(TimeRange { start, end })
    }

    /// The last WAL file of which blocks hold every sample, with all files before it.
    pub(crate) fn persisted_through(&mut self, sealed: &[WalFileId], cut: Cut) -> Option<WalFileId> {
        let mut through = None;
        for file in sealed {
            let range = self.range_by_file.get(file);
            let done = range.is_none_or(|range| *file <= cut.wal_file && range.end < cut.before);
            if !done {
                break;
            }
            through = Some(*file);
        }
        if let Some(through) = through {
            self.range_by_file.retain(|file, _| *file > through);
        }
        through
    }
}

pub(crate) fn decode_labels(raw: &[u8], decoder: &dyn SeriesDecoder) -> Result<Labels, String> {
    // Names and values are in there as they are; what stands around them is no more than their like.
    if raw.len() > RAW_LABELS_MAX_BYTES {
        return Err(format!("its labels have more than {LABELS_MAX_BYTES} bytes"));
    }
    let labels = decoder.decode(raw).map_err(|error| error.to_string())?;
    // The log would not be read back with it.
    if labels.iter().any(|label| label.name.is_empty()) {
        return Err("a label has no name".to_owned());
    }
    let bytes: usize = labels.iter().map(label_bytes).sum();
    if bytes > LABELS_MAX_BYTES {
        return Err(format!("its labels have more than {LABELS_MAX_BYTES} bytes"));
    }
    Ok(labels)
}
