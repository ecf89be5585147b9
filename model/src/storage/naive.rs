//! A list of entries that is scanned: what every store of logs must answer, and a store for tests.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use super::logs::LogVisit;
use super::{
    Deadline, KnownPatterns, LogAggregate, LogContext, LogCursor, LogField, LogFields, LogGroup, LogGroups,
    LogKey, LogMeasure, LogOrder, LogPage, LogPattern, LogPatterns, LogRequest, LogSearcher, LogSlices,
    LogStream, LogStreams, PageRequest, StorageError,
};
use crate::log::{Field, FieldValue, FileId, LogEntry, loki_alias};
use crate::matcher::{Matcher, all_match};
use crate::time::LogTime;

/// Entries in no order, each with its place in it.
#[derive(Debug, Clone, Default)]
pub struct NaiveLogs(pub Vec<(LogCursor, LogEntry)>);

impl NaiveLogs {
    fn found(&self, request: &LogRequest, order: LogOrder) -> Vec<&(LogCursor, LogEntry)> {
        let mut found: Vec<_> = self.0.iter().filter(|(_, entry)| request.wants(entry)).collect();
        found.sort_by_key(|(cursor, _)| *cursor);
        if order == LogOrder::NewestFirst {
            found.reverse();
        }
        found
    }
}

impl LogKey {
    /// The entry's value under this key.
    pub fn of(&self, entry: &LogEntry) -> String {
        match self {
            Self::Label(name) => entry.label(name).into_owned(),
            Self::Field(Field::Message) => String::from_utf8_lossy(&entry.message).into_owned(),
            Self::Field(Field::Stream(name)) => entry.stream_field(name).to_owned(),
            Self::Field(Field::Parsed(name)) => match entry.stream.get(name) {
                Some(value) => value.to_owned(),
                None => first_value(entry, name).map_or_else(String::new, |value| value.to_string()),
            },
            Self::Stream if entry.level.is_empty() => entry.stream.to_string(),
            Self::Stream => entry.stream.with("level", &entry.level).to_string(),
            Self::Known(key, pods) => {
                let Some(stream) = pods.extended(&entry.stream) else { return key.of(entry) };
                let name = match &**key {
                    Self::Stream if entry.level.is_empty() => return stream.to_string(),
                    Self::Stream => return stream.with("level", &entry.level).to_string(),
                    Self::Label(name) => loki_alias(name),
                    Self::Field(Field::Stream(name)) => name,
                    Self::Field(Field::Parsed(name)) => name.as_str(),
                    Self::Field(Field::Message) | Self::Known(..) => return key.of(entry),
                };
                let known = stream.get(name).filter(|_| name != "level");
                known.map_or_else(|| key.of(entry), str::to_owned)
            }
        }
    }
}

fn first_value(entry: &LogEntry, name: &str) -> Option<FieldValue> {
    entry.fields().into_iter().find(|(key, _)| key == name).map(|(_, value)| value)
}

impl LogSearcher for NaiveLogs {
    fn search(&self, request: &LogRequest, page: PageRequest, _: &Deadline) -> Result<LogPage, StorageError> {
        let found = self.found(request, page.order);
        let total = page.counts.then_some(found.len() as u64);
        let is_behind = |cursor: LogCursor| {
            page.cursor.is_none_or(|before| match page.order {
                LogOrder::NewestFirst => cursor < before,
                LogOrder::OldestFirst => cursor > before,
            })
        };
        let mut behind = found.into_iter().filter(|(cursor, _)| is_behind(*cursor));
        let entries = behind.by_ref().take(page.limit).cloned().collect();
        Ok(LogPage { entries, total, more: behind.next().is_some(), warnings: Vec::new() })
    }

    fn scan(
        &self,
        request: &LogRequest,
        order: LogOrder,
        _: &Deadline,
        visit: LogVisit<'_>,
    ) -> Result<Vec<String>, StorageError> {
        for (cursor, entry) in self.found(request, order) {
            if visit(*cursor, entry.clone()) == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(Vec::new())
    }

    fn aggregate(
        &self,
        request: &LogRequest,
        aggregate: &LogAggregate,
        _: &Deadline,
    ) -> Result<LogGroups, StorageError> {
        let mut groups: BTreeMap<Vec<String>, Vec<u64>> = BTreeMap::new();
        for (_, entry) in self.found(request, LogOrder::OldestFirst) {
            let Some(slice) = aggregate.slices.index(entry.time) else { continue };
            let key = aggregate.by.iter().map(|key| key.of(entry)).collect();
            let sums = groups.entry(key).or_insert_with(|| vec![0; aggregate.slices.count]);
            sums[slice] += match aggregate.measure {
                LogMeasure::Entries => 1,
                LogMeasure::Bytes => entry.message.len() as u64,
            };
        }
        let groups = groups.into_iter().map(|(key, sums)| LogGroup { key, sums }).collect();
        Ok(LogGroups { groups, dropped: None, warnings: Vec::new() })
    }

    fn fields(&self, request: &LogRequest, _: &Deadline) -> Result<LogFields, StorageError> {
        let mut fields: BTreeMap<String, LogField> = BTreeMap::new();
        let found = self.found(request, LogOrder::NewestFirst);
        for (_, entry) in &found {
            let mut seen = BTreeSet::new();
            for (name, value) in entry.fields() {
                let field = fields.entry(name.clone()).or_default();
                field.name.clone_from(&name);
                field.note(&value);
                field.entries += u64::from(seen.insert(name));
            }
        }
        let (fields, entries) = (fields.into_values().collect(), found.len() as u64);
        Ok(LogFields { fields, entries, warnings: Vec::new() })
    }

    /// Each message is a pattern of its own: what is a value in it is the store's to say.
    fn patterns(
        &self,
        request: &LogRequest,
        slices: LogSlices,
        _: &Deadline,
    ) -> Result<LogPatterns, StorageError> {
        let mut patterns: BTreeMap<(String, String), LogPattern> = BTreeMap::new();
        for (_, entry) in self.found(request, LogOrder::OldestFirst) {
            let Some(slice) = slices.index(entry.time) else { continue };
            let text = String::from_utf8_lossy(&entry.message).into_owned();
            let pattern = patterns.entry((text.clone(), entry.level.clone())).or_insert_with(|| LogPattern {
                pattern: text.clone(),
                level: entry.level.clone(),
                total: 0,
                counts: vec![0; slices.count],
                example: text,
                first_seen: entry.time,
            });
            pattern.total += 1;
            pattern.counts[slice] += 1;
        }
        let mut patterns: Vec<LogPattern> = patterns.into_values().collect();
        patterns.sort_by_key(|pattern| std::cmp::Reverse(pattern.total));
        Ok(LogPatterns { patterns, warnings: Vec::new() })
    }

    fn known_patterns(
        &self,
        patterns: &[LogPattern],
        before: LogTime,
        _: &Deadline,
    ) -> Result<KnownPatterns, StorageError> {
        let minute = |time: LogTime| time.0.div_euclid(60_000_000_000);
        let has = |pattern: &LogPattern| {
            let mut earlier = self.0.iter().filter(|(_, one)| minute(one.time) < minute(before));
            earlier.any(|(_, one)| one.level == pattern.level && one.message == pattern.pattern.as_bytes())
        };
        Ok(KnownPatterns { known: patterns.iter().map(has).collect(), warnings: Vec::new() })
    }

    fn streams(
        &self,
        matchers: &[Matcher],
        start: LogTime,
        end: LogTime,
        _: &Deadline,
    ) -> Result<LogStreams, StorageError> {
        let mut streams: Vec<LogStream> = Vec::new();
        for (_, entry) in &self.0 {
            if !(start..end).contains(&entry.time) || !all_match(matchers, &entry.stream) {
                continue;
            }
            let known = streams.iter().position(|stream| stream.labels == entry.stream);
            let at = known.unwrap_or_else(|| {
                streams.push(LogStream { labels: entry.stream.clone(), entries: 0, bytes: 0 });
                streams.len() - 1
            });
            streams[at].entries += 1;
            streams[at].bytes += entry.message.len() as u64;
        }
        streams.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(LogStreams { streams, warnings: Vec::new() })
    }

    fn context(
        &self,
        file: &FileId,
        offset: u64,
        before: usize,
        after: usize,
        _: &Deadline,
    ) -> Result<LogContext, StorageError> {
        let mut of_file: Vec<_> =
            self.0.iter().filter(|(_, entry)| entry.origin.file == *file).cloned().collect();
        of_file.sort_by_key(|(_, entry)| entry.origin.offset);
        let at = of_file.partition_point(|(_, entry)| entry.origin.offset < offset);
        let behind = of_file.split_off(at);
        let before = of_file.split_off(of_file.len().saturating_sub(before));
        let after = behind.into_iter().take(after.saturating_add(1)).collect();
        Ok(LogContext { before, after, warnings: Vec::new() })
    }
}

impl LogField {
    /// Remembers of which kind a value is.
    pub fn note(&mut self, value: &FieldValue) {
        match value {
            FieldValue::Text(_) => self.text = true,
            FieldValue::Int(_) | FieldValue::Float(_) => self.number = true,
            FieldValue::Bool(_) => self.bool = true,
        }
    }
}
