use proptest::prelude::*;

use super::super::pretty;
use super::*;

/// What a query is printed as, which reads as the same query.
fn check(text: &str, want: &str) {
    let query = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(query.to_string(), want, "{text}");
    for shown in [query.to_string(), pretty(&query)] {
        let again = parse(&shown).unwrap_or_else(|error| panic!("{text} became {shown}: {error}"));
        assert_eq!(again.to_string(), want, "{text} became {shown}");
    }
}

fn same(text: &str) {
    check(text, text);
}

fn fails(text: &str, want: &str) {
    assert_eq!(
        parse(text).map(|query| query.to_string()).map_err(|error| error.to_string()),
        Err(want.to_owned()),
        "{text}"
    );
}

#[test]
fn selectors_and_line_filters() {
    same(r#"{app="a"}"#);
    check(r#"{ app = "a" , b!="c",d=~"e.+", f !~ `g\d`, }"#, r#"{app="a", b!="c", d=~"e.+", f!~"g\\d"}"#);
    check("{app=\"a\"} # a comment\n|= `x`", r#"{app="a"} |= "x""#);
    same(r#"{app="a"} |= "x" != "y" |~ "a.*b" !~ "c" |> "<_> x" !> "y <_>""#);
    same(r#"{app="a"} |= "x" or "y" or ip("10.0.0.0/8") != ip("10.0.0.1-10.0.0.9")"#);
    check(r#"({app="a"} |= "x")"#, r#"{app="a"} |= "x""#);
    same(r#"{app="a"} |= "\xff""#);
}

#[test]
fn parsers_and_formats() {
    same(r#"{a="b"} | json"#);
    same(r#"{a="b"} | json != "x" or "y" | json"#);
    same(r#"{a="b"} | logfmt !~ "x" | decolorize != "y""#);
    check(r#"{a="b"} | json x="a.b[0]", y"#, r#"{a="b"} | json x="a.b[0]",y="y""#);
    same(r#"{a="b"} | logfmt --strict --keep-empty x="y""#);
    same(r#"{a="b"} | pattern "<ip> - <_> <status>""#);
    same(r#"{a="b"} | regexp "(?P<x>a+)" | unpack | decolorize"#);
    same(r#"{a="b"} | line_format "{{.x}} y" | label_format a=b,c="{{.d | upper}}""#);
    same(r#"{a="b"} | drop x,y="1",z=~"2" | keep a,b!="c""#);
}

#[test]
fn label_filters() {
    same(r#"{a="b"} | x="1""#);
    check(r#"{a="b"} | x > 5 | y = 1e3 | z != -0.5"#, r#"{a="b"} | x>5 | y==1000 | z!=-0.5"#);
    check(r#"{a="b"} | d >= 1m30s and s < 20MB"#, r#"{a="b"} | ( d>=1m30s , s<20MB )"#);
    check(
        r#"{a="b"} | x="1" or y="2" and z="3", w="4""#,
        r#"{a="b"} | ( x="1" or ( y="2" , z="3" , w="4" ) )"#,
    );
    check(r#"{a="b"} | (x="1" or y="2") z="3""#, r#"{a="b"} | ( ( x="1" or y="2" ) , z="3" )"#);
    same(r#"{a="b"} | addr=ip("::1") | json="x" | __error__="""#);
    same(r#"{a="b"} | d>-5s"#);
}

#[test]
fn metrics() {
    same(r#"count_over_time({a="b"} [5m])"#);
    check(r#"rate({a="b"}[1h] |= "x")"#, r#"rate({a="b"} |= "x" [1h])"#);
    check(r#"rate(({a="b"} | json)[5m])"#, r#"rate({a="b"} | json [5m])"#);
    check(r#"rate(({a="b"} | json [5m]))"#, r#"rate({a="b"} | json [5m])"#);
    check(r#"bytes_rate({a="b"}[90s] offset -1h)"#, r#"bytes_rate({a="b"} [1m30s] offset -1h)"#);
    check(
        r#"quantile_over_time(0.99, {a="b"} | json | unwrap duration(t) | __error__="" [1m]) by (x, y)"#,
        r#"quantile_over_time(0.99,{a="b"} | json | unwrap duration(t) | __error__="" [1m]) by (x, y)"#,
    );
    same(r#"sum by (level, detected_level) (count_over_time({a="b"} [1m]))"#);
    check(r#"topk(3, sum(rate({a="b"}[1m])) by (x))"#, r#"topk(3,sum by (x) (rate({a="b"} [1m])))"#);
    check(
        r#"sum(rate({a="b"}[1m])) / on (x) group_left (y) sum without (z) (rate({a="b"}[1m])) * 2"#,
        r#"(sum(rate({a="b"} [1m])) / on (x) group_left (y) sum without (z) (rate({a="b"} [1m]))) * 2"#,
    );
    check("vector(1)+vector(1)", "vector(1.000000) + vector(1.000000)");
    same(r#"label_replace(rate({a="b"} [1m]),"x","$1","a","(.*)")"#);
    check(
        r#"rate({a="b"}[1m]) > bool 0 or vector(0)"#,
        r#"(rate({a="b"} [1m]) > bool 0) or vector(0.000000)"#,
    );
    check("1 + 2 * 3 ^ 2", "1 + (2 * (3 ^ 2))");
    same(r#"sort_desc(sum by (x) (rate({a="b"} [1m])))"#);
}

#[test]
fn long_queries_are_broken_into_lines() {
    let query = r#"sum by (level) (count_over_time({namespace="shop", container="checkout"} |= "error" | json | status >= 500 [5m]))"#;
    let want = r#"sum by (level) (
  count_over_time({namespace="shop", container="checkout"} |= "error" | json | status>=500 [5m])
)"#;
    assert_eq!(pretty(&parse(query).unwrap()), want);
    let query = r#"rate({namespace="shop", container="checkout", pod=~"checkout-.*"} |= "error" | json | status >= 500 [5m]) > 1"#;
    let want = r#"  rate(
    {namespace="shop", container="checkout", pod=~"checkout-.*"}
      |= "error"
      | json
      | status>=500 [5m]
  )
>
  1"#;
    assert_eq!(pretty(&parse(query).unwrap()), want);
}

#[test]
fn errors_are_worded_as_in_loki() {
    fails(r#"{foo="bar""#, "parse error at line 1, col 11: syntax error: unexpected $end, expecting } or ,");
    fails("", "parse error at line 1, col 1: syntax error: unexpected $end");
    fails(
        r#"{foo="bar"} |="#,
        "parse error at line 1, col 15: syntax error: unexpected $end, expecting STRING",
    );
    fails(r#"unk({foo="bar"}[5m])"#, "parse error at line 1, col 1: syntax error: unexpected IDENTIFIER");
    fails(r#"rate({foo="bar"}[5m)"#, "parse error at line 1, col 17: missing closing ']' in duration");
    fails("{foo=\"bar\"}\n| ~", "parse error at line 2, col 3: syntax error: unexpected ~");
    fails(
        r#"rate({foo="bar"})"#,
        "parse error at line 1, col 17: syntax error: unexpected ), expecting RANGE",
    );
    fails(r#"{foo="bar"}[5m]"#, "parse error at line 1, col 12: syntax error: unexpected RANGE");
    fails(r#"rate({foo="bar"}[10f])"#, "parse error at line 1, col 17: not a valid duration string: \"10f\"");
    fails("{foo=\"bar", "parse error at line 1, col 6: literal not terminated");
    let needs = "parse error : queries require at least one regexp or equality matcher that does not have an empty-compatible value. For instance, app=~\".*\" does not meet this requirement, but app=~\".+\" will";
    fails("{}", needs);
    fails(r#"{app=~".*", b!="x"}"#, needs);
    fails("count_over_time({}[5m])", needs);
    fails(r#"sum_over_time({a="b"}[5m])"#, "parse error : invalid aggregation sum_over_time without unwrap");
    fails(
        r#"count_over_time({a="b"} | unwrap x [5m])"#,
        "parse error : invalid aggregation count_over_time with unwrap",
    );
    fails(r#"rate({a="b"}[5m]) by (x)"#, "parse error : grouping not allowed for rate aggregation");
    fails(
        r#"quantile_over_time({a="b"} | unwrap x [5m])"#,
        "parse error : parameter required for operation quantile_over_time",
    );
    fails(r#"topk(0, rate({a="b"}[5m]))"#, "parse error : invalid parameter (must be greater than 0) topk(0");
    fails(r#"topk(rate({a="b"}[5m]))"#, "parse error : parameter required for operation topk");
    fails(
        r#"1 and rate({a="b"}[5m])"#,
        "parse error : unexpected literal for left side of logical/set binary operation (and): 1",
    );
    fails("sum(1)", "parse error : sum takes series, not a number; write vector(1)");
    fails(r#"{a="b"} | regexp "(a)""#, "parse error : at least one named capture must be supplied");
    fails(r#"{a="b"} | pattern "<_>""#, "parse error : at least one capture is required");
    fails(
        r#"{a="b"} | label_format a=b,a=c"#,
        "parse error : multiple label name 'a' not allowed in a single format operation",
    );
    fails(r#"rate(({a="b"}))"#, "parse error at line 1, col 14: syntax error: unexpected ), expecting RANGE");
    for text in [
        r#"{a=~"("}"#,
        r#"{a="b"} |~ "(""#,
        r#"{a="b"} | line_format "{{""#,
        r#"{a="b"} | json x="[""#,
        r#"{a="b"} |= ip("x")"#,
        r#"{a="b"} | logfmt --nope"#,
        "8e566",
        r#"{a="b"} | logfmt | x > 1e999"#,
        "1 1",
        "-",
        "{a=\"b\"} |= \"x\" or",
        "[5m]",
    ] {
        assert!(parse(text).is_err(), "{text}");
    }
}

#[test]
fn bombs_are_refused() {
    for text in [
        "(".repeat(16_000),
        "1+".repeat(8_000) + "1",
        format!("{}vector(1){}", "sum(".repeat(4_000), ")".repeat(4_000)),
        format!("{{a=\"b\"}} | {}x=\"1\"{}", "(".repeat(5_000), ")".repeat(5_000)),
        format!("rate({}{{a=\"b\"}}[1m]{})", "(".repeat(5_000), ")".repeat(5_000)),
        format!("{{a=\"b\"}}{}", " |= \"x\"".repeat(2_000)),
        "x".repeat(17_000),
    ] {
        assert!(parse(&text).is_err());
    }
}

proptest! {
    #[test]
    fn no_text_panics(text in "[{}()\\[\\]|=~!><\"`a-f0-9 ,.#_éors-]{0,60}") {
        let _ = parse(&text);
    }

    #[test]
    fn no_near_query_panics(parts in proptest::collection::vec(prop::sample::select(vec![
        "{a=\"b\"}", "|=", "|>", "\"x\"", "| json", "| logfmt", "x=\"y\"", "x>5", "| unwrap x", "[5m]", "rate(", "sum by (x)", "(", ")", "or", "and", "+", "1", ",",
        "quantile_over_time(", "0.5,", "offset 1m", "| line_format", "| drop", "ip(", "vector(1)", "| label_format", "a=b", "topk(", "2,",
    ]), 0..12)) {
        let text = parts.join(" ");
        if let Ok(query) = parse(&text) {
            let printed = query.to_string();
            let again = parse(&printed).unwrap_or_else(|error| panic!("{text} became {printed}: {error}"));
            prop_assert_eq!(again.to_string(), printed);
        }
    }
}
