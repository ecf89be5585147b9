//! Lines as container runtimes write them: `2026-11-21T20:50:57.123456789Z stdout F message`.

use binnacle_model::LogTime;

/// A line without its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CriLine<'a> {
    pub(super) time: LogTime,
    pub(super) iostream: &'a str,
    /// Whether the next line of the same stream goes on with this one.
    pub(super) partial: bool,
    pub(super) message: &'a [u8],
}

/// Takes the header off; `None` if there is none, and the line is a message as a whole (L14).
pub(super) fn parse(line: &[u8]) -> Option<CriLine<'_>> {
    let (time, rest) = split_word(line)?;
    let (iostream, rest) = split_word(rest)?;
    let iostream = match iostream {
        b"stdout" => "stdout",
        b"stderr" => "stderr",
        _ => return None,
    };
    // An empty message may come without the blank after the tag.
    let (tags, message) = split_word(rest).unwrap_or((rest, b""));
    let partial = match tags.split(|b| *b == b':').next()? {
        b"F" => false,
        b"P" => true,
        _ => return None,
    };
    let time = LogTime::parse_rfc3339(std::str::from_utf8(time).ok()?)?;
    Some(CriLine { time, iostream, partial, message })
}

fn split_word(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(b' ', line)?;
    Some((&line[..at], &line[at + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_taken_off() {
        let line = parse(b"2016-10-06T00:17:09.669794202Z stdout P log content 1").unwrap();
        assert_eq!(line.message, b"log content 1");
        assert!(line.partial);
        assert_eq!(line.time, LogTime(1_475_713_029_669_794_202));
        let line = parse(b"2016-10-06T00:17:09+02:00 stderr F:tag ").unwrap();
        assert_eq!((line.iostream, line.partial, line.message), ("stderr", false, &b""[..]));
        assert!(parse(b"2016-10-06T00:17:09Z stdout F").is_some());
    }

    #[test]
    fn other_lines_have_no_header() {
        for line in [
            "",
            "hello world",
            "2016-10-06 stdout F x",
            "2016-10-06T00:17:09Z stdin F x",
            "2016-10-06T00:17:09Z stdout X x",
            "{\"log\":\"x\"}",
        ] {
            assert_eq!(parse(line.as_bytes()), None, "{line}");
        }
    }
}
