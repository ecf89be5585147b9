//! Parts that ask a cluster's API.

use std::sync::Arc;

use binnacle_collector::kubernetes::{KubernetesTelemetry, NodeWatch};
use binnacle_collector::tail::edge::PodRules;
use binnacle_model::storage::PodSink;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::hostname;
use crate::config::Config;

/// Starts to watch this node's pods, if the file says so. Answers what their annotations say, for whoever reads their lines.
pub(super) fn watch_node(
    config: &Config,
    sink: Arc<dyn PodSink>,
    registry: &mut Registry,
    (tasks, stop): (&TaskTracker, &CancellationToken),
) -> Option<Arc<PodRules>> {
    let kubernetes = config.kubernetes.clone()?;
    let rules = Arc::<PodRules>::default();
    let node = kubernetes.node.or_else(|| config.node.clone()).or_else(|| std::env::var("NODE_NAME").ok());
    let node = NodeWatch {
        access: kubernetes.access,
        node: node.unwrap_or_else(hostname),
        sink,
        rules: Arc::clone(&rules),
        telemetry: KubernetesTelemetry::new(registry),
    };
    tasks.spawn(node.run(stop.clone()));
    Some(rules)
}
