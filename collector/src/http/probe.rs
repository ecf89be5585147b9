//! `GET /probe`, as blackbox exporter has it.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::probe::{Asked, Endpoint, Refusal};

/// The route.
pub fn probe_router(endpoint: Arc<Endpoint>) -> Router {
    Router::new().route("/probe", get(probe)).with_state(endpoint)
}

async fn probe(
    State(endpoint): State<Arc<Endpoint>>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Response {
    let timeout = headers.get("x-prometheus-scrape-timeout-seconds").and_then(|value| value.to_str().ok());
    let (status, reason) = match endpoint.answer(asked, timeout).await {
        Ok(text) => {
            let kind = "text/plain; version=0.0.4; charset=utf-8";
            return ([(header::CONTENT_TYPE, kind)], text).into_response();
        }
        Err(Refusal::Bad(reason)) => (StatusCode::BAD_REQUEST, reason),
        Err(Refusal::Forbidden(reason)) => (StatusCode::FORBIDDEN, reason.to_owned()),
        Err(Refusal::Busy(reason)) => (StatusCode::SERVICE_UNAVAILABLE, reason),
    };
    (status, format!("{reason}\n")).into_response()
}
