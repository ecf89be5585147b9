//! Sums of what is found, by labels, fields and time.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use binnacle_model::log::{Field, LEVELS, loki_alias, loki_name};
use binnacle_model::storage::{
    Deadline, Holding, LogAggregate, LogDropped, LogFull, LogGroup, LogGroups, LogKey, LogMeasure,
    LogRequest, LogSlices, StorageError,
};
use binnacle_model::{Labels, LogTime};

use super::rows::{Found, Wants, find};
use super::{Broken, Walk, fail};
use crate::logs::Logs;
use crate::logs::page::{self, MINUTE_NS, Minute, PageError, PageView, SealedPage, level_name};
use crate::logs::template::Template;

/// Sums of one answer: groups times slices.
pub(super) const SUMS_MAX: usize = 8_000_000;

/// Groups of one answer, and of one thread of a search.
const GROUPS_MAX: usize = 200_000;

/// Groups that are kept between pages where some are dropped. Those of the next page come on top.
const KEPT_MAX: usize = if cfg!(test) { 24 } else { GROUPS_MAX };

/// In which the room of a query is counted.
const SAMPLE_BYTES: usize = 16;

/// Bytes of a group beside its values.
const GROUP_BYTES: usize = 160;

/// Rows that are counted between two looks at the deadline.
const ROWS_PER_CHECK: usize = 1024;

/// Sums by key.
struct Groups {
    slices: LogSlices,
    numbers: HashMap<Vec<String>, usize>,
    sums: Vec<Vec<u64>>,
    /// By the place of a stream in memory, where nothing else is in the key.
    of_stream: HashMap<usize, usize, foldhash::fast::FixedState>,
    /// Keeps the streams where they are.
    streams: Vec<Labels>,
    /// By level, where nothing else is in the key.
    of_level: [Option<usize>; LEVELS.len() + 1],
    full: LogFull,
    /// That of what has no group of its own, because there is no room for it until the page ends.
    unplaced: Option<usize>,
    /// Sums of groups that were dropped, and the most groups there were before.
    dropped: Option<LogDropped>,
    holding: Holding,
    deadline: Deadline,
}

impl Groups {
    fn new(slices: LogSlices, full: LogFull, deadline: &Deadline) -> Self {
        let (numbers, sums) = (HashMap::new(), Vec::new());
        let of_level = [None; LEVELS.len() + 1];
        Self {
            slices,
            numbers,
            sums,
            of_stream: HashMap::default(),
            streams: Vec::new(),
            of_level,
            full,
            unplaced: None,
            dropped: None,
            holding: deadline.holding(),
            deadline: deadline.clone(),
        }
    }

    /// The group of rows of a stream, where it says all that is in the key.
    fn of_stream(&mut self, keys: &[LogKey], page: &dyn PageView, stream: u32) -> Result<usize, Broken> {
        let labels = &page.streams()[stream as usize];
        let place = labels.iter().as_slice().as_ptr().addr();
        if let Some(group) = self.of_stream.get(&place) {
            return Ok(*group);
        }
        let group = self.number(key_of(keys, page, &Template::default(), Some(stream)))?;
        self.of_stream.insert(place, group);
        self.streams.push(labels.clone());
        Ok(group)
    }

    /// The group of rows of a level, where their template says all that is in the key.
    fn of_level(&mut self, keys: &[LogKey], page: &dyn PageView, template: u32) -> Result<usize, Broken> {
        let at = template as usize;
        let level = match page.brief() {
            Some(brief) => brief.levels[at],
            None => page.templates()[at].template.level,
        };
        if let Some(group) = self.of_level.get(usize::from(level)).copied().flatten() {
            return Ok(group);
        }
        let group = self.number(key_of(keys, page, &page.templates()[at].template, None))?;
        if let Some(slot) = self.of_level.get_mut(usize::from(level)) {
            *slot = Some(group);
        }
        Ok(group)
    }

    /// Adds the sums of another thread.
    fn add(&mut self, other: Self) -> Result<(), StorageError> {
        let Self { numbers, sums, unplaced, dropped, holding, .. } = other;
        // What is in both is not held twice.
        drop(holding);
        let most = numbers.len();
        for (at, (key, number)) in (1..).zip(numbers) {
            let own = self.number(key).map_err(|broken| match broken {
                Broken::Query(error) => error,
                Broken::Page(_) => StorageError::TooMuch,
            })?;
            for (sum, more) in self.sums[own].iter_mut().zip(&sums[number]) {
                *sum += more;
            }
            if at % KEPT_MAX == 0 {
                self.make_room();
            }
        }
        let unplaced = unplaced.map_or(0, |number| sums[number].iter().sum());
        if let Some(more) = dropped {
            self.drop_sum(more.sum + unplaced, more.groups.max(most));
        }
        self.make_room();
        Ok(())
    }

    fn drop_sum(&mut self, sum: u64, groups: usize) {
        let dropped = self.dropped.get_or_insert(LogDropped { sum: 0, groups: 0 });
        dropped.sum += sum;
        dropped.groups = dropped.groups.max(groups);
    }

    /// Drops the smaller half of the groups if there are too many. No number of a group is good after it.
    fn make_room(&mut self) {
        if self.full == LogFull::Refuse || (self.numbers.len() <= KEPT_MAX && self.unplaced.is_none()) {
            return;
        }
        let before = self.numbers.len();
        let mut old = std::mem::take(&mut self.sums);
        let mut dropped: u64 = self.unplaced.take().map_or(0, |number| old[number].iter().sum());
        let sum_of = |number: &usize| old[*number].iter().sum::<u64>();
        let mut sums: Vec<u64> = self.numbers.values().map(sum_of).collect();
        let half = before / 2;
        sums.sort_unstable();
        let least = sums.get(half).copied().unwrap_or(0);
        // Of those that are alike some are kept.
        let mut alike = (before - half).saturating_sub(sums.iter().filter(|sum| **sum > least).count());
        let (mut kept, mut given) = (Vec::new(), 0);
        self.numbers.retain(|key, number| {
            let own = std::mem::take(&mut old[*number]);
            let sum: u64 = own.iter().sum();
            let is_missing = key.iter().all(String::is_empty);
            let is_kept = sum > least || is_missing || (sum == least && alike > 0);
            if is_kept {
                alike -= usize::from(sum == least && alike > 0);
                *number = kept.len();
                kept.push(own);
            } else {
                dropped += sum;
                given += weight(key, own.len());
            }
            is_kept
        });
        self.sums = kept;
        self.holding.give_back(given);
        self.of_stream.clear();
        self.streams.clear();
        self.of_level = [None; LEVELS.len() + 1];
        self.drop_sum(dropped, before);
    }

    fn number(&mut self, key: Vec<String>) -> Result<usize, Broken> {
        if let Some(number) = self.numbers.get(&key) {
            return Ok(*number);
        }
        let number = self.sums.len();
        // Where some are dropped, that is done between pages.
        let most = if self.full == LogFull::Refuse { GROUPS_MAX } else { 2 * KEPT_MAX };
        let has_room = number < most && (number + 1).saturating_mul(self.slices.count) <= SUMS_MAX;
        let held = if has_room {
            self.holding.add(weight(&key, self.slices.count))
        } else {
            Err(StorageError::TooMuch)
        };
        match held {
            Ok(()) => {
                self.numbers.insert(key, number);
            }
            Err(error) if self.full == LogFull::Refuse => return Err(fail(error)),
            Err(_) if key.iter().all(String::is_empty) => {
                self.numbers.insert(key, number);
            }
            Err(_) => {
                if let Some(unplaced) = self.unplaced {
                    return Ok(unplaced);
                }
                self.unplaced = Some(number);
            }
        }
        self.sums.push(vec![0; self.slices.count]);
        Ok(number)
    }
}

/// What a group takes of the room of a query.
fn weight(key: &[String], slices: usize) -> usize {
    let bytes = key.iter().map(|value| size_of::<String>() + value.len()).sum::<usize>();
    (bytes + GROUP_BYTES + size_of::<u64>() * slices) / SAMPLE_BYTES
}

/// What a key needs to be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Depth {
    Template,
    Stream,
    Row,
}

/// What the keys need in a page.
fn depth_of(keys: &[LogKey], page: &dyn PageView) -> Depth {
    keys.iter().map(|key| depth_of_key(key, page)).max().unwrap_or(Depth::Template)
}

fn depth_of_key(key: &LogKey, page: &dyn PageView) -> Depth {
    match key {
        LogKey::Field(Field::Stream("level")) => Depth::Template,
        LogKey::Stream | LogKey::Field(Field::Stream(_)) => Depth::Stream,
        LogKey::Label(name) => {
            let name = loki_alias(name);
            // A level that is known goes before any attribute.
            let is_attribute = |template: &Template| {
                (name != "level" || template.level == 0)
                    && template.attributes.iter().any(|(key, _)| **key == *name || loki_name(key) == name)
            };
            let is_name = |key: &Arc<str>| **key == *name || loki_name(key) == name;
            let may_be = page.brief().is_none_or(|brief| brief.attributes.iter().any(is_name));
            if may_be && page.templates().iter().any(|one| is_attribute(&one.template)) {
                Depth::Row
            } else if page.streams().iter().any(|stream| stream.get(name).is_some()) {
                Depth::Stream
            } else {
                Depth::Template
            }
        }
        LogKey::Field(Field::Message | Field::Parsed(_)) => Depth::Row,
        LogKey::Known(key, _) => depth_of_key(key, page).max(Depth::Stream),
    }
}

/// The key of rows of a template and a stream; of a template alone if `stream` is `None`.
fn key_of(keys: &[LogKey], page: &dyn PageView, template: &Template, stream: Option<u32>) -> Vec<String> {
    let labels = stream.map(|stream| &page.streams()[stream as usize]);
    let level = level_name(template.level);
    keys.iter().map(|key| value_of(key, labels, level)).collect()
}

/// The value under a key of rows of a level and a stream, if that is known.
fn value_of(key: &LogKey, labels: Option<&Labels>, level: &str) -> String {
    match key {
        LogKey::Stream => labels.map_or_else(String::new, |labels| {
            if level.is_empty() { labels.to_string() } else { labels.with("level", level).to_string() }
        }),
        LogKey::Field(Field::Stream("level")) => level.to_owned(),
        LogKey::Field(Field::Stream(name)) => labels.map_or("", |labels| labels.value(name)).to_owned(),
        LogKey::Label(name) => match loki_alias(name) {
            "level" if !level.is_empty() => level.to_owned(),
            name => labels.map_or("", |labels| labels.value(name)).to_owned(),
        },
        LogKey::Field(Field::Message | Field::Parsed(_)) => String::new(),
        LogKey::Known(key, pods) => {
            let known = labels.and_then(|labels| pods.extended(labels));
            value_of(key, known.as_ref().or(labels), level)
        }
    }
}

/// Whether each minute lies in one slice.
pub(super) fn fits_minutes(slices: LogSlices, sealed: &SealedPage) -> bool {
    let minute = MINUTE_NS as u64;
    let begins = slices.start.0.rem_euclid(MINUTE_NS);
    // One nanosecond late is LogQL's way of leaving the beginning out, which matters to rows at full minutes alone.
    let is_aligned = begins == 0 || (begins == 1 && !sealed.is_on_minute());
    sealed.has_minutes() && is_aligned && slices.width_ns.is_multiple_of(minute)
}

/// The slice of all rows of a page, if there is one.
fn single_slice(slices: LogSlices, page: &dyn PageView) -> Option<usize> {
    let (first, last) = page.span();
    slices.index(first).filter(|slice| slices.index(last) == Some(*slice))
}

fn measured(minute: &Minute, measure: LogMeasure) -> u64 {
    match measure {
        LogMeasure::Entries => u64::from(minute.rows),
        LogMeasure::Bytes => minute.bytes,
    }
}

pub(super) fn slice_of_minute(slices: LogSlices, minute: i64) -> Option<usize> {
    // Within the minute, so that a beginning one nanosecond late changes nothing.
    slices.index(LogTime(minute.checked_mul(MINUTE_NS)?.checked_add(1)?))
}

impl Logs {
    /// See [`binnacle_model::storage::LogSearcher::aggregate`].
    pub(crate) fn aggregate(
        &self,
        request: &LogRequest,
        aggregate: &LogAggregate,
        deadline: &Deadline,
    ) -> Result<LogGroups, StorageError> {
        let LogAggregate { by, slices, measure, full } = aggregate;
        let start = request.start.max(slices.start);
        let end = request.end.min(slices.end());
        let request = LogRequest { query: request.query.clone(), start, end };
        let new = || Groups::new(*slices, *full, deadline);
        let (parts, warnings) =
            self.shared.visit_all(&request, &Walk::ALL, deadline, &new, &|groups, plan, view, sealed| {
                let depth = depth_of(by, view);
                let counts = depth == Depth::Template
                    && *measure == LogMeasure::Entries
                    && single_slice(*slices, view).is_some();
                let wants = if counts { Wants::Counts } else { Wants::Rows };
                let found = find(plan, view, wants, deadline)?;
                add_page(groups, by, *measure, depth, found, view, sealed)?;
                groups.make_room();
                Ok(())
            })?;
        let mut parts = parts.into_iter();
        let mut groups = parts.next().unwrap_or_else(new);
        for part in parts {
            groups.add(part)?;
        }
        let dropped = groups.dropped;
        let mut sums: Vec<Option<Vec<u64>>> = groups.sums.into_iter().map(Some).collect();
        let mut answer: Vec<LogGroup> = groups
            .numbers
            .into_iter()
            .filter_map(|(key, number)| Some(LogGroup { key, sums: sums[number].take()? }))
            .filter(|group| group.sums.iter().any(|sum| *sum > 0))
            .collect();
        answer.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(LogGroups { groups: answer, dropped, warnings })
    }
}

/// Adds what was found in a page.
fn add_page(
    groups: &mut Groups,
    by: &[LogKey],
    measure: LogMeasure,
    depth: Depth,
    found: Found,
    view: &dyn PageView,
    sealed: Option<&SealedPage>,
) -> Result<(), Broken> {
    let slices = groups.slices;
    let single = single_slice(slices, view);
    let mut found = found;
    let by_template =
        depth == Depth::Template && (single.is_some() || sealed.is_some_and(|one| fits_minutes(slices, one)));
    if let (true, true, LogMeasure::Entries, Some(slice), Some(brief)) =
        (by_template, found.is_all, measure, single, view.brief())
    {
        for (first, rows) in &brief.by_level {
            let group = groups.of_level(by, view, *first)?;
            groups.sums[group][slice] += rows;
        }
        return Ok(());
    }
    if by_template {
        for at in found.take_templates(view) {
            let group = groups.of_level(by, view, at)?;
            let brief = view.brief().filter(|_| measure == LogMeasure::Entries);
            match (single, brief) {
                (Some(slice), Some(brief)) => groups.sums[group][slice] += u64::from(brief.rows[at as usize]),
                (Some(slice), None) => {
                    let one = &view.templates()[at as usize];
                    groups.sums[group][slice] +=
                        if measure == LogMeasure::Entries { u64::from(one.rows) } else { one.bytes };
                }
                (None, _) => {
                    for minute in &view.templates()[at as usize].minutes {
                        if let Some(slice) = slice_of_minute(slices, minute.at) {
                            let sum = &mut groups.sums[group][slice];
                            *sum = sum.saturating_add(measured(minute, measure));
                        }
                    }
                }
            }
        }
    }
    for (at, count) in std::mem::take(&mut found.counts) {
        let group = groups.of_level(by, view, at)?;
        groups.sums[group][single.unwrap_or(0)] += u64::from(count);
    }
    let needs_level = by.iter().any(is_level);
    if let (Some(slice), Some(sealed), Depth::Stream, false, LogMeasure::Entries) =
        (single, sealed, depth, needs_level, measure)
    {
        let whole = found.take_templates(view);
        add_by_stream(groups, by, &whole, slice, view, sealed)?;
    }
    add_rows(groups, by, measure, depth, found, view, single)
}

/// Adds all rows of some templates, by their streams.
fn add_by_stream(
    groups: &mut Groups,
    by: &[LogKey],
    templates: &[u32],
    slice: usize,
    view: &dyn PageView,
    sealed: &SealedPage,
) -> Result<(), Broken> {
    if templates.is_empty() {
        return Ok(());
    }
    // Of every row of the page the runs know.
    let is_all = templates.len() == view.templates().len();
    let mut is_wanted = vec![0u8; view.templates().len()];
    templates.iter().for_each(|at| is_wanted[*at as usize] = 1);
    let count = |rows: Range<usize>| -> Result<u64, PageError> {
        if is_all {
            return Ok(rows.len() as u64);
        }
        let wanted = |template: usize| u64::from(is_wanted[template]);
        Ok(match view.short_template_column()? {
            Some(column) => column[rows].iter().map(|template| wanted(usize::from(*template))).sum(),
            None => view.template_column()?[rows].iter().map(|template| wanted(*template as usize)).sum(),
        })
    };
    let mut row = 0;
    for (stream, rows) in sealed.stream_rows() {
        let end = row + rows as usize;
        let found = count(row..end)?;
        row = end;
        if found > 0 {
            let group = groups.of_stream(by, view, stream)?;
            groups.sums[group][slice] += found;
        }
    }
    Ok(())
}

fn is_level(key: &LogKey) -> bool {
    match key {
        LogKey::Label(name) => loki_alias(name) == "level",
        LogKey::Field(field) => *field == Field::Stream("level"),
        LogKey::Stream => true,
        LogKey::Known(key, _) => is_level(key),
    }
}

fn add_rows(
    groups: &mut Groups,
    by: &[LogKey],
    measure: LogMeasure,
    depth: Depth,
    found: Found,
    view: &dyn PageView,
    single: Option<usize>,
) -> Result<(), Broken> {
    let rows = found.all_rows(view)?;
    if rows.is_empty() {
        return Ok(());
    }
    let (templates, streams) = (view.template_column()?, view.stream_column());
    let times = if single.is_none() { Some(view.time_column()?) } else { None };
    let mut known: HashMap<(u32, u32), usize, foldhash::fast::FixedState> = HashMap::default();
    let mut last = ((u32::MAX, u32::MAX), 0);
    for (counted, row) in (1usize..).zip(rows) {
        let row = row as usize;
        if counted.is_multiple_of(ROWS_PER_CHECK) && groups.deadline.is_over() {
            return Err(fail(StorageError::Deadline));
        }
        let slice = match times {
            None => single,
            Some(times) => groups.slices.index(LogTime(times[row])),
        };
        let Some(slice) = slice else { continue };
        let entry = if depth == Depth::Row { Some(page::entry(view, row)?) } else { None };
        let group = if let Some(entry) = &entry {
            groups.number(by.iter().map(|key| key.of(entry)).collect())?
        } else {
            let pair = (templates[row], if depth == Depth::Template { 0 } else { streams[row] });
            if pair != last.0 {
                let group = if let Some(group) = known.get(&pair) {
                    *group
                } else {
                    let template = &view.templates()[pair.0 as usize].template;
                    let stream = (depth != Depth::Template).then_some(pair.1);
                    let group = groups.number(key_of(by, view, template, stream))?;
                    known.insert(pair, group);
                    group
                };
                last = (pair, group);
            }
            last.1
        };
        groups.sums[group][slice] += match measure {
            LogMeasure::Entries => 1,
            LogMeasure::Bytes => match &entry {
                Some(entry) => entry.message.len() as u64,
                None => message_bytes(view, row)?,
            },
        };
    }
    Ok(())
}

fn message_bytes(view: &dyn PageView, row: usize) -> Result<u64, PageError> {
    let number = view.template_column()?[row] as usize;
    let (occurrence, time) = (view.occurrence_column()?[row] as usize, view.time_column()?[row]);
    let mut message = Vec::new();
    page::rebuild(view, number, occurrence, time, &mut message)?;
    Ok(message.len() as u64)
}
