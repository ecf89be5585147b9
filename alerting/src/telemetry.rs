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
    /// Log entries that rules counted; one for each rule.
    pub log_metric_entries: Counter,
    /// Those that were counted beyond a rule's limit of series.
    pub log_metric_overflowed: Counter,
    /// Log entries that a rule is about, without a number that it could measure.
    pub log_metric_unmeasured: Counter,
    /// Writes of series from logs that failed; the next one has what they had.
    pub log_metric_failed_writes: Counter,
    /// Combinations of labels that rules have.
    pub log_metric_series: Gauge,
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
        let entries = new.log_metric_entries.clone();
        r.register("log_metric_entries", "Log entries counted by rules, each rule by itself", entries);
        let overflowed = new.log_metric_overflowed.clone();
        r.register(
            "log_metric_overflowed_entries",
            "Of these, those beyond a rule's limit of series",
            overflowed,
        );
        let unmeasured = new.log_metric_unmeasured.clone();
        r.register("log_metric_unmeasured_entries", "Log entries without a number to measure", unmeasured);
        let failed = new.log_metric_failed_writes.clone();
        r.register("log_metric_failed_writes", "Failed writes of series from logs", failed);
        let series = new.log_metric_series.clone();
        r.register("log_metric_series", "Combinations of labels of series from logs", series);
        r.register("alerts_firing", "Alerts that fire", new.firing.clone());
        r.register("notifications_sent", "Notifications taken by receivers", new.sent.clone());
        r.register("notifications_retried", "Attempts to be made again", new.retried.clone());
        r.register("notifications_dead", "Notifications given up", new.dead.clone());
        new
    }
}
