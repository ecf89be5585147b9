//! Plain files by pattern, and what rotations made of them.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use binnacle_model::push::Pair;

use super::super::records::LineFormat;
use super::{Listed, Listing, Order, Scan, Scanner, fits, listed, service_stream};

/// Compressed by something that is not read.
const FOREIGN_COMPRESSED: [&str; 3] = [".zst", ".xz", ".bz2"];

/// Directories that one pattern may lead to.
const PATTERN_MAX_DIRS: usize = 10_000;

/// Files of a directory that are read.
#[derive(Debug)]
pub(super) struct Wanted {
    /// In which `*` stands for anything.
    pub(super) names: Vec<String>,
    /// Whose they are; without, each file's stem says it.
    pub(super) service: Option<String>,
}

/// What is read of a node's `/var/log`, by directories below it.
pub(super) fn node_files(also: &[String]) -> Vec<(&'static str, Wanted)> {
    let wanted = |names: &[&str]| Wanted {
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        service: None,
    };
    let mut top = wanted(&["kube-*.log", "kubelet.log", "containerd.log", "crio.log", "dockerd.log"]);
    top.names.extend(also.iter().cloned());
    vec![
        ("", top),
        ("audit", wanted(&["*.log"])),
        ("kubernetes", wanted(&["kube-*.log", "audit*.log"])),
        ("kubernetes/audit", wanted(&["*.log"])),
    ]
}

impl Scanner {
    /// Lists files of the directories that a pattern names.
    pub(super) fn scan_files(
        &mut self,
        dirs: &Path,
        wanted: &Wanted,
        there: &mut HashSet<PathBuf>,
        scan: &mut Scan,
    ) {
        for dir in self.dirs_of(dirs, there, scan) {
            let Some((entries, root)) = self.list_anew(&dir, there, scan) else { continue };
            let families = families(Self::without_twins(entries), wanted, scan);
            let listing = |(base, files): (String, Vec<Listed>)| {
                let stem = base.strip_suffix(".log").unwrap_or(&base);
                let stream: Arc<[Pair]> =
                    service_stream(&self.node, wanted.service.as_deref().unwrap_or(stem)).into();
                let name = dir.join(base).display().to_string();
                Listing { name, root: Arc::clone(&root), stream, format: LineFormat::Plain, files }
            };
            let listings = families.into_iter().map(listing).collect();
            self.found(dir, listings, scan);
        }
    }

    /// The directories that a pattern names, each part of which may hold `*`.
    fn dirs_of(&mut self, pattern: &Path, there: &mut HashSet<PathBuf>, scan: &mut Scan) -> Vec<PathBuf> {
        let start = if pattern.as_os_str().is_empty() { PathBuf::from(".") } else { PathBuf::new() };
        let mut dirs = vec![start];
        for part in pattern.components() {
            let text = part.as_os_str().to_string_lossy().into_owned();
            if !text.contains('*') {
                dirs.iter_mut().for_each(|dir| dir.push(part));
                continue;
            }
            let mut next = Vec::new();
            for dir in dirs {
                let (entries, _) = self.list(&dir, there);
                let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                next.extend(entries.into_iter().filter(|path| fits(&text, &name(path)) && path.is_dir()));
            }
            if next.len() > PATTERN_MAX_DIRS {
                let reason =
                    format!("it names more than {PATTERN_MAX_DIRS} directories; the rest is not read");
                scan.refused.push((pattern.to_path_buf(), reason));
                next.truncate(PATTERN_MAX_DIRS);
            }
            dirs = next;
        }
        dirs
    }
}

/// Files that are wanted, each with what was rotated away from it, oldest first.
fn families(entries: Vec<PathBuf>, wanted: &Wanted, scan: &mut Scan) -> BTreeMap<String, Vec<Listed>> {
    let mut families: BTreeMap<String, Vec<Listed>> = BTreeMap::new();
    for path in entries {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some((base, suffix)) = wanted.names.iter().find_map(|wanted| rotated_name(wanted, &name)) else {
            continue;
        };
        if FOREIGN_COMPRESSED.iter().any(|extension| name.ends_with(extension)) {
            let reason =
                "it is compressed by something else than gzip; what was not read of it before is missing";
            scan.refused.push((path, reason.to_owned()));
            continue;
        }
        let changed = fs::symlink_metadata(&path).and_then(|metadata| metadata.modified());
        let changed = changed.unwrap_or(UNIX_EPOCH).duration_since(UNIX_EPOCH).unwrap_or_default();
        let stamp = format!("{:030}{suffix}", changed.as_nanos());
        let order = Order { restart: 0, is_live: suffix.is_empty(), stamp };
        if let Some(file) = listed(path, order, scan) {
            families.entry(base.into_owned()).or_default().push(file);
        }
    }
    families.values_mut().for_each(|files| files.sort_by(|a, b| a.order.cmp(&b.order)));
    families
}

/// A name's parts: what fits the pattern, and what a rotation added to it.
pub(super) fn rotated_name<'a>(wanted: &str, name: &'a str) -> Option<(Cow<'a, str>, &'a str)> {
    let is_rotation = |suffix: &str| {
        let suffix = uncompressed(suffix);
        suffix.starts_with(['.', '-', '_'])
            && suffix.len() > 1
            && suffix.bytes().all(|b| b.is_ascii_digit() || b".-_:TZ".contains(&b))
    };
    // The longest part that makes a rotated file of the name, so that `app-1.log` is no rotation of `app`.
    let cuts = name.char_indices().rev().map(|(at, _)| at).filter(|at| *at > 0);
    let rotation =
        cuts.map(|at| name.split_at(at)).find(|(base, rest)| is_rotation(rest) && fits(wanted, base));
    let rotation = rotation.map(|(base, rest)| (Cow::Borrowed(base), rest));
    let dated = || dated_name(name).filter(|(base, _)| fits(wanted, base));
    rotation.or_else(dated).or_else(|| fits(wanted, name).then_some((Cow::Borrowed(name), "")))
}

/// As logrotate with `extension`, and log writers of Go, name what they rotate: `kube-apiserver-20261121.log.gz`,
/// `audit-2026-11-21T10-00-00.000.log`.
fn dated_name(name: &str) -> Option<(Cow<'_, str>, &str)> {
    const SHAPES: [&[u8]; 3] = [b"-dddd-dd-ddTdd-dd-dd.ddd", b"-dddddddd-dddddddddd", b"-dddddddd"];
    let (stem, extension) = uncompressed(name).rsplit_once('.')?;
    let fits_shape = |text: &&str, shape: &[u8]| {
        text.bytes()
            .zip(shape)
            .all(|(b, shape)| if *shape == b'd' { b.is_ascii_digit() } else { b == *shape })
    };
    let date = SHAPES.iter().find_map(|shape| {
        let at = stem.len().checked_sub(shape.len())?;
        stem.get(at..).filter(|text| fits_shape(text, shape)).map(|_| at)
    });
    // Eight digits may be a number.
    let at = date.filter(|at| *at > 0)?;
    let digits: String = stem[at..].chars().filter(char::is_ascii_digit).take(8).collect();
    let is_date = |year: &str, month: &str, day: &str| {
        ("1990".."2200").contains(&year) && ("01"..="12").contains(&month) && ("01"..="31").contains(&day)
    };
    is_date(&digits[..4], &digits[4..6], &digits[6..])
        .then(|| (Cow::Owned(format!("{}.{extension}", &stem[..at])), &name[at..]))
}

/// Without what a compression put behind a name.
fn uncompressed(name: &str) -> &str {
    let foreign = FOREIGN_COMPRESSED.iter().find_map(|extension| name.strip_suffix(extension));
    foreign.or_else(|| name.strip_suffix(".gz")).unwrap_or(name)
}
