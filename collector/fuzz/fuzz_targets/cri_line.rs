//! Lines of containers, CRI's and Docker's: whatever stands in a file, windows of any size find the same records.
#![no_main]

libfuzzer_sys::fuzz_target!(|file: &[u8]| {
    binnacle_collector::tail::try_lines(file);
});
