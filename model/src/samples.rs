//! Samples of one series, as two columns: moments and values.

use std::ops::Range;
use std::sync::Arc;

use crate::sample::Sample;
use crate::time::Timestamp;

/// Samples of a series, ascending by time, each moment once.
///
/// Series that are measured together share their moments, which are Unix milliseconds.
#[derive(Debug, Clone, Default)]
pub struct Samples {
    times: Arc<[i64]>,
    values: Vec<f64>,
}

impl Samples {
    /// Columns of the same length.
    ///
    /// # Panics
    ///
    /// If their lengths differ.
    pub fn new(times: Arc<[i64]>, values: Vec<f64>) -> Self {
        assert_eq!(times.len(), values.len(), "a value for each moment");
        Self { times, values }
    }

    /// The moments, shared.
    pub fn times(&self) -> &Arc<[i64]> {
        &self.times
    }

    /// All of them.
    pub fn as_slice(&self) -> SampleSlice<'_> {
        SampleSlice { times: &self.times, values: &self.values }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The newest.
    pub fn last(&self) -> Option<Sample> {
        self.as_slice().last()
    }

    /// Each of them, ascending.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Sample> + ExactSizeIterator + Clone + '_ {
        self.as_slice().iter()
    }

    /// Forgets those for which `keeps` does not hold; where it holds for all, nothing moves.
    pub fn retain(&mut self, keeps: impl Fn(Sample) -> bool) {
        if !self.iter().all(&keeps) {
            *self = self.iter().filter(|sample| keeps(*sample)).collect();
        }
    }
}

/// Equal to the bit, so that NaN equals itself.
impl PartialEq for Samples {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl FromIterator<Sample> for Samples {
    fn from_iter<I: IntoIterator<Item = Sample>>(samples: I) -> Self {
        let (times, values): (Vec<i64>, Vec<f64>) =
            samples.into_iter().map(|sample| (sample.timestamp.0, sample.value)).unzip();
        Self { times: times.into(), values }
    }
}

/// Some neighbours among the samples of a series.
#[derive(Debug, Clone, Copy, Default)]
pub struct SampleSlice<'a> {
    /// Unix milliseconds, ascending.
    pub times: &'a [i64],
    /// One for each moment.
    pub values: &'a [f64],
}

impl<'a> SampleSlice<'a> {
    /// How many there are.
    pub fn len(self) -> usize {
        self.values.len()
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.values.is_empty()
    }

    /// The one in a place.
    ///
    /// # Panics
    ///
    /// If there are not so many.
    pub fn at(self, place: usize) -> Sample {
        Sample { timestamp: Timestamp(self.times[place]), value: self.values[place] }
    }

    /// The oldest.
    pub fn first(self) -> Option<Sample> {
        (!self.is_empty()).then(|| self.at(0))
    }

    /// The newest.
    pub fn last(self) -> Option<Sample> {
        self.len().checked_sub(1).map(|last| self.at(last))
    }

    /// Those in some places.
    ///
    /// # Panics
    ///
    /// If there are not so many.
    #[must_use]
    pub fn part(self, places: Range<usize>) -> Self {
        Self { times: &self.times[places.clone()], values: &self.values[places] }
    }

    /// Each of them, ascending.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = Sample> + ExactSizeIterator + Clone + use<'a> {
        let pairs = self.times.iter().zip(self.values);
        pairs.map(|(time, value)| Sample { timestamp: Timestamp(*time), value: *value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_samples() {
        let pairs = [(1, 0.5), (3, f64::NAN), (9, -1.0)];
        let sample = |(time, value)| Sample { timestamp: Timestamp(time), value };
        let mut samples: Samples = pairs.map(sample).into_iter().collect();
        assert_eq!((samples.len(), samples.last()), (3, Some(sample((9, -1.0)))));
        assert_eq!(samples.as_slice().first(), Some(sample((1, 0.5))));
        assert!(samples.as_slice().part(1..3).iter().eq([sample((3, f64::NAN)), sample((9, -1.0))]));
        let times = Arc::clone(samples.times());
        samples.retain(|_| true);
        assert!(Arc::ptr_eq(&times, samples.times()), "nothing moved");
        samples.retain(|one| one.timestamp.0 != 3);
        assert_eq!(samples, [pairs[0], pairs[2]].map(sample).into_iter().collect());
        assert_ne!(samples, Samples::default());
        assert!(SampleSlice::default().last().is_none());
    }
}
