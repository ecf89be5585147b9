//! Which entries of logs somebody wants gone, and how far that is.

use binnacle_model::LogTime;
use binnacle_model::storage::{LogDeletion, LogDeletionState};
use rusqlite::params;

use super::Catalog;

/// Finished ones that are remembered, the newest.
const FINISHED_MAX: i64 = 1_000;

fn number(state: LogDeletionState) -> i64 {
    match state {
        LogDeletionState::Running => 0,
        LogDeletionState::Done => 1,
        LogDeletionState::Cancelled => 2,
        LogDeletionState::Failed => 3,
    }
}

fn state(number: i64) -> LogDeletionState {
    match number {
        0 => LogDeletionState::Running,
        1 => LogDeletionState::Done,
        2 => LogDeletionState::Cancelled,
        _ => LogDeletionState::Failed,
    }
}

impl Catalog {
    /// All that are known, oldest first.
    pub(crate) fn log_deletions(&self) -> rusqlite::Result<Vec<LogDeletion>> {
        let connection = self.connection();
        let mut query = connection.prepare(
            "SELECT id, query, start, end, through, sequence, state, pages, pages_done, removed, trouble
             FROM log_deletions ORDER BY id",
        )?;
        let rows = query.query_map([], |row| {
            Ok(LogDeletion {
                id: row.get::<_, i64>(0)? as u64,
                query: row.get(1)?,
                start: LogTime(row.get(2)?),
                end: LogTime(row.get(3)?),
                through: LogTime(row.get(4)?),
                sequence: row.get::<_, i64>(5)? as u64,
                state: state(row.get(6)?),
                pages: row.get::<_, i64>(7)? as u64,
                pages_done: row.get::<_, i64>(8)? as u64,
                removed: row.get::<_, i64>(9)? as u64,
                trouble: row.get(10)?,
            })
        })?;
        rows.collect()
    }

    /// Adds one, or writes down how far it is. The oldest that are finished are forgotten.
    pub(crate) fn save_log_deletion(&self, one: &LogDeletion) -> rusqlite::Result<()> {
        let mut connection = self.connection();
        let change = connection.transaction()?;
        change.execute(
            "INSERT INTO log_deletions VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
             ON CONFLICT (id) DO UPDATE SET state = excluded.state, pages = excluded.pages,
             pages_done = excluded.pages_done, removed = excluded.removed, trouble = excluded.trouble",
            params![
                one.id as i64,
                one.query,
                one.start.0,
                one.end.0,
                one.through.0,
                one.sequence as i64,
                number(one.state),
                one.pages as i64,
                one.pages_done as i64,
                one.removed as i64,
                one.trouble,
            ],
        )?;
        change.execute(
            "DELETE FROM log_deletions WHERE state <> 0 AND id NOT IN
             (SELECT id FROM log_deletions WHERE state <> 0 ORDER BY id DESC LIMIT ?1)",
            params![FINISHED_MAX],
        )?;
        change.commit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deletion_is_known_with_how_far_it_is() {
        let catalog = Catalog::in_memory();
        let mut one = LogDeletion {
            id: 7,
            query: "user:x".into(),
            start: LogTime(i64::MIN),
            end: LogTime(9),
            through: LogTime(8),
            sequence: 12,
            state: LogDeletionState::Running,
            pages: 3,
            pages_done: 0,
            removed: 0,
            trouble: Some("wait".into()),
        };
        catalog.save_log_deletion(&one).unwrap();
        assert_eq!(catalog.log_deletions().unwrap(), [one.clone()]);
        for state in [LogDeletionState::Cancelled, LogDeletionState::Failed, LogDeletionState::Done] {
            one = LogDeletion { state, pages_done: 2, removed: 5, trouble: None, ..one };
            catalog.save_log_deletion(&one).unwrap();
            assert_eq!(catalog.log_deletions().unwrap(), [one.clone()]);
        }
        for id in 8..8 + FINISHED_MAX as u64 {
            catalog.save_log_deletion(&LogDeletion { id, ..one.clone() }).unwrap();
        }
        assert_eq!(catalog.log_deletions().unwrap()[0].id, 8);
    }
}
