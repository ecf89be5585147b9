//! `http_config`, and the small parts of which receivers are made: secrets, URLs, Go's durations.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use binnacle_model::yaml::null_is_default;
use binnacle_outgoing::{
    Guarded, RawAuthorization, RawBasicAuth, RawHeader, RawTls, Secret, Source, Way, way_of,
};
use reqwest::Url;
use serde::Deserialize;
use serde::de::IgnoredAny;

/// `http_config` as the operator wrote it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawHttp {
    basic_auth: Option<RawBasicAuth>,
    pub(super) authorization: Option<RawAuthorization>,
    pub(super) bearer_token: Option<Secret>,
    pub(super) bearer_token_file: Option<PathBuf>,
    #[serde(deserialize_with = "null_is_default")]
    tls_config: RawTls,
    proxy_url: Option<Secret>,
    no_proxy: Option<String>,
    proxy_from_environment: bool,
    #[serde(deserialize_with = "null_is_default")]
    http_headers: BTreeMap<String, RawHeader>,
    oauth2: Option<IgnoredAny>,
    proxy_connect_header: Option<IgnoredAny>,
    follow_redirects: Option<bool>,
    enable_http2: Option<bool>,
}

/// How a receiver is reached over HTTP.
#[derive(Debug, Clone)]
pub(in crate::notify) struct Http {
    pub(in crate::notify) way: Way,
    pub(in crate::notify) follow_redirects: bool,
    pub(in crate::notify) http2: bool,
}

impl Default for Http {
    fn default() -> Self {
        Self { way: Way::default(), follow_redirects: true, http2: true }
    }
}

impl RawHttp {
    /// Whether it says who we are.
    pub(super) fn has_authorization(&self) -> bool {
        self.authorization.is_some() || self.bearer_token.is_some() || self.bearer_token_file.is_some()
    }

    /// Answers what cannot be followed, too.
    pub(super) fn check(mut self, dir: &Path) -> Result<(Http, Option<&'static str>), String> {
        let (follow_redirects, http2) = (self.follow_redirects, self.enable_http2);
        let raw = way_of!(self);
        let unknown = raw.unknown();
        let way = raw.check(&BTreeMap::new(), dir)?;
        let (follow_redirects, http2) = (follow_redirects.unwrap_or(true), http2.unwrap_or(true));
        Ok((Http { way, follow_redirects, http2 }, unknown))
    }
}

/// A text or the file that holds it; not both.
pub(super) fn source(
    key: &str,
    text: Option<Secret>,
    file: Option<PathBuf>,
    dir: &Path,
) -> Result<Option<Source>, String> {
    let text = text.filter(|text| !text.reveal().is_empty());
    let file = file.filter(|file| !file.as_os_str().is_empty());
    match (text, file) {
        (Some(_), Some(_)) => Err(format!("at most one of {key} & {key}_file must be configured")),
        (Some(text), None) => Ok(Some(Source::Text(text))),
        (None, Some(file)) => Ok(Some(Source::File(dir.join(file)))),
        (None, None) => Ok(None),
    }
}

/// As [`source`], of a URL, which is looked at where it is already there.
pub(super) fn url_source(
    key: &str,
    text: Option<Secret>,
    file: Option<PathBuf>,
    dir: &Path,
) -> Result<Option<Source>, String> {
    let source = source(key, text, file, dir)?;
    if let Some(Source::Text(text)) = &source {
        // A template is a URL only once it is carried out.
        if !text.reveal().contains("{{") {
            check_url(key, text.reveal())?;
        }
    }
    Ok(source)
}

/// The operator's own URLs may be loopback; link-local addresses, where clouds keep their metadata, are nobody's receiver.
/// The message does not repeat the URL, which may hold a secret.
pub(in crate::notify) fn check_url(key: &str, url: &str) -> Result<Url, String> {
    let parsed = Url::parse(url).map_err(|error| format!("{key}: {error}"))?;
    if !matches!(parsed.scheme(), "http" | "https") {
        return Err(format!("{key}: scheme must be http or https"));
    }
    if Guarded::Metadata.has_host(&parsed) {
        return Err(format!("{key}: {} is refused", Guarded::Metadata.name()));
    }
    Ok(parsed)
}

/// `time.ParseDuration`: `1.5s`, `300ms`, `1h30m`, `0`.
pub(super) fn go_duration(key: &str, text: &str) -> Result<Duration, String> {
    let wrong = || format!("{key}: time: invalid duration {text:?}");
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).ok_or_else(wrong)?;
        let (number, behind) = rest.split_at(digits);
        let units =
            [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
        let unit =
            units.iter().filter(|(unit, _)| behind.starts_with(unit)).max_by_key(|(unit, _)| unit.len());
        let (unit, size) = unit.ok_or_else(wrong)?;
        seconds += number.parse::<f64>().map_err(|_| wrong())? * size;
        rest = &behind[unit.len()..];
    }
    Duration::try_from_secs_f64(seconds).ok().filter(|_| !text.is_empty()).ok_or_else(wrong)
}
