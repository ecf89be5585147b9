//! Annotations and labels of rules, with the functions of Prometheus 3.5.
//!
//! `$labels`, `$value`, `$externalLabels` and `$externalURL` stand for what a template is about; `query` asks the
//! store, at the moment of the evaluation.

use std::collections::BTreeMap;
use std::sync::Arc;

use binnacle_model::template::{
    ANY_MAP, Functions, Mode, Set, TEXT_MAP, Type, Value, query_escape, text_arg,
};
use binnacle_model::time::parse_duration;
use binnacle_model::{Labels, Timestamp};
use chrono::DateTime;

use super::numbers;

/// Most bytes that a template may make.
const MAX_BYTES: usize = 1 << 20;

/// What stands before each template, so that it may say `$labels`. Prometheus's, so that columns of errors are the
/// same.
const PRELUDE: &str = "{{$labels := .Labels}}{{$externalLabels := .ExternalLabels}}{{$externalURL := .ExternalURL}}{{$value := .Value}}";

/// One series of an answer.
static SAMPLE: Type = Type { name: "*template.sample", methods: &[], text: None };
/// An answer.
static SAMPLES: Type = Type { name: "template.queryResult", methods: &[], text: None };
/// What a template is about.
static DATA: Type = Type {
    name: "struct { Labels map[string]string; ExternalLabels map[string]string; ExternalURL string; Value interface {} }",
    methods: &[],
    text: None,
};

/// Answers an instant query: series with their labels, the name among them, and values.
pub type Query<'q> = dyn Fn(&str) -> Result<Vec<(Labels, f64)>, String> + 'q;

/// What a template may speak of.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The rule's, for messages.
    pub name: &'a str,
    /// `$labels`: of the sample that fires.
    pub labels: &'a Labels,
    /// `$externalLabels`
    pub external_labels: &'a Labels,
    /// `$externalURL`
    pub external_url: &'a str,
    /// `$value`
    pub value: f64,
    /// When the rule is evaluated.
    pub now: Timestamp,
    /// Asks the store.
    pub query: &'a Query<'a>,
}

/// The text with its actions carried out, or with a note of what went wrong in its place.
pub fn expand(text: &str, ctx: Context<'_>) -> String {
    try_expand(text, ctx).unwrap_or_else(|error| format!("<error expanding template: {error}>"))
}

/// As [`expand`], for whoever checks templates.
///
/// # Errors
/// The template cannot be read, or not be carried out.
pub fn try_expand(text: &str, ctx: Context<'_>) -> Result<String, String> {
    // Most labels are plain.
    if !text.contains("{{") {
        return Ok(text.to_owned());
    }
    let name = format!("__alert_{}", ctx.name);
    let functions = Prometheus { ctx };
    let mut set = Set::default();
    let read = set.add(&name, &format!("{PRELUDE}{text}"), &functions);
    read.map_err(|error| format!("error parsing template {name}: {error}"))?;
    let map = |labels: &Labels| Value::text_map(&TEXT_MAP, labels.iter().map(|l| (&*l.name, &*l.value)));
    let about = Value::Struct(
        &DATA,
        [
            ("Labels", map(ctx.labels)),
            ("ExternalLabels", map(ctx.external_labels)),
            ("ExternalURL", Value::from(ctx.external_url)),
            ("Value", Value::Float(ctx.value)),
        ]
        .into(),
    );
    let made = set.execute(&name, &about, &functions, Mode::Text, MAX_BYTES);
    made.map_err(|error| format!("error executing template {name}: {error}"))
}

/// Whether a template can be read; what it would say is not asked.
///
/// # Errors
/// What is wrong with it.
pub fn check(name: &str, text: &str) -> Result<(), String> {
    let none = Labels::default();
    let query = |_: &str| Ok(Vec::new());
    let ctx = Context {
        name,
        labels: &none,
        external_labels: &none,
        external_url: "",
        value: 0.0,
        now: Timestamp(0),
        query: &query,
    };
    Set::default().add(&format!("__alert_{name}"), &format!("{PRELUDE}{text}"), &Prometheus { ctx })
}

struct Prometheus<'a> {
    ctx: Context<'a>,
}

const NAMES: [(&str, usize, usize); 29] = [
    ("args", 0, usize::MAX),
    ("externalURL", 0, 0),
    ("first", 1, 1),
    ("graphLink", 1, 1),
    ("humanize", 1, 1),
    ("humanize1024", 1, 1),
    ("humanizeDuration", 1, 1),
    ("humanizePercentage", 1, 1),
    ("humanizeTimestamp", 1, 1),
    ("label", 2, 2),
    ("match", 2, 2),
    ("now", 0, 0),
    ("parseDuration", 1, 1),
    ("pathPrefix", 0, 0),
    ("query", 1, 1),
    ("reReplaceAll", 3, 3),
    ("safeHtml", 1, 1),
    ("sortByLabel", 2, 2),
    ("stripDomain", 1, 1),
    ("stripPort", 1, 1),
    ("strvalue", 1, 1),
    ("tableLink", 1, 1),
    ("title", 1, 1),
    ("toDuration", 1, 1),
    ("toLower", 1, 1),
    ("toTime", 1, 1),
    ("toUpper", 1, 1),
    ("urlQueryEscape", 1, 1),
    ("value", 1, 1),
];

impl Functions for Prometheus<'_> {
    fn names(&self) -> &[(&'static str, usize, usize)] {
        &NAMES
    }

    fn call(&self, name: &str, args: &[Value]) -> Result<Value, String> {
        if let Some(result) = super::shared(name, args) {
            return result;
        }
        let number = || numbers::from_value(&args[0]);
        let text = || text_arg(args, 0);
        Ok(match name {
            "query" => samples((self.ctx.query)(text()?)?),
            "first" => first(&args[0])?,
            "label" => label(&args[1], text()?)?,
            "value" => field(&args[0], "Value")?,
            "strvalue" => label(&args[0], "__value__")?,
            "sortByLabel" => sorted(text()?, &args[1])?,
            "args" => {
                let pairs = args.iter().enumerate().map(|(at, arg)| (format!("arg{at}"), arg.clone()));
                Value::text_map(&ANY_MAP, pairs)
            }
            "title" => title(text()?).into(),
            "graphLink" => format!("/graph?g0.expr={}&g0.tab=0", query_escape(text()?)).into(),
            "tableLink" => format!("/graph?g0.expr={}&g0.tab=1", query_escape(text()?)).into(),
            "urlQueryEscape" => query_escape(text()?).into(),
            "stripPort" => split_port(text()?).0.into(),
            "stripDomain" => strip_domain(text()?).into(),
            "humanize" => numbers::humanize(number()?).into(),
            "humanize1024" => numbers::humanize1024(number()?).into(),
            "humanizePercentage" => numbers::percentage(number()?).into(),
            "humanizeTimestamp" => match number()? {
                odd if !odd.is_finite() => binnacle_model::template::significant(odd, 4).into(),
                seconds => Value::from(time(seconds)?.to_text()),
            },
            "toTime" => time(number()?)?,
            "toDuration" => Value::Duration((number()? * 1e9) as i64),
            "now" => Value::Float(self.ctx.now.as_secs_f64()),
            "parseDuration" => Value::Float(parse_duration(text()?)?.as_secs_f64()),
            "externalURL" => self.ctx.external_url.into(),
            "pathPrefix" => path_of(self.ctx.external_url).into(),
            other => return Err(format!("function {other:?} not defined")),
        })
    }
}

fn samples(found: Vec<(Labels, f64)>) -> Value {
    let sample = |(labels, value): (Labels, f64)| {
        let labels = Value::text_map(&TEXT_MAP, labels.iter().map(|l| (&*l.name, &*l.value)));
        Value::Struct(&SAMPLE, [("Labels", labels), ("Value", Value::Float(value))].into())
    };
    Value::List(&SAMPLES, found.into_iter().map(sample).collect())
}

fn first(value: &Value) -> Result<Value, String> {
    match value {
        Value::List(_, items) => {
            items.first().cloned().ok_or_else(|| "first() called on vector with no elements".to_owned())
        }
        other => {
            Err(format!("wrong type for value; expected template.queryResult; got {}", other.type_name()))
        }
    }
}

fn field(sample: &Value, name: &str) -> Result<Value, String> {
    let found = match sample {
        Value::Struct(_, fields) => fields.iter().find(|(known, _)| *known == name),
        _ => None,
    };
    let wrong = || format!("wrong type for value; expected *template.sample; got {}", sample.type_name());
    found.map(|(_, value)| value.clone()).ok_or_else(wrong)
}

fn label(sample: &Value, name: &str) -> Result<Value, String> {
    Ok(match field(sample, "Labels")? {
        Value::Map(_, labels) => labels.get(name).cloned().unwrap_or_else(|| Value::from("")),
        _ => Value::from(""),
    })
}

fn sorted(name: &str, samples: &Value) -> Result<Value, String> {
    let Value::List(kind, items) = samples else {
        return Err(format!(
            "wrong type for value; expected template.queryResult; got {}",
            samples.type_name()
        ));
    };
    let mut by: BTreeMap<(String, usize), Value> = BTreeMap::new();
    for (at, item) in items.iter().enumerate() {
        by.insert((label(item, name)?.to_text(), at), item.clone());
    }
    Ok(Value::List(kind, by.into_values().collect::<Arc<[_]>>()))
}

fn time(seconds: f64) -> Result<Value, String> {
    if !seconds.is_finite() {
        return Err(format!("{} is NaN or Inf", Value::Float(seconds).to_text()));
    }
    // Prometheus counts in milliseconds.
    let millis = seconds * 1e3;
    let at = (millis.abs() < 9.2e15).then(|| DateTime::from_timestamp_millis(millis as i64)).flatten();
    at.map(Value::time).ok_or_else(|| {
        let seconds = Value::Float(seconds).to_text();
        format!("{seconds} cannot be represented as a nanoseconds timestamp since it overflows int64")
    })
}

/// Each word's first letter in upper case, the others as they are.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut is_first = true;
    for c in text.chars() {
        if is_first {
            out.extend(c.to_uppercase());
        } else {
            out.push(c);
        }
        is_first = !(c.is_alphanumeric() || matches!(c, '_' | '\''));
    }
    out
}

/// A host without brackets, and its port; all of the text where it has none.
fn split_port(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        Some((name, port)) if name.starts_with('[') && name.ends_with(']') => {
            (&name[1..name.len() - 1], Some(port))
        }
        Some((name, port)) if !name.contains([':', '[', ']']) => (name, Some(port)),
        _ => (host, None),
    }
}

fn strip_domain(host_port: &str) -> String {
    let (host, port) = split_port(host_port);
    if host.parse::<std::net::IpAddr>().is_ok() {
        return host_port.to_owned();
    }
    let name = host.split('.').next().unwrap_or_default();
    match port {
        Some(port) if !port.is_empty() => format!("{name}:{port}"),
        _ => name.to_owned(),
    }
}

fn path_of(url: &str) -> &str {
    let behind = url.split_once("://").map_or(url, |(_, behind)| behind);
    behind.find('/').map_or("", |at| &behind[at..])
}
