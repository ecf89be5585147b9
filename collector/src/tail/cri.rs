//! Lines as container runtimes write them: `2026-11-21T20:50:57.123456789Z stdout F message`.

use binnacle_model::LogTime;

/// Which of a container's two outputs a line went to, or neither: a place in arrays.
pub(super) type Lane = usize;

pub(super) const NO_STREAM: Lane = 0;
pub(super) const STDOUT: Lane = 1;
pub(super) const STDERR: Lane = 2;

/// As queries know the lanes.
pub(super) const IOSTREAMS: [&str; 3] = ["", "stdout", "stderr"];

/// What a runtime says of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) time: LogTime,
    pub(super) lane: Lane,
    /// Whether the next line of the same stream goes on with this one.
    pub(super) partial: bool,
}

/// Takes the header off; `None` if there is none, and the line is a message as a whole (L14).
pub(super) fn parse(line: &[u8]) -> Option<(Header, &[u8])> {
    let (time, rest) = split_word(line)?;
    let (iostream, rest) = split_word(rest)?;
    let lane = match iostream {
        b"stdout" => STDOUT,
        b"stderr" => STDERR,
        _ => return None,
    };
    // An empty message may come without the blank after the tag.
    let (tags, message) = split_word(rest).unwrap_or((rest, b""));
    let partial = match tags {
        b"F" => false,
        b"P" => true,
        _ if tags.starts_with(b"F:") => false,
        _ if tags.starts_with(b"P:") => true,
        _ => return None,
    };
    let time = utc(time).or_else(|| LogTime::parse_rfc3339(std::str::from_utf8(time).ok()?))?;
    Some((Header { time, lane, partial }, message))
}

fn split_word(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(b' ', line)?;
    Some((&line[..at], &line[at + 1..]))
}

/// `2026-11-21T20:50:57.123456789Z`, the form in which nearly all come, without what a general parser does.
fn utc(word: &[u8]) -> Option<LogTime> {
    const SHAPE: &[u8; 20] = b"dddd-dd-ddTdd:dd:dd.";
    let (head, rest) = word.split_at_checked(SHAPE.len())?;
    let fits = |(b, shape): (&u8, &u8)| if *shape == b'd' { b.is_ascii_digit() } else { b == shape };
    let nanos = rest.strip_suffix(b"Z")?;
    if !head.iter().zip(SHAPE).all(fits) || nanos.is_empty() || nanos.len() > 9 {
        return None;
    }
    let number = |digits: &[u8]| digits.iter().fold(0i64, |sum, b| sum * 10 + i64::from(b - b'0'));
    let (year, month, day) = (number(&head[..4]), number(&head[5..7]), number(&head[8..10]));
    let (hour, minute, second) = (number(&head[11..13]), number(&head[14..16]), number(&head[17..19]));
    let is_date = (1971..2200).contains(&year) && (1..=12).contains(&month) && (1..=28).contains(&day);
    // Ends of months and leap seconds are left to the general parser.
    if !is_date || hour > 23 || minute > 59 || second > 59 || !nanos.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let nanos = number(nanos) * 10i64.pow(9 - nanos.len() as u32);
    let seconds = days_before(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    Some(LogTime(seconds * 1_000_000_000 + nanos))
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

    #[test]
    fn headers_are_taken_off() {
        let (header, message) = parse(b"2016-10-06T00:17:09.669794202Z stdout P log content 1").unwrap();
        assert_eq!(message, b"log content 1");
        assert!(header.partial);
        assert_eq!(header.time, LogTime(1_475_713_029_669_794_202));
        let (header, message) = parse(b"2016-10-06T00:17:09+02:00 stderr F:tag ").unwrap();
        assert_eq!((header.lane, header.partial, message), (STDERR, false, &b""[..]));
        assert!(parse(b"2016-10-06T00:17:09Z stdout F").is_some());
    }

    #[test]
    fn other_lines_have_no_header() {
        for line in [
            "",
            "hello world",
            "2016-10-06 stdout F x",
            "2016-10-06T00:17:09Z stdin F x",
            "2016-10-06T00:17:09Z stdout X x",
            "2016-10-06T00:17:09Z stdout Px x",
            "{\"log\":\"x\"}",
        ] {
            assert_eq!(parse(line.as_bytes()), None, "{line}");
        }
    }

    proptest::proptest! {
        #[test]
        fn the_short_way_agrees_with_the_general_parser(seconds in 31_536_000i64..7_000_000_000, nanos in 0u32..1_000_000_000, digits in 0usize..10) {
            let text = chrono::DateTime::from_timestamp(seconds, nanos).unwrap().format("%Y-%m-%dT%H:%M:%S.%f").to_string();
            let text = format!("{}Z", &text[..20 + digits]);
            if let Some(time) = utc(text.as_bytes()) {
                proptest::prop_assert_eq!(Some(time), LogTime::parse_rfc3339(&text));
            }
        }

        #[test]
        fn no_line_panics(line in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80)) {
            let _ = parse(&line);
        }
    }
}
