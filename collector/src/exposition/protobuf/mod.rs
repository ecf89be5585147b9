//! Prometheus's protobuf: `MetricFamily` messages, each behind its length.
//!
//! ```text
//! page           (length MetricFamily)*
//! MetricFamily   1: name  2: help  3: type  4: Metric*  5: unit
//! Metric         1: LabelPair*  2: gauge  3: counter  4: summary  5: untyped  6: timestamp (ms)  7: histogram
//! ```
//!
//! Follows `protobufparse.go` of Prometheus 3: which rows a histogram or a summary comes to and in which order, which
//! exemplars count, and that a time of zero is none. Messages are walked where they lie; a length is compared with what is
//! left before anything is taken, and the buckets of one histogram have a bound.
//!
//! A series is named by bytes of our own ([`SeriesKey`]), in which its labels are not decoded.

mod histogram;
mod wire;

use binnacle_model::Timestamp;
use binnacle_model::histogram::Histogram;
use binnacle_model::labels::{LabelsError, METRIC_NAME};

use super::number::format_bound;
use histogram::RawHistogram;
pub use wire::WireError;
use wire::{Field, Fields};

/// Which histograms are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Native ones. Otherwise only their classic buckets are seen.
    pub native: bool,
    /// Classic ones also where there are native ones.
    pub classic: bool,
}

/// What a page says.
#[derive(Debug)]
pub enum Entry<'a> {
    /// A metric: name, type, help and unit.
    Described {
        /// Of all its rows, without suffix.
        name: &'a str,
        /// `counter gauge histogram gaugehistogram summary unknown`
        kind: &'static str,
        /// A sentence.
        help: &'a str,
        /// Base unit, or empty.
        unit: &'a str,
    },
    /// A sample.
    Row {
        /// Names the series; see [`decode`].
        series: &'a [u8],
        /// What was measured.
        value: RowValue,
        /// Its time, where the page says one.
        timestamp: Option<Timestamp>,
        /// Bytes of its exemplars; see [`decode_exemplar`].
        exemplars: &'a [&'a [u8]],
    },
}

/// A number or a histogram.
#[derive(Debug, Clone, PartialEq)]
pub enum RowValue {
    /// A number.
    Float(f64),
    /// A native histogram, which fulfils `Histogram::validate`.
    Histogram(Box<Histogram>),
}

/// What becomes of a family's name, and which label is added.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Suffix {
    None,
    Count,
    Sum,
    Bucket(f64),
    Quantile(f64),
}

/// Bytes that name a series: suffix, bound, the family's name behind its length, and label pairs as on the page, each
/// behind its length.
#[derive(Debug, Default)]
struct SeriesKey {
    bytes: Vec<u8>,
}

impl SeriesKey {
    fn set(&mut self, suffix: Suffix, name: &str, labels: &[&[u8]]) {
        let (number, bound) = match suffix {
            Suffix::None => (0, None),
            Suffix::Count => (1, None),
            Suffix::Sum => (2, None),
            Suffix::Bucket(bound) => (3, Some(bound)),
            Suffix::Quantile(bound) => (4, Some(bound)),
        };
        let out = &mut self.bytes;
        out.clear();
        out.push(number);
        out.extend(bound.iter().flat_map(|bound| bound.to_le_bytes()));
        wire::put_varint(out, name.len() as u64);
        out.extend_from_slice(name.as_bytes());
        for pair in labels {
            wire::put_varint(out, pair.len() as u64);
            out.extend_from_slice(pair);
        }
    }
}

/// The pairs of a series that [`parse`] named, the name among them.
pub fn decode(key: &[u8]) -> Result<Vec<(String, String)>, LabelsError> {
    let malformed = |reason: String| LabelsError::Malformed(reason);
    let (number, mut rest) = key.split_first().ok_or_else(|| malformed("no bytes".to_owned()))?;
    let mut bound = None;
    if let (3 | 4, Some((eight, after))) = (number, rest.split_first_chunk::<8>()) {
        (bound, rest) = (Some(f64::from_le_bytes(*eight)), after);
    }
    let mut parts = Fields::new(rest);
    let mut next = || parts.delimited().map_err(|error| malformed(error.to_string()));
    let name = next()?.ok_or_else(|| malformed("no name".to_owned()))?;
    let suffix = ["", "_count", "_sum", "_bucket", ""].get(usize::from(*number)).copied().unwrap_or_default();
    let mut pairs = vec![(METRIC_NAME.to_owned(), text(name)?.to_owned() + suffix)];
    while let Some(pair) = next()? {
        pairs.push(label_pair(pair)?);
    }
    let label = if *number == 3 { "le" } else { "quantile" };
    pairs.extend(bound.map(|bound| (label.to_owned(), format_bound(bound))));
    Ok(pairs)
}

fn text(bytes: &[u8]) -> Result<&str, LabelsError> {
    std::str::from_utf8(bytes).map_err(|error| LabelsError::Malformed(error.to_string()))
}

fn label_pair(pair: &[u8]) -> Result<(String, String), LabelsError> {
    let (mut name, mut value) = ("", "");
    let mut fields = Fields::new(pair);
    while let Some(field) = fields.next().map_err(|error| LabelsError::Malformed(error.to_string()))? {
        match field.number {
            1 => name = text(field.bytes)?,
            2 => value = text(field.bytes)?,
            _ => {}
        }
    }
    if name.is_empty() {
        return Err(LabelsError::EmptyName);
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// An exemplar as [`Entry::Row`] shows it: pairs, value, and time.
pub type ReadExemplar = (Vec<(String, String)>, f64, Option<Timestamp>);

/// What the bytes of an exemplar say.
pub fn decode_exemplar(bytes: &[u8]) -> Result<ReadExemplar, LabelsError> {
    let (mut pairs, mut value, mut time) = (Vec::new(), 0.0, None);
    let mut fields = Fields::new(bytes);
    while let Some(field) = fields.next().map_err(|error| LabelsError::Malformed(error.to_string()))? {
        match field.number {
            1 => pairs.push(label_pair(field.bytes)?),
            2 => value = field.float(),
            3 => time = Some(moment(&field).map_err(|error| LabelsError::Malformed(error.to_string()))?),
            _ => {}
        }
    }
    Ok((pairs, value, time))
}

/// `google.protobuf.Timestamp`
fn moment(field: &Field<'_>) -> Result<Timestamp, WireError> {
    let (mut seconds, mut nanos) = (0i64, 0i64);
    let mut fields = Fields::new(field.bytes);
    while let Some(part) = fields.next()? {
        match part.number {
            1 => seconds = part.value as i64,
            2 => nanos = i64::from(part.value as i32),
            _ => {}
        }
    }
    Ok(Timestamp(seconds.saturating_mul(1000).saturating_add(nanos / 1_000_000)))
}

/// Types of families, as they are numbered.
const COUNTER: u64 = 0;
const GAUGE: u64 = 1;
const SUMMARY: u64 = 2;
const UNTYPED: u64 = 3;
const HISTOGRAM: u64 = 4;
const GAUGE_HISTOGRAM: u64 = 5;

/// Shows every metric and sample of `page` to `see`; stops at the first message that is malformed.
pub fn parse(page: &[u8], wanted: Wanted, mut see: impl FnMut(Entry<'_>)) -> Result<(), WireError> {
    let mut families = Fields::new(page);
    let mut key = SeriesKey::default();
    while let Some(body) = families.delimited()? {
        family(body, wanted, &mut key, &mut see).map_err(|error| error.within(page, body))?;
    }
    Ok(())
}

fn family(
    body: &[u8],
    wanted: Wanted,
    key: &mut SeriesKey,
    see: &mut impl FnMut(Entry<'_>),
) -> Result<(), WireError> {
    let (mut name, mut help, mut unit, mut kind, mut has_metrics) = (&[][..], &[][..], &[][..], 0, false);
    let mut fields = Fields::new(body);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => name = field.bytes,
            2 => help = field.bytes,
            3 => kind = field.value,
            4 => has_metrics = true,
            5 => unit = field.bytes,
            _ => {}
        }
    }
    if !has_metrics {
        return Ok(());
    }
    let read = |bytes, reason| std::str::from_utf8(bytes).map_err(|_| WireError { at: 0, reason });
    let name = read(name, "a metric's name is no UTF-8")?;
    let help = read(help, "a help text is no UTF-8")?;
    let unit = read(unit, "a unit is no UTF-8")?;
    if name.is_empty() {
        return Err(WireError { at: 0, reason: "a metric has no name" });
    }
    let shown = match kind {
        COUNTER => "counter",
        GAUGE => "gauge",
        SUMMARY => "summary",
        UNTYPED => "unknown",
        HISTOGRAM => "histogram",
        GAUGE_HISTOGRAM => "gaugehistogram",
        _ => return Err(WireError { at: 0, reason: "unknown metric type" }),
    };
    let base = if kind == COUNTER { name.strip_suffix("_total").unwrap_or(name) } else { name };
    if !unit.is_empty() && !base.strip_suffix(unit).is_some_and(|base| base.ends_with('_')) {
        return Err(WireError { at: 0, reason: "the unit is no suffix of the metric's name" });
    }
    see(Entry::Described { name, kind: shown, help, unit });
    let mut fields = Fields::new(body);
    while let Some(field) = fields.next()? {
        if field.number == 4 {
            let metric = Metric::read(field.bytes);
            let shown = metric.and_then(|metric| metric.show(kind, name, wanted, key, see));
            shown.map_err(|error| error.within(body, field.bytes))?;
        }
    }
    Ok(())
}

/// One metric, its parts not looked at yet.
#[derive(Default)]
struct Metric<'a> {
    labels: Vec<&'a [u8]>,
    /// The message of each kind that is there, by the number of its field.
    values: [Option<&'a [u8]>; 8],
    timestamp: Option<Timestamp>,
}

impl<'a> Metric<'a> {
    fn read(body: &'a [u8]) -> Result<Self, WireError> {
        let mut metric = Self::default();
        let mut fields = Fields::new(body);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => metric.labels.push(field.bytes),
                6 => metric.timestamp = Some(Timestamp(field.value as i64)).filter(|time| time.0 != 0),
                number @ (2..=5 | 7) => metric.values[number as usize] = Some(field.bytes),
                _ => {}
            }
        }
        Ok(metric)
    }

    fn show(
        &self,
        kind: u64,
        name: &str,
        wanted: Wanted,
        key: &mut SeriesKey,
        see: &mut impl FnMut(Entry<'_>),
    ) -> Result<(), WireError> {
        let mut row = |suffix, value: RowValue, exemplars: &[&[u8]]| {
            key.set(suffix, name, &self.labels);
            see(Entry::Row { series: &key.bytes, value, timestamp: self.timestamp, exemplars });
        };
        let message = |number: usize| self.values[number].unwrap_or_default();
        match kind {
            COUNTER | GAUGE | UNTYPED => {
                let number = [3, 2, 0, 5][kind as usize];
                let (value, exemplar) = simple(message(number))?;
                let exemplar = exemplar.filter(|_| kind == COUNTER);
                row(Suffix::None, RowValue::Float(value), exemplar.as_slice());
            }
            SUMMARY => {
                let summary = read_summary(message(4))?;
                row(Suffix::Count, RowValue::Float(summary.count), &[]);
                row(Suffix::Sum, RowValue::Float(summary.sum), &[]);
                for (quantile, value) in summary.quantiles {
                    row(Suffix::Quantile(quantile), RowValue::Float(value), &[]);
                }
            }
            _ => RawHistogram::read(message(7))?.show(kind == GAUGE_HISTOGRAM, wanted, &mut row)?,
        }
        Ok(())
    }
}

/// Value and exemplar of a counter, a gauge or something without a type.
fn simple(body: &[u8]) -> Result<(f64, Option<&[u8]>), WireError> {
    let (mut value, mut exemplar) = (0.0, None);
    let mut fields = Fields::new(body);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => value = field.float(),
            2 => exemplar = Some(field.bytes),
            _ => {}
        }
    }
    Ok((value, exemplar))
}

#[derive(Default)]
struct Summary {
    count: f64,
    sum: f64,
    quantiles: Vec<(f64, f64)>,
}

fn read_summary(body: &[u8]) -> Result<Summary, WireError> {
    let mut summary = Summary::default();
    let mut fields = Fields::new(body);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => summary.count = field.value as f64,
            2 => summary.sum = field.float(),
            3 => {
                let (mut quantile, mut value) = (0.0, 0.0);
                let mut parts = Fields::new(field.bytes);
                while let Some(part) = parts.next()? {
                    match part.number {
                        1 => quantile = part.float(),
                        2 => value = part.float(),
                        _ => {}
                    }
                }
                summary.quantiles.push((quantile, value));
            }
            _ => {}
        }
    }
    Ok(summary)
}

#[cfg(test)]
mod tests;
