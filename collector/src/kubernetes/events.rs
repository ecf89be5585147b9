//! What happens in a cluster, as log entries: objects of kind `Event`, each as often as it changes.
//!
//! ```text
//! list, watch ─► ascending by version ─► LogPush{file: kubernetes/CLUSTER/events, from: mark, to: version + 1} ─► LogSink
//! ```
//!
//! A cluster's events are one file whose places are versions of the API (`resourceVersion`, which counts changes): the store
//! says how far it has it, and takes none twice, whoever sends them. The API keeps events for an hour, which is how long
//! a store may be away. Of a cluster whose data came from a backup versions begin again; so does the file, by another name.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use binnacle_model::LogTime;
use binnacle_model::log::FieldValue;
use binnacle_model::push::{FileBatch, LogPush, Pair, PushEntry, PushField};
use binnacle_model::storage::{AppendError, POD_UID};
use futures_util::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use k8s_openapi::jiff::Timestamp as ApiTime;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, Error as WatchError, Event as Change, watcher as follow};
use kube::{Api, Client};
use prost::Message;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::views::{Event, Namespace};
use super::{Access, Share, chain_of};
use crate::Telemetry;
use crate::tail::LogSink;
use crate::tail::edge::Redactor;

/// Events that wait to be sent; a list has more only at a start, and is asked for again then.
const WAITING_MAX: usize = 5_000;

/// Bytes of their messages.
const WAITING_MAX_BYTES: usize = 16 << 20;

/// Events of a moment go together.
const GATHER: Duration = Duration::from_millis(500);

/// Events in one push.
const PUSH_MAX: usize = 500;

/// A longer message is cut.
const MESSAGE_MAX_BYTES: usize = 64 << 10;

/// How often the versions of a cluster may begin again.
const GENERATIONS: u32 = 16;

/// A watch that fails so often is given up for a list: versions may not be what they were.
const FAILURES_MAX: u32 = 3;

const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Label `source` of their entries; a pod's service is that of the pod.
const SOURCE: &str = "kubernetes-events";

/// Reads the events of a cluster.
pub struct EventWatch {
    /// How the API is reached.
    pub access: Access,
    /// They are read only while this agent has what is on no node.
    pub share: Share,
    /// Takes the entries.
    pub sink: Arc<dyn LogSink>,
    /// What is taken out of their messages.
    pub redactor: Arc<Redactor>,
    /// Where is counted.
    pub telemetry: Telemetry,
}

/// Why reading ended; it begins again.
type Reason = String;

impl EventWatch {
    /// Reads until `stop` fires.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut backoff = RETRY_MIN;
        loop {
            while !self.share.has_cluster() {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = self.share.changed() => {}
                }
            }
            let began = Instant::now();
            let mut share = self.share.clone();
            let reason = tokio::select! {
                () = stop.cancelled() => return,
                // Somebody else reads them; what is on its way is in the store, or its to send.
                () = share.changed() => {
                    self.share = share;
                    continue;
                }
                reason = self.read() => reason,
            };
            if let Err(reason) = reason {
                self.telemetry.kubernetes.watches.failed("events");
                if began.elapsed() > RETRY_MAX {
                    backoff = RETRY_MIN;
                }
                tracing::warn!(reason, retry_in = ?backoff, "events of the cluster are not read");
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(backoff) => {}
                }
                backoff = (backoff * 2).min(RETRY_MAX);
            }
        }
    }

    /// Reads until something fails, or there was more than could be held; all that was read is stored then.
    async fn read(&self) -> Result<(), Reason> {
        let client = self.access.client().await?;
        let cluster = cluster_of(&client).await?;
        let (generation, mark) = self.last_generation(&cluster).await?;
        let mut reading =
            Reading { of: self, cluster, generation, mark, waiting: Waiting::default(), failures: 0 };
        reading.run(client).await
    }

    /// How far the store has the file of the newest generation.
    async fn last_generation(&self, cluster: &str) -> Result<(u32, u64), Reason> {
        let files: Vec<String> = (0..GENERATIONS).map(|generation| file_of(cluster, generation)).collect();
        let sink = Arc::clone(&self.sink);
        let marks = blocking(move || sink.marks(&files)).await?.map_err(|error| error.to_string())?;
        let marks = (0..).zip(marks).filter(|(_, mark)| *mark > 0);
        Ok(marks.last().unwrap_or((0, 0)))
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Reason> {
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())
}

/// What tells one cluster from all others, as everybody does: the identity of its first namespace.
async fn cluster_of(client: &Client) -> Result<String, Reason> {
    let namespaces: Api<Namespace> = Api::all_with(client.clone(), &());
    let first = namespaces.get("kube-system").await.map_err(|error| {
        format!("the identity of namespace kube-system names the cluster: {}", chain_of(&error))
    })?;
    first.metadata.uid.ok_or_else(|| "namespace kube-system has no uid".to_owned())
}

/// Its name in the store.
fn file_of(cluster: &str, generation: u32) -> String {
    match generation {
        0 => format!("kubernetes/{cluster}/events"),
        _ => format!("kubernetes/{cluster}/events/{generation}"),
    }
}

/// Events that are not stored yet, by version.
#[derive(Default)]
struct Waiting {
    by_version: BTreeMap<u64, Event>,
    bytes: usize,
    /// There were more: these are the oldest.
    is_cut: bool,
}

impl Waiting {
    fn add(&mut self, version: u64, event: Event) {
        self.bytes += event.message.len();
        if let Some(before) = self.by_version.insert(version, event) {
            self.bytes -= before.message.len();
        }
        while self.by_version.len() > WAITING_MAX || self.bytes > WAITING_MAX_BYTES {
            let Some((_, newest)) = self.by_version.pop_last() else { return };
            self.bytes -= newest.message.len();
            self.is_cut = true;
        }
    }

    fn take(&mut self) -> Vec<(u64, Event)> {
        let rest = match self.by_version.keys().nth(PUSH_MAX).copied() {
            Some(first_left) => self.by_version.split_off(&first_left),
            None => BTreeMap::new(),
        };
        let taken: Vec<(u64, Event)> = std::mem::replace(&mut self.by_version, rest).into_iter().collect();
        self.bytes -= taken.iter().map(|(_, event)| event.message.len()).sum::<usize>();
        taken
    }
}

struct Reading<'a> {
    of: &'a EventWatch,
    cluster: String,
    generation: u32,
    /// First version that the store does not have.
    mark: u64,
    waiting: Waiting,
    /// Answers that failed since the last good one.
    failures: u32,
}

impl Reading<'_> {
    async fn run(&mut self, client: Client) -> Result<(), Reason> {
        let events: Api<Event> = Api::all_with(client, &());
        // No older list than one that was seen before: versions tell what is new.
        let config = Config::default().timeout(super::watch::WATCH_SECONDS);
        let mut changes = std::pin::pin!(follow(events, config).default_backoff());
        let mut is_listed = false;
        let mut due = None;
        loop {
            let change = tokio::select! {
                change = changes.next() => change.ok_or("the watch ended")?,
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    due = None;
                    self.send().await?;
                    continue;
                }
            };
            match change {
                Ok(change) => {
                    self.failures = 0;
                    is_listed = matches!(change, Change::InitDone)
                        || (is_listed && !matches!(change, Change::Init | Change::InitApply(_)));
                    if !self.take(change)? {
                        return self.begin_anew().await;
                    }
                }
                // It goes on by itself, and waits longer each time.
                Err(error) => self.failed(&error)?,
            }
            if self.waiting.is_cut && is_listed {
                // What is left of the list comes with the next one.
                return self.send().await;
            }
            if is_listed && !self.waiting.by_version.is_empty() {
                due = due.or_else(|| Some(Instant::now() + GATHER));
            } else {
                // A list is not in order: nothing is sent before all of it is there.
                due = None;
            }
        }
    }

    fn failed(&mut self, error: &WatchError) -> Result<(), Reason> {
        self.failures += 1;
        if self.failures >= FAILURES_MAX {
            return Err(chain_of(error));
        }
        self.of.telemetry.kubernetes.watches.failed("events");
        tracing::debug!(error = chain_of(error), "the watch of events failed, and goes on");
        Ok(())
    }

    /// Answers whether versions are still what they were.
    fn take(&mut self, change: Change<Event>) -> Result<bool, Reason> {
        let (event, is_new) = match change {
            Change::Apply(event) => (event, true),
            Change::InitApply(event) => (event, false),
            // Events are forgotten after an hour; what happened has happened.
            Change::Delete(_) | Change::Init | Change::InitDone => return Ok(true),
        };
        let version = event.metadata.resource_version.as_deref().unwrap_or_default();
        let version: u64 = version.parse().map_err(|_| format!("version {version:?} is no number"))?;
        if version >= self.mark {
            self.waiting.add(version, event);
        }
        // What is new and has an old version: they were set back.
        Ok(version >= self.mark || !is_new || self.generation + 1 >= GENERATIONS)
    }

    /// Leaves a mark in the next generation's file, by which all that comes now finds it.
    async fn begin_anew(&mut self) -> Result<(), Reason> {
        let generation = self.generation + 1;
        tracing::warn!(generation, "the versions of the cluster began again: it came from a backup");
        let (file, from, to) = (file_of(&self.cluster, generation), 0, 1);
        let stream = vec![Pair { name: "source".to_owned(), value: SOURCE.to_owned() }];
        let batch = FileBatch { file, from, to, stream, ..FileBatch::default() };
        let (sink, wire) = (Arc::clone(&self.of.sink), LogPush { batches: vec![batch] }.encode_to_vec());
        let sent = blocking(move || sink.send(&wire)).await?;
        sent.map(|_| ()).map_err(|error| error.to_string())
    }

    /// Stores what waits, however long that takes.
    async fn send(&mut self) -> Result<(), Reason> {
        loop {
            let taken = self.waiting.take();
            if taken.is_empty() {
                return Ok(());
            }
            if self.store(&taken).await?.is_ok() {
                continue;
            }
            // Whichever of them it was, the others must not suffer.
            for one in taken.chunks(1) {
                if let Err(reason) = self.store(one).await? {
                    self.of.telemetry.kubernetes.events_refused.inc();
                    tracing::error!(reason, event = one[0].0, "the store refused an event for good");
                    self.mark = one[0].0 + 1;
                }
            }
        }
    }

    /// Tries until the store has these, or refuses them for good.
    async fn store(&mut self, events: &[(u64, Event)]) -> Result<Result<(), String>, Reason> {
        let push = self.push_of(events);
        let to = push.batches.last().map_or(self.mark, |batch| batch.to);
        let wire = Arc::new(push.encode_to_vec());
        let mut backoff = RETRY_MIN;
        loop {
            let (sink, sent) = (Arc::clone(&self.of.sink), Arc::clone(&wire));
            match blocking(move || sink.send(&sent)).await? {
                Ok(_) => {
                    self.of.telemetry.kubernetes.events.inc_by(events.len() as u64);
                    self.mark = to;
                    return Ok(Ok(()));
                }
                Err(AppendError::Invalid(reason)) => return Ok(Err(reason)),
                Err(error) => {
                    tracing::warn!(%error, retry_in = ?backoff, "events were not taken; the API keeps them");
                    tokio::time::sleep(backoff.mul_f64(0.5 + crate::random() / 2.0)).await;
                    backoff = (backoff * 2).min(RETRY_MAX);
                }
            }
        }
    }

    /// Each event is a batch of its own: hardly two that follow each other are of one pod.
    fn push_of(&self, events: &[(u64, Event)]) -> LogPush {
        let file = file_of(&self.cluster, self.generation);
        let mut from = self.mark;
        let batch = |(version, event): &(u64, Event)| {
            let (begin, to) = (from, version + 1);
            from = to;
            FileBatch {
                file: file.clone(),
                from: begin,
                to,
                stream: stream_of(event),
                entries: vec![self.entry_of(*version, event)],
                ..FileBatch::default()
            }
        };
        LogPush { batches: events.iter().map(batch).collect() }
    }

    fn entry_of(&self, version: u64, event: &Event) -> PushEntry {
        let text = line_of(event);
        let (message, redacted) = self.of.redactor.redact(text.as_bytes());
        self.of.telemetry.redacted.inc_by(redacted);
        PushEntry {
            time_ns: time_of(event).0,
            offset: version,
            message: message.into_owned(),
            level: if event.kind == "Warning" { "warn" } else { "info" }.to_owned(),
            iostream: String::new(),
            fields: fields_of(event),
            shared: 0,
        }
    }
}

/// As people write it: `BackOff Pod/cart-1: Back-off restarting failed container`.
fn line_of(event: &Event) -> String {
    let about = &event.involved_object;
    let mut text = format!("{} {}/{}: {}", event.reason, about.kind, about.name, event.message.trim_end());
    if text.len() > MESSAGE_MAX_BYTES {
        text.truncate(text.floor_char_boundary(MESSAGE_MAX_BYTES));
    }
    text
}

/// That of what it is about: of a pod, it stands among the pod's own lines.
fn stream_of(event: &Event) -> Vec<Pair> {
    let about = &event.involved_object;
    let namespace = Some(&about.namespace).filter(|name| !name.is_empty());
    let namespace = namespace.or(event.metadata.namespace.as_ref()).map_or("", String::as_str);
    let is_pod = about.kind == "Pod";
    // Such as `spec.containers{cart}`.
    let container = about.field_path.split_once('{').and_then(|(_, rest)| rest.strip_suffix('}'));
    let node = if about.kind == "Node" { &about.name } else { &event.source.host };
    let pairs = [
        ("namespace", if about.kind == "Node" { "" } else { namespace }),
        ("pod", if is_pod { about.name.as_str() } else { "" }),
        (POD_UID, if is_pod { about.uid.as_str() } else { "" }),
        ("container", container.filter(|_| is_pod).unwrap_or_default()),
        ("node", node.as_str()),
        ("source", SOURCE),
    ];
    let there = pairs.into_iter().filter(|(_, value)| !value.is_empty());
    there.map(|(name, value)| Pair { name: name.to_owned(), value: value.to_owned() }).collect()
}

fn fields_of(event: &Event) -> Vec<PushField> {
    let about = &event.involved_object;
    let component =
        if event.source.component.is_empty() { &event.reporting_component } else { &event.source.component };
    let texts = [
        ("reason", &event.reason),
        ("type", &event.kind),
        ("kind", &about.kind),
        ("object", &about.name),
        ("component", component),
        ("action", &event.action),
    ];
    let texts = texts.into_iter().filter(|(_, text)| !text.is_empty());
    let text =
        |(name, text): (&str, &String)| PushField::new(name.to_owned(), FieldValue::Text(text.clone()));
    let count = event.series.as_ref().map_or(event.count, |series| series.count);
    let count = (count > 1).then(|| PushField::new("count".to_owned(), FieldValue::Int(count)));
    texts.map(text).chain(count).collect()
}

/// When it happened last.
fn time_of(event: &Event) -> LogTime {
    let micro = |time: &Option<MicroTime>| time.as_ref().map(|time| time.0);
    let second = |time: &Option<Time>| time.as_ref().map(|time| time.0);
    let of_series = event.series.as_ref().and_then(|series| micro(&series.last_observed_time));
    let time = of_series.or_else(|| second(&event.last_timestamp)).or_else(|| micro(&event.time));
    let time = time
        .or_else(|| second(&event.first_timestamp))
        .or_else(|| second(&event.metadata.creation_timestamp));
    let time = time.map_or(0, ApiTime::as_nanosecond);
    LogTime(i64::try_from(time).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(text: &str) -> Event {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn an_event_is_a_line_of_what_it_is_about() {
        let cases = [
            (
                r#"{"metadata":{"namespace":"shop","resourceVersion":"7"},"reason":"BackOff","message":"Back-off restarting","type":"Warning",
                "involvedObject":{"kind":"Pod","namespace":"shop","name":"cart-1","uid":"u1","fieldPath":"spec.containers{cart}"},
                "source":{"component":"kubelet","host":"n1"},"firstTimestamp":"2026-11-23T10:00:00Z","lastTimestamp":"2026-11-23T10:00:05Z","count":3,"eventTime":null}"#,
                "BackOff Pod/cart-1: Back-off restarting",
                "namespace=shop pod=cart-1 pod_uid=u1 container=cart node=n1 source=kubernetes-events",
                "reason type kind object component count",
                1_795_428_005_000_000_000,
            ),
            (
                r#"{"metadata":{"namespace":"default"},"reason":"NodeNotReady","message":"Node n2 is not ready\n","type":"Normal",
                "involvedObject":{"kind":"Node","name":"n2","uid":"n2"},"reportingComponent":"node-controller","action":"x",
                "eventTime":"2026-11-23T10:00:00.000001Z","series":{"count":9,"lastObservedTime":"2026-11-23T10:00:01.5Z"},"source":null}"#,
                "NodeNotReady Node/n2: Node n2 is not ready",
                "node=n2 source=kubernetes-events",
                "reason type kind object component action count",
                1_795_428_001_500_000_000,
            ),
            (
                r#"{"metadata":{"namespace":"shop","creationTimestamp":"2026-11-23T10:00:02Z"},"reason":"ScalingReplicaSet","message":"up",
                "involvedObject":{"kind":"Deployment","name":"cart"},"series":null,"lastTimestamp":null}"#,
                "ScalingReplicaSet Deployment/cart: up",
                "namespace=shop source=kubernetes-events",
                "reason kind object",
                1_795_428_002_000_000_000,
            ),
        ];
        for (text, line, stream, fields, time) in cases {
            let event = event(text);
            let pairs: Vec<String> =
                stream_of(&event).iter().map(|pair| format!("{}={}", pair.name, pair.value)).collect();
            let names: Vec<String> = fields_of(&event).into_iter().map(|field| field.name).collect();
            assert_eq!((line_of(&event).as_str(), pairs.join(" ").as_str()), (line, stream));
            assert_eq!((names.join(" ").as_str(), time_of(&event).0), (fields, time), "{line}");
        }
        let long = Event { message: "ä".repeat(MESSAGE_MAX_BYTES), ..Event::default() };
        assert!(line_of(&long).len() <= MESSAGE_MAX_BYTES);
    }

    #[test]
    fn of_too_many_the_oldest_wait() {
        let mut waiting = Waiting::default();
        for version in (0..WAITING_MAX as u64 + 7).rev() {
            waiting.add(version, Event { message: "m".to_owned(), ..Event::default() });
        }
        assert!(waiting.is_cut);
        let mut taken = Vec::new();
        loop {
            let some = waiting.take();
            if some.is_empty() {
                break;
            }
            assert!(some.len() <= PUSH_MAX);
            taken.extend(some.into_iter().map(|(version, _)| version));
        }
        assert_eq!(taken, (0..WAITING_MAX as u64).collect::<Vec<_>>());
        assert_eq!(waiting.bytes, 0);
        waiting = Waiting::default();
        for version in 0..20 {
            waiting.add(version, Event { message: "m".repeat(1 << 20), ..Event::default() });
        }
        assert_eq!((waiting.by_version.len(), waiting.is_cut), (16, true));
    }
}
