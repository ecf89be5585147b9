//! `/api/logs/partitions` and `/api/logs/delete`: what is stored and where, and deletions of entries.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use binnacle_model::storage::{
    LogDeletion, LogDeletionState, LogKeeper, LogPartition, LogPartitionState, LogRequest, StorageError,
};
use serde_json::{Value, json};

use super::{Api, moment};
use crate::http::json::success;
use crate::http::readers::is_foreign;
use crate::http::{ApiError, Params, ReadApi};
use crate::logs::parse;

fn keeper(api: &ReadApi) -> Result<Arc<dyn LogKeeper>, ApiError> {
    api.keeper.clone().ok_or_else(|| ApiError::Unavailable("this server keeps no logs".to_owned()))
}

/// Who may delete, and see what was: not a page of another site that somebody's browser shows.
fn admin(api: &ReadApi, headers: &HeaderMap) -> Result<Arc<dyn LogKeeper>, ApiError> {
    if is_foreign(headers) {
        return Err(ApiError::BadData("a page of another site may not delete logs".to_owned()));
    }
    if api.admin.is_none() {
        return Err(ApiError::Unavailable("admin APIs disabled".to_owned()));
    }
    keeper(api)
}

/// Asks the keeper on a thread that may wait.
async fn ask<T: Send + 'static>(
    keeper: Arc<dyn LogKeeper>,
    work: impl FnOnce(&dyn LogKeeper) -> T + Send + 'static,
) -> Result<T, ApiError> {
    let asked = tokio::task::spawn_blocking(move || work(&*keeper)).await;
    asked.map_err(|error| ApiError::Internal(error.to_string()))
}

/// All partitions that searches see.
pub(super) async fn partitions(State(api): Api) -> Result<Response, ApiError> {
    let (partitions, warnings) = ask(keeper(&api)?, |keeper| keeper.partitions()).await?;
    let partitions: Vec<Value> = partitions.iter().map(partition_json).collect();
    Ok(success(&json!({ "partitions": partitions, "warnings": warnings })))
}

fn partition_json(one: &LogPartition) -> Value {
    let state = match one.state {
        LogPartitionState::Open => "open",
        LogPartitionState::Closed => "closed",
        LogPartitionState::Archived => "archived",
        LogPartitionState::Attached => "attached",
    };
    json!({
        "name": one.name,
        "class": one.class,
        "state": state,
        "archive": one.archive,
        "store": one.store,
        "pages": one.pages,
        "entries": one.entries,
        "bytes": one.bytes,
        "stored_bytes": one.stored_bytes,
        "first_ns": one.span.map(|(first, _)| first.0.to_string()),
        "last_ns": one.span.map(|(_, last)| last.0.to_string()),
    })
}

/// Has all entries deleted that a query finds in a span, and that are there by now.
pub(super) async fn delete(
    State(api): Api,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, ApiError> {
    let (keeper, now) = (admin(&api, &headers)?, api.clock.now_ns());
    let query = params.log_query().to_owned();
    if query.is_empty() {
        return Err(ApiError::parameter("query", "say which entries, in Lucene's syntax; * is all of them"));
    }
    let start = moment(&params, "start", now)?;
    let start = start.ok_or_else(|| ApiError::parameter("start", "say from when on, such as now-1h"))?;
    let end = moment(&params, "end", now)?.unwrap_or(now);
    if end <= start {
        return Err(ApiError::parameter("end", "end must be after start"));
    }
    let parsed = parse(&query, now)?;
    // What a search finds is looked at before anything follows from it; here nobody looks.
    if let Some(hint) = parsed.hint() {
        return Err(ApiError::parameter("query", format!("it is not taken as it stands: {hint}")));
    }
    let request = LogRequest { query: parsed.query, start, end };
    let begun = ask(keeper, move |keeper| keeper.delete(&query, &request)).await?;
    let begun = begun.map_err(refused)?;
    Ok((StatusCode::ACCEPTED, success(&deletion_json(&begun))).into_response())
}

/// Deletions, the newest first.
pub(super) async fn deletions(State(api): Api, headers: HeaderMap) -> Result<Response, ApiError> {
    let deletions = ask(admin(&api, &headers)?, |keeper| keeper.deletions()).await?;
    let deletions: Vec<Value> = deletions.iter().map(deletion_json).collect();
    Ok(success(&json!({ "deletions": deletions })))
}

/// Ends a deletion. What it removed by then is gone.
pub(super) async fn cancel(
    State(api): Api,
    headers: HeaderMap,
    Path(id): Path<u64>,
) -> Result<Response, ApiError> {
    let cancelled = ask(admin(&api, &headers)?, move |keeper| keeper.cancel(id)).await?;
    let cancelled = cancelled.map_err(refused)?;
    let one = cancelled.ok_or_else(|| ApiError::NotFound(format!("there is no deletion {id}")))?;
    Ok(success(&deletion_json(&one)))
}

fn refused(error: StorageError) -> ApiError {
    match error {
        StorageError::Broken(reason) => ApiError::Unavailable(reason),
        other => ApiError::Internal(other.to_string()),
    }
}

fn deletion_json(one: &LogDeletion) -> Value {
    let state = match one.state {
        LogDeletionState::Running => "running",
        LogDeletionState::Done => "done",
        LogDeletionState::Cancelled => "cancelled",
        LogDeletionState::Failed => "failed",
    };
    json!({
        "id": one.id,
        "query": one.query,
        "start_ns": one.start.0.to_string(),
        "end_ns": one.end.0.to_string(),
        "requested_ns": one.through.0.to_string(),
        "state": state,
        "pages": one.pages,
        "pages_done": one.pages_done,
        "removed": one.removed,
        "trouble": one.trouble,
    })
}
