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
//! Only pods that may have lines in the span of the query are named, and only those for which the condition says something
//! else of what is known than of what their lines say. So `team:pay` names the pods of team pay, `NOT team:pay` the same
//! ones, and a pod of which nobody knows anything is none of either.
//!
//! What is known goes before what a collector guessed from a name (`app`, `service`). The definition: answers are those
//! of a store that had all metadata in its streams; a test compares with one.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;

use binnacle_model::log::{Field, FileId, LogEntry, loki_alias};
use binnacle_model::log_query::LogQuery;
use binnacle_model::matcher::all_match;
use binnacle_model::storage::{
    Deadline, KnownPatterns, LogAggregate, LogContext, LogCursor, LogFeed, LogField, LogFields, LogFull,
    LogGroups, LogKey, LogMeasure, LogOrder, LogPage, LogPattern, LogPatterns, LogRequest, LogSearcher,
    LogSlices, LogStream, LogStreams, LogSubscriber, LogVisit, POD_UID, PageRequest, PodCatalog, PodGroup,
    PodNames, StorageError, extended, is_pod_name,
};
use binnacle_model::{Labels, LogTime, MatchOp, Matcher};

/// Pods that conditions may come to, all together: with more, the query is to be narrowed.
const PODS_MAX: usize = 200_000;

/// Streams that are remembered with what is known of their pods.
const STREAMS_MAX: usize = 10_000;

/// A store of logs whose answers know about pods.
#[derive(Clone)]
pub struct WithPods {
    logs: Arc<dyn LogSearcher>,
    feed: Arc<dyn LogFeed>,
    pods: Arc<dyn PodCatalog>,
}

/// Joins entries with what is known of their pods; of each stream it asks once.
struct Joiner<'p> {
    pods: &'p dyn PodCatalog,
    /// By the place of a stream in memory, which is kept for as long.
    streams: HashMap<usize, (Labels, Option<Labels>)>,
}

impl<'p> Joiner<'p> {
    fn new(pods: &'p dyn PodCatalog) -> Self {
        Self { pods, streams: HashMap::new() }
    }

    /// Of a stream with what is known of its pod, if anything is.
    fn extended(&mut self, stream: &Labels) -> Option<Labels> {
        let uid = stream.get(POD_UID)?;
        let place = stream.iter().as_slice().as_ptr().addr();
        if let Some((_, known)) = self.streams.get(&place) {
            return known.clone();
        }
        if self.streams.len() >= STREAMS_MAX {
            self.streams.clear();
        }
        let known = self.pods.pod(uid).map(|known| extended(stream, &known));
        self.streams.insert(place, (stream.clone(), known.clone()));
        known
    }

    fn extend(&mut self, entry: &mut LogEntry) {
        if let Some(stream) = self.extended(&entry.stream) {
            entry.stream = stream;
        }
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
    is_pod_name(name).then_some(name)
}

/// The pods that may have lines in the span of a query.
struct Candidates {
    groups: Vec<PodGroup>,
    /// How many more the query may name.
    left: usize,
}

/// A query in which conditions on metadata are conditions on pods, too.
fn rewritten<'q>(pods: &dyn PodCatalog, request: &'q LogRequest) -> Result<Cow<'q, LogQuery>, StorageError> {
    if !asks(&request.query) {
        return Ok(Cow::Borrowed(&request.query));
    }
    let groups = pods.pods_between(request.start, request.end);
    rewrite(&request.query, &mut Candidates { groups, left: PODS_MAX }).map(Cow::Owned)
}

fn asks(query: &LogQuery) -> bool {
    match query {
        LogQuery::And(parts) | LogQuery::Or(parts) => parts.iter().any(asks),
        LogQuery::Not(part) => asks(part),
        query => asked(query).is_some(),
    }
}

fn rewrite(query: &LogQuery, pods: &mut Candidates) -> Result<LogQuery, StorageError> {
    let mut all = |parts: &[LogQuery]| -> Result<Vec<LogQuery>, StorageError> {
        parts.iter().map(|part| rewrite(part, pods)).collect()
    };
    Ok(match query {
        LogQuery::And(parts) => LogQuery::And(all(parts)?),
        LogQuery::Or(parts) => LogQuery::Or(all(parts)?),
        LogQuery::Not(part) => LogQuery::Not(Box::new(rewrite(part, pods)?)),
        query => match asked(query) {
            None => query.clone(),
            Some(name) => condition(query, name, pods)?,
        },
    })
}

/// A condition on metadata of that name: beside what lines say themselves, the pods that differ from that.
fn condition(query: &LogQuery, name: &str, pods: &mut Candidates) -> Result<LogQuery, StorageError> {
    let (mut passing, mut failing): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
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
    let mut passes = |labels: &Labels| {
        entry.stream = labels.clone();
        query.matches(&entry)
    };
    let Candidates { groups, left } = pods;
    for group in groups.iter().filter(|group| group.known.get(name).is_some()) {
        let own = group.own.as_ref().map(&mut passes);
        let to = match passes(&group.known) {
            true if own != Some(true) => &mut passing,
            false if own != Some(false) && has_one_value => &mut failing,
            _ => continue,
        };
        *left = left.checked_sub(group.pods.len()).ok_or(StorageError::TooMuch)?;
        to.extend(group.pods.iter().map(|uid| &**uid));
    }
    let mut parts = vec![query.clone()];
    if !failing.is_empty() {
        parts.push(LogQuery::Not(Box::new(one_of(&failing)?)));
    }
    let own = if parts.len() == 1 { query.clone() } else { LogQuery::And(parts) };
    Ok(if passing.is_empty() { own } else { LogQuery::Or(vec![one_of(&passing)?, own]) })
}

/// Entries of these pods. No character of an identity means anything in a regular expression.
fn one_of(pods: &[&str]) -> Result<LogQuery, StorageError> {
    let matcher = Matcher::new(POD_UID, MatchOp::Regex, &pods.join("|")).map_err(StorageError::Broken)?;
    Ok(LogQuery::Label(matcher))
}

impl WithPods {
    /// Answers of `logs` and entries of `feed` with what `pods` knows.
    pub fn new(logs: Arc<dyn LogSearcher>, feed: Arc<dyn LogFeed>, pods: Arc<dyn PodCatalog>) -> Self {
        Self { logs, feed, pods }
    }

    fn request(&self, request: &LogRequest) -> Result<LogRequest, StorageError> {
        let query = rewritten(&*self.pods, request)?.into_owned();
        Ok(LogRequest { query, start: request.start, end: request.end })
    }

    fn joiner(&self) -> Joiner<'_> {
        Joiner::new(&*self.pods)
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
        let mut joiner = self.joiner();
        found.entries.iter_mut().for_each(|(_, entry)| joiner.extend(entry));
        Ok(found)
    }

    fn scan(
        &self,
        request: &LogRequest,
        order: LogOrder,
        deadline: &Deadline,
        visit: LogVisit<'_>,
    ) -> Result<Vec<String>, StorageError> {
        let mut joiner = self.joiner();
        let visit: LogVisit<'_> = &mut |cursor: LogCursor, mut entry: LogEntry| -> ControlFlow<()> {
            joiner.extend(&mut entry);
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
        // The store joins by stream, so that it has as many groups as the answer.
        let known = |key: &LogKey| LogKey::Known(Box::new(key.clone()), PodNames(Arc::clone(&self.pods)));
        let key = |key: &LogKey| if needs_pod(key) { known(key) } else { key.clone() };
        let by = aggregate.by.iter().map(key).collect();
        self.logs.aggregate(&request, &LogAggregate { by, ..aggregate.clone() }, deadline)
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
            matchers.iter().cloned().partition(|matcher| is_pod_name(loki_alias(&matcher.name)));
        let mut found = self.logs.streams(&now, start, end, deadline)?;
        let mut streams: BTreeMap<Labels, (u64, u64)> = BTreeMap::new();
        let mut joiner = self.joiner();
        let late: Vec<Matcher> = late
            .into_iter()
            .map(|mut matcher| {
                matcher.name = loki_alias(&matcher.name).to_owned();
                matcher
            })
            .collect();
        for LogStream { labels, entries, bytes } in found.streams {
            let labels = joiner.extended(&labels).unwrap_or(labels);
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
        let mut joiner = self.joiner();
        entries.for_each(|(_, entry)| joiner.extend(entry));
        Ok(found)
    }
}

/// Names that streams have by themselves.
const GUESSED: [&str; 2] = ["app", "service"];

fn needs_pod(key: &LogKey) -> bool {
    match key {
        LogKey::Label(name) => is_pod_name(loki_alias(name)),
        LogKey::Field(Field::Stream(name)) => is_pod_name(name),
        LogKey::Field(Field::Parsed(name)) => is_pod_name(name),
        LogKey::Field(Field::Message) | LogKey::Known(..) => false,
        LogKey::Stream => true,
    }
}

/// A subscriber behind which entries know about their pods.
struct Extending {
    to: Box<dyn LogSubscriber>,
    pods: Arc<dyn PodCatalog>,
}

impl LogSubscriber for Extending {
    fn entries(&self, entries: &[Arc<LogEntry>]) -> bool {
        let mut joiner = Joiner::new(&*self.pods);
        let joined = entries.iter().map(|entry| match joiner.extended(&entry.stream) {
            None => Arc::clone(entry),
            Some(stream) => Arc::new(LogEntry { stream, ..LogEntry::clone(entry) }),
        });
        let extended: Vec<Arc<LogEntry>> = joined.collect();
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
