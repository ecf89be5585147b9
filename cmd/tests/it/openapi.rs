//! The OpenAPI document says what the server does: all of its routes, with their methods, and the shapes of answers.

use std::collections::{BTreeMap, BTreeSet};

use binnacle_model::push::{FileBatch, LogPush, Pair, PushEntry};
use prost::Message;
use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::house::{root, sources};
use crate::support::{Server, client, get, poll};

const METHODS: [&str; 5] = ["get", "post", "put", "delete", "patch"];

fn text() -> String {
    std::fs::read_to_string(root().join("cmd/src/openapi.yaml")).unwrap()
}

fn document() -> Value {
    serde_saphyr::from_str(&text()).unwrap()
}

/// Paths of the document with their methods.
fn described(document: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let paths = document["paths"].as_object().unwrap().iter().map(|(path, item)| {
        let methods = METHODS.into_iter().filter(|method| item.get(method).is_some());
        (path.clone(), methods.map(str::to_ascii_uppercase).collect())
    });
    paths.collect()
}

/// Paths under `/api/v1` and `/api/logs` that the sources register, without `/api`.
fn registered() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for krate in ["query", "alerting", "collector", "cmd"] {
        let all = sources(&root().join(krate).join("src")).into_iter();
        // The shop of the demo is another server.
        for file in all.filter(|file| !file.ends_with("demo/shop.rs")) {
            let code = std::fs::read_to_string(&file).unwrap();
            for other in [".nest(", ".nest_service(", ".route_service("] {
                assert!(!code.contains(other), "{}: {other}…) hides a route from this test", file.display());
            }
            for call in code.split(".route(").skip(1) {
                let path = call.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next());
                let path = path.unwrap_or_else(|| panic!("{}: a path that is no literal", file.display()));
                let path = path.strip_prefix("/api").unwrap_or_default();
                let is_described = path.starts_with("/v1/") || path.starts_with("/logs/");
                found.extend(is_described.then(|| path.to_owned()));
            }
        }
    }
    found
}

/// `#/components/…` of the document, with all that `allOf` adds.
fn resolve(document: &Value, of: &Value) -> Value {
    if let Some(at) = of["$ref"].as_str() {
        let found = document.pointer(at.trim_start_matches('#'));
        return resolve(document, found.unwrap_or_else(|| panic!("{at} is nowhere")));
    }
    let mut whole = of.clone();
    for part in of["allOf"].as_array().into_iter().flatten() {
        let part = resolve(document, part);
        let mut properties = part["properties"].as_object().cloned().unwrap_or_default();
        properties.extend(of["properties"].as_object().cloned().unwrap_or_default());
        let required = [&part["required"], &of["required"]].into_iter().filter_map(Value::as_array);
        whole["required"] = required.flatten().cloned().collect();
        whole["properties"] = properties.into();
        whole["type"] = part["type"].clone();
    }
    whole
}

/// Whether `value` is as `schema` says; what the schema does not name is wrong.
fn fits(document: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let schema = resolve(document, schema);
    let wrong = |what: &str| Err(format!("{at}: {what}: {value}"));
    if let Some(any) = schema["anyOf"].as_array() {
        let fits_one = any.iter().any(|one| fits(document, one, value, at).is_ok());
        return if fits_one { Ok(()) } else { wrong("none of its kinds") };
    }
    if schema.get("const").is_some_and(|only| only != value) {
        return wrong("another word");
    }
    if schema["enum"].as_array().is_some_and(|words| !words.contains(value)) {
        return wrong("none of the words");
    }
    match schema["type"].as_str() {
        Some("object") => value.as_object().map_or_else(
            || wrong("no object"),
            |fields| object_fits(document, schema.as_object().unwrap(), fields, at),
        ),
        Some("array") => {
            let Some(items) = value.as_array() else { return wrong("no array") };
            let length = items.len() as u64;
            if schema["minItems"].as_u64().is_some_and(|least| length < least) {
                return wrong("too short");
            }
            if schema["maxItems"].as_u64().is_some_and(|most| length > most) {
                return wrong("too long");
            }
            for (number, item) in items.iter().enumerate() {
                let of_item = schema["prefixItems"].get(number).or(schema.get("items"));
                of_item.map_or(Ok(()), |of_item| fits(document, of_item, item, &format!("{at}/{number}")))?;
            }
            Ok(())
        }
        Some("string") if !value.is_string() => wrong("no string"),
        Some("boolean") if !value.is_boolean() => wrong("no boolean"),
        Some("number") if !value.is_number() => wrong("no number"),
        Some("integer") if !value.is_i64() && !value.is_u64() => wrong("no integer"),
        _ => Ok(()),
    }
}

fn object_fits(
    document: &Value,
    schema: &Map<String, Value>,
    fields: &Map<String, Value>,
    at: &str,
) -> Result<(), String> {
    for name in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
        if !fields.contains_key(name.as_str().unwrap()) {
            return Err(format!("{at}: no {name}"));
        }
    }
    let (named, others) = (schema.get("properties"), schema.get("additionalProperties"));
    for (name, value) in fields {
        let at = format!("{at}/{name}");
        match (named.and_then(|named| named.get(name)), others) {
            (Some(of_field), _) => fits(document, of_field, value, &at)?,
            (None, Some(of_others)) if of_others.is_object() => fits(document, of_others, value, &at)?,
            (None, None) if named.is_some() => return Err(format!("{at}: is not described")),
            _ => {}
        }
    }
    Ok(())
}

/// The path with what is required of its parameters, as their examples say.
fn example(document: &Value, path: &str) -> String {
    let item = &document["paths"][path];
    let (mut path, mut query) = (path.to_owned(), form_urlencoded::Serializer::new(String::new()));
    let all = [&item["parameters"], &item["get"]["parameters"]].into_iter().filter_map(Value::as_array);
    for parameter in all.flatten().map(|parameter| resolve(document, parameter)) {
        let name = parameter["name"].as_str().unwrap();
        if parameter["required"] != true {
            continue;
        }
        let value = parameter["example"].as_str();
        let value = value.unwrap_or_else(|| panic!("{path}: {name} is required: give an example"));
        if parameter["in"] == "path" {
            path = path.replace(&format!("{{{name}}}"), value);
        } else {
            query.append_pair(name, value);
        }
    }
    format!("{path}?{}", query.finish())
}

#[test]
fn every_route_is_described_and_every_reference_leads_somewhere() {
    let document = document();
    let paths: BTreeSet<String> = described(&document).into_keys().collect();
    assert_eq!(paths, registered(), "left: cmd/src/openapi.yaml, right: the routers");
    let text = text();
    for (kind, all) in document["components"].as_object().unwrap() {
        for name in all.as_object().unwrap().keys() {
            let reference = format!("'#/components/{kind}/{name}'");
            assert!(text.contains(&reference), "{reference} is not used");
        }
    }
    for reference in text.split("$ref: '#").skip(1).map(|rest| rest.split('\'').next().unwrap()) {
        assert!(document.pointer(reference).is_some(), "{reference} is nowhere");
    }
    let items = document["paths"].as_object().unwrap().values();
    let operations: Vec<&Value> = items.flat_map(|item| METHODS.map(|method| &item[method])).collect();
    let operations = operations.into_iter().filter(|operation| operation.is_object());
    let mut names = BTreeSet::new();
    for operation in operations {
        let name = operation["operationId"].as_str().unwrap();
        assert!(names.insert(name), "two operations are called {name}");
        assert!(operation["responses"].is_object() && operation["summary"].is_string(), "{name}");
    }
}

/// Lines of a file that the document's examples name.
async fn push_lines(url: &str) {
    // A time that cannot be: the server takes its own.
    let entry = |n: u64| PushEntry {
        time_ns: -1,
        offset: n * 10,
        message: format!(r#"{{"msg":"done","n":{n},"ok":true}}"#).into_bytes(),
        level: "info".into(),
        ..PushEntry::default()
    };
    let batch = FileBatch {
        file: "node-1/example".into(),
        from: 0,
        to: 30,
        stream: vec![Pair { name: "pod".into(), value: "web".into() }],
        entries: (0..3).map(entry).collect(),
        ..FileBatch::default()
    };
    let body = LogPush { batches: vec![batch] }.encode_to_vec();
    let sent = client().post(format!("{url}/api/collect/logs")).body(body).send().await.unwrap();
    assert_eq!(sent.status().as_u16(), 200);
    poll("the lines", async || {
        let (_, found) = get(&format!("{url}/api/logs/search?q=pod:web")).await;
        (found["data"]["total"] == 3).then_some(())
    })
    .await;
}

/// A server with something to show: a target that is up, a rule with an alert, a result, lines.
async fn busy_server(dir: &std::path::Path, first: &Server) -> Server {
    let rules = "groups: [{name: g, interval: 1s, rules: [{record: up:one, expr: vector(1)}, \
        {alert: A, expr: vector(1), labels: {team: red}, annotations: {summary: s}}]}]";
    std::fs::write(dir.join("r.yml"), rules).unwrap();
    let target = first.url.trim_start_matches("http://");
    let config = format!(
        "rule_files: [r.yml]\nscrape_configs:\n- job_name: openapi\n  scrape_interval: 1s\n  \
         static_configs: [{{targets: ['{target}']}}]\n"
    );
    std::fs::write(dir.join("c.yml"), config).unwrap();
    let config = dir.join("c.yml");
    let flags = ["--enable-admin-api", "--config", config.to_str().unwrap()];
    let server = Server::start(&dir.join("second"), &flags);
    poll("an alert and a page", async || {
        let (_, alerts) = get(&format!("{}/api/v1/alerts", server.url)).await;
        let (status, _) = get(&format!("{}/api/v1/targets/metadata", server.url)).await;
        (status == 200 && alerts["data"]["alerts"].get(0).is_some()).then_some(())
    })
    .await;
    push_lines(&server.url).await;
    server
}

#[tokio::test]
async fn routes_take_the_methods_and_give_the_answers_that_are_described() {
    let dir = tempfile::tempdir().unwrap();
    let first = Server::start(&dir.path().join("first"), &[]);
    let server = busy_server(dir.path(), &first).await;
    let base = format!("{}/api", server.url);
    let document = document();
    for (path, methods) in described(&document) {
        let refused = client().request(Method::TRACE, format!("{base}{path}")).send().await.unwrap();
        assert_eq!(refused.status().as_u16(), 405, "{path}");
        let allowed = refused.headers()["allow"].to_str().unwrap().to_owned();
        let allowed = allowed.split(',').map(str::trim).filter(|method| *method != "HEAD");
        assert_eq!(allowed.map(str::to_owned).collect::<BTreeSet<_>>(), methods, "{path}");
        if !methods.contains("GET") {
            continue;
        }
        let asked = example(&document, &path);
        let answer = client().get(format!("{base}{asked}")).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 200, "{asked}");
        let said = answer.headers()["content-type"].to_str().unwrap();
        let kind = said.split(';').next().unwrap().to_owned();
        let response = resolve(&document, &document["paths"][&path]["get"]["responses"]["200"]);
        let media = response["content"].get(&kind);
        let media = media.unwrap_or_else(|| panic!("{asked} answers {kind}"));
        if kind == "application/json" {
            let body: Value = answer.json().await.unwrap();
            fits(&document, &media["schema"], &body, &asked).unwrap();
        }
    }
    let newer = client().get(format!("{base}/v1/openapi.yaml?openapi_version=3.2")).send().await.unwrap();
    assert_eq!(newer.headers()["content-type"], "application/yaml; charset=utf-8");
    assert!(newer.text().await.unwrap().starts_with("openapi: 3.2.0\ninfo:"));
    server.kill();
}

/// The test above is worth as much as this.
#[test]
fn what_does_not_fit_is_found() {
    let document = document();
    let answer = json!({ "$ref": "#/components/schemas/ScrapePoolsAnswer" });
    let check = |value: &Value| fits(&document, &answer, value, "").is_ok();
    assert!(check(&json!({ "status": "success", "data": { "scrapePools": ["a"] }, "warnings": [] })));
    for wrong in [
        json!({ "status": "error", "data": { "scrapePools": [] } }),
        json!({ "status": "success", "data": {} }),
        json!({ "status": "success", "data": { "scrapePools": [1] } }),
        json!({ "status": "success", "data": { "scrapePools": [] }, "more": 1 }),
        json!([]),
    ] {
        assert!(!check(&wrong), "{wrong}");
    }
}
