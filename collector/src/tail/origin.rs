//! The files of one origin, in the order in which they are read.

use std::collections::HashMap;
use std::sync::Arc;

use binnacle_model::LogTime;
use binnacle_model::push::Pair;
use binnacle_model::storage::POD_UID;

use super::checkpoint::{Checkpoint, Checkpoints};
use super::edge::{ContainerRules, PodRules};
use super::file::{Identity, LogFile, Phase};
use super::identity::{First, Inode, file_key};
use super::listing::{Listing, Order};
use super::open::Root;
use super::pack::encode_stream;
use super::records::LineFormat;

/// What one container, or one plain file, wrote.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) name: String,
    pub(super) root: Arc<Root>,
    pub(super) stream: Arc<[Pair]>,
    /// The stream as each batch has it.
    pub(super) wire: Vec<u8>,
    pub(super) format: LineFormat,
    /// Oldest first.
    pub(super) files: Vec<LogFile>,
    /// Bytes that vanished before they were acknowledged.
    pub(super) lost_bytes: u64,
    /// Of which the store would have nothing.
    pub(super) refused_bytes: u64,
    /// What the annotations of its pod say, and as of when.
    pub(super) rules: Option<ContainerRules>,
    rules_generation: u64,
    /// How often files were truncated: each time it is another file.
    pub(super) generations: HashMap<Inode, u32>,
}

impl Origin {
    pub(super) fn new(listing: &Listing) -> Self {
        Self {
            name: listing.name.clone(),
            root: Arc::clone(&listing.root),
            stream: Arc::clone(&listing.stream),
            wire: encode_stream(&listing.stream),
            format: listing.format,
            files: Vec::new(),
            lost_bytes: 0,
            refused_bytes: 0,
            rules: None,
            rules_generation: 0,
            generations: HashMap::new(),
        }
    }

    /// The value of a label of its stream, or an empty text.
    pub(super) fn label(&self, name: &str) -> &str {
        self.stream.iter().find(|pair| pair.name == name).map_or("", |pair| &pair.value)
    }

    /// Takes over what the annotations of its pod say by now.
    pub(super) fn obey(&mut self, pods: &PodRules) {
        let generation = pods.generation();
        if self.rules_generation == generation {
            return;
        }
        let (rules, wrong) = pods.of(self.label(POD_UID), self.label("container"));
        self.rules = rules;
        for reason in wrong {
            tracing::warn!(log = self.name, reason);
        }
        self.rules_generation = generation;
    }

    /// What limits and reports call the container: of what is no container's, the service.
    pub(super) fn container(&self) -> &str {
        let container = self.label("container");
        if container.is_empty() { self.label("service") } else { container }
    }

    /// Takes over what a listing says: names may have changed, files come and go.
    pub(super) fn update(&mut self, listing: &Listing, now: LogTime, number: &mut u64) {
        // That of spooled files is another one.
        self.root = Arc::clone(&listing.root);
        for at in 0..self.files.len() {
            let file = &self.files[at];
            if file.is_spooled() {
                continue;
            }
            let is_there = listing.files.iter().any(|listed| listed.inode == file.inode);
            if is_there {
                self.files[at].gone = None;
            } else if file.gone.is_none() {
                self.files[at].gone = Some(now);
                self.came_last(at);
            }
        }
        for listed in &listing.files {
            let known = self.files.iter_mut().find(|file| file.inode == listed.inode && !file.is_spooled());
            if let Some(file) = known {
                file.path.clone_from(&listed.path);
                file.order = listed.order.clone();
                continue;
            }
            *number += 1;
            self.files.push(LogFile::new(*number, listed, now));
        }
        self.sort();
    }

    /// A file that vanished while it was being written to came behind all that had been rotated by then, and before
    /// those that nobody has seen yet.
    fn came_last(&mut self, at: usize) {
        let order = &self.files[at].order;
        if !order.is_live {
            return;
        }
        let restart = order.restart;
        let rotated = self.files.iter().map(|file| &file.order);
        let rotated = rotated.filter(|order| order.restart == restart && !order.is_live);
        let stamp = rotated.map(|order| order.stamp.clone()).max().unwrap_or_default();
        self.files[at].order = Order { restart, is_live: false, stamp };
    }

    /// Whether a file that was listed, but gone before it could be opened, is there still, compressed.
    pub(super) fn was_compressed(&self, at: usize) -> bool {
        let file = &self.files[at];
        let mut name = file.path.clone().into_os_string();
        name.push(".gz");
        let compressed = || self.files.iter().filter(|other| other.is_compressed() && !other.is_spooled());
        if compressed().any(|other| *other.path == *name) {
            return true;
        }
        if self.format != LineFormat::Container || file.path.extension().is_none_or(|end| end != "log") {
            return false;
        }
        // It had the live name: it is the first one that was rotated after those that were known then. If all of these are
        // gone, so may be itself: the kubelet deletes the oldest first.
        let is_older = |other: &Order| other.stamp <= file.order.stamp;
        let rotated = || {
            let there = self.files.iter().filter(|other| !other.order.is_live && other.gone.is_none());
            there.filter(|other| other.order.restart == file.order.restart && !other.is_spooled())
        };
        let next = rotated().filter(|other| !is_older(&other.order)).min_by_key(|other| &other.order.stamp);
        let is_sure = file.order.stamp.is_empty() || rotated().any(|other| is_older(&other.order));
        is_sure && next.is_some_and(LogFile::is_compressed)
    }

    pub(super) fn sort(&mut self) {
        self.files.sort_by(|a, b| (&a.order, a.number).cmp(&(&b.order, b.number)));
    }

    /// Whether nothing will be added to a file: it lost its name, or a later one is being written.
    pub(super) fn takes_no_more(&self, at: usize) -> bool {
        let file = &self.files[at];
        let later = || self.files[at + 1..].iter().any(|later| !later.is_copy() && later.size > 0);
        // journald renames a journal when it has written its last entry.
        let is_archived = self.format == LineFormat::Journal && !file.order.is_live;
        is_archived || file.is_compressed() || file.is_spooled() || file.gone.is_some() || later()
    }

    /// The file to read on in: the oldest of which not all was given out.
    pub(super) fn next(&self, now: LogTime) -> Option<usize> {
        for (at, file) in self.files.iter().enumerate() {
            // Others do not wait for what cannot be read now, or will be another file after the next look.
            if file.is_unreadable || file.is_cut_short() {
                continue;
            }
            if file.is_ready(self.takes_no_more(at), now) {
                return Some(at);
            }
            // Later ones wait for it, unless it has nothing, or is lost.
            if file.phase == Phase::Placed && !file.is_read() && !file.is_copy() {
                return None;
            }
            if file.phase == Phase::New && file.size > 0 && !file.is_copy() {
                return None;
            }
        }
        None
    }

    /// Learns which files these are. Answers the names of those of which the store must be asked how far it has them.
    pub(super) fn identify(
        &mut self,
        node: &str,
        checkpoints: &Checkpoints,
        started: LogTime,
    ) -> (Vec<String>, Vec<(std::path::PathBuf, String)>) {
        let (mut unknown, mut refused) = (Vec::new(), Vec::new());
        for at in 0..self.files.len() {
            let file = &self.files[at];
            let is_out_of_reach = file.gone.is_some() && file.source.is_none();
            if file.identity.is_some() || is_out_of_reach || (file.size == 0 && file.is_sized()) {
                continue;
            }
            let takes_no_more = self.takes_no_more(at);
            let root = Arc::clone(&self.root);
            let (first, begin) = match self.files[at].begin(&root, takes_no_more) {
                Ok(Some(begin)) => begin,
                Ok(None) => continue,
                Err(error) => {
                    if error.kind() != std::io::ErrorKind::NotFound {
                        refused.push((self.files[at].path.clone(), error.to_string()));
                        self.files[at].is_unreadable = true;
                    }
                    continue;
                }
            };
            if self.take_over(at, first) {
                continue;
            }
            self.files[at].phase = Phase::New;
            let inode = self.files[at].inode;
            if let Some(generation) = self.generation(inode, checkpoints) {
                self.generations.insert(inode, generation);
            }
            let key = self.key_of(at, node, first, &begin, checkpoints);
            let file = &mut self.files[at];
            let is_newborn = file.inode.born_ns().is_some_and(|born| born as i128 > i128::from(started.0));
            // What a checkpoint says may be seconds old, and what was given out since then must not be joined anew.
            if is_newborn && !file.is_compressed() && checkpoints.get(&key).is_none() {
                file.place(0, None);
            } else {
                unknown.push(key.clone());
            }
            file.identity = Some(Identity { first, key });
        }
        self.files.retain(|file| !file.path.as_os_str().is_empty());
        self.sort();
        (unknown, refused)
    }

    /// If another file has these lines already, the one of both that lasts goes on with its place. Answers whether
    /// nothing is left to do for the file at `at`.
    fn take_over(&mut self, at: usize, first: First) -> bool {
        let is_same = |other: &LogFile| other.identity.as_ref().is_some_and(|known| known.first == first);
        // In files of containers and journals nothing but a copy begins alike. Of plain ones it may be a heading.
        let is_container = self.format != LineFormat::Plain;
        let lasts = |other: &LogFile| other.gone.is_none() && !other.is_spooled() && !other.is_cut_short();
        let known = (0..self.files.len()).filter(|other| *other != at && is_same(&self.files[*other]));
        let mut known: Vec<usize> =
            known.filter(|other| is_container || !lasts(&self.files[*other])).collect();
        if known.len() > 1 {
            known.retain(|other| self.files[*other].size == self.files[at].size);
        }
        let [other] = known[..] else { return false };
        if lasts(&self.files[other]) || self.files[other].is_spooled() {
            self.files[at].phase = Phase::Copy;
            return true;
        }
        let (low, high) = self.files.split_at_mut(at.max(other));
        let (old, new) =
            if other < at { (&mut low[other], &mut high[0]) } else { (&mut high[0], &mut low[at]) };
        old.moved_to(new);
        true
    }

    /// Its name in the store: what it is called already, if a checkpoint of another file of this origin fits.
    fn key_of(&self, at: usize, node: &str, first: First, begin: &[u8], checkpoints: &Checkpoints) -> String {
        let file = &self.files[at];
        if self.format == LineFormat::Container {
            return file_key(node, &format!("{}/{}", self.name, file.order.restart), None, begin);
        }
        if self.format == LineFormat::Journal {
            return format!("{node}/journal/{}", String::from_utf8_lossy(begin));
        }
        let mut begin = begin.to_vec();
        if let Some(generation) = self.generations.get(&file.inode) {
            begin.extend_from_slice(&generation.to_le_bytes());
        }
        let key = file_key(node, &self.name, Some(file.inode), &begin);
        if !file.is_compressed() || checkpoints.get(&key).is_some() {
            return key;
        }
        // It was compressed while nobody looked: its inode is another one.
        let is_free = |key: &str| {
            self.files.iter().all(|file| file.identity.as_ref().is_none_or(|known| known.key != key))
        };
        let fits = |(key, checkpoint): &(&String, &Checkpoint)| {
            checkpoint.origin == self.name && checkpoint.first == first && is_free(key)
        };
        let mut found: Vec<(&String, &Checkpoint)> = checkpoints.iter().filter(fits).collect();
        if found.len() > 1 {
            found.retain(|(_, checkpoint)| checkpoint.size == file.size);
        }
        match found[..] {
            [(found, _)] => found.clone(),
            _ => key,
        }
    }

    /// Takes over how far the store has files.
    pub(super) fn place(&mut self, marks: &HashMap<String, u64>, checkpoints: &Checkpoints) {
        for file in self.files.iter_mut().filter(|file| file.phase == Phase::New) {
            let Some(mark) = file.identity.as_ref().and_then(|identity| marks.get(&identity.key)) else {
                continue;
            };
            // Whoever sent it may have seen more of it.
            file.look_at_last_size();
            let Some(identity) = &file.identity else { continue };
            // It was truncated while nobody looked, and begins as it did before.
            if self.format == LineFormat::Plain && !file.is_compressed() && *mark > file.size {
                *self.generations.entry(file.inode).or_default() += 1;
                file.identity = None;
                continue;
            }
            let known = checkpoints.get(&identity.key).filter(|known| known.offset == *mark);
            file.place(*mark, known.and_then(|known| known.passing));
        }
    }

    /// How often a plain file was truncated, if it was: it may begin as it did before.
    fn generation(&self, inode: Inode, checkpoints: &Checkpoints) -> Option<u32> {
        let saved = checkpoints.iter().map(|(_, known)| known);
        let saved = saved.filter(|known| known.inode == inode.number() && known.origin == self.name);
        let saved = saved.map(|known| known.generation).max();
        saved.max(self.generations.get(&inode).copied()).filter(|generation| *generation > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::Kind;
    use super::super::listing::Listed;
    use super::*;

    #[test]
    fn what_was_compressed_before_it_could_be_opened_is_not_lost() {
        let dir = tempfile::tempdir().unwrap();
        let root = Arc::new(Root::open(dir.path()).unwrap());
        let listed = |name: &str, stamp: &str, inode: u64, kind| Listed {
            path: dir.path().join(name),
            inode: Inode::numbered(inode),
            order: Order { restart: 0, is_live: stamp.is_empty(), stamp: stamp.to_owned() },
            size: 10,
            kind,
        };
        let listing = |files| Listing {
            name: "o".to_owned(),
            root: Arc::clone(&root),
            stream: Vec::new().into(),
            format: LineFormat::Container,
            files,
        };
        let plain = |stamp: &str, inode| listed(&format!("0.log.{stamp}"), stamp, inode, Kind::Plain);
        let first = listing(vec![plain("1", 1), plain("2", 2), listed("0.log", "", 3, Kind::Plain)]);
        let mut origin = Origin::new(&first);
        let mut number = 0;
        origin.update(&first, LogTime(1), &mut number);
        let packed = |stamp: &str, inode| listed(&format!("0.log.{stamp}.gz"), stamp, inode, Kind::Gzip);
        let live = |inode| listed("0.log", "", inode, Kind::Plain);
        let mut look = |files| {
            origin.update(&listing(files), LogTime(2), &mut number);
            let named = |name: &str| origin.files.iter().position(|file| file.path.ends_with(name)).unwrap();
            ["0.log.1", "0.log.2", "0.log"].map(|name| origin.was_compressed(named(name)))
        };
        assert_eq!(look(vec![packed("1", 4), plain("3", 5)]), [true, false, false]);
        // The live one is the first that was rotated since.
        assert_eq!(look(vec![packed("1", 4), packed("3", 6), plain("4", 7), live(8)]), [true, false, true]);
        // Nothing says that it was not deleted.
        assert_eq!(look(vec![packed("4", 9), live(8)]), [true, false, false]);
        let named = |name: &str| origin.files.iter().position(|file| file.path.ends_with(name)).unwrap();
        assert!(origin.files[named("0.log.1")].gone.is_some());
    }
}
