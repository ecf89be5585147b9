//! What remote write says of itself, by receiver, with Prometheus's names.

use std::sync::atomic::AtomicU64;

use binnacle_model::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::config::RemoteConfig;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Receiver {
    remote_name: String,
    /// Without a password.
    url: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Dropped {
    remote_name: String,
    url: String,
    reason: &'static str,
}

/// The metrics of all receivers. Clones share their values.
#[derive(Debug, Clone, Default)]
pub struct Telemetry {
    samples: Family<Receiver, Counter>,
    failed: Family<Receiver, Counter>,
    retried: Family<Receiver, Counter>,
    dropped: Family<Dropped, Counter>,
    lost_records: Family<Receiver, Counter>,
    metadata: Family<Receiver, Counter>,
    metadata_failed: Family<Receiver, Counter>,
    bytes: Family<Receiver, Counter>,
    pending: Family<Receiver, Gauge>,
    shards: Family<Receiver, Gauge>,
    highest_sent: Family<Receiver, Gauge<f64, AtomicU64>>,
}

impl Telemetry {
    /// Metrics that `registry` will show.
    pub fn new(registry: &mut Registry) -> Self {
        let new = Self::default();
        let r = registry.sub_registry_with_prefix("prometheus_remote_storage");
        r.register("samples", "Samples sent, histograms among them, delivered or not", new.samples.clone());
        r.register("samples_failed", "Samples that the receiver refused for good", new.failed.clone());
        r.register("samples_retried", "Samples sent again, each time", new.retried.clone());
        r.register("samples_dropped", "Samples that were read and not sent, by reason", new.dropped.clone());
        r.register(
            "records_lost",
            "Records of the log that were gone before they could be sent",
            new.lost_records.clone(),
        );
        r.register("metadata", "Descriptions of metrics sent", new.metadata.clone());
        r.register("metadata_failed", "Descriptions not taken", new.metadata_failed.clone());
        r.register("bytes", "Bytes of samples sent, compressed", new.bytes.clone());
        r.register("samples_pending", "Samples read and not delivered yet", new.pending.clone());
        r.register("shards", "Senders at work", new.shards.clone());
        r.register(
            "queue_highest_sent_timestamp_seconds",
            "The newest sample that was delivered",
            new.highest_sent.clone(),
        );
        new
    }

    pub(super) fn of(&self, config: &RemoteConfig) -> Counters {
        let receiver = Receiver { remote_name: config.name.clone(), url: config.url.to_string() };
        let dropped = |reason| {
            let Receiver { remote_name, url } = receiver.clone();
            self.dropped.get_or_create(&Dropped { remote_name, url, reason }).clone()
        };
        Counters {
            samples: self.samples.get_or_create(&receiver).clone(),
            failed: self.failed.get_or_create(&receiver).clone(),
            retried: self.retried.get_or_create(&receiver).clone(),
            dropped_series: dropped("dropped_series"),
            dropped_histogram: dropped("native_histograms_not_sent"),
            too_old: dropped("too_old"),
            queue_full: dropped("queue_full"),
            shutdown: dropped("shutdown"),
            unknown_series: dropped("unintentionally_dropped_series"),
            lost_records: self.lost_records.get_or_create(&receiver).clone(),
            metadata: self.metadata.get_or_create(&receiver).clone(),
            metadata_failed: self.metadata_failed.get_or_create(&receiver).clone(),
            bytes: self.bytes.get_or_create(&receiver).clone(),
            pending: self.pending.get_or_create(&receiver).clone(),
            shards: self.shards.get_or_create(&receiver).clone(),
            highest_sent: self.highest_sent.get_or_create(&receiver).clone(),
        }
    }
}

/// Those of one receiver.
#[derive(Debug, Clone)]
pub(super) struct Counters {
    pub(super) samples: Counter,
    pub(super) failed: Counter,
    pub(super) retried: Counter,
    /// By relabelling.
    pub(super) dropped_series: Counter,
    /// The receiver is not to have histograms.
    pub(super) dropped_histogram: Counter,
    pub(super) too_old: Counter,
    /// Without a log: nothing takes them up again.
    pub(super) queue_full: Counter,
    pub(super) shutdown: Counter,
    /// Damage took the labels.
    pub(super) unknown_series: Counter,
    pub(super) lost_records: Counter,
    pub(super) metadata: Counter,
    pub(super) metadata_failed: Counter,
    pub(super) bytes: Counter,
    pub(super) pending: Gauge,
    pub(super) shards: Gauge,
    highest_sent: Gauge<f64, AtomicU64>,
}

impl Counters {
    pub(super) fn note_sent(&self, newest: Timestamp) {
        // Two shards may do this at once; the next batch mends it.
        if newest.as_secs_f64() > self.highest_sent.get() {
            self.highest_sent.set(newest.as_secs_f64());
        }
    }
}
