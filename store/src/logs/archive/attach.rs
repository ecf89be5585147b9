//! Archives of other stores, which are searched with the rest.
//!
//! Their manifests are listed every few minutes. A partition that was written anew has a new one; one that is gone from the
//! list is gone from searches.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use binnacle_model::time::Clock;

use super::manifest::{MANIFEST_MAX_BYTES, Manifest, of_manifest_key};
use super::{Archive, BucketError, Listed};
use crate::logs::Logs;
use crate::logs::partition::{Partition, Remote};

/// Pause between two lists of what an archive has.
const LIST_EVERY: Duration = Duration::from_mins(5);

/// Manifests that are read at once.
const READ_AT_ONCE: usize = 8;

/// The store that wrote a partition, and the partition's name.
pub(crate) type Origin = (String, String);

/// An archive that is attached.
#[derive(Debug)]
pub(crate) struct Attached {
    archive: Arc<Archive>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When it was listed last, by the clock's elapsed time.
    listed: Option<Duration>,
    /// Why not all that it has is known.
    trouble: Option<String>,
    partitions: BTreeMap<Origin, Arc<Partition>>,
}

impl Attached {
    pub(super) fn new(archive: Arc<Archive>) -> Self {
        let trouble = Some("it was not listed yet".to_owned());
        Self { archive, state: Mutex::new(State { trouble, ..State::default() }) }
    }

    /// What it has, as far as that is known.
    pub(crate) fn partitions(&self) -> BTreeMap<Origin, Arc<Partition>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).partitions.clone()
    }

    /// A sentence if not all that it has is known.
    pub(crate) fn trouble(&self) -> Option<String> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let url = self.archive.url();
        state
            .trouble
            .as_ref()
            .map(|reason| format!("lines of the attached archive {url} may be missing: {reason}"))
    }

    /// Lists the archive again if that is due. Partitions of `own` are left out: they are here.
    fn refresh(&self, own: &str, now: Duration) -> Result<(), BucketError> {
        let known = {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let is_fresh = state.listed.is_some_and(|listed| now.saturating_sub(listed) < LIST_EVERY);
            if is_fresh && state.trouble.is_none() {
                return Ok(());
            }
            state.partitions.clone()
        };
        let listed = self.archive.bucket.list("manifests/");
        let set_trouble = |reason: String| {
            self.state.lock().unwrap_or_else(PoisonError::into_inner).trouble = Some(reason);
        };
        let listed = listed.inspect_err(|error| set_trouble(error.to_string()))?;
        let mut newest: BTreeMap<Origin, (u32, &Listed)> = BTreeMap::new();
        for one in &listed {
            let Some((store, partition, generation)) = of_manifest_key(&one.key) else { continue };
            if store != own {
                let newest =
                    newest.entry((store.to_owned(), partition.to_owned())).or_insert((generation, one));
                if generation > newest.0 {
                    *newest = (generation, one);
                }
            }
        }
        let mut partitions = BTreeMap::new();
        let mut missing = Vec::new();
        for (origin, (generation, one)) in newest {
            let is_same = |known: &&Arc<Partition>| {
                known.remote().is_some_and(|remote| remote.manifest.generation == generation)
            };
            match known.get(&origin).filter(is_same) {
                Some(known) => drop(partitions.insert(origin, Arc::clone(known))),
                None => missing.push(one),
            }
        }
        let unread = self.read_all(&missing, &mut partitions);
        let trouble =
            unread.first().map(|first| format!("{} manifests were not read: {first}", unread.len()));
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) =
            State { listed: Some(now), trouble, partitions };
        Ok(())
    }

    /// Adds the partitions of manifests, and answers what was wrong with others.
    fn read_all(
        &self,
        missing: &[&Listed],
        partitions: &mut BTreeMap<Origin, Arc<Partition>>,
    ) -> Vec<String> {
        let mut unread = Vec::new();
        for some in missing.chunks(READ_AT_ONCE) {
            let read = std::thread::scope(|scope| {
                let threads: Vec<_> = some.iter().map(|one| scope.spawn(|| self.read(one))).collect();
                threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect::<Vec<_>>()
            });
            for one in read {
                match one {
                    Ok(Ok(partition)) => {
                        let remote = partition.remote();
                        let origin = remote.map(|remote| remote.manifest.origin());
                        partitions.extend(origin.map(|origin| (origin, Arc::new(partition))));
                    }
                    Ok(Err(reason)) => unread.push(reason),
                    Err(_) => unread.push("a thread that reads a manifest ended by a panic".to_owned()),
                }
            }
        }
        unread
    }

    fn read(&self, listed: &Listed) -> Result<Partition, String> {
        if listed.bytes > MANIFEST_MAX_BYTES {
            return Err(format!("{} has {} bytes", listed.key, listed.bytes));
        }
        let bytes =
            self.archive.bucket.get(&listed.key, 0..listed.bytes).map_err(|error| error.to_string())?;
        let manifest = Manifest::decode(&bytes).map_err(|error| format!("{}: {error}", listed.key))?;
        let id = manifest.id().ok_or_else(|| format!("{}: it is of no partition", listed.key))?;
        // Nothing of it is here.
        Ok(Partition::of_archive(id, PathBuf::new(), Remote::new(manifest, &self.archive), None))
    }
}

impl Logs {
    /// Looks what archives of others have.
    pub(crate) fn refresh_attached(&self, clock: &dyn Clock) -> Result<(), BucketError> {
        let mut failed = Ok(());
        for attached in &self.shared.attached {
            failed = failed.and(attached.refresh(&self.shared.store_id, clock.elapsed()));
        }
        let count: usize = self.shared.attached.iter().map(|one| one.partitions().len()).sum();
        self.shared.telemetry.log_partitions_attached.set(count as i64);
        failed
    }
}
