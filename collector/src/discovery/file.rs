//! `file_sd_configs`: lists of targets in files, JSON or YAML, read again when they change.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use binnacle_model::time::optional_duration;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::{Context, Discoverer, Discovery, RawGroup, Running, TargetGroup, Updates, groups_of};

/// One file at most.
const FILE_MAX_BYTES: u64 = 64 * 1024 * 1024;

/// How often is looked whether a file has changed: targets of a file are there within it.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// All are read again after this time, as in Prometheus.
const REFRESH_INTERVAL: Duration = Duration::from_mins(5);

const LABEL: &str = "__meta_filepath";

/// One of `file_sd_configs` as the operator wrote it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawFileSd {
    files: Vec<String>,
    #[serde(with = "optional_duration")]
    refresh_interval: Option<Duration>,
}

#[derive(Debug, Clone)]
struct FileDiscovery {
    patterns: Vec<PathBuf>,
    refresh: Duration,
}

impl RawFileSd {
    /// Files are relative to `dir`.
    pub(crate) fn check(self, dir: &Path) -> Result<Arc<dyn Discovery>, String> {
        if self.files.is_empty() {
            return Err("file service discovery config must contain at least one path name".to_owned());
        }
        for file in &self.files {
            let extension = Path::new(file).extension().unwrap_or_default().to_ascii_lowercase();
            let name = Path::new(file).file_name().unwrap_or_default().to_string_lossy();
            let is_known = ["json", "yml", "yaml"].iter().any(|known| extension == *known);
            let is_directory_pattern =
                Path::new(file).parent().is_some_and(|dir| dir.to_string_lossy().contains('*'));
            if !is_known || is_directory_pattern || name.matches('*').count() > 1 {
                return Err(format!(
                    "path name {file:?} is not valid for file discovery: write *.json, *.yml or *.yaml with one * at most"
                ));
            }
        }
        let patterns = self.files.iter().map(|file| dir.join(file)).collect();
        let refresh = self.refresh_interval.filter(|span| !span.is_zero()).unwrap_or(REFRESH_INTERVAL);
        Ok(Arc::new(FileDiscovery { patterns, refresh }))
    }
}

impl Discovery for FileDiscovery {
    fn discoverer(&self, _: &Context) -> Box<dyn Discoverer> {
        Box::new(FileDiscoverer { discovery: self.clone(), known: BTreeMap::new() })
    }
}

/// What tells that a file has changed.
type Print = (Option<SystemTime>, u64, u64);

#[derive(Debug)]
struct FileDiscoverer {
    discovery: FileDiscovery,
    /// Of each file its print, and how many groups it gave.
    known: BTreeMap<PathBuf, (Print, usize)>,
}

impl Discoverer for FileDiscoverer {
    fn run(mut self: Box<Self>, found: Updates, stop: CancellationToken) -> Running {
        Box::pin(async move {
            let mut ticks = tokio::time::interval(LOOK_INTERVAL);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
            let mut read = tokio::time::Instant::now();
            let mut is_first = true;
            loop {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    _ = ticks.tick() => {}
                }
                let is_due = read.elapsed() >= self.discovery.refresh;
                if is_due {
                    read = tokio::time::Instant::now();
                }
                let looked = tokio::task::spawn_blocking(move || {
                    let groups = self.look(is_due);
                    (self, groups)
                });
                let Ok((me, groups)) = looked.await else { return };
                self = me;
                if is_first || !groups.is_empty() {
                    found.set(groups);
                }
                is_first = false;
            }
        })
    }
}

impl FileDiscoverer {
    /// The groups of files that changed, or of `all`; empty ones for what is gone. A file that cannot be read keeps what it
    /// gave.
    fn look(&mut self, all: bool) -> Vec<TargetGroup> {
        let there: BTreeSet<PathBuf> =
            self.discovery.patterns.iter().flat_map(|pattern| matching(pattern)).collect();
        let mut groups = Vec::new();
        for path in &there {
            let Some(print) = print_of(path) else { continue };
            let before = self.known.get(path).copied();
            if !all && before.is_some_and(|(known, _)| known == print) {
                continue;
            }
            let count = before.map_or(0, |(_, count)| count);
            match read(path) {
                Ok(found) => {
                    let now = found.len();
                    groups.extend(found);
                    groups.extend((now..count).map(|at| nothing(path, at)));
                    self.known.insert(path.clone(), (print, now));
                }
                Err(reason) => {
                    tracing::warn!(path = %path.display(), reason, "targets of a file cannot be read: those from before stay");
                    self.known.insert(path.clone(), (print, count));
                }
            }
        }
        self.known.retain(|path, (_, count)| {
            let is_there = there.contains(path);
            if !is_there {
                groups.extend((0..*count).map(|at| nothing(path, at)));
            }
            is_there
        });
        groups
    }
}

fn nothing(path: &Path, at: usize) -> TargetGroup {
    TargetGroup { source: format!("{}:{at}", path.display()), ..TargetGroup::default() }
}

fn print_of(path: &Path) -> Option<Print> {
    use std::os::unix::fs::MetadataExt;

    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok(), metadata.len(), metadata.ino()))
}

fn read(path: &Path) -> Result<Vec<TargetGroup>, String> {
    let length = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if length > FILE_MAX_BYTES {
        return Err(format!("more than {FILE_MAX_BYTES} bytes"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let is_json = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
    let raw: Option<Vec<RawGroup>> = if is_json {
        serde_json::from_str(&text).map_err(|error| error.to_string())?
    } else if text.trim().is_empty() {
        None
    } else {
        serde_saphyr::from_str(&text).map_err(|error| error.without_snippet().to_string())?
    };
    groups_of(raw.unwrap_or_default(), &path.display().to_string(), LABEL)
}

/// Files that a pattern names; in the last part of a path `*` stands for anything, and `?` for one character.
fn matching(pattern: &Path) -> Vec<PathBuf> {
    let name = pattern.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if !name.contains(['*', '?', '[']) {
        return if pattern.is_file() { vec![pattern.to_owned()] } else { Vec::new() };
    }
    let Some((start, end)) = name.split_once('*') else { return Vec::new() };
    let Ok(entries) = pattern.parent().unwrap_or(Path::new(".")).read_dir() else { return Vec::new() };
    let is_meant = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end)
    };
    entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_meant).collect()
}

#[cfg(test)]
mod tests {
    use super::super::ADDRESS;
    use super::*;

    fn shown(groups: &[TargetGroup]) -> Vec<String> {
        let show = |group: &TargetGroup| {
            let addresses: Vec<&str> = group.targets.iter().map(|one| one.value(ADDRESS)).collect();
            let name = group.source.rsplit('/').next().unwrap();
            format!("{name} {} {}", addresses.join(","), group.labels.value("env"))
        };
        groups.iter().map(show).collect()
    }

    #[test]
    fn files_are_read_when_they_change_and_a_broken_one_keeps_its_targets() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("a.json", r#"[{"targets": ["h:1", "h:2"], "labels": {"env": "p"}}, {"targets": ["h:3"]}]"#);
        write("b.yml", "- targets: ['h:4']\n  labels: {env: 7}\n");
        write("c.txt", "not meant");
        let raw: RawFileSd = serde_saphyr::from_str("{files: ['*.json', 'b.yml']}").unwrap();
        let patterns = raw.files.iter().map(|file| dir.path().join(file)).collect();
        assert!(raw.check(dir.path()).is_ok());
        let discovery = FileDiscovery { patterns, refresh: REFRESH_INTERVAL };
        let mut discoverer = FileDiscoverer { discovery, known: BTreeMap::new() };
        let first = discoverer.look(false);
        assert_eq!(shown(&first), ["a.json:0 h:1,h:2 p", "a.json:1 h:3 ", "b.yml:0 h:4 7"]);
        assert!(first[0].labels.value(LABEL).ends_with("/a.json"));
        assert!(discoverer.look(false).is_empty());
        write("a.json", "[{");
        assert!(discoverer.look(false).is_empty());
        write("a.json", r#"[{"targets": ["h:5"]}]"#);
        assert_eq!(shown(&discoverer.look(false)), ["a.json:0 h:5 ", "a.json:1  "]);
        std::fs::remove_file(dir.path().join("b.yml")).unwrap();
        assert_eq!(shown(&discoverer.look(false)), ["b.yml:0  "]);
        assert_eq!(discoverer.look(true).len(), 1);
    }

    #[test]
    fn patterns_are_checked() {
        for bad in ["{files: []}", "{files: [a.txt]}", "{files: ['*/a.yml']}", "{files: ['a*b*.yml']}"] {
            let raw: RawFileSd = serde_saphyr::from_str(bad).unwrap();
            assert!(raw.check(Path::new("/")).is_err(), "{bad}");
        }
    }
}
