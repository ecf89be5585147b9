//! Watches it: rules, alert states, SLOs and notifications.
//!
//! ```text
//! rule files ─┐
//! SLO files ──┴─► groups ─(evaluate)─► alert states ─► SQLite, ALERTS series
//!                                          │
//! alertmanager.yml ─► routes ─► dispatch ◄─┘
//!                                  └─► outbox (SQLite) ─► webhook, retried until it is taken
//! ```
//!
//! Invariants:
//! - An alert's state is committed before anybody hears of it.
//! - A notification is in the outbox before its group counts as notified, in one transaction.
//! - An evaluation that fails changes no state.

pub mod http;
pub mod log_metrics;
pub mod notify;
pub mod rules;
mod series;
pub mod slo;
mod state;
mod telemetry;
pub mod template;
pub mod unit_tests;

pub use state::AlertDb;
pub use telemetry::Telemetry;

/// What is wrong with a file, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {reason}")]
pub struct FileError {
    /// Which file.
    pub file: String,
    /// From 1; 0 where the place is not known.
    pub line: u64,
    /// From 1; 0 where the place is not known.
    pub column: u64,
    /// What is wrong.
    pub reason: String,
}

impl FileError {
    fn yaml(file: &str, error: &serde_saphyr::Error) -> Self {
        let place = error.location();
        let text = error.without_snippet().to_string();
        let reason = text.lines().next().unwrap_or_default().to_owned();
        Self {
            file: file.to_owned(),
            line: place.as_ref().map_or(0, serde_saphyr::Location::line),
            column: place.as_ref().map_or(0, serde_saphyr::Location::column),
            reason,
        }
    }

    fn at(file: &str, place: &serde_saphyr::Location, reason: impl Into<String>) -> Self {
        let (line, column) = (place.line(), place.column());
        Self { file: file.to_owned(), line, column, reason: reason.into() }
    }
}
