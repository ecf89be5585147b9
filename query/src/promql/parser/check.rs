//! Types and counts of arguments, after the whole text was read.

use super::super::ast::ValueType::{self, Scalar, String as Text, Vector};
use super::super::ast::{AggregateOp, Aggregation, Binary, Call, Card, Expr, Kind, Selector, Span};
use super::super::functions;
use super::ParseError;

/// Checks an expression and all its parts.
pub(super) fn check(text: &str, expr: &Expr) -> Result<(), ParseError> {
    let checker = Checker { text };
    checker.expr(expr)
}

struct Checker<'a> {
    text: &'a str,
}

impl Checker<'_> {
    fn refuse(&self, span: Span, reason: impl Into<String>) -> Result<(), ParseError> {
        Err(ParseError::new(self.text, span.start, reason.into()))
    }

    fn expr(&self, expr: &Expr) -> Result<(), ParseError> {
        match &expr.kind {
            Kind::Vector(selector) | Kind::Matrix(selector, _) => self.selector(expr.span, selector),
            Kind::Call(call) => self.call(expr.span, call),
            Kind::Aggregate(aggregation) => self.aggregation(aggregation),
            Kind::Binary(binary) => self.binary(expr.span, binary),
            Kind::Unary { expr: inner, .. } => {
                self.expr(inner)?;
                let kind = inner.value_type();
                if matches!(kind, Scalar | Vector) {
                    return Ok(());
                }
                let reason = format!(
                    "unary expression only allowed on expressions of type scalar or instant vector, got {:?}",
                    kind.name()
                );
                self.refuse(expr.span, reason)
            }
            Kind::Subquery(subquery) => {
                self.expr(&subquery.expr)?;
                let kind = subquery.expr.value_type();
                if kind == Vector {
                    return Ok(());
                }
                let reason =
                    format!("subquery is only allowed on instant vector, got {} instead", kind.name());
                self.refuse(expr.span, reason)
            }
            Kind::Paren(inner) => self.expr(inner),
            Kind::Number(..) | Kind::Text(_) => Ok(()),
        }
    }

    /// A selector of everything is a typing error more often than a wish.
    fn selector(&self, span: Span, selector: &Selector) -> Result<(), ParseError> {
        if selector.matchers.iter().all(|matcher| matcher.matches("")) {
            return self.refuse(span, "vector selector must contain at least one non-empty matcher");
        }
        Ok(())
    }

    fn expect(&self, expr: &Expr, want: ValueType, context: &str) -> Result<(), ParseError> {
        let got = expr.value_type();
        if got == want {
            return Ok(());
        }
        let reason = format!("expected type {} in {context}, got {}", want.name(), got.name());
        self.refuse(expr.span, reason)
    }

    fn aggregation(&self, aggregation: &Aggregation) -> Result<(), ParseError> {
        self.expr(&aggregation.expr)?;
        self.expect(&aggregation.expr, Vector, "aggregation expression")?;
        if let Some(param) = &aggregation.param {
            self.expr(param)?;
            let want = if aggregation.op == AggregateOp::CountValues { Text } else { Scalar };
            self.expect(param, want, "aggregation parameter")?;
        }
        Ok(())
    }

    fn call(&self, span: Span, call: &Call) -> Result<(), ParseError> {
        let Some(signature) = functions::signature(call.name) else { return Ok(()) };
        let (name, got) = (call.name, call.args.len());
        let (least, most) = (signature.required, signature.most);
        if got < least || got > most {
            let expected = if least == most {
                format!("expected {least} argument(s)")
            } else if got < least {
                format!("expected at least {least} argument(s)")
            } else {
                format!("expected at most {most} argument(s)")
            };
            return self.refuse(span, format!("{expected} in call to {name:?}, got {got}"));
        }
        for (i, arg) in call.args.iter().enumerate() {
            if name == "info" && i == 1 {
                self.info_labels(arg)?;
                continue;
            }
            self.expr(arg)?;
            let want = signature.args[i.min(signature.args.len() - 1)];
            self.expect(arg, want, &format!("call to function {name:?}"))?;
        }
        Ok(())
    }

    /// The second argument of `info` selects labels, so that it may match everything.
    fn info_labels(&self, arg: &Expr) -> Result<(), ParseError> {
        match &arg.kind {
            Kind::Vector(selector) if selector.name.is_some() => {
                self.refuse(arg.span, "expected label selectors only, got vector selector instead")
            }
            Kind::Vector(_) => Ok(()),
            _ => self.refuse(arg.span, "expected label selectors only"),
        }
    }

    fn binary(&self, span: Span, binary: &Binary) -> Result<(), ParseError> {
        let Binary { op, left, right, returns_bool, matching } = binary;
        self.expr(left)?;
        self.expr(right)?;
        let (left_type, right_type) = (left.value_type(), right.value_type());
        // Where the operator stands: behind the left side and its blanks.
        let gap = self.text.get(left.span.end..).map_or(0, |rest| rest.len() - rest.trim_start().len());
        let operator = Span { start: left.span.end + gap, end: right.span.start };
        if *returns_bool && !op.is_comparison() {
            return self.refuse(operator, "bool modifier can only be used on comparison operators");
        }
        let scalars = left_type == Scalar && right_type == Scalar;
        if op.is_comparison() && !returns_bool && scalars {
            return self.refuse(operator, "comparisons between scalars must use BOOL modifier");
        }
        if matching.on
            && let Some(label) = matching.labels.iter().find(|label| matching.include.contains(label))
        {
            let reason = format!("label {label:?} must not occur in ON and GROUP clause at once");
            return self.refuse(operator, reason);
        }
        for (side, kind) in [(left, left_type), (right, right_type)] {
            if !matches!(kind, Scalar | Vector) {
                let reason = "binary expression must contain only scalar and instant vector types";
                return self.refuse(side.span, reason);
            }
        }
        let fills = matching.fill_left.is_some() || matching.fill_right.is_some();
        if left_type == Scalar || right_type == Scalar {
            if op.is_set() {
                let reason =
                    format!("set operator {:?} not allowed in binary scalar expression", op.as_str());
                return self.refuse(span, reason);
            }
            if !matching.labels.is_empty() {
                return self.refuse(span, "vector matching only allowed between instant vectors");
            }
            if fills {
                let reason = "filling in missing series only allowed between instant vectors";
                return self.refuse(span, reason);
            }
        } else if op.is_set() {
            if matching.card != Card::ManyToMany {
                return self.refuse(span, format!("no grouping allowed for {:?} operation", op.as_str()));
            }
            if fills {
                return self.refuse(span, "filling in missing series not allowed for set operators");
            }
        }
        Ok(())
    }
}
