//! One request to a store of others, and its answer.

use std::io::Write;
use std::time::Duration;

use binnacle_model::storage::AppendError;
use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};

use super::{Format, LogTarget};
use binnacle_outgoing::{ClientOptions, Guarded, Redirects, Way, chain};

/// An answer of `_bulk` says something of each entry.
const ANSWER_MAX_BYTES: usize = 32 * 1024 * 1024;

/// Of an answer that is shown.
const REASON_MAX_BYTES: usize = 500;

/// Where nothing is said.
const RETRY_AFTER_DEFAULT: Duration = Duration::from_secs(1);

pub(super) struct Door {
    client: reqwest::Client,
    url: reqwest::Url,
    shown: String,
    way: Way,
}

/// An answer that came as a whole.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    retry_after: Option<Duration>,
    is_html: bool,
    pub(super) body: Vec<u8>,
}

impl Door {
    pub(super) fn new(target: &LogTarget) -> Result<Self, String> {
        let client = target.way.client(ClientOptions {
            redirects: Redirects::SameHost,
            timeout: target.timeout,
            gzip: true,
            http2: true,
            guarded: Guarded::Nothing,
        })?;
        Ok(Self { client, url: target.url.clone(), shown: target.to_string(), way: target.way.clone() })
    }

    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    /// # Errors
    /// Nobody answered, or not to the end.
    pub(super) async fn post(&self, format: &Format, plain: Vec<u8>) -> Result<Answer, AppendError> {
        let (content_type, encoding, body) = match format {
            Format::Loki { .. } => {
                let body = snap::raw::Encoder::new().compress_vec(&plain);
                let body = body.map_err(|error| AppendError::Unavailable(error.to_string()))?;
                // Loki's own clients do not name snappy.
                ("application/x-protobuf", None, body)
            }
            Format::Otlp => ("application/x-protobuf", Some("gzip"), gzipped(&plain)?),
            Format::Elastic { .. } => ("application/x-ndjson", Some("gzip"), gzipped(&plain)?),
        };
        let headers = self.way.headers().await.map_err(AppendError::Unavailable)?;
        let mut request =
            self.client.post(self.url.clone()).headers(headers).header("content-type", content_type);
        if let Some(encoding) = encoding {
            request = request.header("content-encoding", encoding);
        }
        let failed = |error: reqwest::Error| AppendError::Unavailable(chain(error));
        let mut response = request.body(body).send().await.map_err(failed)?;
        let (status, retry_after) = (response.status(), retry_after(response.headers()));
        let content_type =
            response.headers().get(CONTENT_TYPE).map(|value| value.as_bytes().to_ascii_lowercase());
        let is_html = content_type.is_some_and(|value| value.starts_with(b"text/html"));
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > ANSWER_MAX_BYTES {
                return Err(AppendError::Unavailable(format!(
                    "an answer of more than {ANSWER_MAX_BYTES} bytes"
                )));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, retry_after, is_html, body })
    }
}

fn gzipped(plain: &[u8]) -> Result<Vec<u8>, AppendError> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 4), Compression::fast());
    let written = encoder.write_all(plain).and_then(|()| encoder.finish());
    written.map_err(|error| AppendError::Unavailable(error.to_string()))
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    seconds.map(Duration::from_secs)
}

impl Answer {
    /// The first bytes of the body, as one line.
    pub(super) fn beginning(&self) -> String {
        let text = String::from_utf8_lossy(&self.body[..self.body.len().min(REASON_MAX_BYTES)]);
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        format!("{}: {text}", self.status)
    }

    /// Whether a server before the store refused the request, whatever is in it: what it says may change, and nothing of
    /// it is about the lines. Stores answer with text or JSON.
    pub(super) fn is_of_proxy(&self) -> bool {
        const WRONG_SCHEME: &[u8] = b"HTTP request to an HTTPS server";
        self.is_html
            || memchr::memmem::find(&self.body[..self.body.len().min(REASON_MAX_BYTES)], WRONG_SCHEME)
                .is_some()
    }

    /// Of a status by which nothing was taken, and that may pass.
    pub(super) fn later(&self) -> AppendError {
        let is_busy = self.status == StatusCode::TOO_MANY_REQUESTS
            || (self.status == StatusCode::SERVICE_UNAVAILABLE && self.retry_after.is_some());
        if is_busy { self.busy() } else { AppendError::Unavailable(self.beginning()) }
    }

    /// There is no room for some of it.
    pub(super) fn busy(&self) -> AppendError {
        AppendError::Full {
            what: "the receiver",
            retry_after: self.retry_after.unwrap_or(RETRY_AFTER_DEFAULT),
        }
    }
}
