//! Asks it: PromQL, log queries, and the read API.
//!
//! ```text
//! http ─┬─► promql ─► Queryable     selectors, functions, aggregation over columns of steps
//!       ├─► logql ──► LogSearcher   LogQL; its numbers are PromQL's engine over columns of counts
//!       └─► logs ───► LogSearcher   Lucene's syntax to `model::log_query`
//! ```
//!
//! Only [`http`] knows of tokio and axum; the rest is synchronous and polls a deadline.

pub mod http;
pub mod logql;
pub mod logs;
pub mod promql;
