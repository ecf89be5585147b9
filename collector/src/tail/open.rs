//! Opening files of a directory in which others may write.
//!
//! A pod with a writable `/var/log` can plant links to secrets, pipes and devices (L8). What is opened lies beneath
//! the root, by a path without a link in it, and is a regular file; nothing waits for whoever holds the other end.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Where Docker keeps what links named `N.log` lead to.
const DOCKER_ROOT: &str = "/var/lib/docker/containers";

/// A directory beneath which files may be read.
#[derive(Debug)]
pub(super) struct Root {
    path: PathBuf,
    dir: OwnedFd,
}

impl Root {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Self { path: path.to_path_buf(), dir })
    }

    /// Whether the path still leads to the directory that was opened.
    pub(super) fn is_current(&self) -> bool {
        let (Ok(opened), Ok(now)) = (rustix::fs::fstat(&self.dir), rustix::fs::stat(&self.path)) else {
            return false;
        };
        (opened.st_dev, opened.st_ino) == (now.st_dev, now.st_ino)
    }

    /// Opens a regular file beneath the root.
    ///
    /// # Errors
    /// `NotFound` if it vanished, which is normal; anything else is a reason not to read it.
    pub(super) fn open_file(&self, path: &Path) -> io::Result<File> {
        let beneath = path.strip_prefix(&self.path).map_err(|_| io::Error::other("it lies elsewhere"))?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let opened = match rustix::fs::openat2(&self.dir, beneath, flags, Mode::empty(), within) {
            // Kernels before 5.6, and sandboxes that do not know the call: the last part at least is no link.
            Err(Errno::NOSYS | Errno::PERM) => rustix::fs::openat(&self.dir, beneath, flags, Mode::empty()),
            opened => opened,
        };
        let file = File::from(opened.map_err(|errno| match errno {
            Errno::LOOP | Errno::XDEV => io::Error::other("there is a link in its path"),
            // Such as a socket, or a pipe's other end.
            Errno::NXIO => io::Error::other("it is not a regular file"),
            errno => errno.into(),
        })?);
        if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is not a regular file")) }
    }
}

/// Where a container's `N.log` leads if it is Docker's: `ID/ID-json.log` below its root.
pub(super) fn docker_target(link: &Path) -> Option<PathBuf> {
    let target = std::fs::read_link(link).ok()?;
    let beneath = target.strip_prefix(DOCKER_ROOT).ok()?;
    let (id, file) = (beneath.parent()?.to_str()?, beneath.file_name()?.to_str()?);
    let is_id = id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit());
    (is_id && file.strip_suffix("-json.log") == Some(id)).then_some(target)
}

/// The root of what [`docker_target`] answers.
pub(super) fn docker_root() -> &'static Path {
    Path::new(DOCKER_ROOT)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_regular_files_beneath_the_root_are_opened() {
        let dir = tempfile::tempdir().unwrap();
        let root_path = dir.path().join("pods");
        let deep = root_path.join("a_b_c/ctr");
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::write(dir.path().join("secret"), "s").unwrap();
        std::fs::write(deep.join("0.log"), "x").unwrap();
        let root = Root::open(&root_path).unwrap();
        assert!(root.open_file(&deep.join("0.log")).is_ok());
        symlink(dir.path().join("secret"), deep.join("1.log")).unwrap();
        symlink("0.log", deep.join("2.log")).unwrap();
        symlink(&deep, root_path.join("linked")).unwrap();
        symlink("4.log", deep.join("4.log")).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(deep.join("3.log")).status().unwrap().success());
        for odd in [
            "a_b_c/ctr/1.log",
            "a_b_c/ctr/2.log",
            "linked/0.log",
            "a_b_c/ctr/3.log",
            "a_b_c/ctr/4.log",
            "a_b_c",
        ] {
            let error = root.open_file(&root_path.join(odd)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::Other, "{odd}: {error}");
        }
        assert!(root.is_current());
        std::fs::rename(&root_path, dir.path().join("moved")).unwrap();
        assert!(!root.is_current());
        std::fs::create_dir(&root_path).unwrap();
        assert!(!root.is_current(), "another one in its place");
        std::fs::remove_dir(&root_path).unwrap();
        std::fs::rename(dir.path().join("moved"), &root_path).unwrap();
        assert!(root.open_file(&root_path.join("../secret")).is_err());
        assert!(root.open_file(&dir.path().join("secret")).is_err());
        assert_eq!(root.open_file(&deep.join("9.log")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn links_of_docker_are_known_by_their_shape() {
        let dir = tempfile::tempdir().unwrap();
        let id = "a1".repeat(32);
        for (target, is_docker) in [
            (format!("/var/lib/docker/containers/{id}/{id}-json.log"), true),
            (format!("/var/lib/docker/containers/{id}/config.v2.json"), false),
            (format!("/var/lib/docker/containers/../{id}/{id}-json.log"), false),
            ("/etc/shadow".to_owned(), false),
        ] {
            let link = dir.path().join("0.log");
            let _ = std::fs::remove_file(&link);
            symlink(&target, &link).unwrap();
            assert_eq!(docker_target(&link).is_some(), is_docker, "{target}");
        }
    }
}
