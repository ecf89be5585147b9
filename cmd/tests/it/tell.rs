//! Alerts of others and silences, by the API that amtool and Prometheus speak; where alerts go and what is said, by
//! commands.

use serde_json::{Value, json};

use crate::support::{Server, binnacle, client, get, poll, sink};

const ROUTES: &str = "
route: {receiver: first, group_by: [alertname], group_wait: 0s, group_interval: 1s, routes: [{matchers: [team=b], receiver: second}]}
receivers:
- {name: first, webhook_configs: [{url: 'URL', http_config: {authorization: {credentials: hunter2}}}]}
- {name: second}
";

async fn post(url: &str, body: &Value) -> (u16, Value) {
    let answer = client().post(url).json(body).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_of_others_are_told_unless_they_are_silenced() {
    let (dir, hook) = (tempfile::tempdir().unwrap(), sink());
    let file = dir.path().join("alertmanager.yml");
    std::fs::write(&file, ROUTES.replace("URL", &hook.0)).unwrap();
    let data = dir.path().join("data");
    let args = ["--alertmanager-config", file.to_str().unwrap()];
    let server = Server::start(&data, &args);
    let api = format!("{}/api/v2", server.url);

    let silence = json!({
        "matchers": [{"name": "alertname", "value": "Quiet.*", "isRegex": true}],
        "startsAt": "2026-01-01T00:00:00Z", "endsAt": "2099-01-01T00:00:00Z", "createdBy": "me", "comment": "why",
    });
    let (status, answer) = post(&format!("{api}/silences"), &silence).await;
    assert_eq!(status, 200, "{answer}");
    let id = answer["silenceID"].as_str().unwrap().to_owned();
    let alert = |name: &str, team: &str| json!({"labels": {"alertname": name, "team": team}, "annotations": {"summary": "s"}});
    let alerts = json!([alert("Quiet1", "a"), alert("Loud", "a"), alert("Other", "b")]);
    assert_eq!(post(&format!("{api}/alerts"), &alerts).await.0, 200);
    let told = hook.1.recv_timeout(crate::support::CAP).unwrap();
    assert_eq!(
        (&told["alerts"][0]["labels"]["alertname"], &told["receiver"]),
        (&json!("Loud"), &json!("first"))
    );

    let (_, shown) = get(&format!("{api}/alerts?filter=alertname=~%22Quiet.*%22")).await;
    assert_eq!(shown[0]["status"]["state"], "suppressed", "{shown}");
    assert_eq!(shown[0]["status"]["silencedBy"], json!([id]));
    let (_, groups) = get(&format!("{api}/alerts/groups?receiver=second")).await;
    assert_eq!(groups[0]["alerts"][0]["labels"]["alertname"], "Other", "{groups}");
    let (_, status) = get(&format!("{api}/status")).await;
    let original = status["config"]["original"].as_str().unwrap();
    assert!(
        original.contains("receiver: first") && !original.contains("hunter2") && !original.contains(&hook.0)
    );
    let bad = json!([{"labels": {}}]);
    assert_eq!(post(&format!("{api}/alerts"), &bad).await.0, 400);

    // Silences outlive the process, and a file that is wrong changes nothing.
    server.kill();
    let server = Server::start(&data, &args);
    let (_, kept) = get(&format!("{}/api/v2/silence/{id}", server.url)).await;
    assert_eq!(kept["status"]["state"], "active", "{kept}");
    std::fs::write(&file, "route: {receiver: none}\n").unwrap();
    let reload = format!("{}/-/reload", server.url);
    assert_eq!(client().post(&reload).send().await.unwrap().status(), 500);
    let again = ROUTES.replace("URL", &hook.0).replace("name: second}", "name: second}\n- {name: third}");
    std::fs::write(&file, again).unwrap();
    assert_eq!(client().post(&reload).send().await.unwrap().status(), 200);
    poll("the new receivers", async || {
        let (_, receivers) = get(&format!("{}/api/v2/receivers", server.url)).await;
        (receivers.as_array().map(Vec::len) == Some(3)).then_some(())
    })
    .await;
}

fn run(args: &[&str]) -> (bool, String) {
    let output = binnacle().args(args).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn commands_say_where_alerts_go_and_what_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let routes = file("a.yml", &ROUTES.replace("URL", "http://127.0.0.1:1/"));
    let (done, said) = run(&["config", "routes", "test", "--config.file", &routes, "team=b"]);
    assert!(done && said == "second\n", "{said}");
    let verify =
        ["config", "routes", "test", "--config.file", &routes, "--verify.receivers=second", "team=a"];
    let (done, said) = run(&verify);
    assert!(!done && said.contains("did not match"), "{said}");

    let own = file("own.tmpl", "{{ define \"x\" }}{{ .CommonLabels.alertname }}!{{ end }}");
    let (done, said) =
        run(&["template", "render", "--template.glob", &own, "--template.text", "{{ template \"x\" . }}"]);
    assert!(done && said == "Example!", "{said}");
    let (done, said) = run(&["template", "render", "--template.text", "{{ .Nothing }}"]);
    assert!(!done && said.contains("can't evaluate field Nothing"), "{said}");
    let bad = file("b.yml", "templates: [bad.tmpl]\nroute: {receiver: r}\nreceivers: [{name: r}]\n");
    file("bad.tmpl", "{{ if }}");
    let (done, said) = run(&["check", "alertmanager", &bad]);
    assert!(!done && said.contains("bad.tmpl: template: bad.tmpl:1: missing value for if"), "{said}");

    let rules = "groups: [{name: g, rules: [{alert: Down, expr: up == 0, for: 1m, annotations: {s: 'at {{ $value }}'}}]}]";
    file("r.yml", rules);
    let test = |expected: &str| {
        format!(
            "rule_files: [r.yml]\ntests:\n- input_series: [{{series: 'up{{job=\"a\"}}', values: '0x5'}}]\n  alert_rule_test:\n  - {{eval_time: 2m, alertname: Down, exp_alerts: [{{exp_labels: {{job: a}}, exp_annotations: {{s: {expected}}}}}]}}\n"
        )
    };
    let (done, said) = run(&["test", "rules", &file("good.yml", &test("at 0"))]);
    assert!(done && said.contains("SUCCESS: 1 tests"), "{said}");
    let (done, said) = run(&["test", "rules", &file("wrong.yml", &test("at 1"))]);
    assert!(!done && said.contains("wrong.yml:3: test: alertname: Down, time: 2m:"), "{said}");
}
