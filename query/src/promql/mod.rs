//! PromQL, after Prometheus 3.x.
//!
//! ```text
//! text ─► lexer ─► parser ─► Expr ─► features ─► eval ─► Answer
//!                             │                   └ every step of a range at once: a series is decoded
//!                             ├► printer            once into a column, functions map columns to columns
//!                             └► tree (JSON)
//! ```
//!
//! Invariants:
//! - Parsing is linear in the text, bounded in length and depth, and every error has a position.
//! - A column has one slot per step; an absent sample is the staleness marker, to the bit.
//! - Evaluation counts every sample it holds and stops at the limit; it polls its deadline.

mod ast;
mod eval;
mod features;
mod functions;
mod lexer;
mod notes;
mod parser;
mod printer;
mod tree;

pub use ast::{
    AggregateOp, Aggregation, Binary, BinaryOp, Call, Card, Expr, Grouping, Kind, Matching, Selector, Span,
    ValueType,
};
pub(crate) use ast::{Borders, Notation, Reach};
pub use eval::{Answer, Engine, EvalError, Instant, Limits, Output, QueryParams, RangeSeries, SampleStats};
pub use features::Features;
pub use functions::names as function_names;
pub(crate) use lexer::string as quoted_text;
pub use notes::Notes;
pub use parser::{ParseError, parse, parse_selector};
pub(crate) use printer::matching;
pub use printer::pretty;
pub use tree::tree;
