//! What labels and fields there are, with how many values: by the streams, and by the newest lines.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use binnacle_model::log::{FieldValue, loki_name};
use binnacle_model::meaning;
use binnacle_model::storage::{Deadline, LogOrder};
use serde_json::{Value, json};

use super::super::{Params, ReadApi};
use super::Api;
use super::error::LokiError;
use super::labels::{shown, streams};
use super::params::QUERY_SINCE;
use crate::logql::{Kind, Plan, Query, Selected, duration_or_size, select};

/// Fields or values of one answer, and lines that are looked at, where the request does not say, and at most.
const DEFAULT_FIELDS: usize = 1000;
const DEFAULT_LINES: usize = 1000;
const MAX_LINES: usize = 5000;
/// Values of a field that are told apart.
const MAX_VALUES: usize = 10_000;

pub(super) async fn labels(State(api): Api, params: Params) -> Result<Json<Value>, LokiError> {
    let span = params.loki_span(api.clock.now_ns(), QUERY_SINCE)?;
    let found = streams(&api, &params, vec![params.loki_matchers()?], span).await?;
    let mut values: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (name, value) in found.streams.iter().flat_map(|stream| shown(&stream.labels)) {
        values.entry(name).or_default().insert(value);
    }
    let labels: Vec<Value> = values
        .into_iter()
        .map(|(name, values)| json!({ "label": name, "cardinality": values.len() }))
        .collect();
    Ok(Json(json!({ "detectedLabels": labels })))
}

/// What is known of a field.
#[derive(Default)]
struct Field {
    kind: Option<&'static str>,
    values: BTreeSet<String>,
    parsers: BTreeSet<&'static str>,
    path: Vec<String>,
}

impl Field {
    fn note(&mut self, kind: &'static str, value: String) {
        // Numbers of both kinds are the wider one; anything else beside another is text.
        self.kind = Some(match self.kind {
            None => kind,
            Some(known) if known == kind => kind,
            Some("int" | "float") if matches!(kind, "int" | "float") => "float",
            Some(_) => "string",
        });
        if self.values.len() < MAX_VALUES {
            self.values.insert(value);
        }
    }
}

fn kind_of(value: &FieldValue) -> &'static str {
    match value {
        FieldValue::Int(_) => "int",
        FieldValue::Float(_) => "float",
        FieldValue::Bool(_) => "boolean",
        FieldValue::Text(text) => kind_of_text(text),
    }
}

fn kind_of_text(text: &str) -> &'static str {
    if text.parse::<i64>().is_ok() {
        return "int";
    }
    if text.starts_with(|c: char| c.is_ascii_digit() || c == '-') && text.parse::<f64>().is_ok() {
        return "float";
    }
    match text {
        "true" | "false" => "boolean",
        _ => duration_or_size(text).unwrap_or("string"),
    }
}

/// The newest lines of the request's query.
async fn newest(api: &Arc<ReadApi>, params: &Params) -> Result<Vec<Selected>, LokiError> {
    let span = params.loki_span(api.clock.now_ns(), QUERY_SINCE)?;
    let Query::Logs(selection) = params.loki_query()? else {
        return Err(LokiError::Bad("only log selector is supported".to_owned()));
    };
    let limit = params.count("line_limit")?.unwrap_or(DEFAULT_LINES).min(MAX_LINES);
    let logs = Arc::clone(&api.logs);
    let work = move |deadline: &Deadline| {
        Ok(select(&*logs, &Plan::new(&selection), span, LogOrder::NewestFirst, limit, deadline)?.lines)
    };
    Ok(api.gate.run(params.asked(api.clock.now()), None, work).await?)
}

/// The fields of lines: their metadata, what a pipeline made, and what they hold themselves.
fn fields_of(lines: &[Selected]) -> BTreeMap<String, Field> {
    let mut fields: BTreeMap<String, Field> = BTreeMap::new();
    for line in lines {
        for (name, value, _) in line.labels.iter().filter(|(.., kind)| *kind != Kind::Stream) {
            fields.entry(name.clone()).or_default().note(kind_of_text(value), value.clone());
        }
        let is_json = line.line.trim_ascii_start().starts_with(b"{");
        for (path, value) in meaning::fields(&line.line) {
            let mut name = loki_name(&path).into_owned();
            if line.labels.iter().any(|(known, _, kind)| *known == name && *kind != Kind::Parsed) {
                name.push_str("_extracted");
            }
            let field = fields.entry(name).or_default();
            field.parsers.insert(if is_json { "json" } else { "logfmt" });
            if is_json && field.path.is_empty() {
                field.path = path.split('.').map(str::to_owned).collect();
            }
            field.note(kind_of(&value), value.to_string());
        }
    }
    fields
}

pub(super) async fn fields(State(api): Api, params: Params) -> Result<Json<Value>, LokiError> {
    let limit = params.count("limit")?.unwrap_or(DEFAULT_FIELDS);
    let found = fields_of(&newest(&api, &params).await?);
    let shown = found.into_iter().take(limit).map(|(name, field)| {
        let mut json = json!({
            "label": name,
            "type": field.kind.unwrap_or("string"),
            "cardinality": field.values.len(),
            "parsers": if field.parsers.is_empty() { Value::Null } else { field.parsers.into_iter().collect() },
        });
        if !field.path.is_empty() {
            json["jsonPath"] = field.path.into_iter().collect();
        }
        json
    });
    Ok(Json(json!({ "fields": shown.collect::<Vec<_>>(), "limit": limit })))
}

pub(super) async fn values(
    State(api): Api,
    Path(name): Path<String>,
    params: Params,
) -> Result<Response, LokiError> {
    let limit = params.count("limit")?.unwrap_or(DEFAULT_FIELDS);
    let mut found = fields_of(&newest(&api, &params).await?);
    let values: Vec<String> =
        found.remove(&name).map_or_else(Vec::new, |field| field.values.into_iter().take(limit).collect());
    Ok((StatusCode::OK, Json(json!({ "values": values, "limit": limit }))).into_response())
}
