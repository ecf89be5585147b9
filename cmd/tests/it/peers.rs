//! Beside the programs of Debian: promtool asks us, and Alertmanager says the same as we do.

use std::process::{Command, Stdio};

use crate::support::{CAP, Server, client, get, poll, sink};

pub(crate) fn has(program: &str) -> bool {
    let there = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let there = there.is_ok();
    if !there {
        println!("SKIPPED 1: {program} is not installed");
    }
    there
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promtool_gets_answers() {
    if !has("promtool") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("prometheus.yml");
    let server = Server::start(&dir.path().join("data"), &[]);
    let own = server.url.trim_start_matches("http://").to_owned();
    std::fs::write(
        &config,
        format!("global: {{scrape_interval: 1s}}\nscrape_configs:\n- job_name: other\n  static_configs: [{{targets: ['{own}']}}]\n"),
    )
    .unwrap();
    let second = Server::start(&dir.path().join("data2"), &["--config", config.to_str().unwrap()]);
    let up = format!("{}/api/v1/query?query=up", second.url);
    poll("a scrape", async || {
        let (_, body) = get(&up).await;
        (body["data"]["result"][0]["value"][1] == "1").then_some(())
    })
    .await;
    for (args, want) in [
        (&["query", "instant"][..], "up{"),
        (&["query", "series", "--match=up"][..], "__name__"),
        (&["query", "labels"][..], "other"),
    ] {
        let mut command = Command::new("promtool");
        command.args(args);
        command.arg(&second.url);
        match args[1] {
            "instant" => command.arg("up"),
            "labels" => command.arg("job"),
            _ => &mut command,
        };
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && text.contains(want), "{args:?}: {output:?}");
    }
    let page = client().get(format!("{}/metrics", second.url)).send().await.unwrap().text().await.unwrap();
    let file = dir.path().join("page");
    std::fs::write(&file, page).unwrap();
    let lint = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(std::fs::File::open(&file).unwrap())
        .output()
        .unwrap();
    // 3: it has remarks on names.
    assert!(matches!(lint.status.code(), Some(0 | 3)), "{lint:?}");
    let (_, targets) = get(&format!("{}/api/v1/targets", second.url)).await;
    assert_eq!(targets["data"]["activeTargets"][0]["health"], "up");
}

const RULES: &str = "
groups:
- name: g
  interval: 1s
  rules:
  - alert: AlwaysOn
    expr: vector(42)
    labels: {severity: page, team: 'a \"b\"'}
    annotations: {summary: 'value {{ $value | humanize }}'}
  - alert: AlwaysOn
    expr: label_replace(vector(1), \"instance\", \"h:1\", \"\", \"\")
    labels: {severity: ticket}
    annotations: {summary: 'second'}
";

/// The same alerts through Debian's Alertmanager: the bodies are equal, field by field.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_webhook_says_what_alertmanager_says() {
    if !has("prometheus-alertmanager") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (ours_url, ours) = sink();
    let (theirs_url, theirs) = sink();
    let rules = dir.path().join("rules.yml");
    std::fs::write(&rules, RULES).unwrap();
    let config = dir.path().join("prometheus.yml");
    std::fs::write(&config, format!("rule_files: ['{}']\n", rules.display())).unwrap();
    let routes = |url: &str| {
        format!(
            "route: {{receiver: r, group_by: [alertname], group_wait: 2s, group_interval: 5s, repeat_interval: 1h}}\nreceivers: [{{name: r, webhook_configs: [{{url: '{url}'}}]}}]\n"
        )
    };
    let (own_routes, their_routes) = (dir.path().join("own.yml"), dir.path().join("their.yml"));
    std::fs::write(&own_routes, routes(&ours_url)).unwrap();
    std::fs::write(&their_routes, routes(&theirs_url)).unwrap();
    let data = dir.path().join("data");
    let args = ["--config", config.to_str().unwrap(), "--alertmanager-config", own_routes.to_str().unwrap()];
    let server = Server::start(&data, &args);
    let ours = ours.recv_timeout(CAP).expect("our notification");

    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut alertmanager = Command::new("prometheus-alertmanager")
        .arg(format!("--config.file={}", their_routes.display()))
        .arg(format!("--storage.path={}", dir.path().join("am").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .arg(format!("--web.external-url={}", server.url))
        .args(["--web.route-prefix=/", "--cluster.listen-address="])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let alerts: Vec<serde_json::Value> = ours["alerts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|alert| {
            serde_json::json!({
                "labels": alert["labels"], "annotations": alert["annotations"],
                "startsAt": alert["startsAt"], "generatorURL": alert["generatorURL"],
            })
        })
        .collect();
    poll("alertmanager", async || {
        let url = format!("http://127.0.0.1:{port}/api/v2/alerts");
        let sent = client().post(url).json(&alerts).send().await;
        sent.is_ok_and(|response| response.status().is_success()).then_some(())
    })
    .await;
    // Alerts older than its wait are told as they come: the first message may have one of them only.
    let mut told = theirs.recv_timeout(CAP);
    while told.as_ref().is_ok_and(|body| body["alerts"].as_array().unwrap().len() < 2) {
        told = theirs.recv_timeout(CAP);
    }
    alertmanager.kill().unwrap();
    alertmanager.wait().unwrap();
    let theirs = told.expect("alertmanager's notification");
    assert_eq!(ours["alerts"].as_array().unwrap().len(), 2);
    assert_eq!(ours, theirs);
}
