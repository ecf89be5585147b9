//! One target: what it is, and how it does.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use binnacle_model::storage::Metadata;
use binnacle_model::{Labels, Timestamp};

use super::pool::Pool;
use crate::discovery::ADDRESS;
use crate::probe::Probe;

/// Where a page comes from.
#[derive(Clone)]
pub enum PageSource {
    /// Another process.
    Http(reqwest::Url),
    /// What a probe of this process finds.
    Probe(Probe),
    /// This process: itself, or the host it runs on. Answers a page in OpenMetrics or text.
    Local(&'static str, Arc<dyn Fn() -> Result<String, String> + Send + Sync>),
}

impl fmt::Debug for PageSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for PageSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(url) => write!(f, "{url}"),
            Self::Probe(probe) => write!(f, "{probe}"),
            Self::Local(name, _) => write!(f, "internal://{name}"),
        }
    }
}

/// How a target does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Not scraped yet.
    Unknown,
    /// The last scrape was taken.
    Up,
    /// The last scrape was not.
    Down,
}

/// The last scrape of a target.
#[derive(Debug, Clone)]
pub struct TargetStatus {
    /// How it does.
    pub health: Health,
    /// Why it is down, or empty.
    pub last_error: String,
    /// When the last scrape began.
    pub last_scrape: Option<Timestamp>,
    /// How long it took.
    pub last_duration: Duration,
}

/// A target.
#[derive(Debug)]
pub struct Target {
    /// The scrape config that it belongs to.
    pub pool: Arc<Pool>,
    /// Added to all its series: `job`, `instance`, and what the configuration says.
    pub labels: Labels,
    /// What was known of it before any rule.
    pub discovered: Labels,
    /// Where its page is.
    pub source: PageSource,
    /// Between scrapes.
    pub interval: Duration,
    /// For one scrape.
    pub timeout: Duration,
    pub(super) status: Mutex<TargetStatus>,
    pub(super) described: Mutex<Described>,
}

/// What a page says of its metrics, ascending by name; targets with equal pages share it.
pub type Described = Arc<[(String, Metadata)]>;

impl Target {
    /// A target that no configuration names, with labels `job` and `instance`.
    pub fn new(job: &str, instance: &str, source: PageSource, interval: Duration, timeout: Duration) -> Self {
        let pool = Arc::new(Pool { job: job.to_owned(), ..Pool::default() });
        let labels = Labels::default().with("job", job).with("instance", instance);
        let discovered = Labels::default().with("job", job).with(ADDRESS, instance);
        Self { labels, discovered, ..Self::of_pool(pool, source, interval, timeout) }
    }

    /// A target without labels.
    pub(super) fn of_pool(
        pool: Arc<Pool>,
        source: PageSource,
        interval: Duration,
        timeout: Duration,
    ) -> Self {
        let status = TargetStatus {
            health: Health::Unknown,
            last_error: String::new(),
            last_scrape: None,
            last_duration: Duration::ZERO,
        };
        Self {
            pool,
            labels: Labels::default(),
            discovered: Labels::default(),
            source,
            interval,
            timeout,
            status: Mutex::new(status),
            described: Mutex::new(Arc::default()),
        }
    }

    /// Two targets with the same key are one and the same.
    pub(super) fn key(&self) -> (Labels, String) {
        (self.labels.clone(), self.source.to_string())
    }

    /// How it does.
    pub fn status(&self) -> TargetStatus {
        self.lock().clone()
    }

    /// What the last page said of its metrics.
    pub fn described(&self) -> Described {
        self.described.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn describe(&self, described: &Described) {
        *self.described.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(described);
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, TargetStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
