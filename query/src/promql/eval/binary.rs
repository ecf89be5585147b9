//! Operators between vectors: series meet by their labels, step by step.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use binnacle_model::Labels;
use binnacle_model::labels::METRIC_NAME;

use super::super::ast::{Binary, BinaryOp, Card, Matching, Span};
use super::column::{ABSENT, ByLabels, Column, METADATA_LABELS, Point, is_absent, unique};
use super::{EvalError, Grid, Run, Value, elements};

/// What the labels by which a series meets others take, in samples of 16 bytes.
const SIGNATURE_SIZE: usize = 8;

/// Which series of the two sides met; `None` is a value filled in.
type Pair = (Option<usize>, Option<usize>);

impl Run<'_> {
    pub(super) fn binary(&mut self, span: Span, binary: &Binary, grid: Grid) -> Result<Value, EvalError> {
        let left = self.eval(&binary.left, grid)?;
        let right = self.eval(&binary.right, grid)?;
        let op = binary.op;
        Ok(match (left, right) {
            (Value::Scalar(left), Value::Scalar(right)) => {
                let pairs = left.into_iter().zip(right);
                Value::Scalar(pairs.map(|(a, b)| scalar(op, a, b)).collect())
            }
            (Value::Vector(columns), Value::Scalar(numbers)) => {
                Value::Vector(self.with_numbers(span, binary, columns, &numbers, false))
            }
            (Value::Scalar(numbers), Value::Vector(columns)) => {
                Value::Vector(self.with_numbers(span, binary, columns, &numbers, true))
            }
            (Value::Vector(left), Value::Vector(right)) => {
                let matching = &binary.matching;
                self.hold((left.len() + right.len()) * SIGNATURE_SIZE)?;
                let found = match op {
                    BinaryOp::And => self.set_and(left, &right, matching, true, grid)?,
                    BinaryOp::Unless => self.set_and(left, &right, matching, false, grid)?,
                    BinaryOp::Or => self.set_or(left, right, matching, grid)?,
                    _ => self.matched(span, binary, &left, &right, grid)?,
                };
                Value::Vector(found)
            }
            _ => unreachable!("the parser checked the types"),
        })
    }

    /// A vector and a number per step.
    fn with_numbers(
        &mut self,
        span: Span,
        binary: &Binary,
        mut columns: Vec<Column>,
        numbers: &[f64],
        is_swapped: bool,
    ) -> Vec<Column> {
        let Binary { op, returns_bool, .. } = binary;
        for column in &mut columns {
            column.drop_name |= op.changes_meaning() || *returns_bool;
            for (step, number) in numbers.iter().enumerate() {
                let value = column.floats[step];
                let is_trim = matches!(op, BinaryOp::TrimLower | BinaryOp::TrimUpper);
                if !column.has_histograms() && !is_trim {
                    if !is_absent(value) {
                        column.floats[step] = number_result(*op, *returns_bool, value, *number, is_swapped);
                    }
                    continue;
                }
                let Some(point) = column.point(step) else { continue };
                let number = Point::Float(*number);
                let (left, right) = if is_swapped { (&number, &point) } else { (&point, &number) };
                let result = elements::of_points(*op, left, right, span, &mut self.notes);
                column.set(step, chosen(*op, *returns_bool, result, &point));
            }
        }
        columns.retain(|column| !column.is_empty());
        columns
    }

    fn matched(
        &mut self,
        span: Span,
        binary: &Binary,
        left: &[Column],
        right: &[Column],
        grid: Grid,
    ) -> Result<Vec<Column>, EvalError> {
        let is_swapped = binary.matching.card == Card::OneToMany;
        let (many, one) = if is_swapped { (right, left) } else { (left, right) };
        let fills = binary.matching.fill_left.is_some() || binary.matching.fill_right.is_some();
        let meets = Meets {
            binary,
            span,
            is_swapped,
            // Where one side has nothing at all, nothing meets and nothing is checked.
            is_open: open_steps(many, one, fills, grid),
            steps: grid.steps,
        };
        let mut groups: ByLabels<Group<'_>> = ByLabels::default();
        let mut order: Vec<Labels> = Vec::new();
        for (columns, is_many) in [(many, true), (one, false)] {
            for column in columns {
                let key = signature(&column.labels, &binary.matching);
                let group = groups.entry(key.clone()).or_insert_with(|| {
                    order.push(key);
                    Group::default()
                });
                if is_many { group.many.push(column) } else { group.one.push(column) }
            }
        }
        let mut found = Vec::new();
        for key in &order {
            self.check()?;
            let group = &groups[key];
            found.extend(meets.group(key, group, self)?);
        }
        unique(found)
    }
}

/// Columns of one signature.
#[derive(Default)]
struct Group<'c> {
    many: Vec<&'c Column>,
    one: Vec<&'c Column>,
}

fn open_steps(many: &[Column], one: &[Column], fills: bool, grid: Grid) -> Vec<bool> {
    let mut any = [vec![false; grid.steps], vec![false; grid.steps]];
    for (side, columns) in any.iter_mut().zip([many, one]) {
        for column in columns {
            side.iter_mut().enumerate().for_each(|(step, there)| *there |= column.is_at(step));
        }
    }
    let [many, one] = any;
    many.iter().zip(&one).map(|(a, b)| if fills { *a || *b } else { *a && *b }).collect()
}

/// What the pairs of a signature came to.
#[derive(Default)]
struct Results {
    pairs: Vec<Met>,
    /// Equal labels have equal numbers.
    names: ByLabels<usize>,
    places: HashMap<Pair, usize>,
}

/// A pair that met at some step, with its labels, built once.
struct Met {
    labels: Labels,
    name: usize,
    /// Unless no step left anything.
    column: Option<Column>,
}

impl Results {
    fn place(&mut self, pair: Pair, labels: impl FnOnce() -> Labels) -> usize {
        *self.places.entry(pair).or_insert_with(|| {
            let labels = labels();
            let count = self.names.len();
            let name = *self.names.entry(labels.clone()).or_insert(count);
            self.pairs.push(Met { labels, name, column: None });
            self.pairs.len() - 1
        })
    }
}

/// How the two sides of an operator meet.
struct Meets<'a> {
    binary: &'a Binary,
    span: Span,
    is_swapped: bool,
    is_open: Vec<bool>,
    steps: usize,
}

impl Meets<'_> {
    fn group(&self, key: &Labels, group: &Group<'_>, run: &mut Run<'_>) -> Result<Vec<Column>, EvalError> {
        self.check_one(key, group)?;
        let matching = &self.binary.matching;
        let fills = matching.fill_left.is_some() || matching.fill_right.is_some();
        if let ([many], [one]) = (&group.many[..], &group.one[..])
            && !fills
            && self.is_plain(many, one)
        {
            run.hold(self.steps)?;
            return Ok(self.floats(many, one));
        }
        let mut results = Results::default();
        for step in (0..self.steps).filter(|step| self.is_open[*step]) {
            run.check()?;
            let partner = group.one.iter().position(|column| column.is_at(step));
            let mut names_seen: HashSet<usize> = HashSet::with_capacity(group.many.len());
            let mut is_matched = false;
            for (at, many) in group.many.iter().enumerate() {
                let Some(left) = many.point(step) else { continue };
                let right = match (partner, matching.fill_right) {
                    (Some(one), _) => group.one[one].point(step).expect("it is there"),
                    (None, Some(fill)) => Point::Float(fill),
                    (None, None) => continue,
                };
                let Some((point, holds)) = self.apply(&left, &right, run) else { continue };
                let place = results.place((Some(at), partner), || match partner {
                    Some(one) => self.labels(&many.labels, &group.one[one].labels),
                    None => self.labels(&many.labels, &self.matched_labels(&many.labels)),
                });
                if matching.card == Card::OneToOne {
                    if is_matched {
                        return EvalError::execution(
                            "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)",
                        );
                    }
                } else if !names_seen.insert(results.pairs[place].name) {
                    return EvalError::execution(
                        "multiple matches for labels: grouping labels must ensure unique matches",
                    );
                }
                is_matched = true;
                if let Some(point) = self.kept(point, holds) {
                    self.column(&mut results, place, many.drop_name, run)?.set(step, Some(point));
                }
            }
            if let (false, Some(one), Some(fill)) = (is_matched, partner, matching.fill_left) {
                let column = group.one[one];
                let right = column.point(step).expect("it is there");
                let Some((point, holds)) = self.apply(&Point::Float(fill), &right, run) else { continue };
                if let Some(point) = self.kept(point, holds) {
                    let place = results.place((None, partner), || {
                        self.labels(&self.matched_labels(&column.labels), &column.labels)
                    });
                    self.column(&mut results, place, column.drop_name, run)?.set(step, Some(point));
                }
            }
        }
        Ok(results.pairs.into_iter().filter_map(|pair| pair.column).collect())
    }

    /// The column of a pair, made where it is not there yet.
    fn column<'r>(
        &self,
        results: &'r mut Results,
        place: usize,
        drops: bool,
        run: &mut Run<'_>,
    ) -> Result<&'r mut Column, EvalError> {
        let pair = &mut results.pairs[place];
        if pair.column.is_none() {
            run.hold(self.steps)?;
            let mut column = Column::empty(pair.labels.clone(), self.steps);
            column.drop_name = drops || self.binary.returns_bool;
            pair.column = Some(column);
        }
        Ok(pair.column.as_mut().expect("made above"))
    }

    fn is_plain(&self, many: &Column, one: &Column) -> bool {
        let is_trim = matches!(self.binary.op, BinaryOp::TrimLower | BinaryOp::TrimUpper);
        !many.has_histograms() && !one.has_histograms() && !is_trim
    }

    /// One series with one partner, both of floats alone: the common case.
    fn floats(&self, many: &Column, one: &Column) -> Vec<Column> {
        let mut floats = vec![ABSENT; self.steps];
        let mut is_there = false;
        for (step, place) in floats.iter_mut().enumerate() {
            let (value, other) = (many.floats[step], one.floats[step]);
            if is_absent(value) || is_absent(other) {
                continue;
            }
            let (left, right) = if self.is_swapped { (other, value) } else { (value, other) };
            let (result, holds) = elements::of_floats(self.binary.op, left, right);
            let result = if self.binary.returns_bool { f64::from(u8::from(holds)) } else { result };
            if holds || self.binary.returns_bool {
                *place = if is_absent(result) { f64::NAN } else { result };
                is_there = true;
            }
        }
        if !is_there {
            return Vec::new();
        }
        let mut column = Column::of_floats(self.labels(&many.labels, &one.labels), floats);
        column.drop_name = many.drop_name || self.binary.returns_bool;
        vec![column]
    }

    fn apply(&self, many: &Point, one: &Point, run: &mut Run<'_>) -> Option<(Point, bool)> {
        let (left, right) = if self.is_swapped { (one, many) } else { (many, one) };
        elements::of_points(self.binary.op, left, right, self.span, &mut run.notes)
    }

    fn kept(&self, point: Point, holds: bool) -> Option<Point> {
        if self.binary.returns_bool {
            return Some(Point::Float(f64::from(u8::from(holds))));
        }
        holds.then_some(point)
    }

    /// The "one" side may have one series per step and group.
    fn check_one(&self, key: &Labels, group: &Group<'_>) -> Result<(), EvalError> {
        if group.one.len() < 2 {
            return Ok(());
        }
        for step in (0..self.steps).filter(|step| self.is_open[*step]) {
            let mut there = group.one.iter().filter(|column| column.is_at(step));
            if let (Some(one), Some(other)) = (there.next(), there.next()) {
                let (first, second) = if one.labels < other.labels { (one, other) } else { (other, one) };
                let side = if self.is_swapped { "left" } else { "right" };
                return EvalError::execution(format!(
                    "found duplicate series for the match group {} on the {side} hand-side of the operation: [{}, {}];many-to-many matching not allowed: matching labels must be unique on one side",
                    plain(key),
                    plain(&first.labels),
                    plain(&second.labels)
                ));
            }
        }
        Ok(())
    }

    fn matched_labels(&self, labels: &Labels) -> Labels {
        signature(labels, &self.binary.matching)
    }

    fn labels(&self, many: &Labels, one: &Labels) -> Labels {
        let matching = &self.binary.matching;
        let is_named = |name: &str| matching.labels.iter().any(|label| label == name);
        let drops = self.binary.op.changes_meaning();
        let mut labels = many.filtered(|label| {
            let is_kept = matching.card != Card::OneToOne || is_named(&label.name) == matching.on;
            is_kept && !(drops && METADATA_LABELS.contains(&&*label.name))
        });
        for name in &matching.include {
            labels = labels.with(name, one.value(name));
        }
        labels
    }
}

/// Labels as Prometheus's messages write them: all in braces.
fn plain(labels: &Labels) -> String {
    let pairs: Vec<String> = labels
        .iter()
        .map(|label| format!("{}={}", label.name, binnacle_model::labels::quoted(&label.value)))
        .collect();
    format!("{{{}}}", pairs.join(", "))
}

fn scalar(op: BinaryOp, left: f64, right: f64) -> f64 {
    let (result, holds) = elements::of_floats(op, left, right);
    if op.is_comparison() { f64::from(u8::from(holds)) } else { result }
}

fn number_result(op: BinaryOp, returns_bool: bool, value: f64, number: f64, is_swapped: bool) -> f64 {
    let (left, right) = if is_swapped { (number, value) } else { (value, number) };
    let (result, holds) = elements::of_floats(op, left, right);
    let result = match () {
        () if returns_bool => f64::from(u8::from(holds)),
        () if !holds => return ABSENT,
        // A comparison answers the vector's value, on whichever side it stands.
        () if op.is_comparison() => value,
        () => result,
    };
    if is_absent(result) { f64::NAN } else { result }
}

/// What a comparison or an arithmetic operator leaves of a vector's point.
fn chosen(op: BinaryOp, returns_bool: bool, result: Option<(Point, bool)>, point: &Point) -> Option<Point> {
    let (result, holds) = result?;
    if returns_bool {
        return Some(Point::Float(f64::from(u8::from(holds))));
    }
    if op.is_comparison() { holds.then(|| point.clone()) } else { Some(result) }
}

/// The labels by which series meet.
fn signature(labels: &Labels, matching: &Matching) -> Labels {
    let is_named = |name: &str| matching.labels.iter().any(|label| label == name);
    if matching.on {
        labels.filtered(|label| is_named(&label.name))
    } else {
        labels.filtered(|label| &*label.name != METRIC_NAME && !is_named(&label.name))
    }
}

/// At which steps there is a series of each signature.
type Presence = ByLabels<Vec<bool>>;

impl Run<'_> {
    fn presence(&self, columns: &[Column], matching: &Matching, grid: Grid) -> Result<Presence, EvalError> {
        let mut groups = Presence::default();
        for column in columns {
            let group = match groups.entry(signature(&column.labels, matching)) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place) => {
                    self.hold(grid.steps.div_ceil(16))?;
                    place.insert(vec![false; grid.steps])
                }
            };
            group.iter_mut().enumerate().for_each(|(step, there)| *there |= column.is_at(step));
            self.check()?;
        }
        Ok(groups)
    }

    /// `and` keeps what has a partner, `unless` what has none.
    fn set_and(
        &self,
        mut left: Vec<Column>,
        right: &[Column],
        matching: &Matching,
        keeps_partnered: bool,
        grid: Grid,
    ) -> Result<Vec<Column>, EvalError> {
        let groups = self.presence(right, matching, grid)?;
        let nobody = vec![false; grid.steps];
        for column in &mut left {
            let partners = groups.get(&signature(&column.labels, matching)).unwrap_or(&nobody);
            clear_where(column, |step| partners[step] != keeps_partnered);
            self.check()?;
        }
        left.retain(|column| !column.is_empty());
        Ok(left)
    }

    fn set_or(
        &self,
        left: Vec<Column>,
        mut right: Vec<Column>,
        matching: &Matching,
        grid: Grid,
    ) -> Result<Vec<Column>, EvalError> {
        let groups = self.presence(&left, matching, grid)?;
        for column in &mut right {
            if let Some(partners) = groups.get(&signature(&column.labels, matching)) {
                clear_where(column, |step| partners[step]);
            }
            self.check()?;
        }
        right.retain(|column| !column.is_empty());
        // The same series may come from the left at some steps and from the right at others.
        unique(left.into_iter().chain(right).collect())
    }
}

fn clear_where(column: &mut Column, goes: impl Fn(usize) -> bool) {
    for step in (0..column.floats.len()).filter(|step| goes(*step)) {
        column.clear(step);
    }
}
