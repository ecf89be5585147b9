//! `POST /api/collect/logs` and `marks`: lines with their origins, from our own collectors, and how far they came.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::header;
use binnacle_model::push::{FileBatch, LogPush};
use binnacle_model::storage::PodMetadata;
use prost::Message;
use serde::Deserialize;
use serde_json::{Value, json};

use super::draft::bound;
use super::{DECODED_MAX_BYTES, Intake, Refusal, body_length, header_text, read_body, unsnap, unsnapped_len};
use crate::completeness::NodeReport;

/// Lines, labels and fields of one body.
const MAX_PARTS: usize = 2_000_000;

/// Names of files in one question.
const MAX_FILES: usize = 20_000;

/// Pods of which one message tells.
const MAX_PODS: usize = 10_000;

/// A question for marks.
#[derive(Deserialize)]
pub(super) struct Files {
    files: Vec<String>,
}

/// `POST /api/collect/marks` with `{"files": ["node/…", …]}`: how far each file was taken, as `{"marks": [0, …]}`.
pub(super) async fn marks(
    State(intake): State<Arc<Intake>>,
    request: Request,
) -> Result<Json<Value>, Refusal> {
    let length = body_length(request.headers());
    let place = intake.place(length).await?;
    let body = read_body(request.into_body(), length).await?;
    let logs = Arc::clone(&intake.logs);
    let marks = intake
        .run(place, body.len(), move || {
            let asked: Files = serde_json::from_slice(&body)
                .map_err(|error| Refusal::Bad(format!("body is not {{\"files\": [NAME, …]}}: {error}")))?;
            if asked.files.len() > MAX_FILES {
                return Err(Refusal::TooLarge(format!("more than {MAX_FILES} files; ask for less at once")));
            }
            Ok(logs.marks(&asked.files)?)
        })
        .await?;
    Ok(Json(json!({ "marks": marks })))
}

/// `POST /api/collect/report`: what a collector says of its files, as a [`NodeReport`] in JSON.
pub(super) async fn report(
    State(intake): State<Arc<Intake>>,
    request: Request,
) -> Result<Json<Value>, Refusal> {
    let length = body_length(request.headers());
    let place = intake.place(length).await?;
    let body = read_body(request.into_body(), length).await?;
    let (reports, now) = (intake.reports(), intake.clock.now_ns());
    intake
        .run(place, body.len(), move || {
            let report: NodeReport = serde_json::from_slice(&body)
                .map_err(|error| Refusal::Bad(format!("body is no report: {error}")))?;
            reports.take(report, now).map_err(Refusal::TooLarge)
        })
        .await?;
    Ok(Json(json!({})))
}

/// `POST /api/collect/pods`: what a collector knows of pods, as a list of [`PodMetadata`] in JSON.
pub(super) async fn pods(
    State(intake): State<Arc<Intake>>,
    request: Request,
) -> Result<Json<Value>, Refusal> {
    let length = body_length(request.headers());
    let place = intake.place(length).await?;
    let body = read_body(request.into_body(), length).await?;
    let to = Arc::clone(&intake.pods);
    let run = intake.run(place, body.len(), move || {
        let pods: Vec<PodMetadata> = serde_json::from_slice(&body)
            .map_err(|error| Refusal::Bad(format!("body is no list of pods: {error}")))?;
        if pods.len() > MAX_PODS {
            return Err(Refusal::TooLarge(format!("more than {MAX_PODS} pods; send less at once")));
        }
        Ok(to.save_pods(&pods)?)
    });
    run.await?;
    Ok(Json(json!({})))
}

/// `GET /api/completeness`
pub(super) async fn completeness(State(intake): State<Arc<Intake>>) -> Json<Value> {
    Json(intake.reports.show(intake.clock.now_ns()))
}

/// Takes a [`LogPush`] in protobuf, plain or in snappy's block format.
pub(super) async fn handle(
    State(intake): State<Arc<Intake>>,
    request: Request,
) -> Result<Json<Value>, Refusal> {
    let encoding = header_text(request.headers(), header::CONTENT_ENCODING.as_str()).to_owned();
    let length = body_length(request.headers());
    let place = intake.place(length).await?;
    let body = read_body(request.into_body(), length).await?;
    let received = intake.clock.now_ns();
    let (logs, over) = (Arc::clone(&intake.logs), intake.telemetry.attributes_over.clone());
    let report = intake
        .run_lines(place, body.len().max(unsnapped_len(&body)), move || {
            let plain = match encoding.as_str() {
                "snappy" => unsnap(&body)?,
                "" | "identity" if body.len() <= DECODED_MAX_BYTES => body.to_vec(),
                other => {
                    let reason = format!("content encoding {other:?} is not taken; send snappy");
                    return Err(Refusal::Unsupported(reason));
                }
            };
            // An empty message is two bytes here and a hundred in memory.
            let parts = super::remote_write::count_parts(&plain)
                .map_err(|error| Refusal::Bad(format!("body is no LogPush: {error}")))?;
            if parts > MAX_PARTS {
                let reason = format!("body has more than {MAX_PARTS} lines and fields; send less at once");
                return Err(Refusal::TooLarge(reason));
            }
            let mut push = LogPush::decode(&*plain)
                .map_err(|error| Refusal::Bad(format!("body is no LogPush: {error}")))?;
            check(&push)?;
            if attributes(&push) > MAX_PARTS {
                let reason = format!("entries have more than {MAX_PARTS} attributes; send less at once");
                return Err(Refusal::TooLarge(reason));
            }
            over.inc_by(bound(&mut push));
            Ok(logs.append(push, received)?)
        })
        .await?;
    Ok(Json(json!({
        "appended": report.appended,
        "duplicate": report.duplicate,
        "gap_bytes": report.gap_bytes,
    })))
}

/// Attributes of all entries, or somewhat more: a few bytes may share many.
fn attributes(push: &LogPush) -> usize {
    let of_batch = |batch: &FileBatch| -> usize {
        let shared = batch.entries.iter().filter_map(|entry| batch.shared_of(entry));
        let own = batch.entries.iter().map(|entry| entry.fields.len()).sum::<usize>();
        own + shared.map(|shared| shared.fields.len()).sum::<usize>()
    };
    push.batches.iter().map(of_batch).sum()
}

/// A batch covers what it says, or its file's mark would lose lines.
fn check(push: &LogPush) -> Result<(), Refusal> {
    for (at, batch) in push.batches.iter().enumerate() {
        let place = format!("batch {} of file {:?}", at + 1, batch.file);
        if batch.from > batch.to {
            return Err(Refusal::Bad(format!("{place}: from {} lies after to {}", batch.from, batch.to)));
        }
        if batch.file.is_empty() {
            continue;
        }
        let outside = |offset: u64| offset < batch.from || offset >= batch.to;
        if let Some(entry) = batch.entries.iter().find(|entry| outside(entry.offset)) {
            let reason =
                format!("{place}: offset {} lies outside of {}..{}", entry.offset, batch.from, batch.to);
            return Err(Refusal::Bad(reason));
        }
    }
    Ok(())
}
