//! An object of JSON as an entry, as Elasticsearch's shippers and lines of JSON have it.

use std::borrow::Cow;

use binnacle_model::LogTime;
use chrono::NaiveDateTime;
use serde_json::{Map, Value};

use super::super::Refusal;
use super::attributes::MAX_NAME_BYTES;
use super::{Draft, Names};

/// Values of one document, and members of its objects: each is a byte or two there, and a hundred in memory.
const MAX_VALUES: usize = 100_000;

/// Fields that a request may name, and the dots of each.
const MAX_PATHS: usize = 16;
const MAX_DOTS: usize = 8;

/// Names of the time, the best first.
const TIMES: [&str; 7] = ["@timestamp", "_time", "timestamp", "time", "ts", "date", "timereported"];

/// In March 1973.
const LEAST_SURE_NS: i64 = 100_000_000_000_000_000;

/// Names of the message, the best first.
const MESSAGES: [&str; 5] = ["message", "log", "msg", "_msg", "body"];

/// Names of the level, the best first.
const LEVELS: [&str; 8] =
    ["log.level", "level", "severity", "severity_text", "detected_level", "loglevel", "lvl", "levelname"];

/// Where a request says that times, messages and labels lie; paths with dots.
#[derive(Debug, Clone, Default)]
pub(in super::super) struct Naming {
    pub(in super::super) times: Vec<String>,
    pub(in super::super) messages: Vec<String>,
    pub(in super::super) labels: Vec<String>,
}

impl Naming {
    /// As a request's query says: `_time_field`, `_msg_field` and `_stream_fields`, each with commas between several.
    pub(in super::super) fn of_query(query: &str) -> Result<Self, Refusal> {
        let mut naming = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let paths = match &*name {
                "_time_field" => &mut naming.times,
                "_msg_field" => &mut naming.messages,
                "_stream_fields" => &mut naming.labels,
                _ => continue,
            };
            paths.extend(value.split(',').map(str::trim).filter(|path| !path.is_empty()).map(str::to_owned));
            let is_long = |path: &String| path.len() > MAX_NAME_BYTES || path.matches('.').count() > MAX_DOTS;
            if paths.len() > MAX_PATHS || paths.iter().any(is_long) {
                return Err(Refusal::Bad(format!(
                    "{name} has more than {MAX_PATHS} fields, or one of more than {MAX_NAME_BYTES} bytes or {MAX_DOTS} dots"
                )));
            }
        }
        Ok(naming)
    }
}

/// Reads one document.
///
/// A document without a message is its own message: the text, as it came. The fields within it are found when
/// somebody asks for them, as with any line of JSON.
pub(in super::super) fn read_document(text: &[u8], naming: &Naming) -> Result<Draft, String> {
    let is_large = memchr::memchr3_iter(b',', b'{', b'[', text).count() > MAX_VALUES;
    if is_large && count_values(text) > MAX_VALUES {
        return Err(format!("the document has more than {MAX_VALUES} values"));
    }
    let value: Value = serde_json::from_slice(text).map_err(|error| format!("not JSON: {error}"))?;
    let Value::Object(mut object) = value else { return Err("not an object of JSON".to_owned()) };
    let mut draft = Draft { time_ns: take_time(&mut object, naming), ..Draft::default() };
    let message = take_message(&mut object, naming);
    take_level(&mut object, &mut draft);
    identify(&mut object, naming, &mut draft);
    match message {
        Some(message) => {
            draft.message = message.into_bytes();
            object.iter().for_each(|(name, value)| draft.attributes.add_json(name, value));
        }
        None => draft.message = text.trim_ascii().to_vec(),
    }
    Ok(draft)
}

/// Values and members of a text of JSON; what stands within its texts does not count.
fn count_values(text: &[u8]) -> usize {
    let (mut count, mut is_text, mut is_escaped) = (0, false, false);
    for byte in text {
        match (is_text, byte) {
            _ if is_escaped => is_escaped = false,
            (true, b'\\') => is_escaped = true,
            (_, b'"') => is_text = !is_text,
            (false, b',' | b'{' | b'[') => count += 1,
            _ => {}
        }
    }
    count
}

/// The value at a path with dots: members may have dots in their own names.
fn find<'o>(object: &'o Map<String, Value>, path: &str) -> Option<&'o Value> {
    if let Some(value) = object.get(path) {
        return Some(value);
    }
    let dots = path.char_indices().filter(|(_, c)| *c == '.');
    let mut inner = dots.filter_map(|(at, _)| {
        let object = object.get(&path[..at])?.as_object()?;
        find(object, &path[at + 1..])
    });
    inner.next()
}

/// Takes the value at a path out, and the objects that are empty then.
fn remove(object: &mut Map<String, Value>, path: &str) {
    if object.shift_remove(path).is_some() {
        return;
    }
    for (at, _) in path.char_indices().filter(|(_, c)| *c == '.') {
        let Some(Value::Object(inner)) = object.get_mut(&path[..at]) else { continue };
        if find(inner, &path[at + 1..]).is_none() {
            continue;
        }
        remove(inner, &path[at + 1..]);
        if inner.is_empty() {
            object.shift_remove(&path[..at]);
        }
        return;
    }
}

fn named<'n>(chosen: &'n [String], usual: &'n [&'n str]) -> impl Iterator<Item = &'n str> {
    let usual = if chosen.is_empty() { usual } else { &[] };
    chosen.iter().map(String::as_str).chain(usual.iter().copied())
}

/// What cannot be read as a time stays where it is.
fn take_time(object: &mut Map<String, Value>, naming: &Naming) -> Option<i64> {
    // A small number under a usual name may be how long something took.
    let is_sure = |name: &str| name == "@timestamp" || !naming.times.is_empty();
    let is_time = |name: &str, time: i64| is_sure(name) || time > LEAST_SURE_NS;
    let (name, time) = named(&naming.times, &TIMES).find_map(|name| {
        let time = read_time(find(object, name)?)?;
        is_time(name, time).then(|| (name.to_owned(), time))
    })?;
    remove(object, &name);
    Some(time)
}

/// RFC 3339, what Elasticsearch takes besides, or Unix time in the unit that its size tells. Zero is no time.
fn read_time(value: &Value) -> Option<i64> {
    let text: Cow<'_, str> = match value {
        Value::String(text) => text.trim().into(),
        Value::Number(number) => number.to_string().into(),
        _ => return None,
    };
    if text.len() > 64 || text == "0" {
        return None;
    }
    // Before what reads it as a float, which has no place for nanoseconds.
    let known = decimal_seconds(&text).or_else(|| LogTime::parse(&text).map(|time| time.0));
    known.or_else(|| {
        let zoned = ["%Y-%m-%dT%H:%M:%S%.f%z", "%Y-%m-%d %H:%M:%S%.f%z"];
        let zoned = zoned.iter().find_map(|form| chrono::DateTime::parse_from_str(&text, form).ok());
        let plain = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y/%m/%d %H:%M:%S%.f"];
        let plain = || plain.iter().find_map(|form| NaiveDateTime::parse_from_str(&text, form).ok());
        zoned.map(|time| time.to_utc()).or_else(|| plain().map(|time| time.and_utc()))?.timestamp_nanos_opt()
    })
}

/// Unix seconds with a fraction.
fn decimal_seconds(text: &str) -> Option<i64> {
    let (seconds, fraction) = text.split_once('.')?;
    if fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanos: i64 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    seconds.parse::<u32>().ok().map(|seconds| i64::from(seconds) * 1_000_000_000 + nanos)
}

fn take_message(object: &mut Map<String, Value>, naming: &Naming) -> Option<String> {
    let is_text = |name: &&str| find(object, name).is_some_and(Value::is_string);
    let name = named(&naming.messages, &MESSAGES).find(is_text)?.to_owned();
    let mut text = find(object, &name)?.as_str()?.to_owned();
    remove(object, &name);
    // Docker's files have the line end within the text, and Fluent Bit sends it on.
    if name == "log" && text.ends_with('\n') {
        text.pop();
    }
    Some(text)
}

/// What says more than the level stays an attribute.
fn take_level(object: &mut Map<String, Value>, draft: &mut Draft) {
    for name in LEVELS {
        let Some(value) = find(object, name) else { continue };
        let is_all = match value {
            Value::String(said) => draft.set_level(said),
            Value::Number(number) => {
                let level = number.as_i64().map_or("", binnacle_model::meaning::level_numbered);
                draft.set_level(level);
                false
            }
            _ => false,
        };
        if is_all {
            remove(object, name);
        }
        if !draft.level.is_empty() {
            return;
        }
    }
}

/// Finds who wrote it, within all objects.
fn identify(object: &mut Map<String, Value>, naming: &Naming, draft: &mut Draft) {
    let identity = &mut draft.identity;
    walk(object, &mut String::new(), 0, &mut |name, value| identity.offer(Names::Any, name, value));
    for name in &naming.labels {
        match find(object, name) {
            Some(Value::String(text)) => identity.choose(name, text),
            Some(value @ (Value::Number(_) | Value::Bool(_))) => identity.choose(name, &value.to_string()),
            _ => {}
        }
    }
    let mut held = Vec::new();
    walk(object, &mut String::new(), 0, &mut |name, value| {
        if identity.holds(Names::Any, name, value) {
            held.push(name.to_owned());
        }
    });
    held.iter().for_each(|name| remove(object, name));
}

/// How deep the names that mean something may lie.
const WALK_DEPTH: usize = 4;

fn walk(object: &Map<String, Value>, path: &mut String, depth: usize, see: &mut dyn FnMut(&str, &str)) {
    let end = path.len();
    for (name, value) in object {
        if end > 0 {
            path.push('.');
        }
        path.push_str(name);
        match value {
            Value::String(text) => see(path, text),
            Value::Object(inner) if depth < WALK_DEPTH => walk(inner, path, depth + 1, see),
            _ => {}
        }
        path.truncate(end);
    }
}
