//! `http:` of a module.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use binnacle_model::yaml::null_is_default;
use regex::bytes::Regex;
use reqwest::Method;
use reqwest::Url;
use reqwest::header::{ACCEPT_ENCODING, HOST, HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::super::net::Family;
use super::super::tls::Tls;
use super::{checked, family, regex, regexes};
use crate::scrape::Size;
use binnacle_outgoing::{RawAuthorization, RawBasicAuth, RawHeader, RawTls, Secret, way_of};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(clippy::struct_excessive_bools, reason = "each is a key of the configuration")]
pub(super) struct RawHttp {
    #[serde(deserialize_with = "null_is_default")]
    valid_status_codes: Vec<u16>,
    #[serde(deserialize_with = "null_is_default")]
    valid_http_versions: Vec<String>,
    preferred_ip_protocol: Option<String>,
    ip_protocol_fallback: Option<bool>,
    skip_resolve_phase_with_proxy: bool,
    no_follow_redirects: Option<bool>,
    follow_redirects: Option<bool>,
    fail_if_ssl: bool,
    fail_if_not_ssl: bool,
    method: Option<String>,
    #[serde(deserialize_with = "null_is_default")]
    headers: BTreeMap<String, Secret>,
    #[serde(deserialize_with = "null_is_default")]
    fail_if_body_matches_regexp: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    fail_if_body_not_matches_regexp: Vec<String>,
    fail_if_body_json_matches_cel: Option<IgnoredAny>,
    fail_if_body_json_not_matches_cel: Option<IgnoredAny>,
    #[serde(deserialize_with = "null_is_default")]
    fail_if_header_matches: Vec<RawHeaderRule>,
    #[serde(deserialize_with = "null_is_default")]
    fail_if_header_not_matches: Vec<RawHeaderRule>,
    body: Option<Secret>,
    body_file: Option<PathBuf>,
    compression: Option<String>,
    body_size_limit: Option<Size>,
    enable_http2: Option<bool>,
    basic_auth: Option<RawBasicAuth>,
    authorization: Option<RawAuthorization>,
    bearer_token: Option<Secret>,
    bearer_token_file: Option<PathBuf>,
    #[serde(deserialize_with = "null_is_default")]
    tls_config: RawTls,
    proxy_url: Option<Secret>,
    no_proxy: Option<String>,
    proxy_from_environment: bool,
    #[serde(deserialize_with = "null_is_default")]
    http_headers: BTreeMap<String, RawHeader>,
    oauth2: Option<IgnoredAny>,
    proxy_connect_header: Option<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawHeaderRule {
    header: String,
    regexp: String,
    allow_missing: bool,
}

/// How a body is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::probe) enum Compression {
    None,
    Gzip,
    Deflate,
}

/// What a header of the response must, or must not, be like.
#[derive(Debug)]
pub(in crate::probe) struct HeaderRule {
    pub(in crate::probe) name: HeaderName,
    pub(in crate::probe) regex: Regex,
    pub(in crate::probe) allows_missing: bool,
}

/// A module that makes a request.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a key of the configuration")]
pub(in crate::probe) struct HttpModule {
    pub(in crate::probe) family: Family,
    pub(in crate::probe) statuses: Vec<u16>,
    pub(in crate::probe) versions: Vec<String>,
    pub(in crate::probe) follows_redirects: bool,
    pub(in crate::probe) fails_if_ssl: bool,
    pub(in crate::probe) fails_if_not_ssl: bool,
    pub(in crate::probe) method: Method,
    /// Without `Host`.
    pub(in crate::probe) headers: HeaderMap,
    pub(in crate::probe) host: Option<String>,
    pub(in crate::probe) body: Body,
    pub(in crate::probe) if_body_matches: Vec<Regex>,
    pub(in crate::probe) if_body_not_matches: Vec<Regex>,
    pub(in crate::probe) if_header_matches: Vec<HeaderRule>,
    pub(in crate::probe) if_header_not_matches: Vec<HeaderRule>,
    pub(in crate::probe) compression: Compression,
    pub(in crate::probe) body_max_bytes: Option<usize>,
    pub(in crate::probe) proxy: Option<Proxy>,
    pub(in crate::probe) tls: Tls,
}

/// What is sent with a request.
#[derive(Debug)]
pub(in crate::probe) enum Body {
    None,
    Text(Secret),
    /// Read again for each probe.
    File(PathBuf),
}

/// What stands in between.
#[derive(Debug)]
pub(in crate::probe) struct Proxy {
    pub(in crate::probe) host: String,
    pub(in crate::probe) port: u16,
    /// For `Proxy-Authorization`.
    pub(in crate::probe) credentials: Option<Secret>,
    /// Whether it resolves names itself.
    pub(in crate::probe) resolves: bool,
}

const HTTP2: &[&[u8]] = &[b"h2", b"http/1.1"];
const HTTP1: &[&[u8]] = &[b"http/1.1"];

impl RawHttp {
    pub(super) fn check(mut self, dir: &Path) -> Result<HttpModule, String> {
        self.refuse()?;
        let compression = self.compression()?;
        let (headers, host) = self.headers(compression)?;
        let way = checked(&way_of!(self), dir)?;
        let method = self.method.as_deref().filter(|text| !text.is_empty()).unwrap_or("GET");
        let method = Method::from_bytes(method.as_bytes())
            .map_err(|_| format!(".method: {method:?} is no method of HTTP"))?;
        let body = match (self.body.take(), self.body_file.take()) {
            (Some(_), Some(_)) => return Err(": body and body_file must not both be there".to_owned()),
            (Some(text), None) => Body::Text(text),
            (None, Some(file)) => Body::File(dir.join(file)),
            (None, None) => Body::None,
        };
        let follows = self.follow_redirects.unwrap_or(true);
        let rules = |key: &str, raw: Vec<RawHeaderRule>| -> Result<Vec<HeaderRule>, String> {
            let all = raw.into_iter().enumerate();
            all.map(|(at, raw)| raw.check().map_err(|reason| format!(".{key}[{at}]{reason}"))).collect()
        };
        let protocols = if self.enable_http2.unwrap_or(true) { HTTP2 } else { HTTP1 };
        Ok(HttpModule {
            family: family(self.preferred_ip_protocol.as_deref(), self.ip_protocol_fallback)?,
            statuses: self.valid_status_codes,
            versions: self.valid_http_versions,
            follows_redirects: self.no_follow_redirects.map_or(follows, |not| !not),
            fails_if_ssl: self.fail_if_ssl,
            fails_if_not_ssl: self.fail_if_not_ssl,
            method,
            headers,
            host,
            body,
            if_body_matches: regexes("fail_if_body_matches_regexp", &self.fail_if_body_matches_regexp)?,
            if_body_not_matches: regexes(
                "fail_if_body_not_matches_regexp",
                &self.fail_if_body_not_matches_regexp,
            )?,
            if_header_matches: rules("fail_if_header_matches", self.fail_if_header_matches)?,
            if_header_not_matches: rules("fail_if_header_not_matches", self.fail_if_header_not_matches)?,
            compression,
            body_max_bytes: self.body_size_limit.map(Size::bytes).filter(|bytes| *bytes > 0),
            proxy: way.proxy_url().map(|url| proxy(url, self.skip_resolve_phase_with_proxy)).transpose()?,
            tls: Tls::new(way, protocols),
        })
    }

    fn refuse(&self) -> Result<(), String> {
        let keys = [
            ("fail_if_body_json_matches_cel", self.fail_if_body_json_matches_cel.is_some()),
            ("fail_if_body_json_not_matches_cel", self.fail_if_body_json_not_matches_cel.is_some()),
            ("proxy_from_environment", self.proxy_from_environment),
            ("no_proxy", self.no_proxy.is_some()),
        ];
        match keys.iter().find(|(_, is_there)| *is_there) {
            Some((key, _)) => Err(format!(".{key} is not supported by this release")),
            None => Ok(()),
        }
    }

    fn compression(&self) -> Result<Compression, String> {
        match self.compression.as_deref().unwrap_or_default().to_ascii_lowercase().as_str() {
            "" | "identity" => Ok(Compression::None),
            "gzip" => Ok(Compression::Gzip),
            "deflate" => Ok(Compression::Deflate),
            other => Err(format!(".compression: {other:?} is none of gzip, deflate, identity")),
        }
    }

    /// The headers of a request, and which host they name.
    fn headers(&self, compression: Compression) -> Result<(HeaderMap, Option<String>), String> {
        let (mut headers, mut host) = (HeaderMap::new(), None);
        for (name, value) in &self.headers {
            let told = |what: &str| format!(".headers: {name:?}: {what}");
            let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| told("no name of a header"))?;
            let mut text = HeaderValue::from_str(value.reveal())
                .map_err(|_| told("its value cannot stand in a header"))?;
            if header == HOST {
                host = Some(value.reveal().to_owned());
                continue;
            }
            if header == ACCEPT_ENCODING && !accepts(compression, value.reveal()) {
                return Err(told("it does not accept what `compression` expects"));
            }
            text.set_sensitive(true);
            headers.insert(header, text);
        }
        Ok((headers, host))
    }
}

/// Whether a server that goes by this header may pack a body in this way.
fn accepts(compression: Compression, header: &str) -> bool {
    let wanted = match compression {
        Compression::None => return true,
        Compression::Gzip => "gzip",
        Compression::Deflate => "deflate",
    };
    header.split(',').any(|part| {
        let mut part = part.split(';').map(str::trim);
        let name = part.next().unwrap_or_default();
        let is_off = part.any(|parameter| {
            let quality = parameter.strip_prefix("q=").and_then(|q| q.trim().parse::<f64>().ok());
            quality.is_some_and(|quality| quality <= 0.0)
        });
        !is_off && (name.eq_ignore_ascii_case(wanted) || name == "*")
    })
}

impl RawHeaderRule {
    fn check(self) -> Result<HeaderRule, String> {
        if self.header.is_empty() {
            return Err(".header is missing".to_owned());
        }
        if self.regexp.is_empty() {
            return Err(".regexp is missing".to_owned());
        }
        let name = HeaderName::from_bytes(self.header.as_bytes());
        let name = name.map_err(|_| format!(".header: {:?} is no name of a header", self.header))?;
        Ok(HeaderRule { name, regex: regex("regexp", &self.regexp)?, allows_missing: self.allow_missing })
    }
}

fn proxy(url: &Secret, resolves: bool) -> Result<Proxy, String> {
    // That it can be read was checked before; its text may hold a password.
    let url = Url::parse(url.reveal()).map_err(|error| format!(".proxy_url cannot be read: {error}"))?;
    let (Some(host), Some(port), "http") = (url.host_str(), url.port_or_known_default(), url.scheme()) else {
        return Err(".proxy_url must begin with http://: proxies behind TLS are not supported".to_owned());
    };
    let credentials = (!url.username().is_empty()).then(|| {
        let decode = |text: &str| {
            form_urlencoded::parse(format!("x={}", text.replace('+', "%2B")).as_bytes())
                .next()
                .map_or_else(String::new, |(_, value)| value.into_owned())
        };
        let pair = format!("{}:{}", decode(url.username()), decode(url.password().unwrap_or_default()));
        Secret::from(pair)
    });
    Ok(Proxy { host: super::super::net::bare(host).to_owned(), port, credentials, resolves })
}
