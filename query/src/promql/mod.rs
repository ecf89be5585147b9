//! PromQL, after Prometheus 3.x.
//!
//! ```text
//! text ─► lexer ─► parser ─► Expr ─► eval ─► Value
//!                                     └ every step of a range at once: a series is decoded once
//!                                       into a column, functions map columns to columns
//! ```
//!
//! Invariants:
//! - Parsing is linear in the text, bounded in length and depth, and every error has a position.
//! - A column has one slot per step; an absent sample is the staleness marker, to the bit.
//! - Evaluation counts every sample it holds and stops at the limit; it polls its deadline.

mod ast;
mod eval;
mod functions;
mod lexer;
mod parser;

pub use ast::{
    AggregateOp, Aggregation, BinaryOp, Call, Card, Expr, Grouping, Matching, Selector, ValueType,
};
pub use eval::{Engine, EvalError, Instant, Limits, Output, QueryParams, RangeSeries};
pub use parser::{ParseError, parse, parse_selector};
