//! `POST /api/v1/write`: Prometheus's remote write 1.0; 2.0 is in `write_v2`.
//!
//! The body is walked by hand: a series' label bytes are hashed as they stand, and decoded only when
//! the store has not seen them before. Field numbers are those of Prometheus's `prompb/types.proto`:
//!
//! ```text
//! WriteRequest  1: TimeSeries*   3: MetricMetadata*
//! TimeSeries    1: Label*        2: Sample*       3: Exemplar*      4: Histogram*
//! Exemplar      1: Label*        2: value double  3: timestamp int64 (ms)
//! Label         1: name          2: value
//! Sample        1: value double  2: timestamp int64 (ms)
//! Metadata      1: type enum     2: metric family  4: help  5: unit
//! ```

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use binnacle_model::labels::LabelsError;
use binnacle_model::storage::{
    AppendReport, EXEMPLAR_LABELS_MAX, Exemplar, HistogramSample, Metadata, RawExemplar, RawSeries,
    SeriesDecoder, Unsynced,
};
use binnacle_model::{Labels, Sample, Timestamp};

use super::wire::{Fields, WireError, put_bytes, put_varint};
use super::write_v2::write_request_v2;
use super::{
    INLINE_MAX_BYTES, Intake, Refusal, body_length, header_text, histogram, read_body, synced, unsnapped,
    unsnapped_len,
};

/// Series of one body; an empty one is two bytes on the wire.
pub(super) const MAX_SERIES: usize = 200_000;

/// Descriptions of metrics in one body.
pub(super) const MAX_METADATA: usize = 20_000;

/// Samples of one body.
const MAX_SAMPLES: usize = 1_000_000;

/// An exemplar counts as so many of them.
const EXEMPLAR_WEIGHT: usize = 4;

/// What a series with one sample takes on the wire, or more.
const SERIES_USUAL_BYTES: usize = 256;

/// Field 1 of a series, with a length.
const LABEL_TAG: u8 = 1 << 3 | 2;

/// A histogram counts as so many of them, and its buckets as one each.
const HISTOGRAM_WEIGHT: usize = 8;

pub(super) async fn handle(State(intake): State<Arc<Intake>>, request: Request) -> Result<Response, Refusal> {
    let content_type = header_text(request.headers(), "content-type");
    let is_v2 = is_v2(content_type)?;
    let length = body_length(request.headers());
    let place = intake.place(length).await?;
    let body = read_body(request.into_body(), length).await?;
    let decoded = unsnapped_len(&body);
    if !is_v2
        && decoded <= INLINE_MAX_BYTES
        && intake.metrics.may_append_soon()
        && let Some(_room) = intake.room_now(decoded)
        && let Some((report, impossible, unsynced)) = take_soon(&intake, &body)?
    {
        synced(unsynced).await?;
        return Ok(answer(&report, impossible));
    }
    let metrics = Arc::clone(&intake.metrics);
    let telemetry = intake.telemetry.clone();
    let report = intake
        .run(place, decoded, move || {
            unsnapped(&body, |plain| {
                let read = if is_v2 { write_request_v2(plain) } else { write_request(plain) };
                let request = read.map_err(|error| Refusal::Bad(error.to_string()))?;
                telemetry.histograms_dropped.inc_by(request.impossible as u64);
                let report = metrics.append(&request.batch(), &WireLabels)?;
                metrics.append_metadata(&request.metadata);
                let exemplars = metrics.append_exemplars(&request.exemplars(), &WireLabels);
                let impossible = request.impossible();
                Ok((report, exemplars, impossible))
            })
        })
        .await?;
    let (report, exemplars, impossible) = report;
    let mut response = answer(&report, impossible);
    if is_v2 {
        say_written(&mut response, &report, exemplars);
    }
    Ok(response)
}

type Impossible = Option<(usize, String)>;

type Taken = (AppendReport, Impossible, Arc<dyn Unsynced>);

/// Takes samples on this thread; `None` where that might wait, or where there is more than samples.
fn take_soon(intake: &Intake, body: &[u8]) -> Result<Option<Taken>, Refusal> {
    unsnapped(body, |plain| {
        let request = write_request(plain).map_err(|error| Refusal::Bad(error.to_string()))?;
        if !request.metadata.is_empty() || !request.exemplars.is_empty() {
            return Ok(None);
        }
        let Some(taken) = intake.metrics.append_soon(&request.batch(), &WireLabels) else { return Ok(None) };
        let (report, unsynced) = taken.map_err(|error| intake.shed(error.into()))?;
        intake.telemetry.histograms_dropped.inc_by(request.impossible as u64);
        Ok(Some((report, request.impossible(), unsynced)))
    })
}

fn answer(report: &AppendReport, impossible: Impossible) -> Response {
    if report.refused() == 0 && impossible.is_none() {
        return StatusCode::NO_CONTENT.into_response();
    }
    refused(report, impossible).into_response()
}

/// Which of the two messages the body is; without a word, the older one.
fn is_v2(content_type: &str) -> Result<bool, Refusal> {
    let mut words = content_type.split(';').map(str::trim);
    let kind = words.next().unwrap_or_default();
    let proto = words.find_map(|word| word.strip_prefix("proto=")).unwrap_or("prometheus.WriteRequest");
    let kind_fits = kind.is_empty() || kind.eq_ignore_ascii_case("application/x-protobuf");
    match (kind_fits, proto.trim_matches('"')) {
        (true, "prometheus.WriteRequest") => Ok(false),
        (true, "io.prometheus.write.v2.Request") => Ok(true),
        _ => Err(Refusal::Unsupported(format!(
            "{content_type:?} is not taken; send application/x-protobuf with proto=prometheus.WriteRequest or proto=io.prometheus.write.v2.Request"
        ))),
    }
}

/// So that a sender of 2.0 knows what arrived, also beside an error.
fn say_written(response: &mut Response, report: &AppendReport, exemplars: usize) {
    let samples = report.appended + report.duplicate - report.histograms;
    for (name, count) in [
        ("x-prometheus-remote-write-samples-written", samples),
        ("x-prometheus-remote-write-histograms-written", report.histograms),
        ("x-prometheus-remote-write-exemplars-written", exemplars),
    ] {
        response.headers_mut().insert(name, HeaderValue::from(count));
    }
}

fn refused(report: &AppendReport, impossible: Impossible) -> Refusal {
    // As Prometheus: the rest is kept, and sending these again will not help.
    let impossible = impossible
        .map_or_else(String::new, |(count, reason)| format!("; {count} histograms refused: {reason}"));
    let refused = report.refusal().unwrap_or_else(|| "0 samples refused".to_owned());
    Refusal::Bad(refused + &impossible)
}

/// A request, its series still as they came.
#[derive(Debug, Default)]
pub struct WriteRequest<'a> {
    pub(super) series: Vec<OneSeries<'a>>,
    pub(super) samples: Vec<Sample>,
    histograms: Vec<HistogramSample>,
    /// By the number of their series.
    exemplars: Vec<(usize, Exemplar)>,
    /// Descriptions of metrics.
    pub metadata: Vec<(String, Metadata)>,
    /// What samples and histograms weigh so far.
    weight: usize,
    /// Histograms that are none, and why the last of them is not.
    pub impossible: usize,
    reason: String,
}

/// A series, its samples as places in those of all.
#[derive(Debug)]
pub(super) struct OneSeries<'a> {
    labels: Cow<'a, [u8]>,
    samples: Range<usize>,
    histograms: Range<usize>,
}

impl WriteRequest<'_> {
    /// How many histograms are none, and why the last of them is not.
    fn impossible(&self) -> Impossible {
        (self.impossible > 0).then(|| (self.impossible, self.reason.clone()))
    }

    /// The series as a store takes them.
    pub fn batch(&self) -> Vec<RawSeries<'_>> {
        self.series
            .iter()
            .map(|one| RawSeries {
                labels: &one.labels,
                samples: &self.samples[one.samples.clone()],
                histograms: &self.histograms[one.histograms.clone()],
            })
            .collect()
    }

    /// The exemplars as a store takes them.
    pub fn exemplars(&self) -> Vec<RawExemplar<'_>> {
        let raw = |(series, exemplar): &(usize, Exemplar)| RawExemplar {
            series: &self.series[*series].labels,
            exemplar: exemplar.clone(),
        };
        self.exemplars.iter().map(raw).collect()
    }

    fn charge(&mut self, weight: usize, at: usize) -> Result<(), WireError> {
        self.weight += weight;
        if self.weight > MAX_SAMPLES {
            return Err(WireError { at, reason: "more than a million samples in one body" });
        }
        Ok(())
    }

    /// Keeps a sample.
    pub(super) fn push_sample(&mut self, bytes: &[u8], at: usize) -> Result<(), WireError> {
        self.charge(1, at)?;
        self.samples.push(sample(bytes, at)?);
        Ok(())
    }

    /// Keeps an exemplar of the series being read. Its labels are a courtesy: one that has unusable ones is not kept.
    pub(super) fn push_exemplar(
        &mut self,
        labels: Result<Labels, LabelsError>,
        sample: Sample,
        at: usize,
    ) -> Result<(), WireError> {
        self.charge(EXEMPLAR_WEIGHT, at)?;
        if let Ok(labels) = labels {
            let Sample { timestamp, value } = sample;
            self.exemplars.push((self.series.len(), Exemplar { labels, value, timestamp }));
        }
        Ok(())
    }

    /// Keeps a histogram, or counts it if it is none.
    pub(super) fn push_histogram(&mut self, bytes: &[u8], at: usize) -> Result<(), WireError> {
        let sample = histogram::read(bytes, at)?;
        self.charge(HISTOGRAM_WEIGHT + sample.histogram.size_in_samples(), at)?;
        // A staleness marker has nothing but its sum.
        let valid = if sample.histogram.is_stale() { Ok(()) } else { sample.histogram.validate() };
        match valid {
            Ok(()) => self.histograms.push(sample),
            Err(reason) => {
                self.impossible += 1;
                self.reason = reason;
            }
        }
        Ok(())
    }
}

/// A series being read: its labels, and where its samples begin.
pub(super) struct Parts<'a> {
    pub(super) labels: Cow<'a, [u8]>,
    samples: usize,
    histograms: usize,
}

impl<'a> Parts<'a> {
    pub(super) fn begin(request: &WriteRequest<'a>) -> Self {
        let labels = Cow::Borrowed(&[][..]);
        Self { labels, samples: request.samples.len(), histograms: request.histograms.len() }
    }

    pub(super) fn end(self, request: &mut WriteRequest<'a>) {
        request.series.push(OneSeries {
            labels: self.labels,
            samples: self.samples..request.samples.len(),
            histograms: self.histograms..request.histograms.len(),
        });
    }
}

/// Walks a decompressed body.
pub fn write_request(body: &[u8]) -> Result<WriteRequest<'_>, WireError> {
    let mut request = WriteRequest::default();
    let likely = body.len() / SERIES_USUAL_BYTES;
    request.series.reserve(likely);
    request.samples.reserve(likely);
    let mut fields = Fields::new(body, 0);
    while let Some(field) = fields.next()? {
        match (field.number, field.bytes) {
            (1, Some(bytes)) => {
                if request.series.len() >= MAX_SERIES {
                    return fields.fail("more than 200,000 series in one body");
                }
                time_series(bytes, field.at, &mut request)?;
            }
            (3, Some(bytes)) => {
                if request.metadata.len() >= MAX_METADATA {
                    return fields.fail("more than 20,000 descriptions in one body");
                }
                let described = metadata(bytes, field.at)?;
                request.metadata.push(described);
            }
            _ => {}
        }
    }
    Ok(request)
}

fn time_series<'a>(body: &'a [u8], at: usize, request: &mut WriteRequest<'a>) -> Result<(), WireError> {
    let mut parts = Parts::begin(request);
    let mut labels: Option<Range<usize>> = None;
    let mut scattered: Option<Vec<u8>> = None;
    let mut fields = Fields::new(body, at);
    // Nearly always all labels come first, each of them short.
    let end = fields.pass_run(LABEL_TAG);
    if end > 0 {
        labels = Some(0..end);
    }
    while let Some(field) = fields.next()? {
        match (field.number, field.bytes) {
            (1, Some(_)) => {
                let span = field.start..fields.position;
                match (&mut labels, &mut scattered) {
                    (_, Some(copy)) => copy.extend_from_slice(&body[span]),
                    (Some(known), None) if known.end == span.start => known.end = span.end,
                    (Some(known), None) => {
                        // Legal, though nobody does it: labels with other fields in between.
                        let mut copy = body[known.clone()].to_vec();
                        copy.extend_from_slice(&body[span]);
                        scattered = Some(copy);
                    }
                    (None, None) => labels = Some(span),
                }
            }
            (2, Some(bytes)) => request.push_sample(bytes, field.at)?,
            (3, Some(bytes)) => exemplar(bytes, field.at, request)?,
            (4, Some(bytes)) => request.push_histogram(bytes, field.at)?,
            _ => {}
        }
    }
    parts.labels = match scattered {
        Some(copy) => Cow::Owned(copy),
        None => Cow::Borrowed(&body[labels.unwrap_or(0..0)]),
    };
    parts.end(request);
    Ok(())
}

fn exemplar(body: &[u8], at: usize, request: &mut WriteRequest<'_>) -> Result<(), WireError> {
    let mut sample = Sample { timestamp: Timestamp(0), value: 0.0 };
    let mut fields = Fields::new(body, at);
    while let Some(field) = fields.next()? {
        match field.number {
            2 => sample.value = f64::from_bits(field.number_value),
            3 => sample.timestamp = Timestamp(field.number_value as i64),
            _ => {}
        }
    }
    // Labels are the fields that the decoder of a series looks for, too. So many bytes hold what is kept of them, with
    // room for names and lengths; what is longer is not looked at.
    let labels = if body.len() > 16 * EXEMPLAR_LABELS_MAX {
        Err(LabelsError::Malformed("an exemplar with too long labels".to_owned()))
    } else {
        pairs(body).and_then(|pairs| exemplar_labels(pairs.iter().map(|[name, value]| (&**name, &**value))))
    };
    request.push_exemplar(labels, sample, at)
}

/// As nearly everybody writes it: the value, and then the time.
#[inline]
fn usual_sample(body: &[u8]) -> Option<Sample> {
    let (value, rest) = body.strip_prefix(&[1 << 3 | 1])?.split_first_chunk()?;
    let rest = rest.strip_prefix(&[2 << 3])?;
    // Ten bytes hold any number; longer ones are for whoever says what is wrong with them.
    let (last, before) = rest.split_last().filter(|(last, before)| **last < 0x80 && before.len() < 9)?;
    let mut time = u64::from(*last);
    for byte in before.iter().rev() {
        if *byte < 0x80 {
            return None;
        }
        time = time << 7 | u64::from(byte & 0x7f);
    }
    Some(Sample { timestamp: Timestamp(time as i64), value: f64::from_le_bytes(*value) })
}

fn sample(body: &[u8], at: usize) -> Result<Sample, WireError> {
    if let Some(sample) = usual_sample(body) {
        return Ok(sample);
    }
    let mut sample = Sample { timestamp: Timestamp(0), value: 0.0 };
    let mut fields = Fields::new(body, at);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => sample.value = f64::from_bits(field.number_value),
            2 => sample.timestamp = Timestamp(field.number_value as i64),
            _ => {}
        }
    }
    Ok(sample)
}

/// What a metric is, by the number that both messages have for it.
pub(super) fn kind_name(number: u64) -> &'static str {
    let kinds = ["unknown", "counter", "gauge", "histogram", "gaugehistogram", "summary", "info", "stateset"];
    usize::try_from(number).ok().and_then(|at| kinds.get(at)).copied().unwrap_or("unknown")
}

fn metadata(body: &[u8], at: usize) -> Result<(String, Metadata), WireError> {
    let mut name = String::new();
    let mut described = Metadata { kind: "unknown".to_owned(), ..Metadata::default() };
    let mut fields = Fields::new(body, at);
    while let Some(field) = fields.next()? {
        let text = || field.bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        match field.number {
            1 => kind_name(field.number_value).clone_into(&mut described.kind),
            2 => name = text().unwrap_or_default(),
            4 => described.help = text().unwrap_or_default(),
            5 => described.unit = text().unwrap_or_default(),
            _ => {}
        }
    }
    Ok((name, described))
}

/// Knows what the label bytes of a write request mean.
pub(crate) struct WireLabels;

impl SeriesDecoder for WireLabels {
    fn salt(&self) -> u64 {
        // Of no meaning but to differ from scrape targets'.
        0x7277_315f_7769_7265
    }

    fn decode(&self, raw: &[u8]) -> Result<Labels, LabelsError> {
        let labels = Labels::new(pairs(raw)?.into_iter().map(|[name, value]| (name, value)))?;
        // As Prometheus: what has no name cannot be asked for.
        if labels.metric_name().is_empty() {
            return Err(LabelsError::Malformed(format!("a series without a metric name: {labels}")));
        }
        Ok(labels)
    }
}

/// Labels of an exemplar; more than are kept are none at all.
pub(super) fn exemplar_labels<'l>(
    pairs: impl Iterator<Item = (&'l str, &'l str)> + Clone,
) -> Result<Labels, LabelsError> {
    // A character has four bytes at the most.
    if pairs.clone().map(|(name, value)| name.len() + value.len()).sum::<usize>() > 4 * EXEMPLAR_LABELS_MAX {
        return Err(LabelsError::Malformed("an exemplar with too long labels".to_owned()));
    }
    Labels::new(pairs)
}

/// Names and values as they stand.
fn pairs(raw: &[u8]) -> Result<Vec<[String; 2]>, LabelsError> {
    let malformed = |error: WireError| LabelsError::Malformed(error.to_string());
    let mut pairs = Vec::new();
    let mut fields = Fields::new(raw, 0);
    while let Some(field) = fields.next().map_err(malformed)? {
        let (Some(bytes), 1) = (field.bytes, field.number) else { continue };
        let mut pair = [String::new(), String::new()];
        let mut inner = Fields::new(bytes, field.at);
        while let Some(part) = inner.next().map_err(malformed)? {
            if let (Some(bytes), 1 | 2) = (part.bytes, part.number) {
                let text = std::str::from_utf8(bytes);
                let text = text.map_err(|_| LabelsError::Malformed("not UTF-8".to_owned()))?;
                text.clone_into(&mut pair[part.number as usize - 1]);
            }
        }
        pairs.push(pair);
    }
    Ok(pairs)
}

/// How many messages and texts a message of at most three levels holds, each of which will be allocated.
pub(super) fn count_parts(body: &[u8]) -> Result<usize, WireError> {
    let mut parts = 0;
    let mut batches = Fields::new(body, 0);
    while let Some(batch) = batches.next()? {
        parts += 1;
        let mut entries = Fields::new(batch.bytes.unwrap_or_default(), batch.at);
        while let Some(entry) = entries.next()? {
            parts += 1;
            // Of a batch, only labels (4) and entries (5) are messages.
            if let (Some(bytes), 4 | 5) = (entry.bytes, entry.number) {
                let mut fields = Fields::new(bytes, entry.at);
                while fields.next()?.is_some() {
                    parts += 1;
                }
            }
        }
    }
    Ok(parts)
}

/// A body, not yet compressed, of series with one set of samples each.
pub fn encode_write_request<'a>(series: impl IntoIterator<Item = (&'a Labels, &'a [Sample])>) -> Vec<u8> {
    let mut out = Vec::new();
    let (mut one, mut part) = (Vec::new(), Vec::new());
    for (labels, samples) in series {
        one.clear();
        put_labels(&mut one, labels.iter().map(|label| (&*label.name, &*label.value)));
        for sample in samples {
            part.clear();
            part.push(1 << 3 | 1);
            part.extend_from_slice(&sample.value.to_bits().to_le_bytes());
            part.push(2 << 3);
            put_varint(&mut part, sample.timestamp.0 as u64);
            put_bytes(&mut one, 2, &part);
        }
        put_bytes(&mut out, 1, &one);
    }
    out
}

/// Labels as a series has them.
pub(crate) fn put_labels<'l>(out: &mut Vec<u8>, labels: impl IntoIterator<Item = (&'l str, &'l str)>) {
    let mut part = Vec::new();
    for (name, value) in labels {
        part.clear();
        put_bytes(&mut part, 1, name.as_bytes());
        put_bytes(&mut part, 2, value.as_bytes());
        put_bytes(out, 1, &part);
    }
}

#[cfg(test)]
mod tests;
