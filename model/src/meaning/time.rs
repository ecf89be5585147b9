//! The time that a line says of itself, where nothing but the line does: JSON, logfmt, klog, and what programs commonly
//! write before a message.

use super::scan::{members, plain_text};
use crate::time::LogTime;

/// How far into a line a time in brackets, or a field of logfmt, may begin.
const WITHIN_BYTES: usize = 160;

/// A line without a year is from the last one in which it is not later than this behind what is known.
const AHEAD_MAX_SECONDS: i64 = 86_400;

const SECOND_NS: i64 = 1_000_000_000;

/// What helps to read a time that does not say all.
#[derive(Debug, Clone, Copy)]
pub struct Around {
    /// The line is not from after this: when its file was changed last.
    pub near: LogTime,
    /// Seconds east of Greenwich, where the line does not say its zone.
    pub zone_seconds: i32,
}

/// The time that a line says, if it is in a form that is known:
///
/// ```text
/// {"ts":1795255200.123,…}                 a field of JSON: stageTimestamp (audit), @timestamp, timestamp, time, ts
/// time=2026-11-21T10:00:00Z level=…       a field of logfmt: time, ts, timestamp
/// I1121 10:00:00.123456   1 a.go:1] …     klog
/// 2026-11-21T10:00:00.123+02:00 …         ISO 8601, also with a blank, a comma, slashes, in brackets
/// Nov 21 10:00:00 host …                  syslog
/// 10.0.0.1 - - [21/Nov/2026:10:00:00 +0000] …   access logs
/// ```
pub fn time(line: &[u8], around: Around) -> Option<LogTime> {
    let line = line.trim_ascii_start();
    let time = match line.first()? {
        b'{' => of_json(line, around),
        b'I' | b'W' | b'E' | b'F' | b'D' if line.get(1)?.is_ascii_digit() => klog(line, around),
        b'[' | b'(' | b'"' => iso(&line[1..], around).or_else(|| access(line)),
        b'0'..=b'9' => iso(line, around).or_else(|| access(line)),
        b'A'..=b'Z' => syslog(line, around).or_else(|| logfmt(line, around)),
        _ => logfmt(line, around).or_else(|| access(line)),
    };
    time.filter(|time| time.0 > 0)
}

fn of_json(line: &[u8], around: Around) -> Option<LogTime> {
    let (mut found, mut received) = (None, None);
    members(line, &mut |name, value| {
        match name {
            b"@timestamp" | b"timestamp" | b"time" | b"ts" | b"stageTimestamp" => {
                found = value_of_json(value, around);
            }
            // The stage stands behind it.
            b"requestReceivedTimestamp" => received = value_of_json(value, around),
            _ => {}
        }
        found.is_none()
    });
    found.or(received)
}

fn value_of_json(value: &[u8], around: Around) -> Option<LogTime> {
    match plain_text(value) {
        Some(text) => iso(text, around).or_else(|| epoch(text)),
        None => epoch(value),
    }
}

/// A number of seconds, milliseconds, microseconds or nanoseconds since 1970, told apart by their size: of a time from
/// 2001 to 2286, so that a mere duration seldom fits.
fn epoch(text: &[u8]) -> Option<LogTime> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_plain = !whole.is_empty() && whole.len() < 20 && whole.bytes().all(|b| b.is_ascii_digit());
    if !is_plain || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        // Such as `1.795255200123e+09`.
        let seconds = text.parse::<f64>().ok().filter(|seconds| (1e9..1e10).contains(seconds))?;
        return Some(LogTime((seconds * 1e6).round() as i64 * 1000));
    }
    let whole: i64 = whole.parse().ok()?;
    let unit = match whole {
        1_000_000_000..10_000_000_000 => SECOND_NS,
        1_000_000_000_000..10_000_000_000_000 => 1_000_000,
        1_000_000_000_000_000..10_000_000_000_000_000 => 1000,
        1_000_000_000_000_000_000.. => 1,
        _ => return None,
    };
    let mut part = 0;
    let mut step = unit;
    for digit in fraction.bytes().take(9) {
        step /= 10;
        part += i64::from(digit - b'0') * step;
    }
    whole.checked_mul(unit)?.checked_add(part).map(LogTime)
}

fn logfmt(line: &[u8], around: Around) -> Option<LogTime> {
    let head = &line[..line.len().min(WITHIN_BYTES)];
    for equals in memchr::memchr_iter(b'=', head) {
        let before = &head[..equals];
        let start = before.iter().rposition(|b| *b == b' ').map_or(0, |at| at + 1);
        if !matches!(&before[start..], b"time" | b"ts" | b"timestamp") {
            continue;
        }
        let value = &line[equals + 1..];
        let value = value.strip_prefix(b"\"").unwrap_or(value);
        let end = value.iter().position(|b| matches!(b, b'"' | b'\t')).unwrap_or(value.len());
        let value = &value[..end];
        let word = value.split(|b| *b == b' ').next().unwrap_or_default();
        return iso(value, around).or_else(|| epoch(word));
    }
    None
}

/// `I1121 10:00:00.123456`.
fn klog(line: &[u8], around: Around) -> Option<LogTime> {
    let date = line.get(1..5)?;
    let rest = line.get(5..)?.strip_prefix(b" ")?;
    let (month, day) = (number(&date[..2])?, number(&date[2..])?);
    let (clock, _) = clock(rest)?;
    without_year(month, day, clock, around)
}

/// `Nov 21 10:00:00`, with a blank before a day of one digit.
fn syslog(line: &[u8], around: Around) -> Option<LogTime> {
    let month = month_named(line.get(..3)?)?;
    let rest = line.get(3..)?.strip_prefix(b" ")?;
    let day = number(rest.get(..2)?.trim_ascii_start())?;
    let (clock, _) = clock(rest.get(2..)?.strip_prefix(b" ")?)?;
    without_year(month, day, clock, around)
}

/// `[21/Nov/2026:10:00:00 +0000]`, somewhere near the beginning.
fn access(line: &[u8]) -> Option<LogTime> {
    let head = &line[..line.len().min(WITHIN_BYTES)];
    let text = &line[memchr::memchr(b'[', head)? + 1..];
    let (day, month, year) = (text.get(..2)?, text.get(3..6)?, text.get(7..11)?);
    if (text[2], text[6], *text.get(11)?) != (b'/', b'/', b':') {
        return None;
    }
    let (clock, rest) = clock(&text[12..])?;
    let zone = zone(rest)?;
    date(number(year)?, month_named(month)?, number(day)?, clock, zone)
}

/// `2026-11-21T10:00:00.123456+02:00`, and what is near it.
fn iso(text: &[u8], around: Around) -> Option<LogTime> {
    let (head, rest) = text.split_at_checked(10)?;
    let is_date = matches!((head[4], head[7]), (b'-', b'-') | (b'/', b'/'));
    if !is_date || !matches!(rest.first()?, b'T' | b't' | b' ' | b'_') {
        return None;
    }
    let (clock, rest) = clock(&rest[1..])?;
    // What follows may be a word of the message.
    let zone = zone(rest).unwrap_or(around.zone_seconds);
    date(number(&head[..4])?, number(&head[5..7])?, number(&head[8..])?, clock, zone)
}

/// `Z`, `+02:00`, `-0530`, ` UTC`, as seconds east of Greenwich.
fn zone(text: &[u8]) -> Option<i32> {
    let text = text.strip_prefix(b" ").unwrap_or(text);
    if text.starts_with(b"Z") || text.starts_with(b"UTC") || text.starts_with(b"GMT") {
        return Some(0);
    }
    let sign = match text.first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let hours = number(text.get(1..3)?)?;
    let minutes = text.get(3..).map(|rest| rest.strip_prefix(b":").unwrap_or(rest));
    let minutes = minutes.and_then(|rest| number(rest.get(..2)?)).unwrap_or(0);
    let is_zone = hours <= 14 && minutes < 60;
    is_zone.then(|| sign * (hours * 3600 + minutes * 60) as i32)
}

/// Nanoseconds of a day.
type Clock = i64;

/// `10:00:00`, with a fraction behind a point or comma, and what stands behind it.
fn clock(text: &[u8]) -> Option<(Clock, &[u8])> {
    let (head, mut rest) = text.split_at_checked(8)?;
    if (head[2], head[5]) != (b':', b':') {
        return None;
    }
    let (hour, minute, second) = (number(&head[..2])?, number(&head[3..5])?, number(&head[6..])?);
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut nanos = 0;
    if let [b'.' | b',', fraction @ ..] = rest
        && fraction.first().is_some_and(u8::is_ascii_digit)
    {
        let digits = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
        let mut step = SECOND_NS;
        for digit in &fraction[..digits.min(9)] {
            step /= 10;
            nanos += i64::from(digit - b'0') * step;
        }
        rest = &fraction[digits..];
    }
    Some(((hour * 3600 + minute * 60 + second) * SECOND_NS + nanos, rest))
}

fn number(digits: &[u8]) -> Option<i64> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    is_number.then(|| digits.iter().fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0')))
}

fn month_named(name: &[u8]) -> Option<i64> {
    const NAMES: [&[u8; 3]; 12] =
        [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
    NAMES.iter().position(|known| *known == name).map(|at| at as i64 + 1)
}

fn date(year: i64, month: i64, day: i64, clock: Clock, zone_seconds: i32) -> Option<LogTime> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        1..=12 => 31,
        _ => return None,
    };
    if !(1971..2200).contains(&year) || !(1..=days).contains(&day) {
        return None;
    }
    let seconds = days_before(year, month, day) * 86_400 - i64::from(zone_seconds);
    Some(LogTime(seconds * SECOND_NS + clock))
}

/// In the last year in which it is not from after what is known.
fn without_year(month: i64, day: i64, clock: Clock, around: Around) -> Option<LogTime> {
    let latest = around.near.0.saturating_add(AHEAD_MAX_SECONDS * SECOND_NS);
    let year = 1970 + latest / SECOND_NS / 31_556_952;
    // A leap day may be eight years ago.
    let years = (year - 8..=year + 1).rev();
    let times = years.filter_map(|year| date(year, month, day, clock, around.zone_seconds));
    times.into_iter().find(|time| time.0 <= latest)
}

/// Days from 1970 to a date of the Gregorian calendar, with years that begin in March.
fn days_before(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month < 3);
    let months = (month + 9) % 12;
    365 * year + year / 4 - year / 100 + year / 400 + (153 * months + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-21T12:00:00Z.
    const NEAR: LogTime = LogTime(1_795_262_400_000_000_000);

    fn said(line: &str, zone_seconds: i32) -> Option<String> {
        time(line.as_bytes(), Around { near: NEAR, zone_seconds }).map(LogTime::to_rfc3339)
    }

    #[test]
    fn times_of_common_forms() {
        for (line, want) in [
            (r#"{"level":"info","ts":1795255200.123456,"msg":"x"}"#, "2026-11-21T10:00:00.123456Z"),
            (r#"{"ts":1.795255200123e+09}"#, "2026-11-21T10:00:00.123Z"),
            (r#"{"time":1795255200123,"x":1}"#, "2026-11-21T10:00:00.123Z"),
            (r#"{"time":1795255200123456}"#, "2026-11-21T10:00:00.123456Z"),
            (r#"{"time":"1795255200123456789"}"#, "2026-11-21T10:00:00.123456789Z"),
            (
                r#"{"x":{"time":"2020-01-01T00:00:00Z"},"@timestamp":"2026-11-21T10:00:00.5Z"}"#,
                "2026-11-21T10:00:00.5Z",
            ),
            (r#"{"timestamp":"2026-11-21 10:00:00,250"}"#, "2026-11-21T10:00:00.25Z"),
            (
                r#"{"requestReceivedTimestamp":"2026-11-21T10:00:00.1Z","stageTimestamp":"2026-11-21T10:00:00.2Z"}"#,
                "2026-11-21T10:00:00.2Z",
            ),
            (r#"{"requestReceivedTimestamp":"2026-11-21T10:00:00.1Z"}"#, "2026-11-21T10:00:00.1Z"),
            ("time=\"2026-11-21T10:00:00.006Z\" level=warning msg=x", "2026-11-21T10:00:00.006Z"),
            ("level=info ts=2026-11-21T10:00:00.006+02:00 msg=x", "2026-11-21T08:00:00.006Z"),
            ("level=info timestamp=1795255200 msg=x", "2026-11-21T10:00:00Z"),
            ("I1121 10:00:00.123456   1 a.go:1] x", "2026-11-21T10:00:00.123456Z"),
            ("E1122 11:59:59.000000   1 a.go:1] x", "2026-11-22T11:59:59Z"),
            ("W1231 23:59:59.999999   1 a.go:1] x", "2025-12-31T23:59:59.999999Z"),
            ("F0229 00:00:00.000000   1 a.go:1] x", "2024-02-29T00:00:00Z"),
            ("2026-11-21T10:00:00Z x", "2026-11-21T10:00:00Z"),
            ("2026-11-21 10:00:00,123 ERROR x", "2026-11-21T10:00:00.123Z"),
            ("2026-11-21 10:00:00.123456789 -0530 x", "2026-11-21T15:30:00.123456789Z"),
            ("[2026-11-21T10:00:00.1Z] x", "2026-11-21T10:00:00.1Z"),
            ("2026/11/21 10:00:00 [error] 7#7: x", "2026-11-21T10:00:00Z"),
            ("Nov 21 10:00:00 node-1 sshd[1]: x", "2026-11-21T10:00:00Z"),
            ("Dec  1 10:00:00 node-1 sshd[1]: x", "2025-12-01T10:00:00Z"),
            ("10.0.0.1 - - [21/Nov/2026:10:00:00 +0100] \"GET / HTTP/1.1\" 200", "2026-11-21T09:00:00Z"),
            ("::1 - - [21/Nov/2026:10:00:00 +0000] \"GET /\"", "2026-11-21T10:00:00Z"),
        ] {
            let want = LogTime::parse_rfc3339(want).unwrap().to_rfc3339();
            assert_eq!(said(line, 0).as_deref(), Some(&*want), "{line}");
        }
        assert_eq!(said("I1121 10:00:00.000000 1 a.go:1] x", 7200), said("2026-11-21T08:00:00Z", 0));
        assert_eq!(said("2026-11-21 10:00:00 x", -3600), said("2026-11-21T11:00:00Z", 0));
        assert_eq!(said("2026-11-21 10:00:00Z x", -3600), said("2026-11-21T10:00:00Z", 0));
    }

    #[test]
    fn other_lines_say_none() {
        for line in [
            "",
            "hello",
            "{}",
            r#"{"time":"soon"}"#,
            r#"{"ts":7}"#,
            r#"{"time":150000000,"unit":"ns"}"#,
            r#"{"time":0.25}"#,
            r#"{"time":null"#,
            "2026-13-21T10:00:00Z",
            "2026-02-30 10:00:00",
            "2026-11-21 and so on",
            "2026-11-21",
            "I1321 10:00:00.0 1 a.go:1] x",
            "In the beginning",
            "Nov 21 was a day",
            "uptime=5 runtime=7",
            "1234567890",
            "1970-01-01T00:00:00Z",
        ] {
            assert_eq!(said(line, 0), None, "{line}");
        }
    }

    #[test]
    fn headers_of_klog_are_read_as_klog_says() {
        let shared = std::env::var("BINNACLE_SHARED").unwrap_or_else(|_| "../../shared".to_owned());
        let path = format!("{shared}/real/logs/klog/cases.json");
        let Ok(text) = std::fs::read(&path) else {
            println!("SKIPPED 1: {path} is not there");
            return;
        };
        let cases: serde_json::Value = serde_json::from_slice(&text).unwrap();
        for case in cases["cases"].as_array().unwrap() {
            let (line, want) = (case["line"].as_str().unwrap(), &case["expected"]);
            let said = klog(line.as_bytes(), Around { near: NEAR, zone_seconds: 0 });
            let Some(clock) = want["time"].as_str() else {
                assert_eq!(said, None, "{line}");
                continue;
            };
            let (month, day) = (want["month"].as_i64().unwrap(), want["day"].as_i64().unwrap());
            let want = LogTime::parse_rfc3339(&format!("2024-{month:02}-{day:02}T{clock}Z")).unwrap();
            let (said, want) = (said.unwrap().to_rfc3339(), want.to_rfc3339());
            assert_eq!(said[4..], want[4..], "{line}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_a_general_parser_reads_is_read_alike(seconds in 40_000_000i64..7_200_000_000, nanos in 0u32..1_000_000_000) {
            let text = chrono::DateTime::from_timestamp(seconds, nanos).unwrap().to_rfc3339();
            let found = time(text.as_bytes(), Around { near: NEAR, zone_seconds: 60 });
            proptest::prop_assert_eq!(found, LogTime::parse_rfc3339(&text));
        }

        #[test]
        fn no_line_panics(line in "([\\[{\"IWE]|Nov )?[0-9TZ:., \"=/\\[\\]{}a-z+-]{0,60}") {
            let _ = time(line.as_bytes(), Around { near: NEAR, zone_seconds: 0 });
        }
    }
}
