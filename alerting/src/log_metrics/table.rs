//! The series of one rule, as tallies that only grow until the process ends.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use binnacle_model::labels::METRIC_NAME;
use binnacle_model::log_query::EntryView;
use binnacle_model::{Labels, Timestamp};
use binnacle_query::logql::Row;

use super::file::{LogMetricRule, Measure, OVERFLOW_LABEL, Selection, Source};
use crate::series::to_bytes;

/// Longer values of labels are cut: a series must not carry a whole message.
const VALUE_MAX_BYTES: usize = 512;

/// What became of an entry that a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counted {
    /// In a series of its own labels.
    Yes,
    /// In the series for what is beyond the limit.
    Beyond,
    /// Not counted: there is no number that could be added.
    Unmeasured,
}

/// Of one combination of labels.
#[derive(Debug)]
struct Tally {
    /// Each series of the combination, as [`crate::series::RuleLabels`] reads it.
    names: Arc<[Vec<u8>]>,
    entries: u64,
    sum: f64,
    /// Not cumulative; the last one is the infinite one. Empty for what is no histogram.
    buckets: Vec<u64>,
    /// When it was still zero, until that is written.
    zero_at: Option<Timestamp>,
}

/// A combination's series at one moment.
#[derive(Debug)]
pub(super) struct Reading {
    /// Of which series.
    pub(super) names: Arc<[Vec<u8>]>,
    /// One for each.
    pub(super) values: Vec<f64>,
    /// When all of them were zero, if nobody knows yet.
    pub(super) zero_at: Option<Timestamp>,
}

/// All series of a rule.
#[derive(Debug)]
pub(super) struct Table {
    by_values: HashMap<Box<[u8]>, usize>,
    overflow: Option<usize>,
    tallies: Vec<Tally>,
    /// When it was last read; a series that is new was zero then.
    read_at: Timestamp,
    /// Of the entry at hand.
    key: Vec<u8>,
}

impl Table {
    /// Nothing is counted yet, as of `now`. A rule whose labels are all constant has its series at once.
    pub(super) fn new(rule: &LogMetricRule, now: Timestamp) -> Self {
        let mut table = Self {
            by_values: HashMap::new(),
            overflow: None,
            tallies: Vec::new(),
            read_at: now,
            key: Vec::new(),
        };
        if rule.labels.is_empty() {
            table.add_tally(rule, &[], false);
            table.by_values.insert(Box::default(), 0);
        }
        table
    }

    /// Combinations of labels.
    pub(super) fn len(&self) -> usize {
        self.tallies.len()
    }

    /// Counts an entry.
    pub(super) fn count(&mut self, rule: &LogMetricRule, entry: &Matched<'_, '_>) -> Counted {
        let value = match &rule.measure {
            Measure::Entries => 0.0,
            Measure::Sum(from) | Measure::Balance(from) | Measure::Histogram { value: from, .. } => {
                let number = number(&entry.text(from));
                // A counter never goes down.
                let is_fit = |number: &f64| *number >= 0.0 || !matches!(rule.measure, Measure::Sum(_));
                let Some(number) = number.filter(is_fit) else { return Counted::Unmeasured };
                number
            }
        };
        let (at, counted) = self.tally_of(rule, entry);
        let tally = &mut self.tallies[at];
        tally.entries += 1;
        tally.sum += value;
        if let Measure::Histogram { buckets, .. } = &rule.measure {
            tally.buckets[buckets.partition_point(|bound| *bound < value)] += 1;
        }
        counted
    }

    fn tally_of(&mut self, rule: &LogMetricRule, entry: &Matched<'_, '_>) -> (usize, Counted) {
        let values: Vec<Cow<'_, str>> = rule.labels.iter().map(|(_, from)| entry.text(from)).collect();
        let values: Vec<&str> = values.iter().map(|value| cut(value)).collect();
        self.key.clear();
        for value in &values {
            self.key.extend_from_slice(&(value.len() as u32).to_le_bytes());
            self.key.extend_from_slice(value.as_bytes());
        }
        if let Some(at) = self.by_values.get(self.key.as_slice()) {
            return (*at, Counted::Yes);
        }
        if self.by_values.len() < rule.limit {
            let at = self.add_tally(rule, &values, false);
            self.by_values.insert(self.key.as_slice().into(), at);
            return (at, Counted::Yes);
        }
        let at = self.overflow.unwrap_or_else(|| self.add_tally(rule, &[], true));
        self.overflow = Some(at);
        (at, Counted::Beyond)
    }

    fn add_tally(&mut self, rule: &LogMetricRule, values: &[&str], is_overflow: bool) -> usize {
        let buckets = match &rule.measure {
            Measure::Histogram { buckets, .. } => vec![0; buckets.len() + 1],
            _ => Vec::new(),
        };
        self.tallies.push(Tally {
            names: names(rule, values, is_overflow).into(),
            entries: 0,
            sum: 0.0,
            buckets,
            zero_at: Some(self.read_at),
        });
        self.tallies.len() - 1
    }

    /// All series as they stand at `now`, in an order that does not change but for new ones at the end.
    pub(super) fn read(&mut self, rule: &LogMetricRule, now: Timestamp) -> Vec<Reading> {
        self.read_at = now;
        let readings = self.tallies.iter().map(|tally| Reading {
            names: Arc::clone(&tally.names),
            values: tally.values(&rule.measure),
            zero_at: tally.zero_at,
        });
        readings.collect()
    }

    /// What the first `count` combinations were is written.
    pub(super) fn written(&mut self, count: usize) {
        self.tallies.iter_mut().take(count).for_each(|tally| tally.zero_at = None);
    }
}

impl Tally {
    fn values(&self, measure: &Measure) -> Vec<f64> {
        match measure {
            Measure::Entries => vec![self.entries as f64],
            Measure::Sum(_) | Measure::Balance(_) => vec![self.sum],
            Measure::Histogram { .. } => {
                let mut below = 0;
                let cumulative = self.buckets.iter().map(|count| {
                    below += count;
                    below as f64
                });
                cumulative.chain([self.sum, self.entries as f64]).collect()
            }
        }
    }
}

/// The series of one combination of labels: a histogram's buckets, its sum and its count, or the only one.
fn names(rule: &LogMetricRule, values: &[&str], is_overflow: bool) -> Vec<Vec<u8>> {
    let named = |metric: String, le: Option<String>| {
        let of_rule = rule.labels.iter().map(|(name, _)| name.as_str()).zip(values.iter().copied());
        let constant = rule.constant_labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let mut pairs: Vec<(&str, &str)> = of_rule.chain(constant).collect();
        pairs.push((METRIC_NAME, &metric));
        pairs.extend(le.as_deref().map(|le| ("le", le)));
        pairs.extend(is_overflow.then_some((OVERFLOW_LABEL, "true")));
        to_bytes(&Labels::new(pairs).expect("a rule's names were checked to differ and not to be empty"))
    };
    let Measure::Histogram { buckets, .. } = &rule.measure else {
        return vec![named(rule.metric.clone(), None)];
    };
    // As Prometheus 3 writes bounds: `1.0`, not `1`.
    let bounds = buckets.iter().map(|bound| format!("{bound:?}")).chain(["+Inf".to_owned()]);
    let mut all: Vec<Vec<u8>> = bounds.map(|le| named(format!("{}_bucket", rule.metric), Some(le))).collect();
    all.push(named(format!("{}_sum", rule.metric), None));
    all.push(named(format!("{}_count", rule.metric), None));
    all
}

/// An entry that a rule is about.
pub(super) enum Matched<'v, 'e> {
    /// As it is stored.
    Stored(&'v EntryView<'e>),
    /// Behind a pipeline.
    Piped(Row<'e>),
}

impl<'v, 'e> Matched<'v, 'e> {
    /// The entry, if the rule is about it.
    pub(super) fn of(rule: &LogMetricRule, entry: &'v EntryView<'e>) -> Option<Self> {
        match &rule.selection {
            Selection::Lucene(query) => query.holds(entry).then_some(Self::Stored(entry)),
            Selection::LogQl(plan) => {
                let row = plan.query.holds(entry).then(|| plan.run(entry.entry())).flatten();
                row.map(Self::Piped)
            }
        }
    }

    fn text<'b>(&'b self, from: &'b Source) -> Cow<'b, str> {
        match (self, from) {
            (Self::Stored(entry), Source::Field(field)) => entry.text_of(field),
            (Self::Stored(entry), Source::Label(name)) => entry.entry().label(name),
            (Self::Piped(row), Source::Field(_)) => String::from_utf8_lossy(row.line()),
            (Self::Piped(row), Source::Label(name)) => {
                let label = row.labels().into_iter().find(|label| label.name == *name);
                label.map_or(Cow::Borrowed(""), |label| label.value)
            }
        }
    }
}

/// A value as a number: what is no finite one is none.
fn number(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|number: &f64| number.is_finite())
}

fn cut(value: &str) -> &str {
    &value[..value.floor_char_boundary(VALUE_MAX_BYTES)]
}
