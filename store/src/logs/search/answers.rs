//! Entries, fields, streams and neighbours.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::ops::{ControlFlow, Range};
use std::sync::{Mutex, PoisonError};

use binnacle_model::log::{FileId, LogEntry};
use binnacle_model::log_query::LogQuery;
use binnacle_model::matcher::all_match;
use binnacle_model::storage::{
    Deadline, LogContext, LogCursor, LogField, LogFields, LogOrder, LogPage, LogRequest, LogStream,
    LogStreams, LogVisit, PageRequest, StorageError,
};
use binnacle_model::{Labels, LogTime, Matcher};
use xxhash_rust::xxh3::xxh3_64;

use super::plan::Plan;
use super::rows::{Found, Wants, find};
use super::{Broken, Walk};
use crate::logs::Logs;
use crate::logs::page::{self, PageError, PageView};
use crate::logs::partition::Summary;

/// Bytes of messages in one page of results.
const PAGE_MAX_BYTES: usize = 32 * 1024 * 1024;

/// Bytes of messages that are held while the best are looked for.
const HELD_MAX_BYTES: usize = 2 * PAGE_MAX_BYTES;

/// Entries that a scan finds at once.
const SCAN_ENTRIES: usize = 8192;

/// Entries whose fields are listed.
const FIELDS_ENTRIES: usize = 10_000;

/// Fields that are listed.
const FIELDS_MAX: usize = 5_000;

/// The number of a file, as cursors say it.
pub(super) fn file_number(file: &FileId) -> u64 {
    xxh3_64(file.0.as_bytes())
}

/// The best entries so far. A rank is a cursor such that the largest is the best.
struct Best {
    limit: usize,
    order: LogOrder,
    /// The worst of the best is on top.
    heap: BinaryHeap<Reverse<(Rank, usize)>>,
    entries: Vec<Option<(LogCursor, LogEntry)>>,
    free: Vec<usize>,
    /// Of the messages.
    bytes: usize,
}

/// A cursor, turned round where the oldest come first.
type Rank = (i128, u64, u64);

fn rank(cursor: LogCursor, order: LogOrder) -> Rank {
    match order {
        LogOrder::NewestFirst => (i128::from(cursor.time.0), cursor.file, cursor.offset),
        LogOrder::OldestFirst => (-i128::from(cursor.time.0), !cursor.file, !cursor.offset),
    }
}

impl Best {
    /// Whether an entry of this time may be among the best.
    fn may_take(&self, time: LogTime) -> bool {
        let of_time = rank(LogCursor { time, file: 0, offset: 0 }, self.order).0;
        self.heap.len() < self.limit || self.heap.peek().is_some_and(|Reverse((worst, _))| of_time >= worst.0)
    }

    /// Whether an entry of this rank would be taken.
    fn wants(&self, rank: Rank) -> bool {
        self.heap.len() < self.limit || self.heap.peek().is_some_and(|Reverse((worst, _))| *worst < rank)
    }

    fn take(&mut self, rank: Rank, cursor: LogCursor, entry: LogEntry) {
        self.bytes += entry.message.len();
        // Few large entries instead of many: the rest is for the next page.
        while self.heap.len() >= self.limit || (self.bytes > HELD_MAX_BYTES && self.heap.len() > 1) {
            self.limit = self.limit.min(self.heap.len());
            let Some(Reverse((_, at))) = self.heap.pop() else { break };
            let gone = self.entries[at].take();
            self.bytes -= gone.map_or(0, |(_, entry)| entry.message.len());
            self.free.push(at);
        }
        let entry = Some((cursor, entry));
        let at = if let Some(at) = self.free.pop() {
            self.entries[at] = entry;
            at
        } else {
            self.entries.push(entry);
            self.entries.len() - 1
        };
        self.heap.push(Reverse((rank, at)));
    }
}

/// The best moment that a page can have.
fn best_moment(summary: &Summary, order: LogOrder) -> LogTime {
    match order {
        LogOrder::NewestFirst => summary.last,
        LogOrder::OldestFirst => summary.first,
    }
}

/// The cursor of a row.
fn cursor_of(page: &dyn PageView, row: usize) -> Result<LogCursor, PageError> {
    Ok(LogCursor {
        time: LogTime(page.time_column()?[row]),
        file: file_number(&page.files()[page.file_column()[row] as usize]),
        offset: page.offset_column()?[row],
    })
}

/// Adds the rows that were found to the best, where they lie behind the cursor.
fn add_rows(
    best: &mut Best,
    page: &dyn PageView,
    found: Found,
    cursor: Option<Rank>,
) -> Result<(), PageError> {
    let mut rows = found.all_rows(page)?;
    if rows.is_empty() {
        return Ok(());
    }
    let times = page.time_column()?;
    // The best first, so that few are taken and thrown out again.
    let of_time =
        |row: &u32| rank(LogCursor { time: LogTime(times[*row as usize]), file: 0, offset: 0 }, best.order).0;
    // Those of the cursor's own moment are decided one by one.
    let mut alike = Vec::new();
    if let Some(bound) = cursor {
        alike = rows.iter().copied().filter(|row| of_time(row) == bound.0).collect();
        rows.retain(|row| of_time(row) < bound.0);
    }
    if rows.len() > best.limit {
        // Of equal moments all are kept: the rest of the cursor decides between them.
        let (_, nth, _) = rows.select_nth_unstable_by_key(best.limit - 1, |row| Reverse(of_time(row)));
        let least = of_time(nth);
        rows.retain(|row| of_time(row) >= least);
    }
    rows.extend(alike);
    for row in rows {
        if !best.may_take(LogTime(times[row as usize])) {
            continue;
        }
        let at = cursor_of(page, row as usize)?;
        let rank = rank(at, best.order);
        if cursor.is_none_or(|bound| rank < bound) && best.wants(rank) {
            best.take(rank, at, page::entry(page, row as usize)?);
        }
    }
    Ok(())
}

impl Logs {
    /// See [`binnacle_model::storage::LogSearcher::search`].
    pub(crate) fn search(
        &self,
        request: &LogRequest,
        page: PageRequest,
        deadline: &Deadline,
    ) -> Result<LogPage, StorageError> {
        // What lies before the cursor need not be looked at.
        let mut left = request.clone();
        match (page.cursor, page.order) {
            (Some(cursor), LogOrder::NewestFirst) => {
                left.end = left.end.min(LogTime(cursor.time.0.saturating_add(1)));
            }
            (Some(cursor), LogOrder::OldestFirst) => left.start = left.start.max(cursor.time),
            (None, _) => {}
        }
        // One more, to know whether there are more.
        let limit = page.limit.saturating_add(1);
        let (heap, entries, free) = (BinaryHeap::new(), Vec::new(), Vec::new());
        let best = Mutex::new(Best { limit, order: page.order, heap, entries, free, bytes: 0 });
        let locked = || best.lock().unwrap_or_else(PoisonError::into_inner);
        let cursor = page.cursor.map(|cursor| rank(cursor, page.order));
        let goes_on = |summary: &Summary| locked().may_take(best_moment(summary, page.order));
        let walk = Walk { order: Some(page.order), goes_on: &goes_on };
        let (_, warnings) = self.shared.visit_all(&left, &walk, deadline, &|| (), &|(), plan, view, _| {
            let found = find(plan, view, Wants::Rows, deadline)?;
            let (first, last) = view.span();
            let moment = if page.order == LogOrder::NewestFirst { last } else { first };
            let mut best = locked();
            if best.may_take(moment) {
                add_rows(&mut best, view, found, cursor)?;
            }
            Ok::<(), Broken>(())
        })?;
        let best = best.into_inner().unwrap_or_else(PoisonError::into_inner);
        let (entries, more) = sorted(best, page.limit);
        let mut answer = LogPage { entries, total: None, more, warnings };
        if page.counts && page.cursor.is_none() && !answer.more {
            // These are all there are: nothing has to be counted once more.
            answer.total = Some(answer.entries.len() as u64);
        } else if page.counts {
            let (total, warnings) = self.count(request, deadline)?;
            // Lines that came in between are in the one or in the other.
            answer.total = Some(total.max(answer.entries.len() as u64));
            answer.warnings.extend(warnings);
            answer.warnings.sort_unstable();
            answer.warnings.dedup();
        }
        Ok(answer)
    }

    /// How many entries there are, and what could not be read.
    fn count(&self, request: &LogRequest, deadline: &Deadline) -> Result<(u64, Vec<String>), StorageError> {
        let (counts, warnings) =
            self.shared.visit_all(request, &Walk::ALL, deadline, &|| 0u64, &|count, plan, view, _| {
                *count += find(plan, view, Wants::Counts, deadline)?.count(view);
                Ok(())
            })?;
        Ok((counts.into_iter().sum(), warnings))
    }

    /// See [`binnacle_model::storage::LogSearcher::scan`].
    pub(crate) fn scan(
        &self,
        request: &LogRequest,
        order: LogOrder,
        deadline: &Deadline,
        visit: LogVisit<'_>,
    ) -> Result<Vec<String>, StorageError> {
        let mut cursor = None;
        let mut warnings = BTreeSet::new();
        loop {
            let page = PageRequest { limit: SCAN_ENTRIES, cursor, order, counts: false };
            let found = self.search(request, page, deadline)?;
            warnings.extend(found.warnings);
            cursor = found.entries.last().map(|(cursor, _)| *cursor);
            for (cursor, entry) in found.entries {
                if visit(cursor, entry) == ControlFlow::Break(()) {
                    return Ok(warnings.into_iter().collect());
                }
            }
            if !found.more {
                return Ok(warnings.into_iter().collect());
            }
        }
    }

    /// See [`binnacle_model::storage::LogSearcher::fields`].
    pub(crate) fn fields(
        &self,
        request: &LogRequest,
        deadline: &Deadline,
    ) -> Result<LogFields, StorageError> {
        let mut fields: BTreeMap<String, LogField> = BTreeMap::new();
        let mut entries = 0;
        let warnings = self.scan(request, LogOrder::NewestFirst, deadline, &mut |_, entry| {
            let mut seen = BTreeSet::new();
            for (name, value) in entry.fields() {
                if fields.len() >= FIELDS_MAX && !fields.contains_key(&name) {
                    continue;
                }
                let field = fields.entry(name.clone()).or_default();
                field.note(&value);
                field.entries += u64::from(seen.insert(name.clone()));
                field.name = name;
            }
            entries += 1;
            if entries < FIELDS_ENTRIES as u64 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        Ok(LogFields { fields: fields.into_values().collect(), entries, warnings })
    }

    /// See [`binnacle_model::storage::LogSearcher::streams`].
    pub(crate) fn streams(
        &self,
        matchers: &[Matcher],
        start: LogTime,
        end: LogTime,
        deadline: &Deadline,
    ) -> Result<LogStreams, StorageError> {
        let mut plan = Plan::new(&LogRequest { query: LogQuery::All, start, end });
        let mut streams: BTreeMap<Labels, (u64, u64)> = BTreeMap::new();
        let warnings = self.shared.visit(
            &mut plan,
            LogOrder::NewestFirst,
            deadline,
            &mut |_| true,
            &mut |_, view, sealed| {
                let (first, last) = view.span();
                let all = rows_by_stream(view);
                let within = match sealed {
                    Some(_) if start <= first && last < end => all.clone(),
                    _ => rows_by_stream_within(view, start.0..end.0)?,
                };
                let bytes = bytes_by_stream(view, &all)?;
                for (at, labels) in view.streams().iter().enumerate().filter(|(at, _)| within[*at] > 0) {
                    if all_match(matchers, labels) {
                        let sums = streams.entry(labels.clone()).or_default();
                        sums.0 += within[at];
                        // Of the lines of a stream that lie outside of the span, as many as they are.
                        sums.1 +=
                            (u128::from(bytes[at]) * u128::from(within[at]) / u128::from(all[at])) as u64;
                    }
                }
                Ok(())
            },
        )?;
        let streams =
            streams.into_iter().map(|(labels, (entries, bytes))| LogStream { labels, entries, bytes });
        Ok(LogStreams { streams: streams.collect(), warnings })
    }

    /// See [`binnacle_model::storage::LogSearcher::context`].
    pub(crate) fn context(
        &self,
        file: &FileId,
        offset: u64,
        before: usize,
        after: usize,
        deadline: &Deadline,
    ) -> Result<LogContext, StorageError> {
        let request = LogRequest { query: LogQuery::All, start: LogTime(i64::MIN), end: LogTime(i64::MAX) };
        let mut plan = Plan::new(&request);
        let mut nearest: (Nearest, Nearest) = Default::default();
        let warnings = self.shared.visit(
            &mut plan,
            LogOrder::NewestFirst,
            deadline,
            &mut |_| true,
            &mut |_, view, _| {
                let Some(number) = view.files().iter().position(|one| one == file) else { return Ok(()) };
                let offsets = view.offset_column()?;
                let rows = (0..view.rows()).filter(|row| view.file_column()[*row] as usize == number);
                for row in rows {
                    let is_before = offsets[row] < offset;
                    let most = if is_before { before } else { after.saturating_add(1) };
                    let side = if is_before { &mut nearest.0 } else { &mut nearest.1 };
                    if side.len() < most || is_nearer(side, offsets[row], is_before) {
                        side.insert(offsets[row], (cursor_of(view, row)?, page::entry(view, row)?));
                    }
                    if side.len() > most {
                        if is_before {
                            side.pop_first()
                        } else {
                            side.pop_last()
                        };
                    }
                }
                Ok(())
            },
        )?;
        let (before, after) = (nearest.0.into_values().collect(), nearest.1.into_values().collect());
        Ok(LogContext { before, after, warnings })
    }
}

/// Entries by their offset.
type Nearest = BTreeMap<u64, (LogCursor, LogEntry)>;

fn is_nearer(side: &Nearest, offset: u64, is_before: bool) -> bool {
    let farthest = if is_before { side.first_key_value() } else { side.last_key_value() };
    farthest.is_some_and(|(farthest, _)| if is_before { offset > *farthest } else { offset < *farthest })
}

/// The entries, best first, up to so many of them and so many bytes; and whether there are more.
fn sorted(best: Best, limit: usize) -> (Vec<(LogCursor, LogEntry)>, bool) {
    let Best { heap, mut entries, limit: reached, .. } = best;
    let mut more = heap.len() > limit || (reached <= limit && heap.len() >= reached);
    let mut sorted = Vec::with_capacity(heap.len().min(limit));
    let mut bytes = 0;
    // Ascending by what is reversed: the best comes first.
    for Reverse((_, at)) in heap.into_sorted_vec().into_iter().take(limit) {
        if bytes > PAGE_MAX_BYTES {
            more = true;
            break;
        }
        if let Some((cursor, entry)) = entries[at].take() {
            bytes += 2 * entry.message.len() + 200;
            sorted.push((cursor, entry));
        }
    }
    (sorted, more)
}

/// How many rows each stream of a page has.
fn rows_by_stream(view: &dyn PageView) -> Vec<u64> {
    let mut rows = vec![0u64; view.streams().len()];
    match view.runs() {
        Some(runs) => runs.iter().for_each(|(stream, count)| rows[*stream as usize] += *count as u64),
        None => view.stream_column().iter().for_each(|stream| rows[*stream as usize] += 1),
    }
    rows
}

/// The same within a span of nanoseconds.
fn rows_by_stream_within(view: &dyn PageView, span: Range<i64>) -> Result<Vec<u64>, PageError> {
    let mut rows = vec![0u64; view.streams().len()];
    for (stream, time) in view.stream_column().iter().zip(view.time_column()?) {
        rows[*stream as usize] += u64::from(span.contains(time));
    }
    Ok(rows)
}

/// Bytes of the messages of each stream of a page. One of an earlier release knows those of all together.
fn bytes_by_stream(view: &dyn PageView, rows: &[u64]) -> Result<Vec<u64>, PageError> {
    if let Some(bytes) = view.bytes_by_stream()? {
        return Ok(bytes);
    }
    let all = view.templates().iter().fold(0u64, |sum, one| sum.saturating_add(one.bytes));
    let share = |count: &u64| (u128::from(all) * u128::from(*count) / view.rows().max(1) as u128) as u64;
    Ok(rows.iter().map(share).collect())
}
