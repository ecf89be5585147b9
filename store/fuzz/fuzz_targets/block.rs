//! A block takes any bytes for a file, an index or a chunk, and never panics.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| binnacle_store::try_block(bytes));
