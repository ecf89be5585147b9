//! Moments of the series that were read last: many of those that come have the same.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::head::TimeColumn;

/// A column of times: the number of its block and its own; of the head its address, and of an open chunk where it begins
/// and ends, with numbers that no block has so many columns for.
pub(super) type TimesId = (u64, u32);

/// Moments that are kept at the most, some two megabytes.
const KEPT_MAX: usize = 256 * 1024;

/// What an entry takes beside its moments, as many of them.
const ENTRY: usize = 16;

/// What columns of times come to.
#[derive(Debug, Clone)]
pub(super) struct Moments {
    /// Those that were wanted.
    pub(super) times: Arc<[i64]>,
    /// How many the columns have, and where the wanted ones stand among them.
    pub(super) count: usize,
    pub(super) wanted: Range<usize>,
    /// Those of an open chunk, the last ones.
    pub(super) open: Box<[i64]>,
    /// Columns of the head that stay where they are.
    pub(super) _pinned: Vec<Arc<TimeColumn>>,
}

/// Moments by where they came from.
#[derive(Debug, Default)]
pub(super) struct KnownMoments {
    by_columns: HashMap<Box<[TimesId]>, Moments, RandomState>,
    /// By the first one, the last one, and how many there are.
    by_ends: HashMap<(i64, i64, usize), Arc<[i64]>, RandomState>,
    kept: usize,
}

impl KnownMoments {
    pub(super) fn of_columns(&self, columns: &[TimesId]) -> Option<&Moments> {
        self.by_columns.get(columns)
    }

    pub(super) fn remember(&mut self, columns: &[TimesId], moments: Moments) {
        self.make_room(ENTRY + 3 * columns.len() + moments.open.len());
        self.by_columns.insert(columns.into(), moments);
    }

    /// These times, shared with earlier series that have the same.
    pub(super) fn share(&mut self, times: &[i64]) -> Arc<[i64]> {
        let [first, .., last] = times else { return times.into() };
        let ends = (*first, *last, times.len());
        if let Some(known) = self.by_ends.get(&ends).filter(|known| ***known == *times) {
            return Arc::clone(known);
        }
        self.make_room(ENTRY + times.len());
        let shared: Arc<[i64]> = times.into();
        self.by_ends.insert(ends, Arc::clone(&shared));
        shared
    }

    /// Forgets everything where so much more would be too much: what comes next is learnt in no time.
    fn make_room(&mut self, more: usize) {
        self.kept += more;
        if self.kept > KEPT_MAX {
            self.by_columns.clear();
            self.by_ends.clear();
            self.kept = more;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(times: Arc<[i64]>, count: usize) -> Moments {
        Moments { times, count, wanted: 0..count, open: Box::default(), _pinned: Vec::new() }
    }

    #[test]
    fn equal_times_are_shared_and_others_are_not() {
        let mut known = KnownMoments::default();
        let first = known.share(&[1, 2, 9]);
        assert!(Arc::ptr_eq(&first, &known.share(&[1, 2, 9])));
        assert_eq!(*known.share(&[1, 3, 9]), [1, 3, 9]);
        assert_eq!(*known.share(&[1, 2, 9]), [1, 2, 9]);
        assert_eq!(*known.share(&[4]), [4]);
        assert!(known.share(&[]).is_empty());
    }

    #[test]
    fn what_is_kept_has_a_bound() {
        let mut known = KnownMoments::default();
        for start in 0..3 * KEPT_MAX as i64 / 1000 {
            let times: Vec<i64> = (start..start + 1000).collect();
            let shared = known.share(&times);
            known.remember(&[(7, start as u32)], moments(shared, 1000));
            assert!(known.by_ends.len() <= KEPT_MAX / 1000 + 1);
        }
        let none: Arc<[i64]> = Arc::default();
        for number in 0..KEPT_MAX as u64 {
            known.remember(&[(number, 0)], moments(Arc::clone(&none), 0));
            assert!(known.by_columns.len() <= KEPT_MAX / ENTRY);
        }
    }
}
