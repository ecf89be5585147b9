//! Aggregations: columns fold into groups, step by step.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use binnacle_model::Labels;
use binnacle_model::histogram::Histogram;
use binnacle_model::labels::METRIC_NAME;

use super::super::ast::{AggregateOp, Aggregation, Grouping, Span};
use super::super::notes::Notes;
use super::column::{ABSENT, Column, Point, is_absent};
use super::over_time::{Compensated, HistogramTotal, Mean, larger, quantile, smaller};
use super::{EvalError, Grid, Run, Value};

impl Run<'_> {
    pub(super) fn aggregate(
        &mut self,
        span: Span,
        aggregation: &Aggregation,
        grid: Grid,
    ) -> Result<Value, EvalError> {
        if aggregation.op == AggregateOp::CountValues {
            return self.count_values(aggregation, grid);
        }
        let params = match &aggregation.param {
            Some(param) => self.numbers(param, grid)?,
            None => vec![f64::NAN; grid.steps],
        };
        if aggregation.op.selects() {
            return self.ranked(span, aggregation, &params, grid);
        }
        if aggregation.op == AggregateOp::Quantile
            && let Some(param) = &aggregation.param
        {
            for q in params.iter().filter(|q| !(0.0..=1.0).contains(*q)) {
                self.notes.invalid_quantile(param.bare().span, *q);
            }
        }
        let columns = self.columns(&aggregation.expr, grid)?;
        let inner = aggregation.expr.bare().span;
        let mut groups = Groups::new(&aggregation.grouping);
        let mut folds: Vec<Fold> = Vec::new();
        for column in columns {
            let at = groups.of(&column.labels);
            if at == folds.len() {
                self.hold(grid.steps)?;
                folds.push(Fold::new(aggregation.op, grid.steps));
            }
            self.check()?;
            folds[at].add(&column, inner, &mut self.notes);
            self.release(column.size());
        }
        let mut found = Vec::with_capacity(folds.len());
        for (labels, fold) in groups.labels.into_iter().zip(folds) {
            let column = fold.finish(labels, &params, inner, &mut self.notes);
            if !column.is_empty() {
                found.push(column);
            }
        }
        Ok(Value::Vector(found))
    }

    fn count_values(&mut self, aggregation: &Aggregation, grid: Grid) -> Result<Value, EvalError> {
        let label = aggregation.param.as_ref().map(Self::text).transpose()?.unwrap_or_default();
        if label.is_empty() {
            return EvalError::execution(format!("invalid label name {label}"));
        }
        let columns = self.columns(&aggregation.expr, grid)?;
        let grouping = match &aggregation.grouping {
            Grouping::By(names) => Grouping::By(names.iter().cloned().chain([label.to_owned()]).collect()),
            Grouping::Without(names) => {
                Grouping::Without(names.iter().filter(|name| *name != label).cloned().collect())
            }
        };
        let mut groups = Groups::new(&grouping);
        let mut found: Vec<Column> = Vec::new();
        for column in &columns {
            for step in 0..grid.steps {
                let value = match column.point(step) {
                    None => continue,
                    Some(Point::Float(value)) => crate::http::format_value(value),
                    Some(Point::Histogram(histogram)) => histogram.to_string(),
                };
                let at = groups.of(&column.labels.with(label, &value));
                if at == found.len() {
                    self.hold(grid.steps)?;
                    found.push(Column::empty(groups.labels[at].clone(), grid.steps));
                }
                let place = &mut found[at].floats[step];
                *place = if is_absent(*place) { 1.0 } else { *place + 1.0 };
            }
        }
        Ok(Value::Vector(found))
    }
}

/// Numbers groups by the labels that stay.
pub(super) struct Groups<'g> {
    grouping: &'g Grouping,
    places: HashMap<Labels, usize>,
    pub(super) labels: Vec<Labels>,
    /// Groups by the addresses of the values of `by` labels: storage has one copy of each string.
    known: HashMap<[usize; BY_KNOWN], usize, BuildHasherDefault<AddressHasher>>,
    /// Strings of `known`, which therefore stay where they are.
    kept: Vec<Labels>,
}

/// So many labels in a `by` are looked up by address.
const BY_KNOWN: usize = 4;

/// So many addresses are remembered: strings that functions make are all different.
const KNOWN_MAX: usize = 100_000;

/// Mixes addresses, which no one can choose.
#[derive(Default)]
struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn write(&mut self, bytes: &[u8]) {
        for word in bytes.chunks(8) {
            let mut eight = [0; 8];
            eight[..word.len()].copy_from_slice(word);
            self.0 = (self.0.rotate_left(5) ^ u64::from_le_bytes(eight)).wrapping_mul(0x517c_c1b7_2722_0a95);
        }
    }

    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }
}

impl<'g> Groups<'g> {
    pub(super) fn new(grouping: &'g Grouping) -> Self {
        Self {
            grouping,
            places: HashMap::new(),
            labels: Vec::new(),
            known: HashMap::default(),
            kept: Vec::new(),
        }
    }

    /// The group of a series; a new one has the next number.
    pub(super) fn of(&mut self, labels: &Labels) -> usize {
        let Some(addresses) = self.addresses(labels) else { return self.look_up(labels) };
        if let Some(at) = self.known.get(&addresses) {
            return *at;
        }
        let at = self.look_up(labels);
        if self.known.len() < KNOWN_MAX {
            self.known.insert(addresses, at);
            self.kept.push(labels.clone());
        }
        at
    }

    /// Where the values of the `by` labels are in memory, if they are few enough.
    fn addresses(&self, labels: &Labels) -> Option<[usize; BY_KNOWN]> {
        let Grouping::By(names) = self.grouping else { return None };
        if names.len() > BY_KNOWN {
            return None;
        }
        let mut addresses = [0; BY_KNOWN];
        for (name, address) in names.iter().zip(&mut addresses) {
            *address = labels.get(name).map_or(0, |value| value.as_ptr() as usize);
        }
        Some(addresses)
    }

    fn look_up(&mut self, labels: &Labels) -> usize {
        let kept = match self.grouping {
            Grouping::By(names) => labels.filtered(|label| names.iter().any(|name| **name == *label.name)),
            Grouping::Without(names) => labels.filtered(|label| {
                &*label.name != METRIC_NAME && !names.iter().any(|name| **name == *label.name)
            }),
        };
        if let Some(at) = self.places.get(&kept) {
            return *at;
        }
        self.labels.push(kept.clone());
        self.places.insert(kept, self.labels.len() - 1);
        self.labels.len() - 1
    }
}

/// What a group knows of each step so far.
enum Fold {
    Sum {
        floats: Vec<Compensated>,
        seen: Vec<bool>,
        histograms: Histograms,
        drop_name: bool,
    },
    Avg {
        floats: Vec<Mean>,
        seen: Vec<bool>,
        histograms: Histograms,
        drop_name: bool,
    },
    /// `min`, `max`, `count`, `group`
    Plain {
        op: AggregateOp,
        floats: Vec<f64>,
        drop_name: bool,
    },
    Variance {
        op: AggregateOp,
        steps: Vec<Welford>,
        drop_name: bool,
    },
    Quantile {
        members: Vec<Vec<f64>>,
        drop_name: bool,
    },
}

/// Sums of histograms by step.
#[derive(Default)]
struct Histograms {
    is_mean: bool,
    totals: Vec<Option<Box<HistogramTotal>>>,
    broken: Vec<bool>,
}

impl Histograms {
    fn add(&mut self, step: usize, steps: usize, histogram: &Histogram, note: &mut dyn FnMut()) {
        if self.totals.is_empty() {
            self.totals.resize(steps, None);
            self.broken.resize(steps, false);
        }
        if self.broken[step] {
            return;
        }
        match &mut self.totals[step] {
            None => self.totals[step] = Some(Box::new(HistogramTotal::new(histogram, self.is_mean))),
            Some(total) => {
                if total.add(histogram).is_err() {
                    note();
                    self.broken[step] = true;
                }
            }
        }
    }

    fn at(&self, step: usize) -> Option<&HistogramTotal> {
        self.totals.get(step).and_then(|total| total.as_deref())
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Welford {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Fold {
    fn new(op: AggregateOp, steps: usize) -> Self {
        let seen = || vec![false; steps];
        let drop_name = false;
        match op {
            AggregateOp::Sum => Self::Sum {
                floats: vec![Compensated::default(); steps],
                seen: seen(),
                histograms: Histograms::default(),
                drop_name,
            },
            AggregateOp::Avg => Self::Avg {
                floats: vec![Mean::default(); steps],
                seen: seen(),
                histograms: Histograms { is_mean: true, ..Histograms::default() },
                drop_name,
            },
            AggregateOp::Stddev | AggregateOp::Stdvar => {
                Self::Variance { op, steps: vec![Welford::default(); steps], drop_name }
            }
            AggregateOp::Quantile => Self::Quantile { members: vec![Vec::new(); steps], drop_name },
            op => Self::Plain { op, floats: vec![ABSENT; steps], drop_name },
        }
    }

    fn add(&mut self, column: &Column, span: Span, notes: &mut Notes) {
        let there = column.floats.iter().enumerate().filter(|(_, value)| !is_absent(**value));
        let steps = column.floats.len();
        let mut mixed = || notes.mixed_schemas(span, column.name());
        match self {
            Self::Sum { floats, seen, histograms, drop_name } => {
                *drop_name |= column.drop_name;
                for (step, value) in there {
                    floats[step].add(*value);
                    seen[step] = true;
                }
                for (step, histogram) in each_histogram(column) {
                    histograms.add(step, steps, histogram, &mut mixed);
                }
            }
            Self::Avg { floats, seen, histograms, drop_name } => {
                *drop_name |= column.drop_name;
                for (step, value) in there {
                    floats[step].add(*value);
                    seen[step] = true;
                }
                for (step, histogram) in each_histogram(column) {
                    histograms.add(step, steps, histogram, &mut mixed);
                }
            }
            Self::Plain { op, floats, drop_name } => {
                *drop_name |= column.drop_name;
                for (step, value) in there {
                    let place = &mut floats[step];
                    let is_first = is_absent(*place);
                    *place = match op {
                        AggregateOp::Min if !is_first => smaller(*place, *value),
                        AggregateOp::Max if !is_first => larger(*place, *value),
                        AggregateOp::Min | AggregateOp::Max => *value,
                        AggregateOp::Group => 1.0,
                        _ => {
                            if is_first {
                                1.0
                            } else {
                                *place + 1.0
                            }
                        }
                    };
                }
                plain_histograms(*op, floats, column, span, notes);
            }
            Self::Variance { op, steps, drop_name } => {
                *drop_name |= column.drop_name;
                for (step, value) in there {
                    steps[step].add(*value);
                }
                ignored(op.as_str(), column, span, notes);
            }
            Self::Quantile { members, drop_name } => {
                *drop_name |= column.drop_name;
                for (step, value) in there {
                    members[step].push(*value);
                }
                ignored("quantile", column, span, notes);
            }
        }
    }

    fn finish(self, labels: Labels, params: &[f64], span: Span, notes: &mut Notes) -> Column {
        let steps = params.len();
        let mut column = Column::empty(labels, steps);
        match self {
            Self::Sum { floats, seen, histograms, drop_name } => {
                column.drop_name = drop_name;
                for step in 0..steps {
                    let float = seen[step].then(|| floats[step].total());
                    let total = histograms.at(step).map(|total| (total, total.result()));
                    let is_broken = histograms.broken.get(step) == Some(&true);
                    column.set(step, either(float, total, is_broken, span, notes));
                }
            }
            Self::Avg { floats, seen, histograms, drop_name } => {
                column.drop_name = drop_name;
                for step in 0..steps {
                    let float = seen[step].then(|| floats[step].value());
                    let total = histograms.at(step).map(|total| (total, total.result()));
                    let is_broken = histograms.broken.get(step) == Some(&true);
                    column.set(step, either(float, total, is_broken, span, notes));
                }
            }
            Self::Plain { floats, drop_name, .. } => {
                column.drop_name = drop_name;
                column.floats = floats;
            }
            Self::Variance { op, steps: folded, drop_name } => {
                column.drop_name = drop_name;
                for (step, one) in folded.iter().enumerate().filter(|(_, one)| one.count > 0.0) {
                    let variance = one.squares / one.count;
                    let value = if op == AggregateOp::Stddev { variance.sqrt() } else { variance };
                    column.set(step, Some(Point::Float(value)));
                }
            }
            Self::Quantile { mut members, drop_name } => {
                column.drop_name = drop_name;
                for (step, members) in members.iter_mut().enumerate().filter(|(_, m)| !m.is_empty()) {
                    column.set(step, Some(Point::Float(quantile(params[step], members))));
                }
            }
        }
        column
    }
}

impl Welford {
    fn add(&mut self, value: f64) {
        self.count += 1.0;
        if self.count == 1.0 {
            self.mean = value;
            self.squares = if value.is_finite() { 0.0 } else { f64::NAN };
            return;
        }
        let off = value - self.mean;
        self.mean += off / self.count;
        self.squares += off * (value - self.mean);
    }
}

fn each_histogram(column: &Column) -> impl Iterator<Item = (usize, &Histogram)> {
    column.histograms.iter().enumerate().filter_map(|(step, one)| Some((step, one.as_deref()?)))
}

/// A step of floats, or of histograms, but not of both.
fn either(
    float: Option<f64>,
    total: Option<(&HistogramTotal, Histogram)>,
    is_broken: bool,
    span: Span,
    notes: &mut Notes,
) -> Option<Point> {
    let Some((total, mut histogram)) = total else { return float.map(Point::Float) };
    if float.is_some() {
        notes.warn(span, "encountered a mix of histograms and floats for aggregation");
        return None;
    }
    if total.done.reconciled {
        notes.reconciled(span, "aggregation");
    }
    if is_broken {
        return None;
    }
    if total.reset && total.not_reset {
        notes.collision(span, "aggregation");
    }
    histogram.compact();
    Some(Point::Histogram(Arc::new(histogram)))
}

/// Histograms count as members, but have no order.
fn plain_histograms(op: AggregateOp, floats: &mut [f64], column: &Column, span: Span, notes: &mut Notes) {
    if matches!(op, AggregateOp::Min | AggregateOp::Max) {
        ignored(op.as_str(), column, span, notes);
        return;
    }
    for (step, _) in each_histogram(column) {
        let place = &mut floats[step];
        let is_first = is_absent(*place) || op == AggregateOp::Group;
        *place = if is_first { 1.0 } else { *place + 1.0 };
    }
}

fn ignored(aggregation: &str, column: &Column, span: Span, notes: &mut Notes) {
    if each_histogram(column).next().is_some() {
        notes.inform(span, &format!("ignored histogram in {aggregation} aggregation"));
    }
}
