//! Aggregations: columns fold into groups as they come, on every core.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use binnacle_model::Labels;
use binnacle_model::labels::METRIC_NAME;
use binnacle_model::text::lossy;

use super::super::ast::{AggregateOp, Aggregation, Grouping, Span};
use super::super::lexer::is_label_name;
use super::column::{ByLabels, Column, Point, is_absent};
use super::fold::Fold;
use super::parts::Gather;
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
        let inner = aggregation.expr.bare().span;
        let is_ordered = self.is_ordered;
        let make = || Folds::new(aggregation, inner, grid.steps, is_ordered);
        let folds = self.gather(&aggregation.expr, grid, &make)?;
        Ok(Value::Vector(folds.finish(self, &params)?))
    }

    fn count_values(&mut self, aggregation: &Aggregation, grid: Grid) -> Result<Value, EvalError> {
        let label = aggregation.param.as_ref().map(Self::text).transpose()?.unwrap_or_default();
        if !is_label_name(label) {
            return EvalError::execution(format!("invalid label name {}", lossy(label)));
        }
        let columns = self.columns(&aggregation.expr, grid)?;
        let grouping = match &aggregation.grouping {
            Grouping::By(names) => Grouping::By(names.iter().cloned().chain([label.to_owned()]).collect()),
            without @ Grouping::Without(_) => without.clone(),
        };
        let mut groups = Groups::new(&grouping);
        let mut found: Vec<Column> = Vec::new();
        for column in &columns {
            self.check()?;
            for step in 0..grid.steps {
                let value = match column.point(step) {
                    None => continue,
                    Some(Point::Float(value)) => crate::http::format_value(value),
                    Some(Point::Histogram(histogram)) => histogram.to_string(),
                };
                let at = groups.of(&column.labels.with(label, &value));
                if at == found.len() {
                    let column = Column::empty(groups.labels[at].clone(), grid.steps);
                    self.hold(column.size())?;
                    found.push(column);
                }
                let place = &mut found[at].floats[step];
                *place = if is_absent(*place) { 1.0 } else { *place + 1.0 };
            }
        }
        self.release(columns.iter().map(Column::size).sum());
        Ok(Value::Vector(found))
    }
}

/// Groups on their way, of the series that one core has read.
struct Folds<'g> {
    op: AggregateOp,
    /// Of what is aggregated.
    span: Span,
    steps: usize,
    groups: Groups<'g>,
    states: Vec<Fold>,
    /// The least labels in each group, if its series must be in order.
    least: Option<Vec<Labels>>,
    /// Series with histograms: their sums say more than numbers, and are made by one core, in order.
    rest: Vec<Column>,
}

impl<'g> Folds<'g> {
    fn new(aggregation: &'g Aggregation, span: Span, steps: usize, is_ordered: bool) -> Self {
        Self {
            op: aggregation.op,
            span,
            steps,
            groups: Groups::new(&aggregation.grouping),
            states: Vec::new(),
            least: is_ordered.then(Vec::new),
            rest: Vec::new(),
        }
    }

    /// The fold of a group, of which `labels` are a member's.
    fn fold_of(&mut self, at: usize, labels: &Labels, run: &Run<'_>) -> Result<&mut Fold, EvalError> {
        if at == self.states.len() {
            run.hold(self.steps)?;
            self.states.push(Fold::new(self.op, self.steps));
            self.least.iter_mut().for_each(|least| least.push(labels.clone()));
        }
        if let Some(least) = self.least.as_mut().filter(|least| *labels < least[at]) {
            least[at] = labels.clone();
        }
        Ok(&mut self.states[at])
    }

    fn add(&mut self, column: &Column, run: &mut Run<'_>) -> Result<(), EvalError> {
        let at = self.groups.of(&column.labels);
        let span = self.span;
        self.fold_of(at, &column.labels, run)?.add(column, span, &mut run.notes);
        // A quantile keeps all values, and sums of histograms are as large as these.
        if self.op != AggregateOp::Quantile && !column.has_histograms() {
            run.release(column.size());
        }
        run.check()
    }

    fn finish(mut self, run: &mut Run<'_>, params: &[f64]) -> Result<Vec<Column>, EvalError> {
        let rest = run.ordered(std::mem::take(&mut self.rest));
        rest.iter().try_for_each(|column| self.add(column, run))?;
        let Self { groups, states, least, span, .. } = self;
        let mut all: Vec<(usize, (Labels, Fold))> =
            groups.labels.into_iter().zip(states).enumerate().collect();
        if let Some(least) = least {
            all.sort_by(|(a, _), (b, _)| least[*a].cmp(&least[*b]));
        }
        let columns =
            all.into_iter().map(|(_, (labels, fold))| fold.finish(labels, params, span, &mut run.notes));
        Ok(columns.filter(|column| !column.is_empty()).collect())
    }
}

impl Gather<Column> for Folds<'_> {
    fn take(&mut self, column: Column, run: &mut Run<'_>) -> Result<(), EvalError> {
        if column.has_histograms() {
            self.rest.push(column);
            return Ok(());
        }
        self.add(&column, run)
    }

    fn merge(&mut self, other: Self, run: &mut Run<'_>) -> Result<(), EvalError> {
        let least = other.least.unwrap_or_else(|| other.groups.labels.clone());
        for ((labels, fold), least) in other.groups.labels.iter().zip(other.states).zip(least) {
            let at = self.groups.of(labels);
            self.fold_of(at, &least, run)?.merge(fold);
            run.release(self.steps);
        }
        self.rest.extend(other.rest);
        Ok(())
    }
}

/// Numbers groups by the labels that stay.
pub(super) struct Groups<'g> {
    grouping: &'g Grouping,
    places: ByLabels<usize>,
    pub(super) labels: Vec<Labels>,
    /// Groups by the addresses of the values of `by` labels: storage has one copy of each string.
    known: HashMap<[usize; BY_KNOWN], usize, BuildHasherDefault<AddressHasher>>,
    /// Strings of `known`, which therefore stay where they are.
    kept: Vec<Labels>,
    /// Where the `by` labels stood in a series before, and their names: most series are laid out alike.
    hints: [Option<(usize, Arc<str>)>; BY_KNOWN],
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
            places: ByLabels::default(),
            labels: Vec::new(),
            known: HashMap::default(),
            kept: Vec::new(),
            hints: Default::default(),
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
    fn addresses(&mut self, labels: &Labels) -> Option<[usize; BY_KNOWN]> {
        let Grouping::By(names) = self.grouping else { return None };
        if names.len() > BY_KNOWN {
            return None;
        }
        let mut addresses = [0; BY_KNOWN];
        let all = labels.iter().as_slice();
        for ((name, hint), address) in names.iter().zip(&mut self.hints).zip(&mut addresses) {
            let hinted = hint.as_ref().and_then(|(at, known)| Some((all.get(*at)?, known)));
            if let Some((label, _)) = hinted.filter(|(label, known)| Arc::ptr_eq(&label.name, known)) {
                *address = label.value.as_ptr() as usize;
            } else if let Ok(at) = all.binary_search_by(|label| (*label.name).cmp(name)) {
                *address = all[at].value.as_ptr() as usize;
                *hint = Some((at, Arc::clone(&all[at].name)));
            }
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
