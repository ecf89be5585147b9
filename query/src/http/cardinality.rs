//! `/api/v1/status/tsdb`: where series come from.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use binnacle_model::time::millis;
use binnacle_model::{Labels, TimeRange, Timestamp};
use serde_json::{Value, json};

use super::json::success;
use super::{ApiError, Params, ReadApi};

/// What the head holds: a span of two hours and the hour in which late samples come.
const HEAD: Duration = Duration::from_hours(3);
/// Places of each list, as in Prometheus.
const PLACES: usize = 10;
const MAX_PLACES: usize = 10_000;

pub(super) async fn tsdb(State(api): State<Arc<ReadApi>>, params: Params) -> Result<Response, ApiError> {
    let places = params.count("limit")?.unwrap_or(PLACES);
    if !(1..=MAX_PLACES).contains(&places) {
        return Err(ApiError::parameter("limit", format!("must be between 1 and {MAX_PLACES}")));
    }
    let now = api.clock.now();
    let range = TimeRange { start: Timestamp(now.0 - millis(HEAD)), end: now };
    let metrics = Arc::clone(&api.metrics);
    let work = move |deadline: &_| {
        let series = metrics.series(&[], range, deadline)?.labels;
        Ok(statistics(&series, range, places))
    };
    Ok(success(&api.gate.run(params.asked(api.clock.now()), None, work).await?))
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

#[cfg(test)]
mod tests {
    use binnacle_model::storage::ALL_TIME;

    use super::*;

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
