//! A log page takes any bytes for a file, a head or a column, and never panics; a message comes back as it was.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| binnacle_store::try_log_page(bytes));
