//! `POST /api/v1/otlp/v1/metrics`: OpenTelemetry's metrics, as protobuf or JSON.
//!
//! ```text
//! body ─► gunzip ─► weigh (messages counted, nothing made) ─► message ─► convert (names, kinds) ─► store
//! ```
//!
//! Delta temporality is refused with a reason: the store has no memory of what was added to. What is refused of a
//! request stands in the `partialSuccess` of its answer; where nothing is left, the answer is 400 with a `Status`.

mod convert;
mod message;
mod names;
mod options;
#[cfg(test)]
mod tests;
mod weigh;

use std::io::Read;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use binnacle_model::storage::{RawExemplar, RawSeries};
use prost::Message;
use serde_json::json;

use super::remote_write::WireLabels;
use super::{Intake, Refusal, body_length, header_text, read_body};
use convert::{Converted, convert};
use message::{Answer, PartialSuccess, Status};
pub use options::{OtlpOptions, TranslationStrategy};

/// Longest body once decompressed: what is read of it is several times as large.
const OTLP_MAX_BYTES: usize = 32 * 1024 * 1024;

/// Gzip makes no more of a byte, mostly.
const GZIP_RATIO: usize = 20;

/// `INVALID_ARGUMENT`.
const INVALID: i32 = 3;

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
        weigh::check(body, self == Self::Json).map_err(Refusal::Bad)?;
        match self {
            Self::Protobuf => message::Request::decode(body)
                .map_err(|error| Refusal::Bad(format!("body is no ExportMetricsServiceRequest: {error}"))),
            Self::Json => message::from_json(body)
                .map_err(|error| Refusal::Bad(format!("body is no ExportMetricsServiceRequest: {error}"))),
        }
    }

    /// What a request became.
    fn answer(self, rejected: usize, reason: Option<String>, kept: usize) -> Response {
        let reason = reason.unwrap_or_default();
        let (status, bytes, json) = if rejected > 0 && kept == 0 {
            let status = Status { code: INVALID, message: reason };
            let json = json!({ "code": status.code, "message": status.message });
            (StatusCode::BAD_REQUEST, status.encode_to_vec(), json)
        } else {
            let partial = (rejected > 0)
                .then_some(PartialSuccess { rejected_data_points: rejected as i64, error_message: reason });
            let json = partial.as_ref().map_or_else(
                || json!({}),
                // 64-bit integers are texts in protobuf's JSON.
                |one| json!({ "partialSuccess": { "rejectedDataPoints": one.rejected_data_points.to_string(), "errorMessage": one.error_message } }),
            );
            (StatusCode::OK, Answer { partial_success: partial }.encode_to_vec(), json)
        };
        match self {
            Self::Protobuf => {
                (status, [(header::CONTENT_TYPE, "application/x-protobuf")], bytes).into_response()
            }
            Self::Json => (status, axum::Json(json)).into_response(),
        }
    }
}

pub(super) async fn handle(State(intake): State<Arc<Intake>>, request: Request) -> Result<Response, Refusal> {
    let encoding = Encoding::of(header_text(request.headers(), "content-type"))?;
    let is_gzip = match header_text(request.headers(), "content-encoding") {
        "" | "identity" => false,
        "gzip" => true,
        other => {
            return Err(Refusal::Unsupported(format!(
                "content encoding {other:?} is not taken; send gzip or none"
            )));
        }
    };
    let length = body_length(request.headers());
    let place = intake.place(length).await?;
    let body = read_body(request.into_body(), length).await?;
    let (metrics, options) = (Arc::clone(&intake.metrics), Arc::clone(&intake.otlp));
    let decoded = if is_gzip { gunzipped_len(&body) } else { body.len() };
    let (converted, report) = intake
        .run(place, decoded, move || {
            let plain = if is_gzip { gunzip(&body, decoded)? } else { body.to_vec() };
            let converted = convert(&encoding.read(&plain)?, &options);
            let report = metrics.append(&batch(&converted), &WireLabels)?;
            metrics.append_metadata(&converted.metadata);
            metrics.append_exemplars(&exemplars(&converted), &WireLabels);
            Ok((converted, report))
        })
        .await?;
    let reason = converted.reason.or_else(|| report.refusal());
    // The store counts series, of which a point may become several.
    let rejected = (converted.rejected + report.refused()).min(converted.points);
    Ok(encoding.answer(rejected, reason, report.appended + report.duplicate))
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
