//! Times at which routes are mute, or at which alone they speak.

use std::ops::RangeInclusive;

use binnacle_model::Timestamp;
use chrono::{DateTime, Datelike, Timelike};
use chrono_tz::Tz;
use serde::Deserialize;

/// A named interval, as the operator wrote it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawNamed {
    pub(super) name: Option<String>,
    #[serde(default)]
    pub(super) time_intervals: Option<Vec<RawInterval>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawInterval {
    times: Option<Vec<RawTimes>>,
    weekdays: Option<Vec<String>>,
    days_of_month: Option<Vec<String>>,
    months: Option<Vec<String>>,
    years: Option<Vec<String>>,
    location: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawTimes {
    start_time: Option<String>,
    end_time: Option<String>,
}

/// A part of the calendar; what is empty holds always.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::notify) struct Interval {
    /// Minutes of the day, the last one not included.
    times: Vec<(u32, u32)>,
    /// From Sunday, 0.
    weekdays: Vec<RangeInclusive<u32>>,
    /// From 1, or from the month's end where negative.
    days: Vec<(i32, i32)>,
    months: Vec<RangeInclusive<u32>>,
    years: Vec<RangeInclusive<i32>>,
    zone: Tz,
}

const WEEKDAYS: [&str; 7] = ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"];
const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

impl RawInterval {
    pub(super) fn check(self) -> Result<Interval, String> {
        let each = |list: Option<Vec<String>>| list.unwrap_or_default().into_iter();
        let zone = match self.location.as_deref() {
            None | Some("" | "UTC" | "Local") => Tz::UTC,
            Some(name) => name.parse().map_err(|_| format!("unknown time zone {name}"))?,
        };
        Ok(Interval {
            times: self.times.unwrap_or_default().iter().map(times).collect::<Result<_, _>>()?,
            weekdays: each(self.weekdays).map(|text| weekdays(&text)).collect::<Result<_, _>>()?,
            days: each(self.days_of_month).map(|text| days(&text)).collect::<Result<_, _>>()?,
            months: each(self.months).map(|text| months(&text)).collect::<Result<_, _>>()?,
            years: each(self.years).map(|text| years(&text)).collect::<Result<_, _>>()?,
            zone,
        })
    }
}

fn times(raw: &RawTimes) -> Result<(u32, u32), String> {
    let minute = |text: &Option<String>| {
        let text = text.as_deref().filter(|text| !text.is_empty());
        let text = text.ok_or("both start and end times must be provided")?;
        let wrong = || format!("couldn't parse timestamp {text}, invalid format");
        let (hours, minutes) = text.split_once(':').ok_or_else(wrong)?;
        let part = |text: &str| text.parse::<u32>().ok().filter(|_| text.len() == 2);
        let found = part(hours).zip(part(minutes)).filter(|(_, minutes)| *minutes < 60);
        let (hours, minutes) = found.ok_or_else(wrong)?;
        let minute = hours * 60 + minutes;
        if minute <= 24 * 60 { Ok(minute) } else { Err(wrong()) }
    };
    let (begin, end) = (minute(&raw.start_time)?, minute(&raw.end_time)?);
    if begin >= end {
        return Err("start time cannot be equal or greater than end time".to_owned());
    }
    Ok((begin, end))
}

/// `begin:end`, or one alone.
fn ends(text: &str) -> Result<(String, String), String> {
    let text = text.to_lowercase();
    let mut parts = text.split(':').map(|part| part.trim().to_owned());
    match (parts.next(), parts.next(), parts.next()) {
        (Some(only), None, _) => Ok((only.clone(), only)),
        (Some(begin), Some(end), None) => Ok((begin, end)),
        _ => Err(format!("couldn't parse range {text}, invalid format")),
    }
}

fn weekdays(text: &str) -> Result<RangeInclusive<u32>, String> {
    let (begin, end) = ends(text)?;
    let number = |name: &str| {
        let found = WEEKDAYS.iter().position(|day| *day == name);
        found.map(|at| at as u32).ok_or_else(|| format!("{name} is not a valid weekday"))
    };
    let (begin, end) = (number(&begin)?, number(&end)?);
    if begin > end { Err("start day cannot be before end day".to_owned()) } else { Ok(begin..=end) }
}

fn days(text: &str) -> Result<(i32, i32), String> {
    let (begin, end) = ends(text)?;
    let number = |text: &str| {
        let day: i32 = text.parse().map_err(|_| format!("{text} is not a valid day of the month"))?;
        if day == 0 || day.abs() > 31 {
            return Err(format!("{day} is not a valid day of the month: out of range"));
        }
        Ok(day)
    };
    let (begin, end) = (number(&begin)?, number(&end)?);
    if begin < 0 && end > 0 {
        return Err("end day must be negative if start day is negative".to_owned());
    }
    // The shortest month decides which days follow one another in every month.
    let in_short = |day: i32| if day < 0 { 28 + day } else { day };
    if in_short(begin) > in_short(end) {
        return Err(format!("end day {end} is always before start day {begin}"));
    }
    Ok((begin, end))
}

fn months(text: &str) -> Result<RangeInclusive<u32>, String> {
    let (begin, end) = ends(text)?;
    let number = |name: &str| {
        let by_name = MONTHS.iter().position(|month| *month == name).map(|at| at as u32 + 1);
        let by_number = name.parse().ok().filter(|month| (1..=12).contains(month));
        by_name.or(by_number).ok_or_else(|| format!("{name} is not a valid month"))
    };
    let (begin, end) = (number(&begin)?, number(&end)?);
    if begin > end { Err(format!("end month {end} is before start month {begin}")) } else { Ok(begin..=end) }
}

fn years(text: &str) -> Result<RangeInclusive<i32>, String> {
    let (begin, end) = ends(text)?;
    let number = |text: &str| text.parse::<i32>().map_err(|_| format!("{text} is not a valid year"));
    let (begin, end) = (number(&begin)?, number(&end)?);
    if begin > end { Err(format!("end year {end} is before start year {begin}")) } else { Ok(begin..=end) }
}

impl Interval {
    /// Whether a moment lies in it.
    pub(in crate::notify) fn contains(&self, at: Timestamp) -> bool {
        let Some(at) = DateTime::from_timestamp_millis(at.0) else { return false };
        let at = at.with_timezone(&self.zone);
        let minute = at.hour() * 60 + at.minute();
        let last = i32::from(at.num_days_in_month());
        let day = at.day() as i32;
        let in_days = |(begin, end): &(i32, i32)| {
            let of_month = |day: i32| if day < 0 { last + day + 1 } else { day };
            let (begin, end) = (of_month(*begin), of_month(*end));
            begin <= last && (begin.max(1)..=end.min(last)).contains(&day)
        };
        (self.times.is_empty() || self.times.iter().any(|(begin, end)| (*begin..*end).contains(&minute)))
            && (self.weekdays.is_empty()
                || self.weekdays.iter().any(|days| days.contains(&at.weekday().num_days_from_sunday())))
            && (self.days.is_empty() || self.days.iter().any(in_days))
            && (self.months.is_empty() || self.months.iter().any(|months| months.contains(&at.month())))
            && (self.years.is_empty() || self.years.iter().any(|years| years.contains(&at.year())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(yaml: &str) -> Result<Interval, String> {
        let raw: RawInterval = serde_saphyr::from_str(yaml).map_err(|error| error.to_string())?;
        raw.check()
    }

    #[test]
    fn a_moment_lies_in_an_interval_or_not() {
        let table = [
            ("{times: [{start_time: '09:00', end_time: '17:00'}]}", "2026-11-24T16:59:59Z", true),
            ("{times: [{start_time: '09:00', end_time: '17:00'}]}", "2026-11-24T17:00:00Z", false),
            ("{times: [{start_time: '17:00', end_time: '24:00'}]}", "2026-11-24T23:59:59Z", true),
            ("{weekdays: ['monday:wednesday', Saturday]}", "2026-11-24T00:00:00Z", true),
            ("{weekdays: ['monday:wednesday', Saturday]}", "2026-11-26T00:00:00Z", false),
            ("{days_of_month: ['-3:-1']}", "2024-02-27T00:00:00Z", true),
            ("{days_of_month: ['-3:-1']}", "2024-02-26T00:00:00Z", false),
            ("{days_of_month: ['29:31']}", "2023-02-28T00:00:00Z", false),
            ("{days_of_month: ['1:31']}", "2023-02-28T00:00:00Z", true),
            ("{months: ['may:august', '12']}", "2026-12-01T00:00:00Z", true),
            ("{months: ['may:august']}", "2026-09-01T00:00:00Z", false),
            ("{years: ['2020:2022', '2030']}", "2030-01-01T00:00:00Z", true),
            // New York springs forward at two in the morning of March 8th.
            (
                "{times: [{start_time: '03:00', end_time: '04:00'}], location: America/New_York}",
                "2026-03-08T07:00:00Z",
                true,
            ),
            (
                "{times: [{start_time: '02:00', end_time: '03:00'}], location: America/New_York}",
                "2026-03-08T06:59:59Z",
                false,
            ),
            (
                "{times: [{start_time: '09:00', end_time: '10:00'}], weekdays: [sunday], location: Asia/Tokyo}",
                "2026-11-22T00:30:00Z",
                true,
            ),
        ];
        for (yaml, at, want) in table {
            let at = Timestamp::parse(at).unwrap();
            assert_eq!(interval(yaml).unwrap().contains(at), want, "{yaml} {at:?}");
        }
    }

    #[test]
    fn what_is_no_interval_is_refused() {
        for (yaml, reason) in [
            ("{times: [{start_time: '09:00'}]}", "both start and end"),
            ("{times: [{start_time: '9:00', end_time: '10:00'}]}", "invalid format"),
            ("{times: [{start_time: '10:00', end_time: '10:00'}]}", "cannot be equal or greater"),
            ("{weekdays: [caturday]}", "caturday is not a valid weekday"),
            ("{weekdays: ['friday:monday']}", "cannot be before"),
            ("{days_of_month: ['0']}", "out of range"),
            ("{days_of_month: ['-1:5']}", "must be negative"),
            ("{days_of_month: ['20:-15']}", "is always before"),
            ("{months: ['13']}", "13 is not a valid month"),
            ("{location: Nowhere/Land}", "unknown time zone"),
        ] {
            let error = interval(yaml).unwrap_err();
            assert!(error.contains(reason), "{yaml}: {error}");
        }
    }
}
