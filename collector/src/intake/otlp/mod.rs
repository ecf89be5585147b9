//! `POST /api/v1/otlp/v1/metrics` and `POST /v1/logs`: OpenTelemetry's metrics and logs, as protobuf or JSON; and the
//! same over gRPC.
//!
//! ```text
//! body ─► gunzip ─► weigh (messages counted, nothing made) ─► message ─┬─► convert (names, kinds) ─► store
//!                                                                     └─► logs (streams, levels) ─► store
//! ```
//!
//! Delta temporality is refused with a reason: the store has no memory of what was added to. What is refused of a
//! request stands in the `partialSuccess` of its answer; where nothing is left, the answer is 400. Every refusal is a
//! `Status` in the request's encoding.

mod convert;
mod grpc;
mod logs;
pub(crate) mod message;
mod names;
mod options;
#[cfg(test)]
mod tests;
mod weigh;

use std::io::Read;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use binnacle_model::storage::{RawExemplar, RawSeries};
use prost::Message;
use serde_json::json;

use super::remote_write::WireLabels;
use super::{Intake, Place, Refusal, body_length, header_text, read_body, retry_after};
use convert::{Converted, convert};
pub use grpc::grpc_router;
pub(super) use logs::handle as handle_logs;
pub use logs::try_read as try_read_logs;
use message::{Answer, PartialSuccess, Status};
pub use options::{OtlpOptions, TranslationStrategy};

/// Longest body once decompressed: what is read of it is several times as large.
const OTLP_MAX_BYTES: usize = 32 * 1024 * 1024;

/// Gzip makes no more of a byte, mostly.
const GZIP_RATIO: usize = 20;

/// Codes of `google.rpc.Status`.
const INVALID_ARGUMENT: i32 = 3;
const INTERNAL: i32 = 13;
const UNAVAILABLE: i32 = 14;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Protobuf,
    Json,
}

impl Encoding {
    fn of(content_type: &str) -> Result<Self, Refusal> {
        match content_type.split(';').next().unwrap_or_default().trim() {
            "application/x-protobuf" => Ok(Self::Protobuf),
            "application/json" => Ok(Self::Json),
            _ => Err(Refusal::Unsupported(format!(
                "{content_type:?} is not taken; send application/x-protobuf or application/json"
            ))),
        }
    }

    fn read(self, body: &[u8]) -> Result<message::Request, Refusal> {
        weigh::check(body, self == Self::Json, weigh::Of::Metrics).map_err(Refusal::Bad)?;
        self.decode(body, "ExportMetricsServiceRequest")
    }

    fn decode<M>(self, body: &[u8], name: &str) -> Result<M, Refusal>
    where
        M: Message + Default + serde::de::DeserializeOwned,
    {
        let read = match self {
            Self::Protobuf => M::decode(body).map_err(|error| error.to_string()),
            Self::Json => message::from_json(body).map_err(|error| error.to_string()),
        };
        read.map_err(|reason| Refusal::Bad(format!("body is no {name}: {reason}")))
    }

    fn respond(self, status: StatusCode, protobuf: Vec<u8>, json: serde_json::Value) -> Response {
        match self {
            Self::Protobuf => {
                (status, [(header::CONTENT_TYPE, "application/x-protobuf")], protobuf).into_response()
            }
            Self::Json => (status, axum::Json(json)).into_response(),
        }
    }

    /// What a request became; `counted` is the protocol's name for how many were not kept.
    fn answer(self, outcome: Outcome, counted: &str) -> Response {
        let Outcome { rejected, kept, reason } = outcome;
        if rejected > 0 && kept == 0 {
            return self.refuse(Refusal::Bad(reason));
        }
        let partial = (rejected > 0 || !reason.is_empty())
            .then_some(PartialSuccess { rejected: rejected as i64, error_message: reason });
        let json = partial.as_ref().map_or_else(
            || json!({}),
            // 64-bit integers are texts in protobuf's JSON.
            |one| json!({ "partialSuccess": { counted: one.rejected.to_string(), "errorMessage": one.error_message } }),
        );
        self.respond(StatusCode::OK, Answer { partial_success: partial }.encode_to_vec(), json)
    }

    /// A refusal as a `Status`.
    fn refuse(self, refusal: Refusal) -> Response {
        let (status, message, seconds) = refusal.into_parts();
        let code = match status {
            StatusCode::SERVICE_UNAVAILABLE => UNAVAILABLE,
            StatusCode::INTERNAL_SERVER_ERROR => INTERNAL,
            _ => INVALID_ARGUMENT,
        };
        let json = json!({ "code": code, "message": message });
        retry_after(
            self.respond(status, Status { code, message, details: Vec::new() }.encode_to_vec(), json),
            seconds,
        )
    }
}

/// What became of a request.
#[derive(Debug, Default)]
struct Outcome {
    rejected: usize,
    kept: usize,
    /// Why, or what else the sender should know.
    reason: String,
}

/// Whether the body is gzip.
pub(super) fn is_gzip(headers: &HeaderMap) -> Result<bool, Refusal> {
    match header_text(headers, "content-encoding") {
        "" | "identity" => Ok(false),
        "gzip" => Ok(true),
        other => {
            Err(Refusal::Unsupported(format!("content encoding {other:?} is not taken; send gzip or none")))
        }
    }
}

/// A request's body with the place that it takes.
struct Taken {
    place: Place,
    body: Bytes,
    is_gzip: bool,
}

impl Taken {
    async fn of(intake: &Intake, request: Request) -> Result<Self, Refusal> {
        let is_gzip = is_gzip(request.headers())?;
        let length = body_length(request.headers());
        let place = intake.place(length).await?;
        let body = read_body(request.into_body(), length).await?;
        Ok(Self { place, body, is_gzip })
    }

    fn decoded_len(&self) -> usize {
        if self.is_gzip { gunzipped_len(&self.body) } else { self.body.len() }
    }

    /// Runs blocking work on the plain body, that of `is_lines` only if the store has room for them.
    async fn run<T: Send + 'static>(
        self,
        intake: &Intake,
        is_lines: bool,
        work: impl FnOnce(&[u8]) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let decoded = self.decoded_len();
        let Self { place, body, is_gzip } = self;
        let work = move || {
            if is_gzip { work(&gunzip(&body, decoded)?) } else { work(&body) }
        };
        if is_lines {
            intake.run_lines(place, decoded, work).await
        } else {
            intake.run(place, decoded, work).await
        }
    }
}

pub(super) async fn handle(State(intake): State<Arc<Intake>>, request: Request) -> Result<Response, Refusal> {
    let encoding = Encoding::of(header_text(request.headers(), "content-type"))?;
    let done = async { take(&intake, Taken::of(&intake, request).await?, encoding).await };
    Ok(match done.await {
        Ok(outcome) => encoding.answer(outcome, "rejectedDataPoints"),
        Err(refusal) => encoding.refuse(refusal),
    })
}

/// Keeps the metrics of a request.
async fn take(intake: &Intake, taken: Taken, encoding: Encoding) -> Result<Outcome, Refusal> {
    let (metrics, options) = (Arc::clone(&intake.metrics), Arc::clone(&intake.otlp));
    let work = move |plain: &[u8]| {
        let converted = convert(&encoding.read(plain)?, &options);
        let report = metrics.append(&batch(&converted), &WireLabels)?;
        metrics.append_metadata(&converted.metadata);
        metrics.append_exemplars(&exemplars(&converted), &WireLabels);
        Ok((converted, report))
    };
    let (converted, report) = taken.run(intake, false, work).await?;
    let reason = converted.reason.or_else(|| report.refusal()).unwrap_or_default();
    // The store counts series, of which a point may become several.
    let rejected = (converted.rejected + report.refused()).min(converted.points);
    let reason = if rejected > 0 { reason } else { String::new() };
    Ok(Outcome { rejected, kept: report.appended + report.duplicate, reason })
}

fn batch(converted: &Converted) -> Vec<RawSeries<'_>> {
    let series = converted.series.iter().map(|one| RawSeries {
        labels: &one.labels,
        samples: one.sample.as_slice(),
        histograms: one.histogram.as_slice(),
    });
    series.collect()
}

fn exemplars(converted: &Converted) -> Vec<RawExemplar<'_>> {
    let of_series = converted.series.iter().flat_map(|one| {
        one.exemplars.iter().map(|exemplar| RawExemplar { series: &one.labels, exemplar: exemplar.clone() })
    });
    of_series.collect()
}

/// How long a body will be once gzip is undone: what its last bytes say, or some times as long as it is.
pub(super) fn gunzipped_len(body: &[u8]) -> usize {
    let said = body.last_chunk().map_or(0, |said| u32::from_le_bytes(*said) as usize);
    said.max(body.len().saturating_mul(GZIP_RATIO)).min(OTLP_MAX_BYTES)
}

/// Never makes more than what there is room for, whatever the body promises.
pub(super) fn gunzip(body: &[u8], most: usize) -> Result<Vec<u8>, Refusal> {
    let mut plain = Vec::new();
    let mut limited = flate2::read::MultiGzDecoder::new(body).take(most as u64 + 1);
    limited.read_to_end(&mut plain).map_err(|error| Refusal::Bad(format!("body is not gzip: {error}")))?;
    if plain.len() > most {
        return Err(Refusal::TooLarge(format!("decoded body has more than {most} bytes")));
    }
    Ok(plain)
}

/// Reads and converts a body as the handler does, for what throws foreign bytes at it.
#[doc(hidden)]
pub fn try_read(body: &[u8], is_json: bool) -> usize {
    let encoding = if is_json { Encoding::Json } else { Encoding::Protobuf };
    encoding.read(body).map_or(0, |request| convert(&request, &Arc::default()).series.len())
}
