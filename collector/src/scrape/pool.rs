//! What the targets of one scrape config share, and how discovered labels become a target.
//!
//! Follows `scrape/target.go` of Prometheus 3 (`PopulateDiscoveredLabels`, `PopulateLabels`, `Target.URL`).

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use binnacle_model::Labels;
use binnacle_model::time::{format_duration, parse_duration};

use super::failures::FailureLog;
use super::limits::Limits;
use super::protocol::{Protocol, accept, protocols};
use super::target::{PageSource, Target};
use crate::discovery::{ADDRESS, Discovery, TargetGroup};
use crate::exposition::protobuf::Wanted;
use crate::probe::Probes;
use crate::relabel::{Rule, relabel};
use binnacle_outgoing::{ClientOptions, Guarded, Redirects, Way};

const INTERVAL: &str = "__scrape_interval__";
const TIMEOUT: &str = "__scrape_timeout__";
const PATH: &str = "__metrics_path__";
const SCHEME: &str = "__scheme__";
const PARAM: &str = "__param_";
const PROBED_TARGET: &str = "__param_target";
const PROBED_BY: &str = "__param_module";
const META: &str = "__meta_";
const INSTANCE: &str = "instance";
/// For a connection, at least: targets that no configuration names have no timeout for all.
const CONNECT_TIMEOUT_MIN: Duration = Duration::from_secs(10);
/// Labels that begin so are not stored.
const INTERNAL: &str = "__";

/// A scrape config, as the program trusts it.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a key of the configuration")]
pub struct Pool {
    /// Name of the scrape config.
    pub job: String,
    /// Changes with everything that the configuration says of it: one with the same print goes on over a reload.
    pub print: u64,
    /// What becomes of discovered labels.
    pub relabel: Vec<Rule>,
    /// What becomes of the series of a page.
    pub metric_relabel: Vec<Rule>,
    /// Whether the page's labels win over the target's.
    pub honor_labels: bool,
    /// Whether the page's times are ignored.
    pub ignore_timestamps: bool,
    /// Whether series with times of their own end with a marker, too.
    pub(super) track_timestamps_staleness: bool,
    /// Whether more is said of each scrape.
    pub(super) extra_metrics: bool,
    pub(super) limits: Limits,
    /// Which histograms of protobuf are taken.
    pub(super) histograms: Wanted,
    /// The header `Accept`.
    pub(super) accept: String,
    /// How pages of unknown type are read.
    pub(super) fallback: Option<Protocol>,
    pub(super) gzip: bool,
    pub(super) http2: bool,
    pub(super) defaults: Defaults,
    pub(super) way: Way,
    /// A key that would decide how targets are reached, and which this release does not follow.
    pub(super) unsupported: Option<&'static str>,
    pub(super) follow_redirects: bool,
    /// Whether somebody else than the operator says what its targets are.
    pub(super) is_foreign: bool,
    /// What its targets may not be.
    pub(super) guarded: Guarded,
    /// By which module targets are probed, if they are not scraped.
    pub(super) probe: Option<(Arc<Probes>, String)>,
    /// Groups that are there from the start.
    pub(super) statics: Vec<TargetGroup>,
    /// Where others are found.
    pub(super) discovery: Vec<Arc<dyn Discovery>>,
    pub(super) failures: Option<FailureLog>,
    /// Which all targets share; made when the first is scraped.
    pub(super) made: Mutex<Option<Made>>,
    pub(super) state: Mutex<State>,
}

/// By which targets are reached, by what they may not be; each is made when it is needed first.
#[derive(Debug, Default)]
pub(super) struct Clients {
    direct: OnceLock<reqwest::Client>,
    /// For hosts that somebody else named.
    guarded: OnceLock<reqwest::Client>,
}

#[derive(Debug)]
pub(super) struct Made {
    clients: Arc<Clients>,
    /// What the files of TLS held then.
    print: Option<u64>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// Discovered labels of what the rules let go, as many as are kept.
    dropped: Vec<Labels>,
    dropped_count: usize,
    /// Why no target is scraped.
    forced: Option<String>,
}

impl Default for Pool {
    fn default() -> Self {
        let asked = protocols(None, false).unwrap_or_default();
        Self {
            job: String::new(),
            print: 0,
            relabel: Vec::new(),
            metric_relabel: Vec::new(),
            honor_labels: false,
            ignore_timestamps: false,
            track_timestamps_staleness: false,
            extra_metrics: false,
            limits: Limits::default(),
            histograms: Wanted::default(),
            accept: accept(&asked, "allow-utf-8"),
            fallback: None,
            gzip: true,
            http2: true,
            defaults: Defaults::default(),
            way: Way::default(),
            unsupported: None,
            follow_redirects: false,
            is_foreign: false,
            guarded: Guarded::Nothing,
            probe: None,
            statics: Vec::new(),
            discovery: Vec::new(),
            failures: None,
            made: Mutex::default(),
            state: Mutex::default(),
        }
    }
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
    /// Discovered labels of what the rules let go, as many as are kept, and how many there are.
    pub fn dropped(&self) -> (Vec<Labels>, usize) {
        let state = self.lock();
        (state.dropped.clone(), state.dropped_count)
    }

    /// Why no target of the pool is scraped, if none is.
    pub(super) fn forced(&self) -> Option<String> {
        self.lock().forced.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// By which the targets are reached; made anew when files of TLS change. Each request has a timeout of its own.
    pub(super) async fn clients(&self) -> Result<Arc<Clients>, String> {
        if let Some(key) = self.unsupported {
            return Err(format!("{key} of the scrape config is not supported by this release"));
        }
        let print = self.way.tls_print().await;
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = made.as_ref().filter(|made| made.print == print) {
            return Ok(Arc::clone(&made.clients));
        }
        let clients = Arc::<Clients>::default();
        *made = Some(Made { clients: Arc::clone(&clients), print });
        Ok(clients)
    }

    /// The client for hosts that may not be these: those of a pool are guarded more or less, never in three ways.
    pub(super) fn client<'c>(
        &self,
        clients: &'c Clients,
        guarded: Guarded,
    ) -> Result<&'c reqwest::Client, String> {
        let place = if guarded == Guarded::Nothing { &clients.direct } else { &clients.guarded };
        if let Some(client) = place.get() {
            return Ok(client);
        }
        let client = self.way.client(ClientOptions {
            redirects: Redirects::None,
            timeout: self.defaults.timeout.max(CONNECT_TIMEOUT_MIN),
            gzip: self.gzip,
            http2: self.http2,
            guarded,
        })?;
        Ok(place.get_or_init(|| client))
    }

    /// The targets of these groups, and what is wrong with others. Equal ones are one. If there are more than there may be,
    /// none is scraped.
    pub(super) fn targets_of(self: &Arc<Self>, groups: &[TargetGroup]) -> (Vec<Target>, Vec<String>) {
        let all = groups.iter().flat_map(|group| group.targets.iter().map(|target| (target, &group.labels)));
        let discovered = all.map(|(target, of_group)| self.discovered(target, of_group)).collect();
        let (targets, failures) = self.targets(discovered);
        let (limit, count) = (self.limits.targets, targets.len());
        let is_over = limit > 0 && count > limit;
        self.lock().forced =
            is_over.then(|| format!("target_limit exceeded (number of targets: {count}, limit: {limit})"));
        (targets, failures)
    }

    /// The targets among what was discovered, and what is wrong with others. Equal ones are one.
    fn targets(self: &Arc<Self>, discovered: Vec<Labels>) -> (Vec<Target>, Vec<String>) {
        let (mut targets, mut failures, mut dropped) = (Vec::new(), Vec::new(), Vec::new());
        let (mut dropped_count, kept) = (0, self.limits.dropped);
        let mut known = HashSet::new();
        for labels in discovered {
            match self.target(&labels) {
                Ok(Some(target)) => {
                    if known.insert((target.labels.clone(), target.source.to_string())) {
                        targets.push(target);
                    }
                }
                Ok(None) => {
                    dropped_count += 1;
                    if kept == 0 || dropped.len() < kept {
                        dropped.push(labels);
                    }
                }
                Err(reason) => failures.push(format!("target {:?}: {reason}", labels.value(ADDRESS))),
            }
        }
        let mut state = self.lock();
        (state.dropped, state.dropped_count) = (dropped, dropped_count);
        drop(state);
        (targets, failures)
    }

    /// Labels of a discovered target, before any rule.
    fn discovered(&self, target: &Labels, of_group: &Labels) -> Labels {
        let mut labels = target.clone();
        for label in of_group {
            if target.get(&label.name).is_none() {
                labels = labels.with(&label.name, &label.value);
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
        if self.probe.is_none() {
            check_address(&address)?;
        }
        let interval = span(&labels, INTERVAL, "scrape interval")?;
        let timeout = span(&labels, TIMEOUT, "scrape timeout")?;
        if timeout > interval {
            let (timeout, interval) = (format_duration(timeout), format_duration(interval));
            return Err(format!(
                "scrape timeout cannot be greater than scrape interval ({timeout:?} > {interval:?})"
            ));
        }
        let mut labels = labels.filtered(|label| !label.name.starts_with(META));
        let (source, instance) = match &self.probe {
            None => (PageSource::Http(self.url(&address, &labels)?), address),
            Some((probes, module)) => {
                // Rules that were written for blackbox exporter name target and module as parameters.
                let named = |label: &str, or: &str| {
                    Some(labels.value(label)).filter(|text| !text.is_empty()).unwrap_or(or).to_owned()
                };
                let target = named(PROBED_TARGET, &address);
                let by = named(PROBED_BY, module);
                if self.is_foreign && by != *module {
                    return Err(format!("rules may not choose another module than {module:?}"));
                }
                let mut probe = probes.probe(&by, &target)?;
                probe.guarded = self.guarded;
                (PageSource::Probe(probe), target)
            }
        };
        if labels.get(INSTANCE).is_none() {
            labels = labels.with(INSTANCE, &instance);
        }
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
