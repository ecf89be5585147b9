//! Keeps it: metrics, logs, and what is known of both.
//!
//! ```text
//! Appender ───► metrics ─► head ─(2 h)─► blocks
//!                  ├─► wal (one for both, fdatasync before an append returns)
//! LogAppender ─► logs ──► tantivy partitions, a day each
//!                  └─► catalog (SQLite): marks of files, metadata of metrics
//! ```
//!
//! Everything here is synchronous and takes the time as an argument or from a [`Clock`]; all bytes
//! go through [`fs`].
//!
//! [`Clock`]: binnacle_model::time::Clock

pub mod fs;
mod header;
pub mod wal;
