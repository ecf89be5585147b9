//! Lines as Loki writes them.

use std::collections::BTreeMap;
use std::fmt::Write;

use axum::response::Response;
use serde_json::Value;

use super::super::json::{JSON, push_text};
use super::super::pieces;
use crate::logql::{Found, Kind, Selected};

/// The flag by which a client asks for labels by where they come from.
const CATEGORIZE: &str = "categorize-labels";

/// Whether the header `X-Loki-Response-Encoding-Flags` has it.
pub(super) fn categorizes(headers: &axum::http::HeaderMap) -> bool {
    let flags = headers.get("x-loki-response-encoding-flags").and_then(|value| value.to_str().ok());
    flags.is_some_and(|flags| flags.split(',').any(|flag| flag.trim() == CATEGORIZE))
}

type Pairs = Vec<(String, String)>;

/// Lines of one stream.
type Stream = (Pairs, Vec<Selected>);

/// Lines by their streams, each in the order in which they came.
pub(super) fn streams(lines: Vec<Selected>, categorizes: bool) -> Vec<Stream> {
    let mut found: BTreeMap<Pairs, Vec<Selected>> = BTreeMap::new();
    for mut line in lines {
        let is_key = |kind: Kind| !categorizes || kind == Kind::Stream;
        let key = line.labels.iter().filter(|(.., kind)| is_key(*kind));
        let key = key.map(|(name, value, _)| (name.clone(), value.clone())).collect();
        line.labels.retain(|(.., kind)| !is_key(*kind));
        found.entry(key).or_default().push(line);
    }
    found.into_iter().collect()
}

/// The answer to a log query, written as the client takes it.
pub(super) fn respond(found: Found, categorizes: bool) -> Response {
    let Found { lines, warnings, held } = found;
    let streams = streams(lines, categorizes);
    let mut head = "{\"status\":\"success\",\"data\":{\"resultType\":\"streams\",".to_owned();
    if categorizes {
        head.push_str("\"encodingFlags\":[\"categorize-labels\"],");
    }
    head.push_str("\"result\":[");
    let mut tail = "],\"stats\":{}}".to_owned();
    if !warnings.is_empty() {
        let _ = write!(tail, ",\"warnings\":{}", Value::from(warnings));
    }
    tail.push('}');
    let push = move |body: &mut String, at: usize, stream: Stream| {
        if at > 0 {
            body.push(',');
        }
        push_stream(body, &stream, categorizes);
    };
    pieces::respond(JSON, head, (streams.into_iter(), held), push, tail)
}

/// `{"stream":{…},"values":[["ns","line"],…]}`
pub(super) fn push_stream(body: &mut String, (labels, lines): &Stream, categorizes: bool) {
    body.push_str("{\"stream\":");
    push_pairs(body, labels.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    body.push_str(",\"values\":[");
    for (at, line) in lines.iter().enumerate() {
        let _ = write!(body, "{}[\"{}\",", if at > 0 { "," } else { "" }, line.time.0);
        push_text(body, &String::from_utf8_lossy(&line.line));
        if categorizes {
            push_categories(body, line);
        }
        body.push(']');
    }
    body.push_str("]}");
}

/// `,{"structuredMetadata":{…},"parsed":{…}}`
fn push_categories(body: &mut String, line: &Selected) {
    body.push_str(",{");
    let mut is_first = true;
    for (name, wanted) in [("structuredMetadata", Kind::Metadata), ("parsed", Kind::Parsed)] {
        let mut pairs = line.labels.iter().filter(|(.., kind)| *kind == wanted).peekable();
        if pairs.peek().is_none() {
            continue;
        }
        let _ = write!(body, "{}\"{name}\":", if is_first { "" } else { "," });
        push_pairs(body, pairs.map(|(name, value, _)| (name.as_str(), value.as_str())));
        is_first = false;
    }
    body.push('}');
}

fn push_pairs<'p>(body: &mut String, pairs: impl Iterator<Item = (&'p str, &'p str)>) {
    body.push('{');
    for (at, (name, value)) in pairs.enumerate() {
        if at > 0 {
            body.push(',');
        }
        push_text(body, name);
        body.push(':');
        push_text(body, value);
    }
    body.push('}');
}
