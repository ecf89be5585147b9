//! Which files there are, whose they are, and in which order to read them.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use binnacle_model::push::Pair;

/// Where log files are.
#[derive(Debug, Clone)]
pub enum Input {
    /// A directory of links as the kubelet keeps it: `containers/POD_NAMESPACE_CONTAINER-ID.log` leads to
    /// `pods/NAMESPACE_POD_UID/CONTAINER/N.log`.
    Containers(PathBuf),
    /// Plain files; the last part of the path may hold `*`. They belong to this service. What a rotation
    /// made of them (`app.log.1`, `app.log-20261121`) is read before them.
    Files {
        /// Such as `/var/log/app/*.log`.
        pattern: PathBuf,
        /// Label `service` of their lines.
        service: String,
    },
}

/// What a rotation may have compressed.
const COMPRESSED: [&str; 4] = [".gz", ".zst", ".xz", ".bz2"];

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineFormat {
    /// With a runtime's header.
    Cri,
    /// As the program wrote them.
    Plain,
}

/// A file to read.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// Its identity, the same after a rename.
    pub(super) id: String,
    pub(super) path: PathBuf,
    pub(super) stream: Vec<Pair>,
    pub(super) format: LineFormat,
    /// The file of the same container that is to be read before this one.
    pub(super) older: Option<String>,
    /// Whether another file of the container came after it, so that it takes no more lines.
    pub(super) rotated: bool,
}

#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) files: Vec<Found>,
    pub(super) refused: Vec<(PathBuf, &'static str)>,
}

/// Lists what is there now. What cannot be listed is not there: the next look may find it.
pub(super) fn discover(input: &Input, node: &str) -> Listing {
    let mut listing = Listing::default();
    match input {
        Input::Containers(dir) => {
            for path in entries(dir) {
                let Some(container) = container_dir(&path, &mut listing) else { continue };
                list_container(&container, node, &mut listing);
            }
        }
        Input::Files { pattern, service } => {
            let dir = pattern.parent().unwrap_or(Path::new("."));
            let wanted = pattern.file_name().unwrap_or_default().to_string_lossy();
            let stream = pairs(&[("node", node), ("service", service), ("app", service)]);
            for family in families(dir, &wanted, &mut listing).into_values() {
                list_family(family, node, LineFormat::Plain, &stream, &mut listing);
            }
        }
    }
    listing.files.sort_by(|a, b| a.path.cmp(&b.path));
    listing.files.dedup_by(|a, b| a.id == b.id);
    listing
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    paths
}

/// The directory of the container to which a link leads.
///
/// The path must have the kubelet's shape: a link that a pod planted leads elsewhere (L8).
fn container_dir(link: &Path, listing: &mut Listing) -> Option<PathBuf> {
    if link.extension().is_none_or(|extension| extension != "log") {
        return None;
    }
    // A dangling link is a container that is gone, or one that is just starting.
    let target = fs::canonicalize(link).ok()?;
    let container = target.parent()?;
    let is_pods = container.parent().and_then(Path::parent).and_then(Path::file_name);
    if is_pods.is_none_or(|name| name != "pods") {
        let reason = "it does not lead to pods/NAMESPACE_POD_UID/CONTAINER/";
        listing.refused.push((link.to_path_buf(), reason));
        return None;
    }
    Some(container.to_path_buf())
}

/// Every `N.log` and `N.log.*` of a container, oldest first, however often it was rotated (L2).
fn list_container(dir: &Path, node: &str, listing: &mut Listing) {
    let Some(stream) = stream_of(dir, node) else {
        listing.refused.push((dir.to_path_buf(), "its parent is not named NAMESPACE_POD_UID"));
        return;
    };
    let mut files: Vec<(u64, bool, String, PathBuf)> = Vec::new();
    for path in entries(dir) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some((restart, rest)) = name.split_once(".log") else { continue };
        let Ok(restart) = restart.parse() else { continue };
        // Compressed copies and those being made hold lines that were read before they were rotated
        // twice; they are not text.
        // The kubelet's own suffixes, in its own case.
        if matches!(rest.rsplit('.').next(), Some("gz" | "tmp")) {
            continue;
        }
        files.push((restart, rest.is_empty(), rest.to_owned(), path));
    }
    files.sort();
    let files = files.into_iter().map(|(.., path)| path).collect();
    list_family(files, node, LineFormat::Cri, &stream, listing);
}

/// Files that fit the pattern, each with what was rotated away from it, oldest first.
fn families(dir: &Path, wanted: &str, listing: &mut Listing) -> BTreeMap<String, Vec<PathBuf>> {
    let mut families: BTreeMap<String, Vec<(bool, SystemTime, PathBuf)>> = BTreeMap::new();
    for path in entries(dir) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some((base, suffix)) = rotated_name(wanted, &name) else { continue };
        if COMPRESSED.iter().any(|extension| suffix.ends_with(extension) || name.ends_with(extension)) {
            listing.refused.push((path, "it is compressed; what was not read of it before is missing"));
            continue;
        }
        let changed = fs::symlink_metadata(&path).and_then(|metadata| metadata.modified());
        let changed = changed.unwrap_or(UNIX_EPOCH);
        families.entry(base.to_owned()).or_default().push((suffix.is_empty(), changed, path));
    }
    let sorted = |mut files: Vec<(bool, SystemTime, PathBuf)>| {
        files.sort();
        files.into_iter().map(|(.., path)| path).collect()
    };
    families.into_iter().map(|(base, files)| (base, sorted(files))).collect()
}

/// A name's parts: what fits the pattern, and what a rotation put behind it.
fn rotated_name<'a>(wanted: &str, name: &'a str) -> Option<(&'a str, &'a str)> {
    let is_rotation = |suffix: &str| {
        let suffix = COMPRESSED.iter().find_map(|extension| suffix.strip_suffix(extension)).unwrap_or(suffix);
        suffix.starts_with(['.', '-', '_'])
            && suffix.len() > 1
            && suffix.bytes().all(|b| b.is_ascii_digit() || b".-_:TZ".contains(&b))
    };
    // The longest part that makes a rotated file of the name, so that `app-1.log` is no rotation of `app`.
    let cuts = name.char_indices().rev().map(|(at, _)| at).filter(|at| *at > 0);
    let rotation =
        cuts.map(|at| name.split_at(at)).find(|(base, rest)| is_rotation(rest) && fits(wanted, base));
    rotation.or_else(|| fits(wanted, name).then_some((name, "")))
}

/// Files of one origin, oldest first: each but the last takes no more lines.
fn list_family(files: Vec<PathBuf>, node: &str, format: LineFormat, stream: &[Pair], listing: &mut Listing) {
    let last = files.len().saturating_sub(1);
    let mut older = None;
    for (at, path) in files.into_iter().enumerate() {
        let Some((id, is_file)) = identity(&path, node) else { continue };
        if !is_file {
            listing.refused.push((path, "it is not a regular file"));
            continue;
        }
        listing.files.push(Found {
            id: id.clone(),
            path,
            stream: stream.to_vec(),
            format,
            older: older.replace(id),
            rotated: at < last,
        });
    }
}

/// Device, inode and birth time: what a rename keeps, and an inode that is used again does not (L5).
fn identity(path: &Path, node: &str) -> Option<(String, bool)> {
    let metadata = fs::symlink_metadata(path).ok()?;
    Some((file_id(&metadata, node), metadata.is_file()))
}

pub(super) fn file_id(metadata: &Metadata, node: &str) -> String {
    let born = metadata.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let born = born.map_or(0, |born| born.as_nanos());
    format!("{node}/{:x}-{:x}-{born:x}", metadata.dev(), metadata.ino())
}

fn stream_of(dir: &Path, node: &str) -> Option<Vec<Pair>> {
    let container = dir.file_name()?.to_str()?;
    let pod_dir = dir.parent()?.file_name()?.to_str()?;
    let mut parts = pod_dir.splitn(3, '_');
    let (namespace, pod, _uid) = (parts.next()?, parts.next()?, parts.next()?);
    let app = app_of(pod);
    Some(pairs(&[
        ("namespace", namespace),
        ("pod", pod),
        ("container", container),
        ("node", node),
        ("app", app),
        ("service", app),
    ]))
}

fn pairs(of: &[(&str, &str)]) -> Vec<Pair> {
    of.iter().map(|(name, value)| Pair { name: (*name).to_owned(), value: (*value).to_owned() }).collect()
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
fn fits(pattern: &str, name: &str) -> bool {
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
mod tests {
    use super::*;

    #[test]
    fn workloads_are_guessed_from_pod_names() {
        assert_eq!(app_of("payment-7d9f8b6c5-x2x4z"), "payment");
        assert_eq!(app_of("node-exporter-x2x4z"), "node-exporter");
        assert_eq!(app_of("db-0"), "db");
        assert_eq!(app_of("etcd"), "etcd");
        assert_eq!(app_of("my-app"), "my-app");
    }

    #[test]
    fn patterns_fit() {
        assert!(fits("*.log", "a.log"));
        assert!(fits("a*b*c", "aXbYc"));
        assert!(!fits("*.log", "a.log.1"));
        assert!(fits("app.log", "app.log"));
        assert!(!fits("app.log", "app.log2"));
        assert_eq!(rotated_name("*.log", "app.log"), Some(("app.log", "")));
        assert_eq!(rotated_name("*.log", "app.log.1"), Some(("app.log", ".1")));
        assert_eq!(rotated_name("*.log", "app.log-20261121.gz"), Some(("app.log", "-20261121.gz")));
        assert_eq!(rotated_name("*.log", "app-1.log"), Some(("app-1.log", "")));
        assert_eq!(rotated_name("*.log", "app.log.bak"), None);
        assert_eq!(rotated_name("app", "app.1.2"), Some(("app", ".1.2")));
        assert_eq!(rotated_name("app*", "app.log.2"), Some(("app.log", ".2")));
    }
}
