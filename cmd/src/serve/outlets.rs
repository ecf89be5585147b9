//! Where `collect` sends: to our own store, or to those of others.

use std::sync::Arc;

use anyhow::{Context, bail};
use binnacle_collector::Telemetry;
use binnacle_collector::foreign::{LogTarget, Logs, Nowhere};
use binnacle_collector::forward::{RemoteStore, StoreTarget};
use binnacle_collector::remote_write::{Direct, RemoteConfig, Telemetry as RemoteTelemetry};
use binnacle_collector::tail::LogSink;
use binnacle_model::storage::{Appender, PodSink};
use binnacle_model::time::Clock;
use prometheus_client::registry::Registry;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::CollectArgs;
use crate::config::Config;

const WHERE: &str = "say --store URL, or store.url in the file; or for others";

/// What takes samples and lines.
pub(super) struct Outlets {
    pub(super) appender: Arc<dyn Appender>,
    pub(super) sink: Arc<dyn LogSink>,
    /// What is known of pods: those of others have no door for it.
    pub(super) pods: Arc<dyn PodSink>,
    /// Whether anybody takes samples.
    pub(super) takes_samples: bool,
    /// For whoever started us.
    pub(super) shown: String,
    direct: Option<Arc<Direct>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Outlets {
    pub(super) fn open(
        args: &CollectArgs,
        config: &mut Config,
        clock: &Arc<dyn Clock>,
        registry: &mut Registry,
        telemetry: &Telemetry,
    ) -> anyhow::Result<Self> {
        let named = args.store.as_deref().map(|url| StoreTarget::at(url, &config.store_way));
        let store = named.transpose().map_err(anyhow::Error::msg)?.or_else(|| config.store.clone());
        let own = store.as_ref().map(|store| RemoteStore::new(store, Handle::current()).map(Arc::new));
        let own = own.transpose().map_err(anyhow::Error::msg).context("store")?;
        let logs = log_target(args)?.or_else(|| config.send.logs.take());
        let mut remotes = std::mem::take(&mut config.send.metrics);
        let has_files = args.file.is_some() || !config.tails.is_empty();
        let mut shown: Vec<String> = store.iter().map(ToString::to_string).collect();
        shown.extend(logs.iter().map(ToString::to_string));
        shown.extend(remotes.iter().map(|remote| format!("remote_write {}", remote.name())));
        if shown.is_empty() {
            bail!(
                "where is the store? {WHERE} send.logs and send.metrics, or --loki, --otlp or --elasticsearch URL"
            );
        }
        let sink: Arc<dyn LogSink> = match (&logs, &own) {
            (Some(target), _) => {
                let sink = Logs::new(target, Handle::current(), telemetry.clone());
                Arc::new(sink.map_err(anyhow::Error::msg).with_context(|| target.to_string())?)
            }
            (None, Some(own)) => Arc::clone(own) as Arc<dyn LogSink>,
            (None, None) if has_files => bail!("where do lines go? {WHERE} send.logs"),
            (None, None) => Arc::new(Nowhere),
        };
        let pods: Arc<dyn PodSink> = match &own {
            Some(own) => Arc::clone(own) as Arc<dyn PodSink>,
            None => Arc::new(Nowhere),
        };
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let mut direct = None;
        if let Some(store) = store.as_ref().filter(|_| remotes.is_empty()) {
            let samples = config.collector.bounds(true).samples();
            remotes.push(RemoteConfig::of_store(store, samples));
        }
        let appender: Arc<dyn Appender> = if remotes.is_empty() {
            if !config.pools.is_empty() {
                bail!("where do samples go? {WHERE} send.metrics.remote_write");
            }
            Arc::new(Nowhere)
        } else {
            let telemetry = RemoteTelemetry::new(registry);
            let started = Direct::start(remotes, &config.external_labels, clock, &telemetry, &tasks, &stop)?;
            let started = Arc::new(started);
            direct = Some(Arc::clone(&started));
            started
        };
        let takes_samples = direct.is_some();
        Ok(Self { appender, sink, pods, takes_samples, shown: shown.join(", "), direct, tasks, stop })
    }

    /// Sends what waits, if it is taken. Call it when nothing is produced any more.
    pub(super) async fn close(self) {
        let Some(direct) = self.direct else { return };
        direct.close();
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        direct.count_lost();
    }
}

fn log_target(args: &CollectArgs) -> anyhow::Result<Option<LogTarget>> {
    let CollectArgs { loki, otlp, elasticsearch, .. } = args;
    let target = match (loki, otlp, elasticsearch) {
        (Some(url), ..) => LogTarget::loki(url),
        (_, Some(url), _) => LogTarget::otlp(url),
        (.., Some(url)) => LogTarget::elasticsearch(url),
        (None, None, None) => return Ok(None),
    };
    target.map(Some).map_err(anyhow::Error::msg)
}
