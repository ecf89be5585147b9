//! Scraping: a loop per target, from a page to samples.
//!
//! ```text
//! scrape config ─► Pool ─► Runner: discovery ─► discovered labels ─► relabel_configs ─► targets ─► a loop each
//!
//! loop ─► fetch (deadline, bounded body) ─► Reader: whole page or nothing ─► append
//!            │                                └ Known: lines of the last page, recognised by their bytes
//!            └ up, scrape_duration_seconds, …, and a staleness marker for each series that is gone
//! ```
//!
//! Follows `scrape/scrape.go`, `target.go` and `manager.go` of Prometheus 3.5 in what is stored and when.
//!
//! Invariants:
//! - A page is taken as a whole or not at all; what is wrong with it is shown at `/api/v1/targets`.
//! - All samples of a scrape have the moment at which it began, unless the page says their own.
//! - A series that was there in the scrape before, and is not now, ends with a staleness marker; so do all of them when a
//!   scrape fails, or its target is gone. Not when the process stops: it comes back.
//! - A target that hangs costs its own scrapes and nobody else's.

mod account;
mod config;
mod failures;
mod fetch;
mod known;
mod labels;
mod life;
mod limits;
mod manager;
mod page;
mod pool;
mod presets;
mod protocol;
mod run;
mod target;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use binnacle_model::storage::Appender;
use binnacle_model::time::Clock;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use config::Size;
pub use config::{Global, ScrapeConfig, Section};
use manager::{Engine, Runner};
pub use pool::Pool;
pub use presets::preset;
use run::Tools;
pub use target::{Described, Health, PageSource, Target, TargetStatus};

use crate::Telemetry;
use crate::bounds::Bounds;
use crate::discovery::Context;
use crate::kubernetes::Share;

/// All targets and their loops.
pub struct Scraper {
    /// Targets that no configuration names.
    fixed: Vec<Arc<Target>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Of the configuration; ascending by job.
    runners: Vec<Arc<Runner>>,
    /// Of what others say; ascending by job, none of which the configuration has.
    monitored: Vec<Arc<Runner>>,
    /// All that others say, also where the configuration has a job of that name.
    said: Vec<Arc<Pool>>,
    /// Jobs of these that the configuration has.
    refused: BTreeSet<String>,
    /// Once it was started.
    engine: Option<Engine>,
}

impl Scraper {
    /// A scraper of `fixed` targets, which are always there, and of scrape configs; nothing happens before [`Self::start`].
    pub fn new(fixed: Vec<Target>, pools: Vec<Arc<Pool>>) -> Arc<Self> {
        let mut runners: Vec<Arc<Runner>> = pools.into_iter().map(Runner::new).collect();
        runners.sort_by(|a, b| a.pool.job.cmp(&b.pool.job));
        let fixed = fixed.into_iter().map(Arc::new).collect();
        Arc::new(Self { fixed, state: Mutex::new(State { runners, ..State::default() }) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The targets there are now, for whoever shows them.
    pub fn targets(&self) -> Vec<Arc<Target>> {
        let of_configs: Vec<Arc<Target>> = self.lock().all().flat_map(|one| one.targets()).collect();
        of_configs.into_iter().chain(self.fixed.iter().cloned()).collect()
    }

    /// The scrape configs, ascending by job, each once.
    pub fn pools(&self) -> Vec<Arc<Pool>> {
        let mut pools: Vec<Arc<Pool>> = self.lock().all().map(|one| Arc::clone(&one.pool)).collect();
        for target in &self.fixed {
            if pools.iter().all(|pool| pool.job != target.pool.job) {
                pools.push(Arc::clone(&target.pool));
            }
        }
        pools.sort_by(|a, b| a.job.cmp(&b.job));
        pools
    }

    /// Starts discovery and a loop per target that `share` gives this agent on `tasks`, within `bounds`; each ends after its scrape under way
    /// once `stop` fires.
    pub fn start(
        &self,
        appender: &Arc<dyn Appender>,
        clock: &Arc<dyn Clock>,
        telemetry: &Telemetry,
        share: Share,
        bounds: &Arc<Bounds>,
        (tasks, stop): (&TaskTracker, &CancellationToken),
    ) {
        let context = Context { share, kubernetes: telemetry.kubernetes.clone() };
        let tools = Tools {
            appender: Arc::clone(appender),
            clock: Arc::clone(clock),
            telemetry: telemetry.clone(),
            descriptions: Arc::default(),
            bounds: Arc::clone(bounds),
        };
        let sharing = Arc::default();
        let engine = Engine { tools, context, sharing, tasks: tasks.clone(), stop: stop.clone() };
        self.fixed.iter().for_each(|target| engine.start_fixed(target));
        let mut state = self.lock();
        state.runners.iter().for_each(|runner| runner.start(&engine, None));
        state.engine = Some(engine);
    }

    /// Goes on with these scrape configs. One with the print of one that runs is left alone; a target of a config that
    /// changed goes on with what is known of its series; those of a config that is gone end as if discovery had lost them.
    pub fn reload(&self, pools: Vec<Arc<Pool>>) {
        let mut state = self.lock();
        let Some(engine) = state.engine.clone() else { return };
        replace(&mut state.runners, pools, &engine);
        state.follow(&engine);
    }

    /// As [`Self::reload`], for scrape configs that others say: neither takes away what the other has. Of a job of the
    /// configuration none of these is taken; each of which that is new is said.
    pub fn set_monitored(&self, pools: Vec<Arc<Pool>>) {
        let mut state = self.lock();
        let Some(engine) = state.engine.clone() else { return };
        state.said = pools;
        state.follow(&engine);
    }
}

impl State {
    fn all(&self) -> impl Iterator<Item = &Arc<Runner>> {
        self.runners.iter().chain(&self.monitored)
    }

    /// Brings what others say up to date.
    fn follow(&mut self, engine: &Engine) {
        let is_ours = |pool: &Pool| self.runners.binary_search_by(|one| one.pool.job.cmp(&pool.job)).is_ok();
        let (refused, wanted): (Vec<Arc<Pool>>, Vec<Arc<Pool>>) =
            self.said.iter().cloned().partition(|pool| is_ours(pool));
        let refused: BTreeSet<String> = refused.iter().map(|pool| pool.job.clone()).collect();
        for job in refused.difference(&self.refused) {
            tracing::warn!(job, "the configuration has a job of this name, which is scraped instead");
        }
        self.refused = refused;
        replace(&mut self.monitored, wanted, engine);
    }
}

/// Goes on with these scrape configs in the place of those before.
fn replace(runners: &mut Vec<Arc<Runner>>, pools: Vec<Arc<Pool>>, engine: &Engine) {
    let before = std::mem::take(runners);
    let mut before: HashMap<String, Arc<Runner>> =
        before.into_iter().map(|one| (one.pool.job.clone(), one)).collect();
    for pool in pools {
        let old = before.remove(&pool.job);
        if let Some(same) = old.as_ref().filter(|old| old.pool.print == pool.print) {
            runners.push(Arc::clone(same));
            continue;
        }
        let runner = Runner::new(pool);
        runner.start(engine, old.as_deref());
        runners.push(runner);
    }
    before.values().for_each(|gone| gone.retire());
    runners.sort_by(|a, b| a.pool.job.cmp(&b.pool.job));
}
