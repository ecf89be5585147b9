//! Where series come from: `/api/v1/status/tsdb` in Prometheus's form, `/api/cardinality` with who added them lately
//! and what nobody asks for.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use binnacle_model::storage::LabelSets;
use binnacle_model::time::millis;
use binnacle_model::{Labels, TimeRange, Timestamp};
use serde_json::{Value, json};

use super::json::success;
use super::metrics::any_selector;
use super::{ApiError, Params, ReadApi, Usage};

/// What the head holds: a span of two hours and the hour in which late samples come.
const HEAD: Duration = Duration::from_hours(3);
/// Places of each list, as in Prometheus.
const PLACES: usize = 10;
const MAX_PLACES: usize = 10_000;

fn places(params: &Params) -> Result<usize, ApiError> {
    let places = params.count("limit")?.unwrap_or(PLACES);
    let is_fine = (1..=MAX_PLACES).contains(&places);
    is_fine
        .then_some(places)
        .ok_or_else(|| ApiError::parameter("limit", format!("must be between 1 and {MAX_PLACES}")))
}

pub(super) async fn tsdb(State(api): State<Arc<ReadApi>>, params: Params) -> Result<Response, ApiError> {
    let places = places(&params)?;
    let now = api.clock.now();
    let range = TimeRange { start: Timestamp(now.0 - millis(HEAD)), end: now };
    let metrics = Arc::clone(&api.metrics);
    let work = move |deadline: &_| {
        let series = metrics.series(&[], range, deadline)?.labels;
        Ok(statistics(&series, range, places))
    };
    Ok(success(&api.gate.run(params.asked(api.clock.now()), None, work).await?))
}

/// The blocks, oldest first. Their number takes the place of Prometheus's ULID.
pub(super) async fn blocks(State(api): State<Arc<ReadApi>>, params: Params) -> Result<Response, ApiError> {
    let metrics = Arc::clone(&api.metrics);
    let mut blocks =
        api.gate.run(params.asked(api.clock.now()), None, move |_: &_| Ok(metrics.blocks()?)).await?;
    blocks.sort_by_key(|block| (block.range.start, block.number));
    let shown = blocks.iter().map(|block| {
        let is_merged = !block.sources.is_empty();
        json!({
            "ulid": block.number.to_string(),
            // As in Prometheus, the end is not inside.
            "minTime": block.range.start.0,
            "maxTime": block.range.end.0 + 1,
            "stats": {
                "numSamples": block.samples,
                "numSeries": block.series,
                "numBytes": block.bytes,
            },
            "compaction": {
                "level": if is_merged { 2 } else { 1 },
                "sources": block.sources.iter().map(u64::to_string).collect::<Vec<_>>(),
            },
            "version": 1,
        })
    });
    Ok(success(&json!({ "blocks": shown.collect::<Vec<_>>() })))
}

fn statistics(series: &[Labels], range: TimeRange, places: usize) -> Value {
    let mut metrics: HashMap<&str, usize> = HashMap::new();
    let mut pairs: HashMap<(&str, &str), usize> = HashMap::new();
    for labels in series {
        *metrics.entry(labels.metric_name()).or_default() += 1;
        for label in labels {
            *pairs.entry((&label.name, &label.value)).or_default() += 1;
        }
    }
    let mut values: HashMap<&str, usize> = HashMap::new();
    let mut bytes: HashMap<&str, usize> = HashMap::new();
    for ((name, value), times) in &pairs {
        *values.entry(name).or_default() += 1;
        // As Prometheus counts: each series names the value once.
        *bytes.entry(name).or_default() += value.len() * times;
    }
    let names: HashSet<&str> = values.keys().copied().collect();
    let joined: HashMap<String, usize> =
        pairs.iter().map(|((name, value), count)| (format!("{name}={value}"), *count)).collect();
    json!({
        "headStats": {
            "numSeries": series.len(),
            "numLabelPairs": pairs.len(),
            "numLabelNames": names.len(),
            "minTime": range.start.0,
            "maxTime": range.end.0,
        },
        "seriesCountByMetricName": top(metrics, places),
        "labelValueCountByLabelName": top(values, places),
        "memoryInBytesByLabelName": top(bytes, places),
        "seriesCountByLabelValuePair": top(joined, places),
    })
}

/// The largest first, equal ones by name.
fn top<N: Ord + Into<Value>>(counts: HashMap<N, usize>, places: usize) -> Vec<Value> {
    let mut all: Vec<(N, usize)> = counts.into_iter().collect();
    all.sort_unstable_by(|(a, few), (b, many)| many.cmp(few).then_with(|| a.cmp(b)));
    all.truncate(places);
    all.into_iter().map(|(name, value)| json!({ "name": name.into(), "value": value })).collect()
}

/// What counts as new: a series with samples in the last hour, and none in the two hours before.
const NEW: Duration = Duration::from_hours(1);

pub(super) async fn overview(State(api): State<Arc<ReadApi>>, params: Params) -> Result<Response, ApiError> {
    let places = places(&params)?;
    let selectors = any_selector(&params)?;
    let now = api.clock.now();
    let (all, shared) = (Arc::clone(&api.metrics), Arc::clone(&api));
    let work = move |deadline: &_| {
        let since = Timestamp(now.0 - millis(NEW));
        let lately = TimeRange { start: since, end: now };
        let before = TimeRange { start: Timestamp(now.0 - millis(HEAD)), end: Timestamp(since.0 - 1) };
        let mut warnings = Vec::new();
        let mut find = |range: TimeRange| -> Result<BTreeSet<Labels>, ApiError> {
            let mut found = BTreeSet::new();
            for matchers in &selectors {
                let LabelSets { labels, warnings: more } = all.series(matchers, range, deadline)?;
                found.extend(labels);
                warnings.extend(more);
            }
            Ok(found)
        };
        let (lately, before) = (find(lately)?, find(before)?);
        Ok((describe(&lately, &before, &shared.usage, places), warnings))
    };
    let (mut data, warnings) = api.gate.run(params.asked(now), None, work).await?;
    data["newSince"] = Value::from(now.minus(NEW).as_secs_f64());
    data["queriesKnownSince"] = Value::from(api.usage.since().as_secs_f64());
    let mut answer = json!({ "status": "success", "data": data });
    if !warnings.is_empty() {
        answer["warnings"] = warnings.into();
    }
    Ok(axum::Json(answer).into_response())
}

/// How many series there are, and how many of them are new.
#[derive(Default, Clone, Copy)]
struct Count {
    series: usize,
    new: usize,
}

fn describe(lately: &BTreeSet<Labels>, before: &BTreeSet<Labels>, usage: &Usage, places: usize) -> Value {
    let mut by_metric: HashMap<&str, Count> = HashMap::new();
    let mut by_label: HashMap<&str, (Count, HashSet<&str>)> = HashMap::new();
    let mut by_place: HashMap<(&str, &str), Count> = HashMap::new();
    for labels in lately {
        let new = usize::from(!before.contains(labels));
        let add = |count: &mut Count| {
            count.series += 1;
            count.new += new;
        };
        add(by_metric.entry(labels.metric_name()).or_default());
        for name in ["job", "namespace"] {
            add(by_place.entry((name, labels.value(name))).or_default());
        }
        for label in labels {
            let (count, values) = by_label.entry(&label.name).or_default();
            add(count);
            values.insert(&label.value);
        }
    }
    let names: BTreeSet<&str> = by_metric.keys().copied().collect();
    let asked = usage.last(&names);
    let of = |name: &str| {
        let all = by_place.iter().filter(|((label, _), _)| *label == name);
        largest(all.map(|((_, value), count)| (*value, *count)).collect(), places, |_, shown| shown)
    };
    let never: Vec<(&str, Count)> = by_metric
        .iter()
        .filter(|(name, _)| !asked.contains_key(*name))
        .map(|(name, one)| (*name, *one))
        .collect();
    let unused: usize = never.iter().map(|(_, count)| count.series).sum();
    let last = |name: &str, mut shown: Value| {
        shown["lastQueried"] = asked.get(name).map(|at| at.as_secs_f64()).into();
        shown
    };
    let values = |name: &str, mut shown: Value| {
        shown["values"] = by_label[name].1.len().into();
        shown
    };
    json!({
        "series": lately.len(),
        "newSeries": lately.difference(before).count(),
        "byMetric": largest(by_metric.iter().map(|(name, one)| (*name, *one)).collect(), places, last),
        "byLabel": largest(by_label.iter().map(|(name, (one, _))| (*name, *one)).collect(), places, values),
        "byJob": of("job"),
        "byNamespace": of("namespace"),
        "neverQueried": { "metrics": never.len(), "series": unused, "largest": largest(never, places, |_, shown| shown) },
    })
}

/// The largest first, equal ones by name; `more` adds to what is shown of each.
fn largest(mut all: Vec<(&str, Count)>, places: usize, more: impl Fn(&str, Value) -> Value) -> Vec<Value> {
    all.sort_unstable_by(|(a, few), (b, many)| many.series.cmp(&few.series).then_with(|| a.cmp(b)));
    all.truncate(places);
    let show = |(name, count): (&str, Count)| {
        more(name, json!({ "name": name, "series": count.series, "newSeries": count.new }))
    };
    all.into_iter().map(show).collect()
}

#[cfg(test)]
mod tests {
    use binnacle_model::storage::ALL_TIME;

    use super::*;

    #[test]
    fn new_series_and_metrics_that_nobody_asks_for_are_named() {
        let labels = |name: &str, job: &str| Labels::new([("__name__", name), ("job", job)]).unwrap();
        let before = [labels("up", "a")].into_iter().collect();
        let lately = [labels("up", "a"), labels("up", "b"), labels("noise", "b")].into_iter().collect();
        let usage = Usage::new(Timestamp(0));
        usage.note(&crate::promql::parse("sum(up)").unwrap(), Timestamp(5000));
        let found = describe(&lately, &before, &usage, 10);
        assert_eq!((&found["series"], &found["newSeries"]), (&json!(3), &json!(2)));
        let up = json!({ "name": "up", "series": 2, "newSeries": 1, "lastQueried": 5.0 });
        assert_eq!(found["byMetric"][0], up);
        assert_eq!(found["byJob"][0], json!({ "name": "b", "series": 2, "newSeries": 2 }));
        assert_eq!(found["byLabel"][1], json!({ "name": "job", "series": 3, "newSeries": 2, "values": 2 }));
        assert_eq!(
            found["neverQueried"]["largest"],
            json!([{ "name": "noise", "series": 1, "newSeries": 1 }])
        );
        assert_eq!(found["byNamespace"], json!([{ "name": "", "series": 3, "newSeries": 2 }]));
    }

    #[test]
    fn the_largest_come_first_and_lists_end() {
        let series: Vec<Labels> = [("up", "a"), ("up", "b"), ("load", "b")]
            .into_iter()
            .map(|(name, job)| Labels::new([("__name__", name), ("job", job)]).unwrap())
            .collect();
        let found = statistics(&series, ALL_TIME, 1);
        assert_eq!(found["headStats"]["numSeries"], 3);
        assert_eq!(found["headStats"]["numLabelPairs"], 4);
        assert_eq!(found["seriesCountByMetricName"], json!([{ "name": "up", "value": 2 }]));
        assert_eq!(found["seriesCountByLabelValuePair"], json!([{ "name": "__name__=up", "value": 2 }]));
        assert_eq!(found["memoryInBytesByLabelName"], json!([{ "name": "__name__", "value": 8 }]));
    }
}
