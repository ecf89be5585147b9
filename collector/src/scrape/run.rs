//! The loop of a target.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use binnacle_model::storage::{Appender, Metadata};
use binnacle_model::time::{Clock, millis};
use binnacle_model::{STALE_NAN, Sample, Timestamp};
use tokio::time::{self, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use xxhash_rust::xxh3::xxh3_64;

use super::fetch::{FetchError, Page, fetch};
use super::known::Known;
use super::labels::SeriesLabels;
use super::life::{Life, Next};
use super::page::{Description, Reader, Rows, describe};
use super::target::{Described, Health, Target};
use crate::Telemetry;
use crate::bounds::{Bounds, Held, charged};

/// A moment this near to the schedule is the schedule's: samples at even distances pack better. As in Prometheus.
const TOLERANCE: Duration = Duration::from_millis(2);

type Kept = Weak<[(String, Metadata)]>;

/// Descriptions that targets share, by their hash.
#[derive(Debug, Default)]
pub(super) struct Descriptions(Mutex<HashMap<u64, Kept>>);

impl Descriptions {
    fn share(&self, hash: u64, metadata: Description) -> Described {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = known.get(&hash).and_then(Weak::upgrade);
        if let Some(shared) = shared.filter(|shared| **shared == *metadata) {
            return shared;
        }
        known.retain(|_, one| one.strong_count() > 0);
        let shared = Described::from(metadata);
        known.insert(hash, Arc::downgrade(&shared));
        shared
    }
}

/// What all loops work with.
#[derive(Clone)]
pub(super) struct Tools {
    pub(super) appender: Arc<dyn Appender>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) telemetry: Telemetry,
    pub(super) descriptions: Arc<Descriptions>,
    pub(super) bounds: Arc<Bounds>,
}

/// What is known of a target's series; it survives a reload that leaves the meaning of its page as it is.
pub(super) struct Memory {
    known: Known,
    decoder: SeriesLabels,
    description: u64,
    page_bytes: usize,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} series", self.known.len())
    }
}

impl Memory {
    fn of(target: &Target) -> Self {
        let decoder = SeriesLabels::of(target);
        Self { known: Known::default(), decoder, description: 0, page_bytes: 0 }
    }
}

/// The loop of a target.
pub(super) struct Run {
    target: Arc<Target>,
    tools: Tools,
    /// `None` only while a scrape has it.
    memory: Option<Box<Memory>>,
    /// When the loop scraped first.
    aligned: Option<Timestamp>,
}

/// What a scrape is, apart from its samples.
struct Scrape {
    began: Timestamp,
    duration: Duration,
    page: Result<Page, FetchError>,
}

/// What a scrape came to, for whoever looks at the target.
#[derive(Default)]
struct Outcome {
    /// Why the target is down, or empty.
    error: String,
    /// What was not stored, or empty.
    refusal: String,
}

impl Run {
    pub(super) fn new(target: Arc<Target>, tools: Tools, inherited: Option<Box<Memory>>) -> Self {
        let own = Box::new(Memory::of(&target));
        let inherited = inherited.filter(|inherited| inherited.decoder.has_meaning_of(&own.decoder));
        let memory = match inherited {
            Some(inherited) => Box::new(Memory { decoder: own.decoder, ..*inherited }),
            None => own,
        };
        Self { target, tools, memory: Some(memory), aligned: None }
    }

    /// Scrapes until `stop` fires or `life` ends, and answers what was known then. A scrape already under way is finished
    /// first: the store never sees half of one.
    ///
    /// Series are not marked as ended when it is stopped: whoever stops comes back, and rules would see a gap that is none.
    pub(super) async fn run(mut self, life: Arc<Life>, stop: CancellationToken) -> Option<Box<Memory>> {
        let first = self.first_delay();
        let mut ticks = time::interval_at(time::Instant::now() + first, self.target.interval);
        // A target that was slow for a minute must not get a minute's scrapes at once.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return None,
                () = life.ended_at_once() => return self.memory,
                _ = ticks.tick() => {}
            }
            match life.next() {
                Next::Scrape => self.scrape_once().await,
                Next::Leave => {
                    self.leave().await;
                    return None;
                }
            }
        }
    }

    /// Spread over the interval, so that many targets are not all scraped at once, and at the same moments after a restart.
    fn first_delay(&self) -> Duration {
        let interval = millis(self.target.interval).max(1);
        let (labels, source) = self.target.key();
        let hash = xxh3_64(format!("{labels} {source}").as_bytes());
        let offset = (hash % interval as u64) as i64;
        let now = self.tools.clock.now().0;
        Duration::from_millis((offset - now).rem_euclid(interval) as u64)
    }

    /// The moment that the samples of a scrape have that begins now.
    fn moment(&mut self) -> Timestamp {
        let now = self.tools.clock.now();
        let interval = millis(self.target.interval).max(1);
        let aligned = *self.aligned.get_or_insert(now);
        let late = (now.0 - aligned.0).rem_euclid(interval);
        let tolerance = millis(TOLERANCE).min(interval / 100);
        if late <= tolerance { Timestamp(now.0 - late) } else { now }
    }

    /// The room that the next page needs, or why it is not asked for.
    async fn room(&self, memory: &Memory) -> Result<Held, FetchError> {
        if let Some(reason) = self.target.pool.forced() {
            return Err(reason.into());
        }
        let bounds = &self.tools.bounds;
        if memory.known.len() == 0
            && let Some(reason) = bounds.refusal()
        {
            return Err(reason.into());
        }
        let held = time::timeout(self.target.timeout, bounds.pages.hold(memory.page_bytes)).await;
        held.map_err(|_| {
            "no room for its page: collector.memory is too small for what is scraped".to_owned().into()
        })
    }

    pub(super) async fn scrape_once(&mut self) {
        let Some(memory) = self.memory.take() else { return };
        let room = self.room(&memory).await;
        let began = self.moment();
        let started = Instant::now();
        let page = match room {
            Err(error) => Err(error),
            Ok(held) => fetch(&self.target, memory.page_bytes, &self.tools, held).await,
        };
        let scrape = Scrape { began, duration: started.elapsed(), page };
        let duration = scrape.duration;
        let (target, tools) = (Arc::clone(&self.target), self.tools.clone());
        let taken = tokio::task::spawn_blocking(move || {
            let mut memory = memory;
            let take = || memory.take(&target, &tools, &scrape);
            let outcome = charged(tools.bounds.cpu.as_deref(), take);
            (memory, outcome)
        });
        let outcome = match taken.await {
            Ok((memory, outcome)) => {
                self.memory = Some(memory);
                outcome
            }
            Err(error) => {
                self.memory = Some(Box::new(Memory::of(&self.target)));
                Outcome { error: error.to_string(), refusal: String::new() }
            }
        };
        let is_up = outcome.error.is_empty();
        let mut status = self.target.lock();
        status.health = if is_up { Health::Up } else { Health::Down };
        status.last_error = if is_up { outcome.refusal } else { outcome.error };
        status.last_scrape = Some(began);
        status.last_duration = duration;
    }

    /// The target is gone: all its series end.
    pub(super) async fn leave(&mut self) {
        let began = self.moment();
        let Some(mut memory) = self.memory.take() else { return };
        let (target, tools) = (Arc::clone(&self.target), self.tools.clone());
        let left = tokio::task::spawn_blocking(move || memory.leave(&target, &tools, began));
        if let Err(error) = left.await {
            tracing::warn!(target = %self.target.source, %error, "the series of a target that is gone were not ended");
        }
    }
}

/// The series of the scrape itself, each behind the tag of such.
const UP: &[u8] = b"\0up";
const DURATION: &[u8] = b"\0scrape_duration_seconds";
const SAMPLES: &[u8] = b"\0scrape_samples_scraped";
const LEFT: &[u8] = b"\0scrape_samples_post_metric_relabeling";
const ADDED: &[u8] = b"\0scrape_series_added";
const TIMEOUT: &[u8] = b"\0scrape_timeout_seconds";
const LIMIT: &[u8] = b"\0scrape_sample_limit";
const BODY: &[u8] = b"\0scrape_body_size_bytes";

impl Memory {
    /// Reads and stores a scrape: its page, or the ends of all series where there is none.
    fn take(&mut self, target: &Target, tools: &Tools, scrape: &Scrape) -> Outcome {
        let began = scrape.began;
        let mut reader = Reader::new(&target.pool, &self.decoder, &mut self.known, began);
        let (read, body_bytes) = match &scrape.page {
            Ok(page) if page.bytes.is_empty() => (Ok(()), 0.0),
            Ok(page) => {
                self.page_bytes = page.bytes.len();
                let read = page.media.clone().and_then(|media| reader.read(&page.bytes, media));
                (read, page.bytes.len() as f64)
            }
            Err(error) => (Err(error.reason.clone()), if error.is_too_long { -1.0 } else { 0.0 }),
        };
        let mut rows = std::mem::take(&mut reader.rows);
        tools.telemetry.scrapes.inc();
        tools.telemetry.scrape_doubles.inc_by(rows.doubles as u64);
        let error = read.err().unwrap_or_default();
        let (count, left, added) = (rows.count, rows.left, rows.added);
        let mut is_page = false;
        if error.is_empty() {
            rows.track(&mut self.known);
            is_page = count > 0;
            if let Ok(page) = &scrape.page {
                is_page = !page.bytes.is_empty();
                self.describe(page, rows.description, target, tools);
            }
        } else {
            // A page is taken as a whole or not at all.
            rows = Rows::default();
            note_failure(target, tools, began, &error);
        }
        rows.end(&self.known.ended(), began);
        let mut own = vec![
            (UP, f64::from(u8::from(error.is_empty()))),
            (DURATION, scrape.duration.as_secs_f64()),
            (SAMPLES, count as f64),
            (LEFT, left as f64),
            (ADDED, added as f64),
        ];
        if target.pool.extra_metrics {
            own.extend([
                (TIMEOUT, target.timeout.as_secs_f64()),
                (LIMIT, target.pool.limits.samples as f64),
                (BODY, body_bytes),
            ]);
        }
        let refusal = self.append(&rows, &own, target, tools, began);
        self.known.finish(is_page);
        Outcome { error, refusal }
    }

    /// Tells what the page says of its metrics, if that is not what the last one said.
    fn describe(&mut self, page: &Page, hash: u64, target: &Target, tools: &Tools) {
        let Ok(media) = page.media else { return };
        if hash == self.description {
            return;
        }
        self.description = hash;
        let described = tools.descriptions.share(hash, describe(&page.bytes, media));
        tools.appender.append_metadata(&described);
        target.describe(&described);
    }

    /// Ends all series, those of the scrape itself among them.
    fn leave(&mut self, target: &Target, tools: &Tools, at: Timestamp) {
        let mut rows = Rows::default();
        rows.end(&self.known.tracked(), at);
        let mut own: Vec<&'static [u8]> = vec![UP, DURATION, SAMPLES, LEFT, ADDED];
        if target.pool.extra_metrics {
            own.extend([TIMEOUT, LIMIT, BODY]);
        }
        let own: Vec<(&'static [u8], f64)> = own.into_iter().map(|name| (name, STALE_NAN)).collect();
        if target.status().last_scrape.is_some() {
            self.append(&rows, &own, target, tools, at);
        }
    }

    /// Appends a scrape; answers what went wrong, or nothing.
    fn append(
        &self,
        rows: &Rows,
        own: &[(&'static [u8], f64)],
        target: &Target,
        tools: &Tools,
        at: Timestamp,
    ) -> String {
        let own: Vec<(&'static [u8], Sample)> =
            own.iter().map(|(name, value)| (*name, Sample { timestamp: at, value: *value })).collect();
        let stored = tools.appender.append(&rows.batch(&self.known, &own), &self.decoder);
        let exemplars = rows.exemplars(&self.known);
        match stored {
            Ok(report) => {
                if !exemplars.is_empty() {
                    tools.appender.append_exemplars(&exemplars, &self.decoder);
                }
                // The rest was stored, and whoever looks at the target is told.
                let has_refused = report.limited + report.invalid > 0;
                if has_refused { report.refusal().unwrap_or_default() } else { String::new() }
            }
            Err(error) => {
                tracing::warn!(target = %target.source, %error, "scrape was not stored");
                format!("scrape was not stored: {error}")
            }
        }
    }
}

fn note_failure(target: &Target, tools: &Tools, at: Timestamp, reason: &str) {
    tools.telemetry.scrapes_failed.inc();
    if let Some(log) = &target.pool.failures {
        log.write(at, &target.pool.job, &target.source.to_string(), reason);
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
