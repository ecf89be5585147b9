//! Chunks: the samples of one series in as few bytes as they need.
//!
//! ```text
//! arriving samples ─► open (XOR, with times) ─► column of times  (one for all series of a target)
//!                                            └► column of values (XOR in the head; in a block whatever is
//!                                               smallest: constant, XOR, or decimals packed by pco)
//! ```
//!
//! Every bit of a value survives, payloads of NaNs included.

mod bits;
pub(crate) mod interleaved;
pub(crate) mod open;
pub(crate) mod times;
pub(crate) mod values;

/// Samples of one column at the most: more would make reading a single moment slow.
pub(crate) const COLUMN_MAX_SAMPLES: usize = 4096;
