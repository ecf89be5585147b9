//! Files that are no more in their directory: what is left of them is spooled, or counted.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use binnacle_model::LogTime;

use super::super::checkpoint::Checkpoint;
use super::super::file::{Kind, LogFile};
use super::super::listing::Listing;
use super::super::open::Root;
use super::super::origin::Origin;
use super::super::spool::{Leaving, Spool};
use super::Tailer;
use crate::Telemetry;

/// A file that vanished is given up, or spooled, after this long: it may just have got another name.
const GONE_NS: i64 = 2_000_000_000;

/// What vanished is spooled after this long even if the store answers: it is too slow.
const SLOW_NS: i64 = 3_000_000_000;

/// Names under which losses of what is gone are remembered; those of all others are one sum.
const LOST_NAMES_MAX: usize = 1000;

impl Tailer {
    /// Of files that are no more in their directory: forgets what was acknowledged, spools or counts the rest.
    pub(super) fn let_go(&mut self, number: u64, now: LogTime) {
        let Some(origin) = self.origins.get_mut(&number) else { return };
        let mut held = 0;
        for at in (0..origin.files.len()).rev() {
            let file = &mut origin.files[at];
            let age = file.gone.map_or(0, |gone| now.0.saturating_sub(gone.0));
            if !file.is_spooled() && age < GONE_NS {
                continue;
            }
            file.look_at_last_size();
            if file.identity.is_none() && file.source.is_none() && file.size > 0 {
                let known = self.checkpoints.of_inode(&origin.name, file.inode);
                let known = known.map(|(key, known)| (key.clone(), known.clone()));
                if origin.was_compressed(at) {
                    origin.files[at].size = 0;
                } else if let Some((key, known)) = known {
                    // This process never opened it, but the one before read it: the store says how far.
                    let file = &mut origin.files[at];
                    let known = Checkpoint { size: known.size.max(file.size), ..known };
                    file.size = 0;
                    self.to_ask.push(key.clone());
                    self.perhaps_lost.insert(key, known);
                } else {
                    lose(origin, at, &self.telemetry);
                }
            }
            let file = &mut origin.files[at];
            let is_done = (file.identity.is_none() && file.size == 0) || file.is_copy() || file.lag() == 0;
            if !is_done && !file.is_spooled() {
                if file.source.is_none() {
                    lose(origin, at, &self.telemetry);
                } else if file.kind == Kind::Journal {
                    // Its open file is its copy, within the same bounds.
                    held += file.held_bytes();
                    if held > self.options.spool.bytes || age as u128 > self.options.spool.age.as_nanos() {
                        lose(origin, at, &self.telemetry);
                    }
                } else if self.sender.is_away() || age > SLOW_NS {
                    // What the store will take at once needs no copy.
                    spool(&mut self.spool, origin, at, &self.telemetry);
                }
            }
            if is_done {
                let file = origin.files.remove(at);
                if file.is_spooled() {
                    self.spool.remove(&file.path);
                }
                if let Some(identity) = file.identity.as_ref().filter(|_| !file.is_copy()) {
                    self.checkpoints.forget(&identity.key);
                }
                self.by_file.remove(&file.number);
            }
        }
    }

    /// Drops origins without files. What was lost of them stays in reports.
    pub(super) fn forget_gone(&mut self) {
        let is_gone = |origin: &Origin| origin.files.is_empty() && origin.generations.is_empty();
        let gone = |origin: &Origin| (origin.label("namespace").to_owned(), origin.container().to_owned());
        let lost = self.origins.values().filter(|origin| is_gone(origin) && origin.lost_bytes > 0);
        let lost: Vec<_> = lost.map(|origin| (gone(origin), origin.lost_bytes)).collect();
        for (names, bytes) in lost {
            self.remember_lost(names, bytes);
        }
        self.origins.retain(|_, origin| !is_gone(origin));
        self.by_name.retain(|_, number| self.origins.contains_key(number));
    }

    fn remember_lost(&mut self, names: (String, String), bytes: u64) {
        let is_full = self.lost_of_gone.len() >= LOST_NAMES_MAX && !self.lost_of_gone.contains_key(&names);
        let names = if is_full { <(String, String)>::default() } else { names };
        *self.lost_of_gone.entry(names).or_default() += bytes;
    }

    /// Makes files of what an earlier process spooled.
    pub(super) fn find_spooled(&mut self) {
        let held: Vec<_> = self.spool.held().map(|(path, said)| (path.clone(), said.clone())).collect();
        for (path, said) in held {
            let Ok(root) = Root::open(&self.options.state_dir) else { continue };
            let listing = Listing {
                name: said.origin.clone(),
                root: Arc::new(root),
                stream: said.stream().into(),
                format: said.format(),
                files: Vec::new(),
            };
            let number = self.origin_of(&listing);
            let identity = said.identity();
            self.numbers += 1;
            let mut file = LogFile::spooled(self.numbers, path, said.order(), (said.base, said.size));
            self.to_ask.push(identity.key.clone());
            file.identity = Some(identity);
            self.by_file.insert(file.number, number);
            if let Some(origin) = self.origins.get_mut(&number) {
                origin.files.push(file);
                origin.sort();
            }
        }
    }

    /// What the spool may no longer hold.
    pub(super) fn give_up_spooled(&mut self, path: &Path) {
        for origin in self.origins.values_mut() {
            if let Some(at) = origin.files.iter().position(|file| file.is_spooled() && file.path == path) {
                lose(origin, at, &self.telemetry);
            }
        }
        self.spool.remove(path);
    }

    /// Files of which the checkpoint knows that not all was acknowledged, and that are gone since. The checkpoint may be
    /// seconds old: the store says how far it has them.
    pub(in crate::tail) fn find_lost(&mut self) {
        let known: BTreeSet<&String> = self
            .origins
            .values()
            .flat_map(|origin| &origin.files)
            .filter_map(|file| Some(&file.identity.as_ref()?.key))
            .collect();
        let is_gone = |(key, _): &(&String, &Checkpoint)| !known.contains(key);
        let gone: Vec<(String, Checkpoint)> = self
            .checkpoints
            .iter()
            .filter(is_gone)
            .map(|(key, known)| (key.clone(), known.clone()))
            .collect();
        for (key, checkpoint) in gone {
            if checkpoint.size > checkpoint.offset {
                self.to_ask.push(key.clone());
                self.perhaps_lost.insert(key, checkpoint);
            } else {
                self.checkpoints.forget(&key);
            }
        }
    }

    /// The store has a file that is gone up to `mark`.
    pub(super) fn lost_behind(&mut self, key: &str, mark: u64) {
        let Some(checkpoint) = self.perhaps_lost.remove(key) else { return };
        let mut files = self.origins.values().flat_map(|origin| &origin.files);
        if files.any(|file| file.identity.as_ref().is_some_and(|known| known.key == key)) {
            return;
        }
        self.checkpoints.forget(key);
        let bytes = checkpoint.size.saturating_sub(mark.max(checkpoint.offset));
        if bytes > 0 {
            self.telemetry.lost_bytes.inc_by(bytes);
            let origin = &checkpoint.origin;
            // Of a journal they are entries.
            let missing = bytes;
            tracing::error!(origin, missing, "a log file was deleted while nobody read it; its rest is lost");
            self.remember_lost(names_of(origin), bytes);
        }
    }
}

/// Namespace and container of an origin of which nothing is left but its name.
fn names_of(origin: &str) -> (String, String) {
    // `NAMESPACE_POD_UID/CONTAINER`; that of plain files is a path.
    let mut parts = origin.split('/');
    let namespace = parts.next().and_then(|pod| pod.split_once('_'));
    match namespace.zip(parts.next()) {
        Some(((namespace, _), container)) => (namespace.to_owned(), container.to_owned()),
        None => (String::new(), origin.to_owned()),
    }
}

/// Counts what nobody can read any more. What is on its way still counts as there.
pub(super) fn lose(origin: &mut Origin, at: usize, telemetry: &Telemetry) {
    let file = &mut origin.files[at];
    let bytes = file.size.saturating_sub(file.read_to);
    file.give_up();
    if bytes > 0 && !file.is_copy() {
        telemetry.lost_bytes.inc_by(bytes);
        tracing::error!(path = %file.path.display(), missing = bytes, "a log file was deleted before the store had it");
        origin.lost_bytes += bytes;
    }
}

/// Copies what is left of a deleted file; if there is no room, it is lost.
fn spool(spool: &mut Spool, origin: &mut Origin, at: usize, telemetry: &Telemetry) {
    let file = &mut origin.files[at];
    let (Some(mut source), Some(identity)) = (file.source.take(), &file.identity) else { return };
    let leaving = Leaving {
        origin: &origin.name,
        stream: &origin.stream,
        format: origin.format,
        order: &file.order,
        identity,
        from: file.acknowledged,
        size: file.size,
        deleted: file.gone.unwrap_or_default(),
    };
    match spool.put(&leaving, &mut source, file.base) {
        Ok(Some((path, base))) => {
            file.spool_at(path, base);
            return;
        }
        Ok(None) => {
            tracing::error!("the spool of deleted log files is full; make it larger, or the store faster");
        }
        Err(error) => tracing::error!(%error, "a deleted log file cannot be spooled"),
    }
    lose(origin, at, telemetry);
}
