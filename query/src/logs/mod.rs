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
mod pods;
mod tail;

use binnacle_model::LogTime;
use binnacle_model::log_query::LogQuery;

pub use lucene::{Note, ParsedQuery, QueryTooLarge, parse};
pub use pods::WithPods;
pub use tail::{Missed, Position, Since, Tail, TailItem, missed};

/// The query alone, for whoever keeps queries as text; `now` is what relative times in it go by.
///
/// # Errors
/// A sentence, if the query is too large.
pub fn parse_plain(text: &str, now: LogTime) -> Result<LogQuery, String> {
    parse(text, now).map(|parsed| parsed.query).map_err(|error| error.to_string())
}
