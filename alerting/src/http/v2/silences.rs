//! `/api/v2/silences` and `/api/v2/silence/{id}`.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use binnacle_model::{Matcher, Timestamp};
use binnacle_query::http::Params;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Api, body, on_thread, read_time, refused, time};
use crate::notify::{Silence, SilenceError, SilenceMatcher, parse_matchers};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PostedSilence {
    id: Option<String>,
    matchers: Option<Vec<SilenceMatcher>>,
    starts_at: Option<String>,
    ends_at: Option<String>,
    created_by: Option<String>,
    comment: Option<String>,
}

impl PostedSilence {
    fn check(self, now: Timestamp) -> Result<Silence, (StatusCode, String)> {
        let missing = |key: &str| (StatusCode::UNPROCESSABLE_ENTITY, format!("{key} in body is required"));
        let wrong = |reason: &str| (StatusCode::BAD_REQUEST, format!("failed to create silence: {reason}"));
        let at = |key: &str, text: Option<String>| {
            let text = text.ok_or_else(|| missing(key))?;
            read_time(Some(&text)).map_err(|error| (StatusCode::BAD_REQUEST, format!("{key}: {error}")))
        };
        let starts_at = at("startsAt", self.starts_at)?.unwrap_or(now);
        let ends_at = at("endsAt", self.ends_at)?.ok_or_else(|| missing("endsAt"))?;
        if starts_at >= ends_at {
            return Err(wrong("start time must be before end time"));
        }
        if ends_at < now {
            return Err(wrong("end time can't be in the past"));
        }
        Ok(Silence {
            id: self.id.unwrap_or_default(),
            matchers: self.matchers.ok_or_else(|| missing("matchers"))?,
            starts_at: starts_at.0,
            ends_at: ends_at.0,
            updated_at: now.0,
            created_by: self.created_by.ok_or_else(|| missing("createdBy"))?,
            comment: self.comment.ok_or_else(|| missing("comment"))?,
        })
    }
}

/// A new silence, or another one under the same id.
pub(super) async fn set(State(api): Api, bytes: Bytes) -> Response {
    let posted: PostedSilence = match body(&bytes) {
        Ok(posted) => posted,
        Err(answer) => return answer,
    };
    let silence = match posted.check(api.dispatcher.now()) {
        Ok(silence) => silence,
        Err((status, reason)) => return refused(status, reason),
    };
    on_thread(api, move |api| match api.dispatcher.silences().set(silence) {
        Ok(id) => Json(json!({ "silenceID": id })).into_response(),
        Err(error) => failed(&error),
    })
    .await
}

/// Ends a silence.
pub(super) async fn expire(State(api): Api, Path(id): Path<String>) -> Response {
    on_thread(api, move |api| match api.dispatcher.silences().expire(&id) {
        Ok(()) => StatusCode::OK.into_response(),
        Err(error) => failed(&error),
    })
    .await
}

/// One silence.
pub(super) async fn one(State(api): Api, Path(id): Path<String>) -> Response {
    match api.dispatcher.silences().get(&id) {
        Some(silence) => Json(show(&silence, api.dispatcher.now())).into_response(),
        None => failed(&SilenceError::NotFound),
    }
}

/// All that have matchers which the filters would match.
pub(super) async fn list(State(api): Api, RawQuery(query): RawQuery) -> Response {
    let mut filters = Vec::new();
    for (name, value) in Params::from_query(&query.unwrap_or_default()).into_pairs() {
        if name == "filter" {
            match parse_matchers(&value) {
                Ok(matchers) => filters.extend(matchers),
                Err(error) => return refused(StatusCode::BAD_REQUEST, error),
            }
        }
    }
    let now = api.dispatcher.now();
    let all = api.dispatcher.silences().list();
    let shown = all.iter().filter(|silence| takes(&filters, silence)).map(|silence| show(silence, now));
    Json(shown.collect::<Vec<_>>()).into_response()
}

/// Each filter needs a matcher of the same name and kind, whose text it matches.
fn takes(filters: &[Matcher], silence: &Silence) -> bool {
    filters.iter().all(|filter| {
        let same = silence.matchers.iter().filter(|matcher| matcher.name == filter.name);
        let values: Vec<&str> = same.map(|matcher| matcher.value.as_str()).collect();
        if values.is_empty() { filter.matches("") } else { values.iter().any(|value| filter.matches(value)) }
    })
}

fn failed(error: &SilenceError) -> Response {
    let status = match error {
        SilenceError::Invalid(_) => StatusCode::BAD_REQUEST,
        SilenceError::NotFound => StatusCode::NOT_FOUND,
        SilenceError::Storage(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    refused(status, error.to_string())
}

fn show(silence: &Silence, now: Timestamp) -> Value {
    json!({
        "id": silence.id,
        "status": { "state": silence.state(now).as_str() },
        "updatedAt": time(Timestamp(silence.updated_at)),
        "comment": silence.comment,
        "createdBy": silence.created_by,
        "endsAt": time(Timestamp(silence.ends_at)),
        "matchers": silence.matchers,
        "startsAt": time(Timestamp(silence.starts_at)),
    })
}
