//! Groups of alerts, and when to say something about them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use binnacle_model::time::Clock;
use binnacle_model::{Labels, Timestamp};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::config::{AlertmanagerConfig, GroupBy, Integration, Route, What};
use super::inhibitor::Inhibitor;
use super::payload::{About, fingerprint, payload};
use super::pool::{Held, Pool};
use super::silences::Silences;
use super::{AlertSink, InForce, SentAlert};
use crate::state::{AlertDb, Notified};

/// Longest wait between two looks at the groups.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Between two looks for what can be forgotten.
const SWEEP_EVERY_MS: i64 = 60_000;

/// Groups alerts and fills the outbox.
pub struct Dispatcher {
    config: InForce,
    external_url: String,
    db: Arc<AlertDb>,
    pub(super) silences: Arc<Silences>,
    pub(super) clock: Arc<dyn Clock>,
    known: Mutex<Known>,
    changed: Notify,
}

/// What is known of alerts.
pub(super) struct Known {
    pub(super) config: Arc<AlertmanagerConfig>,
    pub(super) pool: Pool,
    pub(super) groups: BTreeMap<GroupId, Group>,
    pub(super) inhibitor: Inhibitor,
    swept: Timestamp,
}

/// A route's number and the labels of the group.
type GroupId = (usize, Labels);

pub(super) struct Group {
    /// As the payload and the database name it.
    key: String,
    pub(super) receiver: String,
    interval: Duration,
    repeat: Duration,
    /// Names of intervals in which it is silent, and of those in which alone it speaks.
    mute_in: Vec<String>,
    active_in: Vec<String>,
    /// By fingerprint.
    pub(super) alerts: BTreeMap<String, SentAlert>,
    next_flush: Timestamp,
    has_flushed: bool,
}

impl Dispatcher {
    /// A dispatcher; call [`Self::run`] to let it work.
    pub fn new(
        config: InForce,
        external_url: String,
        db: Arc<AlertDb>,
        silences: Arc<Silences>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let holds = config.get();
        let known = Known {
            inhibitor: Inhibitor::new(&holds.inhibit),
            config: holds,
            pool: Pool::default(),
            groups: BTreeMap::new(),
            swept: Timestamp(i64::MIN),
        };
        Self { config, external_url, db, silences, clock, known: Mutex::new(known), changed: Notify::new() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Flushes groups when they are due, until `stop` fires.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let dispatcher = Arc::clone(&self);
            let now = self.clock.now();
            let flushed = tokio::task::spawn_blocking(move || dispatcher.flush_due(now)).await;
            if let Err(error) = flushed {
                tracing::error!(%error, "notifications were not grouped");
            }
            let wait = self.next_due().map_or(LOOK_EVERY, |due| {
                let left = due.0.saturating_sub(self.clock.now().0).max(0);
                Duration::from_millis(left as u64).min(LOOK_EVERY)
            });
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.changed.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    fn next_due(&self) -> Option<Timestamp> {
        self.lock().groups.values().map(|group| group.next_flush).min()
    }

    /// Takes another configuration: alerts that are known go where it says, and are not told again.
    pub fn reload(&self, config: AlertmanagerConfig) {
        let now = self.clock.now();
        let mut known = self.lock();
        let config = Arc::new(config);
        self.config.set(Arc::clone(&config));
        known.inhibitor = Inhibitor::new(&config.inhibit);
        known.config = config;
        let old = std::mem::take(&mut known.groups);
        let old: BTreeMap<(String, String), Group> =
            old.into_values().map(|group| ((group.key.clone(), group.receiver.clone()), group)).collect();
        let alerts: Vec<(String, Held)> =
            known.pool.iter().map(|(print, held)| (print.clone(), held.clone())).collect();
        for (print, held) in alerts {
            known.inhibitor.observe(&print, &held.alert, now);
            self.group(&mut known, &print, &held.alert, now);
        }
        // Groups that are as before keep their times.
        for group in known.groups.values_mut() {
            if let Some(was) = old.get(&(group.key.clone(), group.receiver.clone())) {
                (group.next_flush, group.has_flushed) = (was.next_flush, was.has_flushed);
            }
        }
        drop(known);
        self.changed.notify_one();
    }

    /// Flushes the groups whose time has come. A group that could not be saved is tried again.
    pub fn flush_due(&self, now: Timestamp) {
        let mut known = self.lock();
        let Known { config, pool, groups, inhibitor, swept } = &mut *known;
        for ((_, labels), group) in groups.iter_mut() {
            if group.next_flush > now {
                continue;
            }
            group.next_flush = now.plus(group.interval);
            group.has_flushed = true;
            let flushed = self.flush(config, labels, group, inhibitor, now);
            if let Err(error) = flushed {
                tracing::error!(%error, group = group.key, "notification was not saved; will try again");
                group.next_flush = now.plus(LOOK_EVERY);
            }
        }
        groups.retain(|_, group| !group.alerts.is_empty());
        if now.0 >= swept.0.saturating_add(SWEEP_EVERY_MS) {
            *swept = now;
            pool.sweep(now);
            if let Err(error) = self.silences.sweep() {
                tracing::warn!(%error, "old silences were not removed");
            }
        }
    }

    fn flush(
        &self,
        config: &AlertmanagerConfig,
        labels: &Labels,
        group: &mut Group,
        inhibitor: &Inhibitor,
        now: Timestamp,
    ) -> rusqlite::Result<()> {
        // Whoever is silent now is, for the receiver, not there: it is neither told nor told to have ended.
        let is_heard = |(_, alert): &(&String, &SentAlert)| {
            inhibitor.inhibited_by(&alert.labels, now).is_none()
                && self.silences.mutes(&alert.labels, now).is_empty()
        };
        // What will end has not: it must not end between here and the receiver.
        let as_of_now = |(print, alert): (&String, &SentAlert)| {
            let ends_at = alert.ends_at.filter(|end| *end <= now);
            (print.clone(), SentAlert { ends_at, ..alert.clone() })
        };
        let heard: BTreeMap<String, SentAlert> =
            group.alerts.iter().filter(is_heard).map(as_of_now).collect();
        if !heard.is_empty() && !config.is_muted(&group.mute_in, &group.active_in, now) {
            for integration in config.receivers.get(&group.receiver).into_iter().flatten() {
                self.tell(integration, labels, group, &heard, now)?;
            }
        }
        // Those that ended have been spoken of, or need not be.
        group.alerts.retain(|_, alert| !alert.is_resolved(now));
        Ok(())
    }

    fn tell(
        &self,
        integration: &Integration,
        labels: &Labels,
        group: &Group,
        alerts: &BTreeMap<String, SentAlert>,
        now: Timestamp,
    ) -> rusqlite::Result<()> {
        let What::Webhook { max_alerts, .. } = &integration.what else { return Ok(()) };
        let group_key = group.key.as_str();
        let prints = |ended: bool| -> Vec<String> {
            let alerts = alerts.iter().filter(|(_, alert)| alert.ends_at.is_some() == ended);
            alerts.map(|(print, _)| print.clone()).collect()
        };
        let told = Notified { firing: prints(false), resolved: prints(true), at: now };
        let receiver = address(&group.receiver, integration);
        let before = self.db.notified(&receiver, group_key)?;
        if !needs_telling(before.as_ref(), &told, integration.send_resolved, group.repeat, now) {
            return Ok(());
        }
        let is_spoken_of = |alert: &&SentAlert| integration.send_resolved || alert.ends_at.is_none();
        let alerts: Vec<&SentAlert> = alerts.values().filter(is_spoken_of).collect();
        if alerts.is_empty() {
            // Only ended alerts, of which this receiver does not want to hear: noted, not said.
            return self.db.post(&receiver, None, group_key, &told);
        }
        let about = About {
            receiver: &group.receiver,
            group_labels: labels,
            group_key,
            external_url: &self.external_url,
            max_alerts: *max_alerts,
        };
        let body = serde_json::to_string(&payload(&about, &alerts)).unwrap_or_default();
        self.db.post(&receiver, Some(&body), group_key, &told)
    }

    /// Takes alerts from outside. What names no end ends when it was not heard of for the time of `resolve_timeout`.
    pub fn post(&self, alerts: Vec<SentAlert>) {
        let now = self.clock.now();
        let mut known = self.lock();
        let timeout = now.plus(known.config.resolve_timeout);
        for mut alert in alerts {
            let is_timeout = alert.ends_at.is_none();
            alert.ends_at = Some(alert.ends_at.unwrap_or(timeout));
            self.take(&mut known, alert, is_timeout, now);
        }
        drop(known);
        self.changed.notify_one();
    }

    fn take(&self, known: &mut Known, alert: SentAlert, is_timeout: bool, now: Timestamp) {
        let print = fingerprint(&alert.labels);
        let alert = known.pool.put(&print, alert, is_timeout, now);
        known.inhibitor.observe(&print, &alert, now);
        self.group(known, &print, &alert, now);
    }

    /// Puts an alert into the groups that its routes make.
    fn group(&self, known: &mut Known, print: &str, alert: &SentAlert, now: Timestamp) {
        let config = Arc::clone(&known.config);
        let mut routes = Vec::new();
        config.root.matching(&alert.labels, &mut routes);
        for route in routes {
            let labels = group_labels(route, &alert.labels);
            let key = format!("{}:{}", route.key, quoted_set(&labels));
            let id = (route.number, labels);
            // An ended alert opens no group of its own: there would be nothing to say.
            let is_new = !known.groups.contains_key(&id);
            if is_new && alert.is_resolved(now) && !self.was_told(&config, route, &key, print) {
                continue;
            }
            // An alert that is older than the wait has waited long enough.
            let waited = alert.starts_at.plus(route.group_wait) <= now;
            let group = known.groups.entry(id).or_insert_with(|| Group {
                key,
                receiver: route.receiver.clone(),
                interval: route.group_interval,
                repeat: route.repeat_interval,
                mute_in: route.mute_in.clone(),
                active_in: route.active_in.clone(),
                alerts: BTreeMap::new(),
                next_flush: now.plus(route.group_wait),
                has_flushed: false,
            });
            if waited && !group.has_flushed {
                group.next_flush = group.next_flush.min(now);
            }
            group.alerts.insert(print.to_owned(), alert.clone());
        }
    }

    /// Whether a receiver of the route was told that this alert fires, and not yet that it ended.
    fn was_told(&self, config: &AlertmanagerConfig, route: &Route, group_key: &str, print: &str) -> bool {
        config.receivers.get(&route.receiver).into_iter().flatten().any(|integration| {
            let told = self.db.notified(&address(&route.receiver, integration), group_key);
            told.is_ok_and(|told| told.is_some_and(|told| told.firing.iter().any(|one| one == print)))
        })
    }
}

impl AlertSink for Dispatcher {
    fn receive(&self, alerts: Vec<SentAlert>) {
        let now = self.clock.now();
        let mut known = self.lock();
        for alert in alerts {
            self.take(&mut known, alert, false, now);
        }
        drop(known);
        self.changed.notify_one();
    }
}

/// What the database calls one way of telling a receiver.
fn address(receiver: &str, integration: &Integration) -> String {
    format!("{receiver}/{}/{}", integration.kind, integration.number)
}

fn group_labels(route: &Route, labels: &Labels) -> Labels {
    match &route.group_by {
        GroupBy::All => labels.clone(),
        GroupBy::Labels(names) => labels.filtered(|label| names.iter().any(|name| **name == *label.name)),
    }
}

/// Whether there is anything to say. After `DedupStage.needsUpdate` in Alertmanager's `notify`.
fn needs_telling(
    before: Option<&Notified>,
    now_is: &Notified,
    sends_resolved: bool,
    repeat: Duration,
    now: Timestamp,
) -> bool {
    let Some(before) = before else { return !now_is.firing.is_empty() };
    let is_subset = |part: &[String], whole: &[String]| part.iter().all(|one| whole.contains(one));
    if !is_subset(&now_is.firing, &before.firing) {
        return true;
    }
    if now_is.firing.is_empty() {
        return !before.firing.is_empty();
    }
    if sends_resolved && !is_subset(&now_is.resolved, &before.resolved) {
        return true;
    }
    before.at.plus(repeat) <= now
}

/// A label set as Prometheus's `LabelSet.String` writes it.
fn quoted_set(labels: &Labels) -> String {
    let pairs: Vec<String> = labels
        .iter()
        .map(|label| format!("{}={}", label.name, binnacle_model::labels::quoted(&label.value)))
        .collect();
    format!("{{{}}}", pairs.join(", "))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use binnacle_model::LogTime;

    use super::super::parse_alertmanager;
    use super::*;

    struct TestClock(AtomicI64);

    impl Clock for TestClock {
        fn now_ns(&self) -> LogTime {
            LogTime(self.0.load(Ordering::Relaxed) * 1_000_000_000)
        }
    }

    struct Bed {
        dispatcher: Dispatcher,
        db: Arc<AlertDb>,
        clock: Arc<TestClock>,
    }

    fn bed(db: &Arc<AlertDb>) -> Bed {
        let config = "
route: {receiver: r, group_by: [alertname], group_wait: 10s, group_interval: 60s, repeat_interval: 1h}
receivers: [{name: r, webhook_configs: [{url: 'http://127.0.0.1:1/'}]}]
";
        bed_of(db, config)
    }

    fn bed_of(db: &Arc<AlertDb>, config: &str) -> Bed {
        let config = InForce::new(parse_alertmanager("a.yml", config).unwrap());
        let clock = Arc::new(TestClock(AtomicI64::new(0)));
        let silences = Arc::new(Silences::open(db.clone(), clock.clone()).unwrap());
        let dispatcher = Dispatcher::new(config, "http://b".into(), db.clone(), silences, clock.clone());
        Bed { dispatcher, db: db.clone(), clock }
    }

    impl Bed {
        fn alert(&self, instance: &str, starts: i64, ends: Option<i64>) {
            // What ended is heard of when it has.
            let now = ends.unwrap_or(starts).max(self.clock.0.load(Ordering::Relaxed));
            self.clock.0.store(now, Ordering::Relaxed);
            let labels = Labels::new([("alertname", "A"), ("instance", instance)]).unwrap();
            self.dispatcher.receive(vec![SentAlert {
                labels,
                annotations: Labels::default(),
                starts_at: Timestamp(starts * 1000),
                ends_at: ends.map(|at| Timestamp(at * 1000)),
                generator_url: String::new(),
            }]);
        }

        fn at(&self, seconds: i64) -> usize {
            self.clock.0.store(seconds, Ordering::Relaxed);
            self.dispatcher.flush_due(Timestamp(seconds * 1000));
            self.db.history(100).unwrap().len()
        }

        fn last(&self) -> serde_json::Value {
            serde_json::from_str(&self.db.history(1).unwrap()[0].body).unwrap()
        }
    }

    #[test]
    fn groups_wait_tell_changes_and_repeat() {
        let bed = bed(&Arc::new(AlertDb::in_memory().unwrap()));
        bed.alert("1", 0, None);
        assert_eq!(bed.at(9), 0, "waits for others of the group");
        bed.alert("2", 5, None);
        assert_eq!(bed.at(10), 1);
        assert_eq!(bed.last()["alerts"].as_array().unwrap().len(), 2);
        assert_eq!(bed.last()["groupKey"], "{}:{alertname=\"A\"}");
        assert_eq!(bed.at(70), 1, "nothing new");
        bed.alert("3", 75, None);
        assert_eq!(bed.at(100), 1, "waits for the interval");
        assert_eq!(bed.at(130), 2);
        bed.alert("3", 75, Some(140));
        assert_eq!(bed.at(190), 3);
        let statuses: Vec<_> =
            bed.last()["alerts"].as_array().unwrap().iter().map(|a| a["status"].clone()).collect();
        assert_eq!(statuses, ["firing", "firing", "resolved"]);
        assert_eq!(bed.at(250), 3);
        assert_eq!(bed.at(190 + 3600 + 60), 4, "repeats");
        bed.alert("1", 0, Some(4000));
        bed.alert("2", 5, Some(4000));
        assert_eq!(bed.at(4000), 5);
        assert_eq!(bed.last()["status"], "resolved");
        bed.alert("1", 0, Some(4000));
        assert_eq!(bed.at(5000), 5, "an ended alert is told once");
    }

    #[test]
    fn who_is_silent_is_neither_told_nor_said_to_have_ended() {
        let config = "
route:
  receiver: r
  group_wait: 0s
  group_interval: 10s
  routes:
  - {matchers: [instance=night], receiver: r, mute_time_intervals: [early]}
receivers: [{name: r, webhook_configs: [{url: 'http://127.0.0.1:1/'}]}]
inhibit_rules: [{source_matchers: [instance=cause], target_matchers: ['instance=~\"effect.*\"'], equal: [alertname]}]
time_intervals: [{name: early, time_intervals: [{times: [{start_time: '00:00', end_time: '00:02'}]}]}]
";
        let bed = bed_of(&Arc::new(AlertDb::in_memory().unwrap()), config);
        let told = |bed: &Bed| {
            let alerts = bed.last()["alerts"].as_array().unwrap().clone();
            let one = |alert: &serde_json::Value| {
                alert["labels"]["instance"].as_str().unwrap().to_owned()
                    + if alert["status"] == "firing" { "" } else { "!" }
            };
            alerts.iter().map(one).collect::<Vec<_>>().join(" ")
        };
        bed.alert("effect1", 0, None);
        assert_eq!((bed.at(1), told(&bed).as_str()), (1, "effect1"));
        bed.alert("cause", 5, None);
        bed.alert("effect2", 5, None);
        assert_eq!((bed.at(11), told(&bed).as_str()), (2, "cause"), "effects are silent");
        bed.alert("effect1", 0, Some(15));
        assert_eq!(bed.at(21), 2, "an effect that ends while it is silent says nothing");
        bed.alert("cause", 5, Some(25));
        assert_eq!((bed.at(31), told(&bed).as_str()), (3, "cause! effect2"));
        bed.alert("night", 40, None);
        assert_eq!(bed.at(60), 3, "its route is mute");
        assert_eq!((bed.at(121), told(&bed).as_str()), (4, "night"));
    }

    #[test]
    fn siblings_with_equal_matchers_are_both_told() {
        let config = "
route:
  receiver: a
  group_wait: 0s
  routes: [{receiver: a, continue: true}, {receiver: b}]
receivers:
- {name: a, webhook_configs: [{url: 'http://127.0.0.1:1/'}]}
- {name: b, webhook_configs: [{url: 'http://127.0.0.1:2/'}]}
";
        let bed = bed_of(&Arc::new(AlertDb::in_memory().unwrap()), config);
        bed.alert("1", 0, None);
        assert_eq!(bed.at(1), 2);
        let told: Vec<String> = bed.db.history(9).unwrap().into_iter().map(|one| one.receiver).collect();
        assert_eq!(told, ["b/webhook/0", "a/webhook/0"]);
    }

    #[test]
    fn a_restart_repeats_nothing_and_forgets_nothing() {
        let db = Arc::new(AlertDb::in_memory().unwrap());
        let first = bed(&db);
        first.alert("1", 0, None);
        assert_eq!(first.at(10), 1);
        let second = bed(&db);
        second.clock.0.store(20, Ordering::Relaxed);
        second.alert("1", 0, None);
        assert_eq!(second.at(100), 1, "told before the restart");
        let third = bed(&db);
        third.clock.0.store(200, Ordering::Relaxed);
        third.alert("1", 0, Some(150));
        assert_eq!(third.at(210), 2, "resolved while nobody was there");
        assert_eq!(third.last()["status"], "resolved");
    }
}
