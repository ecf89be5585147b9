//! Any text is a query or an error with a place; what a query is printed as reads as the same query.
#![no_main]

use binnacle_query::promql::{parse, pretty, tree};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let Ok(expr) = parse(text) else { return };
    let printed = expr.to_string();
    for shown in [&printed, &pretty(&expr)] {
        let again = parse(shown).unwrap_or_else(|error| panic!("{text:?} became {shown:?}: {error}"));
        assert_eq!(again.to_string(), printed, "{text:?} became {shown:?}");
    }
    let _ = tree(&expr);
});
