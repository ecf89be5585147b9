//! Notifications, after Alertmanager: routes, groups, and an outbox that loses nothing.
//!
//! ```text
//! alerts ─► route tree ─► group (receiver, group labels) ─(group_wait, group_interval)─► flush
//!                                                             │ is there anything to say?
//!                                                             └─► outbox ─► send, retry ─► receiver
//! ```
//!
//! Invariants:
//! - What a group was told and the message that tells it are one transaction.
//! - Messages to one address go out in their order.

mod config;
mod dispatch;
mod inhibitor;
mod payload;
mod pool;
mod send;
mod silences;
mod view;

use std::sync::{Arc, PoisonError, RwLock};

use binnacle_model::{Labels, Timestamp};

pub use config::{AlertmanagerConfig, parse_alertmanager, parse_matchers};
pub use dispatch::Dispatcher;
pub use payload::fingerprint;
pub use send::Sender;
pub use silences::{Silence, SilenceError, SilenceMatcher, SilenceState, Silences};
pub use view::{AlertFilter, AlertGroup, AlertStatus};

/// An alert as the rules hand it over.
#[derive(Debug, Clone, PartialEq)]
pub struct SentAlert {
    /// What identifies it.
    pub labels: Labels,
    /// What it says.
    pub annotations: Labels,
    /// Since when it fires.
    pub starts_at: Timestamp,
    /// When it ended, or will unless it is heard of again; an alert of our own rules has no end until it ended.
    pub ends_at: Option<Timestamp>,
    /// Where its rule's query can be seen.
    pub generator_url: String,
}

impl SentAlert {
    /// Whether it has ended by now.
    pub fn is_resolved(&self, now: Timestamp) -> bool {
        self.ends_at.is_some_and(|end| end <= now)
    }
}

/// The configuration that holds now. Copies share it.
#[derive(Debug, Clone)]
pub struct InForce(Arc<RwLock<Arc<AlertmanagerConfig>>>);

impl InForce {
    /// What holds from the beginning.
    pub fn new(config: AlertmanagerConfig) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(config))))
    }

    /// What holds now.
    pub fn get(&self) -> Arc<AlertmanagerConfig> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, config: Arc<AlertmanagerConfig>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = config;
    }
}

/// Whoever hears of alerts.
pub trait AlertSink: Send + Sync {
    /// Takes the present state of alerts; the same ones come again and again.
    fn receive(&self, alerts: Vec<SentAlert>);
}
