//! An object of JSON as an entry, as Elasticsearch's shippers and lines of JSON have it.
//!
//! ```text
//! text ─► tree ─┬─► time, message, level     taken out, each under the best of its names
//!               ├─► labels of the stream     by the values that make them, so that each stream is thought about once
//!               └─► attributes               what is left; shared by documents of a stream that say the same
//! ```

mod shared;
#[cfg(test)]
mod slow;
#[cfg(test)]
mod tests;
mod tree;

use std::borrow::Cow;
use std::collections::HashMap;
use std::mem;

use binnacle_model::LogTime;
use binnacle_model::meaning::level_numbered;
use binnacle_model::push::PushValue;
use chrono::NaiveDateTime;
use serde_json::Value;

use super::super::Refusal;
use super::attributes::{Attributes, MAX_DEPTH, MAX_FIELDS, MAX_NAME_BYTES, number_value};
use super::{Draft, Identity, Names};
use shared::{Leaves, Lists};
use tree::{Held, MAX_VALUES, Malformed, Tree};

/// Fields that a request may name, and the dots of each.
const MAX_PATHS: usize = 16;
const MAX_DOTS: usize = 8;

/// Names of the time, the best first.
const TIMES: [&str; 7] = ["@timestamp", "_time", "timestamp", "time", "ts", "date", "timereported"];

/// In March 1973.
const LEAST_SURE_NS: i64 = 100_000_000_000_000_000;

/// Names of the message, the best first.
const MESSAGES: [&str; 5] = ["message", "log", "msg", "_msg", "body"];

/// Names of the level, the best first.
const LEVELS: [&str; 8] =
    ["log.level", "level", "severity", "severity_text", "detected_level", "loglevel", "lvl", "levelname"];

/// Streams that are remembered; a value that is another in each document makes none that comes again.
const MAX_STREAMS: usize = 10_000;

/// Where a request says that times, messages and labels lie; paths with dots.
#[derive(Debug, Clone, Default)]
pub(in super::super) struct Naming {
    pub(in super::super) times: Vec<String>,
    pub(in super::super) messages: Vec<String>,
    pub(in super::super) labels: Vec<String>,
}

impl Naming {
    /// As a request's query says: `_time_field`, `_msg_field` and `_stream_fields`, each with commas between several.
    pub(in super::super) fn of_query(query: &str) -> Result<Self, Refusal> {
        let mut naming = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let paths = match &*name {
                "_time_field" => &mut naming.times,
                "_msg_field" => &mut naming.messages,
                "_stream_fields" => &mut naming.labels,
                _ => continue,
            };
            paths.extend(value.split(',').map(str::trim).filter(|path| !path.is_empty()).map(str::to_owned));
            let is_long = |path: &String| path.len() > MAX_NAME_BYTES || path.matches('.').count() > MAX_DOTS;
            if paths.len() > MAX_PATHS || paths.iter().any(is_long) {
                return Err(Refusal::Bad(format!(
                    "{name} has more than {MAX_PATHS} fields, or one of more than {MAX_NAME_BYTES} bytes or {MAX_DOTS} dots"
                )));
            }
        }
        Ok(naming)
    }
}

/// The stream of some documents.
#[derive(Debug, Default)]
pub(in super::super) struct Placed {
    pub(super) identity: Identity,
    pub(super) iostream: String,
    /// Its number in a push, once it has one.
    pub(super) batch: Option<usize>,
    /// Which of the values that were offered a label says all of.
    held: Vec<bool>,
    pub(super) lists: Lists,
}

/// Reads the documents of one body.
#[derive(Debug)]
pub(in super::super) struct Documents<'a> {
    tree: Tree<'a>,
    times: Vec<Name>,
    messages: Vec<Name>,
    levels: Vec<Name>,
    labels: Vec<Name>,
    is_sure_of_times: bool,
    streams: Vec<Placed>,
    /// By what names and values say.
    known: HashMap<Vec<u8>, usize, foldhash::fast::RandomState>,
    key: Vec<u8>,
    /// Of the document that was read last: what is left of it.
    leaves: Vec<u32>,
    /// How often the numbers of shapes began anew.
    times_forgotten: u64,
}

/// A name that documents are searched for, and its bit in the tree.
#[derive(Debug, Clone)]
struct Name {
    path: String,
    bit: u64,
}

impl<'a> Documents<'a> {
    pub(in super::super) fn new(naming: &Naming) -> Self {
        let mut names = Vec::new();
        let mut named = |chosen: &[String], usual: &[&str]| -> Vec<Name> {
            let usual = if chosen.is_empty() { usual } else { &[] };
            let paths = chosen.iter().cloned().chain(usual.iter().map(|name| (*name).to_owned()));
            let all: Vec<Name> = paths
                .map(|path| {
                    // There are four lists of sixteen names at most.
                    let bit = 1 << names.len();
                    names.push((path.clone(), bit));
                    Name { path, bit }
                })
                .collect();
            all
        };
        let times = named(&naming.times, &TIMES);
        let messages = named(&naming.messages, &MESSAGES);
        let levels = named(&[], &LEVELS);
        let labels = named(&naming.labels, &[]);
        Self {
            tree: Tree::new(names),
            times,
            messages,
            levels,
            labels,
            is_sure_of_times: !naming.times.is_empty(),
            streams: Vec::new(),
            known: HashMap::default(),
            key: Vec::new(),
            leaves: Vec::new(),
            times_forgotten: 0,
        }
    }

    /// Reads one document: all but its stream, and the number of that. `beside` are names and texts that stand behind its
    /// attributes.
    ///
    /// A document without a message is its own message: the text, as it came. The fields within it are found when
    /// somebody asks for them, as with any line of JSON.
    pub(in super::super) fn read(
        &mut self,
        text: &'a [u8],
        beside: &[(&str, &str)],
    ) -> Result<(Draft, usize), String> {
        let read = std::str::from_utf8(text).map_err(|_| Malformed::Syntax);
        if let Err(malformed) = read.and_then(|text| self.tree.read(text)) {
            return Err(reason(text, &malformed));
        }
        if self.times_forgotten != self.tree.times_forgotten {
            self.times_forgotten = self.tree.times_forgotten;
            self.known.clear();
            self.streams.iter_mut().for_each(|stream| stream.lists.clear());
        }
        let mut draft = Draft { time_ns: self.take_time(), ..Draft::default() };
        let message = self.take_message();
        self.take_level(&mut draft);
        let stream = self.stream();
        draft.message = message.map_or_else(
            || {
                self.tree.remove_all();
                text.trim_ascii().to_vec()
            },
            |message| message.into_owned().into_bytes(),
        );
        self.add_attributes(&mut draft, stream, beside);
        Ok((draft, stream))
    }

    /// What is left of the document, and what stands beside it.
    fn add_attributes(&mut self, draft: &mut Draft, stream: usize, beside: &[(&str, &str)]) {
        let are_plain = self.tree.leaves(&mut self.leaves);
        let count = self.leaves.len() + beside.len();
        // With chosen labels each document has a stream of its own here.
        if are_plain && (1..=MAX_FIELDS).contains(&count) && self.labels.is_empty() {
            let leaves = Leaves { tree: &self.tree, nodes: &self.leaves, beside };
            let (list, own) = self.streams[stream].lists.take(leaves);
            (draft.list, draft.attributes) = (Some(list), Attributes::of_gaps(own));
            return;
        }
        draft.attributes = Attributes::with_capacity(count);
        for member in self.tree.below(0) {
            add(&self.tree, member, 1, &mut draft.attributes);
        }
        for (name, text) in beside {
            draft.attributes.add(name, PushValue::Text((*text).to_owned()));
        }
    }

    /// A stream by its number; good until the next document is read.
    pub(in super::super) fn placed(&mut self, stream: usize) -> &mut Placed {
        &mut self.streams[stream]
    }

    /// What cannot be read as a time stays where it is.
    fn take_time(&mut self) -> Option<i64> {
        // A small number under a usual name may be how long something took.
        let is_sure = |name: &str| name == "@timestamp" || self.is_sure_of_times;
        let is_time = |name: &str, time: i64| is_sure(name) || time > LEAST_SURE_NS;
        let (node, time) = self.times.iter().find_map(|name| {
            let node = self.tree.find(name.bit)?;
            let time = read_time(&self.tree.node(node).held)?;
            is_time(&name.path, time).then_some((node, time))
        })?;
        self.tree.remove(node);
        Some(time)
    }

    fn take_message(&mut self) -> Option<Cow<'a, str>> {
        let (name, node) = self.messages.iter().find_map(|name| {
            let node = self.tree.find(name.bit)?;
            matches!(self.tree.node(node).held, Held::Text(_)).then_some((name, node))
        })?;
        let is_dockers = name.path == "log";
        let Held::Text(mut text) = mem::replace(&mut self.tree.nodes[node as usize].held, Held::Null) else {
            return None;
        };
        self.tree.remove(node);
        // Docker's files have the line end within the text, and Fluent Bit sends it on.
        if is_dockers && text.ends_with('\n') {
            text.to_mut().pop();
        }
        Some(text)
    }

    /// What says more than the level stays an attribute.
    fn take_level(&mut self, draft: &mut Draft) {
        for at in 0..self.levels.len() {
            let Some(node) = self.tree.find(self.levels[at].bit) else { continue };
            let is_all = match &self.tree.node(node).held {
                Held::Text(said) => draft.set_level(said),
                Held::Number(number) => {
                    draft.set_level(number.as_i64().map_or("", level_numbered));
                    false
                }
                _ => false,
            };
            if is_all {
                self.tree.remove(node);
            }
            if !draft.level.is_empty() {
                return;
            }
        }
    }

    /// The stream that names and values tell. What a label says is no attribute.
    fn stream(&mut self) -> usize {
        let mut offered = mem::take(&mut self.tree.offered);
        offered.retain(|node| !self.tree.node(*node).is_gone);
        let mut key = mem::take(&mut self.key);
        key.clear();
        for node in &offered {
            let text = self.text(*node);
            key.extend_from_slice(&self.tree.node(*node).shape.to_le_bytes());
            key.extend_from_slice(&(text.len() as u64).to_le_bytes());
            key.extend_from_slice(text.as_bytes());
        }
        // Chosen labels are rare, and may be numbers.
        let remembered = self.known.get(&key).copied().filter(|_| self.labels.is_empty());
        let stream = remembered.unwrap_or_else(|| {
            if self.streams.len() >= MAX_STREAMS {
                self.streams.clear();
                self.known.clear();
            }
            let placed = self.place(&mut offered);
            self.streams.push(placed);
            if self.labels.is_empty() {
                self.known.insert(key.clone(), self.streams.len() - 1);
            }
            self.streams.len() - 1
        });
        for (node, is_held) in offered.iter().zip(&self.streams[stream].held) {
            if *is_held {
                self.tree.remove(*node);
            }
        }
        (self.key, self.tree.offered) = (key, offered);
        stream
    }

    fn text(&self, node: u32) -> &str {
        if let Held::Text(text) = &self.tree.node(node).held { text } else { "" }
    }

    fn place(&self, offered: &mut Vec<u32>) -> Placed {
        let mut identity = Identity::default();
        for node in &*offered {
            identity.offer(Names::Any, &self.tree.shape_of(*node).path, self.text(*node));
        }
        for name in &self.labels {
            let Some(node) = self.tree.find(name.bit) else { continue };
            match &self.tree.node(node).held {
                Held::Text(text) => {
                    identity.choose(&name.path, text);
                    offered.push(node);
                }
                Held::Number(number) => identity.choose(&name.path, &number.to_string()),
                Held::Bool(flag) => identity.choose(&name.path, if *flag { "true" } else { "false" }),
                Held::Null | Held::List | Held::Object => {}
            }
        }
        let is_held =
            |node: &u32| identity.holds(Names::Any, &self.tree.shape_of(*node).path, self.text(*node));
        let held = offered.iter().map(is_held).collect();
        let iostream = identity.take_iostream();
        Placed { identity, iostream, batch: None, held, lists: Lists::default() }
    }
}

#[cfg(test)]
impl Placed {
    /// Gives a draft of this stream all its attributes itself.
    pub(super) fn fill(&self, draft: &mut Draft) {
        use binnacle_model::push::{FileBatch, PushEntry};
        let Some(list) = draft.list.take() else { return };
        let entry = PushEntry {
            fields: mem::take(&mut draft.attributes).finish().0,
            shared: 1,
            ..PushEntry::default()
        };
        let batch = FileBatch { shared: vec![self.lists.fields(list).clone()], ..FileBatch::default() };
        batch.fields_of(&entry).for_each(|(name, value)| draft.attributes.add(name, value.clone()));
    }
}

fn reason(text: &[u8], malformed: &Malformed) -> String {
    if *malformed == Malformed::TooMany {
        return format!("the document has more than {MAX_VALUES} values");
    }
    match serde_json::from_slice::<Value>(text) {
        Err(error) => format!("not JSON: {error}"),
        Ok(_) => "not an object of JSON".to_owned(),
    }
}

/// Adds a value: what lies in objects under a path with dots, the values of a list all under its name.
fn add(tree: &Tree<'_>, node: u32, depth: usize, to: &mut Attributes) {
    let held = &tree.node(node).held;
    let path = &*tree.shape_of(node).path;
    if matches!(held, Held::Null) {
        return;
    }
    let is_deep = depth >= MAX_DEPTH && matches!(held, Held::Object | Held::List);
    if is_deep || !to.has_place(path) {
        return to.spill(path, &tree.to_value(node));
    }
    let value = match held {
        Held::Null => return,
        Held::Object | Held::List => {
            return tree.below(node).for_each(|below| add(tree, below, depth + 1, to));
        }
        Held::Bool(flag) => PushValue::Bool(*flag),
        Held::Text(text) => PushValue::Text(text.to_string()),
        Held::Number(number) => number_value(number),
    };
    to.add(path, value);
}

/// RFC 3339, what Elasticsearch takes besides, or Unix time in the unit that its size tells. Zero is no time.
fn read_time(value: &Held<'_>) -> Option<i64> {
    let text: Cow<'_, str> = match value {
        Held::Text(text) => text.trim().into(),
        Held::Number(number) => number.to_string().into(),
        _ => return None,
    };
    if text.len() > 64 || text == "0" {
        return None;
    }
    // Before what reads it as a float, which has no place for nanoseconds.
    let known = decimal_seconds(&text).or_else(|| LogTime::parse(&text).map(|time| time.0));
    known.or_else(|| {
        let zoned = ["%Y-%m-%dT%H:%M:%S%.f%z", "%Y-%m-%d %H:%M:%S%.f%z"];
        let zoned = zoned.iter().find_map(|form| chrono::DateTime::parse_from_str(&text, form).ok());
        let plain = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y/%m/%d %H:%M:%S%.f"];
        let plain = || plain.iter().find_map(|form| NaiveDateTime::parse_from_str(&text, form).ok());
        zoned.map(|time| time.to_utc()).or_else(|| plain().map(|time| time.and_utc()))?.timestamp_nanos_opt()
    })
}

/// Unix seconds with a fraction.
fn decimal_seconds(text: &str) -> Option<i64> {
    let (seconds, fraction) = text.split_once('.')?;
    if fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanos: i64 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    seconds.parse::<u32>().ok().map(|seconds| i64::from(seconds) * 1_000_000_000 + nanos)
}
