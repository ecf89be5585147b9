//! Any body is a request or an error, and any histogram in it is one or is refused with a reason.
#![no_main]

libfuzzer_sys::fuzz_target!(|body: &[u8]| {
    if let Ok(request) = binnacle_collector::intake::write_request(body) {
        for series in request.batch() {
            for sample in series.histograms {
                let _ = sample.histogram.validate();
            }
        }
    }
});
