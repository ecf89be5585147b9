//! `/api/v1/status/*`: what this process was started with and how it is.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use binnacle_model::Timestamp;
use binnacle_model::time::{Clock, format_duration};
use serde_json::{Map, Value, json};

use crate::notifications::{self, Notifications};
use crate::{ServeArgs, openapi};

/// What the handlers show.
pub(crate) struct Status {
    pub(crate) config: Mutex<InForce>,
    pub(crate) flags: Map<String, Value>,
    pub(crate) retention: Duration,
    pub(crate) started: Timestamp,
    pub(crate) hostname: String,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) notifications: Notifications,
}

/// The configuration, as it was read last.
#[derive(Debug, Clone)]
pub(crate) struct InForce {
    /// The file as it is in force, without secrets.
    pub(crate) yaml: String,
    /// When it was read.
    pub(crate) at: Timestamp,
    /// Whether it could be read when that was last tried.
    pub(crate) is_good: bool,
}

impl Status {
    pub(crate) fn in_force(&self) -> MutexGuard<'_, InForce> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) type Shared = State<Arc<Status>>;

/// The routes.
pub(crate) fn router(status: Arc<Status>) -> Router {
    Router::new()
        .route("/api/v1/status/config", get(config))
        .route("/api/v1/status/flags", get(flags))
        .route("/api/v1/status/runtimeinfo", get(runtime_info))
        .route("/api/v1/status/walreplay", get(wal_replay))
        .route("/api/v1/alertmanagers", get(alertmanagers))
        .route("/api/v1/notifications", get(notifications::list))
        .route("/api/v1/notifications/live", get(notifications::live))
        .route("/api/v1/openapi.yaml", get(openapi::document))
        .with_state(status)
}

/// Flags by name, as text.
pub(crate) fn flags_of(args: &ServeArgs) -> Map<String, Value> {
    let path = |path: &Option<std::path::PathBuf>| path.as_ref().map(|path| path.display().to_string());
    let address = |address: Option<std::net::SocketAddr>| address.map(|address| address.to_string());
    let duration = binnacle_model::time::format_duration;
    let pairs = [
        ("data", Some(args.data.display().to_string())),
        ("listen", Some(args.listen.to_string())),
        ("listen-syslog-tcp", address(args.doors.syslog_tcp)),
        ("listen-syslog-udp", address(args.doors.syslog_udp)),
        ("listen-otlp-grpc", address(args.doors.otlp_grpc)),
        ("config", path(&args.config)),
        ("alertmanager-config", path(&args.alertmanager_config)),
        ("external-url", args.external_url.as_ref().map(|url| without_password(url).unwrap_or(url.clone()))),
        ("enable-feature", Some(args.enable_feature.join(","))),
        ("enable-admin-api", Some(args.enable_admin_api.to_string())),
        ("enable-lifecycle", Some(args.enable_lifecycle.to_string())),
        ("query.max-samples", Some(args.limits.max_samples.to_string())),
        ("query.max-samples-total", Some(args.limits.gate().max_samples_total.to_string())),
        ("query.timeout", Some(duration(args.limits.timeout))),
        ("query.max-concurrency", Some(args.limits.places().to_string())),
        ("query.slow", Some(duration(args.limits.slow))),
        ("query.lookback-delta", Some(duration(args.limits.lookback_delta))),
    ];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value.unwrap_or_default().into())).collect()
}

pub(crate) fn success(data: &Value) -> Json<Value> {
    Json(json!({ "status": "success", "data": data }))
}

async fn config(State(status): Shared) -> Json<Value> {
    success(&json!({ "yaml": status.in_force().yaml }))
}

async fn flags(State(status): Shared) -> Json<Value> {
    success(&Value::Object(status.flags.clone()))
}

/// What of Prometheus's answer means something here; of Go's runtime nothing does.
async fn runtime_info(State(status): Shared) -> Json<Value> {
    let started = status.started.to_rfc3339();
    let config = status.in_force().clone();
    let directory = std::env::current_dir().unwrap_or_default();
    success(&json!({
        "startTime": started,
        "CWD": directory.display().to_string(),
        "hostname": status.hostname,
        "serverTime": status.clock.now().to_rfc3339(),
        "reloadConfigSuccess": config.is_good,
        "lastConfigTime": config.at.to_rfc3339(),
        "GOMAXPROCS": std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        "storageRetention": format_duration(status.retention),
    }))
}

/// Requests are answered only after the replay.
async fn wal_replay() -> Json<Value> {
    success(&json!({ "min": 0, "max": 0, "current": 0, "state": "done" }))
}

/// Alerts are routed here, not by other servers.
async fn alertmanagers() -> Json<Value> {
    success(&json!({ "activeAlertmanagers": [], "droppedAlertmanagers": [] }))
}

/// Keys whose values are nobody's business, as the ends of their names.
const SECRETS: [&str; 9] = [
    "password",
    "passphrase",
    "secret",
    "secret_key",
    "token",
    "credentials",
    "api_key",
    "service_key",
    "routing_key",
];

/// Keys that hold secrets as a whole: a private key, and headers and bodies, which may carry anything.
const SECRET_KEYS: [&str; 5] = ["body", "key", "headers", "http_headers", "proxy_connect_header"];

/// The file without comments and without secrets; empty if it is not YAML.
pub(crate) fn without_secrets(text: &str) -> String {
    let Ok(mut value) = serde_saphyr::from_str::<Value>(text) else { return String::new() };
    redact(&mut value, false);
    serde_saphyr::to_string(&value).unwrap_or_default()
}

/// As [`without_secrets`], of an `alertmanager.yml`, where some URLs are secrets.
pub(crate) fn routes_without_secrets(text: &str) -> String {
    let Ok(mut value) = serde_saphyr::from_str::<Value>(text) else { return String::new() };
    hide_urls(&mut value, "");
    redact(&mut value, false);
    serde_saphyr::to_string(&value).unwrap_or_default()
}

fn hide_urls(value: &mut Value, section: &str) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let is_url = match section {
                    "webhook_configs" | "incidentio_configs" => key == "url",
                    "slack_configs" => key == "api_url",
                    _ => key == "slack_api_url",
                };
                if (is_url || key.ends_with("webhook_url") || key == "user_key") && value.is_string() {
                    *value = "<secret>".into();
                }
                hide_urls(value, key);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| hide_urls(item, section)),
        _ => {}
    }
}

fn redact(value: &mut Value, is_secret: bool) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let key = key.to_ascii_lowercase();
                // What a probe says to others; a section of this name is none.
                let is_said = key == "send" && value.is_string();
                let is_named = is_said || SECRETS.iter().any(|secret| key.ends_with(secret));
                redact(value, is_secret || is_named || SECRET_KEYS.contains(&key.as_str()));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| redact(item, is_secret)),
        Value::Null => {}
        value if is_secret => *value = "<secret>".into(),
        Value::String(text) => {
            if let Some(plain) = without_password(text) {
                *text = plain;
            }
        }
        Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A URL without the password in it, if there is one.
fn without_password(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    let authority = rest.split('/').next().unwrap_or_default();
    let (user, host) = authority.rsplit_once('@')?;
    let (name, _) = user.split_once(':')?;
    Some(format!("{scheme}://{name}:<secret>@{host}{}", &rest[authority.len()..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let text = "
            remote_write:
            - url: https://me:hunter2@example.org/write?x=1  # a comment
              basic_auth: {username: me, password: hunter2, password_file: /etc/pw}
              authorization: {credentials: [hunter2]}
              headers: {X-Anything: hunter2}
              proxy_connect_header: {Proxy-Authorization: [hunter2]}
              tls_config: {key: hunter2, cert_file: /etc/cert}
              sigv4: {access_key: AK, secret_key: hunter2}
            storage: {tsdb: {retention: {time: 45d}}}
            send: {logs: {loki: {url: http://loki:3100, tenant: a}}}
            probes: {modules: {m: {http: {body: hunter2}, tcp: {query_response: [{expect: x, send: PASS hunter2}]}}}}
        ";
        let shown = without_secrets(text);
        assert!(!shown.contains("hunter2") && !shown.contains("a comment"), "{shown}");
        for kept in [
            "https://me:<secret>@example.org/write?x=1",
            "/etc/pw",
            "username: me",
            "time: 45d",
            "http://loki:3100",
        ] {
            assert!(shown.contains(kept), "{kept} in {shown}");
        }
        assert_eq!(shown.matches("<secret>").count(), 9, "{shown}");
    }

    #[test]
    fn what_is_no_yaml_shows_nothing() {
        assert_eq!(without_secrets("a: [hunter2"), "");
    }
}
