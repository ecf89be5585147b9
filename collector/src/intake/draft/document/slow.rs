//! The same reading in the plainest way: by a tree that owns everything, searched name by name.

use serde_json::{Map, Value};

use super::super::{Draft, Names};
use super::tree::Held;
use super::{LEAST_SURE_NS, LEVELS, MESSAGES, Naming, TIMES, read_time};

/// Reads one document.
///
/// A document without a message is its own message: the text, as it came. The fields within it are found when
/// somebody asks for them, as with any line of JSON.
pub(in super::super) fn read_document(text: &[u8], naming: &Naming) -> Result<Draft, String> {
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
        let time = read_time(&held(find(object, name)?))?;
        is_time(name, time).then(|| (name.to_owned(), time))
    })?;
    remove(object, &name);
    Some(time)
}

/// A value as the quick reading has it.
fn held(value: &Value) -> Held<'_> {
    match value {
        Value::String(text) => Held::Text(text.into()),
        Value::Number(number) => Held::Number(number.clone()),
        _ => Held::Null,
    }
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
