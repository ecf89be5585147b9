//! The doors by which others write: remote write, OTLP's metrics and logs, pages of text, Loki's pushes, Elasticsearch's
//! `_bulk`, lines of JSON, syslog, and our own collectors' lines.
//!
//! Every size is checked before anything is allocated for it. Writes wait for their place and for room in memory; where
//! none comes free, the answer is 503 with `Retry-After`, which every sender takes to try again: Prometheus throws away
//! what 429 refuses. Nothing is acknowledged before it is durable.

#[cfg(test)]
mod doubles;
mod draft;
mod elastic;
mod histogram;
mod logs;
mod loki;
mod ndjson;
mod otlp;
mod remote_write;
mod syslog;
mod text;
mod wire;
mod write_v2;

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use binnacle_model::storage::{AppendError, Appender, LogAppender, PodSink, Unsynced};
use binnacle_model::time::Clock;
use http_body_util::LengthLimitError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::Telemetry;
use crate::completeness::Reports;

pub use elastic::try_read as try_read_bulk;
pub use loki::try_read as try_read_loki;
pub use ndjson::try_read as try_read_ndjson;
pub(crate) use otlp::message as otlp_messages;
pub use otlp::{
    OtlpOptions, TranslationStrategy, grpc_router, try_read as try_read_otlp,
    try_read_logs as try_read_otlp_logs,
};
#[cfg(test)]
pub(crate) use remote_write::WireLabels;
pub(crate) use remote_write::put_labels;
pub use remote_write::{encode_write_request, write_request};
pub use syslog::{SyslogListeners, try_read as try_read_syslog};
pub use wire::WireError;
pub(crate) use wire::{put_bytes, put_varint};
pub use write_v2::write_request_v2;

/// Longest body of which the length is not told.
const UNTOLD_MAX_BYTES: usize = 8 * 1024 * 1024;

/// Longest body on the wire.
const BODY_MAX_BYTES: usize = 32 * 1024 * 1024;

/// For a whole body to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest body once decompressed.
const DECODED_MAX_BYTES: usize = 64 * 1024 * 1024 - 4096;

/// Writes under way at once; each holds a body and a thread that waits for the disk.
const MAX_WRITES: usize = 32;

/// For a place, and for room in memory.
const PLACE_TIMEOUT: Duration = Duration::from_secs(10);

/// Bodies on the wire of all writes together, in KiB.
const BODIES_ROOM: usize = 256 * 1024;

/// What all writes together make of their bodies, in KiB; of each decoded byte they make so many.
const DECODED_ROOM: usize = 512 * 1024;
const MADE_OF_BYTE: usize = 3;

/// Pages of any length under way at once; each holds some megabytes for as long as its sender takes.
const MAX_IMPORTS: usize = 8;

/// What the handlers share.
pub struct Intake {
    metrics: Arc<dyn Appender>,
    logs: Arc<dyn LogAppender>,
    pods: Arc<dyn PodSink>,
    clock: Arc<dyn Clock>,
    telemetry: Telemetry,
    places: Arc<Semaphore>,
    /// In KiB.
    bodies: Arc<Semaphore>,
    /// In KiB.
    decoded: Arc<Semaphore>,
    /// Bytes of lines for which [`Admitted`] speaks.
    admitted: Arc<AtomicUsize>,
    /// For pages of any length, which take their places part by part.
    imports: Arc<Semaphore>,
    otlp: Arc<OtlpOptions>,
    reports: Arc<Reports>,
}

/// Where the doors lead.
pub struct Stores {
    /// For samples.
    pub metrics: Arc<dyn Appender>,
    /// For lines.
    pub logs: Arc<dyn LogAppender>,
    /// For what Kubernetes says of pods.
    pub pods: Arc<dyn PodSink>,
}

impl Intake {
    /// Doors to these stores.
    pub fn new(stores: Stores, clock: Arc<dyn Clock>, telemetry: Telemetry, otlp: OtlpOptions) -> Arc<Self> {
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        let (places, imports) = (semaphore(MAX_WRITES), semaphore(MAX_IMPORTS));
        let (bodies, decoded) = (semaphore(BODIES_ROOM), semaphore(DECODED_ROOM));
        let otlp = Arc::new(otlp);
        let (admitted, reports) = (Arc::default(), Arc::default());
        let Stores { metrics, logs, pods } = stores;
        Arc::new(Self {
            metrics,
            logs,
            pods,
            clock,
            telemetry,
            places,
            bodies,
            decoded,
            admitted,
            imports,
            otlp,
            reports,
        })
    }

    /// What collectors said of their files.
    pub fn reports(&self) -> Arc<Reports> {
        Arc::clone(&self.reports)
    }

    /// A place for one write, and room for its body, taken before that is read.
    async fn place(&self, length: usize) -> Result<Place, Refusal> {
        let write = self.take(&self.places, 1).await?;
        let body = self.take(&self.bodies, kib(length)).await?;
        Ok(Place { _write: write, _body: body })
    }

    /// Waits its turn for some of a semaphore.
    async fn take(&self, of: &Arc<Semaphore>, permits: u32) -> Result<OwnedSemaphorePermit, Refusal> {
        let taken = tokio::time::timeout(PLACE_TIMEOUT, Arc::clone(of).acquire_many_owned(permits)).await;
        taken.ok().and_then(Result::ok).ok_or_else(|| {
            self.telemetry.intake_shed.inc();
            Refusal::Busy(1)
        })
    }

    /// Runs blocking `work` in its place once there is room for what it makes of `decoded` bytes.
    async fn run<T: Send + 'static>(
        &self,
        place: Place,
        decoded: usize,
        work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let room = self.take(&self.decoded, kib(decoded.saturating_mul(MADE_OF_BYTE))).await?;
        let task = tokio::task::spawn_blocking(move || {
            let _held = (place, room);
            work()
        });
        let done = task.await;
        let done =
            done.unwrap_or_else(|error| Err(Refusal::Failed(format!("write ended abnormally: {error}"))));
        done.map_err(|refusal| self.shed(refusal))
    }

    /// As [`Self::run`], for lines of which the store takes as many as `decoded` bytes are: what it would refuse is not
    /// decoded.
    async fn run_lines<T: Send + 'static>(
        &self,
        place: Place,
        decoded: usize,
        work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let admitted = self.admit(decoded).map_err(|refusal| self.shed(refusal))?;
        let work = move || {
            let _held = admitted;
            work()
        };
        self.run(place, decoded, work).await
    }

    /// Room in the store for lines; there is always some for a body alone, unless it is full.
    fn admit(&self, bytes: usize) -> Result<Admitted, Refusal> {
        let room = self.logs.room()?;
        let admitted = Admitted { all: Arc::clone(&self.admitted), bytes };
        let before = self.admitted.fetch_add(bytes, Ordering::Relaxed);
        if before > 0 && before.saturating_add(bytes) > room {
            return Err(Refusal::Busy(1));
        }
        Ok(admitted)
    }

    /// Room for what is made of `decoded` bytes, if there is some without waiting.
    fn room_now(&self, decoded: usize) -> Option<OwnedSemaphorePermit> {
        let wanted = kib(decoded.saturating_mul(MADE_OF_BYTE));
        Arc::clone(&self.decoded).try_acquire_many_owned(wanted).ok()
    }

    /// Counts what was sent away because too much came at once.
    fn shed(&self, refusal: Refusal) -> Refusal {
        if matches!(refusal, Refusal::Busy(_)) {
            self.telemetry.intake_shed.inc();
        }
        refusal
    }
}

/// Waits until what was taken is durable; a thread is asked for only if none writes yet.
async fn synced(unsynced: Arc<dyn Unsynced>) -> Result<(), Refusal> {
    let done = std::future::poll_fn(|context| {
        let (done, is_asked) = unsynced.poll(context);
        if is_asked {
            let writer = Arc::clone(&unsynced);
            tokio::task::spawn_blocking(move || writer.write());
        }
        done
    });
    done.await.map_err(Refusal::from)
}

/// Room for lines that are on their way to the store.
struct Admitted {
    all: Arc<AtomicUsize>,
    bytes: usize,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// What a write holds from its first byte to its answer.
struct Place {
    _write: OwnedSemaphorePermit,
    _body: OwnedSemaphorePermit,
}

/// Longest decoded body that is taken on the thread that read it. To give it to another thread and to hear from it costs
/// more than what is usual, 2,000 samples of known series; where all series are new it is several times that.
const INLINE_MAX_BYTES: usize = 1024 * 1024;

/// Permits for so many bytes; never more than there are.
fn kib(bytes: usize) -> u32 {
    bytes.div_ceil(1024).min(BODIES_ROOM.max(DECODED_ROOM)) as u32
}

/// The routes of all doors.
pub fn router(intake: Arc<Intake>) -> Router {
    Router::new()
        .route("/api/v1/write", post(remote_write::handle))
        .route("/api/v1/otlp/v1/metrics", post(otlp::handle))
        .route("/v1/logs", post(otlp::handle_logs))
        .route("/otlp/v1/logs", post(otlp::handle_logs))
        .route("/api/v1/import/prometheus", post(text::handle).layer(DefaultBodyLimit::disable()))
        .route("/api/collect/logs", post(logs::handle))
        .route("/api/collect/marks", post(logs::marks))
        .route("/api/collect/report", post(logs::report))
        .route("/api/collect/pods", post(logs::pods))
        .route("/api/completeness", get(logs::completeness))
        .route("/loki/api/v1/push", post(loki::handle))
        .route("/api/logs/ndjson", post(ndjson::handle))
        .route("/elastic", any(elastic::handle))
        .route("/elastic/", any(elastic::handle))
        .route("/elastic/{*path}", any(elastic::handle))
        .with_state(intake)
}

/// Of answers by which something is refused for good: proxies between us and our collectors have the same statuses.
pub(crate) const FINAL_REFUSAL: &str = "x-binnacle-refusal";

/// What it says where a part of the bytes was there already.
pub(crate) const OVERTAKEN: &str = "overtaken";

/// Why a write was not taken.
#[derive(Debug)]
enum Refusal {
    /// It is wrong and will be wrong again.
    Bad(String),
    /// The body is of a kind that this door does not take.
    Unsupported(String),
    /// It is too large.
    TooLarge(String),
    /// It did not arrive, and may the next time.
    Late(String),
    /// Come back after so many seconds.
    Busy(u64),
    /// The store takes no writes for now.
    Unavailable(String),
    /// The store has a part of it.
    Overtaken(String),
    /// A defect of ours.
    Failed(String),
}

impl From<AppendError> for Refusal {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Full { retry_after, .. } => Self::Busy(retry_after.as_secs().max(1)),
            AppendError::Invalid(reason) => Self::Bad(reason),
            AppendError::Unavailable(reason) => Self::Unavailable(reason),
            AppendError::Overtaken(reason) => Self::Overtaken(reason),
        }
    }
}

impl Refusal {
    /// The status, what to say, and after how many seconds to come again.
    fn into_parts(self) -> (StatusCode, String, Option<u64>) {
        match self {
            Self::Bad(reason) => (StatusCode::BAD_REQUEST, reason, None),
            Self::Unsupported(reason) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, reason, None),
            Self::TooLarge(reason) => (StatusCode::PAYLOAD_TOO_LARGE, reason, None),
            // Senders take a 4xx for the end of it; this one is worth another try.
            Self::Late(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason, Some(1)),
            Self::Busy(seconds) => {
                (StatusCode::SERVICE_UNAVAILABLE, "too many writes at once".to_owned(), Some(seconds))
            }
            Self::Unavailable(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason, Some(5)),
            Self::Overtaken(reason) => (StatusCode::CONFLICT, reason, None),
            Self::Failed(reason) => (StatusCode::INTERNAL_SERVER_ERROR, reason, None),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let kind = match self {
            Self::Bad(_) | Self::Unsupported(_) | Self::TooLarge(_) => Some("final"),
            Self::Overtaken(_) => Some(OVERTAKEN),
            _ => None,
        };
        let (status, reason, retry) = self.into_parts();
        let mut response = retry_after((status, reason + "\n").into_response(), retry);
        if let Some(kind) = kind {
            response.headers_mut().insert(FINAL_REFUSAL, HeaderValue::from_static(kind));
        }
        response
    }
}

/// Says after how many seconds to come again.
fn retry_after(mut response: Response, seconds: Option<u64>) -> Response {
    if let Some(seconds) = seconds {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Reads a body, which must come within a time: it holds a place.
async fn read_body(body: Body, most: usize) -> Result<Bytes, Refusal> {
    let read = tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, most)).await;
    let read = read.map_err(|_| Refusal::Late(format!("body did not come within {BODY_TIMEOUT:?}")))?;
    read.map_err(|error| {
        let is_long = error.into_inner().is::<LengthLimitError>();
        if is_long {
            Refusal::TooLarge(format!("body is longer than {most} bytes, or does not say its length"))
        } else {
            Refusal::Late("body was cut off".to_owned())
        }
    })
}

thread_local! {
    /// What the last write of this thread was decoded into: memory that is there already.
    static DECODED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A thread keeps so much of it for the next write.
const DECODED_KEPT_BYTES: usize = 4 * 1024 * 1024;

/// As [`unsnap`], for work that needs the bytes no longer.
fn unsnapped<T>(body: &[u8], work: impl FnOnce(&[u8]) -> Result<T, Refusal>) -> Result<T, Refusal> {
    let length = decoded_len(body)?;
    let mut buffer = DECODED.take();
    if buffer.len() < length {
        buffer.resize(length, 0);
    }
    let plain = &mut buffer[..length];
    let decoded = snap::raw::Decoder::new().decompress(body, plain);
    let done = decoded.map_err(|error| not_snappy(&error)).and_then(|length| work(&plain[..length]));
    if buffer.len() <= DECODED_KEPT_BYTES {
        DECODED.set(buffer);
    }
    done
}

/// How long a body will be once snappy is undone, as far as it can be believed.
fn unsnapped_len(body: &[u8]) -> usize {
    snap::raw::decompress_len(body).unwrap_or(0).min(DECODED_MAX_BYTES)
}

/// Undoes snappy's block format; the length that the block says is checked before it is believed.
fn unsnap(body: &[u8]) -> Result<Vec<u8>, Refusal> {
    decoded_len(body)?;
    snap::raw::Decoder::new().decompress_vec(body).map_err(|error| not_snappy(&error))
}

fn decoded_len(body: &[u8]) -> Result<usize, Refusal> {
    let length = snap::raw::decompress_len(body).map_err(|error| not_snappy(&error))?;
    if length > DECODED_MAX_BYTES {
        let reason = format!("decoded body would have {length} bytes, more than {DECODED_MAX_BYTES}");
        return Err(Refusal::TooLarge(reason));
    }
    Ok(length)
}

fn not_snappy(error: &snap::Error) -> Refusal {
    Refusal::Bad(format!("body is not snappy: {error}"))
}

/// How long a body may be: as long as it says.
fn body_length(headers: &HeaderMap) -> usize {
    let said = header_text(headers, header::CONTENT_LENGTH.as_str()).parse();
    said.map_or(UNTOLD_MAX_BYTES, |length: usize| length.min(BODY_MAX_BYTES))
}

fn header_text<'h>(headers: &'h HeaderMap, name: &str) -> &'h str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use axum::http::Request;
    use tower::ServiceExt;

    use super::doubles::{Kept, ROOM, intake};
    use super::*;

    /// A body that no door can read: whoever decodes it says that it is bad.
    #[tokio::test]
    async fn what_a_full_store_would_refuse_is_not_decoded() {
        let doors = [
            ("/loki/api/v1/push", "application/x-protobuf"),
            ("/loki/api/v1/push", "application/json"),
            ("/elastic/_bulk", "application/json"),
            ("/api/logs/ndjson", "application/json"),
            ("/v1/logs", "application/x-protobuf"),
            ("/api/collect/logs", "application/x-protobuf"),
        ];
        for (kept, want) in [(Kept::full(), 503), (Arc::default(), 400)] {
            for (path, kind) in doors {
                let request = Request::post(path).header("content-type", kind).header("content-length", 4);
                let request = request.body(Body::from(&b"\0{[\xff"[..])).unwrap();
                let answer = router(intake(&kept)).oneshot(request).await.unwrap();
                assert_eq!(answer.status().as_u16(), want, "{path} {kind}");
            }
        }
    }

    #[test]
    fn bodies_are_admitted_up_to_the_room_and_one_always() {
        let intake = intake(&Arc::default());
        let is_refused = |bytes: usize| matches!(intake.admit(bytes), Err(Refusal::Busy(1)));
        let large = intake.admit(3 * ROOM).ok().unwrap();
        assert!(is_refused(1));
        drop(large);
        let (first, second) = (intake.admit(ROOM / 2).ok().unwrap(), intake.admit(ROOM / 2).ok().unwrap());
        assert!(is_refused(1));
        drop(first);
        assert!(is_refused(ROOM / 2 + 1));
        let third = intake.admit(ROOM / 2).ok().unwrap();
        drop((second, third));
        assert_eq!(intake.admitted.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_full_queue_and_a_failed_store_say_when_to_come_again() {
        let retry = |error: AppendError| {
            let response = Refusal::from(error).into_response();
            let after =
                response.headers().get(header::RETRY_AFTER).map(|value| value.to_str().unwrap().to_owned());
            (response.status().as_u16(), after)
        };
        let full = AppendError::Full { what: "queue", retry_after: Duration::from_secs(3) };
        assert_eq!(retry(full), (503, Some("3".to_owned())));
        assert_eq!(retry(AppendError::Unavailable("disk".to_owned())), (503, Some("5".to_owned())));
        assert_eq!(retry(AppendError::Invalid("labels".to_owned())), (400, None));
        assert_eq!(retry(AppendError::Overtaken("part".to_owned())), (409, None));
    }

    #[test]
    fn a_length_that_lies_is_refused_before_it_is_believed() {
        assert!(matches!(unsnap(&[0xff, 0xff, 0xff, 0xff, 0x0f]), Err(Refusal::TooLarge(_))));
        assert!(matches!(unsnap(b"\x05nope"), Err(Refusal::Bad(_))));
        assert!(matches!(unsnapped(b"\x05nope", |_| Ok(())), Err(Refusal::Bad(_))));
        for text in [&b"a longer text first"[..], b"short", b""] {
            let body = snap::raw::Encoder::new().compress_vec(text).unwrap();
            assert!(unsnapped(&body, |plain| Ok(plain == text)).is_ok_and(|is_same| is_same));
        }
    }
}
