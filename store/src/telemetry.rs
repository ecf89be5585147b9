//! What the store says of itself.

use binnacle_model::storage::{AppendReport, LogAppendReport};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Why samples were not kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reason {
    reason: &'static str,
}

/// The store's metrics. Clones share their values.
#[derive(Debug, Clone, Default)]
pub struct Telemetry {
    /// Samples kept.
    pub samples_appended: Counter,
    /// Samples that were not kept, by reason.
    pub samples_refused: Family<Reason, Counter>,
    /// Series in memory.
    pub head_series: Gauge,
    /// Blocks on disk.
    pub blocks: Gauge,
    /// Damaged blocks moved out of the way.
    pub blocks_set_aside: Counter,
    /// Log lines kept.
    pub lines_appended: Counter,
    /// Log lines that were there already.
    pub lines_duplicate: Counter,
    /// Bytes of log files that no batch covered.
    pub lines_gap_bytes: Counter,
    /// Log lines waiting for a page.
    pub lines_queued: Gauge,
    /// Pages of logs sealed.
    pub log_commits: Counter,
    /// Damaged pages of logs moved out of the way.
    pub log_pages_set_aside: Counter,
    /// Partitions of logs.
    pub partitions: Gauge,
    /// Partitions of logs brought into the archive.
    pub log_archived_partitions: Counter,
    /// Bytes of these.
    pub log_archived_bytes: Counter,
    /// Partitions of archives of others.
    pub log_partitions_attached: Gauge,
    /// Reads out of archives.
    pub log_archive_requests: Counter,
    /// Bytes of these.
    pub log_archive_read_bytes: Counter,
    /// Chunks of archived pages that were in memory.
    pub log_archive_cache_hits: Counter,
    /// Bytes of memory of what was read out of archives.
    pub log_archive_cache_bytes: Gauge,
    /// Calls of archives that failed.
    pub log_archive_failures: Counter,
    /// Bytes in the middle of WAL files that were no records.
    pub wal_damaged_bytes: Counter,
    /// Whether writes are refused for want of room.
    pub disk_is_full: Gauge,
    /// Bytes of the WAL written.
    pub wal_written_bytes: Gauge,
    /// Syncs of the WAL.
    pub wal_syncs: Gauge,
}

impl Telemetry {
    /// Metrics that `registry` will show.
    pub fn new(registry: &mut Registry) -> Self {
        let new = Self::default();
        let r = registry.sub_registry_with_prefix("store");
        r.register("samples_appended", "Samples kept", new.samples_appended.clone());
        r.register("samples_refused", "Samples not kept, by reason", new.samples_refused.clone());
        r.register("head_series", "Series in memory", new.head_series.clone());
        r.register("blocks", "Blocks of metrics on disk", new.blocks.clone());
        r.register("blocks_set_aside", "Damaged blocks moved to quarantine", new.blocks_set_aside.clone());
        r.register("log_lines_appended", "Log lines kept", new.lines_appended.clone());
        r.register("log_lines_duplicate", "Log lines sent again", new.lines_duplicate.clone());
        r.register("log_gap_bytes", "Bytes of log files never sent", new.lines_gap_bytes.clone());
        r.register("log_lines_queued", "Log lines waiting for a page", new.lines_queued.clone());
        r.register("log_commits", "Pages of logs sealed", new.log_commits.clone());
        let set_aside = new.log_pages_set_aside.clone();
        r.register("log_pages_set_aside", "Damaged pages of logs moved to quarantine", set_aside);
        r.register("log_partitions", "Partitions of logs", new.partitions.clone());
        new.register_archive(r);
        r.register("wal_damaged_bytes", "Damaged WAL bytes skipped", new.wal_damaged_bytes.clone());
        r.register("disk_is_full", "Whether writes are refused for want of room", new.disk_is_full.clone());
        r.register("wal_written_bytes", "WAL bytes since start", new.wal_written_bytes.clone());
        r.register("wal_syncs", "WAL syncs since start", new.wal_syncs.clone());
        new
    }

    fn register_archive(&self, r: &mut Registry) {
        let archived = self.log_archived_partitions.clone();
        r.register("log_archived_partitions", "Partitions of logs brought into the archive", archived);
        r.register("log_archived_bytes", "Bytes brought into the archive", self.log_archived_bytes.clone());
        let attached = self.log_partitions_attached.clone();
        r.register("log_partitions_attached", "Partitions of attached archives", attached);
        let requests = self.log_archive_requests.clone();
        r.register("log_archive_requests", "Reads out of archives of logs", requests);
        let read = self.log_archive_read_bytes.clone();
        r.register("log_archive_read_bytes", "Bytes read out of archives of logs", read);
        let hits = self.log_archive_cache_hits.clone();
        r.register("log_archive_cache_hits", "Chunks of archived logs that were in memory", hits);
        let cached = self.log_archive_cache_bytes.clone();
        r.register("log_archive_cache_bytes", "Memory of what was read out of archives of logs", cached);
        let failures = self.log_archive_failures.clone();
        r.register("log_archive_failures", "Calls of archives of logs that failed", failures);
    }

    pub(crate) fn count_samples(&self, report: &AppendReport) {
        self.samples_appended.inc_by(report.appended as u64);
        let refused = [
            ("duplicate", report.duplicate),
            ("conflicting", report.conflicting),
            ("too_old", report.too_old),
            ("too_far_ahead", report.too_far_ahead),
            ("invalid", report.invalid),
            ("series_limit", report.limited),
        ];
        for (reason, count) in refused {
            if count > 0 {
                self.samples_refused.get_or_create(&Reason { reason }).inc_by(count as u64);
            }
        }
    }

    /// How many samples were not kept for this reason.
    #[cfg(test)]
    pub(crate) fn refused(&self, reason: &'static str) -> u64 {
        self.samples_refused.get_or_create(&Reason { reason }).get()
    }

    pub(crate) fn count_lines(&self, report: &LogAppendReport) {
        self.lines_appended.inc_by(report.appended as u64);
        self.lines_duplicate.inc_by(report.duplicate as u64);
        self.lines_gap_bytes.inc_by(report.gap_bytes);
    }
}
