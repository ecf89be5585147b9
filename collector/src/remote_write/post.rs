//! One request, and what its answer means.

use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::RETRY_AFTER;

use super::config::{Message, RemoteConfig, Url};
use crate::intake::FINAL_REFUSAL;
use binnacle_outgoing::{ClientOptions, Guarded, Redirects, Way, chain};

/// Bytes of a refusal that are shown.
const REASON_MAX_BYTES: usize = 512;

/// A receiver may not send us away for longer.
const RETRY_AFTER_MAX: Duration = Duration::from_mins(5);

/// Why a receiver cannot be spoken to at all.
#[derive(Debug, thiserror::Error)]
#[error("remote_write {name:?}: {reason}")]
pub struct ClientError {
    name: String,
    reason: String,
}

/// What became of a request.
#[derive(Debug)]
pub(super) enum Sent {
    /// The receiver has it.
    Taken,
    /// The receiver will never take it.
    Refused(String),
    /// It may take it later, after a while if it said so.
    Retry { reason: String, after: Option<Duration> },
}

/// Sends bodies to one receiver.
pub(super) struct Poster {
    client: reqwest::Client,
    url: Url,
    way: Way,
    retry_on_429: bool,
    is_ours: bool,
}

impl Poster {
    pub(super) fn new(config: &RemoteConfig) -> Result<Self, ClientError> {
        let failed = |reason: String| ClientError { name: config.name.clone(), reason };
        let options = ClientOptions {
            redirects: Redirects::SameHost,
            timeout: config.timeout,
            gzip: true,
            http2: true,
            guarded: Guarded::Nothing,
        };
        let client = config.way.client(options).map_err(failed)?;
        Ok(Self {
            client,
            url: config.url.clone(),
            way: config.way.clone(),
            retry_on_429: config.queue.retry_on_429,
            is_ours: config.is_ours,
        })
    }

    /// Sends a body of `message` in snappy's block format.
    pub(super) async fn send(&self, message: Message, body: Vec<u8>) -> Sent {
        let retry = |reason: String| Sent::Retry { reason, after: None };
        let (content_type, version) = match message {
            Message::V1 => ("application/x-protobuf", "0.1.0"),
            Message::V2 => ("application/x-protobuf;proto=io.prometheus.write.v2.Request", "2.0.0"),
        };
        let headers = match self.way.headers().await {
            Ok(headers) => headers,
            Err(reason) => return retry(reason),
        };
        let request = self
            .client
            .post(self.url.0.clone())
            .headers(headers)
            .header("content-type", content_type)
            .header("content-encoding", "snappy")
            .header("x-prometheus-remote-write-version", version)
            .body(body);
        match request.send().await {
            Ok(response) => self.judge(message, response).await,
            Err(error) => retry(chain(error)),
        }
    }

    async fn judge(&self, message: Message, response: reqwest::Response) -> Sent {
        let status = response.status();
        if status.is_success() {
            let says_what_it_has = response.headers().keys().any(|name| {
                name.as_str().starts_with("x-prometheus-remote-write-") && name.as_str().ends_with("-written")
            });
            if message == Message::V2 && !says_what_it_has {
                return Sent::Refused(format!(
                    "{status}, but no word of what was written: it knows remote write 1.0 only; say protobuf_message: prometheus.WriteRequest"
                ));
            }
            return Sent::Taken;
        }
        let seconds = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let after = seconds.map(|seconds| Duration::from_secs(seconds).min(RETRY_AFTER_MAX));
        let is_proxy = self.is_ours && !response.headers().contains_key(FINAL_REFUSAL);
        let reason = format!("{status}: {}", beginning(response).await);
        let is_busy = status == StatusCode::TOO_MANY_REQUESTS && self.retry_on_429;
        // Somebody stands in between for a while: what is dropped now would be lost for good.
        if status.is_server_error() || status.is_redirection() || is_busy || is_proxy {
            Sent::Retry { reason, after }
        } else {
            Sent::Refused(reason)
        }
    }
}

/// The first bytes of an answer, as one line.
async fn beginning(mut response: reqwest::Response) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < REASON_MAX_BYTES {
        match response.chunk().await {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            _ => break,
        }
    }
    bytes.truncate(REASON_MAX_BYTES);
    String::from_utf8_lossy(&bytes).split_whitespace().collect::<Vec<_>>().join(" ")
}
