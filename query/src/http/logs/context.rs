//! The neighbours of an entry, by their place in its file.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use binnacle_model::log::FileId;
use binnacle_model::storage::Deadline;
use serde_json::json;

use super::{Api, shown};
use crate::http::json::success;
use crate::http::{ApiError, Params};

const DEFAULT_LINES: usize = 10;
const MAX_LINES: usize = 1_000;

fn lines(params: &Params, name: &str) -> Result<usize, ApiError> {
    match params.count(name)?.unwrap_or(DEFAULT_LINES) {
        count if count <= MAX_LINES => Ok(count),
        _ => Err(ApiError::parameter(name, format!("must be {MAX_LINES} at most"))),
    }
}

pub(super) async fn context(State(api): Api, params: Params) -> Result<Response, ApiError> {
    let missing = |name: &str| ApiError::parameter(name, "take file and offset from an entry of a search");
    let file = FileId(params.get("file").ok_or_else(|| missing("file"))?.to_owned());
    let offset = params.get("offset").ok_or_else(|| missing("offset"))?;
    let offset: u64 = offset.parse().map_err(|_| missing("offset"))?;
    let (before, after) = (lines(&params, "before")?, lines(&params, "after")?);
    let logs = Arc::clone(&api.logs);
    let work = move |deadline: &Deadline| {
        let found = logs.context(&file, offset, before, after, deadline)?;
        let (before, held_before) = shown(&found.before, deadline)?;
        let (after, held_after) = shown(&found.after, deadline)?;
        Ok((before, after, found.warnings, (held_before, held_after)))
    };
    let asked = params.asked(api.clock.now());
    let (before, mut after, warnings, _held) = api.gate.run(asked, params.duration("timeout")?, work).await?;
    if before.is_empty() && after.is_empty() {
        return Err(ApiError::NotFound("nothing of this file is stored; it may have expired".to_owned()));
    }
    // The entry itself may be gone while its neighbours are there.
    let is_there = after.first().is_some_and(|entry| entry["offset"] == offset);
    let entry = is_there.then(|| after.remove(0));
    Ok(success(&json!({ "before": before, "entry": entry, "after": after, "warnings": warnings })))
}
