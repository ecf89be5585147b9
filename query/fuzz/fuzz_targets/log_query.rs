//! Any text is a log query, perhaps with notes, unless it is too large; what it is printed as reads as the same query.
#![no_main]

use binnacle_model::LogTime;
use binnacle_query::logs::lucene::{parse, print};

/// Some moment, so that `now` has a meaning.
const NOW: LogTime = LogTime(1_790_000_000_000_000_000);

libfuzzer_sys::fuzz_target!(|text: &str| {
    let Ok(parsed) = parse(text, NOW) else { return };
    let Some(printed) = print(&parsed.query) else { return };
    // Parentheses and escapes may be more than there is room for.
    if let Ok(again) = parse(&printed, NOW) {
        assert_eq!(again.query, parsed.query, "{text:?} became {printed:?}");
    }
});
