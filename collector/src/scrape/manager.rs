//! The loops of a scrape config's targets, as discovery finds and loses them.
//!
//! ```text
//! Found ─ changed ─► relabel ─► targets ─┬─ new:   a loop
//!                                        ├─ known: goes on
//!                                        └─ gone:  its series end at its next scrape, unless it is back by then
//! ```

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use binnacle_model::Labels;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::life::Life;
use super::pool::Pool;
use super::run::{Memory, Run, Tools};
use super::target::Target;
use crate::discovery::{Context, Discovery, Found, Sharing, Updates};
use crate::kubernetes::Share;

/// Changes are taken together for so long: a source that says one thing after the other costs little.
const SETTLE: Duration = Duration::from_millis(500);

/// A config that takes the place of another waits so long for its discoverers to say what there is.
const TAKE_OVER: Duration = Duration::from_secs(10);

/// Names a target among those of its pool.
type Key = (Labels, String);

type Handle = JoinHandle<Option<Box<Memory>>>;

/// A target and its loop.
#[derive(Debug)]
struct Loop {
    target: Arc<Target>,
    life: Arc<Life>,
    handle: Handle,
}

/// What runs the loops.
#[derive(Clone)]
pub(super) struct Engine {
    pub(super) tools: Tools,
    /// Of which discoverers hear.
    pub(super) context: Context,
    /// Discoverers of several scrape configs.
    pub(super) sharing: Arc<Sharing>,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
}

impl Engine {
    /// A loop that goes on until the process stops.
    pub(super) fn start_fixed(&self, target: &Arc<Target>) {
        let run = Run::new(Arc::clone(target), self.tools.clone(), None);
        self.tasks.spawn(run.run(Arc::default(), self.stop.clone()));
    }
}

/// A scrape config that runs.
#[derive(Debug)]
pub(super) struct Runner {
    pub(super) pool: Arc<Pool>,
    found: Arc<Found>,
    loops: Mutex<Loops>,
    /// Ends discovery and the watching of it, but no loop.
    stop: CancellationToken,
}

#[derive(Debug, Default)]
struct Loops {
    by_key: HashMap<Key, Loop>,
    /// Targets that are gone, until their series have ended.
    leaving: HashMap<Key, Loop>,
    /// Loops of the config that this one took the place of.
    inherited: HashMap<Key, Loop>,
    /// What runs as long as somebody has it.
    discovery: Vec<Arc<dyn Discovery>>,
}

impl Runner {
    pub(super) fn new(pool: Arc<Pool>) -> Arc<Self> {
        let found = Arc::new(Found::new(&pool.statics, pool.discovery.len()));
        Arc::new(Self { pool, found, loops: Mutex::default(), stop: CancellationToken::new() })
    }

    /// The targets there are.
    pub(super) fn targets(&self) -> Vec<Arc<Target>> {
        let mut targets: Vec<Arc<Target>> =
            self.lock().by_key.values().map(|one| Arc::clone(&one.target)).collect();
        targets.sort_by_cached_key(|target| target.key());
        targets
    }

    fn lock(&self) -> MutexGuard<'_, Loops> {
        self.loops.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts discovery and the loops of what is there already; `before` is the runner of whose place this one takes.
    pub(super) fn start(self: &Arc<Self>, engine: &Engine, before: Option<&Self>) {
        if let Some(before) = before {
            before.stop.cancel();
            let mut of_before = before.lock();
            let all = std::mem::take(&mut of_before.by_key);
            of_before.leaving.values().for_each(|one| one.life.end_at_once());
            all.values().for_each(|one| one.life.end_at_once());
            self.lock().inherited = all;
        }
        for (at, discovery) in self.pool.discovery.iter().enumerate() {
            let updates = Updates::new(Arc::clone(&self.found), at);
            let stop = self.stop.clone();
            let discovery = engine.sharing.of(discovery, &engine.tasks, &engine.stop);
            let running = discovery.discoverer(&engine.context).run(updates, stop.clone());
            engine.tasks.spawn(running);
            self.lock().discovery.push(discovery);
        }
        let stopped = engine.stop.clone();
        let own = self.stop.clone();
        engine.tasks.spawn(async move {
            tokio::select! { () = stopped.cancelled() => own.cancel(), () = own.cancelled() => {} }
        });
        if self.found.is_complete() {
            self.sync(engine);
            self.bury(engine);
        }
        let share = engine.context.share.clone();
        if !self.pool.discovery.is_empty() || matches!(share, Share::Part { .. }) {
            engine.tasks.spawn(Arc::clone(self).watch(engine.clone(), share));
        }
    }

    /// Ends all loops, each when it would scrape next, with markers for its series.
    pub(super) fn retire(&self) {
        self.stop.cancel();
        self.lock().by_key.values().for_each(|one| one.life.leave());
    }

    async fn watch(self: Arc<Self>, engine: Engine, mut share: Share) {
        let until = Instant::now() + TAKE_OVER;
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                () = self.found.changed() => {}
                () = share.changed() => {}
                () = sleep_until(until), if !self.lock().inherited.is_empty() => {}
            }
            let is_settled = timeout(SETTLE, self.stop.cancelled()).await.is_err();
            if !is_settled {
                return;
            }
            let is_late = Instant::now() >= until;
            let waits = !self.lock().inherited.is_empty() && !self.found.is_complete() && !is_late;
            if waits {
                continue;
            }
            let me = Arc::clone(&self);
            let for_sync = engine.clone();
            // Thousands of targets are relabelled for a while.
            let synced = tokio::task::spawn_blocking(move || {
                me.sync(&for_sync);
                me.bury(&for_sync);
            });
            if let Err(error) = synced.await {
                tracing::error!(job = self.pool.job, %error, "targets were not brought up to date");
            }
        }
    }

    /// Starts and ends loops until they are those of what was found.
    fn sync(&self, engine: &Engine) {
        let (targets, failures) = self.pool.targets_of(&self.found.groups());
        for failure in failures {
            tracing::warn!(job = self.pool.job, "{failure}");
        }
        let mut loops = self.lock();
        loops.leaving.retain(|_, one| !one.handle.is_finished());
        let mut gone = std::mem::take(&mut loops.by_key);
        // Those of other agents, too: what they go on with has not ended.
        let labels: HashSet<Labels> = targets.iter().map(|target| target.labels.clone()).collect();
        let share = &engine.context.share;
        for target in targets.into_iter().filter(|target| share.takes(&target.discovered, &target.source)) {
            let key = target.key();
            let known = gone.remove(&key);
            let back = || loops_back(&mut loops.leaving, &key);
            let one = if let Some(one) = known.or_else(back) {
                one
            } else {
                let inherited = loops.inherited.remove(&key).map(|one| one.handle);
                start(Arc::new(target), inherited, engine)
            };
            loops.by_key.insert(key, one);
        }
        for (key, one) in gone {
            if labels.contains(&one.target.labels) {
                // Its series go on, at another address.
                one.life.end_at_once();
            } else {
                one.life.leave();
                loops.leaving.insert(key, one);
            }
        }
    }

    /// Ends the series of inherited targets that this config does not have.
    fn bury(&self, engine: &Engine) {
        let mut loops = self.lock();
        let left = std::mem::take(&mut loops.inherited);
        let labels: HashSet<Labels> = loops.by_key.values().map(|one| one.target.labels.clone()).collect();
        drop(loops);
        for one in left.into_values().filter(|one| !labels.contains(&one.target.labels)) {
            let tools = engine.tools.clone();
            engine.tasks.spawn(async move {
                if let Ok(Some(memory)) = one.handle.await {
                    Run::new(one.target, tools, Some(memory)).leave().await;
                }
            });
        }
    }
}

/// The loop of a target that was gone and is back, if its series have not ended yet.
fn loops_back(leaving: &mut HashMap<Key, Loop>, key: &Key) -> Option<Loop> {
    let is_back = leaving.get(key).is_some_and(|one| !one.handle.is_finished() && one.life.come_back());
    if is_back { leaving.remove(key) } else { None }
}

/// A loop that goes on with what another one knew, once that one has ended.
fn start(target: Arc<Target>, inherited: Option<Handle>, engine: &Engine) -> Loop {
    let life = Arc::<Life>::default();
    let (tools, stop) = (engine.tools.clone(), engine.stop.clone());
    let (scraped, lives) = (Arc::clone(&target), Arc::clone(&life));
    let handle = engine.tasks.spawn(async move {
        let memory = match inherited {
            Some(handle) => handle.await.ok().flatten(),
            None => None,
        };
        Run::new(scraped, tools, memory).run(lives, stop).await
    });
    Loop { target, life, handle }
}
