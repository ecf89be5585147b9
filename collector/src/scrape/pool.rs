//! What the targets of one scrape config share, and how discovered labels become a target.
//!
//! Follows `scrape/target.go` of Prometheus 3 (`PopulateDiscoveredLabels`, `PopulateLabels`, `Target.URL`).

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use binnacle_model::Labels;
use binnacle_model::time::{format_duration, parse_duration};

use super::target::{PageSource, Target};
use crate::outgoing::{Redirects, Way};
use crate::relabel::{Rule, relabel};

pub(super) const ADDRESS: &str = "__address__";
const INTERVAL: &str = "__scrape_interval__";
const TIMEOUT: &str = "__scrape_timeout__";
const PATH: &str = "__metrics_path__";
const SCHEME: &str = "__scheme__";
const PARAM: &str = "__param_";
const META: &str = "__meta_";
const INSTANCE: &str = "instance";
/// For a connection, at least: targets that no configuration names have no timeout for all.
const CONNECT_TIMEOUT_MIN: Duration = Duration::from_secs(10);
/// Labels that begin so are not stored.
const INTERNAL: &str = "__";

/// A scrape config, as the program trusts it.
#[derive(Debug, Default)]
pub struct Pool {
    /// Name of the scrape config.
    pub job: String,
    /// What becomes of discovered labels.
    pub relabel: Vec<Rule>,
    /// What becomes of the series of a page.
    pub metric_relabel: Vec<Rule>,
    /// Whether the page's labels win over the target's.
    pub honor_labels: bool,
    /// Whether the page's times are ignored.
    pub ignore_timestamps: bool,
    pub(super) defaults: Defaults,
    pub(super) way: Way,
    /// A key that would decide how targets are reached, and which this release does not follow.
    pub(super) unsupported: Option<&'static str>,
    pub(super) follow_redirects: bool,
    /// Which all targets share; made when the first is scraped.
    pub(super) client: OnceLock<Result<reqwest::Client, String>>,
    /// Discovered labels of what the rules let go.
    pub(super) dropped: Mutex<Vec<Labels>>,
}

/// What a target has where neither its labels nor the rules say otherwise.
#[derive(Debug, Default)]
pub(super) struct Defaults {
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
    pub(super) path: String,
    pub(super) scheme: String,
    pub(super) params: BTreeMap<String, Vec<String>>,
}

impl Pool {
    /// Discovered labels of what the rules let go.
    pub fn dropped(&self) -> Vec<Labels> {
        self.dropped.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// By which the targets are reached. Each request has a timeout of its own.
    pub(super) fn client(&self) -> Result<&reqwest::Client, String> {
        let client = self.client.get_or_init(|| {
            if let Some(key) = self.unsupported {
                return Err(format!("{key} of the scrape config is not supported by this release"));
            }
            let redirects = if self.follow_redirects { Redirects::Any } else { Redirects::None };
            self.way.client(redirects, self.defaults.timeout.max(CONNECT_TIMEOUT_MIN))
        });
        client.as_ref().map_err(Clone::clone)
    }

    /// The targets among what was discovered, and what is wrong with others. Equal ones are one.
    pub(super) fn targets(self: &Arc<Self>, discovered: Vec<Labels>) -> (Vec<Target>, Vec<String>) {
        let (mut targets, mut failures, mut dropped) = (Vec::new(), Vec::new(), Vec::new());
        let mut known = HashSet::new();
        for labels in discovered {
            match self.target(&labels) {
                Ok(Some(target)) => {
                    if known.insert((target.labels.clone(), target.source.to_string())) {
                        targets.push(target);
                    }
                }
                Ok(None) => dropped.push(labels),
                Err(reason) => failures.push(format!("target {:?}: {reason}", labels.value(ADDRESS))),
            }
        }
        *self.dropped.lock().unwrap_or_else(PoisonError::into_inner) = dropped;
        (targets, failures)
    }

    /// Labels of something at `address`, before any rule.
    pub(super) fn discovered(&self, address: &str, of_group: &BTreeMap<String, String>) -> Labels {
        let mut labels = Labels::default().with(ADDRESS, address);
        for (name, value) in of_group {
            if name != ADDRESS {
                labels = labels.with(name, value);
            }
        }
        let defaults = &self.defaults;
        let scraped = [
            ("job", self.job.clone()),
            (INTERVAL, format_duration(defaults.interval)),
            (TIMEOUT, format_duration(defaults.timeout)),
            (PATH, defaults.path.clone()),
            (SCHEME, defaults.scheme.clone()),
        ];
        let params = defaults.params.iter().filter_map(|(name, values)| {
            values.first().map(|first| (format!("{PARAM}{name}"), first.clone()))
        });
        for (name, value) in scraped.into_iter().map(|(name, value)| (name.to_owned(), value)).chain(params) {
            if labels.get(&name).is_none() {
                labels = labels.with(&name, &value);
            }
        }
        labels
    }

    /// `None` if the rules let it go.
    fn target(self: &Arc<Self>, discovered: &Labels) -> Result<Option<Target>, String> {
        let Some(labels) = relabel(discovered, &self.relabel) else { return Ok(None) };
        let address = labels.value(ADDRESS).to_owned();
        if address.is_empty() {
            return Err("no address".to_owned());
        }
        check_address(&address)?;
        let interval = span(&labels, INTERVAL, "scrape interval")?;
        let timeout = span(&labels, TIMEOUT, "scrape timeout")?;
        if timeout > interval {
            let (timeout, interval) = (format_duration(timeout), format_duration(interval));
            return Err(format!(
                "scrape timeout cannot be greater than scrape interval ({timeout:?} > {interval:?})"
            ));
        }
        let mut labels = labels.filtered(|label| !label.name.starts_with(META));
        if labels.get(INSTANCE).is_none() {
            labels = labels.with(INSTANCE, &address);
        }
        let source = PageSource::Http(self.url(&address, &labels)?);
        Ok(Some(Target {
            labels: labels.filtered(|label| !label.name.starts_with(INTERNAL)),
            discovered: discovered.clone(),
            ..Target::of_pool(Arc::clone(self), source, interval, timeout)
        }))
    }

    /// Where the page is; a parameter among the labels takes the place of the first one of the scrape config.
    fn url(&self, address: &str, labels: &Labels) -> Result<reqwest::Url, String> {
        let scheme = labels.value(SCHEME);
        if !matches!(scheme, "http" | "https") {
            return Err(format!("scheme {scheme:?} is neither http nor https"));
        }
        let mut url = reqwest::Url::parse(&format!("{scheme}://{address}/"))
            .map_err(|error| format!("{address:?} is not a valid hostname: {error}"))?;
        url.set_path(labels.value(PATH));
        let mut params = self.defaults.params.clone();
        params.retain(|_, values| !values.is_empty());
        for label in labels {
            let Some(name) = label.name.strip_prefix(PARAM) else { continue };
            let values = params.entry(name.to_owned()).or_default();
            match values.first_mut() {
                Some(first) => label.value.as_ref().clone_into(first),
                None => values.push(label.value.to_string()),
            }
        }
        if !params.is_empty() {
            let mut query = url.query_pairs_mut();
            for (name, value) in
                params.iter().flat_map(|(name, values)| values.iter().map(move |value| (name, value)))
            {
                query.append_pair(name, value);
            }
        }
        Ok(url)
    }
}

/// As in Prometheus: `host:port`, or `host`.
pub(super) fn check_address(address: &str) -> Result<(), String> {
    if address.contains('/') {
        return Err(format!(
            "{address:?} is not a valid hostname: write host:port, without a scheme or path"
        ));
    }
    Ok(())
}

fn span(labels: &Labels, label: &str, what: &str) -> Result<Duration, String> {
    let span =
        parse_duration(labels.value(label)).map_err(|error| format!("error parsing {what}: {error}"))?;
    if span.is_zero() {
        return Err(format!("{what} cannot be 0"));
    }
    Ok(span)
}
