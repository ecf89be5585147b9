use std::io::Write;

use axum::body::{Body, to_bytes};
use proptest::prelude::*;
use prost::Message;

use super::super::message::{Answer, Status};
use super::*;
use crate::intake::doubles::{Kept, NOW, intake, shown};

/// What two resources have to say.
const REQUEST: &str = r#"{"resourceLogs":[
  {"resource":{"attributes":[
     {"key":"k8s.namespace.name","value":{"stringValue":"shop"}},
     {"key":"k8s.pod.name","value":{"stringValue":"cart-7d9f8b6c5-x2x4z"}},
     {"key":"k8s.pod.uid","value":{"stringValue":"u1"}},
     {"key":"k8s.container.name","value":{"stringValue":"web"}},
     {"key":"k8s.node.name","value":{"stringValue":"n1"}}]},
   "scopeLogs":[{"scope":{"name":"lib","version":"1"},"logRecords":[
     {"timeUnixNano":"1700000000000000001","severityNumber":17,"severityText":"ERROR","body":{"stringValue":"a \"b\"\n\tü"},
      "attributes":[{"key":"log.iostream","value":{"stringValue":"stderr"}},{"key":"http.status","value":{"intValue":"503"}},
       {"key":"tags","value":{"arrayValue":{"values":[{"stringValue":"x"},{"boolValue":true}]}}},
       {"key":"app","value":{"stringValue":"not a label"}}],
      "traceId":"0AF7651916CD43DD8448EB211C80319C","spanId":"b7ad6b7169203331","flags":1},
     {"observedTimeUnixNano":"1700000000000000002","severityText":"Warning","body":{"kvlistValue":{"values":[
       {"key":"msg","value":{"stringValue":"m"}},{"key":"n","value":{"intValue":1}}]}},"eventName":"e"}]}]},
  {"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"pay"}},{"key":"host.name","value":{"stringValue":"h"}}]},
   "scopeLogs":[{"logRecords":[{"body":{"stringValue":"WARN low"}},{"severityNumber":10,"body":{"bytesValue":"/wA="}},{}]}]}]}"#;

#[test]
fn records_become_the_entries_that_tailed_lines_are() {
    let request = read(Encoding::Json, REQUEST.as_bytes()).unwrap();
    let again = read(Encoding::Protobuf, &request.encode_to_vec()).unwrap();
    assert_eq!(request, again, "both encodings say the same");
    let gathered = gather(request, NOW).unwrap();
    let want = [
        "app=cart,container=web,namespace=shop,node=n1,pod=cart-7d9f8b6c5-x2x4z,service=cart",
        "1700000000000000001|error|stderr|a \"b\"\n\tü|trace_id=0af7651916cd43dd8448eb211c80319c,\
         span_id=b7ad6b7169203331,trace_flags=01,http.status=503i,tags=x,tags=trueb,app=not a label,\
         otel.scope.name=lib,otel.scope.version=1,k8s.pod.uid=u1",
        "1700000000000000002|warn||{\"msg\":\"m\",\"n\":1}|severity_text=Warning,event.name=e,\
         otel.scope.name=lib,otel.scope.version=1,k8s.pod.uid=u1",
        "app=pay,node=h,service=pay",
        "1700000000123456789|warn||WARN low|",
        "1700000000123456789|info||\\xff\\x00|severity_number=10i",
        "1700000000123456789||||",
    ];
    assert_eq!(shown(&gathered.push), want);
}

#[test]
fn severities_are_numbers_or_names() {
    let level = |severity: &str| {
        let body = format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{{severity}}}]}}]}}]}}"#);
        let gathered = gather(read(Encoding::Json, body.as_bytes()).unwrap(), NOW).unwrap();
        gathered.push.batches[0].entries[0].level.clone()
    };
    assert_eq!(level(r#""severityNumber":"SEVERITY_NUMBER_WARN3""#), "warn");
    assert_eq!(level(r#""severityNumber":"SEVERITY_NUMBER_FATAL""#), "fatal");
    assert_eq!(level(r#""severityNumber":"SEVERITY_NUMBER_UNSPECIFIED","severityText":"crit""#), "fatal");
    assert_eq!(level(r#""severityNumber":99,"severityText":"debug""#), "debug");
    assert_eq!(level(r#""severityNumber":1,"severityText":"debug""#), "trace");
}

/// Status, content type, `Retry-After`, body, and how many entries were kept.
async fn sent(
    headers: &[(&str, &str)],
    body: Vec<u8>,
    is_full: bool,
) -> (u16, String, String, Vec<u8>, usize) {
    let kept = if is_full { Kept::full() } else { Arc::default() };
    let intake = intake(&kept);
    let mut request = Request::builder().header("content-length", body.len());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = handle(State(intake), request.body(Body::from(body)).unwrap()).await;
    let answer = axum::response::IntoResponse::into_response(answer);
    let header =
        |name: &str| answer.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
    let (status, kind, retry) = (answer.status().as_u16(), header("content-type"), header("retry-after"));
    let body = to_bytes(answer.into_body(), 1 << 20).await.unwrap().to_vec();
    (status, kind, retry, body, kept.entries())
}

#[tokio::test]
async fn answers_are_in_the_encoding_of_the_request() {
    let json = [("content-type", "application/json")];
    let protobuf = [("content-type", "application/x-protobuf")];
    let (status, kind, _, body, kept) = sent(&json, REQUEST.into(), false).await;
    assert_eq!((status, &*kind, &*body, kept), (200, "application/json", &b"{}"[..], 5));
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&read(Encoding::Json, REQUEST.as_bytes()).unwrap().encode_to_vec()).unwrap();
    let gzip = gzip.finish().unwrap();
    let headers = [protobuf[0], ("content-encoding", "gzip")];
    let (status, kind, _, body, kept) = sent(&headers, gzip, false).await;
    assert_eq!((status, &*kind, &*body, kept), (200, "application/x-protobuf", &b""[..], 5));

    let (status, kind, _, body, _) = sent(&protobuf, b"nope".to_vec(), false).await;
    assert_eq!((status, &*kind), (400, "application/x-protobuf"));
    assert_eq!(Status::decode(&*body).unwrap().code, 3);
    let (status, _, retry, body, _) = sent(&json, REQUEST.into(), true).await;
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((status, &*retry, &body["code"]), (503, "7", &14.into()));
    assert_eq!(sent(&[("content-type", "text/plain")], Vec::new(), false).await.0, 415);
    let headers = [json[0], ("content-encoding", "br")];
    assert_eq!(sent(&headers, Vec::new(), false).await.0, 415);
    assert_eq!(sent(&json, b"{}".to_vec(), false).await.0, 200, "nothing is kept of nothing");
}

#[tokio::test]
async fn the_answer_says_what_was_over_the_bounds() {
    let attributes: Vec<String> =
        (0..140).map(|n| format!(r#"{{"key":"k{n}","value":{{"intValue":{n}}}}}"#)).collect();
    let body = format!(
        r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"attributes":[{}]}}]}}]}}]}}"#,
        attributes.join(",")
    );
    let request = read(Encoding::Json, body.as_bytes()).unwrap().encode_to_vec();
    let (status, _, _, body, kept) =
        sent(&[("content-type", "application/x-protobuf")], request, false).await;
    let partial = Answer::decode(&*body).unwrap().partial_success.unwrap();
    assert_eq!((status, kept, partial.rejected), (200, 1, 0));
    assert!(partial.error_message.starts_with("12 attributes"), "{partial:?}");
}

proptest! {
    #[test]
    fn foreign_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..300), cut in 0usize..400) {
        let _ = (try_read(&body, false), try_read(&body, true));
        let mut near = read(Encoding::Json, REQUEST.as_bytes()).unwrap().encode_to_vec();
        near.truncate(cut);
        near.extend(body);
        try_read(&near, false);
    }
}
