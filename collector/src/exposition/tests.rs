use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn samples(page: &str, format: Format) -> Result<Vec<(String, f64, Option<i64>)>, String> {
    let mut found = Vec::new();
    parse(page.as_bytes(), format, |line| {
        if let Line::Sample { series, value, timestamp, .. } = line {
            let mut pairs = decode_series(series).unwrap();
            pairs.sort();
            let text: Vec<String> = pairs.iter().map(|(n, v)| format!("{n}={v}")).collect();
            found.push((text.join("|"), value, timestamp.map(|time| time.0)));
        }
    })
    .map_err(|error| error.to_string())?;
    Ok(found)
}

fn check(line: &str, series: &str, value: f64, time: Option<i64>) {
    let found = samples(line, Format::Text).unwrap();
    assert_eq!(found.len(), 1, "{line}");
    assert_eq!((found[0].0.as_str(), found[0].2), (series, time), "{line}");
    assert!(found[0].1 == value || (found[0].1.is_nan() && value.is_nan()), "{line}");
}

/// Among them the lines that `prometheus-parse` 0.2.5 loses or reads wrongly.
#[test]
fn legal_lines_are_read() {
    check("up 1", "__name__=up", 1.0, None);
    check("up{} 1 1395066363000\n", "__name__=up", 1.0, Some(1_395_066_363_000));
    check("a{b=\"c\",} -1.5e3", "__name__=a|b=c", -1500.0, None);
    check("  {\"a\",b=\"c\",} 2", "__name__=a|b=c", 2.0, None);
    check("a{b=\"c\"}1", "__name__=a|b=c", 1.0, None);
    check("up{path=\"/a=b\"} 1", "__name__=up|path=/a=b", 1.0, None);
    check("a{a=\"x,y\", id=\"{id}\"} 1", "__name__=a|a=x,y|id={id}", 1.0, None);
    check("a{b=\"q\\\"u\\\\o\\nt\"} 1", "__name__=a|b=q\"u\\o\nt", 1.0, None);
    check("a { b = \"c\" , d=\"e\" } 1", "__name__=a|b=c|d=e", 1.0, None);
    check("job:up:sum 3", "__name__=job:up:sum", 3.0, None);
    check("{\"my.metric\",\"a.b\"=\"c\"} 5", "__name__=my.metric|a.b=c", 5.0, None);
    check("x +Inf", "__name__=x", f64::INFINITY, None);
    check("x NaN", "__name__=x", f64::NAN, None);
    check("h_bucket{le=\"1\"} 1", "__name__=h_bucket|le=1.0", 1.0, None);
    check("a-1", "__name__=a", -1.0, None);
    check("a{b=\"c\"d=\"e\" f=\"g\"} 1", "__name__=a|b=c|d=e|f=g", 1.0, None);
    check("a{b=\"c\nd\"} 1", "__name__=a|b=c\nd", 1.0, None);
    check("a 1\n\0b 2", "__name__=a", 1.0, None);
    check("h_bucket{le=\"+Inf\"} 1", "__name__=h_bucket|le=+Inf", 1.0, None);
    check("s{quantile=\"0.5\"} 1", "__name__=s|quantile=0.5", 1.0, None);
    check("# just a comment\n\n#\na 1", "__name__=a", 1.0, None);
}

#[test]
fn malformed_pages_are_refused_with_a_place() {
    let error = |page: &str| samples(page, Format::Text).unwrap_err();
    assert_eq!(error("a 1\nb{c=\"d\" 2"), "line 2, column 9: a label's name was expected");
    assert_eq!(error("a one"), "line 1, column 3: the value is no number");
    for page in [
        "1a 1",
        "a",
        "a{b=c} 1",
        "a{b=\"c} 1",
        "a{b} 1",
        "a{b=\"c\"} 1 2 3",
        "a 1 x",
        "{} 1",
        "a{1b=\"c\"} 1",
        "a 1 # {} 1",
        "# TYPE a nothing",
        "a{b=\"\u{fffd}\"} ",
        "a\t",
        "a{,} 1",
        "{\"a\",\"b\"} 1",
    ] {
        assert!(samples(page, Format::Text).is_err(), "{page}");
    }
    assert!(parse(b"a{b=\"\xff\"} 1", Format::Text, |_| {}).is_err());
}

#[test]
fn openmetrics_has_seconds_exemplars_and_an_end() {
    let page = "# TYPE a counter\na_total 1 1.5 # {trace_id=\"x\"} 0.7 1.2\n# EOF\n";
    let found = samples(page, Format::OpenMetrics).unwrap();
    assert_eq!(found, [("__name__=a_total".to_owned(), 1.0, Some(1500))]);
    assert!(samples("a 1\n", Format::OpenMetrics).unwrap_err().contains("# EOF"));
    assert!(samples("# EOF\na 1\n", Format::OpenMetrics).unwrap_err().contains("after # EOF"));
}

#[test]
fn metadata_is_seen() {
    let mut seen = Vec::new();
    let page = b"# HELP a_s Some help.\n# TYPE a_s unknown\n# UNIT a_s s\n# EOF\n";
    parse(page, Format::OpenMetrics, |line| seen.push(format!("{line:?}"))).unwrap();
    assert_eq!(seen, [r#"Help("a_s", "Some help.")"#, r#"Type("a_s", "unknown")"#, r#"Unit("a_s", "s")"#]);
}

type Page = BTreeMap<String, f64>;

/// A page as the oracle reads it, of gauges only: it folds other kinds together.
fn oracle(page: &str) -> Page {
    let lines = page.lines().map(|line| Ok(line.to_owned()));
    let scrape = prometheus_parse::Scrape::parse(lines).unwrap();
    let mut found = Page::new();
    for sample in scrape.samples {
        let mut pairs: Vec<String> = sample.labels.iter().map(|(n, v)| format!("{n}={v}")).collect();
        pairs.push(format!("__name__={}", sample.metric));
        pairs.sort();
        let value = match sample.value {
            prometheus_parse::Value::Gauge(value)
            | prometheus_parse::Value::Untyped(value)
            | prometheus_parse::Value::Counter(value) => value,
            other => panic!("{other:?}"),
        };
        found.insert(pairs.join("|"), value);
    }
    found
}

proptest! {
    /// Where `prometheus-parse` is right, we agree: plain names, label values without signs.
    #[test]
    fn we_agree_with_prometheus_parse_where_it_is_right(
        lines in proptest::collection::vec(
            ("[a-z][a-z0-9_]{0,8}x", proptest::collection::btree_map("[a-z]{1,5}y", "[a-zA-Z0-9/ .-]{1,8}", 1..4), -1_000_000i64..1_000_000),
            1..20,
        ),
    ) {
        let mut page = String::new();
        for (name, labels, value) in &lines {
            let labels: Vec<String> = labels.iter().map(|(n, v)| format!("{n}=\"{v}\"")).collect();
            page.push_str(&format!("{name}{{{}}} {value}\n", labels.join(",")));
        }
        let mut ours = Page::new();
        for (series, value, _) in samples(&page, Format::Text).unwrap() {
            ours.insert(series, value);
        }
        prop_assert_eq!(ours, oracle(&page));
    }

    #[test]
    fn no_page_panics(page in "[a-c_:{}\"=,\\\\ \t\n#0-9.eInfNa+-]{0,80}") {
        for format in [Format::Text, Format::OpenMetrics] {
            let _ = parse(page.as_bytes(), format, |line| {
                if let Line::Sample { series, .. } = line {
                    let _ = decode_series(series);
                }
            });
        }
    }
}

/// Real pages: every good one is read, to its last line.
#[test]
fn real_pages_are_read() {
    let shared = std::env::var("BINNACLE_SHARED").unwrap_or_else(|_| "../../shared".to_owned());
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(shared).join("real/exposition/good");
    if !dir.is_dir() {
        println!("SKIPPED 1: no pages at {}", dir.display());
        return;
    }
    let mut read = 0;
    let mut dirs = vec![dir];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if !path.ends_with("from_test_parse_3.txt") {
                // That one has a time before 1970, which Prometheus refuses, too.
                read += read_page(&path);
            }
        }
    }
    assert!(read > 10_000, "{read} samples");
}

fn read_page(path: &std::path::Path) -> usize {
    let page = std::fs::read(path).unwrap();
    let is_open = page.ends_with(b"# EOF\n") || page.ends_with(b"# EOF");
    let format = if is_open { Format::OpenMetrics } else { Format::Text };
    let mut count = 0;
    let outcome = parse(&page, format, |line| {
        if let Line::Sample { series, .. } = line {
            decode_series(series).unwrap();
            count += 1;
        }
    });
    assert_eq!(outcome, Ok(()), "{}", path.display());
    count
}
