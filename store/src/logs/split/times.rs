//! Timestamps within messages: kept as their difference to the entry's own time.

/// Nanoseconds of a day.
const DAY_NS: i64 = 86_400 * 1_000_000_000;

/// How a timestamp is written. Packed into 17 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimeFormat {
    shape: Shape,
    /// Digits behind the second, and what stands before them.
    digits: u8,
    comma: bool,
    zone: Zone,
    /// In quarters of an hour, east of Greenwich.
    quarters: i8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// `2026-11-23T10:11:12`
    IsoT,
    /// `2026-11-23 10:11:12`
    IsoSpace,
    /// `2026/11/23 10:11:12`
    Slashes,
    /// `23/Nov/2026:10:11:12`
    Clf,
    /// `10:11:12`
    Clock,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Zone {
    None,
    Z,
    /// `+02:00`
    Colon,
    /// `+0200`, with a blank before it in the common log format.
    Plain,
}

const SHAPES: [Shape; 5] = [Shape::IsoT, Shape::IsoSpace, Shape::Slashes, Shape::Clf, Shape::Clock];
const ZONES: [Zone; 4] = [Zone::None, Zone::Z, Zone::Colon, Zone::Plain];
const MONTHS: [&[u8; 3]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
const UNITS_NS: [i64; 10] =
    [1_000_000_000, 100_000_000, 10_000_000, 1_000_000, 100_000, 10_000, 1_000, 100, 10, 1];

/// Bits that [`TimeFormat::to_bits`] needs.
pub(crate) const FORMAT_BITS: u32 = 17;

impl TimeFormat {
    pub(crate) fn to_bits(self) -> u64 {
        let shape = SHAPES.iter().position(|shape| *shape == self.shape).unwrap_or(0) as u64;
        let zone = ZONES.iter().position(|zone| *zone == self.zone).unwrap_or(0) as u64;
        shape
            | u64::from(self.digits) << 3
            | u64::from(self.comma) << 7
            | zone << 8
            | ((i64::from(self.quarters) + 64) as u64) << 10
    }

    pub(crate) fn from_bits(bits: u64) -> Option<Self> {
        let digits = (bits >> 3 & 15) as u8;
        Some(Self {
            shape: *SHAPES.get((bits & 7) as usize)?,
            digits: (digits <= 9).then_some(digits)?,
            comma: bits >> 7 & 1 == 1,
            zone: ZONES[(bits >> 8 & 3) as usize],
            quarters: ((bits >> 10 & 127) as i64 - 64) as i8,
        })
    }

    fn unit_ns(self) -> i64 {
        UNITS_NS[usize::from(self.digits)]
    }

    /// The entry's own time in the units of the format.
    fn own(self, time_ns: i64) -> i64 {
        let time_ns = if self.shape == Shape::Clock { time_ns.rem_euclid(DAY_NS) } else { time_ns };
        time_ns.div_euclid(self.unit_ns())
    }
}

/// A timestamp found in a message: its length, how it is written, and by how many units of its last digit it lies
/// after the entry's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FoundTime {
    pub(crate) len: usize,
    pub(crate) format: TimeFormat,
    pub(crate) difference: i64,
}

fn digits(text: &[u8], count: usize) -> Option<i64> {
    let mut value = 0;
    for byte in text.get(..count)? {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + i64::from(digit);
    }
    Some(value)
}

/// Days since 1970 of a date that exists.
fn days_of(year: i64, month: i64, day: i64) -> Option<i64> {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let lengths = [31, if is_leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let length = lengths.get(usize::try_from(month - 1).ok()?)?;
    if day < 1 || day > *length || !(1970..=2200).contains(&year) {
        return None;
    }
    // After Howard Hinnant's "days_from_civil": years begin in March.
    let shifted = if month <= 2 { year - 1 } else { year };
    let of_era = shifted.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    Some(shifted.div_euclid(400) * 146_097 + days - 719_468)
}

fn date_of(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let of_era = shifted.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + shifted.div_euclid(146_097) * 400 + i64::from(month <= 2), month, day)
}

/// Seconds of `HH:MM:SS`.
fn clock(text: &[u8]) -> Option<i64> {
    if text.len() < 8 || text[2] != b':' || text[5] != b':' {
        return None;
    }
    let (hour, minute, second) = (digits(text, 2)?, digits(&text[3..], 2)?, digits(&text[6..], 2)?);
    (hour < 24 && minute < 60 && second < 60).then_some(hour * 3600 + minute * 60 + second)
}

/// The timestamp that `text` begins with, which begins with a digit. What follows it is no digit.
pub(crate) fn find(text: &[u8], entry_ns: i64) -> Option<FoundTime> {
    let (shape, mut seconds, mut at) = match (text.get(2)?, text.get(4)) {
        (b':', _) => (Shape::Clock, clock(text)?, 8),
        (b'/', _) => {
            let month = MONTHS.iter().position(|month| text.get(3..6) == Some(&month[..]))? as i64 + 1;
            if text.get(6) != Some(&b'/') || text.get(11) != Some(&b':') {
                return None;
            }
            let days = days_of(digits(&text[7..], 4)?, month, digits(text, 2)?)?;
            (Shape::Clf, days * 86_400 + clock(&text[12..])?, 20)
        }
        (_, Some(sign @ (b'-' | b'/'))) => {
            let between = *text.get(10)?;
            let shape = match (sign, between) {
                (b'-', b'T') => Shape::IsoT,
                (b'-', b' ') => Shape::IsoSpace,
                (b'/', b' ') => Shape::Slashes,
                _ => return None,
            };
            if text[7] != *sign {
                return None;
            }
            let days = days_of(digits(text, 4)?, digits(&text[5..], 2)?, digits(&text[8..], 2)?)?;
            (shape, days * 86_400 + clock(&text[11..])?, 19)
        }
        _ => return None,
    };
    let mut fraction = (0, 0);
    let comma = text.get(at) == Some(&b',');
    if comma || text.get(at) == Some(&b'.') {
        let count = text[at + 1..].iter().take(10).take_while(|byte| byte.is_ascii_digit()).count();
        if count > 9 {
            return None;
        }
        if count > 0 {
            fraction = (digits(&text[at + 1..], count)?, count);
            at += 1 + count;
        }
    }
    let (zone, quarters, len) = zone(&text[at..], shape)?;
    at += len;
    if text.get(at).is_some_and(u8::is_ascii_digit) {
        return None;
    }
    seconds -= i64::from(quarters) * 900;
    let comma = comma && fraction.1 > 0;
    let format = TimeFormat { shape, digits: fraction.1 as u8, comma, zone, quarters };
    let units = seconds.checked_mul(1_000_000_000 / format.unit_ns())?.checked_add(fraction.0)?;
    Some(FoundTime { len: at, format, difference: units.checked_sub(format.own(entry_ns))? })
}

/// The zone that `text` begins with.
fn zone(text: &[u8], shape: Shape) -> Option<(Zone, i8, usize)> {
    let sign_at = usize::from(shape == Shape::Clf);
    let sign = text.get(sign_at).copied();
    if shape == Shape::Clock {
        return Some((Zone::None, 0, 0));
    }
    if shape != Shape::Clf && sign == Some(b'Z') {
        return Some((Zone::Z, 0, 1));
    }
    if !matches!(sign, Some(b'+' | b'-')) || (sign_at == 1 && text[0] != b' ') {
        return Some((Zone::None, 0, 0));
    }
    let offset = &text[sign_at + 1..];
    let (kind, minutes, len) = match (digits(offset, 2), offset.get(2)) {
        (Some(hours), Some(b':')) if shape != Shape::Clf => {
            (Zone::Colon, hours * 60 + digits(&offset[3..], 2)?, 6)
        }
        (Some(hours), _) => (Zone::Plain, hours * 60 + digits(&offset[2..], 2)?, 5),
        _ => return Some((Zone::None, 0, 0)),
    };
    let quarters = minutes / 15;
    // A minus before nothing would come back as a plus.
    if minutes % 15 != 0 || quarters >= 64 || (sign == Some(b'-') && minutes == 0) {
        return None;
    }
    // Minutes of an hour, or the hour would come back larger.
    if digits(&offset[if kind == Zone::Colon { 3 } else { 2 }..], 2)? > 59 {
        return None;
    }
    let quarters = if sign == Some(b'-') { -quarters } else { quarters };
    Some((kind, quarters as i8, sign_at + len))
}

/// Writes the timestamp of a format that lies `difference` units after the entry's time. Answers whether there is one.
pub(crate) fn write(format: TimeFormat, difference: i64, entry_ns: i64, out: &mut Vec<u8>) -> bool {
    let Some(units) = format.own(entry_ns).checked_add(difference) else { return false };
    let per_second = 1_000_000_000 / format.unit_ns();
    let seconds = units.div_euclid(per_second) + i64::from(format.quarters) * 900;
    let fraction = units.rem_euclid(per_second);
    let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = date_of(days);
    if !(0..=9999).contains(&year) {
        return false;
    }
    let pair = |out: &mut Vec<u8>, value: i64| {
        out.extend_from_slice(&[b'0' + (value / 10 % 10) as u8, b'0' + (value % 10) as u8]);
    };
    let date = |out: &mut Vec<u8>, sign: u8| {
        pair(out, year / 100);
        pair(out, year % 100);
        out.push(sign);
        pair(out, month);
        out.push(sign);
        pair(out, day);
    };
    match format.shape {
        Shape::IsoT | Shape::IsoSpace => {
            date(out, b'-');
            out.push(if format.shape == Shape::IsoT { b'T' } else { b' ' });
        }
        Shape::Slashes => {
            date(out, b'/');
            out.push(b' ');
        }
        Shape::Clf => {
            pair(out, day);
            out.push(b'/');
            out.extend_from_slice(MONTHS[(month - 1) as usize]);
            out.push(b'/');
            pair(out, year / 100);
            pair(out, year % 100);
            out.push(b':');
        }
        Shape::Clock => {}
    }
    pair(out, of_day / 3600);
    out.push(b':');
    pair(out, of_day / 60 % 60);
    out.push(b':');
    pair(out, of_day % 60);
    if format.digits > 0 {
        out.push(if format.comma { b',' } else { b'.' });
        let mut unit = per_second / 10;
        while unit > 0 {
            out.push(b'0' + (fraction / unit % 10) as u8);
            unit /= 10;
        }
    }
    write_zone(format, out);
    true
}

fn write_zone(format: TimeFormat, out: &mut Vec<u8>) {
    if format.zone == Zone::Z {
        out.push(b'Z');
    }
    if !matches!(format.zone, Zone::Colon | Zone::Plain) {
        return;
    }
    if format.shape == Shape::Clf {
        out.push(b' ');
    }
    let minutes = u32::from(format.quarters.unsigned_abs()) * 15;
    out.push(if format.quarters < 0 { b'-' } else { b'+' });
    let pair = |value: u32| [b'0' + (value / 10) as u8, b'0' + (value % 10) as u8];
    out.extend_from_slice(&pair(minutes / 60));
    if format.zone == Zone::Colon {
        out.push(b':');
    }
    out.extend_from_slice(&pair(minutes % 60));
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY_NS: i64 = 1_763_892_672_345_678_901;

    fn round_trip(text: &str, len: usize) -> i64 {
        let found = find(text.as_bytes(), ENTRY_NS).unwrap_or_else(|| panic!("{text}"));
        assert_eq!(found.len, len, "{text}");
        let format = TimeFormat::from_bits(found.format.to_bits()).unwrap();
        assert_eq!(format, found.format);
        assert!(found.format.to_bits() >> FORMAT_BITS == 0);
        let mut out = Vec::new();
        assert!(write(format, found.difference, ENTRY_NS, &mut out));
        assert_eq!(String::from_utf8(out).unwrap(), text[..len]);
        found.difference
    }

    #[test]
    fn timestamps_come_back_as_they_were() {
        assert_eq!(round_trip("2025-11-23T10:11:12.345Z", 24), 0);
        assert_eq!(round_trip("2025-11-23T10:11:12.344Z", 24), -1);
        assert_eq!(round_trip("2025-11-23T12:11:12.345678901+02:00 x", 35), 0);
        assert_eq!(round_trip("2025-11-23 05:41:12,345-0430", 28), 0);
        assert_eq!(round_trip("2025/11/23 10:11:12 x", 19), 0);
        assert_eq!(round_trip("23/Nov/2025:10:11:12 +0000]", 26), 0);
        assert_eq!(round_trip("23/Nov/2025:10:11:12 GET", 20), 0);
        assert_eq!(round_trip("10:11:12.3 x", 10), 0);
        assert_eq!(round_trip("10:11:12.", 8), 0);
        round_trip("2000-02-29T23:59:59Z", 20);
        round_trip("1970-01-01T00:00:00+00:00", 25);
    }

    #[test]
    fn other_digits_are_no_timestamps() {
        for text in [
            "2025-02-30T10:11:12Z",
            "2025-11-23T24:00:00Z",
            "10:60:00",
            "10:11:1",
            "10:11:123",
            "2025-11-23",
            "2025-11-23T10:11:12-00:00",
            "2025-11-23T10:11:12+02:07",
            "2025-11-23T10:11:12.1234567890Z",
            "12",
            "2025-11-23T10:11:12+0160",
            "99/99/2025:10:11:12",
            "",
        ] {
            assert_eq!(find(text.as_bytes(), ENTRY_NS), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_found_comes_back(text in "[0-9]{2,4}[-/:][0-9A-Za-z]{2,3}[-/:][0-9]{2,4}[T :][0-9]{2}:[0-9]{2}:[0-9]{2}[.,Z+-]?[0-9:]{0,9}[Z +-]?[0-9:]{0,5}", entry in -10i64..i64::MAX / 2) {
            if let Some(found) = find(text.as_bytes(), entry) {
                let mut out = Vec::new();
                proptest::prop_assert!(write(found.format, found.difference, entry, &mut out));
                proptest::prop_assert_eq!(&out[..], &text.as_bytes()[..found.len]);
            }
        }

        #[test]
        fn dates_are_days(days in 0i64..84_000) {
            let (year, month, day) = date_of(days);
            proptest::prop_assert_eq!(days_of(year, month, day), Some(days));
        }

        #[test]
        fn no_bits_panic(bits in 0u64..1 << FORMAT_BITS, difference in proptest::prelude::any::<i64>(), entry in proptest::prelude::any::<i64>()) {
            if let Some(format) = TimeFormat::from_bits(bits) {
                write(format, difference, entry, &mut Vec::new());
            }
        }
    }
}
