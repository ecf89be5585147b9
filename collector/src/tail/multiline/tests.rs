//! Traces that nobody here wrote, and chains of them that we did.

use super::*;

/// Records of lines, joined with line ends.
fn joined(lines: &[&str], multiline: &Multiline) -> Vec<String> {
    let mut records: Vec<String> = Vec::new();
    let mut open: Option<Trace> = None;
    for line in lines {
        if let Some(trace) = open.take()
            && let Some(next) = multiline.goes_on(trace, line.as_bytes())
        {
            let last = records.last_mut().unwrap();
            *last = format!("{last}\n{line}");
            open = Some(next);
            continue;
        }
        records.push((*line).to_owned());
        open = match multiline.begins(line.as_bytes()) {
            Step::Begins(trace) => Some(trace),
            Step::Alone => None,
        };
    }
    records
}

#[test]
fn all_rules_are_patterns() {
    let (built, written) = TABLE.len();
    assert_eq!(built, written);
    assert!(WORDS.is_some());
}

#[test]
fn traces_that_others_collected_are_records() {
    let shared = std::env::var("BINNACLE_SHARED").unwrap_or_else(|_| "../../shared".to_owned());
    let Ok(dir) = std::fs::read_dir(format!("{shared}/real/logs/multiline")) else {
        println!("SKIPPED 1: {shared}/real/logs is not there");
        return;
    };
    let mut wrong = Vec::new();
    let mut count = 0;
    for entry in dir {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        // The others are about headers of runtimes, or rules that users write.
        let is_trace =
            name.starts_with("trace-") || ["go", "java", "python"].iter().any(|l| name.ends_with(l));
        if !is_trace {
            continue;
        }
        let case: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let list = |key: &str| -> Vec<String> {
            let items = case[key].as_array().unwrap().iter();
            items.map(|item| item.as_str().unwrap().trim_end_matches('\n').to_owned()).collect()
        };
        let input = list("input");
        let lines: Vec<&str> = input.iter().map(String::as_str).collect();
        let found = joined(&lines, &Multiline::Traces);
        let found: Vec<&str> = found.iter().map(|record| record.trim_end_matches('\n')).collect();
        count += 1;
        if found != list("expected") {
            wrong.push(format!("{name}:\n{}", found.join("\n----\n")));
        }
    }
    assert!(wrong.is_empty(), "{} of {count}: {}", wrong.len(), wrong.join("\n\n"));
}

fn assert_one(trace: &str) {
    let mut lines = vec!["before"];
    lines.extend(trace.lines());
    lines.push("after");
    assert_eq!(joined(&lines, &Multiline::Traces), ["before", trace, "after"]);
}

#[test]
fn chains_and_newer_forms_are_one_record() {
    assert_one(
        "Traceback (most recent call last):\n  File \"a.py\", line 1, in f\n    g()\n    ~^^\n  File \"b.py\", line 2, in g\nKeyError: 'x'\n\nDuring handling of the above exception, another exception occurred:\n\nTraceback (most recent call last):\n  File \"a.py\", line 3, in <module>\n    h()\nKeyboardInterrupt",
    );
    assert_one(
        "thread 'main' panicked at src/main.rs:2:5:\nindex out of bounds\nstack backtrace:\n   0: rust_begin_unwind\n             at /rustc/x/library/std/src/panicking.rs:645:5\n   1: core::panicking::panic_fmt\nnote: run with `RUST_BACKTRACE=full` environment variable to display a backtrace.",
    );
    assert_one(
        "thread 'tokio-runtime-worker' panicked at 'boom', src/lib.rs:1:1\nnote: run with `RUST_BACKTRACE=1`",
    );
    assert_one(
        "Error: ENOENT: no such file\n    at Object.openSync (node:fs:603:3)\n    at readFileSync (node:fs:471:35) {\n  errno: -2,\n  code: 'ENOENT'\n}",
    );
    assert_one(
        "app.rb:3:in `foo': unhandled (RuntimeError)\n\tfrom app.rb:7:in `bar'\n\tfrom app.rb:9:in `<main>'",
    );
    assert_one("Error: cannot start\n\nCaused by:\n    0: cannot read x\n    1: No such file");
    assert_one(
        "Unhandled exception. System.Exception: a\n ---> System.IO.IOException: b\n   at X.Y() in /a.cs:line 1\n   --- End of inner exception stack trace ---\n   at X.Main()",
    );
    assert_one(
        "2026-11-21 ERROR c.e.Main - failed java.lang.IllegalStateException: no\n\tat a.B.c(B.java:1)\n\t... 3 common frames omitted\n\tSuppressed: java.io.IOException: x\n\t\tat a.D.e(D.java:2)",
    );
}

#[test]
fn plain_lines_pass() {
    for line in [
        "level=info msg=\"no Errors\"",
        "GET /Exceptions 200",
        "started",
        "{\"level\":\"error\",\"msg\":\"x\"}",
        "GNOME panic:button",
    ] {
        assert_eq!(Multiline::Traces.begins(line.as_bytes()), Step::Alone, "{line}");
    }
    assert_eq!(joined(&["an Error: x", "next", "next"], &Multiline::Traces).len(), 3);
    assert_eq!(joined(&["panic: x", "\tat y"], &Multiline::Off).len(), 2);
}

#[test]
fn a_pattern_begins_records() {
    let dated = Multiline::start(r"^\d{4}-").unwrap();
    let lines = ["lost head", "2026-11-21 a", "  b", "c", "2026-11-22 d"];
    assert_eq!(joined(&lines, &dated), ["lost head", "2026-11-21 a\n  b\nc", "2026-11-22 d"]);
    assert!(Multiline::start("(").is_err());
    assert!(Multiline::start(r"\w{1000}{1000}").is_err());
}
