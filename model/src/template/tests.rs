//! Tables of templates with what Go's makes of them.

use super::*;

struct None0;

impl Functions for None0 {
    fn names(&self) -> &[(&'static str, usize, usize)] {
        &[("upper", 1, 1)]
    }

    fn call(&self, _: &str, args: &[Value]) -> Result<Value, String> {
        text_arg(args, 0).map(|text| Value::from(text.to_uppercase()))
    }
}

fn render(text: &str, mode: Mode) -> Result<String, String> {
    let mut set = Set::default();
    set.add("", text, &None0)?;
    let about = Value::text_map(
        &ANY_MAP,
        [
            ("name", Value::from("a<b> & \"c\"")),
            ("list", Value::texts(["x", "y", "z"])),
            ("map", Value::text_map(&TEXT_MAP, [("k", "v"), ("a", "b")])),
            ("n", Value::Int(3)),
            ("f", Value::Float(1_234_567.0)),
            ("link", Value::from("javascript:alert(1)")),
        ],
    );
    set.execute("", &about, &None0, mode, 100_000)
}

#[test]
fn templates_make_what_go_makes() {
    let table = [
        ("plain {{ .name }} {{ .none }}", "plain a<b> & \"c\" <no value>"),
        (
            "{{ .f }} {{ 123456.0 }} {{ 1e20 }} {{ 0.00001 }} {{ 1e2 }} {{ 0x1F }} {{ 'a' }}",
            "1.234567e+06 123456 1e+20 1e-05 100 31 97",
        ),
        ("{{ range $i, $x := .list }}{{ if $i }}, {{ end }}{{ $i }}={{ $x }}{{ end }}", "0=x, 1=y, 2=z"),
        (
            "{{ range .none }}a{{ else }}b{{ end }}{{ range $k, $v := .map }}{{ $k }}{{ $v }};{{ end }}",
            "bab;kv;",
        ),
        ("{{ range .list }}{{ if eq . \"y\" }}{{ continue }}{{ end }}{{ . }}{{ end }}", "xz"),
        ("{{ range .list }}{{ . }}{{ break }}{{ end }}", "x"),
        ("{{ range $i := 3 }}{{ $i }}{{ end }}", "012"),
        (
            "{{ with .map.k }}[{{ . }}]{{ end }}{{ with .none }}a{{ else with .n }}{{ . }}{{ else }}c{{ end }}",
            "[v]3",
        ),
        ("{{ if .none }}a{{ else if eq .n 2 3 }}b{{ else }}c{{ end }}", "b"),
        ("{{ $x := 1 }}{{ if true }}{{ $x = 2 }}{{ $y := 3 }}{{ $y }}{{ end }}{{ $x }}", "32"),
        (
            "{{ define \"t\" }}<{{ . }}>{{ end }}{{ template \"t\" .n }}{{ template \"t\" }}",
            "<3><<no value>>",
        ),
        ("{{ block \"b\" .n }}{{ . }}!{{ end }}", "3!"),
        ("a {{- 1 -}} b {{- /* c */ -}} d{{/* e */}}", "a1bd"),
        (
            "{{ \"x\" | upper | printf \"%s-%s\" \"y\" }} {{ (len .list) }} {{ index .list 1 }} {{ index .map \"a\" }}",
            "y-X 3 y b",
        ),
        ("{{ and 1 0 2 }} {{ or 0 \"\" \"a\" }} {{ not 0 }} {{ and true (index .list 0) }}", "0 a true x"),
        (
            "{{ slice \"abcdef\" 1 3 }} {{ print 1 2 \"x\" 3 4 nil }} {{ println 1 \"a\" }}",
            "bc 1 2x3 4 <nil> 1 a\n",
        ),
        (
            "{{ printf \"%d %s %z %5.1f|%-6s|%06d|%x|%X|%q|%c|%U|%t|%T|%+d|% d|%o|%b\" \"a\" 1 2 3.14159 \"ab\" 42 \"hi\" 255 \"q\\\"\" 65 65 true 1.5 5 5 8 5 }}",
            "%!d(string=a) %!s(int=1) %!z(int=2)   3.1|ab    |000042|6869|FF|\"q\\\"\"|A|U+0041|true|float64|+5| 5|10|101",
        ),
        (
            "{{ printf \"%v %g %.3g %e %d\" 1234567.5 1e7 1234.5 3.0 3.0 }}",
            "1.2345675e+06 1e+07 1.23e+03 3.000000e+00 %!d(float64=3)",
        ),
        (
            "{{ printf \"%d\" }} {{ printf \"x\" 1 }} {{ printf \"%5s|%-5d|%05.1f|%.2s|%*d\" \"é\" 7 2.25 \"abc\" 4 9 }}",
            "%!d(MISSING) x%!(EXTRA int=1)     é|7    |002.2|ab|   9",
        ),
        (
            "{{ html \"a<b>\\\"'&\" }} {{ js \"a<b>=&\\\"\\n\" }} {{ urlquery \"a b/?&\" \"c\" }}",
            "a&lt;b&gt;&#34;&#39;&amp; a\\u003Cb\\u003E\\u003D\\u0026\\\"\\u000A a+b%2F%3F%26c",
        ),
        ("{{ .map }} {{ .list }} {{ .map.nothing }}", "map[a:b k:v] [x y z] "),
        ("{{ `raw }} \\n` }}", "raw }} \\n"),
        ("{{ lt 1 2 }}{{ ge \"b\" \"a\" }}{{ ne 1.5 1.5 }}", "truetruefalse"),
        ("{{ $.n }} {{ range .list }}{{ $.n }}{{ end }}", "3 333"),
    ];
    for (text, want) in table {
        assert_eq!(render(text, Mode::Text), Ok(want.to_owned()), "{text}");
    }
}

#[test]
fn errors_are_worded_as_go_words_them() {
    let table = [
        ("{{ if }}", "template: :1: missing value for if"),
        ("a\n{{ foo }}", "template: :2: function \"foo\" not defined"),
        ("{{ $y }}", "template: :1: undefined variable \"$y\""),
        ("{{ 1 | 2 }}", "template: :1: non executable command in pipeline stage 2"),
        ("{{ break }}", "template: :1: {{break}} outside {{range}}"),
        ("{{ \"a }}", "template: :1: unterminated quoted string"),
        ("{{ if true }}x", "template: :1: unexpected EOF"),
        ("{{ end }}", "template: :1: unexpected {{end}}"),
        ("{{ (1 }}", "template: :1: unclosed left paren"),
        (
            "{{ index .list 99 }}",
            "template: :1:3: executing \"\" at <index .list 99>: error calling index: index out of range: 99",
        ),
        ("{{ len 3 }}", "template: :1:3: executing \"\" at <len 3>: error calling len: len of type int"),
        (
            "{{ eq 1 \"a\" }}",
            "template: :1:3: executing \"\" at <eq 1 \"a\">: error calling eq: incompatible types for comparison",
        ),
        (
            "{{ gt 1.0 1 }}",
            "template: :1:3: executing \"\" at <gt 1.0 1>: error calling gt: incompatible types for comparison",
        ),
        ("{{ nil }}", "template: :1:3: executing \"\" at <nil>: nil is not a command"),
        (
            "{{ .map.foo.bar }}",
            "template: :1:7: executing \"\" at <.map.foo.bar>: can't evaluate field bar in type string",
        ),
        (
            "{{ \"a\" \"b\" }}",
            "template: :1:3: executing \"\" at <\"a\">: can't give argument to non-function \"a\"",
        ),
        (
            "x\n  {{ template \"no\" . }}",
            "template: :2:14: executing \"\" at <{{template \"no\" .}}>: template \"no\" not defined",
        ),
    ];
    for (text, want) in table {
        assert_eq!(render(text, Mode::Text), Err(want.to_owned()), "{text}");
    }
}

#[test]
fn values_are_escaped_by_where_they_stand() {
    let table = [
        ("<p>{{ .name }}</p>", "<p>a&lt;b&gt; &amp; &#34;c&#34;</p>"),
        ("<a title=\"{{ .name }}\">", "<a title=\"a&lt;b&gt; &amp; &#34;c&#34;\">"),
        ("<a title={{ .name }} b=c>{{ .n }}", "<a title=a&lt;b&gt;&#32;&amp;&#32;&#34;c&#34; b=c>3"),
        ("<a href=\"{{ .link }}\">", "<a href=\"#ZgotmplZ\">"),
        ("<a href=\"/x?q={{ .name }}\">", "<a href=\"/x?q=a%3cb%3e%20%26%20%22c%22\">"),
        (
            "<script>var x = {{ .name }}, y = '{{ .name }}', n = {{ .n }};</script>{{ .n }}",
            "<script>var x = \"a\\u003cb\\u003e \\u0026 \\\"c\\\"\", y = 'a\\u003cb\\u003e \\u0026 \\u0022c\\u0022', n =  3 ;</script>3",
        ),
        ("<style>a { color: {{ .name }} }</style>", "<style>a { color: ZgotmplZ }</style>"),
        (
            "<p onclick=\"f({{ .map }})\">",
            "<p onclick=\"f({&#34;a&#34;:&#34;b&#34;,&#34;k&#34;:&#34;v&#34;})\">",
        ),
        ("a<!-- {{ .name }} -->b {{ .none }}", "ab "),
        ("<title>{{ .name }}</title>", "<title>a&lt;b&gt; &amp; &#34;c&#34;</title>"),
    ];
    for (text, want) in table {
        assert_eq!(render(text, Mode::Html), Ok(want.to_owned()), "{text}");
    }
}

#[test]
fn a_template_ends_whatever_it_says() {
    let looping = "{{ define \"t\" }}{{ template \"t\" . }}{{ end }}{{ template \"t\" . }}";
    assert!(render(looping, Mode::Text).unwrap_err().contains("exceeded maximum template depth"));
    let long = "{{ range 1000 }}{{ range 1000 }}{{ range 1000 }}x{{ end }}{{ end }}{{ end }}";
    assert!(render(long, Mode::Text).unwrap_err().contains("more than"));
    let deep = "{{ if true }}".repeat(10_000);
    assert!(render(&deep, Mode::Text).unwrap_err().contains("nested deeper"));
    assert!(render(&format!("{{{{ {} }}}}", "(".repeat(10_000)), Mode::Text).is_err());
}

proptest::proptest! {
    /// Whatever is written, it is read or refused, and carried out or refused.
    #[test]
    fn nothing_panics(words in proptest::collection::vec(proptest::sample::select(vec![
        "{{", "}}", "{{- ", " -}}", "if", "else", "end", "range", "with", "define", "template", "block", "break",
        " ", ".", ".a", "$", "$x", ":=", "=", "|", "(", ")", ",", "\"t\"", "`", "'a'", "1", "-1.5e3", "0x", "nil",
        "true", "len", "index", "slice", "printf", "%", "é", "<a href=\"", "<script>", "/*", "*/", "\n",
    ]), 0..40)) {
        let text: String = words.concat();
        let _ = render(&text, Mode::Text);
        let _ = render(&text, Mode::Html);
    }
}
