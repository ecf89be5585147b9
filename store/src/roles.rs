//! What a store is for others: the traits of [`binnacle_model::storage`].

use std::collections::BTreeMap;
use std::sync::Arc;

use binnacle_model::log::FileId;
use binnacle_model::push::LogPush;
use binnacle_model::storage::{
    Admin, AppendError, AppendReport, AppendedSoon, Appender, Deadline, KnownPatterns, LabelSets,
    LogAggregate, LogAppendReport, LogAppender, LogContext, LogDeletion, LogFeed, LogFields, LogGroups,
    LogKeeper, LogOrder, LogPage, LogPartition, LogPattern, LogPatterns, LogRequest, LogSearcher, LogSlices,
    LogStreams, LogSubscriber, LogVisit, Metadata, MetricFeed, MetricFollower, Names, PageRequest,
    PodCatalog, PodGroup, PodMetadata, PodSink, Queried, QueriedBefore, QueryLog, Queryable, RawExemplar,
    RawSeries, SeriesDecoder, SeriesExemplars, SeriesSet, StorageError, StoredBlock, Wanted,
};
use binnacle_model::{Labels, LogTime, Matcher, TimeRange, Timestamp};

use crate::Store;
use crate::logs::Day;

impl Admin for Store {
    /// Copies into `snapshots/NAME` under the data directory, as blocks: a store opened there has the same
    /// samples.
    fn snapshot(&self, skip_head: bool) -> std::io::Result<String> {
        // Nanoseconds: no two have the same name.
        let name = format!("{}", self.clock.now_ns().0);
        let dir = self.dir.join("snapshots").join(&name);
        self.metrics.snapshot(&dir.join("metrics"), skip_head).inspect_err(|_| {
            // Half of a copy helps nobody, and takes room.
            if let Err(error) = self.disk.remove_dir_all(&dir) {
                tracing::error!(path = %dir.display(), %error, "half of a snapshot is left");
            }
        })?;
        Ok(name)
    }

    fn delete(&self, matchers: &[Vec<Matcher>], range: TimeRange) -> std::io::Result<()> {
        self.metrics.delete(matchers, range)
    }
}

impl Appender for Store {
    fn append(
        &self,
        batch: &[RawSeries<'_>],
        decoder: &dyn SeriesDecoder,
    ) -> Result<AppendReport, AppendError> {
        self.metrics.append(batch, decoder, self.clock.now())
    }

    fn may_append_soon(&self) -> bool {
        self.metrics.is_free()
    }

    fn append_soon(&self, batch: &[RawSeries<'_>], decoder: &dyn SeriesDecoder) -> Option<AppendedSoon> {
        self.metrics.append_soon(batch, decoder, self.clock.now())
    }

    fn append_exemplars(&self, exemplars: &[RawExemplar<'_>], decoder: &dyn SeriesDecoder) -> usize {
        self.metrics.append_exemplars(exemplars, decoder, self.clock.now())
    }

    fn append_metadata(&self, metadata: &[(String, Metadata)]) {
        if let Err(error) = self.catalog.add_metadata(metadata) {
            tracing::warn!(%error, "metadata of metrics was not saved");
        }
    }
}

impl PodSink for Store {
    fn save_pods(&self, pods: &[PodMetadata]) -> Result<(), AppendError> {
        pods.iter().try_for_each(PodMetadata::check).map_err(AppendError::Invalid)?;
        let saved = self.catalog.save_pods(pods, self.clock.now_ns());
        saved.map_err(|error| AppendError::Unavailable(error.to_string()))
    }
}

impl PodCatalog for Store {
    fn generation(&self) -> u64 {
        self.catalog.pods_generation()
    }

    fn pod(&self, uid: &str) -> Option<Labels> {
        self.catalog.pod(uid)
    }

    fn pods_between(&self, start: LogTime, end: LogTime) -> Vec<PodGroup> {
        let is_noted = |day: Day| self.catalog.has_noted(day.0);
        // What others took in, and what came before there were notes, may be of any pod.
        let is_whole = !self.logs.has_attached() && self.logs.oldest_partition().is_none_or(is_noted);
        self.catalog.pods_between(is_whole.then_some((start, end)))
    }
}

impl QueryLog for Store {
    fn queried(&self, since: Timestamp, now: Timestamp) -> Result<QueriedBefore, StorageError> {
        self.catalog.queried(since, now).map_err(|error| StorageError::Broken(error.to_string()))
    }

    fn save_queried(&self, metrics: &[Queried]) -> Result<(), StorageError> {
        self.catalog.save_queried(metrics).map_err(|error| StorageError::Broken(error.to_string()))
    }
}

impl Queryable for Store {
    fn select(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        deadline: &Deadline,
    ) -> Result<SeriesSet<'_>, StorageError> {
        let set = self.metrics.select(matchers, range, deadline)?;
        Ok(set)
    }

    fn select_parts(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        wanted: Wanted,
        deadline: &Deadline,
        parts: usize,
    ) -> Result<Vec<SeriesSet<'_>>, StorageError> {
        let parts = self.metrics.select_parts(matchers, range, wanted, deadline, parts)?;
        Ok(parts.into_iter().map(|part| part as SeriesSet<'_>).collect())
    }

    fn series(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        deadline: &Deadline,
    ) -> Result<LabelSets, StorageError> {
        self.metrics.series(matchers, range, deadline)
    }

    fn label_names(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        deadline: &Deadline,
    ) -> Result<Names, StorageError> {
        self.metrics.label_names(matchers, range, deadline)
    }

    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        range: TimeRange,
        deadline: &Deadline,
    ) -> Result<Names, StorageError> {
        self.metrics.label_values(name, matchers, range, deadline)
    }

    fn exemplars(&self, matchers: &[Vec<Matcher>], range: TimeRange) -> Vec<SeriesExemplars> {
        self.metrics.exemplars(matchers, range)
    }

    fn metadata(&self) -> BTreeMap<String, Vec<Metadata>> {
        self.catalog.metadata()
    }

    fn rolled_until(&self) -> Option<Timestamp> {
        self.metrics.rolled_until()
    }

    fn blocks(&self) -> Result<Vec<StoredBlock>, StorageError> {
        self.metrics.stored_blocks()
    }
}

impl MetricFeed for Store {
    /// Its position is `remote_write/KEY.position` in the data directory.
    fn follow(&self, key: &str) -> std::io::Result<Box<dyn MetricFollower>> {
        let path = self.dir.join("remote_write").join(format!("{key}.position"));
        let following =
            crate::metrics::Following::open(Arc::clone(&self.disk), &path, Arc::clone(&self.wal))?;
        Ok(Box::new(following))
    }
}

impl LogAppender for Store {
    fn append(&self, push: LogPush, received: LogTime) -> Result<LogAppendReport, AppendError> {
        self.catalog.note_lines(&push, received);
        self.logs.append(push, received)
    }

    fn marks(&self, files: &[String]) -> Result<Vec<u64>, AppendError> {
        self.logs.marks(files)
    }

    fn room(&self) -> Result<usize, AppendError> {
        self.logs.room()
    }
}

impl LogSearcher for Store {
    fn search(
        &self,
        request: &LogRequest,
        page: PageRequest,
        deadline: &Deadline,
    ) -> Result<LogPage, StorageError> {
        self.logs.search(request, page, deadline)
    }

    fn scan(
        &self,
        request: &LogRequest,
        order: LogOrder,
        deadline: &Deadline,
        visit: LogVisit<'_>,
    ) -> Result<Vec<String>, StorageError> {
        self.logs.scan(request, order, deadline, visit)
    }

    fn aggregate(
        &self,
        request: &LogRequest,
        aggregate: &LogAggregate,
        deadline: &Deadline,
    ) -> Result<LogGroups, StorageError> {
        self.logs.aggregate(request, aggregate, deadline)
    }

    fn fields(&self, request: &LogRequest, deadline: &Deadline) -> Result<LogFields, StorageError> {
        self.logs.fields(request, deadline)
    }

    fn patterns(
        &self,
        request: &LogRequest,
        slices: LogSlices,
        deadline: &Deadline,
    ) -> Result<LogPatterns, StorageError> {
        self.logs.patterns(request, slices, deadline)
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
        self.logs.streams(matchers, start, end, deadline)
    }

    fn context(
        &self,
        file: &FileId,
        offset: u64,
        before: usize,
        after: usize,
        deadline: &Deadline,
    ) -> Result<LogContext, StorageError> {
        self.logs.context(file, offset, before, after, deadline)
    }
}

impl LogKeeper for Store {
    fn partitions(&self) -> (Vec<LogPartition>, Vec<String>) {
        self.logs.listed()
    }

    fn delete(&self, query: &str, request: &LogRequest) -> Result<LogDeletion, StorageError> {
        self.logs.delete(query, request, &self.catalog, self.clock.now_ns())
    }

    fn deletions(&self) -> Vec<LogDeletion> {
        self.logs.deletions()
    }

    fn cancel(&self, id: u64) -> Result<Option<LogDeletion>, StorageError> {
        self.logs.cancel_deletion(id, &self.catalog)
    }
}

impl LogFeed for Store {
    fn subscribe(&self, subscriber: Box<dyn LogSubscriber>) {
        self.logs.subscribe(subscriber);
    }
}
