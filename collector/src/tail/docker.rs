//! Lines as Docker's json-file driver writes them: `{"log":"message\n","stream":"stdout","time":"2026-…Z"}`.

use std::borrow::Cow;

use binnacle_model::LogTime;
use serde::Deserialize;

use super::cri::Header;

/// What the driver writes; it may add labels of its own, which say nothing of the line.
#[derive(Deserialize)]
struct Record<'a> {
    #[serde(borrow)]
    log: Cow<'a, str>,
    #[serde(borrow, default)]
    stream: Cow<'a, str>,
    #[serde(borrow)]
    time: Cow<'a, str>,
}

/// Takes the message out; `None` if the line is no such object, and is a message as a whole (L14).
///
/// A message without a line end goes on in the next line of its stream: the driver cuts at 16 KiB.
pub(super) fn parse(line: &[u8]) -> Option<(Header, Cow<'_, str>)> {
    let record: Record<'_> = serde_json::from_slice(line).ok()?;
    let time = LogTime::parse_rfc3339(&record.time)?;
    let lane = match &*record.stream {
        "stderr" => super::cri::STDERR,
        "stdout" => super::cri::STDOUT,
        _ => return None,
    };
    let is_whole = record.log.ends_with('\n');
    let message = match record.log {
        Cow::Borrowed(log) => Cow::Borrowed(log.strip_suffix('\n').unwrap_or(log)),
        Cow::Owned(mut log) => {
            log.truncate(log.len() - usize::from(is_whole));
            Cow::Owned(log)
        }
    };
    Some((Header { time, lane, partial: !is_whole }, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_taken_out() {
        let (header, message) =
            parse(br#"{"log":"a \"b\" \u003cc\u003e\n","stream":"stderr","attrs":{"x":"y"},"time":"2020-09-27T11:18:02.5Z"}"#)
                .unwrap();
        assert_eq!(
            (header.lane, header.partial, &*message),
            (super::super::cri::STDERR, false, "a \"b\" <c>")
        );
        let (header, message) =
            parse(br#"{"log":"cut","stream":"stdout","time":"2020-09-27T11:18:02Z"}"#).unwrap();
        assert!(header.partial);
        assert_eq!(message, "cut");
    }

    #[test]
    fn other_objects_are_messages() {
        for line in [
            r#"{"log":"a"}"#,
            r#"{"log":"a\n","stream":"stdin","time":"2020-09-27T11:18:02Z"}"#,
            r#"{"log":"a\n","stream":"stdout","time":"today"}"#,
            r#"{"level":"info"}"#,
            "{",
        ] {
            assert!(parse(line.as_bytes()).is_none(), "{line}");
        }
    }
}
