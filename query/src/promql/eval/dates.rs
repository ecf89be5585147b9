//! `year`, `month`, `hour` and their like, for any number of Unix seconds.
//!
//! Go counts seconds from a year far in the past, without a sign, so that every `int64` is a date; chrono knows
//! half a million years. What no `int64` holds, a NaN for instance, is for Go on amd64 the smallest of them, and
//! so it is here: Prometheus's answers are compared with ours.

/// A moment as a calendar and a clock show it.
struct Date {
    year: i128,
    month: u32,
    day: u32,
    /// Days since 1970.
    days: i128,
    second_of_day: u32,
}

/// From the beginning of Go's calendar, the year -292277022399, to 1970.
const BEFORE_1970: u64 = 9_223_372_028_715_321_600;
const DAY: u64 = 86_400;

/// As Go converts on amd64.
fn whole_seconds(seconds: f64) -> i64 {
    let fits = (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&seconds);
    if fits { seconds as i64 } else { i64::MIN }
}

impl Date {
    fn of(seconds: f64) -> Self {
        let absolute = (whole_seconds(seconds) as u64).wrapping_add(BEFORE_1970);
        let days = i128::from(absolute / DAY) - i128::from(BEFORE_1970 / DAY);
        // After Howard Hinnant's "chrono-compatible low-level date algorithms": years begin in March.
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097) as u32;
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        let year = i128::from(year_of_era) + era * 400 + i128::from(month <= 2);
        Self { year, month, day, days, second_of_day: (absolute % DAY) as u32 }
    }

    fn is_leap_year(&self) -> bool {
        self.year % 4 == 0 && (self.year % 100 != 0 || self.year % 400 == 0)
    }

    fn days_in(&self, month: u32) -> u32 {
        match month {
            2 => 28 + u32::from(self.is_leap_year()),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        }
    }
}

/// A function of a moment, given in Unix seconds, by its PromQL name.
pub(super) fn named(name: &str) -> Option<fn(f64) -> f64> {
    Some(match name {
        "day_of_month" => |at| f64::from(Date::of(at).day),
        "day_of_week" => |at| ((Date::of(at).days + 4).rem_euclid(7)) as f64,
        "day_of_year" => |at| {
            let date = Date::of(at);
            f64::from((1..date.month).map(|month| date.days_in(month)).sum::<u32>() + date.day)
        },
        "days_in_month" => |at| {
            let date = Date::of(at);
            f64::from(date.days_in(date.month))
        },
        "hour" => |at| f64::from(Date::of(at).second_of_day / 3600),
        "minute" => |at| f64::from(Date::of(at).second_of_day / 60 % 60),
        "month" => |at| f64::from(Date::of(at).month),
        "year" => |at| Date::of(at).year as f64,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Datelike, Timelike};
    use proptest::prelude::*;

    use super::*;

    const NAMES: [&str; 8] =
        ["year", "month", "day_of_month", "day_of_year", "day_of_week", "days_in_month", "hour", "minute"];

    fn all(seconds: f64) -> Vec<f64> {
        NAMES.iter().map(|name| named(name).unwrap()(seconds)).collect()
    }

    /// As Go prints them: `time.Unix(math.MinInt64, 0)` is 292277026596-12-04 15:30:08, a Sunday.
    #[test]
    fn what_is_no_moment_is_what_prometheus_takes_it_for() {
        let smallest = [292_277_026_596.0, 12.0, 4.0, 339.0, 0.0, 31.0, 15.0, 30.0];
        for odd in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e19, -1e300] {
            assert_eq!(all(odd), smallest, "{odd}");
        }
        assert_eq!(all(0.0), [1970.0, 1.0, 1.0, 1.0, 4.0, 31.0, 0.0, 0.0]);
        assert_eq!(all(-0.5), all(0.0), "cut, not rounded down");
    }

    proptest! {
        #[test]
        fn dates_are_those_of_chrono(seconds in -8_000_000_000_000i64..8_000_000_000_000) {
            let date = DateTime::from_timestamp(seconds, 0).unwrap();
            let in_month = date.date_naive().num_days_in_month();
            let want = [
                f64::from(date.year()), f64::from(date.month()), f64::from(date.day()),
                f64::from(date.ordinal()), f64::from(date.weekday().num_days_from_sunday()),
                f64::from(in_month), f64::from(date.hour()), f64::from(date.minute()),
            ];
            prop_assert_eq!(all(seconds as f64), want);
        }
    }
}
