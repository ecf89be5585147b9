//! One discoverer for many scrape configs that look for the same: one client and its watches, whoever asks.
//!
//! It begins with the first that asks, and ends when nobody has the discovery any more. Whoever comes later hears at once
//! what there is.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::{Context, Discoverer, Discovery, Running, TargetGroup, To, Updates};

/// A discovery that runs once.
#[derive(Debug)]
pub(crate) struct SharedDiscovery {
    inner: Arc<dyn Discovery>,
    hub: Arc<Hub>,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// Ends the discoverer.
    _guard: DropGuard,
}

/// What was found, and who hears of it.
#[derive(Debug, Default)]
pub(super) struct Hub(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    is_running: bool,
    has_answered: bool,
    by_source: BTreeMap<String, TargetGroup>,
    listeners: Vec<(CancellationToken, Updates)>,
}

impl SharedDiscovery {
    /// A discoverer of `inner` will run on `tasks`, until `stop` fires at the latest.
    pub(crate) fn new(inner: Arc<dyn Discovery>, tasks: &TaskTracker, stop: &CancellationToken) -> Self {
        let stop = stop.child_token();
        let guard = stop.clone().drop_guard();
        Self { inner, hub: Arc::default(), tasks: tasks.clone(), stop, _guard: guard }
    }
}

/// Discoverers that run, by what they find.
#[derive(Debug, Default)]
pub(crate) struct Sharing(Mutex<HashMap<String, Weak<SharedDiscovery>>>);

impl Sharing {
    /// The one that finds the same as `discovery`, if it may be shared: it runs as long as somebody has it, on `tasks`.
    pub(crate) fn of(
        &self,
        discovery: &Arc<dyn Discovery>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Arc<dyn Discovery> {
        let Some(print) = discovery.print() else { return Arc::clone(discovery) };
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = running.get(&print).and_then(Weak::upgrade) {
            return known;
        }
        running.retain(|_, one| one.strong_count() > 0);
        let new = Arc::new(SharedDiscovery::new(Arc::clone(discovery), tasks, stop));
        running.insert(print, Arc::downgrade(&new));
        new
    }
}

impl Discovery for SharedDiscovery {
    fn discoverer(&self, context: &Context) -> Box<dyn Discoverer> {
        let is_first = !std::mem::replace(&mut self.hub.lock().is_running, true);
        if is_first {
            let to_all = Updates(To::Many(Arc::clone(&self.hub)));
            self.tasks.spawn(self.inner.discoverer(context).run(to_all, self.stop.clone()));
        }
        Box::new(Listener(Arc::clone(&self.hub)))
    }
}

/// Hears of what another one finds.
#[derive(Debug)]
struct Listener(Arc<Hub>);

impl Discoverer for Listener {
    fn run(self: Box<Self>, found: Updates, stop: CancellationToken) -> Running {
        self.0.listen(found, stop.clone());
        Box::pin(async move {
            stop.cancelled().await;
            self.0.lock().listeners.retain(|(stop, _)| !stop.is_cancelled());
        })
    }
}

impl Hub {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listen(&self, found: Updates, stop: CancellationToken) {
        let mut state = self.lock();
        if state.has_answered {
            found.set(state.by_source.values().cloned().collect());
        }
        state.listeners.push((stop, found));
    }

    /// As [`Updates::set`]. All hear the same in the same order; who is told takes a moment.
    pub(super) fn set(&self, groups: Vec<TargetGroup>) {
        let mut state = self.lock();
        let is_first = !std::mem::replace(&mut state.has_answered, true);
        let mut changed = Vec::with_capacity(groups.len());
        for group in groups {
            let known = state.by_source.get(&group.source);
            if group.targets.is_empty() {
                if state.by_source.remove(&group.source).is_some() {
                    changed.push(group);
                }
            } else if known != Some(&group) {
                state.by_source.insert(group.source.clone(), group.clone());
                changed.push(group);
            }
        }
        if is_first || !changed.is_empty() {
            state.listeners.iter().for_each(|(_, found)| found.set(changed.clone()));
        }
    }

    pub(super) fn sources(&self) -> Vec<String> {
        self.lock().by_source.keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use binnacle_model::Labels;
    use tokio::sync::watch;

    use super::super::{ADDRESS, Found};
    use super::*;
    use crate::kubernetes::{KubernetesTelemetry, Share};

    /// Says what it is told, and counts how often it was started and how often it runs.
    #[derive(Debug, Clone)]
    struct Told {
        print: Option<String>,
        groups: watch::Receiver<Vec<TargetGroup>>,
        runs: Arc<Mutex<(usize, usize)>>,
    }

    impl Discovery for Told {
        fn discoverer(&self, _: &Context) -> Box<dyn Discoverer> {
            Box::new(self.clone())
        }

        fn print(&self) -> Option<String> {
            self.print.clone()
        }
    }

    impl Discoverer for Told {
        fn run(mut self: Box<Self>, found: Updates, stop: CancellationToken) -> Running {
            Box::pin(async move {
                {
                    let mut runs = self.runs.lock().unwrap();
                    *runs = (runs.0 + 1, runs.1 + 1);
                }
                loop {
                    found.replace(self.groups.borrow_and_update().clone());
                    tokio::select! {
                        () = stop.cancelled() => break,
                        changed = self.groups.changed() => changed.unwrap(),
                    }
                }
                self.runs.lock().unwrap().1 -= 1;
            })
        }
    }

    fn group(source: &str) -> TargetGroup {
        let targets = vec![Labels::default().with(ADDRESS, source)];
        TargetGroup { source: source.to_owned(), targets, ..TargetGroup::default() }
    }

    fn sources(found: &Found) -> Vec<String> {
        found.groups().into_iter().map(|group| group.source).collect()
    }

    #[tokio::test]
    async fn many_hear_what_one_finds_and_it_ends_with_the_last() {
        let (say, groups) = watch::channel(vec![group("a"), group("b")]);
        let runs = Arc::<Mutex<(usize, usize)>>::default();
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let told = Told { print: None, groups, runs: Arc::clone(&runs) };
        let shared = Arc::new(SharedDiscovery::new(Arc::new(told), &tasks, &stop));
        let context = Context { share: Share::All, kubernetes: KubernetesTelemetry::default() };
        let listen = |shared: &SharedDiscovery| {
            let (found, stop) = (Arc::new(Found::new(&[], 1)), CancellationToken::new());
            tasks.spawn(shared.discoverer(&context).run(Updates::new(Arc::clone(&found), 0), stop.clone()));
            (found, stop)
        };
        let (first, first_stop) = listen(&shared);
        first.changed().await;
        let (second, _) = listen(&shared);
        assert!(second.is_complete(), "who comes later hears at once");
        assert_eq!(
            (sources(&first), sources(&second)),
            (vec!["a".to_owned(), "b".to_owned()], sources(&first))
        );
        first_stop.cancel();
        say.send_replace(vec![group("b"), group("c")]);
        while sources(&second) != ["b", "c"] {
            second.changed().await;
        }
        assert_eq!(*runs.lock().unwrap(), (1, 1));
        drop(shared);
        tasks.close();
        while runs.lock().unwrap().1 > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(*runs.lock().unwrap(), (1, 0));
    }

    #[test]
    fn equal_sections_share_and_others_do_not() {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let groups = watch::channel(Vec::new()).1;
        let sharing = Sharing::default();
        let of = |print: Option<&str>| {
            let told = Told { print: print.map(str::to_owned), groups: groups.clone(), runs: Arc::default() };
            let told: Arc<dyn Discovery> = Arc::new(told);
            sharing.of(&told, &tasks, &stop)
        };
        let (a, again, b) = (of(Some("a")), of(Some("a")), of(Some("b")));
        assert!(Arc::ptr_eq(&a, &again) && !Arc::ptr_eq(&a, &b));
        assert!(!Arc::ptr_eq(&of(None), &of(None)));
        drop((a, again));
        let _new = of(Some("a"));
        assert_eq!(sharing.0.lock().unwrap().len(), 2, "one that ended takes no place");
    }
}
