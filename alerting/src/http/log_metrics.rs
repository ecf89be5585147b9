//! `POST /api/log-metrics/backfill`: series of the past, from stored logs. There only where `--enable-admin-api` was given.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use binnacle_model::Timestamp;
use binnacle_model::storage::{Deadline, LogSearcher, Queryable};
use binnacle_model::time::{Clock, parse_duration};
use binnacle_query::http::{ApiError, Params};
use binnacle_query::logs::lucene::moment;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::log_metrics::{Backfilled, LogMetrics, Span};

/// What the handler needs.
pub struct BackfillApi {
    /// The rules; `None` where no file names any.
    pub rules: Option<Arc<LogMetrics>>,
    /// What is counted.
    pub logs: Arc<dyn LogSearcher>,
    /// What is there already.
    pub series: Arc<dyn Queryable>,
    /// What "now" is.
    pub clock: Arc<dyn Clock>,
    /// Whether requests may change what is stored.
    pub is_enabled: bool,
}

struct Shared {
    api: BackfillApi,
    /// One at a time: each reads all lines of a time.
    turn: Mutex<()>,
}

/// The route.
pub fn router(api: BackfillApi) -> Router {
    Router::new()
        .route("/api/log-metrics/backfill", post(backfill))
        .with_state(Arc::new(Shared { api, turn: Mutex::new(()) }))
}

/// Ends the work when the client has left.
struct EndsOnDrop(Deadline);

impl Drop for EndsOnDrop {
    fn drop(&mut self) {
        self.0.expire();
    }
}

async fn backfill(State(shared): State<Arc<Shared>>, params: Params) -> Result<Json<Value>, ApiError> {
    if !shared.api.is_enabled {
        return Err(ApiError::Unavailable("admin APIs disabled; start with --enable-admin-api".to_owned()));
    }
    let Some(rules) = shared.api.rules.clone() else {
        return Err(ApiError::BadData("no rules; name their files in log_metric_files".to_owned()));
    };
    let span = span(&params, shared.api.clock.as_ref())?;
    let metric = params.get("metric").map(str::to_owned);
    let Ok(_turn) = shared.turn.try_lock() else {
        return Err(ApiError::BadData("another backfill is running; wait for its end".to_owned()));
    };
    let deadline = Deadline::default();
    let _ends = EndsOnDrop(deadline.clone());
    let work = {
        let shared = Arc::clone(&shared);
        move || rules.backfill(metric.as_deref(), span, &*shared.api.logs, &*shared.api.series, &deadline)
    };
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.map_err(|error| ApiError::Internal(error.to_string()))?.map_err(ApiError::BadData)?;
    let data: Vec<Value> = done.iter().map(show).collect();
    Ok(Json(json!({ "status": "success", "data": data })))
}

fn span(params: &Params, clock: &dyn Clock) -> Result<Span, ApiError> {
    let now = clock.now_ns();
    let time = |name: &str, default: Option<&str>| -> Result<Timestamp, ApiError> {
        let text = params.get(name).or(default);
        let text = text.ok_or_else(|| ApiError::parameter(name, "it is missing"))?;
        let at = moment(text, now, false);
        let at = at.ok_or_else(|| ApiError::parameter(name, "write now-7d, RFC 3339 or Unix seconds"))?;
        Ok(at.to_timestamp())
    };
    let step = parse_duration(params.get("step").unwrap_or("1m"));
    let step = step.map_err(|reason| ApiError::parameter("step", reason))?;
    Span::new(time("start", None)?, time("end", Some("now"))?, step).map_err(ApiError::BadData)
}

fn show(done: &Backfilled) -> Value {
    json!({
        "metric": done.metric,
        "end": done.end.to_rfc3339(),
        "entries": done.entries,
        "series": done.series,
        "written": done.written,
        "known": done.known,
        "refused": done.refused,
    })
}
