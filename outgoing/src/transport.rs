//! TLS, proxies, redirects and headers of one's own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use binnacle_model::yaml::null_is_default;
use reqwest::header::{HeaderName, HeaderValue};
use reqwest::tls::Version;
use reqwest::{NoProxy, Proxy, redirect};
use serde::Deserialize;
use serde::de::IgnoredAny;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::guard::{Guard, Guarded};
use super::{Secret, Source, chain};

/// `tls_config`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawTls {
    ca: Option<String>,
    ca_file: Option<PathBuf>,
    cert: Option<String>,
    cert_file: Option<PathBuf>,
    key: Option<Secret>,
    key_file: Option<PathBuf>,
    insecure_skip_verify: bool,
    min_version: Option<String>,
    max_version: Option<String>,
    pub(crate) server_name: Option<String>,
    pub(crate) ca_ref: Option<IgnoredAny>,
    pub(crate) cert_ref: Option<IgnoredAny>,
    pub(crate) key_ref: Option<IgnoredAny>,
}

/// Values of one header, in the order in which they are sent.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawHeader {
    #[serde(deserialize_with = "null_is_default")]
    values: Vec<Secret>,
    #[serde(deserialize_with = "null_is_default")]
    secrets: Vec<Secret>,
    #[serde(deserialize_with = "null_is_default")]
    files: Vec<PathBuf>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Tls {
    pub(crate) ca: Option<Source>,
    /// Certificate and key.
    pub(crate) identity: Option<(Source, Source)>,
    pub(crate) insecure_skip_verify: bool,
    pub(crate) min_version: Option<Version>,
    pub(crate) max_version: Option<Version>,
    /// Not for receivers of remote write.
    pub(crate) server_name: Option<String>,
}

impl Tls {
    /// Changes with what its files hold; `None` if there are none. One that cannot be read counts as empty.
    pub(crate) async fn print(&self) -> Option<u64> {
        let identity = self.identity.iter().flat_map(|(cert, key)| [cert, key]);
        let mut print = None;
        for source in self.ca.iter().chain(identity) {
            if let Source::File(path) = source {
                let bytes = tokio::fs::read(path).await.unwrap_or_default();
                print = Some(xxh3_64_with_seed(&bytes, print.unwrap_or_default()));
            }
        }
        print
    }
}

/// What stands between us and the receiver.
#[derive(Debug, Clone, Default)]
pub(crate) enum ProxyChoice {
    #[default]
    None,
    /// `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`.
    Environment,
    /// Its URL may hold a password. Hosts in `but` are reached without it.
    At { url: Secret, but: Option<String> },
}

/// Where an answer may send us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redirects {
    /// Nowhere.
    None,
    /// To the same host, with method and body: what carries data goes nowhere else.
    SameHost,
}

/// What a client does beside speaking in its way.
#[derive(Debug, Clone, Copy)]
pub struct ClientOptions {
    /// Where answers may send it.
    pub redirects: Redirects,
    /// For a request as a whole.
    pub timeout: Duration,
    /// Whether bodies may come in gzip. Zstandard may ask for a window of more than a page.
    pub gzip: bool,
    /// Whether HTTP/2 is offered.
    pub http2: bool,
    /// Names that lead there are refused.
    pub guarded: Guarded,
}

/// Headers that the protocol or another key decides.
const RESERVED: [&str; 13] = [
    "authorization",
    "host",
    "content-encoding",
    "content-length",
    "content-type",
    "x-prometheus-remote-write-version",
    "user-agent",
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "www-authenticate",
    "accept-encoding",
];

/// The headers of `headers` and of `http_headers`, each with where its value comes from.
pub(crate) fn headers(
    plain: &BTreeMap<String, Secret>,
    listed: &BTreeMap<String, RawHeader>,
    dir: &Path,
) -> Result<Vec<(HeaderName, Source)>, String> {
    let mut headers = Vec::new();
    for (name, value) in plain {
        headers.push((header_name("headers", name)?, Source::Text(value.clone())));
    }
    for (name, raw) in listed {
        let header = header_name("http_headers", name)?;
        let texts = raw.values.iter().chain(&raw.secrets).map(|text| Source::Text(text.clone()));
        let sources = texts.chain(raw.files.iter().map(|file| Source::File(dir.join(file))));
        headers.extend(sources.map(|source| (header.clone(), source)));
    }
    for (name, source) in &headers {
        if let Source::Text(text) = source {
            HeaderValue::from_str(text.reveal())
                .map_err(|_| format!("headers: the value of {name} cannot stand in a header"))?;
        }
    }
    Ok(headers)
}

fn header_name(key: &str, name: &str) -> Result<HeaderName, String> {
    let lower = name.to_ascii_lowercase();
    if RESERVED.contains(&lower.as_str()) {
        return Err(format!(
            "{key}: {name} cannot be set here; credentials belong into basic_auth or authorization"
        ));
    }
    HeaderName::from_bytes(lower.as_bytes()).map_err(|_| format!("{key}: {name:?} is no header"))
}

/// What the three keys together say.
pub(crate) fn proxy(
    url: Option<&Secret>,
    but: Option<&String>,
    from_environment: bool,
) -> Result<ProxyChoice, String> {
    let Some(url) = url.filter(|url| !url.reveal().is_empty()) else {
        return match but {
            Some(_) => Err("no_proxy needs proxy_url".to_owned()),
            None if from_environment => Ok(ProxyChoice::Environment),
            None => Ok(ProxyChoice::None),
        };
    };
    if from_environment {
        return Err("proxy_url and proxy_from_environment must not both be there".to_owned());
    }
    // A host alone is spoken to over plain HTTP, as by most clients.
    let whole = if url.reveal().contains("://") {
        url.clone()
    } else {
        Secret::from(format!("http://{}", url.reveal()))
    };
    let url = &whole;
    // The text is not repeated: it may hold a password.
    let parsed =
        reqwest::Url::parse(url.reveal()).map_err(|error| format!("proxy_url cannot be read: {error}"))?;
    if !matches!(parsed.scheme(), "http" | "https") || parsed.host_str().is_none() {
        return Err("proxy_url must begin with http:// or https:// and a host".to_owned());
    }
    Ok(ProxyChoice::At { url: url.clone(), but: but.cloned() })
}

impl RawTls {
    /// Whether nothing is said of TLS.
    pub fn is_empty(&self) -> bool {
        let said = [
            self.ca.is_some(),
            self.ca_file.is_some(),
            self.cert.is_some(),
            self.cert_file.is_some(),
            self.key.is_some(),
            self.key_file.is_some(),
            self.insecure_skip_verify,
            self.min_version.is_some(),
            self.max_version.is_some(),
            self.server_name.is_some(),
        ];
        !said.contains(&true)
    }

    pub(crate) fn check(&self, dir: &Path) -> Result<Tls, String> {
        let one = |key: &str, text: Option<Secret>, file: Option<&PathBuf>| match (text, file) {
            (Some(_), Some(_)) => Err(format!("tls_config: {key} and {key}_file must not both be there")),
            (Some(text), None) => Ok(Some(Source::Text(text))),
            (None, file) => Ok(file.map(|file| Source::File(dir.join(file)))),
        };
        let ca = one("ca", self.ca.clone().map(Secret::from), self.ca_file.as_ref())?;
        let cert = one("cert", self.cert.clone().map(Secret::from), self.cert_file.as_ref())?;
        let key = one("key", self.key.clone(), self.key_file.as_ref())?;
        let identity = match (cert, key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => return Err("tls_config: certificate and key go together".to_owned()),
        };
        let min_version = self.min_version.as_deref().map(|text| version("min_version", text)).transpose()?;
        let max_version = self.max_version.as_deref().map(|text| version("max_version", text)).transpose()?;
        if min_version.zip(max_version).is_some_and(|(min, max)| min > max) {
            return Err("tls_config: min_version is above max_version".to_owned());
        }
        let insecure_skip_verify = self.insecure_skip_verify;
        let server_name = self.server_name.clone().filter(|name| !name.is_empty());
        Ok(Tls { ca, identity, insecure_skip_verify, min_version, max_version, server_name })
    }
}

/// Older ones than 1.2 are spoken by nobody here; as the least version they mean 1.2.
fn version(key: &str, text: &str) -> Result<Version, String> {
    match text {
        "TLS13" => Ok(Version::TLS_1_3),
        "TLS12" => Ok(Version::TLS_1_2),
        "TLS10" | "TLS11" if key == "min_version" => Ok(Version::TLS_1_2),
        "TLS10" | "TLS11" => {
            Err(format!("tls_config.{key}: {text} is too old to be spoken; say TLS12 or TLS13"))
        }
        _ => Err(format!("tls_config.{key}: {text:?} is unknown; say TLS12 or TLS13")),
    }
}

/// One behind the other.
const REDIRECTS_MAX: usize = 10;

/// Follows what keeps method and body, to the same host.
fn same_host() -> redirect::Policy {
    redirect::Policy::custom(|attempt| {
        let keeps_body = matches!(attempt.status().as_u16(), 307 | 308);
        let is_same = attempt.previous().first().is_some_and(|first| first.host() == attempt.url().host());
        if keeps_body && is_same && attempt.previous().len() <= REDIRECTS_MAX {
            attempt.follow()
        } else {
            attempt.stop()
        }
    })
}

/// What a key of TLS holds, and what to call it.
pub(crate) fn pem(source: &Source) -> Result<(Vec<u8>, String), String> {
    match source {
        Source::Text(text) => Ok((text.reveal().as_bytes().to_vec(), "tls_config".to_owned())),
        Source::File(path) => {
            let bytes = std::fs::read(path);
            let bytes = bytes.map_err(|error| format!("cannot read {}: {error}", path.display()))?;
            Ok((bytes, path.display().to_string()))
        }
    }
}

/// A client that speaks in this way.
pub(crate) fn client(
    tls: &Tls,
    proxy: &ProxyChoice,
    options: ClientOptions,
) -> Result<reqwest::Client, String> {
    let mut authorities = Vec::new();
    if let Some(ca) = &tls.ca {
        let (bytes, place) = pem(ca)?;
        authorities = reqwest::Certificate::from_pem_bundle(&bytes)
            .map_err(|error| format!("{place} holds no certificates: {error}"))?;
    }
    let mut identity = None;
    if let Some((cert, key)) = &tls.identity {
        let ((cert, place), (key, key_place)) = (pem(cert)?, pem(key)?);
        let both = [cert, b"\n".to_vec(), key].concat();
        identity = Some(
            reqwest::Identity::from_pem(&both)
                .map_err(|error| format!("{place} and {key_place} are no certificate and key: {error}"))?,
        );
    }
    let named = tls.named()?;
    let through = match proxy {
        ProxyChoice::At { url, but } => {
            let proxy = Proxy::all(url.reveal()).map_err(|error| format!("proxy_url: {}", chain(error)))?;
            Some(proxy.no_proxy(but.as_deref().and_then(NoProxy::from_string)))
        }
        ProxyChoice::None | ProxyChoice::Environment => None,
    };
    let builder = |authorities: Option<Vec<reqwest::Certificate>>| {
        let mut builder = reqwest::Client::builder()
            .connect_timeout(options.timeout.min(Duration::from_secs(10)))
            .timeout(options.timeout)
            .redirect(match options.redirects {
                Redirects::None => redirect::Policy::none(),
                Redirects::SameHost => same_host(),
            })
            .gzip(options.gzip)
            .zstd(false)
            // As everybody else writes them: there are receivers that look for no other form.
            .http1_title_case_headers()
            .tls_danger_accept_invalid_certs(tls.insecure_skip_verify)
            .user_agent(concat!("binnacle/", env!("CARGO_PKG_VERSION")));
        builder = match &through {
            Some(proxy) => builder.proxy(proxy.clone()),
            None if matches!(proxy, ProxyChoice::Environment) => builder,
            None => builder.no_proxy(),
        };
        if !options.http2 {
            builder = builder.http1_only();
        }
        if options.guarded != Guarded::Nothing {
            builder = builder.dns_resolver(Guard(options.guarded));
        }
        if let Some(version) = tls.min_version {
            builder = builder.tls_version_min(version);
        }
        if let Some(version) = tls.max_version {
            builder = builder.tls_version_max(version);
        }
        if let Some(identity) = identity.clone() {
            builder = builder.identity(identity);
        }
        if let Some(config) = &named {
            builder = builder.tls_backend_preconfigured(config.clone());
        }
        match authorities {
            Some(authorities) => builder.tls_certs_only(authorities),
            None => builder,
        }
    };
    let made = if tls.ca.is_some() {
        builder(Some(authorities)).build()
    } else {
        // A machine without CA certificates can still reach plain HTTP.
        builder(None).build().or_else(|_| builder(Some(Vec::new())).build())
    };
    made.map_err(|error| format!("cannot speak TLS: {}", chain(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_of_tls_that_change_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        std::fs::write(&path, "one").unwrap();
        let raw: RawTls = serde_saphyr::from_str("{ca_file: ca.pem, insecure_skip_verify: true}").unwrap();
        let tls = raw.check(dir.path()).unwrap();
        let first = tls.print().await;
        assert!(first.is_some() && first == tls.print().await);
        std::fs::write(&path, "two").unwrap();
        assert_ne!(first, tls.print().await);
        assert_eq!(Tls::default().print().await, None);
    }

    #[test]
    fn a_proxy_is_chosen_once() {
        let url = |text: &str| Some(Secret::from(text.to_owned()));
        let choose = |at: Option<&str>, but: Option<&str>, environment| {
            proxy(at.and_then(url).as_ref(), but.map(str::to_owned).as_ref(), environment)
        };
        assert!(matches!(choose(None, None, false), Ok(ProxyChoice::None)));
        assert!(matches!(choose(None, None, true), Ok(ProxyChoice::Environment)));
        assert!(matches!(choose(Some("http://p:3128"), Some("a.b"), false), Ok(ProxyChoice::At { .. })));
        for (at, but, environment, want) in [
            (None, Some("a"), false, "no_proxy needs"),
            (Some("http://p"), None, true, "must not both"),
            (Some("socks5://u:hunter2@p"), None, false, "must begin with"),
            (Some("http://u:hunter2@[p"), None, false, "cannot be read"),
        ] {
            let error = choose(at, but, environment).unwrap_err();
            assert!(error.contains(want) && !error.contains("hunter2"), "{error}");
        }
    }
}
