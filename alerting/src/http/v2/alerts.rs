//! `/api/v2/alerts` and `/api/v2/alerts/groups`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use binnacle_model::matcher::all_match;
use binnacle_model::regexes::anchored;
use binnacle_model::{Labels, Matcher, Timestamp};
use binnacle_query::http::Params;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Api, V2, body, on_thread, read_time, refused, time};
use crate::notify::{AlertFilter, AlertStatus, SentAlert, parse_matchers};

/// Most bytes that the regular expression of a receiver may take.
const MAX_REGEX: usize = 1 << 20;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PostedAlert {
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
    starts_at: Option<String>,
    ends_at: Option<String>,
    #[serde(rename = "generatorURL", default)]
    generator_url: Option<String>,
}

impl PostedAlert {
    fn check(self, now: Timestamp) -> Result<SentAlert, String> {
        let without_empty = |map: BTreeMap<String, String>| {
            Labels::new(map.into_iter().filter(|(_, value)| !value.is_empty()))
                .map_err(|error| error.to_string())
        };
        let labels = without_empty(self.labels)?;
        if labels.is_empty() {
            return Err("at least one label pair required".to_owned());
        }
        let ends_at = read_time(self.ends_at.as_deref())?;
        let starts_at = read_time(self.starts_at.as_deref())?.or(ends_at).unwrap_or(now);
        if ends_at.is_some_and(|end| end < starts_at) {
            return Err("start time must be before end time".to_owned());
        }
        let annotations = without_empty(self.annotations.unwrap_or_default())?;
        let generator_url = self.generator_url.unwrap_or_default();
        Ok(SentAlert { labels, annotations, starts_at, ends_at, generator_url })
    }
}

/// Takes alerts; those that are none are named, the others are taken.
pub(super) async fn take(State(api): Api, bytes: Bytes) -> Response {
    let posted: Vec<PostedAlert> = match body(&bytes) {
        Ok(posted) => posted,
        Err(answer) => return answer,
    };
    on_thread(api, move |api| {
        let now = api.dispatcher.now();
        let (mut good, mut errors) = (Vec::new(), Vec::new());
        for alert in posted {
            match alert.check(now) {
                Ok(alert) => good.push(alert),
                Err(error) => errors.push(error),
            }
        }
        api.dispatcher.post(good);
        if errors.is_empty() {
            return StatusCode::OK.into_response();
        }
        errors.dedup();
        refused(StatusCode::BAD_REQUEST, errors.join("; "))
    })
    .await
}

/// Which alerts are asked for.
struct Wanted {
    matchers: Vec<Matcher>,
    receiver: Option<regex::Regex>,
    active: bool,
    silenced: bool,
    inhibited: bool,
}

impl Wanted {
    fn parse(query: Option<&str>) -> Result<Self, String> {
        let mut wanted =
            Self { matchers: Vec::new(), receiver: None, active: true, silenced: true, inhibited: true };
        for (name, value) in Params::from_query(query.unwrap_or_default()).into_pairs() {
            let truth = || match value.as_str() {
                "true" | "1" | "" => Ok(true),
                "false" | "0" => Ok(false),
                _ => Err(format!("{name} must be true or false, not {value:?}")),
            };
            match name.as_str() {
                "filter" => wanted.matchers.extend(parse_matchers(&value)?),
                "receiver" if value.is_empty() => {}
                "receiver" => {
                    let regex = anchored(&value, MAX_REGEX);
                    wanted.receiver =
                        Some(regex.map_err(|error| format!("failed to parse receiver param: {error}"))?);
                }
                "active" => wanted.active = truth()?,
                "silenced" => wanted.silenced = truth()?,
                "inhibited" => wanted.inhibited = truth()?,
                // Here every alert is processed when it is taken.
                "unprocessed" => _ = truth()?,
                _ => {}
            }
        }
        Ok(wanted)
    }

    fn takes(&self, status: &AlertStatus) -> bool {
        let (is_silenced, is_inhibited) = (!status.silenced_by.is_empty(), !status.inhibited_by.is_empty());
        all_match(&self.matchers, &status.alert.labels)
            && (self.active || is_silenced || is_inhibited)
            && (self.silenced || !is_silenced)
            && (self.inhibited || !is_inhibited)
    }

    fn has_receiver(&self, name: &str) -> bool {
        self.receiver.as_ref().is_none_or(|regex| regex.is_match(name))
    }
}

/// `GET /api/v2/alerts`
pub(super) async fn list(State(api): Api, RawQuery(query): RawQuery) -> Response {
    answer(api, query, |api, filter| {
        let timeout = api.dispatcher.now().plus(api.dispatcher.config().resolve_timeout);
        api.dispatcher.alerts(filter).iter().map(|status| show(status, timeout)).collect()
    })
    .await
}

/// `GET /api/v2/alerts/groups`
pub(super) async fn groups(State(api): Api, RawQuery(query): RawQuery) -> Response {
    answer(api, query, |api, filter| {
        let timeout = api.dispatcher.now().plus(api.dispatcher.config().resolve_timeout);
        let groups = api.dispatcher.groups(filter);
        let shown = groups.iter().map(|group| {
            json!({
                "labels": object(&group.labels),
                "receiver": { "name": group.receiver },
                "alerts": group.alerts.iter().map(|status| show(status, timeout)).collect::<Vec<_>>(),
            })
        });
        shown.collect()
    })
    .await
}

async fn answer(
    api: Arc<V2>,
    query: Option<String>,
    of: fn(&V2, &AlertFilter<'_>) -> Vec<Value>,
) -> Response {
    let wanted = match Wanted::parse(query.as_deref()) {
        Ok(wanted) => wanted,
        Err(error) => return refused(StatusCode::BAD_REQUEST, error),
    };
    on_thread(api, move |api| {
        let filter = AlertFilter {
            takes: &|status| wanted.takes(status),
            receiver: &|name| wanted.has_receiver(name),
        };
        Json(of(api, &filter)).into_response()
    })
    .await
}

fn show(status: &AlertStatus, timeout: Timestamp) -> Value {
    let AlertStatus { fingerprint, alert, updated_at, receivers, silenced_by, inhibited_by } = status;
    let is_silent = !silenced_by.is_empty() || !inhibited_by.is_empty();
    json!({
        "annotations": object(&alert.annotations),
        // Alerts of our own rules end when the rule says so: until then, no sooner than others would.
        "endsAt": time(alert.ends_at.unwrap_or(timeout)),
        "fingerprint": fingerprint,
        "generatorURL": alert.generator_url,
        "labels": object(&alert.labels),
        "receivers": receivers.iter().map(|name| json!({ "name": name })).collect::<Vec<_>>(),
        "startsAt": time(alert.starts_at),
        "status": {
            "inhibitedBy": inhibited_by,
            "mutedBy": [],
            "silencedBy": silenced_by,
            "state": if is_silent { "suppressed" } else { "active" },
        },
        "updatedAt": time(*updated_at),
    })
}

fn object(labels: &Labels) -> Value {
    labels.iter().map(|label| (label.name.to_string(), Value::from(&*label.value))).collect()
}
