//! Remote write without a store: what is scraped is sent at once, and waits in memory while a receiver takes nothing.
//!
//! There is no log to read again from. A queue of a bounded length is all there is; samples that find it full are
//! dropped and counted, and so is what waits when the process ends.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use binnacle_model::Labels;
use binnacle_model::storage::{
    AppendError, AppendReport, Appender, Exemplar, FeedValue, Metadata, RawExemplar, RawSeries, SeriesDecoder,
};
use binnacle_model::time::Clock;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Sender, channel};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::config::{Message, RemoteConfig};
use super::metadata;
use super::post::Poster;
use super::queue::hash_of;
use super::shard::{Delivery, Item, SentSeries};
use super::telemetry::Telemetry;
use super::{ClientError, Remote};

/// Shards of a receiver, unless its configuration wants more or fewer: their number does not follow the load here.
const SHARDS: usize = 4;

/// Sends samples to all receivers.
pub struct Direct {
    remotes: Vec<Queues>,
    described: Arc<Mutex<BTreeMap<String, Metadata>>>,
}

/// The queues of one receiver.
struct Queues {
    remote: Arc<Remote>,
    shards: Mutex<Vec<Sender<Item>>>,
    /// Series that are sent, as long as somebody has them.
    known: Mutex<HashMap<Labels, Known>>,
}

/// Labels as they are sent; without any, rules have dropped the series.
type Known = Option<Arc<SentSeries>>;

impl Direct {
    /// Starts the senders of all receivers. Once `stop` fires and nobody appends any more, call [`Self::close`]: what waits
    /// is sent if the receiver takes it, and the tasks end.
    ///
    /// # Errors
    /// A receiver's certificates or keys.
    pub fn start(
        configs: Vec<RemoteConfig>,
        external_labels: &Labels,
        clock: &Arc<dyn Clock>,
        telemetry: &Telemetry,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<Self, ClientError> {
        let mut remotes = Vec::new();
        let described = Arc::<Mutex<BTreeMap<String, Metadata>>>::default();
        for config in configs {
            let poster = Poster::new(&config)?;
            let counters = telemetry.of(&config);
            let queue = config.queue.clone();
            let remote = Remote {
                config,
                external_labels: external_labels.clone(),
                poster,
                counters,
                clock: Arc::clone(clock),
            };
            let remote = Arc::new(remote);
            if let (Some(sends), Message::V1) = (remote.config.metadata, remote.config.message) {
                let known = Arc::clone(&described);
                let all = move || {
                    let known = known.lock().unwrap_or_else(PoisonError::into_inner);
                    known.iter().map(|(name, one)| (name.clone(), one.clone())).collect()
                };
                tasks.spawn(metadata::run(Arc::clone(&remote), Arc::new(all), sends, stop.clone()));
            }
            let delivery = Delivery::new(Arc::clone(&remote), stop.clone());
            let count = SHARDS.clamp(queue.min_shards, queue.max_shards);
            // As many samples as Prometheus's shards would have, all of them together.
            let capacity = (queue.capacity * queue.max_shards / count).max(queue.max_samples_per_send);
            remote.counters.shards.set(count as i64);
            let mut shards = Vec::new();
            for _ in 0..count {
                let (tx, rx) = channel(capacity);
                shards.push(tx);
                tasks.spawn(Arc::clone(&delivery).run_shard(rx));
            }
            remotes.push(Queues { remote, shards: Mutex::new(shards), known: Mutex::default() });
        }
        Ok(Self { remotes, described })
    }

    /// Takes no more samples, so that the senders end with what they have.
    pub fn close(&self) {
        for queues in &self.remotes {
            queues.shards.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }

    /// Counts what was never delivered, once the senders have ended.
    pub fn count_lost(&self) {
        for queues in &self.remotes {
            let lost = queues.remote.counters.pending.get();
            if lost > 0 {
                queues.remote.counters.shutdown.inc_by(lost as u64);
                let remote = queues.remote.config.name();
                tracing::error!(
                    remote,
                    samples = lost,
                    "samples were not delivered before the process ended"
                );
            }
        }
    }
}

impl Appender for Direct {
    fn append(
        &self,
        batch: &[RawSeries<'_>],
        decoder: &dyn SeriesDecoder,
    ) -> Result<AppendReport, AppendError> {
        let mut report = AppendReport::default();
        // All of it or nothing: who hears that it failed must not find half of it sent.
        let labels: Result<Vec<Labels>, _> = batch.iter().map(|one| decoder.decode(one.labels)).collect();
        let labels = labels.map_err(|error| AppendError::Invalid(error.to_string()))?;
        for (one, labels) in batch.iter().zip(&labels) {
            report.appended += one.samples.len() + one.histograms.len();
            self.remotes.iter().for_each(|queues| queues.push(labels, one));
        }
        Ok(report)
    }

    fn append_exemplars(&self, exemplars: &[RawExemplar<'_>], decoder: &dyn SeriesDecoder) -> usize {
        let mut kept = 0;
        for one in exemplars {
            // Its samples were taken, or refused, before.
            let Ok(labels) = decoder.decode(one.series) else { continue };
            let wanting = self.remotes.iter().filter(|queues| queues.remote.config.exemplars);
            wanting.for_each(|queues| queues.push_exemplar(&labels, &one.exemplar));
            kept += 1;
        }
        kept
    }

    /// Sent to receivers of 1.0 every so often, the last one of each metric.
    fn append_metadata(&self, metadata: &[(String, Metadata)]) {
        let mut described = self.described.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, one) in metadata {
            if described.len() < DESCRIBED_MAX || described.contains_key(name) {
                described.insert(name.clone(), one.clone());
            }
        }
    }
}

impl Queues {
    fn push(&self, labels: &Labels, one: &RawSeries<'_>) {
        let counters = &self.remote.counters;
        let count = (one.samples.len() + one.histograms.len()) as u64;
        let Some(series) = self.series(labels) else {
            counters.dropped_series.inc_by(count);
            return;
        };
        let floats = one.samples.iter().map(|sample| FeedValue::Float(*sample));
        let mut histograms = one.histograms;
        if !self.remote.config.histograms {
            counters.dropped_histogram.inc_by(histograms.len() as u64);
            histograms = &[];
        }
        let shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        if shards.is_empty() {
            counters.shutdown.inc_by(count);
            return;
        }
        let shard = &shards[(series.hash % shards.len() as u64) as usize];
        for value in floats.chain(histograms.iter().cloned().map(FeedValue::Histogram)) {
            counters.pending.inc();
            let item = Item { series: Arc::clone(&series), value, ticket: None };
            if let Err(TrySendError::Full(_) | TrySendError::Closed(_)) = shard.try_send(item) {
                counters.pending.dec();
                counters.queue_full.inc();
            }
        }
    }

    fn push_exemplar(&self, labels: &Labels, exemplar: &Exemplar) {
        let Some(series) = self.series(labels) else { return };
        let shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(shard) = shards.get((series.hash % shards.len().max(1) as u64) as usize) else { return };
        let counters = &self.remote.counters;
        counters.pending.inc();
        let value = FeedValue::Exemplar(Box::new(exemplar.clone()));
        if shard.try_send(Item { series, value, ticket: None }).is_err() {
            counters.pending.dec();
            counters.queue_full.inc();
        }
    }

    /// The series as it is sent; `None` if rules drop it.
    fn series(&self, labels: &Labels) -> Option<Arc<SentSeries>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(series) = known.get(labels) {
            return series.clone();
        }
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        let sent = self.remote.sent_labels(labels);
        let series = sent.map(|labels| Arc::new(SentSeries { hash: hash_of(&labels), labels }));
        known.insert(labels.clone(), series.clone());
        series
    }
}

/// Metrics of which it is kept what they are.
const DESCRIBED_MAX: usize = 100_000;

/// Series of which it is known how they are sent; with more, all are forgotten, and what goes on is known again soon.
const KNOWN_MAX: usize = 300_000;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use binnacle_model::labels::LabelsError;
    use binnacle_model::{LogTime, Sample, Timestamp};
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::remote_write::RawRemoteWrite;

    struct Names;

    impl SeriesDecoder for Names {
        fn salt(&self) -> u64 {
            0
        }

        fn decode(&self, labels: &[u8]) -> Result<Labels, LabelsError> {
            let name = String::from_utf8(labels.to_vec()).unwrap();
            Ok(Labels::new([("__name__", name.as_str())]).unwrap())
        }
    }

    struct Standing;

    impl Clock for Standing {
        fn now_ns(&self) -> LogTime {
            LogTime(0)
        }
    }

    /// Nobody answers: each sample waits, was counted as dropped by a rule or because the queue was full, or is counted at
    /// the end.
    #[tokio::test]
    async fn nothing_is_lost_without_being_counted() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let yaml = format!(
            "{{url: 'http://{dead}/w', queue_config: {{capacity: 2, max_shards: 2, max_samples_per_send: 2, batch_send_deadline: 1ms}}, write_relabel_configs: [{{source_labels: [__name__], regex: gone, action: drop}}]}}"
        );
        let raw: RawRemoteWrite = serde_saphyr::from_str(&yaml).unwrap();
        let (config, _) = raw.check(Path::new(".")).unwrap();
        let telemetry = Telemetry::new(&mut Registry::default());
        let counters = telemetry.of(&config);
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let clock: Arc<dyn Clock> = Arc::new(Standing);
        let direct =
            Direct::start(vec![config], &Labels::default(), &clock, &telemetry, &tasks, &stop).unwrap();
        let samples = [Sample { timestamp: Timestamp(1), value: 1.0 }];
        for name in [&b"kept"[..], b"gone"].repeat(100) {
            let one = RawSeries { labels: name, samples: &samples, histograms: &[] };
            assert_eq!(direct.append(&[one], &Names).unwrap().appended, 1);
            tokio::task::yield_now().await;
        }
        assert_eq!(counters.dropped_series.get(), 100);
        let (waiting, full) = (counters.pending.get() as u64, counters.queue_full.get());
        assert!(full > 80 && waiting + full == 100, "{waiting} wait, {full} found no room");
        direct.close();
        stop.cancel();
        tasks.close();
        tasks.wait().await;
        direct.count_lost();
        assert_eq!(counters.shutdown.get() + counters.queue_full.get(), 100);
    }
}
