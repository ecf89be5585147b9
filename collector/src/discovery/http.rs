//! `http_sd_configs`: a list of targets that a server answers as JSON.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use binnacle_model::time::optional_duration;
use binnacle_model::yaml::null_is_default;
use reqwest::Url;
use reqwest::header::CONTENT_TYPE;
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio_util::sync::CancellationToken;

use super::{Context, Discoverer, Discovery, RawGroup, Running, TargetGroup, Updates, groups_of};
use binnacle_outgoing::{
    ClientOptions, Guarded, RawAuthorization, RawBasicAuth, RawHeader, RawTls, Redirects, Secret, Way, chain,
    way_of,
};

/// An answer at most.
const BODY_MAX_BYTES: usize = 64 * 1024 * 1024;

const REFRESH_INTERVAL: Duration = Duration::from_mins(1);

const LABEL: &str = "__meta_url";

/// One of `http_sd_configs` as the operator wrote it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawHttpSd {
    url: String,
    #[serde(with = "optional_duration")]
    refresh_interval: Option<Duration>,
    follow_redirects: Option<bool>,
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

#[derive(Debug, Clone)]
struct HttpDiscovery {
    url: Url,
    refresh: Duration,
    way: Way,
    options: ClientOptions,
}

impl RawHttpSd {
    /// Files are relative to `dir`.
    pub(crate) fn check(mut self, dir: &Path) -> Result<Arc<dyn Discovery>, String> {
        if self.url.is_empty() {
            return Err("URL is missing".to_owned());
        }
        let url = Url::parse(&self.url).map_err(|error| format!("url cannot be read: {error}"))?;
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err("URL scheme must be 'http' or 'https', and the host must be there".to_owned());
        }
        let refresh = self.refresh_interval.filter(|span| !span.is_zero()).unwrap_or(REFRESH_INTERVAL);
        let way = way_of!(self);
        if let Some(key) = way.unsupported() {
            return Err(format!("{key} is not supported by this release"));
        }
        let options = ClientOptions {
            redirects: if self.follow_redirects == Some(false) {
                Redirects::None
            } else {
                Redirects::SameHost
            },
            timeout: refresh,
            gzip: true,
            http2: self.enable_http2 != Some(false),
            guarded: Guarded::Nothing,
        };
        Ok(Arc::new(HttpDiscovery { url, refresh, way: way.check(&BTreeMap::new(), dir)?, options }))
    }
}

impl Discovery for HttpDiscovery {
    fn discoverer(&self, _: &Context) -> Box<dyn Discoverer> {
        Box::new(self.clone())
    }
}

impl Discoverer for HttpDiscovery {
    fn run(self: Box<Self>, found: Updates, stop: CancellationToken) -> Running {
        Box::pin(async move {
            let mut ticks = tokio::time::interval(self.refresh);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    _ = ticks.tick() => {}
                }
                let asked = tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    asked = tokio::time::timeout(self.refresh, self.ask()) => asked,
                };
                match asked.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
                    Ok(groups) => found.replace(groups),
                    Err(reason) => {
                        let host = self.url.host_str().unwrap_or_default();
                        tracing::warn!(host, reason, "targets cannot be asked for: those from before stay");
                        found.fail();
                    }
                }
            }
        })
    }
}

impl HttpDiscovery {
    async fn ask(&self) -> Result<Vec<TargetGroup>, String> {
        // Made anew each time: files of TLS may have changed, and this is seldom.
        let client = self.way.client(self.options)?;
        let request = client
            .get(self.url.clone())
            .header("accept", "application/json")
            .header("x-prometheus-refresh-interval-seconds", self.refresh.as_secs_f64().to_string())
            .headers(self.way.headers().await?);
        let mut response = request.send().await.map_err(chain)?;
        if response.status() != reqwest::StatusCode::OK {
            return Err(format!("server returned HTTP status {}", response.status()));
        }
        let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let content_type = content_type.unwrap_or_default().to_owned();
        if !content_type.trim().to_ascii_lowercase().starts_with("application/json") {
            return Err(format!("unsupported content type {content_type:?}"));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(chain)? {
            if body.len() + chunk.len() > BODY_MAX_BYTES {
                return Err(format!("the answer has more than {BODY_MAX_BYTES} bytes"));
            }
            body.extend_from_slice(&chunk);
        }
        let raw: Vec<RawGroup> = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
        let mut shown = self.url.clone();
        // Nobody sees a password among labels.
        let _ = shown.set_password(None);
        groups_of(raw, shown.as_str(), LABEL)
    }
}
