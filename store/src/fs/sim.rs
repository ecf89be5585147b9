//! A disk in memory that crashes where a test says.
//!
//! Every call that changes something is a step. [`SimDisk::fail_after`] ends the disk at a step: that
//! call and all later ones fail, as if the power had gone in its middle. [`SimDisk::crash`] then gives
//! the disk that a restart finds. Of each file it keeps what was synced, and of what was not, a prefix
//! that may be torn in its last sector; of each directory's changes since its last sync, the first few.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Disk, ReadFile, Room, WriteFile};

/// What a disk writes in one piece; a crash may leave a part of one unsynced sector.
const SECTOR_BYTES: usize = 512;

/// A disk in memory. Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

type FileNumber = u64;

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<FileNumber, SimFile>,
    /// What the process sees.
    names: BTreeMap<PathBuf, FileNumber>,
    /// What survives for certain.
    durable_names: BTreeMap<PathBuf, FileNumber>,
    /// Changes of names that no directory sync has covered yet, in order.
    pending: Vec<NameChange>,
    directories: std::collections::BTreeSet<PathBuf>,
    next_file: FileNumber,
    /// Handles that somebody holds.
    open: usize,
    steps: u64,
    fail_after: Option<u64>,
    capacity_bytes: Option<u64>,
    fail_sync: bool,
    /// Calls under this path fail once so many were let through.
    fail_under: Option<(PathBuf, u64)>,
}

#[derive(Debug, Clone, Default)]
struct SimFile {
    bytes: Vec<u8>,
    synced: usize,
}

#[derive(Debug, Clone)]
enum NameChange {
    Link(PathBuf, FileNumber),
    Rename(PathBuf, PathBuf, FileNumber),
    Unlink(PathBuf),
    /// Of a directory, with all that is in it.
    Move(PathBuf, PathBuf),
}

/// Where a path is once the directory `from` is `to`.
fn moved(path: &Path, from: &Path, to: &Path) -> Option<PathBuf> {
    path.strip_prefix(from)
        .ok()
        .map(|rest| if rest.as_os_str().is_empty() { to.into() } else { to.join(rest) })
}

impl NameChange {
    fn is_in(&self, dir: &Path) -> bool {
        match self {
            Self::Link(path, _) | Self::Unlink(path) | Self::Rename(_, path, _) | Self::Move(_, path) => {
                path.parent() == Some(dir)
            }
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, FileNumber>) {
        match self {
            Self::Link(path, file) => {
                names.insert(path.clone(), *file);
            }
            Self::Rename(from, to, file) => {
                names.remove(from);
                names.insert(to.clone(), *file);
            }
            Self::Unlink(path) => {
                names.remove(path);
            }
            Self::Move(from, to) => {
                let inside: Vec<PathBuf> =
                    names.keys().filter(|name| name.starts_with(from)).cloned().collect();
                for name in inside {
                    let number = names.remove(&name);
                    names.extend(moved(&name, from, to).zip(number));
                }
            }
        }
    }
}

impl SimDisk {
    /// How many files are open; one that is open twice counts twice.
    pub fn open_files(&self) -> usize {
        self.lock().open
    }

    /// How many calls have changed something so far.
    pub fn steps(&self) -> u64 {
        self.lock().steps
    }

    /// Lets `steps` more calls through and fails the rest.
    pub fn fail_after(&self, steps: u64) {
        let mut state = self.lock();
        state.fail_after = Some(state.steps + steps);
    }

    /// Whether it has ended.
    pub fn has_died(&self) -> bool {
        let state = self.lock();
        state.fail_after.is_some_and(|last| state.steps >= last)
    }

    /// Refuses appends beyond this many bytes in all files, as a full disk does.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.lock().capacity_bytes = bytes;
    }

    /// Makes every file sync fail from now on, or work again.
    pub fn set_sync_failure(&self, fails: bool) {
        self.lock().fail_sync = fails;
    }

    /// Lets `steps` more calls under a path through and fails the rest, until told `None`.
    pub fn fail_under(&self, failing: Option<(&Path, u64)>) {
        self.lock().fail_under = failing.map(|(dir, steps)| (dir.to_path_buf(), steps));
    }

    /// Changes one bit of a file, as a bad disk does.
    ///
    /// # Panics
    /// If there is no such file or it is shorter.
    pub fn flip_bit(&self, path: &Path, bit: usize) {
        let mut state = self.lock();
        let number = state.names[path];
        let file = state.files.get_mut(&number).expect("a name leads to a file");
        file.bytes[bit / 8] ^= 1 << (bit % 8);
    }

    /// The disk that a restart finds. `seed` decides what survives of all that was not synced.
    #[must_use]
    pub fn crash(&self, seed: u64) -> Self {
        let state = self.lock();
        let mut random = seed;
        let mut names = state.durable_names.clone();
        // Names reach the disk in order, so that what survives of them is a prefix.
        let kept = below(&mut random, state.pending.len() + 1);
        state.pending.iter().take(kept).for_each(|change| change.apply(&mut names));
        let mut files = BTreeMap::new();
        for number in names.values() {
            let Some(file) = state.files.get(number) else { continue };
            let unsynced = file.bytes.len() - file.synced;
            let length = file.synced + below(&mut random, unsynced + 1);
            let mut bytes = file.bytes[..length].to_vec();
            let torn = length.saturating_sub(SECTOR_BYTES).max(file.synced);
            if below(&mut random, 4) == 0 {
                // A sector of which the length arrived but not the content.
                bytes[torn..].fill(0);
            }
            files.insert(*number, SimFile { synced: bytes.len(), bytes });
        }
        let of_names = names.keys().flat_map(|name| name.ancestors().skip(1).map(Path::to_path_buf));
        let directories = state.directories.iter().cloned().chain(of_names).collect();
        let state = State {
            files,
            durable_names: names.clone(),
            names,
            directories,
            next_file: state.next_file,
            ..State::default()
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A number below `bound` from a xorshift generator, which is all the chance a crash needs.
fn below(random: &mut u64, bound: usize) -> usize {
    *random = random.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x1234_5678_9abc_def1);
    *random ^= *random >> 29;
    (*random % bound as u64) as usize
}

impl State {
    /// Bytes of all files that have a name. Those without one are taken for closed.
    fn used(&self) -> u64 {
        let named: std::collections::BTreeSet<FileNumber> = self.names.values().copied().collect();
        named.iter().filter_map(|number| self.files.get(number)).map(|file| file.bytes.len() as u64).sum()
    }

    fn is_too_much(&self, bytes: u64) -> bool {
        self.capacity_bytes.is_some_and(|most| self.used() + bytes > most)
    }

    fn step(&mut self, path: &Path) -> io::Result<()> {
        if let Some((dir, left)) = &mut self.fail_under
            && path.starts_with(dir)
        {
            *left = left.checked_sub(1).ok_or_else(|| io::Error::other("simulated refusal"))?;
        }
        if self.fail_after.is_some_and(|limit| self.steps >= limit) {
            return Err(io::Error::other("simulated power loss"));
        }
        self.steps += 1;
        Ok(())
    }

    fn number(&self, path: &Path) -> io::Result<FileNumber> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, path.display().to_string());
        self.names.get(path).copied().ok_or_else(missing)
    }

    fn change(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.pending.push(change);
    }
}

impl Disk for SimDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        let mut state = self.lock();
        state.step(path)?;
        let number = state.next_file;
        state.next_file += 1;
        state.files.insert(number, SimFile::default());
        state.change(NameChange::Link(path.to_path_buf(), number));
        drop(state);
        Ok(Box::new(SimHandle::new(self, path, number)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn ReadFile>> {
        let number = self.lock().number(path)?;
        Ok(Arc::new(SimHandle::new(self, path, number)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.step(to)?;
        if state.directories.contains(from) {
            state.change(NameChange::Move(from.to_path_buf(), to.to_path_buf()));
            let (old, kept) =
                std::mem::take(&mut state.directories).into_iter().partition(|dir| dir.starts_with(from));
            let old: std::collections::BTreeSet<PathBuf> = old;
            state.directories = kept;
            state.directories.extend(old.iter().filter_map(|dir| moved(dir, from, to)));
            return Ok(());
        }
        let number = state.number(from)?;
        state.change(NameChange::Rename(from.to_path_buf(), to.to_path_buf(), number));
        Ok(())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.step(to)?;
        let number = state.number(from)?;
        state.change(NameChange::Link(to.to_path_buf(), number));
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.step(path)?;
        state.number(path)?;
        state.change(NameChange::Unlink(path.to_path_buf()));
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.step(path)?;
        let inside: Vec<PathBuf> =
            state.names.keys().filter(|name| name.starts_with(path)).cloned().collect();
        for name in inside {
            state.change(NameChange::Unlink(name));
        }
        state.directories.retain(|dir| !dir.starts_with(path));
        Ok(())
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.step(path)?;
        state.directories.extend(path.ancestors().map(Path::to_path_buf));
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.lock();
        if !state.directories.contains(dir) {
            return Err(io::Error::new(io::ErrorKind::NotFound, dir.display().to_string()));
        }
        let paths = state.names.keys().chain(&state.directories);
        let children = paths.filter(|path| path.parent() == Some(dir));
        let names = children.filter_map(|path| path.file_name());
        let mut names: Vec<String> = names.map(|name| name.to_string_lossy().into_owned()).collect();
        names.sort_unstable();
        Ok(names)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let state = self.lock();
        Ok(state.names.contains_key(path) || state.directories.contains(path))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.step(dir)?;
        let mut rest = Vec::new();
        for change in std::mem::take(&mut state.pending) {
            if change.is_in(dir) {
                change.apply(&mut state.durable_names);
            } else {
                rest.push(change);
            }
        }
        state.pending = rest;
        Ok(())
    }

    fn room(&self, _: &Path) -> io::Result<Room> {
        let state = self.lock();
        let total = state.capacity_bytes.unwrap_or(1 << 40);
        Ok(Room { free: total.saturating_sub(state.used()), total })
    }
}

struct SimHandle {
    disk: SimDisk,
    path: PathBuf,
    number: FileNumber,
}

impl SimHandle {
    fn new(disk: &SimDisk, path: &Path, number: FileNumber) -> Self {
        disk.lock().open += 1;
        Self { disk: disk.clone(), path: path.to_path_buf(), number }
    }
}

impl Drop for SimHandle {
    fn drop(&mut self) {
        self.disk.lock().open -= 1;
    }
}

impl WriteFile for SimHandle {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.lock();
        let full = state.is_too_much(bytes.len() as u64);
        let alive = state.step(&self.path);
        let file = state.files.get_mut(&self.number).expect("an open file stays");
        if full || alive.is_err() {
            // Some of the bytes arrive all the same, as they do on a real disk.
            file.bytes.extend_from_slice(&bytes[..bytes.len() / 2]);
            alive?;
            return Err(io::Error::new(io::ErrorKind::StorageFull, "simulated full disk"));
        }
        file.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.disk.lock();
        state.step(&self.path)?;
        if state.fail_sync {
            return Err(io::Error::other("simulated sync failure"));
        }
        let file = state.files.get_mut(&self.number).expect("an open file stays");
        file.synced = file.bytes.len();
        Ok(())
    }

    fn truncate(&mut self, size: u64) -> io::Result<()> {
        let mut state = self.disk.lock();
        state.step(&self.path)?;
        let file = state.files.get_mut(&self.number).expect("an open file stays");
        file.bytes.truncate(usize::try_from(size).unwrap_or(usize::MAX));
        file.synced = file.synced.min(file.bytes.len());
        Ok(())
    }

    fn allocate(&mut self, bytes: u64) -> io::Result<()> {
        let mut state = self.disk.lock();
        state.step(&self.path)?;
        if state.is_too_much(bytes) {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "simulated full disk"));
        }
        let file = state.files.get_mut(&self.number).expect("an open file stays");
        file.bytes.resize(file.bytes.len() + usize::try_from(bytes).unwrap_or(usize::MAX), 0);
        Ok(())
    }
}

impl ReadFile for SimHandle {
    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.lock().files[&self.number].bytes.len() as u64)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let state = self.disk.lock();
        let bytes = &state.files[&self.number].bytes;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let source = start.checked_add(buffer.len()).and_then(|end| bytes.get(start..end));
        buffer.copy_from_slice(source.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> PathBuf {
        Path::new("/d").join(name)
    }

    fn read(disk: &SimDisk, name: &str) -> Option<Vec<u8>> {
        super::super::read_all(disk, &path(name), 1 << 20).ok()
    }

    #[test]
    fn synced_bytes_survive_every_crash_and_unsynced_names_may_not() {
        let disk = SimDisk::default();
        disk.create_dir_all(Path::new("/d")).unwrap();
        let mut kept = disk.create(&path("kept")).unwrap();
        kept.append(b"synced").unwrap();
        kept.sync().unwrap();
        disk.sync_dir(Path::new("/d")).unwrap();
        kept.append(b" not").unwrap();
        disk.create(&path("unsynced")).unwrap();
        let crashed: Vec<SimDisk> = (0..64).map(|seed| disk.crash(seed)).collect();
        assert!(crashed.iter().all(|disk| read(disk, "kept").unwrap().starts_with(b"synced")));
        assert!(crashed.iter().any(|disk| read(disk, "kept").unwrap().len() == 6));
        assert!(crashed.iter().any(|disk| read(disk, "unsynced").is_none()));
        assert!(crashed.iter().any(|disk| read(disk, "unsynced").is_some()));
    }

    #[test]
    fn a_failing_disk_stays_failed() {
        let disk = SimDisk::default();
        disk.fail_after(1);
        assert!(disk.create(&path("a")).is_ok());
        assert!(disk.create(&path("b")).is_err());
        assert!(disk.sync_dir(Path::new("/d")).is_err());
    }

    #[test]
    fn a_full_disk_says_so() {
        let disk = SimDisk::default();
        disk.set_capacity(Some(4));
        let mut file = disk.create(&path("a")).unwrap();
        file.append(b"1234").unwrap();
        let error = file.append(b"5").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
