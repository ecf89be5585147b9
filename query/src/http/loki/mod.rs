//! Loki's read API under `/loki/api/v1`: what Grafana's data source, Logs Drilldown and `logcli` call.
//!
//! ```text
//! query, query_range ─► logql ─► streams (answer) | matrix, vector (as Prometheus writes them)
//! labels, series, index/*, detected_labels ─► the store's streams
//! detected_fields ─► the newest lines         patterns ─► the store's patterns
//! tail ─► the feed, through a pipeline, over a WebSocket
//! ```
//!
//! Errors are plain text, as Loki's. Our label `service` is `service_name` here, and a line's level `detected_level`.

mod answer;
mod detected;
mod error;
mod index;
mod labels;
mod limits;
mod params;
mod query;
mod tail;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use serde_json::{Map, Value, json};

use super::{ReadApi, json as shown};

type Api = State<Arc<ReadApi>>;

/// The routes.
pub(super) fn router() -> Router<Arc<ReadApi>> {
    Router::new()
        .route("/loki/api/v1/query", get(query::query).post(query::query))
        .route("/loki/api/v1/query_range", get(query::query_range).post(query::query_range))
        .route("/loki/api/v1/labels", get(labels::names).post(labels::names))
        .route("/loki/api/v1/label", get(labels::names).post(labels::names))
        .route("/loki/api/v1/label/{name}/values", get(labels::values).post(labels::values))
        .route("/loki/api/v1/series", get(labels::series).post(labels::series))
        .route("/loki/api/v1/index/stats", get(index::stats).post(index::stats))
        .route("/loki/api/v1/index/volume", get(index::volume).post(index::volume))
        .route("/loki/api/v1/index/volume_range", get(index::volume_range).post(index::volume_range))
        .route("/loki/api/v1/patterns", get(index::patterns).post(index::patterns))
        .route("/loki/api/v1/detected_labels", get(detected::labels).post(detected::labels))
        .route("/loki/api/v1/detected_fields", get(detected::fields).post(detected::fields))
        .route("/loki/api/v1/detected_field/{name}/values", get(detected::values).post(detected::values))
        .route("/loki/api/v1/drilldown-limits", get(limits::drilldown))
        .route("/loki/api/v1/format_query", get(query::format).post(query::format))
        .route("/loki/api/v1/status/buildinfo", get(limits::buildinfo))
        .route("/loki/api/v1/tail", tail::route())
        // Log rules are rules of Prometheus's form: they stand there.
        .route("/prometheus/api/v1/rules", get(no_rules))
        .route("/prometheus/api/v1/alerts", get(no_alerts))
}

async fn no_rules() -> Response {
    shown::success(&json!({ "groups": [] }))
}

async fn no_alerts() -> Response {
    shown::success(&json!({ "alerts": [] }))
}

/// A whole answer of which `warnings` are part, if there are any.
fn success(data: Value, warnings: Vec<String>) -> Response {
    let mut body = Map::from_iter([("status".to_owned(), Value::from("success")), ("data".to_owned(), data)]);
    if !warnings.is_empty() {
        body.insert("warnings".to_owned(), Value::from(warnings));
    }
    axum::response::IntoResponse::into_response(axum::Json(Value::Object(body)))
}
