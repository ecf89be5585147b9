//! Two operands: numbers, or series that meet by their labels.

use std::collections::HashMap;

use binnacle_model::Labels;
use binnacle_model::labels::METRIC_NAME;

use super::super::ast::{BinaryOp, Card, Matching};
use super::{ABSENT, Column, EvalError, Grid, Run, Value, is_absent, unique};

impl Run<'_> {
    pub(super) fn binary(
        &mut self,
        op: BinaryOp,
        left: Value,
        right: Value,
        returns_bool: bool,
        matching: &Matching,
        grid: Grid,
    ) -> Result<Value, EvalError> {
        match (left, right) {
            (Value::Scalar(left), Value::Scalar(right)) => {
                let pairs = left.into_iter().zip(right);
                let values = pairs.map(|(a, b)| {
                    if op.is_comparison() { number(holds(op, a, b)) } else { arithmetic(op, a, b) }
                });
                Ok(Value::Scalar(values.collect()))
            }
            (Value::Vector(left), Value::Scalar(right)) => {
                let apply =
                    |step: usize, value: f64| apply(op, value, right[step], returns_bool).unwrap_or(ABSENT);
                Ok(Value::Vector(with_number(op, left, returns_bool, apply)?))
            }
            (Value::Scalar(left), Value::Vector(right)) => {
                let apply = |step: usize, value: f64| {
                    let kept = apply(op, left[step], value, returns_bool);
                    // A comparison that filters answers the vector's value, on whichever side it is.
                    let filters = op.is_comparison() && !returns_bool;
                    kept.map_or(ABSENT, |kept| if filters { value } else { kept })
                };
                Ok(Value::Vector(with_number(op, right, returns_bool, apply)?))
            }
            (Value::Vector(left), Value::Vector(right)) => {
                self.hold(left.len().max(right.len()) * grid.steps)?;
                let found = match op {
                    BinaryOp::And => set_and(left, &right, matching, true, grid),
                    BinaryOp::Unless => set_and(left, &right, matching, false, grid),
                    BinaryOp::Or => set_or(left, right, matching, grid),
                    _ => matched(op, &left, &right, returns_bool, matching, grid)?,
                };
                Ok(Value::Vector(found))
            }
            (Value::Text(_), _) | (_, Value::Text(_)) => unreachable!("the parser checked the type"),
        }
    }
}

fn number(holds: bool) -> f64 {
    f64::from(u8::from(holds))
}

fn holds(op: BinaryOp, a: f64, b: f64) -> bool {
    match op {
        BinaryOp::Eq => a == b,
        BinaryOp::Ne => a != b,
        BinaryOp::Gt => a > b,
        BinaryOp::Lt => a < b,
        BinaryOp::Ge => a >= b,
        _ => a <= b,
    }
}

fn arithmetic(op: BinaryOp, a: f64, b: f64) -> f64 {
    match op {
        BinaryOp::Add => a + b,
        BinaryOp::Sub => a - b,
        BinaryOp::Mul => a * b,
        BinaryOp::Div => a / b,
        BinaryOp::Mod => a % b,
        BinaryOp::Pow => a.powf(b),
        _ => a.atan2(b),
    }
}

/// The value of the operation, if it keeps the sample.
fn apply(op: BinaryOp, a: f64, b: f64, returns_bool: bool) -> Option<f64> {
    if !op.is_comparison() {
        return Some(arithmetic(op, a, b));
    }
    let holds = holds(op, a, b);
    if returns_bool { Some(number(holds)) } else { holds.then_some(a) }
}

fn with_number(
    op: BinaryOp,
    mut columns: Vec<Column>,
    returns_bool: bool,
    apply: impl Fn(usize, f64) -> f64,
) -> Result<Vec<Column>, EvalError> {
    let drops_name = !op.is_comparison() || returns_bool;
    for column in &mut columns {
        if drops_name {
            column.labels = column.labels.without_name();
        }
        for (step, value) in column.values.iter_mut().enumerate() {
            if !is_absent(*value) {
                *value = apply(step, *value);
            }
        }
    }
    unique(columns)
}

/// The labels by which series meet.
fn signature(labels: &Labels, matching: &Matching) -> Labels {
    if matching.on {
        labels.filtered(|label| matching.labels.iter().any(|name| **name == *label.name))
    } else {
        labels.filtered(|label| {
            &*label.name != METRIC_NAME && !matching.labels.iter().any(|name| **name == *label.name)
        })
    }
}

fn by_signature<'c>(columns: &'c [Column], matching: &Matching) -> HashMap<Labels, Vec<&'c Column>> {
    let mut groups: HashMap<Labels, Vec<&Column>> = HashMap::new();
    for column in columns {
        groups.entry(signature(&column.labels, matching)).or_default().push(column);
    }
    groups
}

fn is_there(group: Option<&Vec<&Column>>, step: usize) -> bool {
    group.is_some_and(|group| group.iter().any(|column| !is_absent(column.values[step])))
}

/// `and` keeps what has a partner, `unless` what has none.
fn set_and(
    mut left: Vec<Column>,
    right: &[Column],
    matching: &Matching,
    keeps_partnered: bool,
    grid: Grid,
) -> Vec<Column> {
    let groups = by_signature(right, matching);
    for column in &mut left {
        let group = groups.get(&signature(&column.labels, matching));
        for step in 0..grid.steps {
            if is_there(group, step) != keeps_partnered {
                column.values[step] = ABSENT;
            }
        }
    }
    left.retain(|column| column.values.iter().any(|value| !is_absent(*value)));
    left
}

fn set_or(left: Vec<Column>, mut right: Vec<Column>, matching: &Matching, grid: Grid) -> Vec<Column> {
    {
        let groups = by_signature(&left, matching);
        for column in &mut right {
            let group = groups.get(&signature(&column.labels, matching));
            for step in 0..grid.steps {
                if is_there(group, step) {
                    column.values[step] = ABSENT;
                }
            }
        }
    }
    right.retain(|column| column.values.iter().any(|value| !is_absent(*value)));
    let mut places: HashMap<Labels, usize> =
        left.iter().enumerate().map(|(at, column)| (column.labels.clone(), at)).collect();
    let mut found = left;
    for column in right {
        // The same series may come from the left at some steps and from the right at others.
        if let Some(at) = places.get(&column.labels) {
            let pairs = found[*at].values.iter_mut().zip(column.values);
            pairs.filter(|(kept, _)| is_absent(**kept)).for_each(|(kept, value)| *kept = value);
        } else {
            places.insert(column.labels.clone(), found.len());
            found.push(column);
        }
    }
    found
}

fn matched(
    op: BinaryOp,
    left: &[Column],
    right: &[Column],
    returns_bool: bool,
    matching: &Matching,
    grid: Grid,
) -> Result<Vec<Column>, EvalError> {
    let swapped = matching.card == Card::OneToMany;
    let (many, one) = if swapped { (right, left) } else { (left, right) };
    let one_side = if swapped { "left" } else { "right" };
    let ones = by_signature(one, matching);
    let mut seen: HashMap<Labels, Vec<bool>> = HashMap::new();
    let mut found = Vec::new();
    for column in many {
        let key = signature(&column.labels, matching);
        let Some(partners) = ones.get(&key) else { continue };
        check_one(&key, partners, one_side, grid)?;
        for partner in partners {
            let mut values = vec![ABSENT; grid.steps];
            for (step, slot) in values.iter_mut().enumerate() {
                let (value, other) = (column.values[step], partner.values[step]);
                if is_absent(value) || is_absent(other) {
                    continue;
                }
                let (a, b) = if swapped { (other, value) } else { (value, other) };
                let Some(result) = apply(op, a, b, returns_bool) else { continue };
                if matching.card == Card::OneToOne {
                    let taken = seen.entry(key.clone()).or_insert_with(|| vec![false; grid.steps]);
                    if std::mem::replace(&mut taken[step], true) {
                        let reason = "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)";
                        return Err(EvalError::Execution(reason.to_owned()));
                    }
                }
                *slot = result;
            }
            if values.iter().any(|value| !is_absent(*value)) {
                let labels = result_labels(op, returns_bool, matching, column, partner);
                found.push(Column { labels, values });
            }
        }
    }
    unique(found).map_err(|_| {
        let reason = "multiple matches for labels: grouping labels must ensure unique matches";
        EvalError::Execution(reason.to_owned())
    })
}

/// The "one" side may have one series per step and group.
fn check_one(key: &Labels, partners: &[&Column], side: &str, grid: Grid) -> Result<(), EvalError> {
    if partners.len() < 2 {
        return Ok(());
    }
    for step in 0..grid.steps {
        let mut there = partners.iter().filter(|column| !is_absent(column.values[step]));
        if let (Some(first), Some(second)) = (there.next(), there.next()) {
            let group = if key.is_empty() { "{}".to_owned() } else { key.to_string() };
            return Err(EvalError::Execution(format!(
                "found duplicate series for the match group {group} on the {side} hand-side of the operation: [{}, {}];many-to-many matching not allowed: matching labels must be unique on one side",
                second.labels, first.labels
            )));
        }
    }
    Ok(())
}

fn result_labels(
    op: BinaryOp,
    returns_bool: bool,
    matching: &Matching,
    many: &Column,
    one: &Column,
) -> Labels {
    let drops_name = !op.is_comparison() || returns_bool;
    let mut labels = if drops_name { many.labels.without_name() } else { many.labels.clone() };
    let is_named = |name: &str| matching.labels.iter().any(|label| label == name);
    if matching.card == Card::OneToOne {
        labels = labels.filtered(|label| is_named(&label.name) == matching.on);
    }
    for name in &matching.include {
        labels = labels.with(name, one.labels.value(name));
    }
    labels
}
