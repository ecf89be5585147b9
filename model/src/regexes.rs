//! Regular expressions as Prometheus reads them: in Go's syntax (RE2), against all of a text.

use regex::{Regex, RegexBuilder};

/// The expression that matches a text if `pattern` matches all of it; the dot matches line ends, too.
///
/// # Errors
/// What is wrong with the pattern, or that it takes more than `max_bytes` when it is compiled.
pub fn anchored(pattern: &str, max_bytes: usize) -> Result<Regex, String> {
    let built = RegexBuilder::new(&format!("^(?s:{})$", from_go(pattern)?)).size_limit(max_bytes).build();
    built.map_err(|error| last_line(&error))
}

/// The expression that finds `pattern` anywhere in bytes; the dot matches no line end, as in Go.
///
/// # Errors
/// What is wrong with the pattern, or that it takes more than `max_bytes` when it is compiled.
pub fn unanchored(pattern: &str, max_bytes: usize) -> Result<regex::bytes::Regex, String> {
    let built = regex::bytes::RegexBuilder::new(&from_go(pattern)?).size_limit(max_bytes).build();
    built.map_err(|error| last_line(&error))
}

/// The regex crate draws its errors over several lines; the last one says what is wrong.
fn last_line(error: &regex::Error) -> String {
    let text = error.to_string();
    let line = text.lines().last().unwrap_or_default();
    line.trim_start_matches("error: ").to_owned()
}

/// Digits, letters and spaces are those of ASCII for Go, `\<` is a `<`, `\Q` quotes, and in a class `[`, `&` and `~` stand
/// for themselves. After the page "syntax" of Go's `regexp`.
fn from_go(pattern: &str) -> Result<String, String> {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut in_class = false;
    let mut rest = pattern;
    // So many bytes behind it there is no `:]` any more.
    let ends_name = pattern.rfind(":]").map_or(0, |at| pattern.len() - at);
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '\\' => rest = escape(rest, in_class, &mut out),
            '[' if !in_class => {
                in_class = true;
                rest = begin_class(rest, &mut out);
            }
            '[' => match named_class(rest, ends_name) {
                Some(name) => {
                    if !CLASSES.contains(&name.trim_start_matches('^')) {
                        return Err(format!("invalid character class range: `[:{name}:]`"));
                    }
                    out.push_str(&format!("[:{name}:]"));
                    rest = &rest[name.len() + 3..];
                }
                None => out.push_str(r"\["),
            },
            ']' => {
                in_class = false;
                out.push(c);
            }
            '&' | '~' if in_class => out.extend(['\\', c]),
            _ => out.push(c),
        }
    }
    Ok(out)
}

/// Named classes, as in `[[:alpha:]]`.
const CLASSES: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space",
    "upper", "word", "xdigit",
];

/// The name in `:alpha:]` or `:^alpha:]`, if `behind` begins with the like; the last `:]` stands `ends_name` bytes before
/// the end.
fn named_class(behind: &str, ends_name: usize) -> Option<&str> {
    let name = behind.strip_prefix(':').filter(|name| name.len() >= ends_name && ends_name > 0)?;
    name.split_once(":]").map(|(name, _)| name)
}

/// What stands behind a `[` and is special only there.
fn begin_class<'p>(behind: &'p str, out: &mut String) -> &'p str {
    let mut rest = behind;
    out.push('[');
    if let Some(behind) = rest.strip_prefix('^') {
        out.push('^');
        rest = behind;
    }
    // One that comes first is one of the class.
    if let Some(behind) = rest.strip_prefix(']') {
        out.push_str(r"\]");
        rest = behind;
    }
    rest
}

/// What stands behind a `\`. Answers what is left.
fn escape<'p>(behind: &'p str, in_class: bool, out: &mut String) -> &'p str {
    let Some(kind) = behind.chars().next() else {
        out.push('\\');
        return behind;
    };
    let rest = &behind[kind.len_utf8()..];
    let mut class = |of: &str| {
        out.push_str(&if in_class { of.to_owned() } else { format!("[{of}]") });
    };
    match kind {
        'd' => class("0-9"),
        'w' => class("0-9A-Za-z_"),
        's' => class(r"\t\n\f\r "),
        'D' => out.push_str("[^0-9]"),
        'W' => out.push_str("[^0-9A-Za-z_]"),
        'S' => out.push_str(r"[^\t\n\f\r ]"),
        'b' if !in_class => out.push_str(r"(?-u:\b)"),
        '<' | '>' => out.push(kind),
        'Q' if !in_class => {
            let (quoted, behind) = rest.split_once(r"\E").unwrap_or((rest, ""));
            out.push_str(&regex::escape(quoted));
            return behind;
        }
        _ => out.extend(['\\', kind]),
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_they_mean_in_go() {
        let cases = [
            (r"\d+", "12", true),
            (r"\d+", "٣", false),
            (r"\w+", "a_9", true),
            (r"\w+", "é", false),
            (r"\W", "é", true),
            (r"[\w-]+", "a-b", true),
            (r"[^\W]", "é", false),
            (r"[^\W]", "e", true),
            (r"\s", " ", true),
            (r"\s", "\u{a0}", false),
            (r"\S", "\u{a0}", true),
            (r"é\b.*", "é x", false),
            (r"e\b.*", "e x", true),
            (r"[[]", "[", true),
            (r"[]a]+", "a]", true),
            (r"[^]a]", "]", false),
            (r"[a&&b]", "&", true),
            (r"[~~]", "~", true),
            (r"[[:digit:]a]+", "7a", true),
            (r"[[:^digit:]]+", "7", false),
            (r"[a[:digit:][:upper:]]+", "7A", true),
            (r"[[:]+", "[:", true),
            (r"[[:a]+", "[:a", true),
            (r"\Qa.b|\E.", "a.b|c", true),
            (r"\Qa.b|\E.", "axb|c", false),
            (r"\<b\>", "<b>", true),
            (r"\pL", "é", true),
            (r"(?i)straSSe|k", "STRASSE", true),
            (r"a.c", "a\nc", true),
            (r"a\\d", r"a\d", true),
            (r"\x41\.", "A.", true),
        ];
        for (pattern, text, want) in cases {
            let regex = anchored(pattern, 1 << 20).unwrap();
            assert_eq!(regex.is_match(text), want, "{pattern} on {text:?}, as {regex}");
        }
    }

    #[test]
    fn bad_patterns_say_why() {
        for (pattern, reason) in [
            ("a(b", "unclosed group"),
            ("[a", "unclosed character class"),
            ("a\\", ""),
            ("[[:Foo:]]", "invalid character class range: `[:Foo:]`"),
            ("[[:a1 b:]x]", "`[:a1 b:]`"),
        ] {
            let error = anchored(pattern, 1 << 20).unwrap_err();
            assert!(error.contains(reason), "{pattern}: {error}");
        }
        assert!(anchored(r"(\pL{100}){100}", 1 << 10).is_err(), "too large");
    }

    proptest::proptest! {
        #[test]
        fn any_pattern_is_taken_or_refused(pattern in r"[\\\[\]()^$.*+?{}|&~:QEdwsbWa-c0-9é-]{0,12}") {
            let _ = anchored(&pattern, 1 << 20);
        }
    }
}
