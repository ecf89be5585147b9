//! What Kubernetes says of pods, and when they have lines, for as long as lines of theirs may be stored.
//!
//! ```text
//! lines ─► noted: uid, hours, own names ─┐
//! agents ─► metadata by uid ─────────────┴► memory ─(before marks of the log move on)─► file
//! ```
//!
//! Lines are noted before they are in the log, and the file has the notes before the log goes: a pod whose hours do not
//! touch a span has no lines there. That holds once all lines that were stored before there were notes are gone.

mod memory;

use std::sync::{PoisonError, RwLockReadGuard, RwLockWriteGuard};

use binnacle_model::push::LogPush;
use binnacle_model::storage::{PodGroup, PodMetadata};
use binnacle_model::{Labels, LogTime};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

pub(super) use memory::KnownPods;
use memory::{Changes, Known, Noted, Own, Page};

use super::Catalog;

const NS_PER_SECOND: i64 = 1_000_000_000;

impl Catalog {
    /// Keeps what is known of pods.
    pub(crate) fn save_pods(&self, pods: &[PodMetadata], now: LogTime) -> rusqlite::Result<()> {
        let seen = now.0.div_euclid(NS_PER_SECOND);
        // Whoever saves has the connection; who asks waits for no disk.
        let mut connection = self.connection();
        let new = self.known_pods().new_of(pods, seen);
        if !new.is_empty() {
            let change = connection.transaction()?;
            let mut changes = Vec::with_capacity(new.len());
            for (pod, set) in new {
                changes.push((pod, set.map_or_else(|| number_of(&change, &pod.labels), Ok)?));
            }
            change.commit()?;
            let mut known = self.known_pods_mut();
            changes.into_iter().for_each(|(pod, set)| known.learn(pod, set, seen));
        }
        self.write_pods(&mut connection)
    }

    /// Remembers which pods have lines, when, and what these say of themselves. To be called before the lines are kept.
    pub(crate) fn note_lines(&self, push: &LogPush, received: LogTime) {
        let noted: Vec<Noted<'_>> = push.batches.iter().filter_map(Noted::of).collect();
        if noted.is_empty() {
            return;
        }
        let seen = received.0.div_euclid(NS_PER_SECOND);
        let is_new = {
            let known = self.known_pods();
            noted.iter().any(|one| !known.has(one, seen))
        };
        if is_new {
            let mut known = self.known_pods_mut();
            noted.iter().for_each(|one| known.note(one, seen));
        }
    }

    /// Writes down what was noted of lines since the last call.
    pub(crate) fn save_noted(&self) -> rusqlite::Result<()> {
        self.write_pods(&mut self.connection())
    }

    /// Says from which day of intake on all lines are noted, unless that was said before.
    pub(crate) fn note_from(&self, day: i64) -> rusqlite::Result<()> {
        let connection = self.connection();
        connection
            .execute("INSERT OR IGNORE INTO pods_noted_from (one, day) VALUES (1, ?1)", params![day])?;
        let day = connection.query_row("SELECT day FROM pods_noted_from", [], |row| row.get(0))?;
        self.known_pods_mut().noted_from = day;
        Ok(())
    }

    /// Whether all lines are noted that came on this day or later.
    pub(crate) fn has_noted(&self, day: i64) -> bool {
        day >= self.known_pods().noted_from
    }

    /// Forgets some of the pods that were not seen since a time; whoever calls it again and again gets at all of them.
    pub(crate) fn expire_pods(&self, oldest: LogTime) -> rusqlite::Result<()> {
        self.known_pods_mut().expire(oldest.0.div_euclid(NS_PER_SECOND));
        self.save_noted()
    }

    fn known_pods(&self) -> RwLockReadGuard<'_, KnownPods> {
        self.pods.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn known_pods_mut(&self) -> RwLockWriteGuard<'_, KnownPods> {
        self.pods.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another number whenever something is known that was not before.
    pub(crate) fn pods_generation(&self) -> u64 {
        self.known_pods().generation
    }

    /// What is known of a pod.
    pub(crate) fn pod(&self, uid: &str) -> Option<Labels> {
        self.known_pods().of(uid)
    }

    /// The pods of which something is known; of a span alone if `span` is one of which all lines were noted.
    pub(crate) fn pods_between(&self, span: Option<(LogTime, LogTime)>) -> Vec<PodGroup> {
        let mut page = Page::new(span);
        // A look at a piece at a time: who notes lines waits for no query.
        while self.known_pods().fill(&mut page) {}
        page.groups
    }

    /// Pods in memory.
    #[cfg(test)]
    pub(crate) fn pods_held(&self) -> usize {
        self.known_pods().len()
    }

    /// Brings the file to where memory is. What fails is tried again by the next call.
    fn write_pods(&self, connection: &mut Connection) -> rusqlite::Result<()> {
        let changes = self.known_pods_mut().take_changes();
        if changes.gone.is_empty() && changes.changed.is_empty() && changes.freed.is_empty() {
            return Ok(());
        }
        let written = write(connection, &changes);
        if written.is_err() {
            self.known_pods_mut().put_back(changes);
        }
        written
    }
}

fn write(connection: &mut Connection, changes: &Changes) -> rusqlite::Result<()> {
    let change = connection.transaction()?;
    {
        let mut delete = change.prepare_cached("DELETE FROM pods WHERE uid = ?1")?;
        for uid in &changes.gone {
            delete.execute(params![&**uid])?;
        }
        let mut insert = change.prepare_cached(
            "INSERT OR REPLACE INTO pods (uid, labels_id, seen, own, first_hour, last_hour)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?;
        for (uid, pod) in &changes.changed {
            let own = match &pod.own {
                Own::NoLines => None,
                Own::Any => Some(String::new()),
                Own::These(labels) => Some(text_of(labels)),
            };
            let hours = own.is_some().then_some((pod.hours.0, pod.hours.1));
            let (first, last) = hours.unzip();
            insert.execute(params![&**uid, pod.set, pod.seen, own, first, last])?;
        }
        let mut free = change.prepare_cached("DELETE FROM pod_labels WHERE id = ?1")?;
        for set in &changes.freed {
            free.execute(params![set])?;
        }
    }
    change.commit()
}

/// Those of a file. What cannot be read is not known: collectors say it again.
pub(super) fn read(connection: &Connection) -> rusqlite::Result<KnownPods> {
    let mut known = KnownPods::default();
    let mut sets = connection.prepare("SELECT id, labels FROM pod_labels")?;
    let mut rows = sets.query([])?;
    while let Some(row) = rows.next()? {
        let (id, text): (i64, String) = (row.get(0)?, row.get(1)?);
        if let Some(labels) = read_labels(&text) {
            known.add_set(id, labels);
        } else {
            tracing::warn!(id, "metadata of pods is damaged, and comes again from their nodes");
        }
    }
    let mut pods = connection.prepare("SELECT uid, labels_id, seen, own, first_hour, last_hour FROM pods")?;
    let mut rows = pods.query([])?;
    while let Some(row) = rows.next()? {
        let (uid, set, seen): (String, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let own: Option<String> = row.get(3)?;
        let hours: (Option<i32>, Option<i32>) = (row.get(4)?, row.get(5)?);
        let own = match own {
            None => Own::NoLines,
            Some(text) => read_labels(&text).map_or(Own::Any, |labels| known.shared(labels)),
        };
        let hours = (hours.0.unwrap_or(i32::MAX), hours.1.unwrap_or(i32::MIN));
        known.put(&uid.into(), Known { set, seen, own, hours });
    }
    known.free_unused();
    let from = connection.query_row("SELECT day FROM pods_noted_from", [], |row| row.get(0)).optional()?;
    known.noted_from = from.unwrap_or(i64::MAX);
    Ok(known)
}

/// The row of a set of labels that is not known yet; it may stand in the file without a pod.
fn number_of(change: &Transaction<'_>, labels: &Labels) -> rusqlite::Result<i64> {
    let text = text_of(labels);
    change.execute("INSERT OR IGNORE INTO pod_labels (labels) VALUES (?1)", params![text])?;
    change.query_row("SELECT id FROM pod_labels WHERE labels = ?1", params![text], |row| row.get(0))
}

fn text_of(labels: &Labels) -> String {
    let pairs = labels.iter().map(|label| (label.name.to_string(), label.value.to_string()));
    pairs.collect::<serde_json::Value>().to_string()
}

fn read_labels(text: &str) -> Option<Labels> {
    let map: std::collections::BTreeMap<String, String> = serde_json::from_str(text).ok()?;
    Labels::new(map).ok()
}

#[cfg(test)]
mod tests;
