//! The notation of series: `1 2 3`, `0+10x5`, `_ stale`, `{{schema:0 count:3 buckets:[1 2]}}x4`.

use std::sync::Arc;

use binnacle_model::histogram::{CUSTOM_SCHEMA, Histogram, ResetHint};
use binnacle_model::{Labels, MatchOp, STALE_NAN};
use binnacle_query::promql::parse_selector;

/// Most values of one series.
const MAX_VALUES: usize = 10_000_000;

/// A value at one moment.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// Nothing.
    Gap,
    Number(f64),
    Histogram(Histogram),
}

/// A series without values: `name{a="b"}`, `{}` or nothing.
pub(super) fn labels(text: &str) -> Result<Labels, String> {
    if matches!(text.trim(), "" | "{}") {
        return Ok(Labels::default());
    }
    let matchers = parse_selector(text).map_err(|error| error.to_string())?;
    if let Some(other) = matchers.iter().find(|matcher| matcher.op != MatchOp::Equal) {
        return Err(format!("{text}: {other} names no series"));
    }
    let pairs = matchers.iter().map(|matcher| (matcher.name.as_str(), matcher.value.as_str()));
    Labels::new(pairs).map_err(|error| error.to_string())
}

/// Values, one for each interval.
pub(super) fn values(text: &str) -> Result<Vec<Value>, String> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        rest = item(rest, &mut found)
            .map_err(|reason| format!("series values {text:?}: at {}: {reason}", text.len() - rest.len()))?;
        if !(rest.is_empty() || rest.starts_with(char::is_whitespace)) {
            return Err(format!(
                "series values {text:?}: at {}: a blank is missing",
                text.len() - rest.len()
            ));
        }
        if found.len() > MAX_VALUES {
            return Err(format!("series has more than {MAX_VALUES} values"));
        }
        rest = rest.trim_start();
    }
    Ok(found)
}

/// One item with its repetitions; answers what stands behind it.
fn item<'t>(text: &'t str, found: &mut Vec<Value>) -> Result<&'t str, String> {
    if let Some(rest) = text.strip_prefix('_') {
        let (count, rest) = repeat(rest)?;
        found.extend(std::iter::repeat_n(Value::Gap, count.unwrap_or(1)));
        return Ok(rest);
    }
    if let Some(rest) = text.strip_prefix("stale") {
        found.push(Value::Number(STALE_NAN));
        return Ok(rest);
    }
    if text.starts_with("{{") {
        return histograms(text, found);
    }
    let (first, rest) = number(text)?;
    let (step, rest) = match rest.chars().next() {
        Some('+' | '-') => number(rest)?,
        _ => (0.0, rest),
    };
    let (count, rest) = repeat(rest)?;
    let mut value = first;
    for _ in 0..=count.unwrap_or(0) {
        found.push(Value::Number(value));
        value += step;
    }
    Ok(rest)
}

/// `x5`
fn repeat(text: &str) -> Result<(Option<usize>, &str), String> {
    let Some(rest) = text.strip_prefix('x') else { return Ok((None, text)) };
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let count = rest[..end].parse().ok().filter(|count| *count <= MAX_VALUES);
    let count = count.ok_or_else(|| format!("invalid repetition in {text:?}"))?;
    Ok((Some(count), &rest[end..]))
}

fn number(text: &str) -> Result<(f64, &str), String> {
    let signed = text.strip_prefix(['+', '-']).unwrap_or(text);
    let sign = if text.starts_with('-') { -1.0 } else { 1.0 };
    let lower = signed.get(..3).unwrap_or_default().to_ascii_lowercase();
    if matches!(lower.as_str(), "inf" | "nan") {
        let value = if lower == "inf" { f64::INFINITY } else { f64::NAN };
        return Ok((sign * value, &signed[3..]));
    }
    // No hexadecimal numbers: the x of `0x5` is a repetition.
    let bytes = signed.as_bytes();
    let digits = |from: usize| bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
    let mut end = digits(0);
    if bytes.get(end) == Some(&b'.') {
        end += 1 + digits(end + 1);
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let signs = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        let count = digits((end + 1 + signs).min(bytes.len()));
        if count > 0 {
            end += 1 + signs + count;
        }
    }
    let value: f64 = signed[..end].parse().map_err(|_| format!("{text:?} is no number"))?;
    Ok((sign * value, &signed[end..]))
}

fn histograms<'t>(text: &'t str, found: &mut Vec<Value>) -> Result<&'t str, String> {
    let (first, rest) = histogram(text)?;
    let (step, adds, rest) = match rest.chars().next() {
        Some(sign @ ('+' | '-')) => {
            let (step, rest) = histogram(&rest[1..])?;
            (Some(step), sign == '+', rest)
        }
        _ => (None, true, rest),
    };
    let (count, rest) = repeat(rest)?;
    let mut value = first;
    for _ in 0..=count.unwrap_or(0) {
        found.push(Value::Histogram(value.clone()));
        if let Some(step) = &step {
            let done = if adds { value.add(step) } else { value.subtract(step) };
            done.map_err(|_| "histograms of other schemas cannot be added".to_owned())?;
            // What the sum says of resets is not what was written.
            value.hint = ResetHint::Unknown;
        }
    }
    Ok(rest)
}

/// `{{schema:1 sum:2 count:3 buckets:[1 2]}}`
pub(super) fn histogram(text: &str) -> Result<(Histogram, &str), String> {
    let inner = text.strip_prefix("{{").ok_or_else(|| format!("{text:?} is no histogram"))?;
    let end = inner.find("}}").ok_or_else(|| format!("histogram {text:?} is not closed"))?;
    let (inner, rest) = (&inner[..end], &inner[end + 2..]);
    let mut histogram = Histogram::default();
    let (mut offset, mut negative_offset) = (0i32, 0i32);
    let (mut positive, mut negative): (Vec<f64>, Vec<f64>) = (Vec::new(), Vec::new());
    let mut left = inner.trim_start();
    while !left.is_empty() {
        let (key, behind) = left.split_once(':').ok_or_else(|| format!("{left:?}: a colon is missing"))?;
        let end = if behind.starts_with('[') {
            behind.find(']').ok_or_else(|| format!("{key}: a bracket is missing"))? + 1
        } else {
            behind.find(char::is_whitespace).unwrap_or(behind.len())
        };
        let (value, behind) = behind.split_at(end);
        let float = || {
            number(value).and_then(|(n, rest)| if rest.is_empty() { Ok(n) } else { Err(value.to_owned()) })
        };
        let list = || {
            let items = value.trim_start_matches('[').trim_end_matches(']').split_whitespace();
            items.map(|item| number(item).map(|(n, _)| n)).collect::<Result<Vec<f64>, _>>()
        };
        match key.trim() {
            "schema" => histogram.schema = float()? as i32,
            "sum" => histogram.sum = float()?,
            "count" => histogram.count = float()?,
            "z_bucket" => histogram.zero_count = float()?,
            "z_bucket_w" => histogram.zero_threshold = float()?,
            "offset" => offset = float()? as i32,
            "n_offset" => negative_offset = float()? as i32,
            "buckets" => positive = list()?,
            "n_buckets" => negative = list()?,
            "custom_values" => histogram.bounds = Arc::from(list()?),
            "counter_reset_hint" => {
                histogram.hint = match value {
                    "unknown" => ResetHint::Unknown,
                    "reset" => ResetHint::Reset,
                    "not_reset" => ResetHint::NotReset,
                    "gauge" => ResetHint::Gauge,
                    other => return Err(format!("counter_reset_hint {other:?} is unknown")),
                }
            }
            other => return Err(format!("{other:?} is no part of a histogram")),
        }
        left = behind.trim_start();
    }
    for (buckets, counts, offset) in
        [(&mut histogram.positive, positive, offset), (&mut histogram.negative, negative, negative_offset)]
    {
        for (at, count) in counts.into_iter().enumerate() {
            buckets.push(offset.saturating_add(at as i32), count);
        }
    }
    if histogram.schema != CUSTOM_SCHEMA && !histogram.bounds.is_empty() {
        return Err("custom_values need schema -53".to_owned());
    }
    Ok((histogram, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_by_promtool() {
        let shown = |text: &str| {
            let one = |value: &Value| match value {
                Value::Gap => "_".to_owned(),
                Value::Number(number) if binnacle_model::sample::is_stale(*number) => "stale".to_owned(),
                Value::Number(number) => number.to_string(),
                Value::Histogram(histogram) => format!("h{}", histogram.count),
            };
            values(text).map(|values| values.iter().map(one).collect::<Vec<_>>().join(" "))
        };
        let table = [
            ("1 2 -3.5", "1 2 -3.5"),
            ("0+10x3", "0 10 20 30"),
            ("1-2x2 _ _x2 stale", "1 -1 -3 _ _ _ stale"),
            ("1x2", "1 1 1"),
            ("1e3+1e-1x1 Inf -inf NaN 0+0x2", "1000 1000.1 inf -inf NaN 0 0 0"),
            ("{{count:2 sum:3 buckets:[2]}}+{{count:1 buckets:[1]}}x2", "h2 h3 h4"),
            ("", ""),
        ];
        for (text, want) in table {
            assert_eq!(shown(text).as_deref(), Ok(want), "{text}");
        }
        for text in ["1x", "a", "1 2y", "{{count:2", "{{what:2}}", "0+10x99999999999999"] {
            assert!(values(text).is_err(), "{text}");
        }
    }
}
