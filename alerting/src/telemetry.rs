//! What alerting says of itself.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Alerting's metrics. Clones share their values.
#[derive(Debug, Clone, Default)]
pub struct Telemetry {
    /// Evaluations of rules.
    pub evaluations: Counter,
    /// Evaluations that failed.
    pub evaluations_failed: Counter,
    /// Alerts that fire.
    pub firing: Gauge,
    /// Notifications that receivers took.
    pub sent: Counter,
    /// Attempts that failed and will be made again.
    pub retried: Counter,
    /// Notifications that no attempt will deliver.
    pub dead: Counter,
}

impl Telemetry {
    /// Metrics that `registry` will show.
    pub fn new(registry: &mut Registry) -> Self {
        let new = Self::default();
        let r = registry.sub_registry_with_prefix("alerting");
        r.register("rule_evaluations", "Evaluations of rules", new.evaluations.clone());
        r.register("rule_evaluations_failed", "Evaluations that failed", new.evaluations_failed.clone());
        r.register("alerts_firing", "Alerts that fire", new.firing.clone());
        r.register("notifications_sent", "Notifications taken by receivers", new.sent.clone());
        r.register("notifications_retried", "Attempts to be made again", new.retried.clone());
        r.register("notifications_dead", "Notifications given up", new.dead.clone());
        new
    }
}
