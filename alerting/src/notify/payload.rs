//! The webhook's body, as Alertmanager writes it: version "4".

use std::collections::BTreeMap;

use binnacle_model::{Labels, Timestamp};
use chrono::{DateTime, Utc};
use serde::Serialize;

use super::SentAlert;

/// Go's zero time, which stands for "not yet".
const GO_ZERO_TIME: &str = "0001-01-01T00:00:00Z";

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Payload {
    receiver: String,
    status: &'static str,
    alerts: Vec<PayloadAlert>,
    group_labels: BTreeMap<String, String>,
    common_labels: BTreeMap<String, String>,
    common_annotations: BTreeMap<String, String>,
    #[serde(rename = "externalURL")]
    external_url: String,
    version: &'static str,
    group_key: String,
    truncated_alerts: usize,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PayloadAlert {
    status: &'static str,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    starts_at: String,
    ends_at: String,
    #[serde(rename = "generatorURL")]
    generator_url: String,
    fingerprint: String,
}

/// What a message is about.
pub(super) struct About<'a> {
    pub(super) receiver: &'a str,
    pub(super) group_labels: &'a Labels,
    pub(super) group_key: &'a str,
    pub(super) external_url: &'a str,
    /// More alerts than this are counted, not shown; zero shows all.
    pub(super) max_alerts: usize,
}

/// The body for `alerts`, of which there is one at least.
pub(super) fn payload(about: &About<'_>, alerts: &[&SentAlert]) -> Payload {
    let mut alerts: Vec<&SentAlert> = alerts.to_vec();
    alerts.sort_by_key(|a| order_key(&a.labels));
    let shown = if about.max_alerts == 0 { alerts.len() } else { about.max_alerts.min(alerts.len()) };
    let is_firing = alerts.iter().any(|alert| alert.ends_at.is_none());
    let common = |of: fn(&SentAlert) -> &Labels| {
        let first = alerts.first().map(|alert| of(alert).clone()).unwrap_or_default();
        map(&first
            .filtered(|label| alerts.iter().all(|alert| of(alert).get(&label.name) == Some(&label.value))))
    };
    Payload {
        receiver: about.receiver.to_owned(),
        status: if is_firing { "firing" } else { "resolved" },
        group_labels: map(about.group_labels),
        common_labels: common(|alert| &alert.labels),
        common_annotations: common(|alert| &alert.annotations),
        external_url: about.external_url.to_owned(),
        version: "4",
        group_key: about.group_key.to_owned(),
        truncated_alerts: alerts.len() - shown,
        alerts: alerts[..shown].iter().map(|alert| show(alert)).collect(),
    }
}

fn show(alert: &SentAlert) -> PayloadAlert {
    PayloadAlert {
        status: if alert.ends_at.is_some() { "resolved" } else { "firing" },
        labels: map(&alert.labels),
        annotations: map(&alert.annotations),
        starts_at: go_time(alert.starts_at),
        ends_at: alert.ends_at.map_or_else(|| GO_ZERO_TIME.to_owned(), go_time),
        generator_url: alert.generator_url.clone(),
        fingerprint: fingerprint(&alert.labels),
    }
}

fn map(labels: &Labels) -> BTreeMap<String, String> {
    labels.iter().map(|label| (label.name.to_string(), label.value.to_string())).collect()
}

/// Alertmanager's order: by job, by instance, by the number of labels, by labels. Who lacks a job
/// comes last.
fn order_key(labels: &Labels) -> (bool, String, bool, String, usize, Labels) {
    let key = |name: &str| (labels.get(name).is_none(), labels.value(name).to_owned());
    let ((no_job, job), (no_instance, instance)) = (key("job"), key("instance"));
    (no_job, job, no_instance, instance, labels.len(), labels.clone())
}

/// RFC 3339 as Go writes it: no zeros at the end of a fraction.
fn go_time(at: Timestamp) -> String {
    let time = DateTime::<Utc>::from_timestamp_millis(at.0).unwrap_or_default();
    let seconds = time.format("%Y-%m-%dT%H:%M:%S");
    let fraction = format!("{:03}", at.0.rem_euclid(1000));
    match fraction.trim_end_matches('0') {
        "" => format!("{seconds}Z"),
        digits => format!("{seconds}.{digits}Z"),
    }
}

/// Identity of an alert: FNV-1a of its labels, as Prometheus's `model.LabelSet.Fingerprint`.
pub fn fingerprint(labels: &Labels) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for label in labels {
        for part in [&label.name, &label.value] {
            for byte in part.bytes().chain([0xff]) {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
        }
    }
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_go_does() {
        assert_eq!(go_time(Timestamp(1_000)), "1970-01-01T00:00:01Z");
        assert_eq!(go_time(Timestamp(1_120)), "1970-01-01T00:00:01.12Z");
        assert_eq!(go_time(Timestamp(0)), "1970-01-01T00:00:00Z");
        assert_eq!(go_time(Timestamp(600_000)), "1970-01-01T00:10:00Z");
        assert_eq!(go_time(Timestamp(10_000)), "1970-01-01T00:00:10Z");
    }

    #[test]
    fn an_empty_label_set_has_the_offset_basis() {
        assert_eq!(fingerprint(&Labels::default()), "cbf29ce484222325");
    }
}
