//! What the server says of itself and lets others do with it, as Prometheus does.

use std::process::Command;

use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::support::{Server, client, get, poll};

/// As many streams as Prometheus allows.
const STREAMS: usize = 16;

#[tokio::test]
async fn the_release_is_said_bare_and_nobody_stops_the_server_over_http() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let version = client().get(format!("{}/version", server.url)).send().await.unwrap();
    assert_eq!(version.headers()["content-type"], "text/plain; charset=utf-8");
    let version = version.text().await.unwrap();
    assert!(version.ends_with("}\n"), "{version:?}");
    let (_, build) = get(&format!("{}/api/v1/status/buildinfo", server.url)).await;
    assert_eq!(serde_json::from_str::<Value>(&version).unwrap(), build["data"]);

    let get_refused = (405, "Only POST or PUT requests allowed");
    let not_allowed = (405, "Method Not Allowed\n");
    let disabled = (403, "Lifecycle API is not enabled.");
    for (path, method, want) in [
        ("/-/quit", Method::GET, get_refused),
        ("/-/quit", Method::POST, disabled),
        ("/-/quit", Method::PUT, disabled),
        ("/-/quit", Method::DELETE, not_allowed),
        ("/-/reload", Method::GET, get_refused),
        ("/-/reload", Method::POST, disabled),
        ("/-/reload", Method::PUT, disabled),
        ("/-/reload", Method::DELETE, not_allowed),
        ("/version", Method::POST, not_allowed),
        ("/api/v1/notifications/live", Method::POST, not_allowed),
    ] {
        let answer = client().request(method.clone(), format!("{}{path}", server.url)).send().await.unwrap();
        let found = (answer.status().as_u16(), answer.text().await.unwrap());
        assert_eq!((found.0, found.1.as_str()), want, "{method} {path}");
    }
    server.kill();
}

#[tokio::test]
async fn own_metrics_are_answered_by_pattern() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let url = format!("{}/api/v1/status/self_metrics", server.url);
    let (status, body) = get(&format!("{url}?metric_name_pattern=binnacle_build_inf.")).await;
    assert_eq!((status, &body["data"].as_array().map(Vec::len)), (200, &Some(1)), "{body}");
    let build = &body["data"][0];
    assert_eq!((&build["name"], &build["type"]), (&json!("binnacle_build_info"), &json!("GAUGE")));
    assert_eq!(build["metric"][0]["gauge"]["value"], 1);
    assert_eq!(build["metric"][0]["label"][0]["name"], "version");
    let (_, body) = get(&url).await;
    let names: Vec<&str> =
        body["data"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert!(names.len() > 10 && names.is_sorted() && names.iter().any(|name| name.ends_with("_total")));
    let (_, body) = get(&format!("{url}?metric_name_pattern=binnacle")).await;
    assert_eq!(body["data"], json!([]), "a pattern meets a whole name");
    let (status, body) = get(&format!("{url}?metric_name_pattern=(")).await;
    assert_eq!((status, &body["errorType"]), (400, &json!("bad_data")));
    assert!(body["error"].as_str().unwrap().starts_with("invalid parameter \"metric_name_pattern\": "));
    server.kill();
}

#[tokio::test]
async fn relabel_steps_are_checked_as_in_prometheus() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("c.yml");
    let text = "scrape_configs: [{job_name: a, static_configs: [{targets: ['127.0.0.1:1']}]}]";
    std::fs::write(&config, text).unwrap();
    let server = Server::start(&dir.path().join("data"), &["--config", config.to_str().unwrap()]);
    let ask = async |query: &str| get(&format!("{}/api/v1/targets/relabel_steps{query}", server.url)).await;
    let (status, body) = ask("?scrapePool=a&labels=%7B%22x%22:%22y%22%7D").await;
    assert_eq!((status, body), (200, json!({ "status": "success", "data": { "steps": [] } })));
    for (query, want) in [
        ("", "no scrapePool parameter provided"),
        ("?scrapePool=a", "no labels parameter provided"),
        ("?scrapePool=b&labels=x", "error parsing labels: "),
        ("?scrapePool=b&labels=%7B%7D", "error retrieving scrape config: scrape pool \"b\" not found"),
    ] {
        let (status, body) = ask(query).await;
        assert_eq!((status, &body["errorType"]), (400, &json!("bad_data")), "{query}");
        assert!(body["error"].as_str().unwrap().starts_with(want), "{query}: {body}");
    }
    server.kill();
}

#[tokio::test]
async fn streams_of_notifications_are_bounded_and_end_with_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &[]);
    let url = format!("{}/api/v1/notifications/live", server.url);
    let open = async || -> Response { client().get(&url).send().await.unwrap() };
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        streams.push(open().await);
    }
    assert!(streams.iter().all(|stream| stream.status().as_u16() == 200));
    assert_eq!(streams[0].headers()["content-type"], "text/event-stream");
    assert_eq!(streams[0].headers()["cache-control"], "no-cache");
    assert_eq!(open().await.status().as_u16(), 204, "one too many");
    drop(streams.pop());
    let again = poll("the place of the one that left", async || {
        let stream = open().await;
        (stream.status().as_u16() == 200).then_some(stream)
    });
    streams.push(again.await);

    let id = server.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    for stream in streams {
        let text = stream.text().await.expect("a stream ends in order");
        let event = text.strip_prefix("data: ").and_then(|rest| rest.strip_suffix("\n\n")).unwrap();
        let event: Value = serde_json::from_str(event).unwrap();
        let keys: Vec<&str> = event.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!((keys, &event["active"]), (vec!["text", "date", "active"], &json!(true)));
        assert!(event["date"].as_str().unwrap().ends_with('Z'), "{event}");
    }
    assert!(server.child.wait().unwrap().success());
}
