//! Parts of PromQL that Prometheus calls experimental, under the names of its flags.

use super::ast::{AggregateOp, Borders, DurationExpr, Expr, Kind, Reach, Selector, Span};
use super::functions;
use super::parser::ParseError;

/// Which experimental parts are on. All are off by default, as in Prometheus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(clippy::struct_excessive_bools, reason = "one for each of Prometheus's flags")]
pub struct Features {
    /// `promql-experimental-functions`
    pub experimental_functions: bool,
    /// `promql-duration-expr`
    pub duration_expr: bool,
    /// `promql-extended-range-selectors`
    pub extended_range: bool,
    /// `promql-binop-fill-modifiers`
    pub fill: bool,
    /// `type-and-unit-labels`
    pub type_and_unit: bool,
}

impl Features {
    /// Switches on what Prometheus knows by this name. Answers whether there is such a part; names of
    /// Prometheus that need no switch here count as known.
    pub fn enable(&mut self, name: &str) -> bool {
        let switch = match name {
            "promql-experimental-functions" => &mut self.experimental_functions,
            "promql-duration-expr" => &mut self.duration_expr,
            "promql-extended-range-selectors" => &mut self.extended_range,
            "promql-binop-fill-modifiers" => &mut self.fill,
            "type-and-unit-labels" => &mut self.type_and_unit,
            "native-histograms"
            | "promql-at-modifier"
            | "promql-negative-offset"
            | "exemplar-storage"
            | "promql-delayed-name-removal"
            | "promql-per-step-stats"
            | "remote-write-receiver" => return true,
            _ => return false,
        };
        *switch = true;
        true
    }

    /// Whether the query gets by with what is on.
    ///
    /// # Errors
    /// What is off, where it stands, and the flag that switches it on.
    pub fn check(self, text: &str, expr: &Expr) -> Result<(), ParseError> {
        let refuse = |span: Span, what: &str, flag: &str| {
            let reason = format!("{what} is experimental and must be enabled with --enable-feature={flag}");
            Err(ParseError::new(text, span.start, reason))
        };
        match &expr.kind {
            Kind::Vector(selector) => self.check_selector(text, expr.span, selector)?,
            Kind::Matrix(selector, range) => {
                self.check_selector(text, expr.span, selector)?;
                self.check_reach(text, expr.span, range)?;
            }
            Kind::Subquery(subquery) => {
                self.check_reach(text, expr.span, &subquery.range)?;
                self.check_reach(text, expr.span, &subquery.offset)?;
                if let Some(step) = &subquery.step {
                    self.check_reach(text, expr.span, step)?;
                }
            }
            Kind::Binary(binary) => {
                let fills = binary.matching.fill_left.is_some() || binary.matching.fill_right.is_some();
                if fills && !self.fill {
                    return refuse(expr.span, "filling in of missing series", "promql-binop-fill-modifiers");
                }
            }
            Kind::Aggregate(aggregation) => {
                let is_experimental = matches!(aggregation.op, AggregateOp::Limitk | AggregateOp::LimitRatio);
                if is_experimental && !self.experimental_functions {
                    let what = format!("{}()", aggregation.op.as_str());
                    return refuse(expr.span, &what, "promql-experimental-functions");
                }
            }
            Kind::Call(call) => {
                let signature = functions::signature(call.name);
                if signature.is_some_and(|one| one.experimental) && !self.experimental_functions {
                    let what = format!("function {:?}", call.name);
                    return refuse(expr.span, &what, "promql-experimental-functions");
                }
            }
            Kind::Number(..) | Kind::Text(_) | Kind::Unary { .. } | Kind::Paren(_) => {}
        }
        expr.parts().into_iter().try_for_each(|part| self.check(text, part))
    }

    fn check_selector(self, text: &str, span: Span, selector: &Selector) -> Result<(), ParseError> {
        let modifier = match selector.borders {
            Borders::Strict => "",
            Borders::Anchored => "anchored",
            Borders::Smoothed => "smoothed",
        };
        if !modifier.is_empty() && !self.extended_range {
            let reason = format!(
                "{modifier} modifier is experimental and must be enabled with --enable-feature=promql-extended-range-selectors"
            );
            return Err(ParseError::new(text, span.start, reason));
        }
        self.check_reach(text, span, &selector.offset)
    }

    fn check_reach(self, text: &str, span: Span, reach: &Reach) -> Result<(), ParseError> {
        let is_plain = |expr: &DurationExpr| matches!(expr, DurationExpr::Seconds(..));
        match reach {
            Reach::Calculated(expr) if !self.duration_expr && !is_plain(expr) => {
                let reason = "experimental duration expression is not enabled; enable it with --enable-feature=promql-duration-expr";
                Err(ParseError::new(text, span.start, reason.to_owned()))
            }
            _ => Ok(()),
        }
    }
}
