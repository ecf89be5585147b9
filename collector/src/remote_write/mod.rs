//! Remote write: what the store keeps, sent on to other servers.
//!
//! ```text
//! the store's log ─► MetricFollower ─► external labels, relabelling ─┬─► shard ─► POST, again until it is taken
//!      ▲                                                             └─► shard ─► …
//!      └────────── position, every few seconds, once all before it was delivered ◄──┘
//! ```
//!
//! Invariants:
//! - What the store acknowledged is delivered at least once, and samples of a series in their order, unless the receiver
//!   refuses them for good or the log could not be held for so long; both are counted and said.
//! - Nothing waits in memory but a queue of bounded length for each shard: while a receiver is down, samples wait in the
//!   log.
//! - A series is always the business of one shard. Their number changes only when all of them have nothing left to do.
//! - No secret is in a log, a metric or an error.
//!
//! A collector without a store has no log: [`Direct`] has nothing but the queues, and drops what finds them full.
//!
//! Follows Prometheus's `storage/remote` and the specifications of remote write 1.0 and 2.0.

mod config;
mod direct;
mod encode;
mod metadata;
mod post;
mod queue;
mod shard;
mod telemetry;

use std::io;
use std::sync::Arc;

use binnacle_model::Labels;
use binnacle_model::storage::{MetricFeed, MetricFollower, Queryable};
use binnacle_model::time::Clock;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use config::{RawRemoteWrite, RemoteConfig};
pub use direct::Direct;
pub use post::ClientError;
pub use telemetry::Telemetry;

use config::Message;
use post::Poster;
use shard::Delivery;
use telemetry::Counters;

/// Why a receiver cannot be sent anything.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its certificates or keys.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Its position. Look at the disk, or remove the file to begin anew.
    #[error("remote_write {name:?}: its position in the log cannot be read or saved")]
    Position {
        /// Of the receiver.
        name: String,
        /// What the disk said.
        #[source]
        cause: io::Error,
    },
}

/// All receivers.
pub struct RemoteWrite {
    remotes: Vec<(Remote, Box<dyn MetricFollower>)>,
}

/// One receiver, and all that its tasks share.
struct Remote {
    config: RemoteConfig,
    external_labels: Labels,
    poster: Poster,
    counters: Counters,
    clock: Arc<dyn Clock>,
}

impl RemoteWrite {
    /// Takes up the positions of all receivers. Call it before the store is maintained.
    pub fn open(
        configs: Vec<RemoteConfig>,
        external_labels: &Labels,
        feed: &dyn MetricFeed,
        clock: &Arc<dyn Clock>,
        telemetry: &Telemetry,
    ) -> Result<Self, OpenError> {
        let mut remotes = Vec::new();
        for config in configs {
            let poster = Poster::new(&config)?;
            let follower = feed
                .follow(config.key())
                .map_err(|cause| OpenError::Position { name: config.name.clone(), cause })?;
            let counters = telemetry.of(&config);
            let (external_labels, clock) = (external_labels.clone(), Arc::clone(clock));
            remotes.push((Remote { config, external_labels, poster, counters, clock }, follower));
        }
        Ok(Self { remotes })
    }

    /// Starts the tasks of all receivers. Once `stop` fires, what the log has is sent if the receiver takes it, within a
    /// minute; the positions are saved, and the tasks end.
    pub fn start(self, metrics: &Arc<dyn Queryable>, tasks: &TaskTracker, stop: &CancellationToken) {
        for (remote, follower) in self.remotes {
            let remote = Arc::new(remote);
            if let (Some(sends), Message::V1) = (remote.config.metadata, remote.config.message) {
                let metrics = Arc::clone(metrics);
                let all = Arc::new(move || metadata::of_store(&*metrics));
                tasks.spawn(metadata::run(Arc::clone(&remote), all, sends, stop.clone()));
            }
            let delivery = Delivery::new(remote, stop.clone());
            tasks.spawn(queue::run(delivery, follower));
        }
    }
}
