//! `remote_write:` of a `prometheus.yml`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use binnacle_model::time::optional_duration;
use binnacle_model::yaml::null_is_default;
use serde::Deserialize;
use serde::de::IgnoredAny;
use xxhash_rust::xxh3::xxh3_64;

use crate::forward::StoreTarget;
use crate::relabel::{RawRule, Rule, read_rules};
use binnacle_outgoing::{RawAuthorization, RawBasicAuth, RawHeader, RawTls, RawWay, Secret, Way, way_of};

/// One of `remote_write:` as the operator wrote it. Nothing here has been checked.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawRemoteWrite {
    url: String,
    name: String,
    #[serde(with = "optional_duration")]
    remote_timeout: Option<Duration>,
    #[serde(deserialize_with = "null_is_default")]
    headers: BTreeMap<String, Secret>,
    #[serde(deserialize_with = "null_is_default")]
    write_relabel_configs: Vec<RawRule>,
    send_exemplars: bool,
    send_native_histograms: bool,
    protobuf_message: Option<String>,
    basic_auth: Option<RawBasicAuth>,
    authorization: Option<RawAuthorization>,
    bearer_token: Option<Secret>,
    bearer_token_file: Option<PathBuf>,
    #[serde(deserialize_with = "null_is_default")]
    queue_config: RawQueue,
    #[serde(deserialize_with = "null_is_default")]
    metadata_config: RawMetadata,
    #[serde(deserialize_with = "null_is_default")]
    tls_config: RawTls,
    proxy_url: Option<Secret>,
    no_proxy: Option<String>,
    proxy_from_environment: bool,
    #[serde(deserialize_with = "null_is_default")]
    http_headers: BTreeMap<String, RawHeader>,
    // Of no meaning here.
    follow_redirects: Option<IgnoredAny>,
    enable_http2: Option<IgnoredAny>,
    round_robin_dns: Option<IgnoredAny>,
    // They decide where samples go or who may send them, and are refused.
    oauth2: Option<IgnoredAny>,
    sigv4: Option<IgnoredAny>,
    azuread: Option<IgnoredAny>,
    google_iam: Option<IgnoredAny>,
    proxy_connect_header: Option<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawQueue {
    capacity: Option<usize>,
    max_shards: Option<usize>,
    min_shards: Option<usize>,
    max_samples_per_send: Option<usize>,
    #[serde(with = "optional_duration")]
    batch_send_deadline: Option<Duration>,
    #[serde(with = "optional_duration")]
    min_backoff: Option<Duration>,
    #[serde(with = "optional_duration")]
    max_backoff: Option<Duration>,
    retry_on_http_429: Option<bool>,
    #[serde(with = "optional_duration")]
    sample_age_limit: Option<Duration>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawMetadata {
    send: Option<bool>,
    #[serde(with = "optional_duration")]
    send_interval: Option<Duration>,
    max_samples_per_send: Option<usize>,
}

/// Which of the two messages is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Message {
    V1,
    V2,
}

/// How samples wait.
#[derive(Debug, Clone)]
pub(super) struct Queue {
    /// Samples of one shard.
    pub(super) capacity: usize,
    pub(super) max_shards: usize,
    pub(super) min_shards: usize,
    pub(super) max_samples_per_send: usize,
    pub(super) batch_send_deadline: Duration,
    pub(super) min_backoff: Duration,
    pub(super) max_backoff: Duration,
    pub(super) retry_on_429: bool,
    pub(super) sample_age_limit: Option<Duration>,
}

/// When descriptions of metrics are sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct MetadataSends {
    pub(super) interval: Duration,
    pub(super) max_per_send: usize,
}

/// One receiver, as the program trusts it.
#[derive(Debug, Clone)]
pub struct RemoteConfig {
    key: String,
    pub(super) name: String,
    pub(super) url: Url,
    pub(super) timeout: Duration,
    pub(super) rules: Vec<Rule>,
    pub(super) histograms: bool,
    pub(super) exemplars: bool,
    /// Our own: what it refuses for good it says in words of its own.
    pub(super) is_ours: bool,
    pub(super) message: Message,
    pub(super) way: Way,
    pub(super) queue: Queue,
    pub(super) metadata: Option<MetadataSends>,
}

/// A URL that does not show its password.
#[derive(Clone)]
pub(super) struct Url(pub(super) reqwest::Url);

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.0.clone();
        if shown.password().is_some() {
            // A URL with a host takes a password.
            let _ = shown.set_password(Some("xxxxx"));
        }
        f.write_str(shown.as_str())
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Prometheus's own defaults, but for 429: what it throws away there is kept here.
impl From<&RawQueue> for Queue {
    fn from(raw: &RawQueue) -> Self {
        Self {
            capacity: raw.capacity.unwrap_or(10_000),
            max_shards: raw.max_shards.unwrap_or(50),
            min_shards: raw.min_shards.unwrap_or(1),
            max_samples_per_send: raw.max_samples_per_send.unwrap_or(2000),
            batch_send_deadline: raw.batch_send_deadline.unwrap_or(Duration::from_secs(5)),
            min_backoff: raw.min_backoff.unwrap_or(Duration::from_millis(30)),
            max_backoff: raw.max_backoff.unwrap_or(Duration::from_secs(5)),
            retry_on_429: raw.retry_on_http_429.unwrap_or(true),
            sample_age_limit: raw.sample_age_limit.filter(|limit| !limit.is_zero()),
        }
    }
}

/// Senders to our own store.
const STORE_SHARDS: usize = 4;

/// Bounds of `queue_config`, far beyond what anybody sets.
const SHARDS_MAX: usize = 1000;
const CAPACITY_MAX: usize = 10_000_000;
const SAMPLES_PER_SEND_MAX: usize = 100_000;

impl RawRemoteWrite {
    /// The receiver, and warnings about keys that change nothing here. Files are relative to `dir`.
    ///
    /// # Errors
    /// A sentence that names the receiver, the key and what to do.
    pub fn check(mut self, dir: &Path) -> Result<(RemoteConfig, Vec<String>), String> {
        if self.url.is_empty() {
            return Err("remote_write: url is missing".to_owned());
        }
        let url = self.url().map_err(|reason| format!("remote_write {:?}: url {reason}", self.name))?;
        let place = if self.name.is_empty() {
            format!("remote_write {url}")
        } else {
            format!("remote_write {:?}", self.name)
        };
        let told = |reason: String| format!("{place}: {reason}");
        let warnings = self.warnings().into_iter().map(told).collect();
        let queue = self.queue().map_err(told)?;
        let metadata = self.metadata().map_err(told)?;
        let message = match self.protobuf_message.as_deref() {
            None | Some("" | "prometheus.WriteRequest") => Message::V1,
            Some("io.prometheus.write.v2.Request") => Message::V2,
            Some(other) => {
                return Err(told(format!(
                    "protobuf_message {other:?} is unknown; say prometheus.WriteRequest or io.prometheus.write.v2.Request"
                )));
            }
        };
        let timeout = self.remote_timeout.unwrap_or(Duration::from_secs(30));
        if timeout.is_zero() {
            return Err(told("remote_timeout must not be zero".to_owned()));
        }
        let way = way_of!(self);
        self.refuse(&way).map_err(told)?;
        let way = way.check(&self.headers, dir).map_err(told)?;
        let rules = read_rules("write_relabel_configs", self.write_relabel_configs).map_err(told)?;
        let histograms = self.send_native_histograms || message == Message::V2;
        let key = format!("{:016x}", xxh3_64(format!("{}\n{url}", self.name).as_bytes()));
        let made = RemoteConfig {
            name: if self.name.is_empty() { key[..6].to_owned() } else { self.name },
            key,
            url,
            timeout,
            rules,
            histograms,
            exemplars: self.send_exemplars,
            is_ours: false,
            message,
            way,
            queue,
            metadata,
        };
        Ok((made, warnings))
    }

    fn url(&self) -> Result<Url, String> {
        // The text is not repeated: it may hold a password.
        let url = reqwest::Url::parse(&self.url).map_err(|error| format!("cannot be read: {error}"))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err("must begin with http:// or https:// and a host".to_owned());
        }
        Ok(Url(url))
    }

    fn refuse(&self, way: &RawWay) -> Result<(), String> {
        let keys = [("sigv4", &self.sigv4), ("azuread", &self.azuread), ("google_iam", &self.google_iam)];
        let own = keys.iter().find(|(_, there)| there.is_some()).map(|(key, _)| *key);
        match own.or_else(|| way.unsupported()) {
            None => Ok(()),
            Some(key) => Err(format!("{key} is not supported by this release; remove it to go on without")),
        }
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for (key, there) in [
            ("follow_redirects", &self.follow_redirects),
            ("enable_http2", &self.enable_http2),
            ("round_robin_dns", &self.round_robin_dns),
        ] {
            if there.is_some() {
                warnings.push(format!("{key} is not used by this release"));
            }
        }
        warnings
    }

    fn queue(&self) -> Result<Queue, String> {
        let queue = Queue::from(&self.queue_config);
        for (key, value, max) in [
            ("capacity", queue.capacity, CAPACITY_MAX),
            ("max_shards", queue.max_shards, SHARDS_MAX),
            ("min_shards", queue.min_shards, SHARDS_MAX),
            ("max_samples_per_send", queue.max_samples_per_send, SAMPLES_PER_SEND_MAX),
        ] {
            if !(1..=max).contains(&value) {
                return Err(format!("queue_config.{key} must be between 1 and {max}"));
            }
        }
        if queue.min_shards > queue.max_shards {
            return Err("queue_config.min_shards is larger than max_shards".to_owned());
        }
        if queue.min_backoff > queue.max_backoff {
            return Err("queue_config.min_backoff is longer than max_backoff".to_owned());
        }
        if queue.batch_send_deadline.is_zero() || queue.min_backoff.is_zero() {
            return Err("queue_config.batch_send_deadline and min_backoff must not be zero".to_owned());
        }
        Ok(queue)
    }

    fn metadata(&self) -> Result<Option<MetadataSends>, String> {
        let raw = &self.metadata_config;
        let sends = MetadataSends {
            interval: raw.send_interval.unwrap_or(Duration::from_mins(1)),
            max_per_send: raw.max_samples_per_send.unwrap_or(2000),
        };
        if sends.interval.is_zero() || sends.max_per_send == 0 {
            return Err("metadata_config.send_interval and max_samples_per_send must not be zero".to_owned());
        }
        Ok(raw.send.unwrap_or(true).then_some(sends))
    }
}

impl RemoteConfig {
    /// Our own store, which takes all that there is, soon; `samples` may wait for it.
    pub fn of_store(store: &StoreTarget, samples: Option<usize>) -> Self {
        let url = Url(store.write_url());
        let defaults = Queue::from(&RawQueue::default());
        let all = samples.unwrap_or(defaults.capacity * defaults.max_shards);
        let queue = Queue {
            capacity: (all / STORE_SHARDS).max(defaults.max_samples_per_send),
            min_shards: STORE_SHARDS,
            max_shards: STORE_SHARDS,
            batch_send_deadline: Duration::from_millis(500),
            ..defaults
        };
        Self {
            key: format!("{:016x}", xxh3_64(url.0.as_str().as_bytes())),
            name: "store".to_owned(),
            url,
            timeout: Duration::from_secs(30),
            rules: Vec::new(),
            histograms: true,
            exemplars: true,
            is_ours: true,
            message: Message::V1,
            way: store.way.clone(),
            queue,
            metadata: Some(MetadataSends { interval: Duration::from_mins(1), max_per_send: 2000 }),
        }
    }

    /// What it asks for and does not get where samples are read from a store's log.
    pub fn unused_of_log(&self) -> Option<String> {
        let text = format!("remote_write {:?}: send_exemplars is not used: the log has none", self.name);
        self.exemplars.then_some(text)
    }

    /// Under which its position is kept: the same as long as name and URL are, whatever else changes.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What it is called in metrics and logs.
    pub fn name(&self) -> &str {
        &self.name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(yaml: &str) -> Result<(RemoteConfig, Vec<String>), String> {
        let raw: RawRemoteWrite = serde_saphyr::from_str(yaml).unwrap();
        raw.check(Path::new("/etc/b"))
    }

    #[test]
    fn a_full_section_is_understood_and_shows_no_secret() {
        let (config, warnings) = check(
            "
            url: https://me:hunter2@example.org/write
            name: far
            remote_timeout: 10s
            headers: {X-Scope-OrgID: hunter2}
            send_native_histograms: true
            protobuf_message: io.prometheus.write.v2.Request
            authorization: {type: Token, credentials: hunter2}
            queue_config: {capacity: 5, max_shards: 4, min_shards: 2, max_samples_per_send: 3, batch_send_deadline: 1s,
              min_backoff: 1ms, max_backoff: 2ms, retry_on_http_429: false, sample_age_limit: 1h}
            metadata_config: {send: false}
            tls_config: {ca_file: ca.pem, insecure_skip_verify: true, min_version: TLS12, max_version: TLS13}
            proxy_url: http://me:hunter2@proxy:3128
            no_proxy: example.net
            http_headers: {X-More: {values: [one], secrets: [hunter2], files: [token]}}
            write_relabel_configs: [{source_labels: [a], regex: b, action: drop}]
            round_robin_dns: true
            send_exemplars: true
            ",
        )
        .unwrap();
        assert_eq!((config.message, config.queue.min_shards), (Message::V2, 2));
        let shown = format!("{:?}", config.way);
        assert!(shown.contains("/etc/b/ca.pem") && shown.contains("/etc/b/token"), "{shown}");
        let names: Vec<usize> = ["x-scope-orgid", "x-more"].map(|name| shown.matches(name).count()).to_vec();
        assert_eq!(names, [1, 3], "{shown}");
        assert_eq!(config.queue.sample_age_limit, Some(Duration::from_hours(1)));
        assert!(config.metadata.is_none() && !config.queue.retry_on_429);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(config.unused_of_log().is_some_and(|text| text.contains("send_exemplars")));
        let shown = format!("{config:?} {}", config.url);
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn errors_name_receiver_and_key() {
        for (yaml, want) in [
            ("name: x", "url is missing"),
            ("url: 'ftp://a/b'", "url must begin with http://"),
            ("url: 'http://me:hunter2@[x/'", "cannot be read"),
            ("{url: 'http://a/', name: n, oauth2: {a: b}}", "remote_write \"n\": oauth2 is not supported"),
            ("{url: 'http://a/', tls_config: {server_name: a}}", "tls_config.server_name is not supported"),
            ("{url: 'http://a/', tls_config: {max_version: TLS11}}", "TLS11 is too old"),
            ("{url: 'http://a/', tls_config: {min_version: 1.3}}", "\"1.3\" is unknown"),
            (
                "{url: 'http://a/', tls_config: {min_version: TLS13, max_version: TLS12}}",
                "min_version is above max_version",
            ),
            ("{url: 'http://a/', tls_config: {ca: x, ca_file: y}}", "ca and ca_file must not both"),
            ("{url: 'http://a/', tls_config: {cert: x}}", "certificate and key go together"),
            ("{url: 'http://a/', no_proxy: b}", "no_proxy needs proxy_url"),
            ("{url: 'http://a/', http_headers: {Host: {values: [x]}}}", "http_headers: Host cannot be set"),
            ("{url: 'http://a/', http_headers: {A: {secrets: [\"hunter2\\n\"]}}}", "value of a cannot stand"),
            ("{url: 'http://a/', sigv4: {}}", "remote_write http://a/: sigv4 is not supported"),
            ("{url: 'http://a/', queue_config: {min_shards: 9, max_shards: 2}}", "min_shards is larger"),
            ("{url: 'http://a/', queue_config: {capacity: 0}}", "queue_config.capacity must be"),
            ("{url: 'http://a/', protobuf_message: v3}", "protobuf_message \"v3\" is unknown"),
            ("{url: 'http://a/', headers: {Authorization: x}}", "Authorization cannot be set here"),
            ("{url: 'http://a/', bearer_token: a, bearer_token_file: b}", "at most one of"),
            ("{url: 'http://a/', basic_auth: {password: a, password_file: b}}", "must not both"),
            ("{url: 'http://a/', authorization: {type: basic, credentials: b}}", "say basic_auth instead"),
            ("{url: 'http://a/', authorization: {}}", "credentials or credentials_file is missing"),
            (
                "{url: 'http://a/', write_relabel_configs: [{action: hashmod}]}",
                "write_relabel_configs[0]: action hashmod",
            ),
        ] {
            let error = check(yaml).unwrap_err();
            assert!(error.contains(want) && !error.contains("hunter2"), "{error} of {yaml}");
        }
        let unknown = serde_saphyr::from_str::<RawRemoteWrite>("{url: 'http://a/', urll: 1}").unwrap_err();
        assert!(unknown.to_string().contains("urll"), "{unknown}");
    }

    #[test]
    fn the_position_stays_while_name_and_url_do() {
        let key = |yaml: &str| check(yaml).unwrap().0.key().to_owned();
        let plain = key("url: 'http://a/w'");
        assert_eq!(plain, key("{url: 'http://a/w', remote_timeout: 1s}"));
        assert_ne!(plain, key("{url: 'http://a/w', name: n}"));
        assert_eq!(key("url: 'http://u:1@a/w'"), key("url: 'http://u:2@a/w'"));
        assert_eq!(plain[..6], *check("url: 'http://a/w'").unwrap().0.name());
    }
}
