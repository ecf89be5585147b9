//! OTLP's messages for metrics and logs, for both of its encodings: prost reads protobuf, serde reads JSON.
//!
//! Numbers and names are those of `opentelemetry/proto/{metrics,logs}/v1/*.proto`. What is not used is left out, and
//! a `oneof` is several optional fields, which is the same on the wire. JSON is OTLP's own: 64-bit integers may be
//! texts, identifiers of traces are hexadecimal, enums are numbers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use serde::de::Error;
use serde::{Deserialize, Deserializer};

macro_rules! messages {
    ($($(#[doc = $doc:literal])* $name:ident { $($(#[serde($($serde:tt)*)])? $field:ident: $kind:ty = [$($prost:tt)*],)* })*) => {
        $(
            $(#[doc = $doc])*
            #[derive(Clone, PartialEq, Message, Deserialize)]
            #[serde(rename_all = "camelCase", default)]
            #[allow(clippy::struct_field_names, reason = "the names are the protocol's")]
            pub(crate) struct $name {
                $(#[prost($($prost)*)] $(#[serde($($serde)*)])? pub(crate) $field: $kind,)*
            }
        )*
    };
}

messages! {
    /// `ExportMetricsServiceRequest`.
    Request {
        resource_metrics: Vec<ResourceMetrics> = [message, repeated, tag = "1"],
    }
    ResourceMetrics {
        resource: Option<Resource> = [message, optional, tag = "1"],
        scope_metrics: Vec<ScopeMetrics> = [message, repeated, tag = "2"],
    }
    Resource {
        attributes: Vec<KeyValue> = [message, repeated, tag = "1"],
    }
    ScopeMetrics {
        metrics: Vec<Metric> = [message, repeated, tag = "2"],
    }
    Metric {
        name: String = [string, tag = "1"],
        description: String = [string, tag = "2"],
        unit: String = [string, tag = "3"],
        gauge: Option<Gauge> = [message, optional, tag = "5"],
        sum: Option<Sum> = [message, optional, tag = "7"],
        histogram: Option<Histogram> = [message, optional, tag = "9"],
        exponential_histogram: Option<ExponentialHistogram> = [message, optional, tag = "10"],
        summary: Option<Summary> = [message, optional, tag = "11"],
    }
    Gauge {
        data_points: Vec<NumberPoint> = [message, repeated, tag = "1"],
    }
    Sum {
        data_points: Vec<NumberPoint> = [message, repeated, tag = "1"],
        #[serde(deserialize_with = "temporality")]
        aggregation_temporality: i32 = [int32, tag = "2"],
        is_monotonic: bool = [bool, tag = "3"],
    }
    Histogram {
        data_points: Vec<HistogramPoint> = [message, repeated, tag = "1"],
        #[serde(deserialize_with = "temporality")]
        aggregation_temporality: i32 = [int32, tag = "2"],
    }
    ExponentialHistogram {
        data_points: Vec<ExponentialPoint> = [message, repeated, tag = "1"],
        #[serde(deserialize_with = "temporality")]
        aggregation_temporality: i32 = [int32, tag = "2"],
    }
    Summary {
        data_points: Vec<SummaryPoint> = [message, repeated, tag = "1"],
    }
    NumberPoint {
        #[serde(deserialize_with = "number")]
        time_unix_nano: u64 = [fixed64, tag = "3"],
        #[serde(deserialize_with = "maybe_float")]
        as_double: Option<f64> = [double, optional, tag = "4"],
        exemplars: Vec<Exemplar> = [message, repeated, tag = "5"],
        #[serde(deserialize_with = "maybe_number")]
        as_int: Option<i64> = [sfixed64, optional, tag = "6"],
        attributes: Vec<KeyValue> = [message, repeated, tag = "7"],
        #[serde(deserialize_with = "small")]
        flags: u32 = [uint32, tag = "8"],
    }
    HistogramPoint {
        #[serde(deserialize_with = "number")]
        time_unix_nano: u64 = [fixed64, tag = "3"],
        #[serde(deserialize_with = "number")]
        count: u64 = [fixed64, tag = "4"],
        #[serde(deserialize_with = "maybe_float")]
        sum: Option<f64> = [double, optional, tag = "5"],
        #[serde(deserialize_with = "numbers")]
        bucket_counts: Vec<u64> = [fixed64, repeated, tag = "6"],
        #[serde(deserialize_with = "floats")]
        explicit_bounds: Vec<f64> = [double, repeated, tag = "7"],
        exemplars: Vec<Exemplar> = [message, repeated, tag = "8"],
        attributes: Vec<KeyValue> = [message, repeated, tag = "9"],
        #[serde(deserialize_with = "small")]
        flags: u32 = [uint32, tag = "10"],
    }
    ExponentialPoint {
        attributes: Vec<KeyValue> = [message, repeated, tag = "1"],
        #[serde(deserialize_with = "number")]
        time_unix_nano: u64 = [fixed64, tag = "3"],
        #[serde(deserialize_with = "number")]
        count: u64 = [fixed64, tag = "4"],
        #[serde(deserialize_with = "maybe_float")]
        sum: Option<f64> = [double, optional, tag = "5"],
        #[serde(deserialize_with = "small")]
        scale: i32 = [sint32, tag = "6"],
        #[serde(deserialize_with = "number")]
        zero_count: u64 = [fixed64, tag = "7"],
        positive: Option<Buckets> = [message, optional, tag = "8"],
        negative: Option<Buckets> = [message, optional, tag = "9"],
        #[serde(deserialize_with = "small")]
        flags: u32 = [uint32, tag = "10"],
        exemplars: Vec<Exemplar> = [message, repeated, tag = "11"],
        #[serde(deserialize_with = "float")]
        zero_threshold: f64 = [double, tag = "14"],
    }
    Buckets {
        #[serde(deserialize_with = "small")]
        offset: i32 = [sint32, tag = "1"],
        #[serde(deserialize_with = "numbers")]
        bucket_counts: Vec<u64> = [uint64, repeated, tag = "2"],
    }
    SummaryPoint {
        #[serde(deserialize_with = "number")]
        time_unix_nano: u64 = [fixed64, tag = "3"],
        #[serde(deserialize_with = "number")]
        count: u64 = [fixed64, tag = "4"],
        #[serde(deserialize_with = "float")]
        sum: f64 = [double, tag = "5"],
        quantile_values: Vec<Quantile> = [message, repeated, tag = "6"],
        attributes: Vec<KeyValue> = [message, repeated, tag = "7"],
        #[serde(deserialize_with = "small")]
        flags: u32 = [uint32, tag = "8"],
    }
    Quantile {
        #[serde(deserialize_with = "float")]
        quantile: f64 = [double, tag = "1"],
        #[serde(deserialize_with = "float")]
        value: f64 = [double, tag = "2"],
    }
    Exemplar {
        #[serde(deserialize_with = "number")]
        time_unix_nano: u64 = [fixed64, tag = "2"],
        #[serde(deserialize_with = "maybe_float")]
        as_double: Option<f64> = [double, optional, tag = "3"],
        #[serde(deserialize_with = "hexadecimal")]
        span_id: Vec<u8> = [bytes = "vec", tag = "4"],
        #[serde(deserialize_with = "hexadecimal")]
        trace_id: Vec<u8> = [bytes = "vec", tag = "5"],
        #[serde(deserialize_with = "maybe_number")]
        as_int: Option<i64> = [sfixed64, optional, tag = "6"],
        filtered_attributes: Vec<KeyValue> = [message, repeated, tag = "7"],
    }
    /// `ExportLogsServiceRequest`.
    LogsRequest {
        resource_logs: Vec<ResourceLogs> = [message, repeated, tag = "1"],
    }
    ResourceLogs {
        resource: Option<Resource> = [message, optional, tag = "1"],
        scope_logs: Vec<ScopeLogs> = [message, repeated, tag = "2"],
    }
    ScopeLogs {
        scope: Option<Scope> = [message, optional, tag = "1"],
        log_records: Vec<LogRecord> = [message, repeated, tag = "2"],
    }
    Scope {
        name: String = [string, tag = "1"],
        version: String = [string, tag = "2"],
        attributes: Vec<KeyValue> = [message, repeated, tag = "3"],
    }
    LogRecord {
        #[serde(deserialize_with = "number")]
        time_unix_nano: u64 = [fixed64, tag = "1"],
        #[serde(deserialize_with = "severity")]
        severity_number: i32 = [int32, tag = "2"],
        severity_text: String = [string, tag = "3"],
        body: Option<AnyValue> = [message, optional, tag = "5"],
        attributes: Vec<KeyValue> = [message, repeated, tag = "6"],
        #[serde(deserialize_with = "small")]
        dropped_attributes_count: u32 = [uint32, tag = "7"],
        #[serde(deserialize_with = "small")]
        flags: u32 = [fixed32, tag = "8"],
        #[serde(deserialize_with = "hexadecimal")]
        trace_id: Vec<u8> = [bytes = "vec", tag = "9"],
        #[serde(deserialize_with = "hexadecimal")]
        span_id: Vec<u8> = [bytes = "vec", tag = "10"],
        #[serde(deserialize_with = "number")]
        observed_time_unix_nano: u64 = [fixed64, tag = "11"],
        event_name: String = [string, tag = "12"],
    }
    KeyValue {
        key: String = [string, tag = "1"],
        value: Option<AnyValue> = [message, optional, tag = "2"],
    }
    AnyValue {
        string_value: Option<String> = [string, optional, tag = "1"],
        bool_value: Option<bool> = [bool, optional, tag = "2"],
        #[serde(deserialize_with = "maybe_number")]
        int_value: Option<i64> = [int64, optional, tag = "3"],
        #[serde(deserialize_with = "maybe_float")]
        double_value: Option<f64> = [double, optional, tag = "4"],
        array_value: Option<Array> = [message, optional, tag = "5"],
        kvlist_value: Option<KeyValues> = [message, optional, tag = "6"],
        #[serde(deserialize_with = "base64")]
        bytes_value: Option<Vec<u8>> = [bytes = "vec", optional, tag = "7"],
    }
    Array {
        values: Vec<AnyValue> = [message, repeated, tag = "1"],
    }
    KeyValues {
        values: Vec<KeyValue> = [message, repeated, tag = "1"],
    }
}

/// A request in JSON, where `null` stands for what is left out.
pub(super) fn from_json<M: serde::de::DeserializeOwned>(body: &[u8]) -> serde_json::Result<M> {
    let mut value: serde_json::Value = serde_json::from_slice(body)?;
    leave_out_nulls(&mut value);
    serde_json::from_value(value)
}

fn leave_out_nulls(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(leave_out_nulls);
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(leave_out_nulls),
        _ => {}
    }
}

/// `ExportMetricsServiceResponse`, and that of logs.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Answer {
    #[prost(message, optional, tag = "1")]
    pub(crate) partial_success: Option<PartialSuccess>,
}

/// What of a request was not kept.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct PartialSuccess {
    #[prost(int64, tag = "1")]
    pub(crate) rejected: i64,
    #[prost(string, tag = "2")]
    pub(crate) error_message: String,
}

/// `google.rpc.Status`: what OTLP answers with an error.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Status {
    #[prost(int32, tag = "1")]
    pub(crate) code: i32,
    #[prost(string, tag = "2")]
    pub(crate) message: String,
    #[prost(message, repeated, tag = "3")]
    pub(crate) details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Any {
    #[prost(string, tag = "1")]
    pub(crate) type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) value: Vec<u8>,
}

/// `google.rpc.RetryInfo`: after how long to come again.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    pub(crate) retry_delay: Option<Delay>,
}

/// `google.protobuf.Duration`, in whole seconds.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Delay {
    #[prost(int64, tag = "1")]
    pub(crate) seconds: i64,
}

/// A number as JSON has it, or in a text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Loose {
    Whole(i64),
    Large(u64),
    Float(f64),
    Text(String),
}

impl Loose {
    fn float<E: Error>(self) -> Result<f64, E> {
        match self {
            Self::Whole(value) => Ok(value as f64),
            Self::Large(value) => Ok(value as f64),
            Self::Float(value) => Ok(value),
            // "NaN", "Infinity" and "-Infinity" are what protobuf's JSON calls them, and Rust takes them.
            Self::Text(text) => text.parse().map_err(|_| E::custom(format!("{text:?} is no number"))),
        }
    }

    fn whole<N: TryFrom<i64> + TryFrom<u64> + std::str::FromStr, E: Error>(self) -> Result<N, E> {
        let (found, shown) = match self {
            Self::Whole(value) => (N::try_from(value).ok(), value.to_string()),
            Self::Large(value) => (N::try_from(value).ok(), value.to_string()),
            Self::Float(value) => (None, value.to_string()),
            Self::Text(text) => (text.parse().ok(), text),
        };
        found.ok_or_else(|| E::custom(format!("{shown:?} is no integer of 64 bits")))
    }
}

fn small<'d, D: Deserializer<'d>, N: TryFrom<i64>>(from: D) -> Result<N, D::Error> {
    let whole: i64 = Loose::deserialize(from)?.whole()?;
    N::try_from(whole).map_err(|_| D::Error::custom(format!("{whole} has more than 32 bits")))
}

fn number<'d, D: Deserializer<'d>>(from: D) -> Result<u64, D::Error> {
    Loose::deserialize(from)?.whole()
}

fn numbers<'d, D: Deserializer<'d>>(from: D) -> Result<Vec<u64>, D::Error> {
    Vec::<Loose>::deserialize(from)?.into_iter().map(Loose::whole).collect()
}

fn maybe_number<'d, D: Deserializer<'d>>(from: D) -> Result<Option<i64>, D::Error> {
    Option::<Loose>::deserialize(from)?.map(Loose::whole).transpose()
}

fn float<'d, D: Deserializer<'d>>(from: D) -> Result<f64, D::Error> {
    Loose::deserialize(from)?.float()
}

fn floats<'d, D: Deserializer<'d>>(from: D) -> Result<Vec<f64>, D::Error> {
    Vec::<Loose>::deserialize(from)?.into_iter().map(Loose::float).collect()
}

fn maybe_float<'d, D: Deserializer<'d>>(from: D) -> Result<Option<f64>, D::Error> {
    Option::<Loose>::deserialize(from)?.map(Loose::float).transpose()
}

fn temporality<'d, D: Deserializer<'d>>(from: D) -> Result<i32, D::Error> {
    match Loose::deserialize(from)? {
        Loose::Text(text) => match text.strip_prefix("AGGREGATION_TEMPORALITY_") {
            Some("DELTA") => Ok(1),
            Some("CUMULATIVE") => Ok(2),
            _ => Ok(0),
        },
        other => Ok(other.whole::<i64, D::Error>()?.clamp(0, 3) as i32),
    }
}

/// A number, or the name that the protocol gives it.
fn severity<'d, D: Deserializer<'d>>(from: D) -> Result<i32, D::Error> {
    let number = match Loose::deserialize(from)? {
        Loose::Text(text) => match text.strip_prefix("SEVERITY_NUMBER_") {
            Some(name) => severity_named(name),
            None => text.parse().map_err(|_| D::Error::custom(format!("{text:?} is no severity")))?,
        },
        other => other.whole::<i64, D::Error>()?,
    };
    Ok(i32::try_from(number).unwrap_or(0))
}

/// `WARN3` is 15; zero for what is no name.
fn severity_named(name: &str) -> i64 {
    let (name, step) = match name.as_bytes() {
        [rest @ .., digit @ b'2'..=b'4'] => (&name[..rest.len()], i64::from(digit - b'1')),
        _ => (name, 0),
    };
    let names = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"];
    names.iter().zip(0i64..).find(|(one, _)| **one == name).map_or(0, |(_, at)| at * 4 + 1 + step)
}

fn base64<'d, D: Deserializer<'d>>(from: D) -> Result<Option<Vec<u8>>, D::Error> {
    let text = Option::<String>::deserialize(from)?;
    text.map(|text| STANDARD.decode(text).map_err(D::Error::custom)).transpose()
}

fn hexadecimal<'d, D: Deserializer<'d>>(from: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(from)?;
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect();
    let (pairs, odd) = digits.as_deref().map(<[u8]>::as_chunks::<2>).unwrap_or_default();
    if digits.is_none() || !odd.is_empty() {
        return Err(D::Error::custom("an identifier of a trace or span is not hexadecimal"));
    }
    Ok(pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_its_own_ways_with_numbers() {
        let text = r#"{"timeUnixNano":"1700000000000000001","asInt":"-5","flags":1,"unknown":{},
            "exemplars":[{"traceId":"0aFF","asDouble":"NaN","timeUnixNano":7}]}"#;
        let point: NumberPoint = serde_json::from_str(text).unwrap();
        assert_eq!(
            (point.time_unix_nano, point.as_int, point.flags),
            (1_700_000_000_000_000_001, Some(-5), 1)
        );
        assert_eq!(point.exemplars[0].trace_id, [10, 255]);
        assert!(point.exemplars[0].as_double.unwrap().is_nan());
        for (bad, says) in [
            (r#"{"timeUnixNano":"x"}"#, "no integer"),
            (r#"{"timeUnixNano":-1}"#, "no integer"),
            (r#"{"asDouble":"x"}"#, "no number"),
            (r#"{"exemplars":[{"traceId":"abc"}]}"#, "not hexadecimal"),
        ] {
            let error = serde_json::from_str::<NumberPoint>(bad).unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
        }
        let sum: Sum = serde_json::from_str(
            r#"{"aggregationTemporality":"AGGREGATION_TEMPORALITY_CUMULATIVE","isMonotonic":true}"#,
        )
        .unwrap();
        assert_eq!((sum.aggregation_temporality, sum.is_monotonic), (2, true));
    }
}
