//! What the kernel tells of directories between two looks at them: inotify.
//!
//! A hint makes the next look come sooner, and no more: what it does not tell of, because a queue ran over or the
//! system has no watch left, the look finds all the same (L16). Directories in which lines are written all the time are
//! not watched for writes: they are looked at often enough.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

/// Each takes about a kilobyte of the kernel's memory.
const WATCH_MAX: usize = 16_384;

/// Bytes of events that are read at once, and how often in one go.
const BUFFER_BYTES: usize = 16 * 1024;
const READS_MAX: usize = 32;

/// A directory that is deleted while a file of it is open does not say so itself: the one above does.
const CHANGES: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR)
    .union(WatchFlags::DONT_FOLLOW);

/// What was told since the last time.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// Files came, went or got other names, or too much happened to tell it all.
    pub(super) is_changed: bool,
    /// Directories in which a file was written to.
    pub(super) written: HashSet<PathBuf>,
}

/// Watches of directories.
pub(super) struct Hints {
    /// `None` where the system gives none.
    inotify: Option<OwnedFd>,
    watches: HashMap<PathBuf, Watch>,
    dirs: HashMap<i32, PathBuf>,
}

#[derive(Debug, Clone, Copy)]
struct Watch {
    id: i32,
    tells_writes: bool,
}

impl Hints {
    pub(super) fn new() -> Self {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC);
        if let Err(error) = &inotify {
            tracing::info!(%error, "no inotify: directories of logs are looked at without its hints (fs.inotify.max_user_instances)");
        }
        Self { inotify: inotify.ok(), watches: HashMap::new(), dirs: HashMap::new() }
    }

    /// How many directories are watched.
    pub(super) fn len(&self) -> usize {
        self.watches.len()
    }

    /// Watches these directories and no others, each for writes as well if that is said.
    pub(super) fn watch(&mut self, wanted: &HashMap<&Path, bool>) {
        let gone = self.watches.keys().filter(|dir| !wanted.contains_key(dir.as_path()));
        for dir in gone.cloned().collect::<Vec<_>>() {
            if let (Some(watch), Some(inotify)) = (self.watches.remove(&dir), &self.inotify) {
                self.dirs.remove(&watch.id);
                // It is gone with its directory already, if that is.
                let _ = inotify::remove_watch(inotify, watch.id);
            }
        }
        for (dir, tells_writes) in wanted {
            let known = self.watches.get(*dir);
            if known.is_some_and(|watch| watch.tells_writes == *tells_writes)
                || (known.is_none() && self.watches.len() >= WATCH_MAX)
            {
                continue;
            }
            if !self.set(dir, *tells_writes) {
                return;
            }
        }
    }

    /// Answers whether further ones may be tried.
    fn set(&mut self, dir: &Path, tells_writes: bool) -> bool {
        let Some(inotify) = &self.inotify else { return false };
        let flags = if tells_writes { CHANGES | WatchFlags::MODIFY } else { CHANGES };
        match inotify::add_watch(inotify, dir, flags) {
            Ok(id) => {
                self.watches.insert(dir.to_path_buf(), Watch { id, tells_writes });
                self.dirs.insert(id, dir.to_path_buf());
                true
            }
            // Others have them all. The next look tries again.
            Err(Errno::NOSPC | Errno::NOMEM) => false,
            Err(_) => true,
        }
    }

    /// What happened since the last time; does not wait.
    pub(super) fn told(&mut self) -> Told {
        let mut told = Told::default();
        let Some(inotify) = &self.inotify else { return told };
        let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
        let mut gone = Vec::new();
        let mut reader = Reader::new(inotify, &mut buffer);
        let mut reads = 0;
        while reads < READS_MAX {
            reads += usize::from(reader.is_buffer_empty());
            let Ok(event) = reader.next() else { break };
            let (id, events) = (event.wd(), event.events());
            if events.contains(ReadFlags::QUEUE_OVERFLOW) {
                told.is_changed = true;
                continue;
            }
            if events.intersects(ReadFlags::IGNORED | ReadFlags::MOVE_SELF | ReadFlags::DELETE_SELF) {
                gone.push(id);
            }
            if events.contains(ReadFlags::ISDIR)
                && events.intersects(ReadFlags::DELETE | ReadFlags::MOVED_FROM)
                && let (Some(name), Some(above)) = (event.file_name(), self.dirs.get(&id))
            {
                gone.extend(
                    self.watches.get(&above.join(OsStr::from_bytes(name.to_bytes()))).map(|watch| watch.id),
                );
            }
            if !events.intersects(ReadFlags::MODIFY) {
                told.is_changed |= !events.contains(ReadFlags::IGNORED);
            } else if let Some(dir) = self.dirs.get(&id)
                && !told.written.contains(dir)
            {
                told.written.insert(dir.clone());
            }
        }
        for id in gone {
            if let Some(dir) = self.dirs.remove(&id) {
                self.watches.remove(&dir);
                // It went with its directory, unless a file in there is still open.
                let _ = inotify::remove_watch(inotify, id);
            }
        }
        // They are read now; what is read is looked at often until it falls silent.
        for dir in &told.written {
            if self.watches.contains_key(dir) {
                self.set(dir, false);
            }
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{File, create_dir, remove_dir, rename};
    use std::io::Write;

    use super::*;

    fn watch(hints: &mut Hints, dirs: &[(&Path, bool)]) {
        hints.watch(&dirs.iter().copied().collect());
    }

    #[test]
    fn hints_tell_of_files_that_come_and_of_the_first_write_to_each_silent_directory() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        for dir in [&a, &b] {
            create_dir(dir).expect("directory");
        }
        let mut files = [&a, &b].map(|dir| File::create(dir.join("0.log")).expect("file"));
        let mut hints = Hints::new();
        watch(&mut hints, &[(dir.path(), false), (&a, true), (&b, false)]);
        assert_eq!(hints.told(), Told::default());

        let mut write = || files.iter_mut().for_each(|file| file.write_all(b"x").expect("written"));
        write();
        let written = |dirs: &[&PathBuf]| Told {
            written: dirs.iter().map(|dir| (*dir).clone()).collect(),
            ..Told::default()
        };
        assert_eq!(hints.told(), written(&[&a]));
        write();
        assert_eq!(hints.told(), Told::default(), "it is looked at anyway while it is read");
        watch(&mut hints, &[(dir.path(), false), (&a, true), (&b, true)]);
        write();
        assert_eq!(hints.told(), written(&[&a, &b]));

        rename(a.join("0.log"), a.join("0.log.1")).expect("renamed");
        assert_eq!(hints.told(), Told { is_changed: true, ..Told::default() });
        File::create(b.join("1.log")).expect("file");
        assert!(hints.told().is_changed);

        // Gone, though a file of it is open, and back under the same name.
        std::fs::remove_file(a.join("0.log.1")).expect("removed");
        remove_dir(&a).expect("removed");
        assert!(hints.told().is_changed);
        assert_eq!(hints.len(), 2);
        create_dir(&a).expect("directory");
        watch(&mut hints, &[(&a, true)]);
        File::create(a.join("0.log")).expect("file");
        assert!(hints.told().is_changed);
        assert_eq!(hints.len(), 1, "nobody asked for the other one");
    }

    #[test]
    fn hints_that_were_too_many_are_a_reason_to_look() {
        let limit = std::fs::read_to_string("/proc/sys/fs/inotify/max_queued_events");
        let limit: usize = limit.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(16_384);
        if limit > 200_000 {
            println!("SKIPPED: this system keeps {limit} events");
            return;
        }
        let dir = tempfile::tempdir().expect("temporary directory");
        let mut files = ["0.log", "1.log"].map(|name| File::create(dir.path().join(name)).expect("file"));
        let mut hints = Hints::new();
        watch(&mut hints, &[(dir.path(), true)]);
        for at in 0..=limit {
            // By turns, because equal events in a row are one.
            files[at % 2].write_all(b"x").expect("written");
        }
        let mut told = Told::default();
        for _ in 0..=limit * 32 / BUFFER_BYTES / READS_MAX {
            told.is_changed |= hints.told().is_changed;
        }
        assert!(told.is_changed);
    }
}
