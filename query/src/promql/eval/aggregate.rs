//! Aggregations: columns fold into groups, step by step.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use binnacle_model::Labels;
use binnacle_model::labels::METRIC_NAME;

use super::super::ast::{AggregateOp, Aggregation, Grouping};
use super::super::functions::{larger, mean, quantile, smaller, sum, variance};
use super::{ABSENT, Column, EvalError, Grid, Run, Value, is_absent};

/// Columns of one group, with the labels of its result.
struct Group {
    labels: Labels,
    members: Vec<Column>,
}

impl Run<'_> {
    pub(super) fn aggregate(&mut self, aggregation: &Aggregation, grid: Grid) -> Result<Value, EvalError> {
        let columns = self.columns(&aggregation.expr, grid)?;
        if aggregation.op == AggregateOp::CountValues {
            return self.count_values(aggregation, columns, grid);
        }
        let params = match &aggregation.param {
            Some(param) => self.numbers(param, grid)?,
            None => vec![f64::NAN; grid.steps],
        };
        let groups = grouped(columns, &aggregation.grouping);
        self.hold(groups.len() * grid.steps)?;
        let mut found = Vec::with_capacity(groups.len());
        for group in groups {
            self.check()?;
            match aggregation.op {
                AggregateOp::Topk => found.extend(ranked(group.members, &params, true)),
                AggregateOp::Bottomk => found.extend(ranked(group.members, &params, false)),
                op => found.push(folded(op, &group, &params, grid)),
            }
        }
        Ok(Value::Vector(found))
    }

    fn count_values(
        &mut self,
        aggregation: &Aggregation,
        columns: Vec<Column>,
        grid: Grid,
    ) -> Result<Value, EvalError> {
        let label = aggregation.param.as_ref().map(Self::text).transpose()?.unwrap_or_default();
        if label.is_empty() {
            return Err(EvalError::Execution("invalid label name \"\" in count_values()".into()));
        }
        let mut counts: HashMap<Labels, Vec<f64>> = HashMap::new();
        for group in grouped(columns, &aggregation.grouping) {
            for column in &group.members {
                for (step, value) in column.values.iter().enumerate() {
                    if is_absent(*value) {
                        continue;
                    }
                    let labels = group.labels.with(label, &crate::http::format_value(*value));
                    if let Entry::Vacant(entry) = counts.entry(labels.clone()) {
                        self.hold(grid.steps)?;
                        entry.insert(vec![ABSENT; grid.steps]);
                    }
                    let slot = &mut counts.get_mut(&labels).expect("inserted above")[step];
                    *slot = if is_absent(*slot) { 1.0 } else { *slot + 1.0 };
                }
            }
        }
        let mut found: Vec<Column> =
            counts.into_iter().map(|(labels, values)| Column { labels, values }).collect();
        found.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(Value::Vector(found))
    }
}

/// The columns by the labels that stay, in the order in which groups appear.
fn grouped(columns: Vec<Column>, grouping: &Grouping) -> Vec<Group> {
    let mut places: HashMap<Labels, usize> = HashMap::new();
    let mut groups: Vec<Group> = Vec::new();
    for column in columns {
        let labels = match grouping {
            Grouping::By(names) => {
                column.labels.filtered(|label| names.iter().any(|name| **name == *label.name))
            }
            Grouping::Without(names) => column.labels.filtered(|label| {
                &*label.name != METRIC_NAME && !names.iter().any(|name| **name == *label.name)
            }),
        };
        let at = *places.entry(labels.clone()).or_insert_with(|| {
            groups.push(Group { labels, members: Vec::new() });
            groups.len() - 1
        });
        groups[at].members.push(column);
    }
    groups
}

fn folded(op: AggregateOp, group: &Group, params: &[f64], grid: Grid) -> Column {
    let mut there = Vec::with_capacity(group.members.len());
    let mut values = Vec::with_capacity(grid.steps);
    for (step, param) in params.iter().enumerate().take(grid.steps) {
        there.clear();
        let of_step = group.members.iter().map(|column| column.values[step]);
        there.extend(of_step.filter(|value| !is_absent(*value)));
        let all = || there.iter().copied();
        values.push(if there.is_empty() {
            ABSENT
        } else {
            match op {
                AggregateOp::Sum => sum(all()),
                AggregateOp::Avg => mean(all()),
                AggregateOp::Min => all().fold(f64::NAN, smaller),
                AggregateOp::Max => all().fold(f64::NAN, larger),
                AggregateOp::Count => there.len() as f64,
                AggregateOp::Group => 1.0,
                AggregateOp::Stddev => variance(all()).sqrt(),
                AggregateOp::Stdvar => variance(all()),
                AggregateOp::Quantile => quantile(*param, &mut there),
                AggregateOp::Topk | AggregateOp::Bottomk | AggregateOp::CountValues => {
                    unreachable!("handled by the caller")
                }
            }
        });
    }
    Column { labels: group.labels.clone(), values }
}

/// Keeps of each step the `k` largest or smallest; a NaN only where nothing else is left.
fn ranked(mut members: Vec<Column>, params: &[f64], largest: bool) -> Vec<Column> {
    let mut order: Vec<usize> = Vec::new();
    for (step, k) in params.iter().enumerate() {
        order.clear();
        order.extend((0..members.len()).filter(|at| !is_absent(members[*at].values[step])));
        order.sort_by(|a, b| {
            let (a, b) = (members[*a].values[step], members[*b].values[step]);
            let by_value = if largest { b.partial_cmp(&a) } else { a.partial_cmp(&b) };
            a.is_nan().cmp(&b.is_nan()).then(by_value.unwrap_or(std::cmp::Ordering::Equal))
        });
        let k = if *k >= 1.0 { (*k as usize).min(order.len()) } else { 0 };
        for at in order.drain(k..) {
            members[at].values[step] = ABSENT;
        }
    }
    members.retain(|column| column.values.iter().any(|value| !is_absent(*value)));
    if params.len() == 1 {
        super::sort_by_value(&mut members, 0, largest);
    }
    members
}
