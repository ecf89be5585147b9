//! What is said of the connection to Kubernetes.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Answers of the API that failed.
#[derive(Debug, Clone, Default)]
pub(crate) struct WatchTelemetry(Family<Vec<(&'static str, String)>, Counter>);

impl WatchTelemetry {
    pub(crate) fn failed(&self, resource: &str) {
        self.0.get_or_create(&vec![("resource", resource.to_owned())]).inc();
    }

    pub(crate) fn register(&self, registry: &mut Registry, name: &str, help: &str) {
        registry.register(name, help, self.0.clone());
    }
}

/// Metrics of what is read from Kubernetes. Clones share their values.
#[derive(Debug, Clone, Default)]
pub struct KubernetesTelemetry {
    pub(crate) watches: WatchTelemetry,
    /// Whether the API has a node of our name.
    pub(crate) node_known: Gauge,
    /// Pods of this node.
    pub(crate) pods: Gauge,
    /// Those of which the store does not know yet what is known here.
    pub(crate) pods_unsent: Gauge,
    /// Owners and their owners that were asked for.
    pub(crate) owners_asked: Counter,
    /// Of these, the ones that did not answer.
    pub(crate) owners_failed: Counter,
    /// Whether this agent has what is on no node.
    pub(crate) leads: Gauge,
    /// Events that were stored.
    pub(crate) events: Counter,
    /// Events that the store refused.
    pub(crate) events_refused: Counter,
}

impl KubernetesTelemetry {
    /// Metrics that `registry` will show.
    pub fn new(registry: &mut Registry) -> Self {
        let new = Self::default();
        let r = registry.sub_registry_with_prefix("kubernetes");
        r.register("watch_failures", "Lists and watches that failed", new.watches.0.clone());
        r.register("node_known", "Whether the API knows the node of this name", new.node_known.clone());
        r.register("pods", "Pods of this node", new.pods.clone());
        r.register("pods_unsent", "Pods of which the store knows less", new.pods_unsent.clone());
        r.register("owner_requests", "Owners of pods asked for", new.owners_asked.clone());
        r.register("owner_failures", "Owners of pods that were not answered", new.owners_failed.clone());
        r.register("leads", "Whether this agent holds the lease of its cluster", new.leads.clone());
        r.register("events", "Events of the cluster stored", new.events.clone());
        r.register(
            "events_refused",
            "Events of the cluster that the store refused",
            new.events_refused.clone(),
        );
        new
    }
}
