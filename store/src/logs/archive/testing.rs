//! An object store that fails as a test says.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::cache::ChunkCache;
use super::{Archive, Bucket, BucketError, Listed};
use crate::telemetry::Telemetry;

/// A bucket before which trouble can be put.
#[derive(Debug)]
pub(crate) struct Trouble<B> {
    inner: B,
    reads: AtomicUsize,
    calls: AtomicUsize,
    /// No call gets through.
    pub(crate) is_down: AtomicBool,
    /// After so many more calls none gets through.
    left: Mutex<Option<usize>>,
    /// Objects that are written lose their second half, and nobody says so.
    pub(crate) tears: AtomicBool,
    /// What is read has a bit flipped.
    pub(crate) flips: AtomicBool,
}

impl<B: Bucket> Trouble<B> {
    pub(crate) fn new(inner: B) -> Self {
        let (reads, calls) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let (is_down, tears, flips) =
            (AtomicBool::new(false), AtomicBool::new(false), AtomicBool::new(false));
        Self { inner, reads, calls, is_down, left: Mutex::new(None), tears, flips }
    }

    /// Ranges that were read so far.
    pub(crate) fn reads(&self) -> usize {
        self.reads.load(Ordering::Relaxed)
    }

    /// All calls so far.
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    pub(crate) fn fail_after(&self, calls: Option<usize>) {
        *self.left.lock().unwrap() = calls;
    }

    fn step(&self) -> Result<(), BucketError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let mut left = self.left.lock().unwrap();
        let is_over = *left == Some(0);
        *left = left.map(|left| left.saturating_sub(1));
        if is_over || self.is_down.load(Ordering::Relaxed) {
            return Err(BucketError::Unavailable("simulated: connection refused".to_owned()));
        }
        Ok(())
    }
}

impl<B: Bucket> Bucket for Trouble<B> {
    fn put(&self, key: &str, mut bytes: Vec<u8>) -> Result<(), BucketError> {
        self.step()?;
        if self.tears.load(Ordering::Relaxed) {
            bytes.truncate(bytes.len() / 2);
        }
        self.inner.put(key, bytes)
    }

    fn get(&self, key: &str, range: Range<u64>) -> Result<Vec<u8>, BucketError> {
        self.step()?;
        self.reads.fetch_add(1, Ordering::Relaxed);
        let mut bytes = self.inner.get(key, range)?;
        if self.flips.load(Ordering::Relaxed)
            && let Some(byte) = bytes.last_mut()
        {
            *byte ^= 1;
        }
        Ok(bytes)
    }

    fn head(&self, key: &str) -> Result<Option<u64>, BucketError> {
        self.step()?;
        self.inner.head(key)
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>, BucketError> {
        self.step()?;
        self.inner.list(prefix)
    }

    fn delete(&self, key: &str) -> Result<(), BucketError> {
        self.step()?;
        self.inner.delete(key)
    }
}

/// An archive in a bucket.
pub(super) fn archive_of(bucket: Arc<dyn Bucket>, cache_bytes: usize) -> Arc<Archive> {
    let cache = Arc::new(ChunkCache::new(cache_bytes));
    Archive::new(bucket, "sim:///b", &cache, &Telemetry::default())
}
