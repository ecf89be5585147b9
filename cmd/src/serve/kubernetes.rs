//! Parts that ask a cluster's API.

use std::sync::Arc;

use binnacle_collector::Telemetry;
use binnacle_collector::kubernetes::{Election, EventWatch, NodeWatch, Share, Timing};
use binnacle_collector::monitors::{MonitorHandle, MonitorTelemetry, Monitors};
use binnacle_collector::scrape::Scraper;
use binnacle_collector::tail::LogSink;
use binnacle_collector::tail::edge::PodRules;
use binnacle_model::storage::PodSink;
use binnacle_model::time::Clock;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::hostname;
use crate::config::{Config, ShareMode};

/// What the parts that ask need to run.
#[derive(Clone, Copy)]
pub(super) struct Cluster<'a> {
    pub(super) config: &'a Config,
    pub(super) telemetry: &'a Telemetry,
    pub(super) tasks: &'a TaskTracker,
    pub(super) stop: &'a CancellationToken,
}

impl Cluster<'_> {
    /// Starts to watch this node's pods, if the file says so. Answers what their annotations say, for whoever reads their lines.
    pub(super) fn watch_node(&self, sink: Arc<dyn PodSink>) -> Option<Arc<PodRules>> {
        let kubernetes = self.config.kubernetes.as_ref()?;
        let rules = Arc::<PodRules>::default();
        let node = NodeWatch {
            access: kubernetes.access.clone(),
            node: self.config.node_name(),
            sink,
            rules: Arc::clone(&rules),
            telemetry: self.telemetry.kubernetes.clone(),
        };
        self.tasks.spawn(node.run(self.stop.clone()));
        Some(rules)
    }

    /// Which targets are scraped here; takes part in an election, if that decides.
    pub(super) fn share(&self, default: ShareMode, clock: &Arc<dyn Clock>) -> Share {
        let Some(kubernetes) = &self.config.kubernetes else { return Share::All };
        let node = self.config.node_name();
        match kubernetes.share.unwrap_or(default) {
            ShareMode::All => Share::All,
            ShareMode::Node => Share::part(Some(&node), watch::channel(false).1),
            ShareMode::Cluster => Share::part(None, watch::channel(true).1),
            ShareMode::Elect => {
                let (leads, leading) = watch::channel(false);
                let (namespace, name) = kubernetes.lease.clone();
                let election = Election {
                    access: kubernetes.access.clone(),
                    namespace,
                    name,
                    // A container that starts again is the same one, and need not wait.
                    holder: format!("{node}/{}", hostname()),
                    clock: Arc::clone(clock),
                    timing: Timing::default(),
                    telemetry: self.telemetry.kubernetes.clone(),
                };
                self.tasks.spawn(election.run(leads, self.stop.clone()));
                Share::part(Some(&node), leading)
            }
        }
    }

    /// Starts to read the events of the cluster, if the file does not say otherwise.
    pub(super) fn read_events(&self, share: Share, sink: Arc<dyn LogSink>) {
        let Some(kubernetes) = &self.config.kubernetes else { return };
        let Some(redactor) = kubernetes.events.clone() else { return };
        let (access, telemetry) = (kubernetes.access.clone(), self.telemetry.clone());
        let events = EventWatch { access, share, sink, redactor, telemetry };
        self.tasks.spawn(events.run(self.stop.clone()));
    }
}

/// What reads ServiceMonitors, PodMonitors and Probes, if the file says so, and by what it hears of a file read again.
pub(super) fn monitors(
    config: &Config,
    registry: &mut Registry,
) -> (Option<Monitors>, Option<MonitorHandle>) {
    let mut new = || {
        let kubernetes = config.kubernetes.clone()?;
        let options = kubernetes.monitors?;
        let telemetry = MonitorTelemetry::new(registry);
        Some(Monitors::new(options, kubernetes.access, config.defaults.clone(), telemetry))
    };
    new().unzip()
}

/// Has what they say scraped, beside what the file says.
pub(super) fn follow_monitors(
    monitors: Option<Monitors>,
    scraper: &Arc<Scraper>,
    (tasks, stop): (&TaskTracker, &CancellationToken),
) {
    if let Some(monitors) = monitors {
        tasks.spawn(monitors.run(Arc::clone(scraper), tasks.clone(), stop.clone()));
    }
}
