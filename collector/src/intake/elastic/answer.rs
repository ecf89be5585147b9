//! Answers in Elasticsearch's words.

use std::sync::Arc;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::super::{Refusal, retry_after};

/// Why an item was refused; shippers do not send it again.
const BAD_REQUEST: u16 = 400;

/// What an item of an answer takes, about.
const ITEM_BYTES: usize = 128;

/// What became of an action, in the order of the request.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Item {
    /// As the request named it.
    pub(super) action: &'static str,
    /// `None` is the request's own.
    pub(super) index: Option<Arc<str>>,
    /// `None` is one that nobody chose.
    pub(super) id: Option<Arc<str>>,
    /// The kind of the error, and its reason.
    pub(super) refused: Option<(&'static str, String)>,
}

/// Answers a request of which all that is not refused was kept.
///
/// Ids that nobody chose are made of `seed` and the item's place.
pub(super) fn items(items: &[Item], index: &str, took_ms: i64, seed: i64) -> Response {
    let has_errors = items.iter().any(|item| item.refused.is_some());
    let mut body = String::with_capacity(ITEM_BYTES * items.len());
    body.push_str(&format!("{{\"took\":{took_ms},\"errors\":{has_errors},\"items\":["));
    // What an item begins with, and of which index it is; most are of one.
    let (mut begin, mut of) = (String::new(), None);
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            body.push(',');
        }
        let index = item.index.as_deref().unwrap_or(index);
        if of != Some((item.action, index)) {
            begin = format!("{{\"{}\":{{\"_index\":{},\"_id\":", item.action, Value::from(index));
            of = Some((item.action, index));
        }
        body.push_str(&begin);
        match &item.id {
            Some(id) => body.push_str(&Value::from(&**id).to_string()),
            None => body.push_str(&format!("\"{seed:x}-{at:x}\"")),
        }
        match &item.refused {
            None => body.push_str(",\"_version\":1,\"result\":\"created\",\"status\":201}}"),
            Some((kind, reason)) => {
                let error = json!({ "type": kind, "reason": reason });
                body.push_str(&format!(",\"status\":{BAD_REQUEST},\"error\":{error}}}}}"));
            }
        }
    }
    body.push_str("]}");
    (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// Refuses a whole request.
pub(super) fn refuse(refusal: Refusal) -> Response {
    let (status, reason, seconds) = refusal.into_parts();
    if status.is_server_error() {
        // Shippers go by the status, but for rsyslog's omelasticsearch: it throws away what an answer in JSON is about
        // that has no items, and keeps what one that it cannot read is about.
        return retry_after((status, reason + "\n").into_response(), seconds);
    }
    let kind = match status {
        StatusCode::PAYLOAD_TOO_LARGE => "content_too_long_exception",
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "media_type_header_exception",
        _ => "illegal_argument_exception",
    };
    error(status, kind, &reason)
}

pub(super) fn error(status: StatusCode, kind: &str, reason: &str) -> Response {
    let cause = json!({ "type": kind, "reason": reason });
    let mut whole = cause.clone();
    whole["root_cause"] = json!([cause]);
    (status, axum::Json(json!({ "error": whole, "status": status.as_u16() }))).into_response()
}
