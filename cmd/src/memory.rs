//! How much memory there is.

use std::fs;

/// Bytes that this process may use: those of its control group, or of the machine.
pub(crate) fn limit() -> Option<u64> {
    let of_group = fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let of_machine = fs::read_to_string("/proc/meminfo").ok();
    let of_group = of_group.and_then(|text| text.trim().parse().ok());
    of_group.into_iter().chain(of_machine.and_then(|text| total(&text))).min()
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
        assert!(limit().is_some_and(|bytes| bytes > 1 << 20));
    }
}
