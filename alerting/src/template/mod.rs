//! Templates of rules and of notifications: Go's language (`binnacle_model::template`) with the functions of Prometheus
//! (`annotation`) and of Alertmanager (`notification`).
//!
//! A template that fails never costs an alert: an annotation shows the error in its place, as with Prometheus, and a
//! notification goes out with its labels.

mod annotation;
mod notification;
mod numbers;

use binnacle_model::regexes::unanchored;
use binnacle_model::template::{Safe, Value, text_arg};

pub use annotation::{Context, Query, check, expand, try_expand};
pub use notification::{Data, DataAlert, Notifications};

/// Most bytes that a regular expression of a template may take when it is compiled.
const MAX_REGEX: usize = 1 << 20;

/// Functions that both know, under the same names.
fn shared(name: &str, args: &[Value]) -> Option<Result<Value, String>> {
    Some(match name {
        "toUpper" => text_arg(args, 0).map(|text| Value::from(text.to_uppercase())),
        "toLower" => text_arg(args, 0).map(|text| Value::from(text.to_lowercase())),
        "safeHtml" => text_arg(args, 0).map(|text| Value::Safe(Safe::Html, text.into())),
        "match" => matches(args),
        "reReplaceAll" => replace_all(args),
        "humanizeDuration" => numbers::from_value(&args[0]).map(|value| numbers::duration(value).into()),
        _ => return None,
    })
}

fn matches(args: &[Value]) -> Result<Value, String> {
    let regex = unanchored(text_arg(args, 0)?, MAX_REGEX)?;
    Ok(Value::Bool(regex.is_match(text_arg(args, 1)?.as_bytes())))
}

fn replace_all(args: &[Value]) -> Result<Value, String> {
    let regex = unanchored(text_arg(args, 0)?, MAX_REGEX)?;
    let replaced = regex.replace_all(text_arg(args, 2)?.as_bytes(), text_arg(args, 1)?.as_bytes());
    Ok(Value::from(String::from_utf8_lossy(&replaced).into_owned()))
}

#[cfg(test)]
mod tests;
