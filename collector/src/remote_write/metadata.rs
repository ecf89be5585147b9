//! What metrics are, sent every so often beside the samples of 1.0. Best effort.

use std::sync::Arc;

use binnacle_model::storage::{Metadata, Queryable};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::Remote;
use super::config::{Message, MetadataSends};
use super::encode::encode_metadata;
use super::post::Sent;

/// Sends all descriptions at every tick until `stop` fires.
pub(super) async fn run<F>(remote: Arc<Remote>, all: Arc<F>, sends: MetadataSends, stop: CancellationToken)
where
    F: Fn() -> Vec<(String, Metadata)> + Send + Sync + 'static,
{
    let mut ticks = interval(sends.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = send_all(&remote, Arc::clone(&all), sends.max_per_send) => {}
        }
    }
}

/// What a store knows of its metrics.
pub(super) fn of_store(metrics: &dyn Queryable) -> Vec<(String, Metadata)> {
    let all = metrics.metadata().into_iter();
    all.flat_map(|(name, ways)| ways.into_iter().map(move |one| (name.clone(), one))).collect()
}

async fn send_all<F>(remote: &Remote, all: Arc<F>, max_per_send: usize)
where
    F: Fn() -> Vec<(String, Metadata)> + Send + Sync + 'static,
{
    let all = tokio::task::spawn_blocking(move || all()).await.unwrap_or_default();
    for piece in all.chunks(max_per_send) {
        let Ok(body) = snap::raw::Encoder::new().compress_vec(&encode_metadata(piece)) else { return };
        match remote.poster.send(Message::V1, body).await {
            Sent::Taken => {
                remote.counters.metadata.inc_by(piece.len() as u64);
            }
            Sent::Refused(reason) | Sent::Retry { reason, .. } => {
                remote.counters.metadata_failed.inc_by(piece.len() as u64);
                // The next tick is the next attempt.
                tracing::debug!(
                    remote = remote.config.name(),
                    reason,
                    "descriptions of metrics were not taken"
                );
                return;
            }
        }
    }
}
