//! What every process answers of itself.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use binnacle_query::http::{ApiError, Params, is_foreign};
use binnacle_store::Store;
use prometheus_client::registry::Registry;

use super::reload::Reloader;
use crate::stage::healthy;
use crate::{own_page, self_metrics, status};

#[derive(Clone)]
struct Own {
    store: Option<Arc<Store>>,
    registry: Arc<Registry>,
    reloader: Arc<Reloader>,
}

/// Health, readiness and our own metrics.
pub(super) fn own_routes(
    store: Option<Arc<Store>>,
    registry: Arc<Registry>,
    reloader: Arc<Reloader>,
) -> Router {
    Router::new()
        .route("/-/healthy", get(healthy).head(healthy))
        .route("/livez", get(healthy))
        .route("/-/ready", get(is_ready).head(is_ready))
        .route("/readyz", get(is_ready))
        .route("/-/reload", get(refuse_get).post(reload).put(reload))
        .route("/-/quit", get(refuse_get).post(quit).put(quit))
        .route("/metrics", get(metrics))
        .route("/api/v1/status/self_metrics", get(self_metrics))
        .with_state(Own { store, registry, reloader })
}

async fn is_ready(State(own): State<Own>) -> Response {
    match own.store.and_then(|store| store.write_error()) {
        None => "Binnacle is Ready.\n".into_response(),
        Some(error) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("store takes no writes: {error}\n")).into_response()
        }
    }
}

async fn reload(State(own): State<Own>, headers: HeaderMap) -> Response {
    if is_foreign(&headers) {
        return (StatusCode::FORBIDDEN, "a page of another site may not reload\n").into_response();
    }
    own.reloader.answer().await
}

/// Signals stop the process. Prometheus says this where it was not started with `--web.enable-lifecycle`.
async fn quit() -> Response {
    (StatusCode::FORBIDDEN, "Lifecycle API is not enabled.").into_response()
}

/// As Prometheus answers links to what changes the server.
async fn refuse_get() -> Response {
    (StatusCode::METHOD_NOT_ALLOWED, "Only POST or PUT requests allowed").into_response()
}

async fn metrics(State(own): State<Own>, headers: HeaderMap) -> Response {
    own_page::respond(&own.registry, &headers)
}

async fn self_metrics(State(own): State<Own>, params: Params) -> Result<Response, ApiError> {
    let parameter = "metric_name_pattern";
    let is_meant = self_metrics::named(params.get(parameter));
    let is_meant = is_meant.map_err(|reason| ApiError::parameter(parameter, reason))?;
    let page = own_page::encode(&own.registry).map_err(ApiError::Internal)?;
    let families = self_metrics::families(&page, is_meant).map_err(ApiError::Internal)?;
    Ok(status::success(&families.into()).into_response())
}
