//! Rules that make metrics of logs, introduced to the store.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use binnacle_alerting::Telemetry;
use binnacle_alerting::http::log_metrics::{BackfillApi, router};
use binnacle_alerting::log_metrics::LogMetrics;
use binnacle_model::time::Clock;
use binnacle_store::Store;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;

/// Lets the rules count, if there are any. Must come before any intake: what is taken before is not counted.
pub(crate) async fn start(
    config: &Config,
    store: &Arc<Store>,
    clock: &Arc<dyn Clock>,
    telemetry: Telemetry,
    (tasks, stop): (&TaskTracker, &CancellationToken),
) -> anyhow::Result<Option<Arc<LogMetrics>>> {
    if config.log_metrics.is_empty() {
        return Ok(None);
    }
    // Lines that a start reads from the log again were counted when they came.
    let reading = Arc::clone(store);
    if !tokio::task::spawn_blocking(move || reading.flush_logs()).await.context("store")? {
        tracing::warn!("not all lines of the log were read before rules count; some may count twice");
    }
    let interval = config.evaluation_interval.unwrap_or(Duration::from_mins(1));
    let groups = config.log_metrics.clone();
    let metrics = LogMetrics::new(groups, interval, store.clone(), Arc::clone(clock), telemetry);
    metrics.listen(&**store);
    metrics.start(tasks, stop);
    Ok(Some(metrics))
}

/// The route for the past.
pub(crate) fn routes(
    rules: Option<Arc<LogMetrics>>,
    store: &Arc<Store>,
    clock: &Arc<dyn Clock>,
    is_enabled: bool,
) -> Router {
    let (logs, series, clock) = (store.clone(), store.clone(), Arc::clone(clock));
    router(BackfillApi { rules, logs, series, clock, is_enabled })
}
