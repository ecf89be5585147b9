//! `/api/queries`: what runs and waits, and how to end it; `/api/queries/slow`: what took long.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::{Value, json};

use super::json::success;
use super::{ApiError, ReadApi};

pub(super) async fn list(State(api): State<Arc<ReadApi>>) -> Response {
    let now = api.clock.now();
    let shown: Vec<Value> = api
        .gate
        .active()
        .iter()
        .map(|one| {
            json!({
                "id": one.id,
                "user": one.asked.user,
                "query": one.asked.query,
                "state": if one.is_running { "running" } else { "waiting" },
                "since": one.asked.at.to_rfc3339(),
                "seconds": (now.0 - one.asked.at.0) as f64 / 1000.0,
            })
        })
        .collect();
    success(&Value::Array(shown))
}

/// The last ones that took long, newest first.
pub(super) async fn slow(State(api): State<Arc<ReadApi>>) -> Response {
    let shown = api.gate.slow().into_iter().map(|one| {
        json!({
            "user": one.asked.user,
            "query": one.asked.query,
            "since": one.asked.at.to_rfc3339(),
            "seconds": one.took.as_secs_f64(),
            "error": one.error,
        })
    });
    success(&Value::Array(shown.collect()))
}

pub(super) async fn kill(
    State(api): State<Arc<ReadApi>>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let number = id.parse();
    let id = number.map_err(|_| ApiError::BadData(format!("{id:?} is no number of a query")))?;
    if !api.gate.kill(id) {
        return Err(ApiError::NotFound(format!("no query {id} runs or waits; it may have ended")));
    }
    tracing::info!(id, "query killed");
    Ok(success(&json!({ "killed": id })))
}
