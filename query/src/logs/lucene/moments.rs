//! Moments as people write them: `now-1h`, `now/d`, `2026-11-20`, RFC 3339.

use std::ops::Bound;

use binnacle_model::LogTime;
use chrono::{DateTime, Datelike, Days, Months, NaiveDate, NaiveDateTime, NaiveTime, Timelike, Utc};

/// A moment, or the span that a date leaves open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) start: LogTime,
    /// Where the day, the hour or the like ends; `None` for a moment.
    pub(super) end: Option<LogTime>,
}

impl Moment {
    /// Reads a moment.
    pub(super) fn parse(text: &str, now: LogTime) -> Option<Self> {
        match text.strip_prefix("now") {
            Some(steps) => relative(steps, DateTime::from_timestamp_nanos(now.0)),
            None => absolute(text),
        }
    }

    /// Reads a moment, or a Unix time in any unit.
    pub(super) fn parse_any(text: &str, now: LogTime) -> Option<Self> {
        let instant = || LogTime::parse(text).map(|start| Self { start, end: None });
        Self::parse(text, now).or_else(instant)
    }

    /// From here on, or from behind it.
    pub(super) fn as_low(self, is_inclusive: bool) -> Bound<LogTime> {
        match (is_inclusive, self.end) {
            (true, _) => Bound::Included(self.start),
            (false, None) => Bound::Excluded(self.start),
            (false, Some(end)) => Bound::Included(end),
        }
    }

    /// Up to here, or to before it. A day that is included is included as a whole.
    pub(super) fn as_high(self, is_inclusive: bool) -> Bound<LogTime> {
        match (is_inclusive, self.end) {
            (true, None) => Bound::Included(self.start),
            (true, Some(end)) => Bound::Excluded(end),
            (false, _) => Bound::Excluded(self.start),
        }
    }
}

/// Moments that nanoseconds do not reach are the first or the last one.
fn clamped(time: DateTime<Utc>) -> LogTime {
    let edge = if time.year() < 1970 { i64::MIN } else { i64::MAX };
    LogTime(time.timestamp_nanos_opt().unwrap_or(edge))
}

fn absolute(text: &str) -> Option<Moment> {
    if !text.starts_with(|c: char| c.is_ascii_digit()) || text.len() < 10 {
        return None;
    }
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(Moment { start: clamped(time.to_utc()), end: None });
    }
    if let Ok(date) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        return span(date.and_time(NaiveTime::MIN).and_utc(), Unit::Day);
    }
    let text = text.replacen(' ', "T", 1);
    if let Ok(minute) = NaiveDateTime::parse_from_str(&text, "%Y-%m-%dT%H:%M") {
        return span(minute.and_utc(), Unit::Minute);
    }
    let time = NaiveDateTime::parse_from_str(&text, "%Y-%m-%dT%H:%M:%S%.f").ok()?;
    Some(Moment { start: clamped(time.and_utc()), end: None })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Year,
    Month,
    Week,
    Day,
    Hour,
    Minute,
    Second,
    Milli,
}

impl Unit {
    /// By Elasticsearch's letters.
    fn of(letters: &str) -> Option<Self> {
        Some(match letters {
            "y" => Self::Year,
            "M" => Self::Month,
            "w" => Self::Week,
            "d" => Self::Day,
            "h" | "H" => Self::Hour,
            "m" => Self::Minute,
            "s" => Self::Second,
            "ms" => Self::Milli,
            _ => return None,
        })
    }

    fn seconds(self) -> i64 {
        match self {
            Self::Week => 7 * 24 * 3600,
            Self::Day => 24 * 3600,
            Self::Hour => 3600,
            Self::Minute => 60,
            _ => 1,
        }
    }
}

/// `-1h30m`, `+2d`, `/d`, one behind the other.
fn relative(mut steps: &str, mut time: DateTime<Utc>) -> Option<Moment> {
    let mut rounded = None;
    while let Some(sign) = steps.chars().next() {
        steps = &steps[sign.len_utf8()..];
        rounded = None;
        match sign {
            '/' => {
                let unit;
                (unit, steps) = letters(steps)?;
                time = floor(time, unit)?;
                rounded = Some(unit);
            }
            '+' | '-' => {
                let mut is_first = true;
                while is_first || steps.starts_with(|c: char| c.is_ascii_digit()) {
                    is_first = false;
                    let digits = steps.bytes().take_while(u8::is_ascii_digit).count();
                    let count: u32 = steps[..digits].parse().ok()?;
                    let unit;
                    (unit, steps) = letters(&steps[digits..])?;
                    time = shift(time, unit, count, sign == '-')?;
                }
            }
            _ => return None,
        }
    }
    match rounded {
        Some(unit) => span(time, unit),
        None => Some(Moment { start: clamped(time), end: None }),
    }
}

fn letters(text: &str) -> Option<(Unit, &str)> {
    let length = text.bytes().take_while(u8::is_ascii_alphabetic).count();
    Some((Unit::of(&text[..length])?, &text[length..]))
}

fn shift(time: DateTime<Utc>, unit: Unit, count: u32, is_back: bool) -> Option<DateTime<Utc>> {
    let months = match unit {
        Unit::Year => Months::new(count.checked_mul(12)?),
        Unit::Month => Months::new(count),
        _ => {
            let span = if unit == Unit::Milli {
                chrono::TimeDelta::milliseconds(count.into())
            } else {
                chrono::TimeDelta::seconds(i64::from(count) * unit.seconds())
            };
            let moved = if is_back { time.checked_sub_signed(span) } else { time.checked_add_signed(span) };
            return moved;
        }
    };
    if is_back { time.checked_sub_months(months) } else { time.checked_add_months(months) }
}

/// Where the unit in which `time` lies begins.
fn floor(time: DateTime<Utc>, unit: Unit) -> Option<DateTime<Utc>> {
    let time = time.naive_utc();
    let (date, clock) = (time.date(), time.time());
    let date = match unit {
        Unit::Year => date.with_day(1)?.with_month(1)?,
        Unit::Month => date.with_day(1)?,
        Unit::Week => date.checked_sub_days(Days::new(date.weekday().num_days_from_monday().into()))?,
        _ => date,
    };
    let clock = match unit {
        Unit::Year | Unit::Month | Unit::Week | Unit::Day => NaiveTime::MIN,
        Unit::Hour => NaiveTime::from_hms_opt(clock.hour(), 0, 0)?,
        Unit::Minute => NaiveTime::from_hms_opt(clock.hour(), clock.minute(), 0)?,
        Unit::Second => clock.with_nanosecond(0)?,
        Unit::Milli => clock.with_nanosecond(clock.nanosecond() / 1_000_000 * 1_000_000)?,
    };
    Some(date.and_time(clock).and_utc())
}

/// From `start` for as long as the unit lasts.
fn span(start: DateTime<Utc>, unit: Unit) -> Option<Moment> {
    let end = shift(start, unit, 1, false)?;
    Some(Moment { start: clamped(start), end: Some(clamped(end)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Option<String> {
        let now = LogTime::parse_rfc3339("2026-11-20T10:11:12.5Z").unwrap();
        let moment = Moment::parse(text, now)?;
        let show = |time: LogTime| time.to_rfc3339().replace(".000000000", "");
        Some(match moment.end {
            Some(end) => format!("{} to {}", show(moment.start), show(end)),
            None => show(moment.start),
        })
    }

    #[test]
    fn moments_are_read_as_elasticsearch_does() {
        for (text, want) in [
            ("now", "2026-11-20T10:11:12.500000000Z"),
            ("now-1h30m", "2026-11-20T08:41:12.500000000Z"),
            ("now/d", "2026-11-20T00:00:00Z to 2026-11-21T00:00:00Z"),
            ("now-1d/d", "2026-11-19T00:00:00Z to 2026-11-20T00:00:00Z"),
            ("now/d+1h", "2026-11-20T01:00:00Z"),
            ("now/w", "2026-11-16T00:00:00Z to 2026-11-23T00:00:00Z"),
            ("now-1M/M", "2026-10-01T00:00:00Z to 2026-11-01T00:00:00Z"),
            ("now/y", "2026-01-01T00:00:00Z to 2027-01-01T00:00:00Z"),
            ("now/s", "2026-11-20T10:11:12Z to 2026-11-20T10:11:13Z"),
            ("2026-11-20", "2026-11-20T00:00:00Z to 2026-11-21T00:00:00Z"),
            ("2026-11-20T10:11", "2026-11-20T10:11:00Z to 2026-11-20T10:12:00Z"),
            ("2026-11-20 10:11:12", "2026-11-20T10:11:12Z"),
            ("2026-11-20T10:11:12+01:00", "2026-11-20T09:11:12Z"),
            ("9999-12-31", "2262-04-11T23:47:16.854775807Z to 2262-04-11T23:47:16.854775807Z"),
        ] {
            assert_eq!(shown(text).as_deref(), Some(want), "{text}");
        }
        for text in [
            "nowhere",
            "now-",
            "now-1",
            "now-1x",
            "now/",
            "now/5d",
            "now-99999999999d",
            "2026",
            "2026-13-01",
            "10.0.0.1",
        ] {
            assert_eq!(shown(text), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "(now|2026-11-20)?[-+/0-9a-zM: é]{0,20}", now in proptest::prelude::any::<i64>()) {
            let _ = Moment::parse_any(&text, LogTime(now));
        }
    }
}
