//! Whether two answers say the same.

use std::collections::BTreeMap;

use serde_json::Value;

/// Relative, and absolute for what is near zero.
const TOLERANCE: f64 = 1e-9;

#[derive(Debug)]
pub(super) enum Verdict {
    Equal { is_empty: bool },
    UnknownToPeer,
    Excluded,
    Differs(String),
}

impl Verdict {
    pub(super) fn worse(self, other: Self) -> Self {
        match (self, other) {
            (Self::Equal { is_empty: a }, Self::Equal { is_empty: b }) => Self::Equal { is_empty: a && b },
            (Self::Equal { .. }, other) => other,
            (this, _) => this,
        }
    }
}

/// Compares two answers to `query`, also in order where that is asked for.
pub(super) fn answers(query: &str, ours: &Value, peer: &Value) -> Verdict {
    let error = |body: &Value| body["error"].as_str().map(str::to_owned);
    match (error(ours), error(peer)) {
        (None, None) => {}
        (_, Some(theirs)) if theirs.contains("unknown function") => return Verdict::UnknownToPeer,
        // Both refuse; the words are compared elsewhere.
        (Some(_), Some(_)) => return Verdict::Equal { is_empty: true },
        // Binnacle takes names away at the end, and refuses less: docs/adr/0005-names-are-removed-last.md.
        (None, Some(theirs)) if theirs.contains("vector cannot contain metrics with the same labelset") => {
            return Verdict::Excluded;
        }
        // Since 2026 Prometheus refuses two partners of one series also where the comparison leaves one of them
        // out, as its own tests ask for; 3.5 does not.
        (Some(mine), None) if mine.starts_with("multiple matches for labels: many-to-one") => {
            return Verdict::Excluded;
        }
        (mine, theirs) => return Verdict::Differs(format!("error {mine:?}, Prometheus {theirs:?}")),
    }
    let (ours, peer) = (&ours["data"], &peer["data"]);
    if ours["resultType"] != peer["resultType"] {
        return Verdict::Differs(format!("{} instead of {}", ours["resultType"], peer["resultType"]));
    }
    if ours["resultType"] == "scalar" || ours["resultType"] == "string" {
        if same(&ours["result"], &peer["result"]) {
            return Verdict::Equal { is_empty: false };
        }
        return Verdict::Differs(format!("{} instead of {}", ours["result"], peer["result"]));
    }
    if ours["resultType"] == "vector"
        && let Some(key) = ordered_by(query)
        && let Some(how) = other_order(&ours["result"], &peer["result"], key)
    {
        return Verdict::Differs(how);
    }
    let count = |body: &Value| body["result"].as_array().map_or(0, Vec::len);
    let counts = (count(ours), count(peer));
    let (ours, peer) = (by_labels(&ours["result"]), by_labels(&peer["result"]));
    for (labels, theirs) in &peer {
        let Some(mine) = ours.get(labels) else {
            return Verdict::Differs(format!("{labels} is missing: {}", short(theirs)));
        };
        for key in ["value", "values", "histogram", "histograms"] {
            if !same(&mine[key], &theirs[key]) {
                return Verdict::Differs(format!("{labels} {}", first_difference(&mine[key], &theirs[key])));
            }
        }
    }
    if let Some((labels, mine)) = ours.iter().find(|(labels, _)| !peer.contains_key(*labels)) {
        return Verdict::Differs(format!("{labels} is too much: {}", short(mine)));
    }
    if counts != (ours.len(), peer.len()) {
        return Verdict::Differs(format!("some series twice: {} answered, and {}", counts.0, counts.1));
    }
    Verdict::Equal { is_empty: peer.is_empty() }
}

/// What must come in the same order at one moment, if the outermost function is about that.
fn ordered_by(query: &str) -> Option<&'static str> {
    if query.starts_with("sort_by_label") {
        return Some("metric");
    }
    // Of equal values any may come first.
    ["sort(", "sort_desc(", "topk (", "bottomk ("]
        .iter()
        .any(|name| query.starts_with(name))
        .then_some("value")
}

fn other_order(ours: &Value, peer: &Value, key: &str) -> Option<String> {
    let (ours, peer) = (ours.as_array()?, peer.as_array()?);
    let mut pairs = ours.iter().zip(peer);
    let (mine, theirs) = pairs.find(|(mine, theirs)| !same(&mine[key], &theirs[key]))?;
    Some(format!("in another order: {} where {} comes", short(mine), short(theirs)))
}

fn by_labels(result: &Value) -> BTreeMap<String, &Value> {
    let sorted = |metric: &Value| {
        let pairs: BTreeMap<&String, &Value> = metric.as_object().into_iter().flatten().collect();
        serde_json::to_string(&pairs).unwrap()
    };
    result.as_array().into_iter().flatten().map(|one| (sorted(&one["metric"]), one)).collect()
}

fn short(value: &Value) -> String {
    value.to_string().chars().take(200).collect()
}

fn first_difference(ours: &Value, peer: &Value) -> String {
    if let (Some(mine), Some(theirs)) = (ours.as_array(), peer.as_array())
        && mine.len() == theirs.len()
        && let Some((mine, theirs)) = mine.iter().zip(theirs).find(|(mine, theirs)| !same(mine, theirs))
    {
        return format!("{} instead of {}", short(mine), short(theirs));
    }
    format!("{} instead of {}", short(ours), short(peer))
}

/// Whether two pieces of JSON are the same, but for the last digits of numbers, as text or not.
fn same(ours: &Value, peer: &Value) -> bool {
    match (ours, peer) {
        (Value::Array(mine), Value::Array(theirs)) => {
            mine.len() == theirs.len() && mine.iter().zip(theirs).all(|(mine, theirs)| same(mine, theirs))
        }
        (Value::Object(mine), Value::Object(theirs)) => {
            mine.len() == theirs.len()
                && mine.iter().all(|(key, mine)| theirs.get(key).is_some_and(|theirs| same(mine, theirs)))
        }
        (Value::String(mine), Value::String(theirs)) => match (mine.parse(), theirs.parse()) {
            (Ok(mine), Ok(theirs)) => near(mine, theirs),
            _ => mine == theirs,
        },
        (Value::Number(mine), Value::Number(theirs)) => {
            near(mine.as_f64().unwrap_or(f64::NAN), theirs.as_f64().unwrap_or(f64::NAN))
        }
        (mine, theirs) => mine == theirs,
    }
}

fn near(ours: f64, peer: f64) -> bool {
    let is_nan = ours.is_nan() && peer.is_nan();
    is_nan || ours == peer || (ours - peer).abs() <= TOLERANCE * ours.abs().max(peer.abs()).max(1.0)
}
