//! The seam for logs.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::{AppendError, Deadline, PodNames, StorageError};
use crate::labels::Labels;
use crate::log::{Field, FileId, LogEntry};
use crate::log_query::LogQuery;
use crate::matcher::Matcher;
use crate::push::LogPush;
use crate::time::LogTime;

/// What became of pushed lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogAppendReport {
    /// Kept and durable.
    pub appended: usize,
    /// Already stored: they lay below the mark of their file.
    pub duplicate: usize,
    /// Bytes of files that were skipped between the mark and the batch's beginning.
    pub gap_bytes: u64,
}

/// Write access to logs.
pub trait LogAppender: Send + Sync {
    /// Appends lines; when it returns, they and their files' marks survive a power loss.
    ///
    /// Lines below the mark of their file are skipped, so that a sender may repeat itself freely.
    /// Blocks for a disk sync: call it from a thread that may wait.
    fn append(&self, push: LogPush, received: LogTime) -> Result<LogAppendReport, AppendError>;

    /// Of each file, the first byte that was not taken; zero for a file that is not known.
    fn marks(&self, files: &[String]) -> Result<Vec<u64>, AppendError>;

    /// For how many bytes of lines there is room now, so that what would be refused need not be decoded.
    ///
    /// Others may take it meanwhile: [`Self::append`] decides.
    fn room(&self) -> Result<usize, AppendError> {
        Ok(usize::MAX)
    }
}

/// Order and position in a search's answer: by time, then by file and offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogCursor {
    /// The entry's time.
    pub time: LogTime,
    /// A number for the entry's file, the same in every answer.
    pub file: u64,
    /// The entry's offset in its file.
    pub offset: u64,
}

/// A question to the log store.
#[derive(Debug, Clone)]
pub struct LogRequest {
    /// Which entries.
    pub query: LogQuery,
    /// From here.
    pub start: LogTime,
    /// To here; the end itself is not in it.
    pub end: LogTime,
}

impl LogRequest {
    /// Whether an entry is asked for.
    pub fn wants(&self, entry: &LogEntry) -> bool {
        self.start <= entry.time && entry.time < self.end && self.query.matches(entry)
    }
}

/// Which entries come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogOrder {
    /// Those with the largest cursor.
    #[default]
    NewestFirst,
    /// Those with the smallest.
    OldestFirst,
}

/// Which part of the entries found is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PageRequest {
    /// So many at most.
    pub limit: usize,
    /// Behind this one, in the order.
    pub cursor: Option<LogCursor>,
    /// Which come first.
    pub order: LogOrder,
    /// Whether all of them are counted, which may need more work than finding the first ones.
    pub counts: bool,
}

/// Entries found.
#[derive(Debug, Clone, Default)]
pub struct LogPage {
    /// In the order that was asked for.
    pub entries: Vec<(LogCursor, LogEntry)>,
    /// How many entries satisfy the request, whatever the cursor; if that was asked for.
    pub total: Option<u64>,
    /// Whether there are more behind the last one.
    pub more: bool,
    /// A sentence for each piece of storage that could not be read.
    pub warnings: Vec<String>,
}

/// A histogram's bar: a count per level. Entries without a level count under `""`.
pub type LogBar = BTreeMap<String, u64>;

/// Equal spans of time, one behind the other; the end of each is not in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogSlices {
    /// Where the first one begins.
    pub start: LogTime,
    /// How long each is, in nanoseconds; more than zero.
    pub width_ns: u64,
    /// How many there are.
    pub count: usize,
}

impl LogSlices {
    /// The slice in which `time` lies.
    pub fn index(&self, time: LogTime) -> Option<usize> {
        let into = u64::try_from(time.0.checked_sub(self.start.0)?).ok()?;
        usize::try_from(into / self.width_ns).ok().filter(|slice| *slice < self.count)
    }

    /// Where the last one ends.
    pub fn end(&self) -> LogTime {
        let span = i128::from(self.width_ns) * self.count as i128;
        LogTime(i64::try_from(i128::from(self.start.0) + span).unwrap_or(i64::MAX))
    }
}

/// By what entries are grouped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogKey {
    /// What [`LogEntry::label`] says.
    Label(String),
    /// The first value of a field, as text; of a label, as it is written.
    Field(Field),
    /// All labels of the stream, in the form of [`crate::labels::Labels`]'s `Display`, with `level` if there is one.
    Stream,
    /// The same of an entry whose stream has what is known of its pod.
    Known(Box<LogKey>, PodNames),
}

/// What is added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogMeasure {
    /// Entries.
    Entries,
    /// Bytes of messages.
    Bytes,
}

/// How entries found are counted. Those outside of the slices are left out.
#[derive(Debug, Clone)]
pub struct LogAggregate {
    /// One group for each combination of values; what is absent is `""`.
    pub by: Vec<LogKey>,
    /// One sum for each.
    pub slices: LogSlices,
    /// Of what.
    pub measure: LogMeasure,
    /// What becomes of groups for which there is no room.
    pub full: LogFull,
}

/// What becomes of groups for which there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFull {
    /// The answer is [`StorageError::TooMuch`].
    Refuse,
    /// The smaller half of them is dropped as often as needed. What is left has sums that may be too small, never too
    /// large; the group without any value is always right.
    DropSmall,
}

/// Sums of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogGroup {
    /// A value for each key.
    pub key: Vec<String>,
    /// A sum for each slice.
    pub sums: Vec<u64>,
}

/// What is in no group, because there was no room for all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogDropped {
    /// The sum of all of it.
    pub sum: u64,
    /// So many groups there are at least, with those that were dropped.
    pub groups: usize,
}

/// Sums of all groups.
#[derive(Debug, Clone, Default)]
pub struct LogGroups {
    /// Ascending by key.
    pub groups: Vec<LogGroup>,
    /// If some were dropped: what is in no group.
    pub dropped: Option<LogDropped>,
    /// A sentence for each piece of storage that could not be read.
    pub warnings: Vec<String>,
}

/// A field of the entries found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogField {
    /// Its dotted path.
    pub name: String,
    /// How many entries have it.
    pub entries: u64,
    /// Which kinds of values were seen: text, numbers, true or false.
    pub text: bool,
    /// Numbers.
    pub number: bool,
    /// True or false.
    pub bool: bool,
}

/// The fields of the entries found.
#[derive(Debug, Clone, Default)]
pub struct LogFields {
    /// Ascending by name.
    pub fields: Vec<LogField>,
    /// How many entries were looked at: the newest ones, if not all.
    pub entries: u64,
    /// A sentence for each piece of storage that could not be read.
    pub warnings: Vec<String>,
}

/// Entries that say the same with other values in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPattern {
    /// The constant text; `<_>` stands for a value.
    pub pattern: String,
    /// The level of its entries, if they have one.
    pub level: String,
    /// How many there are.
    pub total: u64,
    /// How many of them in each slice.
    pub counts: Vec<u64>,
    /// One of the messages.
    pub example: String,
    /// When the first of them that is stored was written, within the request or before it.
    pub first_seen: LogTime,
}

/// The patterns of the entries found.
#[derive(Debug, Clone, Default)]
pub struct LogPatterns {
    /// Most frequent first.
    pub patterns: Vec<LogPattern>,
    /// A sentence for each piece of storage that could not be read.
    pub warnings: Vec<String>,
}

/// Which patterns are known.
#[derive(Debug, Clone, Default)]
pub struct KnownPatterns {
    /// For each pattern that was asked for.
    pub known: Vec<bool>,
    /// A sentence for each piece of storage that could not be read.
    pub warnings: Vec<String>,
}

/// A stream that has entries in a span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogStream {
    /// What names it.
    pub labels: Labels,
    /// How many entries it has there; an estimate where the span cuts a page.
    pub entries: u64,
    /// Bytes of their messages.
    pub bytes: u64,
}

/// Streams found.
#[derive(Debug, Clone, Default)]
pub struct LogStreams {
    /// Ascending by labels.
    pub streams: Vec<LogStream>,
    /// A sentence for each piece of storage that could not be read.
    pub warnings: Vec<String>,
}

/// The neighbours of an entry in its file.
#[derive(Debug, Clone, Default)]
pub struct LogContext {
    /// Those before it, ascending by offset.
    pub before: Vec<(LogCursor, LogEntry)>,
    /// It and those behind it, ascending by offset.
    pub after: Vec<(LogCursor, LogEntry)>,
    /// A sentence for each piece of storage that could not be read.
    pub warnings: Vec<String>,
}

/// Told of each entry that a scan finds; says whether to go on.
pub type LogVisit<'a> = &'a mut dyn FnMut(LogCursor, LogEntry) -> ControlFlow<()>;

/// Read access to logs.
pub trait LogSearcher: Send + Sync {
    /// The first entries behind the cursor, and the exact number of all if that is asked for.
    fn search(
        &self,
        request: &LogRequest,
        page: PageRequest,
        deadline: &Deadline,
    ) -> Result<LogPage, StorageError>;

    /// Visits all entries in order, with bounded memory. Answers a sentence for each piece of storage that could not
    /// be read.
    fn scan(
        &self,
        request: &LogRequest,
        order: LogOrder,
        deadline: &Deadline,
        visit: LogVisit<'_>,
    ) -> Result<Vec<String>, StorageError>;

    /// Sums of all matches.
    fn aggregate(
        &self,
        request: &LogRequest,
        aggregate: &LogAggregate,
        deadline: &Deadline,
    ) -> Result<LogGroups, StorageError>;

    /// The fields of the matches, or of the newest of them.
    fn fields(&self, request: &LogRequest, deadline: &Deadline) -> Result<LogFields, StorageError>;

    /// What the matches have in common.
    fn patterns(
        &self,
        request: &LogRequest,
        slices: LogSlices,
        deadline: &Deadline,
    ) -> Result<LogPatterns, StorageError>;

    /// Whether anything that is stored had these patterns before a moment, which is taken to the minute.
    fn known_patterns(
        &self,
        patterns: &[LogPattern],
        before: LogTime,
        deadline: &Deadline,
    ) -> Result<KnownPatterns, StorageError>;

    /// The streams that satisfy every matcher and have entries from `start` until before `end`.
    fn streams(
        &self,
        matchers: &[Matcher],
        start: LogTime,
        end: LogTime,
        deadline: &Deadline,
    ) -> Result<LogStreams, StorageError>;

    /// The entries around an offset of a file, by their place in it.
    fn context(
        &self,
        file: &FileId,
        offset: u64,
        before: usize,
        after: usize,
        deadline: &Deadline,
    ) -> Result<LogContext, StorageError>;
}

/// Hears of every entry once it is durable, in the order of the store's log.
pub trait LogSubscriber: Send + Sync {
    /// Called from the store's own thread: must not block. Answers whether to go on.
    fn entries(&self, entries: &[Arc<LogEntry>]) -> bool;
}

/// The live side of a log store.
pub trait LogFeed: Send + Sync {
    /// Adds a subscriber, which hears of entries from now on.
    fn subscribe(&self, subscriber: Box<dyn LogSubscriber>);
}

/// Where a partition of logs is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogPartitionState {
    /// Here, and it may take more lines.
    Open,
    /// Here, and it takes no more.
    Closed,
    /// In the store's archive; here is its index at the most.
    Archived,
    /// In an archive of another store.
    Attached,
}

/// A partition of logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPartition {
    /// Its day since 1970, its number and its class.
    pub name: String,
    /// Of retention; empty for that of all lines in no other.
    pub class: String,
    /// Where it is.
    pub state: LogPartitionState,
    /// The address of the archive that it is in.
    pub archive: Option<String>,
    /// The store that wrote it, if it is in an archive.
    pub store: Option<String>,
    /// Sealed pages.
    pub pages: u64,
    /// Lines in them.
    pub entries: u64,
    /// Of their messages.
    pub bytes: u64,
    /// On the disk or in the archive, without the index.
    pub stored_bytes: u64,
    /// The first and the last moment of its lines, if it has any.
    pub span: Option<(LogTime, LogTime)>,
}

/// How a deletion is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogDeletionState {
    /// It is not finished.
    Running,
    /// What it was to remove is gone.
    Done,
    /// Somebody ended it; what it had removed by then is gone.
    Cancelled,
    /// It cannot be done.
    Failed,
}

/// A deletion of the entries that a query finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogDeletion {
    /// Names it.
    pub id: u64,
    /// In Lucene's syntax.
    pub query: String,
    /// The first moment.
    pub start: LogTime,
    /// The moment behind the last.
    pub end: LogTime,
    /// When it was asked for; what `now` means in the query.
    pub through: LogTime,
    /// The last record of the log that is meant. What came later is not.
    pub sequence: u64,
    /// How it is.
    pub state: LogDeletionState,
    /// Pages that may have some.
    pub pages: u64,
    /// Of these, pages that have none any more.
    pub pages_done: u64,
    /// Entries that are gone.
    pub removed: u64,
    /// What could not be reached, or why it failed.
    pub trouble: Option<String>,
}

/// What an operator sees of stored logs, and may do to them.
pub trait LogKeeper: Send + Sync {
    /// All partitions that searches see; and a sentence for each archive of which not all is known.
    fn partitions(&self) -> (Vec<LogPartition>, Vec<String>);

    /// Has entries deleted that are there by now. When this returns, the deletion outlives restarts.
    fn delete(&self, query: &str, request: &LogRequest) -> Result<LogDeletion, StorageError>;

    /// Deletions, the newest first.
    fn deletions(&self) -> Vec<LogDeletion>;

    /// Ends a deletion, if there is one of this number.
    fn cancel(&self, id: u64) -> Result<Option<LogDeletion>, StorageError>;
}
