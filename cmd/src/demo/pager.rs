//! Whoever is on call at the shop: takes Alertmanager's webhook and writes down what it heard.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use serde_json::Value;

use super::runtime_log::RuntimeLog;

pub(super) fn router(log: Arc<RuntimeLog>) -> Router {
    Router::new().route("/", post(notified)).with_state(log)
}

async fn notified(State(log): State<Arc<RuntimeLog>>, Json(body): Json<Value>) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let status = text(&body["status"]);
    let labels = &body["commonLabels"];
    let level = if status == "firing" { "warn" } else { "info" };
    let line = serde_json::json!({
        "level": level,
        "msg": format!("notification received: {} is {status}", text(&labels["alertname"])),
        "status": status,
        "alertname": text(&labels["alertname"]),
        "severity": text(&labels["severity"]),
        "owner": text(&labels["owner"]),
        "alerts": body["alerts"].as_array().map_or(0, Vec::len),
        "summary": text(&body["commonAnnotations"]["summary"]),
        "runbook_url": text(&body["commonAnnotations"]["runbook_url"]),
    });
    log.line("stdout", &line.to_string());
}
