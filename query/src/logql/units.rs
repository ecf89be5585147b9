//! Durations and sizes as Go's libraries read and write them.

/// Nanoseconds of each unit.
const DURATIONS: [(&str, f64); 10] = [
    ("ns", 1.0),
    ("us", 1e3),
    ("µs", 1e3),
    ("μs", 1e3),
    ("ms", 1e6),
    ("s", 1e9),
    ("m", 60e9),
    ("h", 3600e9),
    ("d", 86_400e9),
    ("w", 604_800e9),
];

/// Bytes of each unit, in lower case, as the library `go-humanize` knows them.
const SIZES: [(&str, f64); 20] = [
    ("", 1.0),
    ("b", 1.0),
    ("k", 1e3),
    ("kb", 1e3),
    ("kib", 1024.0),
    ("ki", 1024.0),
    ("m", 1e6),
    ("mb", 1e6),
    ("mib", 1_048_576.0),
    ("mi", 1_048_576.0),
    ("g", 1e9),
    ("gb", 1e9),
    ("gib", 1_073_741_824.0),
    ("gi", 1_073_741_824.0),
    ("tb", 1e12),
    ("tib", 1_099_511_627_776.0),
    ("ti", 1_099_511_627_776.0),
    ("pb", 1e15),
    ("pib", 1_125_899_906_842_624.0),
    ("eb", 1e18),
];

/// Nanoseconds of a text such as `1h30m`, `1.5s`, `-20ms`.
pub(super) fn duration_ns(text: &str) -> Option<f64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0.0);
    }
    let mut total = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = &rest[..letters];
        let size =
            if unit == "y" { 365.0 * 86_400e9 } else { DURATIONS.iter().find(|(name, _)| *name == unit)?.1 };
        total += number * size;
        rest = &rest[letters..];
    }
    (total < i64::MAX as f64).then_some(sign * total)
}

/// Bytes of a text such as `20MB`, `1.5 KiB`, `42`.
pub(super) fn bytes(text: &str) -> Option<f64> {
    let digits = text.bytes().take_while(|b| b.is_ascii_digit() || matches!(b, b'.' | b',')).count();
    let number: f64 = text[..digits].replace(',', "").parse().ok()?;
    let unit = text[digits..].trim().to_lowercase();
    let (_, size) = SIZES.iter().find(|(name, _)| *name == unit)?;
    Some((number * size).floor()).filter(|size| size.is_finite())
}

/// Which of the two a text is, if it is one.
pub fn duration_or_size(text: &str) -> Option<&'static str> {
    let has_unit = text.ends_with(|c: char| c.is_alphabetic());
    if has_unit && duration_ns(text).is_some() {
        return Some("duration");
    }
    (has_unit && bytes(text).is_some()).then_some("bytes")
}

/// As Go's `Duration.String`: `1h30m0s`, `1.5s`, `20ms`.
pub(super) fn format_go_duration(ns: i64) -> String {
    let (sign, ns) = (if ns < 0 { "-" } else { "" }, ns.unsigned_abs());
    let decimal = |value: u64, unit: u64| {
        let (whole, part) = (value / unit, value % unit);
        if part == 0 {
            return whole.to_string();
        }
        let digits = unit.ilog10() as usize;
        format!("{whole}.{}", format!("{part:0digits$}").trim_end_matches('0'))
    };
    let text = match ns {
        0 => return "0s".to_owned(),
        1..1_000 => format!("{ns}ns"),
        1_000..1_000_000 => decimal(ns, 1_000) + "µs",
        1_000_000..1_000_000_000 => decimal(ns, 1_000_000) + "ms",
        _ => {
            let (minutes, rest) = (ns / 60_000_000_000, ns % 60_000_000_000);
            let seconds = decimal(rest, 1_000_000_000) + "s";
            match (minutes / 60, minutes % 60) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    };
    format!("{sign}{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written_as_go_does() {
        for (text, ns) in [
            ("1h30m", 5400e9),
            ("1.5s", 1.5e9),
            ("20ms", 2e7),
            ("-5m", -3e11),
            ("7d", 6.048e14),
            ("3µs", 3e3),
            ("0", 0.0),
        ] {
            assert_eq!(duration_ns(text), Some(ns), "{text}");
        }
        for text in ["", "5", "m", "5f", "1h5", "--1s", "..s"] {
            assert_eq!(duration_ns(text), None, "{text}");
        }
        for (ns, text) in [
            (5_400_000_000_000, "1h30m0s"),
            (1_500_000_000, "1.5s"),
            (20_000_000, "20ms"),
            (-300_000_000_000, "-5m0s"),
            (1, "1ns"),
            (0, "0s"),
            (1_050, "1.05µs"),
        ] {
            assert_eq!(format_go_duration(ns), text);
        }
    }

    #[test]
    fn sizes_are_read_as_humanize_does() {
        for (text, size) in [("42", 42.0), ("20MB", 2e7), ("1.5 KiB", 1536.0), ("1kB", 1000.0), ("0b", 0.0)] {
            assert_eq!(bytes(text), Some(size), "{text}");
        }
        for text in ["", "MB", "1x", "-1B"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }
}
