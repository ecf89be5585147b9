use std::io::Write;

use axum::body::{Body, to_bytes};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::bulk::read;
use super::*;
use crate::intake::doubles::{Kept, NOW, intake, shown};
use crate::intake::draft::Naming;

struct Answer {
    status: u16,
    retry: String,
    body: Value,
    kept: Arc<Kept>,
}

async fn asked(method: &str, path: &str, headers: &[(&str, &str)], body: Vec<u8>, kept: Arc<Kept>) -> Answer {
    let mut request = Request::builder().method(method).uri(path).header("content-length", body.len());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = handle(State(intake(&kept)), request.body(Body::from(body)).unwrap()).await;
    assert_eq!(answer.headers()["x-elastic-product"], "Elasticsearch", "{path}");
    let retry = answer.headers().get("retry-after").map_or("", |value| value.to_str().unwrap()).to_owned();
    let status = answer.status().as_u16();
    let body = to_bytes(answer.into_body(), 1 << 24).await.unwrap();
    let body = serde_json::from_slice(&body).unwrap_or_else(|_| String::from_utf8_lossy(&body).into());
    Answer { status, retry, body, kept }
}

async fn posted(path: &str, body: &str) -> Answer {
    asked("POST", path, &[], body.into(), Arc::default()).await
}

#[tokio::test]
async fn shippers_find_what_they_ask_for_at_start() {
    for (method, path, status, says) in [
        ("GET", "/elastic", 200, "8.19.0"),
        ("GET", "/elastic/", 200, "You Know, for Search"),
        ("HEAD", "/elastic/", 200, ""),
        ("GET", "/elastic/_license?human=false", 200, "active"),
        ("GET", "/elastic/_xpack", 200, "basic"),
        ("GET", "/elastic/_cluster/health?wait_for_status=yellow", 200, "green"),
        ("GET", "/elastic/_cat/health", 200, "1700000000 22:13:20 binnacle green"),
        ("GET", "/elastic/_nodes/http", 200, "\"nodes\":{}"),
        ("GET", "/elastic/_ilm/policy/filebeat", 404, "resource_not_found_exception"),
        ("PUT", "/elastic/_ilm/policy/filebeat", 200, "acknowledged"),
        ("HEAD", "/elastic/_index_template/logstash", 404, ""),
        ("PUT", "/elastic/_index_template/logstash", 200, "acknowledged"),
        ("PUT", "/elastic/_template/logstash", 200, "acknowledged"),
        ("GET", "/elastic/_data_stream/filebeat-8.19.0", 404, "\"status\":404"),
        ("PUT", "/elastic/_data_stream/filebeat-8.19.0", 200, "acknowledged"),
        ("PUT", "/elastic/logs-000001", 200, "logs-000001"),
        ("PUT", "/elastic/_ingest/pipeline/x", 400, "kept as they come"),
        ("GET", "/elastic/_search", 404, "send documents to _bulk"),
        ("DELETE", "/elastic/logs", 404, ""),
        ("GET", "/elastic/_bulk", 404, ""),
    ] {
        let answer = asked(method, path, &[], Vec::new(), Arc::default()).await;
        assert_eq!(answer.status, status, "{method} {path}");
        assert!(answer.body.to_string().contains(says), "{method} {path}: {}", answer.body);
    }
}

/// As Filebeat and Fluent Bit write it, with what is not taken in between.
const BODY: &str = r#"{"create":{"_index":"filebeat-8.19.0"}}
{"@timestamp":"2023-11-14T22:13:19.500Z","message":"a \"b\"\tü","log":{"offset":7,"file":{"path":"/var/log/x"}},"stream":"stderr","kubernetes":{"namespace":"shop","pod":{"name":"cart-7d9f8b6c5-x2x4z","uid":"u1"},"container":{"name":"web"},"node":{"name":"n1"},"labels":{"app":"cart"}},"host":{"name":"n1"},"agent":{"type":"filebeat"}}
{"delete":{"_index":"x","_id":"7"}}
{"index":{"_id":"i1"}}
{"@timestamp":1700000000001,"log":"WARN low\n","stream":"stderr","kubernetes":{"namespace_name":"shop","pod_name":"cart-7d9f8b6c5-x2x4z","container_name":"web","host":"n1"},"dur":12}

{"update":{"_id":"8"}}
{"doc":{"a":1}}
{"create":{}}
{"message":
{"create":{}}
["x"]
{"create":{}}
{"@timestamp":"soon","level":"warning","log.level":"ERROR","service":{"name":"pay"},"msg":"dur","dur":"slow"}
"#;

#[tokio::test]
async fn each_action_has_its_item_and_what_is_good_is_kept() {
    let answer = posted("/elastic/_bulk", BODY).await;
    assert_eq!((answer.status, &answer.body["errors"], &answer.body["took"]), (200, &json!(true), &json!(0)));
    let items = answer.body["items"].as_array().unwrap();
    let brief: Vec<String> = items
        .iter()
        .map(|item| {
            let (action, of) = item.as_object().unwrap().iter().next().unwrap();
            format!("{action} {} {} {}", of["_index"], of["status"], of["error"]["type"])
        })
        .collect();
    let want = [
        "create \"filebeat-8.19.0\" 201 null",
        "delete \"x\" 400 \"illegal_argument_exception\"",
        "index \"logs\" 201 null",
        "update \"logs\" 400 \"illegal_argument_exception\"",
        "create \"logs\" 400 \"document_parsing_exception\"",
        "create \"logs\" 400 \"document_parsing_exception\"",
        "create \"logs\" 201 null",
    ];
    assert_eq!(brief, want);
    assert_eq!((&items[2]["index"]["_id"], &items[2]["index"]["result"]), (&json!("i1"), &json!("created")));
    let want = [
        "app=cart,container=web,namespace=shop,node=n1,pod=cart-7d9f8b6c5-x2x4z,service=cart",
        "1699999999500000000||stderr|a \"b\"\tü|log.offset=7i,log.file.path=/var/log/x,kubernetes.pod.uid=u1,\
         kubernetes.labels.app=cart,agent.type=filebeat,_index=filebeat-8.19.0",
        "app=cart,container=web,namespace=shop,node=n1,pod=cart-7d9f8b6c5-x2x4z,service=cart",
        "1700000000001000000|warn|stderr|WARN low|dur=12i,_id=i1",
        "app=pay,service=pay",
        "1700000000123456789|error||dur|@timestamp=soon,level=warning,dur=slow",
    ];
    assert_eq!(answer.kept.shown(), want);
}

#[tokio::test]
async fn a_document_without_a_message_is_its_own_message() {
    let document = r#"{ "time":"2023-11-14T22:13:19Z", "level":"error","pod":"db-0","n":1 }"#;
    let answer = posted("/elastic/app-prod/_bulk", &format!("{{\"index\":{{}}}}\n{document}")).await;
    assert_eq!(answer.body["items"][0]["index"]["_index"], "app-prod");
    let line = format!("1699999999000000000|error||{document}|_index=app-prod");
    assert_eq!(answer.kept.shown(), ["app=db,pod=db-0,service=db".to_owned(), line]);
}

#[tokio::test]
async fn a_request_says_where_things_lie() {
    let body = "{\"create\":{}}\n{\"t\":1700000000,\"m\":{\"text\":\"hello\"},\"team\":\"red\",\"message\":\"other\",\"n\":1}\n";
    let path = "/elastic/_bulk?_time_field=t&_msg_field=m.text&_stream_fields=team,pod&filter_path=errors";
    let answer = posted(path, body).await;
    let want = ["service=unknown_service,team=red", "1700000000000000000|||hello|message=other,n=1i"];
    assert_eq!(answer.kept.shown(), want);
    let many = format!("/elastic/_bulk?_msg_field={}", "a,".repeat(20));
    assert_eq!(posted(&many, body).await.status, 400);
    assert_eq!(posted(&format!("/elastic/_bulk?_msg_field={}", "a.".repeat(20)), body).await.status, 400);
}

#[tokio::test]
async fn a_body_that_cannot_be_taken_is_refused_as_a_whole() {
    for (body, says) in [
        ("", "request body is required"),
        ("{\"create\":{}}\n", "line 1: its document is missing"),
        ("{\"create\":{}}\n{\"message\":\"a\"}\nnope\n", "line [3], it is not JSON"),
        ("{\"create\":{},\"index\":{}}\n{}\n", "expected one action"),
        ("{\"move\":{}}\n{}\n", "\"move\" is no action"),
    ] {
        let answer = posted("/elastic/_bulk", body).await;
        let reason = answer.body["error"]["reason"].as_str().unwrap_or_default();
        assert!(answer.status == 400 && reason.contains(says), "{body:?}: {}", answer.body);
        assert_eq!(answer.kept.entries(), 0);
    }
    let many = "{\"delete\":{}}\n".repeat(250_001);
    assert_eq!(posted("/elastic/_bulk", &many).await.status, 413);
    let body = b"{\"create\":{}}\n{\"message\":\"a\"}\n".to_vec();
    let answer =
        asked("PUT", "/elastic/_bulk", &[("content-encoding", "zstd")], body.clone(), Arc::default()).await;
    assert_eq!(answer.status, 415);
    let answer = asked("POST", "/elastic/_bulk", &[], body, Kept::full()).await;
    assert_eq!((answer.status, &*answer.retry), (503, "7"));
    assert_eq!(answer.body, "too many writes at once\n", "no JSON, or rsyslog drops what it sent");
}

#[tokio::test]
async fn gzip_is_undone() {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(BODY.as_bytes()).unwrap();
    let headers = [("content-encoding", "gzip"), ("content-type", "application/x-ndjson")];
    let answer = asked("PUT", "/elastic/_bulk", &headers, gzip.finish().unwrap(), Arc::default()).await;
    assert_eq!((answer.status, answer.kept.entries()), (200, 3));
}

proptest! {
    #[test]
    fn foreign_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..200), text in ".{0,80}") {
        try_read(&body);
        try_read(format!("{{\"create\":{{}}}}\n{text}\n").as_bytes());
        try_read(format!("{{\"create\":{{}}}}\n{{\"message\":{text}}}\n").as_bytes());
    }

    /// Whatever a message holds comes back, in its place.
    #[test]
    fn messages_come_back(texts in proptest::collection::vec("(?s).{0,40}", 1..20), beside in ".{0,10}") {
        let lines = texts.iter().map(|text| {
            format!("{{\"index\":{{}}}}\n{}\n", json!({ "message": text, "beside": beside }))
        });
        let body: String = lines.collect();
        let read = read(body.as_bytes(), None, &Naming::default(), NOW).unwrap();
        let kept: Vec<&[u8]> =
            read.gathered.push.batches.iter().flat_map(|batch| &batch.entries).map(|one| &*one.message).collect();
        let want: Vec<&[u8]> = texts.iter().map(String::as_bytes).collect();
        prop_assert_eq!(kept, want);
        prop_assert!(read.items.iter().all(|item| item.refused.is_none()));
        prop_assert!(shown(&read.gathered.push).len() > 1);
    }
}
