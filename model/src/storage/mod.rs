//! The seam: all that one part of the program knows of another part's storage.
//!
//! `store` implements these over its disk; `collector` implements the two appenders over HTTP, so
//! that the same tailer feeds a store in its process or one across the network.

mod logs;
mod naive;
mod pods;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

pub use crate::deadline::{Deadline, Holding, Room};
use crate::histogram::Histogram;
use crate::labels::{Labels, LabelsError};
use crate::matcher::Matcher;
use crate::sample::Sample;
use crate::samples::Samples;
use crate::time::{TimeRange, Timestamp};

pub use logs::{
    KnownPatterns, LogAggregate, LogAppendReport, LogAppender, LogBar, LogContext, LogCursor, LogDeletion,
    LogDeletionState, LogDropped, LogFeed, LogField, LogFields, LogFull, LogGroup, LogGroups, LogKeeper,
    LogKey, LogMeasure, LogOrder, LogPage, LogPartition, LogPartitionState, LogPattern, LogPatterns,
    LogRequest, LogSearcher, LogSlices, LogStream, LogStreams, LogSubscriber, LogVisit, PageRequest,
};
pub use naive::NaiveLogs;
pub use pods::{
    POD_FIELDS, POD_LABEL_PREFIX, POD_UID, PodCatalog, PodGroup, PodMetadata, PodNames, PodSink, extended,
    is_pod_name, is_pod_uid, pod_label,
};

/// Why storage did not answer.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The query's time is over. Narrow the query.
    #[error("query timed out in expression evaluation")]
    Deadline,
    /// The query would need more memory than one query may. Narrow the query.
    #[error("query processing would load too many samples into memory in query execution")]
    TooMuch,
    /// Queries hold all the memory that they may have together. Ask again in a moment.
    #[error("queries that run now hold all the memory there is for them; try again in a moment")]
    Crowded,
    /// Stored bytes could not be read; what is known is in the text.
    #[error("{0}")]
    Broken(String),
    /// Some stored bytes could not be read, which the text names; the rest of the set follows. Go on, and
    /// say so beside the answer.
    #[error("{0}")]
    Missing(String),
}

/// Why an append was not taken. Nothing of the batch was kept, unless said otherwise.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// A queue is full. Send the same batch again after a while.
    #[error("{what} is full")]
    Full {
        /// Which queue.
        what: &'static str,
        /// How long to wait.
        retry_after: Duration,
    },
    /// The batch itself is wrong and will be refused again.
    #[error("{0}")]
    Invalid(String),
    /// The disk failed; the store takes nothing until it is reopened. Send again later.
    #[error("store takes no writes: {0}")]
    Unavailable(String),
    /// The store has a part of what was read of a file: somebody else sent it meanwhile. Ask for its mark and read on there.
    #[error("{0}")]
    Overtaken(String),
}

/// One series of a batch, as its sender wrote it.
#[derive(Debug, Clone, Copy)]
pub struct RawSeries<'a> {
    /// The bytes that name the series in the sender's own format. The store hashes them, and asks the
    /// batch's [`SeriesDecoder`] what they mean only when it sees them for the first time.
    pub labels: &'a [u8],
    /// In any order.
    pub samples: &'a [Sample],
    /// In any order. The store trusts that they were validated.
    pub histograms: &'a [HistogramSample],
}

/// A histogram at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct HistogramSample {
    /// When it was measured.
    pub timestamp: Timestamp,
    /// What was measured.
    pub histogram: Arc<Histogram>,
}

/// Characters of an exemplar's labels, names and values together, as OpenMetrics has it.
pub const EXEMPLAR_LABELS_MAX: usize = 128;

/// One measurement out of many, with labels that lead to its trace.
#[derive(Debug, Clone, PartialEq)]
pub struct Exemplar {
    /// `trace_id` and whatever else tells more.
    pub labels: Labels,
    /// What was measured.
    pub value: f64,
    /// When.
    pub timestamp: Timestamp,
}

/// An exemplar of a series, which is named as in [`RawSeries`].
#[derive(Debug, Clone)]
pub struct RawExemplar<'a> {
    /// The bytes that name the series.
    pub series: &'a [u8],
    /// What stands for it.
    pub exemplar: Exemplar,
}

/// The exemplars of a series, ascending by time.
pub type SeriesExemplars = (Labels, Vec<Exemplar>);

/// Knows what a sender's label bytes mean.
pub trait SeriesDecoder {
    /// Separates senders for which equal bytes mean different series, such as two scrape targets.
    fn salt(&self) -> u64;

    /// The labels that `raw` names.
    fn decode(&self, raw: &[u8]) -> Result<Labels, LabelsError>;
}

/// What became of a batch's samples.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AppendReport {
    /// Kept, durable and visible to queries.
    pub appended: usize,
    /// The same value was there already.
    pub duplicate: usize,
    /// Another value was there already for the same moment; the first one stays.
    pub conflicting: usize,
    /// Older than the retention.
    pub too_old: usize,
    /// More than ten minutes ahead of the store's clock.
    pub too_far_ahead: usize,
    /// Of series with labels that cannot be used.
    pub invalid: usize,
    /// Why the first of these labels cannot.
    pub invalid_reason: Option<Arc<str>>,
    /// Of new series of which there are as many as there may be.
    pub limited: usize,
    /// Which limit refused the first of these.
    pub limited_reason: Option<Arc<str>>,
    /// How many of `appended` and `duplicate` are native histograms.
    pub histograms: usize,
    /// Series that were not known before.
    pub new_series: usize,
}

impl AppendReport {
    /// Counts what another append did, too.
    pub fn add(&mut self, other: &Self) {
        self.appended += other.appended;
        self.duplicate += other.duplicate;
        self.conflicting += other.conflicting;
        self.too_old += other.too_old;
        self.too_far_ahead += other.too_far_ahead;
        self.invalid += other.invalid;
        self.limited += other.limited;
        self.histograms += other.histograms;
        self.new_series += other.new_series;
        if self.invalid_reason.is_none() {
            self.invalid_reason.clone_from(&other.invalid_reason);
        }
        if self.limited_reason.is_none() {
            self.limited_reason.clone_from(&other.limited_reason);
        }
    }

    /// Samples that were refused and that sending again will not help.
    pub fn refused(&self) -> usize {
        self.conflicting + self.too_old + self.too_far_ahead + self.invalid + self.limited
    }

    /// What to tell the sender of what was refused, if anything was.
    pub fn refusal(&self) -> Option<String> {
        let invalid = self.invalid_reason.as_ref().map_or_else(String::new, |reason| {
            format!(", {} of series with labels that cannot be used ({reason})", self.invalid)
        });
        let limited = self
            .limited_reason
            .as_ref()
            .map_or_else(String::new, |reason| format!(", {} of new series {reason}", self.limited));
        (self.refused() > 0).then(|| {
            format!(
                "{} samples refused: {} too old, {} too far ahead, {} with another value for a moment that has one{invalid}{limited}; {} kept",
                self.refused(),
                self.too_old,
                self.too_far_ahead,
                self.conflicting,
                self.appended,
            )
        })
    }
}

/// Write access to metrics.
pub trait Appender: Send + Sync {
    /// Appends a batch as a whole; when it returns, the samples survive a power loss and are visible.
    ///
    /// Blocks for a disk sync: call it from a thread that may wait.
    fn append(
        &self,
        batch: &[RawSeries<'_>],
        decoder: &dyn SeriesDecoder,
    ) -> Result<AppendReport, AppendError>;

    /// Whether [`Self::append_soon`] would most likely take a batch.
    fn may_append_soon(&self) -> bool {
        false
    }

    /// As [`Self::append`], without waiting: acknowledge nothing before [`Unsynced`] says so. `None` where this thread
    /// might have to wait; then nothing was taken.
    fn append_soon(&self, _batch: &[RawSeries<'_>], _decoder: &dyn SeriesDecoder) -> Option<AppendedSoon> {
        None
    }

    /// Remembers exemplars for a while, in memory; answers how many were kept. Those that are older than another
    /// of their series, or have labels of more than 128 characters, are not.
    fn append_exemplars(&self, _exemplars: &[RawExemplar<'_>], _decoder: &dyn SeriesDecoder) -> usize {
        0
    }

    /// Remembers what a metric is. Best effort: a crash may lose the newest.
    fn append_metadata(&self, metadata: &[(String, Metadata)]);
}

/// What [`Appender::append_soon`] took.
pub type AppendedSoon = Result<(AppendReport, Arc<dyn Unsynced>), AppendError>;

/// Samples that were taken, and do not survive a power loss yet.
pub trait Unsynced: Send + Sync {
    /// Ready once they do, or cannot for now. Until then it may ask for a thread that writes, by the second answer: one
    /// that is told so calls [`Self::write`], on a thread that may wait, and nobody else does meanwhile.
    fn poll(&self, context: &mut Context<'_>) -> (Poll<Result<(), AppendError>>, bool);

    /// Writes until nobody waits any more.
    fn write(&self);
}

/// What a metric is, by its own account.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, serde::Serialize)]
pub struct Metadata {
    /// `counter gauge histogram summary unknown …`
    #[serde(rename = "type")]
    pub kind: String,
    /// A sentence.
    pub help: String,
    /// Base unit, or empty.
    pub unit: String,
}

/// A series with its samples.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Series {
    /// What names it.
    pub labels: Labels,
    /// Staleness markers are among them.
    pub samples: Samples,
    /// Ascending by time, with a hint at each whether its counter began again since the one before.
    pub histograms: Vec<HistogramSample>,
}

/// Which samples of a range a query will look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Any of them.
    All,
    /// Of each series the newest one.
    Newest,
    /// Any of them; where there are rollups alone, this of each. With [`Rollup::Count`] every sample is a one, so that
    /// their sum is how many there are.
    Rolled(Rollup),
}

/// What is left of the samples of [`ROLLUP`], at the time of the last of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rollup {
    /// The last one.
    Last,
    /// The smallest.
    Min,
    /// The largest.
    Max,
    /// All of them together.
    Sum,
    /// How many there were.
    Count,
}

/// Of this time a rollup has one place.
pub const ROLLUP: Duration = Duration::from_hours(1);

/// Label sets, and what is missing from them.
#[derive(Debug, Clone, Default)]
pub struct LabelSets {
    /// Ascending, each once.
    pub labels: Vec<Labels>,
    /// A sentence for each piece of storage that could not be read.
    pub warnings: Vec<String>,
}

/// Names or values of labels, and what is missing from them.
#[derive(Debug, Clone, Default)]
pub struct Names {
    /// Each once.
    pub names: BTreeSet<Arc<str>>,
    /// A sentence for each piece of storage that could not be read.
    pub warnings: Vec<String>,
}

/// One series at a time: a query holds its widest series in memory, not all of them.
pub type SeriesSet<'a> = Box<dyn Iterator<Item = Result<Series, StorageError>> + Send + 'a>;

/// Read access to metrics. All that `query` knows of `store`.
pub trait Queryable: Send + Sync {
    /// The series that satisfy every matcher, ordered by labels, cut to `range`.
    ///
    /// `range` is inclusive at both ends. Past `deadline` the set yields
    /// [`StorageError::Deadline`] once, then ends; [`StorageError::Missing`] stands for what cannot be read,
    /// and the set goes on behind it. A series without a sample in the range is left out.
    fn select(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        deadline: &Deadline,
    ) -> Result<SeriesSet<'_>, StorageError>;

    /// As [`Self::select`], but in no particular order, in at most `parts` sets that several threads may
    /// read at once, and perhaps without samples that are not `wanted`.
    fn select_parts(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        _wanted: Wanted,
        deadline: &Deadline,
        _parts: usize,
    ) -> Result<Vec<SeriesSet<'_>>, StorageError> {
        Ok(vec![self.select(matchers, range, deadline)?])
    }

    /// Label sets of the series that satisfy every matcher and may have samples in the range.
    fn series(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        deadline: &Deadline,
    ) -> Result<LabelSets, StorageError>;

    /// Names of the labels of such series, ascending.
    fn label_names(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        deadline: &Deadline,
    ) -> Result<Names, StorageError> {
        let LabelSets { labels, warnings } = self.series(matchers, range, deadline)?;
        let names = labels.iter().flat_map(|labels| labels.iter().map(|label| Arc::clone(&label.name)));
        Ok(Names { names: names.collect(), warnings })
    }

    /// Values of one label of such series, ascending.
    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        range: TimeRange,
        deadline: &Deadline,
    ) -> Result<Names, StorageError> {
        let LabelSets { labels, warnings } = self.series(matchers, range, deadline)?;
        let value = |labels: &Labels| {
            labels.iter().find(|label| *label.name == *name).map(|one| Arc::clone(&one.value))
        };
        Ok(Names { names: labels.iter().filter_map(value).collect(), warnings })
    }

    /// Exemplars of series that satisfy every matcher of one of the lists, ordered by labels.
    fn exemplars(&self, _matchers: &[Vec<Matcher>], _range: TimeRange) -> Vec<SeriesExemplars> {
        Vec::new()
    }

    /// What metrics are, by name. A metric may have been described in more than one way.
    fn metadata(&self) -> BTreeMap<String, Vec<Metadata>>;

    /// The newest moment of which only rollups are left, if there are any.
    fn rolled_until(&self) -> Option<Timestamp> {
        None
    }

    /// The immutable blocks, in no order; none where storage has no blocks.
    fn blocks(&self) -> Result<Vec<StoredBlock>, StorageError> {
        Ok(Vec::new())
    }
}

/// A block of samples, for whoever looks after the storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredBlock {
    /// Ascends with each block that is written.
    pub number: u64,
    /// From its first sample to its last.
    pub range: TimeRange,
    /// How many series it has.
    pub series: u64,
    /// How many samples it has.
    pub samples: u64,
    /// Of its file.
    pub bytes: u64,
    /// The blocks of which it was made, if it is not the head's.
    pub sources: Vec<u64>,
}

/// A place in a store's log of metrics; means something to that store alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FeedPosition {
    /// A file.
    pub file: u64,
    /// A record, and with it all before it.
    pub sequence: u64,
}

/// What a series had at a moment.
#[derive(Debug, Clone, PartialEq)]
pub enum FeedValue {
    /// A number.
    Float(Sample),
    /// A native histogram.
    Histogram(HistogramSample),
    /// What stands for a number. The log of a store has none.
    Exemplar(Box<Exemplar>),
}

/// Samples in the order in which they were stored.
#[derive(Debug, Clone, Default)]
pub struct FeedBatch {
    /// Whether the numbers of all series that were told before are void.
    pub forgets: bool,
    /// Series that are new to the follower, by number. They come before the samples.
    pub series: Vec<(u64, Labels)>,
    /// By the number of their series. One that nobody named lost its name to damage.
    pub samples: Vec<(u64, FeedValue)>,
    /// Behind the last of the samples.
    pub position: FeedPosition,
    /// Records of the log that are gone, or damaged: what was in them is not known.
    pub lost_records: u64,
    /// Whether nothing more was durable.
    pub is_end: bool,
}

/// The live side of a store of metrics, for whoever sends them on.
pub trait MetricFeed: Send + Sync {
    /// A follower that goes on where an earlier one of the same key was acknowledged, also by another process. One with
    /// a new key begins with what is appended from now on. Start it before the store is maintained.
    ///
    /// # Errors
    /// Its position cannot be read or saved.
    fn follow(&self, key: &str) -> std::io::Result<Box<dyn MetricFollower>>;
}

/// Reads a store's samples once they are durable.
pub trait MetricFollower: Send {
    /// Waits a while for samples; answers some of them, perhaps none. Blocks.
    ///
    /// # Errors
    /// The disk refused. Nothing is skipped; try again.
    fn next(&mut self, wait: Duration) -> std::io::Result<FeedBatch>;

    /// All up to here need not be answered again, also not after a restart. Durable when it returns.
    fn acknowledge(&mut self, position: FeedPosition) -> std::io::Result<()>;
}

/// A metric that somebody asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queried {
    /// Its name, or a pattern that names of metrics match.
    pub name: String,
    /// Which of the two.
    pub is_pattern: bool,
    /// When last.
    pub at: Timestamp,
}

/// What was asked for before this process began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueriedBefore {
    /// Since when this is known.
    pub since: Timestamp,
    /// Each once.
    pub metrics: Vec<Queried>,
}

/// Remembers beyond the process which metrics anybody asks for.
pub trait QueryLog: Send + Sync {
    /// What was asked for at `since` or later; what is older may be forgotten.
    fn queried(&self, since: Timestamp, now: Timestamp) -> Result<QueriedBefore, StorageError>;

    /// Writes down what was asked for.
    fn save_queried(&self, metrics: &[Queried]) -> Result<(), StorageError>;
}

/// What an operator may do to stored metrics.
pub trait Admin: Send + Sync {
    /// Copies all metrics, those in memory only if not `skip_head`, and answers the copy's name.
    fn snapshot(&self, skip_head: bool) -> std::io::Result<String>;

    /// Deletes the samples in `range` of series that satisfy every matcher of one of the lists. Writes the blocks anew
    /// that have any, and takes as long as that takes; when it returns, they are gone from the disk, too.
    fn delete(&self, matchers: &[Vec<Matcher>], range: TimeRange) -> std::io::Result<()>;
}

/// A range that covers all time.
pub const ALL_TIME: TimeRange = TimeRange { start: Timestamp(i64::MIN), end: Timestamp(i64::MAX) };
