//! What shippers ask before they send, and the least that makes them go on.
//!
//! | who | asks |
//! | --- | --- |
//! | Filebeat | `GET /`, `GET /_license`, `GET` then `PUT` of `/_ilm/policy/…`, `/_index_template/…`, `/_data_stream/…` |
//! | Logstash | `HEAD /`, `GET /`, `GET /_license`, `HEAD` then `PUT` of `/_index_template/…` or `/_template/…`, `/_nodes/http` if it sniffs |
//! | Vector | `GET /_cluster/health`, `GET /` |
//! | rsyslog | `HEAD /_cat/health` |
//! | Elastic's clients | `GET /`, for the product and its version |
//!
//! There are no templates, policies, streams and indices here, and asked for one the answer is 404. To create one is
//! acknowledged, since senders give up otherwise: it would say how Elasticsearch keeps documents, and nothing of what
//! it says is needed to keep them here. A pipeline would change them, and is refused.

use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use binnacle_model::Timestamp;
use serde_json::{Value, json};

use super::answer::error;

/// Which Elasticsearch shippers should take us for: the newest that those of version 8 accept. Beats of version 9 want
/// `allow_older_versions: true`.
const VERSION: &str = "8.19.0";

const NAME: &str = "binnacle";

pub(super) fn answer(method: &Method, segments: &[&str], now: Timestamp) -> Response {
    let is_read = matches!(*method, Method::GET | Method::HEAD);
    let is_write = matches!(*method, Method::PUT | Method::POST);
    match segments {
        [""] if is_read => json_answer(&info()),
        ["_license"] if is_read => json_answer(&json!({ "license": license() })),
        ["_xpack"] if is_read => json_answer(&json!({
            "license": license(),
            "features": { "ilm": { "available": false, "enabled": false } },
        })),
        ["_cluster", "health", ..] if is_read => json_answer(&health()),
        ["_cat", "health"] if is_read => {
            let seconds = now.0 / 1000;
            let clock = now.to_rfc3339();
            let clock = clock.get(11..19).unwrap_or("00:00:00");
            let text = format!("{seconds} {clock} {NAME} green 1 1 0 0 0 0 0 0 - 100.0%\n");
            ([(header::CONTENT_TYPE, "text/plain; charset=UTF-8")], text).into_response()
        }
        ["_nodes", ..] if is_read => json_answer(&json!({
            "_nodes": { "total": 1, "successful": 1, "failed": 0 }, "cluster_name": NAME, "nodes": {},
        })),
        ["_ilm", "status"] if is_read => json_answer(&json!({ "operation_mode": "STOPPED" })),
        ["_index_template"] if is_read => json_answer(&json!({ "index_templates": [] })),
        ["_component_template"] if is_read => json_answer(&json!({ "component_templates": [] })),
        ["_data_stream"] if is_read => json_answer(&json!({ "data_streams": [] })),
        ["_template"] | ["_ilm" | "_ingest", "policy" | "pipeline"] if is_read => json_answer(&json!({})),
        ["_index_template" | "_component_template" | "_template" | "_data_stream", _, ..]
        | ["_ilm", "policy", _]
            if is_write =>
        {
            json_answer(&json!({ "acknowledged": true }))
        }
        ["_ingest", ..] if is_write => error(
            StatusCode::BAD_REQUEST,
            "illegal_argument_exception",
            "pipelines are not run here; documents are kept as they come",
        ),
        [index] if is_write && !index.starts_with('_') && !index.is_empty() => {
            json_answer(&json!({ "acknowledged": true, "shards_acknowledged": true, "index": index }))
        }
        _ => {
            let shown: String = segments.join("/").chars().take(200).collect();
            let reason = format!("{method} /{shown}: there is none here; send documents to _bulk");
            error(StatusCode::NOT_FOUND, "resource_not_found_exception", &reason)
        }
    }
}

fn json_answer(value: &Value) -> Response {
    axum::Json(value).into_response()
}

fn info() -> Value {
    json!({
        "name": NAME,
        "cluster_name": NAME,
        "cluster_uuid": NAME,
        "version": {
            "number": VERSION,
            "build_flavor": "default",
            "build_type": "docker",
            "build_hash": NAME,
            "build_date": "1970-01-01T00:00:00.000Z",
            "build_snapshot": false,
            "lucene_version": "9.12.0",
            "minimum_wire_compatibility_version": "7.17.0",
            "minimum_index_compatibility_version": "7.0.0",
        },
        // Some clients compare it.
        "tagline": "You Know, for Search",
    })
}

fn license() -> Value {
    json!({
        "status": "active", "uid": NAME, "type": "basic", "mode": "basic",
        "issue_date": "1970-01-01T00:00:00.000Z", "issue_date_in_millis": 0,
        "max_nodes": 1, "issued_to": NAME, "issuer": NAME,
    })
}

fn health() -> Value {
    json!({
        "cluster_name": NAME, "status": "green", "timed_out": false,
        "number_of_nodes": 1, "number_of_data_nodes": 1,
        "active_primary_shards": 0, "active_shards": 0, "relocating_shards": 0,
        "initializing_shards": 0, "unassigned_shards": 0, "delayed_unassigned_shards": 0,
        "number_of_pending_tasks": 0, "number_of_in_flight_fetch": 0,
        "task_max_waiting_in_queue_millis": 0, "active_shards_percent_as_number": 100.0,
    })
}
