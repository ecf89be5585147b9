//! `/api/v1/targets`, `/api/v1/targets/{metadata,relabel_steps}`, `/api/v1/scrape_pools` and `/probe`.

mod probe;
mod steps;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use binnacle_model::{Labels, Matcher};
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Map, Value, json};

pub use probe::probe_router;

use crate::scrape::{Described, Health, Pool, Scraper, Target};

type Targets = State<Arc<Shown>>;

/// Reads a series selector; says what is wrong with one that is none.
pub type ParseSelector = fn(&str) -> Result<Vec<Matcher>, String>;

struct Shown {
    scraper: Arc<Scraper>,
    parse: ParseSelector,
}

/// The routes.
pub fn router(scraper: &Arc<Scraper>, parse: ParseSelector) -> Router {
    Router::new()
        .route("/api/v1/targets", get(list))
        .route("/api/v1/targets/metadata", get(metadata))
        .route("/api/v1/targets/relabel_steps", get(steps::relabel_steps))
        .route("/api/v1/scrape_pools", get(pools))
        .with_state(Arc::new(Shown { scraper: Arc::clone(scraper), parse }))
}

#[derive(Deserialize)]
struct Filter {
    state: Option<String>,
    #[serde(rename = "scrapePool")]
    scrape_pool: Option<String>,
}

async fn list(State(shown): Targets, Query(filter): Query<Filter>) -> Json<Value> {
    let wants = |state: &str| {
        filter.state.as_deref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(state) || wanted == "any")
    };
    let in_pool = |pool: &Pool| filter.scrape_pool.as_ref().is_none_or(|wanted| *wanted == pool.job);
    let targets = shown.scraper.targets();
    let targets = targets.iter().filter(|target| wants("active") && in_pool(&target.pool));
    let active: Vec<Value> = targets.map(|target| show(target)).collect();
    let (mut dropped, mut counts) = (Vec::new(), Map::new());
    for pool in shown.scraper.pools().iter().filter(|pool| wants("dropped") && in_pool(pool)) {
        let (of_pool, count) = pool.dropped();
        counts.insert(pool.job.clone(), Value::from(count));
        let shown = of_pool
            .iter()
            .map(|labels| json!({ "discoveredLabels": labels_json(labels), "scrapePool": pool.job }));
        dropped.extend(shown);
    }
    Json(json!({
        "status": "success",
        "data": { "activeTargets": active, "droppedTargets": dropped, "droppedTargetCounts": counts },
    }))
}

async fn pools(State(shown): Targets) -> Json<Value> {
    let pools = shown.scraper.pools();
    let names: BTreeSet<&str> = pools.iter().map(|pool| pool.job.as_str()).collect();
    Json(json!({ "status": "success", "data": { "scrapePools": names } }))
}

fn refused(error: &str) -> Response {
    let body = json!({ "status": "error", "errorType": "bad_data", "error": error });
    (StatusCode::BAD_REQUEST, Json(body)).into_response()
}

#[derive(Deserialize)]
struct Wanted {
    match_target: Option<String>,
    metric: Option<String>,
    limit: Option<String>,
}

/// What targets say of their metrics. As in Prometheus, no further target is looked at once there are `limit` entries.
async fn metadata(State(shown): Targets, Query(wanted): Query<Wanted>) -> Response {
    let bad = |name: &str, reason: &str| refused(&format!("invalid parameter {name:?}: {reason}"));
    let limit = match wanted.limit.as_deref().map(str::parse::<i64>) {
        None => usize::MAX,
        Some(Ok(limit)) => usize::try_from(limit).unwrap_or(usize::MAX),
        Some(Err(_)) => return bad("limit", "limit must be a number"),
    };
    let matchers = match wanted.match_target.as_deref().filter(|text| !text.is_empty()) {
        None => Vec::new(),
        Some(text) => match (shown.parse)(text) {
            Ok(matchers) => matchers,
            Err(reason) => return bad("match_target", &reason),
        },
    };
    let metric = wanted.metric.filter(|metric| !metric.is_empty());
    let is_meant = |target: &Arc<Target>| {
        matchers.iter().all(|matcher| matcher.matches(target.labels.value(&matcher.name)))
    };
    let is_wanted = |name: &str| metric.as_deref().is_none_or(|metric| metric == name);
    let mut count = 0;
    let mut found: Vec<(Arc<Target>, Described)> = Vec::new();
    for target in shown.scraper.targets().into_iter().filter(is_meant) {
        if count >= limit {
            break;
        }
        let described = target.described();
        let of_target = described.iter().filter(|(name, _)| is_wanted(name)).count();
        if of_target > 0 {
            count += of_target;
            found.push((target, described));
        }
    }
    if found.is_empty() {
        let error = "specified metadata not found";
        let body = json!({ "status": "error", "errorType": "not_found", "error": error });
        return (StatusCode::NOT_FOUND, Json(body)).into_response();
    }
    let targets = found.into_iter().enumerate().map(move |(at, (target, described))| {
        let mut text = String::from(if at == 0 { "{\"status\":\"success\",\"data\":[" } else { "," });
        push_described(&mut text, &target, &described, metric.as_deref());
        text
    });
    // A target at a time: thousands of them say the same.
    let all = targets.chain(std::iter::once("]}".to_owned())).map(Ok::<_, Infallible>);
    ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(stream::iter(all))).into_response()
}

/// What one target says of a metric, or of all.
fn push_described(text: &mut String, target: &Target, described: &Described, metric: Option<&str>) {
    let labels = labels_json(&target.labels);
    let wanted = described.iter().filter(|(name, _)| metric.is_none_or(|metric| metric == name));
    for (at, (name, one)) in wanted.enumerate() {
        let mut shown = json!({ "target": labels, "type": one.kind, "help": one.help, "unit": one.unit });
        if metric.is_none() {
            shown["metric"] = Value::from(name.as_str());
        }
        text.push_str(if at == 0 { "" } else { "," });
        text.push_str(&shown.to_string());
    }
}

fn labels_json(labels: &Labels) -> Value {
    let pairs = labels.iter().map(|label| (label.name.to_string(), Value::from(&*label.value)));
    Value::Object(pairs.collect::<Map<String, Value>>())
}

fn show(target: &Target) -> Value {
    let status = target.status();
    let labels = labels_json(&target.labels);
    let health = match status.health {
        Health::Unknown => "unknown",
        Health::Up => "up",
        Health::Down => "down",
    };
    let url = target.source.to_string();
    let duration = |span| binnacle_model::time::format_duration(span);
    let never = "0001-01-01T00:00:00Z".to_owned();
    json!({
        "discoveredLabels": labels_json(&target.discovered),
        "labels": labels,
        "scrapePool": target.pool.job,
        "scrapeUrl": url,
        "globalUrl": url,
        "lastError": status.last_error,
        "lastScrape": status.last_scrape.map_or(never, binnacle_model::Timestamp::to_rfc3339),
        "lastScrapeDuration": status.last_duration.as_secs_f64(),
        "health": health,
        "scrapeInterval": duration(target.interval),
        "scrapeTimeout": duration(target.timeout),
    })
}
