//! How much there is, by stream and by label, and what it looks like.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use binnacle_model::log_query::LogQuery;
use binnacle_model::storage::{Deadline, LogAggregate, LogFull, LogKey, LogMeasure, LogRequest, LogSlices};
use binnacle_model::{LogTime, Matcher};
use serde_json::{Map, Value, json};

use super::super::Params;
use super::error::LokiError;
use super::labels::{shown, streams};
use super::params::QUERY_SINCE;
use super::{Api, success};
use crate::logql::{Plan, Query};

/// Groups of a volume's answer, where the request does not say.
const DEFAULT_VOLUMES: usize = 100;
/// Shortest slice of a pattern's samples.
const MIN_PATTERN_STEP: Duration = Duration::from_secs(10);
/// Patterns of one answer.
const MAX_PATTERNS: usize = 500;
/// Slices of one answer.
const MAX_SLICES: u128 = 11_000;

pub(super) async fn stats(State(api): Api, params: Params) -> Result<Json<Value>, LokiError> {
    let span = params.loki_span(api.clock.now_ns(), QUERY_SINCE)?;
    let found = streams(&api, &params, vec![params.loki_matchers()?], span).await?;
    let count = found.streams.len();
    let entries: u64 = found.streams.iter().map(|stream| stream.entries).sum();
    let bytes: u64 = found.streams.iter().map(|stream| stream.bytes).sum();
    Ok(Json(json!({ "streams": count, "chunks": count, "bytes": bytes, "entries": entries })))
}

/// By which labels a volume is grouped: those that are named, or those that the selector names.
fn targets(params: &Params, matchers: &[Matcher]) -> Vec<String> {
    let said = params.get("targetLabels").unwrap_or_default().split(',').map(str::trim);
    let mut names: Vec<String> = said.filter(|name| !name.is_empty()).map(str::to_owned).collect();
    if names.is_empty() {
        names.extend(matchers.iter().map(|matcher| matcher.name.clone()));
    }
    names.sort_unstable();
    names.dedup();
    names
}

type Named = Vec<(String, String)>;

pub(super) async fn volume(State(api): Api, params: Params) -> Result<Response, LokiError> {
    let span = params.loki_span(api.clock.now_ns(), QUERY_SINCE)?;
    let matchers = params.loki_matchers()?;
    let names = targets(&params, &matchers);
    let by_labels = params.get("aggregateBy") == Some("labels");
    let limit = params.count("limit")?.filter(|limit| *limit > 0).unwrap_or(DEFAULT_VOLUMES);
    let found = streams(&api, &params, vec![matchers], span).await?;
    let mut volumes: BTreeMap<Named, u64> = BTreeMap::new();
    for stream in &found.streams {
        let is_wanted = |name: &str| names.iter().any(|wanted| wanted == name);
        let mut pairs: Named = shown(&stream.labels)
            .filter(|(name, _)| names.is_empty() || is_wanted(name))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        pairs.sort_unstable();
        if by_labels {
            for (name, _) in pairs {
                *volumes.entry(vec![(name, String::new())]).or_default() += stream.bytes;
            }
        } else if !pairs.is_empty() {
            *volumes.entry(pairs).or_default() += stream.bytes;
        }
    }
    let mut volumes: Vec<(Named, u64)> = volumes.into_iter().collect();
    volumes.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    volumes.truncate(limit);
    let at = seconds(span.1);
    let result = volumes
        .into_iter()
        .map(|(pairs, bytes)| json!({ "metric": object(pairs), "value": [at, bytes.to_string()] }));
    let data = json!({ "resultType": "vector", "result": result.collect::<Vec<_>>(), "stats": {} });
    Ok(success(data, found.warnings))
}

fn object(pairs: Named) -> Value {
    Value::Object(pairs.into_iter().map(|(name, value)| (name, Value::from(value))).collect::<Map<_, _>>())
}

/// As Prometheus writes a time.
fn seconds(at: LogTime) -> Value {
    let ms = at.to_timestamp().0;
    if ms % 1000 == 0 { (ms / 1000).into() } else { (ms as f64 / 1000.0).into() }
}

/// Slices of a step from the beginning to the end.
fn slices((start, end): (LogTime, LogTime), step: Duration) -> Result<LogSlices, LokiError> {
    let width = step.as_nanos().max(1);
    let count = u128::from(end.0.abs_diff(start.0)).div_ceil(width).max(1);
    if count > MAX_SLICES {
        let reason = "exceeded maximum resolution of 11,000 points per time series. Try increasing the value of the step parameter";
        return Err(LokiError::Bad(reason.to_owned()));
    }
    let width_ns = u64::try_from(width).unwrap_or(u64::MAX);
    Ok(LogSlices { start, width_ns, count: count as usize })
}

fn start_of(slices: LogSlices, slice: usize) -> LogTime {
    let into = i64::try_from(u128::from(slices.width_ns) * slice as u128).unwrap_or(i64::MAX);
    LogTime(slices.start.0.saturating_add(into))
}

pub(super) async fn volume_range(State(api): Api, params: Params) -> Result<Response, LokiError> {
    let span = params.loki_span(api.clock.now_ns(), QUERY_SINCE)?;
    let matchers = params.loki_matchers()?;
    let names = targets(&params, &matchers);
    let slices = slices(span, params.loki_step(span)?)?;
    let limit = params.count("limit")?.filter(|limit| *limit > 0).unwrap_or(DEFAULT_VOLUMES);
    let by = names.iter().map(|name| LogKey::Label(name.clone())).collect();
    let aggregate = LogAggregate { by, slices, measure: LogMeasure::Bytes, full: LogFull::Refuse };
    let query = LogQuery::And(matchers.into_iter().map(LogQuery::Label).collect());
    let request = LogRequest { query, start: span.0, end: span.1 };
    let logs = Arc::clone(&api.logs);
    let work = move |deadline: &Deadline| Ok(logs.aggregate(&request, &aggregate, deadline)?);
    let mut found = api.gate.run(params.asked(api.clock.now()), None, work).await?;
    found.groups.sort_by_key(|group| std::cmp::Reverse(group.sums.iter().sum::<u64>()));
    found.groups.truncate(limit);
    let result = found.groups.into_iter().map(|group| {
        let pairs = names.iter().cloned().zip(group.key).filter(|(_, value)| !value.is_empty());
        let sums = group.sums.iter().enumerate().filter(|(_, sum)| **sum > 0);
        let values: Vec<Value> =
            sums.map(|(slice, sum)| json!([seconds(start_of(slices, slice)), sum.to_string()])).collect();
        json!({ "metric": object(pairs.collect()), "values": values })
    });
    let data = json!({ "resultType": "matrix", "result": result.collect::<Vec<_>>(), "stats": {} });
    Ok(success(data, found.warnings))
}

pub(super) async fn patterns(State(api): Api, params: Params) -> Result<Response, LokiError> {
    let span = params.loki_span(api.clock.now_ns(), QUERY_SINCE)?;
    let Query::Logs(selection) = params.loki_query()? else {
        return Err(LokiError::Bad("only log selectors are supported".to_owned()));
    };
    let slices = slices(span, params.loki_step(span)?.max(MIN_PATTERN_STEP))?;
    let request = LogRequest { query: Plan::new(&selection).query, start: span.0, end: span.1 };
    let logs = Arc::clone(&api.logs);
    let work = move |deadline: &Deadline| Ok(logs.patterns(&request, slices, deadline)?);
    let found = api.gate.run(params.asked(api.clock.now()), None, work).await?;
    let shown = found.patterns.into_iter().take(MAX_PATTERNS).map(|pattern| {
        let counts = pattern.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        let samples: Vec<Value> = counts
            .map(|(slice, count)| json!([start_of(slices, slice).0.div_euclid(1_000_000_000), count]))
            .collect();
        json!({ "pattern": pattern.pattern, "level": pattern.level, "samples": samples })
    });
    Ok(success(shown.collect(), found.warnings))
}
