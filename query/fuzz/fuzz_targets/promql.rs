//! Any text is a query or an error with a place.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| {
    let _ = binnacle_query::promql::parse(text);
});
