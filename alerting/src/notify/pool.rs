//! All alerts that are known, whoever sent them, as they are now.
//!
//! Two reports of one alert that overlap in time are one: it began with the earlier one. After `Alert.Merge` of
//! Alertmanager.

use std::collections::BTreeMap;

use binnacle_model::Timestamp;

use super::SentAlert;

/// An alert, and when it was last heard of.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Held {
    pub(super) alert: SentAlert,
    pub(super) updated_at: Timestamp,
    /// Its end is only when it will be forgotten, should nobody speak of it again.
    is_timeout: bool,
}

/// Alerts by fingerprint.
#[derive(Debug, Default)]
pub(super) struct Pool {
    held: BTreeMap<String, Held>,
}

/// Ended alerts are kept this long, so that what is said of them again is known to be old.
const ENDED_KEPT_MS: i64 = 30 * 60 * 1000;

fn end(alert: &SentAlert) -> Timestamp {
    alert.ends_at.unwrap_or(Timestamp(i64::MAX))
}

impl Pool {
    /// Takes a report; answers the alert as it is now.
    pub(super) fn put(
        &mut self,
        print: &str,
        alert: SentAlert,
        is_timeout: bool,
        now: Timestamp,
    ) -> SentAlert {
        let mut new = Held { alert, updated_at: now, is_timeout };
        if let Some(old) = self.held.get(print) {
            let (was, is) = (&old.alert, &new.alert);
            let ends_within = end(is) > was.starts_at && end(is) < end(was);
            let starts_within = is.starts_at > was.starts_at && is.starts_at < end(was);
            if ends_within || starts_within {
                new = merge(old, new, now);
            }
        }
        let alert = new.alert.clone();
        self.held.insert(print.to_owned(), new);
        alert
    }

    /// Alerts by fingerprint, ended ones among them.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &Held)> {
        self.held.iter()
    }

    /// Forgets what ended long ago.
    pub(super) fn sweep(&mut self, now: Timestamp) {
        self.held.retain(|_, held| end(&held.alert).0.saturating_add(ENDED_KEPT_MS) > now.0);
    }
}

fn merge(old: &Held, mut new: Held, now: Timestamp) -> Held {
    new.alert.starts_at = new.alert.starts_at.min(old.alert.starts_at);
    let is_later = end(&old.alert) > end(&new.alert);
    if new.alert.is_resolved(now) {
        // Of two ends that have come, the later one is right.
        if old.alert.is_resolved(now) && is_later {
            new.alert.ends_at = old.alert.ends_at;
        }
    } else if is_later && !old.is_timeout {
        new.alert.ends_at = old.alert.ends_at;
    }
    new
}

#[cfg(test)]
mod tests {
    use binnacle_model::Labels;

    use super::*;

    fn alert(starts: i64, ends: Option<i64>) -> SentAlert {
        SentAlert {
            labels: Labels::new([("a", "b")]).unwrap(),
            annotations: Labels::default(),
            starts_at: Timestamp(starts),
            ends_at: ends.map(Timestamp),
            generator_url: String::new(),
        }
    }

    #[test]
    fn reports_that_overlap_are_one_alert() {
        let table = [
            // Before, whether it was a timeout, then, now, and what is known then.
            ((10, Some(100)), false, (20, Some(200)), 50, (10, Some(200))),
            ((10, Some(300)), false, (20, Some(200)), 50, (10, Some(300))),
            ((10, Some(300)), true, (20, Some(200)), 50, (10, Some(200))),
            ((10, None), false, (20, Some(40)), 50, (10, Some(40))),
            ((10, Some(30)), false, (40, Some(200)), 50, (40, Some(200))),
            ((10, Some(30)), false, (20, Some(25)), 50, (10, Some(30))),
        ];
        for ((starts, ends), is_timeout, (then_starts, then_ends), now, want) in table {
            let mut pool = Pool::default();
            pool.put("p", alert(starts, ends), is_timeout, Timestamp(15));
            let found = pool.put("p", alert(then_starts, then_ends), false, Timestamp(now));
            assert_eq!((found.starts_at.0, found.ends_at.map(|end| end.0)), want);
        }
    }
}
