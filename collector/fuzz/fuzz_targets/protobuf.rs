//! Any page of protobuf is samples or an error; what names a series can be decoded or is refused.
#![no_main]

use binnacle_collector::exposition::protobuf::{Entry, Wanted, decode, decode_exemplar, parse};

libfuzzer_sys::fuzz_target!(|page: &[u8]| {
    for wanted in [Wanted::default(), Wanted { native: true, classic: true }] {
        let _ = parse(page, wanted, |entry| {
            if let Entry::Row { series, exemplars, .. } = entry {
                let _ = decode(series);
                exemplars.iter().for_each(|one| drop(decode_exemplar(one)));
            }
        });
    }
});
