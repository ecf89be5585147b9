//! `store:`: where our own store is, and how it is reached.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use binnacle_model::yaml::null_is_default;
use reqwest::Url;
use serde::Deserialize;
use serde::de::IgnoredAny;

use binnacle_outgoing::{RawAuthorization, RawBasicAuth, RawHeader, RawTls, Secret, Way, way_of};

/// `store:` as the operator wrote it. Nothing here has been checked.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawStore {
    url: Option<String>,
    /// Label `node` of what is sent. Default: the node's name as Kubernetes has it, or the host's.
    pub node: Option<String>,
    #[serde(deserialize_with = "null_is_default")]
    headers: BTreeMap<String, Secret>,
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

/// A store, as the program trusts it.
#[derive(Debug, Clone)]
pub struct StoreTarget {
    pub(super) url: Url,
    pub(crate) way: Way,
}

/// How the section says to reach whatever store, should the command line name another.
#[derive(Debug, Clone, Default)]
pub struct StoreWay(Way);

impl RawStore {
    /// Where the store is, if that is said, and how it is reached. Files are relative to `dir`.
    ///
    /// # Errors
    /// A sentence that names the key.
    pub fn check(mut self, dir: &Path) -> Result<(Option<StoreTarget>, StoreWay), String> {
        let way = way_of!(self);
        if let Some(key) = way.unsupported() {
            return Err(format!("store.{key} is not supported by this release"));
        }
        let way = way.check(&self.headers, dir).map_err(|reason| format!("store: {reason}"))?;
        let url =
            self.url.map(|url| url_of(&url).map_err(|reason| format!("store.url {reason}"))).transpose()?;
        Ok((url.map(|url| StoreTarget { url, way: way.clone() }), StoreWay(way)))
    }
}

impl StoreTarget {
    /// A store at `url`, such as `http://binnacle:9090`, reached as the section says.
    ///
    /// # Errors
    /// A sentence about the URL.
    pub fn at(url: &str, way: &StoreWay) -> Result<Self, String> {
        let url = url_of(url).map_err(|reason| format!("the store's url {reason}"))?;
        Ok(Self { url, way: way.0.clone() })
    }

    /// Where it takes samples.
    pub(crate) fn write_url(&self) -> Url {
        below(&self.url, "/api/v1/write")
    }
}

impl std::fmt::Display for StoreTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = self.url.clone();
        if shown.password().is_some() {
            // A URL with a host takes a password.
            let _ = shown.set_password(Some("xxxxx"));
        }
        f.write_str(shown.as_str().trim_end_matches('/'))
    }
}

/// A path below that of the URL: a proxy may have the store anywhere.
pub(super) fn below(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}{path}", base.path().trim_end_matches('/')));
    url
}

/// The text is not repeated: it may hold a password.
fn url_of(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("cannot be read: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err("must begin with http:// or https:// and a host".to_owned());
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(yaml: &str) -> Result<String, String> {
        let raw: RawStore = serde_saphyr::from_str(yaml).map_err(|error| error.to_string())?;
        let (target, _) = raw.check(Path::new("/etc/b"))?;
        Ok(target.map_or_else(String::new, |target| format!("{target} {}", target.write_url().path())))
    }

    #[test]
    fn a_store_is_a_url_and_a_way() {
        assert_eq!(check("{url: 'http://b:9090'}").unwrap(), "http://b:9090 /api/v1/write");
        let behind = "{url: 'https://u:hunter2@b/binnacle/', tls_config: {ca_file: ca.pem}}";
        assert_eq!(check(behind).unwrap(), "https://u:xxxxx@b/binnacle /binnacle/api/v1/write");
        for (yaml, reason) in [
            ("{url: b}", "store.url cannot be read: relative URL without a base"),
            ("{url: 'ftp://b'}", "store.url must begin with http:// or https:// and a host"),
            ("{url: 'http://b', oauth2: {}}", "store.oauth2 is not supported by this release"),
        ] {
            assert_eq!(check(yaml).unwrap_err(), reason);
        }
    }
}
