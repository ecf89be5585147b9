//! A store across the network, behind the same traits as one in this process.
//!
//! Samples go by remote write, lines by `/api/collect/logs`. Both calls block until the other side
//! has made the data durable, and say whether trying again will help.

use std::time::Duration;

use binnacle_model::storage::{
    AppendError, AppendReport, Appender, LogAppendReport, Metadata, PodMetadata, PodSink, RawSeries,
    SeriesDecoder,
};
use binnacle_model::{Labels, Sample};
use reqwest::StatusCode;
use serde::Deserialize;
use tokio::runtime::Handle;

use crate::completeness::NodeReport;
use crate::intake::encode_write_request;
use crate::tail::LogSink;

const PROTOBUF: &str = "application/x-protobuf";

/// Bytes of an error's body that are shown.
const REASON_MAX_BYTES: usize = 500;

/// A store behind a URL.
pub struct RemoteStore {
    client: reqwest::Client,
    base: reqwest::Url,
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
    /// A store at `base`, such as `http://binnacle:9090`.
    ///
    /// # Errors
    /// A sentence about the URL or this machine's TLS.
    pub fn new(base: &str, runtime: Handle) -> Result<Self, String> {
        let base = reqwest::Url::parse(base).map_err(|error| format!("store url {base:?}: {error}"))?;
        let client = crate::http_client(Duration::from_secs(30)).map_err(|error| error.to_string())?;
        Ok(Self { client, base, runtime })
    }

    /// Posts a body; answers the body of a success.
    fn post(
        &self,
        path: &str,
        content_type: &'static str,
        encoding: &'static str,
        body: Vec<u8>,
    ) -> Result<Vec<u8>, AppendError> {
        let failed = |reason: String| AppendError::Unavailable(reason);
        let url = self.base.join(path).map_err(|error| failed(error.to_string()))?;
        let request = self
            .client
            .post(url)
            .header("content-type", content_type)
            .header("content-encoding", encoding)
            .header("x-prometheus-remote-write-version", "0.1.0")
            .body(body);
        self.runtime.block_on(async {
            let response = request.send().await.map_err(|error| failed(error.to_string()))?;
            let status = response.status();
            let has_retry_after = response.headers().contains_key("retry-after");
            let retry_after = response
                .headers()
                .get("retry-after")
                .and_then(|value| value.to_str().ok()?.parse().ok())
                .map_or(Duration::from_secs(1), Duration::from_secs);
            let body = response.bytes().await.map_err(|error| failed(error.to_string()))?;
            if status.is_success() {
                return Ok(body.to_vec());
            }
            let reason = String::from_utf8_lossy(&body[..body.len().min(REASON_MAX_BYTES)]).into_owned();
            let reason = format!("{status}: {}", reason.trim());
            Err(match status {
                StatusCode::TOO_MANY_REQUESTS => AppendError::Full { what: "the store's queue", retry_after },
                // Others may be a proxy's, or a store's that is being rolled out: they pass.
                // A store that is full says when to come again; one that starts, or a proxy without a store, does not matter.
                StatusCode::SERVICE_UNAVAILABLE if has_retry_after => {
                    AppendError::Full { what: "the store", retry_after }
                }
                StatusCode::BAD_REQUEST
                // The parts may be small enough one by one.
                | StatusCode::PAYLOAD_TOO_LARGE
                | StatusCode::UNSUPPORTED_MEDIA_TYPE
                | StatusCode::UNPROCESSABLE_ENTITY => AppendError::Invalid(reason),
                _ => AppendError::Unavailable(reason),
            })
        })
    }
}

impl Appender for RemoteStore {
    fn append(
        &self,
        batch: &[RawSeries<'_>],
        decoder: &dyn SeriesDecoder,
    ) -> Result<AppendReport, AppendError> {
        let mut series: Vec<(Labels, &[Sample])> = Vec::with_capacity(batch.len());
        for one in batch {
            let labels = decoder.decode(one.labels);
            let labels = labels.map_err(|error| AppendError::Invalid(error.to_string()))?;
            series.push((labels, one.samples));
        }
        let body = encode_write_request(series.iter().map(|(labels, samples)| (labels, *samples)));
        self.post("/api/v1/write", PROTOBUF, "snappy", snapped(&body)?)?;
        let appended = batch.iter().map(|one| one.samples.len()).sum();
        Ok(AppendReport { appended, ..AppendReport::default() })
    }

    /// Remote write 1.0 has no place for it beside samples that we would wait for; left out.
    fn append_metadata(&self, _: &[(String, Metadata)]) {}
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
