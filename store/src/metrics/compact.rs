//! Compaction: samples of the head become blocks, blocks of a day become one, old ones go.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use binnacle_model::storage::{AppendReport, HistogramSample};
use binnacle_model::{Interner, Labels, Sample, TimeRange, Timestamp};

use super::block::{self, Block, BlockError, BlockWriter, ChunkReader, Chunked, Cut};
use super::chunk::Scratch;
use super::head::{Held, Place};
use super::lost::{Lost, quarantine};
use super::{Metrics, sort_unique};
use crate::fs::Disk;

/// Series that are copied out of the head under one lock.
const PLACES_PER_LOCK: usize = 1024;

/// What blocks are merged into.
pub(super) const DAY: Duration = Duration::from_hours(24);

/// So many blocks of a day are merged in any case; fewer, once the smaller ones are worth the largest's
/// rewriting.
const MERGE_COUNT: usize = 12;

/// The rest of a day's blocks must have this share of the largest.
const MERGE_SHARE: u64 = 8;

/// By so much the newest block may be older than it is in the worst of times, and the clock is still believed.
const CLOCK_SLACK: Duration = Duration::from_hours(1);

/// A span of time in which blocks are made.
pub(super) fn window_of(at: Timestamp, span: i64) -> i64 {
    at.0.div_euclid(span)
}

impl Metrics {
    /// Up to where the head's samples are due for blocks.
    fn due_before(&self, now: Timestamp) -> Option<Timestamp> {
        let span = binnacle_model::time::millis(self.options.block_span);
        // A sample from a clock that ran ahead does not make everything else old.
        let newest = self.head().newest()?.min(now);
        Some(Timestamp(window_of(newest.minus(self.options.head_linger), span) * span))
    }

    pub(super) fn compact_head(&self, now: Timestamp) -> io::Result<()> {
        let Some(before) = self.due_before(now) else { return Ok(()) };
        let is_due = {
            let head = self.head();
            // Late samples wait for the next span, so that each does not make a block of its own.
            let is_new_span = head.last_cut().is_none_or(|last| last < before);
            head.is_parked() || (is_new_span && head.oldest().is_some_and(|oldest| oldest < before))
        };
        if !is_due {
            return Ok(());
        }
        let parked = self.head().park(&self.wal, before);
        let series = copy_out(&parked.places, |places| self.head().parked(places));
        // Encoded without the lock: samples go on coming in.
        let mut struck = AppendReport::default();
        let mut written = self.write_windows(&series, parked.cut, &mut struck)?;
        self.telemetry.count_samples(&struck);
        let mut blocks = self.blocks.write().unwrap_or_else(PoisonError::into_inner);
        blocks.append(&mut written);
        self.head().forget_parked();
        Ok(())
    }

    /// A block for each span of which there are samples. Only the last one says that all is written.
    fn write_windows(
        &self,
        series: &[(Labels, Held)],
        cut: Cut,
        struck: &mut AppendReport,
    ) -> io::Result<Vec<Arc<Block>>> {
        let mut written = Vec::new();
        let opened = self
            .write_windows_in(&self.dir, series, cut, struck, &mut written)
            .and_then(|()| written.iter().map(|(path, number)| self.open_written(path, *number)).collect());
        if opened.is_err() {
            // Nobody would know of them before the next start.
            for (path, _) in &written {
                self.disk.remove_file(path)?;
            }
        }
        opened
    }

    /// Counts as `struck` what other blocks have already.
    fn write_windows_in(
        &self,
        dir: &Path,
        series: &[(Labels, Held)],
        cut: Cut,
        struck: &mut AppendReport,
        written: &mut Vec<(PathBuf, u64)>,
    ) -> io::Result<()> {
        let span = binnacle_model::time::millis(self.options.block_span);
        let windows: BTreeSet<i64> = series.iter().flat_map(|(_, held)| held.windows(span)).collect();
        // The last one that has anything.
        let mut last: Option<(BlockWriter<'_>, u64)> = None;
        for window in windows {
            let number = self.take_block_number();
            let start = Timestamp(window * span);
            let range = TimeRange { start, end: Timestamp(start.0 + span - 1) };
            let mut writer = BlockWriter::create(&*self.disk, dir, number)?;
            let mut stored = self.stored_in(range);
            let (mut scratch, mut samples) = (Scratch::default(), Vec::new());
            for (labels, held) in series {
                samples.clear();
                held.decode_range(range, &mut scratch, &mut samples);
                sort_unique(&mut samples, |sample: &Sample| sample.timestamp);
                let mut histograms = held.histograms_in(range);
                stored.strike(labels, &mut samples, &mut histograms, struck);
                writer.add(labels, &samples, &histograms)?;
            }
            if writer.is_empty() {
                continue;
            }
            if let Some((writer, number)) = last.replace((writer, number)) {
                written.push((writer.finish(Cut::NONE, &[])?, number));
            }
        }
        if let Some((writer, number)) = last {
            written.push((writer.finish(cut, &[])?, number));
        }
        Ok(())
    }

    pub(super) fn open_written(&self, path: &Path, number: u64) -> io::Result<Arc<Block>> {
        let block = block::open(&*self.disk, path, number, &self.shared).map_err(io::Error::other)?;
        let (samples, bytes) = (block.samples(), block.bytes());
        tracing::info!(path = %path.display(), samples, bytes, "block written");
        Ok(Arc::new(block))
    }

    /// Publishes a block, or leaves nothing of it.
    pub(super) fn publish(
        &self,
        writer: BlockWriter<'_>,
        number: u64,
        cut: Cut,
        sources: &[u64],
    ) -> io::Result<Arc<Block>> {
        let path = writer.finish(cut, sources)?;
        let opened = self.open_written(&path, number);
        if opened.is_err() {
            // Nobody would know of it before the next start.
            self.disk.remove_file(&path)?;
        }
        opened
    }

    /// A number that no block ever had.
    pub(super) fn take_block_number(&self) -> u64 {
        self.next_block.fetch_add(1, Ordering::Relaxed)
    }

    /// Merges the blocks of days of which no sample is in the head any more.
    pub(super) fn merge_days(&self, now: Timestamp) {
        let Some(before) = self.due_before(now) else { return };
        let day = binnacle_model::time::millis(DAY);
        let blocks = self.blocks();
        let day_of = |block: &Block| {
            let days = (window_of(block.range().start, day), window_of(block.range().end, day));
            (!block.is_rollup() && days.0 == days.1 && (days.0 + 1) * day <= before.0).then_some(days.0)
        };
        let days: BTreeSet<i64> = blocks.iter().filter_map(|block| day_of(block)).collect();
        for day in days {
            let sources: Vec<Arc<Block>> =
                blocks.iter().filter(|block| day_of(block) == Some(day)).cloned().collect();
            // One day that cannot be merged holds up neither the others nor the end of WAL files.
            if is_worth_merging(&sources)
                && let Err(error) = self.space.with_reserve(|| self.replace(&sources, None))
            {
                tracing::error!(%error, day, "blocks of a day were not merged; will try again");
            }
        }
    }

    /// Makes one block of several, or a new one of one.
    pub(super) fn replace(&self, sources: &[Arc<Block>], drops: Option<Drops<'_>>) -> io::Result<()> {
        if let ([rollup], Some(drops)) = (sources, drops)
            && rollup.is_rollup()
        {
            let new = self.rewrite_rollup(rollup, drops)?;
            self.swap(sources, new);
            return self.retire(rollup);
        }
        let number = self.take_block_number();
        let mut writer = BlockWriter::create(&*self.disk, &self.dir, number)?;
        match copy_merged(sources, &mut writer, drops) {
            Ok(()) => {}
            // The damaged one is set aside, and the others are merged next time.
            Err(error @ BlockError::Corrupt { .. }) => {
                tracing::error!(%error, "blocks were not merged");
                return Ok(());
            }
            Err(BlockError::Read { cause, .. }) => return Err(cause),
            Err(error) => return Err(io::Error::other(error)),
        }
        if writer.is_empty() {
            drop(writer);
            self.swap(sources, None);
            return self.retire_all(sources);
        }
        let cut = sources.iter().map(|block| block.cut()).max_by_key(|cut| cut.wal_file);
        let numbers: Vec<u64> = sources.iter().map(|block| block.number).collect();
        let new = self.publish(writer, number, cut.unwrap_or(Cut::NONE), &numbers)?;
        self.swap(sources, Some(new));
        self.retire_all(sources)
    }

    /// Does it to all; the error is the first one met.
    fn retire_all(&self, blocks: &[Arc<Block>]) -> io::Result<()> {
        let outcomes: Vec<io::Result<()>> = blocks.iter().map(|block| self.retire(block)).collect();
        outcomes.into_iter().collect()
    }

    /// Lets queries see a block in place of others.
    fn swap(&self, gone: &[Arc<Block>], new: Option<Arc<Block>>) {
        let mut blocks = self.blocks.write().unwrap_or_else(PoisonError::into_inner);
        blocks.retain(|block| !gone.iter().any(|other| other.number == block.number));
        blocks.extend(new);
    }

    /// Removes the file of a block that another one replaces; one that was damaged is kept aside.
    fn retire(&self, block: &Block) -> io::Result<()> {
        if !block.is_damaged() {
            // Whoever reads it holds the open file.
            return self.remove(block.path());
        }
        let reason = "parts of it could not be merged";
        self.set_aside(block, &BlockError::Corrupt { path: block.path().to_path_buf(), reason })
    }

    /// Removes the file of a block that nobody reads any more, at once or, if that fails, later.
    fn remove(&self, path: &Path) -> io::Result<()> {
        match self.disk.remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                self.leftover.lock().unwrap_or_else(PoisonError::into_inner).push(path.to_path_buf());
                Err(error)
            }
            _ => Ok(()),
        }
    }

    /// Does it to all; the error is the first one met.
    fn remove_all(&self, paths: impl IntoIterator<Item = PathBuf>) -> io::Result<()> {
        let outcomes: Vec<io::Result<()>> = paths.into_iter().map(|path| self.remove(&path)).collect();
        outcomes.into_iter().collect()
    }

    fn set_aside(&self, block: &Block, error: &BlockError) -> io::Result<()> {
        let lost: Lost = quarantine(&*self.disk, block.path(), error)?;
        self.telemetry.blocks_set_aside.inc();
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).push(lost);
        Ok(())
    }

    /// Moves blocks out of the way of which the index cannot be read. Those with damage in single chunks
    /// stay: the rest of them is sound.
    pub(super) fn set_aside_damaged(&self) -> io::Result<()> {
        for block in self.blocks().into_iter().filter(|block| block.is_damaged()) {
            let Err(error @ BlockError::Corrupt { .. }) = block.series() else { continue };
            self.set_aside(&block, &error)?;
            let mut blocks = self.blocks.write().unwrap_or_else(PoisonError::into_inner);
            blocks.retain(|other| other.number != block.number);
        }
        Ok(())
    }

    /// The present, as far as what is stored believes it: a clock that jumps ahead must not take everything away. Where
    /// samples come in, a block is never much older than the present.
    pub(super) fn believed(&self, now: Timestamp) -> Timestamp {
        let newest = self.blocks().iter().map(|block| block.range().end).max();
        let lag = self.options.block_span + self.options.head_linger + CLOCK_SLACK;
        newest.map_or(now, |newest| now.min(newest.plus(lag)))
    }

    pub(super) fn expire(&self, now: Timestamp) -> io::Result<()> {
        let leftover = std::mem::take(&mut *self.leftover.lock().unwrap_or_else(PoisonError::into_inner));
        let removed = self.remove_all(leftover);
        let now = self.believed(now);
        let oldest = now.minus(self.options.retention);
        let oldest_rollup = now.minus(self.options.rollup_retention.unwrap_or_default());
        let rolled = self.roll_up_expired(oldest, oldest_rollup);
        let is_kept = |block: &Block| {
            let oldest = match self.options.rollup_retention {
                _ if block.is_rollup() => oldest_rollup,
                // It waits for the rest of its day, or for its rollup to be written; not where there is no room.
                Some(_) if rolled.is_ok() || !self.space.is_low() => oldest_rollup,
                _ => oldest,
            };
            block.range().end >= oldest
        };
        // Where that cannot be found out, nothing goes by size this time.
        let (budget, measured) = match self.block_budget() {
            Ok(budget) => (budget, Ok(())),
            Err(error) => (None, Err(error)),
        };
        let gone: Vec<Arc<Block>> = {
            let mut blocks = self.blocks.write().unwrap_or_else(PoisonError::into_inner);
            let (kept, mut gone): (Vec<_>, Vec<_>) = blocks.drain(..).partition(|block| is_kept(block));
            *blocks = kept;
            gone.extend(over_budget(&mut blocks, budget));
            gone
        };
        for block in &gone {
            tracing::info!(path = %block.path().display(), "block expired");
        }
        // Whoever reads one holds the open file.
        let removed = self.remove_all(gone.iter().map(|block| block.path().to_path_buf())).and(removed);
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.retain(|lost| lost.range.end >= oldest.min(oldest_rollup));
        rolled.and(removed).and(measured)
    }

    /// Bytes that blocks may have: those of the log and the checkpoint count, too. Half of it is theirs in any case: a log
    /// that somebody else holds must not take their place.
    fn block_budget(&self) -> io::Result<Option<u64>> {
        let Some(all) = self.options.retention_bytes else { return Ok(None) };
        let beside = self.wal.bytes()? + self.checkpoint_bytes();
        Ok(Some(all.saturating_sub(beside).max(all / 2)))
    }

    /// Puts rollups in the place of blocks of days that are too old, but not older than `oldest_rollup`. A day that fails
    /// holds up no other.
    fn roll_up_expired(&self, oldest: Timestamp, oldest_rollup: Timestamp) -> io::Result<()> {
        if self.options.rollup_retention.is_none() {
            return Ok(());
        }
        let mut days: BTreeMap<i64, Vec<Arc<Block>>> = BTreeMap::new();
        let day = binnacle_model::time::millis(DAY);
        for block in self.blocks().into_iter().filter(|block| !block.is_rollup()) {
            days.entry(window_of(block.range().end, day)).or_default().push(block);
        }
        let is_due = |block: &Arc<Block>| (oldest_rollup..oldest).contains(&block.range().end);
        let mut outcome = Ok(());
        for blocks in days.into_values().filter(|blocks| blocks.iter().all(is_due)) {
            let (done, due): (Vec<_>, Vec<_>) =
                blocks.into_iter().partition(|block| self.is_rolled_up(block));
            let rolled = match due[..] {
                [] => Ok(None),
                _ => self.space.with_reserve(|| self.roll_up(&due)),
            };
            let replaced = rolled.and_then(|rollup| {
                let gone: Vec<Arc<Block>> = due.into_iter().chain(done).collect();
                self.swap(&gone, rollup);
                self.retire_all(&gone)
            });
            if let Err(error) = &replaced {
                tracing::error!(%error, "blocks were not rolled up");
            }
            outcome = outcome.and(replaced);
        }
        outcome
    }

    /// Writes all that is in the store into blocks in `dir`, as a store of its own.
    pub(crate) fn snapshot(&self, dir: &Path, skip_head: bool) -> io::Result<()> {
        let _moving = self.moving.lock().unwrap_or_else(PoisonError::into_inner);
        self.disk.create_dir_all(dir)?;
        let (blocks, places) = {
            let blocks = self.blocks.read().unwrap_or_else(PoisonError::into_inner);
            (blocks.clone(), if skip_head { Vec::new() } else { self.head().places() })
        };
        let series = copy_out(&places, |places| self.head().held(places));
        for block in &blocks {
            let path = dir.join(block.path().file_name().unwrap_or_default());
            // A block never changes: another name for it costs nothing.
            if self.disk.link(block.path(), &path).is_err() {
                block.copy_to(&*self.disk, &path)?;
            }
        }
        // What is struck here is struck, and counted, once more when the head becomes blocks.
        let struck = &mut AppendReport::default();
        self.write_windows_in(dir, &series, Cut::NONE, struck, &mut Vec::new())?;
        self.disk.sync_dir(dir)
    }
}

/// Copies series out of the head, ascending by labels.
fn copy_out(places: &[Place], copy: impl Fn(&[Place]) -> Vec<(Labels, Held)>) -> Vec<(Labels, Held)> {
    let mut series: Vec<(Labels, Held)> = places.chunks(PLACES_PER_LOCK).flat_map(copy).collect();
    series.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    series
}

/// The oldest blocks, taken out until the rest fits; those with samples before rollups, which are small.
fn over_budget(blocks: &mut Vec<Arc<Block>>, budget: Option<u64>) -> Vec<Arc<Block>> {
    let mut gone = Vec::new();
    let Some(budget) = budget else { return gone };
    let mut bytes: u64 = blocks.iter().map(|block| block.bytes()).sum();
    while bytes > budget {
        let order = |block: &Arc<Block>| (block.is_rollup(), block.range().end);
        let oldest = blocks.iter().enumerate().min_by_key(|(_, block)| order(block));
        let Some((at, _)) = oldest else { break };
        let block = blocks.remove(at);
        bytes -= block.bytes();
        gone.push(block);
    }
    gone
}

fn is_worth_merging(blocks: &[Arc<Block>]) -> bool {
    let largest = blocks.iter().map(|block| block.bytes()).max().unwrap_or(0);
    let rest = blocks.iter().map(|block| block.bytes()).sum::<u64>() - largest;
    blocks.len() >= MERGE_COUNT || (blocks.len() >= 2 && rest * MERGE_SHARE >= largest)
}

/// The series of a block, one after the other.
pub(super) struct Source {
    reader: ChunkReader,
    rows: std::vec::IntoIter<Chunked>,
    group: usize,
    next: Option<Chunked>,
}

impl Source {
    pub(super) fn new(block: &Arc<Block>) -> Result<Self, BlockError> {
        let reader = ChunkReader::new(Arc::clone(block))?;
        let mut source = Self { reader, rows: Vec::new().into_iter(), group: 0, next: None };
        source.advance()?;
        Ok(source)
    }

    fn advance(&mut self) -> Result<(), BlockError> {
        self.next = self.rows.next();
        if self.next.is_none()
            && let Some(rows) = self.reader.block().group(self.group)?
        {
            self.group += 1;
            self.rows = rows.into_iter();
            self.next = self.rows.next();
        }
        Ok(())
    }
}

impl Source {
    /// Passes over what is less than `labels`, and adds what that series has in chunks that touch `range`. Nothing is added
    /// of a chunk that cannot be read.
    pub(super) fn read_series(
        &mut self,
        labels: &Labels,
        range: TimeRange,
        samples: &mut Vec<Sample>,
        histograms: &mut Vec<HistogramSample>,
    ) -> Result<(), BlockError> {
        while self.next.as_ref().is_some_and(|(other, _)| other < labels) {
            self.advance()?;
        }
        let Some((_, chunks)) = self.next.take_if(|(other, _)| other == labels) else { return Ok(()) };
        for chunk in chunks {
            if !self.reader.range(&chunk).overlaps(range) {
                continue;
            }
            match self.reader.read(chunk, samples, histograms) {
                Err(BlockError::Corrupt { .. }) => {}
                other => other?,
            }
        }
        self.advance()
    }
}

/// Samples for which it holds are left out on their way into another block.
pub(super) type Drops<'m> = &'m dyn Fn(Timestamp, &Labels) -> bool;

pub(super) fn copy_merged(
    blocks: &[Arc<Block>],
    writer: &mut BlockWriter<'_>,
    drops: Option<Drops<'_>>,
) -> Result<(), BlockError> {
    let mut sources: Vec<Source> = blocks.iter().map(Source::new).collect::<Result<_, _>>()?;
    let (mut samples, mut histograms) = (Vec::new(), Vec::new());
    loop {
        let next = sources.iter().filter_map(|source| source.next.as_ref()).map(|(labels, _)| labels).min();
        let Some(labels) = next.cloned() else { return Ok(()) };
        samples.clear();
        histograms.clear();
        for source in &mut sources {
            if source.next.as_ref().is_none_or(|(other, _)| *other != labels) {
                continue;
            }
            let (_, chunks) = source.next.take().expect("looked at above");
            for chunk in chunks {
                match source.reader.read(chunk, &mut samples, &mut histograms) {
                    // The rest is sound; the block will be set aside.
                    Err(error @ BlockError::Corrupt { .. }) => {
                        tracing::error!(%error, series = %labels, "samples could not be merged");
                    }
                    other => other?,
                }
            }
            source.advance()?;
        }
        sort_unique(&mut samples, |sample: &Sample| sample.timestamp);
        sort_unique(&mut histograms, |one: &HistogramSample| one.timestamp);
        if let Some(drops) = drops {
            samples.retain(|sample| !drops(sample.timestamp, &labels));
            histograms.retain(|one| !drops(one.timestamp, &labels));
        }
        if samples.is_empty() && histograms.is_empty() {
            continue;
        }
        writer
            .add(&labels, &samples, &histograms)
            .map_err(|cause| BlockError::Read { path: blocks[0].path().to_path_buf(), cause })?;
    }
}

/// Whether every chunk can be read.
fn is_sound(block: &Arc<Block>) -> Result<(), BlockError> {
    let mut source = Source::new(block)?;
    let (mut samples, mut histograms) = (Vec::new(), Vec::new());
    while let Some((_, chunks)) = source.next.take() {
        samples.clear();
        histograms.clear();
        chunks.into_iter().try_for_each(|chunk| source.reader.read(chunk, &mut samples, &mut histograms))?;
        source.advance()?;
    }
    Ok(())
}

/// Gives blocks of one number numbers of their own: an earlier release could write two.
pub(super) fn renumber_twins(
    disk: &dyn Disk,
    blocks: &mut [Arc<Block>],
    shared: &Arc<Mutex<Interner>>,
) -> Result<(), BlockError> {
    let mut next = blocks.iter().map(|block| block.number).max().unwrap_or(0) + 1;
    for at in 1..blocks.len() {
        if blocks[at].number != blocks[at - 1].number {
            continue;
        }
        let path = blocks[at].path().to_path_buf();
        let moved = path.with_file_name(block::file_name(next, blocks[at].range(), blocks[at].is_rollup()));
        let read = |cause| BlockError::Read { path: path.clone(), cause };
        disk.rename(&path, &moved).map_err(read)?;
        disk.sync_dir(path.parent().unwrap_or(Path::new("."))).map_err(read)?;
        blocks[at] = Arc::new(block::open(disk, &moved, next, shared)?);
        next += 1;
    }
    blocks.sort_by_key(|block| block.number);
    Ok(())
}

/// Removes blocks that were merged into others before a crash kept them from being removed.
pub(super) fn remove_merged(
    disk: &dyn Disk,
    blocks: &mut Vec<Arc<Block>>,
    lost: &mut Vec<Lost>,
) -> io::Result<()> {
    let day = binnacle_model::time::millis(DAY);
    let day_of = |block: &Block| window_of(block.range().start, day);
    let mut gone: BTreeSet<u64> = BTreeSet::new();
    for block in &*blocks {
        let is_alone =
            !blocks.iter().any(|other| other.number < block.number && day_of(other) == day_of(block));
        if !is_alone {
            // One that cannot be read merged nothing that we would know of; queries will tell.
            gone.extend(block.sources().unwrap_or_default());
            block.rest();
        }
    }
    for block in blocks.iter().filter(|block| gone.contains(&block.number)) {
        match is_sound(block) {
            Ok(()) => disk.remove_file(block.path())?,
            // What could not be merged is kept aside, and said.
            Err(error) => lost.push(quarantine(disk, block.path(), &error)?),
        }
    }
    blocks.retain(|block| !gone.contains(&block.number));
    Ok(())
}
