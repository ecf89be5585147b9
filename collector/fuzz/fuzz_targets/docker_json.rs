//! Docker's lines with bytes in each of their members.
#![no_main]

libfuzzer_sys::fuzz_target!(|parts: &[u8]| {
    let mut file = b"abc".to_vec();
    for part in parts.split(|b| *b == 0xff) {
        file.extend_from_slice(b"{\"log\":\"");
        file.extend_from_slice(part);
        file.extend_from_slice(b"\",\"stream\":\"stdout\",\"time\":\"2026-11-21T20:50:57.5Z\"}\n");
    }
    binnacle_collector::tail::try_lines(&file);
});
