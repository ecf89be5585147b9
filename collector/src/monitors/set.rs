//! The monitors there are, and the scrape configs that they come to.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::assets::{AssetRef, Assets};
use super::config::MonitorOptions;
use super::telemetry::MonitorTelemetry;
use super::translate::{Beside, Config, translate};
use super::{Defaults, Kind};
use crate::discovery::{Discovery, RawKubernetesSd, SharedDiscovery};
use crate::kubernetes::Access;
use crate::kubernetes::watch::Key;
use crate::scrape::{Pool, ScrapeConfig, Section};
use binnacle_outgoing::Guarded;

/// Monitors, and scrape configs of all of them: each is a few tasks.
const MONITORS_MAX: usize = 5_000;
const POOLS_MAX: usize = 10_000;

/// Bytes of one scrape config, with what its Secrets hold.
const CONFIG_MAX_BYTES: usize = 4 * 1024 * 1024;

/// A monitor, of whichever kind.
pub(super) type Name = (Kind, Key);

/// A monitor as the API has it.
#[derive(Debug, Clone)]
pub(super) struct Object {
    pub(super) meta: Arc<ObjectMeta>,
    pub(super) spec: Arc<Value>,
}

/// A scrape config, and what was said of it when it was checked.
type Checked = (Arc<Pool>, Vec<String>);

/// A monitor, and what it came to.
#[derive(Debug)]
struct Known {
    object: Object,
    pools: Vec<Checked>,
    asked: BTreeSet<AssetRef>,
    /// What is wrong with it, or empty.
    reason: String,
}

/// All monitors.
pub(super) struct Set {
    known: BTreeMap<Name, Known>,
    /// Those that are to be looked at anew.
    dirty: BTreeSet<Name>,
    /// Whether some are gone since the last look.
    has_lost: bool,
    pub(super) assets: Assets,
    shared: HashMap<String, Weak<SharedDiscovery>>,
    options: MonitorOptions,
    kubeconfig: Option<PathBuf>,
    telemetry: MonitorTelemetry,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Set {
    pub(super) fn new(
        options: MonitorOptions,
        access: &Access,
        telemetry: &MonitorTelemetry,
        (tasks, stop): (&TaskTracker, &CancellationToken),
    ) -> Self {
        let kubeconfig = match access {
            Access::Kubeconfig(path) => Some(std::path::absolute(path).unwrap_or_else(|_| path.clone())),
            Access::InCluster | Access::Server(_) => None,
        };
        Self {
            known: BTreeMap::new(),
            dirty: BTreeSet::new(),
            has_lost: false,
            assets: Assets::default(),
            shared: HashMap::new(),
            options,
            kubeconfig,
            telemetry: telemetry.clone(),
            tasks: tasks.clone(),
            stop: stop.clone(),
        }
    }

    /// A monitor is there, or is gone.
    pub(super) fn note(&mut self, name: Name, object: Option<Object>) {
        let Some(object) = object else {
            self.has_lost |= self.known.remove(&name).is_some();
            self.dirty.remove(&name);
            return;
        };
        self.dirty.insert(name.clone());
        if let Some(known) = self.known.get_mut(&name) {
            known.object = object;
        } else {
            let (pools, asked, reason) = (Vec::new(), BTreeSet::new(), String::new());
            self.known.insert(name, Known { object, pools, asked, reason });
        }
    }

    /// These values are others than before.
    pub(super) fn values_changed(&mut self, changed: &BTreeSet<AssetRef>) {
        let affected = self.known.iter().filter(|(_, known)| !known.asked.is_disjoint(changed));
        self.dirty.extend(affected.map(|(name, _)| name.clone()));
    }

    /// All are to be looked at anew.
    pub(super) fn all_changed(&mut self) {
        self.dirty.extend(self.known.keys().cloned());
    }

    /// Whether there is anything to do.
    pub(super) fn has_changed(&self) -> bool {
        self.has_lost || !self.dirty.is_empty()
    }

    /// Values that monitors name.
    pub(super) fn asked(&self) -> BTreeSet<AssetRef> {
        self.known.values().flat_map(|known| known.asked.iter().cloned()).collect()
    }

    /// Values that those monitors name which are to be looked at, as far as they are not known.
    pub(super) fn unknown(&self) -> BTreeSet<AssetRef> {
        let mut asked = BTreeSet::new();
        for name in &self.dirty {
            if let Some(known) = self.known.get(name) {
                let of = self.translated(name.0, &known.object).1;
                asked.extend(of.into_iter().filter(|one| self.assets.get(one).is_none()));
            }
        }
        asked
    }

    /// The scrape configs of one, what it names, and what of it changes nothing.
    #[allow(clippy::type_complexity, reason = "three parts of one answer, taken apart at once")]
    fn translated(
        &self,
        kind: Kind,
        object: &Object,
    ) -> (Result<Vec<Config>, String>, BTreeSet<AssetRef>, Vec<String>) {
        let of = |text: &Option<String>| text.clone().unwrap_or_default();
        let (namespace, name) = (of(&object.meta.namespace), of(&object.meta.name));
        let beside = Beside {
            assets: &self.assets,
            files: &self.options.files,
            kubeconfig: self.kubeconfig.as_deref(),
            modules: self.options.modules.as_ref(),
        };
        let done = translate(kind, (&namespace, &name), &object.spec, beside);
        let configs = if done.waits { Err(WAITS.to_owned()) } else { done.configs };
        (configs, done.asked, done.warnings)
    }

    /// Looks at what changed. Answers the scrape configs of all.
    pub(super) fn pools(&mut self, defaults: &Defaults) -> Vec<Arc<Pool>> {
        let lost = std::mem::take(&mut self.has_lost);
        if lost {
            // There may be room for others.
            let full = self.known.iter().filter(|(_, known)| known.reason.starts_with(FULL));
            self.dirty.extend(full.map(|(name, _)| name.clone()).collect::<Vec<_>>());
        }
        for name in std::mem::take(&mut self.dirty) {
            self.look_at(&name, defaults);
        }
        let asked = self.asked();
        self.assets.retain(&asked);
        self.shared.retain(|_, one| one.strong_count() > 0);
        let all: Vec<Arc<Pool>> = self
            .known
            .values()
            .flat_map(|known| known.pools.iter().map(|(pool, _)| Arc::clone(pool)))
            .collect();
        for kind in Kind::ALL {
            let of_kind = self.known.iter().filter(|((of, _), _)| *of == kind);
            let (good, bad): (Vec<_>, Vec<_>) = of_kind.partition(|(_, known)| known.reason.is_empty());
            self.telemetry.count(kind, good.len(), bad.len());
        }
        self.telemetry.pools.set(i64::try_from(all.len()).unwrap_or(i64::MAX));
        self.telemetry.discoveries.set(i64::try_from(self.shared.len()).unwrap_or(i64::MAX));
        all
    }

    fn look_at(&mut self, name: &Name, defaults: &Defaults) {
        let Some(known) = self.known.get(name) else { return };
        let before = known.pools.clone();
        let object = known.object.clone();
        let (configs, asked, mut warnings) = self.translated(name.0, &object);
        let room = self.room_for(name);
        let made = room.and(configs).and_then(|configs| self.check(configs, &before, defaults));
        let (pools, reason) = match made {
            Ok(pools) => {
                warnings.extend(pools.iter().flat_map(|(_, said)| said.iter().cloned()));
                (pools, warnings.join("; "))
            }
            // What there is goes on until the API answers.
            Err(reason) if reason == WAITS => (before, reason),
            Err(reason) => (Vec::new(), reason),
        };
        let Some(known) = self.known.get_mut(name) else { return };
        (known.pools, known.asked) = (pools, asked);
        if known.reason != reason {
            let (kind, key) = (name.0.name(), &name.1);
            if reason.is_empty() {
                tracing::info!(kind, monitor = %key, "the monitor is as it should be again");
            } else {
                self.telemetry.refuse(name.0);
                let is_scraped = !known.pools.is_empty();
                tracing::warn!(kind, monitor = %key, is_scraped, reason, "something is wrong with the monitor");
            }
            known.reason = reason;
        }
    }

    fn room_for(&self, name: &Name) -> Result<(), String> {
        let others = self.known.iter().filter(|(other, known)| *other != name && !known.pools.is_empty());
        let (mut monitors, mut pools) = (0, 0);
        for (_, known) in others {
            (monitors, pools) = (monitors + 1, pools + known.pools.len());
        }
        if monitors >= MONITORS_MAX || pools >= POOLS_MAX {
            return Err(format!(
                "{FULL}: {MONITORS_MAX} monitors and {POOLS_MAX} scrape configs are the most that one agent takes"
            ));
        }
        Ok(())
    }

    /// The scrape configs, with those of before that are as they were.
    fn check(
        &mut self,
        configs: Vec<Config>,
        before: &[Checked],
        defaults: &Defaults,
    ) -> Result<Vec<Checked>, String> {
        let mut pools = Vec::with_capacity(configs.len());
        for config in configs {
            let text = config.value.to_string();
            if text.len() > CONFIG_MAX_BYTES {
                return Err(format!("{}: more than {CONFIG_MAX_BYTES} bytes with its Secrets", config.job));
            }
            let mut print = xxh3_64_with_seed(text.as_bytes(), defaults.print);
            if let Some(probes) = defaults.probes.as_ref().filter(|_| config.is_probe) {
                print ^= probes.print();
            }
            let same = before.iter().find(|(pool, _)| pool.job == config.job && pool.print == print);
            if let Some(same) = same {
                pools.push(same.clone());
                continue;
            }
            let section = self.section(config, print, defaults)?;
            pools.push((section.pool, section.warnings));
        }
        Ok(pools)
    }

    fn section(&mut self, config: Config, print: u64, defaults: &Defaults) -> Result<Section, String> {
        let mut value = config.value;
        let found = value.as_object_mut().and_then(|keys| keys.remove("kubernetes_sd_configs"));
        let mut discovery = Vec::new();
        for one in found.as_ref().and_then(Value::as_array).into_iter().flatten() {
            discovery.push(self.discovery(one)?);
        }
        let module = value["module"].as_str().unwrap_or_default().to_owned();
        // The error may repeat what is wrong, which is never what a Secret holds: that is text where text is wanted.
        let raw: ScrapeConfig =
            serde_json::from_value(value).map_err(|error| format!("{}: {error}", config.job))?;
        let guarded = if self.options.loopback { Guarded::Metadata } else { Guarded::Machine };
        let raw = raw.of_somebody(discovery, guarded);
        let dir = Path::new("/");
        match (&defaults.probes, config.is_probe) {
            (_, false) => raw.check(&defaults.global, dir, print),
            (Some(probes), true) => {
                if self.options.modules.is_none()
                    && let Some(what) = probes.sends(&module)
                {
                    return Err(format!(
                        "spec.module: {module:?} sends {what} to whatever a Probe names; list it in kubernetes.monitors.modules to allow that"
                    ));
                }
                raw.check_probe(&defaults.global, dir, print, probes)
            }
            (None, true) => {
                Err("spec.prober.url is empty, and there is no section `probes` with a module to probe by"
                    .to_owned())
            }
        }
    }

    /// One that others may have already.
    fn discovery(&mut self, config: &Value) -> Result<Arc<dyn Discovery>, String> {
        let text = config.to_string();
        if let Some(known) = self.shared.get(&text).and_then(Weak::upgrade) {
            return Ok(known);
        }
        let raw: RawKubernetesSd =
            serde_json::from_value(config.clone()).map_err(|error| error.to_string())?;
        let inner = raw.check(Path::new("/"))?;
        let new = Arc::new(SharedDiscovery::new(inner, &self.tasks, &self.stop));
        self.shared.insert(text, Arc::downgrade(&new));
        Ok(new)
    }
}

/// How the reason begins of those for which there is no room.
const FULL: &str = "too many monitors";

/// The reason of those whose Secrets could not be asked for.
const WAITS: &str = "its Secrets are not known: the API does not answer";
