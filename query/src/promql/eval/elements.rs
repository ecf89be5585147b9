//! One operator, two values.

use std::sync::Arc;

use binnacle_model::histogram::ResetHint;

use super::super::ast::{BinaryOp, Span};
use super::super::notes::Notes;
use super::column::Point;
use super::trim;

/// The result of an operator on floats, and whether a comparison holds.
pub(super) fn of_floats(op: BinaryOp, left: f64, right: f64) -> (f64, bool) {
    let result = match op {
        BinaryOp::Add => left + right,
        BinaryOp::Sub => left - right,
        BinaryOp::Mul => left * right,
        BinaryOp::Div => left / right,
        BinaryOp::Mod => left % right,
        BinaryOp::Pow => power(left, right),
        BinaryOp::Atan2 => left.atan2(right),
        BinaryOp::Eq => return (left, left == right),
        BinaryOp::Ne => return (left, left != right),
        BinaryOp::Gt => return (left, left > right),
        BinaryOp::Lt => return (left, left < right),
        BinaryOp::Ge => return (left, left >= right),
        BinaryOp::Le => return (left, left <= right),
        BinaryOp::And | BinaryOp::Or | BinaryOp::Unless | BinaryOp::TrimUpper | BinaryOp::TrimLower => {
            (f64::NAN, false).0
        }
    };
    (result, true)
}

/// As Go's `math.Pow`, which C's differs from in nothing but the sign of a few NaN.
fn power(base: f64, exponent: f64) -> f64 {
    base.powf(exponent)
}

/// The result of an operator on two points, and whether a comparison holds. `None` if the two cannot be
/// combined, which is noted.
pub(super) fn of_points(
    op: BinaryOp,
    left: &Point,
    right: &Point,
    span: Span,
    notes: &mut Notes,
) -> Option<(Point, bool)> {
    match (left, right) {
        (Point::Float(_), Point::Float(_)) if matches!(op, BinaryOp::TrimLower | BinaryOp::TrimUpper) => {
            incompatible(op, left, right, span, notes)
        }
        (Point::Float(left), Point::Float(right)) => {
            let (result, holds) = of_floats(op, *left, *right);
            Some((Point::Float(result), holds))
        }
        (Point::Float(factor), Point::Histogram(histogram))
        | (Point::Histogram(histogram), Point::Float(factor))
            if op == BinaryOp::Mul =>
        {
            let mut product = (**histogram).clone();
            product.scale(*factor);
            product.compact();
            Some((Point::Histogram(Arc::new(product)), true))
        }
        (Point::Histogram(histogram), Point::Float(divisor)) if op == BinaryOp::Div => {
            let mut quotient = (**histogram).clone();
            quotient.divide(*divisor);
            quotient.compact();
            Some((Point::Histogram(Arc::new(quotient)), true))
        }
        (Point::Histogram(histogram), Point::Float(border))
            if matches!(op, BinaryOp::TrimLower | BinaryOp::TrimUpper) =>
        {
            let trimmed = trim::trimmed(histogram, *border, op == BinaryOp::TrimUpper);
            Some((Point::Histogram(Arc::new(trimmed)), true))
        }
        (Point::Histogram(a), Point::Histogram(b)) => match op {
            BinaryOp::Eq => Some((left.clone(), a == b)),
            BinaryOp::Ne => Some((left.clone(), a != b)),
            BinaryOp::Add | BinaryOp::Sub => sum(op, left, right, span, notes),
            _ => incompatible(op, left, right, span, notes),
        },
        _ => incompatible(op, left, right, span, notes),
    }
}

fn sum(op: BinaryOp, left: &Point, right: &Point, span: Span, notes: &mut Notes) -> Option<(Point, bool)> {
    let (Point::Histogram(left), Point::Histogram(right)) = (left, right) else { return None };
    let mut result = (**left).clone();
    let is_sum = op == BinaryOp::Add;
    let done = if is_sum { result.add(right) } else { result.subtract(right) };
    let Ok(done) = done else {
        let text = format!("incompatible bucket layout encountered for binary operator {}", op.as_str());
        notes.warn(span, &text);
        return None;
    };
    let operation = if is_sum { "addition" } else { "subtraction" };
    if done.collision {
        notes.collision(span, operation);
    }
    if done.reconciled {
        notes.reconciled(span, operation);
    }
    if !is_sum {
        result.hint = ResetHint::Gauge;
    }
    result.compact();
    Some((Point::Histogram(Arc::new(result)), true))
}

fn incompatible(
    op: BinaryOp,
    left: &Point,
    right: &Point,
    span: Span,
    notes: &mut Notes,
) -> Option<(Point, bool)> {
    let kind = |point: &Point| if matches!(point, Point::Float(_)) { "float" } else { "histogram" };
    let (left, right, op) = (kind(left), kind(right), op.as_str());
    let text =
        format!("incompatible sample types encountered for binary operator {op:?}: {left} {op} {right}");
    notes.inform(span, &text);
    None
}
