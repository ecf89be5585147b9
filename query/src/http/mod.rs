//! The read API: Prometheus's under `/api/v1`, Loki's under `/loki/api/v1`, our own for logs under `/api/logs`.
//!
//! ```text
//! request ─► Params (URL and form) ─► gate (so many at once, a deadline) ─► engine ─► JSON
//! ```
//!
//! Answers and errors have Prometheus's shape; every error is mapped in [`error`].

mod admin;
mod cardinality;
mod error;
mod features;
mod federate;
mod gate;
mod json;
mod logs;
mod loki;
mod metrics;
mod params;
mod pieces;
mod queries;
mod readers;
mod remote_read;
mod search;
mod stats;
mod usage;

use std::sync::Arc;

use axum::Router;
use axum::routing::{delete, get, post};
use binnacle_model::Labels;
use binnacle_model::storage::{Admin, LogFeed, LogKeeper, LogSearcher, Queryable};
use binnacle_model::time::Clock;
use tokio_util::sync::CancellationToken;

pub use error::ApiError;
pub use gate::{Active, Asked, Gate, GateLimits, Slow};
pub use json::{entry_json, format_value};
pub use params::{Params, Peer};
pub use readers::is_foreign;
pub use usage::Usage;

use crate::promql::{Features, Limits};

/// What the handlers share.
pub struct ReadApi {
    /// Metrics.
    pub metrics: Arc<dyn Queryable>,
    /// Stored logs.
    pub logs: Arc<dyn LogSearcher>,
    /// Logs as they come.
    pub feed: Arc<dyn LogFeed>,
    /// The present.
    pub clock: Arc<dyn Clock>,
    /// What a query may use.
    pub limits: Limits,
    /// Which experimental parts of PromQL are on.
    pub features: Features,
    /// Who may run.
    pub gate: Gate,
    /// Ends open streams when the server stops.
    pub stop: CancellationToken,
    /// What an operator sees of stored logs; deletions are there only with `admin`.
    pub keeper: Option<Arc<dyn LogKeeper>>,
    /// What may be done to the store, if that was switched on.
    pub admin: Option<Arc<dyn Admin>>,
    /// Which metrics anybody asks for.
    pub usage: Usage,
    /// On everything that leaves for another server.
    pub external_labels: Labels,
    /// Shown by `status/buildinfo`.
    pub version: &'static str,
}

/// The routes of the read API.
pub fn router(api: Arc<ReadApi>) -> Router {
    logs::routes(Router::new())
        .route("/api/v1/query", get(metrics::query).post(metrics::query))
        .route("/api/v1/query_range", get(metrics::query_range).post(metrics::query_range))
        .route("/api/v1/format_query", get(metrics::format_query).post(metrics::format_query))
        .route("/api/v1/parse_query", get(metrics::parse_query).post(metrics::parse_query))
        .route("/api/v1/query_exemplars", get(metrics::exemplars).post(metrics::exemplars))
        .route("/api/v1/labels", get(metrics::labels).post(metrics::labels))
        .route("/api/v1/label/{name}/values", get(metrics::label_values))
        .route("/api/v1/series", get(metrics::series).post(metrics::series))
        .route("/api/v1/metadata", get(metrics::metadata))
        .route("/api/v1/status/buildinfo", get(metrics::buildinfo).post(metrics::buildinfo))
        .route("/version", get(metrics::version))
        .route("/api/v1/status/tsdb", get(cardinality::tsdb))
        .route("/api/v1/status/tsdb/blocks", get(cardinality::blocks))
        .route("/api/v1/search/metric_names", get(search::metric_names).post(search::metric_names))
        .route("/api/v1/search/label_names", get(search::label_names).post(search::label_names))
        .route("/api/v1/search/label_values", get(search::label_values).post(search::label_values))
        .route("/api/v1/admin/tsdb/snapshot", post(admin::snapshot).put(admin::snapshot))
        .route("/api/v1/admin/tsdb/delete_series", post(admin::delete_series).put(admin::delete_series))
        .route(
            "/api/v1/admin/tsdb/clean_tombstones",
            post(admin::clean_tombstones).put(admin::clean_tombstones),
        )
        .route("/api/v1/read", post(remote_read::read))
        .route("/api/v1/features", get(features::features))
        .route("/api/cardinality", get(cardinality::overview))
        .route("/api/queries", get(queries::list))
        .route("/api/queries/slow", get(queries::slow))
        .route("/api/queries/{id}", delete(queries::kill))
        .route("/federate", get(federate::federate))
        .merge(loki::router())
        .with_state(api)
}
