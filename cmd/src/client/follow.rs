//! Lines as they come, also across a server that restarts.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::StreamExt;
use serde_json::Value;

use super::entry::Printer;
use super::pager::Output;
use super::{LINE_MAX_BYTES, open};

/// A server that is not back after so many seconds stays away.
const TRIES: usize = 30;

/// What tells an entry from every other.
pub(super) type Place = (Value, Value, Value);

pub(super) fn place(entry: &Value) -> Place {
    (entry["file"].clone(), entry["offset"].clone(), entry["received_ns"].clone())
}

/// A tail that was opened, and where it is.
pub(super) struct Tail {
    url: reqwest::Url,
    response: reqwest::Response,
    /// Of the last event.
    last: Option<String>,
}

impl Tail {
    pub(super) async fn open(url: reqwest::Url) -> anyhow::Result<Self> {
        let response = open(url.clone(), None).await?;
        Ok(Self { url, response, last: None })
    }

    /// Prints what comes, but for what was shown already.
    pub(super) async fn print(
        mut self,
        out: &mut Output,
        printer: &Printer,
        shown: &[Place],
    ) -> anyhow::Result<()> {
        loop {
            let (response, last) = (self.response, &mut self.last);
            if let Err(error) = events(response, last, |event| show(event, out, printer, shown)).await {
                // A closed pipe: nobody reads any more.
                if error.downcast_ref::<std::io::Error>().is_some() {
                    return Err(error);
                }
                eprintln!("binnacle: {error:#}; going on when the server is back");
            }
            self.response = reopen(&self.url, self.last.as_deref()).await?;
        }
    }
}

async fn reopen(url: &reqwest::Url, last: Option<&str>) -> anyhow::Result<reqwest::Response> {
    let mut failed = None;
    for _ in 0..TRIES {
        tokio::time::sleep(Duration::from_secs(1)).await;
        match open(url.clone(), last).await {
            Ok(response) => return Ok(response),
            Err(error) => failed = Some(error),
        }
    }
    Err(failed.unwrap_or_else(|| anyhow::anyhow!("no answer from the server")))
}

/// Reads server-sent events; notes the id of each once it was shown.
async fn events(
    response: reqwest::Response,
    last: &mut Option<String>,
    mut show: impl FnMut(&Event) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut chunks = response.bytes_stream();
    let mut buffer: Vec<u8> = Vec::new();
    while let Some(chunk) = chunks.next().await {
        let searched = buffer.len().saturating_sub(1);
        buffer.extend_from_slice(&chunk.context("the server closed the connection")?);
        let mut from = searched;
        while let Some(end) = buffer[from..].windows(2).position(|pair| pair == b"\n\n") {
            let event: Vec<u8> = buffer.drain(..from + end + 2).collect();
            from = 0;
            let event = Event::parse(&String::from_utf8_lossy(&event));
            show(&event)?;
            if event.id.is_some() {
                *last = event.id;
            }
        }
        if buffer.len() > LINE_MAX_BYTES {
            bail!("the server sent an event without an end");
        }
    }
    bail!("the server closed the connection")
}

#[derive(Debug, Default, PartialEq)]
struct Event {
    kind: String,
    data: String,
    id: Option<String>,
}

impl Event {
    fn parse(text: &str) -> Self {
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.map(|value| value.strip_prefix(' ').unwrap_or(value).to_owned())
        };
        Self {
            kind: field("event:").unwrap_or_default(),
            data: field("data:").unwrap_or_default(),
            id: field("id:"),
        }
    }
}

fn show(event: &Event, out: &mut Output, printer: &Printer, shown: &[Place]) -> anyhow::Result<()> {
    match event.kind.as_str() {
        "entry" => {
            let entry: Value = serde_json::from_str(&event.data).context("an event cannot be read")?;
            if !shown.contains(&place(&entry)) {
                printer.print(out, &entry)?;
                out.flush()?;
            }
        }
        "dropped" => eprintln!("binnacle: {} lines were left out, the reader is too slow", event.data),
        "failed" => eprintln!("binnacle: lines may be missing: {}", event.data),
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read() {
        let event = Event::parse("event: entry\ndata: {\"a\": 1}\nid: 1_2_3_4\n\n");
        assert_eq!(
            (&*event.kind, &*event.data, event.id.as_deref()),
            ("entry", "{\"a\": 1}", Some("1_2_3_4"))
        );
        assert_eq!(Event::parse(": keep alive\n\n"), Event::default());
    }
}
