//! Logs with what is known of their pods.
//!
//! Lines are stored with the names that their files carry, and with the pod's identity. What Kubernetes says of the pod (its
//! workload, zone, team, labels) may come later, or change; so it is looked up when somebody asks. A condition on it
//! becomes one on identities, which a store decides by stream; entries and groups get it on their way out.
//!
//! ```text
//! team:pay ─► team:pay OR pod_uid in (pods of team pay) ─► store ─► entries, team="pay" beside their stream's labels
//! ```
//!
//! What is known goes before what a collector guessed from a name (`app`, `service`). The definition: answers are those
//! of a store that had all metadata in its streams; a test compares with one.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use binnacle_model::log::{Field, FileId, LogEntry, loki_alias};
use binnacle_model::log_query::LogQuery;
use binnacle_model::matcher::all_match;
use binnacle_model::storage::{
    Deadline, KnownPatterns, LogAggregate, LogContext, LogCursor, LogFeed, LogField, LogFields, LogFull,
    LogGroup, LogGroups, LogKey, LogMeasure, LogOrder, LogPage, LogPattern, LogPatterns, LogRequest,
    LogSearcher, LogSlices, LogStream, LogStreams, LogSubscriber, LogVisit, POD_FIELDS, POD_LABEL_PREFIX,
    POD_UID, PageRequest, PodCatalog, StorageError,
};
use binnacle_model::{Labels, LogTime, MatchOp, Matcher};

use crate::promql::parse_selector;

/// Pods that conditions may come to, all together: with more, the query is to be narrowed.
const PODS_MAX: usize = 200_000;

/// A store of logs whose answers know about pods.
#[derive(Clone)]
pub struct WithPods {
    logs: Arc<dyn LogSearcher>,
    feed: Arc<dyn LogFeed>,
    pods: Arc<dyn PodCatalog>,
}

/// Whether a name may be one of pods' metadata.
fn is_known(name: &str) -> bool {
    POD_FIELDS.contains(&name) || name.starts_with(POD_LABEL_PREFIX)
}

/// Of a stream with what is known of its pod.
fn extended(pods: &dyn PodCatalog, stream: &Labels) -> Option<Labels> {
    let known = pods.pod(stream.get(POD_UID)?)?;
    let own = stream.iter().filter(|label| known.get(&label.name).is_none());
    Labels::from_vec(own.chain(&known).cloned().collect()).ok()
}

fn extend(pods: &dyn PodCatalog, entry: &mut LogEntry) {
    if let Some(stream) = extended(pods, &entry.stream) {
        entry.stream = stream;
    }
}

/// The name of metadata that a condition asks about.
fn asked(query: &LogQuery) -> Option<&str> {
    let name = match query {
        LogQuery::Value { field: Field::Stream(name), .. } | LogQuery::Exists(Field::Stream(name)) => name,
        LogQuery::Value { field: Field::Parsed(name), .. } | LogQuery::Exists(Field::Parsed(name)) => {
            name.as_str()
        }
        LogQuery::Label(matcher) => loki_alias(&matcher.name),
        _ => return None,
    };
    is_known(name).then_some(name)
}

/// A query in which conditions on metadata are conditions on pods, too.
fn rewritten<'q>(pods: &dyn PodCatalog, query: &'q LogQuery) -> Result<Cow<'q, LogQuery>, StorageError> {
    if !asks(query) {
        return Ok(Cow::Borrowed(query));
    }
    let mut left = PODS_MAX;
    rewrite(pods, query, &mut left).map(Cow::Owned)
}

fn asks(query: &LogQuery) -> bool {
    match query {
        LogQuery::And(parts) | LogQuery::Or(parts) => parts.iter().any(asks),
        LogQuery::Not(part) => asks(part),
        query => asked(query).is_some(),
    }
}

fn rewrite(pods: &dyn PodCatalog, query: &LogQuery, left: &mut usize) -> Result<LogQuery, StorageError> {
    let mut all = |parts: &[LogQuery]| -> Result<Vec<LogQuery>, StorageError> {
        parts.iter().map(|part| rewrite(pods, part, left)).collect()
    };
    Ok(match query {
        LogQuery::And(parts) => LogQuery::And(all(parts)?),
        LogQuery::Or(parts) => LogQuery::Or(all(parts)?),
        LogQuery::Not(part) => LogQuery::Not(Box::new(rewrite(pods, part, left)?)),
        query => match asked(query) {
            None => query.clone(),
            Some(name) => condition(pods, query, name, left)?,
        },
    })
}

/// A condition on metadata of that name.
fn condition(
    pods: &dyn PodCatalog,
    query: &LogQuery,
    name: &str,
    left: &mut usize,
) -> Result<LogQuery, StorageError> {
    let (mut passing, mut failing) = (Vec::new(), Vec::new());
    let mut entry = LogEntry {
        time: LogTime(0),
        received: LogTime(0),
        stream: Labels::default(),
        level: String::new(),
        message: Vec::new(),
        attributes: Vec::new(),
        origin: binnacle_model::log::Origin::default(),
    };
    // A field may have other values besides, in the message.
    let has_one_value = !matches!(
        query,
        LogQuery::Value { field: Field::Parsed(_), .. } | LogQuery::Exists(Field::Parsed(_))
    );
    pods.each_set(&mut |labels, of_set| {
        if labels.get(name).is_none() {
            return Ok(());
        }
        entry.stream = labels.clone();
        let passes = query.matches(&entry);
        if !passes && !has_one_value {
            return Ok(());
        }
        let to = if passes { &mut passing } else { &mut failing };
        for uid in of_set {
            *left = left.checked_sub(1).ok_or(StorageError::TooMuch)?;
            to.push(uid.to_owned());
        }
        Ok(())
    })?;
    let mut parts = vec![query.clone()];
    if !failing.is_empty() {
        parts.push(LogQuery::Not(Box::new(one_of(&failing)?)));
    }
    let own = if parts.len() == 1 { query.clone() } else { LogQuery::And(parts) };
    Ok(if passing.is_empty() { own } else { LogQuery::Or(vec![one_of(&passing)?, own]) })
}

/// Entries of these pods. No character of an identity means anything in a regular expression.
fn one_of(pods: &[String]) -> Result<LogQuery, StorageError> {
    let matcher = Matcher::new(POD_UID, MatchOp::Regex, &pods.join("|")).map_err(StorageError::Broken)?;
    Ok(LogQuery::Label(matcher))
}

impl WithPods {
    /// Answers of `logs` and entries of `feed` with what `pods` knows.
    pub fn new(logs: Arc<dyn LogSearcher>, feed: Arc<dyn LogFeed>, pods: Arc<dyn PodCatalog>) -> Self {
        Self { logs, feed, pods }
    }

    fn request(&self, request: &LogRequest) -> Result<LogRequest, StorageError> {
        let query = rewritten(&*self.pods, &request.query)?.into_owned();
        Ok(LogRequest { query, start: request.start, end: request.end })
    }

    fn extend(&self, entry: &mut LogEntry) {
        extend(&*self.pods, entry);
    }
}

impl LogSearcher for WithPods {
    fn search(
        &self,
        request: &LogRequest,
        page: PageRequest,
        deadline: &Deadline,
    ) -> Result<LogPage, StorageError> {
        let mut found = self.logs.search(&self.request(request)?, page, deadline)?;
        found.entries.iter_mut().for_each(|(_, entry)| self.extend(entry));
        Ok(found)
    }

    fn scan(
        &self,
        request: &LogRequest,
        order: LogOrder,
        deadline: &Deadline,
        visit: LogVisit<'_>,
    ) -> Result<Vec<String>, StorageError> {
        let visit: LogVisit<'_> = &mut |cursor: LogCursor, mut entry: LogEntry| -> ControlFlow<()> {
            self.extend(&mut entry);
            visit(cursor, entry)
        };
        self.logs.scan(&self.request(request)?, order, deadline, visit)
    }

    fn aggregate(
        &self,
        request: &LogRequest,
        aggregate: &LogAggregate,
        deadline: &Deadline,
    ) -> Result<LogGroups, StorageError> {
        let request = self.request(request)?;
        if !aggregate.by.iter().any(needs_pod) {
            return self.logs.aggregate(&request, aggregate, deadline);
        }
        let mut by = aggregate.by.clone();
        by.push(LogKey::Label(POD_UID.to_owned()));
        let mut found = self.logs.aggregate(&request, &LogAggregate { by, ..aggregate.clone() }, deadline)?;
        let mut groups: BTreeMap<Vec<String>, Vec<u64>> = BTreeMap::new();
        for LogGroup { mut key, sums } in found.groups {
            let known = key.pop().and_then(|uid| self.pods.pod(&uid)).unwrap_or_default();
            for (value, of) in key.iter_mut().zip(&aggregate.by) {
                resolve(of, value, &known);
            }
            let into = groups.entry(key).or_insert_with(|| vec![0; sums.len()]);
            into.iter_mut().zip(&sums).for_each(|(into, sum)| *into += sum);
        }
        found.groups = groups.into_iter().map(|(key, sums)| LogGroup { key, sums }).collect();
        Ok(found)
    }

    fn fields(&self, request: &LogRequest, deadline: &Deadline) -> Result<LogFields, StorageError> {
        let request = self.request(request)?;
        let mut found = self.logs.fields(&request, deadline)?;
        if found.entries == 0 {
            return Ok(found);
        }
        let by = vec![LogKey::Label(POD_UID.to_owned())];
        let width_ns =
            u64::try_from(i128::from(request.end.0) - i128::from(request.start.0)).unwrap_or(u64::MAX);
        let slices = LogSlices { start: request.start, width_ns: width_ns.max(1), count: 1 };
        let measure = LogMeasure::Entries;
        let counts = LogAggregate { by, slices, measure, full: LogFull::DropSmall };
        let counts = self.logs.aggregate(&request, &counts, deadline)?;
        let mut names: BTreeMap<String, u64> = BTreeMap::new();
        for group in &counts.groups {
            let Some(known) = group.key.first().and_then(|uid| self.pods.pod(uid)) else { continue };
            for label in known.iter().filter(|label| !GUESSED.contains(&&*label.name)) {
                *names.entry(label.name.to_string()).or_default() += group.sums.iter().sum::<u64>();
            }
        }
        for (name, entries) in names {
            // Of those that were looked at.
            let entries = entries.min(found.entries);
            match found.fields.binary_search_by(|field| field.name.cmp(&name)) {
                Ok(at) => {
                    found.fields[at].entries = found.fields[at].entries.max(entries);
                    found.fields[at].text = true;
                }
                Err(at) => {
                    found.fields.insert(at, LogField { name, entries, text: true, ..LogField::default() });
                }
            }
        }
        Ok(found)
    }

    fn patterns(
        &self,
        request: &LogRequest,
        slices: LogSlices,
        deadline: &Deadline,
    ) -> Result<LogPatterns, StorageError> {
        self.logs.patterns(&self.request(request)?, slices, deadline)
    }

    fn known_patterns(
        &self,
        patterns: &[LogPattern],
        before: LogTime,
        deadline: &Deadline,
    ) -> Result<KnownPatterns, StorageError> {
        self.logs.known_patterns(patterns, before, deadline)
    }

    fn streams(
        &self,
        matchers: &[Matcher],
        start: LogTime,
        end: LogTime,
        deadline: &Deadline,
    ) -> Result<LogStreams, StorageError> {
        let (late, now): (Vec<Matcher>, Vec<Matcher>) =
            matchers.iter().cloned().partition(|matcher| is_known(loki_alias(&matcher.name)));
        let mut found = self.logs.streams(&now, start, end, deadline)?;
        let mut streams: BTreeMap<Labels, (u64, u64)> = BTreeMap::new();
        let late: Vec<Matcher> = late
            .into_iter()
            .map(|mut matcher| {
                matcher.name = loki_alias(&matcher.name).to_owned();
                matcher
            })
            .collect();
        for LogStream { labels, entries, bytes } in found.streams {
            let labels = extended(&*self.pods, &labels).unwrap_or(labels);
            if all_match(&late, &labels) {
                let sums = streams.entry(labels).or_default();
                *sums = (sums.0 + entries, sums.1 + bytes);
            }
        }
        let stream = |(labels, (entries, bytes))| LogStream { labels, entries, bytes };
        found.streams = streams.into_iter().map(stream).collect();
        Ok(found)
    }

    fn context(
        &self,
        file: &FileId,
        offset: u64,
        before: usize,
        after: usize,
        deadline: &Deadline,
    ) -> Result<LogContext, StorageError> {
        let mut found = self.logs.context(file, offset, before, after, deadline)?;
        let entries = found.before.iter_mut().chain(&mut found.after);
        entries.for_each(|(_, entry)| self.extend(entry));
        Ok(found)
    }
}

/// Names that streams have by themselves.
const GUESSED: [&str; 2] = ["app", "service"];

fn needs_pod(key: &LogKey) -> bool {
    match key {
        LogKey::Label(name) => is_known(loki_alias(name)),
        LogKey::Field(Field::Stream(name)) => is_known(name),
        LogKey::Field(Field::Parsed(name)) => is_known(name),
        LogKey::Field(Field::Message) => false,
        LogKey::Stream => true,
    }
}

/// Puts what is known of a pod into a group's key.
fn resolve(key: &LogKey, value: &mut String, known: &Labels) {
    let name = match key {
        LogKey::Label(name) => loki_alias(name),
        LogKey::Field(Field::Stream(name)) => name,
        LogKey::Field(Field::Parsed(name)) => name.as_str(),
        LogKey::Field(Field::Message) => return,
        LogKey::Stream => {
            if !known.is_empty() {
                let own = parse_selector(value).unwrap_or_default();
                let own = own.iter().map(|label| (label.name.clone(), label.value.clone()));
                let labels = Labels::new(own).unwrap_or_default();
                *value = known.iter().fold(labels, |all, one| all.with(&one.name, &one.value)).to_string();
            }
            return;
        }
    };
    if let Some(known) = known.get(name) {
        known.clone_into(value);
    }
}

/// A subscriber behind which entries know about their pods.
struct Extending {
    to: Box<dyn LogSubscriber>,
    pods: Arc<dyn PodCatalog>,
}

impl LogSubscriber for Extending {
    fn entries(&self, entries: &[Arc<LogEntry>]) -> bool {
        // Entries of a stream mostly come together.
        let mut last: Option<(&Labels, Option<Labels>)> = None;
        let extended: Vec<Arc<LogEntry>> = entries
            .iter()
            .map(|entry| {
                let is_same = last.as_ref().is_some_and(|(stream, _)| **stream == entry.stream);
                if !is_same {
                    last = Some((&entry.stream, extended(&*self.pods, &entry.stream)));
                }
                match last.as_ref().and_then(|(_, extended)| extended.clone()) {
                    None => Arc::clone(entry),
                    Some(stream) => Arc::new(LogEntry { stream, ..LogEntry::clone(entry) }),
                }
            })
            .collect();
        self.to.entries(&extended)
    }
}

impl LogFeed for WithPods {
    fn subscribe(&self, subscriber: Box<dyn LogSubscriber>) {
        self.feed.subscribe(Box::new(Extending { to: subscriber, pods: Arc::clone(&self.pods) }));
    }
}

#[cfg(test)]
mod tests;
