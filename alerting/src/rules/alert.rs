//! One alert and how it changes from evaluation to evaluation.

use std::time::Duration;

use binnacle_model::{Labels, Timestamp};
use serde::{Deserialize, Serialize};

/// How far an alert is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertState {
    /// The condition holds, but not for long enough.
    Pending,
    /// It fires.
    Firing,
    /// It fired, and the condition has ended.
    Resolved,
}

impl AlertState {
    /// As Prometheus names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Firing => "firing",
            Self::Resolved => "inactive",
        }
    }
}

/// An alert of a rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Alert {
    /// Those of the sample and of the rule, `alertname` among them.
    pub labels: Labels,
    /// Expanded.
    pub annotations: Labels,
    /// How far it is.
    pub state: AlertState,
    /// Of the condition, when it last held.
    pub value: f64,
    /// Since when the condition holds.
    pub active_at: Timestamp,
    /// Since when it fires.
    pub fired_at: Option<Timestamp>,
    /// When it ended.
    pub resolved_at: Option<Timestamp>,
    /// Since when it only fires because of `keep_firing_for`.
    pub keep_firing_since: Option<Timestamp>,
}

/// A resolved alert is remembered this long, so that whoever missed it hears of it.
pub(super) const RESOLVED_KEPT: Duration = Duration::from_mins(15);

impl Alert {
    /// An alert whose condition was just seen for the first time.
    pub(super) fn new(labels: Labels, annotations: Labels, value: f64, at: Timestamp) -> Self {
        Self {
            labels,
            annotations,
            state: AlertState::Pending,
            value,
            active_at: at,
            fired_at: None,
            resolved_at: None,
            keep_firing_since: None,
        }
    }

    /// The condition holds at `at`.
    pub(super) fn seen(&mut self, at: Timestamp, hold: Duration) {
        if self.state == AlertState::Resolved {
            self.state = AlertState::Pending;
            self.active_at = at;
            (self.fired_at, self.resolved_at) = (None, None);
        }
        self.keep_firing_since = None;
        if self.state == AlertState::Pending && at.0 - self.active_at.0 >= hold.as_millis() as i64 {
            self.state = AlertState::Firing;
            self.fired_at = Some(at);
        }
    }

    /// The condition does not hold at `at`. Answers whether to remember the alert.
    pub(super) fn missed(&mut self, at: Timestamp, keep_firing_for: Duration) -> bool {
        match self.state {
            AlertState::Pending => false,
            AlertState::Resolved => {
                let since = self.resolved_at.unwrap_or(at);
                at.0 - since.0 <= RESOLVED_KEPT.as_millis() as i64
            }
            AlertState::Firing => {
                if !keep_firing_for.is_zero() {
                    let since = *self.keep_firing_since.get_or_insert(at);
                    if at.0 - since.0 < keep_firing_for.as_millis() as i64 {
                        return true;
                    }
                }
                self.state = AlertState::Resolved;
                self.resolved_at = Some(at);
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp(seconds * 1000)
    }

    const HOLD: Duration = Duration::from_mins(1);

    #[test]
    fn an_alert_fires_after_for_and_resolves() {
        let mut alert = Alert::new(Labels::default(), Labels::default(), 1.0, at(0));
        alert.seen(at(0), HOLD);
        alert.seen(at(59), HOLD);
        assert_eq!(alert.state, AlertState::Pending);
        alert.seen(at(60), HOLD);
        assert_eq!((alert.state, alert.fired_at), (AlertState::Firing, Some(at(60))));
        assert!(alert.missed(at(90), Duration::ZERO));
        assert_eq!((alert.state, alert.resolved_at), (AlertState::Resolved, Some(at(90))));
        alert.seen(at(120), HOLD);
        assert_eq!((alert.state, alert.active_at), (AlertState::Pending, at(120)));
        assert!(!alert.missed(at(130), Duration::ZERO), "a pending alert is forgotten");
    }

    #[test]
    fn keep_firing_for_bridges_gaps() {
        let mut alert = Alert::new(Labels::default(), Labels::default(), 1.0, at(0));
        alert.seen(at(0), Duration::ZERO);
        assert!(alert.missed(at(10), HOLD));
        assert_eq!(alert.state, AlertState::Firing);
        alert.seen(at(20), Duration::ZERO);
        assert!(alert.missed(at(30), HOLD));
        assert!(alert.missed(at(89), HOLD));
        assert_eq!(alert.state, AlertState::Firing);
        assert!(alert.missed(at(90), HOLD));
        assert_eq!(alert.state, AlertState::Resolved);
        assert!(!alert.missed(at(90 + 16 * 60), HOLD), "and is forgotten in the end");
    }
}
