//! Alertmanager's API v2: what amtool, Karma, Grafana and other Prometheus servers speak.
//!
//! `alerts` takes and shows alerts and groups, `silences` silences; here are the status, the receivers, and what both
//! share. Follows `api/v2/openapi.yaml` of Alertmanager 0.33.

mod alerts;
mod silences;

use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use binnacle_model::Timestamp;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::notify::{AlertmanagerConfig, Dispatcher};

/// The Alertmanager whose API this is, as its clients ask for it. amtool warns in its answers where this is not its own
/// version; it is that of Debian 12. Clients that choose by it take all from 0.22 for the same.
const VERSION: &str = "0.25.0";

/// Most bytes of one request.
const MAX_BODY: usize = 32 << 20;

/// What the handlers share.
pub struct V2 {
    dispatcher: Arc<Dispatcher>,
    /// The configuration in force, without its secrets.
    config: Mutex<String>,
    started: Timestamp,
}

impl V2 {
    /// Alerts, groups and silences; the configuration as it may be shown; when the server began.
    pub fn new(dispatcher: Arc<Dispatcher>, config: String, started: Timestamp) -> Self {
        Self { dispatcher, config: Mutex::new(config), started }
    }

    /// Takes another configuration, with how it may be shown.
    pub fn reload(&self, routes: AlertmanagerConfig, config: String) {
        self.dispatcher.reload(routes);
        *self.config.lock().unwrap_or_else(PoisonError::into_inner) = config;
    }
}

type Api = State<Arc<V2>>;

/// The routes.
pub fn router(api: Arc<V2>) -> Router {
    Router::new()
        .route("/api/v2/status", get(status))
        .route("/api/v2/receivers", get(receivers))
        .route("/api/v2/alerts", get(alerts::list).post(alerts::take))
        .route("/api/v2/alerts/groups", get(alerts::groups))
        .route("/api/v2/silences", get(silences::list).post(silences::set))
        .route("/api/v2/silence/{id}", get(silences::one).delete(silences::expire))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(api)
}

async fn status(State(api): Api) -> Json<Value> {
    let original = api.config.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Json(json!({
        "cluster": { "status": "disabled", "peers": [] },
        "config": { "original": original },
        "uptime": time(api.started),
        "versionInfo": {
            "branch": "",
            "buildDate": "",
            "buildUser": "",
            "goVersion": "",
            "revision": concat!("binnacle-", env!("CARGO_PKG_VERSION")),
            "version": VERSION,
        },
    }))
}

async fn receivers(State(api): Api) -> Json<Value> {
    let config = api.dispatcher.config();
    Json(config.receiver_names().map(|name| json!({ "name": name })).collect())
}

/// There may be thousands of alerts, a lock and a disk to wait for.
async fn on_thread(api: Arc<V2>, work: impl FnOnce(&V2) -> Response + Send + 'static) -> Response {
    let done = tokio::task::spawn_blocking(move || work(&api)).await;
    done.unwrap_or_else(|error| refused(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

/// As the API's clients expect a reason: a text in JSON.
fn refused(status: StatusCode, reason: impl Into<String>) -> Response {
    (status, Json(Value::String(reason.into()))).into_response()
}

/// With three digits of a second, as Alertmanager writes times.
fn time(at: Timestamp) -> String {
    let at = DateTime::<Utc>::from_timestamp_millis(at.0).unwrap_or_default();
    at.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// RFC 3339; Go's zero time stands for none.
fn read_time(text: Option<&str>) -> Result<Option<Timestamp>, String> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    let at = DateTime::parse_from_rfc3339(text).map_err(|error| format!("time {text:?}: {error}"))?;
    let at = Timestamp(at.timestamp_millis());
    Ok((at.0 > -62_135_596_800_000).then_some(at))
}

/// A body that is JSON, or the answer to one that is not.
#[allow(clippy::result_large_err, reason = "the error is the answer")]
fn body<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, Response> {
    serde_json::from_slice(bytes)
        .map_err(|error| refused(StatusCode::BAD_REQUEST, format!("parsing body: {error}")))
}
