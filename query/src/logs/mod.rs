//! Log queries: Lucene's syntax, and live tail.
//!
//! ```text
//! text ─► lucene ─► LogQuery ─┬─► LogSearcher   stored entries
//!                             └─► Tail          entries as they come
//! ```
//!
//! Text that is no query, such as a pasted URL or JSON, becomes a phrase, and a note says so: it is
//! never an error, and never silently something else.

pub mod lucene;
mod tail;

pub use lucene::{Note, ParsedQuery, QueryTooLarge, parse};
pub use tail::{Missed, Position, Since, Tail, TailItem, missed};
