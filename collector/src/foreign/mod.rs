//! Stores of others: a collector is of use without ours, too.
//!
//! ```text
//! tail ─► LogPush ─► Logs: entries that are not taken yet ─► requests of a bounded size ─► Loki | OTLP | _bulk
//!                      ▲                                                                      │
//!                      └── refused for good: counted; busy, away, some of them: again ◄───────┘
//! scrape ─► remote_write::Direct ─► receivers of remote write
//! ```
//!
//! These stores keep no marks of files, so the tailer's checkpoint says how far they have them: what was taken after the
//! last one is sent again after a crash. Elasticsearch refuses that by its id, Loki drops a line that it has with the same
//! labels and time, and OTLP's receivers have it twice.
//!
//! Invariants:
//! - An entry counts as taken only when the store said so of it; what it will never take is counted by reason.
//! - Of a pack of which a part was taken, only the rest is sent again.

mod config;
mod door;
mod elastic;
mod loki;
mod otlp;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use binnacle_model::log::FieldValue;
use binnacle_model::push::{FileBatch, LogPush, PushEntry, PushField, PushValue};
use binnacle_model::storage::{
    AppendError, AppendReport, Appender, LogAppendReport, Metadata, PodMetadata, PodSink, RawSeries,
    SeriesDecoder,
};
use prost::Message;
use reqwest::StatusCode;
use tokio::runtime::Handle;
use xxhash_rust::xxh3::xxh3_128;

pub use config::{LogTarget, RawSend, Targets};

use crate::Telemetry;
use crate::completeness::NodeReport;
use crate::tail::LogSink;
use door::{Answer, Door};

/// A request that holds more than one entry has no more than so many bytes, not yet compressed, and entries. It is below
/// what Loki, collectors of OpenTelemetry and Elasticsearch take where nobody set a limit.
const REQUEST_BYTES: usize = 1024 * 1024;
const REQUEST_ENTRIES: usize = 5000;

/// What an entry takes beside its message, about.
const ENTRY_BYTES: usize = 256;

/// A request that was refused as a whole is halved so often to find what is wrong with it.
const HALVINGS_MAX: u32 = 5;

/// In what form entries are sent.
#[derive(Debug, Clone)]
pub(crate) enum Format {
    /// Loki's push.
    Loki {
        /// Labels of every stream.
        labels: Vec<(String, String)>,
    },
    /// OTLP over HTTP.
    Otlp,
    /// Elasticsearch's `_bulk`.
    Elastic {
        /// An index, or a data stream.
        index: String,
    },
}

/// An entry of a pack.
#[derive(Debug, Clone, Copy)]
struct Item<'p> {
    batch: &'p FileBatch,
    entry: &'p PushEntry,
    /// Its place in the pack.
    number: usize,
}

impl Item<'_> {
    fn label(&self, name: &str) -> &str {
        self.batch.stream.iter().find(|pair| pair.name == name).map_or("", |pair| &pair.value)
    }

    fn bytes(&self) -> usize {
        let fields = self.entry.fields.iter().map(|field| field.name.len() + 32).sum::<usize>();
        self.entry.message.len() + fields + ENTRY_BYTES
    }
}

/// What became of the entries of one request.
#[derive(Debug, Default, PartialEq)]
struct Verdict {
    /// Places in the request of those that are not settled, and that may be taken later.
    open: Vec<usize>,
    /// Why, if it is not for want of room.
    trouble: Option<String>,
    duplicates: usize,
    /// Refused for good: how many, and why.
    refused: Vec<(usize, String)>,
}

/// Packs of which it is remembered how far they are: one of each input, and some of those that were given up.
const PACKS_MAX: usize = 64;

/// How far a pack is that was not taken as a whole.
#[derive(Debug, Default)]
struct Progress {
    pack: u128,
    settled: Vec<bool>,
    report: LogAppendReport,
}

/// A store of logs that is not ours.
pub struct Logs {
    door: Door,
    format: Format,
    runtime: Handle,
    telemetry: Telemetry,
    /// Those that were tried last come last.
    unfinished: Mutex<VecDeque<Progress>>,
}

impl Logs {
    /// A sender to `target`.
    ///
    /// # Errors
    /// A sentence about the files of TLS.
    pub fn new(target: &LogTarget, runtime: Handle, telemetry: Telemetry) -> Result<Self, String> {
        let (door, format) = (Door::new(target)?, target.format.clone());
        Ok(Self { door, format, runtime, telemetry, unfinished: Mutex::default() })
    }

    /// Sends some entries, in halves if they are too many, and notes what became of them.
    fn post(&self, items: &[Item<'_>], progress: &mut Progress, halvings: u32) -> Result<(), AppendError> {
        let body = match &self.format {
            Format::Loki { labels } => loki::encode(items, labels),
            Format::Otlp => otlp::encode(items),
            Format::Elastic { index } => elastic::encode(items, index),
        };
        let answer = self.runtime.block_on(self.door.post(&self.format, body))?;
        let status = answer.status;
        let is_too_large = status == StatusCode::PAYLOAD_TOO_LARGE;
        let is_wrong = matches!(status, StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY);
        let is_refused = is_too_large || (is_wrong && !answer.is_of_proxy());
        if !status.is_success() && !is_refused {
            return Err(answer.later());
        }
        // Loki has taken what is right in a request of which it refuses a part.
        let is_partial = matches!(self.format, Format::Loki { .. }) && !is_too_large;
        if is_refused && !is_partial && items.len() > 1 && (is_too_large || halvings < HALVINGS_MAX) {
            let (left, right) = items.split_at(items.len() / 2);
            self.post(left, progress, halvings + 1)?;
            return self.post(right, progress, halvings + 1);
        }
        let verdict = match &self.format {
            Format::Loki { .. } if is_partial && is_refused => loki::refused(&answer, items.len()),
            _ if is_refused => Verdict {
                refused: vec![(items.len(), if is_too_large { "too_large" } else { "rejected" }.to_owned())],
                ..Verdict::default()
            },
            Format::Loki { .. } => Verdict::default(),
            Format::Otlp => otlp::judge(&answer, items.len()),
            Format::Elastic { .. } => elastic::judge(&answer, items.len())?,
        };
        self.settle(items, &verdict, &answer, progress);
        match verdict.trouble {
            _ if verdict.open.is_empty() => Ok(()),
            Some(reason) => Err(AppendError::Unavailable(reason)),
            None => Err(answer.busy()),
        }
    }

    /// What became of a pack so far. Several inputs send at the same time.
    fn take_up(&self, pack: u128, entries: usize) -> Progress {
        let mut unfinished = self.unfinished.lock().unwrap_or_else(PoisonError::into_inner);
        let at = unfinished.iter().position(|one| one.pack == pack && one.settled.len() == entries);
        let new = || Progress { pack, settled: vec![false; entries], report: LogAppendReport::default() };
        at.and_then(|at| unfinished.remove(at)).unwrap_or_else(new)
    }

    fn put_off(&self, progress: Progress) {
        let mut unfinished = self.unfinished.lock().unwrap_or_else(PoisonError::into_inner);
        if unfinished.len() >= PACKS_MAX {
            unfinished.pop_front();
        }
        unfinished.push_back(progress);
    }

    fn settle(&self, items: &[Item<'_>], verdict: &Verdict, answer: &Answer, progress: &mut Progress) {
        for (at, item) in items.iter().enumerate() {
            progress.settled[item.number] = !verdict.open.contains(&at);
        }
        let refused: usize = verdict.refused.iter().map(|(count, _)| count).sum();
        for (count, reason) in &verdict.refused {
            self.telemetry.refused(reason).inc_by(*count as u64);
        }
        if refused > 0 {
            let (url, answer) = (self.door.shown(), answer.beginning());
            tracing::error!(url, refused, answer, "lines were refused for good, and are left out");
        }
        progress.report.duplicate += verdict.duplicates;
        let taken = items.len() - verdict.open.len() - refused - verdict.duplicates;
        progress.report.appended += taken;
        self.telemetry.lines_sent.inc_by(taken as u64);
    }
}

impl LogSink for Logs {
    fn send(&self, wire: &[u8]) -> Result<LogAppendReport, AppendError> {
        let push = LogPush::decode(wire).map_err(|error| AppendError::Invalid(error.to_string()))?;
        let mut push = push;
        push.spread();
        let all = push.batches.iter().flat_map(|batch| batch.entries.iter().map(move |entry| (batch, entry)));
        let all: Vec<Item<'_>> =
            all.enumerate().map(|(number, (batch, entry))| Item { batch, entry, number }).collect();
        let mut progress = self.take_up(xxh3_128(wire), all.len());
        let open: Vec<Item<'_>> = all.into_iter().filter(|item| !progress.settled[item.number]).collect();
        let mut rest = &open[..];
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest.iter().take(REQUEST_ENTRIES).take_while(|item| {
                bytes += item.bytes();
                bytes <= REQUEST_BYTES
            });
            let count = fits.count().max(1);
            let (now, later) = rest.split_at(count);
            if let Err(error) = self.post(now, &mut progress, 0) {
                self.put_off(progress);
                return Err(error);
            }
            rest = later;
        }
        Ok(progress.report)
    }

    fn marks(&self, files: &[String]) -> Result<Vec<u64>, AppendError> {
        Ok(vec![0; files.len()])
    }

    fn keeps_marks(&self) -> bool {
        false
    }

    fn report(&self, _: &NodeReport) -> Result<(), AppendError> {
        Ok(())
    }
}

/// Takes what nobody asked for: samples of a collector of logs alone, and lines of one that tails nothing.
pub struct Nowhere;

impl LogSink for Nowhere {
    fn send(&self, _: &[u8]) -> Result<LogAppendReport, AppendError> {
        Ok(LogAppendReport::default())
    }

    fn marks(&self, files: &[String]) -> Result<Vec<u64>, AppendError> {
        Ok(vec![0; files.len()])
    }

    fn report(&self, _: &NodeReport) -> Result<(), AppendError> {
        Ok(())
    }
}

impl PodSink for Nowhere {
    fn save_pods(&self, _: &[PodMetadata]) -> Result<(), AppendError> {
        Ok(())
    }
}

impl Appender for Nowhere {
    fn append(&self, _: &[RawSeries<'_>], _: &dyn SeriesDecoder) -> Result<AppendReport, AppendError> {
        Ok(AppendReport::default())
    }

    fn append_metadata(&self, _: &[(String, Metadata)]) {}
}

/// What an attribute holds.
fn value_of(field: &PushField) -> Option<FieldValue> {
    match field.value.as_ref()? {
        PushValue::Text(text) => Some(FieldValue::Text(text.clone())),
        PushValue::Int(value) => Some(FieldValue::Int(*value)),
        PushValue::Float(value) => Some(FieldValue::Float(*value)),
        PushValue::Bool(value) => Some(FieldValue::Bool(*value)),
    }
}
