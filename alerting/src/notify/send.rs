//! Empties the outbox: each message until its receiver takes it, or says that it never will.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use binnacle_model::Timestamp;
use binnacle_model::time::Clock;
use binnacle_outgoing::{ClientOptions, Guarded, Redirects, chain};
use reqwest::{RequestBuilder, StatusCode};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::InForce;
use super::config::{Http, What, check_url};
use crate::state::{AlertDb, Message};
use crate::telemetry::Telemetry;

const LOOK_EVERY: Duration = Duration::from_millis(200);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
const BACKOFF_MIN_MS: i64 = 1_000;
const BACKOFF_MAX_MS: i64 = 60_000;

/// A receiver that asks for a longer pause is asked again all the same.
const RETRY_AFTER_MAX: Duration = Duration::from_hours(1);

/// A notification that is this old is of no use any more.
const GIVE_UP_AFTER: Duration = Duration::from_hours(24);

/// Done messages are shown for this long.
const HISTORY_KEPT: Duration = Duration::from_hours(720);

/// Sends what is in the outbox.
pub struct Sender {
    db: Arc<AlertDb>,
    clock: Arc<dyn Clock>,
    config: InForce,
    /// By receiver, with what the files of its TLS held when it was made.
    clients: Mutex<BTreeMap<String, (Option<u64>, reqwest::Client)>>,
    telemetry: Telemetry,
}

/// A receiver and its URL.
type Address = (String, String);

enum Outcome {
    Sent,
    Retry(String, Option<Duration>),
    Dead(String),
}

impl Sender {
    /// A sender; call [`Self::run`] to let it work.
    pub fn new(config: InForce, db: Arc<AlertDb>, clock: Arc<dyn Clock>, telemetry: Telemetry) -> Self {
        Self { db, clock, config, clients: Mutex::default(), telemetry }
    }

    /// Sends until `stop` fires; attempts under way are finished.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut swept = self.clock.now();
        // An address has one attempt at a time, and a slow one keeps no other waiting.
        let mut attempts: JoinSet<Address> = JoinSet::new();
        let mut under_way: HashSet<Address> = HashSet::new();
        loop {
            let now = self.clock.now();
            match self.db.due(now) {
                Ok(messages) => {
                    for message in messages {
                        let address = (message.receiver.clone(), message.url.clone());
                        if under_way.insert(address.clone()) {
                            let sender = Arc::clone(&self);
                            attempts.spawn(async move {
                                sender.attempt(&message).await;
                                address
                            });
                        }
                    }
                }
                Err(error) => tracing::error!(%error, "outbox cannot be read"),
            }
            if now.0 - swept.0 > 3_600_000 {
                swept = now;
                if let Err(error) = self.db.forget_before(now.minus(HISTORY_KEPT)) {
                    tracing::warn!(%error, "old notifications were not removed");
                }
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(done) = attempts.join_next() => match done {
                    Ok(address) => {
                        under_way.remove(&address);
                    }
                    Err(error) => {
                        tracing::error!(%error, "an attempt ended abnormally");
                        under_way.clear();
                    }
                },
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
        while attempts.join_next().await.is_some() {}
    }

    async fn attempt(&self, message: &Message) {
        let outcome = self.post(message).await;
        let now = self.clock.now();
        let too_old = now.0 - message.created.0 > GIVE_UP_AFTER.as_millis() as i64;
        let (state, error, next_try) = match outcome {
            Outcome::Sent => {
                self.telemetry.sent.inc();
                ("sent", String::new(), now)
            }
            Outcome::Retry(error, _) if too_old => self.dead(message, error, now),
            Outcome::Dead(error) => self.dead(message, error, now),
            Outcome::Retry(error, after) => {
                self.telemetry.retried.inc();
                tracing::warn!(receiver = message.receiver, %error, "notification was not taken; will try again");
                let wait = after.unwrap_or_else(|| backoff(message));
                ("pending", error, now.plus(wait))
            }
        };
        if let Err(error) = self.db.attempted(message.id, state, &error, now, next_try) {
            tracing::error!(%error, "outcome of a notification was not saved; it may be sent again");
        }
    }

    fn dead(&self, message: &Message, error: String, now: Timestamp) -> (&'static str, String, Timestamp) {
        self.telemetry.dead.inc();
        if let Err(error) = self.db.untell(message) {
            tracing::error!(%error, "a group is taken for told that was not");
        }
        tracing::error!(receiver = message.receiver, %error, "notification was given up");
        ("dead", error, now)
    }

    async fn post(&self, message: &Message) -> Outcome {
        let request = match self.request(message).await {
            Ok(request) => request,
            Err(outcome) => return outcome,
        };
        let response = match request.send().await {
            Ok(response) => response,
            // The address may hold a secret, so that it is left out of the text.
            Err(error) => return Outcome::Retry(chain(error), None),
        };
        let status = response.status();
        if status.is_success() {
            return Outcome::Sent;
        }
        let retry_after = response
            .headers()
            .get("retry-after")
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .map(|seconds| Duration::from_secs(seconds).min(RETRY_AFTER_MAX));
        let reason = format!("receiver answered {status}");
        let is_final = status.is_client_error()
            && !matches!(
                status,
                StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS
            );
        if is_final { Outcome::Dead(reason) } else { Outcome::Retry(reason, retry_after) }
    }

    async fn request(&self, message: &Message) -> Result<RequestBuilder, Outcome> {
        let again = |reason: String| Outcome::Retry(reason, None);
        let config = self.config.get();
        let found = config.integration(&message.receiver);
        let (url, http, timeout) = match found.map(|found| (&found.what, &found.http)) {
            Some((What::Webhook { url, timeout, .. }, http)) => {
                (url.read().await.map_err(again)?, http.clone(), *timeout)
            }
            // What an older release left knows where it goes.
            _ if !message.url.is_empty() => (message.url.clone(), Http::default(), ATTEMPT_TIMEOUT),
            _ => return Err(Outcome::Dead("the receiver is not in the configuration any more".to_owned())),
        };
        let url = check_url("url", &url).map_err(Outcome::Dead)?;
        let client = self.client(&message.receiver, &http, timeout).await.map_err(again)?;
        let headers = http.way.headers().await.map_err(again)?;
        Ok(client
            .post(url)
            .headers(headers)
            .header("content-type", "application/json")
            .header("idempotency-key", format!("{}/{}", message.group_key, message.id))
            .body(message.body.clone()))
    }

    /// The receiver's client, made anew when the files of its TLS change.
    async fn client(
        &self,
        receiver: &str,
        http: &Http,
        timeout: Duration,
    ) -> Result<reqwest::Client, String> {
        let print = http.way.tls_print().await;
        let clients = || self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, client)) = clients().get(receiver).filter(|(known, _)| *known == print) {
            return Ok(client.clone());
        }
        let client = http.way.client(ClientOptions {
            redirects: if http.follow_redirects { Redirects::SameHost } else { Redirects::None },
            timeout,
            gzip: false,
            http2: http.http2,
            guarded: Guarded::Metadata,
        })?;
        clients().insert(receiver.to_owned(), (print, client.clone()));
        Ok(client)
    }
}

/// Doubles with each attempt; the message's number spreads them.
fn backoff(message: &Message) -> Duration {
    let doubled = BACKOFF_MIN_MS.saturating_mul(1 << message.attempts.min(16)).min(BACKOFF_MAX_MS);
    let jitter = (message.id.wrapping_mul(7919)).rem_euclid(250);
    Duration::from_millis((doubled + jitter) as u64)
}
