//! Relabelling, in the steps and in the order that Prometheus Operator has them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::{Map, Value, json};

use super::super::views::Relabeling;

/// Relabelling rules in their order, as Prometheus writes them.
pub(super) struct Rules(Vec<Value>);

impl Rules {
    /// The name of the scrape config is kept for rules that follow.
    pub(super) fn new() -> Self {
        let mut rules = Self(Vec::new());
        rules.copy("job", "__tmp_prometheus_job_name");
        rules
    }

    pub(super) fn into_value(self) -> Value {
        Value::Array(self.0)
    }

    pub(super) fn copy(&mut self, from: &str, to: &str) {
        self.0.push(json!({"source_labels": [from], "target_label": to}));
    }

    /// As [`Self::copy`], unless there is nothing.
    pub(super) fn copy_if_there(&mut self, from: &str, to: &str) {
        self.0.push(
            json!({"source_labels": [from], "target_label": to, "regex": "(.+)", "replacement": "${1}"}),
        );
    }

    pub(super) fn set(&mut self, label: &str, text: &str) {
        self.0.push(json!({"target_label": label, "replacement": text}));
    }

    pub(super) fn push(&mut self, rule: Value) {
        self.0.push(rule);
    }

    pub(super) fn keep(&mut self, label: &str, regex: &str) {
        self.0.push(json!({"action": "keep", "source_labels": [label], "regex": regex}));
    }

    /// Pods that have ended have nobody who answers.
    pub(super) fn drop_ended(&mut self) {
        self.0.push(json!({
            "action": "drop", "source_labels": ["__meta_kubernetes_pod_phase"], "regex": "(Failed|Succeeded)",
        }));
    }

    /// Goes on with objects of the role whose labels are selected.
    pub(super) fn select(&mut self, role: &str, selector: &LabelSelector) -> Result<(), String> {
        let there = |key: &str| format!("__meta_kubernetes_{role}_labelpresent_{}", sanitized(key));
        let both =
            |key: &str| json!([format!("__meta_kubernetes_{role}_label_{}", sanitized(key)), there(key)]);
        for (key, value) in selector.match_labels.iter().flatten() {
            let regex = format!("({value});true");
            self.0.push(json!({"action": "keep", "source_labels": both(key), "regex": regex}));
        }
        for one in selector.match_expressions.iter().flatten() {
            let values = one.values.as_deref().unwrap_or_default().join("|");
            let one_of = format!("({values});true");
            let rule = match one.operator.as_str() {
                "In" => json!({"action": "keep", "source_labels": both(&one.key), "regex": one_of}),
                "NotIn" => json!({"action": "drop", "source_labels": both(&one.key), "regex": one_of}),
                "Exists" => json!({"action": "keep", "source_labels": [there(&one.key)], "regex": "true"}),
                "DoesNotExist" => {
                    json!({"action": "drop", "source_labels": [there(&one.key)], "regex": "true"})
                }
                other => return Err(unknown_operator(other)),
            };
            self.0.push(rule);
        }
        Ok(())
    }

    /// Adds rules that stand in the monitor.
    pub(super) fn extend(&mut self, relabelings: &[Relabeling]) {
        self.0.extend(relabelings.iter().map(rule_of));
    }
}

fn unknown_operator(operator: &str) -> String {
    format!("spec.selector.matchExpressions: {operator:?} is none of In, NotIn, Exists and DoesNotExist")
}

/// A rule of a monitor in Prometheus's words; what is empty is left out.
pub(super) fn rule_of(of: &Relabeling) -> Value {
    let mut rule = Map::new();
    let mut put = |key: &str, value: Value| _ = rule.insert(key.to_owned(), value);
    if !of.source_labels.is_empty() {
        put("source_labels", json!(of.source_labels));
    }
    if let Some(separator) = &of.separator {
        put("separator", json!(separator));
    }
    if !of.target_label.is_empty() {
        put("target_label", json!(of.target_label));
    }
    if !of.regex.is_empty() {
        put("regex", json!(of.regex));
    }
    if of.modulus != 0 {
        put("modulus", json!(of.modulus));
    }
    if let Some(replacement) = &of.replacement {
        put("replacement", json!(replacement));
    }
    if !of.action.is_empty() {
        put("action", json!(of.action.to_ascii_lowercase()));
    }
    Value::Object(rule)
}

/// The name of a label that Kubernetes knows, as Prometheus may have it.
pub(super) fn sanitized(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect()
}

/// A selector as the API takes it, ordered by its keys.
pub(super) fn selector_text(selector: &LabelSelector) -> Result<String, String> {
    let mut terms: Vec<(&str, String)> = Vec::new();
    for (key, value) in selector.match_labels.iter().flatten() {
        terms.push((key, format!("{key}={value}")));
    }
    for one in selector.match_expressions.iter().flatten() {
        let key = one.key.as_str();
        let mut values = one.values.clone().unwrap_or_default();
        values.sort();
        let values = values.join(",");
        let text = match one.operator.as_str() {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            other => return Err(unknown_operator(other)),
        };
        terms.push((key, text));
    }
    terms.sort_by_key(|(key, _)| *key);
    Ok(terms.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join(","))
}
