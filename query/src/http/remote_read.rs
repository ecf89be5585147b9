//! `POST /api/v1/read`: Prometheus's remote read. Answers samples, which every client takes; never streamed chunks.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use binnacle_model::prompb::{ReadMatcher, ReadQuery, ReadRequest, ReadResponse, ReadResult, TimeSeries};
use binnacle_model::storage::{Deadline, Holding, Queryable, StorageError};
use binnacle_model::{Labels, MatchOp, Matcher, TimeRange, Timestamp};
use prost::Message;

use super::{ApiError, Params, ReadApi};
use crate::promql::EvalError;

/// Longest request, as it comes and decoded.
const REQUEST_MAX_BYTES: usize = 1024 * 1024;

/// For a whole request to arrive.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Queries of one request.
const QUERIES_MAX: usize = 100;

/// Samples of one answer, which is made in memory: some 200 MB.
const SAMPLES_MAX: usize = 10_000_000;

pub(super) async fn read(State(api): State<Arc<ReadApi>>, request: Request) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let params = Params::of(&parts);
    let request = decode(body).await?;
    let (metrics, external) = (Arc::clone(&api.metrics), api.external_labels.clone());
    let work = move |deadline: &Deadline| {
        let mut room = (SAMPLES_MAX, deadline.holding());
        let results =
            request.queries.iter().map(|query| answer(&*metrics, query, &external, deadline, &mut room));
        let response = ReadResponse { results: results.collect::<Result<_, _>>()? };
        snap::raw::Encoder::new()
            .compress_vec(&response.encode_to_vec())
            .map_err(|error| ApiError::Internal(format!("answer cannot be compressed: {error}")))
    };
    let bytes = api.gate.run(params.asked(api.clock.now()), None, work).await?;
    let headers = [(header::CONTENT_TYPE, "application/x-protobuf"), (header::CONTENT_ENCODING, "snappy")];
    Ok((headers, bytes).into_response())
}

async fn decode(body: Body) -> Result<ReadRequest, ApiError> {
    let body = tokio::time::timeout(REQUEST_TIMEOUT, to_bytes(body, REQUEST_MAX_BYTES)).await;
    let body =
        body.map_err(|_| ApiError::BadData(format!("request did not arrive within {REQUEST_TIMEOUT:?}")))?;
    let body = body.map_err(|error| ApiError::BadData(format!("request cannot be read: {error}")))?;
    let length = snap::raw::decompress_len(&body);
    let length = length.map_err(|error| ApiError::BadData(format!("request is not snappy: {error}")))?;
    if length > REQUEST_MAX_BYTES {
        return Err(ApiError::BadData(format!("request has more than {REQUEST_MAX_BYTES} bytes")));
    }
    let plain = snap::raw::Decoder::new().decompress_vec(&body);
    let plain = plain.map_err(|error| ApiError::BadData(format!("request is not snappy: {error}")))?;
    let request = ReadRequest::decode(&plain[..]);
    let request =
        request.map_err(|error| ApiError::BadData(format!("request is no ReadRequest: {error}")))?;
    if request.queries.len() > QUERIES_MAX {
        return Err(ApiError::BadData(format!("request has more than {QUERIES_MAX} queries")));
    }
    Ok(request)
}

fn answer(
    metrics: &dyn Queryable,
    query: &ReadQuery,
    external: &Labels,
    deadline: &Deadline,
    (left, held): &mut (usize, Holding),
) -> Result<ReadResult, ApiError> {
    // Our own external labels stand on what we answer; whoever asks for them asks for us.
    let is_ours = |one: &&ReadMatcher| one.kind == 0 && external.get(&one.name) == Some(&*one.value);
    let matchers = query.matchers.iter().filter(|one| !is_ours(one)).map(matcher);
    let matchers: Vec<Matcher> = matchers.collect::<Result<_, _>>()?;
    let range = TimeRange {
        start: Timestamp(query.start_timestamp_ms),
        end: Timestamp(query.end_timestamp_ms.max(query.start_timestamp_ms)),
    };
    let mut timeseries = Vec::new();
    for series in metrics.select(&matchers, range, deadline)? {
        let series = match series {
            // The message has no place for warnings, and an answer that is not whole would be taken for one.
            Err(StorageError::Missing(reason)) => return Err(StorageError::Broken(reason).into()),
            series => series?,
        };
        let weight = series.samples.len()
            + series.histograms.iter().map(|one| one.histogram.size_in_samples()).sum::<usize>();
        *left = left.checked_sub(weight).ok_or(ApiError::Eval(EvalError::Storage(StorageError::TooMuch)))?;
        held.add(weight)?;
        let mut labels = series.labels;
        for label in external.iter().filter(|label| labels.get(&label.name).is_none()).collect::<Vec<_>>() {
            labels = labels.with(&label.name, &label.value);
        }
        timeseries.push(TimeSeries::new(&labels, &series.samples, &series.histograms));
    }
    Ok(ReadResult { timeseries })
}

fn matcher(one: &ReadMatcher) -> Result<Matcher, ApiError> {
    let op = match one.kind {
        0 => MatchOp::Equal,
        1 => MatchOp::NotEqual,
        2 => MatchOp::Regex,
        3 => MatchOp::NotRegex,
        other => {
            return Err(ApiError::BadData(format!(
                "matcher of label {:?} has the unknown kind {other}",
                one.name
            )));
        }
    };
    Matcher::new(&one.name, op, &one.value).map_err(ApiError::BadData)
}
