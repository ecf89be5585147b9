//! A page against what is known of its target: what is new is decoded, relabelled and checked, the rest is compared.

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::sync::Arc;

use binnacle_model::histogram::Histogram;
use binnacle_model::storage::{Exemplar, HistogramSample, Metadata, RawExemplar, RawSeries};
use binnacle_model::{Labels, STALE_NAN, Sample, Timestamp};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::known::{Found, Known};
use super::labels::{PROTOBUF, SeriesLabels, tag};
use super::pool::Pool;
use super::protocol::Media;
use crate::exposition::protobuf::{self, Entry, RowValue};
use crate::exposition::{Format, Line, PageExemplar, Parser, decode_series, unescape};

/// What a page says of its metrics, ascending by name.
pub(super) type Description = Vec<(String, Metadata)>;

/// What a page came to. After an error, what stood before it.
#[derive(Debug, Default)]
pub(super) struct Rows {
    samples: Vec<Row>,
    histograms: Vec<HistogramRow>,
    exemplars: Vec<(u32, Exemplar)>,
    /// Samples of the page, those among them that the rules let go.
    pub(super) count: usize,
    /// Those that they did not.
    pub(super) left: usize,
    /// Series that the target did not have before.
    pub(super) added: usize,
    /// Samples of series that the page had named before, which are not stored.
    pub(super) doubles: usize,
    /// Hash of what the page says of its metrics.
    pub(super) description: u64,
}

#[derive(Debug)]
struct Row {
    index: u32,
    /// Whether its series ends with a marker once it is gone.
    is_tracked: bool,
    sample: Sample,
}

#[derive(Debug)]
struct HistogramRow {
    index: u32,
    is_tracked: bool,
    sample: HistogramSample,
}

/// What a sample has beside its series and its value.
struct About {
    timestamp: Option<Timestamp>,
    at: Timestamp,
    is_tracked: bool,
}

/// Reads one page.
pub(super) struct Reader<'r> {
    pub(super) pool: &'r Pool,
    pub(super) decoder: &'r SeriesLabels,
    pub(super) known: &'r mut Known,
    pub(super) began: Timestamp,
    pub(super) rows: Rows,
    /// Bytes of a new series behind its tag.
    scratch: Vec<u8>,
}

impl<'r> Reader<'r> {
    pub(super) fn new(
        pool: &'r Pool,
        decoder: &'r SeriesLabels,
        known: &'r mut Known,
        began: Timestamp,
    ) -> Self {
        known.begin();
        let mut rows = Rows::default();
        rows.samples.reserve(known.len());
        Self { pool, decoder, known, began, rows, scratch: Vec::new() }
    }

    /// Takes the page as a whole.
    ///
    /// # Errors
    /// The reason why it is refused.
    pub(super) fn read(&mut self, page: &[u8], media: Media) -> Result<(), String> {
        let malformed = |error: &dyn std::fmt::Display| format!("malformed page: {error}");
        match media {
            Media::Text(format) => self.text(page, format)?,
            Media::Protobuf => {
                let mut failure = None;
                let read = protobuf::parse(page, self.pool.histograms, |entry| {
                    if failure.is_none() {
                        failure = self.entry(entry).err();
                    }
                });
                // What came first is what is told.
                failure.map_or(Ok(()), Err)?;
                read.map_err(|error| malformed(&error))?;
            }
        }
        let limit = self.pool.limits.samples;
        if limit > 0 && self.rows.len() > limit {
            return Err("sample limit exceeded".to_owned());
        }
        Ok(())
    }

    fn text(&mut self, page: &[u8], format: Format) -> Result<(), String> {
        let mut parser = Parser::new(page, format);
        let malformed = |error| format!("malformed page: {error}");
        loop {
            let expected = self.known.expected();
            if let Some((index, bytes)) = expected
                && let Some(line) = parser.next_if(&bytes[1..]).map_err(malformed)?
            {
                let found = self.known.confirm(index);
                if let Line::Sample { value, timestamp, exemplar, .. } = line {
                    self.rows.count += 1;
                    self.sample(found, value, timestamp, exemplar);
                }
                continue;
            }
            match parser.next_line().map_err(malformed)? {
                Some(Line::Sample { series, value, timestamp, exemplar, family }) => {
                    self.rows.count += 1;
                    let found = self.find(tag(family), series)?;
                    self.sample(found, value, timestamp, exemplar);
                }
                Some(Line::Type(name, text) | Line::Help(name, text) | Line::Unit(name, text)) => {
                    self.rows.describe(name, text);
                }
                None => return Ok(()),
            }
        }
    }

    fn entry(&mut self, entry: Entry<'_>) -> Result<(), String> {
        match entry {
            Entry::Described { name, kind, help, unit } => {
                for text in [kind, help, unit] {
                    self.rows.describe(name, text);
                }
                Ok(())
            }
            Entry::Row { series, value, timestamp, exemplars } => {
                self.rows.count += 1;
                let expected = self.known.expected().filter(|(_, bytes)| &bytes[1..] == series);
                let found = match expected.map(|(index, _)| index) {
                    Some(index) => self.known.confirm(index),
                    None => self.find(PROTOBUF, series)?,
                };
                let Some(about) = self.about(found, timestamp) else { return Ok(()) };
                let is_native = matches!(value, RowValue::Histogram(_));
                match value {
                    RowValue::Float(value) => self.push(found.index, value, &about),
                    RowValue::Histogram(histogram) => self.push_histogram(found.index, *histogram, &about)?,
                }
                for bytes in exemplars {
                    self.exemplar_of_message(found.index, bytes, is_native, about.at);
                }
                Ok(())
            }
        }
    }

    /// The entry of a series that is not the expected one; one that is new is decoded and checked.
    fn find(&mut self, tag: u8, series: &[u8]) -> Result<Found, String> {
        if let Some(found) = self.known.find(series) {
            return Ok(found);
        }
        let shown = || String::from_utf8_lossy(&series[..series.len().min(200)]).into_owned();
        self.scratch.clear();
        self.scratch.push(tag);
        self.scratch.extend_from_slice(series);
        let read = self.decoder.read(&self.scratch);
        let labels = read.map_err(|error| format!("malformed page: {}: {error}", shown()))?;
        let Some(labels) = labels else { return Ok(self.known.add(&self.scratch, None)) };
        self.pool.limits.check(&labels)?;
        let hash = foldhash::quality::FixedState::default().hash_one(&labels);
        self.rows.added += 1;
        Ok(self.known.add(&self.scratch, Some(hash)))
    }

    /// `None` if the sample is not to be stored.
    fn about(&mut self, found: Found, timestamp: Option<Timestamp>) -> Option<About> {
        if found.is_dropped {
            return None;
        }
        self.rows.left += 1;
        let timestamp = timestamp.filter(|_| !self.pool.ignore_timestamps);
        if found.is_double && timestamp.is_none() {
            self.rows.doubles += 1;
            return None;
        }
        let is_tracked = timestamp.is_none() || self.pool.track_timestamps_staleness;
        Some(About { timestamp, at: timestamp.unwrap_or(self.began), is_tracked })
    }

    #[inline]
    fn sample(
        &mut self,
        found: Found,
        value: f64,
        timestamp: Option<Timestamp>,
        exemplar: Option<PageExemplar<'_>>,
    ) {
        let Some(about) = self.about(found, timestamp) else { return };
        self.push(found.index, value, &about);
        if let Some(one) = exemplar {
            // An exemplar with labels that cannot be used is left out: its sample is sound.
            if let Some(labels) = decode_series(one.labels).ok().and_then(|pairs| Labels::new(pairs).ok()) {
                let timestamp = one.timestamp.or(about.timestamp).unwrap_or(self.began);
                self.rows.exemplars.push((found.index, Exemplar { labels, value: one.value, timestamp }));
            }
        }
    }

    #[inline]
    fn push(&mut self, index: u32, value: f64, about: &About) {
        let sample = Sample { timestamp: about.at, value };
        self.rows.samples.push(Row { index, is_tracked: about.is_tracked, sample });
    }

    fn push_histogram(&mut self, index: u32, mut histogram: Histogram, about: &About) -> Result<(), String> {
        if !self.pool.limits.fit(&mut histogram) {
            return Err("histogram bucket limit exceeded".to_owned());
        }
        let sample = HistogramSample { timestamp: about.at, histogram: Arc::new(histogram) };
        self.rows.histograms.push(HistogramRow { index, is_tracked: about.is_tracked, sample });
        Ok(())
    }

    /// As in Prometheus, an exemplar of a native histogram must say when it was measured.
    fn exemplar_of_message(&mut self, index: u32, bytes: &[u8], is_native: bool, at: Timestamp) {
        let Ok((pairs, value, timestamp)) = protobuf::decode_exemplar(bytes) else { return };
        if is_native && timestamp.is_none() {
            return;
        }
        if let Ok(labels) = Labels::new(pairs) {
            let timestamp = timestamp.unwrap_or(at);
            self.rows.exemplars.push((index, Exemplar { labels, value, timestamp }));
        }
    }
}

impl Rows {
    fn len(&self) -> usize {
        self.samples.len() + self.histograms.len()
    }

    fn describe(&mut self, name: &str, text: &str) {
        self.description = xxh3_64_with_seed(name.as_bytes(), self.description);
        self.description = xxh3_64_with_seed(text.as_bytes(), self.description);
    }

    /// The series of these samples go on from here.
    pub(super) fn track(&self, known: &mut Known) {
        self.samples.iter().filter(|row| row.is_tracked).for_each(|row| known.track(row.index, false));
        self.histograms.iter().filter(|row| row.is_tracked).for_each(|row| known.track(row.index, true));
    }

    /// Adds a marker for each series that ended.
    pub(super) fn end(&mut self, ended: &[(u32, bool)], at: Timestamp) {
        for (index, is_histogram) in ended {
            let (index, is_tracked) = (*index, false);
            if *is_histogram {
                let sample = HistogramSample { timestamp: at, histogram: Arc::new(Histogram::stale()) };
                self.histograms.push(HistogramRow { index, is_tracked, sample });
            } else {
                let sample = Sample { timestamp: at, value: STALE_NAN };
                self.samples.push(Row { index, is_tracked, sample });
            }
        }
    }

    /// What is to be appended.
    pub(super) fn batch<'b>(
        &'b self,
        known: &'b Known,
        own: &'b [(&'static [u8], Sample)],
    ) -> Vec<RawSeries<'b>> {
        let mut batch = Vec::with_capacity(self.len() + own.len());
        batch.extend(self.samples.iter().map(|row| RawSeries {
            labels: known.bytes(row.index),
            samples: std::slice::from_ref(&row.sample),
            histograms: &[],
        }));
        batch.extend(self.histograms.iter().map(|row| RawSeries {
            labels: known.bytes(row.index),
            samples: &[],
            histograms: std::slice::from_ref(&row.sample),
        }));
        batch.extend(own.iter().map(|(labels, sample)| RawSeries {
            labels,
            samples: std::slice::from_ref(sample),
            histograms: &[],
        }));
        batch
    }

    pub(super) fn exemplars<'b>(&'b self, known: &'b Known) -> Vec<RawExemplar<'b>> {
        let raw = |(index, exemplar): &'b (u32, Exemplar)| RawExemplar {
            series: known.bytes(*index),
            exemplar: exemplar.clone(),
        };
        self.exemplars.iter().map(raw).collect()
    }
}

/// What a page, which was read before, says of its metrics.
pub(super) fn describe(page: &[u8], media: Media) -> Description {
    let mut found: BTreeMap<String, Metadata> = BTreeMap::new();
    match media {
        Media::Protobuf => {
            let see = |entry: Entry<'_>| {
                if let Entry::Described { name, kind, help, unit } = entry {
                    let [kind, help, unit] = [kind, help, unit].map(str::to_owned);
                    found.insert(name.to_owned(), Metadata { kind, help, unit });
                }
            };
            // What was read once is read again.
            let _ = protobuf::parse(page, protobuf::Wanted::default(), see);
        }
        Media::Text(format) => {
            let mut parser = Parser::new(page, format);
            while let Ok(Some(line)) = parser.next_line() {
                match line {
                    Line::Type(name, kind) => {
                        kind.clone_into(&mut found.entry(name.to_owned()).or_default().kind);
                    }
                    Line::Help(name, help) => found.entry(name.to_owned()).or_default().help = unescape(help),
                    Line::Unit(name, unit) => {
                        unit.clone_into(&mut found.entry(name.to_owned()).or_default().unit);
                    }
                    Line::Sample { .. } => {}
                }
            }
        }
    }
    found.into_iter().collect()
}
