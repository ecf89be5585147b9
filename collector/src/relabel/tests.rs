use super::*;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::new(pairs.iter().copied()).unwrap()
}

fn rules(yaml: &str) -> Result<Vec<Rule>, RuleError> {
    let raw: Vec<RawRule> = serde_saphyr::from_str(yaml).unwrap();
    raw.into_iter().map(Rule::try_from).collect()
}

/// The labels after the rules, in PromQL's words; `-` if nothing is left.
fn check(input: &[(&str, &str)], yaml: &str, want: &str) {
    let found = relabel(&labels(input), &rules(yaml).unwrap());
    let found = found.map_or_else(|| "-".to_owned(), |labels| labels.to_string());
    assert_eq!(found, want, "{yaml}");
}

/// The cases of Prometheus's own `model/relabel/relabel_test.go`, in substance.
#[test]
fn rules_do_what_they_do_in_prometheus() {
    let abc = &[("a", "foo"), ("b", "bar"), ("c", "baz")][..];
    check(
        abc,
        "[{source_labels: [a], regex: 'f(.*)', target_label: d, replacement: 'ch${1}-ch${1}'}]",
        r#"{a="foo", b="bar", c="baz", d="choo-choo"}"#,
    );
    check(
        abc,
        "[{source_labels: [a, b], regex: 'f(.*);(.*)r', target_label: a, replacement: 'b${1}${2}m'}, \
          {source_labels: [c, a], regex: '(b).*b(.*)ba(.*)', target_label: d, replacement: '$1$2$2$3'}]",
        r#"{a="boobam", b="bar", c="baz", d="boooom"}"#,
    );
    check(&[("a", "foo")], "[{source_labels: [a], regex: '.*o.*', action: drop}]", "-");
    check(abc, "[{source_labels: [a], regex: 'no-match', action: drop}]", r#"{a="foo", b="bar", c="baz"}"#);
    check(abc, "[{source_labels: [a], regex: 'f|o', action: drop}]", r#"{a="foo", b="bar", c="baz"}"#);
    check(abc, "[{source_labels: [a], regex: no-match, action: keep}]", "-");
    check(abc, "[{source_labels: [a], regex: 'f.*', action: keep}]", r#"{a="foo", b="bar", c="baz"}"#);
    check(
        &[("a", "foo\nbar")],
        "[{source_labels: [a], regex: 'f.*r', target_label: n, replacement: x}]",
        "{a=\"foo\\nbar\", n=\"x\"}",
    );
    check(
        &[("a", "boo")],
        "[{source_labels: [a], regex: 'f', target_label: b, replacement: bar}]",
        r#"{a="boo"}"#,
    );
    // An empty replacement takes the label away; an empty target changes nothing.
    check(
        &[("f", "a"), ("b", "x")],
        "[{source_labels: [f], target_label: b, replacement: ''}]",
        r#"{f="a"}"#,
    );
    check(
        &[("a", "foo")],
        "[{source_labels: [a], regex: '(x)?foo', target_label: '$1', replacement: y}]",
        r#"{a="foo"}"#,
    );
    check(
        &[("a", "some-name-value")],
        "[{source_labels: [a], regex: 'some-([^-]+)-([^,]+)', replacement: '${2}', target_label: '${1}'}]",
        r#"{a="some-name-value", name="value"}"#,
    );
    check(&[("a", "1")], "[{target_label: b, replacement: static}]", r#"{a="1", b="static"}"#);
}

#[test]
fn actions_on_names_hashes_and_equal_values() {
    check(
        &[("a", "foo"), ("b", "bar"), ("c", "baz")],
        "[{source_labels: [c], target_label: d, action: hashmod, modulus: 1000}]",
        r#"{a="foo", b="bar", c="baz", d="976"}"#,
    );
    check(
        &[("a", "foo\nbar")],
        "[{source_labels: [a], target_label: b, action: hashmod, modulus: 1000}]",
        "{a=\"foo\\nbar\", b=\"734\"}",
    );
    check(
        &[("a", "foo"), ("b1", "bar"), ("b2", "baz")],
        "[{regex: '(b.*)', replacement: 'bar_${1}', action: labelmap}]",
        r#"{a="foo", b1="bar", b2="baz", bar_b1="bar", bar_b2="baz"}"#,
    );
    check(
        &[("a", "foo"), ("__meta_my_bar", "aaa"), ("__meta_other", "ccc")],
        "[{regex: '__meta_(my.*)', replacement: '$1', action: labelmap}]",
        r#"{__meta_my_bar="aaa", __meta_other="ccc", a="foo", my_bar="aaa"}"#,
    );
    check(&[("a", "1"), ("b1", "2"), ("b2", "3")], "[{regex: 'b.*', action: labeldrop}]", r#"{a="1"}"#);
    check(
        &[("a", "1"), ("b1", "2"), ("b2", "3")],
        "[{regex: 'b.*', action: labelkeep}]",
        r#"{b1="2", b2="3"}"#,
    );
    check(
        &[("foo", "bAr123Foo")],
        "[{source_labels: [foo], target_label: up, action: uppercase}, {source_labels: [foo], target_label: low, action: lowercase}]",
        r#"{foo="bAr123Foo", low="bar123foo", up="BAR123FOO"}"#,
    );
    let ports = |tmp: &'static str| [("tmp", tmp), ("port", "1234")];
    let keep = "[{source_labels: [tmp], target_label: port, action: keepequal}]";
    let drop = "[{source_labels: [tmp], target_label: port, action: dropequal}]";
    check(&ports("1234"), keep, r#"{port="1234", tmp="1234"}"#);
    check(&ports("5678"), keep, "-");
    check(&ports("1234"), drop, "-");
    check(&ports("5678"), drop, r#"{port="1234", tmp="5678"}"#);
}

#[test]
fn references_are_gos() {
    let found = |template: &str| {
        let regex = Regex::new("^(?s:(?P<name>a+)(b+)?c)$").unwrap();
        expand(template, &regex.captures("aac").unwrap(), &regex)
    };
    for (template, want) in [
        ("$1", "aa"),
        ("${name}-$name", "aa-aa"),
        ("$1x", ""),
        ("${1}x", "aax"),
        ("$2|", "|"),
        ("$9$01", ""),
        ("$$1", "$1"),
        ("$", "$"),
        ("a$-b", "a$-b"),
        ("${1", "${1"),
        ("${}", "${}"),
        ("$0", "aac"),
    ] {
        assert_eq!(found(template), want, "{template}");
    }
}

#[test]
fn what_does_not_go_together_is_refused() {
    for (yaml, want) in [
        ("[{source_labels: [a], action: hashmod, target_label: b}]", "action hashmod: modulus"),
        ("[{source_labels: [a]}]", "action replace: target_label is missing"),
        ("[{source_labels: [a], target_label: b, action: lowercase, replacement: x}]", "replacement cannot"),
        ("[{regex: a, separator: '-', action: labeldrop}]", "takes regex alone"),
        ("[{source_labels: [a], action: labelkeep}]", "takes regex alone"),
        (
            "[{source_labels: [a], target_label: b, regex: x, action: keepequal}]",
            "source_labels and target_label",
        ),
        ("[{source_labels: [a], target_label: b, regex: '('}]", "regex \"(\" cannot be used"),
    ] {
        let error = rules(yaml).unwrap_err().to_string();
        assert!(error.contains(want), "{error} of {yaml}");
    }
    assert!(serde_saphyr::from_str::<Vec<RawRule>>("[{action: burn}]").is_err());
    assert!(serde_saphyr::from_str::<Vec<RawRule>>("[{sources: [a]}]").is_err());
}

#[test]
fn each_step_is_shown_with_its_rule() {
    let all = rules(
        "[{source_labels: [a, b], target_label: c}, {regex: 'a|b', action: LabelDrop}, \
          {source_labels: [c], regex: 'x;y', action: drop}, {target_label: d, replacement: z}]",
    );
    let all = all.unwrap();
    let after = steps(&labels(&[("a", "x"), ("b", "y")]), &all);
    let shown: Vec<String> =
        after.iter().map(|one| one.as_ref().map_or_else(|| "-".to_owned(), Labels::to_string)).collect();
    assert_eq!(shown, [r#"{a="x", b="y", c="x;y"}"#, r#"{c="x;y"}"#, "-", "-"], "what is gone stays so");
    let json: Vec<String> = all.iter().map(|rule| serde_json::to_string(rule).unwrap()).collect();
    assert_eq!(
        json[0],
        r#"{"sourceLabels":["a","b"],"separator":";","regex":"(.*)","targetLabel":"c","replacement":"$1","action":"replace"}"#
    );
    assert_eq!(json[1], r#"{"separator":";","regex":"a|b","replacement":"$1","action":"labeldrop"}"#);
    let hashed = rules("[{source_labels: [a], modulus: 7, target_label: b, action: hashmod}]").unwrap();
    assert_eq!(serde_json::to_value(&hashed[0]).unwrap()["modulus"], 7);
}
