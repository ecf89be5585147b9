//! Any page is samples or an error, and what passes the check decodes.
#![no_main]

use binnacle_collector::exposition::{Format, Line, decode_series, parse};

libfuzzer_sys::fuzz_target!(|page: &[u8]| {
    for format in [Format::Text, Format::OpenMetrics] {
        let _ = parse(page, format, |line| {
            if let Line::Sample { series, .. } = line {
                assert!(decode_series(series).is_ok());
            }
        });
    }
});
