//! What is behind `GET /probe`.
//!
//! Whoever may ask here has this process connect to others, and hears of their answers. So nobody may unless the
//! configuration says which targets, none of which is ever a link-local or metadata address.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use serde::Deserialize;

use super::config::{Access, Prober};
use super::{Probes, Run};
use crate::Telemetry;
use binnacle_outgoing::Guarded;

/// Where nobody says how long they wait.
const TIMEOUT: Duration = Duration::from_mins(2);

const DEFAULT_MODULE: &str = "http_2xx";

/// What is probed for those who ask over HTTP; it follows the configuration.
#[derive(Debug, Default)]
pub struct Endpoint {
    probes: RwLock<Option<Arc<Probes>>>,
    pub(super) telemetry: Telemetry,
}

impl Endpoint {
    /// One that counts what it does.
    pub fn new(probes: Option<Arc<Probes>>, telemetry: Telemetry) -> Arc<Self> {
        Arc::new(Self { probes: RwLock::new(probes), telemetry })
    }

    /// Goes on with these modules and rules.
    pub fn reload(&self, probes: Option<Arc<Probes>>) {
        *self.probes.write().unwrap_or_else(PoisonError::into_inner) = probes;
    }

    fn probes(&self) -> Option<Arc<Probes>> {
        self.probes.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The parameters of a request.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Asked {
    target: String,
    module: String,
    debug: String,
    hostname: String,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The request is wrong.
    Bad(String),
    /// The configuration does not allow it.
    Forbidden(&'static str),
    /// There was no place in time.
    Busy(String),
}

impl Endpoint {
    /// The page of a probe, or all that is known of it if that is asked for. `timeout` is what the header of Prometheus says.
    pub(crate) async fn answer(&self, asked: Asked, timeout: Option<&str>) -> Result<String, Refusal> {
        let answer = self.probe(asked, timeout).await;
        if matches!(answer, Err(Refusal::Forbidden(_))) {
            self.telemetry.probes_refused.inc();
        }
        answer
    }

    async fn probe(&self, asked: Asked, timeout: Option<&str>) -> Result<String, Refusal> {
        let probes = self.probes();
        let open = probes.as_ref().and_then(|probes| Some((probes, probes.access.as_ref()?)));
        let Some((probes, access)) = open else {
            let off = "probes over HTTP are off; probes.endpoint in the configuration switches them on";
            return Err(Refusal::Forbidden(off));
        };
        let name = if asked.module.is_empty() { DEFAULT_MODULE } else { &asked.module };
        if asked.target.is_empty() {
            return Err(Refusal::Bad("the parameter target is missing".to_owned()));
        }
        let probe = probes.probe(name, &asked.target).map_err(Refusal::Bad)?;
        access.check(name, &asked.target).map_err(Refusal::Forbidden)?;
        let timeout = timeout_of(timeout).map_err(Refusal::Bad)?;
        let hostname = Some(asked.hostname).filter(|name| !name.is_empty());
        if let (Prober::Http(module), Some(hostname)) = (&probe.module.prober, &hostname)
            && module.host.as_ref().is_some_and(|host| host != hostname)
        {
            let reason = "the module names another Host than the parameter hostname";
            return Err(Refusal::Bad(reason.to_owned()));
        }
        let run = Run { guarded: Guarded::Metadata, hostname, ..Run::default() };
        let outcome = probes.run(&probe.module, &asked.target, timeout, run).await;
        let outcome = outcome.map_err(Refusal::Busy)?;
        self.telemetry.probed(outcome.success);
        if asked.debug != "true" {
            return Ok(outcome.page);
        }
        let module = &probe.module;
        Ok(format!(
            "Logs for the probe:\n{}\n\nMetrics that would have been returned:\n{}\n\nModule:\n{module:#?}\n",
            outcome.log, outcome.page
        ))
    }
}

impl Access {
    fn check(&self, module: &str, target: &str) -> Result<(), &'static str> {
        if self.modules.as_ref().is_some_and(|allowed| allowed.iter().all(|one| one != module)) {
            return Err("probes.endpoint.modules does not have this module");
        }
        if !self.targets.iter().any(|allowed| allowed.is_match(target)) {
            return Err("no pattern of probes.endpoint.targets matches this target");
        }
        Ok(())
    }
}

/// For how long the other side waits.
fn timeout_of(header: Option<&str>) -> Result<Duration, String> {
    let Some(text) = header else { return Ok(TIMEOUT) };
    let seconds = text.trim().parse::<f64>().ok();
    let timeout = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let timeout = timeout.ok_or("X-Prometheus-Scrape-Timeout-Seconds is no number of seconds")?;
    Ok(if timeout.is_zero() { TIMEOUT } else { timeout.min(TIMEOUT) })
}
