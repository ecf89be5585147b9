//! Tailing: every line of every log file, once, with its place.
//!
//! ```text
//! containers/*.log ─► discover ─► files of a container, rotated ones first
//!                                   │ read whole lines from the offset
//!                                   ├ cri      header off, partial lines joined per stream
//!                                   ├ level
//!                                   └ batch    (file, from, to, entries) ─► LogAppender ─► checkpoint
//! ```
//!
//! Truth is the directory's listing, taken again every quarter of a second. Numbers in comments
//! (L1, L7, …) name the failure modes that a piece of code is for.
//!
//! Invariants:
//! - A batch covers `from..to` of one file without a gap, and no line of it lies outside.
//! - The offset moves only after the store acknowledged; what it acknowledged twice it drops by mark.
//! - A file is identified by device, inode and birth time; its name may change (L1) or be used again.

mod checkpoint;
mod cri;
mod discover;
mod file;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use binnacle_model::push::{FileBatch, LogPush};
use binnacle_model::storage::{AppendError, LogAppender};
use binnacle_model::time::Clock;

use checkpoint::Checkpoints;
use discover::{Found, discover};
use file::TailedFile;

pub(crate) use discover::app_of;
pub use discover::{Input, LineFormat};

use crate::Telemetry;

/// Between two looks at the directories. A line waits this long at most before it is read.
const SCAN_EVERY: Duration = Duration::from_millis(250);

/// Checkpoints are a cache of what the store knows, so that they need not be written at each batch.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(5);

/// Bytes of a push; files take turns, so that a large one does not keep the others waiting (L15).
const PUSH_MAX_BYTES: usize = 4 * 1024 * 1024;

const BACKOFF_MIN: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_secs(15);

/// What to tail and where to remember it.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the files are.
    pub input: Input,
    /// Label `node` of all lines, and a part of each file's identity.
    pub node: String,
    /// Directory for the checkpoint.
    pub state_dir: PathBuf,
}

/// The tailer. Runs on a thread of its own.
pub struct Tailer {
    options: Options,
    store: Arc<dyn LogAppender>,
    clock: Arc<dyn Clock>,
    telemetry: Telemetry,
    files: BTreeMap<String, TailedFile>,
    checkpoints: Checkpoints,
    refused: BTreeSet<PathBuf>,
    /// Read to their end and closed; they stay listed until the kubelet removes them.
    done: BTreeSet<String>,
    /// A push was refused: files go one by one, until it is known whose lines are wrong.
    one_by_one: bool,
    refused_together: bool,
}

impl Tailer {
    /// A tailer; reads its checkpoint.
    pub fn new(
        options: Options,
        store: Arc<dyn LogAppender>,
        clock: Arc<dyn Clock>,
        telemetry: Telemetry,
    ) -> Self {
        let checkpoints = Checkpoints::open(&options.state_dir);
        let (files, refused, done) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        Self {
            options,
            store,
            clock,
            telemetry,
            files,
            checkpoints,
            refused,
            done,
            one_by_one: false,
            refused_together: false,
        }
    }

    /// Tails until `stop` is set. What was read is acknowledged or read again next time.
    pub fn run(mut self, stop: &AtomicBool) {
        let mut saved = Instant::now();
        let mut backoff = BACKOFF_MIN;
        while !stop.load(Ordering::Relaxed) {
            let round = Instant::now();
            self.scan();
            let moved = match self.read_and_push() {
                Ok(moved) => {
                    backoff = BACKOFF_MIN;
                    moved
                }
                Err(error) => {
                    self.telemetry.pushes_retried.inc();
                    // The store knows best when it will have room.
                    let retry_in = match &error {
                        AppendError::Full { retry_after, .. } => backoff.max(*retry_after).min(BACKOFF_MAX),
                        _ => backoff,
                    };
                    tracing::warn!(%error, ?retry_in, "log lines were not taken; the files keep them");
                    pause(retry_in, stop);
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                    true
                }
            };
            if saved.elapsed() >= CHECKPOINT_EVERY {
                self.save();
                saved = Instant::now();
            }
            if !moved {
                pause(SCAN_EVERY.saturating_sub(round.elapsed()), stop);
            }
        }
        self.save();
    }

    fn save(&mut self) {
        if let Err(error) = self.checkpoints.save() {
            tracing::warn!(%error, "checkpoint of log files was not saved; the store's marks still hold");
        }
    }

    /// Opens files that are new and lets go of those that are read to their end and gone.
    fn scan(&mut self) {
        let listing = discover(&self.options.input, &self.options.node);
        for (path, reason) in listing.refused {
            if self.refused.insert(path.clone()) {
                tracing::warn!(path = %path.display(), reason, "log file is not read");
            }
        }
        let mut there = BTreeSet::new();
        for found in listing.files {
            let id = found.id.clone();
            there.insert(id.clone());
            if let Some(file) = self.files.get_mut(&id) {
                file.renamed(&found);
                continue;
            }
            if !self.done.contains(&id) {
                self.open(found);
            }
        }
        let done = &mut self.done;
        self.files.retain(|id, file| {
            let is_done = file.is_done();
            if is_done && there.contains(id) {
                done.insert(id.clone());
            }
            !is_done
        });
        self.done.retain(|id| there.contains(id));
        let gone = |id: &str| !there.contains(id);
        self.checkpoints.forget(|id| gone(id) && !self.files.contains_key(id));
        self.telemetry.files_open.set(self.files.len() as i64);
    }

    fn open(&mut self, found: Found) {
        let id = found.id.clone();
        let checkpoint = self.checkpoints.get(&id);
        match TailedFile::open(found, checkpoint, &self.options.node) {
            Ok(file) => {
                self.files.insert(id, file);
            }
            // It vanished between the listing and now, which is normal (L10).
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(file = id, %error, "log file cannot be opened"),
        }
    }

    /// Reads a piece of every file and pushes it. Answers whether there may be more to read at once.
    fn read_and_push(&mut self) -> Result<bool, AppendError> {
        let now = self.clock.now_ns();
        let mut moved = false;
        let mut push = LogPush::default();
        let mut bytes = 0;
        let mut pending: Vec<String> = Vec::new();
        let mut lag = 0;
        let ids: Vec<String> = self.files.keys().cloned().collect();
        for id in ids {
            let file = self.files.get_mut(&id).expect("its key was just listed");
            // Rotated files of a container come before the one that took their name (L1).
            if file.waits_for().is_some_and(|older| self.has_unread(&older)) {
                continue;
            }
            let file = self.files.get_mut(&id).expect("its key was just listed");
            match file.read(now, &self.telemetry) {
                Ok(Some(batch)) => {
                    bytes += size_of(&batch);
                    push.batches.push(batch);
                    pending.push(id.clone());
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(file = id, %error, "log file cannot be read"),
            }
            lag += file.lag_bytes();
            if bytes >= PUSH_MAX_BYTES || (self.one_by_one && !pending.is_empty()) {
                moved = true;
                self.push(&mut push, &mut pending)?;
                bytes = 0;
            }
        }
        moved |= !pending.is_empty();
        self.push(&mut push, &mut pending)?;
        // A round in which every file went alone has found whoever it was.
        let was_alone = std::mem::take(&mut self.refused_together);
        self.one_by_one = was_alone;
        self.telemetry.lag_bytes.set(lag as i64);
        Ok(moved)
    }

    fn has_unread(&self, id: &str) -> bool {
        self.files.get(id).is_some_and(|file| !file.is_done())
    }

    /// Sends what was read; the files' offsets move only if it was taken.
    fn push(&mut self, push: &mut LogPush, pending: &mut Vec<String>) -> Result<(), AppendError> {
        if push.batches.is_empty() {
            return Ok(());
        }
        let is_alone = push.batches.len() == 1;
        let sent = self.store.append(std::mem::take(push), self.clock.now_ns());
        if !is_alone && matches!(sent, Err(AppendError::Invalid(_))) {
            self.refused_together = true;
        }
        if let Ok(report) = &sent
            && report.gap_bytes > 0
        {
            self.telemetry.gap_bytes.inc_by(report.gap_bytes);
            let bytes = report.gap_bytes;
            tracing::warn!(
                bytes,
                "the store has not seen these bytes of log files, and they are not sent again"
            );
        }
        for id in pending.drain(..) {
            let Some(file) = self.files.get_mut(&id) else { continue };
            match &sent {
                Ok(_) => {
                    file.acknowledged();
                    self.checkpoints.set(&id, file.checkpoint());
                }
                // Sending the same again would be refused again, and hold back all that follows.
                Err(AppendError::Invalid(reason)) if is_alone => {
                    tracing::error!(file = id, reason, "lines were refused and are left out");
                    file.acknowledged();
                    self.checkpoints.set(&id, file.checkpoint());
                }
                Err(_) => file.rewind(),
            }
        }
        match sent {
            Ok(_) | Err(AppendError::Invalid(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn size_of(batch: &FileBatch) -> usize {
    batch.entries.iter().map(|entry| entry.message.len() + 64).sum()
}

/// Sleeps, but not past a stop by more than a moment.
fn pause(span: Duration, stop: &AtomicBool) {
    let until = Instant::now() + span;
    while !stop.load(Ordering::Relaxed) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::sleep(left.min(Duration::from_millis(50)));
    }
}

#[cfg(test)]
mod tests;
