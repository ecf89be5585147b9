use super::*;

fn error(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

/// The query with parentheses around all that has operands, and none else.
fn grouped(expr: &Expr) -> String {
    match &expr.kind {
        Kind::Paren(inner) => grouped(inner),
        Kind::Binary(binary) => {
            format!("({} {} {})", grouped(&binary.left), binary.op.as_str(), grouped(&binary.right))
        }
        Kind::Unary { minus, expr } => format!("({}{})", if *minus { "-" } else { "+" }, grouped(expr)),
        _ => expr.to_string(),
    }
}

fn check_grouping(text: &str, want: &str) {
    assert_eq!(grouped(&parse(text).unwrap()), want, "{text}");
}

#[test]
fn operators_bind_as_in_prometheus() {
    check_grouping("1 + 2 * 3", "(1 + (2 * 3))");
    check_grouping("2 ^ 3 ^ 2", "(2 ^ (3 ^ 2))");
    check_grouping("a - b - c", "((a - b) - c)");
    check_grouping("a or b and c", "(a or (b and c))");
    check_grouping("-a ^ 2", "(-(a ^ 2))");
    check_grouping("-a * b", "((-a) * b)");
    check_grouping("a == b + 1", "(a == (b + 1))");
    check_grouping("a atan2 b % c", "((a atan2 b) % c)");
    check_grouping("a or b unless c", "(a or (b unless c))");
}

#[test]
fn what_is_printed_is_what_prometheus_prints() {
    for (text, want) in [
        ("sum(x)by(a,b)", "sum by (a, b) (x)"),
        ("sum without () (x)", "sum without () (x)"),
        ("topk(3,x)", "topk(3, x)"),
        ("a*on(b)group_left(c)d", "a * on (b) group_left (c) d"),
        ("a>bool b", "a > bool b"),
        ("{__name__=\"a.b\"}", "{__name__=\"a.b\"}"),
        ("x{a=\"1\",b!~'2'}[5m] offset -1h", "x{a=\"1\",b!~\"2\"}[5m] offset -1h"),
        ("x @ 1.5", "x @ 1.500"),
        ("x @ end() offset 90s", "x @ end() offset 1m30s"),
        ("rate(x[300])[1h:]", "rate(x[5m])[1h:]"),
        ("count_values(\"v\",x)", "count_values(\"v\", x)"),
    ] {
        assert_eq!(parse(text).unwrap().to_string(), want, "{text}");
    }
}

#[test]
fn long_queries_are_printed_on_several_lines() {
    let text = "sum by (job) (rate(http_requests_total{code=~\"5..\"}[5m])) / sum by (job) (rate(http_requests_total[5m]))";
    let want = "  sum by (job) (rate(http_requests_total{code=~\"5..\"}[5m]))\n/\n  sum by (job) (rate(http_requests_total[5m]))";
    assert_eq!(crate::promql::pretty(&parse(text).unwrap()), want);
    assert_eq!(crate::promql::pretty(&parse("up==1").unwrap()), "up == 1");
}

const ACCEPTED: &[&str] = &[
    "up",
    "up{}",
    "{__name__=\"up\"}",
    "{\"my.metric\", \"a.b\"=\"c\"}",
    "sum by (a) (x)",
    "sum(x) by (a,)",
    "sum without() (x)",
    "SUM(x)",
    "rate(x[5m] offset 1h)",
    "x @ start()",
    "x @ 2m",
    "rate(x[5m:1m])",
    "max_over_time(rate(x[5m])[1h:])",
    "a * on(b) group_left(c) d",
    "a == bool 1",
    "1 < bool 2",
    "-x",
    "+x",
    "x offset -5m",
    "topk(3, x)",
    "job:a:sum",
    "quantile(0.9, x)",
    "count_values(\"v\", x)",
    "0x1f",
    "1e3",
    ".5",
    "Inf",
    "nan",
    "5m",
    "sum",
    "by",
    "offset",
    "x{by=\"1\"}",
    "# comment\nup",
    "x[300]",
    "time()",
    "vector(1)",
    "label_replace(x, \"a\", \"$1\", \"b\", \"(.*)\")",
    "x{a=~\"b|c\",d!=\"\",}",
    "absent(x)",
    "x[5m + 1m]",
    "x[step()]",
    "x[5m] anchored",
    "x smoothed",
    "x </ 2",
    "a * ignoring() group_left b",
    "a + fill(0) b",
    "a + on(b) group_left fill_right(1) c",
    "info(x, {version=~\".+\"})",
    "limitk(2, x)",
    "limit_ratio(-0.5, x)",
    "histogram_quantile(0.9, x)",
    "x[5m:1m] @ end() offset -5m",
    "sum by (\"a.b\") (x)",
    "F ^ inf ^ z",
    "-inf ^ x",
];

#[test]
fn what_prometheus_accepts_is_accepted() {
    for text in ACCEPTED {
        assert!(parse(text).is_ok(), "{text}: {}", error(text));
    }
}

#[test]
fn a_printed_query_reads_as_the_same_query() {
    for text in ACCEPTED {
        let printed = parse(text).unwrap().to_string();
        let again = parse(&printed).unwrap_or_else(|error| panic!("{text} became {printed}: {error}"));
        assert_eq!(again.to_string(), printed, "{text}");
    }
}

#[test]
fn errors_name_the_place() {
    assert_eq!(error("sum(rate(x[5m])"), "1:16: parse error: unclosed left parenthesis");
    assert_eq!(error("x{"), "1:3: parse error: unexpected end of input inside braces");
    assert_eq!(error(""), "1:1: parse error: no expression found in input");
    assert_eq!(error("a\n+ foo(b)"), "2:3: parse error: unknown function with name \"foo\"");
    assert!(
        error("rate(x)")
            .contains("expected type range vector in call to function \"rate\", got instant vector")
    );
    assert!(error("{}").contains("at least one non-empty matcher"));
    assert!(error("1 == 1").contains("must use BOOL modifier"));
    assert!(error("1 and x").contains("set operator \"and\" not allowed"));
    assert!(error("x{a=~\"(\"}").contains("error parsing regexp"));
    assert!(error("x[5m] offset 1m offset 2m").contains("multiple times"));
    for text in
        ["a b", "x{", "x{a}", "x[", "x[5m", "sum()", "@", "\"abc", "1h1h", "a ==", "((1)", "x[0]", "café"]
    {
        assert!(parse(text).is_err(), "{text}");
    }
}

#[test]
fn bombs_are_refused_and_long_flat_queries_are_not() {
    for bomb in ["(".repeat(5000), "sum(".repeat(5000), "-".repeat(5000), "a+".repeat(5000) + "a"] {
        assert!(error(&bomb).contains("deeper") || error(&bomb).contains("unexpected"), "{}", &bomb[..20]);
    }
    let flat = format!("x{{a=~\"{}\"}}", "word|".repeat(5000));
    assert!(parse(&flat).is_ok());
    assert!(parse(&"a+".repeat(300).add("a")).is_ok());
}

use std::ops::Add;

proptest::proptest! {
    #[test]
    fn no_text_panics(text in "[a-z(){}\\[\\]\"'@:+*/^=~! 0-9.\\\\\n]{0,60}") {
        let _ = parse(&text);
    }
}
