//! `send:` of the configuration.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use binnacle_model::labels::is_legacy_label_name;
use binnacle_model::time::optional_duration;
use binnacle_model::yaml::null_is_default;
use reqwest::Url;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Format;
use crate::remote_write::{RawRemoteWrite, RemoteConfig};
use binnacle_outgoing::{RawAuthorization, RawBasicAuth, RawHeader, RawTls, Secret, Way, way_of};

const TIMEOUT: Duration = Duration::from_secs(30);

/// A data stream that Elasticsearch has a template for.
const INDEX: &str = "logs-generic-default";

/// `send:` as the operator wrote it. Nothing here has been checked.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawSend {
    logs: Option<RawLogs>,
    metrics: Option<RawMetrics>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawLogs {
    loki: Option<RawTarget>,
    otlp: Option<RawTarget>,
    elasticsearch: Option<RawTarget>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawMetrics {
    #[serde(deserialize_with = "null_is_default")]
    remote_write: Vec<RawRemoteWrite>,
}

/// One store of logs, of whichever kind.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawTarget {
    url: String,
    #[serde(with = "optional_duration")]
    timeout: Option<Duration>,
    #[serde(deserialize_with = "null_is_default")]
    headers: BTreeMap<String, Secret>,
    /// Loki's.
    tenant: Option<String>,
    /// Loki's.
    #[serde(deserialize_with = "null_is_default")]
    labels: BTreeMap<String, String>,
    /// Elasticsearch's.
    index: Option<String>,
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

/// A store of logs, as the program trusts it.
#[derive(Debug, Clone)]
pub struct LogTarget {
    pub(super) url: Url,
    pub(super) timeout: Duration,
    pub(super) way: Way,
    pub(super) format: Format,
}

/// Where a collector sends.
#[derive(Debug, Default)]
pub struct Targets {
    /// `None` is our own store.
    pub logs: Option<LogTarget>,
    /// None of them is our own store.
    pub metrics: Vec<RemoteConfig>,
    /// Keys that change nothing here.
    pub warnings: Vec<String>,
}

impl RawSend {
    /// Files are relative to `dir`.
    ///
    /// # Errors
    /// A sentence that names the key.
    pub fn check(self, dir: &Path) -> Result<Targets, String> {
        let mut targets = Targets::default();
        if let Some(logs) = self.logs {
            targets.logs = Some(logs.check(dir)?);
        }
        for raw in self.metrics.unwrap_or_default().remote_write {
            let (remote, warnings) = raw.check(dir).map_err(|reason| format!("send.metrics: {reason}"))?;
            if targets.metrics.iter().any(|other| other.name() == remote.name()) {
                return Err(format!(
                    "send.metrics: remote_write {:?} is there twice; give each a name of its own",
                    remote.name()
                ));
            }
            targets.warnings.extend(warnings.into_iter().map(|warning| format!("send.metrics: {warning}")));
            targets.metrics.push(remote);
        }
        Ok(targets)
    }
}

impl RawLogs {
    fn check(self, dir: &Path) -> Result<LogTarget, String> {
        match (self.loki, self.otlp, self.elasticsearch) {
            (Some(raw), None, None) => raw.check(Kind::Loki, dir),
            (None, Some(raw), None) => raw.check(Kind::Otlp, dir),
            (None, None, Some(raw)) => raw.check(Kind::Elastic, dir),
            _ => Err("send.logs: say one of loki, otlp and elasticsearch".to_owned()),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Loki,
    Otlp,
    Elastic,
}

impl Kind {
    fn key(self) -> &'static str {
        match self {
            Self::Loki => "loki",
            Self::Otlp => "otlp",
            Self::Elastic => "elasticsearch",
        }
    }

    /// Where such a store takes lines, behind its URL.
    fn path(self) -> &'static str {
        match self {
            Self::Loki => "/loki/api/v1/push",
            Self::Otlp => "/v1/logs",
            Self::Elastic => "/_bulk",
        }
    }
}

impl RawTarget {
    fn check(mut self, kind: Kind, dir: &Path) -> Result<LogTarget, String> {
        let told = |reason: String| format!("send.logs.{}{reason}", kind.key());
        let url = url_of(&self.url, kind).map_err(|reason| told(format!(".url {reason}")))?;
        let timeout = self.timeout.unwrap_or(TIMEOUT);
        if timeout.is_zero() {
            return Err(told(".timeout must not be zero".to_owned()));
        }
        let of_others = [
            ("tenant", Kind::Loki, self.tenant.is_some()),
            ("labels", Kind::Loki, !self.labels.is_empty()),
            ("index", Kind::Elastic, self.index.is_some()),
        ];
        if let Some((key, of, _)) = of_others.iter().find(|(_, of, is_there)| *is_there && *of != kind) {
            return Err(told(format!(".{key} belongs to {}", of.key())));
        }
        if let Some(tenant) = self.tenant.take() {
            self.headers.insert("X-Scope-OrgID".to_owned(), Secret::from(tenant));
        }
        if let Some(name) = self.labels.keys().find(|name| !is_legacy_label_name(name)) {
            return Err(told(format!(".labels: {name:?} is no name of a label")));
        }
        let way = way_of!(self);
        if let Some(key) = way.unsupported() {
            return Err(told(format!(".{key} is not supported by this release")));
        }
        let way = way.check(&self.headers, dir).map_err(|reason| told(format!(": {reason}")))?;
        let format = match kind {
            Kind::Loki => Format::Loki { labels: self.labels.into_iter().collect() },
            Kind::Otlp => Format::Otlp,
            Kind::Elastic => Format::Elastic { index: self.index.unwrap_or_else(|| INDEX.to_owned()) },
        };
        Ok(LogTarget { url, timeout, way, format })
    }
}

/// The text is not repeated: it may hold a password.
fn url_of(text: &str, kind: Kind) -> Result<Url, String> {
    if text.is_empty() {
        return Err("is missing".to_owned());
    }
    let mut url = Url::parse(text).map_err(|error| format!("cannot be read: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err("must begin with http:// or https:// and a host".to_owned());
    }
    let path = url.path().trim_end_matches('/').to_owned();
    if !path.ends_with(kind.path()) {
        url.set_path(&format!("{path}{}", kind.path()));
    }
    Ok(url)
}

impl LogTarget {
    /// Loki at `url`, without credentials.
    ///
    /// # Errors
    /// A sentence about the URL.
    pub fn loki(url: &str) -> Result<Self, String> {
        Self::plain(url, Kind::Loki)
    }

    /// A receiver of OTLP at `url`, without credentials.
    ///
    /// # Errors
    /// A sentence about the URL.
    pub fn otlp(url: &str) -> Result<Self, String> {
        Self::plain(url, Kind::Otlp)
    }

    /// Elasticsearch at `url`, without credentials.
    ///
    /// # Errors
    /// A sentence about the URL.
    pub fn elasticsearch(url: &str) -> Result<Self, String> {
        Self::plain(url, Kind::Elastic)
    }

    fn plain(url: &str, kind: Kind) -> Result<Self, String> {
        RawTarget { url: url.to_owned(), ..RawTarget::default() }.check(kind, Path::new("."))
    }
}

impl std::fmt::Display for LogTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = self.url.clone();
        if shown.password().is_some() {
            // A URL with a host takes a password.
            let _ = shown.set_password(Some("xxxxx"));
        }
        write!(f, "{shown}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(yaml: &str) -> Result<Targets, String> {
        let raw: RawSend = serde_saphyr::from_str(yaml).map_err(|error| error.to_string())?;
        raw.check(Path::new("/etc/b"))
    }

    #[test]
    fn urls_lead_to_where_lines_are_taken() {
        for (yaml, want) in [
            ("{logs: {loki: {url: 'http://l:3100', tenant: a}}}", "http://l:3100/loki/api/v1/push"),
            ("{logs: {loki: {url: 'http://l/loki/api/v1/push'}}}", "http://l/loki/api/v1/push"),
            ("{logs: {otlp: {url: 'http://o:4318/'}}}", "http://o:4318/v1/logs"),
            ("{logs: {otlp: {url: 'http://o/otlp/v1/logs'}}}", "http://o/otlp/v1/logs"),
            (
                "{logs: {elasticsearch: {url: 'https://u:p@e/elastic', index: x}}}",
                "https://u:xxxxx@e/elastic/_bulk",
            ),
        ] {
            assert_eq!(check(yaml).unwrap().logs.unwrap().to_string(), want);
        }
        assert!(check("{}").unwrap().logs.is_none());
        let metrics =
            check("{metrics: {remote_write: [{url: 'http://a/w', round_robin_dns: true}]}}").unwrap();
        assert!(metrics.metrics.len() == 1 && metrics.warnings[0].starts_with("send.metrics: remote_write"));
    }

    #[test]
    fn errors_name_the_key_and_no_secret() {
        for (yaml, want) in [
            ("{logs: {}}", "send.logs: say one of loki, otlp and elasticsearch"),
            ("{logs: {loki: {url: 'http://a'}, otlp: {url: 'http://a'}}}", "send.logs: say one of"),
            ("{logs: {loki: {}}}", "send.logs.loki.url is missing"),
            ("{logs: {otlp: {url: 'ftp://hunter2@a'}}}", "send.logs.otlp.url must begin with"),
            ("{logs: {otlp: {url: 'http://a', tenant: hunter2}}}", "send.logs.otlp.tenant belongs to loki"),
            ("{logs: {loki: {url: 'http://a', index: x}}}", "send.logs.loki.index belongs to elasticsearch"),
            ("{logs: {loki: {url: 'http://a', labels: {a-b: c}}}}", "send.logs.loki.labels: \"a-b\""),
            ("{logs: {loki: {url: 'http://a', oauth2: {a: b}}}}", "send.logs.loki.oauth2 is not supported"),
            ("{logs: {loki: {url: 'http://a', timeout: 0s}}}", "send.logs.loki.timeout must not"),
            (
                "{logs: {elasticsearch: {url: 'http://a', basic_auth: {password: hunter2, password_file: b}}}}",
                "send.logs.elasticsearch: basic_auth",
            ),
            ("{logs: {kafka: {}}}", "kafka"),
            ("{metrics: {remote_write: [{url: 'http://a'}, {url: 'http://a'}]}}", "is there twice"),
        ] {
            let error = check(yaml).unwrap_err();
            assert!(error.contains(want) && !error.contains("hunter2"), "{yaml}: {error}");
        }
    }
}
