//! This host's CPU, memory, disks, filesystems and network, under node exporter's names.
//!
//! Read from `/proc` at each scrape. What one part cannot read is left out and said in
//! `node_scrape_collector_success`, as node exporter does; the others go on.

use std::fmt::Write;

use procfs::prelude::*;

/// Filesystems without a disk behind them, or that may hang when it is away.
const SKIPPED_FILESYSTEMS: [&str; 26] = [
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "cifs",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "fuse.sshfs",
    "fusectl",
    "hugetlbfs",
    "iso9660",
    "mqueue",
    "nfs",
    "nfs4",
    "nsfs",
    "overlay",
    "proc",
    "pstore",
    "rpc_pipefs",
    "securityfs",
    "squashfs",
    "sysfs",
    "tracefs",
];

type ReadDisk = fn(&procfs::DiskStat) -> f64;
type ReadMount = fn(&rustix::fs::StatVfs) -> f64;
type ReadDevice = fn(&procfs::net::DeviceStatus) -> u64;

type Part = fn(&mut String) -> Result<(), String>;

/// The parts, by the names of node exporter's collectors.
const PARTS: [(&str, Part); 7] = [
    ("cpu", cpu),
    ("diskstats", disks),
    ("filesystem", filesystems),
    ("loadavg", load),
    ("meminfo", memory),
    ("netdev", network),
    ("uname", uname),
];

/// A page in the text format.
pub fn page() -> String {
    let mut page = String::with_capacity(16 * 1024);
    let mut success = String::new();
    family(&mut success, "node_scrape_collector_success", "gauge", "Whether a collector succeeded.");
    for (name, part) in PARTS {
        let before = page.len();
        let done = part(&mut page);
        if let Err(error) = &done {
            tracing::debug!(collector = name, %error, "host metrics were not read");
            page.truncate(before);
        }
        let value = f64::from(u8::from(done.is_ok()));
        sample(&mut success, "node_scrape_collector_success", &[("collector", name)], value);
    }
    page + &success
}

fn family(page: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn sample(page: &mut String, name: &str, labels: &[(&str, &str)], value: f64) {
    page.push_str(name);
    for (i, (label, value)) in labels.iter().enumerate() {
        let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = write!(page, "{}{label}=\"{escaped}\"", if i == 0 { '{' } else { ',' });
    }
    let _ = writeln!(page, "{} {value}", if labels.is_empty() { "" } else { "}" });
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn cpu(page: &mut String) -> Result<(), String> {
    let stat = procfs::KernelStats::current().map_err(text)?;
    let per_second = procfs::ticks_per_second() as f64;
    family(page, "node_cpu_seconds_total", "counter", "Seconds the CPUs spent in each mode.");
    for (number, cpu) in stat.cpu_time.iter().enumerate() {
        let modes = [
            ("idle", cpu.idle),
            ("iowait", cpu.iowait.unwrap_or(0)),
            ("irq", cpu.irq.unwrap_or(0)),
            ("nice", cpu.nice),
            ("softirq", cpu.softirq.unwrap_or(0)),
            ("steal", cpu.steal.unwrap_or(0)),
            ("system", cpu.system),
            ("user", cpu.user),
        ];
        for (mode, ticks) in modes {
            let labels = [("cpu", number.to_string()), ("mode", mode.to_owned())];
            let labels = labels.each_ref().map(|(name, value)| (*name, value.as_str()));
            sample(page, "node_cpu_seconds_total", &labels, ticks as f64 / per_second);
        }
    }
    family(page, "node_boot_time_seconds", "gauge", "Node boot time, in unixtime.");
    sample(page, "node_boot_time_seconds", &[], stat.btime as f64);
    family(page, "node_context_switches_total", "counter", "Total number of context switches.");
    sample(page, "node_context_switches_total", &[], stat.ctxt as f64);
    family(page, "node_forks_total", "counter", "Total number of forks.");
    sample(page, "node_forks_total", &[], stat.processes as f64);
    family(page, "node_procs_running", "gauge", "Number of processes in runnable state.");
    sample(page, "node_procs_running", &[], f64::from(stat.procs_running.unwrap_or(0)));
    family(page, "node_procs_blocked", "gauge", "Number of processes blocked waiting for I/O.");
    sample(page, "node_procs_blocked", &[], f64::from(stat.procs_blocked.unwrap_or(0)));
    Ok(())
}

fn load(page: &mut String) -> Result<(), String> {
    let load = procfs::LoadAverage::current().map_err(text)?;
    for (name, span, value) in [
        ("node_load1", "1m", load.one),
        ("node_load5", "5m", load.five),
        ("node_load15", "15m", load.fifteen),
    ] {
        family(page, name, "gauge", &format!("{span} load average."));
        // Through the text, so that 0.1 does not become 0.10000000149.
        sample(page, name, &[], value.to_string().parse().unwrap_or(f64::from(value)));
    }
    Ok(())
}

fn memory(page: &mut String) -> Result<(), String> {
    let memory = procfs::Meminfo::current().map_err(text)?;
    let known = [
        ("MemTotal", Some(memory.mem_total)),
        ("MemFree", Some(memory.mem_free)),
        ("MemAvailable", memory.mem_available),
        ("Buffers", Some(memory.buffers)),
        ("Cached", Some(memory.cached)),
        ("SwapCached", Some(memory.swap_cached)),
        ("Active", Some(memory.active)),
        ("Inactive", Some(memory.inactive)),
        ("SwapTotal", Some(memory.swap_total)),
        ("SwapFree", Some(memory.swap_free)),
        ("Dirty", Some(memory.dirty)),
        ("Writeback", Some(memory.writeback)),
        ("AnonPages", memory.anon_pages),
        ("Mapped", Some(memory.mapped)),
        ("Shmem", memory.shmem),
        ("Slab", Some(memory.slab)),
        ("SReclaimable", memory.s_reclaimable),
        ("SUnreclaim", memory.s_unreclaim),
        ("KernelStack", memory.kernel_stack),
        ("PageTables", memory.page_tables),
        ("CommitLimit", memory.commit_limit),
        ("Committed_AS", Some(memory.committed_as)),
    ];
    for (field, bytes) in known {
        let Some(bytes) = bytes else { continue };
        let name = format!("node_memory_{field}_bytes");
        family(page, &name, "gauge", &format!("Memory information field {field}_bytes."));
        sample(page, &name, &[], bytes as f64);
    }
    Ok(())
}

fn disks(page: &mut String) -> Result<(), String> {
    let disks = procfs::diskstats().map_err(text)?;
    let is_shown = |name: &str| !["loop", "ram", "zram", "fd", "sr"].iter().any(|p| name.starts_with(p));
    let disks: Vec<_> = disks.into_iter().filter(|disk| is_shown(&disk.name)).collect();
    let columns: [(&str, &str, ReadDisk); 9] = [
        ("node_disk_reads_completed_total", "Reads completed.", |d| d.reads as f64),
        ("node_disk_read_bytes_total", "Bytes read.", |d| d.sectors_read as f64 * 512.0),
        ("node_disk_read_time_seconds_total", "Seconds spent by all reads.", |d| d.time_reading as f64 / 1e3),
        ("node_disk_writes_completed_total", "Writes completed.", |d| d.writes as f64),
        ("node_disk_written_bytes_total", "Bytes written.", |d| d.sectors_written as f64 * 512.0),
        ("node_disk_write_time_seconds_total", "Seconds spent by all writes.", |d| {
            d.time_writing as f64 / 1e3
        }),
        ("node_disk_io_time_seconds_total", "Seconds spent doing I/Os.", |d| d.time_in_progress as f64 / 1e3),
        ("node_disk_io_time_weighted_seconds_total", "Weighted seconds spent doing I/Os.", |d| {
            d.weighted_time_in_progress as f64 / 1e3
        }),
        ("node_disk_io_now", "I/Os in progress.", |d| d.in_progress as f64),
    ];
    for (name, help, read) in columns {
        family(page, name, if name.ends_with("_total") { "counter" } else { "gauge" }, help);
        for disk in &disks {
            sample(page, name, &[("device", &disk.name)], read(disk));
        }
    }
    Ok(())
}

fn filesystems(page: &mut String) -> Result<(), String> {
    let mounts = procfs::mounts().map_err(text)?;
    let mut shown = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for mount in mounts {
        let skipped = SKIPPED_FILESYSTEMS.contains(&mount.fs_vfstype.as_str())
            || ["/proc", "/sys", "/dev"].iter().any(|dir| mount.fs_file.starts_with(dir));
        if skipped || !seen.insert(mount.fs_file.clone()) {
            continue;
        }
        // A mount that is not ours to see is no failure of the others.
        if let Ok(stat) = rustix::fs::statvfs(&mount.fs_file) {
            shown.push((mount, stat));
        }
    }
    let columns: [(&str, &str, ReadMount); 6] = [
        ("node_filesystem_size_bytes", "Filesystem size in bytes.", |s| (s.f_blocks * s.f_frsize) as f64),
        ("node_filesystem_free_bytes", "Filesystem free space in bytes.", |s| {
            (s.f_bfree * s.f_frsize) as f64
        }),
        ("node_filesystem_avail_bytes", "Filesystem space available to non-root users in bytes.", |s| {
            (s.f_bavail * s.f_frsize) as f64
        }),
        ("node_filesystem_files", "Filesystem total file nodes.", |s| s.f_files as f64),
        ("node_filesystem_files_free", "Filesystem total free file nodes.", |s| s.f_ffree as f64),
        ("node_filesystem_readonly", "Filesystem read-only status.", |s| {
            f64::from(u8::from(s.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY)))
        }),
    ];
    for (name, help, read) in columns {
        family(page, name, "gauge", help);
        for (mount, stat) in &shown {
            let labels = [
                ("device", mount.fs_spec.as_str()),
                ("fstype", mount.fs_vfstype.as_str()),
                ("mountpoint", mount.fs_file.as_str()),
            ];
            sample(page, name, &labels, read(stat));
        }
    }
    Ok(())
}

fn network(page: &mut String) -> Result<(), String> {
    let mut devices: Vec<_> = procfs::net::dev_status().map_err(text)?.into_values().collect();
    devices.sort_by(|a, b| a.name.cmp(&b.name));
    let columns: [(&str, ReadDevice); 8] = [
        ("receive_bytes", |d| d.recv_bytes),
        ("receive_packets", |d| d.recv_packets),
        ("receive_errs", |d| d.recv_errs),
        ("receive_drop", |d| d.recv_drop),
        ("transmit_bytes", |d| d.sent_bytes),
        ("transmit_packets", |d| d.sent_packets),
        ("transmit_errs", |d| d.sent_errs),
        ("transmit_drop", |d| d.sent_drop),
    ];
    for (column, read) in columns {
        let name = format!("node_network_{column}_total");
        family(page, &name, "counter", &format!("Network device statistic {column}."));
        for device in &devices {
            sample(page, &name, &[("device", &device.name)], read(device) as f64);
        }
    }
    Ok(())
}

#[allow(clippy::unnecessary_wraps, reason = "it has the shape of all parts")]
fn uname(page: &mut String) -> Result<(), String> {
    let uname = rustix::system::uname();
    let labels = [
        ("machine", uname.machine().to_string_lossy()),
        ("nodename", uname.nodename().to_string_lossy()),
        ("release", uname.release().to_string_lossy()),
        ("sysname", uname.sysname().to_string_lossy()),
        ("version", uname.version().to_string_lossy()),
    ];
    let labels = labels.each_ref().map(|(name, value)| (*name, value.as_ref()));
    family(page, "node_uname_info", "gauge", "Labeled system information as provided by uname.");
    sample(page, "node_uname_info", &labels, 1.0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::exposition::{Format, Line, parse};

    #[test]
    fn the_page_is_legal_and_has_what_dashboards_ask_for() {
        let page = super::page();
        let mut names = std::collections::BTreeSet::new();
        parse(page.as_bytes(), Format::Text, |line| {
            if let Line::Sample { series, .. } = line {
                let text = std::str::from_utf8(series).unwrap();
                names.insert(text.split('{').next().unwrap().to_owned());
            }
        })
        .unwrap();
        for name in [
            "node_cpu_seconds_total",
            "node_memory_MemAvailable_bytes",
            "node_load1",
            "node_network_receive_bytes_total",
            "node_uname_info",
            "node_boot_time_seconds",
        ] {
            assert!(names.contains(name), "{name} in {names:?}");
        }
    }
}
