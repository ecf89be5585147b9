//! SQLite files: opened, brought to the schema of this release, and set aside if they are damaged.
//!
//! What stands in them makes work easier and answers better, but all of it can be learnt again; so that a damaged
//! file must not keep the program from starting.

use std::io;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, TransactionBehavior};

use crate::fs::{Disk, RealDisk};

/// `user_version` XOR this is in `application_id`, so that a flipped bit is not taken for a newer release.
const CHECK: i64 = 0x0062_6e63;

/// So many damaged files of one name are kept aside.
const ASIDE_MAX: usize = 9;

/// Why a SQLite file could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenSqliteError {
    /// SQLite or the disk refused.
    #[error("cannot open {}", path.display())]
    Sqlite {
        /// Which file.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        cause: rusqlite::Error,
    },
    /// A damaged file could not be moved out of the way.
    #[error("{} is damaged and cannot be set aside; remove it", path.display())]
    Aside {
        /// Which file.
        path: PathBuf,
        /// What the disk said.
        #[source]
        cause: io::Error,
    },
    /// A newer release wrote it. Refuse to start rather than misread it.
    #[error("{} has version {found}, newer than {known}; start the release that wrote it, or a newer one",
        path.display())]
    TooNew {
        /// Which file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The newest that this release knows.
        known: usize,
    },
}

enum Refusal {
    TooNew(i64),
    Damaged(String),
    Other(rusqlite::Error),
}

impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged(error.to_string()),
            _ if matches!(
                error,
                rusqlite::Error::Utf8Error(..)
                    | rusqlite::Error::FromSqlConversionFailure(..)
                    | rusqlite::Error::InvalidColumnType(..)
            ) =>
            {
                Self::Damaged(error.to_string())
            }
            // What SQLite says of a format number that no release of it ever wrote.
            _ if error.to_string().contains("unsupported file format") => Self::Damaged(error.to_string()),
            _ => Self::Other(error),
        }
    }
}

/// Opens the file at `path`, or makes it. Each of `migrations` takes the schema one version further.
pub fn open(path: &Path, migrations: &[&str]) -> Result<Connection, OpenSqliteError> {
    let file = path.to_path_buf();
    match try_open(path, migrations) {
        Ok(connection) => Ok(connection),
        Err(Refusal::TooNew(found)) => {
            Err(OpenSqliteError::TooNew { path: file, found, known: migrations.len() })
        }
        Err(Refusal::Other(cause)) => Err(OpenSqliteError::Sqlite { path: file, cause }),
        Err(Refusal::Damaged(reason)) => {
            let aside =
                set_aside(path).map_err(|cause| OpenSqliteError::Aside { path: file.clone(), cause })?;
            tracing::error!(
                path = %path.display(), %reason, kept = %aside.display(),
                "a damaged SQLite file was set aside; what it held is learnt anew"
            );
            try_open(path, migrations).map_err(|refusal| {
                let cause = match refusal {
                    Refusal::Other(cause) => cause,
                    Refusal::TooNew(_) | Refusal::Damaged(_) => rusqlite::Error::InvalidQuery,
                };
                OpenSqliteError::Sqlite { path: file, cause }
            })
        }
    }
}

fn try_open(path: &Path, migrations: &[&str]) -> Result<Connection, Refusal> {
    let mut connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    let found: String = connection.pragma_query_value(None, "quick_check", |row| row.get(0))?;
    if found != "ok" {
        return Err(Refusal::Damaged(found));
    }
    migrate(&mut connection, migrations)?;
    if schema(&connection)? != schema(&in_memory(migrations)?)? {
        return Err(Refusal::Damaged("the schema is not that of its version".to_owned()));
    }
    Ok(connection)
}

/// A database that lives as long as the connection.
pub(crate) fn in_memory(migrations: &[&str]) -> rusqlite::Result<Connection> {
    let connection = Connection::open_in_memory()?;
    migrations.iter().try_for_each(|migration| connection.execute_batch(migration))?;
    Ok(connection)
}

fn migrate(connection: &mut Connection, migrations: &[&str]) -> Result<(), Refusal> {
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let check: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    // The first release wrote no check, but also no version above one.
    let is_sound = check == found ^ CHECK || (check == 0 && found <= 1);
    let version = usize::try_from(found).ok().filter(|_| is_sound);
    let version =
        version.ok_or_else(|| Refusal::Damaged(format!("its version {found} has a wrong check")))?;
    if version > migrations.len() {
        return Err(Refusal::TooNew(found));
    }
    for (number, migration) in migrations.iter().enumerate().skip(version) {
        let change = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        change.execute_batch(migration)?;
        change.pragma_update(None, "user_version", number as i64 + 1)?;
        change.pragma_update(None, "application_id", (number as i64 + 1) ^ CHECK)?;
        change.commit()?;
    }
    if check == 0 && version == migrations.len() {
        connection.pragma_update(None, "application_id", found ^ CHECK)?;
    }
    Ok(())
}

/// What the tables and indexes are, by name.
fn schema(connection: &Connection) -> rusqlite::Result<Vec<(String, Option<String>)>> {
    let mut query = connection.prepare("SELECT name, sql FROM sqlite_schema ORDER BY name")?;
    let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}

fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let disk = RealDisk;
    let named = |suffix: &str| PathBuf::from(format!("{}{suffix}", path.display()));
    let free = (0..ASIDE_MAX).map(|number| named(&format!(".corrupt-{number}")));
    let mut aside = named(&format!(".corrupt-{ASIDE_MAX}"));
    for one in free {
        if !disk.exists(&one)? {
            aside = one;
            break;
        }
    }
    disk.rename(path, &aside)?;
    for suffix in ["-wal", "-shm"] {
        if disk.exists(&named(suffix))? {
            disk.remove_file(&named(suffix))?;
        }
    }
    disk.sync_dir(path.parent().unwrap_or(Path::new(".")))?;
    Ok(aside)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "damages files")]
mod tests {
    use super::*;

    const MIGRATIONS: [&str; 2] =
        ["CREATE TABLE one (a INTEGER NOT NULL) STRICT", "CREATE TABLE two (b TEXT NOT NULL) STRICT"];

    fn put(connection: &Connection) {
        connection.execute("INSERT INTO one VALUES (7)", []).unwrap();
    }

    fn count(connection: &Connection) -> i64 {
        connection.query_row("SELECT count(*) FROM one", [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn rows_survive_a_restart_and_a_new_release() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sqlite");
        put(&open(&path, &MIGRATIONS[..1]).unwrap());
        assert_eq!(count(&open(&path, &MIGRATIONS).unwrap()), 1);
        let older = open(&path, &MIGRATIONS[..1]);
        assert!(matches!(older, Err(OpenSqliteError::TooNew { found: 2, known: 1, .. })));
    }

    #[test]
    fn whatever_bit_flips_the_file_opens() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sqlite");
        put(&open(&path, &MIGRATIONS).unwrap());
        let sound = std::fs::read(&path).unwrap();
        let mut aside = 0;
        for at in (0..sound.len() * 8).step_by(29) {
            let mut bytes = sound.clone();
            bytes[at / 8] ^= 1 << (at % 8);
            std::fs::write(&path, &bytes).unwrap();
            let connection = open(&path, &MIGRATIONS).unwrap_or_else(|error| panic!("bit {at}: {error:?}"));
            assert!(count(&connection) <= 1);
            put(&connection);
            drop(connection);
            let kept = dir.path().join("x.sqlite.corrupt-0");
            if kept.exists() {
                aside += 1;
                assert_eq!(std::fs::read(&kept).unwrap().len(), sound.len(), "what was damaged is kept");
                std::fs::remove_file(&kept).unwrap();
            }
        }
        assert!(aside > 10, "{aside}: damage to the header and the schema is found");
    }
}
