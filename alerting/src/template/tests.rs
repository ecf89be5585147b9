//! Templates that Prometheus's and Alertmanager's own tools carried out, and what they made of them.

use std::path::{Path, PathBuf};

use binnacle_model::template::Mode;
use binnacle_model::{Labels, Timestamp};

use super::{Context, Data, Notifications, expand};

fn shared(dir: &str) -> Option<PathBuf> {
    let shared = std::env::var("BINNACLE_SHARED").unwrap_or_else(|_| "../../shared".to_owned());
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(shared).join(dir);
    if dir.is_dir() {
        return Some(dir);
    }
    println!("SKIPPED 1: nothing at {}", dir.display());
    None
}

fn check(text: &str, value: f64, want: &str) {
    let labels = Labels::new([("job", "a"), ("instance", "h:1")]).unwrap();
    let external_labels = Labels::new([("cluster", "c")]).unwrap();
    let query = |_: &str| {
        let one = |k: &str| Labels::new([("__name__", "m"), ("k", k)]).unwrap();
        Ok(vec![(one("b"), 2.0), (one("a"), 1.5)])
    };
    let ctx = Context {
        name: "A",
        labels: &labels,
        external_labels: &external_labels,
        external_url: "http://h/p",
        value,
        now: Timestamp(5000),
        query: &query,
    };
    assert_eq!(expand(text, ctx), want, "{text}");
}

#[test]
fn annotations_expand_as_in_prometheus() {
    check("plain", 1.0, "plain");
    check("{{ $labels.job }} on {{$labels.instance}}: {{ $value }}", 0.25, "a on h:1: 0.25");
    check("{{ $labels.absent }}|{{ $externalLabels.cluster }}", 0.0, "|c");
    check("{{ $value }}", 1_234_567.0, "1.234567e+06");
    check("{{ $value | humanize }}", 1_234_567.0, "1.235M");
    check("{{ humanize $value }}", 0.001_234, "1.234m");
    check("{{ $value | humanize1024 }}B", 2048.0, "2kiB");
    check("{{ $value | humanizePercentage }}", 0.123_456, "12.35%");
    check("{{ $value | humanizeDuration }}", 0.0123, "12.3ms");
    check(
        "{{ range query \"m\" | sortByLabel \"k\" }}{{ .Labels.k }}={{ .Value }} {{ end }}",
        0.0,
        "a=1.5 b=2 ",
    );
    check("{{ with query \"m\" | first }}{{ . | label \"k\" }} {{ . | value }}{{ end }}", 0.0, "b 2");
    check("{{ now }} {{ pathPrefix }} {{ externalURL }}", 0.0, "5 /p http://h/p");
    check(
        "{{ stripDomain \"10.0.0.1:9\" }} {{ stripDomain \"a.b.c\" }} {{ stripPort \"[::1]:80\" }}",
        0.0,
        "10.0.0.1:9 a ::1",
    );
    check("{{ if gt $value 1.0 }}x{{ end }}", 2.0, "x");
}

#[test]
fn what_goes_wrong_is_shown_as_in_prometheus() {
    check(
        "{{ $value",
        0.0,
        "<error expanding template: error parsing template __alert_A: template: __alert_A:1: unclosed action>",
    );
    check(
        "{{ $labels.job | humanize }}",
        0.0,
        "<error expanding template: error executing template __alert_A: template: __alert_A:1:129: executing \"__alert_A\" at <humanize>: error calling humanize: strconv.ParseFloat: parsing \"a\": invalid syntax>",
    );
}

/// What amtool 0.33 rendered, as the README beside the cases says.
#[test]
fn notification_templates_render_as_by_amtool() {
    #[derive(serde::Deserialize)]
    struct Case {
        text: String,
        data: String,
        #[serde(rename = "type")]
        mode: String,
        templates: String,
        expected: Option<String>,
    }
    let Some(dir) = shared("conformance/templates") else { return };
    let read = |path: &str| std::fs::read_to_string(dir.join(path)).unwrap();
    let cases: Vec<Case> = serde_json::from_str(&read("cases.json")).unwrap();
    let mut failures = Vec::new();
    for case in &cases {
        let data: Data = serde_json::from_str(&read(&format!("data/{}.json", case.data))).unwrap();
        let mut templates = Notifications::default();
        let file = format!("{}.tmpl", case.templates);
        templates.add(&file, &read(&file)).unwrap();
        let mode = if case.mode == "html" { Mode::Html } else { Mode::Text };
        let made = templates.render(&case.text, &data, mode, Timestamp(0));
        // One end of a line is the tool's own.
        let shown = made.as_ref().ok().map(|text| text.strip_suffix('\n').unwrap_or(text).to_owned());
        if shown != case.expected {
            failures
                .push(format!("{} [{}]\n  want {:?}\n  got  {made:?}", case.text, case.data, case.expected));
        }
    }
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), cases.len(), failures.join("\n"));
    println!("templates {} of {}", cases.len(), cases.len());
}
