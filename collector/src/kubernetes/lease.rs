//! Which of many agents does what only one may do: the one that holds a `Lease`.
//!
//! As controllers of Kubernetes agree on one: the holder writes the time again and again; who sees the same time for as long
//! as the lease lasts takes it. Clocks are not compared. A write that is not based on what is there is refused, so that
//! of several only one gets it.
//!
//! A holder that cannot reach the API goes on: nobody else could take its place, and a cluster whose API is away is to be
//! watched more than any. Where only the holder is cut off, two may do the same until it hears of the other.

use std::sync::Arc;
use std::time::Duration;

use binnacle_model::time::Clock;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp as ApiTime;
use kube::api::{Api, PostParams};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::telemetry::KubernetesTelemetry;
use super::{Access, chain_of};

/// One look at the lease.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);

/// How often it is said that it cannot be looked at.
const TELL_EVERY: Duration = Duration::from_mins(5);

/// What is said when the process ends may take so long.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a lease lasts, and how often it is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Nobody takes it sooner after it was written last.
    pub lasts: Duration,
    /// The holder writes it again after this; others look half as often.
    pub renew: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self { lasts: Duration::from_secs(30), renew: Duration::from_secs(8) }
    }
}

/// Takes part in an election.
pub struct Election {
    /// How the API is reached.
    pub access: Access,
    /// Where the lease is; empty is the namespace of the access.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Names this agent among others.
    pub holder: String,
    /// For the times in the lease, which are for people.
    pub clock: Arc<dyn Clock>,
    /// How patient it is.
    pub timing: Timing,
    /// Where is counted.
    pub telemetry: KubernetesTelemetry,
}

/// What was last seen, and since when it has been so.
struct Seen {
    what: (String, Option<MicroTime>),
    since: Instant,
}

impl Election {
    /// Says to `leads` whether this agent holds the lease, until `stop` fires; then gives it back.
    pub async fn run(self, leads: watch::Sender<bool>, stop: CancellationToken) {
        let mut api = None;
        let mut seen = None;
        let mut told = None;
        loop {
            let held = *leads.borrow();
            let turn = tokio::time::timeout(TURN_TIMEOUT, self.turn(&mut api, &mut seen, held)).await;
            match turn.unwrap_or_else(|_| Err(format!("no answer within {TURN_TIMEOUT:?}"))) {
                Ok(holds) => {
                    told = None;
                    self.say(&leads, holds);
                }
                Err(reason) => {
                    self.telemetry.watches.failed("leases");
                    // While it lasts, perhaps nobody scrapes what is the cluster's.
                    if told.is_none_or(|told: Instant| told.elapsed() >= TELL_EVERY) {
                        told = Some(Instant::now());
                        let (lease, leads) = (&self.name, *leads.borrow());
                        tracing::warn!(
                            lease,
                            leads,
                            reason,
                            "the lease cannot be asked for: all stays as it is"
                        );
                    }
                }
            }
            let pause = if *leads.borrow() { self.timing.renew } else { self.timing.renew * 2 };
            tokio::select! {
                () = stop.cancelled() => break,
                // Not all agents of a cluster at once.
                () = tokio::time::sleep(pause.mul_f64(0.75 + crate::random() / 2.0)) => {}
            }
        }
        let held = *leads.borrow();
        if let Some(api) = api.filter(|_| held)
            && let Ok(Err(error)) = tokio::time::timeout(RELEASE_TIMEOUT, self.release(&api)).await
        {
            tracing::debug!(error = chain_of(&error), "the lease was not given back; it ends by itself");
        }
        leads.send_replace(false);
    }

    fn say(&self, leads: &watch::Sender<bool>, holds: bool) {
        let has_changed = leads.send_if_modified(|leads| std::mem::replace(leads, holds) != holds);
        if has_changed {
            let lease = &self.name;
            if holds {
                tracing::info!(lease, "this agent has what is on no node, now");
            } else {
                tracing::info!(lease, "another agent has what is on no node, now");
            }
        }
        self.telemetry.leads.set(i64::from(holds));
    }

    /// Looks at the lease, and writes it if it is ours or nobody's. Answers whether it is ours.
    async fn turn(
        &self,
        api: &mut Option<Api<Lease>>,
        seen: &mut Option<Seen>,
        leads: bool,
    ) -> Result<bool, String> {
        let api = if let Some(api) = api {
            api
        } else {
            let client = self.access.client().await?;
            api.insert(match self.namespace.as_str() {
                "" => Api::default_namespaced(client),
                namespace => Api::namespaced(client, namespace),
            })
        };
        match self.try_hold(api, seen).await {
            Ok(holds) => Ok(holds),
            // Somebody else was faster; the next look tells who.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(leads),
            Err(error) => Err(chain_of(&error)),
        }
    }

    async fn try_hold(&self, api: &Api<Lease>, seen: &mut Option<Seen>) -> Result<bool, kube::Error> {
        let Some(mut lease) = api.get_opt(&self.name).await? else {
            let mut lease = Lease {
                metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
                spec: None,
            };
            self.sign(&mut lease);
            api.create(&PostParams::default(), &lease).await?;
            return Ok(true);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.unwrap_or_default();
        let what = (holder.clone(), spec.renew_time);
        if seen.as_ref().is_none_or(|seen| seen.what != what) {
            *seen = Some(Seen { what, since: Instant::now() });
        }
        let age = seen.as_ref().map_or(Duration::ZERO, |seen| seen.since.elapsed());
        let lasts = Duration::from_secs(u64::try_from(spec.lease_duration_seconds.unwrap_or(0)).unwrap_or(0));
        let is_free = holder.is_empty() || age > lasts.max(Duration::from_secs(1));
        if holder != self.holder && !is_free {
            return Ok(false);
        }
        self.sign(&mut lease);
        api.replace(&self.name, &PostParams::default(), &lease).await?;
        Ok(true)
    }

    /// Writes into a lease that it is ours.
    fn sign(&self, lease: &mut Lease) {
        let now = self.now();
        let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
        if spec.holder_identity.as_deref() != Some(&self.holder) {
            let is_taken_over = spec.holder_identity.is_some();
            spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0) + i32::from(is_taken_over));
            spec.acquire_time = Some(now.clone());
            spec.holder_identity = Some(self.holder.clone());
        }
        spec.lease_duration_seconds = Some(self.timing.lasts.as_secs().max(1) as i32);
        spec.renew_time = Some(now);
    }

    fn now(&self) -> MicroTime {
        MicroTime(ApiTime::from_nanosecond(i128::from(self.clock.now_ns().0)).unwrap_or_default())
    }

    /// The next one need not wait.
    async fn release(&self, api: &Api<Lease>) -> Result<(), kube::Error> {
        let Some(mut lease) = api.get_opt(&self.name).await? else { return Ok(()) };
        let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
        if spec.holder_identity.as_deref() == Some(&self.holder) {
            spec.holder_identity = Some(String::new());
            spec.renew_time = Some(self.now());
            api.replace(&self.name, &PostParams::default(), &lease).await?;
        }
        Ok(())
    }
}
