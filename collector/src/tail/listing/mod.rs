//! Which files there are, whose they are, and in which order to read them.

mod journals;
mod plain;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use binnacle_model::push::Pair;
use binnacle_model::storage::POD_UID;
use xxhash_rust::xxh3::xxh3_64;

use super::file::Kind;
use super::identity::Inode;
use super::open::{Root, docker_root, docker_target};
use super::records::LineFormat;
use crate::journal::Units;

use plain::{Wanted, node_files};

/// Where log files are.
#[derive(Debug, Clone)]
pub enum Input {
    /// A directory of links as the kubelet keeps it: `containers/POD_NAMESPACE_CONTAINER-ID.log` leads to
    /// `pods/NAMESPACE_POD_UID/CONTAINER/N.log`. All of `pods/` beside it is read, too.
    Containers(PathBuf),
    /// Plain files; parts of the path may hold `*`. They belong to this service. What a rotation made of them
    /// (`app.log.1`, `app.log-20261121`, `app.log.2.gz`) is read before them.
    Files {
        /// Such as `/var/log/app/*.log`.
        pattern: PathBuf,
        /// Label `service` of their lines.
        service: String,
    },
    /// What a node's own services write below `/var/log`: `kube-*.log`, `kubelet.log`, the container runtime's, audit logs. The service of a file is its stem.
    Node {
        /// Such as `/var/log`.
        dir: PathBuf,
        /// Names of further files directly in it, such as `syslog`, in which `*` stands for anything.
        also: Vec<String>,
    },
    /// Journals of systemd: files in these directories, and in those of machines below them.
    Journal {
        /// Such as `/var/log/journal`.
        dirs: Vec<PathBuf>,
        /// Whose entries are read.
        units: Units,
    },
}

impl Input {
    /// Names the directory of its checkpoint: `containers-var-log-containers-1c2f09a85de1043b`.
    pub fn dir_name(&self) -> String {
        let name = self.name();
        let words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
        let mut readable = words.collect::<Vec<_>>().join("-");
        readable.truncate(NAME_MAX_BYTES);
        format!("{readable}-{:016x}", xxh3_64(name.as_bytes()))
    }

    /// What it is and where, however it is tailed.
    fn name(&self) -> String {
        match self {
            Self::Containers(dir) => format!("containers {}", dir.display()),
            Self::Files { pattern, .. } => format!("files {}", pattern.display()),
            Self::Node { dir, .. } => format!("node {}", dir.display()),
            Self::Journal { dirs, .. } => {
                let dirs: Vec<String> = dirs.iter().map(|dir| dir.display().to_string()).collect();
                format!("journal {}", dirs.join(" "))
            }
        }
    }
}

/// The longest part of an input's name that can be read in that of its directory.
const NAME_MAX_BYTES: usize = 60;

/// A directory is listed again if it changed so shortly before: clocks of file systems are coarse.
const SAME_MOMENT: Duration = Duration::from_secs(2);

/// Ends the names of origins whose files Docker keeps.
const DOCKER_ORIGIN: &str = "/docker";

/// The files of one origin, oldest first: what one container wrote since it was made, or one plain file and its
/// rotations.
#[derive(Debug, Clone)]
pub(super) struct Listing {
    /// The same as long as the origin is the same, on this node.
    pub(super) name: String,
    pub(super) root: Arc<Root>,
    pub(super) stream: Arc<[Pair]>,
    pub(super) format: LineFormat,
    pub(super) files: Vec<Listed>,
}

/// A file as its directory shows it.
#[derive(Debug, Clone)]
pub(super) struct Listed {
    pub(super) path: PathBuf,
    pub(super) inode: Inode,
    pub(super) order: Order,
    pub(super) size: u64,
    pub(super) kind: Kind,
}

/// Place of a file among those of its origin.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub(super) struct Order {
    /// How often the container had been restarted.
    pub(super) restart: u64,
    /// It still has the name under which lines are written.
    pub(super) is_live: bool,
    /// When it was rotated, in whatever form tells.
    pub(super) stamp: String,
}

/// What a look found.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Origins whose files may have changed.
    pub(super) changed: Vec<Listing>,
    /// Origins that are no more.
    pub(super) gone: Vec<String>,
    pub(super) refused: Vec<(PathBuf, String)>,
}

/// Looks at directories, again only at those that changed.
pub(super) struct Scanner {
    input: Input,
    node: String,
    roots: BTreeMap<PathBuf, Arc<Root>>,
    links: HashSet<PathBuf>,
    dirs: HashMap<PathBuf, Seen>,
    /// Names of origins, by the directory that they were found in.
    origins: HashMap<PathBuf, HashSet<String>>,
    /// Origins that the last look listed.
    listed: HashSet<String>,
}

/// A directory as it was when it was listed.
struct Seen {
    changed: SystemTime,
    is_settled: bool,
    entries: Vec<PathBuf>,
}

impl Scanner {
    pub(super) fn new(input: Input, node: &str) -> Self {
        Self {
            input,
            node: node.to_owned(),
            roots: BTreeMap::new(),
            links: HashSet::new(),
            dirs: HashMap::new(),
            origins: HashMap::new(),
            listed: HashSet::new(),
        }
    }

    /// Looks at all directories. What cannot be listed is not there: the next look may find it.
    pub(super) fn scan(&mut self) -> Scan {
        let mut scan = Scan::default();
        let mut there = HashSet::new();
        match self.input.clone() {
            Input::Containers(dir) => self.scan_pods(&dir, &mut there, &mut scan),
            Input::Files { pattern, service } => {
                let wanted = pattern.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let wanted = Wanted { names: vec![wanted], service: Some(service) };
                self.scan_files(pattern.parent().unwrap_or(Path::new(".")), &wanted, &mut there, &mut scan);
            }
            Input::Node { dir, also } => {
                for (below, wanted) in node_files(&also) {
                    self.scan_files(&dir.join(below), &wanted, &mut there, &mut scan);
                }
            }
            Input::Journal { dirs, .. } => self.scan_journals(&dirs, &mut there, &mut scan),
        }
        if !matches!(self.input, Input::Containers(_)) {
            self.roots.retain(|dir, _| there.contains(dir));
        }
        self.listed = scan.changed.iter().map(|listing| listing.name.clone()).collect();
        self.dirs.retain(|dir, _| there.contains(dir));
        let gone: Vec<PathBuf> = self.origins.keys().filter(|dir| !there.contains(*dir)).cloned().collect();
        scan.gone.extend(gone.iter().filter_map(|dir| self.origins.remove(dir)).flatten());
        scan
    }

    /// The directories that the last look found.
    pub(super) fn dirs(&self) -> impl Iterator<Item = &Path> {
        self.dirs.keys().map(PathBuf::as_path)
    }

    /// Names of the origins whose files are in a directory.
    pub(super) fn origins_in(&self, dir: &Path) -> impl Iterator<Item = &String> {
        self.origins.get(dir).into_iter().flatten()
    }

    /// Whether the last look listed the directory of an origin, rather than trust that nothing changed.
    pub(super) fn is_fresh(&self, origin: &str) -> bool {
        self.listed.contains(origin)
    }

    /// Lists the directory of an origin again at the next look, whether it changed or not.
    pub(super) fn forget(&mut self, origin: &str) {
        for (dir, names) in &self.origins {
            if let Some(seen) = self.dirs.get_mut(dir).filter(|_| names.contains(origin)) {
                seen.is_settled = false;
            }
        }
    }

    fn scan_pods(&mut self, containers: &Path, there: &mut HashSet<PathBuf>, scan: &mut Scan) {
        self.find_roots(containers, there, scan);
        for (path, root) in self.roots.clone() {
            for pod in self.list(&path, there).0 {
                for dir in self.list(&pod, there).0 {
                    let (files, is_new) = self.list(&dir, there);
                    if is_new && (!files.is_empty() || self.origins.contains_key(&dir)) {
                        let listings = self.list_container(&dir, files, &root, scan);
                        let is_docker = listings.iter().any(|listing| listing.name.ends_with(DOCKER_ORIGIN));
                        // Its files lie in another directory, whose changes are not seen in this one.
                        if let Some(seen) = self.dirs.get_mut(&dir).filter(|_| is_docker) {
                            seen.is_settled = false;
                        }
                        self.found(dir, listings, scan);
                    }
                }
            }
        }
    }

    /// Directories named `pods`: that beside the links, and those to which links lead.
    fn find_roots(&mut self, containers: &Path, there: &mut HashSet<PathBuf>, scan: &mut Scan) {
        let beside = containers.parent().unwrap_or(Path::new(".")).join("pods");
        let mut found: Vec<PathBuf> = fs::canonicalize(beside).into_iter().collect();
        let links = self.list(containers, there).0;
        let now: HashSet<PathBuf> = links.into_iter().collect();
        self.links.retain(|link| now.contains(link));
        for link in now {
            if link.extension().is_none_or(|extension| extension != "log") || self.links.contains(&link) {
                continue;
            }
            // A dangling link is a container that is gone, or one that is just starting.
            let Ok(target) = fs::read_link(&link) else { continue };
            let target = containers.join(target);
            let Some(dir) = target.parent().and_then(|dir| fs::canonicalize(dir).ok()) else { continue };
            let root = dir.parent().and_then(Path::parent);
            if let Some(root) = root.filter(|root| root.file_name().is_some_and(|name| name == "pods")) {
                found.push(root.to_path_buf());
            } else {
                // A link that a pod planted leads elsewhere (L8).
                let reason = "it does not lead to pods/NAMESPACE_POD_UID/CONTAINER/";
                scan.refused.push((link.clone(), reason.to_owned()));
            }
            self.links.insert(link);
        }
        found.extend(self.roots.keys().cloned());
        self.roots.retain(|path, _| path.is_dir());
        for path in found.into_iter().filter(|path| path.is_dir()) {
            self.root(path, scan);
        }
    }

    fn root(&mut self, path: PathBuf, scan: &mut Scan) -> Option<Arc<Root>> {
        if let Some(root) = self.roots.get(&path).filter(|root| root.is_current()) {
            return Some(Arc::clone(root));
        }
        // What was seen beneath another directory of this name says nothing.
        if self.roots.remove(&path).is_some() {
            self.dirs.retain(|dir, _| !dir.starts_with(&path));
        }
        match Root::open(&path) {
            Ok(root) => {
                let root = Arc::new(root);
                self.roots.insert(path, Arc::clone(&root));
                Some(root)
            }
            Err(error) => {
                scan.refused.push((path, error.to_string()));
                None
            }
        }
    }

    /// Without what is being compressed beside its original: that is read as long as it is there.
    fn without_twins(entries: Vec<PathBuf>) -> Vec<PathBuf> {
        let all: HashSet<PathBuf> = entries.iter().cloned().collect();
        let is_twin = |path: &PathBuf| {
            path.extension().is_some_and(|extension| extension == "gz")
                && all.contains(&path.with_extension(""))
        };
        entries.into_iter().filter(|path| !is_twin(path)).collect()
    }

    /// What is in a directory, and whether that may have changed since the last look.
    fn list(&mut self, dir: &Path, there: &mut HashSet<PathBuf>) -> (Vec<PathBuf>, bool) {
        let Ok(changed) = fs::metadata(dir).and_then(|metadata| metadata.modified()) else {
            return (Vec::new(), false);
        };
        there.insert(dir.to_path_buf());
        if let Some(seen) = self.dirs.get(dir)
            && seen.changed == changed
            && seen.is_settled
        {
            return (seen.entries.clone(), false);
        }
        #[allow(
            clippy::disallowed_methods,
            reason = "it is compared with a time that the kernel's clock gave"
        )]
        let now = SystemTime::now();
        let is_settled = now.duration_since(changed).is_ok_and(|age| age > SAME_MOMENT);
        let Ok(entries) = fs::read_dir(dir) else { return (Vec::new(), false) };
        let mut entries: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        entries.sort();
        self.dirs.insert(dir.to_path_buf(), Seen { changed, is_settled, entries: entries.clone() });
        (entries, true)
    }

    /// Lists a directory of files, and opens it. `None` if it is not there, or was not changed since the last look.
    fn list_anew(
        &mut self,
        dir: &Path,
        there: &mut HashSet<PathBuf>,
        scan: &mut Scan,
    ) -> Option<(Vec<PathBuf>, Arc<Root>)> {
        // First, because another directory of this name is listed anew.
        if self.roots.get(dir).is_some_and(|root| !root.is_current()) {
            self.roots.remove(dir);
            self.dirs.remove(dir);
        }
        let (entries, is_new) = self.list(dir, there);
        if !there.contains(dir) {
            return None;
        }
        let root = self.root(dir.to_path_buf(), scan).filter(|_| is_new)?;
        Some((entries, root))
    }

    /// Tells what was found in a directory, and what is no more of what was found there before.
    fn found(&mut self, dir: PathBuf, listings: Vec<Listing>, scan: &mut Scan) {
        let names: HashSet<String> = listings.iter().map(|listing| listing.name.clone()).collect();
        let before = self.origins.insert(dir, names.clone()).unwrap_or_default();
        scan.gone.extend(before.into_iter().filter(|name| !names.contains(name)));
        scan.changed.extend(listings);
    }

    /// Every `N.log` and `N.log.*` of a container, oldest first, however often it was rotated (L2).
    fn list_container(
        &self,
        dir: &Path,
        entries: Vec<PathBuf>,
        root: &Arc<Root>,
        scan: &mut Scan,
    ) -> Vec<Listing> {
        let Some(stream) = stream_of(dir, &self.node) else {
            let reason = "its parent is not named NAMESPACE_POD_UID".to_owned();
            scan.refused.push((dir.to_path_buf(), reason));
            return Vec::new();
        };
        let mut files = Vec::new();
        let mut of_docker = Vec::new();
        for path in Self::without_twins(entries) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let Some((restart, rest)) = name.split_once(".log") else { continue };
            let Ok(restart) = restart.parse() else { continue };
            // What is being compressed, beside the file itself. The kubelet's own suffixes, in its own case.
            if rest.rsplit('.').next() == Some("tmp") {
                continue;
            }
            let stamp = rest.trim_end_matches(".gz").to_owned();
            let order = Order { restart, is_live: rest.is_empty(), stamp };
            if let Some(target) = docker_target(&path) {
                of_docker.push((target, restart));
                continue;
            }
            files.extend(listed(path, order, scan));
        }
        files.sort_by(|a: &Listed, b| a.order.cmp(&b.order));
        let pod = dir.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
        let container = dir.file_name().unwrap_or_default().to_string_lossy();
        let name = format!("{pod}/{container}");
        let stream: Arc<[Pair]> = stream.into();
        let mut listings = Vec::new();
        if !of_docker.is_empty()
            && let Ok(root) = Root::open(docker_root())
        {
            let files = docker_files(&of_docker, scan);
            let (name, stream, root) =
                (format!("{name}{DOCKER_ORIGIN}"), Arc::clone(&stream), Arc::new(root));
            listings.push(Listing { name, root, stream, format: LineFormat::Container, files });
        }
        if !files.is_empty() || listings.is_empty() {
            let root = Arc::clone(root);
            listings.push(Listing { name, root, stream, format: LineFormat::Container, files });
        }
        listings
    }
}

fn listed(path: PathBuf, order: Order, scan: &mut Scan) -> Option<Listed> {
    // It may have vanished since, which is normal (L10).
    let metadata = fs::symlink_metadata(&path).ok()?;
    if !metadata.is_file() {
        scan.refused.push((path, "it is not a regular file".to_owned()));
        return None;
    }
    let compressed = path.extension().is_some_and(|extension| extension == "gz");
    let kind = if compressed { Kind::Gzip } else { Kind::Plain };
    Some(Listed { inode: Inode::of(&metadata), size: metadata.len(), path, order, kind })
}

/// What Docker keeps beside the file that a link leads to: `ID-json.log.1` is newer than `.2`.
fn docker_files(links: &[(PathBuf, u64)], scan: &mut Scan) -> Vec<Listed> {
    let mut files = Vec::new();
    for (target, restart) in links {
        let dir = target.parent().unwrap_or(Path::new("/"));
        let live = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(rest) = name.strip_prefix(&live) else { continue };
            let rest = rest.trim_end_matches(".gz");
            let Some(number) = rest.strip_prefix('.').map_or(Some(0), |rest| rest.parse::<u32>().ok()) else {
                continue;
            };
            let stamp = format!("{:010}", u32::MAX - number);
            files.extend(listed(
                entry.path(),
                Order { restart: *restart, is_live: number == 0, stamp },
                scan,
            ));
        }
    }
    files.sort_by(|a: &Listed, b| a.order.cmp(&b.order));
    files
}

fn stream_of(dir: &Path, node: &str) -> Option<Vec<Pair>> {
    let container = dir.file_name()?.to_str()?;
    let pod_dir = dir.parent()?.file_name()?.to_str()?;
    let mut parts = pod_dir.splitn(3, '_');
    let (namespace, pod, uid) = (parts.next()?, parts.next()?, parts.next()?);
    let app = app_of(pod);
    Some(pairs(&[
        ("namespace", namespace),
        ("pod", pod),
        ("container", container),
        ("node", node),
        ("app", app),
        ("service", app),
        (POD_UID, uid),
    ]))
}

fn pairs(of: &[(&str, &str)]) -> Vec<Pair> {
    of.iter().map(|(name, value)| Pair { name: (*name).to_owned(), value: (*value).to_owned() }).collect()
}

/// The stream of what a service of a node writes.
pub(super) fn service_stream(node: &str, service: &str) -> Vec<Pair> {
    pairs(&[("node", node), ("service", service), ("app", service)])
}

/// The workload's name in a pod's name: without the suffixes that Deployments, DaemonSets and
/// StatefulSets add. A guess, until the API server says it.
pub(crate) fn app_of(pod: &str) -> &str {
    // Names made by Kubernetes avoid vowels and look-alikes.
    let is_random =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b"bcdfghjklmnpqrstvwxz2456789".contains(&b));
    let is_ordinal = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let Some((rest, last)) = pod.rsplit_once('-') else { return pod };
    if last.len() == 5 && is_random(last) {
        return match rest.rsplit_once('-') {
            Some((app, hash)) if (6..=10).contains(&hash.len()) && is_random(hash) => app,
            _ => rest,
        };
    }
    if is_ordinal(last) { rest } else { pod }
}

/// Whether a name fits a pattern in which `*` stands for anything.
pub(crate) fn fits(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let mut rest = rest;
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests;
