//! What Kubernetes says of pods, for as long as lines of theirs may be stored.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, MutexGuard, PoisonError};

use binnacle_model::storage::{PodMetadata, PodVisit, StorageError};
use binnacle_model::{Labels, LogTime};
use rusqlite::{Connection, Transaction, params};

use super::Catalog;

/// Pods that are remembered; those that were not seen for longest go first.
const PODS_MAX: usize = if cfg!(test) { 10 } else { 500_000 };

/// A pod that is as it was is written down again after so many seconds.
const SEEN_AGAIN_SECONDS: i64 = 3600;

/// All that is known of pods, in memory.
#[derive(Debug, Default)]
pub(super) struct KnownPods {
    sets: HashMap<i64, Set>,
    numbers: HashMap<Labels, i64>,
    pods: HashMap<Arc<str>, Known>,
    generation: u64,
}

#[derive(Debug)]
struct Set {
    labels: Labels,
    pods: BTreeSet<Arc<str>>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    set: i64,
    seen: i64,
}

impl KnownPods {
    /// Those of a file. What cannot be read is not known: collectors say it again.
    pub(super) fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let mut known = Self::default();
        let mut sets = connection.prepare("SELECT id, labels FROM pod_labels")?;
        let mut rows = sets.query([])?;
        while let Some(row) = rows.next()? {
            let (id, text): (i64, String) = (row.get(0)?, row.get(1)?);
            let Some(labels) = read_labels(&text) else {
                tracing::warn!(id, "metadata of pods is damaged, and comes again from their nodes");
                continue;
            };
            known.numbers.insert(labels.clone(), id);
            known.sets.insert(id, Set { labels, pods: BTreeSet::new() });
        }
        let mut pods = connection.prepare("SELECT uid, labels_id, seen FROM pods")?;
        let mut rows = pods.query([])?;
        while let Some(row) = rows.next()? {
            let (uid, set, seen): (String, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            known.put(&uid.into(), Known { set, seen });
        }
        Ok(known)
    }

    /// The pods of which something else is known, or that were not seen for a while, with the number of their labels.
    fn new_of<'p>(&self, pods: &'p [PodMetadata], seen: i64) -> Vec<(&'p PodMetadata, Option<i64>)> {
        let numbered = pods.iter().map(|pod| (pod, self.numbers.get(&pod.labels).copied()));
        let is_new = |(pod, set): &(&PodMetadata, Option<i64>)| {
            let before = self.pods.get(&*pod.uid);
            !before.is_some_and(|before| *set == Some(before.set) && seen - before.seen < SEEN_AGAIN_SECONDS)
        };
        numbered.filter(is_new).collect()
    }

    fn learn(&mut self, pod: &PodMetadata, one: Known) {
        if !self.sets.contains_key(&one.set) {
            self.numbers.insert(pod.labels.clone(), one.set);
            self.sets.insert(one.set, Set { labels: pod.labels.clone(), pods: BTreeSet::new() });
        }
        if self.pods.get(&*pod.uid).is_none_or(|before| before.set != one.set) {
            self.generation += 1;
        }
        self.put(&pod.uid.as_str().into(), one);
    }

    fn forget(&mut self, gone: Vec<Arc<str>>) {
        for uid in gone {
            let set = self.pods.remove(&uid).and_then(|pod| self.sets.get_mut(&pod.set));
            set.map(|set| set.pods.remove(&uid));
        }
        self.sets.retain(|_, set| !set.pods.is_empty());
        let sets = &self.sets;
        self.numbers.retain(|_, number| sets.contains_key(number));
        self.generation += 1;
    }

    fn put(&mut self, uid: &Arc<str>, pod: Known) {
        let Some(set) = self.sets.get_mut(&pod.set) else { return };
        set.pods.insert(Arc::clone(uid));
        let before = self.pods.insert(Arc::clone(uid), pod);
        if let Some(before) = before.filter(|before| before.set != pod.set)
            && let Some(set) = self.sets.get_mut(&before.set)
        {
            set.pods.remove(uid);
        }
    }

    /// Those that were not seen for longest, if there are too many.
    fn too_many(&self) -> Vec<Arc<str>> {
        if self.pods.len() <= PODS_MAX {
            return Vec::new();
        }
        let mut pods: Vec<(i64, &Arc<str>)> = self.pods.iter().map(|(uid, pod)| (pod.seen, uid)).collect();
        pods.sort_unstable();
        // A tenth more than is needed, so that this is seldom.
        pods.truncate(pods.len() - PODS_MAX + PODS_MAX / 10);
        pods.into_iter().map(|(_, uid)| Arc::clone(uid)).collect()
    }
}

impl Catalog {
    /// Keeps what is known of pods.
    pub(crate) fn save_pods(&self, pods: &[PodMetadata], now: LogTime) -> rusqlite::Result<()> {
        let seen = now.0 / 1_000_000_000;
        // Whoever saves has the connection; who asks waits for no disk.
        let mut connection = self.connection();
        let new = self.known_pods().new_of(pods, seen);
        if new.is_empty() {
            return Ok(());
        }
        let change = connection.transaction()?;
        let mut changes = Vec::with_capacity(new.len());
        for (pod, set) in new {
            let set = set.map_or_else(|| number_of(&change, &pod.labels), Ok)?;
            change.execute("INSERT OR REPLACE INTO pods VALUES (?1, ?2, ?3)", params![pod.uid, set, seen])?;
            changes.push((pod, Known { set, seen }));
        }
        change.commit()?;
        let gone = {
            let mut known = self.known_pods();
            changes.into_iter().for_each(|(pod, one)| known.learn(pod, one));
            known.too_many()
        };
        if gone.is_empty() {
            return Ok(());
        }
        let change = connection.transaction()?;
        for uid in &gone {
            change.execute("DELETE FROM pods WHERE uid = ?1", params![&**uid])?;
        }
        change.execute("DELETE FROM pod_labels WHERE id NOT IN (SELECT labels_id FROM pods)", [])?;
        change.commit()?;
        self.known_pods().forget(gone);
        Ok(())
    }

    fn known_pods(&self) -> MutexGuard<'_, KnownPods> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another number whenever something is known that was not before.
    pub(crate) fn pods_generation(&self) -> u64 {
        self.known_pods().generation
    }

    /// What is known of a pod.
    pub(crate) fn pod(&self, uid: &str) -> Option<Labels> {
        let known = self.known_pods();
        Some(known.sets.get(&known.pods.get(uid)?.set)?.labels.clone())
    }

    /// Visits all different sets of labels, with their pods.
    pub(crate) fn each_set_of_pods(&self, visit: PodVisit<'_>) -> Result<(), StorageError> {
        let known = self.known_pods();
        for set in known.sets.values().filter(|set| !set.pods.is_empty()) {
            visit(&set.labels, &mut set.pods.iter().map(|uid| &**uid))?;
        }
        Ok(())
    }
}

/// The row of a set of labels that is not known yet; it may stand in the file without a pod.
fn number_of(change: &Transaction<'_>, labels: &Labels) -> rusqlite::Result<i64> {
    let pairs = labels.iter().map(|label| (label.name.to_string(), label.value.to_string()));
    let text = pairs.collect::<serde_json::Value>().to_string();
    change.execute("INSERT OR IGNORE INTO pod_labels (labels) VALUES (?1)", params![text])?;
    change.query_row("SELECT id FROM pod_labels WHERE labels = ?1", params![text], |row| row.get(0))
}

fn read_labels(text: &str) -> Option<Labels> {
    let map: std::collections::BTreeMap<String, String> = serde_json::from_str(text).ok()?;
    Labels::new(map).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str, team: &str) -> PodMetadata {
        PodMetadata { uid: uid.to_owned(), labels: Labels::new([("team", team), ("zone", "a")]).unwrap() }
    }

    fn at(seconds: i64) -> LogTime {
        LogTime(seconds * 1_000_000_000)
    }

    fn shown(catalog: &Catalog) -> Vec<(String, Vec<String>)> {
        let mut all = Vec::new();
        let visited = catalog.each_set_of_pods(&mut |labels, pods| {
            all.push((labels.value("team").to_owned(), pods.map(str::to_owned).collect()));
            Ok(())
        });
        visited.unwrap();
        all.sort();
        all
    }

    #[test]
    fn what_is_said_last_of_a_pod_is_known_also_after_a_start() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.sqlite");
        let catalog = Catalog::open(&path).unwrap();
        catalog.save_pods(&[pod("a", "pay"), pod("b", "pay"), pod("c", "shop")], at(1)).unwrap();
        let generation = catalog.pods_generation();
        catalog.save_pods(&[pod("b", "pay")], at(2)).unwrap();
        assert_eq!(catalog.pods_generation(), generation, "nothing new");
        catalog.save_pods(&[pod("b", "shop")], at(3)).unwrap();
        assert!(catalog.pods_generation() > generation);
        let want = vec![
            ("pay".to_owned(), vec!["a".to_owned()]),
            ("shop".to_owned(), vec!["b".to_owned(), "c".to_owned()]),
        ];
        assert_eq!(shown(&catalog), want);
        assert_eq!(catalog.pod("b").unwrap().value("team"), "shop");
        assert_eq!(catalog.pod("d"), None);
        drop(catalog);
        assert_eq!(shown(&Catalog::open(&path).unwrap()), want);
    }

    #[test]
    fn of_too_many_pods_those_seen_last_are_kept() {
        let catalog = Catalog::in_memory();
        for number in 0..10 {
            catalog
                .save_pods(&[pod(&format!("p{number}"), &format!("t{}", number / 2))], at(number))
                .unwrap();
        }
        catalog.save_pods(&[pod("p0", "t0")], at(5000)).unwrap();
        catalog.save_pods(&[pod("new", "t9")], at(5000)).unwrap();
        let teams: Vec<String> = shown(&catalog).into_iter().map(|(team, _)| team).collect();
        assert_eq!(teams, ["t0", "t1", "t2", "t3", "t4", "t9"]);
        assert!(catalog.pod("p0").is_some() && catalog.pod("p1").is_none() && catalog.pod("p2").is_none());
        catalog.save_pods(&[pod("late", "t1")], at(5001)).unwrap();
        assert_eq!(catalog.pod("late").unwrap().value("team"), "t1");
    }
}
