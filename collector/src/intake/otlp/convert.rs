//! From OTLP's points to series, as Prometheus's OTLP receiver makes them.
//!
//! ```text
//! Gauge, Sum            name                          a Sum that only rises ends in _total
//! Histogram             name_bucket{le}, name_sum, name_count
//! ExponentialHistogram  name                          a native histogram
//! Summary               name{quantile}, name_sum, name_count
//! Resource              target_info{…}, and job and instance of every series
//! ```

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use binnacle_model::histogram::{Buckets as NativeBuckets, Histogram as Native};
use binnacle_model::labels::METRIC_NAME;
use binnacle_model::storage::{Exemplar as KeptExemplar, HistogramSample, Metadata};
use binnacle_model::{STALE_NAN, Sample, Timestamp};

use super::OtlpOptions;
use super::message::{
    AnyValue, Buckets, Exemplar, ExponentialPoint, Histogram, HistogramPoint, KeyValue, Metric, NumberPoint,
    Request, Resource, ResourceMetrics, SummaryPoint,
};
use super::names::{Kind, label_name, metric_name};
use crate::intake::remote_write::{MAX_METADATA, exemplar_labels, put_labels};

/// The point was not measured: its series has ended.
const NO_RECORDED_VALUE: u32 = 1;

/// `AGGREGATION_TEMPORALITY_CUMULATIVE`.
const CUMULATIVE: i32 = 2;

/// Schemas of native histograms.
const SCHEMA_MIN: i32 = -4;
const SCHEMA_MAX: i32 = 8;

/// What an exponential histogram that says nothing counts as zero.
const ZERO_THRESHOLD: f64 = 1e-128;

/// Buckets of one side of a histogram.
const BUCKETS_MAX: usize = 65_536;

/// Labels of all series of a request, written out. A short request could give long ones to very many points.
const MAX_LABEL_BYTES: usize = 128 * 1024 * 1024;

/// What a series takes besides its labels.
const SERIES_BYTES: usize = 128;

/// A series with what a request says of one moment of it.
#[derive(Debug, PartialEq)]
pub(super) struct OneSeries {
    /// As remote write names it, so that it is the same series.
    pub(super) labels: Vec<u8>,
    pub(super) sample: Option<Sample>,
    pub(super) histogram: Option<HistogramSample>,
    pub(super) exemplars: Vec<KeptExemplar>,
}

/// A request as series.
#[derive(Debug, Default)]
pub(super) struct Converted {
    pub(super) series: Vec<OneSeries>,
    pub(super) metadata: Vec<(String, Metadata)>,
    /// That the request had.
    pub(super) points: usize,
    /// Points that were not kept, and why the first of them was not.
    pub(super) rejected: usize,
    pub(super) reason: Option<String>,
    label_bytes: usize,
    options: Arc<OtlpOptions>,
}

/// Labels that all points of a resource have.
#[derive(Default)]
struct Origin {
    labels: BTreeMap<String, String>,
    newest: Option<Timestamp>,
}

pub(super) fn convert(request: &Request, options: &Arc<OtlpOptions>) -> Converted {
    let mut out = Converted { options: Arc::clone(options), ..Converted::default() };
    for one in &request.resource_metrics {
        out.resource(one);
    }
    out
}

impl Converted {
    fn resource(&mut self, one: &ResourceMetrics) {
        let mut origin = Origin::default();
        if let Some(resource) = &one.resource {
            let promoted = resource.attributes.iter().filter(|one| self.options.promotes(&one.key));
            origin.labels = to_labels(promoted, self.escapes());
            origin.labels.extend(identity(resource));
        }
        for metric in one.scope_metrics.iter().flat_map(|scope| &scope.metrics) {
            self.metric(metric, &mut origin);
        }
        if let (Some(resource), Some(newest)) = (&one.resource, origin.newest) {
            self.target_info(resource, &origin, newest);
        }
    }

    fn escapes(&self) -> bool {
        self.options.translation_strategy.escapes()
    }

    fn metric(&mut self, metric: &Metric, origin: &mut Origin) {
        let is_cumulative = |temporality: i32| temporality == CUMULATIVE;
        let refuse = |out: &mut Self, points: usize| {
            out.points += points;
            out.reject(
                points,
                format!(
                    "metric {:?}: its temporality is not cumulative; set the exporter to cumulative, or use the collector's deltatocumulative processor",
                    metric.name
                ),
            );
        };
        if let Some(gauge) = &metric.gauge {
            let name = self.name(metric, Kind::Gauge, "gauge", gauge.data_points.len());
            gauge.data_points.iter().for_each(|point| self.number(&name, point, origin));
        }
        if let Some(sum) = &metric.sum {
            if !is_cumulative(sum.aggregation_temporality) {
                return refuse(self, sum.data_points.len());
            }
            let (kind, shown) =
                if sum.is_monotonic { (Kind::Counter, "counter") } else { (Kind::Other, "gauge") };
            let name = self.name(metric, kind, shown, sum.data_points.len());
            sum.data_points.iter().for_each(|point| self.number(&name, point, origin));
        }
        if let Some(Histogram { data_points, aggregation_temporality }) = &metric.histogram {
            if !is_cumulative(*aggregation_temporality) {
                return refuse(self, data_points.len());
            }
            let name = self.name(metric, Kind::Other, "histogram", data_points.len());
            data_points.iter().for_each(|point| self.histogram(&name, point, origin));
        }
        if let Some(histogram) = &metric.exponential_histogram {
            if !is_cumulative(histogram.aggregation_temporality) {
                return refuse(self, histogram.data_points.len());
            }
            let name = self.name(metric, Kind::Other, "histogram", histogram.data_points.len());
            histogram.data_points.iter().for_each(|point| self.exponential(&name, point, origin));
        }
        if let Some(summary) = &metric.summary {
            let name = self.name(metric, Kind::Other, "summary", summary.data_points.len());
            summary.data_points.iter().for_each(|point| self.summary(&name, point, origin));
        }
    }

    /// The metric's name; notes what it says of itself.
    fn name(&mut self, metric: &Metric, kind: Kind, shown: &str, points: usize) -> String {
        self.points += points;
        let name = metric_name(&metric.name, &metric.unit, kind, self.options.translation_strategy);
        if points > 0 && self.metadata.len() < MAX_METADATA {
            let (help, unit) = (metric.description.clone(), metric.unit.clone());
            self.metadata.push((name.clone(), Metadata { kind: shown.to_owned(), help, unit }));
        }
        name
    }

    fn reject(&mut self, points: usize, reason: String) {
        self.rejected += points;
        self.reason.get_or_insert(reason);
    }

    /// Whether so many more series of a point still have room, each with all of its labels.
    fn has_room(&mut self, name: &str, attributes: &[KeyValue], origin: &Origin, series: usize) -> bool {
        let of_point: usize = attributes
            .iter()
            .map(|one| one.key.len() + one.value.as_ref().map_or(0, prost::Message::encoded_len))
            .sum();
        let of_origin: usize = origin.labels.iter().map(|(name, value)| name.len() + value.len()).sum();
        let bytes = (of_point + of_origin + name.len() + SERIES_BYTES).saturating_mul(series);
        let has_room = self.label_bytes.saturating_add(bytes) <= MAX_LABEL_BYTES;
        if !has_room {
            self.reject(1, format!("metric {name:?}: labels of more than 128 MiB in one request"));
        }
        has_room
    }

    fn push(
        &mut self,
        name: &str,
        labels: &BTreeMap<String, String>,
        extra: Option<(&str, &str)>,
    ) -> &mut OneSeries {
        let mut pairs: Vec<(&str, &str)> = labels.iter().map(|(name, value)| (&**name, &**value)).collect();
        pairs.retain(|(name, value)| {
            !value.is_empty() && *name != METRIC_NAME && extra.is_none_or(|(other, _)| other != *name)
        });
        pairs.push((METRIC_NAME, name));
        pairs.extend(extra);
        pairs.sort_unstable();
        let mut bytes = Vec::new();
        put_labels(&mut bytes, pairs);
        self.label_bytes += bytes.len();
        self.series.push(OneSeries { labels: bytes, sample: None, histogram: None, exemplars: Vec::new() });
        self.series.last_mut().expect("pushed just now")
    }

    fn push_value(
        &mut self,
        name: &str,
        labels: &BTreeMap<String, String>,
        extra: Option<(&str, &str)>,
        sample: Sample,
    ) -> &mut OneSeries {
        let series = self.push(name, labels, extra);
        series.sample = Some(sample);
        series
    }

    fn number(&mut self, name: &str, point: &NumberPoint, origin: &mut Origin) {
        if !self.has_room(name, &point.attributes, origin, 1) {
            return;
        }
        let value = point.as_double.or(point.as_int.map(|whole| whole as f64)).unwrap_or(0.0);
        let value = if point.flags & NO_RECORDED_VALUE == 0 { value } else { STALE_NAN };
        let timestamp = origin.moment(point.time_unix_nano);
        let labels = origin.labels_of(&point.attributes, self.escapes());
        let series = self.push_value(name, &labels, None, Sample { timestamp, value });
        series.exemplars = exemplars_of(&point.exemplars);
    }

    fn histogram(&mut self, name: &str, point: &HistogramPoint, origin: &mut Origin) {
        if !self.has_room(name, &point.attributes, origin, point.bucket_counts.len() + 3) {
            return;
        }
        let (mut bounds, counts) = (&point.explicit_bounds[..], &point.bucket_counts[..]);
        if !bounds.is_sorted_by(|a, b| a < b) {
            return self.reject(1, format!("metric {name:?}: its bounds do not ascend"));
        }
        if !counts.is_empty() && counts.len() != bounds.len() + 1 {
            let (buckets, bounds) = (counts.len(), bounds.len());
            return self.reject(1, format!("metric {name:?}: {buckets} buckets for {bounds} bounds"));
        }
        // Its bucket is there in any case.
        if let [rest @ .., f64::INFINITY] = bounds {
            bounds = rest;
        }
        let is_stale = point.flags & NO_RECORDED_VALUE != 0;
        let timestamp = origin.moment(point.time_unix_nano);
        let at = |value: f64| Sample { timestamp, value: if is_stale { STALE_NAN } else { value } };
        let labels = origin.labels_of(&point.attributes, self.escapes());
        if let Some(sum) = point.sum {
            self.push_value(&format!("{name}_sum"), &labels, None, at(sum));
        }
        self.push_value(&format!("{name}_count"), &labels, None, at(point.count as f64));
        let bucket = format!("{name}_bucket");
        let mut exemplars: Vec<KeptExemplar> = point.exemplars.iter().filter_map(exemplar).collect();
        exemplars.sort_by(|a, b| a.value.total_cmp(&b.value));
        let mut below = 0u64;
        let mut exemplars = exemplars.into_iter().peekable();
        for (bound, count) in bounds.iter().zip(counts) {
            below = below.saturating_add(*count);
            let series =
                self.push_value(&bucket, &labels, Some(("le", &float_text(*bound))), at(below as f64));
            while let Some(one) = exemplars.next_if(|one| one.value <= *bound) {
                series.exemplars.push(one);
            }
        }
        let series = self.push_value(&bucket, &labels, Some(("le", "+Inf")), at(point.count as f64));
        series.exemplars.extend(exemplars);
        let buckets = self.series.len().saturating_sub(bounds.len() + 1);
        self.series[buckets..].iter_mut().for_each(|one| one.exemplars.sort_by_key(|one| one.timestamp));
    }

    fn exponential(&mut self, name: &str, point: &ExponentialPoint, origin: &mut Origin) {
        if !self.has_room(name, &point.attributes, origin, 1) {
            return;
        }
        let native = match native(point) {
            Ok(native) => native,
            Err(reason) => return self.reject(1, format!("metric {name:?}: {reason}")),
        };
        let timestamp = origin.moment(point.time_unix_nano);
        let labels = origin.labels_of(&point.attributes, self.escapes());
        let series = self.push(name, &labels, None);
        series.histogram = Some(HistogramSample { timestamp, histogram: Arc::new(native) });
        series.exemplars = exemplars_of(&point.exemplars);
    }

    fn summary(&mut self, name: &str, point: &SummaryPoint, origin: &mut Origin) {
        if !self.has_room(name, &point.attributes, origin, point.quantile_values.len() + 2) {
            return;
        }
        let is_stale = point.flags & NO_RECORDED_VALUE != 0;
        let timestamp = origin.moment(point.time_unix_nano);
        let at = |value: f64| Sample { timestamp, value: if is_stale { STALE_NAN } else { value } };
        let labels = origin.labels_of(&point.attributes, self.escapes());
        self.push_value(&format!("{name}_sum"), &labels, None, at(point.sum));
        self.push_value(&format!("{name}_count"), &labels, None, at(point.count as f64));
        for one in &point.quantile_values {
            let quantile = float_text(one.quantile);
            self.push_value(name, &labels, Some(("quantile", &quantile)), at(one.value));
        }
    }

    /// What is known of the resource besides who it is.
    fn target_info(&mut self, resource: &Resource, origin: &Origin, newest: Timestamp) {
        let keeps_all = self.options.keep_identifying_resource_attributes;
        let describing =
            resource.attributes.iter().filter(|one| keeps_all || !IDENTIFYING.contains(&&*one.key));
        let mut labels = to_labels(describing, self.escapes());
        if labels.is_empty() || origin.labels.is_empty() {
            return;
        }
        labels.extend(origin.labels.clone());
        self.push_value("target_info", &labels, None, Sample { timestamp: newest, value: 1.0 });
    }
}

const IDENTIFYING: [&str; 3] = ["service.namespace", "service.name", "service.instance.id"];

/// `job` and `instance`.
fn identity(resource: &Resource) -> BTreeMap<String, String> {
    let named: HashMap<&str, String> =
        resource.attributes.iter().map(|one| (&*one.key, value_text(one.value.as_ref()))).collect();
    let [namespace, name, instance] = IDENTIFYING.map(|key| named.get(key).filter(|value| !value.is_empty()));
    let mut labels = BTreeMap::new();
    if let Some(name) = name {
        let job = namespace.map_or_else(|| name.clone(), |namespace| format!("{namespace}/{name}"));
        labels.insert("job".to_owned(), job);
    }
    if let Some(instance) = instance {
        labels.insert("instance".to_owned(), instance.clone());
    }
    labels
}

impl Origin {
    fn moment(&mut self, nanoseconds: u64) -> Timestamp {
        let at = Timestamp((nanoseconds / 1_000_000) as i64);
        self.newest = self.newest.max(Some(at));
        at
    }

    /// Those of a point; who it is wins over what a point says of itself.
    fn labels_of(&self, attributes: &[KeyValue], escapes: bool) -> BTreeMap<String, String> {
        let mut labels = to_labels(attributes.iter(), escapes);
        labels.extend(self.labels.clone());
        labels
    }
}

/// Several attributes may come to one name; their values stand one behind the other.
fn to_labels<'k>(attributes: impl Iterator<Item = &'k KeyValue>, escapes: bool) -> BTreeMap<String, String> {
    let sorted: BTreeMap<&str, &KeyValue> = attributes.map(|one| (&*one.key, one)).collect();
    let mut labels: BTreeMap<String, String> = BTreeMap::new();
    for one in sorted.into_values() {
        let Some(name) = label_name(&one.key, escapes) else { continue };
        let value = value_text(one.value.as_ref());
        labels
            .entry(name)
            .and_modify(|known| {
                known.push(';');
                known.push_str(&value);
            })
            .or_insert(value);
    }
    labels
}

/// A value as a label shows it.
pub(super) fn value_text(value: Option<&AnyValue>) -> String {
    let Some(value) = value else { return String::new() };
    if let Some(text) = &value.string_value {
        return text.clone();
    }
    if let Some(bytes) = &value.bytes_value {
        return STANDARD.encode(bytes);
    }
    to_json(value).map_or_else(String::new, |json| json.to_string())
}

fn float_text(value: f64) -> String {
    if value == f64::INFINITY { "+Inf".to_owned() } else { value.to_string() }
}

pub(super) fn to_json(value: &AnyValue) -> Option<serde_json::Value> {
    let json = |one: &AnyValue| to_json(one).unwrap_or_default();
    if let Some(text) = &value.string_value {
        return Some(text.clone().into());
    }
    if let Some(array) = &value.array_value {
        return Some(array.values.iter().map(json).collect());
    }
    if let Some(list) = &value.kvlist_value {
        let value = |one: &KeyValue| one.value.as_ref().map(json).unwrap_or_default();
        let sorted: BTreeMap<&str, serde_json::Value> =
            list.values.iter().map(|one| (&*one.key, value(one))).collect();
        let pairs = sorted.into_iter().map(|(key, value)| (key.to_owned(), value));
        return Some(serde_json::Value::Object(pairs.collect()));
    }
    if let Some(bytes) = &value.bytes_value {
        return Some(STANDARD.encode(bytes).into());
    }
    if let Some(whole) = value.int_value {
        return Some(whole.into());
    }
    if let Some(float) = value.double_value {
        // Whole ones without a point, as Go writes them.
        let is_whole = float.fract() == 0.0 && float.abs() < 1e15;
        return Some(if is_whole { (float as i64).into() } else { float.into() });
    }
    value.bool_value.map(Into::into)
}

/// Ascending by time, as they are kept.
fn exemplars_of(all: &[Exemplar]) -> Vec<KeptExemplar> {
    let mut kept: Vec<KeptExemplar> = all.iter().filter_map(exemplar).collect();
    kept.sort_by_key(|one| one.timestamp);
    kept
}

fn exemplar(one: &Exemplar) -> Option<KeptExemplar> {
    let mut labels = to_labels(one.filtered_attributes.iter(), true);
    labels.insert("trace_id".to_owned(), hexadecimal(&one.trace_id));
    labels.insert("span_id".to_owned(), hexadecimal(&one.span_id));
    let value = one.as_double.or(one.as_int.map(|whole| whole as f64))?;
    let timestamp = Timestamp((one.time_unix_nano / 1_000_000) as i64);
    let pairs = labels.iter().map(|(name, value)| (&**name, &**value));
    Some(KeptExemplar { labels: exemplar_labels(pairs).ok()?, value, timestamp })
}

pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    let digit = |four: u8| char::from_digit(u32::from(four), 16).expect("four bits are a digit");
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn native(point: &ExponentialPoint) -> Result<Native, String> {
    if point.flags & NO_RECORDED_VALUE != 0 {
        return Ok(Native::stale());
    }
    if point.scale < SCHEMA_MIN {
        return Err(format!("scale {} is coarser than {SCHEMA_MIN}, the coarsest that is kept", point.scale));
    }
    // Buckets of a finer scale fall into those of the finest that is kept.
    let down = u32::try_from(point.scale - SCHEMA_MAX).unwrap_or(0).min(31);
    let mut native = Native {
        schema: point.scale.min(SCHEMA_MAX),
        zero_threshold: if point.zero_threshold > 0.0 { point.zero_threshold } else { ZERO_THRESHOLD },
        zero_count: point.zero_count as f64,
        count: point.count as f64,
        sum: point.sum.unwrap_or(0.0),
        positive: buckets(point.positive.as_ref(), down)?,
        negative: buckets(point.negative.as_ref(), down)?,
        ..Native::default()
    };
    native.compact();
    native.validate()?;
    Ok(native)
}

/// OpenTelemetry numbers a bucket by its lower bound, Prometheus by its upper one.
fn buckets(from: Option<&Buckets>, down: u32) -> Result<NativeBuckets, String> {
    let mut out = NativeBuckets::default();
    let Some(from) = from else { return Ok(out) };
    if from.bucket_counts.len() > BUCKETS_MAX {
        return Err(format!("{} buckets are more than {BUCKETS_MAX}", from.bucket_counts.len()));
    }
    let mut pending: Option<(i32, f64)> = None;
    for (at, count) in (0i64..).zip(&from.bucket_counts) {
        let lower = i64::from(from.offset) + at;
        let index = i32::try_from((lower >> down) + 1).map_err(|_| "a bucket lies beyond any number")?;
        match &mut pending {
            Some((last, sum)) if *last == index => *sum += *count as f64,
            _ => {
                if let Some((last, sum)) = pending.replace((index, *count as f64)) {
                    out.push(last, sum);
                }
            }
        }
    }
    if let Some((last, sum)) = pending {
        out.push(last, sum);
    }
    Ok(out)
}
