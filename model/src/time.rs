//! Moments and spans, and how Prometheus writes them.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};

/// A moment: Unix milliseconds, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Timestamp(pub i64);

/// A moment of the log side: Unix nanoseconds, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct LogTime(pub i64);

/// A span of time, inclusive at both ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeRange {
    /// The first moment in it.
    pub start: Timestamp,
    /// The last moment in it.
    pub end: Timestamp,
}

/// Where time comes from. Loops take one; functions take the moment itself.
pub trait Clock: Send + Sync {
    /// The present, in nanoseconds.
    fn now_ns(&self) -> LogTime;

    /// The present.
    fn now(&self) -> Timestamp {
        self.now_ns().to_timestamp()
    }

    /// Time that has passed since some moment, whatever is done to the clock's hands meanwhile.
    fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.now_ns().0.max(0).cast_unsigned())
    }
}

impl Timestamp {
    /// Later by `span`, which may not leave the range of the type.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(millis(span)))
    }

    /// Earlier by `span`.
    #[must_use]
    pub fn minus(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(millis(span)))
    }

    /// Unix seconds.
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1000.0
    }

    /// The moment `seconds` after 1970; `None` outside of the type's range.
    pub fn from_secs_f64(seconds: f64) -> Option<Self> {
        let millis = (seconds * 1000.0).round();
        // A little more than the calendar has, and far from where sums of times overflow.
        (millis.abs() < 9e15).then_some(Self(millis as i64))
    }

    /// The same moment on the log side.
    pub fn to_log_time(self) -> LogTime {
        LogTime(self.0.saturating_mul(1_000_000))
    }

    /// RFC 3339 with milliseconds, or the bare number outside of the calendar.
    pub fn to_rfc3339(self) -> String {
        match DateTime::<Utc>::from_timestamp_millis(self.0) {
            Some(time) => time.to_rfc3339_opts(SecondsFormat::AutoSi, true),
            None => self.0.to_string(),
        }
    }

    /// Reads RFC 3339, or Unix seconds with a fraction, as Prometheus's API does.
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(seconds) = text.parse::<f64>() {
            return Self::from_secs_f64(seconds);
        }
        let time = DateTime::parse_from_rfc3339(text).ok()?;
        Some(Self(time.timestamp_millis()))
    }
}

impl LogTime {
    /// The same moment on the metrics side, rounded towards the past.
    pub fn to_timestamp(self) -> Timestamp {
        Timestamp(self.0.div_euclid(1_000_000))
    }

    /// RFC 3339 with nanoseconds.
    pub fn to_rfc3339(self) -> String {
        DateTime::<Utc>::from_timestamp_nanos(self.0).to_rfc3339_opts(SecondsFormat::Nanos, true)
    }

    /// Reads RFC 3339 with up to nine digits of a second's fraction.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        DateTime::parse_from_rfc3339(text).ok()?.timestamp_nanos_opt().map(Self)
    }

    /// Reads RFC 3339, Unix seconds with a fraction, or Unix nanoseconds, as Loki's API does.
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(number) = text.parse::<i64>() {
            // Ten digits are seconds until the year 2286; nanoseconds have nineteen.
            let unit = match number.unsigned_abs() {
                ..100_000_000_000 => 1_000_000_000,
                100_000_000_000..100_000_000_000_000 => 1_000_000,
                100_000_000_000_000..100_000_000_000_000_000 => 1_000,
                100_000_000_000_000_000.. => 1,
            };
            return number.checked_mul(unit).map(Self);
        }
        if let Ok(seconds) = text.parse::<f64>() {
            return (seconds.abs() < 9.2e9).then_some(Self((seconds * 1e9) as i64));
        }
        Self::parse_rfc3339(text)
    }

    /// Later by `span`, which may not leave the range of the type.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)))
    }

    /// Earlier by `span`.
    #[must_use]
    pub fn minus(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)))
    }
}

impl TimeRange {
    /// Whether `at` lies in it.
    pub fn contains(self, at: Timestamp) -> bool {
        self.start <= at && at <= self.end
    }

    /// Whether a moment lies in both.
    pub fn overlaps(self, other: Self) -> bool {
        self.start <= other.end && other.start <= self.end
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_rfc3339())
    }
}

/// `span` in whole milliseconds, at most [`i64::MAX`].
pub fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

const UNITS: [(&str, u64); 7] = [
    ("y", 365 * 24 * 3600 * 1000),
    ("w", 7 * 24 * 3600 * 1000),
    ("d", 24 * 3600 * 1000),
    ("h", 3600 * 1000),
    ("m", 60 * 1000),
    ("s", 1000),
    ("ms", 1),
];

/// Reads a duration as Prometheus writes it: `1h30m`, `45d`, `500ms`; each unit once, from large to
/// small. `0` alone needs no unit.
///
/// # Errors
/// A sentence that names the text and what is wrong with it.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let refuse = || format!("not a valid duration string: {text:?} (write it as 1h30m, 45d or 500ms)");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut total: u64 = 0;
    let mut next_unit = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().map_err(|_| refuse())?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_lowercase).count();
        let at = UNITS.iter().position(|(unit, _)| *unit == &rest[..letters]).ok_or_else(refuse)?;
        if at < next_unit {
            return Err(refuse());
        }
        next_unit = at + 1;
        rest = &rest[letters..];
        let part = number.checked_mul(UNITS[at].1).ok_or_else(refuse)?;
        total = total.checked_add(part).ok_or_else(refuse)?;
    }
    if text.is_empty() || total > i64::MAX as u64 / 1_000_000 {
        return Err(refuse());
    }
    Ok(Duration::from_millis(total))
}

/// Writes a duration as Prometheus does: `1h30m`. Weeks and years only where they divide exactly.
pub fn format_duration(span: Duration) -> String {
    let mut rest = span.as_millis() as u64;
    if rest == 0 {
        return "0s".to_owned();
    }
    let mut out = String::new();
    for (unit, size) in UNITS {
        let exact_only = matches!(unit, "y" | "w" | "d");
        if rest < size || (exact_only && !rest.is_multiple_of(size)) {
            continue;
        }
        out.push_str(&format!("{}{unit}", rest / size));
        rest %= size;
    }
    out
}

/// Serde for a duration in Prometheus's words; use as `#[serde(with = "prometheus_duration")]`.
pub mod prometheus_duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    /// Reads `1h30m`.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(from)?;
        super::parse_duration(&text).map_err(serde::de::Error::custom)
    }

    /// Writes `1h30m`.
    pub fn serialize<S: Serializer>(span: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&super::format_duration(*span))
    }
}

/// As [`prometheus_duration`], for a key that may be absent.
pub mod optional_duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer};

    /// Reads `1h30m` or nothing.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| super::parse_duration(&text).map_err(serde::de::Error::custom)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, want_ms: u64, printed: &str) {
        let span = parse_duration(text).unwrap();
        assert_eq!(span, Duration::from_millis(want_ms), "{text}");
        assert_eq!(format_duration(span), printed, "{text}");
    }

    /// The cases of Prometheus's own `model/time_test.go`, in substance.
    #[test]
    fn durations_read_and_print_as_prometheus_does() {
        check("0", 0, "0s");
        check("0w", 0, "0s");
        check("324ms", 324, "324ms");
        check("3s", 3000, "3s");
        check("5m", 300_000, "5m");
        check("1h", 3_600_000, "1h");
        check("4d", 4 * 86_400_000, "4d");
        check("4d1h", 4 * 86_400_000 + 3_600_000, "97h");
        check("14d", 14 * 86_400_000, "2w");
        check("3w2d1h", (23 * 24 + 1) * 3_600_000, "553h");
        check("10y", 10 * 365 * 86_400_000, "10y");
        check("1h30m5s20ms", 5_405_020, "1h30m5s20ms");
    }

    #[test]
    fn bad_durations_are_refused() {
        for text in ["", "1", "1y1m1d", "-1w", "1.5d", "d", "1h1h", "99999999999y", "1mm"] {
            assert!(parse_duration(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn moments_parse_from_seconds_and_rfc3339() {
        assert_eq!(Timestamp::parse("1.5"), Some(Timestamp(1500)));
        assert_eq!(Timestamp::parse("1970-01-01T00:00:01Z"), Some(Timestamp(1000)));
        assert_eq!(Timestamp::parse("NaN"), None);
        assert_eq!(Timestamp::parse("soon"), None);
        assert_eq!(LogTime::parse("1700000000"), Some(LogTime(1_700_000_000_000_000_000)));
        assert_eq!(LogTime::parse("1700000000000000001"), Some(LogTime(1_700_000_000_000_000_001)));
        assert_eq!(LogTime::parse("1700000000123"), Some(LogTime(1_700_000_000_123_000_000)));
        assert_eq!(LogTime::parse("20000000000"), None);
        assert_eq!(LogTime::parse("-9223372036854775808"), Some(LogTime(i64::MIN)));
        assert_eq!(LogTime(-1).to_timestamp(), Timestamp(-1));
    }
}
