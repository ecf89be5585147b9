//! How far replay has come, for whoever waits for it.

use std::sync::atomic::{AtomicU64, Ordering};

/// Files of the log that a start reads. Written by replay, read by anybody.
#[derive(Debug, Default)]
pub struct ReplayProgress {
    first: AtomicU64,
    last: AtomicU64,
    current: AtomicU64,
}

impl ReplayProgress {
    pub(super) fn begin(&self, first: u64, last: u64) {
        self.first.store(first, Ordering::Relaxed);
        self.last.store(last, Ordering::Relaxed);
    }

    pub(super) fn reach(&self, file: u64) {
        self.current.store(file, Ordering::Relaxed);
    }

    /// Numbers of the first and the last file, and of the one that is read; zeros before it is known.
    pub fn files(&self) -> [u64; 3] {
        [&self.first, &self.last, &self.current].map(|number| number.load(Ordering::Relaxed))
    }
}
