//! `alertmanager.yml`, as far as this release uses it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use binnacle_model::time::optional_duration;
use binnacle_model::yaml::null_is_default;
use binnacle_model::{Labels, MatchOp, Matcher};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_saphyr::Spanned;

use crate::FileError;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    #[serde(default)]
    global: Option<serde_json::Value>,
    route: Option<Spanned<RawRoute>>,
    #[serde(default, deserialize_with = "null_is_default")]
    receivers: Vec<RawReceiver>,
    inhibit_rules: Option<IgnoredAny>,
    templates: Option<Vec<String>>,
    mute_time_intervals: Option<IgnoredAny>,
    time_intervals: Option<IgnoredAny>,
    tracing: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRoute {
    receiver: Option<String>,
    group_by: Option<Vec<String>>,
    #[serde(default, rename = "continue")]
    goes_on: bool,
    #[serde(default, rename = "match", deserialize_with = "null_is_default")]
    equal: BTreeMap<String, String>,
    #[serde(default, rename = "match_re", deserialize_with = "null_is_default")]
    regex: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "null_is_default")]
    matchers: Vec<Spanned<String>>,
    #[serde(default, with = "optional_duration")]
    group_wait: Option<Duration>,
    #[serde(default, with = "optional_duration")]
    group_interval: Option<Duration>,
    #[serde(default, with = "optional_duration")]
    repeat_interval: Option<Duration>,
    #[serde(default, deserialize_with = "null_is_default")]
    routes: Vec<Spanned<RawRoute>>,
    mute_time_intervals: Option<IgnoredAny>,
    active_time_intervals: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
struct RawReceiver {
    name: Spanned<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    webhook_configs: Vec<RawWebhook>,
    #[serde(flatten)]
    other: BTreeMap<String, IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawWebhook {
    url: Option<String>,
    url_file: Option<String>,
    #[serde(default = "yes")]
    send_resolved: bool,
    #[serde(default)]
    max_alerts: usize,
    http_config: Option<IgnoredAny>,
    timeout: Option<IgnoredAny>,
}

fn yes() -> bool {
    true
}

/// A configuration that can be used.
#[derive(Debug, Clone)]
pub struct AlertmanagerConfig {
    pub(super) root: Route,
    pub(super) receivers: BTreeMap<String, Vec<Webhook>>,
    /// Parts of the file that change nothing in this release.
    pub warnings: Vec<String>,
}

/// A node of the route tree.
#[derive(Debug, Clone)]
pub(super) struct Route {
    /// Tells it from a sibling with the same matchers.
    pub(super) number: usize,
    /// The path to it, as group keys begin.
    pub(super) key: String,
    pub(super) receiver: String,
    pub(super) group_by: GroupBy,
    pub(super) group_wait: Duration,
    pub(super) group_interval: Duration,
    pub(super) repeat_interval: Duration,
    matchers: Vec<Matcher>,
    goes_on: bool,
    routes: Vec<Route>,
}

#[derive(Debug, Clone)]
pub(super) enum GroupBy {
    Labels(Vec<String>),
    All,
}

/// A webhook of a receiver.
#[derive(Debug, Clone)]
pub(super) struct Webhook {
    pub(super) url: String,
    pub(super) send_resolved: bool,
    pub(super) max_alerts: usize,
}

/// Reads a configuration.
pub fn parse_alertmanager(file: &str, text: &str) -> Result<AlertmanagerConfig, FileError> {
    let raw: RawConfig = serde_saphyr::from_str(text).map_err(|error| FileError::yaml(file, &error))?;
    let RawConfig {
        global,
        route,
        receivers,
        inhibit_rules,
        templates,
        mute_time_intervals,
        time_intervals,
        tracing,
    } = raw;
    let mut warnings = Vec::new();
    let unused = [
        ("global", global.is_some()),
        ("inhibit_rules", inhibit_rules.is_some()),
        ("templates", templates.is_some_and(|templates| !templates.is_empty())),
        ("mute_time_intervals", mute_time_intervals.is_some()),
        ("time_intervals", time_intervals.is_some()),
        ("tracing", tracing.is_some()),
    ];
    for (key, _) in unused.iter().filter(|(_, is_there)| *is_there) {
        warnings.push(format!("{file}: {key} is not used by this release"));
    }
    let mut known: BTreeMap<String, Vec<Webhook>> = BTreeMap::new();
    for receiver in receivers {
        let (name, place) = (receiver.name.value.clone(), receiver.name.referenced);
        let webhooks = check_receiver(file, receiver, &mut warnings)?;
        if known.insert(name.clone(), webhooks).is_some() {
            let reason = format!("notification config name {name:?} is not unique");
            return Err(FileError::at(file, &place, reason));
        }
    }
    let nowhere = FileError { file: file.to_owned(), line: 0, column: 0, reason: String::new() };
    let Some(route) = route else {
        return Err(FileError { reason: "no route provided in config".to_owned(), ..nowhere });
    };
    let place = route.referenced;
    let refuse = |reason: &str| Err(FileError::at(file, &place, reason));
    let raw = &route.value;
    if raw.receiver.as_deref().unwrap_or_default().is_empty() {
        return refuse("root route must specify a default receiver");
    }
    if !raw.equal.is_empty() || !raw.regex.is_empty() || !raw.matchers.is_empty() {
        return refuse("root route must not have any matchers");
    }
    let defaults = Route {
        number: 0,
        key: String::new(),
        receiver: String::new(),
        group_by: GroupBy::Labels(Vec::new()),
        group_wait: Duration::from_secs(30),
        group_interval: Duration::from_mins(5),
        repeat_interval: Duration::from_hours(4),
        matchers: Vec::new(),
        goes_on: false,
        routes: Vec::new(),
    };
    let mut root = build_route(file, route, &defaults, &known, &mut warnings)?;
    number(&mut root, &mut 0);
    Ok(AlertmanagerConfig { root, receivers: known, warnings })
}

fn number(route: &mut Route, next: &mut usize) {
    route.number = *next;
    *next += 1;
    route.routes.iter_mut().for_each(|child| number(child, next));
}

fn check_receiver(
    file: &str,
    receiver: RawReceiver,
    warnings: &mut Vec<String>,
) -> Result<Vec<Webhook>, FileError> {
    let RawReceiver { name, webhook_configs, other } = receiver;
    let refuse = |reason: String| FileError::at(file, &name.referenced, reason);
    for key in other.keys() {
        if !key.ends_with("_configs") {
            return Err(refuse(format!("receiver {:?}: unknown key {key:?}", name.value)));
        }
        warnings.push(format!(
            "{file}: receiver {:?}: {key} cannot be sent to by this release; alerts routed there are shown on the page only",
            name.value
        ));
    }
    let mut webhooks = Vec::new();
    for webhook in webhook_configs {
        let RawWebhook { url, url_file, send_resolved, max_alerts, http_config, timeout } = webhook;
        let url = match (url, url_file) {
            (Some(url), None) => url,
            (None, Some(path)) => {
                let read = std::fs::read_to_string(&path);
                let read = read.map_err(|error| refuse(format!("url_file {path:?}: {error}")))?;
                read.trim().to_owned()
            }
            _ => return Err(refuse("one of url or url_file must be configured".to_owned())),
        };
        check_url(&url).map_err(refuse)?;
        for (key, is_there) in [("http_config", http_config.is_some()), ("timeout", timeout.is_some())] {
            if is_there {
                warnings
                    .push(format!("{file}: receiver {:?}: {key} is not used by this release", name.value));
            }
        }
        webhooks.push(Webhook { url, send_resolved, max_alerts });
    }
    Ok(webhooks)
}

/// The operator's own URLs may be loopback; link-local addresses, where clouds keep their metadata,
/// are nobody's webhook. The message does not repeat the URL, which may hold a secret.
fn check_url(url: &str) -> Result<(), String> {
    let parsed = reqwest::Url::parse(url).map_err(|error| format!("webhook url: {error}"))?;
    if !matches!(parsed.scheme(), "http" | "https") {
        return Err("webhook url: scheme must be http or https".to_owned());
    }
    let host = parsed.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let is_link_local = match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => ip.is_link_local(),
        Ok(IpAddr::V6(ip)) => {
            ip.is_unicast_link_local() || ip.to_ipv4_mapped().is_some_and(|ip| ip.is_link_local())
        }
        Err(_) => false,
    };
    if is_link_local { Err("webhook url: link-local addresses are refused".to_owned()) } else { Ok(()) }
}

fn build_route(
    file: &str,
    raw: Spanned<RawRoute>,
    parent: &Route,
    receivers: &BTreeMap<String, Vec<Webhook>>,
    warnings: &mut Vec<String>,
) -> Result<Route, FileError> {
    let place = raw.referenced;
    let refuse = |reason: String| FileError::at(file, &place, reason);
    let raw = raw.value;
    let receiver = raw.receiver.unwrap_or_else(|| parent.receiver.clone());
    if !receivers.contains_key(&receiver) {
        return Err(refuse(format!("undefined receiver {receiver:?} used in route")));
    }
    if raw.mute_time_intervals.is_some() || raw.active_time_intervals.is_some() {
        warnings.push(format!(
            "{file}: time intervals of the route to {receiver:?} are not used by this release"
        ));
    }
    let mut matchers = Vec::new();
    for (name, value) in &raw.equal {
        matchers.push(Matcher::equal(name, value));
    }
    for (name, value) in &raw.regex {
        matchers.push(Matcher::new(name, MatchOp::Regex, value).map_err(refuse)?);
    }
    for text in &raw.matchers {
        let parsed = parse_matchers(&text.value);
        matchers.extend(parsed.map_err(|reason| FileError::at(file, &text.referenced, reason))?);
    }
    matchers.sort_by(|a, b| (&a.name, &a.value).cmp(&(&b.name, &b.value)));
    let group_by = match raw.group_by {
        None => parent.group_by.clone(),
        Some(labels) if labels.iter().any(|label| label == "...") => GroupBy::All,
        Some(labels) => GroupBy::Labels(labels),
    };
    let interval = raw.group_interval.unwrap_or(parent.group_interval);
    let repeat = raw.repeat_interval.unwrap_or(parent.repeat_interval);
    if interval.is_zero() || repeat.is_zero() {
        return Err(refuse("group_interval and repeat_interval cannot be zero".to_owned()));
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
        group_interval: interval,
        repeat_interval: repeat,
        matchers,
        goes_on: raw.goes_on,
        routes: Vec::new(),
    };
    for child in raw.routes {
        let child = build_route(file, child, &route, receivers, warnings)?;
        route.routes.push(child);
    }
    Ok(route)
}

/// Reads `a="b"`, `a=~b`, or several with commas, in braces or not.
fn parse_matchers(text: &str) -> Result<Vec<Matcher>, String> {
    let inner = text.trim();
    let inner = inner.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')).unwrap_or(inner);
    let mut found = Vec::new();
    let mut rest = inner.trim();
    while !rest.is_empty() {
        let bad = || format!("bad matcher format: {text}");
        let at = rest.find(['=', '!']).ok_or_else(bad)?;
        let (name, after) = rest.split_at(at);
        let ops = [
            ("=~", MatchOp::Regex),
            ("!~", MatchOp::NotRegex),
            ("!=", MatchOp::NotEqual),
            ("=", MatchOp::Equal),
        ];
        let (sign, op) = ops.into_iter().find(|(sign, _)| after.starts_with(sign)).ok_or_else(bad)?;
        let after = after[sign.len()..].trim_start();
        let (value, tail) = if let Some(quoted) = after.strip_prefix('"') {
            let mut escaped = false;
            let end = quoted.find(|c| {
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            });
            let end = end.ok_or_else(bad)?;
            let value: String = serde_json::from_str(&after[..end + 2]).map_err(|_| bad())?;
            (value, &quoted[end + 1..])
        } else {
            let end = after.find(',').unwrap_or(after.len());
            (after[..end].trim().to_owned(), &after[end..])
        };
        let name = name.trim().trim_matches('"');
        if name.is_empty() {
            return Err(bad());
        }
        found.push(Matcher::new(name, op, &value)?);
        rest = tail.trim_start();
        rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
    }
    Ok(found)
}

impl Route {
    /// The routes that an alert takes, in order.
    pub(super) fn matching<'r>(&'r self, labels: &Labels, found: &mut Vec<&'r Route>) {
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

impl AlertmanagerConfig {
    /// The receivers that hear of an alert with these labels.
    pub fn receivers_of(&self, labels: &Labels) -> Vec<String> {
        let mut found = Vec::new();
        self.root.matching(labels, &mut found);
        found.iter().map(|route| route.receiver.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "
route:
  receiver: default
  group_by: [alertname]
  routes:
  - matchers: [team=\"a\", severity=~\"page|ticket\"]
    receiver: a
    continue: true
    routes:
    - match: {severity: page}
      receiver: a-page
  - match_re: {team: a|b}
    receiver: b
receivers:
- name: default
  webhook_configs: [{url: 'http://127.0.0.1:1/'}]
- name: a
- name: a-page
- name: b
  slack_configs: [{channel: x}]
";

    #[test]
    fn alerts_find_their_receivers() {
        let config = parse_alertmanager("a.yml", CONFIG).unwrap();
        let of = |pairs: &[(&str, &str)]| config.receivers_of(&Labels::new(pairs.iter().copied()).unwrap());
        assert_eq!(of(&[("x", "y")]), ["default"]);
        assert_eq!(of(&[("team", "a"), ("severity", "page")]), ["a-page", "b"]);
        assert_eq!(of(&[("team", "a"), ("severity", "ticket")]), ["a", "b"]);
        assert_eq!(of(&[("team", "b")]), ["b"]);
        assert_eq!(config.warnings.len(), 1);
        assert_eq!(config.root.routes[0].key, r#"{}/{severity=~"page|ticket",team="a"}"#);
    }

    #[test]
    fn bad_configurations_are_refused() {
        let error = |text: &str| parse_alertmanager("a.yml", text).unwrap_err().to_string();
        assert!(
            error(&CONFIG.replace("receiver: b\n", "receiver: c\n")).contains("undefined receiver \"c\"")
        );
        assert!(error("receivers: []").contains("no route provided"));
        assert!(error("route: {receiver: x}\nreceivers: [{name: x, webhook_configs: [{url: 'http://169.254.169.254/'}]}]").contains("link-local"));
        assert!(
            error("route: {receiver: x}\nreceivers: [{name: x, webhook_configs: [{}]}]")
                .contains("url or url_file")
        );
        assert!(error("routes: {}").starts_with("a.yml:1:1"));
    }

    #[test]
    fn real_configurations_are_read() {
        let shared = std::env::var("BINNACLE_SHARED").unwrap_or_else(|_| "../../shared".to_owned());
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join(shared)
            .join("real/alertmanager/configs/good");
        if !dir.is_dir() {
            println!("SKIPPED 1: no configurations at {}", dir.display());
            return;
        }
        for file in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            let text = std::fs::read_to_string(&file).unwrap();
            let read = parse_alertmanager(&file.to_string_lossy(), &text);
            // A file that the configuration names need not be here.
            if let Err(error) = read {
                assert!(error.reason.contains("url_file"), "{error}");
            }
        }
    }
}
