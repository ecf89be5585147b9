//! Any page of OpenMetrics is samples or an error, what passes the check decodes, and a line is the same whether it is parsed or
//! recognised.
#![no_main]

use binnacle_collector::exposition::{Family, Format, Line, Parser, decode_series, decode_typed};

libfuzzer_sys::fuzz_target!(|page: &[u8]| check(page, Format::OpenMetrics));

fn check(page: &[u8], format: Format) {
    let (mut plain, mut quick) = (Parser::new(page, format), Parser::new(page, format));
    loop {
        let line = plain.next_line();
        if let Ok(Some(Line::Sample { series, .. })) = line {
            assert!(decode_series(series).is_ok());
            assert!(decode_typed(series, Family::Histogram).is_ok());
            // Blanks and empty lines may stand before it.
            let known = quick.next_if(series);
            if let Ok(Some(known)) = known {
                assert_eq!(format!("{known:?}"), format!("{:?}", line.unwrap().unwrap()));
                continue;
            }
            assert!(known.is_ok(), "{known:?} beside {line:?}");
        }
        let other = quick.next_line();
        assert_eq!(format!("{other:?}"), format!("{line:?}"));
        if !matches!(line, Ok(Some(_))) {
            return;
        }
    }
}
