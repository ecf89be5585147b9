//! Syslog: whatever a connection sends, no panic, and lines of a bounded length.
#![no_main]

libfuzzer_sys::fuzz_target!(|stream: &[u8]| {
    binnacle_collector::intake::try_read_syslog(stream);
});
