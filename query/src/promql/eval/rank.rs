//! `topk`, `bottomk`, `limitk`, `limit_ratio`: some of a group's series, as they are.

use binnacle_model::Labels;
use xxhash_rust::xxh64::xxh64;

use super::super::ast::{AggregateOp, Aggregation, Span};
use super::aggregate::Groups;
use super::column::{Column, Point, is_absent};
use super::{EvalError, Grid, Run, Value};

/// Beyond these a number is no count of series any more.
const COUNT_MAX: f64 = 9_223_372_036_854_774_784.0;
const COUNT_MIN: f64 = -9_223_372_036_854_775_808.0;

impl Run<'_> {
    pub(super) fn ranked(
        &mut self,
        span: Span,
        aggregation: &Aggregation,
        params: &[f64],
        grid: Grid,
    ) -> Result<Value, EvalError> {
        let op = aggregation.op;
        self.check_params(aggregation, params)?;
        let was_ordered = std::mem::replace(&mut self.is_ordered, true);
        let columns = self.columns(&aggregation.expr, grid);
        self.is_ordered = was_ordered;
        let columns = columns?;
        let mut groups = Groups::new(&aggregation.grouping);
        let mut members: Vec<Vec<Column>> = Vec::new();
        for column in columns {
            let at = groups.of(&column.labels);
            if at == members.len() {
                members.push(Vec::new());
            }
            members[at].push(column);
        }
        let mut found = Vec::new();
        for mut group in members {
            self.check()?;
            match op {
                AggregateOp::Topk | AggregateOp::Bottomk => {
                    self.ignore_histograms(op, span, &group);
                    let largest = op == AggregateOp::Topk;
                    keep_ranked(&mut group, params, largest);
                    group.retain(|column| !column.is_empty());
                    if grid.steps == 1 {
                        sort_by_value(&mut group, largest);
                    }
                }
                AggregateOp::Limitk => keep_first(&mut group, params),
                _ => keep_ratio(&mut group, params),
            }
            group.retain(|column| !column.is_empty());
            found.extend(group);
        }
        Ok(Value::Vector(found))
    }

    fn check_params(&mut self, aggregation: &Aggregation, params: &[f64]) -> Result<(), EvalError> {
        let span = aggregation.param.as_ref().map(|param| param.bare().span).unwrap_or_default();
        let most = params.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let least = params.iter().copied().fold(f64::INFINITY, f64::min);
        let has_nan = params.iter().any(|value| value.is_nan());
        if aggregation.op == AggregateOp::LimitRatio {
            if has_nan {
                return EvalError::execution("Ratio value is NaN");
            }
            for (value, limit) in [(most, 1.0), (least, -1.0)] {
                if (limit > 0.0 && value > limit) || (limit < 0.0 && value < limit) {
                    let text = format!(
                        "ratio value should be between -1 and 1, got {}, capping to {limit}",
                        binnacle_model::histogram::short(value)
                    );
                    self.notes.warn(span, &text);
                }
            }
            return Ok(());
        }
        if has_nan {
            return EvalError::execution("Parameter value is NaN");
        }
        if least <= COUNT_MIN {
            return EvalError::execution(format!("Scalar value {least} underflows int64"));
        }
        if most >= COUNT_MAX {
            return EvalError::execution(format!("Scalar value {most} overflows int64"));
        }
        Ok(())
    }

    fn ignore_histograms(&mut self, op: AggregateOp, span: Span, group: &[Column]) {
        if group.iter().any(|column| column.histograms.iter().any(Option::is_some)) {
            self.notes.inform(span, &format!("ignored histogram in {} aggregation", op.as_str()));
        }
    }
}

/// Keeps of each step the `k` largest or smallest floats; a NaN only where nothing else is left.
fn keep_ranked(members: &mut [Column], params: &[f64], largest: bool) {
    members.iter_mut().for_each(|column| column.histograms.clear());
    let mut heap = Heap { largest, places: Vec::new() };
    let mut kept: Vec<bool> = Vec::new();
    for (step, k) in params.iter().enumerate() {
        let k = if *k >= 1.0 { (*k as usize).min(members.len()) } else { 0 };
        heap.places.clear();
        for (place, member) in members.iter_mut().enumerate() {
            let value = member.floats[step];
            if is_absent(value) {
                continue;
            }
            let worst = heap.places.first().map(|worst| worst.0);
            if heap.places.len() < k {
                heap.push((value, place));
            } else if worst
                .is_some_and(|worst| heap.is_less(worst, value) && !(worst.is_nan() && value.is_nan()))
            {
                heap.replace_worst((value, place));
            }
        }
        kept.clear();
        kept.resize(members.len(), false);
        heap.places.iter().for_each(|(_, place)| kept[*place] = true);
        for (member, _) in members.iter_mut().zip(&kept).filter(|(_, kept)| !**kept) {
            member.clear(step);
        }
    }
}

/// The best values so far, the worst of them on top. As Go's `container/heap`, step by step: which of several
/// equal values stay depends on how the heap moves them.
struct Heap {
    largest: bool,
    places: Vec<(f64, usize)>,
}

impl Heap {
    /// Whether `a` is worse than `b`. A NaN is worse than anything.
    fn is_less(&self, a: f64, b: f64) -> bool {
        a.is_nan() || if self.largest { a < b } else { a > b }
    }

    fn is_less_at(&self, a: usize, b: usize) -> bool {
        self.is_less(self.places[a].0, self.places[b].0)
    }

    fn push(&mut self, one: (f64, usize)) {
        self.places.push(one);
        let mut at = self.places.len() - 1;
        while at > 0 {
            let parent = (at - 1) / 2;
            if !self.is_less_at(at, parent) {
                return;
            }
            self.places.swap(at, parent);
            at = parent;
        }
    }

    fn replace_worst(&mut self, one: (f64, usize)) {
        self.places[0] = one;
        let mut at = 0;
        loop {
            let (left, right) = (2 * at + 1, 2 * at + 2);
            if left >= self.places.len() {
                return;
            }
            let is_right = right < self.places.len() && self.is_less_at(right, left);
            let child = if is_right { right } else { left };
            if !self.is_less_at(child, at) {
                return;
            }
            self.places.swap(at, child);
            at = child;
        }
    }
}

/// Keeps of each step the first `k` series.
fn keep_first(members: &mut [Column], params: &[f64]) {
    for (step, k) in params.iter().enumerate() {
        let k = if *k >= 1.0 { *k as usize } else { 0 };
        members.iter_mut().filter(|column| column.is_at(step)).skip(k).for_each(|column| column.clear(step));
    }
}

/// Keeps a part of the series, always the same ones: by a hash of their labels. A negative part is what the
/// positive rest would leave out.
fn keep_ratio(members: &mut [Column], params: &[f64]) {
    for column in members {
        let place = hash(&column.labels) as f64 / u64::MAX as f64;
        for (step, ratio) in params.iter().enumerate() {
            let ratio = ratio.clamp(-1.0, 1.0);
            let is_kept = if ratio >= 0.0 { place < ratio } else { place >= 1.0 + ratio };
            if !is_kept {
                column.clear(step);
            }
        }
    }
}

/// Prometheus's hash of labels, so that both keep the same series: XXH64 of every name and value behind
/// its length.
fn hash(labels: &Labels) -> u64 {
    let mut bytes = Vec::new();
    for text in labels.iter().flat_map(|label| [&label.name, &label.value]) {
        let length = text.len();
        if length < 255 {
            bytes.push(length as u8);
        } else {
            bytes.push(255);
            bytes.extend_from_slice(&(length as u32).to_le_bytes()[..3]);
        }
        bytes.extend_from_slice(text.as_bytes());
    }
    xxh64(&bytes, 0)
}

/// Orders columns by their first value, NaN last.
pub(super) fn sort_by_value(columns: &mut [Column], descending: bool) {
    let value = |column: &Column| match column.point(0) {
        Some(Point::Float(value)) => value,
        _ => f64::NAN,
    };
    columns.sort_by(|a, b| {
        let (a, b) = (value(a), value(b));
        let by_value = if descending { b.partial_cmp(&a) } else { a.partial_cmp(&b) };
        a.is_nan().cmp(&b.is_nan()).then(by_value.unwrap_or(std::cmp::Ordering::Equal))
    });
}
