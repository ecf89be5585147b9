//! Numbers that people read.

use binnacle_model::template::{Value, significant};

/// A number, or a text that is one.
pub(super) fn from_value(value: &Value) -> Result<f64, String> {
    match value {
        Value::Float(number) => Ok(*number),
        Value::Int(number) => Ok(*number as f64),
        Value::Duration(nanos) => Ok(*nanos as f64 / 1e9),
        Value::Text(text) => {
            let invalid = || format!("strconv.ParseFloat: parsing {text:?}: invalid syntax");
            text.parse().map_err(|_| invalid())
        }
        other => Err(format!("can't convert {} to float", other.type_name())),
    }
}

/// `1.235M`
pub(super) fn humanize(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return significant(value, 4);
    }
    if value.abs() >= 1.0 {
        scale(value, &["", "k", "M", "G", "T", "P", "E", "Z", "Y"], |scaled| {
            (scaled.abs() >= 1e3).then_some(scaled / 1e3)
        })
    } else {
        small(value)
    }
}

/// `1.5ki`
pub(super) fn humanize1024(value: f64) -> String {
    if value.abs() <= 1.0 || !value.is_finite() {
        return significant(value, 4);
    }
    let units = ["", "ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi", "Yi"];
    scale(value, &units, |scaled| (scaled.abs() >= 1024.0).then_some(scaled / 1024.0))
}

fn small(value: f64) -> String {
    let units = ["", "m", "u", "n", "p", "f", "a", "z", "y"];
    scale(value, &units, |scaled| (scaled.abs() < 1.0).then_some(scaled * 1e3))
}

/// Steps to the next unit while `step` has one.
fn scale(value: f64, units: &[&str], step: impl Fn(f64) -> Option<f64>) -> String {
    let (mut scaled, mut unit) = (value, 0);
    while let Some(next) = step(scaled).filter(|_| unit + 1 < units.len()) {
        scaled = next;
        unit += 1;
    }
    format!("{}{}", significant(scaled, 4), units[unit])
}

/// `12.35%`
pub(super) fn percentage(value: f64) -> String {
    format!("{}%", significant(value * 100.0, 4))
}

/// Seconds as `1d 2h 3m 4s`, or `12.3ms`.
pub(super) fn duration(value: f64) -> String {
    if !value.is_finite() {
        return significant(value, 4);
    }
    if value == 0.0 {
        return "0s".to_owned();
    }
    if value.abs() < 1.0 {
        return format!("{}s", small(value));
    }
    let sign = if value < 0.0 { "-" } else { "" };
    let whole = value.abs() as i64;
    let (days, hours, minutes, seconds) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60, whole % 60);
    if days != 0 {
        format!("{sign}{days}d {hours}h {minutes}m {seconds}s")
    } else if hours != 0 {
        format!("{sign}{hours}h {minutes}m {seconds}s")
    } else if minutes != 0 {
        format!("{sign}{minutes}m {seconds}s")
    } else {
        format!("{sign}{}s", significant(value.abs(), 4))
    }
}
