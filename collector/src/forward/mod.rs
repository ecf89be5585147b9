//! Our own store across the network, behind the same traits as one in this process.
//!
//! Lines go by `/api/collect/logs`, what is known of pods by `/api/collect/pods`; samples by remote write, from a queue
//! ([`crate::remote_write::Direct`]). Calls block until the other side has made the data durable, and say whether trying
//! again will help: only what the store itself refused for good is refused, whatever a proxy before it answers.

mod target;

use std::time::Duration;

use binnacle_model::storage::{AppendError, LogAppendReport, PodMetadata, PodSink};
use reqwest::header::HeaderMap;
use reqwest::{Response, StatusCode};
use serde::Deserialize;
use tokio::runtime::Handle;

use crate::completeness::NodeReport;
use crate::intake::{FINAL_REFUSAL, OVERTAKEN};
use crate::tail::LogSink;
use binnacle_outgoing::{ClientOptions, Guarded, Redirects, Way, chain};

pub use target::{RawStore, StoreTarget, StoreWay};

const PROTOBUF: &str = "application/x-protobuf";

const TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of an error's body that are shown.
const REASON_MAX_BYTES: usize = 500;

/// Bytes of an answer: a mark for each of the files that are asked for at once.
const ANSWER_MAX_BYTES: usize = 4 * 1024 * 1024;

/// A store behind a URL.
pub struct RemoteStore {
    client: reqwest::Client,
    base: reqwest::Url,
    way: Way,
    /// The traits are synchronous and are called from threads that may wait.
    runtime: Handle,
}

#[derive(Deserialize)]
struct PushAnswer {
    appended: usize,
    duplicate: usize,
    gap_bytes: u64,
}

#[derive(Deserialize)]
struct MarksAnswer {
    marks: Vec<u64>,
}

impl RemoteStore {
    /// A client of a store.
    ///
    /// # Errors
    /// A sentence about the files of TLS.
    pub fn new(target: &StoreTarget, runtime: Handle) -> Result<Self, String> {
        let client = target.way.client(ClientOptions {
            redirects: Redirects::SameHost,
            timeout: TIMEOUT,
            gzip: true,
            http2: true,
            guarded: Guarded::Nothing,
        })?;
        Ok(Self { client, base: target.url.clone(), way: target.way.clone(), runtime })
    }

    /// Posts a body; answers the body of a success.
    fn post(
        &self,
        path: &str,
        content_type: &'static str,
        encoding: &'static str,
        body: Vec<u8>,
    ) -> Result<Vec<u8>, AppendError> {
        let url = target::below(&self.base, path);
        self.runtime.block_on(async {
            let headers = self.way.headers().await.map_err(AppendError::Unavailable)?;
            let request = self
                .client
                .post(url)
                .headers(headers)
                .header("content-type", content_type)
                .header("content-encoding", encoding)
                .body(body);
            let failed = |error| AppendError::Unavailable(chain(error));
            let response = request.send().await.map_err(failed)?;
            let (status, headers) = (response.status(), response.headers().clone());
            let body = bounded(response).await?;
            if status.is_success() { Ok(body) } else { Err(refusal(status, &headers, &body)) }
        })
    }
}

async fn bounded(mut response: Response) -> Result<Vec<u8>, AppendError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| AppendError::Unavailable(chain(error)))? {
        if body.len() + chunk.len() > ANSWER_MAX_BYTES {
            return Err(AppendError::Unavailable(format!("an answer of more than {ANSWER_MAX_BYTES} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// What an answer means that is no success.
fn refusal(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> AppendError {
    let retry_after = headers.get("retry-after");
    let has_retry_after = retry_after.is_some();
    let retry_after = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
    let retry_after = retry_after.map_or(Duration::from_secs(1), Duration::from_secs);
    let reason = String::from_utf8_lossy(&body[..body.len().min(REASON_MAX_BYTES)]).into_owned();
    let reason = format!("{status}: {}", reason.trim());
    match status {
        StatusCode::TOO_MANY_REQUESTS => AppendError::Full { what: "the store's queue", retry_after },
        // A store that is full says when to come again; one that starts, or a proxy without a store, does not matter.
        StatusCode::SERVICE_UNAVAILABLE if has_retry_after => {
            AppendError::Full { what: "the store", retry_after }
        }
        _ if headers.get(FINAL_REFUSAL).is_some_and(|kind| kind == OVERTAKEN) => {
            AppendError::Overtaken(reason)
        }
        _ if headers.contains_key(FINAL_REFUSAL) => AppendError::Invalid(reason),
        // A proxy's, or a server's that is none of ours: it may pass, and what it did not take is kept.
        _ => AppendError::Unavailable(reason),
    }
}

impl PodSink for RemoteStore {
    fn save_pods(&self, pods: &[PodMetadata]) -> Result<(), AppendError> {
        let body = serde_json::to_vec(pods).map_err(|error| AppendError::Invalid(error.to_string()))?;
        self.post("/api/collect/pods", "application/json", "identity", body).map(|_| ())
    }
}

impl LogSink for RemoteStore {
    fn send(&self, wire: &[u8]) -> Result<LogAppendReport, AppendError> {
        let answer = self.post("/api/collect/logs", PROTOBUF, "snappy", snapped(wire)?)?;
        let answer: PushAnswer = read(&answer)?;
        Ok(LogAppendReport {
            appended: answer.appended,
            duplicate: answer.duplicate,
            gap_bytes: answer.gap_bytes,
        })
    }

    fn marks(&self, files: &[String]) -> Result<Vec<u64>, AppendError> {
        let body = serde_json::json!({ "files": files }).to_string().into_bytes();
        let answer = self.post("/api/collect/marks", "application/json", "identity", body)?;
        let answer: MarksAnswer = read(&answer)?;
        if answer.marks.len() != files.len() {
            return Err(AppendError::Unavailable("answer has marks of other files".to_owned()));
        }
        Ok(answer.marks)
    }

    fn report(&self, report: &NodeReport) -> Result<(), AppendError> {
        let body = serde_json::to_vec(report).map_err(|error| AppendError::Invalid(error.to_string()))?;
        self.post("/api/collect/report", "application/json", "identity", body).map(|_| ())
    }
}

/// In snappy's block format.
fn snapped(plain: &[u8]) -> Result<Vec<u8>, AppendError> {
    let body = snap::raw::Encoder::new().compress_vec(plain);
    body.map_err(|error| AppendError::Invalid(error.to_string()))
}

fn read<'a, T: Deserialize<'a>>(answer: &'a [u8]) -> Result<T, AppendError> {
    serde_json::from_slice(answer)
        .map_err(|error| AppendError::Unavailable(format!("answer cannot be read: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_the_store_itself_refuses_for_good() {
        let refused = |status: u16, ours: bool| {
            let mut headers = HeaderMap::new();
            if ours {
                headers.insert(FINAL_REFUSAL, "final".parse().unwrap());
            }
            matches!(refusal(StatusCode::from_u16(status).unwrap(), &headers, b""), AppendError::Invalid(_))
        };
        for status in [400, 413, 415, 422] {
            assert!(refused(status, true) && !refused(status, false), "{status}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(FINAL_REFUSAL, OVERTAKEN.parse().unwrap());
        assert!(matches!(refusal(StatusCode::CONFLICT, &headers, b""), AppendError::Overtaken(_)));
        assert!(!refused(409, false));
        assert!(!refused(503, false) && !refused(404, false) && !refused(429, true));
    }
}
