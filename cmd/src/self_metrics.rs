//! `/api/v1/status/self_metrics`: our own metrics as JSON, as Prometheus answers its own.
//!
//! A family is protobuf's JSON of `io.prometheus.client.MetricFamily`: counts are text, what is not finite is text, and
//! the bucket without a bound is the count.

use std::collections::BTreeMap;

use binnacle_collector::exposition::{Format, Line, decode_series, parse};
use binnacle_model::labels::METRIC_NAME;
use binnacle_model::{MatchOp, Matcher};
use serde_json::{Map, Value, json};

/// Name and value, by name.
type Pairs = Vec<(String, String)>;

/// A family of a page.
#[derive(Default)]
struct Family {
    name: String,
    help: String,
    kind: String,
    unit: String,
    metrics: BTreeMap<Pairs, Metric>,
}

/// One series of it, or all series of a histogram.
#[derive(Default)]
struct Metric {
    /// Of a histogram how many there are.
    value: f64,
    sum: f64,
    buckets: Vec<Value>,
}

/// Which names are meant; all without a pattern.
///
/// # Errors
/// What is wrong with the pattern.
pub(crate) fn named(pattern: Option<&str>) -> Result<impl Fn(&str) -> bool, String> {
    let matcher = pattern.map(|pattern| Matcher::new(METRIC_NAME, MatchOp::Regex, pattern)).transpose()?;
    Ok(move |name: &str| matcher.as_ref().is_none_or(|matcher| matcher.matches(name)))
}

/// The families of a page of OpenMetrics whose names are meant, by name.
///
/// # Errors
/// Where the page is malformed.
pub(crate) fn families(page: &str, is_meant: impl Fn(&str) -> bool) -> Result<Vec<Value>, String> {
    let mut found: BTreeMap<String, Value> = BTreeMap::new();
    for family in read(page)? {
        let (ending, kind) = match family.kind.as_str() {
            "counter" => ("_total", "COUNTER"),
            "info" => ("_info", "GAUGE"),
            "histogram" => ("", "HISTOGRAM"),
            "gauge" | "stateset" => ("", "GAUGE"),
            // Summaries, too: our library knows none.
            _ => ("", "UNTYPED"),
        };
        let name = format!("{}{ending}", family.name);
        if !family.metrics.is_empty() && is_meant(&name) {
            found.insert(name.clone(), show(&name, kind, &family));
        }
    }
    Ok(found.into_values().collect())
}

fn read(page: &str) -> Result<Vec<Family>, String> {
    let mut families: Vec<Family> = Vec::new();
    let mut wrong = None;
    let see = |line: Line<'_>| match line {
        Line::Help(name, text) => text.clone_into(&mut of(&mut families, name).help),
        Line::Type(name, kind) => kind.clone_into(&mut of(&mut families, name).kind),
        Line::Unit(name, unit) => unit.clone_into(&mut of(&mut families, name).unit),
        Line::Sample { series, value, .. } => match (families.last_mut(), decode_series(series)) {
            (Some(family), Ok(pairs)) => family.add(pairs, value),
            (_, Err(error)) => wrong = Some(error.to_string()),
            (None, _) => {}
        },
    };
    parse(page.as_bytes(), Format::OpenMetrics, see).map_err(|error| error.to_string())?;
    wrong.map_or(Ok(families), Err)
}

/// The family that the page is at; what is said of another name begins the next one.
fn of<'f>(families: &'f mut Vec<Family>, name: &str) -> &'f mut Family {
    let at = families.iter().rposition(|family| family.name == name).unwrap_or_else(|| {
        families.push(Family { name: name.to_owned(), ..Family::default() });
        families.len() - 1
    });
    &mut families[at]
}

impl Family {
    fn add(&mut self, mut pairs: Pairs, value: f64) {
        let is_histogram = self.kind == "histogram";
        let mut take = |wanted: &str| {
            let at = pairs.iter().position(|(name, _)| name == wanted)?;
            Some(pairs.swap_remove(at).1)
        };
        let name = take(METRIC_NAME).unwrap_or_default();
        let bound = if is_histogram { take("le") } else { None };
        pairs.sort_unstable();
        let metric = self.metrics.entry(pairs).or_default();
        match (name.strip_prefix(&self.name).filter(|_| is_histogram), bound) {
            (Some("_sum"), _) => metric.sum = value,
            (Some("_bucket"), Some(bound)) => {
                if let Some(bound) = bound.parse::<f64>().ok().filter(|bound| bound.is_finite()) {
                    metric
                        .buckets
                        .push(json!({ "cumulativeCount": value.to_string(), "upperBound": number(bound) }));
                }
            }
            (Some("_bucket"), None) => {}
            _ => metric.value = value,
        }
    }
}

fn show(name: &str, kind: &str, family: &Family) -> Value {
    let metrics = family.metrics.iter().map(|(pairs, metric)| {
        let mut shown = Map::new();
        if !pairs.is_empty() {
            let labels = pairs.iter().map(|(name, value)| json!({ "name": name, "value": value }));
            shown.insert("label".to_owned(), labels.collect());
        }
        let value = if kind == "HISTOGRAM" {
            let mut histogram =
                json!({ "sampleCount": metric.value.to_string(), "sampleSum": number(metric.sum) });
            if !metric.buckets.is_empty() {
                histogram["bucket"] = metric.buckets.clone().into();
            }
            histogram
        } else {
            json!({ "value": number(metric.value) })
        };
        shown.insert(kind.to_ascii_lowercase(), value);
        Value::Object(shown)
    });
    let metrics: Vec<Value> = metrics.collect();
    let mut shown = json!({ "name": name, "help": family.help, "type": kind, "metric": metrics });
    if !family.unit.is_empty() {
        shown["unit"] = family.unit.as_str().into();
    }
    shown
}

/// A number as protobuf's JSON has it.
fn number(value: f64) -> Value {
    // Past 2^53 not every integer is a float.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.is_nan() {
        "NaN".into()
    } else if value.is_infinite() {
        if value > 0.0 { "Infinity" } else { "-Infinity" }.into()
    } else if value.fract() == 0.0 && value.abs() < EXACT {
        (value as i64).into()
    } else {
        value.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# HELP t_reads Reads.\n# TYPE t_reads counter\n\
        t_reads_total{z=\"2\",a=\"y\"} 3\nt_reads_total{z=\"1\",a=\"x\"} 0.5\n\
        # HELP t_build Release.\n# TYPE t_build info\nt_build_info{version=\"1\"} 1\n\
        # HELP t_wait_seconds Wait.\n# TYPE t_wait_seconds histogram\n# UNIT t_wait_seconds seconds\n\
        t_wait_seconds_sum 0.75\nt_wait_seconds_count 4\n\
        t_wait_seconds_bucket{le=\"0.1\"} 1\nt_wait_seconds_bucket{le=\"1.0\"} 4\n\
        t_wait_seconds_bucket{le=\"+Inf\"} 4\n\
        # HELP t_idle Idle.\n# TYPE t_idle gauge\nt_idle NaN\n# HELP t_none None.\n# TYPE t_none gauge\n# EOF\n";

    fn check(pattern: Option<&str>, want: &[&str]) -> Vec<Value> {
        let found = families(PAGE, named(pattern).unwrap()).unwrap();
        let names: Vec<&str> = found.iter().map(|family| family["name"].as_str().unwrap()).collect();
        assert_eq!(names, want, "{pattern:?}");
        found
    }

    #[test]
    fn families_are_written_as_protobuf_writes_them() {
        let found = check(None, &["t_build_info", "t_idle", "t_reads_total", "t_wait_seconds"]);
        let text: Vec<String> = found.iter().map(Value::to_string).collect();
        let want = [
            r#"{"name":"t_build_info","help":"Release.","type":"GAUGE","metric":[{"label":[{"name":"version","value":"1"}],"gauge":{"value":1}}]}"#,
            r#"{"name":"t_idle","help":"Idle.","type":"GAUGE","metric":[{"gauge":{"value":"NaN"}}]}"#,
            r#"{"name":"t_reads_total","help":"Reads.","type":"COUNTER","metric":[{"label":[{"name":"a","value":"x"},{"name":"z","value":"1"}],"counter":{"value":0.5}},{"label":[{"name":"a","value":"y"},{"name":"z","value":"2"}],"counter":{"value":3}}]}"#,
            r#"{"name":"t_wait_seconds","help":"Wait.","type":"HISTOGRAM","metric":[{"histogram":{"sampleCount":"4","sampleSum":0.75,"bucket":[{"cumulativeCount":"1","upperBound":0.1},{"cumulativeCount":"4","upperBound":1}]}}],"unit":"seconds"}"#,
        ];
        assert_eq!(text, want);
    }

    #[test]
    fn a_pattern_meets_a_whole_name() {
        check(Some("t_reads"), &[]);
        check(Some("t_reads_.*|t_idle"), &["t_idle", "t_reads_total"]);
        assert!(named(Some("(")).is_err());
    }
}
