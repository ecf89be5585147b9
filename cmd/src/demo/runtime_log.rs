//! Lines as a container runtime writes them, with the kubelet's links and rotation.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use binnacle_model::time::Clock;

use crate::clock::SystemClock;

/// A demo's file is rotated sooner than a cluster's, so that one sees it happen.
const ROTATE_AT_BYTES: u64 = 2 * 1024 * 1024;

/// Files kept per container, the open one included.
const MAX_FILES: usize = 5;

/// The log of one container.
pub(super) struct RuntimeLog {
    path: PathBuf,
    open: Mutex<Open>,
}

struct Open {
    file: File,
    bytes: u64,
}

impl RuntimeLog {
    /// Opens `pods/shop_POD_UID/app/0.log` below `root` and its link in `containers/`.
    pub(super) fn open(root: &Path, pod: &str) -> io::Result<Self> {
        let uid =
            format!("{:032x}", pod.bytes().fold(7u128, |hash, b| hash.wrapping_mul(131) + u128::from(b)));
        let dir = root.join("pods").join(format!("shop_{pod}_{uid}")).join("app");
        fs::create_dir_all(&dir)?;
        let containers = root.join("containers");
        fs::create_dir_all(&containers)?;
        let path = dir.join("0.log");
        let link = containers.join(format!("{pod}_shop_app-{uid}.log"));
        match symlink(&path, &link) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let open = Mutex::new(Self::open_file(&path)?);
        Ok(Self { path, open })
    }

    fn open_file(path: &Path) -> io::Result<Open> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Open { file, bytes })
    }

    /// Writes a line to standard output or error. A demo goes on without a line it cannot write.
    pub(super) fn line(&self, iostream: &str, message: &str) {
        let time = SystemClock.now_ns().to_rfc3339();
        let line = format!("{time} {iostream} F {message}\n");
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let written = open.file.write_all(line.as_bytes());
        open.bytes += line.len() as u64;
        let rotated = if open.bytes >= ROTATE_AT_BYTES { self.rotate(&mut open) } else { Ok(()) };
        if let Err(error) = written.and(rotated) {
            tracing::warn!(path = %self.path.display(), %error, "the shop's log cannot be written");
        }
    }

    fn rotate(&self, open: &mut Open) -> io::Result<()> {
        let stamp = SystemClock.now_ns().0 / 1_000_000;
        fs::rename(&self.path, self.path.with_file_name(format!("0.log.{stamp}")))?;
        *open = Self::open_file(&self.path)?;
        let dir = self.path.parent().unwrap_or(Path::new("."));
        let mut old: Vec<PathBuf> = Vec::new();
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path != self.path {
                old.push(path);
            }
        }
        old.sort();
        let surplus = (old.len() + 1).saturating_sub(MAX_FILES);
        old.iter().take(surplus).try_for_each(fs::remove_file)
    }
}
