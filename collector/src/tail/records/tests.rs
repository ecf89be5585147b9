//! Windows of any size give the same records as the whole file.

use proptest::prelude::*;

use super::*;

/// The same in one go, and simply.
fn all_at_once(file: &[u8]) -> Vec<Found> {
    let mut open: [Option<(u64, Vec<u8>)>; 3] = Default::default();
    let (mut found, mut offset) = (Vec::new(), 0);
    for line in file.split_inclusive(|b| *b == b'\n') {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        match cri::parse(text) {
            Some((header, message)) => {
                let (start, mut whole) = open[header.lane].take().unwrap_or((offset, Vec::new()));
                whole.extend_from_slice(message);
                if header.partial {
                    open[header.lane] = Some((start, whole));
                } else {
                    found.push((start, header.lane, whole));
                }
            }
            None => found.push((offset, NO_STREAM, text.strip_suffix(b"\r").unwrap_or(text).to_vec())),
        }
        offset += line.len() as u64;
    }
    let rest =
        open.into_iter().enumerate().filter_map(|(lane, open)| open.map(|(at, text)| (at, lane, text)));
    found.extend(rest);
    found.sort();
    found
}

proptest! {
    #[test]
    fn windows_of_any_size_give_the_same(
        lines in proptest::collection::vec((0usize..3, any::<bool>(), "[a-z \\r]{0,30}"), 0..60),
        sizes in proptest::collection::vec(1usize..400, 1..8),
        has_end in any::<bool>(),
    ) {
        let mut file = Vec::new();
        for (lane, partial, text) in &lines {
            let header = match lane {
                0 => String::new(),
                _ => format!("2026-11-21T20:50:57Z {} {} ", IOSTREAMS[*lane], if *partial { "P" } else { "F" }),
            };
            file.extend_from_slice(format!("{header}{text}\n").as_bytes());
        }
        if !has_end {
            file.pop();
        }

        let found = in_windows(&file, &sizes, LineFormat::Container, &Multiline::default());
        prop_assert_eq!(found, all_at_once(&file));
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b' '), any::<u8>()], 0..300)) {
        in_windows(&bytes, &[7, 50], LineFormat::Container, &Multiline::default());
        in_windows(&bytes, &[7, 50], LineFormat::Plain, &Multiline::default());
    }
}

/// Cases of container runtimes that nobody here wrote lie beside this repository.
#[test]
fn lines_of_runtimes_mean_what_their_documentation_says() {
    let shared = std::env::var("BINNACLE_SHARED").unwrap_or_else(|_| "../../shared".to_owned());
    let Ok(text) = std::fs::read(format!("{shared}/real/logs/container/cases.json")) else {
        println!("SKIPPED 1: {shared}/real/logs is not there");
        return;
    };
    let cases: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let list = |name: &str| cases[name].as_array().unwrap().clone();
    for case in list("cri").into_iter().chain(list("docker")) {
        let line = case["line"].as_str().unwrap();
        let header = cri::parse(line.as_bytes()).map(|(header, message)| (header, message.to_vec()));
        let header = header.or_else(|| {
            docker::parse(line.as_bytes()).map(|(header, message)| (header, message.as_bytes().to_vec()))
        });
        let want = &case["expected"];
        assert_eq!(header.is_some(), !want.is_null(), "{line}");
        let Some((header, message)) = header else { continue };
        assert_eq!(String::from_utf8(message).unwrap(), want["log"].as_str().unwrap(), "{line}");
        assert_eq!(header.partial, want["partial"].as_bool().unwrap(), "{line}");
        assert_eq!(IOSTREAMS[header.lane], want["stream"].as_str().unwrap(), "{line}");
        assert_eq!(Some(header.time), LogTime::parse_rfc3339(want["time"].as_str().unwrap()), "{line}");
    }
    for case in list("sequences") {
        let lines = case["input"].as_array().unwrap().iter().map(|line| line.as_str().unwrap());
        let file = lines.fold(String::new(), |file, line| file + line + "\n");
        let found = in_windows(file.as_bytes(), &[100], LineFormat::Container, &Multiline::default());
        let mut found: Vec<(String, String)> = found
            .into_iter()
            .map(|(_, lane, text)| (IOSTREAMS[lane].to_owned(), String::from_utf8(text).unwrap()))
            .collect();
        let want = case["expected"].as_array().unwrap().iter();
        let text = |value: &serde_json::Value, key: &str| value[key].as_str().unwrap().to_owned();
        let mut want: Vec<_> = want.map(|want| (text(want, "stream"), text(want, "log"))).collect();
        found.sort();
        want.sort();
        assert_eq!(found, want, "{}", case["what"]);
    }
}
