//! Elasticsearch's `_bulk`: whatever comes, no panic, and no more memory than the body's size allows.
#![no_main]

libfuzzer_sys::fuzz_target!(|body: &[u8]| {
    binnacle_collector::intake::try_read_bulk(body);
});
