//! Lines of JSON: whatever comes, and whatever a request names, no panic.
#![no_main]

libfuzzer_sys::fuzz_target!(|body: &[u8]| {
    let (query, body) = body.split_at(body.len().min(24));
    binnacle_collector::intake::try_read_ndjson(body, &String::from_utf8_lossy(query));
});
