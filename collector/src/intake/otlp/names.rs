//! Names of OpenTelemetry as Prometheus writes them: underscores for what it did not take before 3.0, the unit and the
//! kind as endings, each unless the translation strategy leaves it out.

use super::TranslationStrategy;

/// What decides on the ending of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Gauge,
    Counter,
    Other,
}

/// Units by UCUM's abbreviations.
const UNITS: [(&str, &str); 27] = [
    ("d", "days"),
    ("h", "hours"),
    ("min", "minutes"),
    ("s", "seconds"),
    ("ms", "milliseconds"),
    ("us", "microseconds"),
    ("ns", "nanoseconds"),
    ("By", "bytes"),
    ("KiBy", "kibibytes"),
    ("MiBy", "mebibytes"),
    ("GiBy", "gibibytes"),
    ("TiBy", "tibibytes"),
    ("KBy", "kilobytes"),
    ("MBy", "megabytes"),
    ("GBy", "gigabytes"),
    ("TBy", "terabytes"),
    ("m", "meters"),
    ("V", "volts"),
    ("A", "amperes"),
    ("J", "joules"),
    ("W", "watts"),
    ("g", "grams"),
    ("Cel", "celsius"),
    ("Hz", "hertz"),
    ("1", ""),
    ("%", "percent"),
    ("$", "dollars"),
];

/// As [`UNITS`], behind a slash.
const PER_UNITS: [(&str, &str); 7] = [
    ("s", "second"),
    ("m", "minute"),
    ("h", "hour"),
    ("d", "day"),
    ("w", "week"),
    ("mo", "month"),
    ("y", "year"),
];

/// The name of a metric.
pub(super) fn metric_name(name: &str, unit: &str, kind: Kind, strategy: TranslationStrategy) -> String {
    match (strategy.escapes(), strategy.has_endings()) {
        (true, true) => escaped_with_endings(name, unit, kind),
        (true, false) => escaped(name),
        (false, true) => with_endings(name, unit, kind),
        (false, false) => name.to_owned(),
    }
}

fn escaped(name: &str) -> String {
    let kept = |c: char| if is_foreign(c) { '_' } else { c };
    let name: String = name.chars().map(kept).collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) { format!("_{name}") } else { name }
}

fn with_endings(name: &str, unit: &str, kind: Kind) -> String {
    let (main, per) = unit.split_once('/').unwrap_or((unit, ""));
    let (main, per) = (unit_word(main, &UNITS), unit_word(per, &PER_UNITS));
    let mut name = name.to_owned();
    let mut put = |word: String| {
        if !name.ends_with(&word) {
            name.push('_');
            name.push_str(&word);
        }
    };
    let per = if per.is_empty() { String::new() } else { format!("per_{per}") };
    [main, per].into_iter().filter(|word| !word.is_empty()).for_each(&mut put);
    match kind {
        Kind::Counter => put("total".to_owned()),
        Kind::Gauge if unit == "1" => put("ratio".to_owned()),
        _ => {}
    }
    name
}

fn escaped_with_endings(name: &str, unit: &str, kind: Kind) -> String {
    let mut tokens: Vec<String> =
        name.split(is_foreign).filter(|part| !part.is_empty()).map(String::from).collect();
    let (main, per) = unit.split_once('/').unwrap_or((unit, ""));
    let (main, per) = (unit_word(main, &UNITS), unit_word(per, &PER_UNITS));
    if !main.is_empty() && !tokens.contains(&main) {
        tokens.push(main);
    }
    if !per.is_empty() && !tokens.contains(&per) {
        tokens.push("per".to_owned());
        tokens.push(per);
    }
    match kind {
        Kind::Counter => put_last(&mut tokens, "total"),
        Kind::Gauge if unit == "1" => put_last(&mut tokens, "ratio"),
        _ => {}
    }
    let joined = tokens.join("_");
    if joined.starts_with(|c: char| c.is_ascii_digit()) { format!("_{joined}") } else { joined }
}

fn put_last(tokens: &mut Vec<String>, word: &str) {
    tokens.retain(|token| token != word);
    tokens.push(word.to_owned());
}

fn is_foreign(c: char) -> bool {
    !(c.is_ascii_alphanumeric() || c == ':')
}

fn unit_word(unit: &str, words: &[(&str, &str)]) -> String {
    let unit = unit.trim();
    // Braces hold remarks for people.
    if unit.contains(['{', '}']) {
        return String::new();
    }
    let word = words.iter().find(|(short, _)| *short == unit).map_or(unit, |(_, word)| word);
    word.split(is_foreign).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("_")
}

/// The name of a label; `None` if nothing of it can be kept.
pub(super) fn label_name(key: &str, escapes: bool) -> Option<String> {
    if !escapes {
        return (!key.is_empty()).then(|| key.to_owned());
    }
    let name: String = key.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if name.chars().all(|c| c == '_') {
        return None;
    }
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        return Some(format!("key_{name}"));
    }
    if name.starts_with('_') && !name.starts_with("__") {
        return Some(format!("key{name}"));
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_named_as_prometheus_names_them() {
        let cases = [
            ("http.server.request.duration", "s", Kind::Other, "http_server_request_duration_seconds"),
            ("http.server.requests", "{request}", Kind::Counter, "http_server_requests_total"),
            ("system.io.total", "By", Kind::Counter, "system_io_bytes_total"),
            ("system.memory.utilization", "1", Kind::Gauge, "system_memory_utilization_ratio"),
            ("items", "1", Kind::Counter, "items_total"),
            ("network.rate", "By/s", Kind::Gauge, "network_rate_bytes_per_second"),
            ("speed.meters", "m/s", Kind::Gauge, "speed_meters_per_second"),
            ("bytes_sent", "By", Kind::Gauge, "bytes_sent"),
            ("a__b..c", "", Kind::Gauge, "a_b_c"),
            ("2xx", "", Kind::Gauge, "_2xx"),
            ("cpu", "%", Kind::Gauge, "cpu_percent"),
            ("a:b", "widgets", Kind::Gauge, "a:b_widgets"),
            ("größe", "", Kind::Gauge, "gr_e"),
        ];
        for (name, unit, kind, want) in cases {
            let strategy = TranslationStrategy::UnderscoreEscapingWithSuffixes;
            assert_eq!(metric_name(name, unit, kind, strategy), want, "{name} {unit}");
        }
    }

    #[test]
    fn other_strategies_leave_something_out() {
        use TranslationStrategy::{
            NoTranslation, NoUTF8EscapingWithSuffixes, UnderscoreEscapingWithoutSuffixes,
        };

        let name = |strategy| metric_name("http.requests", "By/s", Kind::Counter, strategy);
        assert_eq!(name(UnderscoreEscapingWithoutSuffixes), "http_requests");
        assert_eq!(name(NoUTF8EscapingWithSuffixes), "http.requests_bytes_per_second_total");
        assert_eq!(name(NoTranslation), "http.requests");
        assert_eq!(label_name("http.method", false).as_deref(), Some("http.method"));
    }

    #[test]
    fn labels_are_named_as_prometheus_names_them() {
        let cases = [
            ("http.method", Some("http_method")),
            ("1st", Some("key_1st")),
            ("_private", Some("key_private")),
            ("__name", Some("__name")),
            ("a__b", Some("a__b")),
            ("..", None),
            ("", None),
        ];
        for (key, want) in cases {
            assert_eq!(label_name(key, true).as_deref(), want, "{key}");
        }
    }
}
