//! The live side: counts entries as they become durable, and writes what was counted now and then.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use binnacle_model::log::LogEntry;
use binnacle_model::log_query::EntryView;
use binnacle_model::storage::{Appender, LogFeed, LogSubscriber, Metadata, RawSeries};
use binnacle_model::time::Clock;
use binnacle_model::{Sample, Timestamp};
use tokio::time::{self, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::file::{LogMetricGroup, LogMetricRule};
use super::table::{Counted, Matched, Reading, Table};
use crate::series::RuleLabels;
use crate::telemetry::Telemetry;

/// Series of one append: a record of the store's log holds them.
const APPEND_SERIES: usize = 20_000;

/// All rules with what they counted since the process began.
pub struct LogMetrics {
    pub(super) groups: Vec<Running>,
    appender: Arc<dyn Appender>,
    clock: Arc<dyn Clock>,
    telemetry: Telemetry,
    /// From here on the live side counts.
    pub(super) started: Timestamp,
}

pub(super) struct Running {
    pub(super) group: LogMetricGroup,
    interval: Duration,
    tables: Vec<RuleTable>,
}

struct RuleTable {
    table: Mutex<Table>,
    /// Whether it was said that the rule has more series than it may.
    has_warned: AtomicBool,
}

/// The part of [`LogMetrics`] that a store knows.
struct Listener(Weak<LogMetrics>);

impl LogSubscriber for Listener {
    fn entries(&self, entries: &[Arc<LogEntry>]) -> bool {
        let Some(metrics) = self.0.upgrade() else { return false };
        entries.iter().for_each(|entry| metrics.count(entry));
        true
    }
}

/// A moment at which no backfill writes: never on a whole second.
pub(super) fn live_stamp(now: Timestamp) -> Timestamp {
    if now.0 % 1000 == 0 { Timestamp(now.0 + 1) } else { now }
}

impl LogMetrics {
    /// Nothing is counted before [`Self::listen`]. `interval` is that of groups which name none.
    pub fn new(
        groups: Vec<LogMetricGroup>,
        interval: Duration,
        appender: Arc<dyn Appender>,
        clock: Arc<dyn Clock>,
        telemetry: Telemetry,
    ) -> Arc<Self> {
        let started = live_stamp(clock.now());
        let run = |group: LogMetricGroup| {
            let tables = group.rules.iter().map(|rule| RuleTable {
                table: Mutex::new(Table::new(rule, started)),
                has_warned: AtomicBool::new(false),
            });
            Running { interval: group.interval.unwrap_or(interval), tables: tables.collect(), group }
        };
        let groups = groups.into_iter().map(run).collect();
        Arc::new(Self { groups, appender, clock, telemetry, started })
    }

    /// Counts what `feed` tells from now on. What it still has to tell of an earlier life of the process must be told before:
    /// it was counted then.
    pub fn listen(self: &Arc<Self>, feed: &dyn LogFeed) {
        feed.subscribe(Box::new(Listener(Arc::downgrade(self))));
    }

    /// Starts a loop for each group on `tasks`, until `stop` fires; each writes once more then.
    pub fn start(self: &Arc<Self>, tasks: &TaskTracker, stop: &CancellationToken) {
        self.describe();
        for at in 0..self.groups.len() {
            tasks.spawn(Arc::clone(self).run(at, stop.clone()));
        }
    }

    fn describe(&self) {
        let rules = self.groups.iter().flat_map(|running| &running.group.rules);
        let metadata: Vec<(String, Metadata)> = rules
            .map(|rule| {
                let kind = rule.measure.kind().to_owned();
                (rule.metric.clone(), Metadata { kind, help: rule.help.clone(), unit: String::new() })
            })
            .collect();
        self.appender.append_metadata(&metadata);
    }

    async fn run(self: Arc<Self>, at: usize, stop: CancellationToken) {
        let mut ticks = time::interval(self.groups[at].interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            let is_over = tokio::select! {
                biased;
                () = stop.cancelled() => true,
                _ = ticks.tick() => false,
            };
            let (metrics, now) = (Arc::clone(&self), self.clock.now());
            let done = tokio::task::spawn_blocking(move || metrics.write(at, now)).await;
            if let Err(error) = done {
                tracing::error!(group = self.groups[at].group.name, %error, "series from logs: writing ended abnormally");
            }
            if is_over {
                return;
            }
        }
    }

    /// Counts an entry in all rules.
    fn count(&self, entry: &LogEntry) {
        let view = EntryView::new(entry);
        for running in &self.groups {
            for (rule, of_rule) in running.group.rules.iter().zip(&running.tables) {
                let Some(matched) = Matched::of(rule, &view) else { continue };
                let counted = of_rule.lock().count(rule, &matched);
                self.tell(rule, of_rule, counted);
            }
        }
    }

    fn tell(&self, rule: &LogMetricRule, of_rule: &RuleTable, counted: Counted) {
        match counted {
            Counted::Unmeasured => {
                self.telemetry.log_metric_unmeasured.inc();
                return;
            }
            Counted::Yes => {}
            Counted::Beyond => {
                self.telemetry.log_metric_overflowed.inc();
                if !of_rule.has_warned.swap(true, Ordering::Relaxed) {
                    let (metric, limit) = (&rule.metric, rule.limit);
                    tracing::warn!(
                        metric,
                        limit,
                        "a rule has more series than its limit; what is beyond counts in one with otel_metric_overflow=\"true\""
                    );
                }
            }
        }
        self.telemetry.log_metric_entries.inc();
    }

    /// Writes the series of a group as they stand at `now`.
    pub fn write(&self, at: usize, now: Timestamp) {
        let now = live_stamp(now);
        let running = &self.groups[at];
        for (rule, of_rule) in running.group.rules.iter().zip(&running.tables) {
            let readings = of_rule.lock().read(rule, now);
            // The table is free meanwhile: a disk may be slow.
            let mut parts = readings.chunks((APPEND_SERIES / rule.measure.width()).max(1));
            if parts.all(|part| self.append(rule, part, now)) {
                of_rule.lock().written(readings.len());
            } else {
                self.telemetry.log_metric_failed_writes.inc();
            }
        }
        let tables = self.groups.iter().flat_map(|running| &running.tables);
        self.telemetry.log_metric_series.set(tables.map(|of_rule| of_rule.lock().len() as i64).sum());
    }

    fn append(&self, rule: &LogMetricRule, readings: &[Reading], now: Timestamp) -> bool {
        let mut samples: Vec<(&[u8], [Sample; 2], bool)> = Vec::new();
        for reading in readings {
            // A clock that was set back: the series was never zero at a later moment than this.
            let zero_at = reading.zero_at.filter(|zero_at| *zero_at < now);
            let zero = Sample { timestamp: zero_at.unwrap_or(now), value: 0.0 };
            for (name, value) in reading.names.iter().zip(&reading.values) {
                let sample = Sample { timestamp: now, value: *value };
                samples.push((name, [zero, sample], zero_at.is_some()));
            }
        }
        let batch: Vec<RawSeries<'_>> = samples
            .iter()
            .map(|(labels, both, with_zero)| {
                let samples = if *with_zero { &both[..] } else { &both[1..] };
                RawSeries { labels, samples, histograms: &[] }
            })
            .collect();
        match self.appender.append(&batch, &RuleLabels) {
            Ok(_) => true,
            Err(error) => {
                let metric = &rule.metric;
                tracing::warn!(metric, %error, "series from logs were not written; the next write has what they had");
                false
            }
        }
    }

    pub(super) fn appender(&self) -> &dyn Appender {
        &*self.appender
    }
}

impl RuleTable {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
