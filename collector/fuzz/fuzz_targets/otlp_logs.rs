//! OTLP's logs: whatever comes, no panic, and no more memory than the body's size allows.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let Some((kind, body)) = body.split_first() else { return };
    binnacle_collector::intake::try_read_otlp_logs(body, kind % 2 == 0);
});
