//! The functions that every template of Go has.

use std::cmp::Ordering;

use super::format::{print, printf, println};
use super::value::{TEXTS, Value};

/// Names, and how many arguments each takes at least and at most.
pub(super) const BUILTINS: [(&str, usize, usize); 19] = [
    ("and", 1, usize::MAX),
    ("call", 1, usize::MAX),
    ("eq", 1, usize::MAX),
    ("ge", 2, 2),
    ("gt", 2, 2),
    ("html", 0, usize::MAX),
    ("index", 1, usize::MAX),
    ("js", 0, usize::MAX),
    ("le", 2, 2),
    ("len", 1, 1),
    ("lt", 2, 2),
    ("ne", 2, 2),
    ("not", 1, 1),
    ("or", 1, usize::MAX),
    ("print", 0, usize::MAX),
    ("printf", 1, usize::MAX),
    ("println", 0, usize::MAX),
    ("slice", 1, 4),
    ("urlquery", 0, usize::MAX),
];

/// What a function makes of its arguments, whose number was checked. `and` and `or` are not here: they leave out
/// arguments.
pub(super) fn call(name: &str, args: &[Value]) -> Result<Value, String> {
    let truth = |value| Ok(Value::Bool(value));
    match name {
        "not" => truth(!args[0].is_true()),
        "eq" => eq(args),
        "ne" => Ok(Value::Bool(!equal(&args[0], &args[1])?)),
        "lt" => truth(order(&args[0], &args[1])?.is_some_and(Ordering::is_lt)),
        "le" => truth(order(&args[0], &args[1])?.is_some_and(Ordering::is_le)),
        "gt" => truth(order(&args[0], &args[1])?.is_some_and(Ordering::is_gt)),
        "ge" => truth(order(&args[0], &args[1])?.is_some_and(Ordering::is_ge)),
        "len" => len(&args[0]),
        "index" => index(args),
        "slice" => slice(args),
        "print" => Ok(Value::from(print(args))),
        "println" => Ok(Value::from(println(args))),
        "printf" => match args[0].as_text() {
            Some(format) => Ok(Value::from(printf(format, &args[1..]))),
            None => Err(format!("wrong type for value; expected string; got {}", args[0].type_name())),
        },
        "html" => Ok(Value::from(html(&joined(args)))),
        "js" => Ok(Value::from(js(&joined(args)))),
        "urlquery" => Ok(Value::from(query_escape(&joined(args)))),
        _ => Err(format!("non-function of type {}", args[0].type_name())),
    }
}

fn joined(args: &[Value]) -> String {
    match args {
        [only] => only.to_text(),
        _ => print(args),
    }
}

fn eq(args: &[Value]) -> Result<Value, String> {
    if args.len() == 1 {
        return Err("missing argument for comparison".to_owned());
    }
    for other in &args[1..] {
        if equal(&args[0], other)? {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}

fn equal(a: &Value, b: &Value) -> Result<bool, String> {
    match (a, b) {
        (Value::Missing | Value::Nil, Value::Missing | Value::Nil) => Ok(true),
        (Value::Missing | Value::Nil, _) | (_, Value::Missing | Value::Nil) => Ok(false),
        (Value::List(..) | Value::Map(..), _) | (_, Value::List(..) | Value::Map(..)) => {
            let which = if matches!(a, Value::List(..) | Value::Map(..)) { a } else { b };
            Err(format!("non-comparable type {}: {}", which.to_text(), which.type_name()))
        }
        _ if a.type_name() == b.type_name() => Ok(a == b),
        _ => match (a.as_text(), b.as_text()) {
            (Some(a), Some(b)) => Ok(a == b),
            _ => int_pair(a, b).map(|(a, b)| a == b).ok_or_else(incompatible),
        },
    }
}

/// A duration is an integer to Go.
fn int_pair(a: &Value, b: &Value) -> Option<(i64, i64)> {
    let int = |value: &Value| match value {
        Value::Int(number) | Value::Duration(number) => Some(*number),
        _ => None,
    };
    Some((int(a)?, int(b)?))
}

fn incompatible() -> String {
    "incompatible types for comparison".to_owned()
}

fn order(a: &Value, b: &Value) -> Result<Option<Ordering>, String> {
    if let (Some(a), Some(b)) = (a.as_text(), b.as_text()) {
        return Ok(Some(a.cmp(b)));
    }
    if let Some((a, b)) = int_pair(a, b) {
        return Ok(Some(a.cmp(&b)));
    }
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => Ok(a.partial_cmp(b)),
        (Value::Bool(_), Value::Bool(_)) => Err("invalid type for comparison".to_owned()),
        (Value::List(..) | Value::Map(..) | Value::Struct(..) | Value::Nil | Value::Missing, _) => {
            Err("invalid type for comparison".to_owned())
        }
        _ => Err(incompatible()),
    }
}

fn len(value: &Value) -> Result<Value, String> {
    let count = match value {
        Value::Text(text) | Value::Safe(_, text) => text.len(),
        Value::List(_, items) => items.len(),
        Value::Map(_, entries) => entries.len(),
        Value::Nil | Value::Missing => return Err("len of nil pointer".to_owned()),
        other => return Err(format!("len of type {}", other.type_name())),
    };
    Ok(Value::Int(count as i64))
}

fn index(args: &[Value]) -> Result<Value, String> {
    let mut value = args[0].clone();
    for key in &args[1..] {
        value = match (&value, key) {
            (Value::List(_, items), Value::Int(at)) => {
                let item = usize::try_from(*at).ok().and_then(|at| items.get(at));
                item.cloned().ok_or_else(|| format!("index out of range: {at}"))?
            }
            (Value::Text(text) | Value::Safe(_, text), Value::Int(at)) => {
                let byte = usize::try_from(*at).ok().and_then(|at| text.as_bytes().get(at));
                byte.map(|b| Value::Int(i64::from(*b))).ok_or_else(|| format!("index out of range: {at}"))?
            }
            (Value::Map(kind, entries), key) => {
                let wrong = || format!("value has type {}; should be string", key.type_name());
                let name = key.as_text().ok_or_else(wrong)?;
                entries.get(name).cloned().unwrap_or_else(|| Value::zero_of(kind))
            }
            (Value::List(..) | Value::Text(_), Value::Nil | Value::Missing) => {
                return Err("cannot index slice/array with nil".to_owned());
            }
            (Value::List(..) | Value::Text(_), other) => {
                return Err(format!("cannot index slice/array with type {}", other.type_name()));
            }
            (Value::Nil | Value::Missing, _) => return Err("index of untyped nil".to_owned()),
            (other, _) => return Err(format!("can't index item of type {}", other.type_name())),
        };
    }
    Ok(value)
}

fn slice(args: &[Value]) -> Result<Value, String> {
    let size = match &args[0] {
        Value::Text(text) => text.len(),
        Value::List(_, items) => items.len(),
        Value::Nil | Value::Missing => return Err("slice of untyped nil".to_owned()),
        other => return Err(format!("can't slice item of type {}", other.type_name())),
    };
    if args.len() == 4 && args[0].as_text().is_some() {
        return Err("cannot 3-index slice a string".to_owned());
    }
    let bound = |at: usize, otherwise: usize| match args.get(at) {
        None => Ok(otherwise),
        Some(Value::Int(bound)) => {
            let found = usize::try_from(*bound).ok().filter(|bound| *bound <= size);
            found.ok_or_else(|| format!("index out of range: {bound}"))
        }
        Some(other) => Err(format!("cannot index slice/array with type {}", other.type_name())),
    };
    let (from, to) = (bound(1, 0)?, bound(2, size)?);
    if from > to {
        return Err(format!("invalid slice index: {from} > {to}"));
    }
    Ok(match &args[0] {
        Value::Text(text) => Value::from(String::from_utf8_lossy(&text.as_bytes()[from..to]).into_owned()),
        Value::List(kind, items) => Value::List(kind, items[from..to].into()),
        _ => Value::List(&TEXTS, [].into()),
    })
}

/// `template.HTMLEscapeString`
fn html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\0' => out.push('\u{fffd}'),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            c => out.push(c),
        }
    }
    out
}

/// `template.JSEscapeString`
fn js(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | '\'' | '"' => out.extend(['\\', c]),
            '<' | '>' | '=' | '&' | '\0'..='\u{1f}' => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c if c.is_ascii() || c.is_alphanumeric() => out.push(c),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

/// `url.QueryEscape`
pub fn query_escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            b' ' => out.push('+'),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
