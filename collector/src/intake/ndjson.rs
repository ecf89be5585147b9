//! `POST /api/logs/ndjson`: lines of JSON, one entry each.
//!
//! Fields mean what they mean in a document of `_bulk`; `_time_field`, `_msg_field` and `_stream_fields` in the query
//! name others, as in VictoriaLogs. A line that cannot be read is named by its number, and the others are kept.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::draft::{Documents, Gathered, MAX_PARTS, Naming};
use super::otlp::{gunzip, gunzipped_len, is_gzip};
use super::{DECODED_MAX_BYTES, Intake, Refusal, body_length, read_body};

/// Lines that an answer names.
const MAX_NAMED: usize = 100;

/// What a body says.
#[derive(Debug, Default)]
struct Lines {
    gathered: Gathered,
    /// Lines that were not kept.
    refused: usize,
    /// The first of them, numbered from 1, and why.
    named: Vec<(usize, String)>,
}

pub(super) async fn handle(State(intake): State<Arc<Intake>>, request: Request) -> Result<Response, Refusal> {
    let is_gzip = is_gzip(request.headers())?;
    let naming = Naming::of_query(request.uri().query().unwrap_or_default())?;
    let length = body_length(request.headers());
    let place = intake.place(length).await?;
    let body = read_body(request.into_body(), length).await?;
    let decoded = if is_gzip { gunzipped_len(&body) } else { body.len() };
    let received = intake.clock.now_ns();
    let (logs, over) = (Arc::clone(&intake.logs), intake.telemetry.attributes_over.clone());
    let work = move || {
        let plain = if is_gzip { gunzip(&body, decoded)?.into() } else { body };
        if plain.len() > DECODED_MAX_BYTES {
            return Err(Refusal::TooLarge(format!("decoded body has more than {DECODED_MAX_BYTES} bytes")));
        }
        let Lines { gathered, refused, named } = read(&plain, &naming, received.0)?;
        drop(plain);
        over.inc_by(gathered.over);
        let kept = gathered.len();
        if kept > 0 {
            logs.append(gathered.push, received)?;
        }
        Ok((kept, refused, named))
    };
    let (kept, refused, named) = intake.run_lines(place, decoded, work).await?;
    let status = if kept == 0 && refused > 0 { StatusCode::BAD_REQUEST } else { StatusCode::OK };
    let named: Value = named.iter().map(|(line, reason)| json!({ "line": line, "reason": reason })).collect();
    Ok((status, Json(json!({ "kept": kept, "refused": refused, "errors": named }))).into_response())
}

/// Lines of a body that hold something, with their numbers from 1.
pub(super) fn lines(body: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let ends = memchr::memchr_iter(b'\n', body).chain([body.len()]);
    let mut start = 0;
    let all = ends.map(move |end| {
        let line = &body[start..end];
        start = end + 1;
        line.trim_ascii()
    });
    (1..).zip(all).filter(|(_, line)| !line.is_empty())
}

fn read(body: &[u8], naming: &Naming, now_ns: i64) -> Result<Lines, Refusal> {
    let mut read = Lines::default();
    let mut documents = Documents::new(naming);
    for (number, line) in lines(body) {
        match documents.read(line, &[]) {
            Ok((draft, stream)) => {
                if !read.gathered.add_to(documents.placed(stream), draft, now_ns) {
                    let reason =
                        format!("body has more than {MAX_PARTS} entries and attributes; send less at once");
                    return Err(Refusal::TooLarge(reason));
                }
            }
            Err(reason) => {
                read.refused += 1;
                if read.named.len() < MAX_NAMED {
                    read.named.push((number, reason));
                }
            }
        }
    }
    Ok(read)
}

/// Reads a body as the handler does, for what throws foreign bytes at it. Answers how many lines it has.
#[doc(hidden)]
pub fn try_read(body: &[u8], query: &str) -> usize {
    let naming = Naming::of_query(query).unwrap_or_default();
    read(body, &naming, 0).map_or(0, |read| read.gathered.len())
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use proptest::prelude::*;

    use super::*;
    use crate::intake::doubles::{Kept, NOW, intake};

    async fn sent(path: &str, body: &str, kept: &Arc<Kept>) -> (u16, Value) {
        let request = Request::post(path).header("content-length", body.len());
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let answer = handle(State(intake(kept)), request).await.into_response();
        let status = answer.status().as_u16();
        let body = to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    #[tokio::test]
    async fn bad_lines_are_named_and_good_ones_kept() {
        let kept = Arc::default();
        let body = "{\"_msg\":\"one\",\"_time\":\"2023-11-14T22:13:19Z\",\"pod\":\"db-0\"}\r\n\n{\"_msg\":\nnull\n{\"n\":1}";
        let (status, answer) = sent("/api/logs/ndjson", body, &kept).await;
        assert_eq!((status, &answer["kept"], &answer["refused"]), (200, &json!(2), &json!(2)));
        let lines: Vec<&Value> =
            answer["errors"].as_array().unwrap().iter().map(|error| &error["line"]).collect();
        assert_eq!(lines, [3, 4]);
        let want = [
            "app=db,pod=db-0,service=db".to_owned(),
            "1699999999000000000|||one|".to_owned(),
            "service=unknown_service".to_owned(),
            format!("{NOW}|||{{\"n\":1}}|"),
        ];
        assert_eq!(kept.shown(), want);
        assert_eq!(sent("/api/logs/ndjson", "nope\n", &kept).await.0, 400);
        assert_eq!(
            sent("/api/logs/ndjson", "", &kept).await,
            (200, json!({"kept":0,"refused":0,"errors":[]}))
        );
        assert_eq!(sent("/api/logs/ndjson", "{}", &Kept::full()).await.0, 503);
    }

    #[tokio::test]
    async fn a_request_names_its_fields() {
        let kept = Arc::default();
        let path = "/api/logs/ndjson?_stream_fields=kubernetes.pod_name,team&_time_field=when&_msg_field=a,b";
        let body =
            "{\"when\":1700000000,\"b\":\"text\",\"team\":7,\"kubernetes\":{\"pod_name\":\"p\"},\"time\":1}";
        assert_eq!(sent(path, body, &kept).await.0, 200);
        assert_eq!(
            kept.shown(),
            ["app=p,pod=p,service=p,team=7", "1700000000000000000|||text|team=7i,time=1i"]
        );
    }

    proptest! {
        #[test]
        fn foreign_lines_never_panic(text in "(?s).{0,100}", query in "(_msg_field=)?[a-c.,=&_]{0,20}") {
            try_read(text.as_bytes(), &query);
            try_read(format!("{{\"a\":{text}}}").as_bytes(), &query);
        }
    }
}
