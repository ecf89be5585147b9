//! The doors by which others write: remote write, OTLP, pages of text, and our own collectors' lines.
//!
//! Every size is checked before anything is allocated for it. A full queue answers 429 or 503 with
//! `Retry-After`; nothing is acknowledged before it is durable.

mod histogram;
mod logs;
mod otlp;
mod remote_write;
mod text;
mod wire;
mod write_v2;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use binnacle_model::storage::{AppendError, Appender, LogAppender};
use binnacle_model::time::Clock;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::Telemetry;

pub use otlp::{OtlpOptions, TranslationStrategy, try_read as try_read_otlp};
#[cfg(test)]
pub(crate) use remote_write::WireLabels;
pub(crate) use remote_write::put_labels;
pub use remote_write::{encode_write_request, write_request};
pub use wire::WireError;
pub(crate) use wire::{put_bytes, put_varint};
pub use write_v2::write_request_v2;

/// Longest body on the wire.
const BODY_MAX_BYTES: usize = 32 * 1024 * 1024;

/// For a whole body to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest body once decompressed.
const DECODED_MAX_BYTES: usize = 64 * 1024 * 1024 - 4096;

/// Writes under way at once; each holds a body and a thread that waits for the disk.
const MAX_WRITES: usize = 32;

/// Pages of any length under way at once; each holds some megabytes for as long as its sender takes.
const MAX_IMPORTS: usize = 8;

/// What the handlers share.
pub struct Intake {
    metrics: Arc<dyn Appender>,
    logs: Arc<dyn LogAppender>,
    clock: Arc<dyn Clock>,
    telemetry: Telemetry,
    places: Arc<Semaphore>,
    /// For pages of any length, which take their places part by part.
    imports: Arc<Semaphore>,
    otlp: Arc<OtlpOptions>,
}

impl Intake {
    /// Doors to these stores.
    pub fn new(
        metrics: Arc<dyn Appender>,
        logs: Arc<dyn LogAppender>,
        clock: Arc<dyn Clock>,
        telemetry: Telemetry,
        otlp: OtlpOptions,
    ) -> Arc<Self> {
        let places = Arc::new(Semaphore::new(MAX_WRITES));
        let (imports, otlp) = (Arc::new(Semaphore::new(MAX_IMPORTS)), Arc::new(otlp));
        Arc::new(Self { metrics, logs, clock, telemetry, places, imports, otlp })
    }

    /// A place for one write, taken before its body is read.
    fn place(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            self.telemetry.intake_shed.inc();
            Refusal::Busy(1)
        })
    }

    /// Runs blocking `work` in its place.
    async fn run<T: Send + 'static>(
        &self,
        place: OwnedSemaphorePermit,
        work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let task = tokio::task::spawn_blocking(move || {
            let _place = place;
            work()
        });
        let done = task.await;
        let done =
            done.unwrap_or_else(|error| Err(Refusal::Failed(format!("write ended abnormally: {error}"))));
        if matches!(done, Err(Refusal::Busy(_))) {
            self.telemetry.intake_shed.inc();
        }
        done
    }
}

/// The routes of all doors.
pub fn router(intake: Arc<Intake>) -> Router {
    Router::new()
        .route("/api/v1/write", post(remote_write::handle))
        .route("/api/v1/otlp/v1/metrics", post(otlp::handle))
        .route("/api/v1/import/prometheus", post(text::handle).layer(DefaultBodyLimit::disable()))
        .route("/api/collect/logs", post(logs::handle))
        .with_state(intake)
}

/// Why a write was not taken.
#[derive(Debug)]
enum Refusal {
    /// It is wrong and will be wrong again.
    Bad(String),
    /// The body is of a kind that this door does not take.
    Unsupported(String),
    /// It is too large.
    TooLarge(String),
    /// Come back after so many seconds.
    Busy(u64),
    /// The store takes no writes for now.
    Unavailable(String),
    /// A defect of ours.
    Failed(String),
}

impl From<AppendError> for Refusal {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Full { retry_after, .. } => Self::Busy(retry_after.as_secs().max(1)),
            AppendError::Invalid(reason) => Self::Bad(reason),
            AppendError::Unavailable(reason) => Self::Unavailable(reason),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, reason, retry) = match self {
            Self::Bad(reason) => (StatusCode::BAD_REQUEST, reason, None),
            Self::Unsupported(reason) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, reason, None),
            Self::TooLarge(reason) => (StatusCode::PAYLOAD_TOO_LARGE, reason, None),
            Self::Busy(seconds) => {
                (StatusCode::TOO_MANY_REQUESTS, "write queue is full".to_owned(), Some(seconds))
            }
            Self::Unavailable(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason, Some(5)),
            Self::Failed(reason) => (StatusCode::INTERNAL_SERVER_ERROR, reason, None),
        };
        let mut response = (status, reason + "\n").into_response();
        if let Some(seconds) = retry {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// Reads a body, which must come within a time: it holds a place.
async fn read_body(body: Body) -> Result<Bytes, Refusal> {
    let read = tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, BODY_MAX_BYTES)).await;
    let read = read.map_err(|_| Refusal::Bad(format!("body did not come within {BODY_TIMEOUT:?}")))?;
    read.map_err(|_| Refusal::TooLarge(format!("body is longer than {BODY_MAX_BYTES} bytes or was cut off")))
}

/// Undoes snappy's block format; the length that the block says is checked before it is believed.
fn unsnap(body: &[u8]) -> Result<Vec<u8>, Refusal> {
    let bad = |error: snap::Error| Refusal::Bad(format!("body is not snappy: {error}"));
    let length = snap::raw::decompress_len(body).map_err(bad)?;
    if length > DECODED_MAX_BYTES {
        let reason = format!("decoded body would have {length} bytes, more than {DECODED_MAX_BYTES}");
        return Err(Refusal::TooLarge(reason));
    }
    snap::raw::Decoder::new().decompress_vec(body).map_err(bad)
}

fn header_text<'h>(headers: &'h HeaderMap, name: &str) -> &'h str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_and_a_failed_store_say_when_to_come_again() {
        let retry = |error: AppendError| {
            let response = Refusal::from(error).into_response();
            let after =
                response.headers().get(header::RETRY_AFTER).map(|value| value.to_str().unwrap().to_owned());
            (response.status().as_u16(), after)
        };
        let full = AppendError::Full { what: "queue", retry_after: Duration::from_secs(3) };
        assert_eq!(retry(full), (429, Some("3".to_owned())));
        assert_eq!(retry(AppendError::Unavailable("disk".to_owned())), (503, Some("5".to_owned())));
        assert_eq!(retry(AppendError::Invalid("labels".to_owned())), (400, None));
    }

    #[test]
    fn a_length_that_lies_is_refused_before_it_is_believed() {
        assert!(matches!(unsnap(&[0xff, 0xff, 0xff, 0xff, 0x0f]), Err(Refusal::TooLarge(_))));
        assert!(matches!(unsnap(b"\x05nope"), Err(Refusal::Bad(_))));
    }
}
