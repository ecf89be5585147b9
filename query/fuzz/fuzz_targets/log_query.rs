//! Any text is a log query, perhaps with a hint, unless it is too large.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| {
    let _ = binnacle_query::logs::parse(text);
});
