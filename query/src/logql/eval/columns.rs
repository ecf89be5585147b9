//! Columns being made: a series and a slot per step.

use std::collections::HashMap;

use binnacle_model::storage::{Deadline, Holding, StorageError};
use binnacle_model::{Labels, STALE_NAN};

use super::super::row::Row;
use crate::promql::Grouping;

/// A slot without a sample.
pub(super) const ABSENT: f64 = STALE_NAN;

/// Bytes that a series takes beside its slots, its labels and its key, here and in the answer.
const SERIES_BYTES: usize = 384;

/// Bytes that a label takes beside its texts: their counters, and what an allocator adds.
const LABEL_BYTES: usize = 112;

/// What so many bytes are of room that is counted in samples.
fn samples(bytes: usize) -> usize {
    bytes.div_ceil(size_of::<f64>() * 2)
}

/// Series by their labels.
pub(super) struct Columns {
    pub(super) series: Vec<(Labels, Vec<f64>)>,
    steps: usize,
    /// By names and values, one behind the other.
    known: HashMap<String, usize, foldhash::fast::RandomState>,
    held: Holding,
    key: String,
}

impl Columns {
    pub(super) fn new(steps: usize, deadline: &Deadline) -> Self {
        let known = HashMap::default();
        Self { series: Vec::new(), steps, known, held: deadline.holding(), key: String::new() }
    }

    /// What is held for the columns.
    pub(super) fn held(&mut self) -> &mut Holding {
        &mut self.held
    }

    /// Adds a series without a sample; answers its number.
    pub(super) fn push(&mut self, labels: Labels) -> Result<usize, StorageError> {
        let texts: usize =
            labels.iter().map(|label| label.name.len() + label.value.len() + LABEL_BYTES).sum();
        self.held.add(samples(SERIES_BYTES + texts) + self.steps)?;
        self.series.push((labels, vec![ABSENT; self.steps]));
        Ok(self.series.len() - 1)
    }

    /// The number of the series to which a line belongs.
    pub(super) fn of_row(
        &mut self,
        row: &Row<'_>,
        grouping: Option<&Grouping>,
        unwrapped: Option<&str>,
    ) -> Result<usize, StorageError> {
        let mut key = std::mem::take(&mut self.key);
        key.clear();
        let mut pairs = Vec::new();
        let mut add = |name: &str, value: &str| {
            // Lengths, so that no two sets of labels have the same key.
            key.push_str(&format!("{}:{}:{name}{value}", name.len(), value.len()));
            pairs.push((key.len() - name.len() - value.len(), name.len(), value.len()));
        };
        match grouping {
            Some(Grouping::By(names)) => names.iter().for_each(|name| add(name, &row.get(name))),
            Some(Grouping::Without(names)) => {
                let labels = row.labels();
                let kept = labels.iter().filter(|label| !names.iter().any(|name| *name == label.name));
                kept.for_each(|label| add(&label.name, &label.value));
            }
            None => {
                let labels = row.labels();
                let kept = labels.iter().filter(|label| unwrapped != Some(&*label.name));
                kept.for_each(|label| add(&label.name, &label.value));
            }
        }
        let at = if let Some(at) = self.known.get(&key) {
            *at
        } else {
            let text = |(at, name, value): &(usize, usize, usize)| {
                let middle = at + name;
                (key[*at..middle].to_owned(), key[middle..middle + value].to_owned())
            };
            let mut labels: Vec<(String, String)> = pairs.iter().map(text).collect();
            labels.sort_unstable();
            labels.dedup_by(|next, before| next.0 == before.0);
            // Names are neither empty nor there twice.
            let at = self.push(Labels::new(labels).unwrap_or_default())?;
            self.held.add(samples(key.len()))?;
            self.known.insert(key.clone(), at);
            at
        };
        self.key = key;
        Ok(at)
    }
}
