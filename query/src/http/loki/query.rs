//! Queries: lines and numbers.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use binnacle_model::storage::Deadline;
use serde_json::json;

use super::super::json::query_response;
use super::super::stats::Stats;
use super::super::{Params, json};
use super::error::{LokiError, of_metric};
use super::params::QUERY_SINCE;
use super::{Api, answer};
use crate::logql::{MetricParams, Plan, Query, metric_instant, metric_range, parse, pretty, select};

/// What Loki says to a log query that asks for one moment.
const NO_INSTANT_LOGS: &str =
    "log queries are not supported as an instant query type, please change your query to a range query type";

pub(super) async fn query(State(api): Api, params: Params) -> Result<Response, LokiError> {
    let Query::Metric(metric) = params.loki_query()? else {
        return Err(LokiError::Bad(NO_INSTANT_LOGS.to_owned()));
    };
    let now = api.clock.now_ns();
    let at = params.log_time("time")?.unwrap_or(now);
    let (logs, limits, stats) = (Arc::clone(&api.logs), api.limits, Stats::asked(&params));
    let text = params.get("query").unwrap_or_default().to_owned();
    let work = move |deadline: &Deadline| {
        let times = stats.start();
        let answer = metric_instant(&metric, &*logs, at, limits, deadline).map_err(of_metric)?;
        Ok(query_response(answer, &text, usize::MAX, &times, deadline.room().cloned()))
    };
    Ok(api.gate.run(params.asked(now.to_timestamp()), params.duration("timeout")?, work).await?)
}

pub(super) async fn query_range(
    State(api): Api,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, LokiError> {
    let query = params.loki_query()?;
    let now = api.clock.now_ns();
    let span = params.loki_span(now, QUERY_SINCE)?;
    let logs = Arc::clone(&api.logs);
    let asked = params.asked(now.to_timestamp());
    let timeout = params.duration("timeout")?;
    let metric = match query {
        Query::Logs(selection) => {
            let (limit, order) = (params.loki_limit()?, params.loki_order()?);
            let categorizes = answer::categorizes(&headers);
            let work = move |deadline: &Deadline| {
                let found = select(&*logs, &Plan::new(&selection), span, order, limit, deadline)?;
                Ok(answer::respond(found, categorizes))
            };
            return Ok(api.gate.run(asked, timeout, work).await?);
        }
        Query::Metric(metric) => metric,
    };
    let step = params.loki_step(span)?;
    let (limits, stats) = (api.limits, Stats::asked(&params));
    let text = params.get("query").unwrap_or_default().to_owned();
    let work = move |deadline: &Deadline| {
        let times = stats.start();
        let params = MetricParams { start: span.0, end: span.1, step };
        let answer = metric_range(&metric, &*logs, params, limits, deadline).map_err(of_metric)?;
        Ok(query_response(answer, &text, usize::MAX, &times, deadline.room().cloned()))
    };
    Ok(api.gate.run(asked, timeout, work).await?)
}

/// The query in lines.
pub(super) async fn format(params: Params) -> Response {
    match parse(params.get("query").unwrap_or_default()) {
        Ok(query) => json::success(&pretty(&query).into()),
        Err(error) => {
            let body = json!({ "status": "invalid-query", "error": error.to_string() });
            (StatusCode::BAD_REQUEST, axum::Json(body)).into_response()
        }
    }
}
