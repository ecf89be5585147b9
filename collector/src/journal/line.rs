//! What an entry says: whose it is, how bad, when, and what came beside the message.
//!
//! Fields that begin with `_` come from journald, and from them alone it is decided whose an entry is. All others are
//! the sender's words.

use std::borrow::Cow;

use binnacle_model::log::{MESSAGE_NAMES, STREAM_FIELDS};
use binnacle_model::meaning::{self, Said};

use super::file::{Entry, hex};
use crate::tail::fits;

/// Attributes of a line at most; others are left out.
const ATTRIBUTES_MAX: usize = 32;

/// Longest value of an attribute; of a longer one the beginning is kept.
const VALUE_MAX_BYTES: usize = 4096;

/// Longest name of a service.
const SERVICE_MAX_BYTES: usize = 64;

/// A sender's clock may be ahead of journald's by so many microseconds; what is further ahead is not believed.
const AHEAD_MAX_US: u64 = 600_000_000;

/// What journald says of a sender, under the names of attributes.
const TRUSTED: [(&str, &str); 6] = [
    ("_TRANSPORT", "transport"),
    ("_PID", "pid"),
    ("_UID", "uid"),
    ("_COMM", "comm"),
    ("_SYSTEMD_USER_UNIT", "user_unit"),
    ("_KERNEL_DEVICE", "kernel_device"),
];

/// Fields of senders that say nothing more than others do.
const LEFT_OUT: [&str; 11] = [
    "MESSAGE",
    "PRIORITY",
    "SYSLOG_FACILITY",
    "SYSLOG_PID",
    "SYSLOG_TIMESTAMP",
    "SYSLOG_RAW",
    "CODE_FILE",
    "CODE_LINE",
    "CODE_FUNC",
    "TID",
    "INVOCATION_ID",
];

/// Which units are read: names may hold `*`, with their kind (`ssh.service`) or without (`ssh`).
#[derive(Debug, Clone, Default)]
pub struct Units {
    /// If there are any, no others are read.
    pub include: Vec<String>,
    /// These are not.
    pub exclude: Vec<String>,
}

impl Units {
    /// Whether entries of a unit are read.
    pub(crate) fn fits(&self, line: &Line<'_>) -> bool {
        let names =
            |patterns: &[String]| patterns.iter().any(|p| fits(p, &line.service) || fits(p, line.unit));
        (self.include.is_empty() || names(&self.include)) && !names(&self.exclude)
    }
}

/// A value beside the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Text(Cow<'a, str>),
    Int(i64),
}

/// An entry as a line of a log.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    pub(crate) time_ns: i64,
    pub(crate) message: &'a [u8],
    /// Of the message in all, if less is kept of it; zero if it is not known.
    pub(crate) cut_of: Option<u64>,
    pub(crate) level: &'static str,
    /// The unit without what changes from one start to the next; of the kernel `kernel`.
    pub(crate) service: Cow<'a, str>,
    /// With its kind; empty for what belongs to none.
    pub(crate) unit: &'a str,
    pub(crate) attributes: Vec<(Cow<'a, str>, Value<'a>)>,
}

/// Reads an entry.
pub(crate) fn line(entry: &Entry) -> Line<'_> {
    let text = |name: &str| entry.value(name).and_then(|(value, _)| std::str::from_utf8(value).ok());
    let (message, full) = entry.value("MESSAGE").unwrap_or((b"", Some(0)));
    let unit = unit_of(&text);
    let service = service_of(unit, &text);
    let cut_of = match full {
        Some(full) if full > message.len() as u64 => Some(full),
        Some(_) => None,
        None => Some(0),
    };
    let said_us = text("_SOURCE_REALTIME_TIMESTAMP").and_then(|time| time.parse::<u64>().ok());
    let is_possible = |us: &u64| *us > 0 && *us <= entry.realtime_us.saturating_add(AHEAD_MAX_US);
    let time_us = said_us.filter(is_possible).unwrap_or(entry.realtime_us);
    let time_ns = i64::try_from(time_us).unwrap_or(i64::MAX).saturating_mul(1000);
    let level = level_of(message, text("PRIORITY"));
    let mut line = Line { time_ns, message, cut_of, level, service, unit, attributes: Vec::new() };
    line.attributes = attributes(entry, unit);
    line
}

/// The unit that a message is of. What the service manager says of one is that one's, as in `journalctl -u`.
fn unit_of<'a>(text: &impl Fn(&str) -> Option<&'a str>) -> &'a str {
    let about = text("UNIT").filter(|_| text("_PID") == Some("1"));
    about.or_else(|| text("_SYSTEMD_UNIT")).unwrap_or_default()
}

fn service_of<'a>(unit: &'a str, text: &impl Fn(&str) -> Option<&'a str>) -> Cow<'a, str> {
    if text("_TRANSPORT") == Some("kernel") {
        return Cow::Borrowed("kernel");
    }
    let is_name = |name: &&str| {
        (1..=SERVICE_MAX_BYTES).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.@:/".contains(&b))
    };
    let of_unit = service_of_unit(unit);
    let found = Some(of_unit).filter(is_name);
    let found = found.or_else(|| text("SYSLOG_IDENTIFIER").filter(is_name));
    Cow::Borrowed(found.or_else(|| text("_COMM").filter(is_name)).unwrap_or("journal"))
}

/// A unit's name without its kind, its instance, and what is made up for one run: `user@1000.service` is `user`,
/// `session-12.scope` is `session`, `cri-containerd-0a1b….scope` is `cri-containerd`.
fn service_of_unit(unit: &str) -> &str {
    let (name, kind) = unit.rsplit_once('.').unwrap_or((unit, ""));
    let name = name.split_once('@').map_or(name, |(template, _)| template);
    let is_made_up = kind == "scope" || name.starts_with("run-");
    let Some((rest, last)) = name.rsplit_once('-').filter(|_| is_made_up) else { return name };
    let hex = last.trim_start_matches(['r', 'u', 'p']);
    let is_number = !hex.is_empty() && hex.bytes().all(|b| b.is_ascii_hexdigit() || b == b'i');
    if is_number { rest } else { name }
}

/// What a message says in a form that names its level (klog, JSON, logfmt); else the priority that the sender gave;
/// else, because 6 is what everything has that gave none, a word in the text.
fn level_of(message: &[u8], priority: Option<&str>) -> &'static str {
    let Said { level, is_structured } = meaning::said(message);
    let given = match priority {
        Some("0" | "1" | "2") => "fatal",
        Some("3") => "error",
        Some("4") => "warn",
        Some("5" | "6") => "info",
        Some("7") => "debug",
        _ => "",
    };
    let is_default = matches!(priority, Some("6") | None);
    if !level.is_empty() && (is_structured || is_default) { level } else { given }
}

fn attributes<'a>(entry: &'a Entry, unit: &'a str) -> Vec<(Cow<'a, str>, Value<'a>)> {
    let mut found = Vec::with_capacity(8);
    if !unit.is_empty() {
        found.push((Cow::Borrowed("unit"), Value::Text(Cow::Borrowed(unit))));
    }
    // What journald says itself comes first: a sender's fields do not push it out.
    let is_trusted = |(name, _): &(&[u8], &[u8])| name.starts_with(b"_");
    let fields = entry.fields().filter(is_trusted).chain(entry.fields().filter(|field| !is_trusted(field)));
    for (name, value) in fields {
        if found.len() >= ATTRIBUTES_MAX {
            break;
        }
        let Ok(name) = std::str::from_utf8(name) else { continue };
        let is_ours = name.starts_with('_');
        let known = TRUSTED.iter().find(|(theirs, _)| *theirs == name).map(|(_, ours)| Cow::Borrowed(*ours));
        let named = known.or_else(|| (!is_ours && !LEFT_OUT.contains(&name)).then(|| lower(name)));
        let Some(named) = named else { continue };
        let kept = &value[..value.len().min(VALUE_MAX_BYTES)];
        let text = String::from_utf8_lossy(kept);
        let number = matches!(name, "_PID" | "_UID").then(|| text.parse().ok()).flatten();
        found.push((named, number.map_or(Value::Text(text), Value::Int)));
    }
    if entry.boot_id != [0; 16] {
        found.push((Cow::Borrowed("boot_id"), Value::Text(Cow::Owned(hex(&entry.boot_id)))));
    }
    if entry.unreadable > 0 {
        found.push((Cow::Borrowed("unreadable_fields"), Value::Int(i64::from(entry.unreadable))));
    }
    found
}

/// A sender's name of a field as an attribute, which is none of the names that mean something else to a query.
fn lower(name: &str) -> Cow<'static, str> {
    let lower = name.to_ascii_lowercase();
    let means_more = STREAM_FIELDS.contains(&&*lower)
        || MESSAGE_NAMES.contains(&&*lower)
        || TRUSTED.iter().any(|(_, ours)| *ours == lower)
        || ["unit", "boot_id", "unreadable_fields"].contains(&&*lower);
    Cow::Owned(if means_more { format!("journal.{lower}") } else { lower })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_do_not_change_with_each_start() {
        for (unit, service) in [
            ("kubelet.service", "kubelet"),
            ("user@1000.service", "user"),
            ("postgresql@15-main.service", "postgresql"),
            ("session-12.scope", "session"),
            ("session-c3.scope", "session"),
            ("init.scope", "init"),
            ("cri-containerd-0a1b2c3d4e5f0a1b.scope", "cri-containerd"),
            ("run-r0f3ba1e7.service", "run"),
            ("run-u17.service", "run"),
            ("run-p42-i77.service", "run-p42"),
            ("systemd-networkd.service", "systemd-networkd"),
            ("web-2.service", "web-2"),
            ("dbus.socket", "dbus"),
            ("", ""),
        ] {
            assert_eq!(service_of_unit(unit), service, "{unit}");
        }
    }

    #[test]
    fn levels_are_those_of_the_form_then_of_the_sender_then_of_a_word() {
        for (message, priority, level) in [
            ("I1121 10:00:00.000000 1 a.go:1] x", Some("3"), "info"),
            ("{\"level\":\"debug\"}", Some("6"), "debug"),
            ("level=warn msg=x", Some("3"), "warn"),
            ("2026-11-21 ERROR boom", Some("6"), "error"),
            ("2026-11-21 ERROR boom", None, "error"),
            ("INFO is what it says", Some("2"), "fatal"),
            ("plain", Some("0"), "fatal"),
            ("plain", Some("4"), "warn"),
            ("plain", Some("5"), "info"),
            ("plain", Some("7"), "debug"),
            ("plain", Some("9"), ""),
            ("plain", None, ""),
        ] {
            assert_eq!(level_of(message.as_bytes(), priority), level, "{message} {priority:?}");
        }
    }
}
