//! `/api/v1/targets` and `/api/v1/scrape_pools`.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::scrape::{Health, Target};

type Targets = State<Arc<Vec<Arc<Target>>>>;

/// The routes.
pub fn router(targets: Vec<Arc<Target>>) -> Router {
    Router::new()
        .route("/api/v1/targets", get(list))
        .route("/api/v1/scrape_pools", get(pools))
        .with_state(Arc::new(targets))
}

#[derive(Deserialize)]
struct Filter {
    state: Option<String>,
    #[serde(rename = "scrapePool")]
    scrape_pool: Option<String>,
}

async fn list(State(targets): Targets, Query(filter): Query<Filter>) -> Json<Value> {
    let wants_active = filter.state.as_deref().is_none_or(|state| state != "dropped");
    let in_pool = |target: &&Arc<Target>| filter.scrape_pool.as_ref().is_none_or(|pool| *pool == target.job);
    let active: Vec<Value> =
        targets.iter().filter(|_| wants_active).filter(in_pool).map(|target| show(target)).collect();
    Json(json!({
        "status": "success",
        "data": { "activeTargets": active, "droppedTargets": [], "droppedTargetCounts": {} },
    }))
}

async fn pools(State(targets): Targets) -> Json<Value> {
    let names: BTreeSet<&str> = targets.iter().map(|target| target.job.as_str()).collect();
    Json(json!({ "status": "success", "data": { "scrapePools": names } }))
}

fn show(target: &Target) -> Value {
    let status = target.status();
    let pairs = target.labels.iter().map(|label| (label.name.to_string(), Value::from(&*label.value)));
    let labels: Map<String, Value> = pairs.collect();
    let health = match status.health {
        Health::Unknown => "unknown",
        Health::Up => "up",
        Health::Down => "down",
    };
    let url = target.source.to_string();
    let duration = |span| binnacle_model::time::format_duration(span);
    let never = "0001-01-01T00:00:00Z".to_owned();
    json!({
        "discoveredLabels": { "__address__": target.labels.value("instance"), "job": target.job },
        "labels": labels,
        "scrapePool": target.job,
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
