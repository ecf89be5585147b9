//! What a query looked at, for whoever asks with `stats`.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use binnacle_model::Timestamp;

use super::column::{Column, Point};
use super::windows::Window;
use super::{Grid, Run};

/// Samples that a query looked at, as Prometheus counts them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SampleStats {
    /// Of all steps and selectors; one that lies in several windows counts in each.
    pub total: u64,
    /// Held at one time, at the most.
    pub peak: usize,
    /// Of `total`, by step.
    pub per_step: Vec<(Timestamp, u64)>,
}

/// Counts while a query runs, on all cores.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) peak: AtomicUsize,
    steps: Vec<AtomicU64>,
}

impl Counts {
    pub(super) fn new(grid: Grid) -> Self {
        Self { peak: AtomicUsize::new(0), steps: (0..grid.steps).map(|_| AtomicU64::new(0)).collect() }
    }

    fn add(&self, step: usize, samples: usize) {
        if let Some(count) = self.steps.get(step) {
            count.fetch_add(samples as u64, Ordering::Relaxed);
        }
    }

    pub(super) fn first_step(&self) -> u64 {
        self.steps.first().map_or(0, |count| count.load(Ordering::Relaxed))
    }

    pub(super) fn finish(&self, grid: Grid) -> SampleStats {
        let of_step =
            |(step, count): (usize, &AtomicU64)| (Timestamp(grid.at(step)), count.load(Ordering::Relaxed));
        let per_step: Vec<(Timestamp, u64)> = self.steps.iter().enumerate().map(of_step).collect();
        let total = per_step.iter().map(|(_, count)| count).sum();
        SampleStats { total, peak: self.peak.load(Ordering::Relaxed), per_step }
    }
}

impl Run<'_> {
    /// Counts the values of a selector's column.
    pub(super) fn count_column(&self, column: &Column) {
        let Some(counts) = &self.counts else { return };
        for step in 0..column.floats.len() {
            match column.point(step) {
                Some(Point::Float(_)) => counts.add(step, 1),
                Some(Point::Histogram(one)) => counts.add(step, one.size_in_samples()),
                None => {}
            }
        }
    }

    /// Counts the samples of a window.
    pub(super) fn count_window(&self, step: usize, window: &Window<'_>) {
        if let Some(counts) = &self.counts {
            let histograms: usize = window.histograms.iter().map(|one| one.histogram.size_in_samples()).sum();
            counts.add(step, window.floats.len() + histograms);
        }
    }

    /// Counts what was looked at once, since `before`, for every step after the first, too.
    pub(super) fn count_again(&self, before: u64, steps: usize) {
        if let Some(counts) = &self.counts {
            let once = counts.first_step() - before;
            (1..steps).for_each(|step| counts.add(step, once as usize));
        }
    }
}
