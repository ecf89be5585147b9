//! Deletion of series by selector: from the head at once, from blocks by writing them anew.
//!
//! ```text
//! delete ─► WAL record, head ─► fdatasync ─► each block that has such samples: a new one without them
//! start  ─► replay does the same in the same order; blocks that are as old as the record are looked at again
//! ```
//!
//! What comes in later, for the same series and moments, stays: a record of the WAL deletes what was before it.

use std::collections::HashSet;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};

use binnacle_model::storage::ALL_TIME;
use binnacle_model::{MatchOp, Matcher, TimeRange, Timestamp};

use super::Metrics;
use super::block::{Block, BlockError};
use crate::bytes::{Reader, put_text, put_varint, put_zigzag};

/// Matchers of one deletion.
const MATCHERS_MAX: usize = 1000;

/// What is to go.
#[derive(Debug, Clone)]
pub(super) struct Deletion {
    pub(super) matchers: Vec<Matcher>,
    /// Inclusive at both ends.
    pub(super) range: TimeRange,
    /// Blocks with higher numbers have nothing of it.
    pub(super) last_block: u64,
}

impl Deletion {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_zigzag(out, self.range.start.0);
        put_zigzag(out, self.range.end.0);
        put_varint(out, self.last_block);
        put_varint(out, self.matchers.len() as u64);
        for matcher in &self.matchers {
            put_varint(out, code_of(matcher.op));
            put_text(out, &matcher.name);
            put_text(out, &matcher.value);
        }
    }

    pub(super) fn decode(payload: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(payload);
        let range = TimeRange { start: Timestamp(reader.zigzag()?), end: Timestamp(reader.zigzag()?) };
        let last_block = reader.varint()?;
        let count = reader.count().filter(|count| *count <= MATCHERS_MAX)?;
        let mut matchers = Vec::with_capacity(count);
        for _ in 0..count {
            let op = match reader.varint()? {
                0 => MatchOp::Equal,
                1 => MatchOp::NotEqual,
                2 => MatchOp::Regex,
                3 => MatchOp::NotRegex,
                _ => return None,
            };
            matchers.push(Matcher::new(reader.text()?, op, reader.text()?).ok()?);
        }
        reader.is_empty().then_some(Self { matchers, range, last_block })
    }
}

fn code_of(op: MatchOp) -> u64 {
    match op {
        MatchOp::Equal => 0,
        MatchOp::NotEqual => 1,
        MatchOp::Regex => 2,
        MatchOp::NotRegex => 3,
    }
}

/// Samples that are kept for a shorter time than the others.
#[derive(Debug, Clone)]
pub struct ShortRetention {
    /// Of these series.
    pub matchers: Vec<Matcher>,
    /// For so long.
    pub retention: std::time::Duration,
}

impl Metrics {
    /// See [`binnacle_model::storage::Admin::delete`].
    pub(crate) fn delete(&self, matchers: &[Vec<Matcher>], range: TimeRange) -> io::Result<()> {
        let _moving = self.moving.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = self.wal.error() {
            return Err(io::Error::other(error));
        }
        if matchers.iter().any(|all| all.len() > MATCHERS_MAX) {
            let reason = format!("a selector has more than {MATCHERS_MAX} matchers");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        let last_block = self.next_block.load(Ordering::Relaxed) - 1;
        let deletions: Vec<Deletion> =
            matchers.iter().map(|all| Deletion { matchers: all.clone(), range, last_block }).collect();
        let sequence = {
            let mut head = self.head();
            deletions.iter().map(|one| head.delete(&self.wal, one)).max()
        };
        // Before the log answers: what it writes later is done then, too.
        self.deletions.lock().unwrap_or_else(PoisonError::into_inner).extend(deletions);
        if let Some(sequence) = sequence {
            self.wal.commit(sequence).map_err(io::Error::other)?;
        }
        self.delete_pending()
    }

    /// Does what a crash may have kept a deletion from doing. What the disk refuses now is tried again later.
    pub(crate) fn finish_deletions(&self) {
        let _moving = self.moving.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = self.delete_pending() {
            tracing::error!(%error, "series that were deleted are still in blocks; will try again");
        }
    }

    /// Whether samples that were deleted may still be in blocks.
    pub(super) fn has_pending_deletions(&self) -> bool {
        !self.deletions.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Takes out of blocks what is to go from them.
    pub(super) fn delete_pending(&self) -> io::Result<()> {
        let pending = self.deletions.lock().unwrap_or_else(PoisonError::into_inner).clone();
        pending.iter().try_for_each(|one| self.delete_from_blocks(one))?;
        // Nobody else adds any: whoever does holds the same lock as whoever calls this.
        self.deletions.lock().unwrap_or_else(PoisonError::into_inner).clear();
        Ok(())
    }

    fn delete_from_blocks(&self, deletion: &Deletion) -> io::Result<()> {
        for block in self.blocks() {
            if block.number > deletion.last_block || !block.range().overlaps(deletion.range) {
                continue;
            }
            match block.select(&deletion.matchers, deletion.range) {
                Ok(found) if found.is_empty() => {}
                Ok(_) => self.space.with_reserve(|| self.rewrite_without(&block, deletion))?,
                // Nobody can answer what nobody can read.
                Err(error @ BlockError::Corrupt { .. }) => {
                    tracing::error!(%error, "nothing was deleted from a damaged block");
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        Ok(())
    }

    fn rewrite_without(&self, block: &Arc<Block>, deletion: &Deletion) -> io::Result<()> {
        let is_deleted = |at: Timestamp, labels: &binnacle_model::Labels| {
            deletion.range.contains(at) && deletion.matchers.iter().all(|one| one.matches_labels(labels))
        };
        self.replace(std::slice::from_ref(block), Some(&is_deleted))
    }

    /// Removes what is kept for a shorter time, from blocks that are wholly older. A block that fails holds up no
    /// other.
    pub(super) fn expire_selected(&self, now: Timestamp) {
        for (at, short) in self.options.short_retentions.iter().enumerate() {
            let oldest = now.minus(short.retention);
            for block in self.blocks().into_iter().filter(|block| block.range().end < oldest) {
                // A block never changes: what it has not now it will never have.
                if !self.looked_at().insert((block.number, at)) {
                    continue;
                }
                let (matchers, last_block) = (short.matchers.clone(), block.number);
                let deletion = Deletion { matchers, range: ALL_TIME, last_block };
                let has_some =
                    block.select(&deletion.matchers, ALL_TIME).is_ok_and(|found| !found.is_empty());
                if has_some
                    && let Err(error) = self.space.with_reserve(|| self.rewrite_without(&block, &deletion))
                {
                    tracing::error!(%error, path = %block.path().display(), "series were not expired; will try again");
                    self.looked_at().remove(&(block.number, at));
                }
            }
        }
        let blocks = self.blocks();
        self.looked_at().retain(|(number, _)| blocks.iter().any(|block| block.number == *number));
    }

    fn looked_at(&self) -> MutexGuard<'_, HashSet<(u64, usize)>> {
        self.looked_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deletion_survives_the_log() {
        let matchers = vec![
            Matcher::new("job", MatchOp::Equal, "a").unwrap(),
            Matcher::new("path", MatchOp::NotRegex, "/x|/y").unwrap(),
        ];
        let range = TimeRange { start: Timestamp(-5), end: Timestamp(i64::MAX) };
        let mut bytes = Vec::new();
        Deletion { matchers, range, last_block: 7 }.encode(&mut bytes);
        let read = Deletion::decode(&bytes).unwrap();
        assert_eq!((read.range, read.last_block), (range, 7));
        let shown: Vec<(&str, MatchOp, &str)> =
            read.matchers.iter().map(|one| (&*one.name, one.op, &*one.value)).collect();
        assert_eq!(shown, [("job", MatchOp::Equal, "a"), ("path", MatchOp::NotRegex, "/x|/y")]);
        for cut in 0..bytes.len() {
            assert!(Deletion::decode(&bytes[..cut]).is_none(), "{cut}");
        }
    }
}
