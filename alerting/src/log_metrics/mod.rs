//! Logs to metrics: rules that count or measure the log entries that match a query.
//!
//! ```text
//! file ─► LogMetricGroup ─► LogMetrics ─┬─ live      LogFeed ─► tables ─(each interval)─► Appender
//!                                       └─ backfill  LogSearcher::scan ─► a table ─► old samples
//! ```
//!
//! A **table** holds the series of one rule: a cumulative tally for each combination of label values, in memory, from the
//! start of the process. What a restart does to it is a counter's reset, as that of any other program. A series begins
//! with a zero at the moment before its first entry, so that `increase` misses nothing, not even where a restarted
//! counter has overtaken the old one.
//!
//! Entries are matched on the store's own thread, in the subscriber: a queue would be one more place where an entry may be
//! dropped. The price is that many rules slow the indexing of a backlog down: twenty rules that look for words cost some
//! 2.8 µs for a line of a hundred bytes, indexing it about one. What one entry is asked by several rules, its words and
//! fields, is made once, and nothing there waits for a disk.
//!
//! Invariants:
//! - An entry counts once in each rule that it matches, in each life of the process.
//! - Samples of the live side never lie on a whole second, and those of a backfill always do: that is how one knows the
//!   other's.
//! - A rule has a bound on series; what is beyond counts in one series with `otel_metric_overflow="true"`.

mod backfill;
mod file;
mod live;
mod table;
#[cfg(test)]
mod tests;

pub use backfill::{Backfilled, Span};
pub use file::{
    LogMetricGroup, LogMetricRule, Measure, ReadLogMetrics, Selection, Source, check_disjoint,
    is_log_metrics, parse_log_metrics,
};
pub use live::LogMetrics;
