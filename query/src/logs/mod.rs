//! Log queries: Lucene's syntax, and live tail.
//!
//! ```text
//! text ─► parser ─► LogQuery ─┬─► LogSearcher   stored entries
//!                             └─► Tail          entries as they come
//! ```
//!
//! Text that is no query, such as a pasted URL or JSON, becomes a phrase, and a hint says so: it is
//! never an error, and never silently something else.

mod parser;
mod tail;

pub use parser::{ParsedQuery, QueryTooLarge, parse};
pub use tail::{Tail, TailItem};
