use binnacle_model::log::{LogEntry, Origin};
use binnacle_model::{Labels, LogTime};
use proptest::prelude::*;

use super::*;

fn entry() -> LogEntry {
    LogEntry {
        time: LogTime(1_700_000_000_123_456_789),
        received: LogTime(0),
        stream: Labels::new([("app", "Api"), ("n", "12"), ("path", "/a b")]).unwrap(),
        level: String::new(),
        message: b"the line".to_vec(),
        attributes: Vec::new(),
        origin: Origin::default(),
    }
}

fn run(text: &str) -> Result<String, String> {
    Template::new(text)?.run(&Row::new(&entry()))
}

fn check(text: &str, want: &str) {
    assert_eq!(run(text), Ok(want.to_owned()), "{text}");
}

#[test]
fn texts_and_labels() {
    check("plain", "plain");
    check("{{.app}}-{{ .absent }}-{{ $.n }}", "Api--12");
    check("a {{- .app -}} b{{/* nothing */}}", "aApib");
    check("{{`raw }}`}}{{\"x\\ty\"}}", "raw }}x\ty");
    check("{{ $x := .app | ToLower }}{{ $x }}{{ $x = \"y\" }}{{ $x }}", "apiy");
    check(
        "{{__line__}} {{ __timestamp__ | unixEpoch }} {{ unixEpochMillis __timestamp__ }}",
        "the line 1700000000 1700000000123",
    );
}

#[test]
fn conditions() {
    check("{{ if eq .app \"Api\" }}yes{{ else }}no{{ end }}", "yes");
    check("{{if .absent}}a{{else if gt (int .n) 10}}b{{else}}c{{end}}", "b");
    check("{{ if and .app (not .absent) }}x{{ end }}", "x");
    check("{{ if or .absent (contains \"pi\" .app) }}x{{ end }}", "x");
}

#[test]
fn functions_are_those_of_loki() {
    check("{{ .app | upper | trunc 2 }}", "AP");
    check("{{ Replace .path \" \" \"+\" -1 }}{{ replace \"a\" \"b\" .path }}", "/a+b/b b");
    check("{{ regexReplaceAll \"(a) (b)\" .path \"${2}${1}\" }}", "/ba");
    check("{{ regexReplaceAllLiteral \"[ab]\" .path \"$1\" }}", "/$1 $1");
    check("{{ add .n 1 }} {{ mul 2 3 4 }} {{ div 7 2 }} {{ divf 7 2 }} {{ mod 7 4 }}", "13 24 3 3.5 3");
    check("{{ round 1.2345 2 }} {{ ceil 1.2 }} {{ maxf 1.5 2 }} {{ min 3 2 }}", "1.23 2 2 2");
    check("{{ printf \"%-5s|%5.1f|%03d|%q|%v%%\" .app 1.25 7 .n true }}", "Api  |  1.2|007|\"12\"|true%");
    check("{{ alignLeft 5 .app }}|{{ alignRight 2 .app }}", "Api  |pi");
    check("{{ urlencode .path }} {{ urldecode \"a%20b\" }}", "%2Fa+b a b");
    check("{{ b64enc .app }} {{ b64dec \"QXBp\" }} {{ b64enc \"ab\" }}", "QXBp Api YWI=");
    check("{{ duration \"1m30s\" }} {{ bytes \"2KiB\" }}", "90 2048");
    check("{{ default \"-\" .absent }} {{ .absent | default \"?\" }} {{ len .app }}", "- ? 3");
    check("{{ TrimPrefix .app \"A\" }} {{ trimSuffix \"i\" .app }} {{ Trim .path \"/b\" }}|", "pi Ap a |");
    check(
        "{{ substr 1 3 .app }} {{ repeat 2 \"x\" }} {{ count \"[ab]\" .path }} {{ title \"a b\" }}",
        "pi xx 2 A B",
    );
    check("{{ indent 1 \"a\\nb\" }}", " a\n b");
}

#[test]
fn bad_templates_say_why() {
    for (text, reason) in [
        ("{{.a", "unclosed action"),
        ("{{ if .a }}", "unexpected EOF"),
        ("{{ end }}", "unexpected {{end}}"),
        ("{{ nope .a }}", "function \"nope\" not defined"),
        ("{{ .a .b }}", "can't give argument"),
        ("{{ }}", "missing value"),
        ("{{ range .a }}{{ end }}", "not supported"),
        ("{{ (.a }}", "unclosed left paren"),
    ] {
        let error = Template::new(text).unwrap_err();
        assert!(error.contains(reason), "{text}: {error}");
    }
    for text in
        ["{{ div 1 0 }}", "{{ repeat 1000000 \"long text\" }}", "{{ $x }}", "{{ upper }}", "{{ bytes .app }}"]
    {
        assert!(run(text).is_err(), "{text}");
    }
    let deep = format!("{{{{ {}.a{} }}}}", "(".repeat(5000), ")".repeat(5000));
    assert!(Template::new(&deep).unwrap_err().contains("deeper"));
}

proptest! {
    #[test]
    fn no_template_panics(text in "[{}(). |$a\"`=:ifelsend0-9é-]{0,60}") {
        let _ = run(&text);
    }

    #[test]
    fn no_call_panics(at in 0..functions::FUNCTIONS.len(), args in proptest::collection::vec("[a-c0-9%.-]{0,4}", 0..4)) {
        let name = functions::FUNCTIONS[at].0;
        let args: Vec<String> = args.iter().map(|arg| format!("{arg:?}")).collect();
        let _ = run(&format!("{{{{ {name} {} }}}}", args.join(" ")));
    }
}
