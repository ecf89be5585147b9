//! Configurations that real people wrote, good and bad, and where alerts go in them.

use std::path::{Path, PathBuf};

use super::*;

const CONFIG: &str = "
route:
  receiver: default
  group_by: [alertname]
  routes:
  - matchers: [team=\"a\", severity=~\"page|ticket\"]
    receiver: a
    continue: true
    mute_time_intervals: [nights]
    routes:
    - match: {severity: page}
      receiver: a-page
  - match_re: {team: a|b}
    receiver: b
receivers:
- name: default
  webhook_configs: [{url: 'http://127.0.0.1:1/'}]
- name: a
- name: a-page
- name: b
  slack_configs: [{channel: x, api_url: 'https://hooks.slack.com/services/a'}]
time_intervals:
- name: nights
  time_intervals: [{times: [{start_time: '20:00', end_time: '24:00'}]}]
";

fn error(text: &str) -> String {
    parse_alertmanager("a.yml", text).unwrap_err().to_string()
}

#[test]
fn alerts_find_their_receivers() {
    let config = parse_alertmanager("a.yml", CONFIG).unwrap();
    let of = |pairs: &[(&str, &str)]| config.receivers_of(&Labels::new(pairs.iter().copied()).unwrap());
    assert_eq!(of(&[("x", "y")]), ["default"]);
    assert_eq!(of(&[("team", "a"), ("severity", "page")]), ["a-page", "b"]);
    assert_eq!(of(&[("team", "a"), ("severity", "ticket")]), ["a", "b"]);
    assert_eq!(of(&[("team", "b")]), ["b"]);
    assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
    let ticket = Labels::new([("team", "a"), ("severity", "ticket")]).unwrap();
    let mut routes = Vec::new();
    config.root.matching(&ticket, &mut routes);
    assert_eq!(routes[0].key, r#"{}/{severity=~"page|ticket",team="a"}"#);
    assert_eq!(routes[0].mute_in, ["nights"]);
}

#[test]
fn bad_configurations_are_refused_at_their_place() {
    let with = |receiver: &str| format!("route: {{receiver: x}}\nreceivers:\n- name: x\n  {receiver}\n");
    let table = [
        (
            CONFIG.replace("receiver: b\n", "receiver: c\n"),
            "a.yml:13:5: undefined receiver \"c\" used in route",
        ),
        (CONFIG.replace("[nights]", "[days]"), "undefined time interval \"days\" used in route"),
        (
            CONFIG.replace("'24:00'", "'25:00'"),
            "a.yml:23:3: time interval \"nights\": couldn't parse timestamp",
        ),
        (CONFIG.replace("group_by: [alertname]", "group_by: ['...', a]"), "cannot have wildcard group_by"),
        (CONFIG.replace("group_by: [alertname]", "group_interval: 0s"), "group_interval cannot be zero"),
        (
            CONFIG.replace("group_by: [alertname]", "mute_time_intervals: [nights]"),
            "must not have any mute time",
        ),
        (CONFIG.replace("team=\"a\"", "team~a"), "a.yml:6:16: bad matcher format"),
        ("receivers: []".to_owned(), "no route provided"),
        ("routes: {}".to_owned(), "a.yml:1:1"),
        (
            with("webhook_configs: [{url: 'http://169.254.169.254/'}]"),
            "a.yml:4:21: receiver \"x\": webhook_configs: url: a link-local",
        ),
        (with("webhook_configs: [{}]"), "one of url or url_file must be configured"),
        (with("webhook_configs: [{url: 'ftp://a'}]"), "scheme must be http or https"),
        (with("webhook_configs: [{url: 'http://a', timeout: 1d}]"), "invalid duration \"1d\""),
        (with("webhook_configs: [{url: 'http://a', url_file: b}]"), "at most one of url & url_file"),
        (with("webhook_configs: [~]"), "missing webhook config"),
        (with("webhook_config: []"), "a.yml:4:3: "),
        (with("email_configs: [{to: a@b}]"), "no global SMTP smarthost set"),
        (with("email_configs: [{to: a@b, smarthost: h, from: c}]"), "missing port in address"),
        (with("pagerduty_configs: [{}]"), "missing service or routing key"),
        (
            with("pushover_configs: [{user_key: a, token: b, html: true, monospace: true}]"),
            "monospace & html",
        ),
        (with("telegram_configs: [{bot_token: a}]"), "missing chat_id"),
        (
            with("slack_configs: [{api_url: 'http://a', fields: [{title: t}]}]"),
            "missing value in Slack field",
        ),
    ];
    for (text, want) in table {
        let found = parse_alertmanager("a.yml", &text).map(|_| ()).map_err(|error| error.to_string());
        assert!(
            found.as_ref().is_err_and(|error| error.contains(want)),
            "{text}\n want {want}\n got {found:?}"
        );
    }
}

#[test]
fn no_secret_is_shown() {
    let config = CONFIG
        .replace("http://127.0.0.1:1/", "http://u:hunter2@h/?key=hunter2")
        .replace("services/a", "hunter2");
    let read = parse_alertmanager("a.yml", &config).unwrap();
    assert!(!format!("{read:?}").contains("hunter2"));
    assert!(!error(&config.replace("http://u", "htp://u")).contains("hunter2"));
}

fn shared() -> Option<PathBuf> {
    let shared = std::env::var("BINNACLE_SHARED").unwrap_or_else(|_| "../../shared".to_owned());
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(shared).join("real/alertmanager");
    if dir.is_dir() {
        return Some(dir);
    }
    println!("SKIPPED 1: no configurations at {}", dir.display());
    None
}

fn read(path: &Path) -> Result<AlertmanagerConfig, FileError> {
    parse_alertmanager(&path.to_string_lossy(), &std::fs::read_to_string(path).unwrap())
}

/// Good and bad as amtool 0.33 says.
#[test]
fn real_configurations_are_taken_or_refused() {
    let Some(dir) = shared() else { return };
    let mut failures = Vec::new();
    let mut count = 0;
    for (folder, is_good) in [("configs/good", true), ("configs/bad", false)] {
        for file in std::fs::read_dir(dir.join(folder)).unwrap().map(|entry| entry.unwrap().path()) {
            count += 1;
            let found = read(&file).map(|_| ());
            if found.is_ok() != is_good {
                failures.push(format!("{}: {found:?}", file.display()));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    println!("configurations {count} of {count}");
}

/// As `amtool config routes test` says.
#[test]
fn alerts_go_where_amtool_says() {
    #[derive(Deserialize)]
    struct Case {
        config: String,
        labels: BTreeMap<String, String>,
        receivers: Vec<String>,
    }
    let Some(dir) = shared() else { return };
    let cases: Vec<Case> =
        serde_json::from_str(&std::fs::read_to_string(dir.join("routing.json")).unwrap()).unwrap();
    for case in &cases {
        let config = read(&dir.join("configs").join(&case.config)).unwrap();
        let labels =
            Labels::new(case.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()))).unwrap();
        assert_eq!(config.receivers_of(&labels), case.receivers, "{} {:?}", case.config, case.labels);
    }
    println!("routing cases {} of {}", cases.len(), cases.len());
}
