//! `/api/v1/admin/tsdb/*`: what changes the store, and is there only where `--enable-admin-api` was given.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use binnacle_model::storage::Admin;
use serde_json::json;

use super::json::success;
use super::metrics::{range, selectors};
use super::{ApiError, Params, ReadApi};

fn admin(api: &ReadApi) -> Result<Arc<dyn Admin>, ApiError> {
    // As Prometheus says it.
    api.admin.clone().ok_or_else(|| ApiError::Unavailable("admin APIs disabled".to_owned()))
}

/// Deletes series, or a range of them.
pub(super) async fn delete_series(
    State(api): State<Arc<ReadApi>>,
    params: Params,
) -> Result<Response, ApiError> {
    let admin = admin(&api)?;
    let matchers = selectors(&params)?;
    if matchers.is_empty() {
        return Err(ApiError::BadData("no match[] parameter provided".to_owned()));
    }
    let range = range(&params)?;
    let done = tokio::task::spawn_blocking(move || admin.delete(&matchers, range)).await;
    let done = done.map_err(|error| ApiError::Internal(error.to_string()))?;
    done.map_err(|error| ApiError::Internal(format!("delete series: {error}")))?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// There are no tombstones: what is deleted is gone.
pub(super) async fn clean_tombstones(State(api): State<Arc<ReadApi>>) -> Result<Response, ApiError> {
    admin(&api)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Copies all metrics into `snapshots/NAME` under the data directory.
pub(super) async fn snapshot(State(api): State<Arc<ReadApi>>, params: Params) -> Result<Response, ApiError> {
    let admin = admin(&api)?;
    let skip_head = match params.get("skip_head").unwrap_or_default() {
        "" | "false" | "False" | "FALSE" | "f" | "F" | "0" => false,
        "true" | "True" | "TRUE" | "t" | "T" | "1" => true,
        other => {
            return Err(ApiError::parameter("skip_head", format!("{other:?} is neither true nor false")));
        }
    };
    let made = tokio::task::spawn_blocking(move || admin.snapshot(skip_head)).await;
    let name = made.map_err(|error| ApiError::Internal(error.to_string()))?;
    let name = name.map_err(|error| ApiError::Internal(format!("create snapshot: {error}")))?;
    Ok(success(&json!({ "name": name })))
}
