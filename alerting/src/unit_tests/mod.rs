//! Unit tests of rules in promtool's format: input series, and the alerts or samples that are expected of them.
//!
//! ```text
//! file ─► tests ─► series by notation ─► memory (a store for one test)
//!                                          ▲ │
//!                  rules, every interval ──┘ └─► alerts and samples ─► compared with what is expected
//! ```
//!
//! Follows `promtool test rules` of Prometheus 3.5.

mod file;
mod memory;
mod notation;
mod run;

pub use run::{ReadFiles, TestReport, run_tests};

#[cfg(test)]
mod tests;
