//! What a group of series becomes: floats and histograms of each step, series by series.

use std::sync::Arc;

use binnacle_model::Labels;
use binnacle_model::histogram::Histogram;

use super::super::ast::{AggregateOp, Span};
use super::super::notes::Notes;
use super::column::{ABSENT, Column, Point, is_absent};
use super::over_time::{HistogramTotal, Mean, larger, quantile, smaller};
use super::sums::Sums;

/// What a group knows of each step so far.
pub(super) enum Fold {
    Sum {
        floats: Sums,
        histograms: Histograms,
        drop_name: bool,
    },
    Avg {
        floats: Vec<Mean>,
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
pub(super) struct Histograms {
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
pub(super) struct Welford {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Fold {
    pub(super) fn new(op: AggregateOp, steps: usize) -> Self {
        let drop_name = false;
        match op {
            AggregateOp::Sum => {
                Self::Sum { floats: Sums::new(steps), histograms: Histograms::default(), drop_name }
            }
            AggregateOp::Avg => Self::Avg {
                floats: vec![Mean::default(); steps],
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

    /// Adds a series of the group.
    pub(super) fn add(&mut self, column: &Column, span: Span, notes: &mut Notes) {
        let steps = column.floats.len();
        let mut mixed = || notes.mixed_schemas(span, column.name());
        match self {
            Self::Sum { floats, histograms, drop_name } => {
                *drop_name |= column.drop_name;
                floats.add(&column.floats);
                for (step, histogram) in each_histogram(column) {
                    histograms.add(step, steps, histogram, &mut mixed);
                }
            }
            Self::Avg { floats, histograms, drop_name } => {
                *drop_name |= column.drop_name;
                there(floats, column).for_each(|(mean, value)| mean.add(value));
                for (step, histogram) in each_histogram(column) {
                    histograms.add(step, steps, histogram, &mut mixed);
                }
            }
            Self::Plain { op, floats, drop_name } => {
                *drop_name |= column.drop_name;
                for (place, value) in there(floats, column) {
                    let is_first = is_absent(*place);
                    *place = match op {
                        AggregateOp::Min if !is_first => smaller(*place, value),
                        AggregateOp::Max if !is_first => larger(*place, value),
                        AggregateOp::Min | AggregateOp::Max => value,
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
                there(steps, column).for_each(|(step, value)| step.add(value));
                ignored(op.as_str(), column, span, notes);
            }
            Self::Quantile { members, drop_name } => {
                *drop_name |= column.drop_name;
                there(members, column).for_each(|(members, value)| members.push(value));
                ignored("quantile", column, span, notes);
            }
        }
    }

    /// Adds what another one knows of the same group, from floats alone.
    pub(super) fn merge(&mut self, other: Self) {
        match (self, other) {
            (Self::Sum { floats, drop_name, .. }, Self::Sum { floats: more, drop_name: drops, .. }) => {
                *drop_name |= drops;
                floats.merge(&more);
            }
            (Self::Avg { floats, drop_name, .. }, Self::Avg { floats: more, drop_name: drops, .. }) => {
                *drop_name |= drops;
                floats.iter_mut().zip(more).for_each(|(mean, more)| mean.merge(more));
            }
            (Self::Plain { op, floats, drop_name }, Self::Plain { floats: more, drop_name: drops, .. }) => {
                *drop_name |= drops;
                for (place, more) in floats.iter_mut().zip(more).filter(|(_, more)| !is_absent(*more)) {
                    *place = match op {
                        _ if is_absent(*place) => more,
                        AggregateOp::Min => smaller(*place, more),
                        AggregateOp::Max => larger(*place, more),
                        AggregateOp::Group => 1.0,
                        _ => *place + more,
                    };
                }
            }
            (
                Self::Variance { steps, drop_name, .. },
                Self::Variance { steps: more, drop_name: drops, .. },
            ) => {
                *drop_name |= drops;
                steps.iter_mut().zip(more).for_each(|(step, more)| step.merge(more));
            }
            (Self::Quantile { members, drop_name }, Self::Quantile { members: more, drop_name: drops }) => {
                *drop_name |= drops;
                members.iter_mut().zip(more).for_each(|(step, mut more)| step.append(&mut more));
            }
            _ => unreachable!("of one aggregation"),
        }
    }

    /// The group's series.
    pub(super) fn finish(self, labels: Labels, params: &[f64], span: Span, notes: &mut Notes) -> Column {
        let steps = params.len();
        let mut column = Column::empty(labels, steps);
        match self {
            Self::Sum { floats, histograms, drop_name } => {
                column.drop_name = drop_name;
                for step in 0..steps {
                    let float = floats.total(step);
                    let total = histograms.at(step).map(|total| (total, total.result()));
                    let is_broken = histograms.broken.get(step) == Some(&true);
                    column.set(step, either(float, total, is_broken, span, notes));
                }
            }
            Self::Avg { floats, histograms, drop_name } => {
                column.drop_name = drop_name;
                for (step, mean) in floats.iter().enumerate() {
                    let float = mean.value();
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

/// What a group knows of each step, and the value that a series of it has there, where it has one.
fn there<'f, T>(group: &'f mut [T], column: &'f Column) -> impl Iterator<Item = (&'f mut T, f64)> {
    group.iter_mut().zip(column.floats.iter().copied()).filter(|(_, value)| !is_absent(*value))
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

    /// As if both had been one (Chan, Golub, LeVeque: "Updating formulae and a pairwise algorithm for computing
    /// sample variances", 1979).
    fn merge(&mut self, other: Self) {
        if other.count == 0.0 {
            return;
        }
        if self.count == 0.0 {
            *self = other;
            return;
        }
        let count = self.count + other.count;
        let off = other.mean - self.mean;
        self.mean += off * (other.count / count);
        self.squares += other.squares + off * off * (self.count * other.count / count);
        self.count = count;
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
