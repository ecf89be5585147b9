//! `/api/v1/features`: what of Prometheus's features is here, by its names.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::ReadApi;
use super::json::success;
use crate::promql::{AggregateOp, function_names};

pub(super) async fn features(State(api): State<Arc<ReadApi>>) -> Response {
    let on = api.features;
    let functions = function_names()
        .filter(|(_, is_experimental)| !is_experimental || on.experimental_functions)
        .map(|(name, _)| (name.to_owned(), Value::Bool(true)));
    let operators = ["+", "-", "*", "/", "%", "^", "==", "!=", "<", "<=", ">", ">=", "=~", "!~", "@"];
    let aggregations = AggregateOp::ALL.map(AggregateOp::as_str);
    let words = ["and", "or", "unless", "atan2"];
    let all = operators.iter().chain(&aggregations).chain(&words);
    let is_experimental = |name: &str| matches!(name, "limitk" | "limit_ratio");
    let operators = all
        .filter(|name| !is_experimental(name) || on.experimental_functions)
        .map(|name| ((*name).to_owned(), Value::Bool(true)));
    success(&json!({
        "api": {
            "admin": api.admin.is_some(),
            "exclude_alerts": true,
            "label_values_match": true,
            "query_stats": true,
            "query_warnings": true,
            "search": true,
            "time_range_labels": true,
            "time_range_series": true,
            "remote_write_receiver": true,
            "otlp_write_receiver": true,
        },
        "otlp_receiver": { "delta_conversion": false, "native_delta_ingestion": false },
        "promql": {
            "anchored": on.extended_range,
            "smoothed": on.extended_range,
            "at_modifier": true,
            "bool": true,
            "by": true,
            "duration_expr": on.duration_expr,
            "fill": on.fill,
            "group_left": true,
            "group_right": true,
            "ignoring": true,
            "negative_offset": true,
            "offset": true,
            "on": true,
            "per_query_lookback_delta": true,
            "subqueries": true,
            "type_and_unit_labels": on.type_and_unit,
            "without": true,
        },
        "promql_functions": functions.collect::<Map<_, _>>(),
        "promql_operators": operators.collect::<Map<_, _>>(),
        "tsdb": { "exemplar_storage": true, "native_histograms": true, "out_of_order": true },
    }))
}
