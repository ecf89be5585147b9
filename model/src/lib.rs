//! The words that all crates share, and the traits at which they meet.
//!
//! ```text
//! labels ── matcher          what names a series, what selects it (regexes: as Go reads them)
//! sample ── samples ── time  what a series is made of
//! log ── log_query ── tokens one line, and what asks for it
//! meaning                    what a message says of itself: level, and fields of JSON and logfmt
//! text                       what a query's strings are
//! push                       how collectors send lines to a store
//! prompb                     Prometheus's messages for remote read and write
//! storage ── deadline        the seam: `query` and `collector` know a store only by this
//! ```
//!
//! Nothing here touches a file, a socket or a clock.

mod deadline;
pub mod histogram;
pub mod labels;
pub mod log;
pub mod log_query;
pub mod matcher;
pub mod meaning;
pub mod prompb;
pub mod push;
pub mod regexes;
pub mod sample;
pub mod samples;
pub mod storage;
pub mod template;
pub mod text;
pub mod time;
pub mod tokens;
pub mod yaml;

pub use histogram::Histogram;
pub use labels::{Interner, Label, Labels};
pub use matcher::{MatchOp, Matcher};
pub use sample::{STALE_NAN, Sample};
pub use samples::{SampleSlice, Samples};
pub use time::{LogTime, TimeRange, Timestamp};
