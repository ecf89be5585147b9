//! S3 behind the store's synchronous buckets, by the crate `object_store`, which nothing else knows.
//!
//! A directory is no business of that crate: the store's own syncs what it writes.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use binnacle_store::archive::{Bucket, BucketError, DirBucket, Listed};
use binnacle_store::fs::RealDisk;
use futures_util::TryStreamExt;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::client::{HttpClient, HttpConnector};
use object_store::path::Path as Key;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, ObjectStoreExt, RetryConfig};
use tokio::runtime::Handle;

/// A search waits for a read, with all its attempts, no longer.
const READ_MAX: Duration = Duration::from_secs(10);

/// For listing, removing, and asking for a size.
const CALL_MAX: Duration = Duration::from_secs(30);

/// For writing an object; an index may have a few hundred megabytes.
const WRITE_MAX: Duration = Duration::from_mins(5);

/// Attempts after the first.
const RETRIES: usize = 3;

/// Where a bucket is, and who may use it.
#[derive(Clone, Default)]
pub(crate) struct BucketAddress {
    /// `file:///dir` or `s3://bucket/prefix`.
    pub(crate) url: String,
    /// Of a server that is not Amazon's.
    pub(crate) endpoint: Option<String>,
    pub(crate) region: Option<String>,
    /// Files that hold the two parts of a key. Without, AWS's environment says who asks.
    pub(crate) key_files: Option<(PathBuf, PathBuf)>,
}

impl std::fmt::Debug for BucketAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.url)
    }
}

/// What a URL says.
enum Place<'a> {
    Directory(&'a Path),
    S3 { bucket: &'a str, prefix: &'a str },
}

impl BucketAddress {
    /// Checks what can be checked without asking anybody.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        self.place().map(|_| ())
    }

    fn place(&self) -> anyhow::Result<Place<'_>> {
        if let Some(dir) = self.url.strip_prefix("file://") {
            if !dir.starts_with('/') || dir.len() < 2 {
                bail!("url {:?}: write file:///a/directory", self.url);
            }
            if self.endpoint.is_some() || self.key_files.is_some() {
                bail!("url {:?} is a directory: endpoint and keys are for s3://", self.url);
            }
            return Ok(Place::Directory(Path::new(dir)));
        }
        let Some(rest) = self.url.strip_prefix("s3://") else {
            // Not shown: somebody may have written a password into it.
            bail!("url: write file:///a/directory or s3://bucket/prefix");
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let prefix = prefix.trim_end_matches('/');
        let is_sound =
            |part: &str| !part.is_empty() && part.chars().all(is_plain) && part != "." && part != "..";
        if !is_sound(bucket) || !(prefix.is_empty() || prefix.split('/').all(is_sound)) {
            // Not shown: somebody may have written a password into it.
            bail!(
                "url: the bucket and the prefix of s3://bucket/prefix may have letters, digits, '.', '_' and '-'"
            );
        }
        Ok(Place::S3 { bucket, prefix })
    }

    /// The bucket. Nothing is asked of it yet.
    pub(crate) fn open(&self) -> anyhow::Result<Arc<dyn Bucket>> {
        let (bucket, prefix) = match self.place()? {
            Place::Directory(dir) => return Ok(Arc::new(DirBucket::new(Arc::new(RealDisk), dir))),
            Place::S3 { bucket, prefix } => (bucket, prefix),
        };
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(bucket)
            .with_http_connector(OwnClient)
            .with_client_options(ClientOptions::new().with_timeout(WRITE_MAX).with_allow_http(true))
            .with_retry(RetryConfig {
                backoff: BackoffConfig::default(),
                max_retries: RETRIES,
                retry_timeout: CALL_MAX,
            });
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        if let Some(region) = &self.region {
            builder = builder.with_region(region);
        }
        if let Some((id, secret)) = &self.key_files {
            let read = |path: &Path| {
                let text = std::fs::read_to_string(path);
                let text = text.with_context(|| format!("cannot read {}", path.display()))?;
                anyhow::Ok(text.trim().to_owned())
            };
            builder = builder.with_access_key_id(read(id)?).with_secret_access_key(read(secret)?);
        }
        let store = builder.build().with_context(|| format!("cannot use {}", self.url))?;
        Ok(Arc::new(S3 { store, prefix: prefix.to_owned(), runtime: Handle::current() }))
    }
}

/// Requests by the client that all of this program uses: one TLS, no redirects.
#[derive(Debug)]
struct OwnClient;

impl HttpConnector for OwnClient {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let failed = |error| object_store::Error::Generic { store: "S3", source: Box::new(error) };
        Ok(HttpClient::new(binnacle_collector::http_client(WRITE_MAX).map_err(failed)?))
    }
}

#[derive(Debug)]
struct S3 {
    store: AmazonS3,
    prefix: String,
    /// The calls are synchronous, and come from threads that may wait.
    runtime: Handle,
}

impl S3 {
    fn key(&self, key: &str) -> Key {
        Key::from(if self.prefix.is_empty() { key.to_owned() } else { format!("{}/{key}", self.prefix) })
    }

    /// Waits for an answer, but not for ever.
    fn wait<T>(
        &self,
        key: &str,
        most: Duration,
        work: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, BucketError> {
        let within = async { tokio::time::timeout(most, work).await };
        match self.runtime.block_on(within) {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(object_store::Error::NotFound { .. })) => Err(BucketError::Missing(key.to_owned())),
            Ok(Err(error)) => Err(BucketError::Unavailable(shortened(&error))),
            Err(_) => Err(BucketError::Unavailable(format!("no answer within {} s", most.as_secs()))),
        }
    }
}

/// The first of what a client says, which may quote all of an answer.
fn shortened(error: &object_store::Error) -> String {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    let last = causes.last().map(ToString::to_string).unwrap_or_default();
    let text = format!("{error}");
    let text = if text.contains(&last) { text } else { format!("{text}: {last}") };
    text[..text.floor_char_boundary(400)].to_owned()
}

impl Bucket for S3 {
    fn put(&self, key: &str, bytes: Vec<u8>) -> Result<(), BucketError> {
        let place = self.key(key);
        self.wait(key, WRITE_MAX, self.store.put(&place, bytes.into())).map(|_| ())
    }

    fn get(&self, key: &str, range: Range<u64>) -> Result<Vec<u8>, BucketError> {
        let (place, length) = (self.key(key), range.end.saturating_sub(range.start));
        // A megabyte a second is what the slowest line is given.
        let most = READ_MAX + Duration::from_secs(length >> 20);
        let bytes = self.wait(key, most, self.store.get_range(&place, range))?;
        if bytes.len() as u64 != length {
            return Err(BucketError::Short(key.to_owned()));
        }
        Ok(bytes.into())
    }

    fn head(&self, key: &str) -> Result<Option<u64>, BucketError> {
        match self.wait(key, CALL_MAX, self.store.head(&self.key(key))) {
            Ok(found) => Ok(Some(found.size)),
            Err(BucketError::Missing(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>, BucketError> {
        let (place, own) = (self.key(prefix), if self.prefix.is_empty() { 0 } else { self.prefix.len() + 1 });
        let all = self.store.list(Some(&place)).try_collect::<Vec<_>>();
        let found = self.wait(prefix, CALL_MAX, all)?;
        let one = |found: object_store::ObjectMeta| Listed {
            key: found.location.as_ref().get(own..).unwrap_or_default().to_owned(),
            bytes: found.size,
        };
        let mut listed: Vec<Listed> = found.into_iter().map(one).collect();
        listed.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(listed)
    }

    fn delete(&self, key: &str) -> Result<(), BucketError> {
        match self.wait(key, CALL_MAX, self.store.delete(&self.key(key))) {
            Ok(()) | Err(BucketError::Missing(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests;
