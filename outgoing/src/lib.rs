//! How other servers are reached: as whom, through what, and with which trust. Of scrape targets and of receivers of
//! remote write, in the words of Prometheus's `http_config`.
//!
//! ```text
//! RawWay ── check ─► Way ── client (once, and again when files of TLS change) ─► reqwest
//!                     └── headers (each request: files are read anew)
//! ```

mod auth;
mod cluster;
mod guard;
mod handshake;
mod transport;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde::de::IgnoredAny;

use auth::Auth;
pub use auth::{RawAuthorization, RawBasicAuth};
pub use guard::Guarded;
pub use handshake::Trust;
pub use transport::{ClientOptions, RawHeader, RawTls, Redirects};
use transport::{ProxyChoice, Tls};

/// Text that is shown to nobody.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl Secret {
    /// What is to be sent, and nothing else.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

/// A text that stands in the file, or in one that the file names and that is read again for each request.
#[derive(Debug, Clone)]
pub enum Source {
    /// It stands in the file.
    Text(Secret),
    /// It is read for each request.
    File(PathBuf),
}

impl Source {
    /// What it says.
    pub async fn read(&self) -> Result<String, String> {
        match self {
            Self::Text(text) => Ok(text.reveal().to_owned()),
            Self::File(path) => {
                let text = tokio::fs::read_to_string(path).await;
                let text = text.map_err(|error| format!("cannot read {}: {error}", path.display()))?;
                Ok(text.trim().to_owned())
            }
        }
    }
}

/// The keys of Prometheus's `http_config`, as the operator wrote them; see [`way_of`].
#[derive(Debug, Default)]
pub struct RawWay {
    /// A name and a password.
    pub basic_auth: Option<RawBasicAuth>,
    /// The header of that name.
    pub authorization: Option<RawAuthorization>,
    /// The older word for `authorization`.
    pub bearer_token: Option<Secret>,
    /// The same, in a file.
    pub bearer_token_file: Option<PathBuf>,
    /// Whom to trust, and as whom.
    pub tls_config: RawTls,
    /// Through what.
    pub proxy_url: Option<Secret>,
    /// What is reached without it.
    pub no_proxy: Option<String>,
    /// `HTTPS_PROXY` and its like.
    pub proxy_from_environment: bool,
    /// More headers.
    pub http_headers: BTreeMap<String, RawHeader>,
    /// Not supported.
    pub oauth2: Option<IgnoredAny>,
    /// Not supported.
    pub proxy_connect_header: Option<IgnoredAny>,
}

/// Takes the keys of [`RawWay`] out of a section that lists them among its own: flattening them would lose the places of
/// errors, and numbers where text is meant.
#[macro_export]
macro_rules! way_of {
    ($section:expr) => {
        $crate::RawWay {
            basic_auth: $section.basic_auth.take(),
            authorization: $section.authorization.take(),
            bearer_token: $section.bearer_token.take(),
            bearer_token_file: $section.bearer_token_file.take(),
            tls_config: std::mem::take(&mut $section.tls_config),
            proxy_url: $section.proxy_url.take(),
            no_proxy: $section.no_proxy.take(),
            proxy_from_environment: $section.proxy_from_environment,
            http_headers: std::mem::take(&mut $section.http_headers),
            oauth2: $section.oauth2.take(),
            proxy_connect_header: $section.proxy_connect_header.take(),
        }
    };
}

/// How a server is reached.
#[derive(Debug, Clone, Default)]
pub struct Way {
    auth: Auth,
    headers: Vec<(HeaderName, Source)>,
    tls: Tls,
    proxy: ProxyChoice,
}

impl RawWay {
    /// The way, with headers of one's own. Files are relative to `dir`.
    ///
    /// # Errors
    /// A sentence that names the key and what to do.
    pub fn check(&self, headers: &BTreeMap<String, Secret>, dir: &Path) -> Result<Way, String> {
        Ok(Way {
            headers: transport::headers(headers, &self.http_headers, dir)?,
            tls: self.tls_config.check(dir)?,
            proxy: transport::proxy(
                self.proxy_url.as_ref(),
                self.no_proxy.as_ref(),
                self.proxy_from_environment,
            )?,
            auth: self.auth(dir)?,
        })
    }

    /// The first of its keys that this release cannot follow.
    pub fn unsupported(&self) -> Option<&'static str> {
        let server_name = self.tls_config.server_name.is_some().then_some("tls_config.server_name");
        self.unknown().or(server_name)
    }

    /// As [`Self::unsupported`], where certificates may have another name than the server's address.
    pub fn unknown(&self) -> Option<&'static str> {
        let RawTls { ca_ref, cert_ref, key_ref, .. } = &self.tls_config;
        let basic = self.basic_auth.as_ref();
        let authorization = self.authorization.as_ref();
        let keys = [
            ("oauth2", &self.oauth2),
            ("proxy_connect_header", &self.proxy_connect_header),
            ("tls_config.ca_ref", ca_ref),
            ("tls_config.cert_ref", cert_ref),
            ("tls_config.key_ref", key_ref),
            ("basic_auth.username_ref", basic.map_or(&None, |basic| &basic.username_ref)),
            ("basic_auth.password_ref", basic.map_or(&None, |basic| &basic.password_ref)),
            ("authorization.credentials_ref", authorization.map_or(&None, |one| &one.credentials_ref)),
        ];
        keys.iter().find(|(_, there)| there.is_some()).map(|(key, _)| *key)
    }
}

impl Way {
    /// A client.
    pub fn client(&self, options: ClientOptions) -> Result<reqwest::Client, String> {
        transport::client(&self.tls, &self.proxy, options)
    }

    /// Changes with what the files of TLS hold, so that clients made before it are of no use; `None` if there are none.
    pub async fn tls_print(&self) -> Option<u64> {
        self.tls.print().await
    }

    /// The proxy's URL, if one is named; nothing is known of `but` there.
    pub fn proxy_url(&self) -> Option<&Secret> {
        match &self.proxy {
            ProxyChoice::At { url, .. } => Some(url),
            ProxyChoice::None | ProxyChoice::Environment => None,
        }
    }

    /// What a server hears of who we are.
    pub fn sends(&self) -> Option<&'static str> {
        if !matches!(self.auth, Auth::None) {
            return Some("credentials");
        }
        if self.has_headers() {
            return Some("headers");
        }
        self.tls.identity.is_some().then_some("a client's certificate")
    }

    /// Whether there are headers beside credentials.
    pub fn has_headers(&self) -> bool {
        !self.headers.is_empty()
    }

    /// Those that the configuration names, credentials among them, with what files hold by now.
    pub async fn headers(&self) -> Result<HeaderMap, String> {
        let mut headers = HeaderMap::new();
        for (name, source) in &self.headers {
            let mut value = HeaderValue::from_str(&source.read().await?)
                .map_err(|_| format!("the value of the header {name} holds bytes that cannot stand there"))?;
            value.set_sensitive(true);
            headers.append(name.clone(), value);
        }
        if let Some(value) = self.auth.header().await? {
            headers.insert(AUTHORIZATION, value);
        }
        Ok(headers)
    }
}

/// An error with what caused it, without the URL, which may hold a password and which everybody sees beside it.
pub fn chain(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = String::new();
    let mut next: Option<&dyn std::error::Error> = Some(&error);
    while let Some(error) = next {
        let part = error.to_string();
        let is_new = !text.ends_with(&part);
        if is_new && !text.is_empty() {
            text.push_str(": ");
        }
        if is_new {
            text.push_str(&part);
        }
        next = error.source();
    }
    text
}
