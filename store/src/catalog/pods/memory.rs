//! All that is known of pods, in memory.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;

use binnacle_model::log::loki_name;
use binnacle_model::push::FileBatch;
use binnacle_model::storage::{POD_UID, PodGroup, PodMetadata, is_pod_name, is_pod_uid};
use binnacle_model::{Labels, LogTime};

/// Pods that are remembered. Those of which nothing is known go first, and those that were not seen for longest.
const PODS_MAX: usize = if cfg!(test) { 1000 } else { 1_000_000 };

/// Beyond [`PODS_MAX`], so that making room is seldom.
const SLACK: usize = PODS_MAX / 10;

/// A pod that is as it was is written down again after so many seconds.
const SEEN_AGAIN_SECONDS: i64 = 3600;

const NS_PER_HOUR: i64 = 3_600_000_000_000;

/// Pods that are looked at while others wait.
const AT_ONCE: usize = 4096;

/// Pods that one round of maintenance looks at.
const EXPIRED_AT_ONCE: usize = if cfg!(test) { 100 } else { 20_000 };

/// Different sets of own names that are kept once; with more, some are kept twice.
const SHARED_MAX: usize = 10_000;

/// See [`super`].
#[derive(Debug)]
pub(in crate::catalog) struct KnownPods {
    sets: HashMap<i64, Set>,
    numbers: HashMap<Labels, i64>,
    pods: BTreeMap<Arc<str>, Known>,
    owns: HashSet<Labels>,
    /// What the file does not have yet: pods that changed or went, and sets without pods.
    changed: BTreeSet<Arc<str>>,
    gone: BTreeSet<Arc<str>>,
    freed: Vec<i64>,
    /// Where the next round of expiry begins.
    next: Option<Arc<str>>,
    pub(super) generation: u64,
    pub(super) noted_from: i64,
}

#[derive(Debug)]
struct Set {
    labels: Labels,
    pods: usize,
}

/// A pod.
#[derive(Debug, Clone)]
pub(super) struct Known {
    /// Of its metadata; zero if there is none.
    pub(super) set: i64,
    /// When somebody last said something of it or a line came, in seconds; up to [`SEEN_AGAIN_SECONDS`] less.
    pub(super) seen: i64,
    pub(super) own: Own,
    /// Of its first and last line, since 1970.
    pub(super) hours: (i32, i32),
}

/// What the file does not have.
pub(super) struct Changes {
    /// Pods that went.
    pub(super) gone: Vec<Arc<str>>,
    pub(super) changed: Vec<(Arc<str>, Known)>,
    /// Sets without pods.
    pub(super) freed: Vec<i64>,
}

/// What a pod's lines say under names of metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Own {
    NoLines,
    Any,
    These(Labels),
}

/// What a batch of lines says of its pod.
pub(super) struct Noted<'b> {
    uid: &'b str,
    hours: (i32, i32),
    /// Ascending; `None` if single lines say something, too.
    own: Option<Vec<(&'b str, &'b str)>>,
}

/// A walk over pods.
pub(super) struct Page {
    hours: Option<(i64, i64)>,
    after: Option<Arc<str>>,
    places: HashMap<(i64, usize), usize>,
    pub(super) groups: Vec<PodGroup>,
}

impl Default for KnownPods {
    fn default() -> Self {
        Self {
            sets: HashMap::new(),
            numbers: HashMap::new(),
            pods: BTreeMap::new(),
            owns: HashSet::new(),
            changed: BTreeSet::new(),
            gone: BTreeSet::new(),
            freed: Vec::new(),
            next: None,
            generation: 0,
            noted_from: i64::MAX,
        }
    }
}

fn hour_of(time_ns: i64) -> i32 {
    // Three million hours are all that nanoseconds reach.
    time_ns.div_euclid(NS_PER_HOUR) as i32
}

impl<'b> Noted<'b> {
    pub(super) fn of(batch: &'b FileBatch) -> Option<Self> {
        let uid = &batch.stream.iter().find(|pair| pair.name == POD_UID)?.value;
        if !is_pod_uid(uid) {
            return None;
        }
        let times = || batch.entries.iter().map(|entry| entry.time_ns);
        let hours = (hour_of(times().min()?), hour_of(times().max()?));
        let names = batch.shared.iter().flat_map(|shared| &shared.fields);
        let mut names = names.chain(batch.entries.iter().flat_map(|entry| &entry.fields));
        let says = |name: &str| is_pod_name(name) || is_pod_name(&loki_name(name));
        if names.any(|field| says(&field.name)) {
            return Some(Self { uid, hours, own: None });
        }
        let pairs = batch.stream.iter().filter(|pair| is_pod_name(&pair.name) && !pair.value.is_empty());
        let mut own: Vec<(&str, &str)> = pairs.map(|pair| (&*pair.name, &*pair.value)).collect();
        own.sort_unstable();
        Some(Self { uid, hours, own: Some(own) })
    }

    fn says(&self, labels: &Labels) -> bool {
        let pairs = labels.iter().map(|label| (&*label.name, &*label.value));
        self.own.as_ref().is_some_and(|own| own.iter().copied().eq(pairs))
    }
}

impl Page {
    /// Over all pods, or those with lines in a span.
    pub(super) fn new(span: Option<(LogTime, LogTime)>) -> Self {
        let hours = span.map(|(start, end)| {
            let last = i64::from(hour_of(end.0.saturating_sub(1)));
            (i64::from(hour_of(start.0)), last)
        });
        Self { hours, after: None, places: HashMap::new(), groups: Vec::new() }
    }
}

impl KnownPods {
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.pods.len()
    }

    pub(super) fn of(&self, uid: &str) -> Option<Labels> {
        Some(self.sets.get(&self.pods.get(uid)?.set)?.labels.clone())
    }

    /// Goes on with a walk; answers whether there is more.
    pub(super) fn fill(&self, page: &mut Page) -> bool {
        let from = page.after.take().map_or(Bound::Unbounded, Bound::Excluded);
        let mut last = None;
        for (uid, pod) in self.pods.range((from, Bound::Unbounded)).take(AT_ONCE) {
            last = Some(uid);
            let (first_hour, last_hour) = (i64::from(pod.hours.0), i64::from(pod.hours.1));
            if page.hours.is_some_and(|(start, end)| last_hour < start || end < first_hour) {
                continue;
            }
            let Some(set) = self.sets.get(&pod.set) else { continue };
            // Where not all was noted, lines may say what they like.
            let own = match &pod.own {
                Own::These(labels) if page.hours.is_some() => Some(labels),
                _ => None,
            };
            let place = own.map_or(0, |labels| labels.iter().as_slice().as_ptr().addr());
            let groups = &mut page.groups;
            let group = *page.places.entry((pod.set, place)).or_insert_with(|| {
                groups.push(PodGroup { known: set.labels.clone(), own: own.cloned(), pods: Vec::new() });
                groups.len() - 1
            });
            page.groups[group].pods.push(Arc::clone(uid));
        }
        page.after = last.cloned();
        page.after.is_some()
    }

    /// The pods of which something else is known, or that were not seen for a while, with the number of their labels.
    pub(super) fn new_of<'p>(
        &self,
        pods: &'p [PodMetadata],
        seen: i64,
    ) -> Vec<(&'p PodMetadata, Option<i64>)> {
        let numbered = pods.iter().map(|pod| (pod, self.numbers.get(&pod.labels).copied()));
        let is_new = |(pod, set): &(&PodMetadata, Option<i64>)| {
            let before = self.pods.get(&*pod.uid);
            !before.is_some_and(|before| *set == Some(before.set) && seen - before.seen < SEEN_AGAIN_SECONDS)
        };
        numbered.filter(is_new).collect()
    }

    pub(super) fn learn(&mut self, pod: &PodMetadata, set: i64, seen: i64) {
        if !self.sets.contains_key(&set) {
            self.add_set(set, pod.labels.clone());
        }
        let (uid, before) = match self.pods.get_key_value(&*pod.uid) {
            Some((uid, before)) => (Arc::clone(uid), Some(before.clone())),
            None => (Arc::from(&*pod.uid), None),
        };
        if before.as_ref().is_none_or(|before| before.set != set) {
            self.generation += 1;
        }
        let before = before.unwrap_or(Known { set, seen, own: Own::NoLines, hours: (i32::MAX, i32::MIN) });
        self.put(&uid, Known { set, seen: seen.max(before.seen), ..before });
        self.changed.insert(uid);
        self.make_room();
    }

    /// Whether a note says nothing new.
    pub(super) fn has(&self, noted: &Noted<'_>, seen: i64) -> bool {
        let Some(pod) = self.pods.get(noted.uid) else { return false };
        let is_within = pod.hours.0 <= noted.hours.0 && noted.hours.1 <= pod.hours.1;
        let says = match &pod.own {
            Own::NoLines => false,
            Own::Any => true,
            Own::These(labels) => noted.says(labels),
        };
        is_within && says && seen - pod.seen < SEEN_AGAIN_SECONDS
    }

    pub(super) fn note(&mut self, noted: &Noted<'_>, seen: i64) {
        if self.has(noted, seen) {
            return;
        }
        let own = match &noted.own {
            Some(own) => Labels::new(own.iter().copied()).map_or(Own::Any, |labels| self.shared(labels)),
            None => Own::Any,
        };
        let uid = match self.pods.get_key_value(noted.uid) {
            Some((uid, _)) => Arc::clone(uid),
            None => Arc::from(noted.uid),
        };
        match self.pods.get_mut(noted.uid) {
            Some(pod) => {
                pod.hours = (pod.hours.0.min(noted.hours.0), pod.hours.1.max(noted.hours.1));
                pod.seen = pod.seen.max(seen);
                if pod.own == Own::NoLines {
                    pod.own = own;
                } else if pod.own != own {
                    pod.own = Own::Any;
                }
            }
            None => self.put(&uid, Known { set: 0, seen, own, hours: noted.hours }),
        }
        self.changed.insert(uid);
        self.make_room();
    }

    /// The same labels as those that others have, if there are some.
    pub(super) fn shared(&mut self, labels: Labels) -> Own {
        if let Some(known) = self.owns.get(&labels) {
            return Own::These(known.clone());
        }
        if self.owns.len() >= SHARED_MAX {
            self.owns.clear();
        }
        self.owns.insert(labels.clone());
        Own::These(labels)
    }

    pub(super) fn add_set(&mut self, number: i64, labels: Labels) {
        self.numbers.insert(labels.clone(), number);
        self.sets.insert(number, Set { labels, pods: 0 });
    }

    pub(super) fn put(&mut self, uid: &Arc<str>, mut pod: Known) {
        match self.sets.get_mut(&pod.set) {
            Some(set) => set.pods += 1,
            // Its set is damaged, or there is none.
            None => pod.set = 0,
        }
        self.gone.remove(uid);
        if let Some(before) = self.pods.insert(Arc::clone(uid), pod) {
            self.leave(before.set);
        }
    }

    fn leave(&mut self, number: i64) {
        let Some(set) = self.sets.get_mut(&number) else { return };
        set.pods -= 1;
        if set.pods == 0 {
            self.free(number);
        }
    }

    fn free(&mut self, number: i64) {
        if let Some(set) = self.sets.remove(&number) {
            self.numbers.remove(&set.labels);
            self.freed.push(number);
        }
    }

    /// Forgets sets that no pod has.
    pub(super) fn free_unused(&mut self) {
        let unused = self.sets.iter().filter(|(_, set)| set.pods == 0);
        let unused: Vec<i64> = unused.map(|(number, _)| *number).collect();
        unused.into_iter().for_each(|number| self.free(number));
    }

    fn forget(&mut self, uid: Arc<str>) {
        if let Some(pod) = self.pods.remove(&uid) {
            self.leave(pod.set);
        }
        self.changed.remove(&uid);
        self.gone.insert(uid);
        self.generation += 1;
    }

    /// Forgets some if there are too many.
    fn make_room(&mut self) {
        if self.pods.len() <= PODS_MAX + SLACK {
            return;
        }
        let many = self.pods.len() - PODS_MAX;
        let order = |(uid, pod): (&Arc<str>, &Known)| (pod.set != 0, pod.seen, Arc::clone(uid));
        let mut all: Vec<(bool, i64, Arc<str>)> = self.pods.iter().map(order).collect();
        all.select_nth_unstable(many - 1);
        all.truncate(many);
        tracing::warn!(
            pods = many,
            "more pods than are remembered: those not seen for longest are forgotten"
        );
        all.into_iter().for_each(|(_, _, uid)| self.forget(uid));
    }

    /// Forgets some of those that were not seen since then, beginning where the last call ended.
    pub(super) fn expire(&mut self, oldest_seconds: i64) {
        let from = self.next.take().map_or(Bound::Unbounded, Bound::Excluded);
        let mut old = Vec::new();
        let mut looked = 0;
        for (uid, pod) in self.pods.range((from, Bound::Unbounded)).take(EXPIRED_AT_ONCE) {
            looked += 1;
            if pod.seen.saturating_add(SEEN_AGAIN_SECONDS) < oldest_seconds {
                old.push(Arc::clone(uid));
            }
            if looked == EXPIRED_AT_ONCE {
                self.next = Some(Arc::clone(uid));
            }
        }
        old.into_iter().for_each(|uid| self.forget(uid));
    }

    /// What the file does not have.
    pub(super) fn take_changes(&mut self) -> Changes {
        let changed = std::mem::take(&mut self.changed);
        let changed = changed.into_iter().filter_map(|uid| {
            let pod = self.pods.get(&uid)?.clone();
            Some((uid, pod))
        });
        let changed = changed.collect();
        let gone = std::mem::take(&mut self.gone).into_iter().collect();
        // One that was freed may have pods again, under its number of the file.
        let freed = std::mem::take(&mut self.freed);
        let freed = freed.into_iter().filter(|number| !self.sets.contains_key(number)).collect();
        Changes { gone, changed, freed }
    }

    /// After the file did not take them.
    pub(super) fn put_back(&mut self, changes: Changes) {
        let Changes { gone, changed, freed } = changes;
        let changed = changed.into_iter().map(|(uid, _)| uid);
        let pods = &self.pods;
        self.gone.extend(gone.into_iter().filter(|uid| !pods.contains_key(uid)));
        self.changed.extend(changed.filter(|uid| pods.contains_key(uid)));
        self.freed.extend(freed);
    }
}
