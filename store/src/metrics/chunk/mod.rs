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

use binnacle_model::{Sample, TimeRange, Timestamp};

/// Samples of one column at the most: more would make reading a single moment slow.
pub(crate) const COLUMN_MAX_SAMPLES: usize = 4096;

/// Columns on their way to samples.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(crate) times: Vec<i64>,
    pub(crate) values: Vec<f64>,
}

impl Scratch {
    pub(crate) fn clear(&mut self) {
        self.times.clear();
        self.values.clear();
    }

    pub(crate) fn push(&mut self, sample: Sample) {
        self.times.push(sample.timestamp.0);
        self.values.push(sample.value);
    }

    pub(crate) fn append_to(&self, range: TimeRange, out: &mut Vec<Sample>) {
        let from = self.times.partition_point(|time| *time < range.start.0);
        let to = self.times.partition_point(|time| *time <= range.end.0).max(from);
        let pairs = self.times[from..to].iter().zip(&self.values[from..to]);
        out.extend(pairs.map(|(time, value)| Sample { timestamp: Timestamp(*time), value: *value }));
    }
}
