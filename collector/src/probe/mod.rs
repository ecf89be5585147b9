//! Probes: how services look from outside, under blackbox exporter's names.
//!
//! ```text
//! probes.jobs ─► scrape::Pool ─► a loop per target ─┐
//!                                                   ├─► Probes::run ─► http | tcp | dns | grpc ─► page of metrics
//! GET /probe?target=…&module=… ─► Endpoint ─────────┘     (place, timeout)   │
//!                                                                            └ net (resolve, connect), tls
//! ```
//!
//! A job's targets are probed in this process, and the page is read as one that was scraped. Follows blackbox exporter
//! 0.27 in keys of modules, in metrics, and in what makes a probe fail.
//!
//! Invariants:
//! - A probe always has a page: what failed is `probe_success 0` there, and not an error of the scrape.
//! - Each probe has connections of its own, which end with it, and a time in which it is over.
//! - At most so many run at once; others wait within their own time.
//! - Whoever asks over HTTP, and whatever redirects, is never led to link-local and metadata addresses.

mod config;
mod dns;
mod endpoint;
mod grpc;
mod http;
mod net;
mod page;
mod tcp;
mod tls;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

pub use config::{RawModuleFile, RawProbes};
pub use endpoint::Endpoint;
pub(crate) use endpoint::{Asked, Refusal};

use config::{Access, Body, Prober};
use page::{Log, Page};

use binnacle_outgoing::Guarded;

/// Of the time of a scrape, so much is left for the way back; as in blackbox exporter.
const TIMEOUT_OFFSET: Duration = Duration::from_millis(500);

/// The modules, and the places for probes that run.
#[derive(Debug)]
pub struct Probes {
    modules: BTreeMap<String, Arc<Module>>,
    places: Semaphore,
    access: Option<Access>,
    /// Changes with everything that the configuration says of modules.
    print: u64,
}

/// How a target is probed.
#[derive(Debug)]
pub struct Module {
    name: String,
    prober: Prober,
    /// If that is shorter than the scrape's.
    timeout: Option<Duration>,
}

/// A target of a job, and how it is probed.
#[derive(Clone)]
pub struct Probe {
    probes: Arc<Probes>,
    module: Arc<Module>,
    target: String,
    /// What the target may not be.
    pub(crate) guarded: Guarded,
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("module", &self.module.name)
            .append_pair("target", &self.target)
            .finish();
        write!(f, "internal://probe?{query}")
    }
}

/// A probe that runs.
#[derive(Debug, Default)]
struct Run {
    page: Page,
    log: Log,
    /// What the target itself may not be.
    guarded: Guarded,
    /// How long the last name took to be resolved.
    lookup: Duration,
    /// In place of the target's own name in a request of HTTP.
    hostname: Option<String>,
}

/// What came of a probe.
#[derive(Debug)]
struct Outcome {
    page: String,
    log: String,
    success: bool,
}

impl Probes {
    /// Changes with everything that the configuration says of modules: a job's print changes with it.
    pub fn print(&self) -> u64 {
        self.print
    }

    /// How many modules there are.
    pub fn modules(&self) -> usize {
        self.modules.len()
    }

    /// What a module sends that is for the operator's own servers, if there is anything and such a module.
    pub(crate) fn sends(&self, module: &str) -> Option<&'static str> {
        match &self.modules.get(module)?.prober {
            Prober::Http(http) if !http.headers.is_empty() => Some("headers"),
            Prober::Http(http) if !matches!(http.body, Body::None) => Some("a body"),
            Prober::Http(http) if http.proxy.as_ref().is_some_and(|proxy| proxy.credentials.is_some()) => {
                Some("requests through a proxy with credentials")
            }
            Prober::Http(http) => http.tls.sends(),
            Prober::Tcp(tcp) if tcp.exchanges.iter().any(|one| !one.send.reveal().is_empty()) => Some("text"),
            Prober::Tcp(tcp) => tcp.tls.sends(),
            Prober::Dns(dns) => dns.tls.as_ref()?.sends(),
            Prober::Grpc(grpc) => grpc.tls.as_ref()?.sends(),
        }
    }

    /// How a target is probed by the module of this name.
    ///
    /// # Errors
    /// There is none of this name; says which there are.
    pub fn probe(self: &Arc<Self>, module: &str, target: &str) -> Result<Probe, String> {
        let Some(found) = self.modules.get(module) else {
            let names: Vec<&str> = self.modules.keys().map(String::as_str).collect();
            return Err(format!("unknown module {module:?}; probes.modules has: {}", names.join(", ")));
        };
        let (probes, module, target) = (Arc::clone(self), Arc::clone(found), target.to_owned());
        Ok(Probe { probes, module, target, guarded: Guarded::Nothing })
    }

    /// Waits for a place, and probes; all of it within `timeout`.
    async fn run(
        &self,
        module: &Module,
        target: &str,
        timeout: Duration,
        mut run: Run,
    ) -> Result<Outcome, String> {
        let timeout = module.timeout_of(timeout);
        let began = Instant::now();
        let Ok(Ok(_place)) = tokio::time::timeout(timeout, self.places.acquire()).await else {
            return Err(
                "too many probes at once: raise probes.max_concurrent, or probe less often".to_owned()
            );
        };
        let left = timeout.saturating_sub(began.elapsed());
        let began = Instant::now();
        run.log.say(&format!("probing {target} by module {} within {left:?}", module.name));
        let probed = tokio::time::timeout(left, module.prober.probe(&mut run, target)).await;
        let done = probed.unwrap_or_else(|_| Err(format!("not finished within {left:?}")));
        let took = began.elapsed().as_secs_f64();
        let success = done.is_ok();
        run.page.flag("probe_success", success);
        run.page.set("probe_duration_seconds", took);
        match done {
            Ok(()) => run.log.say("probe succeeded"),
            Err(reason) => run.log.say(&format!("probe failed: {reason}")),
        }
        Ok(Outcome { page: run.page.text(), log: run.log.text(), success })
    }
}

impl Module {
    /// The time of a scrape without what its way back takes, or what the module says if that is shorter.
    fn timeout_of(&self, scrape: Duration) -> Duration {
        let left = scrape.saturating_sub(TIMEOUT_OFFSET).max(scrape / 2);
        self.timeout.map_or(left, |own| own.min(left))
    }
}

impl Probe {
    /// The page of one probe, and whether it succeeded.
    ///
    /// # Errors
    /// There was no place for it in time.
    pub(crate) async fn page(&self, timeout: Duration) -> Result<(String, bool), String> {
        let run = Run { guarded: self.guarded, ..Run::default() };
        let outcome = self.probes.run(&self.module, &self.target, timeout, run).await?;
        if !outcome.success {
            tracing::debug!(
                target = self.target,
                module = self.module.name,
                log = outcome.log,
                "probe failed"
            );
        }
        Ok((outcome.page, outcome.success))
    }
}

impl Prober {
    async fn probe(&self, run: &mut Run, target: &str) -> Result<(), String> {
        match self {
            Self::Http(module) => http::probe(module, run, target).await,
            Self::Tcp(module) => tcp::probe(module, run, target).await,
            Self::Dns(module) => dns::probe(module, run, target).await,
            Self::Grpc(module) => grpc::probe(module, run, target).await,
        }
    }
}

#[cfg(test)]
mod tests;
