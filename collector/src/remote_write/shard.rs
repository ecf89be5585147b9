//! A shard: takes samples from its queue, and delivers them in batches, one after the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use binnacle_model::storage::FeedValue;
use binnacle_model::{Labels, Timestamp};
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use super::Remote;
use super::encode::{Row, encode};
use super::post::Sent;

/// Between two lines of log about a receiver that takes nothing.
const TELL_EVERY: Duration = Duration::from_mins(1);

/// Pieces of the log are delivered when all shards say so of their part.
#[derive(Debug)]
pub(super) struct Ticket {
    open: AtomicUsize,
}

impl Ticket {
    /// A ticket that whoever makes it closes first of all.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { open: AtomicUsize::new(1) })
    }

    pub(super) fn open(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn close(&self) {
        self.open.fetch_sub(1, Ordering::Release);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.open.load(Ordering::Acquire) == 0
    }
}

/// A series as it is sent.
#[derive(Debug)]
pub(super) struct SentSeries {
    pub(super) labels: Labels,
    pub(super) hash: u64,
}

/// A sample in a queue.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) series: Arc<SentSeries>,
    pub(super) value: FeedValue,
    /// Of the piece whose last sample of this shard it is.
    pub(super) ticket: Option<Arc<Ticket>>,
}

impl Item {
    fn timestamp(&self) -> Timestamp {
        match &self.value {
            FeedValue::Float(sample) => sample.timestamp,
            FeedValue::Histogram(sample) => sample.timestamp,
            FeedValue::Exemplar(exemplar) => exemplar.timestamp,
        }
    }
}

/// What the shards of a receiver share.
pub(super) struct Delivery {
    pub(super) remote: Arc<Remote>,
    pub(super) stop: CancellationToken,
    /// Fires when a stop has taken too long, or the receiver takes nothing while we stop.
    pub(super) give_up: CancellationToken,
    /// Attempts that failed and will be made again.
    pub(super) retries: AtomicU64,
    last_told: std::sync::Mutex<Option<Instant>>,
}

impl Delivery {
    pub(super) fn new(remote: Arc<Remote>, stop: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            remote,
            stop,
            give_up: CancellationToken::new(),
            retries: AtomicU64::new(0),
            last_told: std::sync::Mutex::default(),
        })
    }

    /// Delivers what comes until the queue ends or all is given up.
    pub(super) async fn run_shard(self: Arc<Self>, mut queue: Receiver<Item>) {
        let mut batch = Vec::new();
        loop {
            let is_open = self.fill(&mut queue, &mut batch).await;
            if !batch.is_empty() {
                if !self.deliver(&batch).await {
                    return;
                }
                self.remote.counters.pending.dec_by(batch.len() as i64);
                for item in batch.drain(..) {
                    item.ticket.iter().for_each(|ticket| ticket.close());
                }
            }
            if !is_open {
                return;
            }
        }
    }

    /// Waits for a full batch, or for the deadline after its first sample. `false`: no more will come.
    async fn fill(&self, queue: &mut Receiver<Item>, batch: &mut Vec<Item>) -> bool {
        let settings = &self.remote.config.queue;
        let max = settings.max_samples_per_send;
        if queue.recv_many(batch, max).await == 0 {
            return false;
        }
        let deadline = Instant::now() + settings.batch_send_deadline;
        while batch.len() < max {
            match timeout_at(deadline, queue.recv_many(batch, max - batch.len())).await {
                Ok(0) => return false,
                Ok(_) => {}
                Err(_) => break,
            }
        }
        true
    }

    /// Sends a batch until it is taken or refused for good. `false`: it was given up.
    async fn deliver(&self, batch: &[Item]) -> bool {
        let settings = &self.remote.config.queue;
        let counters = &self.remote.counters;
        let mut backoff = settings.min_backoff;
        let mut too_old = 0;
        let mut body: Option<Vec<u8>> = None;
        loop {
            let oldest = settings.sample_age_limit.map(|limit| self.remote.clock.now().minus(limit));
            let is_young = |item: &&Item| oldest.is_none_or(|oldest| item.timestamp() >= oldest);
            let young = batch.iter().filter(is_young).count();
            counters.too_old.inc_by((batch.len() - young - too_old) as u64);
            if batch.len() - young != too_old || body.is_none() {
                too_old = batch.len() - young;
                body = self.body(batch.iter().filter(is_young));
            }
            let (Some(body), true) = (&body, young > 0) else { return true };
            let samples = young as u64;
            counters.samples.inc_by(samples);
            counters.bytes.inc_by(body.len() as u64);
            let sent = tokio::select! {
                biased;
                () = self.give_up.cancelled() => return false,
                sent = self.remote.poster.send(self.remote.config.message, body.clone()) => sent,
            };
            match sent {
                Sent::Taken => {
                    let newest = batch.iter().map(Item::timestamp).max();
                    newest.iter().for_each(|newest| counters.note_sent(*newest));
                    return true;
                }
                Sent::Refused(reason) => {
                    counters.failed.inc_by(samples);
                    tracing::error!(
                        remote = self.remote.config.name(), url = %self.remote.config.url, samples, reason,
                        "receiver refused samples for good; they are not sent again"
                    );
                    return true;
                }
                Sent::Retry { reason, after } => {
                    counters.retried.inc_by(samples);
                    self.retries.fetch_add(1, Ordering::Relaxed);
                    self.tell(&reason);
                    if !self.pause(after.unwrap_or(backoff)).await {
                        return false;
                    }
                    backoff = (backoff * 2).min(settings.max_backoff);
                }
            }
        }
    }

    fn body<'b>(&self, items: impl Iterator<Item = &'b Item>) -> Option<Vec<u8>> {
        let row = |item: &'b Item| Row {
            series: Arc::as_ptr(&item.series) as usize,
            labels: &item.series.labels,
            value: &item.value,
        };
        let plain = encode(self.remote.config.message, items.map(row));
        let body = snap::raw::Encoder::new().compress_vec(&plain);
        body.inspect_err(|error| tracing::error!(%error, "a batch cannot be compressed and is not sent")).ok()
    }

    /// Waits before the next attempt. `false`: there will be none, because we stop and the receiver is down. What was not
    /// delivered is still in the log.
    async fn pause(&self, pause: Duration) -> bool {
        tokio::select! {
            biased;
            () = self.give_up.cancelled() => false,
            () = self.stop.cancelled() => {
                self.give_up.cancel();
                false
            }
            () = sleep(pause) => true,
        }
    }

    fn tell(&self, reason: &str) {
        let now = Instant::now();
        let mut last = self.last_told.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if last.is_none_or(|last| now.duration_since(last) >= TELL_EVERY) {
            *last = Some(now);
            tracing::warn!(
                remote = self.remote.config.name(), url = %self.remote.config.url, reason,
                "receiver takes nothing for now; samples wait and are sent again"
            );
        }
    }
}
