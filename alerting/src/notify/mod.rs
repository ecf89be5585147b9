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
mod send;

use binnacle_model::{Labels, Timestamp};

pub use config::{AlertmanagerConfig, parse_alertmanager, parse_matchers};
pub use dispatch::Dispatcher;
pub use payload::fingerprint;
pub use send::Sender;

/// An alert as the rules hand it over.
#[derive(Debug, Clone, PartialEq)]
pub struct SentAlert {
    /// What identifies it.
    pub labels: Labels,
    /// What it says.
    pub annotations: Labels,
    /// Since when it fires.
    pub starts_at: Timestamp,
    /// When it ended, if it has.
    pub ends_at: Option<Timestamp>,
    /// Where its rule's query can be seen.
    pub generator_url: String,
}

/// Whoever hears of alerts.
pub trait AlertSink: Send + Sync {
    /// Takes the present state of alerts; the same ones come again and again.
    fn receive(&self, alerts: Vec<SentAlert>);
}
