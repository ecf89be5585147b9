//! `/api/v1/rules`, `/api/v1/alerts`, and what was sent: `/api/history`; Alertmanager's API is in `v2`.

pub mod log_metrics;
pub mod v2;

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use binnacle_model::{Labels, Matcher, Timestamp};
use binnacle_query::promql::parse_selector;
use serde_json::{Map, Value, json};
use xxhash_rust::xxh3::xxh3_128;

use crate::rules::{Alert, AlertState, Evaluator, GroupStatus, Rule, RuleHealth, RuleKind, RuleStatus};
use crate::state::AlertDb;

/// Messages shown.
const HISTORY_LIMIT: usize = 200;

/// What the handlers share.
pub struct AlertApi {
    /// Rules and alerts.
    pub evaluator: Arc<Evaluator>,
    /// What was sent.
    pub db: Arc<AlertDb>,
}

/// The routes.
pub fn router(api: Arc<AlertApi>) -> Router {
    Router::new()
        .route("/api/v1/rules", get(rules))
        .route("/api/v1/alerts", get(alerts))
        .route("/api/history", get(history))
        .with_state(api)
}

type Api = State<Arc<AlertApi>>;

/// Filters of `/api/v1/rules`.
#[derive(Default)]
struct Filter {
    kind: Option<String>,
    rules: Vec<String>,
    groups: Vec<String>,
    files: Vec<String>,
    exclude_alerts: bool,
    /// Of the rules' labels; one of them must hold.
    selectors: Vec<Vec<Matcher>>,
    /// Groups of one answer.
    most: Option<usize>,
    /// The first group, as the answer before named it.
    from: Option<String>,
}

impl Filter {
    fn parse(query: &str) -> Result<Self, String> {
        let mut filter = Self::default();
        for (name, value) in binnacle_query::http::Params::from_query(query).into_pairs() {
            match name.as_str() {
                _ if value.is_empty() => {}
                "type" => filter.kind = Some(value.to_ascii_lowercase()),
                "rule_name[]" => filter.rules.push(value),
                "rule_group[]" => filter.groups.push(value),
                "file[]" => filter.files.push(value),
                "exclude_alerts" => {
                    let yes = ["true", "TRUE", "True", "t", "T", "1"];
                    filter.exclude_alerts = yes.contains(&value.as_str());
                }
                "match[]" => {
                    filter.selectors.push(parse_selector(&value).map_err(|error| error.to_string())?);
                }
                "group_limit" => {
                    let limit = value.parse().map_err(|_| format!("group_limit {value:?} is no count"))?;
                    filter.most = Some(limit).filter(|limit| *limit > 0);
                }
                "group_next_token" => filter.from = Some(value),
                _ => {}
            }
        }
        if let Some(kind) = filter.kind.as_deref().filter(|kind| !matches!(*kind, "alert" | "record")) {
            return Err(format!("not supported value {kind:?}"));
        }
        if filter.from.is_some() && filter.most.is_none() {
            return Err("group_limit needs to be present in order to paginate over the groups".to_owned());
        }
        Ok(filter)
    }

    fn takes_group(&self, group: &GroupStatus) -> bool {
        (self.groups.is_empty() || self.groups.contains(&group.group.name))
            && (self.files.is_empty() || self.files.contains(&group.group.file))
    }

    fn takes_rule(&self, rule: &Rule) -> bool {
        let kind = if rule.kind == RuleKind::Record { "record" } else { "alert" };
        let holds = |matcher: &Matcher| {
            matcher.matches(rule.labels.get(&matcher.name).map(String::as_str).unwrap_or_default())
        };
        (self.rules.is_empty() || self.rules.contains(&rule.name))
            && self.kind.as_ref().is_none_or(|wanted| wanted == kind)
            && (self.selectors.is_empty() || self.selectors.iter().any(|all| all.iter().all(holds)))
    }
}

async fn rules(State(api): Api, RawQuery(query): RawQuery) -> Response {
    let filter = match Filter::parse(&query.unwrap_or_default()) {
        Ok(filter) => filter,
        Err(error) => return refused(&error),
    };
    let mut all = api.evaluator.status();
    all.retain(|group| filter.takes_group(group));
    all.sort_by(|a, b| (&a.group.file, &a.group.name).cmp(&(&b.group.file, &b.group.name)));
    let first = match &filter.from {
        None => 0,
        Some(wanted) => match all.iter().position(|group| token(group) == *wanted) {
            Some(first) => first,
            None => return refused("invalid group_next_token; it was taken from an older answer"),
        },
    };
    let mut groups = Vec::new();
    let mut next = None;
    for status in &all[first..] {
        let rules = status.group.rules.iter().zip(&status.rules);
        let shown: Vec<Value> = rules
            .filter(|(rule, _)| filter.takes_rule(rule))
            .map(|(rule, state)| show_rule(rule, state, filter.exclude_alerts))
            .collect();
        if shown.is_empty() {
            continue;
        }
        if filter.most == Some(groups.len()) {
            next = Some(token(status));
            break;
        }
        groups.push(json!({
            "name": status.group.name,
            "file": status.group.file,
            "interval": status.interval.as_secs_f64(),
            "limit": status.group.limit,
            "rules": shown,
            "evaluationTime": status.duration.as_secs_f64(),
            "lastEvaluation": time(status.last_evaluation),
        }));
    }
    let mut data = json!({ "groups": groups });
    if let Some(next) = next {
        data["groupNextToken"] = next.into();
    }
    Json(json!({ "status": "success", "data": data })).into_response()
}

fn refused(error: &str) -> Response {
    let body = json!({ "status": "error", "errorType": "bad_data", "error": error });
    (StatusCode::BAD_REQUEST, Json(body)).into_response()
}

/// By which the next answer begins with this group.
fn token(group: &GroupStatus) -> String {
    let name = format!("{};{}", group.group.file, group.group.name);
    format!("{:032x}", xxh3_128(name.as_bytes()))
}

async fn alerts(State(api): Api) -> Json<Value> {
    let status = api.evaluator.status();
    let alerts = status.iter().flat_map(|group| &group.rules).flat_map(|rule| &rule.alerts);
    let shown: Vec<Value> = alerts.filter(|alert| is_active(alert)).map(show_alert).collect();
    Json(json!({ "status": "success", "data": { "alerts": shown } }))
}

async fn history(State(api): Api) -> Response {
    let db = Arc::clone(&api.db);
    let read = tokio::task::spawn_blocking(move || db.history(HISTORY_LIMIT)).await;
    let messages = match read {
        Ok(Ok(messages)) => messages,
        Ok(Err(error)) => return failed(&error.to_string()),
        Err(error) => return failed(&error.to_string()),
    };
    let shown: Vec<Value> = messages
        .iter()
        .map(|message| {
            let body: Value = serde_json::from_str(&message.body).unwrap_or_default();
            json!({
                "id": message.id,
                "receiver": message.receiver,
                "groupKey": message.group_key,
                "status": body["status"],
                "alerts": body["alerts"].as_array().map_or(0, Vec::len),
                "groupLabels": body["groupLabels"],
                "commonAnnotations": body["commonAnnotations"],
                "state": message.state,
                "attempts": message.attempts,
                "lastError": message.last_error,
                "created": message.created.to_rfc3339(),
                "changed": message.changed.to_rfc3339(),
            })
        })
        .collect();
    Json(json!({ "status": "success", "data": { "notifications": shown } })).into_response()
}

fn failed(reason: &str) -> Response {
    let body = json!({ "status": "error", "errorType": "internal", "error": reason });
    (StatusCode::INTERNAL_SERVER_ERROR, Json(body)).into_response()
}

fn is_active(alert: &Alert) -> bool {
    alert.state != AlertState::Resolved
}

fn show_rule(rule: &Rule, status: &RuleStatus, exclude_alerts: bool) -> Value {
    let health = match status.health {
        RuleHealth::Unknown => "unknown",
        RuleHealth::Ok => "ok",
        RuleHealth::Err => "err",
    };
    let mut shown = json!({
        "name": rule.name,
        "query": rule.expr.to_string(),
        "labels": rule.labels,
        "health": health,
        "evaluationTime": status.duration.as_secs_f64(),
        "lastEvaluation": time(status.last_evaluation),
        "type": "recording",
    });
    if !status.last_error.is_empty() {
        shown["lastError"] = Value::from(status.last_error.as_str());
    }
    if let RuleKind::Alert { hold, keep_firing_for, annotations } = &rule.kind {
        let has = |state| status.alerts.iter().any(|alert| alert.state == state);
        let state = if has(AlertState::Firing) {
            "firing"
        } else if has(AlertState::Pending) {
            "pending"
        } else {
            "inactive"
        };
        shown["type"] = "alerting".into();
        shown["state"] = state.into();
        shown["duration"] = hold.as_secs_f64().into();
        shown["keepFiringFor"] = keep_firing_for.as_secs_f64().into();
        shown["annotations"] = json!(annotations);
        let alerts = status.alerts.iter().filter(|alert| is_active(alert) && !exclude_alerts);
        shown["alerts"] = Value::Array(alerts.map(show_alert).collect());
    }
    shown
}

fn show_alert(alert: &Alert) -> Value {
    let mut shown = json!({
        "labels": object(&alert.labels),
        "annotations": object(&alert.annotations),
        "state": alert.state.as_str(),
        "activeAt": alert.active_at.to_rfc3339(),
        "value": go_exponent(alert.value),
    });
    if let Some(since) = alert.keep_firing_since {
        shown["keepFiringSince"] = since.to_rfc3339().into();
    }
    shown
}

/// Go's `FormatFloat(v, 'e', -1, 64)`: `1e+00`.
fn go_exponent(value: f64) -> String {
    if !value.is_finite() {
        return binnacle_query::http::format_value(value);
    }
    let text = format!("{value:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

fn object(labels: &Labels) -> Value {
    let pairs = labels.iter().map(|label| (label.name.to_string(), Value::from(&*label.value)));
    Value::Object(pairs.collect::<Map<_, _>>())
}

fn time(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), Timestamp::to_rfc3339)
}
