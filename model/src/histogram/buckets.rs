//! Counts by bucket index.

use std::fmt;

use super::short;

/// One bucket, with its bounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bucket {
    /// Where it begins.
    pub lower: f64,
    /// Where it ends.
    pub upper: f64,
    /// Whether an observation at `lower` belongs to it.
    pub lower_inclusive: bool,
    /// Whether an observation at `upper` belongs to it.
    pub upper_inclusive: bool,
    /// Observations in it, and not in those below.
    pub count: f64,
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let open = if self.lower_inclusive { '[' } else { '(' };
        let close = if self.upper_inclusive { ']' } else { ')' };
        write!(f, "{open}{},{}{close}:{}", short(self.lower), short(self.upper), short(self.count))
    }
}

/// Counts by index, ascending.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Buckets {
    indexes: Vec<i32>,
    counts: Vec<f64>,
}

impl Buckets {
    /// Adds a bucket behind the last one.
    ///
    /// # Panics
    /// If its index does not ascend.
    pub fn push(&mut self, index: i32, count: f64) {
        assert!(self.indexes.last().is_none_or(|last| *last < index), "bucket indexes must ascend");
        self.indexes.push(index);
        self.counts.push(count);
    }

    /// How many buckets are listed.
    pub fn len(&self) -> usize {
        self.indexes.len()
    }

    /// Whether none is listed.
    pub fn is_empty(&self) -> bool {
        self.indexes.is_empty()
    }

    /// Ascending.
    pub fn indexes(&self) -> &[i32] {
        &self.indexes
    }

    /// In the order of [`Self::indexes`].
    pub fn counts(&self) -> &[f64] {
        &self.counts
    }

    /// In the order of [`Self::indexes`].
    pub fn counts_mut(&mut self) -> &mut [f64] {
        &mut self.counts
    }

    /// Index and count of each bucket.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (i32, f64)> + '_ {
        self.indexes.iter().copied().zip(self.counts.iter().copied())
    }

    /// As [`Self::iter`], without empty buckets.
    pub fn populated(&self) -> impl Iterator<Item = (i32, f64)> + '_ {
        self.iter().filter(|(_, count)| *count != 0.0)
    }

    /// The count at `index`, if it is listed.
    pub fn get(&self, index: i32) -> Option<f64> {
        self.indexes.binary_search(&index).ok().map(|at| self.counts[at])
    }

    /// Leaves out empty buckets.
    pub fn compact(&mut self) {
        if self.counts.contains(&0.0) {
            *self = self.populated().collect();
        }
    }

    /// The same counts under other indexes, which must not descend; equal ones are added up.
    #[must_use]
    pub(super) fn moved(&self, mut to: impl FnMut(i32) -> i32) -> Self {
        let mut moved = Self::default();
        for (index, count) in self.iter() {
            let index = to(index);
            match moved.counts.last_mut() {
                Some(last) if moved.indexes.last() == Some(&index) => *last += count,
                _ => moved.push(index, count),
            }
        }
        moved
    }

    /// Leaves out the first `count` buckets.
    pub(super) fn drop_first(&mut self, count: usize) {
        self.indexes.drain(..count);
        self.counts.drain(..count);
    }

    /// Joins the counts of two by index; a bucket that one of them lacks counts as zero.
    #[must_use]
    pub(super) fn joined(&self, other: &Self, mut join: impl FnMut(f64, f64) -> f64) -> Self {
        if self.indexes == other.indexes {
            let counts = self.counts.iter().zip(&other.counts).map(|(a, b)| join(*a, *b)).collect();
            return Self { indexes: self.indexes.clone(), counts };
        }
        let mut joined = Self::default();
        let (mut left, mut right) = (self.iter().peekable(), other.iter().peekable());
        loop {
            let (a, b) = (left.peek().map(|one| one.0), right.peek().map(|one| one.0));
            let Some(index) = a.into_iter().chain(b).min() else { return joined };
            let a = left.next_if(|one| one.0 == index).map_or(0.0, |one| one.1);
            let b = right.next_if(|one| one.0 == index).map_or(0.0, |one| one.1);
            joined.push(index, join(a, b));
        }
    }
}

impl FromIterator<(i32, f64)> for Buckets {
    fn from_iter<I: IntoIterator<Item = (i32, f64)>>(pairs: I) -> Self {
        let (indexes, counts) = pairs.into_iter().unzip();
        Self { indexes, counts }
    }
}
