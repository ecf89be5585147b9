//! Silences: what nobody is told of for a while, who said so, and why. After Alertmanager 0.33.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use binnacle_model::matcher::all_match;
use binnacle_model::time::Clock;
use binnacle_model::{Labels, MatchOp, Matcher, Timestamp};
use serde::{Deserialize, Serialize};

use crate::state::AlertDb;

/// A silence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silence {
    /// A UUID; empty for one that is new.
    pub id: String,
    /// All of them must hold.
    pub matchers: Vec<SilenceMatcher>,
    /// In Unix milliseconds.
    pub starts_at: i64,
    /// In Unix milliseconds.
    pub ends_at: i64,
    /// In Unix milliseconds.
    pub updated_at: i64,
    /// Whoever said so.
    pub created_by: String,
    /// Why.
    pub comment: String,
}

/// A matcher as API v2 has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SilenceMatcher {
    /// Of a label.
    pub name: String,
    /// A text or a regular expression.
    pub value: String,
    /// Which of both.
    pub is_regex: bool,
    /// Whether it must match, or must not.
    #[serde(default = "yes")]
    pub is_equal: bool,
}

fn yes() -> bool {
    true
}

/// Where a silence is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SilenceState {
    /// It holds.
    Active,
    /// It will hold.
    Pending,
    /// It held.
    Expired,
}

impl SilenceState {
    /// As API v2 names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Pending => "pending",
            Self::Expired => "expired",
        }
    }
}

/// Why a silence was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SilenceError {
    /// It would silence nothing that can be named, or everything.
    #[error("{0}")]
    Invalid(String),
    /// There is none with this id.
    #[error("silence not found")]
    NotFound,
    /// It was not saved.
    #[error("silence was not saved: {0}")]
    Storage(#[from] rusqlite::Error),
}

/// Expired silences are shown this long.
const KEPT_MS: i64 = 5 * 24 * 3_600_000;

/// Longest silence as JSON.
const MAX_BYTES: usize = 64 * 1024;

/// Most silences that are kept, expired ones among them.
const MAX_COUNT: usize = 20_000;

impl Silence {
    /// Where it is in its life.
    pub fn state(&self, now: Timestamp) -> SilenceState {
        if now.0 < self.starts_at {
            SilenceState::Pending
        } else if now.0 < self.ends_at {
            SilenceState::Active
        } else {
            SilenceState::Expired
        }
    }

    fn compile(&self) -> Result<Vec<Matcher>, String> {
        if self.matchers.is_empty() {
            return Err("invalid silence: at least one matcher required".to_owned());
        }
        let one = |matcher: &SilenceMatcher| {
            if matcher.name.is_empty() {
                return Err("invalid silence: invalid label matcher: invalid label name \"\"".to_owned());
            }
            let op = match (matcher.is_regex, matcher.is_equal) {
                (false, true) => MatchOp::Equal,
                (false, false) => MatchOp::NotEqual,
                (true, true) => MatchOp::Regex,
                (true, false) => MatchOp::NotRegex,
            };
            Matcher::new(&matcher.name, op, &matcher.value)
                .map_err(|error| format!("invalid silence: invalid label matcher: {error}"))
        };
        let compiled = self.matchers.iter().map(one).collect::<Result<Vec<_>, _>>()?;
        // Otherwise everything would be silent.
        if compiled.iter().all(|matcher| matcher.matches("")) {
            return Err("invalid silence: at least one matcher must not match the empty string".to_owned());
        }
        Ok(compiled)
    }
}

#[derive(Debug, Clone)]
struct Kept {
    silence: Silence,
    matchers: Vec<Matcher>,
}

/// All silences, in memory and in the database.
pub struct Silences {
    db: Arc<AlertDb>,
    clock: Arc<dyn Clock>,
    kept: Mutex<BTreeMap<String, Kept>>,
}

impl Silences {
    /// What the database has.
    ///
    /// # Errors
    /// It cannot be read: alerts that somebody silenced would be told.
    pub fn open(db: Arc<AlertDb>, clock: Arc<dyn Clock>) -> rusqlite::Result<Self> {
        let mut kept = BTreeMap::new();
        for silence in db.silences()? {
            match silence.compile() {
                Ok(matchers) => _ = kept.insert(silence.id.clone(), Kept { silence, matchers }),
                Err(error) => tracing::error!(id = silence.id, error, "a silence cannot be used"),
            }
        }
        Ok(Self { db, clock, kept: Mutex::new(kept) })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those that hold for an alert now.
    pub(super) fn mutes(&self, labels: &Labels, now: Timestamp) -> Vec<String> {
        let kept = self.lock();
        let holds = |kept: &&Kept| {
            kept.silence.state(now) == SilenceState::Active && all_match(&kept.matchers, labels)
        };
        kept.values().filter(holds).map(|kept| kept.silence.id.clone()).collect()
    }

    /// All of them, those first that hold, by their end.
    pub fn list(&self) -> Vec<Silence> {
        let now = self.clock.now();
        let mut all: Vec<Silence> = self.lock().values().map(|kept| kept.silence.clone()).collect();
        all.sort_by_key(|silence| match silence.state(now) {
            SilenceState::Active => (SilenceState::Active, silence.ends_at),
            SilenceState::Pending => (SilenceState::Pending, silence.starts_at),
            // The last one that expired comes first.
            SilenceState::Expired => (SilenceState::Expired, -silence.ends_at),
        });
        all
    }

    /// One of them.
    pub fn get(&self, id: &str) -> Option<Silence> {
        self.lock().get(id).map(|kept| kept.silence.clone())
    }

    /// Takes a new silence, or changes one that has an id; answers the id, which is another one where too much changed.
    ///
    /// # Errors
    /// It is none, there is none with that id, or it was not saved.
    pub fn set(&self, mut silence: Silence) -> Result<String, SilenceError> {
        let now = self.clock.now();
        let matchers = silence.compile().map_err(SilenceError::Invalid)?;
        if serde_json::to_string(&silence).map_or(0, |text| text.len()) > MAX_BYTES {
            return Err(SilenceError::Invalid(format!("silence is longer than {MAX_BYTES} bytes")));
        }
        let mut kept = self.lock();
        let mut replaced = None;
        if !silence.id.is_empty() {
            let old = &kept.get(&silence.id).ok_or(SilenceError::NotFound)?.silence;
            if can_change(old, &silence, now) {
                silence.updated_at = now.0;
                self.db.save_silence(&silence)?;
                let id = silence.id.clone();
                kept.insert(id.clone(), Kept { silence, matchers });
                return Ok(id);
            }
            replaced = (old.state(now) != SilenceState::Expired).then(|| expired(old, now));
        }
        if kept.len() >= MAX_COUNT {
            return Err(SilenceError::Invalid(format!("there are {MAX_COUNT} silences already")));
        }
        silence.id = uuid::Uuid::new_v4().to_string();
        silence.starts_at = silence.starts_at.max(now.0);
        silence.updated_at = now.0;
        self.db.save_silence(&silence)?;
        if let Some(old) = replaced {
            self.db.save_silence(&old)?;
            if let Some(kept) = kept.get_mut(&old.id) {
                kept.silence = old;
            }
        }
        let id = silence.id.clone();
        kept.insert(id.clone(), Kept { silence, matchers });
        Ok(id)
    }

    /// Ends one now.
    ///
    /// # Errors
    /// There is none with that id, or it was not saved.
    pub fn expire(&self, id: &str) -> Result<(), SilenceError> {
        let now = self.clock.now();
        let mut kept = self.lock();
        let one = kept.get_mut(id).ok_or(SilenceError::NotFound)?;
        if one.silence.state(now) != SilenceState::Expired {
            let ended = expired(&one.silence, now);
            self.db.save_silence(&ended)?;
            one.silence = ended;
        }
        Ok(())
    }

    /// Forgets those that expired long ago.
    pub(super) fn sweep(&self) -> rusqlite::Result<()> {
        let oldest = self.clock.now().0 - KEPT_MS;
        self.db.forget_silences(Timestamp(oldest))?;
        self.lock().retain(|_, kept| kept.silence.ends_at >= oldest);
        Ok(())
    }
}

fn expired(silence: &Silence, now: Timestamp) -> Silence {
    Silence { starts_at: silence.starts_at.min(now.0), ends_at: now.0, updated_at: now.0, ..silence.clone() }
}

/// Whether a silence stays the same one: what it silenced so far must not change.
fn can_change(old: &Silence, new: &Silence, now: Timestamp) -> bool {
    let sorted = |silence: &Silence| {
        let mut matchers = silence.matchers.clone();
        matchers.sort();
        matchers
    };
    if sorted(old) != sorted(new) {
        return false;
    }
    match old.state(now) {
        SilenceState::Active => new.starts_at / 1000 == old.starts_at / 1000 && new.ends_at >= now.0,
        SilenceState::Pending => new.starts_at >= now.0,
        SilenceState::Expired => false,
    }
}
