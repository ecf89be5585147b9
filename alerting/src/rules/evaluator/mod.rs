//! Evaluates groups on time and keeps the state of their alerts.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use binnacle_model::labels::METRIC_NAME;
use binnacle_model::storage::{Appender, Deadline, HistogramSample, Queryable, RawSeries};
use binnacle_model::time::Clock;
use binnacle_model::{Labels, STALE_NAN, Sample, Timestamp};
use binnacle_query::promql::{self, Engine, Limits, Output};
use tokio::time::{self, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use xxhash_rust::xxh3::xxh3_64;

use super::alert::{Alert, AlertState};
use super::file::{Rule, RuleGroup, RuleKind};
use crate::notify::{AlertSink, SentAlert};
use crate::series::{RuleLabels, to_bytes};
use crate::state::AlertDb;
use crate::telemetry::Telemetry;
use crate::template::{Context, expand};

/// Whether the last evaluation of a rule succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleHealth {
    /// Not evaluated yet.
    Unknown,
    /// It did.
    Ok,
    /// It did not; alerts stay as they were.
    Err,
}

/// A rule as it stands.
#[derive(Debug, Clone)]
pub struct RuleStatus {
    /// How its last evaluation went.
    pub health: RuleHealth,
    /// Why it failed, or empty.
    pub last_error: String,
    /// When it was last evaluated.
    pub last_evaluation: Option<Timestamp>,
    /// How long that took.
    pub duration: Duration,
    /// Pending, firing, and lately resolved.
    pub alerts: Vec<Alert>,
}

/// A group as it stands.
#[derive(Debug, Clone)]
pub struct GroupStatus {
    /// What it is.
    pub group: Arc<RuleGroup>,
    /// Between evaluations.
    pub interval: Duration,
    /// When it was last evaluated.
    pub last_evaluation: Option<Timestamp>,
    /// How long that took.
    pub duration: Duration,
    /// One for each rule.
    pub rules: Vec<RuleStatus>,
}

/// All groups, and what they need.
pub struct Evaluator {
    groups: Vec<Running>,
    metrics: Arc<dyn Queryable>,
    appender: Arc<dyn Appender>,
    db: Arc<AlertDb>,
    sink: Arc<dyn AlertSink>,
    clock: Arc<dyn Clock>,
    telemetry: Telemetry,
    settings: Settings,
}

/// However short its interval, a group may take this long.
const EVALUATION_MIN: Duration = Duration::from_secs(10);

/// What the configuration says for all groups.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Of groups that name no interval.
    pub interval: Duration,
    /// Added to alerts on their way out.
    pub external_labels: Labels,
    /// Where this server is seen from outside, without a slash at the end.
    pub external_url: String,
    /// For each query.
    pub limits: Limits,
}

struct Running {
    group: Arc<RuleGroup>,
    interval: Duration,
    state: Mutex<GroupState>,
}

#[derive(Default)]
struct GroupState {
    last_evaluation: Option<Timestamp>,
    duration: Duration,
    rules: Vec<RuleState>,
}

struct RuleState {
    health: RuleHealth,
    last_error: String,
    last_evaluation: Option<Timestamp>,
    duration: Duration,
    alerts: BTreeMap<Labels, Alert>,
    /// Series that the last evaluation wrote; those that are missing next time end.
    written: HashSet<Labels>,
}

/// A name of a rule in the database: the same wherever in its group it stands, and in whatever file.
fn rule_key(group: &RuleGroup, at: usize) -> String {
    let identity = |rule: &Rule| xxh3_64(format!("{:?}", (&rule.query, &rule.labels)).as_bytes());
    let rule = &group.rules[at];
    let same = |other: &&Rule| other.name == rule.name && identity(other) == identity(rule);
    let twin = group.rules[..at].iter().filter(same).count();
    format!("{};{};{:016x};{twin}", group.name, rule.name, identity(rule))
}

impl Evaluator {
    /// An evaluator that goes on where the database says the last one stopped.
    ///
    /// # Errors
    /// The database cannot be read: alerts would start anew, so that it is better not to start.
    #[allow(clippy::too_many_arguments, reason = "each collaborator is one of a kind")]
    pub fn new(
        groups: Vec<RuleGroup>,
        settings: Settings,
        metrics: Arc<dyn Queryable>,
        appender: Arc<dyn Appender>,
        db: Arc<AlertDb>,
        sink: Arc<dyn AlertSink>,
        clock: Arc<dyn Clock>,
        telemetry: Telemetry,
    ) -> Result<Self, rusqlite::Error> {
        let mut running = Vec::new();
        for group in groups {
            let interval = group.interval.unwrap_or(settings.interval);
            let mut state = GroupState::default();
            for at in 0..group.rules.len() {
                let (alerts, evaluated) = db.rule(&rule_key(&group, at))?;
                state.rules.push(RuleState {
                    health: RuleHealth::Unknown,
                    last_error: String::new(),
                    last_evaluation: evaluated,
                    duration: Duration::ZERO,
                    alerts: alerts.into_iter().map(|alert| (alert.labels.clone(), alert)).collect(),
                    written: HashSet::new(),
                });
            }
            running.push(Running { group: Arc::new(group), interval, state: Mutex::new(state) });
        }
        let groups = running;
        Ok(Self { groups, metrics, appender, db, sink, clock, telemetry, settings })
    }

    /// Starts a loop per group on `tasks`, until `stop` fires.
    pub fn start(self: &Arc<Self>, tasks: &TaskTracker, stop: &CancellationToken) {
        if let Err(error) = self.resolve_orphans(self.clock.now()) {
            tracing::error!(%error, "alerts of rules that are gone were not resolved");
        }
        for at in 0..self.groups.len() {
            tasks.spawn(Arc::clone(self).run(at, stop.clone()));
        }
    }

    /// Ends the alerts of rules that no file has any more, and forgets them.
    fn resolve_orphans(&self, now: Timestamp) -> Result<(), rusqlite::Error> {
        let mut known = HashSet::new();
        for running in &self.groups {
            known.extend((0..running.group.rules.len()).map(|at| rule_key(&running.group, at)));
        }
        for key in self.db.rules()?.into_iter().filter(|key| !known.contains(key)) {
            let (alerts, _) = self.db.rule(&key)?;
            let firing = alerts.into_iter().filter(|alert| alert.state == AlertState::Firing);
            let ended: Vec<Alert> = firing
                .map(|alert| Alert { resolved_at: Some(now), state: AlertState::Resolved, ..alert })
                .collect();
            self.send("", ended.iter());
            self.db.forget_rule(&key)?;
        }
        Ok(())
    }

    async fn run(self: Arc<Self>, at: usize, stop: CancellationToken) {
        self.append_again(at);
        let interval = self.groups[at].interval.max(Duration::from_millis(100));
        let spread = interval * (at as u32 % 10) / 10;
        let mut ticks = time::interval_at(time::Instant::now() + spread, interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let evaluator = Arc::clone(&self);
            let now = self.clock.now();
            let deadline = Deadline::default();
            let of_task = deadline.clone();
            let mut task = tokio::task::spawn_blocking(move || evaluator.evaluate(at, now, &of_task));
            // A rule that takes longer than it may is ended, and counts as failed.
            let in_time = time::timeout(interval.max(EVALUATION_MIN), &mut task).await;
            let done = if let Ok(done) = in_time {
                done
            } else {
                deadline.expire();
                task.await
            };
            if let Err(error) = done {
                tracing::error!(group = self.groups[at].group.name, %error, "evaluation ended abnormally");
            }
        }
    }

    /// The state was committed before its samples: write those of the last evaluation once more.
    fn append_again(&self, at: usize) {
        let mut samples = Vec::new();
        for rule in &self.lock(at).rules {
            if let Some(evaluated) = rule.last_evaluation {
                samples.extend(alert_samples(&rule.alerts, evaluated));
            }
        }
        self.append(&samples);
    }

    /// Evaluates a group's rules in order, at `now`.
    pub fn evaluate(&self, at: usize, now: Timestamp, deadline: &Deadline) {
        let started = Instant::now();
        let group = Arc::clone(&self.groups[at].group);
        for (number, rule) in group.rules.iter().enumerate() {
            let rule_started = Instant::now();
            self.telemetry.evaluations.inc();
            let evaluated = self.evaluate_rule((at, number), &group, rule, now, deadline);
            if let Err(error) = &evaluated {
                self.telemetry.evaluations_failed.inc();
                tracing::warn!(group = group.name, rule = rule.name, %error, "rule failed; its state stays");
            }
            let mut state = self.lock(at);
            let state = &mut state.rules[number];
            state.health = if evaluated.is_ok() { RuleHealth::Ok } else { RuleHealth::Err };
            state.last_error = evaluated.err().unwrap_or_default();
            state.last_evaluation = Some(now);
            state.duration = rule_started.elapsed();
        }
        {
            let mut state = self.lock(at);
            state.last_evaluation = Some(now);
            state.duration = started.elapsed();
        }
        let firing = self.groups.iter().map(|group| {
            let state = group.state.lock().unwrap_or_else(PoisonError::into_inner);
            let alerts = state.rules.iter().flat_map(|rule| rule.alerts.values());
            alerts.filter(|alert| alert.state == AlertState::Firing).count() as i64
        });
        self.telemetry.firing.set(firing.sum());
    }

    fn evaluate_rule(
        &self,
        (at, number): (usize, usize),
        group: &RuleGroup,
        rule: &Rule,
        now: Timestamp,
        deadline: &Deadline,
    ) -> Result<(), String> {
        let stamp = now.minus(group.query_offset);
        let found = self.query(rule, stamp, deadline)?;
        if group.limit > 0 && found.len() > group.limit {
            return Err(format!("exceeded limit of {} with {} series", group.limit, found.len()));
        }
        match &rule.kind {
            RuleKind::Record => self.record(at, number, rule, &found, stamp),
            RuleKind::Alert { hold, keep_firing_for, annotations } => {
                let alerts = self.next_alerts(
                    at,
                    number,
                    rule,
                    &found,
                    annotations,
                    (*hold, *keep_firing_for),
                    (now, stamp),
                    deadline,
                )?;
                let key = rule_key(group, number);
                self.db
                    .save_rule(&key, now, alerts.values())
                    .map_err(|error| format!("state was not saved: {error}"))?;
                let mut samples = alert_samples(&alerts, stamp);
                let written: HashSet<Labels> = samples.iter().map(|(labels, _)| labels.clone()).collect();
                let before = {
                    let mut state = self.lock(at);
                    let state = &mut state.rules[number];
                    state.alerts.clone_from(&alerts);
                    std::mem::replace(&mut state.written, written.clone())
                };
                samples.extend(ended(&before, &written, stamp));
                self.append(&samples);
                self.send(&rule.query, alerts.values());
                Ok(())
            }
        }
    }

    fn query(&self, rule: &Rule, at: Timestamp, deadline: &Deadline) -> Result<Vec<promql::Instant>, String> {
        let engine = Engine::new(&*self.metrics, self.settings.limits);
        let output = engine.instant(&rule.expr, at, deadline);
        match output.map_err(|error| error.to_string())?.output {
            Output::Vector(_, series) => Ok(series),
            Output::Scalar(_, value) => {
                Ok(vec![promql::Instant { labels: Labels::default(), value, histogram: None }])
            }
            Output::Text(..) | Output::Matrix(_) => Err("rule result is not a vector or scalar".to_owned()),
        }
    }

    /// What `query` in a template answers.
    fn query_of_template(
        &self,
        text: &str,
        at: Timestamp,
        deadline: &Deadline,
    ) -> Result<Vec<(Labels, f64)>, String> {
        let expr = promql::parse(text).map_err(|error| error.to_string())?;
        let engine = Engine::new(&*self.metrics, self.settings.limits);
        let output = engine.instant(&expr, at, deadline).map_err(|error| error.to_string())?.output;
        match output {
            Output::Vector(_, series) => Ok(series.into_iter().map(|one| (one.labels, one.value)).collect()),
            Output::Scalar(_, value) => Ok(vec![(Labels::default(), value)]),
            Output::Text(..) | Output::Matrix(_) => Err("query result is not a vector or scalar".to_owned()),
        }
    }

    fn record(
        &self,
        at: usize,
        number: usize,
        rule: &Rule,
        found: &[promql::Instant],
        now: Timestamp,
    ) -> Result<(), String> {
        let mut samples = Vec::with_capacity(found.len());
        let mut written = HashSet::new();
        for one in found {
            let mut labels = one.labels.with(METRIC_NAME, &rule.name);
            for (name, value) in &rule.labels {
                labels = labels.with(name, value);
            }
            if !written.insert(labels.clone()) {
                return Err(
                    "vector contains metrics with the same labelset after applying rule labels".to_owned()
                );
            }
            samples.push((labels, Recorded::of(one, now)));
        }
        let before = std::mem::replace(&mut self.lock(at).rules[number].written, written.clone());
        samples.extend(ended(&before, &written, now));
        self.append(&samples);
        Ok(())
    }

    /// The alerts as they are after an evaluation that found these series.
    #[allow(clippy::too_many_arguments, reason = "the rule's parts, taken apart by the caller's match")]
    fn next_alerts(
        &self,
        at: usize,
        number: usize,
        rule: &Rule,
        found: &[promql::Instant],
        annotations: &BTreeMap<String, String>,
        (hold, keep_firing_for): (Duration, Duration),
        (now, stamp): (Timestamp, Timestamp),
        deadline: &Deadline,
    ) -> Result<BTreeMap<Labels, Alert>, String> {
        let mut alerts = self.lock(at).rules[number].alerts.clone();
        let mut seen = HashSet::new();
        let query = |text: &str| self.query_of_template(text, stamp, deadline);
        for one in found {
            let of_sample = one.labels.without_name();
            let ctx = Context {
                name: &rule.name,
                // With the name of the metric, where the expression leaves it.
                labels: &one.labels,
                external_labels: &self.settings.external_labels,
                external_url: &self.settings.external_url,
                value: one.value,
                now,
                query: &query,
            };
            let mut labels = of_sample.clone();
            for (name, text) in &rule.labels {
                labels = labels.with(name, &expand(text, ctx));
            }
            labels = labels.with("alertname", &rule.name);
            if !seen.insert(labels.clone()) {
                return Err(
                    "vector contains metrics with the same labelset after applying alert labels".to_owned()
                );
            }
            let pairs = annotations.iter().map(|(name, text)| (name.as_str(), expand(text, ctx)));
            let annotations = Labels::new(pairs).unwrap_or_default();
            let alert = alerts
                .entry(labels.clone())
                .or_insert_with(|| Alert::new(labels, annotations.clone(), one.value, now));
            alert.value = one.value;
            alert.annotations = annotations;
            alert.seen(now, hold);
        }
        alerts.retain(|labels, alert| seen.contains(labels) || alert.missed(now, keep_firing_for));
        Ok(alerts)
    }

    fn send<'a>(&self, query: &str, alerts: impl Iterator<Item = &'a Alert>) {
        let query: String = percent_encoded(query);
        let generator_url = format!("{}/graph?g0.expr={query}&g0.tab=1", self.settings.external_url);
        let mut sent = Vec::new();
        for alert in alerts.filter(|alert| alert.state != AlertState::Pending) {
            let mut labels = alert.labels.clone();
            for label in &self.settings.external_labels {
                if labels.get(&label.name).is_none() {
                    labels = labels.with(&label.name, &label.value);
                }
            }
            sent.push(SentAlert {
                labels,
                annotations: alert.annotations.clone(),
                starts_at: alert.fired_at.unwrap_or(alert.active_at),
                ends_at: alert.resolved_at,
                generator_url: generator_url.clone(),
            });
        }
        if !sent.is_empty() {
            self.sink.receive(sent);
        }
    }

    fn append(&self, samples: &[(Labels, Recorded)]) {
        if samples.is_empty() {
            return;
        }
        let names: Vec<Vec<u8>> = samples.iter().map(|(labels, _)| to_bytes(labels)).collect();
        let pairs = names.iter().zip(samples);
        let batch: Vec<RawSeries<'_>> = pairs
            .map(|(labels, (_, recorded))| match recorded {
                Recorded::Float(sample) => {
                    RawSeries { labels, samples: std::slice::from_ref(sample), histograms: &[] }
                }
                Recorded::Histogram(sample) => {
                    RawSeries { labels, samples: &[], histograms: std::slice::from_ref(sample) }
                }
            })
            .collect();
        if let Err(error) = self.appender.append(&batch, &RuleLabels) {
            tracing::warn!(%error, "samples of rules were not stored");
        }
    }

    fn lock(&self, at: usize) -> MutexGuard<'_, GroupState> {
        self.groups[at].state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All groups as they stand.
    pub fn status(&self) -> Vec<GroupStatus> {
        let show = |running: &Running| {
            let state = running.state.lock().unwrap_or_else(PoisonError::into_inner);
            let rule = |rule: &RuleState| RuleStatus {
                health: rule.health,
                last_error: rule.last_error.clone(),
                last_evaluation: rule.last_evaluation,
                duration: rule.duration,
                alerts: rule.alerts.values().cloned().collect(),
            };
            GroupStatus {
                group: Arc::clone(&running.group),
                interval: running.interval,
                last_evaluation: state.last_evaluation,
                duration: state.duration,
                rules: state.rules.iter().map(rule).collect(),
            }
        };
        self.groups.iter().map(show).collect()
    }
}

/// A sample that a rule writes.
#[derive(Debug, Clone)]
enum Recorded {
    Float(Sample),
    Histogram(HistogramSample),
}

impl Recorded {
    fn of(one: &promql::Instant, timestamp: Timestamp) -> Self {
        match &one.histogram {
            None => Self::Float(Sample { timestamp, value: one.value }),
            Some(histogram) => {
                Self::Histogram(HistogramSample { timestamp, histogram: Arc::clone(histogram) })
            }
        }
    }

    fn float(timestamp: Timestamp, value: f64) -> Self {
        Self::Float(Sample { timestamp, value })
    }
}

/// Staleness markers for the series that were written before and are not now.
fn ended(before: &HashSet<Labels>, now_there: &HashSet<Labels>, at: Timestamp) -> Vec<(Labels, Recorded)> {
    let marker = Recorded::float(at, STALE_NAN);
    before.difference(now_there).map(|labels| (labels.clone(), marker.clone())).collect()
}

/// `ALERTS` and `ALERTS_FOR_STATE` of the alerts that are pending or firing.
fn alert_samples(alerts: &BTreeMap<Labels, Alert>, at: Timestamp) -> Vec<(Labels, Recorded)> {
    let mut samples = Vec::new();
    for alert in alerts.values().filter(|alert| alert.state != AlertState::Resolved) {
        let shown = alert.labels.with("alertstate", alert.state.as_str()).with(METRIC_NAME, "ALERTS");
        samples.push((shown, Recorded::float(at, 1.0)));
        let since = alert.labels.with(METRIC_NAME, "ALERTS_FOR_STATE");
        let value = (alert.active_at.0 / 1000) as f64;
        samples.push((since, Recorded::float(at, value)));
    }
    samples
}

fn percent_encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b' ' => out.push('+'),
            b if b.is_ascii_alphanumeric() || b"-_.~".contains(&b) => out.push(char::from(b)),
            b => out.push_str(&format!("%{b:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests;
