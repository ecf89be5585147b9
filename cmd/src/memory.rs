//! How much memory there is.

use std::fs;

/// Series in memory, with their samples of two to three hours: a half of it for them all.
const BYTES_PER_SERIES: u64 = 2048;

/// Bytes that this process may use: those of its control group, or of the machine.
pub(crate) fn limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let of_groups = group_files(&groups).into_iter().filter_map(|file| fs::read_to_string(file).ok());
    // A group without a limit says `max`, or a number beyond every machine.
    let of_groups = of_groups.filter_map(|text| text.trim().parse().ok());
    let of_machine = fs::read_to_string("/proc/meminfo").ok();
    of_groups.chain(of_machine.and_then(|text| total(&text))).min()
}

/// How many series may be in memory where nobody says it, out of `most`.
pub(crate) fn series(most: usize) -> usize {
    let fitting = |bytes: u64| usize::try_from(bytes / 2 / BYTES_PER_SERIES).unwrap_or(usize::MAX);
    limit().map_or(most, |bytes| fitting(bytes).min(most))
}

/// Where the limits of control groups stand, of both versions, as a container sees its own and as a host does.
fn group_files(groups: &str) -> Vec<String> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|one| one == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        // Whatever group it is in, those above it have limits, too.
        let mut path = path.trim_end_matches('/');
        files.push(format!("{root}/{file}"));
        while !path.is_empty() {
            files.push(format!("{root}{path}/{file}"));
            path = path.rsplit_once('/').map_or("", |(above, _)| above);
        }
    }
    files
}

/// `MemTotal` of `/proc/meminfo`.
fn total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_as_linux_tells_it() {
        assert_eq!(total("MemTotal:       16 kB\nMemFree: 1 kB\n"), Some(16 * 1024));
        assert_eq!(total("MemFree: 1 kB\n"), None);
        let groups = group_files("5:cpu:/x\n4:memory,blkio:/kube/pod\n0::/\n");
        let v1 = ["", "/kube/pod", "/kube"]
            .map(|path| format!("/sys/fs/cgroup/memory{path}/memory.limit_in_bytes"));
        assert_eq!(groups, [&v1[..], &["/sys/fs/cgroup/memory.max".to_owned()]].concat());
        assert!(series(10) == 10 && series(usize::MAX) < usize::MAX);
        assert!(limit().is_some_and(|bytes| bytes > 1 << 20));
    }
}
