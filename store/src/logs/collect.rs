//! What is gathered from the documents that a query finds: the newest of them, or counts over time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use binnacle_model::LogTime;
use binnacle_model::storage::{Deadline, LogBar, LogCursor};
use tantivy::collector::{Collector, SegmentCollector};
use tantivy::columnar::{Column, StrColumn};
use tantivy::query::Weight;
use tantivy::{
    COLLECT_BLOCK_BUFFER_LEN, DocAddress, DocId, DocSet, Score, SegmentOrdinal, SegmentReader, TantivyError,
};

/// Text of the error by which a collector says that its time is over.
pub(crate) const DEADLINE: &str = "deadline";

/// Blocks of documents between two looks at the deadline.
const BLOCKS_PER_CHECK: usize = 64;

/// A span of log time; its end is not in it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub(crate) start: LogTime,
    pub(crate) end: LogTime,
}

impl Span {
    fn contains(self, time: i64) -> bool {
        self.start.0 <= time && time < self.end.0
    }

    fn misses(self, column: &Column<i64>) -> bool {
        column.num_docs() == 0 || column.max_value() < self.start.0 || column.min_value() >= self.end.0
    }
}

/// The newest documents before a cursor, and the number of all.
pub(crate) struct Newest<'a> {
    pub(crate) span: Span,
    pub(crate) limit: usize,
    pub(crate) cursor: Option<LogCursor>,
    pub(crate) deadline: &'a Deadline,
}

/// A document with its place in the order.
pub(crate) type Found = (LogCursor, DocAddress);

pub(crate) struct NewestChild {
    span: Span,
    limit: usize,
    cursor: Option<LogCursor>,
    segment: SegmentOrdinal,
    time: Column<i64>,
    file: Column<u64>,
    offset: Column<u64>,
    total: u64,
    newest: BinaryHeap<Reverse<Found>>,
}

impl Collector for Newest<'_> {
    type Fruit = (u64, Vec<Found>);
    type Child = NewestChild;

    fn for_segment(&self, segment: SegmentOrdinal, reader: &SegmentReader) -> tantivy::Result<NewestChild> {
        let fast = reader.fast_fields();
        Ok(NewestChild {
            span: self.span,
            limit: self.limit,
            cursor: self.cursor,
            segment,
            time: fast.i64("time")?,
            file: fast.u64("file")?,
            offset: fast.u64("offset")?,
            total: 0,
            newest: BinaryHeap::new(),
        })
    }

    fn requires_scoring(&self) -> bool {
        false
    }

    fn merge_fruits(&self, fruits: Vec<Self::Fruit>) -> tantivy::Result<Self::Fruit> {
        let total = fruits.iter().map(|(total, _)| total).sum();
        let mut found: Vec<Found> = fruits.into_iter().flat_map(|(_, found)| found).collect();
        found.sort_unstable_by(|a, b| b.cmp(a));
        found.truncate(self.limit);
        Ok((total, found))
    }

    fn collect_segment(
        &self,
        weight: &dyn Weight,
        segment: SegmentOrdinal,
        reader: &SegmentReader,
    ) -> tantivy::Result<Self::Fruit> {
        let child = self.for_segment(segment, reader)?;
        if self.span.misses(&child.time) {
            return Ok(child.harvest());
        }
        scan(child, weight, reader, self.deadline)
    }
}

impl SegmentCollector for NewestChild {
    type Fruit = (u64, Vec<Found>);

    fn collect(&mut self, doc: DocId, _: Score) {
        let Some(time) = self.time.first(doc) else { return };
        if !self.span.contains(time) {
            return;
        }
        self.total += 1;
        let is_full = self.newest.len() >= self.limit;
        let worst = self.newest.peek().map(|Reverse((cursor, _))| cursor.time.0);
        if is_full && worst.is_none_or(|worst| time < worst) {
            return;
        }
        let cursor = LogCursor {
            time: LogTime(time),
            file: self.file.first(doc).unwrap_or(0),
            offset: self.offset.first(doc).unwrap_or(0),
        };
        if self.cursor.is_some_and(|before| cursor >= before) {
            return;
        }
        self.newest.push(Reverse((cursor, DocAddress::new(self.segment, doc))));
        if self.newest.len() > self.limit {
            self.newest.pop();
        }
    }

    fn harvest(self) -> Self::Fruit {
        (self.total, self.newest.into_iter().map(|Reverse(found)| found).collect())
    }
}

/// Counts by level in equal slices of a span.
pub(crate) struct Bars<'a> {
    pub(crate) span: Span,
    pub(crate) count: usize,
    pub(crate) deadline: &'a Deadline,
}

pub(crate) struct BarsChild {
    span: Span,
    count: usize,
    time: Column<i64>,
    level: Option<StrColumn>,
    /// By bar, then by the level's number in this segment; the last slot is for no level.
    counts: Vec<Vec<u64>>,
}

impl Collector for Bars<'_> {
    type Fruit = Vec<LogBar>;
    type Child = BarsChild;

    fn for_segment(&self, _: SegmentOrdinal, reader: &SegmentReader) -> tantivy::Result<BarsChild> {
        let fast = reader.fast_fields();
        let level = fast.str("level")?;
        let levels = level.as_ref().map_or(0, |level| level.num_terms());
        let counts = vec![vec![0; levels + 1]; self.count];
        Ok(BarsChild { span: self.span, count: self.count, time: fast.i64("time")?, level, counts })
    }

    fn requires_scoring(&self) -> bool {
        false
    }

    fn merge_fruits(&self, fruits: Vec<Vec<LogBar>>) -> tantivy::Result<Vec<LogBar>> {
        let mut merged = vec![LogBar::new(); self.count];
        for bars in fruits {
            add_bars(&mut merged, bars);
        }
        Ok(merged)
    }

    fn collect_segment(
        &self,
        weight: &dyn Weight,
        segment: SegmentOrdinal,
        reader: &SegmentReader,
    ) -> tantivy::Result<Vec<LogBar>> {
        let child = self.for_segment(segment, reader)?;
        if self.span.misses(&child.time) {
            return Ok(vec![LogBar::new(); self.count]);
        }
        scan(child, weight, reader, self.deadline)
    }
}

/// Adds the counts of `bars` to `sum`, which has as many.
pub(crate) fn add_bars(sum: &mut [LogBar], bars: Vec<LogBar>) {
    for (sum, bar) in sum.iter_mut().zip(bars) {
        for (level, count) in bar {
            *sum.entry(level).or_default() += count;
        }
    }
}

impl SegmentCollector for BarsChild {
    type Fruit = Vec<LogBar>;

    fn collect(&mut self, doc: DocId, _: Score) {
        let Some(time) = self.time.first(doc).filter(|time| self.span.contains(*time)) else {
            return;
        };
        let width = i128::from(self.span.end.0) - i128::from(self.span.start.0);
        let into = i128::from(time) - i128::from(self.span.start.0);
        let bar = (into * self.count as i128 / width) as usize;
        let slots = &mut self.counts[bar];
        let level = self.level.as_ref().and_then(|level| level.ords().first(doc));
        let slot = level.map_or(slots.len() - 1, |level| level as usize);
        slots[slot] += 1;
    }

    fn harvest(self) -> Vec<LogBar> {
        let mut names = Vec::new();
        if let Some(column) = &self.level {
            for number in 0..column.num_terms() as u64 {
                let mut name = String::new();
                // A level that cannot be read counts as none, so that the sum stays exact.
                if !column.ord_to_str(number, &mut name).unwrap_or(false) {
                    name.clear();
                }
                names.push(name);
            }
        }
        names.push(String::new());
        let bar = |counts: Vec<u64>| {
            let mut bar = LogBar::new();
            for (count, name) in counts.into_iter().zip(&names).filter(|(count, _)| *count > 0) {
                *bar.entry(name.clone()).or_default() += count;
            }
            bar
        };
        self.counts.into_iter().map(bar).collect()
    }
}

/// Shows every document that the query finds to `child`, until the deadline.
fn scan<C: SegmentCollector>(
    mut child: C,
    weight: &dyn Weight,
    reader: &SegmentReader,
    deadline: &Deadline,
) -> tantivy::Result<C::Fruit> {
    let mut scorer = weight.scorer(reader, 1.0)?;
    let mut buffer = [0; COLLECT_BLOCK_BUFFER_LEN];
    for block in 0usize.. {
        if block.is_multiple_of(BLOCKS_PER_CHECK) && deadline.is_over() {
            return Err(TantivyError::InternalError(DEADLINE.to_owned()));
        }
        let count = scorer.fill_buffer(&mut buffer);
        buffer[..count].iter().for_each(|doc| child.collect(*doc, 0.0));
        if count < buffer.len() {
            break;
        }
    }
    Ok(child.harvest())
}
