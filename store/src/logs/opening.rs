//! A start: partitions are opened, the log is read for lines that no page has, and what damage took is remembered.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use binnacle_model::LogTime;
use binnacle_model::push::LogPush;
use prost::Message;

use super::archive::{self, Archive, Attached, is_marked};
use super::class::{ClassName, Classes, decode_classes};
use super::delete::{Deletions, Meant, leave_out};
use super::indexer::Indexer;
use super::lost::{self, Lost};
use super::marks::Marks;
use super::page;
use super::partition::{Partition, PartitionId};
use super::queue::{Batch, Queue, classes_of};
use super::upkeep::Upkeep;
use super::{GONE, Logs, Options, REFILL, Shared};
use crate::catalog::Catalog;
use crate::fs::Disk;
use crate::space::Space;
use crate::telemetry::Telemetry;
use crate::wal::{Sequence, Wal};

/// What replay needs before there is a WAL.
pub(crate) struct Opening {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    options: Options,
    partitions: BTreeMap<PartitionId, Arc<Partition>>,
    interned: Mutex<page::Shared>,
    /// Records that sealed pages of each class have, ascending and apart.
    covered: HashMap<ClassName, Vec<(Sequence, Sequence)>>,
    /// The last record of which a page has lines.
    through: Sequence,
    /// The last record of which all lines were in pages, with those of all before it, when the marks were last saved.
    /// Pages alone do not tell: those of one class may be ahead of those of another.
    saved: Sequence,
    /// A page was set aside, now or before a crash: of its lines the log may still have some.
    refills: bool,
    marks: Marks,
    /// Lines of the WAL that no page has.
    missing: Vec<Batch>,
    /// The classes of which a page has the lines that were read last.
    was_covered: Vec<ClassName>,
    last: Sequence,
    /// The first record of each minute, when it was received, and the moments of the lines of that minute's records.
    moments: Vec<(Sequence, LogTime, (LogTime, LogTime))>,
    lost: Vec<Lost>,
    archive: Arc<Archive>,
    attached: Vec<Attached>,
    store_id: String,
    deletions: Deletions,
    /// What of the log is not wanted any more.
    meant: Vec<Meant>,
}

/// A minute, in nanoseconds.
const MOMENTS_APART: i64 = 60_000_000_000;

/// Lines may be so much older than their record, or newer, for all that is known of it.
const LOST_MARGIN: Duration = Duration::from_hours(1);

impl Opening {
    /// Opens the partitions and reads the marks.
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: Options,
        catalog: &Catalog,
        telemetry: &Telemetry,
    ) -> Result<Self, OpenLogsError> {
        let read = |cause| OpenLogsError::Read { path: dir.to_path_buf(), cause };
        disk.create_dir_all(dir).map_err(read)?;
        let mark_refill = || {
            disk.create(&dir.join(REFILL))?.sync()?;
            disk.sync_dir(dir)
        };
        let (archive, attached) = Archive::of_options(&options, telemetry);
        let store_id = match &options.archive {
            Some(_) => archive::identity(&*disk, dir).map_err(read)?,
            None => String::new(),
        };
        let mut partitions = BTreeMap::new();
        let mut refills = disk.exists(&dir.join(REFILL)).map_err(read)?;
        let interned = Mutex::default();
        let mut covered: HashMap<ClassName, Vec<(Sequence, Sequence)>> = HashMap::new();
        let names = disk.list(dir).map_err(read)?;
        let lost = lost::noted(&names);
        for name in names {
            // A crash came between its renaming and its removal; or an archive has still to hear of it.
            if name.starts_with(GONE) && !is_marked(&*disk, &dir.join(&name)).map_err(read)? {
                disk.remove_dir_all(&dir.join(&name)).map_err(read)?;
            }
            let Some((id, class)) = PartitionId::of_name(&name) else {
                // A day without a part.
                if name.strip_prefix('p').is_some_and(|day| day.parse::<i64>().is_ok()) {
                    let path = dir.join(&name);
                    tracing::error!(path = %path.display(), "log lines of an earlier format are not read; remove them");
                }
                continue;
            };
            let opened = Partition::open(&*disk, dir, (id, class), &interned, &archive, &mark_refill);
            let opened = opened.map_err(|cause| OpenLogsError::Read { path: dir.join(&name), cause })?;
            refills |= opened.damaged > 0;
            let of_class: &mut Vec<_> = covered.entry(ClassName::clone(&opened.partition.class)).or_default();
            of_class.extend(opened.covered);
            partitions.insert(id, Arc::new(opened.partition));
        }
        covered.values_mut().for_each(|of_class| of_class.sort_unstable());
        let deletions = Deletions::open(catalog, options.parse_query).map_err(OpenLogsError::Catalog)?;
        let meant = deletions.all_meant();
        let by_file = catalog.marks().map_err(OpenLogsError::Catalog)?;
        let marks = Marks { by_file, ..Marks::default() };
        let saved = catalog.logs_through().map_err(OpenLogsError::Catalog)?;
        let lasts = covered.values().flatten().map(|(_, last)| *last);
        let through = lasts.fold(saved, Sequence::max);
        let (missing, last) = (Vec::new(), Sequence::default());
        let dir = dir.to_path_buf();
        Ok(Self {
            disk,
            dir,
            options,
            partitions,
            interned,
            covered,
            through,
            saved,
            refills,
            marks,
            missing,
            was_covered: Vec::new(),
            last,
            moments: Vec::new(),
            lost,
            archive,
            attached,
            store_id,
            deletions,
            meant,
        })
    }

    /// Takes one record of lines back in. Answers whether it was well formed.
    pub(crate) fn replay(&mut self, sequence: Sequence, payload: &[u8], catalog: &Catalog) -> bool {
        let Some((received, push)) = payload.split_first_chunk::<8>() else { return false };
        let received = LogTime(i64::from_le_bytes(*received));
        let (tail, bytes) = (push, payload.len());
        let Ok(mut push) = LogPush::decode(tail) else { return false };
        let Some(classes) = decode_classes(tail, push.batches.len()) else { return false };
        catalog.note_lines(&push, received);
        for batch in &push.batches {
            self.marks.raise(batch, received);
        }
        self.last = sequence;
        if self.moments.last().is_none_or(|(_, last, _)| received.0.abs_diff(last.0) >= MOMENTS_APART as u64)
        {
            self.moments.push((sequence, received, (received, received)));
        }
        if let Some((_, _, (first, last))) = self.moments.last_mut() {
            let entries = push.batches.iter().flat_map(|batch| &batch.entries);
            for time in entries.map(|entry| LogTime(entry.time_ns)).filter(|time| time.0 != 0) {
                (*first, *last) = ((*first).min(time), (*last).max(time));
            }
        }
        if !push.batches.iter().all(|batch| batch.stream_labels().is_ok()) {
            return false;
        }
        let apart = |own: &Self, push: &LogPush| -> (Vec<_>, Vec<_>) {
            classes_of(push, &classes).into_iter().partition(|class| own.is_covered(class, sequence))
        };
        let (mut covered, mut missing) = apart(self, &push);
        if !missing.is_empty() && leave_out(&mut push, received, sequence, &self.meant) {
            if push.batches.iter().all(|batch| batch.entries.is_empty()) {
                return true;
            }
            (covered, missing) = apart(self, &push);
        }
        let begins = |class: &ClassName| self.was_covered.contains(class);
        let begins_page: Vec<ClassName> = missing.iter().filter(|class| begins(class)).cloned().collect();
        self.was_covered.retain(|class| !missing.contains(class));
        for class in &covered {
            if !self.was_covered.contains(class) {
                self.was_covered.push(ClassName::clone(class));
            }
        }
        if !missing.is_empty() && push.batches.iter().any(|batch| !batch.entries.is_empty()) {
            self.missing.push(Batch { sequence, received, push, classes, bytes, covered, begins_page });
        }
        true
    }

    /// Whether a page has the lines of a class and a record.
    fn is_covered(&self, class: &ClassName, sequence: Sequence) -> bool {
        let Some(covered) = self.covered.get(class) else { return false };
        // Pages do not overlap (`begins_page`), so that the few before it are enough.
        let at = covered.partition_point(|(first, _)| *first <= sequence);
        covered[..at].iter().rev().take(64).any(|(_, last)| sequence <= *last)
    }

    /// Remembers that records of the log are missing, also when its files are gone: searches of their time are told. Call
    /// it when all others are replayed.
    pub(crate) fn remember_damage(
        &mut self,
        missing: &[(Sequence, Sequence)],
        now: LogTime,
    ) -> io::Result<()> {
        let longest = self.options.classes.iter().map(|class| class.retention).max();
        let retention = longest.map_or(self.options.retention, |longest| longest.max(self.options.retention));
        let oldest = now.minus(retention);
        let (gone, kept): (Vec<_>, Vec<_>) = self.lost.iter().copied().partition(|lost| lost.span.1 < oldest);
        gone.iter().try_for_each(|lost| lost.forget(&*self.disk, &self.dir))?;
        self.lost = kept;
        for (first, last) in missing {
            let first = Sequence(first.0.max(self.saved.0 + 1));
            // The pages may have taken some of what was noted.
            let is_known = self.lost.iter().any(|lost| lost.records.0 <= first && *last <= lost.records.1);
            if first > *last || is_known || self.all_cover(first, *last) {
                continue;
            }
            // Lines are mostly of the time of their neighbours, whenever they were received.
            let before = self.moments.iter().rfind(|(sequence, ..)| *sequence < first);
            let after = self.moments.iter().find(|(sequence, ..)| *sequence > *last);
            let around = || before.into_iter().chain(after);
            let start =
                around().map(|(_, _, (first, _))| *first).min().map_or(oldest, |at| at.minus(LOST_MARGIN));
            let end = around().map(|(_, _, (_, last))| *last).chain(after.is_none().then_some(now)).max();
            let end = end.unwrap_or(now).plus(LOST_MARGIN);
            let lost = Lost { records: (first, *last), span: (start, end) };
            lost.remember(&*self.disk, &self.dir)?;
            self.lost.push(lost);
        }
        Ok(())
    }

    /// Whether pages of each class have what records brought.
    fn all_cover(&self, first: Sequence, last: Sequence) -> bool {
        let has =
            |pages: &Vec<(Sequence, Sequence)>| pages.iter().any(|(from, to)| *from <= first && last <= *to);
        let classes = self.options.classes.iter().map(|class| class.name.as_str()).chain([""]);
        let mut classes = classes.map(|class| self.covered.get(class));
        classes.all(|pages| pages.is_some_and(has))
    }

    /// The last record that was there for certain.
    pub(crate) fn wal_floor(&self) -> Sequence {
        self.through
    }

    /// Up to here no line of the log is wanted.
    pub(crate) fn saved_through(&self) -> Sequence {
        if self.refills { Sequence(0) } else { self.saved }
    }

    /// The engine, ready: what pages lack is queued for them.
    pub(crate) fn finish(self, wal: Arc<Wal>, space: Arc<Space>, telemetry: Telemetry) -> io::Result<Logs> {
        let before = self.missing.first().map_or(self.last, |batch| Sequence(batch.sequence.0 - 1));
        telemetry.partitions.set(self.partitions.len() as i64);
        let shared = Arc::new(Shared {
            disk: self.disk,
            dir: self.dir,
            wal,
            queue: Queue::default(),
            partitions: RwLock::new(self.partitions),
            open: RwLock::default(),
            interned: self.interned,
            subscribers: Mutex::default(),
            space,
            telemetry,
            cache_bytes: self.options.cache_bytes,
            partition_max_bytes: self.options.partition_max_bytes,
            suspects: Mutex::default(),
            lost: self.lost,
            archive: self.archive,
            has_archive: self.options.archive.is_some(),
            attached: self.attached,
            store_id: self.store_id,
            deletions: self.deletions,
        });
        shared.queue.set_sealed(before);
        let last_missing = self.missing.last().map_or(Sequence(0), |batch| batch.sequence);
        let refill = Mutex::new(self.refills.then_some(last_missing));
        self.missing.into_iter().for_each(|batch| shared.queue.push(batch));
        let indexer = Indexer::new(Arc::clone(&shared), before);
        let thread = std::thread::Builder::new().name("log-indexer".into()).spawn(move || indexer.run())?;
        let (marks, indexer) = (Mutex::new(self.marks), Mutex::new(Some(thread)));
        let (damaged, stopping) = (AtomicBool::new(false), AtomicBool::new(false));
        let (classes, upkeep) = (Classes::new(&self.options.classes), Upkeep::default());
        Ok(Logs { shared, refill, options: self.options, classes, upkeep, marks, indexer, damaged, stopping })
    }
}

/// Why the log engine could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenLogsError {
    /// The disk refused.
    #[error("cannot read {}", path.display())]
    Read {
        /// Where.
        path: PathBuf,
        /// What the disk said.
        #[source]
        cause: io::Error,
    },
    /// The catalog cannot be read.
    #[error("cannot read the marks of log files")]
    Catalog(#[source] rusqlite::Error),
}
