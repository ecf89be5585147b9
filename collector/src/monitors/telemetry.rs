//! What is said of monitors.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::Kind;
use crate::kubernetes::telemetry::WatchTelemetry;

/// Metrics of monitors. Clones share their values.
#[derive(Debug, Clone, Default)]
pub struct MonitorTelemetry {
    monitors: Family<Vec<(&'static str, &'static str)>, Gauge>,
    /// Monitors that were found to be bad, or otherwise bad than before.
    refused: Family<Vec<(&'static str, &'static str)>, Counter>,
    pub(super) watches: WatchTelemetry,
    /// Scrape configs of all of them.
    pub(super) pools: Gauge,
    /// Watches and requests to discover their targets that they share.
    pub(super) discoveries: Gauge,
}

impl MonitorTelemetry {
    /// Metrics that `registry` will show.
    pub fn new(registry: &mut Registry) -> Self {
        let new = Self::default();
        let r = registry.sub_registry_with_prefix("kubernetes");
        r.register("monitors", "ServiceMonitors, PodMonitors and Probes by state", new.monitors.clone());
        r.register("monitor_refusals", "Monitors found to be wrong", new.refused.clone());
        r.register("monitor_scrape_configs", "Scrape configs made of monitors", new.pools.clone());
        r.register("monitor_discoveries", "Discoveries that monitors share", new.discoveries.clone());
        new.watches.register(r, "monitor_watch_failures", "Lists and watches of monitors that failed");
        new
    }

    pub(super) fn refuse(&self, kind: Kind) {
        self.refused.get_or_create(&vec![("kind", kind.name())]).inc();
    }

    pub(super) fn count(&self, kind: Kind, good: usize, bad: usize) {
        for (state, count) in [("ok", good), ("bad", bad)] {
            let gauge = self.monitors.get_or_create(&vec![("kind", kind.name()), ("state", state)]);
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}
