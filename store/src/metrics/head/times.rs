//! Columns of times that series of the head share.

use std::hash::BuildHasher;
use std::sync::Arc;

use binnacle_model::{TimeRange, Timestamp};
use foldhash::quality::RandomState;
use hashbrown::HashTable;

use crate::metrics::chunk::times;

/// The times of one frozen chunk, of which there are some.
#[derive(Debug)]
pub(crate) struct TimeColumn {
    bytes: Box<[u8]>,
    pub(crate) range: TimeRange,
    pub(crate) count: u16,
}

impl TimeColumn {
    /// As [`times::encode`] made them.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The column with bytes that [`times::encode`] made; `None` if these are none, or have no time.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let mut moments = Vec::new();
        times::decode(bytes, &mut moments)?;
        let range = TimeRange { start: Timestamp(*moments.first()?), end: Timestamp(*moments.last()?) };
        Some(Self { bytes: bytes.into(), range, count: u16::try_from(moments.len()).ok()? })
    }

    /// Adds the times to `out`.
    pub(crate) fn decode(&self, out: &mut Vec<i64>) {
        times::decode(&self.bytes, out).expect("we encoded it in this process");
    }
}

/// So many columns stay decoded: those of a target in a few hours.
const KNOWN_MAX: usize = 16;

/// Columns that one reader has decoded: the next series of the same target has the same ones, in the same order.
#[derive(Debug, Default)]
pub(crate) struct KnownTimes {
    columns: Vec<(Arc<TimeColumn>, Vec<i64>)>,
    /// Where the next one is, if things go on as they did.
    next: usize,
}

impl KnownTimes {
    /// The times of a column.
    pub(super) fn of(&mut self, column: &Arc<TimeColumn>) -> &[i64] {
        let is_it = |(known, _): &(Arc<TimeColumn>, Vec<i64>)| Arc::ptr_eq(known, column);
        let count = self.columns.len();
        let found = (0..count).map(|step| (self.next + step) % count).find(|at| is_it(&self.columns[*at]));
        let at = found.unwrap_or_else(|| {
            if count < KNOWN_MAX {
                let mut times = Vec::new();
                column.decode(&mut times);
                self.columns.push((Arc::clone(column), times));
                return count;
            }
            let oldest = self.next % count;
            let (known, times) = &mut self.columns[oldest];
            known.clone_from(column);
            times.clear();
            column.decode(times);
            oldest
        });
        self.next = at + 1;
        &self.columns[at].1
    }
}

/// All columns in use, each once.
#[derive(Debug, Default)]
pub(super) struct TimePool {
    columns: HashTable<Arc<TimeColumn>>,
    hasher: RandomState,
}

impl TimePool {
    /// The column of `times`, of which there must be one at least.
    pub(super) fn column(&mut self, times: &[i64]) -> Arc<TimeColumn> {
        let range = TimeRange { start: Timestamp(times[0]), end: Timestamp(times[times.len() - 1]) };
        let count = u16::try_from(times.len()).expect("a chunk holds few samples");
        self.restore(TimeColumn { bytes: times::encode(times).into(), range, count })
    }

    /// The same column, shared.
    pub(super) fn restore(&mut self, column: TimeColumn) -> Arc<TimeColumn> {
        let hash = self.hasher.hash_one(&column.bytes[..]);
        if let Some(known) = self.columns.find(hash, |known| known.bytes == column.bytes) {
            return Arc::clone(known);
        }
        let column = Arc::new(column);
        let Self { columns, hasher } = self;
        columns.insert_unique(hash, Arc::clone(&column), |column| hasher.hash_one(&column.bytes[..]));
        column
    }

    /// Forgets columns that no chunk has.
    pub(super) fn sweep(&mut self) {
        self.columns.retain(|column| Arc::strong_count(column) > 1);
    }
}
