//! In which formats pages are asked for, and in which one a page has come.

use crate::exposition::Format;

/// A format of pages, as `scrape_protocols` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Proto,
    Text004,
    Text100,
    OpenMetrics001,
    OpenMetrics100,
}

const ALL: [(&str, Protocol); 5] = [
    ("OpenMetricsText0.0.1", Protocol::OpenMetrics001),
    ("OpenMetricsText1.0.0", Protocol::OpenMetrics100),
    ("PrometheusProto", Protocol::Proto),
    ("PrometheusText0.0.4", Protocol::Text004),
    ("PrometheusText1.0.0", Protocol::Text100),
];

/// What Prometheus asks for where nothing is said.
const DEFAULT: [Protocol; 4] =
    [Protocol::OpenMetrics100, Protocol::OpenMetrics001, Protocol::Text100, Protocol::Text004];

impl Protocol {
    fn header(self) -> &'static str {
        match self {
            Self::Proto => {
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
            }
            Self::Text004 => "text/plain;version=0.0.4",
            Self::Text100 => "text/plain;version=1.0.0",
            Self::OpenMetrics001 => "application/openmetrics-text;version=0.0.1",
            Self::OpenMetrics100 => "application/openmetrics-text;version=1.0.0",
        }
    }

    /// How a page in it is read.
    pub(super) fn media(self) -> Media {
        match self {
            Self::Proto => Media::Protobuf,
            Self::Text004 | Self::Text100 => Media::Text(Format::Text),
            Self::OpenMetrics001 | Self::OpenMetrics100 => Media::Text(Format::OpenMetrics),
        }
    }

    /// # Errors
    /// What the name may be.
    pub(super) fn read(name: &str) -> Result<Self, String> {
        let found = ALL.iter().find(|(known, _)| *known == name);
        found.map(|(_, protocol)| *protocol).ok_or_else(|| {
            let names = ALL.map(|(name, _)| name).join(" ");
            format!("unknown scrape protocol {name:?}, supported: [{names}]")
        })
    }
}

/// The protocols of `scrape_protocols`, or those that are asked for without it.
///
/// # Errors
/// Names that nobody knows, that come twice, or none at all.
pub(super) fn protocols(names: Option<&[String]>, is_native: bool) -> Result<Vec<Protocol>, String> {
    let Some(names) = names else {
        let native = is_native.then_some(Protocol::Proto);
        return Ok(native.into_iter().chain(DEFAULT).collect());
    };
    if names.is_empty() {
        return Err("scrape_protocols cannot be empty".to_owned());
    }
    let mut found = Vec::new();
    for name in names {
        let protocol = Protocol::read(name).map_err(|reason| format!("scrape_protocols: {reason}"))?;
        if found.contains(&protocol) {
            return Err(format!("duplicated protocol in scrape_protocols, got {names:?}"));
        }
        found.push(protocol);
    }
    Ok(found)
}

/// The header `Accept`: the first protocol weighs most.
pub(super) fn accept(protocols: &[Protocol], escaping: &str) -> String {
    let mut weight = ALL.len() + 1;
    let mut parts = Vec::new();
    for protocol in protocols {
        let escaping = match protocol {
            Protocol::Text100 | Protocol::OpenMetrics100 => format!(";escaping={escaping}"),
            _ => String::new(),
        };
        parts.push(format!("{}{escaping};q=0.{weight}", protocol.header()));
        weight -= 1;
    }
    parts.push(format!("*/*;q=0.{weight}"));
    parts.join(",")
}

/// How a page is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Media {
    Text(Format),
    Protobuf,
}

/// How a page with this content type is read; `fallback` is for those that say nothing, or nothing that we know.
///
/// # Errors
/// The reason, in Prometheus's words.
pub(super) fn media(content_type: &str, fallback: Option<Protocol>) -> Result<Media, String> {
    let or_fallback = |reason: String| fallback.map(Protocol::media).ok_or(reason);
    if content_type.trim().is_empty() {
        return or_fallback(
            "non-compliant scrape target sending blank Content-Type and no fallback_scrape_protocol specified for target"
                .to_owned(),
        );
    }
    let Some(kind) = media_type(content_type) else {
        return or_fallback(format!(
            "cannot parse Content-Type {content_type:?} and no fallback_scrape_protocol for target"
        ));
    };
    match kind.as_str() {
        "application/openmetrics-text" => Ok(Media::Text(Format::OpenMetrics)),
        "text/plain" => Ok(Media::Text(Format::Text)),
        "application/vnd.google.protobuf" => Ok(Media::Protobuf),
        _ => or_fallback(format!(
            "received unsupported Content-Type {content_type:?} and no fallback_scrape_protocol specified for target"
        )),
    }
}

/// The media type in lower case, if the parameters behind it are parameters.
fn media_type(content_type: &str) -> Option<String> {
    let mut parts = content_type.split(';');
    let kind = parts.next()?.trim().to_ascii_lowercase();
    let is_token = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(&b))
    };
    let (base, sub) = kind.split_once('/')?;
    let is_parameter = |part: &str| {
        part.split_once('=').is_some_and(|(name, value)| is_token(name.trim()) && !value.is_empty())
    };
    let params: Vec<&str> = parts.map(str::trim).collect();
    // One may end with a semicolon.
    let params = params.strip_suffix(&[""]).unwrap_or(&params);
    let is_legal = is_token(base) && is_token(sub) && params.iter().all(|part| is_parameter(part));
    is_legal.then_some(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_weighs_as_in_prometheus() {
        let text = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        assert_eq!(accept(&protocols(None, false).unwrap(), "allow-utf-8"), text);
        let native = accept(&protocols(None, true).unwrap(), "allow-utf-8");
        assert!(native.starts_with(
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
        ));
        assert!(native.ends_with(",*/*;q=0.1"));
        let named = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            protocols(Some(&names), false)
        };
        assert_eq!(named(&["PrometheusProto"]), Ok(vec![Protocol::Proto]));
        assert!(named(&["Prometheus"]).unwrap_err().contains("supported: [OpenMetricsText0.0.1 "));
        assert!(named(&["PrometheusProto", "PrometheusProto"]).unwrap_err().contains("duplicated"));
        assert!(named(&[]).unwrap_err().contains("empty"));
    }

    #[test]
    fn content_types_are_taken_as_in_prometheus() {
        let text = Ok(Media::Text(Format::Text));
        for one in ["text/plain", "Text/Plain; version=0.0.4; charset=\"utf-8\"", " text/plain;"] {
            assert_eq!(media(one, None), text, "{one}");
        }
        assert_eq!(media("application/openmetrics-text", None), Ok(Media::Text(Format::OpenMetrics)));
        assert_eq!(media("application/vnd.google.protobuf; proto=x", None), Ok(Media::Protobuf));
        for one in ["", "application/json", "text", "text/plain; x", "/plain"] {
            assert!(media(one, None).is_err(), "{one}");
            assert_eq!(media(one, Some(Protocol::Text004)), text, "{one}");
        }
    }
}
