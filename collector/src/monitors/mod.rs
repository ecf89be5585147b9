//! ServiceMonitors, PodMonitors and Probes, read without Prometheus Operator.
//!
//! ```text
//! watched ─► set: monitors ─► translate ─► Prometheus's scrape configs ─► ScrapeConfig::check ─► Scraper::set_monitored
//!              ▲                  │                    └ kubernetes_sd_configs: equal ones are one SharedDiscovery
//!              └──── assets ◄─────┘ Secrets and ConfigMaps that they name, read again every half minute
//! ```
//!
//! Invariants:
//! - Monitors are written by tenants. One that is wrong costs itself alone, and is said once; what it names is bounded.
//! - Secrets are those of the monitor's own namespace. They are kept in memory, and shown nowhere.
//! - Files of this agent are read for namespaces that may name them, and for no other.
//! - A monitor that did not change goes on without interruption, whatever becomes of others or of the configuration's jobs.

mod assets;
mod config;
mod set;
mod telemetry;
mod translate;
mod views;
mod watched;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use config::{MonitorOptions, RawMonitors};
use set::Set;
pub use telemetry::MonitorTelemetry;
use watched::{Changes, follow};

use crate::kubernetes::Access;
use crate::kubernetes::watch::Selection;
use crate::probe::Probes;
use crate::scrape::{Global, Scraper};

/// Changes of a while are taken together.
const GATHER: Duration = Duration::from_secs(1);

/// Between readings of Secrets.
const REFRESH: Duration = Duration::from_secs(30);

/// A client that cannot be made is tried again after this.
const RETRY: Duration = Duration::from_secs(30);

/// Changes that wait; a watch waits with them.
const CHANGES: usize = 64;

/// The kinds of monitors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Service,
    Pod,
    Probe,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Service, Self::Pod, Self::Probe];

    fn name(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Pod => "pod",
            Self::Probe => "probe",
        }
    }
}

/// What the configuration says that monitors go by.
#[derive(Debug, Clone, Default)]
pub struct Defaults {
    /// `global`, for what they leave out.
    pub global: Arc<Global>,
    /// Changes with `global`.
    pub print: u64,
    /// By which Probes are probed that name no prober.
    pub probes: Option<Arc<Probes>>,
}

/// By which monitors hear of a configuration that was read again.
#[derive(Debug, Clone)]
pub struct MonitorHandle(watch::Sender<Defaults>);

impl MonitorHandle {
    /// They go by these from now on.
    pub fn set(&self, defaults: Defaults) {
        self.0.send_replace(defaults);
    }
}

/// Reads monitors, and has their targets scraped.
pub struct Monitors {
    options: MonitorOptions,
    access: Access,
    defaults: watch::Receiver<Defaults>,
    telemetry: MonitorTelemetry,
}

impl Monitors {
    /// Nothing is asked before [`Self::run`].
    pub fn new(
        options: MonitorOptions,
        access: Access,
        defaults: Defaults,
        telemetry: MonitorTelemetry,
    ) -> (Self, MonitorHandle) {
        let (handle, defaults) = watch::channel(defaults);
        (Self { options, access, defaults, telemetry }, MonitorHandle(handle))
    }

    /// Keeps what `scraper` scrapes up to date, with tasks of its own on `tasks`, until `stop` fires.
    pub async fn run(self, scraper: Arc<Scraper>, tasks: TaskTracker, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.go_on(&scraper, &tasks, &stop) => {}
        }
    }

    async fn go_on(mut self, scraper: &Arc<Scraper>, tasks: &TaskTracker, stop: &CancellationToken) {
        let client = self.client().await;
        let mut set = Set::new(self.options.clone(), &self.access, &self.telemetry, (tasks, stop));
        let mut changes = self.watch_all(&client, tasks, stop);
        let mut refresh = interval(REFRESH);
        refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut due: Option<Instant> = None;
        loop {
            tokio::select! {
                Some(news) = changes.recv() => {
                    news.into_iter().for_each(|(name, object)| set.note(name, object));
                }
                Ok(()) = self.defaults.changed() => set.all_changed(),
                _ = refresh.tick() => {
                    let asked = set.asked();
                    let changed = set.assets.read(&client, &asked).await;
                    set.values_changed(&changed);
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    due = None;
                    let unknown = set.unknown();
                    let changed = set.assets.read(&client, &unknown).await;
                    set.values_changed(&changed);
                    let defaults = self.defaults.borrow_and_update().clone();
                    let Some(next) = rebuilt(set, defaults, scraper).await else { return };
                    set = next;
                }
            }
            if due.is_none() && set.has_changed() {
                due = Some(Instant::now() + GATHER);
            }
        }
    }

    async fn client(&self) -> kube::Client {
        let mut has_said = false;
        loop {
            match self.access.client().await {
                Ok(client) => return client,
                Err(reason) if !std::mem::replace(&mut has_said, true) => {
                    tracing::warn!(reason, "monitors are not read; tried again every 30 s");
                }
                Err(_) => {}
            }
            sleep(RETRY).await;
        }
    }

    /// A watch for each kind and namespace.
    fn watch_all(
        &self,
        client: &kube::Client,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> mpsc::Receiver<Changes> {
        let (to, changes) = mpsc::channel(CHANGES);
        let named = self.options.namespaces.iter().cloned().map(Some);
        let namespaces: Vec<Option<String>> =
            if self.options.namespaces.is_empty() { vec![None] } else { named.collect() };
        for kind in &self.options.kinds {
            for namespace in &namespaces {
                let selection = Selection {
                    namespace: namespace.clone(),
                    labels: self.options.selector.clone(),
                    fields: None,
                };
                let (client, telemetry) = (client.clone(), self.telemetry.clone());
                let (to, stop) = (to.clone(), stop.clone());
                match kind {
                    Kind::Service => {
                        tasks.spawn(follow::<views::ServiceMonitor>(client, selection, telemetry, to, stop));
                    }
                    Kind::Pod => {
                        tasks.spawn(follow::<views::PodMonitor>(client, selection, telemetry, to, stop));
                    }
                    Kind::Probe => {
                        tasks.spawn(follow::<views::Probe>(client, selection, telemetry, to, stop));
                    }
                }
            }
        }
        changes
    }
}

/// Thousands of monitors take a while, which is not the runtime's.
async fn rebuilt(mut set: Set, defaults: Defaults, scraper: &Arc<Scraper>) -> Option<Set> {
    let scraper = Arc::clone(scraper);
    let done = tokio::task::spawn_blocking(move || {
        scraper.set_monitored(set.pools(&defaults));
        set
    });
    let done = done.await;
    done.inspect_err(|error| tracing::error!(%error, "monitors are no longer followed; restart this process"))
        .ok()
}
