//! Keeps it: metrics, logs, and what is known of both.
//!
//! ```text
//! Appender ────► metrics ─► head ─(2 h)─► blocks
//!                   ├─► wal (one for both; fdatasync before an append returns)
//! LogAppender ──► logs ───► open page ─► sealed pages, in partitions of a day
//!                   └─► catalog (SQLite): marks of files, metadata of metrics
//! ```
//!
//! Everything here is synchronous, takes the time from a [`Clock`], and touches the disk through
//! [`fs`].

mod bytes;
mod catalog;
pub mod fs;
mod header;
mod logs;
mod maintenance;
mod metrics;
mod roles;
mod space;
pub mod sqlite;
mod telemetry;
pub mod wal;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use binnacle_model::time::Clock;

pub use logs::archive;
pub use logs::{CLASSES_MAX, LogClass, OpenLogsError, Options as LogOptions, ParseQuery, is_class_name};
#[doc(hidden)]
pub use logs::{PackedTexts, try_log_page};
pub use maintenance::Maintenance;
#[doc(hidden)]
pub use metrics::try_block;
pub use metrics::{BlockError, BlockReport, MetricReport, Options as MetricOptions, ShortRetention};
pub use metrics::{ImportCounts, ImportError, ImportOptions, ImportOutcome, ImportReport, ImportedBlock};
pub use telemetry::Telemetry;

use catalog::Catalog;
use fs::{DirectoryLock, Disk, RealDisk};
use logs::{Day, Logs};
use metrics::Metrics;
use metrics::SampleKind;
use space::Space;
pub use wal::ReplayProgress;
use wal::{Floor, RecordKind, SealedFile, Wal, WalOpenError};

/// What followers that are behind may keep of the log beyond what the store itself needs.
const HELD_MAX_BYTES: u64 = 2 * 1024 * 1024 * 1024;

/// A pod is remembered so long also without lines: they may be on their way.
const PODS_SPARED: Duration = Duration::from_hours(7 * 24);

/// How a store keeps its data.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Of metrics.
    pub metrics: MetricOptions,
    /// Of logs.
    pub logs: LogOptions,
    /// Told how far a start has come.
    pub progress: Arc<ReplayProgress>,
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the directory. Stop it, or use another directory.
    #[error("{} is in use by another binnacle ({owner}); stop it or choose another --data", dir.display())]
    InUse {
        /// Which directory.
        dir: std::path::PathBuf,
        /// What the other process wrote about itself.
        owner: String,
    },
    /// The disk refused.
    #[error("cannot use {}", dir.display())]
    Io {
        /// Which directory.
        dir: std::path::PathBuf,
        /// What the disk said.
        #[source]
        cause: std::io::Error,
    },
    /// The catalog.
    #[error(transparent)]
    Catalog(#[from] sqlite::OpenSqliteError),
    /// The blocks of metrics.
    #[error(transparent)]
    Blocks(#[from] BlockError),
    /// The partitions of logs.
    #[error(transparent)]
    Logs(#[from] OpenLogsError),
    /// The write-ahead log.
    #[error(transparent)]
    Wal(#[from] WalOpenError),
}

/// Reads every block of metrics in a data directory, and changes nothing. Also of one that a server uses.
pub fn inspect_metrics(dir: &Path) -> std::io::Result<Vec<BlockReport>> {
    metrics::inspect(&RealDisk, &dir.join("metrics"))
}

/// Brings the blocks of Prometheus's TSDB at `from` into the store in `data`, which no server may use meanwhile.
///
/// `from` is a data directory of Prometheus, a snapshot, or one block. Blocks that were imported before are left
/// alone. `progress` hears of each block once it is done.
///
/// # Errors
/// There is nothing to import, or our store cannot be opened or written. A block of theirs that cannot be read is in
/// the report, and the others go on.
pub fn import_prometheus(
    from: &Path,
    data: &Path,
    options: &ImportOptions,
    clock: Arc<dyn Clock>,
    progress: &mut dyn FnMut(&ImportedBlock),
) -> Result<ImportReport, ImportError> {
    let sources = metrics::find_prometheus(&RealDisk, from)?;
    let now = clock.now();
    let store = Store::open(data, Options::default(), clock, Telemetry::default())
        .map_err(|error| ImportError::Open(Box::new(error)))?;
    let report = store.metrics.import(sources, options, now, progress);
    store.close();
    report
}

/// The store of one data directory. Open it once per process.
pub struct Store {
    clock: Arc<dyn Clock>,
    disk: Arc<dyn Disk>,
    wal: Arc<Wal>,
    metrics: Metrics,
    logs: Logs,
    catalog: Catalog,
    space: Arc<Space>,
    telemetry: Telemetry,
    dir: PathBuf,
    /// Held, never read.
    #[allow(dead_code, reason = "its drop is its use")]
    lock: Option<DirectoryLock>,
}

impl Store {
    /// Opens the store in `dir`, or makes one, and replays what its last process left.
    pub fn open(
        dir: &Path,
        options: Options,
        clock: Arc<dyn Clock>,
        telemetry: Telemetry,
    ) -> Result<Self, OpenError> {
        let io = |cause| OpenError::Io { dir: dir.to_path_buf(), cause };
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        disk.create_dir_all(dir).map_err(io)?;
        let lock = match DirectoryLock::take(dir).map_err(io)? {
            Ok(lock) => lock,
            Err(owner) => return Err(OpenError::InUse { dir: dir.to_path_buf(), owner }),
        };
        let catalog = Catalog::open(&dir.join("catalog.sqlite"))?;
        let mut store = Self::open_on(disk, dir, options, clock, telemetry, catalog)?;
        store.lock = Some(lock);
        Ok(store)
    }

    fn open_on(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: Options,
        clock: Arc<dyn Clock>,
        telemetry: Telemetry,
        catalog: Catalog,
    ) -> Result<Self, OpenError> {
        let io = |cause| OpenError::Io { dir: dir.to_path_buf(), cause };
        let seed = clock.now_ns().0 as u64 ^ u64::from(std::process::id()).rotate_left(32);
        let mut metrics =
            metrics::Opening::new(Arc::clone(&disk), &dir.join("metrics"), options.metrics, seed)?;
        let logs_dir = dir.join("logs");
        let mut logs = logs::Opening::new(Arc::clone(&disk), &logs_dir, options.logs, &catalog, &telemetry)?;
        let mut unreadable = 0u64;
        // Files that a checkpoint has, and of which no line is needed, are not read.
        let saved = metrics.saved_files().iter().filter(|file| file.last <= logs.saved_through());
        let known: Vec<SealedFile> = saved.copied().collect();
        let last_saved = metrics.saved_files().last().map(|file| file.last).unwrap_or_default();
        let floor = Floor {
            file: metrics.wal_floor(),
            sequence: logs.wal_floor().max(last_saved),
            seed: seed.rotate_left(17),
            known,
            progress: options.progress,
        };
        let (wal, report) =
            Wal::open(Arc::clone(&disk), &dir.join("wal"), &floor, &mut |file, sequence, kind, payload| {
                let sound = match kind {
                    RecordKind::Samples => metrics.replay(file, payload, SampleKind::Floats),
                    RecordKind::Histograms => metrics.replay(file, payload, SampleKind::Histograms),
                    RecordKind::Deletion => metrics.replay_deletion(file, payload),
                    RecordKind::Lines => logs.replay(sequence, payload, &catalog),
                };
                unreadable += u64::from(!sound);
            })?;
        if unreadable > 0 {
            tracing::error!(records = unreadable, "records of the write-ahead log contradict their format");
        }
        telemetry.wal_damaged_bytes.inc_by(report.damaged_bytes);
        metrics.remember_damage(&report.damaged, clock.now()).map_err(io)?;
        logs.remember_damage(&report.missing, clock.now_ns()).map_err(io)?;
        tracing::info!(
            records = report.records,
            torn_bytes = report.torn_bytes,
            damaged_bytes = report.damaged_bytes,
            "write-ahead log replayed"
        );
        let wal = Arc::new(wal);
        let space = Arc::new(Space::new(Arc::clone(&disk), dir));
        let metrics = metrics.finish(Arc::clone(&wal), Arc::clone(&space), telemetry.clone());
        metrics.finish_deletions();
        let logs = logs.finish(Arc::clone(&wal), Arc::clone(&space), telemetry.clone()).map_err(io)?;
        let today = Day::of(clock.now_ns()).0;
        // Of lines that are there already nobody noted when their pods had them.
        let from = today + i64::from(logs.oldest_partition().is_some());
        if let Err(error) = catalog.note_from(from) {
            tracing::warn!(%error, "queries for metadata of pods look at all pods until the next start");
        }
        // Whoever is told that the store is open finds all that was acknowledged.
        if !logs.flush() {
            tracing::warn!(
                "some log lines of the last process can be found only once the disk takes writes again"
            );
        }
        let dir = dir.to_path_buf();
        Ok(Self { clock, disk, wal, metrics, logs, catalog, space, telemetry, dir, lock: None })
    }

    /// Writes blocks that are due, expires what is too old, and removes WAL files not needed any more.
    ///
    /// A failure leaves everything as it was, and the next call tries again.
    pub fn maintain(&self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let now = self.clock.now();
        let save_marks = || self.logs.save_marks(&self.catalog);
        self.logs.seal_old(now);
        // One part that fails keeps no other from being done.
        let done = [
            self.logs.end_refill(),
            self.logs.expire(&*self.clock),
            self.expire_pods(),
            self.logs.expire_marks(&self.catalog),
            self.logs.close_one(now),
            self.logs.verify_some(),
            self.recover(),
            self.metrics.maintain(now, &save_marks),
        ];
        let sealed = self.wal.sealed();
        let of_metrics = self.metrics.persisted_through(&sealed);
        let of_logs = self.logs.persisted_through(&sealed, &self.catalog)?;
        if let (Some(of_metrics), Some(of_logs)) = (of_metrics, of_logs) {
            let held_max_bytes = if self.space.is_low() { 0 } else { HELD_MAX_BYTES };
            if let Some(through) = self.wal.unheld_through(of_metrics.min(of_logs), held_max_bytes)? {
                self.wal.remove_through(through)?;
            }
        }
        let (bytes, syncs) = self.wal.written();
        self.telemetry.wal_written_bytes.set(bytes as i64);
        self.telemetry.wal_syncs.set(syncs as i64);
        Ok(done.into_iter().collect::<Result<(), _>>()?)
    }

    /// Forgets some of the pods whose lines are gone, also from archives.
    fn expire_pods(&self) -> std::io::Result<()> {
        let spared = self.clock.now_ns().minus(PODS_SPARED);
        let oldest = self.logs.oldest_day().map_or(spared, |day| day.start().min(spared));
        self.catalog.expire_pods(oldest).map_err(std::io::Error::other)
    }

    /// Brings closed partitions of logs into the archive, and takes out of it what has expired. What fails is tried again
    /// by the next call; it may take long, and holds up nothing else.
    pub fn tend_archive(&self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let tended = self.logs.tend_archive(&*self.clock).inspect_err(|_| {
            self.telemetry.log_archive_failures.inc();
        });
        self.logs.refresh_attached(&*self.clock)?;
        Ok(tended?)
    }

    /// Goes on with deletions of log lines, as far as it can. Answers whether all are finished.
    pub fn run_deletions(&self) -> Result<bool, Box<dyn std::error::Error + Send + Sync>> {
        Ok(self.logs.run_deletions(&self.catalog)?)
    }

    /// Looks whether there is room on the disk, and whether a log that failed can go on.
    pub fn recover(&self) -> std::io::Result<()> {
        let looked = self.space.check();
        self.telemetry.disk_is_full.set(i64::from(self.space.is_low()));
        self.wal.recover();
        looked
    }

    /// Waits until every line acknowledged so far can be found by a search.
    pub fn flush_logs(&self) -> bool {
        self.logs.flush()
    }

    #[cfg(test)]
    fn metrics_blocks(&self) -> i64 {
        self.telemetry.blocks.get()
    }

    /// Why the store takes no writes, if so.
    pub fn write_error(&self) -> Option<String> {
        self.wal.error().map(|error| error.to_string()).or(self.space.is_low().then(|| self.space.reason()))
    }

    /// Commits everything and ends the threads. Appends after this are lost with an error.
    pub fn close(&self) {
        self.logs.close();
        self.wal.recover();
        if let Err(error) = self.wal.commit_all() {
            tracing::error!(%error, "the last samples may not be on disk");
        }
        let save_marks = || self.logs.save_marks(&self.catalog);
        if let Err(error) = self.metrics.close(&save_marks) {
            tracing::warn!(%error, "no checkpoint; the next start replays the whole log");
        }
    }
}

#[cfg(test)]
mod tests;
