//! `POST /loki/api/v1/push`: what Promtail, Alloy, Fluent Bit, Vector, Docker's driver and Loki's clients send.
//!
//! ```text
//! body ─┬─ JSON, plain or gzip ───────► json     ─┐   labels ─► stream (labels)
//!       └─ protobuf in snappy's blocks ► protobuf ─┴─► LogPush ─► LogAppender
//! ```
//!
//! Both are walked once, and nothing is made of a body but the lines that are kept. Every line, label and piece of
//! metadata is counted before it is made. Labels stay as they are sent, but for `service_name`, which is our `service`;
//! where no label says a service, it is found as Loki finds it. A line's level is what its labels or metadata say, or
//! what the line says itself.

mod json;
mod labels;
mod protobuf;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use binnacle_model::meaning;
use binnacle_model::push::{FileBatch, LogPush, PushEntry, PushField, PushValue};

use super::draft::bound;
use super::otlp::{gunzip, gunzipped_len};
use super::{
    DECODED_MAX_BYTES, Intake, Refusal, body_length, header_text, read_body, unsnapped, unsnapped_len,
};
use labels::Stream;

/// Lines, labels and pieces of metadata of one body: an empty line is eight bytes there and a hundred in memory.
const MAX_PARTS: usize = 2_000_000;

const TOO_MANY: &str = "push has more than 2000000 lines, labels and pieces of metadata; send less at once";

/// Metadata by which a line says its level.
const LEVEL_NAMES: [&str; 4] = ["detected_level", "level", "severity_text", "severity"];

pub(super) async fn handle(
    State(intake): State<Arc<Intake>>,
    request: Request,
) -> Result<StatusCode, Refusal> {
    let kind = header_text(request.headers(), "content-type").split(';').next().unwrap_or_default().trim();
    let is_json = kind.eq_ignore_ascii_case("application/json");
    let is_gzip = match header_text(request.headers(), "content-encoding") {
        "gzip" => true,
        // Protobuf is in snappy's blocks whatever the header says, as in Loki.
        "" | "identity" => false,
        "snappy" if !is_json => false,
        other => {
            let reason = format!("Content-Encoding {other:?} not supported; send gzip or none");
            return Err(Refusal::Unsupported(reason));
        }
    };
    let length = body_length(request.headers());
    let place = intake.place(length).await?;
    let body = read_body(request.into_body(), length).await?;
    let decoded = match (is_gzip, is_json) {
        (true, _) => gunzipped_len(&body),
        (false, true) => body.len(),
        (false, false) => unsnapped_len(&body),
    };
    let received = intake.clock.now_ns();
    let (logs, over) = (Arc::clone(&intake.logs), intake.telemetry.attributes_over.clone());
    intake
        .run_lines(place, decoded, move || {
            let plain = if is_gzip { gunzip(&body, decoded)?.into() } else { body };
            if plain.len() > DECODED_MAX_BYTES {
                let reason = format!("decoded body has more than {DECODED_MAX_BYTES} bytes");
                return Err(Refusal::TooLarge(reason));
            }
            let read = if is_json { json::read(&plain)? } else { unsnapped(&plain, protobuf::read)? };
            drop(plain);
            let Pushed { mut push, refused } = read;
            over.inc_by(bound(&mut push));
            if !push.batches.is_empty() {
                logs.append(push, received)?;
            }
            refused.map_or(Ok(StatusCode::NO_CONTENT), |refused| Err(refused.into_refusal()))
        })
        .await
}

/// What may still be made of a body.
struct Budget(usize);

impl Budget {
    fn new() -> Self {
        Self(MAX_PARTS)
    }

    /// Whether there is room for one more.
    fn take(&mut self) -> bool {
        let has_room = self.0 > 0;
        self.0 = self.0.saturating_sub(1);
        has_room
    }
}

/// What a body holds.
#[derive(Default)]
struct Pushed {
    push: LogPush,
    refused: Option<Refused>,
}

/// Streams that are not taken. As in Loki, the others are, and the answer says what was wrong with these.
struct Refused {
    /// Of the first of them.
    reason: String,
    streams: usize,
}

impl Pushed {
    /// Remembers why a stream is not taken; what is wrong with all of the body comes back.
    fn refuse(&mut self, refusal: Refusal) -> Result<(), Refusal> {
        let Refusal::Bad(reason) = refusal else { return Err(refusal) };
        self.refused.get_or_insert(Refused { reason, streams: 0 }).streams += 1;
        Ok(())
    }
}

impl Refused {
    fn into_refusal(self) -> Refusal {
        Refusal::Bad(match self.streams {
            1 => self.reason,
            streams => format!("{} (and {} more streams were not taken)", self.reason, streams - 1),
        })
    }
}

/// A line as it is sent.
struct Line<'a> {
    time_ns: i64,
    /// Not necessarily UTF-8: Loki does not look either.
    text: &'a [u8],
    /// In the order in which it is sent.
    metadata: Vec<PushField>,
}

/// Makes a batch of a stream's lines.
struct Batch {
    stream: Stream,
    entries: Vec<PushEntry>,
}

impl Batch {
    fn new(stream: Stream) -> Self {
        Self { stream, entries: Vec::new() }
    }

    fn push(&mut self, line: Line<'_>) {
        let Line { time_ns, text, mut metadata } = line;
        let level = self.level(text, &mut metadata);
        self.entries.push(PushEntry {
            time_ns,
            // Keeps lines of one moment in their order.
            offset: self.entries.len() as u64,
            message: text.to_vec(),
            level: level.to_owned(),
            iostream: self.stream.iostream.clone(),
            fields: metadata,
            shared: 0,
        });
    }

    /// By metadata, by a label, by the line itself.
    fn level(&self, text: &[u8], metadata: &mut Vec<PushField>) -> &'static str {
        let named = LEVEL_NAMES.iter().find_map(|name| {
            let at = metadata.iter().position(|field| field.name == *name)?;
            let Some(PushValue::Text(value)) = &metadata[at].value else { return None };
            Some((at, meaning::level_named(value))).filter(|(_, level)| !level.is_empty())
        });
        if let Some((at, level)) = named {
            // It comes back under this name, as every level does.
            if metadata[at].name == "detected_level" {
                metadata.remove(at);
            }
            return level;
        }
        if self.stream.level.is_empty() { meaning::level(text) } else { self.stream.level }
    }

    /// Nothing if there is no line.
    fn finish(self, push: &mut LogPush) {
        if self.entries.is_empty() {
            return;
        }
        push.batches.push(FileBatch {
            to: self.entries.len() as u64,
            stream: self.stream.labels,
            entries: self.entries,
            ..FileBatch::default()
        });
    }
}

/// Reads a body as the handler does, for what throws foreign bytes at it. Answers how many lines it has.
#[doc(hidden)]
pub fn try_read(body: &[u8], is_json: bool) -> usize {
    let read = if is_json { json::read(body) } else { protobuf::read(body) };
    read.map_or(0, |read| read.push.batches.iter().map(|batch| batch.entries.len()).sum())
}
