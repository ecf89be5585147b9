//! Which metrics anybody asked for.

use binnacle_model::Timestamp;
use binnacle_model::storage::{Queried, QueriedBefore};
use rusqlite::params;

use super::Catalog;

const NAME: i64 = 0;
const PATTERN: i64 = 1;
const SINCE: i64 = 2;

impl Catalog {
    /// What was asked for at `since` or later; what is older is forgotten. The first call ever begins at `now`.
    pub(crate) fn queried(&self, since: Timestamp, now: Timestamp) -> rusqlite::Result<QueriedBefore> {
        let mut connection = self.connection();
        let change = connection.transaction()?;
        change.execute("DELETE FROM queried WHERE at < ?1 AND is_pattern <> ?2", params![since.0, SINCE])?;
        change.execute("INSERT OR IGNORE INTO queried VALUES (?1, '', ?2)", params![SINCE, now.0])?;
        let mut found = QueriedBefore { since: now, metrics: Vec::new() };
        {
            let mut query = change.prepare("SELECT is_pattern, name, at FROM queried")?;
            let mut rows = query.query([])?;
            while let Some(row) = rows.next()? {
                let (kind, name, at) = (row.get::<_, i64>(0)?, row.get(1)?, Timestamp(row.get(2)?));
                if kind == SINCE {
                    found.since = at.max(since);
                } else {
                    found.metrics.push(Queried { name, is_pattern: kind == PATTERN, at });
                }
            }
        }
        change.commit()?;
        Ok(found)
    }

    /// Writes down what was asked for.
    pub(crate) fn save_queried(&self, metrics: &[Queried]) -> rusqlite::Result<()> {
        let mut connection = self.connection();
        let change = connection.transaction()?;
        {
            let mut insert = change.prepare(
                "INSERT INTO queried VALUES (?1, ?2, ?3)
                 ON CONFLICT (is_pattern, name) DO UPDATE SET at = max(at, excluded.at)",
            )?;
            for one in metrics {
                let kind = if one.is_pattern { PATTERN } else { NAME };
                insert.execute(params![kind, one.name, one.at.0])?;
            }
        }
        change.commit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_is_known_until_it_is_too_old() {
        let catalog = Catalog::in_memory();
        let one = |name: &str, is_pattern, at| Queried { name: name.into(), is_pattern, at: Timestamp(at) };
        let found = catalog.queried(Timestamp(0), Timestamp(5)).unwrap();
        assert_eq!(found, QueriedBefore { since: Timestamp(5), metrics: vec![] });
        catalog.save_queried(&[one("a", false, 7), one("a", true, 8), one("b", false, 9)]).unwrap();
        catalog.save_queried(&[one("a", false, 10), one("b", false, 6)]).unwrap();
        let found = catalog.queried(Timestamp(0), Timestamp(20)).unwrap();
        let all = vec![one("a", false, 10), one("b", false, 9), one("a", true, 8)];
        assert_eq!(found, QueriedBefore { since: Timestamp(5), metrics: all });
        let found = catalog.queried(Timestamp(10), Timestamp(20)).unwrap();
        assert_eq!(found, QueriedBefore { since: Timestamp(10), metrics: vec![one("a", false, 10)] });
    }
}
