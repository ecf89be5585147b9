//! What survives a restart, in SQLite: alerts, what groups were told, and the outbox.
//!
//! The schema moves forward by numbered migrations under `user_version`.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use binnacle_model::{Labels, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::notify::Silence;
use crate::rules::{Alert, AlertState};

/// The database.
pub struct AlertDb {
    connection: Mutex<Connection>,
}

/// What a receiver was last told of a group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Notified {
    /// Fingerprints of the alerts that fired.
    pub(crate) firing: Vec<String>,
    /// Fingerprints of those that were resolved.
    pub(crate) resolved: Vec<String>,
    pub(crate) at: Timestamp,
}

/// A notification on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) id: i64,
    pub(crate) receiver: String,
    /// Of messages that an older release left; empty otherwise.
    pub(crate) url: String,
    pub(crate) group_key: String,
    pub(crate) body: String,
    pub(crate) created: Timestamp,
    pub(crate) attempts: u32,
    pub(crate) state: String,
    pub(crate) last_error: String,
    pub(crate) changed: Timestamp,
}

impl AlertDb {
    /// Each entry takes the schema one version further. Never edit one; add.
    pub const MIGRATIONS: [&str; 2] =
        [include_str!("migrations/0001_alerts_and_outbox.sql"), include_str!("migrations/0002_silences.sql")];

    /// The database behind a connection, which has the schema that the migrations make.
    pub fn new(connection: Connection) -> Self {
        Self { connection: Mutex::new(connection) }
    }

    /// A database that lives as long as the value, for tests.
    pub fn in_memory() -> rusqlite::Result<Self> {
        let connection = Connection::open_in_memory()?;
        Self::MIGRATIONS.iter().try_for_each(|migration| connection.execute_batch(migration))?;
        Ok(Self::new(connection))
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The alerts of a rule, and when it was last evaluated.
    pub(crate) fn rule(&self, rule: &str) -> rusqlite::Result<(Vec<Alert>, Option<Timestamp>)> {
        let connection = self.lock();
        let mut query = connection.prepare_cached(
            "SELECT labels, annotations, state, value_bits, active_at, fired_at, resolved_at,
                    keep_firing_since FROM alerts WHERE rule = ?1",
        )?;
        let alerts = query.query_map([rule], read_alert)?.collect::<rusqlite::Result<_>>()?;
        let at = connection
            .query_row("SELECT at FROM evaluations WHERE rule = ?1", [rule], |row| row.get(0))
            .optional()?;
        Ok((alerts, at.map(Timestamp)))
    }

    /// All rules that were ever evaluated and not forgotten.
    pub(crate) fn rules(&self) -> rusqlite::Result<Vec<String>> {
        let connection = self.lock();
        let mut query = connection.prepare_cached("SELECT rule FROM evaluations")?;
        query.query_map([], |row| row.get(0))?.collect()
    }

    /// Forgets a rule with its alerts.
    pub(crate) fn forget_rule(&self, rule: &str) -> rusqlite::Result<()> {
        let mut connection = self.lock();
        let change = connection.transaction()?;
        change.execute("DELETE FROM alerts WHERE rule = ?1", [rule])?;
        change.execute("DELETE FROM evaluations WHERE rule = ?1", [rule])?;
        change.commit()
    }

    /// Replaces the alerts of a rule by those of an evaluation, durably, all or none.
    pub(crate) fn save_rule<'a>(
        &self,
        rule: &str,
        at: Timestamp,
        alerts: impl Iterator<Item = &'a Alert>,
    ) -> rusqlite::Result<()> {
        let mut connection = self.lock();
        let change = connection.transaction()?;
        change.execute("DELETE FROM alerts WHERE rule = ?1", [rule])?;
        for alert in alerts {
            change.execute(
                "INSERT INTO alerts (rule, labels, annotations, state, value_bits, active_at,
                    fired_at, resolved_at, keep_firing_since) VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9)",
                params![
                    rule,
                    to_json(&alert.labels),
                    to_json(&alert.annotations),
                    state_text(alert.state),
                    alert.value.to_bits() as i64,
                    alert.active_at.0,
                    alert.fired_at.map(|at| at.0),
                    alert.resolved_at.map(|at| at.0),
                    alert.keep_firing_since.map(|at| at.0),
                ],
            )?;
        }
        change.execute(
            "INSERT INTO evaluations (rule, at) VALUES (?1, ?2)
             ON CONFLICT (rule) DO UPDATE SET at = excluded.at",
            params![rule, at.0],
        )?;
        change.commit()
    }

    /// What a receiver was last told of a group.
    pub(crate) fn notified(&self, receiver: &str, group: &str) -> rusqlite::Result<Option<Notified>> {
        let read = |row: &Row<'_>| {
            Ok(Notified {
                firing: split(&row.get::<_, String>(0)?),
                resolved: split(&row.get::<_, String>(1)?),
                at: Timestamp(row.get(2)?),
            })
        };
        self.lock()
            .query_row(
                "SELECT firing, resolved, at FROM notified WHERE receiver = ?1 AND group_key = ?2",
                [receiver, group],
                read,
            )
            .optional()
    }

    /// Puts a notification into the outbox, if there is one, and notes what the group was told, both or neither.
    pub(crate) fn post(
        &self,
        receiver: &str,
        body: Option<&str>,
        group: &str,
        told: &Notified,
    ) -> rusqlite::Result<()> {
        let mut connection = self.lock();
        let change = connection.transaction()?;
        if let Some(body) = body {
            // Where it goes is looked up when it is sent: addresses hold secrets, and change.
            change.execute(
                "INSERT INTO outbox (receiver, url, group_key, body, created, next_try, changed)
                 VALUES (?1, '', ?2, ?3, ?4, ?4, ?4)",
                params![receiver, group, body, told.at.0],
            )?;
        }
        change.execute(
            "INSERT INTO notified (receiver, group_key, firing, resolved, at)
             VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (receiver, group_key) DO UPDATE SET
             firing = excluded.firing, resolved = excluded.resolved, at = excluded.at",
            params![receiver, group, told.firing.join(" "), told.resolved.join(" "), told.at.0],
        )?;
        change.commit()
    }

    /// The oldest pending message of each address, if its time has come.
    pub(crate) fn due(&self, now: Timestamp) -> rusqlite::Result<Vec<Message>> {
        let connection = self.lock();
        // One at a time per address, so that "resolved" never overtakes "firing".
        let mut query = connection.prepare_cached(
            "SELECT * FROM outbox WHERE next_try <= ?1 AND id IN
                (SELECT min(id) FROM outbox WHERE state = 'pending' GROUP BY receiver, url)",
        )?;
        query.query_map([now.0], read_message)?.collect()
    }

    /// Notes how an attempt went: `sent`, `dead`, or `pending` until `next_try`.
    pub(crate) fn attempted(
        &self,
        id: i64,
        state: &str,
        error: &str,
        now: Timestamp,
        next_try: Timestamp,
    ) -> rusqlite::Result<()> {
        self.lock().execute(
            "UPDATE outbox SET state = ?2, last_error = ?3, attempts = attempts + 1, changed = ?4,
             next_try = ?5 WHERE id = ?1",
            params![id, state, error, now.0, next_try.0],
        )?;
        Ok(())
    }

    /// A message will never be taken: its group counts as not told, so that it is told anew, unless it was meanwhile.
    pub(crate) fn untell(&self, message: &Message) -> rusqlite::Result<()> {
        self.lock().execute(
            "DELETE FROM notified WHERE receiver = ?1 AND group_key = ?2 AND NOT EXISTS
                (SELECT 1 FROM outbox WHERE receiver = ?1 AND group_key = ?2 AND id > ?3)",
            params![message.receiver, message.group_key, message.id],
        )?;
        Ok(())
    }

    /// All silences that can be read.
    pub(crate) fn silences(&self) -> rusqlite::Result<Vec<Silence>> {
        let connection = self.lock();
        let mut query = connection.prepare_cached("SELECT body FROM silences")?;
        let bodies = query.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
        let read = |body: &String| match serde_json::from_str(body) {
            Ok(silence) => Some(silence),
            Err(error) => {
                tracing::error!(%error, "a silence in the database cannot be read");
                None
            }
        };
        Ok(bodies.iter().filter_map(read).collect())
    }

    /// Writes a silence over what was there under its id.
    pub(crate) fn save_silence(&self, silence: &Silence) -> rusqlite::Result<()> {
        let body = serde_json::to_string(silence).unwrap_or_default();
        self.lock().execute(
            "INSERT INTO silences (id, body, ends_at) VALUES (?1, ?2, ?3)
             ON CONFLICT (id) DO UPDATE SET body = excluded.body, ends_at = excluded.ends_at",
            params![silence.id, body, silence.ends_at],
        )?;
        Ok(())
    }

    /// Forgets those that ended before `oldest`.
    pub(crate) fn forget_silences(&self, oldest: Timestamp) -> rusqlite::Result<()> {
        self.lock().execute("DELETE FROM silences WHERE ends_at < ?1", [oldest.0])?;
        Ok(())
    }

    /// The newest messages, sent or not.
    pub(crate) fn history(&self, limit: usize) -> rusqlite::Result<Vec<Message>> {
        let connection = self.lock();
        let mut query = connection.prepare_cached("SELECT * FROM outbox ORDER BY id DESC LIMIT ?1")?;
        query.query_map([limit as i64], read_message)?.collect()
    }

    /// Forgets what was done with before `oldest`.
    pub(crate) fn forget_before(&self, oldest: Timestamp) -> rusqlite::Result<()> {
        let connection = self.lock();
        connection.execute("DELETE FROM outbox WHERE state <> 'pending' AND changed < ?1", [oldest.0])?;
        connection.execute("DELETE FROM notified WHERE at < ?1 AND firing = ''", [oldest.0])?;
        Ok(())
    }
}

fn split(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn state_text(state: AlertState) -> &'static str {
    match state {
        AlertState::Pending => "pending",
        AlertState::Firing => "firing",
        AlertState::Resolved => "resolved",
    }
}

fn to_json(labels: &Labels) -> String {
    let map: BTreeMap<&str, &str> = labels.iter().map(|l| (&*l.name, &*l.value)).collect();
    serde_json::to_string(&map).unwrap_or_default()
}

fn read_alert(row: &Row<'_>) -> rusqlite::Result<Alert> {
    let labels = |at: usize| {
        let text: String = row.get(at)?;
        let map: BTreeMap<String, String> = serde_json::from_str(&text).unwrap_or_default();
        Ok::<_, rusqlite::Error>(Labels::new(map).unwrap_or_default())
    };
    let state: String = row.get(2)?;
    let time = |at: usize| row.get::<_, Option<i64>>(at).map(|time| time.map(Timestamp));
    Ok(Alert {
        labels: labels(0)?,
        annotations: labels(1)?,
        state: match state.as_str() {
            "firing" => AlertState::Firing,
            "resolved" => AlertState::Resolved,
            _ => AlertState::Pending,
        },
        value: f64::from_bits(row.get::<_, i64>(3)? as u64),
        active_at: Timestamp(row.get(4)?),
        fired_at: time(5)?,
        resolved_at: time(6)?,
        keep_firing_since: time(7)?,
    })
}

fn read_message(row: &Row<'_>) -> rusqlite::Result<Message> {
    Ok(Message {
        id: row.get("id")?,
        receiver: row.get("receiver")?,
        url: row.get("url")?,
        group_key: row.get("group_key")?,
        body: row.get("body")?,
        created: Timestamp(row.get("created")?),
        attempts: row.get("attempts")?,
        state: row.get("state")?,
        last_error: row.get("last_error")?,
        changed: Timestamp(row.get("changed")?),
    })
}
