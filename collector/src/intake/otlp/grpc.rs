//! The same over gRPC, off unless an address is given: a message with five bytes before it, and a status behind.
//!
//! ```text
//! POST /opentelemetry.proto.collector.logs.v1.LogsService/Export        application/grpc
//! request   flag (1: gzip)   length, 4 bytes   ExportLogsServiceRequest
//! answer    0                length, 4 bytes   ExportLogsServiceResponse   trailers: grpc-status: 0
//! refusal   headers alone: grpc-status, grpc-message, grpc-status-details-bin (`google.rpc.Status`)
//! ```
//!
//! Two unary calls do not need a framework: HTTP/2 is hyper's, which is here for others, and what is read and stored
//! is what the HTTP doors read and store. What comes when the store takes nothing is `UNAVAILABLE` with `RetryInfo`:
//! every sender tries that again, and `RESOURCE_EXHAUSTED` only some.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use http_body_util::{BodyExt, Full};
use prost::Message;

use super::message::{Answer, Any, Delay, PartialSuccess, RetryInfo, Status};
use super::{Encoding, INTERNAL, INVALID_ARGUMENT, Outcome, Taken, UNAVAILABLE};
use crate::intake::{Intake, Refusal, body_length, header_text, read_body};

/// `grpc-status`: no such method, or encoding.
const UNIMPLEMENTED: i32 = 12;

/// Before each message: whether it is compressed, and how long it is.
const PREFIX_BYTES: usize = 5;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");
const GRPC_ACCEPTS: HeaderName = HeaderName::from_static("grpc-accept-encoding");

/// Longest reason in a header, after escaping.
const REASON_MAX_BYTES: usize = 1024;

/// The methods of OTLP's services for logs and metrics. They belong on a listener that speaks HTTP/2.
pub fn grpc_router(intake: Arc<Intake>) -> Router {
    Router::new()
        .route("/opentelemetry.proto.collector.logs.v1.LogsService/Export", post(logs))
        .route("/opentelemetry.proto.collector.metrics.v1.MetricsService/Export", post(metrics))
        .fallback(async || refuse_as(UNIMPLEMENTED, "there is no such method here", None))
        .method_not_allowed_fallback(async || StatusCode::METHOD_NOT_ALLOWED)
        .with_state(intake)
}

async fn logs(State(intake): State<Arc<Intake>>, request: Request) -> Response {
    let done = async { super::logs::take(&intake, taken(&intake, request).await?, Encoding::Protobuf).await };
    answer(done.await.map_err(Refused::from))
}

async fn metrics(State(intake): State<Arc<Intake>>, request: Request) -> Response {
    let done = async { super::take(&intake, taken(&intake, request).await?, Encoding::Protobuf).await };
    answer(done.await.map_err(Refused::from))
}

/// The one message of a request.
async fn taken(intake: &Intake, request: Request) -> Result<Taken, Refusal> {
    let kind = header_text(request.headers(), "content-type");
    if !matches!(kind, "application/grpc" | "application/grpc+proto") {
        return Err(Refusal::Unsupported(format!("{kind:?} is not taken; send application/grpc")));
    }
    let encoding = header_text(request.headers(), "grpc-encoding").to_owned();
    let length = body_length(request.headers());
    let place = intake.place(length).await?;
    let body = read_body(request.into_body(), length).await?;
    let (is_compressed, message) = message_of(&body)?;
    match (is_compressed, &*encoding) {
        (true, "gzip") | (false, _) => Ok(Taken { place, body: message, is_gzip: is_compressed }),
        (true, other) => {
            Err(Refusal::Unsupported(format!("grpc-encoding {other:?} is not taken; send gzip")))
        }
    }
}

/// Whether the message is compressed, and its bytes.
fn message_of(body: &Bytes) -> Result<(bool, Bytes), Refusal> {
    let bad = |reason: &str| Refusal::Bad(format!("request is no gRPC message: {reason}"));
    let Some(([flag, length @ ..], message)) = body.split_first_chunk::<PREFIX_BYTES>() else {
        return Err(bad("it ends before its length"));
    };
    if u32::from_be_bytes(*length) as usize != message.len() {
        return Err(bad("its length is another; one message is expected"));
    }
    match flag {
        0 | 1 => Ok((*flag == 1, body.slice(PREFIX_BYTES..))),
        _ => Err(bad("its first byte is neither 0 nor 1")),
    }
}

/// A refusal as gRPC has it.
struct Refused {
    code: i32,
    reason: String,
    retry_seconds: Option<u64>,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let is_encoding = matches!(refusal, Refusal::Unsupported(_));
        let (status, reason, retry_seconds) = refusal.into_parts();
        let code = match status {
            StatusCode::SERVICE_UNAVAILABLE => UNAVAILABLE,
            StatusCode::INTERNAL_SERVER_ERROR => INTERNAL,
            _ if is_encoding => UNIMPLEMENTED,
            _ => INVALID_ARGUMENT,
        };
        Self { code, reason, retry_seconds }
    }
}

fn answer(done: Result<Outcome, Refused>) -> Response {
    let Outcome { rejected, kept, reason } = match done {
        Ok(outcome) => outcome,
        Err(Refused { code, reason, retry_seconds }) => return refuse_as(code, &reason, retry_seconds),
    };
    if rejected > 0 && kept == 0 {
        return refuse_as(INVALID_ARGUMENT, &reason, None);
    }
    let partial_success = (rejected > 0 || !reason.is_empty())
        .then_some(PartialSuccess { rejected: rejected as i64, error_message: reason });
    let message = Answer { partial_success }.encode_to_vec();
    let mut framed = vec![0];
    framed.extend((message.len() as u32).to_be_bytes());
    framed.extend(message);
    let mut trailers = HeaderMap::new();
    trailers.insert(GRPC_STATUS, HeaderValue::from(0));
    let body = Full::<Bytes>::from(framed).with_trailers(std::future::ready(Some(Ok(trailers))));
    ([(header::CONTENT_TYPE, "application/grpc")], Body::new(body)).into_response()
}

fn refuse_as(code: i32, reason: &str, retry_seconds: Option<u64>) -> Response {
    let retry = retry_seconds.map(|seconds| Any {
        type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(),
        value: RetryInfo { retry_delay: Some(Delay { seconds: seconds as i64 }) }.encode_to_vec(),
    });
    let reason = cut(reason);
    let status = Status { code, message: reason.to_owned(), details: retry.into_iter().collect() };
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(GRPC_STATUS, HeaderValue::from(code));
    headers.insert(GRPC_ACCEPTS, HeaderValue::from_static("gzip"));
    let details = STANDARD_NO_PAD.encode(status.encode_to_vec());
    for (name, value) in [(GRPC_MESSAGE, escaped(reason)), (GRPC_DETAILS, details)] {
        // Both are made of visible ASCII.
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
    response
}

/// Not longer than a header may be.
fn cut(reason: &str) -> &str {
    let mut end = reason.len().min(REASON_MAX_BYTES / 3);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    &reason[..end]
}

/// Percent signs and all but visible ASCII are escaped in `grpc-message`.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use tower::ServiceExt;

    use super::*;
    use crate::intake::doubles::{Kept, intake};

    const LOGS: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
    const METRICS: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";

    fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
        [&[flag][..], &(message.len() as u32).to_be_bytes(), message].concat()
    }

    /// A line of text in a request for logs.
    fn request() -> Vec<u8> {
        let json = br#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"timeUnixNano":1,"body":{"stringValue":"x"}}]}]}]}"#;
        super::super::message::from_json::<super::super::message::LogsRequest>(json).unwrap().encode_to_vec()
    }

    /// `grpc-status` with the reason and details, or with the message of the answer.
    async fn asked(
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
        kept: &Arc<Kept>,
    ) -> (i32, String, Vec<u8>) {
        let mut request = Request::post(path).header("content-type", "application/grpc");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let router = grpc_router(intake(kept));
        let answer = router.oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
        assert_eq!(answer.headers()["content-type"], "application/grpc");
        let text = |headers: &HeaderMap, name: &HeaderName| {
            headers.get(name).map_or_else(String::new, |value| value.to_str().unwrap().to_owned())
        };
        let (parts, body) = answer.into_parts();
        if parts.headers.contains_key(GRPC_STATUS) {
            let details = STANDARD_NO_PAD.decode(text(&parts.headers, &GRPC_DETAILS)).unwrap();
            let code = text(&parts.headers, &GRPC_STATUS).parse().unwrap();
            return (code, text(&parts.headers, &GRPC_MESSAGE), details);
        }
        let body = body.collect().await.unwrap();
        let code = text(body.trailers().unwrap(), &GRPC_STATUS).parse().unwrap();
        (code, String::new(), body.to_bytes().to_vec())
    }

    #[tokio::test]
    async fn a_message_is_kept_plain_and_gzipped() {
        let kept = Arc::default();
        let done = asked(LOGS, &[], framed(0, &request()), &kept).await;
        assert_eq!(done, (0, String::new(), vec![0; 5]));
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&request()).unwrap();
        let gzip = framed(1, &gzip.finish().unwrap());
        assert_eq!(asked(LOGS, &[("grpc-encoding", "gzip")], gzip.clone(), &kept).await.0, 0);
        assert_eq!(kept.shown(), ["service=unknown_service", "1|||x|"].repeat(2));
        assert_eq!(asked(METRICS, &[], framed(0, b""), &kept).await.0, 0);
        let (code, reason, _) = asked(LOGS, &[("grpc-encoding", "snappy")], gzip, &kept).await;
        assert_eq!((code, reason.contains("send gzip")), (UNIMPLEMENTED, true));
    }

    #[tokio::test]
    async fn refusals_say_whether_to_come_again() {
        let (code, reason, details) = asked(LOGS, &[], framed(0, &request()), &Kept::full()).await;
        assert_eq!((code, &*reason), (UNAVAILABLE, "too many writes at once"));
        let status = Status::decode(&*details).unwrap();
        let retry = RetryInfo::decode(&*status.details[0].value).unwrap();
        assert_eq!((status.code, retry.retry_delay.unwrap().seconds), (UNAVAILABLE, 7));
        let kept = Arc::default();
        for (path, body, code, says) in [
            (LOGS, vec![0; 3], INVALID_ARGUMENT, "ends before its length"),
            (LOGS, [framed(0, b""), framed(0, b"")].concat(), INVALID_ARGUMENT, "one message is expected"),
            (LOGS, framed(2, b""), INVALID_ARGUMENT, "neither 0 nor 1"),
            (LOGS, framed(0, b"\xff\xff"), INVALID_ARGUMENT, "ends too soon"),
            (METRICS, framed(0, b"\xff\xff"), INVALID_ARGUMENT, "ends too soon"),
            ("/x.Y/Z", framed(0, b""), UNIMPLEMENTED, "no such method"),
        ] {
            let (found, reason, details) = asked(path, &[], body, &kept).await;
            assert!(found == code && reason.contains(says), "{path}: {found} {reason}");
            assert!(Status::decode(&*details).unwrap().details.is_empty());
        }
        assert_eq!((escaped("50 % ü\n"), cut(&"ü".repeat(400)).len()), ("50 %25 %C3%BC%0A".to_owned(), 340));
    }
}
