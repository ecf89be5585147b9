//! Any body is a request or an error.
#![no_main]

libfuzzer_sys::fuzz_target!(|body: &[u8]| {
    if let Ok(request) = binnacle_collector::intake::write_request(body) {
        let _ = request.batch();
    }
});
