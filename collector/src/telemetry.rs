//! What the collector says of itself.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::kubernetes::KubernetesTelemetry;

/// The collector's metrics. Clones share their values.
#[derive(Debug, Clone, Default)]
pub struct Telemetry {
    /// Scrapes made.
    pub scrapes: Counter,
    /// Scrapes that failed, for whatever reason.
    pub scrapes_failed: Counter,
    /// Probes made, whatever came of them.
    pub probes: Counter,
    /// Probes that found something wrong.
    pub probes_failed: Counter,
    /// Probes that somebody asked for, and that the configuration does not allow.
    pub probes_refused: Counter,
    /// Samples that a page named twice; the first one was stored.
    pub scrape_doubles: Counter,
    /// Log lines read.
    pub lines_read: Counter,
    /// Bytes of log files read.
    pub bytes_read: Counter,
    /// Bytes of log files that the store has not seen and will not be sent.
    pub gap_bytes: Counter,
    /// Packs of which the store had a part already.
    pub overtaken: Counter,
    /// Lines whose header was not CRI's; they are kept whole.
    pub lines_malformed: Counter,
    /// Lines longer than the limit; their beginning is kept.
    pub lines_truncated: Counter,
    /// Files that became shorter.
    pub files_truncated: Counter,
    /// Bytes on disk that are not acknowledged yet.
    pub lag_bytes: Gauge,
    /// How long ago the oldest of them were there, by input.
    pub lag_seconds: Family<Vec<(&'static str, String)>, Gauge<f64, AtomicU64>>,
    /// Bytes of log files that were deleted before the store had them.
    pub lost_bytes: Counter,
    /// Bytes whose lines the store refused for good.
    pub refused_bytes: Counter,
    /// Lines that the store had already.
    pub duplicates: Counter,
    /// Secrets taken out of lines.
    pub redacted: Counter,
    /// Lines left out by limits and sampling, by namespace, container and reason.
    pub lines_dropped: Family<Vec<(&'static str, String)>, Counter>,
    /// Compressed files that end before they should.
    pub files_damaged: Counter,
    /// Compressed bytes of what is left of deleted files.
    pub spool_bytes: Gauge,
    /// Bytes of deleted files that are kept open.
    pub deleted_open_bytes: Gauge,
    /// Log files open.
    pub files_open: Gauge,
    /// Turns of files that had to wait for a processor.
    pub turns_put_off: Counter,
    /// Directories of which the kernel tells.
    pub dirs_watched: Gauge,
    /// What is read from Kubernetes.
    pub kubernetes: KubernetesTelemetry,
    /// What is counted of journals, in entries.
    pub journal: JournalTelemetry,
    /// Lines that a store of others took.
    pub lines_sent: Counter,
    /// Lines that a store of others will never take, by reason.
    pub lines_refused: Family<Vec<(&'static str, String)>, Counter>,
    /// Pushes that will be tried again.
    pub pushes_retried: Counter,
    /// Native histograms that came by remote write and were not kept.
    pub histograms_dropped: Counter,
    /// Attributes of log entries that were over the bounds, and are kept as text.
    pub attributes_over: Counter,
    /// Lines of syslog that were stored.
    pub syslog_lines: Counter,
    /// Lines of syslog that were not: datagrams while the store took nothing.
    pub syslog_dropped: Counter,
    /// Lines of syslog longer than the limit; their beginning is kept.
    pub syslog_truncated: Counter,
    /// Connections of syslog's senders.
    pub syslog_connections: Gauge,
    /// Writes refused because a queue was full.
    pub intake_shed: Counter,
}

/// Of systemd's journals: entries, where files of lines have bytes.
#[derive(Debug, Clone, Default)]
pub struct JournalTelemetry {
    /// Entries read.
    pub read: Counter,
    /// Entries that are not acknowledged yet.
    pub lag: Gauge,
    /// Entries that the store has not seen and will not be sent.
    pub gap: Counter,
    /// Entries deleted before the store had them.
    pub lost: Counter,
    /// Entries that the store refused for good.
    pub refused: Counter,
    /// Entries that contradict the format of the journal.
    pub damaged: Counter,
    /// Fields of entries that could not be read, such as those compressed by XZ.
    pub fields_unreadable: Counter,
}

impl JournalTelemetry {
    fn register(&self, r: &mut Registry) {
        r.register("journal_entries_read", "Entries of journals read", self.read.clone());
        r.register("journal_lag_entries", "Entries not acknowledged yet", self.lag.clone());
        r.register("journal_gap_entries", "Entries of journals that were passed over", self.gap.clone());
        let help = "Entries of journals deleted before they were acknowledged";
        r.register("journal_lost_entries", help, self.lost.clone());
        r.register("journal_refused_entries", "Entries that the store refused", self.refused.clone());
        r.register("journal_damaged_entries", "Entries that contradict the format", self.damaged.clone());
        let help = "Fields of entries that could not be read";
        r.register("journal_unreadable_fields", help, self.fields_unreadable.clone());
    }
}

impl Telemetry {
    /// The same for a tailer of journals: what is counted by place in a file counts entries instead of bytes.
    pub(crate) fn of_journal(&self) -> Self {
        Self {
            bytes_read: self.journal.read.clone(),
            gap_bytes: self.journal.gap.clone(),
            lag_bytes: self.journal.lag.clone(),
            lost_bytes: self.journal.lost.clone(),
            refused_bytes: self.journal.refused.clone(),
            lines_malformed: self.journal.damaged.clone(),
            ..self.clone()
        }
    }

    /// Counts a probe.
    pub(crate) fn probed(&self, success: bool) {
        self.probes.inc();
        if !success {
            self.probes_failed.inc();
        }
    }

    /// Counts a line that was left out.
    pub(crate) fn dropped(&self, namespace: &str, container: &str, reason: &str) -> Counter {
        let labels = [("namespace", namespace), ("container", container), ("reason", reason)];
        let labels = labels.map(|(name, value)| (name, value.to_owned())).to_vec();
        self.lines_dropped.get_or_create(&labels).clone()
    }

    /// Counts lines that a store of others refused for good.
    pub(crate) fn refused(&self, reason: &str) -> Counter {
        self.lines_refused.get_or_create(&vec![("reason", reason.to_owned())]).clone()
    }

    /// Metrics that `registry` will show.
    pub fn new(registry: &mut Registry) -> Self {
        let new = Self { kubernetes: KubernetesTelemetry::new(registry), ..Self::default() };
        let r = registry.sub_registry_with_prefix("collector");
        r.register("scrapes", "Scrapes made", new.scrapes.clone());
        r.register("scrapes_failed", "Scrapes that failed", new.scrapes_failed.clone());
        r.register("probes", "Probes made", new.probes.clone());
        r.register("probes_failed", "Probes with probe_success 0", new.probes_failed.clone());
        let help = "Probes asked for over HTTP that the configuration does not allow";
        r.register("probes_refused", help, new.probes_refused.clone());
        let help = "Samples whose series a page had named before";
        r.register("scrape_duplicate_samples", help, new.scrape_doubles.clone());
        r.register("log_lines_read", "Log lines read", new.lines_read.clone());
        r.register("log_gap_bytes", "Bytes of log files that were passed over", new.gap_bytes.clone());
        let help = "Packs of which the store had a part from somebody else; the rest is read anew";
        r.register("log_packs_overtaken", help, new.overtaken.clone());
        r.register("log_bytes_read", "Bytes of log files read", new.bytes_read.clone());
        r.register("log_lines_malformed", "Lines without a CRI header", new.lines_malformed.clone());
        r.register("log_lines_truncated", "Lines cut at the limit", new.lines_truncated.clone());
        r.register("log_files_truncated", "Files that became shorter", new.files_truncated.clone());
        r.register("log_lag_bytes", "Bytes not acknowledged yet", new.lag_bytes.clone());
        r.register("log_lag_seconds", "Age of the oldest bytes not acknowledged", new.lag_seconds.clone());
        r.register("log_lost_bytes", "Bytes deleted before they were acknowledged", new.lost_bytes.clone());
        r.register("log_refused_bytes", "Bytes whose lines the store refused", new.refused_bytes.clone());
        r.register("log_duplicates", "Lines sent that the store had already", new.duplicates.clone());
        r.register("log_redactions", "Secrets taken out of lines", new.redacted.clone());
        r.register("log_lines_dropped", "Lines left out by limits and sampling", new.lines_dropped.clone());
        r.register("log_files_damaged", "Compressed files that end too early", new.files_damaged.clone());
        r.register("log_spool_bytes", "Compressed bytes of deleted files", new.spool_bytes.clone());
        let deleted = new.deleted_open_bytes.clone();
        r.register("log_deleted_open_bytes", "Bytes of deleted files kept open", deleted);
        r.register("log_files_open", "Log files open", new.files_open.clone());
        let help = "Turns of log files put off because of collector.cpu";
        r.register("log_turns_put_off", help, new.turns_put_off.clone());
        let help = "Directories of logs that inotify watches; the others are looked at each second";
        r.register("log_directories_watched", help, new.dirs_watched.clone());
        r.register("log_pushes_retried", "Pushes tried again", new.pushes_retried.clone());
        r.register("log_lines_sent", "Lines that a store of others took", new.lines_sent.clone());
        let help = "Lines that a store of others refused for good";
        r.register("log_lines_refused", help, new.lines_refused.clone());
        r.register("intake_histograms_dropped", "Native histograms not kept", new.histograms_dropped.clone());
        let help = "Attributes of log entries beyond the bounds, kept as text";
        r.register("intake_attributes_overflowed", help, new.attributes_over.clone());
        r.register("syslog_lines", "Lines of syslog stored", new.syslog_lines.clone());
        r.register("syslog_dropped", "Lines of syslog not kept", new.syslog_dropped.clone());
        r.register("syslog_truncated", "Lines of syslog cut at the limit", new.syslog_truncated.clone());
        r.register("syslog_connections", "Connections of syslog", new.syslog_connections.clone());
        new.journal.register(r);
        r.register("intake_shed", "Writes answered with 429 or 503", new.intake_shed.clone());
        new
    }
}
