//! A series with a place for every step.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use binnacle_model::histogram::Histogram;
use binnacle_model::labels::METRIC_NAME;
use binnacle_model::sample::is_stale;
use binnacle_model::{Labels, STALE_NAN};

use super::EvalError;

/// Marks a step without a float. No result of a calculation has these bits.
pub(super) const ABSENT: f64 = STALE_NAN;

pub(super) fn is_absent(value: f64) -> bool {
    is_stale(value)
}

/// Labels that say what the samples are, and no longer hold once they are something else.
pub(super) const METADATA_LABELS: [&str; 3] = [METRIC_NAME, "__type__", "__unit__"];

/// What there is by labels. Seeded anew for each map: nobody can prepare labels that collide.
pub(super) type ByLabels<T> = HashMap<Labels, T, foldhash::fast::RandomState>;

/// What stands at one step of one series.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Point {
    Float(f64),
    Histogram(Arc<Histogram>),
}

/// What a column takes beside its samples, in samples of 16 bytes.
const SERIES_SIZE: usize = 8;

/// A series with a place for every step. A step has a float, a histogram, or nothing.
#[derive(Debug, Clone)]
pub(super) struct Column {
    pub(super) labels: Labels,
    /// Whether the name goes when the query is done: until then functions of labels may use it.
    pub(super) drop_name: bool,
    /// [`ABSENT`] where there is none.
    pub(super) floats: Vec<f64>,
    /// Empty if there is none at any step.
    pub(super) histograms: Vec<Option<Arc<Histogram>>>,
}

impl Column {
    pub(super) fn empty(labels: Labels, steps: usize) -> Self {
        Self { labels, drop_name: false, floats: vec![ABSENT; steps], histograms: Vec::new() }
    }

    pub(super) fn of_floats(labels: Labels, floats: Vec<f64>) -> Self {
        Self { labels, drop_name: false, floats, histograms: Vec::new() }
    }

    pub(super) fn histogram(&self, step: usize) -> Option<&Arc<Histogram>> {
        self.histograms.get(step).and_then(Option::as_ref)
    }

    pub(super) fn has_histograms(&self) -> bool {
        !self.histograms.is_empty()
    }

    pub(super) fn is_at(&self, step: usize) -> bool {
        !is_absent(self.floats[step]) || self.histogram(step).is_some()
    }

    pub(super) fn point(&self, step: usize) -> Option<Point> {
        if let Some(histogram) = self.histogram(step) {
            return Some(Point::Histogram(Arc::clone(histogram)));
        }
        let float = self.floats[step];
        (!is_absent(float)).then_some(Point::Float(float))
    }

    pub(super) fn set(&mut self, step: usize, point: Option<Point>) {
        match point {
            None => self.clear(step),
            Some(Point::Float(value)) => {
                self.clear(step);
                // A NaN with the bits of the marker would vanish.
                self.floats[step] = if is_absent(value) { f64::NAN } else { value };
            }
            Some(Point::Histogram(histogram)) => {
                if self.histograms.is_empty() {
                    self.histograms.resize(self.floats.len(), None);
                }
                self.floats[step] = ABSENT;
                self.histograms[step] = Some(histogram);
            }
        }
    }

    pub(super) fn clear(&mut self, step: usize) {
        self.floats[step] = ABSENT;
        if let Some(place) = self.histograms.get_mut(step) {
            *place = None;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.floats.iter().all(|value| is_absent(*value)) && self.histograms.iter().all(Option::is_none)
    }

    /// The metric's name, for notes.
    pub(super) fn name(&self) -> &str {
        self.labels.metric_name()
    }

    /// Samples that it holds, as the query's budget counts them.
    pub(super) fn size(&self) -> usize {
        let histograms = self.histograms.iter().flatten().map(|one| one.size_in_samples());
        SERIES_SIZE + self.floats.len() + histograms.sum::<usize>()
    }
}

/// Applies a function to every float; histograms are left out, and the name goes.
pub(super) fn map(mut columns: Vec<Column>, apply: impl Fn(f64) -> f64) -> Vec<Column> {
    for column in &mut columns {
        column.drop_name = true;
        column.histograms.clear();
        for value in column.floats.iter_mut().filter(|value| !is_absent(**value)) {
            *value = apply(*value);
        }
    }
    columns.retain(|column| !column.is_empty());
    columns
}

/// As [`map`], with the step.
pub(super) fn map_steps(mut columns: Vec<Column>, apply: impl Fn(usize, f64) -> f64) -> Vec<Column> {
    for column in &mut columns {
        column.drop_name = true;
        column.histograms.clear();
        for (step, value) in column.floats.iter_mut().enumerate() {
            if !is_absent(*value) {
                *value = apply(step, *value);
            }
        }
    }
    columns.retain(|column| !column.is_empty());
    columns
}

/// Takes away names that were marked to go.
pub(super) fn drop_names(columns: Vec<Column>) -> Result<Vec<Column>, EvalError> {
    let mut columns = columns;
    for column in columns.iter_mut().filter(|column| column.drop_name) {
        column.labels = column.labels.filtered(|label| !METADATA_LABELS.contains(&&*label.name));
        column.drop_name = false;
    }
    unique(columns)
}

/// Joins columns of equal labels, which may not both have something at one step.
pub(super) fn unique(columns: Vec<Column>) -> Result<Vec<Column>, EvalError> {
    // Two that look alike only because a name has not gone yet are two.
    let mut places: HashMap<(Labels, bool), usize, foldhash::fast::RandomState> =
        HashMap::with_capacity_and_hasher(columns.len(), foldhash::fast::RandomState::default());
    let mut found: Vec<Column> = Vec::with_capacity(columns.len());
    for column in columns {
        match places.entry((column.labels.clone(), column.drop_name)) {
            Entry::Vacant(entry) => {
                entry.insert(found.len());
                found.push(column);
            }
            Entry::Occupied(entry) => join(&mut found[*entry.get()], &column)?,
        }
    }
    Ok(found)
}

fn join(kept: &mut Column, other: &Column) -> Result<(), EvalError> {
    for step in 0..kept.floats.len() {
        let Some(point) = other.point(step) else { continue };
        if kept.is_at(step) {
            let reason = "vector cannot contain metrics with the same labelset";
            return Err(EvalError::Execution(reason.to_owned()));
        }
        kept.set(step, Some(point));
    }
    Ok(())
}
