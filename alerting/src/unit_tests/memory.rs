//! A store of metrics for one test.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use binnacle_model::histogram::{Histogram, ResetHint};
use binnacle_model::matcher::all_match;
use binnacle_model::storage::{
    AppendError, AppendReport, Appender, Deadline, HistogramSample, LabelSets, Metadata, Queryable,
    RawSeries, Series, SeriesDecoder, SeriesSet, StorageError,
};
use binnacle_model::{Labels, Matcher, Sample, TimeRange, Timestamp};

/// What a series has, by time.
#[derive(Debug, Default)]
struct Kept {
    samples: BTreeMap<Timestamp, f64>,
    histograms: BTreeMap<Timestamp, Arc<Histogram>>,
}

/// All series; nothing behind `until` can be seen yet.
#[derive(Debug)]
pub(super) struct Memory {
    kept: Mutex<(BTreeMap<Labels, Kept>, Timestamp)>,
}

impl Memory {
    pub(super) fn new() -> Self {
        Self { kept: Mutex::new((BTreeMap::new(), Timestamp(i64::MIN))) }
    }

    fn lock(&self) -> MutexGuard<'_, (BTreeMap<Labels, Kept>, Timestamp)> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on samples up to this moment are there.
    pub(super) fn show_until(&self, until: Timestamp) {
        self.lock().1 = until;
    }

    pub(super) fn put(&self, labels: &Labels, at: Timestamp, value: f64) {
        self.lock().0.entry(labels.clone()).or_default().samples.insert(at, value);
    }

    pub(super) fn put_histogram(&self, labels: &Labels, at: Timestamp, histogram: Histogram) {
        self.lock().0.entry(labels.clone()).or_default().histograms.insert(at, Arc::new(histogram));
    }
}

/// With a hint at each whether its counter began again since the one before.
fn hinted(kept: &Kept, range: TimeRange) -> Vec<HistogramSample> {
    let mut before: Option<&Arc<Histogram>> = None;
    let mut found = Vec::new();
    for (timestamp, histogram) in &kept.histograms {
        let mut histogram_now = Arc::clone(histogram);
        if histogram.hint == ResetHint::Unknown && !histogram.is_stale() {
            let hint = match before {
                Some(before) if histogram.is_reset_since(before) => ResetHint::Reset,
                Some(_) => ResetHint::NotReset,
                None => ResetHint::Unknown,
            };
            histogram_now = Arc::new(Histogram { hint, ..(**histogram).clone() });
        }
        before = (!histogram.is_stale()).then_some(histogram);
        if range.contains(*timestamp) {
            found.push(HistogramSample { timestamp: *timestamp, histogram: histogram_now });
        }
    }
    found
}

impl Queryable for Memory {
    fn select(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        _: &Deadline,
    ) -> Result<SeriesSet<'_>, StorageError> {
        let kept = self.lock();
        let range = TimeRange { start: range.start, end: range.end.min(kept.1) };
        let mut found = Vec::new();
        for (labels, series) in kept.0.iter().filter(|(labels, _)| all_match(matchers, labels)) {
            let samples = series.samples.iter().filter(|(at, _)| range.contains(**at));
            let samples = samples.map(|(at, value)| Sample { timestamp: *at, value: *value }).collect();
            let series = Series { labels: labels.clone(), samples, histograms: hinted(series, range) };
            if !series.samples.is_empty() || !series.histograms.is_empty() {
                found.push(Ok(series));
            }
        }
        Ok(Box::new(found.into_iter()))
    }

    fn series(&self, matchers: &[Matcher], _: TimeRange, _: &Deadline) -> Result<LabelSets, StorageError> {
        let kept = self.lock();
        let labels = kept.0.keys().filter(|labels| all_match(matchers, labels)).cloned().collect();
        Ok(LabelSets { labels, warnings: Vec::new() })
    }

    fn metadata(&self) -> BTreeMap<String, Vec<Metadata>> {
        BTreeMap::new()
    }
}

impl Appender for Memory {
    fn append(
        &self,
        batch: &[RawSeries<'_>],
        decoder: &dyn SeriesDecoder,
    ) -> Result<AppendReport, AppendError> {
        for one in batch {
            let labels =
                decoder.decode(one.labels).map_err(|error| AppendError::Invalid(error.to_string()))?;
            for sample in one.samples {
                self.put(&labels, sample.timestamp, sample.value);
            }
            for sample in one.histograms {
                self.put_histogram(&labels, sample.timestamp, (*sample.histogram).clone());
            }
        }
        Ok(AppendReport::default())
    }

    fn append_metadata(&self, _: &[(String, Metadata)]) {}
}
