//! The route tree: which receivers hear of an alert, how its group is made, and when it is told.

use std::collections::BTreeMap;
use std::time::Duration;

use binnacle_model::time::optional_duration;
use binnacle_model::yaml::null_is_default;
use binnacle_model::{Labels, MatchOp, Matcher};
use serde::Deserialize;
use serde_saphyr::Spanned;

use super::matchers::parse_matchers;
use crate::FileError;

/// A node as the operator wrote it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawRoute {
    receiver: Option<String>,
    group_by: Option<Vec<String>>,
    #[serde(rename = "continue", deserialize_with = "null_is_default")]
    goes_on: bool,
    #[serde(rename = "match", deserialize_with = "null_is_default")]
    equal: BTreeMap<String, Option<String>>,
    #[serde(rename = "match_re", deserialize_with = "null_is_default")]
    regex: BTreeMap<String, Option<String>>,
    #[serde(deserialize_with = "null_is_default")]
    matchers: Vec<Spanned<String>>,
    #[serde(with = "optional_duration")]
    group_wait: Option<Duration>,
    #[serde(with = "optional_duration")]
    group_interval: Option<Duration>,
    #[serde(with = "optional_duration")]
    repeat_interval: Option<Duration>,
    #[serde(deserialize_with = "null_is_default")]
    mute_time_intervals: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    active_time_intervals: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    routes: Vec<Spanned<RawRoute>>,
}

/// A node of the route tree.
#[derive(Debug, Clone)]
pub(in crate::notify) struct Route {
    /// Tells it from a sibling with the same matchers.
    pub(in crate::notify) number: usize,
    /// The path to it, as group keys begin.
    pub(in crate::notify) key: String,
    pub(in crate::notify) receiver: String,
    pub(in crate::notify) group_by: GroupBy,
    pub(in crate::notify) group_wait: Duration,
    pub(in crate::notify) group_interval: Duration,
    pub(in crate::notify) repeat_interval: Duration,
    /// Names of intervals in which it is silent.
    pub(in crate::notify) mute_in: Vec<String>,
    /// Names of intervals in which alone it speaks; none for always.
    pub(in crate::notify) active_in: Vec<String>,
    matchers: Vec<Matcher>,
    goes_on: bool,
    routes: Vec<Route>,
}

#[derive(Debug, Clone)]
pub(in crate::notify) enum GroupBy {
    Labels(Vec<String>),
    All,
}

/// What routes may name.
pub(super) struct Known<'k> {
    pub(super) file: &'k str,
    pub(super) receivers: &'k dyn Fn(&str) -> bool,
    pub(super) intervals: &'k dyn Fn(&str) -> bool,
}

/// The tree of a configuration.
pub(super) fn tree(known: &Known<'_>, root: Option<Spanned<RawRoute>>) -> Result<Route, FileError> {
    let Some(root) = root else {
        let reason = "no route provided in config".to_owned();
        return Err(FileError { file: known.file.to_owned(), line: 0, column: 0, reason });
    };
    let raw = &root.value;
    let refuse = |reason: &str| Err(FileError::at(known.file, &root.referenced, reason));
    if raw.receiver.as_deref().unwrap_or_default().is_empty() {
        return refuse("root route must specify a default receiver");
    }
    if !raw.equal.is_empty() || !raw.regex.is_empty() || !raw.matchers.is_empty() {
        return refuse("root route must not have any matchers");
    }
    if !raw.mute_time_intervals.is_empty() {
        return refuse("root route must not have any mute time intervals");
    }
    if !raw.active_time_intervals.is_empty() {
        return refuse("root route must not have any active time intervals");
    }
    let defaults = Route {
        number: 0,
        key: String::new(),
        receiver: String::new(),
        group_by: GroupBy::Labels(Vec::new()),
        group_wait: Duration::from_secs(30),
        group_interval: Duration::from_mins(5),
        repeat_interval: Duration::from_hours(4),
        mute_in: Vec::new(),
        active_in: Vec::new(),
        matchers: Vec::new(),
        goes_on: false,
        routes: Vec::new(),
    };
    let mut root = node(known, root, &defaults, 0)?;
    number(&mut root, &mut 0);
    Ok(root)
}

fn number(route: &mut Route, next: &mut usize) {
    route.number = *next;
    *next += 1;
    route.routes.iter_mut().for_each(|child| number(child, next));
}

/// Deepest node of a tree.
const MAX_DEPTH: usize = 64;

fn node(known: &Known<'_>, raw: Spanned<RawRoute>, parent: &Route, depth: usize) -> Result<Route, FileError> {
    let place = raw.referenced;
    let refuse = |reason: String| FileError::at(known.file, &place, reason);
    if depth > MAX_DEPTH {
        return Err(refuse(format!("routes are nested deeper than {MAX_DEPTH} levels")));
    }
    let raw = raw.value;
    let receiver =
        raw.receiver.filter(|receiver| !receiver.is_empty()).unwrap_or_else(|| parent.receiver.clone());
    if !(known.receivers)(&receiver) {
        return Err(refuse(format!("undefined receiver {receiver:?} used in route")));
    }
    for name in raw.mute_time_intervals.iter().chain(&raw.active_time_intervals) {
        if !(known.intervals)(name) {
            return Err(refuse(format!("undefined time interval {name:?} used in route")));
        }
    }
    let matchers =
        matchers_of(known.file, &raw.equal, &raw.regex, &raw.matchers).map_err(|error| match error {
            Wrong::Here(reason) => refuse(reason),
            Wrong::There(error) => error,
        })?;
    let group_by = group_by(raw.group_by).map_err(refuse)?.unwrap_or_else(|| parent.group_by.clone());
    for (key, span) in [("group_interval", raw.group_interval), ("repeat_interval", raw.repeat_interval)] {
        if span.is_some_and(|span| span.is_zero()) {
            return Err(refuse(format!("{key} cannot be zero")));
        }
    }
    let own: Vec<String> = matchers.iter().map(ToString::to_string).collect();
    let own = format!("{{{}}}", own.join(","));
    let key = if parent.key.is_empty() { own } else { format!("{}/{own}", parent.key) };
    let mut route = Route {
        number: 0,
        key,
        receiver,
        group_by,
        group_wait: raw.group_wait.unwrap_or(parent.group_wait),
        group_interval: raw.group_interval.unwrap_or(parent.group_interval),
        repeat_interval: raw.repeat_interval.unwrap_or(parent.repeat_interval),
        // Children do not inherit them.
        mute_in: raw.mute_time_intervals,
        active_in: raw.active_time_intervals,
        matchers,
        goes_on: raw.goes_on,
        routes: Vec::new(),
    };
    for child in raw.routes {
        let child = node(known, child, &route, depth + 1)?;
        route.routes.push(child);
    }
    Ok(route)
}

fn group_by(names: Option<Vec<String>>) -> Result<Option<GroupBy>, String> {
    let Some(names) = names else { return Ok(None) };
    for (at, name) in names.iter().enumerate() {
        if name.is_empty() {
            return Err(format!("invalid label name {name:?} in group_by list"));
        }
        if names[..at].contains(name) {
            return Err(format!("duplicated label {name:?} in group_by"));
        }
    }
    if !names.iter().any(|name| name == "...") {
        return Ok(Some(GroupBy::Labels(names)));
    }
    if names.len() > 1 {
        return Err("cannot have wildcard group_by (`...`) and other labels at the same time".to_owned());
    }
    Ok(Some(GroupBy::All))
}

/// An error at the place of the whole, or at one of its own.
pub(super) enum Wrong {
    Here(String),
    There(FileError),
}

/// The three ways of saying what matches, in the order in which Alertmanager prints them.
pub(super) fn matchers_of(
    file: &str,
    equal: &BTreeMap<String, Option<String>>,
    regex: &BTreeMap<String, Option<String>>,
    matchers: &[Spanned<String>],
) -> Result<Vec<Matcher>, Wrong> {
    let mut found = Vec::new();
    for (name, value) in equal {
        if name.is_empty() {
            return Err(Wrong::Here(format!("invalid label name {name:?}")));
        }
        found.push(Matcher::equal(name, value.as_deref().unwrap_or_default()));
    }
    for (name, value) in regex {
        let value =
            value.as_deref().ok_or_else(|| Wrong::Here(format!("invalid regexp value for {name:?}")))?;
        found.push(Matcher::new(name, MatchOp::Regex, value).map_err(Wrong::Here)?);
    }
    for text in matchers {
        let parsed = parse_matchers(&text.value);
        found.extend(parsed.map_err(|reason| Wrong::There(FileError::at(file, &text.referenced, reason)))?);
    }
    found.sort_by(|a, b| (&a.name, &a.value).cmp(&(&b.name, &b.value)));
    Ok(found)
}

impl Route {
    /// The routes that an alert takes, in order.
    pub(in crate::notify) fn matching<'r>(&'r self, labels: &Labels, found: &mut Vec<&'r Route>) {
        if !binnacle_model::matcher::all_match(&self.matchers, labels) {
            return;
        }
        let before = found.len();
        for child in &self.routes {
            let so_far = found.len();
            child.matching(labels, found);
            if found.len() > so_far && !child.goes_on {
                break;
            }
        }
        if found.len() == before {
            found.push(self);
        }
    }
}
