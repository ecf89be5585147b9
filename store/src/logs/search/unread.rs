//! What a search could not read, and how long it has waited for archives.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::logs::archive::{self, Object};

/// So long a search waits for archives, on all its threads together; what is left then is said, and not asked for. It is
/// less than what most queries may take, so that they end with what there is.
const WAIT_MAX: Duration = Duration::from_mins(1);

/// Reasons that are told apart; what more there is counts with the last.
const REASONS_MAX: usize = 16;

/// The archive, if it is in one, and a reason.
type Reason = (Option<String>, String);

/// Rows and pages by where they are and why they could not be read.
#[derive(Default)]
pub(super) struct Unread {
    reasons: Mutex<BTreeMap<Reason, (u64, u64)>>,
    /// Nanoseconds.
    waited: AtomicU64,
}

/// Counts what this thread waits for archives until it is dropped.
pub(super) struct Waiting<'a> {
    unread: &'a Unread,
    before: Duration,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let waited = archive::waited().saturating_sub(self.before);
        let nanos = u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX);
        self.unread.waited.fetch_add(nanos, Ordering::Relaxed);
    }
}

impl Unread {
    /// Whether archives are asked for no more.
    pub(super) fn is_too_slow(&self) -> bool {
        u128::from(self.waited.load(Ordering::Relaxed)) > WAIT_MAX.as_nanos()
    }

    /// A page of an archive is read as long as this is held.
    pub(super) fn wait(&self) -> Waiting<'_> {
        Waiting { unread: self, before: archive::waited() }
    }

    /// Notes a page.
    pub(super) fn add(&self, rows: u64, object: Option<&Arc<Object>>, reason: String) {
        let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = (object.map(|object| object.archive().url().to_owned()), reason);
        if reasons.len() >= REASONS_MAX && !reasons.contains_key(&key) {
            "and more".clone_into(&mut key.1);
        }
        let sums = reasons.entry(key).or_default();
        *sums = (sums.0 + rows, sums.1 + 1);
    }

    /// A sentence for each reason.
    pub(super) fn sentences(self) -> Vec<String> {
        let reasons = self.reasons.into_inner().unwrap_or_else(PoisonError::into_inner);
        let sentence =
            |((archive, reason), (rows, pages)): ((Option<String>, String), (u64, u64))| match archive {
                Some(url) => {
                    format!("{rows} archived log lines ({pages} pages) could not be read: {url}: {reason}")
                }
                None => format!("{rows} log lines could not be read: {reason}"),
            };
        reasons.into_iter().map(sentence).collect()
    }
}
