//! How long a target's loop goes on: discovery may take a target away and bring it back before anybody noticed.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Stays,
    /// Its series end when it would be scraped next.
    Leaves,
    /// Somebody else goes on with its series.
    EndsAtOnce,
    Over,
}

/// What a loop does when it is time to scrape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Scrape,
    /// Ends the series, and itself.
    Leave,
}

/// Whether a loop goes on.
#[derive(Debug)]
pub(super) struct Life {
    phase: Mutex<Phase>,
    ends: Notify,
}

impl Default for Life {
    fn default() -> Self {
        Self { phase: Mutex::new(Phase::Stays), ends: Notify::new() }
    }
}

impl Life {
    fn lock(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The target is gone.
    pub(super) fn leave(&self) {
        let mut phase = self.lock();
        if *phase == Phase::Stays {
            *phase = Phase::Leaves;
        }
    }

    /// The target is back; `false` if that is too late for this loop.
    pub(super) fn come_back(&self) -> bool {
        let mut phase = self.lock();
        if *phase == Phase::Leaves {
            *phase = Phase::Stays;
        }
        *phase == Phase::Stays
    }

    /// Somebody else goes on with the target, or with its series.
    pub(super) fn end_at_once(&self) {
        let mut phase = self.lock();
        if *phase != Phase::Over {
            *phase = Phase::EndsAtOnce;
        }
        self.ends.notify_one();
    }

    /// Waits until somebody says [`Self::end_at_once`].
    pub(super) async fn ended_at_once(&self) {
        self.ends.notified().await;
    }

    /// Asked by the loop when it is time to scrape; after [`Next::Leave`] there is no way back.
    pub(super) fn next(&self) -> Next {
        let mut phase = self.lock();
        if *phase == Phase::Leaves {
            *phase = Phase::Over;
            return Next::Leave;
        }
        Next::Scrape
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_comes_back_until_its_series_have_ended() {
        let life = Life::default();
        assert_eq!(life.next(), Next::Scrape);
        life.leave();
        assert!(life.come_back());
        assert_eq!(life.next(), Next::Scrape);
        life.leave();
        assert_eq!(life.next(), Next::Leave);
        assert!(!life.come_back());
    }
}
