//! Any text is a query or an error with a place; what a query is printed as reads as the same query.
#![no_main]

use binnacle_query::logql::{parse, pretty};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let Ok(query) = parse(text) else { return };
    let printed = query.to_string();
    for shown in [&printed, &pretty(&query)] {
        // Printed, it may be longer than a query may be.
        let Ok(again) = parse(shown) else {
            assert!(shown.len() > 16 * 1024, "{text:?} became {shown:?}");
            continue;
        };
        assert_eq!(again.to_string(), printed, "{text:?} became {shown:?}");
    }
});
