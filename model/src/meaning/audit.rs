//! Events of Kubernetes' audit log: what they call a level is how much they say, not how bad it is.

use super::scan::{members, plain_text};

/// The level of an audit event, by the answer that the request had; `None` for other objects of JSON.
pub(super) fn level(text: &str) -> Option<&'static str> {
    memchr::memmem::find(text.as_bytes(), b"audit.k8s.io/")?;
    let (mut is_event, mut code) = (false, 0);
    members(text.as_bytes(), &mut |name, value| {
        match name {
            b"apiVersion" => {
                is_event = plain_text(value).is_some_and(|api| api.starts_with(b"audit.k8s.io/"));
            }
            b"responseStatus" => members(value, &mut |name, value| {
                if name == b"code" {
                    code = std::str::from_utf8(value).ok().and_then(|code| code.parse().ok()).unwrap_or(0);
                }
                true
            }),
            _ => {}
        }
        true
    });
    is_event.then_some(match code {
        500.. => "error",
        400..500 => "warn",
        // A stage without an answer says nothing bad.
        _ => "info",
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn events_are_as_bad_as_their_answers() {
        for (code, level) in [("201", "info"), ("404", "warn"), ("503", "error"), ("\"x\"", "info")] {
            let event = format!(
                r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","responseStatus":{{"metadata":{{"code":999}},"code":{code}}}}}"#
            );
            assert_eq!(super::super::level(event.as_bytes()), level, "{event}");
            assert_eq!(super::super::of(event.as_bytes()).level, level, "{event}");
        }
        for (other, level) in [
            (r#"{"apiVersion":"v1","x":"audit.k8s.io/v1","responseStatus":{"code":500}}"#, ""),
            (r#"{"apiVersion":"audit.k8s.io/v1","level":"error","responseStatus":{"code":200}}"#, "error"),
        ] {
            assert_eq!(super::super::level(other.as_bytes()), level, "{other}");
        }
    }
}
