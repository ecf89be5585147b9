//! LogQL, after Loki 3.x.
//!
//! ```text
//! text ─► lexer ─► parser ─► Query ─┬─► plan ─► LogQuery (what the store can decide) + stages (what it cannot)
//!                            │      ├─► Selection   entries of a log query, and live tail
//!                            │      └─► eval        range aggregations become columns: by the store's sums, or by a
//!                            └► printer             scan; everything above them is PromQL's engine over these columns
//! ```
//!
//! Invariants:
//! - Parsing is linear in the text, bounded in length and depth, and every error has Loki's wording.
//! - What the plan asks of the store never leaves out an entry that the stages would keep.
//! - A range is `(start, end]`, as in Loki; the store's spans are `[start, end)`, one nanosecond later.

mod ast;
mod eval;
mod lexer;
mod parser;
mod plan;
mod printer;
mod row;
mod selection;
mod stages;
mod template;
mod units;

pub use ast::{LogExpr, Metric, Query};
pub use eval::{MetricError, MetricParams, metric_instant, metric_range};
pub use parser::{ParseError, parse, parse_selector};
pub use plan::Plan;
pub use printer::pretty;
pub use row::{Kind, NamedLabel, Row};
pub use selection::{Found, Selected, select, select_noting};
pub use units::duration_or_size;
