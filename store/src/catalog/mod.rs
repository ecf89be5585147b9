//! The catalog: what both engines know besides their data, in SQLite.
//!
//! Marks of log files outlive the WAL files that set them; metadata says what metrics are; who asks for which is
//! written down, which entries of logs are to be deleted, what Kubernetes says of pods, and when these have lines. All are small. The schema moves forward by numbered migrations under `user_version`.

mod deletions;
mod pods;
mod queried;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use binnacle_model::log::FileId;
use binnacle_model::storage::Metadata;
use rusqlite::{Connection, OptionalExtension, params};

use crate::sqlite::{self, OpenSqliteError};
use crate::wal::Sequence;

/// Each entry takes the schema one version further. Never edit one; add.
const MIGRATIONS: [&str; 8] = [
    include_str!("migrations/0001_marks_and_metadata.sql"),
    include_str!("migrations/0002_logs_through.sql"),
    include_str!("migrations/0003_queried.sql"),
    include_str!("migrations/0004_marks_crc.sql"),
    include_str!("migrations/0005_log_deletions.sql"),
    include_str!("migrations/0006_pods.sql"),
    include_str!("migrations/0007_pods_lines.sql"),
    include_str!("migrations/0008_marks_day.sql"),
];

/// A metric may be described in more than one way; more than this many is a mistake of the sender.
const DESCRIPTIONS_PER_METRIC: usize = 8;

/// Longer texts are cut; metrics with longer names are not described.
const HELP_MAX_BYTES: usize = 4096;
const UNIT_MAX_BYTES: usize = 128;
const NAME_MAX_BYTES: usize = 1024;

/// Metrics that are described at the most. Descriptions of others are not kept.
const MAX_METRICS: usize = 200_000;

/// The catalog. One connection, used by one caller at a time.
pub(crate) struct Catalog {
    connection: Mutex<Connection>,
    metadata: Mutex<BTreeMap<String, Vec<Metadata>>>,
    pods: RwLock<pods::KnownPods>,
}

impl Catalog {
    /// Opens the catalog at `path`, or makes it.
    pub(crate) fn open(path: &Path) -> Result<Self, OpenSqliteError> {
        let connection = sqlite::open(path, &MIGRATIONS)?;
        Self::with(connection).map_err(|cause| OpenSqliteError::Sqlite { path: path.to_path_buf(), cause })
    }

    /// A catalog that lives as long as the value, for tests on a simulated disk.
    #[cfg(test)]
    pub(crate) fn in_memory() -> Self {
        Self::with(sqlite::in_memory(&MIGRATIONS).unwrap()).unwrap()
    }

    fn with(connection: Connection) -> rusqlite::Result<Self> {
        let metadata = read_metadata(&connection)?;
        let pods = RwLock::new(pods::read(&connection)?);
        Ok(Self { connection: Mutex::new(connection), metadata: Mutex::new(metadata), pods })
    }

    /// The saved marks of all files. One that is damaged is forgotten: it might be too high, and lines be taken for known
    /// ones. Without it, a collector that sends lines again has them twice.
    pub(crate) fn marks(&self) -> rusqlite::Result<HashMap<FileId, Mark>> {
        let connection = self.connection();
        let mut query = connection.prepare("SELECT file, mark, crc, day FROM log_marks")?;
        let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
        let (mut marks, mut damaged) = (HashMap::new(), Vec::new());
        for row in rows {
            let (file, mark, crc, day): (String, i64, Option<i64>, i64) = row?;
            // Those of earlier releases have none.
            if crc.is_none_or(|crc| crc == crc_of_mark(&file, mark)) {
                marks.insert(FileId(file), Mark { to: mark as u64, day });
            } else {
                tracing::error!(file, "the mark of a log file is damaged and was forgotten");
                damaged.push(file);
            }
        }
        for file in damaged {
            connection.execute("DELETE FROM log_marks WHERE file = ?1", params![file])?;
        }
        Ok(marks)
    }

    /// The last record of the log of which all lines are in partitions, as far as that was saved.
    pub(crate) fn logs_through(&self) -> rusqlite::Result<Sequence> {
        let connection = self.connection();
        let mut query = connection.prepare("SELECT sequence, crc FROM logs_through")?;
        let saved =
            query.query_row([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))).optional()?;
        let sound = saved.filter(|(sequence, crc)| crc_of(*sequence) == *crc);
        Ok(Sequence(sound.map_or(0, |(sequence, _)| sequence as u64)))
    }

    /// Forgets the marks of these files.
    pub(crate) fn forget_marks(&self, files: &[FileId]) -> rusqlite::Result<()> {
        // So many at once that nobody waits long for the catalog.
        for some in files.chunks(10_000) {
            let mut connection = self.connection();
            let change = connection.transaction()?;
            {
                let mut delete = change.prepare("DELETE FROM log_marks WHERE file = ?1")?;
                for file in some {
                    delete.execute(params![file.0])?;
                }
            }
            change.commit()?;
        }
        Ok(())
    }

    /// Saves marks, and up to where all lines are in partitions, durably, all or none.
    pub(crate) fn save_marks(
        &self,
        marks: &HashMap<FileId, Mark>,
        logs_through: Option<Sequence>,
    ) -> rusqlite::Result<()> {
        let mut connection = self.connection();
        let change = connection.transaction()?;
        {
            let mut insert = change.prepare(
                "INSERT INTO log_marks (file, mark, crc, day) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (file) DO UPDATE
                 SET mark = excluded.mark, crc = excluded.crc, day = max(day, excluded.day)
                 WHERE excluded.mark >= log_marks.mark",
            )?;
            for (file, mark) in marks {
                let to = mark.to as i64;
                insert.execute(params![file.0, to, crc_of_mark(&file.0, to), mark.day])?;
            }
        }
        if let Some(Sequence(sequence)) = logs_through {
            change.execute(
                "INSERT INTO logs_through (one, sequence, crc) VALUES (1, ?1, ?2)
                 ON CONFLICT (one) DO UPDATE SET sequence = excluded.sequence, crc = excluded.crc",
                params![sequence as i64, crc_of(sequence as i64)],
            )?;
        }
        change.commit()
    }

    /// Adds descriptions that are new.
    pub(crate) fn add_metadata(&self, metadata: &[(String, Metadata)]) -> rusqlite::Result<()> {
        let mut new: BTreeMap<&str, Vec<Metadata>> = BTreeMap::new();
        {
            let known = self.known_metadata();
            for (name, one) in metadata {
                let is_known = known.contains_key(name) || new.contains_key(&**name);
                if name.len() > NAME_MAX_BYTES || (known.len() + new.len() >= MAX_METRICS && !is_known) {
                    continue;
                }
                let one = Metadata {
                    kind: shortened(&one.kind, UNIT_MAX_BYTES),
                    help: shortened(&one.help, HELP_MAX_BYTES),
                    unit: shortened(&one.unit, UNIT_MAX_BYTES),
                };
                let of_name = known.get(name).map_or(&[][..], Vec::as_slice);
                let of_batch = new.get(&**name).map_or(&[][..], Vec::as_slice);
                let count = of_name.len() + of_batch.len();
                if count < DESCRIPTIONS_PER_METRIC && !of_name.contains(&one) && !of_batch.contains(&one) {
                    new.entry(name).or_default().push(one);
                }
            }
        }
        if new.is_empty() {
            return Ok(());
        }
        let mut connection = self.connection();
        let change = connection.transaction()?;
        for (name, one) in new.iter().flat_map(|(name, all)| all.iter().map(move |one| (name, one))) {
            change.execute(
                "INSERT OR IGNORE INTO metric_metadata (metric, kind, help, unit)
                 VALUES (?1, ?2, ?3, ?4)",
                params![name, one.kind, one.help, one.unit],
            )?;
        }
        change.commit()?;
        drop(connection);
        // What could not be written is tried again when it comes again.
        let mut known = self.known_metadata();
        for (name, all) in new {
            let of_name = known.entry(name.to_owned()).or_default();
            of_name.extend(all.into_iter().filter(|one| !of_name.contains(one)).collect::<Vec<_>>());
        }
        Ok(())
    }

    /// All descriptions by metric.
    pub(crate) fn metadata(&self) -> BTreeMap<String, Vec<Metadata>> {
        self.known_metadata().clone()
    }

    fn known_metadata(&self) -> MutexGuard<'_, BTreeMap<String, Vec<Metadata>>> {
        self.metadata.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How far a file has been taken in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The first byte that has not.
    pub(crate) to: u64,
    /// The day on which somebody last spoke of it.
    pub(crate) day: i64,
}

/// The checksum of a mark.
fn crc_of_mark(file: &str, mark: i64) -> i64 {
    i64::from(crc32c::crc32c_append(crc32c::crc32c(file.as_bytes()), &mark.to_le_bytes()))
}

fn crc_of(sequence: i64) -> i64 {
    i64::from(crc32c::crc32c(&sequence.to_le_bytes()))
}

/// The beginning of a text, so many bytes at the most.
fn shortened(text: &str, most: usize) -> String {
    text[..text.floor_char_boundary(most)].to_owned()
}

fn read_metadata(connection: &Connection) -> rusqlite::Result<BTreeMap<String, Vec<Metadata>>> {
    let mut query = connection.prepare("SELECT metric, kind, help, unit FROM metric_metadata")?;
    let rows = query.query_map([], |row| {
        let one = Metadata { kind: row.get(1)?, help: row.get(2)?, unit: row.get(3)? };
        Ok((row.get::<_, String>(0)?, one))
    })?;
    let mut metadata: BTreeMap<String, Vec<Metadata>> = BTreeMap::new();
    for row in rows {
        let (name, one) = row?;
        metadata.entry(name).or_default().push(one);
    }
    Ok(metadata)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_only_rise() {
        let catalog = Catalog::in_memory();
        let save = |to, day| {
            catalog.save_marks(&HashMap::from([(FileId("f".into()), Mark { to, day })]), None).unwrap();
        };
        save(7, 3);
        save(5, 9);
        let mark = || catalog.marks().unwrap()[&FileId("f".into())];
        assert_eq!(mark(), Mark { to: 7, day: 3 });
        save(7, 4);
        save(7, 2);
        assert_eq!(mark(), Mark { to: 7, day: 4 });
        catalog.connection().execute("UPDATE log_marks SET mark = mark + 16", []).unwrap();
        assert!(catalog.marks().unwrap().is_empty(), "a damaged mark is forgotten");
        assert!(catalog.marks().unwrap().is_empty());
    }

    #[test]
    fn a_flipped_bit_in_the_place_of_the_logs_makes_it_unknown() {
        let catalog = Catalog::in_memory();
        assert_eq!(catalog.logs_through().unwrap(), Sequence(0));
        for sequence in [9, 5] {
            catalog.save_marks(&HashMap::new(), Some(Sequence(sequence))).unwrap();
            assert_eq!(catalog.logs_through().unwrap(), Sequence(sequence));
        }
        catalog.connection().execute("UPDATE logs_through SET sequence = sequence + 16", []).unwrap();
        assert_eq!(catalog.logs_through().unwrap(), Sequence(0));
    }
}
