//! What API v2 shows of alerts and groups.

use std::collections::BTreeMap;
use std::sync::Arc;

use binnacle_model::{Labels, Timestamp};

use super::SentAlert;
use super::config::AlertmanagerConfig;
use super::dispatch::{Dispatcher, Known};
use super::silences::Silences;

/// An alert as API v2 shows it.
#[derive(Debug, Clone)]
pub struct AlertStatus {
    /// A hash of its labels.
    pub fingerprint: String,
    /// What was said of it.
    pub alert: SentAlert,
    /// When it was last heard of.
    pub updated_at: Timestamp,
    /// Names of whoever is told.
    pub receivers: Vec<String>,
    /// Silences that hold for it.
    pub silenced_by: Vec<String>,
    /// Alerts that keep it silent.
    pub inhibited_by: Vec<String>,
}

/// A group as API v2 shows it.
#[derive(Debug, Clone)]
pub struct AlertGroup {
    /// What it was made by.
    pub labels: Labels,
    /// Who is told.
    pub receiver: String,
    /// By fingerprint.
    pub alerts: Vec<AlertStatus>,
}

/// Which alerts are asked for.
pub struct AlertFilter<'f> {
    /// By labels, and by whether they are silenced or inhibited.
    pub takes: &'f dyn Fn(&AlertStatus) -> bool,
    /// By the receiver's name.
    pub receiver: &'f dyn Fn(&str) -> bool,
}

impl Dispatcher {
    /// Alerts that have not ended, by fingerprint.
    pub fn alerts(&self, filter: &AlertFilter<'_>) -> Vec<AlertStatus> {
        let now = self.clock.now();
        let known = self.lock();
        let mut found = Vec::new();
        for (print, held) in known.pool.iter() {
            let receivers = known.config.receivers_of(&held.alert.labels);
            if held.alert.is_resolved(now) || !receivers.iter().any(|name| (filter.receiver)(name)) {
                continue;
            }
            let status = self.status(&known, print, &held.alert, held.updated_at, receivers, now);
            found.extend((filter.takes)(&status).then_some(status));
        }
        found
    }

    /// Groups with their alerts, by labels and receiver.
    pub fn groups(&self, filter: &AlertFilter<'_>) -> Vec<AlertGroup> {
        let now = self.clock.now();
        let known = self.lock();
        let updated: BTreeMap<&String, Timestamp> =
            known.pool.iter().map(|(print, held)| (print, held.updated_at)).collect();
        let mut found = Vec::new();
        for ((_, labels), group) in &known.groups {
            if !(filter.receiver)(&group.receiver) {
                continue;
            }
            let status = |(print, alert): (&String, &SentAlert)| {
                let receivers = known.config.receivers_of(&alert.labels);
                let updated_at = updated.get(print).copied().unwrap_or(alert.starts_at);
                self.status(&known, print, alert, updated_at, receivers, now)
            };
            let alerts = group.alerts.iter().filter(|(_, alert)| !alert.is_resolved(now)).map(status);
            let alerts: Vec<AlertStatus> = alerts.filter(|status| (filter.takes)(status)).collect();
            if !alerts.is_empty() {
                found.push(AlertGroup { labels: labels.clone(), receiver: group.receiver.clone(), alerts });
            }
        }
        found.sort_by(|a, b| (&a.labels, &a.receiver).cmp(&(&b.labels, &b.receiver)));
        found
    }

    fn status(
        &self,
        known: &Known,
        print: &str,
        alert: &SentAlert,
        updated_at: Timestamp,
        receivers: Vec<String>,
        now: Timestamp,
    ) -> AlertStatus {
        let inhibited_by = known.inhibitor.inhibited_by(&alert.labels, now);
        AlertStatus {
            fingerprint: print.to_owned(),
            alert: alert.clone(),
            updated_at,
            receivers,
            silenced_by: self.silences.mutes(&alert.labels, now),
            inhibited_by: inhibited_by.map(str::to_owned).into_iter().collect(),
        }
    }

    /// By its clock.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Names of the receivers, and the end of alerts that name none.
    pub fn config(&self) -> Arc<AlertmanagerConfig> {
        Arc::clone(&self.lock().config)
    }

    /// The silences that hold for alerts.
    pub fn silences(&self) -> &Silences {
        &self.silences
    }
}
