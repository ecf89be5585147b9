//! `_bulk`: lines of JSON, an action and then its document.

use std::sync::Arc;

use axum::extract::Request;
use axum::response::Response;
use serde_json::Value;

use super::super::draft::{Documents, Gathered, MAX_PARTS, Naming};
use super::super::ndjson::lines;
use super::super::otlp::{gunzip, gunzipped_len, is_gzip};
use super::super::{DECODED_MAX_BYTES, Intake, Refusal, body_length, read_body};
use super::answer::{self, Item};

/// Of one request: the answer has a line for each.
const MAX_ACTIONS: usize = 250_000;

/// Longest line that says what to do.
const ACTION_MAX_BYTES: usize = 64 * 1024;

/// The index of documents that name none.
const DEFAULT_INDEX: &str = "logs";

/// What a body says.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub(super) gathered: Gathered,
    pub(super) items: Vec<Item>,
}

pub(super) async fn handle(intake: &Intake, index: Option<&str>, request: Request) -> Response {
    let received = intake.clock.now_ns();
    match take(intake, index, request).await {
        Ok(items) => {
            let took_ms = (intake.clock.now_ns().0 - received.0).max(0) / 1_000_000;
            answer::items(&items, index.unwrap_or(DEFAULT_INDEX), took_ms, received.0)
        }
        Err(refusal) => answer::refuse(refusal),
    }
}

async fn take(intake: &Intake, index: Option<&str>, request: Request) -> Result<Vec<Item>, Refusal> {
    let is_gzip = is_gzip(request.headers())?;
    let naming = Naming::of_query(request.uri().query().unwrap_or_default())?;
    let length = body_length(request.headers());
    let place = intake.place(length).await?;
    let body = read_body(request.into_body(), length).await?;
    let decoded = if is_gzip { gunzipped_len(&body) } else { body.len() };
    let received = intake.clock.now_ns();
    let (logs, over) = (Arc::clone(&intake.logs), intake.telemetry.attributes_over.clone());
    let index = index.map(str::to_owned);
    let work = move || {
        let plain = if is_gzip { gunzip(&body, decoded)?.into() } else { body };
        if plain.len() > DECODED_MAX_BYTES {
            return Err(Refusal::TooLarge(format!("decoded body has more than {DECODED_MAX_BYTES} bytes")));
        }
        let Read { gathered, items } = read(&plain, index.as_deref(), &naming, received.0)?;
        drop(plain);
        over.inc_by(gathered.over);
        if gathered.len() > 0 {
            logs.append(gathered.push, received)?;
        }
        Ok(items)
    };
    intake.run_lines(place, decoded, work).await
}

/// Reads a body. A line that is no action is an error of the whole: what follows could be anything.
pub(super) fn read(body: &[u8], index: Option<&str>, naming: &Naming, now_ns: i64) -> Result<Read, Refusal> {
    let mut read = Read::default();
    let mut documents = Documents::new(naming);
    let mut lines = lines(body);
    // Shippers repeat themselves.
    let mut before: (&[u8], Item) = (&[], Item::default());
    while let Some((number, line)) = lines.next() {
        if read.items.len() >= MAX_ACTIONS {
            let reason = format!("body has more than {MAX_ACTIONS} actions; send less at once");
            return Err(Refusal::TooLarge(reason));
        }
        if line != before.0 {
            let item = action(line).map_err(|reason| {
                Refusal::Bad(format!(
                    "Malformed action/metadata line [{number}], {reason}; nothing of the body was kept"
                ))
            })?;
            before = (line, item);
        }
        let mut item = before.1.clone();
        let mut document = || {
            lines.next().map(|(_, line)| line).ok_or_else(|| {
                Refusal::Bad(format!("line {number}: its document is missing; nothing of the body was kept"))
            })
        };
        if item.action != "delete" {
            let document = document()?;
            if item.action != "update" {
                keep(document, &mut item, index, &mut documents, now_ns, &mut read.gathered)?;
            }
        }
        if matches!(item.action, "update" | "delete") {
            let reason = format!("{} is not possible: entries of logs do not change", item.action);
            item.refused = Some(("illegal_argument_exception", reason));
        }
        read.items.push(item);
    }
    if read.items.is_empty() {
        return Err(Refusal::Bad("request body is required: it has no action".to_owned()));
    }
    Ok(read)
}

/// What to do: `{"create":{"_index":"a","_id":"1"}}`.
fn action(line: &[u8]) -> Result<Item, String> {
    if line.len() > ACTION_MAX_BYTES {
        return Err(format!("it has more than {ACTION_MAX_BYTES} bytes"));
    }
    let value: Value = serde_json::from_slice(line).map_err(|error| format!("it is not JSON: {error}"))?;
    let Value::Object(object) = value else { return Err("expected an object".to_owned()) };
    let mut members = object.into_iter();
    let (Some((name, meta)), None) = (members.next(), members.next()) else {
        return Err("expected one action".to_owned());
    };
    let actions = ["index", "create", "update", "delete"];
    let Some(action) = actions.into_iter().find(|action| *action == name) else {
        let shown: String = name.chars().take(30).collect();
        return Err(format!("{shown:?} is no action, expected one of [index, create, update, delete]"));
    };
    let text = |name: &str| match meta.get(name) {
        Some(Value::String(text)) => Some(Arc::from(text.as_str())),
        Some(Value::Number(number)) => Some(Arc::from(number.to_string())),
        _ => None,
    };
    Ok(Item { action, index: text("_index"), id: text("_id"), refused: None })
}

fn keep<'b>(
    document: &'b [u8],
    item: &mut Item,
    index: Option<&str>,
    documents: &mut Documents<'b>,
    now_ns: i64,
    gathered: &mut Gathered,
) -> Result<(), Refusal> {
    let beside = [("_index", item.index.as_deref().or(index)), ("_id", item.id.as_deref())];
    let (mut said, mut count) = ([("", ""); 2], 0);
    for (name, text) in beside {
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            said[count] = (name, text);
            count += 1;
        }
    }
    let (draft, stream) = match documents.read(document, &said[..count]) {
        Ok(read) => read,
        Err(reason) => {
            item.refused = Some(("document_parsing_exception", reason));
            return Ok(());
        }
    };
    if gathered.add_to(documents.placed(stream), draft, now_ns) {
        return Ok(());
    }
    let reason = format!("body has more than {MAX_PARTS} entries and attributes; send less at once");
    Err(Refusal::TooLarge(reason))
}

/// Reads a body as the handler does, for what throws foreign bytes at it. Answers how many lines it has.
#[doc(hidden)]
pub fn try_read(body: &[u8]) -> usize {
    read(body, Some("index"), &Naming::default(), 0).map_or(0, |read| read.gathered.len())
}
