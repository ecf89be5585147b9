//! Rules: Prometheus's rule files, evaluated on time.
//!
//! ```text
//! file ─► RuleGroup ─► Evaluator ─┬─► record: a series
//!                                 └─► alert: pending ─(for)─► firing ─► resolved
//! ```

mod alert;
mod evaluator;
mod file;

pub use alert::{Alert, AlertState};
pub use evaluator::{Evaluator, GroupStatus, RuleHealth, RuleStatus, Settings};
pub use file::{Rule, RuleGroup, RuleKind, parse_rules};
