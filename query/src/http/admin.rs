//! `/api/v1/admin/tsdb/*`: what changes the store, and is there only where `--enable-admin-api` was given.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use binnacle_model::storage::Admin;
use serde_json::json;

use super::json::success;
use super::{ApiError, Params, ReadApi};

fn admin(api: &ReadApi) -> Result<Arc<dyn Admin>, ApiError> {
    // As Prometheus says it.
    api.admin.clone().ok_or_else(|| ApiError::Unavailable("admin APIs disabled".to_owned()))
}

/// Copies all metrics into `snapshots/NAME` under the data directory.
pub(super) async fn snapshot(State(api): State<Arc<ReadApi>>, params: Params) -> Result<Response, ApiError> {
    let admin = admin(&api)?;
    let skip_head = match params.get("skip_head").unwrap_or_default() {
        "" | "false" | "0" => false,
        "true" | "1" => true,
        other => {
            return Err(ApiError::parameter("skip_head", format!("{other:?} is neither true nor false")));
        }
    };
    let made = tokio::task::spawn_blocking(move || admin.snapshot(skip_head)).await;
    let name = made.map_err(|error| ApiError::Internal(error.to_string()))?;
    let name = name.map_err(|error| ApiError::Internal(format!("create snapshot: {error}")))?;
    Ok(success(&json!({ "name": name })))
}
