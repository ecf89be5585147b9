//! Remote write 2.0: whatever comes, no panic.
#![no_main]

libfuzzer_sys::fuzz_target!(|body: &[u8]| {
    if let Ok(request) = binnacle_collector::intake::write_request_v2(body) {
        let _ = (request.batch().len(), request.exemplars().len());
    }
});
