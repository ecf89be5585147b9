//! `/api/v1/targets/relabel_steps`: what the rules of a scrape pool make of labels, rule by rule.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use binnacle_model::Labels;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Targets, labels_json, refused};
use crate::relabel::{Rule, steps};

#[derive(Deserialize)]
pub(super) struct Asked {
    #[serde(rename = "scrapePool", default)]
    scrape_pool: String,
    /// An object of labels, as JSON.
    #[serde(default)]
    labels: String,
}

/// Checks in Prometheus's order, and in its words.
pub(super) async fn relabel_steps(State(shown): Targets, Query(asked): Query<Asked>) -> Response {
    if asked.scrape_pool.is_empty() {
        return refused("no scrapePool parameter provided");
    }
    if asked.labels.is_empty() {
        return refused("no labels parameter provided");
    }
    let labels = match read(&asked.labels) {
        Ok(labels) => labels,
        Err(reason) => return refused(&format!("error parsing labels: {reason}")),
    };
    let pools = shown.scraper.pools();
    let Some(pool) = pools.iter().find(|pool| pool.job == asked.scrape_pool) else {
        let pool = &asked.scrape_pool;
        return refused(&format!("error retrieving scrape config: scrape pool {pool:?} not found"));
    };
    let steps = show(&labels, &pool.relabel);
    Json(json!({ "status": "success", "data": { "steps": steps } })).into_response()
}

/// As Go reads a map of strings: `null` is an empty map, and an empty string in it.
fn read(text: &str) -> Result<Labels, String> {
    let pairs: Option<BTreeMap<String, Option<String>>> =
        serde_json::from_str(text).map_err(|error| error.to_string())?;
    let pairs = pairs.unwrap_or_default().into_iter();
    Labels::new(pairs.map(|(name, value)| (name, value.unwrap_or_default())))
        .map_err(|error| error.to_string())
}

fn show(labels: &Labels, rules: &[Rule]) -> Vec<Value> {
    let after = steps(labels, rules);
    let shown = rules.iter().zip(after).map(|(rule, left)| {
        let keep = left.is_some();
        json!({ "rule": rule, "output": labels_json(&left.unwrap_or_default()), "keep": keep })
    });
    shown.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relabel::RawRule;

    #[test]
    fn a_step_has_rule_output_and_verdict() {
        let yaml = "[{target_label: b, replacement: x}, {source_labels: [b], regex: x, action: drop}]";
        let raw: Vec<RawRule> = serde_saphyr::from_str(yaml).unwrap();
        let rules: Vec<Rule> = raw.into_iter().map(|raw| Rule::try_from(raw).unwrap()).collect();
        let shown = show(&read(r#"{"__address__":"h:1","a":null}"#).unwrap(), &rules);
        assert_eq!(shown[0]["output"], json!({ "__address__": "h:1", "b": "x" }));
        assert_eq!((&shown[0]["keep"], &shown[0]["rule"]["targetLabel"]), (&json!(true), &json!("b")));
        assert_eq!((&shown[1]["output"], &shown[1]["keep"]), (&json!({}), &json!(false)));
    }

    #[test]
    fn labels_are_an_object_of_strings() {
        assert_eq!(read("null").unwrap(), Labels::default());
        for bad in ["{", "[]", r#"{"a":1}"#, r#"{"a":"b"}x"#] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
