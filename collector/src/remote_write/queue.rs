//! The way from the log to the shards, and back: which position is delivered.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use binnacle_model::storage::{FeedBatch, FeedPosition, FeedValue, MetricFollower};
use binnacle_model::{Interner, Labels};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Sender, channel};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use xxhash_rust::xxh3::Xxh3;

use super::Remote;
use super::shard::{Delivery, Item, SentSeries, Ticket};
use crate::relabel::relabel;

/// For the log to have something new.
const WAIT: Duration = Duration::from_millis(250);

/// Between two saved positions; what lies between them is sent again after a crash.
const SAVE_EVERY: Duration = Duration::from_secs(2);

/// Between two looks whether the shards keep up.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// For a stop to deliver what the log has; the rest is delivered after the next start. The store must still be closed
/// within the half minute that Kubernetes gives.
const FLUSH_DEADLINE: Duration = Duration::from_secs(8);

/// Pieces of the log under way. A shard that is stuck must not let the others run on for ever.
const PIECES_MAX: usize = 10_000;

type Follower = Box<dyn MetricFollower>;

/// Follows the log until `stop` fires, and a little longer.
pub(super) async fn run(delivery: Arc<Delivery>, follower: Follower) {
    let mut deadline = JoinSet::new();
    let (stop, give_up) = (delivery.stop.clone(), delivery.give_up.clone());
    deadline.spawn(async move {
        stop.cancelled().await;
        sleep(FLUSH_DEADLINE).await;
        give_up.cancel();
    });
    let shards = Shards::start(&delivery, delivery.remote.config.queue.min_shards);
    let (known, shared, pieces) = (HashMap::new(), Interner::default(), VecDeque::new());
    let reader = Reader { delivery, known, shared, shards, pieces, delivered: None };
    reader.run(follower).await;
    deadline.abort_all();
}

struct Reader {
    delivery: Arc<Delivery>,
    /// Series by their number; `None` for those that are not sent.
    known: HashMap<u64, Option<Arc<SentSeries>>>,
    /// One copy of each string of their labels.
    shared: Interner,
    shards: Shards,
    /// Not all delivered, or not looked at yet.
    pieces: VecDeque<(FeedPosition, Arc<Ticket>)>,
    /// Not saved yet.
    delivered: Option<FeedPosition>,
}

impl Reader {
    async fn run(mut self, mut follower: Follower) {
        let (mut saved, mut looked) = (Instant::now(), Instant::now());
        loop {
            // Before the read: what was stored before the stop is read by it.
            let is_stopping = self.delivery.stop.is_cancelled();
            let wait = if is_stopping { Duration::ZERO } else { WAIT };
            let (back, read) = blocking(follower, move |follower| follower.next(wait)).await;
            let Some(back) = back else { return };
            follower = back;
            let is_end = match read {
                Ok(batch) => {
                    let is_end = batch.is_end;
                    if !self.dispatch(batch).await {
                        break;
                    }
                    is_end
                }
                Err(error) => {
                    let name = self.delivery.remote.config.name();
                    tracing::error!(remote = name, %error, "the log cannot be read; will try again");
                    tokio::select! {
                        () = sleep(Duration::from_secs(1)) => false,
                        () = self.delivery.stop.cancelled() => true,
                    }
                }
            };
            if is_stopping && is_end {
                break;
            }
            if saved.elapsed() >= SAVE_EVERY {
                let Some(back) = self.save(follower).await else { return };
                follower = back;
                saved = Instant::now();
            }
            if looked.elapsed() >= LOOK_EVERY {
                self.adjust(looked.elapsed()).await;
                looked = Instant::now();
            }
        }
        self.shards.finish().await;
        self.delivery.remote.counters.shards.set(0);
        self.save(follower).await;
    }

    /// Hands a piece of the log to the shards. `false`: all was given up.
    async fn dispatch(&mut self, batch: FeedBatch) -> bool {
        let FeedBatch { forgets, series, samples, position, lost_records, .. } = batch;
        let counters = self.delivery.remote.counters.clone();
        if lost_records > 0 {
            counters.lost_records.inc_by(lost_records);
            tracing::warn!(
                remote = self.delivery.remote.config.name(),
                records = lost_records,
                "records of the log were damaged or gone before they could be sent; receiver will lack their samples"
            );
        }
        if forgets {
            self.known.clear();
            self.shared.sweep();
        }
        for (number, labels) in series {
            let sent = self.delivery.remote.sent_series(&labels, &mut self.shared);
            self.known.insert(number, sent);
        }
        let ticket = Ticket::new();
        let mut last: Vec<Option<Item>> = Vec::new();
        last.resize_with(self.shards.senders.len(), || None);
        for (number, value) in samples {
            let Some(known) = self.known.get(&number) else {
                counters.unknown_series.inc();
                continue;
            };
            let Some(series) = known else {
                counters.dropped_series.inc();
                continue;
            };
            if matches!(value, FeedValue::Histogram(_)) && !self.delivery.remote.config.histograms {
                counters.dropped_histogram.inc();
                continue;
            }
            let shard = (series.hash % last.len() as u64) as usize;
            counters.pending.inc();
            let item = Item { series: Arc::clone(series), value, ticket: None };
            // The last one of each shard goes when it is known to be the last.
            if let Some(before) = last[shard].replace(item)
                && !self.shards.send(shard, before, &self.delivery).await
            {
                return false;
            }
        }
        for (shard, item) in last.into_iter().enumerate() {
            let Some(mut item) = item else { continue };
            ticket.open();
            item.ticket = Some(Arc::clone(&ticket));
            if !self.shards.send(shard, item, &self.delivery).await {
                return false;
            }
        }
        ticket.close();
        match self.pieces.back_mut().filter(|_| ticket.is_closed()) {
            // Nothing of it is sent: it is done as soon as the one before it is.
            Some(before) => before.0 = position,
            None => self.pieces.push_back((position, ticket)),
        }
        self.look();
        while self.pieces.len() > PIECES_MAX {
            tokio::select! {
                () = sleep(WAIT) => {}
                () = self.delivery.give_up.cancelled() => return false,
            }
            self.look();
        }
        true
    }

    /// Looks up to where all is delivered.
    fn look(&mut self) {
        while let Some((position, _)) = self.pieces.front().filter(|(_, ticket)| ticket.is_closed()) {
            self.delivered = Some(*position);
            self.pieces.pop_front();
        }
    }

    async fn save(&mut self, follower: Follower) -> Option<Follower> {
        self.look();
        let Some(position) = self.delivered.take() else { return Some(follower) };
        let (follower, saved) = blocking(follower, move |follower| follower.acknowledge(position)).await;
        if let Err(error) = saved {
            self.delivered = Some(position);
            let name = self.delivery.remote.config.name();
            tracing::warn!(remote = name, %error, "position was not saved; a restart would send more again");
        }
        follower
    }

    /// More shards if they were what the log waited for, and the receiver took what they had.
    async fn adjust(&mut self, span: Duration) {
        let blocked = std::mem::take(&mut self.shards.blocked);
        let has_failed = self.delivery.retries.swap(0, Ordering::Relaxed) > 0;
        let settings = &self.delivery.remote.config.queue;
        let now = self.shards.senders.len();
        if has_failed || blocked * 2 < span || now >= settings.max_shards {
            return;
        }
        let more = (now * 2).min(settings.max_shards);
        tracing::info!(remote = self.delivery.remote.config.name(), from = now, to = more, "shards");
        self.shards.finish().await;
        self.shards = Shards::start(&self.delivery, more);
    }
}

/// Tasks that deliver, and the queues before them.
struct Shards {
    senders: Vec<Sender<Item>>,
    tasks: JoinSet<()>,
    /// How long their queues were full.
    blocked: Duration,
}

impl Shards {
    fn start(delivery: &Arc<Delivery>, count: usize) -> Self {
        let mut tasks = JoinSet::new();
        let mut senders = Vec::new();
        for _ in 0..count {
            let (sender, receiver) = channel(delivery.remote.config.queue.capacity);
            senders.push(sender);
            tasks.spawn(Arc::clone(delivery).run_shard(receiver));
        }
        delivery.remote.counters.shards.set(count as i64);
        Self { senders, tasks, blocked: Duration::ZERO }
    }

    /// Waits for a place in a shard's queue. `false`: all was given up.
    async fn send(&mut self, shard: usize, item: Item, delivery: &Delivery) -> bool {
        match self.senders[shard].try_send(item) {
            Ok(()) => true,
            Err(TrySendError::Closed(_)) => false,
            Err(TrySendError::Full(item)) => {
                let since = Instant::now();
                let sent = tokio::select! {
                    sent = self.senders[shard].send(item) => sent.is_ok(),
                    () = delivery.give_up.cancelled() => false,
                };
                self.blocked += since.elapsed();
                sent
            }
        }
    }

    /// Waits until all that is queued is delivered, or given up.
    async fn finish(&mut self) {
        self.senders.clear();
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a shard ended by a panic");
            }
        }
    }
}

impl Remote {
    /// What a series is sent as, if it is.
    fn sent_series(&self, labels: &Labels, shared: &mut Interner) -> Option<Arc<SentSeries>> {
        let labels = self.sent_labels(labels)?;
        Some(Arc::new(SentSeries { hash: hash_of(&labels), labels: shared.intern_labels(&labels) }))
    }

    /// The labels that a series is sent with; `None` if rules drop it.
    pub(super) fn sent_labels(&self, labels: &Labels) -> Option<Labels> {
        let mut all = labels.clone();
        for label in &self.external_labels {
            if labels.get(&label.name).is_none() {
                all = all.with(&label.name, &label.value);
            }
        }
        relabel(&all, &self.config.rules).filter(|labels| !labels.is_empty())
    }
}

/// Decides which shard has a series.
pub(super) fn hash_of(labels: &Labels) -> u64 {
    let mut hasher = Xxh3::new();
    for text in labels.iter().flat_map(|label| [&label.name, &label.value]) {
        hasher.update(text.as_bytes());
        // Never part of a text.
        hasher.update(&[0xff]);
    }
    hasher.digest()
}

/// Runs what waits for the disk where it may; the follower comes back unless that ended by a panic.
async fn blocking<T: Send + 'static>(
    mut follower: Follower,
    work: impl FnOnce(&mut Follower) -> io::Result<T> + Send + 'static,
) -> (Option<Follower>, io::Result<T>) {
    let task = tokio::task::spawn_blocking(move || {
        let done = work(&mut follower);
        (follower, done)
    });
    match task.await {
        Ok((follower, done)) => (Some(follower), done),
        Err(error) => {
            tracing::error!(%error, "reading the log ended by a panic; nothing more is sent");
            (None, Err(io::Error::other(error)))
        }
    }
}
