//! Files of systemd's journal: whatever bytes they have, they are read to their end, in bounded time and memory.
#![no_main]

use std::io::Write;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(bytes).expect("bytes");
    binnacle_collector::journal::try_journal(file).expect("a file that can be read");
});
