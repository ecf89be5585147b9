//! Names and values of labels, and the streams themselves.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use binnacle_model::log::loki_alias;
use binnacle_model::log_query::LogQuery;
use binnacle_model::storage::{
    Deadline, LogAggregate, LogFull, LogGroups, LogKey, LogMeasure, LogRequest, LogSlices, LogStreams,
};
use binnacle_model::{Labels, LogTime, Matcher};
use serde_json::{Map, Value};

use super::super::{ApiError, Params, ReadApi};
use super::error::LokiError;
use super::params::{LABELS_SINCE, matchers_of, of_streams};
use super::{Api, success};

/// The streams that one of the selectors selects.
pub(super) async fn streams(
    api: &Arc<ReadApi>,
    params: &Params,
    selectors: Vec<Vec<Matcher>>,
    (start, end): (LogTime, LogTime),
) -> Result<LogStreams, LokiError> {
    let logs = Arc::clone(&api.logs);
    let work = move |deadline: &Deadline| {
        let mut held = deadline.holding();
        let mut found = LogStreams::default();
        for matchers in &selectors {
            let more = logs.streams(&of_streams(matchers), start, end, deadline)?;
            held.add(more.streams.iter().map(|stream| 4 + 2 * stream.labels.len()).sum())?;
            found.streams.extend(more.streams);
            found.warnings.extend(more.warnings);
        }
        found.streams.sort_by(|a, b| a.labels.cmp(&b.labels));
        found.streams.dedup_by(|next, before| next.labels == before.labels);
        Ok::<_, ApiError>(found)
    };
    Ok(api.gate.run(params.asked(api.clock.now()), None, work).await?)
}

/// A stream's labels under the names of Loki's clients.
pub(super) fn shown(labels: &Labels) -> impl Iterator<Item = (&str, &str)> {
    let has_name = labels.get("service_name").is_some();
    labels.iter().map(move |label| {
        let is_service = &*label.name == "service" && !has_name;
        (if is_service { "service_name" } else { &*label.name }, &*label.value)
    })
}

pub(super) async fn names(State(api): Api, params: Params) -> Result<Response, LokiError> {
    let span = params.loki_span(api.clock.now_ns(), LABELS_SINCE)?;
    let found = streams(&api, &params, vec![params.loki_matchers()?], span).await?;
    let names: BTreeSet<&str> =
        found.streams.iter().flat_map(|stream| shown(&stream.labels).map(|(name, _)| name)).collect();
    Ok(success(names.into_iter().collect(), found.warnings))
}

pub(super) async fn values(
    State(api): Api,
    Path(name): Path<String>,
    params: Params,
) -> Result<Response, LokiError> {
    let span = params.loki_span(api.clock.now_ns(), LABELS_SINCE)?;
    let matchers = params.loki_matchers()?;
    if loki_alias(&name) == "level" {
        let groups = groups(&api, &params, matchers, "level", span).await?;
        let levels = groups.groups.into_iter().filter_map(|group| group.key.into_iter().next());
        let levels: BTreeSet<String> = levels.filter(|level| !level.is_empty()).collect();
        return Ok(success(levels.into_iter().collect(), groups.warnings));
    }
    let found = streams(&api, &params, vec![matchers], span).await?;
    let values: BTreeSet<&str> = found
        .streams
        .iter()
        .filter_map(|stream| stream.labels.get(&name).or_else(|| stream.labels.get(loki_alias(&name))))
        .collect();
    Ok(success(values.into_iter().collect(), found.warnings))
}

/// How many entries there are of each value of a label.
pub(super) async fn groups(
    api: &Arc<ReadApi>,
    params: &Params,
    matchers: Vec<Matcher>,
    name: &str,
    (start, end): (LogTime, LogTime),
) -> Result<LogGroups, LokiError> {
    let query = LogQuery::And(matchers.into_iter().map(LogQuery::Label).collect());
    let width_ns = end.0.abs_diff(start.0).max(1);
    let aggregate = LogAggregate {
        by: vec![LogKey::Label(name.to_owned())],
        slices: LogSlices { start, width_ns, count: 1 },
        measure: LogMeasure::Entries,
        full: LogFull::Refuse,
    };
    let request = LogRequest { query, start, end: aggregate.slices.end() };
    let logs = Arc::clone(&api.logs);
    let work = move |deadline: &Deadline| Ok(logs.aggregate(&request, &aggregate, deadline)?);
    Ok(api.gate.run(params.asked(api.clock.now()), None, work).await?)
}

pub(super) async fn series(State(api): Api, params: Params) -> Result<Response, LokiError> {
    let span = params.loki_span(api.clock.now_ns(), LABELS_SINCE)?;
    let said: Vec<&str> = params.all("match[]").chain(params.all("match")).collect();
    let mut selectors = said.into_iter().map(matchers_of).collect::<Result<Vec<_>, _>>()?;
    if selectors.is_empty() {
        selectors.push(params.loki_matchers()?);
    }
    let found = streams(&api, &params, selectors, span).await?;
    let objects = found.streams.iter().map(|stream| {
        let mut pairs: Vec<(&str, &str)> = shown(&stream.labels).collect();
        pairs.sort_unstable();
        let pairs = pairs.into_iter().map(|(name, value)| (name.to_owned(), Value::from(value)));
        Value::Object(pairs.collect::<Map<_, _>>())
    });
    Ok(success(objects.collect(), found.warnings))
}
