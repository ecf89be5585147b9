//! `alertmanager.yml`: every file that Alertmanager 0.33 takes is taken, and what it refuses is refused with the place.
//!
//! ```text
//! global ───► what receivers take where they say nothing      http: http_config, secrets, URLs
//! receivers ► sections with their keys ─► checks ─► integrations
//! route ────► the tree, by matchers                           intervals: when a route is mute
//! inhibit_rules ► who keeps whom silent
//! ```

mod global;
mod http;
mod inhibit;
mod intervals;
mod matchers;
mod receivers;
mod route;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use binnacle_model::yaml::null_is_default;
use binnacle_model::{Labels, Timestamp};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_saphyr::Spanned;

use global::RawGlobal;
use inhibit::RawInhibit;
use intervals::{Interval, RawNamed};
use receivers::{Checker, RawReceiver};
use route::{Known, RawRoute, tree};

use crate::FileError;
use crate::template::Notifications;

pub(super) use http::{Http, check_url};
pub(super) use inhibit::Inhibit;
pub use matchers::parse_matchers;
pub(super) use receivers::{Integration, What};
pub(super) use route::{GroupBy, Route};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    #[serde(default)]
    global: Option<Spanned<RawGlobal>>,
    #[serde(default)]
    route: Option<Spanned<RawRoute>>,
    #[serde(default, deserialize_with = "null_is_default")]
    receivers: Vec<Spanned<RawReceiver>>,
    #[serde(default, deserialize_with = "null_is_default")]
    inhibit_rules: Vec<Spanned<RawInhibit>>,
    #[serde(default, deserialize_with = "null_is_default")]
    templates: Vec<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    mute_time_intervals: Vec<Spanned<RawNamed>>,
    #[serde(default, deserialize_with = "null_is_default")]
    time_intervals: Vec<Spanned<RawNamed>>,
    tracing: Option<IgnoredAny>,
}

/// A configuration that can be used.
#[derive(Debug, Clone)]
pub struct AlertmanagerConfig {
    pub(super) root: Route,
    pub(super) receivers: BTreeMap<String, Vec<Integration>>,
    pub(super) inhibit: Vec<Inhibit>,
    pub(super) intervals: BTreeMap<String, Vec<Interval>>,
    /// An alert that names no end ends when it was not heard of for this long.
    pub resolve_timeout: Duration,
    /// Patterns of files with templates, relative to the file's folder.
    pub templates: Vec<String>,
    /// Ours, and those of the files once they are read.
    pub notifications: Notifications,
    /// Parts of the file that change nothing in this release.
    pub warnings: Vec<String>,
}

/// Reads a configuration. Files that it names are relative to its own folder.
pub fn parse_alertmanager(file: &str, text: &str) -> Result<AlertmanagerConfig, FileError> {
    let raw: RawConfig = serde_saphyr::from_str(text).map_err(|error| FileError::yaml(file, &error))?;
    let dir = Path::new(file).parent().unwrap_or_else(|| Path::new(""));
    let mut warnings = Vec::new();
    if raw.tracing.is_some() {
        warnings.push(format!("{file}: tracing is not used by this release"));
    }
    let place = raw.global.as_ref().map(|global| global.referenced);
    let at_global = |reason: String| match &place {
        Some(place) => FileError::at(file, place, format!("global: {reason}")),
        None => FileError { file: file.to_owned(), line: 0, column: 0, reason },
    };
    let mut global = raw.global.map(|global| global.value).unwrap_or_default();
    global.check().map_err(at_global)?;
    let http = match global.http_config.take() {
        Some(http) => {
            let (http, unknown) =
                http.check(dir).map_err(|reason| at_global(format!("http_config: {reason}")))?;
            let unknown = unknown
                .map(|key| format!("{file}: global.http_config.{key} is not followed by this release"));
            warnings.extend(unknown);
            http
        }
        None => Http::default(),
    };
    let mut checker = Checker { file, dir, global: &global, http, warnings };
    let mut receivers = BTreeMap::new();
    for receiver in raw.receivers {
        let place = receiver.referenced;
        let (name, integrations) = checker.check(receiver.value)?;
        if receivers.contains_key(&name) {
            let reason = format!("notification config name {name:?} is not unique");
            return Err(FileError::at(file, &place, reason));
        }
        receivers.insert(name, integrations);
    }
    let warnings = checker.warnings;
    let intervals = named_intervals(file, raw.mute_time_intervals, raw.time_intervals)?;
    let known = Known {
        file,
        receivers: &|name| receivers.contains_key(name),
        intervals: &|name| intervals.contains_key(name),
    };
    let root = tree(&known, raw.route)?;
    let inhibit =
        raw.inhibit_rules.into_iter().map(|rule| RawInhibit::check(rule, file)).collect::<Result<_, _>>()?;
    Ok(AlertmanagerConfig {
        root,
        receivers,
        inhibit,
        intervals,
        resolve_timeout: global.resolve_timeout.unwrap_or(Duration::from_mins(5)),
        templates: raw.templates,
        notifications: Notifications::default(),
        warnings,
    })
}

fn named_intervals(
    file: &str,
    mute: Vec<Spanned<RawNamed>>,
    others: Vec<Spanned<RawNamed>>,
) -> Result<BTreeMap<String, Vec<Interval>>, FileError> {
    let mut found = BTreeMap::new();
    for named in mute.into_iter().chain(others) {
        let place = named.referenced;
        let refuse = |reason: String| FileError::at(file, &place, reason);
        let name = named.value.name.filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| refuse("missing name in time interval".to_owned()))?;
        let mut parts = Vec::new();
        for part in named.value.time_intervals.unwrap_or_default() {
            parts.push(part.check().map_err(|reason| refuse(format!("time interval {name:?}: {reason}")))?);
        }
        if found.contains_key(&name) {
            return Err(refuse(format!("time interval {name:?} is not unique")));
        }
        found.insert(name, parts);
    }
    Ok(found)
}

impl Default for AlertmanagerConfig {
    /// One receiver, by whom nobody is told.
    fn default() -> Self {
        let config =
            parse_alertmanager("default", "{route: {receiver: nobody}, receivers: [{name: nobody}]}");
        config.expect("a test reads it")
    }
}

impl AlertmanagerConfig {
    /// Names of all receivers.
    pub fn receiver_names(&self) -> impl Iterator<Item = &str> {
        self.receivers.keys().map(String::as_str)
    }

    /// The receivers that hear of an alert with these labels.
    pub fn receivers_of(&self, labels: &Labels) -> Vec<String> {
        let mut found = Vec::new();
        self.root.matching(labels, &mut found);
        found.iter().map(|route| route.receiver.clone()).collect()
    }

    /// Whether a route is silent now, by its intervals.
    pub(super) fn is_muted(&self, mute_in: &[String], active_in: &[String], now: Timestamp) -> bool {
        let is_in = |names: &[String]| {
            names.iter().filter_map(|name| self.intervals.get(name)).flatten().any(|part| part.contains(now))
        };
        is_in(mute_in) || (!active_in.is_empty() && !is_in(active_in))
    }

    /// The integration that the database calls by this address.
    pub(super) fn integration(&self, address: &str) -> Option<&Integration> {
        // A receiver's name may have slashes.
        let mut parts = address.rsplitn(3, '/');
        let number: usize = parts.next()?.parse().ok()?;
        let kind = parts.next()?;
        let integrations = self.receivers.get(parts.next()?)?;
        integrations.iter().find(|one| one.kind == kind && one.number == number)
    }
}

#[cfg(test)]
mod tests;
