//! `scrape_failure_log_file`: a line of JSON for each scrape that failed, as Prometheus writes it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use binnacle_model::Timestamp;
use serde_json::json;

/// The file, which is opened when something fails first.
#[derive(Debug)]
pub(super) struct FailureLog {
    path: PathBuf,
    file: Mutex<Option<File>>,
}

impl FailureLog {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, file: Mutex::default() }
    }

    /// Adds a line. If that fails, it is said in the log, and tried anew the next time.
    pub(super) fn write(&self, at: Timestamp, job: &str, target: &str, reason: &str) {
        let line = json!({
            "time": at.to_rfc3339(), "level": "ERROR", "msg": reason, "job_name": job, "target": target,
        });
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = self.append(&mut file, &format!("{line}\n")) {
            *file = None;
            tracing::warn!(path = %self.path.display(), %error, "the log of failed scrapes cannot be written");
        }
    }

    fn append(&self, file: &mut Option<File>, line: &str) -> io::Result<()> {
        if file.is_none() {
            *file = Some(OpenOptions::new().create(true).append(true).open(&self.path)?);
        }
        file.iter_mut().try_for_each(|file| file.write_all(line.as_bytes()))
    }
}
