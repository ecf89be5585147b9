//! The archive: closed partitions in an object store, out of which they are searched.
//!
//! ```text
//! closed, old enough ─► pages, index ─► manifest ─► read back ─► `archived` here ─► pages here go
//! search ─► Place::Archive ─► chunks of an object, the last ones in memory ─► SealedPage, as from a file
//! expired ─► `gone-…` here ─► manifest there ─► all else there ─► nothing
//! ```
//!
//! Invariants:
//! - Nothing here goes before all of it was read back from there and compared.
//! - A manifest is written after all that it names, and removed before.
//! - Keys are never written twice with other bytes: what is written anew has a new number or generation.
//! - Who changes a partition in an archive holds its `work`, and no lock that a search or an append waits for.

mod attach;
mod bucket;
mod cache;
mod manifest;
mod object;
mod rewrite;
#[cfg(test)]
pub(crate) mod testing;
mod upload;

use std::cell::Cell;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub(crate) use attach::{Attached, Origin};
pub use bucket::{Bucket, BucketError, DirBucket, Listed};
use cache::ChunkCache;
pub(crate) use manifest::{Manifest, ManifestError};
pub(crate) use object::{Object, Place};
pub(super) use rewrite::Staged;
pub(super) use upload::{ArchiveError, is_marked};

use super::Options;
use crate::fs::{Disk, read_all, write_atomic};
use crate::telemetry::Telemetry;

/// The file that has the identity of a store.
const IDENTITY: &str = "identity";

/// For so long nothing is asked of an archive that did not answer: else every page of a search would wait for it.
const DOWN_FOR: Duration = Duration::from_secs(5);

/// Where closed partitions go.
#[derive(Debug, Clone)]
pub struct ArchiveOptions {
    /// The object store.
    pub bucket: Arc<dyn Bucket>,
    /// Its address as messages show it, without secrets.
    pub url: String,
    /// A partition is archived once its day is over for so long. It may be sooner where the disk would be too full.
    pub after: Duration,
    /// Of all archived partitions; beyond it the oldest go.
    pub retention_bytes: Option<u64>,
}

thread_local! {
    /// How long this thread has waited for archives.
    static WAITED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// How long this thread has waited for archives since it began.
pub(super) fn waited() -> Duration {
    WAITED.get()
}

/// An archive of other stores, to read from.
#[derive(Debug, Clone)]
pub struct AttachOptions {
    /// The object store.
    pub bucket: Arc<dyn Bucket>,
    /// Its address as messages show it, without secrets.
    pub url: String,
}

/// An archive of this store or of another one, to read from.
#[derive(Debug)]
pub(crate) struct Archive {
    bucket: Arc<dyn Bucket>,
    url: String,
    cache: Arc<ChunkCache>,
    /// Until when it is not asked, and why.
    down: Mutex<Option<(Instant, String)>>,
    telemetry: Telemetry,
}

impl Archive {
    fn new(bucket: Arc<dyn Bucket>, url: &str, cache: &Arc<ChunkCache>, telemetry: &Telemetry) -> Arc<Self> {
        let (cache, telemetry) = (Arc::clone(cache), telemetry.clone());
        Arc::new(Self { bucket, url: url.to_owned(), cache, down: Mutex::default(), telemetry })
    }

    /// The archive of a store, or what stands for it where none is configured, and those of others.
    pub(super) fn of_options(options: &Options, telemetry: &Telemetry) -> (Arc<Self>, Vec<Attached>) {
        let cache = Arc::new(ChunkCache::new(options.archive_cache_bytes));
        let own = match &options.archive {
            Some(own) => Self::new(Arc::clone(&own.bucket), &own.url, &cache, telemetry),
            None => Self::new(Arc::new(NoBucket), "no archive", &cache, telemetry),
        };
        let attached = |one: &AttachOptions| {
            Attached::new(Self::new(Arc::clone(&one.bucket), &one.url, &cache, telemetry))
        };
        (own, options.attach.iter().map(attached).collect())
    }

    /// Its address as messages show it.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Reads a part of an object.
    fn get(&self, key: &str, range: Range<u64>) -> io::Result<Vec<u8>> {
        let failed = |reason: &str| io::Error::other(reason.to_owned());
        let down = self.down.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, reason)) = down.filter(|(until, _)| Instant::now() < *until) {
            return Err(failed(&reason));
        }
        self.telemetry.log_archive_requests.inc();
        let length = range.end - range.start;
        let asked = Instant::now();
        let answer = self.bucket.get(key, range);
        WAITED.set(WAITED.get() + asked.elapsed());
        match answer {
            Ok(bytes) if bytes.len() as u64 == length => {
                self.telemetry.log_archive_read_bytes.inc_by(length);
                Ok(bytes)
            }
            Ok(_) | Err(BucketError::Short(_)) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) => {
                self.telemetry.log_archive_failures.inc();
                let reason = error.to_string();
                let answer = failed(&reason);
                if matches!(error, BucketError::Unavailable(_)) {
                    *self.down.lock().unwrap_or_else(PoisonError::into_inner) =
                        Some((Instant::now() + DOWN_FOR, reason));
                }
                Err(answer)
            }
        }
    }
}

/// The identity under which the store in `dir` archives. It is made once, by chance, so that stores may share an archive.
pub(super) fn identity(disk: &dyn Disk, dir: &Path) -> io::Result<String> {
    let path = dir.join(IDENTITY);
    if disk.exists(&path)?
        && let Ok(text) = String::from_utf8(read_all(disk, &path, 64)?)
        && manifest::is_store(text.trim())
    {
        return Ok(text.trim().to_owned());
    }
    let chance = || std::hash::RandomState::new().build_hasher().finish();
    let made = format!("{:016x}{:016x}", chance(), chance());
    write_atomic(disk, &path, made.as_bytes())?;
    Ok(made)
}

/// Stands for an archive that is configured no more.
#[derive(Debug)]
struct NoBucket;

const NOT_CONFIGURED: &str = "partitions are archived, but storage.logs.archive names no archive any more";

impl Bucket for NoBucket {
    fn put(&self, _: &str, _: Vec<u8>) -> Result<(), BucketError> {
        Err(BucketError::Unavailable(NOT_CONFIGURED.to_owned()))
    }

    fn get(&self, _: &str, _: Range<u64>) -> Result<Vec<u8>, BucketError> {
        Err(BucketError::Unavailable(NOT_CONFIGURED.to_owned()))
    }

    fn head(&self, _: &str) -> Result<Option<u64>, BucketError> {
        Err(BucketError::Unavailable(NOT_CONFIGURED.to_owned()))
    }

    fn list(&self, _: &str) -> Result<Vec<Listed>, BucketError> {
        Err(BucketError::Unavailable(NOT_CONFIGURED.to_owned()))
    }

    fn delete(&self, _: &str) -> Result<(), BucketError> {
        Err(BucketError::Unavailable(NOT_CONFIGURED.to_owned()))
    }
}
