//! Replay takes any bytes for a log file, and never panics.
#![no_main]

use std::path::Path;
use std::sync::Arc;

use binnacle_store::fs::{Disk, SimDisk};
use binnacle_store::wal::{Floor, Wal};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let disk = SimDisk::default();
    let dir = Path::new("/wal");
    let _ = disk.create_dir_all(dir);
    if let Ok(mut file) = disk.create(&dir.join("0000000001.wal")) {
        let _ = file.append(bytes);
    }
    let _ = Wal::open(Arc::new(disk), dir, &Floor::default(), &mut |_, _, _, _| {});
});
