use super::*;
use crate::labels::Labels;
use crate::log::{FieldValue, Origin};

fn entry() -> LogEntry {
    LogEntry {
        time: LogTime(1),
        received: LogTime(1),
        stream: Labels::new([("service", "Payment"), ("namespace", "shop"), ("cluster", "eu-1")]).unwrap(),
        level: "error".into(),
        message:
            br#"{"msg":"Connection to 10.0.0.1:8080 refused","http":{"status":503},"path":"/api/v1/cart"}"#
                .to_vec(),
        attributes: vec![
            ("trace_id".into(), FieldValue::Text("abc123".into())),
            ("user.name".into(), FieldValue::Text("Ada Lovelace".into())),
        ],
        origin: Origin::default(),
    }
}

fn holds(field: &str, test: Test) -> bool {
    LogQuery::Value { field: Field::named(field), test }.matches(&entry())
}

#[test]
fn phrases_match_without_case() {
    let check = |field: &str, text: &str, want: bool| {
        assert_eq!(holds(field, Test::Phrase(Phrase::new(text))), want, "{field}:{text}");
    };
    check("message", "REFUSED", true);
    check("message", "refuse", false);
    check("message", "10.0.0.1:8080", true);
    check("message", "refused connection", false);
    check("service", "payment", true);
    check("service.name", "pay", false);
    check("level", "ERROR", true);
    check("user.name", "lovelace", true);
    check("http.status", "503", true);
    check("http.status", "503.0", true);
    check("path", "/api/v1", true);
    check("cluster", "EU-1", true);
    check("absent", "x", false);
    let prefix = |text| Test::Phrase(Phrase::new(text).with_prefix());
    assert!(holds("message", prefix("refuse")) && holds("service.name", prefix("pay")));
    let slop = |slop| Test::Phrase(Phrase::new("connection refused").with_slop(slop));
    assert!(holds("message", slop(6)) && !holds("message", slop(5)));
}

#[test]
fn values_are_tested_as_what_they_are() {
    let number = |low, high| Test::Number { low, high };
    assert!(holds("http.status", number(Bound::Included(500.0), Bound::Unbounded)));
    assert!(!holds("http.status", number(Bound::Excluded(503.0), Bound::Unbounded)));
    assert!(holds("message", Test::Ip(IpRange::parse("10.0.0.0/24").unwrap())));
    assert!(!holds("message", Test::Ip(IpRange::parse("10.0.1.0/24").unwrap())));
    assert!(holds("path", Test::Wildcard(Wildcard::prefix("/api/"))));
    assert!(holds("message", Test::Fuzzy { word: "conection".into(), distance: 1 }));
    assert!(holds("message", Test::Regex(LogRegex::new("ref.sed\"").unwrap())));
    let text = |low: &str, high: &str| Test::Text {
        low: Bound::Included(low.into()),
        high: Bound::Excluded(high.into()),
    };
    assert!(holds("trace_id", text("abc", "abd")) && !holds("trace_id", text("abd", "abe")));
}

#[test]
fn lines_and_labels_are_compared_as_loki_does() {
    let entry = entry();
    let line = |needle: &[u8]| LogQuery::Line(LineTest::Contains(needle.to_vec())).matches(&entry);
    assert!(line(b"onnection to 10.0.0.1") && !line(b"connection to"));
    for (name, value) in [
        ("service_name", "Payment"),
        ("detected_level", "error"),
        ("trace_id", "abc123"),
        ("user_name", "Ada Lovelace"),
        ("nothing", ""),
    ] {
        assert!(LogQuery::Label(Matcher::equal(name, value)).matches(&entry), "{name}");
    }
}

#[test]
fn edits_are_counted() {
    for (a, b, distance) in [
        ("abc", "abc", 0),
        ("abc", "acb", 1),
        ("abc", "ab", 1),
        ("kitten", "sitten", 1),
        ("kitten", "sitting", 3),
        ("", "ab", 2),
    ] {
        for most in 0..4 {
            assert_eq!(edit_distance_within(a, b, most), distance <= most, "{a} {b} {most}");
        }
    }
}

#[test]
fn addresses_lie_in_ranges() {
    let holds = |range: &str, text: &str| IpRange::parse(range).unwrap().is_in(text);
    assert!(holds("10.0.0.0/8", "from 10.9.8.7:443 to [2001:db8::1]:80"));
    assert!(holds("2001:db8::/32", "from 10.9.8.7:443 to [2001:db8::1]:80"));
    assert!(holds("10.0.0.1-10.0.0.9", "10.0.0.9."));
    assert!(!holds("10.0.0.1", "10.0.0.10") && !holds("0.0.0.0/0", "12:30:01 a.b"));
    assert_eq!(IpRange::parse("10.0.0.0/33"), None);
    assert_eq!(IpRange::parse("10.0.0.9-10.0.0.1"), None);
}
