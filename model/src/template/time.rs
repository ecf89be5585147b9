//! Go's `time`: layouts, the text of a duration, and the methods of both.

use std::fmt::Write;
use std::sync::Arc;

use chrono::{DateTime, Datelike, Duration, FixedOffset, Timelike, Utc};

use super::value::{Method, Value, text_arg};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// The pieces of a layout, longer ones before those that they begin with.
const PIECES: [&str; 34] = [
    "January",
    "Jan",
    "Monday",
    "Mon",
    "MST",
    "2006",
    "-070000",
    "-07:00:00",
    "-0700",
    "-07:00",
    "-07",
    "Z070000",
    "Z07:00:00",
    "Z0700",
    "Z07:00",
    "Z07",
    "002",
    "01",
    "02",
    "03",
    "04",
    "05",
    "06",
    "15",
    "PM",
    "pm",
    "__2",
    "_2006",
    "_2",
    "1",
    "2",
    "3",
    "4",
    "5",
];

/// A time by a layout that shows how Go's reference time, `Mon Jan 2 15:04:05 MST 2006`, would look.
pub(super) fn layout(at: &DateTime<FixedOffset>, zone: &str, layout: &str) -> String {
    let mut out = String::new();
    let mut rest = layout;
    while let Some(first) = rest.chars().next() {
        if let Some(length) = fraction(&mut out, at, rest) {
            rest = &rest[length..];
            continue;
        }
        let piece = PIECES.iter().find(|piece| {
            // "Janet" is no month.
            rest.strip_prefix(**piece).is_some_and(|behind| {
                let goes_on = behind.starts_with(|c: char| c.is_ascii_lowercase());
                !(matches!(**piece, "Jan" | "Mon") && goes_on)
            })
        });
        match piece {
            // A blank before a year is a blank.
            Some(&"_2006") => {
                let _ = write!(out, "_{:04}", at.year());
                rest = &rest[5..];
            }
            Some(piece) => {
                write_piece(&mut out, at, zone, piece);
                rest = &rest[piece.len()..];
            }
            None => {
                out.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
    }
    out
}

/// `.000` or `.999`, of whatever length, behind which no digit stands; answers the length.
fn fraction(out: &mut String, at: &DateTime<FixedOffset>, rest: &str) -> Option<usize> {
    let sign = rest.chars().next().filter(|c| matches!(c, '.' | ','))?;
    let digit = rest[1..].chars().next().filter(|c| matches!(c, '0' | '9'))?;
    let count = rest[1..].chars().take_while(|c| *c == digit).count();
    if rest[1 + count..].starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let nanos = format!("{:09}", at.nanosecond() % 1_000_000_000);
    let mut shown = &nanos[..count.min(9)];
    if digit == '9' {
        shown = shown.trim_end_matches('0');
    }
    if !shown.is_empty() {
        out.push(sign);
        out.push_str(shown);
    }
    Some(1 + count)
}

fn write_piece(out: &mut String, at: &DateTime<FixedOffset>, zone: &str, piece: &str) {
    let month = MONTHS[at.month0() as usize];
    let day = DAYS[at.weekday().num_days_from_sunday() as usize];
    let hour12 = at.hour12().1;
    // Writing to a string cannot fail.
    let _ = match piece {
        "January" => write!(out, "{month}"),
        "Jan" => write!(out, "{}", &month[..3]),
        "Monday" => write!(out, "{day}"),
        "Mon" => write!(out, "{}", &day[..3]),
        "MST" => write!(out, "{}", zone_name(at, zone)),
        "2006" => write!(out, "{:04}", at.year()),
        "06" => write!(out, "{:02}", at.year().rem_euclid(100)),
        "002" => write!(out, "{:03}", at.ordinal()),
        "__2" => write!(out, "{:>3}", at.ordinal()),
        "01" => write!(out, "{:02}", at.month()),
        "1" => write!(out, "{}", at.month()),
        "02" => write!(out, "{:02}", at.day()),
        "_2" => write!(out, "{:>2}", at.day()),
        "2" => write!(out, "{}", at.day()),
        "15" => write!(out, "{:02}", at.hour()),
        "03" => write!(out, "{hour12:02}"),
        "3" => write!(out, "{hour12}"),
        "04" => write!(out, "{:02}", at.minute()),
        "4" => write!(out, "{}", at.minute()),
        "05" => write!(out, "{:02}", at.second()),
        "5" => write!(out, "{}", at.second()),
        "PM" => write!(out, "{}", if at.hour() >= 12 { "PM" } else { "AM" }),
        "pm" => write!(out, "{}", if at.hour() >= 12 { "pm" } else { "am" }),
        zone => write!(out, "{}", offset(at.offset().local_minus_utc(), zone)),
    };
}

/// Go's name of a zone: its abbreviation, or its offset where it has none.
fn zone_name(at: &DateTime<FixedOffset>, zone: &str) -> String {
    if zone.is_empty() || zone.starts_with(['+', '-']) {
        let seconds = at.offset().local_minus_utc();
        let text = offset(seconds, "-0700");
        // Whole hours are short: +05.
        return text.strip_suffix("00").map_or(text.clone(), str::to_owned);
    }
    zone.to_owned()
}

/// An offset by one of `-0700 -07:00 -07 -070000 -07:00:00`, or one of them with `Z` for UTC.
fn offset(seconds: i32, piece: &str) -> String {
    if piece.starts_with('Z') && seconds == 0 {
        return "Z".to_owned();
    }
    let sign = if seconds < 0 { '-' } else { '+' };
    let size = seconds.abs();
    let (hours, minutes, seconds) = (size / 3600, size / 60 % 60, size % 60);
    match &piece[1..] {
        "0700" => format!("{sign}{hours:02}{minutes:02}"),
        "07:00" => format!("{sign}{hours:02}:{minutes:02}"),
        "070000" => format!("{sign}{hours:02}{minutes:02}{seconds:02}"),
        "07:00:00" => format!("{sign}{hours:02}:{minutes:02}:{seconds:02}"),
        _ => format!("{sign}{hours:02}"),
    }
}

/// Go's `Time.String()`.
pub(super) fn to_text(at: &DateTime<FixedOffset>, zone: &str) -> String {
    layout(at, zone, "2006-01-02 15:04:05.999999999 -0700 MST")
}

/// Go's `Duration.String()`: `1h30m0s`, `3.2ms`.
pub(super) fn duration_text(nanos: i64) -> String {
    let size = nanos.unsigned_abs();
    let sign = if nanos < 0 { "-" } else { "" };
    let fraction = |whole: u64, part: u64, digits: usize| {
        let part = format!("{part:0digits$}");
        let part = part.trim_end_matches('0');
        if part.is_empty() { whole.to_string() } else { format!("{whole}.{part}") }
    };
    match size {
        0 => "0s".to_owned(),
        1..1_000 => format!("{sign}{size}ns"),
        1_000..1_000_000 => format!("{sign}{}µs", fraction(size / 1_000, size % 1_000, 3)),
        1_000_000..1_000_000_000 => format!("{sign}{}ms", fraction(size / 1_000_000, size % 1_000_000, 6)),
        _ => {
            let whole = size / 1_000_000_000;
            let seconds = fraction(whole % 60, size % 1_000_000_000, 9);
            match (whole / 3600, whole / 60 % 60) {
                (0, 0) => format!("{sign}{seconds}s"),
                (0, minutes) => format!("{sign}{minutes}m{seconds}s"),
                (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

/// The same moment in another zone, of which the name is as in the time zone database.
///
/// # Errors
/// The database has no such zone.
pub fn in_zone(at: &DateTime<FixedOffset>, name: &str) -> Result<Value, String> {
    let utc = at.with_timezone(&Utc);
    if matches!(name, "" | "UTC" | "Local") {
        return Ok(Value::time(utc));
    }
    let zone: chrono_tz::Tz = name.parse().map_err(|_| format!("unknown time zone {name}"))?;
    let there = utc.with_timezone(&zone);
    let short: Arc<str> = there.format("%Z").to_string().into();
    Ok(Value::Time(there.fixed_offset(), short))
}

fn receiver(value: &Value) -> Result<(&DateTime<FixedOffset>, &Arc<str>), String> {
    match value {
        Value::Time(at, zone) => Ok((at, zone)),
        other => Err(format!("expected time.Time; got {}", other.type_name())),
    }
}

fn nanos(value: &Value) -> Result<i64, String> {
    match value {
        Value::Duration(nanos) => Ok(*nanos),
        other => Err(format!("wrong type for value; expected time.Duration; got {}", other.type_name())),
    }
}

fn int(value: u32) -> Value {
    Value::Int(i64::from(value))
}

/// Go's zero time, `0001-01-01T00:00:00Z`.
fn is_zero(at: &DateTime<FixedOffset>) -> bool {
    at.timestamp() == -62_135_596_800 && at.timestamp_subsec_nanos() == 0
}

fn whole(at: &DateTime<FixedOffset>, unit: i64) -> Value {
    let nanos = i128::from(at.timestamp()) * 1_000_000_000 + i128::from(at.timestamp_subsec_nanos());
    Value::Int(i64::try_from(nanos.div_euclid(i128::from(unit))).unwrap_or(i64::MAX))
}

fn compare(value: &Value, args: &[Value], wanted: std::cmp::Ordering) -> Result<Value, String> {
    Ok(Value::Bool(receiver(value)?.0.cmp(receiver(&args[0])?.0) == wanted))
}

fn add(value: &Value, span: i64) -> Result<Value, String> {
    let (at, zone) = receiver(value)?;
    let sum = at.checked_add_signed(Duration::nanoseconds(span)).ok_or("time out of range")?;
    Ok(Value::Time(sum, Arc::clone(zone)))
}

fn between(a: &Value, b: &Value) -> Result<Value, String> {
    let span = receiver(a)?.0.signed_duration_since(receiver(b)?.0);
    let nanos = span.num_nanoseconds();
    Ok(Value::Duration(nanos.unwrap_or(if span < Duration::zero() { i64::MIN } else { i64::MAX })))
}

/// The methods of `time.Time` that templates use.
pub(super) static TIME_METHODS: &[(&str, usize, Method)] = &[
    ("Format", 1, |value, args| {
        let (at, zone) = receiver(value)?;
        Ok(Value::from(layout(at, zone, text_arg(args, 0)?)))
    }),
    ("String", 0, |value, _| receiver(value).map(|(at, zone)| Value::from(to_text(at, zone)))),
    ("UTC", 0, |value, _| receiver(value).map(|(at, _)| Value::time(at.with_timezone(&Utc)))),
    ("Local", 0, |value, _| receiver(value).map(|(at, _)| Value::time(at.with_timezone(&Utc)))),
    ("IsZero", 0, |value, _| receiver(value).map(|(at, _)| Value::Bool(is_zero(at)))),
    ("Unix", 0, |value, _| receiver(value).map(|(at, _)| Value::Int(at.timestamp()))),
    ("UnixMilli", 0, |value, _| receiver(value).map(|(at, _)| whole(at, 1_000_000))),
    ("UnixMicro", 0, |value, _| receiver(value).map(|(at, _)| whole(at, 1_000))),
    ("UnixNano", 0, |value, _| receiver(value).map(|(at, _)| whole(at, 1))),
    ("Year", 0, |value, _| receiver(value).map(|(at, _)| Value::Int(i64::from(at.year())))),
    ("Month", 0, |value, _| receiver(value).map(|(at, _)| Value::from(MONTHS[at.month0() as usize]))),
    ("Day", 0, |value, _| receiver(value).map(|(at, _)| int(at.day()))),
    ("YearDay", 0, |value, _| receiver(value).map(|(at, _)| int(at.ordinal()))),
    ("Hour", 0, |value, _| receiver(value).map(|(at, _)| int(at.hour()))),
    ("Minute", 0, |value, _| receiver(value).map(|(at, _)| int(at.minute()))),
    ("Second", 0, |value, _| receiver(value).map(|(at, _)| int(at.second()))),
    ("Nanosecond", 0, |value, _| receiver(value).map(|(at, _)| int(at.nanosecond()))),
    ("Weekday", 0, |value, _| {
        receiver(value).map(|(at, _)| Value::from(DAYS[at.weekday().num_days_from_sunday() as usize]))
    }),
    ("Add", 1, |value, args| add(value, nanos(&args[0])?)),
    ("Sub", 1, |value, args| between(value, &args[0])),
    ("Before", 1, |value, args| compare(value, args, std::cmp::Ordering::Less)),
    ("After", 1, |value, args| compare(value, args, std::cmp::Ordering::Greater)),
    ("Equal", 1, |value, args| compare(value, args, std::cmp::Ordering::Equal)),
    ("Truncate", 1, |value, args| {
        let (at, zone) = receiver(value)?;
        let span = nanos(&args[0])?;
        if span <= 0 {
            return Ok(value.clone());
        }
        // Go counts from its zero time.
        let since = i128::from(at.timestamp() + 62_135_596_800) * 1_000_000_000
            + i128::from(at.timestamp_subsec_nanos());
        let beyond = since.rem_euclid(i128::from(span)) as i64;
        add(&Value::Time(*at, Arc::clone(zone)), -beyond)
    }),
];

/// The methods of `time.Duration`.
pub(super) static DURATION_METHODS: &[(&str, usize, Method)] = &[
    ("String", 0, |value, _| nanos(value).map(|nanos| Value::from(duration_text(nanos)))),
    ("Hours", 0, |value, _| nanos(value).map(|nanos| Value::Float(nanos as f64 / 3.6e12))),
    ("Minutes", 0, |value, _| nanos(value).map(|nanos| Value::Float(nanos as f64 / 6e10))),
    ("Seconds", 0, |value, _| nanos(value).map(|nanos| Value::Float(nanos as f64 / 1e9))),
    ("Milliseconds", 0, |value, _| nanos(value).map(|nanos| Value::Int(nanos / 1_000_000))),
    ("Microseconds", 0, |value, _| nanos(value).map(|nanos| Value::Int(nanos / 1_000))),
    ("Nanoseconds", 0, |value, _| nanos(value).map(Value::Int)),
    ("Abs", 0, |value, _| nanos(value).map(|nanos| Value::Duration(nanos.saturating_abs()))),
    ("Truncate", 1, |value, args| {
        let (nanos, unit) = (nanos(value)?, nanos(&args[0])?);
        Ok(Value::Duration(if unit <= 0 { nanos } else { nanos - nanos % unit }))
    }),
    ("Round", 1, |value, args| {
        let (nanos, unit) = (nanos(value)?, nanos(&args[0])?);
        if unit <= 0 {
            return Ok(Value::Duration(nanos));
        }
        let part = (nanos % unit).abs();
        let down = nanos - nanos % unit;
        let up = down.saturating_add(unit.saturating_mul(nanos.signum()));
        Ok(Value::Duration(if part >= unit - part { up } else { down }))
    }),
];
