//! What is done to partitions beside the writing: closed ones are joined, old ones go, all are verified in turn.
//!
//! ```text
//! partition that takes no more pages ─► small pages joined ─► `index` ─► `closed`
//! too old, too many bytes of its class, too little room on the disk ─► gone
//! ```

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use binnacle_model::time::Clock;
use binnacle_model::{LogTime, Timestamp};

use super::archive::is_marked;
use super::page::{PAGE_MAX_BYTES, PAGE_MAX_ROWS, PageError, SealedPage, rewrite, seal};
use super::partition::{ARCHIVED, ARCHIVING, PageFile, Partition, PartitionId};
use super::{ClassName, GONE, Logs, REFILL};

/// What says of a partition that is gone that an archive has still to hear of it.
const MARKS: [&str; 2] = [ARCHIVED, ARCHIVING];

/// Pages that one round of maintenance reads anew, at least.
const VERIFIED_AT_ONCE: usize = 2;

/// Rounds, of half a minute, in which all pages are read anew: those of a week.
const ROUNDS_FOR_ALL: usize = 7 * 24 * 120;

/// A partition whose day is over so long is closed.
const CLOSE_AFTER: Duration = Duration::from_mins(30);

/// A clock that is ahead is followed this much faster than time passes: one that jumps for a while expires little, and
/// a store that was away for a month catches up within hours.
const CATCH_UP: u32 = 24;

/// Pages with fewer rows and bytes are joined with their neighbours when their partition closes.
const SMALL_ROWS: u64 = PAGE_MAX_ROWS as u64 / 2;
const SMALL_BYTES: u64 = PAGE_MAX_BYTES as u64 / 2;

/// What is remembered from one round to the next.
#[derive(Debug, Default)]
pub(super) struct Upkeep {
    /// The page that was verified last.
    verified: Mutex<Option<(PartitionId, u32)>>,
    /// The time by which partitions expire, and what had passed by then.
    expiry: Mutex<Option<(LogTime, Duration)>>,
}

/// What partitions of one class may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    retention: Duration,
    pub(super) bytes: Option<u64>,
}

impl Logs {
    /// Reads a few pages anew, each in its turn, and sets aside those that are damaged.
    pub(crate) fn verify_some(&self) -> io::Result<()> {
        let suspects =
            std::mem::take(&mut *self.shared.suspects.lock().unwrap_or_else(PoisonError::into_inner));
        let mut last = self.upkeep.verified.lock().unwrap_or_else(PoisonError::into_inner);
        let partitions = self.shared.partitions();
        // What is in an archive was compared with what was here.
        let here = partitions.iter().filter(|partition| partition.remote().is_none());
        let all = here.flat_map(|partition| partition.pages().into_iter().map(move |page| (partition, page)));
        let place = |one: &(&Arc<Partition>, Arc<PageFile>)| Some((one.0.id, one.1.summary.number));
        let mut pages: Vec<(&Arc<Partition>, Arc<PageFile>)> = all.collect();
        let turn = pages.partition_point(|one| place(one) <= *last);
        pages.rotate_left(turn);
        let at_once = pages.len().div_ceil(ROUNDS_FOR_ALL).max(VERIFIED_AT_ONCE);
        let (suspected, others): (Vec<_>, Vec<_>) =
            pages.into_iter().partition(|(_, page)| suspects.contains(&page.path().to_path_buf()));
        for one in suspected.into_iter().chain(others.into_iter().take(at_once)) {
            *last = place(&one).max(if suspects.is_empty() { None } else { *last });
            let (partition, page) = one;
            let Some(_work) = partition.try_work() else { continue };
            if partition.remote().is_some() {
                continue;
            }
            if let Err(error @ PageError::Damaged(_)) = Partition::verify(&*self.shared.disk, &page) {
                // The next start reads the whole log: it may still have the lines.
                self.damaged.store(true, Ordering::Relaxed);
                self.shared.disk.create(&self.shared.dir.join(REFILL))?.sync()?;
                self.shared.disk.sync_dir(&self.shared.dir)?;
                partition.set_aside(&*self.shared.disk, page.summary.number, &error)?;
                self.shared.telemetry.log_pages_set_aside.inc();
            }
        }
        self.shared.interned.lock().unwrap_or_else(PoisonError::into_inner).sweep();
        Ok(())
    }

    /// Removes partitions that are too old or too many.
    pub(crate) fn expire(&self, clock: &dyn Clock) -> io::Result<()> {
        let now = self.expiry_time(clock);
        let mut by_class: BTreeMap<ClassName, Vec<Arc<Partition>>> = BTreeMap::new();
        for partition in self.shared.partitions() {
            by_class.entry(ClassName::clone(&partition.class)).or_default().push(partition);
        }
        for (class, partitions) in by_class {
            let bounds = self.bounds(&class);
            let oldest = now.minus(bounds.retention);
            // In the archive they take no room here.
            let here = |one: &Partition| if one.remote().is_none() { one.stored_bytes() } else { 0 };
            let mut bytes: u64 = partitions.iter().map(|one| here(one)).sum();
            let newest = partitions.last().map(|newest| newest.id);
            for partition in partitions {
                // The one that takes pages is never too large: it is what there is.
                let is_too_large = bounds.bytes.is_some_and(|max| bytes > max)
                    && Some(partition.id) != newest
                    && partition.remote().is_none();
                if partition.id.day.end() < oldest || is_too_large {
                    bytes = bytes.saturating_sub(here(&partition));
                    let reason = if is_too_large { "bytes" } else { "age" };
                    self.remove(&partition, reason)?;
                }
            }
        }
        self.bound_archive()?;
        self.make_room()
    }

    /// Removes the oldest partitions from an archive that is too large.
    fn bound_archive(&self) -> io::Result<()> {
        let Some(max) = self.options.archive.as_ref().and_then(|archive| archive.retention_bytes) else {
            return Ok(());
        };
        let partitions = self.shared.partitions();
        let bytes = |one: &Arc<Partition>| one.remote().map(|remote| remote.manifest.stored_bytes());
        let archived: Vec<(&Arc<Partition>, u64)> =
            partitions.iter().filter_map(|one| Some((one, bytes(one)?))).collect();
        let mut all: u64 = archived.iter().map(|(_, bytes)| *bytes).sum();
        for (partition, bytes) in archived {
            if all <= max {
                break;
            }
            self.remove(partition, "bytes of the archive")?;
            all -= bytes;
        }
        Ok(())
    }

    /// The clock's time, without its leaps forward.
    fn expiry_time(&self, clock: &dyn Clock) -> LogTime {
        let (now, elapsed) = (clock.now_ns(), clock.elapsed());
        let mut expiry = self.upkeep.expiry.lock().unwrap_or_else(PoisonError::into_inner);
        let (from, at) = expiry.unwrap_or_else(|| {
            let newest = self.shared.partitions().last().map(|newest| newest.id.day.end());
            (newest.unwrap_or(now).min(now), elapsed)
        });
        let passed = elapsed.saturating_sub(at).saturating_mul(CATCH_UP);
        let until = from.0.saturating_add(i64::try_from(passed.as_nanos()).unwrap_or(i64::MAX));
        let trusted = now.min(LogTime(until));
        *expiry = Some((trusted, elapsed));
        trusted
    }

    pub(super) fn bounds(&self, class: &str) -> Bounds {
        let options = &self.options;
        let known = options.classes.iter().find(|known| known.name == class);
        match known {
            Some(known) => Bounds { retention: known.retention, bytes: known.retention_bytes },
            // A class that is configured no more goes by the rule of all.
            None => Bounds {
                retention: options.retention,
                bytes: options.retention_bytes.filter(|_| class.is_empty()),
            },
        }
    }

    /// Removes partitions while more of the disk is in use than may be.
    fn make_room(&self) -> io::Result<()> {
        let Some(share) = self.options.disk_max_share else { return Ok(()) };
        loop {
            let room = self.shared.disk.room(&self.shared.dir)?;
            if room.total.saturating_sub(room.free) as f64 <= share * room.total as f64 {
                return Ok(());
            }
            let Some(victim) = self.first_to_go() else {
                tracing::warn!("the disk is fuller than logs may fill it, and no partition is left to go");
                return Ok(());
            };
            if !self.remove(&victim, "disk")? {
                return Ok(());
            }
        }
    }

    /// The oldest partition of the class that matters least. The newest of each class stays, and what is in the archive
    /// takes no room.
    fn first_to_go(&self) -> Option<Arc<Partition>> {
        let partitions = self.shared.partitions();
        let rank = |class: &str| {
            let known = self.options.classes.iter().rposition(|known| known.name == class);
            // Later classes matter less; lines in no class matter most, and what is configured no more least.
            known.map_or(if class.is_empty() { 0 } else { usize::MAX }, |at| at + 1)
        };
        let is_newest = |one: &Arc<Partition>| {
            !partitions.iter().any(|other| other.class == one.class && other.id > one.id)
        };
        let may_go = partitions.iter().filter(|one| !is_newest(one) && one.remote().is_none());
        may_go.min_by_key(|one| (std::cmp::Reverse(rank(&one.class)), one.id)).cloned()
    }

    /// Answers whether it is gone: not while somebody writes it anew or archives it.
    fn remove(&self, partition: &Partition, reason: &str) -> io::Result<bool> {
        let Some(_work) = partition.try_work() else { return Ok(false) };
        // From here on the indexer makes another one.
        *partition.is_over() = true;
        let mut partitions = self.shared.partitions.write().unwrap_or_else(PoisonError::into_inner);
        if partitions.remove(&partition.id).is_none() {
            return Ok(true);
        }
        self.shared.telemetry.partitions.set(partitions.len() as i64);
        drop(partitions);
        partition.mark_gone();
        // Renamed first, so that a crash in between leaves no half of a partition.
        let name = partition.id.name(&partition.class);
        let gone = self.shared.dir.join(format!("{GONE}{name}"));
        self.shared.disk.rename(partition.dir(), &gone)?;
        self.shared.disk.sync_dir(&self.shared.dir)?;
        if is_marked(&*self.shared.disk, &gone)? {
            // What is in the archive goes in its turn; until then this stands for it.
            for name in self.shared.disk.list(&gone)?.iter().filter(|name| !MARKS.contains(&name.as_str())) {
                self.shared.disk.remove_file(&gone.join(name))?;
            }
        } else {
            self.shared.disk.remove_dir_all(&gone)?;
        }
        self.shared.disk.sync_dir(&self.shared.dir)?;
        tracing::info!(partition = name, reason, "log partition expired");
        Ok(true)
    }

    /// Closes one partition that takes no more pages, if there is one.
    pub(crate) fn close_one(&self, now: Timestamp) -> io::Result<()> {
        let now = now.to_log_time();
        let partitions = self.shared.partitions();
        let has_later =
            |one: &Partition| partitions.iter().any(|other| other.class == one.class && other.id > one.id);
        let is_open = |one: &Partition| {
            self.shared.open_pages().iter().any(|open| open.day == one.id.day && open.class == one.class)
        };
        let is_due = |one: &Partition| {
            let is_past = one.id.day.end() < now.minus(CLOSE_AFTER);
            !one.is_closed() && (has_later(one) || is_past) && !is_open(one)
        };
        if let Some(partition) = partitions.iter().find(|partition| is_due(partition)) {
            return self.close_partition(partition);
        }
        // One that an earlier release closed, or of which the index was damaged.
        let lacks_index =
            |one: &&Arc<Partition>| one.is_closed() && one.index().is_none() && one.remote().is_none();
        let Some(partition) = partitions.iter().rev().find(lacks_index) else { return Ok(()) };
        let Some(_work) = partition.try_work() else { return Ok(()) };
        partition.make_index(&*self.shared.disk, &self.shared.interned)
    }

    fn close_partition(&self, partition: &Partition) -> io::Result<()> {
        let Some(_work) = partition.try_work() else { return Ok(()) };
        *partition.is_over() = true;
        self.join_small(partition)?;
        partition.make_index(&*self.shared.disk, &self.shared.interned)?;
        partition.close(&*self.shared.disk)
    }

    /// Makes an index of the pages that there are.
    #[cfg(test)]
    pub(crate) fn index_all(&self) {
        for partition in self.shared.partitions() {
            partition.make_index(&*self.shared.disk, &self.shared.interned).unwrap();
        }
    }

    /// Closes all partitions, as if their days were over.
    #[cfg(test)]
    pub(crate) fn close_all(&self) {
        for partition in self.shared.partitions().iter().filter(|partition| !partition.is_closed()) {
            self.close_partition(partition).unwrap();
        }
    }

    /// Writes small pages that follow one another as one.
    fn join_small(&self, partition: &Partition) -> io::Result<()> {
        // Lines of a damaged page may come back out of the log: no other page may seem to have their records.
        if !partition.lost().is_empty() {
            return Ok(());
        }
        let mut pages = partition.pages();
        pages.sort_by_key(|page| page.summary.sequences);
        for run in small_runs(&pages) {
            if let Err(error) = self.join(partition, run) {
                match error {
                    PageError::Read(error) => return Err(error),
                    // Verifying finds it, and sets it aside.
                    PageError::Damaged(_) => tracing::error!(%error, "log pages were not joined"),
                }
            }
        }
        Ok(())
    }

    fn join(&self, partition: &Partition, run: &[Arc<PageFile>]) -> Result<(), PageError> {
        let open = |page: &Arc<PageFile>| page.open(&*self.shared.disk, &self.shared.interned);
        let sealed = run.iter().map(open).collect::<Result<Vec<Arc<SealedPage>>, _>>()?;
        let joined = rewrite(&sealed, &mut |_| true)?;
        let bytes = seal(&joined)?;
        let page = partition.write(&*self.shared.disk, &self.shared.interned, &bytes)?;
        let old: Vec<u32> = run.iter().map(|page| page.summary.number).collect();
        partition.replace(&self.shared.disk, &old, Some(page));
        Ok(())
    }
}

/// Neighbours that are small and together no larger than a page may be.
fn small_runs(pages: &[Arc<PageFile>]) -> Vec<&[Arc<PageFile>]> {
    let is_small = |page: &PageFile| page.summary.rows < SMALL_ROWS && page.summary.raw_bytes < SMALL_BYTES;
    let mut runs = Vec::new();
    let mut start = 0;
    while start < pages.len() {
        let (mut end, mut rows, mut bytes) = (start, 0, 0);
        while let Some(page) = pages.get(end).filter(|page| is_small(page)) {
            rows += page.summary.rows;
            bytes += page.summary.raw_bytes;
            if rows > PAGE_MAX_ROWS as u64 || bytes > PAGE_MAX_BYTES as u64 {
                break;
            }
            end += 1;
        }
        if end > start + 1 {
            runs.push(&pages[start..end]);
        }
        start = end.max(start + 1);
    }
    runs
}
