//! What a client may expect of us.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::Api;

/// The release of Loki whose API this is.
const VERSION: &str = "3.5.0";

pub(super) async fn buildinfo(State(api): Api) -> Json<Value> {
    Json(json!({
        "version": VERSION,
        "revision": api.version,
        "branch": "binnacle",
        "buildUser": "",
        "buildDate": "",
        "goVersion": "",
    }))
}

/// What Logs Drilldown looks for before it shows anything.
pub(super) async fn drilldown() -> Json<Value> {
    Json(json!({
        "limits": {
            "discover_log_levels": true,
            "discover_service_name": [
                "service", "app", "application", "app_name", "name", "app_kubernetes_io_name", "container",
                "container_name", "k8s_container_name", "component", "workload", "job", "k8s_job_name",
            ],
            "log_level_fields": ["level", "severity", "lvl", "loglevel", "log.level", "levelname", "severity_text"],
            "max_entries_limit_per_query": 5000,
            "max_line_size_truncate": false,
            "max_query_bytes_read": "0B",
            "max_query_length": "0s",
            "max_query_lookback": "0s",
            "max_query_range": "0s",
            "max_query_series": 0,
            "metric_aggregation_enabled": false,
            "otlp_config": { "resource_attributes": {} },
            "pattern_persistence_enabled": true,
            "query_timeout": "2m0s",
            "retention_period": "0s",
            "retention_stream": [],
            "volume_enabled": true,
            "volume_max_series": 1000,
        },
        "maxDetectedFields": 1000,
        "pattern_ingester_enabled": true,
        "version": VERSION,
    }))
}
