//! What would be lost because its file was deleted before the store had it.
//!
//! While the store is away the files are the queue: nothing is copied as long as they are there. When one is deleted,
//! what is still open of it is written here, compressed; a restart finds it again. Bytes and age are bounded (L20).

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use binnacle_model::LogTime;
use binnacle_model::push::Pair;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};

use super::file::Identity;
use super::identity::First;
use super::listing::Order;
use super::records::LineFormat;
use super::source::Source;

/// How much is kept, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct SpoolLimits {
    /// Compressed bytes. Zero keeps nothing.
    pub bytes: u64,
    /// Since the file was deleted.
    pub age: Duration,
}

impl Default for SpoolLimits {
    fn default() -> Self {
        Self { bytes: 1024 * 1024 * 1024, age: Duration::from_hours(24) }
    }
}

/// What is said of a spooled file, beside it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Spooled {
    pub(super) origin: String,
    stream: Vec<(String, String)>,
    is_plain: bool,
    restart: u64,
    stamp: String,
    key: String,
    first: First,
    /// Offset of the first byte that is kept.
    pub(super) base: u64,
    /// Offset behind the last one.
    pub(super) size: u64,
    deleted_ns: i64,
}

/// Where it lies.
#[derive(Debug)]
pub(super) struct Spool {
    dir: PathBuf,
    limits: SpoolLimits,
    /// Files in it, with their compressed bytes.
    held: Vec<(PathBuf, Spooled, u64)>,
    next: u64,
}

/// What there is to say of a file that goes into the spool.
pub(super) struct Leaving<'a> {
    pub(super) origin: &'a str,
    pub(super) stream: &'a [Pair],
    pub(super) format: LineFormat,
    pub(super) order: &'a Order,
    pub(super) identity: &'a Identity,
    pub(super) from: u64,
    pub(super) size: u64,
    pub(super) deleted: LogTime,
}

impl Spooled {
    pub(super) fn stream(&self) -> Vec<Pair> {
        let pair = |(name, value): &(String, String)| Pair { name: name.clone(), value: value.clone() };
        self.stream.iter().map(pair).collect()
    }

    pub(super) fn format(&self) -> LineFormat {
        if self.is_plain { LineFormat::Plain } else { LineFormat::Container }
    }

    pub(super) fn order(&self) -> Order {
        Order { restart: self.restart, is_live: false, stamp: self.stamp.clone() }
    }

    pub(super) fn identity(&self) -> Identity {
        Identity { first: self.first, key: self.key.clone() }
    }
}

impl Spool {
    /// Finds what an earlier process left. What was half written is removed.
    pub(super) fn open(dir: PathBuf, limits: SpoolLimits) -> Self {
        let mut spool = Self { dir, limits, held: Vec::new(), next: 0 };
        let Ok(entries) = fs::read_dir(&spool.dir) else { return spool };
        let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.sort();
        for path in &paths {
            let Some(number) = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok()) else {
                continue;
            };
            spool.next = spool.next.max(number + 1);
            if path.extension().is_none_or(|extension| extension != "gz") {
                continue;
            }
            let said = fs::read(path.with_extension("json"))
                .and_then(|bytes| serde_json::from_slice(&bytes).map_err(io::Error::other));
            let bytes = fs::metadata(path).map_or(0, |metadata| metadata.len());
            match said {
                Ok(said) => spool.held.push((path.clone(), said, bytes)),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "spooled log file was not finished; its bytes are lost");
                    remove(path);
                }
            }
        }
        spool
    }

    pub(super) fn held(&self) -> impl Iterator<Item = (&PathBuf, &Spooled)> {
        self.held.iter().map(|(path, said, _)| (path, said))
    }

    pub(super) fn bytes(&self) -> u64 {
        self.held.iter().map(|(.., bytes)| bytes).sum()
    }

    /// Copies what is left of a file from `leaving.from` on; `None` if there is no room.
    ///
    /// What is compressed already is copied as it is, from its beginning on.
    pub(super) fn put(
        &mut self,
        leaving: &Leaving<'_>,
        source: &mut Source,
        base: u64,
    ) -> io::Result<Option<(PathBuf, u64)>> {
        let room = self.limits.bytes.saturating_sub(self.bytes());
        fs::create_dir_all(&self.dir)?;
        let path = self.dir.join(format!("{:020}.gz", self.next));
        self.next += 1;
        let mut out = Bounded { file: File::create(&path)?, room, is_full: false };
        let copied = match source {
            Source::Gzip(_) => source.copy_packed(&mut out).map(|_| base),
            // What is open is its own copy; see `vanished`.
            Source::Plain(_) | Source::Journal(_) => {
                copy_plain(source, leaving.from, &mut out).map(|()| leaving.from)
            }
        };
        let base = match copied {
            Ok(base) => base,
            Err(_) if out.is_full => {
                remove(&path);
                return Ok(None);
            }
            Err(error) => {
                remove(&path);
                return Err(error);
            }
        };
        out.file.sync_all()?;
        let said = Spooled {
            origin: leaving.origin.to_owned(),
            stream: leaving.stream.iter().map(|pair| (pair.name.clone(), pair.value.clone())).collect(),
            is_plain: leaving.format == LineFormat::Plain,
            restart: leaving.order.restart,
            // The live one was newer than all that have a stamp.
            stamp: if leaving.order.is_live { "~".to_owned() } else { leaving.order.stamp.clone() },
            key: leaving.identity.key.clone(),
            first: leaving.identity.first,
            base,
            size: leaving.size,
            deleted_ns: leaving.deleted.0,
        };
        let mut about = File::create(path.with_extension("json"))?;
        about.write_all(&serde_json::to_vec(&said)?)?;
        about.sync_all()?;
        File::open(&self.dir)?.sync_all()?;
        self.held.push((path.clone(), said, room - out.room));
        Ok(Some((path, base)))
    }

    /// Removes what was acknowledged, or given up.
    pub(super) fn remove(&mut self, path: &Path) {
        self.held.retain(|(held, ..)| held != path);
        remove(path);
    }

    /// What is older than the limit.
    pub(super) fn expired(&self, now: LogTime) -> Vec<PathBuf> {
        let is_old = |said: &Spooled| {
            let age = now.0.saturating_sub(said.deleted_ns);
            u128::try_from(age).is_ok_and(|age| age > self.limits.age.as_nanos())
        };
        self.held.iter().filter(|(_, said, _)| is_old(said)).map(|(path, ..)| path.clone()).collect()
    }
}

/// First what says that the other is whole.
fn remove(path: &Path) {
    for path in [path.with_extension("json"), path.to_path_buf()] {
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "spooled log file cannot be removed");
        }
    }
}

fn copy_plain(source: &mut Source, from: u64, out: &mut Bounded) -> io::Result<()> {
    let mut packed = GzEncoder::new(out, Compression::fast());
    let (mut at, mut piece) = (from, Vec::new());
    loop {
        let ended = source.read(at, 256 * 1024, &mut piece)?;
        packed.write_all(&piece)?;
        at += piece.len() as u64;
        if ended {
            break;
        }
    }
    packed.finish().map(|_| ())
}

/// A file that takes so much and no more.
struct Bounded {
    file: File,
    room: u64,
    is_full: bool,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.room {
            self.is_full = true;
            return Err(io::ErrorKind::StorageFull.into());
        }
        let written = self.file.write(bytes)?;
        self.room -= written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Source {
    /// Copies a compressed file as it is.
    fn copy_packed(&self, out: &mut impl Write) -> io::Result<u64> {
        let mut file = self.file().try_clone()?;
        io::Seek::rewind(&mut file)?;
        io::copy(&mut Read::take(&mut file, u64::MAX), out)
    }
}
