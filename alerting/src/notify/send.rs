//! Empties the outbox: each message until its receiver takes it, or says that it never will.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use binnacle_model::Timestamp;
use binnacle_model::time::Clock;
use reqwest::StatusCode;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

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
    client: reqwest::Client,
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
    ///
    /// # Errors
    /// This machine's TLS cannot be set up.
    pub fn new(
        db: Arc<AlertDb>,
        clock: Arc<dyn Clock>,
        telemetry: Telemetry,
    ) -> Result<Self, reqwest::Error> {
        let builder = || {
            reqwest::Client::builder()
                .timeout(ATTEMPT_TIMEOUT)
                .redirect(reqwest::redirect::Policy::none())
                .no_proxy()
                .user_agent(concat!("binnacle/", env!("CARGO_PKG_VERSION")))
        };
        // A machine without CA certificates still reaches receivers over plain HTTP.
        let client = builder().build().or_else(|_| builder().tls_certs_only([]).build())?;
        Ok(Self { db, clock, client, telemetry })
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
        tracing::error!(receiver = message.receiver, %error, "notification was given up");
        ("dead", error, now)
    }

    async fn post(&self, message: &Message) -> Outcome {
        let request = self
            .client
            .post(&message.url)
            .header("content-type", "application/json")
            .header("idempotency-key", format!("{}/{}", message.group_key, message.id))
            .body(message.body.clone());
        let response = match request.send().await {
            Ok(response) => response,
            // The address may hold a secret, so that it is left out of the text.
            Err(error) => return Outcome::Retry(error.without_url().to_string(), None),
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
}

/// Doubles with each attempt; the message's number spreads them.
fn backoff(message: &Message) -> Duration {
    let doubled = BACKOFF_MIN_MS.saturating_mul(1 << message.attempts.min(16)).min(BACKOFF_MAX_MS);
    let jitter = (message.id.wrapping_mul(7919)).rem_euclid(250);
    Duration::from_millis((doubled + jitter) as u64)
}
