//! Notifications, with the data and functions of Alertmanager 0.33.

use std::collections::BTreeMap;
use std::sync::Arc;

use binnacle_model::Timestamp;
use binnacle_model::template::{
    ANY_LIST, ANY_MAP, Functions, Mode, Safe, Set, TEXTS, Type, Value, in_zone, json, text_arg,
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// Most bytes of one text of a notification.
const MAX_BYTES: usize = 4 << 20;

/// The templates that receivers use where a configuration says nothing.
const DEFAULT: &str = include_str!("default.tmpl");

/// What a notification is about; as JSON it is the payload of a webhook without its version and key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Data {
    /// Its name in the configuration.
    pub receiver: String,
    /// `firing` or `resolved`
    pub status: String,
    /// In the order of their labels.
    pub alerts: Vec<DataAlert>,
    /// What the group was made by.
    #[serde(default)]
    pub group_labels: BTreeMap<String, String>,
    /// What all alerts have.
    #[serde(default)]
    pub common_labels: BTreeMap<String, String>,
    /// What all alerts have.
    #[serde(default)]
    pub common_annotations: BTreeMap<String, String>,
    /// Where this server is seen from outside.
    #[serde(rename = "externalURL", default)]
    pub external_url: String,
}

/// An alert of a notification.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DataAlert {
    /// `firing` or `resolved`
    pub status: String,
    /// Which alert it is.
    pub labels: BTreeMap<String, String>,
    /// What is said of it.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// When it began.
    pub starts_at: DateTime<Utc>,
    /// When it ended; year 1 while it has not.
    pub ends_at: DateTime<Utc>,
    /// Where its rule is shown.
    #[serde(rename = "generatorURL", default)]
    pub generator_url: String,
    /// A hash of its labels.
    #[serde(default)]
    pub fingerprint: String,
}

static DATA: Type = Type { name: "*template.Data", methods: &[], text: None };
static ALERT: Type = Type { name: "template.Alert", methods: &[], text: None };
static ALERT_LIST: Type = Type { name: "[]template.Alert", methods: &[], text: None };
static PAIR: Type = Type { name: "template.Pair", methods: &[], text: None };
static ALERTS: Type = Type {
    name: "template.Alerts",
    methods: &[
        ("Firing", 0, |value, _| Ok(with_status(value, "firing"))),
        ("Resolved", 0, |value, _| Ok(with_status(value, "resolved"))),
    ],
    text: None,
};
static KV: Type = Type {
    name: "template.KV",
    methods: &[
        ("SortedPairs", 0, |value, _| Ok(pairs(value))),
        ("Names", 0, |value, _| Ok(of_pairs(&pairs(value), 0))),
        ("Values", 0, |value, _| Ok(of_pairs(&pairs(value), 1))),
        ("Remove", 1, |value, args| without(value, &args[0])),
        ("String", 0, |value, _| Ok(pairs_text(&pairs(value)).into())),
    ],
    text: Some(|value| pairs_text(&pairs(value))),
};
static PAIRS: Type = Type {
    name: "template.Pairs",
    methods: &[
        ("Names", 0, |value, _| Ok(of_pairs(value, 0))),
        ("Values", 0, |value, _| Ok(of_pairs(value, 1))),
        ("String", 0, |value, _| Ok(pairs_text(value).into())),
    ],
    text: Some(pairs_text),
};

fn with_status(alerts: &Value, wanted: &str) -> Value {
    let Value::List(_, items) = alerts else { return Value::List(&ALERT_LIST, [].into()) };
    let has = |alert: &&Value| match alert {
        Value::Struct(_, fields) => fields[0].1.as_text() == Some(wanted),
        _ => false,
    };
    Value::List(&ALERT_LIST, items.iter().filter(has).cloned().collect())
}

/// Pairs by name, with the alert's name first.
fn pairs(map: &Value) -> Value {
    let Value::Map(_, entries) = map else { return Value::List(&PAIRS, [].into()) };
    let is_name = |(name, _): &(&Arc<str>, &Value)| &***name == "alertname";
    let first = entries.iter().filter(is_name);
    let others = entries.iter().filter(|pair| !is_name(pair));
    let pair = |(name, value): (&Arc<str>, &Value)| {
        Value::Struct(&PAIR, [("Name", Value::Text(name.clone())), ("Value", value.clone())].into())
    };
    Value::List(&PAIRS, first.chain(others).map(pair).collect())
}

fn of_pairs(pairs: &Value, part: usize) -> Value {
    let Value::List(_, items) = pairs else { return Value::List(&TEXTS, [].into()) };
    let of = |pair: &Value| match pair {
        Value::Struct(_, fields) => fields[part].1.clone(),
        _ => Value::from(""),
    };
    Value::List(&TEXTS, items.iter().map(of).collect())
}

fn pairs_text(pairs: &Value) -> String {
    let Value::List(_, items) = pairs else { return String::new() };
    let one = |pair: &Value| match pair {
        Value::Struct(_, fields) => format!("{}={}", fields[0].1.to_text(), fields[1].1.to_text()),
        _ => String::new(),
    };
    items.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn without(map: &Value, names: &Value) -> Result<Value, String> {
    let (Value::Map(kind, entries), Value::List(_, names)) = (map, names) else {
        return Err(format!("wrong type for value; expected []string; got {}", names.type_name()));
    };
    let is_removed = |key: &str| names.iter().any(|name| name.as_text() == Some(key));
    let left = entries.iter().filter(|(key, _)| !is_removed(key));
    Ok(Value::text_map(kind, left.map(|(key, value)| (key.clone(), value.clone()))))
}

fn kv(map: &BTreeMap<String, String>) -> Value {
    Value::text_map(&KV, map.iter().map(|(name, value)| (name.as_str(), value.as_str())))
}

impl Data {
    /// As templates see it.
    fn to_value(&self) -> Value {
        let alert = |alert: &DataAlert| {
            Value::Struct(
                &ALERT,
                [
                    ("Status", Value::from(alert.status.as_str())),
                    ("Labels", kv(&alert.labels)),
                    ("Annotations", kv(&alert.annotations)),
                    ("StartsAt", Value::time(alert.starts_at)),
                    ("EndsAt", Value::time(alert.ends_at)),
                    ("GeneratorURL", Value::from(alert.generator_url.as_str())),
                    ("Fingerprint", Value::from(alert.fingerprint.as_str())),
                ]
                .into(),
            )
        };
        Value::Struct(
            &DATA,
            [
                ("Receiver", Value::from(self.receiver.as_str())),
                ("Status", Value::from(self.status.as_str())),
                ("Alerts", Value::List(&ALERTS, self.alerts.iter().map(alert).collect())),
                ("GroupLabels", kv(&self.group_labels)),
                ("CommonLabels", kv(&self.common_labels)),
                ("CommonAnnotations", kv(&self.common_annotations)),
                ("ExternalURL", Value::from(self.external_url.as_str())),
            ]
            .into(),
        )
    }
}

/// The templates of notifications: ours, and those of the configuration, which may replace ours. Cheap to copy.
#[derive(Debug, Clone)]
pub struct Notifications {
    set: Set,
}

impl Default for Notifications {
    fn default() -> Self {
        let mut set = Set::default();
        // A test reads it, and renders all of it.
        if let Err(error) = set.add("default.tmpl", DEFAULT, &Alertmanager { now: Timestamp(0) }) {
            tracing::error!(error, "the default templates cannot be read");
        }
        Self { set }
    }
}

impl Notifications {
    /// Adds a file of templates.
    ///
    /// # Errors
    /// `template: NAME:LINE: REASON`
    pub fn add(&mut self, name: &str, text: &str) -> Result<(), String> {
        self.set.add(name, text, &Alertmanager { now: Timestamp(0) })
    }

    /// Whether a text can be read.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, text: &str) -> Result<(), String> {
        self.set.clone().add("", text, &Alertmanager { now: Timestamp(0) })
    }

    /// What a text makes of a notification.
    ///
    /// # Errors
    /// It cannot be read, or not be carried out.
    pub fn render(&self, text: &str, data: &Data, mode: Mode, now: Timestamp) -> Result<String, String> {
        if text.is_empty() {
            return Ok(String::new());
        }
        let functions = Alertmanager { now };
        let mut set = self.set.clone();
        set.add("", text, &functions)?;
        set.execute("", &data.to_value(), &functions, mode, MAX_BYTES)
    }
}

struct Alertmanager {
    now: Timestamp,
}

const NAMES: [(&str, usize, usize); 20] = [
    ("append", 1, usize::MAX),
    ("date", 2, 2),
    ("dict", 0, usize::MAX),
    ("humanizeDuration", 1, 1),
    ("join", 2, 2),
    ("list", 0, usize::MAX),
    ("match", 2, 2),
    ("now", 0, 0),
    ("reReplaceAll", 3, 3),
    ("safeHtml", 1, 1),
    ("safeUrl", 1, 1),
    ("since", 1, 1),
    ("stringSlice", 0, usize::MAX),
    ("title", 1, 1),
    ("toJson", 1, 1),
    ("toLower", 1, 1),
    ("toUpper", 1, 1),
    ("trimSpace", 1, 1),
    ("tz", 2, 2),
    ("urlUnescape", 1, 1),
];

impl Functions for Alertmanager {
    fn names(&self) -> &[(&'static str, usize, usize)] {
        &NAMES
    }

    fn call(&self, name: &str, args: &[Value]) -> Result<Value, String> {
        if let Some(result) = super::shared(name, args) {
            return result;
        }
        let text = || text_arg(args, 0);
        Ok(match name {
            "title" => title(text()?).into(),
            "trimSpace" => text()?.trim().into(),
            "join" => join(text()?, &args[1])?.into(),
            "safeUrl" => Value::Safe(Safe::Url, text()?.into()),
            "urlUnescape" => url_unescape(text()?)?.into(),
            "stringSlice" => {
                let texts = (0..args.len()).map(|at| text_arg(args, at)).collect::<Result<Vec<_>, _>>()?;
                Value::texts(texts)
            }
            "date" => match &args[1] {
                Value::Time(..) => format_time(&args[1], text()?)?,
                other => {
                    return Err(format!(
                        "wrong type for value; expected time.Time; got {}",
                        other.type_name()
                    ));
                }
            },
            "tz" => match &args[1] {
                Value::Time(at, _) => in_zone(at, text()?)?,
                other => {
                    return Err(format!(
                        "wrong type for value; expected time.Time; got {}",
                        other.type_name()
                    ));
                }
            },
            "now" => now(self.now),
            "since" => match &args[0] {
                Value::Time(at, _) => {
                    let passed = self.now.0.saturating_sub(at.timestamp_millis());
                    Value::Duration(passed.saturating_mul(1_000_000))
                }
                other => {
                    return Err(format!(
                        "wrong type for value; expected time.Time; got {}",
                        other.type_name()
                    ));
                }
            },
            "toJson" => json(&args[0]).into(),
            "list" => Value::List(&ANY_LIST, args.into()),
            "append" => match &args[0] {
                Value::List(_, items) => {
                    Value::List(&ANY_LIST, items.iter().chain(&args[1..]).cloned().collect())
                }
                other => {
                    return Err(format!(
                        "wrong type for value; expected []interface {{}}; got {}",
                        other.type_name()
                    ));
                }
            },
            "dict" => dict(args)?,
            other => return Err(format!("function {other:?} not defined")),
        })
    }
}

fn now(at: Timestamp) -> Value {
    Value::time(DateTime::from_timestamp_millis(at.0).unwrap_or_default())
}

fn format_time(at: &Value, layout: &str) -> Result<Value, String> {
    let format = at.method("Format").ok_or("time has no format")?;
    format(at, &[Value::from(layout)])
}

fn join(separator: &str, list: &Value) -> Result<String, String> {
    let wrong = || format!("wrong type for value; expected []string; got {}", list.type_name());
    match list {
        Value::List(kind, items) if kind.name == TEXTS.name => {
            Ok(items.iter().map(Value::to_text).collect::<Vec<_>>().join(separator))
        }
        _ => Err(wrong()),
    }
}

fn dict(args: &[Value]) -> Result<Value, String> {
    if !args.len().is_multiple_of(2) {
        return Err("invalid dict call: number of arguments must be even".to_owned());
    }
    let pair = |pair: &[Value]| match pair[0].as_text() {
        Some(key) => Ok((key.to_owned(), pair[1].clone())),
        None => Err("dict keys must be strings".to_owned()),
    };
    Ok(Value::text_map(&ANY_MAP, args.chunks_exact(2).map(pair).collect::<Result<Vec<_>, _>>()?))
}

/// `url.QueryUnescape`
fn url_unescape(text: &str) -> Result<String, String> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'+' => out.push(b' '),
            b'%' => {
                let hex = text.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
                let shown = || text.chars().skip_while(|c| *c != '%').take(3).collect::<String>();
                out.push(hex.ok_or_else(|| format!("invalid URL escape {:?}", shown()))?);
                at += 2;
            }
            byte => out.push(byte),
        }
        at += 1;
    }
    Ok(String::from_utf8_lossy(&out).into_owned())
}

/// Each word's first letter in upper case, all others in lower case.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut is_first = true;
    for c in text.chars() {
        if is_first {
            out.extend(c.to_uppercase());
        } else {
            out.extend(c.to_lowercase());
        }
        is_first = !(c.is_alphanumeric() || matches!(c, '_' | '\'' | '.') && !is_first);
    }
    out
}
