//! Counts over all matches: histograms, facets, patterns, fields.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use binnacle_model::LogTime;
use binnacle_model::log::{Field, STREAM_FIELDS};
use binnacle_model::storage::{
    Deadline, LogAggregate, LogBar, LogField, LogFull, LogGroups, LogKey, LogMeasure, LogPattern, LogRequest,
    LogSlices, StorageError,
};
use serde_json::{Value, json};

use super::{Api, Question, counted, moment};
use crate::http::json::success;
use crate::http::{ApiError, Params};

/// Fields of one request for facets; each is an aggregation.
const MAX_FACETS: usize = 20;
const DEFAULT_VALUES: usize = 10;
const MAX_VALUES: usize = 1_000;
const DEFAULT_PATTERNS: usize = 100;
const MAX_PATTERNS: usize = 1_000;
/// To which moments of first sight are taken.
const MINUTE_NS: i64 = 60_000_000_000;
/// Bytes of a pattern or an example that are shown.
const MAX_SHOWN_BYTES: usize = 4096;

fn start_of(slices: &LogSlices, at: usize) -> String {
    (i128::from(slices.start.0) + i128::from(slices.width_ns) * at as i128).to_string()
}

pub(super) async fn histogram(State(api): Api, params: Params) -> Result<Response, ApiError> {
    let question = Question::read(&api, &params)?;
    let slices = question.slices(&params)?;
    let by = vec![LogKey::Field(Field::Stream("level"))];
    let aggregate = LogAggregate { by, slices, measure: LogMeasure::Entries, full: LogFull::Refuse };
    let logs = Arc::clone(&api.logs);
    let groups =
        question.run(&api, move |request, deadline| logs.aggregate(request, &aggregate, deadline)).await?;
    let mut bars = vec![LogBar::new(); slices.count];
    for group in &groups.groups {
        for (bar, count) in bars.iter_mut().zip(&group.sums).filter(|(_, count)| **count > 0) {
            *bar.entry(group.key.first().cloned().unwrap_or_default()).or_default() += count;
        }
    }
    let total: u64 = bars.iter().flat_map(|bar| bar.values()).sum();
    let shown = bars.iter().enumerate();
    let shown = shown.map(|(at, counts)| json!({ "start_ns": start_of(&slices, at), "counts": counts }));
    let mut answer = json!({
        "bars": shown.collect::<Vec<_>>(),
        "step_ns": slices.width_ns.to_string(),
        "total": total,
        "warnings": groups.warnings,
    });
    question.describe(&mut answer);
    Ok(success(&answer))
}

/// What is asked of one field.
struct Facet {
    name: String,
    key: LogKey,
}

fn facets_of(params: &Params) -> Result<Vec<Facet>, ApiError> {
    let named: Vec<&str> = params.all("field").filter(|name| !name.is_empty()).collect();
    let names = if named.is_empty() { STREAM_FIELDS.to_vec() } else { named };
    if names.len() > MAX_FACETS {
        return Err(ApiError::parameter("field", format!("at most {MAX_FACETS} fields in one request")));
    }
    let facet = |name: &str| match Field::named(name) {
        Field::Message => {
            let reason = "a message is no value to be counted; ask for patterns";
            Err(ApiError::parameter("field", reason))
        }
        field => Ok(Facet { name: name.to_owned(), key: LogKey::Field(field) }),
    };
    names.into_iter().map(facet).collect()
}

pub(super) async fn facets(State(api): Api, params: Params) -> Result<Response, ApiError> {
    let question = Question::read(&api, &params)?;
    let facets = facets_of(&params)?;
    let limit = counted(&params, "limit", DEFAULT_VALUES, MAX_VALUES)?;
    let contains = params.get("contains").unwrap_or_default().to_lowercase();
    let slices = question.slice();
    let logs = Arc::clone(&api.logs);
    let work = move |request: &_, deadline: &Deadline| -> Result<_, StorageError> {
        let mut warnings = Vec::new();
        let mut shown = Vec::new();
        for facet in facets {
            let aggregate = LogAggregate {
                by: vec![facet.key],
                slices,
                measure: LogMeasure::Entries,
                full: LogFull::DropSmall,
            };
            let mut groups = logs.aggregate(request, &aggregate, deadline)?;
            warnings.append(&mut groups.warnings);
            if let Some(dropped) = groups.dropped {
                warnings.push(format!(
                    "field {:?} has {} values or more, too many to count all of them: the counts of its values are at least \
                     so many",
                    facet.name, dropped.groups
                ));
            }
            shown.push(facet_json(&facet.name, groups, limit, &contains));
        }
        warnings.sort_unstable();
        warnings.dedup();
        Ok((shown, warnings))
    };
    let (shown, warnings) = question.run(&api, work).await?;
    let mut answer = json!({ "facets": shown, "warnings": warnings });
    question.describe(&mut answer);
    Ok(success(&answer))
}

/// The most frequent values, how many there are, how many entries have none, and how many are in no count.
fn facet_json(name: &str, groups: LogGroups, limit: usize, contains: &str) -> Value {
    let mut values: BTreeMap<String, u64> = BTreeMap::new();
    for group in groups.groups {
        let value = group.key.into_iter().next().unwrap_or_default();
        *values.entry(value).or_default() += group.sums.iter().sum::<u64>();
    }
    let missing = values.remove("").unwrap_or(0);
    let other = groups.dropped.map_or(0, |dropped| dropped.sum);
    let total: u64 = missing + other + values.values().sum::<u64>();
    let distinct = groups.dropped.map_or(0, |dropped| dropped.groups).max(values.len());
    let mut shown: Vec<(String, u64)> =
        values.into_iter().filter(|(value, _)| value.to_lowercase().contains(contains)).collect();
    shown.sort_by_key(|(_, count)| Reverse(*count));
    shown.truncate(limit);
    let shown: Vec<Value> =
        shown.into_iter().map(|(value, count)| json!({ "value": value, "count": count })).collect();
    json!({
        "field": name,
        "values": shown,
        "distinct": distinct,
        "missing": missing,
        "other": other,
        "total": total,
        "approximate": groups.dropped.is_some(),
    })
}

pub(super) async fn fields(State(api): Api, params: Params) -> Result<Response, ApiError> {
    let question = Question::read(&api, &params)?;
    let logs = Arc::clone(&api.logs);
    let found = question.run(&api, move |request, deadline| logs.fields(request, deadline)).await?;
    let shown: Vec<Value> = found.fields.iter().map(field_json).collect();
    let mut answer = json!({
        "fields": shown,
        "stream_fields": STREAM_FIELDS,
        "entries": found.entries,
        "warnings": found.warnings,
    });
    question.describe(&mut answer);
    Ok(success(&answer))
}

fn field_json(field: &LogField) -> Value {
    let kinds = [("text", field.text), ("number", field.number), ("bool", field.bool)];
    let types: Vec<&str> = kinds.into_iter().filter(|(_, is_seen)| *is_seen).map(|(kind, _)| kind).collect();
    json!({ "name": field.name, "entries": field.entries, "types": types })
}

pub(super) async fn patterns(State(api): Api, params: Params) -> Result<Response, ApiError> {
    let question = Question::read(&api, &params)?;
    let slices = question.slices(&params)?;
    let limit = counted(&params, "limit", DEFAULT_PATTERNS, MAX_PATTERNS)?;
    let new_since = moment(&params, "new_since", api.clock.now_ns())?;
    let logs = Arc::clone(&api.logs);
    let work = move |request: &LogRequest, deadline: &Deadline| {
        let mut found = logs.patterns(request, slices, deadline)?;
        let total: u64 = found.patterns.iter().map(|pattern| pattern.total).sum();
        if let Some(moment) = new_since {
            let minute = LogTime(moment.0 - moment.0.rem_euclid(MINUTE_NS));
            found.patterns.retain(|pattern| pattern.first_seen >= minute);
            let earlier = logs.known_patterns(&found.patterns, minute, deadline)?;
            let mut is_known = earlier.known.into_iter();
            found.patterns.retain(|_| !is_known.next().unwrap_or(false));
            found.warnings.extend(earlier.warnings);
            found.warnings.sort_unstable();
            found.warnings.dedup();
        }
        Ok((found, total))
    };
    let (mut found, total) = question.run(&api, work).await?;
    let distinct = found.patterns.len();
    found.patterns.truncate(limit);
    let starts: Vec<String> = (0..slices.count).map(|at| start_of(&slices, at)).collect();
    let mut answer = json!({
        "patterns": found.patterns.iter().map(pattern_json).collect::<Vec<_>>(),
        "distinct": distinct,
        "total": total,
        "slices_ns": starts,
        "step_ns": slices.width_ns.to_string(),
        "warnings": found.warnings,
    });
    question.describe(&mut answer);
    Ok(success(&answer))
}

fn pattern_json(pattern: &LogPattern) -> Value {
    json!({
        "pattern": cut(&pattern.pattern),
        "level": pattern.level,
        "total": pattern.total,
        "counts": pattern.counts,
        "example": cut(&pattern.example),
        "first_seen": pattern.first_seen.to_rfc3339(),
        "first_seen_ns": pattern.first_seen.0.to_string(),
    })
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_SHOWN_BYTES)]
}
