//! One line of syslog as an entry.
//!
//! ```text
//! RFC 5424  <PRI>1 TIME HOST APP PROCID MSGID [ID NAME="VALUE" …]… MESSAGE
//! RFC 3164  <PRI>Mmm dd hh:mm:ss HOST TAG[PID]: MESSAGE       or with RFC 3339's time, as rsyslog forwards
//! ```
//!
//! The host is the label `node`, the app or tag the service, the severity the level. All else is beside the message
//! under the names of Elastic's common schema. A line of neither form is a message as a whole.

use std::net::IpAddr;

use binnacle_model::LogTime;
use binnacle_model::push::PushValue;
use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime};

use super::super::draft::{Draft, Names};

const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
    "ntp", "security", "console", "clock", "local0", "local1", "local2", "local3", "local4", "local5",
    "local6", "local7",
];

/// Severities with our levels.
const SEVERITIES: [(&str, &str); 8] = [
    ("emergency", "fatal"),
    ("alert", "fatal"),
    ("critical", "fatal"),
    ("error", "error"),
    ("warning", "warn"),
    ("notice", "info"),
    ("informational", "info"),
    ("debug", "debug"),
];

/// Severities that their level does not say all of.
const SAY_MORE: [usize; 4] = [0, 1, 2, 5];

const MONTHS: [&[u8; 3]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

const BOM: &[u8] = b"\xef\xbb\xbf";

/// Reads a line that came from this address. Whatever it is, all of it is kept.
pub(super) fn parse(line: &[u8], now: LogTime, from: IpAddr) -> Draft {
    let mut draft = Draft::default();
    let rest = match priority(line) {
        Some((priority, rest)) => {
            let (facility, severity) = (usize::from(priority / 8), usize::from(priority % 8));
            let (name, level) = SEVERITIES[severity];
            draft.level = level;
            text(&mut draft, "log.syslog.facility.name", FACILITIES[facility]);
            if SAY_MORE.contains(&severity) {
                text(&mut draft, "log.syslog.severity.name", name);
            }
            rest
        }
        None => line,
    };
    // What the line itself says of its host wins.
    draft.identity.offer(Names::Any, "fromhost", &from.to_string());
    match rest.strip_prefix(b"1 ").and_then(|rest| header(rest, &mut draft)) {
        Some(message) => draft.message = message.strip_prefix(BOM).unwrap_or(message).to_vec(),
        None => traditional(rest, now, &mut draft),
    }
    draft
}

fn text(draft: &mut Draft, name: &str, value: &str) {
    draft.attribute(name, PushValue::Text(value.to_owned()));
}

/// `<34>`
fn priority(line: &[u8]) -> Option<(u8, &[u8])> {
    let rest = line.strip_prefix(b"<")?;
    let end = rest.iter().take(4).position(|byte| *byte == b'>')?;
    let digits = std::str::from_utf8(&rest[..end]).ok()?;
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let priority: u8 = digits.parse().ok().filter(|priority| is_number && *priority < 192)?;
    Some((priority, &rest[end + 1..]))
}

/// The word at the beginning, and what stands behind the space after it.
fn word(rest: &[u8]) -> Option<(&str, &[u8])> {
    let end = memchr::memchr(b' ', rest)?;
    Some((std::str::from_utf8(&rest[..end]).ok().filter(|word| !word.is_empty())?, &rest[end + 1..]))
}

/// What follows `<PRI>1 `; answers the message, or nothing if it is no header, and then the draft is as it was.
fn header<'l>(rest: &'l [u8], draft: &mut Draft) -> Option<&'l [u8]> {
    let (time, rest) = word(rest)?;
    let (host, rest) = word(rest)?;
    let (app, rest) = word(rest)?;
    let (process, rest) = word(rest)?;
    // Nothing need follow structured data.
    let (id, rest) = word(rest)?;
    let time = if time == "-" { None } else { Some(LogTime::parse_rfc3339(time)?) };
    let (data, message) = structured(rest)?;
    draft.time_ns = time.map(|time| time.0);
    let said = |value: &str| value != "-";
    if said(host) {
        draft.identity.offer(Names::Any, "node", host);
    }
    if said(app) {
        draft.identity.offer(Names::Any, "service", app);
    }
    for (name, value) in [("log.syslog.procid", process), ("log.syslog.msgid", id)] {
        if said(value) {
            text(draft, name, value);
        }
    }
    for (name, value) in data {
        text(draft, &format!("log.syslog.structured_data.{name}"), &value);
    }
    Some(message)
}

type Data = Vec<(String, String)>;

/// `-`, or elements in brackets; and the message behind.
fn structured(rest: &[u8]) -> Option<(Data, &[u8])> {
    let mut data = Vec::new();
    let mut rest = rest;
    if let Some(behind) = rest.strip_prefix(b"-") {
        rest = behind;
    } else {
        while let Some(element) = rest.strip_prefix(b"[") {
            rest = self::element(element, &mut data)?;
        }
        if data.is_empty() {
            return None;
        }
    }
    if rest.is_empty() { Some((data, rest)) } else { Some((data, rest.strip_prefix(b" ")?)) }
}

/// What follows `[`; answers what follows `]`.
fn element<'l>(element: &'l [u8], data: &mut Data) -> Option<&'l [u8]> {
    let end = element.iter().position(|byte| matches!(byte, b' ' | b']'))?;
    let id = std::str::from_utf8(&element[..end]).ok().filter(|id| !id.is_empty())?;
    let mut rest = &element[end..];
    if rest.starts_with(b"]") {
        data.push((id.to_owned(), String::new()));
    }
    loop {
        if let Some(behind) = rest.strip_prefix(b"]") {
            return Some(behind);
        }
        rest = rest.strip_prefix(b" ")?;
        let equals = memchr::memchr(b'=', rest)?;
        let name = std::str::from_utf8(&rest[..equals]).ok().filter(|name| !name.is_empty())?;
        rest = rest[equals + 1..].strip_prefix(b"\"")?;
        let mut value = Vec::new();
        loop {
            let (byte, behind) = rest.split_first()?;
            rest = behind;
            match (byte, behind.first()) {
                (b'"', _) => break,
                (b'\\', Some(escaped @ (b'"' | b'\\' | b']'))) => {
                    value.push(*escaped);
                    rest = &behind[1..];
                }
                _ => value.push(*byte),
            }
        }
        data.push((format!("{id}.{name}"), String::from_utf8_lossy(&value).into_owned()));
    }
}

/// What follows `<PRI>` of older senders.
fn traditional(rest: &[u8], now: LogTime, draft: &mut Draft) {
    let Some((time, behind)) = old_time(rest, now).or_else(|| new_time(rest)) else {
        return tagged(rest, draft);
    };
    draft.time_ns = Some(time);
    // A sender on this machine says no host: the word is the tag then.
    let host = word(behind).filter(|(host, _)| !host.ends_with(':') && !host.contains('['));
    if let Some((host, _)) = host {
        draft.identity.offer(Names::Any, "node", host);
    }
    tagged(host.map_or(behind, |(_, behind)| behind), draft);
}

/// `Mmm dd hh:mm:ss `, perhaps with a year or a fraction of the second, in UTC since it says no zone.
fn old_time(rest: &[u8], now: LogTime) -> Option<(i64, &[u8])> {
    let (name, date) = rest.split_first_chunk::<3>()?;
    let month = (1..).zip(MONTHS).find(|(_, one)| *one == name)?.0;
    let end =
        date.iter().take(40).enumerate().filter(|(_, byte)| **byte == b':').map(|(at, _)| at).nth(1)? + 3;
    let parts = std::str::from_utf8(date.get(..end)?).ok()?;
    let mut parts = parts.split_ascii_whitespace().rev();
    let clock = chrono::NaiveTime::parse_from_str(parts.next()?, "%H:%M:%S").ok()?;
    let (second, first) = (parts.next()?, parts.next());
    let (day, year) = first.map_or((second, None), |day| (day, Some(second)));
    let day: u32 = day.parse().ok().filter(|_| parts.next().is_none())?;
    let mut behind = &date[end..];
    let mut nanos = 0;
    if let Some(fraction) = behind.strip_prefix(b".") {
        let digits = fraction.iter().take(9).take_while(|byte| byte.is_ascii_digit()).count();
        let text = std::str::from_utf8(&fraction[..digits]).ok()?;
        nanos = format!("{text:0<9}").parse().ok()?;
        behind = &fraction[digits..];
    }
    let at = |year: i32| {
        let day: NaiveDateTime = NaiveDate::from_ymd_opt(year, month, day)?.and_time(clock);
        Some(day.and_utc().timestamp_nanos_opt()?.saturating_add(nanos))
    };
    let time = if let Some(year) = year {
        at(year.parse().ok().filter(|year| (1970..2200).contains(year))?)?
    } else {
        // The year that brings it nearest: a line of December may come in January.
        let present = DateTime::from_timestamp_nanos(now.0).year();
        let years = [present, present - 1, present + 1].into_iter().filter_map(at);
        years.min_by_key(|time| time.abs_diff(now.0))?
    };
    let behind = behind.strip_prefix(b":").unwrap_or(behind);
    Some((time, behind.strip_prefix(b" ")?))
}

fn new_time(rest: &[u8]) -> Option<(i64, &[u8])> {
    let (time, behind) = word(rest)?;
    Some((LogTime::parse_rfc3339(time)?.0, behind))
}

/// Longest tag; RFC 3164 says 32 bytes, and is not heard.
const TAG_MAX_BYTES: usize = 128;

/// `TAG[PID]: MESSAGE`, or a message without a tag.
fn tagged(rest: &[u8], draft: &mut Draft) {
    match tag(rest) {
        Some((tag, process, message)) => {
            draft.identity.offer(Names::Any, "service", tag);
            if !process.is_empty() {
                text(draft, "log.syslog.procid", process);
            }
            draft.message = message.to_vec();
        }
        None => draft.message = rest.to_vec(),
    }
}

fn tag(rest: &[u8]) -> Option<(&str, &str, &[u8])> {
    let limit = &rest[..rest.len().min(TAG_MAX_BYTES)];
    let end = limit.iter().position(|byte| matches!(byte, b':' | b'[' | b' '))?;
    let tag = std::str::from_utf8(&rest[..end]).ok().filter(|tag| !tag.is_empty())?;
    let (process, behind) = match rest[end..].strip_prefix(b"[") {
        Some(inner) => {
            let close = inner.iter().take(TAG_MAX_BYTES).position(|byte| *byte == b']')?;
            (std::str::from_utf8(&inner[..close]).ok()?, &inner[close + 1..])
        }
        None => ("", &rest[end..]),
    };
    let message = behind.strip_prefix(b":")?;
    // `http://…` is no tag.
    let message = if message.is_empty() { message } else { message.strip_prefix(b" ")? };
    Some((tag, process, message))
}
