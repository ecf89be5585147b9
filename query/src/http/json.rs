//! Answers as JSON, to the byte as Prometheus writes them.

use std::fmt::Write;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use binnacle_model::log::{FieldValue, LogEntry};
use binnacle_model::storage::{HistogramSample, LogCursor, Room};
use binnacle_model::{Histogram, Labels, Sample, Timestamp};
use serde_json::{Map, Value, json};

use super::pieces;
use super::stats::Times;
use crate::promql::{Answer, Instant, Output, RangeSeries};

/// A value as Go's `strconv.FormatFloat(v, 'f', -1, 64)` writes it.
pub fn format_value(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned()
    } else {
        let mut out = String::new();
        push_finite(&mut out, value);
        out
    }
}

/// The shortest digits from which the same value comes back, without an exponent.
fn push_finite(out: &mut String, value: f64) {
    let mut buffer = zmij::Buffer::new();
    let digits = buffer.format_finite(value);
    // In this range no exponent is written, and nobody need look for one.
    if !(1e-4..1e15).contains(&value.abs()) && digits.contains('e') {
        // Very large or very small: rare, and written by the slower way.
        out.push_str(&value.to_string());
    } else {
        out.push_str(digits.strip_suffix(".0").unwrap_or(digits));
    }
}

/// A value as Prometheus writes it into JSON: with an exponent where it is very large or very small.
pub(super) fn push_value(out: &mut String, value: f64) {
    let size = value.abs();
    if !value.is_finite() {
        out.push_str(&format_value(value));
    } else if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let text = format!("{value:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |rest| ('-', rest));
        let _ = write!(out, "{digits}e{sign}{exponent:0>2}");
    } else {
        push_finite(out, value);
    }
}

/// `{"status":"success","data":…}`
pub(super) fn success(data: &Value) -> Response {
    axum::Json(json!({ "status": "success", "data": data })).into_response()
}

/// What Prometheus says where a `limit` left something out.
pub(super) const TRUNCATED: &str = "results truncated due to limit";

/// What the body of a JSON answer is.
pub(super) const JSON: &str = "application/json";

/// The answer to a query, its first `most` series, written as it is sent: it may have millions of samples, which count
/// in `held` for so long.
pub(super) fn query_response(
    mut answer: Answer,
    query: &str,
    most: usize,
    times: &Times,
    held: Option<Room>,
) -> Response {
    let stats = times.finish(answer.stats.as_ref());
    let is_cut = cut(&mut answer.output, most);
    let tail = tail(&answer, stats.as_ref(), query, is_cut);
    let mut body = String::from("{\"status\":\"success\",\"data\":{\"resultType\":\"");
    match answer.output {
        Output::Scalar(at, value) => {
            body.push_str("scalar\",\"result\":");
            push_pair(&mut body, at, value);
        }
        Output::Text(at, text) => {
            body.push_str("string\",\"result\":[");
            push_time(&mut body, at);
            body.push(',');
            push_text(&mut body, &text);
            body.push(']');
        }
        Output::Vector(at, series) => {
            body.push_str("vector\",\"result\":[");
            let push = move |body: &mut String, i, one: Instant| {
                push_metric(body, i, &one.labels);
                if let Some(histogram) = &one.histogram {
                    body.push_str(",\"histogram\":");
                    push_histogram(body, at, histogram);
                } else {
                    body.push_str(",\"value\":");
                    push_pair(body, at, one.value);
                }
                body.push('}');
            };
            return pieces::respond(JSON, body, (series.into_iter(), held), push, format!("]{tail}"));
        }
        Output::Matrix(series) => {
            body.push_str("matrix\",\"result\":[");
            let mut moments = Moments::default();
            let push = move |body: &mut String, i, one: RangeSeries| {
                push_metric(body, i, &one.labels);
                if !one.samples.is_empty() {
                    moments.push_samples(body, &one.samples);
                }
                push_histograms(body, &one.histograms);
                body.push('}');
            };
            return pieces::respond(JSON, body, (series.into_iter(), held), push, format!("]{tail}"));
        }
    }
    body.push_str(&tail);
    ([(header::CONTENT_TYPE, JSON)], body).into_response()
}

/// What stands behind the result: figures, and what is to be said of it.
fn tail(answer: &Answer, stats: Option<&Value>, query: &str, is_cut: bool) -> String {
    let mut tail = String::new();
    if let Some(stats) = stats {
        tail.push_str(",\"stats\":");
        tail.push_str(&stats.to_string());
    }
    tail.push('}');
    let (mut warnings, infos) = answer.notes.texts(query);
    if is_cut {
        warnings.push(TRUNCATED.to_owned());
    }
    for (name, texts) in [("warnings", warnings), ("infos", infos)] {
        if !texts.is_empty() {
            tail.push_str(&format!(",\"{name}\":{}", Value::from(texts)));
        }
    }
    tail.push('}');
    tail
}

/// Leaves the first `most` series. Answers whether there were more.
fn cut(output: &mut Output, most: usize) -> bool {
    let before = match output {
        Output::Vector(_, series) => {
            let before = series.len();
            series.truncate(most);
            before
        }
        Output::Matrix(series) => {
            let before = series.len();
            series.truncate(most);
            before
        }
        Output::Scalar(..) | Output::Text(..) => 0,
    };
    before > most
}

fn push_histograms(body: &mut String, samples: &[HistogramSample]) {
    for (i, one) in samples.iter().enumerate() {
        body.push_str(if i == 0 { ",\"histograms\":[" } else { "," });
        push_histogram(body, one.timestamp, &one.histogram);
    }
    if !samples.is_empty() {
        body.push(']');
    }
}

/// `[time,{"count":…,"sum":…,"buckets":[[which ends are inside,lower,upper,count],…]}]`
fn push_histogram(body: &mut String, at: Timestamp, histogram: &Histogram) {
    body.push('[');
    push_time(body, at);
    body.push_str(",{\"count\":\"");
    push_value(body, histogram.count);
    body.push_str("\",\"sum\":\"");
    push_value(body, histogram.sum);
    body.push('"');
    let buckets = histogram.all_buckets();
    for (i, bucket) in buckets.iter().filter(|bucket| bucket.count != 0.0).enumerate() {
        body.push_str(if i == 0 { ",\"buckets\":[[" } else { ",[" });
        let inside = match (bucket.lower_inclusive, bucket.upper_inclusive) {
            (false, true) => 0,
            (true, false) => 1,
            (false, false) => 2,
            (true, true) => 3,
        };
        body.push_str(&inside.to_string());
        for value in [bucket.lower, bucket.upper, bucket.count] {
            body.push_str(",\"");
            push_value(body, value);
            body.push('"');
        }
        body.push(']');
    }
    if buckets.iter().any(|bucket| bucket.count != 0.0) {
        body.push(']');
    }
    body.push_str("}]");
}

fn push_metric(body: &mut String, at: usize, labels: &Labels) {
    body.push_str(if at == 0 { "{\"metric\":" } else { ",{\"metric\":" });
    push_labels(body, labels);
}

/// The labels as an object.
pub(super) fn push_labels(body: &mut String, labels: &Labels) {
    body.push('{');
    for (i, label) in labels.iter().enumerate() {
        if i > 0 {
            body.push(',');
        }
        push_text(body, &label.name);
        body.push(':');
        push_text(body, &label.value);
    }
    body.push('}');
}

/// What a moment and its value take as text, mostly.
const POINT_USUAL_BYTES: usize = 36;

/// So many moments are kept as text, half a megabyte: as many steps as a range query may have.
const MOMENTS_MAX: usize = 11_000;

/// What stands around the moments of an answer: all of its series have the same ones, or some of them.
#[derive(Default)]
struct Moments {
    /// Ascending, each with the end of its text, which is what closes the sample before and opens this one.
    known: Vec<(i64, usize)>,
    text: String,
    /// Whether this is not the first series: one alone has nobody to share with.
    is_shared: bool,
}

impl Moments {
    /// The samples of a series, of which there are some.
    fn push_samples(&mut self, body: &mut String, samples: &[Sample]) {
        let is_shared = std::mem::replace(&mut self.is_shared, true);
        if is_shared && self.known.len() < samples.len() && samples.len() <= MOMENTS_MAX {
            self.learn(samples);
        }
        let (opening, first) = (",\"values\":[[", samples[0]);
        body.reserve(opening.len() + samples.len() * POINT_USUAL_BYTES);
        body.push_str(opening);
        push_time(body, first.timestamp);
        body.push_str(",\"");
        push_value(body, first.value);
        let mut next = 0;
        for sample in &samples[1..] {
            while self.known.get(next).is_some_and(|(at, _)| *at < sample.timestamp.0) {
                next += 1;
            }
            match self.known.get(next) {
                Some((at, end)) if *at == sample.timestamp.0 => {
                    let start = next.checked_sub(1).map_or(0, |before| self.known[before].1);
                    body.push_str(&self.text[start..*end]);
                }
                _ => push_between(body, sample.timestamp),
            }
            push_value(body, sample.value);
        }
        body.push_str("\"]]");
    }

    fn learn(&mut self, samples: &[Sample]) {
        self.known.clear();
        self.text.clear();
        for sample in samples {
            push_between(&mut self.text, sample.timestamp);
            self.known.push((sample.timestamp.0, self.text.len()));
        }
    }
}

/// What stands between the values of two samples.
fn push_between(body: &mut String, at: Timestamp) {
    body.push_str("\"],[");
    push_time(body, at);
    body.push_str(",\"");
}

fn push_pair(body: &mut String, at: Timestamp, value: f64) {
    body.push('[');
    push_time(body, at);
    body.push_str(",\"");
    push_value(body, value);
    body.push_str("\"]");
}

/// Seconds, with three digits of a fraction if there is one.
pub(super) fn push_time(body: &mut String, at: Timestamp) {
    let ms = at.0.unsigned_abs();
    if at.0 < 0 {
        body.push('-');
    }
    body.push_str(itoa::Buffer::new().format(ms / 1000));
    let rest = ms % 1000;
    if rest != 0 {
        body.push('.');
        // With its leading zeros.
        body.push_str(&itoa::Buffer::new().format(1000 + rest)[1..]);
    }
}

/// The text as a JSON string.
pub(super) fn push_text(body: &mut String, text: &str) {
    if text.bytes().any(|byte| matches!(byte, b'"' | b'\\' | 0..0x20)) {
        body.push_str(&Value::from(text).to_string());
        return;
    }
    body.reserve(text.len() + 2);
    body.push('"');
    body.push_str(text);
    body.push('"');
}

/// The labels as an object.
pub(super) fn labels_json(labels: &Labels) -> Value {
    let pairs = labels.iter().map(|label| (label.name.to_string(), Value::from(&*label.value)));
    Value::Object(pairs.collect::<Map<_, _>>())
}

/// An entry, as search, tail and the command line show it.
pub fn entry_json(entry: &LogEntry) -> Value {
    let mut fields = Map::new();
    for (name, value) in &entry.fields() {
        let value = match value {
            FieldValue::Text(value) => Value::from(value.as_str()),
            FieldValue::Int(value) => Value::from(*value),
            FieldValue::Float(value) => serde_json::Number::from_f64(*value)
                .map_or_else(|| format_value(*value).into(), Value::Number),
            FieldValue::Bool(value) => Value::from(*value),
        };
        fields.insert(name.clone(), value);
    }
    let mut json = json!({
        "time": entry.time.to_rfc3339(),
        "time_ns": entry.time.0.to_string(),
        "received_ns": entry.received.0.to_string(),
        "level": entry.level,
        "message": String::from_utf8_lossy(&entry.message),
        "stream": labels_json(&entry.stream),
        "fields": fields,
        "file": entry.origin.file.0,
        "offset": entry.origin.offset,
    });
    if std::str::from_utf8(&entry.message).is_err() {
        let hex: String = entry.message.iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        json["message_hex"] = Value::from(hex);
    }
    json
}

/// A cursor as text that a client hands back.
pub(super) fn cursor_text(cursor: LogCursor) -> String {
    format!("{}.{:x}.{}", cursor.time.0, cursor.file, cursor.offset)
}

/// Reads [`cursor_text`].
pub(super) fn parse_cursor(text: &str) -> Option<LogCursor> {
    let mut parts = text.split('.');
    let time = binnacle_model::LogTime(parts.next()?.parse().ok()?);
    let file = u64::from_str_radix(parts.next()?, 16).ok()?;
    let offset = parts.next()?.parse().ok()?;
    parts.next().is_none().then_some(LogCursor { time, file, offset })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_go_does() {
        let cases = [
            (1.0, "1"),
            (0.1, "0.1"),
            (-0.0, "-0"),
            (1e21, "1000000000000000000000"),
            (1e-7, "0.0000001"),
            (f64::from_bits(0x4306_be76_c74f_c0fa), "800233355868191.2"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
        ];
        for (value, want) in cases {
            assert_eq!(format_value(value), want);
        }
    }

    #[test]
    fn json_has_exponents_as_go_writes_them() {
        let text = |value| {
            let mut out = String::new();
            push_value(&mut out, value);
            out
        };
        let cases = [
            (1e21, "1e+21"),
            (-1.5e300, "-1.5e+300"),
            (1e20, "100000000000000000000"),
            (1e-6, "0.000001"),
            (9.5e-7, "9.5e-07"),
            (5e-324, "5e-324"),
            (0.0, "0"),
            (f64::NAN, "NaN"),
        ];
        for (value, want) in cases {
            assert_eq!(text(value), want);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_finite_value_is_written_shortly_and_read_back(bits in proptest::prelude::any::<u64>(), small in -1e7..1e7) {
            for value in [f64::from_bits(bits), small, f64::trunc(small)] {
                if value.is_finite() {
                    let text = format_value(value);
                    proptest::prop_assert_eq!(text.parse::<f64>().unwrap().to_bits(), value.to_bits());
                    // As short as Rust's; where two are as near, Go takes the even one and Rust the other.
                    proptest::prop_assert_eq!(text.len(), value.to_string().len());
                }
            }
        }
    }

    #[test]
    fn times_have_three_digits_or_none() {
        let text = |ms| {
            let mut body = String::new();
            push_time(&mut body, Timestamp(ms));
            body
        };
        assert_eq!(text(1500), "1.500");
        assert_eq!(text(2000), "2");
        assert_eq!(text(-1001), "-1.001");
        assert_eq!(text(7), "0.007");
    }

    #[test]
    fn moments_that_others_had_are_written_as_new_ones_are() {
        let mut moments = Moments::default();
        let series: [&[i64]; 5] =
            [&[0, 15], &[-1, 0, 15, 1030], &[15], &[0, 7, 1030, 2000], &[-5, 15, 1030, 1031]];
        for times in series {
            let samples: Vec<Sample> = times
                .iter()
                .map(|at| Sample { timestamp: Timestamp(*at), value: *at as f64 / 4.0 })
                .collect();
            let mut body = String::new();
            moments.push_samples(&mut body, &samples);
            let mut pairs = Vec::new();
            for sample in samples {
                let mut pair = String::new();
                push_pair(&mut pair, sample.timestamp, sample.value);
                pairs.push(pair);
            }
            assert_eq!(body, format!(",\"values\":[{}]", pairs.join(",")));
        }
    }

    #[test]
    fn cursors_survive_a_round_trip() {
        let cursor = LogCursor { time: binnacle_model::LogTime(-5), file: u64::MAX, offset: 7 };
        assert_eq!(parse_cursor(&cursor_text(cursor)), Some(cursor));
        assert_eq!(parse_cursor("1.2"), None);
    }
}
